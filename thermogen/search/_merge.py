"""Merge points of a landscape on the host, in time that hardly grows with how many are held."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from .._solution import Solution
from ..meanfield import RESULTS
from ._library import Library, of_minima
from ._same import MERGE_TOLERANCE, distances

# Points that a descent left closer than this, with equal patterns, are taken to have one end.
_TOGETHER = 1e-3
# Smaller magnetizations count as undecided in a pattern: their signs may be noise.
_UNDECIDED = 0.05


def leaders(
    m: Float[np.ndarray, "rows n"], symmetric: bool
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """For each row the first row that it lies together with, and whether as its mirror image.

    Rows lie together whose signs agree and which differ nowhere by more than 1e-3, modulo the
    global flip where `symmetric`. They are hashed by their signs: no distance matrix is made.

    Returns:
        Index of the leader of each row, its own if it is one; and the sign, +-1, with which the
        leader stands for the row.
    """
    pattern = np.where(np.abs(m) > _UNDECIDED, np.sign(m), 0).astype(np.int8)
    sign = np.ones(len(m), np.int8)
    if symmetric:
        decided = pattern[np.arange(len(m)), np.argmax(pattern != 0, axis=1)]
        sign = np.where(decided < 0, -1, 1).astype(np.int8)
        pattern = pattern * sign[:, None]
    codes = pattern.view(np.dtype((np.void, pattern.shape[1])))[:, 0]
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    leader = first[inverse]
    turned = (sign * sign[leader])[:, None] * m[leader]
    apart = np.abs(m - turned).max(axis=1) > _TOGETHER
    leader = np.where(apart, np.arange(len(m)), leader)
    return leader, sign * sign[leader]


class Pool:
    """The states of a search while it runs: verified minima, each held once.

    States are looked up by their projection on a random direction, cut into cells: only those in
    the same cell or next to it are compared. `library` is what the search hands out.

    Args:
        capacity: most states to hold; beyond it those of highest G give way.
        symmetric: whether a state and its mirror image are one.
        curvatures: lowest curvatures of states from their effective fields; asked once for each.

    Attributes:
        states: the states held, `value` their magnetizations; None before the first.
        hits: number of quenches that ended in each, and
        given_hits: number of hits that were no independent draws.
        overflow: whether states were dropped for lack of room.
    """

    def __init__(
        self, capacity: int, symmetric: bool, curvatures: Callable[[np.ndarray], np.ndarray]
    ):
        self._capacity, self._symmetric, self._measure = capacity, symmetric, curvatures
        self.overflow = False
        self._cells: dict[int, list[int]] = {}
        self._curvatures = np.zeros(0)
        self.hits, self.given_hits = np.zeros(0, int), np.zeros(0, int)
        self.states: Solution | None = None

    def add(
        self,
        found: Solution,
        hits: Int[np.ndarray, " rows"] | None = None,
        given_hits: Int[np.ndarray, " rows"] | None = None,
    ) -> Int[np.ndarray, " new"]:
        """Count the hits of converged minima, hold those that are new, and say which rows were.

        Args:
            found: converged minima.
            hits: number of hits of each row; one by default.
            given_hits: number of these that are no independent draws; none by default.
        """
        hits = np.ones(len(found.value), int) if hits is None else hits
        given_hits = np.zeros(len(found.value), int) if given_hits is None else given_hits
        held = len(self.hits)
        m = found.value if self.states is None else np.concatenate([self.states.value, found.value])
        cells, keys = self._keys(found.value)
        # Copies of one minimum have one key to the last bit: they are looked up once.
        _, rows, copy = np.unique(keys, return_index=True, return_inverse=True)
        places, state_of = list(range(held)), []
        for row in rows.tolist():
            state = self._match(m, places, held + row, cells[row])
            if state == len(places):
                places.append(held + row)
                self._cells.setdefault(cells[row], []).append(state)
            state_of.append(state)
        states = np.array(state_of, int)[copy]
        self.hits, self.given_hits = (
            np.append(old, np.zeros(len(places) - held, int))
            + np.bincount(states, new, len(places)).astype(int)
            for old, new in ((self.hits, hits), (self.given_hits, given_hits))
        )
        fresh = np.array(places[held:], int) - held
        if fresh.size:
            new = jax.tree.map(lambda x: x[fresh], found)
            self._curvatures = np.append(self._curvatures, self._measure(new.state["fields"]))
            states = new if self.states is None else joined(self.states, new)
            self.states = states
            if len(self.hits) > self._capacity:
                self._make_room(states)
        return fresh

    def unite(self, state: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> None:
        """Make two states one, of which the first stays, where both are held."""
        if self.states is None:
            return
        cells, _ = self._keys(np.stack([state, other]))
        m = np.concatenate([self.states.value, state[None], other[None]])
        held = len(self.hits)
        places = list(range(held))
        kept, gone = (self._match(m, places, held + k, cells[k]) for k in range(2))
        if kept < held and gone < held and kept != gone:
            for hits in (self.hits, self.given_hits):
                hits[kept] += hits[gone]
            self._keep(self.states, np.delete(np.arange(held), gone))

    def library(self, n_spins: int) -> Library:
        """The states as a library, lowest first."""
        states = no_minima(n_spins) if self.states is None else self.states
        held = of_minima(states, self._curvatures, self.hits, self._symmetric)
        return dataclasses.replace(
            held, given_hits=self.given_hits, overflow=np.array(self.overflow)
        ).sort_by("free_energies")

    def _keys(self, m: Float[np.ndarray, "rows n"]) -> tuple[list[int], np.ndarray]:
        """Cell of each row, and its projection, which is the same for copies."""
        probe = np.random.default_rng(0).normal(size=m.shape[1])
        keys = np.sum(m * probe, axis=1)
        keys = np.abs(keys) if self._symmetric else keys
        # Rows within the tolerance differ by at most half a cell.
        width = 2 * MERGE_TOLERANCE * np.abs(probe).sum()
        return np.floor(keys / width).astype(int).tolist(), keys

    def _match(self, m: np.ndarray, places: list[int], row: int, cell: int) -> int:
        """The state that row `row` of m is; one more than there are if it is new."""
        for near in (cell, cell - 1, cell + 1):
            for state in self._cells.get(near, ()):
                other = m[places[state] : places[state] + 1]
                if distances(m[row], other, self._symmetric)[0] < MERGE_TOLERANCE:
                    return state
        return len(places)

    def _make_room(self, states: Solution) -> None:
        self.overflow = True
        self._keep(states, np.sort(np.argsort(states.stats["free_energy"])[: self._capacity]))

    def _keep(self, states: Solution, kept: Int[np.ndarray, " kept"]) -> None:
        self.states = jax.tree.map(lambda x: x[kept], states)
        self.hits, self.given_hits = self.hits[kept], self.given_hits[kept]
        self._curvatures = self._curvatures[kept]
        self._cells = {}
        for state, cell in enumerate(self._keys(states.value[kept])[0]):
            self._cells.setdefault(cell, []).append(state)


def joined(*solutions: Solution) -> Solution:
    """Batches of solves one after the other."""
    return jax.tree.map(lambda *x: np.concatenate(x), *solutions)


def no_minima(n_spins: int) -> Solution:
    """A batch of no solves."""
    none = np.zeros(0)
    fields, stats = np.zeros((0, n_spins)), {"free_energy": none, "residual": none}
    codes = jax.tree.map(lambda x: np.full(0, x), RESULTS.converged)
    return Solution(fields, codes, {"fields": fields}, stats)
