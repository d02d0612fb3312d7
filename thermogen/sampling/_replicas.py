"""Overlaps of replicas: the order parameter of spin glasses, its moments, and P(q)."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import scipy
from jaxtyping import Array, Bool, Float

from .._linalg import dot
from .._placement import from_anywhere
from ._annealing import Measurement
from ._base import Draws, checked_draws
from ._results import RESULTS
from ._trust import DRIFT_ALARM, first_of, known_error


class ReplicaOverlaps(NamedTuple):
    """Overlaps `q = (1/n) sum_i s_i s'_i` of two independent replicas.

    Attributes:
        mean: `<q> = (1/n) sum_i <s_i>^2`, the Edwards-Anderson order parameter q_EA of the whole
            ensemble. It is 0 where a global flip leaves the energy as it is.
        square: `<q^2> = (1/n^2) sum_ij <s_i s_j>^2`, which a global flip does not touch. Times n it
            is the spin-glass susceptibility.
        cumulant: Binder cumulant `1 - <q^4> / (3 <q^2>^2)`: 0 for a normal distribution, 2/3 where
            `abs(q)` has one value.
        distribution: P(q), the chance of each of the values -1, -1 + 2/n, ..., 1 of q, shape
            `(n + 1,)`; with an error of 0 where no pair was met.
        result: a `RESULTS` code. `not_relaxed` where chains resemble their own past more than each
            other; `non_finite` where traced spins are. All errors are infinite then.
    """

    mean: Measurement
    square: Measurement
    cumulant: Measurement
    distribution: Measurement
    result: RESULTS


@from_anywhere
def replica_overlaps(spins: Draws) -> ReplicaOverlaps:
    """The spin-glass order parameter q_EA, moments of the overlap and P(q), from replicas.

    Each pair of independent chains is a pair of replicas, so that all means but the cumulant are
    unbiased: `<s_i>^2` is the mean of `s_i s'_i`, where the square of a mean would add its noise.
    Errors are those of the infinitesimal jackknife over replicas, and no less than those of as many
    independent pairs. Infinite below three chains.

    Where chains have relaxed, one that is compared with itself half a record later is a replica of
    itself; as long as it is not, its overlap is larger than that between chains (Bhatt and Young,
    Phys. Rev. Lett. 54, 924 (1985)). That is tested on q^2, with a false alarm in 1 % of relaxed
    runs. Of one draw a chain, shape `(chains, n)`, independence is taken for granted.

    The order parameter within one of several states is `thermogen.kinetics.inside`. Jits and vmaps,
    over disorder for example.

    Args:
        spins: configurations of independent chains at one temperature, shape `(chains, n)` or
            `(chains, draws, n)`, such as `sample` returns; at least 2 chains.

    Raises:
        ValueError: for arrays of other shapes, one chain, and entries other than -1 and +1.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        free = tg.Pairwise(jnp.zeros((3, 3)), jnp.full(3, 0.5))  # <s_i> = tanh(beta h)
        spins = tg.exact.sample(free, 1.0, key=jax.random.key(0), n_samples=400)
        found = tg.sampling.replica_overlaps(spins)
        assert abs(found.mean.value - jnp.tanh(0.5) ** 2) < 4 * found.mean.standard_error
        assert jnp.isclose(found.distribution.value.sum(), 1)
        ```
    """
    return _replica_overlaps(checked_draws(spins, min_chains=2))


@eqx.filter_jit
def _replica_overlaps(spins: Float[Array, "c t n"]) -> ReplicaOverlaps:
    chains, draws, n = spins.shape
    apart = 1 - jnp.eye(chains, dtype=spins.dtype)
    rows = jnp.arange(chains)[:, None]

    def add(carry, s):
        powers, counts = carry
        q = dot(s, s.T) / n
        found = jnp.stack([q, jnp.square(q), q**4]) * apart[None]
        agreeing = jnp.round((1 + q) * (n / 2)).astype(int)
        return (powers + found, counts.at[rows, agreeing].add(apart)), None

    start = jnp.zeros((3, chains, chains)), jnp.zeros((chains, n + 1))
    start = jax.tree.map(lambda x: x.astype(spins.dtype), start)
    sums, _ = jax.lax.scan(add, start, jnp.swapaxes(spins, 0, 1))
    powers, counts = jax.tree.map(lambda x: x / draws, sums)

    moments = jnp.sum(powers, axis=(1, 2)) / (chains * (chains - 1))
    slopes = jax.grad(_cumulant)(moments)
    result = first_of(
        (~jnp.all(jnp.isfinite(spins)), RESULTS.non_finite),
        (_remembers(spins, powers[1], moments[1]), RESULTS.not_relaxed),
    )

    def measured(value, error):
        return Measurement(value, known_error(jnp.where(jnp.isnan(error), jnp.inf, error), result))

    errors = [_pair_error(of_pairs, apart) for of_pairs in powers]
    of_cumulant = _pair_error(jnp.tensordot(slopes, powers, axes=1), apart)
    return ReplicaOverlaps(
        measured(moments[0], errors[0]),
        measured(moments[1], errors[1]),
        measured(_cumulant(moments), of_cumulant),
        _distribution(counts, measured),
        result,
    )


def _cumulant(moments: Float[Array, "3"]) -> Float[Array, ""]:
    return 1 - moments[2] / (3 * jnp.square(moments[1]))


def _pair_error(of_pairs: Float[Array, "c c"], apart: Float[Array, "c c"]) -> Float[Array, ""]:
    """Standard error of the mean over pairs of replicas, a U-statistic of second order."""
    chains = len(of_pairs)
    mean = jnp.sum(of_pairs) / (chains * (chains - 1))
    of_replicas = jnp.sum(of_pairs, axis=1) / (chains - 1)
    spread = jnp.sum(jnp.square(of_pairs - mean) * apart) / (chains * (chains - 1))
    return _error(jnp.sum(jnp.square(of_replicas - mean)), spread, chains)


def _error(
    squares: Float[Array, "*values"], spread: Float[Array, "*values"], chains: int
) -> Float[Array, "*values"]:
    """By the squared deviations of replicas, and no less than pairs that are independent make it.

    Replicas that do not overlap on average are all alike in some samples, whose mean then misses 0
    by the noise of pairs alone.
    """
    if chains < 3:
        return jnp.full_like(squares, jnp.inf)
    of_replicas = 4 * squares * (chains - 1) / (chains * (chains - 2) ** 2)
    return jnp.sqrt(jnp.maximum(of_replicas, 2 * spread / (chains * (chains - 1))))


def _distribution(counts: Float[Array, "c values"], measured) -> Measurement:
    """P(q); pairs differ in an indicator by no more than `p (1 - p)`."""
    chains = len(counts)
    of_replicas = counts / (chains - 1)
    p = jnp.mean(of_replicas, axis=0)
    squares = jnp.sum(jnp.square(of_replicas - p[None]), axis=0)
    return measured(p, _error(squares, p * (1 - p), chains))


def _remembers(
    spins: Float[Array, "c t n"], squares: Float[Array, "c c"], mean: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether chains overlap with themselves, half a record apart, more than with each other."""
    chains, draws, _ = spins.shape
    if chains < 3 or draws == 1:
        return jnp.zeros((), bool)
    later = spins[:, draws // 2 :]
    earlier = spins[:, : later.shape[1]]
    own = jnp.mean(jnp.square(jnp.mean(earlier * later, axis=2)), axis=1)
    others = jnp.sum(squares, axis=1) / (chains - 1)
    excess = own - 2 * others + mean  # of each chain; the mean over pairs has slope 2
    error = jnp.std(excess, ddof=1) / chains**0.5
    most = float(scipy.special.stdtrit(chains - 1, 1 - DRIFT_ALARM))
    rounding = 32 * jnp.finfo(spins.dtype).eps
    return jnp.mean(excess) > most * error + rounding
