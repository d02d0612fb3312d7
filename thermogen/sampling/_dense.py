"""Sweeps of dense pairwise energies: many chains in blocks of spins, one or two from flip to flip.

Many chains share kernels and matrix products. One has nobody to share with, and what it costs is
to start kernels: all thresholds of a sweep are drawn at once, and a loop goes from one flip to the
next. A spin that stays costs its share of a window in which that flip is looked for. Two such loops
one after the other still take less time than blocks of two; three take longer where it is hot.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._bits import packed, signs
from .._linalg import dot
from ._rules import AbstractRule

# Spins whose local fields are computed by one matrix product, and whose updates are one kernel.
_BLOCK = 16
# Chains that go from flip to flip, each by itself.
_FEW = 2
# Spins among which the next flip is looked for. XLA reduces up to 31 within one kernel.
_WINDOW = 16

# Numbers of spins, shape (m,) -> random thresholds of all replicas, shape (m, replicas)
Thresholds = Callable[[Array], Array]


def sweep_dense(
    rule: AbstractRule,
    couplings: Float[Array, "n n"],
    fields: Float[Array, " n"],
    scale: Float[Array, " replicas"],
    spins: Float[Array, "n replicas"],
    thresholds: Thresholds,
) -> Float[Array, "n replicas"]:
    """Every spin of all replicas once, in order; `scale` is 2 beta."""
    if spins.shape[1] > _FEW:
        return _in_blocks(rule, couplings, fields, scale, spins, thresholds)
    # Drawn as by blocks, so that a chain does not depend on how many there are.
    n, size = len(spins), min(_BLOCK, len(spins))
    blocks = jnp.arange(n + -n % size).reshape(-1, size)
    noise = jax.vmap(thresholds)(blocks).reshape(-1, spins.shape[1])[:n]
    return _few(rule, couplings, fields, scale, spins, noise)


@jax.custom_batching.custom_vmap
def _few(rule, *arrays):
    return jax.lax.platform_dependent(
        *arrays,
        cpu=functools.partial(_by_flips, rule),
        default=functools.partial(_as_drawn, rule),
    )


@_few.def_vmap
def _(size, batched, rule, *arrays):
    """A batch of energies has work enough for the kernels of blocks."""
    axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
    return jax.vmap(_as_drawn, in_axes=axes, axis_size=size)(rule, *arrays), True


def _as_drawn(rule, couplings, fields, scale, spins, noise):
    return _in_blocks(rule, couplings, fields, scale, spins, noise.__getitem__)


def _in_blocks(rule, couplings, fields, scale, spins, thresholds):
    """Blocks of spins: the fields of a block by one product, corrected as its spins change."""
    n, size = len(spins), min(_BLOCK, len(spins))
    padding = -n % size
    couplings = jnp.pad(couplings, (0, padding))
    fields = jnp.pad(fields, (0, padding))[:, None]
    spins = jnp.pad(spins, ((0, padding), (0, 0)), constant_values=1)
    n_blocks = (n + padding) // size

    def read(x, b):
        return jax.lax.dynamic_slice_in_dim(x, b * size, size)

    def write(spins, b, word):
        block = signs(word, size, spins.dtype, axis=0)
        return jax.lax.dynamic_update_slice_in_dim(spins, block, b * size, 0)

    def update_block(b, carry):
        # What XLA fuses with the updates it computes anew for each of them: the result is written
        # in the next iteration, and the spins before come from the last one.
        spins, word, own = carry
        spins = write(spins, (b - 1) % n_blocks, word)
        rows = read(couplings, b)
        inner = jax.lax.dynamic_slice_in_dim(rows, b * size, size, axis=1)
        field = scale[None, :] * (read(fields, b) + dot(rows, spins))
        noise = thresholds(b * size + jnp.arange(size))
        word = update_in_turn(rule, field, own, noise, inner, scale)
        return spins, word, read(spins, (b + 1) % n_blocks)

    start = spins, packed(spins[-size:], axis=0), spins[:size]
    spins, word, _ = jax.lax.fori_loop(0, n_blocks, update_block, start)
    return write(spins, n_blocks - 1, word)[:n]


def update_in_turn(rule, field, own, thresholds, inner, scale):
    """Spins of a block in turn, unrolled: one bit each of a word, so that XLA fuses it all."""
    size = len(own)
    field, word = list(field), jnp.zeros(own.shape[1], jnp.uint32)
    for k in range(size):
        new = rule(field[k], own[k], thresholds[k])
        word |= jnp.where(new < 0, np.uint32(1 << k), np.uint32(0))
        change = scale * (new - own[k])
        for j in range(k + 1, size):
            field[j] += inner[j, k] * change
    return word


def _by_flips(rule, couplings, fields, scale, spins, noise):
    """By the flips of each chain."""
    later = jnp.pad(jnp.triu(couplings, 1), ((0, 0), (0, _WINDOW)))

    def single(chain):
        scale, spins, thresholds = chain
        field = scale * (fields + dot(couplings, spins))
        return _chain_by_flips(rule, later, scale, field, spins, thresholds)

    if len(scale) == 1:
        return single((scale[0], spins[:, 0], noise[:, 0]))[:, None]
    return jax.lax.map(single, (scale, spins.T, noise.T)).T


def _chain_by_flips(rule, later, scale, field, before, thresholds):
    """One chain in its fields.

    A flip changes the fields of later spins alone, so that in the end each field is the one in
    which its spin was updated. Beyond the last spin stand some that never flip.
    """
    n, beyond = len(before), (0, _WINDOW)
    before = jnp.pad(before, beyond, constant_values=1)
    thresholds = jnp.pad(thresholds, beyond)
    thresholds = jnp.where(jnp.arange(n + _WINDOW) < n, thresholds, rule.never(before))
    places = jnp.arange(1, _WINDOW + 1)

    def unfinished(carry):
        return carry[1] < 2 * (n - 1)

    def to_next_flip(carry):
        # Twice the spin that is reached, and 1 more if it stays: one number is one kernel.
        field, reached = carry
        k = reached >> 1
        field -= later[k] * jnp.where(reached & 1, 0, 2 * scale * before[k])
        window = [
            jax.lax.dynamic_slice_in_dim(x, k + 1, _WINDOW) for x in (field, before, thresholds)
        ]
        flips = rule(*window) != window[1]
        return field, jnp.min(jnp.where(flips, 2 * (k + places), 2 * (k + _WINDOW) + 1))

    start = jnp.pad(field, beyond), jnp.asarray(-1)
    field, _ = jax.lax.while_loop(unfinished, to_next_flip, start)
    return rule(field, before, thresholds)[:n]
