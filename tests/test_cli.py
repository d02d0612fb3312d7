import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from thermogen import RESULTS, _signals, cli, storage
from thermogen.cli import _recall
from thermogen.energies import RBM, Interactions, Pairwise
from thermogen.runs import CheckpointError

# Equal for all, so that they share what is compiled.
QUICK = ["--functional", "naive", "--starts", "8"]
FILES = ["library.npz", "model.eqx", "report.html", "study.npz", "summary.json"]


def _run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "deep" / "out"
    outcome = _run("study", "adder:2", "--out", out, "--beta", "1.5", *QUICK)
    return out, outcome


@pytest.mark.further
def test_a_study_writes_its_files(finished):
    out, outcome = finished
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.split() == [str(out / "report.html")]
    assert sorted(path.name for path in out.iterdir()) == FILES
    lines = outcome.stderr.splitlines()  # no terminal: one line a stage
    assert [line.split(":")[0] for line in lines] == [
        "Choosing the ridge",
        "Judging by held-out samples",
        "Learning the couplings",
        "Quenching the data",
        "Searching for bound states",
        "Testing what traps the dynamics",
        "Learning in other ways",
        "Climbing the barriers",
        "Recalling samples",
        "Measuring the model",
        "Scanning the temperature",
        "Comparing with experts",
    ]


@pytest.mark.further
def test_the_summary_agrees_with_the_files(finished):
    out, _ = finished
    figures = json.loads((out / "summary.json").read_text())
    library = storage.load_library(out / "library.npz")
    energy = storage.load_energy(out / "model.eqx")
    assert isinstance(energy, Pairwise) and energy.n_spins == figures["n_spins"] == 7
    assert figures["n_samples"] == 16
    assert figures["data"] == "adder:2"
    assert (figures["beta"], figures["functional"]) == (1.5, "naive")
    assert figures["n_states"] == library.size > 1
    assert figures["coverage"] == library.coverage()
    assert figures["max_residual"] == library.residuals[library.mask].max() < 1e-8
    assert figures["min_curvature"] == library.curvatures[library.mask].min() > 0
    assert figures["share_of_data_verified"] == 1
    assert figures["fit_steps"] > 1 and figures["fit_result"] == "The tolerance was met."
    assert figures["overflow"] is False and figures["interrupted"] is False
    assert [point["beta"] for point in figures["scan"]] == pytest.approx(
        2 * list(1.5 * np.geomspace(0.3, 2, 8))
    )
    assert [point["functional"] for point in figures["scan"]] == 8 * ["naive"] + 8 * ["tap"]
    assert figures["stages_finished"] == list(figures["seconds"])
    assert figures["n_bound"] == sum(x["multiplicity"] for x in figures["bound_states"])
    assert figures["l2_chosen"] and figures["l2"] > 0
    assert [way["learned"] for way in figures["robustness"]] == [
        "without the ridge",
        "with ten times the ridge",
        "on resampled data",
        "on resampled data",
    ]
    states = {x["state"] for x in figures["bound_states"]}
    assert all(
        int(way["bound"][0]) >= 1 and states >= set(way["kept"]) for way in figures["robustness"]
    )
    assert figures["bound_states"][0]["state"] in figures["robustness"][1]["kept"]
    assert sum(x["samples"] for x in figures["bound_states"]) <= 16
    assert figures["ergodic"] == (figures["n_bound"] == 1) and figures["n_saddles"] > 0
    assert sum(x["weight"] for x in figures["bound_states"]) == pytest.approx(1)
    assert figures["comparison"] is None  # too few samples
    assert 0 <= figures["recall_exact"] <= 1 and 0 <= figures["recall_accuracy"] <= 1


