"""An energy some of whose spins are held at given values."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import known_spins
from .._types import Magnetizations, Spins
from ._base import AbstractEnergy, flip_gaps
from ._moments import (
    nonlinear_fourth_cumulant,
    nonlinear_third_moment,
    nonlinear_variance,
    product_mean,
)
from ._parameters import constrain


class Clamped(AbstractEnergy):
    """`E(s)` with some spins held: `E` of the values where clamped, and of `s` elsewhere.

    Multilinear where `energy` is, a bound of the mean where `energy` has one. A clamped spin has
    no effect any more: its field is 0 and every sum over configurations counts both its values.
    Samplers need no such energy, for they take `clamp=`; it is there for free energies G(m),
    which then live on the free spins alone. Which spins are clamped is traced: another choice
    does not recompile.

    Args:
        energy: an energy of n spins.
        clamp: +1 or -1 where a spin is held at this value, 0 where it is free, shape `(n,)`.

    Raises:
        ValueError: for a wrong shape or other values.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        held = tg.energies.Clamped(pair, jnp.array([1.0, 0.0]))

        assert held(jnp.array([-1.0, 1.0])) == pair(jnp.array([1.0, 1.0]))
        ```
    """

    energy: AbstractEnergy
    # Its sign where clamped and 0 where free. It is no parameter to learn: derivatives by it are 0.
    clamp: Float[Array, " n"]

    def __init__(self, energy: AbstractEnergy, clamp: Num[Array | np.ndarray, "..."]) -> None:
        dtype = jnp.result_type(*(jax.tree.leaves(energy) or [float]))
        self.energy, self.clamp = energy, known_spins("clamp", clamp, energy.n_spins, dtype)

    @property
    def n_spins(self) -> int:
        return self.energy.n_spins

    def _parts(self) -> dict[str, Array | np.ndarray]:
        return self.energy._parts()

    def _sizes(self) -> str:
        return f"{self.n_spins} spins, {np.count_nonzero(self.clamp)} of them held"

    def point(self, m: Spins) -> Magnetizations:
        """`m` with the clamped spins at their values, shape `(n,)`."""
        return jnp.where(self.clamp == 0, m, jax.lax.stop_gradient(jnp.sign(self.clamp)))

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        return self.energy(self.point(spins))


# The variance of a clamped spin is 0, so that every rule holds as it stands at the clamped point.


@product_mean.register
def _(energy: Clamped, m: Magnetizations) -> Float[Array, ""]:
    return product_mean(energy.energy, energy.point(m))


@nonlinear_variance.register
def _(energy: Clamped, m: Magnetizations) -> Float[Array, ""]:
    return nonlinear_variance(energy.energy, energy.point(m))


@nonlinear_third_moment.register
def _(energy: Clamped, m: Magnetizations) -> Float[Array, ""]:
    return nonlinear_third_moment(energy.energy, energy.point(m))


@nonlinear_fourth_cumulant.register
def _(energy: Clamped, m: Magnetizations) -> Float[Array, ""]:
    return nonlinear_fourth_cumulant(energy.energy, energy.point(m))


@flip_gaps.register
def _(energy: Clamped, spins: Spins) -> Float[Array, " n"]:
    return jnp.where(energy.clamp == 0, flip_gaps(energy.energy, energy.point(spins)), 0)


@constrain.register
def _(energy: Clamped) -> Clamped:
    return Clamped(constrain(energy.energy), jnp.sign(energy.clamp))
