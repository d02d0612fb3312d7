"""Statistics that accumulate while chains run, so that memory need not grow with their length."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..energies import AbstractMultilinear

Population = Float[Array, "chains n"]


class AbstractObserver(eqx.Module):
    """Three pure functions: `init`, `update` after each kept sweep, and `value` at the end."""

    @abc.abstractmethod
    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> PyTree:
        """What is carried, for chains at `spins` that will be seen `n_kept` times."""

    @abc.abstractmethod
    def update(
        self,
        carry: PyTree,
        count: Array,
        energy: AbstractMultilinear,
        spins: Population,
        states: PyTree,
    ) -> PyTree:
        """The carry after chains were seen at `spins`; `count` sweeps were kept before.

        `states` are those of the sampler, one for each chain.
        """

    @abc.abstractmethod
    def value(self, carry: PyTree) -> PyTree:
        """The result."""


class Trace(AbstractObserver):
    """`function(energy, spins)` of every chain at every kept sweep, shape `(chains, kept, ...)`.

    The configurations themselves by default. `Trace(lambda energy, spins: energy(spins))` is a
    record of energies.
    """

    function: Callable = lambda energy, spins: spins

    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> Array:
        shape = jax.eval_shape(self._record, energy, spins)
        return jnp.zeros((n_kept, *shape.shape), shape.dtype)

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractMultilinear,
        spins: Population,
        states: PyTree,
    ) -> Array:
        return carry.at[count].set(self._record(energy, spins))

    def value(self, carry: Array) -> Array:
        return jnp.swapaxes(carry, 0, 1)

    def _record(self, energy, spins):
        return jax.vmap(lambda s: jnp.asarray(self.function(energy, s)))(spins)


class Mean(AbstractObserver):
    """Mean of `function(energy, spins)` over chains and kept sweeps.

    The magnetizations by default.
    """

    function: Callable = lambda energy, spins: spins

    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> Array:
        return jnp.zeros_like(self._mean(energy, spins))

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractMultilinear,
        spins: Population,
        states: PyTree,
    ) -> Array:
        # A running mean keeps its digits in float32, a running sum does not.
        return carry + (self._mean(energy, spins) - carry) / (count + 1)

    def value(self, carry: Array) -> Array:
        return carry

    def _mean(self, energy, spins):
        return jnp.mean(jax.vmap(lambda s: jnp.asarray(self.function(energy, s)))(spins), axis=0)


class Correlations(AbstractObserver):
    """Connected correlations `<s_i s_j> - <s_i><s_j>` over chains and kept sweeps, `(n, n)`."""

    def init(
        self, energy: AbstractMultilinear, spins: Population, n_kept: int
    ) -> tuple[Array, Array]:
        n = spins.shape[1]
        return jnp.zeros(n, spins.dtype), jnp.zeros((n, n), spins.dtype)

    def update(
        self,
        carry: tuple,
        count: Array,
        energy: AbstractMultilinear,
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

    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> Array:
        return jnp.zeros(len(self.edges) - 1, int)

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractMultilinear,
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

    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> Array:
        if len(spins) < 2:
            raise ValueError("n_chains must be at least 2 to compare replicas, got 1")
        return jnp.zeros(spins.shape[1] + 1, int)

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractMultilinear,
        spins: Population,
        states: PyTree,
    ) -> Array:
        agreeing = jnp.sum(spins == jnp.roll(spins, 1, axis=0), axis=1)
        return carry.at[agreeing].add(1)

    def value(self, carry: Array) -> Array:
        return carry


class LastStates(AbstractObserver):
    """The configurations of the last `k` kept sweeps, oldest first, shape `(chains, k, n)`."""

    k: int

    def init(self, energy: AbstractMultilinear, spins: Population, n_kept: int) -> Array:
        if not 1 <= self.k <= n_kept:
            raise ValueError(f"k must lie between 1 and the {n_kept} kept sweeps, got {self.k}")
        return jnp.broadcast_to(spins, (self.k, *spins.shape))

    def update(
        self,
        carry: Array,
        count: Array,
        energy: AbstractMultilinear,
        spins: Population,
        states: PyTree,
    ) -> Array:
        return jnp.concatenate([carry[1:], spins[None]])

    def value(self, carry: Array) -> Array:
        return jnp.swapaxes(carry, 0, 1)
