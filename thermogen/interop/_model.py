"""What comes from elsewhere: an energy, its constant and its names; and polynomials between both.

Others count an energy upwards from a constant, in spins or in bits. Here `E = -sum J s s - sum h s`
with spins alone. All conversions pass through one `Quadratic`, in float64 on the host.
"""

import importlib
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._checks import check_finite, check_memory
from ..energies import AbstractEnergy, Interactions, Pairwise, terms_for

SPIN, BINARY = "SPIN", "BINARY"
# A matrix serves where at least one pair in this many interacts, else a list of bonds.
_SPARSE = 10


class Model(NamedTuple):
    """An energy that came from elsewhere, with what it had besides.

    The energy over there is `energy(s) + offset` at every configuration: a constant changes no
    probability, and a `Pairwise` or an `RBM` has none. Functions that lead out take the three in
    this order, so that `to_bqm(*model)` gives back what `from_bqm` took.

    Attributes:
        energy: the energy, at the same inverse temperature as over there.
        offset: what is to be added to it, in energy units.
        names: what the spins are called over there, in their order; 0, 1, ... where nothing else
            is known. Hidden spins beside named ones are "hidden 0", "hidden 1", ...

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        energy = tg.Pairwise(np.zeros((2, 2)), np.ones(2))
        model = tg.interop.Model(energy, 0.5, ("a", "b"))

        assert tg.interop.from_bqm(tg.interop.to_bqm(*model)).names == ("a", "b")
        ```
    """

    energy: AbstractEnergy
    offset: float
    names: tuple[Hashable, ...]


class Quadratic(NamedTuple):
    """`E(z) = constant + sum_i linear_i z_i + sum_p pairs_p z_first z_second`, z spins or bits.

    Each pair stands once, and `first < second`.
    """

    constant: float
    linear: Float[np.ndarray, " n"]
    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    pairs: Float[np.ndarray, " pairs"]


