"""Data as objectives see them, and what is asked of data, weights and strengths."""

import warnings
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num

from .._checks import as_array, check_count
from .._types import Beta, Key
from ..datasets import spins_as_given
from ..energies import AbstractEnergy, n_visible
from ._gaps import MAX_BITS, free_energy_of, margins_of, n_bits

# Spins of the samples that a loss looks at together.
_PART = 2**22


class Samples(eqx.Module):
    """Data, or a batch of them.

    Attributes:
        spins: samples of +-1, 0 where a spin is unknown, shape `(samples, visible)`.
        weights: share of each sample in all means, shape `(samples,)`; they sum to 1.
        size: number of independent samples that they are worth, by which priors are weighed; for
            a batch, that of all data. Where None, `1 / sum of squared weights` (Kish 1965).
        rows: of a batch that was drawn, which samples of all data they are, shape `(samples,)`.
        max_gaps: most spins that are unknown in a sample; static.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        rows = jnp.array([[1.0, -1.0], [1.0, 1.0]])
        samples = tg.learning.Samples(rows, jnp.array([0.5, 0.5]))

        assert samples.mean(samples.spins).tolist() == [1, 0]
        ```
    """

    spins: Num[Array, "samples visible"]
    weights: Float[Array, " samples"]
    size: Float[Array, ""]
    rows: Int[Array, " samples"] | None
    max_gaps: int = eqx.field(static=True)

    def __init__(
        self,
        spins: Num[Array, "samples visible"],
        weights: Float[Array, " samples"],
        size: Float[Array, ""] | None = None,
        rows: Int[Array, " samples"] | None = None,
        max_gaps: int = 0,
    ):
        self.spins, self.weights, self.rows, self.max_gaps = spins, weights, rows, max_gaps
        self.size = 1 / jnp.sum(jnp.square(weights)) if size is None else size

    def mean(self, values: Float[Array, "samples ..."]) -> Float[Array, "..."]:
        """Weighted mean of one value, or one array, for each sample."""
        return jnp.tensordot(self.weights, values, axes=1, precision="highest")

    def unfilled(self) -> "Samples":
        """Those up to the last that counts: by these a run is known on any devices."""
        count = 1 + int(np.max(np.flatnonzero(np.asarray(self.weights)), initial=-1))
        return self._part(self.spins[:count], self.weights[:count])

    def _part(self, spins: Num[Array, "_ visible"], weights: Float[Array, " _"]) -> "Samples":
        return Samples(spins, weights, self.size, max_gaps=self.max_gaps)

    @property
    def known(self) -> Float[Array, " visible"]:
        """Share of the samples in which each spin is known, shape `(visible,)`.

        1 where none of them counts: it divides sums that are then 0.
        """
        share = self.mean(jnp.abs(self.spins))
        return jnp.where(share > 0, share, 1)

    @property
    def means(self) -> Float[Array, " visible"]:
        """Mean of each spin where it is known, shape `(visible,)`."""
        of_all = self.mean(self.spins)
        return of_all / self.known if self.max_gaps else of_all

    def total(self, function: Callable[["Samples"], Array], bits: int = 0) -> Array:
        """The sum of a function over parts of the samples, so many at a time as memory is small.

        Working space and derivatives are then those of one part, however many samples there are,
        and few enough to stay in the cache. Parts are strided: on several devices each holds its
        share of every part. Weights are those among all samples.

        Args:
            function: of some of the samples, such as their share of a mean; differentiable.
            bits: logarithm to base 2 of the configurations that it makes of each sample.
        """
        n_samples, n = self.spins.shape
        count = _number_of_parts(n_samples, n << bits)
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
            return function(self._part(spins, weights))

        again = jax.checkpoint(part)
        shape = jax.eval_shape(part, jnp.zeros((), int))
        total = jnp.zeros(shape.shape, shape.dtype)
        total = jax.lax.fori_loop(0, count, lambda k, total: total + again(k), total)
        if whole == n_samples:
            return total
        return total + function(self._part(self.spins[whole:], self.weights[whole:]))

    def draw(self, key: Key, count: int) -> "Samples":
        """A batch of samples, drawn with replacement in proportion to their weights."""
        rows = jax.random.choice(key, len(self.weights), (count,), p=self.weights)
        share = jnp.full(count, 1 / count, self.weights.dtype)
        return Samples(self.spins[rows], share, self.size, rows, self.max_gaps)

    def free_energy(self, energy: AbstractEnergy, beta: Beta = 1.0) -> Float[Array, ""]:
        """Mean of the `clamped_free_energy`: the data term of the potential."""
        each = jax.vmap(lambda s: free_energy_of(energy, beta, s, self.max_gaps))
        return self.total(lambda part: part.mean(each(part.spins)), n_bits(energy, self.max_gaps))

    def margins(self, energy: AbstractEnergy) -> Float[Array, "samples visible"]:
        """`s_k h_k`, with the field on spin k given all others that are known.

        Half of what the free energy rises by where a known spin is turned; 0 for unknown ones.
        """
        return jax.vmap(lambda s: margins_of(energy, s, self.max_gaps))(self.spins)


