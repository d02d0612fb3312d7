"""Partition functions by annealing: unbiased weights of chains that are cooled, or heated."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_count, check_parameters
from .._placement import from_anywhere
from .._solution import RESULTS
from .._types import Count, Key
from ..energies import AbstractEnergy
from ._base import (
    AbstractKernel,
    Clamp,
    Ladder,
    checked_clamp,
    checked_ladder,
    parameter_dtype,
    random_corners,
    step_chains,
)
from ._gibbs import Gibbs
from ._sample import colored
from ._trust import judged_weights, known_error, widening


class Estimate(NamedTuple):
    """An estimate of ln Z.

    Attributes:
        log_partition: ln Z.
        standard_error: of ln Z, by the spread of the weights, wider by up to 3 times where they
            are skewed; infinite unless `result` is `converged`.
        ess: effective sample size `(sum w)^2 / sum w^2`, between 1 and the number of chains.
        result: a `RESULTS` code: `few_weights` where the estimate has failed, and what to do.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    ess: Float[Array, ""]
    result: RESULTS


class Measurement(NamedTuple):
    """A mean, or one at each rung, shape `(...)`.

    Attributes:
        value: the estimate.
        standard_error: by the spread over independent chains; infinite where it cannot be known.
    """

    value: Float[Array, "*rungs"]
    standard_error: Float[Array, "*rungs"]


@from_anywhere
def annealed_importance_sampling(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
) -> Estimate:
    """ln Z at `betas[-1]` by chains cooled from infinite temperature (Neal 2001).

    `Z = 2^n <w>` with `ln w = -sum_k (beta_k - beta_{k-1}) E(s_{k-1})` is unbiased, so that
    `E[ln Z estimate] <= ln Z`: a stochastic lower bound.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`; chains start at beta = 0
            whether it is listed or not, and make one sweep at each.
        key: random key.
        n_chains: number of independent chains.
        kernel: moves the chains.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.

    Raises:
        ValueError: if `n_chains` is not positive, known parameters are not finite, known `betas` do
            not increase from 0 or above, or `clamp` holds other values.
        TypeError: if `n_chains` is no integer, or parameters are not of float32 or float64.
    """
    check_parameters(energy)
    n_chains = check_count("n_chains", n_chains)
    clamp = checked_clamp(energy, clamp)
    return _cooled(colored(energy), checked_ladder(betas), key, n_chains, kernel, clamp)


@eqx.filter_jit
def _cooled(energy, betas, key, n_chains, kernel, clamp):
    start_key, key = jax.random.split(key)
    spins = random_corners(energy, n_chains, start_key, clamp)
    path = path_from_zero(betas, spins.dtype)
    _, log_weights = annealed(energy, path, spins, key, kernel, clamp)
    return _estimate(log_states(energy, spins.dtype, clamp), 1, log_weights)


@from_anywhere
def reverse_annealed_importance_sampling(
    energy: AbstractEnergy,
    betas: Ladder,
    samples: Num[Array | np.ndarray, "chains n"],
    *,
    key: Key,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
) -> Estimate:
    """ln Z at `betas[-1]` by heating chains that start as samples there.

    From exact samples `E[ln Z estimate] >= ln Z`: together with the forward run it encloses ln Z
    (bidirectional Monte Carlo, Grosse, Ghahramani and Adams 2015). Samples of a chain that has
    not relaxed make it no bound.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`, as for the forward run.
        samples: independent configurations at `betas[-1]`, shape `(chains, n)`.
        key: random key.
        kernel: moves the chains.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.

    Raises:
        ValueError: for samples of a wrong shape or entries other than +-1, known parameters that
            are not finite, and if known `betas` do not increase from 0 or above.
        TypeError: for parameters of another dtype than float32 and float64.
    """
    check_parameters(energy)
    samples = as_array("samples", samples)
    if samples.shape[0] < 1 or samples.shape[1] != energy.n_spins:
        raise ValueError(
            f"samples must have shape (chains, {energy.n_spins}), chains >= 1, got {samples.shape}"
        )
    if not isinstance(samples, Tracer) and not np.all(np.abs(samples) == 1):
        raise ValueError("samples must hold spins, -1 or +1, and nothing else")
    clamp, samples = checked_clamp(energy, clamp), jnp.asarray(samples)
    return _heated(colored(energy), checked_ladder(betas), samples, key, kernel, clamp)


@eqx.filter_jit
def _heated(energy, betas, samples, key, kernel, clamp):
    dtype = parameter_dtype(energy)
    path = path_from_zero(betas, dtype)[::-1]
    _, log_weights = annealed(energy, path, samples.astype(dtype), key, kernel, clamp)
    return _estimate(log_states(energy, dtype, clamp), -1, log_weights)


def _estimate(log_scale, sign, log_weights):
    ratio, error, ess = log_mean(log_weights)
    result = judged_weights(log_weights, ess)
    return Estimate(log_scale + sign * ratio, known_error(error, result), ess, result)


def path_from_zero(betas: Float[Array, " rungs"], dtype) -> Float[Array, " points"]:
    """Infinite temperature and then the rungs, of which the first may be the same."""
    return jnp.append(jnp.zeros(1, dtype), betas.astype(dtype))


def log_states(energy: AbstractEnergy, dtype, clamp: Clamp = None) -> Float[Array, ""]:
    """`n ln 2`, of n free spins: ln Z at infinite temperature."""
    n_free = energy.n_spins if clamp is None else jnp.sum(clamp == 0)
    return n_free * jnp.log(2).astype(dtype)


def annealed(energy, path, spins, key, kernel, clamp):
    """Chains along a path of inverse temperatures, from samples `(chains, n)` at its first.

    Returns where they end, shape `(chains, n)`, and the logarithms of their weights `(chains,)`.
    """

    def rung(carry, inputs):
        spins, log_weights = carry
        beta, change, key = inputs
        log_weights -= change * jax.vmap(energy, in_axes=-1)(spins)
        return (step_chains(kernel, energy, spins, beta, key, clamp), log_weights), None

    inputs = path[1:], jnp.diff(path), jax.random.split(key, len(path) - 1)
    start = spins.T, jnp.zeros(len(spins), path.dtype)
    (spins, log_weights), _ = jax.lax.scan(rung, start, inputs)
    return spins.T, log_weights


def log_mean(log_weights):
    """`ln <w>`, its standard error (delta method, widened for skewness), and the effective size."""
    n = len(log_weights)
    total = jax.nn.logsumexp(log_weights)
    ess = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weights))
    # One weight has no spread, and says nothing about its error.
    error = jnp.sqrt(jnp.maximum(n / ess - 1, 0) / (n - 1)) if n > 1 else jnp.inf
    error = jnp.asarray(error * widening(ess, n), total.dtype)
    return total - jnp.log(n).astype(total.dtype), error, ess
