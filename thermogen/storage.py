"""Energies and libraries on disk: plain arrays and a readable header, never pickles.

Every write is atomic: the file appears whole or not at all, and an older file stays until then.
Every file carries a checksum, and what is read must pass the checks of its class.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._files import PathLike, open_regular, read_archive, write_archive
from ._files import locked as locked
from ._files import replace as replace
from ._files import write_atomically as write_atomically
from .energies import AbstractEnergy, constrain, describe, rebuild
from .search import PER_STATE, Kind, Library

_ENERGY_FORMAT = "thermogen energy"
_LIBRARY_FORMAT = "thermogen library 3"
_VERSION = 2
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_DIGEST = hashlib.sha256().digest_size


def save_energy(
    path: PathLike, energy: AbstractEnergy, *, notes: Mapping[str, Any] | None = None
) -> None:
    """Write an energy: one line of JSON that says what it is, its parameters, and a checksum.

    Args:
        path: the file to write, such as `model.eqx`.
        energy: an energy of the package, mixtures included, or of a class that registers
            `thermogen.energies.describe` and `rebuild`.
        notes: what is to be kept beside it, such as names of spins, as `json.dumps` takes it;
            `load_notes` reads it.

    Raises:
        ValueError: for an energy of another class, or with parameters that are not finite.
        TypeError: for notes that are no JSON.
        OSError: if the file cannot be written.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        tg.storage.save_energy("model.eqx", energy)
        assert jnp.array_equal(tg.storage.load_energy("model.eqx").couplings, energy.couplings)
        ```
    """
    described = {"class": type(energy).__name__, "structure": describe(energy)}
    energy = _given_back(constrain(energy), described)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(energy)]
    dtype = jnp.result_type(*leaves) if leaves else jnp.dtype("float32")
    header = {
        "format": _ENERGY_FORMAT,
        "version": _VERSION,
        **described,
        "dtype": str(dtype),
        **({"notes": dict(notes)} if notes else {}),
    }
    digest = hashlib.sha256()
    with write_atomically(path) as stream:
        for part in (json.dumps(header).encode() + b"\n", *_bytes(leaves, dtype)):
            stream.write(part)
            digest.update(part)
        stream.write(digest.digest())


def _given_back(energy: AbstractEnergy, described: dict[str, Any]) -> AbstractEnergy:
    """The energy as its class makes it anew, which must be the same."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(energy)]
    order = iter(leaves)
    made = rebuild(described["class"], described["structure"], lambda *_: next(order))
    same = jax.tree.structure(made) == jax.tree.structure(energy)
    if not same or not all(map(np.array_equal, leaves, jax.tree.leaves(made))):
        raise ValueError(
            f"energy: the rules describe and rebuild of {described['class']} do not give it back"
        )
    return made


def _bytes(leaves: list[np.ndarray], dtype: np.dtype) -> Iterator[bytes]:
    """The numbers row by row, least significant byte first."""
    return (leaf.astype(dtype.newbyteorder("<")).tobytes() for leaf in leaves)


def load_energy(path: PathLike) -> AbstractEnergy:
    """Read an energy that `save_energy` wrote.

    Args:
        path: the file to read.

    Returns:
        The energy in the dtype it was saved in; float64 becomes float32 where JAX runs in float32.

    Raises:
        ValueError: if the file is damaged, is not of this kind, holds an unknown class, or
            parameters that its class refuses.
        OSError: if the file cannot be read.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        energy = tg.Pairwise(np.zeros((2, 2)), np.ones(2))
        tg.storage.save_energy("energy.eqx", energy)

        assert tg.storage.load_energy("energy.eqx")(np.ones(2)) == -2
        ```
    """
    header, numbers = _read(path)
    try:
        return _rebuilt(header, numbers)
    # A header of another hand can make almost anything fail: RecursionError, OverflowError, ...
    except Exception as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error


def load_notes(path: PathLike) -> dict[str, Any]:
    """Read what `save_energy` kept beside an energy; empty where that is nothing.

    Raises:
        ValueError: if the file is damaged, or is not of this kind.
        OSError: if the file cannot be read.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        tg.storage.save_energy("energy.eqx", tg.Pairwise(np.zeros((2, 2)), np.ones(2)))

        assert tg.storage.load_notes("energy.eqx") == {}
        ```
    """
    notes = _read(path)[0].get("notes", {})
    if not isinstance(notes, dict):
        raise ValueError(f"{path} is truncated or damaged: its notes are a {type(notes).__name__}")
    return notes


def _read(path: PathLike) -> tuple[dict[str, Any], memoryview]:
    """Header and numbers of a file whose checksum is right."""
    with open_regular(path) as (stream, size):
        content = stream.read(size)
    end = content.find(b"\n") + 1
    header = _read_header(content[:end], path)
    view = memoryview(content)  # slices of it are no copies
    if hashlib.sha256(view[:-_DIGEST]).digest() != view[-_DIGEST:]:
        raise ValueError(f"{path} is truncated or damaged: its checksum is wrong")
    return header, view[end:-_DIGEST]


def _read_header(line: bytes, path: PathLike) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != _ENERGY_FORMAT:
        raise ValueError(f"{path} is not an energy saved by thermogen")
    if header.get("version") != _VERSION:
        raise ValueError(
            f"{path} has format version {header.get('version')!r}; this thermogen reads {_VERSION}"
        )
    if header.get("class") not in rebuild.names:  # a list, for the value may be unhashable
        raise ValueError(
            f"{path} holds an energy of the unknown class {header.get('class')!r}; expected one "
            f"of {', '.join(rebuild.names)}: import the module that registers it"
        )
    return header


def _rebuilt(header: dict[str, Any], numbers: memoryview) -> AbstractEnergy:
    """The energy that the header announces; its parameters must fill the bytes to the last."""
    if header["dtype"] not in _DTYPES:
        raise ValueError(f"its dtype is {header['dtype']!r}; expected one of {', '.join(_DTYPES)}")
    dtype, name, structure = jnp.dtype(header["dtype"]), header["class"], header["structure"]
    shapes = []

    def announce(*shape: int) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape)

    # Abstract: nothing is allocated before it is clear that the file holds as many numbers.
    eqx.filter_eval_shape(lambda: rebuild(name, structure, announce))
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) * dtype.itemsize != len(numbers):
        raise ValueError(
            f"it announces {sum(sizes)} numbers of {dtype} and holds {len(numbers)} bytes"
        )
    table = np.frombuffer(numbers, dtype.newbyteorder("<")).astype(dtype)
    parts = iter(np.split(table, np.cumsum(sizes, dtype=int))[:-1])
    return rebuild(name, structure, lambda *shape: jnp.asarray(next(parts).reshape(shape)))


def save_library(path: PathLike, library: Library) -> None:
    """Write a library as a compressed `.npz` archive, one array a field, and a checksum.

    Args:
        path: the file to write, such as `library.npz`.
        library: the library.

    Raises:
        ValueError: for arrays that are no library.
        OSError: if the file cannot be written.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        tg.storage.save_library("library.npz", library)

        assert len(tg.storage.load_library("library.npz")) == len(library)
        ```
    """
    arrays = {name: np.asarray(getattr(library, name)) for name in _library_fields()}
    _check_library(arrays)
    if not np.all(arrays["mask"]):
        arrays |= {name: arrays[name][arrays["mask"]] for name in PER_STATE}
    write_archive(path, _LIBRARY_FORMAT, arrays)


def load_library(path: PathLike) -> Library:
    """Read a library that `save_library` wrote.

    Args:
        path: the file to read.

    Returns:
        The library, of NumPy arrays as they were saved.

    Raises:
        ValueError: if the file is damaged, is not a library, or holds what no library can.
        OSError: if the file cannot be read.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        tg.storage.save_library("library.npz", library)

        assert len(tg.storage.load_library("library.npz")) == len(library)
        ```
    """
    arrays = read_archive(path, _LIBRARY_FORMAT, "a library")
    if set(arrays) != set(_library_fields()):
        raise ValueError(f"{path} is not a library saved by this version of thermogen")
    try:
        _check_library(arrays)
    except ValueError as error:
        raise ValueError(f"{path} holds no library: {error}") from error
    return Library(**arrays)


def _check_library(arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError, by name, for arrays that no search leaves behind."""
    m, mask = arrays["magnetizations"], arrays["mask"]
    if m.ndim != 2 or mask.shape != m.shape[:1] or arrays["overflow"].shape != ():
        raise ValueError(f"magnetizations and mask have shapes {m.shape} and {mask.shape}")
    counts = dict.fromkeys(("hits", "given_hits", "multiplicity", "unresolved"), "iu")
    kinds = {**counts, "kind": "i", "mask": "b", "overflow": "b", "runs": "u", "fingerprint": "u"}
    for name in _library_fields():
        array = arrays[name]
        if array.dtype.kind not in kinds.get(name, "f"):
            raise ValueError(f"{name} has dtype {array.dtype}")
        of_spins = name in ("magnetizations", "fields")
        if name in PER_STATE and array.shape != (m.shape if of_spins else mask.shape):
            raise ValueError(f"its arrays differ in length: {name} has shape {array.shape}")
    held = {name: arrays[name][mask] for name in PER_STATE}
    sound = {
        "mask": not np.any(np.diff(mask.astype(int)) > 0),  # states first, then unused places
        "magnetizations": np.all(np.abs(held["magnetizations"]) <= 1),
        "fields": not np.any(np.isnan(held["fields"])),
        "kind": np.all(np.isin(held["kind"], list(Kind))),
        "free_energies": np.all(np.isfinite(held["free_energies"])),
        "residuals": np.all(held["residuals"] >= 0),
        "curvatures": not np.any(np.isnan(held["curvatures"])),
        "hits": np.all((held["hits"] >= held["given_hits"]) & (held["given_hits"] >= 0)),
        "multiplicity": np.all(np.isin(held["multiplicity"], (1, 2))),
    }
    for name, right in sound.items():
        if not right:
            raise ValueError(f"{name} holds what no library can")


def _library_fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Library)]
