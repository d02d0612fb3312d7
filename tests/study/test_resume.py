"""A study that was cut short is taken up by the command line: the same files to the last bit."""

import contextlib
import json
import shutil
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from thermogen import cli

# Equal for all, so that they share what is compiled.
COMMAND = ["study", "adder:2", "--beta", "1.5", "--starts", "8"]
STAGES = [
    "choose",
    "judge",
    "learn",
    "quench",
    "search",
    "certify",
    "vary",
    "climb",
    "recall",
    "measure",
    "scan",
]
FILES = ["library.npz", "model.eqx"]


def _run(out, *more):
    return CliRunner().invoke(cli.app, [*COMMAND, "--out", str(out), *more])


def _figures(out):
    figures = json.loads((out / "summary.json").read_text())
    # The folder and --resume stand in the command.
    return {name: value for name, value in figures.items() if name not in ("seconds", "command")}


def _assert_same(out, whole):
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert _figures(out) == _figures(whole)
    assert sorted(path.name for path in out.iterdir()) == sorted(p.name for p in whole.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a study, and its unfinished folder as it was after each stage."""
    out, kept = tmp_path_factory.mktemp("whole") / "out", tmp_path_factory.mktemp("kept")
    real = tg.study.run_study

    def run_study(job, *, on_stage, **rest):
        def keep(job):
            on_stage(job)
            shutil.copytree(out / "unfinished", kept / job.finished[-1])

        real(job, on_stage=keep, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tg.study, "run_study", run_study)
        outcome = _run(out)
    assert outcome.exit_code == 0, outcome.output
    return out, kept


def _left(tmp_path, whole, stage):
    out = tmp_path / "out"
    shutil.copytree(whole[1] / stage, out / "unfinished")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("with_states", [True, False])
def test_a_study_that_was_killed_goes_on_to_the_same_files(tmp_path, whole, stage, with_states):
    out = _left(tmp_path, whole, stage)
    if not with_states:
        shutil.rmtree(out / "unfinished" / "checkpoint")
    outcome = _run(out, "--resume")
    assert outcome.exit_code == 0, outcome.output
    assert f"going on; last stage that was finished: {stage}" in outcome.stderr
    _assert_same(out, whole[0])


def _interrupting(title, parts):
    """A display that is interrupted where the stage of this title has done so many parts."""

    @contextlib.contextmanager
    def progress(stage):
        def tell(done, total, note):
            if stage == title and done >= parts:
                raise KeyboardInterrupt

        yield tell

    return progress


@pytest.mark.further
@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("Scanning the temperature", 3),
        ("Searching for bound states", 1),
        ("Learning in other ways", 2),
        ("Choosing the ridge", 0),
        ("Learning the couplings", 1),
    ],
)
def test_an_interrupted_study_says_how_it_goes_on(tmp_path, monkeypatch, whole, title, parts):
    """What was found of the stage that was interrupted is found again, not twice."""
    out, command = tmp_path / "out", [*COMMAND, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["/somewhere/thermogen", *command])
    with monkeypatch.context() as patch:
        patch.setattr(tg.study, "progress", _interrupting(title, parts))
        outcome = _run(out)
    assert outcome.exit_code == 130
    how = f"thermogen {' '.join(command)} --resume"
    assert f"\nTo go on: {how}\n" in outcome.stderr
    assert how in (out / "unfinished" / "resume.txt").read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume"])
    outcome = _run(out, "--resume")
    assert outcome.exit_code == 0, outcome.output
    assert tg.study.load_study(out / "study.npz").command == f"thermogen {' '.join(command)}"
    _assert_same(out, whole[0])


@pytest.mark.further
def test_a_damaged_file_is_said_and_its_stages_are_repeated(tmp_path, whole):
    out = _left(tmp_path, whole, "scan")
    stored = out / "unfinished" / "study.npz"
    stored.write_bytes(stored.read_bytes()[:-50])
    outcome = _run(out, "--resume")
    assert outcome.exit_code == 0, outcome.output
    assert f"{stored} cannot be read" in outcome.stderr
    assert "its stages are repeated" in outcome.stderr
    _assert_same(out, whole[0])


@pytest.mark.further
def test_another_study_is_refused_by_name(tmp_path, whole):
    out = _left(tmp_path, whole, "learn")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def refused(*arguments):
        outcome = CliRunner().invoke(cli.app, [*arguments, "--out", str(out), "--resume"])
        assert outcome.exit_code == 2 and outcome.stdout == ""
        (line,) = outcome.stderr.splitlines()
        assert line.startswith("thermogen study: --resume: another study was begun: ")
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        return line

    assert "beta is 2.0, was 1.5;" in refused(*COMMAND[:3], "2", *COMMAND[4:])
    assert "n_starts is 9, was 8; seed is 1, was 0;" in refused(*COMMAND[:-1], "9", "--seed", "1")
    assert "data is adder:1, was adder:2;" in refused("study", "adder:1", *COMMAND[2:])
    np.save(tmp_path / "w.npy", np.arange(16) / 2)
    weighted = refused(*COMMAND, "--weights", str(tmp_path / "w.npy"))
    assert "weights of adder:2 are others;" in weighted


@pytest.mark.further
def test_where_nothing_was_left_a_study_begins(tmp_path, monkeypatch, whole):
    def run_study(job, **_):
        assert job.finished == []
        raise RuntimeError("begun")

    monkeypatch.setattr(tg.study, "run_study", run_study)
    outcome = _run(tmp_path / "out", "--resume")
    assert str(outcome.exception) == "begun" and "nothing to resume in" in outcome.stderr
    # What is left of a folder whose removal was cut short is nothing, either.
    out = _left(tmp_path / "other", whole, "learn")
    (out / "unfinished" / "study.npz").unlink()
    assert str(_run(out).exception) == "begun"
    assert not (out / "unfinished" / "checkpoint").exists()


@pytest.mark.further
def test_states_that_cannot_be_written_end_a_study_clearly(tmp_path, monkeypatch, whole):
    """What was done until then is kept."""
    out = _left(tmp_path, whole, "quench")
    shutil.rmtree(out / "unfinished" / "checkpoint")
    (out / "unfinished" / "checkpoint").touch()
    outcome = _run(out, "--resume")
    assert outcome.exit_code == 1
    assert f"checkpoint {out / 'unfinished' / 'checkpoint'} is no folder" in outcome.stderr
    assert "kept what was done: model.eqx, study.npz, summary.json" in outcome.stderr
    assert _figures(out)["stages_finished"] == STAGES[:4]
