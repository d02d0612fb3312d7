"""Kinetic certificates against the exact spectrum and exact escape times of the heat bath."""

import dataclasses
import logging

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.special import expit

import thermogen as tg
from thermogen.kinetics import _trajectories
from thermogen.kinetics._certificate import _listed
from thermogen.kinetics._exchange import (
    Departures,
    apart,
    departures,
    escape_times,
    exchange_rates,
    fold,
    inner_times,
    shares,
)
from thermogen.kinetics._screening import standing
from thermogen.kinetics._sets import Exchange, metastable_sets
from thermogen.search import PER_STATE

# One number of spins for nearly all tests: programs are shared.
N = 8
CORNERS = helpers.configurations(N)
THRESHOLD = 20.0


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _curie_weiss(coupling: float, field: float = 0.0) -> tg.Pairwise:
    return tg.Pairwise(coupling / N * (1 - np.eye(N)), np.full(N, field))


def _hopfield(fields: float = 0.0) -> tg.Pairwise:
    patterns = hadamard(N)[[1, 2]].astype(float)
    couplings = patterns.T @ patterns / N * (1 - np.eye(N))
    return tg.Pairwise(couplings, fields * patterns[0])


# name -> energy, beta; with 1, 2, 4, ... states.
MODELS = {
    "independent": (_curie_weiss(0.0, 0.5), 1.0),
    "ferromagnet, hot": (_curie_weiss(1.0), 0.5),
    "ferromagnet": (_curie_weiss(1.0), 2.5),
    "ferromagnet in a field": (_curie_weiss(1.0, 0.05), 2.5),
    "Hopfield": (_hopfield(0.01), 4.0),
    "SK": (helpers.random_pairwise(N, _key(3), fields=0.1), 4.0),
    "interactions": (helpers.random_interactions(N, _key(6)), 2.0),
}


def _certify(energy, beta, candidates=None, key=0, **options):
    if candidates is None:
        candidates = tg.kinetics.flip_minima(energy, CORNERS)
    return tg.certify(energy, beta, candidates, key=_key(key), threshold=THRESHOLD, **options)


@pytest.mark.further
@pytest.mark.parametrize("name", MODELS)
def test_bound_states_are_the_metastable_sets(name):
    energy, beta = MODELS[name]
    times = tg.exact.relaxation_times(energy, beta)
    assert not np.any((times > THRESHOLD / 2) & (times < 2 * THRESHOLD))
    sets = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)

    # One candidate decays at once, to three sets with chances of 0.31, 0.27 and 0.26.
    options = {"n_trajectories": 4096, "horizon": 3} if name == "interactions" else {}
    certificate = _certify(energy, beta, **options)
    assert certificate.n_bound == len(sets.weights) == 1 + np.sum(times > THRESHOLD)
    assert np.sum(certificate.relaxation_times > THRESHOLD) == certificate.n_bound - 1
    found = sets.labels[np.asarray(tg.index_from_spins(certificate.cores[certificate.bound]))]
    assert sorted(found) == list(range(len(sets.weights)))
    # All candidates of a group lie in one set, and each group has one representative.
    labels = sets.labels[np.asarray(tg.index_from_spins(certificate.cores))]
    assert len(set(zip(labels, certificate.group, strict=True))) == certificate.n_bound
    np.testing.assert_array_equal(np.sort(certificate.group[certificate.bound]), np.unique(labels))


def test_the_models_have_one_and_two_and_more_states():
    counts = [
        len(tg.exact.metastable_sets(*m, threshold=THRESHOLD).weights) for m in MODELS.values()
    ]
    assert {1, 2, 4} <= set(counts)


def _step_matrix(energy, beta):
    """One step of random-site heat bath, from the table of energies."""
    table, index = helpers.energy_table(energy), np.arange(2**energy.n_spins)
    matrix = np.zeros((index.size, index.size))
    for k in range(energy.n_spins):
        other = index ^ (1 << k)
        matrix[index, other] = expit(-beta * (table[other] - table)) / energy.n_spins
    return matrix + np.diag(1 - matrix.sum(axis=1))


def _exact_escape_time(energy, beta, cores, home, stride):
    """Mean time at which a trajectory from core `home` is first seen outside twice in a row."""
    looks = np.linalg.matrix_power(_step_matrix(energy, beta), stride)
    bottoms = np.asarray(_trajectories.descend(energy, jnp.asarray(CORNERS.T), jnp.asarray(1e-9)))
    inside = np.argmax(cores @ bottoms, axis=0) == home
    stay, out = looks[np.ix_(inside, inside)], looks[np.ix_(inside, ~inside)]
    back, away = looks[np.ix_(~inside, inside)], looks[np.ix_(~inside, ~inside)]
    # T = stay (1 + T) + out (away 1 + back (2 + T)), counted in looks.
    constant = stay.sum(axis=1) + out @ (away.sum(axis=1) + 2 * back.sum(axis=1))
    times = np.linalg.solve(np.eye(inside.sum()) - stay - out @ back, constant)
    start = np.flatnonzero(inside) == int(tg.index_from_spins(cores[home]))
    return float(times[start].item() - 0.5) * stride / energy.n_spins


