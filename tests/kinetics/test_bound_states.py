"""The diagnosis of ergodicity against the exact spectrum and the exact weights."""

import dataclasses
import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.special import betaln

import thermogen as tg
from thermogen.kinetics._descents import TIE
from thermogen.kinetics._find import _leads, _states
from thermogen.kinetics._weights import Weights, _dtype, draw, share_intervals, weigh

# One number of spins for all tests: programs are shared.
N = 10
THRESHOLD = 20.0


def _diagnose(energy, beta, key=0, **options):
    options = {"n_starts": 128, "n_trajectories": 128, **options}
    return tg.find_bound_states(
        energy, beta, key=jax.random.key(key), threshold=THRESHOLD, **options
    )


def _curie_weiss(field: float = 0.0) -> tg.Pairwise:
    return tg.Pairwise((1 - np.eye(N)) / N, np.full(N, field))


def _hopfield() -> tg.Pairwise:
    """Two patterns of unequal weight."""
    patterns = hadamard(16)[[1, 2], :N].astype(float)
    couplings = (patterns.T * [1.0, 0.9]) @ patterns / N * (1 - np.eye(N))
    return tg.Pairwise(couplings, 0.05 * patterns[0])


def _sk() -> tg.Pairwise:
    return helpers.random_pairwise(N, jax.random.key(6), fields=0.1)


# name -> energy, beta above and beta below the transition.
MODELS = {
    "Curie-Weiss": (_curie_weiss(), 0.6, 2.5),
    "Curie-Weiss in a field": (_curie_weiss(0.03), 0.6, 2.5),
    "Hopfield": (_hopfield(), 0.6, 4.0),
    "SK": (_sk(), 0.5, 5.0),
}


@functools.cache
def _of(name: str, cold: bool) -> tg.BoundStates:
    energy, *betas = MODELS[name]
    return _diagnose(energy, betas[cold])


QUICK = {("Curie-Weiss", False), ("Curie-Weiss", True), ("SK", True)}


@pytest.mark.further
@pytest.mark.parametrize(
    ("name", "cold"),
    [
        pytest.param(name, cold, marks=[] if (name, cold) in QUICK else [pytest.mark.slow])
        for name in MODELS
        for cold in (False, True)
    ],
)
def test_the_verdict_is_that_of_the_spectrum(name, cold):
    energy, *betas = MODELS[name]
    beta = betas[cold]
    times = tg.exact.relaxation_times(energy, beta)
    assert not np.any((times > THRESHOLD / 2) & (times < 2 * THRESHOLD))
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    assert (len(exact.weights) > 1) == cold

    found = _of(name, cold)
    assert found.ergodic == (not cold)
    assert found.certificate.n_bound == len(exact.weights)
    assert found.verdict.startswith("Broken" if cold else "Ergodic")
    assert f"beta = {beta:g}" in found.verdict and "Not known" in found.verdict

    # The weight of each state is that of its exact set and of the set of its mirror image.
    total = 0.0
    for k in range(len(found)):
        core = found.certificate.cores[found.representatives[k]]
        images = [core, -core] if found.multiplicity[k] == 2 else [core]
        sets = {exact.labels[int(tg.index_from_spins(image))] for image in images}
        assert len(sets) == len(images)
        expected = exact.weights[list(sets)].sum()
        # The largest error of naive mean field on 30 such models was 0.08.
        np.testing.assert_allclose(found.library_weights[k], expected, atol=0.1)
        total += found.weights[k]
        # Twice an interval of 95 % is one of four standard errors.
        low, high = found.weight_intervals[k]
        assert high - low < 0.15
        assert 1.5 * low - 0.5 * high - 1e-9 <= expected <= 1.5 * high - 0.5 * low + 1e-9
    np.testing.assert_allclose(total, 1)
    assert np.all(np.diff(found.weights) <= 0)


