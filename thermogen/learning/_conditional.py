"""Objectives of one spin given the others: no partition function, no sampling, convex."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Key
from ..energies import AbstractEnergy, conditional_fields, squared_norm
from ._objectives import (
    AbstractObjective,
    Defaults,
    Number,
    Samples,
    as_number,
    check_not_negative,
)
from ._whitened import WHITENED_LBFGS


class Pseudolikelihood(AbstractObjective):
    """Mean of `-sum_k ln P(s_k | rest)` plus `l2` times the sum of squared couplings and fields.

    Gradient contract: exact. Interactions of any order; hidden spins are summed out. Convex in the
    parameters where no spin is hidden (Besag 1975; Ravikumar, Wainwright and Lafferty 2010). Each
    coupling counts once in the penalty, the two halves of `J_ij` together.

    Attributes:
        l2: strength of the ridge penalty, in nats per squared energy unit. Without it separable
            data have no minimum.
    """

    l2: Number = eqx.field(default=1e-3, converter=as_number)

    def __check_init__(self):
        check_not_negative(l2=self.l2)

    @property
    def defaults(self) -> Defaults:
        return Defaults(WHITENED_LBFGS, 3000, 1e-5, bounded=float(self.l2) > 0, conditional=True)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        surprise = jnp.sum(_surprise(margins(energy, batch)), axis=1)
        return batch.mean(surprise) + self.l2 * squared_norm(energy), None


class MinimumProbabilityFlow(AbstractObjective):
    """`mean of sum_k exp([E(s) - E(flip_k s)]/2)`: how fast probability leaves the data at first.

    The flow is that of single spin flips with detailed balance, from the data to all of their
    neighbours (Sohl-Dickstein, Battaglino and DeWeese 2011, eq. 10); flips between two data
    points count as if they led away. Hidden spins are summed out.

    Gradient contract: exact. Convex in the parameters where no spin is hidden, and consistent.
    """

    @property
    def defaults(self) -> Defaults:
        return Defaults(WHITENED_LBFGS, 3000, 1e-5, conditional=True)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        return batch.mean(jnp.sum(jnp.exp(-margins(energy, batch)), axis=1)), None


@eqx.filter_jit
def margins(energy: AbstractEnergy, samples: Samples) -> Float[Array, "samples visible"]:
    """`s_k h_k`, with the field on spin k given the others: positive where they agree."""
    fields = jax.vmap(lambda s: conditional_fields(energy, s, 1.0))(samples.spins)
    return samples.spins * fields


@jax.custom_jvp
def _surprise(margin: Float[Array, "..."]) -> Float[Array, "..."]:
    """`-ln P(s_k | rest) = ln(1 + exp(-2 margin))`, several times as fast as by `softplus`."""
    return jnp.log1p(jnp.exp(-2 * jnp.abs(margin))) - 2 * jnp.minimum(margin, 0)


@_surprise.defjvp
def _(primals, tangents):
    (margin,), (change,) = primals, tangents
    return _surprise(margin), -2 * _error_rate(margin) * change


@jax.custom_jvp
def _error_rate(margin: Float[Array, "..."]) -> Float[Array, "..."]:
    """`1 - P(s_k | rest) = 1 / (1 + exp(2 margin))`."""
    smaller = jnp.exp(-2 * jnp.abs(margin))
    return jnp.where(margin > 0, smaller, 1) / (1 + smaller)


@_error_rate.defjvp
def _(primals, tangents):
    (margin,), (change,) = primals, tangents
    rate = _error_rate(margin)
    return rate, -2 * rate * (1 - rate) * change
