"""Cores that trajectories merely pass, told by a few of them."""

import numpy as np
import scipy
from jaxtyping import Bool, Int

from ._cores import Cores, Seen, repeated
from ._judge import LAG, LOOKS
from ._observe import Observer

# Up to so many cores get all trajectories at once: one program to compile instead of three.
_FEW_CORES = 32
# Trajectories from each core, and so many more where these decide nothing.
_FEW, _MORE = 32, 96
# Looks until trajectories that stay for the lag can be told from those that left.
_LOOKS = LAG * LOOKS + 2
# A core as slow as the threshold holds this share of its trajectories for the lag; in one case of a
# hundred it is taken for one that is slower, or faster.
_HELD, _DOUBT = np.exp(-LAG), 0.01


def screened(observe: Observer, cores: Cores) -> tuple[Int[np.ndarray, " cores"], Seen]:
    """The core that stands for each, and what a few trajectories from all cores met.

    A few cores all stand for themselves, and nothing is observed.

    Args:
        observe: the trajectories.
        cores: all of them.
    """
    own, starts = np.arange(len(cores.spins)), np.arange(cores.n_starts)
    if len(starts) <= _FEW_CORES:
        none = np.zeros((2, len(own), 1, 1))
        return own, Seen(np.zeros(none.shape[1:], int), *none)
    counts = np.zeros((len(starts), len(own)), int)

    def count(rows: Int[np.ndarray, " rows"], seen: Seen) -> Int[np.ndarray, "cores cores"]:
        np.add.at(counts, (rows[:, None], seen.labels[..., LAG * LOOKS - 1]), 1)
        return np.concatenate([counts, counts[::-1, ::-1]]) if cores.mirrored else counts

    def seen_from(rows: Int[np.ndarray, " rows"], n_trajectories: int) -> Seen:
        return observe(repeated(cores.spins[rows], n_trajectories), _LOOKS, n_trajectories)

    few, images = seen_from(starts, _FEW), cores.images(len(own))
    all_counts = count(starts, few)
    stands = standing(all_counts, images)
    unclear = (stands == own) & ~_holds(all_counts)
    rows = np.flatnonzero(unclear[: len(starts)])
    if rows.size:
        stands = standing(count(rows, seen_from(rows, _MORE)), images)
    return stands, cores.with_images(few)


def standing(
    counts: Int[np.ndarray, "cores cores"], images: Int[np.ndarray, " cores"]
) -> Int[np.ndarray, " cores"]:
    """The core that stands for each: itself, or that to which its trajectories go.

    A core in which fewer trajectories stay than if it were as slow as the threshold is merely
    passed. Such cores are merged, the least visited first, into the core where most of their
    trajectories are after the lag; trajectories then stay where they are with either. Of cores that
    exchange at once a few are left, for they cannot all be passed.

    Args:
        counts: how many trajectories from each core, a row, are with each after the lag.
        images: the image of each core under the global flip, itself where there is no symmetry.
    """
    n_trajectories = counts.sum(axis=1)
    least = scipy.stats.binom.ppf(_DOUBT, n_trajectories, _HELD)
    flows = counts / n_trajectories[:, None]
    flows = 0.5 * (flows + flows[images][:, images])
    least = least / n_trajectories - 1e-9
    stands, visits = np.arange(len(flows)), flows.sum(axis=0)
    passed = np.diag(flows) < least
    while passed.any():
        k = np.argmin(np.where(passed, visits, np.inf))
        passed[[k, images[k]]] = False
        goals = flows[k].copy()
        goals[[k, images[k]]] = 0
        goal = np.argmax(goals)
        if goals[goal] == 0:
            continue
        for a, b in {(k, goal), (images[k], images[goal])}:
            stands[stands == a] = b
            flows[:, b] += flows[:, a]
            flows[:, a] = 0
            visits[b] += visits[a]
            passed[b] &= flows[b, b] < least[b]
    return stands


def _holds(counts: Int[np.ndarray, "cores cores"]) -> Bool[np.ndarray, " cores"]:
    """Whether more trajectories stay than if the core were as slow as the threshold."""
    return np.diag(counts) > scipy.stats.binom.ppf(1 - _DOUBT, counts.sum(axis=1), _HELD)
