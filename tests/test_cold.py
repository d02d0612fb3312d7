"""What must not break where beta times an energy is beyond what a float resolves."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import energies, landscape
from thermogen._cold import above_lowest, log_two_cosh


@pytest.mark.further
def test_free_spin_in_a_field_and_its_derivatives():
    """Where |h| has a kink, too."""
    fields, beta = np.array([-2.0, -1e-3, 0, 0.3, 5]), 1.7
    value = jax.vmap(lambda h: log_two_cosh(h, beta))(fields)
    np.testing.assert_allclose(value, np.log(2 * np.cosh(beta * fields)) / beta, rtol=1e-14)
    slope = jax.vmap(jax.grad(log_two_cosh), (0, None))(fields, beta)
    np.testing.assert_allclose(slope, np.tanh(beta * fields), rtol=1e-14)
    bend = jax.vmap(jax.grad(jax.grad(log_two_cosh)), (0, None))(fields, beta)
    np.testing.assert_allclose(bend, beta / np.cosh(beta * fields) ** 2, rtol=1e-7)
    by_beta = jax.vmap(jax.grad(log_two_cosh, 1), (0, None))(fields, beta)
    x = np.abs(beta * fields)
    entropy = np.log1p(np.exp(-2 * x)) + 2 * x / (1 + np.exp(2 * x))
    np.testing.assert_allclose(by_beta, -entropy / beta**2, rtol=1e-12)
    mixed = jax.vmap(jax.grad(jax.grad(log_two_cosh), argnums=1), (0, None))(fields, beta)
    np.testing.assert_allclose(mixed, fields / np.cosh(beta * fields) ** 2, rtol=1e-7)
    mixed = jax.vmap(jax.grad(jax.grad(log_two_cosh, 1)), (0, None))(fields, beta)
    np.testing.assert_allclose(mixed, fields / np.cosh(beta * fields) ** 2, rtol=1e-7)
    for huge in (1e30, np.finfo(np.float64).max):
        assert jax.grad(log_two_cosh, 1)(jnp.asarray(5.0), huge) == 0


@pytest.mark.further
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fields_of_a_machine_in_the_cold(dtype):
    machine = helpers.random_rbm(7, jax.random.key(0))
    energy = jax.tree.map(lambda x: x.astype(dtype), machine)
    w, a, b = (np.asarray(x, float) for x in jax.tree.leaves(machine))
    s = np.array([1.0, -1, -1, 1])

    def lowest(s):  # hidden spins follow their fields
        return -a @ s - np.abs(b + s @ w).sum()

    flips = np.where(np.eye(4, dtype=bool), -s, s)
    expected = 0.5 * s * np.array([lowest(x) - lowest(s) for x in flips])
    for beta in (1e6, 1e30, np.finfo(dtype).max):
        beta = jnp.asarray(beta, dtype)
        visible = jnp.asarray(s, dtype)
        free = energies.visible_free_energy(energy, beta, visible)
        np.testing.assert_allclose(free, lowest(s), rtol=1e-5)
        fields = energies.conditional_fields(energy, beta, visible)
        np.testing.assert_allclose(fields, expected, rtol=1e-5, atol=1e-5)
        one = energies.conditional_field(energy, beta, visible, 2)
        np.testing.assert_allclose(one, expected[2], rtol=1e-5, atol=1e-5)


def test_what_rounding_tells_apart_is_equal():
    table = np.array([0.3, 0.1 + 0.2, 0.3 + 1e-9, 7])
    for values in (table, jnp.asarray(table)):
        lowest, above = above_lowest(values)
        np.testing.assert_allclose(above, [0, 0, 1e-9, 6.7], atol=1e-15)
        assert lowest == 0.3
    # Derivatives are those of the difference, at equals too.
    slopes = jax.jacobian(lambda x: above_lowest(x)[1])(jnp.asarray(table))
    np.testing.assert_array_equal(slopes, np.eye(4))


@pytest.mark.further
def test_equal_states_of_a_library_weigh_the_same_at_any_beta():
    """Two blocks of four spins with free signs: states that are no mirror images are equal."""
    couplings = np.kron(np.eye(2), 0.1 * (np.ones((4, 4)) - np.eye(4)))
    energy = tg.Pairwise(couplings, np.zeros(8))
    library = tg.find_minima(tg.NaiveMeanField(), energy, 8.0, key=jax.random.key(0), n_starts=32)[
        :
    ]
    assert library.size == 2
    for beta in (8.0, 1e10, 1e300):
        np.testing.assert_allclose(library.weights(beta), 0.5, rtol=1e-6)
        assert np.isfinite(landscape.log_partition(library, 8.0))
    with pytest.raises(ValueError, match="beta must be finite, got inf"):
        library.weights(np.inf)


@pytest.mark.further
@pytest.mark.parametrize("kernel", [tg.Gibbs(), tg.Metropolis()], ids=["gibbs", "metropolis"])
def test_chains_do_not_overflow(kernel):
    """A magnet in a field from any start: all up, though beta times a field is no float."""
    energy = tg.Pairwise(np.float32(np.ones((5, 5)) - np.eye(5)), np.full(5, 6, np.float32))
    options = {"key": jax.random.key(0), "n_chains": 8, "n_sweeps": 40}
    for beta in (1e30, 3e38, 1e300):
        assert np.all(tg.sample(kernel, energy, beta, **options)[:, -1] == 1)
