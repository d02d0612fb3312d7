"""Figures of a study: pure functions from arrays to `matplotlib.figure.Figure`.

Figures are made through matplotlib's object interface alone, so that they touch no global state
and need no display.
"""

import functools
import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

INK, ACCENT, MUTED, GRID = "#1f3a5f", "#c2571a", "#6b7280", "#e3e3df"
# Muted qualitative colours for up to ten classes.
CLASSES = (
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499", "#b8b8b8"),
)
# m = -1 is sand, m = 0 is paper, m = +1 is ink: what has no preference looks blank.
MAGNETIZATION_MAP = LinearSegmentedColormap.from_list(
    "magnetization", ["#d8a867", "#f8f5ee", "#8fa3bd", INK]
)
WIDTH = 7.8  # inches: the width of the page
MAX_SHOWN = 40
_DPI = 160
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": "#374151",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": "#1f2937",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, twice as fine as a common screen."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def thumbnail_png(magnetizations: np.ndarray, picture: tuple[int, int]) -> bytes:
    """One state as PNG, one pixel a spin; the page enlarges it.

    Args:
        magnetizations: shape `(n,)`, within [-1, 1].
        picture: rows and columns, with product n.
    """
    buffer = io.BytesIO()
    colours = MAGNETIZATION_MAP(_unit(magnetizations.reshape(picture)), bytes=True)
    image.imsave(buffer, colours, format="png")
    return buffer.getvalue()


@_styled
def samples_figure(
    spins: np.ndarray, picture: tuple[int, int], labels: np.ndarray | None = None
) -> Figure:
    """A few samples: rows of pictures, one row a class where there are labels; else strips.

    Args:
        spins: shape `(samples, n)`, -1 or +1.
        picture: rows and columns of one sample; `(1, n)` is drawn as a strip.
        labels: shape `(samples,)`.
    """
    if picture[0] == 1:
        return _strips_of_samples(_evenly(spins, 64))
    columns = 16
    classes = [] if labels is None else list(np.unique(labels)[:10])
    groups = [spins[labels == c] for c in classes] or np.array_split(_evenly(spins, 80), 5)
    rows = [_evenly(group, columns) for group in groups if len(group)]
    tiles = _mosaic(rows, columns, picture)
    figure = Figure(
        figsize=(WIDTH, WIDTH * len(tiles) / tiles.shape[1] + 0.4), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(tiles, cmap=MAGNETIZATION_MAP, vmin=-1, vmax=1, interpolation="nearest")
    _bare(axes)
    if classes:
        centres = np.arange(len(rows)) * (picture[0] + 1) + picture[0] / 2 - 0.5
        axes.set_yticks(centres, [str(c) for c in classes])
        axes.set_ylabel("class")
    axes.set_title("Samples of the data")
    return figure


def _strips_of_samples(spins: np.ndarray) -> Figure:
    n_spins = spins.shape[1]
    figure = Figure(figsize=(WIDTH, np.clip(0.16 * n_spins + 0.9, 1.6, 6)), layout="constrained")
    axes = figure.subplots()
    axes.pcolormesh(
        spins.T, cmap=MAGNETIZATION_MAP, vmin=-1, vmax=1, edgecolors="white", linewidth=0.6
    )
    axes.invert_yaxis()
    _spin_ticks(axes.yaxis, n_spins)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel=f"sample ({len(spins)} shown, one a column)", ylabel="spin")
    axes.set_title("Samples of the data")
    return figure


