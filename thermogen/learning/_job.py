"""A fit as a job."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import check_count, check_memory, is_traced
from .._types import Key
from ..energies import AbstractEnergy, constrain
from ..runs import AbstractJob
from ._conditional import PseudolikelihoodState
from ._filled import filling
from ._gaps import can_be_summed
from ._minimisers import ADAM, AbstractMinimiser, Loss, ProximalGradient, Step, as_minimiser
from ._minimum import FullLoss, constant, minimum, refusing_derivatives, without_derivatives
from ._objectives import AbstractObjective
from ._penalties import AbstractPenalty, AbstractProximal, Flag
from ._results import RESULTS
from ._samples import Samples
from ._states import FitProgress, FitResult, FitState
from ._verdict import LATE_PART, judged, separated

# Rounded histories are at least as long.
_CAPACITY = 4096


class Fit(AbstractJob):
    """Learning the parameters of an energy, at beta = 1; a step is one of the minimiser.

    Attributes:
        objective: the objective, with chains where it cannot sum over unknown spins.
        energy: start of the fit.
        samples: the data.
        penalty: penalty that is added to the loss, or None.
        minimiser: takes the steps.
        start: state to go on from; None to start at `energy`.
        entropy: entropy of the data, in nats, by which a sampled likelihood is judged, or None.
        n_steps: largest number of steps.
        batch_size: number of samples drawn for each step; all of them where None.
        capacity: length of the history.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        samples = tg.learning.Samples(jnp.asarray(data, float), jnp.full(100, 0.01))
        job = tg.learning.Fit(tg.Pseudolikelihood(), start, samples)

        assert tg.run(job, key=jax.random.key(0)).result == tg.RESULTS.converged
        ```
    """

    objective: AbstractObjective
    energy: PyTree
    samples: Samples
    penalty: AbstractPenalty | None
    minimiser: AbstractMinimiser
    start: FitState | None
    entropy: Float[Array, ""] | None
    n_steps: Int[Array, ""]
    batch_size: int | None = eqx.field(static=True)
    capacity: int = eqx.field(static=True)

    def __init__(
        self,
        objective: AbstractObjective,
        energy: AbstractEnergy,
        samples: Samples,
        *,
        penalty: AbstractPenalty | None = None,
        optimizer: optax.GradientTransformation | AbstractMinimiser | None = None,
        n_steps: int | None = None,
        batch_size: int | None = None,
        state: FitState | None = None,
        entropy: Float[Array, ""] | None = None,
        rounded: bool = False,
    ):
        """Arguments are those of `fit`.

        A history that is rounded up is longer than the steps, so that another number of them
        compiles nothing.

        Raises:
            ValueError: as `fit` does for counts, penalties, minimisers and states that do not suit.
            TypeError: for an `optimizer` that is none.
        """
        n_seen = len(samples.weights) if batch_size is None else batch_size
        if samples.max_gaps and not (
            objective.defaults.sums_gaps and can_be_summed(energy, n_seen, samples.max_gaps)
        ):
            objective = filling(objective)
        defaults = objective.defaults
        n_steps = check_count("n_steps", defaults.n_steps if n_steps is None else n_steps)
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        dtype = jnp.result_type(*jax.tree.leaves(energy))
        self.samples, self.entropy, self.batch_size = samples, entropy, batch_size
        minimiser = _minimiser(optimizer, objective, penalty, batch_size)
        # Numbers are traced, so that another value of one compiles nothing.
        self.objective, self.energy, self.penalty, self.minimiser = jax.tree.map(
            lambda x: jnp.asarray(x, dtype) if _is_number(x) else x,
            (objective, energy, penalty, minimiser),
        )
        self.n_steps = jnp.asarray(n_steps)
        self.capacity = max(_CAPACITY, 1 << (n_steps - 1).bit_length()) if rounded else n_steps
        self.start = state

    def __check_init__(self):
        name = type(self.minimiser).__name__
        if self.minimiser.needs_full_batch and not self._has_full_batch:
            raise ValueError(
                f"optimizer {name} needs a deterministic objective and all data in each step, of "
                "which no gaps are filled by chains: leave batch_size out, or give an optax "
                "transformation"
            )
        penalty = self.penalty
        if isinstance(penalty, AbstractProximal) and penalty.is_constraint and self._kinked is None:
            raise ValueError(
                f"penalty {type(penalty).__name__} needs a deterministic objective, all data in "
                "each step and the default optimizer"
            )
        held = sum(np.size(x) * jnp.result_type(x).itemsize for x in jax.tree.leaves(self.energy))
        size = f"{self.energy.n_spins} spins by {name}"
        check_memory(f"a fit of {size}", self.minimiser.copies * held)
        check_memory(f"n_steps, a history of {self.capacity} losses,", 16 * self.capacity)
        if self.start is not None:
            _check_state(self.start, jax.eval_shape(self._first, jax.random.key(0)))
            if self._has_full_batch:
                _check_strength(self.start, self.objective)

    def init(self, key: Key) -> FitProgress:
        fit = self._first(jax.random.split(key)[0]) if self.start is None else self.start
        return FitProgress(
            fit=fit,
            means=self.samples.means,
            key=key,
            history=jnp.full(self.capacity, jnp.nan, fit.lowest_loss.dtype),
            taken=jnp.zeros((), int),
            result=jax.tree.map(jnp.asarray, RESULTS.unfinished),
        )

    def step(self, state: FitProgress) -> FitProgress:
        old = state.fit
        step = self.minimiser.step(self._loss(state), old.energy, old.optimizer_state)
        value = jnp.asarray(step.value, old.lowest_loss.dtype)
        slope, idle, result = self._met(state, step, value)
        result = RESULTS.where(self._is_finite(step), result, RESULTS.non_finite)
        average = step.energy
        if self._averages:
            average = _running_mean(old.average, step.energy, old.step)
        lowest = jnp.minimum(old.lowest_loss, value)
        new = FitState(
            *(step.energy, average, step.state, step.objective_state),
            *(old.step, lowest, slope, idle, old.objective),
        )
        goes_on = result == RESULTS.unfinished
        new = jax.tree.map(lambda a, b: jnp.where(goes_on, a, b), new, old)
        return state._replace(
            fit=dataclasses.replace(new, step=old.step + 1),
            history=state.history.at[state.taken].set(value),
            taken=state.taken + 1,
            result=result,
        )

    def done(self, state: FitProgress) -> Bool[Array, ""]:
        return (state.taken >= self.n_steps) | (state.result != RESULTS.unfinished)

    def amount(self, state: FitProgress) -> tuple[int, int]:
        return int(state.taken), int(self.n_steps)

    def result(self, state: FitProgress) -> FitResult:
        fit = state.fit
        at_rest = state.result == RESULTS.converged
        learned = jax.tree.map(lambda a, b: jnp.where(at_rest, a, b), fit.energy, fit.average)
        code = self.still()._code(state, learned)
        history, fit = without_derivatives(self, (state.history, fit))
        return FitResult(constrain(self._moving(state, learned, code)), history, code, fit)

    def still(self) -> "Fit":
        return constant(self)

    def _moving(self, state: FitProgress, learned: PyTree, code: RESULTS) -> PyTree:
        """What was learned, with its derivatives where it is a minimum."""
        if not self._has_full_batch:
            return refusing_derivatives(self, learned)
        if self.start is None:
            start = constant(self.energy)
            init_key = jax.random.split(state.key)[0]
            carried = self.objective.init(start, self.samples, init_key)
        else:
            carried = constant(self.start.objective_state)
        is_known = (code == RESULTS.converged) | (code == RESULTS.precision_limit)
        loss = self._full_loss(self.samples, carried, state.key)
        return minimum(loss, self._kinked, is_known, learned)

    def _full_loss(self, samples: Samples, carried: PyTree, key: Key) -> FullLoss:
        penalty = None if self._kinked is not None else self.penalty
        return FullLoss(self.objective, penalty, samples, carried, key)

    @property
    def _has_full_batch(self) -> bool:
        """Whether all steps see one and the same loss."""
        return self.batch_size is None and self.objective.defaults.gradient_tolerance is not None

    @property
    def _averages(self) -> bool:
        at_rest = self._has_full_batch and self.objective.defaults.smooth
        return self.minimiser.averages and not at_rest

    @property
    def _kinked(self) -> AbstractProximal | None:
        """The penalty, where the minimiser deals with it."""
        penalty = self.penalty
        if isinstance(penalty, AbstractProximal) and self.minimiser.takes_kinks:
            return penalty
        return None

    def _first(self, key: Key) -> FitState:
        parameters: PyTree = constrain(self.energy)
        dtype = jnp.result_type(*jax.tree.leaves(parameters))
        if self._kinked is not None:
            parameters = self._kinked.shrink(parameters, jnp.zeros((), dtype))
        most = jnp.full((), jnp.inf, dtype)
        return FitState(
            energy=parameters,
            average=parameters,
            optimizer_state=self.minimiser.init(parameters),
            objective_state=self.objective.init(self.energy, self.samples, key),
            step=jnp.array(0),
            lowest_loss=most,
            lowest_slope=most,
            idle=jnp.array(0),
            objective=type(self.objective).__name__,
        )

    def _loss(self, state: FitProgress) -> Loss:
        old, step_key = state.fit, jax.random.split(state.key)[1]
        batch_key, loss_key = jax.random.split(jax.random.fold_in(step_key, old.step))
        batch = self.samples
        if self.batch_size is not None:
            batch = self.samples.draw(batch_key, self.batch_size)
        function = self._full_loss(batch, old.objective_state, loss_key)
        return Loss(function, self._kinked, self.samples, state.means, old.objective_state)

    def _met(
        self, state: FitProgress, step: Step, value: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Int[Array, ""], RESULTS]:
        """Least slope, idle steps, and whether the tolerance or the precision is met."""
        old, result = state.fit, state.result
        if not self._has_full_batch:
            return old.lowest_slope, old.idle, result
        idle, slope = old.idle, step.slope.astype(old.lowest_slope.dtype)
        if self.minimiser.patience is not None:
            better = (value < old.lowest_loss) | (slope < 0.9 * old.lowest_slope)
            idle = jnp.where(better, 0, idle + 1)
            is_out = idle >= self.minimiser.patience
            result = RESULTS.where(is_out, RESULTS.precision_limit, result)
        is_flat = slope <= self._tolerance
        result = RESULTS.where(is_flat, RESULTS.converged, result)
        return jnp.minimum(old.lowest_slope, slope), idle, result

    @property
    def _tolerance(self) -> Float[Array, ""]:
        """That of the objective, but below the tenth of a sample: a spin that is up but once.

        No lower than what sums of many rounded numbers come to.
        """
        rounding = 16 * float(jnp.finfo(self.samples.spins.dtype).eps)
        of_a_sample = jnp.maximum(0.1 / self.samples.size, rounding)
        tolerance = self.objective.defaults.gradient_tolerance
        assert tolerance is not None
        return jnp.minimum(tolerance, of_a_sample)

    def _is_finite(self, step: Step) -> Bool[Array, ""]:
        leaves = jax.tree.leaves((step.gradient, step.energy))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
        is_known = jnp.isfinite(step.value)
        if self.objective.defaults.likelihood:
            # One that is not known is infinite; its gradient goes on.
            is_known |= step.value == jnp.inf
        return finite & is_known

    def _code(self, state: FitProgress, learned: PyTree) -> RESULTS:
        """How the fit has ended, by what it came to."""
        defaults, code, done = self.objective.defaults, state.result, self.done(state)
        end = RESULTS.step_limit if self._has_full_batch else RESULTS.completed
        if defaults.gradient_tolerance is None:
            n_spins = self.samples.spins.shape[1]
            end = judged(state.history, state.taken, n_spins, self.entropy)
        used_up = done & (code == RESULTS.unfinished)
        bounded = couplings_are_bounded(self.objective, self.penalty)
        is_open = done & (code != RESULTS.non_finite) & ~jnp.asarray(bounded)
        code = RESULTS.where(used_up, end, code)
        if bounded is True or not defaults.conditional:
            return code
        falls = jax.lax.cond(
            is_open,
            lambda: separated(learned, self.samples, defaults.bounded_fields),
            lambda: jnp.zeros((), bool),
        )
        return RESULTS.where(falls, RESULTS.separable, code)


def couplings_are_bounded(objective: AbstractObjective, penalty: AbstractPenalty | None) -> Flag:
    """Whether loss and penalty keep them finite whatever the data are; known where it can be."""
    bounds = [objective.defaults.bounded]
    bounds += [] if penalty is None else [penalty.bounds().couplings]
    return True if any(b is True for b in bounds) else jnp.any(jnp.stack(bounds))


def _minimiser(
    optimizer: Any, objective: AbstractObjective, penalty: AbstractPenalty | None, batch_size: Any
) -> AbstractMinimiser:
    """What is given, or what suits objective, penalty and batches."""
    if optimizer is not None:
        return as_minimiser(optimizer)
    full_batch = batch_size is None and objective.defaults.gradient_tolerance is not None
    if full_batch and isinstance(penalty, AbstractProximal):
        return ProximalGradient()
    own = as_minimiser(objective.defaults.optimizer)
    return own if full_batch or not own.needs_full_batch else ADAM


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


def _check_strength(state: FitState, objective: AbstractObjective) -> None:
    """Refuse another ridge, by which the lowest loss and the line search are those of another."""
    kept, given = state.objective_state, getattr(objective, "l2", None)
    if not isinstance(kept, PseudolikelihoodState) or given is None or is_traced(kept.l2, given):
        return
    if not np.array_equal(kept.l2, given):
        raise ValueError(
            f"state is of a fit with l2 = {kept.l2:.6g}, got {given:.6g}: "
            "for another strength start anew, at the energy that was learned"
        )


def _is_number(x: Any) -> bool:
    known = isinstance(x, float | np.ndarray | np.generic | jax.Array)
    return known and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _running_mean(mean: PyTree, energy: PyTree, step: Array) -> PyTree:
    """The mean with one energy more, of late steps only (Shamir and Zhang 2013, section 4)."""

    def closer(old, new):
        return old + (new - old) * jnp.asarray(LATE_PART / (step + LATE_PART), old.dtype)

    return jax.tree.map(closer, mean, energy)
