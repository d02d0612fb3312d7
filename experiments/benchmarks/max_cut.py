"""Maximum cuts by three cold searches: small named graphs, and a graph of the G-set.

A cut is `(bonds - E) / 2` of the antiferromagnet on the graph. Single-flip minima below random
corners (`flip_minima`), the coldest rung of parallel tempering, and the end of population
annealing, the last two with `flip_minima` below what they return. The optima of the named graphs
are enumerated up to 20 vertices; the larger ones are planar, and a matching of their odd faces
gives the maximum (Hadlock 1975). A file of the G-set is to be had at
web.stanford.edu/~yyye/yyye/Gset; the best cut known of G1 is 11624. Without a file, a random graph
of the same 800 vertices and 19176 edges, whose best cut is not known.

All three searches find the maxima of all 20 named graphs: 8 minutes on one core, nearly all of it
compilation, for each number of vertices; once compiled 0.1 s a search.

    python -m experiments benchmarks.max_cut [--large [--gset FILE --best 11624]]
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import thermogen as tg
from thermogen.sampling import population_annealing

# As users have it who set nothing.
X64 = False

NAMED = {
    "Petersen": nx.petersen_graph(),
    "Desargues": nx.desargues_graph(),
    "dodecahedron": nx.dodecahedral_graph(),
    "icosahedron": nx.icosahedral_graph(),
    "octahedron": nx.octahedral_graph(),
    "cube": nx.cubical_graph(),
    "tetrahedron": nx.tetrahedral_graph(),
    "Pappus": nx.pappus_graph(),
    "Möbius-Kantor": nx.moebius_kantor_graph(),
    "Heawood": nx.heawood_graph(),
    "Frucht": nx.frucht_graph(),
    "Chvátal": nx.chvatal_graph(),
    "bull": nx.bull_graph(),
    "diamond": nx.diamond_graph(),
    "house": nx.house_graph(),
    "house with X": nx.house_x_graph(),
    "Krackhardt kite": nx.krackhardt_kite_graph(),
    "truncated tetrahedron": nx.truncated_tetrahedron_graph(),
    "truncated cube": nx.truncated_cube_graph(),
    "Tutte": nx.tutte_graph(),
}


def antiferromagnet(graph: nx.Graph, dtype=np.float32) -> tg.Pairwise:
    couplings = -nx.to_numpy_array(graph, weight="weight").astype(dtype)
    return tg.Pairwise(jnp.asarray(couplings), jnp.zeros(len(graph), dtype))


def cuts(couplings: np.ndarray, spins: np.ndarray) -> np.ndarray:
    """Weight of the bonds that each row of spins cuts."""
    spins = np.asarray(spins, float).reshape(-1, len(couplings))
    return -0.25 * (couplings.sum() - np.sum((spins @ couplings) * spins, axis=1))


def maximum(couplings: np.ndarray) -> int:
    """The largest cut by enumeration, half of the configurations at once."""
    n = len(couplings)
    spins = 1 - 2 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
    return int(
        max(cuts(couplings, part).max() for part in np.array_split(spins, -(-len(spins) // 4096)))
    )


def planar_maximum(graph: nx.Graph) -> int:
    """The largest cut of a planar graph: the bonds left out join its odd faces in pairs."""
    embedding = nx.check_planarity(graph)[1]
    face_of, faces = {}, []
    for edge in embedding.edges:
        if edge not in face_of:
            corners = embedding.traverse_face(*edge)
            around = list(zip(corners, [*corners[1:], corners[0]], strict=True))
            face_of |= dict.fromkeys(around, len(faces))
            faces.append(len(around))
    dual = nx.Graph((face_of[a, b], face_of[b, a]) for a, b in graph.edges)
    odd, distance = nx.Graph(), dict(nx.all_pairs_shortest_path_length(dual))
    ends = [k for k, size in enumerate(faces) if size % 2]
    odd.add_weighted_edges_from((a, b, distance[a][b]) for a in ends for b in ends if a < b)
    return graph.number_of_edges() - sum(distance[a][b] for a, b in nx.min_weight_matching(odd))


def by_flips(energy: tg.Pairwise, key, size: int) -> np.ndarray:
    corners = jax.random.rademacher(key, (256 * size, energy.n_spins), "int8")
    return tg.kinetics.flip_minima(energy, np.asarray(corners))


def ladder(energy: tg.Pairwise, rungs: int) -> np.ndarray:
    """From where a spin hardly feels its neighbours to where it hardly ever defies them."""
    field = np.sqrt(np.square(np.asarray(energy.couplings)).sum(axis=1).mean())
    return np.geomspace(0.3, 8.0, rungs) / field


def by_tempering(energy: tg.Pairwise, key, size: int) -> np.ndarray:
    betas = ladder(energy, 16)
    states = tg.sample(
        tg.ParallelTempering(jnp.asarray(betas, jnp.float32)),
        energy,
        float(betas[-1]),
        key=key,
        n_chains=4,
        n_sweeps=200 * size,
        thin=20,
    )
    return tg.kinetics.flip_minima(energy, np.asarray(states).reshape(-1, energy.n_spins))


def by_population(energy: tg.Pairwise, key, size: int) -> np.ndarray:
    betas = ladder(energy, 50 * size)
    found = population_annealing(
        energy, jnp.asarray(betas, jnp.float32), key=key, n_chains=64, n_populations=4
    )
    return tg.kinetics.flip_minima(energy, np.asarray(found.spins).reshape(-1, energy.n_spins))


SEARCHES: dict[str, Callable] = {
    "flip_minima": by_flips,
    "tempering": by_tempering,
    "population annealing": by_population,
}


def report(name: str, energy: tg.Pairwise, best: int | None, size: int) -> None:
    couplings = np.asarray(energy.couplings, float)
    for index, (how, search) in enumerate(SEARCHES.items()):
        start = time.perf_counter()
        spins = search(energy, jax.random.key(index), size)
        found, seconds = int(cuts(couplings, spins).max()), time.perf_counter() - start
        mark = "" if best in (None, found) else f" for {best}"
        print(f"{name:>22} {how:>21}: {found}{mark}, {seconds:.1f} s", flush=True)


def g_set(path: Path) -> nx.Graph:
    """A graph of the G-set: a line with its numbers of vertices and edges, then a line an edge."""
    n, _, *rows = np.loadtxt(path.read_text().split(), dtype=int)
    graph = nx.empty_graph(n)
    rows = np.reshape(rows, (-1, 3))
    graph.add_weighted_edges_from((a - 1, b - 1, w) for a, b, w in rows)
    return graph


def main(large: bool = False, gset: Path | None = None, best: int | None = None) -> None:
    if large:
        graph = nx.gnm_random_graph(800, 19176, seed=1)
        graph = graph if gset is None else g_set(gset)
        report("800 vertices", antiferromagnet(graph), best, 10)
        return
    for name, graph in NAMED.items():
        energy = antiferromagnet(graph)
        small = len(graph) <= 20
        most = maximum(np.asarray(energy.couplings, float)) if small else planar_maximum(graph)
        report(name, energy, most, 1)