@pytest.mark.further
def test_rows_are_states_and_candidates_know_theirs():
    found = _of("SK", True)
    rows, certificate = found.representatives, found.certificate
    assert len(found) == 4 and found.magnetizations.shape == (4, N)
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(certificate.bound))
    np.testing.assert_array_equal(found.state_of[rows], np.arange(4))
    np.testing.assert_array_equal(found.multiplicity, certificate.multiplicity[rows])
    np.testing.assert_array_equal(found.escape_times, certificate.escape_times[rows])
    np.testing.assert_array_equal(found.intervals, certificate.intervals[rows])


@pytest.mark.further
def test_weights_can_be_left_to_the_library():
    sampled, found = _of("SK", True), _diagnose(*MODELS["SK"][::2], n_populations=0)
    np.testing.assert_array_equal(np.sort(found.escape_times), np.sort(sampled.escape_times))
    np.testing.assert_array_equal(found.weights, found.library_weights)
    np.testing.assert_array_equal(found.weight_intervals, [[0, 1]] * len(found))
    assert not found.weighed and "they were not sampled" in found.verdict
    with pytest.raises(ValueError, match="n_populations must be at least 10, got 9"):
        _diagnose(*MODELS["SK"][::2], n_populations=9)


@pytest.mark.further
def test_a_shorter_horizon_counts_the_same_states_and_compiles_nothing(caplog):
    energy, beta = MODELS["SK"][::2]
    found = _of("SK", True)
    compiled = []
    for horizon in (11, 3):
        with jax.log_compiles(), caplog.at_level("WARNING"):
            caplog.clear()
            short = _diagnose(energy, beta, horizon=horizon)
        compiled.append(any("XLA compilation of jit(_advance)" in m for m in caplog.messages))
    assert compiled == [True, False]
    np.testing.assert_array_equal(short.certificate.group, found.certificate.group)
    assert np.all(short.intervals[:, 1] - short.intervals[:, 0] > 0)
    with pytest.raises(ValueError, match="horizon must be at least 3, got 2"):
        _diagnose(energy, beta, horizon=2)


@pytest.mark.further
def test_candidates_of_one_set_are_one_state():
    """The lightest candidates but one together outweigh the heaviest."""
    found = _of("SK", True)
    group, shares = np.array([0, 1, 2, 1]), np.array([0.35, 0.3, 0.2, 0.15])
    certificate = dataclasses.replace(found.certificate, group=group)
    certificate = dataclasses.replace(certificate, bound=_leads(certificate, shares))
    intervals = np.tile([0.0, 1.0], (3, 1))
    failed = Weights(np.full(3, 1 / 3), intervals, 0.0, np.inf, 1.0, tg.RESULTS.few_weights)
    made = dataclasses.replace(found, **_states(found.library, certificate, shares, failed))
    np.testing.assert_array_equal(made.representatives, [1, 0, 2])
    np.testing.assert_array_equal(made.state_of, [1, 0, 2, 0])
    np.testing.assert_array_equal(made.certificate.bound, [True, True, True, False])
    np.testing.assert_allclose(made.weights, [0.45, 0.35, 0.2])
    np.testing.assert_array_equal(made.weight_intervals, [[0, 1]] * 3)
    assert not made.weighed and "sampling has failed" in made.verdict
    # A candidate that is merely passed does not stand for a state, however heavy.
    passed = np.where(np.arange(4) == 0, 0, found.certificate.occupations)
    merged = dataclasses.replace(certificate, occupations=passed, group=np.array([0, 0, 1, 2]))
    merged = dataclasses.replace(merged, bound=np.array([False, True, True, True]))
    np.testing.assert_array_equal(_leads(merged, shares), merged.bound)
    known = failed._replace(values=np.array([0.1, 0.3, 0.6]), standard_error=0.1)
    known = known._replace(intervals=np.array([[0, 0.2], [0.2, 0.4], [0.5, 0.7]]))
    sampled = dataclasses.replace(found, **_states(found.library, certificate, shares, known))
    np.testing.assert_array_equal(sampled.representatives, [2, 1, 0])
    np.testing.assert_array_equal(sampled.weights, [0.6, 0.3, 0.1])
    np.testing.assert_array_equal(sampled.weight_intervals, known.intervals[::-1])
    np.testing.assert_allclose(sampled.library_weights, [0.2, 0.45, 0.35])
    assert sampled.weighed and "0.6 (0.5 to 0.7) in state 0" in sampled.verdict
    m = found.library.magnetizations
    np.testing.assert_allclose(made.magnetizations[0], (0.3 * m[1] + 0.15 * m[3]) / 0.45)
    np.testing.assert_allclose(made.magnetizations[1:], m[[0, 2]])


