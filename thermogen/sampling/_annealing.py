"""Partition functions by annealing: unbiased weights of chains that are cooled, or heated."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from .._checks import as_array, check_count, check_parameters
from .._placement import from_anywhere
from .._types import Count, Key
from ..energies import AbstractEnergy
from ..runs import AbstractJob, Devices, Folder, Spread, run, shows_progress
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
    step_chains,
)
from ._derivatives import derived
from ._gibbs import Gibbs
from ._results import RESULTS
from ._sample import colored
from ._trust import judged_weights, known_error, widening


class Estimate(NamedTuple):
    """An estimate of ln Z.

    Attributes:
        log_partition: ln Z.
        standard_error: standard error of ln Z, by the spread of the weights, wider by up to 3
            times where they are skewed; infinite unless `result` is `converged`.
        ess: effective sample size `(sum w)^2 / sum w^2`, between 1 and the number of chains.
        result: a `RESULTS` code: `few_weights` where the estimate has failed, and what to do.
        n_chains: number of independent weights; 0 where draws depend on each other.
        sign: 1 where the mean of the weights is Z, as of chains that are cooled, -1 where it is
            1/Z.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    ess: Float[Array, ""]
    result: RESULTS
    n_chains: Int[Array, ""]
    sign: Int[Array, ""]


class Measurement(NamedTuple):
    """A mean, or one at each rung, shape `(...)`.

    Attributes:
        value: the estimate.
        standard_error: standard error by the spread over independent chains; infinite where it
            cannot be known.
    """

    value: Float[Array, "*rungs"]
    standard_error: Float[Array, "*rungs"]


