"""The same work by one, two and four processes on this machine: how far results differ.

Each process takes the processor as one device, and talks to the others on loopback. "equal" is to
the last bit; else the largest difference over the largest value. All hold the same, but for the
order of sums.

    python -m experiments processes [--sizes 1 2 4]
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

import thermogen as tg
from thermogen import sampling

ROOT = pathlib.Path(__file__).parent.parent


def results() -> dict[str, np.ndarray]:
    """One of each job, spread over the devices of all processes."""
    couplings = np.triu(np.random.default_rng(0).normal(size=(8, 8)), 1) / np.sqrt(8)
    energy = tg.Pairwise(couplings + couplings.T, np.full(8, 0.1))
    rows = np.random.default_rng(1).choice([-1, 1], (30, 8))
    machine = tg.RBM.random(4, np.zeros(8), key=jax.random.key(1))
    betas, mesh = jnp.linspace(0.1, 1, 4), jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
    on = {"key": jax.random.key(0), "sharding": mesh}
    library = tg.find_minima(tg.NaiveMeanField(), energy, 2.0, n_starts=32, **on)
    few = {"threshold": 2, "n_starts": 16, "n_trajectories": 32, "n_populations": 20}
    bound = tg.find_bound_states(energy, 2.0, **few, **on)
    cooled = tg.annealed_importance_sampling(energy, betas, n_chains=16, **on)
    population = sampling.population_annealing(energy, betas, n_chains=16, n_populations=4, **on)
    spins = tg.sample(tg.Gibbs(), energy, 1.0, n_chains=8, n_sweeps=4, **on)
    likely = tg.fit(tg.Pseudolikelihood(), energy, rows, n_steps=20, **on)
    learned = tg.fit(tg.PersistentCD(), machine, rows, n_steps=20, batch_size=10, **on)
    return {
        "minima: magnetizations": library.magnetizations,
        "minima: free energies": library.free_energies,
        "minima: hits": library.hits,
        "bound states: magnetizations": bound.magnetizations,
        "bound states: escape times": bound.escape_times,
        "bound states: their intervals": bound.intervals,
        "bound states: groups": bound.certificate.group,
        "bound states: weights": bound.weights,
        "samples": np.asarray(process_allgather(spins, tiled=True)),
        "ln Z by annealed chains": np.asarray(cooled.log_partition),
        "its standard error": np.asarray(cooled.standard_error),
        "ln Z by populations": np.asarray(population.log_partition),
        "pseudolikelihood: couplings": np.asarray(likely.energy.couplings),
        "pseudolikelihood: history": np.asarray(likely.history),
        "persistent CD: weights": np.asarray(learned.energy.weights),
    }


def join(port: int, n: int, k: int) -> None:
    """Be process k of n, with one device."""
    jax.config.update("jax_num_cpu_devices", 1)
    if n > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", n, k, heartbeat_timeout_seconds=20)


def work(port: int, n: int, k: int, folder: str) -> None:
    """What process k of n does."""
    jax.config.update("jax_enable_x64", True)
    join(port, n, k)
    np.savez(f"{folder}/{k}.npz", **results())


def start(code: str, n: int, *arguments: object) -> list[subprocess.Popen]:
    """So many processes that run the same code; its arguments begin with a port, n, and k."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, (port, n, k, *arguments))],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(n)
    ]


def ended(processes: list[subprocess.Popen]) -> None:
    """Wait until all have ended well."""
    for process in processes:
        _, err = process.communicate(timeout=600)
        if process.returncode:
            raise RuntimeError(err[-3000:])


def run(n: int, folder: object) -> list[dict[str, np.ndarray]]:
    """The results in each of n processes."""
    code = (
        "import sys; from experiments.processes import work; "
        "work(*map(int, sys.argv[1:4]), sys.argv[4])"
    )
    ended(start(code, n, folder))
    return [dict(np.load(f"{folder}/{k}.npz")) for k in range(n)]


def difference(x: np.ndarray, truth: np.ndarray) -> float:
    """The largest difference over the largest value; infinite where shapes differ."""
    if x.shape != truth.shape:
        return np.inf
    apart = np.where(x == truth, 0.0, x - truth)
    finite = np.abs(truth[np.isfinite(truth)])
    return float(np.max(np.abs(apart), initial=0) / max(np.max(finite, initial=0), 1e-300))


def main(*, sizes: tuple[int, ...] = (1, 2, 4)) -> None:
    found, seconds = [], []
    for n in sizes:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            processes = run(n, folder)
        seconds.append(time.perf_counter() - began)
        for other in processes:
            assert all(np.array_equal(other[name], x) for name, x in processes[0].items())
        found.append(processes[0])
    print(f"{'processes':32}" + "".join(f"{n:>10}" for n in sizes))
    for name, truth in found[0].items():
        apart = [difference(other[name], truth) for other in found]
        print(f"{name:32}" + "".join(f"{x:10.0e}" if x else f"{'equal':>10}" for x in apart))
    print(f"{'seconds, with compilation':32}" + "".join(f"{x:10.0f}" for x in seconds))
