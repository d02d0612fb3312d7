"""Stages of a study that run in a thread of their own, while others go on."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .. import _signals
from ..runs import Place
from ._progress import Tell
from ._study import Study

_PATIENCE = 0.2  # seconds between two looks at signals
_NOTHING = 0, None, ""  # to tell yet

# Held by whatever factorises many matrices at once: two such programs would wait for each other for
# ever where there are no more than two cores.
factorising = threading.Lock()

Stage = Callable[[Study, Tell, Place], None]


class Beside:
    """Stages beside the others: most of a study is compiled, which takes one core."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)
        self._over = threading.Event()
        self._work: dict[str, Future[float]] = {}
        self._last: dict[str, tuple[int, int | None, str]] = {}

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *error: object) -> None:
        """A stage that nobody waits for any more ends at its next report."""
        self._over.set()
        self._threads.shutdown(cancel_futures=True)

    def begin(self, name: str, stage: Stage, study: Study, place: Place) -> None:
        """Let a stage run, once, after those that were begun before."""
        if name not in self._work:
            self._work[name] = self._threads.submit(self._timed, name, stage, study, place)

    def finish(self, name: str, tell: Tell) -> float | None:
        """Wait for a stage, and give the seconds that it took; None if it was never begun."""
        if name not in self._work:
            return None
        while wait([self._work[name]], _PATIENCE).not_done:
            _signals.check()
            tell(*self._last.get(name, _NOTHING))
        seconds = self._work[name].result()
        tell(*self._last.get(name, _NOTHING))
        return seconds

    def _timed(self, name: str, stage: Stage, study: Study, place: Place) -> float:
        def tell(done: int, total: int | None, note: str) -> None:
            if self._over.is_set():
                raise KeyboardInterrupt
            self._last[name] = done, total, note

        started = time.perf_counter()
        tell(*_NOTHING)
        stage(study, tell, place)
        return time.perf_counter() - started
