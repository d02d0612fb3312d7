import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import exact, learning

KEY = jax.random.key(0)
DATA = np.random.default_rng(1).choice([-1, 1], (40, 6))


def _machine(n_visible=6, n_hidden=3):
    weights = 0.7 * jax.random.normal(KEY, (n_visible, n_hidden))
    return tg.RBM(weights, jnp.linspace(-0.5, 0.5, n_visible), jnp.linspace(0, 0.3, n_hidden))


def test_log_likelihoods_are_those_of_the_table():
    upper = np.triu(np.random.default_rng(0).normal(size=(6, 6)), 1)
    energy = tg.Pairwise(jnp.asarray(upper + upper.T), jnp.linspace(-1, 1, 6))
    found = learning.log_likelihood(energy, DATA, 0.8, key=KEY)
    rows = ((DATA > 0) * 2 ** np.arange(6)).sum(axis=1)
    expected = np.log(np.asarray(exact.probabilities(energy, 0.8)))[rows]
    np.testing.assert_allclose(found.of_samples, expected, atol=1e-5)
    np.testing.assert_allclose(found.value, expected.mean(), rtol=1e-6)
    error = expected.std(ddof=1) / np.sqrt(len(DATA))
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)


def test_hidden_spins_are_summed_out():
    machine = _machine()
    found = learning.log_likelihood(machine, DATA, key=KEY)
    potential = learning.potential(machine, 1.0, DATA)
    np.testing.assert_allclose(found.value, -potential, rtol=1e-5)


def test_whole_weights_are_repeated_samples():
    counts = np.arange(40) % 3
    machine = _machine()
    weighted = learning.log_likelihood(machine, DATA, key=KEY, weights=counts)
    repeated = learning.log_likelihood(machine, np.repeat(DATA, counts, axis=0), key=KEY)
    np.testing.assert_allclose(weighted.value, repeated.value, rtol=1e-5)
    np.testing.assert_allclose(weighted.standard_error, repeated.standard_error, rtol=1e-4)


def test_the_error_holds_that_of_ln_z():
    machine = _machine(30, 30)
    data = np.random.default_rng(2).choice([-1, 1], (5, 30))
    found = learning.log_likelihood(machine, data, key=KEY)
    spread = np.std(found.of_samples, ddof=1) / np.sqrt(5)
    shared = found.log_partition.standard_error
    assert shared > 0
    np.testing.assert_allclose(found.standard_error, np.hypot(spread, shared), rtol=1e-4)


def test_samples_of_which_nothing_is_known_do_not_count():
    machine, gaps = _machine(), np.array(DATA)
    gaps[[3, 17, 39]] = 0
    with pytest.warns(UserWarning, match=r"in 3 of 40 rows no spin is known, such as rows \[3, 17"):
        found = learning.log_likelihood(machine, gaps, key=KEY)
    others = learning.log_likelihood(machine, np.delete(DATA, [3, 17, 39], axis=0), key=KEY)
    np.testing.assert_allclose(found.value, others.value, rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, others.standard_error, rtol=1e-4)
    assert np.all((found.of_samples == 0) == np.isin(np.arange(40), [3, 17, 39]))


def test_one_sample_has_no_error():
    """Nor has one of many that alone has weight; two of unequal weights have a large one."""
    found = learning.log_likelihood(_machine(), DATA[:1], key=KEY)
    assert found.standard_error == np.inf and np.isfinite(found.value)
    alone = np.eye(40)[7]
    assert learning.log_likelihood(_machine(), DATA, key=KEY, weights=alone).standard_error > 1e300
    weights = 0.9 * np.eye(40)[7] + 0.1 * np.eye(40)[8]
    found = learning.log_likelihood(_machine(), DATA, key=KEY, weights=weights)
    apart = found.of_samples[7] - found.of_samples[8]
    error = np.sqrt(0.09 * apart**2 / (1 / 0.82 - 1))
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)


def test_likelihoods_compile_into_a_program():
    data = jnp.asarray(DATA, float)
    value = jax.jit(lambda e, d: learning.log_likelihood(e, d, key=KEY).value)(_machine(), data)
    np.testing.assert_allclose(value, learning.log_likelihood(_machine(), DATA, key=KEY).value)


def test_data_of_other_widths_are_refused():
    with pytest.raises(ValueError, match="data must have 6 spins"):
        learning.log_likelihood(_machine(), DATA[:, :5], key=KEY)
