"""The certificate, from what trajectories met."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ._certificate import Certificate
from ._cores import Cores, Entries, Seen
from ._exchange import (
    apart,
    departures,
    escape_times,
    exchange_rates,
    fold,
    inner_times,
    passages,
    shares,
)
from ._sets import Exchange, count_interval, metastable_sets

# Trajectories are looked at this often within the threshold, ...
LOOKS = 10
# ... and sets are told apart after a lag of so many thresholds: what relaxes in half of one has
# then decayed to 2 %, what takes two of them still stands at 37 %.
LAG = 2
# Within half a threshold trajectories from a core show how far it reaches.
_EARLY = LOOKS // 2
# After one threshold trajectories have forgotten where in a set they started: the exchange counts
# from then on, until so many looks, ...
EXCHANGED = (1 + LAG) * LOOKS
# ... except from labels that hold a smaller share by then than if they were sets: `exp(-1)`.
_HELD = 0.25


class _Rows(NamedTuple):
    """What is found of each start by itself."""

    left: Int[np.ndarray, " starts"]
    risk: Float[np.ndarray, " starts"]
    inner: Float[np.ndarray, " starts"]
    exchange: Float[np.ndarray, "starts labels"]
    escapes: Float[np.ndarray, "starts labels"]


class Evidence(NamedTuple):
    """What trajectories met, by the numbers of the cores that stand for others.

    Attributes:
        seen: those from the cores, mirror images included, and from disordered states.
        exchanged: the same and perhaps more of them, until the exchange has been seen once.
        passing: a few from each core that is merely passed.
    """

    seen: Seen
    exchanged: Seen
    passing: Seen

    def with_more(self, exchanged: Seen) -> "Evidence":
        """With more trajectories from the cores and disordered states."""
        return self._replace(exchanged=self.exchanged.joined(exchanged))

    def with_far(self, cuts: Float[np.ndarray, " cores"]) -> "Evidence":
        """With a label of its own, the last, for all that is farther from a core than its cut."""

        def marked(x: Seen) -> Seen:
            return x._replace(labels=np.where(x.nearness < cuts[x.labels], len(cuts), x.labels))

        return Evidence(*map(marked, self))


def judge(
    evidence: Evidence,
    given: Entries,
    interval: float,
    threshold: float,
    dynamics: str,
) -> Certificate:
    """The certificate, from trajectories looked at every `interval` sweeps.

    Args:
        evidence: the trajectories.
        given: what was to be certified.
        interval: sweeps from look to look.
        threshold: in sweeps.
        dynamics: name of the kernel.
    """
    cores, looks = given.cores, LAG * LOOKS
    evidence, sets, relaxation_times, cuts = _sets(evidence, cores, interval, threshold)
    seen, exchanged, passing = evidence
    n_cores, n_labels, lag = len(cores.spins), len(sets), looks * interval
    images = cores.images(n_labels)
    home = _homes(exchanged.labels, sets, n_cores, given.disordered)
    rows = _rows(seen, exchanged, sets, home, interval)
    if len(given.passed):
        goals = sets[given.place[given.passed]]
        others = _rows(passing, passing, sets, goals, interval)
        rows = _Rows(*(np.concatenate(x) for x in zip(rows, others, strict=True)))
        home = np.append(home, goals)
    times, intervals = escape_times(rows.left, rows.risk)
    rates = exchange_rates(seen.labels[:, :, looks - 1 :], sets, interval, images)
    low, high = count_interval(_exchange(evidence, cores, n_labels, interval), threshold)
    # Columns are the entries of the cores, and after them the first disordered one if it counts.
    entry = np.append(given.entry, np.flatnonzero(given.disordered)[: n_labels - n_cores])
    reach = np.concatenate(
        [cuts, -np.ones(given.disordered.sum()), cuts[given.place[given.passed]]]
    )
    parts = _groups(rows.exchange, sets, home, given.row, entry, images if cores.mirrored else None)
    return Certificate(
        escape_times=given.fill(times[given.row], 0),
        intervals=given.fill(intervals[given.row], 0),
        n_escapes=given.fill(rows.left[given.row], 0),
        exposures=given.fill(rows.risk[given.row], 0),
        inner_times=given.fill(rows.inner[given.row], 0),
        group=given.fill(parts.group, -1),
        bound=given.fill(parts.bound, False),
        multiplicity=given.fill(parts.multiplicity, 1),
        side=given.fill(parts.side, 1),
        occupations=given.table(rows.exchange, entry),
        escapes=given.table(rows.escapes, entry),
        cores=given.fill(given.bottoms, 0),
        same_core=given.fill(np.flatnonzero(given.mask)[given.same_core], -1),
        disordered=given.fill(given.disordered, False),
        reach=given.fill(reach[given.row], -1),
        relaxation_times=relaxation_times,
        rates=rates[np.ix_(parts.order, parts.order)],
        threshold=threshold,
        lag=lag,
        dynamics=dynamics,
        n_bound_interval=(min(low, len(rates)), max(high, len(rates))),
    )


def _rows(
    seen: Seen,
    exchanged: Seen,
    sets: Int[np.ndarray, " labels"],
    home: Int[np.ndarray, " starts"],
    interval: float,
) -> _Rows:
    looks = LAG * LOOKS
    leaving = departures(seen.labels, sets, home[:, None], interval)
    left, risk = leaving.left.sum(axis=1), leaving.times.sum(axis=1)
    inner = inner_times(seen.overlaps[..., :looks], leaving, interval)
    exchange = shares(exchanged.labels[..., looks - 1], len(sets))
    return _Rows(left, risk, inner, exchange, shares(leaving.to, len(sets), leaving.left))


def _homes(
    labels: Int[np.ndarray, "starts trajectories times"],
    sets: Int[np.ndarray, " labels"],
    n_cores: int,
    disordered: Bool[np.ndarray, " states"],
) -> Int[np.ndarray, " starts"]:
    """The set of each start: that of its core; of draws their own, or where most of them are."""
    if len(sets) > n_cores:
        settled = np.full(disordered.sum(), sets[-1])
    else:
        ends = sets[labels[n_cores:, :, LAG * LOOKS - 1]]
        settled = np.array([np.bincount(x).argmax() for x in ends], int)
    return np.concatenate([sets[:n_cores], settled])


class _Groups(NamedTuple):
    """Sets with the numbers by which candidates name them, for each of these but `order`."""

    group: Int[np.ndarray, " states"]
    bound: Bool[np.ndarray, " states"]
    multiplicity: Int[np.ndarray, " states"]
    side: Int[np.ndarray, " states"]
    order: Int[np.ndarray, " sets"]  # by their numbers, a set before its mirror image


def _groups(
    exchange: Float[np.ndarray, "starts labels"],
    sets: Int[np.ndarray, " labels"],
    home: Int[np.ndarray, " starts"],
    row: Int[np.ndarray, " states"],
    entry: Int[np.ndarray, " labels"],
    images: Int[np.ndarray, " labels"] | None,
) -> _Groups:
    own = home[row]
    number = _numbers(fold(sets, np.arange(len(sets)) if images is None else images), own)
    group = number[own]
    visits = np.zeros((len(number), len(row)))
    np.add.at(visits, (number[home][:, None], entry[None, :]), exchange)
    bound = _representatives(group, np.where(np.isin(np.arange(len(row)), entry), visits, -1))
    leading = np.isin(np.arange(len(number)), own[bound])
    side = np.where(leading[own], 1, -1)
    return _Groups(group, bound, np.bincount(number)[group], side, np.lexsort((~leading, number)))


def _sets(
    evidence: Evidence, cores: Cores, interval: float, threshold: float
) -> tuple[Evidence, np.ndarray, np.ndarray, np.ndarray]:
    """The evidence by their best labels, the set of each label, relaxation times, cuts of `apart`.

    With disordered starts there may be one label more than cores: for being far from all of
    them. It stands if more sets are told apart with it. Labels can only hide slow processes, so
    that those which show more of them are the better ones (Djurdjevac, Sarich and Schütte,
    Multiscale Model. Simul. 10, 61 (2012)).
    """
    n_cores = len(cores.spins)

    def told(by: Evidence, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
        return metastable_sets(_exchange(by, cores, n_labels, interval), threshold)

    sets, times = told(evidence, n_cores)
    plain = evidence, sets, times, np.full(n_cores, -1.0)
    if len(evidence.seen.labels) == n_cores:
        return plain
    cuts = apart(evidence.seen.labels, evidence.seen.nearness, n_cores, _EARLY)
    # Noise must not tell images apart.
    cuts = 0.5 * (cuts + cuts[cores.images(n_cores)])
    finer = evidence.with_far(cuts)
    finer_sets, finer_times = told(finer, n_cores + 1)
    more = finer_sets.max() > sets.max()
    return (finer, finer_sets, finer_times, cuts) if more else plain


def _exchange(evidence: Evidence, cores: Cores, n_labels: int, interval: float) -> Exchange:
    """The exchange after the lag between so many labels."""
    looks = LAG * LOOKS
    early, late = (_counts(evidence, len(cores.spins), n_labels, k) for k in (looks // 2, looks))
    return Exchange(early, late, looks * interval, cores.images(n_labels))


def _counts(
    evidence: Evidence, n_cores: int, n_labels: int, looks: int
) -> Int[np.ndarray, "labels labels"]:
    """How many trajectories with each label have each label so many looks later.

    They count from when they have been under way for a threshold, and those that are observed for
    longer again after each lag. Labels that hold few by then are passed: these rows are counted
    from the start. Disordered starts, the rows after those of the cores, stand for the label beyond
    these.
    """
    labels = evidence.exchanged.labels
    counts = passages(labels[..., LOOKS - 1], labels[..., LOOKS + looks - 1], n_labels)
    n_times = evidence.seen.labels.shape[-1]
    for k in range(EXCHANGED, n_times - LAG * LOOKS + 1, LAG * LOOKS):
        now, later = (evidence.seen.labels[..., x - 1] for x in (k, k + looks))
        counts += passages(now, later, n_labels)
    ends = labels[: None if n_labels > n_cores else n_cores, :, looks - 1]
    begun = np.minimum(np.arange(len(ends)), n_cores)
    started = passages(np.broadcast_to(begun[:, None], ends.shape), ends, n_labels)
    few = counts.sum(axis=1) < _HELD * started.sum(axis=1)
    return np.where(few[:, None], started, counts)


def _numbers(orbits: Int[np.ndarray, " sets"], homes: Int[np.ndarray, " states"]) -> np.ndarray:
    """Number of each set in the order in which states name them; mirror images share one."""
    _, firsts = np.unique(orbits[homes], return_index=True)
    return np.argsort(np.argsort(firsts))[orbits]


def _representatives(
    group: Int[np.ndarray, " states"], visits: Float[np.ndarray, "groups states"]
) -> Bool[np.ndarray, " states"]:
    """The state of each group in which the trajectories of the group are most often."""
    bound = np.zeros(len(group), bool)
    for g, counts in enumerate(visits[: group.max() + 1]):
        bound[np.argmax(np.where(group == g, counts, -2))] = True
    return bound
