"""Moments of an energy under a product measure, and what says that there is no rule for one."""

import functools
from typing import Any

from jaxtyping import Array, Float

from .._types import Magnetizations
from ._base import AbstractEnergy, AbstractMultilinear


@functools.singledispatch
def nonlinear_variance(energy: AbstractMultilinear, m: Magnetizations) -> Float[Array, ""]:
    """Variance of E under the product measure, less its part linear in the spins.

    `W(m) = sum_{|A| >= 2} (d_A U)^2 prod_{k in A} v_k` with `U(m) = <E>` and `v = 1 - m^2`
    (Hoeffding decomposition). The Onsager term of the TAP free energy is `-(beta/2) W`. For a
    pairwise energy this is the familiar `sum_{i<j} J_ij^2 v_i v_j`; interactions of higher order
    also contribute through their second, third, ... derivatives.

    By the `terms` of an energy unless there is a faster rule,
    `nonlinear_variance.register(YourEnergy)`.

    Args:
        energy: a multilinear energy of n spins.
        m: magnetizations, shape `(n,)`.

    Returns:
        A scalar in squared energy units.

    Raises:
        TypeError: if this class of energy has neither terms nor a rule.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        m = jnp.array([0.5, 0.0])

        # J^2 v_1 v_2
        assert jnp.isclose(tg.energies.nonlinear_variance(pair, m), 0.75)
        ```
    """
    raise _no_rule("the nonlinear variance", nonlinear_variance, energy)


@functools.singledispatch
def nonlinear_third_moment(energy: AbstractMultilinear, m: Magnetizations) -> Float[Array, ""]:
    """`<Y^3>` under the product measure, Y the part of E that is not linear in the spins.

    `Y = E - U - sum_k (d_k U)(s_k - m_k)` with `U(m) = <E>`; `nonlinear_variance` is `<Y^2>`.
    Third order of the Plefka expansion (Georges and Yedidia 1991). For an energy of many long
    interactions its cost is the number of triples of spin sets in which no spin occurs once.

    By the `terms` of an energy unless there is a faster rule,
    `nonlinear_third_moment.register(YourEnergy)`.

    Args:
        energy: a multilinear energy of n spins.
        m: magnetizations, shape `(n,)`.

    Returns:
        A scalar in cubed energy units.

    Raises:
        TypeError: if this class of energy has neither terms nor a rule.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        m = jnp.array([0.5, 0.5])

        # (-J)^3 <(s_1 - m_1)^3> <(s_2 - m_2)^3>, each -2 m (1 - m^2)
        assert jnp.isclose(tg.energies.nonlinear_third_moment(pair, m), -(0.75**2))
        ```
    """
    raise _no_rule("the nonlinear third moment", nonlinear_third_moment, energy)


@functools.singledispatch
def nonlinear_fourth_cumulant(energy: AbstractMultilinear, m: Magnetizations) -> Float[Array, ""]:
    """`<Y^4> - 3 <Y^2>^2 - 3 sum_k <Y^2 (s_k - m_k)>^2 / v_k`, for Y of `nonlinear_third_moment`.

    Fourth order of the Plefka expansion (Georges and Yedidia 1991).

    Open for extension: `nonlinear_fourth_cumulant.register(YourEnergy)`.

    Args:
        energy: a multilinear energy of n spins.
        m: magnetizations, shape `(n,)`.

    Returns:
        A scalar in energy units to the fourth power.

    Raises:
        TypeError: if no rule is registered for this class of energy. There is none for
            `Interactions`, because the number of terms explodes.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        # At m = 0, Y is -J s_1 s_2: 1 - 3.
        assert jnp.isclose(tg.energies.nonlinear_fourth_cumulant(pair, jnp.zeros(2)), -2.0)
        ```
    """
    raise _no_rule("the nonlinear fourth cumulant", nonlinear_fourth_cumulant, energy)


def _no_rule(
    name: str,
    function: Any,
    energy: AbstractEnergy,
    remedy: str = "Use a lower order, convert with thermogen.energies.complete (n <= 24), "
    "register its terms with thermogen.energies.terms.register, or a rule",
) -> TypeError:
    return TypeError(
        f"no rule for {name} of {type(energy).__name__}; there is one for {classes_of(function)}. "
        f"{remedy} with thermogen.energies.{function.__name__}.register"
    )


_ANY = (object, AbstractEnergy)


def classes_of(function: Any) -> str:
    """Names of the classes that an open function has rules for."""
    return ", ".join(sorted(cls.__name__ for cls in function.registry if cls not in _ANY))


@functools.singledispatch
def product_mean(energy: AbstractEnergy, m: Magnetizations) -> Float[Array, ""]:
    """`<E>` under the product measure with means m, or an upper bound of it.

    A multilinear energy at m *is* its mean. Naive mean field stands on this one function, and
    bounds the free energy from above with a bound as well. Open for extension:
    `product_mean.register(YourEnergy)`.

    Args:
        energy: an energy of n spins.
        m: magnetizations, shape `(n,)`.

    Raises:
        TypeError: if no rule is registered for this class of energy.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        m = jnp.array([0.5, 0.2])

        assert jnp.isclose(tg.energies.product_mean(pair, m), -0.1)
        ```
    """
    raise _no_rule("the mean under a product measure", product_mean, energy)


@product_mean.register
def _(energy: AbstractMultilinear, m: Magnetizations) -> Float[Array, ""]:
    return energy(m)
