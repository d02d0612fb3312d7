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
import networkx
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Int

from .._cold import beta_as, resolved_beta
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy, SpinSets
from ._cost import listed_terms

# Up to so many directed bonds the determinant is a dense one.
_MAX_DENSE = 512
# Columns of the inverse that are solved for at once.
_COLUMNS = 256
# By so much the phase of the determinant, which is positive, may seem to be off.
_PHASE = 1e-6


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
    256 bonds a sparse factorisation on the host computes all, in double precision; then there are
    first derivatives only, by reverse mode, which cost one solution for each bond. ln Z of a square
    lattice of 100 x 100 spins takes 4 to 12 s.

    Args:
        energy: couplings of pairs alone: `Interactions`, or a `Pairwise` whose couplings are known.
        beta: inverse temperature.

    Returns:
        ln Z; NaN where the determinant is lost in rounding, far in the cold.

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
    turns = _turns(energy.n_spins, bonds)
    beta = resolved_beta(energy, beta_as(beta, couplings.dtype))
    strengths = beta * couplings
    log_cosh = jnp.sum(jnp.logaddexp(strengths, -strengths)) - len(bonds) * np.log(2)
    links = jnp.tanh(strengths)
    log_root = _dense(turns, links) if 2 * len(bonds) <= _MAX_DENSE else _sparse(turns, links)
    return energy.n_spins * np.log(2) + log_cosh + log_root


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


@functools.lru_cache(maxsize=16)
def _turns(n_spins: int, bonds: SpinSets) -> _Turns:
    """All turns of the graph, drawn with straight bonds."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(n_spins))
    graph.add_edges_from(bonds.indices.tolist())
    planar, drawing = networkx.check_planarity(graph)
    if not planar:
        raise ValueError(f"energy must have a planar graph; this one of {n_spins} spins is not")
    places = networkx.combinatorial_embedding_to_pos(drawing)
    place = np.array([places[k] for k in range(n_spins)], float).reshape(-1, 2)
    start, end = np.concatenate([bonds.indices, bonds.indices[:, ::-1]]).T
    dx, dy = (place[end] - place[start]).T
    direction = np.arctan2(dy, dx)
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


def _dense(turns: _Turns, links: Float[Array, " bonds"]) -> Float[Array, ""]:
    """`ln det(1 - W) / 2`."""
    size = 2 * len(links)
    phases = np.zeros((size, size), complex)
    phases[turns.before, turns.after] = turns.phases
    both = jnp.concatenate([links, links])
    sign, log_size = jnp.linalg.slogdet(jnp.eye(size) - both[:, None] * phases)
    lost = jnp.abs(sign - 1) > jnp.finfo(links.dtype).eps ** 0.4
    return jnp.where(lost, jnp.nan, 0.5 * log_size)


def _sparse(turns: _Turns, links: Float[Array, " bonds"]) -> Float[Array, ""]:
    """The same, by a factorisation on the host."""

    def on_host(function, shape):
        wanted = jax.ShapeDtypeStruct(shape, links.dtype)
        return lambda x: jax.pure_callback(
            lambda y: function(turns, np.asarray(y, float)).astype(links.dtype),
            wanted,
            x,
            vmap_method="sequential",
        )

    log_root = jax.custom_vjp(on_host(_log_root, ()))
    gradient = on_host(_gradient, links.shape)
    log_root.defvjp(lambda x: (log_root(x), x), lambda x, g: (g * gradient(x),))
    return log_root(links)


def _factored(turns: _Turns, links: np.ndarray) -> tuple[scipy.sparse.linalg.SuperLU, complex]:
    """The factors of `1 - W`, and `ln det`, complex."""
    size = 2 * len(links)
    values = np.concatenate([links, links])[turns.before] * turns.phases
    turning = scipy.sparse.csc_array((values, (turns.before, turns.after)), shape=(size, size))
    factors = scipy.sparse.linalg.splu(scipy.sparse.eye_array(size, format="csc") - turning)
    return factors, complex(np.sum(np.log(factors.U.diagonal().astype(complex))))


def _log_root(turns: _Turns, links: np.ndarray) -> np.ndarray:
    _, log_det = _factored(turns, links)
    # Row exchanges change the sign alone.
    lost = np.abs(np.sin(log_det.imag)) > _PHASE
    return np.asarray(np.nan if lost else 0.5 * log_det.real)


def _gradient(turns: _Turns, links: np.ndarray) -> np.ndarray:
    """Derivatives of `_log_root`: diagonal entries of `-P (1 - W)^-1`, with P the phases alone.

    Those of the two directions of a bond are complex conjugates.
    """
    size, bonds = 2 * len(links), np.arange(len(links))
    factors, _ = _factored(turns, links)
    phases = scipy.sparse.csr_array((turns.phases, (turns.before, turns.after)), shape=(size, size))
    found = np.empty(len(links))
    for first in range(0, len(links), _COLUMNS):
        block = bonds[first : first + _COLUMNS]
        unit = np.zeros((size, len(block)), complex)
        unit[block, np.arange(len(block))] = 1
        found[block] = -phases[block].multiply(factors.solve(unit).T).sum(axis=1).real
    return found
