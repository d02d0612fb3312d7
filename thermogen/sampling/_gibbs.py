"""Heat-bath (Gibbs) updates: one sweep leaves the Boltzmann distribution invariant."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Beta, Key, Spins
from ..energies import RBM, AbstractMultilinear
from ..energies._base import as_float


@functools.singledispatch
def gibbs_sweep(
    energy: AbstractMultilinear, spins: Spins, beta: Beta, key: Key
) -> Float[Array, " n"]:
    """Draw every spin once from its conditional distribution given the others.

    `P(s_k = 1 | rest) = 1 / (1 + exp(-2 beta h_k))` with the local field h_k. Spins are visited in
    order; the two layers of an RBM are drawn as two blocks. Open for extension:
    `gibbs_sweep.register(YourEnergy)`.

    Args:
        energy: a multilinear energy of n spins.
        spins: one configuration, shape `(n,)`.
        beta: inverse temperature.
        key: random key.

    Returns:
        The next configuration, shape `(n,)`.
    """
    spins = as_float(spins)
    uniform = jax.random.uniform(key, spins.shape, spins.dtype)

    def update(k, s):
        unit = jnp.zeros_like(s).at[k].set(1)
        _, slope = jax.jvp(energy, (s,), (unit,))
        return s.at[k].set(_draw(uniform[k], -slope, beta))

    return jax.lax.fori_loop(0, spins.size, update, spins)


@gibbs_sweep.register
def _(energy: RBM, spins: Spins, beta: Beta, key: Key) -> Float[Array, " n"]:
    spins = as_float(spins)
    visible, _ = energy.split(spins)
    uniform_visible, uniform_hidden = energy.split(
        jax.random.uniform(key, spins.shape, spins.dtype)
    )
    hidden = _draw(uniform_hidden, energy.hidden_fields + visible @ energy.weights, beta)
    visible = _draw(uniform_visible, energy.visible_fields + energy.weights @ hidden, beta)
    return jnp.concatenate([visible, hidden])


def _draw(uniform, field, beta: Beta):
    return jnp.where(uniform < jax.nn.sigmoid(2 * beta * field), 1.0, -1.0).astype(uniform.dtype)
