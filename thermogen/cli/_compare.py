"""`thermogen compare`: two models side by side."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from .. import _signals, datasets, interop, search, storage, study
from .._checks import check_finite, seeded_key
from ..energies import n_visible
from ._app import NoCache, model_at, one_line
from ._columns import Columns, Labels, Missing, ThresholdGrey, in_order, marks

_SHOWN = 12  # states of each library on the screen


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A model, such as model.eqx, or a study's folder.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other one.")],
    data: Annotated[
        Path | None, typer.Option(help="Table of samples that both are judged by.")
    ] = None,
    labels: Labels = None,
    columns: Columns = None,
    missing: Missing = None,
    threshold_grey: ThresholdGrey = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Inverse temperature of both; that of two studies at the same one, else 1, if not "
            "given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures for machines.")
    ] = False,
    no_cache: NoCache = False,
) -> None:
    """Set two models of the same spins side by side.

    Likelihoods of DATA with their errors; Kullback-Leibler divergences, and their sum, an upper
    bound of both in which no ln Z enters; the states of one library and those of the other that
    they overlap with. States are minima of the naive mean-field free energy: those of a study
    where it has searched for them at this inverse temperature, else they are searched for.

    \b
    Examples:
      thermogen compare report/model.eqx other.eqx --data held_out.csv
      thermogen compare report/ second/ --json
    """
    with one_line("compare"), _signals.interruptible():
        models = model_at(a), model_at(b)
        _check_order(models)
        studies = _study_at(a), _study_at(b)
        beta = _beta_of(studies) if beta is None else beta
        check_finite("--beta", beta, positive=True)
        first, second = (
            study.Side(str(path), model.energy, _library(path, job, beta))
            for path, model, job in zip((a, b), models, studies, strict=True)
        )
        options = {
            "labels": labels,
            "columns": columns,
            "missing": marks(missing),
            "threshold": threshold_grey,
        }
        samples = _samples(data, options, models[0])
        found = study.set_side_by_side(first, second, beta, key=seeded_key(seed), data=samples)
        figures = {"beta": beta, **study.versus_figures(found)}
    if as_json:
        print(json.dumps(figures, indent=2, allow_nan=False))
        return
    for table in (_models(found, beta), _divergences(found), *(_states(found, k) for k in (0, 1))):
        Console().print(table)


def _check_order(models: tuple[interop.Model, interop.Model]) -> None:
    """Refuse the same spins in two orders: spins of one would be set beside others."""
    names = [model.names[: n_visible(model.energy)] for model in models]
    if names[0] != names[1] and set(names[0]) == set(names[1]):
        raise ValueError(
            "A and B have the same spins in different orders; expected models of one order"
        )


def _study_at(path: Path) -> study.Study | None:
    """The study of a folder; None for a file, and where the study is not at hand."""
    stored = path / "study.npz"
    return study.load_study(stored) if stored.exists() else None


def _beta_of(studies: tuple[study.Study | None, study.Study | None]) -> float:
    """The inverse temperature that both studies have; 1 where there is none."""
    first, second = (None if job is None else job.beta for job in studies)
    return 1.0 if first is None or first != second else first


def _library(path: Path, job: study.Study | None, beta: float) -> search.Library | None:
    """The library of a study, if it is what a search at that inverse temperature would find."""
    stored = path / "library.npz"
    if job is None or not stored.exists():
        return None
    is_naive = job.settings.functional is study.Functional.naive
    return storage.load_library(stored) if is_naive and job.beta == beta else None


def _samples(path: Path | None, options: dict[str, Any], model: interop.Model) -> np.ndarray | None:
    """Samples of a table, in the order of the model."""
    if path is None:
        if any(options.values()):
            raise ValueError("columns belong to --data, which is missing")
        return None
    table = datasets.read(path, **options)
    visible, width = n_visible(model.energy), table.spins.shape[1]
    if width != visible:
        raise ValueError(f"{path} has {width} spins; the models have {visible} visible ones")
    return in_order(table, model.names[:visible], path).spins


def _models(found: study.Versus, beta: float) -> Table:
    table = Table(title=f"Models at beta = {beta:.4g}")
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
