"""Cores of the candidates: what trajectories start from, and are told apart by."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from .._types import Key


class Seen(NamedTuple):
    """`Observations` of trajectories, on the host.

    Attributes:
        labels: the core that each trajectory belongs to.
        overlaps: with its start.
        nearness: overlap with the core that it belongs to.
    """

    labels: Int[np.ndarray, "starts trajectories times"]
    overlaps: Float[np.ndarray, "starts trajectories times"]
    nearness: Float[np.ndarray, "starts trajectories times"]

    def until(self, n_times: int) -> "Seen":
        """At the first so many looks."""
        return Seen(*(x[..., :n_times] for x in self))

    def joined(self, more: "Seen") -> "Seen":
        """With more trajectories from the same starts."""
        return Seen(*(np.concatenate(x, axis=1) for x in zip(self, more, strict=True)))


class Cores(NamedTuple):
    """Distinct cores in lexicographic order, in which mirror images stand at opposite ends."""

    spins: Int8[np.ndarray, "cores n"]
    mirrored: bool
    closed: bool  # the energy is even, and each image of a core is one

    @classmethod
    def of(cls, bottoms: Int8[np.ndarray, "states n"], mirrored: bool, even: bool) -> "Cores":
        spins = np.unique(np.concatenate([bottoms, -bottoms]) if mirrored else bottoms, axis=0)
        return cls(spins, mirrored, mirrored or (even and np.array_equal(spins, -spins[::-1])))

    def find(self, bottoms: Int8[np.ndarray, "states n"]) -> Int[np.ndarray, " states"]:
        places = {row.tobytes(): k for k, row in enumerate(self.spins)}
        return np.array([places[row.tobytes()] for row in bottoms], int)

    @property
    def n_starts(self) -> int:
        """Trajectories start from these first cores alone; the others are mirror images."""
        return len(self.spins) // (2 if self.mirrored else 1)

    def with_images(self, seen: Seen) -> Seen:
        """Observations from all cores, from those of the first, and from all other starts."""
        if not self.mirrored:
            return seen
        k, last = self.n_starts, len(self.spins) - 1

        def spread(x: np.ndarray, images: np.ndarray) -> np.ndarray:
            return np.concatenate([x[:k], images[::-1], x[k:]])

        labels, overlaps, nearness = seen
        return Seen(
            spread(labels, last - labels[:k]),
            spread(overlaps, overlaps[:k]),
            spread(nearness, nearness[:k]),
        )

    def images(self, n_labels: int) -> Int[np.ndarray, " labels"]:
        """The image of each label, itself where there is no symmetry or label beyond the cores."""
        labels = np.arange(n_labels)
        if self.closed:
            labels[: len(self.spins)] = labels[: len(self.spins)][::-1]
        return labels

    def entries(self, cores: np.ndarray, states: np.ndarray) -> Int[np.ndarray, " cores"]:
        """The first of `states` whose core, or its image, is each core; `cores` of the states."""
        entry = np.zeros(len(self.spins), int)
        for core, k in zip(cores[::-1], states[::-1], strict=True):
            entry[core] = k
            if self.mirrored:
                entry[len(entry) - 1 - core] = k
        return entry


def repeated(spins: Int8[np.ndarray, "states n"], count: int) -> Int8[np.ndarray, "states count n"]:
    """Each state many times, without copies: very many spins would fill the memory."""
    return np.broadcast_to(spins[:, None], (len(spins), count, spins.shape[1]))


def starts_of(
    cores: Cores, disordered: Float[np.ndarray, "states n"], n_trajectories: int, key: Key
) -> Int8[np.ndarray, "starts trajectories n"]:
    """Each core many times, then draws from the product measures of the disordered states."""
    first = repeated(cores.spins[: cores.n_starts], n_trajectories)
    if len(disordered) == 0:
        return first
    shape = (len(disordered), n_trajectories, cores.spins.shape[1])
    dice = np.asarray(jax.random.uniform(key, shape))
    drawn = np.where(dice < 0.5 * (1 + disordered[:, None]), 1, -1)
    return np.concatenate([first, drawn.astype(np.int8)])


class Entries(NamedTuple):
    """What `certify` was given, and where each of those in use is observed.

    Rows of observations are those of the cores, of the draws of each disordered state, and of
    `passed`.

    Attributes:
        cores: those that trajectories are told apart by.
        bottoms: core of each entry in use.
        disordered: those that have none.
        mask: which of all entries are in use.
        place: of each core that a trajectory may have met, that which stands for it.
        passed: those that trajectories merely pass.
        row: the row of observations of each entry in use: that of its core, or of its own draws.
        entry: the first entry of each core.
        same_core: the first entry of the same core, of each entry in use, among these.
    """

    cores: Cores
    bottoms: Int8[np.ndarray, "states n"]
    disordered: Bool[np.ndarray, " states"]
    mask: Bool[np.ndarray, " K"]
    place: Int[np.ndarray, " met"]
    passed: Int[np.ndarray, " passed"]
    row: Int[np.ndarray, " states"]
    entry: Int[np.ndarray, " cores"]
    same_core: Int[np.ndarray, " states"]

    @classmethod
    def of(
        cls,
        cores: Cores,
        stands: Int[np.ndarray, " cores"],
        bottoms: Int8[np.ndarray, "states n"],
        disordered: Bool[np.ndarray, " states"],
        mask: Bool[np.ndarray, " K"],
    ) -> "Entries":
        """Of all cores, and the core that stands for each."""
        own, n_drawn = np.flatnonzero(~disordered), int(disordered.sum())
        found = cores.find(bottoms[own])
        kept, numbers = np.unique(stands, return_inverse=True)
        passed = np.setdiff1d(np.arange(len(stands)), kept)
        rows = np.empty(len(stands), int)
        rows[kept] = np.arange(len(kept))
        rows[passed] = len(kept) + n_drawn + np.arange(len(passed))
        row, same = np.zeros(len(disordered), int), np.arange(len(disordered))
        row[own], row[disordered] = rows[found], len(kept) + np.arange(n_drawn)
        entry = cores.entries(found, own)
        same[own] = entry[found]
        few = cores._replace(spins=cores.spins[kept])
        return cls(few, bottoms, disordered, mask, numbers, passed, row, entry[kept], same)

    def completed(self, seen: Seen) -> Seen:
        """`labelled`, and with those from the mirror images of cores."""
        return self.cores.with_images(self.labelled(seen))

    def labelled(self, seen: Seen) -> Seen:
        """With the cores that stand for those that were met."""
        return seen._replace(labels=self.place[seen.labels])

    def fill(self, values: np.ndarray, unused: int) -> np.ndarray:
        """Values of the entries in use, spread over all."""
        filled = np.full((len(self.mask), *values.shape[1:]), unused, values.dtype)
        filled[self.mask] = values
        return filled

    def table(self, values: np.ndarray, entry: Int[np.ndarray, " labels"]) -> np.ndarray:
        """Rows of observations and columns of labels, added up to entries, spread over all."""
        places = np.flatnonzero(self.mask)
        filled = np.zeros((len(self.mask), len(self.mask)))
        np.add.at(filled, (places[:, None], places[entry][None, :]), values[self.row])
        return filled
