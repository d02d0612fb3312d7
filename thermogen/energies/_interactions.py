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

from .._types import Magnetizations, Spins
from ._base import (
    AbstractMultilinear,
    as_float,
    as_parameters,
    nonlinear_third_moment,
    nonlinear_variance,
    one_configuration,
    parameter_degrees,
)
from ._linalg import dot
from ._plans import Overlaps, Triples, has_short_terms, overlap_plan, subset_plan, triple_plan


class SpinSets:
    """An immutable, hashable table of spin sets of one order, shape `(n_terms, order)`.

    Which spins interact is structure, not a parameter: it takes part in compilation, and two
    energies with equal tables share compiled code.
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
    """

    n_spins: int = eqx.field(static=True)
    sets: tuple[SpinSets, ...] = eqx.field(static=True)
    couplings: tuple[Float[Array, " terms"], ...]

    def __init__(
        self, n_spins: int, sets: Sequence[np.ndarray | SpinSets], couplings: Sequence[ArrayLike]
    ) -> None:
        tables = tuple(s if isinstance(s, SpinSets) else SpinSets(np.asarray(s)) for s in sets)
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

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        spins = one_configuration(self, spins)
        total = jnp.zeros((), jnp.result_type(spins, *self.couplings, float))
        for table, couplings in zip(self.sets, self.couplings, strict=True):
            total -= dot(couplings, product_over(spins, table.indices))
        return total


def product_over(x: Spins, indices: np.ndarray) -> Num[Array, " terms"]:
    """`prod_{k in a} x_k` for each row a of `indices`; derivatives need no division by x."""
    columns = [x[indices[:, j]] for j in range(indices.shape[1])]
    return functools.reduce(operator.mul, columns, jnp.ones(indices.shape[0], x.dtype))


@nonlinear_variance.register
def _(energy: Interactions, m: Magnetizations) -> Float[Array, ""]:
    """By the derivatives of U while interactions are short, by pairs of long interactions."""
    m = as_float(m)
    pairs = _pairs(energy.n_spins, energy.sets)
    if pairs is not None:
        terms = [_overlap_variance(energy, m, overlaps) for overlaps in pairs]
    else:
        weights = [product_over(1 - m * m, subsets) for subsets, *_ in _subsets(energy.sets)]
        terms = [
            dot(jnp.square(derivative), weight)
            for derivative, weight in zip(_derivatives(energy, m), weights, strict=True)
        ]
    return sum(terms, jnp.zeros((), m.dtype))


@nonlinear_third_moment.register
def _(energy: Interactions, m: Magnetizations) -> Float[Array, ""]:
    """`-sum c_A c_B c_C <d_A d_B d_C>` over triples of sets, `d_A = prod_{k in A} (s_k - m_k)`."""
    m = as_float(m)
    variance = 1 - m * m
    derivatives = jnp.concatenate([*_derivatives(energy, m), jnp.zeros(1, m.dtype)])
    total = jnp.zeros((), m.dtype)
    for triples in _triples(energy.sets):
        products = jnp.prod(derivatives[triples.sets], axis=1) * triples.weight
        moments = product_over(variance, triples.twice)
        moments *= product_over(-2 * m * variance, triples.thrice)
        total -= dot(products, moments)
    return total


@parameter_degrees.register
def _(energy: Interactions) -> Interactions:
    orders = tuple(table.order for table in energy.sets)
    return eqx.tree_at(lambda e: e.couplings, energy, orders)


def _derivatives(energy: Interactions, m: Magnetizations) -> list[Float[Array, " subsets"]]:
    """`-d_A U` for every set A of two spins and more where it is not 0, grouped by size."""
    derivatives = []
    for subsets, target, contributions in _subsets(energy.sets):
        size = subsets.shape[1]
        values = [
            jnp.tile(energy.couplings[group], math.comb(energy.sets[group].order, size))
            * product_over(m, rest)
            for group, rest in contributions
        ]
        zeros = jnp.zeros(len(subsets), jnp.result_type(m, *values))
        derivatives.append(zeros.at[target].add(jnp.concatenate(values)))
    return derivatives


def _overlap_variance(energy: Interactions, m: Magnetizations, pairs: Overlaps) -> Float[Array, ""]:
    """What pairs of terms a, b that share so many spins add to the nonlinear variance.

    `J_a J_b prod_{k in one of them} m_k` times the probability that at least two of independent
    events of probability `v_k`, k in both, occur.
    """
    couplings = jnp.concatenate(energy.couplings)
    none = jnp.ones(len(pairs.first), m.dtype)
    one = several = jnp.zeros_like(none)
    for k in pairs.common.T:
        rest, chance = jnp.square(m)[k], (1 - jnp.square(m))[k]
        none, one, several = rest * none, rest * one + chance * none, several + chance * one
    outside = product_over(jnp.append(m, 1), pairs.single)
    products = couplings[pairs.first] * couplings[pairs.second] * outside * pairs.weight
    return dot(products, several)


@functools.lru_cache(maxsize=64)
def _subsets(sets: tuple[SpinSets, ...]):
    return subset_plan([table.indices for table in sets])


@functools.lru_cache(maxsize=64)
def _triples(sets: tuple[SpinSets, ...]) -> list[Triples]:
    return triple_plan(subsets for subsets, *_ in _subsets(sets))


@functools.lru_cache(maxsize=64)
def _pairs(n_spins: int, sets: tuple[SpinSets, ...]) -> list[Overlaps] | None:
    """Pairs of overlapping terms, where they are a better list than all subsets of all terms."""
    tables = [table.indices for table in sets]
    return None if has_short_terms(tables, n_spins) else overlap_plan(tables, n_spins)


def _check_sets(n_spins: int, tables: tuple[SpinSets, ...]) -> None:
    seen: set[tuple[int, ...]] = set()
    for table in tables:
        for row in np.sort(table.indices, axis=1).tolist():
            spins = tuple(row)
            if spins and not (0 <= spins[0] and spins[-1] < n_spins):
                raise ValueError(f"sets: {spins} has a spin outside 0..{n_spins - 1}")
            if len(set(spins)) != len(spins):
                raise ValueError(f"sets: {spins} repeats a spin; s_k s_k = 1, so leave it out")
            if spins in seen:
                raise ValueError(f"sets: {spins} occurs twice; add the two couplings instead")
            seen.add(spins)


def _stack(values: list) -> Array | np.ndarray:
    if any(isinstance(v, jax.Array) for v in values):
        return jnp.stack([jnp.asarray(v, jnp.result_type(float, *values)) for v in values])
    return np.asarray(values)
