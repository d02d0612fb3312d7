"""Energies with interactions of any order, stored as sparse lists grouped by order."""

import functools
import math
import operator
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from .._checks import as_array, as_float, check_count
from .._linalg import dot
from .._types import Magnetizations, Spins
from ._base import AbstractMultilinear, one_configuration
from ._moments import nonlinear_third_moment, nonlinear_variance
from ._parameters import as_parameters, parameter_degrees
from ._plans import (
    SHORT,
    TermRows,
    TermTriples,
    Triples,
    counting_steps,
    has_short_terms,
    overlap_plan,
    subset_plan,
    term_triple_plan,
    triple_plan,
)


class SpinSets:
    """An immutable, hashable table of spin sets of one order, shape `(n_terms, order)`.

    Which spins interact is structure, not a parameter: it takes part in compilation, and two
    energies with equal tables share compiled code.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        sets = tg.energies.SpinSets(np.array([[0, 1], [1, 2]]))

        assert sets.order == 2 and hash(sets) == hash(tg.energies.SpinSets(sets.indices))
        ```
    """

    __slots__ = ("_hash", "indices")

    def __init__(self, indices: np.ndarray):
        if indices.ndim != 2 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                "sets must be integer tables of shape (n_terms, order), got dtype "
                f"{indices.dtype} and shape {indices.shape}"
            )
        self.indices = np.array(indices, dtype=np.int32)
        if not np.array_equal(self.indices, indices):
            raise ValueError("sets must hold spin numbers below 2**31")
        self.indices.setflags(write=False)
        self._hash = hash((self.indices.shape, self.indices.tobytes()))

    @property
    def order(self) -> int:
        return self.indices.shape[1]

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, SpinSets) or self._hash != other._hash:
            return False
        return np.array_equal(self.indices, other.indices)

    def __repr__(self) -> str:
        return f"SpinSets(order={self.order}, n_terms={len(self)})"


# What sets of so many spins are called.
_NAMES = {0: "constant", 1: "fields", 2: "pairs", 3: "triples"}


class Interactions(AbstractMultilinear):
    """`E(s) = -sum_a J_a prod_{k in a} s_k` over a chosen list of spin sets a.

    Most easily made by `Interactions.from_terms`.

    Args:
        n_spins: number of spins n.
        sets: one integer table per order p, shape `(n_terms, p)`: the spins of each term. The
            order 0 (shape `(1, 0)`) carries a constant.
        couplings: one array per table, shape `(n_terms,)`, in energy units.

    Raises:
        ValueError: if tables and couplings disagree, if a spin is outside 0..n-1 or repeated
            within a set, or if a set occurs twice.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        # A field on spin 0 and a coupling of three spins.
        energy = tg.Interactions.from_terms(3, {(0,): 0.5, (0, 1, 2): 2.0})
        assert energy(jnp.ones(3)) == -2.5
        ```
    """

    n_spins: int = eqx.field(static=True)
    sets: tuple[SpinSets, ...] = eqx.field(static=True)
    couplings: tuple[Float[Array, " terms"], ...]

    def __init__(
        self, n_spins: int, sets: Sequence[np.ndarray | SpinSets], couplings: Sequence[ArrayLike]
    ) -> None:
        n_spins = check_count("n_spins", n_spins, least=0)
        tables = tuple(
            s if isinstance(s, SpinSets) else SpinSets(np.asarray(as_array("sets", s)))
            for s in sets
        )
        values = as_parameters(**{f"couplings[{i}]": c for i, c in enumerate(couplings)})
        if [t.indices.shape[:1] for t in tables] != [v.shape for v in values]:
            raise ValueError(
                "couplings must hold one array of shape (n_terms,) for each table of sets, got "
                f"shapes {[v.shape for v in values]} for {list(tables)}"
            )
        _check_sets(n_spins, tables)
        self.n_spins, self.sets, self.couplings = n_spins, tables, tuple(values)

    @classmethod
    def from_terms(
        cls, n: int, terms: Mapping[tuple[int, ...], float | Float[Array, ""]]
    ) -> "Interactions":
        """Build from `{spins: coupling}`, for example `{(0,): h, (0, 3, 4): J}`.

        The empty tuple carries a constant `-J`. The order of spins within a key does not matter.

        Raises:
            ValueError: if a key has spins outside 0..n-1, repeats a spin, or names the same
                set as another key.
        """
        by_order: dict[int, list[tuple[int, ...]]] = {}
        for spins in terms:
            by_order.setdefault(len(spins), []).append(spins)
        orders = sorted(by_order)
        # No dtype for p > 0, so that spins that are not integers are refused.
        sets = [np.array(by_order[p]) if p else np.zeros((1, 0), np.int32) for p in orders]
        couplings = [_stack([terms[spins] for spins in by_order[p]]) for p in orders]
        return cls(n, sets, couplings)

    def _parts(self) -> dict[str, Array | np.ndarray]:
        tables = zip(self.sets, self.couplings, strict=True)
        return {f"{_NAMES.get(t.order, f'sets of {t.order}')}": c for t, c in tables}

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        spins = one_configuration(self, spins)
        total = jnp.zeros((), jnp.result_type(spins, *self.couplings, float))
        for table, couplings in zip(self.sets, self.couplings, strict=True):
            total -= dot(couplings, product_over(spins, table.indices))
        return total


