"""Which passes does a search for barriers miss? Strings against climbs from random points.

The barriers between the naive mean-field states of SK models by `barriers`, and over the saddles
that eigenvector following from 1500 random points of the cube meets. A pair of states (or a state
and its mirror image) counts as missed where the other way found a lower pass. Then the time per
saddle of larger models. Prints tables.

    python -m experiments passes [--sizes 16 24] [--large 64 128]
"""

import time

import jax
import numpy as np

import thermogen as tg
from thermogen.landscape import TRANSITIONS, Barriers, barriers
from thermogen.landscape._barriers import described
from thermogen.landscape._network import Network
from thermogen.landscape._saddles import Points, refined
from thermogen.search._quench import make_problem

BETA, N_MODELS, N_CLIMBS, TOL = 3.0, 8, 1500, 1e-9
NAIVE = tg.NaiveMeanField()


def sk(n: int, seed: int) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(1000 * n + seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, np.zeros(n))


def passes(found: Barriers) -> np.ndarray:
    """Heights of all pairs, and of the reversal of each state."""
    upper = np.triu_indices(len(found.heights), 1)
    return np.append(found.heights[upper], found.mirror_heights)


def climbed(library: tg.Library, energy: tg.Pairwise) -> Barriers:
    """The saddles above random points, with what they join."""
    search = Network(make_problem(NAIVE, energy, BETA), library, symmetric=True, tol=TOL)
    m = np.random.default_rng(5).uniform(-1, 1, (N_CLIMBS, energy.n_spins))
    points = refined(search.problem, np.arctanh(m), TOL)
    saddles = (points.residuals <= TOL) & (points.indices == 1)
    search.add_points(Points(*(x[saddles] for x in points)))
    return described(search)


def missed(n: int) -> None:
    ways = {
        "strings": lambda library, energy: barriers(NAIVE, energy, BETA, library, tol=TOL),
        f"{N_CLIMBS} climbs": climbed,
    }
    heights = {way: [] for way in ways}
    seconds, saddles = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    for seed in range(N_MODELS):
        energy = sk(n, seed)
        library = tg.find_minima(NAIVE, energy, BETA, key=jax.random.key(seed), n_starts=640)
        for way, search in ways.items():
            began = time.perf_counter()
            found = search(library, energy)
            seconds[way] += time.perf_counter() - began
            saddles[way] += int(np.sum(np.asarray(found.result == TRANSITIONS.converged)))
            heights[way].append(passes(found))
    best = [np.minimum(*rows) for rows in zip(*heights.values(), strict=True)]
    n_pairs = sum(map(len, best))
    for way in ways:
        wrong = [a > b + 1e-7 for a, b in zip(heights[way], best, strict=True)]
        models, pairs = sum(w.any() for w in wrong), sum(w.sum() for w in wrong)
        print(
            f"n = {n}, {way}: a lower pass missed in {models} of {N_MODELS} models and {pairs} of "
            f"{n_pairs} pairs; {saddles[way]} saddles, {seconds[way]:.1f} s",
            flush=True,
        )


def wide(n: int) -> None:
    """The time per saddle; the second search is free of compiling."""
    for seed in range(2):
        energy = sk(n, seed)
        library = tg.find_minima(
            NAIVE, energy, 2.0, key=jax.random.key(seed), n_starts=32, capacity=16
        )
        began = time.perf_counter()
        found = barriers(NAIVE, energy, 2.0, library, n_neighbours=2, n_rounds=1)
        seconds = time.perf_counter() - began
        count = int(np.sum(np.asarray(found.result == TRANSITIONS.converged)))
        print(
            f"n = {n}: {library.size} states, {count} saddles of {len(found.ends)} in "
            f"{seconds:.1f} s, {1e3 * seconds / max(count, 1):.0f} ms each; "
            f"{len(found.others)} minima met on the way",
            flush=True,
        )


def main(sizes: tuple[int, ...] = (16, 24), large: tuple[int, ...] = (64, 128)) -> None:
    for n in sizes:
        missed(n)
    for n in large:
        wide(n)
