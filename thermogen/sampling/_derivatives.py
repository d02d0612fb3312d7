"""Means over draws, and derivatives of what was sampled: both by reweighting."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from .._checks import as_array
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta, Spins
from ..energies import AbstractEnergy
from ._base import parameter_dtype


class Expectation(NamedTuple):
    """A mean over draws.

    Attributes:
        value: the mean, a tree like what the observable returns.
        standard_error: its standard error by the spread over independent chains, a tree like
            `value`; infinite where there is one chain alone.
    """

    value: PyTree[Array]
    standard_error: PyTree[Array]


@from_anywhere
def expectation(
    observable: Callable[[Spins], PyTree],
    energy: AbstractEnergy,
    beta: Beta,
    spins: Num[Array | np.ndarray, "chains *draws n"],
    *,
    log_weights: Float[Array | np.ndarray, " chains"] | None = None,
) -> Expectation:
    """The mean of an observable over draws, with derivatives by energy and beta.

    The draws are constants, and their weights are not: `<O> = sum w O / sum w` with
    `w = exp(-(beta E - beta_0 E_0))`, which is 1 at the parameters that they were drawn at
    (reweighting: Ferrenberg and Swendsen 1988). So the derivative of a mean is a covariance,
    `d<O> = <dO> - cov(O, d(beta E))`, and the next one a third cumulant. Each has the noise of as
    many draws: the standard deviation of a covariance is that of the product of the deviations over
    the root of the number of independent draws, and grows with n where E is extensive.

    The derivative of ln Z is the mean of that of -beta E: as an observable it comes with its
    error. Jits and vmaps.

    Args:
        observable: a function of one configuration, shape `(n,)`; any tree of arrays.
        energy: the energy that the draws are of.
        beta: inverse temperature of the draws.
        spins: configurations, shape `(chains, n)` or `(chains, draws, n)`, such as `sample`
            returns; of `population_annealing`, `spins` and the logarithms of `weights`.
        log_weights: logarithms of the weights of the chains, shape `(chains,)`; equal where None.

    Raises:
        ValueError: for arrays of other shapes.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.full(3, 0.1))
        spins = tg.sample(
            tg.Gibbs(), energy, 0.5, key=jax.random.key(0), n_chains=2000, n_sweeps=1, burn_in=20
        )

        def magnetization(energy):
            return tg.sampling.expectation(jnp.mean, energy, 0.5, spins).value

        # By the field, beta times the variance of the sum of spins over n.
        slope = jax.grad(magnetization)(energy).fields.sum()
        assert jnp.isclose(slope, 0.5 * 3 * jnp.var(spins.mean(axis=-1)), rtol=1e-3)
        ```
    """
    spins = as_array("spins", spins)
    n = energy.n_spins
    if spins.ndim not in (2, 3) or spins.shape[-1] != n:
        raise ValueError(f"spins must have shape (chains, {n}) or (chains, draws, {n})")
    if log_weights is None:
        log_weights = jnp.zeros(len(spins), parameter_dtype(energy))
    log_weights = as_array("log_weights", log_weights)
    if log_weights.shape != (len(spins),):
        raise ValueError(f"log_weights must have shape ({len(spins)},), got {log_weights.shape}")
    draws = jnp.asarray(spins, parameter_dtype(energy)).reshape(len(spins), -1, n)
    return _expectation(observable, energy, beta, draws, jnp.asarray(log_weights))


@eqx.filter_jit
def _expectation(
    observable: Callable[[Spins], PyTree],
    energy: AbstractEnergy,
    beta: Beta,
    draws: Float[Array, "chains draws n"],
    log_weights: Float[Array, " chains"],
) -> Expectation:
    chains, flat = len(draws), jax.lax.stop_gradient(draws.reshape(-1, draws.shape[2]))
    logits = jnp.repeat(jax.lax.stop_gradient(log_weights), draws.shape[1])
    weights = jax.nn.softmax(logits + log_shifts(energy, beta, flat))
    values = jax.vmap(observable)(flat)

    def mean(x):
        x = jnp.asarray(x, weights.dtype)
        return dot(weights, x.reshape(len(x), -1)).reshape(x.shape[1:])

    def error(x, average):
        weighed = weights[None] * (x.reshape(len(x), -1).T - average.reshape(-1, 1))
        of_chains = jnp.sum(weighed.reshape(-1, chains, draws.shape[1]), axis=2)
        squares = jnp.sum(jnp.square(of_chains), axis=1)
        # One chain has no spread, and says nothing about its error.
        known = jnp.sqrt(squares * chains / max(chains - 1, 1))
        spread = known if chains > 1 else jnp.full_like(known, jnp.inf)
        return jax.lax.stop_gradient(spread.reshape(average.shape))

    value = jax.tree.map(mean, values)
    return Expectation(value, jax.tree.map(error, values, value))


def log_shifts(
    energy: AbstractEnergy, beta: Beta, spins: Float[Array, "draws n"]
) -> Float[Array, " draws"]:
    """Zeros, whose derivatives are those of `-beta E` of each draw."""
    exponents = -jnp.asarray(beta) * jax.vmap(energy)(spins)
    return exponents - jax.lax.stop_gradient(exponents)


def derived(
    log_partition: Float[Array, ""],
    energy: AbstractEnergy,
    beta: Beta,
    spins: Float[Array, "draws n"],
    log_weights: Float[Array, " draws"],
) -> Float[Array, ""]:
    """A known ln Z with its derivatives of all orders: cumulants over weighted draws of it."""
    known = jax.lax.stop_gradient((log_partition, jax.nn.log_softmax(log_weights), spins))
    log_partition, log_weights, spins = known
    shift = jax.nn.logsumexp(log_weights + log_shifts(energy, beta, spins))
    return log_partition + shift - jax.lax.stop_gradient(shift)
