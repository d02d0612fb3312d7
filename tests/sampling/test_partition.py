import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import RESULTS, exact, sampling

KEY = jax.random.key(0)


def _glass(n):
    upper = np.triu(np.random.default_rng(n).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(jnp.asarray(upper + upper.T), jnp.linspace(-1, 1, n))


def _chain(n):
    return tg.Interactions(n, [np.stack([np.arange(n - 1), np.arange(1, n)], 1)], [jnp.ones(n - 1)])


@pytest.mark.parametrize(
    "energy", [_glass(9), _chain(300), tg.RBM.random(3, np.zeros(40), key=KEY)]
)
def test_ln_z_is_exact_where_that_takes_little(energy):
    found = sampling.log_partition(energy, 0.7, key=KEY)
    assert sampling.is_summed(energy) and found.result == RESULTS.converged
    assert found.standard_error == 0 and found.ess == np.inf
    expected = exact.log_partition(energy, 0.7)
    np.testing.assert_allclose(found.log_partition, expected, rtol=1e-6)


def test_ln_z_of_many_spins_is_annealed_with_an_error():
    glass = _glass(22)
    found = sampling.log_partition(glass, 0.7, key=KEY, n_rungs=100)
    assert not sampling.is_summed(glass) and 0 < found.standard_error < 0.1
    expected = exact.log_partition(glass, 0.7)
    assert abs(found.log_partition - expected) < 5 * found.standard_error


def test_ln_z_maps_over_temperatures():
    glass = _glass(6)
    betas = jnp.array([0.5, 1.0])
    mapped = jax.vmap(lambda b: sampling.log_partition(glass, b, key=KEY).log_partition)(betas)
    expected = [exact.log_partition(glass, b) for b in (0.5, 1.0)]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)


def test_counts_are_checked():
    with pytest.raises(ValueError, match="n_rungs"):
        sampling.log_partition(_glass(4), 1.0, key=KEY, n_rungs=0)


def test_another_beta_compiles_nothing(caplog):
    glass, data = _glass(7), np.ones((3, 7))

    def all_of(beta):
        sampling.log_partition(glass, beta, key=KEY)
        sampling.divergence(glass, glass, beta, key=KEY)
        tg.learning.log_likelihood(glass, data, beta, key=KEY)

    all_of(0.7)
    with helpers.compilations(caplog) as names:
        all_of(0.9)
    assert names == []
