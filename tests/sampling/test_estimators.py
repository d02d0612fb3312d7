"""Estimators of ln Z, `<E>` and the heat capacity: their error bars against enumeration."""

import functools
import logging

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import binom, norm
from scipy.stats import t as student

import thermogen as tg
from thermogen import sampling
from thermogen.sampling._integration import _integral as _integral_of
from thermogen.sampling._integration import _quadrature_error
from thermogen.sampling._population import systematic_draws
from thermogen.sampling._reweighting import _slopes
from thermogen.sampling._trust import DRIFT_ALARM, drifting

N_SPINS, N_MODELS = 8, 200
RUNGS = (0.0, 0.25, 0.5, 0.75, 1.0)
INNER = (0.1, 0.6, 0.95)  # between rungs
# Odds of a false alarm of all comparisons of one test together.
ALARM = 1e-6


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _sk(key):
    j_key, h_key = jax.random.split(key)
    n = N_SPINS
    upper = jnp.triu(jax.random.normal(j_key, (n, n)), 1) / jnp.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.3 * jax.random.normal(h_key, (n,)))


@functools.cache
def _models():
    """Random models, and the energies of all configurations of each, shape `(models, 2**n)`."""
    energies = jax.vmap(_sk)(jax.random.split(_key(7), N_MODELS))
    spins = jnp.asarray(helpers.configurations(N_SPINS))
    return energies, np.asarray(jax.vmap(lambda e: jax.vmap(e)(spins))(energies))


def _exact(tables, betas):
    """ln Z, `<E>` and `beta^2 (<E^2> - <E>^2)` of tables of energies, each `(..., betas)`."""
    tables, betas = np.asarray(tables)[..., None, :], np.asarray(betas)
    logits = -betas[:, None] * tables
    log_z = logsumexp(logits, axis=-1)
    p = np.exp(logits - log_z[..., None])
    mean = np.sum(p * tables, axis=-1)
    variance = np.sum(p * (tables - mean[..., None]) ** 2, axis=-1)
    return {"ln Z": log_z, "mean energy": mean, "heat capacity": betas**2 * variance}


# Each estimates quantities at inverse temperatures: (name, betas) -> values and standard errors.


def _annealing(kernel, energy, key):
    betas = jnp.linspace(0, 1, 31)
    found = tg.annealed_importance_sampling(energy, betas, key=key, n_chains=200, kernel=kernel)
    return {("ln Z", (1.0,)): _as_measurement(found)}


def _reverse_annealing(kernel, energy, key):
    spins = tg.enumerate_spins(N_SPINS)
    index = jax.random.categorical(key, -jax.vmap(energy)(spins), shape=(200,))
    found = sampling.reverse_annealed_importance_sampling(
        energy,
        jnp.linspace(0, 1, 31),
        spins[index],
        key=jax.random.fold_in(key, 1),
        kernel=kernel,
    )
    return {("ln Z", (1.0,)): _as_measurement(found)}


def _population(kernel, energy, key):
    found = sampling.population_annealing(energy, RUNGS, key=key, n_chains=30, kernel=kernel)
    return {("ln Z", (1.0,)): _as_measurement(found)}


def _integral(kernel, energy, key):
    found = sampling.thermodynamic_integration(
        energy, RUNGS, key=key, n_chains=20, n_sweeps=20, burn_in=20, kernel=kernel
    )
    return {
        ("ln Z", (1.0,)): _as_measurement(found),
        ("mean energy", RUNGS): found.mean_energies,
        ("heat capacity", RUNGS[1:]): _from_second(found.heat_capacities),
    }


def _reweighting(kernel, energy, key):
    found = sampling.multi_histogram_reweighting(
        energy, RUNGS, key=key, n_chains=20, n_sweeps=40, burn_in=20, kernel=kernel
    )
    inner = jnp.asarray(INNER)
    rungs = sampling.Measurement(found.log_partitions, found.standard_errors)
    return {
        ("ln Z", RUNGS[1:]): _from_second(rungs),
        ("ln Z", INNER): sampling.Measurement(*jax.vmap(found.log_partition)(inner)[:2]),
        ("mean energy", INNER): jax.vmap(found.mean_energy)(inner),
        ("heat capacity", INNER): jax.vmap(found.heat_capacity)(inner),
    }


