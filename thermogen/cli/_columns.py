"""Options that say what the columns of a table are."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import datasets

Labels = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of class labels, by name or number from 0."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Columns of spins: names, numbers from 0, ranges such as 2-40; all others if not "
        "given.",
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Values that stand for what is missing, besides empty cells, NA, NaN, null, None, ? "
        "and a point: for example 0 among -1 and +1.",
    ),
]
ThresholdGrey = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE",
        help="Grey values above it are up: a number; mean or median, of each column for itself; "
        "or otsu, one cut of all values.",
    ),
]


def marks(text: str | None) -> tuple[str, ...]:
    """The values of `--missing`."""
    return () if text is None else tuple(part.strip() for part in text.split(","))


def in_order(table: datasets.Table, names: Sequence[Hashable], path: Path) -> datasets.Table:
    """A table with its spins in the order of a model, where both have names; else as it is.

    Args:
        table: as many spins as the model has visible ones.
        names: names of these in the model; numbers are none.
        path: what a message calls the table.

    Raises:
        ValueError: if the model has a spin that the table has not.
    """
    if table.names is None or all(isinstance(name, int) for name in names):
        return table
    wanted = tuple(map(str, names))
    for name in wanted:
        if name not in table.names:
            raise ValueError(
                f"{path} has no spin named {name!r}, which the model has; expected its names, in "
                "any order"
            )
    columns = [table.names.index(name) for name in wanted]
    return table._replace(spins=table.spins[:, columns], names=wanted)
