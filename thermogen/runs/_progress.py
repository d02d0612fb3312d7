"""Bars with the time left, one for each job that runs, in a terminal or a notebook."""

import contextlib
import contextvars
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import jax
from jaxtyping import Array, PyTree

from ._job import AbstractJob

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Bars = contextvars.ContextVar["Progress | None"]("bars", default=None)

# tell(done, total): how many parts are done, of at most how many; None where nobody knows.
Tell = Callable[[int, int | None], None]


@contextlib.contextmanager
def progress(console: "Console | None" = None) -> Iterator[None]:
    """Show a bar for each job that runs inside, with the time that has passed and what is left.

    Functions with an argument `progress` show theirs where it is True; this shows those of all
    functions that are called, and of jobs of one's own given to `thermogen.run`. Bars are drawn on
    standard error, or in the cell of a notebook, and disappear at the end; elsewhere, as in a file,
    nothing is shown. Fits and searches may end before their last step, so that the time left is at
    most what is shown. Results are the same to the last bit. What runs within `jax.jit`, or on
    several processes, has no bar.

    Args:
        console: a console of rich to draw on.

    Raises:
        ImportError: where rich is not installed.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        energy = tg.Pairwise(np.ones((3, 3)) - np.eye(3), np.zeros(3))
        with tg.runs.progress():
            found = tg.sampling.log_partition(energy, 1.0, key=jax.random.key(0))
        assert found.result == tg.RESULTS.converged
        ```
    """
    if _Bars.get() is not None:  # of a function that called this one
        yield
        return
    with _drawn(console) as bars:
        token = _Bars.set(bars)
        try:
            yield
        finally:
            _Bars.reset(token)


def _drawn(console: "Console | None") -> "Progress":
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError as error:
        raise ImportError("bars of progress need rich: pip install 'thermogen[study]'") from error
    console = Console(stderr=True) if console is None else console
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("at most"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not (console.is_terminal or console.is_jupyter),
    )


@contextlib.contextmanager
def bar(title: str) -> Iterator[Tell | None]:
    """A bar that stands while the block lasts; None where none is shown."""
    bars = _Bars.get()
    if bars is None:
        yield None
        return
    task = bars.add_task(title, total=None)
    first = True

    def tell(done: int, total: int | None) -> None:
        nonlocal first
        if first:  # what was stored took no time
            bars.reset(task, completed=done)
        first = False
        bars.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        bars.remove_task(task)


def counted(title: str, items: Sequence[_T]) -> Iterator[_T]:
    """The items one by one, with a bar that counts them where there are several.

    !!! example

        ```python
        import thermogen as tg

        assert list(tg.runs.counted("models", [3, 1, 2])) == [3, 1, 2]
        ```
    """
    if len(items) < 2:
        yield from items
        return
    with bar(title) as tell:
        for done, item in enumerate(items):
            if tell is not None:
                tell(done, len(items))
            yield item


@contextlib.contextmanager
def bar_of(job: AbstractJob) -> Iterator[Callable[[PyTree[Array]], None] | None]:
    """The bar of a job, to be told its states; None where none is shown."""
    title = re.sub("(?<=[a-z])(?=[A-Z])", " ", type(job).__name__).capitalize()
    with bar(title) as tell:
        if tell is None or jax.process_count() > 1:
            yield None
            return
        yield lambda state: tell(*(job.amount(state) or (0, None)))


def shows_progress(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that shows bars where its argument `progress` is True.

    !!! example

        ```python
        import thermogen as tg


        @tg.runs.shows_progress
        def total(numbers, *, progress=False):
            return sum(tg.runs.counted("numbers", numbers))


        assert total([1, 2, 3]) == total([1, 2, 3], progress=True) == 6
        ```
    """
    call: Callable[..., _T] = function

    @functools.wraps(function)
    def shown(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with progress() if kwargs.get("progress") else contextlib.nullcontext():
            return call(*args, **kwargs)

    return shown
