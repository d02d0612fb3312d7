"""Quench a population of starts: fall to the nearest minimum of G(m), and verify it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from .._batches import cast, in_batches, replaced
from .._checks import as_array, check_count, check_finite
from .._compile import compiled_quickly
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import Solution
from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import (
    CORNER_FIELD,
    RESULTS,
    AbstractFunctional,
    MirrorDescent,
    Problem,
    checked_problem,
    descend,
    variance_at,
)
from ._curvature import lowest_modes
from ._flat import SATURATED, slide
from ._lanczos import is_factorised, settle_by_products
from ._merge import joined, leaders
from ._newton import ATOL, polish_densely, rows_of, settle

# All starts descend in float32; what came together goes on as one, in float64.
_ROUGH = MirrorDescent(rtol=1e-6, atol=1e-5)
_FINE = MirrorDescent(rtol=1e-14, atol=ATOL)
# What descends so slowly is left to Newton steps, which take it to a minimum or to a saddle.
_FINE_STEPS = 1024
_STEPS_PER_ROUND = 64
# Entries of the Hessians that are held at once in dense Newton steps, in which all rows of a batch
# wait for the slowest.
_POLISHED_ENTRIES = 2**19
# The way down from a saddle: how far off it starts in the angles arcsin m, and after how many
# saddles in a row it is given up.
_OFF_SADDLE, _MOST_SADDLES = 1e-2, 3


@from_anywhere
def quench(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    starts: Num[Array | np.ndarray, "batch n"],
    *,
    tol: float = 1e-9,
    max_steps: int = 4096,
) -> Solution:
    """Minimise G(m) from each of many starts: descends in float32, verifies in float64.

    Owns its batch axis: starts that have converged are dropped, the rest is packed into a few
    fixed batch sizes. Works in float64 where it must, whatever the JAX configuration. Each start
    has one end: what keeps a symmetry of the energy comes to rest on a saddle, and is said to.
    `find_minima` goes on from there, down both sides.

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
        `result` one code for each start; `state["fields"]` the effective fields theta, shape
        `(batch, n)`, m = tanh(theta); `stats` holds `residual`, max |dG/dm|, and `free_energy`,
        both of shape `(batch,)`.

    Raises:
        ValueError: for a beta that is not positive, or starts of wrong shape or range.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        starts = jnp.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
        ends = tg.quench(tg.NaiveMeanField(), energy, 1.0, starts)
        assert jnp.all(ends.result == tg.RESULTS.converged)
        assert jnp.allclose(jnp.sign(ends.value[:, 0]), jnp.array([1, -1]))
        ```
    """
    check_finite("tol", tol, positive=True)
    max_steps = check_count("max_steps", max_steps)
    starts = np.asarray(as_array("starts", starts))
    if starts.ndim != 2 or starts.shape[0] == 0 or starts.shape[1] != energy.n_spins:
        raise ValueError(
            f"starts must have shape (batch >= 1, {energy.n_spins}), got {starts.shape}"
        )
    if not np.all(np.abs(starts) <= 1):
        raise ValueError("starts must lie within [-1, 1]")
    with jax.enable_x64(True):
        problem = make_problem(functional, energy, beta)
        return fall(problem, starting_fields(starts), tol, max_steps)


def make_problem(functional: AbstractFunctional, energy: AbstractEnergy, beta: Beta) -> Problem:
    """What is minimised, in float64, which must be enabled."""
    # Numbers on the host take another precision without a program.
    known = cast(jax.tree.map(np.asarray, energy), jnp.float64)
    return checked_problem(functional, known, beta, jnp.float64)


def starting_fields(starts: np.ndarray) -> np.ndarray:
    """Effective fields of a batch of starts."""
    # On the host: an operation of JAX would compile for every number of starts.
    with np.errstate(divide="ignore"):
        return np.clip(np.arctanh(np.asarray(starts, float)), -CORNER_FIELD, CORNER_FIELD)


def fall(
    problem: Problem,
    theta: Float[np.ndarray, "batch n"],
    tol: float = 1e-9,
    max_steps: int = 4096,
    known: Solution | None = None,
) -> Solution:
    """`quench` from effective fields; what falls to a `known` minimum is not solved again.

    To be called where float64 is enabled. Rows that end alike are copies to the last bit, or
    their mirror images.
    """
    rough = _descend(problem, theta, jnp.float32, _ROUGH, max_steps)
    symmetric = bool(is_flip_symmetric(problem.energy))
    n_known = 0 if known is None else len(known.value)
    m = np.tanh(rough) if known is None else np.concatenate([known.value, np.tanh(rough)])
    leader, sign = (x[n_known:] for x in leaders(m, symmetric))
    own = np.unique(leader[leader >= n_known])
    place = np.where(leader < n_known, leader, n_known + np.searchsorted(own, leader))
    fresh = [verified_ends(problem, rough[own - n_known], tol, max_steps)] if own.size else []
    ends = joined(*([] if known is None else [known]), *fresh)
    ends = jax.tree.map(lambda x: x[place], ends)
    m, fields = (x * sign[:, None] for x in (ends.value, ends.state["fields"]))
    ends = Solution(m, ends.result, {"fields": fields}, ends.stats)
    # A leader that ended on a saddle speaks for itself alone.
    alone = np.flatnonzero(~is_converged(ends) & (leader != n_known + np.arange(len(leader))))
    if alone.size:
        ends = replaced(ends, alone, verified_ends(problem, rough[alone], tol, max_steps))
    return ends


def below_saddles(
    problem: Problem, ends: Solution, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " found"], Solution | None]:
    """Minima down both sides of the saddles among the ends of quenches; needs float64.

    The way is that of a random combination of the unstable directions, so that where there are
    several it keeps no symmetry either.

    Returns:
        The end from which each minimum was reached, and the minima; None where there are none.
    """
    owner, reached = np.arange(len(ends.value)), []
    for _ in range(_MOST_SADDLES):
        rows = np.flatnonzero(np.asarray(ends.result == RESULTS.saddle))
        if rows.size == 0:
            break
        fields = ends.state["fields"][rows]
        pairs = np.stack([fields, rng.normal(size=fields.shape)], axis=1)
        if is_factorised(fields.shape[1]):
            size = min(32, rows_of(_POLISHED_ENTRIES, fields))
            sides = in_batches(functools.partial(_both_sides, problem), pairs, size)
        else:
            sides = _beside(fields, lowest_modes(problem, fields))
        owner = np.repeat(owner[rows], 2)
        ends = fall(problem, sides.reshape(len(owner), -1))
        good = np.flatnonzero(is_converged(ends))
        if good.size:
            reached.append((owner[good], jax.tree.map(lambda x, k=good: x[k], ends)))
    if not reached:
        return np.zeros(0, int), None
    owners, minima = zip(*reached, strict=True)
    return np.concatenate(owners), joined(*minima)


def _beside(fields: np.ndarray, modes: np.ndarray) -> Float[np.ndarray, "batch 2 n"]:
    """Effective fields on either side of saddles, along a mode of the Hessian at each."""
    shift = modes / np.abs(modes).max(axis=1, keepdims=True)
    m = np.tanh(fields)
    m = np.stack([m + _OFF_SADDLE * shift, m - _OFF_SADDLE * shift], axis=1)
    return starting_fields(np.clip(m, -1, 1))


@compiled_quickly
def _both_sides(problem: Problem, pairs: Float[Array, "batch 2 n"]) -> Float[Array, "batch 2 n"]:
    """Effective fields on either side of saddles, from their fields and random directions."""

    def single(pair):
        theta, direction = pair
        values, vectors = jnp.linalg.eigh(problem.scaled_hessian(theta))
        along = dot(direction, vectors) * ((values < 0) | (jnp.arange(theta.size) == 0))
        mode = dot(vectors, along / jnp.linalg.norm(along))
        shift = _OFF_SADDLE * mode / jnp.maximum(jnp.sqrt(variance_at(theta)), SATURATED)
        return jnp.stack([theta + shift, theta - shift])

    return jax.vmap(single)(pairs)


def is_converged(solution: Solution) -> Bool[np.ndarray, " batch"]:
    """Which items of a batch of solves have converged to a minimum, marginal ones included."""
    minima = RESULTS.converged, RESULTS.marginal
    return np.any([np.asarray(solution.result == code) for code in minima], axis=0)


def verified_ends(
    problem: Problem, rough: np.ndarray, tol: float = 1e-9, max_steps: int = 4096
) -> Solution:
    """Newton steps by conjugate gradients, and a proof; what they do not bring to a minimum
    descends in float64, and is left to dense Newton steps where that does not suffice."""
    solution = _settled(problem, rough, tol)
    theta = solution.state["fields"].copy()
    for n_steps in (min(_FINE_STEPS, max_steps), max_steps - _FINE_STEPS):
        rest = np.flatnonzero(~is_converged(solution))
        if rest.size == 0:
            return solution
        theta[rest] = _descend(problem, rough[rest], jnp.float64, _FINE, n_steps)
        rough = theta
        solution = replaced(solution, rest, _settled(problem, theta[rest], tol))
        if is_factorised(theta.shape[1]):
            solution = _polished(problem, theta, tol, solution)
    return solution


def _polished(problem: Problem, theta: np.ndarray, tol: float, solution: Solution) -> Solution:
    """Dense Newton steps from where descents ended, and along flat valleys; moves `theta` there."""
    newton = functools.partial(polish_densely, problem, jnp.asarray(tol))
    size = rows_of(_POLISHED_ENTRIES, theta)
    rest = np.flatnonzero(~is_converged(solution))
    if rest.size:
        solution = replaced(solution, rest, in_batches(newton, theta[rest], size))
    slow = (solution.result == RESULTS.stalled) | (solution.result == RESULTS.marginal)
    rest = np.flatnonzero(np.asarray(slow))
    if rest.size:
        theta[rest] = in_batches(functools.partial(slide, problem), theta[rest], size)
        solution = replaced(solution, rest, in_batches(newton, theta[rest], size))
    return solution


def _settled(problem: Problem, theta: np.ndarray, tol: float) -> Solution:
    """Newton steps and a proof in float32; in float64 where only the curvature is undecided.

    Of very many spins by products with the Hessian.
    """
    if not is_factorised(theta.shape[1]):
        return settle_by_products(problem, tol, theta)
    proof = functools.partial(settle, problem, jnp.asarray(tol))
    solution = in_batches(functools.partial(proof, jnp.float32), theta, 256)
    flat = np.flatnonzero(~is_converged(solution) & (solution.stats["residual"] <= tol))
    if flat.size:
        theta = solution.state["fields"][flat]
        proved = in_batches(functools.partial(proof, jnp.float64), theta, 256)
        solution = replaced(solution, flat, proved)
    return solution


def _descend(
    problem: Problem, theta: np.ndarray, dtype: DTypeLike, solver: MirrorDescent, max_steps: int
) -> np.ndarray:
    """Descend all rows, in rounds between which the finished ones are dropped."""
    kernel = functools.partial(_descend_batch, cast(problem, dtype), solver)
    theta, todo = theta.copy(), np.arange(len(theta))
    for _ in range(-(-max_steps // _STEPS_PER_ROUND)):
        theta[todo], done = in_batches(kernel, theta[todo].astype(dtype))
        todo = todo[~done]
        if todo.size == 0:
            break
    return theta


@eqx.filter_jit
def _descend_batch(problem: Problem, solver: MirrorDescent, theta: Float[Array, "batch n"]):
    def single(row):
        descent = descend(problem, row, solver=solver, max_steps=_STEPS_PER_ROUND)
        return descent.value, descent.result != optx.RESULTS.nonlinear_max_steps_reached

    return jax.vmap(single)(theta)
