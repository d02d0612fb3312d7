"""Along flat valleys of G, where Newton steps do not settle."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._compile import compiled_quickly
from .._linalg import dot
from ..meanfield import Problem, scaled_hessian, variance_at
from ._newton import ATOL

# Steps along flat valleys, the curvature as which any smaller one counts in them, and the length
# below which they are at rest. Directions of a larger curvature than `_WALL` lead across.
_SLIDES, _FLAT, _SETTLED, _WALL = 128, 1e-12, 1e-7, 1e-5
# Newton steps from halfway between two points to the floor of the valley that holds both.
_MIDWAY_STEPS = 6
# A spin of smaller sqrt(1 - m^2) is saturated.
SATURATED = 1e-8


@compiled_quickly
def slide(problem: Problem, theta: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """Descend where G is nearly flat: Newton steps by the sizes of all curvatures.

    So they lead down where G is concave as well (Dauphin et al. 2014). Each ends on the floor of
    the valley, which may be curved, before that G falls is judged as in `MirrorDescent`. Their
    length, in the angles arcsin m, adapts.
    """

    def step(state):
        theta, force, hessian, most, _, n_looks = state
        root = jnp.sqrt(variance_at(theta))
        values, vectors = jnp.linalg.eigh(hessian)
        turn = dot(vectors, dot(root * force, vectors) / jnp.maximum(jnp.abs(values), _FLAT))
        length = jnp.linalg.norm(turn)
        turn = _shortened(turn, most)
        trial = theta - turn / jnp.maximum(root, SATURATED)
        # What leads back to the floor is shorter than the step.
        most_back = jnp.minimum(most, length)
        trial = jax.lax.fori_loop(
            0, 2, lambda _, x: _across(problem, x, values, vectors, most_back), trial
        )
        length = jnp.where(n_looks == 0, jnp.inf, length)
        taylor = problem.taylor(trial)
        new = problem.beta * taylor.gradient
        shift = jnp.tanh(trial) - jnp.tanh(theta)
        rounding = jnp.finfo(theta.dtype).eps * (jnp.abs(theta) + jnp.abs(trial)) * jnp.abs(shift)
        falls = jnp.sum((force + new) * shift - rounding) <= 0
        most = jnp.where(falls, 2, 0.25) * jnp.minimum(most, length)
        theta, force, hessian = jax.tree.map(
            lambda new, kept: jnp.where(falls, new, kept),
            (trial, new, scaled_hessian(taylor, trial, problem.beta)),
            (theta, force, hessian),
        )
        return theta, force, hessian, most, length, n_looks + 1

    def unfinished(state):
        _, force, _, _, length, n_looks = state
        settled = (jnp.max(jnp.abs(force)) <= ATOL) & (length <= _SETTLED)
        return ~settled & (n_looks <= _SLIDES)

    def single(row):
        # The first trial is the start: without force and walls no step leads away from it.
        none, half = jnp.zeros((row.size, row.size), row.dtype), jnp.full((), 0.5, row.dtype)
        state = row, jnp.zeros_like(row), none, half, jnp.inf * half, 0
        return jax.lax.while_loop(unfinished, step, state)[0]

    return jax.vmap(single)(theta)


def _across(problem: Problem, theta: Array, values: Array, vectors: Array, most: Array) -> Array:
    """A Newton step across a flat valley, by eigenvalues and vectors of the scaled Hessian."""
    root = jnp.sqrt(variance_at(theta))
    wall = jnp.where(values > _WALL, values, jnp.inf)
    turn = dot(vectors, dot(root * problem.residual(theta), vectors) / wall)
    return theta - _shortened(turn, most) / jnp.maximum(root, SATURATED)


def _shortened(turn: Array, most: Array) -> Array:
    return turn * jnp.minimum(1, most / jnp.maximum(jnp.linalg.norm(turn), SATURATED))


@compiled_quickly
def between(problem: Problem, pairs: Float[Array, "batch 2 n"]):
    """Points on the floor of a flat valley midway between two: fields and G, `(batch,)`."""

    def single(pair):
        def step(_, theta):
            values, vectors = jnp.linalg.eigh(problem.scaled_hessian(theta))
            return _across(problem, theta, values, vectors, jnp.ones_like(theta[0]))

        middle = jnp.arctanh(jnp.mean(jnp.tanh(pair), axis=0))
        theta = jax.lax.fori_loop(0, _MIDWAY_STEPS, step, middle)
        return theta, problem.free_energy_at(theta)

    return jax.vmap(single)(pairs)
