"""`thermogen merge`: what the tasks of an array have found, made one."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import _signals, _tasks, storage, study
from ._app import NoCache, one_line, printable, write_text


def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of tasks, or one that holds them."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; by default the one that is given.")
    ] = None,
    no_cache: NoCache = False,
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
    with one_line("merge"), _signals.interruptible():
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
        print(printable(path))


def _merge_studies(found: _tasks.Gathered, place: Path) -> Path:
    """Write the files of a merged study in the place of those of an earlier merge."""
    merged = study.merge_studies(found)
    text = json.dumps(study.merged_summary(merged), indent=2, allow_nan=False) + "\n"
    storage.save_library(place / "library.npz", merged.library)
    storage.save_energy(place / "model.eqx", merged.first.energy)
    write_text(place / "summary.json", text)
    return place / "summary.json"
