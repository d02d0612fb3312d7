"""Bound states from candidates of every source, their certificate and weights."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Num

from .._checks import as_array, check_count, checked_beta
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy
from ..landscape import overlap_distribution
from ..meanfield import AbstractFunctional, NaiveMeanField
from ..runs import Devices, Folder, holding, part, shows_progress
from ..sampling import AbstractKernel, HeatBath, Progress
from ..search import Completeness, Library, completeness, find_minima, fingerprint
from ._bound_states import BoundStates
from ._candidates import candidates, flip_library
from ._certificate import Certificate
from ._certify import certify
from ._weights import LEAST_POPULATIONS, N_POPULATIONS, Weights, weigh

_BINS = 40  # of P(q), over [-1, 1]


@from_anywhere
@shows_progress
def find_bound_states(
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    threshold: float | int = 20,
    functional: AbstractFunctional | None = NaiveMeanField(),
    dynamics: AbstractKernel = HeatBath(),
    starts: Num[Array | np.ndarray, "starts n"] | None = None,
    library: Library | None = None,
    n_starts: int = 320,
    capacity: int | None = None,
    n_trajectories: int = 256,
    horizon: int = 10,
    n_populations: int = N_POPULATIONS,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> BoundStates:
    """Diagnose whether retrieval from a model is ergodic, and what it breaks into if it is not.

    Candidates are minima of the functional and single-flip minima of E, from data and from random
    corners of the cube: neither alone points to all bound states (`experiments/truth.py`).
    `certify` then starts trajectories at each and merges those that exchange within the
    threshold. The weight of a set is that of the replicas, cooled from infinite temperature, which
    belong to it (`weights`): the stationary distribution of the rates would be blind to sets that
    were never left (`experiments/ergodicity.py`).

    Args:
        energy: any energy of n spins, a mixture of experts included.
        beta: inverse temperature, > 0.
        key: random key; equal keys give equal results.
        threshold: time that a bound state must trap the dynamics, in sweeps of `dynamics`.
        functional: the free energy whose minima are candidates; None, for an energy without one,
            leaves the single-flip minima alone.
        dynamics: the kernel of the trajectories, and the clock of all times; see `certify`.
        starts: configurations to quench besides random corners, for example the data, shape
            `(starts, n)`.
        library: minima of the functional that were found before; they are then not searched anew.
        n_starts: random corners that are quenched; equally many descend at zero temperature.
        capacity: most candidates to be certified, None for all; those of lowest free energy are,
            minima of the functional first.
        n_trajectories: number of trajectories from each candidate, at least 16; of many candidates,
            from each that is not merely passed. Time grows with it, with the number of candidates,
            with the threshold, and with n^2 where all spins are coupled.
        horizon: length of the trajectories in units of the threshold, at least 3; see `certify`.
        n_populations: populations of replicas that weigh the states, at least 10; see `weights`.
            With 0 the weights are the `library_weights`, without intervals: enough to compare
            thresholds.
        callback: called as `certify` does.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which descents, trajectories and replicas are spread: a mesh, or a
            sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        `BoundStates`, of NumPy arrays; `print(result.verdict)` says what it means.

    Raises:
        ValueError: as `find_minima` and `certify` do, for a capacity below 1, and for a
            library of another energy or beta.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        found = tg.find_bound_states(magnet, 1.0, key=jax.random.key(0))
        # One row for the state that points up and for its mirror image.
        assert len(found) == 1 and found.multiplicity[0] == 2
        assert found.verdict.startswith("Broken")
        ```
    """
    n_starts = check_count("n_starts", n_starts)
    capacity = None if capacity is None else check_count("capacity", capacity)
    n_trajectories = check_count("n_trajectories", n_trajectories, least=16)
    horizon = check_count("horizon", horizon, least=3)
    if n_populations != 0:
        n_populations = check_count("n_populations", n_populations, LEAST_POPULATIONS)
    with holding(checkpoint):
        search_key, corner_key, run_key = jax.random.split(key, 3)
        weight_key = jax.random.fold_in(key, 1)
        if library is not None:
            library.check_origin(
                fingerprint(None, energy, beta), "find_bound_states takes a library"
            )
        elif functional is not None:
            library = find_minima(
                functional,
                energy,
                beta,
                key=search_key,
                n_starts=n_starts,
                starts=starts,
                checkpoint=part(checkpoint, "search"),
                sharding=sharding,
            )
        corners = np.asarray(jax.random.rademacher(corner_key, (n_starts, energy.n_spins), "int8"))
        given = corners[:0] if starts is None else np.asarray(as_array("starts", starts))
        with jax.enable_x64(True):
            beta_64 = float(checked_beta(beta, jnp.float64))
            alone = library is None or library.size == 0
            rows = np.concatenate([given, corners])
            flips = flip_library(energy, rows, len(given), beta_64, alone)
            held, n_all = candidates(energy, library, flips, capacity)
            shares = np.asarray(held.weights(beta))
        certificate = certify(
            energy,
            beta,
            held,
            key=run_key,
            threshold=threshold,
            dynamics=dynamics,
            n_trajectories=n_trajectories,
            horizon=horizon,
            callback=callback,
            checkpoint=part(checkpoint, "trajectories"),
            sharding=sharding,
        )
        certificate = dataclasses.replace(certificate, bound=_leads(certificate, shares))
        mirrored = bool(np.any(held.multiplicity == 2))
        with jax.enable_x64(True):
            weighed = weigh(
                energy,
                beta,
                certificate,
                mirrored,
                weight_key,
                n_populations=n_populations,
                checkpoint=part(checkpoint, "weights"),
                sharding=sharding,
            )
        return BoundStates(
            **_states(held, certificate, shares, weighed),
            library=held,
            completeness=_searched(library),
            flip_completeness=_searched(flips),
            n_flip_minima=flips.size,
            n_dropped=n_all - held.size,
            beta=float(beta),
        )


def _states(
    held: Library, certificate: Certificate, shares: np.ndarray, weighed: Weights
) -> dict[str, Any]:
    """The metastable sets, the heaviest first.

    Replicas may have met none of several light sets: of these F tells the order.
    """
    group, by_library = certificate.group, np.bincount(certificate.group, shares)
    weights = weighed.values if weighed.known else by_library
    order = np.lexsort((-by_library, -weights))
    leads = np.flatnonzero(certificate.bound)
    leads = leads[np.argsort(group[leads])][order]
    weights, multiplicity = weights[order], certificate.multiplicity[leads]
    m = _means(held, certificate, shares)[order]
    edges = np.linspace(-1, 1, _BINS + 1)
    # As a library that `overlap_distribution` understands: `-ln` of the weights is `beta F`; in the
    # cold the lightest underflow.
    free_energies = -np.log(np.maximum(weights, np.finfo(float).tiny) / multiplicity)
    sets = dataclasses.replace(
        held[leads],
        magnetizations=m,
        free_energies=free_energies,
        multiplicity=multiplicity,
    )
    with jax.enable_x64(True):
        overlaps = np.asarray(overlap_distribution(sets, 1.0, edges))
    return {
        "magnetizations": m,
        "weights": weights,
        "weight_intervals": weighed.intervals[order],
        "library_weights": by_library[order],
        "log_partition": weighed.log_partition,
        "log_partition_error": weighed.standard_error,
        "escape_times": certificate.escape_times[leads],
        "intervals": certificate.intervals[leads],
        "multiplicity": multiplicity,
        "representatives": leads,
        "certificate": certificate,
        "overlap_edges": edges,
        "overlaps": overlaps,
    }


def _leads(certificate: Certificate, shares: np.ndarray) -> Bool[np.ndarray, " candidates"]:
    """The heaviest candidate of each set, of those that were observed for long.

    What is merely passed has few and short trajectories, and no column of occupations.
    """
    group = certificate.group
    visited = np.any(certificate.occupations > 0, axis=0)
    stays = np.asarray(visited)[certificate.same_core] | certificate.bound
    best = np.lexsort((-shares, ~stays, group))
    _, firsts = np.unique(group[best], return_index=True)
    return np.isin(np.arange(len(group)), best[firsts])


def _means(held: Library, certificate: Certificate, shares: np.ndarray) -> np.ndarray:
    """Mean magnetization of each set by the shares of its candidates, shape `(sets, n)`."""
    # A candidate that is in the same set as its image adds nothing.
    within = (held.multiplicity == 2) & (certificate.multiplicity == 1)
    sign = np.where(within, 0, certificate.side)
    # Of a set whose candidates all weigh nothing, each counts.
    shares = np.maximum(shares, np.finfo(float).tiny)
    sums = np.zeros((certificate.group.max() + 1, held.magnetizations.shape[1]))
    np.add.at(sums, certificate.group, (shares * sign)[:, None] * held.magnetizations)
    return np.clip(sums / np.bincount(certificate.group, shares)[:, None], -1, 1)


def _searched(found: Library | None) -> Completeness | None:
    if found is None or found.overflow or not np.any(found.hits > found.given_hits):
        return None
    return completeness(found)
