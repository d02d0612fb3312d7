"""Energies of N spins, and the functions that any energy admits."""

import abc
import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PyTree

from .._checks import as_array, as_float, check_memory
from .._types import Beta, Magnetizations, Spins

# Configurations over which the slopes of an energy of one's own are looked at.
_N_DRAWS = 256


class AbstractEnergy(eqx.Module):
    """An energy function of `n_spins` spins.

    Every array inside an energy is a floating-point parameter; what is not a parameter (the
    number of spins, which spins interact) is static. `jax.grad`, `jax.tree.map` and optax
    therefore work on an energy as it is. The inverse temperature is never part of an energy.
    """

    n_spins: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, spins: Spins) -> Float[Array, ""]:
        """Energy of one configuration, shape `(n_spins,)` with entries +-1.

        Raises:
            ValueError: for another shape; `jax.vmap` takes many.
        """


class AbstractMultilinear(AbstractEnergy):
    """An energy that is linear in each spin separately.

    At magnetizations `m` in [-1, 1]^N such an energy *is* its mean under the product measure
    with means `m`: `energy(m) = <E>`. Local fields, flip gaps, Gibbs conditionals and the naive
    mean-field equations are derivatives of that one function.
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


def is_flip_symmetric(energy: AbstractEnergy) -> Bool[Array, ""]:
    """Whether `E(-s) = E(s)` for all s, so that every state has a mirror image.

    Tested at one generic point, where the slopes of a symmetric energy are odd up to
    rounding: that of a table of energies leaves couplings of odd degree that are not quite zero.
    """
    m = jnp.cos(1.0 + jnp.sqrt(2.0) * jnp.arange(energy.n_spins))
    slopes = jax.grad(energy)
    above, below = slopes(m), slopes(-m)
    rounding = 32 * jnp.finfo(above.dtype).eps * jnp.max(jnp.abs(above), initial=0.0)
    return jnp.all(jnp.abs(above + below) <= rounding)


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
def constrain(energy: AbstractEnergy) -> PyTree:
    """The same energy with its numbers in their regular form; the identity unless registered.

    Couplings of a pairwise energy become symmetric, for example. Whatever reads numbers as such,
    penalties and files, asks for it. Open for extension: `constrain.register(YourEnergy)`.
    """
    return energy


@functools.singledispatch
def parameter_degrees(energy: AbstractEnergy) -> PyTree:
    """Number of spins that each parameter couples: 1 for fields, 2 for pairs, and so on.

    Penalties and the choice of a description ask for it. The degrees of a multilinear energy
    without a rule are read off how `dE/dp` scales with the magnetizations, `dE/dp(t m) = t^d
    dE/dp(m)`, so that a coupling that many sets of spins share has theirs. Parameters of any other
    energy without a rule count as couplings of two spins. Open for extension:
    `parameter_degrees.register(YourEnergy)`.

    Returns:
        A pytree like the energy; each leaf is an integer, or an array of the shape of the
        parameter.
    """
    return jax.tree.map(lambda _: 2, energy)


@parameter_degrees.register
def _(energy: AbstractMultilinear) -> PyTree:
    leaves, structure = jax.tree.flatten(energy)
    return jax.tree.unflatten(structure, _degrees_by_scaling(structure, _shapes(leaves)))


def _shapes(leaves: list[Array]) -> tuple[tuple[int, ...], ...]:
    return tuple(jnp.shape(x) for x in leaves)


@functools.lru_cache(maxsize=64)
def _degrees_by_scaling(
    structure: Any, shapes: tuple[tuple[int, ...], ...]
) -> list[Int[np.ndarray, "..."]]:
    """log2 of the ratio of `dE/dp` at m and at m/2, where parameters and m are generic."""
    with jax.ensure_compile_time_eval():
        generic = _generic(shapes)
        slopes = jax.grad(lambda parameters, m: structure.unflatten(parameters)(m))
        m = jnp.cos(1.0 + math.sqrt(2) * jnp.arange(structure.unflatten(generic).n_spins))
        full, half = (jax.tree.map(np.asarray, slopes(generic, x)) for x in (m, m / 2))
    # A parameter that the energy does not know couples no spins.
    return [
        np.where(
            a == 0, 0, np.rint(np.log2(np.abs(np.where(a == 0, 1, a) / np.where(b == 0, 1, b))))
        ).astype(int)
        for a, b in zip(full, half, strict=True)
    ]


@functools.singledispatch
def parameter_terms(energy: AbstractEnergy) -> PyTree:
    """Number of sets of spins a parameter serves: the mean of `(dE/dp)^2` over configurations.

    1 for a coupling or a field of its own, the number of bonds where they share one coupling.
    Counted for multilinear energies without a rule for `parameter_degrees`; 1 for all others.

    Returns:
        A pytree like the energy; each leaf is a number, or an array like the parameter.
    """
    rule = parameter_degrees.dispatch(type(energy))
    if rule is not parameter_degrees.dispatch(AbstractMultilinear):
        return jax.tree.map(lambda _: 1.0, energy)
    leaves, structure = jax.tree.flatten(energy)
    terms = _terms_by_draws(structure, _shapes(leaves))
    cast = [np.asarray(t, jnp.result_type(x)) for t, x in zip(terms, leaves, strict=True)]
    return jax.tree.unflatten(structure, cast)


@functools.lru_cache(maxsize=64)
def _terms_by_draws(
    structure: Any, shapes: tuple[tuple[int, ...], ...]
) -> list[Float[np.ndarray, "..."]]:
    """Mean squares over random configurations, and not below 1."""
    with jax.ensure_compile_time_eval():
        generic = _generic(shapes)
        n = structure.unflatten(generic).n_spins
        spins = np.random.default_rng(0).choice([-1.0, 1.0], (_N_DRAWS, n))
        slopes = jax.grad(lambda parameters, s: structure.unflatten(parameters)(s))

        def add(total, s):
            return jax.tree.map(lambda t, x: t + x * x, total, slopes(generic, s)), None

        zeros = jax.tree.map(jnp.zeros_like, generic)
        total, _ = jax.lax.scan(add, zeros, jnp.asarray(spins))
        return [np.asarray(np.maximum(1.0, np.asarray(x) / _N_DRAWS)) for x in total]


def _generic(shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
    """Parameters that nothing cancels at."""
    sizes = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    return [
        jnp.cos(start + jnp.arange(end - start) * math.sqrt(3)).reshape(shape)
        for start, end, shape in zip(sizes[:-1], sizes[1:], shapes, strict=True)
    ]


@functools.singledispatch
def parameter_copies(energy: AbstractEnergy) -> PyTree:
    """Number of entries that share one parameter: 2 for the halves of a symmetric matrix, else 1.

    Returns:
        A pytree like the energy, of integers.
    """
    return jax.tree.map(lambda _: 1, energy)


@functools.singledispatch
def squared_norm(energy: AbstractEnergy) -> Float[Array, ""]:
    """Sum of the squared parameters, every coupling and field counted once."""
    energy = constrain(energy)
    squares = jax.tree.map(lambda x, c: jnp.sum(x * x) / c, energy, parameter_copies(energy))
    terms = jax.tree.leaves(squares)
    return sum(terms, jnp.zeros((), jnp.result_type(*terms or [float])))


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
    """
    return None


