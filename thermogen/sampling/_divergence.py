"""How far apart two models are: Kullback-Leibler divergences, with errors and a bound."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import exact
from .._checks import check_count
from .._placement import from_anywhere
from .._types import Beta, Count, Key
from ..energies import AbstractEnergy, n_visible, visible_free_energy
from ._annealing import Measurement
from ._base import parameter_dtype
from ._partition import log_partition
from ._sample import sample
from ._tempering import ParallelTempering

# Of the samples of each model: replicas of a chain, the hottest over the coldest, sweeps.
_RUNGS, _HOTTEST, _BURN_IN, _KEPT, _THIN = 16, 0.05, 400, 16, 25
_MAX_ENUMERATED = 20  # spins


class Divergence(NamedTuple):
    """Kullback-Leibler divergences between the visible spins of two models, in nats.

    Attributes:
        forward: `KL(a || b) = <ln p_a - ln p_b>_a`.
        backward: `KL(b || a)`.
        symmetric: their sum, Jeffreys's divergence, in which ln Z drops out: an upper bound of
            both.
        log_ratio: `ln Z_b - ln Z_a`.
    """

    forward: Measurement
    backward: Measurement
    symmetric: Measurement
    log_ratio: Measurement


@from_anywhere
def divergence(
    a: AbstractEnergy, b: AbstractEnergy, beta: Beta = 1.0, *, key: Key, n_chains: Count = 64
) -> Divergence:
    """How far apart two models of the same visible spins are.

    Exact where both are enumerated without hidden spins; else by samples of each, drawn by parallel
    tempering and independent from chain to chain, and by `log_partition`. A negative estimate is
    noise, or says that the samples or ln Z of a cold model are not to be trusted.

    Args:
        a: a model.
        b: another one, with as many visible spins.
        beta: inverse temperature of both.
        key: random key.
        n_chains: number of chains that sample each of them, at least 2.

    Raises:
        ValueError: for models of different numbers of visible spins.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        free = tg.Pairwise(jnp.zeros((3, 3)), jnp.zeros(3))
        tilted = tg.Pairwise(jnp.zeros((3, 3)), jnp.array([0.5, 0.0, 0.0]))
        found = tg.sampling.divergence(free, tilted, key=jax.random.key(0))
        assert jnp.isclose(found.forward.value, jnp.log(jnp.cosh(0.5)))  # one tilted spin
        ```
    """
    if n_visible(a) != n_visible(b):
        raise ValueError(
            f"a and b must have as many visible spins, got {n_visible(a)} and {n_visible(b)}"
        )
    n_chains = check_count("n_chains", n_chains, least=2)
    # An array, for a Python number would be part of the programs.
    beta = jnp.asarray(beta, parameter_dtype(a))
    if max(a.n_spins, b.n_spins) <= _MAX_ENUMERATED and a.n_spins == b.n_spins == n_visible(a):
        return _exact(a, b, beta)
    z_key, *keys = jax.random.split(key, 3)
    # The same random numbers for both: of models that are alike much of the error drops out.
    z_a, z_b = (log_partition(energy, beta, key=z_key) for energy in (a, b))
    log_ratio = Measurement(
        z_b.log_partition - z_a.log_partition, jnp.hypot(z_a.standard_error, z_b.standard_error)
    )
    of_a, of_b = (
        _mean_gap(a, b, beta, _draws(energy, beta, own, n_chains))
        for energy, own in zip((a, b), keys, strict=True)
    )
    of_b = Measurement(-of_b.value, of_b.standard_error)
    ratio_of_b = Measurement(-log_ratio.value, log_ratio.standard_error)
    return Divergence(_sum(of_a, log_ratio), _sum(of_b, ratio_of_b), _sum(of_a, of_b), log_ratio)


def _sum(first: Measurement, second: Measurement) -> Measurement:
    error = jnp.hypot(first.standard_error, second.standard_error)
    return Measurement(first.value + second.value, error)


def _draws(energy: AbstractEnergy, beta: Beta, key: Key, n_chains: int) -> Float[Array, "c k n"]:
    """Configurations of independent chains, hidden spins left out."""
    ladder = ParallelTempering(np.geomspace(_HOTTEST, 1.0, _RUNGS))
    found = sample(
        ladder,
        energy,
        beta,
        key=key,
        n_chains=n_chains,
        n_sweeps=_KEPT * _THIN,
        burn_in=_BURN_IN,
        thin=_THIN,
    )
    return found[..., : n_visible(energy)]


@eqx.filter_jit
def _mean_gap(
    a: AbstractEnergy, b: AbstractEnergy, beta: Beta, draws: Float[Array, "c k n"]
) -> Measurement:
    """Mean of `beta (F_b - F_a)`, and its error by the spread over the chains."""

    def gap(s):
        return beta * (visible_free_energy(b, beta, s) - visible_free_energy(a, beta, s))

    means = jnp.mean(jax.vmap(jax.vmap(gap))(draws), axis=1)
    return Measurement(jnp.mean(means), jnp.std(means, ddof=1) / len(means) ** 0.5)


@eqx.filter_jit
def _exact(a: AbstractEnergy, b: AbstractEnergy, beta: Beta) -> Divergence:
    logits = [-beta * exact.energies(energy) for energy in (a, b)]
    of_a, of_b = (jax.nn.log_softmax(x) for x in logits)
    forward = jnp.exp(of_a) @ (of_a - of_b)
    backward = jnp.exp(of_b) @ (of_b - of_a)
    ratio = jax.nn.logsumexp(logits[1]) - jax.nn.logsumexp(logits[0])
    none = jnp.zeros_like(ratio)
    return Divergence(
        Measurement(forward, none),
        Measurement(backward, none),
        Measurement(forward + backward, none),
        Measurement(ratio, none),
    )
