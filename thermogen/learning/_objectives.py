"""What an objective is: one way to the gradient of `<E>_data - A(model)` at beta = 1."""

import abc
from typing import NamedTuple

import equinox as eqx
import optax
from jaxtyping import Array, Float, PyTree

from .._types import Key
from ..energies import AbstractEnergy
from ._minimisers import AbstractMinimiser
from ._penalties import Flag
from ._samples import Number, Samples


class Defaults(NamedTuple):
    """How `fit` runs an objective unless it is told otherwise.

    Attributes:
        optimizer: an optax transformation, or a minimiser.
        n_steps: most steps to take.
        gradient_tolerance: largest gradient entry that counts as converged, in nats per energy
            unit, for a deterministic loss on all data; None where the loss is stochastic. May be
            traced.
        bounded: whether the loss itself keeps all couplings finite whatever the data are; may be
            traced.
        bounded_fields: the same of the fields, which is known.
        conditional: whether the loss is a sum over spins given all others, which has no minimum
            where every spin follows from the others without exception.
        likelihood: whether the value of a stochastic loss estimates the negative log-likelihood.
        smooth: whether a deterministic loss has no kinks, across which steps would go to and fro.
        sums_gaps: whether the loss sums over spins that are unknown in samples, where that can be
            done, as `Samples.free_energy` and `Samples.margins` do; chains fill them where it does
            not, and an objective of your own need not know of them.

    !!! example

        ```python
        import thermogen as tg

        defaults = tg.Pseudolikelihood().defaults

        assert isinstance(defaults, tg.learning.Defaults) and defaults.n_steps > 0
        ```
    """

    optimizer: optax.GradientTransformation | AbstractMinimiser
    n_steps: int
    gradient_tolerance: Number | None
    bounded: Flag = False
    bounded_fields: bool = False
    conditional: bool = False
    likelihood: bool = False
    smooth: bool = True
    sums_gaps: bool = False


class AbstractObjective(eqx.Module):
    """A loss of the parameters of an energy, given samples.

    Every objective states its gradient contract: *exact*, *implicit* (exact at a converged
    solve), or *Monte Carlo* (only the gradient means anything, and only in expectation).

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg


        class Doubled(tg.learning.AbstractObjective):
            inner: tg.Pseudolikelihood = tg.Pseudolikelihood()

            @property
            def defaults(self):
                return self.inner.defaults

            def init(self, energy, samples, key):
                return self.inner.init(energy, samples, key)

            def loss(self, energy, batch, state, key):
                value, state = self.inner.loss(energy, batch, state, key)
                return 2 * value, state


        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(Doubled(), start, data, key=jax.random.key(0))

        assert found.result == tg.RESULTS.converged
        ```
    """

    @property
    @abc.abstractmethod
    def defaults(self) -> Defaults:
        """How `fit` runs this objective unless it is told otherwise."""

    @abc.abstractmethod
    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PyTree:
        """State that is carried from step to step, such as persistent chains."""

    @abc.abstractmethod
    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        """Loss per sample in nats, differentiable in `energy`, and the next state."""
