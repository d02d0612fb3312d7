"""What stays right in the cold, where beta E exceeds all that a float resolves."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from ._types import Beta

# Energies that are equal in exact arithmetic differ by fewer units in the last place of the
# largest.
_N_ULPS = 8
# Powers of two are lost below the largest float, so that sums of a few products do not overflow.
_HEADROOM = 16.0


def above_lowest(
    energies: Float[Array | np.ndarray, " states"],
    where: Bool[Array | np.ndarray, " states"] | None = None,
    scale: float | Float[Array, ""] = 0.0,
) -> tuple[Float[Array | np.ndarray, ""], Float[Array | np.ndarray, " states"]]:
    """The lowest energy, and how far each lies above it, shape `(states,)`.

    States that rounding alone tells apart from the lowest are at 0 with it: beta times the rest
    of a difference would choose one of equals. Derivatives are those of the difference.

    Args:
        energies: computed in one and the same way, shape `(states,)`.
        where: the states that count, shape `(states,)`; all of them by default.
        scale: size of the terms of which the energies are sums, where those may cancel.
    """
    xp = np if isinstance(energies, np.ndarray) else jnp
    where = xp.ones(energies.shape, bool) if where is None else where
    lowest = xp.min(xp.where(where, energies, xp.inf), initial=xp.inf)
    largest = xp.max(xp.where(where, xp.abs(energies), 0.0), initial=0.0)
    rounding = _N_ULPS * xp.finfo(energies.dtype).eps * (largest + scale)
    lowest = xp.where(xp.any(where), lowest, 0.0)
    if isinstance(energies, np.ndarray):
        above = energies - lowest
        return lowest, np.where(above <= rounding, 0.0, above)
    lowest = jax.lax.stop_gradient(lowest)
    above = energies - lowest
    return lowest, above - jax.lax.stop_gradient(jnp.where(above <= rounding, above, 0.0))


def log_two_cosh(field: Float[Array, "..."], beta: Beta) -> Float[Array, "..."]:
    """`T ln 2 cosh(beta h)`, minus the free energy of a spin in a field, at any beta > 0."""
    return _log_two_cosh(field, jnp.asarray(beta, field.dtype))


@jax.custom_jvp
def _log_two_cosh(field, beta):
    size = jnp.abs(field)
    return size + jnp.log1p(jnp.exp(-2 * beta * size)) / beta


@_log_two_cosh.defjvp
def _(primals, tangents):
    # The derivatives of |h| and of the rest cancel at 0, where each has a kink.
    (field, beta), (field_dot, beta_dot) = primals, tangents
    x = beta * field
    by_beta = -free_entropy(x) / beta / beta
    return _log_two_cosh(field, beta), jnp.tanh(x) * field_dot + by_beta * beta_dot


@jax.custom_jvp
def free_entropy(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Entropy `ln 2 cosh x - x tanh x` in nats of a spin of mean tanh x, right at any x.

    Its derivatives are right at 0, too, where the terms that it is computed from have kinks.
    """
    twice = 2 * jnp.minimum(jnp.abs(x), jnp.finfo(x.dtype).max / 4)
    rare = jnp.exp(-twice)  # odds of the side against the field
    return jnp.log1p(rare) + twice * rare / (1 + rare)


@free_entropy.defjvp
def _(primals, tangents):
    ((x,), (x_dot,)) = primals, tangents
    variance = 4 * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * x)
    return free_entropy(x), -x * variance * x_dot


def log_sum(logits: Float[Array, "..."], where: Bool[Array, "..."]) -> Float[Array, "..."]:
    """`ln sum exp(logits)` along the first axis, over the terms that count.

    Minus infinity for none, whose derivatives are 0; those of a sum of nothing are no numbers.
    """
    any_left = jnp.any(where, axis=0)
    kept = jnp.where(where, logits, jnp.where(any_left, -jnp.inf, 0.0)[None])
    return jnp.where(any_left, jax.nn.logsumexp(kept, axis=0), -jnp.inf)


def beta_as(beta: Beta, dtype: DTypeLike) -> Float[Array, ""]:
    """Beta as an array; what no float of this dtype holds, infinity too, is the largest."""
    largest = float(jnp.finfo(dtype).max)
    if not isinstance(beta, Tracer):
        beta = min(float(np.asarray(beta)), largest)
    return jnp.minimum(jnp.asarray(beta, dtype), largest)


def resolved_beta(energy: PyTree, beta: Float[Array, ""]) -> Float[Array, ""]:
    """Beta, or the largest at which no product with fields or energies overflows.

    Beyond it nothing that a float resolves depends on beta any more; infinity is it.
    """
    largest = jnp.finfo(beta.dtype).max / _HEADROOM
    size = sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(energy)), jnp.ones((), beta.dtype))
    return jnp.minimum(beta, largest / jax.lax.stop_gradient(size).astype(beta.dtype))
