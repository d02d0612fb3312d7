"""Arguments on a mesh of several devices: nothing breaks, and nothing changes.

In processes of their own, which see this CPU as two devices. Everything runs on plain arguments
and then with these on meshes of explicit axes (the default of `jax.make_mesh`) and of automatic
ones, replicated or, what has samples or chains, split.
"""

import pytest
from helpers import run_alone

HEAD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import thermogen as tg
from thermogen import exact, experts, landscape, learning, meanfield, retrieval, sampling, search

explicit = jax.make_mesh((2,), ("x",))
automatic = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
J = np.triu(np.random.default_rng(0).normal(size=(6, 6)), 1) / 6**0.5
energy = tg.Pairwise(J + J.T, np.full(6, 0.1))
key, tap = jax.random.key(0), tg.TAP()
"""

TABLE = (
    HEAD
    + """
def on(mesh, x, *axes):
    return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*axes)))

rows = 2 * jax.random.bernoulli(key, 0.6, (16, 6)) - 1.0
plain = energy, jnp.asarray(2.0), jnp.full(6, 0.1), rows, key
betas = jnp.linspace(0.1, 1, 4)
few = {"n_chains": 4, "n_sweeps": 4}
masks = jnp.arange(6) < 2

QUICK = {
    "solve": lambda e, b, m, x, k: tg.solve(tap, e, b / 5, m),
    "susceptibility": lambda e, b, m, x, k: tg.susceptibility(tap, e, b, m),
    "quench": lambda e, b, m, x, k: tg.quench(tg.NaiveMeanField(), e, b, x),
    "sample": lambda e, b, m, x, k: tg.sample(tg.Gibbs(), e, b, key=k, **few),
    "annealing": lambda e, b, m, x, k: tg.annealed_importance_sampling(e, betas, key=k, n_chains=4),
    "heating": lambda e, b, m, x, k: sampling.reverse_annealed_importance_sampling(
        e, betas, x, key=k),
    "multi_histogram": lambda e, b, m, x, k: sampling.multi_histogram(
        jax.vmap(e)(x).reshape(2, 4, 2), betas - 0.1, n_spins=6),
    "log_partition": lambda e, b, m, x, k: exact.log_partition(e, b),
    "magnetizations": lambda e, b, m, x, k: exact.magnetizations(e, b),
    "gibbs_potential": lambda e, b, m, x, k: exact.gibbs_potential(e, b, m),
    "recall": lambda e, b, m, x, k: tg.recall(e, b, masks * rows[0], key=k, **few),
    "pseudolikelihood": lambda e, b, m, x, k: tg.fit(
        tg.Pseudolikelihood(), e, x, key=k, n_steps=3).energy,
    "moments": lambda e, b, m, x, k: learning.moments(x, pseudocount=1.0),
}
SLOW = {
    "tempering": lambda e, b, m, x, k: tg.sample(
        tg.ParallelTempering([0.5, 2]), e, b, key=k, **few),
    "clusters": lambda e, b, m, x, k: tg.sample(
        sampling.SwendsenWang(), tg.Pairwise(abs(e.couplings), e.fields), b, key=k, **few),
    "population": lambda e, b, m, x, k: sampling.population_annealing(e, betas, key=k, n_chains=40),
    "integration": lambda e, b, m, x, k: sampling.thermodynamic_integration(
        e, betas, key=k, burn_in=2, **few),
    "reweighting": lambda e, b, m, x, k: sampling.multi_histogram_reweighting(
        e, betas - 0.1, key=k, burn_in=2, **few),
    "search": lambda e, b, m, x, k: tg.find_minima(
        tg.NaiveMeanField(), e, b, key=k, n_starts=16)[:],
    "certify": lambda e, b, m, x, k: tg.certify(e, b, x, key=k, threshold=2, n_trajectories=32),
    "find_bound_states": lambda e, b, m, x, k: tg.find_bound_states(
        e, b, key=k, threshold=2, n_starts=8, n_trajectories=32),
    "barriers": lambda e, b, m, x, k: tg.barriers(
        tg.NaiveMeanField(), e, b,
        tg.find_minima(tg.NaiveMeanField(), e, b, key=k, n_starts=8)[:]),
    "multistart": lambda e, b, m, x, k: search.multistart(
        lambda p: jnp.sum((p["a"] ** 2 - 1) ** 2), {"a": x * 0.7}),
    "follow": lambda e, b, m, x, k: meanfield.follow_beta(tap, e, (0.1, b / 4), m),
    "likelihood": lambda e, b, m, x, k: tg.fit(
        tg.ExactLikelihood(), e, x, key=k, n_steps=3).energy,
    "mean field": lambda e, b, m, x, k: tg.fit(
        tg.MeanFieldLikelihood(tg.NaiveMeanField()), e, x, key=k, n_steps=3).energy,
    "chains": lambda e, b, m, x, k: tg.fit(
        tg.PersistentCD(), e, x, key=k, n_steps=3).energy,
    "experts": lambda e, b, m, x, k: tg.fit_experts(
        e, x, objective=tg.Pseudolikelihood(), key=k, n_experts=2, n_starts=1, n_rounds=1,
        n_steps=3),
    "first_hits": lambda e, b, m, x, k: retrieval.first_hits(e, b, masks * rows[0], x, key=k),
    "relaxation_times": lambda e, b, m, x, k: exact.relaxation_times(e, b),
}

