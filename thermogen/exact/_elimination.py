"""Sums over the configurations of narrow models: spin after spin, on a table over the frontier.

The table holds `tau ln` of a sum of weights for each configuration of the frontier, the spins that
share a term with one that is summed out already. A spin has a bit of the index while it waits
there; along a bit that is free the table is constant. One step sums out one spin s, with all terms
that are not added yet in its field g,

    table'(x) = tau ln sum_s exp((table(x with s) + s g(x)) / tau),

on which a spin that enters may take the bit that s leaves. All steps are one program in a loop:
bits, sets and couplings are numbers in it. Set bits are spins that are down, so that the product
of a set is the parity of its bits.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Int

from .._cold import free_entropy
from .._linalg import dot
from ..energies import SpinSets
from ._orders import cut_set, elimination_order, first_uses, width_of_order

Table = Float[Array, " states"]


class Steps(NamedTuple):
    """What each step does, in segments of equal length, filled up with spins that are not there.

    Attributes:
        spin: the spin that is summed out, n for none.
        bit: its bit of the index, 0 for one that enters and leaves within the step.
        rows: numbers of the terms that are added: terms of two spins and more, then fields, then
            one that is always 0.
        masks: bits of the spins in each of them.
    """

    spin: Int[np.ndarray | Array, "segments length"]
    bit: Int[np.ndarray | Array, "segments length"]
    rows: Int[np.ndarray | Array, "segments length terms"]
    masks: Int[np.ndarray | Array, "segments length terms"]


class Plan(NamedTuple):
    """The steps of a graph of which some spins may be cut.

    Attributes:
        steps: a spin that is cut has one of its own, without a bit, at the end.
        width: size of the largest frontier.
        cut: the spins that are cut.
        cut_masks: which of them each term holds, bit j for the j-th; terms of two spins and more
            in the order of the graph, then fields.
    """

    steps: Steps
    width: int
    cut: Int[np.ndarray | Array, " cut"]
    cut_masks: Int[np.ndarray | Array, " terms_and_fields"]


class Cut(NamedTuple):
    """Spins whose values are given, and the largest frontier of the others."""

    spins: tuple[int, ...]
    width: int


@functools.lru_cache(maxsize=64)
def width_of(n_spins: int, sets: tuple[SpinSets, ...]) -> int:
    """Spins in the largest frontier of the order that was found for this graph."""
    return _order(n_spins, sets)[1]


@functools.lru_cache(maxsize=64)
def _order(n_spins: int, sets: tuple[SpinSets, ...]) -> tuple[np.ndarray, int]:
    return elimination_order(n_spins, [table.indices for table in sets])


@functools.lru_cache(maxsize=64)
def cuts_of(n_spins: int, sets: tuple[SpinSets, ...], most: int) -> tuple[Cut, ...]:
    """The fewest spins, up to `most`, for each smaller width of the order that was found."""
    order, width = _order(n_spins, sets)
    tables = [table.indices for table in sets]
    cuts = [Cut((), width)]
    for smaller in range(width - 1, 0, -1):
        spins = cut_set(order, tables, smaller, most)
        if len(spins) > most:
            break
        found = width_of_order(_cut_last(order, spins), tables, len(spins))
        cuts.append(Cut(tuple(spins), found))
    return tuple(cuts)


def _cut_last(order: np.ndarray, spins: Sequence[int]) -> np.ndarray:
    return np.append(order[~np.isin(order, spins)], np.array(spins, int))


@functools.lru_cache(maxsize=64)
def plan_of(n_spins: int, sets: tuple[SpinSets, ...], cut: Cut) -> Plan:
    """The steps for terms of two spins and more, whose width has been found to be small."""
    order = _cut_last(_order(n_spins, sets)[0], cut.spins)
    tables = [table.indices for table in sets]
    leaves, enters, added = first_uses(order, tables, len(cut.spins))
    bit = _bits(order, leaves, enters)
    n_terms = sum(map(len, tables))
    masks = np.concatenate([_parities(bit, table) for table in tables] + [bit])
    step = np.concatenate([*added, leaves])
    # Terms by the step that adds them, and their places within it.
    sequence = np.argsort(step, kind="stable")
    counts = np.bincount(step, minlength=n_spins)
    place = np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
    length, segments = _segments(n_spins)
    rows = np.full((segments * length, max(1, counts.max(initial=0))), n_terms + n_spins, np.int32)
    rows[step[sequence], place] = sequence
    shape = (segments, length)
    padded = np.full(segments * length, n_spins, np.int32)
    padded[:n_spins] = order
    steps = Steps(
        padded.reshape(shape),
        np.append(bit, 0).astype(np.int32)[padded].reshape(shape),
        rows.reshape(*shape, -1),
        np.append(masks, 0).astype(np.int32)[rows].reshape(*shape, -1),
    )
    spins = np.array(cut.spins, np.int32)
    cut_bit = np.zeros(n_spins, np.int32)
    cut_bit[spins] = 1 << np.arange(spins.size)
    cut_masks = np.concatenate([_parities(cut_bit, table) for table in tables] + [cut_bit])
    return Plan(steps, cut.width, spins, cut_masks)


def n_tables(n_spins: int) -> int:
    """Tables that a derivative holds at once: starts of all segments, and one segment."""
    return sum(_segments(n_spins)) + 6


def _segments(n_spins: int) -> tuple[int, int]:
    length = math.isqrt(max(n_spins, 1) - 1) + 1
    return length, -(-n_spins // length)


def _bits(order: np.ndarray, leaves: np.ndarray, enters: np.ndarray) -> np.ndarray:
    """The bit of each spin while it waits in the frontier; 0 for one that never does."""
    bit, free, n_bits = [0] * len(order), [], 0
    newcomers = np.argsort(enters, kind="stable")
    newcomers = newcomers[(enters < leaves)[newcomers]].tolist()[::-1]
    times = enters.tolist()
    for step, spin in enumerate(order.tolist()):
        if bit[spin]:
            free.append(bit[spin])
        while newcomers and times[newcomers[-1]] == step:
            if not free:
                free.append(1 << n_bits)
                n_bits += 1
            bit[newcomers.pop()] = free.pop()
    return np.array(bit, np.int64)


def _parities(bit: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Mask of each term. A bit that one spin leaves to another of the same term cancels."""
    return np.bitwise_xor.reduce(bit[table], axis=1)


