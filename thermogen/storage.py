"""Energies and libraries on disk: plain arrays and a readable header, never pickles.

Every write is atomic: the file appears whole or not at all, and an older file stays until then.
Every file carries a checksum, and what is read must pass the checks of its class.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_count
from ._files import PathLike, open_regular, read_archive, write_archive
from ._files import replace as replace
from ._files import write_atomically as write_atomically
from .energies import RBM, AbstractEnergy, Complete, Interactions, Mixture, Pairwise, constrain
from .search import PER_STATE, Kind, Library

_ENERGY_FORMAT = "thermogen energy"
_LIBRARY_FORMAT = "thermogen library 3"
_VERSION = 2
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_DIGEST = hashlib.sha256().digest_size


class _Layout(NamedTuple):
    """How one class of energy is described, shaped, and made anew from its parts."""

    structure: Callable[[Any], dict[str, Any]]
    template: Callable[..., AbstractEnergy]
    # By the constructor, so that its checks are passed.
    rebuilt: Callable[[Any], AbstractEnergy]


def _pairwise(n_spins: int) -> Pairwise:
    _check_counts(n_spins=n_spins)
    return Pairwise(jnp.zeros((n_spins, n_spins)), jnp.zeros(n_spins))


def _interactions(
    n_spins: int, sets: list[list[list[int]]], shapes: list[list[int]]
) -> Interactions:
    _check_counts(n_spins=n_spins)
    tables = []
    for table, (rows, order) in zip(sets, shapes, strict=True):
        _check_counts(rows=rows, order=order)
        if len(table) != rows or any(len(row) != order for row in table):
            raise ValueError(f"a table of sets is not of shape {rows, order}")
        # JSON knows floats and truth values, which would become integers unseen.
        if any(type(spin) is not int for row in table for spin in row):
            raise TypeError("sets must hold integers")
        tables.append(np.array(table, np.int64).reshape(rows, order))
    return Interactions(n_spins, tables, [jnp.zeros(len(table)) for table in tables])


def _rbm(n_visible: int, n_hidden: int) -> RBM:
    _check_counts(n_visible=n_visible, n_hidden=n_hidden)
    return RBM(jnp.zeros((n_visible, n_hidden)), jnp.zeros(n_visible), jnp.zeros(n_hidden))


def _complete(n_spins: int) -> Complete:
    check_count("n_spins", n_spins, least=0, most=40)
    return Complete(jnp.zeros(2**n_spins))


def _mixture(n_experts: int, expert: dict[str, Any]) -> Mixture:
    _check_counts(n_experts=n_experts)
    one = _LAYOUTS[expert["class"]].template(**expert["structure"])
    experts: Any = jax.tree.map(lambda x: jnp.zeros((n_experts, *x.shape)), one)
    return Mixture(experts, jnp.zeros(n_experts), jnp.zeros(n_experts))


def _rebuilt_mixture(energy: Mixture) -> Mixture:
    for k in range(energy.n_experts):
        _rebuilt(energy.expert(k))
    experts = jax.tree.map(jnp.asarray, energy.experts)
    return Mixture(experts, energy.log_weights, energy.log_partitions)


def _check_counts(**values: int) -> None:
    for name, value in values.items():
        check_count(name, value, least=0)


def _rebuilt(energy: AbstractEnergy) -> AbstractEnergy:
    return _LAYOUTS[type(energy).__name__].rebuilt(energy)


def _described(energy: AbstractEnergy) -> dict[str, Any]:
    """The class of an energy, which must be known, and its structure."""
    name = type(energy).__name__
    if name not in _LAYOUTS:
        raise ValueError(f"energy is a {name}; expected one of {', '.join(_LAYOUTS)}")
    return {"class": name, "structure": _LAYOUTS[name].structure(energy)}


_LAYOUTS = {
    "Pairwise": _Layout(
        lambda energy: {"n_spins": energy.n_spins},
        _pairwise,
        lambda energy: Pairwise(energy.couplings, energy.fields),
    ),
    "Interactions": _Layout(
        lambda energy: {
            "n_spins": energy.n_spins,
            "sets": [table.indices.tolist() for table in energy.sets],
            "shapes": [list(table.indices.shape) for table in energy.sets],
        },
        _interactions,
        lambda energy: Interactions(energy.n_spins, energy.sets, energy.couplings),
    ),
    "RBM": _Layout(
        lambda energy: {"n_visible": energy.n_visible, "n_hidden": energy.n_hidden},
        _rbm,
        lambda energy: RBM(energy.weights, energy.visible_fields, energy.hidden_fields),
    ),
    "Complete": _Layout(
        lambda energy: {"n_spins": energy.n_spins},
        _complete,
        lambda energy: Complete(energy.couplings),
    ),
    "Mixture": _Layout(
        lambda energy: {"n_experts": energy.n_experts, "expert": _described(energy.expert(0))},
        _mixture,
        _rebuilt_mixture,
    ),
}


def save_energy(path: PathLike, energy: AbstractEnergy) -> None:
    """Write an energy: one line of JSON that says what it is, its parameters, and a checksum.

    Args:
        path: the file to write, such as `model.eqx`.
        energy: any energy of the package, mixtures included.

    Raises:
        ValueError: for an energy of another class, or with parameters that are not finite.
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
    described = _described(energy)
    energy = _rebuilt(constrain(energy))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(energy)]
    dtype = jnp.result_type(*leaves) if leaves else jnp.dtype("float32")
    header = {
        "format": _ENERGY_FORMAT,
        "version": _VERSION,
        **described,
        "dtype": str(dtype),
    }
    digest = hashlib.sha256()
    with write_atomically(path) as stream:
        for part in (json.dumps(header).encode() + b"\n", *_bytes(leaves, dtype)):
            stream.write(part)
            digest.update(part)
        stream.write(digest.digest())


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
    """
    with open_regular(path) as (stream, size):
        content = stream.read(size)
    end = content.find(b"\n") + 1
    header = _read_header(content[:end], path)
    view = memoryview(content)  # slices of it are no copies
    if hashlib.sha256(view[:-_DIGEST]).digest() != view[-_DIGEST:]:
        raise ValueError(f"{path} is truncated or damaged: its checksum is wrong")
    try:
        numbers = view[end:-_DIGEST]
        return _rebuilt(_filled(_template(header), jnp.dtype(header["dtype"]), numbers))
    # A header of another hand can make almost anything fail: RecursionError, OverflowError, ...
    except Exception as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error


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
    if header.get("class") not in list(_LAYOUTS):  # a list, for the value may be unhashable
        raise ValueError(
            f"{path} holds an energy of the unknown class {header.get('class')!r}; expected one "
            f"of {', '.join(_LAYOUTS)}"
        )
    return header


def _template(header: dict[str, Any]) -> AbstractEnergy:
    """An energy of the shapes that the header announces; it holds no numbers."""
    if header["dtype"] not in _DTYPES:
        raise ValueError(f"its dtype is {header['dtype']!r}; expected one of {', '.join(_DTYPES)}")
    layout = _LAYOUTS[header["class"]]
    return eqx.filter_eval_shape(lambda: layout.template(**header["structure"]))


def _filled(template: AbstractEnergy, dtype: np.dtype, numbers: memoryview) -> AbstractEnergy:
    """The template with its parameters, which must fill the bytes to the last."""
    shapes, structure = jax.tree.flatten(template)
    sizes = [math.prod(shape.shape) for shape in shapes]
    if sum(sizes) * dtype.itemsize != len(numbers):
        raise ValueError(
            f"it announces {sum(sizes)} numbers of {dtype} and holds {len(numbers)} bytes"
        )
    table = np.frombuffer(numbers, dtype.newbyteorder("<")).astype(dtype)
    parts = np.split(table, np.cumsum(sizes, dtype=int))[:-1]
    leaves = [part.reshape(shape.shape) for part, shape in zip(parts, shapes, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def save_library(path: PathLike, library: Library) -> None:
    """Write a library as a compressed `.npz` archive, one array a field, and a checksum.

    Args:
        path: the file to write, such as `library.npz`.
        library: the library.

    Raises:
        ValueError: for arrays that are no library.
        OSError: if the file cannot be written.
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
