"""Several processes: they come to what one comes to, end together, and go on together.

Each is a script of its own on this machine, which talks to the others on loopback.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import thermogen as tg
from experiments import processes
from thermogen import _cluster

HEAD = """
import sys
import jax

port, n, k, folder = *map(int, sys.argv[1:4]), sys.argv[4]
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_enable_x64", True)
if n > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", n, k, heartbeat_timeout_seconds=10)
import numpy as np
import thermogen as tg
from thermogen.runs import Checkpoint

J = np.triu(np.random.default_rng(0).normal(size=(8, 8)), 1) / 8**0.5
energy = tg.Pairwise(J + J.T, np.full(8, 0.1))
rows = np.random.default_rng(1).choice([-1, 1], (30, 8))
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
on = {"key": jax.random.key(0), "sharding": mesh}

def gathered(x):
    return jax.experimental.multihost_utils.process_allgather(x, tiled=True)
"""


def _run(code: str, n: int, *arguments: object) -> None:
    processes.ended(processes.start(HEAD + code, n, *arguments))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return processes.run(1, tmp_path_factory.mktemp("alone"))[0]


@pytest.mark.further
@pytest.mark.parametrize("n", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_come_to_what_one_comes_to(n, alone, tmp_path):
    first, *others = processes.run(n, tmp_path)
    for name, truth in alone.items():
        exact = truth.dtype.kind in "ib" or name == "samples"
        assert processes.difference(first[name], truth) <= (0 if exact else 1e-12), name
    for other in others:
        for name, found in other.items():
            np.testing.assert_array_equal(found, first[name], err_msg=name)


LONG = """
import os
import signal
import warnings

dies, looks = sys.argv[5] == "dies", 0

def look(*_):
    global looks
    looks += 1
    if dies and k == n - 1 and looks == 3:
        os.kill(os.getpid(), signal.SIGKILL)

def stored(name):
    return {"checkpoint": Checkpoint(f"{folder}/{name}", 0), **on}

with warnings.catch_warnings(record=True) as warned:
    spins = tg.sample(tg.Gibbs(), energy, 1.0, n_chains=8, n_sweeps=6, **stored("sample"))
    fitted = tg.fit(
        tg.PersistentCD(), energy, rows, n_steps=120, callback=look, **stored("fit"))
np.savez(
    f"{folder}/found.{k}.npz",
    spins=gathered(spins),
    couplings=fitted.energy.couplings,
    looks=looks,
    warned=[str(warning.message) for warning in warned],
)
"""


@pytest.fixture(scope="module")
def cut_short(tmp_path_factory):
    """The folder of a run of two processes, of which one was killed, and the last words."""
    folder = tmp_path_factory.mktemp("cut")
    first, second = processes.start(HEAD + LONG, 2, folder, "dies")
    words = first.communicate(timeout=60)[1]
    second.communicate(timeout=60)
    assert second.returncode == -9 and first.returncode != 0
    return folder, words


def _stored(folder):
    return sorted((folder / "fit").glob("*.orbax"))


@pytest.mark.further
def test_one_that_is_killed_ends_the_others(cut_short):
    folder, words = cut_short
    assert "another process has ended" in words and "with the same checkpoint they resume" in words
    assert len(_stored(folder)) == 2


@pytest.mark.further
@pytest.mark.parametrize("n", [2, 1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_restart_resumes_with_any_number_of_processes(n, cut_short, tmp_path):
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    shutil.copytree(cut_short[0], resumed)
    _run(LONG, n, resumed, "lives")
    _run(LONG, 2, whole, "lives")
    found, truth = (np.load(x / "found.0.npz") for x in (resumed, whole))
    assert not found["warned"].size and found["looks"] < truth["looks"]
    np.testing.assert_array_equal(found["spins"], truth["spins"])
    tolerance = {"rtol": 0} if n == 2 else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(found["couplings"], truth["couplings"], **tolerance)


@pytest.mark.further
def test_all_processes_go_back_to_the_last_state_that_is_sound(cut_short, tmp_path):
    folder, whole = tmp_path / "damaged", tmp_path / "whole"
    shutil.copytree(cut_short[0], folder)
    files = [path for path in _stored(folder)[-1].rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    _run(LONG, 2, folder, "lives")
    _run(LONG, 2, whole, "lives")
    found, truth = (np.load(x / "found.0.npz") for x in (folder, whole))
    assert "damaged" in str(found["warned"]) and found["looks"] < truth["looks"]
    np.testing.assert_array_equal(found["couplings"], truth["couplings"])


REFUSED = """
def refused(kind, words, **options):
    try:
        tg.sample(tg.Gibbs(), energy, 1.0, n_chains=8, n_sweeps=4, **{**on, **options})
    except kind as error:
        assert words in str(error), error
    else:
        sys.exit(f"not refused: {words}")

refused(ValueError, "same call in all processes", key=jax.random.key(k))
refused(ValueError, "same call in all processes", callback=print if k else None)
refused(ValueError, "same call in all processes", checkpoint=f"{folder}/{k}", sharding=None)
open(f"{folder}/file", "w").close()
refused(OSError, "no folder that can be written to", checkpoint=f"{folder}/file")
with Checkpoint(f"{folder}/held").held():
    refused(ValueError, "in use by another run", checkpoint=f"{folder}/held")
