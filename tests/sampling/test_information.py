"""Mutual information: enumeration, closed forms, bounds, and samples too few to tell."""

import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import exact, sampling

SIGMAS = 5.0


def entropy(energy, beta, sites):
    p, _ = helpers.boltzmann(energy, beta)
    kept = helpers.configurations(energy.n_spins)[:, list(sites)] > 0
    shares = np.bincount(kept @ (1 << np.arange(len(sites))), p)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)))


def two_spins(c):
    """Of two unbiased spins of correlation c."""
    return 0.5 * sum(x * np.log(x) for x in (1 + c, 1 - c))


@pytest.mark.parametrize("coupling", [0.3, -2.0])
def test_two_spins(coupling):
    pair = tg.Interactions.from_terms(2, {(0, 1): coupling})
    found = exact.mutual_information(pair, 0.7, (0,), (1,))
    np.testing.assert_allclose(found, two_spins(np.tanh(0.7 * coupling)), rtol=1e-10)
    slope = jax.grad(lambda beta: exact.mutual_information(pair, beta, (0,), (1,)))(0.7)
    c = np.tanh(0.7 * coupling)
    np.testing.assert_allclose(slope, np.arctanh(c) * coupling * (1 - c**2), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("field", [0.0, 0.4])
def test_slopes_where_spins_are_independent(field, dtype):
    """There I is least, and I = (beta J)^2 v v' / 2 with the variances of both."""

    def information(coupling):
        pair = tg.Pairwise(coupling * (1 - jnp.eye(2, dtype=dtype)), jnp.full(2, field, dtype))
        return exact.mutual_information(pair, 1.0, (0,), (1,))

    variances = (1 - np.tanh(field) ** 2) ** 2
    free = jnp.zeros((), dtype)
    np.testing.assert_allclose(jax.grad(information)(free), 0, atol=1e-6)
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(jax.hessian(information)(free), variances, rtol=tolerance)
    weak = jnp.asarray(1e-4, dtype)
    np.testing.assert_allclose(jax.grad(information)(weak), 1e-4 * variances, rtol=0.01)


def test_far_spins_of_a_long_chain():
    """Beyond enumeration: correlations along a chain are powers of tanh beta J."""
    chain = tg.Interactions.from_terms(40, {(k, k + 1): 1.0 for k in range(39)})
    found = exact.mutual_information(chain, 1.0, (3,), (7,))
    np.testing.assert_allclose(found, two_spins(np.tanh(1.0) ** 4), rtol=1e-8)
    # The spin between them screens one from the other.
    both = exact.mutual_information(chain, 1.0, (3, 7), (5,))
    one = exact.mutual_information(chain, 1.0, (3,), (5,))
    assert one < both < 2 * one


@pytest.mark.further
@hypothesis.settings(max_examples=20)
@hypothesis.given(st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_information_lies_between_nothing_and_the_smaller_entropy(seed, beta):
    energy = helpers.random_pairwise(5, jax.random.key(seed), 1.0, 0.2)
    for first, second in [((0,), (1,)), ((0, 4), (2,)), ((3, 1), (0, 2, 4))]:
        found = float(exact.mutual_information(energy, beta, first, second))
        h, k, both = (entropy(energy, beta, x) for x in (first, second, first + second))
        assert 0 <= found <= min(h, k) + 1e-12
        np.testing.assert_allclose(found, h + k - both, atol=1e-12)
        turned = exact.mutual_information(energy, beta, second, first)
        np.testing.assert_allclose(found, turned, atol=1e-12)


def scores(energy, beta, first, second, draw, n_keys=60):
    keys = jax.random.split(jax.random.key(0), n_keys)
    found = jax.jit(jax.vmap(lambda key: sampling.mutual_information(draw(key), first, second)))(
        keys
    )
    truth = exact.mutual_information(energy, beta, tuple(first), tuple(second))
    return (np.asarray(found.value) - float(truth)) / np.asarray(found.standard_error)


@pytest.mark.parametrize(
    ("first", "second", "fields", "scale"),
    [([0], [1], 0.3, 1.5), ([0, 1], [2, 3], 0.3, 0.0), ([0, 4], [1, 2, 3], 0.5, 2.0)],
)
def test_errors_hold_for_independent_draws(first, second, fields, scale):
    energy = helpers.random_pairwise(5, jax.random.key(3), scale, fields)
    found = scores(
        energy, 1.0, first, second, lambda key: exact.sample(energy, 1.0, key=key, n_samples=1000)
    )
    assert np.all(np.isfinite(found)) and np.max(np.abs(found)) < SIGMAS
    assert abs(found.mean()) < 1 and 0.3 < np.sqrt(np.mean(found**2)) < 1.3


@pytest.mark.further
@pytest.mark.parametrize("scale", [1.5, 0.0])
def test_errors_hold_for_chains_that_remember(scale):
    """Each configuration is kept ten times: ten draws are worth one."""
    energy = helpers.random_pairwise(4, jax.random.key(3), scale, 0.3)

    def draw(key):
        spins = exact.sample(energy, 1.0, key=key, n_samples=1000).reshape(50, 20, 4)
        return jnp.repeat(spins, 10, axis=1)

    found = scores(energy, 1.0, [0, 1], [2], draw)
    assert np.max(np.abs(found)) < SIGMAS and np.sqrt(np.mean(found**2)) < 1.3
    assert abs(found.mean()) < 1


def test_the_correction_removes_most_of_the_bias():
    free = tg.Pairwise(jnp.zeros((6, 6)), jnp.zeros(6))
    keys = jax.random.split(jax.random.key(0), 100)

    def value(key):
        spins = exact.sample(free, 1.0, key=key, n_samples=400)
        return sampling.mutual_information(spins, [0, 1], [2, 3, 4]).value

    values = np.asarray(jax.jit(jax.vmap(value))(keys))
    plain = 3 * 7 / (2 * 400)  # by which shares alone lie too high
    assert abs(values.mean()) < plain / 10 + 4 * values.std() / 10


def test_too_few_draws_have_no_error():
    rng = np.random.default_rng(0)
    few = rng.choice([-1, 1], (300, 12))
    assert np.isinf(sampling.mutual_information(few, range(6), range(6, 12)).standard_error)
    assert np.isfinite(sampling.mutual_information(few, [0], [1]).standard_error)
    # Chains that never move are one draw each, however many are kept.
    frozen = np.repeat(few[:40, None], 100, axis=1)
    assert np.isinf(sampling.mutual_information(frozen, [0, 1], [2, 3]).standard_error)
    assert np.isfinite(sampling.mutual_information(frozen, [0], [1]).standard_error)
    alone = sampling.mutual_information(few[None], [0], [1])
    assert np.isinf(alone.standard_error) and np.isfinite(alone.value)


def test_spins_that_never_change_tell_nothing():
    found = sampling.mutual_information(np.ones((64, 10, 4)), [0], [1, 2])
    assert found.value == 0 and 0.05 < found.standard_error < 0.1
    equal = np.repeat(np.random.default_rng(0).choice([-1, 1], (1000, 1)), 2, axis=1)
    found = sampling.mutual_information(equal, [0], [1])
    assert abs(found.value - np.log(2)) < SIGMAS * found.standard_error < 0.02


def test_bad_sets_are_refused(unchecked):
    spins, energy = np.ones((10, 20)), tg.Pairwise(jnp.zeros((3, 3)), jnp.zeros(3))
    for first, second, said in [
        ([0], [0], "first and second must"),
        ([], [1], "first and second must"),
        ([0], [20], "second must name"),
        ([0, 0], [1], "first must name"),
        ([0.5], [1], "first must name"),
        (range(9), range(9, 18), "at most 16"),
    ]:
        with pytest.raises(ValueError, match=said):
            sampling.mutual_information(spins, first, second)
    with pytest.raises(ValueError, match="first must be numbers of spins"):
        exact.mutual_information(energy, 1.0, 0, 1)
    with pytest.raises(ValueError, match="first and second must"):
        exact.mutual_information(energy, 1.0, (0, 1), (1,))
    with pytest.raises(ValueError, match="spins must hold"):
        sampling.mutual_information(np.full((10, 2), np.nan), [0], [1])
    traced = jax.jit(lambda s: sampling.mutual_information(s, [0], [1]))(jnp.full((10, 2), jnp.nan))
    assert np.isnan(traced.value) and np.isinf(traced.standard_error)
