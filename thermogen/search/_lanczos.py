"""Minima of very many spins, verified by products with the Hessian: no matrix is made."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from .._batches import in_batches
from .._linalg import dot
from .._solution import Solution
from ..meanfield import RESULTS, Problem, variance_at
from ._newton import approach, solution_at

# Up to so many spins a factorisation proves a minimum: of more it takes seconds and gigabytes.
_MOST_FACTORISED = 4096
# Steps of the iteration, more where these decide nothing, and the chance that they decide wrongly.
_STEPS, _ERROR = (256, 1024, 4096), 1e-12
_BATCH = 64


def is_factorised(n_spins: int) -> bool:
    """Whether Hessians of so many spins are made and factorised."""
    return n_spins <= _MOST_FACTORISED


def settle_by_products(problem: Problem, tol: float, fields: np.ndarray) -> Solution:
    """Newton steps, and a verdict on where they end, from the extreme eigenvalues of the Hessian.

    `converged` where the lowest is positive but for a chance of 1e-12, `saddle` where it is
    negative, `stalled` where the residual is above `tol` or the sign is open. Needs float64.
    """
    solution = in_batches(functools.partial(_settle, problem), fields, _BATCH)
    near = np.flatnonzero(solution.stats["residual"] <= tol)
    signs = np.zeros(len(fields), int)
    signs[near] = curvature_signs(problem, solution.state["fields"][near])
    result = RESULTS.where(signs > 0, RESULTS.converged, RESULTS.stalled)
    result = RESULTS.where(signs < 0, RESULTS.saddle, result)
    return eqx.tree_at(lambda s: s.result, solution, jax.tree.map(np.asarray, result))


@eqx.filter_jit
def _settle(problem: Problem, fields: Float[Array, "batch n"]) -> Solution:
    def single(row):
        row = approach(problem, row)
        g, gradient = problem.free_energy_at(row), problem.gradient_at(row)
        return solution_at(row, g, jnp.max(jnp.abs(gradient)), RESULTS.stalled)

    return jax.vmap(single)(fields)


def curvature_signs(problem: Problem, fields: np.ndarray) -> Int[np.ndarray, " batch"]:
    """Sign of the lowest eigenvalue of the scaled Hessian at each row, 0 where it is open.

    By Lanczos' iteration from a random vector. Its lowest value is never below the lowest
    eigenvalue, so that a negative one is proof. After k steps it is above by more than a share
    `(ln(1.648 sqrt(n) / p) / (2k - 1))^2` of the spread of all eigenvalues with a chance below p
    (Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094 (1992), theorem 4.2): where it
    is positive by more than that, so is the matrix.
    """
    signs, open_ = np.zeros(len(fields), int), np.arange(len(fields))
    for n_steps in _STEPS:
        if open_.size == 0:
            break
        kernel = functools.partial(_lanczos, problem, jnp.asarray(n_steps))
        diagonals = zip(*in_batches(kernel, fields[open_], _BATCH), strict=True)
        signs[open_] = [_sign(a[:n_steps], b[:n_steps], fields.shape[1]) for a, b in diagonals]
        open_ = open_[signs[open_] == 0]
    return signs


def _sign(diagonal: np.ndarray, off: np.ndarray, n: int) -> int:
    """From what `_lanczos` gives for a matrix of n rows, as many entries as steps."""
    ends = np.flatnonzero(off == 0)
    k = int(ends[0]) + 1 if ends.size else len(diagonal)
    values = scipy.linalg.eigvalsh_tridiagonal(diagonal[:k], off[: k - 1])
    # Where it ends by itself it has met all eigenvalues.
    share = 0 if ends.size else (np.log(1.648 * n**0.5 / _ERROR) / (2 * k - 1)) ** 2
    if share >= 0.5:
        return -int(values[0] < 0)
    # The highest value falls short by as little, with the same chance.
    margin = share / (1 - 2 * share) * (values[-1] - values[0])
    rounding = 1e-12 * np.abs(values).max()
    return int(values[0] > margin + rounding) - int(values[0] < -rounding)


@eqx.filter_jit
def _lanczos(problem: Problem, n_steps: Int[Array, ""], fields: Float[Array, "batch n"]):
    """The diagonal of the tridiagonal matrix and that beside it, shape `(batch, most steps)`.

    The first `n_steps` entries count, of the latter one fewer; one that is 0 ends the matrix.
    """
    draw = jax.random.normal(jax.random.key(0), fields.shape[1:], fields.dtype)

    def single(row):
        root = jnp.sqrt(variance_at(row))
        excess_gradient = jax.grad(problem.excess)
        _, product = jax.linearize(excess_gradient, jnp.tanh(row))

        def step(k, carry):
            before, now, length, diagonal, off = carry
            new = now + problem.beta * root * product(root * now) - length * before
            along = dot(now, new)
            new = new - along * now
            length = jnp.linalg.norm(new)
            diagonal, off = diagonal.at[k].set(along), off.at[k].set(length)
            return now, new / jnp.where(length > 0, length, 1), length, diagonal, off

        none = jnp.zeros(_STEPS[-1], row.dtype)
        start = jnp.zeros_like(row), draw / jnp.linalg.norm(draw), jnp.zeros((), row.dtype)
        return jax.lax.fori_loop(0, n_steps, step, (*start, none, none))[3:]

    return jax.vmap(single)(fields)