def _number_of_parts(n_samples: int, n: int) -> int:
    """One that divides the samples, where there is one up to twice the least."""
    least = min(-(-n_samples * n // _PART), n_samples)
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
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "..."],
    name: str = "data",
    *,
    gaps: bool = False,
) -> Num[Array | np.ndarray, "samples visible"]:
    """`checked_samples` in the dtype of the data: of a million no copy is made.

    With `gaps` they may hold 0 where a spin is unknown.
    """
    if not isinstance(data, Tracer):
        data = spins_as_given(data, name, gaps=gaps)
    if data.ndim != 2 or data.shape[1] != n_visible(energy):
        raise ValueError(
            f"{name} must have {n_visible(energy)} spins a sample for this energy, got shape "
            f"{data.shape}"
        )
    return data


def samples_of(
    data: Num[Array | np.ndarray, "samples visible"],
    share: Float[Array | np.ndarray, " samples"],
    size: float | Float[Array, ""],
    max_gaps: int,
    dtype: DTypeLike,
) -> Samples:
    """Samples to compute with; traced ones with more unknown spins than were said are NaN."""
    spins, share, size = (jnp.asarray(x, dtype) for x in (data, share, size))
    if isinstance(data, Tracer) and not max_gaps:
        spins = jnp.where(spins == 0, jnp.nan, spins)
    return Samples(spins, share, size, max_gaps=max_gaps)


def with_gaps(
    data: Num[Array | np.ndarray, "samples visible"],
    weights: Num[Array | np.ndarray, " samples"] | None,
    max_gaps: int | None = None,
    name: str = "data",
) -> tuple[
    Num[Array | np.ndarray, "samples visible"], Num[Array | np.ndarray, " samples"] | None, int
]:
    """Data and weights of which every row tells something, and the most unknown spins in a row.

    Args:
        data: as `samples_as_given` returns them.
        weights: weight of each sample; equal where None. Rows in which nothing is known get none.
        max_gaps: most unknown spins in a row of traced data; none where None.
        name: what messages call the data.

    Warns:
        UserWarning: for rows in which nothing is known.

    Raises:
        ValueError: for a spin that is unknown in all rows.
    """
    n = data.shape[1]
    if isinstance(data, Tracer):
        most = check_count("max_gaps", max_gaps or 0, 0, n)
        return data, weights, most if most <= MAX_BITS else n
    data = np.asarray(data)
    gaps = data == 0
    if not gaps.any():
        return data, weights, 0
    unknown = np.flatnonzero(gaps.all(axis=0))
    if unknown.size:
        raise ValueError(
            f"{name} tells nothing of spins {unknown[:10].tolist()}, which are unknown in all "
            f"{len(data)} samples: leave these columns out; a spin that nobody has seen is a "
            "hidden one, as in an RBM"
        )
    data, weights, _ = without_empty(data, weights, name)
    return data, weights, most_gaps(data)


def without_empty(
    data: Num[np.ndarray, "samples visible"],
    weights: Num[Array | np.ndarray, " samples"] | None,
    name: str = "data",
) -> tuple[
    Num[np.ndarray, "samples visible"],
    Num[Array | np.ndarray, " samples"] | None,
    Bool[np.ndarray, " samples"],
]:
    """Data and weights in which rows of unknown spins alone weigh nothing; and which these are.

    Such rows hold 1, so that nothing is summed out for them.

    Warns:
        UserWarning: for such rows that had a weight.
    """
    empty = np.logical_not(np.any(data, axis=1))
    if not empty.any():
        return data, weights, empty
    share = 1 if isinstance(weights, Tracer) else checked_shares(weights, len(data))[0]
    rows = np.flatnonzero(empty * share)
    if rows.size:
        warnings.warn(
            f"{name}: in {rows.size} of {len(data)} rows no spin is known, such as rows "
            f"{rows[:10].tolist()}: they count for nothing",
            stacklevel=5,
        )
    weights = np.where(empty, 0, 1) * (1 if weights is None else jnp.asarray(weights))
    return np.where(empty[:, None], np.ones((), data.dtype), data), weights, empty


def most_gaps(data: Num[np.ndarray, "samples visible"]) -> int:
    """Most unknown spins in a row, rounded up, so that other patterns seldom compile anew."""
    most, n = int(np.max(np.sum(data == 0, axis=1))), data.shape[1]
    return min(most + most % 2, n) if most <= MAX_BITS else n


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
