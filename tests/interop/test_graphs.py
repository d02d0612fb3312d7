"""Graphs: energies of all configurations, and what libraries and trees become in GraphML."""

import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import networkx as nx
import numpy as np
import pytest

import thermogen as tg
from thermogen import interop

KEY = jax.random.key(0)
NUMBERS = st.floats(-100, 100, width=32)
NAIVE = tg.NaiveMeanField()


@st.composite
def graphs(draw):
    graph = draw(st.sampled_from([nx.Graph, nx.MultiGraph]))(offset=draw(NUMBERS))
    nodes = draw(st.lists(st.text(max_size=3), max_size=6, unique=True))
    for node in nodes:
        graph.add_node(node, **draw(st.sampled_from([{}, {"h": draw(NUMBERS)}])))
    if nodes:
        ends = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes))
        for a, b in draw(st.lists(ends, max_size=8)):
            graph.add_edge(a, b, **draw(st.sampled_from([{}, {"J": draw(NUMBERS)}])))
    return graph


@hypothesis.given(graphs())
@hypothesis.settings(max_examples=50)
def test_energies_of_a_graph_are_those_of_its_formula(graph):
    model = interop.from_networkx(graph, coupling="J", field="h")
    nodes = list(graph)
    assert model.names == tuple(nodes)
    s = helpers.configurations(len(nodes))
    expected = np.full(len(s), graph.graph["offset"])
    for a, b, data in graph.edges(data=True):
        expected -= data.get("J", 1.0) * s[:, nodes.index(a)] * s[:, nodes.index(b)]
    for k, node in enumerate(nodes):
        expected -= graph.nodes[node].get("h", 0.0) * s[:, k]
    table = helpers.energy_table(model.energy) + model.offset
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-10)
    back = interop.to_networkx(*model, coupling="J", field="h")
    assert list(back) == nodes
    again = interop.from_networkx(back, coupling="J", field="h")
    table = helpers.energy_table(again.energy) + again.offset
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-10)


def test_a_lattice_has_its_exact_partition_function():
    energy, offset, names = interop.from_networkx(nx.grid_2d_graph(6, 6))
    assert isinstance(energy, tg.Interactions) and names[7] == (1, 1) and offset == 0
    lattice = tg.exact.planar_log_partition(energy, 0.4)
    np.testing.assert_allclose(tg.exact.log_partition(energy, 0.4), lattice, rtol=1e-10)


def test_graphs_that_will_not_do_are_named():
    with pytest.raises(ValueError, match="graph must be undirected"):
        interop.from_networkx(nx.DiGraph([(0, 1)]))
    with pytest.raises(TypeError, match="graph must be one of networkx, got dict"):
        interop.from_networkx({0: [1]})
    graph = nx.Graph()
    graph.add_edge("a", "b", weight="heavy")
    with pytest.raises(ValueError, match="weight of edge 'a', 'b' must be a number, got 'heavy'"):
        interop.from_networkx(graph)
    graph.add_node("a", field=np.inf)
    with pytest.raises(ValueError, match="field of node 'a' must be finite"):
        interop.from_networkx(graph)
    with pytest.raises(TypeError, match="to_networkx needs an energy with terms of up to 2"):
        interop.to_networkx(helpers.random_interactions(4, KEY))


@pytest.fixture(scope="module")
def landscape():
    energy = helpers.random_pairwise(8, jax.random.key(3), 3.0)
    library = tg.find_minima(NAIVE, energy, 2.0, key=KEY, n_starts=64)
    return library, tg.barriers(NAIVE, energy, 2.0, library)


@pytest.mark.further
def test_a_library_becomes_a_graph_of_states_and_saddles(landscape, tmp_path):
    library, barriers = landscape
    assert library.size > 2
    graph = interop.library_graph(library, 2.0, barriers)
    weights = [graph.nodes[k]["weight"] for k in range(library.size)]
    np.testing.assert_allclose(weights, library.weights(2.0), rtol=1e-12)
    assert graph.nodes[0]["free_energy"] == library.free_energies[0]
    # The lowest chain of saddles is the barrier, neither below it nor only above.
    for a in range(library.size):
        for b in range(a):
            height = barriers.heights[a, b]
            for level, joined in ((height + 1e-9, np.isfinite(height)), (height - 1e-6, False)):
                below = nx.Graph((x, y) for x, y, g in graph.edges(data="barrier") if g <= level)
                below.add_nodes_from(graph)
                assert nx.has_path(below, a, b) == joined
    nx.write_graphml(graph, tmp_path / "states.graphml")
    read = nx.read_graphml(tmp_path / "states.graphml", node_type=int, force_multigraph=True)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert sorted(read.edges(data="barrier")) == sorted(graph.edges(data="barrier"))


@pytest.mark.further
def test_a_tree_becomes_a_directed_one(landscape, tmp_path):
    library, barriers = landscape
    tree = tg.disconnectivity_tree(library.free_energies, barriers.heights)
    graph = interop.tree_graph(tree)
    size = library.size
    assert nx.is_branching(graph) and nx.number_weakly_connected_components(graph) == tree.n_trees
    undirected = graph.to_undirected()
    for a in range(size):
        for b in range(a):
            if not nx.has_path(undirected, a, b):
                assert np.isinf(barriers.heights[a, b])
                continue
            path = nx.shortest_path(undirected, a, b)
            top = max(graph.nodes[k]["free_energy"] for k in path)
            np.testing.assert_allclose(top, barriers.heights[a, b], rtol=1e-9)
    nx.write_graphml(graph, tmp_path / "tree.graphml")
    read = nx.read_graphml(tmp_path / "tree.graphml", node_type=int)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))


def test_a_forest_stays_apart():
    apart = tg.disconnectivity_tree(
        np.zeros(3), np.array([[0, 1, np.inf], [1, 0, np.inf], [np.inf, np.inf, 0]])
    )
    graph = interop.tree_graph(apart)
    assert sorted(graph.edges) == [(3, 0), (3, 1)] and 2 in graph
