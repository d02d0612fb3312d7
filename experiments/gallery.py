"""The gallery of claims, docs/gallery.md, made of what `python -m experiments all` left behind.

For each script: its picture, its claims with verdict and statistic, what follows in practice, which
its docstring says, and the command. A claim that fails is shown as one that fails. Records and
pictures are copied to docs/images/gallery, pictures with few colours, and the page is written anew.

    python -m experiments gallery [--results DIR] [--docs DIR]
"""

import importlib
import json
import pathlib
import re
import shutil
from typing import Any

from PIL import Image

SECTIONS = {
    "What a reduced description loses": (
        "complete",
        "convexity",
        "bifurcations",
        "reduction",
        "learning_against_cutting",
        "training_landscape",
    ),
    "Phases, broken ergodicity, and how to live with it": (
        "coexistence",
        "breaking",
        "barriers",
        "access",
        "slow_retrieval",
        "remedy",
    ),
    "Proof: which minima are bound states": ("truth", "known_times", "weights"),
    "Exact values, and approximations beside them": (
        "accuracy",
        "sparse_accuracy",
        "library_partition",
    ),
    "Derivatives of a landscape": (
        "escape_times",
        "design",
        "rare",
        "false_positives",
        "influence",
        "tuned_ridge",
    ),
}
NAMES = tuple(name for names in SECTIONS.values() for name in names)
IN_PRACTICE = "In practice: "
WIDTH, COLORS = 1200, 256  # pixels, and shades of a picture

HEAD = """# Gallery of claims

Each entry is one script of `experiments/`, which states claims and measures whether they are true.
A verdict can come out false: what FAILS stays on this page. The page, with every number on it, is
written by a command from the records that the scripts leave. With `--quick` they take smaller
settings, together a quarter of an hour on two cores; without it those of their docstrings. Each
entry has the command that it was made by.

    python -m experiments all --quick
    python -m experiments gallery
"""


def load(folder: pathlib.Path, names: tuple[str, ...] | list[str] = NAMES) -> list[dict[str, Any]]:
    """Records of the scripts, in the order of the gallery."""
    files = [folder / f"{name}.claims.json" for name in names]
    lacking = [file.name for file in files if not file.exists()]
    if lacking:
        raise SystemExit(f"{folder} lacks {', '.join(lacking)}: run `python -m experiments all`")
    return [json.loads(file.read_text()) for file in files]


def in_practice(docstring: str) -> str:
    """What follows for who trains or uses a model: a paragraph of the docstring."""
    found = re.search(rf"^{IN_PRACTICE}(.*?)\n\n", docstring, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"docstring: no paragraph that begins with {IN_PRACTICE!r}")
    return " ".join(found[1].split())


def verdict(claim: dict[str, Any]) -> str:
    return "holds" if claim["holds"] else "**FAILS**"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def entry(record: dict[str, Any]) -> str:
    """One script: picture, verdicts, meaning, command."""
    name = record["name"]
    meaning = in_practice(importlib.import_module(f"experiments.{name}").__doc__ or "")
    rows = [
        f"| {cell(c['claim'])} | {verdict(c)} | {cell(c['statistic'])} |" for c in record["claims"]
    ]
    return "\n".join(
        [
            f"### {record['title'].rstrip('.')} {{ #{name} }}\n",
            f"![{record['title']}](images/gallery/{name}.png)\n",
            "| claim | verdict | statistic |",
            "|---|---|---|",
            *rows,
            f"\n**In practice:** {meaning}\n",
            f"`python -m experiments {name}{' --quick' * record['quick']}`, {settings(record)}\n",
        ]
    )


def settings(record: dict[str, Any]) -> str:
    """How long it took, and the options that it ran with."""
    told = [f"`{name}` {value}" for name, value in record["configuration"].items()]
    found = f"; with {', '.join(told)}" if told else ""
    return f"{record['seconds']:.0f} s{re.sub(r'[][]', '', found)}"


def page(records: list[dict[str, Any]]) -> str:
    """The page, from the records of all scripts."""
    of = {record["name"]: record for record in records}
    held = [c["holds"] for record in records for c in record["claims"]]
    lines = [HEAD, f"{sum(held)} of {len(held)} claims hold.\n"]
    lines += ["| script | claims that hold | claims that fail |", "|---|---|---|"]
    for name, record in of.items():
        counts = [sum(c["holds"] == holds for c in record["claims"]) for holds in (True, False)]
        lines.append(
            f"| [{record['title'].rstrip('.')}](#{name}) | {counts[0]} | {counts[1] or ''} |"
        )
    for section, names in SECTIONS.items():
        lines += [f"\n## {section}\n", *(entry(of[name]) for name in names)]
    return "\n".join(lines)


def summary(records: list[dict[str, Any]]) -> str:
    """All claims, one a line."""
    lines = [
        f"{r['name']:26}{r['seconds']:6.0f} s  {'holds' if c['holds'] else 'FAILS'}  {c['claim']}"
        + (f" ({c['statistic']})" if c["statistic"] else "")
        for r in records
        for c in r["claims"]
    ]
    return "\n".join(lines)


def shrink(picture: pathlib.Path, to: pathlib.Path) -> None:
    """A copy in few colours, and no wider than a page shows."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((WIDTH, 4 * WIDTH))
    image.quantize(COLORS).save(to, optimize=True)


def main(
    *,
    results: pathlib.Path = pathlib.Path("results/gallery"),
    docs: pathlib.Path = pathlib.Path("docs"),
) -> None:
    records, folder = load(results), docs / "images" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    # Where the records are those of the page, it alone is written anew.
    for record in records if results.resolve() != folder.resolve() else ():
        name = record["name"]
        shutil.copy(results / f"{name}.claims.json", folder)
        shrink(results / record["picture"], folder / f"{name}.png")
    (docs / "gallery.md").write_text(page(records))
