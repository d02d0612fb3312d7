"""The command line: arguments in, functions of the other rooms, files out."""

import contextlib
import dataclasses
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, cast

try:
    import typer

    from . import study
except ModuleNotFoundError as error:
    raise ImportError(
        f"the command line needs {error.name}; install it with: pip install 'thermogen[study]'"
    ) from error

import jax
import jax.numpy as jnp
import numpy as np

from . import _cluster, _signals, _tasks, retrieval, storage
from ._checks import check_count, check_memory, seeded_key
from ._solution import RESULTS
from .energies import n_visible
from .runs import CheckpointError, ProcessLostError, check_same_call, from_first, is_first, together

# What a study writes; while it runs, and where it was killed, to a folder within the folder.
_FILES = (
    "model.eqx",
    "library.npz",
    "experts.eqx",
    "study.npz",
    "summary.json",
    "report.html",
)
_UNFINISHED = "unfinished"
# Within it: the states of jobs, how to go on, and the files of the end before they are moved.
_STATES, _HOW, _LAST = "checkpoint", "resume.txt", "last"
_ROOM = 2**25  # bytes of a page and a library
_AT_ONCE = 64  # cues that are answered together
_N_SHOWN, _WIDTH = 20, 64  # rows and spins of the table on the screen

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; `thermogen.__main__` listens to signals before this module is imported."""
    _signals.install()
    app()


@contextlib.contextmanager
def _one_line(command: str) -> Iterator[None]:
    """Errors that the user can mend, in one line; a signal that strikes before anything is done."""
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        raise typer.Exit(_signals.exit_code()) from None
    except (ValueError, TypeError, OSError, ImportError, ProcessLostError) as error:
        print(f"thermogen {command}: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"thermogen {study.version()}")
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


# Read by `thermogen.__main__`, before JAX is imported.
_NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither read nor keep compiled programs on disk.")
]


@app.command("study")
def study_data(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="digits, adder:N, or a .npy, .npz or .csv file of bits or spins."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("report"),
    beta: Annotated[float, typer.Option(help="Inverse temperature of the search.")] = 1.0,
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
        typer.Option(help="A .csv, .npy or .npz file of one weight a sample; equal if not given."),
    ] = None,
    starts: Annotated[int, typer.Option(help="Random starts of the search.")] = 576,
    threshold: Annotated[
        float, typer.Option(help="Sweeps that a bound state must trap the dynamics.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with what was cut short in that folder, to the same result; else begin.",
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
    no_cache: _NoCache = False,
) -> None:
    """Learn an energy from DATA, find its bound states, and write a report.

    Writes report.html, summary.json, library.npz, model.eqx, study.npz (all that the page shows)
    and, where there are samples enough to compare them with one model, experts.eqx. Ctrl-C and
    SIGTERM keep what was done. While it runs, and where it was cut short, what there is stands in
    the folder "unfinished": the same command with --resume goes on from there.

    \b
    Examples:
      thermogen study digits
      thermogen study adder:3 --out adder
      thermogen study digits --functional tap --beta 1.5
      thermogen study samples.csv --starts 8192
      thermogen study samples.csv --starts 8192 --resume
      thermogen study samples.csv --task 3 --tasks 10
      srun thermogen study samples.csv --distributed
    """
    with contextlib.ExitStack() as stack:
        with _one_line("study"), _signals.interruptible():
            _cluster.join(distributed, coordinator, processes, process)
            own = _tasks.this_task(task, tasks)
            out = own.folder(out)
            settings = study.Settings(beta, functional, l2, starts, threshold, seed, own.index)
            job = study.Study(study.load_source(data, weights), settings)
            for note in study.check_size(job):
                _say(f"thermogen study: {note}")
            n_spins = job.source.spins.shape[1]
            told = {"data": data, **dataclasses.asdict(settings)}
            with together():
                from_first(lambda: stack.enter_context(_reserved(out, n_spins)))
                job = _taken_up(out / _UNFINISHED, job) if resume else job
                from_first(lambda: _tasks.record(out, own, told))
                # All have read what there is when the first one begins to write.
                check_same_call("thermogen study", (job.settings, job.source, job.finished))
        if not resume and is_first():
            _drop(out / _UNFINISHED)
        _run(job, out)


@app.command()
def render(
    out: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a study, with its study.npz.")
    ] = Path("report"),
    no_cache: _NoCache = False,
) -> None:
    """Write the page of a study again, from what it saved.

    \b
    Example:
      thermogen render report
    """
    with _one_line("render"):
        job = _loaded(out)
        _write_text(out / "report.html", study.render(job))
        print(_printable(out / "report.html"))


def _loaded(folder: Path) -> study.Study:
    """A study from its files.

    Raises:
        ValueError: if one of them is damaged.
        OSError: if one of them cannot be read.
    """
    job = study.load_study(folder / "study.npz")
    if (folder / "experts.eqx").exists():
        job.experts = cast(Any, storage.load_energy(folder / "experts.eqx"))
    return job


@app.command()
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of tasks, or one that holds them."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default the one that is given.")
    ] = None,
    no_cache: _NoCache = False,
) -> None:
    """Unite what the tasks of a study, or of an experiment, have found.

    Writes library.npz (all states, each once, hits added), model.eqx and summary.json (coverage,
    ln Z and escape times by all tasks). Tables, .csv files of equal names, are put one below the
    other. Tasks that are missing, or come twice, are said.

    \b
    Examples:
      thermogen merge report
      thermogen merge first/task-* second/task-* --out both
    """
    with _one_line("merge"), _signals.interruptible():
        if out is None and len(folders) > 1:
            raise ValueError("--out must name a folder where several are given")
        place = folders[0] if out is None else out
        if _tasks.recorded(place):
            raise ValueError(f"{place} is the folder of a task; choose another --out")
        if (place / "study.npz").exists():
            raise ValueError(
                f"{place} holds a study of its own, which the merge would replace; choose another "
                "--out, or move that study away"
            )
        found = _tasks.gathered(folders)
        with storage.locked(place, f"another command is writing to {place}; choose another --out"):
            if any((folder / "study.npz").exists() for folder in found.folders.values()):
                written = [_merge_studies(found, place)]
            else:
                written = _tasks.merge_tables(found, place)
    for note in found.notes:
        print(f"thermogen merge: {note}", file=sys.stderr)
    for path in written:
        print(_printable(path))


def _merge_studies(found: _tasks.Gathered, place: Path) -> Path:
    """Write the files of a merged study in the place of those of an earlier merge."""
    merged = study.merge_studies(found)
    text = json.dumps(study.merged_summary(merged), indent=2, allow_nan=False) + "\n"
    storage.save_library(place / "library.npz", merged.library)
    storage.save_energy(place / "model.eqx", merged.first.energy)
    _write_text(place / "summary.json", text)
    return place / "summary.json"


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
    no_cache: _NoCache = False,
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
    with _one_line("recall"), _signals.interruptible():
        energy, spins = storage.load_energy(model), retrieval.load_cues(cues)
        if out.suffix not in (".npz", ".csv"):
            raise ValueError(f"--out must end in .npz or .csv, got {out}")
        if spins.shape[1] != n_visible(energy):
            raise ValueError(
                f"{cues} has {spins.shape[1]} columns; the model has {n_visible(energy)} visible "
                "spins"
            )
        counts = {"capacity": answers, "n_chains": chains, "n_sweeps": sweeps}
        for name, count in counts.items():
            check_count(name, count)
        held = answers * len(spins) + min(_AT_ONCE, len(spins)) * (answers + 4 * chains)
        check_memory("recall with these counts", 8 * spins.shape[1] * held + 64.0 * sweeps)
        found = _answers(energy, spins, beta, seed, counts)
        with storage.write_atomically(out) as stream:
            if out.suffix == ".npz":
                np.savez_compressed(stream, **found)
            else:
                stream.write("\n".join(_lines(found)).encode() + b"\n")
    _show(found, spins != 0)
    print(_printable(out))


def _answers(energy, spins, beta, seed, counts) -> dict[str, Any]:
    """All cues through one compiled function, `_AT_ONCE` at a time."""
    keys = jax.random.split(seeded_key(seed), len(spins))

    def answer(inputs):
        cue, key = inputs
        return retrieval.recall(energy, beta, cue, key=key, **counts)

    found = jax.lax.map(answer, (jnp.asarray(spins), keys), batch_size=min(_AT_ONCE, len(spins)))
    log_probabilities = np.asarray(found.log_probabilities)
    if np.any(np.isneginf(log_probabilities[:, 0])):
        raise ValueError("energies are not finite: check the parameters of the model and beta")
    return {
        "configurations": np.asarray(found.configurations, float),
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
            ",".join(
                [
                    str(row),
                    f"{p[k]:.6g}",
                    f"{log_p[k]:.6g}",
                    *map(str, configurations[k].astype(int)),
                ]
            )
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


def _taken_up(unfinished: Path, job: study.Study) -> study.Study:
    """The study as it was left in a folder; as given where there is none that can be read.

    Raises:
        ValueError: if another study was left there.
        OSError: if it cannot be read.
    """
    try:
        left = _loaded(unfinished)
    except FileNotFoundError:
        _say(f"thermogen study: nothing to resume in {unfinished.parent}")
        return job
    except ValueError as error:
        _say(f"thermogen study: {error}; its stages are repeated")
        return job
    try:
        study.check_same(left, job)
    except ValueError as error:
        raise ValueError(
            f"--resume: {error}; give its options, choose another --out, or leave out --resume"
        ) from None
    done = left.finished[-1] if left.finished else "none"
    _say(f"thermogen study: going on; last stage that was finished: {done}")
    return left


def _to_go_on(out: Path) -> str:
    """The command that goes on with the study of a folder: this one, wherever it is typed."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    given = {word.partition("=")[0] for word in words}
    own = _tasks.recorded(out)  # a shell has no variables of the array to tell it
    for name, value in (("--task", own.index), ("--tasks", own.count)) if own else ():
        words += [] if name in given else [name, str(value)]
    return shlex.join(["thermogen", *words, "--resume"])


