"""Sums over a library against sums by hand, and against exact ensembles."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import logsumexp

import thermogen as tg
from thermogen.landscape import (
    complexity,
    count_states,
    log_partition,
    mixture_bound,
    overlap_distribution,
    overlaps,
)

N = 8
NAIVE = helpers.FUNCTIONALS["naive"]


def _library(**changes) -> tg.Library:
    """Three of five entries in use: a pair of states, then two single ones."""
    m = np.zeros((5, 4))
    m[:3] = [[0.9, 0.9, 0.9, 0.5], [0.9, -0.9, 0.1, 0.2], [0.2, 0.3, 0.4, -0.7]]
    values = {
        "magnetizations": m,
        "free_energies": np.array([-3.0, -2.0, -1.0, np.inf, np.inf]),
        "residuals": np.array([0.0, 0.0, 0.0, np.inf, np.inf]),
        "curvatures": np.array([0.3, 0.1, 0.2, 0.0, 0.0]),
        "hits": np.array([7, 1, 2, 0, 0]),
        "multiplicity": np.array([2, 1, 1, 1, 1]),
        "mask": np.arange(5) < 3,
        "overflow": np.array(False),
    }
    return tg.Library(**(values | changes))


def _mapped(function, *libraries):
    batch = jax.tree.map(lambda *x: jnp.stack(x), *libraries)
    return np.asarray(jax.jit(jax.vmap(function))(batch))


def _pair() -> tuple[tg.Library, tg.Library]:
    return _library(), _library(multiplicity=np.array([1, 2, 2, 1, 1]))


# --- ln Z


@pytest.mark.parametrize("beta", [0.0, 0.7, 3.0])
def test_log_partition_is_the_sum_over_states(beta):
    truth = np.log(np.sum(np.array([2, 1, 1]) * np.exp(beta * np.array([3.0, 2.0, 1.0]))))
    library = _library()
    np.testing.assert_allclose(log_partition(library, beta), truth, rtol=1e-14)
    np.testing.assert_allclose(log_partition(library.expanded(), beta), truth, rtol=1e-14)
    np.testing.assert_allclose(log_partition(library[[2, 0, 1]], beta), truth, rtol=1e-14)
    together = _mapped(lambda x: log_partition(x, beta), *_pair())
    np.testing.assert_allclose(together, [log_partition(x, beta) for x in _pair()])


def test_log_partition_at_the_edges():
    assert log_partition(_library(mask=np.zeros(5, bool)), 1.0) == -np.inf
    assert log_partition(_library()[[]], 1.0) == -np.inf
    deep = _library(free_energies=np.array([-1e5, 0, 0, np.inf, np.inf]))
    np.testing.assert_allclose(log_partition(deep, 10.0), 1e6 + np.log(2))
    # d ln Z / d beta = -<F> at fixed states.
    slope = jax.grad(lambda beta: log_partition(_library(), beta))(0.7)
    free_energies = np.array([-3, -2, -1, 0, 0])
    np.testing.assert_allclose(slope, -_library().weights(0.7) @ free_energies)


# --- the rigorous bound


def _exact_mixture_bound(library: tg.Library, energy, beta: float, w: np.ndarray) -> float:
    """S(Q) - beta <E>_Q of the mixture with weights w, by enumeration."""
    images = library.expanded()[:]
    q = w @ np.array([helpers.product_measure(m) for m in images.magnetizations])
    entropy = -np.sum(q * np.log(q, where=q > 0, out=np.zeros_like(q)))
    return entropy - beta * q @ helpers.energy_table(energy)


def _naive_weights(library: tg.Library, energy, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """-beta F of every image by enumeration, and the normalised weights."""
    depths = []
    for m in library.expanded().magnetizations:
        p = helpers.product_measure(m)
        entropy = -np.sum(p * np.log(p, where=p > 0, out=np.zeros_like(p)))
        depths.append(entropy - beta * p @ helpers.energy_table(energy))
    depths = np.array(depths)
    return depths, np.exp(depths - logsumexp(depths))


@pytest.mark.parametrize("name", ["pairwise", "interactions", "rbm", "complete"])
@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_the_bound_holds_for_any_points(name, beta):
    """The states need not be minima of anything: any product measures bound ln Z."""
    energy = helpers.ENERGIES[name](N, jax.random.key(5))
    corners = np.random.default_rng(0).choice([-1.0, 1.0], (6, N))
    points = np.tanh(np.array([0.5, 1, 2, 3, 4, 30])[:, None] * corners)
    library = tg.Library(
        magnetizations=points,
        free_energies=np.zeros(6),
        residuals=np.zeros(6),
        curvatures=np.ones(6),
        hits=np.ones(6, int),
        multiplicity=np.array([1, 2, 1, 2, 1, 1]),
        mask=np.ones(6, bool),
        overflow=np.array(False),
    )
    bound = mixture_bound(energy, beta, library)
    depths, weights = _naive_weights(library, energy, beta)
    _, log_z = helpers.boltzmann(energy, beta)
    exact = max(_exact_mixture_bound(library, energy, beta, weights), depths.max())
    assert depths.max() - 1e-12 <= bound <= exact + 1e-12
    assert exact <= log_z + 1e-12
    assert bound <= logsumexp(depths) + 1e-12


def _hopfield(n_patterns: int = 2) -> tg.Pairwise:
    patterns = np.sign(np.random.default_rng(3).normal(size=(n_patterns, N)))
    return tg.Pairwise(patterns.T @ patterns / N * (1 - np.eye(N)), np.zeros(N))


def _found(energy, beta: float) -> tg.Library:
    return tg.find_minima(NAIVE, energy, beta, key=jax.random.key(0), n_starts=96, capacity=32)


@pytest.mark.further
@pytest.mark.parametrize("beta", [2.0, 20.0])
@pytest.mark.parametrize(
    "energy", [helpers.random_pairwise(N, jax.random.key(11), fields=0.0), _hopfield()]
)
def test_libraries_bound_and_approach_the_exact_value(energy, beta):
    library = _found(energy, beta)
    truth = float(tg.exact.log_partition(energy, beta))
    bound, estimate = mixture_bound(energy, beta, library), float(log_partition(library, beta))
    single = -beta * library.free_energies[0]
    # Mirror images are disjoint but for the overlap of their tails, so the pair gains ln 2.
    assert single + 0.5 * np.log(2) < bound <= min(truth, estimate) + 1e-12
    if beta == 20.0:
        # What is left are the lowest corners; whatever else there is weighs 2^-5 of them or less.
        table = np.sort(helpers.energy_table(energy))
        heavy = beta * (table - table[0]) < 10
        assert np.exp(-beta * (table[~heavy] - table[0])).sum() < 0.05
        np.testing.assert_allclose([bound, estimate], truth, atol=0.05)


def test_the_bound_closes_for_disjoint_states_and_for_equal_ones():
    energy = helpers.random_pairwise(4, jax.random.key(2))
    corners = np.array([[1.0, 1, 1, 1], [1, 1, 1, -1], [-1, 1, -1, 1]])
    library = _library(magnetizations=np.concatenate([corners, np.zeros((2, 4))]))
    states = np.array([*corners, -corners[0]])  # the first is a pair
    depths = np.array([-0.8 * float(energy(s)) for s in states])
    np.testing.assert_allclose(mixture_bound(energy, 0.8, library), logsumexp(depths), rtol=1e-12)

    same = np.full((5, 4), 0.3)
    library = _library(magnetizations=same, multiplicity=np.ones(5, int))
    single = -0.8 * float(NAIVE(energy, 0.8, same[0]))
    np.testing.assert_allclose(mixture_bound(energy, 0.8, library), single, rtol=1e-12)


def test_the_bound_is_computed_in_float64():
    energy = helpers.random_pairwise(4, jax.random.key(2))
    with jax.enable_x64(False):
        narrow = mixture_bound(energy, 0.8, _library())
    assert narrow == mixture_bound(energy, 0.8, _library())


def test_the_bound_of_nothing_and_of_another_model():
    energy = helpers.random_pairwise(4, jax.random.key(2))
    assert mixture_bound(energy, 1.0, _library()[[]]) == -np.inf
    with pytest.raises(ValueError, match="states of 4 spins; expected 8"):
        mixture_bound(helpers.random_pairwise(8, jax.random.key(2)), 1.0, _library())


@pytest.mark.slow
def test_larger_models_against_annealed_importance_sampling():
    """A cold Hopfield model of 48 spins: the library's ln Z within the error of its states."""
    n, beta = 48, 2.5
    patterns = np.sign(np.random.default_rng(3).normal(size=(2, n)))
    energy = tg.Pairwise(patterns.T @ patterns / n * (1 - np.eye(n)), np.zeros(n))
    library = _found(energy, beta)
    ais = tg.annealed_importance_sampling(
        energy, np.linspace(0.01, beta, 300), key=jax.random.key(1), n_chains=256
    )
    error = 5 * float(ais.standard_error)
    assert error < 0.5
    # Naive mean field misses the fluctuations: of the order of sum_k beta^2 v^2 lambda^2 / 2 < 1.
    assert abs(float(log_partition(library, beta) - ais.log_partition)) < 1 + error
    assert mixture_bound(energy, beta, library) <= float(ais.log_partition) + error


