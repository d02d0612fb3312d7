"""Arguments that every function asks about: counts, numbers, parameters, seeds."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen._checks import check_count, check_finite, check_parameters, seeded_key

SPINS, KEY = 4, jax.random.key(0)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), jnp.array(3)])
def test_integers_of_all_kinds_are_counts(value):
    count = check_count("n", value)
    assert count == 3
    assert type(count) is int


@pytest.mark.parametrize("value", [3.0, np.nan, np.inf, True, np.True_, "3", None, [3], np.ones(2)])
def test_what_is_no_count_is_named(value):
    with pytest.raises(TypeError, match=r"n_chains must be an integer, got"):
        check_count("n_chains", value)


@pytest.mark.parametrize(("value", "message"), [(0, "at least 1, got 0"), (2**31, "at most")])
def test_counts_out_of_range_are_named(value, message):
    with pytest.raises(ValueError, match=f"n_chains must be {message}"):
        check_count("n_chains", value)


def test_a_traced_count_is_refused():
    with pytest.raises(TypeError):
        jax.jit(lambda n: check_count("n", n))(3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(np.nan), jnp.array(np.inf)])
def test_numbers_that_are_not_finite_are_named(value):
    with pytest.raises(ValueError, match="horizon must be finite, got"):
        check_finite("horizon", value)


@pytest.mark.parametrize("value", [0, -1.0, np.nan])
def test_numbers_that_are_not_positive_are_named(value):
    check_finite("beta", 1, positive=True)
    with pytest.raises(ValueError, match="beta must be positive and finite, got"):
        check_finite("beta", value, positive=True)


@pytest.mark.parametrize("value", ["1", None, 1j, True, [1.0], fractions.Fraction(1)])
def test_what_is_no_number_is_named(value):
    with pytest.raises(TypeError, match="beta must be one real number"):
        check_finite("beta", value)


def _energy(value, dtype=jnp.float64):
    energy = tg.Pairwise(jnp.zeros((SPINS, SPINS)), jnp.ones(SPINS))
    return jax.tree.map(lambda x: (value * x).astype(dtype), energy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_named(value):
    with pytest.raises(ValueError, match="finite parameters, got Pairwise with NaN"):
        check_parameters(_energy(value))
    jax.jit(check_parameters)(_energy(value))  # traced: codes must tell


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, jnp.complex64])
def test_dtypes_that_nothing_computes_in_are_named(dtype):
    message = f"float32 or float64, got Pairwise of {jnp.dtype(dtype).name}"
    for check in (check_parameters, jax.jit(check_parameters)):
        with pytest.raises(TypeError, match=message):
            check(_energy(1.0, dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_parameters_that_are_right_pass(dtype):
    check_parameters(_energy(1.0, dtype))
    check_parameters(tg.Interactions(SPINS, [], []))  # no parameters at all


# With a fixed key, and data of one configuration.
ENTRIES = {
    "log_partition": lambda e: tg.exact.log_partition(e, 1.0),
    "magnetizations": lambda e: tg.exact.magnetizations(e, 1.0),
    "gibbs_potential": lambda e: tg.exact.gibbs_potential(e, jnp.zeros(SPINS), 1.0),
    "free energy": lambda e: tg.TAP()(e, jnp.zeros(SPINS), 1.0),
    "solve": lambda e: tg.solve(tg.TAP(), e, 1.0, jnp.zeros(SPINS)),
    "susceptibility": lambda e: tg.susceptibility(tg.TAP(), e, jnp.zeros(SPINS), 1.0),
    "sample": lambda e: tg.sample(tg.Gibbs(), e, 1.0, key=KEY, n_chains=2, n_sweeps=2),
    "annealing": lambda e: tg.annealed_importance_sampling(e, [1.0], key=KEY, n_chains=2),
    "recall": lambda e: tg.recall(e, np.ones(SPINS), np.arange(SPINS) < 2, 1.0, key=KEY),
    "fit": lambda e: tg.fit(e, np.ones((2, SPINS)), objective=tg.Pseudolikelihood(), key=KEY),
}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", ENTRIES)
def test_half_precision_is_refused_where_it_would_be_computed_in(name, dtype):
    with pytest.raises(TypeError, match=f"of dtype float32 or float64.*{jnp.dtype(dtype).name}"):
        ENTRIES[name](_energy(0.5, dtype))


def test_half_precision_is_welcome_where_all_is_float64():
    """The search casts what it is given: the numbers are then those that half precision holds."""
    half = _energy(0.3, jnp.float16)
    exact = jax.tree.map(lambda x: x.astype(jnp.float64), half)
    found, expected = (
        tg.find_bound_states(tg.NaiveMeanField(), e, 1.0, key=KEY).magnetizations[0]
        for e in (half, exact)
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found, np.tanh(float(np.float16(0.3))), atol=1e-7)


@pytest.mark.parametrize("x64", [True, False])
def test_seeds_do_not_repeat(x64):
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 1]
    with jax.enable_x64(x64):
        keys = np.array([jax.random.key_data(seeded_key(seed)) for seed in seeds])
        ordinary = jax.random.key_data(jax.random.key(1))
    assert len(np.unique(keys, axis=0)) == len(seeds)
    np.testing.assert_array_equal(keys[1], ordinary)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        seeded_key(-1)
