"""The folder of a study: what lies in it while it runs, where it was cut short, and at its end."""

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import typer

from .. import _tasks, storage, study
from ._app import say, write_text

# What a study writes; while it runs, and where it was killed, to a folder within the folder.
_FILES = (
    "model.eqx",
    "library.npz",
    "experts.eqx",
    "study.npz",
    "summary.json",
    "report.html",
)
UNFINISHED = "unfinished"
# Within it: the states of jobs, how to go on, and the files of the end before they are moved.
STATES, _HOW, _LAST = "checkpoint", "resume.txt", "last"
_ROOM = 2**25  # bytes of a page and a library


@contextlib.contextmanager
def reserved(out: Path, n_spins: int) -> Iterator[None]:
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


def check_free(unfinished: Path) -> None:
    """Refuse to begin where a study was cut short: what it has computed would be lost.

    Raises:
        ValueError: if a study was left in that folder.
    """
    if (unfinished / "study.npz").exists():
        raise ValueError(
            f"{unfinished} holds a study that was cut short; go on with it by --resume, choose "
            "another --out, or remove that folder to begin anew"
        )


def loaded(folder: Path) -> study.Study:
    """A study from its files.

    Raises:
        ValueError: if one of them is damaged.
        OSError: if one of them cannot be read.
    """
    job = study.load_study(folder / "study.npz")
    if (folder / "experts.eqx").exists():
        job.experts = cast(Any, storage.load_energy(folder / "experts.eqx"))
    return job


def taken_up(unfinished: Path, job: study.Study) -> study.Study:
    """The study as it was left in a folder; as given where there is none that can be read.

    Raises:
        ValueError: if another study was left there.
        OSError: if it cannot be read.
    """
    try:
        left = loaded(unfinished)
    except FileNotFoundError:
        say(f"thermogen study: nothing to resume in {unfinished.parent}")
        return job
    except ValueError as error:
        say(f"thermogen study: {error}; its stages are repeated")
        return job
    try:
        study.check_same(left, job)
    except ValueError as error:
        raise ValueError(
            f"--resume: {error}; give its options, choose another --out, or remove {unfinished}"
        ) from None
    done = left.finished[-1] if left.finished else "none"
    say(f"thermogen study: going on; last stage that was finished: {done}")
    return left


def typed() -> str:
    """The command of this process, without what only tells it to go on."""
    return shlex.join(["thermogen", *(word for word in sys.argv[1:] if word != "--resume")])


def to_go_on(out: Path) -> str:
    """The command that goes on with the study of a folder: this one, wherever it is typed."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    given = {word.partition("=")[0] for word in words}
    own = _tasks.recorded(out)  # a shell has no variables of the array to tell it
    for name, value in (("--task", own.index), ("--tasks", own.count)) if own else ():
        words += [] if name in given else [name, str(value)]
    return shlex.join(["thermogen", *words, "--resume"])


def write(job: study.Study, folder: Path, *, final: bool) -> list[str]:
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
        "model.eqx": lambda path: storage.save_energy(path, job.energy, notes=_notes(job)),
        "library.npz": lambda path: storage.save_library(path, library),
        "experts.eqx": lambda path: storage.save_energy(path, experts),
        "study.npz": lambda path: study.save_study(path, job),
        "summary.json": lambda path: write_text(path, text),
        "report.html": lambda path: write_text(path, study.render(job)),
        _HOW: lambda path: write_text(path, f"In {Path.cwd()}:\n\n{to_go_on(folder.parent)}\n"),
    }
    known = {"model.eqx": job.fit, "library.npz": library, "experts.eqx": experts}
    unwanted = _HOW if final else "report.html"
    files = [n for n in parts if n != unwanted and known.get(n, job) is not None]
    for name in files:
        parts[name](folder / name)
    return files


def _notes(job: study.Study) -> dict[str, Any]:
    """The names of the spins, to be kept with the model; hidden spins are numbered."""
    names = job.source.names
    if names is None:
        return {}
    hidden = [f"hidden {k}" for k in range(job.energy.n_spins - len(names))]
    unique = len({*names, *hidden}) == job.energy.n_spins
    return {"names": [*names, *hidden]} if unique else {}


def put(job: study.Study, out: Path) -> list[str]:
    """Write what there is in the place of an earlier study, all at once; name the files.

    What was cut short leaves the unfinished folder too, to go on from.
    """
    last = out / UNFINISHED / _LAST
    if job.fit is None:
        return []
    try:
        files = write(job, last, final=True)
        for name in files:
            storage.replace(last / name, out / name)
        for name in _FILES:
            if name not in files:
                (out / name).unlink(missing_ok=True)
        if job.interrupted:
            shutil.rmtree(last, ignore_errors=True)
        else:
            drop(last.parent)
    except (OSError, ValueError) as error:
        elsewhere = _rescued(job)
        where = f"kept what was done in {elsewhere or out / UNFINISHED}"
        print(f"thermogen study: {out} cannot be written: {error}; {where}", file=sys.stderr)
        raise typer.Exit(1) from None
    return files


def drop(unfinished: Path) -> None:
    """Remove the folder; what is left of it where that is cut short is nothing to resume."""
    with contextlib.suppress(OSError):
        (unfinished / "study.npz").unlink()
    shutil.rmtree(unfinished, ignore_errors=True)


def _rescued(job: study.Study) -> Path | None:
    """A folder where there is room for what could not be written to its place."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="thermogen-"))
        write(job, folder, final=True)
    except (OSError, ValueError):
        return None
    return folder
