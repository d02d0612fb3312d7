"""The search as a job: which starts are handed out, and when it is done."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._batches import cast
from .._bits import folded, random_words
from .._checks import check_memory, is_traced
from .._types import Key
from ..energies import is_flip_symmetric
from ..meanfield import CORNER_FIELD, Problem
from ..runs import AbstractJob, on_all
from ._harvest import Ends, harvested, no_ends
from ._lanes import Lanes, advanced, begun, power_of_two
from ._moves import Move, corner

# So many random starts come before any move, and before any claim of coverage.
_FIRST = 64
# Numbers of lanes, and starts that there are for each at least.
_LANES, _STARTS_A_LANE = (16, 64, 256), 9


class SearchState(NamedTuple):
    """A search under way: all that the next step needs.

    Attributes:
        lanes: the descents.
        ends: what is held.
        codes: projections of what is held, by which it is looked up, shape `(codes, C)`.
        issued: starts handed out.
        more: whether there are more to be handed out.
        key: of the random starts.
    """

    lanes: Lanes
    ends: Ends
    codes: Float[Array, "codes C"]
    issued: Int[Array, ""]
    more: Bool[Array, ""]
    key: Key


class Search(AbstractJob):
    """Descents of G from given starts and from random ones, in lanes of one program.

    A lane whose descent has ended is harvested, and gets the next start at once. Ends that lie
    together are one. `result` gives the `Ends`, in float32; `find_minima` verifies them. Maps over
    energies, betas and keys.

    Attributes:
        problem: what is minimised.
        even: whether a state and its mirror image are one.
        starts: spins or magnetizations to descend from first, shape `(S, n)`.
        n_given: how many of these rows are starts; the rest is padding.
        n_starts: number of random starts.
        room: most places that are held.
        coverage: hand out no more starts once this share of random ones is estimated to end in
            places held; infinite for all of them.
        moves: how later random starts are made from what is held, as for `find_minima`.
        n_lanes: descents at a time.
        max_steps: limit on the steps of one descent.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        problem = tg.meanfield.Problem(tg.NaiveMeanField(), energy, 1.0)
        job = tg.search.Search.of(problem, jnp.ones((1, 3)), 15, 8, None, (tg.search.corner,))
        ends = tg.run(job, key=jax.random.key(0))

        assert ends.n_starts == 15 and ends.given_hits.sum() == 1
        ```
    """

    problem: Problem
    even: Bool[Array, ""]
    starts: Float[Array, "S n"]
    n_given: Int[Array, ""]
    n_starts: Int[Array, ""]
    coverage: Float[Array, ""]
    room: int = eqx.field(static=True)
    n_lanes: int = eqx.field(static=True)
    moves: tuple[Move, ...] = eqx.field(static=True, default=(corner,))
    max_steps: int = eqx.field(static=True, default=4096)

    @classmethod
    def of(
        cls,
        problem: Problem,
        starts: Float[Array | np.ndarray, "S n"],
        n_starts: int,
        room: int,
        coverage: float | None,
        moves: tuple[Move, ...],
    ) -> "Search":
        """A search of shapes that suit many: new numbers of starts seldom compile anew.

        Whether the energy is even is judged in the precision that it comes in.
        """
        total = len(starts) + n_starts
        # Where starts are made from what is held, not too many are under way at a time.
        most = _LANES[-1] if all(move is corner for move in moves) else _FIRST
        # On a processor idle lanes cost: with some starts for each, few are idle before the end.
        most = min(most, total // (_STARTS_A_LANE if jax.default_backend() == "cpu" else 1))
        n_lanes = max(lanes for lanes in _LANES if lanes <= max(most, _LANES[0]))
        padding = power_of_two(len(starts)) - len(starts)
        n, places = problem.energy.n_spins, power_of_two(room)
        # In single precision: all places twice, and what descents hold.
        needed = 4 * n * (2 * places + 16 * n_lanes + len(starts))
        check_memory(f"a search of {n} spins with room for {room} ends", needed)
        xp = np if isinstance(starts, np.ndarray) else jnp
        return cls(
            _in_float32(problem),
            is_flip_symmetric(problem.energy),
            jnp.asarray(xp.pad(starts, ((0, padding), (0, 0))), jnp.float32),
            jnp.asarray(len(starts), jnp.int32),
            jnp.asarray(n_starts, jnp.int32),
            jnp.asarray(jnp.inf if coverage is None else coverage, jnp.float32),
            places,
            n_lanes,
            moves,
        )

    def init(self, key: Key) -> SearchState:
        n, number = self.problem.energy.n_spins, jnp.zeros((), jnp.int32)
        fields = jnp.zeros((self.n_lanes, n), jnp.float32)
        count = jnp.zeros(self.n_lanes, jnp.int32)
        none = Lanes(fields, begun(fields), count, count - 1, count > 0)
        ends, codes = no_ends(self.room, n)
        more = self.n_given + self.n_starts > 0
        return SearchState(none, ends, codes, number, more, key)

    def step(self, state: SearchState) -> SearchState:
        problem, state = self.problem, self._refilled(state)
        lanes, ended = advanced(problem, state.lanes, self.max_steps)
        # A user's energy may compute in double precision whatever it is given.
        g = jax.vmap(problem.free_energy_at)(lanes.fields).astype(jnp.float32)
        sound = ended & jnp.isfinite(g) & jnp.all(jnp.isfinite(lanes.fields), axis=1)
        # All devices hold the table of ends, and enter into it what all lanes came to.
        came = on_all((lanes, sound, g))
        ends, codes = harvested(state.ends, state.codes, self.even, *came)
        random = lanes.start >= self.n_given
        lost = jnp.sum(ended & ~sound & ~lanes.given, dtype=jnp.int32)
        ends = ends._replace(
            lost=ends.lost + lost,
            n_starts=ends.n_starts + jnp.sum(ended & random, dtype=jnp.int32),
        )
        lanes = lanes._replace(start=jnp.where(ended, -1, lanes.start))
        more = (state.issued < self.n_given + self.n_starts) & ~self._covers(ends)
        return state._replace(lanes=lanes, ends=ends, codes=codes, more=more)

    def done(self, state: SearchState) -> Bool[Array, ""]:
        return ~state.more & ~jnp.any(state.lanes.start >= 0)

    def amount(self, state: SearchState) -> tuple[int, int]:
        return int(state.issued), int(self.n_given + self.n_starts)

    def lanes(self, state: SearchState) -> PyTree[int | None]:
        return state._replace(lanes=0, ends=None, codes=None, issued=None, more=None, key=None)

    def result(self, state: SearchState) -> Ends:
        return state.ends

    def _refilled(self, state: SearchState) -> SearchState:
        """The next starts in the lanes that are idle, as long as there are any."""
        idle = state.lanes.start < 0
        number = state.issued + jnp.cumsum(idle, dtype=jnp.int32) - 1
        begin = idle & (number < self.n_given + self.n_starts) & state.more
        # By its number each random start has a key of its own, so that a longer search repeats the
        # starts of a shorter one.
        draws = jnp.maximum(number - self.n_given, 0)
        keys = folded(state.key, draws)
        fields = self._scattered(keys)
        given = number < self.n_given
        if any(move is not corner for move in self.moves):
            moved, is_corner = jax.vmap(lambda k: self._moved(state, k))(keys)
            by_move = ~is_corner & (number >= self.n_given + _FIRST)
            by_move &= jnp.any(jnp.isfinite(state.ends.free_energies))
            fields, given = jnp.where(by_move[:, None], moved, fields), given | by_move
        if len(self.starts):
            own = jnp.arctanh(self.starts[jnp.clip(number, 0, len(self.starts) - 1)])
            own = jnp.clip(own, -CORNER_FIELD, CORNER_FIELD)
            fields = jnp.where((number < self.n_given)[:, None], own, fields)

        def chosen(new, kept):
            return jnp.where(begin.reshape(-1, *[1] * (new.ndim - 1)), new, kept)

        fresh = Lanes(fields, begun(fields), jnp.zeros_like(number), number, given)
        lanes = jax.tree.map(chosen, fresh, state.lanes)
        issued = state.issued + jnp.sum(begin, dtype=jnp.int32)
        return state._replace(lanes=lanes, issued=issued)

    def _scattered(self, keys: Array) -> Float[Array, "L n"]:
        """Effective fields near a random corner, not at it: |m| from 0.964 to 0.9993."""
        words = random_words(keys, jnp.arange(self.problem.energy.n_spins), 32).T
        # The bits of a float in [1, 2).
        size = jax.lax.bitcast_convert_type((words >> 9) | np.uint32(0x3F800000), jnp.float32)
        return jnp.where(words & 1, -size, size) * 0.5 * CORNER_FIELD

    def _moved(self, state: SearchState, key: Key):
        """A start by one of the moves, drawn evenly, from two places drawn evenly."""
        keys = jax.random.split(key, 3)
        # Places are filled from the first one on, and stay filled.
        size = jnp.sum(jnp.isfinite(state.ends.free_energies))
        rows = jax.random.randint(keys[0], (2,), 0, jnp.maximum(size, 1))
        pair = jnp.tanh(state.ends.fields[rows])
        # A pair of an even energy is turned to one side.
        opposed = self.even & (jnp.sum(pair[0] * pair[1]) < 0)
        pair = pair.at[1].multiply(jnp.where(opposed, -1, 1))
        energy = self.problem.energy
        made = jnp.stack([move(energy, pair, keys[1]) for move in self.moves])
        choice = jax.random.randint(keys[2], (), 0, len(self.moves))
        theta = jnp.clip(jnp.arctanh(made[choice]), -CORNER_FIELD, CORNER_FIELD)
        return theta, jnp.array([move is corner for move in self.moves])[choice]

    def _covers(self, ends: Ends) -> Bool[Array, ""]:
        """Whether the hits claim the coverage that is asked for (Good and Turing)."""
        own = ends.hits - ends.given_hits
        alone, total = jnp.sum(own == 1) + ends.lost, jnp.sum(own) + ends.lost
        enough = jnp.minimum(_FIRST, self.n_starts)
        claimed = 1 - alone / jnp.maximum(total, 1)
        return (total >= enough) & ~ends.overflow & (claimed >= self.coverage)


def _in_float32(problem: Problem) -> Problem:
    """Known numbers are cast on the host: no program is compiled for that."""
    if not is_traced(problem):
        problem = jax.tree.map(np.asarray, problem)
    return cast(problem, jnp.float32)
