"""The one driver: it runs jobs in chunks, stores them, and spreads them over devices."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Int, PyTree

from .._checks import check_count, is_traced
from .._compile import compiled_quickly
from .._placement import placed
from .._types import Key
from ._checkpoint import Checkpoint, Folder, Store, as_checkpoint
from ._job import AbstractJob
from ._processes import check_same_call, from_first, together
from ._progress import bar_of, shows_progress
from ._spread import Devices, Spread

# More steps than any run takes, in the integers that a device counts with.
_FOREVER = 2**31 - 1
_Callback = Callable[[PyTree[Array]], object] | None
# Between two looks of a bar of progress, in seconds.
_BETWEEN_LOOKS = 0.5


@shows_progress
def run(
    job: AbstractJob,
    *,
    key: Key,
    checkpoint: Folder = None,
    callback: _Callback = None,
    every: int = 1,
    sharding: Devices = None,
    progress: bool = False,
) -> PyTree:
    """Run a job to its end, in one compiled loop.

    With a callback or a checkpoint the loop pauses now and then, and goes on with the same
    program. Under `jax.jit` and `jax.vmap` the loop becomes part of the caller's program: jobs that
    are mapped end with the last of them.

    Args:
        job: the job to run.
        key: random key, for `job.init`.
        checkpoint: folder where states are stored, and where the same run goes on from if it was
            cut short; see `Checkpoint`. What ends a run of one process early, such as Ctrl-C,
            stores the state.
        callback: called on the host with the state after every few steps and at the end. Where it
            returns True the run stops, with the result so far; an exception ends it.
        every: steps between two calls of `callback`, at least 1.
        sharding: the devices over which the lanes of the job are spread: a mesh, or a sharding by
            the first axis. Results do not depend on their number but for the order of sums. Of
            several processes (`jax.distributed`) each must make the same call, with a mesh over
            the devices of all.
        progress: whether to show a bar with the time left; see `thermogen.runs.progress`.

    Returns:
        `job.result` of the last state.

    Raises:
        TypeError: for what is no job, or no sharding.
        ValueError: for `every` below 1, for a callback or a checkpoint where the job is traced,
            since nothing runs on the host there, for traced numbers that are no arrays of the job,
            (`CheckpointError`) for a folder that another run holds, or left its states in, and
            where processes do not make the same call.
        OSError: where the folder cannot be written to; what was stored stays.
        ProcessLostError: where another process has ended.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Halving(tg.AbstractJob):
            start: jax.Array

            def init(self, key):
                return self.start

            def step(self, state):
                return state / 2

            def done(self, state):
                return state < 1

            def result(self, state):
                return state


        starts = jnp.array([5.0, 3.0])
        ends = jax.vmap(lambda start: tg.run(Halving(start), key=jax.random.key(0)))(starts)

        assert ends.tolist() == [0.625, 0.75]
        ```
    """
    if not isinstance(job, AbstractJob):
        raise TypeError(f"job must be an AbstractJob, got {job!r}")
    spread = Spread.of(sharding)
    if is_traced(job, key):
        for name, value in {"callback": callback, "checkpoint": checkpoint}.items():
            if value is not None:
                raise ValueError(f"{name} cannot be used under jax.jit or jax.vmap: leave it out")
        # Compiled functions all the same, so that a call under jax.vmap alone compiles once.
        still = job.still()
        start = _init(still, key, spread)
        state, *_ = _advance(still, start, jnp.asarray(_FOREVER, jnp.int32), None, spread)
        return result_of(job, state)
    every = check_count("every", every)
    kept = as_checkpoint(checkpoint)
    if jax.process_count() == 1 or (kept is None and (spread is None or not spread.is_shared)):
        # Alone, or on devices of this process: others may do something else.
        return _result(job, key, spread, kept, callback, every, shared=False)
    with together():
        folder = None if kept is None else str(kept.folder)
        check_same_call("run", (job, key, folder, callback is not None, every))
        found = _result(job, key, spread, kept, callback, every, shared=True)
        return jax.block_until_ready(found)


def _result(
    job: AbstractJob,
    key: Key,
    spread: Spread | None,
    checkpoint: Checkpoint | None,
    callback: _Callback,
    every: int,
    shared: bool,
) -> PyTree:
    """What `run` returns, of known numbers; it is shared where all processes must do the same."""
    if spread is not None:
        key = placed(key, spread.everywhere)
    state = _init(job, key, spread)
    if spread is not None:
        state = spread.held(state, job.lanes(state))
    with _paced(checkpoint, job, key) as pace:
        stored = None if pace.store is None else pace.store.latest(state)
        state = state if stored is None else stored
        every_pause = None if callback is None else every
        return result_of(job, _last(job, state, pace, callback, every_pause, spread, shared))


class _Pace:
    """When a loop pauses, and when its state is stored."""

    def __init__(
        self,
        store: Store | None,
        seconds: float | int,
        tell: _Callback,
    ):
        self.store, self._tell = store, tell
        self._seconds, self._steps = seconds, 1
        self._between = seconds if tell is None else min(seconds, _BETWEEN_LOOKS)
        self._began = self._stored = time.monotonic()
        self._pending: PyTree[Array] | None = None

    def steps(self, every: int | None) -> int:
        """Steps until the next pause: of a callback, else so many that it is in time.

        To store the state, or to show how far it is.
        """
        self._began = time.monotonic()
        if every is not None:
            return every
        return _FOREVER if self.store is None and self._tell is None else self._steps

    def reached(self, state: PyTree[Array]) -> None:
        """Hold the state, for it to be stored when it is time or the run ends early."""
        self._pending = state
        if self._tell is not None:
            self._tell(state)

    def paused(self, at_end: bool) -> None:
        """Store the state if it is time."""
        if self.store is None and self._tell is None:
            return
        now = time.monotonic()
        due, took = now - self._stored >= self._seconds, max(now - self._began, 1e-9)
        # Chunks of half the time between two pauses, so that little passes beyond it.
        growth = min(2.0, max(0.5, 0.5 * self._between / took))
        steps = min(_FOREVER, max(1, int(self._steps * growth)))
        # Clocks differ, and all processes must do the same.
        due, self._steps = from_first(lambda: [due, steps])
        if due or at_end:
            self.store_pending()

    def store_pending(self) -> None:
        """Store the state of the last pause if it was not."""
        if self.store is not None and self._pending is not None:
            self.store.save(self._pending)
            self._pending, self._stored = None, time.monotonic()


@contextlib.contextmanager
def _paced(checkpoint: Checkpoint | None, job: AbstractJob, key: Key) -> Iterator[_Pace]:
    """Its store is open as long as the block lasts; what ends the block early stores the state."""
    if checkpoint is None:
        with bar_of(job) as tell:
            yield _Pace(None, math.inf, tell)
        return
    with checkpoint.held(), bar_of(job) as tell:
        pace = _Pace(Store(checkpoint, job, key), checkpoint.seconds, tell)
        try:
            yield pace
        except BaseException:
            if jax.process_count() == 1:
                with contextlib.suppress(OSError):
                    pace.store_pending()
            raise


def _last(
    job: AbstractJob,
    state: PyTree[Array],
    pace: _Pace,
    callback: _Callback,
    every: int | None,
    spread: Spread | None,
    shared: bool,
) -> PyTree[Array]:
    """The state of the job at its end, or where the callback stops it."""
    shardings = tuple(_split(x) for x in jax.tree.leaves(state))
    while True:
        limit = jnp.asarray(pace.steps(every), jnp.int32)
        moved, done, n_taken = _advance(job, state, limit, shardings, spread)
        if isinstance(done, Tracer):
            raise ValueError(
                "job uses a traced number that is none of its arrays, such as a learning rate "
                "inside an optax transformation: make it a field of the job, or of what it holds"
            )
        # Waits for the end of the chunk: until then the state is the one before it.
        ended, state = bool(done), moved
        if int(n_taken):  # else it is what was stored
            pace.reached(state)
        stops = callback is not None and callback(state) is True
        ended |= from_first(lambda stops=stops: stops) if shared else stops
        pace.paused(ended)
        if ended:
            return state


def _split(x: Array) -> Sharding | None:
    """The sharding of an array on several devices, which it keeps from step to step."""
    return x.sharding if len(x.sharding.device_set) > 1 else None


@compiled_quickly
def _init(job: AbstractJob, key: Key, spread: Spread | None) -> PyTree[Array]:
    if spread is None:
        return jax.tree.map(_strong, job.init(key))
    with spread.in_force:
        state = jax.tree.map(_strong, job.init(key))
        return spread.constrained(state, job.lanes(state))


@eqx.filter_jit
def _advance(
    job: AbstractJob,
    state: PyTree[Array],
    limit: Int[Array, ""],
    shardings: tuple[Sharding | None, ...] | None,
    spread: Spread | None,
) -> tuple[PyTree[Array], Bool[Array, ""], Int[Array, ""]]:
    """The state after at most `limit` steps, whether it is done, and how many steps it took."""

    def going(carry):
        count, state = carry
        return (count < limit) & ~job.done(state)

    def step(carry):
        count, state = carry
        return count + 1, _kept(job.step(state), shardings)

    with contextlib.nullcontext() if spread is None else spread.in_force:
        count = jnp.zeros((), jnp.int32)
        count, state = jax.lax.while_loop(going, step, (count, state))
        return _kept(state, shardings), job.done(state), count


def _strong(x: Array) -> Array:
    """Of a dtype of its own, as what was stored is; a weak one would compile the loop twice."""
    return jnp.asarray(x, x.dtype) if getattr(x, "weak_type", False) else x


def _kept(state: PyTree[Array], shardings: tuple[Sharding | None, ...] | None) -> PyTree[Array]:
    """The state, split as it was."""
    leaves, structure = jax.tree.flatten(state)
    kept = [
        x if s is None else jax.lax.with_sharding_constraint(x, s)
        for x, s in zip(leaves, shardings or [None] * len(leaves), strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


@eqx.filter_jit
def result_of(job: AbstractJob, state: PyTree[Array]) -> PyTree:
    """`job.result(state)`, compiled: what a callback of `run` may ask for."""
    return job.result(state)
