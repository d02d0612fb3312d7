"""Stored states: what is resumed, what falls back, what is refused, and what is never destroyed."""

import contextlib
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

import thermogen as tg
from thermogen.runs import Checkpoint, CheckpointError, _checkpoint

N_STEPS = 12
KEY = jax.random.key(0)


class _State(NamedTuple):
    places: Array
    double: Array
    half: Array
    small: Array
    seen: Array
    key: Array
    n_done: Array


class Walk(tg.AbstractJob):
    """Random walks in numbers of all kinds."""

    rate: Array
    n: int = eqx.field(static=True, default=3)

    def init(self, key):
        places = jnp.zeros(self.n, jnp.float32)
        return _State(
            *(places, places.astype(jnp.float64), places.astype(jnp.bfloat16)),
            *(places.astype(jnp.int8), places > 1, key, jnp.zeros((), jnp.int32)),
        )

    def step(self, state):
        key, step_key = jax.random.split(state.key)
        places = state.places + self.rate * jax.random.normal(step_key, (self.n,), jnp.float32)
        double = jnp.sin(state.double + places)
        half = state.half + places.astype(jnp.bfloat16)
        small = jnp.clip(jnp.round(places), -100, 100).astype(jnp.int8)
        return _State(
            *(places, double, half, small, state.seen | (places > 1), key, state.n_done + 1)
        )

    def done(self, state):
        return state.n_done >= N_STEPS

    def result(self, state):
        return state._replace(key=jax.random.key_data(state.key))


def _walk(rate=1.0, n=3):
    return Walk(jnp.asarray(rate, jnp.float32), n)


def _assert_equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def _cut(folder, after=5, *, job=None, error=KeyboardInterrupt, keep=2):
    """A run that is cut short, each of whose states was stored."""

    def callback(state):
        if state.n_done == after:
            raise error

    with pytest.raises(error):
        checkpoint = Checkpoint(folder, seconds=0, keep=keep)
        tg.run(job or _walk(), key=KEY, checkpoint=checkpoint, callback=callback)


def _resumed(folder, job=None, key=KEY):
    """The result, and the steps at the end of which the run could be seen."""
    seen = []
    found = tg.run(
        job or _walk(),
        key=key,
        checkpoint=folder,
        callback=lambda state: seen.append(int(state.n_done)),
    )
    return found, seen


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole():
    return tg.run(_walk(), key=KEY)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit, GeneratorExit])
def test_what_ends_a_run_early_stores_its_state(tmp_path, whole, error):
    _cut(tmp_path / "deep" / "folder", error=error)
    found, seen = _resumed(tmp_path / "deep" / "folder")
    assert seen == list(range(6, N_STEPS + 1))
    _assert_equal(found, whole)


def test_states_are_stored_now_and_then_and_at_the_end(tmp_path, whole):
    _assert_equal(tg.run(_walk(), key=KEY, checkpoint=str(tmp_path)), whole)
    assert list(_content(tmp_path)) == ["00000001.npz"]


def test_of_what_has_ended_the_result_is_read(tmp_path, whole):
    tg.run(_walk(), key=KEY, checkpoint=tmp_path)
    before = _content(tmp_path)
    found, seen = _resumed(tmp_path)
    _assert_equal(found, whole)
    assert seen == [N_STEPS] and _content(tmp_path) == before


@pytest.mark.parametrize("keep", [1, 3])
def test_so_many_states_are_kept(tmp_path, keep):
    _cut(tmp_path, keep=keep)
    assert sorted(_content(tmp_path)) == [f"{k:08d}.npz" for k in range(6 - keep, 6)]


def test_other_kinds_of_random_keys_go_on(tmp_path):
    key = jax.random.key(3, impl="rbg")
    whole = tg.run(_walk(), key=key)
    for error in (KeyboardInterrupt, None):
        with contextlib.nullcontext() if error is None else pytest.raises(error):

            def callback(state, error=error):
                if error is not None:
                    raise error

            found = tg.run(_walk(), key=key, checkpoint=tmp_path, callback=callback)
    _assert_equal(found, whole)


# --- damage

