"""Time of `certify` beside that of `sample` for the same number of spin flips, in one run.

Each model has four candidates, single-flip minima below random corners; `certify` starts 64
trajectories (16 on more than 1000 spins) of 60 sweeps from each, and more where these leave the
count open, or are too few to count. What it took is counted, and `sample` moves as many `Gibbs`
chains for as many sweeps. A machine is certified by random single spins and by layers in turn.
Compilation is not counted: both have run before, with another key. Later calls, best of two;
processor time, which others do not change. The last lines are more candidates of one glass.

    python -m experiments benchmarks.certify
"""

import functools
import time
import unittest.mock
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import thermogen as tg
from thermogen.kinetics import _observe

X64 = False  # chains in the precision in which trajectories move
N_TRAJECTORIES, THRESHOLD, HORIZON = 64, 20, 3
COUNTS = (16, 64, 256)
KEY = 1  # of what is timed, and counted


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


def machine(n_visible: int, n_hidden: int) -> tg.RBM:
    weights = np.random.default_rng(0).normal(size=(n_visible, n_hidden)) / np.sqrt(n_visible)
    return tg.RBM(weights, np.zeros(n_visible), np.zeros(n_hidden))


class Model(NamedTuple):
    make: Callable[[], tg.AbstractEnergy]
    beta: float
    dynamics: tg.sampling.AbstractKernel = tg.HeatBath()


MODELS = {
    **{
        f"dense, n = {n}": Model(functools.partial(glass, n), 1.5) for n in (32, 64, 128, 256, 1024)
    },
    "complete, n = 12": Model(complete, 1.0),
    "lattice 16 x 16": Model(lambda: lattice(16), 1.0),
    "lattice 64 x 64": Model(lambda: lattice(64), 1.0),
    "RBM 64 x 32": Model(lambda: machine(64, 32), 1.5),
    "RBM 784 x 500": Model(lambda: machine(784, 500), 1.5),
    "RBM 784 x 500, layers": Model(lambda: machine(784, 500), 1.5, tg.Gibbs()),
}


class Work(NamedTuple):
    """Chains that moved, and the sweeps of all of them together."""

    chains: int
    sweeps: float


def seconds(function: Callable[[jax.Array], object]) -> tuple[float, float]:
    """Of the first call, and the best of two others."""
    times = []
    for seed in (0, KEY, KEY):
        began = time.process_time()
        jax.block_until_ready(function(jax.random.key(seed)))
        times.append(time.process_time() - began)
    return times[0], min(times[1:])


def work(model: Model, certify: Callable[[jax.Array], object]) -> Work:
    """What the trajectories of a certificate do."""
    chains, sweeps, run = [], [], _observe.run

    def counted(job, **options):
        rows, columns, n = job.starts.shape
        per_sweep = n if isinstance(model.dynamics, tg.HeatBath) else 1
        chains.append(rows * columns)
        sweeps.append(chains[-1] * int(job.n_times) * int(job.n_steps) / per_sweep)
        return run(job, **options)

    with unittest.mock.patch.object(_observe, "run", counted):
        certify(jax.random.key(KEY))
    return Work(max(chains), sum(sweeps))


def line(title: str, model: Model, energy: tg.AbstractEnergy, candidates: np.ndarray) -> str:
    """Seconds of both for the same flips."""
    certify = functools.partial(
        tg.certify,
        energy,
        model.beta,
        candidates,
        threshold=THRESHOLD,
        n_trajectories=16 if energy.n_spins > 1000 else N_TRAJECTORIES,
        horizon=HORIZON,
        dynamics=model.dynamics,
    )
    first, proof = seconds(lambda key: certify(key=key).escape_times)
    done = work(model, lambda key: certify(key=key))
    n_sweeps = round(done.sweeps / done.chains)
    options = {"n_chains": done.chains, "n_sweeps": n_sweeps, "thin": n_sweeps}
    _, moves = seconds(lambda key: tg.sample(tg.Gibbs(), energy, model.beta, key=key, **options))
    figures = f"{moves:10.3f}{proof:10.3f}{proof / moves:8.1f}{first:16.1f}"
    return f"{title:22}{figures}   {done.chains} x {n_sweeps}"


def candidates_of(energy: tg.AbstractEnergy, count: int) -> np.ndarray:
    """Single-flip minima below random corners."""
    corners = np.random.default_rng(1).choice([-1.0, 1.0], size=(2 * count, energy.n_spins))
    return tg.kinetics.flip_minima(energy, corners)[:count]


def main() -> None:
    heads = f"{'sample':>10}{'certify':>10}{'ratio':>8}{'first certify':>16}"
    print(f"{'':22}{heads}   seconds, chains x sweeps")
    for name, model in MODELS.items():
        energy = model.make()
        print(line(name, model, energy, candidates_of(energy, 4)), flush=True)
    glass_of_64 = MODELS["dense, n = 64"]
    energy = glass_of_64.make()
    for count in COUNTS:
        candidates = candidates_of(energy, count)
        title = f"n = 64, {len(candidates)} candidates"
        print(line(title, glass_of_64, energy, candidates), flush=True)
