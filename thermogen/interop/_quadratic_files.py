"""Files of quadratic models: coordinate lists, Matrix Market, qbsolv, graphs of the Gset."""

import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ..storage import write_atomically
from ._matrix_market import read_matrix
from ._model import (
    BINARY,
    SPIN,
    Model,
    Quadratic,
    check_spins,
    checked_names,
    collected,
    model_of,
    quadratic_of,
)
from ._qubo import to_qubo
from ._text import Text, checked_vartype, comments, plain, read_text

_USER = "write_model"


def put(path: Path, lines: Iterable[str]) -> None:
    """A text, whole or not at all."""
    with write_atomically(path) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())


def read_coo(path: Path, vartype: str | None) -> Model:
    """`i i bias` and `i j bias`, as dimod writes them; a comment tells vartype and offset."""
    text = read_text(path, "#")
    kind, bonds = _vartype(text, vartype), text.triplets(text.lines)
    n, bonds, names = _numbered(text, text.lines, bonds)
    return model_of(_of_biases(n, kind, text.offset, bonds), kind, names)


def write_coo(path: Path, model: Model, vartype: str) -> None:
    q = quadratic_of(_USER, model.energy, model.offset, vartype)
    put(path, chain(comments("#", q.constant, model.names, vartype), _biases(q)))


def read_mtx(path: Path, vartype: str | None) -> Model:
    """`z^T M z` of a Matrix Market file; a comment tells whether z are bits or spins."""
    text, n, entries = read_matrix(path)
    check_spins(path, n)
    kind = _vartype(text, vartype)
    return model_of(collected(n, kind, text.offset, entries), kind, text.names)


def write_mtx(path: Path, model: Model, vartype: str) -> None:
    matrix, offset, names = to_qubo(*model)
    entries = matrix.tocoo()
    n, (rows, columns) = model.energy.n_spins, entries.coords
    head = ["%%MatrixMarket matrix coordinate real general"]
    sizes = [f"{n} {n} {entries.nnz}"]
    said = comments("%", offset, names, BINARY)
    put(path, chain(head, said, sizes, _rows(rows + 1, columns + 1, entries.data)))


def read_qubo(path: Path, vartype: str | None) -> Model:
    """The format of qbsolv: a line `p qubo 0 maxNodes nNodes nCouplers`, nodes, and couplers."""
    text = read_text(path, "c")
    if not text.lines or text.lines[0][1][:2] != ["p", "qubo"] or len(text.lines[0][1]) != 6:
        line = text.lines[0][0] if text.lines else 1
        text.wrong(line, "expected 'p qubo 0 maxNodes nNodes nCouplers'")
    (line, words), rest = text.lines[0], text.lines[1:]
    most, nodes, couplers = (text.natural(line, word) for word in words[3:])
    if len(rest) != nodes + couplers:
        announced = f"{nodes} nodes and {couplers} couplers"
        text.wrong(line, f"it announces {announced}; {len(rest)} lines follow")
    rows, columns, values = text.triplets(rest)
    _check_qubo(text, rest, rows, columns, most)
    n, bonds, names = _numbered(text, rest, (rows, columns, values))
    return model_of(_of_biases(n, BINARY, text.offset, bonds), BINARY, names)


def _check_qubo(text: Text, lines, rows: np.ndarray, columns: np.ndarray, most: int) -> None:
    seen = set()
    for (k, _), a, b in zip(lines, rows.tolist(), columns.tolist(), strict=True):
        if max(a, b) >= most:
            text.wrong(k, f"node {max(a, b)} is not below maxNodes, {most}")
        if a > b:
            text.wrong(k, f"a coupler must have its lower node first, got {a} {b}")
        if (a, b) in seen:
            text.wrong(k, f"{a} {b} occurs twice")
        seen.add((a, b))


def write_qubo(path: Path, model: Model, vartype: str) -> None:
    q = quadratic_of(_USER, model.energy, model.offset, BINARY)
    n = model.energy.n_spins
    head = [f"p qubo 0 {n} {n} {q.pairs.size}"]
    put(path, chain(comments("c", q.constant, model.names), head, _biases(q)))


def read_gset(path: Path, vartype: str | None) -> Model:
    """A graph to be cut: nodes and edges, then `i j weight`, counted from 1; weights may lack.

    `energy(s) + offset` is minus the weight of the cut between spins up and spins down.
    """
    text = read_text(path, "#")
    if not text.lines or len(text.lines[0][1]) != 2:
        text.wrong(text.lines[0][0] if text.lines else 1, "expected the numbers of nodes and edges")
    (line, words), rest = text.lines[0], text.lines[1:]
    n, edges = (text.natural(line, word) for word in words)
    if len(rest) != edges:
        text.wrong(line, f"it announces {edges} edges; {len(rest)} lines follow")
    rows, columns, values = text.triplets(rest, least=1, default=1.0)
    check_spins(path, n)
    beyond = np.flatnonzero(np.maximum(rows, columns) > n)
    if beyond.size:
        text.wrong(rest[beyond[0]][0], f"there are {n} nodes alone")
    q = collected(n, SPIN, -values.sum() / 2, (rows - 1, columns - 1, values / 2))
    return model_of(q, SPIN, tuple(range(1, n + 1)))


def write_gset(path: Path, model: Model, vartype: str) -> None:
    q = quadratic_of(_USER, model.energy, model.offset, SPIN)
    if np.any(q.linear):
        raise ValueError(f"energy must have no fields to be a cut of a graph: {path}")
    cut = -q.pairs.sum()
    if model.offset and abs(q.constant - cut) > 1e-6 * (abs(cut) + abs(q.constant)):
        warnings.warn(f"{path} leaves out the offset: a cut has its own", stacklevel=3)
    head = [f"{q.linear.size} {q.pairs.size}"]
    put(path, chain(head, _rows(q.first + 1, q.second + 1, 2 * q.pairs)))


def _vartype(text: Text, given: str | None) -> str:
    if text.vartype or given:
        return text.vartype or checked_vartype(str(given))
    raise ValueError(
        f"{text.path} does not say whether its variables are spins or bits; give vartype, SPIN or "
        "BINARY, or write 'vartype=SPIN' into a comment"
    )


def _numbered(
    text: Text, lines, bonds: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray], Sequence[Hashable]]:
    """Variables by their places: all that are named, or else all numbers that occur."""
    rows, columns, values = bonds
    if text.names is None:
        found = np.unique(np.concatenate([rows, columns]))
        ends = np.searchsorted(found, rows), np.searchsorted(found, columns)
        return found.size, (*ends, values), found.tolist()
    beyond = np.flatnonzero(np.maximum(rows, columns) >= len(text.names))
    if beyond.size:
        text.wrong(lines[beyond[0]][0], f"there are {len(text.names)} names alone")
    return len(text.names), bonds, checked_names(text.names, len(text.names))


def _of_biases(
    n: int, vartype: str, constant: float, bonds: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Quadratic:
    """A bias on the diagonal is one of a single variable, spin or bit."""
    rows, columns, values = bonds
    single = rows == columns
    linear = np.zeros(n)
    np.add.at(linear, rows[single], values[single])
    pairs = rows[~single], columns[~single], values[~single]
    return collected(n, vartype, constant, pairs, linear)


def _biases(q: Quadratic) -> Iterator[str]:
    nodes = np.arange(q.linear.size)
    yield from _rows(nodes, nodes, q.linear)
    yield from _rows(q.first, q.second, q.pairs)


def _rows(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> Iterator[str]:
    for a, b, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        yield f"{a} {b} {plain(value)}"
