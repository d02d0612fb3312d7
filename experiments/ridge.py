"""Which ridge learns best from few samples: the default against weaker and stronger ones.

Pairwise models of 12 spins whose truth is known, five of each family; from 50, 300 and 3000 samples
of each a pseudolikelihood learns with ridges of c/N. Reported is the divergence of the learned
model from the truth in nats, by enumeration, mean over the five. The default is c = n/2 = 6.
Tasks of an array share the five; ridge.csv holds a row for each model and count.

    python -m experiments ridge [--out DIR]
"""

from pathlib import Path

import jax
import numpy as np

import thermogen as tg
from experiments._shared import table
from thermogen._tasks import Task

N = 12
FACTORS = (0.5, 2.0, 6.0, 24.0)
COUNTS = (50, 300, 3000)
MODELS = 5


def glass(width: float):
    def draw(rng: np.random.Generator) -> tg.Pairwise:
        upper = np.triu(rng.normal(0, width / np.sqrt(N), (N, N)), 1)
        return tg.Pairwise(upper + upper.T, rng.normal(0, 0.5, N))

    return draw


def ring(coupling: float):
    def draw(rng: np.random.Generator) -> tg.Pairwise:
        neighbour = np.roll(np.eye(N), 1, axis=0)
        return tg.Pairwise(coupling * (neighbour + neighbour.T), np.zeros(N))

    return draw


def hopfield(rng: np.random.Generator) -> tg.Pairwise:
    patterns = rng.choice([-1.0, 1.0], (2, N))
    couplings = 1.5 * patterns.T @ patterns / N
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, np.zeros(N))


def rare(rng: np.random.Generator) -> tg.Pairwise:
    return tg.Pairwise(0.3 / N * (1 - np.eye(N)), np.full(N, -2.0))


FAMILIES = {
    "glass, width 0.3": glass(0.3),
    "glass, width 1": glass(1.0),
    "glass, width 3": glass(3.0),
    "ring of couplings 1": ring(1.0),
    "ring of couplings 2": ring(2.0),
    "Hopfield, 2 patterns": hopfield,
    "rare spins": rare,
}


def divergence(truth: tg.Pairwise, factor: float, count: int, rng: np.random.Generator) -> float:
    p = np.asarray(tg.exact.probabilities(truth, 1.0))
    data = tg.spins_from_index(rng.choice(2**N, count, p=p / p.sum()), N)
    start = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
    objective = tg.Pseudolikelihood(factor / count)
    fitted = tg.fit(objective, start, np.asarray(data, float), key=jax.random.key(0)).energy
    log_q = -np.asarray(tg.exact.energies(fitted)) - float(tg.exact.log_partition(fitted, 1.0))
    log_p = -np.asarray(tg.exact.energies(truth)) - float(tg.exact.log_partition(truth, 1.0))
    return float(np.sum(p * (log_p - log_q)))


def main(out: Path = Path("results"), task: Task = Task()) -> None:
    seeds, rows = task.part(range(MODELS)), []
    print(f"{'':22}{'samples':>9}" + "".join(f"{f'{factor:g}/N':>9}" for factor in FACTORS))
    for name, draw in FAMILIES.items():
        for count in COUNTS:
            found = []
            for seed in seeds:
                truth = draw(np.random.default_rng(seed))
                # The same samples for every ridge.
                found.append(
                    [
                        divergence(truth, f, count, np.random.default_rng(100 + seed))
                        for f in FACTORS
                    ]
                )
                by_ridge = {f"{f:g}/N": x for f, x in zip(FACTORS, found[-1], strict=True)}
                rows.append({"family": name, "samples": count, "seed": seed} | by_ridge)
            means = "".join(f"{x:9.4f}" for x in np.mean(found, axis=0))
            print(f"{name:22}{count:9}{means}", flush=True)
    table(out / "ridge.csv", rows)
