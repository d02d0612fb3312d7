"""Tables in files of arrays: NumPy, HDF5 and MATLAB. Pickles and objects are refused."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._checks import check_memory
from .._files import open_regular, read_arrays, unpacked_limit
from ._extra import imported
from ._grid import Grid, grid_of_numbers
from ._matlab import matlab_arrays

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB_7 = b"MATLAB 7"


class _Shelf(NamedTuple):
    """The arrays of a file by name, with their shapes, and how to read one of them."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def read_numpy(path: Path, names: Sequence[str]) -> Grid:
    """The table in a `.npy` or `.npz` file; of an archive the first of those names is read.

    Raises:
        ValueError: if there is no such table, or more than one.
        OSError: if the file cannot be read.
    """
    arrays = read_arrays(path, names)

    def beside(name: str) -> np.ndarray | None:
        return read_arrays(path, (name,)).get(name)

    if "" in arrays:
        return grid_of_numbers(str(path), arrays[""])
    shelf = _Shelf({name: np.shape(array) for name, array in arrays.items()}, arrays.__getitem__)
    return grid_of_numbers(str(path), shelf.read(_chosen(shelf, path, names)), beside=beside)


def read_hdf5(path: Path, names: Sequence[str]) -> Grid:
    """The table in a file of HDF5, in any of its groups.

    Raises:
        ImportError: if h5py is not installed.
        ValueError: if there is no such table, or more than one.
        OSError: if the file cannot be read.
    """
    with _readable(path, "HDF5") as size, _hdf5(path) as file:
        return _grid_of(_hdf5_shelf(file, path, size), path, names)


def read_matlab(path: Path, names: Sequence[str]) -> Grid:
    """The table in a `.mat` file of any version from 5.

    Raises:
        ImportError: if h5py is not installed, for files of version 7.3.
        ValueError: if there is no such table, or more than one.
        OSError: if the file cannot be read.
    """
    with _readable(path, "MATLAB") as size:
        with open_regular(path) as (stream, _):
            start = stream.read(512 + len(_HDF5))
        if start.startswith(_MATLAB_7) or start.startswith(_HDF5):
            with _hdf5(path) as file:
                # MATLAB stores columns one after the other.
                shelf = _hdf5_shelf(file, path, size)
                turned = {name: shape[::-1] for name, shape in shelf.shapes.items()}
                return _grid_of(_Shelf(turned, lambda name: shelf.read(name).T), path, names)
        return _grid_of(_matlab_shelf(path, size), path, names)


def _grid_of(shelf: _Shelf, path: Path, names: Sequence[str]) -> Grid:
    table = shelf.read(_chosen(shelf, path, names))
    # The file is closed when labels are asked for: lines of numbers are small, and are read now.
    lines = {k: shelf.read(k) for k, shape in shelf.shapes.items() if _is_line(shape, table)}
    return grid_of_numbers(str(path), table, beside=lines.get)


def _is_line(shape: tuple[int, ...], table: np.ndarray) -> bool:
    return math.prod(shape) == max(shape, default=0) == len(table) and shape != table.shape


def _chosen(shelf: _Shelf, path: Path, names: Sequence[str]) -> str:
    for name in names:
        if name in shelf.shapes:
            return name
    tables = [k for k, shape in shelf.shapes.items() if len(shape) == 2 and min(shape) != 1]
    tables = tables or [k for k, shape in shelf.shapes.items() if len(shape) == 2]
    if len(tables) != 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in shelf.shapes.items())
        raise ValueError(
            f"{path} holds {len(tables)} 2-D arrays among: {shapes or 'nothing'}; expected one, "
            f"or one named {' or '.join(map(repr, names))}"
        )
    return tables[0]


def _matlab_shelf(path: Path, size: int) -> _Shelf:
    check_memory(f"{path}", 2.0 * size)
    with open_regular(path) as (stream, _):
        arrays = matlab_arrays(stream.read(size), unpacked_limit(size))
    return _Shelf({name: array.shape for name, array in arrays.items()}, arrays.__getitem__)


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    h5py = imported("h5py", f"a {path.suffix} file")
    with h5py.File(path, "r", locking=False) as file:
        yield file


def _hdf5_shelf(file: Any, path: Path, size: int) -> _Shelf:
    """The arrays of real numbers and texts that lie in the file itself."""
    h5py, shapes = imported("h5py", f"a {path.suffix} file"), {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None or name.startswith("#"):
            return
        text = h5py.check_string_dtype(item.dtype) is not None
        if (text or item.dtype.kind in "biuf") and item.attrs.get("MATLAB_class") != b"char":
            shapes[name] = tuple(item.shape)

    def read(name: str) -> np.ndarray:
        item = file[name]
        # Parts in other files are whatever the one who wrote this file wants to be read.
        if item.external or item.is_virtual:
            raise ValueError(f"array {name} lies in other files")
        check_unpacked(f"array {name}", float(item.size) * item.dtype.itemsize, size)
        text = h5py.check_string_dtype(item.dtype) is not None
        return np.asarray(item.asstr()[()] if text else item[()])

    file.visititems(visit)
    return _Shelf(shapes, read)


def check_unpacked(name: str, n_bytes: float, size: int) -> None:
    """Raise for an array that does not fit, or is far more than a file of that size can mean."""
    check_memory(name, n_bytes)
    if n_bytes > unpacked_limit(size):
        raise ValueError(
            f"{name} would take {n_bytes / 2**30:.3g} GiB, from a file of {size} bytes"
        )


@contextlib.contextmanager
def _readable(path: Path, kind: str) -> Iterator[int]:
    """The size of a file. Damage makes the libraries that read it raise almost anything."""
    with open_regular(path) as (_, size):
        pass
    try:
        yield size
    except ImportError:
        raise
    except Exception as error:
        if str(path) in str(error) and isinstance(error, ValueError):
            raise
        raise ValueError(f"{path} cannot be read as a {kind} file: {error}") from error
