"""Is retrieval ergodic? Candidates from every source, their certificate, weights, a verdict."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_count, check_counts, checked_beta
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy
from ..landscape import overlap_distribution
from ..meanfield import AbstractFunctional, NaiveMeanField
from ..search import Completeness, Library, completeness, find_minima, fingerprint
from ._candidates import candidates, flip_library
from ._certify import Certificate, certify

_BINS = 40  # of P(q), over [-1, 1]
_NAMED = 3  # states whose weight the verdict names
# A relaxation time within this factor of the threshold may lie on its other side.
_CLOSE = 1.5


class BoundStates(eqx.Module):
    """Which states trap the dynamics of a model, how long, and where the weight lies.

    Candidates are the K entries of `library`; `certificate` has a row for each of them, in the same
    order, and marks the heaviest candidate of every metastable set as `certificate.bound`.

    Attributes:
        library: the candidates: minima of the functional that were given or found, lowest first;
            then single-flip minima of E at which none of these lies, m = ±1, as many as there
            was room for. They are no minima of the functional: their `residuals` are infinite,
            their `curvatures` 0 and their free energies those of independent flips.
        certificate: what heat-bath dynamics makes of the candidates.
        weights: Boltzmann weight of the metastable set to which each candidate belongs, its
            mirror image included, shape `(K,)`; over `certificate.bound` it sums to 1. It is the
            sum of `exp(-beta F)` over the candidates of the set.
        overlap_edges: edges of the bins of `overlaps`, from -1 to 1, shape `(bins + 1,)`.
        overlaps: P(q) of the metastable sets by their mean magnetizations, shape `(bins,)`; sums
            to 1.
        completeness: of the quenches of the functional, that is of the minima of G; None where
            none was quenched, or the search had no room for all it found.
        flip_completeness: of the zero-temperature descents, that is of single-flip minima of E;
            None where all of them ended on plateaus.
        n_flip_minima: how many different single-flip minima the descents met, one of each pair of
            mirror images; no plateaus, unless there is nothing else.
        n_dropped: candidates left out, the highest, because there was no room.
        beta: inverse temperature.
    """

    library: Library
    certificate: Certificate
    weights: Float[np.ndarray, " K"]
    overlap_edges: Float[np.ndarray, " edges"]
    overlaps: Float[np.ndarray, " bins"]
    completeness: Completeness | None
    flip_completeness: Completeness | None
    n_flip_minima: int
    n_dropped: int
    beta: float

    @property
    def ergodic(self) -> bool:
        """Whether no candidate traps the dynamics for longer than the threshold."""
        return self.certificate.n_bound == 1

    @property
    def bound(self) -> np.ndarray:
        """One candidate of each metastable set, the heaviest set first."""
        rows = np.flatnonzero(self.certificate.bound)
        return rows[np.argsort(-self.weights[rows], kind="stable")]

    @property
    def verdict(self) -> str:
        """What was found, in sentences: one paragraph a line."""
        parts = (_breaking(self), _trapping(self), _weight(self), _search(self), _unknown(self))
        return "\n".join(part for part in parts if part)


@from_anywhere
def find_bound_states(
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    threshold: float | int = 20,
    functional: AbstractFunctional | None = NaiveMeanField(),
    starts: Num[Array | np.ndarray, "starts n"] | None = None,
    library: Library | None = None,
    n_walkers: int = 64,
    n_hops: int = 4,
    capacity: int = 64,
    n_trajectories: int = 256,
) -> BoundStates:
    """Diagnose whether retrieval from a model is ergodic, and what it breaks into if it is not.

    Candidates are minima of the functional and single-flip minima of E, from data and from random
    corners of the cube: neither alone points to all bound states (`experiments/truth.py`).
    `certify` then starts heat-bath trajectories at each and merges those that exchange within the
    threshold. The weight of a set is the sum of `exp(-beta F)` over its candidates. The stationary
    distribution of the rates would be blind to sets that were never left; counts of annealed
    replicas err less on large glassy models, but cannot tell a disordered set from those beside it
    (`experiments/ergodicity.py`).

    Args:
        energy: any energy of n spins, a mixture of experts included.
        beta: inverse temperature, > 0.
        key: random key; equal keys give equal results.
        threshold: time that a bound state must trap the dynamics, in sweeps.
        functional: the free energy whose minima are candidates; None, for an energy without one,
            leaves the single-flip minima alone.
        starts: configurations to quench besides random corners, for example the data, shape
            `(starts, n)`.
        library: minima of the functional that were found before; they are then not searched anew.
        n_walkers: random corners in each round of the search, and
        n_hops: further rounds; equally many corners descend at zero temperature.
        capacity: most candidates to be certified; those of lowest free energy are, minima of the
            functional first.
        n_trajectories: from each candidate, at least 16. Time grows with it, with the number of
            candidates, with the threshold, and with n^2 where all spins are coupled.

    Returns:
        `BoundStates`, of NumPy arrays; `print(result.verdict)` says what it means.

    Raises:
        ValueError: as `find_minima` and `certify` do, for a capacity below 1, and for a
            library of another energy or beta.
    """
    n_walkers, capacity = check_counts(n_walkers=n_walkers, capacity=capacity)
    n_hops = check_count("n_hops", n_hops, least=0)
    n_trajectories = check_count("n_trajectories", n_trajectories, least=16)
    search_key, corner_key, run_key = jax.random.split(key, 3)
    minima = library
    if library is not None:
        library.check_origin(fingerprint(None, energy, beta), "find_bound_states takes a library")
    elif functional is not None:
        options = {"n_walkers": n_walkers, "n_hops": n_hops, "starts": starts}
        minima = find_minima(functional, energy, beta, key=search_key, **options)
    corners = np.asarray(
        jax.random.rademacher(corner_key, (n_walkers * (n_hops + 1), energy.n_spins), "int8")
    )
    rows = (
        corners
        if starts is None
        else np.concatenate([np.asarray(as_array("starts", starts)), corners])
    )
    with jax.enable_x64(True):
        beta_64 = float(checked_beta(beta, jnp.float64))
        n_given, alone = len(rows) - len(corners), minima is None or minima.size == 0
        flips = flip_library(energy, rows, n_given, beta_64, alone)
        held, n_all = candidates(energy, minima, flips, capacity)
        shares = np.asarray(held.weights(beta))
    certificate = certify(
        energy, beta, held, key=run_key, threshold=threshold, n_trajectories=n_trajectories
    )
    certificate = _led_by_the_heaviest(certificate, shares)
    edges = np.linspace(-1, 1, _BINS + 1)
    with jax.enable_x64(True):
        states = _states(held, certificate, shares)
        overlaps = np.asarray(overlap_distribution(states, 1.0, edges))
    return BoundStates(
        library=held,
        certificate=certificate,
        weights=np.bincount(certificate.group, shares)[certificate.group],
        overlap_edges=edges,
        overlaps=overlaps,
        completeness=_searched(minima),
        flip_completeness=_searched(flips),
        n_flip_minima=flips.size,
        n_dropped=n_all - held.size,
        beta=float(beta),
    )


def _led_by_the_heaviest(certificate: Certificate, shares: np.ndarray) -> Certificate:
    """The certificate with the heaviest candidate of each set as its representative."""
    order = np.lexsort((-shares, certificate.group))
    first = np.append(True, np.diff(certificate.group[order]) > 0)
    bound = np.zeros(len(shares), bool)
    bound[order[first]] = True
    return dataclasses.replace(certificate, bound=bound)


def _states(held: Library, certificate: Certificate, shares: np.ndarray) -> Library:
    """The metastable sets as states: mean magnetizations, and `-ln` of the weights as `beta F`."""
    rows = np.flatnonzero(certificate.bound)
    leads = rows[np.argsort(certificate.group[rows])]
    # A candidate that is in the same set as its image adds nothing.
    within = (held.multiplicity == 2) & (certificate.multiplicity == 1)
    sign = np.where(within, 0, certificate.side)
    sums = np.zeros((len(leads), held.magnetizations.shape[1]))
    np.add.at(sums, certificate.group, (shares * sign)[:, None] * held.magnetizations)
    weights = np.bincount(certificate.group, shares)
    weights = np.maximum(weights, np.finfo(float).tiny)  # in the cold the lightest underflow
    return dataclasses.replace(
        held[leads],
        magnetizations=np.clip(sums / weights[:, None], -1, 1),
        free_energies=-np.log(weights / certificate.multiplicity[leads]),
        multiplicity=certificate.multiplicity[leads],
    )


def _searched(found: Library | None) -> Completeness | None:
    if found is None or found.overflow or not np.any(found.hits > found.given_hits):
        return None
    return completeness(found)


def _breaking(found: BoundStates) -> str:
    certificate, beta = found.certificate, f"{found.beta:g}"
    limit = f"{certificate.threshold:g} sweeps"
    if found.ergodic:
        size = found.library.size
        what = "the only candidate is" if size == 1 else f"all {size} candidates are"
        if certificate.count != "1":
            return (
                f"Ergodic or nearly so: at beta = {beta} there are {certificate.count} bound "
                f"states; the slowest exchange takes about as long as the threshold of {limit}."
            )
        return f"Ergodic: at beta = {beta} {what} one bound state; nothing traps for {limit}."
    pairs = int(np.sum(certificate.bound & (certificate.multiplicity == 2)))
    pairs_of = "1 pair" if pairs == 1 else f"{pairs} pairs"
    images = f", {pairs_of} of mirror images among them" if pairs else ""
    return (
        f"Broken: at beta = {beta} the dynamics parts into {certificate.count} bound states"
        f"{images}, which do not exchange within {limit}. A chain sees the one in which it starts."
    )


def _trapping(found: BoundStates) -> str:
    """How long the bound states hold, or how fast all exchange."""
    certificate = found.certificate
    if found.ergodic:
        times = certificate.relaxation_times
        return f"The slowest exchange takes about {times[0]:.2g} sweeps." if len(times) else ""
    rows = found.bound[np.argsort(certificate.escape_times[found.bound], kind="stable")]
    if np.isinf(certificate.escape_times[rows[0]]):
        least = certificate.intervals[rows, 0].min()
        return f"None was seen to be left: mean escape times exceed {least:.2g} sweeps (97.5 %)."
    first, last = _time(certificate, rows[0]), _time(certificate, rows[-1])
    if len(rows) == 1:
        return f"State {rows[0]} {first}."
    return f"The shortest-lived, state {rows[0]}, {first}; the longest-lived, {rows[-1]}, {last}."


def _time(certificate: Certificate, k: int | np.integer) -> str:
    low, high = certificate.intervals[k]
    if np.isinf(certificate.escape_times[k]):
        return f"was never left: its mean escape time exceeds {low:.2g} sweeps (97.5 %)"
    time = certificate.escape_times[k]
    return f"is left after {time:.3g} sweeps (95 %: {low:.3g} to {high:.3g})"


def _weight(found: BoundStates) -> str:
    if found.ergodic:
        return ""
    shares, paired = found.weights[found.bound], found.certificate.multiplicity[found.bound] == 2
    named = [
        f"{share:.3g} in state {k}{' and its mirror image' if pair else ''}"
        for k, share, pair in list(zip(found.bound, shares, paired, strict=True))[:_NAMED]
    ]
    rest = f", {shares[_NAMED:].sum():.2g} in all others" if len(shares) > _NAMED else ""
    each = np.repeat(shares / (1 + paired), 1 + paired)
    each = each[each > 0]
    number = np.exp(-np.sum(each * np.log(each)))
    return (
        f"Weight: {', '.join(named)}{rest}; as if {number:.3g} states were equally heavy. The "
        "weights are exp(-beta F), summed over the candidates of each state."
    )


def _search(found: BoundStates) -> str:
    """How complete the candidates are."""
    chances = [
        f"that a further {how} is {1 - estimate.coverage:.2g} (95 %: "
        f"{1 - estimate.coverage_interval[1]:.2g} to {1 - estimate.coverage_interval[0]:.2g})"
        for how, estimate in (
            ("quench ends in a minimum of G that is not held", found.completeness),
            ("descent of E ends in a single-flip minimum not met", found.flip_completeness),
        )
        if estimate is not None
    ]
    size, left_out = found.library.size, found.n_dropped
    tested = f"{size} candidate{'' if size == 1 else 's'} {'was' if size == 1 else 'were'} tested"
    tested += f", {left_out} of higher free energy were not" if left_out else ""
    if found.library.overflow:
        tested += ", and the search had no room for all minima of G that it met"
    told = f"the chance {', '.join(chances)}; " if chances else ""
    return f"Search: {told}{tested}."


def _unknown(found: BoundStates) -> str:
    """What the diagnosis cannot say."""
    certificate = found.certificate
    parts = ["states into which none of the starts falls"]
    if found.n_dropped or found.library.overflow:
        parts.append("whether a candidate that was not tested is a bound state of its own")
    ratios = certificate.relaxation_times / certificate.threshold
    near = (ratios > 1 / _CLOSE) & (ratios < _CLOSE)
    if near.any():
        times = " and ".join(f"{t:.3g}" for t in certificate.relaxation_times[near][:2])
        parts.append(
            f"on which side of the threshold the exchange in {times} sweeps lies, which is within "
            f"a factor {_CLOSE:g} of it"
        )
    if not found.ergodic:
        parts.append("the error of F, which is approximate, and with it that of the weights")
    return f"Not known: {'; '.join(parts)}."
