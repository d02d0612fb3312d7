"""Equal rows as one, and the samples that all of them are worth."""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PyTree

from .._types import Key
from ..energies import AbstractEnergy
from ..learning import AbstractObjective, Defaults, Samples, checked_shares

# Distinct rows are filled up to a power of two, so that few programs serve all numbers of them.
_LEAST_ROWS = 64


@dataclass(frozen=True)
class Rows:
    """Distinct rows, with what the weights of the rows as they were given came to.

    Weights of merged rows do not tell how many samples there were, unless they are counts.

    Attributes:
        spins: distinct rows of +-1, shape `(rows, spins)`.
        counts: summed weights of each, shape `(rows,)`.
        total: sum of all weights.
        kish: `(sum w)^2 / sum w^2` over the rows as given.
        whole: whether all weights are whole numbers.
    """

    spins: Int8[np.ndarray, "rows spins"]
    counts: Float[np.ndarray, " rows"]
    total: float
    kish: float
    whole: bool

    @staticmethod
    def of(spins: Int8[np.ndarray, "rows spins"], weights: Float[np.ndarray, " rows"]) -> "Rows":
        """Those of data with a weight for each row."""
        share, _ = checked_shares(weights, len(spins), "sample_weight")
        whole = bool(np.all(weights % 1 == 0))
        kish = float(1 / np.sum(share**2))
        return Rows(*_distinct(spins, weights), float(weights.sum(dtype=float)), kish, whole)

    def __add__(self, other: "Rows") -> "Rows":
        """Both, as if they had been given together."""
        spins = np.concatenate([self.spins, other.spins])
        counts = np.concatenate([self.counts, other.counts])
        total = self.total + other.total
        squares = sum((rows.total / total) ** 2 / rows.kish for rows in (self, other))
        whole = self.whole and other.whole
        return Rows(*_distinct(spins, counts), total, 1 / squares, whole)

    @property
    def size(self) -> float:
        """How many samples they are worth, see `thermogen.learning.Samples`."""
        return self.total if self.whole else self.kish

    def weighed(self, objective: AbstractObjective) -> AbstractObjective:
        """The objective, told of the size where `fit` cannot tell it from the counts."""
        if self.whole or not isinstance(objective, AbstractObjective):
            return objective  # `fit` refuses what is none, by name.
        return _Sized(objective, self.size)

    def filled(self) -> tuple[Int8[np.ndarray, "_ spins"], Float[np.ndarray, " _"]]:
        """Rows and counts, with some more that do not count."""
        n = len(self.spins)
        missing = max(_LEAST_ROWS, 1 << (n - 1).bit_length()) - n
        spins = np.pad(self.spins, ((0, missing), (0, 0)), "edge")
        return spins, np.pad(self.counts, (0, missing))


class _Sized(AbstractObjective):
    """An objective on samples that are worth another number than their weights tell.

    Gradient contract: that of the objective.

    Attributes:
        objective: the objective.
        size: the number of samples.
    """

    objective: AbstractObjective
    size: float | Float[Array, ""]

    @property
    def defaults(self) -> Defaults:
        """With a tolerance below the tenth of a sample, as `fit` takes it."""
        own = self.objective.defaults
        if own.gradient_tolerance is None:
            return own
        return own._replace(gradient_tolerance=jnp.minimum(own.gradient_tolerance, 0.1 / self.size))

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PyTree:
        return self.objective.init(energy, self._sized(samples), key)

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        return self.objective.loss(energy, self._sized(batch), state, key)

    def _sized(self, samples: Samples) -> Samples:
        size = jnp.asarray(self.size, samples.size.dtype)
        return eqx.tree_at(lambda s: s.size, samples, size)


def _distinct(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows that count, in order, and the summed weights of each."""
    rows, counts = rows[counts > 0], counts[counts > 0]
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    return distinct, np.bincount(which.ravel(), counts, len(distinct))
