"""The numbers of an energy: their regular form, and what each of them couples."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._checks import all_finite, as_array, check_memory
from ._base import AbstractEnergy, AbstractMultilinear

# Configurations over which the slopes of an energy of one's own are looked at.
_N_DRAWS = 256


@functools.singledispatch
def constrain(energy: AbstractEnergy) -> PyTree:
    """The same energy with its numbers in their regular form; the identity unless registered.

    Couplings of a pairwise energy become symmetric, for example. Whatever reads numbers as such,
    penalties and files, asks for it. Open for extension: `constrain.register(YourEnergy)`.

    !!! example

        ```python
        import equinox as eqx
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        uneven = eqx.tree_at(lambda e: e.couplings, pair, jnp.array([[3.0, 2.0], [0.0, 0.0]]))
        couplings = tg.energies.constrain(uneven).couplings

        assert jnp.allclose(couplings, couplings.T) and jnp.all(jnp.diag(couplings) == 0)
        ```
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

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        degrees = tg.energies.parameter_degrees(pair)

        assert jnp.all(degrees.couplings == 2) and jnp.all(degrees.fields == 1)
        ```
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

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.all(tg.energies.parameter_terms(pair).fields == 1)
        ```
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

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        copies = tg.energies.parameter_copies(pair)

        assert jnp.all(copies.couplings == 2) and jnp.all(copies.fields == 1)
        ```
    """
    return jax.tree.map(lambda _: 1, energy)


@functools.singledispatch
def squared_norm(energy: AbstractEnergy) -> Float[Array, ""]:
    """Sum of the squared parameters, every coupling and field counted once.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert tg.energies.squared_norm(pair) == 1.0  # both halves of the matrix are one coupling
        ```
    """
    energy = constrain(energy)
    squares = jax.tree.map(lambda x, c: jnp.sum(x * x) / c, energy, parameter_copies(energy))
    terms = jax.tree.leaves(squares)
    return sum(terms, jnp.zeros((), jnp.result_type(*terms or [float])))


def as_parameters(**values: ArrayLike) -> list[Float[Array, "..."]]:
    """Arrays of one common floating dtype; the error names a value that will not do."""
    given = {name: as_array(name, value) for name, value in values.items()}
    # Half of it is what is given; the other half, the parameters, comes before any other check.
    # Arrays of JAX are the parameters.
    held = sum(x.nbytes for x in given.values() if not isinstance(x, jax.Array))
    check_memory(f"an energy with {' and '.join(given)} of this size", 2 * held)
    arrays = {name: jnp.asarray(value) for name, value in given.items()}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating) and not jnp.issubdtype(
            array.dtype, jnp.integer
        ):
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        if not isinstance(array, Tracer) and not all_finite(array):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    dtype = jnp.result_type(*arrays.values()) if arrays else jnp.result_type(float)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return [array.astype(dtype) for array in arrays.values()]
