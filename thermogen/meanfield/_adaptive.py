"""Adaptive TAP: the Onsager reaction from the linear response of the couplings at hand."""

import functools

import jax
import jax.numpy as jnp
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
    it bounds nothing. The l_i cost some Cholesky factorisations of J's size at every call.
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
    couplings = 0.5 * (energy.couplings + energy.couplings.T)
    return couplings - jnp.diag(jnp.diagonal(couplings))


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
    """The l for which `(diag(l) - V^(1/2) K V^(1/2))^-1` has a diagonal of ones; shape `(n,)`.

    They maximise a concave, self-concordant function, so that Newton steps shortened to
    1 / (1 + decrement) cannot leave its domain (Nesterov and Nemirovskii 1994).
    """
    root = jnp.sqrt(v)
    scaled = root[:, None] * k * root[None, :]

    def unfinished(state):
        _, decrement, n_steps = state
        # The decrement is that before the last step, which squares it.
        return (decrement > jnp.sqrt(jnp.finfo(v.dtype).eps)) & (n_steps < _MAX_STEPS)

    def newton(state):
        precisions, _, n_steps = state
        inverse = jnp.linalg.inv(jnp.diag(precisions) - scaled)
        slope = jnp.diagonal(inverse) - 1
        step = jnp.linalg.solve(jnp.square(inverse), slope)
        decrement = jnp.sqrt(jnp.maximum(dot(slope, step), 0))
        return precisions + step / (1 + decrement), decrement, n_steps + 1

    # Diagonally dominant, so inside the domain.
    start = 1 + jnp.sum(jnp.abs(scaled), axis=1)
    return jax.lax.while_loop(unfinished, newton, (start, jnp.ones((), v.dtype), 0))[0]


@relative_precisions.defjvp
def _(primals, tangents):
    """Of `diag((diag(l) - V K)^-1) = 1`: implicit, and regular at v = 0."""
    (k, v), (k_dot, v_dot) = primals, tangents
    precisions = relative_precisions(k, v)
    inverse = jnp.linalg.inv(jnp.diag(precisions) - v[:, None] * k)
    change = v_dot[:, None] * k + v[:, None] * k_dot
    push = jnp.sum(dot(inverse, change) * inverse.T, axis=1)
    return precisions, jnp.linalg.solve(inverse * inverse.T, push)
