"""Search for minima: quenches from data, from random corners, by moves from what is held."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from .._checks import as_array, check_count, check_counts
from .._placement import from_anywhere
from .._solution import Solution
from .._types import Beta, Key, Magnetizations
from ..energies import AbstractEnergy, is_flip_symmetric, local_fields
from ..meanfield import CORNER_FIELD, AbstractFunctional
from ._curvature import lowest_curvatures
from ._library import Library
from ._merge import Pool
from ._provenance import fingerprint, run_of
from ._quench import below_saddles, fall, is_converged, make_problem, starting_fields
from ._same import good_turing
from ._valleys import Valleys

# A new start from two states that are held, shape (2, n), of which it may ignore either.
Move = Callable[[AbstractEnergy, Float[Array, "2 n"], Key], Magnetizations]

# Effective fields of random starts, drawn evenly: |m| from 0.964 to 0.9993.
_DEPTHS = (0.5 * CORNER_FIELD, CORNER_FIELD)
# Starts of the first round; a later one takes as many as were done before it, up to the most.
_LEAST_ROUND, _MOST_ROUND = 64, 1024


def corner(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """A random corner of the cube: plain multistart."""
    return jax.random.rademacher(key, states[0].shape, states.dtype)


def flip_cluster(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """The first state with a random spin flipped and spins that it couples to, 1 to n/2 in all.

    The size of the cluster is log-uniform. Members are drawn by the strength of their coupling
    to the first spin at m, `|dh_k/dm_first|`, times a random number.
    """
    m = states[0]
    n = m.size
    dice = jax.random.uniform(key, (n + 2,), m.dtype)
    first = jnp.arange(n) == jnp.floor(n * dice[0])
    _, coupling = jax.jvp(lambda x: local_fields(energy, x), (m,), (first.astype(m.dtype),))
    score = (jnp.abs(coupling) + jnp.finfo(m.dtype).eps ** 2) * dice[2:]
    score = jnp.where(first, jnp.inf, score)
    size = jnp.floor(jnp.exp(dice[1] * jnp.log(n // 2 + 1))).astype(int)
    return jnp.where(score >= jnp.sort(score)[n - size], -m, m)


def crossover(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """Each spin from one of the two states, at random."""
    a, b = states
    return jnp.where(jax.random.bernoulli(key, shape=a.shape), a, b)


@from_anywhere
def find_minima(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    n_starts: int = 576,
    capacity: int = 256,
    starts: Num[Array | np.ndarray, "starts n"] | None = None,
    coverage: float | None = None,
    moves: Sequence[Move] = (corner,),
    callback: Callable[[Library, int], None] | None = None,
) -> Library:
    """Enumerate minima of G(m) by quenches from data and from random points near corners.

    First every row of `starts` is quenched, then `n_starts` starts more, in rounds. Those of the
    first round are random corners; each later one is made by one of `moves`, drawn evenly, from two
    states drawn evenly from those held. By default that is a corner
    again, for plain multistart brings more new states in equal time than any move from known
    states or a mix of them (`experiments/moves.py`), and keeps the quenches independent, as
    estimates of completeness want them. Random corners are moved inwards, each spin by as much as
    chance will, for at a corner itself a quench keeps the symmetries of the energy. What ends on
    a saddle all the same goes on down both sides; the states that it finds are held, but it
    counts as a quench that found none. Only verified minima enter the library: saddles and
    points that did not converge never do. Marginal minima between which G does not rise by more
    than rounding, as along a flat valley, are one state.

    Args:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        key: random key; equal keys give equal libraries.
        n_starts: number of quenches in all, those of given `starts` not counted.
        capacity: most states that the library can hold.
        starts: spins or magnetizations to quench first, for example the data, shape
            `(starts, n)`; see `thermogen.energies.embed` for energies with hidden spins.
        coverage: stop once this share of random starts is estimated to end in states that are held
            (Good and Turing), in (0, 1]; None for all `n_starts`.
        moves: functions `move(energy, states, key)` that make one start, shape `(n,)`, of two
            states, shape `(2, n)`: `corner`, `flip_cluster`, `crossover` or others.
        callback: called on the host after every round with the library so far and the number of
            starts done. An exception that it raises ends the search.

    Returns:
        A `Library` of NumPy arrays, lowest free energy first.

    Raises:
        ValueError: for counts that are not positive, or bad `starts`, `coverage` or `beta`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        # One row stands for a state and its mirror image.
        assert len(library) == 1 and library.multiplicity[0] == 2
        ```
    """
    n_starts, capacity = check_counts(n_starts=n_starts, capacity=capacity)
    check_count("the number of moves", len(moves))
    if coverage is not None and not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage}")
    starts = None if starts is None else np.asarray(as_array("starts", starts))
    if starts is not None and np.shape(starts)[1:] != (energy.n_spins,):
        raise ValueError(
            f"starts must have shape (starts, {energy.n_spins}), got {np.shape(starts)}"
        )
    if starts is not None and not np.all(np.abs(np.asarray(starts)) <= 1):
        raise ValueError("starts must lie within [-1, 1]")
    search = Search(functional, energy, beta, capacity, key)
    done = min(n_starts, _LEAST_ROUND)
    first, n_given = search.scattered(search.corners(done)), 0
    if starts is not None:
        first, n_given = np.concatenate([np.asarray(starts, float), first]), len(starts)
    search.quench(first, given=np.arange(len(first)) < n_given)
    while True:
        if callback is not None:
            callback(search.library(), done)
        if done == n_starts or search.covers(coverage):
            break
        count = min(n_starts - done, done, _MOST_ROUND)
        chosen = search.rng.integers(len(moves), size=count)
        made, given = search.moved(tuple(moves), chosen)
        search.quench(made, given=given)
        done += count
    return search.library()


class Search:
    """Quenches that collect what they find, and new starts from it."""

    def __init__(
        self,
        functional: AbstractFunctional,
        energy: AbstractEnergy,
        beta: Beta,
        capacity: int,
        key: Key,
    ):
        with jax.enable_x64(True):
            self.problem = make_problem(functional, energy, beta)
            self.symmetric = bool(is_flip_symmetric(self.problem.energy))
        measure = functools.partial(lowest_curvatures, self.problem)
        self.pool = Pool(capacity, self.symmetric, measure)
        self._valleys = Valleys(self.problem, self.symmetric)
        self.rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        self.unresolved = 0
        self._origin = {"fingerprint": fingerprint(functional, energy, beta), "runs": run_of(key)}

    def corners(self, count: int) -> Float[np.ndarray, "count n"]:
        """Random corners of the cube."""
        return self.rng.choice([-1.0, 1.0], (count, self.problem.energy.n_spins))

    def scattered(self, corners: Float[np.ndarray, "count n"]) -> Float[np.ndarray, "count n"]:
        """Points near corners in general position: each spin has a depth of its own."""
        return np.tanh(corners * self.rng.uniform(*_DEPTHS, corners.shape))

    def quench(
        self,
        starts: Num[Array | np.ndarray, "starts n"],
        given: Bool[np.ndarray, " starts"] | None = None,
    ) -> Int[np.ndarray, " new"]:
        """Quench the starts, count and hold the minima, and say which starts brought new ones.

        Starts that were `given`, or made from what is held, are no independent draws. What ends
        on a saddle counts as unresolved; the states below it are held.
        """
        given = np.zeros(len(starts), bool) if given is None else given
        with jax.enable_x64(True):
            theta = starting_fields(np.asarray(starts))
            solution = fall(self.problem, theta, known=self.pool.states)
            good = is_converged(solution)
            self.unresolved += int(np.sum(~good & ~given))
            found = np.flatnonzero(good)
            fresh = self._hold(jax.tree.map(lambda x: x[found], solution), given[found])
            owners, minima = below_saddles(self.problem, solution, self.rng)
            below = owners if minima is None else owners[self._hold(minima, each=0)]
            return np.append(found[fresh], below)

    def _hold(
        self, minima: Solution, given: Bool[np.ndarray, " rows"] | None = None, each: int = 1
    ) -> Int[np.ndarray, " new"]:
        """`Pool.add` of the minima, those along a flat valley as one state."""
        minima, united = self._valleys.represented(minima)
        for state, other in united:
            self.pool.unite(state, other)
        return self.pool.add(minima, given, each)

    def parents(self, count: int) -> Float[np.ndarray, "count 2 n"]:
        """Pairs of states drawn evenly, of corners while none is held.

        Where mirror images count the second of a pair is turned to the side of the first.
        """
        held = self.corners(2 * count) if self.pool.states is None else self.pool.states.value
        pairs = held[self.rng.integers(len(held), size=(count, 2))]
        if self.symmetric:
            opposed = np.sum(pairs[:, 0] * pairs[:, 1], axis=1) < 0
            pairs[opposed, 1] *= -1
        return pairs

    def moved(
        self, moves: tuple[Move, ...], chosen: Int[np.ndarray, " starts"]
    ) -> tuple[Float[np.ndarray, "starts n"], Bool[np.ndarray, " starts"]]:
        """New starts, each by the move chosen for it, and which came from states."""
        key = jax.random.key(int(self.rng.integers(2**31)))
        with jax.enable_x64(True):
            pairs = jnp.asarray(self.parents(len(chosen)))
            starts = np.array(_move(self.problem.energy, moves, pairs, jnp.asarray(chosen), key))
        given = np.array([move is not corner for move in moves])[chosen]
        starts[~given] = self.scattered(starts[~given])
        return starts, given

    def covers(self, coverage: float | None) -> bool:
        """Whether the hits of the states claim that coverage; hits of dropped states are lost."""
        if coverage is None or self.pool.overflow:
            return False
        independent = self.pool.hits - self.pool.given_hits
        return good_turing(independent, self.unresolved) >= coverage

    def library(self) -> Library:
        """What was found so far."""
        held = self.pool.library(self.problem.energy.n_spins)
        return dataclasses.replace(held, unresolved=np.array(self.unresolved), **self._origin)


@eqx.filter_jit
def _move(
    energy: AbstractEnergy,
    moves: tuple[Move, ...],
    pairs: Float[Array, "starts 2 n"],
    chosen: Int[Array, " starts"],
    key: Key,
) -> Float[Array, "starts n"]:
    def single(pair, choice, key):
        # All moves are made, for they cost nothing beside a quench.
        return jnp.stack([move(energy, pair, key) for move in moves])[choice]

    return jax.vmap(single)(pairs, chosen, jax.random.split(key, len(chosen)))
