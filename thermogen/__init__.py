"""thermogen: the statistical mechanics of generative models on binary spins.

data -> energy -> free energy G(m) -> learned energy -> library of bound states
-> experts, recall -> report
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._api import *  # noqa: F403

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Rooms, and names of `_api`, imported at first use: the command line has to start at once."""
    if not name.startswith("_"):
        # Rooms ask for each other while `_api` may not have begun, or not ended, to import them.
        if importlib.util.find_spec(f".{name}", __name__):
            return importlib.import_module(f".{name}", __name__)
        api = importlib.import_module("._api", __name__)
        if hasattr(api, name):
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    api = importlib.import_module("._api", __name__)
    return sorted({*globals(), *(name for name in vars(api) if not name.startswith("_"))})
