"""Products of matrices: as precise as their numbers, and of minimax paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Accelerators round the factors of a float32 product to fewer bits unless told otherwise: TF32 of
# NVIDIA keeps 10 of 23, the bfloat16 of TPUs 7. On the processor this changes nothing.
dot = functools.partial(jnp.dot, precision="highest")


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
