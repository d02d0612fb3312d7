"""The one style of all figures.

Figures are made through matplotlib's object interface alone, so that they touch no global state
and need no display.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from .._files import PathLike, write_atomically

INK, ACCENT, MUTED, GRID = "#1f3a5f", "#c2571a", "#6b7280", "#e3e3df"
# Muted qualitative colours for up to ten classes.
CLASSES = (
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499", "#b8b8b8"),
)
WIDTH = 7.8  # inches: the width of the page
_DPI = 160
_STYLE: Any = {
    "font.size": 9,
    "axes.facecolor": "none",
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


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Give a function that draws a figure the one style of the report."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def _written(settings: Any) -> Iterator[None]:
    """Settings of a file, without a warning for each letter that the font draws as a box."""
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG, twice as fine as a common screen."""
    buffer = io.BytesIO()
    with _written({}):
        figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


# Text of a vector graphic stays text, which can be searched and edited; and one figure is one file,
# to the byte.
_FILES: Any = {"svg.fonttype": "none", "svg.hashsalt": "thermogen", "pdf.fonttype": 42}
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save(figure: Figure, path: PathLike) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix of the file.

    Args:
        figure: what a function of this room returned, or any figure of matplotlib.
        path: the file, such as `tree.svg`. It appears whole or not at all.

    Raises:
        ValueError: for another suffix.
        OSError: if the file cannot be written.

    !!! example

        ```python
        from pathlib import Path

        import numpy as np
        import thermogen as tg
        from thermogen import plots

        tree = tg.disconnectivity_tree(np.array([0.0, 0.5]), np.array([[0, 2.0], [2.0, 0]]))
        plots.save(plots.disconnectivity_figure(tree), "tree.svg")

        assert "<text" in Path("tree.svg").read_text()
        ```
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _UNDATED:
        raise ValueError(f"{path} must end in {', '.join(_UNDATED)}")
    with _written(_FILES), write_atomically(path) as stream:
        figure.savefig(stream, format=suffix[1:], dpi=_DPI, metadata=_UNDATED[suffix])


def figure_svg(figure: Figure, name: str) -> str:
    """A figure as SVG: its text as text, without a background, the same at every call.

    Args:
        figure: the figure.
        name: a word that makes the identifiers within it differ from those of other figures.
    """
    buffer = io.StringIO()
    with _written({**_FILES, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_UNDATED[".svg"])
    return buffer.getvalue()
