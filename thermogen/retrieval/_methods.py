"""Ways to find the unknown spins: chains that are cooled, chains that go on, mean-field solves.

Each gives weighted draws of all spins, the known ones clamped.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._solution import RESULTS
from .._types import Beta, Key, Magnetizations
from ..energies import AbstractEnergy, flip_gaps
from ..energies._clamp import Clamped
from ..meanfield import AbstractFunctional, solve
from ..meanfield._solve import is_minimum
from ..sampling import AbstractKernel, AbstractSampler, Gibbs, sample
from ..sampling._annealing import annealed, log_mean, log_states, path_from_zero
from ..sampling._base import random_corners

_N_KEPT = 10  # configurations of each chain that goes on
# Solves that ended in one minimum differ by less in every m, in single precision too.
_ONE_MINIMUM = 1e-3


class Annealing(eqx.Module):
    """Chains cooled from infinite temperature with the known spins clamped (Neal 2001).

    One sweep at each of `n_sweeps` inverse temperatures `beta (k / n_sweeps)^2`, k = 1, 2, ...:
    dense at high temperature, where chains choose between the answers. The chains carry
    importance weights, which also give ln Z of the free spins, so that the probabilities are
    those of Boltzmann in the limit of many chains, however fast they were cooled.

    Attributes:
        kernel: moves the chains.
    """

    kernel: AbstractKernel = Gibbs()


class Draws(NamedTuple):
    """What a method found.

    Attributes:
        spins: configurations of all spins, shape `(draws, n)`.
        means: of each spin given the others of a draw, or magnetizations, shape `(draws, n)`.
        log_weights: ln of the weight of each draw, up to a constant; minus infinity for one that
            does not count, shape `(draws,)`.
        log_partition: ln Z of the free spins, where the method estimates it.
        result: what to report where no draw counts.
    """

    spins: Float[Array, "draws n"]
    means: Float[Array, "draws n"]
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
        "method must be Annealing(), a sampler such as Gibbs(), or a mean-field functional such "
        f"as NaiveMeanField(), got {method!r}"
    )


@draw.register
def _(method: Annealing, energy, clamp, beta, key, n_chains, n_sweeps):
    start_key, key = jax.random.split(key)
    starts = random_corners(energy, n_chains, start_key, clamp)
    path = path_from_zero(beta * jnp.linspace(0, 1, n_sweeps + 1)[1:] ** 2, starts.dtype)
    spins, log_weights = annealed(energy, path, starts, key, method.kernel, clamp)
    log_partition = log_states(energy, spins.dtype, clamp) + log_mean(log_weights)[0]
    means = _conditional_means(energy, spins, beta)
    return Draws(spins, means, log_weights, log_partition, RESULTS.non_finite)


@draw.register
def _(method: AbstractSampler, energy, clamp, beta, key, n_chains, n_sweeps):
    """The second half of each chain, thinned; every draw counts the same."""
    start_key, key = jax.random.split(key)
    n_late = (n_sweeps + 1) // 2
    spins = sample(
        method,
        energy,
        beta,
        key=key,
        n_chains=n_chains,
        n_sweeps=n_late,
        burn_in=n_sweeps - n_late,
        thin=-(-n_late // _N_KEPT),
        init=random_corners(energy, n_chains, start_key, clamp),
        clamped=clamp != 0,
    ).reshape(-1, energy.n_spins)
    means, log_weights = _conditional_means(energy, spins, beta), jnp.zeros(len(spins), spins.dtype)
    return Draws(spins, means, log_weights, None, RESULTS.non_finite)


def _conditional_means(energy, spins, beta):
    """`<s_k | the other spins>` of each draw: their mean is that of the spins, with less noise."""
    return jax.vmap(lambda s: jnp.tanh(0.5 * beta * s * flip_gaps(energy, s)))(spins)


class _OnFreeSpins(AbstractFunctional):
    """Any functional, at the point where the clamped spins are at their values."""

    functional: AbstractFunctional
    held: Clamped

    def excess(self, energy: AbstractEnergy, m: Magnetizations, beta: Beta) -> Float[Array, ""]:
        return self.functional.excess(self.held.energy, self.held.point(m), beta)


@draw.register
def _(method: AbstractFunctional, energy, clamp, beta, key, n_chains, n_sweeps):
    """Minima from random corners, weighted by exp(-beta G), each once however many starts met it.

    A start that did not converge does not count.
    """
    held = Clamped(energy, clamp, clamp != 0)
    # Clamped spins start at 0, which is where a spin without effect stays.
    starts = jnp.where(clamp[None] == 0, random_corners(energy, n_chains, key), 0)
    functional = _OnFreeSpins(method, held)
    found = jax.vmap(lambda start: solve(functional, held, beta, start, throw=False))(starts)
    means = jax.vmap(held.point)(found.value)
    spins = jnp.where(means >= 0, 1, -1).astype(means.dtype)
    converged = is_minimum(found.result)
    distances = jnp.max(jnp.abs(means[:, None] - means[None]), axis=-1)
    same = (distances < _ONE_MINIMUM) & converged[None]
    log_copies = jnp.log(jnp.maximum(jnp.sum(same, axis=1), 1)).astype(means.dtype)
    log_weights = -beta * found.stats["free_energy"] - log_copies
    log_weights = jnp.where(converged, log_weights, -jnp.inf)
    first = jax.tree.map(lambda code: code[0], found.result)
    return Draws(spins, jnp.where(converged[:, None], means, 0), log_weights, None, first)
