"""Candidates for bound states from two sources: minima of G(m), and single-flip minima of E."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int8

from .._batches import in_batches
from .._compile import compiled_quickly
from ..energies import AbstractEnergy, is_flip_symmetric
from ..search import PER_STATE, Kind, Library
from ._descents import TIE, prepared, slopes_of
from ._plateaus import bottoms_of

_BATCH = 1024


def flip_library(
    energy: AbstractEnergy, starts: np.ndarray, n_given: int, beta: float, alone: bool
) -> Library:
    """Single-flip minima below the starts as a library, one of each pair of images.

    The first `n_given` starts are no independent draws.

    Their free energy is that of spins which flip independently of each other about the bottom,
    `F = E - T sum_k ln(1 + exp(-beta dE_k))`, with dE_k the gap of flip k. A descent that ended
    where most flips cost nothing stopped on a plateau, which is no bottom: it is left out. Where
    these candidates stand `alone` and there is nothing else, one is kept for each way in which
    the other spins are frozen.
    """
    model, n = prepared(energy), energy.n_spins
    symmetric = bool(is_flip_symmetric(energy))
    bottoms = bottoms_of(model, starts)
    if symmetric:
        bottoms *= bottoms[:, :1]
    spins, end = np.unique(bottoms, axis=0, return_inverse=True)
    counts = _counts(end.reshape(-1), n_given, len(spins))
    energies = energies_of(energy, spins)
    fields = spins * slopes_of(model, spins)[0]
    free = np.abs(fields) <= TIE * np.abs(fields).max(initial=0)
    rows = np.flatnonzero(np.mean(free, axis=1) <= 0.5)
    if alone and rows.size == 0:
        _, rows, plateau = np.unique(
            np.where(free, 0, spins), axis=0, return_index=True, return_inverse=True
        )
        counts = [np.bincount(plateau.reshape(-1), x).astype(int) for x in counts]
    else:
        counts = [x[rows] for x in counts]
    spins, energies, fields = (x[rows] for x in (spins, energies, fields))
    excitations = np.logaddexp(0, -2 * beta * spins * fields).sum(axis=1)
    size = len(spins)
    return Library(
        magnetizations=spins.astype(float).reshape(size, n),
        free_energies=energies - excitations / beta,
        residuals=np.full(size, np.inf),
        curvatures=np.zeros(size),
        kind=np.full(size, Kind.FLIP_MINIMUM, np.int8),
        hits=counts[0],
        given_hits=counts[1],
        multiplicity=np.full(size, 1 + symmetric),
    ).sort_by("free_energies")


def _counts(end: np.ndarray, n_given: int, size: int) -> list[np.ndarray]:
    """How many starts ended in each bottom, and how many of the first `n_given` did."""
    return [np.bincount(x, minlength=size) for x in (end, end[:n_given])]


def energies_of(
    energy: AbstractEnergy, spins: Int8[np.ndarray, "batch n"]
) -> Float[np.ndarray, " batch"]:
    """E of many configurations; needs 64 bits enabled."""
    return in_batches(lambda rows: _energies(energy, rows), spins, _BATCH)


@compiled_quickly
def _energies(energy: AbstractEnergy, spins: Int8[Array, "batch n"]) -> Float[Array, " batch"]:
    return jax.vmap(energy)(spins.astype(float))


def candidates(
    energy: AbstractEnergy, minima: Library | None, flips: Library, capacity: int | None
) -> tuple[Library, int]:
    """The minima of the functional, then the single-flip minima that are no core of theirs.

    Returns those of lowest free energy for which there is room, and the number of all.
    """
    if minima is None or minima.size == 0:
        return flips[:capacity], flips.size
    held = minima.sort_by("free_energies")
    cores = bottoms_of(prepared(energy), held.magnetizations)
    cores = np.concatenate([cores, -cores]) if np.any(flips.multiplicity == 2) else cores
    known = {core.tobytes() for core in cores}
    new = [row.tobytes() not in known for row in flips.magnetizations.astype(np.int8)]
    parts = held, flips[np.array(new, bool)]
    both = {name: np.concatenate([getattr(x, name) for x in parts]) for name in PER_STATE}
    together = Library(**both, overflow=held.overflow)  # of two functionals
    return together[:capacity], together.size
