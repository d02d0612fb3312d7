"""Learning: minimise an objective with optax, in compiled chunks under a loop on the host."""

import dataclasses
import warnings
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from .._checks import check_memory, check_precision
from .._placement import from_anywhere
from .._types import Key
from ..energies import AbstractEnergy, constrain, n_visible, parameter_terms
from ..sampling import RESULTS
from ._conditional import constant_spins, default_l2, margins
from ._objectives import (
    ADAM,
    LBFGS,
    AbstractObjective,
    Defaults,
    Samples,
    checked_samples,
    checked_shares,
)
from ._penalties import (
    L1,
    L2,
    AbstractPenalty,
    AbstractProximal,
    GroupL1,
    Support,
    proximal_gradient,
    stationarity,
)
from ._whitened import WHITENED_LBFGS

# Made once: a new transformation object would compile anew.
PROXIMAL = proximal_gradient()

_STEPS_PER_CHUNK = 20
# How many times a fit holds the parameters at least: those of ten steps and ten gradients for a
# line search, else a gradient, moments and an average.
_LINE_SEARCH_COPIES, _COPIES = 24, 4
# The running mean of noisy steps counts about the last ninth of them.
_AVERAGED_PART = 9
# Steps of a descent in which neither loss nor slope falls: more than L-BFGS remembers.
_PATIENCE = 20


class FitState(eqx.Module):
    """Where a fit stands, for `fit(..., state=...)` to go on from: a pytree of arrays.

    Attributes:
        energy: the parameters as they are, before any mean and projection.
        average: their running mean over late steps.
        optimizer_state: of the optimiser.
        objective_state: of the objective, such as its chains.
        step: steps taken so far.
        lowest_loss: of all steps.
        lowest_slope: least distance from stationarity of all steps.
        idle: steps since either of the two fell.
        objective: name of the objective, which is not an array.
    """

    energy: PyTree
    average: PyTree
    optimizer_state: PyTree
    objective_state: PyTree
    step: Int[Array, ""]
    lowest_loss: Float[Array, ""]
    lowest_slope: Float[Array, ""]
    idle: Int[Array, ""]
    objective: str = eqx.field(static=True)


class FitResult(eqx.Module):
    """A learned energy and how it came about.

    Attributes:
        energy: the learned energy; where the loss is noisy or has kinks, and steps do not come to
            rest, the mean over about the last ninth of them, which has less of the noise than the
            last step.
        history: loss of each step that this call took, shape `(steps,)`, in nats per sample.
        result: a `RESULTS` code: `converged` if the gradient met the objective's tolerance,
            `step_limit` if the steps ran out, `precision_limit` if the loss stopped falling
            before; `separable` if every spin follows from the others, so that a loss of
            conditionals falls for ever; `non_finite` if the loss or its gradient stopped being
            finite; the energy is then the last finite one. Of sampled losses: `few_weights` if the
            likelihood is no longer known, or ended below the entropy of the data, `diverged` if
            the loss ended where none can be, or higher than it began.
        state: where the fit stands, to go on from.
    """

    energy: AbstractEnergy
    history: Float[np.ndarray, " steps"]
    result: RESULTS
    state: FitState | None = None


class _Carry(eqx.Module):
    state: FitState
    result: RESULTS


