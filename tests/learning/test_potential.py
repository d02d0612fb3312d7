"""The constructed potential and the phases of a library, against sums written out in NumPy."""

import itertools
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import thermogen as tg
from thermogen import learning


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


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
    assert 0 <= tg.exact.gibbs_gap(tg.exact.energies(fitted.energy), 1.0, x) < 1e-7
    assert tg.exact.gibbs_gap(-np.log(helpers.product_measure(x @ s)), 1.0, x) > 0.05
    assert 0 <= tg.exact.gibbs_gap(tg.Complete.from_weights(x, 1.0).energies(), 1.0, x) < 1e-27


def test_exact_likelihood_wants_few_spins():
    large = tg.Pairwise(np.zeros((21, 21)), np.zeros(21))
    with pytest.raises(ValueError, match="at most 20 spins for ExactLikelihood, .* got 21"):
        data = np.random.default_rng(0).choice([-1, 1], (30, 21))
        tg.fit(tg.ExactLikelihood(), large, data, key=_key(0))


# --- phases


@pytest.mark.parametrize(("n", "m"), [(4, 1), (6, 8), (6, 31), (10, 32)])
def test_library_mass_is_the_enumerated_one(n, m):
    table = np.full(2**n, 3.0)
    table[np.random.default_rng(0).permutation(2**n)[:m]] = 0
    critical = float(learning.coexistence_beta(3.0, n, m))
    for beta in (5.0, 1.0, critical, 0.02):
        p = np.exp(-beta * table) / np.exp(-beta * table).sum()
        mass = learning.library_mass(3.0, n, m, beta)
        np.testing.assert_allclose(mass, p[table == 0].sum(), rtol=1e-11)
        if mass < 1 - 1e-6:
            gap = learning.required_gap(m, n, beta, mass)
            np.testing.assert_allclose(gap, 3.0, rtol=1e-9)
    np.testing.assert_allclose(learning.library_mass(3.0, n, m, critical), 0.5, rtol=1e-13)


def test_phases_at_any_size():
    """Integers, not floats: 2^n is beyond both float64 and the nearest float of 2^n - 2M."""
    critical = learning.coexistence_beta(1.0, 5000, 7)
    np.testing.assert_allclose(critical, 5000 * math.log(2) - math.log(7), rtol=1e-14)
    half = 2 ** (99) - 1  # (2^n - M)/M = 1 + 2/M
    np.testing.assert_allclose(learning.coexistence_beta(1.0, 100, half), 2 / half, rtol=1e-14)
    gap = learning.required_gap(2**1000, 4000, 2.0, 0.9)
    np.testing.assert_allclose(gap, 0.5 * (3000 * math.log(2) + math.log(9)), rtol=1e-14)


def test_phases_are_traceable():
    betas = 1 / jnp.linspace(0.1, 3, 5)
    masses = jax.jit(jax.vmap(lambda b: learning.library_mass(3.0, 6, 8, b)))(betas)
    gaps = jax.vmap(lambda b, p: learning.required_gap(8, 6, b, p))(betas[2:], masses[2:])
    np.testing.assert_allclose(gaps, 3.0, rtol=1e-9)
    slope = jax.jit(jax.grad(lambda g: learning.coexistence_beta(g, 6, 8)))(3.0)
    np.testing.assert_allclose(slope, -math.log(7) / 9, rtol=1e-14)


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
        (lambda: learning.coexistence_beta(1.0, 4, 8), r"less than 2\*\*\(n-1\)"),
        (lambda: learning.coexistence_beta(1.0, 4, 0), r"must lie in 1\.\.2\*\*n - 1"),
        (lambda: learning.coexistence_beta(0.0, 4, 2), "gap must be positive"),
        (lambda: learning.library_mass(1.0, 4, 16, 1.0), r"must lie in 1\.\.2\*\*n - 1"),
        (lambda: learning.library_mass(1.0, 4, 2, 0.0), "beta must be positive"),
        (lambda: learning.required_gap(2, 4, 1.0, 0.0), "mass must be positive"),
        (lambda: learning.required_gap(2, 4, 1.0, 1.0), "1 - mass must be positive"),
        (lambda: learning.required_gap(2, 4, -1.0, 0.5), "beta must be positive"),
    ],
)
def test_phases_outside_their_domain(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((0, 3)), "data is empty"),
        (np.zeros((2, 3)), "data has no values but 0 and 1"),
        (np.ones((2, 4)), "data must have 3 spins a sample"),
    ],
)
def test_potential_refuses_what_are_no_samples(data, message):
    energy = helpers.random_pairwise(3, _key(0))
    with pytest.raises(ValueError, match=message):
        learning.potential(energy, 1.0, data)
    with pytest.raises(ValueError, match="3 spins a sample"):  # under jit the shape is known
        jax.jit(lambda data: learning.potential(energy, 1.0, data))(np.ones((2, 4)))


