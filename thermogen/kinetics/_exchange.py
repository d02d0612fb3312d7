"""Escape times and rates from trajectories that were looked at now and then."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

# A trajectory has left its set when it is seen outside so many times in a row: crossings that
# turn back at once are none.
_DWELL = 2
_CONFIDENCE = 0.95
_ROUNDING_OF_OVERLAPS = 1e-6


class Departures(NamedTuple):
    """The first departure of each trajectory from its set, of every start.

    Attributes:
        left: whether it was seen to leave, shape `(starts, trajectories)`.
        times: time in sweeps at which a trajectory left, or was last seen inside, shape
            `(starts, trajectories)`.
        to: core to which it went if it left, shape `(starts, trajectories)`.
    """

    left: Bool[np.ndarray, "starts trajectories"]
    times: Float[np.ndarray, "starts trajectories"]
    to: Int[np.ndarray, "starts trajectories"]


def shares(
    labels: Int[np.ndarray, "starts trajectories"], n_labels: int, weights: np.ndarray | None = None
) -> Float[np.ndarray, "starts labels"]:
    """Share of the (weighted) trajectories of each start that have each label."""
    weights = np.ones(labels.shape) if weights is None else weights
    counts = np.zeros((len(labels), n_labels))
    np.add.at(counts, (np.arange(len(labels))[:, None], labels), weights)
    return counts / np.maximum(1, weights.sum(axis=1, keepdims=True))


def passages(
    before: Int[np.ndarray, "starts trajectories"],
    after: Int[np.ndarray, "starts trajectories"],
    n_labels: int,
) -> Int[np.ndarray, "labels labels"]:
    """How many trajectories with each label have each label later."""
    counts = np.zeros((n_labels, n_labels), int)
    np.add.at(counts, (before, after), 1)
    return counts


def apart(
    labels: Int[np.ndarray, "starts trajectories times"],
    nearness: Float[np.ndarray, "starts trajectories times"],
    n_cores: int,
    n_early: int,
) -> Float[np.ndarray, " cores"]:
    """Overlaps with each core below which a configuration is far from it.

    Far from a core is nearer to where disordered starts, the rows after those of the cores, are at
    their first look than to where trajectories from the core itself are at their `n_early` first
    looks, both by the median overlap with the core.
    """
    drawn, towards = nearness[n_cores:, :, 0], labels[n_cores:, :, 0]
    cuts = np.empty(n_cores)
    for k in range(n_cores):
        own, theirs = labels[k, :, :n_early] == k, towards == k
        inner = np.median(nearness[k, :, :n_early][own]) if own.any() else 1.0
        cuts[k] = 0.5 * (inner + np.median(drawn[theirs] if theirs.any() else drawn))
    return cuts - _ROUNDING_OF_OVERLAPS


def departures(
    labels: Int[np.ndarray, "starts trajectories times"],
    sets: Int[np.ndarray, " cores"],
    home: Int[np.ndarray, "#starts #trajectories"],
    interval: float,
) -> Departures:
    """When trajectories leave their home sets, looked at every `interval` sweeps."""
    outside = sets[labels] != home[..., None]
    n_last = labels.shape[-1] - _DWELL + 1
    away = np.all([outside[..., k : k + n_last] for k in range(_DWELL)], axis=0)
    left, first = away.any(axis=-1), away.argmax(axis=-1)
    # Look number k is k + 1 intervals after the start; it left since the look before.
    times = interval * np.where(left, first + 0.5, n_last)
    to = np.take_along_axis(labels, first[..., None] + _DWELL - 1, axis=-1)[..., 0]
    return Departures(left, times, to)


def escape_times(
    count: Int[np.ndarray, " starts"], risk: Float[np.ndarray, " starts"]
) -> tuple[Float[np.ndarray, " starts"], Float[np.ndarray, "starts 2"]]:
    """Mean escape time of an exponential law with censoring, and its confidence interval.

    Time at risk over number of escapes; the interval is that of a Poisson count (Garwood 1936).
    """
    tail = 0.5 * (1 - _CONFIDENCE)
    most = 0.5 * scipy.stats.chi2.ppf(1 - tail, 2 * count + 2)
    least = np.where(count > 0, 0.5 * scipy.stats.chi2.ppf(tail, 2 * np.maximum(count, 1)), 0)
    with np.errstate(divide="ignore"):
        return risk / count, np.stack([risk / most, risk / least], axis=1)


def inner_times(
    overlaps: Float[np.ndarray, "starts trajectories times"], leaving: Departures, interval: float
) -> Float[np.ndarray, " starts"]:
    """When the overlap of those that stay has gone all but 1/e of its way from 1 to its plateau.

    The plateau is the mean over the second half of the times; 0 where nobody stays that long.
    """
    clock = interval * np.arange(overlaps.shape[-1] + 1)
    stay = leaving.times > clock[-1]
    mean = np.sum(overlaps * stay[..., None], axis=1) / np.maximum(1, stay.sum(axis=1))[:, None]
    mean = np.concatenate([np.ones((len(mean), 1)), mean], axis=1)
    plateau = mean[:, len(clock) // 2 :].mean(axis=1)
    level = plateau + (1 - plateau) / np.e
    after = np.argmax(mean <= level[:, None], axis=1)
    rows = np.arange(len(mean))
    high, low = mean[rows, after - 1], mean[rows, after]
    step = (high - level) / np.where(high > low, high - low, 1)
    return np.where(stay.any(axis=1) & (after > 0), interval * (after - 1 + step), 0.0)


def exchange_rates(
    labels: Int[np.ndarray, "starts trajectories times"],
    sets: Int[np.ndarray, " cores"],
    interval: float,
    images: Int[np.ndarray, " cores"] | None = None,
) -> Float[np.ndarray, "sets sets"]:
    """Rates between sets per sweep, departures over time at risk; rows sum to 0.

    A trajectory counts for the set in which it is at the first look, which should come late
    enough for it to have forgotten where in the set it started. With the image of each label
    under the global flip, also for the image of that set.
    """
    home, n_sets = sets[labels[..., 0]], sets.max() + 1
    leaving = departures(labels, sets, home, interval)
    counts, risk = np.zeros((n_sets, n_sets)), np.zeros(n_sets)
    np.add.at(counts, (home, sets[leaving.to]), leaving.left)
    np.add.at(risk, home, leaving.times)
    if images is not None:
        image = np.arange(n_sets)
        image[sets[::-1]] = sets[images[::-1]]
        counts, risk = 0.5 * (counts + counts[image][:, image]), 0.5 * (risk + risk[image])
    rates = counts / np.maximum(risk, interval)[:, None]
    return rates - np.diag(rates.sum(axis=1))


def fold(
    sets: Int[np.ndarray, " labels"], images: Int[np.ndarray, " labels"]
) -> Int[np.ndarray, " sets"]:
    """One number for sets that are images of each other, by the image of each label.

    Returns the number of each set, shape `(sets,)`.
    """
    links = scipy.sparse.coo_array((np.ones(len(sets)), (sets, sets[images])))
    return scipy.sparse.csgraph.connected_components(links, directed=False)[1]