others = [device for device in jax.devices() if device.process_index != k]
refused(ValueError, "of this one alone, got devices of 1", sharding=jax.sharding.Mesh(others, "x"))

# What each does on its own devices is its own affair.
for seed in range(1 + k):
    own = jax.sharding.Mesh(jax.local_devices(), ("lanes",))
    spins = tg.sample(
        tg.Gibbs(), energy, 1.0, key=jax.random.key(seed), n_chains=8, n_sweeps=4 + k,
        sharding=own, callback=lambda *_: None)
    assert spins.is_fully_addressable
"""


@pytest.mark.further
def test_what_all_processes_cannot_do_together_is_refused_in_all(tmp_path):
    _run(REFUSED, 2, tmp_path)


@pytest.mark.further
def test_the_script_of_the_guide_runs_as_two_processes(tmp_path, monkeypatch):
    page = pathlib.Path(processes.ROOT, "docs", "devices.md").read_text()
    script = re.search(r"```python title=\"shared.py\"\n(.*?)```", page, flags=re.DOTALL)
    assert script is not None
    # It takes an address, not a port, and leaves its files where it is.
    head = (
        "import os, sys, thermogen; sys.argv[1] = '127.0.0.1:' + sys.argv[1]; "
        f"os.chdir({str(tmp_path)!r})\n"
    )
    processes.ended(processes.start(head + script[1], 2))
    assert (tmp_path / "library.npz").exists() and (tmp_path / "states").is_dir()


@pytest.mark.slow
def test_a_study_of_two_processes_is_that_of_one(tmp_path):
    """Its files, up to the order of sums; the first process alone writes and speaks."""
    code = """
import sys
from thermogen.__main__ import main
port, n, k, out = sys.argv[1:5]
several = ["--coordinator", f"127.0.0.1:{port}", "--processes", n, "--process", k]
sys.argv = ["thermogen", "study", "adder:1", "--starts", "16", "--no-cache", "--out", out]
sys.argv += several if int(n) > 1 else []
main()
"""
    for n in (1, 2):
        first, *others = started = processes.start(code, n, tmp_path / str(n))
        said = [process.communicate(timeout=600) for process in started]
        assert first.returncode == 0, said[0][1][-3000:]
        for process, (out, err) in zip(others, said[1:], strict=True):
            assert process.returncode == 0 and "Searching" not in err, err[-3000:]
            # What is left is of the library by which processes talk.
            assert all(line.startswith("[Gloo]") for line in out.splitlines()), out
    one, two = tmp_path / "1", tmp_path / "2"
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    ours, theirs = (tg.storage.load_library(x / "library.npz") for x in (two, one))
    np.testing.assert_array_equal(ours.hits, theirs.hits)
    # The command learns in single precision, whose sums differ by 6e-8 of the largest number.
    np.testing.assert_allclose(ours.magnetizations, theirs.magnetizations, atol=1e-5)
    ours, theirs = (json.loads((x / "summary.json").read_text()) for x in (two, one))
    _assert_close(ours, theirs)


def _assert_close(ours, theirs):
    """Two summaries, seconds left out."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name in set(theirs) - {"seconds", "stages"}:
            _assert_close(ours[name], theirs[name])
    elif isinstance(theirs, list):
        for a, b in zip(ours, theirs, strict=True):
            _assert_close(a, b)
    elif isinstance(theirs, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((False, "host:1", 2, None), "give --process, too"),
        ((False, "host", 2, 0), "--coordinator must be HOST:PORT"),
        ((False, "host:1", 2, 2), r"--process must lie in \[0, 1\]"),
        ((False, "host:1", 0, 0), "--processes must be at least 1"),
    ],
)
def test_addresses_that_are_none_are_refused_by_option(arguments, words):
    with pytest.raises(ValueError, match=words):
        _cluster.join(*arguments)


def test_a_command_that_finds_no_processes_says_what_to_give():
    """In a process of its own: JAX looks for others only before anything was computed."""
    script = "from thermogen import _cluster; _cluster.join(True, None, None, None)"
    done = _script(script)
    assert "ValueError: --distributed found no processes" in done.stderr
    assert "give --coordinator HOST:PORT" in done.stderr


ALONE = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
from thermogen import _cluster
assert _cluster.all_devices() is None
"""
JOINED = """
import atexit, socket
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
from thermogen import __main__, _cluster, cli

def fail():
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    _cluster.join(False, f"127.0.0.1:{port}", 1, 0)
    assert dict(_cluster.all_devices().shape) == {"lanes": 2}
    atexit.register(lambda: print("waited for the others"))
    raise AssertionError("by mistake")

cli.main = fail
__main__.main()
"""


@pytest.mark.further
def test_what_nobody_expected_ends_a_process_that_others_wait_for():
    """At once, with what went wrong; one process of two devices that has joined takes both."""
    done = _script(JOINED)
    assert done.returncode == 1, done.stderr
    assert "AssertionError: by mistake" in done.stderr
    assert "waited" not in done.stdout


def test_a_command_that_was_told_of_no_others_takes_one_device():
    done = _script(ALONE)
    assert done.returncode == 0, done.stderr


def _script(text):
    """A script in a process of its own, which has not computed yet."""
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
