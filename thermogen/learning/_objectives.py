"""What an objective is: one way to the gradient of `<E>_data - A(model)` at beta = 1."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Num, PyTree

from .._checks import as_array
from .._types import Key
from ..datasets import validate_spins
from ..energies import AbstractEnergy, n_visible, parameter_terms, visible_free_energy

# Made once: a new transformation object would compile anew.
LBFGS = optax.lbfgs()
ADAM = optax.adam(1e-2)


class Samples(eqx.Module):
    """Data, or a batch of them.

    Attributes:
        spins: samples of +-1, shape `(samples, visible)`.
        weights: share of each sample in all means, shape `(samples,)`; they sum to 1.
        size: how many independent samples they are worth, by which priors are weighed; that of
            all data for a batch of them. Where None, `1 / sum of squared weights` (Kish 1965).
    """

    spins: Num[Array, "samples visible"]
    weights: Float[Array, " samples"]
    size: Float[Array, ""]

    def __init__(
        self,
        spins: Num[Array, "samples visible"],
        weights: Float[Array, " samples"],
        size: Float[Array, ""] | None = None,
    ):
        self.spins, self.weights = spins, weights
        self.size = 1 / jnp.sum(jnp.square(weights)) if size is None else size

    def mean(self, values: Float[Array, "samples ..."]) -> Float[Array, "..."]:
        """Weighted mean of one value, or one array, for each sample."""
        return jnp.tensordot(self.weights, values, axes=1, precision="highest")

    def draw(self, key: Key, count: int) -> Num[Array, "count visible"]:
        """Samples drawn with replacement in proportion to their weights."""
        return jax.random.choice(key, self.spins, (count,), p=self.weights)

    def free_energy(self, energy: AbstractEnergy) -> Float[Array, ""]:
        """Mean of the `visible_free_energy` at beta = 1: the data term of the potential."""
        return self.mean(jax.vmap(lambda s: visible_free_energy(energy, 1.0, s))(self.spins))


class Defaults(NamedTuple):
    """How `fit` runs an objective unless it is told otherwise.

    Attributes:
        optimizer: an optax transformation.
        n_steps: most steps to take.
        gradient_tolerance: largest gradient entry that counts as converged, in nats per energy
            unit, for a deterministic loss on all data; None where the loss is stochastic.
        bounded: whether the loss itself keeps all couplings finite whatever the data are.
        bounded_fields: the same of the fields.
        conditional: whether the loss is a sum over spins given all others, which has no minimum
            where every spin follows from the others without exception.
        likelihood: whether the value of a stochastic loss estimates the negative log-likelihood.
        smooth: whether a deterministic loss has no kinks, across which steps would go to and fro.
    """

    optimizer: optax.GradientTransformation
    n_steps: int
    gradient_tolerance: float | None
    bounded: bool = False
    bounded_fields: bool = False
    conditional: bool = False
    likelihood: bool = False
    smooth: bool = True


class AbstractObjective(eqx.Module):
    """A loss of the parameters of an energy, given samples.

    Every objective states its gradient contract: *exact*, *implicit* (exact at a converged
    solve), or *Monte Carlo* (only the gradient means anything, and only in expectation).
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


# A strength or another number of an objective or penalty.
Number = float | int | Float[Array, ""]


def as_number(value: Number) -> Number:
    """Integers as floats: what is a float is traced, so that another value compiles nothing."""
    return float(value) if isinstance(value, int) else value


def checked_samples(
    energy: AbstractEnergy, data: Num[Array | np.ndarray, "..."], name: str = "data"
) -> Num[Array | np.ndarray, "samples visible"]:
    """Samples of +-1 of that energy, as float64 in NumPy; traced ones as they are."""
    if not isinstance(data, Tracer):
        data = validate_spins(data, name)
    if data.ndim != 2 or data.shape[1] != n_visible(energy):
        raise ValueError(
            f"{name} must have {n_visible(energy)} spins a sample for this energy, got shape "
            f"{data.shape}"
        )
    return data


def check_not_negative(**values: Number | None) -> None:
    """Raise for known numbers below zero, by name."""
    for name, value in values.items():
        if isinstance(value, float) and not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def checked_shares(
    weights: Num[ArrayLike, " samples"] | None, n_samples: int, name: str = "weights"
) -> tuple[Float[np.ndarray, " samples"], float]:
    """Weights that sum to 1, and how many samples they are worth.

    Whole numbers are counts of equal samples; for others see `Samples.size`.
    """
    values = np.ones(n_samples) if weights is None else np.asarray(as_array(name, weights), float)
    if values.shape != (n_samples,):
        raise ValueError(f"{name} must have shape ({n_samples},), got {values.shape}")
    total = values.sum()
    if not (np.all(values >= 0) and 0 < total < np.inf):
        raise ValueError(f"{name} must be finite, not negative, and not all zero")
    share = values / total
    return share, float(total if np.all(values % 1 == 0) else 1 / np.sum(share**2))


def per_set() -> optax.GradientTransformation:
    """Gradients over the number of sets of spins that each parameter serves.

    So large is the variance of `dE/dp` over even configurations, the curvature of the likelihood
    where no spin is bound: a step that suits one coupling overshoots by as much where many bonds
    share it.
    """

    def update(updates, state, params=None):
        return jax.tree.map(lambda g, t: g / t, updates, parameter_terms(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
