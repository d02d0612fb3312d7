"""Pictures of samples and states: arrays of spins and magnetizations as figures."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._style import GRID, INK, WIDTH, styled

# m = -1 is sand, m = 0 is white, m = +1 is ink: what has no preference looks blank.
_MAP = LinearSegmentedColormap.from_list("magnetization", ["#dcb887", "#ffffff", INK])
_FEW_CELLS = 1024  # so many are told apart by lines between them
_NAMED = 40  # spins with names on a figure
_LONGEST, _LEVEL = 24, 2  # characters of a name, and of one that need not stand upright
_TITLE = "Minima of the free energy, lowest first"


def thumbnail_png(magnetizations: np.ndarray, picture: tuple[int, int]) -> bytes:
    """One state as PNG, one pixel a spin; the page enlarges it.

    Args:
        magnetizations: magnetizations of the state, shape `(n,)`, within [-1, 1].
        picture: rows and columns, with product n.
    """
    buffer = io.BytesIO()
    colours = _MAP((magnetizations.reshape(picture) + 1) / 2, bytes=True)
    image.imsave(buffer, colours, format="png")
    return buffer.getvalue()


def mosaic_png(rows: np.ndarray, columns: int, picture: tuple[int, int]) -> bytes:
    """Samples or states side by side as PNG, one pixel a spin; what lies between is clear.

    Args:
        rows: magnetizations, shape `(K, n)`, within [-1, 1].
        columns: pictures in a row.
        picture: rows and columns of one picture, with product n.
    """
    parts = [rows[first : first + columns] for first in range(0, len(rows), columns)]
    tiles = _mosaic(parts, min(columns, len(rows)), picture)
    colours = _MAP((tiles + 1) / 2, bytes=True)
    colours[np.isnan(tiles)] = 0
    buffer = io.BytesIO()
    image.imsave(buffer, colours, format="png")
    return buffer.getvalue()


@styled
def samples_figure(
    spins: np.ndarray,
    picture: tuple[int, int],
    labels: np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """A few samples: rows of pictures, one row a class where there are labels; else strips.

    Args:
        spins: the samples, shape `(samples, n)`, -1 or +1.
        picture: rows and columns of one sample; `(1, n)` is drawn as a strip.
        labels: class of each sample, shape `(samples,)`.
        names: names of the spins, which a strip of at most 40 shows.
        classes: names of the classes, which `labels` count.
    """
    if picture[0] == 1:
        return _strips_of_samples(_evenly(spins, 64), few(names))
    columns = 16
    shown = [] if labels is None else list(np.unique(labels)[:10])
    groups = [spins[labels == c] for c in shown] or np.array_split(_evenly(spins, 80), 5)
    rows = [_evenly(group, columns) for group in groups if len(group)]
    tiles = _mosaic(rows, columns, picture)
    height = 0.94 * WIDTH * len(tiles) / tiles.shape[1] + 0.3
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiles, cmap=_MAP, vmin=-1, vmax=1, interpolation="none")
    _bare(axes)
    if shown:
        centres = np.arange(len(rows)) * (picture[0] + 1) + picture[0] / 2 - 0.5
        axes.set_yticks(centres, [class_name(c, classes) for c in shown])
        axes.set_ylabel("class")
    axes.set_title("Samples of the data")
    return figure


def _strips_of_samples(spins: np.ndarray, names: Sequence[str] | None) -> Figure:
    n_spins = spins.shape[1]
    figure = Figure(figsize=(WIDTH, np.clip(0.16 * n_spins + 0.9, 1.6, 6)), layout="constrained")
    axes = figure.subplots()
    _cells(axes, spins.T, _MAP)
    _spin_ticks(axes, "y", n_spins, names)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(length=0)
    axes.set(xlabel=f"sample ({len(spins)} shown, one a column)", ylabel="spin")
    axes.set_title("Samples of the data")
    return figure


@styled
def states_figure(
    magnetizations: np.ndarray,
    free_energies: np.ndarray,
    weights: np.ndarray,
    hits: np.ndarray,
    curvatures: np.ndarray,
    picture: tuple[int, int],
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """The states at a glance: labelled pictures, or strips beside their free-energy levels.

    Args:
        magnetizations: m of each state, shape `(K, n)`, lowest free energy first.
        free_energies: G of each state in energy units, shape `(K,)`.
        weights: Boltzmann weight of each state, shape `(K,)`.
        hits: number of quenches that ended in each state, shape `(K,)`.
        curvatures: lowest eigenvalue of the Hessian of G in energy units, shape `(K,)`.
        picture: rows and columns of one state; `(1, n)` is drawn as a strip.
        names: names of the spins, which a strip of at most 40 shows.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        m = np.array([[0.9, -0.9, 0.9, -0.9], [-0.9, 0.9, 0.9, 0.9]])
        free, weights, ones = np.array([-1.0, 0.0]), np.array([0.7, 0.3]), np.ones(2)

        assert plots.states_figure(m, free, weights, ones.astype(int), ones, (2, 2)).axes
        ```
    """
    if picture[0] == 1:
        return _levels_of_strips(magnetizations, free_energies, weights, few(names))
    count = len(magnetizations)
    columns = min(max(count, 2), 8)
    rows = -(-count // columns)
    cell = min(WIDTH / columns, 1.8)
    size = (cell * columns, (cell + 0.75) * rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(_TITLE, x=0.01, ha="left", fontsize=10, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    for k, axes in enumerate(grid[:count]):
        tile = magnetizations[k].reshape(picture)
        axes.imshow(tile, cmap=_MAP, vmin=-1, vmax=1, interpolation="none")
        _bare(axes)
        text = (
            f"F = {free_energies[k]:.2f}\nw = {weights[k]:.2g}\n"
            f"hits {hits[k]}\nκ = {curvatures[k]:.2g}"
        )
        axes.set_xlabel(text, fontsize=7.5, linespacing=1.25)
        axes.set_title(f"{k}", fontsize=8, pad=3)
    return figure


def _levels_of_strips(
    magnetizations: np.ndarray,
    free_energies: np.ndarray,
    weights: np.ndarray,
    names: Sequence[str] | None,
) -> Figure:
    count, n_spins = magnetizations.shape
    figure = Figure(figsize=(WIDTH, 0.19 * count + 1.15 + room_for(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _cells(left, magnetizations, _MAP)
    _spin_ticks(left, "x", n_spins, names)
    left.set_yticks(np.arange(count) + 0.5, [str(k) for k in range(count)], fontsize=7.5)
    left.tick_params(length=0)
    left.set(xlabel="spin", ylabel="state")
    left.set_title(_TITLE)
    height = np.arange(count) + 0.5
    right.hlines(height, free_energies.min(), free_energies, color=GRID, linewidth=1.2)
    right.scatter(free_energies, height, s=8 + 120 * weights, color=INK, zorder=3)
    right.tick_params(axis="y", length=0, labelleft=False)
    right.spines["left"].set_visible(False)
    right.margins(x=0.08)
    right.set(xlabel="free energy F (area: Boltzmann weight)")
    right.set_title("Levels")
    return figure


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spaced."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _mosaic(rows: Sequence[np.ndarray], columns: int, picture: tuple[int, int]) -> np.ndarray:
    """Pictures side by side, one cell of nothing (NaN) between them."""
    height, width = picture
    tiles = np.full((len(rows), height + 1, columns, width + 1), np.nan)
    for r, row in enumerate(rows):
        tiles[r, :height, : len(row), :width] = row.reshape(-1, height, width).swapaxes(0, 1)
    return tiles.reshape(len(rows) * (height + 1), columns * (width + 1))[:-1, :-1]


def _cells(axes: Axes, rows: np.ndarray, colours: Colormap, most: float = 1.0) -> None:
    """A table of cells from the top, one image with lines of the grid above it."""
    height, width = rows.shape
    extent = (0, width, height, 0)
    limits = {"vmin": -most, "vmax": most, "extent": extent}
    axes.imshow(rows, cmap=colours, aspect="auto", interpolation="none", **limits)
    if height * width <= _FEW_CELLS:
        axes.vlines(np.arange(width + 1), 0, height, color=GRID, linewidth=0.6)
        axes.hlines(np.arange(height + 1), 0, width, color=GRID, linewidth=0.6)
    axes.spines[:].set_visible(False)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def class_name(label: int | np.integer, classes: Sequence[str] | None) -> str:
    """What a class is called on a figure."""
    name = str(label) if classes is None else _short(classes[int(label)])
    return f" {name}" if name.startswith("_") else name  # which no legend would show


def few(names: Sequence[str] | None, most: int = _NAMED) -> Sequence[str] | None:
    """The names, if there is room for all of them."""
    return names if names is not None and len(names) <= most else None


def _spin_ticks(axes: Axes, along: str, n_spins: int, names: Sequence[str] | None) -> None:
    """Names of all spins along x or y if they are given, else numbers of some."""
    axis = axes.xaxis if along == "x" else axes.yaxis
    if names is None:
        spins = np.arange(0, n_spins, max(1, n_spins // 16))
        axis.set_ticks(spins + 0.5, [str(k) for k in spins], fontsize=7.5)
        return
    texts = [_short(name) for name in names]
    turned = 90 if along == "x" and room_for(names) else 0
    axis.set_ticks(np.arange(n_spins) + 0.5, texts, fontsize=6.5, rotation=turned)


def room_for(names: Sequence[str] | None) -> float:
    """Inches that names take where they stand upright below an axis."""
    longest = max(map(len, names or ()), default=0)
    return 0.05 * min(longest, _LONGEST) if longest > _LEVEL else 0.0


def _short(name: str) -> str:
    """A name in a line, without the signs that would make it a formula."""
    line = " ".join(name.split()).replace("$", r"\$")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
