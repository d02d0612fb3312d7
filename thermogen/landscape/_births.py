"""The beta at which the states of a genealogy are born and die."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .._batches import cast
from .._placement import from_anywhere
from ..energies import AbstractEnergy
from ..meanfield import AbstractFunctional, Bifurcation, bifurcations, follow_beta
from ._genealogy import Genealogy


@from_anywhere
def birth_points(
    functional: AbstractFunctional, energy: AbstractEnergy, family: Genealogy
) -> dict[int, Bifurcation]:
    """The bifurcations in which the states of a genealogy over beta are born.

    Each node that was born is followed back towards the beta of the stage before until it ends
    in a bifurcation (`thermogen.meanfield.follow_beta`), and the parent of each split is followed
    on until it loses its stability. Works in float64.

    Args:
        functional: the free energy of the genealogy.
        energy: the energy of the genealogy.
        family: a genealogy of one energy, each beta different from the one before.

    Returns:
        The bifurcation at which each node, the key, first appears. A node is left out where no
        bifurcation was met: its state exists at the stage before too, but is not where the quench
        led, a sign that stages are too far apart.

    Raises:
        ValueError: where beta does not change from one stage to the next.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise((np.ones((6, 6)) - np.eye(6)) / 6, np.zeros(6))
        naive, betas = tg.NaiveMeanField(), np.array([1.1, 1.3])
        family = tg.landscape.genealogy(naive, magnet, betas, key=jax.random.key(0), n_starts=16)
        births = tg.landscape.birth_points(naive, magnet, family)

        assert all(np.isclose(point.parameter, 1.2) for point in births.values())
        ```
    """
    born, split = np.flatnonzero(family.born), np.flatnonzero(family.split)
    found = _ends_of(family, born, -1, functional, energy)
    lost = _ends_of(family, family.parents[split], 1, functional, energy)
    return found | {int(family.heirs[node]): point for node, point in lost.items()}


@from_anywhere
def death_points(
    functional: AbstractFunctional, energy: AbstractEnergy, family: Genealogy
) -> dict[int, Bifurcation]:
    """The bifurcations in which states end before the last stage; see `birth_points`.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise((np.ones((6, 6)) - np.eye(6)) / 6, np.zeros(6))
        naive, betas = tg.NaiveMeanField(), np.array([1.1, 1.3])
        family = tg.landscape.genealogy(naive, magnet, betas, key=jax.random.key(0), n_starts=16)
        assert tg.landscape.death_points(naive, magnet, family) == {}
        ```
    """
    return _ends_of(family, np.flatnonzero(family.died), 1, functional, energy)


def _ends_of(
    family: Genealogy,
    nodes: Int[np.ndarray, " chosen"],
    way: int,
    functional: AbstractFunctional,
    energy: AbstractEnergy,
) -> dict[int, Bifurcation]:
    """Where some nodes end on the way to the next stage, or for -1 to the one before."""
    if np.any(np.diff(family.betas) == 0):
        raise ValueError("family must have another beta at each stage, and one energy")
    found = {}
    with jax.enable_x64(True):
        exact = cast(energy, jnp.float64)
        for node in nodes.tolist():
            stage = family.stages[node]
            # As arrays, so that no number is compiled in.
            span = (jnp.asarray(family.betas[stage]), jnp.asarray(family.betas[stage + way]))
            branch = follow_beta(functional, exact, span, jnp.asarray(family.magnetizations[node]))
            # So close to its end a minimum may be taken for the saddle that ends there with it.
            ends = [point for point in bifurcations(branch) if min(point.n_unstable) == 0]
            if ends:
                found[node] = ends[0]
    return found
