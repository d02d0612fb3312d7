"""Metastable sets, escape times and rates from trajectories that were looked at now and then."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.stats
from jaxtyping import Bool, Float, Int

from .._linalg import simplex_corners

# A trajectory has left its set when it is seen outside so many times in a row: crossings that
# turn back at once are none.
_DWELL = 2
_CONFIDENCE = 0.95
_ROUNDING, _ROUNDING_OF_OVERLAPS = 1e-9, 1e-6
# How often the exchange is drawn again: rarely where there are many rows.
_LEAST_DRAWS, _MOST_DRAWS, _DRAWN_ROWS = 20, 200, 6400
# In thresholds: what takes less after half the lag is noise.
_NOISE = 0.6
# Trajectories begin at the bottom of a set, and seem to take this factor longer, or less.
_START = 1.1


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


def metastable_sets(
    exchange: Float[np.ndarray, "labels labels"],
    lag: float,
    threshold: float | int,
    images: Int[np.ndarray, " labels"] | None = None,
) -> tuple[Int[np.ndarray, " labels"], Float[np.ndarray, " processes"]]:
    """Sets of cores, and all relaxation times, from the exchange between cores after a lag.

    Rows of the leading eigenvectors are points of a simplex; at its corners lie cores that
    represent the sets, and each core belongs to the corner that it has most of (Deuflhard and
    Weber 2005). A basis of their space by a Schur form does as well, and stays real.

    Where the energy is even the exchange commutes with the flip, which is imposed: its even part
    tells sets of pairs of images apart, its odd part which of these sets fall into two images.
    Slow odd processes that show no such set are left out.

    Args:
        exchange: share of the trajectories from each label that are with each after the lag.
        lag: lag time in sweeps.
        threshold: shortest relaxation time that parts two sets, in sweeps.
        images: the image of each label under the global flip; None where there is no symmetry.
    """
    images = np.arange(len(exchange)) if images is None else images
    even, odd, pairs = _parity(exchange, images)
    times, odd_times = _times(even, lag)[1:], _times(odd, lag)
    whole, _ = _dominant(even, 1 + int(np.sum(times > threshold)))
    first, place = np.unique(np.minimum(np.arange(len(images)), images), return_inverse=True)
    sets = whole[place]
    # As many odd processes, slowest first, as each part another set from its image.
    for n_odd in range(int(np.sum(odd_times > threshold)), 0, -1):
        memberships = _odd_memberships(odd, n_odd)
        corner_sets = whole[pairs[np.argmax(np.abs(memberships), axis=0)]]
        if len(np.unique(corner_sets)) < n_odd:
            continue
        for number, decides in zip(corner_sets, memberships.T, strict=True):
            own = pairs[whole[pairs] == number]
            aligned = decides[whole[pairs] == number] >= 0
            up = np.where(aligned, first[own], images[first[own]])
            sets[images[up]] = sets.max() + 1
        break
    return sets, np.sort(np.concatenate([times, odd_times]))[::-1]


def count_interval(
    early: Float[np.ndarray, "labels labels"],
    late: Float[np.ndarray, "labels labels"],
    lag: float,
    n_trajectories: int,
    threshold: float | int,
    images: Int[np.ndarray, " labels"],
) -> tuple[int, int]:
    """Least and largest number of metastable sets that the errors of the exchange leave open.

    Rows of the late exchange are drawn again, as so many trajectories would show them; 95 % of
    the counts lie within, of processes that take 10 % longer, or less, than the threshold. Noise,
    which shows processes just below the threshold, is told by the early exchange, where it looks
    fast.

    Args:
        early: exchange after half the lag, and
        late: after the lag.
        lag: lag time in sweeps.
        n_trajectories: number of trajectories from each label.
        threshold: shortest relaxation time that parts two sets, in sweeps.
        images: the image of each label under the global flip.
    """
    rng = np.random.default_rng(0)
    later = images < np.arange(len(images))
    n_draws = max(_LEAST_DRAWS, min(_MOST_DRAWS, _DRAWN_ROWS // int(np.sum(~later))))
    drawn = np.stack([rng.multinomial(n_trajectories, row, n_draws) for row in late], axis=1)
    drawn[:, later] = drawn[:, images[later]][..., images]  # as only one of two images is observed
    tail = 0.5 * (1 - _CONFIDENCE)
    low, high = (
        np.quantile(_n_slow(drawn / n_trajectories, lag, x, images), q, method="nearest")
        for x, q in ((threshold * _START, tail), (threshold / _START, 1 - tail))
    )
    perhaps = _n_slow(early, 0.5 * lag, _NOISE * threshold, images)
    return 1 + int(low), 1 + int(min(high, max(low, perhaps)))


def _n_slow(
    exchange: Float[np.ndarray, "*draws labels labels"],
    lag: float,
    threshold: float | int,
    images: Int[np.ndarray, " labels"],
) -> Int[np.ndarray, "*draws"]:
    """Number of processes that take longer than the threshold."""
    even, odd, _ = _parity(exchange, images)
    times = np.concatenate([_times(even, lag)[..., 1:], _times(odd, lag)], axis=-1)
    return np.asarray(np.sum(times > threshold, axis=-1))


def _parity(
    exchange: Float[np.ndarray, "*draws labels labels"], images: Int[np.ndarray, " labels"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The exchange between orbits under the flip, its odd part, and the orbits that have one.

    An orbit is a pair of images, or a label that is its own. Orbits are ordered by their first
    label. Without a symmetry the even part is the exchange.
    """
    exchange = 0.5 * (exchange + exchange[..., images, :][..., images])
    first = np.unique(np.minimum(np.arange(len(images)), images))
    paired = images[first] != first
    rows = exchange[..., first, :]
    own, other = rows[..., first], rows[..., images[first]]
    odd = (own - other)[..., paired, :][..., paired]
    return own + np.where(paired, other, 0), odd, np.flatnonzero(paired)


