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
from jaxtyping import Array, Bool, Float, Num, PyTree

from .._solution import RESULTS
from .._types import Key
from ..energies import AbstractEnergy, constrain, n_visible
from ._conditional import constant_spins, margins
from ._objectives import ADAM, LBFGS, AbstractObjective, Defaults, Samples, checked_samples
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
# The running mean of noisy steps counts about the last ninth of them.
_AVERAGED_PART = 9


class FitResult(eqx.Module):
    """A learned energy and how it came about.

    Attributes:
        energy: the learned energy; where the loss is noisy or has kinks, and steps do not come to
            rest, the mean over about the last ninth of them, which has less of the noise than the
            last step.
        history: loss of each step that was taken, shape `(steps,)`, in nats per sample.
        result: a `RESULTS` code: `converged` if the gradient met the objective's tolerance,
            `step_limit` if the steps ran out, `non_finite` if the loss or its gradient stopped
            being finite; the energy is then the last finite one; `separable` if every spin
            follows from the others, so that a loss of conditionals falls for ever.
    """

    energy: AbstractEnergy
    history: Float[np.ndarray, " steps"]
    result: RESULTS


class _Carry(eqx.Module):
    energy: PyTree
    average: PyTree
    optimizer_state: PyTree
    objective_state: PyTree
    step: Array
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
    batch_size: int | None
    means: Float[Array, " visible"]
    key: Key

    def step(self, carry: _Carry) -> tuple[_Carry, Float[Array, ""]]:
        """One step, unless the gradient meets the tolerance or something is not finite."""
        batch_key, loss_key = jax.random.split(jax.random.fold_in(self.key, carry.step))
        batch = self.samples
        if self.batch_size is not None:
            drawn = self.samples.draw(batch_key, self.batch_size)
            share = jnp.full(self.batch_size, 1 / self.batch_size, self.samples.weights.dtype)
            batch = Samples(drawn, share, self.samples.size)

        def loss(energy):
            allowed = constrain(energy)
            value, state = self.objective.loss(allowed, batch, carry.objective_state, loss_key)
            if self.penalty is not None and self.proximal is None:
                value += self.penalty(allowed)
            return value, state

        # Line searches hand on what the update is given.
        def value_fn(energy, means=None, samples=None, penalty=None):
            return loss(energy)[0]

        if self.line_search:
            evaluate = optax.value_and_grad_from_state(value_fn)
            value, gradient = evaluate(carry.energy, state=carry.optimizer_state)
            objective_state = carry.objective_state
        else:
            evaluate = jax.value_and_grad(loss, has_aux=True)
            (value, objective_state), gradient = evaluate(carry.energy)
        updates, optimizer_state = optax.with_extra_args_support(self.optimizer).update(
            gradient,
            carry.optimizer_state,
            carry.energy,
            value=value,
            grad=gradient,
            value_fn=value_fn,
            means=self.means,
            samples=self.samples,
            penalty=self.penalty,
        )
        energy = optax.apply_updates(carry.energy, updates)

        result = carry.result
        if self.tolerance is not None:
            if self.proximal is not None:
                distance = stationarity(self.proximal, carry.energy, gradient)
            else:
                distance = optax.tree.norm(gradient, ord=jnp.inf)
            result = RESULTS.where(distance <= self.tolerance, RESULTS.converged, result)
        finite = _all_finite(value, gradient, energy)
        result = RESULTS.where(finite, result, RESULTS.non_finite)
        average = energy
        if self.averaged:
            average = _running_mean(carry.average, energy, carry.step)
        new = _Carry(energy, average, optimizer_state, objective_state, carry.step, result)
        new = jax.tree.map(lambda a, b: jnp.where(result == RESULTS.step_limit, a, b), new, carry)
        new = dataclasses.replace(new, step=carry.step + 1, result=result)
        if self.proximal is not None:
            value += self.proximal(carry.energy)
        return new, jnp.asarray(value)


