"""Which passes does a search for barriers miss? Strings, climbs and both, on SK models.

The barriers between the naive mean-field states of SK models by strings alone, by strings and the
default number of climbs from each minimum, and by many climbs. A pair of states (or a state and its
mirror image) counts as missed where another way found a lower pass. Then the time per saddle of
larger models. Prints tables.

    python experiments/passes.py [--sizes 16 24] [--large 64 128]
"""

import argparse
import time

import jax
import numpy as np

import thermogen as tg
from thermogen.landscape import TRANSITIONS, Barriers, barriers

BETA, N_MODELS = 3.0, 8
NAIVE = tg.NaiveMeanField()
WAYS = {
    "strings": {"n_climbs": 0},
    "strings, 16 climbs": {},
    "strings, 100 climbs": {"n_climbs": 100},
}


def sk(n: int, seed: int) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(1000 * n + seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, np.zeros(n))


def passes(found: Barriers) -> np.ndarray:
    """Heights of all pairs, and of the reversal of each state."""
    upper = np.triu_indices(len(found.heights), 1)
    return np.append(found.heights[upper], found.mirror_heights)


def missed(n: int) -> None:
    heights = {way: [] for way in WAYS}
    seconds, saddles = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0)
    for seed in range(N_MODELS):
        energy = sk(n, seed)
        library = tg.find_bound_states(NAIVE, energy, BETA, key=jax.random.key(seed))
        for way, options in WAYS.items():
            began = time.perf_counter()
            found = barriers(library, NAIVE, energy, BETA, **options)
            seconds[way] += time.perf_counter() - began
            saddles[way] += int(np.sum(np.asarray(found.result == TRANSITIONS.converged)))
            heights[way].append(passes(found))
    best = [np.minimum.reduce(rows) for rows in zip(*heights.values(), strict=True)]
    n_pairs = sum(map(len, best))
    for way in WAYS:
        wrong = [a > b + 1e-7 for a, b in zip(heights[way], best, strict=True)]
        models, pairs = sum(w.any() for w in wrong), sum(w.sum() for w in wrong)
        print(
            f"{n:4d}  {way:<20}{models:4d} of {N_MODELS} models{pairs:6d} of {n_pairs} pairs"
            f"{saddles[way]:8d} saddles{seconds[way]:8.1f} s",
            flush=True,
        )


def large(n: int) -> None:
    """The time per saddle; the second search is free of compiling."""
    for seed in range(2):
        energy = sk(n, seed)
        library = tg.find_bound_states(
            NAIVE, energy, 2.0, key=jax.random.key(seed), n_walkers=32, n_hops=0, capacity=16
        )
        began = time.perf_counter()
        found = barriers(library, NAIVE, energy, 2.0, n_neighbours=2, n_climbs=2, n_rounds=1)
        seconds = time.perf_counter() - began
        count = int(np.sum(np.asarray(found.result == TRANSITIONS.converged)))
        print(
            f"n = {n}: {library.size} states, {count} saddles of {len(found.ends)} in "
            f"{seconds:.1f} s, {1e3 * seconds / max(count, 1):.0f} ms each; "
            f"{len(found.others)} minima met on the way",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 24])
    parser.add_argument("--large", type=int, nargs="*", default=[64, 128])
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for n in arguments.sizes:
        missed(n)
    for n in arguments.large:
        large(n)


if __name__ == "__main__":
    main()
