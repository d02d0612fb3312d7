"""Ways to find the unknown spins: chains that are cooled, chains that go on, mean-field solves.

Each gives weighted draws of all spins, the known ones clamped.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cold import above_lowest, resolved_beta
from .._solution import RESULTS
from .._types import Beta, Key, Magnetizations
from ..energies import (
    AbstractEnergy,
    Clamped,
    flip_gaps,
    n_visible,
    squared_norm,
    visible_free_energy,
)
from ..meanfield import AbstractFunctional, is_minimum, solve
from ..sampling import (
    AbstractKernel,
    AbstractSampler,
    Gibbs,
    annealed,
    log_states,
    random_corners,
    sample,
)

_N_KEPT = 10  # configurations of each chain that goes on
# Solves that ended in one minimum differ by less in every m, in single precision too.
_ONE_MINIMUM = 1e-3
# Configurations at which the gaps of flips are looked at. In units of their mean: beta up to which
# chains choose between the answers, and beyond which no sweep changes much.
_N_PROBES, _CHOOSING, _FROZEN = 8, 25.0, 1e4


class Annealing(eqx.Module):
    """Chains cooled from infinite temperature with the known spins clamped (Neal 2001).

    One sweep at each of `n_sweeps` inverse temperatures: as `beta (k / n_sweeps)^2`, k = 1, 2, ...,
    dense at high temperature, where chains choose between the answers, and at large beta in
    equal ratios towards the end, where they freeze. The chains carry
    importance weights, which also give ln Z of the free spins, so that the probabilities are
    those of Boltzmann in the limit of many chains, however fast they were cooled.

    Attributes:
        kernel: moves the chains.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        method = tg.Annealing(tg.Metropolis())
        answers = tg.recall(energy, 1.0, jnp.array([1, 0, 0]), key=jax.random.key(0), method=method)

        assert answers.configurations[0].tolist() == [1, 1, 1]
        ```
    """

    kernel: AbstractKernel = Gibbs()


class Exact(eqx.Module):
    """No chains: the lowest configurations that agree with the cue, and the exact Z of all that do.

    The answers are the most probable ones, and their probabilities and the magnetizations have the
    error of rounding alone. Up to 24 spins by enumeration, beyond by elimination where the graph of
    interactions is narrow; `thermogen.exact.cost` tells what that takes, with tables `capacity`
    times as large. For energies without hidden spins.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        answers = tg.recall(
            energy, 1.0, jnp.array([1, 0, 0]), key=jax.random.key(0), method=tg.retrieval.Exact()
        )

        assert jnp.isclose(answers.probabilities[0], 1 / (1 + 3 * jnp.exp(-4.0)))
        ```
    """


class Draws(NamedTuple):
    """Draws of a method, with their weights.

    Attributes:
        spins: configurations of all spins, shape `(draws, n)`.
        means: mean of each spin given the others of a draw, or magnetizations, shape
            `(draws, n)`.
        costs: beta times the free energy of the visible spins of each draw, from any zero on,
            shape `(draws,)`.
        log_weights: ln of the weight of each draw, up to a constant; minus infinity for one that
            does not count, shape `(draws,)`.
        log_partition: ln Z of the free spins from the same zero on, where the method estimates it.
        result: the code of the answers if no draw counts.
    """

    spins: Float[Array, "draws n"]
    means: Float[Array, "draws n"]
    costs: Float[Array, " draws"]
    log_weights: Float[Array, " draws"]
    log_partition: Float[Array, ""] | None
    result: RESULTS


@functools.singledispatch
def draw(
    method,
    energy: AbstractEnergy,
    clamp: Float[Array, " n"],
    beta: Beta,
    key: Key,
    n_chains: int,
    n_sweeps: int,
) -> Draws:
    """Draws of all spins, those held at `clamp` where that is not 0, shape `(n,)`."""
    raise TypeError(
        "method must be Annealing(), Exact(), a sampler such as Gibbs(), or a mean-field "
        f"functional such as NaiveMeanField(), got {method!r}"
    )


@draw.register
def _(method: Annealing, energy, clamp, beta, key, n_chains, n_sweeps):
    found = cooled(energy, clamp, beta, key, n_chains, n_sweeps, method.kernel)
    means = _conditional_means(energy, found.spins, beta)
    rest = found.costs, found.log_weights, found.log_partition
    return Draws(found.spins, means, *rest, RESULTS.non_finite)


@draw.register
def _(method: AbstractSampler, energy, clamp, beta, key, n_chains, n_sweeps):
    """The second half of each chain, thinned; every draw counts the same."""
    start_key, key = jax.random.split(key)
    n_late = (n_sweeps + 1) // 2
    starts = random_corners(energy, n_chains, start_key, clamp)
    spins = sample(
        method,
        energy,
        _frozen_beta(energy, starts, clamp, beta)[0],
        key=key,
        n_chains=n_chains,
        n_sweeps=n_late,
        burn_in=n_sweeps - n_late,
        thin=-(-n_late // _N_KEPT),
        init=starts,
        clamp=clamp,
    ).reshape(-1, energy.n_spins)
    means, log_weights = _conditional_means(energy, spins, beta), jnp.zeros(len(spins), spins.dtype)
    costs = _costs(energy, spins, beta)[1]
    return Draws(spins, means, costs, log_weights, None, RESULTS.non_finite)


class Cooled(NamedTuple):
    """Chains cooled to beta.

    Attributes:
        spins: last configuration of each chain, shape `(chains, n)`.
        costs: `beta (F - lowest)` of these, shape `(chains,)`.
        log_weights: ln of the weight of each, shape `(chains,)`.
        log_partition: ln Z of the free spins, plus `beta lowest`.
        lowest: lowest free energy of the visible spins, from which all are counted.
    """

    spins: Float[Array, "chains n"]
    costs: Float[Array, " chains"]
    log_weights: Float[Array, " chains"]
    log_partition: Float[Array, ""]
    lowest: Float[Array, ""]


def cooled(energy, clamp, beta, key, n_chains, n_sweeps, kernel) -> Cooled:
    """Chains from infinite temperature to any beta, with `clamp` held.

    From where spins are frozen on to beta all goes by differences of free energies of the visible
    spins: products of energies and so large a beta would leave nothing of them.
    """
    start_key, key = jax.random.split(key)
    starts = random_corners(energy, n_chains, start_key, clamp)
    path = _ladder(energy, starts, clamp, beta, n_sweeps)
    spins, log_weights = annealed(energy, path, starts, key, kernel, clamp)
    frozen, before = _costs(energy, spins, path[-1])
    lowest, costs = _costs(energy, spins, beta)
    log_weights += before - costs
    log_mean = jax.nn.logsumexp(log_weights) - jnp.log(n_chains).astype(log_weights.dtype)
    log_partition = log_states(energy, starts.dtype, clamp) + log_mean + path[-1] * frozen
    return Cooled(spins, costs, log_weights, log_partition, lowest)


def _ladder(energy, starts, clamp, beta, n: int) -> Float[Array, " points"]:
    """Zero and `n` inverse temperatures up to beta, or to where nothing moves any more.

    They go as `(k/n)^2` where chains still choose between the answers, and in equal ratios where
    the spins freeze one after the other, the weakest last.
    """
    end, gap = _frozen_beta(energy, starts, clamp, beta)
    stretch = jnp.maximum(jnp.arcsinh(jnp.sqrt(end * gap / _CHOOSING)), 1e-2)
    steps = jnp.linspace(0, 1, n + 1, dtype=starts.dtype)
    path = end * jnp.square(jnp.sinh(stretch * steps) / jnp.sinh(stretch))
    return path.at[-1].set(end)


def _frozen_beta(energy, starts, clamp, beta):
    """Beta, or where nothing moves any more, and the mean energy that a flip costs or gains."""
    gaps = jax.vmap(lambda s: jnp.abs(flip_gaps(energy, s)))(starts[:_N_PROBES])
    free = jnp.broadcast_to(clamp == 0, gaps.shape)
    mean = jnp.sum(jnp.where(free, gaps, 0)) / jnp.maximum(jnp.sum(free), 1)
    gap = jnp.maximum(mean, jnp.finfo(mean.dtype).tiny)
    return jnp.minimum(resolved_beta(energy, beta), _FROZEN / gap), gap


def _costs(energy, spins, beta):
    """Free energies of the visible spins: the lowest, and beta times what others are above it."""
    visible = spins[:, : n_visible(energy)]
    # A sum over the hidden spins, so that answers that differ in nothing else are one.
    values = jax.vmap(visible_free_energy, in_axes=(None, None, 0))(energy, beta, visible)
    lowest, above = above_lowest(values, scale=jnp.sqrt(squared_norm(energy)))
    # What costs more than the largest float is an answer all the same.
    return jnp.asarray(lowest), jnp.minimum(beta * above, jnp.finfo(above.dtype).max / 4)


def _conditional_means(energy, spins, beta):
    """`<s_k | the other spins>` of each draw: their mean is that of the spins, with less noise."""
    gaps = jax.vmap(lambda s: s * flip_gaps(energy, s))(spins)
    rounding = 8 * jnp.finfo(gaps.dtype).eps * jnp.max(jnp.abs(gaps), initial=0.0)
    return jnp.tanh(0.5 * beta * jnp.where(jnp.abs(gaps) <= rounding, 0, gaps))


class _OnFreeSpins(AbstractFunctional):
    """Any functional, at the point where the clamped spins are at their values."""

    functional: AbstractFunctional
    held: Clamped

    def excess(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        return self.functional.excess(self.held.energy, beta, self.held.point(m))


@draw.register
def _(method: AbstractFunctional, energy, clamp, beta, key, n_chains, n_sweeps):
    """Minima from random corners, weighted by exp(-beta G), each once however many starts met it.

    A start that did not converge does not count.
    """
    held = Clamped(energy, clamp)
    # Clamped spins start at 0, which is where a spin without effect stays.
    starts = jnp.where(clamp[None] == 0, random_corners(energy, n_chains, key), 0)
    functional = _OnFreeSpins(method, held)
    cold = resolved_beta(energy, beta)
    found = jax.vmap(lambda start: solve(functional, held, cold, start, throw=False))(starts)
    means = jax.vmap(held.point)(found.value)
    spins = jnp.where(means >= 0, 1, -1).astype(means.dtype)
    converged = is_minimum(found.result)
    distances = jnp.max(jnp.abs(means[:, None] - means[None]), axis=-1)
    same = (distances < _ONE_MINIMUM) & converged[None]
    log_copies = jnp.log(jnp.maximum(jnp.sum(same, axis=1), 1)).astype(means.dtype)
    depths = above_lowest(found.stats["free_energy"], converged)[1]
    log_weights = jnp.where(converged, -beta * depths - log_copies, -jnp.inf)
    costs = _costs(energy, spins, beta)[1]
    first = jax.tree.map(lambda code: code[0], found.result)
    return Draws(spins, jnp.where(converged[:, None], means, 0), costs, log_weights, None, first)
