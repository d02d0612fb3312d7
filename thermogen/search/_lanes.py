"""Lanes of descents: where each is, and all of them some steps on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..meanfield import MirrorDescent, Problem
from ..runs import over_lanes

# All starts descend in float32; what comes together counts as one.
ROUGH = MirrorDescent(rtol=1e-6, atol=1e-5)
# Steps between two harvests.
_STEPS = 16
# Magnetizations that are advanced together, and the fewest lanes to which they belong.
_BLOCK, _FEWEST = 2**14, 16
# A descent begins and ends by what its state says, and asks for no function then.
_NO_FUNCTION: Any = None


class Lanes(NamedTuple):
    """Descents under way.

    Attributes:
        fields: where each is, shape `(L, n)`.
        descent: state of the minimiser of each.
        n_steps: steps that each has taken, shape `(L,)`.
        start: number of its start, shape `(L,)`; -1 where a lane is idle.
        given: whether that start is no independent draw, shape `(L,)`.
    """

    fields: Float[Array, "L n"]
    descent: Any
    n_steps: Int[Array, " L"]
    start: Int[Array, " L"]
    given: Bool[Array, " L"]


def begun(fields: Float[Array, "L n"]):
    """The state of the minimiser of descents that start there."""
    return jax.vmap(lambda row: ROUGH.init(_NO_FUNCTION, row, None, {}, None, None, frozenset()))(
        fields
    )


def _is_over(lanes: Lanes, max_steps: int) -> Bool[Array, " L"]:
    def single(row, descent):
        return ROUGH.terminate(_NO_FUNCTION, row, None, {}, descent, frozenset())[0]

    return jax.vmap(single)(lanes.fields, lanes.descent) | (lanes.n_steps >= max_steps)


def advanced(problem: Problem, lanes: Lanes, max_steps: int) -> tuple[Lanes, Bool[Array, " L"]]:
    """All lanes some steps on, fewer where all descents end before; and which have ended."""
    advance = over_lanes(_advanced_in_blocks, (None, 0, None), 0)
    lanes, busy = advance(problem, lanes, max_steps)
    return lanes, (lanes.start >= 0) & ~busy


def _advanced_in_blocks(
    problem: Problem, lanes: Lanes, max_steps: int
) -> tuple[Lanes, Bool[Array, " L"]]:
    """All lanes some steps on, and which have not ended.

    Towards the end, when most lanes are idle, most blocks take no step.
    """
    rows, n = lanes.fields.shape
    size = min(rows, max(_FEWEST, power_of_two(_BLOCK // n)))
    blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), lanes)
    moved = jax.lax.map(lambda block: _advanced_block(problem, block, max_steps), blocks)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), moved)


def _advanced_block(
    problem: Problem, lanes: Lanes, max_steps: int
) -> tuple[Lanes, Bool[Array, " L"]]:
    def residual(theta, _):
        return problem.residual(theta), None

    def single(row, descent):
        row, descent, _ = ROUGH.step(residual, row, None, {}, descent, frozenset())
        return row, descent

    def step(carry):
        lanes, busy, count = carry
        moved = jax.vmap(single)(lanes.fields, lanes.descent)
        kept = lanes.fields, lanes.descent
        fields, descent = jax.tree.map(
            lambda new, old: jnp.where(busy.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            moved,
            kept,
        )
        lanes = lanes._replace(fields=fields, descent=descent, n_steps=lanes.n_steps + busy)
        return lanes, busy & ~_is_over(lanes, max_steps), count + 1

    # What has ended was harvested: all lanes that are not idle go on.
    carry = lanes, lanes.start >= 0, jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda carry: (carry[2] < _STEPS) & jnp.any(carry[1]), step, carry)[
        :2
    ]


def power_of_two(count: int) -> int:
    """The smallest that is no less; 0 of none."""
    return 1 << (count - 1).bit_length() if count else 0
