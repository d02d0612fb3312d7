"""Learning in one line: `Fit` given to the driver."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Num

from .._checks import check_precision, is_traced
from .._placement import from_anywhere, on_host, placed
from .._types import Key
from ..energies import AbstractEnergy
from ..runs import Devices, Folder, Spread, result_of, run, shows_progress
from ._job import Fit, couplings_are_bounded
from ._minimisers import AbstractMinimiser
from ._objectives import AbstractObjective
from ._penalties import AbstractPenalty
from ._samples import Samples, samples_as_given, samples_of, shares_of, with_gaps
from ._states import FitProgress, FitResult, FitState
from ._verdict import entropy_of, warn_of_infinite_parameters

_STEPS_PER_CALLBACK = 20
# Samples that are spread over devices are filled up to a multiple of this.
_PARTS = 64


@from_anywhere
@shows_progress
def fit(
    objective: AbstractObjective,
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "samples visible"],
    *,
    key: Key,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    penalty: AbstractPenalty | None = None,
    optimizer: optax.GradientTransformation | AbstractMinimiser | None = None,
    n_steps: int | None = None,
    max_gaps: int | None = None,
    batch_size: int | None = None,
    callback: Callable[[FitResult], object] | None = None,
    state: FitState | None = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> FitResult:
    """Learn the parameters of an energy from data, at beta = 1.

    Under `jax.jit` and `jax.vmap` a fit is part of the caller's program: it maps over penalties and
    other numbers, keys, starting energies, weights and data sets of one shape. Nothing is then
    checked or warned of that only values tell, and each row says by `result` how it ended.

    The energy that a deterministic objective learns from all data has derivatives of all orders,
    forwards and backwards, by numbers of objective and penalty, by weights and by data: those of
    the minimum, `d energy = -H^-1 dg` with the gradient g and the Hessian H of the loss, by
    conjugate gradients. Newton steps lead to the minimum first, so that the energy is then closer
    to it than the tolerance of a fit. With a proximal penalty they are those of the smooth problem
    on the parameters that it leaves free (Bertrand et al., JMLR 23, 149 (2022)). They are NaN
    unless the fit has converged, or is out of precision, and Newton steps find a minimum there: on
    a way that is hardly steeper than where the fit ended, to where conjugate gradients see no
    negative curvature. Those of `history` and `state` are NaN. The start has no influence on the
    minimum.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))

        def learned(strength):
            penalty = tg.learning.L1(strength)
            objective = tg.Pseudolikelihood(l2=0.0)
            return tg.fit(objective, start, data, penalty=penalty, key=jax.random.key(0))

        fits = jax.vmap(learned)(jnp.array([0.01, 0.03, 0.1]))
        assert np.all(fits.result == tg.RESULTS.converged)
        ```

    Args:
        objective: the objective, such as `Pseudolikelihood()`.
        energy: start of the fit, for example `Pairwise` with zero couplings or `RBM.random`. Runs
            in its dtype.
        data: samples of +-1, 0 where a spin is unknown (or masked, in an `np.ma` array), shape
            `(samples, n_visible(energy))`. What is unknown counts as hidden: it is summed out
            exactly where gaps are few, and else filled by chains that go on from step to step,
            which makes every loss stochastic. Which spins are unknown must not hang on their
            values given what is known (missing at random); see the objective.
        key: random key, for mini-batches and for objectives that sample.
        weights: weight of each sample, >= 0, shape `(samples,)`; equal where None. Whole numbers
            say how often a sample occurs. Other weights are relative, and worth
            `(sum w)^2 / sum w^2` samples (Kish 1965) wherever a prior is weighed against the data.
        penalty: added to the loss, such as `thermogen.learning.L1(0.01)`. A deterministic objective
            with an L1 or group penalty is minimised by proximal steps, which reach exact zeros;
            where `optimizer` is given, or the loss is stochastic, the penalty is one more term of
            the loss.
        optimizer: any optax transformation, or a minimiser such as `learning.LineSearch()`; where
            None what suits objective and penalty, and Adam for mini-batches where that would need
            all data. Each new transformation object compiles anew: keep one to fit many times.
        n_steps: most steps to take in this call; the objective's own default where None.
        max_gaps: most unknown spins in a row of traced data, of which no values are seen; None for
            none. Rows with more end in `non_finite`.
        batch_size: samples drawn (with replacement) for each step; all of them where None.
        callback: called on the host after every few steps with the `FitResult` so far, for
            example to draw the loss. Where it returns True the fit stops, `unfinished`; an
            exception that it raises ends it.
        state: `FitResult.state` of an earlier call to go on from; where None the fit starts at
            `energy`, of which a state takes the structure alone. With the same key and arguments
            calls in a row end at the same numbers, to the last bit, as one call of all their
            steps. A call without it starts anew: chains at the data, steps at their longest. For
            other data or strengths start anew, at the energy that was learned.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which samples are spread, and all sums over them: a mesh, or a
            sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        A `FitResult`. With a deterministic objective and all samples, the fit ends as soon as
        the gradient meets the objective's tolerance.

    Warns:
        UserWarning: where nothing bounds the parameters, and spins that are constant in the data,
            or pairs that are always equal or always opposite, send some to infinity; for rows in
            which no spin is known, which count for nothing.

    Raises:
        ValueError: where derivatives are asked for and steps see a stochastic objective or a part
            of the data; for data of wrong shape or with values other than +-1 and 0, data of 0 and
            1, which are bits, a spin that is unknown in all rows, weights that are negative or all
            zero, counts that are not positive, a `Support` without proximal
            steps, a minimiser that needs all data where it does not get them, an energy that the
            objective does not take, a state of another energy, objective, optimiser, dtype or
            strength of the ridge, or a callback under `jax.jit` or `jax.vmap`.
        TypeError: for another objective, such as a class in place of its instance, for an
            `optimizer` that is none, counts that are no integers, and parameters of another dtype
            than float32 and float64.
    """
    if not isinstance(objective, AbstractObjective):
        raise TypeError(f"objective must be one such as Pseudolikelihood(), got {objective!r}")
    check_precision(energy)
    data = samples_as_given(energy, data, gaps=True)
    data, weights, max_gaps = with_gaps(data, weights, max_gaps)
    share, size = shares_of(weights, len(data))
    dtype = jnp.result_type(*jax.tree.leaves(energy))
    spread = Spread.of(sharding)
    if spread is None or is_traced(data, share):
        samples = samples_of(data, share, size, max_gaps, dtype)
    else:
        samples = _spread(np.asarray(data), np.asarray(share, dtype), spread, dtype)
        samples = Samples(*samples, jnp.asarray(size, dtype), max_gaps=max_gaps)
    traced = is_traced(objective, energy, samples, penalty, optimizer, state, key)
    entropy = None
    if objective.defaults.likelihood and not is_traced(samples):
        # Of what is known of a row no more is certain than that it costs something.
        least = 0.0 if max_gaps else entropy_of(np.asarray(data), np.asarray(share))
        entropy = jnp.asarray(least, dtype)
    job = Fit(
        objective,
        energy,
        samples,
        penalty=penalty,
        optimizer=optimizer,
        n_steps=n_steps,
        batch_size=batch_size,
        state=state,
        entropy=entropy,
        rounded=not traced,
    )
    options = {"checkpoint": checkpoint, "sharding": spread}
    if traced:
        return run(job, key=key, callback=callback, **options)
    bounded_fields = objective.defaults.bounded_fields or bool(penalty and penalty.bounds().fields)
    bounded = bool(couplings_are_bounded(objective, penalty))
    counted = np.asarray(share) > 0
    known = np.asarray(data)
    known = known if np.all(counted) else known[counted]
    warn_of_infinite_parameters(known, not bounded_fields, not bounded)
    first = 0 if state is None else int(state.step)

    def look(progress: FitProgress) -> object:
        assert callback is not None
        return callback(_trimmed(result_of(job, progress), first))

    options |= {} if callback is None else {"callback": look, "every": _STEPS_PER_CALLBACK}
    return _trimmed(run(job, key=key, **options), first)


def _spread(spins: np.ndarray, weights: np.ndarray, spread: Spread, dtype) -> tuple[Array, Array]:
    """Samples over the devices, filled up with some that do not count; none ever holds all.

    To a number that is the same for most numbers of devices, and with it what is drawn for each.
    """
    missing = -len(spins) % math.lcm(_PARTS, spread.n_parts)
    if missing:
        spins, weights = (
            np.pad(spins, ((0, missing), (0, 0)), "edge"),
            np.pad(weights, (0, missing)),
        )
    # Draws look at all weights, and one by one they are few beside the spins.
    return spread.split(spins.astype(dtype)), placed(weights, spread.everywhere)


def _trimmed(result: FitResult, first: int) -> FitResult:
    """The result, with the losses of the steps that were taken."""
    assert result.state is not None
    history = on_host(result.history)[: int(result.state.step) - first]
    return dataclasses.replace(result, history=history.astype(float))