def product_over(x: Spins, indices: np.ndarray) -> Num[Array, " terms"]:
    """`prod_{k in a} x_k` for each row a of `indices`, with derivatives at x_k = 0 too."""
    if indices.shape[1] > SHORT:
        return _product(jnp.asarray(x)[indices])
    columns = [x[indices[:, j]] for j in range(indices.shape[1])]
    return functools.reduce(operator.mul, columns, jnp.ones(indices.shape[0], x.dtype))


def _product(x: Num[Array, "*rows p"]) -> Num[Array, "*rows"]:
    """Product over the last axis, as a loop: written out, its derivatives compile for minutes."""
    ones, factors = jnp.ones(x.shape[:-1], x.dtype), jnp.moveaxis(x, -1, 0)
    return jax.lax.scan(lambda total, factor: (total * factor, None), ones, factors)[0]


@nonlinear_variance.register
def _(energy: Interactions, m: Magnetizations) -> Float[Array, ""]:
    """Derivatives of U serve short interactions, pairs of terms serve long ones."""
    m = as_float(m)
    pairs = _pairs(energy.n_spins, energy.sets)
    if pairs is not None:
        return _sum_over_rows(jnp.concatenate(energy.couplings), m, pairs)
    weights = [product_over(1 - m * m, subsets) for subsets, *_ in _subsets(energy.sets)]
    derivatives = _derivatives(energy.sets, energy.couplings, m)
    terms = [dot(jnp.square(d), weight) for d, weight in zip(derivatives, weights, strict=True)]
    return sum(terms, jnp.zeros((), m.dtype))


@nonlinear_third_moment.register
def _(energy: Interactions, m: Magnetizations) -> Float[Array, ""]:
    """Triples of subsets serve short terms; triples of terms serve what involves a long one.

    The former is `-sum c_A c_B c_C <d_A d_B d_C>` with `d_A = prod_{k in A} (s_k - m_k)`.
    """
    m = as_float(m)
    variance = 1 - m * m
    short = tuple(table for table in energy.sets if table.order <= SHORT)
    couplings = [c for c, t in zip(energy.couplings, energy.sets, strict=True) if t.order <= SHORT]
    derivatives = jnp.concatenate([*_derivatives(short, couplings, m), jnp.zeros(1, m.dtype)])
    total, long = jnp.zeros((), m.dtype), _term_triples(energy.n_spins, energy.sets)
    if long is not None:
        of_groups = jnp.concatenate([energy.couplings[group] for group in long.groups])
        total -= _sum_over_rows(of_groups, m, long.rows)
    for triples in _triples(short):
        products = jnp.prod(derivatives[triples.sets], axis=1) * triples.weight
        moments = product_over(variance, triples.twice)
        moments *= product_over(-2 * m * variance, triples.thrice)
        total -= dot(products, moments)
    return total


@parameter_degrees.register
def _(energy: Interactions) -> Interactions:
    orders = tuple(table.order for table in energy.sets)
    return eqx.tree_at(lambda e: e.couplings, energy, orders)


