"""The look that the pictures of several experiments share, as settings of matplotlib."""

from typing import Any

INK, ACCENT, MUTED, GREEN = "#1f3a5f", "#c2571a", "#6b7280", "#44aa99"

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
