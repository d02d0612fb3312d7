"""Whitening of pairwise couplings by the data, as an optax transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..energies import Pairwise
from ._objectives import Samples

# Added to all variances; steps on the digits and on strong couplings depend on it by a tenth.
_DAMPING = 0.1


class WhitenedState(NamedTuple):
    """What the data say, read at the first step, and the state of the inner transformation.

    Attributes:
        means: of the spins, shape `(n,)`.
        axes: eigenvectors of their covariance matrix, shape `(n, n)`.
        widths: root of the curvature along each pair of axes, shape `(n, n)`.
        inner: state of the inner transformation.
        step: number of updates.
    """

    means: Float[Array, " n"]
    axes: Float[Array, "n n"]
    widths: Float[Array, "n n"]
    inner: PyTree
    step: Array


def whitened(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run a transformation in variables in which pseudolikelihood starts with unit curvature.

    At zero couplings `Pseudolikelihood` and `MinimumProbabilityFlow` of a `Pairwise` energy have
    the Hessian `J -> (C J + J C)/2`, with C the covariance matrix of the data, if fields act on
    spins that are counted from their means. In the eigenbasis of C it is diagonal, with elements
    `(l_i + l_j)/2`, so that its root costs a few products of n x n matrices. L-BFGS inside takes
    a quarter of the steps at strong couplings. Gradients of all other energies go to the inner
    transformation as they are.

    Each axis gets 0.1 more than its variance: where the data hardly vary, a penalty and the
    saturation of the conditionals rule. `fit` passes the data on as `samples`. For example
    `optax.chain(thermogen.learning.whitened(optax.scale_by_lbfgs()), optax.scale(-1.0), search)`
    with a line search of optax, which is the default of both objectives.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> PyTree:
        if not isinstance(params, Pairwise):
            return inner.init(params)
        matrix = jnp.zeros_like(params.couplings)
        return WhitenedState(
            jnp.zeros_like(params.fields), matrix, matrix, inner.init(params), jnp.array(0)
        )

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, samples: Samples, **extra: Any
    ) -> Any:
        if not isinstance(updates, Pairwise):
            return inner.update(updates, state, params, samples=samples, **extra)
        means, axes, widths = jax.lax.cond(
            state.step == 0, lambda: _curvature(samples), lambda: state[:3]
        )

        def scaled(matrix, factors):
            return axes @ (factors * (axes.T @ matrix @ axes)) @ axes.T

        # Energies are functions of (J, h), the inner transformation moves (widths J, h + J m).
        across = jnp.outer(updates.fields, means)
        inner_gradient = Pairwise(
            scaled(updates.couplings - (across + across.T) / 2, 1 / widths), updates.fields
        )
        inner_params = Pairwise(
            scaled(params.couplings, widths), params.fields + params.couplings @ means
        )
        moved, inner_state = inner.update(
            inner_gradient, state.inner, inner_params, samples=samples, **extra
        )
        couplings = scaled(moved.couplings, 1 / widths)
        changes = Pairwise(couplings, moved.fields - couplings @ means)
        return changes, WhitenedState(means, axes, widths, inner_state, state.step + 1)

    # Named arguments of its own are what the extra arguments are for.
    rule: Any = update
    return optax.GradientTransformationExtraArgs(init, rule)


def _curvature(samples: Samples) -> tuple[Array, Array, Array]:
    """Means, principal axes, and the root of the curvature along each pair of axes."""
    means = samples.mean(samples.spins)
    centred = samples.spins - means
    variances, axes = jnp.linalg.eigh(centred.T @ (samples.weights[:, None] * centred))
    curvatures = (variances[:, None] + variances[None, :]) / 2 + _DAMPING
    return means, axes, jnp.sqrt(jnp.maximum(curvatures, _DAMPING))


# Made once: a new transformation object would compile anew.
WHITENED_LBFGS = optax.chain(
    whitened(optax.scale_by_lbfgs()),
    optax.scale(-1.0),
    optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),
)
