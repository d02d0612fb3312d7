"""Adaptive TAP: the Onsager reaction from the linear response of the couplings at hand."""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, lu_factor, lu_solve, solve_triangular
from jaxtyping import Array, Float

from .._linalg import dot, inverse, one_by_one
from .._types import Beta, Magnetizations
from ..energies import RBM, AbstractEnergy, Pairwise, terms_for
from ._base import AbstractFunctional

# Steps, and the longest of them in the metric of the determinant.
_MAX_STEPS, _WITHIN = 64, 0.95


class AdaptiveTAP(AbstractFunctional):
    """The adaptive TAP (expectation consistent) free energy at given magnetizations.

    The spins' fluctuations about m are described twice: exactly, without couplings, and as a
    Gaussian with them, and the variances `v_i = 1 - m_i^2` of the two must agree:

        beta G = -S + beta U + (1/2) max_l [ ln det(diag(l) - beta V J) - sum_i (l_i - 1) ],

    V = diag(v). It sums the bubbles (rings) of the high-temperature expansion to all orders, for
    the given J: no average over an ensemble of couplings enters. At weak coupling it is TAP;
    it bounds nothing. The l_i cost five to twenty Newton steps of J's size at every call.
    (Opper and Winther 2001, eq. 24 ff., and 2005.)

    Raises:
        TypeError: at the call, for an energy without `thermogen.energies.terms`, or with terms of
            more than two spins.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        m = jnp.array([0.3, -0.2])
        adaptive, tap = tg.AdaptiveTAP()(pair, 0.05, m), tg.TAP()(pair, 0.05, m)

        assert jnp.isclose(adaptive, tap, rtol=1e-4)  # at weak coupling
        ```
    """

    def excess(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        return energy(m) + gaussians(beta * coupling_matrix(energy), 1 - m * m)[0] / beta


@functools.singledispatch
def coupling_matrix(energy: AbstractEnergy) -> Float[Array, "n n"]:
    """Pair couplings J as a symmetric matrix, shape `(n, n)`, in energy units.

    By the `terms` of an energy unless there is a faster rule,
    `coupling_matrix.register(YourEnergy)`.

    Raises:
        TypeError: for an energy without `terms`, or with terms of more than two spins.
    """
    listed, n = terms_for("AdaptiveTAP", energy, max_order=2), energy.n_spins
    matrix = jnp.zeros((n, n), jnp.result_type(float, *listed.couplings))
    for table, couplings in zip(listed.sets, listed.couplings, strict=True):
        if table.order == 2:
            i, j = table.indices.T
            matrix = matrix.at[i, j].set(couplings).at[j, i].set(couplings)
    return matrix


@coupling_matrix.register
def _(energy: Pairwise) -> Float[Array, "n n"]:
    return energy.matrix


@coupling_matrix.register
def _(energy: RBM) -> Float[Array, "n n"]:
    v = energy.n_visible
    couplings = jnp.zeros((energy.n_spins, energy.n_spins), energy.weights.dtype)
    return couplings.at[:v, v:].set(energy.weights).at[v:, :v].set(energy.weights.T)


@jax.custom_jvp
def gaussians(
    k: Float[Array, "n n"], v: Magnetizations
) -> tuple[Float[Array, ""], Magnetizations, Float[Array, "n n"]]:
    """Gaussians of couplings k and fixed variances v, from one factorisation.

    Returns:
        `-ln` of what the couplings add to the partition function; the reactions r, shape `(n,)`,
        and the response A, shape `(n, n)`: `A = (1 + diag(v) (diag(r) - k))^-1` has a diagonal
        of ones. They are `(l - 1) / v` with the relative precisions l, and regular at v = 0.
    """
    return _gaussians(k, v)


@one_by_one
def _gaussians(k, v):
    precisions = relative_precisions(k, v)
    factors = lu_factor(jnp.diag(precisions) - v[:, None] * k)
    response = lu_solve(factors, jnp.eye(v.size, dtype=v.dtype))
    log_determinant = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factors[0]))))
    # Of A = 1 - V (R - K) A, without the difference l - 1.
    reactions = jnp.sum(k * response.T, axis=1)
    return 0.5 * log_determinant - 0.5 * jnp.sum(precisions - 1), reactions, response