@pytest.mark.slow
def test_experts_are_compared_where_there_are_samples(tmp_path):
    outcome = _run("study", "adder:3", "--out", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    compared = json.loads((tmp_path / "summary.json").read_text())["comparison"]
    one, experts = compared["one"], compared["experts"]
    assert (one["n_experts"], one["n_parameters"], compared["n_held_out"]) == (1, 55, 13)
    assert experts["n_parameters"] == 4 * 55 + 3 and experts["training"] < one["training"]
    np.testing.assert_allclose(compared["gain"], one["held_out"] - experts["held_out"], atol=1e-6)
    mixture = storage.load_energy(tmp_path / "experts.eqx")
    assert mixture.n_experts == 4 and mixture.n_spins == 10
    assert "One model against experts" in (tmp_path / "report.html").read_text()


@pytest.mark.further
def test_the_page_is_self_contained(finished):
    page = (finished[0] / "report.html").read_text()
    assert not re.search(r"https?:|//cdn|<link|@import", page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "adder:2" in page and "interrupted" not in page


@pytest.mark.further
@pytest.mark.parametrize(
    ("title", "kept", "n_finished"),
    [
        ("Learning the couplings", ["model.eqx", "report.html", "study.npz", "summary.json"], 2),
        ("Scanning the temperature", FILES, 10),
        ("Comparing with experts", FILES, 11),
        ("Testing what traps the dynamics", FILES, 5),
        pytest.param("Climbing the barriers", FILES, 7, marks=pytest.mark.slow),
        pytest.param("Recalling samples", FILES, 8, marks=pytest.mark.slow),
        ("Searching for bound states", FILES, 4),
    ],
)
def test_an_interrupted_study_keeps_what_was_done(tmp_path, monkeypatch, title, kept, n_finished):
    monkeypatch.setattr(tg.study, "progress", _interrupting(title))
    (tmp_path / "library.npz").write_bytes(b"of an earlier study")
    outcome = _run("study", "adder:2", "--out", tmp_path, *QUICK)
    assert outcome.exit_code == 130
    assert "Interrupted; kept what was done: model.eqx, " in outcome.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "unfinished"]
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["interrupted"] is True
    assert (
        figures["stages_finished"]
        == [name for name in tg.study.STAGES if name != "fill"][:n_finished]
    )
    page = (tmp_path / "report.html").read_text()
    assert "This study was interrupted." in page and title.lower() in page
    assert storage.load_energy(tmp_path / "model.eqx").n_spins == 7
    if "library.npz" in kept:
        assert storage.load_library(tmp_path / "library.npz").size == figures["n_states"] > 0


def _interrupting(title):
    """A progress display that is interrupted when the stage of this title first reports."""

    @contextlib.contextmanager
    def progress(stage):
        def tell(done, total, note):
            if stage == title:
                raise KeyboardInterrupt

        yield tell

    return progress


def test_an_interruption_before_all_writes_nothing(tmp_path, monkeypatch):
    def interrupted(stage):
        raise KeyboardInterrupt

    monkeypatch.setattr(tg.study, "progress", interrupted)
    (tmp_path / "model.eqx").write_bytes(b"of an earlier study")
    outcome = _run("study", "adder:2", "--out", tmp_path)
    assert outcome.exit_code == 130
    assert outcome.stderr.startswith("Interrupted\nTo go on: thermogen ")
    assert (tmp_path / "model.eqx").read_bytes() == b"of an earlier study"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "no data set or file named 'nothing.csv'; expected digits, adder:N"),
        (["adder"], "'adder' names no adder; write adder:N, for example adder:3"),
        (["adder:x"], "'adder:x' names no adder"),
        (["adder:0"], "n_bits is 0; expected an integer from 1 to 12"),
        (["bad.csv"], "bad.csv has the value 7 at line 1, column 1"),
        (["bad.csv", "--labels", "kind"], "labels names 'kind', which is no column of bad.csv"),
        (["gaps.csv", "--columns", "c"], "columns names 'c', which is no column of gaps.csv"),
        (["adder:1", "--columns", "1-3"], "adder:1 has no columns to choose; columns is for files"),
        (["bad.xls"], "has the suffix '.xls'; expected "),
        (["adder:1", "--beta", "0"], "beta must be positive and finite, got 0.0"),
        (["adder:1", "--beta", "nan"], "beta must be positive and finite, got nan"),
        (["adder:1", "--threshold", "0"], "threshold must be positive and finite, got 0.0"),
        (["adder:1", "--l2", "1e300"], "l2 must be at most 1e+09, got 1e+300"),
        (["adder:1", "--l2", "-1"], "l2 must be finite and not negative, got -1.0"),
        (["adder:1", "--starts", "0"], "n_starts must be at least 1, got 0"),
        (["adder:1", "--starts", str(10**12)], "n_starts must be at most 2147483647"),
        (["adder:1", "--starts", str(10**9)], "needs about"),
        (["wide.npy", "--starts", str(10**4)], "days; ask for fewer spins or starts"),
        (["adder:1", "--beta", "1e308"], "beta must lie between 1e-09 and 1e+09, got 1e+308"),
        (["adder:1", "--threshold", "1e300"], "threshold must lie between 1e-09 and 1e+09"),
        (["adder:2", "--threshold", "1e9"], "days; ask for a lower threshold"),
        (["adder:1", "--seed", str(2**64)], "seed must be at most 18446744073709551615"),
        (["adder:1", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["adder:1", "--out", "bad.csv"], "File exists"),
    ],
)
def test_bad_arguments_are_named_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("1,7\n0,1\n")
    (tmp_path / "bad.xls").write_text("1,0\n")
    (tmp_path / "gaps.csv").write_text("a,b\n1,0\n1,NA\n0,1\n")
    np.save(tmp_path / "wide.npy", np.eye(20, 3000))
    outcome = _run("study", *arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("thermogen study: ") and message in line


def test_help_and_version():
    assert "study" in _run("--help").output
    text = _run("study", "--help").output
    for part in ("thermogen study digits", "--beta", "--functional", "naive|tap", "--l2", "Ctrl-C"):
        assert part in text
    outcome = _run("--version")
    assert outcome.exit_code == 0
    assert re.fullmatch(r"thermogen \S+\n", outcome.stdout)
    assert _run("study", "adder:1", "--functional", "exact").exit_code == 2


# --- recall


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Three visible spins that one hidden spin holds equal, and some cues."""
    folder = tmp_path_factory.mktemp("recall")
    storage.save_energy(folder / "model.eqx", RBM(6 * np.ones((3, 1)), np.zeros(3), np.zeros(1)))
    (folder / "cues.csv").write_text("a,b,c\n1,?,?\n0,,\n?,?,?\n1,1,1\n")
    return folder


@pytest.mark.further
def test_recall_completes_cues(copies, monkeypatch):
    """One answer where any spin is known, else two."""
    monkeypatch.chdir(copies)
    outcome = _run("recall", "model.eqx", "cues.csv", "--chains", "16", "--sweeps", "20")
    assert outcome.exit_code == 0, outcome.output
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert lines[0] == ["cue", "unknown", "answers", "p", "ln", "p", "best", "answer"]
    shown = [(line[0], line[1], line[3], line[5]) for line in lines[1:5]]
    assert shown[:2] == [("0", "2", "1.0000", "111"), ("1", "2", "1.0000", "000")]
    assert shown[2][1:3] == ("3", "0.5000") and shown[2][3] in ("111", "000")
    assert shown[3] == ("3", "0", "1.0000", "111")
    assert lines[5:] == [["answers.npz"]]
    with np.load("answers.npz") as found:
        assert found["configurations"].shape == (4, 8, 3)
        assert found["configurations"].dtype == np.float64
        np.testing.assert_allclose(found["probabilities"][2, :2], [0.5, 0.5], atol=1e-3)
        np.testing.assert_allclose(found["probabilities"], np.exp(found["log_probabilities"]))
        np.testing.assert_allclose(found["magnetizations"][1], -1, atol=1e-3)
        table = tg.datasets.Table(np.zeros((4, 3)))
        lines = _recall._text(dict(found), table).splitlines()
    assert lines[0] == "cue,probability,log_probability,s0,s1,s2"
    cells = [line.split(",") for line in lines[:0:-1]]
    best = {row: (float(p), rest) for row, p, _, *rest in cells}
    assert all(abs(float(p) - np.exp(float(log_p))) < 1e-5 for _, p, log_p, *_ in cells)
    # Weights 2 cosh(6 sum of s): 1 against exp(-12) for each of three others.
    exact = 1 / (1 + 3 * np.exp(-12))
    for row, spins in (("0", ["1"] * 3), ("1", ["-1"] * 3)):
        assert best[row][1] == spins and abs(best[row][0] - exact) < 3 * np.exp(-12)
    assert {line.split(",")[0] for line in lines[1:]} == {"0", "1", "2", "3"}


@pytest.mark.further
def test_recall_keeps_names(copies, monkeypatch):
    """Names of columns and rows go through; labels and other columns are left out."""
    monkeypatch.chdir(copies)
    text = 'id,kind,age,"a, old",b,c\nx,new,7,yes,?,?\ny,old,8,no,NA,\nz,new,9,yes,yes,?\n'
    (copies / "named.csv").write_text(text)
    options = ["--labels", "kind", "--columns", "3-5", "--chains", "16", "--sweeps", "20"]
    assert _run("recall", "model.eqx", "named.csv", "--out", "a.csv", *options).exit_code == 0
    table = tg.datasets.read("a.csv", columns="3-5", index="cue")
    assert table.names == ("a, old", "b", "c")
    best = {row: spins.tolist() for row, spins in zip(table.rows, table.spins, strict=True)}
    assert set(best) == {"0", "1", "2"}
    assert _run("recall", "model.eqx", "named.csv", *options).exit_code == 0
    with np.load("answers.npz") as found:
        assert found["names"].tolist() == ["a, old", "b", "c"]
        np.testing.assert_array_equal(
            found["configurations"][:, 0], np.array([1, -1, 1])[:, None] * np.ones(3)
        )


@pytest.mark.further
def test_recall_puts_columns_in_the_order_of_the_model(tmp_path, monkeypatch):
    """In a study's folder; a is known, b and c follow fields of their own."""
    monkeypatch.chdir(tmp_path)
    machine = RBM(np.zeros((3, 1)), np.array([0.0, 9.0, -9.0]), np.zeros(1))
    names = ["a", "b", "c", "hidden 0"]
    storage.save_energy("model.eqx", machine, notes={"names": names})
    (tmp_path / "cues.csv").write_text("c,a,b\n?,1,?\n?,0,?\n1,0,?\n?,1,0\n")
    counts = ["--chains", "16", "--sweeps", "20"]
    outcome = _run("recall", ".", "cues.csv", *counts)
    assert outcome.exit_code == 0, outcome.output
    with np.load("answers.npz") as found:
        assert found["names"].tolist() == ["a", "b", "c"]
        best = [[1, 1, -1], [-1, 1, -1], [-1, 1, 1], [1, -1, -1]]
        np.testing.assert_array_equal(found["configurations"][:, 0], best)


@pytest.mark.further
def test_recall_answers_where_probabilities_underflow(tmp_path, monkeypatch):
    """A hundred and fifty spins in float32 that are unknown and free: ln p = -150 ln 2."""
    monkeypatch.chdir(tmp_path)
    n = 150
    free = Interactions(n, [np.arange(n)[:, None]], [np.zeros(n, np.float32)])
    storage.save_energy("model.eqx", free)
    np.save("cues.npy", np.array([[np.nan] * n, [1.0] + [np.nan] * (n - 1)]))
    outcome = _run("recall", "model.eqx", "cues.npy", "--out", "answers.csv", "--sweeps", "2")
    assert outcome.exit_code == 0, outcome.output
    rows = [line.split() for line in outcome.stdout.splitlines()[1:3]]
    assert [row[:5] for row in rows] == [
        ["0", "150", "8", "0.0000", "-103.97"],
        ["1", "149", "8", "0.0000", "-103.28"],
    ]
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(lines) == 17 and lines[1].startswith("0,0,-103.972,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.eqx", "cues.csv"], "none.eqx"),
        (["cues.csv", "cues.csv"], "cues.csv"),
        (["named.eqx", "cues.csv"], "cues.csv has no spin named 'x', which the model has"),
        (["model.eqx", "none.csv"], "no such file: none.csv"),
        (["model.eqx", "four.csv"], "four.csv has 4 columns of spins; the model has 3"),
        (["model.eqx", "bad.csv"], "bad.csv has 'x' at line 1, column 1"),
        (["model.eqx", "cues.csv", "--out", "a.txt"], "--out must end in .npz or .csv, got a.txt"),
        (["model.eqx", "cues.csv", "--beta", "0"], "beta must be positive and finite, got 0.0"),
        (["model.eqx", "cues.csv", "--chains", "0"], "n_chains must be at least 1, got 0"),
        (["model.eqx", "cues.csv", "--answers", "0"], "capacity must be at least 1, got 0"),
        (["model.eqx", "cues.csv", "--chains", str(10**12)], "n_chains must be at most"),
        (["model.eqx", "cues.csv", "--chains", str(10**9)], "recall with these counts needs"),
        (["model.eqx", "cues.csv", "--answers", str(10**9)], "recall with these counts needs"),
        (["model.eqx", "cues.csv", "--seed", str(2**64)], "seed must be at most"),
        (["model.eqx", "cues.csv", "--seed", "-1"], "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_of_recall_are_named_in_one_line(copies, monkeypatch, arguments, message):
    monkeypatch.chdir(copies)
    machine = storage.load_energy("model.eqx")
    storage.save_energy("named.eqx", machine, notes={"names": ["a", "x", "c", "hidden 0"]})
    (copies / "four.csv").write_text("1,?,?,0\n")
    (copies / "bad.csv").write_text("1,x,?\n")
    outcome = _run("recall", *arguments)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("thermogen recall: ") and message in line


# --- files of a study


@pytest.mark.further
def test_the_page_is_written_again_from_what_was_saved(finished):
    out, _ = finished
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    outcome = _run("render", out)
    assert outcome.exit_code == 0, outcome.output
    assert (out / "report.html").read_text() == page
    figures = tg.study.summary(tg.study.load_study(out / "study.npz"))
    assert json.loads(json.dumps(figures)) == json.loads((out / "summary.json").read_text())


@pytest.mark.further
def test_a_damaged_study_is_not_rendered(finished, tmp_path):
    whole = (finished[0] / "study.npz").read_bytes()
    (tmp_path / "study.npz").write_bytes(whole[:-100])
    for folder, message in ((tmp_path, "cannot be read"), (tmp_path / "none", "no such file")):
        outcome = _run("render", folder)
        assert outcome.exit_code == 2 and message in outcome.stderr
        assert outcome.stderr.startswith("thermogen render: ")


def _failing(monkeypatch, failing, error):
    """Let a save fail wherever its path holds a text."""
    real = storage.save_energy

    def save(path, energy, **notes):
        if failing in str(path):
            raise error
        real(path, energy, **notes)

    monkeypatch.setattr(storage, "save_energy", save)


@pytest.mark.further
def test_a_second_study_leaves_the_first_alone_until_it_is_done(finished, tmp_path, monkeypatch):
    for path in finished[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "experts.eqx").write_bytes(b"of the first")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def died(study, **_):
        raise RuntimeError("as if it was killed")

    real = tg.study.run_study
    monkeypatch.setattr(
        tg.study,
        "run_study",
        lambda job, *, progress, **rest: (
            real(job, progress=_interrupting("Searching for bound states"), **rest),
            died(job),
        ),
    )
    assert isinstance(_run("study", "adder:2", "--out", tmp_path, *QUICK).exception, RuntimeError)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    partial = json.loads((tmp_path / "unfinished" / "summary.json").read_text())
    assert partial["interrupted"] is True
    monkeypatch.setattr(tg.study, "run_study", real)
    monkeypatch.setattr(tg.study, "progress", _interrupting("Searching for bound states"))
    assert _run("study", "adder:2", "--out", tmp_path, *QUICK, "--resume").exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES, "unfinished"]