def _derivatives(
    sets: tuple[SpinSets, ...], couplings: Sequence[Float[Array, " _"]], m: Magnetizations
) -> list[Float[Array, " _"]]:
    """`-d_A U` for every set A of two spins and more where it is not 0, grouped by size."""
    derivatives = []
    for subsets, target, contributions in _subsets(sets):
        size = subsets.shape[1]
        values = [
            jnp.tile(couplings[group], math.comb(sets[group].order, size)) * product_over(m, rest)
            for group, rest in contributions
        ]
        zeros = jnp.zeros(len(subsets), jnp.result_type(m, *values))
        derivatives.append(zeros.at[target].add(jnp.concatenate(values)))
    return derivatives


def _sum_over_rows(
    couplings: Float[Array, " terms"], m: Magnetizations, rows: TermRows
) -> Float[Array, ""]:
    """Sum over pairs or triples of terms of `J_a J_b <y_a y_b>`, with y as in the moments of Y.

    A term less its linear part is a sum over its subsets A of two spins and more,
    `y_a = sum_A prod_{k in A} (s_k - m_k) prod_{k in a - A} m_k`. In the mean of a product every
    spin counts for itself: a loop over the spins adds up all choices of the terms that take its
    deviation, and counts how many each has taken. No sum cancels, nor is anything divided.
    """
    k = rows.terms.shape[1]
    cases, steps, goal = counting_steps(k)
    x = jnp.append(m, 1)[rows.spins]
    variance = 1 - x * x
    central = {0: jnp.ones_like(x), 2: variance, 3: -2 * x * variance}
    means = [jnp.where(rows.members[:, a], x, 1) for a in range(k)]
    weights = []
    for takers in cases:
        inside = np.all(rows.members[:, list(takers)], axis=1)
        others = [means[a] for a in range(k) if a not in takers]
        weight = functools.reduce(operator.mul, others, central[len(takers)])
        weights.append(jnp.where(inside, weight, 0))
    steps = jnp.asarray(steps, x.dtype)

    def count(ways, weight):
        return dot((weight[:, :, None] * ways[:, None, :]).reshape(len(x), -1), steps), None

    start = jnp.zeros((len(x), steps.shape[1]), x.dtype).at[:, 0].set(1)
    ways, _ = jax.lax.scan(count, start, jnp.moveaxis(jnp.stack(weights, axis=2), 1, 0))
    return dot(rows.weight * product_over(couplings, rows.terms), ways[:, goal])


@functools.lru_cache(maxsize=64)
def _term_triples(n_spins: int, sets: tuple[SpinSets, ...]) -> TermTriples | None:
    return term_triple_plan([table.indices for table in sets], n_spins)


@functools.lru_cache(maxsize=64)
def _subsets(sets: tuple[SpinSets, ...]):
    return subset_plan([table.indices for table in sets])


@functools.lru_cache(maxsize=64)
def _triples(sets: tuple[SpinSets, ...]) -> list[Triples]:
    return triple_plan(subsets for subsets, *_ in _subsets(sets))


@functools.lru_cache(maxsize=64)
def _pairs(n_spins: int, sets: tuple[SpinSets, ...]) -> TermRows | None:
    """Pairs of overlapping terms, where they are a better list than all subsets of all terms."""
    tables = [table.indices for table in sets]
    return None if has_short_terms(tables, n_spins) else overlap_plan(tables, n_spins)


@functools.lru_cache(maxsize=64)
def _check_sets(n_spins: int, tables: tuple[SpinSets, ...]) -> None:
    for order in {table.order for table in tables}:
        rows = np.concatenate([table.indices for table in tables if table.order == order])
        rows = np.sort(rows, axis=1)
        rows = rows[np.lexsort(rows.T)] if order else rows
        twice = np.append(np.all(rows[1:] == rows[:-1], axis=1), False)[: len(rows)]
        wrong = {
            f"has a spin outside 0..{n_spins - 1}": np.any((rows < 0) | (rows >= n_spins), axis=1),
            "repeats a spin; s_k s_k = 1, so leave it out": np.any(
                rows[:, 1:] == rows[:, :-1], axis=1
            ),
            "occurs twice; add the two couplings instead": twice,
        }
        for message, where in wrong.items():
            if np.any(where):
                raise ValueError(f"sets: {tuple(rows[where][0].tolist())} {message}")


def _stack(values: list) -> Array | np.ndarray:
    if any(isinstance(v, jax.Array) for v in values):
        return jnp.stack([jnp.asarray(v, jnp.result_type(float, *values)) for v in values])
    return as_array("terms", values)
