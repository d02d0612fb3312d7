"""Models as text: lines of numbers, with comments that say what the numbers alone do not."""

import json
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .._files import open_regular

# What a comment may say, in the style of the one that dimod writes: "# vartype=SPIN". Names come
# first, for they may look like anything.
_SAID = {
    "names": r"names[:=]\s*(\[.*\])",
    "vartype": r"vartype[:=]\s*([A-Za-z]+)",
    "offset": r"offset[:=]\s*(\S+)",
    "spins": r"spins[:=]\s*(\d+)",
}


_NATURAL = re.compile(r"\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


class Text(NamedTuple):
    """A file by lines.

    Attributes:
        path: its name.
        first: its first line.
        lines: number of the line, from 1, and its words, of all that are neither empty nor
            comments.
        vartype: "SPIN" or "BINARY", if a comment says so.
        offset: the constant that a comment tells, else 0.
        spins: number of spins that a comment tells.
        names: names that a comment tells.
    """

    path: Path
    first: str
    lines: list[tuple[int, list[str]]]
    vartype: str | None
    offset: float
    spins: int | None
    names: list[Hashable] | None

    def wrong(self, line: int, message: str) -> NoReturn:
        raise ValueError(f"{self.path}, line {line}: {message}")

    def natural(self, line: int, word: str, least: int = 0) -> int:
        """The number of a spin."""
        number = int(word) if _NATURAL.fullmatch(word) else -1
        if number < least:
            self.wrong(line, f"expected a whole number of at least {least}, got {word!r}")
        return number

    def number(self, line: int, word: str) -> float:
        """A finite number."""
        number = _float(word)
        if not math.isfinite(number):
            self.wrong(line, f"expected a finite number, got {word!r}")
        return number

    def triplets(
        self, lines: Sequence[tuple[int, list[str]]], least: int = 0, default: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines of two variables and a number, which `default` takes the place of."""
        rows, columns, values = [], [], []
        for k, words in lines:
            if len(words) == 2 and default is not None:
                words = [*words, repr(default)]
            if len(words) != 3:
                self.wrong(k, f"expected two variables and a number, got {' '.join(words)!r}")
            rows.append(self.natural(k, words[0], least))
            columns.append(self.natural(k, words[1], least))
            values.append(self.number(k, words[2]))
        return np.array(rows, int), np.array(columns, int), np.array(values, float)


def read_text(path: Path, comment: str) -> Text:
    """Lines and comments of a file; `comment` is what a line of comment begins with."""
    with open_regular(path) as (stream, size):
        content = stream.read(size)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}") from None
    said: dict[str, tuple[int, str]] = {}
    rest = []
    for k, line in enumerate(lines, 1):
        words = line.split()
        if words and words[0].startswith(comment):
            _listen(k, line, said)
        elif words:
            rest.append((k, words))
    first = lines[0] if lines else ""
    return Text(path, first, rest, **_understood(path, said))


def _listen(k: int, line: str, said: dict[str, tuple[int, str]]) -> None:
    """Note what a comment says; what was said before counts."""
    for name, pattern in _SAID.items():
        if found := re.search(pattern, line):
            said.setdefault(name, (k, found[1]))
            line = line[: found.start()] + line[found.end() :]


def _understood(path: Path, said: dict[str, tuple[int, str]]) -> dict[str, Any]:
    def of(name: str, read, default=None):
        if name not in said:
            return default
        line, text = said[name]
        try:
            return read(text)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from None

    return {
        "vartype": of("vartype", checked_vartype),
        "offset": of("offset", _finite, 0.0),
        "spins": of("spins", int),
        "names": of("names", _labels),
    }


def checked_vartype(text: str) -> str:
    if text.upper() not in ("SPIN", "BINARY"):
        raise ValueError(f"vartype must be SPIN or BINARY, got {text!r}")
    return text.upper()


def _finite(text: str) -> float:
    number = _float(text)
    if not math.isfinite(number):
        raise ValueError(f"offset must be a finite number, got {text!r}")
    return number


def _float(word: str) -> float:
    # Python takes 1_000 and digits of all scripts, which no other reader would.
    return float(word) if _NUMBER.fullmatch(word) else math.nan


def _labels(text: str) -> list[Hashable]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"names must be a list in JSON: {error}") from None
    if not all(isinstance(name, str | int) for name in names):
        raise ValueError("names must be strings or whole numbers")
    return names


def kept_names(names: Iterable[Hashable]) -> list[str | int]:
    """Names as files can hold them."""
    return [int(name) if isinstance(name, int | np.integer) else str(name) for name in names]


def comments(
    mark: str, offset: float = 0.0, names: Sequence[Hashable] = (), vartype: str | None = None
) -> Iterator[str]:
    """Lines of comment that `read_text` understands; what goes without saying is left out."""
    if vartype is not None:
        yield f"{mark} vartype={vartype}"
    if offset:
        yield f"{mark} offset={plain(offset)}"
    if list(names) != list(range(len(names))):
        yield f"{mark} names={json.dumps(list(names))}"


def plain(number: float) -> str:
    """The shortest digits that give the number back, without an exponent: dimod reads none."""
    return np.format_float_positional(number, trim="-")
