"""Barriers of E itself between configurations of many spins: bounds on the minimax path."""

import heapq
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, UInt

from .._batches import cast
from .._checks import as_array, check_count
from .._linalg import minimax_closure
from .._placement import from_anywhere
from .._types import Key
from ..energies import AbstractEnergy, flip_gaps

# Pairs are searched in batches of this many, so that one program serves all.
_BATCH = 16
# Of the moves of a beam so many times its width, the best, are compared for duplicates.
_CHOICE = 4


class EnergyBarriers(NamedTuple):
    """Bounds on the minimax single-flip barriers between K configurations, in energy units.

    Attributes:
        lower: no path stays below, shape `(K, K)`, symmetric; the diagonal is E itself.
        upper: a path was found that does not rise above, shape `(K, K)`, symmetric; equal to
            `lower` where the barrier is known exactly.
    """

    lower: Float[np.ndarray, "K K"]
    upper: Float[np.ndarray, "K K"]


@from_anywhere
def energy_barriers(
    energy: AbstractEnergy,
    configurations: Num[Array | np.ndarray, "K n"],
    *,
    key: Key,
    width: int = 64,
    n_floods: int = 500,
) -> EnergyBarriers:
    """Bounds on the lowest maximum of E along paths of single flips, for any number of spins.

    Above: a beam search from each configuration to each other. Every step turns one spin towards
    the goal, or one against it where that lowers E, each spin at most once; the `width` paths
    of the lowest maximum survive. Bounds close over chains of the configurations.

    Below: the valley around each configuration is flooded, lowest configuration first. A path
    that leaves the flooded set crosses its rim, so that the lowest energy on the rim is a
    rigorous bound; where the flood reaches another configuration its level is the barrier.

    For n <= 24 `thermogen.exact.barriers` is exact. Works in float64, on the host and in JAX.

    Args:
        energy: a multilinear energy of n spins.
        configurations: distinct spins +-1, shape `(K, n)`, best single-flip minima.
        key: random key; it decides only which of equally good paths survive.
        width: paths that a search keeps, >= 1.
        n_floods: configurations flooded around each of the K, >= 0; time and memory grow with
            `K n n_floods`.

    Raises:
        ValueError: for configurations of wrong shape, not +-1 or not distinct, or bad counts.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        ends = jnp.stack([-jnp.ones(3), jnp.ones(3)])
        found = tg.landscape.energy_barriers(energy, ends, key=jax.random.key(0), width=4)
        assert found.lower[0, 1] == found.upper[0, 1] == 1
        ```
    """
    spins = np.asarray(as_array("configurations", configurations), float)
    if spins.ndim != 2 or len(spins) == 0 or spins.shape[1] != energy.n_spins:
        raise ValueError(
            f"configurations must have shape (K >= 1, {energy.n_spins}), got {spins.shape}"
        )
    if not np.all(np.abs(spins) == 1):
        raise ValueError("configurations must hold spins -1 or +1")
    if len(np.unique(spins, axis=0)) < len(spins):
        raise ValueError("configurations must be distinct")
    width, n_floods = check_count("width", width), check_count("n_floods", n_floods, least=0)
    with jax.enable_x64(True):
        exact = cast(energy, jnp.float64)
        energies = np.asarray(_all_energies(exact, spins))
        lower, reached = _floods(exact, spins, energies, n_floods)
        upper = np.where(reached, lower, np.inf)
        first, last = np.nonzero(~reached & ~np.eye(len(spins), dtype=bool))
        upper[first, last] = _beams(exact, spins, first, last, key, width)
    lower = np.maximum(lower, lower.T)
    upper = np.minimum(upper, upper.T)
    np.fill_diagonal(upper, energies)
    np.fill_diagonal(lower, energies)
    upper = minimax_closure(upper)
    # Sums of many flips round differently.
    return EnergyBarriers(np.minimum(lower, upper), upper)


def _beams(
    energy: AbstractEnergy,
    spins: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    key: Key,
    width: int,
) -> Float[np.ndarray, " pairs"]:
    """Lowest maximum found from each `spins[first]` to `spins[last]`."""
    codes = jax.random.bits(key, (spins.shape[1],), jnp.uint32)
    found = []
    for start in range(0, len(first), _BATCH):
        # The last batch is filled up with pairs that were done before.
        rows = np.resize(np.arange(start, min(start + _BATCH, len(first))), _BATCH)
        ends = jnp.asarray(spins[first[rows]]), jnp.asarray(spins[last[rows]])
        found.append(np.asarray(_beam(energy, *ends, codes, width)))
    return np.concatenate([np.zeros(0), *found])[: len(first)]


class _Beam(eqx.Module):
    """Partial paths: where they are, E there, their maximum so far, what they turned back."""

    spins: Float[Array, "width n"]
    energies: Float[Array, " width"]
    heights: Float[Array, " width"]
    spent: Bool[Array, "width n"]
    codes: UInt[Array, " width"]


@eqx.filter_jit
def _beam(
    energy: AbstractEnergy,
    first: Float[Array, "batch n"],
    last: Float[Array, "batch n"],
    codes: UInt[Array, " n"],
    width: int,
) -> Float[Array, " batch"]:
    return jax.vmap(lambda a, b: _search(energy, a, b, codes, width))(first, last)


