"""Data as objectives see them, and what is asked of data, weights and strengths."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Num

from .._checks import as_array
from .._types import Key
from ..datasets import spins_as_given
from ..energies import AbstractEnergy, n_visible, visible_free_energy

# Spins of the samples that a loss looks at together.
_PART = 2**22


class Samples(eqx.Module):
    """Data, or a batch of them.

    Attributes:
        spins: samples of +-1, shape `(samples, visible)`.
        weights: share of each sample in all means, shape `(samples,)`; they sum to 1.
        size: number of independent samples that they are worth, by which priors are weighed; for
            a batch, that of all data. Where None, `1 / sum of squared weights` (Kish 1965).
    """

    spins: Num[Array, "samples visible"]
    weights: Float[Array, " samples"]
    size: Float[Array, ""]

    def __init__(
        self,
        spins: Num[Array, "samples visible"],
        weights: Float[Array, " samples"],
        size: Float[Array, ""] | None = None,
    ):
        self.spins, self.weights = spins, weights
        self.size = 1 / jnp.sum(jnp.square(weights)) if size is None else size

    def mean(self, values: Float[Array, "samples ..."]) -> Float[Array, "..."]:
        """Weighted mean of one value, or one array, for each sample."""
        return jnp.tensordot(self.weights, values, axes=1, precision="highest")

    def unfilled(self) -> "Samples":
        """Those up to the last that counts: by these a run is known on any devices."""
        count = 1 + int(np.max(np.flatnonzero(np.asarray(self.weights)), initial=-1))
        return Samples(self.spins[:count], self.weights[:count], self.size)

    def total(self, function: Callable[["Samples"], Array]) -> Array:
        """The sum of a function over parts of the samples, so many at a time as memory is small.

        Working space and derivatives are then those of one part, however many samples there are,
        and few enough to stay in the cache. Parts are strided: on several devices each holds its
        share of every part. Weights are those among all samples.

        Args:
            function: of some of the samples, such as their share of a mean; differentiable.
        """
        n_samples, n = self.spins.shape
        count = _number_of_parts(n_samples, n)
        if count == 1:
            return function(self)
        whole = n_samples // count * count

        def part(k: Array) -> Array:
            spins, weights = (
                jax.lax.dynamic_index_in_dim(
                    x[:whole].reshape(-1, count, *x.shape[1:]), k, 1, keepdims=False
                )
                for x in (self.spins, self.weights)
            )
            return function(Samples(spins, weights, self.size))

        again = jax.checkpoint(part)
        shape = jax.eval_shape(part, jnp.zeros((), int))
        total = jnp.zeros(shape.shape, shape.dtype)
        total = jax.lax.fori_loop(0, count, lambda k, total: total + again(k), total)
        if whole == n_samples:
            return total
        return total + function(Samples(self.spins[whole:], self.weights[whole:], self.size))

    def draw(self, key: Key, count: int) -> Num[Array, "count visible"]:
        """Samples drawn with replacement in proportion to their weights."""
        return jax.random.choice(key, self.spins, (count,), p=self.weights)

    def free_energy(self, energy: AbstractEnergy) -> Float[Array, ""]:
        """Mean of the `visible_free_energy` at beta = 1: the data term of the potential."""
        each = jax.vmap(lambda s: visible_free_energy(energy, 1.0, s))
        return self.total(lambda part: part.mean(each(part.spins)))


def _number_of_parts(n_samples: int, n: int) -> int:
    """One that divides the samples, where there is one up to twice the least."""
    least = -(-n_samples * n // _PART)
    return next((k for k in range(least, 2 * least) if n_samples % k == 0), least)


# A strength or another number of an objective or penalty.
Number = float | int | Float[Array, ""]


def as_number(value: Number) -> Number:
    """Integers as floats: what is a float is traced, so that another value compiles nothing."""
    return float(value) if isinstance(value, int) else value


def checked_samples(
    energy: AbstractEnergy, data: Num[Array | np.ndarray, "..."], name: str = "data"
) -> Num[Array | np.ndarray, "samples visible"]:
    """Samples of +-1 of that energy, as float64 in NumPy; traced ones as they are."""
    data = samples_as_given(energy, data, name)
    return data if isinstance(data, Tracer) else np.asarray(data, float)


def samples_as_given(
    energy: AbstractEnergy, data: Num[Array | np.ndarray, "..."], name: str = "data"
) -> Num[Array | np.ndarray, "samples visible"]:
    """`checked_samples` in the dtype of the data: of a million no copy is made."""
    if not isinstance(data, Tracer):
        data = spins_as_given(data, name)
    if data.ndim != 2 or data.shape[1] != n_visible(energy):
        raise ValueError(
            f"{name} must have {n_visible(energy)} spins a sample for this energy, got shape "
            f"{data.shape}"
        )
    return data


def check_not_negative(**values: Number | None) -> None:
    """Raise for known numbers below zero, by name."""
    for name, value in values.items():
        if isinstance(value, float) and not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def checked_shares(
    weights: Num[ArrayLike, " samples"] | None, n_samples: int, name: str = "weights"
) -> tuple[Float[np.ndarray, " samples"], float]:
    """Weights that sum to 1, and how many samples they are worth.

    Whole numbers are counts of equal samples; for others see `Samples.size`.
    """
    values = np.ones(n_samples) if weights is None else np.asarray(as_array(name, weights), float)
    if values.shape != (n_samples,):
        raise ValueError(f"{name} must have shape ({n_samples},), got {values.shape}")
    total = values.sum()
    if not (np.all(values >= 0) and 0 < total < np.inf):
        raise ValueError(f"{name} must be finite, not negative, and not all zero")
    share = values / total
    return share, float(total if np.all(values % 1 == 0) else 1 / np.sum(share**2))


def shares_of(
    weights: Num[ArrayLike, " samples"] | None, n_samples: int
) -> tuple[Float[Array | np.ndarray, " samples"], float | Float[Array, ""]]:
    """`checked_shares`, which knows of traced weights their shape alone."""
    if not isinstance(weights, Tracer):
        return checked_shares(weights, n_samples)
    if weights.shape != (n_samples,):
        raise ValueError(f"weights must have shape ({n_samples},), got {weights.shape}")
    share = weights / jnp.sum(weights)
    is_count = jnp.all(weights % 1 == 0)
    return share, jnp.where(is_count, jnp.sum(weights), 1 / jnp.sum(share**2))
