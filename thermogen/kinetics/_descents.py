"""Zero-temperature descents of E by the steepest flips, of many configurations at once."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

from .._batches import cast, in_batches
from ..energies import AbstractEnergy, conditional_fields, constrain, local_fields, n_visible

# Gaps below this share of the largest field count as zero: a descent never runs in circles.
TIE = 1e-9
_BATCH = 1024


@eqx.filter_jit
def prepared(energy: AbstractEnergy) -> AbstractEnergy:
    """The same energy in double precision, its parameters as all functions see them.

    Needs 64 bits enabled.
    """
    return constrain(cast(energy, jnp.float64))


def descend_all(
    model: AbstractEnergy, starts: Num[Array | np.ndarray, "batch n"]
) -> Int8[np.ndarray, "batch n"]:
    """Zero-temperature descents of many configurations; needs 64 bits enabled.

    Each flips the spin that lowers E most, until none does.
    """
    return descents_of(model, starts)[0]


def descents_of(
    model: AbstractEnergy, starts: Num[Array | np.ndarray, "batch n"]
) -> tuple[Int8[np.ndarray, "batch n"], Float[np.ndarray, " batch"]]:
    """`descend_all`, and the ties of `slopes_of` where they end."""
    spins = np.where(np.asarray(starts) < 0, -1, 1).astype(np.int8)
    return in_batches(functools.partial(_descend_batch, model), spins, _BATCH)


def slopes_of(
    model: AbstractEnergy, spins: Int8[np.ndarray, "batch n"]
) -> tuple[Float[np.ndarray, "batch n"], Float[np.ndarray, " batch"]]:
    """Half of what E rises by with each flip, and below which size that counts as nothing."""
    return in_batches(functools.partial(_slopes_batch, model), spins, _BATCH)


@eqx.filter_jit
def _descend_batch(model: AbstractEnergy, spins: Int8[Array, "batch n"]):
    return jax.vmap(lambda s: _descend(model, s))(spins)


@eqx.filter_jit
def _slopes_batch(model: AbstractEnergy, spins: Int8[Array, "batch n"]):
    return jax.vmap(lambda s: _slopes(model, s))(spins)


def _descend(
    model: AbstractEnergy, spins: Int8[Array, " n"]
) -> tuple[Int8[Array, " n"], Float[Array, ""]]:
    def downhill(carry):
        _, (slope, tie) = carry
        return jnp.min(slope) < -tie

    def flip(carry):
        s, (slope, _) = carry
        s = jnp.where(jnp.arange(len(s)) == jnp.argmin(slope), -s, s)
        return s, _slopes(model, s)

    end, (_, tie) = jax.lax.while_loop(downhill, flip, (spins, _slopes(model, spins)))
    return end, tie


def _slopes(model, spins):
    # Conditional fields are those of visible spins; hidden ones descend as well.
    seen = n_visible(model) == model.n_spins
    fields = conditional_fields(model, 1.0, spins) if seen else local_fields(model, spins)
    return spins * fields, TIE * jnp.max(jnp.abs(fields))