def n_enumerated(energy: AbstractEnergy) -> int:
    """How many spins an exact partition function enumerates: of `layers`, the smaller one's."""
    pair = layers(energy)
    return energy.n_spins if pair is None else min(pair.first.size, pair.second.size)


@functools.singledispatch
def n_visible(energy: AbstractEnergy) -> int:
    """Number of spins that data hold: all spins, unless the energy has hidden ones."""
    return energy.n_spins


@functools.singledispatch
def visible_free_energy(energy: AbstractEnergy, beta: Beta, visible: Spins) -> Float[Array, ""]:
    """Free energy of one data configuration, hidden spins summed out; else the energy itself.

    Args:
        energy: an energy.
        beta: inverse temperature.
        visible: spins of one sample, shape `(n_visible(energy),)`.
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
    """
    return 0.5 * jnp.asarray(visible) * flip_gaps(energy, visible)


@conditional_fields.register
def _(energy: AbstractMultilinear, beta: Beta, visible: Spins) -> Float[Array, " visible"]:
    return local_fields(energy, visible)


@functools.singledispatch
def conditional_field(
    energy: AbstractEnergy, beta: Beta, visible: Spins, k: int | Int[Array, ""]
) -> Float[Array, ""]:
    """Entry k of `conditional_fields`, where one spin can be had for less than all of them."""
    return conditional_fields(energy, beta, visible)[k]


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
    """
    raise _no_rule("the mean under a product measure", product_mean, energy)


@product_mean.register
def _(energy: AbstractMultilinear, m: Magnetizations) -> Float[Array, ""]:
    return energy(m)


@functools.singledispatch
def embed(energy: AbstractEnergy, beta: Beta, visible: Spins) -> Spins:
    """A data configuration as a point of the whole cube: hidden spins take their means.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature.
        visible: spins of one sample, shape `(n_visible(energy),)`.

    Returns:
        Spins or magnetizations, shape `(n,)`; the visible ones come first.
    """
    return visible


def as_parameters(**values: ArrayLike) -> list[Float[Array, "..."]]:
    """Arrays of one common floating dtype; the error names a value that will not do."""
    given = {name: as_array(name, value) for name, value in values.items()}
    # Half of it is what is given; the other half, the parameters, comes before any other check.
    held = sum(x.nbytes for x in given.values() if not isinstance(x, Tracer))
    check_memory(f"an energy with {' and '.join(given)} of this size", 2 * held)
    arrays = {name: jnp.asarray(value) for name, value in given.items()}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating) and not jnp.issubdtype(
            array.dtype, jnp.integer
        ):
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        if not isinstance(array, Tracer) and not np.all(np.isfinite(np.asarray(array))):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    dtype = jnp.result_type(*arrays.values()) if arrays else jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [array.astype(dtype) for array in arrays.values()]