def collected(
    n: int,
    vartype: str,
    constant: float,
    bonds: tuple[np.ndarray, np.ndarray, np.ndarray],
    linear: np.ndarray | float = 0.0,
) -> Quadratic:
    """Terms of two variables in any order, each as often as it likes, added up.

    On the diagonal stands a square: z itself of a bit, 1 of a spin.

    Args:
        n: number of variables.
        vartype: "SPIN" or "BINARY".
        constant: what is added to all.
        bonds: the two ends of each term and its number, shape `(terms,)` each.
        linear: terms of one variable, shape `(n,)`, or 0.
    """
    linear = np.zeros(n) + np.asarray(linear, float)
    rows, columns = (np.asarray(ends, np.int64) for ends in bonds[:2])
    values = np.asarray(bonds[2], float)
    square = rows == columns
    if vartype == BINARY:
        linear = linear + _summed(rows[square], values[square], n)
    else:
        constant = constant + values[square].sum()
    low, high = np.minimum(rows, columns)[~square], np.maximum(rows, columns)[~square]
    found, where = np.unique(low * n + high, return_inverse=True)
    pairs = _summed(where, values[~square], found.size)
    return Quadratic(float(constant), linear, found // max(n, 1), found % max(n, 1), pairs)


def to_spins(q: Quadratic) -> Quadratic:
    """The same energy of spins `s = 2 x - 1`, from one of bits x."""
    half, quarter = q.linear / 2, q.pairs / 4
    constant = q.constant + half.sum() + quarter.sum()
    return Quadratic(constant, half + _at_ends(q, quarter), q.first, q.second, quarter)


def to_bits(q: Quadratic) -> Quadratic:
    """The same energy of bits `x = (1 + s) / 2`, from one of spins s."""
    constant = q.constant - q.linear.sum() + q.pairs.sum()
    linear = 2 * (q.linear - _at_ends(q, q.pairs))
    return Quadratic(constant, linear, q.first, q.second, 4 * q.pairs)


def _at_ends(q: Quadratic, values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " n"]:
    """Sum over the pairs of each variable."""
    n = q.linear.size
    return _summed(q.first, values, n) + _summed(q.second, values, n)


def _summed(
    where: Int[np.ndarray, " terms"], values: Float[np.ndarray, " terms"], n: int
) -> Float[np.ndarray, " n"]:
    return np.bincount(where, values, minlength=n).astype(float)  # integers where there are none


def quadratic_of(user: str, energy: AbstractEnergy, offset: float, vartype: str) -> Quadratic:
    """An energy of at most two spins a term, plus the offset, in spins or in bits.

    Pairs whose coupling is 0 are left out.

    Raises:
        TypeError: for an energy without terms, or with terms of more spins.
        ValueError: for another vartype, or an offset that is not finite.
    """
    if vartype not in (SPIN, BINARY):
        raise ValueError(f"vartype must be {SPIN!r} or {BINARY!r}, got {vartype!r}")
    check_finite("offset", offset)
    listed = terms_for(user, energy, max_order=2)
    constant, linear = float(offset), np.zeros(energy.n_spins)
    rows, columns, values = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
    for table, couplings in zip(listed.sets, listed.couplings, strict=True):
        numbers = -np.asarray(couplings, float)
        if table.order == 0:
            constant += numbers.sum()
        elif table.order == 1:
            np.add.at(linear, table.indices[:, 0], numbers)
        else:
            kept = numbers != 0
            rows.append(table.indices[kept, 0])
            columns.append(table.indices[kept, 1])
            values.append(numbers[kept])
    bonds = np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
    q = collected(energy.n_spins, SPIN, constant, bonds, linear)
    return to_bits(q) if vartype == BINARY else q


def check_spins(path: Any, n: int) -> None:
    """Raise before a file of a few bytes takes the memory of the spins that it numbers."""
    check_memory(f"{path}: a model of {n} spins", 64 * n)


def model_of(q: Quadratic, vartype: str, names: Iterable[Hashable] | None = None) -> Model:
    """The energy of a polynomial: `Pairwise` where many pairs interact, else `Interactions`."""
    if not np.isfinite(q.constant):
        raise ValueError(f"the constant must be finite, got {q.constant}")
    q = to_spins(q) if vartype == BINARY else q
    n = q.linear.size
    if _SPARSE * q.pairs.size >= n * (n - 1) / 2:
        couplings = np.zeros((n, n))
        couplings[q.first, q.second] = couplings[q.second, q.first] = -q.pairs
        energy = Pairwise(couplings, -q.linear)
    else:
        sets = [np.arange(n)[:, None], np.stack([q.first, q.second], axis=1)]
        energy = Interactions(n, sets, [-q.linear, -q.pairs])
    return Model(energy, float(q.constant), checked_names(names, n))


def checked_names(
    names: Iterable[Hashable] | None, n: int, visible: int | None = None
) -> tuple[Hashable, ...]:
    """One name for each of n spins; their numbers by default.

    Where the first spins alone are visible, names of these will do.

    Raises:
        ValueError: for another number of names, or a name that occurs twice.
    """
    if names is None:
        return tuple(range(n))
    given = tuple(names)
    if len(given) == visible:
        given += tuple(f"hidden {k}" for k in range(n - len(given)))
    if len(given) != n:
        raise ValueError(f"names must be {n}, one for each spin, got {len(given)}")
    seen = set()
    for name in given:
        if name in seen:
            raise ValueError(f"names must differ from each other, got {name!r} twice")
        seen.add(name)
    return given


def ordered(labels: Iterable[Hashable]) -> list[Hashable]:
    """Different labels in their natural order; those that cannot be compared by class and text."""
    different = set(labels)
    try:
        return sorted(different)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return sorted(different, key=lambda label: (type(label).__name__, repr(label)))


def needed(module: str, user: str) -> Any:
    """A package that only some need, imported when they do."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"interop.{user} needs {module.partition('.')[0]}; install it with: "
            "pip install 'thermogen[interop]'"
        ) from error
