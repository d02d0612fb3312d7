"""What every public function asks of its arguments: counts, numbers, parameters, seeds."""

import functools
import math
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._types import Beta, Key, Spins

# Counts become 32-bit integers on the device.
LARGEST_COUNT = 2**31 - 1

_SUPPORTED = (jnp.float32, jnp.float64)


def as_integer(value: Any) -> int | None:
    """A Python integer from one of Python, NumPy or JAX; None for what is no integer, or a bool.

    A float is no integer even where it is whole.
    """
    try:
        return None if isinstance(value, bool | np.bool) else operator.index(value)
    except TypeError:
        return None


def is_traced(*trees: PyTree) -> bool:
    """Whether numbers of these trees are traced, or all that is computed here is, as in `jax.jit`.

    A function that closes over known numbers meets no traced one, and is traced all the same.
    """
    return any(isinstance(x, Tracer) for x in [*jax.tree.leaves(trees), jnp.zeros(())])


def check_count(name: str, value: Any, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """A count as a Python integer, from one of Python, NumPy or JAX.

    Raises:
        TypeError: for what is no integer, see `as_integer`.
        ValueError: for one below `least` or above `most`.
    """
    count = as_integer(value)
    if count is None:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not least <= count <= most:
        bound = f"at least {least}" if count < least else f"at most {most}"
        raise ValueError(f"{name} must be {bound}, got {count}")
    return count


def check_counts(**values: Any) -> tuple[int, ...]:
    """Counts of 1 or more, by name; see `check_count`."""
    return tuple(check_count(name, value) for name, value in values.items())


def check_sites(name: str, sites: Sequence[int], n: int) -> tuple[int, ...]:
    """Numbers of different spins, from 0 to n - 1, as Python integers.

    Raises:
        ValueError: for a spin that comes twice or is not there, and what is no integer.
    """
    if not np.iterable(sites):
        raise ValueError(f"{name} must be numbers of spins, such as (0, 2), got {sites!r}")
    chosen = tuple(map(as_integer, sites))
    known = [k for k in chosen if k is not None and 0 <= k < n]
    if len(set(known)) != len(chosen):
        raise ValueError(f"{name} must name different spins from 0..{n - 1}, got {tuple(sites)}")
    return tuple(known)


def check_two_sets(
    first: Sequence[int], second: Sequence[int], n: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sets of spins, neither of them empty, that share none; see `check_sites`."""
    first, second = check_sites("first", first, n), check_sites("second", second, n)
    if not first or not second or set(first) & set(second):
        raise ValueError(
            f"first and second must name spins, none of them both, got {first} and {second}"
        )
    return first, second


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
        if not isinstance(leaf, Tracer) and not all_finite(leaf):
            raise ValueError(
                f"{name} must have finite parameters, got {type(energy).__name__} with NaN or "
                "infinity"
            )


def all_finite(x: Array | np.ndarray) -> bool:
    """Whether no entry is NaN or infinite, seen to where a known array lies if on many devices."""
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
        with jax.ensure_compile_time_eval():
            return bool(jnp.all(jnp.isfinite(x)))
    return bool(np.all(np.isfinite(np.asarray(x))))


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


def check_memory(name: str, n_bytes: float | int) -> None:
    """Raise before what cannot fit is begun: the system would end the process in the middle.

    Raises:
        ValueError: if `name` needs more bytes than this machine has memory.
    """
    if n_bytes > total_memory():
        raise ValueError(
            f"{name} needs about {n_bytes / 1e9:.3g} GB of memory; this machine has "
            f"{total_memory() / 1e9:.3g} GB"
        )


@functools.cache
def total_memory() -> float | int:
    """Bytes of memory of this machine, or what a container leaves of it; infinite if not known."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return math.inf
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (ValueError, OSError):  # no limit is the word max
            continue
    return total


def as_array(name: str, value: Any) -> Array | np.ndarray:
    """What a user gives for an array as one of NumPy or JAX, if none of its entries is missing.

    NumPy and JAX convert any object that speaks their protocol, and drop on the way what it says
    about missing entries: the mask of a masked array comes off, and what lay below it counts.

    Raises:
        ValueError: for masked or missing entries, wherever they stand, and for no array at all.
    """
    leaves = list(_unknown_leaves(value))
    if any(_has_gaps(leaf) for leaf in leaves):
        raise ValueError(
            f"{name} has masked or missing entries; leave them out or fill them, and give a plain "
            "array"
        )
    if any(isinstance(x, jax.Array) or hasattr(x, "__jax_array__") for x in leaves):
        return jnp.asarray(value)
    try:
        array = np.asanyarray(value)
        if array.dtype == object:
            array = np.array(array.tolist())  # plain numbers after all, or objects again
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from error
    # Some objects turn into masked arrays only now.
    if array.dtype == object or _has_gaps(array):
        raise ValueError(f"{name} has entries that are missing or no numbers")
    return np.asarray(array)


def _unknown_leaves(value: Any) -> Iterator[Any]:
    """Everything in nested lists but plain numbers and plain NumPy arrays."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _unknown_leaves(part)
    elif type(value) not in (float, int, bool, np.ndarray):
        yield value


def _has_gaps(value: Any) -> bool:
    """Whether an object says that some of its entries do not count."""
    if isinstance(value, jax.Array):
        return False
    if isinstance(value, np.ma.MaskedArray):
        return bool(np.any(np.ma.getmaskarray(value)))
    mask = getattr(value, "mask", None)
    if mask is not None and not callable(mask):
        return True  # the mask of a stranger: True may mean either
    for name in ("isna", "isnull", "null_count"):  # pandas, xarray, Arrow and polars
        told = getattr(value, name, None)
        if told is not None:
            return bool(np.any(np.asarray(told() if callable(told) else told)))
    return False


def as_float(x: Spins) -> Float[Array, " n"]:
    """Spins or magnetizations of any kind as a JAX array in which functions compute.

    That is of float32 or float64; those of half precision are exact in it.
    """
    x = jnp.asarray(as_array("spins", x))
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.result_type(float))


def known_spins(
    name: str, values: ArrayLike, n_spins: int, dtype: DTypeLike
) -> Float[Array, " n_spins"]:
    """A vector of what is known: +1 or -1 where a spin is, 0 where it is not.

    Masked entries of an `np.ma` array are not known.

    Raises:
        ValueError: for another shape than `(n_spins,)`, or known values other than -1, 0 and +1.
        TypeError: for booleans, which say where a spin is known and not how.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = values.filled(0)
    values = as_array(name, values)
    if values.dtype == bool:
        raise TypeError(f"{name} must hold -1, 0 and +1, got booleans, which give no values")
    if np.shape(values) != (n_spins,):
        raise ValueError(
            f"{name} must have shape ({n_spins},), one entry a spin, got {np.shape(values)}; "
            "use jax.vmap for many"
        )
    if not isinstance(values, Tracer):
        array = np.asarray(values, float)
        wrong = np.flatnonzero(~np.isin(array, (-1, 0, 1)))
        if wrong.size:
            raise ValueError(
                f"{name} must hold -1 or +1 where a spin is known and 0 where it is not, got "
                f"{array[wrong[0]]:g} at spin {wrong[0]}"
            )
    return jnp.asarray(values, dtype)


def checked_beta(beta: Beta, dtype: DTypeLike) -> Float[Array, ""]:
    """Beta as an array, if it is positive."""
    check_finite("beta", beta, positive=True)
    return jnp.asarray(beta, dtype)
