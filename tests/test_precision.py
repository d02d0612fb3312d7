"""Products of float32 numbers keep float32's precision on accelerators: read off the programs.

Unless told otherwise accelerators round the factors of a product first (TF32, bfloat16), which
costs three digits of every field and free energy.
"""

import itertools

import helpers
import jax
import jax.numpy as jnp
import pytest

import thermogen as tg
from thermogen import energies, exact, learning, sampling

N = 4
HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
CASES = [(o, e) for o, (_, names) in helpers.OBJECTIVES.items() for e in names]
KERNELS = {
    "gibbs": tg.Gibbs(),
    "metropolis": tg.Metropolis(),
    "tempering": tg.ParallelTempering([0.5, 1.0]),
    "houdayer": sampling.Houdayer(),
    "swendsen-wang": sampling.SwendsenWang(),
}


def _energy(name):
    energy = helpers.ENERGIES[name](N, jax.random.key(7))
    return jax.tree.map(lambda x: x.astype(jnp.float32), energy)


def _assert_precise(function, *arguments):
    products = [
        e
        for e in helpers.equations(jax.make_jaxpr(function)(*arguments))
        if e.primitive.name == "dot_general"
        and all(jnp.issubdtype(x.aval.dtype, jnp.floating) for x in e.invars)
    ]
    assert all(e.params["precision"] == HIGHEST for e in products), [
        e.source_info for e in products if e.params["precision"] != HIGHEST
    ]


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_energies(name):
    energy, batch = _energy(name), jnp.ones((3, N), jnp.float32)
    for function in (
        lambda e, s: e(s),
        tg.flip_gaps,
        tg.local_fields,
        energies.nonlinear_variance,
        energies.nonlinear_third_moment,
        jax.grad(lambda e, s: e(s)),
        jax.hessian(lambda e, s: e(s), argnums=1),
    ):
        _assert_precise(jax.vmap(function, (None, 0)), energy, batch)
    _assert_precise(lambda e: exact.log_partition(e, 1.0), energy)


@pytest.mark.parametrize("pair", helpers.PAIRS, ids="-".join)
def test_functionals(pair):
    energy, functional = _energy(pair[0]), helpers.FUNCTIONALS[pair[1]]
    batch = jnp.full((3, N), 0.5, jnp.float32)

    def free_energy(e, m):
        return functional(e, 1.0, m)

    for function in (free_energy, jax.grad(free_energy), jax.grad(free_energy, argnums=1)):
        _assert_precise(jax.vmap(function, (None, 0)), energy, batch)


# Clusters grow along bonds: SwendsenWang takes no sets of three and more spins.
SAMPLED = list(itertools.product(KERNELS, ("pairwise", "interactions", "rbm")))
SAMPLED.remove(("swendsen-wang", "interactions"))


@pytest.mark.parametrize("sampler, name", SAMPLED)
def test_samplers(sampler, name):
    def draw(energy, key):
        return tg.sample(KERNELS[sampler], energy, 1.0, key=key, n_chains=2, n_sweeps=2)

    _assert_precise(draw, _energy(name), jax.random.key(0))


@pytest.mark.parametrize("objective, name", CASES)
def test_objectives(objective, name):
    objective, _ = helpers.OBJECTIVES[objective]
    spins = jnp.asarray(helpers.configurations(energies.n_visible(_energy(name))))
    weights = jnp.full(len(spins), 1 / len(spins), jnp.float32)
    samples = learning.Samples(spins.astype(jnp.float32), weights)

    def gradient(energy, key):
        state = objective.init(energy, samples, key)
        return jax.grad(objective.loss, has_aux=True)(energy, samples, state, key)

    _assert_precise(gradient, _energy(name), jax.random.key(0))
