"""Jobs, which are pure functions of arrays of fixed shapes, and the one driver that runs them."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, PyTree

from ._checks import check_count, is_traced
from ._compile import compiled_quickly
from ._types import Key

# More steps than any run takes, in the integers that a device counts with.
_FOREVER = 2**31 - 1


class AbstractJob(eqx.Module):
    """A long computation: where it starts, one step, whether it is done, and what came of it.

    All four functions are pure. A state is a pytree of arrays whose shapes never change, and holds
    all that the next step needs, its random key included: `jax.vmap` then maps a job over whatever
    is an array in it, and a state that is stored is a run that can go on.

    `run` takes no step from a state that is done. Under `jax.vmap` such a state waits unchanged
    for the others.

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

        assert tg.run(Halving(jnp.asarray(5.0)), key=jax.random.key(0)) == 0.625
        ```
    """

    @abc.abstractmethod
    def init(self, key: Key) -> PyTree[Array]:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, state: PyTree[Array]) -> PyTree[Array]:
        """The state after one step more: the same structure, shapes and dtypes."""

    @abc.abstractmethod
    def done(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Whether no step is left to be taken."""

    @abc.abstractmethod
    def result(self, state: PyTree[Array]) -> PyTree:
        """The result that a state stands for, also the state of a run that was stopped early."""


def run(
    job: AbstractJob,
    *,
    key: Key,
    callback: Callable[[PyTree[Array]], object] | None = None,
    every: int = 1,
) -> PyTree:
    """Run a job to its end, in one compiled loop.

    With a callback the loop pauses after `every` steps and goes on with the same program. Under
    `jax.jit` and `jax.vmap` the loop becomes part of the caller's program: jobs that are mapped end
    with the last of them.

    Args:
        job: the job to run.
        key: random key, for `job.init`.
        callback: called on the host with the state after every few steps and at the end. Where it
            returns True the run stops, with the result so far; an exception ends it.
        every: steps between two calls of `callback`, at least 1.

    Returns:
        `job.result` of the last state.

    Raises:
        TypeError: for what is no job.
        ValueError: for `every` below 1, for a callback where the job is traced, since nothing
            runs on the host there, and for traced numbers that are no arrays of the job.
    """
    if not isinstance(job, AbstractJob):
        raise TypeError(f"job must be an AbstractJob, got {job!r}")
    if is_traced(job, key):
        if callback is not None:
            raise ValueError("callback cannot be called under jax.jit or jax.vmap: leave it out")
        # Compiled functions all the same, so that a call under jax.vmap alone compiles once.
        state, _ = _advance(job, _init(job, key), jnp.asarray(_FOREVER, jnp.int32))
        return result_of(job, state)
    every = check_count("every", every)
    state = _init(job, key)
    while True:
        limit = _FOREVER if callback is None else every
        state, done = _advance(job, state, jnp.asarray(limit, jnp.int32))
        if isinstance(done, Tracer):
            raise ValueError(
                "job uses a traced number that is none of its arrays, such as a learning rate "
                "inside an optax transformation: make it a field of the job, or of what it holds"
            )
        if callback is None or (callback(state) is True) or done:
            return result_of(job, state)


@compiled_quickly
def _init(job: AbstractJob, key: Key) -> PyTree[Array]:
    return job.init(key)


@eqx.filter_jit
def _advance(
    job: AbstractJob, state: PyTree[Array], limit: Int[Array, ""]
) -> tuple[PyTree[Array], Bool[Array, ""]]:
    state = _advanced(job, state, limit)
    return state, job.done(state)


@eqx.filter_jit
def result_of(job: AbstractJob, state: PyTree[Array]) -> PyTree:
    """`job.result(state)`, compiled: what a callback of `run` may ask for."""
    return job.result(state)


def _advanced(job: AbstractJob, state: PyTree[Array], limit: Int[Array, ""]) -> PyTree[Array]:
    """The state after at most `limit` steps, fewer if the job is done before."""

    def going(carry):
        count, state = carry
        return (count < limit) & ~job.done(state)

    def step(carry):
        count, state = carry
        return count + 1, job.step(state)

    return jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), state))[1]
