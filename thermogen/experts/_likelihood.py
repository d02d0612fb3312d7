"""The likelihood of a mixture: partition functions of its experts, and whose a sample is."""

import functools
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
from ..learning import (
    can_be_summed,
    checked_shares,
    known_log_weights,
    most_gaps,
    samples_as_given,
)
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

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))
        found = tg.experts.log_partitions(mixture.experts, key=jax.random.key(0))

        assert jnp.allclose(found, log_z)
        ```
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

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))
        again = tg.experts.normalised(mixture, key=jax.random.key(0))

        assert jnp.isclose(again(jnp.ones(2)), mixture(jnp.ones(2)))
        ```
    """
    partitions = log_partitions(mixture.experts, key)
    weights = jax.nn.log_softmax(mixture.offsets + partitions)
    return Mixture(mixture.experts, weights, partitions)


@from_anywhere
def negative_log_likelihood(
    mixture: Mixture,
    data: Data,
    *,
    weights: Num[Array | np.ndarray, " _"] | None = None,
    key: Key | None = None,
) -> float:
    """Mean of `-ln p` over samples, in nats: that of E, of a normalised mixture.

    Args:
        mixture: the mixture.
        data: samples of +-1, shape `(samples, n)`. Of one with unknown spins, which are 0, it is
            the probability of what is known.
        weights: weight of each sample, as for `thermogen.fit`.
        key: random key, for gaps that are too many to be summed: what they add is annealed, for
            each sample in each expert (100 temperatures, 16 chains).

    Raises:
        ValueError: for data of wrong shape or with values other than +-1 and 0, and many gaps
            without a key.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))
        data = jnp.array([[1.0, 1.0]])

        assert jnp.isclose(tg.experts.negative_log_likelihood(mixture, data), mixture(data[0]))
        ```
    """
    of_samples = losses(mixture, data, key)
    return float(checked_shares(weights, len(of_samples))[0] @ of_samples)


def losses(mixture: Mixture, data: Data, key: Key | None = None) -> Float[np.ndarray, " samples"]:
    return -np.asarray(_log_sums(log_joints(mixture, data, key)))


@from_anywhere
def responsibilities(
    mixture: Mixture, data: Data, *, key: Key | None = None
) -> Float[np.ndarray, "samples experts"]:
    """Posterior over the experts given what is known of each sample, shape `(samples, experts)`.

    Arguments and errors are those of `negative_log_likelihood`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))
        shares = tg.experts.responsibilities(mixture, jnp.array([[1.0, 1.0], [-1.0, -1.0]]))

        assert shares[0, 0] > 0.9 and shares[1, 1] > 0.9
        ```
    """
    return np.asarray(_shares(log_joints(mixture, data, key)))


_log_sums = jax.jit(functools.partial(jax.nn.logsumexp, axis=1))
_shares = jax.jit(functools.partial(jax.nn.softmax, axis=1))


def log_joints(
    mixture: Mixture, data: Data, key: Key | None = None
) -> Float[Array, "samples experts"]:
    """`ln w_a p_a` of what is known of each sample."""
    spins = np.asarray(samples_as_given(mixture, data, gaps=True), float)
    most = most_gaps(spins)
    if most and can_be_summed(mixture.expert(0), len(spins), most):
        key = None
    elif most and key is None:
        raise ValueError(
            f"data have too many unknown spins to be summed out, up to {most} in each of "
            f"{len(spins)} rows: give a key, and what they add is annealed"
        )
    return _log_joints(mixture, jnp.asarray(spins), most, key)


@eqx.filter_jit
def _log_joints(
    mixture: Mixture, data: Num[Array, "samples n"], max_gaps: int, key: Key | None
) -> Float[Array, "samples experts"]:
    if max_gaps == 0:
        return jax.vmap(mixture.log_joint)(data)
    keys = None if key is None else jax.random.split(key, mixture.n_experts)
    known = jax.vmap(lambda expert, key: known_log_weights(expert, 1.0, data, max_gaps, key))
    return mixture.offsets[None] + known(mixture.experts, keys).T
