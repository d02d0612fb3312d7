"""From where a descent ended to a minimum and its proof: Newton steps and factorisations."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from .._batches import cast
from .._compile import compiled_quickly
from .._linalg import dot
from .._solution import Solution
from .._types import Magnetizations
from ..meanfield import RESULTS, Problem, judge, polish, resolution, variance_at

# Where Newton steps end: the largest entry of beta dG/dm.
ATOL = 1e-10
_STEPS, _CG_STEPS = 5, 64
# Entries of the Hessians that are held at once where they are factorised.
_EXAMINED_ENTRIES = 2**21


def rows_of(entries: int, theta: np.ndarray | Array) -> int:
    """How many Hessians have so many entries: a power of two, within the largest batch."""
    return 1 << (max(1, min(1024, entries // theta.shape[1] ** 2)).bit_length() - 1)


@compiled_quickly
def settle(
    problem: Problem, tol: Array, dtype: DTypeLike, theta: Float[Array, "batch n"]
) -> Solution:
    """Newton steps, and rows judged where these end: `converged` where a minimum is proved.

    Else they are `stalled`. `dtype` is that of the factorisation.
    """
    theta = jax.vmap(functools.partial(approach, problem))(theta)

    def single(row):
        taylor = problem.taylor(row)
        residual = jnp.max(jnp.abs(taylor.gradient))
        # The scaled Hessian, its lower triangle alone, and where the curvature is the same in
        # all rows it is computed once: one pass writes it, in the dtype of the factorisation.
        root = jnp.sqrt(problem.beta * variance_at(row))
        # What is as flat as a bifurcation is left to Newton steps and `judge`.
        least = 1 - resolution(taylor.gradient, row, problem.beta)
        hessian = least * jnp.eye(row.size) + root[:, None] * taylor.curvature * root[None, :]
        good = (residual <= tol) & is_surely_positive(hessian, dtype)
        result = RESULTS.where(good, RESULTS.converged, RESULTS.stalled)
        return solution_at(row, taylor.value, residual, result)

    held = min(len(theta), rows_of(_EXAMINED_ENTRIES, theta))
    return jax.lax.map(single, theta, batch_size=held)


@compiled_quickly
def polish_densely(problem: Problem, tol: Array, theta: Float[Array, "batch n"]) -> Solution:
    """Newton steps, and a verdict in float64 on where they end."""

    def single(row):
        polished = polish(problem, row, tol=tol)
        row, (_, taylor) = polished.value, polished.aux
        return solution_at(row, taylor.value, *judge(problem, row, taylor, tol=tol))

    return jax.vmap(single)(theta)


def solution_at(theta: Magnetizations, g: Array, residual: Array, result: RESULTS) -> Solution:
    """A point with its G, its largest `|dG/dm|` and the verdict on it."""
    stats = {"residual": residual, "free_energy": g}
    return Solution(jnp.tanh(theta), result, {"fields": theta}, stats)


def approach(problem: Problem, start: Float[Array, " n"], atol: float = ATOL) -> Float[Array, " n"]:
    """Newton steps in float64, by conjugate gradients in float32 on the scaled Hessian.

    Each is taken only where the Hessian showed no negative curvature and the residual falls.
    """
    low_energy, low_beta = cast((problem.energy, problem.beta), jnp.float32)
    excess_gradient = jax.grad(lambda m: problem.functional.excess(low_energy, low_beta, m))

    def step(state):
        theta, trial, error, _, n_steps = state
        residual = problem.residual(trial)
        after = jnp.max(jnp.abs(residual))
        falls = after < error
        going = falls & (after > atol)
        root = jnp.sqrt(variance_at(trial)).astype(jnp.float32)
        m, force = jnp.tanh(trial).astype(jnp.float32), residual.astype(jnp.float32)
        # Factorisations in both precisions must not run at once.
        m = jnp.where(jnp.isnan(residual), jnp.nan, m)
        _, product = jax.linearize(excess_gradient, m)
        scale = jnp.max(jnp.abs(force)) + jnp.finfo(jnp.float32).tiny
        bent, positive = _conjugate_gradients(
            lambda x: low_beta * product(x), root, jnp.where(going, root * force / scale, 0)
        )
        theta = jnp.where(falls, trial, theta)
        trial = trial - (force - scale * bent).astype(trial.dtype)
        return theta, trial, jnp.where(falls, after, error), going & positive, n_steps + 1

    # The first trial is the start: the functional is compiled at one place.
    state = (start, start, jnp.full((), jnp.inf, start.dtype), jnp.array(True), jnp.array(0))
    return jax.lax.while_loop(lambda s: s[3] & (s[4] <= _STEPS), step, state)[0]


def _conjugate_gradients(
    product: Callable[[Array], Array], root: Float[Array, " n"], b: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """Solve `(1 + R P R) x = b` to 1e-4 of b, R = diag(root) and P a product.

    Returns:
        `P R x`, and whether the matrix was positive along all directions taken.
    """

    def step(state):
        bent, residual, p, squared, _, n_steps = state
        change = product(root * p)
        ap = p + root * change
        curvature = dot(p, ap)
        positive = curvature > 0
        length = jnp.where(positive, squared / jnp.where(positive, curvature, 1), 0)
        bent, residual = bent + length * change, residual - length * ap
        new = dot(residual, residual)
        return bent, residual, residual + new / squared * p, new, positive, n_steps + 1

    squared = dot(b, b)
    small = 1e-8 * squared
    state = (jnp.zeros_like(b), b, b, squared, jnp.array(True), jnp.array(0))
    bent, *_, positive, _ = jax.lax.while_loop(
        lambda s: (s[3] > small) & s[4] & (s[5] < _CG_STEPS), step, state
    )
    return bent, positive


def is_surely_positive(
    matrix: Float[Array, "n n"], dtype: DTypeLike = jnp.float32
) -> Bool[Array, ""]:
    """Whether a Cholesky factorisation in `dtype` proves a symmetric float64 matrix positive.

    It is run on the lower triangle of the matrix less a multiple of the identity. The factor L
    that it returns is exact for a matrix that differs by at most `(n + 1) unit |L||L|^T` (Higham
    2002, theorem 10.3), and success with a bound on that below the multiple is a proof (Rump
    2006, BIT 46, 433). A matrix that is positive by less stays undecided.
    """
    n, unit = len(matrix), 0.5 * jnp.finfo(dtype).eps
    diagonal = jnp.diagonal(matrix)
    # The norm of |L||L|^T is at most the trace, and near the identity only about sqrt(n).
    allowed = jnp.minimum(2.5 * n**0.5 * jnp.max(diagonal), 1.01 * jnp.sum(diagonal))
    # Rounding of the factorisation, of the entries and of these sums.
    shift = 1.1 * unit * (n + 8) * allowed
    factor = jax.lax.linalg.cholesky(
        (matrix - shift * jnp.eye(n)).astype(dtype), symmetrize_input=False
    )
    size = jnp.abs(factor)
    # Each by itself: a maximum over NaN, where there is no factor, may come out as any number.
    return jnp.all(dot(size, jnp.sum(size, axis=0)) <= allowed)
