"""Which columns of a table are spins, which one holds labels, and which one names of samples."""

import difflib
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._checks import as_integer
from ._grid import Grid
from ._words import as_number, pair_of

_RANGE = re.compile(r"(\d+)-(\d*)")
_SHOWN = 8  # names in an error
_LEAST_ROWS = 3  # two rows differ by chance
_INDEX_NAMES = ("", "id", "index")

ColumnName = str | int


class Roles(NamedTuple):
    """Columns by what they hold, counted from 0."""

    spins: list[int]
    labels: int | None
    names: int | None


def roles(
    grid: Grid,
    labels: ColumnName | None,
    columns: str | Sequence[ColumnName] | None,
    index: ColumnName | None,
) -> Roles:
    """The columns of each kind; a first column that only names the samples is found, and said.

    Raises:
        ValueError: for a column that the table does not have, or has twice, and for one of spins
            that holds labels.
    """
    label = None if labels is None else column_of(grid, labels, "labels")
    names = None if index is None else column_of(grid, index, "index")
    if columns is not None:
        return Roles(_chosen(grid, columns, label), label, names)
    if names is None and label != 0 and _is_index(grid):
        names = 0
        called = f" ({grid.header[0]!r})" if grid.header and grid.header[0] else ""
        warnings.warn(
            f"{grid.name}: the first column{called} is taken for names of the samples, not for a "
            "spin",
            stacklevel=4,
        )
    spins = [k for k in range(grid.values.shape[1]) if k not in (label, names)]
    if not spins:
        raise ValueError(f"{grid.name} has no column of spins beside labels and index")
    return Roles(spins, label, names)


def column_of(grid: Grid, wanted: ColumnName, argument: str) -> int:
    """The number of a column, by its name or as it is.

    Raises:
        ValueError: if there is no such column, or there are several.
    """
    width = grid.values.shape[1]
    number = as_integer(wanted)
    if isinstance(wanted, str):
        if grid.header is not None and wanted in grid.header:
            if grid.header.count(wanted) > 1:
                raise ValueError(
                    f"{argument} names {wanted!r}, and {grid.name} has "
                    f"{grid.header.count(wanted)} such columns; give a number, counted from 0"
                )
            return grid.header.index(wanted)
        number = int(wanted) if wanted.isascii() and wanted.isdigit() else None
    if number is None or not 0 <= number < width:
        raise ValueError(
            f"{argument} names {wanted!r}, which is no column of {grid.name}; "
            f"{_known(grid, wanted)}"
        )
    return number


def _known(grid: Grid, wanted: Any) -> str:
    width = grid.values.shape[1]
    if grid.header is None:
        return f"it has columns 0 to {width - 1}, without names"
    near = difflib.get_close_matches(str(wanted), grid.header, 3) or grid.header
    shown = ", ".join(map(repr, near[:_SHOWN]))
    return f"it has {width} columns, such as {shown}"


def _chosen(grid: Grid, columns: str | Sequence[ColumnName], label: int | None) -> list[int]:
    """The columns of spins; labels are none of them, and ranges go past them."""
    items = [part.strip() for part in columns.split(",")] if isinstance(columns, str) else columns
    chosen: list[int] = []
    for item in items:
        span = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if span is None or (grid.header is not None and item in grid.header):
            column = column_of(grid, item, "columns")
            if column == label:
                raise ValueError(f"columns names {item!r}, which holds the labels, not a spin")
            chosen.append(column)
            continue
        first = column_of(grid, int(span[1]), "columns")
        last = column_of(grid, int(span[2] or grid.values.shape[1] - 1), "columns")
        chosen += (k for k in range(first, last + 1) if k != label)
    if len(set(chosen)) < len(chosen) or not chosen:
        twice = [k for k in chosen if chosen.count(k) > 1]
        what = f"column {twice[0]} twice" if twice else "nothing"
        raise ValueError(f"columns names {what}; expected each column of spins once")
    return chosen


def _is_index(grid: Grid) -> bool:
    """Whether the first column can be nothing else than names of the samples."""
    if grid.values.shape[1] < 2:
        return False
    texts = grid.texts(0).tolist()
    if None in texts or len(set(texts)) < len(texts):
        return False
    if grid.header is not None and grid.header[0].lower() in _INDEX_NAMES:
        return True
    if len(texts) < _LEAST_ROWS:
        return False
    if 0 in grid.words:
        return not any(as_number(text) is not None for text in texts) and not all(
            map(pair_of, texts)
        )
    numbers = np.asarray(grid.values[:, 0], float)
    counted = any(np.array_equal(numbers, np.arange(len(numbers)) + k) for k in (0, 1))
    return counted