@gaussians.defjvp
def _(primals, tangents):
    """At the maximum the precisions do not move to first order.

    Their own slope is implicit: `dr + W^2 v^2 dr = W^2 dv + diag(A^T dk A)`, W = (R - K) A,
    squared by entries.
    """
    (k, v), (k_dot, v_dot) = primals, tangents
    excess, r, a = gaussians(k, v)
    by_k = -0.5 * jnp.sum((a * v[None, :]).T * k_dot)
    eye = jnp.eye(v.size, dtype=v.dtype)
    squares = jnp.square(dot(jnp.diag(r) - k, a)) * (1 - eye)
    push = dot(squares, v_dot) + jnp.sum(a * dot(k_dot, a), axis=0)
    # An inverse, so that what is linear in the tangents factorises nothing.
    r_dot = dot(inverse(eye + squares * jnp.square(v)[None, :]), push)
    turned = jnp.diag(v_dot * r + v * r_dot) - v_dot[:, None] * k - v[:, None] * k_dot
    return (excess, r, a), (by_k - 0.5 * dot(r, v_dot), r_dot, -dot(a, dot(turned, a)))


def relative_precisions(k: Float[Array, "n n"], v: Magnetizations) -> Magnetizations:
    """The l for which `S = (diag(l) - V^(1/2) K V^(1/2))^-1` has a diagonal of ones; shape `(n,)`.

    Newton steps on `1/S_ii = 1`, which is linear in l but for the reaction of the other spins: from
    the precisions of TAP about five suffice. In the cold these lie near or beyond the edge of the
    domain; then damped Newton steps on the concave maximum of `ln det - sum l`, which never
    leave the domain, come from inside it (Nesterov and Nemirovskii 1994). NaN where they do not
    settle.
    """
    root = jnp.sqrt(v)
    scaled = root[:, None] * k * root[None, :]
    eye = jnp.eye(v.size, dtype=v.dtype)
    tolerance = jnp.sqrt(jnp.finfo(v.dtype).eps)
    inside = jnp.broadcast_to(1 + _spectral_bound(scaled), v.shape)

    def unfinished(state):
        *_, error, n_steps = state
        # The error is that before the last step, which squares it.
        return (error > tolerance) & (n_steps < _MAX_STEPS)

    def newton(state):
        precisions, _, n_steps = state
        half = solve_triangular(jnp.linalg.cholesky(jnp.diag(precisions) - scaled), eye, lower=True)
        covariance = dot(half.T, half)
        variances = jnp.diagonal(covariance)
        error = variances - 1
        both = jnp.stack([error, variances * error], axis=1)
        damped, step = cho_solve(cho_factor(jnp.square(covariance)), both).T
        # Lengths of the steps in the metric of the determinant: its domain holds those below 1.
        far, length = (
            jnp.sqrt(jnp.maximum(dot(x, y), 0)) for x, y in ((damped, error), (step, both[:, 1]))
        )
        shortened = jnp.where(far < 1, jnp.minimum(1, _WITHIN / length) * step, damped / (1 + far))
        near = (far < 2) | ((n_steps > 0) & jnp.isfinite(far))
        error = jnp.where(near, jnp.max(jnp.abs(error), initial=0.0), jnp.inf)
        return jnp.where(near, precisions + shortened, inside), error, n_steps + 1

    state = 1 + jnp.sum(jnp.square(scaled), axis=1), jnp.full((), jnp.inf, v.dtype), 0
    precisions, error, _ = jax.lax.while_loop(unfinished, newton, state)
    return jnp.where(error <= tolerance, precisions, jnp.nan)


def _spectral_bound(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """No eigenvalue of a symmetric matrix is larger: the root of the trace of its eighth power."""
    scale = jnp.max(jnp.sum(jnp.abs(matrix), axis=1), initial=0.0)
    scale = jnp.where(scale > 0, scale, 1)
    square = dot(matrix / scale, matrix / scale)
    return scale * jnp.sum(jnp.square(dot(square, square))) ** 0.125
