"""Sampled objectives: their gradients, and ln Z along the path, against enumeration."""

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen.learning import (
    AnnealedLikelihood,
    ContrastiveDivergence,
    ExactLikelihood,
    Samples,
    centred_gradient,
)

SIGMAS = 5


def _key(i):
    return jax.random.key(i)


def _equal(spins):
    return Samples(jnp.asarray(spins, float), jnp.full(len(spins), 1 / len(spins)))


def _model(scale=1.0):
    return helpers.random_pairwise(5, _key(5), scale=scale)


def _draw(energy, n_samples, key=0):
    return np.asarray(tg.exact.sample(energy, 1.0, key=_key(key), n_samples=n_samples), float)


@eqx.filter_jit
def _gradient(objective, energy, samples, state, key):
    def loss(energy):
        return objective.loss(tg.energies.constrain(energy), samples, state, key)

    (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(energy)
    return value, gradient, state


@pytest.mark.further
def test_many_sweeps_of_contrastive_divergence_give_the_exact_gradient():
    """One sweep does not: chains that start at the data have not left them."""
    energy, data = _model(), np.ones((20_000, 5))
    p = np.asarray(tg.exact.magnetizations(energy, 1.0))
    errors = {}
    for n_sweeps in (1, 30):
        objective = ContrastiveDivergence(n_sweeps)
        _, gradient, _ = _gradient(objective, energy, _equal(data), None, _key(1))
        errors[n_sweeps] = np.abs(np.asarray(gradient.fields) - (p - 1))
    sigma = np.sqrt((1 - p**2) / len(data))
    assert np.all(errors[30] < SIGMAS * sigma)
    assert np.max(errors[1] / sigma) > 4 * SIGMAS


@pytest.mark.further
def test_tempered_chains_cross_where_plain_ones_are_caught():
    """Two states of unequal weight; all chains start in the rarer one."""
    couplings = 1.0 - np.eye(6)
    energy = tg.Pairwise(couplings, np.full(6, 0.1))
    up = float(tg.exact.magnetizations(energy, 1.0)[0])
    assert up > 0.5
    data = _equal(-np.ones((4, 6)))
    found = {}
    for name, sampler in {
        "plain": tg.Gibbs(),
        "tempered": tg.ParallelTempering([0.05, 0.15, 0.3, 0.6, 1.0]),
    }.items():
        objective = tg.PersistentCD(n_chains=400, n_sweeps=60, sampler=sampler)
        state = objective.init(energy, data, _key(0))
        _, gradient, _ = _gradient(objective, energy, data, state, _key(1))
        found[name] = float(np.mean(gradient.fields)) - 1  # <s> of the chains
    sigma = np.sqrt((1 - up**2) / 400)
    assert abs(found["tempered"] - up) < SIGMAS * 1.5 * sigma  # correlated over 60 sweeps
    assert found["plain"] < -0.9


@pytest.mark.further
def test_metropolis_chains_have_hidden_spins():
    """Hidden spins start as spins, which flips alone would never make of their means."""
    rbm = helpers.random_rbm(6, _key(1), scale=1.5)
    objective = tg.PersistentCD(n_chains=2000, n_sweeps=20, sampler=tg.Metropolis())
    data = _equal(np.ones((4, rbm.n_visible)))
    state = objective.init(rbm, data, _key(0))
    _, gradient, state = _gradient(objective, rbm, data, state, _key(1))
    np.testing.assert_array_equal(np.abs(state), 1)
    means = np.asarray(gradient.visible_fields) + 1
    exact = np.asarray(tg.exact.magnetizations(rbm, 1.0))[: rbm.n_visible]
    np.testing.assert_allclose(means, exact, atol=SIGMAS * 1.5 / np.sqrt(2000))


@pytest.mark.further
@pytest.mark.parametrize("name", ["pairwise", "rbm"])
def test_annealed_likelihood_follows_the_exact_one(name):
    """Along a path of learning: values of the loss, and the gradient at its end."""
    start = helpers.ENERGIES[name](6, _key(1), scale=0.5)
    end = helpers.ENERGIES[name](6, _key(2), scale=3.0)
    data = _equal(_draw(end, 50)[:, : tg.energies.n_visible(end)])
    objective = AnnealedLikelihood(n_chains=4000, n_rungs=16)
    exact = ExactLikelihood()
    state = objective.init(start, data, _key(0))
    values, n_steps = [], 8
    for i in range(n_steps + 1):
        mixed = jax.tree.map(lambda a, b, t=i / n_steps: (1 - t) * a + t * b, start, end)
        value, gradient, state = _gradient(objective, mixed, data, state, _key(i))
        truth, expected, _ = _gradient(exact, mixed, data, None, _key(0))
        values.append([float(value), float(truth)])
    values = np.array(values)
    # The chains were drawn anew at least once: ln Z was carried on.
    assert not np.any(np.isclose(state.log_partition, 6 * np.log(2)))
    # Of 4000 chains at least half count: the relative error of each mean weight is below
    # 1/sqrt(4000), and there are two of them, before and since the chains were drawn.
    np.testing.assert_allclose(values[:, 0], values[:, 1], atol=SIGMAS * np.sqrt(2 / 4000))
    for ours, true in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, true, atol=SIGMAS * np.sqrt(2 / 4000))


