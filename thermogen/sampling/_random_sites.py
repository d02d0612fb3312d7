"""The heat bath at random sites: the clock of the physicists' single-spin dynamics."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._bits import random_words, signs
from .._checks import as_float, check_precision
from .._linalg import dot
from .._types import Beta, Key, Spins
from ..energies import (
    RBM,
    AbstractEnergy,
    Complete,
    Interactions,
    Pairwise,
    conditional_field,
    has_terms,
    terms,
)
from ._base import AbstractKernel, Clamp, SweepInfo, count_flips
from ._coloring import incidences
from ._dense import update_in_turn
from ._rules import HeatBathRule

# Steps whose sites are drawn together, and whose local fields are one matrix product.
_BLOCK = 16
_RULE = HeatBathRule()


class HeatBath(AbstractKernel):
    """Heat bath at random sites: each step draws one random spin from its conditional distribution.

    A sweep is n steps, so that some spins are drawn several times in it and others not at all. This
    is the clock of `thermogen.exact.relaxation_times` and of `thermogen.certify` (Glauber, J. Math.
    Phys. 4, 294 (1963)). `Gibbs` visits every spin in turn, and mixes faster. The state is the
    configuration, shape `(n,)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(
            tg.HeatBath(), energy, 0.5, key=jax.random.key(0), n_chains=100, n_sweeps=20, burn_in=20
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: Spins,
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[Float[Array, " n"], SweepInfo]:
        check_precision(energy)
        if jnp.issubdtype(jnp.result_type(state), jnp.floating):
            check_precision(state, "state")
        spins = as_float(state)
        site_key, key = jax.random.split(key)
        free = None if clamp is None else jnp.asarray(clamp) == 0
        beta = jnp.asarray(beta, spins.dtype)[None]
        # Mapped chains draw sites of their own, and a block of one step wants no inner couplings.
        options = {"free": free, "block": 1}
        moved = walk(energy, beta, spins[:, None], site_key, key[None], len(spins), **options)[:, 0]
        return moved, SweepInfo(count_flips(spins, moved))


class Steps(NamedTuple):
    """Some steps of all replicas in a row.

    Attributes:
        sites: the spin that each step draws, in all replicas, shape `(steps,)`.
        live: the steps that count; the others change nothing, shape `(steps,)`.
        thresholds: random thresholds of `HeatBathRule`, shape `(steps, replicas)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))


        def draw(block):
            sites, live = jnp.array([0, 1]), jnp.ones(2, bool)
            return tg.sampling.Steps(sites, live, jnp.zeros((2, 4)))


        spins = tg.sampling.walk_population(energy, jnp.ones(4), jnp.ones((3, 4)), draw, 2)

        assert jnp.all(spins == 1)  # every field is above the thresholds
        ```
    """

    sites: Int[Array, " steps"]
    live: Bool[Array, " steps"]
    thresholds: Float[Array, "steps replicas"]


def walk(
    energy: AbstractEnergy,
    beta: Float[Array, " replicas"],
    spins: Float[Array, "n replicas"],
    site_key: Key,
    keys: Array,
    n_steps: int | Int[Array, ""],
    *,
    free: Bool[Array, " n"] | None = None,
    block: int = _BLOCK,
) -> Float[Array, "n replicas"]:
    """Heat-bath steps of replicas that visit the same random sites, each by its own thresholds.

    Each replica is a chain of `HeatBath`; given the sites, replicas are independent. They are not
    without: averages over replicas of one walk keep the noise of the sites.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature of each replica.
        spins: configurations side by side, shape `(n, replicas)`.
        site_key: random key of the sites.
        keys: random keys of the thresholds, shape `(replicas,)`.
        n_steps: number of steps; a new number does not recompile where it is traced.
        free: spins that may change, shape `(n,)`; None for all.
        block: steps whose fields are one matrix product, at most 32.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        keys = jax.random.split(jax.random.key(1), 4)
        spins = tg.sampling.walk(
            energy, jnp.full(4, 50.0), jnp.ones((3, 4)), jax.random.key(0), keys, 30
        )

        assert jnp.all(spins == 1)  # ground states in the cold
        ```
    """
    n, width = len(spins), 64 if spins.dtype == jnp.float64 else 32

    def draw(b):
        steps = b * block + jnp.arange(block)
        sites = (random_words(site_key[None], steps, 32)[:, 0] % n).astype(jnp.int32)
        live = steps < n_steps
        if free is not None:
            live &= free[sites]
        return Steps(sites, live, _RULE.variate(random_words(keys, steps, width), spins.dtype))

    return walk_population(energy, beta, spins, draw, -(-n_steps // block))


@functools.singledispatch
def walk_population(
    energy: AbstractEnergy,
    beta: Float[Array, " replicas"],
    spins: Float[Array, "n replicas"],
    draw: Callable[[Int[Array, ""]], Steps],
    n_blocks: int | Int[Array, ""],
) -> Float[Array, "n replicas"]:
    """All steps of `draw(0)`, ..., `draw(n_blocks - 1)`, one after the other.

    By the `terms` of an energy, else by its conditional fields. Open for extension:
    `walk_population.register(YourEnergy)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))


        def draw(block):
            sites, live = jnp.array([0, 1]), jnp.ones(2, bool)
            return tg.sampling.Steps(sites, live, jnp.zeros((2, 4)))


        spins = tg.sampling.walk_population(energy, jnp.ones(4), jnp.ones((3, 4)), draw, 2)

        assert jnp.all(spins == 1)  # every field is above the thresholds
        ```
    """
    if has_terms(energy):
        return walk_population(terms(energy), beta, spins, draw, n_blocks)
    field = jax.vmap(lambda s, k: conditional_field(energy, 1.0, s, k), in_axes=(1, None))
    return _one_by_one(lambda s, k: 2 * beta * field(s, k), spins, draw, n_blocks)


def _one_by_one(field, spins, draw, n_blocks):
    """By `field(spins, k)` of spin k in all replicas, shape `(replicas,)`."""

    def block(b, spins):
        sites, live, thresholds = draw(b)

        def step(i, spins):
            k = sites[i]
            new = _RULE(field(spins, k), spins[k], thresholds[i])
            return spins.at[k].set(jnp.where(live[i], new, spins[k]))

        return jax.lax.fori_loop(0, len(sites), step, spins)

    return jax.lax.fori_loop(0, n_blocks, block, spins)


@walk_population.register
def _(energy: Pairwise, beta, spins, draw, n_blocks):
    """Blocks of steps: their fields by one product."""
    couplings, fields = energy.matrix.astype(spins.dtype), energy.fields.astype(spins.dtype)

    def local(spins, sites):
        rows = couplings[sites]
        return fields[sites][:, None] + dot(rows, spins), rows[:, sites]

    return _in_blocks(local, _write_all, 2 * beta, spins, draw, n_blocks)


def _in_blocks(local, write, scale, spins, draw, n_blocks):
    """By `local(spins, sites)`: local fields and the couplings of sites with each other.

    Fields are those at the beginning of a block, corrected as its spins change.
    """

    def block(b, carry):
        # What XLA fuses with the updates it computes anew for each of them: the result is written
        # in the next iteration.
        spins = write(*carry)
        steps = draw(b)
        field, couplings = local(spins, steps.sites)
        # All changes count from the beginning of the block: of a spin drawn again, the last.
        inner = jnp.where(_last_visits(steps), couplings, 0)
        own, scaled = spins[steps.sites], scale[None, :] * field
        word = update_in_turn(_RULE, scaled, own, steps.thresholds, inner, scale)
        return spins, steps.sites, steps.live, word

    blank = jax.eval_shape(draw, 0)
    none = jnp.zeros(blank.sites.shape, blank.sites.dtype), jnp.zeros(blank.live.shape, bool)
    start = spins, *none, jnp.zeros(spins.shape[1], jnp.uint32)
    return write(*jax.lax.fori_loop(0, n_blocks, block, start))


def _write_all(spins, sites, live, word):
    """What steps left, in one pass over all spins, which is quick where these are few."""
    last = _last_steps(jnp.arange(len(spins)), sites, live)
    bit = word[None, :] >> jnp.maximum(last, 0)[:, None].astype(word.dtype) & 1
    return jnp.where(last[:, None] < 0, spins, 1 - 2 * bit.astype(spins.dtype))


def _write_rows(spins, sites, live, word):
    """What steps left, in the rows of their spins."""
    last = _last_steps(sites, sites, live)
    values = signs(word, len(sites), spins.dtype, axis=0)
    return spins.at[sites].set(jnp.where(last[:, None] < 0, spins[sites], values[last]))


def _last_steps(spins: Int[Array, " m"], sites: Array, live: Array) -> Int[Array, " m"]:
    """The last step that draws each of some spins, -1 where none does."""
    drawn = (sites[None, :] == spins[:, None]) & live[None, :]
    order = jnp.arange(len(sites), dtype=jnp.int32)
    return jnp.max(jnp.where(drawn, order, -1), axis=1)


def _last_visits(steps: Steps) -> Bool[Array, "steps steps"]:
    """Whether step k is the last before step j that draws its spin, at `[j, k]`."""
    sites, live, _ = steps
    order = jnp.arange(len(sites))
    later = (order[None, :] > order[:, None]) & (sites[None, :] == sites[:, None]) & live[None, :]
    following = jnp.min(jnp.where(later, order[None, :], len(sites)), axis=1)
    return (
        live[None, :] & (order[None, :] < order[:, None]) & (following[None, :] >= order[:, None])
    )


@walk_population.register
def _(energy: RBM, beta, spins, draw, n_blocks):
    visible, n = energy.n_visible, energy.n_spins
    weights = jnp.zeros((n, n), energy.weights.dtype).at[:visible, visible:].set(energy.weights)
    fields = jnp.concatenate([energy.visible_fields, energy.hidden_fields])
    # `Pairwise` takes the mean of a matrix and its transpose.
    return walk_population(Pairwise(2 * weights, fields), beta, spins, draw, n_blocks)


@walk_population.register
def _(energy: Interactions, beta, spins, draw, n_blocks):
    """By the terms of each spin; what is missing points to a spin beyond the last."""
    tables = incidences(energy.n_spins, energy.sets)
    couplings = [jnp.append(c.astype(spins.dtype), 0) for c in energy.couplings]
    of_spins = [
        (table[jnp.asarray(t)], jnp.asarray(others))
        for table, (t, others) in zip(couplings, tables, strict=True)
    ]

    def field(spins, k):
        total = jnp.zeros((*k.shape, spins.shape[1]), spins.dtype)
        for strengths, others in of_spins:
            for d in range(others.shape[1]):
                product = strengths[k, d][..., None]
                for j in range(others.shape[2]):
                    product = product * spins[others[k, d, j]]
                total += product
        return total

    def local(spins, sites):
        inner = jnp.zeros((len(sites), len(sites)), spins.dtype)
        for strengths, others in of_spins:
            if others.shape[2]:
                met = others[sites][:, :, 0, None] == sites[None, None, :]
                inner += jnp.sum(jnp.where(met, strengths[sites][:, :, None], 0), axis=1)
        return field(spins, sites), inner

    padded = jnp.pad(spins, ((0, 1), (0, 0)), constant_values=1)
    pairs = all(others.shape[2] <= 1 for _, others in tables)
    if pairs and len(jax.eval_shape(draw, 0).sites) > 1:
        return _in_blocks(local, _write_rows, 2 * beta, padded, draw, n_blocks)[:-1]
    return _one_by_one(lambda s, k: 2 * beta * field(s, k), padded, draw, n_blocks)[:-1]


@walk_population.register
def _(energy: Complete, beta, spins, draw, n_blocks):
    """By the table of all energies: a flip of spin k is a flip of bit k of the index."""
    table = energy.energies().astype(spins.dtype)
    weights = 1 << np.arange(len(spins))
    index = jnp.sum(jnp.where(spins > 0, weights[:, None], 0), axis=0)

    def block(b, index):
        sites, live, thresholds = draw(b)

        def step(i, index):
            bit = jnp.asarray(1, index.dtype) << sites[i]
            down, up = index & ~bit, index | bit
            new = jnp.where(beta * (table[down] - table[up]) > thresholds[i], up, down)
            return jnp.where(live[i], new, index)

        return jax.lax.fori_loop(0, len(sites), step, index)

    index = jax.lax.fori_loop(0, n_blocks, block, index)
    return jnp.where(index[None, :] & weights[:, None] != 0, 1, -1).astype(spins.dtype)
