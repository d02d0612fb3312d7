"""The centred gradient of a restricted Boltzmann machine, as an optax transformation."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._linalg import dot
from ..energies import RBM, Mixture


def centred_gradient(field_rate: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Gradients by the parameters of spins counted from their means; for an `RBM`, or many.

    In `E = -(v - mu) W (h - lambda) - a' v - b' h` weights and fields no longer do each other's
    work, which is most of what the natural gradient achieves (Montavon and Müller 2012; Melchior,
    Fischer and Wiskott 2016, eqs. 11-14). mu are the means of the data, which `fit` passes on as
    `means`, and `lambda = tanh(b + mu W)`. The step is expressed in the plain parameters again;
    stationary points stay where they are. Gradients of all other energies pass through,
    those of a mixture of machines are centred one by one.

    A hidden spin has one field, but feels the steps of all its weights at once, which add up to
    `sum_i (1 - m_i^2)` times as much, 34 times on the digits. At equal rates fields hardly take
    part; at sixteen times the rate of the weights a machine of 64 x 64 spins learns the digits
    faster and generalises better by 0.2 nats. Where the product with the rate of the weights
    exceeds 2, fields overshoot.

    Before Adam it is in vain: that rescales entry by entry. For example
    `optax.chain(thermogen.learning.centred_gradient(), optax.sgd(1e-2))`.

    Args:
        field_rate: rate of the fields relative to that of the weights.

    !!! example

        ```python
        import jax
        import numpy as np
        import optax
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        machine = tg.energies.untrained("rbm:2", data.mean(axis=0), key=jax.random.key(0))
        steps = optax.chain(tg.learning.centred_gradient(), optax.sgd(0.1))
        found = tg.fit(
            tg.PersistentCD(), machine, data, key=jax.random.key(0), optimizer=steps, n_steps=20
        )

        assert found.result == tg.RESULTS.completed
        ```
    """

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        means: Float[Array, " visible"],
        **_,
    ) -> Any:
        return _centred(updates, params, means, field_rate), state

    # Named arguments of its own are what the extra arguments are for.
    rule: Any = update
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), rule)


@functools.singledispatch
def _centred(gradient, params, means, field_rate):
    """The gradient of an energy as it is, unless it has hidden fields to centre."""
    return gradient


@_centred.register
def _(
    gradient: Mixture, params: Mixture, means: Float[Array, " visible"], field_rate: float
) -> Mixture:
    def single(gradient, expert):
        return _centred(gradient, expert, means, field_rate)

    experts = jax.vmap(single)(gradient.experts, params.experts)
    return eqx.tree_at(lambda u: u.experts, gradient, experts)


@_centred.register
def _(gradient: RBM, machine: RBM, means: Float[Array, " visible"], field_rate: float) -> RBM:
    hidden = jnp.tanh(machine.hidden_fields + dot(means, machine.weights))
    by_visible, by_hidden = gradient.visible_fields, gradient.hidden_fields
    weights = gradient.weights - jnp.outer(means, by_hidden) - jnp.outer(by_visible, hidden)
    visible_fields = field_rate * by_visible - dot(weights, hidden)
    return RBM(weights, visible_fields, field_rate * by_hidden - dot(means, weights))