class Step(NamedTuple):
    """One of the steps with its numbers: the couplings of its terms, and the value of its spin."""

    bit: Int[Array, ""]
    masks: Int[Array, " terms"]
    couplings: Float[Array, " terms"]
    pin: Float[Array, ""] | None


@functools.partial(jax.jit, static_argnames="width")
def log_sum(
    steps: Steps,
    couplings: Float[Array, " terms"],
    fields: Float[Array, " n"],
    pins: Float[Array, " n"] | None,
    tau: Float[Array, ""],
    width: int,
) -> Float[Array, ""]:
    """`tau ln sum_s exp((sum_a J_a prod_{k in a} s_k + sum_k h_k s_k) / tau)`.

    Derivatives by couplings and fields are means, the one by tau is the entropy. A reverse pass
    computes segment by segment anew.

    Args:
        steps: those of the graph.
        couplings: J of terms of two spins and more, in the order of the graph.
        fields: h.
        pins: +1 or -1 where a spin has this value, 0 where both are summed; None for no pins.
        tau: above 0.
        width: of the plan.
    """

    @jax.checkpoint
    def segment(table, part):
        return jax.lax.scan(lambda t, step: advance(t, step, tau), table, part)

    start = jnp.zeros(2**width, tau.dtype)
    table, references = jax.lax.scan(segment, start, numbers(steps, couplings, fields, pins))
    n_absent = steps.spin.size - fields.size
    return table[0] + jnp.sum(references) - n_absent * math.log(2) * tau


def numbers(
    steps: Steps,
    couplings: Float[Array, " terms"],
    fields: Float[Array, " n"],
    pins: Float[Array, " n"] | None,
    absent: int = 0,
) -> Step:
    """The steps with their numbers; `absent` is the pin of spins that are not there."""
    values = jnp.concatenate([couplings, fields, jnp.zeros(1, fields.dtype)])
    pin = None if pins is None else jnp.append(pins, absent)[steps.spin]
    return Step(jnp.asarray(steps.bit), jnp.asarray(steps.masks), values[steps.rows], pin)