# And the degrees of freedom of its error bars: independent chains, or populations, less one.
ESTIMATORS = {
    "annealing": (_annealing, 199),
    "reverse annealing": (_reverse_annealing, 199),
    "population annealing": (_population, 19),
    "integration": (_integral, 19),
    "reweighting": (_reweighting, 19),
}


def _as_measurement(found):
    values = found.log_partition, found.standard_error
    return sampling.Measurement(*(jnp.reshape(x, (1,)) for x in values))


def _from_second(measured):
    return sampling.Measurement(*(x[1:] for x in measured))


@pytest.mark.further
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    "kernel",
    [
        tg.Gibbs(),
        pytest.param(tg.Metropolis(), marks=pytest.mark.slow),
        pytest.param(sampling.SwendsenWang(), marks=pytest.mark.slow),
    ],
)
def test_intervals_cover(kernel, name):
    """95 % intervals (Student) hold the exact values of 90-99 % of 200 random models."""
    energies, tables = _models()
    estimate, freedom = ESTIMATORS[name]
    run = jax.jit(jax.vmap(functools.partial(estimate, kernel)))
    found = run(energies, jax.random.split(_key(8), N_MODELS))
    quantile = student.ppf(0.975, freedom)
    for (quantity, betas), (values, errors) in found.items():
        distance = np.abs(values - _exact(tables, betas)[quantity]) / errors
        coverage = np.mean(distance < quantile, axis=0)
        assert np.all((coverage >= 0.90) & (coverage <= 0.99)), (quantity, coverage)


@pytest.mark.further
@pytest.mark.parametrize("name", ESTIMATORS)
def test_clamped_spins_leave_the_sum_over_the_others(name):
    """Three of eight spins held: the error bars hold the conditional ln Z of most models."""
    energies, tables = _models()
    few = jax.tree.map(lambda x: x[:50], energies)
    clamp = np.zeros(N_SPINS)
    clamp[[0, 3, 7]] = 1, -1, 1
    kept = np.all((clamp == 0) | (helpers.configurations(N_SPINS) == clamp), axis=1)
    assert kept.sum() == 32
    estimate, freedom = CLAMPED[name]
    run = jax.jit(jax.vmap(functools.partial(estimate, jnp.asarray(clamp))))
    values, errors = run(few, jax.random.split(_key(11), 50))
    distance = np.abs(values - _exact(tables[:50, kept], [1.0])["ln Z"][:, 0]) / errors
    held = np.sum(distance < student.ppf(0.975, freedom))
    assert binom.cdf(held, 50, 0.95) > 1e-3  # 42 of 50 at least
    assert np.all(errors < 0.2)


def _reverse_annealing_of_clamped(clamp, energy, key):
    spins = tg.enumerate_spins(N_SPINS)
    kept = jnp.all((clamp[None] == 0) | (spins == clamp[None]), axis=1)
    logits = jnp.where(kept, -jax.vmap(energy)(spins), -jnp.inf)
    index = jax.random.categorical(key, logits, shape=(200,))
    return sampling.reverse_annealed_importance_sampling(
        energy, jnp.linspace(0, 1, 31), spins[index], key=jax.random.fold_in(key, 1), clamp=clamp
    )[:2]


CLAMPED = {
    "annealing": (
        lambda clamp, energy, key: tg.annealed_importance_sampling(
            energy, jnp.linspace(0, 1, 31), key=key, n_chains=200, clamp=clamp
        )[:2],
        199,
    ),
    "reverse annealing": (_reverse_annealing_of_clamped, 199),
    "population annealing": (
        lambda clamp, energy, key: sampling.population_annealing(
            energy, RUNGS, key=key, n_chains=30, clamp=clamp
        )[:2],
        19,
    ),
    "integration": (
        lambda clamp, energy, key: sampling.thermodynamic_integration(
            energy, RUNGS, key=key, n_chains=20, n_sweeps=20, burn_in=20, clamp=clamp
        )[:2],
        19,
    ),
    "reweighting": (
        lambda clamp, energy, key: sampling.multi_histogram_reweighting(
            energy, RUNGS, key=key, n_chains=20, n_sweeps=40, burn_in=20, clamp=clamp
        ).log_partition(1.0)[:2],
        19,
    ),
}


@pytest.mark.parametrize(
    ("clamp", "message"),
    [
        (np.ones(3), r"clamp must have shape \(4,\), one entry a spin, got \(3,\)"),
        (np.full(4, 0.5), "clamp must hold -1 or \\+1 where a spin is known"),
    ],
)
def test_bad_clamps_are_refused(clamp, message):
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(ValueError, match=message):
        tg.annealed_importance_sampling(energy, [1.0], key=_key(0), n_chains=2, clamp=clamp)