# The first byte of the first array, after the headers of the archive and of the array.
_FIRST = 30 + 10 + 20 + 128
DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "a bit flipped": lambda content: bytes(b ^ (k == _FIRST) for k, b in enumerate(content)),
    "emptied": lambda content: b"",
    "overwritten": lambda content: b"something else",
    "cut by one byte": lambda content: content[:-1],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, whole, how):
    _cut(tmp_path)
    newest = tmp_path / "00000005.npz"
    newest.write_bytes(DAMAGE[how](newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"00000005\.npz .*; going on from 00000004\.npz"):
        found, seen = _resumed(tmp_path)
    assert seen[0] == 5
    _assert_equal(found, whole)
    assert newest.name not in _content(tmp_path)
    assert f"{newest.name}.damaged" in _content(tmp_path)
    with warnings.catch_warnings(action="error"):
        _assert_equal(_resumed(tmp_path)[0], whole)


def test_any_bit_that_is_flipped_is_seen(tmp_path, whole):
    """Or changes no number, as the date of a member of the archive."""
    _cut(tmp_path)
    newest, draw = tmp_path / "00000005.npz", np.random.default_rng(0)
    content = newest.read_bytes()
    stored, n_seen = _content(tmp_path), 0
    for place in draw.choice(len(content), 60, replace=False):
        for name, sound in stored.items():
            (tmp_path / name).write_bytes(sound)
        for path in set(tmp_path.iterdir()) - {tmp_path / name for name in stored}:
            path.unlink()
        flipped = content[place] ^ (1 << int(draw.integers(8)))
        newest.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        with warnings.catch_warnings(action="ignore"):
            found, seen = _resumed(tmp_path)
        assert seen[0] in (5, 6)
        n_seen += seen[0] == 5
        _assert_equal(found, whole)
    assert n_seen > 30


def test_where_all_is_damaged_a_run_begins_anew(tmp_path, whole):
    _cut(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="no other state is left, beginning anew") as caught:
        found, seen = _resumed(tmp_path)
    assert len(caught) == 2 and seen[0] == 1
    _assert_equal(found, whole)


def test_what_a_kill_left_behind_is_cleared(tmp_path, whole):
    _cut(tmp_path)
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half a file")
    (tmp_path / "00000006.orbax.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "notes.txt").write_text("of the user")
    _assert_equal(_resumed(tmp_path)[0], whole)
    names = sorted(_content(tmp_path))
    assert names[1:] == ["00000006.npz", "notes.txt"] or names == [
        "00000005.npz", "00000006.npz", "notes.txt"
    ]  # fmt: skip


def test_files_of_the_user_are_left_alone(tmp_path, whole):
    np.savez(tmp_path / "7.npz", x=np.ones(3))
    np.savez(tmp_path / "00000009.npz", x=np.ones(3))
    (tmp_path / "my-tmp-data").mkdir()
    kept = {"7.npz", "00000009.npz.damaged", "my-tmp-data"}
    with pytest.warns(UserWarning, match=r"00000009\.npz is not a checkpoint"):
        _assert_equal(_resumed(tmp_path)[0], whole)
    assert kept < {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no room")])
def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path, whole, monkeypatch, error):
    _cut(tmp_path)
    before = _content(tmp_path)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "read_magic", fails)
        with pytest.raises(type(error)):
            _resumed(tmp_path)
    assert _content(tmp_path) == before
    _assert_equal(_resumed(tmp_path)[0], whole)


# --- what is refused


def _fit(rate):
    objective, start = tg.Pseudolikelihood(0.1), tg.Pairwise(np.zeros((3, 3)), np.zeros(3))
    spins = jnp.array([[1.0, 1, 1], [1, -1, 1], [-1, -1, 1]])
    samples = tg.learning.Samples(spins, jnp.full(3, 1 / 3))
    return tg.learning.Fit(objective, start, samples, optimizer=optax.sgd(rate), n_steps=5)


class Own(Walk):
    """With a function of the user's."""

    function: Callable = lambda x: x


def _own(function):
    return Own(jnp.asarray(1.0, jnp.float32), 3, function)


def _closed_over_a_module():
    import math

    return lambda x: math.pi * x


class Other(Walk):
    """The same in another name."""


OTHERS = {
    "numbers": (_walk(), _walk(2.0), KEY),
    "shapes": (_walk(), _walk(n=4), KEY),
    "key": (_walk(), _walk(), jax.random.key(1)),
    "job": (_walk(), Other(jnp.asarray(1.0, jnp.float32), 3), KEY),
    "functions of one name": (_own(lambda x: x), _own(lambda x: 2 * x), KEY),
    "a module in a closure": (_own(_closed_over_a_module()), _own(lambda x: x), KEY),
    "a learning rate in a closure": (_fit(1e-2), _fit(2e-2), KEY),
    "a schedule": (
        _fit(optax.cosine_decay_schedule(1e-2, 5)),
        _fit(optax.cosine_decay_schedule(1e-2, 6)),
        KEY,
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_by_name(tmp_path, what):
    ours, theirs, key = OTHERS[what]
    whole = tg.run(ours, key=KEY, checkpoint=tmp_path)
    before = _content(tmp_path)
    with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path} holds another run: other"):
        tg.run(theirs, key=key, checkpoint=tmp_path)
    assert _content(tmp_path) == before
    _assert_equal(tg.run(ours, key=KEY, checkpoint=tmp_path), whole)


def test_a_run_is_the_same_in_every_process():
    """Sets of words come in another order in each."""
    script = (
        "from thermogen.runs._identity import fingerprint\n"
        "words = {'a', 'b', 'c', 'd'}\n"
        "def made(words): return lambda x: x in {'e', 'f', 'g', 'h'} or x in words\n"
        "print(fingerprint(made(words)), fingerprint(made({'a'})))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    ]
    first, second = told[0].split()
    assert told[0] == told[1] and first != second


def test_a_state_of_another_version_is_no_damage(tmp_path, monkeypatch):
    """Were the states of a job others, a sound one that does not fit is not overwritten."""
    monkeypatch.setattr(_checkpoint, "fingerprint", lambda run: "of both")
    _cut(tmp_path)
    before = _content(tmp_path)
    with pytest.raises(CheckpointError, match="or another version"):
        tg.run(_walk(n=4), key=KEY, checkpoint=tmp_path)
    assert _content(tmp_path) == before


def test_two_runs_in_one_folder_are_refused(tmp_path, whole):
    began, ends = threading.Event(), threading.Event()

    def callback(state):
        began.set()
        ends.wait()

    run = lambda: tg.run(_walk(), key=KEY, checkpoint=tmp_path, callback=callback)  # noqa: E731
    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    try:
        with pytest.raises(CheckpointError, match=f"{tmp_path} is in use by another run"):
            tg.run(_walk(), key=KEY, checkpoint=tmp_path)
    finally:
        ends.set()
        thread.join()
    _assert_equal(_resumed(tmp_path)[0], whole)


def test_another_process_in_the_folder_is_refused(tmp_path, whole):
    script = (
        "import sys; sys.argv.pop(0)\n"
        "from thermogen._files import locked\n"
        "with locked(sys.argv[0], 'taken'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="is in use by another run"):
            tg.run(_walk(), key=KEY, checkpoint=tmp_path)
        process.kill()
    _assert_equal(tg.run(_walk(), key=KEY, checkpoint=tmp_path), whole)


def test_a_folder_that_cannot_be_made_is_named_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/thermogen", ""):
        with pytest.raises(OSError, match=f"checkpoint {folder} is no folder that can be written"):
            tg.run(_walk(), key=KEY, checkpoint=folder)


@contextlib.contextmanager
def _full_disk(free):
    """As the largest file that can be written; EFBIG is an OSError as ENOSPC is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_older_states_alone(tmp_path):
    job = _walk(n=20_000)
    whole = tg.run(job, key=KEY)
    _cut(tmp_path, job=job)
    before = _content(tmp_path)
    for _ in range(2):
        with _full_disk(10_000), pytest.raises(OSError, match=f"{tmp_path} cannot be written: .*"):
            tg.run(job, key=KEY, checkpoint=Checkpoint(tmp_path, seconds=0))
        assert _content(tmp_path) == before
    _assert_equal(_resumed(tmp_path, job)[0], whole)


def test_a_folder_that_vanishes_is_named(tmp_path):
    def callback(state):
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        (tmp_path / "a").rmdir()

    with pytest.raises(OSError, match=f"checkpoint {tmp_path / 'a'} cannot be written"):
        tg.run(_walk(), key=KEY, checkpoint=Checkpoint(tmp_path / "a", 0), callback=callback)


def test_wrong_values_are_named(unchecked, tmp_path):
    for wrong in (5, b"folder", True, [str(tmp_path)]):
        with pytest.raises(TypeError, match="checkpoint must be a folder or a Checkpoint, got"):
            tg.run(_walk(), key=KEY, checkpoint=wrong)
        with pytest.raises(TypeError, match="folder must be a path, got"):
            Checkpoint(wrong)
    with pytest.raises(ValueError, match="seconds must not be negative, got -1"):
        Checkpoint(tmp_path, -1)
    with pytest.raises(ValueError, match="seconds must be finite"):
        Checkpoint(tmp_path, np.nan)
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpoint(tmp_path, keep=0)
    with pytest.raises(TypeError, match="keep must be an integer"):
        Checkpoint(tmp_path, keep=1.5)
