"""Heat-bath trajectories of single spin flips, and the states that they pass.

The clock is that of `thermogen.exact.relaxation_times`: one step draws one random spin from its
conditional distribution, a sweep is n steps.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, Num

from .._batches import cast, in_batches
from .._types import Key, Spins
from ..energies import (
    RBM,
    AbstractEnergy,
    AbstractMultilinear,
    Mixture,
    Pairwise,
    complete,
    conditional_field,
    conditional_fields,
    constrain,
    local_fields,
)

# Up to this size the energies of all configurations are one table, and fields are looked up.
_MAX_TABLE = 12
# Gaps below this share of the largest field count as zero: a descent never runs in circles.
_TIE = 1e-9
_BATCH = 1024
# Trajectories that are run at once.
_ROWS = 8192


class Table(eqx.Module):
    """Energies of all configurations, shape `(2**n,)`: the fields of any energy of few spins."""

    energies: Float[Array, " configurations"]


class Observations(NamedTuple):
    """What trajectories met at equal intervals; the last axis is time.

    Attributes:
        labels: the core that each trajectory belongs to, shape `(starts, trajectories, times)`.
        overlaps: with its start, shape `(starts, trajectories, times)`.
        nearness: overlap with the core that it belongs to, shape `(starts, trajectories, times)`.
    """

    labels: Int[Array | np.ndarray, "starts trajectories times"]
    overlaps: Float[Array | np.ndarray, "starts trajectories times"]
    nearness: Float[Array | np.ndarray, "starts trajectories times"]


def prepared(energy: AbstractEnergy) -> eqx.Module:
    """The same energy in double precision, in the form whose fields are cheapest."""
    energy = cast(energy, jnp.float64)
    if isinstance(energy, AbstractMultilinear | Mixture) and energy.n_spins <= _MAX_TABLE:
        return Table(complete(energy).energies())
    if isinstance(energy, RBM):
        visible, n = energy.n_visible, energy.n_spins
        couplings = jnp.zeros((n, n)).at[:visible, visible:].set(energy.weights)
        fields = jnp.concatenate([energy.visible_fields, energy.hidden_fields])
        return Pairwise(couplings + couplings.T, fields)
    return constrain(energy)


@functools.singledispatch
def fields_of(model: Any, spins: Spins) -> Float[Array, " n"]:
    """Local fields of all spins: half of what E falls by when a spin turns up."""
    return jax.vmap(lambda k: field_of(model, spins, k))(jnp.arange(len(spins)))


@fields_of.register
def _(model: AbstractMultilinear, spins):
    return local_fields(model, spins)


@fields_of.register
def _(model: Mixture, spins):
    return conditional_fields(model, 1.0, spins)


@functools.singledispatch
def field_of(model: Any, spins: Spins, k: Int[Array, ""]) -> Float[Array, ""]:
    """Local field of spin k alone."""
    spins = jnp.asarray(spins)
    down, up = spins.at[k].set(-1), spins.at[k].set(1)
    return 0.5 * (model(down) - model(up))


@field_of.register
def _(model: Pairwise, spins, k):
    # Not a dot product: gather, product and sum of many trajectories are one loop.
    return model.fields[k] + jnp.sum(model.couplings[k] * spins)


@field_of.register
def _(model: Mixture, spins, k):
    return conditional_field(model, 1.0, spins, k)


@field_of.register
def _(model: Table, spins, k):
    index = jnp.sum((spins > 0) * (1 << jnp.arange(len(spins))))
    bit = 1 << k
    return 0.5 * (model.energies[index & ~bit] - model.energies[index | bit])


def descend_all(
    model: eqx.Module, starts: Num[Array | np.ndarray, "batch n"]
) -> Int8[np.ndarray, "batch n"]:
    """Zero-temperature descents of many configurations; needs 64 bits enabled."""
    spins = np.where(np.asarray(starts) < 0, -1, 1).astype(np.int8)
    return in_batches(functools.partial(_descend_batch, model), spins, _BATCH)


@eqx.filter_jit
def _descend_batch(model: eqx.Module, spins: Int8[Array, "batch n"]):
    return jax.vmap(lambda s: _descend(model, s))(spins)


def _descend(model: eqx.Module, spins: Int8[Array, " n"]) -> Int8[Array, " n"]:
    """Flip the spin that lowers E most, until none does."""

    def slopes(s):
        fields = fields_of(model, s)
        return s * fields, _TIE * jnp.max(jnp.abs(fields))

    def downhill(carry):
        _, (slope, tie) = carry
        return jnp.min(slope) < -tie

    def flip(carry):
        s, (slope, _) = carry
        s = jnp.where(jnp.arange(len(s)) == jnp.argmin(slope), -s, s)
        return s, slopes(s)

    return jax.lax.while_loop(downhill, flip, (spins, slopes(spins)))[0]


@eqx.filter_jit
def observe(
    model: eqx.Module,
    beta: Float[Array, ""],
    cores: Int8[Array, "cores n"],
    starts: Int8[Array, "starts trajectories n"],
    stride: Int[Array, ""],
    key: Key,
    *,
    n_times: int,
) -> Observations:
    """Run trajectories from all starts and tell every `stride` steps which core they belong to.

    A configuration belongs to the core nearest to the end of its zero-temperature descent, which
    is one of the cores where these include all single-flip minima that are met.
    """
    n_starts, _, n = starts.shape
    first = starts.reshape(-1, n)
    rows = jnp.arange(len(first))

    def step(_, carry):
        spins, key = carry
        key, site_key, noise_key = jax.random.split(key, 3)
        sites = jax.random.randint(site_key, rows.shape, 0, n)
        fields = jax.vmap(lambda s, k: field_of(model, s, k))(spins, sites)
        up = 2 * beta * fields > jax.random.logistic(noise_key, rows.shape, fields.dtype)
        return spins.at[rows, sites].set(jnp.where(up, 1, -1).astype(spins.dtype)), key

    def observation(carry, _):
        carry = jax.lax.fori_loop(0, stride, step, carry)
        bottoms = jax.vmap(lambda s: _descend(model, s))(carry[0])
        labels = jnp.argmax(bottoms.astype(jnp.float32) @ cores.astype(jnp.float32).T, axis=1)
        overlaps = [jnp.mean(carry[0] * x, axis=1, dtype=float) for x in (first, cores[labels])]
        return carry, (labels.astype(jnp.int32), *overlaps)

    _, seen = jax.lax.scan(observation, (first, key), length=n_times)
    return Observations(*(x.reshape(n_times, n_starts, -1).transpose(1, 2, 0) for x in seen))


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
        return np.argmax(np.all(bottoms[:, None] == self.spins, axis=2), axis=1)

    @property
    def n_starts(self) -> int:
        """Trajectories start from these first cores alone; the others are mirror images."""
        return len(self.spins) // (2 if self.mirrored else 1)

    def with_images(self, seen: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations from all cores, from those of the first, and from all other starts."""
        labels, overlaps, nearness = (np.asarray(x) for x in seen)
        if not self.mirrored:
            return labels, overlaps, nearness
        k, last = self.n_starts, len(self.spins) - 1

        def spread(x: np.ndarray, images: np.ndarray) -> np.ndarray:
            return np.concatenate([x[:k], images[::-1], x[k:]])

        return (
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
        """The first of `states` whose core, or its image, is each core; `cores` of all states."""
        entry = np.zeros(len(self.spins), int)
        for k in states[::-1]:
            entry[cores[k]] = k
            if self.mirrored:
                entry[len(entry) - 1 - cores[k]] = k
        return entry


def starts_of(
    cores: Cores, disordered: Float[np.ndarray, "states n"], n_trajectories: int, key: Key
) -> Int8[np.ndarray, "starts trajectories n"]:
    """Each core many times, then draws from the product measures of the disordered states."""
    first = np.repeat(cores.spins[: cores.n_starts, None], n_trajectories, axis=1)
    shape = (len(disordered), n_trajectories, cores.spins.shape[1])
    dice = np.asarray(jax.random.uniform(key, shape))
    drawn = np.where(dice < 0.5 * (1 + disordered[:, None]), 1, -1)
    return np.concatenate([first, drawn.astype(np.int8)])


def run(model, beta, cores: Cores, starts, stride: int, key: Key, n_times: int) -> Observations:
    """Observe in batches; numbers of cores and starts are padded, so that few programs serve."""
    size = min(_power_of_two(len(starts)), max(1, _ROWS // starts.shape[1]))
    padded = _padded(starts, -(-len(starts) // size) * size)
    centres = jnp.asarray(_padded(cores.spins, _power_of_two(len(cores.spins))))
    seen = [
        observe(
            model,
            beta,
            centres,
            jnp.asarray(padded[k : k + size]),
            jnp.asarray(stride),
            jax.random.fold_in(key, k),
            n_times=n_times,
        )
        for k in range(0, len(padded), size)
    ]
    return jax.tree.map(lambda *x: np.concatenate(jax.device_get(x))[: len(starts)], *seen)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _padded(x: np.ndarray, size: int) -> np.ndarray:
    """The first row repeated at the end; of equal cores the first is the nearest."""
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])
