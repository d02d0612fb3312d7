"""Pairwise energies: the Ising model with arbitrary couplings and fields."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import as_float
from .._linalg import dot
from .._types import Beta, Magnetizations, Spins
from ._base import AbstractMultilinear, one_configuration
from ._interactions import Interactions, SpinSets
from ._moments import nonlinear_fourth_cumulant, nonlinear_third_moment, nonlinear_variance
from ._parameters import as_parameters, constrain, parameter_copies, parameter_degrees
from ._terms import interactions_of, terms
from ._visible import conditional_field, conditional_fields


class Pairwise(AbstractMultilinear):
    """`E(s) = -sum_{i<j} J_ij s_i s_j - sum_i h_i s_i`.

    Any numbers of the right shape are a valid energy, as `jax.tree.map`, `eqx.tree_at` or optax
    may leave them: the bond of two spins is `J_ij = (couplings[i, j] + couplings[j, i]) / 2` in
    every function, and the diagonal never counts. Derivatives by `couplings` are therefore
    symmetric, half of the bond in each entry, with a zero diagonal. The constructor alone asks for
    what is symmetric already, since anything else is most likely a mistake.

    Args:
        couplings: J in energy units, shape `(n, n)`, symmetric with zero diagonal.
        fields: h in energy units, shape `(n,)`.

    Raises:
        ValueError: if the shapes disagree, or if couplings with known values are not finite, not
            symmetric, or have a non-zero diagonal.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        assert energy(jnp.ones(3)) == -3
        ```
    """

    couplings: Float[Array, "n n"]
    fields: Float[Array, " n"]

    def __init__(self, couplings: ArrayLike, fields: ArrayLike):
        couplings, fields = as_parameters(couplings=couplings, fields=fields)
        if fields.ndim != 1 or couplings.shape != (fields.size, fields.size):
            raise ValueError(
                "couplings and fields must have shapes (n, n) and (n,), got "
                f"{couplings.shape} and {fields.shape}; use jax.vmap for batches of energies"
            )
        if not isinstance(couplings, Tracer):
            _check_couplings(np.asarray(couplings))
        # For valid values this changes nothing; it makes derivatives through the constructor
        # those of a symmetric matrix with zero diagonal.
        self.couplings = _symmetrised(couplings)
        self.fields = fields

    @property
    def n_spins(self) -> int:
        return self.fields.shape[-1]

    @property
    def matrix(self) -> Float[Array, "n n"]:
        """J as all functions see it: symmetric, without diagonal, shape `(n, n)`."""
        return _symmetrised(self.couplings)

    def bonds(
        self, first: Int[np.ndarray, " bonds"], second: Int[np.ndarray, " bonds"]
    ) -> Float[Array, " bonds"]:
        """J of pairs of different spins, shape `(bonds,)`."""
        return 0.5 * (self.couplings[first, second] + self.couplings[second, first])

    def _parts(self) -> dict[str, Array | np.ndarray]:
        above = np.triu_indices(self.n_spins, 1)
        bonds = 0.5 * (self.couplings[..., *above] + self.couplings[..., *above[::-1]])
        return {"couplings": bonds, "fields": self.fields}

    def __call__(self, spins: Spins) -> Float[Array, ""]:
        spins = one_configuration(self, spins)
        spins = spins.astype(jnp.result_type(spins, self.fields))
        return -pair_form(self.couplings, spins) - dot(self.fields, spins)


@terms.register
def _(energy: Pairwise) -> Interactions:
    sets = _sites_and_pairs(energy.n_spins)
    return interactions_of(energy.n_spins, sets, [energy.fields, energy.bonds(*sets[1].indices.T)])


@functools.lru_cache(maxsize=64)
def _sites_and_pairs(n: int) -> tuple[SpinSets, SpinSets]:
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    return SpinSets(np.arange(n)[:, None]), SpinSets(pairs)


@nonlinear_variance.register
def _(energy: Pairwise, m: Magnetizations) -> Float[Array, ""]:
    return symmetric_form(jnp.square(energy.matrix), 1 - m * m)


@nonlinear_third_moment.register
def _(energy: Pairwise, m: Magnetizations) -> Float[Array, ""]:
    """Each bond to the third power, and each triangle."""
    j, v = energy.matrix, 1 - m * m
    two_steps = dot(j * v[None, :], j)
    triangles = dot(v, dot(two_steps * j, v))
    return -4 * symmetric_form(j**3, m * v) - triangles


@nonlinear_fourth_cumulant.register
def _(energy: Pairwise, m: Magnetizations) -> Float[Array, ""]:
    """Each bond to the fourth power, triangles with one bond doubled, and cycles of four."""
    j, v = energy.matrix, 1 - m * m
    two_steps = dot(j * v[None, :], j)
    bonds = bond_cumulant(lambda a, b: 0.5 * dot(a, dot(j**4, b)), (m, v), (m, v))
    doubled = 24 * dot(m * v, dot(j**2 * two_steps, m * v))
    # Closed walks of four steps, less those that turn back at one or at both of their ends.
    walks = dot(v, dot(two_steps**2, v))
    turning = 2 * jnp.sum((v * dot(j**2, v)) ** 2) - dot(v**2, dot(j**4, v**2))
    return bonds + doubled + 3 * (walks - turning)


_Ends = Float[Array | np.ndarray, " _"]


def bond_cumulant(
    contract: Callable[[_Ends, _Ends], Array],
    left: tuple[_Ends, _Ends],
    right: tuple[_Ends, _Ends],
) -> Float[Array, ""]:
    """What single bonds add to the fourth cumulant, `-2 J^4 v v' (1 + 3m^2 + 3m'^2 - 15m^2 m'^2)`.

    `contract(a, b)` sums `J^4 a b` over all bonds; left and right are (m, v) at their two ends.
    """
    (m, v), (m_, v_) = left, right
    mm, mm_ = m * m * v, m_ * m_ * v_
    return -2 * (contract(v, v_) + 3 * contract(mm, v_) + 3 * contract(v, mm_)) + 30 * contract(
        mm, mm_
    )


@constrain.register
def _(energy: Pairwise) -> Pairwise:
    return eqx.tree_at(lambda e: e.couplings, energy, energy.matrix)


@conditional_fields.register
def _(energy: Pairwise, beta: Beta, visible: Spins) -> Float[Array, " n"]:
    """`local_fields`, without the value of the energy."""
    return pair_fields(energy.couplings, as_float(visible)) + energy.fields


@conditional_field.register
def _(energy: Pairwise, beta: Beta, visible: Spins, k: int | Int[Array, ""]) -> Float[Array, ""]:
    row = 0.5 * (energy.couplings[k] + energy.couplings[:, k])
    return energy.fields[k] + dot(row.at[k].set(0), visible)


@parameter_degrees.register
def _(energy: Pairwise) -> Pairwise:
    return eqx.tree_at(lambda e: (e.couplings, e.fields), energy, (2, 1))


@parameter_copies.register
def _(energy: Pairwise) -> Pairwise:
    return eqx.tree_at(lambda e: (e.couplings, e.fields), energy, (2, 1))


@jax.custom_jvp
def pair_form(couplings: Float[Array, "n n"], x: Spins) -> Float[Array, ""]:
    """`sum_{i<j} J_ij x_i x_j` of any couplings; the value alone needs no symmetric matrix."""
    return 0.5 * (dot(x, dot(x, couplings)) - dot(jnp.diagonal(couplings), x * x))


@pair_form.defjvp
def _(primals, tangents):
    (couplings, x), (couplings_dot, x_dot) = primals, tangents
    product = pair_fields(couplings, x)
    by_couplings = 0.5 * dot(x, dot(x, _symmetrised(couplings_dot)))
    return 0.5 * dot(x, product), dot(product, x_dot) + by_couplings


@jax.custom_jvp
def pair_fields(couplings: Float[Array, "n n"], x: Spins) -> Float[Array, " n"]:
    """`sum_j J_ij x_j` of any couplings."""
    return _one_or_many(couplings, x)


@pair_fields.defjvp
def _(primals, tangents):
    (couplings, x), (couplings_dot, x_dot) = primals, tangents
    matrix = _symmetrised(couplings)
    return pair_fields(couplings, x), dot(x_dot, matrix) + dot(x, _symmetrised(couplings_dot))


# For one vector two products cost less than a symmetric matrix; a batch shares that matrix.
@jax.custom_batching.custom_vmap
def _one_or_many(couplings: Float[Array, "n n"], x: Spins) -> Float[Array, " n"]:
    both = 0.5 * (dot(x, couplings) + dot(couplings, x))
    return both - jnp.diagonal(couplings) * x


@_one_or_many.def_vmap
def _(size, batched, couplings, x):
    axes = tuple(0 if is_batched else None for is_batched in batched)
    return jax.vmap(lambda j, x: dot(x, _symmetrised(j)), axes)(couplings, x), True


@jax.custom_jvp
def symmetric_form(matrix: Float[Array, "n n"], x: Spins) -> Float[Array, ""]:
    """`x . M x / 2` for symmetric M, such that value and gradient share the product `x M`.

    The vector stands first, so that a batch of them lies in memory as a batch of products.
    """
    return 0.5 * dot(x, dot(x, matrix))


@symmetric_form.defjvp
def _(primals, tangents):
    (matrix, x), (matrix_dot, x_dot) = primals, tangents
    product = dot(x, matrix)
    return 0.5 * dot(x, product), dot(product, x_dot) + 0.5 * dot(x, dot(x, matrix_dot))


def _symmetrised(couplings: Float[Array, "n n"]) -> Float[Array, "n n"]:
    # A product with 0 and 1 would not vanish for the compiler where couplings are known to be 0.
    return jnp.where(jnp.eye(len(couplings), dtype=bool), 0, 0.5 * (couplings + couplings.T))


def _check_couplings(couplings: np.ndarray) -> None:
    if np.any(np.diagonal(couplings) != 0):
        raise ValueError("couplings must have a zero diagonal: s_i s_i = 1 is not an interaction")
    tolerance = 8 * jnp.finfo(couplings.dtype).eps * np.max(np.abs(couplings), initial=0.0)
    if np.any(np.abs(couplings - couplings.T) > tolerance):
        raise ValueError("couplings must be symmetric, got couplings[i, j] != couplings[j, i]")
