"""Several processes that run the same program: the first one decides, and tells the others."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ._errors import CheckpointError, ProcessLostError
from ._identity import local_fingerprint

# What the first process may meet when it looks into a folder.
_ERRORS = {kind.__name__: kind for kind in (CheckpointError, ValueError, OSError)}


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def from_first(function: Callable[[], Any]) -> Any:
    """What the function returns in the first process, in all of them: anything JSON knows.

    Raises:
        ValueError: in all processes, where the function raised it, or `CheckpointError`.
        OSError: in all processes, where the function raised it.
    """
    if jax.process_count() == 1:
        return function()
    answer = b""
    if is_first():
        try:
            told = {"value": function()}
        except (ValueError, OSError) as error:
            kind = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
            told = {"kind": kind, "error": str(error)}
        answer = json.dumps(told).encode()
    size = int(broadcast(np.asarray(len(answer), np.int32)))
    text = np.frombuffer(answer if is_first() else bytes(size), np.uint8)
    told = json.loads(broadcast(text).tobytes())
    if "error" in told:
        raise _ERRORS[told["kind"]](told["error"])
    return told["value"]


def broadcast(array: np.ndarray) -> np.ndarray:
    """The array of the first process, in all of them; those of the others tell shape and dtype."""
    if jax.process_count() == 1:
        return array
    with jax.enable_x64(True):
        return np.asarray(multihost_utils.broadcast_one_to_all(array))


def check_same_call(name: str, arguments: Any) -> None:
    """Refuse a call that is another one in another process, where all would wait for ever.

    Args:
        name: of the call.
        arguments: trees of modules, numbers and names; arrays split over processes are left out.

    Raises:
        ValueError: in all processes, where arguments differ.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(local_fingerprint(arguments), np.uint8)
    told = np.asarray(multihost_utils.process_allgather(digest))
    others = np.flatnonzero(np.any(told != told[0], axis=1))
    if len(others):
        raise ValueError(
            f"{name} needs the same call in all processes: the arguments, the key or the version "
            f"of process {others[0]} are not those of process 0. All must run the same script on "
            "the same data, on processors of one kind"
        )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Work of all processes: where one of them ends, the others say so.

    Raises:
        ProcessLostError: where another process has ended.
    """
    try:
        yield
    except (RuntimeError, ValueError, TimeoutError) as error:
        if jax.process_count() == 1 or isinstance(error, ProcessLostError):
            raise
        if not isinstance(error, TimeoutError) and not any(word in str(error) for word in _LOST):
            raise
        raise ProcessLostError(
            "another process has ended or cannot be reached, so that this one cannot go on; "
            "start all of them again: with the same checkpoint they resume"
        ) from error


# What the libraries by which processes talk say where one is gone; orbax raises a TimeoutError.
_LOST = ("Gloo ", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CoordinationService")
