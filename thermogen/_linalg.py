"""Products of matrices: as precise as their numbers, and of minimax paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Int

# Accelerators round the factors of a float32 product to fewer bits unless told otherwise: TF32 of
# NVIDIA keeps 10 of 23, the bfloat16 of TPUs 7. On the processor this changes nothing.
dot = functools.partial(jnp.dot, precision="highest")


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


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse of a matrix, whose derivatives are products and factorise nothing."""
    return jnp.linalg.inv(matrix)


@inverse.defjvp
def _(primals, tangents):
    value = inverse(primals[0])
    return value, -dot(value, dot(tangents[0], value))


def minimax_closure(heights: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Lowest maximum along chains, from that of single links (Floyd and Warshall)."""
    for through in range(len(heights)):
        heights = np.minimum(heights, np.maximum.outer(heights[:, through], heights[through]))
    return heights
