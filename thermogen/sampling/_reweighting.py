"""Multi-histogram reweighting: chains at several temperatures tell of all temperatures between."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num

from .._checks import as_array, check_count
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta, Count, Key
from ..energies import AbstractEnergy
from ..runs import Devices, Folder, shows_progress
from ._annealing import Estimate, Measurement, log_states
from ._base import (
    AbstractKernel,
    Clamp,
    Ladder,
    Progress,
    checked_clamp,
    checked_ladder,
    random_corners,
)
from ._gibbs import Gibbs
from ._observers import Trace
from ._results import RESULTS
from ._sample import sample
from ._tempering import ParallelTempering
from ._trust import (
    MAX_RHAT_LADDERS,
    MAX_RHAT_SUMS,
    disagreement,
    drifting,
    first_of,
    known_error,
    ladders_disagree,
    too_few,
)

_MAX_STEPS = 200
Result = TypeVar("Result")


def _compiled(method: Callable[[Any, Beta], Result]) -> Callable[[Any, Beta], Result]:
    """Once for all beta: `eqx.filter_jit` alone compiles anew for each that is no array."""
    traced = eqx.filter_jit(method)

    @functools.wraps(method)
    def at(self, beta):
        return traced(self, jnp.asarray(beta, self.betas.dtype))

    return at


class Reweighting(eqx.Module):
    """The thermodynamics of all beta between the first and the last of `betas`.

    Error bars are by the spread over chains, however strongly the draws within one depend on each
    other. They, and all methods, may be batched by `jax.vmap`, and values derived by beta.

    Attributes:
        betas: inverse temperatures of the rungs, shape `(rungs,)`.
        log_partitions: ln Z at each rung, shape `(rungs,)`.
        standard_errors: standard error of each ln Z, 0 at the first, whose ln Z is `n ln 2`;
            infinite unless `converged`.
        rhat: R-hat of the energies of the chains at each rung, shape `(rungs,)`. Where it exceeds
            1.03, by more than chance, chains differ too much for how much each of them varies.
        result: a `RESULTS` code: `no_overlap` where the equations do not determine ln Z,
            `not_relaxed` where `rhat` is too large at some rung, or chains differ in the sum of
            energies from some rung to the coldest, which swaps between these do not change, or such
            sums drift, in all of three chains or more alike. Of relaxed runs 1 % are taken for
            drifting ones.
    """

    betas: Float[Array, " rungs"]
    log_partitions: Float[Array, " rungs"]
    standard_errors: Float[Array, " rungs"]
    rhat: Float[Array, " rungs"]
    result: RESULTS
    _energies: Float[Array, "chains samples"]  # less their mean, `_origin`
    _origin: Float[Array, ""]
    _scales: Float[Array, " rungs"]  # minus ln Z of those energies, the first 0
    _shifts: Float[Array, "chains rungs"]  # what each chain adds to `_scales`, to first order

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the equations were solved, the rungs overlap, and chains agree and stay."""
        return self.result == RESULTS.converged

    @_compiled
    def log_partition(self, beta: Beta) -> Estimate:
        """ln Z at `beta`, its standard error, and the effective number of draws behind it.

        `ess` is `(sum w)^2 / sum w^2` of the weights of all draws at `beta`, whether or not they
        depend on each other; where it is small, `beta` lies outside of the rungs, errors are
        infinite and the result is `few_weights`.
        """
        log_weights = self._log_weights(beta)
        total = jax.nn.logsumexp(log_weights)
        log_z = total - beta * self._origin + self.log_partitions[0] - jnp.log(self._rung_size())
        error = self._error(log_weights, jnp.ones_like(log_weights))
        dependent = jnp.asarray(0), jnp.asarray(1)
        judged = self._judged(log_weights)
        return Estimate(log_z, error, _size(log_weights), judged, *dependent)

    @_compiled
    def mean_energy(self, beta: Beta) -> Measurement:
        """`<E>` at `beta`, in energy units."""
        log_weights = self._log_weights(beta)
        deviations, mean = self._deviations(log_weights)
        return Measurement(mean + self._origin, self._error(log_weights, deviations))

    @_compiled
    def heat_capacity(self, beta: Beta) -> Measurement:
        """`C = d<E>/dT = beta^2 (<E^2> - <E>^2)` at `beta`, dimensionless."""
        log_weights = self._log_weights(beta)
        squares = jnp.square(self._deviations(log_weights)[0])
        variance = jnp.sum(_normalised(log_weights) * squares)
        error = self._error(log_weights, squares - variance)
        return Measurement(jnp.square(beta) * variance, jnp.square(beta) * error)

    def _log_weights(self, beta):
        """Logarithms of the weights of all draws at `beta`, shape `(chains, samples)`."""
        mixture = jax.lax.map(
            lambda e: jax.nn.logsumexp(_exponents(self._scales, self.betas, e), axis=0),
            self._energies,
        )
        return -beta * self._energies - mixture

    def _deviations(self, log_weights):
        mean = jnp.sum(_normalised(log_weights) * self._energies)
        return self._energies - mean, mean

    def _error(self, log_weights, values):
        """Standard error of `sum w values`, where the values are relative to what is estimated."""
        terms = _normalised(log_weights) * values

        def by_scales(chain):
            terms, energies = chain
            return dot(_shares(self._scales, self.betas, energies), terms)

        slopes = -jnp.sum(jax.lax.map(by_scales, (terms, self._energies)), axis=0)
        per_chain = jnp.sum(terms, axis=1) + dot(self._shifts, slopes)
        error = jnp.sqrt(per_chain.size * jnp.var(per_chain, ddof=1))
        return known_error(error, self._judged(log_weights))

    def _judged(self, log_weights):
        """The result at one beta, which may lie where no draws are."""
        few = too_few(_size(log_weights), log_weights.size)
        return RESULTS.where(self.converged & few, RESULTS.few_weights, self.result)

    def _rung_size(self):
        return jnp.asarray(self._energies.size // self.betas.size, self._energies.dtype)


@from_anywhere
@shows_progress
def multi_histogram_reweighting(
    energy: AbstractEnergy,
    betas: Ladder,
    *,
    key: Key,
    n_chains: Count,
    n_sweeps: Count,
    burn_in: Count,
    thin: Count = 1,
    kernel: AbstractKernel = Gibbs(),
    clamp: Clamp = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Reweighting:
    """ln Z, `<E>` and the heat capacity at all beta up to `betas[-1]`, by parallel tempering.

    Each chain is a ladder of `ParallelTempering(betas, kernel)`; `multi_histogram` then combines
    the energies of all rungs.

    Args:
        energy: an energy of n spins.
        betas: inverse temperatures of the rungs, increasing, the first 0, shape `(rungs,)`.
        key: random key.
        n_chains: number of independent ladders, at least 2; normal intervals want 20 or more.
        n_sweeps: sweeps of each ladder after burn-in.
        burn_in: sweeps before the first that counts.
        thin: every so many sweeps one is kept.
        kernel: moves the replicas.
        clamp: +-1 where a spin keeps this value and 0 where it is free, shape `(n,)`; Z is then the
            sum over the free spins.
        callback: called with the number of kept sweeps done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which ladders are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: for counts that are too small, known parameters that are not finite, if known
            `betas` do not increase from 0, and if `clamp` holds other values.
        TypeError: for counts that are no integers, and parameters not of float32 or float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sampling.multi_histogram_reweighting(
            energy,
            jnp.linspace(0, 0.5, 3),
            key=jax.random.key(0),
            n_chains=20,
            n_sweeps=100,
            burn_in=20,
        )

        exact = tg.exact.log_partition(energy, 0.3)
        assert jnp.isclose(found.log_partition(0.3).log_partition, exact, atol=0.05)
        ```
    """
    n_chains = check_count("n_chains", n_chains, least=2)
    ladder, clamp = _checked_from_zero(betas), checked_clamp(energy, clamp)
    start_key, key = jax.random.split(key)
    energies = sample(
        ParallelTempering(betas, kernel),
        energy,
        ladder[-1],
        key=key,
        n_chains=n_chains,
        n_sweeps=n_sweeps,
        burn_in=burn_in,
        thin=thin,
        init=random_corners(energy, n_chains, start_key, clamp),
        clamp=clamp,
        callback=callback,
        checkpoint=checkpoint,
        sharding=sharding,
        observers=Trace(_rung_energies, of="state"),
    )
    return _solve(energies.swapaxes(1, 2), ladder, log_states(energy, ladder.dtype, clamp))


def _rung_energies(energy, state):
    return jax.vmap(energy)(state.replicas)


@from_anywhere
def multi_histogram(
    energies: Num[Array | np.ndarray, "chains rungs draws"], betas: Ladder, *, n_spins: Count
) -> Reweighting:
    """ln Z, `<E>` and the heat capacity at all beta between rungs, by energies drawn at each.

    Solves `Z_j = sum_i exp(-beta_j E_i) / sum_k N_k exp(-beta_k E_i) / Z_k`, where i runs over all
    draws of all rungs (Ferrenberg and Swendsen 1989; MBAR, Shirts and Chodera 2008), by whichever
    of a Newton step and a substitution comes nearer. Standard errors are by the sandwich formula
    with chains as clusters (Liang and Zeger 1986): draws of one chain, at one rung or at several,
    may depend on each other, as those of tempering do.

    Args:
        energies: energies of independent chains at each rung in the order of time, shape
            `(chains, rungs, draws)`, chains >= 2; normal intervals want 20 or more.
        betas: inverse temperatures of the rungs, increasing, the first 0, shape `(rungs,)`.
        n_spins: number of spins n: ln Z at beta = 0 is `n ln 2`.

    Returns:
        The solution. If the rungs do not overlap, or chains disagree or drift, `converged` is
        False, `result` says which, and errors are infinite.

    Raises:
        ValueError: for shapes that do not agree, known energies that are not finite, and known
            `betas` that do not increase from 0.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        # Energies of one spin in no field: all zero.
        found = tg.sampling.multi_histogram(np.zeros((2, 2, 10)), [0.0, 1.0], n_spins=1)

        assert np.isclose(found.log_partition(0.5).log_partition, np.log(2))
        ```
    """
    ladder, energies = _checked_from_zero(betas), as_array("energies", energies)
    if energies.shape[0] < 2 or energies.shape[1] != ladder.size or energies.shape[2] < 1:
        raise ValueError(
            f"energies must have shape (chains, {ladder.size}, draws) with at least 2 chains and "
            f"1 draw, got {energies.shape}"
        )
    if not isinstance(energies, Tracer) and not np.all(np.isfinite(energies)):
        raise ValueError("energies must be finite")
    return _solve(jnp.asarray(energies, float), ladder, check_count("n_spins", n_spins) * np.log(2))


def _checked_from_zero(betas):
    ladder = checked_ladder(betas)
    if ladder.size < 2:
        raise ValueError(f"betas must have at least 2 rungs, got {ladder.size}")
    if not isinstance(betas, Tracer) and np.asarray(betas)[0] != 0:
        raise ValueError("betas must start at 0, where ln Z is known: it sets the scale")
    return ladder


class _State(NamedTuple):
    """A state of the solve: minus ln Z, the residual of its equations, and their Jacobian."""

    scales: Array
    excess: Array
    information: Array
    n_steps: Array


@eqx.filter_jit
def _solve(energies, betas, log_states):
    betas = betas.astype(energies.dtype)
    n_chains, n_rungs, n_draws = energies.shape
    origin = jnp.mean(energies)
    energies -= origin
    samples = energies.reshape(n_chains, -1)
    state, is_solved = _iterated(energies, betas, samples)
    inverse = _inverse(state.information) / (n_chains * n_draws)
    # Where rungs overlap too little, ln Z is not determined to within 1: no step is small then.
    uncertain = jnp.diagonal(inverse)
    is_solved &= jnp.all((uncertain > 0) & (uncertain < 1))
    rhat = _rhat(energies)
    result = _ending(energies, rhat, is_solved)
    converged = result == RESULTS.converged

    scores = n_draws - jax.lax.map(
        lambda e: jnp.sum(_shares(state.scales, betas, e), axis=1), samples
    )
    shifts = jnp.pad(dot(scores[:, 1:], inverse), ((0, 0), (1, 0)))
    errors = jnp.sqrt(n_chains * jnp.var(shifts, axis=0, ddof=1))
    return Reweighting(
        betas=betas,
        log_partitions=jnp.asarray(log_states, betas.dtype) - state.scales - betas * origin,
        standard_errors=jnp.where(converged | (jnp.arange(n_rungs) == 0), errors, jnp.inf),
        rhat=rhat,
        result=result,
        _energies=samples,
        _origin=origin,
        _scales=state.scales,
        _shifts=shifts,
    )


def _iterated(energies, betas, samples):
    """The last state, and whether its residual is one of rounding."""
    # The rounding of exponents.
    tolerance = jnp.finfo(betas.dtype).eps * (16 + 4 * betas[-1] * jnp.max(jnp.abs(samples)))
    means = jnp.mean(energies, axis=(0, 2))
    steps = jnp.diff(betas) * (means[1:] + means[:-1]) / 2
    start = _evaluate(jnp.append(jnp.zeros(1, betas.dtype), jnp.cumsum(steps)), betas, samples, 0)

    def unfinished(state):
        return (_worst(state) > tolerance) & (state.n_steps < _MAX_STEPS)

    def step(state):
        newton = state.scales.at[1:].add(dot(-_inverse(state.information), state.excess[1:]))
        substituted = state.scales - jnp.log1p(state.excess)
        both = [
            _evaluate(scales - scales[0], betas, samples, state.n_steps + 1)
            for scales in (newton, substituted)
        ]
        nearer = _worst(both[0]) < _worst(both[1])  # False for NaN
        return jax.tree.map(lambda a, b: jnp.where(nearer, a, b), *both)

    state = jax.lax.while_loop(unfinished, step, start)
    return state, _worst(state) <= tolerance


def _ending(energies, rhat, is_solved):
    """The result code of a solve."""
    n_chains, _, n_draws = energies.shape
    apart = ladders_disagree(rhat, MAX_RHAT_LADDERS, n_chains, n_draws)
    # Swaps move the energies of a ladder from rung to rung, and hide how slowly they change.
    of_sums = _rhat(jnp.cumsum(energies[:, ::-1], axis=1))
    apart |= ladders_disagree(of_sums, MAX_RHAT_SUMS, n_chains, n_draws)
    return first_of(
        (~jnp.all(jnp.isfinite(energies)), RESULTS.non_finite),
        (~is_solved, RESULTS.no_overlap),
        (jnp.any(apart) | drifting(_slopes(energies)), RESULTS.not_relaxed),
    )


def _evaluate(scales, betas, samples, n_steps):
    """The equations: of each rung, that the shares of all draws in it sum to its draws."""

    def of_chain(energies):
        shares = _shares(scales, betas, energies)
        sums = jnp.sum(shares, axis=1)
        # Of what two rungs share alone: that is positive, and no difference rounds small overlaps.
        links = dot(shares, shares.T) * (1 - jnp.eye(betas.size, dtype=shares.dtype))
        return sums, jnp.diag(jnp.sum(links, axis=1)) - links

    sums, information = jax.lax.map(of_chain, samples)
    rung_size = samples.size // betas.size
    excess = jnp.sum(sums, axis=0) / rung_size - 1
    return _State(scales, excess, jnp.sum(information, axis=0) / rung_size, jnp.asarray(n_steps))


def _rhat(energies):
    """R-hat of the chains at each rung, from energies of shape `(chains, rungs, draws)`."""
    means, variances = jnp.mean(energies, axis=2), jnp.var(energies, axis=2)
    return disagreement(means.T, variances.T, energies.shape[2])


def _slopes(energies):
    """Slopes of energies in time, up to a factor; exactly 0 of those that never change."""
    time = jnp.arange(energies.shape[2], dtype=energies.dtype)
    return dot(energies - energies[..., :1], time - jnp.mean(time))


def _worst(state):
    return jnp.max(jnp.abs(state.excess))


def _inverse(information):
    """Inverse of the part that is determined: the scale of the first rung is given."""
    return jnp.linalg.inv(information[1:, 1:])


def _shares(scales, betas, energies):
    """Probabilities that a draw came from each rung, shape `(rungs, samples)`."""
    return jax.nn.softmax(_exponents(scales, betas, energies), axis=0)


def _exponents(scales, betas, energies):
    return scales[:, None] - betas[:, None] * energies[None, :]


def _size(log_weights):
    """Effective number of draws."""
    total = jax.nn.logsumexp(log_weights)
    return jnp.exp(2 * total - jax.nn.logsumexp(2 * log_weights))


def _normalised(log_weights):
    return jnp.exp(log_weights - jax.nn.logsumexp(log_weights))
