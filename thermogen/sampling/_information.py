"""Mutual information between two sets of spins, from samples."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import check_two_sets
from .._placement import from_anywhere
from ._annealing import Measurement
from ._base import Draws, checked_draws

_MAX_SPINS = 16
# Effective draws for each configuration that was met: below, the correction is no correction.
_MIN_DRAWS = 5.0


@from_anywhere
def mutual_information(spins: Draws, first: Sequence[int], second: Sequence[int]) -> Measurement:
    """Mutual information of two sets of spins, in nats, from samples.

    `I = sum p(a, b) ln(p(a, b) / (p(a) p(b)))` with shares of the draws for probabilities. These
    lie too high: each entropy lacks `sum_c var(p_c) / (2 p_c)`, which is added here, with the
    variances between chains. Of independent draws that is the correction of Miller (1955) and
    Madow, of as many effective draws where those of a chain depend on each other. A value below 0
    is noise.

    The standard error is that of the infinitesimal jackknife over chains, and no less than that of
    the correction: of independent sets it alone is left. It is infinite for one chain, and where
    the draws are too few: effectively less than five for each configuration that was met. Where a
    set is the same in all draws it is `(1 + ln chains) / chains`.

    Small models are exact: `thermogen.exact.mutual_information`. Jits and vmaps.

    Args:
        spins: configurations of independent chains, shape `(chains, n)` or `(chains, draws, n)`,
            such as `sample` returns, or samples of a data set.
        first: numbers of some spins.
        second: numbers of other spins; at most 16 in both sets.

    Raises:
        ValueError: for arrays of other shapes, entries other than -1 and +1, sets that share spins
            or hold none, and more than 16 spins.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})
        spins = tg.exact.sample(energy, 1.0, key=jax.random.key(0), n_samples=4000)
        found = tg.sampling.mutual_information(spins, [0], [1, 2])
        exact = tg.exact.mutual_information(energy, 1.0, (0,), (1, 2))
        assert abs(found.value - exact) < 4 * found.standard_error < 0.1
        ```
    """
    draws = checked_draws(spins)
    first, second = check_two_sets(first, second, draws.shape[-1])
    if len(first) + len(second) > _MAX_SPINS:
        raise ValueError(
            f"first and second must hold at most {_MAX_SPINS} spins together, got "
            f"{len(first)} and {len(second)}"
        )
    bits = (draws > 0).astype(int)
    a, b = (bits[..., list(part)] @ (1 << np.arange(len(part))) for part in (first, second))
    damaged = jnp.any(jnp.isnan(draws))
    return _mutual_information(a, b, 1 << len(first), 1 << len(second), draws.dtype.name, damaged)


@eqx.filter_jit
def _mutual_information(
    a: Int[Array, "c t"], b: Int[Array, "c t"], n_a: int, n_b: int, dtype: str, damaged: Array
) -> Measurement:
    chains, draws = a.shape
    joint = a * n_b + b

    def add(carry, chain):
        # Counts first: shares of what never changes are then exactly alike.
        count = jnp.zeros(n_a * n_b, dtype).at[chain].add(1).reshape(n_a, n_b)
        shares = [x / draws for x in (count, jnp.sum(count, axis=1), jnp.sum(count, axis=0))]
        return [(p + x, q + x * x) for (p, q), x in zip(carry, shares, strict=True)], None

    start = [(jnp.zeros(shape, dtype),) * 2 for shape in ((n_a, n_b), (n_a,), (n_b,))]
    parts = jax.tree.map(lambda x: x / chains, jax.lax.scan(add, start, joint)[0])
    (p, _), (p_a, _), (p_b, _) = parts
    ratio = jnp.log(jnp.where(p > 0, p, 1) / jnp.where(p > 0, p_a[:, None] * p_b[None], 1))
    plain = jnp.sum(p * ratio)
    if chains == 1:
        return Measurement(jnp.where(damaged, jnp.nan, plain), jnp.full_like(plain, jnp.inf))
    of_joint, of_a, of_b = (_lack(p, squares, chains) for p, squares in parts)
    correction = of_joint - of_a - of_b
    of_chains = jnp.mean(ratio.reshape(-1)[joint], axis=1)
    error = jnp.std(of_chains, ddof=1) / chains**0.5
    # The excess of independent sets is a chi-squared number: of one degree of freedom at most.
    error = jnp.maximum(error, 2**0.5 * jnp.abs(correction))
    # Of a set that never changed all that is known is that one more chain might differ.
    constant = (jnp.sum(p_a > 0) == 1) | (jnp.sum(p_b > 0) == 1)
    error = jnp.where(constant, jnp.maximum(error, (1 + np.log(chains)) / chains), error)
    met = jnp.sum(p > 0)
    too_few = (2 * of_joint * _MIN_DRAWS * met > met - 1) | (a.size < _MIN_DRAWS * met)
    value = jnp.where(damaged, jnp.nan, plain - correction)
    return Measurement(value, jnp.where(too_few | damaged, jnp.inf, error))


def _lack(
    p: Float[Array, "*values"], squares: Float[Array, "*values"], chains: int
) -> Float[Array, ""]:
    """By how much the entropy of shares is too low: half of `sum var(p) / p`, between chains."""
    variance = jnp.maximum(squares - p * p, 0) / (chains - 1)
    return 0.5 * jnp.sum(variance / jnp.where(p > 0, p, 1))
