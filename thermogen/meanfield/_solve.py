"""Minima of a mean-field free energy: descent, polish, verdict, implicit gradients."""

import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .._checks import checked_beta
from .._codes import Codes
from .._linalg import is_positive
from .._placement import from_anywhere
from .._solution import Solution, checked
from .._types import Beta, Magnetizations, Spins
from ..energies import AbstractEnergy
from ._base import (
    AbstractFunctional,
    Problem,
    Taylor,
    checked_point,
    scaled_hessian,
    variance_at,
)
from ._implicit import implicit_root
from ._results import RESULTS
from ._solvers import MirrorDescent, NewtonPolish

# Whatever `optimistix.root_find` accepts.
RootFinder = optx.AbstractRootFinder | optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser

# Effective field at which a start on the faces of the cube, |m| = 1, is placed.
CORNER_FIELD = 4.0


@from_anywhere
def solve(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    init: Spins,
    *,
    solver: RootFinder = MirrorDescent(),
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(),
    tol: float | None = None,
    max_steps: int = 1024,
    throw: bool = True,
) -> Solution:
    """Find the minimum of G(m) whose basin holds `init`.

    The solver descends, Newton steps polish, and the gradient `dG/dm` and the Hessian of the end
    point decide on the result (never `dG/dtheta`, which vanishes at saturation). All of it runs in
    the dtype of the energy: in float32 `converged` means 1e-4, and `thermogen.quench` verifies
    minima in float64. A call takes one start: use `jax.vmap` for many, or `thermogen.quench` for
    very many.

    Args:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        init: start, shape `(n,)`, within [-1, 1]; spins +-1 are welcome.
        solver: any optimistix root finder on `r(theta) = beta dG/dm`, theta = atanh m.
        adjoint: method of derivatives by energy and beta: `optimistix.ImplicitAdjoint()`, or
            `optimistix.RecursiveCheckpointAdjoint()` to differentiate through all the steps.
        tol: largest `|dG/dm|` that counts as converged, in energy units; by default 1e-9 in
            float64 and 1e-4 in float32.
        max_steps: limit on the steps of the solver.
        throw: raise if no minimum was reached, instead of only saying so.

    Returns:
        A `Solution`: `value` is m and `state["fields"]` is theta, both of shape `(n,)`; `stats`
        holds `free_energy` (G at the minimum, precise at saturation; its gradient is that at
        fixed m and costs no linear solve), `residual` (max |dG/dm|) and `n_steps`. The result is
        `marginal` at a bifurcation, where the curvature is 0 as far as can be told; derivatives
        of m are then infinite.

    Raises:
        ValueError: for a beta that is not positive, or an `init` of wrong shape or range.
        TypeError: for what is no functional, such as `TAP` in place of `TAP()`.
        RuntimeError: with `throw`, if no minimum was reached; the message says what to do.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        solution = tg.solve(tg.NaiveMeanField(), energy, 1.0, jnp.ones(3))
        assert solution.result == tg.RESULTS.converged
        assert jnp.allclose(solution.value, jnp.tanh(2 * solution.value), atol=1e-4)
        ```
    """
    theta = starting_field(energy, init)
    return solve_from(
        checked_problem(functional, energy, beta, theta.dtype),
        theta,
        solver=solver,
        adjoint=adjoint,
        tol=tol,
        max_steps=max_steps,
        throw=throw,
    )


def solve_from(
    problem: Problem,
    theta: Magnetizations,
    *,
    solver: RootFinder,
    adjoint: optx.AbstractAdjoint,
    tol: float | None,
    max_steps: int,
    throw: bool,
) -> Solution:
    """`solve` from any effective field."""
    if tol is None:
        tol = 1e-9 if theta.dtype == jnp.float64 else 1e-4
    solution = _solve(problem, theta, solver, adjoint, jnp.asarray(tol, theta.dtype), max_steps)
    return checked(solution, is_minimum(solution.result)) if throw else solution


def is_minimum(result: Codes) -> Bool[Array, "..."]:
    """Whether a code stands for a minimum, marginal ones included."""
    return (result == RESULTS.converged) | (result == RESULTS.marginal)


@eqx.filter_jit
def _solve(
    problem: Problem,
    theta: Magnetizations,
    solver: RootFinder,
    adjoint: optx.AbstractAdjoint,
    tol: Float[Array, ""],
    max_steps: int,
) -> Solution:
    # By the implicit function theorem the end point alone has derivatives, not the way to it.
    implicit = adjoint == optx.ImplicitAdjoint()
    on_the_way = jax.lax.stop_gradient(problem) if implicit else problem
    descent = descend(on_the_way, theta, solver=solver, max_steps=max_steps, adjoint=adjoint)
    polished = polish(on_the_way, descent.value, tol=tol, adjoint=adjoint)
    taylor = polished.aux[1]
    residual, result = judge(problem, polished.value, taylor, tol=tol)
    marginal = result == RESULTS.marginal
    if implicit:
        theta = _implicit(problem, polished.value, marginal)
    else:
        theta = _steep(polished.value, jnp.where(marginal, jnp.inf, 1.0))
    stats = {
        "free_energy": stationary_free_energy(taylor.value, problem, theta),
        "residual": residual,
        "n_steps": descent.stats["num_steps"] + polished.stats["num_steps"],
    }
    return Solution(jnp.tanh(theta), result, {"fields": theta}, stats)


@jax.custom_jvp
def stationary_free_energy(
    value: Float[Array, ""], problem: Problem, theta: Magnetizations
) -> Float[Array, ""]:
    """A known G at a stationary point, whose derivatives need no solve: theta does not count."""
    return value


