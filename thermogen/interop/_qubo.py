"""Quadratic binary optimisation: `x^T Q x` of bits, as a dictionary, a matrix or a sparse one."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from .._checks import as_array, check_finite
from ..energies import AbstractEnergy
from ._model import BINARY, Model, checked_names, collected, model_of, ordered, quadratic_of

_Bonds = tuple[np.ndarray, np.ndarray, np.ndarray]


class Qubo(NamedTuple):
    """`E(x) = x^T Q x + offset` of bits x.

    Attributes:
        matrix: Q, sparse and upper triangular, shape `(n, n)`. `matrix.toarray()` is a plain
            array, and `dict(matrix.todok())` a dictionary by pairs of numbers.
        offset: the constant, in energy units.
        names: what the bits are called, in their order.
    """

    matrix: scipy.sparse.csr_array
    offset: float
    names: tuple[Hashable, ...]


def from_qubo(qubo: Any, offset: float = 0.0, names: Iterable[Hashable] | None = None) -> Model:
    """A QUBO as an energy: `x^T Q x + offset` of bits becomes that of spins `s = 2 x - 1`.

    Every entry counts as it stands: an upper triangular matrix holds each pair once, a symmetric
    one twice, each time by half.

    Args:
        qubo: a dictionary of numbers by pairs of labels, as dimod, qubovert and PyQUBO have it, a
            square matrix, or one of `scipy.sparse`.
        offset: what is added to it, in energy units.
        names: what the bits are called, in the order of rows; those of a dictionary are its
            labels, in their natural order.

    Returns:
        The energy, with `energy(s) + offset` equal to `x^T Q x` plus the offset given, at every
        configuration; `Pairwise` where at least a tenth of all pairs interact, else
        `Interactions`.

    Raises:
        ValueError: for a matrix that is not square, keys that are no pairs, numbers that are not
            finite, and names beside a dictionary.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        model = tg.interop.from_qubo({("a", "a"): 1.0, ("a", "b"): -3.0})

        assert model.names == ("a", "b")
        assert model.energy(jnp.ones(2)) + model.offset == -2.0  # both bits are 1
        assert model.energy(-jnp.ones(2)) + model.offset == 0.0
        ```
    """
    check_finite("offset", offset)
    if isinstance(qubo, Mapping):
        if names is not None:
            raise ValueError("names must not be given beside a dictionary: its labels are names")
        names, bonds = _of_pairs(qubo)
        size = len(names)
    else:
        size, bonds = of_matrix("qubo", qubo)
    return model_of(collected(size, BINARY, float(offset), bonds), BINARY, names)


def to_qubo(
    energy: AbstractEnergy, offset: float = 0.0, names: Iterable[Hashable] | None = None
) -> Qubo:
    """An energy as a QUBO of bits `x = (1 + s) / 2`.

    Args:
        energy: an energy of n spins whose terms have at most two of them.
        offset: a constant that is added, in energy units.
        names: what the bits are called; their numbers by default.

    Returns:
        Q, with `x^T Q x + offset` equal to the energy plus the offset given.

    Raises:
        TypeError: for an energy without terms, or with terms of more than two spins.
        ValueError: for names of another number.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        matrix, offset, _ = tg.interop.to_qubo(energy)

        assert matrix.sum() + offset == energy(jnp.ones(3)) == -3
        ```
    """
    q = quadratic_of("to_qubo", energy, offset, BINARY)
    n, diagonal = energy.n_spins, np.arange(energy.n_spins)
    rows, columns = np.append(diagonal, q.first), np.append(diagonal, q.second)
    numbers = np.append(q.linear, q.pairs)
    matrix = scipy.sparse.csr_array((numbers, (rows, columns)), shape=(n, n))
    return Qubo(matrix, q.constant, checked_names(names, n))


def of_matrix(name: str, matrix: Any) -> tuple[int, _Bonds]:
    """Size of a square matrix, plain or sparse, and its entries that are not 0."""
    if not scipy.sparse.issparse(matrix):
        matrix = np.asarray(as_array(name, matrix))
    if matrix.dtype.kind not in "iufb" or matrix.ndim != 2:
        raise ValueError(
            f"{name} must be a square matrix of real numbers, or a dictionary by pairs, got dtype "
            f"{matrix.dtype} and shape {matrix.shape}"
        )
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {matrix.shape}")
    entries = scipy.sparse.coo_array(matrix)
    rows, columns = entries.coords
    return matrix.shape[0], (rows, columns, np.asarray(entries.data, float))


def _of_pairs(qubo: Mapping[Any, Any]) -> tuple[list[Hashable], _Bonds]:
    for key in qubo:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise ValueError(f"qubo must have pairs of labels as keys, got {key!r}")
    names = ordered(label for pair in qubo for label in pair)
    number = {name: k for k, name in enumerate(names)}
    ends = np.array([[number[a], number[b]] for a, b in qubo], int).reshape(-1, 2)
    return names, (ends[:, 0], ends[:, 1], np.array(list(qubo.values()), float))
