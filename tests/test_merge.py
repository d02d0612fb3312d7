"""Results of independent runs, merged: against one run of all, and against enumeration."""

import functools
import re
import textwrap

import families
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import thermogen as tg
from thermogen import sampling, search

N, BETA = 8, 2.0
NAIVE = tg.NaiveMeanField()
GLASS = helpers.random_pairwise(N, jax.random.key(11), fields=0.1)
# Two orthogonal patterns of different strength, and their mirror images.
PATTERNS = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1]])
_STRENGTHS = np.array([[1.2], [1.0]])
EVEN = tg.Pairwise(PATTERNS.T @ (_STRENGTHS * PATTERNS) / N - 2.2 / N * np.eye(N), np.zeros(N))


@functools.cache
def _searched(seed: int, even: bool = False, n_starts: int = 32) -> tg.Library:
    energy = EVEN if even else GLASS
    key = jax.random.key(seed)
    return tg.find_minima(NAIVE, energy, BETA, key=key, n_starts=n_starts, capacity=32)


def _assert_equal(a: tg.Library, b: tg.Library) -> None:
    """Modulo mirror images where they count."""
    for name in vars(a):
        found, expected = getattr(a, name), getattr(b, name)
        if name in ("magnetizations", "fields"):
            found, expected = (
                np.where((x.multiplicity == 2) & (y[:, 0] < 0), -y.T, y.T)
                for x, y in ((a, found), (b, expected))
            )
        np.testing.assert_allclose(found, expected, atol=1e-7, err_msg=name)


# --- libraries


@pytest.mark.parametrize("even", [False, True])
def test_runs_are_one_run_of_all_their_starts(even):
    """Also modulo mirror images: parts of one batch of quenches, each a library of its own."""
    energy = EVEN if even else GLASS
    starts = np.asarray(jax.random.uniform(jax.random.key(1), (48, N), minval=-1, maxval=1))
    solution = tg.quench(NAIVE, energy, BETA, starts)
    parts = [jax.tree.map(lambda x, k=k: x[k::3], solution) for k in range(3)]
    make = functools.partial(tg.Library.from_solution, NAIVE, energy, BETA)
    merged, whole = tg.merge([make(part) for part in parts]), make(solution)
    assert len(whole) > 1 and np.any(whole.multiplicity == 2) == even
    _assert_equal(merged, whole)
    assert merged.coverage() == whole.coverage()
    assert search.completeness(merged) == search.completeness(whole)


def test_disjoint_runs_hold_all_and_each_state_alone():
    whole = _searched(0)
    assert len(whole) >= 2
    merged = tg.merge([whole[:1], _empty(), _searched(1)[:0]])
    assert len(merged) == 1 and merged.hits[0] == whole.hits[0]
    # The lower state may come last.
    other = _searched(1)
    both = tg.merge([other[1:], whole[:1]])
    np.testing.assert_array_equal(both.free_energies, np.sort(both.free_energies))
    assert both.nearest(whole.magnetizations[:1])[0] == 0 and both.hits[0] == whole.hits[0]


def _empty() -> tg.Library:
    return tg.Library(np.zeros((0, N)), *(np.zeros(0),) * 3, *(np.zeros(0, int),) * 2)


def test_empty_runs_are_an_empty_library_and_count_what_found_nothing():
    lost = tg.Library(
        *(_empty().magnetizations, *(np.zeros(0),) * 3, *(np.zeros(0, int),) * 2),
        unresolved=np.array(3),
        runs=np.array([[1, 2]], np.uint32),
    )
    other = tg.Library(
        *(_empty().magnetizations, *(np.zeros(0),) * 3, *(np.zeros(0, int),) * 2),
        unresolved=np.array(4),
        runs=np.array([[3, 4]], np.uint32),
    )
    merged = tg.merge([lost, other])
    assert len(merged) == 0 and merged.unresolved == 7 and len(merged.runs) == 2


def test_padded_runs_of_a_compiled_search():
    """Arrays of a fixed length, of which a part is in use."""

    @jax.jit
    def search_of(key):
        return tg.find_minima(NAIVE, GLASS, BETA, key=key, n_starts=32, capacity=32)

    padded = [search_of(jax.random.key(seed)) for seed in (0, 1)]
    assert all(len(run.hits) == 32 > len(run) for run in padded)
    merged, plain = tg.merge(padded), tg.merge([run[:] for run in padded])
    _assert_equal(merged, plain)
    assert np.all(merged.mask) and merged.hits.sum() == sum(int(run.hits.sum()) for run in padded)


