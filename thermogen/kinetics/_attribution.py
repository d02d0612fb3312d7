"""Which metastable set a configuration belongs to, by the rule of the certificate."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, Num

from .._batches import cast, in_batches
from .._checks import as_array
from .._placement import from_anywhere
from ..energies import AbstractEnergy
from ._bound_states import BoundStates
from ._certificate import Certificate
from ._descents import prepared, slopes_of
from ._dynamics import quickest_form
from ._trajectories import descend

_BATCH = 1024


class Cells(NamedTuple):
    """What configurations are told apart by; padded by repeats of the first core.

    Attributes:
        cores: int8 configurations, shape `(cores, n)`.
        sets: number of the set of each, or of the pair of mirror images, shape `(cores,)`.
        signs: -1 for cores of the second of two images, else 1, shape `(cores,)`.
        reach: overlap with each core below which a configuration is far from it, `(cores,)`.
        far: number of the set of all that is far.
        tie: twice the local field below which a spin does not count as downhill.
    """

    cores: Int8[Array, "cores n"]
    sets: Int[Array, " cores"]
    signs: Int8[Array, " cores"]
    reach: Float[Array, " cores"]
    far: Int[Array, ""]
    tie: Float[Array, ""]

    @classmethod
    def of(cls, model: AbstractEnergy, certificate: Certificate, mirrored: bool) -> "Cells":
        """The cores of a certificate, with images where its candidates stand for two each.

        Needs 64 bits enabled.
        """
        rows = certificate.distinct
        paired = certificate.multiplicity[rows] == 2
        columns = [
            certificate.cores[rows],
            certificate.group[rows],
            np.where(paired, certificate.side[rows], 1).astype(np.int8),
            certificate.reach[rows],
        ]
        if mirrored:
            images = [-columns[0], columns[1], np.where(paired, -columns[2], 1), columns[3]]
            columns = [np.concatenate(x) for x in zip(columns, images, strict=True)]
        size = 1 << (len(columns[0]) - 1).bit_length()
        padding = size - len(columns[0])
        padded = [np.concatenate([x, np.repeat(x[:1], padding, axis=0)]) for x in columns]
        cores, sets, signs, reach = padded
        ties = slopes_of(model, certificate.cores[rows])[1]
        disordered = np.flatnonzero(certificate.disordered)
        far = certificate.group[disordered[0]] if disordered.size else 0
        return cls(
            jnp.asarray(cores),
            jnp.asarray(sets, jnp.int32),
            jnp.asarray(signs, jnp.int8),
            jnp.asarray(reach, float),
            jnp.asarray(far, jnp.int32),
            jnp.asarray(2 * ties.max()),
        )

    def find(
        self, energy: AbstractEnergy, spins: Float[Array, "n replicas"]
    ) -> tuple[Int[Array, " replicas"], Int8[Array, " replicas"]]:
        """Set of each configuration, and -1 where it belongs to the second of two images, else 1.

        That of the core nearest to the end of its zero-temperature descent, unless it is far.
        """
        bottoms = descend(energy, spins, self.tie)
        overlaps = self.cores.astype(jnp.float32) @ bottoms.astype(jnp.float32)
        nearest = jnp.argmax(overlaps, axis=0)
        near = jnp.mean(spins * self.cores[nearest].T, axis=0) >= self.reach[nearest]
        sets = jnp.where(near, self.sets[nearest], self.far)
        return sets, jnp.where(near, self.signs[nearest], 1).astype(jnp.int8)


@from_anywhere
def attribute(
    energy: AbstractEnergy, states: BoundStates, spins: Num[Array | np.ndarray, "batch n"]
) -> tuple[Int[np.ndarray, " batch"], Int8[np.ndarray, " batch"]]:
    """The bound state that each configuration belongs to, as the certificate tells them apart.

    A configuration descends at zero temperature, in five sweeps at most that flip each spin which
    lowers E, and belongs to the core that is nearest to the end; or to the disordered state, if
    this is a bound state and the configuration is far from that core.

    Args:
        energy: the energy of n spins that the states are of.
        states: bound states, as `find_bound_states` returns them.
        spins: configurations of +-1, shape `(batch, n)`.

    Returns:
        Rows of `states`, shape `(batch,)`; and, where a row stands for two mirror images, -1 for
        configurations whose image belongs to the one that `magnetizations` shows, else 1.

    Raises:
        ValueError: for spins, or an energy, of another number of spins than the states.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        found = tg.find_bound_states(magnet, 1.0, key=jax.random.key(0))
        rows, images = tg.kinetics.attribute(magnet, found, np.stack([np.ones(6), -np.ones(6)]))

        assert rows.tolist() == [0, 0] and sorted(images.tolist()) == [-1, 1]
        ```
    """
    spins = np.asarray(as_array("spins", spins))
    n = states.magnetizations.shape[1]
    if energy.n_spins != n:
        raise ValueError(f"energy must have {n} spins, those of the states, got {energy.n_spins}")
    if spins.ndim != 2 or spins.shape[1] != n:
        raise ValueError(f"spins must have shape (batch, {n}), got {spins.shape}")
    if len(spins) == 0:
        return np.zeros(0, int), np.zeros(0, np.int8)
    with jax.enable_x64(True):
        cells = Cells.of(prepared(energy), states.certificate, states.mirrored)
        # In the form of the trajectories, which decides in which order a descent visits the spins.
        model = quickest_form(cast(energy, jnp.float64))
        sets, signs = in_batches(lambda rows: _attribute(model, cells, rows), spins, _BATCH)
    return np.argsort(states.sets)[sets], signs


@eqx.filter_jit
def _attribute(energy: AbstractEnergy, cells: Cells, spins: Num[Array, "batch n"]):
    return cells.find(energy, spins.T.astype(cells.tie.dtype))