def test_two_studies_do_not_share_a_folder(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        outcome = _run("study", "adder:1", "--out", tmp_path)
        assert outcome.exit_code == 2
        assert f"another study is writing to {tmp_path}" in outcome.stderr
        assert not list(tmp_path.iterdir())
    finally:
        os.close(descriptor)


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**6))
    outcome = _run("study", "adder:1", "--out", tmp_path)
    assert outcome.exit_code == 2
    assert "has room for 1 MB; the study needs about 33.6 MB" in outcome.stderr


@pytest.mark.further
def test_what_cannot_be_written_is_kept_elsewhere(tmp_path, monkeypatch):
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(tg.study, "progress", _interrupting("Searching for bound states"))
    _failing(monkeypatch, str(out), OSError(28, "No space left on device"))
    outcome = _run("study", "adder:2", "--out", out, *QUICK)
    assert outcome.exit_code == 1 and isinstance(outcome.exception, SystemExit)
    assert "No space left on device; kept what was done in " in outcome.stderr
    (kept,) = temporary.iterdir()
    assert str(kept) in outcome.stderr
    assert sorted(path.name for path in kept.iterdir()) == FILES


@pytest.mark.further
def test_a_folder_that_vanishes_is_made_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    real = tg.study.run_study

    def vanishing(job, *, progress, **rest):
        real(job, progress=_interrupting("Searching for bound states"), **rest)
        shutil.rmtree(out)

    monkeypatch.setattr(tg.study, "run_study", vanishing)
    assert _run("study", "adder:2", "--out", out, *QUICK).exit_code == 130
    assert sorted(path.name for path in out.iterdir()) == [*FILES, "unfinished"]


