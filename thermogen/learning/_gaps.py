"""Unknown spins of samples: a gap is a hidden spin of its row, and is summed out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .. import exact
from .._checks import known_spins
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta, Spins
from ..energies import (
    RBM,
    AbstractEnergy,
    Clamped,
    Pairwise,
    conditional_fields,
    has_terms,
    layers,
    n_visible,
    visible_free_energy,
)

# Largest sum for one row, and spins of all configurations that a loss looks at: about a second.
MAX_BITS, _MAX_SPINS = 12, 2**26
# From here on `exact` eliminates spins of narrow graphs.
_FEW = 20

_Sum = Callable[[AbstractEnergy, Beta, Spins, int], Float[Array, ""]]


@from_anywhere
def clamped_free_energy(
    energy: AbstractEnergy,
    beta: Beta,
    cue: Num[Array | np.ndarray, "..."],
    *,
    max_gaps: int,
) -> Float[Array, ""]:
    """Free energy of all configurations that agree with a cue: what is not known is summed out.

    `F(cue) = -T ln sum exp(-beta E)` over hidden spins and those where the cue is 0, so that
    `exp(-beta F(cue)) / Z` is the probability of what is known. `visible_free_energy` where
    nothing is missing. Exact: over the configurations of the gaps, or of a thin layer of hidden
    spins, or by elimination on a narrow graph, whichever takes least.

    Args:
        energy: an energy of n visible spins.
        beta: inverse temperature.
        cue: +1 or -1 where a spin is known, 0 where it is not, shape `(n,)`.
        max_gaps: most spins that may be unknown, which is static: all patterns of so many gaps are
            one program. Where a traced cue has more, the result is NaN.

    Raises:
        ValueError: for a cue of another shape or with other values.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        cue = jnp.array([1, 1, 0])
        known = tg.learning.clamped_free_energy(energy, 1.0, cue, max_gaps=1)
        assert jnp.isclose(known, -jnp.log(jnp.exp(3.0) + jnp.exp(-1.0)))
        ```
    """
    dtype = jnp.result_type(*(jax.tree.leaves(energy) or [float]))
    return free_energy_of(energy, beta, known_spins("cue", cue, n_visible(energy), dtype), max_gaps)


def free_energy_of(
    energy: AbstractEnergy, beta: Beta, cue: Spins, max_gaps: int
) -> Float[Array, ""]:
    """`clamped_free_energy` of a row of samples."""
    if max_gaps == 0:
        return visible_free_energy(energy, beta, cue)
    return _cheapest(energy, max_gaps)[1](energy, beta, cue, max_gaps)


def margins_of(energy: AbstractEnergy, cue: Spins, max_gaps: int) -> Float[Array, " visible"]:
    """`s_k h_k`, half of what F rises by where known spin k is turned; 0 where it is not known."""
    if max_gaps == 0:
        return jnp.asarray(cue) * conditional_fields(energy, 1.0, cue)
    if _cheapest(energy, max_gaps)[1] is not _over_gaps:
        free_energy = jax.vmap(lambda s: free_energy_of(energy, 1.0, s, max_gaps))
        n = jnp.asarray(cue).size
        turned = jnp.where(np.eye(n, dtype=bool), -cue[None], cue[None])
        return 0.5 * (free_energy(turned) - free_energy_of(energy, 1.0, cue, max_gaps))
    corners, _ = _corners(cue, max_gaps)
    free_energies, fields = jax.vmap(
        lambda s: (visible_free_energy(energy, 1.0, s), conditional_fields(energy, 1.0, s))
    )(corners)
    rises = 2 * cue[None] * fields
    turned = jax.nn.logsumexp(-free_energies[:, None] - rises, axis=0)
    return 0.5 * (jax.nn.logsumexp(-free_energies) - turned)


def n_bits(energy: AbstractEnergy, max_gaps: int) -> int:
    """Logarithm to base 2 of the configurations that are summed for a row."""
    return _cheapest(energy, max_gaps)[0]


def can_be_summed(energy: AbstractEnergy, n_samples: int, max_gaps: int) -> bool:
    """Whether all sums of one loss take about a second, and no row a large table."""
    bits = n_bits(energy, max_gaps)
    return bits <= MAX_BITS and n_samples * n_visible(energy) << bits <= _MAX_SPINS


def check_sums(energy: AbstractEnergy, n_samples: int, max_gaps: int) -> None:
    """Raise where unknown spins are too many to be summed out."""
    if max_gaps and not can_be_summed(energy, n_samples, max_gaps):
        raise ValueError(
            f"data have too many unknown spins to be summed out: up to {max_gaps} of "
            f"{n_visible(energy)} in each of {n_samples} rows, at most {MAX_BITS} in a few; "
            "`fit` fills them by chains, and `recall` row by row"
        )


def _cheapest(energy: AbstractEnergy, max_gaps: int) -> tuple[int, _Sum]:
    """The way that sums the least, and how much that is, in bits."""
    ways: list[tuple[int, _Sum]] = [(max_gaps, _over_gaps)]
    pair, n = layers(energy), n_visible(energy)
    if pair is not None and pair.first.size == n:
        ways.append((pair.second.size, _over_hidden))
    listed = has_terms(energy) and not isinstance(energy, Pairwise)
    if listed and n == energy.n_spins > _FEW:
        takes = exact.cost(energy)
        # Two passes over the largest table for each spin.
        if takes.method == "elimination":
            ways.append((takes.width + takes.n_cut + 1, _by_elimination))
    return min(ways, key=lambda way: way[0])


def _corners(cue: Spins, max_gaps: int) -> tuple[Float[Array, "corners n"], Float[Array, ""]]:
    """All configurations of the gaps, and ln of how often each occurs."""
    is_gap = jnp.asarray(cue) == 0
    # The r-th gap is bit r of the corner. Bits that no gap takes make copies.
    rank = jnp.cumsum(is_gap) - 1
    bits = np.arange(2**max_gaps)[:, None] >> rank[None, :] & 1
    corners = jnp.where(is_gap[None, :], (2 * bits - 1).astype(cue.dtype), cue[None, :])
    spare = max_gaps - jnp.sum(is_gap)
    return jnp.where(spare >= 0, corners, jnp.nan), (spare * np.log(2)).astype(corners.dtype)


def _over_gaps(energy: AbstractEnergy, beta: Beta, cue: Spins, max_gaps: int) -> Float[Array, ""]:
    corners, log_copies = _corners(cue, max_gaps)
    free_energies = jax.vmap(lambda s: visible_free_energy(energy, beta, s))(corners)
    lowest = jax.lax.stop_gradient(jnp.min(free_energies))
    log_sum = jax.nn.logsumexp(-beta * (free_energies - lowest)) - log_copies
    return lowest - log_sum / beta


def _over_hidden(energy: AbstractEnergy, beta: Beta, cue: Spins, max_gaps: int) -> Float[Array, ""]:
    """The free energy of a machine on which what is known acts as fields on hidden spins."""
    pair, known = layers(energy), cue != 0
    assert pair is not None
    free = RBM(
        jnp.where(known[:, None], 0, pair.weights),
        jnp.where(known, 0, pair.first),
        pair.second + dot(cue, pair.weights),
    )
    return exact.free_energy(free, beta) + _of_known(cue, beta) - dot(cue, pair.first)


def _by_elimination(
    energy: AbstractEnergy, beta: Beta, cue: Spins, max_gaps: int
) -> Float[Array, ""]:
    return exact.free_energy(Clamped(energy, cue), beta) + _of_known(cue, beta)


def _of_known(cue: Spins, beta: Beta) -> Float[Array, ""]:
    """Sums count both values of a known spin on which nothing acts."""
    return jnp.sum(jnp.square(cue)) * float(np.log(2)) / beta
