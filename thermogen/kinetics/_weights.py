"""Boltzmann weights of bound states, by replicas that are cooled from infinite temperature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int, Int8

from .._batches import cast
from .._checks import check_count, checked_beta
from .._compile import compiled_quickly
from .._placement import from_anywhere, on_host
from .._types import Beta, Key
from ..energies import AbstractEnergy
from ..runs import Devices, Folder, run
from ..sampling import RESULTS, Gibbs, PopulationAnnealing
from ._attribution import Cells
from ._bound_states import BoundStates
from ._candidates import energies_of
from ._certificate import Certificate
from ._descents import TIE, prepared
from ._dynamics import quickest_form

N_CHAINS, N_POPULATIONS = 128, 20
LEAST_POPULATIONS = 10
_CONFIDENCE = 0.95
# From one rung to the next beta grows by at most so much over the spread of E at beta = 0.
_STEP = 0.25
# The number of rungs is a power of two, so that few programs serve.
_LEAST_RUNGS, _MOST_RUNGS = 64, 4096
_PROBES = 256
# Of so many spins single precision saves half of the time; by so much ln Z may then be wrong.
_MANY_SPINS, _ROUNDING = 256, 0.01
# Standard errors of ln Z for which a known configuration may seem to outweigh its set.
_SURE = 3.0
# Among all sets of a model, the chance that one which replicas have met is called missed.
_MISSED = 1e-3


class Weights(NamedTuple):
    """Boltzmann weights of K bound states, mirror images included.

    Attributes:
        values: weight of each, shape `(K,)`; sums to 1.
        intervals: 95 % confidence intervals, shape `(K, 2)`; 0 and 1 unless `result` is
            `converged`, and 1 and 1 where there is one state.
        log_partition: ln Z of the model.
        standard_error: standard error of ln Z; infinite unless `result` is `converged`.
        ess: effective number of independent replicas, of which `PopulationEstimate` tells.
        result: a `RESULTS` code: `few_weights` where few replicas carry the weight of all, or a
            state weighs less than a configuration that is known to belong to it.
    """

    values: Float[np.ndarray, " K"]
    intervals: Float[np.ndarray, "K 2"]
    log_partition: float
    standard_error: float
    ess: float
    result: RESULTS

    @property
    def known(self) -> bool:
        """Whether the estimate stands."""
        return bool(np.isfinite(self.standard_error))


@from_anywhere
def weights(
    energy: AbstractEnergy,
    beta: Beta,
    states: BoundStates,
    *,
    key: Key,
    n_chains: int = N_CHAINS,
    n_populations: int = N_POPULATIONS,
) -> Weights:
    """Boltzmann weights of bound states, also of those that dynamics never leaves.

    Replicas are cooled from infinite temperature and resampled on the way (`population_annealing`),
    by `Gibbs` sweeps at 64 inverse temperatures or more, and each is attributed as `attribute`
    does. A weight is a mean over populations, each weighted by its Z. Its error is that of leaving
    out one population at a time; the interval is that of a binomial count with as large a variance
    (Clopper and Pearson 1934; Korn and Graubard, Survey Methodology 24, 193 (1998)), so that it
    holds for states which few replicas or none have met. `find_bound_states` does the same; errors
    fall as one over the root of `n_chains`.

    Where one state ends and the next begins is not sharp: what crosses the boundary within the
    inner time of the state, the weight times the inner over the escape time, widens both sides of
    the interval: that bounds what descents assign otherwise than the spectrum does, in most models
    (`experiments/weights.py`). Intervals are those of the certified states: a state that was not
    found, or one that stands for two, has no part in them.

    Args:
        energy: the energy of n spins that the states are of.
        beta: inverse temperature, that of the states.
        states: bound states, as `find_bound_states` returns them.
        key: random key.
        n_chains: replicas in each population.
        n_populations: independent populations, at least 10.

    Raises:
        ValueError: for counts that are too small, a beta other than that of the states, and an
            energy of another number of spins.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        found = tg.find_bound_states(magnet, 1.0, key=jax.random.key(0))
        weights = tg.kinetics.weights(magnet, 1.0, found, key=jax.random.key(1))

        assert np.allclose(weights.values, [1.0])  # up and down together
        ```
    """
    check_states(energy, beta, states)
    n_chains = check_count("n_chains", n_chains, least=2)
    n_populations = check_count("n_populations", n_populations, LEAST_POPULATIONS)
    sizes = n_chains, n_populations
    with jax.enable_x64(True):
        found = weigh(energy, beta, states.certificate, states.mirrored, key, *sizes)
    order = states.sets
    return found._replace(values=found.values[order], intervals=found.intervals[order])


def check_states(energy: AbstractEnergy, beta: Beta, states: BoundStates) -> None:
    """Bound states must be those of an energy of as many spins at this beta."""
    n = states.magnetizations.shape[1]
    if energy.n_spins != n:
        raise ValueError(f"energy must have {n} spins, those of the states, got {energy.n_spins}")
    if not np.isclose(float(beta), states.beta, rtol=1e-6, atol=0):
        raise ValueError(f"beta must be {states.beta:g}, that of the states, got {beta}")


class Draws(NamedTuple):
    """Replicas at equilibrium, and the metastable set of each.

    Attributes:
        log_partition: ln Z.
        standard_error: standard error of ln Z; infinite unless `result` is `converged`.
        ess: effective number of independent replicas.
        spins: replicas, shape `(populations, chains, n)`.
        weights: weights of the populations, sum 1, shape `(populations,)`.
        result: a `RESULTS` code.
        sets: number of the set of each replica, shape `(populations, chains)`.
        signs: -1 in the second of two mirror images, else 1, shape `(populations, chains)`.
    """

    log_partition: float
    standard_error: float
    ess: float
    spins: Float[np.ndarray, "populations chains n"]
    weights: Float[np.ndarray, " populations"]
    result: RESULTS
    sets: Int[np.ndarray, "populations chains"]
    signs: Int8[np.ndarray, "populations chains"]

    def shares(self, n_sets: int) -> Float[np.ndarray, "populations sets"]:
        """Share of the replicas of each population in each set."""
        return np.stack([np.bincount(x, minlength=n_sets) / x.size for x in self.sets])


def draw(
    energy: AbstractEnergy,
    beta: Beta,
    certificate: Certificate,
    mirrored: bool,
    key: Key,
    n_chains: int = N_CHAINS,
    n_populations: int = N_POPULATIONS,
    checkpoint: Folder = None,
    sharding: Devices = None,
) -> Draws:
    """Cooled replicas and their sets; needs 64 bits enabled.

    They have failed where a configuration of a set, its core, outweighs what they found of the set.
    """
    cells = Cells.of(prepared(energy), certificate, mirrored)
    energy = cast(energy, jnp.float64)
    path = _path(energy, float(checked_beta(beta, jnp.float64)))
    model, dtype = quickest_form(energy), _dtype(energy.n_spins, float(beta) * float(cells.tie))
    job = PopulationAnnealing(
        cast(model, dtype), path.astype(dtype), Gibbs(), None, n_chains, n_populations
    )
    pool = run(job, key=key, checkpoint=checkpoint, sharding=sharding)
    sets, signs = _sets_of(model, cells, jnp.asarray(pool.spins))
    pool, sets, signs = jax.tree.map(on_host, (pool, sets, signs))
    known = float(pool.log_partition), float(pool.standard_error), float(pool.ess)
    drawn = Draws(
        *known, pool.spins.astype(float), pool.weights.astype(float), pool.result, sets, signs
    )
    if np.isfinite(drawn.standard_error) and _misses(energy, beta, certificate, mirrored, drawn):
        return drawn._replace(standard_error=np.inf, result=RESULTS.few_weights)
    return drawn


def _dtype(n: int, tie: float):
    """Of replicas: single precision where there are many spins, and ln Z loses nothing by it.

    `tie` is beta times that of the cells, which tells the largest field, and that beta E.
    """
    most = 0.5 * n * tie / TIE
    single = n >= _MANY_SPINS and most * float(jnp.finfo(jnp.float32).eps) < _ROUNDING
    return jnp.float32 if single else jnp.float64


@compiled_quickly
def _sets_of(energy: AbstractEnergy, cells: Cells, spins: Float[Array, "populations chains n"]):
    """Numbers of the sets of replicas, and which of two mirror images, `(populations, chains)`."""
    shape = spins.shape
    sets, signs = cells.find(energy, spins.reshape(-1, shape[2]).T.astype(cells.tie.dtype))
    return sets.reshape(shape[:2]), signs.reshape(shape[:2])


def _path(energy: AbstractEnergy, beta: float) -> Float[Array, " points"]:
    """From 0 to beta: even steps at first, even factors where the spread of E falls as 1 / beta."""
    rng, n = np.random.default_rng(0), energy.n_spins
    spread = np.std(energies_of(energy, rng.choice(np.array([-1, 1], np.int8), (_PROBES, n))))
    # Of two-spin energies the spread falls beyond about `spread * beta = sqrt(n)`.
    bend = beta * max(spread, 1e-9) / np.sqrt(n)
    span = np.arcsinh(bend)
    wanted = np.clip(np.sqrt(n) * span / _STEP, _LEAST_RUNGS, _MOST_RUNGS)
    n_rungs = 1 << int(np.ceil(np.log2(wanted)))
    return jnp.asarray(beta * np.sinh(span * np.linspace(0, 1, n_rungs + 1)) / bend)


def weigh(
    energy: AbstractEnergy,
    beta: Beta,
    certificate: Certificate,
    mirrored: bool,
    key: Key,
    n_chains: int = N_CHAINS,
    n_populations: int = N_POPULATIONS,
    checkpoint: Folder = None,
    sharding: Devices = None,
) -> Weights:
    """Weights in the order of the numbers of the sets; needs 64 bits enabled.

    Without populations none is known.
    """
    if n_populations == 0:
        return _unknown(certificate)
    sizes = n_chains, n_populations
    drawn = draw(energy, beta, certificate, mirrored, key, *sizes, checkpoint, sharding)
    n_sets = int(certificate.group.max()) + 1
    shares = drawn.shares(n_sets)
    values = drawn.weights @ shares
    values /= values.sum()
    if n_sets == 1:
        intervals = np.ones((1, 2))
    elif np.isinf(drawn.standard_error):
        intervals = np.tile([0.0, 1.0], (n_sets, 1))
    else:
        crossing = values * _crossing(certificate)
        intervals = share_intervals(shares, drawn.weights, drawn.ess)
        intervals = np.clip(intervals + crossing[:, None] * [-1, 1], 0, 1)
    return Weights(
        values, intervals, drawn.log_partition, drawn.standard_error, drawn.ess, drawn.result
    )


def _unknown(certificate: Certificate) -> Weights:
    n_sets = int(certificate.group.max()) + 1
    intervals = np.tile([0.0 if n_sets > 1 else 1.0, 1.0], (n_sets, 1))
    return Weights(np.full(n_sets, np.nan), intervals, np.nan, np.inf, 0.0, RESULTS.few_weights)


def _misses(energy, beta, certificate, mirrored, drawn: Draws) -> bool:
    """Whether the cores of a set, whose energies are known, outweigh what replicas found of it.

    In the cold a core is nearly all of its set, so that chance alone must not tell among many.
    """
    known = _known(energy, beta, certificate, mirrored, drawn.log_partition)
    shares, tail = drawn.shares(len(known)), _MISSED / len(known)
    most = share_intervals(shares, drawn.weights, drawn.ess, tail)[:, 1]
    return bool(np.any(known > np.exp(_SURE * drawn.standard_error) * most))


def _known(energy, beta, certificate, mirrored, log_partition) -> Float[np.ndarray, " sets"]:
    """Weight of the cores of each set: no set weighs less."""
    rows = certificate.distinct
    log_weights = -float(beta) * energies_of(cast(energy, jnp.float64), certificate.cores[rows])
    own = np.exp(np.minimum(log_weights - log_partition, 700)) * (2 if mirrored else 1)
    return np.bincount(certificate.group[rows], own, certificate.group.max() + 1)


def _crossing(certificate: Certificate) -> Float[np.ndarray, " sets"]:
    """The part of each set that leaves it within its inner time, a sweep at least."""
    rows = np.flatnonzero(certificate.bound)
    rows = rows[np.argsort(certificate.group[rows])]
    inner = np.maximum(1, certificate.inner_times[rows])
    return inner / np.maximum(inner, certificate.escape_times[rows])


def share_intervals(
    shares: Float[np.ndarray, "populations sets"],
    weights: Float[np.ndarray, " populations"],
    ess: float,
    tail: float = 0.5 * (1 - _CONFIDENCE),
) -> Float[np.ndarray, "sets 2"]:
    """Confidence intervals of weighted means of shares (Korn and Graubard 1998).

    Those of Clopper and Pearson for as many independent draws as would have the variance that the
    populations show, fewer by what few populations know of it; and for `ess` draws where they
    show none. `tail` is the chance of a miss on either side.
    """
    mean = np.clip(weights @ shares, 0, 1)
    without = (mean - weights[:, None] * shares) / (1 - weights)[:, None]
    n_populations = len(weights)
    variance = (n_populations - 1) * np.var(without, axis=0)
    freedom = 1 / np.sum(weights**2) - 1
    fewer = (scipy.stats.norm.isf(tail) / scipy.stats.t.isf(tail, freedom)) ** 2
    shown = variance > 1e-12 * mean**2
    draws = np.where(shown, fewer * mean * (1 - mean) / np.where(shown, variance, 1), ess)
    draws = np.maximum(draws, 1.0)
    met, missed = draws * mean, draws * (1 - mean)
    low = scipy.stats.beta.ppf(tail, met, missed + 1)
    high = scipy.stats.beta.ppf(1 - tail, met + 1, missed)
    return np.stack([np.where(mean > 0, low, 0.0), np.where(mean < 1, high, 1.0)], axis=1)
