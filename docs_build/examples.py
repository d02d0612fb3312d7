"""Where a class has no example of its own, its entry leads to one that shows it.

An extension of griffe: results and states are made by functions, whose examples show them.
"""

from typing import Any

import griffe

from docs_build.shown import shown_by


class Examples(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name != "thermogen":
            return
        for entry, shows in shown_by().items():
            found = pkg[entry.partition(".")[2]]
            found = found.final_target if found.is_alias else found
            if shows != entry and found.docstring:
                name = shows.rpartition(".")[2]
                found.docstring.value += f"\n\n!!! example\n    That of [`{name}`][{shows}]."
