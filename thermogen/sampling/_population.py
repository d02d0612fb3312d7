"""Population annealing: replicas that are cooled together and resampled on the way."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_count, check_parameters
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import RESULTS
from .._types import Count, Key
from ..energies import AbstractEnergy
from ._annealing import log_mean, log_states, path_from_zero
from ._base import AbstractKernel, Clamp, Ladder, checked_clamp, checked_ladder, random_corners
from ._gibbs import Gibbs
from ._sample import colored
from ._trust import MIN_LINEAGES, first_of, known_error, too_few, too_skewed


class PopulationEstimate(NamedTuple):
    """ln Z, and configurations at `betas[-1]`, by independent populations of replicas.

    Attributes:
        log_partition: ln Z.
        standard_error: of ln Z, by the spread over populations; infinite unless `result` is
            `converged`.
        ess: effective number of independent replicas, between 1 and all of them: the members of
            a family, which descend from one start, count as one.
        spins: the replicas at the end, shape `(populations, chains, n)`.
        weights: of the populations, proportional to their estimates of Z, sum 1, shape
            `(populations,)`. Means over `spins` with `weights[p] / n_chains` each converge to
            those of Boltzmann faster than plain ones (Machta 2010).
        result: a `RESULTS` code: `few_weights` where few families are left or few populations
            count, and what to do.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    ess: Float[Array, ""]
    spins: Float[Array, "populations chains n"]
    weights: Float[Array, " populations"]
    result: RESULTS


@from_anywhere
def population_annealing(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    n_populations: Count = 20,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
) -> PopulationEstimate:
    """ln Z and samples at `betas[-1]` by resampled replicas (Hukushima and Iba 2003; Machta 2010).

    At each rung replicas are copied and dropped by their weights `exp(-(beta_k - beta_{k-1}) E)`
    (systematic resampling), then make one sweep. The product of the mean weights estimates
    `Z / 2^n` without bias for each population; the estimate is ln of the mean over populations.
    Where `ess` is of the order of the number of populations, take more replicas or rungs.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`; replicas start at beta = 0
            whether it is listed or not.
        key: random key.
        n_chains: replicas in each population.
        n_populations: independent populations, at least 2; their number makes the error bar, that
            of the replicas in each makes the estimate. Normal intervals want 20 or more.
        kernel: moves the replicas.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.

    Raises:
        ValueError: for counts that are too small, known parameters that are not finite, if known
            `betas` do not increase from 0 or above, and if `clamp` holds other values.
        TypeError: for counts that are no integers, and parameters not of float32 or float64.
    """
    check_parameters(energy)
    n_chains = check_count("n_chains", n_chains)
    n_populations = check_count("n_populations", n_populations, least=2)
    clamp, sizes = checked_clamp(energy, clamp), (n_chains, n_populations)
    return _anneal(colored(energy), checked_ladder(betas), key, sizes, kernel, clamp)


@eqx.filter_jit
def _anneal(energy, betas, key, sizes, kernel, clamp):
    n_chains, n_populations = sizes
    cool = jax.vmap(_population, in_axes=(None, None, 0, None, None, None))
    keys = jax.random.split(key, n_populations)
    log_ratios, spins, families = cool(energy, betas, keys, n_chains, kernel, clamp)
    ratio, error, count = log_mean(log_ratios)
    weights = jax.nn.softmax(log_ratios)
    squares = jnp.sum(jnp.square(families), axis=1)
    ess = n_chains**2 / dot(jnp.square(weights), squares)
    log_partition = log_states(energy, spins.dtype, clamp) + ratio
    poor = too_few(ess, n_chains * n_populations, MIN_LINEAGES)
    poor |= too_skewed(count, n_populations)
    finite = jnp.all(jnp.isfinite(log_ratios))
    result = first_of((~finite, RESULTS.non_finite), (poor, RESULTS.few_weights))
    return PopulationEstimate(
        log_partition, known_error(error, result), ess, spins, weights, result
    )


def _population(energy, betas, key, n_chains, kernel, clamp):
    """One population: its estimate of `ln(Z / 2^n)`, its end, and the sizes of its families."""
    start_key, key = jax.random.split(key)
    spins = random_corners(energy, n_chains, start_key, clamp)
    path = path_from_zero(betas, spins.dtype)
    move = jax.vmap(kernel.step, in_axes=(None, 0, None, 0, None))

    def rung(carry, inputs):
        spins, starts, log_ratio = carry
        beta, change, key = inputs
        draw_key, move_key = jax.random.split(key)
        log_weights = -change * jax.vmap(energy)(spins)
        parents = systematic_draws(jax.nn.softmax(log_weights), draw_key)
        keys = jax.random.split(move_key, n_chains)
        spins = move(energy, spins[parents], beta, keys, clamp)
        return (spins, starts[parents], log_ratio + log_mean(log_weights)[0]), None

    inputs = path[1:], jnp.diff(path), jax.random.split(key, path.size - 1)
    carry = spins, jnp.arange(n_chains), jnp.zeros((), path.dtype)
    (spins, starts, log_ratio), _ = jax.lax.scan(rung, carry, inputs)
    return log_ratio, spins, jnp.zeros(n_chains, path.dtype).at[starts].add(1)


def systematic_draws(weights, key):
    """As many draws as weights, by equidistant places with one random offset, in order."""
    edges = jnp.cumsum(weights)
    offset = jax.random.uniform(key, dtype=weights.dtype)
    places = (jnp.arange(weights.size) + offset) * (edges[-1] / weights.size)
    return jnp.minimum(jnp.searchsorted(edges, places, side="right"), weights.size - 1)
