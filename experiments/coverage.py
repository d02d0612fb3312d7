"""Is the claimed coverage true? Searches of models of 16 spins against all 2^16 starts.

For each model every corner of the cube is quenched (naive mean field; modulo the flip where the
model has it): the true set of minima that random corners fall to, and the true share of each.
Against it, 20 searches of 64 and of 256 quenches, all from random corners (plain) or, but for an
eighth, by an even mix of moves: Good-Turing coverage and how often its 95 % interval holds the
true share, of corners, that fall to what was found; the Chao1 bound on the number of states and how
often it, and the lower end of its interval, do not exceed the truth; for plain searches the
discovery curve over its expectation at half the quenches.

Tasks of an array take searches of their own; coverage.csv holds a row for each.

    python -m experiments coverage
    python -m experiments coverage --task 3 --tasks 10
"""

from pathlib import Path

import jax
import numpy as np

import thermogen as tg
from experiments._shared import table
from thermogen._tasks import Task
from thermogen.search import completeness, corner, crossover, discovery_curve, flip_cluster

N, N_SEARCHES = 16, 20
MOVES = (corner, flip_cluster, crossover)
NAIVE = tg.NaiveMeanField()
COLUMNS = "held", "true", "claimed", "within", "chao1", "low_end", "below_truth", "curve"


def sk(seed: int, fields: float) -> tg.Pairwise:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(N, N)), 1) / np.sqrt(N)
    return tg.Pairwise(upper + upper.T, fields * rng.normal(size=N))


def hopfield(seed: int) -> tg.Pairwise:
    patterns = np.random.default_rng(seed).choice([-1.0, 1.0], (4, N))
    return tg.Pairwise(patterns.T @ patterns / N * (1 - np.eye(N)), np.zeros(N))


MODELS = {
    "SK, beta 3": (sk(0, 0.0), 3.0),
    "SK, beta 8": (sk(1, 0.0), 8.0),
    "SK in a field": (sk(2, 0.1), 8.0),
    "Hopfield": (hopfield(3), 4.0),
}


def all_corners() -> np.ndarray:
    return np.asarray(tg.enumerate_spins(N), float)


def main(out: Path = Path("results"), task: Task = Task()) -> None:
    corners, first, every = all_corners(), N_SEARCHES * task.index, []
    print(
        f"{'model':>14}{'states':>8}{'rarest':>9}{'search':>8}{'starts':>8}{'held':>7}{'true':>8}"
        f"{'claimed':>9}{'within':>8}{'Chao1':>8}{'low end':>9}{'<= truth':>9}{'curve':>8}"
    )
    for name, (energy, beta) in MODELS.items():
        truth = tg.find_minima(
            NAIVE, energy, beta, key=jax.random.key(0), starts=corners, n_starts=1,
            capacity=2048,
        )  # fmt: skip
        for n_starts in (64, 256):
            for search in ("plain", "mix"):
                rows = [
                    searched(truth, energy, beta, seed, n_starts, search)
                    for seed in range(first, first + N_SEARCHES)
                ]
                case = {"model": name, "starts": n_starts, "moves": search}
                for k, row in enumerate(rows):
                    every.append(case | {"seed": first + k} | dict(zip(COLUMNS, row, strict=True)))
                held, true, claimed, within, chao, least, bound, curve = np.mean(rows, axis=0)
                print(
                    f"{name:>14}{truth.size:8}{truth.hits.min() / truth.hits.sum():9.1e}"
                    f"{search:>8}{n_starts:8}{held:7.1f}{true:8.3f}{claimed:9.3f}{within:8.2f}"
                    f"{chao:8.1f}{least:9.1f}{bound:9.2f}"
                    + (f"{curve:8.3f}" if search == "plain" else ""),
                    flush=True,
                )
    table(out / "coverage.csv", every)


def searched(truth, energy, beta, seed: int, n_starts: int, search: str) -> tuple:
    """What one search holds and claims, against the truth."""
    library = tg.find_minima(
        NAIVE,
        energy,
        beta,
        key=jax.random.key(seed),
        n_starts=n_starts,
        moves=MOVES if search == "mix" else (corner,),
    )
    shares = truth.hits / truth.hits.sum()
    held = truth.nearest(library.magnetizations)
    # Moves, and starts beside corners, may reach what no corner falls to.
    true, claim = shares[held[held >= 0]].sum(), completeness(library)
    low, high = claim.coverage_interval
    within = low - 1e-9 <= true <= high + 1e-9
    least, half = claim.n_states_interval[0], (library.hits - library.given_hits).sum() // 2
    expected = np.sum(1 - (1 - shares) ** half)
    curve = discovery_curve(library, np.array([half]))[0] / expected
    bound = least <= truth.size
    return library.size, true, claim.coverage, within, claim.n_states, least, bound, curve
