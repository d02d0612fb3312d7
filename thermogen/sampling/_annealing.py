"""Partition functions by annealing: unbiased weights of chains that are cooled, or heated."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._types import Key
from ..energies import AbstractMultilinear
from ._base import AbstractKernel
from ._gibbs import Gibbs

_Ladder = Float[Array | np.ndarray, " rungs"]


class Estimate(NamedTuple):
    """An estimate of ln Z.

    Attributes:
        log_partition: ln Z.
        standard_error: of ln Z, by the spread of the weights; too small where `ess` is.
        ess: effective sample size `(sum w)^2 / sum w^2`, between 1 and the number of chains.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    ess: Float[Array, ""]


@eqx.filter_jit
def annealed_importance_sampling(
    energy: AbstractMultilinear,
    betas: _Ladder,
    *,
    key: Key,
    n_chains: int,
    kernel: AbstractKernel = Gibbs(),
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
    """
    start_key, key = jax.random.split(key)
    dtype = jnp.result_type(*jax.tree.leaves(energy))
    up = jax.random.bernoulli(start_key, shape=(n_chains, energy.n_spins))
    path = jnp.append(0, jnp.asarray(betas, dtype))
    log_weights = _log_weights(energy, path, jnp.where(up, 1, -1).astype(dtype), key, kernel)
    ratio, error, ess = _log_mean(log_weights)
    return Estimate(energy.n_spins * jnp.log(2).astype(dtype) + ratio, error, ess)


@eqx.filter_jit
def reverse_annealed_importance_sampling(
    energy: AbstractMultilinear,
    betas: _Ladder,
    samples: Num[Array | np.ndarray, "chains n"],
    *,
    key: Key,
    kernel: AbstractKernel = Gibbs(),
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
    """
    dtype = jnp.result_type(*jax.tree.leaves(energy))
    path = jnp.append(0, jnp.asarray(betas, dtype))[::-1]
    log_weights = _log_weights(energy, path, jnp.asarray(samples, dtype), key, kernel)
    ratio, error, ess = _log_mean(log_weights)
    return Estimate(energy.n_spins * jnp.log(2).astype(dtype) - ratio, error, ess)


def _log_weights(energy, path, spins, key, kernel):
    """Weights of chains along a path of inverse temperatures, from samples at its first."""
    init_key, key = jax.random.split(key)
    keys = jax.random.split(init_key, len(spins))
    states = jax.vmap(kernel.init, in_axes=(None, 0, None, 0))(energy, spins, path[0], keys)
    move = jax.vmap(kernel.step, in_axes=(None, 0, None, 0))

    def rung(carry, inputs):
        states, log_weights = carry
        beta, change, key = inputs
        log_weights -= change * jax.vmap(energy)(jax.vmap(kernel.spins)(states))
        return (move(energy, states, beta, jax.random.split(key, len(spins))), log_weights), None

    inputs = path[1:], jnp.diff(path), jax.random.split(key, len(path) - 1)
    (_, log_weights), _ = jax.lax.scan(rung, (states, jnp.zeros(len(spins), path.dtype)), inputs)
    return log_weights


def _log_mean(log_weights):
    """`ln <w>`, its standard error (delta method), and the effective sample size."""
    n = len(log_weights)
    total = jax.nn.logsumexp(log_weights)
    ess = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weights))
    error = jnp.sqrt(jnp.maximum(n / ess - 1, 0) / max(n - 1, 1))
    return total - jnp.log(n).astype(total.dtype), error, ess
