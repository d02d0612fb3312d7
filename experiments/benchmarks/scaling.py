"""How time and memory grow with spins, with what moves at once and with processes; the exponents.

Each kernel is compiled alone, for one device, in float32. "first" are the seconds of its
compilation, "then" the best of its runs, at the largest sizes; "work" is the memory beside
arguments and results, of the compiled program. Exponents are slopes of logarithms with their
standard errors: n at the fixed batch, batch at the fixed n. Small sizes bend them: what is fitted
is said in the columns "from" and "to".

`processes`: whole jobs, the best of three runs, by one, two and four processes on loopback, each
bound to one core; more processes than cores share them. "peak" is the resident memory of the
process that has most, with Python, JAX and the copies that all hold. Devices of one process are in
`benchmarks.meshes`.

    python -m experiments benchmarks.scaling [--only KERNEL ... processes]
"""

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments import processes
from thermogen import kinetics, learning, sampling
from thermogen.search import Search, corner

# As users have it who set nothing.
X64 = False

MIB = 2**20
# Seconds for the runs of one program, and at least so many runs.
SPAN, RUNS = 0.25, 3


def glass(n: int) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(0).normal(size=(n, n)), 1)
    couplings = jnp.asarray((upper + upper.T) / np.sqrt(n), jnp.float32)
    return tg.Pairwise(couplings, jnp.zeros(n, jnp.float32))


def lattice(n: int, width: int | None = None) -> tg.Interactions:
    """A square lattice of +-J, periodic one way, of the square root of n columns or of `width`."""
    width = round(n**0.5) if width is None else width
    site = np.arange(n).reshape(-1, width)
    along = np.stack([site[1:], site[:-1]], -1).reshape(-1, 2)
    across = np.stack([site, np.roll(site, 1, axis=1)], -1).reshape(-1, 2)
    bonds = np.concatenate([along, across])
    signs = np.random.default_rng(1).choice([-1.0, 1.0], len(bonds))
    return tg.Interactions(n, [bonds], [jnp.asarray(signs, jnp.float32)])


def spins(count: int, n: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).choice([-1.0, 1.0], (count, n)), jnp.float32)


def problem(n: int) -> tg.meanfield.Problem:
    return tg.meanfield.Problem(tg.NaiveMeanField(), glass(n), jnp.float32(1))


def mapped(function):
    """A kernel of one configuration, of many."""
    return lambda energy, points: jax.vmap(lambda x: function(energy, x))(points)


def free_energy(n, batch):
    return mapped(lambda p, m: p.free_energy(m)), (problem(n), 0.5 * spins(batch, n))


def gradient(n, batch):
    return mapped(lambda p, m: p.gradient(m)), (problem(n), 0.5 * spins(batch, n))


def local_fields(n, batch):
    return mapped(tg.local_fields), (glass(n), spins(batch, n))


def one_step(job):
    """A step of a job from where it begins."""
    state = eqx.filter_jit(lambda job, key: job.init(key))(job, jax.random.key(0))
    return lambda job, state: job.step(state), (job, state)


def search_step(n, batch):
    """Of as many lanes as the batch: at most 16 steps of each descent, and the harvest."""
    given = np.zeros((0, n), np.float32)
    search = Search.of(problem(n), given, 9 * batch, 4096, None, (corner,))
    assert search.n_lanes == batch
    return one_step(search)


def trajectories_step(n, batch):
    """One sweep of trajectories from eight starts, and which of 64 cores each belongs to."""
    starts = spins(batch, n).astype(jnp.int8).reshape(8, -1, n)
    cores, sweep = spins(64, n).astype(jnp.int8), jnp.asarray(n, jnp.int32)
    beta, tie, looks = jnp.float32(1), jnp.float32(1e-3), jnp.asarray(8, jnp.int32)
    dynamics = sampling.HeatBath()
    return one_step(
        kinetics.Trajectories(dynamics, glass(n), beta, cores, starts, sweep, tie, looks, 8)
    )


def sweep_of(sampler, energy, batch):
    none, one = jnp.asarray(0), jnp.asarray(1)
    start = spins(batch, energy.n_spins)
    return one_step(
        sampling.Sampling(
            sampler, energy, jnp.float32(1), sampling.Mean(), start, None, none, one, 8
        )
    )