@_styled
def states_figure(
    magnetizations: np.ndarray,
    free_energies: np.ndarray,
    weights: np.ndarray,
    hits: np.ndarray,
    curvatures: np.ndarray,
    picture: tuple[int, int],
) -> Figure:
    """The states at a glance: labelled pictures, or strips beside their free-energy levels.

    Args:
        magnetizations: shape `(K, n)`, lowest free energy first.
        free_energies, weights, hits, curvatures: shape `(K,)`; energies in one unit.
        picture: rows and columns of one state; `(1, n)` is drawn as a strip.
    """
    if picture[0] == 1:
        return _levels_of_strips(magnetizations, free_energies, weights)
    count = len(magnetizations)
    columns = min(count, 8)
    cell = min(WIDTH / columns, 1.5)
    rows = -(-count // columns)
    figure = Figure(figsize=(cell * columns, (cell + 0.62) * rows + 0.35), layout="constrained")
    figure.suptitle(_TITLE, x=0.01, ha="left", fontsize=10, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    for k, axes in enumerate(grid[:count]):
        tile = magnetizations[k].reshape(picture)
        axes.imshow(tile, cmap=MAGNETIZATION_MAP, vmin=-1, vmax=1, interpolation="nearest")
        _bare(axes)
        text = (
            f"F = {free_energies[k]:.2f}\nw = {weights[k]:.2g}\n"
            f"hits {hits[k]}\nκ = {curvatures[k]:.2g}"
        )
        axes.set_xlabel(text, fontsize=7.5, linespacing=1.25)
        axes.set_title(f"{k}", fontsize=8, pad=3)
    return figure


_TITLE = "Minima of the free energy, lowest first"


def _levels_of_strips(
    magnetizations: np.ndarray, free_energies: np.ndarray, weights: np.ndarray
) -> Figure:
    count, n_spins = magnetizations.shape
    figure = Figure(figsize=(WIDTH, 0.19 * count + 1.15), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    left.pcolormesh(
        magnetizations,
        cmap=MAGNETIZATION_MAP,
        vmin=-1,
        vmax=1,
        edgecolors="white",
        linewidth=1.2 if n_spins <= 64 else 0,
    )
    left.invert_yaxis()
    _spin_ticks(left.xaxis, n_spins)
    left.set_yticks(np.arange(count) + 0.5, [str(k) for k in range(count)], fontsize=7.5)
    left.tick_params(length=0)
    left.spines[:].set_visible(False)
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


@_styled
def learning_figure(losses: np.ndarray) -> Figure:
    """The loss against the step.

    Args:
        losses: shape `(steps,)`, in nats per sample.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color=INK, linewidth=1.5)
    axes.scatter(steps[-1:], losses[-1:], color=ACCENT, s=18, zorder=3)
    axes.annotate(
        f"{losses[-1]:.3f}",
        (steps[-1], losses[-1]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="right",
        color=ACCENT,
    )
    if len(losses) > 30:
        axes.set_xscale("log")
    axes.grid(axis="y")
    axes.set(xlabel="step", ylabel="loss (nats per sample)")
    axes.set_title("Learning curve")
    return figure


@_styled
def scan_figure(
    betas: Sequence[float],
    counts: Sequence[int],
    overflow: Sequence[bool],
    chosen: tuple[float, int] | None = None,
) -> Figure:
    """Number of minima against the inverse temperature.

    Args:
        betas: inverse temperatures, in 1/energy.
        counts: number of states that the scan found at each.
        overflow: where the library was full, so that the count is only a lower bound.
        chosen: beta and number of states of the full search, if it has run.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(betas, counts, color=INK, linewidth=1.2, zorder=2)
    full = np.asarray(overflow, bool)
    faces = np.where(full, "white", INK)
    axes.scatter(betas, counts, c=faces, edgecolors=INK, s=24, zorder=3, label="short search")
    if chosen is not None:
        axes.scatter(*chosen, marker="D", color=ACCENT, s=34, zorder=4, label="full search")
    if full.any():
        axes.plot([], [], "o", color=INK, markerfacecolor="white", label="library full: at least")
    most = max([*counts, chosen[1] if chosen else 0])
    if most > 30:
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, 1.7 * most)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0, 1.15 * most + 0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(betas[::2])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda beta, _: f"{beta:.2g}")
    axes.grid(axis="y")
    axes.legend(loc="upper left")
    axes.set(xlabel="inverse temperature β", ylabel="minima found")
    axes.set_title("States against temperature")
    return figure


@_styled
def occupation_figure(
    assignment: np.ndarray, n_states: int, labels: np.ndarray | None = None
) -> Figure:
    """How many samples fall to each state, stacked by class where there are at most ten.

    Args:
        assignment: state of each sample, shape `(samples,)`; -1 for none.
        n_states: number of states; bars are drawn for the first 40, one for the rest.
        labels: class of each sample, shape `(samples,)`.
    """
    shown = min(n_states, MAX_SHOWN)
    slot = np.where(assignment < 0, shown + 1, np.minimum(assignment, shown))
    names = [str(k) for k in range(shown)] + ["others", "none"]
    used = [k for k in range(shown + 2) if k < shown or np.any(slot == k)]
    classes = [] if labels is None else list(np.unique(labels))
    stacked = 1 < len(classes) <= len(CLASSES)
    groups = [(str(c), labels == c) for c in classes] if stacked else [("", slot >= 0)]
    figure = Figure(figsize=(WIDTH, 0.2 * len(used) + 1.15), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(used))
    for (name, members), colour in zip(groups, CLASSES if stacked else [INK], strict=False):
        counts = np.array([np.sum(members & (slot == k)) for k in used])
        axes.barh(range(len(used)), counts, left=left, height=0.76, color=colour, label=name)
        left += counts
    for row, total in enumerate(left):
        axes.annotate(
            f"{int(total)}", (total, row), (4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(used)), [names[k] for k in used], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.06, y=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="x")
    axes.set(xlabel="samples", ylabel="state")
    axes.set_title("Which samples fall to which state")
    if stacked:
        figure.legend(loc="outside right center", title="class", reverse=False)
    return figure


def _unit(magnetizations: np.ndarray) -> np.ndarray:
    return (np.asarray(magnetizations, float) + 1) / 2


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


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _spin_ticks(axis, n_spins: int) -> None:
    spins = np.arange(0, n_spins, max(1, n_spins // 16))
    axis.set_ticks(spins + 0.5, [str(k) for k in spins], fontsize=7.5)