@pytest.mark.further
def test_names_of_any_bytes(tmp_path, monkeypatch):
    name = os.fsdecode(b"d\xff\xe9.csv")
    (tmp_path / name).write_text("1,0\n0,1\n")
    monkeypatch.setattr(tg.study, "progress", _interrupting("Searching for bound states"))
    outcome = _run("study", tmp_path / name, "--out", tmp_path / os.fsdecode(b"out\xff"), *QUICK)
    assert outcome.exit_code == 130 and "Interrupted; kept what was done" in outcome.stderr
    assert "\\udcff" in (tmp_path / os.fsdecode(b"out\xff") / "report.html").read_text()


@pytest.mark.further
def test_a_failed_fit_is_said(finished, tmp_path, monkeypatch):
    """On the page, in the figures, and by the exit code."""

    def failing(job, **_):
        saved = tg.study.load_study(finished[0] / "study.npz")
        for name, value in vars(saved).items():
            setattr(job, name, value)
        job.fit = dataclasses.replace(job.fit, result=RESULTS.step_limit)

    monkeypatch.setattr(tg.study, "run_study", failing)
    outcome = _run("study", "adder:2", "--out", tmp_path)
    assert outcome.exit_code == 1 and "the fit failed" in outcome.stderr
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["fit_failed"] is True and figures["ergodic"] is None
    assert figures["verdict"].startswith("The fit failed")
    assert "The fit failed: nothing below" in (tmp_path / "report.html").read_text()


