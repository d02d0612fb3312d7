"""Thermodynamics of tables of energies, against sums written out in NumPy."""

import decimal

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg

BETA = 1.4
# Compiled once for each shape: op by op costs more time.
conjoint_potential = jax.jit(tg.exact.conjoint_potential)
conjoint_gradient = jax.jit(jax.value_and_grad(tg.exact.conjoint_potential, (0, 1)))
boltzmann_weights = jax.jit(tg.exact.boltzmann_weights)
legendre_potential = jax.jit(tg.exact.legendre_potential)
gibbs_gap = jax.jit(tg.exact.gibbs_gap)
coarse_grain = jax.jit(tg.exact.coarse_grain, static_argnums=3)


def _table(size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size) * 2


def _weights(size: int = 32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(size))


def _conjoint(table: np.ndarray, beta: float) -> float:
    return -float(np.logaddexp.reduce(-beta * table)) / beta


def _boltzmann(table: np.ndarray, beta: float) -> np.ndarray:
    return np.exp(beta * (_conjoint(table, beta) - table))


def _difference(f, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    return np.array([(f(x + d) - f(x - d)) / (2 * step) for d in step * np.eye(len(x))])


def test_conjoint_potential_and_its_derivatives():
    table = _table()
    p = _boltzmann(table, BETA)
    value, (by_energy, by_beta) = conjoint_gradient(table, BETA)
    np.testing.assert_allclose(value, _conjoint(table, BETA), rtol=1e-13)
    np.testing.assert_allclose(by_energy, p, rtol=1e-12)
    np.testing.assert_allclose(boltzmann_weights(table, BETA), p, rtol=1e-12)
    entropy = -p @ np.log(p)
    np.testing.assert_allclose(by_beta, entropy / BETA**2, rtol=1e-12)


def test_conjoint_potential_is_stable_to_zero_and_infinite_beta():
    table = _table() + 1e6
    for beta in (1e300, 1e12, 1e3):
        np.testing.assert_array_equal(conjoint_potential(table, beta), table.min())
        x = boltzmann_weights(table, beta)
        np.testing.assert_array_equal(x, np.eye(len(table))[table.argmin()])
    hot = conjoint_potential(_table(), 1e-8)
    np.testing.assert_allclose(hot, -1e8 * np.log(32), rtol=1e-8)


def test_infinite_energies_are_excluded():
    table = np.append(_table(), np.inf)
    value, slopes = conjoint_gradient(table, BETA)
    p = _boltzmann(table[:-1], BETA)
    np.testing.assert_allclose(value, _conjoint(table[:-1], BETA), rtol=1e-13)
    np.testing.assert_allclose(slopes[0], np.append(p, 0), rtol=1e-12)
    np.testing.assert_allclose(slopes[1], -p @ np.log(p) / BETA**2, rtol=1e-12)
    x = np.append(_weights(), 0)
    shorter = gibbs_gap(table[:-1], BETA, x[:-1])
    np.testing.assert_allclose(gibbs_gap(table, BETA, x), shorter, rtol=1e-13)
    assert gibbs_gap(table, BETA, np.eye(33)[-1]) == np.inf


def test_legendre_potential():
    x, table = _weights(), _table()
    x[:3] = 0
    x /= x.sum()
    expected = 1 / BETA * np.sum(x[3:] * np.log(x[3:]))
    np.testing.assert_allclose(legendre_potential(x, BETA), expected, rtol=1e-13)
    p = boltzmann_weights(table, BETA)
    transform = _conjoint(table, BETA) - float(p @ table)
    np.testing.assert_allclose(legendre_potential(p, BETA), transform, rtol=1e-12)


def test_gibbs_gap_is_its_definition_and_bounds():
    rng = np.random.default_rng(3)
    gap = jax.jit(jax.vmap(tg.exact.gibbs_gap))
    x = rng.dirichlet(np.full(16, 0.3), size=50)
    x[:5] = np.eye(16)[:5]
    tables, betas = rng.normal(size=(50, 16)), 1 / rng.uniform(0.1, 5, size=50)
    ours = gap(tables, betas, x)
    entropies = -np.sum(np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0), axis=1)
    conjoint = [_conjoint(e, b) for e, b in zip(tables, betas, strict=True)]
    direct = np.sum(x * tables, axis=1) - entropies / betas - conjoint
    np.testing.assert_allclose(ours, direct, rtol=1e-11, atol=1e-13)
    assert np.all(np.asarray(ours) > 0)
    at_minimum = jax.vmap(tg.exact.boltzmann_weights)(tables, betas)
    assert np.all(np.asarray(gap(tables, betas, at_minimum)) < 1e-28)


@pytest.mark.parametrize("deviation", [1e-9, 1e-6, 1e-3, 0.03, 0.099, 0.101, 0.5])
def test_gibbs_gap_keeps_its_precision_near_the_minimum(deviation):
    """Against 60-digit arithmetic. Energies are zero, so that p = 1/4 is exact."""
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    x = 0.25 * (1 + deviation * signs)
    with decimal.localcontext() as context:
        context.prec = 60
        digits = [decimal.Decimal(float(v)) for v in x]
        truth = float(sum((v * (4 * v).ln() - v for v in digits), decimal.Decimal(1)))
    # x carries a rounding of 1e-16, which no formula can undo, but truth is computed from it.
    np.testing.assert_allclose(
        gibbs_gap(np.zeros(4), 1.0, x), truth, rtol=2e-6 if deviation < 1e-8 else 1e-9
    )


