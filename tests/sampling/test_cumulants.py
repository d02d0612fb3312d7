"""Binder cumulants and their crossings: exact curves, known transitions, curves without one."""

import families
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma, gammaln

import thermogen as tg
from thermogen import sampling
from thermogen.sampling import Measurement

SIGMAS = 5.0


def curie_weiss_cumulant(n, beta):
    """`E = -M^2 / (2 n)`: M is all that counts."""
    up = np.arange(n + 1)
    m = 2 * up / n - 1
    logits = gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1) + beta * n * m**2 / 2
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return 1 - (p @ m**4) / (3 * (p @ m**2) ** 2)


def torus(side):
    site = np.arange(side**2).reshape(side, side)
    bonds = np.concatenate(
        [np.stack([site, np.roll(site, -1, axis)], axis=-1).reshape(-1, 2) for axis in (0, 1)]
    )
    return tg.Interactions(side**2, [bonds], [np.ones(len(bonds))])


def exact_cumulants(energy, betas):
    m = helpers.configurations(energy.n_spins).mean(axis=1)
    p = np.stack([helpers.boltzmann(energy, beta)[0] for beta in betas])
    return 1 - (p @ m**4) / (3 * (p @ m**2) ** 2)


def cumulants(energy, betas, key, sampler, **options):
    def at(beta, key):
        trace = tg.sample(
            sampler,
            energy,
            beta,
            key=key,
            observers=sampling.Trace(lambda energy, spins: jnp.mean(spins)),
            **options,
        )
        return sampling.binder_cumulant(trace)

    return jax.jit(jax.vmap(at))(jnp.asarray(betas), jax.random.split(key, len(betas)))


def test_cumulant_of_curie_weiss_is_the_exact_one():
    n, betas = 24, [0.5, 1.0, 1.4]
    energy = families.curie_weiss(n)
    found = cumulants(
        energy, betas, jax.random.key(0), tg.Gibbs(), n_chains=64, n_sweeps=300, burn_in=100
    )
    exact = [curie_weiss_cumulant(n, beta) for beta in betas]
    assert np.all(found.standard_error < 0.03)
    assert np.all(np.abs(found.value - np.array(exact)) < SIGMAS * found.standard_error)


def test_closed_forms():
    rng = np.random.default_rng(0)
    normal = sampling.binder_cumulant(rng.normal(size=(400, 20)))
    assert abs(normal.value) < SIGMAS * normal.standard_error < 0.2
    uniform = sampling.binder_cumulant(rng.uniform(-1, 1, (400, 20)))
    assert abs(uniform.value - 0.4) < SIGMAS * uniform.standard_error < 0.1
    saturated = sampling.binder_cumulant(rng.choice([-3.0, 3.0], (8, 20)))
    np.testing.assert_allclose(saturated, [2 / 3, 0], atol=1e-6)
    scaled = sampling.binder_cumulant(1e30 * rng.normal(size=(8, 20)))
    assert np.isfinite(scaled.value) and scaled.standard_error > 0


def test_errors_of_cumulants_hold():
    draws = jax.random.normal(jax.random.key(0), (500, 20, 30))
    found = jax.vmap(sampling.binder_cumulant)(draws)
    scores = np.asarray(found.value / found.standard_error)
    known = np.isfinite(found.standard_error)
    assert known.mean() > 0.95 and 0.85 < np.sqrt(np.mean(scores[known] ** 2)) < 1.25


def test_what_is_no_cumulant_has_no_error(unchecked):
    rng = np.random.default_rng(0)
    alone = sampling.binder_cumulant(rng.normal(size=(1, 500)))
    assert np.isfinite(alone.value) and np.isinf(alone.standard_error)
    none = sampling.binder_cumulant(np.zeros((8, 20)))
    assert np.isnan(none.value) and np.isinf(none.standard_error)
    apart = np.linspace(0.1, 1, 8)[:, None] + 1e-3 * rng.normal(size=(8, 20))
    assert np.isinf(sampling.binder_cumulant(apart).standard_error)
    drifting = np.linspace(0.1, 1, 20) + 0.05 * rng.normal(size=(8, 20))
    assert np.isinf(sampling.binder_cumulant(drifting).standard_error)
    with pytest.raises(ValueError, match="not finite"):
        sampling.binder_cumulant(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="shape"):
        sampling.binder_cumulant(np.zeros((2, 3, 4)))
    traced = jax.jit(sampling.binder_cumulant)(jnp.full((4, 4), jnp.nan))
    assert np.isnan(traced.value) and np.isinf(traced.standard_error)


def test_exact_curves_of_curie_weiss_cross_at_one():
    """beta_c = 1, and at it `x` is distributed as exp(-x^4): corrections vanish as n^-1/2 does."""
    sizes, betas = (500, 1000, 2000, 4000), np.linspace(0.96, 1.08, 49)
    values = np.array([[curie_weiss_cumulant(n, beta) for beta in betas] for n in sizes])
    found = sampling.binder_crossing(
        betas, Measurement(values, np.zeros_like(values)), key=jax.random.key(0), n_resamples=10
    )
    assert np.all(found.result == tg.RESULTS.converged)
    assert np.all(np.abs(found.beta.value - 1) < 3 / np.array(sizes[:-1]))
    critical = 1 - gamma(5 / 4) * gamma(1 / 4) / (3 * gamma(3 / 4) ** 2)
    off = np.abs(np.asarray(found.cumulant.value) - critical)
    assert np.all(np.diff(off) < 0) and off[-1] < 0.02
    # What straight lines miss is all of the error.
    assert np.all(found.beta.standard_error < 1e-3)


