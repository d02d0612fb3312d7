"""What the dynamics makes of candidates, as arrays and in sentences."""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from .._shown import Shown, Table, interval, number


class Certificate(Shown):
    """What heat-bath dynamics makes of K candidate states. All times are in sweeps.

    Candidates that exchange faster than the threshold form one metastable set. The number of
    sets, mirror images counted, is one plus the number of `relaxation_times` above it, but for
    slow processes of an even energy that part no set from its mirror image.

    Attributes:
        escape_times: mean time until trajectories from a state leave its set, shape `(K,)`;
            infinite where none was seen to leave, 0 for unused entries.
        intervals: 95 % confidence intervals of the escape times, shape `(K, 2)`.
        n_escapes: number of the trajectories from a state that left its set, shape `(K,)`. Entries
            of one core count the same trajectories.
        exposures: time that all of them together spent in the set before, in sweeps, shape `(K,)`.
        inner_times: time in which trajectories forget their start within the set, shape `(K,)`.
        group: metastable set of each state, 0 for that of the first; -1 for unused entries.
            Sets that are mirror images of each other have one number, shape `(K,)`.
        bound: True for one representative of each set, the state where its trajectories are
            found most often, shape `(K,)`.
        multiplicity: 2 if the set of the state and its mirror image are two sets that share a
            number, else 1; shape `(K,)`.
        side: +1 for a state in the first of two such sets, in the order of `rates`, -1 for one in
            the second, whose image is in the first; else 1, shape `(K,)`.
        occupations: share of the trajectories from i that are with j after `lag`, `(K, K)`. What
            is with no core counts for the first disordered state, if these are a set.
        escapes: share of those that left the set of i which went to j, `(K, K)`; rows of
            states that were not seen to be left are 0. In both tables an image counts as its
            state, the first stands for all entries of the same core, and what is with a core that
            is merely passed counts for that to which most go from there: its column is 0.
        cores: int8 configuration at the bottom of a zero-temperature descent from the signs of m,
            shape `(K, n)`; 0 for unused entries.
        same_core: the first entry of the same core, shape `(K,)`; -1 for unused entries.
        disordered: states without magnetization, which have no core; shape `(K,)`. Where their
            trajectories keep away from all cores, they are a set: what is far from every core.
        reach: overlap with the core of each state below which a configuration counts as far from
            it, shape `(K,)`; -1 where nothing does.
        relaxation_times: of the exchange between cores, mirror images counted, longest first,
            shape `(cores - 1,)`; infinite if no exchange was seen. Below about 0.7 thresholds
            they are lost in the noise of few trajectories.
        rates: of exchange between sets, per sweep, rows sum to 0, shape `(sets, sets)`; in the
            order of their numbers, a set before its mirror image.
        threshold: the sets are those that exchange more slowly than this.
        lag: time after which the sets are told apart, twice the threshold.
        dynamics: the kernel whose sweeps the times count.
        n_bound_interval: least and largest number of sets that the errors of the exchange leave
            open (95 %); more than one where a relaxation time is close to the threshold.
    """

    _of_rows: ClassVar[str] = "group"

    escape_times: Float[np.ndarray, " K"]
    intervals: Float[np.ndarray, "K 2"]
    n_escapes: Int[np.ndarray, " K"]
    exposures: Float[np.ndarray, " K"]
    inner_times: Float[np.ndarray, " K"]
    group: Int[np.ndarray, " K"]
    bound: Bool[np.ndarray, " K"]
    multiplicity: Int[np.ndarray, " K"]
    side: Int[np.ndarray, " K"]
    occupations: Float[np.ndarray, "K K"]
    escapes: Float[np.ndarray, "K K"]
    cores: Int8[np.ndarray, "K n"]
    same_core: Int[np.ndarray, " K"]
    disordered: Bool[np.ndarray, " K"]
    reach: Float[np.ndarray, " K"]
    relaxation_times: Float[np.ndarray, " processes"]
    rates: Float[np.ndarray, "sets sets"]
    threshold: float
    lag: float
    dynamics: str = eqx.field(default="HeatBath", static=True)
    n_bound_interval: tuple[int, int] | None = None

    def _table(self) -> Table:
        used = np.flatnonzero(self.group >= 0)
        headline = (
            f"{self.count} bound states among {len(used)} candidates of {self.cores.shape[1]} "
            f"spins; threshold {self.limit}"
        )
        columns = {
            "": [str(k) for k in used],
            "set": [str(group) for group in self.group[used]],
            "escape time": list(map(number, self.escape_times[used])),
            "(95 %)": list(map(interval, self.intervals[used])),
            "bound": ["yes" if bound else "" for bound in self.bound[used]],
        }
        return Table(headline, columns)

    @property
    def settled(self) -> bool:
        """Whether the errors of the exchange leave one number of sets."""
        low, high = self.n_bound_interval or (self.n_bound, self.n_bound)
        return low == high

    @property
    def n_bound(self) -> int:
        """Number of bound states, mirror images counted."""
        return len(self.rates)

    @property
    def distinct(self) -> Int[np.ndarray, " cores"]:
        """The first state of each core."""
        own = self.same_core == np.arange(len(self.same_core))
        return np.flatnonzero(own & ~self.disordered)

    @property
    def limit(self) -> str:
        """The threshold in words: in sweeps, of which kernel if it is not the heat bath."""
        of = "" if self.dynamics == "HeatBath" else f" of {self.dynamics}"
        return f"{self.threshold:g} sweeps{of}"

    @property
    def count(self) -> str:
        """The number of bound states in words, such as "2 or 3" where the threshold decides."""
        low, high = self.n_bound_interval or (self.n_bound, self.n_bound)
        between = "or" if high == low + 1 else "to"
        return str(low) if low == high else f"{low} {between} {high}"

    def reason(self, k: int) -> str:
        """Why candidate k is a bound state of its own, or part of another."""
        if self.group[k] < 0:
            return "unused entry"
        if self.bound[k]:
            return self._reason_of_its_own(k)
        first = int(np.argmax(self.bound & (self.group == self.group[k])))
        part = f"part of candidate {first}"
        if self.disordered[k]:
            share = self.occupations[k][self.group == self.group[k]].sum()
            return (
                f"{part}: it has no magnetization, and {share:.0%} of its trajectories settle there"
            )
        if self.same_core[k] != k:
            return f"{part}: it descends to the same configuration as candidate {self.same_core[k]}"
        own, first_own = self.occupations[k, k], self.occupations[k, first]
        if not self.occupations[:, k].any():
            return (
                f"{part}: trajectories merely pass it; after {self.lag:g} sweeps {first_own:.0%} "
                f"are with {first}"
            )
        return (
            f"{part}: they exchange faster than {self.limit}; after "
            f"{self.lag:g} sweeps {own:.0%} of its trajectories are with it, {first_own:.0%} "
            f"with {first}"
        )

    def _reason_of_its_own(self, k: int) -> str:
        image = " (and its mirror image)" if self.multiplicity[k] == 2 else ""
        others = np.flatnonzero((self.group == self.group[k]) & ~self.bound)
        merged = f", with {_listed(others)} in it" if others.size else ""
        if self.n_bound == 1:
            why = "everything exchanges within the threshold" if merged else "there is no other"
            return f"the only bound state{merged}: {why}"
        low, high = self.intervals[k]
        time = self.escape_times[k]
        left = f"is left after {time:.3g} sweeps" if np.isfinite(time) else "was never left"
        kind = "disordered bound state" if self.disordered[k] else "bound state"
        return f"{kind}{image}{merged}: it {left} (95 %: {low:.3g} to {high:.3g})" + (
            f", mostly for {self._goal(k)}" if self.escapes[k].any() else ""
        )

    def _goal(self, k: int) -> str:
        goal = int(np.argmax(self.escapes[k]))
        own = self.group[goal] == self.group[k]
        return "its mirror image" if own else f"candidate {goal}"


def _listed(rows: np.ndarray) -> str:
    """The numbers of candidates, three and more in a row as a range."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"candidate{'' if len(rows) == 1 else 's'} {', '.join(parts)}"
