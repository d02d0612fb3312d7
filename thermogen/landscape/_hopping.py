"""Batched basin hopping: walkers that leave a minimum by flipping a cluster of spins."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._solution import Solution
from .._types import Beta, Key, Magnetizations
from ..energies import AbstractMultilinear, is_flip_symmetric, local_fields
from ..meanfield import AbstractFunctional
from ._curvature import lowest_curvatures
from ._library import Library
from ._merge import Pool
from ._quench import fall, is_converged, make_problem, starting_fields


def find_bound_states(
    functional: AbstractFunctional,
    energy: AbstractMultilinear,
    beta: Beta,
    *,
    key: Key,
    n_walkers: int = 64,
    n_hops: int = 8,
    capacity: int = 256,
    starts: Num[Array | np.ndarray, "starts n"] | None = None,
    coverage: float | None = None,
    callback: Callable[[Library, int], None] | None = None,
) -> Library:
    """Enumerate minima of G(m) by quenches from data, from random corners, and basin hopping.

    First every row of `starts` and `n_walkers` random corners of the cube are quenched. Then
    `n_walkers` walkers hop: flip a random cluster of spins, quench, and accept the new minimum
    by Metropolis at a temperature equal to the spread of the walkers' free energies (Wales and
    Doye 1997). Only quenches that end in a certified minimum enter the library: saddles and
    points that did not converge never do.

    Args:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        key: random key; equal keys give equal libraries.
        n_walkers: number of walkers.
        n_hops: number of hops of each walker; 0 is plain multistart.
        capacity: most states that the library can hold.
        starts: spins or magnetizations to quench first, for example the data, shape
            `(starts, n)`; see `thermogen.energies.embed` for energies with hidden spins.
        coverage: hop no more once this share of the quenches is estimated to end in states that
            are held (Good and Turing), in (0, 1]; None for all `n_hops`.
        callback: called on the host with the library so far and the number of hops done, at
            first with 0. An exception that it raises ends the search.

    Returns:
        A `Library` of NumPy arrays, lowest free energy first.

    Raises:
        ValueError: for counts that are not positive, or bad `starts`, `coverage` or `beta`.
    """
    for name, count, least in [
        ("n_walkers", n_walkers, 1),
        ("n_hops", n_hops, 0),
        ("capacity", capacity, 1),
    ]:
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")
    if coverage is not None and not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage}")
    key, corner_key, walker_key = jax.random.split(key, 3)
    if starts is not None and np.shape(starts)[1:] != (energy.n_spins,):
        raise ValueError(
            f"starts must have shape (starts, {energy.n_spins}), got {np.shape(starts)}"
        )
    corners = jax.random.rademacher(corner_key, (n_walkers, energy.n_spins), float)
    first = np.asarray(corners) if starts is None else np.concatenate([starts, corners])

    search = _Search(functional, energy, beta, capacity)
    solution = search.quench(first)
    walkers = _draw_walkers(solution, n_walkers, walker_key)
    for hop in range(n_hops + 1):
        if callback is not None:
            callback(search.library(), hop)
        if hop == n_hops or walkers is None or search.covers(coverage):
            break
        key, kick_key, accept_key = jax.random.split(key, 3)
        kicked = _kick(energy, jnp.asarray(walkers[0]), kick_key)
        solution = search.quench(np.asarray(kicked))
        walkers = _accept(walkers, solution, accept_key)
    return search.library()


class _Search:
    """Quenches that collect what they find."""

    def __init__(
        self,
        functional: AbstractFunctional,
        energy: AbstractMultilinear,
        beta: Beta,
        capacity: int,
    ):
        with jax.enable_x64(True):
            self._problem = make_problem(functional, energy, beta)
            symmetric = bool(is_flip_symmetric(self._problem[1]))
        measure = functools.partial(lowest_curvatures, self._problem)
        self._pool = Pool(capacity, symmetric, measure)

    def quench(self, starts: np.ndarray) -> Solution:
        """Where the starts end; the minima among them are counted and held."""
        with jax.enable_x64(True):
            theta = starting_fields(self._problem, starts)
            solution = fall(self._problem, theta, known=self._pool.states)
            found = np.flatnonzero(is_converged(solution))
            self._pool.add(jax.tree.map(lambda x: x[found], solution))
        return solution

    def covers(self, coverage: float | None) -> bool:
        """Whether the hits of the states held claim that coverage."""
        hits = self._pool.hits
        claimed = coverage is not None and np.sum(hits == 1) <= (1 - coverage) * hits.sum()
        return bool(claimed)

    def library(self) -> Library:
        """What was found so far."""
        return self._pool.library(self._problem[1].n_spins)


_Walkers = tuple[Float[np.ndarray, "walkers n"], Float[np.ndarray, " walkers"]]


def _draw_walkers(solution: Solution, n_walkers: int, key: Key) -> _Walkers | None:
    """Walkers start at minima drawn from the first quenches; None where there is no minimum."""
    found = np.flatnonzero(is_converged(solution))
    if found.size == 0:
        return None
    chosen = np.asarray(jax.random.choice(key, found, (n_walkers,), replace=found.size < n_walkers))
    return solution.value[chosen], solution.stats["free_energy"][chosen]


def _accept(walkers: _Walkers, solution: Solution, key: Key) -> _Walkers:
    """Metropolis on the free energies of minima, at the temperature of their spread."""
    held, free_energies = walkers
    proposed = solution.stats["free_energy"]
    spread = np.std(free_energies) + np.finfo(float).tiny
    dice = np.asarray(jax.random.exponential(key, free_energies.shape))
    accept = is_converged(solution) & (proposed - free_energies < spread * dice)
    return np.where(accept[:, None], solution.value, held), np.where(
        accept, proposed, free_energies
    )


@eqx.filter_jit
def _kick(energy: AbstractMultilinear, m: Float[Array, "walkers n"], key: Key):
    keys = jax.random.split(key, m.shape[0])
    return jax.vmap(lambda row, k: flip_cluster(energy, row, k))(m, keys)


def flip_cluster(energy: AbstractMultilinear, m: Magnetizations, key: Key) -> Magnetizations:
    """Flip a random spin together with spins that it couples to, 1 to n/2 in all.

    The size of the cluster is log-uniform. Members are drawn by the strength of their coupling
    to the first spin at m, `|dh_k/dm_first|`, times a random number.
    """
    n = m.size
    dice = jax.random.uniform(key, (n + 2,), m.dtype)
    first = jnp.arange(n) == jnp.floor(n * dice[0])
    _, coupling = jax.jvp(lambda x: local_fields(energy, x), (m,), (first.astype(m.dtype),))
    score = (jnp.abs(coupling) + jnp.finfo(m.dtype).eps ** 2) * dice[2:]
    score = jnp.where(first, jnp.inf, score)
    size = jnp.floor(jnp.exp(dice[1] * jnp.log(n // 2 + 1))).astype(int)
    return jnp.where(score >= jnp.sort(score)[n - size], -m, m)
