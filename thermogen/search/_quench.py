"""Quench a population of starts: fall to the nearest minimum of G(m), and verify it."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from .._batches import cast, in_batches, replaced
from .._checks import as_array, check_count, check_finite, check_memory
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import Solution
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import (
    CORNER_FIELD,
    RESULTS,
    AbstractFunctional,
    MirrorDescent,
    Problem,
    Taylor,
    checked_problem,
    descend,
    is_minimum,
    judge,
    polish,
    resolution,
    scaled_hessian,
    variance_at,
)
from ._merge import joined, leaders

# All starts descend in float32; what came together goes on as one, in float64.
_ROUGH = MirrorDescent(rtol=1e-6, atol=1e-5)
_FINE = MirrorDescent(rtol=1e-14, atol=1e-10)
# What descends so slowly is left to Newton steps, which take it to a minimum or to a saddle.
_FINE_STEPS = 1024
_STEPS_PER_ROUND = 64
_NEWTON_STEPS, _CG_STEPS = 5, 64
# Steps along flat valleys, the curvature as which any smaller one counts in them, and the length
# below which they are at rest. Directions of a larger curvature than `_WALL` lead across.
_SLIDES, _FLAT, _SETTLED, _WALL = 128, 1e-12, 1e-7, 1e-5
# Newton steps from halfway between two points to the floor of the valley that holds both.
_MIDWAY_STEPS = 6
# Entries of the Hessians that are held at once: where they are factorised, and in dense Newton
# steps, in which all rows of a batch wait for the slowest.
_EXAMINED_ENTRIES, _POLISHED_ENTRIES = 2**21, 2**19
# The way down from a saddle: how far off it starts in the angles arcsin m, and after how many
# saddles in a row it is given up. A spin of smaller sqrt(1 - m^2) is saturated.
_OFF_SADDLE, _MOST_SADDLES, _SATURATED = 1e-2, 3, 1e-8


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
    n = energy.n_spins
    check_memory(f"the Hessian of {n} spins", 2 * 8 * n**2)
    return checked_problem(functional, cast(energy, jnp.float64), beta, jnp.float64)


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
        size = min(32, _rows_of(_POLISHED_ENTRIES, fields))
        sides = in_batches(functools.partial(_both_sides, problem), pairs, size)
        owner = np.repeat(owner[rows], 2)
        ends = fall(problem, sides.reshape(len(owner), -1))
        good = np.flatnonzero(is_converged(ends))
        if good.size:
            reached.append((owner[good], jax.tree.map(lambda x, k=good: x[k], ends)))
    if not reached:
        return np.zeros(0, int), None
    owners, minima = zip(*reached, strict=True)
    return np.concatenate(owners), joined(*minima)


@eqx.filter_jit
def _both_sides(problem: Problem, pairs: Float[Array, "batch 2 n"]) -> Float[Array, "batch 2 n"]:
    """Effective fields on either side of saddles, from their fields and random directions."""

    def single(pair):
        theta, direction = pair
        values, vectors = jnp.linalg.eigh(problem.scaled_hessian(theta))
        along = dot(direction, vectors) * ((values < 0) | (jnp.arange(theta.size) == 0))
        mode = dot(vectors, along / jnp.linalg.norm(along))
        shift = _OFF_SADDLE * mode / jnp.maximum(jnp.sqrt(variance_at(theta)), _SATURATED)
        return jnp.stack([theta + shift, theta - shift])

    return jax.vmap(single)(pairs)


def is_converged(solution: Solution) -> Bool[np.ndarray, " batch"]:
    """Which items of a batch of solves have converged to a minimum, marginal ones included."""
    return np.asarray(is_minimum(solution.result))


def verified_ends(
    problem: Problem, rough: np.ndarray, tol: float = 1e-9, max_steps: int = 4096
) -> Solution:
    """Newton steps by conjugate gradients, and a proof; what they do not bring to a minimum
    descends in float64, and is left to dense Newton steps where that does not suffice."""
    solution = _settled(problem, rough, tol)
    theta = solution.state["fields"].copy()
    newton = functools.partial(_polish, problem, jnp.asarray(tol))
    size = _rows_of(_POLISHED_ENTRIES, theta)
    for n_steps in (min(_FINE_STEPS, max_steps), max_steps - _FINE_STEPS):
        rest = np.flatnonzero(~is_converged(solution))
        if rest.size == 0:
            return solution
        theta[rest] = _descend(problem, rough[rest], jnp.float64, _FINE, n_steps)
        rough = theta
        solution = replaced(solution, rest, _settled(problem, theta[rest], tol))
        rest = np.flatnonzero(~is_converged(solution))
        if rest.size:
            solution = replaced(solution, rest, in_batches(newton, theta[rest], size))
        slow = (solution.result == RESULTS.stalled) | (solution.result == RESULTS.marginal)
        rest = np.flatnonzero(np.asarray(slow))
        if rest.size:
            theta[rest] = in_batches(functools.partial(_slide, problem), theta[rest], size)
            solution = replaced(solution, rest, in_batches(newton, theta[rest], size))
    return solution


def _settled(problem: Problem, theta: np.ndarray, tol: float) -> Solution:
    """Newton steps and a proof in float32; in float64 where only the curvature is undecided."""
    settle = functools.partial(_settle, problem, jnp.asarray(tol))
    solution = in_batches(functools.partial(settle, jnp.float32), theta, 256)
    flat = np.flatnonzero(~is_converged(solution) & (solution.stats["residual"] <= tol))
    if flat.size:
        theta = solution.state["fields"][flat]
        proved = in_batches(functools.partial(settle, jnp.float64), theta, 256)
        solution = replaced(solution, flat, proved)
    return solution


def _rows_of(entries: int, theta: np.ndarray | Array) -> int:
    """How many Hessians have so many entries: a power of two, within the largest batch."""
    return 1 << (max(1, min(1024, entries // theta.shape[1] ** 2)).bit_length() - 1)


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


@eqx.filter_jit
def _settle(
    problem: Problem, tol: Array, dtype: DTypeLike, theta: Float[Array, "batch n"]
) -> Solution:
    """Newton steps, and rows judged where these end: `converged` where a minimum is proved.

    Else they are `stalled`. `dtype` is that of the factorisation.
    """
    theta = jax.vmap(functools.partial(_approach, problem))(theta)

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
        return _solution(row, taylor, residual, result)

    held = min(len(theta), _rows_of(_EXAMINED_ENTRIES, theta))
    return jax.lax.map(single, theta, batch_size=held)


def _approach(
    problem: Problem, start: Float[Array, " n"], atol: float = _FINE.atol
) -> Float[Array, " n"]:
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
    return jax.lax.while_loop(lambda s: s[3] & (s[4] <= _NEWTON_STEPS), step, state)[0]


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


@eqx.filter_jit
def _slide(problem: Problem, theta: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
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
        trial = theta - turn / jnp.maximum(root, _SATURATED)
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
        settled = (jnp.max(jnp.abs(force)) <= _FINE.atol) & (length <= _SETTLED)
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
    return theta - _shortened(turn, most) / jnp.maximum(root, _SATURATED)


def _shortened(turn: Array, most: Array) -> Array:
    return turn * jnp.minimum(1, most / jnp.maximum(jnp.linalg.norm(turn), _SATURATED))


@eqx.filter_jit
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


@eqx.filter_jit
def _polish(problem: Problem, tol: Array, theta: Float[Array, "batch n"]) -> Solution:
    """Newton steps, and a verdict in float64 on where they end."""

    def single(row):
        polished = polish(problem, row, tol=tol)
        row, (_, taylor) = polished.value, polished.aux
        return _solution(row, taylor, *judge(problem, row, taylor, tol=tol))

    return jax.vmap(single)(theta)


def _solution(theta: Magnetizations, taylor: Taylor, residual: Array, result: RESULTS):
    stats = {"residual": residual, "free_energy": taylor.value}
    return Solution(jnp.tanh(theta), result, {"fields": theta}, stats)


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
