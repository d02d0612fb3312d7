"""Whitening of pairwise couplings: its algebra, its minimum, and the steps that it saves."""

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen.energies import constrain
from thermogen.learning import (
    AbstractMinimiser,
    AbstractObjective,
    Defaults,
    MinimumProbabilityFlow,
    Samples,
    whitened,
)
from thermogen.learning._minimisers import LBFGS, WHITENED_LBFGS

N = 6
DAMPING = 0.1


def _skewed(n_samples: int) -> np.ndarray:
    """Samples with correlations, means far from zero, and one constant spin."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(n_samples, 1))
    data = np.where(common + rng.normal(size=(n_samples, N)) + 0.5 > 0, 1.0, -1.0)
    data[:, -1] = 1
    return data


@pytest.fixture
def samples() -> Samples:
    weights = np.random.default_rng(1).random(50)
    return Samples(jnp.asarray(_skewed(50)), jnp.asarray(weights / weights.sum()))


def _direction(seed: int) -> tg.Pairwise:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(N, N)), 1)
    return tg.Pairwise(upper + upper.T, rng.normal(size=N))


def _moments(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    spins, weights = np.asarray(samples.spins), np.asarray(samples.weights)
    means = weights @ spins
    return means, np.einsum("a,ai,aj->ij", weights, spins - means, spins - means)


@pytest.mark.further
@pytest.mark.parametrize("objective", [tg.Pseudolikelihood(l2=0.0), MinimumProbabilityFlow()])
def test_curvature_at_zero_couplings_is_the_sylvester_operator(objective, samples):
    means, covariance = _moments(samples)
    change = _direction(2)
    gradient = jax.grad(lambda e: objective.loss(constrain(e), samples, None, jax.random.key(0))[0])
    curvature = jax.jvp(gradient, (jax.tree.map(jnp.zeros_like, change),), (change,))[1]
    fields = change.fields + change.couplings @ means  # on spins counted from their means
    couplings = (covariance @ change.couplings + change.couplings @ covariance) / 2
    couplings += (np.outer(fields, means) + np.outer(means, fields)) / 2
    couplings -= np.diag(np.diagonal(couplings))
    np.testing.assert_allclose(curvature.fields, fields, atol=1e-12)
    np.testing.assert_allclose(curvature.couplings, couplings, atol=1e-12)


def test_a_plain_step_inside_solves_the_damped_sylvester_equation(samples):
    means, covariance = _moments(samples)
    transformation, gradient = whitened(optax.identity()), _direction(3)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    state = transformation.init(zeros)
    step, state = transformation.update(gradient, state, zeros, samples=samples)
    damped = covariance + DAMPING * np.eye(N)
    across = np.outer(gradient.fields, means)
    np.testing.assert_allclose(
        (damped @ step.couplings + step.couplings @ damped) / 2,
        gradient.couplings - (across + across.T) / 2,
        atol=1e-12,
    )
    np.testing.assert_allclose(step.fields + step.couplings @ means, gradient.fields, atol=1e-12)
    # The data are read at the first step only.
    other = Samples(-samples.spins[:, ::-1], samples.weights)
    again, _ = transformation.update(gradient, state, zeros, samples=other)
    np.testing.assert_array_equal(again.couplings, step.couplings)


def test_parameters_inside_move_as_the_inner_transformation_says(samples):
    """Weight decay inside is a step towards zero, in whatever variables."""
    transformation, energy = whitened(optax.add_decayed_weights(0.5)), _direction(4)
    gradient = jax.tree.map(jnp.zeros_like, energy)
    step, _ = transformation.update(gradient, transformation.init(energy), energy, samples=samples)
    for a, b in zip(jax.tree.leaves(step), jax.tree.leaves(energy), strict=True):
        np.testing.assert_allclose(a, 0.5 * b, atol=1e-12)


def test_other_energies_pass_through(samples):
    gradient = helpers.random_rbm(2 * N - 1, jax.random.key(0))
    transformation = whitened(optax.scale(2.0))
    state = transformation.init(gradient)
    step, _ = transformation.update(gradient, state, gradient, samples=samples)
    np.testing.assert_array_equal(step.weights, 2 * gradient.weights)


class _ToTheEnd(AbstractObjective):
    """Pseudolikelihood to a gradient far below its own tolerance."""

    optimizer: AbstractMinimiser = eqx.field(static=True)

    @property
    def defaults(self):
        return Defaults(self.optimizer, 1000, 1e-9, conditional=True)

    def init(self, energy, samples, key):
        return None

    def loss(self, energy, batch, state, key):
        return tg.Pseudolikelihood(l2=0.0).loss(energy, batch, state, key)


@pytest.mark.further
def test_same_minimum_in_far_fewer_steps_where_couplings_are_strong():
    n = 14
    truth = helpers.random_pairwise(n, jax.random.key(6), scale=1.5, fields=0.3)
    data = np.asarray(tg.exact.sample(truth, 1.0, key=jax.random.key(7), n_samples=4000), float)
    start = tg.Pairwise(np.zeros((n, n)), np.zeros(n))
    plain, white = (
        tg.fit(_ToTheEnd(o), start, data, key=jax.random.key(0)) for o in (LBFGS, WHITENED_LBFGS)
    )
    assert plain.result == white.result == tg.RESULTS.converged
    np.testing.assert_allclose(white.energy.couplings, plain.energy.couplings, atol=1e-6)
    np.testing.assert_allclose(white.energy.fields, plain.energy.fields, atol=1e-6)
    # Nearly all steps take one gradient.
    assert white.history.size < 0.6 * plain.history.size
