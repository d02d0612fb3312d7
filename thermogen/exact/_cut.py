"""Sums over narrow models of which some spins are cut: an elimination for each of their values.

At one configuration of the cut spins the model is turned into one where they are up: each coupling
is multiplied by their values in its term. Configurations are mapped, as many at once as have tables
in a cache. A reverse pass computes each such group again: memory does not grow with their number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._linalg import dot
from .._types import Key
from ..energies import AbstractEnergy
from . import _backwards, _elimination
from ._elimination import Plan, signs

# Entries of tables that are computed side by side where many tables are wanted.
_ENTRIES_AT_ONCE = 2**16


class Numbers(NamedTuple):
    """What a plan is used with.

    Attributes:
        couplings: of terms of two spins and more, in the order of the graph.
        fields: shape `(n,)`.
        pins: +1 or -1 where a spin has this value, 0 where both are summed; None for no pins.
    """

    couplings: Float[Array, " terms"]
    fields: Float[Array, " n"]
    pins: Float[Array, " n"] | None


def log_sum(plan: Plan, numbers: Numbers, tau: Float[Array, ""]) -> Float[Array, ""]:
    """`tau ln sum_s exp(...)`, that of `_elimination` with all its derivatives."""
    if not plan.cut.size:
        return _elimination.log_sum(plan.steps, *numbers, tau, plan.width)
    sums, allowed = _sums(plan, numbers, tau)
    best = _best(sums, allowed)
    others = allowed & (np.arange(sums.size) != best)
    return sums[best] + _log_rest(sums - sums[best], others, tau)


def drawn(
    plan: Plan, numbers: Numbers, tau: Float[Array, ""], key: Key, n_samples: int
) -> Float[Array, "samples n"]:
    """Independent samples: of the cut spins first, then in groups of equal ones of the others."""
    if not plan.cut.size:
        return _backwards.drawn(plan.steps, *numbers, tau, key, plan.width, n_samples)
    cut_key, order_key, key = jax.random.split(key, 3)
    sums, allowed = _sums(plan, numbers, tau)
    above = jnp.where(allowed, sums - sums[_best(sums, allowed)], -jnp.inf)
    cumulative = jnp.cumsum(jax.nn.softmax(above / tau))
    dice = jax.random.uniform(cut_key, (n_samples,), cumulative.dtype) * cumulative[-1]
    index = jnp.sort(jnp.searchsorted(cumulative, dice, side="right").astype(jnp.int32))

    def draw(which, key, size):
        up = _up(plan, numbers, which)
        spins = _backwards.drawn(plan.steps, *up, tau, key, plan.width, size)
        return spins.at[:, plan.cut].set(_values(plan, which, tau.dtype)[None])

    spins = jnp.zeros((n_samples, numbers.fields.size), tau.dtype)
    return jax.random.permutation(order_key, _in_groups(plan, draw, index, spins, key))


def _in_groups(
    plan: Plan,
    draw: Callable[[Int[Array, ""], Key, int], Float[Array, "size n"]],
    index: Int[Array, " samples"],
    spins: Float[Array, "samples n"],
    key: Key,
) -> Float[Array, "samples n"]:
    """Draws for sorted configurations of the cut, in groups of equal ones.

    Groups are larger than they need to be as long as tables take most of the time.
    """
    n_samples, n_different = len(index), min(len(index), 2**plan.cut.size)
    size = min(n_samples, max(-(-n_samples // n_different), 2**plan.width // 4))
    n_groups = (n_samples + n_different * (size - 1)) // size
    at_once = n_at_once(plan.width, n_groups)
    n_batches = -(-n_groups // at_once)
    is_first = (jnp.arange(n_samples) - jnp.searchsorted(index, index)) % size == 0
    firsts = jnp.flatnonzero(is_first, size=n_batches * at_once, fill_value=n_samples)

    def group(first, key):
        rows = first + jnp.arange(size)
        belongs = (rows < n_samples) & (index[rows] == index[first])
        return jnp.where(belongs, rows, n_samples), draw(index[first], key, size)

    def fill(spins, batch):
        rows, drawn = jax.vmap(group)(*batch)
        return spins.at[rows].set(drawn, mode="drop"), None

    batches = firsts.reshape(-1, at_once), jax.random.split(key, (n_batches, at_once))
    return jax.lax.scan(fill, spins, batches)[0]


def lowest_of(
    plan: Plan, numbers: Numbers, energy: AbstractEnergy, n_states: int
) -> tuple[Bool[Array, " states"], Float[Array, "states n"]]:
    """The configurations of lowest energy, and which of them exist.

    Those of each configuration of the cut spins are merged by their energies. Which they are has
    no derivative.
    """
    pins = jnp.zeros_like(numbers.fields) if numbers.pins is None else numbers.pins
    numbers = jax.lax.stop_gradient(numbers._replace(pins=pins))
    if not plan.cut.size:
        return _backwards.lowest_of(plan.steps, *numbers, plan.width, n_states)
    allowed = _allowed(plan, numbers)

    def lowest_at(index):
        up = _up(plan, numbers, index)
        exists, spins = _backwards.lowest_of(plan.steps, *up, plan.width, n_states)
        spins = spins.at[:, plan.cut].set(_values(plan, index, spins.dtype)[None])
        return jnp.where(exists & allowed[index], jax.vmap(energy)(spins), jnp.inf), spins

    def merge(best, indices):
        found = jax.vmap(lowest_at)(indices)
        energies = jnp.concatenate([best[0], found[0].ravel()])
        spins = jnp.concatenate([best[1], found[1].reshape(-1, best[1].shape[1])])
        chosen = jax.lax.top_k(-energies, n_states)[1]
        return (energies[chosen], spins[chosen]), None

    at_once = n_at_once(plan.width + (n_states - 1).bit_length(), allowed.size)
    n, dtype = numbers.fields.size, numbers.fields.dtype
    start = jnp.full(n_states, jnp.inf, dtype), jnp.zeros((n_states, n), dtype)
    (energies, spins), _ = jax.lax.scan(merge, start, _configurations(plan).reshape(-1, at_once))
    return jnp.isfinite(energies), spins


def n_at_once(n_bits: int, most: int) -> int:
    """How many tables of so many bits are computed side by side; a power of two if `most` is."""
    return max(1, min(most, _ENTRIES_AT_ONCE >> n_bits))


def _sums(
    plan: Plan, numbers: Numbers, tau: Float[Array, ""]
) -> tuple[Float[Array, " configurations"], Bool[Array, " configurations"]]:
    """`log_sum` over all other spins at each configuration of the cut, and which are allowed."""

    def sum_at(index):
        return _elimination.log_sum(plan.steps, *_up(plan, numbers, index), tau, plan.width)

    indices = _configurations(plan)
    batches = indices.reshape(-1, n_at_once(plan.width, indices.size))
    sums = jax.lax.map(jax.checkpoint(jax.vmap(sum_at)), batches).ravel()
    return sums, _allowed(plan, numbers)


def _best(
    sums: Float[Array, " configurations"], allowed: Bool[Array, " configurations"]
) -> Int[Array, ""]:
    return jnp.argmax(jnp.where(allowed, sums, -jnp.inf))


@jax.custom_jvp
def _log_rest(
    above: Float[Array, " configurations"],
    others: Bool[Array, " configurations"],
    tau: Float[Array, ""],
) -> Float[Array, ""]:
    """`tau ln(1 + sum exp(above / tau))` of sums above the largest one, which is the 1."""
    return tau * jnp.log1p(jnp.sum(jnp.exp(jnp.where(others, above / tau, -jnp.inf))))


@_log_rest.defjvp
def _(primals, tangents):
    """By tau it is an entropy, a sum of positive parts that stays finite in the cold."""
    (above, others, tau), (above_dot, _, tau_dot) = primals, tangents
    weights = jnp.exp(jnp.where(others, above / tau, -jnp.inf))
    rest = jnp.sum(weights)
    p = weights / (1 + rest)
    entropy = jnp.log1p(rest) - dot(p, jnp.where(p > 0, above / tau, 0))
    return tau * jnp.log1p(rest), dot(p, above_dot) + entropy * tau_dot


def _up(plan: Plan, numbers: Numbers, index: Int[Array, ""]) -> Numbers:
    """The model whose cut spins are up, equal to the given one at a configuration of the cut."""
    couplings, fields, pins = numbers
    sign = signs(jnp.asarray(plan.cut_masks), index, fields.dtype)
    pins = jnp.zeros_like(fields) if pins is None else pins
    return Numbers(
        sign[: couplings.size] * couplings,
        sign[couplings.size :] * fields,
        pins.at[plan.cut].set(1),
    )


def _configurations(plan: Plan) -> Int[Array, " configurations"]:
    return jnp.arange(2**plan.cut.size, dtype=jnp.int32)


def _values(plan: Plan, index: Int[Array, ""], dtype) -> Float[Array, " cut"]:
    """Values of the cut spins in a configuration: set bits are down."""
    return signs(1 << jnp.arange(plan.cut.size, dtype=jnp.int32), index, dtype)


def _allowed(plan: Plan, numbers: Numbers) -> Bool[Array, " configurations"]:
    """Configurations of the cut spins that do not contradict the pins."""
    indices, pins = _configurations(plan), numbers.pins
    if pins is None:
        return jnp.ones(indices.size, bool)
    return jax.vmap(lambda i: jnp.all(_values(plan, i, pins.dtype) * pins[plan.cut] >= 0))(indices)
