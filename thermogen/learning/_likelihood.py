"""The log-likelihood of samples under a model, and its error."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, visible_free_energy
from ..runs import Devices, Folder, shows_progress
from ..sampling import Estimate, log_partition
from ._samples import samples_as_given, shares_of


class LogLikelihood(NamedTuple):
    """Logarithms of the probability of samples, in nats.

    Attributes:
        value: mean over the samples, by their weights.
        standard_error: standard error of the mean: of as many samples as the weights are worth,
            and of ln Z.
        of_samples: ln p of each sample, shape `(samples,)`.
        log_partition: ln Z and its error, which all samples share.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    of_samples: Float[Array, " samples"]
    log_partition: Estimate


@from_anywhere
@shows_progress
def log_likelihood(
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "samples visible"],
    beta: Beta = 1.0,
    *,
    key: Key,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> LogLikelihood:
    """`ln p = -beta F(s) - ln Z` of each sample, and the mean with its error.

    F is the free energy of the visible spins; ln Z is `thermogen.sampling.log_partition`: summed
    where that takes little, else estimated by annealing, which is too small rather than too large.

    Args:
        energy: the model.
        data: samples of +-1, shape `(samples, n_visible(energy))`.
        beta: inverse temperature; models are learned at 1.
        key: random key, for annealing.
        weights: weight of each sample, as in `fit`; equal where None.
        checkpoint: folder where annealing is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the chains are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: for bad data or weights, as in `fit`, and parameters that are not finite.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        independent = tg.Pairwise(jnp.zeros((4, 4)), jnp.zeros(4))
        found = tg.learning.log_likelihood(independent, np.ones((3, 4)), key=jax.random.key(0))
        assert jnp.allclose(found.of_samples, -4 * np.log(2)) and found.standard_error == 0
        ```
    """
    data = samples_as_given(energy, data)
    share, size = shares_of(weights, len(data))
    whole = log_partition(energy, beta, key=key, checkpoint=checkpoint, sharding=sharding)
    of_samples = _free_energies(energy, beta, jnp.asarray(data)) - whole.log_partition
    share = jnp.asarray(share, of_samples.dtype)
    value = share @ of_samples
    variance = share @ jnp.square(of_samples - value) / jnp.maximum(size - 1, 1)
    error = jnp.sqrt(variance + jnp.square(whole.standard_error))
    return LogLikelihood(value, error, of_samples, whole)


@eqx.filter_jit
def _free_energies(energy: AbstractEnergy, beta: Beta, data: Array) -> Float[Array, " samples"]:
    """`-beta F` of each sample."""
    spins = data.astype(jnp.result_type(*jax.tree.leaves(energy)))
    free_energies = jax.vmap(lambda s: visible_free_energy(energy, beta, s))(spins)
    return -jnp.asarray(beta, spins.dtype) * free_energies
