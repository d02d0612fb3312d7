"""thermogen: the statistical mechanics of generative models on binary spins.

data -> energy -> free energy G(m) -> learned energy -> library of bound states
-> experts, recall -> report
"""

import ast
import functools
import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from ._version import VERSION

if TYPE_CHECKING:
    from ._api import *  # noqa: F403

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Rooms, and names of `_api`, imported at first use, each with no more than it needs."""
    if not name.startswith("_"):
        if home := _homes().get(name):
            return getattr(importlib.import_module(f".{home}", __name__), name)
        if importlib.util.find_spec(f".{name}", __name__):
            return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})


@functools.cache
def _homes() -> dict[str, str]:
    """The module of each name of `_api`, none for a room; read, as to run it imports all rooms."""
    listed = ast.parse(pkgutil.get_data(__name__, "_api.py") or b"").body
    imports = [node for node in listed if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}