@stationary_free_energy.defjvp
def _(primals, tangents):
    """The envelope theorem. Theta counts in the derivatives of this derivative."""
    _, problem, theta = primals
    at_rest = jax.jvp(lambda problem: problem.free_energy_at(theta), (problem,), (tangents[1],))
    return stationary_free_energy(*primals), at_rest[1]


def _implicit(problem: Problem, theta: Magnetizations, marginal: Bool[Array, ""]) -> Magnetizations:
    """The root theta with its derivatives, which are infinite at a bifurcation.

    There the Jacobian is singular: one that is not takes its place, and the derivatives are
    multiplied by a huge number on either side of it.
    """
    theta = jax.lax.stop_gradient(theta)
    factor = jnp.where(marginal, jnp.finfo(theta.dtype).max ** 0.65, 1.0).astype(theta.dtype)
    return implicit_root(_regular_residual, theta, (problem, theta, marginal), factor)


def _regular_residual(theta, args) -> Array:
    problem, root, marginal = args
    return jnp.asarray(problem.residual(theta) + jnp.where(marginal, theta - root, 0))


@jax.custom_jvp
def _steep(theta: Magnetizations, factor: Float[Array, ""]) -> Magnetizations:
    """The same numbers, whose derivatives are multiplied by a factor."""
    return theta


@_steep.defjvp
def _(primals, tangents):
    return _steep(*primals), tangents[0] * primals[1]


def descend(
    problem: Problem,
    theta: Magnetizations,
    *,
    solver: RootFinder,
    max_steps: int,
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(),
) -> optx.Solution:
    """Run `solver` on `beta dG/dm = 0` from `theta`."""
    return optx.root_find(
        residual_at, solver, theta, problem, max_steps=max_steps, adjoint=adjoint, throw=False
    )


def polish(
    problem: Problem,
    theta: Magnetizations,
    *,
    tol: float | Float[Array, ""],
    adjoint: optx.AbstractAdjoint = optx.ImplicitAdjoint(),
) -> optx.Solution:
    """Newton steps from a point near a minimum until `max |dG/dm|` is well below `tol`.

    The second of the auxiliary outputs is G about the end point, a `Taylor`.
    """
    newton = NewtonPolish(atol=0.1 * tol * problem.beta)
    return optx.root_find(
        expanded,
        newton,
        theta,
        problem,
        has_aux=True,
        max_steps=32,
        adjoint=adjoint,
        throw=False,
    )


def expanded(theta, problem):
    """The residual; its Jacobian by theta, and G about the point."""
    taylor = problem.taylor(theta)
    by_m = problem.beta * taylor.curvature
    jacobian = jnp.eye(theta.size, dtype=theta.dtype) + by_m * variance_at(theta)[None, :]
    return problem.beta * taylor.gradient, (jacobian, taylor)


def judge(
    problem: Problem, theta: Magnetizations, taylor: Taylor, *, tol: float | Float[Array, ""]
) -> tuple[Float[Array, ""], RESULTS]:
    """`max |dG/dm|` at m = tanh(theta), and the result code which that point deserves."""
    problem, theta, taylor = jax.lax.stop_gradient((problem, theta, taylor))
    residual = jnp.max(jnp.abs(taylor.gradient), initial=0.0)
    hessian = scaled_hessian(taylor, theta, problem.beta)
    unresolved = resolution(taylor.gradient, theta, problem.beta)

    margin = unresolved * jnp.eye(theta.size, dtype=theta.dtype)
    not_below, above = is_positive(hessian + margin), is_positive(hessian - margin)
    result = RESULTS.where(not_below, RESULTS.marginal, RESULTS.saddle)
    result = RESULTS.where(above, RESULTS.converged, result)
    result = RESULTS.where(residual <= tol, result, RESULTS.stalled)
    known = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(problem)]
    sound = functools.reduce(operator.and_, known, problem.beta > 0)
    lost = RESULTS.where(sound, RESULTS.left_domain, RESULTS.non_finite)
    result = RESULTS.where(jnp.all(jnp.isfinite(theta)), result, lost)
    return residual, RESULTS.where(sound & jnp.isfinite(residual), result, lost)


def resolution(
    gradient: Magnetizations, theta: Magnetizations, beta: Float[Array, ""]
) -> Float[Array, ""]:
    """Curvature, without unit as `scaled_hessian_at`, that a point can tell from 0.

    Its distance to the stationary point is the gradient over the curvature l, and l itself
    changes by about that much on the way (third derivatives are of order one in these units):
    l must exceed the root of the gradient. That of a point near x = 0 on `x^4` does not, nor
    does that on `x^3`.
    """
    force = jnp.max(beta * jnp.sqrt(variance_at(theta)) * jnp.abs(gradient), initial=0.0)
    return 4 * jnp.sqrt(force + 4 * jnp.finfo(theta.dtype).eps)


def starting_field(energy: AbstractEnergy, init: Spins) -> Magnetizations:
    """Effective field of a start in the cube, moved off its faces; shape `(n,)`."""
    init = checked_point(energy, init, "init")
    dtype = jnp.result_type(float, *jax.tree.leaves(energy))
    theta = jnp.arctanh(jax.lax.stop_gradient(init).astype(dtype))
    return jnp.clip(theta, -CORNER_FIELD, CORNER_FIELD)


def checked_problem(
    functional: AbstractFunctional, energy: AbstractEnergy, beta: Beta, dtype: DTypeLike
) -> Problem:
    """The problem that is minimised, after a look at functional and beta."""
    if not isinstance(functional, AbstractFunctional):
        raise TypeError(f"functional must be one such as TAP(), got {functional!r}")
    return Problem(functional, energy, checked_beta(beta, dtype))


def residual_at(theta: Magnetizations, problem: Problem) -> Magnetizations:
    """`beta dG/dm` at m = tanh(theta): how far theta is from its own fixed-point equation."""
    return problem.residual(theta)
