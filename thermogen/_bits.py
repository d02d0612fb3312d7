"""Random words, and spins as the bits of words."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def signs(words, size: int, dtype, axis: int = -1):
    """Bits of words as spins on a new axis: 1 is down."""
    bits = jnp.expand_dims(words, axis) >> _places(size, words.ndim + 1, axis)
    return 1 - 2 * (bits & 1).astype(dtype)


def packed(spins, axis: int = -1):
    """Spins along an axis as bits of one word."""
    bits = bit_row(spins.shape[axis], spins.ndim, axis)
    return jnp.sum(jnp.where(spins < 0, bits, np.uint32(0)), axis=axis, dtype=jnp.uint32)


def bit_row(size: int, ndim: int, axis: int = -1) -> np.ndarray:
    """Words of one bit each, along one of so many axes."""
    return np.uint32(1) << _places(size, ndim, axis)


def _places(size: int, ndim: int, axis: int):
    shape = [1] * ndim
    shape[axis] = size
    return np.arange(size, dtype=np.uint32).reshape(shape)


def packed_parts(parts: Sequence[Array]) -> Array:
    """Bits along the last axis as words, of arrays of one shape that follow each other.

    What XLA packs by one kernel it computes once: both random words of a counter, for example.
    """
    ndim, size = parts[0].ndim, parts[0].shape[-1]
    bits = bit_row(size, ndim)
    chosen = tuple(jnp.where(part, bits, np.uint32(0)) for part in parts)
    zeros = (np.uint32(0),) * len(parts)
    either = functools.partial(jax.tree.map, jnp.bitwise_or)
    return jnp.concatenate(jax.lax.reduce(chosen, zeros, either, (ndim - 1,)))


def random_words(keys: Array, sites: Array, width: int) -> Array:
    """Words of `width` bits for each of `sites` and of `keys`, shape `(sites, keys)`.

    They are independent of each other, and of those for other sites. Two words of 32 bits come
    from one counter: the number of a site in the first half of `sites`. Threefry is written out
    here: XLA fuses it with what uses the words and vectorises it, where the rolled loop of
    `jax.random` on a CPU takes three times as long. Keys of other generators
    draw by `jax.random`.
    """
    return jnp.concatenate(random_parts(keys, sites, width))


def random_parts(keys: Array, sites: Array, width: int) -> tuple[Array, ...]:
    """`random_words` in parts of which each continues the other; two where counters give two."""
    if jax.random.key_impl(keys) != "threefry2x32":
        draw = functools.partial(jax.random.bits, shape=sites.shape, dtype=f"uint{width}")
        return (jax.vmap(lambda key: draw(jax.random.fold_in(key, sites[0])))(keys).T,)
    data = jax.random.key_data(keys).T[:, None, :]
    counters = sites if width == 64 else sites[: -(-sites.size // 2)]
    counts = jnp.broadcast_to(counters.astype(jnp.uint32)[:, None], (counters.size, data.shape[-1]))
    high, low = threefry(data[0], data[1], counts)
    if width == 64:
        return ((high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64),)
    return high, low[: sites.size - len(high)]


def folded(key: Array, numbers: Array) -> Array:
    """A key for each number, that of `jax.random.fold_in`, written out as in `random_words`."""
    if jax.random.key_impl(key) != "threefry2x32":
        return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    data = jax.random.key_data(key)
    words = threefry(data[0], data[1], numbers.astype(jnp.uint32))
    return jax.random.wrap_key_data(jnp.stack(words, axis=-1), impl="threefry2x32")


def threefry(key0, key1, count):
    """Threefry-2x32 of 20 rounds on the counter `(0, count)` (Salmon et al. 2011)."""
    schedule = (key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA))
    x, y = jnp.broadcast_to(key0, count.shape), count + key1
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = x ^ ((y << turn) | (y >> (32 - turn)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
