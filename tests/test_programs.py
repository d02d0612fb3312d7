"""Programs that outlive the process: by default of the command, of a script by a recipe."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import pytest

import thermogen as tg
from thermogen import _programs, _xla

ROOT = pathlib.Path(__file__).parent.parent
MISS = "PERSISTENT COMPILATION CACHE MISS"
NOT_KEPT = "thermogen: compiled programs are not kept: "


class Place:
    """A folder with a model and a cue, and the environment of a user who has set nothing."""

    def __init__(self, folder):
        self.folder, self.caches = folder, folder / "caches"
        couplings = jnp.ones((3, 3)) - jnp.eye(3)
        tg.storage.save_energy(folder / "model.eqx", tg.Pairwise(couplings, jnp.zeros(3)))
        (folder / "cues.csv").write_text("1,1,?\n")
        kept = {k: v for k, v in os.environ.items() if "CACHE" not in k}
        self.environment = kept | {"XDG_CACHE_HOME": str(self.caches), "JAX_PLATFORMS": "cpu"}

    def start(self, *options, limit=None, **settings):
        """The command `recall`, as a process; JAX explains what it misses.

        No file may grow beyond `limit` kilobytes.
        """
        command = [sys.executable, "-m", "thermogen", "recall", "model.eqx", "cues.csv"]
        command += ["--chains", "4", "--sweeps", "5", *options]
        if limit:
            command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "", *command]
        return self._process(command, settings)

    def recall(self, *options, **settings):
        """What the command says of itself, and how many programs it missed."""
        return _outcome(self.start(*options, **settings))

    def script(self, code):
        return _outcome(self._process([sys.executable, "-c", code], {}))

    def _process(self, command, settings):
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | {"JAX_EXPLAIN_CACHE_MISSES": "true"} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def programs(self):
        return sorted(self.caches.glob("thermogen/programs-*/*-cache"))


def _outcome(process):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    # Beside the explanations, which were asked for.
    said = [line for line in errors.splitlines() if re.search("^thermogen|Warning", line)]
    return types.SimpleNamespace(output=output, said=said, missed=errors.count(MISS))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.further
def test_the_second_command_compiles_nothing(place):
    first = place.recall()
    assert first.missed > 5 and not first.said
    assert len(place.programs()) == first.missed
    second = place.recall()
    assert (second.missed, second.said, second.output) == (0, [], first.output)
    # Cut short, as by a full disk: said in one line, compiled, and mended.
    for path in place.programs():
        path.write_bytes(path.read_bytes()[:100])
    third = place.recall()
    assert third.missed == first.missed and third.output == first.output
    assert len(third.said) == 1 and third.said[0].startswith(NOT_KEPT)
    fourth = place.recall()
    assert (fourth.missed, fourth.said) == (0, [])


@pytest.mark.further
def test_no_cache_and_the_settings_of_jax_are_obeyed(place):
    without = place.recall("--no-cache")
    off = place.recall(JAX_ENABLE_COMPILATION_CACHE="false")
    assert not place.programs() and without.missed == off.missed == 0
    own = place.folder / "own"
    least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    place.recall(JAX_COMPILATION_CACHE_DIR=str(own), **least)
    assert list(own.glob("*-cache")) and not place.programs()
    # A threshold of the user stands, in the folder that is ours: no program takes an hour.
    least["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "3600"
    assert place.recall(**least).missed > 5 and not place.programs()


@pytest.mark.further
def test_a_folder_that_does_not_serve_is_said_in_one_line(place):
    place.caches.write_text("a file where a folder should be")
    outcome = place.recall()
    assert len(outcome.said) == 1 and outcome.said[0].startswith(NOT_KEPT)
    assert " 111\n" in outcome.output
    silent = place.recall("--no-cache")
    assert silent.said == [] and silent.output == outcome.output


@pytest.mark.further
def test_a_disk_that_fills_up_is_said_in_one_line(place):
    outcome = place.recall(limit=4)
    assert len(outcome.said) == 1 and outcome.said[0].startswith(NOT_KEPT)
    assert " 111\n" in outcome.output
    assert all(path.stat().st_size <= 4096 for path in place.programs())
    with_room = place.recall()
    assert with_room.said == [] and with_room.output == outcome.output
    assert place.recall().missed == 0


@pytest.mark.further
def test_two_commands_at_once(place):
    both = [place.start("--out", f"{k}.npz") for k in range(2)]
    first, second = map(_outcome, both)
    assert first.output.replace("0.npz", "") == second.output.replace("1.npz", "")
    assert len(first.said) <= 1 and len(second.said) <= 1
    again = place.recall()
    assert (again.missed, again.said) == (0, [])


@pytest.mark.further
def test_the_recipe_for_scripts(place):
    page = (ROOT / "docs" / "index.md").read_text()
    (recipe,) = re.findall(r"```python\n(import jax\n[^`]*compilation_cache_dir.*?)```", page, re.S)
    assert "~" in recipe
    place.environment["HOME"] = str(place.folder)
    work = (
        "import thermogen as tg\n"
        "energy = tg.storage.load_energy('model.eqx')\n"
        "print(tg.recall(energy, 1.0, [1, -1, 0], key=jax.random.key(0)).log_probabilities)\n"
    )
    first, second = place.script(recipe + work), place.script(recipe + work)
    assert first.missed > 5 and second.missed == 0 and first.output == second.output != ""


@pytest.mark.parametrize(("series", "number"), [("0.10.2", 2), ("0.12.0.1", 1), ("0.13.0", 0)])
def test_flags_are_set_for_the_series_that_they_were_tried_with(monkeypatch, series, number):
    """XLA ends the process at a flag that it does not know."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_xla.jaxlib, "__version__", series)
    own = "--xla_backend_optimization_level=2 --xla_dump_to=there"
    monkeypatch.setenv("XLA_FLAGS", own)
    _programs.hurry()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == own.split()
    others = [f for f in flags[2:] if f.startswith("--xla_cpu")]
    assert flags[2:] == others and len(others) == number
    assert bool(_xla.few_passes()) == (number > 0)


