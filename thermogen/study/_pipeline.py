"""The main job, stage by stage: from data to states, their dynamics, and what they recall."""

import contextlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .. import _signals
from ..energies import Pairwise
from ..learning import FitResult, Pseudolikelihood, choose_l2, default_l2, fit
from ..runs import Devices, Folder, Place, holding
from ..search import Library, find_minima, quench
from ._dynamics import climb, diagnose
from ._measure import measure
from ._progress import Tell
from ._recall import recollect
from ._remedy import compare
from ._robustness import vary
from ._study import Functional, ScanPoint, Study

# The scan shows a trend, so it takes fewer samples and starts than the search at the chosen beta.
_SCAN_FACTORS = np.geomspace(0.3, 2.0, 8)
_SCAN_SAMPLES = 256
_SCAN_STARTS = 192
_CAPACITY = 1024
_QUENCH_CHUNK = 1024
# Cross-validation: in five parts, in two where there are many samples; none where they are few.
_FOLDS, _MANY_SAMPLES, _LEAST_JUDGES = 5, 1000, 10


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
        with holding(checkpoint):
            for name, (title, stage) in stages_of(study).items():
                if name in study.finished:
                    continue
                started = time.perf_counter()
                try:
                    with _signals.interruptible(), progress(title) as tell:
                        stage(study, _listening(tell), place.at(name))
                finally:
                    study.seconds[name] = time.perf_counter() - started
                study.finished.append(name)
                on_stage(study)
    except BaseException as error:
        # Deep inside another library a signal may turn into any other error.
        if not isinstance(error, KeyboardInterrupt) and not _signals.caught():
            raise
        study.interrupted = True


def stages_of(study: Study) -> "dict[str, tuple[str, Callable[[Study, Tell, Place], None]]]":
    """The stages that a study goes through; later tasks leave to the first what does not add up."""
    if study.settings.task == 0:
        return STAGES
    return {name: STAGES[name] for name in ("choose", "learn", "quench", "search", "certify")}


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
    if settings.l2 is not None:
        study.l2 = settings.l2
    elif len(source.spins) < _LEAST_JUDGES:
        study.l2 = float(default_l2(source.spins.shape[1], len(source.spins)))
    else:
        study.ridge = choose_l2(
            _without_couplings(study),
            source.spins,
            key=study.key(0),
            weights=source.weights,
            n_folds=_FOLDS if len(source.spins) < _MANY_SAMPLES else 2,
            seed=settings.seed,
            **place.options(),
        )
        study.l2 = study.ridge.l2
    tell(1, 1, f"{study.l2:.3g} nats a sample")


def _without_couplings(study: Study) -> Pairwise:
    n_spins = study.source.spins.shape[1]
    return Pairwise(jnp.zeros((n_spins, n_spins)), jnp.zeros(n_spins))


def _learn(study: Study, tell: Tell, place: Place) -> None:
    assert study.l2 is not None

    def keep(partial: FitResult) -> None:
        study.fit = partial
        tell(len(partial.history), None, f"{len(partial.history)} steps, {_loss(partial)}")

    study.fit = fit(
        Pseudolikelihood(study.l2),
        _without_couplings(study),
        study.source.spins,
        key=study.key(0),
        weights=study.source.weights,
        callback=keep,
        **place.options(),
    )


def _loss(result: FitResult) -> str:
    return f"loss {result.history[-1]:.4f}" if len(result.history) else "no step yet"


def _scan(study: Study, tell: Tell, place: Place) -> None:
    """A scan from hot to cold for every functional, from data and the states found before."""
    spins, settings = study.source.spins, study.settings
    draw = np.random.default_rng(settings.seed)
    chosen = draw.choice(len(spins), min(_SCAN_SAMPLES, len(spins)), replace=False)
    starts = spins[chosen].astype(float)
    points = [(name, float(settings.beta * f)) for name in Functional for f in _SCAN_FACTORS]
    held, study.scan = starts[:0], []
    for index, (name, beta) in enumerate(points):
        library = find_minima(
            name.free_energy,
            study.energy,
            beta,
            key=jax.random.fold_in(study.key(1), index),
            n_starts=min(_SCAN_STARTS, settings.n_starts),
            capacity=_CAPACITY,
            starts=np.concatenate([starts, held]),
            **place.options(index),
        )
        held = np.asarray(library.magnetizations)
        coverage, overflow = library.coverage(), bool(library.overflow)
        study.scan.append(ScanPoint(name.value, beta, library.size, coverage, overflow))
        tell(index + 1, len(points), f"{name.value}: {_count(library)} at beta = {beta:.3g}")


def _quench_data(study: Study, tell: Tell, place: Place) -> None:
    spins = study.source.spins
    parts = []
    for first in range(0, len(spins), _QUENCH_CHUNK):
        chunk = spins[first : first + _QUENCH_CHUNK]
        parts.append(
            quench(study.settings.functional.free_energy, study.energy, study.settings.beta, chunk)
        )
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
    study.library = find_minima(
        study.settings.functional.free_energy,
        study.energy,
        settings.beta,
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
    "learn": ("Learning the couplings", _learn),
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


def _count(library: Library) -> str:
    return f"{library.size} state{'' if library.size == 1 else 's'}"
