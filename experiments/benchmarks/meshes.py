"""The same work over 1, 2 and 8 devices: do results agree, and what does a device hold and send?

Without accelerators the processor is eight devices, which share its cores: seconds then tell what
spreading costs, not what it gains. "differs" is the largest difference of any number of the result
from that without a mesh, over the largest of its array. Of the compiled step of the job: "held" are
MiB of one device (arguments, results and work), "sent" the bytes that one device gets from others
by each collective operation of one step, counted once each; "in loops" those of them that are
repeated within a step. A search is in single precision: of it energies and hits are compared.

    python -m experiments benchmarks.meshes [--only JOB ...]
"""

import re
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import thermogen as tg
from thermogen import kinetics, learning, sampling
from thermogen.runs import Spread
from thermogen.search import Ends, Search, corner

MIB = 2**20
N = 64


def glass() -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(0).normal(size=(N, N)), 1)
    return tg.Pairwise((upper + upper.T) / np.sqrt(N), jnp.full(N, 0.1))


def corners(count: int) -> np.ndarray:
    return np.random.default_rng(1).choice([-1.0, 1.0], (count, N))


def counts(*numbers: int) -> list[jax.Array]:
    return [jnp.asarray(number, jnp.int32) for number in numbers]


def search(spread):
    problem = tg.meanfield.Problem(tg.NaiveMeanField(), glass(), jnp.asarray(1.5))
    return Search.of(problem, np.zeros((0, N), np.float32), 2304, 256, None, (corner,))


def trajectories(spread):
    starts = jnp.asarray(corners(8)[:, None].repeat(128, 1), jnp.int8)
    cores = jnp.asarray(corners(64), jnp.int8)
    sizes = counts(N, 8)
    tie = jnp.asarray(1e-6)
    return kinetics.Trajectories(
        sampling.HeatBath(), glass(), jnp.asarray(1.5), cores, starts, sizes[0], tie, sizes[1], 8
    )


def _chains(sampler, count, spread):
    start = jnp.asarray(corners(count)) if spread is None else spread.split(corners(count))
    return sampling.Sampling(
        sampler, glass(), jnp.asarray(1.5), sampling.Trace(), start, None, *counts(0, 8), 8
    )


def chains(spread):
    return _chains(tg.Gibbs(), 1024, spread)


def tempering(spread):
    return _chains(tg.ParallelTempering(jnp.linspace(0.2, 1.0, 8)), 128, spread)


def annealing(spread):
    start = jnp.asarray(corners(1024)) if spread is None else spread.split(corners(1024))
    path = jnp.linspace(0, 1.5, 17)
    return sampling.AnnealedImportance(glass(), path, start, tg.Gibbs(), None, 1)


def population(spread):
    return sampling.PopulationAnnealing(glass(), jnp.linspace(0, 1.5, 17), tg.Gibbs(), None, 128, 8)


def _fit(objective, spread):
    data, shares = corners(8192), np.full(8192, 1 / 8192)
    arrays = (data, shares) if spread is None else (spread.split(data), spread.split(shares))
    samples = learning.Samples(*map(jnp.asarray, arrays), jnp.asarray(8192.0))
    return learning.Fit(objective, glass(), samples, n_steps=20)


def pseudolikelihood(spread):
    return _fit(tg.Pseudolikelihood(), spread)


def persistent_cd(spread):
    return _fit(tg.PersistentCD(n_chains=256), spread)


JOBS = {
    f.__name__: f
    for f in (
        search,
        trajectories,
        chains,
        tempering,
        annealing,
        population,
        pseudolikelihood,
        persistent_cd,
    )
}

# Bytes of the entries of an array of a compiled program.
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def held_and_sent(job, spread: Spread) -> tuple[float, int, int]:
    """MiB that one device holds in a step, and bytes that it gets: in all, and within loops."""
    with spread.in_force:
        state = eqx.filter_jit(lambda job, key: job.init(key))(
            job, jax.device_put(jax.random.key(0), spread.everywhere)
        )
    state = spread.held(state, job.lanes(state))
    arrays, rest = eqx.partition((job, state), eqx.is_array)
    # All that is not split is on all devices, as in a run.
    arrays = jax.tree.map(
        lambda x: x if len(x.sharding.device_set) > 1 else jax.device_put(x, spread.everywhere),
        arrays,
    )

    @jax.jit
    def step(arrays):
        job, state = eqx.combine(arrays, rest)
        with spread.in_force:
            moved = job.step(state)
            return spread.constrained(moved, job.lanes(moved))

    program = step.lower(arrays).compile()
    held = program.memory_analysis()
    sizes = held.argument_size_in_bytes, held.output_size_in_bytes, held.temp_size_in_bytes
    return sum(sizes) / MIB, *collected(program.as_text())


def collected(text: str) -> tuple[int, int]:
    """Bytes of the results of collective operations, and of those within loops."""
    kinds = r" (?:all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
    total = inside = 0
    for line in text.splitlines():
        if not (re.search(kinds, line) and "=" in line):
            continue
        shapes = re.split(kinds, line)[0]
        size = sum(
            _BYTES.get(kind, 4) * int(np.prod([int(d) for d in dims.split(",") if d]))
            for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        )
        name = re.search(r'op_name="([^"]*)"', line)
        total += size
        inside += size if name and "while/body" in name[1] else 0
    return total, inside


def lowest_first(found):
    """What the search holds, whatever the order in which descents came to rest."""
    if not isinstance(found, Ends):
        return found
    order = np.argsort(found.free_energies)
    return np.asarray(found.free_energies)[order], np.asarray(found.hits)[order]


def difference(ours, theirs) -> float:
    trees = map(jax.tree.leaves, map(lowest_first, (ours, theirs)))
    arrays = (
        (np.asarray(a, float), np.asarray(b, float))
        for a, b in zip(*trees, strict=True)
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key) and a.size
    )
    return max(_difference(a, b) for a, b in arrays)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of finite numbers, relative to the largest; what is infinite must be so in both."""
    known = np.isfinite(b)
    if np.any(known != np.isfinite(a)):
        return np.inf
    largest = np.max(np.abs(b), where=known, initial=0)
    return np.max(np.abs(np.where(known, a - b, 0)), initial=0) / (largest or 1)


def main(only: tuple[str, ...] = tuple(JOBS)) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    devices = np.asarray(jax.devices())
    heads = ["devices", "first s", "then s", "differs", "held MiB", "sent", "in loops"]
    print(f"{'job':18}" + "".join(f"{head:>10}" for head in heads))
    for name in only:
        truth = None
        for count in (None, 1, 2, 8):
            if count is not None and count > devices.size:
                continue
            spread = None if count is None else Spread.of(Mesh(devices[:count], ("lanes",)))
            job, times = JOBS[name](spread), []
            for _ in range(3):
                began = time.perf_counter()
                found = jax.block_until_ready(tg.run(job, key=jax.random.key(0), sharding=spread))
                times.append(time.perf_counter() - began)
            row = f"{name:18}{count or 'none':>10}{times[0]:10.2f}{min(times[1:]):10.3f}"
            if truth is None:
                truth = found
            else:
                held, sent, inside = held_and_sent(job, spread)
                row += f"{difference(found, truth):10.0e}{held:10.2f}{sent:10d}{inside:10d}"
            print(row, flush=True)