def test_tables_that_lie_on_their_side(tmp_path):
    np.save(tmp_path / "spikes.npy", np.resize([1, -1, 1], (20, 60_000)).astype(np.int8))
    outcome = _run("study", tmp_path / "spikes.npy", "--out", tmp_path / "out")
    assert outcome.exit_code == 2 and not (tmp_path / "out").exists()
    assert "a study of 60000 spins needs about 1.16e+03 GB of memory; this machine has" in (
        outcome.stderr
    )
    assert "the table looks transposed: it has 20 rows, the samples, and 60000 columns" in (
        outcome.stderr
    )


def test_long_studies_say_so():
    def notes(rows, n, **settings):
        spins = np.resize([1.0, -1, 1], (rows, n))
        source = tg.study.Source("data", spins, None, (1, n))
        return tg.study.check_size(tg.study.Study(source, tg.study.Settings(**settings)))

    assert notes(1797, 64) == notes(16, 7) == []
    assert any("looks transposed" in note for note in notes(20, 300))
    assert any(
        re.search("3000 spins will take about .* (hours|days)", note) for note in notes(3000, 3000)
    )
    assert any("minutes" in note or "hours" in note for note in notes(16, 7, threshold=1e5))


# --- signals


def _command(*arguments, **options):
    command = [sys.executable, "-m", "thermogen", *map(str, arguments)]
    # Programs are kept nowhere, unless whoever runs the tests says where.
    environment = {"JAX_COMPILATION_CACHE_DIR": "", **os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)


