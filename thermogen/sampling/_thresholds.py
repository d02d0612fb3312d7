"""The random numbers of one sweep of many replicas."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt

from .._bits import random_parts, random_words
from ._rules import AbstractRule


class RandomThresholds(eqx.Module):
    """Thresholds of a rule for spins `(n, R)` of replicas with a key each.

    Clamped spins get a threshold that is never passed. The words behind them are for rules that
    need no threshold.
    """

    rule: AbstractRule
    spins: Float[Array, "n replicas"]
    keys: Array
    clamp: Array | None

    def __call__(self, sites: Array) -> Float[Array, "sites replicas"]:
        noise = self.rule.variate(random_words(self.keys, sites, self.width), self.spins.dtype)
        held = self.held(sites)
        return noise if held is None else jnp.where(held, self.rule.never(self.spins[sites]), noise)

    @property
    def width(self) -> int:
        return 8 * np.dtype(self.spins.dtype).itemsize

    def words(self, sites: Array) -> tuple[UInt[Array, "part replicas"], ...]:
        """In one or two parts, which follow each other as the sites do."""
        return random_parts(self.keys, sites, self.width)

    def held(self, sites: Array) -> Bool[Array, "sites replicas"] | None:
        return None if self.clamp is None else self.clamp.T[sites] != 0

    def of_replicas(self, rows: np.ndarray) -> "RandomThresholds":
        clamp = None if self.clamp is None else self.clamp[rows]
        return RandomThresholds(self.rule, self.spins[:, rows], self.keys[rows], clamp)