@pytest.mark.further
def test_descents_attribute_every_configuration():
    """To a state, and to the right one of two images; the boundaries move little weight."""
    energy, _, beta = MODELS["SK"]
    found, spins = _of("SK", True), helpers.configurations(N)
    p = np.asarray(tg.exact.probabilities(energy, beta))
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    rows, signs = tg.kinetics.attribute(energy, found, spins)
    weights = np.bincount(rows, p, len(found))
    cores = found.certificate.cores[found.representatives]
    sets = exact.labels[np.asarray(tg.index_from_spins(cores))]
    np.testing.assert_allclose(weights, exact.weights[sets], atol=0.01)
    np.testing.assert_array_equal(signs, 1)
    energy, _, beta = MODELS["Curie-Weiss"]
    rows, signs = tg.kinetics.attribute(energy, _of("Curie-Weiss", True), spins)
    up = _of("Curie-Weiss", True).magnetizations[0, 0] > 0
    total = spins.sum(axis=1) * (1 if up else -1)
    np.testing.assert_array_equal(rows, 0)
    np.testing.assert_array_equal(signs[total != 0], np.sign(total[total != 0]))


@pytest.mark.further
def test_configurations_are_attributed_as_replicas_are():
    """Also where trajectories descend in another order than the spins have: here by a table."""
    draws = np.random.default_rng(3).normal(size=(6, 4))
    energy, beta = tg.RBM(draws, np.zeros(6), np.full(4, 0.1)), 2.0
    found = _diagnose(energy, beta)
    assert len(found) > 1
    with jax.enable_x64(True):
        drawn = draw(energy, beta, found.certificate, found.mirrored, jax.random.key(1))
    rows, signs = tg.kinetics.attribute(energy, found, drawn.spins.reshape(-1, N))
    np.testing.assert_array_equal(found.sets[rows], drawn.sets.reshape(-1))
    np.testing.assert_array_equal(signs, drawn.signs.reshape(-1))
    assert tg.kinetics.attribute(energy, found, np.zeros((0, N)))[0].shape == (0,)


