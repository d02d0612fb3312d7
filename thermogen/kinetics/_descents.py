"""Zero-temperature descents of E by the steepest flips, of many configurations at once."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Num

from .._batches import cast, in_batches
from .._compile import compiled_quickly
from ..energies import (
    AbstractEnergy,
    AbstractMultilinear,
    conditional_fields,
    constrain,
    local_fields,
    n_visible,
)
from ._trajectories import descend

# Gaps below this share of the largest field count as zero: a descent never runs in circles. ...
TIE = 1e-9
# ... So do those below this share of the largest field that parameters of such sizes could make: on
# a plateau all fields are rounding.
_ROUNDING = 1e-12
_BATCH = 1024
# Of more spins sweeps come before the steepest flips; all flips of a descent take some ten of them.
MANY_SPINS, _MOST_SWEEPS = 4096, 1000
# Random points at which an idle spin feels nothing.
_PROBES = 64


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

    Each flips the spin that lowers E most, until none does. Of more than 4096 spins, each of which
    would be looked at for every flip, sweeps go first that flip in turn what lowers E.
    """
    return descents_of(model, starts)[0]


def descents_of(
    model: AbstractEnergy, starts: Num[Array | np.ndarray, "batch n"]
) -> tuple[Int8[np.ndarray, "batch n"], Float[np.ndarray, " batch"]]:
    """`descend_all`, and the ties of `slopes_of` where they end."""
    spins = np.where(np.asarray(starts) < 0, -1, 1).astype(np.int8)
    if spins.shape[1] > MANY_SPINS:
        spins = in_batches(functools.partial(_swept_batch, model), spins, _BATCH)
    return in_batches(functools.partial(_descend_batch, model), spins, _BATCH)


def slopes_of(
    model: AbstractEnergy, spins: Int8[np.ndarray, "batch n"]
) -> tuple[Float[np.ndarray, "batch n"], Float[np.ndarray, " batch"]]:
    """Half of what E rises by with each flip, and below which size that counts as nothing."""
    return in_batches(functools.partial(_slopes_batch, model), spins, _BATCH)


def idle_spins(model: AbstractEnergy, spins: Int8[np.ndarray, "batch n"]) -> Bool[np.ndarray, " n"]:
    """Spins whose flips cost nothing wherever the others point.

    Random corners tell, and the configurations that are given; of a multilinear energy also random
    points inside, where the field of a spin near few corners vanishes nowhere.
    """
    rng, shape = np.random.default_rng(0), (_PROBES, spins.shape[1])
    corners = rng.choice(np.array([-1, 1], np.int8), shape)
    slopes, ties = slopes_of(model, np.concatenate([corners, spins]))
    idle = np.all(np.abs(slopes) <= ties[:, None], axis=0)
    if isinstance(model, AbstractMultilinear):
        points = jnp.asarray(rng.uniform(-0.5, 0.5, shape))
        idle &= np.asarray(_feel_nothing(model, points))
    return idle


@compiled_quickly
def _feel_nothing(model: AbstractMultilinear, m: Float[Array, "probes n"]) -> Bool[Array, " n"]:
    fields = jax.vmap(lambda row: local_fields(model, row))(m)
    return jnp.all(jnp.abs(fields) <= _least_tie(model), axis=0)


@eqx.filter_jit
def _descend_batch(model: AbstractEnergy, spins: Int8[Array, "batch n"]):
    least = _least_tie(model)
    return jax.vmap(lambda s: _descend(model, s, least))(spins)


@compiled_quickly
def _slopes_batch(model: AbstractEnergy, spins: Int8[Array, "batch n"]):
    least = _least_tie(model)
    return jax.vmap(lambda s: _slopes(model, s, least))(spins)


@eqx.filter_jit
def _swept_batch(model: AbstractEnergy, spins: Int8[Array, "batch n"]) -> Int8[Array, "batch n"]:
    # Twice the field, as sweeps have it, below which nothing falls by more than rounding.
    tie = 2 * TIE / _ROUNDING * _least_tie(model)
    swept = descend(model, spins.T.astype(tie.dtype), tie, _MOST_SWEEPS)
    return swept.T.astype(jnp.int8)


def _least_tie(model: AbstractEnergy) -> Float[Array, ""]:
    """Of a multilinear energy whose couplings are all of one sign, all spins up feel most."""
    sizes = jax.tree.map(lambda x: jnp.abs(x) if eqx.is_inexact_array(x) else x, model)
    fields = _fields(sizes, jnp.ones(model.n_spins, jnp.int8))
    return _ROUNDING * jnp.nan_to_num(jnp.max(jnp.abs(fields)), posinf=0)


def _descend(
    model: AbstractEnergy, spins: Int8[Array, " n"], least: Float[Array, ""]
) -> tuple[Int8[Array, " n"], Float[Array, ""]]:
    def downhill(carry):
        _, (slope, tie) = carry
        return jnp.min(slope) < -tie

    def flip(carry):
        s, (slope, _) = carry
        s = jnp.where(jnp.arange(len(s)) == jnp.argmin(slope), -s, s)
        return s, _slopes(model, s, least)

    end, (_, tie) = jax.lax.while_loop(downhill, flip, (spins, _slopes(model, spins, least)))
    return end, tie


def _slopes(model, spins, least):
    fields = _fields(model, spins)
    return spins * fields, jnp.maximum(TIE * jnp.max(jnp.abs(fields)), least)


def _fields(model, spins):
    # Conditional fields are those of visible spins; hidden ones descend as well.
    seen = n_visible(model) == model.n_spins
    return conditional_fields(model, 1.0, spins) if seen else local_fields(model, spins)
