"""The figures of a study, ready for JSON."""

import importlib.metadata
import math
from typing import Any

import numpy as np

from .._version import VERSION
from ..kinetics import BoundStates
from ..landscape import TRANSITIONS, Barriers
from ..learning import RESULTS, FitResult
from ..search import Kind, Library
from ._measure import of_data
from ._study import Comparison, HeldOut, Recollection, Study, Variation

_FIT_FAILED = "The fit failed, so that nothing is known about the data. Of the model as it is:"


def summary(study: Study) -> dict[str, Any]:
    """All figures of a study, ready for JSON: what is not known yet, or not finite, is None.

    Energies, free energies, residuals and curvatures share the unit in which the couplings were
    learned; beta is its inverse; times are in seconds.

    !!! example

        ```python
        from thermogen import study

        source = study.load_source("adder:2")
        found = study.summary(study.Study(source, study.Settings(beta=1.0)))

        assert found["beta"] in (None, 1.0)
        ```
    """
    n_samples, n_spins = study.source.spins.shape
    verified = study.verified()
    return {
        "version": version(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        "command": study.command or None,
        "data": study.source.name,
        "n_spins": n_spins,
        "n_samples": n_samples,
        "names": None if study.source.names is None else list(study.source.names),
        "classes": None if study.source.classes is None else list(study.source.classes),
        "weighted": study.source.weights is not None,
        "model": study.settings.model,
        "given": study.given,
        "objective": None if study.given else study.settings.way.value,
        "beta": study.beta,
        "beta_chosen": study.settings.beta is None and not study.given,
        "functional": study.settings.functional.value,
        "l2": study.l2,
        "l2_chosen": study.settings.l2 is None and not study.given,
        "held_out": _held_out_figures(study.held_out),
        "n_starts": study.settings.n_starts,
        "threshold": study.settings.threshold,
        "seed": study.settings.seed,
        "task": study.settings.task,
        **_fit_figures(study.fit),
        "fit_failed": None if study.fit is None else fit_failed(study),
        "scan": [{**p._asdict(), "coverage": finite(p.coverage)} for p in study.scan],
        "share_of_data_verified": None if verified is None else float(verified.mean()),
        **_library_figures(study.library),
        "onsager_ratio": _lowest_ratio(study),
        **_bound_state_figures(study),
        "robustness": [_variation_figures(v) for v in study.variations],
        "n_saddles": None if study.barriers is None else int(np.sum(_is_saddle(study.barriers))),
        **_recall_figures(study.recollection),
        **_moment_figures(study),
        "comparison": _comparison_figures(study.comparison),
        "interrupted": study.interrupted,
        "stages_finished": study.finished,
        "seconds": {stage: round(seconds, 3) for stage, seconds in study.seconds.items()},
    }


def _held_out_figures(judged: HeldOut | None) -> dict[str, Any] | None:
    """In nats per sample; the learning curve is on the page."""
    if judged is None:
        return None
    names = (
        "n_samples",
        "log_likelihood",
        "error",
        "log_partition_error",
        "independent",
        "best_beta",
        "best_beta_error",
    )
    return {name: finite(getattr(judged, name)) for name in names}


def _fit_figures(result: FitResult | None) -> dict[str, Any]:
    if result is None:
        return {"fit_loss": None, "fit_steps": None, "fit_result": None}
    steps = len(result.history)
    return {
        "fit_loss": finite(float(result.history[-1])) if steps else None,
        "fit_steps": steps,
        "fit_result": RESULTS[result.result],
    }


def _library_figures(library: Library | None) -> dict[str, Any]:
    names = ("n_states", "coverage", "max_residual", "min_curvature", "overflow")
    if library is None:
        return dict.fromkeys(names)
    found = library.size > 0
    figures = (
        library.size,
        finite(library.coverage()),
        float(np.max(library.residuals)) if found else None,
        float(np.min(library.curvatures)) if found else None,
        bool(library.overflow),
    )
    return dict(zip(names, figures, strict=True))


def fit_failed(study: Study) -> bool:
    """Whether a fit that came to its end missed the model that was asked for."""
    if study.fit is None or "learn" not in study.finished:
        return False
    # Where single precision ends, the model is the right one as far as that can tell; and chains
    # take all of their steps.
    right = RESULTS.converged, RESULTS.precision_limit, RESULTS.completed
    return not any(bool(study.fit.result == code) for code in right)


def _bound_state_figures(study: Study) -> dict[str, Any]:
    found, samples = study.bound_states, study.samples_of_bound()
    of_data = not fit_failed(study)  # of another model no verdict holds
    if found is None:
        names = ("ergodic", "n_bound", "n_bound_interval", "bound_states", "verdict")
        return dict.fromkeys(names)
    return {
        "ergodic": found.ergodic if of_data else None,
        "n_bound": found.certificate.n_bound,
        "n_bound_interval": found.certificate.n_bound_interval,
        "bound_states": [
            {
                **_bound_state(found, k),
                "samples": None if samples is None else int(samples[k]),
            }
            for k in range(len(found))
        ],
        "verdict": found.verdict if of_data else f"{_FIT_FAILED} {found.verdict}",
    }


def _bound_state(found: BoundStates, k: int) -> dict[str, Any]:
    """Bound state k; times in sweeps, None for infinite ones."""
    candidate = int(found.representatives[k])
    return {
        "state": k,
        "candidate": candidate,
        "weight": float(found.weights[k]),
        "weight_interval": found.weight_intervals[k].tolist(),
        "free_energy": finite(found.free_energies[k]),
        "free_energy_interval": [finite(end) for end in found.free_energy_intervals[k]],
        "library_free_energy": finite(found.library_free_energies[k]),
        "escape_time": finite(found.escape_times[k]),
        "escape_interval": [finite(time) for time in found.intervals[k]],
        "multiplicity": int(found.multiplicity[k]),
        "single_flip_minimum": bool(found.library.kind[candidate] == Kind.FLIP_MINIMUM),
        "reason": found.certificate.reason(candidate),
    }


def _variation_figures(variation: Variation) -> dict[str, Any]:
    return {
        "learned": variation.what,
        "bound": variation.bound,
        "kept": np.flatnonzero(variation.kept).tolist(),
        "fit_result": RESULTS[variation.fit_result],
    }


def _is_saddle(found: Barriers) -> np.ndarray:
    return np.asarray(found.result == TRANSITIONS.converged)


def _recall_figures(recalled: Recollection | None) -> dict[str, Any]:
    if recalled is None:
        return dict.fromkeys(("recall_exact", "recall_accuracy", "recall_guess"))
    return {
        "recall_exact": recalled.exact,
        "recall_accuracy": recalled.accuracy,
        "recall_guess": recalled.guess,
    }


def _moment_figures(study: Study) -> dict[str, Any]:
    """ln Z where it is exact, and how far the model's correlations are from those of the data."""
    found, names = study.moments, ("log_partition_exact", "correlation_deviation")
    if found is None:
        return dict.fromkeys(names)
    pairs = np.triu_indices(len(found.means), 1)
    off = found.pairs[pairs] - of_data(study.source)[1][pairs]
    known = len(off) > 0 and np.isfinite(found.error)
    deviation = finite(float(np.sqrt(np.mean(off**2)))) if known else None
    return dict(zip(names, (finite(found.log_partition), deviation), strict=True))


def _comparison_figures(compared: Comparison | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    figures = {name: finite(value) for name, value in compared.one._asdict().items()}
    of_experts = {name: finite(value) for name, value in compared.experts._asdict().items()}
    return {
        "one": figures,
        "experts": of_experts,
        "gain": finite(compared.gain),
        "gain_error": finite(compared.error),
        "n_held_out": compared.n_held_out,
        "objective": compared.objective,
    }


def _lowest_ratio(study: Study) -> float | None:
    """The Onsager ratio of the state of lowest free energy."""
    ratios = study.onsager_ratios()
    if ratios is None or study.library is None or study.library.size == 0:
        return None
    return finite(ratios[0])


def finite(value: float | int) -> float | int | None:
    """Numbers that JSON knows; whole ones stay whole."""
    if not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


def version() -> str:
    """Version of the package that runs."""
    return VERSION
