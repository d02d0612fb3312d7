"""Sweeps of single-spin updates over many replicas at once, the replicas side by side in memory.

A sweep of one chain (`sweep`) is a function like any other; batched by `jax.vmap`, however deep,
it runs as ONE sweep of an array `(n, replicas)`. Updating a spin then reads and writes contiguous
rows, and the local fields of many replicas are one matrix product.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._bits import packed, random_words, signs
from .._checks import as_float, check_precision
from .._linalg import dot
from .._types import Beta, Key, Spins
from ..energies import (
    RBM,
    AbstractEnergy,
    AbstractMultilinear,
    Complete,
    Interactions,
    Mixture,
    Pairwise,
    conditional_field,
    conditional_fields,
)
from ._base import Clamp
from ._coloring import color_plan

# Spins whose local fields are computed by one matrix product, and whose updates are one kernel.
_BLOCK = 16
# Replicas of a coloured energy that share a word.
_WORD = 32

# Share of its turns in which Metropolis proposes to flip a spin. At 1 it is not ergodic: free
# spins would flip together for ever. The correlation of free spins is `1 - 2 PROPOSED` a sweep,
# so that less than 1 forgets faster where it is hot, and more flips faster where it is cold
# (Peskun 1973). Measured on glasses, lattices and rings, autocorrelation times of energies and
# pairs at this share are at most 1.3 sweeps near beta = 0 (2.1 at 0.9, 4 at 0.95), and within a
# tenth of those at 0.9 in the cold.
PROPOSED = 0.85

# (2 beta h_k, s_k, threshold) -> new s_k
Rule = Callable[[Array, Array, Array], Array]
# Numbers of spins, shape (m,) -> random thresholds of all replicas, shape (m, replicas)
Thresholds = Callable[[Array], Array]


def heat_bath(field, spin, threshold):
    """Up with probability `1 / (1 + exp(-field))`, for a logistic threshold."""
    return jnp.where(field > threshold, 1, -1).astype(spin.dtype)


def metropolis(field, spin, threshold):
    """Flip with probability `PROPOSED min(1, exp(-s field))`, by `_proposals` as threshold."""
    return jnp.where(jnp.maximum(spin * field, 0) < threshold, -spin, spin)


def sweep(
    rule: Rule,
    energy: AbstractEnergy,
    spins: Spins,
    beta: Beta,
    key: Key,
    clamp: Clamp = None,
) -> Float[Array, " n"]:
    """Update every spin of one chain once by `rule` (`heat_bath` or `metropolis`)."""
    check_precision(energy)
    if jnp.issubdtype(jnp.result_type(spins), jnp.floating):
        check_precision(spins, "spins")
    spins = as_float(spins)
    beta = jnp.asarray(beta, spins.dtype)
    chain = jax.tree.map(lambda x: x[None], (spins, beta, key, clamp))
    return _replicas(rule)(energy, *chain)[0]


@functools.cache
def _replicas(rule: Rule):
    """The sweep of replicas `(R, n)`; every batch axis put upon it becomes more replicas."""

    def plain(energy, spins, beta, keys, clamp):
        thresholds = _thresholds(rule, spins.T, keys, clamp)
        return sweep_population(energy, spins.T, beta, thresholds, rule).T

    batched_sweep = jax.custom_batching.custom_vmap(plain)

    @batched_sweep.def_vmap
    def _(size, batched, energy, *arrays):
        of_energy, *of_arrays = batched
        if any(jax.tree.leaves(of_energy)):
            axes = jax.tree.map(lambda b: 0 if b else None, (of_energy, *of_arrays))
            return jax.vmap(plain, in_axes=axes, axis_size=size)(energy, *arrays), True

        # The new axis comes after those of the replicas: what is mapped last, the chains, stays
        # contiguous.
        def flat(x, is_batched):
            whole = x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
            return whole.swapaxes(0, 1).reshape(-1, *whole.shape[2:])

        spins = batched_sweep(energy, *jax.tree.map(flat, arrays, tuple(of_arrays)))
        return spins.reshape(-1, size, spins.shape[-1]).swapaxes(0, 1), True

    return batched_sweep


@functools.singledispatch
def sweep_population(
    energy: AbstractEnergy,
    spins: Float[Array, "n replicas"],
    beta: Float[Array, " replicas"],
    thresholds: Thresholds,
    rule: Rule,
) -> Float[Array, "n replicas"]:
    """One sweep of all replicas, spin after spin in order.

    Open for extension: `sweep_population.register(YourEnergy)` may visit the spins in any order
    that does not depend on the configuration, and at once those that do not interact.
    `thresholds(sites)` are the random numbers of these spins, shape `(sites, replicas)`.
    """
    fields = jax.vmap(lambda s, k: conditional_fields(energy, 1.0, s)[k], in_axes=(1, None))
    return _one_by_one(lambda s, k: 2 * beta * fields(s, k), spins, thresholds, rule)


def _one_by_one(field, spins, thresholds, rule):
    """Every spin in turn, by `field(spins, k)` of spin k in all replicas, shape `(replicas,)`."""
    noise = thresholds(jnp.arange(len(spins)))
    return jax.lax.fori_loop(
        0, len(spins), lambda k, s: s.at[k].set(rule(field(s, k), s[k], noise[k])), spins
    )


@sweep_population.register
def _(energy: AbstractMultilinear, spins, beta, thresholds, rule):
    def field(s, k):
        unit = jnp.zeros(len(s), s.dtype).at[k].set(1)
        slope = jax.vmap(lambda x: jax.jvp(energy, (x,), (unit,))[1], in_axes=1)(s)
        return -2 * beta * slope

    return _one_by_one(field, spins, thresholds, rule)


@sweep_population.register
def _(energy: Mixture, spins, beta, thresholds, rule):
    """Spin after spin; the energies in all experts go on with every spin that flips."""
    noise = thresholds(jnp.arange(len(spins)))

    def of_each(function):  # of experts, shape (experts, replicas)
        return jax.vmap(jax.vmap(function, in_axes=(None, 1)), in_axes=(0, None))

    def update(k, carry):
        spins, log_joint = carry
        fields = of_each(lambda e, s: conditional_field(e, 1.0, s, k))(energy.experts, spins)
        flipped = log_joint - 2 * spins[k][None, :] * fields
        gap = jax.nn.logsumexp(log_joint, axis=0) - jax.nn.logsumexp(flipped, axis=0)
        new = rule(beta * spins[k] * gap, spins[k], noise[k])
        log_joint = jnp.where((new == spins[k])[None, :], log_joint, flipped)
        return spins.at[k].set(new), log_joint

    start = spins, jax.vmap(energy.log_joint, in_axes=1, out_axes=1)(spins)
    return jax.lax.fori_loop(0, len(spins), update, start)[0]


@sweep_population.register
def _(energy: Pairwise, spins, beta, thresholds, rule):
    """Blocks of spins: the fields of a block by one product, corrected as its spins change."""
    n, size = len(spins), min(_BLOCK, len(spins))
    padding = -n % size
    couplings = jnp.pad(energy.matrix.astype(spins.dtype), (0, padding))
    fields = jnp.pad(energy.fields.astype(spins.dtype), (0, padding))[:, None]
    spins = jnp.pad(spins, ((0, padding), (0, 0)), constant_values=1)
    n_blocks, scale = (n + padding) // size, 2 * beta

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
        word = _update_block(rule, field, own, noise, inner, scale)
        return spins, word, read(spins, (b + 1) % n_blocks)

    start = spins, packed(spins[-size:], axis=0), spins[:size]
    spins, word, _ = jax.lax.fori_loop(0, n_blocks, update_block, start)
    return write(spins, n_blocks - 1, word)[:n]


def _update_block(rule, field, own, thresholds, inner, scale):
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


@sweep_population.register
def _(energy: RBM, spins, beta, thresholds, rule):
    """Hidden layer, then visible layer: within a layer nothing interacts."""
    weights, a, b = (x.astype(spins.dtype) for x in jax.tree.leaves(energy))
    scale, sites = (2 * beta)[None, :], jnp.arange(len(spins))
    v = energy.n_visible
    visible, hidden = spins[:v], spins[v:]
    hidden = rule(scale * (b[:, None] + dot(weights.T, visible)), hidden, thresholds(sites[v:]))
    visible = rule(scale * (a[:, None] + dot(weights, hidden)), visible, thresholds(sites[:v]))
    return jnp.concatenate([visible, hidden])


@sweep_population.register
def _(energy: Interactions, spins, beta, thresholds, rule):
    """Colour after colour, replicas as the bits of words: products of spins are exclusive ors."""
    plan = color_plan(energy.n_spins, energy.sets)
    n, replicas = spins.shape
    width = min(_WORD, replicas)

    def by_word(x):
        padded = jnp.pad(x, ((0, 0), (0, -replicas % width)), constant_values=1)
        return padded.reshape(len(x), -1, width)

    # Padding points to a coupling that is 0 and to a spin beyond the last.
    couplings = [jnp.append(c.astype(spins.dtype), 0) for c in energy.couplings]
    words = packed(by_word(jnp.pad(spins, ((0, 1), (0, 0)), constant_values=1)))
    scale = by_word((2 * beta)[None, :])

    def update_color(words, color):
        members, incidences = color
        as_signs = functools.partial(signs, size=width, dtype=spins.dtype)
        field = jnp.zeros((*members.shape, words.shape[1], width), spins.dtype)
        for table, (terms, others) in zip(couplings, incidences, strict=True):
            for d in range(terms.shape[1]):
                minus = jnp.zeros((len(members), words.shape[1]), words.dtype)
                for j in range(others.shape[2]):
                    minus ^= words[others[:, d, j]]
                field += table[terms[:, d]][:, None, None] * as_signs(minus)
        new = rule(scale * field, as_signs(words[members]), by_word(thresholds(members)))
        return words.at[members].set(packed(new)), None

    words, _ = jax.lax.scan(update_color, words, plan)
    return signs(words[:n], width, spins.dtype).reshape(n, -1)[:, :replicas]


@sweep_population.register
def _(energy: Complete, spins, beta, thresholds, rule):
    """By the table of all energies: a flip of spin k is a flip of bit k of the index."""
    table = energy.energies().astype(spins.dtype)
    weights = 1 << np.arange(len(spins))
    index = jnp.sum(jnp.where(spins > 0, weights[:, None], 0), axis=0)
    noise = thresholds(jnp.arange(len(spins)))

    def update(k, carry):
        spins, index = carry
        bit = jnp.asarray(1, index.dtype) << k
        field = beta * (table[index & ~bit] - table[index | bit])
        new = rule(field, spins[k], noise[k])
        return spins.at[k].set(new), jnp.where(new > 0, index | bit, index & ~bit)

    return jax.lax.fori_loop(0, len(spins), update, (spins, index))[0]


def _thresholds(rule: Rule, spins, keys, clamp) -> Thresholds:
    """Thresholds for replicas `(n, R)` with a key each; clamped spins get one never passed."""
    dtype, width = spins.dtype, 64 if spins.dtype == jnp.float64 else 32
    variate = _logistic if rule is heat_bath else _proposals

    def thresholds(sites):
        noise = variate(random_words(keys, sites, width), width, dtype)
        if clamp is None:
            return noise
        never = -spins[sites] * jnp.inf if rule is heat_bath else -jnp.inf
        return jnp.where(clamp.T[sites] != 0, never, noise)

    return thresholds


def _logistic(words, width: int, dtype):
    """Logistic variates, symmetric and with tails resolved to 1e-10 (float64: 1e-19).

    One bit of a random word is the sign, the others a uniform number in (0, 1/2): near 0 floats
    lie dense, whereas `uniform` leaves nothing between 0 and 1e-7 in float32.
    """
    half = _open_uniform(words >> 1, width, dtype)
    negative = jnp.log(half / (1 - half))
    return jnp.where(words & 1, -negative, negative)


def _proposals(words, width: int, dtype):
    """Exponential variates, shifted so that a share of `PROPOSED` lies above zero."""
    return np.log(PROPOSED).astype(dtype) - jnp.log(_open_uniform(words, width, dtype))


def _open_uniform(words, width: int, dtype):
    return (words.astype(dtype) + 0.5) * 2.0**-width
