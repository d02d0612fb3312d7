"""Thermodynamics of the states of a library: ln Z, complexity, overlaps, a rigorous bound.

All sums count a state of multiplicity 2 twice, once for its mirror image. They are sums over the
states that were found: a search that missed some makes ln Z and the complexity too low.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._batches import cast
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractMultilinear
from ..meanfield import NaiveMeanField
from ..search import Library

_Edges = Float[Array | np.ndarray, " edges"]


@from_anywhere
def log_partition(library: Library, beta: Beta) -> Float[Array, ""]:
    """`ln Z = ln sum_a exp(-beta F_a)` of the library's states; minus infinity for none.

    The sum is an estimate (De Dominicis and Young 1983), not a bound: it takes the states for
    disjoint. Minima parted by barriers below 1/beta are one state, which the sum counts more than
    once; that raises ln Z by at most the logarithm of their number. Each F_a has the error of its
    functional. `mixture_bound` is rigorous. Jits, vmaps and differentiates: of states that
    `follow` re-solved, through their free energies.

    Args:
        library: states and their free energies in energy units.
        beta: inverse temperature at which they were found.
    """
    lowest, logits = library.log_weights(beta)
    any_left = jnp.any(jnp.asarray(library.mask))
    # A sum of nothing has derivatives that are no numbers.
    total = jax.nn.logsumexp(jnp.where(any_left, logits, 0.0)) - jnp.asarray(beta * lowest)
    return jnp.where(any_left, total, -jnp.inf)


@from_anywhere
def count_states(library: Library, edges: _Edges) -> Float[Array, " bins"]:
    """Number of states in each bin of free energy, shape `(bins,)`. Jits and vmaps.

    Args:
        library: the states.
        edges: increasing free energies in energy units, shape `(bins + 1,)`; the last bin
            holds its upper edge.

    Raises:
        ValueError: if known `edges` do not increase.
    """
    edges = jnp.asarray(_checked_edges(edges))
    values = jnp.where(library.mask, library.free_energies, edges[0])
    counts, _ = jnp.histogram(values, edges, weights=library.mask * library.multiplicity)
    return counts.astype(edges.dtype)


@from_anywhere
def complexity(
    libraries: Library | Sequence[Library], edges: _Edges, *, cumulative: bool = False
) -> Float[np.ndarray, " bins"]:
    """Logarithm of the number of states against free energy, in nats, shape `(bins,)`.

    Of several libraries, for example one for each sample of the disorder, it is the annealed
    complexity: the logarithm of their mean number of states. The mean over libraries of the
    complexity of each would be the quenched one, which is never larger.

    Args:
        libraries: one library or several.
        edges: increasing free energies in energy units, shape `(bins + 1,)`.
        cumulative: count the states from `edges[0]` to the upper edge of each bin.

    Returns:
        ln of the number, not divided by n; minus infinity where there is no state.

    Raises:
        ValueError: if there is no library, or `edges` do not increase.
    """
    # Not `bool(libraries)`: a library without states is a library.
    several = [libraries] if isinstance(libraries, Library) else list(libraries)
    if len(several) == 0:
        raise ValueError("libraries must hold at least one library, got none")
    mean = np.mean([count_states(library, edges) for library in several], axis=0)
    with np.errstate(divide="ignore"):
        return np.log(np.cumsum(mean) if cumulative else mean)


@from_anywhere
def overlaps(library: Library) -> Float[Array, "K K"]:
    """`q_ab = (1/n) sum_k m_k^a m_k^b`, shape `(K, K)`; 0 where an entry is unused.

    The diagonal holds the self-overlaps (Edwards-Anderson parameters). Where entries have
    multiplicity 2 the sign of q_ab is arbitrary: read `abs(q_ab)`, the overlap modulo the global
    flip, or take `overlaps(library.expanded())`, in which every mirror image has a row of its
    own. Jits and vmaps.
    """
    m = jnp.where(library.mask[:, None], library.magnetizations, 0.0)
    return dot(m, m.T) / m.shape[1]


@from_anywhere
def overlap_distribution(library: Library, beta: Beta, edges: _Edges) -> Float[Array, " bins"]:
    """P(q): chance that two states drawn by weight overlap by q, for each bin, `(bins,)`.

    `sum_ab w_a w_b [q_ab in bin]` over states and mirror images, a = b included (Parisi 1983).
    It is the distribution of the overlaps of pure states: those of two configurations scatter
    about these values by the order of n^-1/2. Sums to 1 if the bins cover [-1, 1]. Jits and vmaps.

    Args:
        library: a library of at least one state.
        beta: inverse temperature.
        edges: increasing overlaps, shape `(bins + 1,)`.

    Raises:
        ValueError: if known `edges` do not increase.
    """
    images = library.expanded()
    return _overlap_distribution(images, images.weights(beta), jnp.asarray(_checked_edges(edges)))


@eqx.filter_jit
def _overlap_distribution(images: Library, w: Array, edges: Array) -> Float[Array, " bins"]:
    q = jnp.clip(overlaps(images), -1.0, 1.0)
    return jnp.histogram(q, edges, weights=w[:, None] * w[None, :])[0]


def _checked_edges(edges: _Edges) -> _Edges:
    """Bins that do not increase would be empty without a word."""
    if not isinstance(edges, Tracer):
        if np.ndim(edges) != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
            raise ValueError(f"edges must be two or more increasing numbers, got {edges}")
    return edges


@from_anywhere
def mixture_bound(energy: AbstractMultilinear, beta: Beta, library: Library) -> float:
    """A rigorous lower bound on ln Z from the mixture of the library's product measures.

    `Q(s) = sum_a w_a prod_k (1 + m_k^a s_k)/2` is a proper distribution, mirror images included,
    so that `ln Z >= S(Q) - beta <E>_Q` (Gibbs). Its mean energy is exact, since E is multilinear.
    Its entropy is bounded from below by the pairwise overlaps of its parts,

        S(Q) >= sum_a w_a [S_a - ln sum_b w_b B_ab],   B_ab = sum_s sqrt(p_a(s) p_b(s)),

    which closes up for parts that coincide (B = 1) and for disjoint ones (B = 0) (Kolchinsky and
    Tracey 2017, with alpha = 1/2). The weights are the naive ones, `w ~ exp(-beta F_a)`
    with `F = U - S/beta`, whatever functional the library came from; a single state that bounds
    better takes their place. Computed in float64.

    Args:
        energy: a multilinear energy of n spins.
        beta: inverse temperature.
        library: states of that energy.

    Returns:
        The bound in nats; minus infinity for an empty library.

    Raises:
        ValueError: if library and energy differ in their number of spins.
    """
    n = np.shape(library.magnetizations)[1]
    if n != energy.n_spins:
        raise ValueError(f"library has states of {n} spins; expected {energy.n_spins} as in energy")
    if library.size == 0:
        return -np.inf
    with jax.enable_x64(True):
        images = jax.tree.map(jnp.asarray, library.expanded())
        m = images.magnetizations.astype(float)
        return float(_mixture_bound(cast(energy, float), jnp.asarray(beta, float), m, images.mask))


@eqx.filter_jit
def _mixture_bound(energy, beta, m, mask):
    depths = jax.vmap(lambda row: -beta * NaiveMeanField()(energy, beta, row))(m)
    depths = jnp.where(mask, depths, -jnp.inf)
    log_w = jax.nn.log_softmax(depths)
    up, down = jnp.sqrt(0.5 * (1 + m)), jnp.sqrt(0.5 * (1 - m))

    def crowding(a):
        """`ln sum_b w_b B_ab`, one row at a time: all of them would take K^2 n numbers."""
        log_b = jnp.sum(jnp.log(up * up[a][None, :] + down * down[a][None, :]), axis=1)
        return jax.nn.logsumexp(log_w + log_b)

    each = jnp.where(mask, depths - jax.lax.map(crowding, jnp.arange(len(m))), 0.0)
    return jnp.maximum(dot(jnp.exp(log_w), each), jnp.max(depths))
