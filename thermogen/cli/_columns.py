"""Options that say what the columns of a table are."""

from typing import Annotated

import typer

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