@pytest.mark.further
def test_a_tree_of_200_spins_learns_the_moments_of_its_data():
    """By elimination; on a tree the likeliest couplings are known from pairs (Chow and Liu)."""
    n, rng = 200, np.random.default_rng(0)
    bonds = np.stack([[rng.integers(max(0, k - 5), k) for k in range(1, n)], np.arange(1, n)], 1)
    sets = [np.arange(n)[:, None], bonds]
    truth = tg.Interactions(n, sets, [0.2 * rng.normal(size=n), 0.5 * rng.normal(size=n - 1)])
    data = np.asarray(tg.exact.sample(truth, 1.0, key=_key(1), n_samples=2000))
    start = tg.Interactions(n, sets, [np.zeros(n), np.zeros(n - 1)])
    fitted = tg.fit(tg.ExactLikelihood(), start, data, key=_key(0)).energy
    first, second = data[:, bonds[:, 0]], data[:, bonds[:, 1]]
    alike, other = (
        [np.log(np.mean((first == s) & (second == t), axis=0)) for s, t in pairs]
        for pairs in (((1, 1), (-1, -1)), ((1, -1), (-1, 1)))
    )
    expected = 0.25 * (sum(alike) - sum(other))
    np.testing.assert_allclose(fitted.couplings[1], expected, atol=2e-3)


@pytest.mark.further
def test_potential_of_a_sparse_description_of_200_spins():
    """Value, gradient and curvature on a tree without fields, and the minimum with them."""
    n, rng = 200, np.random.default_rng(2)
    parents = np.array([0, *(rng.integers(max(0, k - 5), k) for k in range(1, n))])
    bonds = np.stack([parents[1:], np.arange(1, n)], axis=1)
    data = rng.choice([-1.0, 1.0], (1000, n), p=[0.4, 0.6])
    for k in range(1, n):
        data[:, k] = np.where(rng.random(1000) < 0.3, data[:, parents[k]], data[:, k])
    j, sets = 0.6 * rng.normal(size=n - 1), [np.arange(n)[:, None], bonds]
    energy = tg.Interactions(n, sets, [np.zeros(n), j])
    m, c = data.mean(axis=0), data[:, bonds].prod(axis=2).mean(axis=0)

    def loss(energy):
        return learning.potential(energy, 1.0, data)

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    value, slope = value_and_grad(energy)
    closed = n * np.log(2) + np.log(np.cosh(j)).sum() - j @ c
    np.testing.assert_allclose(value, closed, rtol=1e-13)
    np.testing.assert_allclose(slope.couplings[0], -m, atol=1e-13)
    np.testing.assert_allclose(slope.couplings[1], np.tanh(j) - c, atol=1e-13)

    covariance = np.eye(n)  # products of tanh J along the path between two spins
    for k in range(1, n):
        covariance[k, :k] = covariance[:k, k] = np.tanh(j[k - 1]) * covariance[parents[k], :k]
    u, v = rng.normal(size=n), rng.normal(size=n - 1)
    along = tg.Interactions(n, sets, [u, v])
    _, bend = jax.jit(lambda e: jax.jvp(jax.grad(loss), (e,), (along,)))(energy)
    np.testing.assert_allclose(bend.couplings[0], covariance @ u, atol=1e-12)
    np.testing.assert_allclose(bend.couplings[1], v / np.cosh(j) ** 2, atol=1e-12)

    optimizer = optax.lbfgs()

    @jax.jit
    def step(energy, state):
        value, slope = jax.value_and_grad(loss)(energy)
        updates, state = optimizer.update(
            slope, state, energy, value=value, grad=slope, value_fn=loss
        )
        return optax.apply_updates(energy, updates), state

    state = optimizer.init(energy)
    for _ in range(60):
        energy, state = step(energy, state)
    # The likeliest tree has the pairs of the data (Chow and Liu): its entropy is theirs.
    shares = [
        np.mean((data[:, bonds] == s).all(axis=2), axis=0)
        for s in itertools.product((1, -1), repeat=2)
    ]
    single = [scipy.special.entr((1 + s * m) / 2) for s in (1, -1)]
    degree = np.bincount(bonds.ravel(), minlength=n)
    entropy = scipy.special.entr(shares).sum() - (degree - 1) @ np.sum(single, axis=0)
    np.testing.assert_allclose(loss(energy), entropy, rtol=1e-9)
