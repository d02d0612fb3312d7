"""The lowest curvature of many minima: conjugate gradients on the Rayleigh quotient."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..meanfield._base import lowest_curvature, scaled_hessian_at, variance_at
from ..meanfield._solve import Problem
from ._batches import in_batches

_MAX_STEPS = 256
# Residual of the eigenvector relative to its eigenvalue, whose error is about its square.
_TOLERANCE = 1e-4


def lowest_curvatures(
    problem: Problem, fields: Float[np.ndarray, "batch n"]
) -> Float[np.ndarray, " batch"]:
    """Lowest eigenvalue of `d^2 G/dm dm` at each of many minima m = tanh(fields), energy units.

    Needs products with the Hessian alone (Bradbury and Fletcher 1966), preconditioned by the
    variances; where it does not settle, dense eigenvalues decide. To be called with float64.
    """
    values, _, settled = in_batches(functools.partial(_by_gradients, problem), fields, 256)
    rest = np.flatnonzero(~settled)
    if rest.size:
        values[rest] = in_batches(functools.partial(_dense, problem), fields[rest], 32)
    return values


@eqx.filter_jit
def _dense(problem: Problem, fields: Float[Array, "batch n"]) -> Float[Array, " batch"]:
    functional, energy, beta = problem

    def single(theta):
        hessian = scaled_hessian_at(functional, energy, theta, beta)
        return lowest_curvature(hessian, theta, beta)

    return jax.vmap(single)(fields)


@eqx.filter_jit
def _by_gradients(problem: Problem, fields: Float[Array, "batch n"]):
    return jax.vmap(functools.partial(_lowest, problem))(fields)


def _lowest(problem: Problem, theta: Float[Array, " n"]):
    """Lowest eigenvalue of the Hessian, its eigenvector, and whether the iteration settled."""
    functional, energy, beta = problem
    # A saturated spin is as good as clamped: no eigenvector of low curvature moves it.
    variance = jnp.maximum(beta * variance_at(theta), 1e-12)
    excess_gradient = jax.grad(lambda m: functional.excess(energy, m, beta))

    def product(x):
        bent = jax.jvp(excess_gradient, (jnp.tanh(theta),), (x,))[1]
        return x / variance + bent

    def step(state):
        x, gx, p, last, power, n_steps, _ = state
        value = jnp.dot(x, gx)
        residual = gx - value * x
        downhill = variance * residual
        downhill = downhill - jnp.dot(x, downhill) * x
        turn = jnp.dot(downhill, residual - last) / power
        p = -downhill + jnp.maximum(turn, 0) * p
        p = p - jnp.dot(x, p) * x
        unit = p / (jnp.linalg.norm(p) + jnp.finfo(p.dtype).tiny)
        gp = product(unit)
        # The lower eigenvector of the Hessian within the plane of x and p.
        angle = 0.5 * jnp.arctan2(-2 * jnp.dot(x, gp), jnp.dot(unit, gp) - value)
        x, gx = (jnp.cos(angle) * a + jnp.sin(angle) * b for a, b in ((x, unit), (gx, gp)))
        settled = jnp.linalg.norm(residual) <= _TOLERANCE * jnp.abs(value)
        return x, gx, p, residual, jnp.dot(downhill, residual), n_steps + 1, settled

    x = jnp.sqrt(variance) * jnp.cos(1 + jnp.sqrt(2.0) * jnp.arange(theta.size) ** 2)
    x = x / jnp.linalg.norm(x)
    infinite = jnp.full((), jnp.inf, x.dtype)
    state = (x, product(x), 0 * x, 0 * x, infinite, jnp.array(0), jnp.array(False))
    x, *_, settled = jax.lax.while_loop(lambda s: ~s[6] & (s[5] < _MAX_STEPS), step, state)
    return jnp.dot(x, product(x)), x, settled
