"""Barriers as differentiable functions of the parameters: minimax over followed saddles."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._placement import from_anywhere
from ._barriers import Barriers
from ._follow import Followed


class Heights(NamedTuple):
    """Minimax free energies between K followed states, over the saddles that are still there.

    All are G in energy units, infinite where there is no way, or no state any more.

    Attributes:
        heights: lowest G at which two states are joined, by any chain of saddles, shape `(K, K)`,
            symmetric; of mirror images the nearer. The diagonal is G of the states.
        mirror_heights: lowest G at which a state and its own mirror image are joined, shape
            `(K,)`; infinite where the entry stands for itself alone.
        barriers: how far the lowest saddle that leads out of each state, to whatever minimum, lies
            above it, shape `(K,)`. Times beta it is the Arrhenius estimate of the logarithm of the
            escape time.
    """

    heights: Float[Array, "K K"]
    mirror_heights: Float[Array, " K"]
    barriers: Float[Array, " K"]


@from_anywhere
def minimax_heights(barriers: Barriers, states: Followed, saddles: Followed) -> Heights:
    """Barriers at new parameters, differentiable: those of followed states and saddles.

    Each height is the free energy of one saddle, the bottleneck, and so are its derivatives; where
    two saddles are equally low they are those of either. A saddle is taken to join the minima that
    it joined where it was found, unless it or one of them is not there any more; then it counts
    for nothing, and `barriers` anew finds what took its place. Jits, vmaps and differentiates.

    Args:
        barriers: what `thermogen.barriers` found for a library.
        states: that library, followed to the new parameters.
        saddles: `barriers`, followed to the same parameters.

    Raises:
        ValueError: if the numbers of states or saddles are not those of `barriers`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        found = tg.barriers(naive, energy, 1.0, library)

        def barrier(beta):
            states, saddles = (
                tg.landscape.follow(naive, energy, beta, rows) for rows in (library, found)
            )
            return tg.landscape.minimax_heights(found, states, saddles).barriers[0]

        assert jax.grad(barrier)(1.0) > 0  # the magnet holds better in the cold
        ```
    """
    check_rows(barriers, states, saddles)
    ends, parity = jnp.asarray(barriers.ends), jnp.asarray(barriers.parity)
    return _heights(ends, parity, len(barriers.others), states, saddles)


def check_rows(barriers: Barriers, states: Followed, saddles: Followed) -> None:
    """Refuse states and saddles that `barriers` does not speak of."""
    wanted = {"states": len(barriers.heights), "saddles": len(barriers.ends)}
    for (name, count), rows in zip(wanted.items(), (states, saddles), strict=True):
        if len(rows.exists) != count:
            raise ValueError(
                f"{name} must have the {count} rows of barriers, got {len(rows.exists)}"
            )


def passes(
    ends: Int[Array, "S 2"], parity: Int[Array, " S"], states: Followed, saddles: Followed
) -> Array:
    """Which saddles join two minima that are there, other ones than each itself, `(S,)`."""
    there = jnp.append(states.exists, True)[jnp.minimum(ends, len(states.exists))]
    leads_back = (ends[:, 0] == ends[:, 1]) & (parity >= 0)
    return saddles.exists & jnp.all((ends >= 0) & there, axis=1) & ~leads_back


@eqx.filter_jit
def _heights(
    ends: Int[Array, "S 2"],
    parity: Int[Array, " S"],
    n_others: int,
    states: Followed,
    saddles: Followed,
) -> Heights:
    """The minimax is taken over ranks, so that what is differentiated is one look-up."""
    k, n_saddles = len(states.exists), len(ends)
    count = k + n_others
    passable = passes(ends, parity, states, saddles)
    order = jnp.argsort(jnp.where(passable, jax.lax.stop_gradient(saddles.free_energies), jnp.inf))
    rank = jnp.where(passable, jnp.argsort(order), n_saddles)
    by_rank = jnp.append(saddles.free_energies[order], jnp.inf)
    links = _links(ends, parity, rank, count)
    closed = jax.lax.fori_loop(
        0, 2 * count, lambda c, h: jnp.minimum(h, jnp.maximum(h[:, c, None], h[None, c])), links
    )
    between = jnp.minimum(closed[:k, :k], closed[:k, count : count + k])
    own = jnp.where(
        states.multiplicity == 2, jnp.diagonal(closed[:k, count : count + k]), n_saddles
    )
    depths = jnp.where(states.exists, states.free_energies, jnp.inf)
    nearest = jnp.min(links[:k], axis=1, initial=n_saddles)
    return Heights(
        jnp.where(jnp.eye(k, dtype=bool), depths[:, None], by_rank[between]),
        by_rank[own],
        jnp.where(nearest < n_saddles, by_rank[nearest] - states.free_energies, jnp.inf),
    )


def _links(
    ends: Int[Array, "S 2"], parity: Int[Array, " S"], rank: Int[Array, " S"], count: int
) -> Int[Array, "nodes nodes"]:
    """Rank of the lowest saddle between any two minima; mirror images are nodes of their own."""
    n_saddles = len(rank)
    first, second = jnp.maximum(ends, 0).T
    links = jnp.full((2 * count, 2 * count), n_saddles, rank.dtype)
    for shift, sign in ((0, 1), (count, -1)):  # the images of both ends, or of one of them
        ranks = jnp.where(parity * sign >= 0, rank, n_saddles)
        for a, b in ((first, second + shift), (first + count, second + count - shift)):
            links = links.at[a, b].min(ranks).at[b, a].min(ranks)
    return links
