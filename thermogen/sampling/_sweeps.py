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

from .._types import Beta, Key, Spins
from ..energies import RBM, AbstractMultilinear, Complete, Interactions, Pairwise
from ..energies._base import as_float
from ._base import Clamped
from ._coloring import color_plan

# Spins whose local fields are computed by one matrix product; a divisor of no particular number.
_BLOCK = 32

# (2 beta h_k, s_k, threshold) -> new s_k
Rule = Callable[[Array, Array, Array], Array]


def heat_bath(field, spin, threshold):
    """Up with probability `1 / (1 + exp(-field))`, for a logistic threshold."""
    return jnp.where(field > threshold, 1, -1).astype(spin.dtype)


def metropolis(field, spin, threshold):
    """Flip with probability `min(1, exp(-s field))`, for an exponential threshold."""
    return jnp.where(spin * field < threshold, -spin, spin)


def sweep(
    rule: Rule,
    energy: AbstractMultilinear,
    spins: Spins,
    beta: Beta,
    key: Key,
    clamped: Clamped = None,
) -> Float[Array, " n"]:
    """Update every spin of one chain once by `rule` (`heat_bath` or `metropolis`)."""
    spins = as_float(spins)
    if rule is heat_bath:
        thresholds, never = _logistic(key, spins.size, spins.dtype), -spins * jnp.inf
    else:
        thresholds, never = _exponential(key, spins.size, spins.dtype), -jnp.inf
    if clamped is not None:
        thresholds = jnp.where(clamped, never, thresholds)
    beta = jnp.asarray(beta, spins.dtype)
    return _replicas(rule)(energy, spins[None], beta[None], thresholds[None])[0]


@functools.cache
def _replicas(rule: Rule):
    """The sweep of replicas `(R, n)`; every batch axis put upon it becomes more replicas."""

    def plain(energy, spins, beta, thresholds):
        return sweep_population(energy, spins.T, beta, thresholds.T, rule).T

    batched_sweep = jax.custom_batching.custom_vmap(plain)

    @batched_sweep.def_vmap
    def _(size, batched, energy, *arrays):
        of_energy, *of_arrays = batched
        if any(jax.tree.leaves(of_energy)):
            axes = jax.tree.map(lambda b: 0 if b else None, (of_energy, *of_arrays))
            return jax.vmap(plain, in_axes=axes, axis_size=size)(energy, *arrays), True
        whole = [
            x if b else jnp.broadcast_to(x, (size, *x.shape))
            for x, b in zip(arrays, of_arrays, strict=True)
        ]
        spins = batched_sweep(energy, *(x.reshape(-1, *x.shape[2:]) for x in whole))
        return spins.reshape(size, -1, spins.shape[-1]), True

    return batched_sweep


@functools.singledispatch
def sweep_population(
    energy: AbstractMultilinear,
    spins: Float[Array, "n replicas"],
    beta: Float[Array, " replicas"],
    thresholds: Float[Array, "n replicas"],
    rule: Rule,
) -> Float[Array, "n replicas"]:
    """One sweep of all replicas, spin after spin in order.

    Open for extension: `sweep_population.register(YourEnergy)` may visit the spins in any order
    that does not depend on the configuration, and at once those that do not interact.
    """

    def update(k, s):
        unit = jnp.zeros(len(s), s.dtype).at[k].set(1)
        slope = jax.vmap(lambda x: jax.jvp(energy, (x,), (unit,))[1], in_axes=1)(s)
        return s.at[k].set(rule(-2 * beta * slope, s[k], thresholds[k]))

    return jax.lax.fori_loop(0, len(spins), update, spins)


