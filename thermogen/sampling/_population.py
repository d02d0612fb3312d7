"""Population annealing: replicas that are cooled together and resampled on the way."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import check_count, check_parameters
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Count, Key
from ..energies import AbstractEnergy
from ..runs import AbstractJob, Devices, Folder, Spread, over_lanes, run, shows_progress
from ._annealing import log_mean, log_states, path_from_zero
from ._base import (
    AbstractKernel,
    Clamp,
    Ladder,
    Progress,
    checked_clamp,
    checked_ladder,
    parameter_dtype,
    random_corners,
    reports,
)
from ._derivatives import derived
from ._gibbs import Gibbs
from ._results import RESULTS
from ._sample import colored
from ._trust import MIN_LINEAGES, first_of, known_error, too_few, too_skewed


class PopulationEstimate(NamedTuple):
    """ln Z, and configurations at `betas[-1]`, by independent populations of replicas.

    Attributes:
        log_partition: ln Z.
        standard_error: standard error of ln Z, by the spread over populations; infinite unless
            `result` is `converged`.
        ess: effective number of independent replicas, between 1 and all of them: the members of
            a family, which descend from one start, count as one.
        spins: the replicas at the end, shape `(populations, chains, n)`.
        weights: weights of the populations, proportional to their estimates of Z, sum 1, shape
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
@shows_progress
def population_annealing(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    n_populations: Count = 20,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> PopulationEstimate:
    """ln Z and samples at `betas[-1]` by resampled replicas (Hukushima and Iba 2003; Machta 2010).

    At each rung replicas are copied and dropped by their weights `exp(-(beta_k - beta_{k-1}) E)`
    (systematic resampling), then make one sweep. The product of the mean weights estimates
    `Z / 2^n` without bias for each population; the estimate is ln of the mean over populations.
    Where `ess` is of the order of the number of populations, take more replicas or rungs.
    Derivatives of ln Z by energy and beta are means and cumulants over the replicas.

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
        callback: called with the number of rungs done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which populations are spread: a mesh, or a sharding by its first
            axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: for counts that are too small, known parameters that are not finite, if known
            `betas` do not increase from 0 or above, and if `clamp` holds other values.
        TypeError: for counts that are no integers, and parameters not of float32 or float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sampling.population_annealing(
            energy, jnp.linspace(0, 1, 20), key=jax.random.key(0), n_chains=50
        )

        exact = tg.exact.log_partition(energy, 1.0)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """
    check_parameters(energy)
    n_chains = check_count("n_chains", n_chains)
    n_populations = check_count("n_populations", n_populations, least=2)
    sharding = Spread.of(sharding, n_populations=n_populations)
    energy, clamp = colored(energy), checked_clamp(energy, clamp)
    path = path_from_zero(checked_ladder(betas), parameter_dtype(energy))
    job = PopulationAnnealing(energy, path, kernel, clamp, n_chains, n_populations)
    told = reports(path.size - 1, callback)
    return run(job, key=key, checkpoint=checkpoint, sharding=sharding, **told)


class PopulationState(NamedTuple):
    """Populations on their way from infinite temperature.

    Attributes:
        spins: the replicas, shape `(populations, chains, n)`.
        starts: the replica of the start that each descends from, shape `(populations, chains)`.
        log_ratios: estimates of `ln(Z / 2^n)` so far, shape `(populations,)`.
        n_done: rungs that lie behind.
        keys: random key of each population at each rung, shape `(populations, rungs)`.
    """

    spins: Float[Array, "populations chains n"]
    starts: Int[Array, "populations chains"]
    log_ratios: Float[Array, " populations"]
    n_done: Int[Array, ""]
    keys: Key


class PopulationAnnealing(AbstractJob):
    """Replicas that are cooled together and resampled on the way; a step is one rung.

    Attributes:
        energy: an energy of n spins.
        path: inverse temperatures from 0 on, shape `(points,)`.
        kernel: moves the replicas.
        clamp: +1 or -1 where a spin keeps this value, 0 where it is free, shape `(n,)`, or None.
        n_chains: replicas in each population.
        n_populations: independent populations.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        job = tg.sampling.PopulationAnnealing(
            energy, jnp.linspace(0, 1, 20), tg.Gibbs(), None, 50, 20
        )
        found = tg.run(job, key=jax.random.key(0))

        exact = tg.exact.log_partition(energy, 1.0)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """

    energy: AbstractEnergy
    path: Float[Array, " points"]
    kernel: AbstractKernel
    clamp: Clamp
    n_chains: int = eqx.field(static=True)
    n_populations: int = eqx.field(static=True)

    def init(self, key: Key) -> PopulationState:
        def population(key):
            start_key, key = jax.random.split(key)
            spins = random_corners(self.energy, self.n_chains, start_key, self.clamp)
            return spins, jax.random.split(key, self.path.size - 1)

        spins, keys = jax.vmap(population)(jax.random.split(key, self.n_populations))
        starts = jnp.broadcast_to(jnp.arange(self.n_chains), spins.shape[:2])
        zeros = jnp.zeros(self.n_populations, self.path.dtype)
        return PopulationState(spins, starts, zeros, jnp.zeros((), int), keys)

    def step(self, state: PopulationState) -> PopulationState:
        k = state.n_done
        now = self.path[k + 1], self.path[k + 1] - self.path[k]
        axes = None, None, 0, 0, 0, 0
        rung = over_lanes(jax.vmap(_rung, axes), axes, 0)
        populations = state.spins, state.starts, state.log_ratios, state.keys[:, k]
        spins, starts, log_ratios = rung(self, now, *populations)
        return PopulationState(spins, starts, log_ratios, k + 1, state.keys)

    def done(self, state: PopulationState) -> Bool[Array, ""]:
        return state.n_done >= self.path.size - 1

    def amount(self, state: PopulationState) -> tuple[int, int]:
        return int(state.n_done), self.path.size - 1

    def lanes(self, state: PopulationState) -> PyTree[int | None]:
        return state._replace(spins=0, starts=0, log_ratios=0, n_done=None, keys=0)

    def still(self) -> "PopulationAnnealing":
        return jax.lax.stop_gradient(self)

    def result(self, state: PopulationState) -> PopulationEstimate:
        n_replicas = self.n_chains * self.n_populations
        ratio, error, count = log_mean(state.log_ratios)
        weights = jax.nn.softmax(state.log_ratios)
        families = jax.vmap(
            lambda starts: jnp.zeros_like(self.path, shape=self.n_chains).at[starts].add(1)
        )
        squares = jnp.sum(jnp.square(families(state.starts)), axis=1)
        ess = self.n_chains**2 / dot(jnp.square(weights), squares)
        poor = too_few(ess, n_replicas, MIN_LINEAGES) | too_skewed(count, self.n_populations)
        finite = jnp.all(jnp.isfinite(state.log_ratios))
        result = first_of((~finite, RESULTS.non_finite), (poor, RESULTS.few_weights))
        draws = state.spins.reshape(-1, self.energy.n_spins)
        log_weights = jnp.repeat(state.log_ratios, self.n_chains)
        known = log_states(self.energy, self.path.dtype, self.clamp) + ratio
        return PopulationEstimate(
            derived(known, self.energy, self.path[-1], draws, log_weights),
            known_error(error, result),
            ess,
            state.spins,
            weights,
            result,
        )


def _rung(job, now, spins, starts, log_ratio, key):
    """One population at its next inverse temperature, `now` with how much higher it is."""
    beta, change = now
    move = jax.vmap(job.kernel.step, in_axes=(None, None, 0, 0, None))
    draw_key, move_key = jax.random.split(key)
    log_weights = -change * jax.vmap(job.energy)(spins)
    parents = systematic_draws(jax.nn.softmax(log_weights), draw_key)
    keys = jax.random.split(move_key, job.n_chains)
    spins, _ = move(job.energy, beta, spins[parents], keys, job.clamp)
    return spins, starts[parents], log_ratio + log_mean(log_weights)[0]


def systematic_draws(weights, key):
    """As many draws as weights, by equidistant places with one random offset, in order."""
    edges = jnp.cumsum(weights)
    offset = jax.random.uniform(key, dtype=weights.dtype)
    places = (jnp.arange(weights.size) + offset) * (edges[-1] / weights.size)
    return jnp.minimum(jnp.searchsorted(edges, places, side="right"), weights.size - 1)