def _say(text: str) -> None:
    """Tell on the screen, once and not in each process."""
    if is_first():
        print(text, file=sys.stderr)


@contextlib.contextmanager
def _unseen(title: str) -> Iterator[Callable[..., None]]:
    """The display of a stage in all processes but the first."""
    yield lambda *_: None


def _run(job: study.Study, out: Path) -> None:
    """Do the job, keep what there is after every stage, and put all in its place at the end.

    Of several processes the first one writes, and speaks.
    """
    unfinished = out / _UNFINISHED

    def keep(so_far: study.Study) -> None:
        if not is_first():
            return
        try:
            _write(so_far, unfinished, final=False)
        except (OSError, ValueError) as error:  # the work goes on: its end may find room again
            print(f"thermogen study: {unfinished} cannot be written: {error}", file=sys.stderr)

    code, how = None, f"\nTo go on: {_to_go_on(out)}"
    keep(job)
    try:
        with together():
            study.run_study(
                job,
                progress=study.progress if is_first() else _unseen,
                on_stage=keep,
                checkpoint=unfinished / _STATES,
                sharding=_cluster.all_devices(),
            )
    except (OSError, CheckpointError, ProcessLostError) as error:
        _say(f"thermogen study: {error}")
        job.interrupted, code = True, 1
        # States of another run stay in the way, whatever is tried.
        how = "" if isinstance(error, CheckpointError) else how
    files = _put(job, out) if is_first() else []
    if job.interrupted:
        kept = f"; kept what was done: {', '.join(files)} in {out}" if files else ""
        _say(f"Interrupted{kept}{how}")
        raise typer.Exit(code or _signals.exit_code())
    if is_first():
        print(_printable(out / "report.html"))
    if job.fit is not None and study.fit_failed(job):
        message = RESULTS[job.fit.result]
        _say(f"thermogen study: the fit failed, do not trust it: {message}")
        raise typer.Exit(1)


