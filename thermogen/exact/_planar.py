"""Planar Ising models without fields: ln Z as a determinant over directed bonds.

For a graph that is drawn without crossings, with straight bonds,

    Z = 2^n prod_e cosh(beta J_e) sqrt(det(1 - W)),   W_ab = tanh(beta J_a) exp(i angle_ab / 2),

where a, b run over directed bonds, b starts where a ends and does not turn back, and the angle is
that by which the way turns (Kac and Ward, Phys. Rev. 88, 1332 (1952); proofs in Cimasoni, Commun.
Math. Phys. 316, 99 (2012)). Signs of couplings do not matter: frustrated ones are included.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Int

from .._cold import beta_as, resolved_beta
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy, SpinSets
from ._cost import listed_terms
from ._planar_sweep import Sweep, log_sum, log_sum_and_gradient, sweep_of

# Up to so many directed bonds the determinant is a dense one.
_MAX_DENSE = 512


class _Turns(NamedTuple):
    """How directed bonds follow each other; bond e is number e one way, and m + e the other.

    Attributes:
        before: the bond that is left, shape `(turns,)`.
        after: the bond that is entered, shape `(turns,)`.
        phases: `exp(i angle / 2)` of the turn, shape `(turns,)`.
    """

    before: Int[np.ndarray, " turns"]
    after: Int[np.ndarray, " turns"]
    phases: Complex[np.ndarray, " turns"]


@from_anywhere
def planar_log_partition(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    """ln Z of a planar graph of couplings without fields, however wide.

    Derivatives by couplings and beta give correlations of neighbours and the mean energy. Beyond
    256 bonds a sweep over the spins on the host computes all, in double precision; then there are
    first derivatives only, by reverse mode, which take little more than ln Z. It has a step a spin,
    on a matrix with a row for each bond that is cut on the way.

    Args:
        energy: couplings of pairs alone: `Interactions`, or a `Pairwise` whose couplings are known.
        beta: inverse temperature.

    Returns:
        ln Z; NaN where rounding may have changed it by more than 1e-6, far in the cold.

    Raises:
        ValueError: for a graph that is not planar, fields, or terms of more than two spins.
        TypeError: for an energy that is no list of terms.

    !!! example

        ```python
        import jax.numpy as jnp
        import networkx
        import numpy as np
        import thermogen as tg

        bonds = np.array(networkx.grid_graph((3, 3)).edges) @ [3, 1]
        lattice = tg.Interactions(9, [bonds], [jnp.ones(len(bonds))])
        log_z = tg.exact.planar_log_partition(lattice, 0.5)
        assert jnp.isclose(log_z, tg.exact.log_partition(lattice, 0.5), rtol=1e-5)
        ```
    """
    bonds, couplings = _bonds(energy)
    beta = resolved_beta(energy, beta_as(beta, couplings.dtype))
    log_ratio = _dense if 2 * len(bonds) <= _MAX_DENSE else _swept
    return energy.n_spins * np.log(2) + log_ratio(energy.n_spins, bonds, beta * couplings)


def _bonds(energy: AbstractEnergy) -> tuple[SpinSets, Float[Array, " bonds"]]:
    """Pairs of spins, each once, and their couplings."""
    known = listed_terms(energy)
    if known is None:
        raise TypeError(f"energy must have terms whose spins are known, got {energy!r}")
    listed, pins = known
    if pins is not None:
        raise ValueError("energy must not be clamped: a clamped spin is a field for its neighbours")
    pairs, couplings = np.zeros((0, 2), np.int32), jnp.zeros(0)
    for table, values in zip(listed.sets, listed.couplings, strict=True):
        if table.order == 2:
            pairs, place = np.unique(np.sort(table.indices), axis=0, return_inverse=True)
            couplings = jnp.zeros(len(pairs), values.dtype).at[place.ravel()].add(values)
        elif table.order > 2 and len(table):
            raise ValueError(f"energy must have terms of two spins alone, got {table.order}")
        elif table.order == 1 and (isinstance(values, Tracer) or np.any(np.asarray(values) != 0)):
            raise ValueError(
                "energy must have no fields: no determinant is known for them. log_partition "
                "solves narrow graphs with fields"
            )
    return SpinSets(pairs), couplings


def _directions(n_spins: int, bonds: SpinSets) -> Float[np.ndarray, "2 bonds"]:
    """Angles of the bonds as seen from both ends, of a drawing with straight bonds."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(n_spins))
    graph.add_edges_from(bonds.indices.tolist())
    planar, drawing = networkx.check_planarity(graph)
    if not planar:
        raise ValueError(f"energy must have a planar graph; this one of {n_spins} spins is not")
    places = networkx.combinatorial_embedding_to_pos(drawing)
    place = np.array([places[k] for k in range(n_spins)], float).reshape(-1, 2)
    start, end = place[bonds.indices.T].transpose(0, 2, 1)
    return np.stack([np.arctan2(y, x) for x, y in (end - start, start - end)])


