"""Disconnectivity trees against brute force."""

import jaxtyping
import numpy as np
import pytest
import scipy.cluster.hierarchy
from helpers import random_tree

from thermogen.landscape import DisconnectivityTree, disconnectivity_tree


def _closed(barriers: np.ndarray) -> np.ndarray:
    """Minimax over all chains."""
    for c in range(len(barriers)):
        barriers = np.minimum(barriers, np.maximum.outer(barriers[c], barriers[c]))
    return barriers


def _groups(barriers: np.ndarray, level: float) -> set[frozenset[int]]:
    """States joined at or below a level, by flooding."""
    left, groups = set(range(len(barriers))), set()
    while left:
        group, rim = set(), {left.pop()}
        while rim:
            state = rim.pop()
            group.add(state)
            rim |= {s for s in left if barriers[state, s] <= level}
            left -= rim
        groups.add(frozenset(group))
    return groups


def _cut(tree: DisconnectivityTree, level: float) -> set[frozenset[int]]:
    """Clusters of the tree below a level, from the linkage alone."""
    members = [frozenset([k]) for k in range(len(tree.free_energies))]
    kept = set(members)
    for row, height in zip(tree.linkage, tree.heights, strict=True):
        a, b = members[int(row[0])], members[int(row[1])]
        assert row[3] == len(a) + len(b)
        members.append(a | b)
        if height <= level:
            kept = kept - {a, b} | {a | b}
    return kept


def _assert_neighbours(tree: DisconnectivityTree) -> None:
    """The leaves of every node stand side by side, its left cluster to the left."""
    place = np.argsort(tree.leaves)
    spans = [(place[k], place[k]) for k in range(len(place))]
    for row in tree.linkage:
        left, right = spans[int(row[0])], spans[int(row[1])]
        assert left[1] + 1 == right[0]
        spans.append((left[0], right[1]))
    assert spans[-1] == (0, len(place) - 1)


@pytest.mark.parametrize("size", [2, 3, 12])
@pytest.mark.parametrize("seed", range(3))
def test_tree_is_single_linkage(size, seed):
    free_energies, barriers = random_tree(size, seed)
    tree = disconnectivity_tree(free_energies, barriers)
    assert tree.n_trees == 1 and tree.linkage.shape == (size - 1, 4)
    assert np.all(np.diff(tree.heights) >= 0)
    np.testing.assert_allclose(tree.heights - free_energies.min(), tree.linkage[:, 2])
    for level in [*tree.heights, *(tree.heights - 1e-9), -1e9]:
        assert _cut(tree, level) == _groups(barriers, level)
    np.testing.assert_array_equal(np.sort(tree.leaves), np.arange(size))
    _assert_neighbours(tree)
    # Scipy takes the linkage as its own, and its cophenetic distances are the minimax barriers.
    assert scipy.cluster.hierarchy.is_valid_linkage(tree.linkage)
    cophenetic = scipy.cluster.hierarchy.cophenet(tree.linkage) + free_energies.min()
    closed = _closed(barriers)[np.triu_indices(size, 1)]
    np.testing.assert_allclose(cophenetic, closed, rtol=1e-12)
    # Barriers closed over chains make the same tree, and the diagonal does not count.
    barriers = _closed(barriers)
    np.fill_diagonal(barriers, free_energies)
    again = disconnectivity_tree(free_energies, barriers)
    np.testing.assert_allclose(again.heights, tree.heights, rtol=1e-12)
    np.testing.assert_array_equal(again.leaves, tree.leaves)


def test_low_states_stand_in_the_middle():
    free_energies = np.array([-5.0, -4.0, -3.0, -2.0, -1.0])
    barriers = np.maximum.outer(free_energies, free_energies) + 0.5
    tree = disconnectivity_tree(free_energies, barriers)
    np.testing.assert_array_equal(tree.heights, [-3.5, -2.5, -1.5, -0.5])
    assert tree.leaves[2] == 0
    assert set(tree.leaves[[0, 4]]) == {3, 4}


def test_a_forest_is_held_together_at_infinity():
    free_energies, barriers = random_tree(6, 0)
    barriers[:4, 4:] = barriers[4:, :4] = np.inf
    tree = disconnectivity_tree(free_energies, barriers)
    assert tree.n_trees == 2
    assert np.isinf(tree.heights[-1]) and np.all(np.isfinite(tree.heights[:-1]))
    assert _cut(tree, 1e9) == {frozenset(range(4)), frozenset([4, 5])}
    _assert_neighbours(tree)
    apart = np.where(np.eye(6, dtype=bool), 0.0, np.inf)
    tree = disconnectivity_tree(free_energies, apart)
    assert tree.n_trees == 6 and np.all(np.isinf(tree.heights))


@pytest.fixture
def unchecked():
    """Calls as users make them, without the run-time type checks of the suite."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


_F, _B = np.array([-2.0, -1.0, -1.5]), np.full((3, 3), -0.5)


def _with(value: float, *places: tuple[int, int]) -> np.ndarray:
    barriers = _B.copy()
    for place in places:
        barriers[place] = value
    return barriers


@pytest.mark.parametrize(
    ("free_energies", "barriers", "message"),
    [
        (np.zeros(0), np.zeros((0, 0)), "at least two states to be joined, got 0"),
        (np.zeros(1), np.zeros((1, 1)), "at least two states to be joined, got 1"),
        (_F, _B[:2, :2], r"barriers must have shape \(3, 3\), got \(2, 2\)"),
        (np.array([-2.0, np.nan, 0.0]), _B, "free_energies must be finite"),
        (np.array([-2.0, np.inf, 0.0]), _B, "free_energies must be finite"),
        (_F, _with(np.nan, (0, 1), (1, 0)), "barriers must be finite, or infinite"),
        (_F, _with(-np.inf, (0, 1), (1, 0)), "barriers must be finite, or infinite"),
        (_F, _with(0.5, (0, 1)), "barriers must be symmetric"),
        (_F, _with(np.inf, (0, 1)), "barriers must be symmetric"),
        (_F, _with(-1.2, (0, 1), (1, 0)), "got -1.2 between states 0 and 1 at -2 and -1"),
    ],
)
def test_bad_trees(unchecked, free_energies, barriers, message):
    with pytest.raises(ValueError, match=message):
        disconnectivity_tree(free_energies, barriers)


def test_barriers_may_differ_by_rounding():
    barriers = _with(-0.5 + 1e-15, (0, 1))
    assert disconnectivity_tree(_F, barriers).n_trees == 1
    level = np.maximum.outer(_F, _F) - 1e-15  # at the higher state, but for rounding
    np.testing.assert_allclose(disconnectivity_tree(_F, level).heights, [-1.5, -1.0])
