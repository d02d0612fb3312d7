"""Flat valleys: marginal minima between which G rises by no more than rounding are one state."""

import functools

import jax
import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from .._batches import in_batches, replaced
from .._solution import Solution
from ..meanfield import RESULTS, Problem
from ._flat import between
from ._merge import joined
from ._same import MERGE_TOLERANCE

# Points of one valley that lie closer than this need not all be remembered.
_SPACING = 0.02
# Rounding of G, in units of that of n / beta and of G itself.
_ROUNDING = 4 * np.finfo(float).eps


class Valleys:
    """The marginal minima that a search has met, and the one of each flat valley that stands.

    Two share a valley where midway between them, on the floor, G is that of both within rounding.
    Only neighbours are compared, which a minimal spanning tree of distances joins.

    Args:
        problem: the free energy that is minimised, in float64.
        symmetric: whether a state and its mirror image are one.
    """

    def __init__(self, problem: Problem, symmetric: bool):
        self._midway = functools.partial(between, problem)
        self._symmetric = symmetric
        self._scale = problem.energy.n_spins / float(problem.beta)
        self._points: Solution | None = None
        # The point that stands for each.
        self._standing = np.zeros(0, int)

    def represented(self, found: Solution) -> tuple[Solution, Float[np.ndarray, "gone 2 n"]]:
        """The minima, marginal ones replaced by those that stand for their valleys.

        And which stood for a valley of their own until now, each after that which does now; to be
        called where float64 is enabled.
        """
        rows = np.flatnonzero(np.asarray(found.result == RESULTS.marginal))
        if rows.size == 0:
            return found, np.zeros((0, 2, found.value.shape[1]))
        # Of what is new the best located stands.
        rows = rows[np.argsort(found.stats["residual"][rows], kind="stable")]
        marginal = jax.tree.map(lambda x: x[rows], found)
        held = len(self._standing)
        points = marginal if self._points is None else joined(self._points, marginal)
        place = self._first_equal(points.value, held)
        fresh = np.unique(place[place >= held])
        kept = np.concatenate([np.arange(held), fresh])
        place = np.searchsorted(kept, place)
        points = jax.tree.map(lambda x: x[kept], points)
        before = np.concatenate([self._standing, np.arange(held, len(kept))])
        standing = self._linked(points, before) if fresh.size else before
        gone = np.unique(before[:held][standing[:held] != before[:held]])
        united = points.value[np.stack([standing[gone], gone], axis=1)]
        found = replaced(found, rows, jax.tree.map(lambda x: x[standing[place]], points))
        self._remember(points, standing)
        return found, united

    def _first_equal(self, m: Float[np.ndarray, "points n"], held: int) -> Int[np.ndarray, " rows"]:
        """For each row beyond the first `held` the first row that it is the same minimum as."""
        places, first = list(range(held)), []
        for row in range(held, len(m)):
            distance = self._distances(m[row : row + 1], m[places])[0]
            near = np.flatnonzero(distance < MERGE_TOLERANCE)
            first.append(places[near[0]] if near.size else row)
            if not near.size:
                places.append(row)
        return np.array(first, int)

    def _distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        cdist = scipy.spatial.distance.cdist
        distances = cdist(a, b, "chebyshev")
        return np.minimum(distances, cdist(a, -b, "chebyshev")) if self._symmetric else distances

    def _linked(self, points: Solution, before: np.ndarray) -> Int[np.ndarray, " points"]:
        """The point that stands for each, once neighbours of one valley are linked."""
        count, csgraph = len(before), scipy.sparse.csgraph
        tree = csgraph.minimum_spanning_tree(self._distances(points.value, points.value)).tocoo()
        pairs = np.stack([tree.row, tree.col], axis=1)
        pairs = pairs[before[pairs[:, 0]] != before[pairs[:, 1]]]
        pairs = pairs[self._share(points, pairs)] if len(pairs) else pairs
        links = np.concatenate([pairs, np.stack([np.arange(count), before], axis=1)])
        graph = scipy.sparse.coo_array((np.ones(len(links)), links.T), shape=(count, count))
        valley = csgraph.connected_components(graph, directed=False)[1]
        first = np.full(count, count)
        np.minimum.at(first, valley, before)
        return first[valley]

    def _share(self, points: Solution, pairs: np.ndarray) -> Bool[np.ndarray, " pairs"]:
        """Whether a point between both has the G of both, as far as can be told."""
        m, fields = points.value[pairs], points.state["fields"][pairs]
        if self._symmetric:
            opposed = np.sum(m[:, 0] * m[:, 1], axis=1) < 0
            m[opposed, 1] *= -1
            fields[opposed, 1] *= -1
        middle, free_energy = in_batches(self._midway, fields, 256)
        ends = points.stats["free_energy"][pairs]
        apart = np.abs(m[:, 0] - m[:, 1]).max(axis=1)
        away = np.abs(np.tanh(middle)[:, None] - m).max(axis=(1, 2))
        rounding = _ROUNDING * (self._scale + np.abs(free_energy))
        level = np.abs(ends - free_energy[:, None]).max(axis=1) <= rounding
        return level & (away < apart)

    def _remember(self, points: Solution, standing: np.ndarray) -> None:
        """Keep what stands for a valley, and of the others those that lie apart."""
        kept = list(np.unique(standing))
        for point in np.setdiff1d(np.arange(len(standing)), kept):
            same = [k for k in kept if standing[k] == standing[point]]
            distance = self._distances(points.value[[point]], points.value[same])
            if distance.min() > _SPACING:
                kept.append(point)
        kept = np.sort(kept)
        self._points = jax.tree.map(lambda x: x[kept], points)
        self._standing = np.searchsorted(kept, standing[kept])
