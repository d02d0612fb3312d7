"""Packages that only some sources need, imported when one is met."""

import importlib
from typing import Any


def imported(name: str, what: str) -> Any:
    """A module of the extra `tables`.

    Raises:
        ImportError: if it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {name.partition('.')[0]}; install it with: pip install "
            "'thermogen[tables]'"
        ) from error
