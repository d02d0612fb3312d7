"""Saddles of index 1 of a free energy: strings between minima, refinement, the ways down.

The metric is that of the solvers, `ds^2 = sum_i (1 - m_i^2) dtheta_i^2` with theta = atanh m. It
is Euclidean in the angles arcsin m, in which the scaled Hessian is the Hessian of beta G.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._batches import cast, in_batches
from .._linalg import dot
from ..meanfield import Problem, variance_at

# Strings and saddles are treated in batches of this many, so that one program serves all.
BATCH = 32
_N_IMAGES, _STRING_STEPS, _POWER_STEPS = 32, 256, 12
# Walks that need eigenvectors go one after the other, in batches that waste little when padded.
_WALKS = 8
# Eigenvector following: the longest step in the angles, and the number of steps.
_TRUST, _CLIMB_STEPS = 0.3, 128
# A spin with a smaller sqrt(1 - m^2) is saturated: no other feels how far.
_SATURATED = 1e-8
# The way down from a saddle: how far off it starts, the longest step of the flow, their number.
_OFF_SADDLE, _FLOW_STEP, _FLOW_STEPS = 1e-2, 0.05, 512

_Angles = Float[Array, " n"]


class Points(NamedTuple):
    """Refined tops of strings.

    Attributes:
        fields: theta, shape `(S, n)`.
        modes: direction of the lowest curvature in the angles arcsin m, unit, shape `(S, n)`.
        free_energies: G, shape `(S,)`.
        residuals: max |dG/dm|, shape `(S,)`.
        indices: number of negative eigenvalues of the Hessian, shape `(S,)`.
    """

    fields: Float[np.ndarray, "S n"]
    modes: Float[np.ndarray, "S n"]
    free_energies: Float[np.ndarray, " S"]
    residuals: Float[np.ndarray, " S"]
    indices: Int[np.ndarray, " S"]


def tops_between(
    problem: Problem,
    first: Float[np.ndarray, "pairs n"],
    last: Float[np.ndarray, "pairs n"],
    bend: Float[np.ndarray, "pairs n"],
) -> Float[np.ndarray, "tops n"]:
    """Effective fields of the tops of strings between pairs of minima.

    The simplified string method of E, Ren and Vanden-Eijnden (J. Chem. Phys. 126, 164103 (2007)),
    in float32: images move down the gradient and are spaced evenly after every step.

    Args:
        problem: functional, energy and beta.
        first: angles arcsin m of one end of each string.
        last: angles of the other.
        bend: shift of the middle of the string at the start.
    """
    ends = np.stack([first, last, bend], axis=1).astype(np.float32)
    kernel = functools.partial(_strings, cast(problem, jnp.float32))
    paths, heights = in_batches(kernel, ends, BATCH)
    inner = heights[:, 1:-1]
    tops = (inner > heights[:, :-2]) & (inner >= heights[:, 2:])
    return paths[:, 1:-1][tops].astype(float)


@eqx.filter_jit
def _strings(problem: Problem, ends: Float[Array, "batch 3 n"]):
    return jax.vmap(lambda row: _string(problem, *row))(ends)


def _string(problem: Problem, first: _Angles, last: _Angles, bend: _Angles):
    """Fields and free energies of the images of one relaxed string."""
    along = jnp.linspace(0, 1, _N_IMAGES, dtype=first.dtype)[:, None]
    path = first[None] + along * (last - first)[None] + jnp.sin(jnp.pi * along) * bend[None]
    step_size = 1 / _stiffness(problem, path[_N_IMAGES // 2])

    def down(angles):
        theta = fields_of(angles)
        return angles_of(theta - step_size * problem.residual(theta))

    def relax(_, path):
        return _respaced(path.at[1:-1].set(jax.vmap(down)(path[1:-1])))

    fields = fields_of(jax.lax.fori_loop(0, _STRING_STEPS, relax, path))
    return fields, jax.vmap(lambda theta: problem.free_energy_at(theta))(fields)


def _stiffness(problem: Problem, angles: _Angles) -> Float[Array, ""]:
    """Largest rate at which the gradient flow relaxes at a point, by power iteration; >= 1."""
    theta = fields_of(angles)
    start = jnp.cos(1 + jnp.sqrt(2.0) * jnp.arange(theta.size)).astype(theta.dtype)

    def iterate(_, state):
        vector, _ = state
        turned = jax.jvp(lambda t: problem.residual(t), (theta,), (vector,))[1]
        rate = jnp.linalg.norm(turned)
        return turned / jnp.maximum(rate, jnp.finfo(theta.dtype).tiny), rate

    unit = start / jnp.linalg.norm(start)
    _, rate = jax.lax.fori_loop(0, _POWER_STEPS, iterate, (unit, jnp.ones((), theta.dtype)))
    return jnp.maximum(rate, 1)


def _respaced(path: Float[Array, "images n"]) -> Float[Array, "images n"]:
    """Images at equal distances along the same polygon; the ends stay."""
    lengths = jnp.linalg.norm(jnp.diff(path, axis=0), axis=1)
    reached = jnp.concatenate([jnp.zeros(1, path.dtype), jnp.cumsum(lengths)])
    wanted = jnp.linspace(0, reached[-1], len(path), dtype=path.dtype)[1:-1]
    piece = jnp.clip(jnp.searchsorted(reached, wanted), 1, len(path) - 1)
    share = (wanted - reached[piece - 1]) / jnp.maximum(lengths[piece - 1], 1e-12)
    before, after = path[piece - 1], path[piece]
    return path.at[1:-1].set(before + share[:, None] * (after - before))


def fields_of(angles: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """`atanh(sin(angle))`, finite at a right angle."""
    edge = 1 - jnp.finfo(angles.dtype).eps
    return 2 * jnp.arctanh(jnp.clip(jnp.tan(0.5 * angles), -edge, edge))


def angles_of(theta: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    return 2 * jnp.arctan(jnp.tanh(0.5 * theta))


def refined(problem: Problem, tops: Float[np.ndarray, "tops n"], tol: float) -> Points:
    """Walk from the tops of strings to saddles by eigenvector following, in float64.

    A Newton step in the eigenvectors of the scaled Hessian, uphill along the lowest and downhill
    along all others whatever their curvature (Cerjan and Miller, J. Chem. Phys. 75, 2800
    (1981)), of limited length.
    """
    climb = functools.partial(_climb, problem, jnp.asarray(0.1 * tol))
    return Points(*in_batches(climb, tops, _WALKS))


@eqx.filter_jit
def _climb(problem: Problem, tol: Float[Array, ""], theta: Float[Array, "batch n"]):
    """What `Points` documents."""

    def is_far(state):
        row, k = state
        return (jnp.max(jnp.abs(problem.residual(row))) > tol * problem.beta) & (k < _CLIMB_STEPS)

    def single(row):
        start = (row, jnp.zeros((), int))
        row, _ = jax.lax.while_loop(is_far, lambda s: (_climb_once(problem, s[0]), s[1] + 1), start)
        row = _climb_once(problem, row)  # a last step, which squares the error
        values, vectors = jnp.linalg.eigh(problem.scaled_hessian(row))
        return (
            row,
            vectors[:, 0],
            problem.free_energy_at(row),
            jnp.max(jnp.abs(problem.residual(row))) / problem.beta,
            jnp.sum(values < 0),
        )

    # Under `vmap` all would wait for the slowest.
    return jax.lax.map(single, theta)


def _climb_once(problem: Problem, theta: Float[Array, " n"]) -> Float[Array, " n"]:
    root, residual = jnp.sqrt(variance_at(theta)), problem.residual(theta)
    values, vectors = jnp.linalg.eigh(problem.scaled_hessian(theta))
    size = jnp.maximum(jnp.abs(values), jnp.finfo(theta.dtype).eps).at[0].multiply(-1)
    shift = dot(vectors, -dot(vectors.T, root * residual) / size)
    shift = shift * jnp.minimum(1, _TRUST / (jnp.linalg.norm(shift) + jnp.finfo(theta.dtype).tiny))
    return theta + jnp.where(root > _SATURATED, shift / jnp.maximum(root, _SATURATED), -residual)


def ways_down(
    problem: Problem, fields: Float[np.ndarray, "S n"], modes: Float[np.ndarray, "S n"]
) -> Float[np.ndarray, "S 2 n"]:
    """Effective fields near the bottom on either side of each saddle.

    Small steps of the gradient flow: a solver's long ones may leap into another basin.
    """
    rows = np.stack([fields, modes], axis=1)
    return in_batches(functools.partial(_flow, problem), rows, BATCH)


@eqx.filter_jit
def _flow(problem: Problem, rows: Float[Array, "batch 2 n"]) -> Float[Array, "batch 2 n"]:
    def side(theta, mode):
        root = jnp.sqrt(variance_at(theta))
        start = theta + _OFF_SADDLE * mode / jnp.maximum(root, _SATURATED)

        def down(_, theta):
            residual = problem.residual(theta)
            length = jnp.linalg.norm(jnp.sqrt(variance_at(theta)) * residual)
            return theta - residual * jnp.minimum(0.1, _FLOW_STEP / (length + 1e-30))

        return jax.lax.fori_loop(0, _FLOW_STEPS, down, start)

    def single(row):
        return jnp.stack([side(row[0], row[1]), side(row[0], -row[1])])

    return jax.vmap(single)(rows)
