"""`thermogen study` and `thermogen render`: the main job, and its page."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import _cluster, _signals, _tasks, study
from .._solution import RESULTS
from ..runs import (
    CheckpointError,
    ProcessLostError,
    check_same_call,
    from_first,
    is_first,
    together,
)
from ._app import NoCache, one_line, printable, say, write_text
from ._columns import Columns, Labels, Missing, ThresholdGrey, marks
from ._folder import (
    STATES,
    UNFINISHED,
    check_free,
    drop,
    loaded,
    put,
    reserved,
    taken_up,
    to_go_on,
    typed,
    write,
)


def study_data(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="digits, adder:N, or a file of bits or spins: .csv, .tsv, .txt, .arff, .npy, "
            ".npz, .parquet, .mat, .h5. Without it the model that is given draws samples of its "
            "own.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"),
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="What is learned: pairwise, rbm:HIDDEN, interactions:DEGREE or complete; or the "
            "file of a model that is studied as it is, such as model.eqx.",
        ),
    ] = "pairwise",
    objective: Annotated[
        study.Objective | None,
        typer.Option(help="How it is learned: likelihood for an RBM, else pseudolikelihood."),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Inverse temperature of the search; 1 if not given, unless held-out samples want "
            "another one."
        ),
    ] = None,
    functional: Annotated[
        study.Functional, typer.Option(help="Mean-field free energy to minimise.")
    ] = study.Functional.naive,
    l2: Annotated[
        float | None,
        typer.Option(
            help="Ridge on the couplings, nats per sample; chosen by held-out samples if not given."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="A file of one weight a sample, such as .csv; equal if not given."),
    ] = None,
    labels: Labels = None,
    columns: Columns = None,
    missing: Missing = None,
    threshold_grey: ThresholdGrey = None,
    starts: Annotated[int, typer.Option(help="Random starts of the search.")] = 576,
    threshold: Annotated[
        float, typer.Option(help="Sweeps that a bound state must trap the dynamics.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Without other ways of learning, scan of temperatures, and experts."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures of summary.json at the end.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with what was cut short in that folder, to the same result; else begin. "
            "Without it such a folder is refused.",
        ),
    ] = False,
    task: Annotated[
        int | None,
        typer.Option(help="Number of this task, from 0; by default that in an array of SLURM."),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(help="Tasks that search apart, each in a folder OUT/task-000 ...")
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="Share the work with the processes that SLURM, Open MPI, Kubernetes or a cloud "
            "TPU started with this one, over the devices of all.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Elsewhere: address of process 0, on any port that is free,"
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="number of processes,")] = None,
    process: Annotated[int | None, typer.Option(help="and number of this one, from 0.")] = None,
    no_cache: NoCache = False,
) -> None:
    """Learn an energy from DATA, find its bound states, and write a report.

    Ridge and inverse temperature are those that predict held-out samples best, unless they are
    given.

    Writes report.html, summary.json, library.npz, model.eqx, study.npz (all that the page shows)
    and, where there are samples enough to compare them with one model, experts.eqx. Ctrl-C and
    SIGTERM keep what was done. While it runs, and where it was cut short, what there is stands in
    the folder "unfinished": the same command with --resume goes on from there.

    \b
    Examples:
      thermogen study digits
      thermogen study adder:3 --out adder
      thermogen study digits --functional tap --beta 1.5
      thermogen study digits --model rbm:32 --quick
      thermogen study --model trained.eqx
      thermogen study samples.csv --labels kind --columns 2-40
      thermogen study samples.csv --starts 8192
      thermogen study samples.csv --starts 8192 --resume
      thermogen study samples.csv --task 3 --tasks 10
      srun thermogen study samples.csv --distributed
    """
    with contextlib.ExitStack() as stack:
        with one_line("study"), _signals.interruptible():
            _cluster.join(distributed, coordinator, processes, process)
            own = _tasks.this_task(task, tasks)
            out = own.folder(out)
            settings = study.Settings(
                beta=beta,
                functional=functional,
                l2=l2,
                n_starts=starts,
                threshold=threshold,
                seed=seed,
                task=own.index,
                model=model,
                objective=objective,
                quick=quick,
            )
            table = {
                "labels": labels,
                "columns": columns,
                "missing": marks(missing),
                "threshold": threshold_grey,
            }
            job = dataclasses.replace(_begun(data, weights, settings, table), command=typed())
            for note in study.check_size(job):
                say(f"thermogen study: {note}")
            n_spins = job.source.spins.shape[1]
            told = {"data": data, **dataclasses.asdict(settings)}
            with together():
                from_first(lambda: stack.enter_context(reserved(out, n_spins)))
                if resume:
                    job = taken_up(out / UNFINISHED, job)
                else:
                    from_first(lambda: check_free(out / UNFINISHED))
                from_first(lambda: _tasks.record(out, own, told))
                # All have read what there is when the first one begins to write.
                check_same_call("thermogen study", (job.settings, job.source, job.finished))
        if not resume and is_first():
            drop(out / UNFINISHED)
        _run(job, out, as_json)


def _begun(
    data: str | None, weights: Path | None, settings: study.Settings, table: dict[str, Any]
) -> study.Study:
    """A study of data, of a model that was given, or of both."""
    given = study.given_model(settings.model)
    if data is not None:
        return study.begin(study.load_source(data, weights, **table), settings, given)
    if given is None:
        raise ValueError("DATA is missing; without it a --model FILE has to be given")
    if weights is not None or any(table.values()):
        raise ValueError("--weights and columns belong to DATA, which is missing")
    return study.begin(study.drawn(given, settings), settings, given)


def _run(job: study.Study, out: Path, as_json: bool) -> None:
    """Do the job, keep what there is after every stage, and put all in its place at the end.

    Of several processes the first one writes, and speaks.
    """
    unfinished = out / UNFINISHED

    def keep(so_far: study.Study) -> None:
        if not is_first():
            return
        try:
            write(so_far, unfinished, final=False)
        except (OSError, ValueError) as error:  # the work goes on: its end may find room again
            print(f"thermogen study: {unfinished} cannot be written: {error}", file=sys.stderr)

    code, how = None, f"\nTo go on: {to_go_on(out)}"
    keep(job)
    try:
        with together():
            study.run_study(
                job,
                progress=study.progress if is_first() else _unseen,
                on_stage=keep,
                checkpoint=unfinished / STATES,
                sharding=_cluster.all_devices(),
            )
    except (OSError, ValueError, ProcessLostError) as error:
        say(f"thermogen study: {error}")
        job.interrupted, code = True, 1
        # States of another run stay in the way, whatever is tried.
        how = "" if isinstance(error, CheckpointError) else how
        if type(error) is ValueError and not job.finished:
            # What cannot be done must not be in the way of what can.
            how = ""
            if is_first():
                drop(unfinished)
    files = put(job, out) if is_first() else []
    if job.interrupted:
        kept = f"; kept what was done: {', '.join(files)} in {out}" if files else ""
        say(f"Interrupted{kept}{how}")
        raise typer.Exit(code or _signals.exit_code())
    if is_first():
        print(
            (out / "summary.json").read_text().rstrip()
            if as_json
            else printable(out / "report.html")
        )
    if job.fit is not None and study.fit_failed(job):
        message = RESULTS[job.fit.result]
        say(f"thermogen study: the fit failed, do not trust it: {message}")
        raise typer.Exit(1)


@contextlib.contextmanager
def _unseen(title: str) -> Iterator[Callable[..., None]]:
    """The display of a stage in all processes but the first."""
    yield lambda *_: None


def render(
    out: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a study, with its study.npz.")
    ] = Path("report"),
    no_cache: NoCache = False,
) -> None:
    """Write the page of a study again, from what it saved.

    \b
    Example:
      thermogen render report
    """
    with one_line("render"):
        job = loaded(out)
        write_text(out / "report.html", study.render(job))
        print(printable(out / "report.html"))
