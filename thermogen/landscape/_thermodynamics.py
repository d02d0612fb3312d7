"""Thermodynamics of the states of a library: ln Z, complexity, overlaps, a rigorous bound.

All sums count a state of multiplicity 2 twice, once for its mirror image. They are sums over the
states that were found: a search that missed some makes ln Z and the complexity too low.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._batches import cast
from .._checks import check_finite
from .._cold import above_lowest, beta_as, log_sum, resolved_beta
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractMultilinear
from ..meanfield import entropy_at
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

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        # Two states, up and down.
        expected = jnp.log(2.0) - library.free_energies[0]
        assert jnp.isclose(tg.landscape.log_partition(library, 1.0), expected)
        ```
    """
    lowest, logits = library.log_weights(beta)
    return log_sum(logits, jnp.asarray(library.mask)) - jnp.asarray(beta * lowest)


@from_anywhere
def count_states(library: Library, edges: _Edges) -> Float[Array, " bins"]:
    """Number of states in each bin of free energy, shape `(bins,)`. Jits and vmaps.

    Args:
        library: the states.
        edges: increasing free energies in energy units, shape `(bins + 1,)`; the last bin
            holds its upper edge.

    Raises:
        ValueError: if known `edges` do not increase.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        assert tg.landscape.count_states(library, jnp.array([-5.0, 0.0])).tolist() == [2]
        ```
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

    Counts are steps, which have no derivatives: `configurational_entropy` is the same in a form
    that has.

    Args:
        libraries: one library or several.
        edges: increasing free energies in energy units, shape `(bins + 1,)`.
        cumulative: count the states from `edges[0]` to the upper edge of each bin.

    Returns:
        ln of the number, not divided by n; minus infinity where there is no state.

    Raises:
        ValueError: if there is no library, or `edges` do not increase.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        found = tg.landscape.complexity(library, jnp.array([-5.0, 0.0]))

        assert jnp.allclose(found, jnp.log(2.0))
        ```
    """
    # Not `bool(libraries)`: a library without states is a library.
    several = [libraries] if isinstance(libraries, Library) else list(libraries)
    if len(several) == 0:
        raise ValueError("libraries must hold at least one library, got none")
    mean = np.mean([count_states(library, edges) for library in several], axis=0)
    with np.errstate(divide="ignore"):
        return np.log(np.cumsum(mean) if cumulative else mean)


class ConfigurationalEntropy(NamedTuple):
    """Complexity by the Legendre transform of a sum over states.

    Attributes:
        log_sum: `phi(r) = ln sum_a exp(-r beta F_a)`, in nats, shape `()`.
        free_energy: mean F of the states drawn with these weights, in energy units, shape `()`.
        entropy: `phi + r beta <F>`, that of the draw, in nats, shape `()`; the logarithm of the
            number of states about that free energy.
    """

    log_sum: Float[Array, ""]
    free_energy: Float[Array, ""]
    entropy: Float[Array, ""]


@from_anywhere
def configurational_entropy(
    library: Library, beta: Beta, r: float | Float[Array, ""] = 1.0
) -> ConfigurationalEntropy:
    """Complexity as a smooth function of the states: r replicas that lie in one state.

    `phi(r) = ln sum_a exp(-r beta F_a)` (Monasson, Phys. Rev. Lett. 75, 2847 (1995)), mirror images
    counted. At r = 1 the entropy is that of the weights, at r = 0 the logarithm of the number of
    all states; a larger r looks at lower states, a negative one at the highest. A map over r
    draws the curve of `entropy` against `free_energy`, whose slope is r beta. Jits, vmaps and
    differentiates: of states that `follow` re-solved, through their free energies.

    Args:
        library: states and their free energies in energy units.
        beta: inverse temperature at which they were found.
        r: number of replicas, any finite number.

    Returns:
        What `ConfigurationalEntropy` lists; of no states minus infinity, infinity, minus infinity.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        found = tg.landscape.configurational_entropy(library, 1.0)

        assert jnp.isclose(found.entropy, jnp.log(2.0))
        ```
    """
    mask, free_energies = jnp.asarray(library.mask), jnp.asarray(library.free_energies)
    check_finite("r", r)
    largest = jnp.finfo(free_energies.dtype).max
    inverse = jnp.clip(r * beta_as(beta, free_energies.dtype), -largest, largest)
    lowest, above = above_lowest(jnp.where(mask, free_energies, 0.0), mask)
    logits = jnp.log(jnp.asarray(library.multiplicity, above.dtype)) - inverse * above
    total, any_left = log_sum(logits, mask), jnp.any(mask)
    weights = jnp.where(mask, jnp.exp(logits - jnp.where(any_left, total, 0.0)), 0.0)
    mean = dot(weights, jnp.where(mask, above, 0.0))
    return ConfigurationalEntropy(
        total - inverse * lowest,
        jnp.where(any_left, lowest + mean, jnp.inf),
        total + inverse * mean,
    )


