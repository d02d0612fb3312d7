"""Kinetic certificates: which candidates trap the dynamics, and which are one bound state."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from .._batches import cast
from .._checks import check_count, check_finite, checked_beta
from .._compile import compiled_quickly
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, is_flip_symmetric
from ..runs import Devices, Folder, holding, part, shows_progress
from ..sampling import AbstractKernel, HeatBath, Progress
from ..search import Library
from ._certificate import Certificate
from ._cores import Cores, Entries, Seen, starts_of
from ._descents import TIE, descents_of, prepared
from ._dynamics import quickest_form, steps_per_sweep
from ._judge import EXCHANGED, LOOKS, Evidence, judge
from ._observe import Observer, block_shape, padded, power_of_two
from ._screening import screened
from ._trajectories import Trajectories

# A candidate of a smaller root-mean-square magnetization is no configuration that dynamics
# could come back to, but the ensemble of those far from all cores.
_DISORDERED = 0.2
# Error of the logarithm of odds that no trajectory shows, ...
_ROUNDING = 1e-3
# ... and gaps that single precision cannot tell from nothing, as a share of the largest field.
_TIE_OF_SINGLE = 1e-5
# Cores are told apart by a table of at least so many rows, ...
_LEAST_CORES = 16
# ... and so many trajectories from each tell how they exchange, at least; where the count hangs on
# it, up to so many times as many. Errors of N trajectories look like processes of which
# `1/sqrt(N)` is left after the lag, where `exp(-2)` is left of one as slow as the threshold.
_LEAST_TRAJECTORIES, _TIMES_MORE = 128, 4
# Room for the looks of so many thresholds, so that a shorter horizon shares the program.
_ROOM = 10
# Beyond the stages, which tell randomness apart, of all other trajectories.
_LATER = 2**20


@from_anywhere
@shows_progress
def certify(
    energy: AbstractEnergy,
    beta: Beta,
    candidates: Library | Num[Array | np.ndarray, "K n"],
    *,
    key: Key,
    threshold: float | int,
    dynamics: AbstractKernel = HeatBath(),
    n_trajectories: int = 256,
    horizon: int = 10,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Certificate:
    """Prove by the dynamics which candidates are bound states.

    Trajectories start from the core of each state: the single-flip minimum of E below the signs of
    its magnetizations. Later configurations belong to the core that they descend to, or that is
    nearest to it. The eigenvalues of their exchange count the metastable sets, from one threshold
    after the start until twice the threshold later, and its leading eigenvectors tell which cores
    share one (PCCA: Deuflhard and Weber, Linear Algebra Appl. 398, 161 (2005)). A disordered state,
    such as a paramagnet beside ordered states at a first-order transition, starts from draws of its
    product measure, and configurations far from the core below them belong to it, where that shows
    one set more. The escape from a set is an exponential law, fitted with censoring. Errors of the
    exchange are about `1/sqrt(n_trajectories)`: at least 128 trajectories from each core are
    observed for three thresholds, and up to four times `n_trajectories` where the number of sets is
    open. A relaxation time within a factor of about 1.5 of the threshold may still be taken for one
    on the other side.

    All candidates are tested. Where there are many, a few trajectories from each tell which cores
    are merely passed: nearly all of them leave for others. Such a core is merged into that to which
    most of them go, and all others stand for the rest.

    Args:
        energy: any energy of n spins, a mixture of experts included.
        beta: inverse temperature, > 0.
        candidates: a `Library`, whose states of multiplicity 2 stand for two, or
            magnetizations or spins of shape `(K, n)`. Disordered states, of a root-mean-square
            magnetization below 0.2, are one set at most, and belong to where most of their
            trajectories go if they are none.
        key: random key; equal keys give equal certificates.
        threshold: time that a bound state must trap the dynamics, in sweeps of `dynamics`.
        dynamics: the kernel that moves trajectories, and in whose sweeps all times count. A sweep
            of `HeatBath()` is n steps at random sites, the clock of
            `thermogen.exact.relaxation_times`; `Gibbs()` on an `RBM` draws its layers in turn. What
            traps one kernel need not trap another.
        n_trajectories: number of trajectories from each core, at least 16. Of more than 32 cores a
            few trajectories, 32 to 128, tell first which are merely passed: they are left at that.
        horizon: length of the trajectories in units of the threshold, at least 3. Longer ones
            narrow the intervals of escape times beyond.
        callback: called with the number of looks done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which trajectories are spread: a mesh, or a sharding by its first
            axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        A `Certificate` of NumPy arrays.

    Raises:
        ValueError: for candidates of wrong shape or range, an empty library, or a beta,
            threshold or count out of range.
        TypeError: for dynamics that are no kernel.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        up, key = np.ones(6), jax.random.key(0)
        certificate = tg.certify(magnet, 1.0, np.stack([up, -up]), key=key, threshold=20)
        assert certificate.n_bound == 2 and np.all(certificate.intervals[:, 0] > 20)
        ```
    """
    if not isinstance(dynamics, AbstractKernel):
        raise TypeError(f"dynamics must be a kernel such as HeatBath(), got {dynamics!r}")
    magnetizations, mask, mirrored = _candidates(candidates, energy.n_spins)
    check_finite("threshold", threshold, positive=True)
    n_trajectories = check_count("n_trajectories", n_trajectories, 16)
    horizon = check_count("horizon", horizon, 3)
    per_sweep = steps_per_sweep(dynamics, energy.n_spins)
    n_steps = _steps_between_looks(dynamics, threshold, per_sweep, energy.n_spins)
    used = magnetizations[mask]
    disordered = np.sqrt(np.mean(used**2, axis=1)) < _DISORDERED
    disordered &= not disordered.all()
    with holding(checkpoint), jax.enable_x64(True):
        energy, model, even, (draw_key, run_key) = _before(energy, key)
        bottoms, ties = descents_of(model, used)
        cores = Cores.of(bottoms[~disordered], mirrored, bool(even))
        n_starts = cores.n_starts + int(disordered.sum())
        shape = block_shape(n_starts, n_trajectories, energy.n_spins)
        table_size = power_of_two(max(len(cores.spins), _LEAST_CORES))
        scale, beta = ties[~disordered].max() / TIE, checked_beta(beta, jnp.float64)
        dtype, tie = _precision(float(beta) * scale)
        trajectories = Trajectories(
            dynamics,
            cast(quickest_form(energy), dtype),
            beta.astype(dtype),
            jnp.asarray(padded(cores.spins, table_size)),
            jnp.ones((*shape, energy.n_spins), jnp.int8),
            jnp.asarray(n_steps, jnp.int32),
            jnp.asarray(2 * tie * scale, dtype),
            jnp.asarray(horizon * LOOKS, jnp.int32),
            max(horizon, _ROOM) * LOOKS,
        )
        observe = Observer(trajectories, run_key, part(checkpoint), sharding)
        stands, passing = screened(observe, cores)
        read = Entries.of(cores, stands, bottoms, disordered, mask)

        def meet(count: int, n_looks: int, stage: int, callback: Progress = None) -> Seen:
            stage_key = jax.random.fold_in(draw_key, stage)
            starts = starts_of(read.cores, used[disordered], count, stage_key)
            return read.completed(observe(starts, n_looks, stage, callback))

        n_looks = horizon * LOOKS
        seen = meet(n_trajectories, n_looks, n_looks + n_trajectories, callback)
        passing = read.labelled(Seen(*(x[read.passed] for x in passing)))
        clock = n_steps / per_sweep, float(threshold), type(dynamics).__name__
        return _settled(Evidence(seen, seen.until(EXCHANGED), passing), read, clock, meet)


def _settled(
    evidence: Evidence,
    read: Entries,
    clock: tuple[float, float, str],
    meet: Callable[[int, int, int], Seen],
) -> Certificate:
    """The certificate; where errors leave the number of sets open, of more trajectories."""
    count = evidence.exchanged.labels.shape[1]
    most = max(_TIMES_MORE * count, _LEAST_TRAJECTORIES)
    certificate = judge(evidence, read, *clock)
    while count < _LEAST_TRAJECTORIES or (count < most and not certificate.settled):
        evidence = evidence.with_more(meet(count, EXCHANGED, _LATER + count))
        count *= 2
        certificate = judge(evidence, read, *clock)
    return certificate


def _precision(largest: float):
    """In which dtype trajectories move, and what share of the largest field counts as nothing.

    In single precision rounding must be nothing beside the noise: `largest` is beta times the
    largest field. Where it is so cold that a flip which costs nothing might cost something,
    trajectories take double precision.
    """
    single = largest * float(jnp.finfo(jnp.float32).eps) < _ROUNDING
    return (jnp.float32, _TIE_OF_SINGLE) if single else (jnp.float64, TIE)


def _steps_between_looks(
    dynamics: AbstractKernel, threshold: float | int, per_sweep: int, n: int
) -> int:
    if threshold * per_sweep < LOOKS:
        of = "" if isinstance(dynamics, HeatBath) else f" of {type(dynamics).__name__}"
        least = f"{LOOKS / per_sweep:g} sweeps{of} for {n} spins"
        raise ValueError(f"threshold must be at least {least}, got {threshold}")
    return round(per_sweep * threshold / LOOKS)


@compiled_quickly
def _before(energy: AbstractEnergy, key: Key):
    """All that is computed before a descent, as one program.

    Returns:
        The energy in double precision, its form for descents, whether it is even, and two keys.
    """
    energy = cast(energy, jnp.float64)
    first, second = jax.random.split(key)
    return energy, prepared(energy), is_flip_symmetric(energy), (first, second)


def _candidates(candidates, n: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Magnetizations, which rows are in use, and whether states stand for mirror images."""
    if isinstance(candidates, Library):
        m, mask = np.asarray(candidates.magnetizations, float), np.asarray(candidates.mask)
        mirrored = bool(np.any(np.asarray(candidates.multiplicity)[mask] == 2))
    else:
        m = np.asarray(candidates, float)
        mask, mirrored = np.ones(len(m), bool), False
    if m.ndim != 2 or m.shape[1] != n:
        raise ValueError(f"candidates must hold states of {n} spins, shape (K, {n}), got {m.shape}")
    if not mask.any():
        raise ValueError("candidates hold no state; certify needs at least one")
    if not np.all(np.abs(m) <= 1):
        raise ValueError("candidates must hold magnetizations within [-1, 1]")
    return m, mask, mirrored
