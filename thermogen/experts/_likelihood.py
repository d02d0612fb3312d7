"""The likelihood of a mixture: partition functions of its experts, and whose a sample is."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .. import exact
from .._placement import from_anywhere
from .._solution import RESULTS
from .._types import Key
from ..energies import AbstractEnergy, Mixture
from ..learning import checked_samples, checked_shares
from ..runs import Devices, Folder, part
from ..sampling import is_summed, log_partition

# Samples and shares come with shapes of their own, which the callers check.
Data = Num[Array | np.ndarray, "_ _"]
Shares = Float[Array | np.ndarray, "_ _"]


@from_anywhere
def log_partitions(
    experts: AbstractEnergy, key: Key, *, checkpoint: Folder = None, sharding: Devices = None
) -> Float[Array, " experts"]:
    """ln Z of each expert at beta = 1, by `thermogen.sampling.log_partition`.

    Args:
        experts: energies on a leading axis, as `Mixture.experts`.
        key: random key, for annealing.
        checkpoint: folder where annealing is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the chains are spread: a mesh, or a sharding by its first axis.

    Returns:
        In nats, shape `(experts,)`. The annealed ones are too small rather than too large.

    Warns:
        UserWarning: where annealing has failed, so that ln Z, and with it every likelihood and
            every weight, is not known.
    """
    size = jax.tree.leaves(experts)[0].shape[0]
    if is_summed(jax.tree.map(lambda x: x[0], experts)):
        return _exact_log_partitions(experts)
    estimates = [
        log_partition(
            jax.tree.map(lambda x, a=a: x[a], experts),
            1.0,
            key=jax.random.fold_in(key, a),
            checkpoint=part(checkpoint, a),
            sharding=sharding,
        )
        for a in range(size)
    ]
    for a, estimate in enumerate(estimates):
        known = not isinstance(estimate.log_partition, Tracer)
        if known and estimate.result != RESULTS.converged:
            message = f"ln Z of expert {a}, by annealing, is not known: {RESULTS[estimate.result]}"
            warnings.warn(message, stacklevel=3)
    return jnp.stack([estimate.log_partition for estimate in estimates])


@eqx.filter_jit
def _exact_log_partitions(experts: AbstractEnergy) -> Float[Array, " experts"]:
    return jax.lax.map(lambda e: exact.log_partition(e, 1.0), experts)


@from_anywhere
def normalised(mixture: Mixture, *, key: Key) -> Mixture:
    """The same distribution with weights and partition functions as they are now.

    A mixture is normalised when it is made; learning with `fit` moves its experts on.

    Args:
        mixture: the mixture.
        key: random key, for annealing.
    """
    partitions = log_partitions(mixture.experts, key)
    weights = jax.nn.log_softmax(mixture.offsets + partitions)
    return Mixture(mixture.experts, weights, partitions)


@from_anywhere
def negative_log_likelihood(
    mixture: Mixture, data: Data, *, weights: Num[Array | np.ndarray, " _"] | None = None
) -> float:
    """Mean of E over samples of +-1, `(samples, n)`: nats per sample of a normalised mixture.

    Weights of the samples, shape `(samples,)`, are as for `thermogen.fit`.

    Raises:
        ValueError: for data of wrong shape or with values other than +-1.
    """
    of_samples = losses(mixture, data)
    return float(checked_shares(weights, len(of_samples))[0] @ of_samples)


def losses(mixture: Mixture, data: Data) -> Float[np.ndarray, " samples"]:
    spins = jnp.asarray(checked_samples(mixture, data))
    return -np.asarray(jax.nn.logsumexp(log_joints(mixture, spins), axis=1))


@from_anywhere
def responsibilities(mixture: Mixture, data: Data) -> Float[np.ndarray, "samples experts"]:
    """Posterior over the experts given each sample of +-1, shape `(samples, experts)`.

    Raises:
        ValueError: for data of wrong shape or with values other than +-1.
    """
    spins = jnp.asarray(checked_samples(mixture, data))
    return np.asarray(jax.nn.softmax(log_joints(mixture, spins), axis=1))


@eqx.filter_jit
def log_joints(mixture: Mixture, data: Num[Array, "samples n"]) -> Float[Array, "samples experts"]:
    return jax.vmap(mixture.log_joint)(data)
