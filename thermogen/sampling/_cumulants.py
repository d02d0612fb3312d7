"""Binder cumulants, and the critical point where those of several sizes cross."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_count
from .._placement import from_anywhere
from .._types import Count, Key
from ._annealing import Measurement
from ._results import RESULTS
from ._trust import first_of, known_error, unrelaxed

# By so many standard errors curves differ on either side of a crossing, and of resampled curves
# such a share still crosses.
_APART, _SHARE = 3.0, 0.95


@from_anywhere
def binder_cumulant(trace: Num[Array | np.ndarray, "chains draws"]) -> Measurement:
    """Binder cumulant `U = 1 - <x^4> / (3 <x^2>^2)` of an order parameter.

    0 for a normal distribution about 0, as in the disordered phase of many spins, and 2/3 where
    `abs(x)` has one value, as in the ordered phase. Where curves of different sizes against beta
    cross is the critical point, see `binder_crossing` (Binder, Z. Phys. B 43, 119 (1981)). A global
    flip does not touch it, so that chains need not cross from one magnetization to the other.

    The standard error is that of the infinitesimal jackknife over independent chains, however
    strongly the draws of one depend on each other. It is infinite for one chain, and where chains
    have not relaxed: where R-hat of x^2 exceeds 1.3, or x^2 drifts in all alike (see `diagnose`).
    The value is NaN where x is 0 throughout. Jits and vmaps, over temperatures for example.

    Args:
        trace: the order parameter, such as the magnetization or the overlap with a pattern; up to a
            factor. Shape `(chains, draws)`, such as `Trace(lambda energy, spins: jnp.mean(spins))`
            records.

    Raises:
        ValueError: for another shape, and for known values that are not finite.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        draws = np.random.default_rng(0).normal(size=(1000, 10))
        found = tg.sampling.binder_cumulant(draws)
        assert abs(found.value) < 4 * found.standard_error < 0.1
        assert np.isclose(tg.sampling.binder_cumulant(np.sign(draws)).value, 2 / 3)
        ```
    """
    trace = as_array("trace", trace)
    if trace.ndim != 2 or 0 in trace.shape:
        raise ValueError(f"trace must have shape (chains, draws), got {trace.shape}")
    if not isinstance(trace, Tracer) and not np.isfinite(np.asarray(trace)).all():
        raise ValueError("trace holds values that are not finite")
    return _binder_cumulant(jnp.asarray(trace, jnp.result_type(trace, jnp.float32)))


@eqx.filter_jit
def _binder_cumulant(trace: Float[Array, "chains draws"]) -> Measurement:
    chains = len(trace)
    largest = jnp.max(jnp.abs(trace))
    squares = jnp.square(trace / largest)
    of_chains = jnp.stack([jnp.mean(squares, axis=1), jnp.mean(jnp.square(squares), axis=1)])
    moments = jnp.mean(of_chains, axis=1)
    value, slopes = jax.value_and_grad(lambda m: 1 - m[1] / (3 * jnp.square(m[0])))(moments)
    if chains == 1:
        return Measurement(value, jnp.full_like(value, jnp.inf))
    deviations = jnp.sum(slopes[:, None] * (of_chains - moments[:, None]), axis=0)
    error = jnp.std(deviations, ddof=1) / chains**0.5
    unknown = unrelaxed(squares) | ~jnp.isfinite(error)
    return Measurement(value, jnp.where(unknown, jnp.inf, error))


class Crossing(NamedTuple):
    """Where the curves of each size and the next larger one cross, each of shape `(sizes - 1,)`.

    Attributes:
        beta: inverse temperature of the crossing, which tends to the critical one with the sizes.
        cumulant: the value that both curves have there.
        result: a `RESULTS` code: `no_crossing`; `not_relaxed` where a curve has an infinite error;
            `non_finite` where it is NaN. Unless it is `converged`, values are NaN and errors
            infinite.
    """

    beta: Measurement
    cumulant: Measurement
    result: RESULTS


@from_anywhere
def binder_crossing(
    betas: Num[Array | np.ndarray, " betas"],
    cumulants: Measurement,
    *,
    key: Key,
    n_resamples: Count = 500,
) -> Crossing:
    """The critical inverse temperature: where curves of different sizes cross.

    At a continuous transition Binder cumulants do not depend on the size, but for corrections that
    vanish with it: below the critical beta the larger system has the smaller cumulant, above it the
    larger one (Binder, Z. Phys. B 43, 119 (1981)). The same holds for any ratio without dimension,
    such as the correlation length over the size.

    The crossing is the change of sign that parts the differences of two curves best, with straight
    lines between measured points. Its error is the spread of the crossings of resampled curves, to
    which is added what the bend of the difference may do to a straight line. There is none unless
    the larger system lies below the smaller one somewhere before it, and above it somewhere
    after it, by three standard errors each, and 95 % of the resampled curves cross.

    Corrections to the size are not part of the error: compare the crossings of growing pairs. Jits
    and vmaps.

    Args:
        betas: increasing inverse temperatures, at least 2, shape `(betas,)`.
        cumulants: the curves, one of each size, the smallest first; values and standard errors of
            shape `(sizes, betas)`, from independent chains at each beta.
        key: random key, for the resampling.
        n_resamples: number of resampled curves.

    Raises:
        ValueError: for other shapes, fewer than 2 sizes, and betas that do not increase.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        betas = jnp.linspace(0.8, 1.2, 9)
        slopes = jnp.array([1.0, 2.0])  # of curves that cross at beta = 1
        curves = tg.sampling.Measurement(
            0.3 + slopes[:, None] * (betas - 1)[None], jnp.full((2, 9), 0.01)
        )
        found = tg.sampling.binder_crossing(betas, curves, key=jax.random.key(0))
        assert jnp.isclose(found.beta.value[0], 1.0) and 0 < found.beta.standard_error[0] < 0.1
        ```
    """
    betas = as_array("betas", betas)
    values, errors = (as_array("cumulants", x) for x in cumulants)
    if betas.ndim != 1 or len(betas) < 2:
        raise ValueError(f"betas must be at least 2 numbers, got shape {betas.shape}")
    if not isinstance(betas, Tracer) and not np.all(np.diff(np.asarray(betas)) > 0):
        raise ValueError(f"betas must increase, got {betas}")
    shape = (len(values), len(betas)) if values.ndim else ()
    if len(shape) < 2 or shape[0] < 2 or not values.shape == errors.shape == shape:
        raise ValueError(
            f"cumulants must have values and errors of shape (sizes, {len(betas)}) for at least 2 "
            f"sizes, got {values.shape} and {errors.shape}"
        )
    n_resamples = check_count("n_resamples", n_resamples, least=2)
    dtype = jnp.result_type(values, jnp.float32)
    curves = Measurement(jnp.asarray(values, dtype), jnp.asarray(errors, dtype))
    return _crossings(jnp.asarray(betas, dtype), curves, key, n_resamples)


@eqx.filter_jit
def _crossings(betas, curves, key, n_resamples) -> Crossing:
    values, errors = curves
    noise = jax.random.normal(key, (n_resamples, *values.shape), values.dtype)
    resampled = values[None] + jnp.where(jnp.isfinite(errors), errors, 0.0)[None] * noise

    def between(small, large, small_error, large_error, small_again, large_again):
        error = jnp.hypot(small_error, large_error)
        # Curves that are known exactly differ by what rounding leaves.
        error = jnp.maximum(error, jnp.finfo(error.dtype).eps)
        point, height, bend, apart = _crossing(betas, small, large, error)
        points, heights, _, again = jax.vmap(_crossing, (None, 0, 0, None))(
            betas, small_again, large_again, error
        )
        crossed = again >= 0
        apart_enough = (apart >= _APART) & (jnp.mean(crossed) >= _SHARE)
        result = first_of(
            (jnp.any(jnp.isnan(small + large + error)), RESULTS.non_finite),
            (~jnp.all(jnp.isfinite(error)), RESULTS.not_relaxed),
            (~apart_enough, RESULTS.no_crossing),
        )

        def found(value, error):
            value = jnp.where(result == RESULTS.converged, value, jnp.nan)
            return Measurement(value, known_error(error, result))

        error_beta = jnp.hypot(jnp.std(points, where=crossed), bend)
        error_height = jnp.std(heights, where=crossed)
        return Crossing(found(point, error_beta), found(height, error_height), result)

    again = jnp.swapaxes(resampled, 0, 1)
    return jax.vmap(between)(
        values[:-1], values[1:], errors[:-1], errors[1:], again[:-1], again[1:]
    )


def _crossing(betas, small, large, error):
    """Where two curves cross, at which height, how far a bend may move that, and how clearly.

    Clearly means by how many standard errors they lie apart both before and after it; below 0 where
    their difference has no change from minus to plus.
    """
    difference = large - small
    score = difference / error
    last = len(betas) - 1
    # Where the sum is least, what comes before is negative and what comes after positive.
    k = jnp.clip(jnp.argmin(jnp.cumsum(score)), 0, last - 1)
    before = jnp.arange(len(betas)) <= k
    apart = jnp.minimum(
        jnp.max(jnp.where(before, -score, -jnp.inf)), jnp.max(jnp.where(before, -jnp.inf, score))
    )
    crosses = (difference[k] <= 0) & (difference[k + 1] >= 0)
    rise = difference[k + 1] - difference[k]
    share = jnp.where(rise > 0, -difference[k] / jnp.where(rise > 0, rise, 1.0), 0.5)
    step = betas[k + 1] - betas[k]
    bends = jnp.abs(jnp.diff(difference, 2))
    near = jnp.abs(jnp.arange(last - 1) - (k - 0.5)) < 1
    bend = jnp.max(jnp.where(near, bends, 0.0), initial=0.0) / 8
    moved = bend * step / jnp.where(rise > 0, rise, jnp.inf)
    apart = jnp.where(crosses, apart, -jnp.inf)
    height = small[k] + share * (small[k + 1] - small[k])
    return betas[k] + share * step, height, moved, apart
