"""Arrays of numbers in MATLAB files of version 5, as "MAT-File Format" of MathWorks describes them.

SciPy's reader trusts the file: damaged ones end the process.
"""

import math
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128  # bytes
_TYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_MATRIX, _COMPRESSED = 14, 15
_SPARSE, _NUMBERS = 5, range(6, 16)  # classes of arrays
_COMPLEX = 0x800


def matlab_arrays(content: bytes, limit: int) -> dict[str, np.ndarray]:
    """The arrays of real numbers in a file, by name; what else it holds is left out.

    Args:
        content: the whole file.
        limit: bytes that all arrays may unpack to.

    Raises:
        ValueError: if the file is damaged, of another kind, or would unpack to more.
        zlib.error: if a packed array is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("its first bytes are not those of version 5 or later")
    arrays, left = {}, limit
    for kind, part in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            part = zlib.decompressobj().decompress(part, left + 1)
            kind, part = next(_elements(part, order), (0, b""))
        left -= len(part)
        found = _array(part, order, left) if kind == _MATRIX and left >= 0 else None
        if found is not None:
            arrays[found[0]] = found[1]
            left -= found[1].nbytes
        if left < 0:
            raise ValueError(f"it would unpack to more than {limit / 2**30:.3g} GiB")
    return arrays


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each element; all but packed ones fill multiples of eight bytes."""
    place = 0
    while place < len(data):
        first = int.from_bytes(data[place : place + 4], "little" if order == "<" else "big")
        if first >> 16:  # a small one
            kind, size, start, whole = first & 0xFFFF, first >> 16, place + 4, 4
        else:
            kind, start = first, place + 8
            size = int.from_bytes(data[place + 4 : start], "little" if order == "<" else "big")
            whole = size if kind == _COMPRESSED else -(-size // 8) * 8
        if size > whole or start + size > len(data):
            raise ValueError("it ends early")
        yield kind, data[start : start + size]
        place = start + whole


def _array(part: bytes, order: str, limit: int) -> tuple[str, np.ndarray] | None:
    """Name and values of one array, if it is one of real numbers."""
    parts = _elements(part, order)
    _, flags = next(parts, (0, b""))
    kind = int(np.frombuffer(flags[:4], f"{order}u4")[0])
    if kind & _COMPLEX or kind & 0xFF not in (_SPARSE, *_NUMBERS):
        return None
    shape = tuple(int(length) for length in _numbers(next(parts, (0, b"")), order))
    name = next(parts, (0, b""))[1].decode("latin-1")
    if min(shape, default=0) < 0 or 8 * math.prod(shape) > max(limit, 8 * len(part)):
        raise ValueError(f"it announces an array of shape {shape}")
    if kind & 0xFF == _SPARSE:
        return name, _dense(shape, [_numbers(piece, order) for piece in parts])
    values = _numbers(next(parts, (0, b"")), order)
    if values.size != math.prod(shape):
        raise ValueError(f"array {name} has {values.size} values for a shape {shape}")
    return name, values.reshape(shape, order="F")


def _numbers(element: tuple[int, bytes], order: str) -> np.ndarray:
    kind, data = element
    if kind not in _TYPES:
        raise ValueError(f"it has values of type {kind}")
    return np.frombuffer(data, order + _TYPES[kind])


def _dense(shape: tuple[int, ...], parts: list[np.ndarray]) -> np.ndarray:
    """A sparse matrix, of which rows, starts of the columns, and values are stored."""
    if len(shape) != 2 or len(parts) != 3 or len(parts[1]) != shape[1] + 1:
        raise ValueError("it has a sparse matrix without rows, columns and values")
    counts = np.diff(parts[1].astype(int))
    if np.any(counts < 0) or counts.sum() > min(len(parts[0]), len(parts[2])):
        raise ValueError("it has a sparse matrix with columns that do not add up")
    rows = parts[0][: counts.sum()].astype(int)
    if np.any((rows < 0) | (rows >= shape[0])):
        raise ValueError("it has a sparse matrix with rows beyond its shape")
    dense = np.zeros(shape)
    dense[rows, np.repeat(np.arange(shape[1]), counts)] = parts[2][: len(rows)]
    return dense
