"""Ends of descents as a library: polished, proved, and merged."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt32

from .._placement import on_host
from .._solution import Solution
from .._types import Key
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import (
    RESULTS,
    Problem,
    is_minimum,
    judge,
    lowest_curvature,
    polish,
    scaled_hessian,
)
from ._curvature import lowest_curvatures
from ._harvest import Ends, apart
from ._library import Kind, Library
from ._merge import Pool, joined
from ._provenance import run_of
from ._quench import below_saddles, is_converged, verified_ends
from ._same import MERGE_TOLERANCE
from ._valleys import Valleys

# Rows that are polished at once under a trace.
_ROWS = 16


class Verification:
    """Ends as verified states, in float64 on the host; no end is verified twice.

    What came to rest on a saddle goes on down both sides: the states found there are held, but it
    counts as a descent that found none. Marginal minima of one flat valley are one state.
    """

    def __init__(
        self,
        problem: Problem,
        symmetric: bool,
        origin: UInt32[np.ndarray, "3 2"],
        capacity: int,
        key: Key,
    ):
        self._problem = problem
        measure = functools.partial(lowest_curvatures, self._problem)
        self._pool = Pool(capacity, symmetric, measure)
        self._valleys = Valleys(self._problem, symmetric)
        self._rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        self._origin = {"fingerprint": origin, "runs": run_of(key)}
        # The ends that were verified: their rows in the table, and the hits that were counted.
        self._row: dict[bytes, int] = {}
        self._verified: Solution | None = None
        self._counted = np.zeros((0, 2), int)

    def library(self, ends: Ends) -> Library:
        """The minima among the ends, with their hits."""
        ends = jax.tree.map(on_host, ends)
        order = np.argsort(ends.free_energies, kind="stable")
        used = order[np.isfinite(ends.free_energies[order])]
        fields = np.ascontiguousarray(ends.fields[used])
        hits = np.stack([ends.hits, ends.given_hits], axis=1)[used]
        with jax.enable_x64(True):
            unresolved = int(ends.lost)
            if len(fields):
                rows = self._rows_of(fields)
                solution = jax.tree.map(lambda x: x[rows], self._verified)
                good = is_converged(solution)
                more = hits - self._counted[rows]
                self._counted[rows] = hits
                unresolved += int(np.sum((hits[:, 0] - hits[:, 1])[~good]))
                fresh = good & (more[:, 0] > 0)
                self._hold(jax.tree.map(lambda x: x[fresh], solution), more[fresh])
            held = self._pool.library(self._problem.energy.n_spins)
        overflow = np.array(held.overflow | ends.overflow)
        return dataclasses.replace(
            held, unresolved=np.array(unresolved), overflow=overflow, **self._origin
        )

    def _rows_of(self, fields: Float[np.ndarray, "ends n"]) -> Int[np.ndarray, " ends"]:
        """The rows of the ends in the table of what was verified; new ones are added to it."""
        names = [row.tobytes() for row in fields]
        new = np.array([name not in self._row for name in names])
        for row, k in enumerate(np.flatnonzero(new), len(self._counted)):
            self._row[names[k]] = row
        if new.any():
            found = verified_ends(self._problem, fields[new].astype(float))
            verified = found if self._verified is None else joined(self._verified, found)
            self._verified = verified
            self._counted = np.concatenate([self._counted, np.zeros((new.sum(), 2), int)])
            _, below = below_saddles(self._problem, found, self._rng)
            if below is not None:
                self._hold(below, np.zeros((len(below.value), 2), int))
        return np.array([self._row[name] for name in names])

    def _hold(self, minima: Solution, hits: Int[np.ndarray, "rows 2"]) -> None:
        if len(hits):
            minima, united = self._valleys.represented(minima)
            for state, other in united:
                self._pool.unite(state, other)
            self._pool.add(minima, *hits.T)


def precision(energy: AbstractEnergy) -> DTypeLike:
    """The dtype of the parameters of an energy."""
    return jnp.result_type(float, *jax.tree.leaves(energy))


def verified(problem: Problem, ends: Ends, capacity: int) -> Library:
    """The minima among the ends as a library of a fixed length, in the precision there is.

    Pure: it jits and vmaps. Saddles and what did not converge are left out, and counted as
    unresolved.
    """
    dtype = precision(problem.energy)
    tol = jnp.asarray(1e-9 if dtype == jnp.float64 else 1e-4, dtype)
    theta, result, figures = _polished(problem, ends, tol)
    used = jnp.isfinite(ends.free_energies)
    good = used & is_minimum(result)
    symmetric = is_flip_symmetric(problem.energy)
    own = ends.hits - ends.given_hits
    unresolved = ends.lost + jnp.sum(jnp.where(good, 0, own))
    leader = _leaders(jnp.tanh(theta), good, symmetric)
    first = good & (leader == jnp.arange(len(good)))
    hits, given = (
        jnp.zeros_like(x).at[leader].add(jnp.where(good, x, 0))
        for x in (ends.hits, ends.given_hits)
    )
    g, residual, curvature = figures
    levels = jnp.where(first, g, jnp.inf)
    order = jnp.argsort(levels, stable=True)[:capacity]
    order = jnp.concatenate([order, jnp.zeros(capacity - len(order), order.dtype)])
    mask = jnp.arange(capacity) < jnp.minimum(jnp.sum(first), capacity)
    theta = jnp.where(mask[:, None], theta[order], 0)
    m = jnp.tanh(theta)
    paired = symmetric & (jnp.max(jnp.abs(m), axis=1) > MERGE_TOLERANCE)

    def of(values, blank):
        return jnp.where(mask, values[order], blank)

    kinds = jnp.where(result == RESULTS.marginal, int(Kind.MARGINAL), int(Kind.MINIMUM))
    return Library(
        m,
        of(levels, jnp.inf),
        of(residual, jnp.inf),
        of(curvature, 0.0),
        of(hits, 0),
        1 + paired.astype(jnp.int32),
        fields=theta,
        kind=of(kinds, int(Kind.POINT)).astype(jnp.int8),
        mask=mask,
        overflow=ends.overflow | (jnp.sum(first) > capacity),
        given_hits=of(given, 0),
        unresolved=unresolved,
    )


def _polished(problem: Problem, ends: Ends, tol: Array) -> tuple[Array, RESULTS, Any]:
    """Newton steps from each end, and a verdict on it.

    Ends fill a table from its first place on: the batches behind them are left out.
    """

    def single(row):
        end = polish(problem, row, tol=tol)
        theta, (_, taylor) = end.value, end.aux
        residual, result = judge(problem, theta, taylor, tol=tol)
        hessian = scaled_hessian(taylor, theta, problem.beta)
        curvature = lowest_curvature(hessian, theta, problem.beta)
        return theta, result, (taylor.value, residual, curvature)

    fields = ends.fields.astype(tol.dtype)
    count = -(-len(fields) // _ROWS)
    batches = jnp.pad(fields, ((0, count * _ROWS - len(fields)), (0, 0)))
    batches = batches.reshape(count, _ROWS, -1)
    shapes = eqx.filter_eval_shape(jax.vmap(jax.vmap(single)), batches)
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    n_used = -(-jnp.sum(jnp.isfinite(ends.free_energies)) // _ROWS)

    def step(carry):
        k, table = carry
        done = jax.vmap(single)(batches[k])
        return k + 1, jax.tree.map(lambda all, new: all.at[k].set(new), table, done)

    start = jnp.zeros_like(n_used), blank
    _, table = jax.lax.while_loop(lambda carry: carry[0] < n_used, step, start)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(fields)], table)


def _leaders(
    m: Float[Array, "C n"], good: Bool[Array, " C"], symmetric: Bool[Array, ""]
) -> Int[Array, " C"]:
    """For each row the first good row that it is the same state as, else itself."""
    rows = jnp.arange(len(m))

    def step(carry):
        waiting, leader = carry
        k = jnp.argmax(waiting)
        first = jnp.argmax(good & (apart(m[k], m.T, symmetric) < MERGE_TOLERANCE))
        return waiting & (rows != k), jnp.where(rows == k, first, leader)

    # Of a table most rows are unused.
    return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), step, (good, rows))[1]
