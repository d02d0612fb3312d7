"""Derivatives of a root by the implicit function theorem."""

from collections.abc import Callable

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float


class DenseImplicitAdjoint(optx.AbstractAdjoint):
    """`d theta = -(dr/dtheta)^-1 dr` at a root of `r(theta, args)`, by one dense solve.

    What `optimistix.ImplicitAdjoint` does, and under `jax.shard_map` and `jax.pmap` too: there
    functions that equinox has closed over take no other arguments than those that they were
    closed at, and derivatives come with others.

    Attributes:
        residual: r, a function without arrays of its own.
    """

    residual: Callable[..., Float[Array, " n"]] = eqx.field(static=True)

    def apply(self, primal_fn, rewrite_fn, inputs, tags):
        _, solver, start, args, *rest = inputs
        theta, others = _root(self.residual, primal_fn, (solver, start, rest), args)
        return theta, jax.tree.map(eqxi.nondifferentiable_backward, others)


@eqx.filter_custom_jvp
def _root(residual, primal_fn, inputs, args):
    solver, start, rest = inputs

    def with_aux(theta, args):
        return residual(theta, args), None

    def loop(*arguments, **options):
        return eqxi.while_loop(*arguments, kind="lax", **options)

    found = primal_fn((with_aux, solver, start, args, *rest, loop))
    return jax.tree.map(jnp.asarray, found)


@_root.def_jvp
def _(primals, tangents):
    residual, _, _, args = primals
    moves = tangents[3]
    theta, others = _root(*primals)
    is_still = jax.tree.map(lambda t: t is None, moves, is_leaf=lambda t: t is None)
    still, moving = eqx.partition(args, is_still)
    _, change = jax.jvp(lambda x: residual(theta, eqx.combine(x, still)), (moving,), (moves,))
    theta_dot = -jnp.linalg.solve(jax.jacfwd(residual)(theta, args), change)
    return (theta, others), (theta_dot, jax.tree.map(lambda _: None, others))