def test_a_run_that_comes_twice_counts_once_and_is_said():
    first, second = _searched(0), _searched(1)
    with pytest.warns(UserWarning, match="results 0, 2 share the quenches of a run; these count"):
        thrice = tg.merge([first, second, first])
    _assert_equal(thrice, tg.merge([first, second]))
    # A longer search from the same key repeats the shorter one; a merged library holds its runs.
    with pytest.warns(UserWarning, match="results 0, 1 share"):
        longer = tg.merge([first, tg.merge([first, second])])
    _assert_equal(longer, tg.merge([first, second]))


@pytest.mark.parametrize(
    ("functional", "energy", "beta", "names"),
    [
        (NAIVE, EVEN, BETA, "energy"),
        (NAIVE, GLASS, 1.0, "beta"),
        (tg.TAP(), GLASS, BETA, "functional"),
    ],
)
def test_runs_of_another_problem_are_refused(functional, energy, beta, names):
    key = jax.random.key(3)
    other = tg.find_minima(functional, energy, beta, key=key, n_starts=8, capacity=32)
    with pytest.raises(ValueError, match=f"union joins libraries .* got another {names}"):
        tg.merge([_searched(0), other])


def test_overflow_is_remembered_and_coverage_unknown():
    full = tg.find_minima(NAIVE, GLASS, BETA, key=jax.random.key(5), n_starts=32, capacity=1)
    assert full.overflow
    merged = tg.merge([_searched(0), full])
    assert merged.overflow and np.isnan(merged.coverage())


@pytest.mark.further
def test_more_runs_find_no_less_of_a_hard_landscape():
    """Hopfield patterns, their mirror images merged: hits grow with the runs, and so does n."""
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (4, 24))
    couplings = patterns.T @ patterns / 24
    energy = tg.Pairwise(couplings - np.diag(np.diag(couplings)), np.zeros(24))
    options = {"n_starts": 24, "capacity": 64}
    runs = [tg.find_minima(NAIVE, energy, 4.0, key=jax.random.key(k), **options) for k in range(4)]
    merged = tg.merge(runs)
    assert np.all(merged.multiplicity == 2) and len(merged) >= max(map(len, runs))
    for run in runs:
        assert np.all(merged.nearest(-run.magnetizations) >= 0)
    expected = np.zeros(len(merged), int)
    for run in runs:
        np.add.at(expected, merged.nearest(run.magnetizations), run.hits)
    np.testing.assert_array_equal(merged.hits, expected)


# --- estimates


def _annealed(energy, beta, n_chains, seed, rungs=12):
    betas = jnp.linspace(beta / rungs, beta, rungs)
    key = jax.random.key(seed)
    return tg.annealed_importance_sampling(energy, betas, key=key, n_chains=n_chains)


@pytest.mark.further
@pytest.mark.parametrize("sign", [1, -1])
def test_chains_in_parts_are_the_chains_together(sign):
    """Also parts of unequal size, and chains that are heated: means of 1/Z."""
    betas = jnp.linspace(0.1, 1.0, 10)
    spins = sampling.random_corners(GLASS, 240, jax.random.key(0))
    path = jnp.append(0.0, betas)
    job = sampling.AnnealedImportance(GLASS, path, spins, tg.Gibbs(), None, sign)
    state = job.init(jax.random.key(1))
    while not job.done(state):
        state = job.step(state)
    cuts = [slice(0, 50), slice(50, 60), slice(60, 240)]
    parts = [
        state._replace(spins=state.spins[:, cut], log_weights=state.log_weights[cut])
        for cut in cuts
    ]
    whole, merged = job.result(state), tg.merge([job.result(part) for part in parts])
    for name in ("log_partition", "standard_error", "ess", "n_chains", "sign"):
        found, expected = getattr(merged, name), getattr(whole, name)
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=name)
    assert merged.result == whole.result == tg.RESULTS.converged


