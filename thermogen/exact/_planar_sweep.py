"""ln Z of planar Ising models without fields, spin after spin in double precision on the host.

The matrix `1 - W` of Kac and Ward (`_planar`) is eliminated along an order of the spins. What is
left of the spins that have come is a matrix K over their legs, the bonds whose other end is still
to come. The phase of a turn is `exp(i (b - a) / 2)` up to sign, with a and b the directions of both
bonds, and only that sign cannot be shifted elsewhere: the matrix is real. It is antisymmetric, too,
because way and way back turn by opposite angles. That of a single spin has +1 above its diagonal
if legs are counted clockwise from the positive x-axis, and the bond of strength x = beta J that
joins legs i and j, the first of which goes upwards, gives, with t = tanh x,

    Z -> Z cosh x (1 + t K_ij),   K -> K + t / (1 + t K_ij) (K_:i K_j: - K_:j K_i:).

So `K_ij` is the correlation of both ends without this bond. In other words, row and column i are
multiplied by t, 1 is added to `K_ij`, and a pair of rows and columns is eliminated, whose entry is
the factor. Where frustration makes it small, other pairs of legs whose bonds are known are the
better pivots, or it waits for more of them.
"""

import heapq
from typing import Any, NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from ._orders import elimination_order

# Rounding may change ln Z and correlations of neighbours by so much.
_LOST = 1e-6
# A pivot is at least so large beside the other entries of its rows, if it need not be used.
_THRESHOLD = 0.1
# Legs beyond which none waits, and rows by which K grows.
_MOST_WAITING, _GROWTH = 64, 16
# Sweeps that have to agree.
_N_SCALES = 3


class _Step(NamedTuple):
    """A spin that comes.

    Attributes:
        legs: clockwise; leg `e + m end` is that of bond e at its first or second spin.
        bonds: those to spins that are there.
    """

    legs: list[int]
    bonds: list[int]


class Sweep(NamedTuple):
    """The order of the spins.

    Attributes:
        steps: one a spin.
        upwards: the leg of each bond that goes upwards, and the other one.
    """

    steps: list[_Step]
    upwards: list[tuple[int, int]]


def sweep_of(
    n_spins: int, pairs: Int[np.ndarray, "bonds 2"], directions: Float[np.ndarray, "ends bonds"]
) -> Sweep:
    """The plan for one graph.

    Args:
        n_spins: number of spins n.
        pairs: spins of each bond.
        directions: angle of each bond as seen from its first and from its second spin.
    """
    order, _ = elimination_order(n_spins, [pairs])
    ends, legs = pairs.T.ravel().tolist(), [[] for _ in range(n_spins)]
    clockwise = np.where(directions <= 0, -directions, 2 * np.pi - directions)
    for leg in np.argsort(clockwise, axis=None).tolist():
        legs[ends[leg]].append(leg)
    n_bonds, steps, there = len(pairs), [], [False] * n_spins
    for spin in order.tolist():
        there[spin] = True
        known = [leg for leg in legs[spin] if there[ends[(leg + n_bonds) % (2 * n_bonds)]]]
        steps.append(_Step(legs[spin], [leg % n_bonds for leg in known]))
    first = np.arange(n_bonds) + n_bonds * (directions[1] > 0)
    second = (first + n_bonds) % (2 * n_bonds)
    return Sweep(steps, list(zip(first.tolist(), second.tolist(), strict=True)))


def log_sum(sweep: Sweep, strengths: Float[np.ndarray, " bonds"]) -> float:
    """`ln(Z / 2^n)`; NaN where rounding may have changed it by more than 1e-6.

    Legs may be scaled, which changes rounding alone. So it is done with several scales.
    """
    return _agreed([_swept(sweep, strengths, seed) for seed in range(_N_SCALES)])


def log_sum_and_gradient(
    sweep: Sweep, strengths: Float[np.ndarray, " bonds"]
) -> tuple[float, Float[np.ndarray, " bonds"]]:
    """The same with its derivatives, the correlations of neighbours: NaN where they are lost."""
    done = [_swept(sweep, strengths, seed, record=seed < 2) for seed in range(_N_SCALES)]
    value = _agreed(done)
    first, second = (_gradient(strengths, frontier) for frontier in done[:2])
    # NaN is not small.
    kept = not np.isnan(value) and np.max(np.abs(first - second)) <= _LOST
    return value, first if kept else np.full(len(strengths), np.nan)


def _agreed(done: list["_Frontier"]) -> float:
    values = [frontier.log_sum for frontier in done]
    return values[0] if np.ptp(values) <= _LOST else np.nan


def _swept(sweep: Sweep, strengths: np.ndarray, seed: int, record: bool = False) -> "_Frontier":
    frontier, links = _Frontier(2 * len(strengths), seed, record), np.tanh(strengths)
    size = np.abs(strengths)
    frontier.log_sum = float(np.sum(size + np.log1p(np.exp(-2 * size)) - np.log(2)))
    with np.errstate(all="ignore"):
        for step in sweep.steps:
            frontier.add(step.legs)
            for bond in step.bonds:
                frontier.join(bond, *sweep.upwards[bond], links[bond])
            frontier.eliminate(step is sweep.steps[-1])
            if np.isnan(frontier.log_sum):
                break
    return frontier


