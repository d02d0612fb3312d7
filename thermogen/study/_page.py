"""The page of a study: one HTML file with its figures inside it."""

import base64
import functools
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from .. import plots
from .._solution import RESULTS
from ..landscape import disconnectivity_tree
from ..search import Kind, Library
from ._pipeline import STAGES, stages_of
from ._robustness import robustness
from ._study import ScanPoint, Study
from ._summary import fit_failed, summary

_BOUND_SHOWN = 12


class _Row(NamedTuple):
    """One line of the table of states."""

    thumbnail: str
    free_energy: float
    weight: float
    hits: int
    curvature: float
    onsager: float
    residual: float
    samples: int | None
    mirrored: bool
    standing: str  # by the certificate; empty where the state was not tested


class _Bound(NamedTuple):
    """One line of the table of bound states."""

    number: int
    candidate: int
    thumbnail: str
    weight: float
    weight_interval: tuple[float, ...]
    free_energy: float | None
    free_energy_interval: tuple[float, ...]
    library_free_energy: float
    mirrored: bool
    flip_minimum: bool
    escape_time: float
    interval: tuple[float, ...]
    samples: int | None
    reason: str


def render(study: Study) -> str:
    """The report as one self-contained HTML page: nothing in it points outside.

    Args:
        study: a finished study, or an interrupted one: the page then shows what there is and
            says what is missing.

    Returns:
        The text of the page.
    """
    figures = {**_data_figures(study), **_library_figures(study), **_dynamics_figures(study)}
    return _template().render(
        study=study,
        figures=summary(study),
        fit_converged=study.fit is not None and bool(study.fit.result == RESULTS.converged),
        fit_failed=fit_failed(study),
        images={name: _embedded(plots.figure_png(figure)) for name, figure in figures.items()},
        widths={name: round(96 * figure.get_figwidth()) for name, figure in figures.items()},
        rows=_rows(study),
        bound_states=_bound_states(study),
        gain=_gain(study),
        robustness=robustness(study),
        n_cues=None if study.recollection is None else len(study.recollection.truths),
        thumbnail_size=_thumbnail_size(study.source.picture),
        functional_name=_FUNCTIONAL_NAMES[study.settings.functional],
        missing=[
            title for name, (title, _) in stages_of(study).items() if name not in study.finished
        ],
        stages=[
            (title, study.seconds[name])
            for name, (title, _) in STAGES.items()
            if name in study.seconds
        ],
    )


_FUNCTIONAL_NAMES = {"tap": "TAP", "naive": "naive mean field"}


def _data_figures(study: Study) -> dict[str, plots.Figure]:
    source = study.source
    figures = {"samples": plots.samples_figure(source.spins, source.picture, source.labels)}
    if study.fit is not None and len(study.fit.history):
        figures["learning"] = plots.learning_figure(study.fit.history)
    if study.scan:
        curves = {
            _FUNCTIONAL_NAMES[name]: _curve([p for p in study.scan if p.functional == name])
            for name in dict.fromkeys(point.functional for point in study.scan)
        }
        library = study.library
        chosen = None if library is None else (study.settings.beta, library.size)
        figures["scan"] = plots.scan_figure(curves, chosen)
    return figures


