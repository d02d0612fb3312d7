"""Trajectories from any number of starts, by one program."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int8

from .._placement import on_host
from .._types import Key
from ..runs import Checkpoint, Devices, counted, part, run
from ..sampling import Progress, reports
from ._cores import Seen
from ._trajectories import Trajectories

# From up to so many starts all trajectories move at once; beyond, in blocks of one shape.
_FEW_STARTS = 16
_ROWS, _COLUMNS = 32, 64
# Spins that move at once: of very many in each trajectory fewer trajectories do.
_MOST_SPINS = 2**25


def block_shape(n_starts: int, n_trajectories: int, n_spins: int) -> tuple[int, int]:
    """Rows and columns of trajectories that move at once."""
    few = n_starts <= _FEW_STARTS
    rows, columns = (power_of_two(n_starts), n_trajectories) if few else (_ROWS, _COLUMNS)
    return rows, min(columns, max(_MOST_SPINS // (rows * n_spins), 1))


def power_of_two(count: int) -> int:
    """The least power of two that is no less, so that few programs serve."""
    return 1 << (count - 1).bit_length()


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """The first row repeated at the end."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


class Observer(NamedTuple):
    """Trajectories from any starts, in blocks that move at once.

    Attributes:
        job: the trajectories, with any starts of the shape of a block.
        key: random key.
        checkpoint: where blocks are stored, by stage and number.
        sharding: devices over which trajectories are spread.
    """

    job: Trajectories
    key: Key
    checkpoint: Checkpoint | None = None
    sharding: Devices = None

    def __call__(
        self,
        starts: Int8[np.ndarray, "starts trajectories n"],
        n_times: int,
        stage: int,
        callback: Progress = None,
    ) -> Seen:
        """What trajectories from all starts meet at the first so many looks.

        Those of one start lie in rows side by side, and rows that follow each other in different
        blocks, so that few from one start visit the same random sites.

        Args:
            starts: where they start.
            n_times: how often to look.
            stage: other numbers, other randomness.
            callback: called with the number of looks done, and of all, about 20 times.
        """
        rows, columns, _ = self.job.starts.shape
        n_starts, n_trajectories, _ = starts.shape
        n_lanes = n_starts * n_trajectories
        n_blocks = -(-n_lanes // (rows * columns))
        lanes = np.arange(rows * n_blocks * columns)
        # The first lane stands in for those that are missing.
        lanes = np.where(lanes < n_lanes, lanes, 0).reshape(rows, n_blocks, columns)
        keys = jax.random.split(jax.random.fold_in(self.key, stage), n_blocks)
        times, seen = jnp.asarray(n_times, jnp.int32), []
        for k in counted("Blocks of trajectories", range(n_blocks)):
            block = starts[np.divmod(lanes[:, k], n_trajectories)]
            job = dataclasses.replace(self.job, starts=jnp.asarray(block), n_times=times)
            told = reports(n_blocks * n_times, _after(k * n_times, callback))
            stored = part(self.checkpoint, stage, k)
            met = run(job, key=keys[k], checkpoint=stored, sharding=self.sharding, **told)
            seen.append(jax.tree.map(on_host, met))

        def whole(*parts: np.ndarray) -> np.ndarray:
            ordered = np.stack(parts, axis=1).reshape(n_blocks * rows * columns, -1)
            return ordered[:n_lanes, :n_times].reshape(*starts.shape[:2], n_times)

        return Seen(*jax.tree.map(whole, *seen))


def _after(n_before: int, callback: Progress) -> Progress:
    """A callback that counts what was done before."""
    if callback is None:
        return None
    return lambda n_done, n_all: callback(n_before + n_done, n_all)
