"""Rounds of expectation and maximisation: all experts learn at once."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num, PyTree

from .._placement import gathered
from .._solution import RESULTS
from .._types import Key
from ..energies import AbstractEnergy, Mixture
from ..learning import AbstractObjective, AbstractPenalty, Defaults, Samples, filling, fit
from ..runs import Place, counted
from ._likelihood import log_partitions, negative_log_likelihood, responsibilities

# Share of an even weight that every expert has in every sample: none dies for want of data.
_FLOOR = 1e-3


class Round(NamedTuple):
    """The outcome of one round of expectation and maximisation.

    Attributes:
        mixture: the experts after it.
        loss: negative log-likelihood of the training data, in nats per sample.
        result: result of the fit of the experts, a `RESULTS` code.
    """

    mixture: Mixture
    loss: float
    result: RESULTS


class Learner(NamedTuple):
    """The settings with which experts are learned, the same in every round.

    Attributes:
        objective: the objective, as in `fit`.
        penalty: penalty on the parameters of every expert.
        optimizer: the optimiser, as in `fit`.
        n_steps: most steps in one round; the objective's own default where None.
        n_rounds: largest number of rounds.
        tolerance: rounds end where the loss falls by less, in nats per sample.
        callback: called on the host after every round.
        weights: weight of each sample; equal where None.
        place: where rounds are stored, by number, and the devices that samples are spread over.
    """

    objective: AbstractObjective
    penalty: AbstractPenalty | None = None
    optimizer: optax.GradientTransformation | None = None
    n_steps: int | None = None
    n_rounds: int = 20
    tolerance: float = 1e-4
    callback: Callable[[Round], None] | None = None
    weights: Num[np.ndarray, " samples"] | None = None
    place: Place = Place()

    def at(self, *names: str | int) -> "Learner":
        """The same for a part, which has a place of its own."""
        return self._replace(place=self.place.at(*names))

    def __call__(self, start: Mixture, data: np.ndarray, shares: np.ndarray, key: Key) -> Round:
        """Rounds from a first split of the data; the best of them."""
        best: Round | None = None
        last = np.inf
        for index in counted("Rounds of experts", range(self.n_rounds)):
            one = self.at(index)
            round_key = jax.random.fold_in(key, index)
            this = one._round(start, data, shares, round_key)
            if self.callback is not None:
                self.callback(this)
            if best is None or this.loss < best.loss:
                best = this
            if not last - this.loss > self.tolerance:
                break
            start, last = this.mixture, this.loss
            shares = responsibilities(start, data, key=_gap_key(round_key))
        assert best is not None
        return best

    def _round(self, start: Mixture, data: np.ndarray, shares: np.ndarray, key: Key) -> Round:
        fit_key, partition_key = jax.random.split(key)
        shares = with_floor(shares)
        fitted = fit(
            EachExpert(self.objective, jnp.asarray(shares)),
            start,
            data,
            key=fit_key,
            weights=self.weights,
            penalty=self.penalty,
            optimizer=self.optimizer,
            n_steps=self.n_steps,
            **self.place.options("fit"),
        )
        if fitted.result == RESULTS.non_finite:
            warnings.warn(f"experts: {RESULTS[fitted.result]}", stacklevel=4)
        experts = gathered(cast(Any, fitted.energy).experts)
        mixture = Mixture(
            experts,
            np.log(np.average(shares, axis=0, weights=self.weights)),
            log_partitions(experts, partition_key, **self.place.options("partitions")),
        )
        loss = negative_log_likelihood(mixture, data, weights=self.weights, key=_gap_key(key))
        return Round(mixture, loss, fitted.result)


def _gap_key(round_key: Key) -> Key:
    """The key after the two that a round splits off: the same for the loss and for the shares."""
    return jax.random.split(round_key, 3)[2]


class EachExpert(AbstractObjective):
    """Losses of all experts of a mixture on the data by their shares, added up.

    Gradient contract: that of the objective. The weights of the mixture have no part in it.
    """

    objective: AbstractObjective
    shares: Float[Array, "samples experts"]

    @property
    def defaults(self) -> Defaults:
        return self.objective.defaults._replace(conditional=False)

    @eqx.filter_jit
    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PyTree:
        mixture = cast(Mixture, energy)
        keys = jax.random.split(key, mixture.n_experts)
        return jax.vmap(lambda e, s, k: self.objective.init(e, self._own(samples, s), k))(
            mixture.experts, self._of(samples), keys
        )

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        mixture = cast(Mixture, energy)
        keys = jax.random.split(key, mixture.n_experts)
        losses, state = jax.vmap(
            lambda e, s, carried, k: self.objective.loss(e, self._own(batch, s), carried, k)
        )(mixture.experts, self._of(batch), state, keys)
        return jnp.sum(losses), state

    def _of(self, samples: Samples) -> Float[Array, "experts samples"]:
        """The shares; of samples that fill up on devices, which come last, no expert has any."""
        return jnp.pad(self.shares.T, ((0, 0), (0, len(samples.weights) - len(self.shares))))

    @staticmethod
    def _own(samples: Samples, share: Float[Array, " samples"]) -> Samples:
        """The samples by their shares in one expert, and how many these are worth."""
        weights = samples.weights * share
        total = jnp.sum(weights)
        size = samples.size * total**2 / jnp.sum(weights * share)
        return dataclasses.replace(samples, weights=weights / total, size=size)


@filling.register
def _(objective: EachExpert) -> EachExpert:
    """Each expert fills what is unknown by itself."""
    return EachExpert(filling(objective.objective), objective.shares)


def with_floor(shares: np.ndarray) -> Float[np.ndarray, "samples experts"]:
    return (1 - _FLOOR) * shares + _FLOOR / shares.shape[1]