@pytest.mark.further
@pytest.mark.parametrize("field", [0.0, 0.05])
def test_escape_times_are_exact(field):
    """Against the mean of the very event, by linear equations on all configurations."""
    energy, beta = _curie_weiss(1.0, field), 2.0
    cores = np.array([-np.ones(N), np.ones(N)])
    certificate = _certify(energy, beta, cores, n_trajectories=1024)
    for k in range(2):
        exact = _exact_escape_time(energy, beta, cores, k, stride=16)
        assert exact > 2 * THRESHOLD
        low, high = certificate.intervals[k]
        assert low < certificate.escape_times[k] < high
        # A 95 % interval of a Poisson count is about 1.96 standard errors wide to each side; the
        # law is exponential to about the time within the state over its life.
        error = (high - low) / (2 * 1.96)
        bias = certificate.inner_times[k]
        assert abs(certificate.escape_times[k] - exact) < 4 * error + bias
        assert error < 0.06 * exact


def test_rates_and_relaxation_times_are_exact():
    energy, beta = _curie_weiss(1.0, 0.05), 2.0
    exact = tg.exact.relaxation_times(energy, beta)[0]
    certificate = _certify(energy, beta, n_trajectories=1024)
    (by_rates,) = 1 / np.sort(-np.linalg.eigvals(certificate.rates).real)[1:]
    # About 900 departures at the lesser rate; 1024 trajectories at the lag: 10 % is over 3 sigma.
    np.testing.assert_allclose(by_rates, exact, rtol=0.1)
    np.testing.assert_allclose(certificate.relaxation_times[0], exact, rtol=0.2)
    np.testing.assert_allclose(certificate.rates.sum(axis=1), 0, atol=1e-15)


@pytest.mark.further
def test_inner_time_of_independent_spins():
    """A spin is drawn once a sweep, so that the overlap falls to its mean as exp(-t)."""
    certificate = _certify(_curie_weiss(0.0, 0.2), 1.0, n_trajectories=4096)
    # Looked at every 2 sweeps and interpolated: at 1/e of the way is (1 - 1/e) / (1 - 1/e^2) looks.
    expected = 2 * (1 - np.exp(-1)) / (1 - np.exp(-2))
    np.testing.assert_allclose(certificate.inner_times, expected, rtol=0.05)


@pytest.mark.further
def test_states_that_are_never_left():
    certificate = _certify(_curie_weiss(1.0), 20.0, horizon=3)
    assert certificate.n_bound == 2
    assert np.all(np.isinf(certificate.escape_times))
    risk = 256 * 29 * 2.0  # trajectories, looks of which one must be left, sweeps between looks
    np.testing.assert_allclose(certificate.intervals[:, 0], risk / -np.log(0.025))
    assert np.all(np.isinf(certificate.intervals[:, 1]))
    assert not certificate.escapes.any()
    assert np.all(np.isinf(certificate.relaxation_times))
    assert "never left" in certificate.reason(0)


def _library(energy, beta):
    return tg.find_minima(
        helpers.FUNCTIONALS["naive"], energy, beta, key=_key(0), n_starts=32, capacity=6
    )


@pytest.mark.further
def test_mirror_images_are_states_of_their_own():
    energy = _curie_weiss(1.0)
    library = _library(energy, 2.5)
    assert (library.size, library.multiplicity[0]) == (1, 2)
    cold = _certify(energy, 2.5, library)
    assert (cold.n_bound, cold.multiplicity[0], cold.group[0]) == (2, 2, 0)
    assert "mirror image" in cold.reason(0)
    # To leave is to go to the image; an image counts as its state.
    np.testing.assert_allclose(cold.escapes[0], np.eye(library.size)[0])
    np.testing.assert_allclose(cold.rates[0, 1], cold.rates[1, 0])
    # Where mean field still breaks the symmetry, but the dynamics does not, they are one state.
    library = _library(energy, 1.25)
    assert (library.size, library.multiplicity[0]) == (1, 2)
    warm = _certify(energy, 1.25, library)
    assert (warm.n_bound, warm.multiplicity[0]) == (1, 1)
    assert "only bound state" in warm.reason(0)


@pytest.mark.further
def test_images_are_the_same_whether_folded_or_listed():
    energy, beta = _hopfield(), 4.0
    library = _library(energy, beta)
    m = library.magnetizations
    folded, listed = (
        _certify(energy, beta, library),
        _certify(energy, beta, np.concatenate([m, -m])),
    )
    assert library.size == 2
    assert folded.n_bound == listed.n_bound == 4
    assert np.sum(folded.multiplicity[folded.bound]) == np.sum(listed.bound) == 4
    assert set(folded.group[:2]) == {0, 1}


