"""A learned model as figures: its couplings, its strongest interactions, how well it fits."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from ._pictures import _cells, _spin_ticks, few, room_for
from ._style import ACCENT, INK, MUTED, WIDTH, styled

_PLUS = "#3b73b0"
# Clear at 0 and of middle lightness elsewhere, so that it shows on light and on dark.
_SIGNED = LinearSegmentedColormap.from_list(
    "couplings",
    [(0, "#a8410a"), (0.35, "#b8643899"), (0.5, "#80808000"), (0.65, "#4d7fbc99"), (1, "#1f5fa8")],
)
_MOST_EDGES = 160
_NAMED = 40  # spins that have room for their names on a circle


@styled
def couplings_figure(
    couplings: np.ndarray,
    fields: np.ndarray,
    labels: tuple[str, str] = ("spin", "spin"),
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """Couplings as a matrix of colours, and the fields below them.

    Args:
        couplings: in energy units, shape `(rows, columns)`: symmetric with spins on both sides, or
            the weights between two layers.
        fields: field on each column, in energy units, shape `(columns,)`.
        labels: what rows and columns are.
        names: names of the columns, and of rows that are the same; shown if they are at most 40.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        assert plots.couplings_figure(np.eye(3), np.zeros(3)).axes
        ```
    """
    names = few(names)
    rows, columns = couplings.shape
    height = float(np.clip(WIDTH / 2 * rows / columns, 1.2, 5)) + 1.4
    size = (WIDTH / 2 + 0.4, height + room_for(names))
    figure = Figure(figsize=size, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(height - 1.6, 0.7))
    most = float(np.abs(couplings).max(initial=0)) or 1.0
    _cells(above, couplings, _SIGNED, most)
    figure.colorbar(above.images[0], ax=above, shrink=0.85, aspect=24).outline.set_visible(False)
    _spin_ticks(above, "y", rows, names if labels[0] == labels[1] else None)
    _spin_ticks(below, "x", columns, names)
    above.tick_params(length=0, labelbottom=False)
    above.set(ylabel=labels[0])
    above.set_title("Couplings")
    colours = [_PLUS if field > 0 else ACCENT for field in fields]
    below.bar(np.arange(columns) + 0.5, fields, width=0.8, color=colours)
    below.axhline(0, color=MUTED, linewidth=0.7)
    below.locator_params(axis="y", nbins=3)
    below.set(xlabel=labels[1], ylabel="field")
    return figure


@styled
def interactions_figure(
    couplings: np.ndarray, picture: tuple[int, int], *, n_edges: int | None = None
) -> Figure:
    """The strongest pair couplings as a graph, each spin in its place of the picture.

    Spins of a strip stand on a circle. Lines are wider where the coupling is stronger.

    Args:
        couplings: in energy units, symmetric, shape `(n, n)`.
        picture: rows and columns, with product n.
        n_edges: number of couplings to draw; by default twice as many as spins, at most 160.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        couplings = np.ones((4, 4)) - np.eye(4)

        assert plots.interactions_figure(couplings, (2, 2)).axes
        ```
    """
    places = _places(picture)
    first, second = np.triu_indices(len(couplings), 1)
    strength = couplings[first, second]
    count = min(2 * len(couplings), _MOST_EDGES) if n_edges is None else n_edges
    chosen = np.argsort(-np.abs(strength), kind="stable")[:count]
    chosen = chosen[strength[chosen] != 0][::-1]  # the strongest above the others
    figure = Figure(figsize=(WIDTH / 2, WIDTH / 2 + 0.5), layout="constrained")
    axes = figure.subplots()
    most = float(np.abs(strength[chosen]).max(initial=1e-30))
    bend = 0.18 if picture[0] > 1 else 0.0  # lines of a grid would hide each other
    for k in chosen:
        share = abs(strength[k]) / most
        line = FancyArrowPatch(
            tuple(places[first[k]]),
            tuple(places[second[k]]),
            arrowstyle="-",
            connectionstyle=f"arc3,rad={bend}",
            color=_PLUS if strength[k] > 0 else ACCENT,
            linewidth=0.4 + 2.6 * share,
            alpha=0.35 + 0.6 * share,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(line)
    size = 16 if len(places) <= _NAMED else 7
    axes.scatter(*places.T, s=size, color=INK, zorder=3)
    if picture[0] == 1 and len(places) <= _NAMED:
        for k, place in enumerate(places):
            axes.annotate(f"{k}", 1.1 * place, ha="center", va="center", fontsize=8)
    for colour, text in ((_PLUS, "J > 0: alike"), (ACCENT, "J < 0: opposite")):
        axes.plot([], [], color=colour, linewidth=2, label=text)
    axes.set_aspect("equal")
    axes.margins(0.08)
    axes.set_axis_off()
    figure.legend(loc="outside lower center", ncols=2)
    axes.set_title(f"The {len(chosen)} strongest couplings")
    return figure


def _places(picture: tuple[int, int]) -> np.ndarray:
    """Where each spin stands: on the grid of a picture, the first row above; else on a circle."""
    rows, columns = picture
    if rows > 1:
        y, x = np.divmod(np.arange(rows * columns), columns)
        return np.stack([x, -y], axis=1).astype(float)
    angle = 0.5 * np.pi - 2 * np.pi * np.arange(columns) / columns
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@styled
def moments_figure(
    data: tuple[np.ndarray, np.ndarray], model: tuple[np.ndarray, np.ndarray], error: float = 0.0
) -> Figure:
    """Means and pair correlations, those of the model against those of the data.

    Args:
        data: means, shape `(n,)`, and mean products, shape `(n, n)`, of the samples.
        model: the same of the model.
        error: standard error of a mean product of the model, drawn as a band.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        moments = np.zeros(3), np.eye(3)

        assert plots.moments_figure(moments, moments).axes
        ```
    """
    pairs = np.triu_indices(len(data[0]), 1)
    figure = Figure(figsize=(WIDTH, WIDTH / 2 - 0.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, x, y, title, mean in (
        (left, data[0], model[0], "Means", "⟨s⟩"),
        (right, data[1][pairs], model[1][pairs], "Pair correlations", "⟨s s'⟩"),
    ):
        axes.plot([-1, 1], [-1, 1], color=MUTED, linewidth=0.8, zorder=1)
        if 0 < error < np.inf:
            band = np.array([-1, 1]), np.array([-1, 1]) - 2 * error, np.array([-1, 1]) + 2 * error
            axes.fill_between(*band, color=MUTED, alpha=0.2, linewidth=0, zorder=0)
        # Thousands of points are one image within the drawing.
        many = len(x) > 500
        size = 5 if many else 14
        axes.scatter(x, y, s=size, color=_PLUS, alpha=0.6, linewidths=0, rasterized=many, zorder=2)
        axes.set(xlabel=f"{mean} of the data", ylabel=f"{mean} of the model")
        axes.set_title(title)
        axes.set_aspect("equal")
        axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
        axes.grid()
    return figure