@sweep_population.register
def _(energy: Pairwise, spins, beta, thresholds, rule):
    """Blocks of spins: the fields of a block by one product, corrected as its spins change."""
    n, size = len(spins), min(_BLOCK, len(spins))
    padding = -n % size
    couplings = jnp.pad(energy.couplings.astype(spins.dtype), (0, padding))
    fields = jnp.pad(energy.fields.astype(spins.dtype), (0, padding))[:, None]
    spins, thresholds = (jnp.pad(x, ((0, padding), (0, 0))) for x in (spins, thresholds))
    scale = (2 * beta)[None, :]

    def update_block(b, spins):
        rows, own, noise, field = (
            jax.lax.dynamic_slice_in_dim(x, b * size, size)
            for x in (couplings, spins, thresholds, fields)
        )
        inner = jax.lax.dynamic_slice_in_dim(rows, b * size, size, axis=1)
        field = scale * (field + rows @ spins)

        def update(k, carry):
            own, field = carry
            new = rule(field[k], own[k], noise[k])
            change = (scale[0] * (new - own[k]))[None, :]
            return own.at[k].set(new), field + inner[:, k][:, None] * change

        own, _ = jax.lax.fori_loop(0, size, update, (own, field))
        return jax.lax.dynamic_update_slice_in_dim(spins, own, b * size, 0)

    return jax.lax.fori_loop(0, (n + padding) // size, update_block, spins)[:n]


@sweep_population.register
def _(energy: RBM, spins, beta, thresholds, rule):
    """Hidden layer, then visible layer: within a layer nothing interacts."""
    weights, a, b = (x.astype(spins.dtype) for x in jax.tree.leaves(energy))
    scale = (2 * beta)[None, :]
    visible, hidden = jnp.split(spins, [energy.n_visible])
    visible_noise, hidden_noise = jnp.split(thresholds, [energy.n_visible])
    hidden = rule(scale * (b[:, None] + weights.T @ visible), hidden, hidden_noise)
    visible = rule(scale * (a[:, None] + weights @ hidden), visible, visible_noise)
    return jnp.concatenate([visible, hidden])


@sweep_population.register
def _(energy: Interactions, spins, beta, thresholds, rule):
    """Colour after colour: spins of one colour share no interaction."""
    plan = color_plan(energy.n_spins, energy.sets)
    # Padding points to a coupling that is 0 and to a spin beyond the last.
    couplings = [jnp.append(c.astype(spins.dtype), 0) for c in energy.couplings]
    spins = jnp.concatenate([spins, jnp.ones_like(spins[:1])])
    thresholds = jnp.concatenate([thresholds, jnp.zeros_like(thresholds[:1])])
    scale = (2 * beta)[None, :]

    def update_color(spins, color):
        members, incidences = color
        field = jnp.zeros((members.size, spins.shape[1]), spins.dtype)
        for table, (terms, others) in zip(couplings, incidences, strict=True):
            for d in range(terms.shape[1]):
                product = table[terms[:, d]][:, None]
                for j in range(others.shape[2]):
                    product = product * spins[others[:, d, j]]
                field = field + product
        new = rule(scale * field, spins[members], thresholds[members])
        return spins.at[members].set(new), None

    return jax.lax.scan(update_color, spins, plan)[0][:-1]


@sweep_population.register
def _(energy: Complete, spins, beta, thresholds, rule):
    """By the table of all energies: a flip of spin k is a flip of bit k of the index."""
    table = energy.energies().astype(spins.dtype)
    weights = 1 << np.arange(len(spins))
    index = jnp.sum(jnp.where(spins > 0, weights[:, None], 0), axis=0)

    def update(k, carry):
        spins, index = carry
        bit = jnp.asarray(1, index.dtype) << k
        field = beta * (table[index & ~bit] - table[index | bit])
        new = rule(field, spins[k], thresholds[k])
        return spins.at[k].set(new), jnp.where(new > 0, index | bit, index & ~bit)

    return jax.lax.fori_loop(0, len(spins), update, (spins, index))[0]


def _logistic(key: Key, n: int, dtype) -> Float[Array, " n"]:
    """Logistic variates, symmetric and with tails resolved to 1e-10 (float64: 1e-19).

    One bit of a random word is the sign, the others a uniform number in (0, 1/2): near 0 floats
    lie dense, whereas `uniform` leaves nothing between 0 and 1e-7 in float32.
    """
    words = _words(key, n, dtype)
    half = _open_uniform(words >> 1, words.dtype.itemsize * 8, dtype)
    negative = jnp.log(half / (1 - half))
    return jnp.where(words & 1, -negative, negative)


def _exponential(key: Key, n: int, dtype) -> Float[Array, " n"]:
    words = _words(key, n, dtype)
    return -jnp.log(_open_uniform(words, words.dtype.itemsize * 8, dtype))


def _words(key: Key, n: int, dtype):
    return jax.random.bits(key, (n,), jnp.uint64 if dtype == jnp.float64 else jnp.uint32)


def _open_uniform(words, n_bits: int, dtype):
    return (words.astype(dtype) + 0.5) * 2.0**-n_bits
