"""Kinetic certificates: which candidates trap heat-bath dynamics, and which are one bound state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Num

from .._batches import cast
from .._checks import check_count, check_finite, checked_beta
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, is_flip_symmetric
from ..search import Library
from ._exchange import (
    apart,
    count_interval,
    departures,
    escape_times,
    exchange_rates,
    fold,
    inner_times,
    metastable_sets,
    shares,
)
from ._trajectories import Cores, Observations, descend_all, prepared, run, starts_of

# Trajectories are looked at this often within the threshold, ...
_LOOKS = 10
# ... and sets are told apart after a lag of so many thresholds: what relaxes in half of one has
# then decayed to 2 %, what takes two of them still stands at 37 %.
_LAG = 2
# A candidate of a smaller root-mean-square magnetization is no configuration that dynamics
# could come back to, but the ensemble of those far from all cores.
_DISORDERED = 0.2
# Within half a threshold trajectories from a core show how far it reaches.
_EARLY = _LOOKS // 2


class Certificate(eqx.Module):
    """What heat-bath dynamics makes of K candidate states. All times are in sweeps.

    Candidates that exchange faster than the threshold form one metastable set. The number of
    sets, mirror images counted, is one plus the number of `relaxation_times` above it, but for
    slow processes of an even energy that part no set from its mirror image.

    Attributes:
        escape_times: mean time until trajectories from a state leave its set, shape `(K,)`;
            infinite where none was seen to leave, 0 for unused entries.
        intervals: 95 % confidence intervals of the escape times, shape `(K, 2)`.
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
            state, and the first stands for all entries of the same core.
        cores: int8 configuration at the bottom of a zero-temperature descent from the signs of m,
            shape `(K, n)`; 0 for unused entries.
        same_core: the first entry of the same core, shape `(K,)`; -1 for unused entries.
        disordered: states without magnetization, which have no core; shape `(K,)`. Where their
            trajectories keep away from all cores, they are a set: what is far from every core.
        relaxation_times: of the exchange between cores, mirror images counted, longest first,
            shape `(cores - 1,)`; infinite if no exchange was seen. Below about 0.7 thresholds
            they are lost in the noise of few trajectories.
        rates: of exchange between sets, per sweep, rows sum to 0, shape `(sets, sets)`; in the
            order of their numbers, a set before its mirror image.
        threshold: the sets are those that exchange more slowly than this.
        lag: time after which the sets are told apart, twice the threshold.
        n_bound_interval: least and largest number of sets that the errors of the exchange leave
            open (95 %); more than one where a relaxation time is close to the threshold.
    """

    escape_times: Float[np.ndarray, " K"]
    intervals: Float[np.ndarray, "K 2"]
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
    relaxation_times: Float[np.ndarray, " processes"]
    rates: Float[np.ndarray, "sets sets"]
    threshold: float
    lag: float
    n_bound_interval: tuple[int, int] | None = None

    @property
    def n_bound(self) -> int:
        """Number of bound states, mirror images counted."""
        return len(self.rates)

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
        return (
            f"{part}: they exchange faster than {self.threshold:g} sweeps; after "
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
    return f"candidate{'' if len(rows) == 1 else 's'} {', '.join(map(str, rows))}"


@from_anywhere
def certify(
    energy: AbstractEnergy,
    beta: Beta,
    candidates: Library | Num[Array | np.ndarray, "K n"],
    *,
    key: Key,
    threshold: float | int,
    n_trajectories: int = 256,
    horizon: int = 10,
) -> Certificate:
    """Prove by single-spin-flip dynamics which candidates are bound states.

    Heat-bath trajectories start from the core of each state: the single-flip minimum of E below
    the signs of its magnetizations. Later configurations belong to the core that they
    descend to, or that is nearest to it. The eigenvalues of the exchange after twice the
    threshold count the metastable sets, and its leading eigenvectors tell which cores share one
    (PCCA: Deuflhard and Weber, Linear Algebra Appl. 398, 161 (2005)). A disordered state, such as
    a paramagnet beside ordered states at a first-order transition, starts from draws of its product
    measure, and configurations far from the core below them belong to it, where that shows one
    set more. The escape from a set is an exponential law, fitted with censoring. Errors of the
    exchange are about `1/sqrt(n_trajectories)`; a relaxation time within a factor of about 1.5 of
    the threshold may be taken for one on the other side.

    Args:
        energy: any energy of n spins, a mixture of experts included.
        beta: inverse temperature, > 0.
        candidates: a `Library`, whose states of multiplicity 2 stand for two, or
            magnetizations or spins of shape `(K, n)`. Disordered states, of a root-mean-square
            magnetization below 0.2, are one set at most, and belong to where most of their
            trajectories go if they are none.
        key: random key; equal keys give equal certificates.
        threshold: time that a bound state must trap the dynamics, in sweeps of n random-site
            steps, the clock of `thermogen.exact.relaxation_times`.
        n_trajectories: number of trajectories from each core, at least 16.
        horizon: length of the trajectories in units of the threshold, at least 3. Longer ones
            narrow the intervals of escape times beyond.

    Returns:
        A `Certificate` of NumPy arrays.

    Raises:
        ValueError: for candidates of wrong shape or range, an empty library, or a beta,
            threshold or count out of range.
    """
    magnetizations, mask, mirrored = _candidates(candidates, energy.n_spins)
    check_finite("threshold", threshold, positive=True)
    n_trajectories = check_count("n_trajectories", n_trajectories, 16)
    horizon = check_count("horizon", horizon, 3)
    if threshold * energy.n_spins < _LOOKS:
        raise ValueError(
            f"threshold must be at least {_LOOKS / energy.n_spins:g} sweeps for {energy.n_spins} "
            f"spins, got {threshold}"
        )
    stride = round(energy.n_spins * threshold / _LOOKS)
    with jax.enable_x64(True):
        model, beta = prepared(energy), checked_beta(beta, jnp.float64)
        used = magnetizations[mask]
        disordered = np.sqrt(np.mean(used**2, axis=1)) < _DISORDERED
        if disordered.all():
            disordered[:] = False
        bottoms = descend_all(model, used)
        even = bool(is_flip_symmetric(cast(energy, jnp.float64)))
        cores = Cores.of(bottoms[~disordered], mirrored, even)
        draw_key, run_key = jax.random.split(key)
        starts = starts_of(cores, used[disordered], n_trajectories, draw_key)
        seen = run(model, beta, cores, starts, stride, run_key, horizon * _LOOKS)
    return _judge(seen, cores, bottoms, disordered, mask, stride / energy.n_spins, threshold)


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


def _judge(
    seen: Observations,
    cores: Cores,
    bottoms: Int8[np.ndarray, "states n"],
    disordered: Bool[np.ndarray, " states"],
    mask: Bool[np.ndarray, " K"],
    interval: float,
    threshold: float | int,
) -> Certificate:
    """The certificate, from trajectories looked at every `interval` sweeps."""
    n_cores, looks = len(cores.spins), _LAG * _LOOKS
    labels, overlaps, nearness = cores.with_images(seen)
    labels, sets, relaxation_times = _sets(labels, nearness, cores, interval, threshold)
    n_labels = len(sets)
    images = cores.images(n_labels)
    exchange = shares(labels[..., looks - 1], n_labels)
    if n_labels > n_cores:
        settled = np.full(disordered.sum(), sets[-1])
    else:
        ends = sets[labels[n_cores:, :, looks - 1]]
        settled = np.array([np.bincount(x).argmax() for x in ends], int)
    home = np.concatenate([sets[:n_cores], settled])
    leaving = departures(labels, sets, home[:, None], interval)
    times, intervals = escape_times(leaving)
    rates = exchange_rates(labels[:, :, looks - 1 :], sets, interval, images)
    early, late = (_exchange(labels, n_cores, n_labels, k) for k in (looks // 2, looks))
    lag = looks * interval
    low, high = count_interval(early, late, lag, labels.shape[1], threshold, images)

    # Entries in use have a row of observations each: that of their core, or of their own draws.
    row = np.zeros(len(disordered), int)
    row[~disordered] = cores.find(bottoms[~disordered])
    row[disordered] = n_cores + np.arange(disordered.sum())
    # Columns are the entries of the cores, and after them the first disordered one if it counts.
    entry = cores.entries(row, np.flatnonzero(~disordered))
    entry = np.append(entry, np.flatnonzero(disordered)[: n_labels - n_cores])
    folded = images if cores.mirrored else np.arange(n_labels)
    number = _numbers(fold(sets, folded), home[row])
    group = number[home[row]]
    visits = np.zeros((len(number), len(row)))
    np.add.at(visits, (number[home][:, None], entry[None, :]), exchange)
    bound = _representatives(group, np.where(np.isin(np.arange(len(row)), entry), visits, -1))
    leading = np.isin(np.arange(len(number)), home[row[bound]])
    # A set comes before its mirror image.
    order = np.lexsort((~leading, number))

    places = np.flatnonzero(mask)
    same_core = np.where(disordered, np.arange(len(row)), entry[row % n_cores])

    def fill(values: np.ndarray, unused: int) -> np.ndarray:
        """Values of the entries in use, spread over all."""
        filled = np.full((len(mask), *values.shape[1:]), unused, values.dtype)
        filled[places] = values
        return filled

    def table(values: np.ndarray) -> np.ndarray:
        """Columns of cores added up to those of entries, both spread over all entries."""
        filled = np.zeros((len(mask), len(mask)))
        np.add.at(filled, (places[:, None], places[entry][None, :]), values[row])
        return filled

    return Certificate(
        escape_times=fill(times[row], 0),
        intervals=fill(intervals[row], 0),
        inner_times=fill(inner_times(overlaps[..., :looks], leaving, interval)[row], 0),
        group=fill(group, -1),
        bound=fill(bound, False),
        multiplicity=fill(np.bincount(number)[group], 1),
        side=fill(np.where(leading[home[row]], 1, -1), 1),
        occupations=table(exchange),
        escapes=table(shares(leaving.to, n_labels, leaving.left)),
        cores=fill(bottoms, 0),
        same_core=fill(places[same_core], -1),
        disordered=fill(disordered, False),
        relaxation_times=relaxation_times,
        rates=rates[np.ix_(order, order)],
        threshold=float(threshold),
        lag=lag,
        n_bound_interval=(min(low, len(rates)), max(high, len(rates))),
    )


def _sets(
    labels: Int[np.ndarray, "starts trajectories times"],
    nearness: Float[np.ndarray, "starts trajectories times"],
    cores: Cores,
    interval: float,
    threshold: float | int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of the trajectories, the metastable set of each label, and relaxation times.

    With disordered starts there may be one label more than cores: for being far from all of
    them. It stands if more sets are told apart with it. Labels can only hide slow processes, so
    that those which show more of them are the better ones (Djurdjevac, Sarich and Schütte,
    Multiscale Model. Simul. 10, 61 (2012)).
    """
    n_cores, looks = len(cores.spins), _LAG * _LOOKS
    lag = looks * interval
    exchange = _exchange(labels[:n_cores], n_cores, n_cores, looks)
    sets, times = metastable_sets(exchange, lag, threshold, cores.images(n_cores))
    if len(labels) == n_cores:
        return labels, sets, times
    finer = apart(labels, nearness, n_cores, _EARLY)
    exchange = _exchange(finer, n_cores, n_cores + 1, looks)
    finer_sets, finer_times = metastable_sets(exchange, lag, threshold, cores.images(n_cores + 1))
    more = finer_sets.max() > sets.max()
    return (finer, finer_sets, finer_times) if more else (labels, sets, times)


def _exchange(
    labels: Int[np.ndarray, "starts trajectories times"], n_cores: int, n_labels: int, looks: int
) -> Float[np.ndarray, "labels labels"]:
    """Share of the trajectories from each label that have each label after so many looks.

    Disordered starts, the rows after those of the cores, stand for the label beyond these.
    """
    exchange = shares(labels[..., looks - 1], n_labels)
    beyond = exchange[n_cores:].mean(axis=0, keepdims=True) if n_labels > n_cores else exchange[:0]
    return np.concatenate([exchange[:n_cores], beyond])


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
