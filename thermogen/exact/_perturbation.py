"""First derivatives of the spectrum of heat-bath dynamics, by perturbation theory."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from ._minima import flipped

# Eigenvalues that differ by less are equal, if that is little beside their distance from 1.
_EQUAL, _LITTLE = 1e-12, 1e-3
# Others that differ by less are not told apart by their solvers, nor their eigenvectors.
_RESOLVED = 1e-13

_Pairs = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
_Measure = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def spectrum(
    pairs: _Pairs, measure: _Measure, count: int, table: Float[Array, " size"]
) -> Float[Array, " count"]:
    """A function of the leading eigenvalues of the heat-bath matrix of a traced table `beta E`.

    Args:
        pairs: makes the leading eigenvalues, largest first, and eigenvectors of the symmetric form
            of the matrix from a known table and their number, on the host.
        measure: makes of eigenvalues and the number of spins what is asked for, and its derivatives
            by them, on the host: there in double precision, of which eigenvalues near 1 need all.
        count: how many.
        table: `beta E` of all configurations.
    """
    return _with_slopes(pairs, measure, count, table)[0]


@spectrum.defjvp
def _(pairs, measure, count, primals, tangents):
    values, slopes = _with_slopes(pairs, measure, count, primals[0])
    return values, jnp.dot(slopes, tangents[0], precision="highest")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _with_slopes(pairs, measure, count, table):
    shapes = [(count,), (count, table.size)]
    wanted = [jax.ShapeDtypeStruct(shape, table.dtype) for shape in shapes]
    rounding = float(jnp.finfo(table.dtype).eps)

    def on_host(known):
        found = _solved(pairs, measure, count, np.asarray(known, np.float64), rounding)
        return [x.astype(table.dtype) for x in found]

    return jax.pure_callback(on_host, wanted, table, vmap_method="sequential")


@_with_slopes.defjvp
def _(pairs, measure, count, primals, tangents):
    raise NotImplementedError(
        "glauber_spectrum and relaxation_times have first derivatives only; "
        "take finite differences of these for the second"
    )


def _solved(
    pairs: _Pairs, measure: _Measure, count: int, table: np.ndarray, rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """The measure, and its derivatives by the table; NaN of eigenvalues that were not found."""
    values, slopes = np.full(count, np.nan), np.full((count, table.size), np.nan)
    if not np.all(np.isfinite(table)):
        return values, slopes
    try:
        # One more, which tells whether the last group goes on.
        found, vectors = pairs(table, count + 1)
    except (np.linalg.LinAlgError, RuntimeError):  # of one row of a map: others go on
        return values, slopes
    gaps, is_whole = 1 - found, len(found) == table.size
    each = _slopes(table, found, vectors)
    each = _shared(each, gaps, rounding * np.max(np.abs(table)), is_whole)
    found, each = found[:count], each[:count]
    values[: len(found)], chain = measure(found, table.size.bit_length() - 1)
    with np.errstate(invalid="ignore"):  # of infinite times
        slopes[: len(found)] = chain[:, None] * each
    slopes[0] = 0  # of equilibrium
    return values, slopes


def _shared(slopes: np.ndarray, gaps: np.ndarray, rounding: float, is_whole: bool) -> np.ndarray:
    """Of equal eigenvalues the mean slope of their group; NaN where two may be equal or not, and
    of the last group, where there may be more of it.

    An error d of the table changes a gap `1 - lambda` by up to 2d of itself.
    """
    blurred = 8 * rounding * gaps[:-1]
    equal = np.minimum(_EQUAL + blurred, _LITTLE * gaps[:-1])
    equal[:1] = -np.inf  # equilibrium is alone, for it stays 1
    apart = np.diff(gaps)
    group = np.append(0, np.cumsum(apart > equal))
    for k in np.unique(group):
        slopes[group == k] = slopes[group == k].mean(axis=0)
    unclear = np.flatnonzero((apart > equal) & (apart < _RESOLVED + blurred))
    slopes[np.isin(group, group[[*unclear, *(unclear + 1)]])] = np.nan
    if not is_whole:
        slopes[group == group[-1]] = np.nan
    return slopes


def _slopes(
    table: np.ndarray, values: np.ndarray, vectors: np.ndarray
) -> Float[np.ndarray, "found size"]:
    """`d lambda_i / d table(s)`: that of a Rayleigh quotient, which is stationary in the function.

    With f = v/sqrt(p), p the Boltzmann weights and c the flow between neighbours at equilibrium,
    `1 - lambda = sum c (f - f')^2 / 2 sum p f^2`: sums of positive terms, that lose nothing where
    lambda is close to 1. With a = sqrt(c) (f - f') and r the share of the flips from s to s' the
    derivative of `ln c` is -r, that of `ln p` is -1, and what normalises p drops out.
    """
    n = table.size.bit_length() - 1
    slopes = (values - 1)[:, None] * vectors.T**2
    for k in range(n):
        there = flipped(table.size, k)
        share = scipy.special.expit(table - table[there])[:, None]
        moved = vectors * np.sqrt(share / n) - vectors[there] * np.sqrt(share[there] / n)
        slopes += (moved**2 * share).T
    return slopes
