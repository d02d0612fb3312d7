"""Where a fit stands, and what has come of it."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._shown import Shown, Table
from .._types import Key
from ..energies import AbstractEnergy
from ._results import RESULTS


class FitState(eqx.Module):
    """Where a fit stands, for `fit(..., state=...)` to go on from: a pytree of arrays.

    Attributes:
        energy: the parameters as they are, before any mean and projection.
        average: their running mean over late steps.
        optimizer_state: state of the minimiser.
        objective_state: state of the objective, such as its chains.
        step: steps taken so far.
        lowest_loss: lowest loss of all steps.
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


class FitResult(Shown):
    """A learned energy and how it came about.

    Attributes:
        energy: the learned energy; where the loss is noisy or has kinks, and steps do not come to
            rest, the mean over about the last ninth of them, which has less of the noise than the
            last step.
        history: loss of each step that this call took, shape `(steps,)`, in nats per sample; under
            `jax.jit` and `jax.vmap` filled up with NaN to `n_steps`.
        result: a `RESULTS` code: `converged` if the gradient met the objective's tolerance,
            `completed` if a stochastic fit took its steps, `step_limit` if the steps of any other
            ran out, `precision_limit` if the loss stopped falling before; `separable` if every
            spin follows from the others, so that a loss of conditionals falls for ever;
            `non_finite` if the loss or its gradient stopped being finite; the energy is then the
            last finite one. Of sampled losses: `few_weights` if the likelihood is no longer known,
            or ended below the entropy of the data, `diverged` if the loss ended where none can be,
            or higher than it began. `unfinished` before the end.
        state: state of the fit, from which it can go on.
    """

    _of_rows: ClassVar[str] = "history"

    energy: AbstractEnergy
    history: Float[Array | np.ndarray, " steps"]
    result: RESULTS
    state: FitState | None = None

    def _table(self) -> Table:
        losses = self.history[np.isfinite(self.history)]
        went = f", loss {losses[0]:.6g} to {losses[-1]:.6g}" if len(losses) else ""
        headline, columns = self.energy._table()
        return Table(
            f"{self.result.names} after {len(self.history)} steps{went}: {headline}", columns
        )


class FitProgress(NamedTuple):
    """What a `Fit` carries from step to step.

    Attributes:
        fit: state of the fit.
        means: means of the data, shape `(visible,)`.
        key: random key of the run.
        history: loss of each step, NaN for those to come, shape `(capacity,)`.
        taken: steps taken by this run.
        result: `unfinished`, or how the fit has ended before its last step.
    """

    fit: FitState
    means: Float[Array, " visible"]
    key: Key
    history: Float[Array, " capacity"]
    taken: Int[Array, ""]
    result: RESULTS
