"""Completeness estimates against landscapes that are enumerated, and against their definitions."""

import itertools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.search._completeness import completeness, discovery_curve
from thermogen.search._curvature import _by_gradients, _dense
from thermogen.search._merge import Pool, leaders
from thermogen.search._newton import is_surely_positive
from thermogen.search._quench import make_problem

N = 12
BETA = 20.0
NAIVE = helpers.FUNCTIONALS["naive"]


def _library(hits, overflow: bool = False) -> tg.Library:
    hits = np.array(hits, int)
    k = len(hits)
    return tg.Library(
        magnetizations=np.zeros((k, 2)),
        free_energies=np.arange(k, dtype=float),
        residuals=np.zeros(k),
        curvatures=np.ones(k),
        hits=hits,
        multiplicity=np.ones(k, int),
        mask=hits > 0,
        overflow=np.array(overflow),
    )


def test_chao1_by_hand():
    """Six states: three hit once, two twice, one five times."""
    estimate = completeness(_library([5, 2, 1, 1, 1, 2, 0]))
    n, once, twice = 12, 3, 2
    assert estimate.coverage == 1 - once / n
    unseen = (n - 1) / n * once**2 / (2 * twice)
    np.testing.assert_allclose(estimate.n_states, 6 + unseen)
    share, ratio = (n - 1) / n, once / twice
    variance = twice * (share / 2 * ratio**2 + share**2 * ratio**3 + share**2 * ratio**4 / 4)
    spread = np.exp(1.959963984540054 * np.sqrt(np.log(1 + variance / unseen**2)))
    bounds = np.floor(6 + unseen / spread), np.ceil(6 + unseen * spread)
    np.testing.assert_array_equal(estimate.n_states_interval, bounds)
    error = 1.959963984540054 * np.sqrt(once * (1 - once / n) + 2 * twice) / n
    np.testing.assert_allclose(estimate.coverage_interval, (0.75 - error, min(1, 0.75 + error)))


def test_chao1_without_doubletons():
    n, once = 7, 3
    estimate = completeness(_library([4, 1, 1, 1]))
    np.testing.assert_allclose(estimate.n_states, 4 + (n - 1) / n * once * (once - 1) / 2)
    sure = completeness(_library([50, 40]))
    assert sure.coverage == 1 and sure.n_states == 2 and sure.n_states_interval[0] == 2
    assert sure.n_states_interval[1] <= 3
    np.testing.assert_allclose(sure.coverage_interval, (1 + np.log(0.05) / 90, 1))
    # Two states, hit three times in all: a third one would surprise nobody.
    assert completeness(_library([3, 0])).n_states_interval[1] > 1


def test_discovery_curve_is_the_mean_over_orders():
    hits = [3, 2, 1]
    labels = np.repeat(np.arange(3), hits)
    curve = discovery_curve(_library([*hits, 0]), np.arange(7))
    for t in range(7):
        sizes = [len(set(labels[list(s)])) for s in itertools.combinations(range(6), t)]
        np.testing.assert_allclose(curve[t], np.mean(sizes), atol=1e-12)


@pytest.mark.parametrize(
    ("library", "level", "message"),
    [
        (_library([3, 1], overflow=True), 0.95, "raise capacity"),
        (_library([0, 0]), 0.95, "got an empty one"),
        (_library([3, 1]), 1.0, "level must lie between 0 and 1"),
    ],
)
def test_bad_input(library, level, message):
    with pytest.raises(ValueError, match=message):
        completeness(library, level=level)
    with pytest.raises(ValueError, match="between 0 and the 4"):
        discovery_curve(_library([3, 1]), np.array([5]))