# --- the folder


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {}, "/home/u/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/scratch/u"}, "/scratch/u"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache"),
        ("darwin", {"XDG_CACHE_HOME": "/scratch/u"}, "/home/u/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {}, "/home/u/AppData/Local"),
    ],
)
def test_the_folder_is_where_a_system_has_it(monkeypatch, system, variables, expected):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(pathlib.Path, "home", lambda: pathlib.Path("/home/u"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = _programs._default_folder()
    assert folder.parent == pathlib.Path(expected) / "thermogen"
    monkeypatch.setattr(_programs, "_processor", lambda: "another")
    assert _programs._default_folder() != folder


def test_a_folder_without_a_home(monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", homeless)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = dict(os.environ)
    _programs.keep()
    assert dict(os.environ) == before
    assert capsys.readouterr().err == f"{NOT_KEPT}Could not determine home directory.\n"


def test_a_folder_of_others_or_without_room_is_refused(tmp_path, monkeypatch):
    # What lies there is executed.
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written to by others"):
        _programs._prepare(tmp_path)
    tmp_path.chmod(0o755)
    _programs._prepare(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="can be written to by others"):
        _programs._prepare(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**6))
    with pytest.raises(OSError, match="has no room for 268 MB"):
        _programs._prepare(tmp_path)


def test_once_a_day_what_was_used_last_is_kept_within_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(_programs, "_BOUND", 250)

    def filled():
        for k in range(5):
            path = tmp_path / f"jit_f{k}-cache"
            path.write_bytes(bytes(100))
            # Read at different times, the odd ones last, and all written long ago.
            os.utime(path, (1000 * (k % 2) + k, 0))
        (tmp_path / "other").write_bytes(bytes(1000))

    def held():
        return sorted(path.name for path in tmp_path.glob("*-cache"))

    filled()
    _programs._prepare(tmp_path)
    assert held() == ["jit_f1-cache", "jit_f3-cache"] and (tmp_path / "other").exists()
    filled()
    _programs._prepare(tmp_path)
    assert len(held()) == 5  # not again today
    yesterday = time.time() - 90_000
    os.utime(tmp_path / "pruned", (yesterday, yesterday))
    _programs._prepare(tmp_path)
    assert held() == ["jit_f1-cache", "jit_f3-cache"]
