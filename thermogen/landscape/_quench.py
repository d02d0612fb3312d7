"""Quench a population of starts: fall to the nearest minimum of G(m), and certify it."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num, PyTree

from .._solution import RESULTS, Solution
from .._types import Beta
from ..energies import AbstractMultilinear
from ..meanfield import AbstractFunctional, MirrorDescent
from ..meanfield._base import free_energy_at
from ..meanfield._solve import Problem, checked_beta, descend, judge, polish, starting_field

# Precision and tolerance of the descent before each attempt to polish. Float32 is enough for
# nearly all starts; one that ends on a saddle or between two basins descends further.
_Stage = tuple[DTypeLike, float]
_STAGES: tuple[_Stage, ...] = ((jnp.float32, 1e-3), (jnp.float64, 1e-6), (jnp.float64, 1e-9))
_STEPS_PER_ROUND = 64
# Batches are padded to one of these sizes, so that few programs are compiled.
_BATCH_SIZES = (32, 256, 1024)
_HESSIAN_ENTRIES = 2**22


def quench(
    functional: AbstractFunctional,
    energy: AbstractMultilinear,
    beta: Beta,
    starts: Num[Array | np.ndarray, "batch n"],
    *,
    tol: float = 1e-9,
    max_steps: int = 4096,
) -> Solution:
    """Minimise G(m) from each of many starts: descends in float32, certifies in float64.

    Owns its batch axis: starts that have converged are dropped, the rest is packed into a few
    fixed batch sizes. Works in float64 where it must, whatever the JAX configuration.

    Args:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        starts: spins or magnetizations, shape `(batch, n)`.
        tol: largest `|dG/dm|` that counts as converged, in energy units.
        max_steps: limit on the descent steps of one start, in each precision; rounded up to
            the next multiple of 64.

    Returns:
        A `Solution` of NumPy arrays: `value` the magnetizations in float64, shape `(batch, n)`;
        `result` one code for each start; `stats` holds `fields` (batch, n), m = tanh(fields),
        `residual` (batch,), max |dG/dm|, and `free_energy` (batch,).

    Raises:
        ValueError: for a beta that is not positive, or starts of wrong shape or range.
    """
    starts = np.asarray(starts)
    if starts.ndim != 2 or starts.shape[0] == 0 or starts.shape[1] != energy.n_spins:
        raise ValueError(
            f"starts must have shape (batch >= 1, {energy.n_spins}), got {starts.shape}"
        )
    if not np.all(np.abs(starts) <= 1):
        raise ValueError("starts must lie within [-1, 1]")
    with jax.enable_x64(True):
        problem = (functional, cast(energy, jnp.float64), checked_beta(beta, jnp.float64))
        theta = np.array(jax.vmap(lambda s: starting_field(problem[1], s))(starts))
        return _attempt(problem, theta, jnp.asarray(tol), max_steps, _STAGES)


def is_converged(solution: Solution) -> Bool[np.ndarray, " batch"]:
    """Which items of a batch of solves have converged to a minimum."""
    return np.asarray(solution.result == RESULTS.converged)


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The same pytree with its arrays in another floating dtype."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def _attempt(
    problem: Problem, theta: np.ndarray, tol: Array, max_steps: int, stages: Sequence[_Stage]
) -> Solution:
    """Descend and certify; what did not converge goes on from there with the later stages."""
    descended = _descend(problem, theta, *stages[0], max_steps)
    solution = _certify(problem, descended, tol)
    rest = np.flatnonzero(~is_converged(solution))
    if rest.size == 0 or len(stages) == 1:
        return solution
    later = _attempt(problem, descended[rest], tol, max_steps, stages[1:])
    return _replaced(solution, rest, later)


def _descend(
    problem: Problem, theta: np.ndarray, dtype: DTypeLike, atol: float, max_steps: int
) -> np.ndarray:
    """Descend all rows, in rounds between which the finished ones are dropped."""
    kernel = functools.partial(
        _descend_batch, cast(problem, dtype), MirrorDescent(rtol=1e-3 * atol, atol=atol)
    )
    theta, todo = theta.copy(), np.arange(len(theta))
    for _ in range(-(-max_steps // _STEPS_PER_ROUND)):
        theta[todo], done = in_batches(kernel, theta[todo].astype(dtype), _BATCH_SIZES[-1])
        todo = todo[~done]
        if todo.size == 0:
            break
    return theta


def _certify(problem: Problem, theta: np.ndarray, tol: Array) -> Solution:
    """Polish all rows and judge where they end."""
    largest = max(1, min(_BATCH_SIZES[-1], _HESSIAN_ENTRIES // theta.shape[1] ** 2))
    return in_batches(functools.partial(_certify_batch, problem, tol), theta, largest)


@eqx.filter_jit
def _descend_batch(problem: Problem, solver: MirrorDescent, theta: Float[Array, "batch n"]):
    def single(row):
        descent = descend(problem, row, solver=solver, max_steps=_STEPS_PER_ROUND)
        return descent.value, descent.result != optx.RESULTS.nonlinear_max_steps_reached

    return jax.vmap(single)(theta)


@eqx.filter_jit
def _certify_batch(problem: Problem, tol: Array, theta: Float[Array, "batch n"]) -> Solution:
    def single(row):
        row = polish(problem, row, tol=tol).value
        residual, result = judge(problem, row, tol=tol)
        stats = {
            "fields": row,
            "residual": residual,
            "free_energy": free_energy_at(*problem[:2], row, problem[2]),
        }
        return Solution(jnp.tanh(row), result, stats)

    return jax.vmap(single)(theta)


def in_batches(kernel: Callable[[Array], PyTree], rows: np.ndarray, largest: int) -> PyTree:
    """Apply a batched kernel to all rows, in batches padded to few sizes; NumPy arrays out."""
    sizes = [size for size in _BATCH_SIZES if size < largest] + [largest]
    outputs = []
    for first in range(0, len(rows), largest):
        batch = rows[first : first + largest]
        size = next(size for size in sizes if size >= len(batch))
        padding = np.repeat(batch[:1], size - len(batch), axis=0)
        output = kernel(jnp.asarray(np.concatenate([batch, padding])))
        outputs.append(jax.tree.map(lambda x, k=len(batch): np.asarray(x)[:k], output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _replaced(solution: Solution, rows: np.ndarray, new: Solution) -> Solution:
    def replace(old, part):
        old = old.copy()
        old[rows] = part
        return old

    return jax.tree.map(replace, solution, new)
