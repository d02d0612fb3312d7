"""Tables in text files: separators, header and line numbers, in bounded memory."""

import array
import codecs
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._checks import check_memory
from .._files import open_regular, unpacked_limit
from ._grid import Grid, grid_of_texts
from ._header import arff_header, header_of, leading_lines, separator_of

_MAX_LINE = 2**24  # characters: eight million spins
# A cell takes two bytes or more in the file, four for its code and eight for its number; a text
# takes about a hundred, once.
_BYTES, _BYTES_OF_A_TEXT = 6, 100
_EVERY = 2**14  # rows


class _Vocabulary(dict[str, int]):
    """A number for each text, in the order in which they come."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


class _Row(NamedTuple):
    line: int
    cells: list[str]


def read_text(path: Path) -> Grid:
    """The table in a text file; its suffixes tell whether it is packed, of tabs, or of Weka.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a table; the message says what is wrong and where.
        OSError: if the file cannot be read.
    """
    packed = path.suffix.lower() == ".gz"
    kind = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    try:
        with (
            open_regular(path) as (stream, size),
            gzip.GzipFile(fileobj=stream) if packed else stream as content,
            _decoded(content) as text,
        ):
            lines = _lines(text, size, path, packed)
            if kind == ".arff":
                skipped, header, lines = arff_header(lines, path)
                return _grid(_rows(lines, skipped, ",", "'"), header, path)
            skipped, comment, head = leading_lines(lines)
            separator = "\t" if kind == ".tsv" else separator_of(head)
            rows = _rows(itertools.chain(head, lines), skipped, separator, '"')
            first = list(itertools.islice(rows, 2))
            header = header_of([row.cells for row in first], comment, separator)
            if header is not None and first and header.in_first_row:
                del first[0]
            return _grid(itertools.chain(first, rows), header and header.names, path)
    except (UnicodeError, csv.Error, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a text file of a table: {error}; expected UTF-8, or UTF-16 with its "
            "byte order mark"
        ) from error


def _decoded(content: Any) -> io.TextIOWrapper:
    marked = content.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if marked else "utf-8-sig"
    return io.TextIOWrapper(content, encoding=encoding, newline="")


def _lines(text: io.TextIOWrapper, size: int, path: Path, packed: bool) -> Iterator[str]:
    """The lines of a text, up to the size of its file or what that may unpack to."""
    limit = unpacked_limit(size) if packed else size
    if not packed:
        check_memory(f"{path}, read as a table,", _BYTES * size)
    left = limit
    while left > 0 and (line := text.readline(_MAX_LINE + 1)):
        if len(line) > _MAX_LINE:
            raise ValueError(f"{path} has a line of more than {_MAX_LINE} characters")
        left -= len(line)
        yield line
    if packed and left <= 0 and text.read(1):
        raise ValueError(f"{path} would unpack to more than {limit / 2**30:.3g} GiB")


def _rows(lines: Iterator[str], skipped: int, separator: str, quote: str) -> Iterator[_Row]:
    """All lines that are not blank. One of separators alone is a row without any value."""
    if separator == " ":
        lines = (line.strip() for line in lines)
    reader = csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=True)
    for cells in reader:
        if len(cells) > 1 or "".join(cells).strip():
            yield _Row(reader.line_num + skipped, cells)


def _grid(rows: Iterator[_Row], header: Sequence[str] | None, path: Path) -> Grid:
    codes, lines, vocabulary, width = array.array("i"), array.array("q"), _Vocabulary(), 0
    for line, cells in rows:
        if not lines:
            width = len(cells)
            header = _of_width(header, cells, path)
        if len(cells) != width:
            raise ValueError(
                f"{path} is ragged: line {line} has {len(cells)} columns, line {lines[0]} has "
                f"{width}"
            )
        # One row after the other: an object for each would take a third more.
        codes.extend([vocabulary[cell] for cell in cells])
        lines.append(line)
        if len(lines) % _EVERY == 0:
            held = 2 * _BYTES * len(codes) + _BYTES_OF_A_TEXT * len(vocabulary)
            check_memory(f"{path}, read as a table,", held)
    if not lines:
        raise ValueError(f"{path} is empty: it has no line of values")
    table = np.frombuffer(codes, np.intc).reshape(len(lines), width)
    names = None if header is None else tuple(header)
    return grid_of_texts(str(path), table, list(vocabulary), header=names, lines=lines)


def _of_width(header: Sequence[str] | None, cells: list[str], path: Path) -> Sequence[str] | None:
    """The header with a name for each cell; R leaves out that of the names of the rows."""
    if header is None or len(header) == len(cells):
        return header
    if len(header) == len(cells) - 1 and cells[-1].strip():
        return ["", *header]
    raise ValueError(
        f"{path} is ragged: its header has {len(header)} columns, the line below has {len(cells)}"
    )
