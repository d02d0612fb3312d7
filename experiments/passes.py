"""Which passes does a search for barriers miss? Strings against climbs from random points.

The barriers between the naive mean-field states of SK models by `barriers`, and over the saddles
that eigenvector following from 1500 random points of the cube meets. A pair of states (or a state
and its mirror image) counts as missed where the other way found a lower pass. Then the time per
saddle of larger models. Tasks of an array share the small models; passes.csv holds a row for each
and each way. The first task does the larger ones, too.

    python -m experiments passes [--sizes 16 24] [--large 64 128] [--out DIR]
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import thermogen as tg
from experiments._shared import table
from thermogen._tasks import Task
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


def missed(n: int, seeds: list[int]) -> list[dict[str, Any]]:
    ways = {
        "strings": lambda library, energy: barriers(NAIVE, energy, BETA, library, tol=TOL),
        f"{N_CLIMBS} climbs": climbed,
    }
    rows = []
    for seed in seeds:
        energy = sk(n, seed)
        library = tg.find_minima(NAIVE, energy, BETA, key=jax.random.key(seed), n_starts=640)
        heights, own = {}, {"n": n, "seed": seed}
        for way, search in ways.items():
            began = time.perf_counter()
            found = search(library, energy)
            seconds = time.perf_counter() - began
            saddles = np.sum(np.asarray(found.result == TRANSITIONS.converged))
            heights[way] = passes(found)
            rows.append({**own, "way": way, "saddles": saddles, "seconds": seconds})
        best = np.minimum(*heights.values())
        for row, found in zip(rows[-len(ways) :], heights.values(), strict=True):
            row |= {"pairs": len(best), "missed": np.sum(found > best + 1e-7)}
    for way in ways:
        own = [row for row in rows if row["way"] == way]
        models = sum(row["missed"] > 0 for row in own)
        total = {k: sum(row[k] for row in own) for k in ("missed", "pairs", "saddles", "seconds")}
        print(
            f"n = {n}, {way}: a lower pass missed in {models} of {len(own)} models and "
            f"{total['missed']} of {total['pairs']} pairs; {total['saddles']} saddles, "
            f"{total['seconds']:.1f} s",
            flush=True,
        )
    return rows


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


def main(
    sizes: tuple[int, ...] = (16, 24),
    large: tuple[int, ...] = (64, 128),
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    seeds = task.part(range(N_MODELS))
    table(out / "passes.csv", [row for n in sizes for row in missed(n, seeds)])
    for n in large if task.index == 0 else ():
        wide(n)
