"""Bars of progress: where they are drawn, what they count, and that results do not change."""

import inspect
import io
import re
import sys
import types

import helpers
import jax
import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

import thermogen as tg
from thermogen import _api, runs

KEY = jax.random.key(0)
ENERGY = helpers.random_pairwise(6, jax.random.key(0), 1.0, 0.1)


def _sampled(**options):
    return tg.sample(tg.Gibbs(), ENERGY, 1.0, key=KEY, n_chains=4, n_sweeps=64, **options)


def _terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120)


@pytest.fixture
def told(monkeypatch):
    """What bars are told, as `(title, done, total)`."""
    seen, update = [], Progress.update

    def record(self, task_id, **fields):
        update(self, task_id, **fields)
        task = self.tasks[self.task_ids.index(task_id)]
        seen.append((task.description, task.completed, task.total))

    monkeypatch.setattr(Progress, "update", record)
    return seen


def test_a_terminal_shows_a_bar_and_the_time_left(told):
    console = _terminal()
    with runs.progress(console):
        _sampled()
    drawn = console.file.getvalue()
    assert "Sampling" in drawn and re.search(r"at most.*left", drawn)
    assert told[-1] == ("Sampling", 64, 64)
    done = [count for _, count, _ in told]
    assert done == sorted(done) and 0 < done[0] < 64


def test_nothing_is_shown_elsewhere(capfd):
    _sampled(progress=True)
    with runs.progress(Console(file=(file := io.StringIO()))):
        _sampled()
    out, err = capfd.readouterr()
    assert out == err == file.getvalue() == ""


def test_notebooks_show_bars(monkeypatch):
    """In a widget, where IPython is: here a stand-in for both of its modules."""
    shown = []

    class Output:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def clear_output(self, wait):
            return None

        def close(self):
            return None

    display = types.SimpleNamespace(display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", types.SimpleNamespace(Output=Output))
    with runs.progress(Console(force_jupyter=True)):
        _sampled()
    assert any(isinstance(x, Output) for x in shown)
    assert any("Sampling" in getattr(x, "html", "") for x in shown)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_results_are_the_same_to_the_last_bit(checkpoint, tmp_path):
    folder = tmp_path / "run" if checkpoint else None
    with runs.progress(_terminal()):
        assert np.array_equal(_sampled(checkpoint=folder), _sampled())


def test_a_resumed_run_starts_where_it_was(told, tmp_path):
    _sampled(checkpoint=tmp_path)
    with runs.progress(_terminal()):
        _sampled(checkpoint=tmp_path)
    assert set(told) <= {("Sampling", 64, 64)}


def test_parts_of_a_long_function_have_bars_of_their_own(told):
    with runs.progress(_terminal()):
        tg.find_bound_states(ENERGY, 1.0, key=KEY, n_starts=32, n_trajectories=16)
    titles = {title for title, *_ in told}
    assert {"Search", "Trajectories", "Population annealing"} <= titles
    assert all(done <= total for _, done, total in told if total is not None)


def test_what_counts_on_the_host_is_shown(told):
    with runs.progress(_terminal()):
        assert list(runs.counted("Parts", "abc")) == ["a", "b", "c"]
        assert list(runs.counted("Alone", "a")) == ["a"]
    assert told == [("Parts", k, 3) for k in range(3)]
    assert list(runs.counted("Parts", "abc")) == ["a", "b", "c"]


def test_traced_runs_have_no_bar(told):
    with runs.progress(_terminal()):
        jax.jit(lambda beta: tg.sample(tg.Gibbs(), ENERGY, beta, key=KEY, n_chains=2, n_sweeps=4))(
            1.0
        )
    assert told == []


def test_without_rich_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match=r"need rich: pip install 'thermogen\[study\]'"):
        _sampled(progress=True)


def test_what_can_be_stored_can_be_watched():
    """Every public function that takes a checkpoint takes `progress`."""
    found = set()
    for room in filter(inspect.ismodule, vars(_api).values()):
        for name, value in vars(room).items():
            if name.startswith("_") or not inspect.isfunction(value):
                continue
            parameters = inspect.signature(value).parameters
            if {"checkpoint", "key"} <= set(parameters) and name != "log_partitions":
                found.add(name)
                assert "progress" in parameters, f"{room.__name__}.{name}"
    assert {"run", "sample", "fit", "find_minima", "certify", "fit_experts"} <= found
    assert "progress" in inspect.signature(tg.barriers).parameters
