"""Sweeps of sparse energies, colour after colour: replicas are the bits of words.

Products of spins are exclusive ors of words. In general the field of a spin is a sum of floats, by
which the rule decides. Where all couplings have one size, as in ferromagnets and glasses of +-J,
the field has a level for each number of terms that pull up: adders of single bits count these, and
the random word is compared with the limit of that level. No spin has a field of its own, nor a
logarithm.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from .._bits import bit_row, packed, packed_parts, signs
from ..energies import Interactions
from ._coloring import color_plan, has_few_levels, level_plan
from ._dense import Thresholds
from ._rules import AbstractRule, AbstractWordRule
from ._thresholds import RandomThresholds

# Replicas that share a word, and how many take the road of levels; fewer are as fast by fields.
_WORD = 32
_COUNTED = 8


def sweep_colored(
    rule: AbstractRule,
    energy: Interactions,
    scale: Float[Array, " replicas"],
    spins: Float[Array, "n replicas"],
    thresholds: Thresholds,
) -> Float[Array, "n replicas"]:
    """Every spin of all replicas once; `scale` is 2 beta."""
    n, replicas = spins.shape
    width = min(_WORD, replicas)
    if replicas % width:  # copies fill the last word
        whole = np.arange(replicas + -replicas % width) % replicas
        drawn = _of_replicas(thresholds, whole)
        return sweep_colored(rule, energy, scale[whole], spins[:, whole], drawn)[:, :replicas]
    energy = jax.tree.map(lambda c: c.astype(spins.dtype), energy)
    words = packed(_by_word(jnp.pad(spins, ((0, 1), (0, 0)), constant_values=1), width))
    arrays = rule, energy, _by_word(scale[None, :], width), words, thresholds
    counted = isinstance(thresholds, RandomThresholds) and isinstance(rule, AbstractWordRule)
    counted = counted and width >= _COUNTED and has_few_levels(n, energy.sets)
    words = _by_either(*arrays) if counted else _by_fields(*arrays)
    return signs(words[:n], width, spins.dtype).reshape(n, -1)


def _of_replicas(thresholds: Thresholds, rows: np.ndarray) -> Thresholds:
    if isinstance(thresholds, RandomThresholds):
        return thresholds.of_replicas(rows)
    return lambda sites: thresholds(sites)[:, rows]


def _by_word(x: Array, width: int) -> Array:
    """Replicas by the words that they share, shape `(..., words, width)`."""
    return x.reshape(len(x), -1, width)


def _either(rule, energy, *arrays):
    """Whether couplings are of one size is a number, which a program learns when it runs.

    On a processor. An accelerator would wait for the number in every sweep.
    """
    by_levels = functools.partial(_by_levels, rule, energy)
    by_fields = functools.partial(_by_fields, rule, energy)

    def either(*arrays):
        return jax.lax.cond(_has_levels(rule, energy), by_levels, by_fields, *arrays)

    return jax.lax.platform_dependent(*arrays, cpu=either, default=by_fields)


_by_either = jax.custom_batching.custom_vmap(_either)


@_by_either.def_vmap
def _(size, batched, rule, energy, *arrays):
    """A batch of energies would take both roads."""
    axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
    road = _by_fields if any(jax.tree.leaves(batched[1])) else _either
    return jax.vmap(road, in_axes=axes, axis_size=size)(rule, energy, *arrays), True


def _has_levels(rule: AbstractWordRule, energy: Interactions):
    """Whether couplings have one size, and fields one value, which is 0 for a rule along spins."""
    size, field = _sizes(energy)
    tables = list(zip(energy.sets, energy.couplings, strict=True))
    equal = [jnp.all(jnp.abs(c) == size) for table, c in tables if table.order > 1]
    fields = [c == (0 if rule.along else field) for table, c in tables if table.order == 1]
    if any(len(c) != energy.n_spins for c in fields):  # other spins have none
        fields.append(field == 0)
    return functools.reduce(jnp.logical_and, [*equal, *map(jnp.all, fields)])


def _sizes(energy: Interactions):
    """The size of the first coupling, and the first field."""
    known = [(t.order, c[0]) for t, c in zip(energy.sets, energy.couplings, strict=True) if len(t)]
    size = next(jnp.abs(first) for order, first in known if order > 1)
    return size, next((first for order, first in known if order == 1), jnp.zeros_like(size))


def _by_fields(rule, energy, scale, words, thresholds):
    width, dtype = scale.shape[-1], scale.dtype
    # Padding points to a coupling that is 0 and to a spin beyond the last.
    couplings = [jnp.append(c, 0) for c in energy.couplings]
    as_signs = functools.partial(signs, size=width, dtype=dtype)

    def update_color(words, color):
        members, incidences = color
        field = jnp.zeros((*members.shape, words.shape[1], width), dtype)
        for table, (rows, others) in zip(couplings, incidences, strict=True):
            for d in range(rows.shape[1]):
                minus = _products(words, others[:, d])
                field += table[rows[:, d]][:, None, None] * as_signs(minus)
        noise = _by_word(thresholds(members), width)
        new = rule(scale * field, as_signs(words[members]), noise)
        return words.at[members].set(packed(new)), None

    return jax.lax.scan(update_color, words, color_plan(energy.n_spins, energy.sets))[0]


def _products(words, others):
    """Products of spins of each term, as bits: 1 is -1."""
    minus = jnp.zeros((len(others), words.shape[1]), words.dtype)
    for j in range(others.shape[1]):
        minus ^= words[others[:, j]]
    return minus


def _by_levels(rule, energy, scale, words, thresholds):
    width, (size, field) = scale.shape[-1], _sizes(energy)
    plan = level_plan(energy.n_spins, energy.sets)
    values = np.arange(plan.lowest, -plan.lowest + 1, plan.step)[:, None, None]
    limits = rule.limits(scale * (field + size * values.astype(scale.dtype)))
    negative = [_mask(jnp.append(c < 0, False)) for c in energy.couplings]

    def update_color(words, color):
        members, first, incidences = color
        before = words[members]
        counts = [_mask((first >> b) & 1)[:, None] for b in range((len(values) - 1).bit_length())]
        for table, minus, (rows, others) in zip(energy.sets, negative, incidences, strict=True):
            for d in range(rows.shape[1] if table.order > 1 else 0):
                down = _products(words, others[:, d]) ^ minus[rows[:, d]][:, None]
                up = ~(down ^ before) if rule.along else ~down
                up &= _mask(rows[:, d] < len(table))[:, None]
                counts = _incremented(counts, up, from_bit=2 - plan.step)
        below = _below(rule, limits, counts, thresholds.words(members), width)
        new = before ^ below if rule.along else ~below
        if (held := thresholds.held(members)) is not None:
            fixed = packed(_by_word(jnp.where(held, -1, 1), width))
            new = (before & fixed) | (new & ~fixed)
        return words.at[members].set(new), None

    return jax.lax.scan(update_color, words, (plan.members, plan.first, plan.incidences))[0]


def _mask(true: Array) -> UInt[Array, "*shape"]:
    """All bits of a word, or none."""
    return -jnp.asarray(true, jnp.uint32)


def _incremented(counts: list[Array], bit: Array, from_bit: int) -> list[Array]:
    """Numbers by their bits, those of many in one word, and 1 more of `from_bit` where `bit`."""
    raised = counts[:from_bit]
    for digit in counts[from_bit:]:
        raised.append(digit ^ bit)
        bit = digit & bit
    return raised


def _below(rule, limits, counts, parts, width):
    """Whether the random word of each spin lies below the limit of its level, as bits."""
    bits = bit_row(width, 3)
    below, begin = [], 0
    for part in parts:
        words = rule.ordered(_by_word(part, width))
        rows = slice(begin, begin := begin + len(words))
        chosen = list(limits[:, None])
        for digit in counts:
            is_set = (digit[rows, :, None] & bits) != 0
            pairs = [chosen[i : i + 2] for i in range(0, len(chosen), 2)]
            chosen = [jnp.where(is_set, p[-1], p[0]) for p in pairs]
        below.append(words < chosen[0])
    return packed_parts(below)
