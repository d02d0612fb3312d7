"""Single-flip minima where flips may cost nothing, against enumeration; maximum cuts."""

import jax
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from families import HARD, on_graph
from helpers import energy_table

import thermogen as tg


def _bottoms(energy: tg.AbstractMultilinear) -> list[set[int]]:
    """Configurations joined by flips of equal E, where no member has a lower neighbour."""
    table, n = np.asarray(energy_table(energy)), energy.n_spins
    size, tie = 2**n, 1e-9 * np.abs(table).max(initial=0)
    index = np.arange(size)
    pairs = [(index, index ^ (1 << k)) for k in range(n)]
    level = [np.abs(table[a] - table[b]) <= tie for a, b in pairs]
    rows = np.concatenate([a[x] for (a, _), x in zip(pairs, level, strict=True)])
    columns = np.concatenate([b[x] for (_, b), x in zip(pairs, level, strict=True)])
    links = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    label = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    falls = np.any([table[b] < table[a] - tie for a, b in pairs], axis=0)
    return [set(np.flatnonzero(label == k)) for k in np.setdiff1d(label, label[falls])]


def _corners(n: int) -> np.ndarray:
    return np.asarray(tg.enumerate_spins(n), np.int8)


@pytest.mark.parametrize("name", HARD)
def test_each_bottom_is_one_minimum(name):
    energy = HARD[name].energy
    truth = _bottoms(energy)
    found = tg.kinetics.flip_minima(energy, _corners(energy.n_spins))
    owners = [
        next(k for k, members in enumerate(truth) if int(index) in members)
        for index in tg.index_from_spins(found)
    ]
    assert sorted(owners) == list(range(len(truth)))


def test_images_of_plateaus_are_told_by_images():
    """Two frustrated rings and a coupling that never lets a bottom be its own image."""
    rings = nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(4))
    couplings = -nx.to_numpy_array(rings)
    couplings[5:, 5:] *= -3
    energy = tg.Pairwise(couplings, np.zeros(9))
    found = tg.kinetics.flip_minima(energy, _corners(9))
    assert len(found) == len(_bottoms(energy)) == 2
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(-found, axis=0))
    assert set(map(bytes, found)) == set(map(bytes, -found))


def test_the_order_and_number_of_starts_do_not_matter():
    energy = HARD["rings beside free spins"].energy
    corners = _corners(energy.n_spins)
    whole = tg.kinetics.flip_minima(energy, corners)
    for rows in (corners[::-1], corners[5:6], corners[::17]):
        np.testing.assert_array_equal(tg.kinetics.flip_minima(energy, rows), whole)


@pytest.mark.parametrize("seed", range(4))
def test_few_configurations_below_one_plateau_are_found(seed):
    """On it all fields are rounding, and random spins meet nothing else: no spin is idle there."""
    rng = np.random.default_rng(seed)
    table = np.full(2**10, np.log(1023.0))
    table[rng.choice(2**10, 3, replace=False)] = 0
    energy = tg.Complete.from_energies(table)
    found = tg.index_from_spins(tg.kinetics.flip_minima(energy, _corners(10))).tolist()
    truth = _bottoms(energy)
    assert len(truth) in (2, 3) and len(found) == len(truth)
    assert all(len(members & set(found)) == 1 for members in truth)


def test_walks_that_ties_lead_in_a_circle_end():
    """From 00 over 10 to 11 each flip costs 0.9 ties, and the way off to 01 falls by 1.5."""
    couplings = 1e-9 * np.array([[0, -0.3, 0], [-0.3, 0, 0], [0, 0, 0]])
    energy = tg.Pairwise(couplings, np.array([-1.2e-9, -0.6e-9, 1.0]))
    found = tg.kinetics.flip_minima(energy, np.array([[1.0, 1, 1], [-1, -1, 1]]))
    assert np.all(found[:, 2] == 1)


def test_terms_of_many_spins_are_felt_beside_a_free_spin():
    n = 24
    energy = tg.Interactions(n + 1, [np.arange(n)[None]], [np.array([-1.0])])
    starts = np.random.default_rng(0).choice([-1.0, 1.0], (4, n + 1))
    assert np.all(tg.kinetics.flip_minima(energy, starts)[:, :n].prod(axis=1) == -1)


def test_a_constant_changes_no_minimum():
    pairs = np.array([[0, 1], [1, 2], [2, 3]])
    energies = [
        tg.Interactions(4, [np.zeros((1, 0), int), pairs], [np.array([c]), np.full(3, 0.5)])
        for c in (0.0, 1e12)
    ]
    assert [len(tg.kinetics.flip_minima(e, _corners(4))) for e in energies] == [2, 2]


@pytest.mark.further
def test_states_beside_free_spins_are_found_however_cold():
    """Two odd rings and three spins that nothing acts on: 3 x 5 x 2 states modulo the flip."""
    hard = HARD["rings beside free spins"]
    for beta in (2.0, 8.0, 50.0):
        library = tg.find_minima(
            tg.NaiveMeanField(), hard.energy, beta, key=jax.random.key(0), n_starts=1152
        )
        assert library.size == 30
        np.testing.assert_allclose(library.magnetizations[:, 8:], 0, atol=1e-9)


# Largest cuts, by enumeration; the last is `planar_maximum` of `experiments/benchmarks/max_cut.py`.
CUTS = {
    "Petersen": (nx.petersen_graph(), 12),
    "icosahedron": (nx.icosahedral_graph(), 20),
    "Frucht": (nx.frucht_graph(), 15),
    "truncated tetrahedron": (nx.truncated_tetrahedron_graph(), 14),
    "dodecahedron": (nx.dodecahedral_graph(), 24),
    "Tutte": (nx.tutte_graph(), 60),
}


@pytest.mark.parametrize("name", CUTS)
def test_maximum_cuts_are_found(name):
    graph, best = CUTS[name]
    energy = on_graph(graph, -1.0)
    corners = np.random.default_rng(0).choice([-1, 1], (4096, len(graph)))
    found = np.array(tg.kinetics.flip_minima(energy, corners), float)
    energies = -0.5 * np.sum((found @ np.asarray(energy.couplings)) * found, axis=1)
    assert 0.5 * (graph.number_of_edges() - energies.min()) == best
