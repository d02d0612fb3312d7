"""The main job, stage by stage: from data to states, their dynamics, and what they recall."""

import contextlib
import time
from collections.abc import Callable

import jax
import numpy as np

from .. import _signals
from ..learning import FitResult, RidgeChoice, can_be_summed, choose_l2, default_l2, fit
from ..runs import Devices, Folder, Place, holding
from ..search import Library, find_minima, quench
from ._beside import Beside, factorising
from ._dynamics import climb, diagnose
from ._fill import fill
from ._judge import can_judge, choose_by_likelihood, judge
from ._learning import points, start, way_to_learn
from ._measure import measure
from ._progress import Tell
from ._recall import recollect
from ._remedy import compare
from ._robustness import vary
from ._settings import Functional, Objective
from ._study import ScanPoint, Study

# The scan shows a trend, so it takes fewer samples and starts than the search at the chosen beta.
_SCAN_FACTORS = np.geomspace(0.3, 2.0, 8)
_SCAN_SAMPLES = 256
_SCAN_STARTS = 192
_CAPACITY = 1024
_QUENCH_CHUNK = 1024
# Cross-validation: in five parts, in two where there are many samples.
_FOLDS, _MANY_SAMPLES = 5, 1000


def run_study(
    study: Study,
    *,
    progress: Callable[[str], contextlib.AbstractContextManager[Tell]],
    on_stage: Callable[[Study], object],
    checkpoint: Folder = None,
    sharding: Devices = None,
) -> None:
    """Fill a study, stage by stage: those of `STAGES`, in that order, that it has not finished.

    A `KeyboardInterrupt` ends it early and leaves in the study what was found until then. Such a
    study, or one that was loaded, goes on from its last finished stage.

    Args:
        study: the study; it is modified.
        progress: opens the display of one stage, see `thermogen.study.progress`.
        on_stage: called after every finished stage, for example to write what is there.
        checkpoint: folder where what takes long within the stages is stored, and where it goes on
            from if it was cut short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the work is spread: a mesh, or a sharding by its first axis.

    Raises:
        ValueError: for a checkpoint that another run holds, or left its states in.
        OSError: where the checkpoint cannot be written to.
    """
    study.interrupted = False
    place = Place(checkpoint, sharding)
    try:
        with holding(checkpoint), Beside() as beside:
            for name, (title, stage) in stages_of(study).items():
                if name in study.finished:
                    continue
                if sharding is None and name not in _AT_FIRST:
                    _begin_beside(beside, study, place)
                started = time.perf_counter()
                own: float | None = None
                try:
                    with _signals.interruptible(), progress(title) as tell:
                        own = beside.finish(name, tell)
                        if own is None:
                            stage(study, _listening(tell), place.at(name))
                finally:
                    study.seconds[name] = own or time.perf_counter() - started
                study.finished.append(name)
                on_stage(study)
    except BaseException as error:
        # Deep inside another library a signal may turn into any other error.
        if not isinstance(error, KeyboardInterrupt) and not _signals.caught():
            raise
        study.interrupted = True


def _begin_beside(beside: Beside, study: Study, place: Place) -> None:
    """What needs the model and the data alone.

    Programs that several processes share must come in one order.
    """
    for name in _BESIDE:
        if name in stages_of(study) and name not in study.finished:
            beside.begin(name, STAGES[name][1], study, place.at(name))


def stages_of(study: Study) -> "dict[str, tuple[str, Callable[[Study, Tell, Place], None]]]":
    """The stages that a study goes through.

    Later tasks leave to the first what does not add up, and a model that was given is not learned.
    """
    names = list(STAGES)
    if study.settings.task:
        names = ["choose", "judge", "learn", "fill", "quench", "search", "certify"]
    left_out = (_ANEW if study.given else ()) + (_MORE if study.settings.quick else ())
    left_out += () if study.source.has_gaps else ("fill",)
    return {name: STAGES[name] for name in names if name not in left_out}


def _listening(tell: Tell) -> Tell:
    """Between the parts of a stage, a signal is obeyed that was swallowed where it struck."""

    def telling(done: int, total: int | None, note: str) -> None:
        _signals.check()
        tell(done, total, note)

    return telling


def _choose(study: Study, tell: Tell, place: Place) -> None:
    """The ridge that predicts held-out samples best; with a few samples, the default."""
    source, settings = study.source, study.settings
    tell(0, None, "")
    note = ""
    if settings.l2 is not None:
        study.l2 = settings.l2
    elif not can_judge(study) or not _can_be_tried(study):
        study.l2 = float(default_l2(source.spins.shape[1], source.size))
        note = ", the default: samples are few, or have many gaps"
    else:
        choose = choose_by_likelihood if settings.way is Objective.likelihood else _cross_validated
        study.ridge = choose(study, place)
        study.l2 = study.ridge.l2
    tell(1, 1, f"{study.l2:.3g} nats a sample{note}")


def _can_be_tried(study: Study) -> bool:
    """Whether what is missing can be summed out, for many fits."""
    spins = study.source.spins
    energy = start(study, spins, study.source.shares())
    gaps = int(np.max(np.sum(spins == 0, axis=1)))
    return gaps == 0 or can_be_summed(energy, len(spins), gaps)


