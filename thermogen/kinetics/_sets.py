"""Metastable sets, their number and relaxation times from the exchange between labels."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from .._linalg import simplex_corners

_CONFIDENCE = 0.95
_ROUNDING = 1e-9
# How often the exchange is drawn again: rarely where there are many rows.
_LEAST_DRAWS, _MOST_DRAWS, _DRAWN_ROWS = 20, 200, 6400
# Least share of a process that labels show: of a Gaussian coordinate, its sign.
_SHOWN = 2 / np.pi
# The interval of the count allows for processes that take this factor longer, or less.
_SLACK = 1.1


class Exchange(NamedTuple):
    """How many trajectories with each label, a row, have each label later.

    Attributes:
        early: after half the lag, shape `(*draws, labels, labels)`.
        late: after the lag.
        lag: in sweeps.
        images: the image of each label under the global flip, itself where there is no symmetry.
    """

    early: Int[np.ndarray, "*draws labels labels"]
    late: Int[np.ndarray, "*draws labels labels"]
    lag: float
    images: Int[np.ndarray, " labels"]

    def parity(self) -> "tuple[Shares, Shares]":
        """The exchange between orbits under the flip, and its odd part between those of two.

        An orbit is a pair of images, or a label that is its own. Orbits are ordered by their first
        label. Without a symmetry the even part is the exchange.
        """
        (even, odd), (even_late, odd_late) = (
            _parity(x, self.images) for x in (self.early, self.late)
        )
        error = self.late.sum(axis=-1).min() ** -0.5
        return Shares(even, even_late, self.lag, error), Shares(odd, odd_late, self.lag, error)

    def drawn(self, n_draws: int) -> "Exchange":
        """Drawn again as often, as so many trajectories would show it."""
        rng = np.random.default_rng(0)
        later = self.images < np.arange(len(self.images))

        def again(counts: np.ndarray) -> np.ndarray:
            rows = ((k, row / k) for k, row in zip(counts.sum(axis=1), counts, strict=True))
            drawn = np.stack([rng.multinomial(k, row, n_draws) for k, row in rows], axis=1)
            # Only one of two images is observed.
            drawn[:, later] = drawn[:, self.images[later]][..., self.images]
            return drawn

        return self._replace(early=again(self.early), late=again(self.late))


class Shares(NamedTuple):
    """Share of those with each label that have each label later; rows of an odd part sum to less.

    Attributes:
        early: after half the lag, shape `(*draws, labels, labels)`.
        late: after the lag.
        lag: in sweeps.
        error: of one share.
    """

    early: Float[np.ndarray, "*draws labels labels"]
    late: Float[np.ndarray, "*draws labels labels"]
    lag: float
    error: float

    @property
    def times(self) -> Float[np.ndarray, "*draws processes"]:
        """Relaxation times of the processes, longest first.

        What is left of a process after the lag is the share of it that labels show, times its
        decay. That share is told by the two lags, as far as errors do not explain it.
        """
        early, late = _sizes(self.early), _sizes(self.late)
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = np.where(late > 0, early**2 / late + self.error, 1).clip(_SHOWN, 1)
        slowest = _time(early / _SHOWN, 0.5 * self.lag)
        return np.sort(np.minimum(_time(late / shown, self.lag), slowest), axis=-1)[..., ::-1]


def metastable_sets(
    exchange: Exchange, threshold: float | int
) -> tuple[Int[np.ndarray, " labels"], Float[np.ndarray, " processes"]]:
    """Sets of cores, and all relaxation times, from the exchange between cores after a lag.

    Rows of the leading eigenvectors are points of a simplex; at its corners lie cores that
    represent the sets, and each core belongs to the corner that it has most of (Deuflhard and
    Weber 2005). A basis of their space by a Schur form does as well, and stays real.

    Where the energy is even the exchange commutes with the flip, which is imposed: its even part
    tells sets of pairs of images apart, its odd part which of these sets fall into two images.
    Slow odd processes that show no such set are left out.

    Args:
        exchange: of the trajectories.
        threshold: shortest relaxation time that parts two sets, in sweeps.
    """
    even, odd = exchange.parity()
    first, pairs = _orbits(exchange.images)
    times, odd_times = even.times[1:], odd.times
    whole, _ = _dominant(even.late, 1 + int(np.sum(times > threshold)))
    own_image = np.minimum(np.arange(len(exchange.images)), exchange.images)
    sets = whole[np.unique(own_image, return_inverse=True)[1]]
    # As many odd processes, slowest first, as each part another set from its image.
    for n_odd in range(int(np.sum(odd_times > threshold)), 0, -1):
        memberships = _odd_memberships(odd.late, n_odd)
        corner_sets = whole[pairs[np.argmax(np.abs(memberships), axis=0)]]
        if len(np.unique(corner_sets)) < n_odd:
            continue
        for number, decides in zip(corner_sets, memberships.T, strict=True):
            own = pairs[whole[pairs] == number]
            aligned = decides[whole[pairs] == number] >= 0
            up = np.where(aligned, first[own], exchange.images[first[own]])
            sets[exchange.images[up]] = sets.max() + 1
        break
    return sets, np.sort(np.concatenate([times, odd_times]))[::-1]


def count_interval(exchange: Exchange, threshold: float | int) -> tuple[int, int]:
    """Least and largest number of metastable sets that the errors of the exchange leave open.

    Rows are drawn again, as so many trajectories would show them; 95 % of the counts lie within,
    of processes that take 10 % longer, or less, than the threshold.

    Args:
        exchange: of the trajectories.
        threshold: shortest relaxation time that parts two sets, in sweeps.
    """
    n_rows = len(_orbits(exchange.images)[0])
    n_draws = max(_LEAST_DRAWS, min(_MOST_DRAWS, _DRAWN_ROWS // n_rows))
    even, odd = exchange.drawn(n_draws).parity()
    times = np.concatenate([even.times[..., 1:], odd.times], axis=-1)
    tail = 0.5 * (1 - _CONFIDENCE)
    low, high = (
        np.quantile(np.sum(times > x, axis=-1), q, method="nearest")
        for x, q in ((threshold * _SLACK, tail), (threshold / _SLACK, 1 - tail))
    )
    return 1 + int(low), 1 + int(high)


def _orbits(images: Int[np.ndarray, " labels"]) -> tuple[np.ndarray, np.ndarray]:
    """The first label of each orbit under the flip, and the numbers of orbits of two."""
    first = np.unique(np.minimum(np.arange(len(images)), images))
    return first, np.flatnonzero(images[first] != first)


def _parity(
    counts: Int[np.ndarray, "*draws labels labels"], images: Int[np.ndarray, " labels"]
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of counts between orbits, and their odd part between orbits of two."""
    shares = counts / counts.sum(axis=-1, keepdims=True)
    shares = 0.5 * (shares + shares[..., images, :][..., images])
    first, pairs = _orbits(images)
    rows = shares[..., first, :]
    own, other = rows[..., first], rows[..., images[first]]
    odd = (own - other)[..., pairs, :][..., pairs]
    return own + np.where(images[first] != first, other, 0), odd


def _time(left: np.ndarray, lag: float) -> np.ndarray:
    """Relaxation times of processes of which so much is left after a lag."""
    with np.errstate(divide="ignore"):
        return np.where(left < 1 - _ROUNDING, -lag / np.log(np.minimum(left, 1)), np.inf)


def _sizes(exchange: Float[np.ndarray, "*draws labels labels"]) -> np.ndarray:
    """What is left of each process, largest first.

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
