"""The landscape of E itself: single-flip minima and the barriers between them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from .._checks import as_array, check_count
from .._placement import from_anywhere
from .._types import Beta
from ..datasets import validate_spins
from ..energies import AbstractEnergy, Clamped
from ..spins import index_from_spins, spins_from_index
from ._cost import narrow
from ._ensembles import energies, log_weights
from ._narrow import lowest as eliminated_lowest


class Lowest(NamedTuple):
    """The configurations of lowest energy, lowest first.

    Attributes:
        energies: shape `(n_states,)`; infinite where there are no more configurations.
        spins: shape `(n_states, n)`.
    """

    energies: Float[Array, " states"]
    spins: Float[Array, "states n"]


@from_anywhere
def lowest(energy: AbstractEnergy, n_states: int = 1) -> Lowest:
    """The configurations of lowest energy: the ground state, and those that come next.

    Up to 24 spins by enumeration, beyond for narrow graphs by elimination, see `cost`, with tables
    `n_states` times as large. Of equal energies any comes first. Clamped spins have their values.

    Args:
        energy: an energy of n spins.
        n_states: how many, up to 2^n.

    Raises:
        ValueError: for a graph that is too wide.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(30, {(k, k + 1): -1.0 for k in range(29)})

        found = tg.exact.lowest(energy, 3)  # two orders of up and down, then one broken bond
        assert found.energies.tolist() == [-29, -29, -27]
        assert jnp.all(found.spins[0] == -found.spins[1])
        ```
    """
    n = energy.n_spins
    n_states = check_count("n_states", n_states, most=2 ** min(n, 30))
    if (model := narrow(energy, gradient=True, n_copies=n_states)) is not None:
        exists, spins = eliminated_lowest(model, n_states)
    else:
        table, index = energies(energy), np.arange(2**n)
        if isinstance(energy, Clamped):
            point = jax.vmap(energy.point)(spins_from_index(index, n))
            table = jnp.where(index_from_spins(point) == index, table, jnp.inf)
        values, found = jax.lax.top_k(-table, n_states)
        exists, spins = jnp.isfinite(values), spins_from_index(found, n).astype(table.dtype)
    return Lowest(jnp.where(exists, jax.vmap(energy)(spins), jnp.inf), spins)


@from_anywhere
def single_flip_minima(
    energy: AbstractEnergy, *, threshold: float = 1e-12
) -> Int[np.ndarray, " minima"]:
    """Indices of the configurations from which every flip raises E by more than `threshold`.

    Args:
        energy: an energy of n <= 24 spins.
        threshold: least rise of E, in energy units. The default suits double precision. Energies
            in single precision want about 1e-6 of their size, or rounding makes minima on plateaus.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert tg.exact.single_flip_minima(energy).tolist() == [0, 7]  # all down, all up
        ```
    """
    table = np.asarray(energies(energy))
    # One spin at a time: all neighbours of 24 spins at once would not fit into memory.
    lowest = np.full_like(table, np.inf)
    for k in range(energy.n_spins):
        np.minimum(lowest, table[flipped(table.size, k)], out=lowest)
    return np.flatnonzero(lowest - table > threshold)


class Retention(NamedTuple):
    """Data that a model holds, and states that it adds.

    Attributes:
        library_mass: Boltzmann weight of all configurations of the data.
        held: number of different configurations of the data that are strict single-flip minima
            of E.
        false_positives: number of strict single-flip minima that are not data.
    """

    library_mass: Float[Array, ""]
    held: Int[Array, ""]
    false_positives: Int[Array, ""]


@from_anywhere
def retention(
    energy: AbstractEnergy,
    beta: Beta,
    data: Num[Array | np.ndarray, "samples n"],
    *,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
) -> Retention:
    """The data that a model still holds, for example along training.

    The result has a fixed shape, so that the function jits.

    Args:
        energy: an energy of n <= 24 spins.
        beta: inverse temperature of retrieval, for the library mass; minima do not depend on it.
        data: configurations of +-1, shape `(samples, n)`; repeated ones count once.
        weights: weight of each sample; a sample of weight 0 does not count, all others count
            alike.

    Raises:
        ValueError: for data of another number of spins, or values other than +-1.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        kept = tg.exact.retention(pair, 1.0, jnp.array([[1.0, 1.0]]))

        assert kept.held == 1 and kept.false_positives == 1  # its mirror image
        ```
    """
    if data.shape[1] != energy.n_spins:
        raise ValueError(
            f"data must have {energy.n_spins} spins a configuration, hidden ones included, got "
            f"{data.shape[1]}"
        )
    if not isinstance(data, Tracer):
        data = validate_spins(data)
    counted = jnp.ones(len(data)) if weights is None else jnp.asarray(as_array("weights", weights))
    if counted.shape != (len(data),):
        raise ValueError(f"weights must have shape ({len(data)},), got {counted.shape}")
    table = energies(energy)
    represented = jnp.zeros(table.size, bool).at[index_from_spins(data)].max(counted > 0)
    lowest = jnp.full_like(table, jnp.inf)
    for k in range(energy.n_spins):
        # Neighbours by flip k, without a table of indices.
        neighbours = table.reshape(-1, 2, 2**k)[:, ::-1].reshape(-1)
        lowest = jnp.minimum(lowest, neighbours)
    threshold = 16 * jnp.finfo(table.dtype).eps * jnp.max(jnp.abs(table))
    minima = lowest - table > threshold
    mass = jnp.sum(jnp.where(represented, jax.nn.softmax(log_weights(table, beta)[1]), 0))
    return Retention(mass, jnp.sum(minima & represented), jnp.sum(minima & ~represented))


@from_anywhere
def barriers(energy: AbstractEnergy, indices: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k k"]:
    """Minimax single-flip barriers between configurations, in energy units.

    Entry (a, b) is the lowest maximum of E along any path of single flips from a to b; the
    diagonal is E itself. Every configuration first descends to the minimum whose basin it lies
    in; the lowest crossings between basins, taken in order of energy, then join the minima.

    Args:
        energy: an energy of n <= 24 spins.
        indices: configurations, for example from `single_flip_minima`, shape `(k,)`.

    Returns:
        Energies of the highest point on the way, shape `(k, k)`, symmetric.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        between = tg.exact.barriers(energy, tg.exact.single_flip_minima(energy))
        assert jnp.allclose(between, jnp.array([[-3, 1], [1, -3]]), atol=1e-5)
        ```
    """
    table, indices = np.asarray(energies(energy)), np.asarray(as_array("indices", indices))
    basin = _basins(table, energy.n_spins)
    roots, basin = np.unique(basin, return_inverse=True)
    first, second, height = _crossings(table, basin, energy.n_spins)
    between = _join(len(roots), first, second, height)
    own = np.maximum.outer(table[indices], table[indices])
    result = np.maximum(between[np.ix_(basin[indices], basin[indices])], own)
    np.fill_diagonal(result, table[indices])
    return result


def flipped(size: int, k: int) -> Int[np.ndarray, " configurations"]:
    """Index of every configuration with spin k flipped."""
    return np.arange(size) ^ (1 << k)


def _basins(table: np.ndarray, n: int) -> Int[np.ndarray, " configurations"]:
    """The minimum that steepest descent reaches from every configuration; ties go by index."""
    lowest = np.arange(table.size)
    for k in range(n):
        other = flipped(table.size, k)
        lower = (table[other] < table[lowest]) | (
            (table[other] == table[lowest]) & (other < lowest)
        )
        lowest = np.where(lower, other, lowest)
    while not np.array_equal(further := lowest[lowest], lowest):
        lowest = further
    return lowest


def _crossings(table: np.ndarray, basin: np.ndarray, n: int):
    """Every flip that leads from one basin to another, and the energy it costs to get there."""
    first, second, height = [], [], []
    for k in range(n):
        other = flipped(table.size, k)
        rows = np.flatnonzero(basin < basin[other])
        first.append(basin[rows])
        second.append(basin[other[rows]])
        height.append(np.maximum(table[rows], table[other[rows]]))
    return np.concatenate(first), np.concatenate(second), np.concatenate(height)


def _join(count: int, first: np.ndarray, second: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Minimax height between any two of `count` basins: Kruskal's union of sets, lowest first."""
    between = np.full((count, count), -np.inf)
    members = [np.array([i]) for i in range(count)]
    owner = np.arange(count)
    # The lowest crossing of each pair of basins is enough.
    order = np.lexsort((height, second, first))
    first, second, height = first[order], second[order], height[order]
    lowest = np.ones(len(first), bool)
    lowest[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second, height = first[lowest], second[lowest], height[lowest]
    for edge in np.argsort(height, kind="stable"):
        a, b = owner[first[edge]], owner[second[edge]]
        if a == b:
            continue
        between[np.ix_(members[a], members[b])] = height[edge]
        between[np.ix_(members[b], members[a])] = height[edge]
        members[a] = np.concatenate([members[a], members[b]])
        owner[members[b]] = a
    return between