@pytest.mark.further
def test_populations_in_parts_are_the_populations_together():
    path = jnp.linspace(0.0, BETA, 8)
    job = sampling.PopulationAnnealing(GLASS, path, tg.Gibbs(), None, 20, 12)
    state = job.init(jax.random.key(2))
    while not job.done(state):
        state = job.step(state)
    # Of unequal numbers.
    parts = [
        type(state)(*(x if np.ndim(x) == 0 else x[rows] for x in state))
        for rows in (slice(0, 4), slice(4, 5), slice(5, 12))
    ]
    whole, merged = job.result(state), tg.merge([job.result(part) for part in parts])
    assert whole.result == merged.result == tg.RESULTS.converged
    for name in ("log_partition", "standard_error", "ess", "spins", "weights"):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("seed", range(3))
def test_pooled_estimates_are_right_by_their_errors(seed):
    energy = helpers.random_pairwise(10, jax.random.key(20 + seed), fields=0.2)
    exact = helpers.boltzmann(energy, BETA)[1]
    runs = [_annealed(energy, BETA, 100, 100 * seed + k) for k in range(8)]
    merged = tg.merge(runs)
    assert merged.result == tg.RESULTS.converged
    assert abs(merged.log_partition - exact) < 4 * merged.standard_error
    assert merged.n_chains == 800 and merged.standard_error < 0.2


def test_the_errors_of_pooled_estimates_hold_over_many_arrays():
    """Standardised errors of 60 arrays of 4 tasks have the spread of a normal distribution."""
    exact = helpers.boltzmann(GLASS, BETA)[1]
    betas = jnp.linspace(0.2, BETA, 10)

    def run(key):
        return tg.annealed_importance_sampling(GLASS, betas, key=key, n_chains=100)

    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(7), 240))
    runs = [jax.tree.map(lambda x, k=k: x[k], found) for k in range(240)]
    pooled = [tg.merge(runs[4 * k : 4 * k + 4]) for k in range(60)]
    assert all(one.result == tg.RESULTS.converged for one in pooled)
    z = np.array([(one.log_partition - exact) / one.standard_error for one in pooled])
    # Mean of 60 within 4 sigma; the sum of squares within four of chi-squared's.
    assert abs(z.mean()) < 4 / np.sqrt(60)
    assert abs((z**2).sum() - 60) < 4 * np.sqrt(2 * 60)


def test_estimates_that_disagree_are_said():
    right, wrong = (_annealed(energy, beta, 200, 1) for energy, beta in ((GLASS, 2), (EVEN, 1)))
    assert right.result == wrong.result == tg.RESULTS.converged
    merged = tg.merge([right, _annealed(GLASS, BETA, 200, 2), wrong])
    assert merged.result == tg.RESULTS.disagree and np.isinf(merged.standard_error)
    assert "differ by more than their errors" in tg.RESULTS[merged.result]
    means = [sampling.Measurement(jnp.array([1.0, x]), jnp.array([0.1, 0.1])) for x in (1, 9)]
    pooled = tg.merge(means)
    np.testing.assert_allclose(pooled.value, [1, 5])
    np.testing.assert_allclose(pooled.standard_error, [0.1 / np.sqrt(2), np.inf])


def test_runs_of_few_chains_suffice_together_and_heavy_tails_do_not():
    alone = [_annealed(GLASS, BETA, 3, k) for k in range(40)]
    assert any(run.result == tg.RESULTS.few_weights for run in alone)
    together = tg.merge(alone)
    assert together.result == tg.RESULTS.converged and together.n_chains == 120
    exact = helpers.boltzmann(GLASS, BETA)[1]
    assert abs(together.log_partition - exact) < 4 * together.standard_error < 1
    # Judged by more than its effective size: whoever has met heavy weights is not outvoted.
    fine = _annealed(GLASS, BETA, 200, 1)
    heavy = fine._replace(standard_error=jnp.array(jnp.inf), result=tg.RESULTS.few_weights)
    merged = tg.merge([fine, heavy, fine])
    assert merged.result == tg.RESULTS.few_weights and np.isinf(merged.standard_error)


@pytest.mark.further
def test_estimates_by_reweighting_are_averaged():
    betas = jnp.linspace(0.0, BETA, 6)

    def run(seed):
        options = {"n_chains": 8, "n_sweeps": 200, "burn_in": 50}
        key = jax.random.key(seed)
        return tg.sampling.multi_histogram_reweighting(GLASS, betas, key=key, **options)

    runs = [run(seed).log_partition(BETA) for seed in range(4)]
    merged, exact = tg.merge(runs), helpers.boltzmann(GLASS, BETA)[1]
    assert merged.result == tg.RESULTS.converged and merged.n_chains == 0
    assert abs(merged.log_partition - exact) < 4 * merged.standard_error
    assert merged.standard_error < 0.7 * max(run.standard_error for run in runs)


