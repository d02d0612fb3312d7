"""The lowest curvature of many minima: conjugate gradients on the Rayleigh quotient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._batches import cast, in_batches
from .._compile import compiled_quickly
from .._linalg import dot
from ..meanfield import Problem, lowest_curvature, variance_at
from ._lanczos import is_factorised

_MAX_STEPS, _MAX_STEPS_OF_MANY = 256, 8192
# Relative error of the eigenvalue.
_TOLERANCE = 1e-9


def lowest_curvatures(
    problem: Problem, fields: Float[np.ndarray, "batch n"]
) -> Float[np.ndarray, " batch"]:
    """Lowest eigenvalue of `d^2 G/dm dm` at each of many minima m = tanh(fields), energy units.

    Needs products with the Hessian alone (Bradbury and Fletcher 1966), preconditioned by the
    variances; where it does not settle, dense eigenvalues decide. Of very many spins it goes
    on for longer, and is NaN where it does not settle. To be called with float64.
    """
    values, _, settled = in_batches(_kernel(problem, _MAX_STEPS), fields, 256)
    rest = np.flatnonzero(~settled)
    if rest.size and is_factorised(fields.shape[1]):
        values[rest] = in_batches(functools.partial(_dense, problem), fields[rest], 32)
    elif rest.size:
        # Somewhere among so many spins there are modes nearly as low as the lowest.
        more, _, settled = in_batches(_kernel(problem, _MAX_STEPS_OF_MANY), fields[rest], 256)
        values[rest] = np.where(settled, more, np.nan)
    return values


def lowest_modes(
    problem: Problem, fields: Float[np.ndarray, "batch n"]
) -> Float[np.ndarray, "batch n"]:
    """Unit vectors along which `d^2 G/dm dm` is lowest, as far as the iteration comes."""
    return in_batches(_kernel(problem, _MAX_STEPS), fields, 256)[1]


def _kernel(problem: Problem, n_steps: int):
    return functools.partial(_by_gradients, problem, jnp.asarray(n_steps))


@compiled_quickly
def _dense(problem: Problem, fields: Float[Array, "batch n"]) -> Float[Array, " batch"]:

    def single(theta):
        hessian = problem.scaled_hessian(theta)
        return lowest_curvature(hessian, theta, problem.beta)

    return jax.vmap(single)(fields)


@compiled_quickly
def _by_gradients(problem: Problem, n_steps: Int[Array, ""], fields: Float[Array, "batch n"]):
    def single(theta):
        """The vector in float32: what it lacks counts squared in the value."""
        variance = _variance(theta, problem.beta)
        problem_32, theta_32, variance_32 = cast((problem, theta, variance), jnp.float32)
        x = _lowest(problem_32, theta_32, variance_32, n_steps).astype(theta.dtype)
        x = x / jnp.linalg.norm(x)
        gx = _product(problem, theta, variance, x)
        value = dot(x, gx)
        return value, x, _is_settled(value, gx - value * x, variance, 4 * _TOLERANCE)

    return jax.vmap(single)(fields)


def _product(problem: Problem, theta: Array, variance: Array, x: Array) -> Array:
    """The Hessian `d^2 G/dm dm` times a vector; all of shape (n,)."""
    excess_gradient = jax.grad(lambda m: problem.functional.excess(problem.energy, problem.beta, m))
    return x / variance + jax.jvp(excess_gradient, (jnp.tanh(theta),), (x,))[1]


def _variance(theta: Float[Array, " n"], beta: Array) -> Float[Array, " n"]:
    # A saturated spin is as good as clamped: no eigenvector of low curvature moves it.
    return jnp.maximum(beta * variance_at(theta), 1e-12)


def _is_settled(value: Array, residual: Array, variance: Array, tolerance: float) -> Array:
    """Whether the error of the eigenvalue, to second order, is within the tolerance."""
    return dot(residual, variance * residual) <= tolerance * jnp.abs(value)


def _lowest(
    problem: Problem, theta: Array, variance: Array, most: Int[Array, ""]
) -> Float[Array, " n"]:
    """Eigenvector of the lowest eigenvalue of the Hessian, as far as the iteration comes."""

    start = jnp.sqrt(variance) * jnp.cos(1 + jnp.sqrt(2.0) * jnp.arange(theta.size) ** 2)
    start = (start / jnp.linalg.norm(start)).astype(theta.dtype)

    def step(state):
        x, gx, p, last, power, n_steps, _ = state
        # The first step goes all the way to the start: the functional is compiled at one place.
        first = n_steps == 0
        value = dot(x, gx)
        residual = gx - value * x
        downhill = variance * residual
        downhill = downhill - dot(x, downhill) * x
        turn = dot(downhill, residual - last) / power
        p = -downhill + jnp.maximum(turn, 0) * p
        p = p - dot(x, p) * x
        unit = jnp.where(first, start, p / (jnp.linalg.norm(p) + jnp.finfo(p.dtype).tiny))
        gp = _product(problem, theta, variance, unit)
        # The lower eigenvector of the Hessian within the plane of x and p.
        angle = 0.5 * jnp.arctan2(-2 * dot(x, gp), dot(unit, gp) - value)
        angle = jnp.where(first, 0.5 * np.pi, angle)
        x, gx = (jnp.cos(angle) * a + jnp.sin(angle) * b for a, b in ((x, unit), (gx, gp)))
        settled = ~first & _is_settled(value, residual, variance, _TOLERANCE)
        power = jnp.where(first, jnp.inf, dot(downhill, residual))
        return x, gx, p, residual, power, n_steps + 1, settled

    none = jnp.zeros_like(start)
    infinite = jnp.full((), jnp.inf, start.dtype)
    state = (none, none, none, none, infinite, jnp.array(0), jnp.array(False))
    return jax.lax.while_loop(lambda s: ~s[6] & (s[5] <= most), step, state)[0]
