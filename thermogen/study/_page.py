"""The page of a study: one HTML file with its figures, style and script inside it."""

import functools

import jinja2

from ..learning import RESULTS
from ..sampling import is_summed
from . import _tables, _words
from ._figures import FUNCTIONALS, drawings, knows_loss
from ._model import kind_of
from ._pipeline import STAGES, stages_of
from ._robustness import robustness
from ._study import Study
from ._summary import fit_failed, summary
from ._svg import inline


def render(study: Study) -> str:
    """The report as one self-contained HTML page: nothing in it points outside.

    Args:
        study: a finished study, or an interrupted one: the page then shows what there is and
            says what is missing.

    Returns:
        The text of the page.

    !!! example

        ```python
        from thermogen import study

        source = study.load_source("adder:2")
        settings = study.Settings(beta=1.0)

        assert study.render(study.Study(source, settings)).startswith("<!doctype html>")
        ```
    """
    return _template().render(
        study=study,
        figures=summary(study),
        fit_converged=study.fit is not None
        and any(bool(study.fit.result == code) for code in (RESULTS.converged, RESULTS.completed)),
        knows_loss=study.fit is not None and knows_loss(study),
        fit_failed=fit_failed(study),
        model_kind=None if study.fit is None else kind_of(study.energy),
        images={name: inline(figure, name, alt) for name, figure, alt in drawings(study)},
        rows=_tables.states(study),
        bound_states=_tables.bound_states(study),
        partition=_tables.partition(study),
        gain=_gain(study),
        is_summed=study.comparison is not None and is_summed(study.energy),
        robustness=robustness(study),
        n_cues=None if study.recollection is None else len(study.recollection.truths),
        thumbnail_size=_tables.thumbnail_size(study.source.picture),
        functional_name=FUNCTIONALS[study.settings.functional],
        missing=[
            title for name, (title, _) in stages_of(study).items() if name not in study.finished
        ],
        stages=[
            (title, study.seconds[name])
            for name, (title, _) in STAGES.items()
            if name in study.seconds
        ],
    )


def _gain(study: Study) -> tuple[float, float, float] | None:
    """What the experts gain: lower end of the 95 % interval, mean, upper end."""
    if study.comparison is None:
        return None
    gain, width = study.comparison.gain, 1.96 * study.comparison.error
    return gain - width, gain, gain + width


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("thermogen", "study/page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (_words.percent, _words.scientific, _words.significant, _words.interval):
        environment.filters[filter_.__name__] = filter_
    return environment.get_template("page.jinja")
