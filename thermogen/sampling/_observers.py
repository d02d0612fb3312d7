"""Statistics that accumulate while chains run, so that memory need not grow with their length."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num, PyTree

from ..energies import AbstractEnergy

Population = Float[Array, "chains n"]


class Seen(NamedTuple):
    """All chains at one kept sweep; the first axis of every array is that of the chains.

    Attributes:
        spins: configurations, shape `(chains, n)`.
        state: states of the sampler.
        info: info of its last step, zeros before the first.
    """

    spins: Population
    state: PyTree
    info: PyTree


class AbstractObserver(eqx.Module):
    """Three pure functions: `init`, `update` after each kept sweep, and `value` at the end.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Lowest(tg.sampling.AbstractObserver):
            def init(self, energy, seen, n_kept):
                return jnp.asarray(jnp.inf)

            def update(self, carry, count, energy, seen):
                return jnp.minimum(carry, jax.vmap(energy)(seen.spins).min())

            def value(self, carry):
                return carry


        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        lowest = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=10,
            n_sweeps=20,
            observers=Lowest(),
        )

        assert lowest == -3
        ```
    """

    @abc.abstractmethod
    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> PyTree:
        """What is carried, for chains that start as they are seen, `n_kept` times from now on."""

    @abc.abstractmethod
    def update(self, carry: PyTree, count: Array, energy: AbstractEnergy, seen: Seen) -> PyTree:
        """The carry after chains were seen; `count` sweeps were kept before."""

    @abc.abstractmethod
    def value(self, carry: PyTree) -> PyTree:
        """The result."""


class _Function(AbstractObserver):
    """`function(energy, x)` of every chain, x its spins, state or info."""

    function: Callable = lambda energy, x: x
    of: str = eqx.field(default="spins", static=True)

    def __check_init__(self):
        if self.of not in Seen._fields:
            raise ValueError(f"of must be one of {', '.join(Seen._fields)}, got {self.of!r}")

    def _of_each(self, energy: AbstractEnergy, seen: Seen) -> PyTree:
        function = self.function
        return jax.vmap(lambda x: jax.tree.map(jnp.asarray, function(energy, x)))(
            getattr(seen, self.of)
        )


class Trace(_Function):
    """`function(energy, spins)` of every chain at every kept sweep, shape `(chains, kept, ...)`.

    The configurations themselves by default. `Trace(lambda energy, spins: energy(spins))` is a
    record of energies. `of="state"` gives the function the state of the sampler, `of="info"` what
    its last step did: of `ParallelTempering` for example
    `Trace(lambda energy, state: state.round_trips, of="state")`.

    Attributes:
        function: function of the energy and of one chain; it returns an array or a tree of arrays.
        of: the part of a chain that it takes: `"spins"`, `"state"` or `"info"`.

    Raises:
        ValueError: for another value of `of`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.Trace(lambda energy, spins: energy(spins)),
        )

        assert found.shape == (100, 20) and found.min() == -3
        ```
    """

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> PyTree:
        # Room for all records on the devices on which the chains are.
        record = self._of_each(energy, seen)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n_kept, *x.shape)), record)

    def update(self, carry: PyTree, count: Array, energy: AbstractEnergy, seen: Seen) -> PyTree:
        record = self._of_each(energy, seen)
        return jax.tree.map(lambda whole, x: whole.at[count].set(x), carry, record)

    def value(self, carry: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), carry)


class Mean(_Function):
    """Mean of `function(energy, spins)` over chains and kept sweeps.

    The magnetizations by default. `Mean(lambda energy, info: info.flips, of="info")` is the mean
    number of flips.

    Attributes:
        function: function of the energy and of one chain; it returns an array or a tree of arrays.
        of: the part of a chain that it takes: `"spins"`, `"state"` or `"info"`.

    Raises:
        ValueError: for another value of `of`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.Mean(lambda energy, spins: energy(spins)),
        )

        assert jnp.isclose(found, tg.exact.mean_energy(energy, 0.5), atol=0.15)
        ```
    """

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> PyTree:
        return jax.tree.map(jnp.zeros_like, self._mean(energy, seen))

    def update(self, carry: PyTree, count: Array, energy: AbstractEnergy, seen: Seen) -> PyTree:
        # A running mean keeps its digits in float32, a running sum does not.
        mean = self._mean(energy, seen)
        return jax.tree.map(lambda old, new: old + (new - old) / (count + 1), carry, mean)

    def value(self, carry: PyTree) -> PyTree:
        return carry

    def _mean(self, energy, seen):
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), self._of_each(energy, seen))


class Correlations(AbstractObserver):
    """Connected correlations `<s_i s_j> - <s_i><s_j>` over chains and kept sweeps, `(n, n)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.Correlations(),
        )

        assert jnp.allclose(found, tg.exact.correlations(energy, 0.5), atol=0.1)
        ```
    """

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> tuple[Array, Array]:
        n = seen.spins.shape[1]
        return jnp.zeros(n, seen.spins.dtype), jnp.zeros((n, n), seen.spins.dtype)

    def update(
        self, carry: tuple, count: Array, energy: AbstractEnergy, seen: Seen
    ) -> tuple[Array, Array]:
        mean, second = carry
        mean += (jnp.mean(seen.spins, axis=0) - mean) / (count + 1)
        second += (seen.spins.T @ seen.spins / len(seen.spins) - second) / (count + 1)
        return mean, second

    def value(self, carry: tuple[Array, Array]) -> Float[Array, "n n"]:
        mean, second = carry
        return second - mean[:, None] * mean[None, :]


class EnergyHistogram(AbstractObserver):
    """How many kept configurations have an energy between successive `edges`, shape `(bins,)`.

    Energies beyond the outer edges are not counted.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.EnergyHistogram(jnp.array([-4.0, 0.0, 2.0])),
        )

        assert found.sum() == 2000 and found[0] > found[1]
        ```
    """

    edges: Float[Array, " edges"]

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> Array:
        return jnp.zeros(len(self.edges) - 1, int)

    def update(self, carry: Array, count: Array, energy: AbstractEnergy, seen: Seen) -> Array:
        counts, _ = jnp.histogram(jax.vmap(energy)(seen.spins), self.edges)
        return carry + counts.astype(carry.dtype)

    def value(self, carry: Array) -> Array:
        return carry


class Overlaps(AbstractObserver):
    """Overlap distribution P(q): counts of `q = s . s' / n` at each of its n + 1 values, -1 first.

    Each chain is compared with the next, an independent replica of it (Parisi 1983).

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.Overlaps(),
        )

        assert found.shape == (4,) and found.sum() == 2000
        ```
    """

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> Array:
        if len(seen.spins) < 2:
            raise ValueError("n_chains must be at least 2 to compare replicas, got 1")
        return jnp.zeros(seen.spins.shape[1] + 1, int)

    def update(self, carry: Array, count: Array, energy: AbstractEnergy, seen: Seen) -> Array:
        agreeing = jnp.sum(seen.spins == jnp.roll(seen.spins, 1, axis=0), axis=1)
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

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.PatternOverlaps(jnp.ones((1, 3))),
        )

        assert found.shape == (1, 4) and found.sum() == 2000
        ```
    """

    patterns: Num[Array | np.ndarray, "patterns n"]

    def __check_init__(self):
        if not isinstance(self.patterns, Tracer) and not np.all(np.abs(self.patterns) == 1):
            raise ValueError("patterns must hold spins, -1 or +1, and nothing else")

    def init(
        self, energy: AbstractEnergy, seen: Seen, n_kept: int
    ) -> Int[Array, "patterns values"]:
        n_patterns, n = self.patterns.shape
        if n != seen.spins.shape[1]:
            raise ValueError(f"patterns must have {seen.spins.shape[1]} spins each, got {n}")
        return jnp.zeros((n_patterns, n + 1), int)

    def update(
        self, carry: Int[Array, "patterns values"], count: Array, energy: AbstractEnergy, seen: Seen
    ) -> Int[Array, "patterns values"]:
        agreeing = jnp.sum(self.patterns[:, None] == seen.spins[None], axis=2)
        return carry.at[jnp.arange(len(carry))[:, None], agreeing].add(1)

    def value(self, carry: Int[Array, "patterns values"]) -> Int[Array, "patterns values"]:
        return carry


class LastStates(AbstractObserver):
    """The configurations of the last `k` kept sweeps, oldest first, shape `(chains, k, n)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sample(
            tg.Gibbs(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
            observers=tg.sampling.LastStates(2),
        )

        assert found.shape == (100, 2, 3)
        ```
    """

    k: int

    def init(self, energy: AbstractEnergy, seen: Seen, n_kept: int) -> Array:
        if not 1 <= self.k <= n_kept:
            raise ValueError(f"k must lie between 1 and the {n_kept} kept sweeps, got {self.k}")
        return jnp.broadcast_to(seen.spins, (self.k, *seen.spins.shape))

    def update(self, carry: Array, count: Array, energy: AbstractEnergy, seen: Seen) -> Array:
        return jnp.concatenate([carry[1:], seen.spins[None]])

    def value(self, carry: Array) -> Array:
        return jnp.swapaxes(carry, 0, 1)
