"""The search as a job: lanes of descents that are harvested as they end, and the ends held."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .._batches import cast
from .._bits import folded, random_words
from .._compile import compiled_quickly
from .._linalg import dot
from .._types import Key, Magnetizations
from ..energies import AbstractEnergy, is_flip_symmetric, local_fields
from ..meanfield import CORNER_FIELD, MirrorDescent, Problem
from ..runs import AbstractJob

# A new start from two states that are held, shape (2, n), of which it may ignore either.
Move = Callable[[AbstractEnergy, Float[Array, "2 n"], Key], Magnetizations]

# All starts descend in float32; what comes together counts as one.
ROUGH = MirrorDescent(rtol=1e-6, atol=1e-5)
# Ends that a descent left closer than this are taken to be one.
TOGETHER = 1e-3
# So many random starts come before any move, and before any claim of coverage.
_FIRST = 64
# Steps of the descents between two harvests, and projections by which ends are looked up.
_STEPS, _N_CODES = 16, 2
# Numbers of lanes, and starts that there are for each at least.
_LANES, _STARTS_A_LANE = (16, 64, 256), 9
# Magnetizations that are advanced together, and columns in which the least of many is sought.
_BLOCK, _COLUMNS = 2**14, 64
# A descent begins and ends by what its state says, and asks for no function then.
_NO_FUNCTION: Any = None


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


class Ends(NamedTuple):
    """Where descents came to rest, each place once, in no order: not verified yet.

    Attributes:
        fields: effective fields theta of each place, m = tanh(theta), shape `(C, n)`.
        free_energies: G in energy units, shape `(C,)`; infinite where unused.
        hits: descents that ended in each, shape `(C,)`.
        given_hits: how many of them came from starts that were given, or made from others.
        overflow: whether places were dropped because there was no room; the lowest are kept.
        lost: independent descents that ended nowhere, where numbers are no longer finite.
        n_starts: descents that have ended, those of given starts not counted.
    """

    fields: Float[Array, "C n"]
    free_energies: Float[Array, " C"]
    hits: Int[Array, " C"]
    given_hits: Int[Array, " C"]
    overflow: Bool[Array, ""]
    lost: Int[Array, ""]
    n_starts: Int[Array, ""]


class _Lanes(NamedTuple):
    """Descents under way.

    Attributes:
        fields: where each is, shape `(L, n)`.
        descent: state of the minimiser of each.
        n_steps: steps that each has taken, shape `(L,)`.
        start: number of its start, shape `(L,)`; -1 where a lane is idle.
        given: whether that start is no independent draw, shape `(L,)`.
    """

    fields: Float[Array, "L n"]
    descent: Any
    n_steps: Int[Array, " L"]
    start: Int[Array, " L"]
    given: Bool[Array, " L"]


class _Table(NamedTuple):
    """What is held while lanes are harvested.

    Attributes:
        lane: the lane whose end lies in each place, -1 where it was held before, shape `(C,)`.
        codes: by which ends are looked up, shape `(codes, C)`; infinite where unused.
        levels, hits, given_hits, overflow: as in `Ends`.
    """

    lane: Int[Array, " C"]
    codes: Float[Array, "codes C"]
    levels: Float[Array, " C"]
    hits: Int[Array, " C"]
    given_hits: Int[Array, " C"]
    overflow: Bool[Array, ""]


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

    lanes: _Lanes
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
        padding = _power_of_two(len(starts)) - len(starts)
        xp = np if isinstance(starts, np.ndarray) else jnp
        return cls(
            _in_float32(problem),
            _is_even(problem.energy),
            jnp.asarray(xp.pad(starts, ((0, padding), (0, 0))), jnp.float32),
            jnp.asarray(len(starts), jnp.int32),
            jnp.asarray(n_starts, jnp.int32),
            jnp.asarray(jnp.inf if coverage is None else coverage, jnp.float32),
            _power_of_two(room),
            n_lanes,
            moves,
        )

    def init(self, key: Key) -> SearchState:
        n, number = self.problem.energy.n_spins, jnp.zeros((), jnp.int32)
        room = self.room
        fields = jnp.zeros((self.n_lanes, n), jnp.float32)
        count = jnp.zeros(self.n_lanes, jnp.int32)
        none = _Lanes(fields, _begun(fields), count, count - 1, count > 0)
        empty = jnp.zeros(room, jnp.int32)
        ends = Ends(
            jnp.zeros((room, n), jnp.float32),
            jnp.full(room, jnp.inf, jnp.float32),
            empty,
            empty,
            jnp.array(False),
            number,
            number,
        )
        codes = jnp.full((_N_CODES, room), jnp.inf, jnp.float32)
        more = self.n_given + self.n_starts > 0
        return SearchState(none, ends, codes, number, more, key)

    def step(self, state: SearchState) -> SearchState:
        problem, state = self.problem, self._refilled(state)
        lanes, ended = _advanced(problem, state.lanes, self.max_steps)
        # A user's energy may compute in double precision whatever it is given.
        g = jax.vmap(problem.free_energy_at)(lanes.fields).astype(jnp.float32)
        sound = ended & jnp.isfinite(g) & jnp.all(jnp.isfinite(lanes.fields), axis=1)
        ends, codes = self._harvested(state, lanes, sound, g)
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

    def result(self, state: SearchState) -> Ends:
        return state.ends

    def _harvested(
        self, state: SearchState, lanes: _Lanes, sound: Bool[Array, " L"], g: Float[Array, " L"]
    ) -> tuple[Ends, Float[Array, "codes C"]]:
        """What is held with the ends of the lanes that are `sound`: new ones, and hits.

        They come one by one: loops over scatters, which a processor needs for many at a time,
        take long to compile. The rows themselves are moved at the end.
        """
        ends, m = state.ends, lanes.descent.m
        codes, places = _codes(m), jnp.arange(self.room)

        def enter(carry):
            waiting, held, table = carry
            lane = jnp.argmax(waiting)
            away = apart(codes[:, lane], table.codes, self.even)
            nearest = _least(away)
            owner = table.lane[nearest]
            near = jnp.where(owner < 0, jnp.tanh(ends.fields[nearest]), m[owner])
            known = jnp.isfinite(away[nearest])
            known &= apart(m[lane], near, self.even) < TOGETHER
            # What is new takes an unused place, and where there is none the highest.
            full = held == self.room
            highest = jax.lax.cond(full, jnp.argmax, lambda _: held, table.levels)
            place = jnp.where(known, nearest, highest)
            enters = known | (g[lane] < table.levels[place])
            new = _Table(
                jnp.where(known, owner, lane.astype(jnp.int32)),
                jnp.where(known, table.codes[:, nearest], codes[:, lane]),
                jnp.where(known, table.levels[nearest], g[lane]),
                jnp.where(known, table.hits[place], 0) + 1,
                jnp.where(known, table.given_hits[place], 0) + lanes.given[lane],
                table.overflow | (~known & full),
            )
            here = enters & (places == place)

            def put(value, held):
                if not held.ndim:
                    return value
                return jnp.where(here if held.ndim == 1 else here[None], value[..., None], held)

            held = held + (~known & ~full)
            waiting = waiting & (jnp.arange(len(g)) != lane)
            return waiting, held, jax.tree.map(put, new, table)

        empty = jnp.full(self.room, -1, jnp.int32)
        table = _Table(
            empty, state.codes, ends.free_energies, ends.hits, ends.given_hits, ends.overflow
        )
        carry = sound, jnp.sum(jnp.isfinite(ends.free_energies)), table
        table = jax.lax.while_loop(lambda carry: jnp.any(carry[0]), enter, carry)[2]
        fields = jnp.where((table.lane < 0)[:, None], ends.fields, lanes.fields[table.lane])
        return ends._replace(
            fields=fields,
            free_energies=table.levels,
            hits=table.hits,
            given_hits=table.given_hits,
            overflow=table.overflow,
        ), table.codes

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

        fresh = _Lanes(fields, _begun(fields), jnp.zeros_like(number), number, given)
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


_is_even = compiled_quickly(is_flip_symmetric)


def _in_float32(problem: Problem) -> Problem:
    """Known numbers are cast on the host: no program is compiled for that."""
    if not any(isinstance(x, Tracer) for x in jax.tree.leaves(problem)):
        problem = jax.tree.map(np.asarray, problem)
    return cast(problem, jnp.float32)


def _power_of_two(count: int) -> int:
    """The smallest that is no less; 0 of none."""
    return 1 << (count - 1).bit_length() if count else 0


def _begun(fields: Float[Array, "L n"]):
    return jax.vmap(lambda row: ROUGH.init(_NO_FUNCTION, row, None, {}, None, None, frozenset()))(
        fields
    )


def _least(values: Float[Array, " C"]) -> Int[Array, ""]:
    """Where the least of a power of two of values is: of many columns at a time, then of one."""
    table = values.reshape(-1, min(_COLUMNS, values.size))
    column = jnp.argmin(jnp.min(table, axis=0))
    return jnp.argmin(table[:, column]) * table.shape[1] + column


def _is_over(lanes: _Lanes, max_steps: int) -> Bool[Array, " L"]:
    def single(row, descent):
        return ROUGH.terminate(_NO_FUNCTION, row, None, {}, descent, frozenset())[0]

    return jax.vmap(single)(lanes.fields, lanes.descent) | (lanes.n_steps >= max_steps)


def _advanced(problem: Problem, lanes: _Lanes, max_steps: int) -> tuple[_Lanes, Bool[Array, " L"]]:
    """All lanes some steps on, fewer where all descents end before; and which have ended."""

    def residual(theta, _):
        return problem.residual(theta), None

    def single(row, descent):
        row, descent, _ = ROUGH.step(residual, row, None, {}, descent, frozenset())
        return row, descent

    def step(carry):
        lanes, busy, count = carry
        moved = jax.vmap(single)(lanes.fields, lanes.descent)
        kept = lanes.fields, lanes.descent
        fields, descent = jax.tree.map(
            lambda new, old: jnp.where(busy.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            moved,
            kept,
        )
        lanes = lanes._replace(fields=fields, descent=descent, n_steps=lanes.n_steps + busy)
        return lanes, busy & ~_is_over(lanes, max_steps), count + 1

    def advance(lanes):
        # What has ended was harvested: all lanes that are not idle go on.
        carry = lanes, lanes.start >= 0, jnp.zeros((), jnp.int32)
        return jax.lax.while_loop(
            lambda carry: (carry[2] < _STEPS) & jnp.any(carry[1]), step, carry
        )[:2]

    # Towards the end, when most lanes are idle, most blocks take no step.
    rows, n = lanes.fields.shape
    size = min(rows, max(_LANES[0], _power_of_two(_BLOCK // n)))
    blocks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), lanes)
    lanes, busy = jax.tree.map(
        lambda x: x.reshape(rows, *x.shape[2:]), jax.lax.map(advance, blocks)
    )
    return lanes, (lanes.start >= 0) & ~busy


def _codes(m: Float[Array, "rows n"]) -> Float[Array, "codes rows"]:
    """Projections on a few random directions: rows that lie together have close ones."""
    probes = np.random.default_rng(0).normal(size=(m.shape[1], _N_CODES))
    return dot(m, jnp.asarray(probes, m.dtype)).T


def apart(
    one: Float[Array, " k"], others: Float[Array, "k ..."], symmetric: Bool[Array, ""]
) -> Float[Array, "..."]:
    """Largest difference of a column from each of others, modulo the flip where `symmetric`."""
    one = one.reshape(-1, *[1] * (others.ndim - 1))
    away = jnp.max(jnp.abs(others - one), axis=0)
    mirrored = jnp.max(jnp.abs(others + one), axis=0)
    return jnp.where(symmetric, jnp.minimum(away, mirrored), away)
