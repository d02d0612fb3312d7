"""Lanes over 1, 2 and 8 devices: the same key, the same result, and really split.

In processes of their own, which see this CPU as eight devices. Results of meshes may differ from
those of one device by the order of sums.
"""

import os
import pathlib
import subprocess
import sys

import pytest

HEAD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", sys.argv[1] == "float64")
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import helpers
import test_runs
import thermogen as tg
from thermogen import kinetics, learning, sampling

TOLERANCE = 1e-9 if jax.config.jax_enable_x64 else 1e-3
devices = np.asarray(jax.devices())
eight = Mesh(devices, ("lanes",))
explicit = Mesh(devices, ("lanes",), axis_types=(AxisType.Explicit,))
square = Mesh(devices.reshape(2, 4), ("a", "b"))
SHARDINGS = {
    "2": Mesh(devices[:2], ("lanes",)),
    "8": eight,
    "1": Mesh(devices[:1], ("lanes",)),
    "explicit": explicit,
    "both axes": square,
    "second axis": NamedSharding(square, PartitionSpec("b")),
}
n = 6
J = np.triu(np.random.default_rng(0).normal(size=(n, n)), 1) / n**0.5
energy = tg.Pairwise(jnp.asarray(J + J.T), jnp.full(n, 0.1))
beta, key = jnp.asarray(2.0), jax.random.key(0)
rows = 2.0 * jax.random.bernoulli(key, 0.6, (16, n)) - 1
betas = jnp.linspace(0.1, 1, 4)

def numbers(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree) if not jnp.issubdtype(
        getattr(x, "dtype", float), jax.dtypes.prng_key)]

def check(name, found, truth):
    for ours, theirs in zip(numbers(found), numbers(truth), strict=True):
        # The search itself is in single precision, whatever the energy.
        tolerance = max(TOLERANCE, 1e-5) if ours.dtype == np.float32 else TOLERANCE
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance, err_msg=name)
"""

EQUAL = (
    HEAD
    + """
few = {"n_chains": 16, "n_sweeps": 4}
ring = tg.Interactions(n, [[(k, (k + 1) % n) for k in range(n)]], [jnp.ones(n)])
ferromagnet = tg.Pairwise(abs(energy.couplings), energy.fields)
CALLS = {
    "find_minima": lambda e, b, x, k, s: tg.find_minima(
        tg.NaiveMeanField(), e, b, key=k, n_starts=160, sharding=s)[:],
    "certify": lambda e, b, x, k, s: tg.certify(
        e, b, x, key=k, threshold=2, n_trajectories=32, sharding=s),
    "certify gibbs": lambda e, b, x, k, s: tg.certify(
        e, b, x, key=k, threshold=10, n_trajectories=32, dynamics=tg.Gibbs(), sharding=s),
    "find_bound_states": lambda e, b, x, k, s: tg.find_bound_states(
        e, b, key=k, threshold=2, n_starts=8, n_trajectories=32, sharding=s),
    "sample": lambda e, b, x, k, s: tg.sample(tg.Gibbs(), e, b, key=k, sharding=s, **few),
    "bits": lambda e, b, x, k, s: tg.sample(tg.Gibbs(), ring, b, key=k, sharding=s, **few),
    "tempering": lambda e, b, x, k, s: tg.sample(
        tg.ParallelTempering([0.5, 1, 2]), e, b, key=k, init=x, sharding=s, **few),
    "clusters": lambda e, b, x, k, s: tg.sample(
        sampling.SwendsenWang(), ferromagnet, b, key=k, sharding=s, **few),
    "observers": lambda e, b, x, k, s: tg.sample(
        tg.Gibbs(), e, b, key=k, sharding=s, observers=sampling.Mean(), **few),
    "annealing": lambda e, b, x, k, s: tg.annealed_importance_sampling(
        e, betas, key=k, n_chains=16, clamp=jnp.zeros(n).at[0].set(1), sharding=s),
    "heating": lambda e, b, x, k, s: sampling.reverse_annealed_importance_sampling(
        e, betas, x, key=k, sharding=s),
    "population": lambda e, b, x, k, s: sampling.population_annealing(
        e, betas, key=k, n_chains=20, n_populations=8, sharding=s),
    "integration": lambda e, b, x, k, s: sampling.thermodynamic_integration(
        e, betas, key=k, burn_in=2, sharding=s, **few),
    "reweighting": lambda e, b, x, k, s: sampling.multi_histogram_reweighting(
        e, betas - 0.1, key=k, burn_in=2, sharding=s, **few),
    "pseudolikelihood": lambda e, b, x, k, s: tg.fit(
        tg.Pseudolikelihood(), e, x, key=k, n_steps=5, sharding=s).energy,
    "thirteen samples": lambda e, b, x, k, s: tg.fit(
        tg.Pseudolikelihood(), e, rows[:13], key=k, n_steps=5, sharding=s).energy,
    "chains": lambda e, b, x, k, s: tg.fit(
        tg.PersistentCD(16), e, x, key=k, n_steps=3, batch_size=8, sharding=s).energy,
    "contrastive": lambda e, b, x, k, s: tg.fit(
        learning.ContrastiveDivergence(), e, x, key=k, n_steps=3, sharding=s).energy,
}
for name in sys.argv[2:]:
    truth = CALLS[name](energy, beta, rows, key, None)
    for where, sharding in SHARDINGS.items():
        check(f"{name} on {where}", CALLS[name](energy, beta, rows, key, sharding), truth)
    for mesh in (eight, explicit):
        e, b, x, k = jax.device_put(
            (energy, beta, rows, key), NamedSharding(mesh, PartitionSpec()))
        check(f"{name}, replicated", CALLS[name](e, b, x, k, mesh), truth)
        split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("lanes")))
        check(f"{name}, split", CALLS[name](e, b, split, k, mesh), truth)
    print(name, flush=True)