def _times(
    exchange: Float[np.ndarray, "*draws labels labels"], lag: float
) -> Float[np.ndarray, "*draws processes"]:
    """Relaxation times of the processes of an exchange, longest first."""
    sizes = _sizes(exchange)
    with np.errstate(divide="ignore"):
        return np.where(sizes < 1 - _ROUNDING, -lag / np.log(np.minimum(sizes, 1)), np.inf)


def _sizes(exchange: Float[np.ndarray, "*draws labels labels"]) -> np.ndarray:
    """What is left of each process after the lag, largest first.

    Those of a reversible chain are not negative: what is, is noise.
    """
    return np.sort(np.maximum(np.linalg.eigvals(exchange).real, 0), axis=-1)[..., ::-1]


def _dominant(
    exchange: np.ndarray, count: int
) -> tuple[Int[np.ndarray, " labels"], Float[np.ndarray, "labels corners"]]:
    """The corner that each label has most of, and how much of each; `count` leading processes."""
    sizes = _sizes(exchange)
    # A cut between two sizes, for equal ones may differ by rounding.
    cut = 0.0
    if count < len(sizes):
        cut = max(np.sqrt(sizes[count - 1] * sizes[count]), _ROUNDING * sizes[count - 1])
    _, vectors, *found = scipy.linalg.schur(exchange, output="real", sort=lambda re, im: re > cut)
    _, memberships = simplex_corners(vectors[:, : found[0]])
    return np.argmax(memberships, axis=1), memberships


def _odd_memberships(odd: np.ndarray, count: int) -> Float[np.ndarray, "pairs corners"]:
    """How much of each corner pairs of images have, with the sign of their first member."""
    sizes = _sizes(odd)
    if count == len(sizes) or sizes[count] < (1 - _ROUNDING) * sizes[count - 1]:
        return _dominant(odd, count)[1]
    # A cut between equal processes, which noise may turn into each other.
    vectors = np.linalg.eigh(odd + odd.T)[1][:, ::-1][:, :count]
    return vectors / np.max(np.abs(vectors), axis=0)


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
    leaving: Departures,
) -> tuple[Float[np.ndarray, " starts"], Float[np.ndarray, "starts 2"]]:
    """Mean escape time of an exponential law with censoring, and its confidence interval.

    Time at risk over number of escapes; the interval is that of a Poisson count (Garwood 1936).
    """
    count, risk = leaving.left.sum(axis=1), leaving.times.sum(axis=1)
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
