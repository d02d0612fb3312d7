"""The data of a study, by the name that a user gives."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets
from .._files import PathLike
from ._study import Source

_LEAST_SIDE = 4  # pixels of a square picture
_STRIP = 40  # spins whose names can be read beside a strip


# Bytes of samples that are written out by their counts.
_MOST_REPEATED = 2**28


def load_source(
    text: str,
    weights: PathLike | None = None,
    *,
    labels: str | int | None = None,
    columns: str | None = None,
    missing: Sequence[float | int | str] = (),
    threshold: float | int | str | None = None,
) -> Source:
    """The data set that a user names.

    Args:
        text: `digits`, `adder:N` with N bits a summand, or the path of a file that
            `thermogen.datasets.read` takes; of a file, a square number of spins, 16 or more, is
            drawn as a square picture, unless the spins have names and are few enough to show them.
        weights: path of a file of one weight a sample; equal where None. Whole weights say how
            often a sample occurs, and it is repeated as often.
        labels: column of class labels, or array of them, in a file.
        columns: columns of spins in a file; all others if not given.
        missing: further values in a file that stand for what is missing.
        threshold: grey value above which a spin of a file is up; see `thermogen.datasets.read`.

    Raises:
        ImportError: if a package is missing that reads such files.
        ValueError: if there is no such data set, the file is not a table of spins, or the weights
            are not one for each sample.
        OSError: if the file cannot be read.

    !!! example

        ```python
        from thermogen import study

        assert study.load_source("adder:2").size == 16
        ```
    """
    options = {"labels": labels, "columns": columns, "missing": missing, "threshold": threshold}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    source = _named_source(text, given)
    if weights is None:
        return source
    values = datasets.load_weights(weights)
    if len(values) != len(source.spins):
        raise ValueError(
            f"{weights} holds {len(values)} weights; expected {len(source.spins)}, one a sample"
        )
    return _repeated(source._replace(weights=values))


def _repeated(source: Source) -> Source:
    """Whole weights count equal samples: as rows of their own some of them can be held out."""
    weights = source.weights
    assert weights is not None
    bytes_needed = 8 * weights.sum() * source.spins.shape[1]
    if np.any(weights % 1) or bytes_needed > _MOST_REPEATED:
        return source
    counts = weights.astype(int)
    labels = None if source.labels is None else np.repeat(source.labels, counts)
    return source._replace(
        spins=np.repeat(source.spins, counts, axis=0), labels=labels, weights=None
    )


def _named_source(text: str, options: dict[str, Any]) -> Source:
    kind, _, bits = text.partition(":")
    if text == "digits" or kind == "adder":
        if options:
            raise ValueError(f"{text} has no columns to choose; {', '.join(options)} is for files")
        return _digits() if text == "digits" else _adder(text, bits)
    try:
        table = datasets.read_table(Path(text), **options)
    except FileNotFoundError:
        raise ValueError(
            f"no data set or file named {text!r}; expected digits, adder:N, or a file such as "
            "data.csv"
        ) from None
    labels, classes = table.labels, table.classes
    if labels is not None and classes is not None and np.any(labels < 0):
        labels, classes = np.where(labels < 0, len(classes), labels), (*classes, "unlabelled")
    # A name of any bytes, as text that can be written.
    name = text.encode(errors="backslashreplace").decode()
    picture = picture_of(table.spins.shape[1], table.names)
    return Source(name, table.spins, labels, picture, None, table.names, classes)


def _digits() -> Source:
    spins, labels = datasets.digits()
    return Source("digits", spins, labels, (8, 8))


def _adder(text: str, bits: str) -> Source:
    if not (bits.isascii() and bits.isdigit()):
        raise ValueError(f"{text!r} names no adder; write adder:N, for example adder:3")
    n, spins = int(bits), datasets.adder(int(bits))
    numbers = (("a", n), ("b", n), ("c", n + 1))
    names = tuple(f"{number}{k}" for number, width in numbers for k in range(width))
    return Source(text, spins, None, (1, spins.shape[1]), None, names)


def picture_of(n_spins: int, names: tuple[str, ...] | None = None) -> tuple[int, int]:
    """Rows and columns of a square number of spins, 16 or more; else, or to show names, one row."""
    side = math.isqrt(n_spins)
    read = names is not None and n_spins <= _STRIP and not all(name.isdigit() for name in names)
    square = side**2 == n_spins and side >= _LEAST_SIDE and not read
    return (side, side) if square else (1, n_spins)
