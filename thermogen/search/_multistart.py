"""Minima of any smooth potential over a pytree of parameters: the same search, the same proofs."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from .._batches import in_batches, replaced
from .._checks import check_count, check_finite
from .._codes import Codes
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import Solution
from ..meanfield import RESULTS, NewtonPolish
from ._quench import is_converged
from ._same import first_equals, good_turing

# Precision and tolerance of the descent before each attempt to polish, as in a quench.
_STAGES: tuple[tuple[DTypeLike, float], ...] = (
    (jnp.float32, 1e-5),
    (jnp.float64, 1e-9),
    (jnp.float64, 1e-13),
)
_STEPS_PER_ROUND = 256
_LARGEST_BATCH = 256
_MATRIX_ENTRIES = 2**22
# In Newton steps, too, all rows of a batch wait for the slowest; what needs more descends further.
_NEWTON_STEPS = 8
# Curvatures below this share of the largest one are rounding.
_ROUNDING = 1e-10
# A minimum counts as located when the next Newton step is shorter.
_LOCATED = 1e-6

Potential = Callable[[Any], Float[Array, ""]]


class Minima(eqx.Module):
    """Distinct minima of a potential, lowest first, as NumPy arrays in float64.

    `minima[k]` are the parameters of one of them, and `len` counts them.

    Attributes:
        parameters: the parameters of all K minima, each leaf with a leading axis K.
        potentials: the potential of each, shape `(K,)`.
        residuals: largest entry of the gradient at each, shape `(K,)`.
        curvatures: lowest eigenvalue of the Hessian, flat directions apart, shape `(K,)`.
        hits: number of proposals that fell to each, shape `(K,)`.
        assignment: the minimum that each proposal fell to, shape `(proposals,)`; -1 for none.
        result: a `RESULTS` code for each proposal: `converged` to a minimum; `saddle`, or a
            stationary point that is flat in more directions than was declared; `stalled`;
            `non_finite`.
    """

    parameters: PyTree
    potentials: Float[np.ndarray, " K"]
    residuals: Float[np.ndarray, " K"]
    curvatures: Float[np.ndarray, " K"]
    hits: Int[np.ndarray, " K"]
    assignment: Int[np.ndarray, " proposals"]
    result: Codes

    def __len__(self) -> int:
        return len(self.potentials)

    def __getitem__(self, k: int | np.integer) -> PyTree:
        """Parameters of minimum k."""
        if not -len(self) <= k < len(self):
            raise IndexError(f"there are {len(self)} minima, got index {k}")
        return jax.tree.map(lambda leaf: leaf[k], self.parameters)

    @property
    def n_lost(self) -> int:
        """Number of proposals that fell to no minimum."""
        return int(np.sum(self.assignment < 0))

    def coverage(self) -> float:
        """Good-Turing estimate of the share of such proposals that fall to a minimum held.

        Proposals that fell to no minimum count as unseen; NaN where none was found.
        """
        return good_turing(self.hits, self.n_lost)


@from_anywhere
def multistart(
    potential: Potential,
    proposals: PyTree,
    *,
    invariants: Callable[[Any], PyTree] | None = None,
    n_flat: int = 0,
    tol: float = 1e-8,
    merge_tolerance: float = 1e-5,
    max_steps: int = 4096,
) -> Minima:
    """Minimise a smooth potential from every proposal, verify, and keep each minimum once.

    BFGS (optimistix) descends in float32; Newton steps polish in float64 and the eigenvalues of the
    dense Hessian decide. What does not pass descends further in float64. Owns its batch
    axis: proposals that have converged are dropped. Meant for up to some hundred parameters.

    Programs are compiled for a potential, a structure of parameters and a batch size. A new
    function compiles anew; new *numbers* in a potential do not if it is a pytree that holds
    them, such as `jax.tree_util.Partial(function, data)` or an `equinox.Module`.

    Args:
        potential: `potential(parameters)` is a scalar, twice differentiable by JAX.
        proposals: starts: a pytree of floating arrays with a leading batch axis, such
            as `jax.vmap(draw)(jax.random.split(key, 256))`.
        invariants: function that tells minima apart. Two minima at which all arrays of
            `invariants(parameters)` agree are one. For a symmetry return what it leaves
            unchanged (for hidden units that may be permuted and flipped: the distribution of
            the visible ones), or a canonical member of the orbit; but sorted parameters jump
            where two of the keys are equal. By default the parameters themselves.
        n_flat: number of directions in which the potential is constant by a continuous
            symmetry. That many of the curvatures closest to 0 are exempt from being positive.
        tol: largest gradient entry that counts as converged, in units of the potential per
            unit of parameter.
        merge_tolerance: largest difference of the invariants of one minimum.
        max_steps: limit on the steps of each descent; rounded up to the next multiple of 256.

    Returns:
        `Minima`, lowest potential first. Saddles and what did not converge never enter.

    Raises:
        ValueError: for proposals without a common batch axis or with leaves that are not
            floating arrays, or a potential that is not a scalar.

    !!! example

        ```python
        import jax.numpy as jnp
        from thermogen import search


        def double_well(x):
            return jnp.sum((x**2 - 1) ** 2)


        found = search.multistart(double_well, jnp.array([[-2.0], [0.5], [2.0]]))

        assert len(found) == 2 and sorted(found.hits) == [1, 2]
        ```
    """
    check_finite("tol", tol, positive=True)
    check_finite("merge_tolerance", merge_tolerance)
    max_steps = check_count("max_steps", max_steps)
    template, starts = _flattened(proposals)
    n_flat = check_count("n_flat", n_flat, least=0, most=starts.shape[1] - 1)
    with jax.enable_x64(True):
        template = jax.tree.map(jnp.asarray, template)
        shape = eqx.filter_eval_shape(potential, template)
        if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape != ():
            raise ValueError(f"potential must return a scalar array, got {shape}")
        problem = (potential, template)
        verify = functools.partial(_verify_batch, problem, jnp.asarray(n_flat), jnp.asarray(tol))
        solution = _search(problem, verify, starts, max_steps)
        found = np.flatnonzero(is_converged(solution))
        found = found[np.argsort(solution.stats["potential"][found], kind="stable")]
        points = solution.value[found]
        if invariants is not None and found.size:
            kernel = functools.partial(_invariants_batch, invariants, template)
            points = in_batches(kernel, points, _LARGEST_BATCH)
        return _collected(template, solution, found, points, merge_tolerance)


def _flattened(proposals: PyTree) -> tuple[PyTree, Float[np.ndarray, "batch p"]]:
    """One element of the batch, and all of them as rows of a matrix in float64."""
    leaves, structure = jax.tree.flatten(proposals)
    for leaf in leaves:
        if not eqx.is_inexact_array_like(leaf) or np.iscomplexobj(leaf):
            raise ValueError(f"proposals must hold real floating arrays, got {leaf!r}")
    sizes = {np.shape(leaf)[:1] for leaf in leaves}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves)
        raise ValueError(
            f"proposals must have one leading axis of proposals in all leaves, got shapes: {shapes}"
        )
    arrays = [np.asarray(leaf, np.float64) for leaf in leaves]
    rows = np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
    return jax.tree.unflatten(structure, [array[0] for array in arrays]), rows


def _search(
    problem: tuple[Potential, PyTree],
    verify: Callable[[Array], Solution],
    starts: np.ndarray,
    max_steps: int,
) -> Solution:
    """Descend and verify; what did not converge goes on from there with the next stage."""
    largest = max(1, min(_LARGEST_BATCH, _MATRIX_ENTRIES // starts.shape[1] ** 2))
    rows, todo, solution = starts.copy(), np.arange(len(starts)), None
    for dtype, tolerance in _STAGES:
        rows[todo] = _descend(problem, rows[todo], dtype, tolerance, max_steps, largest)
        new = in_batches(verify, rows[todo], largest)
        solution = new if solution is None else replaced(solution, todo, new)
        todo = np.flatnonzero(~is_converged(solution))
        if todo.size == 0:
            break
    assert solution is not None
    return solution


def _descend(
    problem: tuple[Potential, PyTree],
    rows: np.ndarray,
    dtype: DTypeLike,
    tolerance: float | Array,
    max_steps: int,
    largest: int,
) -> np.ndarray:
    """Descend all rows, in rounds between which the finished ones are dropped."""
    tolerance = jnp.asarray(tolerance, dtype)  # as an array it is no reason to compile anew
    solver = optx.BFGS(rtol=tolerance, atol=tolerance)  # pyright: ignore[reportArgumentType]
    kernel = functools.partial(_descend_batch, _cast(problem, dtype), solver)
    rows, todo = rows.copy(), np.arange(len(rows))
    for _ in range(-(-max_steps // _STEPS_PER_ROUND)):
        rows[todo], done = in_batches(kernel, rows[todo].astype(dtype), largest)
        todo = todo[~done]
        if todo.size == 0:
            break
    return rows


@eqx.filter_jit
def _descend_batch(problem, solver: optx.AbstractMinimiser, rows: Float[Array, "batch p"]):
    def single(row):
        descent = optx.minimise(
            _value, solver, row, problem, max_steps=_STEPS_PER_ROUND, throw=False
        )
        # A step that was lost is not taken.
        sound = jnp.all(jnp.isfinite(descent.value))
        more = descent.result == optx.RESULTS.nonlinear_max_steps_reached
        return jnp.where(sound, descent.value, row), ~(sound & more)

    return jax.vmap(single)(rows)


@eqx.filter_jit
def _verify_batch(problem, n_flat: Array, tol: Array, rows: Float[Array, "batch p"]) -> Solution:
    """Newton steps from each row, and a judgement on where they end."""

    def single(row):
        hessian = jax.hessian(_value)(row, problem)
        _, flat = _flat_directions(hessian, n_flat)
        newton, args = NewtonPolish(atol=1e-3 * tol), (problem, row, flat)
        polished = optx.root_find(
            _force, newton, row, args, has_aux=True, max_steps=_NEWTON_STEPS, throw=False
        )
        return _judge(problem, polished.value, n_flat, tol)

    return jax.vmap(single)(rows)


def _force(x: Float[Array, " p"], args) -> tuple[Float[Array, " p"], tuple]:
    """The gradient; along flat directions, where nothing else decides, a pull to the start.

    And its Jacobian.
    """
    problem, start, flat = args

    def force(x):
        value = jax.grad(_value)(x, problem) + dot(flat, x - start)
        return value, value

    jacobian, value = jax.jacfwd(force, has_aux=True)(x)
    return value, (jacobian,)


def _judge(problem, row: Float[Array, " p"], n_flat: Array, tol: Array) -> Solution:
    value, gradient = jax.value_and_grad(_value)(row, problem)
    residual = jnp.max(jnp.abs(gradient))
    hessian = jax.hessian(_value)(row, problem)
    sound = jnp.isfinite(value) & jnp.isfinite(residual) & jnp.all(jnp.isfinite(hessian))
    (values, vectors, is_flat), _ = _flat_directions(jnp.where(sound, hessian, 0.0), n_flat)
    rounding = _ROUNDING * jnp.max(jnp.abs(values))
    curvature = jnp.min(jnp.where(is_flat, jnp.inf, values))
    is_minimum = (curvature > rounding) & jnp.all(values >= -rounding)
    along = dot(gradient, vectors) / jnp.where(is_flat | (values == 0), jnp.inf, values)
    step = dot(vectors, along)
    # At a minimum that is flat to second order every step takes the same share of what is left,
    # and of the curvature at least half: 5/9 at x^4, more at higher powers.
    _, bent = jax.jvp(lambda x: jax.grad(_value)(x, problem), (row - step,), (step,))
    steady = dot(step, bent) >= 0.5 * dot(step, dot(hessian, step))
    located = (jnp.max(jnp.abs(step)) <= _LOCATED) & steady
    result = RESULTS.where(is_minimum, RESULTS.converged, RESULTS.saddle)
    near = (residual <= tol) & (located | ~is_minimum)
    result = RESULTS.where(near, result, RESULTS.stalled)
    result = RESULTS.where(sound, result, RESULTS.non_finite)
    stats = {"potential": value, "residual": residual, "curvature": curvature}
    return Solution(row, result, {}, stats)


def _flat_directions(hessian: Float[Array, "p p"], n_flat: Array):
    """Eigenvalues, eigenvectors, which are flat; and the projector on the flat directions."""
    values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
    is_flat = jnp.argsort(jnp.argsort(jnp.abs(values))) < n_flat
    return (values, vectors, is_flat), dot(vectors * is_flat[None, :], vectors.T)


def _value(row: Float[Array, " p"], problem: tuple[Potential, PyTree]) -> Float[Array, ""]:
    potential, template = problem
    return potential(ravel_pytree(template)[1](row)).astype(row.dtype)


@eqx.filter_jit
def _invariants_batch(invariants: Callable, template: PyTree, rows: Float[Array, "batch p"]):
    unravel = ravel_pytree(template)[1]
    return jax.vmap(lambda row: ravel_pytree(invariants(unravel(row)))[0])(rows)


def _cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The same pytree with its floating arrays in another dtype; functions and counts stay."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, tree)


def _collected(
    template: PyTree,
    solution: Solution,
    found: Int[np.ndarray, " found"],
    points: Float[np.ndarray, "found q"],
    merge_tolerance: float,
) -> Minima:
    """Each minimum once: of equal points the one of lowest potential stands for all."""

    def equals(k: int, others: np.ndarray) -> np.ndarray:
        return np.abs(points[others] - points[k]).max(axis=1, initial=0) <= merge_tolerance

    first, index, hits = np.unique(
        first_equals(len(found), equals), return_inverse=True, return_counts=True
    )
    assignment = np.full(len(solution.value), -1)
    assignment[found] = index
    rows = found[first]
    unravel = ravel_pytree(template)[1]
    return Minima(
        parameters=jax.device_get(jax.vmap(unravel)(jnp.asarray(solution.value[rows]))),
        potentials=solution.stats["potential"][rows],
        residuals=solution.stats["residual"][rows],
        curvatures=solution.stats["curvature"][rows],
        hits=hits,
        assignment=assignment,
        result=solution.result,
    )