@pytest.mark.further
def test_annealed_fit_reports_the_likelihood():
    truth = _model()
    data = _draw(truth, 2000)
    fitted = tg.fit(
        AnnealedLikelihood(n_chains=2000),
        tg.Pairwise(np.zeros((5, 5)), np.zeros(5)),
        data,
        optimizer=optax.sgd(0.2),
        key=_key(0),
        n_steps=80,
    )
    exact = float(tg.learning.potential(fitted.energy, 1.0, data))
    # The last value speaks of the energy one small step before; chains drawn anew a few times.
    np.testing.assert_allclose(fitted.history[-1], exact, atol=SIGMAS * np.sqrt(3 / 2000))
    assert exact < float(tg.learning.potential(truth, 1.0, data)) + 0.01


@pytest.mark.further
def test_a_second_annealed_fit_compiles_nothing(caplog):
    """Its first rungs are a loop too, which must not be compiled again for each fit."""
    objective = AnnealedLikelihood(n_chains=16, n_rungs=4)
    data = np.where(np.random.default_rng(0).random((20, 5)) < 0.6, 1.0, -1.0)
    start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
    tg.fit(objective, start, data, key=_key(0), n_steps=2)
    with helpers.compilations(caplog) as names:
        tg.fit(objective, start, -data, key=_key(1), n_steps=3)
    assert names == []


@pytest.mark.further
@pytest.mark.parametrize("field_rate", [1.0, 5.0])
def test_centred_gradient_is_that_of_centred_parameters(field_rate):
    """A step of descent in `(v - mu) W (h - lambda)`, and what it does to the plain parameters."""
    rbm = helpers.random_rbm(6, _key(3), scale=1.0)
    data = np.where(np.random.default_rng(0).random((30, rbm.n_visible)) < 0.7, 1.0, -1.0)
    mu = jnp.asarray(data.mean(axis=0))
    lam = jnp.tanh(rbm.hidden_fields + mu @ rbm.weights)

    def plain(centred):
        return tg.RBM(
            centred.weights,
            centred.visible_fields - centred.weights @ lam,
            centred.hidden_fields - mu @ centred.weights,
        )

    def loss(energy):
        return ExactLikelihood().loss(energy, _equal(data), None, _key(0))[0]

    centred = tg.RBM(
        rbm.weights, rbm.visible_fields + rbm.weights @ lam, rbm.hidden_fields + mu @ rbm.weights
    )
    step = jax.jit(jax.grad(lambda c: loss(plain(c))))(centred)
    step = eqx.tree_at(
        lambda e: (e.visible_fields, e.hidden_fields), step, replace_fn=lambda x: field_rate * x
    )
    expected = jax.jit(lambda c, s: jax.jvp(plain, (c,), (s,))[1])(centred, step)
    transformation = centred_gradient(field_rate)
    state = transformation.init(rbm)
    ours, _ = transformation.update(jax.jit(jax.grad(loss))(rbm), state, rbm, means=mu)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_centring_lets_learning_take_longer_steps():
    """Two hidden causes far from zero means; plain descent is thrown off at this rate."""
    rng = np.random.default_rng(0)
    causes = rng.choice([-1, 1], size=(400, 2))
    data = np.where(rng.random((400, 8)) < 0.08, -1.0, 1.0)
    data[:, :4] = np.where(causes[:, :1] > 0, data[:, :4], 1.0)
    data[:, 4:][causes[:, 1] > 0] = 1
    data[causes[:, 0] * causes[:, 1] < 0, 2:6] *= -1
    start = tg.RBM.random(4, data.mean(axis=0), key=_key(0), scale=0.05)
    losses = {}
    for name, first in {"centred": centred_gradient(), "plain": optax.identity()}.items():
        optimizer = optax.chain(first, optax.sgd(0.2))
        options = {"optimizer": optimizer, "n_steps": 100}
        losses[name] = tg.fit(ExactLikelihood(), start, data, key=_key(0), **options).history[-1]
    assert losses["centred"] < losses["plain"] - 0.1
