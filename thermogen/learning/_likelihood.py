"""The log-likelihood of samples under a model, and its error."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy, visible_free_energy
from ..runs import Devices, Folder, shows_progress
from ..sampling import Estimate, annealed_importance_sampling, log_partition
from ._gaps import can_be_summed, free_energy_of
from ._samples import most_gaps, samples_as_given, shares_of, without_empty

# Of what is unknown of one sample, where that is annealed, and how many samples are at once.
_N_RUNGS, _N_CHAINS, _SAMPLES_AT_ONCE = 100, 16, 256


class LogLikelihood(NamedTuple):
    """Logarithms of the probability of samples, in nats.

    Attributes:
        value: mean over the samples, by their weights; those of which nothing is known do not
            count.
        standard_error: standard error of the mean: of as many samples as the weights are worth,
            and of ln Z; infinite where they are worth no more than one.
        of_samples: ln p of each sample, shape `(samples,)`; 0 where nothing is known.
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

    F is the free energy of the visible spins, or of those that are known; ln Z is
    `thermogen.sampling.log_partition`: summed where that takes little, else estimated by annealing,
    which is too small rather than too large.

    Args:
        energy: the model.
        data: samples of +-1, 0 where a spin is unknown, shape `(samples, n_visible(energy))`. What
            is unknown is summed out, or annealed where it is too much (100 temperatures, 16
            chains a sample). Traced data must not have gaps: their samples are NaN.
        beta: inverse temperature; models are learned at 1.
        key: random key, for annealing.
        weights: weight of each sample, as in `fit`; equal where None.
        checkpoint: folder where annealing is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the chains are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Warns:
        UserWarning: for samples of which nothing is known.

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
    data = samples_as_given(energy, data, gaps=True)
    if isinstance(data, Tracer):
        # Of traced data gaps are not known; they must not become a number.
        data, max_gaps, empty = jnp.where(data == 0, jnp.nan, data), 0, False
    else:
        data, weights, empty = without_empty(np.asarray(data), weights)
        max_gaps = most_gaps(data)
    share, size = shares_of(weights, len(data))
    gap_key = None
    if max_gaps and not can_be_summed(energy, len(data), max_gaps):
        key, gap_key = jax.random.split(key)
    # An array, for a Python number would be part of the programs.
    beta = jnp.asarray(beta, jnp.result_type(*jax.tree.leaves(energy)))
    whole = log_partition(energy, beta, key=key, checkpoint=checkpoint, sharding=sharding)
    of_samples = known_log_weights(energy, beta, jnp.asarray(data), max_gaps, gap_key)
    of_samples = jnp.where(empty, 0, of_samples - whole.log_partition)
    share = jnp.asarray(share, of_samples.dtype)
    value = share @ of_samples
    spread = share @ jnp.square(of_samples - value)
    # One sample says nothing of how others vary.
    variance = jnp.where(size > 1, spread / jnp.where(size > 1, size - 1, 1), jnp.inf)
    error = jnp.sqrt(variance + jnp.square(whole.standard_error))
    return LogLikelihood(value, error, of_samples, whole)


@eqx.filter_jit
def known_log_weights(
    energy: AbstractEnergy, beta: Beta, data: Array, max_gaps: int, key: Key | None
) -> Float[Array, " samples"]:
    """`-beta F` of what is known of each sample: summed, or annealed where there is a key."""
    spins = data.astype(jnp.result_type(*jax.tree.leaves(energy)))
    beta = jnp.asarray(beta, spins.dtype)
    if max_gaps == 0:
        return -beta * jax.vmap(lambda s: visible_free_energy(energy, beta, s))(spins)

    def summed(cue):
        return -beta * free_energy_of(energy, beta, cue, max_gaps)

    if key is None:
        return jax.lax.map(summed, spins, batch_size=_SAMPLES_AT_ONCE)
    betas = beta * jnp.linspace(0.0, 1.0, _N_RUNGS + 1, dtype=spins.dtype)[1:]

    def annealed(sample):
        cue, key = sample
        clamp = jnp.pad(cue, (0, energy.n_spins - cue.size))
        return annealed_importance_sampling(
            energy, betas, key=key, n_chains=_N_CHAINS, clamp=clamp
        ).log_partition

    keys = jax.random.split(key, len(spins))
    return jax.lax.map(annealed, (spins, keys), batch_size=_SAMPLES_AT_ONCE)