def advance(table: Table, step: Step, tau: Float[Array, ""]) -> tuple[Table, Float[Array, ""]]:
    """The table after a step, and the reference that was taken off so that numbers stay small."""
    same, opposite, reference = two_ways(table, step)
    new = _log_add(same, opposite, tau)
    if step.pin is not None:
        new = jnp.where(step.pin == 0, new, jnp.where(pinned(table, step), same, opposite))
    return new, reference


def two_ways(
    table: Float[Array, "states ..."], step: Step
) -> tuple[Float[Array, "states ..."], Float[Array, "states ..."], Float[Array, ""]]:
    """What is added in a step: where its spin has the value of its bit, and where the opposite.

    Both less a reference, which comes third.
    """
    reference = jax.lax.stop_gradient(jnp.ravel(table)[0])
    field = _field(step, len(table)).reshape(-1, *[1] * (table.ndim - 1))
    return table + field - reference, _flipped(table, step.bit) - field - reference, reference


def pinned(table: Float[Array, "states ..."], step: Step) -> Bool[Array, " states"]:
    """Whether the value of its bit is that of the pin."""
    assert step.pin is not None
    return is_up(jnp.arange(len(table), dtype=step.bit.dtype), step) == (step.pin > 0)


def is_up(index: Int[Array, " states"], step: Step) -> Bool[Array, " states"]:
    """Value of the spin that a step sums out, as its bit says: up where it has none."""
    return index & step.bit == 0


def _field(step: Step, size: int) -> Table:
    """`s g(x)`: what the terms of a step add where the spin has the value of its bit."""
    width = size.bit_length() - 1
    low = width // 2
    lower, upper = (
        signs(masks[:, None], jnp.arange(2**bits, dtype=masks.dtype)[None], step.couplings.dtype)
        for masks, bits in ((step.masks & (2**low - 1), low), (step.masks >> low, width - low))
    )
    return dot((step.couplings[:, None] * upper).T, lower).reshape(-1)


def signs(masks: Int[Array, "..."], index: Int[Array, "..."], dtype) -> Float[Array, "..."]:
    """Product of the spins in each mask, in configurations by their index."""
    odd = jax.lax.population_count(masks & index) & 1
    return 1 - 2 * odd.astype(dtype)


# Its indices are computed again where the derivative needs them: they would fill as much memory
# as the tables.
@jax.checkpoint
def _flipped(table: Float[Array, "states ..."], bit: Int[Array, ""]) -> Float[Array, "states ..."]:
    index = jnp.arange(len(table), dtype=bit.dtype) ^ bit
    return table.at[index].get(mode="promise_in_bounds", unique_indices=True)


@jax.custom_jvp
def _log_add(a: Table, b: Table, tau: Float[Array, ""]) -> Table:
    """`tau ln(exp(a / tau) + exp(b / tau))`.

    A reverse pass through a loop drops the rule below where it is differentiated once more, so the
    formula has to be smooth at a = b, which a maximum is not.
    """
    larger = a > b
    most, least = jnp.where(larger, a, b), jnp.where(larger, b, a)
    return most + tau * jnp.log1p(jnp.exp((least - most) / tau))


@functools.partial(_log_add.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    """Of all that the derivatives need, one table is kept: the share of the first."""
    (a, b, tau), (a_dot, b_dot, tau_dot) = primals, tangents
    odds = (a - b) / tau
    share = jax.nn.sigmoid(odds)
    a_dot, b_dot = _instantiated(a_dot, a), _instantiated(b_dot, b)
    change = b_dot + share * (a_dot - b_dot)
    if not isinstance(tau_dot, SymbolicZero):
        change += free_entropy(0.5 * odds) * tau_dot
    return _log_add(a, b, tau), change


def _instantiated(tangent: Table | SymbolicZero, like: Table) -> Table:
    return jnp.zeros_like(like) if isinstance(tangent, SymbolicZero) else tangent