SIDES, BETAS = (3, 4), np.linspace(0.2, 0.6, 9)


@pytest.mark.further
def test_sampled_curves_cross_where_the_exact_ones_do():
    exact = np.stack([exact_cumulants(torus(side), BETAS) for side in SIDES])
    truth = sampling.binder_crossing(
        BETAS, Measurement(exact, np.zeros_like(exact)), key=jax.random.key(0), n_resamples=10
    )
    options = {"n_chains": 64, "n_sweeps": 200, "burn_in": 50}
    curves = [
        cumulants(torus(side), BETAS, jax.random.key(side), tg.Gibbs(), **options) for side in SIDES
    ]
    curves = Measurement(*(jnp.stack(x) for x in zip(*curves, strict=True)))
    scores = (np.asarray(curves.value) - exact) / np.asarray(curves.standard_error)
    assert np.max(np.abs(scores)) < SIGMAS
    found = sampling.binder_crossing(BETAS, curves, key=jax.random.key(0))
    assert found.result.names.tolist() == ["converged"]
    error = np.hypot(found.beta.standard_error, truth.beta.standard_error)[0]
    assert abs(found.beta.value - truth.beta.value)[0] < SIGMAS * error < 0.15


@pytest.mark.further
def test_square_lattice_orders_where_onsager_says():
    """ln(1 + sqrt 2) / 2 = 0.4407: the crossing of sides 4 and 8 lies within 1 % of it."""
    betas = np.linspace(0.42, 0.46, 5)
    options = {"n_chains": 128, "n_sweeps": 200, "burn_in": 50}
    found = cumulants(torus(8), betas, jax.random.key(8), sampling.SwendsenWang(), **options)
    exact = exact_cumulants(torus(4), betas)
    values = np.stack([exact, found.value])
    curves = Measurement(values, np.stack([np.zeros(5), found.standard_error]))
    found = sampling.binder_crossing(betas, curves, key=jax.random.key(0))
    onsager, error = np.log1p(2**0.5) / 2, found.beta.standard_error[0]
    assert found.result.names.tolist() == ["converged"]
    assert abs(found.beta.value[0] - onsager) < 0.01 * onsager + 4 * error < 0.02
    # U* = 0.6107 on a torus (Kamieniarz and Bloete 1993), to corrections of the size.
    assert abs(found.cumulant.value[0] - 0.6107) < 0.02


def crossings(values, errors, keys=200):
    """Of curves with the noise that they claim."""
    betas = jnp.linspace(0, 1, values.shape[1])
    errors = jnp.broadcast_to(errors, values.shape)

    def one(key):
        noise, own = jax.random.split(key)
        noisy = values + errors * jax.random.normal(noise, values.shape)
        return sampling.binder_crossing(betas, Measurement(noisy, errors), key=own)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), keys))


def test_errors_of_crossings_hold():
    betas = np.linspace(0, 1, 11)
    values = np.stack([np.tanh(2 * (betas - 0.42)), np.tanh(4 * (betas - 0.42))])
    found = crossings(jnp.asarray(values), 0.03)
    assert np.mean(found.result == tg.RESULTS.converged) > 0.95
    known = np.isfinite(found.beta.standard_error)
    scores = (found.beta.value - 0.42) / found.beta.standard_error
    assert 0.8 < np.sqrt(np.mean(np.asarray(scores)[known] ** 2)) < 1.2
    assert np.mean(np.asarray(found.beta.standard_error)[known]) < 0.05


@pytest.mark.further
def test_curves_that_do_not_cross_say_so():
    flat, rising = np.zeros(11), np.linspace(0.1, 0.3, 11)
    cases = [(flat, flat), (flat, rising), (rising, flat), (rising, flat + 0.2)]  # from + to - last
    for small, large in cases:
        found = crossings(jnp.asarray(np.stack([small, large])), 0.01)
        assert np.mean(found.result == tg.RESULTS.no_crossing) > 0.985
        lost = np.asarray(found.result == tg.RESULTS.no_crossing)
        assert np.all(np.isnan(np.asarray(found.beta.value)[lost]))
        assert np.all(np.isinf(np.asarray(found.beta.standard_error)[lost]))


def test_curves_without_errors_are_no_curves():
    betas, values = np.linspace(0, 1, 5), np.outer([1.0, 2.0, 4.0], np.linspace(-1, 1, 5))
    errors = np.full_like(values, 0.01)
    errors[2, 0] = np.inf
    found = sampling.binder_crossing(betas, Measurement(values, errors), key=jax.random.key(0))
    assert found.result.names.tolist() == ["converged", "not_relaxed"]
    values[0, 1] = np.nan
    found = sampling.binder_crossing(betas, Measurement(values, errors), key=jax.random.key(0))
    assert found.result.names.tolist() == ["non_finite", "not_relaxed"]


def test_bad_curves_are_refused(unchecked):
    curves = Measurement(np.zeros((2, 3)), np.zeros((2, 3)))
    key = jax.random.key(0)
    for betas, given, said in [
        ([0.1, 0.3, 0.2], curves, "betas must increase"),
        ([0.1], curves, "at least 2"),
        ([0.1, 0.2], curves, r"\(sizes, 2\)"),
        ([0.1, 0.2, 0.3], Measurement(np.zeros((1, 3)), np.zeros((1, 3))), "at least 2"),
        ([0.1, 0.2, 0.3], Measurement(np.zeros(3), np.zeros(3)), "sizes"),
    ]:
        with pytest.raises(ValueError, match=said):
            sampling.binder_crossing(np.array(betas), given, key=key)