# --- complexity


def test_states_are_counted_with_their_images():
    edges = np.array([-4.0, -2.5, -1.5, -1.0])
    np.testing.assert_array_equal(count_states(_library(), edges), [2, 1, 1])
    np.testing.assert_array_equal(count_states(_library(), np.array([-9.0, -4.0])), [0])
    np.testing.assert_array_equal(count_states(_library(mask=np.zeros(5, bool)), edges), [0, 0, 0])
    together = _mapped(lambda x: count_states(x, edges), *_pair())
    np.testing.assert_array_equal(together, [[2, 1, 1], [1, 2, 2]])


def test_complexity_is_the_logarithm_of_the_mean_number():
    edges = np.array([-4.0, -2.5, -1.5, -0.5, 0.5])
    np.testing.assert_allclose(
        complexity(_library(), edges), np.log([2, 1, 1, 1e-300])[:3].tolist() + [-np.inf]
    )
    np.testing.assert_allclose(complexity(_library(), edges, cumulative=True), np.log([2, 3, 4, 4]))
    np.testing.assert_allclose(complexity(_pair(), edges)[:3], np.log([1.5, 1.5, 1.5]))
    # Annealed is never below quenched (Jensen).
    quenched = np.mean([complexity(x, edges)[:3] for x in _pair()], axis=0)
    assert np.all(complexity(_pair(), edges)[:3] > quenched)
    assert np.all(complexity(_library()[[]], edges) == -np.inf)