@pytest.mark.further
@pytest.mark.parametrize("kernel", [tg.Gibbs(), tg.Metropolis(), sampling.SwendsenWang()])
def test_populations_are_drawn_from_boltzmann(kernel):
    """Weighted means of spins and energies, although two rungs are too few to relax."""
    n_populations, betas = 400, (0.6, 1.5)
    energy = helpers.random_pairwise(5, _key(5))
    found = sampling.population_annealing(
        energy, betas, key=_key(1), n_chains=20, n_populations=n_populations, kernel=kernel
    )
    p, log_z = helpers.boltzmann(energy, betas[-1])
    exact = np.append(p @ helpers.configurations(5), p @ helpers.energy_table(energy))

    spins = np.asarray(found.spins)
    assert spins.shape == (n_populations, 20, 5)
    assert abs(found.weights.sum() - 1) < 1e-12
    energies = helpers.energy_table(energy)[_indices(spins)]
    means = np.concatenate([spins, energies[..., None]], axis=2).mean(axis=1)
    weights = np.asarray(found.weights)[:, None]
    estimate = np.sum(weights * means, axis=0)
    # Of a ratio of means, by the delta method.
    errors = np.sqrt(np.sum((weights * (means - estimate)) ** 2, axis=0))
    bound = student.isf(ALARM / 14, n_populations - 1)
    assert np.all(np.abs(estimate - exact) < bound * errors)
    assert abs(found.log_partition - log_z) < bound * found.standard_error
    assert np.all(errors < 0.05)


def _indices(spins) -> np.ndarray:
    return (np.asarray(spins) > 0) @ (1 << np.arange(spins.shape[-1]))


def test_one_chain_knows_nothing_of_its_error():
    energy, betas = helpers.random_pairwise(3, _key(0)), jnp.linspace(0, 1, 3)
    found = tg.annealed_importance_sampling(energy, betas, key=_key(1), n_chains=1)
    assert np.isfinite(found.log_partition) and np.isinf(found.standard_error)


@pytest.mark.further
def test_systematic_draws():
    """Each weight is drawn as often as it says, up to one draw, and on average exactly."""
    n, n_keys = 50, 2000
    weights = jax.random.dirichlet(_key(0), jnp.full(n, 0.3))
    parents = jax.vmap(systematic_draws, in_axes=(None, 0))(
        weights, jax.random.split(_key(1), n_keys)
    )
    assert np.all(np.diff(parents, axis=1) >= 0)
    counts = np.stack([np.bincount(row, minlength=n) for row in np.asarray(parents)])
    excess = counts - n * np.asarray(weights)
    assert np.all(np.abs(excess) < 1 + 1e-9)
    # Hoeffding: a count is one of two neighbouring integers.
    bound = np.sqrt(np.log(2 * n / ALARM) / (2 * n_keys))
    assert np.all(np.abs(excess.mean(axis=0)) < bound)
    uniform = systematic_draws(jnp.full(n, 1 / n), _key(2))
    np.testing.assert_array_equal(uniform, np.arange(n))


@pytest.mark.further
def test_effective_sizes_keep_their_limits():
    """All replicas where weights are equal, next to one where a single one decides."""
    energy = _sk(_key(0))

    def annealed(beta):
        found = tg.annealed_importance_sampling(energy, [beta], key=_key(0), n_chains=60)
        return found.ess

    def populations(beta):
        found = sampling.population_annealing(
            energy, [beta], key=_key(0), n_chains=20, n_populations=3
        )
        return found.ess

    for ess in (annealed, populations):
        assert abs(ess(1e-9) - 60) < 1e-5
        assert 1 <= ess(1e6) < 3
    draws = _gaussian(6, 30)
    found = sampling.multi_histogram(draws, GAUSSIAN_RUNGS, n_spins=1)
    assert 1 <= found.log_partition(1e6).ess < 2
    ess = [found.log_partition(b).ess for b in GAUSSIAN_RUNGS]
    # At a rung all of its own draws count, and some of its neighbours'.
    assert all(6 * 30 < e < draws.size for e in ess)


GAUSSIAN_RUNGS = np.array([0.0, 0.5, 1.0, 1.5])


