"""Moves of clusters of spins: Swendsen-Wang, and Houdayer's for pairs of replicas."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import as_float, check_precision
from .._types import Beta, Key, Spins
from ..energies import AbstractEnergy, terms_for
from ._base import AbstractKernel, AbstractSampler, Clamp, count_flips
from ._coloring import interaction_edges
from ._gibbs import Gibbs

Edges = Int[np.ndarray, "edges 2"]


class ClusterInfo(NamedTuple):
    """The info of a step of `SwendsenWang`.

    Attributes:
        flips: number of spins that changed.
        n_clusters: number of clusters, single spins included.
        largest: number of spins of the largest cluster.
    """

    flips: Int[Array, ""]
    n_clusters: Int[Array, ""]
    largest: Int[Array, ""]


class HoudayerInfo(NamedTuple):
    """The info of a step of `Houdayer`.

    Attributes:
        flips: number of spins of the first replica that changed.
        exchanged: number of spins of the cluster that changed places, 0 where the replicas were
            equal.
        moves: info of the kernel, on a leading axis of the two replicas.
    """

    flips: Int[Array, ""]
    exchanged: Int[Array, ""]
    moves: PyTree


class SwendsenWang(AbstractKernel):
    """Clusters of spins bound by satisfied couplings, each drawn in its total field at once.

    Couplings of either sign bind, with probability `1 - exp(-2 beta |J|)` where they are satisfied
    (Swendsen and Wang, Phys. Rev. Lett. 58, 86 (1987); Edwards and Sokal 1988). It is fast where
    couplings do not frustrate each other, as in ferromagnets; in a spin glass one cluster soon
    takes all. A cluster that holds a clamped spin stays. Reversible.

    For energies whose `thermogen.energies.terms` are fields and pairs.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(
            tg.sampling.SwendsenWang(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: Float[Array, " n"],
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[Float[Array, " n"], ClusterInfo]:
        check_precision(energy)
        check_precision(state, "state")
        bonds = _bonds(energy)
        bond_key, flip_key = jax.random.split(key)
        beta = jnp.asarray(beta, state.dtype)
        couplings, own = (x.astype(state.dtype) for x in (bonds.couplings, bonds.fields))
        gains = 2 * beta * couplings * jnp.prod(state[bonds.edges], axis=1)
        bound = jax.random.exponential(bond_key, gains.shape, state.dtype) < gains
        clusters = _clusters(bonds.edges, bound, state.size)

        # A cluster in its total field is a spin in its field.
        fields = jnp.zeros_like(state).at[clusters].add(own * state)
        draws = jax.random.logistic(flip_key, state.shape, state.dtype)
        flipped = draws > 2 * beta * fields
        if clamp is not None:
            held = jnp.zeros(state.size, bool).at[clusters].max(clamp != 0)
            flipped &= ~held
        moved = jnp.where(flipped[clusters], -state, state)
        sizes = jnp.zeros(state.size, int).at[clusters].add(1)
        info = ClusterInfo(count_flips(state, moved), jnp.sum(sizes > 0), jnp.max(sizes))
        return moved, info


class Houdayer(AbstractSampler):
    """Two replicas at one temperature, which exchange a connected cluster where they differ.

    After a sweep of both by `kernel`, a random spin is chosen among those in which they differ;
    it and all such spins that interactions connect to it change places. The sum of energies stays,
    so every exchange is accepted (Houdayer, Eur. Phys. J. B 22, 479 (2001)). It carries chains far
    where such spins do not percolate, as on lattices in two dimensions; where all spins interact
    it exchanges the replicas as a whole and gains nothing. `ParallelTempering` may be given it as
    kernel.

    The state is the pair, shape `(2, n)`; the chain's configuration is the first. For any energy
    with `thermogen.energies.terms`, whose sets are the interaction graph. A sparse graph must be
    known by its structure, as in `Interactions`; `sample` sees to that for `Pairwise`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(
            tg.sampling.Houdayer(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    kernel: AbstractKernel = Gibbs()

    def init(
        self, energy: AbstractEnergy, beta: Beta, spins: Spins, key: Key
    ) -> Float[Array, "2 n"]:
        return jnp.tile(as_float(spins), (2, 1))

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: Float[Array, "2 n"],
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[Float[Array, "2 n"], HoudayerInfo]:
        move_key, choice_key = jax.random.split(key)
        move = jax.vmap(self.kernel.step, in_axes=(None, None, 0, 0, None))
        pair, moves = move(energy, beta, state, jax.random.split(move_key), clamp)
        exchanged = exchange_cluster(energy, pair, choice_key)
        info = HoudayerInfo(
            count_flips(state[0], exchanged[0]), count_flips(pair[0], exchanged[0]), moves
        )
        return exchanged, info

    def spins(self, state: Float[Array, "2 n"]) -> Float[Array, " n"]:
        return state[0]

    def total_energy(self, energy: AbstractEnergy, state: Float[Array, "2 n"]) -> Float[Array, ""]:
        return jnp.sum(jax.vmap(energy)(state))


def exchange_cluster(
    energy: AbstractEnergy, pair: Float[Array, "2 n"], key: Key
) -> Float[Array, "2 n"]:
    """Houdayer's move alone: symmetric, and the sum of the energies stays."""
    edges = interaction_edges(terms_for("Houdayer", energy).sets)
    differ = pair[0] != pair[1]
    clusters = _clusters(edges, jnp.all(differ[edges], axis=1), pair.shape[1])
    # Where the replicas are equal all spins are candidates, and none of them changes.
    chosen = jax.random.categorical(key, jnp.where(differ, 0.0, -jnp.inf))
    return jnp.where(clusters == clusters[chosen], pair[::-1], pair)


def _clusters(edges: Edges, bound: Bool[Array, " edges"], n: int) -> Int[Array, " n"]:
    """The smallest spin of the cluster of each spin, by hooking roots and pointer jumping.

    Labels only ever fall, and point to a spin of the same cluster (Shiloach and Vishkin 1982).
    """
    first, second = edges.T

    def unfinished(carry):
        labels, previous = carry
        return jnp.any(labels != previous)

    def hook(carry):
        labels, _ = carry
        roots = labels[first], labels[second]
        low = jnp.where(bound, jnp.minimum(*roots), n)
        hooked = labels.at[roots[0]].min(low).at[roots[1]].min(low)
        return hooked[hooked], labels

    labels = jnp.arange(n)
    return jax.lax.while_loop(unfinished, hook, hook((labels, labels)))[0]


class _Bonds(NamedTuple):
    edges: Edges
    couplings: Float[Array, " edges"]
    fields: Float[Array, " n"]


def _bonds(energy: AbstractEnergy) -> _Bonds:
    """An energy of pairs and fields as lists."""
    listed = terms_for("SwendsenWang", energy, max_order=2)
    fields = jnp.zeros(energy.n_spins, jnp.result_type(float, *listed.couplings))
    couplings, edges = [fields[:0]], [np.zeros((0, 2), np.int32)]
    for table, values in zip(listed.sets, listed.couplings, strict=True):
        if table.order == 1:
            fields = fields.at[table.indices[:, 0]].add(values)
        elif table.order == 2:
            edges.append(table.indices)
            couplings.append(values)
    return _Bonds(np.concatenate(edges), jnp.concatenate(couplings), fields)
