"""Bits, spins and configuration indices.

One convention throughout: bit b <-> spin 2b - 1, and spin k is bit k of the configuration index,
i = sum_k b_k 2**k (little-endian). The last axis is the spin axis.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num, Shaped

from ._checks import as_array, as_integer, check_memory

_MAX_ENUMERATED = 30  # 2**30 rows of 30 float32 are 120 GiB: beyond that, go by chunks


def enumerate_spins(n: int) -> Float[Array, "configurations n"]:
    """All configurations of n spins, in index order.

    Args:
        n: Number of spins, 0 to 30; static under `jax.jit`.

    Returns:
        Spins of shape `(2**n, n)` in the default float dtype (float64 where x64 is enabled); row
        i is configuration i. They are floats so that products with couplings neither overflow nor
        change the couplings' kind.

    Raises:
        ValueError: If n is not an integer from 0 to 30.

    !!! example

        ```python
        import thermogen as tg

        assert tg.enumerate_spins(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
        ```
    """
    n = _check_n("n", n, _MAX_ENUMERATED, "enumeration needs memory for 2**n rows")
    itemsize = jnp.dtype(jnp.result_type(float)).itemsize
    check_memory(f"enumeration of n = {n} spins", 2 * n * 2**n * itemsize)
    return _unpack(jnp.arange(2**n), n)


def spins_from_bits(bits: Shaped[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Spins 2b - 1 of bits b, elementwise.

    Args:
        bits: Zeros and ones of any shape: bool, integer or float. The values are not checked, so
            probabilities of a one become magnetizations.

    Returns:
        Spins of the same shape; float input keeps its dtype, the rest takes the default float.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        assert tg.spins_from_bits(np.array([0, 1, 1])).tolist() == [-1, 1, 1]
        ```
    """
    array = jnp.asarray(as_array("bits", bits))
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    return 2 * array.astype(array.dtype if is_float else jnp.result_type(float)) - 1


def bits_from_spins(spins: Num[ArrayLike, "*shape"]) -> Int[Array, "*shape"]:
    """Bits of spins, elementwise: 1 where the spin is positive, else 0.

    Args:
        spins: Spins of any shape, -1 or +1. The values are not checked.

    Returns:
        Zeros and ones of the same shape in the default integer dtype.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        assert tg.bits_from_spins(jnp.array([-1, 1, 1])).tolist() == [0, 1, 1]
        ```
    """
    return (jnp.asarray(as_array("spins", spins)) > 0).astype(jnp.result_type(int))


def index_from_spins(spins: Num[ArrayLike, "*batch n"]) -> Int[Array, "*batch"]:
    """Configuration index i = sum_k b_k 2**k, the inverse of `spins_from_index`.

    Args:
        spins: Spins of shape (..., n), -1 or +1. The values are not checked.

    Returns:
        Indices of shape (...) in the default integer dtype.

    Raises:
        ValueError: If `spins` has no axis, or n > 31 (63 where x64 is enabled): the index would
            not fit the default integer.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        assert tg.index_from_spins(np.array([1, -1, 1])) == 5
        ```
    """
    bits = bits_from_spins(spins)
    if bits.ndim == 0:
        raise ValueError("spins is a scalar; expected an array whose last axis runs over the spins")
    n = _check_n("the last axis of spins", bits.shape[-1], *_index_limit())
    return jnp.dot(bits, jnp.left_shift(1, jnp.arange(n)))


def spins_from_index(i: Int[ArrayLike, "*batch"], n: int) -> Float[Array, "*batch n"]:
    """Spins of the configurations with the given indices.

    Args:
        i: Indices of shape (...), `0 <= i < 2**n`. Values traced by JAX cannot be checked: their
            bits beyond n are ignored.
        n: Number of spins; static under `jax.jit`.

    Returns:
        Spins of shape (..., n) in the default float dtype.

    Raises:
        ValueError: If n is not an integer from 0 to 31 (63 where x64 is enabled), or `i` is not
            made of integers from 0 to 2**n - 1.

    !!! example

        ```python
        import thermogen as tg

        assert tg.spins_from_index(5, 3).tolist() == [1, -1, 1]
        ```
    """
    n = _check_n("n", n, *_index_limit())
    if not isinstance(i, Tracer):
        i = _check_index(np.asarray(as_array("i", i)), n)
    return _unpack(jnp.asarray(i).astype(jnp.result_type(int)), n)


def overlap(a: Num[ArrayLike, "... n"], b: Num[ArrayLike, "... n"]) -> Float[Array, "..."]:
    """Overlap q = (1/n) sum_k a_k b_k: 1 for equal configurations, -1 for opposite ones.

    Args:
        a: Spins or magnetizations of shape (..., n).
        b: The same, of equal n; leading axes broadcast by JAX's rules.

    Returns:
        Overlaps of the broadcast leading shape.

    Raises:
        ValueError: If either is a scalar, or their last axes differ.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        assert tg.overlap(np.array([1, 1, 1, 1]), np.array([1, 1, 1, -1])) == 0.5
        ```
    """
    a, b = jnp.asarray(as_array("a", a)), jnp.asarray(as_array("b", b))
    # An explicit check, for a last axis of 1 would silently broadcast.
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"a and b have shapes {a.shape} and {b.shape}; expected last axes of equal length"
        )
    return jnp.mean(a * b, axis=-1)


# Compiled, for run operation by operation the integer intermediates would triple the peak memory.
@functools.partial(jax.jit, static_argnames="n")
def _unpack(index: Int[Array, "*batch"], n: int) -> Float[Array, "*batch n"]:
    shape = (*index.shape, n)
    shifts = lax.broadcasted_iota(index.dtype, shape, index.ndim)
    return spins_from_bits((index[..., None] >> shifts) & 1)


def _index_limit() -> tuple[int, str]:
    bits = jnp.iinfo(jnp.result_type(int)).bits
    hint = "; enable x64 for up to 63" if bits < 64 else ""
    return bits - 1, f"an index has {bits} bits, one of them the sign{hint}"


def _check_n(name: str, n: object, most: int, reason: str) -> int:
    size = as_integer(n)
    if size is None or not 0 <= size <= most:
        raise ValueError(f"{name} is {n!r}; expected a static integer from 0 to {most} ({reason})")
    return size


def _check_index(index: np.ndarray, n: int) -> np.ndarray:
    if not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"i has dtype {index.dtype}; expected integers")
    outside = (index < 0) | (index >= 2**n)
    if outside.any():
        raise ValueError(
            f"i contains {index[outside][0]}; expected 0 <= i < 2**n = {2**n} for n = {n}"
        )
    return index
