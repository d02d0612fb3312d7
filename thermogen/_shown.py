"""Results that show themselves as a table: in a terminal as text, in a notebook as HTML."""

import abc
import html
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

# Rows that are shown; what follows is counted.
_ROWS = 10


class Table(NamedTuple):
    """A headline and columns of words, all of one length.

    Attributes:
        headline: what it is, in one line.
        columns: entries by the name of their column.
    """

    headline: str
    columns: Mapping[str, Sequence[str]]


class Shown(eqx.Module):
    """A result of arrays of which a person wants to see rows."""

    # An array that has one entry a row.
    _of_rows: ClassVar[str]

    @abc.abstractmethod
    def _table(self) -> Table:
        """What is shown where arrays are known."""

    def _is_known(self) -> bool:
        """Whether it is one result of known numbers: no tracers, shapes or batches."""
        known = all(
            eqx.is_array_like(x) and not isinstance(x, Tracer) for x in jax.tree.leaves(self)
        )
        return known and np.ndim(getattr(self, self._of_rows)) == 1

    def __repr__(self) -> str:
        if not self._is_known():
            return eqx.tree_pformat(dict(vars(self)))
        headline, columns = self._table()
        rows = list(zip(*columns.values(), strict=True))
        shown = [tuple(columns), *rows[:_ROWS]]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = [
            "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
            for row in shown
        ]
        return "\n".join([headline, *(lines if rows else []), *_rest(rows)])

    def _repr_html_(self) -> str:
        if not self._is_known():
            return f"<pre>{html.escape(repr(self))}</pre>"
        headline, columns = self._table()
        rows = list(zip(*columns.values(), strict=True))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in row) + "</tr>"
            for row in rows[:_ROWS]
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in _rest(rows))
        return f"<p>{html.escape(headline)}</p>{table if rows else ''}{rest}"


def number(x: float | np.number) -> str:
    """A number to three digits; what is not known as a dash."""
    if np.isnan(x):
        return "-"
    return f"{float(x):.0f}" if 100 <= abs(x) < 1e5 else f"{float(x):.3g}"


def interval(ends: np.ndarray) -> str:
    """A confidence interval."""
    return f"{number(ends[0])} to {number(ends[1])}"


def _rest(rows: list) -> list[str]:
    return [f"... {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