class _Run(eqx.Module):
    """What stays the same during a fit."""

    samples: Samples
    objective: AbstractObjective
    penalty: AbstractPenalty | None
    optimizer: optax.GradientTransformation
    # The penalty again where the optimiser deals with it, and whether that keeps gradients.
    proximal: AbstractProximal | None
    line_search: bool
    tolerance: Array | None
    averaged: bool
    likelihood: bool
    batch_size: int | None
    means: Float[Array, " visible"]
    key: Key

    def step(self, carry: _Carry) -> tuple[_Carry, Float[Array, ""]]:
        """One step, unless the gradient meets the tolerance or something is not finite."""
        old = carry.state
        batch_key, loss_key = jax.random.split(jax.random.fold_in(self.key, old.step))
        batch = self.samples
        if self.batch_size is not None:
            drawn = self.samples.draw(batch_key, self.batch_size)
            share = jnp.full(self.batch_size, 1 / self.batch_size, self.samples.weights.dtype)
            batch = Samples(drawn, share, self.samples.size)

        def loss(energy):
            allowed = constrain(energy)
            value, state = self.objective.loss(allowed, batch, old.objective_state, loss_key)
            if self.penalty is not None and self.proximal is None:
                value += self.penalty(allowed)
            return value, state

        # Line searches hand on what the update is given.
        def value_fn(energy, means=None, samples=None, penalty=None):
            return loss(energy)[0]

        if self.line_search:
            evaluate = optax.value_and_grad_from_state(value_fn)
            value, gradient = evaluate(old.energy, state=old.optimizer_state)
            objective_state = old.objective_state
        else:
            evaluate = jax.value_and_grad(loss, has_aux=True)
            (value, objective_state), gradient = evaluate(old.energy)
        updates, optimizer_state = optax.with_extra_args_support(self.optimizer).update(
            gradient,
            old.optimizer_state,
            old.energy,
            value=value,
            grad=gradient,
            value_fn=value_fn,
            means=self.means,
            samples=self.samples,
            penalty=self.penalty,
        )
        energy = optax.apply_updates(old.energy, updates)
        total = value if self.proximal is None else value + self.proximal(old.energy)
        total = jnp.asarray(total, old.lowest_loss.dtype)

        result, slope, idle = carry.result, old.lowest_slope, old.idle
        if self.tolerance is not None:
            distance = self._distance(old.energy, gradient).astype(slope.dtype)
            if self.line_search or self.proximal is not None:
                better = (total < old.lowest_loss) | (distance < 0.9 * old.lowest_slope)
                idle = jnp.where(better, 0, idle + 1)
                result = RESULTS.where(idle >= _PATIENCE, RESULTS.precision_limit, result)
            result = RESULTS.where(distance <= self.tolerance, RESULTS.converged, result)
            slope = jnp.minimum(slope, distance)
        finite = _all_finite(gradient, energy)
        # A likelihood that is not known is infinite; its gradient goes on.
        finite &= jnp.isfinite(value) | (self.likelihood & (value == jnp.inf))
        result = RESULTS.where(finite, result, RESULTS.non_finite)
        average = energy
        if self.averaged:
            average = _running_mean(old.average, energy, old.step)
        lowest = jnp.minimum(old.lowest_loss, total)
        counts = (old.step, lowest, slope, idle)
        new = FitState(energy, average, optimizer_state, objective_state, *counts, old.objective)
        new = jax.tree.map(lambda a, b: jnp.where(result == RESULTS.step_limit, a, b), new, old)
        new = dataclasses.replace(new, step=old.step + 1)
        return _Carry(new, result), total

    def _distance(self, energy: PyTree, gradient: PyTree) -> Float[Array, ""]:
        """From stationarity; a parameter that many sets of spins share has so much more slope."""
        if self.proximal is not None:
            return stationarity(self.proximal, energy, gradient)
        per_set = jax.tree.map(lambda g, t: g / t, gradient, parameter_terms(energy))
        return optax.tree.norm(per_set, ord=jnp.inf)


