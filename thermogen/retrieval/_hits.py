"""The time in which a chain finds an answer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from .._checks import as_array, check_count, check_parameters, checked_beta
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, n_visible
from ..sampling import AbstractSampler, Gibbs, colored, random_corners, step_chains
from ._recall import known_visible


@from_anywhere
def first_hits(
    energy: AbstractEnergy,
    beta: Beta,
    cue: Num[Array | np.ndarray, "..."],
    targets: Num[Array | np.ndarray, "targets visible"],
    *,
    key: Key,
    sampler: AbstractSampler = Gibbs(),
    n_chains: int = 64,
    n_sweeps: int | Int[Array, ""] = 1000,
) -> Float[Array, " chains"]:
    """Sweeps until each chain first equals a target, with the known spins of the cue clamped.

    Chains start at random values of the free spins and are looked at after every sweep. All
    arguments but the sampler's structure and `n_chains` are traced, and the function passes
    through `jax.vmap`.

    Args:
        energy: an energy of n visible spins.
        beta: inverse temperature.
        cue: +1 or -1 where a spin is known, 0 where it is not, shape `(n,)`.
        targets: configurations of the visible spins, shape `(targets, n)`.
        key: random key.
        sampler: moves the chains.
        n_chains: number of chains.
        n_sweeps: number of sweeps after which a chain gives up.

    Returns:
        Number of sweeps of each chain, shape `(n_chains,)`: 0 for a chain that started at a
        target, and infinity for a chain that never met one.

    Raises:
        ValueError: for a cue or targets of a wrong shape, and for counts that are not
            positive.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        cue, targets = jnp.array([1, 0, 0]), jnp.ones((1, 3))
        sweeps = tg.retrieval.first_hits(energy, 1.0, cue, targets, key=jax.random.key(0))

        assert sweeps.shape == (64,) and jnp.median(sweeps) < 5
        ```
    """
    n_chains = check_count("n_chains", n_chains)
    if not isinstance(n_sweeps, Tracer):
        n_sweeps = check_count("n_sweeps", n_sweeps)
    check_parameters(energy)
    n, targets = n_visible(energy), as_array("targets", targets)
    if targets.ndim != 2 or targets.shape[1] != n:
        raise ValueError(f"targets must have shape (targets, {n}), got {targets.shape}")
    clamp = known_visible(energy, cue)
    beta = checked_beta(beta, clamp.dtype)
    targets = jnp.asarray(targets, clamp.dtype)
    limit = jnp.asarray(n_sweeps)
    return _first_hits(colored(energy), clamp, beta, targets, key, sampler, n_chains, limit)


@eqx.filter_jit
def _first_hits(energy, clamp, beta, targets, key, sampler, n_chains, limit):
    corner_key, start_key, key = jax.random.split(key, 3)
    corners = random_corners(energy, n_chains, corner_key, clamp)
    start = jax.vmap(sampler.init, in_axes=(None, None, 0, 0), out_axes=-1)
    states = start(energy, beta, corners, jax.random.split(start_key, n_chains))

    def look(count, states, hits):
        visible = jax.vmap(sampler.spins, in_axes=-1)(states)[:, : targets.shape[1]]
        # Products of spins are exact, in float32 too.
        met = jnp.any(visible @ targets.T == targets.shape[1], axis=1)
        return jnp.where(jnp.isinf(hits) & met, count, hits)

    def going(carry):
        count, _, hits = carry
        return (count < limit) & jnp.any(jnp.isinf(hits))

    def sweep(carry):
        count, states, hits = carry
        sweep_key = jax.random.fold_in(key, count)
        states, _ = step_chains(sampler, energy, beta, states, sweep_key, clamp)
        return count + 1, states, look(count + 1, states, hits)

    never = jnp.full(n_chains, jnp.inf, corners.dtype)
    return jax.lax.while_loop(going, sweep, (0, states, look(0, states, never)))[2]
