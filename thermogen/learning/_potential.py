"""The constructed potential: `A({E_i}, T)`, its Legendre transform, and the gap between the two.

Tables of energies may be those of single configurations or, after `coarse_grain`, the free
energies of sets of them: the same functions apply. An infinite energy excludes its entry.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from .. import exact
from .._checks import as_array
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta, Key, Temperature
from ..energies import RBM, AbstractEnergy, constrain, n_visible, visible_free_energy
from ..spins import enumerate_spins
from ._objectives import LBFGS, AbstractObjective, Defaults, Samples, checked_samples

Table = Num[Array | np.ndarray, " entries"]

_MAX_SPINS = 20
# Up to this relative deviation of x from p a series replaces `x ln(x/p) - x + p`.
_NEAR = 0.1
# atanh(v) = v + v^3 (1/3 + v^2/5 + ...), highest power first; exact to rounding for |v| < 0.06.
_ATANH = np.array([1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3])


@from_anywhere
def conjoint_potential(energies: Table, temperature: Temperature) -> Float[Array, ""]:
    """`A = -T ln sum_i exp(-E_i/T)`, in energy units; `min E` as T -> 0.

    Its derivatives are the weights, `dA/dE_i = x_i`, and minus the entropy, `dA/dT = -S`.

    Args:
        energies: E, shape `(entries,)`.
        temperature: T > 0, in energy units.
    """
    lowest = _finite_or_zero(jnp.min(_floating(energies)))
    return lowest - temperature * jax.nn.logsumexp(_logits(energies, lowest, temperature))


@from_anywhere
def weights(energies: Table, temperature: Temperature) -> Float[Array, " entries"]:
    """Boltzmann weights `x_i = dA/dE_i = exp((A - E_i)/T)`, shape `(entries,)`; they sum to 1.

    Args:
        energies: E, shape `(entries,)`.
        temperature: T > 0, in energy units.
    """
    return jnp.exp(_log_weights(energies, temperature))


@from_anywhere
def legendre_potential(weights: Table, temperature: Temperature) -> Float[Array, ""]:
    """`A~ = T sum_i x_i ln x_i`, with `0 ln 0 = 0`: `A - sum_i x_i E_i` at the weights of E.

    Args:
        weights: x >= 0 with sum 1, shape `(entries,)`.
        temperature: T > 0, in energy units.
    """
    return jnp.sum(jax.scipy.special.entr(_floating(weights))) * -temperature


@from_anywhere
def gibbs_gap(weights: Table, energies: Table, temperature: Temperature) -> Float[Array, ""]:
    """`sum_i x_i E_i + T sum_i x_i ln x_i - A = T KL(x || p) >= 0`, in energy units.

    Summed as `T sum_i [x_i ln(x_i/p_i) - x_i + p_i]`, of which no term is negative, so that it
    keeps its relative precision as x approaches the Boltzmann weights p. Its derivatives are
    `x_i - p_i` by E_i and, up to a constant along the simplex, `T ln(x_i/p_i)` by x_i.

    Args:
        weights: x >= 0 with sum 1, shape `(entries,)`.
        energies: E, shape `(entries,)`.
        temperature: T > 0, in energy units.

    Returns:
        A scalar; infinite if x has weight on an infinite energy.
    """
    x = _floating(weights)
    return jnp.sum(_divergence(x, _log_weights(energies, temperature))) * temperature


def coarse_grain(
    energies: Table,
    groups: Int[Array | np.ndarray, " entries"],
    n_groups: int,
    temperature: Temperature,
) -> Float[Array, " groups"]:
    """Free energies of sets, `F_g = -T ln sum_{i in g} exp(-E_i/T)`; infinite for an empty set.

    The sets as entries have the same A, weights that are sums over each set, and a Gibbs gap
    that is at most the one of the full table.

    Args:
        energies: E, shape `(entries,)`.
        groups: the set of each entry, `0 <= groups < n_groups`, shape `(entries,)`.
        n_groups: number of sets.
        temperature: T > 0, in energy units.

    Returns:
        F in energy units, shape `(n_groups,)`.

    Raises:
        ValueError: if an entry names no set (where the values are known, outside jit).
    """
    groups = jnp.asarray(as_array("groups", groups))
    if not isinstance(groups, Tracer) and not jnp.all((groups >= 0) & (groups < n_groups)):
        raise ValueError(f"groups must lie in 0..{n_groups - 1}")
    table = _floating(energies)
    lowest = _finite_or_zero(jax.ops.segment_min(table, groups, n_groups))
    boltzmann = jnp.exp(_logits(table, lowest[groups], temperature))
    total = jax.ops.segment_sum(boltzmann, groups, n_groups)
    occupied = total > 0
    return jnp.where(
        occupied, lowest - temperature * jnp.log(jnp.where(occupied, total, 1)), jnp.inf
    )


@from_anywhere
def potential(
    energy: AbstractEnergy,
    beta: Beta,
    data: Num[Array | np.ndarray, "batch visible"],
    *,
    weights: Num[Array | np.ndarray, " batch"] | None = None,
) -> Float[Array, ""]:
    """`<E>_data - A(model)`, with A exact: the negative log-likelihood per sample over beta.

    Any optax optimiser minimises it over the parameters of the energy: they are constrained
    inside, and the gradient is exact. Hidden spins are summed out of the data term. Convex in the
    parameters of a fully visible energy.

    Args:
        energy: an energy of n <= 24 spins, hidden ones included; an `RBM` in one of its layers.
        beta: inverse temperature.
        data: samples of +-1, shape `(batch, n_visible(energy))`.
        weights: weight of each sample, >= 0 and relative; equal where None.

    Returns:
        A scalar in energy units; times beta it is in nats.

    Raises:
        ValueError: for data of wrong shape, or known values other than +-1.
    """
    data = jnp.asarray(checked_samples(energy, data))
    allowed = constrain(energy)
    of_data = jax.vmap(lambda s: visible_free_energy(allowed, beta, s))(data)
    if weights is not None:
        weights = jnp.asarray(weights, of_data.dtype)
    of_data = jnp.average(of_data, weights=weights)
    return of_data - exact.free_energy(allowed, beta)


class ExactLikelihood(AbstractObjective):
    """The exact negative log-likelihood at beta = 1: `potential`, with weights of the samples.

    For n <= 20 spins, and for an `RBM` with one layer of at most 20 spins.

    Gradient contract: exact, by enumeration in each step. Convex in the parameters of fully
    visible energies; those of data on the edge of what the energy can represent run to infinity,
    and the fit ends where the gradient meets the tolerance.
    """

    @property
    def defaults(self) -> Defaults:
        return Defaults(LBFGS, 3000, 1e-5)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        layered = isinstance(energy, RBM)
        n = min(energy.n_visible, energy.n_hidden) if layered else energy.n_spins
        if n > _MAX_SPINS:
            raise ValueError(
                f"energy must have at most {_MAX_SPINS} spins for ExactLikelihood, an RBM in one "
                f"of its layers, got {energy.n_spins}, {n_visible(energy)} of them visible"
            )

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        return batch.free_energy(energy) + exact.log_partition(energy, 1.0), None


@from_anywhere
def generating_function(
    energy: AbstractEnergy,
    observables: Num[Array | np.ndarray, "k configurations"]
    | Sequence[Callable[[Float[Array, " n"]], Num[Array, ""]]],
    sources: Float[Array | np.ndarray, " k"],
    beta: Beta,
) -> Float[Array, ""]:
    """`ln Z(lambda) = ln sum_i exp(-beta E_i + sum_k lambda_k O_k(i))`, in nats.

    By the sources, the gradient is the means `<O_k>` and the Hessian their covariances, in the
    ensemble with those sources; higher derivatives are the higher cumulants.

    Args:
        energy: an energy of n <= 24 spins.
        observables: values at every configuration, shape `(k, 2**n)`, or k functions of one
            configuration of spins, shape `(n,)`, that return a scalar.
        sources: lambda, in units of one over the observable, shape `(k,)`.
        beta: inverse temperature.

    Raises:
        ValueError: if the table has not one value for each configuration.
    """
    size = 2**energy.n_spins
    if isinstance(observables, Sequence):
        spins = jnp.asarray(enumerate_spins(energy.n_spins), float)
        table = jnp.stack([jax.vmap(observable)(spins) for observable in observables])
    else:
        table = jnp.asarray(as_array("observables", observables))
    if table.shape[1] != size:
        raise ValueError(f"observables must have shape (k, {size}), got {table.shape}")
    return jax.nn.logsumexp(-beta * exact.energies(energy) + dot(sources, table))


def _log_weights(energies: Table, temperature: Temperature) -> Float[Array, " entries"]:
    lowest = _finite_or_zero(jnp.min(_floating(energies)))
    return jax.nn.log_softmax(_logits(energies, lowest, temperature))


def _logits(energies: Table, reference: Array, temperature: Temperature) -> Array:
    """`-(E - reference)/T`, with derivatives that are finite where E is not."""
    table = _floating(energies)
    finite = jnp.isfinite(table)
    return jnp.where(finite, -(jnp.where(finite, table, 0) - reference) / temperature, -jnp.inf)


def _floating(table: Table) -> Float[Array, " entries"]:
    table = jnp.asarray(as_array("energies", table))
    return table if jnp.issubdtype(table.dtype, jnp.floating) else table.astype(float)


def _finite_or_zero(lowest: Array) -> Array:
    """A reference that drops out of the result, so that nothing is differentiated by it."""
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(lowest), lowest, 0))


def _divergence(
    x: Float[Array, " entries"], log_p: Float[Array, " entries"]
) -> Float[Array, " entries"]:
    """`x ln(x/p) - x + p >= 0`, to a relative precision of rounding also where x is close to p."""
    p = jnp.exp(log_p)
    near = jnp.abs(x - p) < _NEAR * p
    # With v = (x-p)/(x+p): x/p = (1+v)/(1-v) and ln(x/p) = 2 atanh(v).
    v = jnp.where(near, x - p, 0) / jnp.where(near, x + p, 1)
    series = (
        2 * p * (v**2 + (1 + v) * v**3 * jnp.polyval(jnp.asarray(_ATANH, v.dtype), v**2)) / (1 - v)
    )
    used = (x > 0) & ~near
    far_x = jnp.where(used, x, 1)
    far = jnp.where(used, far_x * (jnp.log(far_x) - jnp.where(used, log_p, 0)) - x, 0) + p
    return jnp.where(near, series, far)
