"""Ensembles, exactly: the ground truth.

Up to 24 spins a function makes a table of all 2^n energies by one Walsh transform. Beyond, and
where it is cheaper, it eliminates spin after spin, which takes an energy whose graph of
interactions is narrow; `cost` tells. All functions are differentiable in the parameters and in
beta. They are right from beta -> 0 to beta -> infinity, where the lowest configurations share all
probability.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from .._checks import check_count, check_finite, check_parameters, check_sites, known_spins
from .._cold import above_lowest, beta_as, resolved_beta
from .._linalg import dot
from .._placement import from_anywhere
from .._split import in_parts, keeps_split
from .._types import Beta, Key
from ..energies import AbstractEnergy, Complete, Layers, complete, layers
from ..spins import enumerate_spins, spins_from_index
from . import _narrow
from ._cost import narrow
from ._layers import layered_log_partition


@keeps_split
def energies(energy: AbstractEnergy) -> Float[Array, " configurations"]:
    """The energy of every configuration, shape `(2**n,)`; row i is configuration i.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert jnp.allclose(tg.exact.energies(energy), jnp.array([-3, 1, 1, 1, 1, 1, 1, -3]))
        ```
    """
    return _table(energy).energies()


def _table(energy: AbstractEnergy) -> Complete:
    check_parameters(energy)
    return complete(energy)


def checked_beta(beta: Beta, *, positive: bool = False) -> Beta:
    """Beta, if it is one number, finite where it is known."""
    if np.ndim(beta) != 0:
        raise ValueError(
            f"beta must be one number, got shape {np.shape(beta)}; use jax.vmap for many"
        )
    check_finite("beta", beta, positive=positive)
    return beta


def log_weights(
    table: Float[Array, " configurations"],
    beta: Beta,
    where: Bool[Array | np.ndarray, " configurations"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, " configurations"]]:
    """The lowest energy of a table, and `-beta (E - lowest)`: differences first.

    Minus infinity outside `where`. A traced beta that is infinite counts as the largest float.
    """
    lowest, above = above_lowest(table, where)
    logits = -beta_as(checked_beta(beta), table.dtype) * above
    logits = logits if where is None else jnp.where(where, logits, -jnp.inf)
    return jnp.asarray(lowest), logits


@keeps_split
def log_partition(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """`ln Z = ln sum_i exp(-beta E_i)`.

    For an energy of two `layers`, such as an RBM, the smaller layer alone is enumerated, up to 24
    spins of it, and the other is summed out in closed form.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        z = 2 * jnp.exp(3.0) + 6 * jnp.exp(-1.0)
        assert jnp.isclose(tg.exact.log_partition(energy, 1.0), jnp.log(z))
        ```
    """
    pair = layers(energy)
    if pair is not None:
        cold, value = _layered(energy, pair, beta)
        # Beyond the largest beta that is resolved its free energy does not change.
        return value * jnp.maximum(beta_as(beta, cold.dtype) / jnp.where(cold == 0, 1, cold), 1)
    if (model := narrow(energy)) is not None:
        return _narrow.log_partition(model, checked_beta(beta))
    return _log_partition(_table(energy), checked_beta(beta))


@in_parts
def _log_partition(energy: Complete, beta: Beta) -> Float[Array, ""]:
    lowest, logits = log_weights(energy.energies(), beta)
    return jax.nn.logsumexp(logits) - beta_as(beta, logits.dtype) * lowest


@keeps_split
def free_energy(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """`F = -ln Z / beta`, in energy units.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.isclose(tg.exact.free_energy(pair, 2.0), -jnp.log(4 * jnp.cosh(2.0)) / 2)
        ```
    """
    pair = layers(energy)
    if pair is not None:
        cold, value = _layered(energy, pair, beta)
        return -value / cold
    if (model := narrow(energy)) is not None:
        return _narrow.free_energy(model, checked_beta(beta))
    return _free_energy(_table(energy), checked_beta(beta))


@in_parts
def _free_energy(energy: Complete, beta: Beta) -> Float[Array, ""]:
    lowest, logits = log_weights(energy.energies(), beta)
    return lowest - jax.nn.logsumexp(logits) / beta_as(beta, logits.dtype)


def _layered(
    energy: AbstractEnergy, pair: Layers, beta: Beta
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    check_parameters(energy)
    cold = resolved_beta(energy, beta_as(checked_beta(beta), pair.weights.dtype))
    return cold, layered_log_partition(pair, cold)


@keeps_split
def probabilities(energy: AbstractEnergy, beta: Beta) -> Float[Array, " configurations"]:
    """Boltzmann probabilities `exp(-beta E_i)/Z`, shape `(2**n,)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert jnp.isclose(jnp.sum(tg.exact.probabilities(energy, 0.5)), 1)
        ```
    """
    return _probabilities(_table(energy), checked_beta(beta))


@in_parts
def _probabilities(energy: Complete, beta: Beta) -> Float[Array, " configurations"]:
    return jax.nn.softmax(log_weights(energy.energies(), beta)[1])


@keeps_split
def mean_energy(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """`<E>`, in energy units.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.isclose(tg.exact.mean_energy(pair, 0.5), -jnp.tanh(0.5))
        ```
    """
    if (model := narrow(energy)) is not None:
        return _narrow.mean_energy(model, checked_beta(beta))
    return _mean_energy(_table(energy), checked_beta(beta))


@in_parts
def _mean_energy(energy: Complete, beta: Beta) -> Float[Array, ""]:
    table = energy.energies()
    return jnp.sum(jax.nn.softmax(log_weights(table, beta)[1]) * table)


@keeps_split
def entropy(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """`S = -sum_i p_i ln p_i`, in nats.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.isclose(tg.exact.entropy(pair, 0.0), 2 * jnp.log(2.0))
        ```
    """
    if (model := narrow(energy)) is not None:
        return _narrow.entropy(model, checked_beta(beta))
    return _entropy(_table(energy), checked_beta(beta))


@in_parts
def _entropy(energy: Complete, beta: Beta) -> Float[Array, ""]:
    log_p = jax.nn.log_softmax(log_weights(energy.energies(), beta)[1])
    p = jnp.exp(log_p)
    return -jnp.sum(p * jnp.where(p > 0, log_p, 0))


@keeps_split
def heat_capacity(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """`C = d<E>/dT = beta^2 (<E^2> - <E>^2)`, dimensionless.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.isclose(tg.exact.heat_capacity(pair, 0.5), (0.5 / jnp.cosh(0.5)) ** 2)
        ```
    """
    if (model := narrow(energy)) is not None:
        return _narrow.heat_capacity(model, checked_beta(beta))
    return _heat_capacity(_table(energy), checked_beta(beta))


@in_parts
def _heat_capacity(energy: Complete, beta: Beta) -> Float[Array, ""]:
    logits = log_weights(energy.energies(), beta)[1]
    p = jax.nn.softmax(logits)
    logits = jnp.where(p > 0, logits, 0)
    return jnp.sum(p * jnp.square(logits - jnp.sum(p * logits)))


@keeps_split
def magnetizations(energy: AbstractEnergy, beta: Beta) -> Float[Array, " n"]:
    """`<s_k>`, shape `(n,)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        free = tg.Pairwise(jnp.zeros((3, 3)), jnp.full(3, 0.5))
        assert jnp.allclose(tg.exact.magnetizations(free, 2.0), jnp.tanh(1.0))
        ```
    """
    if (model := narrow(energy, gradient=True)) is not None:
        return _narrow.magnetizations(model, checked_beta(beta))
    return _moments(_table(energy), checked_beta(beta))[0]


@keeps_split
def correlations(energy: AbstractEnergy, beta: Beta) -> Float[Array, "n n"]:
    """`<s_i s_j>`, not connected, shape `(n, n)`; the diagonal is 1.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})

        # Along a chain the correlation of neighbours is tanh(beta J).
        assert jnp.isclose(tg.exact.correlations(energy, 0.5)[0, 2], jnp.tanh(0.5) ** 2)
        ```
    """
    if (model := narrow(energy, gradient=True)) is not None:
        return _narrow.correlations(model, checked_beta(beta))
    return _moments(_table(energy), checked_beta(beta))[1]


@from_anywhere
def marginal(
    energy: AbstractEnergy, beta: Beta, spins: tuple[int, ...]
) -> Float[Array, " marginal"]:
    """Distribution of a few spins, all others summed out, shape `(2**len(spins),)`.

    Spin `spins[j]` is bit j of the index. Beyond 24 spins each entry takes a sum of its own.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert jnp.allclose(tg.exact.marginal(pair, 1.0, (1,)), 0.5)
        ```
    """
    n = energy.n_spins
    chosen = check_sites("spins", spins, n)
    if (model := narrow(energy)) is not None:
        return _narrow.marginal(model, checked_beta(beta), chosen)
    # Axis n-1-k of the cube is bit k; the last axis varies fastest.
    cube = probabilities(energy, beta).reshape((2,) * n)
    kept = [n - 1 - k for k in reversed(chosen)]
    rest = [axis for axis in range(n) if axis not in kept]
    return jnp.sum(jnp.transpose(cube, (*kept, *rest)).reshape(2 ** len(kept), -1), axis=1)


@from_anywhere
def conditional(
    energy: AbstractEnergy, beta: Beta, cue: Num[Array | np.ndarray, "..."]
) -> Float[Array, " configurations"]:
    """Probabilities of all configurations given the values of some spins, shape `(2**n,)`.

    Configurations that contradict the cue have probability 0. Beyond 24 spins `marginal` and all
    averages take the conditional model `energies.Clamped(energy, cue)`.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature.
        cue: +1 or -1 where a spin is known, 0 where it is not, shape `(n,)`.

    Raises:
        ValueError: for a cue of another shape or with other values.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        p = tg.exact.conditional(energy, 1.0, jnp.array([1, 0, 0]))
        assert jnp.isclose(p[7], 1 / (1 + 3 * jnp.exp(-4.0)))  # configuration 7: all spins up
        ```
    """
    table = energies(energy)
    cue = known_spins("cue", cue, energy.n_spins, table.dtype)
    index, allowed = np.arange(len(table)), jnp.ones(len(table), bool)
    for k in range(energy.n_spins):
        allowed &= (cue[k] == 0) | (cue[k] == 2 * (index >> k & 1) - 1)
    return jax.nn.softmax(log_weights(table, beta, allowed)[1])


@from_anywhere
def sample(
    energy: AbstractEnergy, beta: Beta, *, key: Key, n_samples: int
) -> Float[Array, "samples n"]:
    """Independent exact samples: spins, shape `(n_samples, n)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        drawn = tg.exact.sample(energy, 5.0, key=jax.random.key(0), n_samples=100)
        assert jnp.all(jnp.abs(drawn.sum(axis=1)) == 3)  # all up or all down
        ```
    """
    n_samples = check_count("n_samples", n_samples)
    if (model := narrow(energy, gradient=True)) is not None:
        return _narrow.sample(model, checked_beta(beta), key, n_samples)
    cumulative = jnp.cumsum(probabilities(energy, beta))
    dice = jax.random.uniform(key, (n_samples,), cumulative.dtype) * cumulative[-1]
    index = jnp.searchsorted(cumulative, dice, side="right")
    return spins_from_index(index, energy.n_spins).astype(cumulative.dtype)


@from_anywhere
def density_of_states(
    energy: AbstractEnergy, n_bins: int
) -> tuple[Float[Array, " bins"], Float[Array, " edges"]]:
    """Number of configurations in equal bins of energy: counts `(n_bins,)`, edges `(n_bins+1,)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        counts, edges = tg.exact.density_of_states(pair, 2)

        assert counts.tolist() == [2, 2] and edges.tolist() == [-1, 0, 1]
        ```
    """
    counts, edges = jnp.histogram(energies(energy), bins=check_count("n_bins", n_bins))
    return counts.astype(edges.dtype), edges


class Reduction(NamedTuple):
    """The loss where an energy with fewer couplings takes the place of another.

    Attributes:
        lost_norm: root of the summed squares of the lost couplings; by Parseval the
            root-mean-square error of E over all configurations, in energy units.
        largest_energy_error: largest error of E at any configuration, in energy units.
        library_mass: Boltzmann weight of the library under the full energy.
        library_mass_kept: Boltzmann weight of the library under the reduced energy.
    """

    lost_norm: Float[Array, ""]
    largest_energy_error: Float[Array, ""]
    library_mass: Float[Array, ""]
    library_mass_kept: Float[Array, ""]


@from_anywhere
def reduction(
    full: AbstractEnergy,
    reduced: AbstractEnergy,
    beta: Beta,
    library: Int[Array | np.ndarray, " states"],
) -> Reduction:
    """Compare an energy with its truncation, for example `full.truncate(2)`.

    Args:
        full: an energy of n <= 24 spins.
        reduced: another energy of the same spins.
        beta: inverse temperature.
        library: indices of the configurations whose weight counts as kept, shape `(states,)`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        full = tg.energies.complete(pair)
        lost = tg.exact.reduction(full, full.truncate(1), 1.0, jnp.array([0, 3]))

        assert lost.lost_norm == 1.0 and jnp.isclose(lost.library_mass_kept, 0.5)
        ```
    """
    if full.n_spins != reduced.n_spins:
        raise ValueError(f"reduced must have {full.n_spins} spins, got {reduced.n_spins}")
    before, after = energies(full), energies(reduced)
    error = before - after
    return Reduction(
        jnp.sqrt(jnp.mean(jnp.square(error))),
        jnp.max(jnp.abs(error)),
        jnp.sum(jax.nn.softmax(log_weights(before, beta)[1])[library]),
        jnp.sum(jax.nn.softmax(log_weights(after, beta)[1])[library]),
    )


@in_parts
def _moments(energy: Complete, beta: Beta) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """`<s_i>` and `<s_i s_j>`, from sums over the spins of either half of the index."""
    p = _probabilities(energy, beta)
    n_low = energy.n_spins // 2
    low, high = (enumerate_spins(k).astype(p.dtype) for k in (n_low, energy.n_spins - n_low))
    table = p.reshape(-1, 2**n_low)
    # Sums, where products of matrices would have to say on which devices their results lie.
    of_low, of_high = jnp.sum(table, axis=0), jnp.sum(table, axis=1)[:, None]
    across = jnp.sum(high[:, None, :] * dot(table, low)[:, :, None], axis=0)
    within = jnp.sum(high[:, None, :] * (of_high * high)[:, :, None], axis=0)
    pairs = jnp.block([[dot(low.T, of_low[:, None] * low), across], [across.T, within]])
    return jnp.concatenate([dot(of_low, low), jnp.sum(of_high * high, axis=0)]), pairs
