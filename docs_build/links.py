"""Names of the package in a page's code become links to their entries in the API.

A hook of mkdocs. Docstrings and guides say `sample` or `tg.sample` and carry no link of their own.
"""

import ast
import functools
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# Code in links, blocks and headings stays as it is.
CODE = re.compile(
    r"<(?P<kept>pre|a|b|h\d|autoref)\b.*?</(?P=kept)>|<code>(?P<code>[^<]+)</code>", re.DOTALL
)
NAME = re.compile(r"(tg\.|thermogen\.)?(?:(\w+)\.)?(\w+)(\(.*\))?")
LISTED = re.compile(r"::: (?P<module>\S+)| +- (?P<name>\w+)")


def entries(page: str) -> list[str]:
    """Full names of what a page of the API lists, in its order; `page` is its Markdown."""
    found, module = [], ""
    for match in filter(None, map(LISTED.fullmatch, page.splitlines())):
        if match["name"]:
            found.append(f"{module}.{match['name']}")
            continue
        module = match["module"]
        if module.rpartition(".")[2][0].isupper():  # a class of its own
            found.append(module)
    return found


@functools.cache
def all_entries() -> tuple[str, ...]:
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    return tuple(name for page in pages for name in entries(page.read_text()))


@functools.cache
def exported() -> dict[str, str]:
    """Full names of what `thermogen` itself hands out, by name."""
    api = (ROOT / "thermogen" / "_api.py").read_text()
    lines = re.findall(r"^from \.(\w+) import (\w+) as", api, re.MULTILINE)
    return {name: f"thermogen.{room}.{name}" for room, name in lines}


@functools.cache
def arguments() -> frozenset[str]:
    """Names of arguments and fields of entries: alone, they mean these and no function."""
    listed = {entry.rpartition(".")[2] for entry in all_entries()}
    found = set()
    for file in (ROOT / "thermogen").rglob("*.py"):
        for entry in ast.parse(file.read_text(encoding="utf-8")).body:
            if getattr(entry, "name", None) in listed:
                for node in ast.walk(entry):
                    if isinstance(node, ast.arg):
                        found.add(node.arg)
                    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                        found.add(node.target.id)
    return frozenset(found)


def target(code: str, page: str) -> str | None:
    """Full name of the entry that a piece of code on a page means, if it means one."""
    match = NAME.fullmatch(code)
    if not match:
        return None
    package, room, name, call = match.groups()
    if room:
        return next((e for e in all_entries() if e == f"thermogen.{room}.{name}"), None)
    if package:
        return exported().get(name)
    if not call and name in arguments() and name not in exported():
        return None
    homes = [e for e in all_entries() if e.rpartition(".")[2] == name]
    here = [e for e in entries(page) if e in homes]
    if len(here) == 1 or len(homes) == 1:
        return (here or homes)[0]
    return exported().get(name)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    def linked(match: re.Match[str]) -> str:
        to = target(match["code"], page.markdown) if match["code"] else None
        return f'<autoref identifier="{to}">{match[0]}</autoref>' if to else match[0]

    return CODE.sub(linked, html)