def _put(job: study.Study, out: Path) -> list[str]:
    """Write what there is in the place of an earlier study, all at once; name the files.

    What was cut short leaves the unfinished folder too, to go on from.
    """
    last = out / _UNFINISHED / _LAST
    if job.fit is None:
        return []
    try:
        files = _write(job, last, final=True)
        for name in files:
            storage.replace(last / name, out / name)
        for name in _FILES:
            if name not in files:
                (out / name).unlink(missing_ok=True)
        if job.interrupted:
            shutil.rmtree(last, ignore_errors=True)
        else:
            _drop(last.parent)
    except (OSError, ValueError) as error:
        elsewhere = _rescued(job)
        where = f"kept what was done in {elsewhere}" if elsewhere else "nothing could be kept"
        print(f"thermogen study: {out} cannot be written: {error}; {where}", file=sys.stderr)
        raise typer.Exit(1) from None
    return files


def _drop(unfinished: Path) -> None:
    """Remove the folder; what is left of it where that is cut short is nothing to resume."""
    with contextlib.suppress(OSError):
        (unfinished / "study.npz").unlink()
    shutil.rmtree(unfinished, ignore_errors=True)


def _write(job: study.Study, folder: Path, *, final: bool) -> list[str]:
    """Write what there is to a folder, with the page where it is the last time; name the files."""
    library: Any = job.library
    experts: Any = job.experts
    folder.mkdir(parents=True, exist_ok=True)
    figures = study.summary(job)
    if not final:
        # If this is what remains, the study did not come to its end.
        figures["interrupted"] = True
    text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    parts: dict[str, Callable[[Path], None]] = {
        "model.eqx": lambda path: storage.save_energy(path, job.energy),
        "library.npz": lambda path: storage.save_library(path, library),
        "experts.eqx": lambda path: storage.save_energy(path, experts),
        "study.npz": lambda path: study.save_study(path, job),
        "summary.json": lambda path: _write_text(path, text),
        "report.html": lambda path: _write_text(path, study.render(job)),
        _HOW: lambda path: _write_text(path, f"In {Path.cwd()}:\n\n{_to_go_on(folder.parent)}\n"),
    }
    known = {"model.eqx": job.fit, "library.npz": library, "experts.eqx": experts}
    unwanted = _HOW if final else "report.html"
    files = [n for n in parts if n != unwanted and known.get(n, job) is not None]
    for name in files:
        parts[name](folder / name)
    return files