@from_anywhere
@shows_progress
def annealed_importance_sampling(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Estimate:
    """ln Z at `betas[-1]` by chains cooled from infinite temperature (Neal 2001).

    `Z = 2^n <w>` with `ln w = -sum_k (beta_k - beta_{k-1}) E(s_{k-1})` is unbiased, so that
    `E[ln Z estimate] <= ln Z`: a stochastic lower bound. Its derivatives by energy and beta are
    means and cumulants over the chains where they end, by their weights; `expectation` gives
    means with their errors.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`; chains start at beta = 0
            whether it is listed or not, and make one sweep at each.
        key: random key.
        n_chains: number of independent chains.
        kernel: moves the chains.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.
        callback: called with the number of rungs done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which chains are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: if `n_chains` is not positive, known parameters are not finite, known `betas` do
            not increase from 0 or above, or `clamp` holds other values.
        TypeError: if `n_chains` is no integer, or parameters are not of float32 or float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        betas = jnp.linspace(0.1, 1.0, 10)
        found = tg.annealed_importance_sampling(energy, betas, key=jax.random.key(0), n_chains=100)
        assert found.result == tg.RESULTS.converged
        exact = tg.exact.log_partition(energy, 1.0)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """
    check_parameters(energy)
    n_chains = check_count("n_chains", n_chains)
    sharding = Spread.of(sharding, n_chains=n_chains)
    energy, clamp = colored(energy), checked_clamp(energy, clamp)
    path = path_from_zero(checked_ladder(betas), parameter_dtype(energy))
    start_key, key = jax.random.split(key)
    spins = random_corners(energy, n_chains, start_key, clamp, sharding)
    job = AnnealedImportance(energy, path, spins, kernel, clamp, 1)
    told = reports(path.size - 1, callback)
    return run(job, key=key, checkpoint=checkpoint, sharding=sharding, **told)


@from_anywhere
@shows_progress
def reverse_annealed_importance_sampling(
    energy: AbstractEnergy,
    betas: Ladder,
    samples: Num[Array | np.ndarray, "chains n"],
    *,
    key: Key,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Estimate:
    """ln Z at `betas[-1]` by heating chains that start as samples there.

    From exact samples `E[ln Z estimate] >= ln Z`: together with the forward run it encloses ln Z
    (bidirectional Monte Carlo, Grosse, Ghahramani and Adams 2015). Samples of a chain that has
    not relaxed make it no bound.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`, as for the forward run.
        samples: independent configurations at `betas[-1]`, shape `(chains, n)`.
        key: random key.
        kernel: moves the chains.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.
        callback: called with the number of rungs done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which chains are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: for samples of a wrong shape or entries other than +-1, known parameters that
            are not finite, and if known `betas` do not increase from 0 or above.
        TypeError: for parameters of another dtype than float32 and float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        samples = tg.exact.sample(energy, 1.0, key=jax.random.key(0), n_samples=200)
        betas = jnp.linspace(0, 1, 20)
        found = tg.sampling.reverse_annealed_importance_sampling(
            energy, betas, samples, key=jax.random.key(1)
        )

        exact = tg.exact.log_partition(energy, 1.0)
        assert abs(found.log_partition - exact) < 5 * found.standard_error + 1e-3
        ```
    """
    check_parameters(energy)
    samples = as_array("samples", samples)
    if samples.shape[0] < 1 or samples.shape[1] != energy.n_spins:
        raise ValueError(
            f"samples must have shape (chains, {energy.n_spins}), chains >= 1, got {samples.shape}"
        )
    if not isinstance(samples, Tracer) and not np.all(np.abs(samples) == 1):
        raise ValueError("samples must hold spins, -1 or +1, and nothing else")
    sharding = Spread.of(sharding, samples=len(samples))
    energy, clamp = colored(energy), checked_clamp(energy, clamp)
    dtype = parameter_dtype(energy)
    path = path_from_zero(checked_ladder(betas), dtype)[::-1]
    job = AnnealedImportance(energy, path, jnp.asarray(samples, dtype), kernel, clamp, -1)
    told = reports(path.size - 1, callback)
    return run(job, key=key, checkpoint=checkpoint, sharding=sharding, **told)


class AnnealingState(NamedTuple):
    """Chains on their way along a path of inverse temperatures.

    Attributes:
        spins: configuration of each chain, shape `(n, chains)`.
        log_weights: logarithms of the weights of the chains, shape `(chains,)`.
        n_done: number of rungs that lie behind.
        keys: random key of each rung, shape `(rungs,)`.
    """

    spins: Float[Array, "n chains"]
    log_weights: Float[Array, " chains"]
    n_done: Int[Array, ""]
    keys: Key


class AnnealedImportance(AbstractJob):
    """ln Z by the weights of chains that are cooled, or heated; a step is one rung.

    Attributes:
        energy: an energy of n spins.
        path: inverse temperatures, from that of `spins` on, shape `(points,)`.
        spins: samples at the first of them, shape `(chains, n)`.
        kernel: moves the chains.
        clamp: +1 or -1 where a spin keeps this value, 0 where it is free, shape `(n,)`, or None.
        sign: 1 for a path from infinite temperature, -1 for one that leads there.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        path = jnp.linspace(0, 1, 20)
        starts = jax.random.rademacher(jax.random.key(1), (50, 3)).astype(float)
        job = tg.sampling.AnnealedImportance(energy, path, starts, tg.Gibbs(), None, 1)
        found = tg.run(job, key=jax.random.key(0))

        exact = tg.exact.log_partition(energy, 1.0)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """

    energy: AbstractEnergy
    path: Float[Array, " points"]
    spins: Float[Array, "chains n"]
    kernel: AbstractKernel
    clamp: Clamp
    sign: int = eqx.field(static=True)

    def init(self, key: Key) -> AnnealingState:
        zeros = jnp.zeros(len(self.spins), self.path.dtype)
        keys = jax.random.split(key, self.path.size - 1)
        return AnnealingState(self.spins.T, zeros, jnp.zeros((), int), keys)

    def step(self, state: AnnealingState) -> AnnealingState:
        k = state.n_done
        weigh = _rung(self.energy, self.kernel, self.clamp)
        inputs = self.path[k + 1], self.path[k + 1] - self.path[k], state.keys[k]
        (spins, log_weights), _ = weigh((state.spins, state.log_weights), inputs)
        return AnnealingState(spins, log_weights, k + 1, state.keys)

    def done(self, state: AnnealingState) -> Bool[Array, ""]:
        return state.n_done >= self.path.size - 1

    def amount(self, state: AnnealingState) -> tuple[int, int]:
        return int(state.n_done), self.path.size - 1

    def lanes(self, state: AnnealingState) -> PyTree[int | None]:
        return state._replace(spins=-1, log_weights=0, n_done=None, keys=None)

    def still(self) -> "AnnealedImportance":
        return jax.lax.stop_gradient(self)

    def result(self, state: AnnealingState) -> Estimate:
        ratio, error, ess = log_mean(state.log_weights)
        result = judged_weights(state.log_weights, ess)
        log_scale = log_states(self.energy, self.path.dtype, self.clamp)
        # Chains that are cooled end at the last beta, with their weights; those that are heated
        # start there.
        cooled = self.sign == 1
        spins = state.spins.T if cooled else self.spins
        weights = state.log_weights if cooled else jnp.zeros(len(spins), self.path.dtype)
        beta = self.path[-1 if cooled else 0]
        log_partition = derived(log_scale + self.sign * ratio, self.energy, beta, spins, weights)
        counts = jnp.asarray(state.log_weights.size), jnp.asarray(self.sign)
        return Estimate(log_partition, known_error(error, result), ess, result, *counts)


def path_from_zero(betas: Float[Array, " rungs"], dtype) -> Float[Array, " points"]:
    """Infinite temperature and then the rungs, of which the first may be the same."""
    return jnp.append(jnp.zeros(1, dtype), betas.astype(dtype))


def log_states(energy: AbstractEnergy, dtype, clamp: Clamp = None) -> Float[Array, ""]:
    """`n ln 2`, of n free spins: ln Z at infinite temperature."""
    n_free = energy.n_spins if clamp is None else jnp.sum(clamp == 0)
    return n_free * jnp.log(2).astype(dtype)


def annealed(energy, path, spins, key, kernel, clamp):
    """Chains along a path of inverse temperatures, from samples `(chains, n)` at its first.

    Returns where they end, shape `(chains, n)`, and the logarithms of their weights `(chains,)`.
    """
    inputs = path[1:], jnp.diff(path), jax.random.split(key, len(path) - 1)
    start = spins.T, jnp.zeros(len(spins), path.dtype)
    (spins, log_weights), _ = jax.lax.scan(_rung(energy, kernel, clamp), start, inputs)
    return spins.T, log_weights


def _rung(energy, kernel, clamp):
    """How chains `(n, chains)` and the logarithms of their weights go on by one rung."""

    def rung(carry, inputs):
        spins, log_weights = carry
        beta, change, key = inputs
        log_weights -= change * jax.vmap(energy, in_axes=-1)(spins)
        spins, _ = step_chains(kernel, energy, beta, spins, key, clamp)
        return (spins, log_weights), None

    return rung


def log_mean(log_weights):
    """`ln <w>`, its standard error (delta method, widened for skewness), and the effective size."""
    n = len(log_weights)
    total = jax.nn.logsumexp(log_weights)
    ess = jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weights))
    return total - jnp.log(n).astype(total.dtype), weight_error(ess, n), ess


def weight_error(ess, n: int):
    """Standard error of the logarithm of the mean of n weights of this effective size."""
    # One weight has no spread, and says nothing about its error.
    error = jnp.sqrt(jnp.maximum(n / ess - 1, 0) / (n - 1)) if n > 1 else jnp.inf
    return jnp.asarray(error * widening(ess, n), ess.dtype)
