"""Matrix Market files, read line by line: what SciPy reads them by dies of damaged ones."""

from pathlib import Path

import numpy as np

from ._text import Text, read_text

_FORMS, _KINDS = ("coordinate", "array"), ("real", "double", "integer", "pattern")
_SYMMETRIES = ("general", "symmetric", "skew-symmetric")


def read_matrix(path: Path) -> tuple[Text, int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Comments of a file, size of its square matrix, and its entries as rows, columns, values.

    The format is that of Boisvert, Pozo and Remington (NISTIR 5935, 1996).

    Raises:
        ValueError: for a malformed file, complex entries, or a matrix that is not square.
    """
    text = read_text(path, "%")
    form, kind, symmetry = _header(text)
    if not text.lines:
        text.wrong(2, "expected the size of the matrix")
    (line, words), rest = text.lines[0], text.lines[1:]
    sizes = [text.natural(line, word) for word in words]
    if len(sizes) != (3 if form == "coordinate" else 2):
        text.wrong(line, f"expected the size of a {form} matrix, got {' '.join(words)!r}")
    if sizes[0] != sizes[1]:
        text.wrong(line, f"expected a square matrix, got {sizes[0]} rows and {sizes[1]} columns")
    if form == "coordinate":
        entries = _coordinates(text, rest, sizes[0], sizes[2], kind)
    else:
        entries = _array(text, rest, sizes[0], symmetry)
    return text, sizes[0], _mirrored(*entries, symmetry)


def _header(text: Text) -> list[str]:
    words = text.first.lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        text.wrong(1, "expected '%%MatrixMarket matrix coordinate real general', or the like")
    for word, known in zip(words[2:], (_FORMS, _KINDS, _SYMMETRIES), strict=True):
        if word not in known:
            text.wrong(1, f"expected one of {', '.join(known)}, got {word!r}")
    if words[2:4] == ["array", "pattern"]:
        text.wrong(1, "a pattern has coordinates")
    return words[2:]


def _coordinates(text: Text, rest, n: int, announced: int, kind: str):
    if len(rest) != announced:
        text.wrong(text.lines[0][0], f"it announces {announced} entries; {len(rest)} lines follow")
    default = 1.0 if kind == "pattern" else None
    rows, columns, values = text.triplets(rest, least=1, default=default)
    beyond = np.flatnonzero(np.maximum(rows, columns) > n)
    if beyond.size:
        text.wrong(rest[beyond[0]][0], f"the matrix has {n} rows and columns alone")
    return rows - 1, columns - 1, values


def _array(text: Text, rest, n: int, symmetry: str):
    """One entry a line, column by column; of a symmetric matrix from the diagonal down."""
    announced = {"general": n * n, "symmetric": n * (n + 1) // 2}.get(symmetry, n * (n - 1) // 2)
    if len(rest) != announced:
        text.wrong(text.lines[0][0], f"it announces {announced} entries; {len(rest)} lines follow")
    for line, words in rest:
        if len(words) != 1:
            text.wrong(line, f"expected one number, got {' '.join(words)!r}")
    values = np.array([text.number(line, words[0]) for line, words in rest])
    if symmetry == "general":
        columns, rows = np.divmod(np.arange(n * n), max(n, 1))
    else:
        columns, rows = np.triu_indices(n, 0 if symmetry == "symmetric" else 1)
    return rows, columns, values


def _mirrored(rows, columns, values, symmetry: str):
    """All entries, where a file holds those on one side of the diagonal."""
    if symmetry == "general":
        return rows, columns, values
    off = rows != columns
    sign = 1.0 if symmetry == "symmetric" else -1.0
    return (
        np.append(rows, columns[off]),
        np.append(columns, rows[off]),
        np.append(values, sign * values[off]),
    )
