"""What comparisons with other libraries share: contenders, interleaved rounds, rows, tables."""

import collections
import concurrent.futures
import functools
import importlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

OURS = "thermogen"
N_ROUNDS = 5
SECONDS = 0.4  # of the long run of a rate
BEGIN, END = "<!-- rows: written by the command -->", "<!-- end of rows -->"


class Row(NamedTuple):
    """One figure of one contender.

    Attributes:
        figure: median over the rounds, NaN where there is none: `note` says why.
        spread: half of the distance between the quartiles.
        first: seconds of the first call, of which most is compiling where anything is compiled.
        ratio: how many times better our best is, the median over pairs of the same round.
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


class Measured(NamedTuple):
    """Values of one contender, one a round."""

    who: str
    package: str
    values: list[float]
    first: float = math.nan
    note: str = ""


def compare(name: str) -> list[Row]:
    """Rows of one comparison, in the process that runs it."""
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    jax.config.update("jax_enable_x64", getattr(module, "X64", True))
    return module.compare()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def why_absent(module: str) -> str:
    """Why a module cannot be imported; nothing where it can."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"does not import: {type(error).__name__}: {error}".splitlines()[0]
    return ""


def failed(name: str, n_cores: int, error: Exception) -> list[Row]:
    """The row of a comparison that ended before its time."""
    note, nan = f"failed: {type(error).__name__}: {error}".splitlines()[0], math.nan
    return [Row(name, "", OURS, version(OURS), n_cores, nan, "", nan, nan, nan, note)]


def missing(*modules: str) -> list[Measured]:
    """What takes the place of peers that cannot be imported."""
    return [Measured(name, name, [], note=why_absent(name)) for name in modules if why_absent(name)]


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
    show(found)
    return found


def seconds(function: Callable, *arguments, **options) -> float:
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


@functools.cache
def pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn"))


class Contender:
    """A program of `n` units, whose rate is the slope between a short and a long run.

    Setting up, compiling and reading out do not count. A library of one thread runs in as many
    processes at once as there are cores.
    """

    def __init__(self, who: str, package: str, work: float, program, processes: int = 1):
        """`work` is done in one unit by one process."""
        self.who, self.package, self.program = who, package, program
        self.work, self.processes = work * processes, processes
        self.first = self.run(1)
        set_up, self.short, took = self.run(1), 1, 0.0
        while took < max(SECONDS / 20, set_up / 2):
            self.short *= 2
            self.run(self.short)  # some compile for each number
            took = self.run(self.short) - set_up
        self.long = int(self.short * max(SECONDS / took, 3))
        self.run(self.long)

    def run(self, n: int) -> float:
        if self.processes == 1:
            return seconds(self.program, n)
        jobs = [pool().submit(seconds, self.program, n) for _ in range(self.processes)]
        return max(job.result() for job in jobs)

    def rate(self) -> float:
        difference = self.run(self.long) - self.run(self.short)
        return self.work * (self.long - self.short) / difference


def race(contenders: list[Contender]) -> list[Measured]:
    """Rates of all contenders, in rounds in which each has its turn."""
    rates = [[c.rate() for c in contenders] for _ in range(N_ROUNDS)]
    return [
        Measured(c.who, c.package, list(values), c.first)
        for c, values in zip(contenders, zip(*rates, strict=True), strict=True)
    ]


def duel(runs: dict[tuple[str, str], Callable[[], object]], n_rounds: int) -> list[Measured]:
    """Seconds of each call, in rounds in which each has its turn; keys are who and package."""
    first = {key: seconds(run) for key, run in runs.items()}
    values = collections.defaultdict(list)
    for _ in range(n_rounds):
        for key, run in runs.items():
            values[key].append(seconds(run))
    return [Measured(*key, values[key], first[key]) for key in runs]


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def cells(row: Row) -> list[str]:
    figure = row.note if math.isnan(row.figure) else f"{number(row.figure)} ± {number(row.spread)}"
    who = f"{row.who} ({row.version})" if row.version else row.who
    note = f"{figure}; {row.note}" if row.note and not math.isnan(row.figure) else figure
    return [who, str(row.cores), note, number(row.ratio), number(row.first)]


COLUMNS = ["contender", "cores", "figure", "ours / it", "first call, s"]


def show(found: list[Row]) -> None:
    """Prints the rows of one case."""
    for (comparison, case, unit), group in grouped(found).items():
        print(f"\n{comparison}: {case}, {unit}")
        for row in group:
            who, n, figure, ratio, first = cells(row)
            print(f"   {who:44}{n:>3}  {figure:24}{ratio:>9}{first:>9}", flush=True)


def grouped(found: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    groups = collections.defaultdict(list)
    for row in found:
        groups[row.comparison, row.case, row.unit].append(row)
    return groups


def save(found: list[Row], path: Path) -> None:
    """Rows as JSON, in which NaN is null."""
    plain = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row._asdict().items()}
        for row in found
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1) + "\n")


def load(path: Path) -> list[Row]:
    rows = json.loads(path.read_text())
    return [Row(**{k: math.nan if v is None else v for k, v in row.items()}) for row in rows]


def markdown(found: list[Row]) -> str:
    """One table a comparison."""
    lines, last = [], None
    for (comparison, case, unit), group in grouped(found).items():
        if comparison != last:
            lines += [f"\n### {comparison[:1].upper()}{comparison[1:]}"]
            last = comparison
        lines += [f"\n{case}, {unit}:\n", "| " + " | ".join(COLUMNS) + " |", "|---" * 5 + "|"]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in group]
    return "\n".join(lines).strip() + "\n"


def write_page(found: list[Row], page: Path) -> None:
    """Puts the tables between the two marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{markdown(found)}\n{END}{after}")
