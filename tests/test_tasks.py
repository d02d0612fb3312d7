"""Arrays of tasks: which task a process is, what tasks share, and what their merge says."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from thermogen import _tasks, cli, storage, study
from thermogen._tasks import Task
from thermogen.cli import _folder

ROOT = pathlib.Path(__file__).parent.parent
QUICK = ["--starts", "8", "--beta", "1.5"]


def _run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def _array(number, least, most, step=1):
    count = len(range(least, most + 1, step))
    values = {"ID": number, "MIN": least, "MAX": most, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


# --- which task


@pytest.mark.parametrize(
    ("task", "tasks", "environment", "expected"),
    [
        (None, None, {}, Task(0, 1)),
        (3, 10, {}, Task(3, 10)),
        (0, 1, {}, Task(0, 1)),
        (None, None, _array(0, 0, 9), Task(0, 10)),
        (None, None, _array(9, 0, 9), Task(9, 10)),
        (None, None, _array(4, 1, 8), Task(3, 8)),
        (None, None, _array(7, 1, 9, 2), Task(3, 5)),
        (None, None, _array(0, 0, 0), Task(0, 1)),
        # Sent again: the array does not say of how many.
        (None, 10, _array(7, 7, 7), Task(7, 10)),
        (None, 10, _array(3, 3, 5), Task(3, 10)),
        (2, 4, _array(7, 7, 7), Task(2, 4)),
    ],
)
def test_options_and_variables_of_the_queue_say_which_task_it_is(
    task, tasks, environment, expected
):
    assert _tasks.this_task(task, tasks, environment) == expected


@pytest.mark.parametrize(
    ("task", "tasks", "environment", "message"),
    [
        (3, None, {}, "--task needs --tasks, the number of all tasks"),
        (None, 4, {}, "--tasks needs --task, the number of this one, outside of a SLURM array"),
        (4, 4, {}, "--task must be at most 3, got 4"),
        (-1, 4, {}, "--task must be at least 0, got -1"),
        (0, 0, {}, "--tasks must be at least 1, got 0"),
        (None, 4, _array(7, 7, 7), "--task must be at most 3, got 7"),
        (None, None, _array(7, 7, 7), "does not say which of how many it is; give --tasks N"),
        (None, None, _array(7, 3, 7) | {"SLURM_ARRAY_TASK_COUNT": "2"}, "task 7 of this SLURM"),
        (None, None, _array(4, 1, 9, 2), "task 4 of this SLURM array does not say"),
    ],
)
def test_a_task_that_is_known_in_part_is_refused(task, tasks, environment, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _tasks.this_task(task, tasks, environment)


def test_a_folder_belongs_to_one_task(tmp_path):
    _tasks.record(tmp_path, Task(), {})
    assert _tasks.recorded(tmp_path) is None and not list(tmp_path.iterdir())
    _tasks.record(tmp_path, Task(2, 4), {"beta": 1.0})
    _tasks.record(tmp_path, Task(2, 4), {"beta": 2.0})  # the same task again
    assert _tasks.recorded(tmp_path) == Task(2, 4)
    content = json.loads((tmp_path / "task.json").read_text())
    assert content == {"task": 2, "tasks": 4, "settings": {"beta": 2.0}}
    with pytest.raises(ValueError, match="holds task 2 of 4, this is task 2 of 5"):
        _tasks.record(tmp_path, Task(2, 5), {})
    (tmp_path / "task.json").write_text('{"task": 5, "tasks": 4}')
    with pytest.raises(ValueError, match="is no record of a task"):
        _tasks.recorded(tmp_path)


def test_tasks_share_instances_each_once():
    parts = [Task(k, 3).part(x for x in range(10)) for k in range(3)]
    assert parts == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert Task().part("ab") == ["a", "b"] and Task().part("a") == ["a"]
    with pytest.raises(ValueError, match="4 tasks are too many for 3 instances"):
        Task(0, 4).part("abc")


# --- what tasks share


SPINS = np.random.default_rng(3).choice([-1.0, 1.0], (40, 8), p=[0.4, 0.6])


def _study(task, seed=0, spins=SPINS, **settings):
    source = study.Source("data", spins, None, (1, spins.shape[1]))
    return study.Study(source, study.Settings(seed=seed, task=task, **settings))


def test_tasks_differ_in_the_keys_of_search_and_certificate_alone():
    plain, tasks = _study(0), [_study(k) for k in range(4)]
    for stage in range(10):
        keys = {np.asarray(jax.random.key_data(x.key(stage))).tobytes() for x in tasks}
        assert len(keys) == (4 if stage in (2, 3) else 1)
    # A study without tasks is what it was: stages fold the seed.
    for stage in range(10):
        old = jax.random.fold_in(jax.random.key(0), stage)
        assert np.array_equal(jax.random.key_data(old), jax.random.key_data(plain.key(stage)))


@pytest.fixture(scope="module")
def searched():
    """Three tasks that have learned and searched, without a certificate."""
    tasks = []
    start = tg.Pairwise(np.zeros((8, 8)), np.zeros(8))
    upper = np.triu(np.random.default_rng(0).normal(size=(8, 8)), 1)
    fit = tg.fit(tg.Pseudolikelihood(0.1), start, SPINS, key=jax.random.key(0), n_steps=5)
    energy = tg.Pairwise(upper + upper.T, np.full(8, 0.1))
    fit = dataclasses.replace(fit, energy=energy, state=None)
    for k in range(3):
        job = _study(k, n_starts=32)
        job.fit, job.l2, job.finished = fit, 0.1, ["learn", "search"]
        functional = job.settings.functional.free_energy
        options = {"n_starts": 32, "capacity": 64, "starts": SPINS[:4]}
        job.library = tg.find_minima(functional, energy, 1.0, key=job.key(2), **options)
        tasks.append(job)
    return tasks


def _written(folder, jobs, count):
    for job in jobs:
        own = Task(job.settings.task, count)
        place = own.folder(folder)
        place.mkdir(parents=True, exist_ok=True)
        _tasks.record(place, own, {})
        study.save_study(place / "study.npz", job)
    return folder


def test_the_union_of_all_tasks_with_their_hits(searched, tmp_path):
    out = _written(tmp_path / "report", searched, 3)
    outcome = _run("merge", out)
    assert outcome.exit_code == 0 and outcome.stderr == "", outcome.output
    assert outcome.stdout.split() == [str(out / "summary.json")]
    library = storage.load_library(out / "library.npz")
    expected = tg.merge([job.library for job in searched])
    for name in vars(expected):
        np.testing.assert_array_equal(getattr(library, name), getattr(expected, name))
    assert len(library) > 1 and np.sum(library.hits - library.given_hits) <= 96
    figures = json.loads((out / "summary.json").read_text())
    assert figures["tasks"] == 3 and figures["tasks_merged"] == [0, 1, 2]
    assert figures["tasks_missing"] == [] == figures["notes"]
    assert figures["n_states"] == len(library) and figures["coverage"] == library.coverage()
    assert figures["n_starts"] == 96
    assert figures["log_partition"] is None and figures["escapes"] is None
    assert storage.load_energy(out / "model.eqx").n_spins == 8


def test_missing_and_doubled_tasks_are_said(searched, tmp_path):
    out = _written(tmp_path / "report", searched[:2], 4)
    # A task that was killed has a record, and nothing else.
    killed = Task(3, 4).folder(out)
    killed.mkdir()
    _tasks.record(killed, Task(3, 4), {})
    again = tmp_path / "again"
    shutil.copytree(out / "task-001", again)
    outcome = _run("merge", out, again, "--out", tmp_path / "both")
    assert outcome.exit_code == 0
    lines = outcome.stderr.splitlines()
    assert lines[0] == "thermogen merge: 2 of 4 tasks are missing: 2, 3"
    assert lines[1] == f"thermogen merge: task 1 comes twice: {again} is left out"
    library = storage.load_library(tmp_path / "both" / "library.npz")
    expected = tg.merge([job.library for job in searched[:2]])
    np.testing.assert_array_equal(library.hits, expected.hits)
    figures = json.loads((tmp_path / "both" / "summary.json").read_text())
    assert figures["tasks_missing"] == [2, 3] and len(figures["notes"]) == 2


def test_interrupted_tasks_count_as_far_as_they_went(searched, tmp_path):
    cut = dataclasses.replace(searched[1], interrupted=True)
    nothing = dataclasses.replace(searched[2], library=None, interrupted=True)
    out = _written(tmp_path, [searched[0], cut, nothing], 3)
    outcome = _run("merge", out)
    assert "1 of 3 tasks are missing: 2" in outcome.stderr
    assert "task 1 was interrupted: it counts as far as it went" in outcome.stderr


def test_tasks_of_other_studies_are_refused(searched, tmp_path):
    def refused(other, message, count=3):
        folder = tmp_path / message[:9].strip()
        _written(folder, searched[:1], 3)
        _written(folder, [other], count)
        outcome = _run("merge", folder)
        assert outcome.exit_code == 2 and message in outcome.stderr, outcome.stderr
        assert not (folder / "library.npz").exists()

    other = dataclasses.replace(searched[1])
    other.settings = dataclasses.replace(other.settings, seed=1)
    refused(other, "task-001 is a task of another study: its data or its settings differ")
    refused(searched[1], "is one of 4 tasks, others are of 3", 4)
    warmer = dataclasses.replace(searched[1])
    flipped = tg.Pairwise(searched[0].energy.couplings, -searched[0].energy.fields)
    functional = searched[0].settings.functional.free_energy
    key = jax.random.key(1)
    warmer.library = tg.find_minima(functional, flipped, 1.0, key=key, n_starts=32, capacity=64)
    refused(warmer, "the tasks have learned different models, as machines of different kinds do")


def test_folders_are_checked(searched, tmp_path):
    out = _written(tmp_path / "report", searched[:2], 2)
    (out / "study.npz").write_bytes(b"of a study without tasks")
    (out / "report.html").write_text("its page")
    taken = _run("merge", out)
    assert taken.exit_code == 2 and f"{out} holds a study of its own" in taken.stderr
    assert (out / "report.html").exists() and not (out / "library.npz").exists()
    (out / "study.npz").unlink()
    with storage.locked(out, "taken"):
        busy = _run("merge", out)
    assert busy.exit_code == 2 and f"another command is writing to {out}" in busy.stderr
    assert not (out / "library.npz").exists()
    assert "holds no folder of a task" in _run("merge", tmp_path).stderr
    several = _run("merge", out / "task-000", out / "task-001")
    assert several.exit_code == 2 and "--out must name a folder" in several.stderr
    own = _run("merge", out / "task-000")
    assert own.exit_code == 2 and "is the folder of a task; choose another --out" in own.stderr


def test_tasks_of_other_settings_are_refused_by_name(tmp_path):
    for k, beta in enumerate((1.0, 1.0, 2.0)):
        place = Task(k, 3).folder(tmp_path)
        place.mkdir()
        told = {"beta": beta, "l2": None, "task": k, "out": str(place), "data": f"{k}.csv"}
        _tasks.record(place, Task(k, 3), told)
        (place / "table.csv").write_text("a\n1\n")
    outcome = _run("merge", tmp_path)
    assert outcome.exit_code == 2 and not (tmp_path / "table.csv").exists()
    assert "task-002 is a task of other settings: beta is 2.0, others have 1.0" in outcome.stderr
    alike = _run("merge", tmp_path / "task-000", tmp_path / "task-001", "--out", tmp_path / "two")
    assert alike.exit_code == 0, alike.output


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["--task", "3", "--tasks", "10"]),
        (["--tasks", "10"], ["--task", "3"]),
        (["--task=3", "--tasks=10"], []),
    ],
)
def test_the_command_to_go_on_names_the_task(tmp_path, monkeypatch, given, added):
    words = ["study", "samples.csv", *given]
    monkeypatch.setattr(sys, "argv", ["thermogen", *words, "--resume"])
    assert _folder.to_go_on(tmp_path) == shlex.join(["thermogen", *words, "--resume"])
    _tasks.record(tmp_path, Task(3, 10), {})
    assert _folder.to_go_on(tmp_path) == shlex.join(["thermogen", *words, *added, "--resume"])


def test_tables_are_put_one_below_the_other(tmp_path):
    for k, rows in ((0, "1,2\n3,4\n"), (2, "5,6\n")):
        place = Task(k, 3).folder(tmp_path)
        place.mkdir()
        _tasks.record(place, Task(k, 3), {})
        (place / "table.csv").write_text("a,b\n" + rows)
    outcome = _run("merge", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "table.csv").read_text() == "task,a,b\n0,1,2\n0,3,4\n2,5,6\n"
    assert outcome.stderr == "thermogen merge: 1 of 3 tasks are missing: 1\n"
    empty = Task(1, 3).folder(tmp_path)
    empty.mkdir()
    _tasks.record(empty, Task(1, 3), {})
    (empty / "table.csv").write_text("\n")  # none of its instances had a row
    assert _run("merge", tmp_path).stderr == ""
    assert (tmp_path / "table.csv").read_text() == "task,a,b\n0,1,2\n0,3,4\n2,5,6\n"
    (place / "table.csv").write_text("a,c\n7,8\n")
    assert "has the columns a,c; others" in _run("merge", tmp_path).stderr
    for path in tmp_path.glob("*/table.csv"):
        path.unlink()
    assert "no task has a study or a table" in _run("merge", tmp_path).stderr


# --- the command and the queue


@pytest.mark.slow
def test_tasks_of_the_command_are_merged(tmp_path):
    """Task 0 is the study without tasks; later ones search and certify, and merge pools all."""
    assert _run("study", "adder:2", "--out", tmp_path / "plain", *QUICK).exit_code == 0
    out = tmp_path / "report"
    for k in range(3):
        outcome = _run("study", "adder:2", "--out", out, "--task", k, "--tasks", 3, *QUICK)
        assert outcome.exit_code == 0, outcome.output
    first = json.loads((out / "task-000" / "summary.json").read_text())
    plain = json.loads((tmp_path / "plain" / "summary.json").read_text())
    for figures in (first, plain):
        figures.pop("seconds")
    assert first == plain
    later = json.loads((out / "task-002" / "summary.json").read_text())
    assert later["stages_finished"] == ["choose", "learn", "quench", "search", "certify"]
    assert later["task"] == 2 and later["interrupted"] is False
    assert "was interrupted" not in (out / "task-002" / "report.html").read_text()
    models = [(out / f"task-00{k}" / "model.eqx").read_bytes() for k in range(3)]
    assert len(set(models)) == 1
    over = _run("study", "adder:2", "--out", out / "task-000", *QUICK)
    assert over.exit_code == 2 and "holds task 0 of 3, this is task 0 of 1" in over.stderr
    outcome = _run("merge", out)
    assert outcome.exit_code == 0, outcome.output
    figures = json.loads((out / "summary.json").read_text())
    studies = [study.load_study(out / f"task-00{k}" / "study.npz") for k in range(3)]
    merged = storage.load_library(out / "library.npz")
    assert merged.hits.sum() == sum(job.library.hits.sum() for job in studies)
    assert len(merged.runs) == 3
    values = [job.bound_states.log_partition for job in studies]
    np.testing.assert_allclose(figures["log_partition"], np.mean(values), rtol=1e-6)
    exact = float(tg.exact.log_partition(storage.load_energy(out / "model.eqx"), 1.5))
    assert abs(figures["log_partition"] - exact) < 5 * figures["log_partition_error"]
    if figures["escapes"] is not None:
        counts = [job.bound_states.certificate.n_escapes.sum() for job in studies]
        assert sum(x["n_escapes"] for x in figures["escapes"]) <= sum(counts)


@pytest.mark.slow
def test_the_scripts_of_the_guide_run_in_a_queue(tmp_path):
    """An array and its merge, as `docs/slurm` sends them, in the stand-in of `tests/queue`."""
    scripts = tmp_path / "slurm"
    shutil.copytree(ROOT / "docs" / "slurm", scripts)
    array = scripts / "array.sh"
    assert "--array=0-9" in array.read_text()
    array.write_text(array.read_text().replace("--array=0-9", "--array=0-2"))
    command = tmp_path / "bin" / "thermogen"
    command.parent.mkdir()
    command.write_text(f'#!/bin/bash\nexec {sys.executable} -m thermogen "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = [str(command.parent), str(ROOT / "tests" / "queue"), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "XDG_CACHE_HOME": str(tmp_path / "caches"),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        ["bash", str(scripts / "submit.sh"), "adder:2", *QUICK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    logs = {p.name: p.read_text() for p in tmp_path.glob("slurm-*.out")}
    assert done.returncode == 0 and "Submitted batch job" in done.stdout, (done.stderr, logs)
    report = tmp_path / "report"
    assert (report / "summary.json").exists(), logs
    figures = json.loads((report / "summary.json").read_text())
    assert figures["tasks_merged"] == [0, 1, 2] and figures["tasks_missing"] == []
    assert figures["n_starts"] == 24
    records = [json.loads((report / f"task-00{k}/task.json").read_text()) for k in range(3)]
    assert [(x["task"], x["tasks"]) for x in records] == [(0, 3), (1, 3), (2, 3)]
    assert all(x["settings"]["data"] == "adder:2" for x in records)
    assert len(logs) == 4


def test_the_guide_quotes_the_scripts_that_run():
    page = (ROOT / "docs" / "clusters.md").read_text()
    quoted = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, flags=re.DOTALL)
    scripts = {path.name: path.read_text() for path in (ROOT / "docs" / "slurm").glob("*.sh")}
    assert sorted(quoted) == sorted(scripts.values()) and len(scripts) == 4
