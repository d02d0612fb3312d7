"""Configurations of narrow models: drawn, or lowest, by going back through the elimination.

Each step back gives a spin its value, when all with which it shares a term have theirs. Tables are
kept at the start of each segment of steps, and computed again within it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._types import Key
from ._elimination import Step, Steps, Table, advance, is_up, numbers, pinned, two_ways

Index = Int[Array, " rows"]
Lists = Float[Array, "states k"]


@functools.partial(jax.jit, static_argnames=("width", "n_samples"))
def drawn(
    steps: Steps,
    couplings: Float[Array, " terms"],
    fields: Float[Array, " n"],
    pins: Float[Array, " n"] | None,
    tau: Float[Array, ""],
    key: Key,
    width: int,
    n_samples: int,
) -> Float[Array, "samples n"]:
    """Independent samples; the other arguments are those of `log_sum`."""

    def choose(
        table: Table, step: Step, index: Index, key: Key
    ) -> tuple[Bool[Array, " rows"], Key]:
        same, opposite, _ = two_ways(table, step)
        key, draw_key = jax.random.split(key)
        # A uniform number is below 1 and not below 0: a share of 1 or 0 is no chance.
        dice = jax.random.uniform(draw_key, index.shape, table.dtype)
        stays = dice < jax.nn.sigmoid((same - opposite)[index] / tau)
        if step.pin is not None:
            stays = jnp.where(step.pin == 0, stays, is_up(index, step) == (step.pin > 0))
        return stays, key

    return _walk_back(
        lambda table, step: advance(table, step, tau)[0],
        choose,
        jnp.zeros(2**width, tau.dtype),
        (jnp.zeros(n_samples, jnp.int32), key),
        numbers(steps, couplings, fields, pins),
        steps,
        fields.size,
    )[1]


@functools.partial(jax.jit, static_argnames=("width", "n_states"))
def lowest_of(
    steps: Steps,
    couplings: Float[Array, " terms"],
    fields: Float[Array, " n"],
    pins: Float[Array, " n"],
    width: int,
    n_states: int,
) -> tuple[Bool[Array, " states"], Float[Array, "states n"]]:
    """The configurations of lowest energy, each once, and which of them exist.

    The table has a list for each configuration of the frontier: the best sums, in decreasing order.
    """

    def candidates(table: Lists, step: Step) -> Float[Array, "states twice_k"]:
        same, opposite, _ = two_ways(table, step)
        kept = pinned(table, step)[:, None]
        excluded = step.pin != 0
        return jnp.concatenate(
            [
                jnp.where(excluded & ~kept, -jnp.inf, same),
                jnp.where(excluded & kept, -jnp.inf, opposite),
            ],
            axis=1,
        )

    def choose(
        table: Lists, step: Step, index: Index, rank: Index
    ) -> tuple[Bool[Array, " rows"], Index]:
        chosen = jax.lax.top_k(candidates(table, step)[index], n_states)[1]
        place = jnp.take_along_axis(chosen, rank[:, None], axis=1)[:, 0]
        return place < n_states, place % n_states

    start = jnp.full((2**width, n_states), -jnp.inf, fields.dtype).at[:, 0].set(0)
    index, rank = jnp.zeros(n_states, jnp.int32), jnp.arange(n_states, dtype=jnp.int32)
    # A spin that is not there has one value, or each configuration would be there twice.
    table, spins = _walk_back(
        lambda table, step: jax.lax.top_k(candidates(table, step), n_states)[0],
        choose,
        start,
        (index, rank),
        numbers(steps, couplings, fields, pins, absent=1),
        steps,
        fields.size,
    )
    return jnp.isfinite(table[0]), spins


def _walk_back(
    ahead: Callable[[Array, Step], Array],
    choose: Callable[[Any, Step, Index, Any], tuple[Bool[Array, " rows"], Any]],
    table: Array,
    carry: tuple[Index, Any],
    given: Step,
    steps: Steps,
    n_spins: int,
) -> tuple[Array, Float[Array, "rows n"]]:
    """The last table, and configurations that are chosen spin by spin from the last step on.

    Args:
        ahead: the table after a step.
        choose: whether a spin has the value of its bit, for each configuration of the frontier,
            and what is carried on.
        table: before the first step.
        carry: the configuration of the frontier after the last step, and what `choose` carries.
        given: the steps with their numbers.
        steps: of the plan, in the same segments.
        n_spins: spins that there are.
    """

    def segment(table, part):
        end, _ = jax.lax.scan(lambda t, step: (ahead(t, step), None), table, part)
        return end, table

    def back(carry, part):
        index, rest = carry
        table, step = part
        stays, rest = choose(table, step, index, rest)
        value = jnp.where(is_up(index, step) == stays, 1, -1).astype(jnp.int8)
        return (jnp.where(stays, index, index ^ step.bit), rest), value

    def segment_back(carry, part):
        start, some = part
        _, tables = jax.lax.scan(lambda t, step: (ahead(t, step), t), start, some)
        return jax.lax.scan(back, carry, (tables, some), reverse=True)

    last, starts = jax.lax.scan(segment, table, given)
    _, values = jax.lax.scan(segment_back, carry, (starts, given), reverse=True)
    rows = values.reshape(-1, values.shape[-1])
    # Spins that are not there fall behind the last.
    by_spin = jnp.zeros((n_spins + 1, rows.shape[1]), rows.dtype).at[steps.spin.ravel()].set(rows)
    return last, by_spin[:n_spins].T.astype(table.dtype)
