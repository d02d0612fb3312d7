"""Which example shows an entry of the API: its own, or that of what returns or takes it."""

import ast
import functools
import re
from pathlib import Path

from .links import ROOT, all_entries

Definition = ast.ClassDef | ast.FunctionDef


@functools.cache
def shown_by() -> dict[str, str]:
    """Entries, by full name, and the entry whose example shows each: itself, if it has one.

    What has none is a class: a function always needs its own.
    """
    nodes = {entry: node for entry in all_entries() if (node := definition(entry))}
    found = {entry: entry for entry, node in nodes.items() if "!!! example" in _docstring(node)}
    before = 0
    while len(found) > before:  # what is a part of something that is shown, is shown
        before = len(found)
        for entry in nodes.keys() - found.keys():
            name = re.compile(rf"\b{entry.rpartition('.')[2]}\b")
            showing = [e for e in nodes if e in found and name.search(_names(nodes[e]))]
            if showing and isinstance(nodes[entry], ast.ClassDef):
                found[entry] = found[min(showing, key=lambda e: _rank(entry, e, nodes[e]))]
    return found


def _rank(entry: str, other: str, node: Definition) -> tuple[bool, bool]:
    """First those of the same module, and of these a function that returns it."""
    module, _, name = entry.rpartition(".")
    returns = isinstance(node, ast.FunctionDef) and node.returns is not None
    named = returns and name in ast.unparse(node.returns)
    return other.rpartition(".")[0] != module, not named


def definition(entry: str) -> Definition | None:
    """Where an entry is defined; nothing for values that are no functions or classes."""
    module, _, name = entry.rpartition(".")
    file = ROOT / module.replace(".", "/")
    path = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    for node in _parsed(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and name in {a.asname or a.name for a in node.names}:
            climbs = node.level - file.is_dir()
            package = module.split(".")[:-climbs] if climbs else module.split(".")
            return definition(".".join([*package, node.module or "", name]))
    return None


@functools.cache
def _parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _docstring(node: Definition) -> str:
    return ast.get_docstring(node) or ""


@functools.cache
def _names(node: Definition) -> str:
    """Annotations of a definition, those of fields and methods, and the code of its example."""
    annotations = [
        part
        for inner in ast.walk(node)
        for part in (getattr(inner, "annotation", None), getattr(inner, "returns", None))
        if part is not None
    ]
    code = re.findall(r"```python\n(.*?)```", _docstring(node), flags=re.DOTALL)
    return "\n".join([*map(ast.unparse, annotations), *code])
