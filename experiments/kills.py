"""Runs that are killed at random moments and resumed: is the result the same to the last bit?

A search, a fit, a sampling run and a study are run once to their ends. Then each is begun anew many
times, in a process of its own whose group is killed by SIGKILL at a moment drawn uniformly from the
duration of the whole run; it is begun again by the same call, and every third time killed once
more. States are stored every few hundredths of a second, so that kills fall within saves too. A run
that ends at the same bits as the one that was not cut short has survived; whatever else happens is
a loss. What is redone is the time from the last state that was stored, or from the start, to the
kill. At the end both forms of stored states are timed: archives, and orbax, which is used for
arrays that are split.

    python -m experiments kills [search fit sample study] [--rounds N] [--seed N]
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import thermogen as tg
from experiments._shared import claim
from thermogen import cli, study
from thermogen._files import write_archive
from thermogen.runs import Checkpoint
from thermogen.runs._sharded import write_sharded

# Single precision, as users have it who set nothing.
X64 = False
SECONDS = 0.03  # between two states that are stored
STATES = "states"


# --- what is run; each call goes on from what lies in its folder


def run_search(folder: pathlib.Path) -> str:
    couplings = np.triu(np.random.default_rng(0).normal(size=(64, 64)), 1) / 8
    energy = tg.Pairwise(couplings + couplings.T, np.zeros(64))
    where = Checkpoint(folder / STATES, SECONDS)
    found = tg.find_minima(
        tg.TAP(), energy, 1.5, key=jax.random.key(0), n_starts=8192, checkpoint=where
    )
    return digest(found)


def run_fit(folder: pathlib.Path) -> str:
    data = tg.datasets.digits().spins
    start = tg.RBM.random(32, data.mean(axis=0), key=jax.random.key(0))
    where = Checkpoint(folder / STATES, SECONDS)
    fitted = tg.fit(
        tg.PersistentCD(),
        start,
        data,
        key=jax.random.key(1),
        n_steps=1200,
        batch_size=256,
        checkpoint=where,
    )
    return digest((fitted.energy, fitted.history, fitted.state))


def run_sample(folder: pathlib.Path) -> str:
    draw = np.random.default_rng(0)
    couplings = np.triu(draw.normal(size=(64, 64)), 1) / 8
    energy = tg.Pairwise(couplings + couplings.T, draw.normal(size=64))
    where = Checkpoint(folder / STATES, SECONDS)
    spins = tg.sample(
        tg.Gibbs(),
        energy,
        1.0,
        key=jax.random.key(0),
        n_chains=32,
        n_sweeps=1200,
        checkpoint=where,
    )
    return digest(spins)


def run_study(folder: pathlib.Path) -> str:
    """By the command, with its own folder of states."""
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2, (24, 3))
    table = np.concatenate([np.repeat(bits, 2, axis=1), draw.integers(0, 2, (24, 1))], axis=1)
    np.save(folder / "samples.npy", np.concatenate([table, 1 - table]))
    whole = study.run_study

    def stored_often(job, *, checkpoint, **rest):
        whole(job, checkpoint=Checkpoint(checkpoint, SECONDS), **rest)

    study.run_study = stored_often
    out = folder / "out"
    arguments = ["study", str(folder / "samples.npy"), "--starts", "16", "--out", str(out)]
    cli.app([*arguments, "--resume"], standalone_mode=False)
    figures = json.loads((out / "summary.json").read_text())
    figures = {name: x for name, x in figures.items() if name not in ("seconds", "data")}
    files = [(out / name).read_bytes() for name in ("library.npz", "model.eqx", "experts.eqx")]
    return hashlib.sha256(json.dumps(figures).encode() + b"".join(files)).hexdigest()


RUNS = {"search": run_search, "fit": run_fit, "sample": run_sample, "study": run_study}


def digest(result: object) -> str:
    """Of all numbers of a result, to the last bit."""
    found = hashlib.sha256()
    for x in jax.tree.leaves(result):
        x = np.asarray(x)
        found.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return found.hexdigest()


# --- processes


def begin(run: Callable[[pathlib.Path], str], folder: pathlib.Path) -> int:
    """A process that runs it in a folder, the leader of its own group; its number.

    It is forked before JAX has begun to compute, so that it need not import anything.
    """
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        found = run(folder)
        (folder / "result").write_text(found)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def result_of(run: Callable[[pathlib.Path], str], folder: pathlib.Path) -> str:
    """What it comes to when it is left alone, or why it fails."""
    (folder / "result").unlink(missing_ok=True)
    code = os.waitpid(begin(run, folder), 0)[1]
    return (folder / "result").read_text() if code == 0 else (folder / "log").read_text()


def kill(run: Callable[[pathlib.Path], str], folder: pathlib.Path, moment: float) -> float:
    """Let it run so many seconds and kill its group; how many of them were not stored."""
    began = time.time()
    child = begin(run, folder)
    time.sleep(moment)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # not yet the leader of a group
        os.kill(child, signal.SIGKILL)
    killed = time.time()
    os.waitpid(child, 0)
    stored = [p.stat().st_mtime for p in folder.rglob("*.npz")]
    return 0.0 if (folder / "result").exists() else killed - max([began, *stored])


class Count(NamedTuple):
    """What became of the runs of one kind."""

    whole: float
    tried: int
    twice: int
    lost: list[str]
    redone: float


def count(run, folder: pathlib.Path, rounds: int, draw: np.random.Generator) -> Count:
    truth = result_of(run, folder / "first")  # compiles
    began = time.perf_counter()
    again = result_of(run, folder / "whole")
    whole = time.perf_counter() - began
    assert truth == again, f"two runs that were left alone differ:\n{truth}\n{again}"
    lost, redone = [], 0.0
    for index in range(rounds):
        work = folder / str(index)
        for _ in range(1 + (index % 3 == 2)):
            redone = max(redone, kill(run, work, draw.uniform(0, whole)))
        found = result_of(run, work)
        if found != truth:
            lost.append(f"round {index}: {found}")
        shutil.rmtree(work)
    return Count(whole, rounds, rounds // 3, lost, redone)


def save_times(folder: pathlib.Path) -> None:
    """Milliseconds to store one array in both forms, the median of some."""
    print("\n    size   archive, ms   orbax, ms")
    for size in (2**10, 2**20, 2**26):
        x = jax.random.bits(jax.random.key(0), (size // 4,))
        taken: dict[str, list[float]] = {"archive": [], "orbax": []}
        for index in range(6):
            path = folder / f"{size}-{index}"
            began = time.perf_counter()
            write_archive(path, "timed", {"0": np.asarray(x)}, compressed=False)
            taken["archive"].append(time.perf_counter() - began)
            began = time.perf_counter()
            write_sharded(path.with_suffix(".orbax"), "timed", [x])
            taken["orbax"].append(time.perf_counter() - began)
        # The first of each imports and makes threads.
        plain, split = (1e3 * np.median(taken[name][1:]) for name in ("archive", "orbax"))
        first = f" (the first {1e3 * taken['orbax'][0]:.0f})" if size == 2**10 else ""
        print(f"{size:8}{plain:14.1f}{split:12.0f}{first}", flush=True)


def main(
    kinds: tuple[str, ...] = ("search", "fit", "sample", "study"),
    /,
    *,
    rounds: int = 26,
    seed: int = 0,
) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kills-"))
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    draw = np.random.default_rng(seed)
    print("kind     whole, s   tried   of them twice   survived   lost   largest redone, s")
    n_lost = n_tried = 0
    for kind in kinds:
        (folder / kind).mkdir()
        c = count(RUNS[kind], folder / kind, rounds, draw)
        survived = c.tried - len(c.lost)
        print(
            f"{kind:6}{c.whole:11.1f}{c.tried:8}{c.twice:16}{survived:11}{len(c.lost):7}"
            f"{c.redone:20.2f}",
            flush=True,
        )
        for what in c.lost:
            print(what)
        n_lost, n_tried = n_lost + len(c.lost), n_tried + c.tried
    save_times(folder)
    shutil.rmtree(folder)
    claim("every run that was killed ends at the same bits", not n_lost, f"{n_tried} runs")