def _cross_validated(study: Study, place: Place) -> RidgeChoice:
    source = study.source
    return choose_l2(
        start(study, source.spins, source.shares()),
        source.spins,
        key=study.key(0),
        weights=source.weights,
        n_folds=_FOLDS if len(source.spins) < _MANY_SAMPLES else 2,
        seed=study.settings.seed,
        **place.options(),
    )


def _learn(study: Study, tell: Tell, place: Place) -> None:
    assert study.l2 is not None

    def keep(partial: FitResult) -> None:
        study.fit = partial
        count = len(partial.history)
        # The loss of persistent chains means nothing.
        loss = f", {_loss(partial)}" if objective.defaults.gradient_tolerance else ""
        tell(count, None, f"{count} steps{loss}")

    source = study.source
    energy = start(study, source.spins, source.shares())
    objective, penalty = way_to_learn(study, energy, study.l2)
    study.fit = fit(
        objective,
        energy,
        source.spins,
        key=study.key(0),
        weights=source.weights,
        penalty=penalty,
        callback=keep,
        **place.options(),
    )


def _loss(result: FitResult) -> str:
    return f"loss {result.history[-1]:.4f}" if len(result.history) else "no step yet"


def _scan(study: Study, tell: Tell, place: Place) -> None:
    """A scan from hot to cold for every functional, from the states found before and from data."""
    spins, settings = study.samples, study.settings
    draw = np.random.default_rng(settings.seed)
    chosen = draw.choice(len(spins), min(_SCAN_SAMPLES, len(spins)), replace=False)
    samples = points(study, spins[chosen])
    betas = [(name, float(study.beta * f)) for name in Functional for f in _SCAN_FACTORS]
    held, study.scan = samples[:0], []
    for index, (name, beta) in enumerate(betas):
        # Always as many, so that all searches share a program.
        starts = np.resize(np.concatenate([held, samples]), (_SCAN_SAMPLES, samples.shape[1]))
        with factorising:
            library = find_minima(
                name.free_energy,
                study.energy,
                beta,
                key=jax.random.fold_in(study.key(1), index),
                n_starts=min(_SCAN_STARTS, settings.n_starts),
                capacity=_CAPACITY,
                starts=starts,
                **place.options(index),
            )
        held = np.asarray(library.magnetizations)
        coverage, overflow = library.coverage(), bool(library.overflow)
        study.scan.append(ScanPoint(name.value, beta, library.size, coverage, overflow))
        tell(index + 1, len(betas), f"{name.value}: {_count(library)} at beta = {beta:.3g}")


def _quench_data(study: Study, tell: Tell, place: Place) -> None:
    spins = study.samples
    parts = []
    for first in range(0, len(spins), _QUENCH_CHUNK):
        chunk = points(study, spins[first : first + _QUENCH_CHUNK])
        with factorising:
            functional = study.settings.functional.free_energy
            parts.append(quench(functional, study.energy, study.beta, chunk))
        done = first + len(chunk)
        tell(done, len(spins), f"{done} of {len(spins)} samples")
    study.minima = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _search(study: Study, tell: Tell, place: Place) -> None:
    """The data enter as the minima they fell to, so that no sample is quenched twice at length."""
    settings = study.settings

    def keep(library: Library, done: int) -> None:
        study.library = library
        tell(done, settings.n_starts, f"{_count(library)} after {done} starts")

    assert study.minima is not None
    with factorising:
        study.library = find_minima(
            settings.functional.free_energy,
            study.energy,
            study.beta,
            key=study.key(2),
            n_starts=settings.n_starts,
            capacity=_CAPACITY,
            starts=study.minima.value[study.verified()],
            callback=keep,
            **place.options(),
        )


# Name, title and function of each stage, in the order in which they run.
STAGES: dict[str, tuple[str, Callable[[Study, Tell, Place], None]]] = {
    "choose": ("Choosing the ridge", _choose),
    "judge": ("Judging by held-out samples", judge),
    "learn": ("Learning the couplings", _learn),
    "fill": ("Filling what is missing", fill),
    "quench": ("Quenching the data", _quench_data),
    "search": ("Searching for bound states", _search),
    "certify": ("Testing what traps the dynamics", diagnose),
    "vary": ("Learning in other ways", vary),
    "climb": ("Climbing the barriers", climb),
    "recall": ("Recalling samples", recollect),
    "measure": ("Measuring the model", measure),
    "scan": ("Scanning the temperature", _scan),
    "experts": ("Comparing with experts", compare),
}
# What comes before any stage may run beside others, and those that do, one after the other.
_AT_FIRST = "choose", "judge", "learn", "fill"
_BESIDE = "experts", "recall", "measure", "scan"
# Those that learn, and what a quick study leaves out.
_ANEW = "choose", "learn", "vary", "experts"
_MORE = "vary", "scan", "experts"


def _count(library: Library) -> str:
    return f"{library.size} state{'' if library.size == 1 else 's'}"
