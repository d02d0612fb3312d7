"""Results that show themselves as a table: in a terminal as text, in a notebook as HTML."""

import abc
import html
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

# Rows that are shown; what follows is counted.
_ROWS = 10
# Spins of a configuration that are shown.
_SPINS = 64


class Table(NamedTuple):
    """A headline and columns of words, all of one length.

    Attributes:
        headline: what it is, in one line.
        columns: entries by the name of their column.
    """

    headline: str
    columns: Mapping[str, Sequence[str]]

    def text(self) -> str:
        """For a terminal."""
        rows = self._rows()
        shown = [tuple(self.columns), *rows[:_ROWS]]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = [
            "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
            for row in shown
        ]
        return "\n".join([self.headline, *(lines if rows else []), *_rest(rows)])

    def html(self) -> str:
        """For a notebook."""
        rows = self._rows()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in row) + "</tr>"
            for row in rows[:_ROWS]
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in _rest(rows))
        return f"<p>{html.escape(self.headline)}</p>{table if rows else ''}{rest}"

    def _rows(self) -> list[tuple[str, ...]]:
        return list(zip(*self.columns.values(), strict=True))


def are_known(numbers: PyTree) -> bool:
    """Whether all of them are known: no tracers, and no shapes."""
    leaves = jax.tree.leaves(numbers)
    return all(eqx.is_array_like(x) and not isinstance(x, Tracer) for x in leaves)


class AbstractShown(abc.ABC):
    """What a person wants to see as a table; its arrays where these are not known numbers."""

    @abc.abstractmethod
    def _table(self) -> Table:
        """What is shown where arrays are known."""

    def _is_known(self) -> bool:
        """Whether all of it are known numbers: no tracers, and no shapes."""
        return are_known(self)

    def __repr__(self) -> str:
        return self._table().text() if self._is_known() else eqx.tree_pformat(self)

    def _repr_html_(self) -> str:
        if self._is_known():
            return self._table().html()
        return f"<pre>{html.escape(repr(self))}</pre>"


class Shown(AbstractShown, eqx.Module):
    """A result of arrays of which a person wants to see rows."""

    # An array that has one entry a row.
    _of_rows: ClassVar[str]

    def _is_known(self) -> bool:
        """Whether it is one result of known numbers, no batch."""
        return are_known(self) and np.ndim(getattr(self, self._of_rows)) == 1


def number(x: float | np.number) -> str:
    """A number to three digits; what is not known as a dash."""
    if np.isnan(x):
        return "-"
    return f"{float(x):.0f}" if 100 <= abs(x) < 1e5 else f"{float(x):.3g}"


def spreads(parts: Mapping[str, Array | np.ndarray]) -> dict[str, list[str]]:
    """Columns that say of groups of numbers how many they are and how they spread."""
    known = [np.asarray(x, float).ravel() for x in parts.values()]

    def column(figure: Callable[[np.ndarray], np.floating]) -> list[str]:
        return [number(figure(x)) if x.size else "-" for x in known]

    return {
        "": list(parts),
        "number": [str(x.size) for x in known],
        "mean": column(np.mean),
        "spread": column(np.std),
        "least": column(np.min),
        "largest": column(np.max),
    }


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def signs(rows: np.ndarray) -> list[str]:
    """Configurations as a person reads them: + and -, the first 64 spins."""
    words = ["".join("+" if x > 0 else "-" for x in row[:_SPINS]) for row in rows]
    return [word + "..." if rows.shape[1] > _SPINS else word for word in words]


def interval(ends: np.ndarray) -> str:
    """A confidence interval."""
    return f"{number(ends[0])} to {number(ends[1])}"


def _rest(rows: list) -> list[str]:
    return [f"... {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
