"""The fast Walsh-Hadamard transform: between tables of 2^n values and couplings of all orders."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from ._linalg import dot
from ._split import in_parts, split

# Most bits that one matrix product transforms: products with 32 x 32 matrices are bound by memory
# bandwidth on a CPU, those with larger ones by arithmetic.
_BITS_PER_PASS = 5

# Bits of the largest tables whose passes leave every bit in its place: they stay in a cache.
_MOST_IN_PLACE = 14

# Bytes of the smallest tables that a processor transforms block by block.
_LEAST_IN_BLOCKS = 2**23
# Bits of a block of neighbours, which stays in the second cache of a core, and of a piece of it.
_BLOCK, _PIECE = 14, 6

# Values of the empty product and of s_k itself (rows) at bit 0 and bit 1 (columns) of one spin.
_ONE_SPIN = np.array([[1, 1], [-1, 1]])


def walsh_transform(values: Num[Array | np.ndarray, " size"]) -> Float[Array, " size"]:
    """Coefficients of a table on products of spins, `c_a = 2^-n sum_i values_i Phi_a(s_i)`.

    `Phi_a(s) = prod_{k in a} s_k`; the set a is a bit mask, and spin k of configuration i is +1
    where bit k of i is set. A table of energies has couplings `J_a = -c_a`. The transform is
    linear. It costs of the order of n 2^n additions, and its derivative costs the same.
    A table that is split over devices stays so: at most `2**(n // 2)` of them, under `jax.jit` of a
    mesh with explicit axes.

    Args:
        values: one value for each configuration, shape `(2**n,)`, any n >= 0.

    Returns:
        Coefficients, shape `(2**n,)`; entry 0 is the mean of the values.

    Raises:
        ValueError: if the length is not a power of two, or for too many devices.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        # The product of spins 0 and 1 is the set with the bit mask 0b11 = 3.
        assert tg.walsh_transform(np.array([1.0, -1.0, -1.0, 1.0])).tolist() == [0, 0, 0, 1]
        ```
    """
    return _coefficients(_checked("values", values))


def inverse_walsh_transform(
    coefficients: Num[Array | np.ndarray, " size"],
) -> Float[Array, " size"]:
    """Values of `sum_a c_a Phi_a(s_i)` at every configuration; undoes `walsh_transform`.

    A table that is split over devices stays so, as there.

    Args:
        coefficients: c, indexed by bit mask, shape `(2**n,)`, any n >= 0.

    Returns:
        One value for each configuration, shape `(2**n,)`.

    Raises:
        ValueError: if the length is not a power of two, or for too many devices.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        table = jnp.array([1.0, 2.0, 3.0, 5.0])
        coefficients = tg.walsh_transform(table)

        assert jnp.allclose(tg.inverse_walsh_transform(coefficients), table)
        ```
    """
    return _values(_checked("coefficients", coefficients))


@in_parts
@jax.jit
def _coefficients(values: Float[Array, " size"]) -> Float[Array, " size"]:
    return transform_every_spin(values, _ONE_SPIN) / float(values.size)


@in_parts
@jax.jit
def _values(coefficients: Float[Array, " size"]) -> Float[Array, " size"]:
    return transform_every_spin(coefficients, _ONE_SPIN.T)


def degrees(n: int) -> np.ndarray:
    """Number of spins in each of the 2^n sets, `popcount(a)`, shape `(2**n,)`."""
    return np.bitwise_count(np.arange(2**n, dtype=np.uint32)).astype(np.int32)


def transform_every_spin(
    table: Float[Array, " size"], one_spin: np.ndarray
) -> Float[Array, " size"]:
    """Apply the 2 x 2 matrix `one_spin` to every bit of the index of a table of 2^n values.

    Of a table that is split over D devices each transforms the low bits of its part. An exchange
    of all with all then makes the bits that number the devices local, and another puts them back.

    Raises:
        ValueError: for more than `2**(n // 2)` devices: a part must have a piece for each of them.
    """
    where = split(table)
    if where is None:
        return _transform_locally(table, one_spin)
    axes = where.spec[0]
    n_parts = math.prod(where.mesh.shape[name] for name in np.atleast_1d(axes))
    if n_parts**2 > table.size:
        n = table.size.bit_length() - 1
        raise ValueError(
            f"a table of 2**{n} entries can be split over at most {2 ** (n // 2)} devices, got "
            f"{n_parts}"
        )

    def transform(part):
        rows = _transform_locally(part, one_spin).reshape(n_parts, -1)
        rows = dot(
            _on_bits(n_parts.bit_length() - 1, one_spin, part.dtype),
            jax.lax.all_to_all(rows, axes, 0, 0),
        )
        return jax.lax.all_to_all(rows, axes, 0, 0).reshape(-1)

    return jax.shard_map(transform, mesh=where.mesh, in_specs=where.spec, out_specs=where.spec)(
        table
    )


def _transform_locally(table: Float[Array, " size"], one_spin: np.ndarray) -> Float[Array, " size"]:
    n = table.size.bit_length() - 1
    if n <= _MOST_IN_PLACE:
        return _in_place(table, one_spin)
    large = table.size * table.dtype.itemsize >= _LEAST_IN_BLOCKS
    return (_in_blocks if large else _in_turn)(table, one_spin)


def _in_place(table: Float[Array, " size"], one_spin: np.ndarray) -> Float[Array, " size"]:
    """A product on the four or five lowest bits, then a pass of sums for each two of the others.

    No pass moves a bit: under `vmap` rows of a batch would be moved with it.
    """
    n = table.size.bit_length() - 1
    lowest = min(n, 4 + n % 2)
    table = dot(table.reshape(-1, 2**lowest), _on_bits(lowest, one_spin, table.dtype).T)
    for bit in range(lowest, n, 2):
        table = _summed(table, bit, 2, one_spin)
    return table.reshape(-1)


def _summed(
    table: Float[Array, "..."], bit: int, bits: int, one_spin: np.ndarray, to_top: bool = False
) -> Float[Array, " size"]:
    """Bits from `bit` on by sums, which stay in their places or move to the top."""
    # Split and not indexed: derivatives are then put together, not padded and added.
    parts = jax.lax.split(table.reshape(-1, 2**bits, 2**bit), [1] * 2**bits, axis=1)
    rows = _on_bits(bits, one_spin, table.dtype)
    sums = [sum(map(operator.mul, row, parts)) for row in rows]
    return jnp.concatenate(sums, axis=0 if to_top else 1).reshape(-1)


def _in_turn(table: Float[Array, " size"], one_spin: np.ndarray) -> Float[Array, " size"]:
    """A pass multiplies the lowest bits and moves them to the top, so that after all passes every
    bit is back in its place and no pass reads with a stride.
    """
    n = table.size.bit_length() - 1
    # An odd number of passes lets the compiler alternate between the result and one more table.
    n_passes = -(-n // _BITS_PER_PASS) | 1
    for i in range(n_passes):
        matrix = _on_bits((n + i) // n_passes, one_spin, table.dtype)
        rows = table.reshape(-1, len(matrix))
        table = jax.lax.dot_general(
            matrix, rows, (((1,), (1,)), ((), ())), precision="highest"
        ).reshape(-1)
    return table


def _in_blocks(table: Float[Array, " size"], one_spin: np.ndarray) -> Float[Array, " size"]:
    """Block by block on a processor, in turn on accelerators.

    Loops over blocks write in place. What JAX would make of them backwards adds whole tables in
    each iteration; so it is told that the transform solves the equations of its inverse.
    """

    def forward(table, one_spin):
        return jax.lax.platform_dependent(
            table,
            cpu=functools.partial(_by_pieces, one_spin=one_spin),
            default=functools.partial(_in_turn, one_spin=one_spin),
        )

    return jax.lax.custom_linear_solve(
        lambda x: _in_turn(x, np.linalg.inv(one_spin)),
        table,
        lambda _, x: forward(x, one_spin),
        lambda _, x: forward(x, one_spin.T),
    )


def _by_pieces(table: Float[Array, " size"], one_spin: np.ndarray) -> Float[Array, " size"]:
    """Bits of blocks of neighbours, the rows; then the others, a piece of every row at a time."""

    def lowest(block):
        # Reads of stride four and contiguous writes: all bits are in place again in the end.
        for _ in range(0, _BLOCK, 2):
            block = _summed(block, 0, 2, one_spin, to_top=True)
        return block

    def others(i, table):
        corner, shape = (0, i << _PIECE), (len(table), 2**_PIECE)
        block = jax.lax.dynamic_slice(table, corner, shape)
        n = block.size.bit_length() - 1
        for bit in range(_PIECE, n, 2):
            block = _summed(block, bit, min(2, n - bit), one_spin)
        return jax.lax.dynamic_update_slice(table, block.reshape(shape), corner)

    table = jax.lax.map(lowest, table.reshape(-1, 2**_BLOCK))
    return jax.lax.fori_loop(0, 2 ** (_BLOCK - _PIECE), others, table).reshape(-1)


def _on_bits(bits: int, one_spin: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The matrix of size 2^bits that acts on each of the bits."""
    return functools.reduce(np.kron, [one_spin] * bits, np.eye(1)).astype(dtype)


def _checked(name: str, table: Num[Array | np.ndarray, "..."]) -> Float[Array, " size"]:
    size = table.size
    if table.ndim != 1 or size == 0 or size & (size - 1):
        raise ValueError(f"{name} must have shape (2**n,), got {table.shape}")
    return jnp.asarray(table, jnp.result_type(table.dtype, jnp.float32))