def _curve(points: list[ScanPoint]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = ([p.beta for p in points], [p.n_states for p in points], [p.overflow for p in points])
    betas, counts, full = map(np.array, columns)
    return betas, counts, full


def _library_figures(study: Study) -> dict[str, plots.Figure]:
    library, assignment = study.library, study.assignment()
    if library is None or library.size == 0:
        return {}
    shown = slice(min(library.size, plots.MAX_SHOWN))
    figures = {
        "states": plots.states_figure(
            np.asarray(library.magnetizations)[shown],
            np.asarray(library.free_energies)[shown],
            np.asarray(library.weights(study.settings.beta))[shown],
            np.asarray(library.hits)[shown],
            np.asarray(library.curvatures)[shown],
            study.source.picture,
        )
    }
    if assignment is not None:
        labels = study.source.labels
        figures["occupation"] = plots.occupation_figure(assignment, library.size, labels)
    return figures


def _dynamics_figures(study: Study) -> dict[str, plots.Figure]:
    figures, picture = {}, study.source.picture
    if study.bound_states is not None:
        found = study.bound_states
        figures["overlaps"] = plots.overlaps_figure(found.overlap_edges, found.overlaps)
    if study.barriers is not None and study.library is not None:
        held = study.library[: len(study.barriers.heights)]
        free_energies = np.asarray(held.free_energies)
        tree = disconnectivity_tree(free_energies, study.barriers.heights)
        # A strip stands upright below its line.
        shape = picture if picture[0] > 1 else picture[::-1]
        pictures = held.magnetizations.reshape(-1, *shape)
        figures["tree"] = plots.disconnectivity_figure(tree, pictures=pictures)
    if study.recollection is not None:
        figures["recall"] = plots.recall_figure(*study.recollection[:5], picture)
    return figures


def _bound_states(study: Study) -> list[_Bound]:
    """The heaviest bound states, as the certificate sees them."""
    found, picture = study.bound_states, study.source.picture
    if found is None:
        return []
    samples = study.samples_of_bound()
    return [
        _Bound(
            number=k,
            candidate=int(candidate),
            thumbnail=_thumbnail(found.library, candidate, picture),
            weight=float(found.weights[k]),
            weight_interval=tuple(found.weight_intervals[k].tolist()),
            free_energy=float(found.free_energies[k]) if found.weighed else None,
            free_energy_interval=tuple(found.free_energy_intervals[k].tolist()),
            library_free_energy=float(found.library_free_energies[k]),
            mirrored=bool(found.multiplicity[k] == 2),
            flip_minimum=bool(found.library.kind[candidate] == Kind.FLIP_MINIMUM),
            escape_time=float(found.escape_times[k]),
            interval=(float(found.intervals[k, 0]), float(found.intervals[k, 1])),
            samples=None if samples is None else int(samples[k]),
            reason=found.certificate.reason(int(candidate)),
        )
        for k, candidate in enumerate(found.representatives[:_BOUND_SHOWN])
    ]


def _gain(study: Study) -> tuple[float, float, float] | None:
    """What the experts gain: lower end of the 95 % interval, mean, upper end."""
    if study.comparison is None:
        return None
    gain, width = study.comparison.gain, 1.96 * study.comparison.error
    return gain - width, gain, gain + width


def _standing(study: Study, k: int) -> str:
    """What the certificate makes of candidate k of the library, in a few words."""
    found = study.bound_states
    tested = (
        found is not None and k < found.library.size and found.library.kind[k] != Kind.FLIP_MINIMUM
    )
    if found is None or not tested:
        return ""
    own = found.certificate.bound[k]
    return f"{'' if own else 'part of '}bound state {found.state_of[k]}"


def _rows(study: Study) -> list[_Row]:
    library, assignment = study.library, study.assignment()
    if library is None:
        return []
    weights = np.asarray(library.weights(study.settings.beta))
    ratios = study.onsager_ratios()
    assert ratios is not None
    return [
        _Row(
            thumbnail=_thumbnail(library, k, study.source.picture),
            free_energy=float(library.free_energies[k]),
            weight=float(weights[k]),
            hits=int(library.hits[k]),
            curvature=float(library.curvatures[k]),
            onsager=float(ratios[k]),
            residual=float(library.residuals[k]),
            samples=None if assignment is None else int(np.sum(assignment == k)),
            mirrored=int(library.multiplicity[k]) == 2,
            standing=_standing(study, k),
        )
        for k in range(min(library.size, plots.MAX_SHOWN))
    ]


def _thumbnail(library: Library, k: int | np.integer, picture: tuple[int, int]) -> str:
    magnetizations = np.asarray(library.magnetizations[k])
    return _embedded(plots.thumbnail_png(magnetizations, picture))


def _thumbnail_size(picture: tuple[int, int]) -> tuple[int, int]:
    """Width and height in CSS pixels."""
    rows, columns = picture
    return (56, 56) if rows > 1 else (min(16 * columns, 320), 16)


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _percent(share: float | None) -> str:
    """A share that never rounds up to 100 %."""
    if share is None:
        return "–"
    text = f"{100 * share:.1f}"
    return f"{'> 99.9' if text == '100.0' and share < 1 else text.removesuffix('.0')} %"


def _scientific(value: float | None) -> str | Markup:
    if value is None:
        return "–"
    mantissa, exponent = f"{value:.1e}".split("e")
    return Markup(f"{mantissa} × 10<sup>{int(exponent)}</sup>".replace("-", "−")) if value else "0"


def _significant(value: float | None, digits: int = 3) -> str:
    if value is not None and np.isinf(value):
        return "∞"
    return "–" if value is None else f"{value:.{digits}g}".replace("-", "−")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thermogen", "study"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, scientific=_scientific, significant=_significant)
    return environment.get_template("page.html.jinja")
