"""Overlaps of replicas against enumeration, closed forms, and what must not pass for an answer."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import sampling

SIGMAS = 5.0


def exact_distribution(energy, beta):
    """P(q) by the definition: over all pairs of configurations."""
    p, _ = helpers.boltzmann(energy, beta)
    s = helpers.configurations(energy.n_spins).astype(float)
    agreeing = np.rint((1 + s @ s.T / energy.n_spins) * energy.n_spins / 2).astype(int)
    return np.bincount(agreeing.ravel(), np.outer(p, p).ravel(), minlength=energy.n_spins + 1)


def moments(p):
    q = np.linspace(-1, 1, len(p))
    square, fourth = p @ q**2, p @ q**4
    return p @ q, square, 1 - fourth / (3 * square**2)


def within(measured, truth, sigmas=SIGMAS):
    error = np.asarray(measured.standard_error)
    assert np.all(np.isfinite(error))
    assert np.all(np.abs(np.asarray(measured.value) - truth) <= sigmas * error + 1e-6)


@pytest.mark.parametrize(
    ("markov", "fields"),
    [
        (False, 0.3),
        *(pytest.param(*case, marks=pytest.mark.further) for case in [(False, 0.0), (True, 0.3)]),
        pytest.param(True, 0.0, marks=pytest.mark.further),
    ],
)
def test_overlaps_are_the_enumerated_ones(markov, fields):
    energy = helpers.random_pairwise(6, jax.random.key(1), 1.0, fields)
    beta, key = 0.8, jax.random.key(2)
    if markov:
        spins = tg.sample(tg.Gibbs(), energy, beta, key=key, n_chains=64, n_sweeps=200, burn_in=50)
    else:
        spins = tg.exact.sample(energy, beta, key=key, n_samples=600)
    found = sampling.replica_overlaps(spins)
    p = exact_distribution(energy, beta)
    assert found.result == tg.RESULTS.converged
    for measured, truth in zip(found, (*moments(p), p), strict=False):
        within(measured, truth)
    # Errors say something.
    assert found.mean.standard_error < 0.05 and found.square.standard_error < 0.05


@pytest.mark.further
def test_overlaps_of_free_spins():
    n, h = 20, np.linspace(-1, 1, 20)
    spins = tg.exact.sample(
        tg.Pairwise(jnp.zeros((n, n)), jnp.asarray(h)), 1.0, key=jax.random.key(0), n_samples=400
    )
    found = sampling.replica_overlaps(spins)
    q = np.tanh(h) ** 2
    within(found.mean, q.mean())
    within(found.square, (n + np.sum(q) ** 2 - np.sum(q**2)) / n**2)
    np.testing.assert_allclose(found.distribution.value.sum(), 1, rtol=1e-6)


@pytest.mark.further
def test_a_glass_above_its_transition_has_no_order():
    """SK, beta = 0.5: q_EA is 0, and `n <q^2>` tends to `1 / (1 - beta^2)`; one program for all."""
    n, beta, n_glasses = 48, 0.5, 32

    def order(key):
        glass, draws = jax.random.split(key)
        energy = helpers.random_pairwise(n, glass, 1.0, 0.0)
        spins = tg.sample(
            tg.Gibbs(), energy, beta, key=draws, n_chains=32, n_sweeps=100, burn_in=50
        )
        return sampling.replica_overlaps(spins)

    found = jax.jit(jax.vmap(order))(jax.random.split(jax.random.key(0), n_glasses))
    assert np.mean(found.result == tg.RESULTS.converged) > 0.9
    scores = found.mean.value / found.mean.standard_error
    assert np.max(np.abs(scores)) < SIGMAS
    susceptibility = n * np.asarray(found.square.value)
    error = susceptibility.std(ddof=1) / n_glasses**0.5
    # To first order in 1/n it lies below the limit by no more than its third.
    assert abs(susceptibility.mean() - 4 / 3) < 4 / 9 / n**0.5 + SIGMAS * error < 0.2


def test_errors_hold_where_replicas_do_not_overlap():
    """A cold magnet whose chains stay up or down: q = +-1, with mean 0. Whichever signs were drawn,
    all alike as often as half and half, the mean is 0 within its error."""
    signs = jax.random.rademacher(jax.random.key(0), (400, 16), float)
    spins = signs[:, :, None, None] * jnp.ones((1, 1, 4, 3))
    found = jax.vmap(sampling.replica_overlaps)(spins)
    scores = np.asarray(found.mean.value / found.mean.standard_error)
    different = np.abs(signs.sum(axis=1)) < 16
    assert np.all(np.abs(scores[different]) < 4) and np.sqrt(np.mean(scores**2)) < 1.2
    np.testing.assert_allclose(found.square.value, 1, rtol=1e-6)
    np.testing.assert_allclose(found.cumulant.value, 2 / 3, rtol=1e-6)
    assert np.all(found.result == tg.RESULTS.converged)


def test_chains_that_have_not_relaxed_have_no_error():
    """Each stays where it began: as a glass far below its transition."""
    starts = jax.random.rademacher(jax.random.key(0), (12, 1, 40), float)
    frozen = sampling.replica_overlaps(jnp.broadcast_to(starts, (12, 6, 40)))
    assert frozen.result == tg.RESULTS.not_relaxed
    assert all(np.all(np.isinf(part.standard_error)) for part in frozen[:4])
    assert "burn_in" in tg.RESULTS[frozen.result]
    # The same configurations as independent draws are free spins.
    free = sampling.replica_overlaps(starts[:, 0])
    assert free.result == tg.RESULTS.converged
    within(free.mean, 0)
    within(free.square, 1 / 40)


def test_saturated_replicas():
    found = sampling.replica_overlaps(np.ones((8, 5, 7), np.int8))
    assert found.result == tg.RESULTS.converged
    for part in found[:2]:
        np.testing.assert_allclose(part, [1, 0], atol=1e-12)
    np.testing.assert_allclose(found.distribution.value, np.eye(8)[7], atol=1e-12)


def test_few_chains_and_bad_input(unchecked):
    two = sampling.replica_overlaps(np.ones((2, 5, 7)))
    assert two.mean.value == 1 and np.isinf(two.mean.standard_error)
    with pytest.raises(ValueError, match="at least 2 chains, got 1"):
        sampling.replica_overlaps(np.ones((1, 5, 7)))
    for bad in (0.0, np.nan, 2.0):
        with pytest.raises(ValueError, match="spins must hold -1 and"):
            sampling.replica_overlaps(np.full((3, 5, 7), bad))
    with pytest.raises(ValueError, match="shape"):
        sampling.replica_overlaps(np.ones((3, 0, 7)))
    traced = jax.jit(sampling.replica_overlaps)(jnp.full((3, 5, 7), jnp.nan))
    assert traced.result == tg.RESULTS.non_finite and np.isnan(traced.mean.value)
    assert np.isinf(traced.mean.standard_error)
