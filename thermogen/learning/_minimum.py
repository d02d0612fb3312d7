"""The minimum of a loss as a function of all other numbers of that loss."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .._types import Key
from ..energies import constrain, parameter_degrees
from ._objectives import AbstractObjective
from ._penalties import AbstractPenalty, AbstractProximal
from ._samples import Samples
from ._whitened import curvature_guess

_MAX_NEWTON_STEPS = 8


class FullLoss(eqx.Module):
    """An objective and a penalty without kinks, as a function of the parameters.

    Attributes:
        objective: the objective.
        penalty: a penalty that is a term of the loss, or None.
        samples: data, or a batch of them.
        carried: state that the objective has carried on so far.
        key: random key of the loss.
    """

    objective: AbstractObjective
    penalty: AbstractPenalty | None
    samples: Samples
    carried: PyTree
    key: Key

    def __call__(self, energy: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """The loss, and what the objective carries on."""
        allowed = constrain(energy)
        value, carried = self.objective.loss(allowed, self.samples, self.carried, self.key)
        if self.penalty is not None:
            value += self.penalty(allowed)
        return value, carried


def constant(tree: PyTree) -> PyTree:
    """A tree without derivatives; numbers that are no arrays, such as counts, as they are."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


@eqx.filter_custom_jvp
def minimum(
    loss: FullLoss, kinked: AbstractProximal | None, is_known: Bool[Array, ""], energy: PyTree
) -> PyTree:
    """A known minimum of a loss and of a penalty with kinks, with its derivatives by both.

    At a minimum the gradient g vanishes, so that `d energy = -H^-1 dg` with the Hessian H, by
    conjugate gradients on products with H. From zero they never leave the range of H, so that
    directions in which the loss is flat do not move. Backwards, what does not vanish along them
    has NaN, for the loss does not determine it. With kinks only what the penalty leaves free
    moves, as at the minimum of the smooth problem on this support (Bertrand et al., JMLR 23, 149
    (2022)).

    Where derivatives are asked for, Newton steps lead to the minimum first. All derivatives are
    NaN where `is_known` is False, or these steps find no minimum nearby.
    """
    return energy


@minimum.def_jvp
def _(primals, tangents):
    loss, kinked, is_known, energy = primals
    known = constant(primals)
    found, free, is_found = _polished(known[0], known[1], known[3])
    is_found &= known[2]
    found = jax.tree.map(lambda a, b: jnp.where(is_found, a, b), found, known[3])
    found = minimum(loss, kinked, is_known, found)
    # At both ends: what a loss does not look at is not known either.
    factor = jnp.where(is_found, 1.0, jnp.nan)
    moves = _scaled(factor, tangents[:2])
    is_still = jax.tree.map(lambda t: t is None, moves, is_leaf=lambda t: t is None)
    still, moving = eqx.partition((loss, kinked), is_still)

    def slope(moving):
        return _masked(_slope(*eqx.combine(moving, still))(found), free)

    _, change = jax.jvp(slope, (moving,), (moves,))
    move = _newton_step(loss, kinked, found, free, change, _eps(energy) ** (2 / 3))
    return found, _scaled(-factor, move)


@eqx.filter_custom_jvp
def refusing_derivatives(numbers: PyTree, learned: PyTree) -> PyTree:
    """What stochastic steps came to, which is a minimum of nothing."""
    return learned


@refusing_derivatives.def_jvp
def _(primals, tangents):
    if jax.tree.leaves(tangents[0]):
        raise ValueError(
            "fit has derivatives at the minimum of a deterministic objective of all data alone: "
            "leave batch_size out and take one such as Pseudolikelihood(), or hold what it learns "
            "constant by jax.lax.stop_gradient of its arguments"
        )
    still = jax.tree.map(lambda x: None, primals[1])
    return primals[1], still


@eqx.filter_custom_jvp
def without_derivatives(numbers: PyTree, record: PyTree) -> PyTree:
    """What depends on the steps that were taken: derivatives by all numbers are NaN."""
    return record


@without_derivatives.def_jvp
def _(primals, tangents):
    moves = sum(jnp.sum(t) for t in jax.tree.leaves(tangents[0]))
    _, record = primals
    return record, jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) * moves if eqx.is_inexact_array(x) else None, record
    )


