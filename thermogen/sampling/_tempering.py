"""Parallel tempering: replicas at many temperatures that exchange their configurations."""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import check_counts, check_parameters, checked_beta
from .._linalg import dot
from .._placement import from_anywhere
from .._types import Beta, Count, Key, Spins
from ..energies import AbstractEnergy
from ._base import (
    AbstractSampler,
    Clamp,
    Ladder,
    checked_ladder,
    count_flips,
    parameter_dtype,
    random_corners,
)
from ._gibbs import Gibbs


class TemperingState(NamedTuple):
    """One ladder of replicas, hottest to coldest as in `betas`.

    Attributes:
        replicas: state of the kernel at each rung.
        sweeps: sweeps made.
        walkers: number of the replica of the start that each rung holds now, shape `(rungs,)`.
        heading: end of the ladder that each walker met last: 1 hot, -1 cold, 0 none yet.
        round_trips: number of returns of a walker to the cold end by way of the hot end.
    """

    replicas: PyTree
    sweeps: Int[Array, ""]
    walkers: Int[Array, " rungs"]
    heading: Int[Array, " rungs"]
    round_trips: Int[Array, ""]


class TemperingInfo(NamedTuple):
    """The info of a step of `ParallelTempering`.

    Attributes:
        flips: number of spins of the configuration at the coldest rung that changed.
        acceptance: probability that a swap of neighbours is accepted, whether it was tried or not;
            its mean over sweeps is the swap rate, shape `(rungs - 1,)`.
        tried: whether the swap was tried in this step, shape `(rungs - 1,)`.
        swapped: whether it was made, shape `(rungs - 1,)`.
        moves: info of the kernel, on a leading axis of rungs.
    """

    flips: Int[Array, ""]
    acceptance: Float[Array, " gaps"]
    tried: Bool[Array, " gaps"]
    swapped: Bool[Array, " gaps"]
    moves: PyTree


