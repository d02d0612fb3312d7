"""Tables in text files: one row after the other, in bounded memory."""

import array
import csv
import io
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .._checks import check_memory
from .._files import open_regular

_MAX_LINE = 2**24  # characters of a .csv file: eight million spins


def read_csv(path: Path, gaps: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """The table, NaN for a cell that is one of `gaps`, and the line number of each of its rows."""
    # One row after the other: an object for each would take a third more.
    table = array.array("d")
    lines: list[int] = []
    try:
        with (
            open_regular(path) as (stream, size),
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
        ):
            reader = csv.reader(_lines(text, size, path))
            header_allowed = True
            for cells in reader:
                # Cells that are all empty are a row of gaps, where an empty cell is one.
                if not "".join(cells).strip() and ("" not in gaps or len(cells) < 2):
                    continue
                unknown = [cell.strip() in gaps for cell in cells]
                values = [
                    np.nan if gap else _number(cell)
                    for cell, gap in zip(cells, unknown, strict=True)
                ]
                words = [value is None for value in values]
                if header_allowed and any(words) and all(map(operator.or_, words, unknown)):
                    header_allowed = False
                    continue
                header_allowed = False
                table.extend(_complete_row(cells, values, path, reader.line_num, gaps))
                lines.append(reader.line_num)
                if len(values) * len(lines) != len(table):
                    raise ValueError(
                        f"{path} is ragged: line {lines[-1]} has {len(values)} columns, "
                        f"line {lines[0]} has {(len(table) - len(values)) // (len(lines) - 1)}"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values: {error}") from error
    if not lines:
        raise ValueError(f"{path} is empty: it has no line of {'cues' if gaps else 'numbers'}")
    return np.frombuffer(table).reshape(len(lines), -1), lines


def _lines(text: io.TextIOWrapper, size: int, path: Path) -> Iterator[str]:
    """The lines of a text of `size` bytes, however long the stream goes on."""
    # A cell takes two bytes or more in the file and eight in memory, twice while rows are joined.
    check_memory(f"{path}, read as a table,", 8 * size)
    while size > 0 and (line := text.readline(_MAX_LINE + 1)):
        if len(line) > _MAX_LINE:
            raise ValueError(f"{path} has a line of more than {_MAX_LINE} characters")
        size -= len(line)
        yield line


def _number(cell: str) -> float | None:
    word = cell.strip().lower()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        return float(word)
    except ValueError:
        return None


def _complete_row(
    cells: list[str], values: list[float | None], path: Path, line: int, gaps: Sequence[str]
) -> list[float]:
    """The values, none of them missing: a slip in the first row is no header."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        column = values.index(None)
        marks = " or ".join(gap or "nothing" for gap in gaps)
        raise ValueError(
            f"{path} has {cells[column]!r} at line {line}, column {column} (columns counted from "
            "0); expected comma-separated numbers or true and false"
            + (f", and {marks} where unknown" if gaps else "")
        )
    return numbers
