"""The complete description: one coupling for each of the 2^n sets of spins."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import as_array
from .._linalg import dot
from .._placement import gathered
from .._split import table_on_mesh
from .._types import Magnetizations, Spins, Temperature
from ..walsh import degrees, inverse_walsh_transform, walsh_transform
from ._base import AbstractEnergy, AbstractMultilinear, one_configuration
from ._interactions import Interactions
from ._moments import nonlinear_fourth_cumulant, nonlinear_third_moment, nonlinear_variance
from ._parameters import as_parameters, parameter_degrees
from ._terms import has_terms, terms

_MAX_SPINS = 24


class Complete(AbstractMultilinear):
    """`E(s) = -sum_a J_a prod_{k in a} s_k` over all 2^n sets a, so any table of energies.

    Couplings that are split over the devices of a mesh stay so.

    Args:
        couplings: J in energy units, indexed by bit mask (spin k is bit k), shape `(2**n,)`;
            entry 0 is minus the mean energy.

    Raises:
        ValueError: if the length is not a power of two.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        energies = np.array([0.0, 1.0, 3.0, 2.0])
        energy = tg.Complete.from_energies(energies)

        assert np.allclose(energy.energies(), energies)
        assert np.isclose(energy(np.array([1, -1])), 1.0)  # spin 0 is bit 0
        ```
    """

    couplings: Float[Array, " masks"]

    def __init__(self, couplings: Num[Array | np.ndarray, " masks"]):
        (couplings,) = as_parameters(couplings=couplings)
        if couplings.ndim != 1 or couplings.size == 0 or couplings.size & (couplings.size - 1):
            raise ValueError(f"couplings must have shape (2**n,), got {couplings.shape}")
        self.couplings = couplings

    @property
    def n_spins(self) -> int:
        return self.couplings.shape[-1].bit_length() - 1

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        spins = one_configuration(self, spins)
        spins = spins.astype(jnp.result_type(self.couplings, spins))
        return -_weighted(self.couplings, jnp.ones_like(spins), spins)

    def _parts(self) -> dict[str, Array | np.ndarray]:
        orders = degrees(self.n_spins)
        return {f"order {p}": self.couplings[..., orders == p] for p in range(self.n_spins + 1)}

    @classmethod
    def from_energies(cls, energies: Num[Array | np.ndarray, " configurations"]) -> "Complete":
        """The energy with the given value at every configuration, shape `(2**n,)`."""
        return cls(-walsh_transform(energies))

    @classmethod
    def from_weights(
        cls, weights: Num[Array | np.ndarray, " configurations"], temperature: Temperature
    ) -> "Complete":
        """The energy `-T ln weight`, whose Boltzmann weights at that temperature are the given.

        Args:
            weights: a positive weight for each configuration, shape `(2**n,)`.
            temperature: T > 0, in energy units.
        """
        return cls.from_energies(-temperature * jnp.log(weights))

    def energies(self) -> Float[Array, " configurations"]:
        """The energy of every configuration, shape `(2**n,)`."""
        return -inverse_walsh_transform(self.couplings)

    def truncate(self, max_degree: int) -> Interactions:
        """Keep the couplings of at most `max_degree` spins."""
        return self.keep(np.flatnonzero(degrees(self.n_spins) <= max_degree))

    @classmethod
    def from_data(
        cls,
        data: Num[Array | np.ndarray, "samples n"],
        *,
        temperature: Temperature,
        gap_per_spin: Temperature,
        weights: Num[Array | np.ndarray, " samples"] | None = None,
    ) -> "Complete":
        """Represented configurations at `-T ln weight`, all others behind an extensive gap.

        The weight of a configuration is its share of the samples; those that do not occur lie
        at `n gap_per_spin` above the highest that does.

        Args:
            data: samples of +-1, shape `(samples, n)`.
            temperature: T > 0, in energy units.
            gap_per_spin: Delta / n >= 0, in energy units.
            weights: weight of each sample, >= 0 and relative; equal where None.
        """
        data = np.asarray(as_array("data", data))
        if data.ndim != 2 or not np.all(np.abs(data) == 1):
            raise ValueError(f"data must be -1 or +1, shape (samples, n), got shape {data.shape}")
        n = data.shape[1]
        if n > _MAX_SPINS:
            raise ValueError(f"data must have at most {_MAX_SPINS} spins to be enumerated, got {n}")
        share = (
            np.ones(len(data))
            if weights is None
            else np.asarray(as_array("weights", weights), float)
        )
        if share.shape != (len(data),) or not (np.all(share >= 0) and 0 < share.sum() < np.inf):
            raise ValueError(
                f"weights must have shape ({len(data)},), be finite, not negative and not all zero"
            )
        data, share = data[share > 0], share[share > 0]
        indices, rows = np.unique((data > 0) @ (1 << np.arange(n)), return_inverse=True)
        counts = np.bincount(rows.ravel(), share)
        represented = -temperature * jnp.log(counts / counts.sum())
        table = jnp.full(2**n, jnp.max(represented) + n * gap_per_spin)
        return cls.from_energies(table.at[indices].set(represented))

    def keep(self, masks: np.ndarray) -> Interactions:
        """Keep the couplings of the given sets, as bit masks, shape `(n_terms,)`."""
        degree = degrees(self.n_spins)[masks]
        orders = np.unique(degree)
        groups = [masks[degree == p] for p in orders]
        bits = np.arange(self.n_spins)
        sets = [
            np.nonzero(group[:, None] >> bits & 1)[1].reshape(len(group), p)
            for group, p in zip(groups, orders, strict=True)
        ]
        couplings = gathered(self.couplings)
        return Interactions(self.n_spins, sets, [couplings[group] for group in groups])

    def keep_largest(self, n_terms: int) -> Interactions:
        """Keep the `n_terms` couplings of largest absolute value; needs known values."""
        return self.keep(np.sort(np.argsort(-np.abs(np.asarray(self.couplings)))[:n_terms]))


@nonlinear_variance.register
def _(energy: Complete, m: Magnetizations) -> Float[Array, ""]:
    """Derivatives `d_A U` squared, with weights `prod_{k in A} v_k`, of all sets A."""
    return _weighted(jnp.square(_nonlinear_derivatives(energy, m)), jnp.ones_like(m), 1 - m * m)


@nonlinear_third_moment.register
def _(energy: Complete, m: Magnetizations) -> Float[Array, ""]:
    return _mean(_nonlinear_part(energy, m) ** 3, m)


@nonlinear_fourth_cumulant.register
def _(energy: Complete, m: Magnetizations) -> Float[Array, ""]:
    squares = _nonlinear_part(energy, m) ** 2
    variance, slopes = jax.value_and_grad(_mean, argnums=1)(squares, m)
    # <Y^2 (s_k - m_k)> = v_k d<Y^2>/dm_k, for fixed values of Y.
    linear = dot(1 - m * m, jnp.square(slopes))
    return _mean(jnp.square(squares), m) - 3 * jnp.square(variance) - 3 * linear


@parameter_degrees.register
def _(energy: Complete) -> Complete:
    return eqx.tree_at(lambda e: e.couplings, energy, degrees(energy.n_spins))


def _nonlinear_derivatives(energy: Complete, m: Magnetizations) -> Float[Array, " masks"]:
    """`-d_A U` for all sets A of two spins and more, 0 for the others; indexed by bit mask."""

    def differentiate(pairs, m):
        return pairs[:, 0] + m * pairs[:, 1], pairs[:, 1]

    table = _butterfly(differentiate, energy.couplings, m)
    return jnp.where(degrees(energy.n_spins) >= 2, table, 0)


def _nonlinear_part(energy: Complete, m: Magnetizations) -> Float[Array, " configurations"]:
    """`E - U - sum_k (d_k U)(s_k - m_k)` of every configuration."""

    def evaluate(pairs, m):
        return pairs[:, 0] - (1 + m) * pairs[:, 1], pairs[:, 0] + (1 - m) * pairs[:, 1]

    return _butterfly(evaluate, -_nonlinear_derivatives(energy, m), m)


def _mean(values: Float[Array, " configurations"], m: Magnetizations) -> Float[Array, ""]:
    """Mean of a table under the product measure."""
    return _weighted(values, 0.5 - 0.5 * m, 0.5 + 0.5 * m)


# Loops over spins: where they are written out, G of ten spins compiles for minutes.


def _butterfly(
    step: Callable, table: Float[Array, " size"], m: Magnetizations
) -> Float[Array, " size"]:
    """One step for each spin, from the pairs that its bit of the index parts to new ones."""

    def body(table, m):
        # Each bit in turn is the lowest, and goes to the top.
        return jnp.concatenate(step(table.reshape(-1, 2), m)), None

    # The body of a loop of no steps is traced all the same.
    return jax.lax.scan(body, table.astype(jnp.result_type(table, m)), m)[0] if m.size else table


def _weighted(
    table: Float[Array, " size"], down: Magnetizations, up: Magnetizations
) -> Float[Array, ""]:
    """Sum of a table, each entry times the product of `down` or `up` of all spins by its bits."""
    low = down.size // 2
    rows = dot(table.reshape(-1, 2**low), _products(down[:low], up[:low]))
    # No product of matrices: rows of a table that is split lie on several devices.
    return jnp.sum(_products(down[low:], up[low:]) * rows)


def _products(down: Magnetizations, up: Magnetizations) -> Float[Array, " size"]:
    bits = np.arange(2**down.size) >> np.arange(down.size)[:, None] & 1

    def body(products, spin):
        is_up, down, up = spin
        return products * jnp.where(is_up, up, down), None

    return jax.lax.scan(body, jnp.ones(2**down.size, down.dtype), (bits == 1, down, up))[0]


@functools.singledispatch
def complete(energy: AbstractEnergy) -> Complete:
    """The same energy as a table of all 2^n couplings, for n <= 24.

    A table that is split over devices is returned for any n.

    The `terms` of an energy are placed, not computed; the values at all configurations then cost
    one transform (`complete(energy).energies()`). An energy without terms is evaluated 2^n times.
    Open for extension: `complete.register(YourEnergy)`.

    Raises:
        ValueError: if n > 24.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        table = tg.energies.complete(pair)

        assert jnp.allclose(table.couplings, jnp.array([0, 0, 0, 1.0]))
        ```
    """
    n = _checked_size(energy)
    if has_terms(energy):
        return complete(terms(energy))
    bits = np.arange(n)

    def value(index):
        return energy(2.0 * (index >> bits & 1) - 1.0)

    return Complete.from_energies(jax.lax.map(value, jnp.arange(2**n), batch_size=2 ** min(n, 12)))


@complete.register
def _(energy: Complete) -> Complete:
    if table_on_mesh(energy) is None:
        _checked_size(energy)
    return energy


@complete.register
def _(energy: Interactions) -> Complete:
    couplings = jnp.zeros(2 ** _checked_size(energy), jnp.result_type(float, *energy.couplings))
    for table, values in zip(energy.sets, energy.couplings, strict=True):
        masks = np.sum(1 << table.indices.astype(np.int64), axis=1)
        couplings = couplings.at[masks].set(values)
    return Complete(couplings)


def _checked_size(energy: AbstractEnergy) -> int:
    if energy.n_spins > _MAX_SPINS:
        raise ValueError(
            f"energy must have at most {_MAX_SPINS} spins to be enumerated, got {energy.n_spins}"
        )
    return energy.n_spins
