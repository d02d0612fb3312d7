"""Rules by which one spin is updated in its field, each with its own random variate."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

# Share of its turns in which Metropolis proposes to flip a spin. At 1 it is not ergodic: free
# spins would flip together for ever. The correlation of free spins is `1 - 2 PROPOSED` a sweep,
# so that less than 1 forgets faster where it is hot, and more flips faster where it is cold
# (Peskun 1973). Measured on glasses, lattices and rings, autocorrelation times of energies and
# pairs at this share are at most 1.3 sweeps near beta = 0 (2.1 at 0.9, 4 at 0.95), and within a
# tenth of those at 0.9 in the cold.
PROPOSED = 0.85


class AbstractRule(eqx.Module):
    """What becomes of one spin in its field, given one random number, its threshold.

    All functions are elementwise, on arrays of any one shape, since many spins of many chains are
    updated at once. `sweep` moves all spins of a chain by a rule; a rule that keeps
    `1 / (1 + exp(-field))`, the probability of +1, in detailed balance makes it a sampler.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg


        class Still(tg.sampling.AbstractRule):
            def variate(self, words, dtype):
                return jnp.zeros(words.shape, dtype)

            def never(self, spin):
                return jnp.zeros_like(spin)

            def __call__(self, field, spin, threshold):
                return spin


        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins, info = tg.sampling.sweep(Still(), energy, 1.0, jnp.ones(3), jax.random.key(0))

        assert info.flips == 0
        ```
    """

    @abc.abstractmethod
    def variate(self, words: UInt[Array, "*shape"], dtype: np.dtype) -> Float[Array, "*shape"]:
        """Thresholds in `dtype`, of independent uniform random words of 32 or 64 bits."""

    @abc.abstractmethod
    def never(self, spin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The threshold at which a spin, +1 or -1, stays as it is in every field."""

    @abc.abstractmethod
    def __call__(
        self,
        field: Float[Array, "*shape"],
        spin: Float[Array, "*shape"],
        threshold: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        """The new spin; `field` is `2 beta h`, the logarithm of the odds of +1 to -1."""


class AbstractWordRule(AbstractRule):
    """A rule that asks whether a random word lies below a limit, which depends on the field.

    Where fields have few values, the limits of all of them are known beforehand, and a sweep of
    sparse energies needs neither fields nor thresholds. It then calls `ordered` and `limits` in
    place of the rule, which have to decide as the rule does.

    Attributes:
        along: whether the field is taken along the spin, and a word below the limit flips it; else
            such a word turns it up.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        rule = tg.sampling.HeatBathRule()
        assert isinstance(rule, tg.sampling.AbstractWordRule)
        assert rule.limits(jnp.float32(0.0)) == 2**31  # half of the words turn a free spin up
        ```
    """

    along: ClassVar[bool]

    @abc.abstractmethod
    def ordered(self, words: UInt[Array, "*shape"]) -> UInt[Array, "*shape"]:
        """Random words, so that those that flip a spin, or turn it up, are the smallest."""

    @abc.abstractmethod
    def limits(self, field: Float[Array, "*shape"]) -> UInt[Array, "*shape"]:
        """How many of the ordered words lie below, as wide as the floats of the field."""


class HeatBathRule(AbstractWordRule):
    """Up with probability `1 / (1 + exp(-field))`: the field exceeds a logistic variate.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        rule = tg.sampling.HeatBathRule()
        spins, info = tg.sampling.sweep(rule, energy, 50.0, jnp.ones(3), jax.random.key(0))

        assert spins.tolist() == [1, 1, 1] and info.flips == 0  # a ground state in the cold
        ```
    """

    along = False

    def variate(self, words: UInt[Array, "*shape"], dtype: np.dtype) -> Float[Array, "*shape"]:
        """Logistic variates, symmetric and with tails resolved to 1e-10 (float64: 1e-19).

        One bit of a random word is the sign, the others a uniform number in (0, 1/2): near 0 floats
        lie dense, whereas `uniform` leaves nothing between 0 and 1e-7 in float32.
        """
        half = open_uniform(words >> 1, dtype)
        negative = jnp.log(half / (1 - half))
        return jnp.where(words & 1, -negative, negative)

    def never(self, spin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return -spin * jnp.inf

    def __call__(
        self,
        field: Float[Array, "*shape"],
        spin: Float[Array, "*shape"],
        threshold: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        return jnp.where(field > threshold, 1, -1).astype(spin.dtype)

    def ordered(self, words: UInt[Array, "*shape"]) -> UInt[Array, "*shape"]:
        """By sign and size. None is the largest, so that one may exceed them all."""
        sign = words & 1
        return ((words >> 1) ^ -sign) - sign

    def limits(self, field: Float[Array, "*shape"]) -> UInt[Array, "*shape"]:
        rare = _count(jax.nn.sigmoid(-jnp.abs(field)))
        return jnp.where(field > 0, ~rare, rare)


class MetropolisRule(AbstractWordRule):
    """A flip with probability `PROPOSED min(1, exp(-s field))`.

    Thresholds are exponential variates, shifted so that a share of `PROPOSED` lies above zero.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        rule = tg.sampling.MetropolisRule()
        spins, info = tg.sampling.sweep(rule, energy, 50.0, jnp.ones(3), jax.random.key(0))

        assert spins.tolist() == [1, 1, 1] and info.flips == 0  # a ground state in the cold
        ```
    """

    along = True

    def variate(self, words: UInt[Array, "*shape"], dtype: np.dtype) -> Float[Array, "*shape"]:
        return np.log(PROPOSED).astype(dtype) - jnp.log(open_uniform(words, dtype))

    def never(self, spin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.full_like(spin, -jnp.inf)

    def __call__(
        self,
        field: Float[Array, "*shape"],
        spin: Float[Array, "*shape"],
        threshold: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        return jnp.where(jnp.maximum(spin * field, 0) < threshold, -spin, spin)

    def ordered(self, words: UInt[Array, "*shape"]) -> UInt[Array, "*shape"]:
        return words

    def limits(self, field: Float[Array, "*shape"]) -> UInt[Array, "*shape"]:
        return _count(PROPOSED * jnp.exp(-jnp.maximum(field, 0)))


def _count(share: Float[Array, "*shape"]) -> UInt[Array, "*shape"]:
    """How many words are a share below 1 of all."""
    bits = 8 * share.dtype.itemsize
    return jnp.where(share > 0, share * 2.0**bits + 0.5, 0).astype(f"uint{bits}")  # 0 for NaN


def open_uniform(words: UInt[Array, "*shape"], dtype: np.dtype) -> Float[Array, "*shape"]:
    """Numbers in (0, 1) of uniform random words, without 0 and 1 themselves.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        from thermogen import sampling

        words = jax.random.bits(jax.random.key(0), (1000,), "uint32")
        numbers = sampling.open_uniform(words, jnp.dtype("float32"))

        assert 0 < numbers.min() < numbers.max() < 1
        ```
    """
    whole = words.astype(dtype)
    if words.dtype == jnp.uint32:
        # Both halves by themselves, which rounds as the whole: processors have no wide instruction
        # for numbers whose highest bit is no sign, and Metropolis took ten times as long.
        whole = (words >> 16).astype(dtype) * 2.0**16 + (words & 0xFFFF).astype(dtype)
    return (whole + 0.5) * 2.0 ** (-8 * words.dtype.itemsize)
