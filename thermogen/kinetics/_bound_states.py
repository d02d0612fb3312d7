"""Bound states: what was found, as arrays and in sentences."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from .._shown import Shown, Table, interval, number
from ..search import Completeness, Library
from ._certificate import Certificate

_NAMED = 3  # states whose weight the verdict names
# A relaxation time within this factor of the threshold may lie on its other side.
_CLOSE = 1.5
_NORMAL = 1.96


class BoundStates(Shown):
    """The K bound states of a model: what traps its dynamics, how long, and with what weight.

    A row stands for one metastable set, or for two that are mirror images of each other; the
    heaviest comes first. All times are in sweeps. `len(result)` is K.

    Attributes:
        magnetizations: mean magnetization of each set, by the weights of its candidates, `(K, n)`.
        weights: Boltzmann weight of each set, its mirror image included, shape `(K,)`; sums to 1.
            By cooled replicas, see `weights`; `library_weights` where these have failed.
        weight_intervals: 95 % confidence intervals of the weights, shape `(K, 2)`; 0 and 1 where
            the replicas have failed.
        library_weights: the cheap estimate: `exp(-beta F)` summed over the candidates of each set,
            shape `(K,)`. Its error is not known.
        log_partition: ln Z of the model, by the cooled replicas; NaN where there were none.
        log_partition_error: its standard error; infinite where the replicas have failed.
        escape_times: mean time until trajectories leave the set, shape `(K,)`; infinite where none
            was seen to leave.
        intervals: 95 % confidence intervals of the escape times, shape `(K, 2)`.
        multiplicity: 2 where the row stands for a set and its mirror image, else 1; shape `(K,)`.
        representatives: the heaviest candidate of each set, a row of `library` and of
            `certificate`, shape `(K,)`.
        library: the candidates: minima of the functional that were given or found, lowest first;
            then single-flip minima of E at which none of these lies, m = ±1, as many as there
            was room for. They are no minima of the functional: their `kind` says so,
            their `curvatures` 0 and their free energies those of independent flips.
        certificate: what the dynamics makes of the candidates, with a row for each of them. It
            marks the representatives as `certificate.bound`.
        overlap_edges: edges of the bins of `overlaps`, from -1 to 1, shape `(bins + 1,)`.
        overlaps: P(q) of the metastable sets by their mean magnetizations, shape `(bins,)`; sums
            to 1.
        completeness: completeness of the quenches, that is of the minima of G; None where
            none was quenched, or the search had no room for all it found.
        flip_completeness: completeness of the zero-temperature descents, that is of single-flip
            minima of E; None where all of them ended on plateaus.
        n_flip_minima: number of different single-flip minima that the descents met, one of each
            pair of mirror images; no plateaus, unless there is nothing else.
        n_dropped: number of candidates, the highest, that were left out for lack of room.
        beta: inverse temperature.
    """

    _of_rows: ClassVar[str] = "weights"

    magnetizations: Float[np.ndarray, "K n"]
    weights: Float[np.ndarray, " K"]
    weight_intervals: Float[np.ndarray, "K 2"]
    library_weights: Float[np.ndarray, " K"]
    log_partition: float
    log_partition_error: float
    escape_times: Float[np.ndarray, " K"]
    intervals: Float[np.ndarray, "K 2"]
    multiplicity: Int[np.ndarray, " K"]
    representatives: Int[np.ndarray, " K"]
    library: Library
    certificate: Certificate
    overlap_edges: Float[np.ndarray, " edges"]
    overlaps: Float[np.ndarray, " bins"]
    completeness: Completeness | None
    flip_completeness: Completeness | None
    n_flip_minima: int
    n_dropped: int
    beta: float

    def __len__(self) -> int:
        return len(self.weights)

    def _table(self) -> Table:
        tested = f"{self.library.size} candidates"
        headline = (
            f"{self.certificate.count} bound states of {self.magnetizations.shape[1]} spins at "
            f"beta = {self.beta:g}, of {tested}; threshold {self.certificate.limit}"
        )
        weights = self.weight_intervals if self.weighed else np.full((len(self), 2), np.nan)
        columns = {
            "": list(map(str, range(len(self)))),
            "images": list(map(str, self.multiplicity)),
            "weight": list(map(number, self.weights)),
            "(95 %)": list(map(interval, weights)),
            "escape time": list(map(number, self.escape_times)),
            " (95 %)": list(map(interval, self.intervals)),
            "F": [f"{x:.6g}" for x in self.free_energies],
        }
        return Table(headline, columns)

    @property
    def state_of(self) -> Int[np.ndarray, " candidates"]:
        """The row of each candidate of `library`, shape `(candidates,)`."""
        return np.argsort(self.sets)[self.certificate.group]

    @property
    def sets(self) -> Int[np.ndarray, " K"]:
        """The number that `certificate.group` has for each set, shape `(K,)`."""
        return self.certificate.group[self.representatives]

    @property
    def free_energies(self) -> Float[np.ndarray, " K"]:
        """`-ln Z_a / beta` of each set, of one of two images, as the replicas have it, `(K,)`.

        NaN where they have failed, and infinite where they have met none.
        """
        return self._free_energies(self.weights)

    @property
    def free_energy_intervals(self) -> Float[np.ndarray, "K 2"]:
        """95 % confidence intervals of `free_energies`, shape `(K, 2)`."""
        ends = self._free_energies(self.weight_intervals[:, ::-1])
        return ends + _NORMAL * self.log_partition_error / self.beta * np.array([-1, 1])

    def _free_energies(self, weights: np.ndarray) -> np.ndarray:
        if not np.isfinite(self.log_partition_error):
            return np.full(weights.shape, np.nan)
        copies = self.multiplicity.reshape(-1, *(1,) * (weights.ndim - 1))
        with np.errstate(divide="ignore"):
            return -(self.log_partition + np.log(weights / copies)) / self.beta

    @property
    def library_free_energies(self) -> Float[np.ndarray, " K"]:
        """`-ln sum exp(-beta F) / beta` over the candidates of each set, of one of two images.

        The approximation to `free_energies`.
        """
        logs = np.full(len(self), -np.inf)
        of_candidates = np.log(self.library.multiplicity) - self.beta * self.library.free_energies
        np.logaddexp.at(logs, self.state_of, of_candidates)
        return (np.log(self.multiplicity) - logs) / self.beta

    @property
    def mirrored(self) -> bool:
        """Whether candidates stand for two mirror images each."""
        return bool(np.any(self.library.multiplicity == 2))

    @property
    def weighed(self) -> bool:
        """Whether the weights were sampled, with errors that are known."""
        return bool(np.isfinite(self.log_partition_error))

    @property
    def ergodic(self) -> bool:
        """Whether no candidate traps the dynamics for longer than the threshold."""
        return self.certificate.n_bound == 1

    @property
    def verdict(self) -> str:
        """What was found, in sentences: one paragraph a line."""
        parts = (_breaking(self), _trapping(self), _weight(self), _search(self), _unknown(self))
        return "\n".join(part for part in parts if part)


def _breaking(found: BoundStates) -> str:
    certificate, beta = found.certificate, f"{found.beta:g}"
    limit = certificate.limit
    if found.ergodic:
        size = found.library.size
        what = "the only candidate is" if size == 1 else f"all {size} candidates are"
        if certificate.count != "1":
            return (
                f"Ergodic or nearly so: at beta = {beta} there are {certificate.count} bound "
                f"states; the slowest exchange takes about as long as the threshold of {limit}."
            )
        return f"Ergodic: at beta = {beta} {what} one bound state; nothing traps for {limit}."
    pairs = int(np.sum(found.multiplicity == 2))
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
    rows = np.argsort(found.escape_times, kind="stable")
    if np.isinf(found.escape_times[rows[0]]):
        least = found.intervals[:, 0].min()
        return f"None was seen to be left: mean escape times exceed {least:.2g} sweeps (97.5 %)."
    first, last = _time(found, rows[0]), _time(found, rows[-1])
    if len(rows) == 1:
        return f"State {rows[0]} {first}."
    return f"The shortest-lived, state {rows[0]}, {first}; the longest-lived, {rows[-1]}, {last}."


def _time(found: BoundStates, k: int | np.integer) -> str:
    low, high = found.intervals[k]
    if np.isinf(found.escape_times[k]):
        return f"was never left: its mean escape time exceeds {low:.2g} sweeps (97.5 %)"
    return f"is left after {found.escape_times[k]:.3g} sweeps (95 %: {low:.3g} to {high:.3g})"


def _weight(found: BoundStates) -> str:
    if found.ergodic:
        return ""
    shares, paired = found.weights, found.multiplicity == 2
    sampled, named = found.weighed and len(found) > 1, []
    for k in range(min(_NAMED, len(found))):
        low, high = found.weight_intervals[k]
        within = f" ({low:.2g} to {high:.2g})" if sampled else ""
        image = " and its mirror image" if paired[k] else ""
        named.append(f"{shares[k]:.3g}{within} in state {k}{image}")
    rest = f", {shares[_NAMED:].sum():.2g} in all others" if len(shares) > _NAMED else ""
    each = np.repeat(shares / (1 + paired), 1 + paired)
    each = each[each > 0]
    number = np.exp(-np.sum(each * np.log(each)))
    how = "replicas that were cooled from infinite temperature, with 95 % intervals."
    if not found.weighed:
        why = "they were not sampled" if np.isnan(found.log_partition) else "sampling has failed"
        how = f"exp(-beta F), summed over the candidates of each state: {why}."
    return (
        f"Weight: {', '.join(named)}{rest}; as if {number:.3g} states were equally heavy. The "
        f"weights are by {how}"
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
    if not found.ergodic and not found.weighed:
        parts.append("the error of F, which is approximate, and with it that of the weights")
    return f"Not known: {'; '.join(parts)}."
