"""How long do first calls take, and how much of that is compilation?

Each call runs in a process of its own without a compilation cache: once, and once more with another
key, which compiles nothing. The model is an SK model of unit width with small fields at beta = 1,
in float32, as a user who sets nothing has it; `fit` learns a `Pairwise` energy from 500 random
samples. The difference of the two times is what compilation costs.

    python -m experiments benchmarks.first_calls
"""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np

import thermogen as tg

# As users have it who set nothing.
X64 = False

SIZES = (12, 64)


def glass(n: int) -> tg.Pairwise:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=n))


def find_minima(energy, key):
    return tg.find_minima(tg.NaiveMeanField(), energy, 1.0, key=key).magnetizations


def certify(energy, key):
    rng = np.random.default_rng(1)
    candidates = rng.choice([-1.0, 1.0], (4, energy.n_spins))
    return tg.certify(energy, 1.0, candidates, key=key, threshold=20).escape_times


def find_bound_states(energy, key):
    return tg.find_bound_states(energy, 1.0, key=key).weights


def fit(energy, key):
    data = np.random.default_rng(2).choice([-1.0, 1.0], (500, energy.n_spins))
    start = jax.tree.map(jax.numpy.zeros_like, energy)
    return tg.fit(tg.Pseudolikelihood(), start, data, key=key).energy.couplings


def sample(energy, key):
    return tg.sample(tg.Gibbs(), energy, 1.0, key=key, n_chains=64, n_sweeps=100)


CALLS = {f.__name__: f for f in (sample, fit, find_minima, certify, find_bound_states)}


def measure(name: str, n: int) -> None:
    """Prints seconds of the first and of the second call, wall clock and of the processor."""
    energy = glass(n)
    jax.block_until_ready(jax.numpy.ones(3) + 1)
    times = []
    for seed in range(2):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(CALLS[name](energy, jax.random.key(seed)))
        times += [time.perf_counter() - start[0], time.process_time() - start[1]]
    print(json.dumps(times))


def main(call: str = "", size: int = 12) -> None:
    if call:  # in this process
        measure(call, size)
        return
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    print("call                 n   first (s)  again (s)   first, CPU s   again, CPU s")
    for name in CALLS:
        for n in SIZES:
            command = [sys.executable, "-m", "experiments", "benchmarks.first_calls"]
            command += ["--call", name, "--size", str(n)]
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            wall, cpu, again, again_cpu = json.loads(done.stdout.splitlines()[0])
            print(f"{name:18s} {n:3d} {wall:10.1f} {again:10.2f} {cpu:14.1f} {again_cpu:14.2f}")
