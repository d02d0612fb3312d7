"""Derivatives of a root by the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._linalg import dot, inverse
from .._types import Magnetizations


@eqx.filter_custom_jvp
def implicit_root(
    residual: Callable[..., Magnetizations],
    theta: Magnetizations,
    args: Any,
    steepness: Float[Array, ""],
) -> Magnetizations:
    """A known root theta of `residual(theta, args)`, with its derivatives by `args`.

    `d theta = -(dr/dtheta)^-1 dr` by one dense inverse, to any order: what
    `optimistix.ImplicitAdjoint` does, and under `jax.shard_map` and `jax.pmap` too. There
    functions that equinox has closed over take no other arguments than those that they were
    closed at, and derivatives come with others. The changes of the arguments and that of theta
    are each multiplied by `steepness`: one that is huge makes derivatives infinite at their end,
    and not in between, where zeros beside them would become NaN.
    """
    return theta


@implicit_root.def_jvp
def _(primals, tangents):
    residual, _, args, steepness = primals
    moves = jax.tree.map(lambda t: t * steepness.astype(t.dtype), tangents[2])
    theta = implicit_root(*primals)
    is_still = jax.tree.map(lambda t: t is None, moves, is_leaf=lambda t: t is None)
    still, moving = eqx.partition(args, is_still)

    def at(x, theta):
        return residual(theta, eqx.combine(x, still))

    # Both from one evaluation, which factorises once.
    _, push = jax.linearize(at, moving, theta)
    rest = jax.tree.map(jnp.zeros_like, moving)
    jacobian = jax.vmap(lambda x: push(rest, x), out_axes=1)(jnp.eye(theta.size, dtype=theta.dtype))
    change = push(moves, jnp.zeros_like(theta))
    inverted = inverse(jacobian)
    step = dot(inverted, change)
    # Once more with what the rounding of the inverse left over.
    step += dot(inverted, change - dot(jacobian, step))
    return theta, -steepness * step
