"""Arguments that every function asks about: counts, numbers, parameters, seeds."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen._checks import (
    as_array,
    check_count,
    check_finite,
    check_memory,
    check_parameters,
    seeded_key,
    total_memory,
)

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
    "gibbs_potential": lambda e: tg.exact.gibbs_potential(e, 1.0, jnp.zeros(SPINS)),
    "free energy": lambda e: tg.TAP()(e, 1.0, jnp.zeros(SPINS)),
    "solve": lambda e: tg.solve(tg.TAP(), e, 1.0, jnp.zeros(SPINS)),
    "susceptibility": lambda e: tg.susceptibility(tg.TAP(), e, 1.0, jnp.zeros(SPINS)),
    "sample": lambda e: tg.sample(tg.Gibbs(), e, 1.0, key=KEY, n_chains=2, n_sweeps=2),
    "annealing": lambda e: tg.annealed_importance_sampling(e, [1.0], key=KEY, n_chains=2),
    "recall": lambda e: tg.recall(e, 1.0, np.eye(SPINS)[0], key=KEY),
    "fit": lambda e: tg.fit(tg.Pseudolikelihood(), e, np.ones((2, SPINS)), key=KEY),
}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", ENTRIES)
def test_half_precision_is_refused_where_it_would_be_computed_in(name, dtype):
    with pytest.raises(TypeError, match=f"of dtype float32 or float64.*{jnp.dtype(dtype).name}"):
        ENTRIES[name](_energy(0.5, dtype))


@pytest.mark.further
def test_half_precision_is_welcome_where_all_is_float64():
    """The search casts what it is given: the numbers are then those that half precision holds."""
    half = _energy(0.3, jnp.float16)
    exact = jax.tree.map(lambda x: x.astype(jnp.float64), half)
    found, expected = (
        tg.find_minima(tg.NaiveMeanField(), e, 1.0, key=KEY).magnetizations[0]
        for e in (half, exact)
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(found, np.tanh(float(np.float16(0.3))), atol=1e-7)


POINTS = {
    "free energy": lambda m: tg.TAP()(_energy(0.5), 1.0, m),
    "gibbs_potential": lambda m: tg.exact.gibbs_potential(_energy(0.5), 1.0, m),
    "susceptibility": lambda m: tg.susceptibility(tg.TAP(), _energy(0.5), 1.0, m),
    "local_fields": lambda m: tg.energies.local_fields(_energy(0.5), m),
}


@pytest.mark.further
@pytest.mark.parametrize("name", POINTS)
def test_points_of_any_dtype_are_computed_with_in_full_precision(name, unchecked):
    """Integers came back as integers, and half precision as its own rounding."""
    for m in (np.zeros(SPINS, int), *(jnp.full(SPINS, 0.3, d) for d in ("float16", "bfloat16"))):
        exact = POINTS[name](np.asarray(m, float))
        np.testing.assert_allclose(POINTS[name](m), exact, rtol=1e-12, atol=1e-14)


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


# --- missing entries


class _Wrapper:
    """What some library's array with a mask looks like."""

    def __init__(self, values, mask):
        self.values, self.mask = values, mask

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class _LazyMask:
    """What turns into a masked array only when asked for its values."""

    def __init__(self, masked):
        self.masked = masked

    def __array__(self, dtype=None, copy=None):
        return self.masked


def _first_masked(values):
    mask = np.zeros(np.shape(values), bool)
    mask.flat[0] = True
    return np.ma.array(values, mask=mask)


def _wrapped(values):
    masked = _first_masked(values)
    return _Wrapper(masked.data, masked.mask)


def _rows_masked(values):
    return [_first_masked(row) for row in np.atleast_1d(values)]


def _with_none(values):
    objects = np.array(values, object)
    objects.flat[0] = None
    return objects


HIDING = [
    _first_masked,
    _wrapped,
    _rows_masked,
    lambda values: _LazyMask(_first_masked(values)),
    _with_none,
]


@pytest.mark.parametrize("hide", HIDING)
@pytest.mark.parametrize("values", [np.ones(3), np.ones((2, 3)), np.arange(3)])
def test_missing_entries_are_refused(hide, values):
    with pytest.raises(ValueError, match=r"^data (has|is)"):
        as_array("data", hide(values))


def test_pandas_tables_are_welcome_where_nothing_is_missing():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, -1], "b": [-1, 1]})
    for kind in ("int8", "Int64", "Float64"):
        given = table.astype(kind)
        np.testing.assert_array_equal(as_array("data", given), table)
        np.testing.assert_array_equal(tg.datasets.validate_spins(given), table)
        if kind != "int8":
            given.iloc[0, 0] = pandas.NA
            for part in (given, given["a"], given["a"].array, [given["a"]]):
                with pytest.raises(ValueError, match="data has masked or missing entries"):
                    as_array("data", part)


def test_what_hides_nothing_passes():
    plain = np.array([[1.0, -1.0]])
    for given in (np.ma.array(plain), plain.tolist(), [jnp.array([1.0, -1.0])], plain.astype("O")):
        np.testing.assert_array_equal(as_array("data", given), plain)
    for same in (plain, jnp.ones(2)):
        assert as_array("data", same) is same
    assert jax.jit(lambda x: jnp.asarray(as_array("x", [x, x])))(1.0).shape == (2,)


