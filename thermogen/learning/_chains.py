"""Objectives whose `A(model)` is sampled by Markov chains: the gradient is that of its mean."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._checks import check_counts
from .._types import Key
from ..energies import AbstractEnergy, embed, n_visible
from ..runs import over_lanes
from ..sampling import (
    MIN_ESS,
    AbstractKernel,
    AbstractSampler,
    Gibbs,
    log_mean,
    log_states,
    random_corners,
    step_chains,
    systematic_draws,
)
from ._centred import centred_gradient
from ._minimisers import GradientSteps, per_set
from ._objectives import AbstractObjective, Defaults
from ._samples import Samples


def _decaying(step: ArrayLike) -> Array:
    """Long steps first; later the noise of the chains averages out (Robbins and Monro 1951)."""
    return 0.1 / (1 + jnp.asarray(step) / 500)


# Made once: a new transformation object would compile anew.
_SGD = GradientSteps(
    optax.chain(centred_gradient(field_rate=16.0), per_set(), optax.sgd(_decaying))
)
# Weights of chains degenerate where their fields move faster than this.
_GENTLE = GradientSteps(
    optax.chain(centred_gradient(field_rate=4.0), per_set(), optax.sgd(_decaying))
)


class ContrastiveDivergence(AbstractObjective):
    """`<F>_data - <F>_chains`, chains of a few Gibbs sweeps that start at the batch (CD-k).

    F is the free energy of the visible spins, the energy itself where none is hidden (Hinton
    2002). The chains do not forget the data, so that states of the model far from all data stay
    unseen: `PersistentCD` finds them. Unknown spins of samples are filled by chains that go on.

    Gradient contract: Monte Carlo, and biased: that of the negative log-likelihood in the limit
    of many sweeps only. The value of the loss means nothing.

    Attributes:
        n_sweeps: Gibbs sweeps of each chain, k.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.learning.ContrastiveDivergence(), start, data, key=jax.random.key(0), n_steps=50
        )

        assert found.result == tg.RESULTS.completed
        ```
    """

    n_sweeps: int = 1

    def __check_init__(self):
        check_counts(n_sweeps=self.n_sweeps)

    @property
    def defaults(self) -> Defaults:
        return Defaults(_SGD, 3000, None)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        frozen = jax.lax.stop_gradient(energy)
        start_key, key = jax.random.split(key)
        chains = at_samples(Gibbs(), frozen, batch.spins, start_key)
        chains = moved(Gibbs(), frozen, chains, key, self.n_sweeps)
        negative = Samples(chains[: n_visible(energy)].T, batch.weights)
        return batch.free_energy(energy) - negative.free_energy(energy), None


class PersistentCD(AbstractObjective):
    """Persistent contrastive divergence: `<F>_data - <F>_chains` over chains that go on.

    F is the free energy of the visible spins, the energy itself where none is hidden (Tieleman
    2008). With `sampler=ParallelTempering(betas)` hot replicas carry the chains between states
    that the model has parted (Desjardins et al. 2010). Unknown spins of samples are filled by
    chains that go on as well.

    Gradient contract: Monte Carlo. The value of the loss means nothing; its gradient is that of
    the negative log-likelihood in the limit of slow learning.

    Attributes:
        n_chains: number of persistent chains.
        n_sweeps: sweeps between two steps of learning.
        sampler: moves the chains.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(tg.PersistentCD(), start, data, key=jax.random.key(0), n_steps=50)

        assert found.result == tg.RESULTS.completed
        ```
    """

    n_chains: int = 256
    n_sweeps: int = 5
    sampler: AbstractSampler = Gibbs()

    def __check_init__(self):
        check_counts(n_chains=self.n_chains, n_sweeps=self.n_sweeps)

    @property
    def defaults(self) -> Defaults:
        return Defaults(_SGD, 3000, None)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PyTree:
        """Chains start at samples: random corners get caught in the mirror image of the data.

        Returns:
            State of the sampler, the chains on the last axis.
        """
        draw_key, start_key = jax.random.split(key)
        starts = samples.draw(draw_key, self.n_chains).spins
        return at_samples(self.sampler, energy, starts, start_key)

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        frozen = jax.lax.stop_gradient(energy)
        state = moved(self.sampler, frozen, state, key, self.n_sweeps)
        spins = jax.vmap(self.sampler.spins, in_axes=-1)(state)[:, : n_visible(energy)]
        negative = Samples(spins, jnp.full(self.n_chains, 1 / self.n_chains, spins.dtype))
        return batch.free_energy(energy) - negative.free_energy(energy), state


class AnnealedState(NamedTuple):
    """Two populations of chains that sample `energy` with weights, and ln Z of it by each.

    Attributes:
        chains: configurations, shape `(2, n, n_chains)`.
        log_weights: logarithms of the weights of the chains since they were last drawn anew,
            shape `(2, n_chains)`.
        log_partition: ln Z when the chains were last drawn anew, shape `(2,)`.
        energy: the energy that they sample.
        failed: whether a step ever left so few chains with weight that ln Z is lost, shape `(2,)`.
    """

    chains: Float[Array, "2 n chains"]
    log_weights: Float[Array, "2 chains"]
    log_partition: Float[Array, " 2"]
    energy: PyTree
    failed: Bool[Array, " 2"]


class AnnealedLikelihood(AbstractObjective):
    """The negative log-likelihood by annealed importance sampling along the path of learning.

    Every step of learning is a step of annealing: chains keep the weight `exp(E_old - E_new)` by
    which the model has moved on before they could follow, and gradients are weighted means. So
    the bias of slow chains, which `PersistentCD` leaves, is corrected, and `Z = Z_0 <w>` comes
    for free (Neal 2001; Carbone et al. 2023). Chains are drawn anew in proportion to their
    weights where less than half of them count.

    One population of chains steers the learning, a second one, which has no part in it, keeps the
    account of Z: chains that steer would be led where they make Z too small.

    Gradient contract: Monte Carlo, consistent in the number of chains. Unlike that of the other
    sampled objectives the value of the loss is an estimate, of the negative log-likelihood; it
    is too low rather than too high, as ln Z by annealing is. With unknown spins, which chains fill,
    it is that of what is known, by integration along the path. It is infinite from the step on that
    left too few chains with weight for an estimate; `fit` then says `few_weights`.

    Attributes:
        n_chains: number of chains in each population.
        n_sweeps: sweeps between two steps of learning.
        n_rungs: steps of annealing from infinite temperature to the first model.
        kernel: moves the chains.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.learning.AnnealedLikelihood(), start, data, key=jax.random.key(0), n_steps=50
        )

        assert found.result == tg.RESULTS.completed
        ```
    """

    n_chains: int = 512
    n_sweeps: int = 1
    n_rungs: int = 64
    kernel: AbstractKernel = Gibbs()

    def __check_init__(self):
        check_counts(n_chains=self.n_chains, n_sweeps=self.n_sweeps, n_rungs=self.n_rungs)

    @property
    def defaults(self) -> Defaults:
        return Defaults(_GENTLE, 3000, None, likelihood=True)

    # Compiled once for all fits: a loop outside jit would compile anew at every call.
    @eqx.filter_jit
    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> AnnealedState:
        start_key, key = jax.random.split(key)
        corners = random_corners(energy, 2 * self.n_chains, start_key)
        chains = corners.reshape(2, self.n_chains, -1).swapaxes(1, 2)
        hottest = jax.tree.map(jnp.zeros_like, energy)
        log_partition = jnp.full(2, log_states(energy, chains.dtype))
        zeros = jnp.zeros((2, self.n_chains), chains.dtype)
        state = AnnealedState(chains, zeros, log_partition, hottest, jnp.zeros(2, bool))

        def rung(state, inputs):
            beta, key = inputs
            return self._follow(state, jax.tree.map(lambda x: beta * x, energy), key), None

        betas = jnp.linspace(0.0, 1.0, self.n_rungs + 1, dtype=chains.dtype)[1:]
        return jax.lax.scan(rung, state, (betas, jax.random.split(key, self.n_rungs)))[0]

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: AnnealedState, key: Key
    ) -> tuple[Float[Array, ""], AnnealedState]:
        state = self._follow(state, jax.lax.stop_gradient(energy), key)
        visible = state.chains[0, : n_visible(energy)].T
        negative = Samples(visible, jax.nn.softmax(state.log_weights[0])).free_energy(energy)
        log_partition = state.log_partition[1] + log_mean(state.log_weights[1])[0]
        log_partition = jnp.where(state.failed[1], jnp.inf, log_partition)
        # The gradient of ln Z is that of minus the weighted mean; its value is the estimate.
        constant = jax.lax.stop_gradient(log_partition + negative)
        return batch.free_energy(energy) - negative + constant, state

    def _follow(self, state: AnnealedState, energy: PyTree, key: Key) -> AnnealedState:
        """Weigh the chains for another energy, draw them anew if need be, and move them."""

        def population(chains, log_weights, log_partition, failed, key):
            draw_key, key = jax.random.split(key)
            before, after = (jax.vmap(e, in_axes=-1)(chains) for e in (state.energy, energy))
            log_weights += before - after
            gain, _, ess = log_mean(log_weights)
            poor = ess < 0.5 * self.n_chains
            parents = systematic_draws(jax.nn.softmax(log_weights), draw_key)
            chains = jnp.where(poor, chains[:, parents], chains)
            return (
                moved(self.kernel, energy, chains, key, self.n_sweeps),
                jnp.where(poor, 0.0, log_weights),
                log_partition + jnp.where(poor, gain, 0.0),
                failed | ~(ess >= min(MIN_ESS, self.n_chains / 4)),
            )

        keys = jax.random.split(key)
        chains, log_weights, log_partition, failed = jax.vmap(population)(
            *state[:3], state.failed, keys
        )
        return AnnealedState(chains, log_weights, log_partition, energy, failed)


def at_samples(
    sampler: AbstractSampler,
    energy: AbstractEnergy,
    visible: Float[Array, "chains visible"],
    key: Key,
) -> PyTree:
    """Chains that start at samples, on the last axis; hidden spins are drawn given them.

    Of a spin that has a mean instead of a value, one is drawn.
    """

    axes = None, None, 0, 0
    start = over_lanes(jax.vmap(_at_sample, axes, -1), axes, -1)
    return start(sampler, energy, visible, jax.random.split(key, len(visible)))


def _at_sample(sampler, energy, sample, key):
    draw_key, key = jax.random.split(key)
    m = jnp.asarray(embed(energy, 1.0, sample))
    up = jax.random.uniform(draw_key, m.shape, m.dtype) < 0.5 * (1 + m)
    return sampler.init(energy, 1.0, jnp.where(up, 1, -1).astype(m.dtype), key)


def moved(
    sampler: AbstractSampler,
    energy: AbstractEnergy,
    states: PyTree,
    key: Key,
    n_sweeps: int,
    clamps: Float[Array, "chains n"] | None = None,
) -> PyTree:
    """All chains a few sweeps on, each with what is clamped in it."""

    def sweep(states, key):
        return step_chains(sampler, energy, 1.0, states, key, clamps)[0], None

    return jax.lax.scan(sweep, states, jax.random.split(key, n_sweeps))[0]
