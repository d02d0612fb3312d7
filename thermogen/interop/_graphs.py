"""Graphs of networkx: energies as weighted graphs, libraries and trees with their barriers."""

from collections.abc import Hashable, Iterable
from typing import Any

import networkx as nx
import numpy as np

from .._checks import check_finite
from .._types import Beta
from ..energies import AbstractEnergy
from ..landscape import TRANSITIONS, Barriers, DisconnectivityTree
from ..search import Kind, Library
from ._model import SPIN, Model, checked_names, collected, model_of, quadratic_of


def from_networkx(graph: Any, *, coupling: str = "weight", field: str = "field") -> Model:
    """An undirected graph as an energy `-sum J_ij s_i s_j - sum h_i s_i` of its nodes.

    A positive weight favours equal spins. For a largest cut take `J = -w / 2`; files of such
    graphs are read that way by `read_model`.

    Args:
        graph: a `networkx.Graph` or `MultiGraph`, whose parallel edges add up. A loop is a
            constant, and so is the number `graph.graph["offset"]`, if there is one.
        coupling: the attribute of edges that holds J; 1 where an edge has none.
        field: the attribute of nodes that holds h; 0 where a node has none.

    Returns:
        The energy, its offset, and the nodes as names, in the order of the graph.

    Raises:
        TypeError: for what is no graph.
        ValueError: for a directed graph, and attributes that are no finite numbers.

    !!! example

        ```python
        import jax.numpy as jnp
        import networkx as nx
        import thermogen as tg

        ring = nx.cycle_graph(["a", "b", "c", "d"])
        energy, offset, names = tg.interop.from_networkx(ring)

        assert names == ("a", "b", "c", "d")
        assert energy(jnp.ones(4)) + offset == -4
        ```
    """
    if not isinstance(graph, nx.Graph):
        raise TypeError(f"graph must be one of networkx, got {type(graph).__name__}")
    if graph.is_directed():
        raise ValueError("graph must be undirected: take graph.to_undirected()")
    names = list(graph)
    number = {name: k for k, name in enumerate(names)}
    linear = [-_number(graph.nodes[a].get(field, 0.0), f"{field} of node {a!r}") for a in names]
    ends, values = [], []
    for a, b, weight in graph.edges(data=coupling, default=1.0):
        ends.append((number[a], number[b]))
        values.append(-_number(weight, f"{coupling} of edge {a!r}, {b!r}"))
    rows, columns = np.array(ends, int).reshape(-1, 2).T
    offset = _number(graph.graph.get("offset", 0.0), "offset of the graph")
    q = collected(len(names), SPIN, offset, (rows, columns, np.array(values)), np.array(linear))
    return model_of(q, SPIN, names)


def to_networkx(
    energy: AbstractEnergy,
    offset: float = 0.0,
    names: Iterable[Hashable] | None = None,
    *,
    coupling: str = "weight",
    field: str = "field",
) -> nx.Graph:
    """An energy as a graph of its spins, joined where a coupling is not 0.

    Args:
        energy: an energy of n spins whose terms have at most two of them.
        offset: a constant that is added, in energy units; it becomes `graph.graph["offset"]`,
            together with that of the energy.
        names: the nodes, one for each spin; their numbers by default.
        coupling: the attribute of edges that takes J.
        field: the attribute of nodes that takes h.

    Raises:
        TypeError: for an energy without terms, or with terms of more than two spins.
        ValueError: for names of another number.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        graph = tg.interop.to_networkx(energy, names=["a", "b", "c"])

        assert graph.edges["a", "b"]["weight"] == 1
        ```
    """
    q = quadratic_of("to_networkx", energy, offset, SPIN)
    nodes = checked_names(names, energy.n_spins)
    graph = nx.Graph(offset=q.constant)
    fields = zip(nodes, q.linear.tolist(), strict=True)
    graph.add_nodes_from((node, {field: -h}) for node, h in fields)
    bonds = zip(q.first.tolist(), q.second.tolist(), q.pairs.tolist(), strict=True)
    graph.add_edges_from((nodes[a], nodes[b], {coupling: -c}) for a, b, c in bonds)
    return graph


def library_graph(library: Library, beta: Beta, barriers: Barriers | None = None) -> nx.MultiGraph:
    """The states of a library as nodes, joined by the saddles between them.

    All attributes are plain numbers and strings, so that `networkx.write_graphml` takes the graph
    to Gephi, Cytoscape or yEd.

    Args:
        library: K states, as `find_minima` returns them.
        beta: inverse temperature of the weights.
        barriers: saddles between the states, as `barriers` finds them.

    Returns:
        A graph of nodes 0 to K - 1 with the attributes `free_energy`, `curvature` (energy units),
        `weight` (Boltzmann weight of the library, which sums to 1), `multiplicity`, `hits` and
        `kind`, and an edge for each saddle with its `barrier`, a free energy. Minima that the
        saddles lead to and the library does not hold are nodes from K on, of kind "other".

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.array([0.1, 0.0, 0.0]))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        between = tg.barriers(naive, energy, 1.0, library)
        graph = tg.interop.library_graph(library, 1.0, between)

        assert graph.number_of_nodes() == 2 and graph.number_of_edges() == 1
        ```
    """
    held = library[:]
    weights = np.asarray(held.weights(beta), float).tolist()
    graph = nx.MultiGraph(beta=float(beta))
    for k, weight in enumerate(weights):
        graph.add_node(
            k,
            free_energy=float(held.free_energies[k]),
            curvature=float(held.curvatures[k]),
            weight=weight,
            multiplicity=int(held.multiplicity[k]),
            hits=int(held.hits[k]),
            kind=Kind(held.kind[k]).name.lower(),
        )
    if barriers is not None:
        graph.add_nodes_from((len(held) + k for k in range(len(barriers.others))), kind="other")
        joins = np.asarray(barriers.result == TRANSITIONS.converged) & np.all(
            barriers.ends >= 0, axis=1
        )
        for s in np.flatnonzero(joins):
            a, b = barriers.ends[s].tolist()
            graph.add_edge(a, b, barrier=float(barriers.free_energies[s]))
    return graph


def tree_graph(tree: DisconnectivityTree) -> nx.DiGraph:
    """A disconnectivity tree as a directed graph, from its root to the states.

    Args:
        tree: the tree of K states.

    Returns:
        A graph whose nodes 0 to K - 1 are the states and K, K + 1, ... the barriers that join
        them, each with its `free_energy` and its `kind`, "state" or "barrier"; edges lead from a
        barrier to what it joins, and `climb` is the difference of the two free energies. Trees of
        a forest stay apart.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        tree = tg.disconnectivity_tree(np.array([0.0, 0.5]), np.array([[0.0, 2.0], [2.0, 0.0]]))
        graph = tg.interop.tree_graph(tree)

        assert graph.edges[2, 1]["climb"] == 1.5
        ```
    """
    graph, size = nx.DiGraph(), len(tree.free_energies)
    levels = [*tree.free_energies.tolist(), *tree.heights.tolist()]
    for k, level in enumerate(levels):
        if np.isfinite(level):
            graph.add_node(k, free_energy=level, kind="state" if k < size else "barrier")
    for i, row in enumerate(tree.linkage[np.isfinite(tree.heights)]):
        for child in map(int, row[:2]):
            graph.add_edge(size + i, child, climb=levels[size + i] - levels[child])
    return graph


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, got {value!r}") from None
    check_finite(what, number)
    return number