_ENERGY = tg.Pairwise(np.zeros((SPINS, SPINS)), np.zeros(SPINS))
_ROWS, _ROW = np.ones((6, SPINS)), np.ones(SPINS)
_NAIVE = tg.NaiveMeanField()
TAKERS = {
    "validate_spins": (tg.datasets.validate_spins, _ROWS),
    "split": (tg.datasets.split, _ROWS),
    "weights": (
        lambda x: tg.fit(tg.Pseudolikelihood(), _ENERGY, _ROWS, key=KEY, weights=x),
        np.ones(6),
    ),
    "invert": (lambda x: tg.learning.invert(_NAIVE, x, np.eye(SPINS)), np.zeros(SPINS)),
    "retention": (lambda x: tg.exact.retention(_ENERGY, 1.0, x), _ROWS),
    "quench": (lambda x: tg.quench(_NAIVE, _ENERGY, 1.0, x), _ROWS),
    "search": (lambda x: tg.find_minima(_NAIVE, _ENERGY, 1.0, key=KEY, starts=x), _ROWS),
    "flips": (lambda x: tg.kinetics.flip_minima(_ENERGY, x), _ROWS),
    "find_bound_states": (
        lambda x: tg.find_bound_states(_ENERGY, 1.0, key=KEY, functional=None, starts=x),
        _ROWS,
    ),
    "states": (lambda x: tg.Library.from_magnetizations(_NAIVE, _ENERGY, 1.0, x), 0.5 * _ROWS),
    "solve": (lambda x: tg.solve(_NAIVE, _ENERGY, 1.0, init=x), _ROW),
    "init": (
        lambda x: tg.sample(tg.Gibbs(), _ENERGY, 1.0, key=KEY, n_chains=6, n_sweeps=1, init=x),
        _ROWS,
    ),
    "energy": (_ENERGY, _ROW),
    "fields": (lambda x: tg.local_fields(_ENERGY, x), _ROW),
    "gaps": (lambda x: tg.flip_gaps(_ENERGY, x), _ROW),
    "couplings": (lambda x: tg.Pairwise(x, np.zeros(SPINS)), np.zeros((SPINS, SPINS))),
    "terms": (lambda x: tg.Interactions(2, [np.array([[0, 1]])], [x]), np.ones(1)),
    "table": (tg.Complete, np.ones(4)),
    "rbm": (lambda x: tg.RBM(x, np.zeros(2), np.zeros(3)), np.ones((2, 3))),
    "mixture": (lambda x: tg.Mixture.of([_ENERGY, _ENERGY], x, [0.0, 0.0]), np.ones(2)),
    "bits": (tg.spins_from_bits, _ROWS),
    "bits_from": (tg.bits_from_spins, _ROWS),
    "index": (tg.index_from_spins, _ROWS),
    "overlap": (lambda x: tg.overlap(x, x), _ROW),
}


@pytest.mark.parametrize("name", TAKERS)
def test_no_function_drops_a_mask(name, unchecked):
    call, values = TAKERS[name]
    with pytest.raises(ValueError, match="masked"):
        call(_first_masked(values))


@pytest.mark.further
def test_a_mask_of_a_cue_means_unknown():
    energy = tg.Pairwise(np.zeros((SPINS, SPINS)), np.ones(SPINS))
    cue = np.ma.array([-1.0, -1.0, 7.0, 1.0], mask=[False, False, True, False])
    found = tg.recall(energy, 2.0, cue, key=KEY, n_chains=16, n_sweeps=10)
    same = tg.recall(energy, 2.0, cue.filled(0), key=KEY, n_chains=16, n_sweeps=10)
    np.testing.assert_array_equal(found.magnetizations, same.magnetizations)
    np.testing.assert_array_equal(found.magnetizations[jnp.array([0, 1, 3])], [-1, -1, 1])


# --- memory


def test_what_cannot_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("thermogen._checks.total_memory", lambda: 1e6)
    n = 100
    with pytest.raises(ValueError, match=r"fit of 100 spins .* needs about 0.00194 GB of memory"):
        energy = tg.Pairwise(np.zeros((n, n)), np.zeros(n))
        tg.fit(tg.Pseudolikelihood(), energy, np.ones((2, n)), key=KEY)
    with pytest.raises(ValueError, match=r"Hessian of 300 spins needs about 0.00144 GB"):
        energy = tg.Interactions.from_terms(300, {(0, 1): 1.0})
        tg.quench(_NAIVE, energy, 1.0, np.ones((2, 300)))
    with pytest.raises(ValueError, match="enumeration of n = 16 spins needs about"):
        tg.enumerate_spins(16)
    with pytest.raises(ValueError, match="an energy with couplings and fields of this size needs"):
        tg.Pairwise(np.zeros((400, 400)), np.zeros(400))
    with pytest.raises(ValueError, match="at most 24 spins"):
        tg.energies.complete(tg.Interactions.from_terms(30, {(0, 1): 1.0}))
    with pytest.raises(ValueError, match="expected a static integer from 0 to 30"):
        tg.enumerate_spins(40)


def test_machines_know_their_memory():
    assert 1e8 < total_memory() < 1e15
    check_memory("nothing", 0)
    with pytest.raises(ValueError, match=r"a table needs about 1e\+09 GB of memory; this machine"):
        check_memory("a table", 1e18)