@from_anywhere
def fit(
    objective: AbstractObjective,
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "samples visible"],
    *,
    key: Key,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    penalty: AbstractPenalty | None = None,
    optimizer: optax.GradientTransformation | None = None,
    n_steps: int | None = None,
    batch_size: int | None = None,
    callback: Callable[[FitResult], None] | None = None,
    state: FitState | None = None,
) -> FitResult:
    """Learn the parameters of an energy from data, at beta = 1.

    Args:
        objective: what to minimise, such as `Pseudolikelihood()`.
        energy: where to start, for example `Pairwise` with zero couplings or `RBM.random`. Runs
            in its dtype.
        data: samples of +-1, shape `(samples, n_visible(energy))`.
        key: random key, for mini-batches and for objectives that sample.
        weights: of each sample, >= 0, shape `(samples,)`; equal where None. Whole numbers say how
            often a sample occurs; others are relative, and worth `(sum w)^2 / sum w^2` samples
            (Kish 1965) wherever a prior is weighed against the data.
        penalty: added to the loss, such as `thermogen.learning.L1(0.01)`. A deterministic objective
            with an L1 or group penalty is minimised by proximal steps, which reach exact zeros;
            where `optimizer` is given, or the loss is stochastic, the penalty is one more term of
            the loss.
        optimizer: any optax transformation; where None the objective's own default, or Adam for
            mini-batches of a deterministic one. Each new transformation object compiles anew:
            keep one to fit many times. Its update gets the data as `samples` and
            their means as `means`.
        n_steps: most steps to take in this call; the objective's own default where None.
        batch_size: samples drawn (with replacement) for each step; all of them where None.
        callback: called on the host after every few steps with the `FitResult` so far, for
            example to draw a progress bar (`thermogen.study.progress`). An exception that it
            raises ends the fit.
        state: `FitResult.state` of an earlier call to go on from; where None the fit starts at
            `energy`, of which a state takes the structure alone. With the same key and arguments
            calls in a row end at the same numbers, to the last bit, as one call of all their
            steps. A call without it starts anew: chains at the data, steps at their longest.

    Returns:
        A `FitResult`. With a deterministic objective and all samples, the fit ends as soon as
        the gradient meets the objective's tolerance.

    Warns:
        UserWarning: where nothing bounds the parameters, and spins that are constant in the data,
            or pairs that are always equal or always opposite, send some to infinity.

    Raises:
        ValueError: for data of wrong shape or with values other than +-1, weights that are
            negative or all zero, counts that are not positive, a `Support` without proximal
            steps, an energy that the objective does not take, or a state of another energy,
            objective, optimiser or dtype.
        TypeError: for another objective, such as a class in place of its instance, and for
            parameters of another dtype than float32 and float64.
    """
    if not isinstance(objective, AbstractObjective):
        raise TypeError(f"objective must be one such as Pseudolikelihood(), got {objective!r}")
    check_precision(energy)
    data = np.asarray(checked_samples(energy, data))
    share, size = checked_shares(weights, len(data))
    defaults = objective.defaults
    full_batch = batch_size is None and defaults.gradient_tolerance is not None
    if optimizer is None:
        optimizer = _default_optimizer(defaults, penalty, full_batch, batch_size)
    held = sum(np.size(x) * jnp.result_type(x).itemsize for x in jax.tree.leaves(energy))
    copies = _LINE_SEARCH_COPIES if optimizer in (LBFGS, WHITENED_LBFGS) else _COPIES
    check_memory(f"a fit of {energy.n_spins} spins by this optimizer", copies * held)
    if isinstance(penalty, Support) and optimizer is not PROXIMAL:
        raise ValueError(
            "penalty Support needs a deterministic objective, all data in each step and the "
            "default optimizer"
        )
    n_steps = defaults.n_steps if n_steps is None else n_steps
    for name, count in [("n_steps", n_steps), ("batch_size", batch_size)]:
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
        if count is not None and count % 1:
            raise ValueError(f"{name} must be a whole number, got {count}")
    pulls_fields = isinstance(penalty, L2) and float(penalty.fields) > 0
    fields_are_free = not (defaults.bounded_fields or pulls_fields)
    couplings_are_free = not (defaults.bounded or isinstance(penalty, L2 | L1 | GroupL1))

    init_key, step_key = jax.random.split(key)
    dtype = jnp.result_type(*jax.tree.leaves(energy))
    samples = Samples(*(jnp.asarray(x, dtype) for x in (data, share, size)))
    # Numbers are traced, so that another value of one compiles nothing.
    objective, penalty = jax.tree.map(
        lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array_like(x) else x,
        (objective, penalty),
    )
    parameters: PyTree = constrain(energy)
    if isinstance(penalty, Support):
        parameters = penalty.shrink(parameters, jnp.zeros((), dtype))

    def first() -> FitState:
        most = jnp.full((), jnp.inf, dtype)
        return FitState(
            energy=parameters,
            average=parameters,
            optimizer_state=optimizer.init(parameters),
            objective_state=objective.init(energy, samples, init_key),
            step=jnp.array(0),
            lowest_loss=most,
            lowest_slope=most,
            idle=jnp.array(0),
            objective=type(objective).__name__,
        )

    if state is None:
        state = first()
    else:
        _check_state(state, jax.eval_shape(first))
    carry = _Carry(state, RESULTS.step_limit)
    _warn_of_infinite_parameters(data[share > 0], fields_are_free, couplings_are_free)
    proximal = None
    if optimizer is PROXIMAL and isinstance(penalty, AbstractProximal):
        proximal = penalty
    run = _Run(
        samples=samples,
        objective=objective,
        penalty=penalty,
        optimizer=optimizer,
        proximal=proximal,
        line_search=full_batch and optimizer in (LBFGS, WHITENED_LBFGS),
        tolerance=_tolerance(defaults, size, dtype) if full_batch else None,
        # A mean has none of the exact zeros that proximal steps reach.
        averaged=proximal is None and not (full_batch and defaults.smooth),
        likelihood=defaults.likelihood,
        batch_size=batch_size,
        means=jnp.asarray(share @ data, dtype),
        key=step_key,
    )
    history = np.zeros(0)
    while True:
        carry, losses = _chunk(run, carry, state.step + n_steps)
        taken = int(carry.state.step) - int(state.step)
        history = np.append(history, np.asarray(losses)[: taken - len(history)])
        done = len(history) == n_steps or carry.result != RESULTS.step_limit
        result = carry.result
        learned = carry.state.energy if result == RESULTS.converged else carry.state.average
        if done and couplings_are_free and defaults.conditional and result != RESULTS.non_finite:
            separated = _separated(learned, samples, defaults.bounded_fields)
            result = RESULTS.where(separated, RESULTS.separable, result)
        if done and defaults.gradient_tolerance is None and result == RESULTS.step_limit:
            result = _judged(history, defaults.likelihood, data, share)
        outcome = FitResult(constrain(learned), history, result, carry.state)
        if callback is not None:
            callback(outcome)
        if done:
            return outcome


