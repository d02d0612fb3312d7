"""A learned energy as a distribution of features and a label: ln Z, draws, features of states."""

import functools
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Num

from .. import exact
from .._batches import in_batches
from .._checks import seeded_key
from ..energies import AbstractEnergy, Clamped, embed, n_visible, visible_free_energy
from ..meanfield import NaiveMeanField
from ..sampling import (
    RESULTS,
    annealed_importance_sampling,
    log_partition,
    population_annealing,
)
from ..search import Library, find_minima

# Spins that are enumerated.
_MAX_ENUMERATED = 20
# Annealing as in `log_partition`, and populations that draws come from.
_N_RUNGS, _N_CHAINS, _N_POPULATIONS = 1000, 256, 20


class LogPartition(NamedTuple):
    """ln Z and its standard error, of each part of an ensemble or of all of it."""

    value: Num[np.ndarray, "..."]
    error: Num[np.ndarray, "..."]


class Ensemble:
    """`exp(-E)` over features and the codes of a label, one of which counts at a time.

    A code is a configuration of the last visible spins. Where these have others besides, the
    distribution is the one given that the label has a code.

    Args:
        energy: energy whose visible spins are the features and then those of the label.
        codes: spins of the label, a row for each class, shape `(classes, label)`; `(1, 0)` for
            none.
        seed: of annealing and of the search for states.
    """

    def __init__(self, energy: AbstractEnergy, codes: Int8[np.ndarray, "_ _"], seed: int):
        self.energy, self.codes, self._seed = energy, codes, seed

    def __getstate__(self) -> dict[str, Any]:
        # In NumPy double precision outlives a pickle that is read where JAX computes in single.
        return {**vars(self), "energy": jax.tree.map(np.asarray, self.energy)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with jax.enable_x64(True):
            self.energy = jax.tree.map(jnp.asarray, self.energy)

    def log_joints(self, features: Int8[np.ndarray, "_ _"]) -> Float[np.ndarray, "_ _"]:
        """`-F` of features and label, so `ln p + ln Z`, shape `(samples, classes)`."""
        with jax.enable_x64(True):
            codes = jnp.asarray(self.codes)
            return in_batches(lambda rows: _log_joints(self.energy, codes, rows), features)

    @functools.cached_property
    def log_partition(self) -> LogPartition:
        """ln Z and its error: 0 where exact, infinite where annealing has failed."""
        values, errors = self._parts
        total = np.logaddexp.reduce(values)
        return LogPartition(total, np.sqrt(np.sum((np.exp(values - total) * errors) ** 2)))

    @functools.cached_property
    def _parts(self) -> LogPartition:
        with jax.enable_x64(True):
            found = [self._log_partition(clamp, k) for k, clamp in enumerate(self._clamps)]
        return LogPartition(*(np.array(x) for x in zip(*found, strict=True)))

    @property
    def _clamps(self) -> list[np.ndarray | None]:
        """What holds the label at each code; None where it is free to take all values."""
        if len(self.codes) == 2 ** self.codes.shape[1]:
            return [None]
        clamps = np.zeros((len(self.codes), self.energy.n_spins))
        stop = n_visible(self.energy)
        clamps[:, stop - self.codes.shape[1] : stop] = self.codes
        return list(clamps)

    def _log_partition(self, clamp: np.ndarray | None, k: int) -> tuple[float, float]:
        key = jax.random.fold_in(seeded_key(self._seed), k)
        if clamp is None:
            found = log_partition(self.energy, 1.0, key=key)
        elif self.energy.n_spins <= _MAX_ENUMERATED:
            # It counts both values of each clamped spin.
            both = np.count_nonzero(clamp) * np.log(2)
            return float(exact.log_partition(Clamped(self.energy, clamp), 1.0)) - both, 0.0
        else:
            found = annealed_importance_sampling(
                self.energy, _betas(), key=key, n_chains=_N_CHAINS, clamp=clamp
            )
        if found.result != RESULTS.converged:
            reason = RESULTS[found.result]
            warnings.warn(f"ln Z, by annealing, is not known: {reason}", stacklevel=2)
        return float(found.log_partition), float(found.standard_error)

    def draws(self, n: int, random: np.random.RandomState) -> Int8[np.ndarray, "_ _"]:
        """Configurations of the visible spins in random order, shape `(n, visible)`."""
        values = self._parts.value
        counts = random.multinomial(n, np.exp(values - np.logaddexp.reduce(values)))
        with jax.enable_x64(True):
            parts = [
                self._draws(clamp, int(count), random)
                for clamp, count in zip(self._clamps, counts, strict=True)
                if count
            ]
        stop = n_visible(self.energy)
        return random.permutation(np.concatenate(parts)[:, :stop].astype(np.int8))

    def _draws(self, clamp: np.ndarray | None, n: int, random: np.random.RandomState):
        key = jax.random.key(random.randint(2**31))
        if self.energy.n_spins <= _MAX_ENUMERATED:
            held = self.energy if clamp is None else Clamped(self.energy, clamp)
            spins = np.asarray(exact.sample(held, 1.0, key=key, n_samples=n))
            return spins if clamp is None else np.where(clamp == 0, spins, clamp)
        # A power of two, so that few programs serve all numbers.
        n_chains = max(_N_CHAINS // 4, 1 << (-(-n // _N_POPULATIONS) - 1).bit_length())
        found = population_annealing(
            self.energy,
            _betas(),
            key=key,
            n_chains=n_chains,
            n_populations=_N_POPULATIONS,
            clamp=clamp,
        )
        if found.result != RESULTS.converged:
            warnings.warn(f"draws are not to be trusted: {RESULTS[found.result]}", stacklevel=2)
        # As many from each population as it weighs, each replica as often as the next.
        edges = np.cumsum(np.repeat(np.asarray(found.weights), n_chains))
        places = (np.arange(n) + random.uniform()) / n * edges[-1]
        rows = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
        return np.asarray(found.spins).reshape(len(edges), -1)[rows]

    def features(self, features: Int8[np.ndarray, "_ _"]) -> Float[np.ndarray, "samples _"]:
        """Probabilities of hidden spins to be up; of states, where no spin is hidden."""
        with jax.enable_x64(True):
            if self.energy.n_spins > n_visible(self.energy):
                codes = jnp.asarray(self.codes)
                return in_batches(lambda rows: _hidden(self.energy, codes, rows), features)
            known = jnp.asarray(self.states.magnetizations[:, : features.shape[1]])
            logits = jnp.log(self.states.weights(1.0))
            return in_batches(lambda rows: _responsibilities(known, logits, rows), features)

    @property
    def n_features(self) -> int:
        """Number of columns of `features`."""
        hidden = self.energy.n_spins - n_visible(self.energy)
        return hidden or len(self.states)

    @functools.cached_property
    def states(self) -> Library:
        """Minima of naive mean field, mirror images apart, lowest free energy first."""
        key = seeded_key(self._seed)
        with jax.enable_x64(True):
            found = find_minima(NaiveMeanField(), self.energy, 1.0, key=key).expanded()
        if len(found) == 0:
            raise ValueError("energy has no minimum of naive mean field that could be verified")
        return found


def _betas() -> Float[Array, " rungs"]:
    return jnp.linspace(0.0, 1.0, _N_RUNGS + 1)[1:]


def _with_codes(codes: Array, row: Array) -> Float[Array, "_ _"]:
    """One sample with each code of the label."""
    row = jnp.broadcast_to(row, (len(codes), row.size))
    return jnp.concatenate([row, codes], axis=1).astype(float)


@eqx.filter_jit
def _log_joints(energy: AbstractEnergy, codes: Array, rows: Array) -> Float[Array, "_ _"]:
    def joint(spins):
        return -visible_free_energy(energy, 1.0, spins)

    return jax.vmap(lambda row: jax.vmap(joint)(_with_codes(codes, row)))(rows)


@eqx.filter_jit
def _hidden(energy: AbstractEnergy, codes: Array, rows: Array) -> Float[Array, "_ _"]:
    def one(row):
        spins = _with_codes(codes, row)
        shares = jax.nn.softmax(jax.vmap(lambda s: -visible_free_energy(energy, 1.0, s))(spins))
        means = jax.vmap(lambda s: embed(energy, 1.0, s))(spins)[:, n_visible(energy) :]
        return 0.5 * (1 + jnp.sum(shares[:, None] * means, axis=0))

    return jax.vmap(one)(rows)


@eqx.filter_jit
def _responsibilities(m: Array, logits: Array, rows: Array) -> Float[Array, "_ _"]:
    """Of states as product measures, the label summed out, shape `(samples, states)`."""
    tiny = jnp.finfo(m.dtype).tiny
    up, down = (jnp.log(jnp.maximum(0.5 * (1 + side * m), tiny)) for side in (1, -1))
    is_up = (rows > 0).astype(m.dtype)
    return jax.nn.softmax(logits[None] + is_up @ up.T + (1 - is_up) @ down.T, axis=1)