print("done")
"""
)

JOBS = (
    HEAD
    + """
# Lanes that divide, and as they are in the registry.
for chains in (16, 3):
    test_runs.SPINS = jnp.tile(test_runs.SPINS, (6, 1))[:chains]
    test_runs.CHAINS = chains
    for name in test_runs.JOBS:
        job = test_runs.JOBS[name](test_runs._energy(), jnp.asarray(1.0))
        truth = tg.run(job, key=key)
        for where in ("2", "8", "second axis"):
            found = tg.run(job, key=key, sharding=SHARDINGS[where], callback=lambda _: None)
            check(f"{name} on {where}", found, truth)
        print(name, chains, flush=True)

class Walkers(tg.AbstractJob):
    start: jax.Array
    axes: bool

    def init(self, key):
        return self.start, key, jnp.asarray(0)

    def step(self, state):
        place, key, count = state
        key, own = jax.random.split(key)
        return place + jax.random.normal(own, place.shape, place.dtype), key, count + 1

    def done(self, state):
        return state[2] >= 5

    def result(self, state):
        return state[0], jnp.mean(state[0])

    def lanes(self, state):
        return (0, None, None) if self.axes else None

for axes in (True, False):
    job = Walkers(jnp.zeros(24), axes)
    truth = tg.run(job, key=key)
    for where, sharding in SHARDINGS.items():
        seen = []
        found = tg.run(job, key=key, sharding=sharding, callback=seen.append)
        check(f"walkers on {where}", found, truth)
        parts = {"1": 1, "2": 2, "second axis": 4}.get(where, 8)
        assert not axes or all(
            state[0].addressable_shards[0].data.shape == (24 // parts,) for state in seen), where
try:
    tg.sample(tg.Gibbs(), energy, beta, key=key, n_chains=12, n_sweeps=2, sharding=eight)
except ValueError as error:
    assert "n_chains must be a multiple of 8" in str(error), error
else:
    sys.exit("chains that do not divide were taken")
print("done")
"""
)

SPLIT = (
    HEAD
    + """
import logging
import equinox as eqx
from thermogen.runs import Spread
from thermogen.runs._run import _advance, _init

n = 32
J = np.triu(np.random.default_rng(0).normal(size=(n, n)), 1) / n**0.5
energy = tg.Pairwise(jnp.asarray(J + J.T), jnp.full(n, 0.1))
rows = jnp.asarray(2.0 * jax.random.bernoulli(key, 0.6, (64, n)) - 1, float)
problem = tg.meanfield.Problem(tg.NaiveMeanField(), energy, beta)
starts = jnp.ones((4, 64, n), jnp.int8)
count = jnp.array(3)
JOBS = {
    "sampling": sampling.Sampling(
        tg.Gibbs(), energy, beta, sampling.Trace(), rows, None, count, count, 5),
    "tempering": sampling.Sampling(
        tg.ParallelTempering([0.5, 1.0]), energy, beta, sampling.Trace(), rows, None, count, count,
        5),
    "annealing": sampling.AnnealedImportance(energy, betas, rows, tg.Gibbs(), None, 1),
    "population": sampling.PopulationAnnealing(energy, betas, tg.Gibbs(), None, 16, 8),
    "integration": sampling.Integration(energy, betas, rows, tg.Gibbs(), None, count, count),
    "trajectories": kinetics.Trajectories(
        sampling.HeatBath(), energy, beta, rows[:8].astype(jnp.int8), starts, count,
        jnp.asarray(0.0), count, 4),
    "gibbs": kinetics.Trajectories(
        tg.Gibbs(), energy, beta, rows[:8].astype(jnp.int8), starts, count,
        jnp.asarray(0.0), count, 4),
    "search": tg.search.Search.of(
        problem, np.asarray(rows, np.float32), 600, 64, None, (tg.search.corner,)),
}
# Loops within a step, in which devices of the search gather what has ended but once a step.
DEPTH = {"search": 2}
COLLECTIVES = "all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"

compiled = []
handler = logging.Handler()
handler.emit = lambda record: compiled.append(record.getMessage())
logging.getLogger("jax").addHandler(handler)
spread = Spread.of(eight)
for name, job in JOBS.items():
    seen = []
    def look(state):
        places = [(x.sharding, x.addressable_shards[0].data.shape) for x in jax.tree.leaves(state)]
        axes = jax.tree.leaves(
            jax.tree.map(lambda axis, part: jax.tree.map(lambda _: axis is not None, part),
                         job.lanes(state), state, is_leaf=lambda x: x is None))
        for x, (_, shard), has_lanes in zip(jax.tree.leaves(state), places, axes, strict=True):
            assert not has_lanes or 8 * np.prod(shard) == x.size, (name, x.shape, shard)
        seen.append((places, sum("Compiling" in message for message in compiled)))
    with jax.log_compiles():
        tg.run(job, key=key, sharding=eight, callback=look)
    assert len(seen) > 2, name
    for places, _ in seen:
        assert places == seen[0][0], (name, places, seen[0][0])
    assert seen[-1][1] == seen[0][1], (name, compiled[seen[0][1]:])

    state = _init(job, jax.device_put(key, spread.everywhere), spread)
    state = spread.held(state, job.lanes(state))
    shardings = tuple(x.sharding for x in jax.tree.leaves(state))
    limit = jnp.asarray(10, jnp.int32)
    program = _advance.lower(job, state, limit, shardings, spread).compile()
    program = program.compiled.as_text()
    for line in program.splitlines():
        if any(f" {kind}{start}(" in line for kind in COLLECTIVES for start in ("", "-start")):
            where = line.partition('op_name="')[2].partition('"')[0]
            assert where.count("while/body") < DEPTH.get(name, 1), (name, line[:200])
    print(name, flush=True)

# Instances over devices, by the caller's jit and vmap.
energies = helpers.stacked([helpers.random_pairwise(6, jax.random.key(k)) for k in range(8)])
keys = jax.random.split(key, 8)
INSTANCES = {
    "sample": lambda e, k: tg.sample(tg.Gibbs(), e, beta, key=k, n_chains=4, n_sweeps=5),
    "annealing": lambda e, k: tg.annealed_importance_sampling(e, betas, key=k, n_chains=8),
    "search": lambda e, k: tg.run(tg.search.Search.of(
        tg.meanfield.Problem(tg.NaiveMeanField(), e, beta), jnp.ones((1, 6)), 20, 8, None,
        (tg.search.corner,)), key=k),
    "solve": lambda e, k: tg.solve(tg.TAP(), e, 0.3, jnp.full(6, 0.1), throw=False).value,
    "fit": lambda e, k: tg.fit(
        tg.Pseudolikelihood(), e, rows[:, :6], key=k, n_steps=3).energy,
}
for name, call in INSTANCES.items():
    mapped = jax.jit(jax.vmap(call))
    truth = mapped(energies, keys)
    over = NamedSharding(eight, PartitionSpec("lanes"))
    found = mapped(*jax.device_put((energies, keys), over))
    check(name, found, truth)
    parts = [x.addressable_shards[0].data.shape[0] for x in jax.tree.leaves(found)]
    assert 1 in parts, (name, parts)
    program = mapped.lower(*jax.device_put((energies, keys), over)).compile().as_text()
    gathers = [line for line in program.splitlines() if " all-gather(" in line]
    assert not any("while/body" in line for line in gathers), (name, gathers)
    print(name, parts, flush=True)
print("done")
"""
)


def _run(script: str, *arguments: str) -> None:
    tests = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tests.parent,
        env=os.environ
        | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr[-3000:]


def _slow(*names: str):
    return pytest.param(names, marks=pytest.mark.slow, id=names[0])


@pytest.mark.further
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("sample", "annealing", "thirteen samples"), id="sample"),
        _slow("find_minima", "certify", "certify gibbs"),
        _slow("find_bound_states"),
        _slow("bits", "tempering", "clusters", "observers"),
        _slow("heating", "population", "integration", "reweighting"),
        _slow("chains", "contrastive", "pseudolikelihood"),
    ],
)
def test_results_do_not_depend_on_the_number_of_devices(names):
    _run(EQUAL, "float64", *names)


@pytest.mark.slow
def test_results_in_single_precision():
    _run(EQUAL, "float32", "sample", "annealing", "pseudolikelihood", "tempering")


@pytest.mark.slow
def test_every_job_is_spread():
    _run(JOBS, "float64")


@pytest.mark.slow
def test_lanes_stay_split_and_loops_send_nothing():
    _run(SPLIT, "float64")
