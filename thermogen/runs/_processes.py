"""Several processes that run the same program: the first one decides, and tells the others."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def from_first(function: Callable[[], Any]) -> Any:
    """What the function returns in the first process, in all of them: anything JSON knows.

    Raises:
        ValueError: in all processes, where the function raised it, or an OSError, in the first.
    """
    if jax.process_count() == 1:
        return function()
    answer = b""
    if is_first():
        try:
            told = {"value": function()}
        except (ValueError, OSError) as error:
            told = {"error": str(error)}
        answer = json.dumps(told).encode()
    size = int(broadcast(np.asarray(len(answer), np.int32)))
    text = np.frombuffer(answer if is_first() else bytes(size), np.uint8)
    told = json.loads(broadcast(text).tobytes())
    if "error" in told:
        raise ValueError(told["error"])
    return told["value"]


def broadcast(array: np.ndarray) -> np.ndarray:
    """The array of the first process, in all of them; those of the others tell shape and dtype."""
    if jax.process_count() == 1:
        return array
    with jax.enable_x64(True):
        return np.asarray(multihost_utils.broadcast_one_to_all(array))
