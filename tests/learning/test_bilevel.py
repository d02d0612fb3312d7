"""Derivatives of what was learned, against Newton's method, retraining and unrolled descents."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import thermogen as tg
from thermogen.energies import constrain, visible_free_energy
from thermogen.learning import (
    L1,
    L2,
    AbstractObjective,
    AbstractPenalty,
    AbstractProximal,
    Bounds,
    Defaults,
    GroupL1,
    LineSearch,
    MinimumProbabilityFlow,
    Samples,
    Support,
)

N, N_SAMPLES = 4, 60
KEY = jax.random.key(0)
ZEROS = tg.Pairwise(np.zeros((N, N)), np.zeros(N))


def _data(seed: int, n_samples: int = N_SAMPLES) -> np.ndarray:
    p, _ = helpers.boltzmann(helpers.random_pairwise(N, jax.random.key(seed), 0.8), 1.0)
    rows = np.random.default_rng(seed).choice(2**N, n_samples, p=p)
    return helpers.configurations(N)[rows]


DATA, HELD_OUT = _data(0), _data(0, 2 * N_SAMPLES)[N_SAMPLES:]
RBM = tg.RBM.random(2, DATA.mean(0), key=KEY, scale=0.5)


def _judged(energy) -> Array:
    """Something that all parameters count for: energies of other samples, and ln Z."""
    table = jax.vmap(lambda s: visible_free_energy(energy, 1.0, s))
    every = jnp.asarray(helpers.configurations(N))
    # Unequal parts, so that the constant of an energy does not cancel.
    return jnp.mean(table(jnp.asarray(HELD_OUT))) + 0.7 * jax.nn.logsumexp(-table(every))


def _retrained(loss: Callable, energy):
    """The minimum of a function of the parameters by Newton's method, from near by."""
    x, unravel = ravel_pytree(energy)
    value = jax.jit(lambda x: loss(constrain(unravel(x))))
    slope, bend = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    for _ in range(8):
        x = x - jnp.linalg.pinv(bend(x), rtol=1e-10, hermitian=True) @ slope(x)
    assert np.max(np.abs(slope(x))) < 1e-13
    return constrain(unravel(x))


def _difference(function: Callable, x: float, step: float = 1e-3) -> np.ndarray:
    """The derivative from four values around, up to the fourth power of the step."""
    at = {k: np.asarray(function(x + k * step)) for k in (-2, -1, 1, 2)}
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


def _mean_loss(objective: AbstractObjective, weights=None) -> Callable:
    share = jnp.full(N_SAMPLES, 1 / N_SAMPLES) if weights is None else weights / jnp.sum(weights)
    samples = Samples(jnp.asarray(DATA), share, jnp.asarray(float(N_SAMPLES)))
    return lambda energy: objective.loss(energy, samples, None, KEY)[0]


CASES = {
    "pairwise": (tg.Pseudolikelihood(0.0), ZEROS),
    "interactions": (tg.ExactLikelihood(), helpers.random_interactions(N, KEY, 0.1)),
    "rbm": (tg.ExactLikelihood(), RBM),
    "complete": (tg.ExactLikelihood(), tg.Complete(jnp.full(2**N, 0.01))),
    "conditionals of an rbm": (tg.Pseudolikelihood(0.0), RBM),
    "probability flow": (MinimumProbabilityFlow(), ZEROS),
}


@pytest.mark.parametrize("name", CASES)
def test_the_slope_by_a_strength_is_that_of_retraining(name):
    objective, start = CASES[name]

    def learned(strength):
        return tg.fit(objective, start, DATA, penalty=L2(strength, 0.5 * strength), key=KEY).energy

    near, loss = learned(0.1), _mean_loss(objective)

    def retrained(strength):
        penalty = L2(strength, 0.5 * strength)
        return _judged(_retrained(lambda e: loss(e) + penalty(e), near))

    value, slope = jax.value_and_grad(lambda x: _judged(learned(x)))(0.1)
    np.testing.assert_allclose(value, retrained(0.1), rtol=1e-9)
    np.testing.assert_allclose(slope, _difference(retrained, 0.1), rtol=1e-6)
    assert abs(slope) > 1e-3


def _ridged(l2, data=DATA, **options):
    return tg.fit(tg.Pseudolikelihood(l2), ZEROS, data, key=KEY, **options).energy


