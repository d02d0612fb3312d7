"""The library of candidate bound states: certified minima of G(m), each held once."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import Beta

# Two minima polished to 1e-9 in dG/dm are the same when no magnetization differs by more.
MERGE_TOLERANCE = 1e-5

_Array = Array | np.ndarray


class Library(eqx.Module):
    """Distinct minima of a free energy G(m), lowest first.

    All arrays have a fixed length K, the capacity; the first `size` entries are in use. Every
    entry was certified: its gradient is below tolerance and its Hessian is positive definite. It
    is a *candidate* for a bound state: that it also traps the dynamics is a separate proof.

    Attributes:
        magnetizations: m of each state, shape `(K, n)`.
        free_energies: G in energy units, shape `(K,)`; infinite where unused.
        residuals: max |dG/dm| in energy units, shape `(K,)`.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(K,)`.
        hits: number of quenches that ended in each state, shape `(K,)`.
        multiplicity: 2 where an entry stands for itself and for its mirror image under the
            global flip (merged if the energy has that symmetry), else 1, shape `(K,)`.
        mask: which entries are in use, shape `(K,)`.
        overflow: whether states were dropped because the library was full; it keeps the lowest.
    """

    magnetizations: Float[_Array, "K n"]
    free_energies: Float[_Array, " K"]
    residuals: Float[_Array, " K"]
    curvatures: Float[_Array, " K"]
    hits: Int[_Array, " K"]
    multiplicity: Int[_Array, " K"]
    mask: Bool[_Array, " K"]
    overflow: Bool[_Array, ""]

    @property
    def size(self) -> int:
        """Number of states held."""
        return int(np.sum(self.mask))

    def weights(self, beta: Beta) -> Float[Array, " K"]:
        """Boltzmann weight `exp(-beta G)` of each state, mirror images counted; sums to 1."""
        # Relative to the lowest, while they are still in the precision of the library.
        xp = np if isinstance(self.free_energies, np.ndarray) else jnp
        held = xp.where(self.mask, self.free_energies, 0.0)
        logits = jnp.log(self.multiplicity) - beta * jnp.asarray(held - held[0])
        return jax.nn.softmax(jnp.where(self.mask, logits, -jnp.inf))

    def coverage(self) -> float:
        """Good-Turing estimate of the share of quenches that end in a state already held.

        One minus the share of hits that are the only one of their state (Good 1953). It speaks
        of starts like those that were used; NaN for an empty library.
        """
        hits = np.asarray(self.hits)
        return float(1 - np.sum(hits == 1) / hits.sum()) if hits.sum() else float("nan")

    def nearest(self, magnetizations: Float[_Array, "batch n"]) -> Int[np.ndarray, " batch"]:
        """Index of the state that each row is, shape `(batch,)`; -1 where it is none of them.

        A row counts as its mirror image where the state stands for both.
        """
        rows = np.asarray(magnetizations)
        nearest = np.full(len(rows), -1)
        closest = np.full(len(rows), MERGE_TOLERANCE)
        for k in range(self.size):
            distance = np.abs(rows - self.magnetizations[k]).max(axis=1)
            if self.multiplicity[k] == 2:
                mirrored = np.abs(rows + self.magnetizations[k]).max(axis=1)
                distance = np.minimum(distance, mirrored)
            nearest = np.where(distance < closest, k, nearest)
            closest = np.minimum(distance, closest)
        return nearest


class Candidates(NamedTuple):
    """Certified minima on their way into a library, with the fields that `Library` documents."""

    magnetizations: Float[_Array, "batch n"]
    free_energies: Float[_Array, " batch"]
    residuals: Float[_Array, " batch"]
    curvatures: Float[_Array, " batch"]
    hits: Int[_Array, " batch"]
    multiplicity: Int[_Array, " batch"]


def empty_library(capacity: int, n_spins: int) -> Library:
    """A library of `capacity` unused entries."""
    return Library(
        magnetizations=jnp.zeros((capacity, n_spins)),
        free_energies=jnp.full(capacity, jnp.inf),
        residuals=jnp.full(capacity, jnp.inf),
        curvatures=jnp.zeros(capacity),
        hits=jnp.zeros(capacity, int),
        multiplicity=jnp.ones(capacity, int),
        mask=jnp.zeros(capacity, bool),
        overflow=jnp.array(False),
    )


@jax.jit
def insert(library: Library, candidates: Candidates) -> Library:
    """Add certified minima one by one: known states gain hits, new ones take a free entry.

    Rows with zero hits are padding. Pure and of fixed shape, so it jits and vmaps. When all
    entries are taken the state of highest G gives way and `overflow` is set.
    """

    def add(held: Library, candidate: Candidates) -> tuple[Library, None]:
        return _insert_one(held, candidate), None

    library, _ = jax.lax.scan(add, library, candidates)
    order = jnp.argsort(library.free_energies)
    return dataclasses.replace(
        library,
        **{name: getattr(library, name)[order] for name in (*Candidates._fields, "mask")},
    )


def _insert_one(library: Library, candidate: Candidates) -> Library:
    distance = _distances(library, candidate.magnetizations)
    known = jnp.min(distance) < MERGE_TOLERANCE
    # The entry of highest G, which is an unused one where there is any.
    victim = jnp.argmax(library.free_energies)
    lost = library.mask[victim]
    entry = jnp.where(known, jnp.argmin(distance), victim)
    real = candidate.hits > 0
    write = real & ~known & (candidate.free_energies < library.free_energies[entry])
    updates = {
        name: jnp.asarray(getattr(library, name))
        .at[entry]
        .set(jnp.where(write, getattr(candidate, name), getattr(library, name)[entry]))
        for name in Candidates._fields
    }
    updates["hits"] = updates["hits"].at[entry].add(jnp.where(known, candidate.hits, 0))
    return dataclasses.replace(
        library,
        mask=jnp.asarray(library.mask).at[entry].set(library.mask[entry] | write),
        overflow=library.overflow | (real & ~known & lost),
        **updates,
    )


def _distances(library: Library, m: Float[_Array, " n"]) -> Float[Array, " K"]:
    """Largest difference in any magnetization to each state, modulo the flip where it counts."""
    direct = jnp.max(jnp.abs(library.magnetizations - m[None, :]), axis=1)
    mirrored = jnp.max(jnp.abs(library.magnetizations + m[None, :]), axis=1)
    both = jnp.where(library.multiplicity == 2, jnp.minimum(direct, mirrored), direct)
    return jnp.where(library.mask, both, jnp.inf)
