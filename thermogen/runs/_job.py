"""What takes long, as a pure function of arrays of fixed shapes."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool, PyTree

from .._types import Key


class AbstractJob(eqx.Module):
    """A long computation: where it starts, one step, whether it is done, and what came of it.

    The first four functions are pure. A state is a pytree of arrays whose shapes never change, and
    holds all that the next step needs, its random key included: `jax.vmap` then maps a job over
    whatever is an array in it, and a state that is stored is a run that can go on.

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

    def amount(self, state: PyTree[Array]) -> tuple[int, int | None] | None:
        """How many parts are done, and of at most how many, for a bar of progress; on the host.

        None where the job cannot tell, and for the number where nothing bounds it.
        """
        return None

    def still(self) -> "AbstractJob":
        """The job whose steps are taken; without derivatives where the result has its own."""
        return self

    def lanes(self, state: PyTree[Array]) -> PyTree[int | None]:
        """Along which axis of each array of a state independent lanes lie, for `sharding`.

        A tree of axes, or any prefix of it; None leaves an array to the compiler, as here all are.
        """
        return None