@pytest.mark.further
def test_claimed_coverage_against_all_corners():
    """Truth: the share of all corners that fall to states which the library holds.

    Esty's interval is asymptotic; in 40 searches of 32 quenches at least 3 in 4 must hold the
    truth within it, and the mean error of the claim must vanish within 4 sigma.
    """
    corners = helpers.configurations(N)
    errors, inside, bounds = [], [], []
    for model in range(4):
        energy = helpers.random_pairwise(N, jax.random.key(model), fields=0.1)
        ends = tg.quench(NAIVE, energy, BETA, corners)
        good = np.asarray(ends.result == tg.RESULTS.converged)
        everything = Pool(2**N, False, lambda fields: np.zeros(len(fields)))
        everything.add(jax.tree.map(lambda x, rows=np.flatnonzero(good): x[rows], ends))
        truth = everything.library(N)
        assert truth.hits.sum() == good.sum() and truth.size > 5
        for seed in range(10):
            library = tg.find_minima(NAIVE, energy, BETA, key=jax.random.key(seed), n_starts=32)
            held = library.nearest(truth.magnetizations) >= 0
            assert held.sum() == library.size
            covered = truth.hits[held].sum() / truth.hits.sum()
            claim = completeness(library)
            errors.append(claim.coverage - covered)
            low, high = claim.coverage_interval
            inside.append(low - 1e-9 <= covered <= high + 1e-9)
            bounds.append(claim.n_states_interval[0] <= truth.size)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors)) + 1e-3
    assert np.mean(inside) > 0.75
    assert np.mean(bounds) > 0.9


def test_leaders_modulo_the_flip():
    m = np.array([[0.9, 0.0, -0.5], [-0.9, 1e-4, 0.5], [0.9, 0.0, -0.5 + 2e-3], [0.9, 0, 0.5]])
    index, sign = leaders(m, True)
    np.testing.assert_array_equal(index, [0, 0, 2, 3])
    np.testing.assert_array_equal(sign, [1, -1, 1, 1])
    index, sign = leaders(m, False)
    np.testing.assert_array_equal(index, np.arange(4))
    # Where all magnetizations are undecided only their distance counts.
    index, _ = leaders(np.array([[1e-5, -1e-5], [-1e-5, 2e-5]]), True)
    np.testing.assert_array_equal(index, [0, 0])


@pytest.mark.further
def test_the_search_stops_at_the_coverage():
    energy = helpers.random_pairwise(N, jax.random.key(0), fields=0.1)
    rounds, options = [], {"key": jax.random.key(0), "n_starts": 4096}
    library = tg.find_minima(
        NAIVE, energy, BETA, coverage=0.95, callback=lambda *x: rounds.append(x), **options
    )
    assert library.coverage() >= 0.95 and library.hits.sum() < 4096
    # The descents that are under way then come to their ends, and no others.
    done = [n for partial, n in rounds if partial.coverage() >= 0.95]
    assert done[-1] - done[0] <= 256
    with pytest.raises(ValueError, match=r"coverage must lie in \(0, 1\], got 0.0"):
        tg.find_minima(NAIVE, energy, BETA, coverage=0.0, **options)


def test_positivity_is_proved_or_left_open():
    """Never claimed for a matrix that is not positive, nor missed for a well-conditioned one."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    lowest = np.array([-1.0, -1e-2, -1e-5, -1e-7, 0.0, 1e-1, 1.0])
    spectra = np.concatenate([lowest[:, None], np.tile(rng.uniform(0.5, 2, 63), (7, 1))], axis=1)
    matrices = np.einsum("ik,bk,jk->bij", basis, spectra, basis)
    proved = jax.jit(jax.vmap(is_surely_positive))(matrices)
    np.testing.assert_array_equal(proved, lowest >= 1e-1)


@pytest.mark.further
def test_curvatures_are_those_of_dense_matrices():
    energy = helpers.random_pairwise(N, jax.random.key(1), fields=0.1)
    problem = make_problem(NAIVE, energy, 4.0)
    corners = helpers.configurations(N)[:32]
    fields = tg.quench(NAIVE, energy, 4.0, corners).state["fields"]
    values, _, settled = _by_gradients(problem, jnp.asarray(256), fields)
    assert np.all(settled)
    np.testing.assert_allclose(values, _dense(problem, fields), rtol=1e-7)
