"""Thermodynamic integration: ln Z by the mean energy along a path of temperatures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import check_count, check_parameters
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Count, Key
from ..energies import AbstractEnergy
from ..runs import AbstractJob, Devices, Folder, Spread, run, shows_progress
from ._annealing import Measurement, log_states, path_from_zero
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
from ._gibbs import Gibbs
from ._results import RESULTS
from ._sample import colored
from ._trust import MAX_RHAT_COOLED, disagreement, first_of, known_error


class ThermodynamicIntegral(NamedTuple):
    """ln Z by quadrature, and the thermodynamics on the way.

    Attributes:
        log_partition: ln Z at `betas[-1]`.
        standard_error: standard error of ln Z, by the spread over chains, with
            `quadrature_error` added in quadrature; infinite unless `result` is `converged`.
        quadrature_error: the part that more rungs reduce, and more sweeps do not.
        mean_energies: `<E>` at each of `betas`, shape `(rungs,)`.
        heat_capacities: `beta^2 (<E^2> - <E>^2)` at each of `betas`, shape `(rungs,)`. Errors of
            both are infinite at rungs where chains disagree.
        rhat: R-hat of the energies of the chains at each of `betas`, shape `(rungs,)`. Where it
            exceeds 1.3 chains differ by more than each of them varies.
        result: a `RESULTS` code: `not_relaxed` where `rhat` is too large at some rung.
    """

    log_partition: Float[Array, ""]
    standard_error: Float[Array, ""]
    quadrature_error: Float[Array, ""]
    mean_energies: Measurement
    heat_capacities: Measurement
    rhat: Float[Array, " rungs"]
    result: RESULTS


@from_anywhere
@shows_progress
def thermodynamic_integration(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    n_sweeps: Count,
    burn_in: Count,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> ThermodynamicIntegral:
    """`ln Z = n ln 2 - int_0^beta <E> dbeta` by independent chains, cooled from rung to rung.

    The slope of the integrand, `-(<E^2> - <E>^2)`, is measured too and corrects the trapezoidal
    rule to fourth order (Hermite; Davis and Rabinowitz 1984, section 2.9). The error of the
    quadrature is estimated by that of intervals taken two by two.

    Cooled chains lag behind, all alike, which R-hat does not show: in large cold models ln Z can
    come out too low by more than its error. Double the sweeps until it stays.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures, increasing, shape `(rungs,)`; chains start at beta = 0
            whether it is listed or not, and measure there too.
        key: random key.
        n_chains: number of independent chains, at least 2; normal intervals want 20 or more.
        n_sweeps: sweeps measured at each rung; from one alone no error is known.
        burn_in: sweeps before them at each rung.
        kernel: moves the chains.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.
        callback: called with the number of rungs done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which chains are spread: a mesh, or a sharding by its first axis.
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
        found = tg.sampling.thermodynamic_integration(
            energy,
            jnp.linspace(0, 0.5, 6),
            key=jax.random.key(0),
            n_chains=50,
            n_sweeps=50,
            burn_in=20,
        )

        exact = tg.exact.log_partition(energy, 0.5)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """
    check_parameters(energy)
    n_chains = check_count("n_chains", n_chains, least=2)
    burn_in = check_count("burn_in", burn_in, least=0)
    check_count("burn_in + n_sweeps", burn_in + check_count("n_sweeps", n_sweeps))
    sharding = Spread.of(sharding, n_chains=n_chains)
    sweeps = jnp.asarray(burn_in), jnp.asarray(int(n_sweeps))
    energy, clamp = colored(energy), checked_clamp(energy, clamp)
    path = path_from_zero(checked_ladder(betas), parameter_dtype(energy))
    start_key, key = jax.random.split(key)
    spins = random_corners(energy, n_chains, start_key, clamp, sharding)
    job = Integration(energy, path, spins, kernel, clamp, *sweeps)
    told = reports(path.size, callback)
    return run(job, key=key, checkpoint=checkpoint, sharding=sharding, **told)


class IntegrationState(NamedTuple):
    """Chains on their way along the rungs, and what they measured.

    Attributes:
        spins: configuration of each chain, shape `(n, chains)`.
        means: mean of E of each chain at each rung, shape `(points, chains)`.
        variances: variance of E of each chain at each rung, shape `(points, chains)`.
        n_done: number of rungs that lie behind.
        keys: random key of each rung, shape `(points,)`.
    """

    spins: Float[Array, "n chains"]
    means: Float[Array, "points chains"]
    variances: Float[Array, "points chains"]
    n_done: Int[Array, ""]
    keys: Key


class Integration(AbstractJob):
    """ln Z as an integral of the mean energy over beta; a step is one rung.

    Attributes:
        energy: an energy of n spins.
        path: inverse temperatures from 0 on, shape `(points,)`.
        spins: samples at the first of them, shape `(chains, n)`.
        kernel: moves the chains.
        clamp: +1 or -1 where a spin keeps this value, 0 where it is free, shape `(n,)`, or None.
        burn_in: sweeps at each rung before the first that counts.
        n_sweeps: sweeps at each rung after those.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        path = jnp.linspace(0, 0.5, 6)
        starts = jax.random.rademacher(jax.random.key(1), (50, 3)).astype(float)
        job = tg.sampling.Integration(
            energy, path, starts, tg.Gibbs(), None, jnp.asarray(20), jnp.asarray(50)
        )
        found = tg.run(job, key=jax.random.key(0))

        exact = tg.exact.log_partition(energy, 0.5)
        assert abs(found.log_partition - exact) < 5 * found.standard_error
        ```
    """

    energy: AbstractEnergy
    path: Float[Array, " points"]
    spins: Float[Array, "chains n"]
    kernel: AbstractKernel
    clamp: Clamp
    burn_in: Int[Array, ""]
    n_sweeps: Int[Array, ""]

    def init(self, key: Key) -> IntegrationState:
        blank = jnp.zeros((self.path.size, len(self.spins)), self.path.dtype)
        keys = jax.random.split(key, self.path.size)
        return IntegrationState(self.spins.T, blank, blank, jnp.zeros((), int), keys)

    def step(self, state: IntegrationState) -> IntegrationState:
        k = state.n_done
        beta, key, energy = self.path[k], state.keys[k], self.energy

        def move(i, spins):
            sweep_key = jax.random.fold_in(key, i)
            return step_chains(self.kernel, energy, beta, spins, sweep_key, self.clamp)[0]

        def measure(i, carry):
            # Running means keep their digits in float32, sums of squares do not.
            spins, mean, square = carry
            spins = move(self.burn_in + i, spins)
            energies = jax.vmap(energy, in_axes=-1)(spins)
            new = mean + (energies - mean) / (i + 1)
            square += ((energies - mean) * (energies - new) - square) / (i + 1)
            return spins, new, square

        spins = jax.lax.fori_loop(0, self.burn_in, move, state.spins)
        zeros = jnp.zeros_like(state.means[0])
        spins, mean, square = jax.lax.fori_loop(0, self.n_sweeps, measure, (spins, zeros, zeros))
        means, variances = state.means.at[k].set(mean), state.variances.at[k].set(square)
        return IntegrationState(spins, means, variances, k + 1, state.keys)

    def done(self, state: IntegrationState) -> Bool[Array, ""]:
        return state.n_done >= self.path.size

    def amount(self, state: IntegrationState) -> tuple[int, int]:
        return int(state.n_done), self.path.size

    def lanes(self, state: IntegrationState) -> PyTree[int | None]:
        return state._replace(spins=-1, means=1, variances=1, n_done=None, keys=None)

    def result(self, state: IntegrationState) -> ThermodynamicIntegral:
        path, means, variances = self.path, state.means, state.variances
        rhat = disagreement(means, variances, self.n_sweeps)
        relaxed = rhat <= MAX_RHAT_COOLED
        squares = variances + jnp.square(means - jnp.mean(means, axis=1, keepdims=True))
        mean, mean_error = _over_chains(means)
        # Squares about the common mean have an expectation below the variance, by that of the mean.
        variance, variance_error = _over_chains(squares)
        variance += jnp.square(mean_error)

        of_mean, of_variance = jax.grad(_integral, argnums=(1, 2))(path, mean, -variance)
        _, statistical = _over_chains((dot(of_mean, means) - dot(of_variance, squares))[None])
        quadrature = _quadrature_error(path, mean, -variance)
        result = first_of(
            (~jnp.all(jnp.isfinite(means)), RESULTS.non_finite),
            (~jnp.all(relaxed), RESULTS.not_relaxed),
        )
        scale = jnp.square(path[1:])
        mean_error, variance_error = (
            jnp.where(relaxed, e, jnp.inf) for e in (mean_error, variance_error)
        )
        return ThermodynamicIntegral(
            log_states(self.energy, path.dtype, self.clamp) - _integral(path, mean, -variance),
            known_error(jnp.hypot(statistical[0], quadrature), result),
            quadrature,
            Measurement(mean[1:], mean_error[1:]),
            Measurement(scale * variance[1:], scale * variance_error[1:]),
            rhat[1:],
            result,
        )


def _over_chains(values):
    """Mean over chains and its standard error, of values of shape `(rungs, chains)`."""
    error = jnp.std(values, axis=1, ddof=1) / jnp.sqrt(values.shape[1]).astype(values.dtype)
    return jnp.mean(values, axis=1), error


def _integral(path, values, slopes):
    return jnp.sum(_hermite(jnp.diff(path), values[:-1], values[1:], slopes[:-1], slopes[1:]))


def _hermite(width, first, last, slope, last_slope):
    """Integral of the cubic through values and slopes at both ends; short by `h^5 f'''' / 720`."""
    return width / 2 * (first + last) - jnp.square(width) / 12 * (last_slope - slope)


def _quadrature_error(path, values, slopes):
    """What the intervals miss, by what pairs of them miss in addition."""
    width = jnp.diff(path)
    left, right, both = width[:-1], width[1:], width[:-1] + width[1:]
    single = _hermite(width, values[:-1], values[1:], slopes[:-1], slopes[1:])
    double = _hermite(both, values[:-2], values[2:], slopes[:-2], slopes[2:])
    # The fourth derivative / 720 at the inner points. A rung at beta = 0 makes a width of 0.
    gain = both**5 - left**5 - right**5
    known = gain > 0
    fourth = jnp.where(known, (double - single[:-1] - single[1:]) / jnp.where(known, gain, 1), 0)
    neighbours = _beside(known.astype(width.dtype))
    missed = width**5 * _beside(fourth) / jnp.maximum(neighbours, 1)
    # An interval without neighbours: as much as its correction.
    correction = jnp.square(width) / 12 * jnp.diff(slopes)
    return jnp.abs(jnp.sum(jnp.where(neighbours > 0, missed, correction)))


def _beside(inner):
    """Sum over the inner points at the ends of each interval."""
    return jnp.append(inner, 0) + jnp.append(jnp.zeros(1, inner.dtype), inner)
