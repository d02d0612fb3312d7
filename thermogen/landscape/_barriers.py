"""Transition states between the states of a library, and the barriers that they make.

Two minima are joined by a string that relaxes onto a path of least free energy; the tops of the
path are refined to saddles of index 1, and both ways down from each saddle tell which minima it
really joins.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int

from .._batches import cast
from .._checks import check_count
from .._codes import Codes, code
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import AbstractFunctional, Problem, checked_problem
from ..search import MERGE_TOLERANCE, Library, fall, fingerprint, is_converged
from ._saddles import BATCH, Points, refined, tops_between, ways_down

# Each pair is joined by several strings, whose middle is moved at random by so much in the angles
# arcsin m: a straight one may keep a symmetry that no path of least free energy has, a bent one
# may find another pass. Few pairs get more of them, up to one full batch.
_LEAST_BEND, _LARGEST_BEND, _LEAST_STRINGS = 0.1, 1.0, 2
# Saddles whose angles differ by less are the same.
_SAME_SADDLE = 1e-5


class TRANSITIONS(Codes):
    """What became of a top of a string. `TRANSITIONS[code]` is the message."""

    converged = code("A saddle of index 1, with a minimum on either side.")
    stalled = code("The gradient stayed above the tolerance.")
    wrong_index = code("A stationary point, but the number of its unstable directions is not one.")
    open_end = code("A saddle of index 1, but the way down from it did not end in a minimum.")


class Barriers(NamedTuple):
    """Transition states of a free energy G(m), and the barriers between the K states of a library.

    Rows `s` are the distinct saddles that were found, lowest first; then the points where the
    refinement failed, which count for nothing. All arrays are NumPy's, all energies G in energy
    units.

    Attributes:
        ends: the two minima that saddle s joins, shape `(S, 2)`: k < K is state k of the library
            or its mirror image, K + i the minimum `others[i]`; -1 where unknown.
        magnetizations: m of the saddles, shape `(S, n)`.
        free_energies: G of the saddles, shape `(S,)`.
        residuals: max |dG/dm| in energy units, shape `(S,)`.
        indices: number of negative eigenvalues of the Hessian, shape `(S,)`.
        result: one `TRANSITIONS` code for each row.
        heights: lowest G at which two states are joined, by any chain of the saddles and minima
            that were found, shape `(K, K)`, symmetric; infinite where there is none. The
            diagonal is G of the states. An upper bound of the true minimax barrier.
        mirror_heights: the same between a state and its own mirror image, shape `(K,)`; infinite
            where the entry stands for itself alone, or no chain was found.
        others: minima met on the way that the library does not hold, shape `(X, n)`, one of
            each pair of mirror images.
    """

    ends: Int[np.ndarray, "S 2"]
    magnetizations: Float[np.ndarray, "S n"]
    free_energies: Float[np.ndarray, " S"]
    residuals: Float[np.ndarray, " S"]
    indices: Int[np.ndarray, " S"]
    result: TRANSITIONS
    heights: Float[np.ndarray, "K K"]
    mirror_heights: Float[np.ndarray, " K"]
    others: Float[np.ndarray, "X n"]


@from_anywhere
def barriers(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    library: Library,
    *,
    n_neighbours: int = 24,
    n_rounds: int = 6,
    tol: float = 1e-9,
) -> Barriers:
    """Find saddles of index 1 between the states of a library, and the barriers between them.

    Each state is joined by a string (E, Ren and Vanden-Eijnden, J. Chem. Phys. 126, 164103
    (2007)) to its nearest neighbours, so with all others while there are few. Every top of a
    string is refined by eigenvector following (Cerjan and Miller, J. Chem. Phys. 75, 2800 (1981))
    in float64. In further rounds strings join what is still unconnected, minima met on the way
    included, along the shortest tree of missing links (after Carr, Trygubenko and Wales,
    J. Chem. Phys. 122, 234903 (2005)). Deterministic. Owns its batches.

    A state of multiplicity 2 is two end points, itself and its mirror image, and each saddle has
    an image too. `heights` takes the nearer images; the barrier between a state and its own
    image, over which a symmetric model reverses, is in `mirror_heights`.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        library: the states, found with the same functional, energy and beta.
        n_neighbours: to how many of its nearest each state is joined at first, >= 1.
        n_rounds: rounds of strings between what is unconnected, >= 0.
        tol: largest `|dG/dm|` of a saddle, in energy units.

    Raises:
        ValueError: for an empty library, one of another number of spins, functional, energy or
            beta, or bad counts or beta.
    """
    if library.size == 0:
        raise ValueError("library must hold at least one state, got an empty one")
    if library.magnetizations.shape[1] != energy.n_spins:
        raise ValueError(
            f"library must hold states of {energy.n_spins} spins like energy, "
            f"got {library.magnetizations.shape[1]}"
        )
    n_neighbours = check_count("n_neighbours", n_neighbours)
    n_rounds = check_count("n_rounds", n_rounds, least=0)
    with jax.enable_x64(True):
        exact = cast(energy, jnp.float64)
        problem = checked_problem(functional, exact, beta, jnp.float64)
        library.check_origin(fingerprint(functional, energy, beta), "barriers takes a library")
        symmetric = bool(is_flip_symmetric(exact))
        search = _Search(problem, library, symmetric, tol)
        search.explore(search.neighbours(n_neighbours))
        for _ in range(n_rounds):
            search.explore(search.missing())
        return search.outcome()


class _Search:
    """What is known so far: minima, the saddles between them, and what was tried.

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
        rows = self._distinct(points, self._is_saddle(points))
        points = Points(*(x[rows] for x in points))
        self.points.append(points)
        self.ends.append(self._ends_of(points))

    def _is_saddle(self, points: Points) -> Bool[np.ndarray, " S"]:
        return np.asarray(points.residuals <= self.tol) & np.asarray(points.indices == 1)

    def _ends_of(self, points: Points) -> Int[np.ndarray, "S 2"]:
        """The nodes on either side of each saddle; -1 for what is no saddle, or no minimum."""
        nodes = np.full((len(points.fields), 2), -1)
        saddles = np.flatnonzero(self._is_saddle(points))
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
        paired = self.symmetric and np.abs(m).max() > MERGE_TOLERANCE
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
        for node in range(len(heights)):  # closure over chains, after Floyd and Warshall
            heights = np.minimum(heights, np.maximum.outer(heights[:, node], heights[node]))
        return heights

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

    def outcome(self) -> Barriers:
        """Each saddle once, with its ends told as states of the library."""
        k, heights, n = self.n_states, self.heights(), self.minima.shape[1]
        images = self.mirror[:k]
        between = np.minimum(heights[:k, :k], heights[:k, images])
        np.fill_diagonal(between, self.free_energies[:k])
        own = np.where(images == np.arange(k), np.inf, heights[np.arange(k), images])
        # Of each pair of images the first; of these the first K are the states.
        kept, names = np.unique(
            np.minimum(np.arange(len(self.mirror)), self.mirror), return_inverse=True
        )
        nothing = Points(
            np.zeros((0, n)), np.zeros((0, n)), np.zeros(0), np.zeros(0), np.zeros(0, int)
        )
        points = Points(
            *(np.concatenate(parts) for parts in zip(nothing, *self.points, strict=True))
        )
        ends = np.concatenate([np.zeros((0, 2), int), *self.ends])
        rows = self._distinct(points, ends.min(axis=1) >= 0)
        ends = np.sort(np.where(ends < 0, -1, names[ends])[rows], axis=1)
        points = Points(*(x[rows] for x in points))
        return Barriers(
            ends,
            np.tanh(points.fields),
            points.free_energies,
            points.residuals,
            points.indices,
            self._codes(points, ends),
            between,
            own,
            self.minima[kept[k:]],
        )

    def _distinct(self, points: Points, good: np.ndarray) -> Int[np.ndarray, " rows"]:
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

    def _codes(self, points: Points, ends: np.ndarray) -> TRANSITIONS:
        stationary, joins = points.residuals <= self.tol, ends.min(axis=1, initial=0) >= 0
        found = TRANSITIONS.where(stationary, TRANSITIONS.wrong_index, TRANSITIONS.stalled)
        found = TRANSITIONS.where(self._is_saddle(points), TRANSITIONS.open_end, found)
        return TRANSITIONS.where(joins, TRANSITIONS.converged, found)


def _distances(m: Float[np.ndarray, "nodes n"]) -> Float[np.ndarray, "nodes nodes"]:
    """Distances in the angles arcsin m."""
    angles = np.arcsin(m)
    squares = np.sum(angles**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * angles @ angles.T, 1e-12))