def fit(
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "samples visible"],
    *,
    objective: AbstractObjective,
    key: Key,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    penalty: AbstractPenalty | None = None,
    optimizer: optax.GradientTransformation | None = None,
    n_steps: int | None = None,
    batch_size: int | None = None,
    callback: Callable[[FitResult], None] | None = None,
) -> FitResult:
    """Learn the parameters of an energy from data, at beta = 1.

    Args:
        energy: where to start, for example `Pairwise` with zero couplings or `RBM.random`. Runs
            in its dtype.
        data: samples of +-1, shape `(samples, n_visible(energy))`.
        objective: what to minimise, such as `Pseudolikelihood()`.
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
        n_steps: most steps to take; the objective's own default where None.
        batch_size: samples drawn (with replacement) for each step; all of them where None.
        callback: called on the host after every few steps with the `FitResult` so far, for
            example to draw a progress bar (`thermogen.report.progress`). An exception that it
            raises ends the fit.

    Returns:
        A `FitResult`. With a deterministic objective and all samples, the fit ends as soon as
        the gradient meets the objective's tolerance.

    Warns:
        UserWarning: where nothing bounds the parameters, and spins that are constant in the data,
            or pairs that are always equal or always opposite, send some to infinity.

    Raises:
        ValueError: for data of wrong shape or with values other than +-1, weights that are
            negative or all zero, counts that are not positive, a `Support` without proximal
            steps, or an energy that the objective does not take.
        TypeError: for another objective, such as a class in place of its instance.
    """
    if not isinstance(objective, AbstractObjective):
        raise TypeError(f"objective must be one such as Pseudolikelihood(), got {objective!r}")
    data = np.asarray(checked_samples(energy, data))
    share, size = checked_shares(weights, len(data))
    defaults = objective.defaults
    full_batch = batch_size is None and defaults.gradient_tolerance is not None
    if optimizer is None:
        optimizer = _default_optimizer(defaults, penalty, full_batch, batch_size)
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
    carry = _Carry(
        energy=parameters,
        average=parameters,
        optimizer_state=optimizer.init(parameters),
        objective_state=objective.init(energy, samples, init_key),
        step=jnp.array(0),
        result=RESULTS.step_limit,
    )
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
        batch_size=batch_size,
        means=jnp.asarray(share @ data, dtype),
        key=step_key,
    )
    history = np.zeros(0)
    while True:
        carry, losses = _chunk(run, carry, jnp.asarray(n_steps))
        history = np.append(history, np.asarray(losses)[: int(carry.step) - len(history)])
        done = len(history) == n_steps or carry.result != RESULTS.step_limit
        result = carry.result
        learned = carry.energy if result == RESULTS.converged else carry.average
        if done and couplings_are_free and defaults.conditional and result != RESULTS.non_finite:
            separated = _separated(learned, samples, defaults.bounded_fields)
            result = RESULTS.where(separated, RESULTS.separable, result)
        outcome = FitResult(constrain(learned), history, result)
        if callback is not None:
            callback(outcome)
        if done:
            return outcome


def checked_shares(weights, n_samples: int) -> tuple[Float[np.ndarray, " samples"], float]:
    """Weights that sum to 1, and how many samples they are worth."""
    if weights is None:
        weights = np.ones(n_samples)
    weights = np.asarray(weights, float)
    if weights.shape != (n_samples,):
        raise ValueError(f"weights must have shape ({n_samples},), got {weights.shape}")
    total = weights.sum()
    if not (np.all(weights >= 0) and 0 < total < np.inf):
        raise ValueError("weights must be finite, not negative, and not all zero")
    share = weights / total
    return share, total if np.all(weights % 1 == 0) else 1 / np.sum(share**2)


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
    found, remedies = [], []
    if fields and constant.size:
        found.append(f"spins {constant[:10].tolist()} are constant")
        remedies.append("L2(1e-3, fields=1e-3)")
    if couplings:
        free = np.setdiff1d(np.arange(data.shape[1]), constant)
        varying = data[:, free].astype(np.float32)
        bound = np.argwhere(np.triu(np.abs(varying.T @ varying) == len(data), 1))
        if bound.size:
            found.append(f"pairs {free[bound[:5]].tolist()} are always equal or always opposite")
            remedies.append("L2(1e-3)")
    if found:
        warnings.warn(
            f"data: {' and '.join(found)}: without a penalty their parameters grow without bound. "
            f"Add one, such as penalty=thermogen.learning.{remedies[0]}, or leave these spins out",
            stacklevel=3,
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
def _chunk(run: _Run, carry: _Carry, n_steps: Array) -> tuple[_Carry, Float[Array, " chunk"]]:
    """A few steps in one compiled call; once the fit has ended the rest of them do nothing."""

    def skip(carry: _Carry):
        return carry, jnp.zeros((), run.samples.spins.dtype)

    def step(carry: _Carry, _):
        going = (carry.step < n_steps) & (carry.result == RESULTS.step_limit)
        return jax.lax.cond(going, lambda c: run.step(c), skip, carry)

    return jax.lax.scan(step, carry, length=_STEPS_PER_CHUNK)


def _running_mean(mean: PyTree, energy: PyTree, step: Array) -> PyTree:
    """The mean with one energy more, of late steps only (Shamir and Zhang 2013, section 4)."""

    def closer(old, new):
        return old + (new - old) * jnp.asarray(_AVERAGED_PART / (step + _AVERAGED_PART), old.dtype)

    return jax.tree.map(closer, mean, energy)


def _all_finite(*trees: PyTree) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(trees)]))