def _search(energy, first, last, codes, width: int) -> Float[Array, ""]:
    n = first.size
    own = energy(first)
    start = _Beam(
        jnp.tile(first, (width, 1)),
        jnp.full(width, own),
        jnp.full(width, jnp.inf).at[0].set(own),
        jnp.zeros((width, n), bool),
        jnp.zeros(width, jnp.uint32),
    )

    def unfinished(state):
        beam, best = state
        return jnp.min(beam.heights) < best

    def advance(state):
        beam, best = state
        beam = _advance(energy, last, codes, beam)
        arrived = jnp.all(beam.spins == last[None], axis=1)
        best = jnp.minimum(best, jnp.min(jnp.where(arrived, beam.heights, jnp.inf)))
        heights = jnp.where(arrived, jnp.inf, beam.heights)
        return eqx.tree_at(lambda b: b.heights, beam, heights), best

    return jax.lax.while_loop(unfinished, advance, (start, jnp.array(jnp.inf)))[1]


def _advance(energy, last, codes, beam: _Beam) -> _Beam:
    """All allowed flips of all paths; the best of different outcomes survive."""
    width, n = beam.spins.shape
    gaps = jax.vmap(lambda s: flip_gaps(energy, s))(beam.spins)
    toward = beam.spins != last[None]
    allowed = toward | (~beam.spent & (gaps < 0))
    energies = beam.energies[:, None] + gaps
    heights = jnp.where(allowed, jnp.maximum(beam.heights[:, None], energies), jnp.inf)
    energies, heights = jnp.ravel(energies), jnp.ravel(heights)
    # A configuration is known by the exclusive or of random words of its flipped spins.
    marks = jnp.ravel(beam.codes[:, None] ^ codes[None])

    best = jnp.lexsort((marks, energies, heights))[: min(_CHOICE * width, width * n)]
    same = marks[best][:, None] == marks[best][None]
    repeated = jnp.any(jnp.tril(same, -1), axis=1)
    best = best[jnp.argsort(repeated, stable=True)]
    repeated = jnp.sort(repeated)
    fill = max(0, width - best.size)
    best = jnp.pad(best, (0, fill))[:width]
    repeated = jnp.pad(repeated, (0, fill), constant_values=True)[:width]

    parent, spin = best // n, best % n
    turned = jnp.arange(n)[None] == spin[:, None]
    return _Beam(
        jnp.where(turned, -beam.spins[parent], beam.spins[parent]),
        energies[best],
        jnp.where(repeated, jnp.inf, heights[best]),
        beam.spent[parent] | (turned & ~toward[parent]),
        marks[best],
    )


class _Flood:
    """The flooded valley around one configuration, and its rim as a heap."""

    def __init__(self, start: np.ndarray, energy: float):
        self.level = energy
        self.rim = [(energy, start.astype(np.int8).tobytes())]
        self.seen = {self.rim[0][1]}

    def lowest(self) -> tuple[float, bytes]:
        """Take the lowest configuration off the rim, and raise the level to it."""
        energy, configuration = heapq.heappop(self.rim)
        self.level = max(self.level, energy)
        return energy, configuration

    def widen(self, energy: float, configuration: bytes, gaps: np.ndarray) -> None:
        """Put the unseen neighbours of a flooded configuration on the rim."""
        spins = np.frombuffer(configuration, np.int8)
        neighbours = np.where(np.eye(len(spins), dtype=bool), -spins, spins).astype(np.int8)
        for row, gap in zip(neighbours, gaps.tolist(), strict=True):
            name = row.tobytes()
            if name not in self.seen:
                self.seen.add(name)
                heapq.heappush(self.rim, (energy + gap, name))


@eqx.filter_jit
def _all_energies(energy: AbstractEnergy, spins: Float[Array | np.ndarray, "K n"]):
    return jax.vmap(energy)(spins)


@eqx.filter_jit
def _all_gaps(energy: AbstractEnergy, spins: Float[Array | np.ndarray, "K n"]):
    return jax.vmap(lambda s: flip_gaps(energy, s))(jnp.asarray(spins))


def _floods(
    energy: AbstractEnergy, spins: np.ndarray, energies: np.ndarray, count: int
) -> tuple[Float[np.ndarray, "K K"], Bool[np.ndarray, "K K"]]:
    """Lower bounds from row to column, and where the flood arrived, so that they are exact."""
    names = {s.astype(np.int8).tobytes(): k for k, s in enumerate(spins)}
    floods = [_Flood(s, float(e)) for s, e in zip(spins, energies, strict=True)]
    lower = np.maximum.outer(energies, energies)
    reached = np.eye(len(spins), dtype=bool)
    for _ in range(count):
        active = [k for k, flood in enumerate(floods) if flood.rim and not reached[k].all()]
        if not active:
            break
        taken = {k: floods[k].lowest() for k in active}
        for k, (_, configuration) in taken.items():
            if (other := names.get(configuration)) is not None and not reached[k, other]:
                reached[k, other], lower[k, other] = True, floods[k].level
        # All rows every time, so that one program serves all.
        rows = spins.copy()
        for k, (_, configuration) in taken.items():
            rows[k] = np.frombuffer(configuration, np.int8)
        gaps = np.asarray(_all_gaps(energy, rows))
        for k, (own, configuration) in taken.items():
            floods[k].widen(own, configuration, gaps[k])
    for k, flood in enumerate(floods):
        bound = max(flood.level, flood.rim[0][0] if flood.rim else flood.level)
        lower[k, ~reached[k]] = np.maximum(lower[k, ~reached[k]], bound)
    both = reached | reached.T
    lower = np.where(reached, lower, np.where(reached.T, lower.T, lower))
    return lower, both
