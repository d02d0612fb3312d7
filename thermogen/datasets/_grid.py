"""A table as it was found, before it is known which of its columns are spins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._checks import check_memory
from ._words import as_number, is_missing


@dataclass(frozen=True)
class Grid:
    """Numbers and words in rows and columns.

    Attributes:
        name: what errors call the table.
        values: the numbers, shape `(rows, columns)`, real or boolean; NaN for what is missing and
            for all of a column of words.
        words: the columns in which some cell is a word.
        texts: the texts of any column, None for what is missing.
        header: names of the columns, if it has any.
        rows: names of the rows, if its source tells them apart from the columns.
        lines: line of each row in a text file.
        beside: the array of that name in the same file, or None.
        spare: whether the values are of no use once they were taken, and may be overwritten.
    """

    name: str
    values: np.ndarray
    words: frozenset[int]
    texts: Callable[[int], np.ndarray]
    header: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    lines: Sequence[int] | None = None
    beside: Callable[[str], Any] = lambda _: None
    spare: bool = False

    def place(self, row: int, column: int) -> str:
        """Where a cell stands, as a person would look it up."""
        start = f"row {row}" if self.lines is None else f"line {self.lines[row]}"
        if self.header is not None:
            counted = " (rows counted from 0)" if self.lines is None else ""
            return f"{start}, column {self.header[column]!r}{counted}"
        base = "counted from 0" if self.lines is None else "columns counted from 0"
        return f"{start}, column {column} ({base})"

    def found(self, row: int, column: int) -> str:
        """A cell and its place, for an error."""
        text = self.texts(column)[row]
        shown = repr(text) if column in self.words else f"the value {text or 'nan'}"
        return f"{shown} at {self.place(row, column)}"

    def check(self) -> None:
        """Raise where there are no rows and columns, or no entries in them."""
        shape = self.values.shape
        if len(shape) != 2:
            raise ValueError(f"{self.name} has shape {shape}; expected (n_samples, n_spins)")
        if 0 in shape:
            raise ValueError(f"{self.name} is empty: it has shape {shape}")


def grid_of_numbers(name: str, values: np.ndarray, **known: Any) -> Grid:
    """The grid of an array of real numbers or booleans.

    Raises:
        ValueError: for another dtype.
    """
    # jax's issubdtype, for it knows bfloat16 and the like as well.
    real = any(jnp.issubdtype(values.dtype, kind) for kind in (jnp.integer, jnp.floating))
    if not real and values.dtype != bool:
        raise ValueError(f"{name} has dtype {values.dtype}; expected real numbers or booleans")
    return Grid(
        name, values, frozenset(), lambda column: texts_of_numbers(values[:, column]), **known
    )


def grid_of_texts(
    name: str, codes: np.ndarray, vocabulary: Sequence[str | None], **known: Any
) -> Grid:
    """The grid of cells that are texts: entry `codes[i, j]` of the vocabulary, or None.

    Raises:
        ValueError: if there is no memory for the table.
    """
    texts = [None if text is None or is_missing(text) else text.strip() for text in vocabulary]
    numbers = [None if text is None else as_number(text) for text in texts]
    word = np.array(
        [t is not None and x is None for t, x in zip(texts, numbers, strict=True)], bool
    )
    words = np.flatnonzero(word[codes].any(axis=0)).tolist() if word.any() else []
    check_memory(f"{name}, read as a table,", 16.0 * codes.size)
    values = np.array([np.nan if x is None else x for x in numbers])[codes]
    values[:, words] = np.nan
    of_code = np.array([*texts, None], object)[:-1]
    return Grid(
        name,
        values,
        frozenset(words),
        lambda column: of_code[codes[:, column]],
        spare=True,
        **known,
    )


def texts_of_numbers(column: np.ndarray) -> np.ndarray:
    known = [None if value != value else _text(value) for value in column.tolist()]
    return np.array([*known, None], object)[:-1]


def _text(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
