"""Exact ensembles against plain enumeration, and the laws of thermodynamics."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from helpers import (
    ENERGIES,
    boltzmann,
    configurations,
    energy_table,
    gibbs_potential,
    random_interactions,
    random_pairwise,
)
from scipy.special import expit

import thermogen as tg
from thermogen import exact
from thermogen.energies import complete

N = 5
BETAS = [0.1, 1.0, 5.0]
COLD = 1e3


@pytest.fixture(scope="module", params=list(ENERGIES))
def energy(request):
    return ENERGIES[request.param](N, jax.random.key(11))


def independent(fields):
    return tg.Pairwise(np.zeros((fields.size, fields.size)), fields)


def curie_weiss(n, coupling=1.0):
    return tg.Pairwise(coupling / n * (1 - np.eye(n)), np.zeros(n))


def with_fields(energy, h):
    """The same energy in additional fields, as a table of all its couplings."""
    return tg.Complete.from_energies(exact.energies(energy) - configurations(h.size) @ h)


# --- averages


@pytest.mark.parametrize("beta", [0.0, *BETAS])
def test_averages_are_sums_over_configurations(energy, beta):
    s, table = configurations(N), energy_table(energy)
    p, log_z = boltzmann(energy, beta)
    mean = p @ table
    truth = {
        exact.log_partition: log_z,
        exact.probabilities: p,
        exact.mean_energy: mean,
        exact.entropy: -np.sum(p * np.log(p)),
        exact.heat_capacity: beta**2 * (p @ (table - mean) ** 2),
        exact.magnetizations: p @ s,
        exact.correlations: s.T @ (p[:, None] * s),
    }
    for quantity, value in truth.items():
        np.testing.assert_allclose(
            quantity(energy, beta), value, rtol=1e-12, atol=1e-13, err_msg=quantity.__name__
        )
    np.testing.assert_allclose(jnp.diagonal(exact.correlations(energy, beta)), 1, rtol=1e-14)
    np.testing.assert_allclose(exact.energies(energy), table, rtol=0, atol=1e-13)


@pytest.mark.parametrize("beta", BETAS)
def test_free_energy_is_energy_less_temperature_times_entropy(energy, beta):
    f = exact.free_energy(energy, beta)
    np.testing.assert_allclose(f, -boltzmann(energy, beta)[1] / beta, rtol=1e-13)
    rest = exact.mean_energy(energy, beta) - exact.entropy(energy, beta) / beta
    np.testing.assert_allclose(f, rest, rtol=1e-12)


def test_hot(energy):
    table = energy_table(energy)
    slope = jax.grad(exact.log_partition, 1)(energy, 0.0)
    np.testing.assert_allclose(slope, -table.mean(), rtol=0, atol=1e-13)
    beta = 1e-9
    hot = beta * exact.free_energy(energy, beta)
    np.testing.assert_allclose(hot, -N * np.log(2) + beta * table.mean(), rtol=0, atol=1e-14)


def test_cold(energy):
    table = energy_table(energy)
    ground = np.min(table)
    np.testing.assert_allclose(exact.free_energy(energy, COLD), ground, rtol=0, atol=1e-3)
    np.testing.assert_allclose(exact.mean_energy(energy, COLD), ground, rtol=1e-12)
    p = exact.probabilities(energy, COLD)
    np.testing.assert_allclose(p, np.arange(2**N) == np.argmin(table), rtol=0, atol=1e-9)


COLD_QUANTITIES = [
    exact.log_partition,
    exact.free_energy,
    exact.mean_energy,
    exact.entropy,
    exact.heat_capacity,
]


@pytest.mark.parametrize("quantity", COLD_QUANTITIES, ids=lambda f: f.__name__)
def test_values_and_derivatives_stay_finite_in_the_cold(quantity):
    energy = random_pairwise(N, jax.random.key(11))
    value, gradient = jax.value_and_grad(quantity, (0, 1))(energy, COLD)
    for x in jax.tree.leaves((value, gradient)):
        assert np.all(np.isfinite(x))


def test_residual_entropy_of_degenerate_ground_states():
    triangle = tg.Pairwise(-(1 - np.eye(3)), np.zeros(3))
    np.testing.assert_allclose(exact.entropy(triangle, COLD), np.log(6), rtol=1e-12)
    f = exact.free_energy(triangle, COLD)
    np.testing.assert_allclose(f, -1.0 - np.log(6) / COLD, rtol=1e-14)


# --- derivatives


@pytest.mark.parametrize("beta", BETAS)
def test_derivatives_in_beta(energy, beta):
    mean, slope = jax.value_and_grad(exact.mean_energy, 1)(energy, beta)
    lnz = jax.grad(exact.log_partition, 1)(energy, beta)
    np.testing.assert_allclose(lnz, -mean, rtol=1e-12, atol=1e-13)
    heat = exact.heat_capacity(energy, beta)
    np.testing.assert_allclose(heat, -(beta**2) * slope, rtol=1e-10, atol=1e-13)
    entropy = jax.grad(exact.entropy, 1)(energy, beta)
    np.testing.assert_allclose(entropy, beta * slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("beta", BETAS)
def test_derivatives_in_the_parameters(beta):
    energy = random_pairwise(N, jax.random.key(2))
    gradient = jax.grad(exact.free_energy)(energy, beta)
    p = boltzmann(energy, beta)[0]
    s = configurations(N)
    np.testing.assert_allclose(-gradient.fields, p @ s, rtol=1e-12)
    # A symmetric matrix: each coupling J_ij stands there twice, and gets half the derivative.
    pairs = s.T @ (p[:, None] * s) * (1 - np.eye(N))
    np.testing.assert_allclose(-2 * gradient.couplings, pairs, rtol=1e-12, atol=1e-14)


def test_susceptibility_is_beta_times_the_covariance(energy):
    def of_field(h):
        return exact.magnetizations(with_fields(energy, h), 0.7)

    s, p = configurations(N), boltzmann(energy, 0.7)[0]
    centred = s - p @ s
    truth = 0.7 * centred.T @ (p[:, None] * centred)
    np.testing.assert_allclose(jax.jacobian(of_field)(jnp.zeros(N)), truth, atol=1e-12)


def test_batches_of_temperatures_compile(energy):
    curve = jax.jit(jax.vmap(exact.free_energy, (None, 0)))(energy, jnp.array(BETAS))
    truth = [-boltzmann(energy, beta)[1] / beta for beta in BETAS]
    np.testing.assert_allclose(curve, truth, rtol=1e-13)


# --- distributions


@pytest.mark.parametrize("spins", [(), (2,), (0, 3), (3, 0), (4, 1, 2), (4, 3, 2, 1, 0)], ids=str)
def test_marginals_keep_the_order_of_spins(energy, spins):
    p = boltzmann(energy, 1.0)[0]
    truth = np.zeros(2 ** len(spins))
    for i in range(2**N):
        truth[sum((i >> k & 1) << j for j, k in enumerate(spins))] += p[i]
    np.testing.assert_allclose(exact.marginal(energy, 1.0, spins), truth, rtol=1e-12)


CUE = np.where(np.arange(N) == 4, -1, np.where(np.arange(N) == 1, 1, 0))


def test_conditionals(energy):
    s, p = configurations(N), boltzmann(energy, 1.0)[0]
    truth = np.where((s[:, 1] == 1) & (s[:, 4] == -1), p, 0)
    ours = exact.conditional(energy, 1.0, CUE)
    np.testing.assert_allclose(ours, truth / truth.sum(), rtol=1e-12)
    np.testing.assert_array_equal(ours[truth == 0], 0)
    np.testing.assert_allclose(exact.conditional(energy, 1.0, 0 * CUE), p, rtol=1e-12)
    gradient = jax.grad(lambda e: exact.conditional(e, COLD, CUE)[2])(energy)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


def test_conditional_of_an_improbable_event():
    energy = independent(np.array([5.0, 0.2]))
    ours = exact.conditional(energy, 200.0, np.array([-1, 0]))
    up = 1 / (1 + np.exp(-2 * 200 * 0.2))
    np.testing.assert_allclose(ours, [1 - up, 0, up, 0], rtol=1e-12, atol=1e-15)


def test_spins_of_distributions_are_checked():
    energy = random_pairwise(3, jax.random.key(0))
    for spins in ((0, 0), (3,), (-1, 1)):
        with pytest.raises(ValueError, match=r"spins must name different spins from 0\.\.2"):
            exact.marginal(energy, 1.0, spins)
    with pytest.raises(ValueError, match=r"cue must have shape \(3,\)"):
        exact.conditional(energy, 1.0, np.ones(4))
    with pytest.raises(ValueError, match=r"cue must hold -1 or \+1 .* got 0.5 at spin 1"):
        exact.conditional(energy, 1.0, np.array([0, 0.5, 0]))


@pytest.mark.parametrize("n_bins", [1, 7])
def test_density_of_states_counts_every_configuration(energy, n_bins):
    counts, edges = exact.density_of_states(energy, n_bins)
    truth, truth_edges = np.histogram(energy_table(energy), n_bins)
    np.testing.assert_allclose(edges, truth_edges, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(counts, truth)
    assert counts.sum() == 2**N


def test_density_of_states_of_one_level():
    counts, edges = exact.density_of_states(tg.Complete(np.array([2.0, 0, 0, 0])), 4)
    assert counts.sum() == 4
    assert edges[0] <= -2.0 <= edges[-1]


def test_samples_follow_the_boltzmann_distribution():
    energy = random_interactions(4, jax.random.key(5), 0.3)
    p = boltzmann(energy, 0.7)[0]
    drawn = exact.sample(energy, 0.7, key=jax.random.key(0), n_samples=20_000)
    counts = np.bincount(tg.index_from_spins(drawn), minlength=16)
    assert p.min() * 20_000 > 5  # or the statistic is no chi-square
    chi_square = np.sum((counts - 20_000 * p) ** 2 / (20_000 * p))
    assert chi_square < scipy.stats.chi2(15).isf(1e-3)


def test_cold_samples_are_ground_states(energy):
    drawn = exact.sample(energy, COLD, key=jax.random.key(1), n_samples=100)
    np.testing.assert_array_equal(tg.index_from_spins(drawn), np.argmin(energy_table(energy)))


def test_reduction_is_the_error_of_the_table():
    full = tg.Complete.from_energies(np.random.default_rng(0).normal(size=2**N))
    reduced = full.truncate(2)
    report = exact.reduction(full, reduced, 1.5, np.array([3, 7]))
    before, after = np.asarray(full.energies()), energy_table(reduced)
    lost = [c for a, c in enumerate(np.asarray(full.couplings)) if a.bit_count() > 2]
    weights = [np.exp(-1.5 * t) / np.exp(-1.5 * t).sum() for t in (before, after)]
    np.testing.assert_allclose(report.lost_norm, np.linalg.norm(lost), rtol=1e-12)
    worst = np.max(np.abs(before - after))
    np.testing.assert_allclose(report.largest_energy_error, worst, rtol=1e-12)
    np.testing.assert_allclose(report.library_mass, weights[0][[3, 7]].sum(), rtol=1e-12)
    np.testing.assert_allclose(report.library_mass_kept, weights[1][[3, 7]].sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="reduced must have 5 spins, got 4"):
        exact.reduction(full, random_pairwise(4, jax.random.key(0)), 1.0, np.array([0]))


# --- the exact Gibbs potential


_potential = jax.jit(jax.vmap(jax.value_and_grad(exact.gibbs_potential, 2), (None, None, 0)))
_hessian = jax.jit(jax.jacfwd(jax.grad(exact.gibbs_potential, 2), 2))


def potential(energy, beta, m):
    """G and its gradient at 4 points m. As complete tables all energies share the compiled code."""
    return _potential(complete(energy), beta, m)


def tilted(table, h, beta):
    """ln Z, magnetizations and their covariance in additional fields h, by enumeration."""
    s = configurations(h.size)
    logits = beta * (s @ h - table)
    log_z = np.logaddexp.reduce(logits)
    p = np.exp(logits - log_z)
    centred = s - p @ s
    return log_z, p @ s, centred.T @ (p[:, None] * centred)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", list(ENERGIES))
def test_gibbs_potential_is_the_legendre_transform(name, beta):
    """At the magnetizations that fields h produce, G = F(h) + h.m and dG/dm = h."""
    # Weak enough that no magnetization rounds to 1 in the cold.
    energy = ENERGIES[name](N, jax.random.key(11), 0.25)
    table = energy_table(energy)
    h = np.random.default_rng(0).normal(size=(4, N)) / beta
    h[0] = 0.0
    log_z, m, _ = map(np.array, zip(*[tilted(table, x, beta) for x in h], strict=True))
    value, gradient = potential(energy, beta, m)
    truth = -log_z / beta + np.sum(h * m, axis=1)
    np.testing.assert_allclose(value, truth, rtol=1e-11)
    np.testing.assert_allclose(value[0], exact.free_energy(energy, beta), rtol=1e-12)
    np.testing.assert_allclose(gradient[0], 0.0, rtol=0, atol=1e-8)
    # The fields follow from m as well as the narrowest direction of the covariance allows.
    for x, ours in zip(h, gradient, strict=True):
        narrowest = np.linalg.eigvalsh(tilted(table, x, beta)[2])[0]
        np.testing.assert_allclose(ours, x, rtol=0, atol=1e-8 + 1e-13 / narrowest)


@pytest.mark.parametrize("beta", BETAS)
def test_gibbs_potential_at_any_magnetizations(energy, beta):
    m = np.random.default_rng(3).uniform(-0.98, 0.98, (4, N))
    m[0] = 0.0
    table = energy_table(energy)
    value, gradient = potential(energy, beta, m)
    for x, ours, field in zip(m, value, gradient, strict=True):
        log_z, means, _ = tilted(table, np.asarray(field), beta)
        np.testing.assert_allclose(means, x, rtol=0, atol=1e-9)
        np.testing.assert_allclose(ours, field @ x - log_z / beta, rtol=1e-10)
    if beta <= 1:
        np.testing.assert_allclose(value[1], gibbs_potential(table, beta, m[1]), rtol=1e-11)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_curvature_is_the_inverse_susceptibility(energy, beta):
    rng = np.random.default_rng(4)
    m, direction = rng.uniform(-0.9, 0.9, N), rng.normal(size=N)
    steps = 1e-4 * np.array([-1.0, 0.0, 1.0, 0.0])
    gradient = np.asarray(potential(energy, beta, m + steps[:, None] * direction)[1])
    covariance = tilted(energy_table(energy), gradient[1], beta)[2]
    truth = np.linalg.solve(beta * covariance, direction)
    ours = (gradient[2] - gradient[0]) / 2e-4
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-5 * np.max(np.abs(truth)))
    assert direction @ ours > 0


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_gibbs_potential_is_convex(energy, beta):
    m = np.random.default_rng(4).uniform(-0.9, 0.9, N)
    ours = np.asarray(_hessian(complete(energy), beta, m))
    field = np.asarray(potential(energy, beta, np.tile(m, (4, 1)))[1][0])
    covariance = tilted(energy_table(energy), field, beta)[2]
    np.testing.assert_allclose(ours, np.linalg.inv(beta * covariance), rtol=1e-7, atol=1e-8)
    assert np.linalg.eigvalsh(ours)[0] > 0


def test_gibbs_potential_of_independent_spins():
    fields = np.array([0.5, -1.0, 0.0, 2.0, 0.1])
    m = np.random.default_rng(5).uniform(-0.99, 0.99, (4, N))
    m[0], m[1, 3:] = 1 - 1e-6, [1 - 1e-6, -1 + 1e-6]
    beta = 2.0
    value, gradient = potential(independent(fields), beta, m)
    p = (1 + m) / 2
    entropy = -np.sum(p * np.log(p) + (1 - p) * np.log1p(-p), axis=1)
    np.testing.assert_allclose(value, -m @ fields - entropy / beta, rtol=1e-11)
    truth = np.arctanh(m) / beta - fields[None]
    np.testing.assert_allclose(gradient, truth, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_gibbs_potential_near_the_corners(energy, beta):
    signs = configurations(N)[[0, 13, 22, 31]]
    m = signs * (1 - 1e-6)
    table = energy_table(energy)
    value, gradient = potential(energy, beta, m)
    for x, ours, field in zip(m, value, gradient, strict=True):
        s, logits = configurations(N), beta * (configurations(N) @ np.asarray(field) - table)
        p = np.exp(logits - np.logaddexp.reduce(logits))
        # 1 - |m| to a relative 1e-6, which `means` itself would round away.
        outside = p @ (1 - s * np.sign(x))
        np.testing.assert_allclose(outside, 1 - np.abs(x), rtol=1e-6)
        np.testing.assert_allclose(ours, field @ x - np.logaddexp.reduce(logits) / beta, rtol=1e-9)


@pytest.mark.parametrize("beta", [2.0, 10.0, 40.0])
def test_gibbs_potential_of_a_ferromagnet_in_the_cold(beta):
    """Flat below the transition: the fields that m needs are exponentially small, or huge."""
    energy = curie_weiss(N)
    table = energy_table(energy)
    m = np.stack([np.full(N, x) for x in (0.0, 0.3, -0.9, 0.999)])
    value, gradient = potential(energy, beta, m)
    for x, ours, field in zip(m, value, gradient, strict=True):
        log_z, means, _ = tilted(table, np.asarray(field), beta)
        np.testing.assert_allclose(means, x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ours, field @ x - log_z / beta, rtol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("beta", [0.2, 3.0, 30.0, 1e3])
def test_gibbs_potential_near_equilibrium(beta, noise):
    """A library behind a gap: in the cold its magnetizations need no field, others huge ones."""
    data = np.asarray(tg.datasets.adder(1))
    energy = tg.Complete.from_data(data, temperature=0.0, gap_per_spin=1.0)
    at_rest = np.asarray(exact.magnetizations(energy, beta))
    moved = np.random.default_rng(8).normal(size=(4, 4)) * noise
    m = np.clip(at_rest + moved, -1 + 1e-6, 1 - 1e-6)
    value, gradient = potential(energy, beta, m)
    for x, ours, field in zip(m, value, gradient, strict=True):
        log_z, means, _ = tilted(energy_table(energy), np.asarray(field), beta)
        np.testing.assert_allclose(means, x, rtol=0, atol=1e-11)
        np.testing.assert_allclose(ours, field @ x - log_z / beta, rtol=0, atol=1e-9)
    assert np.all(value >= exact.free_energy(energy, beta) - 1e-12)


@pytest.mark.slow
def test_gibbs_potential_everywhere():
    """From hot to the ground state, from the centre to the corners, on rough landscapes."""
    rng = np.random.default_rng(7)
    for n in (2, 5, 8):
        s = configurations(n)
        bonds = np.triu(rng.normal(size=(n, n)), 1)
        levels = rng.integers(0, 3, size=2**n) * 1.0
        tables = [-np.sum(s @ bonds * s, axis=1), rng.normal(size=2**n), levels]
        corners = np.sign(rng.normal(size=(4, n))) * (1 - 10.0 ** -rng.uniform(0, 6, (4, n)))
        m = np.concatenate([rng.uniform(-1, 1, (4, n)), corners, s[:2] * (1 - 1e-6)])
        for table in tables:
            energy = tg.Complete.from_energies(table)
            for beta in (0.1, 1.0, 10.0, 100.0, 1e3):
                value, gradient = _potential(energy, beta, m)
                assert np.all(np.isfinite(value))
                for x, field in zip(m, gradient, strict=True):
                    logits = beta * (s @ np.asarray(field) - table)
                    p = np.exp(logits - np.logaddexp.reduce(logits))
                    outside = p @ (1 - s * np.sign(x))
                    np.testing.assert_allclose(outside, 1 - np.abs(x), rtol=1e-8)


def test_third_derivative_of_the_gibbs_potential():
    """Of one spin, where beta G = -beta h m - S(m): the third is 2 m / (beta (1 - m^2)^2)."""
    energy = tg.Interactions.from_terms(1, {(0,): 0.7})
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.grad(exact.gibbs_potential, 2), 2), 2))
    ours = third(energy, 2.0, np.array([-0.6]))
    np.testing.assert_allclose(np.ravel(ours), 2 * -0.6 / (2.0 * 0.64**2), rtol=1e-10)


def test_gibbs_potential_that_is_no_number_raises():
    energy = random_pairwise(2, jax.random.key(0))
    with pytest.raises(ValueError, match="beta must be positive and finite, got nan"):
        exact.gibbs_potential(energy, np.nan, np.array([0.1, 0.0]))
    with pytest.raises(Exception, match="the fields that hold m were not found"):
        jax.jit(lambda beta: exact.gibbs_potential(energy, beta, np.array([0.1, 0.0])))(np.nan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_any_beta_the_lowest_configurations_share_all_probability(dtype):
    """A frustrated ring: twelve of them, whose energies are equal but for rounding."""
    couplings = -0.1 * (np.eye(6, k=1) + np.eye(6, k=-1))
    couplings[0, 5] = couplings[5, 0] = 0.1
    energy = tg.Pairwise(dtype(couplings), np.zeros(6, dtype))
    s = configurations(6)
    table = -0.5 * np.einsum("si,ij,sj->s", s, couplings, s)
    ground = table < table.min() + 1e-6
    assert ground.sum() == 12
    up = ground & (s[:, 0] > 0)

    @jax.jit
    def at(beta):
        slope = jax.grad(lambda e: exact.free_energy(e, beta))(energy).couplings
        return (
            exact.probabilities(energy, beta),
            exact.conditional(energy, beta, np.eye(energy.n_spins)[0]),
            exact.free_energy(energy, beta),
            exact.mean_energy(energy, beta),
            exact.entropy(energy, beta),
            exact.heat_capacity(energy, beta),
            exact.correlations(energy, beta),
            slope,
        )

    for beta in (1e4, 1e30, np.finfo(dtype).max, np.inf):  # traced, infinity is a limit
        p, given, f, e, entropy, capacity, c, slope = at(beta)
        np.testing.assert_allclose(p, ground / 12, atol=1e-6)
        np.testing.assert_allclose(given, up / 6, atol=1e-6)
        np.testing.assert_allclose(f, table.min() - np.log(12) / beta, rtol=1e-6)
        np.testing.assert_allclose(e, table.min(), rtol=1e-6)
        np.testing.assert_allclose(entropy, np.log(12), rtol=1e-6)
        assert abs(capacity) < 1e-6
        truth = s[ground].T @ s[ground] / 12
        np.testing.assert_allclose(c, truth, atol=1e-6)
        assert np.all(np.isfinite(slope))


def test_beta_is_one_finite_number(unchecked):
    energy = random_pairwise(3, jax.random.key(0))
    for beta, message in (
        (np.ones(2), r"beta must be one number, got shape \(2,\)"),
        (np.inf, "beta must be finite, got inf"),
    ):
        for function in (exact.log_partition, exact.probabilities, exact.glauber_spectrum):
            with pytest.raises(ValueError, match=message):
                function(energy, beta)


@pytest.mark.further
def test_gibbs_potential_in_single_precision():
    energy = random_pairwise(4, jax.random.key(1))
    single = jax.tree.map(lambda x: x.astype(jnp.float32), energy)
    m = np.array([0.3, -0.5, 0.9, 0.0])
    ours = exact.gibbs_potential(single, 1.0, m.astype(np.float32))
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, gibbs_potential(energy_table(energy), 1.0, m), rtol=1e-5)


def test_gibbs_potential_asks_for_the_open_cube():
    energy = random_pairwise(3, jax.random.key(0))
    for bad in ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.5, 0.0, 0.0], [0.0, np.nan, 0.0]):
        with pytest.raises(ValueError, match="inside the open cube"):
            exact.gibbs_potential(energy, 1.0, np.array(bad))
    with pytest.raises(ValueError, match=r"m must have shape \(3,\), got \(2,\)"):
        exact.gibbs_potential(energy, 1.0, np.zeros(2))


# --- minima and barriers


def neighbours(n):
    return np.arange(2**n)[:, None] ^ (1 << np.arange(n))


def minimax(table, n):
    """Barriers between all configurations: Floyd-Warshall with (min, max)."""
    paths = np.full((table.size, table.size), np.inf)
    rows = np.arange(table.size)
    for k in range(n):
        paths[rows, rows ^ (1 << k)] = np.maximum(table, table[rows ^ (1 << k)])
    np.fill_diagonal(paths, table)
    for middle in rows:
        through = np.maximum(paths[:, middle][:, None], paths[middle][None])
        paths = np.minimum(paths, through)
    return paths


def tables(n):
    """Tables of 2^n energies: generic, of very few levels (ties), and flat."""
    rng = np.random.default_rng(n)
    generic = [rng.normal(size=2**n) for _ in range(3)]
    tied = [rng.integers(0, levels, 2**n).astype(float) for levels in (2, 3, 3, 4, 8)]
    return [*generic, *tied, np.zeros(2**n)]


@pytest.mark.parametrize("n", [1, 3, 6])
def test_minima_are_lower_than_all_their_neighbours(n):
    for table in tables(n):
        truth = np.flatnonzero(np.all(table[neighbours(n)] > table[:, None], axis=1))
        ours = exact.single_flip_minima(tg.Complete.from_energies(table))
        np.testing.assert_array_equal(ours, truth)


def test_a_plateau_has_no_strict_minimum():
    frustrated = tg.Pairwise(-(1 - np.eye(3)), np.zeros(3))
    assert exact.single_flip_minima(frustrated).size == 0
    # The same, with couplings that binary fractions do not represent, in both precisions.
    for dtype in (np.float64, np.float32):
        energy = tg.Pairwise((-0.1 * (1 - np.eye(3))).astype(dtype), np.zeros(3, dtype))
        assert exact.single_flip_minima(energy).size == 0


def test_minima_below_a_threshold_do_not_count():
    energy = independent(np.array([0.5, 1.0]))
    np.testing.assert_array_equal(exact.single_flip_minima(energy, threshold=0.9), [3])
    assert exact.single_flip_minima(energy, threshold=1.1).size == 0


def test_minima_of_energies(energy):
    table = energy_table(energy)
    truth = np.flatnonzero(np.all(table[neighbours(N)] > table[:, None], axis=1))
    np.testing.assert_array_equal(exact.single_flip_minima(energy), truth)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_barriers_between_all_configurations(n):
    for table in tables(n):
        ours = exact.barriers(tg.Complete.from_energies(table), np.arange(2**n))
        np.testing.assert_allclose(ours, minimax(table, n), rtol=0, atol=1e-12)


def test_barriers_between_minima(energy):
    table = energy_table(energy)
    minima = exact.single_flip_minima(energy)
    ours = exact.barriers(energy, minima)
    np.testing.assert_allclose(ours, minimax(table, N)[np.ix_(minima, minima)], atol=1e-12)
    np.testing.assert_allclose(np.diagonal(ours), table[minima], atol=1e-12)
    np.testing.assert_array_equal(ours, ours.T)


def test_barriers_follow_the_order_of_the_indices():
    energy = tg.Complete.from_energies(tables(6)[0])
    indices = np.array([40, 3, 3, 17])
    truth = minimax(tables(6)[0], 6)[np.ix_(indices, indices)]
    np.testing.assert_allclose(exact.barriers(energy, indices), truth, rtol=0, atol=1e-12)


def test_barrier_of_a_ferromagnet():
    """Between the two magnetized states lies the droplet of half the spins."""
    n = 8
    ours = exact.barriers(curie_weiss(n), np.array([0, 2**n - 1]))
    levels = [-(m * m - n) / (2 * n) for m in (n, 0)]
    np.testing.assert_allclose(ours, [[levels[0], levels[1]], [levels[1], levels[0]]], rtol=1e-12)


# --- heat-bath dynamics


def transition_matrix(table, beta):
    """P[i, j]: draw one spin, then its value from its conditional distribution."""
    n = table.size.bit_length() - 1
    matrix, rows = np.zeros((table.size, table.size)), np.arange(table.size)
    for k in range(n):
        flipped = rows ^ (1 << k)
        flip = 1 / (1 + np.exp(beta * (table[flipped] - table)))
        matrix[rows, flipped] = flip / n
        matrix[rows, rows] += (1 - flip) / n
    return matrix


@pytest.mark.parametrize("beta", [0.0, *BETAS])
def test_spectrum_is_that_of_the_transition_matrix(energy, beta):
    truth = np.linalg.eigvals(transition_matrix(energy_table(energy), beta))
    np.testing.assert_allclose(truth.imag, 0, atol=1e-6)
    ours = exact.glauber_spectrum(energy, beta)
    assert ours.shape == (2**N,)
    # A nonsymmetric solver resolves close eigenvalues to about the root of the precision.
    np.testing.assert_allclose(ours, np.sort(truth.real)[::-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours[0], 1.0, rtol=1e-13)
    assert np.all(np.diff(ours) <= 0)
    assert ours[-1] > -1e-12


@pytest.mark.parametrize("n", [1, 4, 11])
def test_independent_spins_relax_one_by_one(n):
    """A spin is forgotten when it is drawn: the set a decays by 1 - |a|/n a step, in any field."""
    energy = independent(np.linspace(-1, 1, n))
    truth = np.sort([1 - a.bit_count() / n for a in range(2**n)])[::-1]
    ours = exact.glauber_spectrum(energy, 1.3, n_eigenvalues=None if n < 11 else 16)
    np.testing.assert_allclose(ours, truth[: ours.size], rtol=0, atol=1e-12)
    if n > 1:
        sweeps = -1 / (n * math.log(ours[1]))
        np.testing.assert_allclose(sweeps, -1 / (n * np.log(1 - 1 / n)), rtol=1e-12)


@pytest.mark.further
def test_sparse_spectrum_is_the_dense_one():
    n, beta = 11, 1.2
    energy = random_pairwise(n, jax.random.key(3))
    table = energy_table(energy)
    matrix = transition_matrix(table, beta)
    root = np.exp(-0.5 * beta * (table - table.min()))
    truth = np.linalg.eigvalsh(root[:, None] * matrix / root[None])[::-1]
    ours = exact.glauber_spectrum(energy, beta)
    assert ours.shape == (32,)
    np.testing.assert_allclose(ours, truth[:32], rtol=0, atol=1e-10)
    few = exact.glauber_spectrum(energy, beta, n_eigenvalues=3)
    np.testing.assert_allclose(few, truth[:3], rtol=0, atol=1e-10)


def test_two_states_exchange_slowly_in_the_cold():
    gaps = [1 - exact.glauber_spectrum(curie_weiss(6), beta)[1] for beta in (2.0, 4.0, 8.0)]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2] > 0
    # Arrhenius: the rate falls as exp(-beta barrier), the barrier (n^2 - 0)/2n = 3.
    np.testing.assert_allclose(np.log(gaps[1] / gaps[2]) / 4.0, 3.0, rtol=0.1)


def test_few_leading_eigenvalues():
    energy = random_pairwise(4, jax.random.key(0))
    few = exact.glauber_spectrum(energy, 1.0, n_eigenvalues=3)
    np.testing.assert_array_equal(few, exact.glauber_spectrum(energy, 1.0)[:3])


def test_spectrum_in_the_deep_cold():
    ours = exact.glauber_spectrum(curie_weiss(4), COLD)
    np.testing.assert_allclose(ours[:2], 1.0, rtol=1e-14)
    assert np.all(np.isfinite(ours))


def test_relaxation_times_are_those_of_the_spectrum():
    energy = random_pairwise(5, jax.random.key(2))
    values = exact.glauber_spectrum(energy, 2.0, n_eigenvalues=6)
    times = exact.relaxation_times(energy, 2.0, n_eigenvalues=6)
    np.testing.assert_allclose(times, -1 / (5 * np.log(values[1:])), rtol=1e-12)
    # Two frozen states: an exchange too slow for double precision never happens.
    assert exact.relaxation_times(curie_weiss(4, 2.0), COLD, n_eigenvalues=2)[0] > 1e14


# --- metastable sets


@pytest.mark.parametrize("beta", [2.0, 8.0, 100.0])
def test_metastable_sets_of_a_ferromagnet_are_its_two_phases(beta):
    energy = tg.Pairwise(2 / 6 * (1 - np.eye(6)), np.full(6, 0.01))
    sets = exact.metastable_sets(energy, beta, threshold=20.0)
    total = configurations(6).sum(axis=1)
    np.testing.assert_array_equal(sets.labels[total > 0], 0)
    np.testing.assert_array_equal(sets.labels[total < 0], 1)
    p = boltzmann(energy, beta)[0]
    np.testing.assert_allclose(sets.weights, np.bincount(sets.labels, p), rtol=1e-10)
    within = [p[sets.labels == a] / sets.weights[a] for a in (0, 1)]
    entropies = [-np.sum(x[x > 0] * np.log(x[x > 0])) for x in within]
    np.testing.assert_allclose(sets.entropies, entropies, atol=1e-10)
    assert sets.relaxation_times.shape == (1,)
    # Above the transition there is one.
    assert np.all(exact.metastable_sets(energy, 0.3, threshold=20.0).labels == 0)


@pytest.mark.parametrize("beta", [4.0, 30.0])
@pytest.mark.parametrize("name, seed", [("pairwise", 0), ("pairwise", 6), ("complete", 1)])
def test_metastable_sets_are_basins_of_the_dynamics(name, seed, beta):
    """From every configuration, the set whose bottom the heat bath most likely meets first."""
    n, threshold = 7, 20.0
    energy = ENERGIES[name](n, jax.random.key(seed))
    table, matrix = energy_table(energy), transition_matrix(energy_table(energy), beta)
    sets = exact.metastable_sets(energy, beta, threshold=threshold)
    times = exact.relaxation_times(energy, beta)
    assert len(sets.weights) == 1 + np.sum(times > threshold) > 1
    np.testing.assert_array_equal(np.unique(sets.labels), np.arange(len(sets.weights)))
    assert np.all(np.diff(sets.weights) <= 0)
    bottoms = np.array(
        [np.argmin(np.where(sets.labels == a, table, np.inf)) for a in range(len(sets.weights))]
    )
    assert np.all(np.isin(bottoms, exact.single_flip_minima(energy)))
    rest = np.setdiff1d(np.arange(2**n), bottoms)
    leaving = np.eye(len(rest)) - matrix[np.ix_(rest, rest)]
    hits = np.linalg.solve(leaving, matrix[np.ix_(rest, bottoms)])
    first, second = np.sort(hits, axis=1)[:, :-3:-1].T
    clear = first > second + 0.2
    assert np.mean(clear) > 0.2
    np.testing.assert_array_equal(np.argmax(hits, axis=1)[clear], sets.labels[rest][clear])


def test_metastable_sets_of_a_sparse_matrix():
    """Eleven spins take the way of the sparse solver: against dense truth."""
    n, beta = 11, 3.0
    energy = random_pairwise(n, jax.random.key(3))
    table = energy_table(energy)
    root = np.exp(-0.5 * beta * (table - table.min()))
    matrix = root[:, None] * transition_matrix(table, beta) / root[None]
    values = np.linalg.eigvalsh(matrix)[::-1]
    times = -1 / (n * np.log(values[1:8]))
    sets = exact.metastable_sets(energy, beta, threshold=20.0)
    np.testing.assert_allclose(sets.relaxation_times, times[times > 20], rtol=1e-6)
    assert len(np.unique(sets.labels)) == 1 + len(sets.relaxation_times) > 1


@pytest.mark.further
def test_sixteen_spins_reverse_as_their_total_does():
    """The total of a Curie-Weiss magnet is a walk on 17 sites, the reversal its slowest process."""
    n, beta = 16, 1.6
    energy, up = curie_weiss(n), np.arange(n + 1)
    # A step draws one of the `up[k]` spins or of the others, each in the field of the rest.
    raises, lowers = (
        share * expit(2 * beta * sign * (2 * up - n + sign) / n)
        for share, sign in ((1 - up / n, 1), (up / n, -1))
    )
    walk = np.diag(raises[:-1], 1) + np.diag(lowers[1:], -1)
    walk += np.diag(1 - walk.sum(axis=1))
    values = np.sort(np.linalg.eigvals(walk).real)[::-1]
    sets = exact.metastable_sets(energy, beta, threshold=20.0)
    np.testing.assert_allclose(sets.relaxation_times, [-1 / (n * np.log(values[1]))], rtol=1e-6)
    total = sets.weights @ (sets.entropies - np.log(sets.weights))
    np.testing.assert_allclose(total, exact.entropy(energy, beta), rtol=1e-10)


def test_equal_eigenvalues_are_all_found():
    """Uncoupled frozen pairs: 2^5 states for ever, of 11 spins with one left over."""
    bonds = {(2 * k, 2 * k + 1): 1.0 for k in range(5)}
    energy = tg.Interactions.from_terms(11, bonds)
    sets = exact.metastable_sets(energy, 10.0, threshold=1e3)
    assert len(sets.weights) == 32
    np.testing.assert_allclose(sets.weights, 1 / 32, rtol=1e-6)
    s = configurations(11)
    frozen = s[:, 0:10:2] @ (1 << np.arange(5))
    together = np.all(s[:, 0:10:2] == s[:, 1:10:2], axis=1)
    pairs = set(zip(frozen[together], sets.labels[together], strict=True))
    assert len(pairs) == 32


def test_metastable_sets_ask_for_a_threshold():
    energy = random_pairwise(3, jax.random.key(0))
    with pytest.raises(ValueError, match="threshold must be positive"):
        exact.metastable_sets(energy, 1.0, threshold=0.0)
    with pytest.raises(ValueError, match="n_eigenvalues must be at least 1, got 0"):
        exact.glauber_spectrum(energy, 1.0, n_eigenvalues=0)


def test_spectrum_of_too_many_spins():
    with pytest.raises(ValueError, match="at most 18 spins for its spectrum, got 19"):
        exact.glauber_spectrum(independent(np.ones(19)), 1.0)


def test_enumeration_of_too_many_spins():
    energy = independent(np.ones(25))
    for function in (exact.energies, exact.single_flip_minima):
        with pytest.raises(ValueError, match="at most 24 spins"):
            function(energy)
    for quantity in (exact.probabilities, exact.density_of_states):
        with pytest.raises(ValueError, match="at most 24 spins"):
            quantity(energy, 1)
    # What needs no table of all configurations is had for each spin by itself.
    np.testing.assert_allclose(exact.free_energy(energy, 1.0), -25 * np.log(2 * np.cosh(1)))
