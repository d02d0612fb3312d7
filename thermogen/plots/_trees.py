"""The disconnectivity graph: states hang from the barriers that join them."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import MaxNLocator

from ..landscape import DisconnectivityTree
from ._pictures import _MAP
from ._style import ACCENT, GRID, INK, MUTED, WIDTH, styled

# Lines run straight up and lean towards their node over this share of the axis.
_LEAN = 0.05
# A stretch without levels is cut to this share of the axis where it takes nearly as much as all
# others, if those are enough to be worth it.
_WIDE, _LEAST_OTHERS, _CUT = 0.75, 4, 0.08
_PICTURE = 20  # points: the longer side of a picture


@styled
def disconnectivity_figure(
    tree: DisconnectivityTree,
    *,
    pictures: Float[np.ndarray, "K rows columns"] | None = None,
    label: str = "free energy G",
) -> Figure:
    """Disconnectivity graph (Becker and Karplus 1997; Wales 2003).

    Every line ends at the free energy of its state; lines meet at the barrier between them.
    Trees of a forest stand side by side, unconnected. Where most of the axis would be empty it is
    cut, which a grey band shows.

    Args:
        tree: the tree, from `disconnectivity_tree`.
        pictures: magnetizations of the states, shape `(K, rows, columns)`, within [-1, 1], shown
            below their lines. Without pictures the states are numbered.
        label: label of the vertical axis.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg
        from thermogen import plots

        tree = tg.disconnectivity_tree(np.array([0.0, 0.5]), np.array([[0, 2.0], [2.0, 0]]))

        assert plots.disconnectivity_figure(tree).axes
        ```
    """
    size, joined = len(tree.leaves), np.isfinite(tree.heights)
    figure = Figure(figsize=(min(max(0.36 * size + 0.9, 4), 2 * WIDTH), 5), layout="constrained")
    axes = figure.subplots()
    x, levels = _places(tree)
    axis = _Cuts(levels)
    y = axis(levels)
    lines = LineCollection(_lines(tree, x, y), colors=INK, linewidths=1.1)
    lines.set_gid("branches")  # so is their group named in an SVG
    axes.add_collection(lines)
    axes.scatter(x[:size], y[:size], s=9, color=INK, zorder=3)
    axes.scatter(x[size:][joined], y[size:][joined], s=7, color=ACCENT, zorder=3)
    for state in range(size):
        _hang(axes, state, (x[state], y[state]), None if pictures is None else pictures[state])
    for low, high in axis.cuts:
        bottom, top = axis(np.array([low, high])) + np.array([0.25, -0.25]) * _CUT
        axes.axhspan(bottom, top, color=GRID, alpha=0.6, linewidth=0, zorder=0)
        # Beside the axes, where no picture is.
        place = (1.01, (bottom + top) / 2)
        text = f"cut: {high - low:.3g}"
        axes.text(*place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.set_xlim(-0.8, size - 0.2)
    axes.set_ylim(-0.08 if pictures is None else -0.15, 1 + 1.5 * _LEAN)
    ticks = axis.ticks()
    axes.set_yticks(axis(ticks), [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.grid(axis="y")
    axes.set(ylabel=label)
    return figure


class _Cuts:
    """A vertical axis from 0 to 1, the widest empty stretches of which are cut short."""

    def __init__(self, levels: np.ndarray):
        self.known = np.unique(levels[np.isfinite(levels)])
        gaps = np.diff(self.known)
        self.is_cut = np.zeros(len(gaps), bool)
        while len(gaps) > _LEAST_OTHERS:
            widest = int(np.argmax(np.where(self.is_cut, 0, gaps)))
            others = np.delete(gaps, widest)[~np.delete(self.is_cut, widest)]
            if len(others) < _LEAST_OTHERS or gaps[widest] < _WIDE * others.sum():
                break
            self.is_cut[widest] = True
        shown = gaps[~self.is_cut]
        room = (1 - _CUT * self.is_cut.sum()) / max(shown.sum(), np.finfo(float).tiny)
        steps = np.where(self.is_cut, _CUT, room * gaps)
        self.places = np.concatenate([[0], np.cumsum(steps)])

    @property
    def cuts(self) -> list[tuple[float, float]]:
        """Lower and upper end of each stretch that is cut."""
        (rows,) = np.nonzero(self.is_cut)
        return [(float(self.known[k]), float(self.known[k + 1])) for k in rows]

    def __call__(self, levels: np.ndarray) -> np.ndarray:
        """Places of levels on the axis; infinite ones stay infinite."""
        finite = np.where(np.isfinite(levels), levels, self.known[0])
        return np.where(np.isfinite(levels), np.interp(finite, self.known, self.places), levels)

    def ticks(self) -> np.ndarray:
        """Round levels of the pieces between cuts; of a piece that is one level, that level."""
        edges = np.flatnonzero(self.is_cut)
        firsts, lasts = np.append(0, edges + 1), np.append(edges, len(self.known) - 1)
        found = []
        for first, last in zip(firsts, lasts, strict=True):
            low, high = float(self.known[first]), float(self.known[last])
            if first == last:
                found.append(np.round([low], 1))
                continue
            bins = max(1, round(8 * float(self.places[last] - self.places[first])))
            ticks = np.asarray(MaxNLocator(bins).tick_values(low, high))
            found.append(ticks[(ticks >= low) & (ticks <= high)])
        return np.concatenate(found)


def _places(tree: DisconnectivityTree) -> tuple[np.ndarray, np.ndarray]:
    """Places of leaves and nodes, nodes in the middle of their leaves; and their free energies."""
    size = len(tree.leaves)
    x, count = np.zeros(2 * size - 1), np.ones(2 * size - 1)
    x[tree.leaves] = np.arange(size)
    for node, (a, b) in enumerate(tree.linkage[:, :2].astype(int), start=size):
        count[node] = count[a] + count[b]
        x[node] = (count[a] * x[a] + count[b] * x[b]) / count[node]
    return x, np.concatenate([tree.free_energies, tree.heights])


def branches_of(tree: DisconnectivityTree) -> list[list[int]]:
    """Of each state the lines of `disconnectivity_figure` from its leaf up to the root."""
    parent, known = _parents(tree), np.isfinite(np.append(tree.free_energies, tree.heights))
    line = np.cumsum(known) - 1
    ways = []
    for node in range(len(tree.leaves)):
        way = []
        while node >= 0 and known[node]:
            way.append(int(line[node]))
            node = parent[node]
        ways.append(way)
    return ways


def _parents(tree: DisconnectivityTree) -> np.ndarray:
    """The node above each leaf and node; -1 above a root."""
    size = len(tree.leaves)
    parent = np.full(2 * size - 1, -1)
    for node, row in enumerate(tree.linkage, start=size):
        parent[row[:2].astype(int)] = node
    return parent


def _lines(tree: DisconnectivityTree, x: np.ndarray, y: np.ndarray) -> list:
    """Lines from every leaf and node straight up and then to its node; a stub at a root."""
    parent, lines = _parents(tree), []
    for k in np.flatnonzero(np.isfinite(y)):
        node = parent[k]
        if node < 0 or not np.isfinite(y[node]):
            lines.append([(x[k], y[k]), (x[k], y[k] + _LEAN)])
        else:
            knee = max(y[k], y[node] - _LEAN)
            lines.append([(x[k], y[k]), (x[k], knee), (x[node], y[node])])
    return lines


def _hang(axes: Axes, state: int, place: tuple[float, float], picture: np.ndarray | None) -> None:
    """The picture of a state below its line, with its number; or the number alone."""
    if picture is not None:
        zoom = _PICTURE / max(picture.shape)
        shown = OffsetImage(_MAP((picture + 1) / 2), zoom=zoom, interpolation="none")
        frame = {"edgecolor": GRID, "linewidth": 0.6}
        options = {"boxcoords": "offset points", "box_alignment": (0.5, 1), "pad": 0.1}
        axes.add_artist(AnnotationBbox(shown, place, (0, -3), bboxprops=frame, **options))
    axes.annotate(
        f"{state}",
        place,
        (0, -4 if picture is None else -_PICTURE - 7),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=7,
        color=MUTED,
    )
