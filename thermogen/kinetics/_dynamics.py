"""How the dynamics of a certificate move its trajectories, and what a sweep is to them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Key
from ..energies import AbstractEnergy, AbstractMultilinear, Mixture, Pairwise, complete
from ..runs import over_lanes
from ..sampling import AbstractKernel, HeatBath, colored, walk

# Up to this size the energies of all configurations are one table, and fields are looked up.
_MAX_TABLE = 12
# Trajectories from all starts that visit the same random sites are about so many, ...
_GROUP = 64
# ... and from one start at most so many, or one for every so many spins: where the first few sites
# decide which way a trajectory goes, those of one order are little more than one.
_GROUP_OF_START, _SPINS_OF_ONE = 8, 32


@functools.singledispatch
def steps_per_sweep(dynamics: AbstractKernel, n_spins: int) -> int:
    """Into how many steps, at which one may look, `advance` divides a sweep."""
    return 1


@steps_per_sweep.register
def _(dynamics: HeatBath, n_spins: int) -> int:
    return n_spins


@functools.singledispatch
def advance(
    dynamics: AbstractKernel,
    energy: AbstractEnergy,
    beta: Float[Array, ""],
    spins: Float[Array, "n starts trajectories"],
    n_steps: Int[Array, ""],
    key: Key,
) -> Float[Array, "n starts trajectories"]:
    """All trajectories so many steps on."""

    # Chains in rows of those from one start, so that they stay on the devices that hold them.
    shape = spins.shape[1:]
    chains = jax.vmap(_moved, (None, None, None, -1, 0), -1)
    rows = jax.vmap(chains, (None, None, None, 1, 0), 1)
    move = over_lanes(rows, (None, None, None, 2, 1), 2)

    def step(i, spins):
        keys = jax.random.split(jax.random.fold_in(key, i), shape[0] * shape[1])
        return move(dynamics, energy, beta, spins, keys.reshape(shape))

    return jax.lax.fori_loop(0, n_steps, step, spins)


def _moved(dynamics, energy, beta, spins, key):
    return dynamics.step(energy, beta, spins, key)[0]


@advance.register
def _(dynamics: HeatBath, energy, beta, spins, n_steps, key):
    """In groups that share the order of the sites, so that the fields of all are one product.

    Given the order, trajectories are independent; many orders keep the noise that they have in
    common small beside that of the trajectories.
    """
    n, n_starts, n_trajectories = spins.shape
    # A power of two, so that groups divide over devices.
    most = max(_GROUP_OF_START, 1 << (n // _SPINS_OF_ONE).bit_length() >> 1)
    size = min(most, n_trajectories, max(1, _GROUP // n_starts))
    n_groups = -(-n_trajectories // size)
    padding = n_groups * size - n_trajectories
    padded = jnp.pad(spins, ((0, 0), (0, 0), (0, padding)), constant_values=1)
    groups = jnp.moveaxis(padded.reshape(n, n_starts, n_groups, size), 2, 0)
    move = over_lanes(_move_groups, (None, None, None, 0, 0), 0)
    moved = move(energy, beta, n_steps, groups, jax.random.split(key, n_groups))
    moved = jnp.moveaxis(moved.reshape(n_groups, n, n_starts, size), 0, 2)
    return moved.reshape(n, n_starts, -1)[..., :n_trajectories]


def _move_groups(
    energy: AbstractEnergy,
    beta: Float[Array, ""],
    n_steps: Int[Array, ""],
    groups: Float[Array, "groups n starts size"],
    keys: Array,
) -> Float[Array, "groups n replicas"]:
    """One after the other: what a group needs stays in the cache."""
    n, n_replicas = groups.shape[1], groups[0, 0].size
    betas = jnp.broadcast_to(beta, n_replicas)

    def move(group):
        spins, key = group
        site_key, key = jax.random.split(key)
        keys = jax.random.split(key, n_replicas)
        return walk(energy, betas, spins.reshape(n, -1), site_key, keys, n_steps)

    return jax.lax.map(move, (groups, keys))


def quickest_form(energy: AbstractEnergy) -> AbstractEnergy:
    """The same energy as the kernels move it fastest; its couplings must be known."""
    if isinstance(energy, Pairwise):
        return colored(energy)
    if isinstance(energy, AbstractMultilinear | Mixture) and energy.n_spins <= _MAX_TABLE:
        return complete(energy)
    return energy
