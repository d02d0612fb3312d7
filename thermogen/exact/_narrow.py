"""Ensembles of models whose graph of interactions is narrow: by elimination, for any size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._cold import beta_as, resolved_beta
from .._types import Beta, Key
from ._cost import Narrow
from ._cut import Numbers, drawn, log_sum, lowest_of, n_at_once


class _Point(NamedTuple):
    """A model at one beta, in a unit of energy of T, or of 1 where it is hot.

    So sums of integer couplings stay exact in the cold, and nothing is divided by a small beta.
    The unit itself drops out of all results: no derivative runs through it.
    """

    beta: Float[Array, ""]
    tau: Float[Array, ""]
    couplings: Float[Array, " terms"]
    fields: Float[Array, " n"]


def _at(model: Narrow, beta: Beta) -> _Point:
    beta = resolved_beta(model.energy, beta_as(beta, model.fields.dtype))
    tau = 1 / jax.lax.stop_gradient(jnp.maximum(jnp.abs(beta), 1))
    scale = beta * tau
    return _Point(beta, tau, scale * model.couplings, scale * model.fields)


def _log_sum(model: Narrow, couplings, fields, tau, pins=None) -> Float[Array, ""]:
    """`tau ln sum_s exp(...)`: means are its derivatives."""
    pins = model.pins if pins is None else pins
    return log_sum(model.plan, Numbers(couplings, fields, pins), tau)


def _one_program(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function compiled as a whole, for models of one graph and any beta."""
    compiled = eqx.filter_jit(function)

    @functools.wraps(function)
    def call(model: Narrow, beta: Beta, *static: Any) -> Array:
        return compiled(model, beta_as(beta, model.fields.dtype), *static)

    return call


def _log_free(model: Narrow) -> float | Float[Array, ""]:
    """ln of the configurations of clamped spins, both of whose values count alike."""
    return 0.0 if model.pins is None else jnp.log(2.0) * jnp.sum(jnp.abs(model.pins))


@_one_program
def log_partition(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    value = _log_sum(model, point.couplings, point.fields, point.tau) / point.tau
    value += _log_free(model) - point.beta * model.constant
    # Beyond the largest beta that is resolved the free energy does not change.
    colder = beta_as(beta, value.dtype) / jnp.where(point.beta == 0, 1, point.beta)
    return value * jnp.maximum(colder, 1)


@_one_program
def free_energy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    value = _log_sum(model, point.couplings, point.fields, point.tau) / point.tau
    return model.constant - (value + _log_free(model)) / point.beta


@_one_program
def mean_energy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    point = _at(model, beta)
    return model.constant - _slope(model, point, (model.couplings, model.fields), 0.0)


@_one_program
def heat_capacity(model: Narrow, beta: Beta) -> Float[Array, ""]:
    """In units of T the variance of the energy, which neither overflows nor cancels in the cold."""
    point = _at(model, beta)
    slope = functools.partial(_slope, model, point, (point.couplings, point.fields))
    zero = jnp.zeros((), point.tau.dtype)
    return jax.jvp(slope, (zero,), (zero + 1,))[1] / point.tau


def _slope(
    model: Narrow, point: _Point, direction: tuple[Array, Array], more: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Derivative by couplings and fields along a direction, of which `more` has been added."""

    def value(couplings, fields):
        return _log_sum(model, couplings, fields, point.tau)

    added = (point.couplings + more * direction[0], point.fields + more * direction[1])
    return jax.jvp(value, added, direction)[1]


@_one_program
def entropy(model: Narrow, beta: Beta) -> Float[Array, ""]:
    """The derivative by temperature: a sum of entropies of single spins, of which none cancels."""
    point = _at(model, beta)

    def value(tau):
        return _log_sum(model, point.couplings, point.fields, tau)

    return jax.jvp(value, (point.tau,), (jnp.ones_like(point.tau),))[1] + _log_free(model)


@_one_program
def magnetizations(model: Narrow, beta: Beta) -> Float[Array, " n"]:
    point = _at(model, beta)
    return _free(model, _means(model, point, point.fields))


def _means(model: Narrow, point: _Point, fields: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.grad(lambda h: _log_sum(model, point.couplings, h, point.tau))(fields)


@_one_program
def correlations(model: Narrow, beta: Beta) -> Float[Array, "n n"]:
    """Means and their response to each field, some fields at a time."""
    point = _at(model, beta)
    means, n = functools.partial(_means, model, point), model.fields.size

    def response(k):
        direction = jax.nn.one_hot(k, n, dtype=model.fields.dtype)
        return jax.jvp(means, (point.fields,), (direction,))

    # Equal batches: a smaller last one would be a program of its own.
    batch = _n_at_once(model, n)
    spins = jnp.arange(-(-n // batch) * batch).reshape(-1, batch)
    m, responses = jax.lax.map(jax.vmap(response), spins)
    m, responses = m[0, 0], responses.reshape(-1, n)[:n]
    covariance = 0.5 * point.tau * (responses + responses.T)
    pairs = _free(model, _free(model, covariance + m[:, None] * m[None, :]).T)
    return jnp.where(jnp.eye(n, dtype=bool), 1, pairs)


def _free(model: Narrow, means: Float[Array, "*rows n"]) -> Float[Array, "*rows n"]:
    """Means of an energy that does not depend on its clamped spins."""
    if model.pins is None:
        return means
    pinned = jnp.broadcast_to(model.pins != 0, means.shape)
    return jnp.where(pinned, 0, means)


@_one_program
def marginal(model: Narrow, beta: Beta, spins: tuple[int, ...]) -> Float[Array, " marginal"]:
    """One sum for each configuration of the chosen spins."""
    point, chosen = _at(model, beta), np.array(spins, int)
    known = jnp.zeros_like(point.fields) if model.pins is None else model.pins

    def log_weight(index):
        values = 2 * (index >> np.arange(chosen.size) & 1) - 1
        pins = known.at[chosen].set(values.astype(known.dtype))
        pins = jnp.where(known == 0, pins, known)
        return _log_sum(model, point.couplings, point.fields, point.tau, pins) / point.tau

    # The number of configurations and of those at once are powers of two.
    indices = jnp.arange(2**chosen.size).reshape(-1, _n_at_once(model, 2**chosen.size))
    return jax.nn.softmax(jax.lax.map(jax.vmap(log_weight), indices).ravel())


def _n_at_once(model: Narrow, most: int) -> int:
    return n_at_once(model.plan.width + model.plan.cut.size, most)


@_one_program
def sample(model: Narrow, beta: Beta, key: Key, n_samples: int) -> Float[Array, "samples n"]:
    """Spin by spin back through the elimination; a clamped spin has any value in its energy."""
    point = _at(model, beta)
    key, free_key = jax.random.split(key)
    numbers = Numbers(point.couplings, point.fields, model.pins)
    spins = drawn(model.plan, numbers, point.tau, key, n_samples)
    if model.pins is None:
        return spins
    free = jax.random.rademacher(free_key, spins.shape, spins.dtype)
    return jnp.where(jnp.broadcast_to(model.pins == 0, spins.shape), spins, free)


@eqx.filter_jit
def lowest(model: Narrow, n_states: int) -> tuple[Bool[Array, " states"], Float[Array, "states n"]]:
    """Which of so many configurations exist, and they, the lowest first."""
    numbers = Numbers(model.couplings, model.fields, model.pins)
    return lowest_of(model.plan, numbers, model.energy, n_states)
