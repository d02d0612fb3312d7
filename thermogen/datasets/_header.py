"""What stands before the rows of a text file: comments, a header, and how cells are set apart."""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ._words import as_number, is_missing, pair_of

_SEPARATORS = "\t;|, "  # those that stand within numbers or beside others come last
_LOOKED_AT = 20  # lines
_QUOTED = re.compile(r'"[^"]*"')
_ATTRIBUTE = re.compile(r"""@attribute\s+('[^']*'|"[^"]*"|\S+)\s+\S""", re.IGNORECASE)


class Header(NamedTuple):
    """Names of the columns, and whether they take the first row or a comment above it."""

    names: list[str]
    in_first_row: bool


def leading_lines(lines: Iterator[str]) -> tuple[int, str, list[str]]:
    """How many lines are comments or blank, the last comment, and the first lines that are not."""
    skipped, comment, head = 0, "", []
    for line in lines:
        if not head and (line.startswith("#") or not line.strip()):
            skipped += 1
            comment = line[1:].strip() if line.startswith("#") else comment
            continue
        head.append(line)
        if len(head) == _LOOKED_AT:
            break
    return skipped, comment, head


def separator_of(lines: Sequence[str]) -> str:
    """What sets cells apart: as many in each line, else in most lines; a comma if nothing does."""
    bare = [_QUOTED.sub("_", line).strip(" \r\n") for line in lines]
    bare = [line for line in bare if line]
    counts = {s: [_count(line, s) for line in bare] for s in _SEPARATORS}
    even = [s for s in _SEPARATORS if len(set(counts[s])) == 1 and counts[s][0]]
    often = [s for s in _SEPARATORS if 2 * sum(map(bool, counts[s])) > len(bare)]
    return [*even, *often, ","][0]


def _count(line: str, separator: str) -> int:
    return len(line.split()) - 1 if separator == " " else line.count(separator)


def header_of(rows: Sequence[Sequence[str]], comment: str, separator: str) -> Header | None:
    """The header of a table, from its first two rows and the comment above them."""
    if not rows:
        return None
    if _is_header(rows[0], rows[1] if len(rows) > 1 else None):
        return Header([cell.strip() for cell in rows[0]], in_first_row=True)
    # Words apart by blanks are a sentence, and one word may be anything.
    if separator in comment and separator != " ":
        names = next(csv.reader([comment], delimiter=separator, skipinitialspace=True))
        if len(names) == len(rows[0]) and _is_header(names, rows[0]):
            return Header([name.strip() for name in names], in_first_row=False)
    return None


def _is_header(cells: Sequence[str], below: Sequence[str] | None) -> bool:
    """Whether a row holds names: words that are no values, and numbers only if they count up."""
    counted, named = [], 0
    for cell, under in itertools.zip_longest(cells, (below or ())[: len(cells)]):
        number, pair = as_number(cell), pair_of(cell)
        if is_missing(cell):
            continue
        if number is not None:
            counted.append(number)
        elif pair is None:
            named += 1
        elif not is_missing(under):
            if pair_of(under) == pair:
                return False  # yes above no is a value
            named += 1
    if not counted:
        return named > 0
    start = counted[0]
    up = start >= 0 and counted == [start + k for k in range(len(counted))]
    return up and start.is_integer() and counted[-1] > 1  # 0, 1 may be values


def arff_header(lines: Iterator[str], path: Path) -> tuple[int, list[str], Iterator[str]]:
    """Lines up to the data of a file of Weka, the names of its attributes, and the data."""
    names, skipped = [], 0
    for line in lines:
        skipped += 1
        text = line.strip()
        if text.lower().startswith("@attribute"):
            found = _ATTRIBUTE.match(text)
            if found is None:
                raise ValueError(f"{path} has an attribute without name or type at line {skipped}")
            names.append(found[1].strip("'\""))
        elif text.lower().startswith("@data"):
            return skipped, names, _arff_rows(lines, skipped, path)
        elif text and not text.startswith("%") and not text.lower().startswith("@relation"):
            raise ValueError(
                f"{path} has {text[:40]!r} at line {skipped}; expected @relation, @attribute or "
                "@data"
            )
    raise ValueError(f"{path} is no file of Weka: it has no line @data")


def _arff_rows(lines: Iterator[str], skipped: int, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, skipped + 1):
        if line.lstrip().startswith("{"):
            raise ValueError(
                f"{path} has sparse data at line {number}; expected a value for each attribute"
            )
        yield "" if line.lstrip().startswith("%") else line
