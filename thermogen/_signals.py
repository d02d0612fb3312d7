"""Ctrl-C and SIGTERM for the command line: work ends soon, files are finished, nothing is lost.

This module imports nothing heavy, so that it can act before all else is imported.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_caught: int | None = None  # the first signal that came
_raising = False  # whether a signal may raise KeyboardInterrupt where it strikes
_last_words: str | None = None  # with which a signal ends the process where it strikes


def install() -> None:
    """Take over both signals. The first is remembered; the second ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)
    ignored = sys.unraisablehook

    def hook(unraisable) -> None:
        # A signal that strikes within a callback of the garbage collector raises to no avail; it
        # is remembered, and raised again by `check`.
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            ignored(unraisable)

    sys.unraisablehook = hook


def _handle(number: int, frame: FrameType | None) -> None:
    global _caught
    if _caught is not None:
        os._exit(128 + number)
    _caught = number
    if _last_words is not None:
        _end(_last_words)
    if _raising:
        raise KeyboardInterrupt


def caught() -> bool:
    """Whether a signal came."""
    return _caught is not None


def check() -> None:
    """Raise KeyboardInterrupt if a signal came, wherever the one raised then has gone."""
    if _caught is not None:
        raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work that a signal may end wherever it stands; outside, signals are only remembered.

    Raises:
        KeyboardInterrupt: at a signal, also one that came before.
    """
    global _raising
    try:
        _raising = True
        check()
        yield
        check()
    finally:
        _raising = False


@contextlib.contextmanager
def ending(last_words: str) -> Iterator[None]:
    """Work during which a signal ends the process, with these words, and raises nothing.

    An exception within the import of a module in C++ would abort the process.
    """
    global _last_words
    _last_words = last_words
    try:
        if _caught is not None:
            _end(last_words)
        yield
    finally:
        _last_words = None


def _end(last_words: str) -> None:
    sys.stderr.write(f"{last_words}\n")
    sys.stderr.flush()
    os._exit(exit_code())


def exit_code() -> int:
    """What a shell reports for a program that the signal ended."""
    return 128 + (_caught or signal.SIGINT)
