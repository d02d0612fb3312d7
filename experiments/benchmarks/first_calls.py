"""How long do first calls of public functions take, and how much of that is compilation?

Each call runs in a process of its own without a compilation cache: once, and once more with another
key, which compiles nothing. The model is an SK model of unit width with small fields at beta = 1,
in float32, as a user who sets nothing has it; what learns takes 500 random samples. Numbers of
steps and chains are the defaults, but where a call would compute for long.

    python -m experiments benchmarks.first_calls [--sizes 12 64] [--call NAME]
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.monitoring
import numpy as np

import thermogen as tg
from experiments._shared import claim, table
from thermogen import sampling

# As users have it who set nothing.
X64 = False


def glass(n: int) -> tg.Pairwise:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=n))


def data(energy) -> np.ndarray:
    return np.random.default_rng(2).choice([-1.0, 1.0], (500, energy.n_spins))


def library(energy, key) -> tg.Library:
    """Two states that the search need not find."""
    ends = tg.quench(NAIVE, energy, 1.0, data(energy)[:64]).value
    return tg.Library.from_magnetizations(NAIVE, energy, 1.0, ends)[:2]


def certify(energy, key):
    return tg.certify(energy, 1.0, data(energy)[:4], key=key, threshold=20).escape_times


def recall(energy, key):
    cue = np.where(np.arange(energy.n_spins) < energy.n_spins // 2, data(energy)[0], 0)
    return tg.recall(energy, 1.0, cue, key=key).log_probabilities


def fit(objective, n_steps=None):
    def call(energy, key):
        start = jax.tree.map(jax.numpy.zeros_like, energy)
        return tg.fit(objective, start, data(energy), key=key, n_steps=n_steps).energy.couplings

    return call


def fit_experts(energy, key):
    start = jax.tree.map(jax.numpy.zeros_like, energy)
    options = {"objective": tg.Pseudolikelihood(), "n_experts": 2, "n_rounds": 1}
    return tg.fit_experts(start, data(energy), key=key, n_steps=20, **options).log_partitions


def solve(functional):
    def call(energy, key):
        m = jax.random.uniform(key, (energy.n_spins,), minval=-0.5, maxval=0.5)
        return tg.solve(functional, energy, 1.0, m, throw=False).value

    return call


def search(functional):
    return lambda e, key: tg.find_minima(functional, e, 1.0, key=key).magnetizations


NAIVE, RUN = tg.NaiveMeanField(), {"n_chains": 64, "n_sweeps": 100}
LADDER = tg.ParallelTempering(np.linspace(0.1, 1.0, 8))
FROM_0 = np.linspace(0.0, 1.0, 41)
BETAS = FROM_0[1:]
CALLS = {
    "sample, Gibbs": lambda e, key: tg.sample(tg.Gibbs(), e, 1.0, key=key, **RUN),
    "sample, HeatBath": lambda e, key: tg.sample(tg.HeatBath(), e, 1.0, key=key, **RUN),
    "sample, ParallelTempering": lambda e, key: tg.sample(LADDER, e, 1.0, key=key, **RUN),
    "sampling.find_ladder": lambda e, key: sampling.find_ladder(e, 1.0, key=key).betas,
    "sampling.log_partition": lambda e, key: sampling.log_partition(e, 1.0, key=key).log_partition,
    "annealed_importance_sampling": lambda e, key: (
        tg.annealed_importance_sampling(e, BETAS, key=key, n_chains=256).log_partition
    ),
    "sampling.population_annealing": lambda e, key: (
        sampling.population_annealing(e, BETAS, key=key, n_chains=64).log_partition
    ),
    "sampling.thermodynamic_integration": lambda e, key: (
        sampling.thermodynamic_integration(e, BETAS, key=key, burn_in=50, **RUN).log_partition
    ),
    "sampling.multi_histogram_reweighting": lambda e, key: sampling.multi_histogram_reweighting(
        e, BETAS, key=key, burn_in=50, **RUN
    ).log_partition(1),
    "solve, TAP": solve(tg.TAP()),
    "solve, AdaptiveTAP": solve(tg.AdaptiveTAP()),
    "solve, Bethe": solve(tg.Bethe()),
    "susceptibility, TAP": lambda e, key: tg.susceptibility(
        tg.TAP(), e, 1.0, 0.5 * jax.numpy.ones(e.n_spins)
    ),
    "quench": lambda e, key: tg.quench(NAIVE, e, 1.0, data(e)[:64]).value,
    "find_minima, NaiveMeanField": search(NAIVE),
    "find_minima, TAP": search(tg.TAP()),
    "find_minima, AdaptiveTAP": search(tg.AdaptiveTAP()),
    "find_minima, Bethe": search(tg.Bethe()),
    "certify": certify,
    "find_bound_states": lambda e, key: tg.find_bound_states(e, 1.0, key=key).weights,
    "barriers": lambda e, key: tg.barriers(NAIVE, e, 1.0, library(e, key)).heights,
    "landscape.follow": lambda e, key: (
        tg.landscape.follow(NAIVE, e, 1.0, library(e, key)).curvatures
    ),
    "landscape.energy_barriers": lambda e, key: tg.landscape.energy_barriers(
        e, data(e)[:2], key=key
    ),
    "fit, Pseudolikelihood": fit(tg.Pseudolikelihood()),
    "fit, PersistentCD": fit(tg.PersistentCD(), 100),
    "fit, AnnealedLikelihood": fit(tg.learning.AnnealedLikelihood(), 5),
    "learning.choose_l2": lambda e, key: tg.learning.choose_l2(e, data(e), key=key).l2,
    "learning.log_likelihood": lambda e, key: (
        tg.learning.log_likelihood(e, data(e), 1.0, key=key).value
    ),
    "fit_experts": fit_experts,
    "recall": recall,
}


def measure(name: str, n: int) -> None:
    """Prints seconds of the first and the second call, of compiling, and how many programs."""
    energy, compiled = glass(n), []
    jax.block_until_ready(jax.numpy.ones(3) + 1)

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    times = []
    for seed in range(2):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(CALLS[name](energy, jax.random.key(seed)))
        times += [time.perf_counter() - start[0], time.process_time() - start[1]]
        if seed == 0:
            times += [sum(compiled), len(compiled)]
    print(json.dumps(times))


def main(call: str = "", sizes: tuple[int, ...] = (64,), out: Path = Path("results")) -> None:
    if call:  # in this process
        measure(call, sizes[0])
        return
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    columns = "first", "first, CPU", "compiling", "programs", "again", "again, CPU"
    print(f"{'call':38}{'n':>4}" + "".join(f"{name:>12}" for name in columns))
    rows = []
    for name in CALLS:
        for n in sizes:
            command = [sys.executable, "-m", "experiments", "benchmarks.first_calls"]
            command += ["--call", name, "--sizes", str(n)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(f"{name:38}{n:4}  {done.stderr.splitlines()[-1]}", flush=True)
                continue
            figures = json.loads(done.stdout.splitlines()[0])
            rows.append({"call": name, "n": n} | dict(zip(columns, figures, strict=True)))
            print(f"{name:38}{n:4}" + "".join(f"{x:12.4g}" for x in figures), flush=True)
    table(out / "first_calls.csv", rows)
    claim("compiles within 6 s", all(row["compiling"] <= 6 for row in rows))