def test_bad_complexity():
    with pytest.raises(ValueError, match="at least one library"):
        complexity([], np.array([0.0, 1.0]))
    for edges in (np.array([0.0]), np.array([1.0, 1.0]), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="edges must be two or more increasing"):
            complexity(_library(), edges)
        with pytest.raises(ValueError, match="edges must be two or more increasing"):
            count_states(_library(), edges)
        with pytest.raises(ValueError, match="edges must be two or more increasing"):
            overlap_distribution(_library(), 1.0, edges)


# --- overlaps


def test_overlaps_by_hand():
    library = _library()
    m = library.magnetizations[library.mask]
    q = np.asarray(overlaps(library))
    np.testing.assert_allclose(q[:3, :3], m @ m.T / 4)
    assert q.shape == (5, 5) and np.all(q[3:] == 0) and np.all(q[:, 3:] == 0)
    images = np.asarray(overlaps(library.expanded()[:]))
    signed = np.array([m[0], -m[0], m[1], m[2]])
    np.testing.assert_allclose(images, signed @ signed.T / 4)
    # Modulo the flip: images add signs alone.
    np.testing.assert_allclose(np.abs(images)[np.ix_([0, 2, 3], [1, 2, 3])], np.abs(q[:3, :3]))
    np.testing.assert_allclose(_mapped(overlaps, *_pair())[0], q)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_overlap_distribution_by_hand(beta):
    library, edges = _library(), np.linspace(-1, 1, 9)
    m = library.magnetizations
    states = np.array([m[0], -m[0], m[1], m[2]])
    w = np.exp(-beta * np.array([-3, -3, -2, -1]))
    w /= w.sum()
    q = (states @ states.T / 4).ravel()
    truth, _ = np.histogram(q, edges, weights=np.outer(w, w).ravel())
    p = np.asarray(overlap_distribution(library, beta, edges))
    np.testing.assert_allclose(p, truth, atol=1e-15)
    np.testing.assert_allclose(p.sum(), 1)
    together = _mapped(lambda x: overlap_distribution(x, beta, edges), *_pair())
    np.testing.assert_allclose(together[0], truth, atol=1e-15)


def test_a_ferromagnet_overlaps_at_plus_and_minus_m_squared():
    energy = tg.Pairwise((1 - np.eye(N)) / N, np.zeros(N))
    library = _found(energy, 2.0)
    m = brentq(lambda m: np.tanh(2.0 * (1 - 1 / N) * m) - m, 0.5, 1, xtol=1e-15)
    edges = np.array([-1, -(m**2) - 1e-6, -(m**2) + 1e-6, m**2 - 1e-6, m**2 + 1e-6, 1.0])
    p = overlap_distribution(library, 2.0, edges)
    np.testing.assert_allclose(p, [0, 0.5, 0, 0.5, 0], atol=1e-12)
    # One state: saturated overlaps of rounding above 1 stay in the last bin.
    state = _library(magnetizations=np.ones((5, 4)), multiplicity=np.ones(5, int))
    np.testing.assert_allclose(overlap_distribution(state, 2.0, np.array([0.0, 1.0])), [1])
