"""The constructed potential and the phases of a library, against sums written out in NumPy."""

import decimal
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen import learning

TEMPERATURE = 0.7
# Compiled once for each shape: op by op costs more time.
conjoint_potential = jax.jit(learning.conjoint_potential)
conjoint_gradient = jax.jit(jax.value_and_grad(learning.conjoint_potential, (0, 1)))
weights = jax.jit(learning.weights)
legendre_potential = jax.jit(learning.legendre_potential)
gibbs_gap = jax.jit(learning.gibbs_gap)
coarse_grain = jax.jit(learning.coarse_grain, static_argnums=2)


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _table(size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size) * 2


def _weights(size: int = 32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(size))


def _conjoint(table: np.ndarray, temperature: float) -> float:
    return -temperature * float(np.logaddexp.reduce(-table / temperature))


def _boltzmann(table: np.ndarray, temperature: float) -> np.ndarray:
    return np.exp((_conjoint(table, temperature) - table) / temperature)


def _difference(f, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    return np.array([(f(x + d) - f(x - d)) / (2 * step) for d in step * np.eye(len(x))])


# --- tables of energies


def test_conjoint_potential_and_its_derivatives():
    table = _table()
    p = _boltzmann(table, TEMPERATURE)
    value, (by_energy, by_temperature) = conjoint_gradient(table, TEMPERATURE)
    np.testing.assert_allclose(value, _conjoint(table, TEMPERATURE), rtol=1e-13)
    np.testing.assert_allclose(by_energy, p, rtol=1e-12)
    np.testing.assert_allclose(weights(table, TEMPERATURE), p, rtol=1e-12)
    np.testing.assert_allclose(by_temperature, p @ np.log(p), rtol=1e-12)


def test_conjoint_potential_is_stable_to_zero_and_infinite_temperature():
    table = _table() + 1e6
    for temperature in (1e-300, 1e-12, 1e-3):
        np.testing.assert_array_equal(conjoint_potential(table, temperature), table.min())
        x = weights(table, temperature)
        np.testing.assert_array_equal(x, np.eye(len(table))[table.argmin()])
    hot = conjoint_potential(_table(), 1e8)
    np.testing.assert_allclose(hot, -1e8 * np.log(32), rtol=1e-8)


def test_infinite_energies_are_excluded():
    table = np.append(_table(), np.inf)
    value, slopes = conjoint_gradient(table, TEMPERATURE)
    p = _boltzmann(table[:-1], TEMPERATURE)
    np.testing.assert_allclose(value, _conjoint(table[:-1], TEMPERATURE), rtol=1e-13)
    np.testing.assert_allclose(slopes[0], np.append(p, 0), rtol=1e-12)
    np.testing.assert_allclose(slopes[1], p @ np.log(p), rtol=1e-12)
    x = np.append(_weights(), 0)
    shorter = gibbs_gap(x[:-1], table[:-1], TEMPERATURE)
    np.testing.assert_allclose(gibbs_gap(x, table, TEMPERATURE), shorter, rtol=1e-13)
    assert gibbs_gap(np.eye(33)[-1], table, TEMPERATURE) == np.inf


def test_legendre_potential():
    x, table = _weights(), _table()
    x[:3] = 0
    x /= x.sum()
    expected = TEMPERATURE * np.sum(x[3:] * np.log(x[3:]))
    np.testing.assert_allclose(legendre_potential(x, TEMPERATURE), expected, rtol=1e-13)
    p = weights(table, TEMPERATURE)
    transform = _conjoint(table, TEMPERATURE) - float(p @ table)
    np.testing.assert_allclose(legendre_potential(p, TEMPERATURE), transform, rtol=1e-12)


def test_gibbs_gap_is_its_definition_and_bounds():
    rng = np.random.default_rng(3)
    gap = jax.jit(jax.vmap(learning.gibbs_gap))
    x = rng.dirichlet(np.full(16, 0.3), size=50)
    x[:5] = np.eye(16)[:5]
    tables, temperatures = rng.normal(size=(50, 16)), rng.uniform(0.1, 5, size=50)
    ours = gap(x, tables, temperatures)
    entropies = -np.sum(np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0), axis=1)
    conjoint = [_conjoint(e, t) for e, t in zip(tables, temperatures, strict=True)]
    direct = np.sum(x * tables, axis=1) - temperatures * entropies - conjoint
    np.testing.assert_allclose(ours, direct, rtol=1e-11, atol=1e-13)
    assert np.all(np.asarray(ours) > 0)
    at_minimum = jax.vmap(learning.weights)(tables, temperatures)
    assert np.all(np.asarray(gap(at_minimum, tables, temperatures)) < 1e-28)


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
        gibbs_gap(x, np.zeros(4), 1.0), truth, rtol=2e-6 if deviation < 1e-8 else 1e-9
    )


