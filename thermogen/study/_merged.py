"""Tasks of one study, made one: the library of all their searches, and what else adds up."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._merging import merge
from .._tasks import Gathered
from ..sampling import Measurement
from ..search import Library, completeness
from ._saved import load_study
from ._study import Study
from ._summary import finite, version


@dataclasses.dataclass
class Merged:
    """Tasks of one study.

    Attributes:
        studies: what each task has found, by its number.
        n_tasks: number of all tasks.
        missing: the tasks that have left no library.
        library: the states of all, each once.
        notes: what a reader has to know, in sentences: tasks that are missing, or came twice.
    """

    studies: dict[int, Study]
    n_tasks: int
    missing: list[int]
    library: Library
    notes: list[str]

    @property
    def first(self) -> Study:
        """The lowest task: its model is that of all."""
        return self.studies[min(self.studies)]


def merge_studies(tasks: Gathered) -> Merged:
    """Unite what the tasks of a study have written.

    Args:
        tasks: their folders; what a reader has to know is added to its notes.

    Raises:
        ValueError: if no task has a library, or they are not of one study.
        OSError: if a file cannot be read.
    """
    studies: dict[int, Study] = {}
    for index, folder in sorted(tasks.folders.items()):
        found = load_study(folder / "study.npz") if (folder / "study.npz").exists() else None
        if found is None or found.library is None:
            continue
        if found.interrupted:
            tasks.notes.append(f"task {index} was interrupted: it counts as far as it went")
        _check_same(studies, found, folder)
        studies[index] = found
    if not studies:
        raise ValueError("no task has a library")
    missing = tasks.note_missing(studies)
    return Merged(studies, tasks.count, missing, _library(studies), tasks.notes)


def merged_summary(merged: Merged) -> dict[str, Any]:
    """The figures of all tasks together, ready for JSON: what is not known is None."""
    first, library = merged.first, merged.library
    settings, (n_samples, n_spins) = first.settings, first.source.spins.shape
    return {
        "version": version(),
        "data": first.source.name,
        "n_spins": n_spins,
        "n_samples": n_samples,
        "beta": first.beta,
        "functional": settings.functional.value,
        "l2": first.l2,
        "threshold": settings.threshold,
        "seed": settings.seed,
        "tasks": merged.n_tasks,
        "tasks_merged": sorted(merged.studies),
        "tasks_missing": merged.missing,
        "notes": merged.notes,
        "n_starts": int(np.sum(library.hits - library.given_hits) + library.unresolved),
        "n_states": len(library),
        "overflow": bool(library.overflow),
        **_completeness_figures(library),
        **_ln_z(merged),
        "n_bound": {str(k): _count(study) for k, study in sorted(merged.studies.items())},
        **_escape_figures(merged),
    }


def _check_same(studies: dict[int, Study], found: Study, folder: Path) -> None:
    """Raise ValueError unless a task belongs to the same study as the others."""
    if not studies:
        return
    other = next(iter(studies.values()))
    settings = [dataclasses.replace(x.settings, task=0) for x in (other, found)]
    same_data = np.array_equal(other.source.spins, found.source.spins)
    if settings[0] != settings[1] or not same_data:
        raise ValueError(f"{folder} is a task of another study: its data or its settings differ")


def _library(studies: dict[int, Study]) -> Library:
    libraries: list[Any] = [studies[k].library for k in sorted(studies)]
    try:
        return merge(libraries)
    except ValueError as error:
        raise ValueError(
            f"the tasks have learned different models, as machines of different kinds do: {error}"
        ) from error


def _completeness_figures(library: Library) -> dict[str, Any]:
    names = ("coverage", "coverage_interval", "n_states_estimated", "n_states_interval")
    independent = np.any(library.hits > library.given_hits)
    if library.overflow or not independent:
        return dict.fromkeys(names)
    found = completeness(library)
    values = (
        found.coverage,
        list(map(float, found.coverage_interval)),
        float(found.n_states),
        [finite(float(end)) for end in found.n_states_interval],
    )
    return dict(zip(names, values, strict=True))


def _ln_z(merged: Merged) -> dict[str, Any]:
    """ln Z by the replicas of all tasks, each with as many."""
    found = [study.bound_states for study in merged.studies.values()]
    known = [x for x in found if x is not None]
    if not known:
        return {"log_partition": None, "log_partition_error": None}
    with jax.enable_x64(True):
        pooled = merge(
            Measurement(jnp.asarray(x.log_partition), jnp.asarray(x.log_partition_error))
            for x in known
        )
    if all(x.weighed for x in known) and np.isinf(pooled.standard_error):
        merged.notes.append("ln Z of the tasks differs by more than its errors allow")
    return {
        "log_partition": finite(float(pooled.value)),
        "log_partition_error": finite(float(pooled.standard_error)),
    }


def _count(study: Study) -> str | None:
    return None if study.bound_states is None else study.bound_states.certificate.count


def _escape_figures(merged: Merged) -> dict[str, Any]:
    """Escape times by the trajectories of all tasks, where they have certified the same states."""
    found = [study.bound_states for study in merged.studies.values()]
    known = [x for x in found if x is not None]
    try:
        pooled = merge([x.certificate for x in known])
    except ValueError as error:
        return {"escapes": None, "escapes_missing": str(error)}
    rows = known[0].representatives
    states = merged.library.nearest(known[0].library.magnetizations[rows])
    return {
        "escapes": [
            {
                "state": int(state) if state >= 0 else None,
                "escape_time": finite(float(pooled.escape_times[k])),
                "interval": [finite(float(end)) for end in pooled.intervals[k]],
                "n_escapes": int(pooled.n_escapes[k]),
            }
            for state, k in zip(states, rows, strict=True)
        ],
        "escapes_missing": None,
    }
