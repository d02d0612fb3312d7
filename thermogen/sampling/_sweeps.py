"""Sweeps of single-spin updates over many replicas at once, the replicas side by side in memory.

A sweep of one chain (`sweep`) is a function like any other; batched by `jax.vmap`, however deep,
it runs as ONE sweep of an array `(n, replicas)`. Updating a spin then reads and writes contiguous
rows, and the local fields of many replicas are one matrix product.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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
    has_terms,
    terms,
)
from ._base import Clamp, SweepInfo, count_flips
from ._colored import sweep_colored
from ._dense import Thresholds, sweep_dense
from ._rules import AbstractRule
from ._thresholds import RandomThresholds


def sweep(
    rule: AbstractRule,
    energy: AbstractEnergy,
    beta: Beta,
    spins: Spins,
    key: Key,
    clamp: Clamp = None,
) -> tuple[Float[Array, " n"], SweepInfo]:
    """Update every spin of one chain once by a rule: the step of a kernel of one's own.

    Args:
        rule: for example `HeatBathRule()`.
        energy: an energy of n spins.
        beta: inverse temperature.
        spins: one configuration, shape `(n,)`.
        key: random key.
        clamp: +1 or -1 where a spin keeps this value, which it must have, and 0 where it is free,
            shape `(n,)`.

    Returns:
        The configuration after the sweep, and how many spins changed.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        rule = tg.sampling.HeatBathRule()
        spins, info = tg.sampling.sweep(rule, energy, 50.0, jnp.ones(3), jax.random.key(0))

        assert spins.tolist() == [1, 1, 1] and info.flips == 0  # a ground state in the cold
        ```
    """
    check_precision(energy)
    if jnp.issubdtype(jnp.result_type(spins), jnp.floating):
        check_precision(spins, "spins")
    spins = as_float(spins)
    beta = jnp.asarray(beta, spins.dtype)
    chain = jax.tree.map(lambda x: x[None], (beta, spins, key, clamp))
    swept = _replicas((rule, energy), *chain)[0]
    return swept, SweepInfo(count_flips(spins, swept))


def _plain(model, beta, spins, keys, clamp):
    rule, energy = model
    thresholds = RandomThresholds(rule, spins.T, keys, clamp)
    return sweep_population(energy, beta, spins.T, rule, thresholds).T


@jax.custom_batching.custom_vmap
def _replicas(model, beta, spins, keys, clamp):
    """The sweep of replicas `(R, n)` of a model, which is a rule and an energy.

    Every batch axis put upon the chains becomes more replicas.
    """
    return _plain(model, beta, spins, keys, clamp)


@_replicas.def_vmap
def _(size, batched, model, *arrays):
    of_model, *of_arrays = batched
    if any(jax.tree.leaves(of_model)):
        axes = jax.tree.map(lambda b: 0 if b else None, (of_model, *of_arrays))
        return jax.vmap(_plain, in_axes=axes, axis_size=size)(model, *arrays), True

    # The new axis comes after those of the replicas: what is mapped last, the chains, stays
    # contiguous.
    def flat(x, is_batched):
        whole = x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
        return whole.swapaxes(0, 1).reshape(-1, *whole.shape[2:])

    spins = _replicas(model, *jax.tree.map(flat, arrays, tuple(of_arrays)))
    return spins.reshape(-1, size, spins.shape[-1]).swapaxes(0, 1), True


@functools.singledispatch
def sweep_population(
    energy: AbstractEnergy,
    beta: Float[Array, " replicas"],
    spins: Float[Array, "n replicas"],
    rule: AbstractRule,
    thresholds: Thresholds,
) -> Float[Array, "n replicas"]:
    """One sweep of all replicas: by the `terms` of an energy, else spin after spin in order.

    Open for extension: `sweep_population.register(YourEnergy)` may visit the spins in any order
    that does not depend on the configuration, and at once those that do not interact.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature of each replica, shape `(replicas,)`.
        spins: the configurations side by side, shape `(n, replicas)`.
        rule: what becomes of a spin, `rule(2 beta h, spin, threshold)`.
        thresholds: a function of numbers of spins, shape `(m,)`; it returns the random thresholds
            of these spins, shape `(m, replicas)`. Each spin is asked for once in a sweep.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))


        def thresholds(sites):
            return jnp.zeros((*sites.shape, 4))


        spins = tg.sampling.sweep_population(
            energy, jnp.ones(4), jnp.ones((3, 4)), tg.sampling.HeatBathRule(), thresholds
        )

        assert jnp.all(spins == 1)  # every field is above the thresholds
        ```
    """
    if has_terms(energy):
        return sweep_population(terms(energy), beta, spins, rule, thresholds)
    fields = jax.vmap(lambda s, k: conditional_fields(energy, 1.0, s)[k], in_axes=(1, None))
    return _one_by_one(lambda s, k: 2 * beta * fields(s, k), spins, rule, thresholds)


def _one_by_one(field, spins, rule, thresholds):
    """Every spin in turn, by `field(spins, k)` of spin k in all replicas, shape `(replicas,)`."""
    noise = thresholds(jnp.arange(len(spins)))
    return jax.lax.fori_loop(
        0, len(spins), lambda k, s: s.at[k].set(rule(field(s, k), s[k], noise[k])), spins
    )


@sweep_population.register
def _(energy: AbstractMultilinear, beta, spins, rule, thresholds):
    if has_terms(energy):
        return sweep_population(terms(energy), beta, spins, rule, thresholds)

    def field(s, k):
        unit = jnp.zeros(len(s), s.dtype).at[k].set(1)
        slope = jax.vmap(lambda x: jax.jvp(energy, (x,), (unit,))[1], in_axes=1)(s)
        return -2 * beta * slope

    return _one_by_one(field, spins, rule, thresholds)


@sweep_population.register
def _(energy: Mixture, beta, spins, rule, thresholds):
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
def _(energy: Pairwise, beta, spins, rule, thresholds):
    couplings, fields = energy.matrix.astype(spins.dtype), energy.fields.astype(spins.dtype)
    return sweep_dense(rule, couplings, fields, 2 * beta, spins, thresholds)


@sweep_population.register
def _(energy: RBM, beta, spins, rule, thresholds):
    """Hidden layer, then visible layer: within a layer nothing interacts."""
    weights, a, b = (x.astype(spins.dtype) for x in jax.tree.leaves(energy))
    scale, sites = (2 * beta)[None, :], jnp.arange(len(spins))
    v = energy.n_visible
    visible, hidden = spins[:v], spins[v:]
    hidden = rule(scale * (b[:, None] + dot(weights.T, visible)), hidden, thresholds(sites[v:]))
    visible = rule(scale * (a[:, None] + dot(weights, hidden)), visible, thresholds(sites[:v]))
    return jnp.concatenate([visible, hidden])


@sweep_population.register
def _(energy: Interactions, beta, spins, rule, thresholds):
    return sweep_colored(rule, energy, 2 * beta, spins, thresholds)


@sweep_population.register
def _(energy: Complete, beta, spins, rule, thresholds):
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
