"""Products and factorisations of matrices, and minimax paths."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

# Accelerators round the factors of a float32 product to fewer bits unless told otherwise: TF32 of
# NVIDIA keeps 10 of 23, the bfloat16 of TPUs 7. On the processor this changes nothing.
dot = functools.partial(jnp.dot, precision="highest")


def total(terms: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum of a vector, as its product with ones.

    Terms of a plain sum the compiler evaluates within the sum, on the processor operation by
    operation: a long expression took four times as long there as in a loop of its own.
    """
    return dot(terms, jnp.ones_like(terms))


def simplex_corners(
    points: Float[np.ndarray, "rows k"],
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "rows k"]]:
    """Rows that are the corners of a simplex in which all rows lie, and how much each has of them.

    The heart of PCCA (Deuflhard and Weber, Linear Algebra Appl. 398, 161 (2005)): of the leading
    eigenvectors of a transition matrix, corners are what represents the metastable sets.

    Returns:
        Numbers of the corners, and shares of the corners in each row, which sum to 1.
    """
    pivots = scipy.linalg.qr(points.T, mode="economic", pivoting=True)[-1]
    corners = np.asarray(pivots)[: points.shape[1]]
    return corners, np.linalg.solve(points[corners].T, points.T).T


def one_by_one(function: Callable) -> Callable:
    """A function that factorises, which under `vmap` runs row after row on the processor.

    There a batched factorisation of jaxlib gives its rows to the threads of the program and waits
    for them in one of those threads: as many at once as there are threads, two on two cores, wait
    for ever. One by one they wait for nothing, and take as long. Derivatives are the caller's.
    """
    call = jax.custom_batching.custom_vmap(function)

    @call.def_vmap
    def _(size, is_batched, *arrays):
        rows = [
            x if batched else jnp.broadcast_to(x, (size, *x.shape))
            for x, batched in zip(arrays, is_batched, strict=True)
        ]
        found = jax.lax.platform_dependent(
            *rows, cpu=lambda *x: jax.lax.map(lambda row: call(*row), x), default=jax.vmap(function)
        )
        return found, jax.tree.map(lambda _: True, found)

    return call


_inv = one_by_one(jnp.linalg.inv)
eigh = one_by_one(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
_cholesky = one_by_one(jnp.linalg.cholesky)
eigenvalues = one_by_one(lambda matrix: jnp.linalg.eigvalsh(matrix))


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse of a matrix, whose derivatives are products and factorise nothing."""
    return _inv(matrix)


@inverse.defjvp
def _(primals, tangents):
    value = inverse(primals[0])
    return value, -dot(value, dot(tangents[0], value))


@jax.custom_jvp
def lowest_eigenvalue(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """Lowest eigenvalue of a symmetric matrix, with derivatives of all orders.

    Those of `jnp.linalg.eigvalsh` beyond the first are NaN where any two eigenvalues are equal;
    these where the lowest itself is one of equals.
    """
    return eigh(matrix)[0][0]


@lowest_eigenvalue.defjvp
def _(primals, tangents):
    vector = _lowest_vector(primals[0])
    return lowest_eigenvalue(primals[0]), dot(vector, dot(tangents[0], vector))


@jax.custom_jvp
def _lowest_vector(matrix):
    return eigh(matrix)[1][:, 0]


@_lowest_vector.defjvp
def _(primals, tangents):
    (matrix,), (change,) = primals, tangents
    vector, value = _lowest_vector(matrix), lowest_eigenvalue(matrix)
    moved = dot(change, vector)
    eye = jnp.eye(vector.size, dtype=vector.dtype)
    regular = matrix - value * eye + jnp.outer(vector, vector)
    turn = -dot(inverse(regular), moved - dot(vector, moved) * vector)
    return vector, turn * jnp.where(_is_simple(matrix), 1, jnp.nan).astype(turn.dtype)


def _is_simple(matrix):
    """Whether the lowest eigenvalue can be told from the next."""
    values = eigh(jax.lax.stop_gradient(matrix))[0]
    apart = jnp.diff(values[:2]) > jnp.finfo(values.dtype).eps ** 0.5 * jnp.max(jnp.abs(values))
    return jnp.all(apart)


@jax.custom_jvp
def log_abs_det(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """`ln |det|` of a symmetric matrix, whose derivatives are products with its inverse."""
    return jnp.sum(jnp.log(jnp.abs(eigenvalues(matrix))))


@log_abs_det.defjvp
def _(primals, tangents):
    return log_abs_det(primals[0]), jnp.sum(inverse(primals[0]) * tangents[0])


def is_positive(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a symmetric matrix is positive definite: a Cholesky factor exists only then."""
    return jnp.all(jnp.isfinite(_cholesky(jax.lax.stop_gradient(matrix))))


def minimax_closure(heights: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Lowest maximum along chains, from that of single links (Floyd and Warshall)."""
    for through in range(len(heights)):
        heights = np.minimum(heights, np.maximum.outer(heights[:, through], heights[through]))
    return heights