@pytest.mark.further
def test_many_states_that_are_hardly_more_than_their_cores_are_weighed():
    """Five pairs apart: 16 rows of equal weight, of which a core is all but 0.2 %.

    Each core outweighs the upper end of its own interval in up to 2.5 % of all cases.
    """
    energy = tg.Pairwise(np.kron(np.eye(N // 2), [[0.0, 1], [1, 0]]), np.zeros(N))
    found = _diagnose(energy, 4.0, n_starts=256, functional=None)
    assert len(found) == 16
    known = [tg.kinetics.weights(energy, 4.0, found, key=jax.random.key(k)) for k in range(8)]
    assert all(weighed.known for weighed in known)
    held = [(x.intervals[:, 0] <= 1 / 16) & (x.intervals[:, 1] >= 1 / 16) for x in known]
    # 128 intervals; 3.5 standard deviations of a binomial count.
    assert np.mean(held) > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 128)


@pytest.mark.further
def test_weights_of_more_replicas_are_closer():
    energy, _, beta = MODELS["SK"]
    found = _of("SK", True)
    few, many = (
        tg.kinetics.weights(energy, beta, found, key=jax.random.key(1), n_chains=n)
        for n in (128, 1024)
    )
    assert few.result == many.result == tg.RESULTS.converged
    assert np.sum(np.diff(many.intervals)) < 0.5 * np.sum(np.diff(few.intervals))
    log_z = float(tg.exact.log_partition(energy, beta))
    assert abs(many.log_partition - log_z) < 4 * many.standard_error < 0.1
    assert np.all(many.intervals[:, 0] <= few.intervals[:, 1])
    with pytest.raises(ValueError, match="beta must be 5, that of the states, got 4"):
        tg.kinetics.weights(energy, 4.0, found, key=jax.random.key(1))


@pytest.mark.further
def test_many_spins_are_weighed_in_single_precision():
    """A magnet of 256 spins in a field, by the sum over its magnetizations."""
    n, field, beta = 256, 1e-3, 1.3
    energy = tg.Pairwise((1 - np.eye(n)) / n, np.full(n, field))
    assert _dtype(n, beta * 2 * TIE) == jnp.float32 and _dtype(n, 1e4 * TIE) == jnp.float64
    ends, key = np.stack([np.ones(n), -np.ones(n)]), jax.random.key(0)
    options = {"key": key, "threshold": THRESHOLD, "n_trajectories": 16, "horizon": 3}
    certificate = tg.certify(energy, beta, ends, **options)
    assert certificate.n_bound == 2
    with jax.enable_x64(True):
        known = weigh(energy, beta, certificate, False, key, 64, 20)
    ups = np.arange(n + 1)
    total = 2.0 * ups - n
    log_weights = -np.log(n + 1) - betaln(ups + 1, n - ups + 1)
    log_weights += beta * ((total**2 - n) / (2 * n) + field * total)
    log_z = np.logaddexp.reduce(log_weights)
    assert abs(known.log_partition - log_z) < 4 * known.standard_error < 0.6
    up = np.exp(log_weights[total > 0] - log_z).sum() + 0.5 * np.exp(log_weights[n // 2] - log_z)
    low, high = known.intervals[certificate.group[0]]
    assert 0.4 < low < up < high < 0.8


@pytest.mark.further
@pytest.mark.parametrize("name", ["SK", "Curie-Weiss"])
def test_inside_a_state_all_is_as_enumerated(name):
    energy, _, beta = MODELS[name]
    found, spins = _of(name, True), helpers.configurations(N)
    within = tg.kinetics.inside(energy, beta, found, key=jax.random.key(2))
    assert within.result == tg.RESULTS.converged
    rows, signs = tg.kinetics.attribute(energy, found, spins)
    table, exact = np.asarray(tg.exact.energies(energy)), _exact_sets(energy, beta, found)
    measured = 0
    for k in range(len(found)):
        own = (rows == k) & (signs == 1)
        p = np.exp(-beta * (table[own] - table.min()))
        log_z = np.log(p.sum()) - beta * table.min()
        p /= p.sum()
        m = p @ spins[own]
        connected = (spins[own].T * p) @ spins[own] - np.outer(m, m)
        expected = {
            "log_partition": log_z,
            "free_energy": -log_z / beta,
            "energy": p @ table[own],
            "entropy": -p @ np.log(p),
            "magnetizations": m,
            "correlations": connected,
            "susceptibility": beta * connected.sum() / N,
            "q_ea": np.mean(m**2),
        }
        for what, value in expected.items():
            value_found, error = (x[k] for x in getattr(within, what))
            if np.all(np.isfinite(error)):
                measured += 1
                assert np.mean(np.abs(value_found - value) <= 5 * error + 1e-6) > 0.98, what
        if found.weights[k] > 0.1:  # the boundary of a light state is much of it
            log_z = np.logaddexp.reduce(-beta * table[exact == k])
            value_found, error = (x[k] for x in within.log_partition)
            assert abs(value_found - log_z) < 5 * error + 0.01 and error < 0.1
    assert measured >= 8 * min(2, len(found))


def _exact_sets(energy, beta, found):
    """The row of each configuration by the spectrum; of two images that of the first."""
    labels = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD).labels
    exact = np.full(len(labels), -1)
    for k, lead in enumerate(found.representatives):
        core = found.certificate.cores[lead] * found.certificate.side[lead]
        exact[labels == labels[int(tg.index_from_spins(core))]] = k
    return exact


def test_intervals_of_shares_hold():
    """Populations of 50 draws, of two sets and a rare third, each with a weight of its own."""
    rng, truth = np.random.default_rng(0), np.array([0.6, 0.395, 0.005])
    shares = rng.multinomial(50, truth, (2000, 20)) / 50
    weights = rng.gamma(10, size=(2000, 20))
    weights /= weights.sum(axis=1, keepdims=True)
    found = np.stack([share_intervals(*x, 800.0) for x in zip(shares, weights, strict=True)])
    holds = np.mean((found[..., 0] <= truth) & (truth <= found[..., 1]), axis=0)
    # Those of rare sets are wide; the others hold as often as they say, within 4 sigma.
    assert np.all(holds > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 2000)) and np.all(holds[:2] < 0.985)
    # What no replica has met may weigh up to 3.7 draws.
    unmet = share_intervals(np.eye(2)[np.zeros(20, int)], np.full(20, 0.05), 370.0)
    np.testing.assert_allclose(unmet, [[0.99, 1], [0, 0.01]], atol=1e-4)


@pytest.mark.further
def test_a_state_that_replicas_miss_is_told():
    """Beside a funnel lies a hole: replicas do not find it, but the certificate knows its core."""
    n, up = 40, np.ones(40)
    other = np.where(np.arange(n) % 2, 1.0, -1.0)
    fields = 0.7 * up, 6.0 * other
    experts = [tg.Pairwise(np.zeros((n, n)), f) for f in fields]
    log_z = np.array([np.sum(np.logaddexp(f, -f)) for f in fields])
    energy = tg.energies.Mixture.of(experts, np.array([0.5, 0.5]), log_z)
    options = {"functional": None, "n_starts": 16, "n_trajectories": 16}
    starts, key = np.stack([up, other]), jax.random.key(0)
    found = tg.find_bound_states(energy, 1.0, key=key, threshold=20, starts=starts, **options)
    assert len(found) == 2 and not found.weighed
    np.testing.assert_array_equal(found.weight_intervals, [[0, 1]] * 2)
    assert "sampling has failed" in found.verdict


@pytest.mark.further
def test_a_magnet_trapped_twice():
    """The rows of the result agree with each other, and the words with the figures."""
    found = _of("Curie-Weiss", True)
    (k,) = found.representatives
    assert found.library.multiplicity[k] == found.multiplicity[0] == 2
    assert len(found) == 1 and found.weights[0] == pytest.approx(1)
    np.testing.assert_array_equal(found.weight_intervals, [[1, 1]])
    assert np.ptp(found.magnetizations[0]) < 1e-7
    q = 0.5 * (found.overlap_edges[1:] + found.overlap_edges[:-1])
    np.testing.assert_allclose(found.overlaps.sum(), 1)
    np.testing.assert_allclose(found.overlaps, found.overlaps[::-1])  # m and -m
    m = found.library.magnetizations[0]
    width = found.overlap_edges[1] - found.overlap_edges[0]
    assert abs(q @ (found.overlaps * np.sign(q)) - m @ m / N) < width
    time, (low, high) = found.escape_times[0], found.intervals[0]
    text = found.verdict
    assert "2 bound states, 1 pair of mirror images among them, which" in text
    assert f"left after {time:.3g} sweeps (95 %: {low:.3g} to {high:.3g})" in text
    assert "1 in state 0 and its mirror image; as if 2 states were equally heavy" in text
    assert found.completeness is not None and found.completeness.coverage == 1


@pytest.mark.further
def test_single_flip_minima_stand_behind_the_minima_of_the_functional():
    energy, _, beta = MODELS["SK"]
    minima = _of("SK", True).library[:1]
    found = _diagnose(energy, beta, library=minima)
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    # With one minimum of G alone the flips point to all other sets.
    assert found.certificate.n_bound == len(exact.weights) > 2
    np.testing.assert_array_equal(found.library.magnetizations[0], minima.magnetizations[0])
    rest = found.library[1:]
    assert np.all(np.isinf(rest.residuals)) and np.all(np.abs(rest.magnetizations) == 1)
    assert np.all(np.diff(rest.free_energies) >= 0)
    gaps = [np.min(tg.flip_gaps(energy, jnp.asarray(s))) for s in rest.magnetizations]
    assert min(gaps) > 0
    few = _diagnose(energy, beta, library=minima, capacity=2)
    assert few.library.size == 2 and few.n_dropped == found.library.size - 2
    assert f"2 candidates were tested, {few.n_dropped} of higher" in few.verdict


@pytest.mark.further
def test_the_lowest_of_given_minima_are_kept_and_gaps_of_the_search_are_told():
    energy, _, beta = MODELS["SK"]
    options = {"key": jax.random.key(0), "n_starts": 64}
    found = tg.find_minima(tg.NaiveMeanField(), energy, beta, **options)
    assert found.size > 2
    reversed_order = found.sort_by("free_energies", descending=True)
    few = _diagnose(energy, beta, library=reversed_order, capacity=2)
    np.testing.assert_array_equal(few.library.free_energies, found[:2].free_energies)
    assert "no room" not in few.verdict
    small = tg.find_minima(tg.NaiveMeanField(), energy, beta, capacity=2, **options)
    full = _diagnose(energy, beta, library=small)
    assert full.n_dropped == 0
    assert "the search had no room for all minima of G" in full.verdict
    assert "not tested is a bound state" in full.verdict


@pytest.mark.further
def test_starts_are_searched_from():
    """A state against the field, whose basin the only corner misses, is found from the data."""
    energy, beta, up = _curie_weiss(-0.3), 6.0, np.ones(N)
    assert len(tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD).weights) == 2
    options = {"functional": None, "n_starts": 1}
    assert _diagnose(energy, beta, **options).ergodic
    found = _diagnose(energy, beta, starts=up[None], **options)
    assert found.certificate.n_bound == 2
    assert any(np.array_equal(core, up) for core in found.certificate.cores)


@pytest.mark.further
@pytest.mark.parametrize(
    "functional", [pytest.param(tg.NaiveMeanField(), marks=pytest.mark.slow), None]
)
def test_a_mixture_of_experts(functional):
    """No multilinear energy; without a functional its single-flip minima are enough."""
    patterns = hadamard(16)[[1, 2], :N].astype(float)
    experts = [tg.Pairwise(np.zeros((N, N)), 0.8 * p) for p in patterns]
    log_z = [float(tg.exact.log_partition(expert, 1.0)) for expert in experts]
    energy, beta = tg.energies.Mixture.of(experts, np.array([0.6, 0.4]), np.array(log_z)), 2.5
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    found = _diagnose(energy, beta, functional=functional)
    assert found.certificate.n_bound == len(exact.weights) == 2
    assert (found.completeness is None) == (functional is None)
    cores = found.certificate.cores[found.representatives]
    sets = exact.labels[np.asarray(tg.index_from_spins(cores))]
    np.testing.assert_allclose(found.weights, exact.weights[sets], atol=0.05)


@pytest.mark.further
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        _diagnose(_curie_weiss(), 1.0, capacity=0)
    with pytest.raises(ValueError, match="threshold must be positive"):
        tg.find_bound_states(_curie_weiss(), 1.0, key=jax.random.key(0), threshold=0)
    with pytest.raises(ValueError, match="starts must have shape"):
        _diagnose(_curie_weiss(), 1.0, starts=np.ones((2, N + 1)))


@pytest.mark.parametrize("beta", [0.01, 20.0])
def test_free_spins_are_one_state_at_any_temperature(beta):
    # Every configuration is a single-flip minimum, and none traps.
    found = _diagnose(tg.Pairwise(np.zeros((N, N)), np.zeros(N)), beta)
    assert found.ergodic and found.library.size == 1


def test_spins_that_nothing_holds_do_not_multiply_the_states_of_the_others():
    couplings = np.zeros((N, N))
    couplings[:4, :4] = 1 - np.eye(4)
    energy = tg.Pairwise(couplings, np.zeros(N))
    found = _diagnose(energy, 3.0)
    assert found.certificate.n_bound == 2
    # Without a functional there are plateaus alone.
    alone = _diagnose(energy, 3.0, functional=None)
    assert alone.library.size == 1 and alone.certificate.n_bound == 2