@pytest.mark.further
def test_unused_entries_are_left_alone():
    held = _library(_hopfield(), 4.0)
    padded = {k: np.concatenate([getattr(held, k)] * 2) for k in PER_STATE}
    library = tg.Library(**padded | {"mask": np.arange(2 * held.size) < held.size})
    certificate = _certify(_hopfield(), 4.0, library)
    unused = ~library.mask
    assert unused.any()
    np.testing.assert_array_equal(certificate.group[unused], -1)
    np.testing.assert_array_equal(certificate.same_core[unused], -1)
    for name in ("bound", "escape_times", "intervals", "inner_times", "occupations", "escapes"):
        assert not getattr(certificate, name)[unused].any()
    assert certificate.reason(int(np.argmax(unused))) == "unused entry"
    np.testing.assert_allclose(certificate.occupations[library.mask].sum(axis=1), 1)


@pytest.mark.further
def test_disordered_states_belong_where_they_go():
    energy = _curie_weiss(1.0, 0.05)
    states = np.array([np.zeros(N), -np.ones(N), np.ones(N)])
    cold = _certify(energy, 2.5, states)
    assert cold.n_bound == 2
    np.testing.assert_array_equal(cold.disordered, [True, False, False])
    # The field sends most trajectories up.
    assert cold.group[0] == cold.group[2] != cold.group[1]
    np.testing.assert_array_equal(cold.bound, [False, True, True])
    assert "no magnetization" in cold.reason(0)
    assert 0 < cold.occupations[0, 1] < cold.occupations[0, 2] < 1
    hot = _certify(energy, 0.5, states[:1])
    assert (hot.n_bound, hot.bound[0], hot.disordered[0]) == (1, True, False)


def _gapped(patterns: np.ndarray) -> tg.Complete:
    """The patterns at 0, all else at the gap at which both weigh the same at beta = 1."""
    table = np.full(2**N, np.log(2**N / len(patterns) - 1))
    table[np.asarray(tg.index_from_spins(patterns))] = 0
    couplings = np.array(tg.walsh_transform(-table))
    # Those of even tables are zero for odd sets, but for rounding.
    return tg.Complete(np.where(np.abs(couplings) > 1e-12, couplings, 0))


# Patterns, beta, threshold: about coexistence, and where the patterns outweigh all else.
GAPPED = {
    "one": ([7], 1.0, 6.0),
    "one, colder": ([7], 1.3, 6.0),
    "two": ([7, 200], 1.0, 3.0),
    "a pair of images": ([7, 248], 1.2, 3.0),
}


@pytest.mark.further
@pytest.mark.parametrize("name", GAPPED)
def test_a_metastable_paramagnet_is_a_bound_state(name):
    rows, beta, threshold = GAPPED[name]
    energy = _gapped(CORNERS[rows])
    times = tg.exact.metastable_sets(energy, beta, threshold=threshold / 2).relaxation_times
    assert np.all(times > 2 * threshold)
    exact = tg.exact.metastable_sets(energy, beta, threshold=threshold)
    assert len(exact.weights) == len(rows) + 1

    states = np.concatenate([np.zeros((2, N)), CORNERS[rows]])
    found = tg.certify(energy, beta, states, key=_key(0), threshold=threshold)
    assert found.n_bound == len(rows) + 1
    np.testing.assert_array_equal(found.disordered, [True, True] + [False] * len(rows))
    np.testing.assert_array_equal(found.bound, [True, False] + [True] * len(rows))
    np.testing.assert_array_equal(found.group, [0, 0, *range(1, len(rows) + 1)])
    assert "disordered bound state" in found.reason(0)
    # Errors of 256 trajectories: about 1/16 of the exchange each.
    np.testing.assert_allclose(found.relaxation_times, times, rtol=0.35)
    # One flip in n leads to a pattern from its n neighbours among all configurations. With so few
    # spins, many that are only passing by lie nearer than the cut, and count as escapes.
    assert 0.35 < found.escape_times[0] / (2**N / len(rows) / N) < 1.3


@pytest.mark.further
def test_a_paramagnet_beside_images_that_share_an_entry():
    energy, beta, threshold = _gapped(CORNERS[[7, 248]]), 1.2, 3.0
    states = np.stack([np.zeros(N), 0.99 * CORNERS[7]])
    functional = helpers.FUNCTIONALS["naive"]
    library = tg.Library.from_magnetizations(functional, energy, beta, states)
    found = tg.certify(energy, beta, library, key=_key(0), threshold=threshold)
    assert found.n_bound == 3
    disordered = found.disordered
    np.testing.assert_array_equal(found.multiplicity[disordered], 1)
    np.testing.assert_array_equal(found.multiplicity[~disordered], 2)
    np.testing.assert_array_equal(found.bound, True)
    # From order to disorder, and seldom to the image at once.
    assert found.escapes[~disordered, disordered][0] > 0.8


