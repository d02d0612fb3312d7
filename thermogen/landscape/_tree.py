"""Disconnectivity trees: which states are joined below which free energy."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from .._placement import from_anywhere

# Barriers by different routes may differ by rounding, relative to the range of all energies.
_ROUNDING = 1e-9


class DisconnectivityTree(NamedTuple):
    """A binary tree whose leaves are K states and whose nodes are the barriers that join them.

    Attributes:
        free_energies: free energy of each state, shape `(K,)`.
        linkage: the tree in the format of `scipy.cluster.hierarchy`, shape `(K - 1, 4)`. Row i
            holds the two clusters that node K + i joins, left and right, its height above the
            lowest state, and its number of leaves. An infinite height joins two trees of a
            forest. Such rows are the last, and scipy's functions want them cut off.
        heights: free energy of each node, shape `(K - 1,)`, in increasing order; `linkage[:, 2]`
            plus the lowest free energy.
        leaves: the states from left to right, such that the leaves of every node are neighbours,
            shape `(K,)`; low states stand in the middle.
        n_trees: number of trees of the forest; 1 if all states are joined.
    """

    free_energies: Float[np.ndarray, " K"]
    linkage: Float[np.ndarray, "nodes 4"]
    heights: Float[np.ndarray, " nodes"]
    leaves: Int[np.ndarray, " K"]
    n_trees: int


@from_anywhere
def disconnectivity_tree(
    free_energies: Float[np.ndarray, " K"], barriers: Float[np.ndarray, "K K"]
) -> DisconnectivityTree:
    """Join states in the order of the barriers between them, by single linkage.

    The tree is that of Becker and Karplus (J. Chem. Phys. 106, 1495 (1997)). Barriers of single
    steps give the same tree as barriers closed over chains. Energies E may take the place of free
    energies.

    Args:
        free_energies: free energies of K >= 2 states, shape `(K,)`.
        barriers: free energy of the barrier between two states, shape `(K, K)`, symmetric;
            infinite where there is none. The diagonal is not used. `Barriers.heights` and
            `thermogen.exact.barriers` have this form.

    Raises:
        ValueError: for fewer than two states, shapes that disagree, values that are not finite
            (but for infinite barriers), or barriers that are not symmetric or below a state.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        states = tg.exact.single_flip_minima(energy)
        between = tg.exact.barriers(energy, states)
        tree = tg.disconnectivity_tree(between.diagonal(), between)
        assert tree.n_trees == 1 and jnp.allclose(tree.heights, 1, atol=1e-5)
        ```
    """
    free_energies, barriers = np.array(free_energies, float), np.array(barriers, float)
    _check(free_energies, barriers)
    lowest = free_energies.min()
    above = barriers - lowest
    np.fill_diagonal(above, 0.0)
    known = np.isfinite(above)
    # Scipy wants finite heights: what is unconnected is joined last.
    beyond = 2 * np.max(above[known]) + 1
    above = np.where(known, np.maximum(0.5 * (above + above.T), 0), beyond)
    condensed = scipy.spatial.distance.squareform(above, checks=False)
    linkage = scipy.cluster.hierarchy.linkage(condensed, method="single")
    linkage[linkage[:, 2] == beyond, 2] = np.inf
    leaves = _order(linkage, free_energies)
    heights = linkage[:, 2] + lowest
    return DisconnectivityTree(
        free_energies, linkage, heights, leaves, 1 + int(np.sum(np.isinf(heights)))
    )


def _order(linkage: np.ndarray, free_energies: np.ndarray) -> Int[np.ndarray, " K"]:
    """Turn every node so that what joins a low state hangs on its emptier side, in place.

    The low states then stand in the middle of what joins them. Returns the leaves in that order.
    """
    lowest, members = list(range(len(free_energies))), [[k] for k in range(len(free_energies))]
    for row in linkage:
        main, other = int(row[0]), int(row[1])
        if free_energies[lowest[other]] < free_energies[lowest[main]]:
            main, other = other, main
        place = members[main].index(lowest[main])
        if place < len(members[main]) / 2:
            row[:2] = other, main
        else:
            row[:2] = main, other
        lowest.append(lowest[main])
        members.append(members[int(row[0])] + members[int(row[1])])
    return np.array(members[-1])


def _check(free_energies: np.ndarray, barriers: np.ndarray) -> None:
    size = free_energies.size
    if free_energies.ndim != 1 or size < 2:
        raise ValueError(
            f"free_energies must hold at least two states to be joined, got {size}; a tree of "
            "one state is that state"
        )
    if barriers.shape != (size, size):
        raise ValueError(f"barriers must have shape ({size}, {size}), got {barriers.shape}")
    if not np.all(np.isfinite(free_energies)):
        raise ValueError("free_energies must be finite: pass the states in use, library.mask, only")
    if np.any(np.isnan(barriers) | np.isneginf(barriers)):
        raise ValueError("barriers must be finite, or infinite between states that nothing joins")
    known = np.isfinite(barriers)
    scale = np.ptp(np.concatenate([free_energies, barriers[known]]))
    gap = np.where(known & known.T, barriers, 0) - np.where(known & known.T, barriers.T, 0)
    if np.any(known != known.T) or np.any(np.abs(gap) > _ROUNDING * scale):
        raise ValueError("barriers must be symmetric, got barriers[a, b] != barriers[b, a]")
    over = barriers - np.maximum.outer(free_energies, free_energies)
    np.fill_diagonal(over, 0.0)
    if np.any(over < -_ROUNDING * scale):
        a, b = np.unravel_index(np.argmin(over), over.shape)
        raise ValueError(
            f"barriers must lie above both states that they join, got {barriers[a, b]:.6g} between "
            f"states {a} and {b} at {free_energies[a]:.6g} and {free_energies[b]:.6g}"
        )
