"""Progress of long steps on stderr: a bar on a terminal, one line a step elsewhere."""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

# Where nobody sees the bar move, a line says so often that a step still runs, in seconds.
_SILENCE = 60.0

# tell(done, total, note): how many of `total` parts are done (None: unknown), and a figure.
Tell = Callable[[int, int | None, str], None]


class _Left(ProgressColumn):
    """The time that a step with a known number of parts still takes."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{datetime.timedelta(seconds=int(left))} left")


@contextlib.contextmanager
def progress(title: str) -> Iterator[Tell]:
    """Show that a long step runs, and afterwards one line that says how it went.

    Args:
        title: title of the stage.

    Yields:
        `tell(done, total, note)`, to be called as the step proceeds: `done` of `total` parts are
        finished (`total` may be None); `note` is the figure to show beside.

    !!! example

        ```python
        from thermogen import study

        with study.progress("counting") as tell:
            for k in range(3):
                last = tell(k + 1, 3, "so far")

        assert last is None
        ```
    """
    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        _Left(),
    )
    started, last = time.perf_counter(), ""
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        bar = bars.add_task(title, total=None, note="")

        def tell(done: int, total: int | None, note: str) -> None:
            nonlocal last
            last = note
            bars.update(bar, completed=done, total=total, note=note)

        over = threading.Event()

        def show_life() -> None:
            while not over.wait(_SILENCE):
                seconds = time.perf_counter() - started
                console.print(f"{title}: {last or 'at work'} (after {seconds:.0f} s)", markup=False)

        if not console.is_terminal:
            threading.Thread(target=show_life, daemon=True).start()
        try:
            yield tell
        finally:
            over.set()
    seconds = time.perf_counter() - started
    console.print(f"{title}: {last} ({seconds:.1f} s)", markup=False, soft_wrap=True)