def test_configurations_far_from_all_cores_by_hand():
    """One core seen at 1 and 0.8 early on, draws at 0.2: the cut is at 0.575."""
    labels = np.zeros((2, 3, 3), int)
    nearness = np.array([[[1, 0.8, 0.5], [0.8, 0.9, 0.6], [1, 1, 0.2]], [[0.2, 0.9, 0.5]] * 3])
    cuts = apart(labels, nearness, 1, 2)
    np.testing.assert_allclose(cuts, 0.575, atol=1e-5)
    found = np.where(nearness < cuts[labels], 1, labels)
    np.testing.assert_array_equal(found[0], [[0, 0, 1], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found[1], [[1, 0, 1]] * 3)


@pytest.mark.further
def test_entries_of_one_core_and_entries_that_exchange_are_merged():
    energy = _curie_weiss(1.0, 0.05)
    states = np.array([np.full(N, 0.9), np.full(N, 0.5), -np.ones(N)])
    certificate = _certify(energy, 2.5, states)
    np.testing.assert_array_equal(certificate.group, [0, 0, 1])
    np.testing.assert_array_equal(certificate.bound, [True, False, True])
    np.testing.assert_array_equal(certificate.same_core, [0, 0, 2])
    assert (
        certificate.reason(1)
        == "part of candidate 0: it descends to the same configuration as candidate 0"
    )
    assert "with candidate 1 in it" in certificate.reason(0)
    hot = _certify(energy, 1.0, states)
    assert hot.n_bound == 1
    assert "exchange faster" in hot.reason(int(np.argmax(~hot.bound & (hot.same_core != 0))) or 2)


class _Magnetization(tg.AbstractEnergy):
    """`-n |mean of s|^strength`: not multilinear."""

    strength: jax.Array
    n_spins: int = N

    def __call__(self, spins):
        return -self.n_spins * jnp.abs(jnp.mean(jnp.asarray(spins, float))) ** self.strength


@pytest.mark.further
def test_any_energy_will_do():
    energy = _Magnetization(jnp.asarray(2.0))
    certificate = _certify(energy, 1.5)
    same = _certify(_curie_weiss(2.0), 1.5)
    # Of equal flip gaps, so of equal trajectories, up to fields that are zero to rounding.
    np.testing.assert_array_equal(certificate.cores, same.cores)
    assert certificate.n_bound == same.n_bound == 2
    np.testing.assert_allclose(certificate.escape_times, same.escape_times, rtol=0.2)


def _trajectories_of(energy, beta, cores, starts, n_steps, n_times, dynamics=tg.HeatBath()):
    return tg.kinetics.Trajectories(
        dynamics,
        energy,
        jnp.asarray(beta),
        jnp.asarray(cores, jnp.int8),
        jnp.asarray(starts, jnp.int8),
        jnp.asarray(n_steps, jnp.int32),
        jnp.asarray(1e-9),
        jnp.asarray(n_times, jnp.int32),
        n_times,
    )


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_looked_up_and_computed_fields_agree(name):
    """The same random numbers lead along the same trajectories, whatever gives the fields."""
    energy = helpers.ENERGIES[name](N, _key(3))
    cores = np.unique(tg.kinetics.flip_minima(energy, CORNERS), axis=0)
    starts = np.repeat(cores[:1, None], 8, axis=1)
    looked_up, computed = (
        tg.run(_trajectories_of(form, 1.0, cores, starts, N, 16), key=_key(4))
        for form in (tg.energies.complete(energy), energy)
    )
    np.testing.assert_allclose(looked_up.overlaps, computed.overlaps, atol=1e-15)
    assert np.std(computed.overlaps) > 0.1
    if name != "rbm":  # whose zero-temperature sweeps begin with the hidden layer
        np.testing.assert_array_equal(looked_up.labels, computed.labels)


@pytest.mark.further
def test_trajectories_are_the_heat_bath():
    """Distribution after one step, and after a sweep, against the transition matrix."""
    n, beta, n_groups = 3, 0.7, 24_000
    energy = helpers.random_pairwise(n, _key(5))
    matrix = _step_matrix(energy, beta)
    cores = helpers.configurations(n)
    start = np.repeat(cores[5][None, None], 8 * n_groups, axis=1)
    for n_steps in (1, n):
        job = _trajectories_of(energy, beta, cores, start, n_steps, 1)
        seen = tg.run(job, key=_key(n_steps))
        exact = np.linalg.matrix_power(matrix, n_steps)[5]
        overlap = cores @ cores[5] / n
        for value in np.unique(overlap):
            p = exact[overlap == value].sum()
            found = np.abs(np.asarray(seen.overlaps).ravel() - value) < 1e-9
            # Trajectories of a group share their sites, and only groups are independent.
            shares_of_groups = found.reshape(n_groups, 8).mean(axis=1)
            error = np.std(shares_of_groups) / np.sqrt(n_groups)
            assert abs(np.mean(found) - p) < 4 * error + 1e-12
            assert error < 0.01


@pytest.mark.further
def test_shared_orders_leave_errors_honest():
    """Shares of many runs scatter as those of independent trajectories, mapped over keys."""
    energy, beta, n_trajectories = _curie_weiss(1.0, 0.05), 2.0, 64
    cores = np.array([-np.ones(N), np.ones(N)])
    starts = np.repeat(cores[:, None], n_trajectories, axis=1)
    job = _trajectories_of(energy, beta, cores, starts, 5 * N, 8)
    runs = jax.vmap(lambda key: tg.run(job, key=key))(jax.random.split(_key(0), 128))
    stay = np.mean(np.asarray(runs.labels[..., -1]) == np.arange(2)[:, None], axis=-1)
    p = stay.mean(axis=0)
    assert np.all((p > 0.1) & (p < 0.9))
    excess = stay.var(axis=0, ddof=1) / (p * (1 - p) / n_trajectories)
    # Of 128 runs the variance itself errs by 1 in 8: three of these.
    assert np.all(excess < 1.4) and np.all(excess > 0.6)


@pytest.mark.further
def test_trajectories_map_over_energies_and_betas():
    energies = [_curie_weiss(1.0, field) for field in (0.0, 0.05)]
    cores = np.array([-np.ones(N), np.ones(N)])
    starts = np.repeat(cores[:, None], 16, axis=1)
    jobs = [
        _trajectories_of(e, b, cores, starts, N, 4)
        for e, b in zip(energies, (1.0, 2.0), strict=True)
    ]
    keys = jax.random.split(_key(1), 2)
    together = jax.vmap(lambda job, key: tg.run(job, key=key))(helpers.stacked(jobs), keys)
    for k, job in enumerate(jobs):
        alone = tg.run(job, key=keys[k])
        np.testing.assert_array_equal(alone.labels, together.labels[k])
        np.testing.assert_allclose(alone.overlaps, together.overlaps[k], atol=1e-15)


def _machine() -> tg.RBM:
    """Two states, one of which weighs more."""
    weights = np.full((4, 4), 0.5)
    return tg.RBM(weights, np.full(4, 0.02), np.full(4, 0.02))


@pytest.mark.further
def test_dynamics_are_the_clock():
    """A machine under layers in turn, and under single spins, each against its own spectrum."""
    energy = _machine()

    def slowest(beta):
        return -1 / np.log(np.sort(np.linalg.eigvals(helpers.gibbs_matrix(energy, beta)).real)[-2])

    beta = next(b for b in np.arange(0.5, 2, 0.05) if slowest(b) > 3 * THRESHOLD)
    slow = slowest(beta)
    by_layers = _certify(energy, beta, dynamics=tg.Gibbs(), n_trajectories=512)
    by_spins = _certify(energy, beta, n_trajectories=512)
    other = tg.exact.relaxation_times(energy, beta)[0]
    assert slow < 6 * THRESHOLD and abs(other / slow - 1) > 0.5
    assert (by_layers.dynamics, by_spins.dynamics) == ("Gibbs", "HeatBath")
    np.testing.assert_allclose(by_layers.relaxation_times[0], slow, rtol=0.25)
    np.testing.assert_allclose(by_spins.relaxation_times[0], other, rtol=0.25)
    assert by_layers.n_bound == by_spins.n_bound == 2
    hot = _certify(energy, 0.4, dynamics=tg.Gibbs())
    assert hot.n_bound == 1
    first = int(np.argmax(hot.bound))
    merged = "sweeps of Gibbs" in hot.reason(1 - first) if len(hot.group) == 2 else True
    assert merged and hot.limit == "20 sweeps of Gibbs"


@pytest.mark.further
def test_a_callback_hears_of_the_looks():
    heard = []
    _certify(_curie_weiss(1.0), 2.0, horizon=4, callback=lambda *x: heard.append(x))
    assert heard[-1] == (40, 40) and len(heard) == 20


def test_dynamics_must_be_a_kernel():
    with pytest.raises(TypeError, match="dynamics"):
        _certify(_curie_weiss(1.0), 1.0, dynamics=tg.ParallelTempering([0.5, 1.0]))
    with pytest.raises(ValueError, match="at least 10 sweeps of Gibbs"):
        tg.certify(_machine(), 1.0, CORNERS, key=_key(0), threshold=5, dynamics=tg.Gibbs())


@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_quenches_find_the_single_flip_minima(name):
    energy = helpers.ENERGIES[name](N, _key(6))
    found = np.asarray(tg.index_from_spins(tg.kinetics.flip_minima(energy, CORNERS)))
    np.testing.assert_array_equal(np.sort(found), tg.exact.single_flip_minima(energy))


def test_intervals_cover_the_truth():
    """Exponential escapes with censoring: at least 95 % of the intervals, and not nearly all."""
    rng = np.random.default_rng(0)
    n, mean, horizon = 4000, 50.0, 30.0
    times = rng.exponential(mean, size=(n, 64))
    left, risk = np.sum(times < horizon, axis=1), np.minimum(times, horizon).sum(axis=1)
    found, intervals = escape_times(left, risk)
    covered = np.mean((intervals[:, 0] < mean) & (mean < intervals[:, 1]))
    assert 0.95 - 4 * np.sqrt(0.05 * 0.95 / n) < covered < 0.99
    np.testing.assert_allclose(np.median(found), mean, rtol=0.03)


def test_departures_by_hand():
    """Two looks outside in a row; one look outside is none."""
    sets = np.array([0, 0, 1])
    labels = np.array([[[0, 2, 1, 2, 2], [1, 0, 2, 0, 2], [2, 2, 0, 0, 0]]])
    leaving = departures(labels, sets, np.array([[0]]), 2.0)
    np.testing.assert_array_equal(leaving.left, [[True, False, True]])
    np.testing.assert_array_equal(leaving.times, [[7.0, 8.0, 1.0]])
    assert leaving.to[0, 0] == leaving.to[0, 2] == 2
    rates = exchange_rates(labels, sets, 2.0)
    # From set 0: one of two leaves, 7 + 8 sweeps; from set 1: one of one, back at its third look.
    np.testing.assert_allclose(rates, [[-1 / 15, 1 / 15], [1 / 5, -1 / 5]])


def test_cores_that_are_passed_by_hand():
    """Cores 0 and 3 hold; 1 goes to 0; 2 goes to 1, and with it to 0; 4 and 5 exchange at once."""
    none = np.arange(6)
    counts = 32 * np.eye(6, dtype=int)[[0, 0, 1, 3, 4, 5]]
    counts[4:, 4:] = 16
    np.testing.assert_array_equal(standing(counts, none), [0, 0, 0, 3, 4, 5])
    counts[4:, 4:] = [0, 32]  # nothing is in 4
    np.testing.assert_array_equal(standing(counts, none), [0, 0, 0, 3, 5, 5])
    # Eight of 128 are fewer than a core as slow as the threshold would hold, one of 32 is not.
    for held, n, stands in ((1, 32, 1), (8, 128, 0), (9, 128, 1)):
        counts[1, :2] = n - held, held
        assert standing(counts, none)[1] == stands
    # Of very many that exchange at once the last few hold what was in all.
    rng = np.random.default_rng(0)
    stands = standing(rng.multinomial(128, np.full(200, 1 / 200), 200), np.arange(200))
    assert 1 <= len(np.unique(stands)) <= 20
    # What goes to its image or to another core goes to that; images share their fates.
    counts = np.array([[32, 0, 0, 0], [0, 0, 16, 16], [16, 16, 0, 0], [0, 0, 0, 32]])
    np.testing.assert_array_equal(standing(counts, np.arange(4)[::-1]), [0, 3, 0, 3])


@pytest.mark.further
def test_of_many_cores_those_that_are_passed_are_told_by_a_few_trajectories():
    """A random table has a minimum for every nine configurations; few of them trap."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=2**N)
    table[rng.choice(2**N, 3, replace=False)] -= 3
    energy, beta, threshold = tg.Complete.from_energies(table), 2.0, 42.0
    times = tg.exact.metastable_sets(energy, beta, threshold=threshold / 1.8).relaxation_times
    assert len(times) == 2 and np.all(times > 1.8 * threshold)
    exact = tg.exact.metastable_sets(energy, beta, threshold=threshold)
    minima = tg.kinetics.flip_minima(energy, CORNERS)
    certificate = tg.certify(energy, beta, minima, key=_key(0), threshold=threshold)
    cores = np.asarray(tg.index_from_spins(certificate.cores))
    assert len(cores) > 20 and certificate.n_bound == len(exact.weights)
    passed = ~certificate.occupations.any(axis=0)
    assert passed.sum() >= 5
    assert sorted(exact.labels[cores[certificate.bound]]) == list(range(len(exact.weights)))
    assert "merely pass it" in certificate.reason(int(np.flatnonzero(passed)[0]))
    # Those that are passed share a set with where most of their trajectories go. Of 32 each some
    # are told here; where these are not clear 96 more decided.
    np.testing.assert_allclose(certificate.occupations.sum(axis=1), 1)
    members = certificate.group[:, None] == np.arange(certificate.n_bound)
    went = certificate.occupations[passed] @ members
    rows, own = np.arange(len(went)), certificate.group[passed]
    error = np.sqrt((went[rows, own] + went.max(axis=1)) / 32)
    assert np.all(went.max(axis=1) - went[rows, own] <= 2 * error)
    assert np.mean(np.argmax(went, axis=1) == own) > 0.9


@pytest.mark.further
def test_noise_of_a_few_trajectories_is_no_state():
    """Of 16 trajectories from each of many cores a quarter is left of what has long decayed."""
    energy, beta = tg.Complete.from_energies(np.random.default_rng(0).normal(size=2**N)), 0.5
    assert np.all(tg.exact.relaxation_times(energy, beta) < 0.2 * THRESHOLD)
    cores = tg.kinetics.flip_minima(energy, CORNERS)
    assert len(cores) > 10
    for key in range(5):
        found = tg.kinetics.certify(
            energy, beta, cores, key=_key(key), threshold=THRESHOLD, n_trajectories=16
        )
        assert found.n_bound == 1


def test_many_candidates_are_listed_as_ranges():
    assert _listed(np.array([1, 2, 3, 4, 7, 9, 10])) == "candidates 1 to 4, 7, 9, 10"
    assert _listed(np.array([5])) == "candidate 5"


def test_shares_by_hand():
    labels = np.array([[0, 1, 1, 2], [2, 2, 2, 2]])
    np.testing.assert_allclose(shares(labels, 3), [[0.25, 0.5, 0.25], [0, 0, 1]])
    weights = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(shares(labels, 3, weights), [[0.5, 0.5, 0], [0, 0, 0]])


def test_inner_times_by_hand():
    clock = 2.0 * np.arange(1, 41)
    overlaps = 0.4 + 0.6 * np.exp(-clock / 10)[None, None]
    stay = Departures(np.zeros((1, 1), bool), np.full((1, 1), 1e3), np.zeros((1, 1), int))
    np.testing.assert_allclose(inner_times(overlaps, stay, 2.0), 10, rtol=0.02)
    gone = stay._replace(times=np.ones((1, 1)))
    np.testing.assert_array_equal(inner_times(overlaps, gone, 2.0), 0)


def _counted(early: np.ndarray, late: np.ndarray, images: np.ndarray, n: int = 10**6) -> Exchange:
    return Exchange(*(np.rint(n * x).astype(int) for x in (early, late)), 40.0, images)


def test_sets_of_a_known_exchange():
    """Cores 0, 1 mix at once and so do 2, 3; core 4 lies between and goes mostly to the second."""
    slow, images = 100.0, np.arange(5)
    left, right = np.array([0.5, 0.5, 0, 0, 0]), np.array([0, 0, 0.5, 0.5, 0])

    def after(time: float, shown: float = 1.0) -> np.ndarray:
        size = shown * np.exp(-time / slow)
        first = 0.5 * ((1 + size) * left + (1 - size) * right)
        second = 0.5 * ((1 - size) * left + (1 + size) * right)
        return np.stack([first, first, second, second, 0.2 * first + 0.8 * second])

    exchange = _counted(after(20), after(40), images)
    sets, times = metastable_sets(exchange, 20.0)
    assert sets[0] == sets[1] != sets[2] == sets[3] == sets[4]
    np.testing.assert_allclose(times[0], slow, rtol=0.01)
    assert np.all(times[1:] < 2)
    assert len(np.unique(metastable_sets(exchange, 150.0)[0])) == 1
    # Labels that show three quarters of the process tell its time all the same.
    blurred = _counted(after(20, 0.75), after(40, 0.75), images)
    np.testing.assert_allclose(metastable_sets(blurred, 20.0)[1][0], slow, rtol=0.01)


def test_images_of_sets_share_a_number():
    np.testing.assert_array_equal(fold(np.array([0, 1, 1, 0]), np.arange(4)), [0, 1])
    np.testing.assert_array_equal(fold(np.array([2, 1, 1, 0]), np.arange(4)[::-1]), [0, 1, 0])


def test_keys_decide_and_precision_does_not():
    energy, beta = MODELS["ferromagnet in a field"]
    first = _certify(energy, beta)
    again = _certify(energy, beta)
    other = _certify(energy, beta, key=1)
    with jax.enable_x64(False):
        narrow = _certify(energy, beta)
    for name in (f.name for f in dataclasses.fields(first)):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert np.any(first.escape_times != other.escape_times)
    # Energies in single precision differ in their last digits, and so may a rare flip.
    np.testing.assert_allclose(narrow.escape_times, first.escape_times, rtol=0.01)


def test_new_numbers_do_not_recompile(caplog):
    energy = helpers.random_pairwise(N, _key(20), fields=0.1)
    states = tg.kinetics.flip_minima(energy, CORNERS)[:2]
    _certify(energy, 2.0, states)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        other = helpers.random_pairwise(N, _key(21), fields=0.1)
        caplog.clear()
        tg.certify(other, 3.0, states[::-1], key=_key(1), threshold=7.0)
    assert not [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": np.zeros((2, N + 1))}, "candidates must hold states of 8 spins"),
        ({"candidates": np.zeros((0, N))}, "candidates hold no state"),
        ({"candidates": np.full((1, N), 1.5)}, "candidates must hold magnetizations"),
        ({"candidates": np.full((1, N), np.nan)}, "candidates must hold magnetizations"),
        ({"threshold": 0.0}, "threshold must be positive"),
        ({"threshold": np.inf}, "threshold must be positive"),
        ({"beta": -1.0}, "beta"),
        ({"n_trajectories": 15}, "n_trajectories must be at least 16"),
        ({"horizon": 2}, "horizon must be at least 3"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "candidates": np.ones((1, N)),
        "energy": _curie_weiss(1.0),
        "beta": 1.0,
        "key": _key(0),
        "threshold": THRESHOLD,
    } | change
    with pytest.raises(ValueError, match=message):
        tg.certify(**arguments)


# --- the flip


def test_sets_of_an_even_energy_are_mirror_images():
    """A ring of four cores a, b, -a, -b with noise: no three sets are images of each other."""
    rng = np.random.default_rng(0)
    images = np.array([3, 2, 1, 0])  # a, b, -b, -a

    def ring(stay: float, first: float, second: float, across: float) -> np.ndarray:
        return np.array(
            [
                [stay, first, second, across],
                [first, stay, across, second],
                [second, across, stay, first],
                [across, second, first, stay],
            ]
        )

    early, late = ring(0.716, 0.13, 0.145, 0.009), ring(0.5, 0.24, 0.26, 0)
    for _ in range(20):
        counts = (np.stack([rng.multinomial(256, row) for row in x]) for x in (early, late))
        sets, times = metastable_sets(Exchange(*counts, 40.0, images), 30.0)
        assert len(times) == 3 and np.sum(times > 30) == 2
        image = dict(zip(sets, sets[images], strict=True))
        assert all(image[image[a]] == a for a in image) and len(set(image.values())) == len(image)
    # Two pairs far apart: four sets, each the image of another.
    apart_ = 0.94 * np.eye(4) + 0.01 * (1 - np.eye(4)) + 0.03 * np.eye(4)
    sets, _ = metastable_sets(_counted(apart_, apart_, images), 20.0)
    assert len(set(sets)) == 4
    # One pair, whose members exchange at once within each of them.
    pair = np.kron(np.eye(2), np.full((2, 2), 0.5))
    sets, _ = metastable_sets(_counted(pair, pair, images), 20.0)
    assert len(set(sets)) == 2 and sets[0] == sets[1] != sets[2] == sets[3]


@pytest.mark.further
@pytest.mark.parametrize("seed", range(3))
def test_rates_of_an_even_glass_are_mirror_images(seed):
    upper = np.triu(np.random.default_rng(seed).normal(size=(N, N)), 1) / np.sqrt(N)
    energy = tg.Pairwise(upper + upper.T, np.zeros(N))
    library = tg.find_minima(
        tg.NaiveMeanField(), energy, 1.7, key=jax.random.key(seed), n_starts=32
    )
    found = tg.certify(energy, 1.7, library, key=jax.random.key(seed), threshold=THRESHOLD)
    used = found.group >= 0
    assert set(found.multiplicity[used]) <= {1, 2}
    # A set and its image are neighbours in the order of the rates.
    number = np.sort(np.repeat(found.group[found.bound], found.multiplicity[found.bound]))
    order = np.concatenate([np.flatnonzero(number == g)[::-1] for g in np.unique(number)])
    np.testing.assert_allclose(found.rates[np.ix_(order, order)], found.rates, atol=1e-12)
    low, high = found.n_bound_interval
    assert low <= found.n_bound <= high and found.count.split()[0] == str(low)


@pytest.mark.further
def test_the_count_is_open_where_a_time_is_close_to_the_threshold():
    """A double well: which of the two counts a run gives is chance; the interval holds both."""
    energy = _curie_weiss(1.0)
    slow = tg.exact.relaxation_times(energy, 1.5)[0]
    library = tg.Library.from_magnetizations(tg.NaiveMeanField(), energy, 1.5, np.full((1, N), 0.8))
    for factor, count, least in ((1.0, "1 or 2", 5), (0.4, "2", 8), (3.0, "1", 7)):
        threshold = float(factor * slow)
        counts = [
            tg.certify(energy, 1.5, library, key=jax.random.key(seed), threshold=threshold).count
            for seed in range(8)
        ]
        assert counts.count(count) >= least, counts
