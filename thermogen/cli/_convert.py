"""`thermogen convert`: a model from one format to another."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .. import _signals, interop
from ._app import NoCache, one_line, printable


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The model to read.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    vartype: Annotated[
        str | None,
        typer.Option(
            metavar="SPIN|BINARY",
            help="Variables of IN, where it does not say; and of OUT, if it is a .coo file.",
        ),
    ] = None,
    no_cache: NoCache = False,
) -> None:
    """Write the model IN in the format of OUT, told by its suffix.

    \b
    .eqx      an energy of thermogen          .graphml  graph with weights and fields
    .coo      coordinate list of dimod        .terms    text, one term a line
    .mtx      Matrix Market                   .gset     graph to be cut
    .qubo     QUBO of qbsolv                  .h5       machine of the package rbms
    .dat      parameters of adabmDCA, of two states

    \b
    Examples:
      thermogen convert report/model.eqx model.qubo
      thermogen convert matrix.mtx model.eqx --vartype BINARY
    """

    with (
        one_line("convert"),
        _signals.interruptible(),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        model = interop.read_model(source, vartype=vartype)
        interop.write_model(target, *model, vartype=vartype or "SPIN")
    for warning in said:
        print(f"thermogen convert: {warning.message}", file=sys.stderr)
    print(printable(target))