@functools.lru_cache(maxsize=16)
def _turns(n_spins: int, bonds: SpinSets) -> _Turns:
    """All turns of the graph."""
    start, end = np.concatenate([bonds.indices, bonds.indices[:, ::-1]]).T
    direction = _directions(n_spins, bonds).ravel()
    # Directed bonds by where they start: those that may follow each bond lie side by side.
    order = np.argsort(start, kind="stable")
    first, last = (np.searchsorted(start[order], end, side) for side in ("left", "right"))
    before = np.repeat(np.arange(len(start)), last - first)
    within = np.arange(len(before)) - np.repeat(
        np.cumsum(last - first) - (last - first), last - first
    )
    after = order[np.repeat(first, last - first) + within]
    onward = (before - after) % max(len(start), 1) != len(bonds)
    before, after = before[onward], after[onward]
    angle = (direction[after] - direction[before] + np.pi) % (2 * np.pi) - np.pi
    return _Turns(before, after, np.exp(0.5j * angle))


def _dense(n_spins: int, bonds: SpinSets, strengths: Float[Array, " bonds"]) -> Float[Array, ""]:
    """`ln(Z / 2^n)`, by the determinant as a whole."""
    size, turns = 2 * len(bonds), _turns(n_spins, bonds)
    phases = np.zeros((size, size), complex)
    phases[turns.before, turns.after] = turns.phases
    links = jnp.tanh(strengths)
    both = jnp.concatenate([links, links])
    sign, log_size = jnp.linalg.slogdet(jnp.eye(size) - both[:, None] * phases)
    lost = jnp.abs(sign - 1) > jnp.finfo(links.dtype).eps ** 0.4
    log_cosh = jnp.sum(jnp.logaddexp(strengths, -strengths)) - len(bonds) * np.log(2)
    return log_cosh + jnp.where(lost, jnp.nan, 0.5 * log_size)


def _swept(n_spins: int, bonds: SpinSets, strengths: Float[Array, " bonds"]) -> Float[Array, ""]:
    """The same by a sweep over the spins, on the host."""
    sweep, dtype = _sweep(n_spins, bonds), strengths.dtype
    value = jax.ShapeDtypeStruct((), dtype)
    slope = jax.ShapeDtypeStruct(strengths.shape, dtype)

    def on_host(function, wanted):
        def call(x):
            found = function(sweep, np.asarray(x, float))
            return jax.tree.map(lambda y: np.asarray(y, dtype), found)

        return lambda x: jax.pure_callback(call, wanted, x, vmap_method="sequential")

    log_ratio = jax.custom_vjp(on_host(log_sum, value))
    log_ratio.defvjp(on_host(log_sum_and_gradient, (value, slope)), lambda slope, g: (g * slope,))
    return log_ratio(strengths)


@functools.lru_cache(maxsize=16)
def _sweep(n_spins: int, bonds: SpinSets) -> Sweep:
    return sweep_of(n_spins, bonds.indices, _directions(n_spins, bonds))
