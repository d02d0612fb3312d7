"""Time of `certify` beside that of `sample` for the same number of spin flips, in one run.

Each model has four candidates, single-flip minima below random corners, from each of which 64
trajectories of 60 sweeps start; `sample` moves as many `Gibbs` chains as many sweeps. Compilation
is not counted: both have run before, with another key. Second calls, best of two.

    python -m experiments benchmarks.certify
"""

import time
from collections.abc import Callable

import jax
import numpy as np

import thermogen as tg

N_TRAJECTORIES, THRESHOLD, HORIZON = 64, 20, 3


def glass(n: int) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(0).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, np.zeros(n))


def lattice(size: int) -> tg.Interactions:
    sites = np.arange(size * size).reshape(size, size)
    bonds = np.concatenate(
        [np.stack([sites.ravel(), np.roll(sites, 1, axis).ravel()], axis=1) for axis in (0, 1)]
    )
    return tg.Interactions(size * size, [bonds], [np.random.default_rng(0).normal(size=len(bonds))])


def complete() -> tg.Complete:
    return tg.Complete(np.random.default_rng(0).normal(size=2**12) / 12)


def machine() -> tg.RBM:
    draw = np.random.default_rng(0)
    return tg.RBM(draw.normal(size=(64, 32)) / 8, np.zeros(64), np.zeros(32))


MODELS: dict[str, tuple[Callable[[], tg.AbstractEnergy], float]] = {
    "dense, n = 32": (lambda: glass(32), 1.5),
    "dense, n = 64": (lambda: glass(64), 1.5),
    "dense, n = 128": (lambda: glass(128), 1.5),
    "complete, n = 12": (complete, 1.0),
    "lattice 16 x 16": (lambda: lattice(16), 1.0),
    "RBM 64 x 32": (machine, 1.5),
}


def seconds(function: Callable[[jax.Array], object]) -> tuple[float, float]:
    """Of the first call, and the best of two others."""
    times = []
    for seed in range(3):
        began = time.perf_counter()
        jax.block_until_ready(function(jax.random.key(seed)))
        times.append(time.perf_counter() - began)
    return times[0], min(times[1:])


def main() -> None:
    print(f"{'':20}{'sample':>10}{'certify':>10}{'ratio':>8}{'first certify':>16}   seconds")
    for name, (make, beta) in MODELS.items():
        energy = make()
        corners = np.random.default_rng(1).choice([-1.0, 1.0], size=(64, energy.n_spins))
        candidates = tg.kinetics.flip_minima(energy, corners)[:4]
        n_chains, n_sweeps = len(candidates) * N_TRAJECTORIES, THRESHOLD * HORIZON
        first, proof = seconds(
            lambda key, e=energy, b=beta, c=candidates: tg.certify(
                e, b, c, key=key, threshold=THRESHOLD, n_trajectories=N_TRAJECTORIES,
                horizon=HORIZON,
            ).escape_times
        )  # fmt: skip
        _, draw = seconds(
            lambda key, e=energy, b=beta, c=n_chains, s=n_sweeps: tg.sample(
                tg.Gibbs(), e, b, key=key, n_chains=c, n_sweeps=s, thin=s
            )
        )
        print(f"{name:20}{draw:10.3f}{proof:10.3f}{proof / draw:8.1f}{first:16.1f}", flush=True)
