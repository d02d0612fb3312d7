"""What comparisons with other libraries share: contenders, interleaved rounds, rows."""

import collections
import concurrent.futures
import functools
import importlib
import importlib.metadata
import math
import multiprocessing
import os
import textwrap
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

import thermogen

OURS = "thermogen"


class Pace(NamedTuple):
    """Rounds of every comparison, and seconds of the long run of a rate."""

    rounds: int = 5
    seconds: float = 0.3


QUICK = Pace(1, 0.02)  # to see that everything runs; no figure of it is worth anything


class State(NamedTuple):
    """What the process that measures was told.

    Attributes:
        tell: is called with who and package before their turn, so that another process knows
            on whose account this one hangs or crashes.
        dropped: contenders that did so before; they are left out, and their rows say why.
    """

    pace: Pace = Pace()
    tell: Callable[[str, str], None] = lambda who, package: None
    dropped: tuple["Measured", ...] = ()


now = State()


class Row(NamedTuple):
    """One figure of one contender.

    Attributes:
        figure: median over the rounds, NaN where there is none: `note` says why.
        spread: half of the distance between the quartiles.
        first: seconds of the first call, of which most is compiling where anything is compiled.
        ratio: how many times better our best is, the median over pairs of the same round.
        script: name of the script that measured it.
    """

    comparison: str
    case: str
    who: str
    version: str
    cores: int
    figure: float
    unit: str
    spread: float
    first: float
    ratio: float
    note: str = ""
    script: str = ""


class Measured(NamedTuple):
    """Values of one contender, one a round."""

    who: str
    package: str
    values: list[float]
    first: float = math.nan
    note: str = ""


# Measures one case of a comparison.
Case = Callable[[], list[Row]]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def version(package: str) -> str:
    if package == OURS:
        return thermogen.__version__  # of the code that runs
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def why_absent(module: str) -> str:
    """Why a module cannot be imported; nothing where it can."""
    now.tell(module, module)
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"does not import: {in_words(error)}"
    return ""


def in_words(error: Exception) -> str:
    """An error on one short line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 120)


def able(who: str, module: str = OURS) -> bool:
    """Whether a contender takes part: its module is imported, and it has not been dropped."""
    return who not in {m.who for m in now.dropped} and not why_absent(module)


def missing(*modules: str) -> list[Measured]:
    """What takes the place of peers that cannot be imported, and of dropped contenders."""
    absent = [(name, why_absent(name)) for name in modules]
    return [*now.dropped, *(Measured(name, name, [], note=why) for name, why in absent if why)]


def milli(measured: Iterable[Measured]) -> list[Measured]:
    return [m._replace(values=[1e3 * value for value in m.values]) for m in measured]


def rows(
    comparison: str, case: str, unit: str, measured: Iterable[Measured], more_is_better: bool = True
) -> list[Row]:
    """Rows of contenders that were measured in the same rounds."""
    measured = list(measured)
    best = max if more_is_better else min
    ours = [m for m in measured if m.package == OURS and m.values]
    leader = best(ours, key=lambda m: np.median(m.values)) if ours else None
    found = []
    for m in measured:
        figure = spread = ratio = math.nan
        if m.values:
            low, figure, high = np.quantile(m.values, [0.25, 0.5, 0.75])
            spread = (high - low) / 2
        if m.values and leader:
            with np.errstate(divide="ignore", invalid="ignore"):
                pairs = np.divide(leader.values, m.values)
                ratio = float(np.median(pairs if more_is_better else 1 / pairs))
            ratio = ratio if math.isfinite(ratio) else math.nan  # somebody reached nothing
        found.append(
            Row(
                comparison,
                case,
                m.who,
                version(m.package),
                cores(),
                float(figure),
                unit,
                float(spread),
                m.first,
                ratio,
                m.note,
            )
        )
    return found


def seconds(function: Callable, *arguments, **options) -> float:
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


@functools.cache
def worker(number: int) -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _import(module: str, program) -> None:
    """In a worker: the module of the program has been imported when it arrives."""
    importlib.import_module(module)


class Contender:
    """A program of `n` units, whose rate is the slope between a short and a long run.

    Importing, setting up, compiling and reading out do not count. A library of one thread runs in
    as many processes at once as there are cores.
    """

    def __init__(
        self, who: str, package: str, work: float, program, processes: int = 1, module: str = OURS
    ):
        """`work` is done in one unit by one process."""
        self.who, self.package, self.program = who, package, program
        self.work, self.processes = work * processes, processes
        now.tell(who, package)
        if processes > 1:
            for job in [worker(k).submit(_import, module, program) for k in range(processes)]:
                job.result()
        self.first = self.run(1)
        set_up = min(self.run(1), self.run(1))
        self.short, took, seconds = 1, 0.0, now.pace.seconds
        while took < max(seconds / 20, set_up / 2):
            # Few steps: some compile for each number.
            wanted = max(seconds / 10, set_up) / max(took, seconds / 1000)
            self.short = math.ceil(self.short * min(max(wanted, 2), 32))
            self.run(self.short)
            took = min(self.run(self.short), self.run(self.short)) - set_up
        self.long = int(self.short * max(seconds / took, 3))
        self.run(self.long)

    def run(self, n: int) -> float:
        if self.processes == 1:
            return seconds(self.program, n)
        jobs = [worker(k).submit(seconds, self.program, n) for k in range(self.processes)]
        return max(job.result() for job in jobs)

    def rate(self) -> float:
        now.tell(self.who, self.package)
        while (difference := self.run(self.long) - self.run(self.short)) <= 0:
            self.long *= 2  # shorter than what else happens on the machine
            self.run(self.long)
        return self.work * (self.long - self.short) / difference


def race(contenders: list[Contender]) -> list[Measured]:
    """Rates of all contenders, in rounds in which each has its turn."""
    rates = [[c.rate() for c in contenders] for _ in range(now.pace.rounds)]
    return [
        Measured(c.who, c.package, list(values), c.first)
        for c, values in zip(contenders, zip(*rates, strict=True), strict=True)
    ]


def duel(
    runs: dict[tuple[str, str], Callable[[], object]], n_rounds: int | None = None
) -> list[Measured]:
    """Seconds of each call, in rounds in which each has its turn; keys are who and package.

    `n_rounds` are more rounds than usual where a call is short.
    """
    dropped = {m.who for m in now.dropped}
    runs = {key: run for key, run in runs.items() if key[0] not in dropped}
    first, values = {}, collections.defaultdict(list)
    for key, run in runs.items():
        now.tell(*key)
        first[key] = seconds(run)
    for _ in range(n_rounds if n_rounds and now.pace != QUICK else now.pace.rounds):
        for key, run in runs.items():
            now.tell(*key)
            values[key].append(seconds(run))
    return [Measured(*key, values[key], first[key]) for key in runs]
