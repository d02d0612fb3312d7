"""Derivatives of sampled quantities: exact where the draws are all configurations."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import exact, sampling

N, BETA, KEY = 5, 0.8, jax.random.key(0)
ENERGY = helpers.random_pairwise(N, KEY)
ALL = jnp.asarray(helpers.configurations(N), float)
BETAS = jnp.linspace(0.1, 1, 10) * BETA


def _weights(energy=ENERGY):
    return jax.lax.stop_gradient(-BETA * jax.vmap(energy)(ALL))


@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_over_all_configurations_means_have_the_exact_derivatives(name):
    energy = helpers.ENERGIES[name](N, KEY)
    spins = jnp.asarray(helpers.configurations(energy.n_spins), float)
    log_weights = -BETA * jax.vmap(energy)(spins)

    def sampled(energy, beta):
        mean = sampling.expectation(lambda s: s, energy, beta, spins, log_weights=log_weights)
        return mean.value

    def true(energy, beta):
        return exact.magnetizations(energy, beta)

    np.testing.assert_allclose(sampled(energy, BETA), true(energy, BETA), atol=1e-12)
    for derivative in (jax.jacfwd, jax.jacrev):
        ours, theirs = (derivative(f, argnums=(0, 1))(energy, BETA) for f in (sampled, true))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)
    second = jax.jacfwd(jax.jacrev(sampled, argnums=1), argnums=1)(energy, BETA)
    truth = jax.jacfwd(jax.jacrev(true, argnums=1), argnums=1)(energy, BETA)
    np.testing.assert_allclose(second, truth, atol=1e-9)


ESTIMATORS = {
    "cooled": lambda e, betas: tg.annealed_importance_sampling(e, betas, key=KEY, n_chains=4000),
    "heated": lambda e, betas: sampling.reverse_annealed_importance_sampling(
        e, betas, ALL[jax.random.categorical(KEY, _weights(), shape=(4000,))], key=KEY
    ),
    "populations": lambda e, betas: sampling.population_annealing(
        e, betas, key=KEY, n_chains=200, n_populations=20
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_ln_z_has_the_derivatives_of_its_draws(name):
    """Within five standard errors of as many draws as count; sums of spins are at most n."""

    def sampled(energy, scale):
        return ESTIMATORS[name](energy, scale * BETAS).log_partition

    def true(energy, scale):
        return exact.log_partition(energy, scale * BETA)

    ess = float(ESTIMATORS[name](ENERGY, BETAS).ess)
    spread = np.sqrt(exact.heat_capacity(ENERGY, BETA)) / np.sqrt(ess)
    ours, theirs = (jax.grad(f, argnums=(0, 1))(ENERGY, 1.0) for f in (sampled, true))
    assert abs(ours[1] - theirs[1]) < 5 * spread
    for a, b in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=5 * BETA / np.sqrt(ess))
    twice, truth = (jax.jacfwd(jax.jacrev(f))(ENERGY, 1.0).fields.fields for f in (sampled, true))
    np.testing.assert_allclose(twice, truth, atol=5 * BETA**2 / np.sqrt(ess))
    assert np.any(np.abs(truth - np.diag(np.diag(truth))) > 10 * BETA**2 / np.sqrt(ess))
    value = sampled(ENERGY, 1.0)
    np.testing.assert_allclose(jax.jit(sampled)(ENERGY, 1.0), value, rtol=1e-12)


def test_the_gradient_of_ln_z_comes_with_its_error():
    """Of 20 gradients of 15 numbers each, 95 % of the intervals hold."""

    def gradient(s):
        return jax.grad(lambda e: -BETA * e(s))(ENERGY)

    truth = jax.grad(lambda e: exact.log_partition(e, BETA))(ENERGY)
    held = []
    for seed in range(20):
        found = sampling.population_annealing(
            ENERGY, BETAS, key=jax.random.key(seed), n_chains=50, n_populations=40
        )
        weights = jnp.log(found.weights)
        mean = sampling.expectation(gradient, ENERGY, BETA, found.spins, log_weights=weights)
        for value, error, exactly in zip(*map(jax.tree.leaves, (*mean, truth)), strict=True):
            used = np.asarray(exactly) != 0
            held.append((np.abs(value - exactly) < 1.96 * error)[used])
    share = np.mean(np.concatenate(held))
    # Numbers of one run are correlated: as few as its spins count.
    assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / (20 * N))


def test_errors_of_equal_weights_are_those_of_the_mean_over_chains():
    spins = ALL[jax.random.categorical(KEY, _weights(), shape=(30, 7))]
    found = sampling.expectation(lambda s: {"m": s}, ENERGY, BETA, spins)
    of_chains = np.mean(np.asarray(spins), axis=1)
    np.testing.assert_allclose(found.value["m"], of_chains.mean(axis=0), atol=1e-12)
    errors = of_chains.std(axis=0, ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(found.standard_error["m"], errors, rtol=1e-9)
    alone = sampling.expectation(jnp.sum, ENERGY, BETA, spins[:1])
    assert np.isposinf(alone.standard_error)


def test_bad_draws_are_named(unchecked):
    with pytest.raises(ValueError, match=r"spins must have shape \(chains, 5\)"):
        sampling.expectation(jnp.sum, ENERGY, BETA, ALL[:, :4])
    with pytest.raises(ValueError, match=r"log_weights must have shape \(32,\), got \(3,\)"):
        sampling.expectation(jnp.sum, ENERGY, BETA, ALL, log_weights=np.zeros(3))
