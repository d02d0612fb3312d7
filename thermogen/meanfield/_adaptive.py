"""Adaptive TAP: the Onsager reaction from the linear response of the couplings at hand."""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Float

from .._types import Beta, Magnetizations
from ..energies import RBM, AbstractEnergy, Pairwise
from ..energies._linalg import dot
from ._base import AbstractFunctional

_MAX_STEPS = 64


class AdaptiveTAP(AbstractFunctional):
    """The adaptive TAP (expectation consistent) free energy at given magnetizations.

    The spins' fluctuations about m are described twice: exactly, without couplings, and as a
    Gaussian with them, and the variances `v_i = 1 - m_i^2` of the two must agree:

        beta G = -S + beta U + (1/2) max_l [ ln det(diag(l) - beta V J) - sum_i (l_i - 1) ],

    V = diag(v). It sums the bubbles (rings) of the high-temperature expansion to all orders, for
    the given J: no average over an ensemble of couplings enters. At weak coupling it is TAP;
    it bounds nothing. The l_i cost about five Newton steps of J's size at every call.
    (Opper and Winther 2001, eq. 24 ff., and 2005.)

    Raises:
        TypeError: at the call, for an energy that is not `Pairwise` or `RBM`.
    """

    def excess(self, energy: AbstractEnergy, m: Magnetizations, beta: Beta) -> Float[Array, ""]:
        return energy(m) + gaussian_excess(beta * coupling_matrix(energy), 1 - m * m) / beta


@functools.singledispatch
def coupling_matrix(energy: AbstractEnergy) -> Float[Array, "n n"]:
    """Pair couplings J as a symmetric matrix, shape `(n, n)`, in energy units.

    Open for extension: `coupling_matrix.register(YourEnergy)`.

    Raises:
        TypeError: for an energy with other than pair couplings and fields.
    """
    raise TypeError(
        f"AdaptiveTAP needs pair couplings: Pairwise or RBM, got {type(energy).__name__}"
    )


@coupling_matrix.register
def _(energy: Pairwise) -> Float[Array, "n n"]:
    return energy.matrix


@coupling_matrix.register
def _(energy: RBM) -> Float[Array, "n n"]:
    v = energy.n_visible
    couplings = jnp.zeros((energy.n_spins, energy.n_spins), energy.weights.dtype)
    return couplings.at[:v, v:].set(energy.weights).at[v:, :v].set(energy.weights.T)


@jax.custom_jvp
def gaussian_excess(k: Float[Array, "n n"], v: Magnetizations) -> Float[Array, ""]:
    """`-ln` of what couplings k add to the partition function of Gaussians of fixed variances v."""
    precisions = relative_precisions(k, v)
    root = jnp.sqrt(v)
    factor = jnp.linalg.cholesky(jnp.diag(precisions) - root[:, None] * k * root[None, :])
    return jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * jnp.sum(precisions - 1)


@gaussian_excess.defjvp
def _(primals, tangents):
    """At the maximum the precisions do not move to first order."""
    (k, v), (k_dot, v_dot) = primals, tangents
    precisions = relative_precisions(k, v)
    # (diag(l) - V K)^-1, which is regular at v = 0 where a symmetric form is not.
    inverse = jnp.linalg.inv(jnp.diag(precisions) - v[:, None] * k)
    # Half the trace of inverse @ d(-V K), by its two parts.
    by_v = -0.5 * jnp.sum(k * inverse.T, axis=1)
    by_k = -0.5 * jnp.sum((inverse * v[None, :]).T * k_dot)
    return gaussian_excess(k, v), by_k + dot(by_v, v_dot)


@jax.custom_jvp
def relative_precisions(k: Float[Array, "n n"], v: Magnetizations) -> Magnetizations:
    """The l for which `S = (diag(l) - V^(1/2) K V^(1/2))^-1` has a diagonal of ones; shape `(n,)`.

    Newton steps on `1/S_ii = 1`, which is linear in l but for the reaction of the other spins, so
    that about five suffice; they are halved where they would come near the edge of the domain.
    NaN where they do not settle.
    """
    root = jnp.sqrt(v)
    scaled = root[:, None] * k * root[None, :]
    eye = jnp.eye(v.size, dtype=v.dtype)
    tolerance = jnp.sqrt(jnp.finfo(v.dtype).eps)

    def unfinished(state):
        *_, error, n_steps = state
        # The error is that before the last step, which squares it.
        return (error > tolerance) & (n_steps < _MAX_STEPS)

    def newton(state):
        precisions, step, length, error, n_steps = state
        trial = precisions + length * step
        half = solve_triangular(jnp.linalg.cholesky(jnp.diag(trial) - scaled), eye, lower=True)
        inverse = dot(half.T, half)
        variances = jnp.diagonal(inverse)
        # Near the edge of the domain, where variances diverge, steps are worth nothing.
        inside = jnp.all(variances < 4)
        push = variances * (variances - 1)
        new = trial, cho_solve(cho_factor(jnp.square(inverse)), push), 1.0
        old = precisions, step, 0.5 * length
        kept = [jnp.where(inside, a, b) for a, b in zip(new, old, strict=True)]
        error = jnp.where(inside, jnp.max(jnp.abs(variances - 1), initial=0.0), error)
        return *kept, error, n_steps + 1

    # Diagonally dominant, so inside the domain; the first step leads to the precisions of TAP.
    start = 1 + jnp.sum(jnp.abs(scaled), axis=1)
    first = 1 + jnp.sum(jnp.square(scaled), axis=1) - start
    one = jnp.ones((), v.dtype)
    state = start, first, one, one * jnp.inf, 0
    precisions, step, _, error, _ = jax.lax.while_loop(unfinished, newton, state)
    return jnp.where(error <= tolerance, precisions + step, jnp.nan)


@relative_precisions.defjvp
def _(primals, tangents):
    """Of `diag((diag(l) - V K)^-1) = 1`: implicit, and regular at v = 0."""
    (k, v), (k_dot, v_dot) = primals, tangents
    precisions = relative_precisions(k, v)
    inverse = jnp.linalg.inv(jnp.diag(precisions) - v[:, None] * k)
    by_v = dot(inverse * dot(k, inverse).T, v_dot)
    by_k = jnp.sum(dot(inverse, v[:, None] * k_dot) * inverse.T, axis=1)
    return precisions, jnp.linalg.solve(inverse * inverse.T, by_v + by_k)
