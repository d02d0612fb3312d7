"""Energies and libraries on disk: plain arrays and a readable header, never pickles.

Every write is atomic: the file appears whole or not at all, and an older one stays until then.
"""

import contextlib
import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .energies import (
    RBM,
    AbstractEnergy,
    Complete,
    Interactions,
    Mixture,
    Pairwise,
    constrain,
)
from .landscape import Library
from .landscape._library import PER_STATE

_ENERGY_FORMAT = "thermogen energy"
_LIBRARY_FORMAT = "thermogen library 1"
_VERSION = 1
_MAX_HEADER = 2**28  # bytes; the spin sets of an `Interactions` are written in it

_PathLike = str | os.PathLike[str]


class _Layout(NamedTuple):
    """How the static structure of one class of energy is written and rebuilt."""

    structure: Callable[[Any], dict[str, Any]]
    template: Callable[..., AbstractEnergy]


def _pairwise(n_spins: int) -> Pairwise:
    return Pairwise(jnp.zeros((n_spins, n_spins)), jnp.zeros(n_spins))


def _interactions(
    n_spins: int, sets: list[list[list[int]]], shapes: list[list[int]]
) -> Interactions:
    tables = [
        np.reshape(table, shape).astype(int) for table, shape in zip(sets, shapes, strict=True)
    ]
    return Interactions(n_spins, tables, [jnp.zeros(len(table)) for table in tables])


def _rbm(n_visible: int, n_hidden: int) -> RBM:
    return RBM(jnp.zeros((n_visible, n_hidden)), jnp.zeros(n_visible), jnp.zeros(n_hidden))


def _complete(n_spins: int) -> Complete:
    return Complete(jnp.zeros(2**n_spins))


def _mixture(n_experts: int, expert: dict[str, Any]) -> Mixture:
    one = _LAYOUTS[expert["class"]].template(**expert["structure"])
    experts: Any = jax.tree.map(lambda x: jnp.zeros((n_experts, *x.shape)), one)
    return Mixture(experts, jnp.zeros(n_experts), jnp.zeros(n_experts))


def _described(energy: AbstractEnergy) -> dict[str, Any]:
    """The class of an energy, which must be known, and its structure."""
    name = type(energy).__name__
    if name not in _LAYOUTS:
        raise ValueError(f"energy is a {name}; expected one of {', '.join(_LAYOUTS)}")
    return {"class": name, "structure": _LAYOUTS[name].structure(energy)}


_LAYOUTS = {
    "Pairwise": _Layout(lambda energy: {"n_spins": energy.n_spins}, _pairwise),
    "Interactions": _Layout(
        lambda energy: {
            "n_spins": energy.n_spins,
            "sets": [table.indices.tolist() for table in energy.sets],
            "shapes": [list(table.indices.shape) for table in energy.sets],
        },
        _interactions,
    ),
    "RBM": _Layout(
        lambda energy: {"n_visible": energy.n_visible, "n_hidden": energy.n_hidden}, _rbm
    ),
    "Complete": _Layout(lambda energy: {"n_spins": energy.n_spins}, _complete),
    "Mixture": _Layout(
        lambda energy: {"n_experts": energy.n_experts, "expert": _described(energy.expert(0))},
        _mixture,
    ),
}


@contextlib.contextmanager
def write_atomically(path: _PathLike) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends, and only then.

    Args:
        path: the file to write. Its folder must exist.

    Raises:
        OSError: if the folder does not exist or cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_energy(path: _PathLike, energy: AbstractEnergy) -> None:
    """Write an energy: one line of JSON that says what it is, then its parameters.

    Args:
        path: the file to write, such as `model.eqx`.
        energy: any energy of the package, mixtures included.

    Raises:
        ValueError: for an energy of another class.
        OSError: if the file cannot be written.
    """
    energy = constrain(energy)
    leaves = jax.tree.leaves(energy)
    header = {
        "format": _ENERGY_FORMAT,
        "version": _VERSION,
        **_described(energy),
        "dtype": str(jnp.result_type(*leaves)) if leaves else "float32",
    }
    with write_atomically(path) as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(stream, energy)


def load_energy(path: _PathLike) -> AbstractEnergy:
    """Read an energy that `save_energy` wrote.

    Args:
        path: the file to read.

    Returns:
        The energy in the dtype it was saved in; float64 becomes float32 where JAX runs in float32.

    Raises:
        ValueError: if the file is damaged, is not of this kind, or holds an unknown class.
        OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as stream, jax.enable_x64(True):
        header = _read_header(stream, path)
        try:
            energy = eqx.tree_deserialise_leaves(stream, _template(header))
        except (ValueError, TypeError, KeyError, RuntimeError, EOFError, MemoryError) as error:
            raise ValueError(f"{path} is truncated or damaged: {error}") from error
        if stream.read(1):
            raise ValueError(f"{path} is damaged: it goes on after the last parameter")
    return jax.tree.map(lambda x: jnp.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype)), energy)


def _read_header(stream: BinaryIO, path: _PathLike) -> dict[str, Any]:
    try:
        header = json.loads(stream.readline(_MAX_HEADER))
    except ValueError:
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
    """An energy of the shapes and the dtype that the header announces; it holds no numbers."""
    layout, dtype = _LAYOUTS[header["class"]], jnp.dtype(header["dtype"])
    shapes = eqx.filter_eval_shape(lambda: layout.template(**header["structure"]))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)


def save_library(path: _PathLike, library: Library) -> None:
    """Write a library as a compressed `.npz` archive, one array a field.

    Args:
        path: the file to write, such as `library.npz`.
        library: the library.

    Raises:
        OSError: if the file cannot be written.
    """
    arrays: dict[str, Any] = {name: getattr(library, name) for name in _library_fields()}
    with write_atomically(path) as stream:
        np.savez_compressed(stream, format=_LIBRARY_FORMAT, **arrays)


def load_library(path: _PathLike) -> Library:
    """Read a library that `save_library` wrote.

    Args:
        path: the file to read.

    Returns:
        The library, of NumPy arrays as they were saved.

    Raises:
        ValueError: if the file is damaged or is not a library.
        OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as stream:
        try:
            # Pickled data are refused: a file must not be able to run code.
            with np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (
            ValueError,  # also: pickled arrays
            TypeError,  # one bare array has no `with`
            EOFError,
            OSError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ValueError(f"{path} cannot be read as a library: {error}") from error
    if str(arrays.pop("format", None)) != _LIBRARY_FORMAT or set(arrays) != set(_library_fields()):
        raise ValueError(f"{path} is not a library saved by this version of thermogen")
    capacity = arrays["magnetizations"].shape[:1]
    if any(arrays[name].shape[:1] != capacity for name in PER_STATE):
        raise ValueError(f"{path} is damaged: its arrays differ in length")
    return Library(**arrays)


def _library_fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Library)]