@pytest.mark.further
def test_both_modes_all_transformations_and_a_curvature():
    def loss(l2):
        return _judged(_ridged(l2))

    slope = jax.grad(loss)
    expected = float(slope(0.1))
    np.testing.assert_allclose(jax.jvp(loss, (0.1,), (1.0,))[1], expected, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(slope)(0.1), expected, rtol=1e-9)
    strengths = jnp.array([0.01, 0.1, 1.0])
    rows = jax.vmap(slope)(strengths)
    np.testing.assert_allclose(rows, [slope(x) for x in strengths], rtol=1e-7)
    mapped = jax.grad(lambda x: jnp.sum(jax.vmap(loss)(x)))(strengths)
    np.testing.assert_allclose(mapped, rows, rtol=1e-7)
    bend = _difference(slope, 0.1)
    np.testing.assert_allclose(jax.grad(slope)(0.1), bend, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(loss))(0.1), bend, rtol=1e-6)


@pytest.mark.further
def test_a_fit_that_goes_on_has_the_slopes_of_one_that_starts():
    state = tg.fit(tg.Pseudolikelihood(0.1), ZEROS, DATA, key=KEY).state
    slopes = (
        jax.grad(lambda l2, options=options: _judged(_ridged(l2, **options)))(0.1)
        for options in ({"state": state}, {})
    )
    np.testing.assert_allclose(*slopes, rtol=1e-6)


@pytest.mark.further
def test_other_numbers_compile_nothing(caplog):
    slope = jax.jit(jax.grad(lambda l2: _judged(_ridged(l2))))
    slope(0.1)
    with helpers.compilations(caplog) as names:
        slope(0.2)
    assert names == []


@pytest.mark.further
def test_a_descent_that_is_unrolled_has_the_same_slope():
    """Automatic differentiation through every step of gradient descent, to its end."""
    loss = _mean_loss(tg.Pseudolikelihood(0.0))

    def unrolled(l2):
        def step(energy, _):
            slope = jax.grad(lambda e: loss(e) + L2(l2)(e))(energy)
            return jax.tree.map(lambda x, g: x - 0.4 * g, energy, slope), None

        return _judged(jax.lax.scan(step, ZEROS, None, 600)[0])

    ours = jax.grad(lambda l2: _judged(_ridged(l2)))(0.1)
    np.testing.assert_allclose(ours, jax.jit(jax.grad(unrolled))(0.1), rtol=1e-6)


# --- penalties with kinks


class Tight(AbstractObjective):
    """Conditionals with a prior of one's own on the fields, to the last digits.

    The minimum is found so well that retraining by `fit` is a truth.
    """

    width: float | Array

    @property
    def defaults(self) -> Defaults:
        return Defaults(LineSearch(), 20_000, 1e-13, bounded_fields=True)

    def init(self, energy, samples, key):
        return jax.random.normal(key, (N,))

    def loss(self, energy, batch, state, key):
        value, _ = tg.Pseudolikelihood(0.0).loss(energy, batch, None, key)
        return value + jnp.sum((energy.fields - state) ** 2) / self.width**2, state


class Elastic(AbstractProximal):
    """A pull of both kinds on all couplings."""

    is_constraint: ClassVar[bool] = False

    strength: float | Array

    def bounds(self):
        return Bounds(fields=False, couplings=True)

    def __call__(self, energy):
        return L1(self.strength)(energy) + L2(self.strength)(energy)

    def shrink(self, energy, step):
        sparse = L1(self.strength).shrink(energy, step)
        # A bond lies in two entries, and each has half of its penalty.
        return tg.Pairwise(sparse.couplings / (1 + step * self.strength), sparse.fields)


ALLOWED = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
ALLOWED = eqx.tree_at(
    lambda e: (e.couplings, e.fields),
    ALLOWED,
    (jnp.asarray(np.eye(N, k=1) + np.eye(N, k=-1), bool), jnp.arange(N) > 0),
)
KINKS = {
    "l1": lambda x: L1(5 * x),
    "group": lambda x: GroupL1(x),
    "support": lambda x: Support(ALLOWED),
    "of one's own": lambda x: Elastic(5 * x),
}