def _rescued(job: study.Study) -> Path | None:
    """A folder where there is room for what could not be written to its place."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="thermogen-"))
        _write(job, folder, final=True)
    except (OSError, ValueError):
        return None
    return folder


@contextlib.contextmanager
def _reserved(out: Path, n_spins: int) -> Iterator[None]:
    """A folder that can be written to, has room, and belongs to no other study that runs.

    Raises:
        OSError: if the folder cannot be made or written to.
        ValueError: if another study writes to it, or if it has no room.
    """
    with contextlib.ExitStack() as stack:
        try:
            taken = f"another study is writing to {out}; choose another --out"
            stack.enter_context(storage.locked(out, taken))
        except OSError as error:
            message = f"--out {out} is no folder that can be written to: {error}"
            raise OSError(message) from None
        room, needed = shutil.disk_usage(out).free, _ROOM + 32 * n_spins**2
        if room < needed:
            raise ValueError(
                f"{out} has room for {room / 1e6:.3g} MB; the study needs about "
                f"{needed / 1e6:.3g} MB"
            )
        yield


def _write_text(path: Path, text: str) -> None:
    with storage.write_atomically(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))


def _printable(path: Path) -> str:
    """A path for the screen, which may not know all bytes that a file name can have."""
    encoding = sys.stdout.encoding or "utf-8"
    return str(path).encode(encoding, "backslashreplace").decode(encoding)
