"""Learning: minimise an objective with optax, in compiled chunks under a loop on the host."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Num, PyTree

from .._solution import RESULTS
from .._types import Key
from ..datasets import validate_spins
from ..energies import AbstractMultilinear, constrain, n_visible
from ._objectives import MINI_BATCH_OPTIMIZER, AbstractObjective, Data

_STEPS_PER_CHUNK = 20


class FitResult(eqx.Module):
    """A learned energy and how it came about.

    Attributes:
        energy: the learned energy.
        history: loss of each step that was taken, shape `(steps,)`, in nats per sample.
        result: a `RESULTS` code: `converged` if the gradient met the objective's tolerance,
            `step_limit` if the steps ran out, `non_finite` if the loss or its gradient stopped
            being finite; the energy is then the last finite one.
    """

    energy: AbstractMultilinear
    history: Float[np.ndarray, " steps"]
    result: RESULTS


class _Carry(eqx.Module):
    energy: PyTree
    optimizer_state: PyTree
    objective_state: PyTree
    step: Array
    result: RESULTS


class _Run(eqx.Module):
    """What stays the same during a fit."""

    samples: Data
    objective: AbstractObjective
    optimizer: optax.GradientTransformation
    tolerance: float | None
    batch_size: int | None
    key: Key

    def step(self, carry: _Carry) -> tuple[_Carry, Float[Array, ""]]:
        """One step, unless the gradient meets the tolerance or something is not finite."""
        batch_key, loss_key = jax.random.split(jax.random.fold_in(self.key, carry.step))
        batch = self.samples
        if self.batch_size is not None:
            batch = jax.random.choice(batch_key, self.samples, (self.batch_size,))

        def loss(energy):
            allowed = constrain(energy)
            return self.objective.loss(allowed, batch, carry.objective_state, loss_key)

        (value, objective_state), gradient = jax.value_and_grad(loss, has_aux=True)(carry.energy)
        updates, optimizer_state = optax.with_extra_args_support(self.optimizer).update(
            gradient,
            carry.optimizer_state,
            carry.energy,
            value=value,
            grad=gradient,
            value_fn=lambda energy: loss(energy)[0],
        )
        energy = optax.apply_updates(carry.energy, updates)

        result = carry.result
        if self.tolerance is not None:
            met = optax.tree.norm(gradient, ord=jnp.inf) <= self.tolerance
            result = RESULTS.where(met, RESULTS.converged, result)
        finite = _all_finite(value, gradient, energy)
        result = RESULTS.where(finite, result, RESULTS.non_finite)
        new = _Carry(energy, optimizer_state, objective_state, carry.step, result)
        new = jax.tree.map(lambda a, b: jnp.where(result == RESULTS.step_limit, a, b), new, carry)
        new = dataclasses.replace(new, step=carry.step + 1, result=result)
        return new, value


def fit(
    energy: AbstractMultilinear,
    data: Num[Array | np.ndarray, "samples visible"],
    *,
    objective: AbstractObjective,
    key: Key,
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
        optimizer: any optax transformation; where None the objective's own default, or Adam for
            mini-batches of a deterministic one. Each new transformation object compiles anew:
            keep one to fit many times.
        n_steps: most steps to take; the objective's own default where None.
        batch_size: samples drawn (with replacement) for each step; all of them where None.
        callback: called on the host after every few steps with the `FitResult` so far, for
            example to draw a progress bar (`thermogen.report.progress`). An exception that it
            raises ends the fit.

    Returns:
        A `FitResult`. With a deterministic objective and all samples, the fit ends as soon as
        the gradient meets the objective's tolerance.

    Raises:
        ValueError: for data of wrong shape or with values other than +-1, counts that are not
            positive, or an energy that the objective does not take.
    """
    data = validate_spins(data)
    if data.shape[1] != n_visible(energy):
        raise ValueError(
            f"data must have {n_visible(energy)} spins a sample for this energy, got shape "
            f"{data.shape}"
        )
    defaults = objective.defaults
    if optimizer is None:
        # Line searches and curvature estimates need the gradient of one and the same loss.
        exact = batch_size is None or defaults.gradient_tolerance is None
        optimizer = defaults.optimizer if exact else MINI_BATCH_OPTIMIZER
    n_steps = defaults.n_steps if n_steps is None else n_steps
    for name, count in [("n_steps", n_steps), ("batch_size", batch_size)]:
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    tolerance = defaults.gradient_tolerance if batch_size is None else None

    init_key, step_key = jax.random.split(key)
    samples = jnp.asarray(data, jnp.result_type(*jax.tree.leaves(energy)))
    parameters: PyTree = energy
    carry = _Carry(
        energy=parameters,
        optimizer_state=optimizer.init(parameters),
        objective_state=objective.init(energy, samples, init_key),
        step=jnp.array(0),
        result=RESULTS.step_limit,
    )
    # Numbers are traced, so that another value of one compiles nothing.
    objective = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, objective)
    run = _Run(samples, objective, optimizer, tolerance, batch_size, step_key)
    history = np.zeros(0)
    while True:
        carry, losses = _chunk(run, carry, jnp.asarray(n_steps))
        history = np.append(history, np.asarray(losses)[: int(carry.step) - len(history)])
        outcome = FitResult(constrain(carry.energy), history, carry.result)
        if callback is not None:
            callback(outcome)
        if len(history) == n_steps or carry.result != RESULTS.step_limit:
            return outcome


@eqx.filter_jit
def _chunk(run: _Run, carry: _Carry, n_steps: Array) -> tuple[_Carry, Float[Array, " chunk"]]:
    """A few steps in one compiled call; once the fit has ended the rest of them do nothing."""

    def skip(carry: _Carry):
        return carry, jnp.zeros((), run.samples.dtype)

    def step(carry: _Carry, _):
        going = (carry.step < n_steps) & (carry.result == RESULTS.step_limit)
        return jax.lax.cond(going, lambda c: run.step(c), skip, carry)

    return jax.lax.scan(step, carry, length=_STEPS_PER_CHUNK)


def _all_finite(*trees: PyTree) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(trees)]))