def numbers(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree) if not jnp.issubdtype(
        getattr(x, "dtype", float), jax.dtypes.prng_key)]

for name, call in {"quick": QUICK, "slow": SLOW}[sys.argv[1]].items():
    truth = numbers(call(*plain))
    for mesh in (explicit, automatic):
        e, b, m, x, k = plain
        replicated = on(mesh, (e, b, m, x, k))
        split = *replicated[:3], on(mesh, x, "x"), replicated[4]
        for arguments in (replicated, split):
            try:
                found = numbers(call(*arguments))
            except Exception as error:
                sys.exit(f"{name} on {mesh.axis_types}: {type(error).__name__}: {error}")
            for ours, theirs in zip(found, truth, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=name)
    print(name, flush=True)

one, other = jax.devices()
moved = jax.device_put(energy, other), jax.device_put(rows, one)
assert np.all(np.isfinite(tg.quench(tg.NaiveMeanField(), *moved[:1], 2.0, moved[1]).value))
print("done")
"""
)

TRANSFORMS = (
    HEAD
    + """
start = jnp.full(6, 0.1)
betas = jnp.linspace(0.1, 0.4, 4)
slope = jax.vmap(jax.grad(lambda b: tg.solve(tap, energy, b, start).value.sum()))
truth = slope(betas)
for mesh in (explicit, automatic):
    placed = jax.device_put(betas, jax.NamedSharding(mesh, jax.P("x")))
    spec = {"mesh": mesh, "in_specs": jax.P("x"), "out_specs": jax.P("x"), "check_vma": False}
    np.testing.assert_allclose(jax.jit(jax.shard_map(slope, **spec))(placed), truth, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(slope)(placed), truth, rtol=1e-9)
np.testing.assert_allclose(jax.pmap(slope)(betas.reshape(2, 2)).ravel(), truth, rtol=1e-9)
print("gradients", flush=True)

# The magnet from its symmetric point is a saddle: an error, never the end of the process.
magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
for mesh in (explicit, automatic):
    placed = jax.device_put(magnet, jax.NamedSharding(mesh, jax.P()))
    try:
        tg.solve(tg.NaiveMeanField(), placed, 3.0, jnp.zeros(6))
    except RuntimeError as error:
        assert "not a minimum" in str(error), error
    else:
        sys.exit("no error")
print("errors", flush=True)

placed = jax.device_put(energy, jax.NamedSharding(explicit, jax.P()))
for call in (
    lambda e: tg.solve(tap, e, 0.3, start, throw=False).value,
    lambda e: tg.sample(tg.Gibbs(), e, 0.3, key=key, n_chains=4, n_sweeps=4),
    lambda e: exact.correlations(e, 0.3),
):
    np.testing.assert_allclose(jax.jit(call)(placed), call(energy), rtol=1e-12, atol=1e-12)
print("done")
"""
)


@pytest.mark.further
@pytest.mark.parametrize("which", ["quick", pytest.param("slow", marks=pytest.mark.slow)])
def test_functions_take_arguments_from_a_mesh(which):
    run_alone(TABLE, which)


@pytest.mark.further
def test_gradients_and_errors_on_a_mesh():
    run_alone(TRANSFORMS)
