"""Ends of descents as they are harvested: each place is held once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._linalg import dot
from ._lanes import Lanes

# Ends that a descent left closer than this are taken to be one.
TOGETHER = 1e-3
# Projections by which ends are looked up, and columns in which the least of many is sought.
_N_CODES, _COLUMNS = 2, 64


class Ends(NamedTuple):
    """Where descents came to rest, each place once, in no order: not verified yet.

    Attributes:
        fields: effective fields theta of each place, m = tanh(theta), shape `(C, n)`.
        free_energies: G in energy units, shape `(C,)`; infinite where unused.
        hits: descents that ended in each, shape `(C,)`.
        given_hits: how many of them came from starts that were given, or made from others.
        overflow: whether places were dropped because there was no room; the lowest are kept.
        lost: independent descents that ended nowhere, where numbers are no longer finite.
        n_starts: descents that have ended, those of given starts not counted.
    """

    fields: Float[Array, "C n"]
    free_energies: Float[Array, " C"]
    hits: Int[Array, " C"]
    given_hits: Int[Array, " C"]
    overflow: Bool[Array, ""]
    lost: Int[Array, ""]
    n_starts: Int[Array, ""]


class _Table(NamedTuple):
    """What is held while lanes are harvested.

    Attributes:
        lane: the lane whose end lies in each place, -1 where it was held before, shape `(C,)`.
        codes: by which ends are looked up, shape `(codes, C)`; infinite where unused.
        levels, hits, given_hits, overflow: as in `Ends`.
    """

    lane: Int[Array, " C"]
    codes: Float[Array, "codes C"]
    levels: Float[Array, " C"]
    hits: Int[Array, " C"]
    given_hits: Int[Array, " C"]
    overflow: Bool[Array, ""]


def no_ends(room: int, n: int) -> tuple[Ends, Float[Array, "codes C"]]:
    """A table of so many places, none of them used, and their codes."""
    number, empty = jnp.zeros((), jnp.int32), jnp.zeros(room, jnp.int32)
    ends = Ends(
        jnp.zeros((room, n), jnp.float32),
        jnp.full(room, jnp.inf, jnp.float32),
        empty,
        empty,
        jnp.array(False),
        number,
        number,
    )
    return ends, jnp.full((_N_CODES, room), jnp.inf, jnp.float32)


def harvested(
    ends: Ends,
    codes: Float[Array, "codes C"],
    even: Bool[Array, ""],
    lanes: Lanes,
    sound: Bool[Array, " L"],
    g: Float[Array, " L"],
) -> tuple[Ends, Float[Array, "codes C"]]:
    """What is held with the ends of the lanes that are `sound`: new ones, and hits.

    They come one by one: loops over scatters, which a processor needs for many at a time,
    take long to compile. The rows themselves are moved at the end.
    """
    m, room = lanes.descent.m, len(ends.hits)
    own, places = _codes(m), jnp.arange(room)

    def enter(carry):
        waiting, held, table = carry
        lane = jnp.argmax(waiting)
        away = apart(own[:, lane], table.codes, even)
        nearest = _least(away)
        owner = table.lane[nearest]
        near = jnp.where(owner < 0, jnp.tanh(ends.fields[nearest]), m[owner])
        known = jnp.isfinite(away[nearest])
        known &= apart(m[lane], near, even) < TOGETHER
        # What is new takes an unused place, and where there is none the highest.
        full = held == room
        highest = jax.lax.cond(full, jnp.argmax, lambda _: held, table.levels)
        place = jnp.where(known, nearest, highest)
        enters = known | (g[lane] < table.levels[place])
        new = _Table(
            jnp.where(known, owner, lane.astype(jnp.int32)),
            jnp.where(known, table.codes[:, nearest], own[:, lane]),
            jnp.where(known, table.levels[nearest], g[lane]),
            jnp.where(known, table.hits[place], 0) + 1,
            jnp.where(known, table.given_hits[place], 0) + lanes.given[lane],
            table.overflow | (~known & full),
        )
        here = enters & (places == place)

        def put(value, held):
            if not held.ndim:
                return value
            return jnp.where(here if held.ndim == 1 else here[None], value[..., None], held)

        held = held + (~known & ~full)
        waiting = waiting & (jnp.arange(len(g)) != lane)
        return waiting, held, jax.tree.map(put, new, table)

    empty = jnp.full(room, -1, jnp.int32)
    table = _Table(empty, codes, ends.free_energies, ends.hits, ends.given_hits, ends.overflow)
    carry = sound, jnp.sum(jnp.isfinite(ends.free_energies)), table
    table = jax.lax.while_loop(lambda carry: jnp.any(carry[0]), enter, carry)[2]
    fields = jnp.where((table.lane < 0)[:, None], ends.fields, lanes.fields[table.lane])
    return ends._replace(
        fields=fields,
        free_energies=table.levels,
        hits=table.hits,
        given_hits=table.given_hits,
        overflow=table.overflow,
    ), table.codes


def _least(values: Float[Array, " C"]) -> Int[Array, ""]:
    """Where the least of a power of two of values is: of many columns at a time, then of one."""
    table = values.reshape(-1, min(_COLUMNS, values.size))
    column = jnp.argmin(jnp.min(table, axis=0))
    return jnp.argmin(table[:, column]) * table.shape[1] + column


def _codes(m: Float[Array, "rows n"]) -> Float[Array, "codes rows"]:
    """Projections on a few random directions: rows that lie together have close ones."""
    probes = np.random.default_rng(0).normal(size=(m.shape[1], _N_CODES))
    return dot(m, jnp.asarray(probes, m.dtype)).T


def apart(
    one: Float[Array, " k"], others: Float[Array, "k ..."], symmetric: Bool[Array, ""]
) -> Float[Array, "..."]:
    """Largest difference of a column from each of others, modulo the flip where `symmetric`."""
    one = one.reshape(-1, *[1] * (others.ndim - 1))
    away = jnp.max(jnp.abs(others - one), axis=0)
    mirrored = jnp.max(jnp.abs(others + one), axis=0)
    return jnp.where(symmetric, jnp.minimum(away, mirrored), away)
