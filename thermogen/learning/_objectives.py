"""Objectives: ways to the gradient of the potential `<E>_data - A(model)`, at beta = 1."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num, PyTree

from .._solution import RESULTS
from .._types import Key
from ..energies import (
    AbstractMultilinear,
    embed,
    local_fields,
    n_visible,
    squared_norm,
    visible_free_energy,
)
from ..meanfield import AbstractFunctional, solve
from ..sampling import Gibbs

Data = Num[Array, "batch visible"]


class Defaults(NamedTuple):
    """How `fit` runs an objective unless it is told otherwise.

    Attributes:
        optimizer: an optax transformation.
        n_steps: most steps to take.
        gradient_tolerance: largest gradient entry that counts as converged, in nats per energy
            unit, for a deterministic loss on the full batch; None where the loss is stochastic.
    """

    optimizer: optax.GradientTransformation
    n_steps: int
    gradient_tolerance: float | None


# Made once: a new transformation object would compile anew.
_LBFGS = optax.lbfgs()
MINI_BATCH_OPTIMIZER = optax.adam(1e-2)
_SGD = optax.sgd(2e-2)


class AbstractObjective(eqx.Module):
    """A loss of the parameters of an energy, given a batch of data.

    Every objective states its gradient contract: *exact*, *implicit* (exact at a converged
    solve), or *Monte Carlo* (only the gradient means anything, and only in expectation).
    """

    @property
    @abc.abstractmethod
    def defaults(self) -> Defaults:
        """How `fit` runs this objective unless it is told otherwise."""

    @abc.abstractmethod
    def init(self, energy: AbstractMultilinear, data: Data, key: Key) -> PyTree:
        """State that is carried from step to step, such as persistent chains."""

    @abc.abstractmethod
    def loss(
        self, energy: AbstractMultilinear, batch: Data, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        """Loss per sample in nats, differentiable in `energy`, and the next state."""


class Pseudolikelihood(AbstractObjective):
    """Mean of `-sum_k ln P(s_k | rest)` plus `l2` times the sum of squared couplings and fields.

    Gradient contract: exact. The loss is convex in the parameters (Besag 1975; Ravikumar,
    Wainwright and Lafferty 2010). For fully visible multilinear energies such as `Pairwise` and
    `Interactions`. Each coupling counts once in the penalty, the two halves of `J_ij` together.

    Attributes:
        l2: strength of the ridge penalty, in nats per squared energy unit.
    """

    l2: float | int | Float[Array, ""] = 1e-3

    @property
    def defaults(self) -> Defaults:
        return Defaults(_LBFGS, 3000, 1e-5)

    def init(self, energy: AbstractMultilinear, data: Data, key: Key) -> None:
        if n_visible(energy) != energy.n_spins:
            raise ValueError(
                "energy must have no hidden spins for Pseudolikelihood, got "
                f"{type(energy).__name__}; PersistentCD and MeanFieldLikelihood take hidden spins"
            )

    def loss(
        self, energy: AbstractMultilinear, batch: Data, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        fields = jax.vmap(lambda s: local_fields(energy, s))(batch)
        surprise = jnp.sum(jax.nn.softplus(-2 * batch * fields), axis=1)
        return jnp.mean(surprise) + self.l2 * squared_norm(energy), None


class MeanFieldLikelihood(AbstractObjective):
    """The mean-field potential `<E>_data - min_m G(m)`: `A(model)` by a minimum of G.

    G is minimised from a few samples of the batch, and the lowest converged minimum counts; if
    none converges the loss is infinite, which `fit` reports. Hidden spins are summed out of the
    data term and take part in m.

    Gradient contract: implicit, through the solve. For order 1 the loss bounds the negative
    log-likelihood from below; beyond it bounds nothing.

    Attributes:
        functional: the free energy, such as `TAP()`.
        n_starts: number of samples from which G is minimised in each step.
    """

    functional: AbstractFunctional
    n_starts: int = 4

    @property
    def defaults(self) -> Defaults:
        return Defaults(MINI_BATCH_OPTIMIZER, 300, None)

    def init(self, energy: AbstractMultilinear, data: Data, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractMultilinear, batch: Data, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        def minimum(start):
            solution = solve(self.functional, energy, 1.0, start, throw=False)
            converged = solution.result == RESULTS.converged
            return jnp.where(converged, solution.stats["free_energy"], jnp.inf)

        starts = jax.random.choice(key, batch, (self.n_starts,))
        minima = jax.vmap(lambda s: minimum(embed(energy, s, 1.0)))(starts)
        return _mean_free_energy(energy, batch) - jnp.min(minima), None


class PersistentCD(AbstractObjective):
    """Persistent contrastive divergence: `<F>_data - <F>_chains` over Gibbs chains that go on.

    F is the free energy of the visible spins, the energy itself where none is hidden (Tieleman
    2008).

    Gradient contract: Monte Carlo. The value of the loss means nothing; its gradient is that of
    the negative log-likelihood in the limit of slow learning.

    Attributes:
        n_chains: number of persistent chains.
        n_sweeps: Gibbs sweeps between two steps of learning.
    """

    n_chains: int = 256
    n_sweeps: int = 5

    @property
    def defaults(self) -> Defaults:
        return Defaults(_SGD, 3000, None)

    def init(self, energy: AbstractMultilinear, data: Data, key: Key) -> Float[Array, "chains n"]:
        """Chains start at samples: random corners get caught in the mirror image of the data."""
        samples = jax.random.choice(key, data, (self.n_chains,))
        return jax.vmap(lambda s: jnp.asarray(embed(energy, s, 1.0)))(samples)

    def loss(
        self, energy: AbstractMultilinear, batch: Data, state: Float[Array, "chains n"], key: Key
    ) -> tuple[Float[Array, ""], Float[Array, "chains n"]]:
        frozen = jax.lax.stop_gradient(energy)

        def sweep(chains, sweep_key):
            keys = jax.random.split(sweep_key, self.n_chains)
            return jax.vmap(lambda s, k: Gibbs().step(frozen, s, 1.0, k))(chains, keys), None

        chains, _ = jax.lax.scan(sweep, state, jax.random.split(key, self.n_sweeps))
        visible = chains[:, : n_visible(energy)]
        return _mean_free_energy(energy, batch) - _mean_free_energy(energy, visible), chains


def _mean_free_energy(energy: AbstractMultilinear, visible: Data) -> Float[Array, ""]:
    return jnp.mean(jax.vmap(lambda s: visible_free_energy(energy, s, 1.0))(visible))
