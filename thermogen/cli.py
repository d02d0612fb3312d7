"""The command line: arguments in, functions of the other rooms, files out."""

import json
import sys
from pathlib import Path
from typing import Annotated

try:
    import typer

    from . import report
except ModuleNotFoundError as error:
    raise ImportError(
        f"the command line needs {error.name}; install it with: pip install 'thermogen[study]'"
    ) from error

from . import storage

_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `thermogen` command."""
    app()


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"thermogen {report.version()}")
        raise typer.Exit()
    return wanted


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Statistical mechanics of generative models on binary spins.

    Start with: thermogen study digits
    """


@app.command()
def study(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="digits, adder:N, or a .npy, .npz or .csv file of bits or spins."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"),
    beta: Annotated[float, typer.Option(help="Inverse temperature of the search.")] = 1.0,
    functional: Annotated[
        report.Functional, typer.Option(help="Mean-field free energy to minimise.")
    ] = report.Functional.naive,
    l2: Annotated[float, typer.Option(help="Ridge penalty on the couplings.")] = 1e-3,
    walkers: Annotated[int, typer.Option(help="Walkers of the search.")] = 64,
    hops: Annotated[int, typer.Option(help="Hops of each walker.")] = 8,
    threshold: Annotated[
        float, typer.Option(help="Sweeps that a bound state must trap the dynamics.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Learn an energy from DATA, find its bound states, and write a report.

    Writes report.html, summary.json, library.npz and model.eqx. Ctrl-C keeps what was done.

    \b
    Examples:
      thermogen study digits
      thermogen study adder:3 --out adder
      thermogen study digits --functional tap --beta 1.5
      thermogen study samples.csv --walkers 256 --hops 32
    """
    try:
        settings = report.Settings(beta, functional, l2, walkers, hops, threshold, seed)
        job = report.Study(report.load_source(data), settings)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError) as error:
        print(f"thermogen study: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    _run(job, out)


def _run(job: report.Study, out: Path) -> None:
    """Do the job and write every file as soon as there is something to write."""
    report.run_study(job, progress=report.progress, on_stage=lambda so_far: _save(so_far, out))
    files = _save(job, out)
    if not files:
        print("Interrupted before anything was learned; nothing was written.", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    _write_text(out / "report.html", report.render(job))
    if job.interrupted:
        kept = ", ".join([*files, "report.html"])
        print(f"Interrupted; kept what was done: {kept} in {out}", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    print(out / "report.html")


def _save(job: report.Study, out: Path) -> list[str]:
    """Write what there is, remove what an earlier study left, and name the files written."""
    if job.fit is None:
        return []
    storage.save_energy(out / "model.eqx", job.fit.energy)
    if job.library is None:
        (out / "library.npz").unlink(missing_ok=True)
    else:
        storage.save_library(out / "library.npz", job.library)
    figures = json.dumps(report.summary(job), indent=2, allow_nan=False)
    _write_text(out / "summary.json", figures + "\n")
    return ["model.eqx", *(["library.npz"] if job.library is not None else []), "summary.json"]


def _write_text(path: Path, text: str) -> None:
    with storage.write_atomically(path) as stream:
        stream.write(text.encode())
