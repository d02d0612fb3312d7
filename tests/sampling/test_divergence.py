import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import exact, sampling

KEY = jax.random.key(0)


def _glass(n, seed, scale=1.0):
    upper = scale * np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(jnp.asarray(upper + upper.T), jnp.linspace(-0.5, 0.5, n))


def _table(energy, beta):
    p = np.asarray(exact.probabilities(energy, beta), float)
    return p / p.sum()


def test_small_models_are_compared_exactly():
    a, b = _glass(7, 0), _glass(7, 1)
    found = sampling.divergence(a, b, 0.8, key=KEY)
    p, q = _table(a, 0.8), _table(b, 0.8)
    np.testing.assert_allclose(found.forward.value, p @ np.log(p / q), rtol=1e-4)
    np.testing.assert_allclose(found.backward.value, q @ np.log(q / p), rtol=1e-4)
    np.testing.assert_allclose(found.symmetric.value, (p - q) @ np.log(p / q), rtol=1e-4)
    ratio = exact.log_partition(b, 0.8) - exact.log_partition(a, 0.8)
    np.testing.assert_allclose(found.log_ratio.value, ratio, atol=1e-4)
    assert found.forward.standard_error == 0


def test_divergence_of_sampled_models_has_an_error():
    # Two halves that know nothing of each other, one of them the same: of small divergences.
    a, b = _glass(11, 0), _glass(11, 1, scale=0.5)
    p, q = _table(a, 1.0), _table(b, 1.0)
    whole_a, whole_b = (
        tg.Pairwise(jax.scipy.linalg.block_diag(x.couplings, x.couplings), jnp.tile(x.fields, 2))
        for x in (a, b)
    )
    found = sampling.divergence(whole_a, whole_b, key=KEY)
    for estimate, truth in [
        (found.forward, 2 * p @ np.log(p / q)),
        (found.backward, 2 * q @ np.log(q / p)),
        (found.symmetric, 2 * (p - q) @ np.log(p / q)),
    ]:
        assert 0 < estimate.standard_error < 0.2
        assert abs(estimate.value - truth) < 5 * estimate.standard_error


def test_hidden_spins_are_summed_out_on_both_sides():
    machine = tg.RBM(jnp.zeros((5, 2)), jnp.linspace(-1, 1, 5), jnp.zeros(2))
    free = tg.Pairwise(jnp.zeros((5, 5)), jnp.linspace(-1, 1, 5))
    found = sampling.divergence(machine, free, key=KEY)
    np.testing.assert_allclose(found.forward.value, 0, atol=1e-4)
    np.testing.assert_allclose(found.symmetric.value, 0, atol=1e-4)


def test_models_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="a and b must have as many visible spins, got 5 and 6"):
        sampling.divergence(_glass(5, 0), _glass(6, 0), key=KEY)
