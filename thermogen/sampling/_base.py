"""Samplers: Markov chains that leave the Boltzmann distribution invariant."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Num, PyTree

from .._bits import folded
from .._checks import as_array, as_float, known_spins
from .._compile import compiled_quickly
from .._types import Beta, Key, Spins
from ..energies import AbstractEnergy
from ..runs import Spread, over_lanes

# Inverse temperatures, increasing, shape (rungs,).
Ladder = ArrayLike | Sequence[float]

# The value of each clamped spin, 0 for a free one; None clamps nothing.
Clamp = Num[Array | np.ndarray, " n"] | None


# What chains have drawn: (chains, n), or (chains, draws, n) as `sample` returns it.
Draws = Num[Array | np.ndarray, "chains *draws n"]


class SweepInfo(NamedTuple):
    """The info of a step.

    Attributes:
        flips: number of spins of the chain's configuration that changed.
    """

    flips: Int[Array, ""]


class AbstractSampler(eqx.Module):
    """A pair of pure functions, `init` and `step`, that move ONE chain; `jax.vmap` moves many.

    `beta`, the parameters of the energy and the key are traced: new numbers do not recompile.
    A step returns the new state and what it did, its info. What nobody reads of an info is never
    computed in a compiled program.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        sampler = tg.Gibbs()
        state = sampler.init(energy, 0.5, jnp.ones(3), jax.random.key(0))
        state, info = sampler.step(energy, 0.5, state, jax.random.key(1))

        assert sampler.spins(state).shape == (3,) and info.flips <= 3
        ```
    """

    @abc.abstractmethod
    def init(self, energy: AbstractEnergy, beta: Beta, spins: Spins, key: Key) -> PyTree:
        """State of a chain that starts at `spins`, shape `(n,)`."""

    @abc.abstractmethod
    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: PyTree,
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[PyTree, Any]:
        """The state after one sweep, in which every free spin had its chance to change.

        Args:
            energy: an energy of n spins.
            beta: inverse temperature.
            state: state that `init` or the last `step` returned.
            key: random key, a new one for each step.
            clamp: +1 or -1 where a spin keeps this value, which the state must hold, and 0 where
                it is free, shape `(n,)`; the chain samples the conditional distribution of those.

        Returns:
            The state, and its info: a named tuple of arrays whose first entry is `flips`, how many
            spins of the chain's configuration changed, as in `SweepInfo`.
        """

    @abc.abstractmethod
    def spins(self, state: PyTree) -> Float[Array, " n"]:
        """The configuration at inverse temperature `beta`, shape `(n,)`."""

    @abc.abstractmethod
    def total_energy(self, energy: AbstractEnergy, state: PyTree) -> Float[Array, ""]:
        """Energy of the whole state: the chain leaves `exp(-beta total_energy)` invariant."""


class AbstractKernel(AbstractSampler):
    """A sampler whose state is one configuration, shape `(n,)`: a rule for a step is all it adds.

    Annealing and tempering move configurations by kernels.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Twice(tg.sampling.AbstractKernel):
            def step(self, energy, beta, state, key, clamp=None):
                first, second = jax.random.split(key)
                state, _ = tg.Gibbs().step(energy, beta, state, first, clamp)
                return tg.Gibbs().step(energy, beta, state, second, clamp)


        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(Twice(), energy, 0.5, key=jax.random.key(0), n_chains=10, n_sweeps=20)

        assert spins.shape == (10, 20, 3)
        ```
    """

    def init(
        self, energy: AbstractEnergy, beta: Beta, spins: Spins, key: Key
    ) -> Float[Array, " n"]:
        return as_float(spins)

    def spins(self, state: Float[Array, " n"]) -> Float[Array, " n"]:
        return state

    def total_energy(self, energy: AbstractEnergy, state: Float[Array, " n"]) -> Float[Array, ""]:
        return energy(state)


# Called with the number of steps done, and of all.
Progress = Callable[[int, int], object] | None
_N_CALLS = 20


def reports(n_steps: int, callback: Progress) -> dict[str, Any]:
    """What `run` needs to tell a callback about 20 times how many of `n_steps` are done."""
    if callback is None:
        return {}
    return {
        "callback": lambda state: callback(int(state.n_done), n_steps),
        "every": -(-n_steps // _N_CALLS),
    }


def checked_ladder(betas: Ladder, least: int = 1) -> Float[Array, " rungs"]:
    """`betas` as an array, once it is clear that they lead from hot to cold."""
    betas = as_array("betas", betas)
    # On the host: under the caller's jit every operation of JAX would be traced.
    if not isinstance(betas, Tracer):
        known = np.asarray(betas, float)
        if known.ndim == 1 and not (
            np.all(np.isfinite(known)) and np.all(known >= 0) and np.all(np.diff(known) > 0)
        ):
            raise ValueError("betas must be finite, increase and not be negative: hot to cold")
    ladder = jnp.asarray(betas, float)
    if ladder.ndim != 1 or ladder.size < least:
        raise ValueError(f"betas must have shape (rungs,), rungs >= {least}, got {ladder.shape}")
    return ladder


def parameter_dtype(energy: AbstractEnergy):
    """Dtype of the parameters; a sum of no terms has none."""
    return jnp.result_type(*(jax.tree.leaves(energy) or [float]))


@compiled_quickly
def random_corners(
    energy: AbstractEnergy,
    n_chains: int,
    key: Key,
    clamp: Clamp = None,
    spread: Spread | None = None,
) -> Float[Array, "chains n"]:
    """Samples at infinite temperature, each on the device that holds its chain."""
    up = jax.random.bernoulli(key, shape=(n_chains, energy.n_spins))
    up = up if spread is None else spread.constrained(up, 0)
    spins = jnp.where(up, 1, -1).astype(parameter_dtype(energy))
    return spins if clamp is None else jnp.where(clamp[None] == 0, spins, clamp[None])


def checked_clamp(energy: AbstractEnergy, clamp: Clamp) -> Clamp:
    """`clamp` in the precision of the energy, once it is clear that it holds spins and zeros."""
    if clamp is None:
        return None
    return known_spins("clamp", clamp, energy.n_spins, parameter_dtype(energy))


def checked_draws(spins: Draws, min_chains: int = 1) -> Float[Array, "chains draws n"]:
    """Configurations of independent chains, with one axis of draws, once they are spins.

    Raises:
        ValueError: for other shapes, fewer chains, and known entries other than -1 and +1.
    """
    spins = as_array("spins", spins)
    if spins.ndim not in (2, 3) or 0 in spins.shape:
        raise ValueError(
            f"spins must have shape (chains, n) or (chains, draws, n), got {spins.shape}"
        )
    if len(spins) < min_chains:
        raise ValueError(f"spins must hold at least {min_chains} chains, got {len(spins)}")
    if not isinstance(spins, Tracer) and not bool((abs(spins) == 1).all()):
        raise ValueError("spins must hold -1 and +1 alone")
    return as_float(spins.reshape(-1)).reshape(len(spins), -1, spins.shape[-1])


def count_flips(before: Num[Array, " n"], after: Num[Array, " n"]) -> Int[Array, ""]:
    """How many spins differ."""
    return jnp.sum(before != after)


def step_chains(
    sampler: AbstractSampler,
    energy: AbstractEnergy,
    beta: Beta,
    states: PyTree,
    key: Key,
    clamp: Clamp | Num[Array, "chains n"] = None,
) -> tuple[PyTree, Any]:
    """Chains side by side, on the LAST axis of all arrays of `states` and infos, one step on.

    So the kernels want them: to transpose spins takes longer than to update them. A clamp of shape
    `(chains, n)` is one for each chain.
    """
    # As `jax.random.split` gives them for threefry.
    keys = folded(key, jnp.arange(jax.tree.leaves(states)[0].shape[-1]))

    own = 0 if clamp is not None and np.ndim(clamp) == 2 else None
    axes = None, None, None, own, -1, 0
    step = jax.vmap(_step, in_axes=axes, out_axes=-1)
    return over_lanes(step, axes, -1)(sampler, energy, beta, clamp, states, keys)


def _step(sampler, energy, beta, clamp, state, key):
    return sampler.step(energy, beta, state, key, clamp)
