"""High-temperature expansions of the free energy at fixed magnetizations."""

import equinox as eqx
from jaxtyping import Array, Float

from .._types import Beta, Magnetizations
from ..energies import AbstractMultilinear, nonlinear_variance
from ._base import AbstractFunctional


class Plefka(AbstractFunctional):
    """The free energy G(m) expanded in beta at fixed m, to the given order.

    `G = U - S/beta - (beta/2) W + ...` with `U = <E>` and W the nonlinear variance of the energy:
    order 1 is naive mean field, order 2 adds the Onsager reaction (TAP), for interactions of any
    order (Plefka 1982; Georges and Yedidia 1991). Order 1 bounds the free energy from above;
    order 2 bounds nothing.

    Args:
        order: 1 or 2.
    """

    order: int = eqx.field(static=True)

    def __init__(self, order: int):
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order!r}")
        self.order = order

    def excess(
        self, energy: AbstractMultilinear, m: Magnetizations, beta: Beta
    ) -> Float[Array, ""]:
        mean_energy = energy(m)
        if self.order == 1:
            return mean_energy
        return mean_energy - 0.5 * beta * nonlinear_variance(energy, m)


def NaiveMeanField() -> Plefka:
    """Naive mean field, `Plefka(1)`: `G = <E> - T S`, an upper bound on the free energy."""
    return Plefka(1)


def TAP() -> Plefka:
    """Thouless-Anderson-Palmer, `Plefka(2)`: naive mean field plus the Onsager reaction."""
    return Plefka(2)