class _Frontier:
    """K, with a row for each leg from its spin on until it is eliminated.

    Attributes:
        k: the matrix, column by column, which BLAS updates in place.
        log_sum: ln of the product of all factors so far.
        tape: what was done, if recorded: spins with their rows, bonds, pivots with their columns.
    """

    def __init__(self, n_legs: int, seed: int, record: bool):
        self.k, self.log_sum, self._record = np.zeros((0, 0), order="F"), 0.0, record
        self.scale = np.random.default_rng(seed).uniform(1, 2, n_legs)
        self.tape: list[tuple[Any, ...]] = []
        self._row: dict[int, int] = {}
        self._free: list[int] = []
        self._waiting: list[int] = []

    def add(self, legs: list[int]) -> None:
        """A spin by itself."""
        if len(self._free) < len(legs):
            size = len(self.k) + max(len(legs), _GROWTH)
            self._free += range(len(self.k), size)
            k = np.zeros((size, size), order="F")
            k[: len(self.k), : len(self.k)] = self.k
            self.k = k
        rows = [heapq.heappop(self._free) for _ in legs]
        self._row.update(zip(legs, rows, strict=True))
        above = np.triu(np.outer(self.scale[legs], self.scale[legs]), 1)
        self.k[np.ix_(rows, rows)] = above - above.T
        if self._record:
            self.tape.append((_add, rows))

    def join(self, bond: int, first: int, second: int, link: float) -> None:
        """A bond between two legs."""
        i, j = self._row[first], self._row[second]
        if self._record:
            self.tape.append((_join, bond, i, link, self.k[i].copy()))
        self.k[i] *= link
        self.k[:, i] *= link
        one = self.scale[first] * self.scale[second]
        self.k[i, j] += one
        self.k[j, i] -= one
        self._waiting += [first, second]

    def eliminate(self, last: bool) -> None:
        """Take out pairs of legs whose bonds are known, while there are good pivots."""
        while waiting := self._waiting:
            rows = [self._row[leg] for leg in waiting]
            inner = np.triu(np.abs(self.k[np.ix_(rows, rows)]), 1)
            p, q = divmod(int(np.argmax(inner)), len(rows))
            if not 0 < inner[p, q] < np.inf:
                self.log_sum = np.nan
                return
            i, j = rows[p], rows[q]
            pair = self.k[:, [i, j]]
            may_wait = not last and len(rows) < _MOST_WAITING
            if may_wait and inner[p, q] < _THRESHOLD * np.max(np.abs(pair)):
                return
            self._pivot(i, j, pair)
            second, first = waiting.pop(q), waiting.pop(p)
            self.log_sum += np.log(inner[p, q] / (self.scale[first] * self.scale[second]))
            for leg in (first, second):
                heapq.heappush(self._free, self._row.pop(leg))

    def _pivot(self, i: int, j: int, pair: np.ndarray) -> None:
        weight = 1 / self.k[i, j]
        pair[[i, j]] = 0
        self.k[[i, j]] = 0
        self.k[:, [i, j]] = 0
        turned = pair[:, ::-1] * [1, -1]
        self.k = scipy.linalg.blas.dgemm(
            weight, turned, pair, beta=1, c=self.k, trans_b=1, overwrite_c=1
        )
        if self._record:
            self.tape.append((_pivot, i, j, weight, pair))


def _gradient(strengths: np.ndarray, frontier: _Frontier) -> np.ndarray:
    """Derivatives by strengths, back along the tape.

    `slope` has the derivatives by entries of K. Those between legs that stay do not change where a
    pair is put back, so that no K but its columns is needed.
    """
    slope = np.zeros_like(frontier.k)
    by_link = np.full(len(strengths), np.nan)
    with np.errstate(all="ignore"):
        for undo, *what in reversed(frontier.tape):
            undo(slope, by_link, *what)
        return np.tanh(strengths) + by_link / np.cosh(strengths) ** 2


def _add(slope: np.ndarray, by_link: np.ndarray, rows: list[int]) -> None:
    slope[rows] = 0
    slope[:, rows] = 0


def _join(
    slope: np.ndarray, by_link: np.ndarray, bond: int, i: int, link: float, row: np.ndarray
) -> None:
    by_link[bond] = slope[i, : len(row)] @ row
    slope[i] *= link
    slope[:, i] *= link


def _pivot(
    slope: np.ndarray, by_link: np.ndarray, i: int, j: int, weight: float, pair: np.ndarray
) -> None:
    n = len(pair)
    first, second = (slope[:n, :n] @ pair).T
    slope[:n, i], slope[:n, j] = -weight * second, weight * first
    slope[i], slope[j] = -slope[:, i], -slope[:, j]
    slope[i, j] = weight - weight**2 * (pair[:, 1] @ first)
    slope[j, i] = -slope[i, j]