def _gaussian(n_chains, n_draws, spread=1.2):
    """Energies of a Gaussian density of states, where chains differ: `E ~ N(-beta s^2, s^2)`."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n_chains, len(GAUSSIAN_RUNGS), n_draws))
    chains = 0.2 * rng.normal(size=(n_chains, 1, 1))
    return spread * (noise + chains) - spread**2 * GAUSSIAN_RUNGS[:, None]


@pytest.mark.further
def test_multi_histogram_solves_the_equations():
    """Against substitution in plain NumPy, at the rungs and between."""
    energies, betas = _gaussian(6, 30), GAUSSIAN_RUNGS
    log_ratios, log_mixture = _substituted(energies, betas)
    found = sampling.multi_histogram(energies, betas, n_spins=7)
    assert found.converged
    np.testing.assert_allclose(found.log_partitions, 7 * np.log(2) + log_ratios, atol=1e-8)
    np.testing.assert_array_equal(found.betas, betas)
    for beta in (0.0, 0.2, 1.0, 1.4):
        log_weights = -beta * energies.ravel() - log_mixture
        log_z = logsumexp(log_weights)
        p = np.exp(log_weights - log_z)
        mean = p @ energies.ravel()
        capacity = beta**2 * (p @ (energies.ravel() - mean) ** 2)
        estimate = found.log_partition(beta)
        assert abs(estimate.log_partition - log_z - 7 * np.log(2)) < 1e-8
        assert abs(estimate.ess - 1 / np.sum(p**2)) < 1e-6
        assert abs(found.mean_energy(beta).value - mean) < 1e-8
        assert abs(found.heat_capacity(beta).value - capacity) < 1e-8


def _substituted(energies, betas):
    """MBAR by its definition: ln Z of each rung over that of the first, and the mixture."""
    exponents = -betas[:, None] * energies.ravel()
    log_z = np.zeros(len(betas))
    for _ in range(10_000):
        log_mixture = logsumexp(exponents - log_z[:, None], axis=0)
        log_mixture += np.log(energies.size // len(betas))
        new = logsumexp(exponents - log_mixture, axis=1)
        new -= new[0]
        if np.max(np.abs(new - log_z)) < 1e-13:
            return new, log_mixture
        log_z = new
    raise ArithmeticError("the equations were not solved")


@pytest.mark.further
def test_errors_are_those_of_the_jackknife_over_chains():
    """To first order: 60 chains, left out one by one."""
    energies, betas, beta = _gaussian(60, 5), GAUSSIAN_RUNGS, 1.2

    @jax.jit
    @jax.vmap
    def solve(some):
        found = sampling.multi_histogram(some, betas, n_spins=1)
        values = [f(beta) for f in (found.log_partition, found.mean_energy, found.heat_capacity)]
        errors = jnp.append(found.standard_errors[1:], jnp.stack([v[1] for v in values]))
        return jnp.append(found.log_partitions[1:], jnp.stack([v[0] for v in values])), errors

    left_out = np.stack([np.delete(energies, c, axis=0) for c in range(60)])
    values, errors = (np.asarray(x) for x in solve(left_out))
    jackknife = np.sqrt(59 / 60 * np.sum((values - np.mean(values, axis=0)) ** 2, axis=0))
    np.testing.assert_allclose(np.mean(errors, axis=0), jackknife, rtol=0.1)


def test_repeated_draws_tell_nothing_new():
    """Draws of one chain may depend on each other: each three times changes no error bar."""
    energies = _gaussian(6, 30)
    once, thrice = (
        sampling.multi_histogram(e, GAUSSIAN_RUNGS, n_spins=1)
        for e in (energies, np.repeat(energies, 3, axis=2))
    )
    np.testing.assert_allclose(thrice.log_partitions, once.log_partitions, atol=1e-9)
    np.testing.assert_allclose(thrice.standard_errors, once.standard_errors, atol=1e-9)
    np.testing.assert_allclose(thrice.mean_energy(0.7), once.mean_energy(0.7), atol=1e-9)
    np.testing.assert_allclose(thrice.heat_capacity(0.7), once.heat_capacity(0.7), atol=1e-9)


def test_ladders_that_disagree_are_refused():
    """At an R-hat of 1.05 intervals of a cold glass (16 spins, beta = 8) held in 5 of 13."""
    shifts = 0.32 * norm.ppf((np.arange(20) + 0.5) / 20)
    draws = _gaussian(20, 50)
    for own, code in ((0, tg.RESULTS.converged), (shifts, tg.RESULTS.not_relaxed)):
        width = draws.std(axis=(0, 2), keepdims=True) * np.reshape(own, (-1, 1, 1))
        found = sampling.multi_histogram(draws + width, GAUSSIAN_RUNGS, n_spins=3)
        assert found.result == code
        assert np.isinf(found.log_partition(0.7).standard_error) == (code != tg.RESULTS.converged)


def test_swaps_do_not_hide_that_ladders_disagree():
    """Two rungs that exchange energies at random, the sum of which is a ladder's own: R-hat of each
    is 1.02. Of a cold glass (16 spins, beta = 8) 47 % of the intervals held."""
    rng = np.random.default_rng(1)
    draws, swaps = (
        rng.normal(size=(20, 4, 50)) - 1.44 * GAUSSIAN_RUNGS[:, None],
        rng.normal(size=(20, 50)),
    )
    own = 0.15 * norm.ppf((np.arange(20) + 0.5) / 20)[:, None, None]
    draws[:, 2:] = 0.3 * draws[:, 2:] + np.stack([swaps, -swaps], axis=1)
    for shift, code in ((0, tg.RESULTS.converged), (own, tg.RESULTS.not_relaxed)):
        draws[:, 2:] += shift
        found = sampling.multi_histogram(draws, GAUSSIAN_RUNGS, n_spins=3)
        assert found.result == code
        assert np.all(found.rhat < 1.03)


def test_ladders_that_drift_alike_are_refused():
    """All are late by the same, so that no comparison between them shows it: the same draws in
    another order, without a drift, are an answer. ln Z is off by six of the errors it states."""
    rng, spread, exact = np.random.default_rng(2), 1.2, 3 * np.log(2) + 1.2**2 * 1.5**2 / 2
    draws = spread * (rng.normal(size=(20, 4, 50)) - spread * GAUSSIAN_RUNGS[:, None])
    assert sampling.multi_histogram(draws, GAUSSIAN_RUNGS, n_spins=3).converged
    draws += spread * np.exp(-np.arange(50) / 15)
    drifts = sampling.multi_histogram(draws, GAUSSIAN_RUNGS, n_spins=3)
    assert drifts.result == tg.RESULTS.not_relaxed
    assert drifts.log_partition(1.5).standard_error == np.inf
    shuffled = rng.permuted(draws, axis=2)
    hidden = sampling.multi_histogram(shuffled, GAUSSIAN_RUNGS, n_spins=3)
    assert hidden.converged
    np.testing.assert_allclose(hidden.rhat, drifts.rhat)
    assert exact - hidden.log_partitions[-1] > 6 * hidden.standard_errors[-1]


@pytest.mark.parametrize("n_ladders", [3, 20])
@pytest.mark.parametrize("memory", [0.0, 0.95])
def test_relaxed_ladders_seldom_seem_to_drift(n_ladders, memory):
    """As often as it is claimed, however slow they are and however few."""
    n_runs, rng = 1000, np.random.default_rng(0)
    draws = rng.normal(size=(n_runs, n_ladders, 5, 40))
    for t in range(1, 40):
        draws[..., t] = memory * draws[..., t - 1] + np.sqrt(1 - memory**2) * draws[..., t]
    alarms = jax.jit(jax.vmap(lambda energies: drifting(_slopes(energies))))(draws).sum()
    assert alarms > 0
    assert binom.sf(alarms - 1, n_runs, DRIFT_ALARM) > ALARM


def test_frozen_ladders_do_not_drift():
    """Not by rounding either, which is the same in all of them."""
    frozen = np.broadcast_to(-0.1 * np.arange(1, 5)[:, None], (6, 4, 30))
    for dtype in (jnp.float32, jnp.float64):
        assert not drifting(_slopes(jnp.asarray(frozen, dtype)))


def test_reweighting_to_a_rung_is_the_rung():
    found = sampling.multi_histogram(_gaussian(6, 30), GAUSSIAN_RUNGS, n_spins=3)
    at_rungs = jax.vmap(found.log_partition)(found.betas)
    np.testing.assert_allclose(at_rungs.log_partition, found.log_partitions, atol=1e-10)
    np.testing.assert_allclose(at_rungs.standard_error, found.standard_errors, atol=1e-10)
    assert found.log_partitions[0] == 3 * np.log(2)
    assert found.standard_errors[0] == 0


@pytest.mark.further
def test_thermodynamics_are_derivatives_of_log_partition():
    found = sampling.multi_histogram(_gaussian(6, 30), GAUSSIAN_RUNGS, n_spins=3)
    betas = jnp.array([0.1, 0.5, 1.3])
    slopes = jax.vmap(jax.grad(lambda b: found.log_partition(b).log_partition))(betas)
    np.testing.assert_allclose(slopes, -jax.vmap(found.mean_energy)(betas).value, atol=1e-10)
    slopes = jax.vmap(jax.grad(lambda b: found.mean_energy(b).value))(betas)
    capacities = jax.vmap(found.heat_capacity)(betas).value
    np.testing.assert_allclose(-(betas**2) * slopes, capacities, atol=1e-10)


@pytest.mark.further
@pytest.mark.parametrize("x64", [True, False])
def test_rungs_apart_are_not_reported_as_solved(x64):
    with jax.enable_x64(x64):
        for gap in (60.0, 300.0, 1e4):
            # The first two overlap, and so do the last two.
            energies = _gaussian(6, 30) - gap * np.array([0, 0, 1, 1])[:, None]
            found = sampling.multi_histogram(energies, GAUSSIAN_RUNGS, n_spins=3)
            assert not found.converged
            np.testing.assert_array_equal(found.standard_errors, [0, *3 * [np.inf]])
            for measured in (found.mean_energy(0.7), found.heat_capacity(0.7)):
                assert measured.standard_error == np.inf
            assert found.log_partition(0.7).standard_error == np.inf
        assert sampling.multi_histogram(_gaussian(6, 30), GAUSSIAN_RUNGS, n_spins=3).converged


def test_single_precision_keeps_digits_of_large_energies():
    """A constant of -10^4 in the energy costs its own rounding, and nothing else."""
    energies = _gaussian(6, 30)
    double = sampling.multi_histogram(energies, GAUSSIAN_RUNGS, n_spins=3)
    with jax.enable_x64(False):
        single = sampling.multi_histogram(energies - 1e4, GAUSSIAN_RUNGS, n_spins=3)
        mean, capacity = single.mean_energy(0.7), single.heat_capacity(0.7)
    assert single.converged
    assert single.log_partitions.dtype == mean.value.dtype == jnp.float32
    rounding = 1e4 * np.finfo(np.float32).eps
    expected = double.log_partitions + 1e4 * GAUSSIAN_RUNGS
    np.testing.assert_allclose(single.log_partitions, expected, atol=4 * rounding)
    np.testing.assert_allclose(single.standard_errors, double.standard_errors, rtol=1e-3)
    assert abs(mean.value - double.mean_energy(0.7).value + 1e4) < 4 * rounding
    np.testing.assert_allclose(capacity, double.heat_capacity(0.7), rtol=4e-3)


@functools.partial(jax.jit, static_argnames=("n_chains", "n_sweeps", "n_runs"))
def _short_integrals(energy, betas, n_chains, n_sweeps=2, n_runs=4000):
    """Runs that measure few sweeps."""

    def run(key):
        return sampling.thermodynamic_integration(
            energy, betas, key=key, n_chains=n_chains, n_sweeps=n_sweeps, burn_in=20
        )

    return jax.vmap(run)(jax.random.split(_key(0), n_runs))


def _averages_to_zero(excess) -> bool:
    return abs(excess.mean()) < norm.isf(ALARM / 4) * excess.std() / np.sqrt(len(excess))


@pytest.mark.further
def test_integration_of_three_chains_is_unbiased():
    energy, betas = helpers.random_pairwise(5, _key(5)), np.array([1.0])
    found = jax.tree.map(np.asarray, _short_integrals(energy, betas, 3))
    exact = _exact(helpers.energy_table(energy), betas)
    assert _averages_to_zero(found.mean_energies.value - exact["mean energy"])
    assert _averages_to_zero(found.heat_capacities.value - exact["heat capacity"])


@pytest.mark.further
def test_errors_of_integration_know_those_of_slopes():
    """On one wide interval, where slopes are two fifths of the variance of ln Z. Error bars hold
    to first order in the number of chains: 30 here."""
    energy = helpers.random_pairwise(5, _key(5), scale=2.0)
    # As many sweeps as tell that chains agree: of few no error is claimed.
    found = _short_integrals(energy, np.array([3.0]), 30, n_sweeps=300, n_runs=1000)
    found = jax.tree.map(np.asarray, found)
    assert np.all(np.isfinite(found.standard_error))
    claimed = found.standard_error**2 - found.quadrature_error**2
    assert _averages_to_zero((found.log_partition - found.log_partition.mean()) ** 2 - claimed)


def _fields(widths):
    """`<E>`, its slope and ln Z of independent spins in one field, with rungs so wide."""
    path = jnp.append(0.0, jnp.cumsum(widths))
    return path, -jnp.tanh(path), -1 / jnp.cosh(path) ** 2, jnp.log(2 * jnp.cosh(path[-1]))


@pytest.mark.further
@pytest.mark.parametrize("widths", [[0.4] * 5, [0.3, 0.6, 0.4, 0.7], [0.0, 0.5, 0.5, 0.5, 0.5]])
def test_quadrature_knows_its_error(widths):
    """Of the right size, and of fourth order: half the widths leave a sixteenth."""
    path, means, slopes, log_z = _fields(jnp.array(widths))
    missed = np.log(2) - _integral_of(path, means, slopes) - log_z
    estimate = _quadrature_error(path, means, slopes)
    assert 0.5 * estimate < abs(missed) < 2 * estimate
    path, means, slopes, _ = _fields(jnp.repeat(jnp.array(widths) / 2, 2))
    halved = np.log(2) - _integral_of(path, means, slopes) - log_z
    assert 13 < missed / halved < 19


def test_one_rung_leaves_quadrature_the_main_error():
    path, means, slopes, log_z = _fields(jnp.array([1.0]))
    missed = np.log(2) - _integral_of(path, means, slopes) - log_z
    assert abs(missed) < _quadrature_error(path, means, slopes)


def test_cubic_integrands_are_exact():
    path = jnp.array([0.0, 0.3, 1.0, 1.1])
    values, slopes = path**3 - path**2 + 2, 3 * path**2 - 2 * path
    exact = 1.1**4 / 4 - 1.1**3 / 3 + 2 * 1.1
    assert abs(_integral_of(path, values, slopes) - exact) < 1e-14
    assert _quadrature_error(path, values, slopes) < 1e-14


NUMBERS = {
    "annealed_importance_sampling": {"n_chains": 3},
    "population_annealing": {"n_chains": 3, "n_populations": 2},
    "thermodynamic_integration": {"n_chains": 3, "n_sweeps": 4, "burn_in": 1},
    "multi_histogram_reweighting": {"n_chains": 3, "n_sweeps": 4, "burn_in": 1},
}


def _run(name, energy=None, betas=(0.0, 0.5, 1.0), seed=0, **arguments):
    energy = helpers.random_pairwise(4, _key(0)) if energy is None else energy
    given = NUMBERS[name] | arguments
    return getattr(sampling, name)(energy, betas, key=_key(seed), **given)


@pytest.mark.parametrize("name", NUMBERS)
def test_new_numbers_do_not_recompile(name, caplog):
    """And results are of the precision of the energy."""

    def run(seed):
        energy = helpers.redrawn(helpers.random_pairwise(4, _key(0)), seed)
        energy = jax.tree.map(lambda x: x.astype(jnp.float32), energy)
        changed = {"burn_in": seed} if "burn_in" in NUMBERS[name] else {}
        found = _run(name, energy, np.array([0.0, 0.5, 1.0 + seed]), seed, **changed)
        assert {x.dtype for x in jax.tree.leaves(eqx.filter(found, eqx.is_inexact_array))} == {
            jnp.dtype(jnp.float32)
        }
        if isinstance(found, sampling.Reweighting):
            for f in (found.log_partition, found.mean_energy, found.heat_capacity):
                f(0.1 * seed)
        return np.asarray(jax.tree.leaves(found)[0])

    first = run(1)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        assert np.any(run(2) != first)
    assert not [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]


@pytest.mark.parametrize("name", NUMBERS)
def test_an_energy_of_no_terms(name):
    """`Z = 2^n` without error, and no heat capacity."""
    found = _run(name, tg.Interactions.from_terms(4, {}))
    if name == "multi_histogram_reweighting":
        found = found.log_partition(0.7)
    assert abs(found.log_partition - 4 * np.log(2)) < 1e-12
    assert found.standard_error < 1e-12


NOT_COLDER = "betas must be finite, increase and not be negative"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        *((name, {"betas": [0.5, 0.2]}, NOT_COLDER) for name in NUMBERS),
        *((name, {"betas": [-0.5, 0.2]}, NOT_COLDER) for name in NUMBERS),
        *((name, {"betas": [0.5, np.nan]}, NOT_COLDER) for name in NUMBERS),
        *((name, {"betas": []}, r"betas must have shape \(rungs,\)") for name in NUMBERS),
        *((name, {"betas": 0.5}, r"betas must have shape \(rungs,\)") for name in NUMBERS),
        ("annealed_importance_sampling", {"n_chains": 0}, "n_chains must be at least 1"),
        ("population_annealing", {"n_chains": 0}, "n_chains must be at least 1"),
        ("population_annealing", {"n_populations": 1}, "n_populations must be at least 2"),
        ("thermodynamic_integration", {"n_chains": 1}, "n_chains must be at least 2"),
        ("thermodynamic_integration", {"n_sweeps": 0}, "n_sweeps must be at least 1"),
        ("thermodynamic_integration", {"burn_in": -1}, "burn_in must be at least 0"),
        ("multi_histogram_reweighting", {"n_chains": 1}, "n_chains must be at least 2"),
        ("multi_histogram_reweighting", {"n_sweeps": 0}, "n_sweeps must be at least 1"),
        ("multi_histogram_reweighting", {"burn_in": -1}, "burn_in must be at least 0"),
        ("multi_histogram_reweighting", {"thin": 5}, "thin must not exceed n_sweeps"),
        ("multi_histogram_reweighting", {"betas": [0.1, 1.0]}, "betas must start at 0"),
        ("multi_histogram_reweighting", {"betas": [0.0]}, "betas must have at least 2 rungs"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        _run(name, **arguments)


@pytest.mark.parametrize(
    ("name", "count"), [(n, c) for n, counts in NUMBERS.items() for c in counts]
)
def test_what_is_no_count_is_named(name, count, unchecked):
    for value in (2.0, np.nan, np.inf):
        with pytest.raises(TypeError, match=f"{count} must be an integer, got"):
            _run(name, **{count: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_integers_of_numpy_are_counts(name):
    found, same = _run(name), _run(name, **{k: np.int64(v) for k, v in NUMBERS[name].items()})
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NUMBERS)
def test_parameters_that_are_not_finite_have_no_partition_function(name):
    energy = jax.tree.map(lambda x: x.at[0].set(jnp.nan), helpers.random_pairwise(4, _key(0)))
    with pytest.raises(ValueError, match="energy must have finite parameters"):
        _run(name, energy)
    found = jax.jit(lambda energy: _run(name, energy))(energy)
    if isinstance(found, sampling.Reweighting):
        found = found.log_partition(1.0)
    assert found.result == tg.RESULTS.non_finite
    assert found.standard_error == np.inf


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", NUMBERS)
def test_half_precision_is_refused(name, dtype):
    energy = jax.tree.map(lambda x: x.astype(dtype), helpers.random_pairwise(4, _key(0)))
    with pytest.raises(TypeError, match=f"Pairwise of {jnp.dtype(dtype).name}"):
        _run(name, energy)


@pytest.mark.parametrize(
    ("energies", "message"),
    [
        (np.zeros((1, 2, 5)), r"shape \(chains, 2, draws\) with at least 2 chains"),
        (np.zeros((3, 4, 5)), r"shape \(chains, 2, draws\) .* got \(3, 4, 5\)"),
        (np.zeros((3, 2, 0)), "1 draw, got"),
        (np.full((3, 2, 5), np.inf), "energies must be finite"),
    ],
)
def test_bad_energies_are_named(energies, message):
    with pytest.raises(ValueError, match=message):
        sampling.multi_histogram(energies, [0.0, 1.0], n_spins=4)


def test_samples_of_bits_are_refused():
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(ValueError, match="samples must hold spins, -1 or"):
        sampling.reverse_annealed_importance_sampling(
            energy, [0.0, 1.0], np.zeros((3, 4)), key=_key(0)
        )


@pytest.mark.parametrize("shape", [(0, 4), (3, 5)])
def test_bad_samples_are_named(shape):
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(ValueError, match=r"samples must have shape \(chains, 4\)"):
        sampling.reverse_annealed_importance_sampling(
            energy, [0.0, 1.0], np.ones(shape), key=_key(0)
        )
