"""Objectives on samples whose unknown spins are filled by chains."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._types import Key
from ..energies import AbstractEnergy, n_visible
from ..sampling import Gibbs
from ._chains import at_samples, moved
from ._minimisers import ADAM
from ._objectives import AbstractObjective, Defaults
from ._samples import Samples

# Sweeps of a chain between two steps of learning, and steps of annealing to the first model.
_N_SWEEPS, _N_RUNGS = 2, 64


@functools.singledispatch
def filling(objective: AbstractObjective) -> AbstractObjective:
    """The objective on samples with unknown spins, which chains fill in.

    What `fit` makes of an objective where gaps are too many to be summed out, or where it does not
    sum (`Defaults.sums_gaps`). A Gibbs chain for each sample, in which what is known is clamped,
    goes on from step to step; with mini-batches those of the batch do. For a likelihood the
    gradient is that of the marginal likelihood of what is known, by Fisher's identity
    `dF(known) = <dE>_clamped`. For conditionals, of which those of filled spins have zero mean, it
    vanishes in expectation where the model is the truth: an estimating equation, as the E-step of
    expectation maximisation makes it (Dempster, Laird and Rubin 1977), for entries that are missing
    at random.

    Gradient contract: Monte Carlo, in the limit of slow learning. A value that estimates the
    likelihood is that of what is known: its free energy is followed along the path of learning, by
    thermodynamic integration; with mini-batches the errors of all steps add up, as a random walk.

    Open for extension: `filling.register(YourObjective)`, for one that is made of others.

    !!! example

        ```python
        import thermogen as tg

        objective = tg.learning.filling(tg.Pseudolikelihood())

        assert objective.defaults.gradient_tolerance is None  # chains make it stochastic
        ```
    """
    return Filled(objective)


class FilledState(NamedTuple):
    """Chains that fill the gaps, the free energy of what is known, and the objective's own state.

    Attributes:
        chains: a configuration for each sample of all data, shape `(n, samples)`.
        energy: the energy that they have been moved to.
        free_energy: mean over the samples of the `clamped_free_energy`, by integration.
        inner: state of the objective.
    """

    chains: Float[Array, "n samples"]
    energy: PyTree
    free_energy: Float[Array, ""]
    inner: PyTree


class Filled(AbstractObjective):
    """See `filling`.

    Attributes:
        objective: the objective, which sees samples without gaps.
    """

    objective: AbstractObjective

    @property
    def defaults(self) -> Defaults:
        own = self.objective.defaults
        optimizer = own.optimizer if own.gradient_tolerance is None else ADAM
        return own._replace(
            optimizer=optimizer, gradient_tolerance=None, conditional=False, sums_gaps=True
        )

    @eqx.filter_jit
    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> FilledState:
        """Chains are cooled from infinite temperature to the first model."""
        inner_key, start_key, key = jax.random.split(key, 3)
        # The objective begins with gaps filled by means: a spin that is constant stays so.
        likely = jnp.where(samples.spins == 0, samples.means[None], samples.spins)
        likely = at_samples(Gibbs(), energy, likely, inner_key)
        inner = self.objective.init(energy, _completed(energy, samples, likely), inner_key)
        chains = at_samples(Gibbs(), energy, samples.spins, start_key)
        hottest = jax.tree.map(jnp.zeros_like, energy)
        n_gaps = samples.mean(jnp.sum(samples.spins == 0, axis=1).astype(chains.dtype))
        level = _completed(energy, samples, chains).free_energy(hottest) - n_gaps * float(np.log(2))

        def rung(state, inputs):
            beta, key = inputs
            return _followed(state, jax.tree.map(lambda x: beta * x, energy), samples, key)[0], None

        betas = jnp.linspace(0.0, 1.0, _N_RUNGS + 1, dtype=chains.dtype)[1:]
        state = FilledState(chains, hottest, level, inner)
        return jax.lax.scan(rung, state, (betas, jax.random.split(key, _N_RUNGS)))[0]

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: FilledState, key: Key
    ) -> tuple[Float[Array, ""], FilledState]:
        move_key, key = jax.random.split(key)
        frozen = jax.lax.stop_gradient(energy)
        state, full = _followed(state, frozen, batch, move_key)
        value, inner = self.objective.loss(energy, full, state.inner, key)
        if self.objective.defaults.likelihood:
            # Less the entropy of the gaps given what is known.
            value -= full.free_energy(frozen) - state.free_energy
        return value, state._replace(inner=inner)


def _followed(
    state: FilledState, energy: AbstractEnergy, batch: Samples, key: Key
) -> tuple[FilledState, Samples]:
    """Chains of a batch moved on the way to another energy, and the batch as they fill it."""
    rows = jnp.arange(len(batch.weights)) if batch.rows is None else batch.rows
    n_hidden = energy.n_spins - n_visible(energy)
    known = jnp.pad(batch.spins, ((0, 0), (0, n_hidden)))
    # Chains of the model half-way tell by how much its free energy rises, up to third order.
    middle = jax.tree.map(lambda a, b: 0.5 * (a + b), state.energy, energy)
    new = moved(Gibbs(), middle, state.chains[:, rows], key, _N_SWEEPS, known)
    full = _completed(energy, batch, new)
    level = state.free_energy + full.free_energy(energy) - full.free_energy(state.energy)
    return FilledState(state.chains.at[:, rows].set(new), energy, level, state.inner), full


def _completed(
    energy: AbstractEnergy, samples: Samples, chains: Float[Array, "n samples"]
) -> Samples:
    visible = chains[: n_visible(energy)].T
    return Samples(visible, samples.weights, samples.size, samples.rows)
