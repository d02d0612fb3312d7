"""Types as a reader of the API pages wants them: `Float["n n"]`, not `Float[Array, 'n n']`.

An extension of griffe, which reads the source for mkdocstrings.
"""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import griffe

# What jaxtyping calls arrays; the package of the array says nothing to a reader.
ARRAYS = set("Bool Complex Float Inexact Int Int8 Integer Num Real Shaped UInt UInt32".split())

# Aliases that `docs/api/index.md` explains. Others stand for their value.
EXPLAINED = {
    "Beta",
    "Clamp",
    "Count",
    "Devices",
    "Folder",
    "Key",
    "Magnetizations",
    "Progress",
    "Spins",
}


class ShortTypes(griffe.Extension):
    """Shortens annotations of the whole package once it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name != "thermogen":
            return
        for found in list(_objects(pkg)):
            if found.is_attribute:
                found.annotation = _shortened(found.annotation, pkg)
            elif found.is_function:
                found.returns = _shortened(found.returns, pkg)
                for parameter in found.parameters:
                    parameter.annotation = _shortened(parameter.annotation, pkg)


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if not member.is_alias:
            yield member
            yield from _objects(member)


def _shortened(annotation: Any, package: griffe.Module) -> Any:
    """A copy that keeps only the shapes of arrays; a scalar's name stands alone."""
    if isinstance(annotation, list):
        return [_shortened(part, package) for part in annotation]
    if not isinstance(annotation, griffe.Expr):
        return annotation
    if isinstance(annotation, griffe.ExprName):
        meaning = _meaning(annotation, package)
        return annotation if meaning is None else _shortened(meaning, package)
    if _is_array(annotation):
        shape = annotation.slice.elements[-1].strip("' ")
        return griffe.ExprSubscript(annotation.left, f'"{shape}"') if shape else annotation.left
    short = copy.copy(annotation)
    for field in dataclasses.fields(annotation):
        if field.name not in ("parent", "member"):
            setattr(short, field.name, _shortened(getattr(annotation, field.name), package))
    return short


def _is_array(annotation: griffe.Expr) -> bool:
    return (
        isinstance(annotation, griffe.ExprSubscript)
        and str(annotation.left) in ARRAYS
        and isinstance(annotation.slice, griffe.ExprTuple)
        and isinstance(annotation.slice.elements[-1], str)
    )


def _meaning(name: griffe.ExprName, package: griffe.Module) -> griffe.Expr | None:
    """The value of an alias of the package that is explained nowhere."""
    start, _, path = name.canonical_path.partition(".")
    if start != package.name or name.name in EXPLAINED:
        return None
    try:
        found = package[path]
        aliased = found.is_attribute and not isinstance(found.value, griffe.ExprCall)
        return found.value if aliased else None
    except (KeyError, griffe.AliasResolutionError):
        return None
