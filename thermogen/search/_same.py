"""When two states are one, and what the hits of states say together."""

from collections.abc import Callable

import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int, UInt32

# Two minima are the same when no magnetization differs by more: where G rises by the fourth power
# alone, as at a bifurcation, float64 tells the place of a minimum to 2e-5.
MERGE_TOLERANCE = 1e-4


def distances(
    m: Float[np.ndarray | Array, " n"],
    others: Float[np.ndarray | Array, "rows n"],
    mirrored: bool | np.bool_ | Bool[np.ndarray, " rows"],
) -> Float[np.ndarray, " rows"]:
    """Largest difference of a magnetization between a state and each of some others.

    Modulo the global flip where `mirrored`. Below `MERGE_TOLERANCE` they are one state.
    """
    apart = np.abs(others - m).max(axis=1, initial=0)
    if not np.any(mirrored):
        return apart
    mirror = np.abs(others + m).max(axis=1, initial=0)
    return np.where(mirrored, np.minimum(apart, mirror), apart)


def first_equals(
    count: int, equals: Callable[[int, np.ndarray], Bool[np.ndarray, " rows"]]
) -> Int[np.ndarray, " count"]:
    """For each of `count` rows the first row that it equals, taken in order, else itself.

    Args:
        count: number of rows.
        equals: whether row k equals each of some later rows.
    """
    leader = np.full(count, -1)
    for k in range(count):
        if leader[k] < 0:
            free = np.flatnonzero(leader < 0)
            leader[free[equals(k, free)]] = k
            leader[k] = k
    return leader


def groups_by_run(runs: list[UInt32[np.ndarray, "_ 2"]]) -> Int[np.ndarray, " libraries"]:
    """A number for each library; those that share a run, by any chain of others, have one."""
    names = [set(map(bytes, each)) for each in runs]
    shared = np.array([[not a.isdisjoint(b) for b in names] for a in names])
    return scipy.sparse.csgraph.connected_components(shared | np.eye(len(names), dtype=bool))[1]


def added(
    counts: Int[np.ndarray, " rows"],
    source: Int[np.ndarray, " rows"],
    state: Int[np.ndarray, " rows"],
    runs: Int[np.ndarray, " libraries"],
) -> Int[np.ndarray, " states"]:
    """Hits of each state in several libraries; of libraries of one run the largest count.

    Args:
        counts: hits of each row.
        source: the library of each row.
        state: the state of each row.
        runs: a number for each library, as `groups_by_run` gives it.
    """
    table = np.zeros((len(runs), state.max(initial=-1) + 1), int)
    np.add.at(table, (source, state), counts)
    largest = np.zeros_like(table)
    np.maximum.at(largest, runs, table)
    return largest.sum(axis=0)


def good_turing(hits: Int[np.ndarray, " K"], unresolved: int = 0) -> float:
    """One minus the share of quenches that were alone in their state, or found none (Good 1953).

    NaN where no quench found a state.
    """
    if not hits.sum():
        return float("nan")
    return float(1 - (np.sum(hits == 1) + unresolved) / (hits.sum() + unresolved))
