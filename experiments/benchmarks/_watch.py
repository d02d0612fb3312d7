"""Runs the cases of a comparison in a process that may hang or crash, and keeps what it measured.

The process says whose turn it is. A contender that hangs, crashes or raises is dropped from its
case, with a row that says so, and a new process goes on from this case. When the time of the
comparison is over, each case that is left has a row that says so.
"""

import contextlib
import importlib
import math
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import jax

from experiments.benchmarks import _peers, _tables

PATIENCE = 20.0  # seconds of one turn at least, compiling included, or a quarter of all time


class Task(NamedTuple):
    """What a process is given: a module, from which of its cases on, who is dropped from that."""

    module: str
    start: int
    dropped: tuple[_peers.Measured, ...]
    pace: _peers.Pace


class End(NamedTuple):
    """How a process ended: why (nothing where all is done), and whose turn it was."""

    why: str
    turn: tuple[str, str] | None = None


def work(task: Task, pipe: Connection) -> None:
    """The process that measures: sends titles, turns, rows, and the error that ended it."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    module = importlib.import_module(task.module)
    jax.config.update("jax_enable_x64", getattr(module, "X64", True))
    tell = lambda who, package: pipe.send(("turn", (who, package)))  # noqa: E731
    _peers.now = _peers.State(task.pace, tell, task.dropped)
    cases = module.cases()
    pipe.send(("titles", list(cases)))
    try:
        for case in list(cases.values())[task.start :]:
            pipe.send(("rows", case()))
            _peers.now = _peers.State(task.pace, tell)
        pipe.send(("end", ""))
    except Exception as error:
        pipe.send(("end", f"failed: {_peers.in_words(error)}"))


def end_with_parent() -> None:
    """Nobody else would end a process that hangs, nor its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


class Comparison:
    """Rows of all cases of a module on a number of cores, within a time."""

    def __init__(self, module: str, n_cores: int, seconds: float, pace: _peers.Pace):
        self.module, self.n_cores, self.seconds, self.pace = module, n_cores, seconds, pace
        self.script = module.rpartition(".")[2]
        self.rows, self.titles, self.done = [], [], 0

    def run(self) -> list[_peers.Row]:
        until, dropped = time.monotonic() + self.seconds, ()
        while True:
            case = self.done
            end = self.attempt(Task(self.module, case, dropped, self.pace), until)
            if not end.why:
                return self.rows
            dropped = dropped if self.done == case else ()
            if time.monotonic() >= until:
                over = f"not reached: the {self.seconds:.0f} s of this comparison were over"
                over += f" at the turn of {end.turn[0]}" if end.turn else ""
                for title in self.titles[self.done :] or [""]:
                    self.add([self.without_figure(title, over)])
                return self.rows
            if end.turn and end.turn[0] not in {m.who for m in dropped}:
                dropped = (*dropped, _peers.Measured(*end.turn, [], note=end.why))
                continue
            title = self.titles[self.done] if self.titles else ""
            self.add([self.without_figure(title, end.why)])
            dropped, self.done = (), self.done + 1
            if self.done >= len(self.titles):
                return self.rows

    def without_figure(self, title: str, note: str) -> _peers.Row:
        ours, nan = _peers.OURS, math.nan
        version = _peers.version(ours)
        return _peers.Row(
            self.script, title, ours, version, self.n_cores, nan, "", nan, nan, nan, note
        )

    def add(self, rows: list[_peers.Row]) -> None:
        _tables.show(rows)
        self.rows += [row._replace(script=self.script) for row in rows]

    def attempt(self, task: Task, until: float) -> End:
        """Lets a process work until it ends, is silent for too long, or the time is over."""
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(task, other))
        with on_cores(self.n_cores):
            process.start()
        other.close()
        try:
            return self.follow(pipe, process, until)
        finally:
            with contextlib.suppress(ProcessLookupError):
                assert process.pid is not None
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()

    def follow(self, pipe: Connection, process, until: float) -> End:
        turn = None
        while True:
            patience = min(max(PATIENCE, self.seconds / 4), until - time.monotonic())
            if not pipe.poll(max(patience, 0.0)):
                return End(f"no end after {patience:.0f} s", turn)
            try:
                kind, content = pipe.recv()
            except EOFError:
                process.join()
                code = process.exitcode or 0
                return End(f"crashed: {signal.Signals(-code).name if code < 0 else code}", turn)
            match kind:
                case "titles":
                    self.titles = content
                case "turn":
                    turn = content
                case "rows":
                    self.add(content)
                    self.done, turn = self.done + 1, None
                case "end":
                    return End(content, turn)


@contextlib.contextmanager
def on_cores(n: int):
    """A process that starts in here inherits the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def alone(cases) -> None:
    """Runs and prints the cases of a script in this process."""
    for case in cases.values():
        _tables.show(case())
