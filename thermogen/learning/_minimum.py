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

_Linear = Callable[[PyTree], PyTree]


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
    NaN where `is_known` is False, or these steps end nowhere, or come by points at which the
    gradient is more than twice its least so far, or conjugate gradients meet negative curvature. At
    the end they look for it from random numbers.
    """
    return energy


@minimum.def_jvp
def _(primals, tangents):
    loss, kinked, is_known, energy = primals
    known = constant(primals)
    guess = curvature_guess(known[3], known[0].samples)
    found, free, is_found = _polished(known[0], known[1], known[3], guess)
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
    move = _newton_step(loss, kinked, found, free, change, guess, _eps(energy) ** (2 / 3))
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
    loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree, guess: _Linear
) -> tuple[PyTree, PyTree, Bool[Array, ""]]:
    """A minimum nearby, which of its entries are free to move, and whether it is one."""
    # After a step of this length another one is about its square: so large is the error.
    enough = _eps(energy) ** (1 / 3)

    def step(carry):
        old, _, allowed, count = carry
        start, free = _on_support(loss, kinked, old)
        slope = _masked(_slope(loss, kinked)(start), free)
        steepness = optax.tree.norm(slope, ord=jnp.inf)
        move = _newton_step(loss, kinked, start, free, slope, guess, _eps(energy) ** (1 / 4))
        new = jax.tree.map(jnp.subtract, start, move)
        # A minimum to which the way is steep is another one than that of the fit.
        length = jnp.where(steepness <= allowed, _distance(new, old), jnp.nan)
        return new, length, jnp.minimum(allowed, 2 * steepness), count + 1

    def going(carry):
        _, length, _, count = carry
        return (length > enough) & (count < _MAX_NEWTON_STEPS)

    most = jnp.full((), jnp.inf, jnp.result_type(*jax.tree.leaves(energy)))
    found, length, *_ = jax.lax.while_loop(going, step, (energy, most, most, jnp.zeros((), int)))
    found, free = _on_support(loss, kinked, found)
    rest = _distance(_proximal(loss, kinked, found), found)
    is_found = (length <= enough) & (rest <= enough)
    return found, free, is_found & _bends_up(loss, kinked, found, free, guess)


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
    guess: _Linear,
    tolerance: float,
) -> PyTree:
    """`H^-1 slope` among the free entries; NaN where conjugate gradients do not get there."""
    # Rounding keeps the rest from falling further.
    enough = 10 * max(tolerance, _eps(energy) ** (1 / 2))
    # One vector, for JAX transposes no solve of which a part does not move.
    vector, tree = ravel_pytree(slope)
    push, precondition = _among_free(loss, kinked, energy, free, guess)

    def solve(product, vector):
        found, bends_up = _conjugate_gradients(product, vector, precondition, tolerance)
        rest = jnp.linalg.norm(vector - product(found))
        is_solved = bends_up & (rest <= enough * jnp.linalg.norm(vector))
        return jnp.where(is_solved, found, jnp.nan)

    found = jax.lax.custom_linear_solve(push, vector, solve, symmetric=True)
    return _masked(tree(found), free)


def _bends_up(
    loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree, free: PyTree, guess: _Linear
) -> Bool[Array, ""]:
    """Whether conjugate gradients from random numbers meet no negative curvature.

    Those from slopes need not meet it, for at a saddle with a symmetry, such as an RBM without
    weights, slopes have no part along it.
    """
    push, precondition = _among_free(loss, kinked, energy, free, guess)
    start = ravel_pytree(energy)[0]
    anywhere = jax.random.normal(jax.random.key(0), start.shape, start.dtype)
    # In the range of H, for there is no solution elsewhere.
    vector = push(precondition(anywhere))
    return _conjugate_gradients(push, vector, precondition, _eps(energy) ** (1 / 4))[1]


def _among_free(
    loss: FullLoss, kinked: AbstractProximal | None, energy: PyTree, free: PyTree, guess: _Linear
) -> tuple[_Linear, _Linear]:
    """Products of one vector with H and with the guess of its inverse, among the free entries."""
    _, tree = ravel_pytree(energy)

    def among_free(function):
        return lambda x: ravel_pytree(_masked(function(_masked(tree(x), free)), free))[0]

    push = jax.linearize(_slope(loss, kinked), energy)[1]
    return among_free(push), among_free(guess)


def _conjugate_gradients(
    product: _Linear, vector: Float[Array, " k"], precondition: _Linear, tolerance: float
) -> tuple[Float[Array, " k"], Bool[Array, ""]]:
    """`H^-1 vector`, and whether no direction on the way has negative curvature, up to rounding.

    The rest is a polynomial in H times the vector, which is 1 at zero. While all directions have
    positive curvature its roots are positive, so that it is above 1 at negative eigenvalues: the
    vector's part along these never gets smaller, and keeps the rest from the tolerance.
    """
    rounding = float(jnp.finfo(vector.dtype).eps) ** 0.5
    enough = tolerance * jnp.linalg.norm(vector)

    def step(carry):
        found, rest, direction, weight, largest, _, count = carry
        pushed = product(direction)
        curvature = jnp.vdot(direction, pushed)
        relative = curvature / jnp.vdot(direction, direction)
        largest = jnp.maximum(largest, jnp.abs(relative))
        length = weight / curvature
        found, rest = found + length * direction, rest - length * pushed
        downhill = precondition(rest)
        new = jnp.vdot(rest, downhill)
        direction = downhill + new / weight * direction
        return found, rest, direction, new, largest, relative >= -rounding * largest, count + 1

    def going(carry):
        _, rest, _, _, _, bends_up, count = carry
        return bends_up & (jnp.linalg.norm(rest) > enough) & (count < 10 * vector.size)

    first = precondition(vector)
    zero, true = jnp.zeros((), vector.dtype), jnp.ones((), bool)
    start = (jnp.zeros_like(vector), vector, first, jnp.vdot(vector, first), zero, true, 0)
    found, _, _, _, _, bends_up, _ = jax.lax.while_loop(going, step, start)
    return found, bends_up


def _masked(tree: PyTree, free: PyTree) -> PyTree:
    return jax.tree.map(lambda x, f: jnp.where(f, x, 0), tree, free)


def _scaled(factor: Float[Array, ""], tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), tree)


def _distance(a: PyTree, b: PyTree) -> Float[Array, ""]:
    return optax.tree.norm(jax.tree.map(jnp.subtract, a, b), ord=jnp.inf)


def _eps(energy: PyTree) -> float:
    return float(jnp.finfo(jnp.result_type(*jax.tree.leaves(energy))).eps)
