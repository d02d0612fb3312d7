"""Transition states between the states of a library, and the barriers that they make.

Two minima are joined by a string that relaxes onto a path of least free energy; the tops of the
path are refined to saddles of index 1, and both ways down from each saddle tell which minima it
really joins.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._batches import cast
from .._checks import check_count
from .._codes import Codes, code
from .._placement import from_anywhere
from .._shown import AbstractShown, Table, are_known, number, plural
from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import AbstractFunctional, checked_problem
from ..runs import counted, shows_progress
from ..search import MERGE_TOLERANCE, Library, fingerprint
from ._network import Network
from ._saddles import Points


class TRANSITIONS(Codes):
    """Codes of the tops of strings after refinement. `TRANSITIONS[code]` is the message.

    !!! example

        ```python
        import thermogen as tg

        codes = tg.landscape.TRANSITIONS

        assert "index 1" in codes[codes.converged]
        ```
    """

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
        parity: 1 where saddle s joins its two ends as they are held, -1 where it joins one to the
            mirror image of the other, 0 where one is its own image, so that it does both; 1 where
            E has no flip symmetry, shape `(S,)`.
        multiplicity: 2 where row s stands for a saddle and its mirror image, else 1, shape `(S,)`.
        magnetizations: m of the saddles, shape `(S, n)`.
        free_energies: G of the saddles, shape `(S,)`.
        residuals: max |dG/dm| in energy units, shape `(S,)`.
        indices: number of negative eigenvalues of the Hessian, shape `(S,)`.
        result: one `TRANSITIONS` code for each row.
        heights: lowest G at which two states are joined, by any chain of the saddles and minima
            that were found, shape `(K, K)`, symmetric; infinite where there is none. The
            diagonal is G of the states. An upper bound of the true minimax barrier.
        mirror_heights: lowest G at which a state and its own mirror image are joined, shape
            `(K,)`; infinite where the entry stands for itself alone, or no chain was found.
        others: minima met on the way that the library does not hold, shape `(X, n)`, one of
            each pair of mirror images.
    """

    ends: Int[np.ndarray, "S 2"]
    parity: Int[np.ndarray, " S"]
    multiplicity: Int[np.ndarray, " S"]
    magnetizations: Float[np.ndarray, "S n"]
    free_energies: Float[np.ndarray, " S"]
    residuals: Float[np.ndarray, " S"]
    indices: Int[np.ndarray, " S"]
    result: TRANSITIONS
    heights: Float[np.ndarray, "K K"]
    mirror_heights: Float[np.ndarray, " K"]
    others: Float[np.ndarray, "X n"]

    def _table(self) -> Table:
        k, found = len(self.heights), self.result.names == "converged"
        joined = np.isfinite(self.heights[np.triu_indices(k, 1)])
        ends = np.asarray(self.ends).tolist()
        columns = {
            "": list(map(str, range(len(ends)))),
            "from": [_named(a, k) for a, _ in ends],
            "to": [_named(b, k, p) for (_, b), p in zip(ends, self.parity.tolist(), strict=True)],
            "G": [f"{x:.6g}" for x in self.free_energies],
            "images": list(map(str, self.multiplicity)),
            "residual": list(map(number, self.residuals)),
            "result": list(map(str, self.result.names)),
        }
        return Table(
            f"{plural(int(found.sum()), 'saddle')} between {plural(k, 'state')}, {joined.sum()} of "
            f"{plural(joined.size, 'pair')} joined",
            columns,
        )

    def _is_known(self) -> bool:
        return are_known(self)

    __repr__, _repr_html_ = AbstractShown.__repr__, AbstractShown._repr_html_


def _named(end: int, n_states: int, parity: int = 1) -> str:
    """A state by its number, a minimum that the library does not hold, or what is not known."""
    if end < 0:
        return "?"
    name = f"{end}" if end < n_states else f"other {end - n_states}"
    return {1: name, 0: f"{name} and image", -1: f"image of {name}"}[parity]


@from_anywhere
@shows_progress
def barriers(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    library: Library,
    *,
    n_neighbours: int = 24,
    n_rounds: int = 6,
    tol: float = 1e-9,
    progress: bool = False,
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
    image, over which a symmetric model reverses, is in `mirror_heights`. Of `library.expanded()`
    images are states of their own, and so are the saddles' images.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        library: the states, found with the same functional, energy and beta.
        n_neighbours: to how many of its nearest each state is joined at first, >= 1.
        n_rounds: rounds of strings between what is unconnected, >= 0.
        tol: largest `|dG/dm|` of a saddle, in energy units.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: for an empty library, one of another number of spins, functional, energy or
            beta, or bad counts or beta.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        # The two states are mirror images: one row, over whose barrier the model reverses at m = 0.
        found = tg.barriers(naive, energy, 1.0, library)
        assert jnp.isclose(found.mirror_heights[0], naive(energy, 1.0, jnp.zeros(3)))
        ```
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
        # An expanded library holds images as states of their own, and so are saddles then.
        pairs = np.any(np.asarray(library.multiplicity)[: library.size] == 2)
        origin = np.all(np.abs(library.magnetizations[: library.size]) < MERGE_TOLERANCE)
        symmetric = bool(is_flip_symmetric(exact)) and bool(pairs or origin)
        network = Network(problem, library, symmetric, tol)
        for number in counted("Rounds of strings", range(1 + n_rounds)):
            network.explore(network.missing() if number else network.neighbours(n_neighbours))
        return described(network)


def described(network: Network) -> Barriers:
    """Each saddle once, with its ends told as states of the library."""
    k, heights = network.n_states, network.heights()
    images = network.mirror[:k]
    between = np.minimum(heights[:k, :k], heights[:k, images])
    np.fill_diagonal(between, network.free_energies[:k])
    own = np.where(images == np.arange(k), np.inf, heights[np.arange(k), images])
    # Of each pair of images the first; of these the first K are the states.
    kept, names = np.unique(
        np.minimum(np.arange(len(network.mirror)), network.mirror), return_inverse=True
    )
    points, ends = network.everything()
    rows = network.distinct(points, ends.min(axis=1) >= 0)
    points, nodes = Points(*(x[rows] for x in points)), ends[rows]
    ends = np.sort(np.where(nodes < 0, -1, names[nodes]), axis=1)
    return Barriers(
        ends,
        network.parity(nodes),
        network.multiplicity(points),
        np.tanh(points.fields),
        points.free_energies,
        points.residuals,
        points.indices,
        _codes(points.residuals <= network.tol, network.is_saddle(points), ends),
        between,
        own,
        network.minima[kept[k:]],
    )


def _codes(stationary: np.ndarray, is_saddle: np.ndarray, ends: np.ndarray) -> TRANSITIONS:
    joins = ends.min(axis=1, initial=0) >= 0
    found = TRANSITIONS.where(stationary, TRANSITIONS.wrong_index, TRANSITIONS.stalled)
    found = TRANSITIONS.where(is_saddle, TRANSITIONS.open_end, found)
    return TRANSITIONS.where(joins, TRANSITIONS.converged, found)
