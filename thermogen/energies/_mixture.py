"""A mixture of experts: one model for each bound state, and still an energy."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import as_array
from .._types import Beta, Magnetizations, Spins
from ._base import AbstractEnergy, flip_gaps, one_configuration
from ._complete import Complete, complete
from ._moments import product_mean
from ._parameters import (
    as_parameters,
    constrain,
    parameter_copies,
    parameter_degrees,
    parameter_terms,
    squared_norm,
)
from ._visible import conditional_field, conditional_fields, n_visible, visible_free_energy


class Mixture(AbstractEnergy):
    """`E(s) = -ln sum_a w_a exp(-E_a(s)) / Z_a`, the experts E_a as they are at beta = 1.

    With the partition functions Z_a of its experts and weights that sum to 1 the mixture is
    normalised: `exp(-E)` sums to 1. Hidden spins of the experts are summed out, one expert by
    one: its own spins are the visible ones. All experts are of one class and shape.

    A mixture is no multilinear energy. At magnetizations m its value is an upper bound of its
    mean under the product measure (Jensen's inequality), so that `NaiveMeanField` bounds the
    free energy as for every other energy; higher orders of the expansion have no rule.

    Args:
        experts: one energy whose arrays have a leading axis of experts, such as a vmapped
            function returns; `Mixture.of` takes a list of energies. The mixture is of their dtype.
        log_weights: ln w_a, shape `(experts,)`.
        log_partitions: ln Z_a at beta = 1, shape `(experts,)`; constants in every derivative.

    Raises:
        ValueError: if the number of experts differs between the arguments.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))

        assert jnp.isclose(tg.exact.log_partition(mixture, 1.0), 0, atol=1e-5)
        ```
    """

    experts: AbstractEnergy
    log_weights: Float[Array, " experts"]
    log_partitions: Float[Array, " experts"]
    n_spins: int = eqx.field(static=True)

    def __init__(
        self, experts: AbstractEnergy, log_weights: ArrayLike, log_partitions: ArrayLike
    ) -> None:
        log_weights, log_partitions = as_parameters(
            log_weights=log_weights, log_partitions=log_partitions
        )
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(experts)}
        if sizes != {log_weights.shape} or log_weights.shape != log_partitions.shape:
            raise ValueError(
                "experts, log_weights and log_partitions must have one leading axis of experts, "
                f"got {sorted(sizes)}, {log_weights.shape} and {log_partitions.shape}"
            )
        dtype = jnp.result_type(*jax.tree.leaves(experts))
        self.experts = experts
        self.log_weights = log_weights.astype(dtype)
        self.log_partitions = log_partitions.astype(dtype)
        self.n_spins = n_visible(_first(experts))

    @classmethod
    def of(
        cls,
        experts: Sequence[AbstractEnergy],
        weights: ArrayLike | Sequence[float],
        log_partitions: ArrayLike | Sequence[float],
    ) -> "Mixture":
        """A mixture of a list of energies of one class and shape.

        Args:
            experts: the energies.
            weights: w_a > 0, shape `(experts,)`; divided by their sum.
            log_partitions: ln Z_a of each at beta = 1, shape `(experts,)`.

        Raises:
            ValueError: for energies of different structure, or weights that are not positive.
        """
        structures = {jax.tree.structure(expert) for expert in experts}
        shapes = {tuple(x.shape for x in jax.tree.leaves(expert)) for expert in experts}
        if len(structures) != 1 or len(shapes) != 1:
            raise ValueError("experts must be energies of one class and one shape, at least one")
        weights = jnp.asarray(as_array("weights", weights), float)
        if not isinstance(weights, Tracer) and not jnp.all(weights > 0):
            raise ValueError("weights must be positive")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *experts)
        log_partitions = jnp.asarray(as_array("log_partitions", log_partitions), float)
        return cls(stacked, jnp.log(weights / jnp.sum(weights)), log_partitions)

    @property
    def n_experts(self) -> int:
        return self.log_weights.shape[0]

    @property
    def weights(self) -> Float[Array, " experts"]:
        """w_a, shape `(experts,)`."""
        return jnp.exp(self.log_weights)

    @property
    def offsets(self) -> Float[Array, " experts"]:
        """`ln w_a - ln Z_a`, shape `(experts,)`."""
        return self.log_weights - jax.lax.stop_gradient(self.log_partitions)

    def _sizes(self) -> str:
        return f"{self.n_experts} experts ({type(self.experts).__name__}) of {self.n_spins} spins"

    def _parts(self) -> dict[str, Array | np.ndarray]:
        return {**self.experts._parts(), "log weights": self.log_weights}

    def expert(self, a: int) -> AbstractEnergy:
        """Expert a as an energy of its own."""
        return jax.tree.map(lambda x: x[a], self.experts)

    def expert_energies(self, spins: Spins) -> Float[Array, " experts"]:
        """Energy of one configuration in each expert, hidden spins summed out, `(experts,)`."""
        return jax.vmap(lambda e: visible_free_energy(e, 1.0, spins))(self.experts)

    def log_joint(self, spins: Spins) -> Float[Array, " experts"]:
        """`ln w_a p_a(s)` of one configuration, shape `(experts,)`; it adds up to `-E(s)`."""
        return self.offsets - self.expert_energies(spins)

    def responsibilities(self, spins: Spins) -> Float[Array, " experts"]:
        """Posterior over the experts given one configuration, shape `(experts,)`."""
        return jax.nn.softmax(self.log_joint(spins))

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        return -jax.nn.logsumexp(self.log_joint(one_configuration(self, spins)))


def _first(experts: AbstractEnergy) -> AbstractEnergy:
    # Of shapes alone: a mixture may be built where arrays are abstract.
    return jax.eval_shape(lambda e: jax.tree.map(lambda x: x[0], e), experts)


def _rise(log_joint: Array, gaps: Float[Array, "experts ..."]) -> Array:
    """What E rises by where every expert rises by its own gap."""
    shape = (-1,) + (1,) * (gaps.ndim - 1)
    before = log_joint.reshape(shape)
    return jax.nn.logsumexp(log_joint) - jax.nn.logsumexp(before - gaps, axis=0)


@flip_gaps.register
def _(energy: Mixture, spins: Spins) -> Float[Array, " n"]:
    s = jnp.asarray(as_array("spins", spins))
    fields = jax.vmap(lambda e: conditional_fields(e, 1.0, s))(energy.experts)
    return _rise(energy.log_joint(s), 2 * s[None, :] * fields)


@conditional_field.register
def _(energy: Mixture, beta: Beta, visible: Spins, k: int | Int[Array, ""]) -> Float[Array, ""]:
    s = jnp.asarray(as_array("visible", visible))
    fields = jax.vmap(lambda e: conditional_field(e, 1.0, s, k))(energy.experts)
    return 0.5 * s[k] * _rise(energy.log_joint(s), 2 * s[k] * fields)


@product_mean.register
def _(energy: Mixture, m: Magnetizations) -> Float[Array, ""]:
    """An upper bound: -ln sum exp is concave in the energies, and so is F in what it sums out."""
    return energy(m)


@complete.register
def _(energy: Mixture) -> Complete:
    if n_visible(energy.expert(0)) < energy.expert(0).n_spins:
        return complete.dispatch(AbstractEnergy)(energy)
    tables = jax.vmap(lambda e: complete(e).energies())(energy.experts)
    return Complete.from_energies(-jax.nn.logsumexp(energy.offsets[:, None] - tables, axis=0))


@constrain.register
def _(energy: Mixture) -> Mixture:
    return eqx.tree_at(lambda e: e.experts, energy, jax.vmap(constrain)(energy.experts))


@parameter_degrees.register
def _(energy: Mixture) -> Mixture:
    return _with_figures(energy, parameter_degrees(energy.expert(0)), 0)


@parameter_copies.register
def _(energy: Mixture) -> Mixture:
    return _with_figures(energy, parameter_copies(energy.expert(0)), 1)


@parameter_terms.register
def _(energy: Mixture) -> Mixture:
    return _with_figures(energy, parameter_terms(energy.expert(0)), 1)


@squared_norm.register
def _(energy: Mixture) -> Float[Array, ""]:
    """The squared norm of the experts: weights and partition functions are no couplings."""
    return jnp.sum(jax.vmap(squared_norm)(energy.experts))


def _with_figures(energy: Mixture, of_expert: AbstractEnergy, of_weights: int) -> Mixture:
    def spread(figure, parameter):
        return np.broadcast_to(figure, parameter.shape) if np.ndim(figure) else figure

    return eqx.tree_at(
        lambda e: (e.experts, e.log_weights, e.log_partitions),
        energy,
        (jax.tree.map(spread, of_expert, energy.experts), of_weights, of_weights),
    )