def test_gibbs_gap_gradients():
    x, table = _weights(), _table()
    p = _boltzmann(table, BETA)
    x = np.concatenate([1.02 * p[:16], x[16:]])  # both branches
    x /= x.sum()
    gradients = jax.jit(jax.grad(tg.exact.gibbs_gap, (0, 1, 2)))(table, BETA, x)
    by_table, by_beta, by_x = gradients
    np.testing.assert_allclose(by_x, np.log(x / p) / BETA, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(by_table, x - p, rtol=1e-9, atol=1e-13)
    slope = _difference(lambda b: gibbs_gap(table, b[0], x), np.array([BETA]))
    np.testing.assert_allclose(by_beta, slope[0], rtol=1e-8)


def test_tables_keep_their_dtype():
    table, x = _table().astype(np.float32), _weights().astype(np.float32)
    groups = np.arange(32) % 3
    results = [
        conjoint_potential(table, 1.5),
        boltzmann_weights(table, 1.5),
        legendre_potential(x, 1.5),
        gibbs_gap(table, 1.5, x),
        coarse_grain(table, 1.5, groups, 3),
    ]
    assert all(r.dtype == jnp.float32 for r in results)
    deviation = 1e-3 * np.sign(np.sin(2 + np.arange(32))).astype(np.float32)
    near = gibbs_gap(table, 1.5, np.asarray(results[1]) * (1 + deviation))
    np.testing.assert_allclose(near, 0.5e-6 / 1.5, rtol=1e-2)
    assert conjoint_potential(np.arange(4), 1).dtype == jnp.float64


# --- sets of configurations


def test_coarse_graining():
    table, x = _table(), _weights()
    groups = np.random.default_rng(5).integers(0, 4, size=32)
    groups[groups == 2] = 4  # set 2 is empty
    free = coarse_grain(table, BETA, groups, 5)
    members = [np.flatnonzero(groups == g) for g in range(5)]
    expected = [_conjoint(table[rows], BETA) if rows.size else np.inf for rows in members]
    np.testing.assert_allclose(free, expected, rtol=1e-12)
    p = _boltzmann(table, BETA)
    np.testing.assert_allclose(boltzmann_weights(free, BETA), np.bincount(groups, p, 5), rtol=1e-12)
    np.testing.assert_allclose(conjoint_potential(free, BETA), _conjoint(table, BETA), rtol=1e-13)
    coarse = float(gibbs_gap(free, BETA, np.bincount(groups, x, 5)))
    assert 0 < coarse < float(gibbs_gap(table, BETA, x))


def test_coarse_graining_has_derivatives_with_an_empty_set():
    table = _table(8)
    groups = np.array([0, 0, 3, 1, 1, 3, 0, 1])

    def of_set(table, beta):
        return coarse_grain(table, beta, groups, 4)[3]

    by_table, by_beta = jax.jit(jax.grad(of_set, (0, 1)))(table, BETA)
    inside = _boltzmann(table[[2, 5]], BETA)
    np.testing.assert_allclose(by_table, [0, 0, inside[0], 0, 0, inside[1], 0, 0], rtol=1e-12)
    entropy = -inside @ np.log(inside)
    np.testing.assert_allclose(by_beta, entropy / BETA**2, rtol=1e-11)
    cold = coarse_grain(table, 1e300, groups, 4)
    np.testing.assert_array_equal(cold[3], table[[2, 5]].min())


@pytest.mark.parametrize("bad", [-1, 2])
def test_coarse_graining_wants_sets_that_exist(bad):
    with pytest.raises(ValueError, match=r"groups must lie in 0\.\.1"):
        tg.exact.coarse_grain(np.zeros(2), 1.0, np.array([0, bad]), 2)


# --- source fields


def test_sources_generate_means_and_covariances():
    energy, beta = helpers.random_interactions(4, jax.random.key(3)), 0.8
    s = helpers.configurations(4)
    table = np.stack([s[:, 0], s[:, 1] * s[:, 2], helpers.energy_table(energy)])
    sources = np.array([0.3, -0.2, 0.1])
    logits = -beta * helpers.energy_table(energy) + sources @ table
    log_z = np.logaddexp.reduce(logits)
    p = np.exp(logits - log_z)
    means = table @ p

    def generating(sources, energy):
        return tg.exact.generating_function(energy, beta, table, sources)

    np.testing.assert_allclose(jax.jit(generating)(sources, energy), log_z, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(generating))(sources, energy), means, rtol=1e-11)
    covariance = (table * p) @ table.T - np.outer(means, means)
    np.testing.assert_allclose(
        jax.jit(jax.hessian(generating))(sources, energy), covariance, rtol=1e-10
    )

    functions = [lambda s: s[0], lambda s: s[1] * s[2], energy]
    called = jax.jit(lambda x: tg.exact.generating_function(energy, beta, functions, x))
    np.testing.assert_allclose(called(sources), log_z, rtol=1e-12)


def test_sources_want_one_value_for_each_configuration():
    energy = helpers.random_pairwise(3, jax.random.key(0))
    with pytest.raises(ValueError, match=r"observables must have shape \(k, 8\), got \(2, 4\)"):
        tg.exact.generating_function(energy, 1.0, np.ones((2, 4)), np.zeros(2))
