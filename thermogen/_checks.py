"""What every public function asks of its arguments: counts, numbers, parameters, seeds."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ._types import Key

# Counts become 32-bit integers on the device.
LARGEST_COUNT = 2**31 - 1

_SUPPORTED = (jnp.float32, jnp.float64)


def check_count(name: str, value: Any, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """A count as a Python integer, from one of Python, NumPy or JAX.

    Raises:
        TypeError: for what is no integer; a float is none even where it is whole, nor is a bool.
        ValueError: for one below `least` or above `most`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool | np.bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not least <= count <= most:
        bound = f"at least {least}" if count < least else f"at most {most}"
        raise ValueError(f"{name} must be {bound}, got {count}")
    return count


def check_counts(**values: Any) -> tuple[int, ...]:
    """Counts of 1 or more, by name; see `check_count`."""
    return tuple(check_count(name, value) for name, value in values.items())


def check_finite(name: str, value: Any, *, positive: bool = False) -> None:
    """Raise for a known number that is not finite, or not above zero where it must be.

    Raises:
        TypeError: for what is no real number.
        ValueError: for NaN, infinity, and zero or less where `positive`; traced values pass.
    """
    if isinstance(value, Tracer):
        return
    array = np.asarray(value)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if array.ndim != 0 or not real:
        raise TypeError(f"{name} must be one real number, got {value!r}")
    number = float(array)
    if not math.isfinite(number) or (positive and number <= 0):
        kind = "positive and finite" if positive else "finite"
        raise ValueError(f"{name} must be {kind}, got {value}")


def check_parameters(energy: PyTree, name: str = "energy") -> None:
    """Raise for parameters with which no function of this package computes.

    They need not have come by the constructor, which checks too: `jax.tree.map` and optax make
    energies of any numbers.

    Raises:
        TypeError: for another dtype than float32 and float64, traced or not: half precision
            resolves neither energies nor the odds of rare flips.
        ValueError: for known parameters that are NaN or infinite; traced ones pass.
    """
    check_precision(energy, name)
    for leaf in jax.tree.leaves(energy):
        if not isinstance(leaf, Tracer) and not np.all(np.isfinite(np.asarray(leaf))):
            raise ValueError(
                f"{name} must have finite parameters, got {type(energy).__name__} with NaN or "
                "infinity"
            )


def check_precision(energy: PyTree, name: str = "energy") -> None:
    """The part of `check_parameters` that costs nothing: their dtype."""
    for leaf in jax.tree.leaves(energy):
        dtype = jnp.result_type(leaf)
        if dtype not in _SUPPORTED:
            kind = type(energy).__name__
            raise TypeError(f"{name} must be of dtype float32 or float64, got {kind} of {dtype}")


def seeded_key(seed: int) -> Key:
    """A random key for any seed from 0 to 2^64 - 1, different for each.

    `jax.random.key` alone drops all but the last 32 bits where JAX computes in 32 bits.
    """
    seed = check_count("seed", seed, least=0, most=2**64 - 1)
    key = jax.random.key(np.uint32(seed % 2**32))
    return key if seed < 2**32 else jax.random.fold_in(key, np.uint32(seed >> 32))
