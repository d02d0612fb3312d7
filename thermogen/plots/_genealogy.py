"""The genealogy of states as a tree: when each was born, of which, and how heavy it is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ..landscape import Genealogy
from ..meanfield import Bifurcation
from ._pictures import _MAP
from ._style import ACCENT, GRID, INK, MUTED, WIDTH, styled

_ROW = 11  # points between neighbouring branches
_PICTURE = 19  # points: the longer side of a picture, of which every other stands further out
_HAIR, _TRUNK = 0.8, 4.5  # points: width of a line of weight 0, and of weight 1


class _Branches(NamedTuple):
    """One state through all its stages, for each branch."""

    first: Int[np.ndarray, " B"]  # node
    last: Int[np.ndarray, " B"]
    parent: Int[np.ndarray, " B"]  # branch from which it came; -1 for none
    start: Float[np.ndarray, " B"]  # place on the axis
    stop: Float[np.ndarray, " B"]


@styled
def genealogy_figure(
    family: Genealogy,
    *,
    births: Mapping[int, Bifurcation] | None = None,
    deaths: Mapping[int, Bifurcation] | None = None,
    positions: Num[np.ndarray, " S"] | None = None,
    picture: tuple[int, int] | None = None,
    label: str = "inverse temperature β",
) -> Figure:
    """The tree of the states over the stages: one line a state, joined to the state it came from.

    A state is joined, where it is born, to the one into which it falls at the stage before.
    Lines are wider where the state is heavier: by the root of its Boltzmann weight among those of
    its stage. No line crosses another.

    Args:
        family: the genealogy, from `genealogy`.
        births: where states were born, from `birth_points`. A state without an entry is drawn
            from the middle between two stages.
        deaths: where states ended, from `death_points`, likewise.
        positions: where the stages stand on the axis, increasing, for example steps of a
            training, shape `(S,)`; by default beta. With it, `births` and `deaths` must be in
            its units.
        picture: rows and columns of a state, shown at the ends of the lines that reach the last
            stage; spins beyond their product, the hidden ones, are not shown.
        label: label of the horizontal axis.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg
        from thermogen import plots

        magnet = tg.Pairwise((np.ones((6, 6)) - np.eye(6)) / 6, np.zeros(6))
        naive, betas = tg.NaiveMeanField(), np.array([1.1, 1.3])
        family = tg.landscape.genealogy(naive, magnet, betas, key=jax.random.key(0), n_starts=16)

        assert plots.genealogy_figure(family).axes
        ```
    """
    x = np.asarray(family.betas if positions is None else positions, float)
    low, high = _spans(family, x, births or {}, deaths or {})
    branches = _branches(family, low, high)
    row = _rows(branches)
    size = (WIDTH, max(2.4, len(row) * _ROW / 72 + 1.0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    born = family.born[branches.first]
    ties = [
        [(branches.start[b], row[branches.parent[b]]), (branches.start[b], row[b])]
        for b in np.flatnonzero(branches.parent >= 0)
    ]
    axes.add_collection(LineCollection(ties, colors=ACCENT, linewidths=0.6, alpha=0.55, zorder=1))
    y = row[family.branches]
    lines = [[(a, c), (b, c)] for a, b, c in zip(low, high, y, strict=True)]
    widths = _HAIR + (_TRUNK - _HAIR) * np.sqrt(family.weights)
    axes.add_collection(
        LineCollection(lines, colors=INK, linewidths=widths, capstyle="round", zorder=2)
    )
    axes.scatter(
        branches.start[born], row[born], s=11, color=ACCENT, zorder=3, label="birth of a state"
    )
    split = family.split
    if np.any(split):
        places, text = (low[split], y[split]), "split into mirror images"
        axes.scatter(*places, s=26, facecolor="white", edgecolor=ACCENT, zorder=3, label=text)
    died = family.died[branches.last]
    if np.any(died):
        axes.scatter(
            *(branches.stop[died], row[died]), s=18, marker="x", color=ACCENT, lw=1.2, zorder=3
        )
        axes.scatter([], [], s=18, marker="x", color=ACCENT, lw=1.2, label="death of a state")
    axes.set_ylim(len(row) - 0.3, -0.7)
    axes.set_xlim(x[0], x[-1])
    if picture is not None:
        _hang_pictures(axes, family, branches, row, picture)
    axes.set_xticks(x, minor=True)
    axes.tick_params(axis="x", which="minor", length=2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set(xlabel=label)
    axes.plot([], [], color=INK, lw=2.5, label="a state, wider where heavier")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _spans(
    family: Genealogy,
    x: np.ndarray,
    births: Mapping[int, Bifurcation],
    deaths: Mapping[int, Bifurcation],
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Both ends of the piece of line about each node: between stages, or as known."""
    middle = 0.5 * (x[1:] + x[:-1])
    low, high = np.append(x[0], middle)[family.stages], np.append(middle, x[-1])[family.stages]
    for node, point in births.items():
        low[node] = point.parameter
    for node, point in deaths.items():
        high[node] = point.parameter
    going = family.continued
    high[family.parents[going]] = low[going]
    return low, high


def _branches(family: Genealogy, low: np.ndarray, high: np.ndarray) -> _Branches:
    of_node = family.branches
    first = np.unique(of_node, return_index=True)[1]
    last = len(of_node) - 1 - np.unique(of_node[::-1], return_index=True)[1]
    mother = family.parents[first]
    parent = np.where(mother >= 0, of_node[mother], -1)
    return _Branches(first, last, parent, low[first], high[last])


def _rows(branches: _Branches) -> Float[np.ndarray, " B"]:
    """A row for each branch, such that no tie crosses a line.

    Of the children of a branch the younger stand closer to it, with all their own: at the birth
    of an older one nothing is yet in its way. Sides are chosen so that both are equally full.
    """
    size = len(branches.parent)
    above: list[list[int]] = [[] for _ in range(size)]
    below: list[list[int]] = [[] for _ in range(size)]
    roots: list[int] = []
    # The youngest first, whose own are then complete.
    for b in sorted(range(size), key=lambda b: (-branches.start[b], -b)):
        block = above[b] + [b] + below[b]
        parent = branches.parent[b]
        if parent < 0:
            roots = block + roots
        elif len(above[parent]) <= len(below[parent]):
            above[parent] = block + above[parent]
        else:
            below[parent] = below[parent] + block
    row = np.zeros(size)
    row[roots] = np.arange(size)
    return row


def _hang_pictures(
    axes: Axes, family: Genealogy, branches: _Branches, row: np.ndarray, picture: tuple[int, int]
) -> None:
    """Pictures beyond the last stage, in two columns, so that they may be taller than a row."""
    living = np.flatnonzero(family.stages[branches.last] == len(family.betas) - 1)
    zoom = _PICTURE / max(picture)
    n_shown = picture[0] * picture[1]
    for place, b in enumerate(living[np.argsort(row[living])].tolist()):
        shown = family.magnetizations[branches.last[b], :n_shown].reshape(picture)
        image = OffsetImage(_MAP((shown + 1) / 2), zoom=zoom, interpolation="none")
        out = 6 + (place % 2) * (_PICTURE + 5)
        box = AnnotationBbox(
            image,
            (float(branches.stop[b]), float(row[b])),
            (out, 0),
            boxcoords="offset points",
            box_alignment=(0, 0.5),
            pad=0.05,
            bboxprops={"edgecolor": GRID, "linewidth": 0.6},
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5},
            annotation_clip=False,
        )
        axes.add_artist(box)
