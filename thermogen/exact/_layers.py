"""ln Z of two layers of spins, as of a machine, by enumeration of the smaller one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._linalg import dot
from .._types import Beta
from ..energies import Layers
from ..spins import enumerate_spins

_MAX_LAYER = 24
# Configurations of the layer that are summed at once: their fields on the other layer lie in cache.
_SPINS_PER_CHUNK = 10


def layered_log_partition(pair: Layers, beta: Beta) -> Float[Array, ""]:
    """`ln sum_u exp(beta c . u) prod_j 2 cosh(beta (d_j + (u W)_j))`, u the smaller layer.

    Chunk by chunk, so that neither the value nor its gradient holds all configurations.

    Raises:
        ValueError: if both layers have more than 24 spins.
    """
    w, own, other = beta * pair.weights, pair.first, pair.second
    if own.size > other.size:
        w, own, other = w.T, other, own
    if own.size > _MAX_LAYER:
        raise ValueError(
            f"energy must have a layer of at most {_MAX_LAYER} spins to be enumerated, got layers "
            f"of {pair.first.size} and {pair.second.size}"
        )
    own, other = beta * own, beta * other
    low = min(own.size, _SPINS_PER_CHUNK)
    inner = jnp.asarray(enumerate_spins(low), w.dtype)
    bits = np.arange(own.size - low)

    @jax.checkpoint
    def chunk(total, index):
        outer = (2 * (index >> bits & 1) - 1).astype(w.dtype)
        fields = dot(inner, w[:low]) + (other + dot(outer, w[low:]))[None, :]
        log_terms = dot(inner, own[:low]) + jnp.sum(jnp.logaddexp(fields, -fields), axis=1)
        log_sum = jax.nn.logsumexp(log_terms) + dot(outer, own[low:])
        return jnp.logaddexp(total, log_sum), None

    start = jnp.full((), -jnp.inf, w.dtype)
    return jax.lax.scan(chunk, start, jnp.arange(2 ** len(bits)))[0]
