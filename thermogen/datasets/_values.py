"""What the cells of a table mean: spins up and down, gaps, and grey values cut in two."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._grid import Grid
from ._words import PAIRS, as_number, pair_of

Mark = float | int | str
Threshold = float | int | str
METHODS = ("mean", "median", "otsu")
_GREY = "grey values need a threshold: a number, mean, median or otsu"


def spins_of(
    grid: Grid, columns: Sequence[int], marks: Sequence[Mark], threshold: Threshold | None
) -> np.ndarray:
    """Spins of the columns: +1 and -1, and 0 where nothing is known, shape `(rows, columns)`.

    Args:
        grid: the table.
        columns: the columns of spins.
        marks: further values that stand for what is missing.
        threshold: values above it are up; None for tables of bits or spins.

    Raises:
        ValueError: for any other value; the message says where it stands.
    """
    chosen = list(columns)
    every = chosen == list(range(grid.values.shape[1]))
    block = grid.values if every else grid.values[:, chosen]
    if block.dtype == bool:
        return np.where(block, 1.0, -1.0)
    # The numbers of a text are eight of the twelve bytes that a cell takes.
    spins, words = (block if grid.spare else block.astype(float)), {}
    for k, column in enumerate(chosen):
        if column in grid.words:
            texts = _texts_but(marks, grid, column)
            numbers = [np.nan if text is None else as_number(text) for text in texts]
            if None in numbers:
                words[k] = _spins_of_words(grid, column, texts)
            else:  # the words were marks of what is missing
                spins[:, k] = numbers
    for mark in marks:
        number = as_number(mark) if isinstance(mark, str) else float(mark)
        if number is not None:
            spins[spins == number] = np.nan
    if threshold is None:
        _bits_to_spins(grid, chosen, spins)
    else:
        _cut(grid, chosen, spins, threshold)
    spins[np.isnan(spins)] = 0
    for k, column in words.items():
        spins[:, k] = column
    return spins


def _bits_to_spins(grid: Grid, columns: list[int], values: np.ndarray) -> None:
    """Set zeros to -1, in place, where the numbers are those of one convention."""
    zero, minus = values == 0, values == -1
    bad = ~(zero | minus | (values == 1) | np.isnan(values))
    if bad.any():
        raise ValueError(
            f"{grid.name} has {_first(grid, columns, bad)}; expected 0 and 1, or -1 and +1 "
            f"({_GREY})"
        )
    if zero.any() and minus.any():
        raise ValueError(
            f"{grid.name} mixes two conventions: {_first(grid, columns, zero)} and "
            f"{_first(grid, columns, minus)}; expected 0 and 1, or -1 and +1. If 0 stands for an "
            "unknown spin, say missing=0; if these are three grey values, give a threshold"
        )
    values[zero] = -1


def _first(grid: Grid, columns: list[int], where: np.ndarray) -> str:
    row, k = (int(x) for x in np.unravel_index(np.argmax(where), where.shape))
    return grid.found(row, columns[k])


def _cut(grid: Grid, columns: list[int], values: np.ndarray, threshold: Threshold) -> None:
    """Values above the threshold to +1, others to -1, in place."""
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"{grid.name} has {_first(grid, columns, infinite)}; expected finite numbers"
        )
    up = values > _level(grid, values, threshold)
    values[~np.isnan(values)] = -1
    values[up] = 1


def _level(grid: Grid, values: np.ndarray, threshold: Threshold) -> Any:
    number = as_number(threshold) if isinstance(threshold, str) else float(threshold)
    if number is not None and np.isfinite(number):
        return number
    if threshold == "otsu":
        return _otsu(grid, values[~np.isnan(values)])
    if threshold not in METHODS:
        raise ValueError(f"threshold is {threshold!r}; expected a number, mean, median or otsu")
    levels = np.zeros(values.shape[1])
    for k, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if known.size:
            levels[k] = np.mean(known) if threshold == "mean" else np.median(known)
    return levels


def _otsu(grid: Grid, known: np.ndarray) -> float:
    """Otsu (1979), exactly: the cut with the greatest variance between the two sides."""
    levels, counts = np.unique(known, return_counts=True)
    if len(levels) < 2:
        raise ValueError(f"{grid.name} has no two different values for a threshold of Otsu to part")
    below = np.cumsum(counts)[:-1] / known.size
    share = np.cumsum(counts * (levels - levels[0]))  # from the lowest: no digits cancel
    mean, whole = share[:-1] / known.size, share[-1] / known.size
    between = (whole * below - mean) ** 2 / (below * (1 - below))
    k = int(np.argmax(between))
    return float(levels[k] + (levels[k + 1] - levels[k]) / 2)


def _texts_but(marks: Sequence[Mark], grid: Grid, column: int) -> list[str | None]:
    gaps = {str(mark).lower() for mark in marks}
    return [None if t is None or t.lower() in gaps else t for t in grid.texts(column)]


def _spins_of_words(grid: Grid, column: int, texts: list[str | None]) -> np.ndarray:
    """Spins of a column of yes and no; the words must be those of one pair."""
    spins: dict[str | None, float] = {None: 0.0}
    rows: dict[tuple[str, str] | None, int] = {}  # the first of each pair, and of numbers
    for text in dict.fromkeys(texts):
        if text is None:
            continue
        row, pair = texts.index(text), pair_of(text)
        if pair is None and as_number(text) is None:
            raise ValueError(
                f"{grid.name} has {grid.found(row, column)}; expected numbers, or one of "
                f"{', '.join('/'.join(p) for p in PAIRS)}. Other words can be the labels or the "
                "index; choose columns to leave them out, or write 0 and 1 for them"
            )
        rows.setdefault(pair, row)
        spins[text] = 1.0 if pair is not None and text.lower() == pair[0] else -1.0
    if len(rows) > 1:
        first, second = (grid.found(row, column) for row in list(rows.values())[:2])
        raise ValueError(
            f"{grid.name} mixes {first} and {second}; expected one pair of words in a column"
        )
    return np.array([spins[text] for text in texts])
