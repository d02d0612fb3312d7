"""Energies of N spins, and their fields and flip gaps."""

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from .._checks import as_array, as_float
from .._compile import compiled_quickly
from .._shown import AbstractShown, Table, are_known, plural, spreads
from .._types import Spins


class AbstractEnergy(AbstractShown, eqx.Module):
    """An energy function of `n_spins` spins.

    Every array inside an energy is a floating-point parameter; what is not a parameter (the
    number of spins, which spins interact) is static. `jax.grad`, `jax.tree.map` and optax
    therefore work on an energy as it is. The inverse temperature is never part of an energy.

    !!! example

        ```python
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Counting(tg.AbstractEnergy):
            n_spins: int = eqx.field(static=True)
            cost: jax.Array

            def __call__(self, spins):
                return self.cost * jnp.sum(spins) ** 2


        energy = Counting(4, jnp.asarray(0.5))

        assert jnp.isclose(tg.exact.energies(energy).max(), 0.5 * 16)
        ```
    """

    n_spins: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, spins: Spins) -> Float[Array, ""]:
        """Energy of one configuration, shape `(n_spins,)` with entries +-1.

        Raises:
            ValueError: for another shape; `jax.vmap` takes many.
        """

    def _parts(self) -> dict[str, Array | np.ndarray]:
        """Its parameters in groups, as a person would name them."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self)
        return {jax.tree_util.keystr(path).lstrip("."): x for path, x in leaves}

    def _sizes(self) -> str:
        """How large it is, in words."""
        return f"{self.n_spins} spins"

    def _is_known(self) -> bool:
        whole = all(x is not None for x in jax.tree.leaves(self, is_leaf=lambda x: x is None))
        return whole and are_known(self)

    def _table(self) -> Table:
        parts = self._parts()
        dtypes = ", ".join(sorted({str(np.asarray(x).dtype) for x in parts.values()}))
        count = sum(np.size(x) for x in parts.values())
        headline = f"{type(self).__name__} of {self._sizes()}, {plural(count, 'parameter')}"
        return Table(headline + (f" of {dtypes}" if dtypes else ""), spreads(parts))


class AbstractMultilinear(AbstractEnergy):
    """An energy that is linear in each spin separately.

    At magnetizations `m` in [-1, 1]^N such an energy *is* its mean under the product measure
    with means `m`: `energy(m) = <E>`. Local fields, flip gaps, Gibbs conditionals and the naive
    mean-field equations are derivatives of that one function.

    !!! example

        ```python
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Chain(tg.AbstractMultilinear):
            n_spins: int = eqx.field(static=True)
            coupling: jax.Array

            def __call__(self, spins):
                return -self.coupling * jnp.sum(spins[1:] * spins[:-1])


        fields = tg.local_fields(Chain(3, jnp.asarray(1.0)), jnp.array([0.5, 0.0, 0.2]))

        assert jnp.allclose(fields, jnp.array([0.0, 0.7, 0.0]))
        ```
    """


def one_configuration(energy: AbstractEnergy, spins: Spins) -> Num[Array, " n"]:
    """`spins` as an array, if it is one configuration: gathers would take other shapes too."""
    if jnp.shape(spins) != (energy.n_spins,):
        raise ValueError(
            f"spins must have shape ({energy.n_spins},), got {jnp.shape(spins)}; use jax.vmap for "
            "many configurations"
        )
    return jnp.asarray(as_array("spins", spins))


def local_fields(energy: AbstractEnergy, m: Spins) -> Float[Array, " n"]:
    """Field that the other spins exert on each spin, `-dE/dm_k`.

    Args:
        energy: a multilinear energy of n spins. For another smooth energy, such as a `Mixture`,
            the result is the force at m; `conditional_fields` are the fields between
            configurations.
        m: spins or magnetizations, shape `(n,)`.

    Returns:
        Fields in energy units, shape `(n,)`; entry k does not depend on `m[k]` where the energy
        is multilinear.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert tg.local_fields(energy, jnp.array([1.0, 0.0, 0.5])).tolist() == [0.5, 1.5, 1.0]
        ```
    """
    return -jnp.asarray(jax.grad(energy)(as_float(m)))


@functools.singledispatch
def flip_gaps(energy: AbstractEnergy, spins: Spins) -> Float[Array, " n"]:
    """Energy cost of every single flip, `E(flip_k s) - E(s)`, of any energy.

    For a multilinear energy it is `2 s_k h_k(s)` with the local fields. The function is open for
    extension: `flip_gaps.register(YourEnergy)`.

    Args:
        energy: an energy of n spins.
        spins: one configuration, shape `(n,)` with entries +-1.

    Returns:
        Energy differences, shape `(n,)`. All are positive at a single-flip minimum.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert tg.flip_gaps(energy, jnp.ones(3)).tolist() == [4, 4, 4]
        ```
    """
    s = as_float(spins)
    return jax.vmap(lambda k: energy(s.at[k].multiply(-1)) - energy(s))(jnp.arange(s.size))


@flip_gaps.register
def _(energy: AbstractMultilinear, spins: Spins) -> Float[Array, " n"]:
    return 2 * jnp.asarray(spins) * local_fields(energy, spins)


@compiled_quickly
def is_flip_symmetric(energy: AbstractEnergy) -> Bool[Array, ""]:
    """Whether `E(-s) = E(s)` for all s, so that every state has a mirror image.

    Tested at one generic point, where the slopes of a symmetric energy are odd up to
    rounding: that of a table of energies leaves couplings of odd degree that are not quite zero.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert tg.energies.is_flip_symmetric(pair)
        assert not tg.energies.is_flip_symmetric(tg.Pairwise(pair.couplings, jnp.ones(2)))
        ```
    """
    m = np.cos(1.0 + np.sqrt(2.0) * np.arange(energy.n_spins))
    above, below = jax.vmap(jax.grad(energy))(jnp.asarray([m, -m]))
    rounding = 32 * jnp.finfo(above.dtype).eps * jnp.max(jnp.abs(above), initial=0.0)
    return jnp.all(jnp.abs(above + below) <= rounding)