def test_gibbs_gap_gradients():
    x, table = _weights(), _table()
    p = _boltzmann(table, TEMPERATURE)
    x = np.concatenate([1.02 * p[:16], x[16:]])  # both branches
    x /= x.sum()
    gradients = jax.jit(jax.grad(learning.gibbs_gap, (0, 1, 2)))(x, table, TEMPERATURE)
    by_x, by_table, by_temperature = gradients
    np.testing.assert_allclose(by_x, TEMPERATURE * np.log(x / p), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(by_table, x - p, rtol=1e-9, atol=1e-13)
    slope = _difference(lambda t: gibbs_gap(x, table, t[0]), np.array([TEMPERATURE]))
    np.testing.assert_allclose(by_temperature, slope[0], rtol=1e-8)


def test_tables_keep_their_dtype():
    table, x = _table().astype(np.float32), _weights().astype(np.float32)
    groups = np.arange(32) % 3
    results = [
        conjoint_potential(table, 0.7),
        weights(table, 0.7),
        legendre_potential(x, 0.7),
        gibbs_gap(x, table, 0.7),
        coarse_grain(table, groups, 3, 0.7),
    ]
    assert all(r.dtype == jnp.float32 for r in results)
    deviation = 1e-3 * np.sign(np.sin(2 + np.arange(32))).astype(np.float32)
    near = gibbs_gap(np.asarray(results[1]) * (1 + deviation), table, 0.7)
    np.testing.assert_allclose(near, 0.7 * 0.5e-6, rtol=1e-2)
    assert conjoint_potential(np.arange(4), 1).dtype == jnp.float64


# --- sets of configurations


def test_coarse_graining():
    table, x = _table(), _weights()
    groups = np.random.default_rng(5).integers(0, 4, size=32)
    groups[groups == 2] = 4  # set 2 is empty
    free = coarse_grain(table, groups, 5, TEMPERATURE)
    members = [np.flatnonzero(groups == g) for g in range(5)]
    expected = [_conjoint(table[rows], TEMPERATURE) if rows.size else np.inf for rows in members]
    np.testing.assert_allclose(free, expected, rtol=1e-12)
    p = _boltzmann(table, TEMPERATURE)
    np.testing.assert_allclose(weights(free, TEMPERATURE), np.bincount(groups, p, 5), rtol=1e-12)
    np.testing.assert_allclose(
        conjoint_potential(free, TEMPERATURE), _conjoint(table, TEMPERATURE), rtol=1e-13
    )
    coarse = float(gibbs_gap(np.bincount(groups, x, 5), free, TEMPERATURE))
    assert 0 < coarse < float(gibbs_gap(x, table, TEMPERATURE))


def test_coarse_graining_has_derivatives_with_an_empty_set():
    table = _table(8)
    groups = np.array([0, 0, 3, 1, 1, 3, 0, 1])

    def of_set(table, temperature):
        return coarse_grain(table, groups, 4, temperature)[3]

    by_table, by_temperature = jax.jit(jax.grad(of_set, (0, 1)))(table, TEMPERATURE)
    inside = _boltzmann(table[[2, 5]], TEMPERATURE)
    np.testing.assert_allclose(by_table, [0, 0, inside[0], 0, 0, inside[1], 0, 0], rtol=1e-12)
    np.testing.assert_allclose(by_temperature, inside @ np.log(inside), rtol=1e-11)
    cold = coarse_grain(table, groups, 4, 1e-300)
    np.testing.assert_array_equal(cold[3], table[[2, 5]].min())


@pytest.mark.parametrize("bad", [-1, 2])
def test_coarse_graining_wants_sets_that_exist(bad):
    with pytest.raises(ValueError, match=r"groups must lie in 0\.\.1"):
        learning.coarse_grain(np.zeros(2), np.array([0, bad]), 2, 1.0)


# --- parametric energies


def _samples(n: int, n_samples: int) -> np.ndarray:
    p, _ = helpers.boltzmann(helpers.random_pairwise(n, _key(n), scale=1.5), 1.0)
    return helpers.configurations(n)[np.random.default_rng(0).choice(len(p), n_samples, p=p)]


def _visible_table(energy: tg.AbstractMultilinear, beta: float) -> np.ndarray:
    """Free energy of each visible configuration; visible spins are the low bits."""
    table = helpers.energy_table(energy)
    rows = table.reshape(-1, 2 ** tg.energies.n_visible(energy))
    return -np.logaddexp.reduce(-beta * rows, axis=0) / beta


@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_potential_is_the_negative_log_likelihood(name):
    energy = helpers.ENERGIES[name](5, _key(1))
    v = tg.energies.n_visible(energy)
    rows = np.random.default_rng(2).integers(0, 2**v, size=20)
    data = jnp.asarray(helpers.configurations(v)[rows])
    compiled = jax.jit(learning.potential)
    for beta in (0.3, 1.0, 2.0):
        log_p = -beta * _visible_table(energy, beta) - helpers.boltzmann(energy, beta)[1]
        ours = beta * compiled(energy, beta, data)
        np.testing.assert_allclose(ours, -log_p[rows].mean(), rtol=1e-12)
    samples = learning.Samples(data, jnp.full(20, 1 / 20))
    loss, _ = jax.jit(tg.ExactLikelihood().loss)(energy, samples, None, _key(0))
    np.testing.assert_allclose(loss, compiled(energy, 1.0, data), rtol=1e-13)


def test_gradient_of_the_potential_is_the_difference_of_moments():
    energy = helpers.random_pairwise(5, _key(1))
    data, beta = _samples(5, 40), 1.3
    gradient = jax.jit(jax.grad(learning.potential))(energy, beta, data)
    p, _ = helpers.boltzmann(energy, beta)
    s = helpers.configurations(5)
    np.testing.assert_allclose(gradient.fields, p @ s - data.mean(axis=0), atol=1e-13)
    # Each half of J_ij carries half of the derivative.
    pairs = 0.5 * ((s.T * p) @ s - data.T @ data / len(data))
    np.testing.assert_allclose(gradient.couplings, pairs * (1 - np.eye(5)), atol=1e-13)


def test_any_optimiser_minimises_the_potential():
    data = _samples(3, 60)
    energy = tg.Pairwise(np.zeros((3, 3)), np.zeros(3))
    optimizer = optax.adam(0.05)
    state = optimizer.init(energy)

    @jax.jit
    def step(energy, state):
        gradient = jax.grad(learning.potential)(energy, 1.0, data)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(energy, updates), state

    for _ in range(600):
        energy, state = step(energy, state)
    p, _ = helpers.boltzmann(energy, 1.0)
    np.testing.assert_allclose(p @ helpers.configurations(3), data.mean(axis=0), atol=1e-6)


def test_exact_likelihood_matches_the_moments_of_the_data():
    n, data = 5, _samples(5, 200)
    start = tg.Pairwise(np.zeros((n, n)), np.zeros(n))
    fitted = tg.fit(tg.ExactLikelihood(), start, data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    p, log_z = helpers.boltzmann(fitted.energy, 1.0)
    s = helpers.configurations(n)
    np.testing.assert_allclose(p @ s, data.mean(axis=0), atol=1.1e-5)
    np.testing.assert_allclose((s.T * p) @ s, data.T @ data / len(data), atol=2.2e-5)
    rows = (data > 0) @ (1 << np.arange(n))
    likelihood = log_z + helpers.energy_table(fitted.energy)[rows].mean()
    np.testing.assert_allclose(fitted.history[-1], likelihood, rtol=1e-12)


def test_complete_reproduces_any_table():
    """KL to an arbitrary distribution falls to zero; independent spins stay away from it."""
    n = 5
    s = helpers.configurations(n)
    counts = np.random.default_rng(4).integers(1, 30, size=2**n)
    x = counts / counts.sum()
    start = tg.Complete(np.zeros(2**n))
    data = np.repeat(s, counts, axis=0)
    # Plain gradient descent compiles faster than the default.
    options = {"optimizer": optax.sgd(0.5), "key": _key(0)}
    fitted = tg.fit(tg.ExactLikelihood(), start, data, **options)
    assert fitted.result == tg.RESULTS.converged
    assert 0 <= gibbs_gap(x, tg.exact.energies(fitted.energy), 1.0) < 1e-7
    assert gibbs_gap(x, -np.log(helpers.product_measure(x @ s)), 1.0) > 0.05
    assert 0 <= gibbs_gap(x, tg.Complete.from_weights(x, 1.0).energies(), 1.0) < 1e-27


def test_exact_likelihood_wants_few_spins():
    large = tg.Pairwise(np.zeros((21, 21)), np.zeros(21))
    with pytest.raises(ValueError, match="at most 20 spins for ExactLikelihood, .* got 21"):
        tg.fit(tg.ExactLikelihood(), large, np.ones((2, 21)), key=_key(0))


# --- source fields


def test_sources_generate_means_and_covariances():
    energy, beta = helpers.random_interactions(4, _key(3)), 0.8
    s = helpers.configurations(4)
    table = np.stack([s[:, 0], s[:, 1] * s[:, 2], helpers.energy_table(energy)])
    sources = np.array([0.3, -0.2, 0.1])
    logits = -beta * helpers.energy_table(energy) + sources @ table
    log_z = np.logaddexp.reduce(logits)
    p = np.exp(logits - log_z)
    means = table @ p

    def generating(sources, energy):
        return learning.generating_function(energy, table, sources, beta)

    np.testing.assert_allclose(jax.jit(generating)(sources, energy), log_z, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(generating))(sources, energy), means, rtol=1e-11)
    covariance = (table * p) @ table.T - np.outer(means, means)
    np.testing.assert_allclose(
        jax.jit(jax.hessian(generating))(sources, energy), covariance, rtol=1e-10
    )

    functions = [lambda s: s[0], lambda s: s[1] * s[2], energy]
    called = jax.jit(lambda x: learning.generating_function(energy, functions, x, beta))
    np.testing.assert_allclose(called(sources), log_z, rtol=1e-12)


def test_sources_want_one_value_for_each_configuration():
    energy = helpers.random_pairwise(3, _key(0))
    with pytest.raises(ValueError, match=r"observables must have shape \(k, 8\), got \(2, 4\)"):
        learning.generating_function(energy, np.ones((2, 4)), np.zeros(2), 1.0)


# --- phases


@pytest.mark.parametrize(("n", "m"), [(4, 1), (6, 8), (6, 31), (10, 32)])
def test_library_mass_is_the_enumerated_one(n, m):
    table = np.full(2**n, 3.0)
    table[np.random.default_rng(0).permutation(2**n)[:m]] = 0
    critical = float(learning.coexistence_temperature(3.0, n, m))
    for temperature in (0.2, 1.0, critical, 50.0):
        p = _boltzmann(table, temperature)
        mass = learning.library_mass(3.0, n, m, temperature)
        np.testing.assert_allclose(mass, p[table == 0].sum(), rtol=1e-11)
        if mass < 1 - 1e-6:
            gap = learning.required_gap(m, n, temperature, mass)
            np.testing.assert_allclose(gap, 3.0, rtol=1e-9)
    np.testing.assert_allclose(learning.library_mass(3.0, n, m, critical), 0.5, rtol=1e-13)


def test_phases_at_any_size():
    """Integers, not floats: 2^n is beyond both float64 and the nearest float of 2^n - 2M."""
    critical = learning.coexistence_temperature(1.0, 5000, 7)
    np.testing.assert_allclose(critical, 1 / (5000 * math.log(2) - math.log(7)), rtol=1e-14)
    half = 2 ** (99) - 1  # (2^n - M)/M = 1 + 2/M
    np.testing.assert_allclose(
        learning.coexistence_temperature(1.0, 100, half), half / 2, rtol=1e-14
    )
    gap = learning.required_gap(2**1000, 4000, 0.5, 0.9)
    np.testing.assert_allclose(gap, 0.5 * (3000 * math.log(2) + math.log(9)), rtol=1e-14)


def test_phases_are_traceable():
    temperatures = jnp.linspace(0.1, 3, 5)
    masses = jax.jit(jax.vmap(lambda t: learning.library_mass(3.0, 6, 8, t)))(temperatures)
    gaps = jax.vmap(lambda t, p: learning.required_gap(8, 6, t, p))(temperatures[2:], masses[2:])
    np.testing.assert_allclose(gaps, 3.0, rtol=1e-9)
    slope = jax.jit(jax.grad(lambda g: learning.coexistence_temperature(g, 6, 8)))(3.0)
    np.testing.assert_allclose(slope, 1 / math.log(7), rtol=1e-14)


def test_required_gap_counts_different_samples():
    data = np.array([[1, 1, -1], [1, 1, -1], [-1, 1, 1]])
    expected = learning.required_gap(2, 3, 1.0, 0.8)
    assert learning.required_gap(data, 3, 1.0, 0.8) == expected
    np.testing.assert_allclose(expected, math.log(3) + math.log(4), rtol=1e-14)
    energy = tg.Complete.from_data(data[1:], temperature=1e-9, gap_per_spin=float(expected) / 3)
    p, rows = tg.exact.probabilities(energy, 1.0), tg.index_from_spins(data[1:])
    np.testing.assert_allclose(p[rows].sum(), 0.8, rtol=1e-7)
    assert learning.required_gap(4, 3, 1.0, 0.4) < 0
    with pytest.raises(ValueError, match=r"data must have shape \(samples, 4\), got \(3, 3\)"):
        learning.required_gap(data, 4, 1.0, 0.8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning.coexistence_temperature(1.0, 4, 8), r"less than 2\*\*\(n-1\)"),
        (lambda: learning.coexistence_temperature(1.0, 4, 0), r"must lie in 1\.\.2\*\*n - 1"),
        (lambda: learning.coexistence_temperature(0.0, 4, 2), "gap must be positive"),
        (lambda: learning.library_mass(1.0, 4, 16, 1.0), r"must lie in 1\.\.2\*\*n - 1"),
        (lambda: learning.library_mass(1.0, 4, 2, 0.0), "temperature must be positive"),
        (lambda: learning.required_gap(2, 4, 1.0, 0.0), "mass must be positive"),
        (lambda: learning.required_gap(2, 4, 1.0, 1.0), "1 - mass must be positive"),
        (lambda: learning.required_gap(2, 4, -1.0, 0.5), "temperature must be positive"),
    ],
)
def test_phases_outside_their_domain(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((0, 3)), "data is empty"),
        (np.zeros((2, 3)), "data has the value 0.0 at row 0"),
        (np.ones((2, 4)), "data must have 3 spins a sample"),
    ],
)
def test_potential_refuses_what_are_no_samples(data, message):
    energy = helpers.random_pairwise(3, _key(0))
    with pytest.raises(ValueError, match=message):
        learning.potential(energy, 1.0, data)
    with pytest.raises(ValueError, match="3 spins a sample"):  # under jit the shape is known
        jax.jit(lambda data: learning.potential(energy, 1.0, data))(np.ones((2, 4)))
