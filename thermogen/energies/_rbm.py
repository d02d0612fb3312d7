"""The restricted Boltzmann machine with +-1 units, as a joint energy of both layers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Num

from .._checks import as_array
from .._cold import log_two_cosh
from .._linalg import dot
from .._types import Beta, Key, Magnetizations, Spins
from ._base import AbstractMultilinear, one_configuration
from ._interactions import Interactions, SpinSets
from ._moments import nonlinear_fourth_cumulant, nonlinear_third_moment, nonlinear_variance
from ._pairwise import bond_cumulant
from ._parameters import as_parameters, parameter_degrees
from ._terms import interactions_of, terms
from ._visible import (
    Layers,
    conditional_field,
    conditional_fields,
    embed,
    layers,
    n_visible,
    visible_free_energy,
)


class RBM(AbstractMultilinear):
    """`E(v, h) = -v . W h - a . v - b . h` for spins `s = concatenate(v, h)`.

    The joint energy is multilinear; what the visible spins alone feel, `visible_free_energy`, is
    not. Products run between the layers only: no matrix over both is ever formed.

    Args:
        weights: W in energy units, shape `(n_visible, n_hidden)`.
        visible_fields: a in energy units, shape `(n_visible,)`.
        hidden_fields: b in energy units, shape `(n_hidden,)`.

    Raises:
        ValueError: if the shapes disagree.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.RBM(jnp.ones((3, 2)), jnp.zeros(3), jnp.zeros(2))
        assert energy.n_spins == 5 and tg.energies.n_visible(energy) == 3
        ```
    """

    weights: Float[Array, "v h"]
    visible_fields: Float[Array, " v"]
    hidden_fields: Float[Array, " h"]

    def __init__(
        self, weights: ArrayLike, visible_fields: ArrayLike, hidden_fields: ArrayLike
    ) -> None:
        w, a, b = as_parameters(
            weights=weights, visible_fields=visible_fields, hidden_fields=hidden_fields
        )
        if a.ndim != 1 or b.ndim != 1 or w.shape != (a.size, b.size):
            raise ValueError(
                "weights, visible_fields and hidden_fields must have shapes (v, h), (v,) and "
                f"(h,), got {w.shape}, {a.shape} and {b.shape}; use jax.vmap for batches"
            )
        self.weights, self.visible_fields, self.hidden_fields = w, a, b

    @classmethod
    def random(
        cls,
        n_hidden: int,
        means: Float[ArrayLike, " v"],
        *,
        key: Key,
        scale: float = 0.01,
    ) -> "RBM":
        """An untrained machine that has the data's means: Gaussian weights, no hidden fields.

        Without visible fields the machine would be symmetric under the global flip, and chains
        would be caught in the mirror image of the data as soon as the weights grow.

        Args:
            n_hidden: number of hidden spins.
            means: mean of each visible spin in the data, shape `(n_visible,)`. A spin that is
                constant there still turns once in 10^4 samples.
            key: random key.
            scale: standard deviation of the weights, in energy units.
        """
        fields = fields_of_means(jnp.asarray(as_array("means", means)))
        weights = scale * jax.random.normal(key, (fields.size, n_hidden), fields.dtype)
        return cls(weights, fields, jnp.zeros(n_hidden, fields.dtype))

    @property
    def n_visible(self) -> int:
        return self.visible_fields.shape[-1]

    @property
    def n_hidden(self) -> int:
        return self.hidden_fields.shape[-1]

    @property
    def n_spins(self) -> int:
        return self.n_visible + self.n_hidden

    def _sizes(self) -> str:
        return f"{self.n_visible} visible and {self.n_hidden} hidden spins"

    def split(
        self, spins: Spins
    ) -> tuple[Num[Array | np.ndarray, " v"], Num[Array | np.ndarray, " h"]]:
        """Visible and hidden part of one configuration or magnetization vector."""
        visible, hidden = jax.lax.split(jnp.asarray(spins), (self.n_visible, self.n_hidden))
        return visible, hidden

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        visible, hidden = self.split(one_configuration(self, spins))
        fields = dot(self.visible_fields, visible) + dot(self.hidden_fields, hidden)
        return -dot(visible, dot(hidden, self.weights.T)) - fields


def fields_of_means(means: Float[Array, " v"]) -> Float[Array, " v"]:
    """Fields that give independent spins these means; constant spins turn once in 10^4 samples."""
    return jnp.arctanh(jnp.clip(means, -0.9998, 0.9998))


@terms.register
def _(energy: RBM) -> Interactions:
    fields = jnp.concatenate([energy.visible_fields, energy.hidden_fields])
    sets = _sites_and_bonds(energy.n_visible, energy.n_hidden)
    return interactions_of(energy.n_spins, sets, [fields, jnp.ravel(energy.weights)])


@functools.lru_cache(maxsize=64)
def _sites_and_bonds(n_visible: int, n_hidden: int) -> tuple[SpinSets, SpinSets]:
    bonds = np.indices((n_visible, n_hidden)).reshape(2, -1).T + [0, n_visible]
    return SpinSets(np.arange(n_visible + n_hidden)[:, None]), SpinSets(bonds)


@layers.register
def _(energy: RBM) -> Layers:
    return Layers(energy.weights, energy.visible_fields, energy.hidden_fields)


@nonlinear_variance.register
def _(energy: RBM, m: Magnetizations) -> Float[Array, ""]:
    visible, hidden = energy.split(1 - m * m)
    return dot(visible, dot(hidden, jnp.square(energy.weights).T))


@nonlinear_third_moment.register
def _(energy: RBM, m: Magnetizations) -> Float[Array, ""]:
    """Each bond to the third power: between two layers there are no triangles."""
    visible, hidden = energy.split(m * (1 - m * m))
    return -4 * dot(visible, dot(energy.weights**3, hidden))


@nonlinear_fourth_cumulant.register
def _(energy: RBM, m: Magnetizations) -> Float[Array, ""]:
    """Each bond to the fourth power, and cycles of four through two visible and two hidden."""
    w = energy.weights
    (m_v, m_h), (v, h) = energy.split(m), energy.split(1 - m * m)
    bonds = bond_cumulant(lambda a, b: dot(a, dot(w**4, b)), (m_v, v), (m_h, h))
    # The matrix of the smaller layer: walks from each of its spins to each, over the other.
    if energy.n_visible <= energy.n_hidden:
        walks = dot(v, dot(jnp.square(dot(w * h[None, :], w.T)), v))
    else:
        walks = dot(h, dot(jnp.square(dot(w.T * v[None, :], w)), h))
    w2 = jnp.square(w)
    turning = jnp.sum((v * dot(w2, h)) ** 2) + jnp.sum((h * dot(v, w2)) ** 2)
    return bonds + 6 * (walks - turning + dot(v**2, dot(w**4, h**2)))


@n_visible.register
def _(energy: RBM) -> int:
    return energy.n_visible


@visible_free_energy.register
def _(energy: RBM, beta: Beta, visible: Spins) -> Float[Array, ""]:
    """`-a . v - T sum_k ln 2 cosh(beta (b_k + (v W)_k))`."""
    fields = energy.hidden_fields + dot(visible, energy.weights)
    return -dot(energy.visible_fields, visible) - jnp.sum(log_two_cosh(fields, beta))


@conditional_fields.register
def _(energy: RBM, beta: Beta, visible: Spins) -> Float[Array, " v"]:
    """`a_k + (T/2) sum_j [ln cosh(x_j with s_k = 1) - ln cosh(x_j with s_k = -1)]`."""
    w = energy.weights
    fields = energy.hidden_fields + dot(visible, w)
    rest = fields[None, :] - jnp.asarray(as_array("visible", visible))[:, None] * w
    difference = log_two_cosh(rest + w, beta) - log_two_cosh(rest - w, beta)
    return energy.visible_fields + 0.5 * jnp.sum(difference, axis=1)


@conditional_field.register
def _(energy: RBM, beta: Beta, visible: Spins, k: int | Int[Array, ""]) -> Float[Array, ""]:
    visible = jnp.asarray(as_array("visible", visible))
    w = energy.weights[k]
    rest = energy.hidden_fields + dot(visible, energy.weights) - visible[k] * w
    up, down = log_two_cosh(rest + w, beta), log_two_cosh(rest - w, beta)
    return energy.visible_fields[k] + 0.5 * jnp.sum(up - down)


@parameter_degrees.register
def _(energy: RBM) -> RBM:
    return eqx.tree_at(lambda e: (e.weights, e.visible_fields, e.hidden_fields), energy, (2, 1, 1))


@embed.register
def _(energy: RBM, beta: Beta, visible: Spins) -> Float[Array, " total"]:
    hidden = jnp.tanh(beta * (energy.hidden_fields + dot(visible, energy.weights)))
    return jnp.concatenate([visible, hidden])
