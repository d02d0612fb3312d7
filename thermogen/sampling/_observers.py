"""Statistics that accumulate while chains run, so that memory need not grow with their length."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num, PyTree

from ..energies import AbstractEnergy

Population = Float[Array, "chains n"]


class AbstractObserver(eqx.Module):
    """Three pure functions: `init`, `update` after each kept sweep, and `value` at the end."""

    @abc.abstractmethod
    def init(
        self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int
    ) -> PyTree:
        """What is carried, for chains at `spins` that will be seen `n_kept` times.

        `states` are those of the sampler, one for each chain.
        """

    @abc.abstractmethod
    def update(
        self,
        carry: PyTree,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> PyTree:
        """The carry after chains were seen at `spins`; `count` sweeps were kept before."""

    @abc.abstractmethod
    def value(self, carry: PyTree) -> PyTree:
        """The result."""


class Trace(AbstractObserver):
    """`function(energy, spins)` of every chain at every kept sweep, shape `(chains, kept, ...)`.

    The configurations themselves by default. `Trace(lambda energy, spins: energy(spins))` is a
    record of energies.
    """

    function: Callable = lambda energy, spins: spins

    def init(
        self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int
    ) -> PyTree:
        return _blank(_of_each(self.function, energy, spins), n_kept)

    def update(
        self,
        carry: PyTree,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> PyTree:
        return _write(carry, count, _of_each(self.function, energy, spins))

    def value(self, carry: PyTree) -> PyTree:
        return _chains_first(carry)


class StateTrace(AbstractObserver):
    """`function(energy, state)` of the sampler's own state, shape `(chains, kept, ...)`.

    The whole state by default, in a tree as the sampler has it. Of `ParallelTempering` for example
    `StateTrace(lambda energy, state: state.round_trips)`.
    """

    function: Callable = lambda energy, state: state

    def init(
        self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int
    ) -> PyTree:
        return _blank(_of_each(self.function, energy, states), n_kept)

    def update(
        self,
        carry: PyTree,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> PyTree:
        return _write(carry, count, _of_each(self.function, energy, states))

    def value(self, carry: PyTree) -> PyTree:
        return _chains_first(carry)


class Mean(AbstractObserver):
    """Mean of `function(energy, spins)` over chains and kept sweeps.

    The magnetizations by default.
    """

    function: Callable = lambda energy, spins: spins

    def init(self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int) -> Array:
        return jnp.zeros_like(self._mean(energy, spins))

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> Array:
        # A running mean keeps its digits in float32, a running sum does not.
        return carry + (self._mean(energy, spins) - carry) / (count + 1)

    def value(self, carry: Array) -> Array:
        return carry

    def _mean(self, energy, spins):
        return jnp.mean(_of_each(self.function, energy, spins), axis=0)


class Correlations(AbstractObserver):
    """Connected correlations `<s_i s_j> - <s_i><s_j>` over chains and kept sweeps, `(n, n)`."""

    def init(
        self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int
    ) -> tuple[Array, Array]:
        n = spins.shape[1]
        return jnp.zeros(n, spins.dtype), jnp.zeros((n, n), spins.dtype)

    def update(
        self,
        carry: tuple,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> tuple[Array, Array]:
        mean, second = carry
        mean += (jnp.mean(spins, axis=0) - mean) / (count + 1)
        second += (spins.T @ spins / len(spins) - second) / (count + 1)
        return mean, second

    def value(self, carry: tuple[Array, Array]) -> Float[Array, "n n"]:
        mean, second = carry
        return second - mean[:, None] * mean[None, :]


class EnergyHistogram(AbstractObserver):
    """How many kept configurations have an energy between successive `edges`, shape `(bins,)`.

    Energies beyond the outer edges are not counted.
    """

    edges: Float[Array, " edges"]

    def init(self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int) -> Array:
        return jnp.zeros(len(self.edges) - 1, int)

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> Array:
        return carry + jnp.histogram(jax.vmap(energy)(spins), self.edges)[0].astype(carry.dtype)

    def value(self, carry: Array) -> Array:
        return carry


class Overlaps(AbstractObserver):
    """Overlap distribution P(q): counts of `q = s . s' / n` at each of its n + 1 values, -1 first.

    Each chain is compared with the next, an independent replica of it (Parisi 1983).
    """

    def init(self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int) -> Array:
        if len(spins) < 2:
            raise ValueError("n_chains must be at least 2 to compare replicas, got 1")
        return jnp.zeros(spins.shape[1] + 1, int)

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> Array:
        agreeing = jnp.sum(spins == jnp.roll(spins, 1, axis=0), axis=1)
        return carry.at[agreeing].add(1)

    def value(self, carry: Array) -> Array:
        return carry


class PatternOverlaps(AbstractObserver):
    """Magnetization toward patterns: counts of `s . pattern / n` at each of its n + 1 values.

    From -1 to 1 in steps of 2 / n, shape `(patterns, n + 1)`; every chain counts at every kept
    sweep.

    Attributes:
        patterns: configurations of +-1, shape `(patterns, n)`.

    Raises:
        ValueError: for entries other than +-1 and, in a run, for a number of spins other than
            the energy's.
    """

    patterns: Num[Array | np.ndarray, "patterns n"]

    def __check_init__(self):
        if not isinstance(self.patterns, Tracer) and not np.all(np.abs(self.patterns) == 1):
            raise ValueError("patterns must hold spins, -1 or +1, and nothing else")

    def init(
        self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int
    ) -> Int[Array, "patterns values"]:
        n_patterns, n = self.patterns.shape
        if n != spins.shape[1]:
            raise ValueError(f"patterns must have {spins.shape[1]} spins each, got {n}")
        return jnp.zeros((n_patterns, n + 1), int)

    def update(
        self,
        carry: Int[Array, "patterns values"],
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> Int[Array, "patterns values"]:
        agreeing = jnp.sum(self.patterns[:, None] == spins[None], axis=2)
        return carry.at[jnp.arange(len(carry))[:, None], agreeing].add(1)

    def value(self, carry: Int[Array, "patterns values"]) -> Int[Array, "patterns values"]:
        return carry


class LastStates(AbstractObserver):
    """The configurations of the last `k` kept sweeps, oldest first, shape `(chains, k, n)`."""

    k: int

    def init(self, energy: AbstractEnergy, spins: Population, states: PyTree, n_kept: int) -> Array:
        if not 1 <= self.k <= n_kept:
            raise ValueError(f"k must lie between 1 and the {n_kept} kept sweeps, got {self.k}")
        return jnp.broadcast_to(spins, (self.k, *spins.shape))

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractEnergy,
        spins: Population,
        states: PyTree,
    ) -> Array:
        return jnp.concatenate([carry[1:], spins[None]])

    def value(self, carry: Array) -> Array:
        return jnp.swapaxes(carry, 0, 1)


def _of_each(function, energy, xs):
    """`function(energy, x)` of the configuration or the state x of each chain."""
    return jax.vmap(lambda x: jax.tree.map(jnp.asarray, function(energy, x)))(xs)


def _blank(record, n_kept):
    """Room for `n_kept` records of all chains, on the devices on which the chains are."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (n_kept, *x.shape)), record)


def _write(carry, count, record):
    return jax.tree.map(lambda whole, x: whole.at[count].set(x), carry, record)


def _chains_first(carry):
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), carry)
