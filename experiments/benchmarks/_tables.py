"""Rows of comparisons in a file, on the screen and as the tables of a page."""

import collections
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks._peers import OURS, Row

BEGIN, END = "<!-- rows: written by the command -->", "<!-- end of rows -->"
COLUMNS = ["contender", "cores", "figure", "ours / it", "first call, s"]
PLACES = ["comparison", "cores", "our place", "best of the others", "ours / it"]


class Results(NamedTuple):
    """All rows of a machine, and what is known of it: processor, cores, versions."""

    machine: dict[str, str]
    rows: list[Row]

    def renewed(self, rows: list[Row]) -> "Results":
        """With new rows in the place of those of the same scripts on as many cores."""
        new = {(row.script, row.cores) for row in rows}
        return self._replace(
            rows=[*(r for r in self.rows if (r.script, r.cores) not in new), *rows]
        )


def save(results: Results, path: Path) -> None:
    """As JSON, in which NaN is null."""
    plain = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row._asdict().items()}
        for row in results.rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": results.machine, "rows": plain}, indent=1) + "\n")


def load(path: Path) -> Results:
    read = json.loads(path.read_text())
    plain = [{k: math.nan if v is None else v for k, v in row.items()} for row in read["rows"]]
    return Results(read["machine"], [Row(**row) for row in plain])


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def cells(row: Row) -> list[str]:
    figure = row.note if math.isnan(row.figure) else f"{number(row.figure)} ± {number(row.spread)}"
    who = f"{row.who} ({row.version})" if row.version else row.who
    note = f"{figure}; {row.note}" if row.note and not math.isnan(row.figure) else figure
    return [who, str(row.cores), note, number(row.ratio), number(row.first)]


def show(found: Iterable[Row]) -> None:
    """Prints rows, case by case."""
    for (comparison, case, unit), group in grouped(found).items():
        print(f"\n{comparison}: {case}, {unit}")
        for row in group:
            who, n, figure, ratio, first = cells(row)
            print(f"   {who:44}{n:>3}  {figure:24}{ratio:>9}{first:>9}", flush=True)


def grouped(found: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by comparison, case and unit; the cases of a comparison stand together."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in found:
        groups[row.comparison][row.comparison, row.case, row.unit].append(row)
    return {key: rows for cases in groups.values() for key, rows in cases.items()}


def line(values: Iterable[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def markdown(found: list[Row]) -> str:
    """One table a case."""
    lines, last = [], None
    for (comparison, case, unit), group in grouped(found).items():
        if comparison != last:
            lines += [f"\n### {comparison[:1].upper()}{comparison[1:]}"]
            last = comparison
        lines += [f"\n{', '.join(filter(None, (case, unit)))}:\n", line(COLUMNS), "|---" * 5 + "|"]
        lines += [line(cells(row)) for row in group]
    return "\n".join(lines).strip() + "\n"


def summary(found: list[Row]) -> str:
    """Where the library stands in each case: one row a case and number of cores."""
    lines = [line(PLACES), "|---" * len(PLACES) + "|"]
    for (comparison, case, _), group in grouped(found).items():
        for cores in sorted({row.cores for row in group}):
            lines += [line([f"{comparison}: {case}", str(cores), *place(group, cores)])]
    return "\n".join(lines) + "\n"


def place(group: list[Row], cores: int) -> list[str]:
    """Our place among all that have a figure, the best of the others, and the ratio to it."""
    ran = [row for row in group if row.cores == cores and not math.isnan(row.figure)]
    others = [row for row in ran if not row.who.startswith(OURS)]
    compared = [row for row in others if not math.isnan(row.ratio)]
    if len(others) == len(ran):
        return ["no figure", others[0].who if others else "none ran", ""]
    if not compared:
        return ["1", f"none of {len(others)} got there" if others else "none ran", ""]
    best = min(compared, key=lambda row: row.ratio)
    ahead = sum(row.ratio < 1 for row in compared)
    ratio = number(best.ratio)
    return [str(1 + ahead), best.who, f"**{ratio}**" if ahead else ratio]


def page(results: Results) -> str:
    machine = "; ".join(f"{name} {value}" for name, value in results.machine.items())
    return f"{machine}.\n\n{summary(results.rows)}\n{markdown(results.rows)}"


def write_page(results: Results, path: Path) -> None:
    """Puts the tables between the two marks of a page."""
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{page(results)}\n{END}{after}")