def _check_state(state: FitState, fresh: FitState) -> None:
    """Refuse the state of another fit, by name."""
    if state.objective != fresh.objective:
        raise ValueError(
            f"state is of a fit with the objective {state.objective}, got {fresh.objective}"
        )
    for name, part in [
        ("energy", "energy"),
        ("optimizer", "optimizer_state"),
        ("objective", "objective_state"),
    ]:
        ours, theirs = (
            (jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)])
            for tree in (getattr(fresh, part), jax.eval_shape(lambda p=part: getattr(state, p)))
        )
        if ours != theirs:
            raise ValueError(
                f"state does not fit the {name}: its {part} has another structure, shape or dtype "
                "than this fit; go on with the arguments of the call that it came from"
            )


def _judged(
    history: Float[np.ndarray, " steps"], likelihood: bool, data: np.ndarray, share: np.ndarray
) -> RESULTS:
    """How the steps of a sampled loss ended, by the mean of the late ones.

    A negative log-likelihood is not below the entropy of the data, up to the noise of ln Z;
    `<E>_data - <E>_model` is one less an entropy, of n ln 2 at most. Free spins, with all
    parameters 0, cost n ln 2: above it, and above the start, the loss rises.
    """
    n_spins = data.shape[1]
    late = float(np.mean(history[-max(1, len(history) // _AVERAGED_PART) :]))
    noise, free = 0.01 * n_spins, n_spins * np.log(2)
    if history[-1] == np.inf:
        return RESULTS.few_weights
    if late < (-noise if likelihood else -free) or late > max(free, float(history[0])):
        return RESULTS.diverged
    if likelihood and late < _entropy(data, share) - noise:
        return RESULTS.few_weights
    return RESULTS.step_limit


def _entropy(data: np.ndarray, share: np.ndarray) -> float:
    """Of the distribution that the samples are, in nats."""
    _, kind = np.unique(data, axis=0, return_inverse=True)
    p = np.bincount(kind.ravel(), share)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1))))