def _struck(tmp_path, number, seconds):
    process = _command("study", "adder:2", "--out", tmp_path / "out", *QUICK)
    time.sleep(seconds)
    process.send_signal(number)
    struck = time.monotonic()
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors, time.monotonic() - struck


def _check_struck(tmp_path, number, seconds):
    code, errors, taken = _struck(tmp_path, number, seconds)
    assert "Traceback" not in errors
    assert code in (0, 128 + number), (code, errors)
    out = tmp_path / "out"
    if code and (out / "summary.json").exists():
        assert json.loads((out / "summary.json").read_text())["interrupted"] is True
        assert storage.load_energy(out / "model.eqx").n_spins == 7
        assert (out / "report.html").exists()
    elif code:
        assert "Interrupted" in errors
    return taken


@pytest.mark.further
@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 0.7), (signal.SIGTERM, 2.5), (signal.SIGINT, 12.0)]
)
def test_signals_end_the_command_cleanly(tmp_path, number, seconds):
    _check_struck(tmp_path, number, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
# Before Python has begun to import the command nobody listens to signals.
@pytest.mark.parametrize("seconds", np.linspace(1, 40, 25))
def test_signals_at_any_moment(tmp_path, number, seconds):
    assert _check_struck(tmp_path, number, seconds) < 30


@pytest.mark.further
def test_a_signal_that_was_swallowed_is_heard_at_the_next_step(tmp_path, monkeypatch):
    """As one that strikes in a callback of the garbage collector, which can raise nothing."""
    monkeypatch.setattr(_signals, "_caught", None)
    seen = []

    @contextlib.contextmanager
    def progress(title):
        def tell(done, total, note):
            seen.append(title)
            if title == "Quenching the data":
                with contextlib.suppress(KeyboardInterrupt):
                    _signals._handle(signal.SIGTERM, None)

        yield tell

    monkeypatch.setattr(tg.study, "progress", progress)
    outcome = _run("study", "adder:2", "--out", tmp_path, *QUICK)
    assert outcome.exit_code == 143
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["interrupted"] is True and "search" not in figures["stages_finished"]


@pytest.mark.further
def test_a_signal_waits_until_files_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(_signals, "_caught", None)
    monkeypatch.setattr(tg.study, "progress", _interrupting("Searching for bound states"))
    real = tg.study.render

    def render(job):
        _signals._handle(signal.SIGINT, None)
        return real(job)

    monkeypatch.setattr(tg.study, "render", render)
    assert _run("study", "adder:2", "--out", tmp_path, *QUICK).exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES, "unfinished"]