@pytest.mark.further
@pytest.mark.parametrize("name", KINKS)
def test_kinks_leave_the_slopes_of_their_support(name):
    def learned(x):
        objective = Tight(1 + 10 * x)
        return tg.fit(objective, ZEROS, DATA, penalty=KINKS[name](x), key=KEY).energy

    fitted = learned(0.06)
    zeros = np.asarray(fitted.couplings)[~np.eye(N, dtype=bool)] == 0
    assert name == "group" or (zeros.any() and not zeros.all())
    slope = jax.jacrev(learned)(0.06)
    found, expected = slope.couplings, _difference(lambda x: learned(x).couplings, 0.06)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    found, expected = slope.fields, _difference(lambda x: learned(x).fields, 0.06)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert np.all(np.asarray(slope.couplings)[np.asarray(fitted.couplings) == 0] == 0)


@pytest.mark.further
def test_what_a_penalty_never_pulls_is_free_at_zero():
    """Fields of balanced data are exactly zero, and move with the weights all the same."""
    balanced = np.concatenate([DATA, -DATA])

    def learned(share):
        weights = jnp.concatenate([jnp.full(N_SAMPLES, 1 + share), jnp.ones(N_SAMPLES)])
        options = {"penalty": L1(0.05), "weights": weights, "key": KEY}
        return tg.fit(Tight(10.0), ZEROS, balanced, **options).energy.fields

    slope = jax.jacfwd(learned)(0.0)
    np.testing.assert_allclose(slope, _difference(learned, 0.0), rtol=1e-6)


# --- weights of samples


def test_the_slope_by_weights_is_that_of_retraining():
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, N_SAMPLES))

    def learned(weights):
        options = {"penalty": L2(0.1), "weights": weights, "key": KEY}
        return tg.fit(tg.Pseudolikelihood(0.0), ZEROS, DATA, **options).energy

    near, penalty = learned(weights), L2(0.1)
    slope = jax.grad(lambda w: _judged(learned(w)))(weights)
    for k in (0, 17):

        def retrained(change, k=k):
            loss = _mean_loss(tg.Pseudolikelihood(0.0), weights.at[k].add(change))
            return _judged(_retrained(lambda e: loss(e) + penalty(e), near))

        np.testing.assert_allclose(slope[k], _difference(retrained, 0.0), rtol=1e-6)
    # Weights are relative.
    np.testing.assert_allclose(slope @ weights, 0, atol=1e-10)


def test_factorisations_of_mapped_fits_wait_for_each_other():
    def loss(weights):
        options = {"penalty": L2(0.1), "weights": weights, "key": KEY}
        return _judged(tg.fit(tg.Pseudolikelihood(0.0), ZEROS, DATA, **options).energy)

    program = jax.vmap(jax.grad(loss))
    assert not helpers.unordered_factorisations(program, jnp.ones((2, N_SAMPLES)))


@pytest.mark.further
def test_whole_weights_are_counts_to_their_derivatives():
    """The ridge of the default is one of all samples together: a sample adds its own loss alone."""
    counts = jnp.ones(N_SAMPLES)
    near = _ridged(None)

    def retrained(change):
        weights = counts.at[3].add(change)
        loss, l2 = _mean_loss(tg.Pseudolikelihood(0.0), weights), 0.5 * N / jnp.sum(weights)
        return _judged(_retrained(lambda e: loss(e) + L2(l2)(e), near))

    slope = jax.grad(lambda w: _judged(_ridged(None, weights=w)))(counts)
    np.testing.assert_allclose(slope[3], _difference(retrained, 0.0), rtol=1e-6)


@pytest.mark.further
def test_the_influence_of_samples_on_a_state():
    """One reverse pass through fit and state is retraining with one weight changed, for each."""
    naive, weights = tg.NaiveMeanField(), jnp.asarray(np.linspace(0.5, 1.5, N_SAMPLES))

    def learned(weights):
        options = {"penalty": L2(0.02), "weights": weights, "key": KEY}
        return tg.fit(tg.Pseudolikelihood(0.0), ZEROS, DATA, **options).energy

    near, penalty = learned(weights), L2(0.02)
    library = tg.find_minima(naive, near, 2.0, key=KEY, n_starts=16)

    def free_energy(energy):
        return tg.landscape.follow(naive, energy, 2.0, library).free_energies[0]

    influence = jax.jit(jax.grad(lambda w: free_energy(learned(w))))(weights)
    for k in (0, 30):

        def retrained(change, k=k):
            loss = _mean_loss(tg.Pseudolikelihood(0.0), weights.at[k].add(change))
            return free_energy(_retrained(lambda e: loss(e) + penalty(e), near))

        np.testing.assert_allclose(influence[k], _difference(retrained, 0.0), rtol=1e-6)