def _tolerance(defaults: Defaults, size: float, dtype: DTypeLike) -> Array:
    """That of the objective, but below the tenth of a sample: the weight of a spin up but once.

    No lower than what sums of many rounded numbers come to.
    """
    assert defaults.gradient_tolerance is not None
    rounding = 16 * float(jnp.finfo(dtype).eps)
    return jnp.asarray(min(defaults.gradient_tolerance, max(0.1 / size, rounding)), dtype)


def _default_optimizer(
    defaults: Defaults, penalty: AbstractPenalty | None, full_batch: bool, batch_size: int | None
) -> optax.GradientTransformation:
    """Line searches and spectral steps need the gradient of one and the same loss."""
    if full_batch and isinstance(penalty, AbstractProximal):
        return PROXIMAL
    stochastic = defaults.gradient_tolerance is None
    return defaults.optimizer if stochastic or batch_size is None else ADAM


def _warn_of_infinite_parameters(
    data: Num[np.ndarray, "samples visible"], fields: bool, couplings: bool
) -> None:
    """Name at most ten constant spins and, if asked, five pairs that are fixed to each other."""
    constant = np.flatnonzero(np.all(data == data[0], axis=0))
    strength = f"{default_l2(data.shape[1], len(data)):.1g}"
    found, remedies = [], []
    if fields and constant.size:
        found.append(f"spins {constant[:10].tolist()} are constant")
        remedies.append(f"L2({strength}, fields={strength})")
    if couplings:
        free = np.setdiff1d(np.arange(data.shape[1]), constant)
        varying = data[:, free].astype(np.float32)
        bound = np.argwhere(np.triu(np.abs(varying.T @ varying) == len(data), 1))
        if bound.size:
            found.append(f"pairs {free[bound[:5]].tolist()} are always equal or always opposite")
            remedies.append(f"L2({strength})")
    if found:
        warnings.warn(
            f"data: {' and '.join(found)}: without a penalty their parameters grow without bound. "
            f"Add one, such as penalty=thermogen.learning.{remedies[0]}, or leave these spins out",
            stacklevel=4,
        )


def _separated(energy: PyTree, samples: Samples, bounded_fields: bool) -> Array:
    """Whether a fully visible model predicts all spins of all samples right from the others.

    Its fields are linear in its parameters: all of them scaled up lower the loss for ever. A loss
    that bounds fields does so for constant spins.
    """
    if n_visible(energy) < energy.n_spins:
        return jnp.zeros((), bool)
    aligned = margins(constrain(energy), samples) > 0
    counted = jnp.broadcast_to(samples.weights[:, None] > 0, aligned.shape)
    if bounded_fields:
        counted &= ~constant_spins(samples)[None, :]
    return jnp.all(aligned | ~counted) & jnp.any(counted)


@eqx.filter_jit
def _chunk(run: _Run, carry: _Carry, last_step: Array) -> tuple[_Carry, Float[Array, " chunk"]]:
    """A few steps in one compiled call; once the fit has ended the rest of them do nothing."""

    def skip(carry: _Carry):
        return carry, jnp.zeros((), run.samples.spins.dtype)

    def step(carry: _Carry, _):
        going = (carry.state.step < last_step) & (carry.result == RESULTS.step_limit)
        return jax.lax.cond(going, lambda c: run.step(c), skip, carry)

    return jax.lax.scan(step, carry, length=_STEPS_PER_CHUNK)


def _running_mean(mean: PyTree, energy: PyTree, step: Array) -> PyTree:
    """The mean with one energy more, of late steps only (Shamir and Zhang 2013, section 4)."""

    def closer(old, new):
        return old + (new - old) * jnp.asarray(_AVERAGED_PART / (step + _AVERAGED_PART), old.dtype)

    return jax.tree.map(closer, mean, energy)


def _all_finite(*trees: PyTree) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(trees)]))
