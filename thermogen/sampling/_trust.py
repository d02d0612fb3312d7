"""When an estimate of ln Z is none: the signs of failure, and an infinite error for it.

The thresholds were chosen on models whose ln Z is known, easy and hard (`experiments/samplers.py`):
of the answers that are given 95 % intervals hold in about 95 %, and easy models are answered.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from .._linalg import dot
from ._results import RESULTS

# Of the error bar of a mean of weights: such skewed ones have none.
MAX_WIDENING = 3.0
# Effective draws, or chains along a training, without which their spread says nothing of the mean.
MIN_ESS = 30.0
# Effective replicas of all populations, families counted once: where few lineages survive all
# populations miss the same states.
MIN_LINEAGES = 25.0
# Of the tail of weights: above it their mean hangs on values that were not drawn yet (Vehtari,
# Simpson, Gelman, Yao and Gabry 2024). It counts where less than half of the chains do.
MAX_SHAPE = 0.7
# Of chains that are cooled together: they may differ while they move, but by not much more.
MAX_RHAT_COOLED = 1.3
# Of ladders, which pass on at all rungs what one of them has not found; above what that of
# independent draws may be by chance.
MAX_RHAT_LADDERS = 1.03
# Of sums of energies over the coldest rungs, which swaps do not change: they are slower.
MAX_RHAT_SUMS = 1.08
# The odds that relaxed chains are said to drift.
DRIFT_ALARM = 0.01

_MIN_TAIL = 5


def first_of(*cases: tuple[Bool[Array, ""], RESULTS]) -> RESULTS:
    """The code of the first condition that holds, or `converged`."""
    result = RESULTS.converged
    for failed, code in reversed(cases):
        result = RESULTS.where(failed, code, result)
    return result


def known_error(error: Float[Array, "..."], result: RESULTS) -> Float[Array, "..."]:
    """The error of an estimate that can be trusted; infinite for another."""
    return jnp.where(result == RESULTS.converged, error, jnp.inf)


def too_few(ess: Float[Array, "..."], count: int, least: float = MIN_ESS) -> Bool[Array, "..."]:
    """Whether `ess` of `count` weights are too few: of very few weights all must be alike."""
    return ~(ess >= min(least, 0.9 * count)) | (count == 1)


def widening(ess: Float[Array, ""], count: int) -> Float[Array, ""]:
    """By how much the mean of `count` weights misses more often than its normal error bar says.

    `1 + skewness^2 / count`: where skewed weights miss their mean, they were few and claim a small
    error. An interval of 95 % is short by `(z^4 + 2 z^2 - 3) / 18 = 1.08` of that square at
    z = 1.96 (Hall 1992, section 2.6). The skewness is that of log-normal weights of this effective
    size: the sample's own is smallest in just the runs that miss.
    """
    ratio = jnp.maximum(count / ess, 1)
    return 1 + jnp.square(ratio + 2) * (ratio - 1) / count


def too_skewed(ess: Float[Array, ""], count: int) -> Bool[Array, ""]:
    """Whether so many effective weights are no estimate of their mean."""
    return ~(widening(ess, count) <= MAX_WIDENING) | (count == 1)


def judged_weights(log_weights: Float[Array, " chains"], ess: Float[Array, ""]) -> RESULTS:
    """Whether the mean of weights can be trusted."""
    finite = jnp.all(jnp.isfinite(log_weights))
    heavy = (tail_shape(log_weights) > MAX_SHAPE) & (ess < log_weights.size / 2)
    poor = too_skewed(ess, log_weights.size) | heavy
    return first_of((~finite, RESULTS.non_finite), (poor, RESULTS.few_weights))


def tail_shape(log_weights: Float[Array, " chains"]) -> Float[Array, ""]:
    """Shape k of the generalised Pareto distribution of the largest weights; -inf for few of them.

    By the estimator of Zhang and Stephens (2009) with the prior of Vehtari et al. (2024): moments
    of order 1 / k and above do not exist.
    """
    n = log_weights.size
    size = int(min(n / 5, 3 * math.sqrt(n)))
    dtype = log_weights.dtype
    if size < _MIN_TAIL:
        return jnp.asarray(-jnp.inf, dtype)
    tail = jnp.exp(jnp.sort(log_weights)[-size - 1 :] - jnp.max(log_weights))
    excess = jnp.maximum(tail[1:] - tail[0], jnp.finfo(dtype).tiny)
    points = 30 + int(math.sqrt(size))
    grid = 1 - jnp.sqrt(points / (jnp.arange(1, points + 1, dtype=dtype) - 0.5))
    # The prior's scale: the lowest quartile, unless discrete weights leave it without width.
    quartile, width = excess[size // 4], jnp.mean(excess)
    scale = jnp.where(quartile > 1e-2 * width, quartile, 0.29 * width)
    slopes = grid / (3 * scale) + 1 / excess[-1]
    shapes = jnp.mean(jnp.log1p(-slopes[:, None] * excess[None, :]), axis=1)
    posterior = jax.nn.softmax(size * (jnp.log(-slopes / shapes) - shapes - 1))
    shape = jnp.mean(jnp.log1p(-jnp.sum(posterior * slopes) * excess))
    shape = (shape * size + 5) / (size + 10)
    # A tail without width has no shape.
    return jnp.where(tail[-1] - tail[0] > 16 * jnp.finfo(dtype).eps, shape, -jnp.inf)


def ladders_disagree(
    rhat: Float[Array, "*rungs"], most: float, n_chains: int, n_draws: int
) -> Bool[Array, "*rungs"]:
    """Whether R-hat exceeds `most` by more than three standard errors of independent draws."""
    noise = math.sqrt(2 / (n_chains - 1)) / n_draws
    return ~(jnp.square(rhat) <= most**2 + 3 * noise)


def drifting(slopes: Float[Array, "chains rungs"]) -> Bool[Array, ""]:
    """Whether chains drift all alike, which R-hat, a comparison between them, does not show.

    By Student's t test, over chains, of the slopes of their energies in time: chains are
    independent, however strongly the draws of one depend on each other. Sums over the coldest 1, 2,
    4, ... rungs are tested, which swaps do not change, with Bonferroni's correction. Two chains
    of few draws often have one slope by chance: fewer than three are not judged.
    """
    n_chains, n_rungs = slopes.shape
    if n_chains < 3:
        return jnp.zeros((), bool)
    n_coldest = 2 ** np.arange(n_rungs.bit_length())
    sums = jnp.cumsum(slopes[:, ::-1], axis=1)[:, n_coldest - 1]
    error = jnp.std(sums, axis=0, ddof=1) / math.sqrt(n_chains)
    most = float(scipy.special.stdtrit(n_chains - 1, 1 - DRIFT_ALARM / (2 * n_coldest.size)))
    return jnp.any(jnp.abs(jnp.mean(sums, axis=0)) > most * error)


def unrelaxed(series: Float[Array, "chains draws"]) -> Bool[Array, ""]:
    """Whether chains of an observable drift alike, or differ by much more than each varies.

    Of one chain, and of one draw from each, nothing is seen.
    """
    n_chains, n_draws = series.shape
    if n_chains == 1 or n_draws == 1:
        return jnp.zeros((), bool)
    series = series - series[:1, :1]  # exactly 0 where nothing moves
    rhat = disagreement(jnp.mean(series, axis=1), jnp.var(series, axis=1), n_draws)
    time = jnp.arange(n_draws, dtype=series.dtype)
    slopes = dot(series - series[:, :1], time - jnp.mean(time))
    return ladders_disagree(rhat, MAX_RHAT_COOLED, n_chains, n_draws) | drifting(slopes[:, None])


def disagreement(
    means: Float[Array, "*rungs chains"],
    variances: Float[Array, "*rungs chains"],
    n_draws: int | Int[Array, ""],
) -> Float[Array, "*rungs"]:
    """R-hat of chains at each rung, of their means and their variances about these (1 / draws).

    1 where all chains agree to the last bit, else infinite for one draw a chain, and where no chain
    ever changes (Gelman and Rubin 1992).
    """
    n_draws = jnp.asarray(n_draws, means.dtype)
    rounding = 8 * jnp.finfo(means.dtype).eps * jnp.max(jnp.abs(means), axis=-1)
    between = jnp.var(means, axis=-1, ddof=1)
    within = jnp.mean(variances, axis=-1) * n_draws / (n_draws - 1)
    apart = between > jnp.square(rounding)
    rhat = jnp.sqrt(1 - 1 / n_draws + between / jnp.where(within > 0, within, 0))
    return jnp.where(apart, rhat, 1.0)
