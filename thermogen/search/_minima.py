"""Search for minima: quenches from data, from random corners, by moves from what is held."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Num

from .._checks import as_array, check_count, check_counts, is_traced
from .._placement import from_anywhere, on_host
from .._types import Beta, Key
from ..energies import AbstractEnergy
from ..meanfield import AbstractFunctional, checked_problem
from ..runs import Devices, Folder, run, shows_progress
from ._library import Library
from ._moves import Move, corner
from ._provenance import fingerprint
from ._quench import make_problem
from ._search import Search, SearchState
from ._verify import Verification, precision, verified

# A few more places are held while the search runs: ends that turn out to be one state, or none.
_ROOM = 4
# Starts between two calls of the callback.
_BETWEEN_LOOKS = 64


@from_anywhere
@shows_progress
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
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Library:
    """Enumerate minima of G(m) by quenches from data and from random points near corners.

    First every row of `starts` descends, then `n_starts` starts more. The first 64 of these are
    random corners; each later one is made by one of `moves`, drawn evenly, from two states drawn
    evenly from those held. By default that is a corner
    again, for plain multistart brings more new states in equal time than any move from known
    states or a mix of them (`experiments/moves.py`), and keeps the quenches independent, as
    estimates of completeness want them. Random corners are moved inwards, each spin by as much as
    chance will, for at a corner itself a quench keeps the symmetries of the energy. What ends on
    a saddle all the same goes on down both sides; the states that it finds are held, but it
    counts as a quench that found none. Only verified minima enter the library: saddles and
    points that did not converge never do. Marginal minima between which G does not rise by more
    than rounding, as along a flat valley, are one state.

    Up to 4096 spins a factorisation of the Hessian proves a minimum. Beyond, no matrix is made:
    Lanczos' iteration tells the sign of the lowest curvature, wrongly with a chance of 1e-12, and
    what it leaves open is `unresolved`. So are flat valleys and bifurcations there.

    Under `jax.jit` and `jax.vmap`, over energies, betas and keys, all of this is one program, with
    three differences. Minima are verified in the precision of the energy: to 1e-9 in float64, and
    to 1e-4 in float32. Nothing goes down from saddles, and points of a flat valley are not united.
    The library is padded to `capacity`.

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
        callback: called on the host with the library so far and the number of random starts done,
            after every 64 of them or more. An exception that it raises ends the search.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which descents are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        A `Library` of NumPy arrays, lowest free energy first.

    Raises:
        ValueError: for counts that are not positive, or bad `starts`, `coverage` or `beta`, and
            for more places and spins than this machine has memory for.

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
    given = _checked_starts(energy, starts)
    room = min(len(given) + n_starts, _ROOM * capacity)
    shape = given, n_starts, room, coverage, tuple(moves)
    if is_traced(functional, energy, beta, key, given):
        problem = checked_problem(functional, energy, beta, precision(energy))
        refused: Any = callback
        search = Search.of(problem, *shape)
        ends = run(search, key=key, checkpoint=checkpoint, callback=refused, sharding=sharding)
        return verified(problem, ends, capacity)
    with jax.enable_x64(True):
        problem = make_problem(functional, energy, beta)
        search = Search.of(problem, *shape)
    origin = fingerprint(functional, energy, beta)

    def verification() -> Verification:
        return Verification(problem, bool(search.even), origin, capacity, key)

    final = verification()
    # What a stored search comes to must not depend on when it was looked at.
    seen = final if checkpoint is None else verification()
    looks = None if callback is None else _looks(seen, callback)
    ends = run(search, key=key, checkpoint=checkpoint, callback=looks, sharding=sharding)
    return final.library(ends)


def _checked_starts(
    energy: AbstractEnergy, starts: Num[Array | np.ndarray, "starts n"] | None
) -> Array | np.ndarray:
    n = energy.n_spins
    given = np.zeros((0, n), np.float32) if starts is None else as_array("starts", starts)
    if np.shape(given)[1:] != (n,):
        raise ValueError(f"starts must have shape (starts, {n}), got {np.shape(given)}")
    if isinstance(given, Tracer):
        return given
    given = np.asarray(given)
    if not np.all(np.abs(given) <= 1):
        raise ValueError("starts must lie within [-1, 1]")
    return given


def _looks(
    verification: Verification, callback: Callable[[Library, int], None]
) -> Callable[[SearchState], None]:
    """The callback of a job that calls that of a search, now and then and at the end."""
    seen = 0

    def look(state: SearchState) -> None:
        nonlocal seen
        done = int(state.ends.n_starts)
        if done - seen >= _BETWEEN_LOOKS or not np.any(on_host(state.lanes.start) >= 0):
            seen = done
            callback(verification.library(state.ends), done)

    return look
