"""One estimate of the estimates of independent runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from .._merging import merged
from ._annealing import Estimate, Measurement, log_mean, weight_error
from ._population import PopulationEstimate
from ._results import RESULTS
from ._trust import MIN_LINEAGES, first_of, known_error, too_few, too_skewed

# The odds that runs which agree are said to differ.
_ALARM = 1e-3
# Differences of so many units in the last place are none.
_ROUNDING = 16


@merged.register
def _(first: Measurement, others: list[Measurement]) -> Measurement:
    runs = [first, *others]
    shapes = {np.shape(run.value) for run in runs}
    if len(shapes) > 1:
        raise ValueError(f"results must be of one shape, got {shapes}")
    values = np.stack([np.asarray(run.value) for run in runs])
    errors = np.stack([np.asarray(run.standard_error) for run in runs])
    error = np.sqrt(np.sum(errors**2, axis=0)) / len(values)
    error = np.where(_differ(values, errors), np.inf, error)
    like = first.value
    return Measurement(_array(values.mean(axis=0), like), _array(error, like))


@merged.register
def _(first: Estimate, others: list[Estimate]) -> Estimate:
    """As the run of all chains, as far as numbers of chains are known."""
    runs = [first, *others]
    if len({int(run.sign) for run in runs}) > 1:
        raise ValueError("results must be of chains that were cooled, or of heated ones, got both")
    counts = np.array([int(run.n_chains) for run in runs])
    return _of_all_chains(runs, counts) if np.all(counts > 0) else _mean_of(runs)


def _of_all_chains(runs: list[Estimate], counts: Int[np.ndarray, " runs"]) -> Estimate:
    """The mean of all weights, or of all inverse ones: each chain counts the same."""
    sign, like, n = int(runs[0].sign), runs[0].log_partition, int(counts.sum())
    logs = sign * np.array([run.log_partition for run in runs])
    sizes = np.array([float(run.ess) for run in runs])
    totals = logs + np.log(counts)
    size = np.exp(2 * _log_sum(totals) - _log_sum(2 * totals - np.log(sizes)))
    ess = _array(size, like)
    # What a run has too few chains for, all together may have enough of; not so heavy tails.
    doubtful = [
        (run.result != RESULTS.converged) & ~too_skewed(jnp.asarray(run.ess), int(count))
        for run, count in zip(runs, counts, strict=True)
    ]
    result = first_of(
        *((found, run.result) for found, run in zip(doubtful, runs, strict=True)),
        (too_skewed(ess, n), RESULTS.few_weights),
        (jnp.asarray(_chains_differ(logs, counts, sizes)), RESULTS.disagree),
    )
    log_z = _array(sign * (_log_sum(totals) - np.log(n)), like)
    error = known_error(weight_error(ess, n), result)
    return Estimate(log_z, error, ess, result, jnp.asarray(n), runs[0].sign)


def _mean_of(runs: list[Estimate]) -> Estimate:
    """The plain mean of ln Z, where draws depend on each other and their number says nothing."""
    columns = [Measurement(run.log_partition, run.standard_error) for run in runs]
    pooled = merged(columns[0], columns[1:])
    result = first_of(
        *((run.result != RESULTS.converged, run.result) for run in runs),
        (jnp.isinf(pooled.standard_error), RESULTS.disagree),
    )
    ess = _array(sum(float(run.ess) for run in runs), runs[0].ess)
    value, error = pooled.value, pooled.standard_error
    return Estimate(value, error, ess, result, jnp.asarray(0), runs[0].sign)


@merged.register
def _(first: PopulationEstimate, others: list[PopulationEstimate]) -> PopulationEstimate:
    """As the run of all populations; each ln Z follows from the weight of its population."""
    runs, like = [first, *others], first.log_partition
    shapes = {np.shape(run.spins)[1:] for run in runs}
    if len(shapes) > 1:
        raise ValueError(
            f"results must have populations of one size and spins of one number, got {shapes}"
        )
    counts = np.array([len(run.weights) for run in runs])
    logs = [
        run.log_partition + jnp.log(count * run.weights)
        for run, count in zip(runs, counts, strict=True)
    ]
    ratios = jnp.concatenate(logs)
    log_z, error, count = log_mean(ratios)
    # By the shares of the runs in Z the replicas of each family, squared, add up.
    totals = np.array([float(run.log_partition) for run in runs]) + np.log(counts)
    shares = scipy.special.softmax(totals)
    ess = _array(1 / np.sum(shares**2 / np.array([float(run.ess) for run in runs])), like)
    spins = jnp.concatenate([run.spins for run in runs])
    poor = too_few(ess, spins.shape[0] * spins.shape[1], MIN_LINEAGES)
    poor |= too_skewed(count, len(ratios))
    finite = jnp.all(jnp.isfinite(ratios))
    result = first_of((~finite, RESULTS.non_finite), (poor, RESULTS.few_weights))
    weights = jax.nn.softmax(ratios)
    return PopulationEstimate(log_z, known_error(error, result), ess, spins, weights, result)


def _chains_differ(
    logs: Float[np.ndarray, " runs"],
    counts: Int[np.ndarray, " runs"],
    sizes: Float[np.ndarray, " runs"],
) -> bool:
    """Whether means of weights differ by more than the weights of each do: analysis of variance.

    Runs of few chains know their own errors badly; together they know the spread of one weight.
    """
    n_runs, n = len(counts), counts.sum()
    if n_runs == 1 or n == n_runs:
        return False
    variance = np.sum(counts * (counts / sizes - 1)) / (n - n_runs)
    least = n * (_ROUNDING * np.finfo(logs.dtype).eps * np.abs(logs).max()) ** 2
    mean = np.average(logs, weights=counts)
    between = np.sum(counts * (logs - mean) ** 2) / (n_runs - 1)
    most = scipy.stats.f.isf(_ALARM, n_runs - 1, n - n_runs)
    return bool(between > most * max(variance, least))


def _differ(
    values: Float[np.ndarray, "runs ..."], errors: Float[np.ndarray, "runs ..."]
) -> Bool[np.ndarray, "..."]:
    """Whether values differ by more than their errors and rounding allow, by a chi-squared test.

    False where an error is infinite, which says that nothing is known.
    """
    known = np.all(np.isfinite(errors), axis=0)
    rounding = _ROUNDING * np.finfo(values.dtype).eps * np.abs(values).max(axis=0)
    least = np.maximum(rounding, np.finfo(values.dtype).tiny ** 0.25)
    precision = 1 / np.where(known, np.maximum(errors, least), 1) ** 2
    mean = np.sum(precision * values, axis=0) / precision.sum(axis=0)
    apart = np.sum(precision * (values - mean) ** 2, axis=0)
    most = scipy.stats.chi2.isf(_ALARM, max(len(values) - 1, 1))
    return np.asarray(known & (apart > most))


def _log_sum(logs: Float[np.ndarray, " runs"]) -> float:
    return float(np.logaddexp.reduce(logs))


def _array(value: Any, like: Any) -> Array:
    """A number in the dtype of a result."""
    return jnp.asarray(value, jnp.asarray(like).dtype)
