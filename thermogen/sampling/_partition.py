"""ln Z of any energy: summed where that takes little, else by annealing."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import exact
from .._checks import check_count
from .._placement import from_anywhere
from .._types import Beta, Count, Key
from ..energies import AbstractEnergy, has_terms, n_enumerated
from ..runs import Devices, Folder, Spread, shows_progress
from ._annealing import Estimate, annealed_importance_sampling
from ._base import parameter_dtype
from ._results import RESULTS

# Up to so many spins are enumerated, and an elimination of so many entries takes a second or two.
_MAX_ENUMERATED, _MAX_ENTRIES = 20, 2**27


@from_anywhere
@shows_progress
def log_partition(
    energy: AbstractEnergy,
    beta: Beta,
    *,
    key: Key,
    n_chains: Count = 256,
    n_rungs: Count = 1000,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Estimate:
    """ln Z of any energy, and its error: exact where that takes little, else by annealing.

    It is summed up to 20 spins, of an `RBM` in one of its layers, and by elimination where the
    graph of interactions is narrow (`thermogen.exact.cost`); else it is estimated by
    `annealed_importance_sampling` at evenly spaced temperatures.

    Args:
        energy: the energy.
        beta: inverse temperature, above 0.
        key: random key, for annealing.
        n_chains: number of annealed chains.
        n_rungs: number of temperatures.
        checkpoint: folder where annealing is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the chains are spread: a mesh, or a sharding by its first axis.
            Where `n_chains` is no multiple of their number, one device moves all of them.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        An `Estimate`; an exact one has the standard error 0.

    Raises:
        ValueError: as `annealed_importance_sampling` does.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        found = tg.sampling.log_partition(energy, 1.0, key=jax.random.key(0))
        assert found.standard_error == 0
        assert jnp.isclose(found.log_partition, tg.exact.log_partition(energy, 1.0))
        ```
    """
    n_chains, n_rungs = check_count("n_chains", n_chains), check_count("n_rungs", n_rungs)
    if is_summed(energy):
        # An array, for a Python number would be part of the program.
        value = _summed(energy, jnp.asarray(beta, parameter_dtype(energy)))
        zero, none = jnp.zeros_like(value), jnp.asarray(0)
        return Estimate(value, zero, zero + jnp.inf, RESULTS.converged, none, none + 1)
    betas = beta * jnp.linspace(0.0, 1.0, n_rungs + 1)[1:]
    spread = Spread.of(sharding)
    if spread is not None and n_chains % spread.n_parts:
        spread = None
    return annealed_importance_sampling(
        energy, betas, key=key, n_chains=n_chains, checkpoint=checkpoint, sharding=spread
    )


def is_summed(energy: AbstractEnergy) -> bool:
    """Whether `log_partition` of this energy is exact.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        assert tg.sampling.is_summed(pair)
        ```
    """
    if n_enumerated(energy) <= _MAX_ENUMERATED:
        return True
    if not has_terms(energy):
        return False
    takes = exact.cost(energy)
    return takes.method == "elimination" and takes.n_steps * takes.table_size <= _MAX_ENTRIES


@eqx.filter_jit
def _summed(energy: AbstractEnergy, beta: Beta) -> Float[Array, ""]:
    return exact.log_partition(energy, beta)