def gibbs_sweep(n, batch):
    return sweep_of(tg.Gibbs(), glass(n), batch)


def lattice_sweep(n, batch):
    return sweep_of(tg.Gibbs(), lattice(n), batch)


def machine_sweep(n, batch):
    """Both layers of a machine of n / 2 visible and n / 2 hidden spins."""
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(n // 2, n // 2)), jnp.float32)
    fields = jnp.zeros(n // 2, jnp.float32)
    return sweep_of(tg.Gibbs(), tg.RBM(weights / np.sqrt(n), fields, fields), batch)


def tempering_sweep(n, batch):
    """Of eight rungs, and the exchange."""
    ladder = tg.ParallelTempering(jnp.linspace(0.2, 1, 8, dtype=jnp.float32))
    return sweep_of(ladder, glass(n), batch)


def annealing_rung(n, batch):
    path = jnp.linspace(0, 1, 9, dtype=jnp.float32)
    start = spins(batch, n)
    return one_step(sampling.AnnealedImportance(glass(n), path, start, tg.Gibbs(), None, 1))


def fit_of(objective, n, batch):
    samples = learning.Samples(spins(batch, n), jnp.full(batch, 1 / batch, jnp.float32))
    return one_step(learning.Fit(objective, glass(n), samples, n_steps=8))


def pseudolikelihood_step(n, batch):
    return fit_of(tg.Pseudolikelihood(), n, batch)


def persistent_cd_step(n, batch):
    """As many chains as samples, one sweep."""
    return fit_of(tg.PersistentCD(n_chains=batch, n_sweeps=1), n, batch)


def walsh_transform(n, _):
    values = jnp.asarray(np.random.default_rng(0).normal(size=n), jnp.float32)
    return lambda x: tg.walsh_transform(x), (values,)


def elimination(n, _):
    """ln Z of lattices of eight columns."""
    return lambda energy: tg.exact.log_partition(energy, 1.0), (lattice(n, 8),)


def elimination_by_width(states, _):
    """ln Z of lattices of 32 rows against 2^width, what a cut of them has of states."""
    width = int(states).bit_length() - 1
    return lambda energy: tg.exact.log_partition(energy, 1.0), (lattice(32 * width, width),)


class Case(NamedTuple):
    """Sizes that are tried; the middle ones of the others are held meanwhile."""

    sizes: tuple[int, ...] = (64, 128, 256, 512)
    batches: tuple[int, ...] = (64, 256, 1024)


CASES: dict[Callable, Case] = {
    free_energy: Case(),
    gradient: Case(),
    local_fields: Case(),
    search_step: Case(batches=(16, 64, 256)),
    trajectories_step: Case(),
    gibbs_sweep: Case(),
    lattice_sweep: Case((1024, 4096, 16384, 65536), (32, 128, 512)),
    machine_sweep: Case((128, 256, 512, 1024)),
    tempering_sweep: Case(batches=(16, 64, 256)),
    annealing_rung: Case(),
    pseudolikelihood_step: Case(batches=(256, 1024, 4096)),
    persistent_cd_step: Case(),
    walsh_transform: Case((2**16, 2**18, 2**20, 2**22), ()),
    elimination: Case((64, 128, 256, 512), ()),
    elimination_by_width: Case((2**6, 2**8, 2**10, 2**12), ()),
}


class Cost(NamedTuple):
    """Of one program: seconds to compile and to run, and bytes beside arguments and results."""

    compile: float
    run: float
    work: float


def measured(function: Callable, arguments: Any) -> Cost:
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    began = time.perf_counter()
    program = jax.jit(lambda arrays: function(*eqx.combine(arrays, rest))).lower(arrays).compile()
    compiling = time.perf_counter() - began
    times: list[float] = []
    while len(times) < RUNS or sum(times) < SPAN:
        began = time.perf_counter()
        jax.block_until_ready(program(arrays))
        times.append(time.perf_counter() - began)
    return Cost(compiling, min(times), program.memory_analysis().temp_size_in_bytes)


def exponent(sizes: tuple[int, ...], values: list[float]) -> str:
    """Slope of logarithms and its standard error in units of the last digit."""
    if len(sizes) < 3 or min(values) <= 0:
        return "-"
    slope, covariance = np.polyfit(np.log(sizes), np.log(values), 1, cov=True)
    return f"{slope[0]:.2f}({100 * covariance[0, 0] ** 0.5:.0f})"


# --- whole jobs by several processes

SIZES = (1, 2, 4)
N_SPINS = 256


def search(on: dict[str, Any]) -> Any:
    """4096 descents."""
    return tg.find_minima(tg.NaiveMeanField(), glass(N_SPINS), 1.0, n_starts=4096, **on)


def sample(on: dict[str, Any]) -> Any:
    """4096 chains, 64 sweeps, all kept: 256 MiB in all."""
    return tg.sample(tg.Gibbs(), glass(N_SPINS), 1.0, n_chains=4096, n_sweeps=64, **on)


def fit(on: dict[str, Any]) -> Any:
    """65536 samples, ten steps."""
    start = tg.Pairwise(jnp.zeros((N_SPINS, N_SPINS)), jnp.zeros(N_SPINS))
    data = np.random.default_rng(4).choice(np.array([-1, 1], np.int8), (2**16, N_SPINS))
    return tg.fit(tg.Pseudolikelihood(), start, data, n_steps=10, **on)


def work(port: int, n: int, k: int, name: str, folder: str) -> None:
    """What process k of n does with a job: it runs once with compilation, and then some times."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[k % len(cores)]})
    processes.join(port, n, k)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
    seconds = []
    for _ in range(1 + RUNS):
        began = time.perf_counter()
        jax.block_until_ready(globals()[name]({"key": jax.random.key(0), "sharding": mesh}))
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(folder, f"{k}.json").write_text(json.dumps([min(seconds[1:]), peak]))


def by_processes() -> None:
    """The slowest and the largest of the processes."""
    code = (
        "import sys; from experiments.benchmarks.scaling import work; "
        "work(*map(int, sys.argv[1:4]), *sys.argv[4:])"
    )
    heads = [f"{what}, {n}" for what in ("s", "peak MiB") for n in SIZES]
    print(f"\n{'processes':23}" + "".join(f"{h:>13}" for h in (*heads, "time p^", "peak p^")))
    for job in (search, sample, fit):
        found = []
        for n in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                processes.ended(processes.start(code, n, job.__name__, folder))
                told = [json.loads(Path(folder, f"{k}.json").read_text()) for k in range(n)]
            found.append(np.max(told, axis=0))
        seconds, peaks = np.transpose(found).tolist()
        cells = [f"{x:.2f}" for x in seconds] + [f"{x / MIB:.0f}" for x in peaks]
        cells += [exponent(SIZES, seconds), exponent(SIZES, peaks)]
        print(f"{job.__name__:23}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


def main(only: tuple[str, ...] = (*(kernel.__name__ for kernel in CASES), "processes")) -> None:
    heads = ["n from", "to", "batch from", "to", "first s", "then ms", "work MiB"]
    heads += ["time n^", "batch^", "work n^", "batch^"]
    print(f"{'kernel':23}" + "".join(f"{head:>11}" for head in heads))
    for kernel, (sizes, batches) in CASES.items():
        if kernel.__name__ not in only:
            continue
        n, batch = sizes[-2], batches[-2] if batches else 1
        points = {(size, batch) for size in sizes} | {(n, count) for count in batches}
        costs = {point: measured(*kernel(*point)) for point in sorted(points)}
        by_n = [costs[size, batch] for size in sizes]
        by_batch = [costs[n, count] for count in batches]
        last = by_n[-1]
        cells = [f"{sizes[0]}", f"{sizes[-1]}", *(f"{b}" for b in (batches or "-")[:1])]
        cells += [f"{b}" for b in (batches or "-")[-1:]]
        cells += [f"{last.compile:.2f}", f"{1e3 * last.run:.3g}", f"{last.work / MIB:.3g}"]
        for cost in ("run", "work"):
            cells += [exponent(sizes, [getattr(c, cost) for c in by_n])]
            cells += [exponent(batches, [getattr(c, cost) for c in by_batch])]
        print(f"{kernel.__name__:23}" + "".join(f"{cell:>11}" for cell in cells), flush=True)
    if "processes" in only:
        by_processes()
