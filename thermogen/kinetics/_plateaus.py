"""Bottoms of E below many configurations: zero-temperature descents that walk over plateaus."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Num

from .._checks import as_array
from .._placement import from_anywhere
from ..energies import AbstractEnergy
from ._descents import MANY_SPINS, descend_all, idle_spins, prepared, slopes_of

# Most configurations of one plateau that are walked, and bytes for all plateaus at once.
_LARGEST_PLATEAU, _LEAST_PLATEAU, _BYTES = 1024, 16, 2**27


@from_anywhere
def flip_minima(
    energy: AbstractEnergy, starts: Num[Array | np.ndarray, "batch n"]
) -> Float[np.ndarray, "minima n"]:
    """Single-flip minima of E that zero-temperature quenches from many configurations end in.

    Candidates for bound states that need no free energy: `certify` takes them as they are. Each
    quench flips the spin that lowers E most until none does. Then it walks over the configurations
    that flips at no cost lead to: if E falls from one of them it goes on there, else all of them
    are one minimum, told by one member. Of a plateau of more than 1024 configurations (fewer where
    many large ones are met) only a part is walked, and it may be told by several. Of more than 4096
    spins, where plateaus have more configurations than could ever be walked, none is.

    Args:
        energy: any energy of n spins.
        starts: spins or magnetizations, of which the signs count, shape `(batch, n)`.

    Returns:
        The distinct end points, in no particular order, shape `(minima, n)`.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        starts = np.random.default_rng(0).choice([-1.0, 1.0], (20, 6))
        minima = tg.kinetics.flip_minima(magnet, starts)

        assert np.all(np.abs(minima.sum(axis=1)) == 6)
        ```
    """
    with jax.enable_x64(True):
        bottoms = bottoms_of(prepared(energy), np.asarray(as_array("starts", starts)))
    return np.unique(bottoms, axis=0).astype(float)


def bottoms_of(
    model: AbstractEnergy, starts: Num[Array | np.ndarray, "batch n"]
) -> Int8[np.ndarray, "batch n"]:
    """The minimum below each start, plateaus walked; needs 64 bits enabled.

    The member that stands for a plateau does not depend on the way there, and that of the mirror
    image of a plateau is its mirror image.
    """
    spins, place = np.unique(descend_all(model, starts), axis=0, return_inverse=True)
    if spins.shape[1] > MANY_SPINS:
        return spins[place.reshape(-1)]
    slopes, ties = slopes_of(model, spins)
    todo = np.flatnonzero(np.any(np.abs(slopes) <= ties[:, None], axis=1))
    if todo.size == 0:
        return spins[place.reshape(-1)]
    idle = idle_spins(model, spins)
    spins[:, idle] = 1
    met = [{row.tobytes()} for row in spins]
    while todo.size:
        spins[todo], leaves = _walked(model, spins[todo], idle)
        todo = todo[leaves]
        if todo.size:
            spins[todo] = descend_all(model, spins[todo])
            # Ties add up: a way that leads where it has been would lead there again.
            todo = todo[[_is_new(met[k], spins[k]) for k in todo]]
    active = np.flatnonzero(~idle)
    # What nothing acts on points where the first other spin does.
    spins[:, idle] = spins[:, active[:1]] if active.size else 1
    return spins[place.reshape(-1)]


def _is_new(met: set[bytes], spins: Int8[np.ndarray, " n"]) -> bool:
    key = spins.tobytes()
    is_new = key not in met
    met.add(key)
    return is_new


def _walked(
    model: AbstractEnergy, rows: Int8[np.ndarray, "rows n"], idle: Bool[np.ndarray, " n"]
) -> tuple[Int8[np.ndarray, "rows n"], Bool[np.ndarray, " rows"]]:
    """For each row the member that stands for its plateau, or a way off that leads down.

    Returns:
        Members, and which of them lead down.
    """
    walk = _Walk(rows, idle)
    frontier, labels = rows, np.arange(len(rows))
    while len(frontier):
        slopes, ties = slopes_of(model, frontier)
        falls = np.any(slopes < -ties[:, None], axis=1)
        for row in np.flatnonzero(falls):
            walk.exits.setdefault(walk.root(int(labels[row])), frontier[row])
        free = (np.abs(slopes) <= ties[:, None]) & ~idle
        free &= np.array([walk.is_open(int(label)) for label in labels])[:, None]
        row, spin = np.nonzero(free)
        ahead = frontier[row]
        ahead[np.arange(len(row)), spin] *= -1
        fresh = [walk.reach(x, k) for x, k in zip(ahead, labels[row].tolist(), strict=True)]
        frontier, labels = ahead[fresh], labels[row][fresh]
    return walk.outcome()


class _Walk:
    """Plateaus while they are walked: who reached each configuration, and which met are one."""

    def __init__(self, rows: Int8[np.ndarray, "rows n"], idle: Bool[np.ndarray, " n"]):
        size, n = rows.shape
        self._idle = idle
        self._shape, self._size = rows.shape, [1] * size
        self._largest = int(np.clip(_BYTES // (size * n), _LEAST_PLATEAU, _LARGEST_PLATEAU))
        self._owner: dict[bytes, int] = {}
        self._parent = [self._owner.setdefault(row.tobytes(), k) for k, row in enumerate(rows)]
        self.exits: dict[int, np.ndarray] = {}

    def root(self, label: int) -> int:
        """The number of the plateau of a label."""
        while self._parent[label] != label:
            self._parent[label] = label = self._parent[self._parent[label]]
        return label

    def is_open(self, label: int) -> bool:
        """Whether the plateau of a label is to be walked further."""
        root = self.root(label)
        return root not in self.exits and self._size[root] < self._largest

    def reach(self, spins: Int8[np.ndarray, " n"], label: int) -> bool:
        """Whether a configuration is new; if another plateau holds it, both are one."""
        key, here = spins.tobytes(), self.root(label)
        if key not in self._owner:
            self._owner[key] = here
            self._size[here] += 1
            return True
        there = self.root(self._owner[key])
        if there != here:
            self._parent[there] = here
            self._size[here] += self._size[there]
            if there in self.exits:
                self.exits.setdefault(here, self.exits[there])
        return False

    def outcome(self) -> tuple[np.ndarray, np.ndarray]:
        """For each row a way off its plateau, or the member that stands for it, and which it is.

        It is the member of largest projection on a fixed direction, in whole numbers, so that
        mirror images have one to the last bit.
        """
        size, n = self._shape
        members = np.frombuffer(b"".join(self._owner), np.int8).reshape(-1, n)
        roots = np.array([self.root(label) for label in self._owner.values()])
        direction = np.random.default_rng(0).integers(-(2**40), 2**40, n) * ~self._idle
        along = members.astype(np.int64) @ direction
        order = np.lexsort((-along, -np.abs(along), roots))
        numbers, first = np.unique(roots[order], return_index=True)
        best = dict(zip(numbers.tolist(), order[first].tolist(), strict=True))
        own = [self.root(label) for label in range(size)]
        leaves = np.array([root in self.exits for root in own])
        return np.stack([self.exits.get(root, members[best[root]]) for root in own]), leaves
