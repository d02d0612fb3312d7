"""Batches padded to few sizes, so that few programs are compiled; their rows and precision."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import PyTree

# The smallest holds 4096 numbers where rows are short: sums over the rows of fewer numbers are
# split by the compiler of processors, which takes three times as long.
_SIZES = (32, 64, 256, 1024)
_NUMBERS = 4096
# Of rows that hold as many by themselves, for which padding is no trifle; and the most numbers that
# are taken at once, of which a kernel holds several copies.
_SIZES_OF_LONG = (1, 8, 64)
_MOST_NUMBERS = 2**23


def in_batches(
    kernel: Callable[[Array], PyTree], rows: np.ndarray, largest: int = _SIZES[-1]
) -> PyTree:
    """Apply a batched kernel to all rows, in batches of few sizes; NumPy arrays out.

    Each is the largest that the rows which are left fill, and the last of the smallest size. Of
    rows of very many numbers fewer are taken at once.
    """
    length = max(rows[:1].size, 1)
    largest = min(largest, max(_MOST_NUMBERS // length, 1))
    choice = _SIZES_OF_LONG
    if length < _NUMBERS:
        choice = _SIZES[0] if length * _SIZES[0] >= _NUMBERS else _SIZES[1], *_SIZES[2:]
    sizes = [size for size in choice if size < largest] + [largest]
    outputs, first = [], 0
    while first < len(rows):
        size = max([size for size in sizes if size <= len(rows) - first], default=sizes[0])
        batch = rows[first : first + size]
        first += size
        padding = np.repeat(batch[:1], size - len(batch), axis=0)
        output = kernel(jnp.asarray(np.concatenate([batch, padding])))
        outputs.append(jax.tree.map(lambda x, k=len(batch): np.asarray(x)[:k], output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def replaced(tree: PyTree, rows: np.ndarray, new: PyTree) -> PyTree:
    """A pytree of NumPy arrays with some rows of all of them exchanged for new ones."""

    def replace(old: np.ndarray, part: np.ndarray) -> np.ndarray:
        old = old.copy()
        old[rows] = part
        return old

    return jax.tree.map(replace, tree, new)


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """The same pytree with its real numbers in another floating dtype; counts stay as they are."""

    def one(x):
        is_real = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, dtype) if is_real else x

    return jax.tree.map(one, tree)
