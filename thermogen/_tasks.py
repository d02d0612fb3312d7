"""Tasks of an array: which of them a process is, and where it writes."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ._checks import check_count
from ._files import write_atomically

_RECORD = "task.json"
_MOST = 10**6
# Settings in which tasks of one array may differ. Data may have other names seen from elsewhere;
# of studies the numbers are compared.
_OWN = ("task", "out", "data")

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Task:
    """One of `count` tasks, numbered from 0."""

    index: int = 0
    count: int = 1

    def folder(self, out: Path) -> Path:
        """The folder of the task: within `out`, unless there are no others."""
        return out if self.count == 1 else out / f"task-{self.index:03d}"

    def part(self, items: Iterable[_Item]) -> list[_Item]:
        """The items of this task, every `count`-th; all tasks together have each item once.

        Raises:
            ValueError: for fewer items than tasks.
        """
        every = list(items)
        if len(every) < self.count:
            raise ValueError(f"{self.count} tasks are too many for {len(every)} instances")
        return every[self.index :: self.count]


def this_task(
    task: int | None, tasks: int | None, environment: Mapping[str, str] | None = None
) -> Task:
    """The task that the options name, and what they leave open by the variables of SLURM.

    With `tasks` alone the array counts from 0, so that some of its tasks can be sent again.

    Raises:
        ValueError: for numbers out of range, and where they are known in part.
    """
    environment = os.environ if environment is None else environment
    number = environment.get("SLURM_ARRAY_TASK_ID")
    if task is None and tasks is None:
        return Task() if number is None else _of_array(int(number), environment)
    if tasks is None:
        raise ValueError("--task needs --tasks, the number of all tasks")
    if task is None and number is None:
        raise ValueError("--tasks needs --task, the number of this one, outside of a SLURM array")
    count = check_count("--tasks", tasks, most=_MOST)
    index = int(number or 0) if task is None else task
    return Task(check_count("--task", index, least=0, most=count - 1), count)


def _of_array(number: int, environment: Mapping[str, str]) -> Task:
    names = ("MIN", "STEP", "COUNT")
    least, step, count = (int(environment.get(f"SLURM_ARRAY_TASK_{x}", "1")) for x in names)
    index, rest = divmod(number - least, step)
    # One task alone may be one of many that is sent again.
    if rest or not 0 <= index < count or (count == 1 and number != 0):
        raise ValueError(
            f"task {number} of this SLURM array does not say which of how many it is; give --tasks "
            "N for an array within 0-(N-1), or --task K --tasks N"
        )
    return Task(index, count)


def record(folder: Path, task: Task, settings: dict[str, Any]) -> None:
    """Write down which task a folder belongs to, where there are others.

    Raises:
        ValueError: if it belongs to a task of another array.
    """
    held = recorded(folder)
    if held is not None and held != task:
        raise ValueError(
            f"{folder} holds task {held.index} of {held.count}, this is task {task.index} of "
            f"{task.count}; choose another --out"
        )
    if task.count == 1:
        return
    content = {"task": task.index, "tasks": task.count, "settings": settings}
    with write_atomically(folder / _RECORD) as stream:
        stream.write(json.dumps(content, indent=2).encode() + b"\n")


def recorded(folder: Path) -> Task | None:
    """The task that a folder belongs to; None where it belongs to none.

    Raises:
        ValueError: if the record is damaged.
    """
    held = _read(folder)
    return held and held[0]


def _read(folder: Path) -> tuple[Task, dict[str, Any]] | None:
    """The task that a folder belongs to, and its settings."""
    path = folder / _RECORD
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        count = check_count("tasks", content["tasks"], most=_MOST)
        index = check_count("task", content["task"], least=0, most=count - 1)
        return Task(index, count), dict(content["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no record of a task: {error!r}") from error


@dataclass
class Gathered:
    """Tasks of one array.

    Attributes:
        folders: the folder of each task, by its number.
        count: number of all tasks.
        notes: what a reader has to know, in sentences.
    """

    folders: dict[int, Path]
    count: int
    notes: list[str]

    def note_missing(self, present: Iterable[int]) -> list[int]:
        """The tasks that have left nothing to merge; they are noted."""
        missing = sorted(set(range(self.count)) - set(present))
        if missing:
            listed = ", ".join(map(str, missing))
            self.notes.insert(0, f"{len(missing)} of {self.count} tasks are missing: {listed}")
        return missing


def gathered(given: list[Path]) -> Gathered:
    """The tasks whose folders are given, or lie within a given folder; a note for each double.

    Raises:
        ValueError: for a folder without tasks, and for tasks of different arrays or settings.
    """
    found = Gathered({}, 0, [])
    shared: dict[str, Any] | None = None
    for folder in given:
        own = [folder] if recorded(folder) else sorted(folder.glob("task-*/"))
        tasks = [(*held, path) for path in own if (held := _read(path))]
        if not tasks:
            raise ValueError(f"{folder} holds no folder of a task")
        for task, settings, path in tasks:
            if found.count not in (0, task.count):
                raise ValueError(
                    f"{path} is one of {task.count} tasks, others are of {found.count}"
                )
            found.count = task.count
            shared = settings if shared is None else shared
            _check_settings(path, settings, shared)
            if task.index in found.folders:
                found.notes.append(f"task {task.index} comes twice: {path} is left out")
            else:
                found.folders[task.index] = path
    return found


def _check_settings(path: Path, settings: dict[str, Any], others: dict[str, Any]) -> None:
    for name in sorted(settings.keys() | others.keys()):
        given, expected = settings.get(name), others.get(name)
        if name not in _OWN and given != expected:
            raise ValueError(
                f"{path} is a task of other settings: {name} is {given!r}, others have {expected!r}"
            )


def merge_tables(found: Gathered, place: Path) -> list[Path]:
    """Unite tables, the .csv files of all tasks: rows one after the other, with their task.

    Raises:
        ValueError: where no task has a table, and for tables of different columns.
        OSError: if a file cannot be read or written.
    """
    tables: dict[str, list[str]] = {}
    tasks = set()
    for index, folder in sorted(found.folders.items()):
        for path in sorted(folder.glob("*.csv")):
            tasks.add(index)
            head, *rows = path.read_text().splitlines() or [""]
            if not head:  # none of the instances of this task had a row
                continue
            lines = tables.setdefault(path.name, [f"task,{head}"])
            if lines[0] != f"task,{head}":
                raise ValueError(f"{path} has the columns {head}; others of the name have others")
            lines += [f"{index},{row}" for row in rows]
    if not tables:
        raise ValueError("no task has a study or a table")
    found.note_missing(tasks)
    place.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        with write_atomically(place / name) as stream:
            stream.write("\n".join(lines).encode() + b"\n")
    return [place / name for name in tables]
