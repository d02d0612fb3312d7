"""What several scripts share: how verdicts read, how figures are written, how pictures look."""

import csv
import io
import json
import math
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from thermogen.storage import write_atomically

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


# What the script of this process claimed, and what it drew: the runner writes both down.
CLAIMS: list[dict[str, Any]] = []
PICTURES: list[str] = []


def claim(text: str, holds: Any, statistic: str = "") -> None:
    """One line: what was claimed, whether it holds, and by which number; the runner keeps it."""
    print(f"claim: {text}: {'holds' if holds else 'FAILS'}{f' ({statistic})' if statistic else ''}")
    CLAIMS.append({"claim": text, "holds": bool(holds), "statistic": statistic})


def save(path: pathlib.Path, content: Any, dpi: int = 160) -> None:
    """Writes a figure, or numbers as JSON, into a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Figure):
        content.savefig(path, dpi=dpi)
        PICTURES.append(path.name)
    else:
        path.write_text(json.dumps(_plain(content), indent=1))


def table(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes a table, one row an instance or more, which `thermogen merge` unites over tasks."""
    text, columns = io.StringIO(), dict.fromkeys(name for row in rows for name in row)
    lines = csv.DictWriter(text, list(columns), lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as stream:
        stream.write(text.getvalue().encode())


def _plain(content: Any) -> Any:
    """Without arrays, and without numbers that are not finite, which JSON has no words for."""
    if hasattr(content, "tolist"):
        content = content.tolist()
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def filled(values: Any, places: int) -> np.ndarray:
    """The first rows of an array, and zeros after the last, so that one program serves all."""
    values = np.asarray(values)[:places]
    return np.pad(values, [(0, places - len(values)), *[(0, 0)] * (values.ndim - 1)])


def padded(library: tg.Library, places: int) -> tg.Library:
    """The lowest states, in a library of a fixed number of places."""
    states = {name: filled(values, places) for name, values in library.to_dict().items()}
    return tg.Library(**states, mask=np.arange(places) < len(library))


def descents(energies: np.ndarray) -> np.ndarray:
    """Where steepest descent by single flips leads from each of 2^n configurations."""
    index = np.arange(len(energies))
    lowest, goal = energies.copy(), index.copy()
    for k in range(len(energies).bit_length() - 1):
        flipped = index ^ (1 << k)
        lower = energies[flipped] < lowest
        lowest, goal = np.where(lower, energies[flipped], lowest), np.where(lower, flipped, goal)
    while np.any(goal != goal[goal]):
        goal = goal[goal]
    return goal