# --- what is said where there is no derivative


@pytest.mark.further
def test_fits_that_did_not_converge_have_none():
    """Row by row: a fit that has none leaves its neighbours theirs."""

    def loss(l2):
        return _judged(_ridged(l2, n_steps=9))

    strengths = jnp.array([0.1, 1e-3])
    codes = jax.vmap(
        lambda x: tg.fit(tg.Pseudolikelihood(x), ZEROS, DATA, key=KEY, n_steps=9).result
    )(strengths)
    assert np.array_equal(codes == tg.RESULTS.converged, [True, False])
    slopes = jax.vmap(jax.grad(loss))(strengths)
    whole = jax.grad(lambda x: _judged(_ridged(x)))(0.1)
    np.testing.assert_allclose(slopes[0], whole, rtol=1e-7)
    assert np.isnan(slopes[1])
    assert np.isnan(jax.jvp(loss, (1e-3,), (1.0,))[1])


@pytest.mark.further
def test_a_minimum_at_infinity_has_none():
    """The gradient met the tolerance on its way there."""
    always_up = np.array(DATA)
    always_up[:, 0] = 1

    def field(strength):
        options = {"penalty": L2(strength), "key": KEY}
        return tg.fit(tg.ExactLikelihood(), ZEROS, always_up, **options)

    assert jax.jit(field)(0.1).result == tg.RESULTS.converged
    assert np.isnan(jax.grad(lambda x: field(x).energy.fields[1])(0.1))


@pytest.mark.further
@pytest.mark.parametrize("start", [RBM, jax.tree.map(jnp.zeros_like, RBM)], ids=["minimum", "not"])
def test_a_saddle_has_none(start):
    """Without weights hidden spins are independent, and no slope leads out of that."""

    def learned(strength):
        return tg.fit(tg.ExactLikelihood(), start, DATA, penalty=L2(strength, strength), key=KEY)

    fitted = jax.jit(learned)(0.01)
    assert fitted.result == tg.RESULTS.converged
    is_saddle = np.all(np.abs(fitted.energy.weights) < 1e-6)
    slope = jax.grad(lambda x: learned(x).energy.visible_fields[0])(0.01)
    assert np.isnan(slope) == is_saddle == (start is not RBM)


class Plain(AbstractObjective):
    """Flat but for a slope that meets the tolerance, and a hole far down that slope."""

    depth: float | Array

    @property
    def defaults(self) -> Defaults:
        return Defaults(LineSearch(), 100, 1e-5)

    def init(self, energy, samples, key):
        return None

    def loss(self, energy, batch, state, key):
        hole = -self.depth * jnp.exp(-((energy.fields + 9.7) ** 2) / 2)
        bowl = 5e-8 * (energy.fields + 10 * self.depth) ** 2
        return jnp.sum(hole + bowl), None


@pytest.mark.further
def test_a_minimum_that_is_not_that_of_the_fit_has_none():
    def learned(depth):
        return tg.fit(Plain(depth), ZEROS, DATA, key=KEY)

    assert jax.jit(learned)(1.0).result == tg.RESULTS.converged
    assert np.isnan(jax.grad(lambda x: learned(x).energy.fields[0])(1.0))


@pytest.mark.further
def test_data_that_are_separable_have_none():
    pattern = np.array([1.0, -1, 1, 1])
    apart = np.where(np.arange(N_SAMPLES)[:, None] % 2, pattern, -pattern)

    def couplings(weights):
        return tg.fit(tg.Pseudolikelihood(0.0), ZEROS, apart, weights=weights, key=KEY)

    assert jax.jit(couplings)(jnp.ones(N_SAMPLES)).result == tg.RESULTS.separable
    slope = jax.grad(lambda w: couplings(w).energy.couplings[0, 1])(jnp.ones(N_SAMPLES))
    assert np.all(np.isnan(slope))