@from_anywhere
def overlaps(library: Library) -> Float[Array, "K K"]:
    """`q_ab = (1/n) sum_k m_k^a m_k^b`, shape `(K, K)`; 0 where an entry is unused.

    The diagonal holds the self-overlaps (Edwards-Anderson parameters). Where entries have
    multiplicity 2 the sign of q_ab is arbitrary: read `abs(q_ab)`, the overlap modulo the global
    flip, or take `overlaps(library.expanded())`, in which every mirror image has a row of its
    own. Jits and vmaps.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        q = tg.landscape.overlaps(library.expanded())

        assert q[0, 0] > 0 and jnp.isclose(q[0, 1], -q[0, 0])
        ```
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

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        found = tg.landscape.overlap_distribution(library, 1.0, jnp.array([-1.0, 0.0, 1.0]))

        assert jnp.allclose(found, 0.5)
        ```
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
def mixture_bound(
    energy: AbstractMultilinear, beta: Beta, library: Library
) -> float | Float[Array, ""]:
    """A rigorous lower bound on ln Z from the mixture of the library's product measures.

    `Q(s) = sum_a w_a prod_k (1 + m_k^a s_k)/2` is a proper distribution, mirror images included,
    so that `ln Z >= S(Q) - beta <E>_Q` (Gibbs). Its mean energy is exact, since E is multilinear.
    Its entropy is bounded from below by the pairwise overlaps of its parts,

        S(Q) >= sum_a w_a [S_a - ln sum_b w_b B_ab],   B_ab = sum_s sqrt(p_a(s) p_b(s)),

    which closes up for parts that coincide (B = 1) and for disjoint ones (B = 0) (Kolchinsky and
    Tracey 2017, with alpha = 1/2). The weights are the naive ones, `w ~ exp(-beta F_a)`
    with `F = U - S/beta`, whatever functional the library came from; a single state that bounds
    better takes their place. Computed in float64.

    Under `jax.jit`, `jax.vmap` and derivatives it is a function in the precision of its
    arguments. The bound is stationary neither in m nor in the weights: its derivative by the
    energy is that through the states too where `follow` re-solves them, and that at fixed m where
    the library is given.

    Args:
        energy: a multilinear energy of n spins.
        beta: inverse temperature.
        library: states of that energy.

    Returns:
        The bound in nats, a float; an array where arguments are traced. Minus infinity for an
        empty library.

    Raises:
        ValueError: if library and energy differ in their number of spins.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        assert tg.landscape.mixture_bound(energy, 1.0, library) < tg.exact.log_partition(
            energy, 1.0
        )
        ```
    """
    n = np.shape(library.magnetizations)[1]
    if n != energy.n_spins:
        raise ValueError(f"library has states of {n} spins; expected {energy.n_spins} as in energy")
    is_traced = any(isinstance(x, Tracer) for x in jax.tree.leaves((energy, beta, library)))
    if len(library.mask) == 0 or not (is_traced or library.size):
        return -np.inf
    if is_traced:
        images = jax.tree.map(jnp.asarray, library.expanded())
        return _mixture_bound(energy, beta_as(beta, images.fields.dtype), images)
    with jax.enable_x64(True):
        images = cast(jax.tree.map(jnp.asarray, library.expanded()), jnp.float64)
        return float(_mixture_bound(cast(energy, float), jnp.asarray(beta, float), images))


@eqx.filter_jit
def _mixture_bound(
    energy: AbstractMultilinear, beta: Float[Array, ""], library: Library
) -> Float[Array, ""]:
    """As a function of the effective fields, which is smooth where m saturates."""
    beta = resolved_beta(energy, beta)
    mask = jnp.asarray(library.mask)
    theta = jnp.where(mask[:, None], library.fields, 0.0)
    depths = jax.vmap(lambda row: entropy_at(row) - beta * energy(jnp.tanh(row)))(theta)
    total = log_sum(depths, mask)
    any_left = jnp.any(mask)
    log_w = jnp.where(mask, depths - jnp.where(any_left, total, 0.0), -jnp.inf)
    up, down = (jnp.exp(0.5 * jax.nn.log_sigmoid(2 * side)) for side in (theta, -theta))
    least = jnp.finfo(theta.dtype).tiny

    def crowding(a):
        """`ln sum_b w_b B_ab`, one row at a time: all of them would take K^2 n numbers."""
        shared = jnp.maximum(up * up[a][None, :] + down * down[a][None, :], least)
        return log_sum(log_w + jnp.sum(jnp.log(shared), axis=1), mask)

    each = jnp.where(mask, depths - jax.lax.map(crowding, jnp.arange(len(theta))), 0.0)
    single = jnp.max(jnp.where(mask, depths, -jnp.inf))
    return jnp.where(any_left, jnp.maximum(dot(jnp.exp(log_w), each), single), -jnp.inf)
