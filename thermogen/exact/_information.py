"""Mutual information between two sets of spins, exactly."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_two_sets
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy
from ._ensembles import marginal


@from_anywhere
def mutual_information(
    energy: AbstractEnergy, beta: Beta, first: Sequence[int], second: Sequence[int]
) -> Float[Array, ""]:
    """Mutual information `I = S(first) + S(second) - S(both)` of two sets of spins, in nats.

    What one set tells of the other: from 0, if they are independent, to the smaller of their
    entropies. Differentiable in the parameters and in beta. Beyond 24 spins each of the
    configurations of both sets takes a sum of its own, as in `marginal`; of more spins than can be
    summed `thermogen.sampling.mutual_information` estimates it.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature.
        first: numbers of some spins.
        second: numbers of other spins.

    Raises:
        ValueError: for sets that share spins, hold none, or name spins that are not there.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Interactions.from_terms(2, {(0, 1): 50.0})  # equal, and up or down

        assert jnp.isclose(tg.exact.mutual_information(pair, 1.0, (0,), (1,)), jnp.log(2))
        ```
    """
    first, second = check_two_sets(first, second, energy.n_spins)
    joint = marginal(energy, beta, first + second).reshape(2 ** len(second), 2 ** len(first))
    p, q = joint, jnp.sum(joint, axis=1, keepdims=True) * jnp.sum(joint, axis=0, keepdims=True)
    met = p > 0
    ratio = jnp.log(jnp.where(met, p, 1)) - jnp.log(jnp.where(met, q, 1))
    # Each term is at least 0, and with it their sum, to rounding.
    value = jnp.sum(jnp.where(met, p * ratio, 0) + q - p)
    return value + jax.lax.stop_gradient(jnp.maximum(value, 0) - value)  # with all its slopes