def test_cooled_and_heated_chains_do_not_mix():
    cooled = _annealed(GLASS, BETA, 50, 0)
    with pytest.raises(ValueError, match="cooled, or of heated ones, got both"):
        tg.merge([cooled, cooled._replace(sign=jnp.asarray(-1))])


def test_exact_estimates_agree():
    """Without couplings all weights are one: errors of zero, and no false alarm."""
    nothing = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
    runs = [_annealed(nothing, BETA, 8, k) for k in range(3)]
    merged = tg.merge(runs)
    assert merged.result == tg.RESULTS.converged
    np.testing.assert_allclose(merged.log_partition, N * np.log(2), rtol=1e-9)


# --- certificates


@functools.cache
def _certified(seed: int, n_trajectories: int = 128, threshold: float = 10) -> tg.Certificate:
    magnet = families.curie_weiss(10)
    candidates = np.stack([np.ones(10), -np.ones(10)])
    options = {"threshold": threshold, "n_trajectories": n_trajectories}
    return tg.certify(magnet, 1.8, candidates, key=jax.random.key(seed), **options)


def test_escapes_of_independent_certificates_add_up():
    runs = [_certified(seed) for seed in range(3)]
    assert all(run.n_bound == 2 for run in runs)
    pooled = tg.merge(runs)
    counts = np.sum([run.n_escapes for run in runs], axis=0)
    risk = np.sum([run.exposures for run in runs], axis=0)
    np.testing.assert_array_equal(pooled.n_escapes, counts)
    np.testing.assert_allclose(pooled.escape_times, risk / counts)
    for run in runs:
        np.testing.assert_allclose(run.escape_times, run.exposures / run.n_escapes)
        assert np.all(np.ptp(pooled.intervals, axis=1) < np.ptp(run.intervals, axis=1))
    law = scipy.stats.gamma(counts[0])
    np.testing.assert_allclose(pooled.intervals[0, 1], risk[0] / law.ppf(0.025))
    np.testing.assert_allclose(pooled.escapes.sum(axis=1), 1)
    # One run of three times as many: both know their means to 1 / sqrt(count).
    longer = _certified(9, 3 * 128)
    apart = np.log(pooled.escape_times / longer.escape_times)
    assert np.all(np.abs(apart) < 4 * np.sqrt(1 / counts + 1 / longer.n_escapes))


def test_certificates_of_other_states_or_thresholds_do_not_add_up():
    with pytest.raises(ValueError, match="0 and 1 are certificates of different dynamics or thr"):
        tg.merge([_certified(0), _certified(0, threshold=20)])
    magnet = families.curie_weiss(10)
    other = tg.certify(magnet, 1.8, np.ones((1, 10)), key=jax.random.key(0), threshold=10)
    with pytest.raises(ValueError, match="certificates of different candidates"):
        tg.merge([_certified(0), other])


# --- what is no result


def test_what_cannot_be_merged_is_named():
    library, estimate = _searched(0), _annealed(GLASS, BETA, 50, 0)
    with pytest.raises(ValueError, match="results must hold at least one result, got none"):
        tg.merge([])
    with pytest.raises(TypeError, match="of one class, got Library and Estimate"):
        tg.merge([library, estimate])
    with pytest.raises(TypeError, match="results must be several results, got one Library"):
        tg.merge(library)
    with pytest.raises(TypeError, match="several results, got one Estimate"):
        tg.merge(estimate)
    with pytest.raises(TypeError, match="results of the class dict cannot be merged"):
        tg.merge([{}, {}])


def test_one_result_is_itself():
    _assert_equal(tg.merge([_searched(0)]), _searched(0))
    run = _annealed(GLASS, BETA, 50, 0)
    merged = tg.merge(iter([run]))
    np.testing.assert_allclose(merged.log_partition, run.log_partition)
    np.testing.assert_allclose(merged.standard_error, run.standard_error)


@pytest.mark.further
def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", tg.merge.__doc__ or "", flags=re.DOTALL)
    exec(compile(textwrap.dedent(code), "<example of merge>", "exec"), {})
