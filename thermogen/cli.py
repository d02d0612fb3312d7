"""The command line: arguments in, functions of the other rooms, files out."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer

    from . import report
except ModuleNotFoundError as error:
    raise ImportError(
        f"the command line needs {error.name}; install it with: pip install 'thermogen[study]'"
    ) from error

import jax
import jax.numpy as jnp
import numpy as np

from . import retrieval, storage
from ._checks import seeded_key
from .energies import n_visible

_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
_AT_ONCE = 64  # cues that are answered together
_N_SHOWN, _WIDTH = 20, 64  # rows and spins of the table on the screen

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
    l2: Annotated[
        float | None,
        typer.Option(
            help="Ridge on the couplings, nats per sample; chosen by held-out samples if not given."
        ),
    ] = None,
    walkers: Annotated[int, typer.Option(help="Walkers of the search.")] = 64,
    hops: Annotated[int, typer.Option(help="Hops of each walker.")] = 8,
    threshold: Annotated[
        float, typer.Option(help="Sweeps that a bound state must trap the dynamics.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Learn an energy from DATA, find its bound states, and write a report.

    Writes report.html, summary.json, library.npz, model.eqx and, where there are samples enough to
    compare them with one model, experts.eqx. Ctrl-C keeps what was done.

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


@app.command()
def recall(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An energy, such as model.eqx of a study.")
    ],
    cues: Annotated[
        Path,
        typer.Argument(
            metavar="CUES",
            help="A .csv, .npy or .npz table, one cue a row: bits or spins, and ? or nothing "
            "(.csv) or NaN (arrays) where unknown.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write to, .npz or .csv.")] = Path(
        "answers.npz"
    ),
    beta: Annotated[float, typer.Option(help="Inverse temperature.")] = 1.0,
    answers: Annotated[int, typer.Option(help="Answers that are kept for each cue.")] = 8,
    chains: Annotated[int, typer.Option(help="Annealed chains for each cue.")] = 64,
    sweeps: Annotated[int, typer.Option(help="Temperatures of the annealing.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Complete CUES: what is known is held, the rest is found by annealing under MODEL.

    Prints the best answer to each cue as bits and writes all answers with their probabilities and
    the logarithms of these, the most probable first: arrays configurations, probabilities,
    log_probabilities and magnetizations, or one line an answer.

    \b
    Examples:
      thermogen recall report/model.eqx cues.csv
      thermogen recall report/model.eqx cues.npy --out answers.csv --beta 2 --answers 3
    """
    try:
        energy, (spins, known) = storage.load_energy(model), retrieval.load_cues(cues)
        if out.suffix not in (".npz", ".csv"):
            raise ValueError(f"--out must end in .npz or .csv, got {out}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        if spins.shape[1] != n_visible(energy):
            raise ValueError(
                f"{cues} has {spins.shape[1]} columns; the model has {n_visible(energy)} visible "
                "spins"
            )
        counts = {"capacity": answers, "n_chains": chains, "n_sweeps": sweeps}
        found = _answers(energy, spins, known, beta, seed, counts)
        with storage.write_atomically(out) as stream:
            if out.suffix == ".npz":
                np.savez_compressed(stream, **found)
            else:
                stream.write("\n".join(_lines(found)).encode() + b"\n")
    except (ValueError, OSError) as error:
        print(f"thermogen recall: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    _show(found, known)
    print(out)


def _answers(energy, spins, known, beta, seed, counts) -> dict[str, Any]:
    """All cues through one compiled function, `_AT_ONCE` at a time."""
    keys = jax.random.split(seeded_key(seed), len(spins))
    inputs = jnp.asarray(spins), jnp.asarray(known), keys

    def answer(inputs):
        cue, mask, key = inputs
        return retrieval.recall(energy, cue, mask, beta, key=key, **counts)

    found = jax.lax.map(answer, inputs, batch_size=min(_AT_ONCE, len(spins)))
    log_probabilities = np.asarray(found.log_probabilities)
    if np.any(np.isneginf(log_probabilities[:, 0])):
        raise ValueError("energies are not finite: check the parameters of the model and beta")
    return {
        "configurations": np.asarray(found.configurations, np.int8),
        "probabilities": np.asarray(found.probabilities),
        "log_probabilities": log_probabilities,
        "magnetizations": np.asarray(found.magnetizations),
    }


def _lines(found: dict[str, np.ndarray]) -> list[str]:
    """One line an answer: row of the cue, counted from 0, probability, its logarithm, spins."""
    n = found["configurations"].shape[2]
    lines = [",".join(["cue", "probability", "log_probability", *(f"s{k}" for k in range(n))])]
    for row, (configurations, p, log_p) in enumerate(_of_cues(found)):
        lines += [
            ",".join([str(row), f"{p[k]:.6g}", f"{log_p[k]:.6g}", *map(str, configurations[k])])
            for k in np.flatnonzero(log_p > -np.inf)
        ]
    return lines


def _show(found: dict[str, np.ndarray], known: np.ndarray) -> None:
    """The top answers as bits, those of the first rows."""
    print(f"{'cue':>5}{'unknown':>9}{'answers':>9}{'p':>8}{'ln p':>9}  best answer")
    for row, (configurations, p, log_p) in enumerate(_of_cues(found)[:_N_SHOWN]):
        bits = "".join("1" if s > 0 else "0" for s in configurations[0, :_WIDTH])
        cut = "..." if configurations.shape[1] > _WIDTH else ""
        counts = f"{np.sum(~known[row]):>9}{np.sum(log_p > -np.inf):>9}"
        print(f"{row:>5}{counts}{p[0]:>8.4f}{log_p[0]:>9.2f}  {bits}{cut}")
    if len(known) > _N_SHOWN:
        print(f"  and {len(known) - _N_SHOWN} more")


def _of_cues(found: dict[str, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    names = "configurations", "probabilities", "log_probabilities"
    return list(zip(*(found[name] for name in names), strict=True))


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
    parts = {
        "model.eqx": (storage.save_energy, job.fit.energy),
        "library.npz": (storage.save_library, job.library),
        "experts.eqx": (storage.save_energy, job.experts),
    }
    for name, (save, part) in parts.items():
        if part is None:
            (out / name).unlink(missing_ok=True)
        else:
            save(out / name, part)
    figures = json.dumps(report.summary(job), indent=2, allow_nan=False)
    _write_text(out / "summary.json", figures + "\n")
    return [*(name for name, (_, part) in parts.items() if part is not None), "summary.json"]


def _write_text(path: Path, text: str) -> None:
    with storage.write_atomically(path) as stream:
        stream.write(text.encode())
