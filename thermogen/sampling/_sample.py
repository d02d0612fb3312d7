"""One line that runs many chains: burn-in, thinning, observers, progress."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from .._bits import folded
from .._checks import as_array, check_count, check_counts, check_finite, check_parameters
from .._cold import beta_as, resolved_beta
from .._placement import from_anywhere
from .._types import Beta, Count, Key
from ..energies import AbstractEnergy, Interactions, Pairwise
from ..runs import AbstractJob, Devices, Folder, Spread, run, shows_progress
from ._base import (
    AbstractSampler,
    Clamp,
    Progress,
    checked_clamp,
    parameter_dtype,
    random_corners,
    reports,
    step_chains,
)
from ._observers import AbstractObserver, Seen, Trace

# Bonds, as a share of the square of the number of spins, below which colours of independent spins
# beat blocks of a dense matrix: of lattices, and of graphs whose spins have more neighbours.
_SPARSE, _LATTICE = 0.01, 0.05
_FEW_NEIGHBOURS = 8


@functools.partial(from_anywhere, spread=("init", "sharding"))
@shows_progress
def sample(
    sampler: AbstractSampler,
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    n_chains: Count,
    n_sweeps: Count,
    burn_in: Count = 0,
    thin: Count = 1,
    init: Num[Array | np.ndarray, "..."] | None = None,
    clamp: Clamp = None,
    observers: PyTree = None,
    callback: Progress = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> PyTree:
    """Draw configurations from `exp(-beta E) / Z` by independent chains.

    A sparse `Pairwise` energy is updated colour by colour of its interaction graph. Beta, the
    parameters, the key, `burn_in` and `thin` are traced: new values do not recompile. Results
    depend on the key alone, and the first chains of a longer run are those of a shorter one.

    Args:
        sampler: for example `Gibbs()`.
        energy: an energy of n spins.
        beta: inverse temperature.
        key: random key.
        n_chains: number of chains.
        n_sweeps: number of sweeps of each chain after burn-in.
        burn_in: number of sweeps before the first that counts.
        thin: number of sweeps from one that is kept to the next.
        init: starts of the chains, shape `(n,)` or `(n_chains, n)`; random corners by default.
        clamp: +1 or -1 where a spin keeps this value, 0 where it is free, shape `(n,)`; chains
            sample the conditional distribution of the free ones.
        observers: one `AbstractObserver` or a tree of them; `Trace()` by default.
        callback: called with the number of kept sweeps done, and of all, about 20 times.
        checkpoint: folder where the run is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which chains are spread: a mesh, or a sharding of an array
            `(n_chains, n)`; by default that of `init`. Chains and their records stay on the device
            where they start; draws do not depend on it.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        Spins, shape `(n_chains, n_sweeps // thin, n)`, or what the observers return, in a tree as
        given; NaN where traced parameters or beta are not finite.

    Raises:
        ValueError: for counts that are not positive, known parameters or a beta that are not
            finite, and `init` or `clamp` of a wrong shape or with other entries.
        TypeError: for what is no sampler, such as `Gibbs` in place of `Gibbs()`, counts that are
            no integers, and parameters of another dtype than float32 or float64.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        spins = tg.sample(
            tg.Gibbs(), energy, 0.5, key=jax.random.key(0), n_chains=100, n_sweeps=20, burn_in=20
        )
        means = jnp.mean(spins[:, :, 0] * spins[:, :, 1])
        assert spins.shape == (100, 20, 3)
        assert jnp.isclose(means, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.2)
        ```
    """
    if not isinstance(sampler, AbstractSampler):
        raise TypeError(f"sampler must be one such as Gibbs(), got {sampler!r}")
    check_parameters(energy)
    check_finite("beta", beta)
    n_chains, n_sweeps, thin = check_counts(n_chains=n_chains, n_sweeps=n_sweeps, thin=thin)
    burn_in = check_count("burn_in", burn_in, least=0)
    check_count("burn_in + n_sweeps", burn_in + n_sweeps)
    n_kept = n_sweeps // thin
    if n_kept == 0:
        raise ValueError(f"thin must not exceed n_sweeps, got {thin} and {n_sweeps}")
    observers = Trace() if observers is None else observers
    init_key = jax.random.split(key, 3)[0]
    clamp = checked_clamp(energy, clamp)
    spread = Spread.of(_sharding(init) if sharding is None else sharding, n_chains=n_chains)
    spins = _starts(energy, n_chains, init, init_key, spread)
    if clamp is not None:
        spins = jnp.where(clamp[None] == 0, spins, clamp[None])
    job = Sampling(
        sampler,
        colored(energy),
        beta_as(beta, spins.dtype),
        observers,
        spins,
        clamp,
        jnp.asarray(burn_in),
        jnp.asarray(thin),
        n_kept,
    )
    told = reports(n_kept, callback)
    seen = run(job, key=key, checkpoint=checkpoint, sharding=spread, **told)
    return nan_unless_finite((energy, beta), seen)


class SamplingState(NamedTuple):
    """States of chains, and records of them.

    Attributes:
        chains: states of the sampler, one chain an entry of the LAST axis of all arrays.
        carries: states of the observers.
        n_done: number of sweeps that were kept.
        key: random key of all sweeps.
    """

    chains: PyTree
    carries: PyTree
    n_done: Int[Array, ""]
    key: Key


class Sampling(AbstractJob):
    """Independent chains of a sampler; a step is one kept sweep.

    Attributes:
        sampler: moves each chain.
        energy: an energy of n spins.
        beta: inverse temperature.
        observers: one `AbstractObserver` or a tree of them.
        spins: starts of the chains, shape `(chains, n)`.
        clamp: +1 or -1 where a spin keeps this value, 0 where it is free, shape `(n,)`, or None.
        burn_in: number of sweeps before the first that counts.
        thin: number of sweeps from one that is kept to the next.
        n_kept: number of sweeps that are kept.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        five, one = jnp.asarray(5), jnp.asarray(1)
        job = tg.sampling.Sampling(
            tg.Gibbs(),
            energy,
            jnp.asarray(0.5),
            tg.sampling.Mean(),
            jnp.ones((10, 3)),
            None,
            five,
            one,
            20,
        )

        assert tg.run(job, key=jax.random.key(0)).shape == (3,)
        ```
    """

    sampler: AbstractSampler
    energy: AbstractEnergy
    beta: Float[Array, ""]
    observers: PyTree
    spins: Float[Array, "chains n"]
    clamp: Clamp
    burn_in: Int[Array, ""]
    thin: Int[Array, ""]
    n_kept: int = eqx.field(static=True)

    def init(self, key: Key) -> SamplingState:
        _, start_key, sweep_key = jax.random.split(key, 3)
        starts = jax.vmap(self.sampler.init, in_axes=(None, None, 0, 0))
        keys = jax.random.split(start_key, len(self.spins))
        chains = starts(self.energy, self.beta, self.spins, keys)
        # Here and not in the loop, because XLA keeps the layout of what it is given.
        moved = _moved_axes(chains, 0, -1)
        seen = Seen(self.spins, chains, _moved_axes(self._blank_info(moved), -1, 0))

        def first(observer):
            return observer.init(self.energy, seen, self.n_kept)

        return SamplingState(moved, _each(first, self.observers), jnp.zeros((), int), sweep_key)

    def step(self, state: SamplingState) -> SamplingState:
        count, beta = state.n_done, resolved_beta(self.energy, self.beta)

        def sweep(i, carry):
            return self._sweep(beta, carry[0], folded(state.key, i[None])[0])

        stop = self.burn_in + (count + 1) * self.thin
        start = jnp.where(count == 0, 0, stop - self.thin)
        blank = self._blank_info(state.chains)
        chains, infos = jax.lax.fori_loop(start, stop, sweep, (state.chains, blank))
        of_each, infos = _moved_axes((chains, infos), -1, 0)
        seen = Seen(jax.vmap(self.sampler.spins)(of_each), of_each, infos)

        def see(observer, carry):
            return observer.update(carry, count, self.energy, seen)

        carries = _each(see, self.observers, state.carries)
        return SamplingState(chains, carries, count + 1, state.key)

    def _sweep(self, beta, chains, key):
        return step_chains(self.sampler, self.energy, beta, chains, key, self.clamp)

    def _blank_info(self, chains):
        """Zeros in place of the infos of all chains, before the first sweep."""
        shapes = jax.eval_shape(self._sweep, self.beta, chains, jax.random.key(0))[1]
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def done(self, state: SamplingState) -> Bool[Array, ""]:
        return state.n_done >= self.n_kept

    def amount(self, state: SamplingState) -> tuple[int, int]:
        return int(state.n_done), self.n_kept

    def lanes(self, state: SamplingState) -> PyTree[int | None]:
        return state._replace(chains=-1, carries=None, n_done=None, key=None)

    def result(self, state: SamplingState) -> PyTree:
        return _each(lambda o, carry: o.value(carry), self.observers, state.carries)


def _moved_axes(states, source, destination):
    return jax.tree.map(lambda x: jnp.moveaxis(x, source, destination), states)


def colored(energy: AbstractEnergy) -> AbstractEnergy:
    """A sparse `Pairwise` energy of known couplings as `Interactions`, all others as they are."""
    if not isinstance(energy, Pairwise) or isinstance(energy.couplings, Tracer):
        return energy
    couplings = np.asarray(energy.couplings)
    bonds = np.argwhere(np.triu(couplings + couplings.T, 1))
    few = 2 * len(bonds) <= _FEW_NEIGHBOURS * energy.n_spins
    if len(bonds) > (_LATTICE if few else _SPARSE) * energy.n_spins**2:
        return energy
    sites = np.arange(energy.n_spins)[:, None]
    return Interactions(energy.n_spins, [sites, bonds], [energy.fields, energy.bonds(*bonds.T)])


def _each(function, observers, *rest):
    return jax.tree.map(
        function, observers, *rest, is_leaf=lambda x: isinstance(x, AbstractObserver)
    )


def _starts(energy, n_chains, init, key, spread):
    dtype = parameter_dtype(energy)
    shape = (n_chains, energy.n_spins)
    if init is None:
        return random_corners(energy, n_chains, key, spread=spread)
    init = as_array("init", init)
    if init.shape not in (shape, shape[1:]):
        raise ValueError(f"init must have shape {shape[1:]} or {shape}, got {init.shape}")
    if not isinstance(init, Tracer) and not jnp.all(jnp.abs(init) == 1):
        raise ValueError("init must hold spins, -1 or +1, and nothing else")
    init = jnp.asarray(init, dtype)
    spins = init if init.ndim == 2 else jnp.tile(init, (n_chains, 1))
    return spins if spread is None else spread.split(spins)


def _sharding(init):
    """That of starts which are split over several devices."""
    known = isinstance(init, jax.Array) and not isinstance(init, Tracer) and init.ndim == 2
    return init.sharding if known and isinstance(init.sharding, NamedSharding) else None


def nan_unless_finite(parameters: PyTree, results: PyTree) -> PyTree:
    """NaN for all floats of the results if parameters turn out not to be finite.

    Known ones were refused; traced ones would be sampled without a word.
    """
    traced = [x for x in jax.tree.leaves(parameters) if isinstance(x, Tracer)]
    if not traced:
        return results
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in traced]))
    return jax.tree.map(
        lambda x: jnp.where(finite, x, jnp.nan) if eqx.is_inexact_array(x) else x, results
    )
