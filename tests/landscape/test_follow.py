"""States as functions of the parameters: finite differences, closed forms, spinodals."""

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import landscape
from thermogen._batches import cast

N, KEY = 8, jax.random.key(0)
COLUMNS = ("magnetizations", "free_energies", "curvatures")
# Where each functional holds, and has states of some depth.
SCALES = {"naive": 2.0, "adaptive-tap": 0.5, "bethe": 0.5}
ENERGY, BETA, NAIVE = helpers.random_pairwise(N, KEY, 2.0, 0.1), 1.2, tg.NaiveMeanField()


def _library(functional, energy, beta, n_starts=64):
    return tg.find_minima(functional, energy, beta, key=KEY, n_starts=n_starts)


@pytest.mark.parametrize("pair", helpers.quick(("pairwise", "naive"), ("rbm", "tap")))
def test_derivatives_are_finite_differences(pair):
    functional = helpers.FUNCTIONALS[pair[1]]
    energy = helpers.ENERGIES[pair[0]](6, KEY, SCALES.get(pair[1], 0.8))
    library, at = _library(functional, energy, BETA), helpers.along(energy)
    assert library.size

    @jax.jit
    def followed(t):
        return landscape.follow(functional, at(t), BETA * jnp.exp(t), library)

    start = followed(0.0)
    assert np.all(start.exists)
    np.testing.assert_allclose(start.free_energies, library.free_energies, atol=1e-12)
    np.testing.assert_allclose(start.curvatures, library.curvatures, rtol=1e-6)
    for column in COLUMNS:

        def values(t, column=column):
            return getattr(followed(t), column)

        first = helpers.compared(values, jax.jacfwd(values))
        np.testing.assert_allclose(jax.jacrev(values)(0.0), first, rtol=1e-9)
        helpers.compared(jax.jacfwd(values), jax.jacfwd(jax.jacrev(values)))


def test_saddles_have_derivatives_too():
    found = tg.barriers(NAIVE, ENERGY, BETA, _library(NAIVE, ENERGY, BETA))
    good, at = found.indices == 1, helpers.along(ENERGY)
    assert good.any()

    def heights(t):
        return landscape.follow(NAIVE, at(t), BETA, found).free_energies[good]

    followed = landscape.follow(NAIVE, ENERGY, BETA, found)
    np.testing.assert_array_equal(followed.exists, good)
    assert np.all(np.asarray(followed.curvatures)[good] < 0)
    assert np.all(followed.library().kind == tg.search.Kind.POINT)
    np.testing.assert_allclose(followed.free_energies, found.free_energies, atol=1e-9)
    helpers.compared(heights, jax.jacrev(heights))


def test_the_derivative_of_a_free_energy_is_a_mean():
    """Envelope theorem: dG/dh = -m, and dG/dJ_ij = -m_i m_j of naive mean field."""
    library = _library(NAIVE, ENERGY, BETA)
    slopes = jax.jacrev(lambda e: landscape.follow(NAIVE, e, BETA, library).free_energies)(ENERGY)
    m = library.magnetizations
    np.testing.assert_allclose(slopes.fields, -m, atol=1e-9)
    pairs = -m[:, :, None] * m[:, None, :] * (1 - np.eye(N))
    couplings = slopes.couplings + slopes.couplings.swapaxes(1, 2)
    np.testing.assert_allclose(couplings, pairs, atol=1e-9)


def _magnet(field, n=4):
    return tg.Pairwise(jnp.ones((n, n)) - jnp.eye(n), jnp.full(n, field))


def test_a_state_exists_up_to_its_spinodal_and_is_masked_beyond():
    """`m = tanh(3 m + h)` has its spinodal at `1 - m^2 = 1/3`."""
    m = np.sqrt(2 / 3)
    spinodal = 3 * m - np.arctanh(m)
    library = _library(NAIVE, _magnet(0.0), 1.0).expanded()
    assert library.size == 2
    down = int(np.argmin(library.magnetizations[:, 0]))

    @jax.jit
    def followed(field):
        now = landscape.follow(NAIVE, _magnet(field), 1.0, library)
        return now, now.library().weights(1.0), landscape.log_partition(now.library(), 1.0)

    numbers = jax.jit(lambda field: eqx.filter(followed(field), eqx.is_inexact_array))
    forward, backward = jax.jit(jax.jacfwd(numbers)), jax.jit(jax.jacrev(numbers))
    for field in np.linspace(0, 3, 31):
        now, weights, _ = followed(field)
        assert bool(now.exists[down]) == (field < spinodal), field
        assert bool(now.exists[1 - down])
        assert (weights[down] > 0) == (field < spinodal)
        for leaf in jax.tree.leaves((numbers(field), forward(field), backward(field))):
            assert np.all(np.isfinite(leaf))


def test_one_program_follows_many_models_in_either_precision(caplog):
    library = _library(NAIVE, ENERGY, BETA)
    at, steps = helpers.along(ENERGY), np.linspace(-0.05, 0.05, 5)

    @jax.jit
    @jax.vmap
    def mapped(t):
        return landscape.follow(NAIVE, at(t), BETA, library)

    many = mapped(steps)
    for k, t in enumerate(steps):
        one = landscape.follow(NAIVE, at(t), BETA, library)
        np.testing.assert_allclose(many.free_energies[k], one.free_energies, atol=1e-12)
        np.testing.assert_array_equal(many.exists[k], one.exists)
    with helpers.compilations(caplog) as names:
        landscape.follow(NAIVE, at(0.01), 1.1 * BETA, library)
    assert names == []
    single = landscape.follow(NAIVE, cast(at(0.01), jnp.float32), BETA, library)
    double = landscape.follow(NAIVE, at(0.01), BETA, library)
    assert single.magnetizations.dtype == jnp.float32 and np.all(single.exists)
    for column in COLUMNS:
        np.testing.assert_allclose(getattr(single, column), getattr(double, column), rtol=1e-3)


def test_a_padded_library_is_followed_within_one_program():
    @jax.jit
    def both(t):
        energy = helpers.along(ENERGY)(t)
        library = tg.find_minima(NAIVE, energy, BETA, key=KEY, n_starts=32, capacity=16)
        return library, landscape.follow(NAIVE, energy, BETA, library)

    library, now = both(0.0)
    assert 0 < np.sum(library.mask) < 16
    np.testing.assert_array_equal(now.exists, library.mask)
    used = np.asarray(library.mask)
    np.testing.assert_allclose(now.free_energies[used], library.free_energies[used], atol=1e-12)


def test_states_of_other_spins_are_refused():
    library = _library(NAIVE, ENERGY, BETA)
    with pytest.raises(ValueError, match="states must have 4 spins like energy, got 8"):
        landscape.follow(NAIVE, _magnet(0.0), BETA, library)


def _magnet(field, n=4):
    return tg.Pairwise(jnp.ones((n, n)) - jnp.eye(n), jnp.full(n, field))
