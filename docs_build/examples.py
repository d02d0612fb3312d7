"""Where a class has no example of its own, its entry names the example that makes one.

An extension of griffe: results and states are made by functions, whose examples show them.
"""

import re
from collections.abc import Iterator
from typing import Any

import griffe

from docs_build.links import all_entries


class Examples(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name != "thermogen":
            return
        listed = {name: _found(pkg, name) for name in all_entries()}
        shown = {name: o for name, o in listed.items() if _has_example(o)}
        for found in listed.values():
            if found.is_class and found.docstring and not _has_example(found):
                makers = [name for name, o in shown.items() if _makes(o, found.name)]
                if makers:
                    short = makers[0].rpartition(".")[2]
                    found.docstring.value += (
                        f"\n\n!!! example\n    [`{short}`][{makers[0]}] returns one."
                    )


def _found(package: griffe.Module, name: str) -> griffe.Object:
    found = package[name.partition(".")[2]]
    return found.final_target if found.is_alias else found


def _has_example(found: griffe.Object) -> bool:
    return bool(found.docstring and "!!! example" in found.docstring.value)


def _makes(maker: griffe.Object, name: str) -> bool:
    return any(re.search(rf"\b{name}\b", str(function.returns)) for function in _functions(maker))


def _functions(maker: griffe.Object) -> Iterator[griffe.Function]:
    if maker.is_function:
        yield maker
    elif maker.is_class:
        yield from (m for m in maker.members.values() if m.is_function)