@pytest.mark.further
def test_the_steps_that_were_taken_have_none():
    def fitted(l2):
        return tg.fit(tg.Pseudolikelihood(l2), ZEROS, DATA, key=KEY)

    assert np.isnan(jax.grad(lambda l2: fitted(l2).history[0])(0.1))
    assert np.isnan(jax.grad(lambda l2: fitted(l2).state.energy.fields[0])(0.1))
    # Those of the energy are what they are, also where all comes out of a loop.
    mapped = jax.grad(lambda x: jnp.sum(jax.lax.map(fitted, x).energy.fields))(jnp.array([0.1]))
    alone = jax.grad(lambda l2: jnp.sum(fitted(l2).energy.fields))(0.1)
    np.testing.assert_allclose(mapped[0], alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (tg.Pseudolikelihood(0.0), {"batch_size": 8}),
        (tg.PersistentCD(n_chains=8), {}),
    ],
)
def test_sampled_losses_refuse_by_name(objective, options):
    def learned(strength):
        options_ = {"penalty": L2(strength), "n_steps": 3, "key": KEY, **options}
        return tg.fit(objective, ZEROS, DATA, **options_).energy.fields[0]

    for slope in (jax.grad(learned), jax.jacfwd(learned)):
        with pytest.raises(ValueError, match="minimum of a deterministic objective of all data"):
            slope(0.1)
    still = jax.grad(lambda x: x * learned(jax.lax.stop_gradient(x)))(0.1)
    np.testing.assert_allclose(still, learned(0.1), rtol=1e-12)


# --- others


class WeakFields(AbstractPenalty):
    strength: float | Array

    def bounds(self):
        return Bounds(fields=True, couplings=False)

    def __call__(self, energy):
        return self.strength * jnp.sum(energy.fields**4)


@pytest.mark.further
def test_objectives_and_penalties_of_ones_own_are_the_equal_of_ours():
    """The objective draws numbers when it starts, which are part of its loss."""

    def learned(x):
        return tg.fit(Tight(x), ZEROS, DATA, penalty=WeakFields(x), key=KEY).energy

    slope = jax.grad(lambda x: _judged(learned(x)))(2.0)
    expected = _difference(lambda x: _judged(learned(x)), 2.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.further
def test_mean_field_likelihoods_move_through_their_own_solves():
    def learned(strength):
        options = {"penalty": L2(strength, strength), "key": KEY}
        return tg.fit(tg.MeanFieldLikelihood(tg.TAP()), ZEROS, DATA, **options)

    assert learned(0.5).result == tg.RESULTS.converged
    near, loss = learned(0.5).energy, _mean_loss(tg.MeanFieldLikelihood(tg.TAP()))

    def retrained(strength):
        return _judged(_retrained(lambda e: loss(e) + L2(strength, strength)(e), near))

    slope = jax.grad(lambda x: _judged(learned(x).energy))(0.5)
    np.testing.assert_allclose(slope, _difference(retrained, 0.5), rtol=1e-6)


@pytest.mark.further
def test_flat_directions_do_not_move():
    """The field on spins beside a constant one, and their bonds to it, are the same in the data."""
    always_up = np.array(DATA)
    always_up[:, 0] = 1

    def learned(weights):
        return tg.fit(tg.Pseudolikelihood(0.0), ZEROS, always_up, weights=weights, key=KEY).energy

    weights = jnp.asarray(np.linspace(0.5, 1.5, N_SAMPLES))
    near = learned(weights)

    def field(energy):
        return tg.energies.conditional_fields(energy, 1.0, jnp.ones(N))[1]

    slope = jax.grad(lambda w: field(learned(w)))(weights)

    def retrained(change):
        moved = weights.at[0].add(change)
        share = moved / jnp.sum(moved)
        samples = Samples(jnp.asarray(always_up), share, 1 / jnp.sum(share**2))
        objective = tg.Pseudolikelihood(0.0)
        state = objective.init(ZEROS, samples, KEY)
        return field(_retrained(lambda e: objective.loss(e, samples, state, KEY)[0], near))

    np.testing.assert_allclose(slope[0], _difference(retrained, 0.0), rtol=1e-6)


@pytest.mark.further
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_single_precision_is_good_for_three_digits(l2):
    start = jax.tree.map(lambda x: x.astype(jnp.float32), ZEROS)

    def loss(l2, start):
        return _judged(tg.fit(tg.Pseudolikelihood(l2), start, DATA, key=KEY).energy)

    single, double = (jax.grad(loss)(l2, energy) for energy in (start, ZEROS))
    np.testing.assert_allclose(single, double, rtol=1e-3)
