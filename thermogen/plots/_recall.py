"""The picture of recall: what was shown, what the model answered, what it was."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ._pictures import _MAP, _bare, _cells, _mosaic, _spin_ticks, few, room_for
from ._style import GRID, WIDTH, styled

_PICTURES, _STRIPS = 12, 16
_NAMED = 16  # spins with names below one of four panels
_HIDDEN = 2.0  # beyond the scale of magnetizations: drawn in grey
_MAP_WITH_HIDDEN = _MAP.with_extremes(over=GRID)


@styled
def recall_figure(
    truths: np.ndarray,
    known: np.ndarray,
    answers: np.ndarray,
    probabilities: np.ndarray,
    means: np.ndarray,
    picture: tuple[int, int],
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """Cue, answers and truth of the first few samples; hidden spins of a cue are grey.

    Args:
        truths: the samples, shape `(cues, n)`.
        known: True for the spins that were shown, shape `(n,)`, the same for all cues.
        answers: the most probable configurations, shape `(cues, n)`; 0 for no answer.
        probabilities: probability of each answer given its cue, shape `(cues,)`.
        means: mean of each spin given the cue, shape `(cues, n)`.
        picture: rows and columns of one sample; `(1, n)` is drawn as a strip.
        names: names of the spins, which a strip of at most 16 shows.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        truths, known = np.ones((2, 4)), np.array([True, True, False, False])

        assert plots.recall_figure(truths, known, truths, np.ones(2), truths, (2, 2)).axes
        ```
    """
    cues = np.where(known, truths, _HIDDEN)
    panels = {"cue": cues, "most probable": answers, "mean": means, "truth": truths}
    if picture[0] == 1:
        return _strips(panels, probabilities, few(names, _NAMED))
    return _pictures(panels, probabilities, picture)


def _pictures(panels, probabilities: np.ndarray, picture: tuple[int, int]) -> Figure:
    """One row of pictures for each panel, one column for each cue."""
    height, width = picture
    count = min(len(probabilities), _PICTURES)
    tiles = _mosaic([rows[:count] for rows in panels.values()], count, picture)
    side = min(WIDTH / tiles.shape[1], 1.0 / width)
    size = (max(side * tiles.shape[1] + 1.1, WIDTH / 2), side * tiles.shape[0] + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiles, cmap=_MAP_WITH_HIDDEN, vmin=-1, vmax=1, interpolation="none")
    _bare(axes)
    centres = np.arange(len(panels)) * (height + 1) + height / 2 - 0.5
    axes.set_yticks(centres, list(panels))
    columns = np.arange(count) * (width + 1) + width / 2 - 0.5
    axes.set_xticks(columns, [f"{p:.2g}" for p in probabilities[:count]], fontsize=7.5)
    axes.set_xlabel("probability of the most probable answer")
    axes.set_title("Recall of samples of which a part is hidden")
    return figure


def _strips(panels, probabilities: np.ndarray, names: Sequence[str] | None) -> Figure:
    """One panel beside the other, one row for each cue."""
    count, n_spins = min(len(probabilities), _STRIPS), panels["truth"].shape[1]
    figure = Figure(figsize=(WIDTH, 0.19 * count + 1.15 + room_for(names)), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, rows) in zip(every, panels.items(), strict=True):
        _cells(axes, rows[:count], _MAP_WITH_HIDDEN)
        _spin_ticks(axes, "x", n_spins, names)
        axes.tick_params(length=0)
        axes.set_title(name)
        axes.set_xlabel("spin")
    texts = [f"{p:.2g}" for p in probabilities[:count]]
    every[0].set_yticks(np.arange(count) + 0.5, texts, fontsize=7.5)
    every[0].set_ylabel("probability of the answer")
    return figure
