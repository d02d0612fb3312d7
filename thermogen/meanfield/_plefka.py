"""High-temperature expansions of the free energy at fixed magnetizations."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Beta, Magnetizations
from ..energies import (
    AbstractEnergy,
    nonlinear_fourth_cumulant,
    nonlinear_third_moment,
    nonlinear_variance,
    product_mean,
)
from ._base import AbstractFunctional

_MAX_ORDER = 4


class Plefka(AbstractFunctional):
    """The free energy G(m) expanded in beta at fixed m, to the given order.

    `G = U - S/beta - (beta/2) <Y^2> + (beta^2/6) <Y^3> - (beta^3/24) [<Y^4> - ...]` with
    `U = <E>` and Y the part of E that is not linear in the spins: order 1 is naive mean field,
    order 2 adds the Onsager reaction (TAP), for interactions of any order (Plefka 1982; Georges
    and Yedidia 1991, eq. 15). Order 1 bounds the free energy from above, of a `Mixture` too; the
    others bound nothing.

    Args:
        order: 1, 2, 3 or 4. `Interactions` have rules up to order 3, the other energies to 4.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        m = jnp.array([0.3, -0.2])

        assert jnp.isclose(tg.Plefka(2)(pair, 0.5, m), tg.TAP()(pair, 0.5, m))
        ```
    """

    order: int = eqx.field(static=True)

    def __init__(self, order: int):
        if order not in range(1, _MAX_ORDER + 1):
            raise ValueError(f"order must be an integer from 1 to {_MAX_ORDER}, got {order!r}")
        self.order = order

    def excess(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        return sum(
            (expansion_term(energy, beta, m, order) for order in range(2, self.order + 1)),
            start=product_mean(energy, m),
        )


def expansion_term(
    energy: AbstractEnergy, beta: Beta, m: Magnetizations, order: int
) -> Float[Array, ""]:
    """The term of order `beta^(order - 1)` of G(m), order 1 to 4, in energy units.

    Raises:
        TypeError: if this class of energy has no rule for that order.
    """
    beta = jnp.asarray(beta)
    if order == 1:
        return product_mean(energy, m)
    if order == 2:
        return -beta / 2 * nonlinear_variance(energy, m)
    if order == 3:
        return beta**2 / 6 * nonlinear_third_moment(energy, m)
    return -(beta**3) / 24 * nonlinear_fourth_cumulant(energy, m)


def NaiveMeanField() -> Plefka:
    """Naive mean field, `Plefka(1)`: `G = <E> - T S`, an upper bound on the free energy.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        # At m = 0 the mean energy is 0 and the entropy n ln 2.
        assert jnp.isclose(tg.NaiveMeanField()(energy, 0.5, jnp.zeros(3)), -6 * jnp.log(2.0))
        ```
    """
    return Plefka(1)


def TAP() -> Plefka:
    """Thouless-Anderson-Palmer, `Plefka(2)`: naive mean field plus the Onsager reaction.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        # At m = 0 the Onsager reaction adds -beta/2 times the sum of all J^2.
        naive, tap = (g(energy, 0.5, jnp.zeros(3)) for g in (tg.NaiveMeanField(), tg.TAP()))
        assert jnp.isclose(tap - naive, -0.75)
        ```
    """
    return Plefka(2)