class ParallelTempering(AbstractSampler):
    """Replicas at inverse temperatures `betas`; neighbours swap with the Metropolis probability.

    Swaps are attempted between even and between odd pairs in turn, which is not reversible and
    carries replicas across the ladder faster than random pairs (Okabe et al. 2001; Syed et al.
    2022). The ladder is scaled such that its coldest rung stands at the `beta` that is asked for;
    the chain's configuration is the one of that rung.

    Args:
        betas: inverse temperatures, increasing, the last positive, shape `(rungs,)`.
        kernel: moves each replica by one sweep between swaps.

    Raises:
        ValueError: if there are fewer than two rungs, or known values do not increase.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        ladder = tg.ParallelTempering([0.0, 0.25, 0.5])
        spins = tg.sample(
            ladder, energy, 0.5, key=jax.random.key(0), n_chains=100, n_sweeps=20, burn_in=20
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    betas: Float[Array, " rungs"]
    kernel: AbstractSampler

    def __init__(self, betas: Ladder, kernel: AbstractSampler = Gibbs()):
        self.betas, self.kernel = checked_ladder(betas, least=2), kernel

    def ladder(self, beta: Beta) -> Float[Array, " rungs"]:
        """Inverse temperatures of the rungs where the coldest stands at `beta`."""
        return self.betas * (beta / self.betas[-1])

    def init(self, energy: AbstractEnergy, beta: Beta, spins: Spins, key: Key) -> TemperingState:
        rungs = self.betas.size
        start = jax.vmap(self.kernel.init, in_axes=(None, 0, None, 0))
        replicas = start(energy, self.ladder(beta), spins, jax.random.split(key, rungs))
        zero = jnp.zeros((), int)
        return TemperingState(
            replicas=replicas,
            sweeps=zero,
            walkers=jnp.arange(rungs),
            heading=jnp.zeros(rungs, int),
            round_trips=zero,
        )

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: TemperingState,
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[TemperingState, TemperingInfo]:
        ladder = self.ladder(beta)
        move_key, swap_key = jax.random.split(key)
        move = jax.vmap(self.kernel.step, in_axes=(None, 0, 0, 0, None))
        keys = jax.random.split(move_key, ladder.size)
        replicas, moves = move(energy, ladder, state.replicas, keys, clamp)

        energies = jax.vmap(self.kernel.total_energy, in_axes=(None, 0))(energy, replicas)
        accepted = jnp.exp(jnp.minimum(jnp.diff(ladder) * jnp.diff(energies), 0))
        tried = jnp.arange(ladder.size - 1) % 2 == state.sweeps % 2
        swapped = tried & (jax.random.uniform(swap_key, tried.shape) < accepted)
        exchange = functools.partial(_exchange, swapped)

        walkers = exchange(state.walkers)
        hot, cold = walkers[0], walkers[-1]
        returned = (state.heading[cold] == 1).astype(int)
        moved = TemperingState(
            replicas=jax.tree.map(exchange, replicas),
            sweeps=state.sweeps + 1,
            walkers=walkers,
            heading=state.heading.at[cold].set(-1).at[hot].set(1),
            round_trips=state.round_trips + returned,
        )
        flips = count_flips(self.spins(state), self.spins(moved))
        return moved, TemperingInfo(flips, accepted, tried, swapped, moves)

    def spins(self, state: TemperingState) -> Float[Array, " n"]:
        return self.kernel.spins(jax.tree.map(lambda x: x[-1], state.replicas))

    def total_energy(self, energy: AbstractEnergy, state: TemperingState) -> Float[Array, ""]:
        energies = jax.vmap(self.kernel.total_energy, in_axes=(None, 0))(energy, state.replicas)
        return dot(energies, self.betas / self.betas[-1])


def _exchange(swapped, x):
    """Rungs i and i + 1 of x in each other's place where `swapped[i]`.

    Selected, not gathered: that is fast however the chains lie in memory.
    """
    shape = (-1,) + (1,) * (x.ndim - 1)
    from_above = jnp.append(swapped, False).reshape(shape)
    from_below = jnp.append(False, swapped).reshape(shape)
    stays = jnp.where(from_below, jnp.roll(x, 1, axis=0), x)
    return jnp.where(from_above, jnp.roll(x, -1, axis=0), stays)


@from_anywhere
def tune_ladder(
    sampler: ParallelTempering,
    energy: AbstractEnergy,
    *,
    key: Key,
    n_sweeps: Count = 200,
    n_rounds: Count = 4,
) -> ParallelTempering:
    """A ladder of as many rungs between the same ends, with uniform swap rates.

    In each round the probabilities of refusal add up to the communication barrier, a function of
    beta, whose inverse at equal steps gives the next ladder (Syed et al. 2022, algorithm 4).

    Args:
        sampler: the ladder to start from.
        energy: an energy of n spins.
        key: random key.
        n_sweeps: sweeps in each round.
        n_rounds: rounds of one chain each.

    Raises:
        ValueError: for counts that are not positive, and known parameters that are not finite.
        TypeError: for counts that are no integers, and parameters not of float32 or float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        ladder = tg.ParallelTempering([0.0, 0.1, 0.2, 2.0])
        tuned = tg.sampling.tune_ladder(
            ladder, energy, key=jax.random.key(0), n_sweeps=50, n_rounds=2
        )

        assert tuned.betas.shape == (4,) and tuned.betas[1] > 0.1  # the wide gap narrows
        ```
    """
    check_parameters(energy)
    counts = check_counts(n_sweeps=n_sweeps, n_rounds=n_rounds)
    betas, barrier = _barrier(sampler, energy, key, *counts)
    return eqx.tree_at(lambda s: s.betas, sampler, _spaced(betas, barrier, betas.size))


@from_anywhere
def find_ladder(
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    kernel: AbstractSampler = Gibbs(),
    n_sweeps: Count = 200,
    n_rounds: Count = 4,
) -> ParallelTempering:
    """A ladder from infinite temperature to `beta`, with as many rungs as it takes.

    Neighbours swap about half of the time: among ladders of uniform swap rates those make the most
    round trips for the work, with twice as many gaps as the communication barrier is high (Syed et
    al. 2022, section 5.3). Ladders are doubled until half of the swaps are accepted, and a quarter
    between any two neighbours, which resolves the barrier. A program is compiled for each number of
    rungs that is tried.

    Args:
        energy: an energy of n spins.
        beta: inverse temperature of the coldest rung.
        key: random key.
        kernel: moves each replica by one sweep between swaps.
        n_sweeps: sweeps in each round.
        n_rounds: rounds of one chain for each ladder that is tried, as in `tune_ladder`.

    Raises:
        ValueError: for a beta and counts that are not positive, for known parameters that are not
            finite, energies that overflow, and where it takes more than 512 rungs.
        TypeError: for counts that are no integers, parameters not of float32 or float64, and under
            `jit` or `vmap`: the number of rungs is part of a program.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise((np.ones((20, 20)) - np.eye(20)) / 20, np.zeros(20))
        ladder = tg.sampling.find_ladder(magnet, 2.0, key=jax.random.key(0))
        assert ladder.betas[0] == 0 and ladder.betas[-1] == 2
        ```
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((energy, beta, key))):
        raise TypeError("find_ladder cannot be traced: find the ladder before jit or vmap")
    check_parameters(energy)
    counts = check_counts(n_sweeps=n_sweeps, n_rounds=n_rounds)
    betas = jnp.linspace(0.0, checked_beta(beta, parameter_dtype(energy)), _FEWEST)
    while True:
        key, own_key = jax.random.split(key)
        sampler = ParallelTempering(betas, kernel)
        betas, barrier = _barrier(sampler, energy, own_key, *counts)
        if not np.isfinite(barrier[-1]):
            raise ValueError("energy: its values are too large for its precision")
        gaps = math.ceil(2 * float(barrier[-1]))
        # Beyond a gap that refuses all swaps, a barrier of 1 may stand for one of any height.
        if gaps < betas.size and np.max(np.diff(barrier)) < _RESOLVED:
            return ParallelTempering(_spaced(betas, barrier, max(gaps, 1) + 1), kernel)
        if 2 * betas.size > _MOST:
            raise ValueError(
                f"energy: at beta = {float(beta):g} more than {_MOST} rungs are needed from "
                "infinite temperature on; give ParallelTempering betas from a hotter end"
            )
        betas = _spaced(betas, barrier, 2 * betas.size)


