"""How the dynamics of a certificate move its trajectories, and what a sweep is to them."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Key
from ..energies import AbstractEnergy, AbstractMultilinear, Mixture, Pairwise, complete
from ..sampling import AbstractKernel, HeatBath, colored, step_chains, walk

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

    def step(i, chains):
        return step_chains(dynamics, energy, beta, chains, jax.random.fold_in(key, i))[0]

    chains = spins.reshape(len(spins), -1)
    return jax.lax.fori_loop(0, n_steps, step, chains).reshape(spins.shape)


@advance.register
def _(dynamics: HeatBath, energy, beta, spins, n_steps, key):
    """In groups that share the order of the sites, so that the fields of all are one product.

    Given the order, trajectories are independent; many orders keep the noise that they have in
    common small beside that of the trajectories.
    """
    n, n_starts, n_trajectories = spins.shape
    most = max(_GROUP_OF_START, n // _SPINS_OF_ONE)
    size = min(most, n_trajectories, max(1, _GROUP // n_starts))
    n_groups = -(-n_trajectories // size)
    padding = n_groups * size - n_trajectories
    padded = jnp.pad(spins, ((0, 0), (0, 0), (0, padding)), constant_values=1)
    groups = jnp.moveaxis(padded.reshape(n, n_starts, n_groups, size), 2, 0)
    betas = jnp.broadcast_to(beta, n_starts * size)

    def move(group):
        spins, key = group
        site_key, key = jax.random.split(key)
        keys = jax.random.split(key, n_starts * size)
        return walk(energy, betas, spins.reshape(n, -1), site_key, keys, n_steps)

    # One after the other: what a group needs stays in the cache.
    moved = jax.lax.map(move, (groups, jax.random.split(key, n_groups)))
    moved = jnp.moveaxis(moved.reshape(n_groups, n, n_starts, size), 0, 2)
    return moved.reshape(n, n_starts, -1)[..., :n_trajectories]


def quickest_form(energy: AbstractEnergy) -> AbstractEnergy:
    """The same energy as the kernels move it fastest; its couplings must be known."""
    if isinstance(energy, Pairwise):
        return colored(energy)
    if isinstance(energy, AbstractMultilinear | Mixture) and energy.n_spins <= _MAX_TABLE:
        return complete(energy)
    return energy
