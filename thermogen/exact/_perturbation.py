"""First derivatives of the spectrum of heat-bath dynamics, by perturbation theory."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from ._minima import flipped

# Eigenvalues that differ by less are equal: as far as their solvers resolve them.
_EQUAL = 1e-12
# An eigenvalue this close to 1 is not known well enough to have derivatives.
_FROZEN = 1e-13

_Pairs = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def spectrum(pairs: _Pairs, count: int, table: Float[Array, " size"]) -> Float[Array, " count"]:
    """Leading eigenvalues of the heat-bath matrix of a traced table `beta E`, largest first.

    Args:
        pairs: makes the leading eigenvalues and eigenvectors of the symmetric form of the matrix
            from a known table and their number, on the host.
        count: how many.
        table: `beta E` of all configurations.
    """
    return _with_slopes(pairs, count, table)[0]


@spectrum.defjvp
def _(pairs, count, primals, tangents):
    values, slopes = _with_slopes(pairs, count, primals[0])
    return values, jnp.dot(slopes, tangents[0], precision="highest")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _with_slopes(pairs, count, table):
    shapes = [(count,), (count, table.size)]
    wanted = [jax.ShapeDtypeStruct(shape, table.dtype) for shape in shapes]

    def on_host(known):
        found = _solved(pairs, count, np.asarray(known, np.float64))
        return [x.astype(table.dtype) for x in found]

    return jax.pure_callback(on_host, wanted, table, vmap_method="sequential")


@_with_slopes.defjvp
def _(pairs, count, primals, tangents):
    raise NotImplementedError(
        "glauber_spectrum and relaxation_times have first derivatives only; "
        "take finite differences of these for the second"
    )


def _solved(pairs: _Pairs, count: int, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, and their derivatives by the table; NaN for those that were not found.

    NaN too are derivatives of what cannot be told from 1. Those of equal eigenvalues are the mean
    of their group, which has one.
    """
    found, vectors = pairs(table, count)
    values, slopes = np.full(count, np.nan), np.full((count, table.size), np.nan)
    slopes_found = _slopes(table, found, vectors)
    group = np.cumsum(np.diff(found, prepend=found[:1]) < -_EQUAL)
    group[1:] += 1  # that of equilibrium is alone, for it stays 1
    for k in np.unique(group):
        slopes_found[group == k] = slopes_found[group == k].mean(axis=0)
    slopes_found[1 - found < _FROZEN] = np.nan
    slopes_found[0] = 0
    known = min(count, len(found))
    values[:known], slopes[:known] = found[:known], slopes_found[:known]
    return values, slopes


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
