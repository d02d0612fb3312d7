"""Visible and hidden spins: layers, conditional fields, the sum over what is hidden."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._types import Beta, Spins
from ._base import AbstractEnergy, AbstractMultilinear, flip_gaps, local_fields


class Layers(NamedTuple):
    """Two layers of spins u and w that interact with each other only, `-u W w - a u - b w`.

    Attributes:
        weights: W in energy units, shape `(first, second)`.
        first: fields a on the first layer, shape `(first,)`.
        second: fields b on the second layer, shape `(second,)`.
    """

    weights: Float[Array, "first second"]
    first: Float[Array, " first"]
    second: Float[Array, " second"]


@functools.singledispatch
def layers(energy: AbstractEnergy) -> Layers | None:
    """The energy as two layers without couplings within each; None for all others.

    Its partition function takes the configurations of the smaller layer alone. Open for extension:
    `layers.register(YourEnergy)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.RBM(jnp.ones((3, 2)), jnp.zeros(3), jnp.zeros(2))

        assert tg.energies.layers(machine).weights.shape == (3, 2)
        ```
    """
    return None


def n_enumerated(energy: AbstractEnergy) -> int:
    """How many spins an exact partition function enumerates: of `layers`, the smaller one's.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.RBM(jnp.zeros((30, 2)), jnp.zeros(30), jnp.zeros(2))

        assert tg.energies.n_enumerated(machine) == 2
        ```
    """
    pair = layers(energy)
    return energy.n_spins if pair is None else min(pair.first.size, pair.second.size)


@functools.singledispatch
def n_visible(energy: AbstractEnergy) -> int:
    """Number of spins that data hold: all spins, unless the energy has hidden ones.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.RBM(jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(2))

        assert machine.n_spins == 5 and tg.energies.n_visible(machine) == 3
        ```
    """
    return energy.n_spins


@functools.singledispatch
def visible_free_energy(energy: AbstractEnergy, beta: Beta, visible: Spins) -> Float[Array, ""]:
    """Free energy of one data configuration, hidden spins summed out; else the energy itself.

    Args:
        energy: an energy.
        beta: inverse temperature.
        visible: spins of one sample, shape `(n_visible(energy),)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.RBM(jnp.array([[1.0]]), jnp.zeros(1), jnp.zeros(1))

        found = tg.energies.visible_free_energy(machine, 1.0, jnp.array([1.0]))
        assert jnp.isclose(found, -jnp.log(2 * jnp.cosh(1.0)))
        ```
    """
    return energy(visible)


@functools.singledispatch
def conditional_fields(
    energy: AbstractEnergy, beta: Beta, visible: Spins
) -> Float[Array, " visible"]:
    """Effective field on each visible spin given the other visible ones, hidden spins summed out.

    `P(s_k = 1 | rest) = 1 / (1 + exp(-2 beta h_k))`, that is `2 h_k = F(s_k = -1) - F(s_k = 1)`
    with the `visible_free_energy` F. The local field of a multilinear energy where no spin is
    hidden. Open for extension: `conditional_fields.register(YourEnergy)`.

    Args:
        energy: an energy.
        beta: inverse temperature.
        visible: spins of one sample, shape `(n_visible(energy),)`.

    Returns:
        Fields in energy units, shape `(n_visible(energy),)`; entry k does not depend on spin k.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        fields = tg.energies.conditional_fields(pair, 1.0, jnp.array([1.0, -1.0]))

        assert fields.tolist() == [-1.0, 1.0]
        ```
    """
    return 0.5 * jnp.asarray(visible) * flip_gaps(energy, visible)


@conditional_fields.register
def _(energy: AbstractMultilinear, beta: Beta, visible: Spins) -> Float[Array, " visible"]:
    return local_fields(energy, visible)


@functools.singledispatch
def conditional_field(
    energy: AbstractEnergy, beta: Beta, visible: Spins, k: int | Int[Array, ""]
) -> Float[Array, ""]:
    """Entry k of `conditional_fields`, where one spin can be had for less than all of them.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        spins = jnp.array([1.0, -1.0])

        assert tg.energies.conditional_field(pair, 1.0, spins, 1) == 1.0
        ```
    """
    return conditional_fields(energy, beta, visible)[k]


@functools.singledispatch
def embed(energy: AbstractEnergy, beta: Beta, visible: Spins) -> Spins:
    """A data configuration as a point of the whole cube: hidden spins take their means.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature.
        visible: spins of one sample, shape `(n_visible(energy),)`.

    Returns:
        Spins or magnetizations, shape `(n,)`; the visible ones come first.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        machine = tg.RBM(jnp.array([[1.0]]), jnp.zeros(1), jnp.zeros(1))

        spins = tg.energies.embed(machine, 1.0, jnp.array([1.0]))
        assert jnp.allclose(spins, jnp.array([1.0, jnp.tanh(1.0)]))
        ```
    """
    return visible
