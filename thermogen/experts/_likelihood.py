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
from ..energies import AbstractEnergy, Mixture, n_enumerated
from ..learning import checked_samples, checked_shares
from ..runs import Devices, Folder, Spread, part
from ..sampling import annealed_importance_sampling

# Up to so many spins, of an RBM in one of its layers, ln Z is summed; beyond it is estimated.
_MAX_ENUMERATED = 20
_N_RUNGS, _N_CHAINS = 1000, 256

# Samples and shares come with shapes of their own, which the callers check.
Data = Num[Array | np.ndarray, "_ _"]
Shares = Float[Array | np.ndarray, "_ _"]


@from_anywhere
def log_partitions(
    experts: AbstractEnergy, key: Key, *, checkpoint: Folder = None, sharding: Devices = None
) -> Float[Array, " experts"]:
    """ln Z of each expert at beta = 1: by enumeration up to 20 spins, else by annealing.

    Args:
        experts: energies on a leading axis, as `Mixture.experts`.
        key: random key, for annealing (1000 temperatures, 256 chains).
        checkpoint: folder where annealing is stored now and then, and goes on from if it was cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which the chains are spread: a mesh, or a sharding by its first axis.
            Where 256 is no multiple of their number, one device moves all of them.

    Returns:
        In nats, shape `(experts,)`. The annealed ones are too small rather than too large.

    Warns:
        UserWarning: where annealing has failed, so that ln Z, and with it every likelihood and
            every weight, is not known.
    """
    size = jax.tree.leaves(experts)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], experts)
    if n_enumerated(first) <= _MAX_ENUMERATED:
        return _exact_log_partitions(experts)
    betas = jnp.linspace(0.0, 1.0, _N_RUNGS + 1)[1:]
    spread = Spread.of(sharding)
    # The number of chains is no choice of the caller, who cannot make it divide.
    spread = None if spread is None or _N_CHAINS % spread.n_parts else spread
    estimates = [
        annealed_importance_sampling(
            jax.tree.map(lambda x, a=a: x[a], experts),
            betas,
            key=jax.random.fold_in(key, a),
            n_chains=_N_CHAINS,
            checkpoint=part(checkpoint, a),
            sharding=spread,
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