_FEWEST, _MOST = 8, 512
# Share of refused swaps below which a gap shows how high the barrier in it is.
_RESOLVED = 0.75


def _spaced(betas, barrier, rungs: int):
    """Inverse temperatures between the same ends, at equal steps of the barrier."""
    steps = jnp.linspace(0.0, barrier[-1], rungs)
    inner = jnp.interp(steps[1:-1], barrier, betas)
    return jnp.concatenate([betas[:1], inner, betas[-1:]])


@eqx.filter_jit
def _barrier(sampler, energy, key, n_sweeps, n_rounds):
    """The ladder of the last round, and the communication barrier up to each of its rungs."""

    def round_(carry, key):
        betas, spins = carry
        ladder = eqx.tree_at(lambda s: s.betas, sampler, betas)
        state = ladder.init(energy, betas[-1], spins, key)

        def move(carry, key):
            state, refusals = carry
            state, info = ladder.step(energy, betas[-1], state, key)
            return (state, refusals + jnp.where(info.tried, 1 - info.acceptance, 0)), None

        start = state, jnp.zeros(betas.size - 1, betas.dtype)
        (state, refusals), _ = jax.lax.scan(move, start, jax.random.split(key, n_sweeps))
        # A little of everything keeps the barrier increasing where no swap was ever refused.
        barrier = jnp.cumsum(jnp.append(0.0, refusals * 2 / n_sweeps + 1e-6))
        return (_spaced(betas, barrier, betas.size), ladder.spins(state)), (betas, barrier)

    start_key, key = jax.random.split(key)
    spins = random_corners(energy, 1, start_key)[0]
    start = sampler.betas.astype(parameter_dtype(energy)), spins
    _, rounds = jax.lax.scan(round_, start, jax.random.split(key, n_rounds))
    return jax.tree.map(lambda x: x[-1], rounds)
