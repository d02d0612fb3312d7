"""Thermodynamics of tables of energies: `A({E_i}, beta)`, its Legendre transform, their gap.

Tables of energies may be those of single configurations or, after `coarse_grain`, the free
energies of sets of them: the same functions apply. An infinite energy excludes its entry.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num

from .._checks import as_array
from .._linalg import dot
from .._placement import from_anywhere
from .._split import in_parts, keeps_split
from .._types import Beta
from ..energies import AbstractEnergy
from ..spins import enumerate_spins
from ._ensembles import energies as energies_of

Table = Num[Array | np.ndarray, " entries"]

# Up to this relative deviation of x from p a series replaces `x ln(x/p) - x + p`.
_NEAR = 0.1
# atanh(v) = v + v^3 (1/3 + v^2/5 + ...), highest power first; exact to rounding for |v| < 0.06.
_ATANH = (1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3)


@keeps_split
@in_parts
def conjoint_potential(energies: Table, beta: Beta) -> Float[Array, ""]:
    """`A = -ln sum_i exp(-beta E_i) / beta`, in energy units; `min E` as beta grows.

    Its derivatives are the weights, `dA/dE_i = x_i`, and the entropy, `dA/dbeta = S / beta^2`.

    Args:
        energies: E, shape `(entries,)`.
        beta: inverse temperature, above 0.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energies = jnp.zeros(8)

        assert jnp.isclose(tg.exact.conjoint_potential(energies, 2.0), -jnp.log(8.0) / 2)
        ```
    """
    lowest = _finite_or_zero(jnp.min(_floating(energies)))
    return lowest - jax.nn.logsumexp(_logits(energies, lowest, beta)) / beta


@keeps_split
@in_parts
def boltzmann_weights(energies: Table, beta: Beta) -> Float[Array, " entries"]:
    """`x_i = dA/dE_i = exp(beta (A - E_i))`, shape `(entries,)`; they sum to 1.

    Args:
        energies: E, shape `(entries,)`.
        beta: inverse temperature.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        weights = tg.exact.boltzmann_weights(jnp.array([0.0, jnp.log(3.0)]), 1.0)

        assert jnp.allclose(weights, jnp.array([0.75, 0.25]))
        ```
    """
    return jnp.exp(_log_weights(energies, beta))


@keeps_split
@in_parts
def legendre_potential(weights: Table, beta: Beta) -> Float[Array, ""]:
    """`A~ = sum_i x_i ln x_i / beta`, with `0 ln 0 = 0`: `A - sum_i x_i E_i` at the weights of E.

    Args:
        weights: x >= 0 with sum 1, shape `(entries,)`.
        beta: inverse temperature, above 0.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        weights = jnp.full(4, 0.25)

        assert jnp.isclose(tg.exact.legendre_potential(weights, 2.0), -jnp.log(4.0) / 2)
        ```
    """
    return -jnp.sum(jax.scipy.special.entr(_floating(weights))) / beta


@keeps_split
@in_parts
def gibbs_gap(energies: Table, beta: Beta, weights: Table) -> Float[Array, ""]:
    """`sum_i x_i E_i + sum_i x_i ln x_i / beta - A = KL(x || p) / beta >= 0`, in energy units.

    Summed as `sum_i [x_i ln(x_i/p_i) - x_i + p_i] / beta`, of which no term is negative, so that
    it keeps its relative precision as x approaches the Boltzmann weights p. Its derivatives are
    `x_i - p_i` by E_i and, up to a constant along the simplex, `ln(x_i/p_i) / beta` by x_i.

    Args:
        energies: E, shape `(entries,)`.
        beta: inverse temperature, above 0.
        weights: x >= 0 with sum 1, shape `(entries,)`.

    Returns:
        A scalar; infinite if x has weight on an infinite energy.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energies = jnp.array([0.0, 1.0, 3.0])
        weights = tg.exact.boltzmann_weights(energies, 1.0)

        assert jnp.isclose(tg.exact.gibbs_gap(energies, 1.0, weights), 0, atol=1e-6)
        assert tg.exact.gibbs_gap(energies, 1.0, jnp.full(3, 1 / 3)) > 0
        ```
    """
    x = _floating(weights)
    return jnp.sum(_divergence(x, _log_weights(energies, beta))) / beta


def coarse_grain(
    energies: Table, beta: Beta, groups: Int[Array | np.ndarray, " entries"], n_groups: int
) -> Float[Array, " groups"]:
    """Free energies of sets, `F_g = -ln sum_{i in g} exp(-beta E_i) / beta`; infinite for none.

    The sets as entries have the same A, weights that are sums over each set, and a Gibbs gap
    that is at most the one of the full table.

    Args:
        energies: E, shape `(entries,)`.
        beta: inverse temperature, above 0.
        groups: the set of each entry, `0 <= groups < n_groups`, shape `(entries,)`.
        n_groups: number of sets.

    Returns:
        F in energy units, shape `(n_groups,)`.

    Raises:
        ValueError: if an entry names no set (where the values are known, outside jit).

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energies, groups = jnp.array([0.0, 0.0, 1.0]), jnp.array([0, 0, 1])
        free = tg.exact.coarse_grain(energies, 1.0, groups, 2)

        assert jnp.allclose(free, jnp.array([-jnp.log(2.0), 1.0]))
        ```
    """
    groups = jnp.asarray(as_array("groups", groups))
    if not isinstance(groups, Tracer) and not jnp.all((groups >= 0) & (groups < n_groups)):
        raise ValueError(f"groups must lie in 0..{n_groups - 1}")
    table = _floating(energies)
    lowest = _finite_or_zero(jax.ops.segment_min(table, groups, n_groups))
    boltzmann = jnp.exp(_logits(table, lowest[groups], beta))
    total = jax.ops.segment_sum(boltzmann, groups, n_groups)
    occupied = total > 0
    return jnp.where(occupied, lowest - jnp.log(jnp.where(occupied, total, 1)) / beta, jnp.inf)


@from_anywhere
def generating_function(
    energy: AbstractEnergy,
    beta: Beta,
    observables: Num[Array | np.ndarray, "k configurations"]
    | Sequence[Callable[[Float[Array, " n"]], Num[Array, ""]]],
    sources: Float[Array | np.ndarray, " k"],
) -> Float[Array, ""]:
    """`ln Z(lambda) = ln sum_i exp(-beta E_i + sum_k lambda_k O_k(i))`, in nats.

    By the sources, the gradient is the means `<O_k>` and the Hessian their covariances, in the
    ensemble with those sources; higher derivatives are the higher cumulants.

    Args:
        energy: an energy of n <= 24 spins.
        beta: inverse temperature.
        observables: values at every configuration, shape `(k, 2**n)`, or k functions of one
            configuration of spins, shape `(n,)`, that return a scalar.
        sources: lambda, in units of one over the observable, shape `(k,)`.

    Raises:
        ValueError: if the table has not one value for each configuration.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))


        def log_z(sources):
            return tg.exact.generating_function(pair, 1.0, [lambda s: s[0] * s[1]], sources)


        assert jnp.isclose(jax.grad(log_z)(jnp.zeros(1))[0], jnp.tanh(1.0))
        ```
    """
    size = 2**energy.n_spins
    if isinstance(observables, Sequence):
        spins = jnp.asarray(enumerate_spins(energy.n_spins), float)
        table = jnp.stack([jax.vmap(observable)(spins) for observable in observables])
    else:
        table = jnp.asarray(as_array("observables", observables))
    if table.shape[1] != size:
        raise ValueError(f"observables must have shape (k, {size}), got {table.shape}")
    return jax.nn.logsumexp(-beta * energies_of(energy) + dot(sources, table))


def _log_weights(energies: Table, beta: Beta) -> Float[Array, " entries"]:
    lowest = _finite_or_zero(jnp.min(_floating(energies)))
    return jax.nn.log_softmax(_logits(energies, lowest, beta))


def _logits(energies: Table, reference: Array, beta: Beta) -> Array:
    """`-beta (E - reference)`, with derivatives that are finite where E is not."""
    table = _floating(energies)
    finite = jnp.isfinite(table)
    return jnp.where(finite, -beta * (jnp.where(finite, table, 0) - reference), -jnp.inf)


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
    # Written out: a loop would have to say how a table is split.
    powers = functools.reduce(lambda total, factor: total * v**2 + factor, _ATANH, 0 * v)
    series = 2 * p * (v**2 + (1 + v) * v**3 * powers) / (1 - v)
    used = (x > 0) & ~near
    far_x = jnp.where(used, x, 1)
    far = jnp.where(used, far_x * (jnp.log(far_x) - jnp.where(used, log_p, 0)) - x, 0) + p
    return jnp.where(near, series, far)
