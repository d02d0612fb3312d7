"""The network of minima and saddles that a search for barriers builds."""

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from .._linalg import minimax_closure
from ..meanfield import Problem
from ..search import MERGE_TOLERANCE, Library, fall, is_converged
from ._saddles import BATCH, Points, refined, tops_between, ways_down

# Each pair is joined by several strings, whose middle is moved at random by so much in the angles
# arcsin m: a straight one may keep a symmetry that no path of least free energy has, a bent one
# may find another pass. Few pairs get more of them, up to one full batch.
_LEAST_BEND, _LARGEST_BEND, _LEAST_STRINGS = 0.1, 1.0, 2
# Saddles whose angles differ by less are the same.
_SAME_SADDLE = 1e-5


class Network:
    """The minima and saddles known so far, and the pairs that were tried.

    Minima are nodes, their mirror images nodes of their own. The first K nodes are the states of
    the library.
    """

    def __init__(self, problem: Problem, library: Library, symmetric: bool, tol: float):
        size, n = library.size, library.magnetizations.shape[1]
        self.problem, self.symmetric, self.tol, self.n_states = problem, symmetric, tol, size
        self.minima, self.free_energies = np.zeros((0, n)), np.zeros(0)
        self.mirror = np.zeros(0, int)
        self._add(
            np.asarray(library.magnetizations[:size], float),
            np.asarray(library.free_energies[:size], float),
            np.asarray(library.multiplicity[:size]) == 2,
        )
        self.points: list[Points] = []
        self.ends: list[np.ndarray] = []
        self.tried: dict[tuple[int, int], int] = {}

    def _add(self, m: np.ndarray, free_energies: np.ndarray, paired: np.ndarray) -> None:
        """New nodes, then the mirror images of those that are one of a pair."""
        first, pairs = len(self.minima), np.flatnonzero(paired)
        images = first + len(m) + np.arange(len(pairs))
        mirror = first + np.arange(len(m))
        mirror[pairs] = images
        self.minima = np.concatenate([self.minima, m, -m[pairs]])
        self.free_energies = np.concatenate(
            [self.free_energies, free_energies, free_energies[pairs]]
        )
        self.mirror = np.concatenate([self.mirror, mirror, first + pairs])

    def explore(self, pairs: Int[np.ndarray, "pairs 2"]) -> None:
        """Strings between pairs of nodes, their tops refined, the ends of each saddle found."""
        if len(pairs) == 0:
            return
        for a, b in pairs.tolist():
            self.tried[a, b] = self.tried.get((a, b), 0) + 1
        angles = np.arcsin(self.minima)
        draw = np.random.default_rng(sum(self.tried.values()))
        count = max(_LEAST_STRINGS, BATCH // len(pairs))
        sizes = np.repeat(np.linspace(_LEAST_BEND, _LARGEST_BEND, count), len(pairs))[:, None]
        bends = sizes * draw.normal(size=(len(sizes), angles.shape[1]))
        first, last = np.tile(pairs, (count, 1)).T
        tops = tops_between(self.problem, angles[first], angles[last], bends)
        if len(tops) > 0:
            self.add_points(refined(self.problem, tops, self.tol))

    def add_points(self, points: Points) -> None:
        """Hold the different saddles among refined points, with their ends, and what is none."""
        rows = self.distinct(points, self.is_saddle(points))
        points = Points(*(x[rows] for x in points))
        self.points.append(points)
        self.ends.append(self._ends_of(points))

    def is_saddle(self, points: Points) -> Bool[np.ndarray, " S"]:
        return np.asarray(points.residuals <= self.tol) & np.asarray(points.indices == 1)

    def _ends_of(self, points: Points) -> Int[np.ndarray, "S 2"]:
        """The nodes on either side of each saddle; -1 for what is no saddle, or no minimum."""
        nodes = np.full((len(points.fields), 2), -1)
        saddles = np.flatnonzero(self.is_saddle(points))
        if saddles.size == 0:
            return nodes
        fields, modes = np.asarray(points.fields), np.asarray(points.modes)
        starts = ways_down(self.problem, fields[saddles], modes[saddles])
        starts = starts.reshape(2 * saddles.size, -1)
        solution = fall(self.problem, starts, self.tol)
        side = np.full(len(starts), -1)
        for row in np.flatnonzero(is_converged(solution)):
            side[row] = self._node(solution.value[row], solution.stats["free_energy"][row])
        nodes[saddles] = side.reshape(-1, 2)
        return nodes

    def _node(self, m: np.ndarray, free_energy: float) -> int:
        """The node of a minimum, which is added if it is new."""
        distance = np.abs(self.minima - m).max(axis=1)
        if distance.min() < MERGE_TOLERANCE:
            return int(np.argmin(distance))
        paired = self.symmetric and bool(np.abs(m).max() > MERGE_TOLERANCE)
        self._add(m[None], np.array([free_energy]), np.array([paired]))
        return len(self.minima) - 1 - paired

    def heights(self) -> Float[np.ndarray, "nodes nodes"]:
        """Minimax free energy between all nodes over the saddles found."""
        heights = np.full((len(self.minima),) * 2, np.inf)
        for points, ends in zip(self.points, self.ends, strict=True):
            joined = np.flatnonzero(ends.min(axis=1) >= 0)
            for nodes in (ends[joined], self.mirror[ends[joined]]):
                np.minimum.at(heights, tuple(nodes.T), points.free_energies[joined])
        heights = np.minimum(heights, heights.T)
        # A saddle may lead back to where it came from.
        np.fill_diagonal(heights, self.free_energies)
        return minimax_closure(heights)

    def parity(self, ends: Int[np.ndarray, "S 2"]) -> Int[np.ndarray, " S"]:
        """What `Barriers` documents; each pair of images is held as its first node."""
        if not self.symmetric:
            return np.ones(len(ends), int)
        node = np.arange(len(self.mirror))
        side = np.sign(self.mirror - node)[ends]  # 0 for a node that is its own image
        return np.where(ends.min(axis=1) < 0, 1, side[:, 0] * side[:, 1])

    def multiplicity(self, points: Points) -> Int[np.ndarray, " S"]:
        """2 for a saddle that has a mirror image, else 1."""
        is_own = np.abs(2 * np.arctan(np.tanh(0.5 * points.fields))).max(axis=1) < _SAME_SADDLE
        return np.where(self.symmetric & ~is_own, 2, 1)

    def everything(self) -> tuple[Points, Int[np.ndarray, "S 2"]]:
        """All points that were held, of which some may be the same, and their ends."""
        blank = np.zeros((0, self.minima.shape[1]))
        nothing = Points(blank, blank, np.zeros(0), np.zeros(0), np.zeros(0, int))
        parts = zip(nothing, *self.points, strict=True)
        points = Points(*(np.concatenate(part) for part in parts))
        return points, np.concatenate([np.zeros((0, 2), int), *self.ends])

    def neighbours(self, count: int) -> Int[np.ndarray, "pairs 2"]:
        """Each node with its nearest others, one of each pair of mirror images."""
        distance = _distances(self.minima)
        np.fill_diagonal(distance, np.inf)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(count, len(distance) - 1)]
        return self._unique(np.repeat(np.arange(len(distance)), nearest.shape[1]), nearest.ravel())

    def missing(self) -> Int[np.ndarray, "links 2"]:
        """Links that a shortest tree over all nodes lacks; those that were tried count double."""
        distance = _distances(self.minima)
        for (a, b), count in self.tried.items():
            for i, j in ((a, b), (self.mirror[a], self.mirror[b])):
                distance[[i, j], [j, i]] *= 2.0**count
        connected = np.isfinite(self.heights())
        # Scipy takes a zero for no edge.
        weights = np.where(connected, np.finfo(float).tiny, distance)
        tree = scipy.sparse.csgraph.minimum_spanning_tree(weights).tocoo()
        absent = ~connected[tree.row, tree.col]
        return self._unique(tree.row[absent], tree.col[absent])

    def _unique(self, first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, "pairs 2"]:
        """Each pair of nodes once, whatever its order, and one of each pair of mirror images."""
        pairs = np.sort(np.stack([first, second], axis=1), axis=1)
        images = np.sort(self.mirror[pairs], axis=1)
        later = (images[:, 0] < pairs[:, 0]) | (
            (images[:, 0] == pairs[:, 0]) & (images[:, 1] < pairs[:, 1])
        )
        return np.unique(np.where(later[:, None], images, pairs), axis=0)

    def distinct(self, points: Points, good: np.ndarray) -> Int[np.ndarray, " rows"]:
        """Rows of the different good saddles, lowest first, then of all others."""
        order = np.lexsort((points.free_energies, ~good))
        rows: list[int] = []
        all_angles = 2 * np.arctan(np.tanh(0.5 * points.fields))
        for row in order:
            angles = all_angles[[row, *rows]]
            distance = np.abs(angles[1:] - angles[0]).max(axis=1)
            if self.symmetric:
                distance = np.minimum(distance, np.abs(angles[1:] + angles[0]).max(axis=1))
            if not good[row] or not np.any(distance < _SAME_SADDLE):
                rows.append(int(row))
        return np.array(rows, int)


def _distances(m: Float[np.ndarray, "nodes n"]) -> Float[np.ndarray, "nodes nodes"]:
    """Distances in the angles arcsin m."""
    angles = np.arcsin(m)
    squares = np.sum(angles**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * angles @ angles.T, 1e-12))
