"""The stage of a study that asks which bound states hang on the penalty, or on the draw of data."""

import numpy as np

from ..kinetics import BoundStates
from ..learning import RESULTS, fit
from ..runs import Place
from ..search import find_minima, quench
from ._beside import factorising
from ._dynamics import bound_states, some_samples
from ._learning import points, way_to_learn
from ._progress import Tell
from ._study import Study, Variation

_STRONGER = 10
_RESAMPLES = 2
_RESTS = RESULTS.converged, RESULTS.completed  # the regular ends of a fit
# Asked is what becomes of the states that were found, and how many there are: a few starts of each
# kind do beside those states, the shortest trajectories, and no weights.
_STARTS = 64
_SHORT = {"n_descents": _STARTS, "horizon": 3, "n_populations": 0}
# Starts near the solution: what is not there by then has no minimum.
_MOST_STEPS = 400


def vary(study: Study, tell: Tell, place: Place) -> None:
    """Learn again without the ridge, with ten times as much, and from resampled data."""
    found, l2 = study.bound_states, study.l2
    assert found is not None and l2 is not None
    source = study.source
    draw = np.random.default_rng(study.settings.seed)
    count = len(source.spins)
    even = np.ones(count)
    plan = [("without the ridge", 0.0, even), ("with ten times the ridge", _STRONGER * l2, even)]
    for _ in range(_RESAMPLES):
        rows = draw.choice(count, count)
        plan.append(("on resampled data", l2, np.bincount(rows, minlength=count).astype(float)))
    study.variations = []
    for index, (what, strength, counts) in enumerate(plan):
        tell(index, len(plan), what)
        study.variations.append(_variation(study, what, strength, counts, place.at(index)))
    tell(len(plan), len(plan), _numbers(study.variations))


def _variation(study: Study, what: str, l2: float, counts: np.ndarray, place: Place) -> Variation:
    settings, found = study.settings, study.bound_states
    assert found is not None
    objective, penalty = way_to_learn(study, study.energy, l2)
    learned = fit(
        objective,
        study.energy,
        study.source.spins,
        key=study.key(6),
        weights=counts * study.source.shares(),
        penalty=penalty,
        n_steps=_MOST_STEPS,
        **place.options("fit"),
    )
    functional = settings.functional.free_energy
    states = np.asarray(found.library.magnetizations)[found.representatives]
    with factorising:
        minima = find_minima(
            functional,
            learned.energy,
            study.beta,
            key=study.key(7),
            n_starts=min(_STARTS, settings.n_starts),
            starts=np.concatenate([states, points(study, some_samples(study))]),
            **place.options("search"),
        )
        ends = quench(functional, learned.energy, study.beta, states)
    varied = bound_states(study, learned.energy, minima, place.at("states"), **_SHORT)
    return Variation(what, varied.certificate.count, _kept(varied, ends.value), learned.result)


def _kept(varied: BoundStates, ends: np.ndarray) -> np.ndarray:
    """Which of the states, the heaviest first, are still apart from all heavier ones."""
    index = varied.library.nearest(ends)
    group = np.where(index < 0, -1, varied.certificate.group[index])
    return np.array([g >= 0 and g not in group[:k] for k, g in enumerate(group)], bool)


def robustness(study: Study) -> str:
    """What the bound states hang on, in sentences: one paragraph a line; empty if not known."""
    found = study.bound_states
    if found is None or not study.variations:
        return ""
    count = found.certificate.count
    own = f"{count} bound state{'' if count == '1' else 's'}"
    lines = [f"As learned the model has {own}; {_numbers(study.variations)}."]
    samples = study.samples_of_bound()
    alike: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
    for k in range(len(found)):
        lost = tuple(dict.fromkeys(v.what for v in study.variations if not v.kept[k]))
        empty = samples is not None and bool(samples[k] == 0)
        if lost or empty:
            alike.setdefault((empty, lost), []).append(k)
    return "\n".join(lines + [_fate(states, *fate) for fate, states in alike.items()])


def _fate(states: list[int], empty: bool, lost: tuple[str, ...]) -> str:
    """What becomes of bound states that share it, in a sentence."""
    one = len(states) == 1
    who = f"State{'' if one else 's'} {_and(_runs(states))}"
    none = f"hold{'s' if one else ''} no sample"
    if not lost:
        return f"{who} {none}, and {'is' if one else 'are'} kept however the model is learned."
    what = "is no bound state of its own" if one else "are no bound states of their own"
    it = "it for a product" if one else "them for products"
    doubt = f": take {it} of the learning, not of the data" if empty else ""
    return f"{who} {none + ' and ' if empty else ''}{what} {_and(list(lost))}{doubt}."


def _runs(numbers: list[int]) -> list[str]:
    """Rising numbers, three and more in a row as `first to last`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [[f"{r[0]} to {r[-1]}"] if len(r) > 2 else list(map(str, r)) for r in runs]
    return [word for group in words for word in group]


def _numbers(variations: list[Variation]) -> str:
    """The number of bound states for each way of learning."""
    parts = []
    for what in dict.fromkeys(v.what for v in variations):
        alike = [v for v in variations if v.what == what]
        settled = all(any(bool(v.fit_result == end) for end in _RESTS) for v in alike)
        counts = _and([v.bound for v in alike])
        parts.append(f"{counts} {what}{'' if settled else ' (where the fit found no rest)'}")
    return ", ".join(parts)


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
