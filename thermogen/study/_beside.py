"""A stage of a study that runs in a thread of its own, while others go on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .. import _signals
from ..runs import Place
from ._progress import Tell
from ._study import Study

_PATIENCE = 0.2  # seconds between two looks at signals

Stage = Callable[[Study, Tell, Place], None]


class Beside:
    """One stage beside the others: most of a study is compiled, which takes one core.

    A stage that factorises many matrices at once must not run beside others that do: two such
    calls wait for each other for ever where there are no more than two cores.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)
        self._over = threading.Event()
        self._work: dict[str, Future[float]] = {}
        self._last: tuple[int, int | None, str] = (0, None, "")

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *error: object) -> None:
        """A stage that nobody waits for any more ends at its next report."""
        self._over.set()
        self._threads.shutdown()

    def begin(self, name: str, stage: Stage, study: Study, place: Place) -> None:
        """Let a stage run, once."""
        if name not in self._work:
            self._work[name] = self._threads.submit(self._timed, stage, study, place)

    def finish(self, name: str, tell: Tell) -> float | None:
        """Wait for a stage, and give the seconds that it took; None if it was never begun."""
        if name not in self._work:
            return None
        while wait([self._work[name]], _PATIENCE).not_done:
            _signals.check()
            tell(*self._last)
        seconds = self._work[name].result()
        tell(*self._last)
        return seconds

    def _timed(self, stage: Stage, study: Study, place: Place) -> float:
        started = time.perf_counter()
        stage(study, self._tell, place)
        return time.perf_counter() - started

    def _tell(self, done: int, total: int | None, note: str) -> None:
        if self._over.is_set():
            raise KeyboardInterrupt
        self._last = done, total, note
