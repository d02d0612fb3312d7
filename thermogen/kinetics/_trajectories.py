"""Trajectories from many starts as one job, and the cores that they pass."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, PyTree, UInt

from .._types import Key
from ..energies import AbstractEnergy
from ..runs import AbstractJob, over_lanes
from ..sampling import AbstractKernel, AbstractRule, sweep_population
from ._dynamics import advance

# Zero-temperature sweeps of one descent. What moves after them are single spins of large glasses,
# which decide little about the core that is nearest.
_SWEEPS = 5


class Observations(NamedTuple):
    """What trajectories met at equal intervals.

    Attributes:
        labels: the core that each trajectory belongs to, shape `(starts, trajectories, times)`.
        overlaps: with its start, shape `(starts, trajectories, times)`.
        nearness: overlap with the core that it belongs to, `(starts, trajectories, times)`.
    """

    labels: Int[Array, "starts trajectories times"]
    overlaps: Float[Array, "starts trajectories times"]
    nearness: Float[Array, "starts trajectories times"]


class TrajectoriesState(NamedTuple):
    """Where trajectories are, and what they met.

    Attributes:
        spins: one configuration of each, shape `(n, starts, trajectories)`.
        seen: what was met so far; 0 at times to come.
        n_done: how often it was looked at them.
        key: random key of what is to come.
    """

    spins: Float[Array, "n starts trajectories"]
    seen: Observations
    n_done: Int[Array, ""]
    key: Key


class Trajectories(AbstractJob):
    """Trajectories of a kernel from many starts, looked at at equal intervals; a step is one look.

    A configuration belongs to the core nearest to the end of its zero-temperature descent, which is
    one of the cores where these include all single-flip minima that are met. This descent visits
    the spins as `Gibbs` does, in turn, and flips each that lowers E, until none does, in five
    sweeps at most.

    Maps over energies, betas, starts and keys.

    Attributes:
        dynamics: moves each trajectory.
        energy: an energy of n spins.
        beta: inverse temperature.
        cores: the configurations that trajectories are told apart by, shape `(cores, n)`.
        starts: where trajectories start, shape `(starts, trajectories, n)`.
        n_steps: between two looks: sweeps, of `HeatBath` single draws.
        tie: twice the local field below which a spin does not count as downhill.
        n_times: how often to look, at most `room`.
        room: looks for which there is room; a new `n_times` does not recompile.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        up = jnp.ones((1, 3), jnp.int8)
        job = tg.kinetics.Trajectories(
            tg.HeatBath(),
            energy,
            jnp.asarray(1.0),
            jnp.concatenate([up, -up]),
            jnp.broadcast_to(up, (1, 10, 3)),
            jnp.asarray(3),
            jnp.asarray(1e-6),
            jnp.asarray(4),
            4,
        )
        seen = tg.run(job, key=jax.random.key(0))

        assert seen.labels.shape == (1, 10, 4)
        ```
    """

    dynamics: AbstractKernel
    energy: AbstractEnergy
    beta: Float[Array, ""]
    cores: Int8[Array, "cores n"]
    starts: Int8[Array, "starts trajectories n"]
    n_steps: Int[Array, ""]
    tie: Float[Array, ""]
    n_times: Int[Array, ""]
    room: int = eqx.field(static=True)

    def init(self, key: Key) -> TrajectoriesState:
        spins = jnp.moveaxis(self.starts, 2, 0).astype(self.tie.dtype)
        shape = (*spins.shape[1:], self.room)
        none = jnp.zeros(shape, spins.dtype)
        seen = Observations(jnp.zeros(shape, jnp.int32), none, none)
        return TrajectoriesState(spins, seen, jnp.zeros((), jnp.int32), key)

    def step(self, state: TrajectoriesState) -> TrajectoriesState:
        key, own = jax.random.split(state.key)
        spins = advance(self.dynamics, self.energy, self.beta, state.spins, self.n_steps, own)
        starts = jnp.moveaxis(self.starts, 2, 0)
        now = over_lanes(Trajectories._met, (None, 2, 2), 1)(self, spins, starts)
        seen = jax.tree.map(
            lambda all_, x: jax.lax.dynamic_update_index_in_dim(all_, x, state.n_done, -1),
            state.seen,
            now,
        )
        return TrajectoriesState(spins, seen, state.n_done + 1, key)

    def _met(self, spins: Array, starts: Array) -> Observations:
        """What all trajectories meet now."""
        flat = spins.reshape(len(spins), -1)
        labels = self.label(flat)
        towards = jnp.mean(flat * self.cores[labels].T, axis=0)
        return Observations(
            labels.reshape(spins.shape[1:]),
            jnp.mean(spins * starts, axis=0),
            towards.reshape(spins.shape[1:]),
        )

    def done(self, state: TrajectoriesState) -> Bool[Array, ""]:
        return state.n_done >= self.n_times

    def amount(self, state: TrajectoriesState) -> tuple[int, int]:
        return int(state.n_done), int(self.n_times)

    def lanes(self, state: TrajectoriesState) -> PyTree[int | None]:
        return state._replace(spins=2, seen=1, n_done=None, key=None)

    def result(self, state: TrajectoriesState) -> Observations:
        return state.seen

    def label(self, spins: Float[Array, "n replicas"]) -> Int[Array, " replicas"]:
        """The core that each configuration belongs to."""
        bottoms = descend(self.energy, spins, self.tie)
        overlaps = self.cores.astype(jnp.float32) @ bottoms.astype(jnp.float32)
        return jnp.argmax(overlaps, axis=0).astype(jnp.int32)


class _Downhill(AbstractRule):
    """Flip where E falls by more than rounding; what costs nothing stays."""

    tie: Float[Array, ""]

    def variate(self, words: UInt[Array, "*shape"], dtype) -> Float[Array, "*shape"]:
        return jnp.zeros(words.shape, dtype)

    def never(self, spin: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.full_like(spin, -jnp.inf)

    def __call__(
        self,
        field: Float[Array, "*shape"],
        spin: Float[Array, "*shape"],
        threshold: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        return jnp.where(spin * field < threshold - self.tie, -spin, spin)


def descend(
    energy: AbstractEnergy,
    spins: Float[Array, "n replicas"],
    tie: Float[Array, ""],
    most: int = _SWEEPS,
) -> Float[Array, "n replicas"]:
    """Zero-temperature sweeps by the kernel of the energy until no spin flips, a few at most."""
    rule, beta = _Downhill(tie), jnp.ones(spins.shape[1], spins.dtype)

    def none(sites):
        return jnp.zeros((len(sites), spins.shape[1]), spins.dtype)

    def sweep(carry):
        before, _, k = carry
        after = sweep_population(energy, beta, before, rule, none)
        return after, jnp.any(after != before), k + 1

    def moves(carry):
        return carry[1] & (carry[2] < most)

    return jax.lax.while_loop(moves, sweep, (spins, jnp.array(True), 0))[0]