def _polished(
    loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree
) -> tuple[PyTree, PyTree, Bool[Array, ""]]:
    """A minimum nearby, which of its entries are free to move, and whether it is one."""
    # After a step of this length another one is about its square: so large is the error.
    enough = _eps(energy) ** (1 / 3)

    def step(carry):
        old, _, count = carry
        start, free = _on_support(loss, kinked, old)
        slope = _masked(_slope(loss, kinked)(start), free)
        move = _newton_step(loss, kinked, start, free, slope, _eps(energy) ** (1 / 4))
        new = jax.tree.map(jnp.subtract, start, move)
        return new, _distance(new, old), count + 1

    def going(carry):
        _, length, count = carry
        return (length > enough) & (count < _MAX_NEWTON_STEPS)

    most = jnp.full((), jnp.inf, jnp.result_type(*jax.tree.leaves(energy)))
    found, length, _ = jax.lax.while_loop(going, step, (energy, most, jnp.zeros((), int)))
    found, free = _on_support(loss, kinked, found)
    rest = _distance(_proximal(loss, kinked, found), found)
    return found, free, (length <= enough) & (rest <= enough)


def _slope(loss: FullLoss, kinked: AbstractProximal | None) -> Callable[[PyTree], PyTree]:
    """The gradient of all; that of a penalty with kinks is right on its support."""

    def whole(energy):
        value, _ = loss(energy)
        return value if kinked is None else value + kinked(constrain(energy))

    return jax.grad(whole)


def _proximal(loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree) -> PyTree:
    """Where a proximal step of length 1 leads to: at a minimum nowhere else."""
    downhill = jax.tree.map(jnp.subtract, energy, _slope(loss, None)(energy))
    return _shrunk(kinked, downhill)


def _shrunk(kinked: AbstractProximal | None, energy: PyTree) -> PyTree:
    one = jnp.ones((), jnp.result_type(*jax.tree.leaves(energy)))
    return energy if kinked is None else kinked.shrink(energy, one)


def _on_support(
    loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree
) -> tuple[PyTree, PyTree]:
    """The parameters without those that a penalty holds at zero, and which are free to move.

    Free is what a proximal step does not send to zero, or the penalty never does. A constant of
    the energy changes no distribution and stays as it is.
    """
    varies = jax.tree.map(lambda d: jnp.asarray(d) > 0, parameter_degrees(energy))
    if kinked is None:
        return energy, varies
    reached = _proximal(loss, kinked, energy)
    up, down = (
        _shrunk(kinked, jax.tree.map(lambda x, s=sign: jnp.full_like(x, s * _eps(energy)), energy))
        for sign in (1, -1)
    )
    kept = jax.tree.map(lambda r, u, d: (r != 0) | ((u != 0) & (d != 0)), reached, up, down)
    # What enters needs its sign, by which the penalty pulls.
    entered = jax.tree.map(lambda x, r: jnp.where(x == 0, r, x), energy, reached)
    return _masked(entered, kept), jax.tree.map(jnp.logical_and, kept, varies)


def _newton_step(
    loss: FullLoss,
    kinked: AbstractProximal | None,
    energy: PyTree,
    free: PyTree,
    slope: PyTree,
    tolerance: float,
) -> PyTree:
    """`H^-1 slope` among the free entries; NaN where conjugate gradients do not get there."""
    push = jax.linearize(_slope(loss, kinked), energy)[1]
    guess = curvature_guess(energy, loss.samples)
    # Rounding keeps the rest from falling further.
    enough = 10 * max(tolerance, _eps(energy) ** (1 / 2))
    # One vector, for JAX transposes no solve of which a part does not move.
    vector, tree = ravel_pytree(slope)

    def among_free(function):
        return lambda x: ravel_pytree(_masked(function(_masked(tree(x), free)), free))[0]

    def solve(product, vector):
        preconditioner = among_free(guess)
        found, _ = jax.scipy.sparse.linalg.cg(product, vector, tol=tolerance, M=preconditioner)
        rest = jnp.linalg.norm(vector - product(found))
        return jnp.where(rest <= enough * jnp.linalg.norm(vector), found, jnp.nan)

    found = jax.lax.custom_linear_solve(among_free(push), vector, solve, symmetric=True)
    return _masked(tree(found), free)


def _masked(tree: PyTree, free: PyTree) -> PyTree:
    return jax.tree.map(lambda x, f: jnp.where(f, x, 0), tree, free)


def _scaled(factor: Float[Array, ""], tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), tree)


def _distance(a: PyTree, b: PyTree) -> Float[Array, ""]:
    return optax.tree.norm(jax.tree.map(jnp.subtract, a, b), ord=jnp.inf)


def _eps(energy: PyTree) -> float:
    return float(jnp.finfo(jnp.result_type(*jax.tree.leaves(energy))).eps)
