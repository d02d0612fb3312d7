"""Bad arguments of public functions: an error that names the argument, never one from deep inside.

Tables of functions and of their counts and numbers; each is called with every bad value.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import exact, landscape, meanfield, retrieval, sampling

ENERGY = tg.Pairwise(0.3 * (np.ones((3, 3)) - np.eye(3)), np.array([0.1, 0.2, -0.3]))
FEW = {"key": jax.random.key(0), "n_chains": 2, "n_sweeps": 2}
AFTER = FEW | {"burn_in": 1}
KEY, DATA, CUE, MASK = jax.random.key(0), np.ones((4, 3)), np.ones(3), np.arange(3) < 1
NAIVE = tg.NaiveMeanField()
LADDER = np.linspace(0, 1, 3)

COUNTS = {
    "sample": (lambda **a: tg.sample(tg.Gibbs(), ENERGY, 1.0, **FEW | a), "n_chains n_sweeps thin"),
    "annealing": (
        lambda **a: tg.annealed_importance_sampling(ENERGY, LADDER, key=KEY, **a),
        "n_chains",
    ),
    "population": (
        lambda **a: sampling.population_annealing(
            ENERGY, LADDER, **{"key": KEY, "n_chains": 9} | a
        ),
        "n_chains n_populations",
    ),
    "integration": (
        lambda **a: sampling.thermodynamic_integration(ENERGY, LADDER, **AFTER | a),
        "n_chains n_sweeps",
    ),
    "reweighting": (
        lambda **a: sampling.multi_histogram_reweighting(ENERGY, LADDER, **AFTER | a),
        "n_chains n_sweeps thin",
    ),
    "search": (
        lambda **a: tg.find_minima(NAIVE, ENERGY, 1.0, key=KEY, **a),
        "n_starts capacity",
    ),
    "certify": (
        lambda **a: tg.certify(ENERGY, 1.0, DATA[:1], key=KEY, **{"threshold": 20} | a),
        "n_trajectories horizon",
    ),
    "find_bound_states": (
        lambda **a: tg.find_bound_states(ENERGY, 1.0, key=KEY, **a),
        "n_starts capacity n_trajectories",
    ),
    "recall": (
        lambda **a: tg.recall(ENERGY, 1.0, MASK * CUE, **FEW | a),
        "n_chains n_sweeps capacity",
    ),
    "first_hits": (
        lambda **a: retrieval.first_hits(ENERGY, 1.0, MASK * CUE, DATA, **FEW | a),
        "n_chains n_sweeps",
    ),
    "experts": (
        lambda **a: tg.fit_experts(ENERGY, DATA, objective=tg.Pseudolikelihood(), key=KEY, **a),
        "n_experts n_starts n_rounds",
    ),
    "objective": (tg.PersistentCD, "n_chains n_sweeps"),
    "quench": (lambda **a: tg.quench(NAIVE, ENERGY, 1.0, DATA, **a), "max_steps"),
    "follow": (
        lambda **a: meanfield.follow_beta(NAIVE, ENERGY, (0.5, 1.0), CUE, **a),
        "capacity",
    ),
    "multistart": (
        lambda **a: tg.search.multistart(lambda x: jnp.sum(x**4), DATA, **a),
        "max_steps n_flat",
    ),
    "energy_barriers": (
        lambda **a: landscape.energy_barriers(ENERGY, DATA[:1], key=KEY, **a),
        "width n_floods",
    ),
    "gate": (
        lambda **a: retrieval.gate(
            tg.Mixture.of([ENERGY, ENERGY], [0.5, 0.5], [2.0, 2.0]),
            MASK * CUE,
            key=KEY,
            **a,
        ),
        "n_chains n_sweeps",
    ),
    "exact.sample": (lambda **a: exact.sample(ENERGY, 1.0, key=KEY, **a), "n_samples"),
    "density": (lambda **a: exact.density_of_states(ENERGY, **a), "n_bins"),
    "spectrum": (lambda **a: exact.glauber_spectrum(ENERGY, 1.0, **a), "n_eigenvalues"),
}
HITS = functools.partial(retrieval.first_hits, ENERGY, cue=MASK * CUE, targets=DATA)
NUMBERS = {
    "certify": (lambda **a: tg.certify(ENERGY, 1.0, DATA[:1], key=KEY, **a), "threshold"),
    "metastable_sets": (lambda **a: exact.metastable_sets(ENERGY, 1.0, **a), "threshold"),
    "recall": (lambda **a: tg.recall(ENERGY, cue=MASK * CUE, **FEW | a), "beta"),
    "first_hits": (
        lambda **a: retrieval.first_hits(ENERGY, cue=MASK * CUE, targets=DATA, **FEW | a),
        "beta",
    ),
    "solve": (lambda **a: tg.solve(NAIVE, ENERGY, init=CUE, **a), "beta"),
    "search": (lambda **a: tg.find_minima(NAIVE, ENERGY, key=KEY, **a), "beta"),
    "find_bound_states": (lambda **a: tg.find_bound_states(ENERGY, key=KEY, **a), "beta"),
    "gibbs_potential": (lambda **a: exact.gibbs_potential(ENERGY, m=0.5 * CUE, **a), "beta"),
}


@pytest.mark.parametrize("bad", [1.5, np.nan, np.inf, -1, True, "2"], ids=repr)
@pytest.mark.parametrize("name", COUNTS)
def test_bad_counts_are_named(name, bad, unchecked):
    function, counts = COUNTS[name]
    for count in counts.split():
        with pytest.raises((TypeError, ValueError), match=count):
            function(**{count: bad})


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0], ids=repr)
@pytest.mark.parametrize("name", NUMBERS)
def test_bad_numbers_are_named(name, bad, unchecked):
    function, number = NUMBERS[name]
    with pytest.raises((TypeError, ValueError), match=number):
        function(**{number: bad})


EXACT = [
    exact.log_partition,
    exact.free_energy,
    exact.probabilities,
    exact.mean_energy,
    exact.entropy,
    exact.heat_capacity,
    exact.magnetizations,
    exact.correlations,
    exact.relaxation_times,
]


@pytest.mark.parametrize("function", EXACT, ids=lambda f: f.__name__)
def test_exact_functions_take_one_finite_beta(function, unchecked):
    for bad in (np.nan, np.inf, np.ones(2)):
        with pytest.raises((TypeError, ValueError), match="beta"):
            function(ENERGY, bad)


def test_parameters_that_are_not_finite_are_refused(unchecked):
    """They need not have come by the constructor."""
    lost = jax.tree.map(lambda x: x * jnp.nan, ENERGY)
    for call in (
        lambda: tg.recall(lost, 1.0, MASK * CUE, **FEW),
        lambda: retrieval.first_hits(lost, 1.0, MASK * CUE, DATA, **FEW),
        lambda: exact.log_partition(lost, 1.0),
        lambda: exact.magnetizations(lost, 1.0),
        lambda: tg.sample(tg.Gibbs(), lost, 1.0, **FEW),
    ):
        with pytest.raises(ValueError, match="energy must have finite parameters"):
            call()


@pytest.mark.further
def test_lists_and_integers_of_numpy_are_welcome(unchecked):
    options = FEW | {"n_chains": np.int32(2), "n_sweeps": jnp.asarray(2)}
    ours = tg.recall(ENERGY, 1, [1, 0, 0], **options)
    truth = tg.recall(ENERGY, 1.0, MASK * CUE, **FEW)
    np.testing.assert_array_equal(ours.configurations, truth.configurations)
    hits = retrieval.first_hits(ENERGY, 1, [1, 0, 0], [[1, 1, 1]], **options)
    assert hits.shape == (2,)
