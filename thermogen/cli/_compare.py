"""`thermogen compare`: two models side by side."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from .. import _signals, datasets, interop, storage, study
from .._checks import seeded_key
from ..energies import n_visible
from ._app import NoCache, one_line

_SHOWN = 12  # states of each library on the screen


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A model, such as model.eqx, or a study's folder.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other one.")],
    data: Annotated[
        Path | None, typer.Option(help="Table of samples that both are judged by.")
    ] = None,
    beta: Annotated[float, typer.Option(help="Inverse temperature of both.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures for machines.")
    ] = False,
    no_cache: NoCache = False,
) -> None:
    """Set two models of the same spins side by side.

    Likelihoods of DATA with their errors; Kullback-Leibler divergences, and their sum, an upper
    bound of both in which no ln Z enters; the states of one library and those of the other that
    they overlap with. Libraries are those of the studies, or are searched for.

    \b
    Examples:
      thermogen compare report/model.eqx other.eqx --data held_out.csv
      thermogen compare report/ second/ --json
    """
    with one_line("compare"), _signals.interruptible():
        first, second = _side(a), _side(b)
        samples = None if data is None else datasets.load(data)
        if samples is not None and samples.shape[1] != n_visible(first.energy):
            raise ValueError(
                f"{data} has {samples.shape[1]} spins; {a} has {n_visible(first.energy)}"
            )
        found = study.set_side_by_side(first, second, beta, key=seeded_key(seed), data=samples)
        figures = study.versus_figures(found)
    if as_json:
        print(json.dumps(figures, indent=2, allow_nan=False))
        return
    for table in (_models(found), _divergences(found), *(_states(found, k) for k in (0, 1))):
        Console().print(table)


def _side(path: Path) -> study.Side:
    """A model, and of a study its library."""
    if not path.is_dir():
        return study.Side(str(path), interop.read_model(path).energy)
    library = path / "library.npz"
    return study.Side(
        str(path),
        storage.load_energy(path / "model.eqx"),
        storage.load_library(library) if library.exists() else None,
    )


def _models(found: study.Versus) -> Table:
    table = Table(title="Models")
    for head in ("", "parameters", "states", "of both", "ln p, nats a sample"):
        table.add_column(head, justify="right" if head else "left")
    for k, name in enumerate(found.names):
        likelihood = "–"
        if found.log_likelihoods is not None:
            likelihood = _with_error(*found.log_likelihoods[k])
        shared = int(np.sum(found.overlaps[k] > study.SAME))
        counts = found.parameters[k], len(found.free_energies[k]), shared
        table.add_row(name, *map(str, counts), likelihood)
    if found.gain is not None:
        table.caption = f"B over A: {_with_error(*found.gain)} nats a sample"
    return table


def _divergences(found: study.Versus) -> Table:
    table = Table(title="Kullback-Leibler divergences")
    table.add_column("")
    table.add_column("nats", justify="right")
    apart = found.divergence
    rows = (
        ("KL(A, B)", apart.forward),
        ("KL(B, A)", apart.backward),
        ("sum, a bound of both", apart.symmetric),
    )
    for name, measured in rows:
        table.add_row(name, _with_error(float(measured.value), float(measured.standard_error)))
    return table


def _states(found: study.Versus, side: int) -> Table:
    free_energies, nearest, overlaps = (
        x[side] for x in (found.free_energies, found.nearest, found.overlaps)
    )
    ours, theirs = ("A", "B") if side == 0 else ("B", "A")
    table = Table(title=f"States of {ours}")
    for head in (f"state of {ours}", "F", f"nearest of {theirs}", "overlap"):
        table.add_column(head, justify="right")
    for k in range(min(len(free_energies), _SHOWN)):
        table.add_row(str(k), f"{free_energies[k]:.4g}", str(nearest[k]), f"{overlaps[k]:.3f}")
    if len(free_energies) > _SHOWN:
        table.caption = f"and {len(free_energies) - _SHOWN} more"
    return table


def _with_error(value: float, error: float) -> str:
    return f"{value:.4g} ± {error:.2g}"