def test_signals_raise_only_where_work_can_end(monkeypatch):
    monkeypatch.setattr(_signals, "_caught", None)
    _signals._handle(signal.SIGINT, None)
    assert _signals.caught() and _signals.exit_code() == 130
    with pytest.raises(KeyboardInterrupt), _signals.interruptible():
        raise AssertionError("what came before is heard at once")
    monkeypatch.setattr(_signals, "_caught", None)
    with pytest.raises(KeyboardInterrupt), _signals.interruptible():
        _signals._handle(signal.SIGTERM, None)
        raise AssertionError("it raises where it strikes")
    assert _signals.exit_code() == 143
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    _signals._handle(signal.SIGINT, None)
    assert ended == [130]


def test_what_was_cut_short_is_not_dropped(tmp_path, monkeypatch):
    left, begun = tmp_path / "unfinished", []

    def run_study(job, **_):
        begun.append(job.finished)
        raise OSError("full")

    monkeypatch.setattr(tg.study, "run_study", run_study)
    study = ["study", "adder:1", "--out", tmp_path, *QUICK]
    assert _run(*study).exit_code == 1
    before = {path.name: path.read_bytes() for path in left.iterdir() if path.is_file()}
    assert "study.npz" in before
    outcome = _run(*study)
    assert outcome.exit_code == 2 and len(begun) == 1
    assert outcome.stderr.startswith(f"thermogen study: {left} holds a study that was cut short")
    assert "by --resume, choose another --out, or remove that folder" in outcome.stderr
    assert before == {path.name: path.read_bytes() for path in left.iterdir() if path.is_file()}
    assert _run(*study, "--resume").exit_code == 1 and len(begun) == 2
    shutil.rmtree(left)
    assert _run(*study).exit_code == 1 and len(begun) == 3


@pytest.mark.parametrize(
    ("error", "tell"), [(CheckpointError("of another run"), False), (OSError("full"), True)]
)
def test_how_to_go_on_is_said_where_that_can_work(tmp_path, monkeypatch, error, tell):
    def run_study(*_, **__):
        raise error

    monkeypatch.setattr(tg.study, "run_study", run_study)
    outcome = _run("study", "adder:1", "--out", tmp_path, *QUICK)
    assert outcome.exit_code == 1
    assert f"thermogen study: {error}\nInterrupted" in outcome.stderr
    assert ("To go on: thermogen" in outcome.stderr) is tell
