"""Inverse Ising in closed form: couplings and fields from means and connected correlations."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_memory
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import Solution, checked
from .._types import Magnetizations
from ..datasets import spins_as_given
from ..energies import Pairwise
from ..meanfield import AbstractFunctional, Bethe, Plefka
from ._results import RESULTS
from ._samples import checked_shares, with_gaps

Vector = Float[Array, " n"]
Matrix = Float[Array, "n n"]


class SessakMonasson(eqx.Module):
    """The small-correlation expansion with all loops and all pairs summed: a method of `invert`.

    Couplings and fields are minus the derivatives, by the moments, of the entropy

        S(m, C) = sum_i S_1 + (1/2) ln(det C / prod_i v_i)
                  + sum_{i<j} [ S_2 - S_1 - S_1' - (1/2) ln(1 - C_ij^2 / (v_i v_j)) ],

    v = 1 - m^2: spins alone, a Gaussian, and exact pairs less what the Gaussian holds of them
    (Sessak and Monasson 2009; Roudi, Aurell and Hertz 2009, eq. 22).

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        m, covariance = np.zeros(2), np.array([[1, 0.5], [0.5, 1]])
        found = tg.learning.invert(tg.learning.SessakMonasson(), m, covariance)

        # Exact for two spins.
        assert np.isclose(found.value.couplings[0, 1], np.arctanh(0.5))
        ```
    """


@from_anywhere
def invert(
    method: AbstractFunctional | SessakMonasson,
    magnetizations: Magnetizations,
    covariances: Float[Array | np.ndarray, "n n"],
    *,
    throw: bool = True,
) -> Solution:
    """The pairwise model, at beta = 1, that has given means and connected correlations.

    With a functional G, couplings and fields are those for which m is stationary and linear
    response yields the correlations off the diagonal: `d^2 G/dm_i dm_j = (C^-1)_ij`, one equation
    for each pair, solved in closed form. `NaiveMeanField()`: `J = -C^-1`. `TAP()`:
    `J + 2 J^2 m m' = -C^-1`, the root that is the naive one at weak coupling (Tanaka 1998).
    `Bethe()`: the pair's own correlation follows from C^-1 and its coupling exactly from that
    (Nguyen and Berg 2012; Ricci-Tersenghi 2012), so that it is exact on trees. `SessakMonasson()`
    is no functional of m; like `Bethe()` it is exact for two spins.

    The errors of J at couplings of size x with fields are of order x^2 (naive), x^3 (TAP, Bethe)
    and x^4 (Sessak and Monasson). On the diagonal no coupling can meet the response to the
    variances 1 - m^2: those n equations are left out, which is the diagonal trick of Kappen and
    Rodriguez (1998) without their self-couplings in the fields.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`, in the dtype of its input.

    Args:
        method: `NaiveMeanField()`, `TAP()`, `Bethe()` or `SessakMonasson()`.
        magnetizations: m inside (-1, 1), shape `(n,)`.
        covariances: connected correlations `<s_i s_j> - m_i m_j`, shape `(n, n)`, positive
            definite; `moments` takes both from data.
        throw: raise where there is no such model, instead of only saying so.

    Returns:
        A `Solution`: `value` is a `Pairwise`; the result is `converged`, or `no_inverse` where
        the covariances are not positive definite or a pair of spins has no solution: its coupling
        and fields are then NaN. `stats` holds `lowest_eigenvalue` of the covariances and
        `n_failed`, the number of pairs without a solution.

    Raises:
        TypeError: for a method without a closed form.
        ValueError: for arguments of wrong shape, a spin with |m| >= 1, or correlations that are
            not connected (where the values are known, outside jit).
        RuntimeError: with `throw`, if there is no such model; the message says what to do.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})

        c = tg.exact.correlations(energy, 1.0)
        found = tg.learning.invert(tg.Bethe(), jnp.zeros(3), c).value  # exact on trees
        assert jnp.allclose(found.couplings[0], jnp.array([0, 1, 0]), atol=1e-3)
        ```
    """
    m = jnp.asarray(as_array("magnetizations", magnetizations))
    c = jnp.asarray(as_array("covariances", covariances))
    _check(m, c)
    solution = _invert(method, m, c)
    return checked(solution, solution.result == RESULTS.converged) if throw else solution


@eqx.filter_jit
def _invert(method: AbstractFunctional | SessakMonasson, m: Vector, c: Matrix) -> Solution:
    inverse = jnp.linalg.inv(c)
    energy = _model(method, m, c, 0.5 * (inverse + inverse.T))
    failed = jnp.sum(~jnp.isfinite(energy.couplings)) // 2
    spectrum = jnp.linalg.eigvalsh(jax.lax.stop_gradient(c))
    definite = spectrum[0] > m.size * jnp.finfo(c.dtype).eps * spectrum[-1]
    result = RESULTS.where(definite & (failed == 0), RESULTS.converged, RESULTS.no_inverse)
    sound = jnp.all(jnp.abs(m) < 1) & jnp.all(jnp.isfinite(c))
    result = RESULTS.where(sound, result, RESULTS.non_finite)
    return Solution(energy, result, {}, {"lowest_eigenvalue": spectrum[0], "n_failed": failed})


@functools.singledispatch
def _model(method, m: Vector, c: Matrix, inverse: Matrix) -> Pairwise:
    raise TypeError(
        "method must be NaiveMeanField(), TAP(), Bethe() or SessakMonasson(), got "
        f"{type(method).__name__}"
    )


@_model.register
def _(method: Plefka, m: Vector, c: Matrix, inverse: Matrix) -> Pairwise:
    if method.order > 2:
        raise TypeError(f"method must be of order 1 or 2 for a closed form, got {method}")
    naive = _off_diagonal(-inverse)
    if method.order == 1:
        return _with_fields(method, naive, m)
    # A root of the quadratic equation without a division by m m'.
    root = jnp.sqrt(1 + 8 * jnp.outer(m, m) * naive)
    return _with_fields(method, 2 * naive / (1 + root), m)


@_model.register
def _(method: Bethe, m: Vector, c: Matrix, inverse: Matrix) -> Pairwise:
    naive, v = _off_diagonal(-inverse), 1 - m * m
    # The correlation of a pair alone, of which -C^-1 is c / (v v' - c^2).
    vv = jnp.outer(v, v)
    of_pair = 2 * naive * vv / (1 + jnp.sqrt(1 + 4 * naive**2 * vv))
    return _with_fields(method, _pairs(m, of_pair)[0], m)


@_model.register
def _(method: SessakMonasson, m: Vector, c: Matrix, inverse: Matrix) -> Pairwise:
    c, v = _off_diagonal(c), 1 - m * m
    couplings, fields = _pairs(m, c)
    # Entries of the inverse of the covariance of two spins alone.
    determinant = jnp.outer(v, v) - c**2
    couplings += _off_diagonal(-inverse) - c / determinant
    of_two = (m[:, None] * v[None, :] - c * m[None, :]) / determinant - (m / v)[:, None]
    loops = dot(inverse, m) - m / v - jnp.sum(_off_diagonal(of_two), axis=1)
    return Pairwise(couplings, jnp.arctanh(m) + jnp.sum(fields, axis=1) + loops)


def _with_fields(functional: AbstractFunctional, couplings: Matrix, m: Vector) -> Pairwise:
    """The fields that make m a stationary point of G with these couplings."""
    free = Pairwise(couplings, jnp.zeros_like(m))
    return Pairwise(couplings, jnp.asarray(jax.grad(functional, 2)(free, 1.0, m)))


def _pairs(m: Vector, c: Matrix) -> tuple[Matrix, Matrix]:
    """Coupling of each pair of spins alone, with covariance c, and the field on the first spin.

    The field is that beyond `artanh m`. Not finite where a probability is not positive.
    """
    up, down = 1 + m, 1 - m
    # ln of each of the four probabilities, relative to independent spins.
    both_up, both_down = jnp.log1p(c / jnp.outer(up, up)), jnp.log1p(c / jnp.outer(down, down))
    first_up, first_down = (jnp.log1p(-c / jnp.outer(a, b)) for a, b in ((up, down), (down, up)))
    coupling = 0.25 * (both_up + both_down - first_up - first_down)
    return coupling, 0.25 * (both_up + first_up - first_down - both_down)


def _off_diagonal(matrix: Matrix) -> Matrix:
    return jnp.where(np.eye(len(matrix), dtype=bool), 0, matrix)


def _check(m: Vector, c: Matrix) -> None:
    if m.ndim != 1 or c.shape != (m.size, m.size):
        raise ValueError(
            "magnetizations and covariances must have shapes (n,) and (n, n), got "
            f"{m.shape} and {c.shape}; use jax.vmap for many"
        )
    if isinstance(m, Tracer) or isinstance(c, Tracer):
        return
    means, table = np.asarray(m), np.asarray(c)
    if not np.all(np.abs(means) < 1):
        k = int(np.argmin(np.abs(means) < 1))
        raise ValueError(
            f"magnetizations must lie inside (-1, 1), got {means[k]} for spin {k}, whose field is "
            "infinite: use moments(data, pseudocount=...), or leave the spin out"
        )
    if np.max(np.abs(means), initial=0) > 1e-3 and np.all(np.diagonal(table) == 1):
        raise ValueError(
            "covariances must be connected, <s_i s_j> - m_i m_j, with 1 - m^2 on the diagonal, "
            "got ones on the diagonal"
        )


@from_anywhere
def moments(
    data: Num[Array | np.ndarray, "samples n"],
    *,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    pseudocount: float | int = 0.0,
) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Means and connected correlations of data, for `invert(method, *moments(data))`.

    A pseudocount adds so many samples of independent, unbiased spins: all |m| are then below 1,
    the covariances positive definite, and the probabilities of all pairs positive, at the price
    of weaker couplings.

    Args:
        data: samples of +-1, 0 where a spin is unknown, shape `(samples, n)`. Each mean is over the
            samples in which its spin is known, each product over those in which both are; together
            these need not be moments of any distribution. An objective of `fit` has no such flaw.
        weights: weight of each sample, as in `fit`.
        pseudocount: number of added samples, >= 0; need not be whole.

    Returns:
        Magnetizations, shape `(n,)`, and covariances, shape `(n, n)`.

    Raises:
        ValueError: for data other than +-1 and 0, a spin or pair that is nowhere known, or a
            negative pseudocount; if a spin is constant, or the covariances are singular, as with
            less samples than spins, with copies of a spin or with many gaps, and the pseudocount is
            0.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        data = jnp.array([[1, 1], [1, 1], [-1, -1], [1, -1]])
        means, covariances = tg.learning.moments(data, pseudocount=0.0)
        assert means.tolist() == [0.5, 0] and covariances.tolist() == [[0.75, 0.5], [0.5, 1]]
        ```
    """
    spins = spins_as_given(data, gaps=True).astype(float)
    if not 0 <= pseudocount < np.inf:
        raise ValueError(f"pseudocount must be finite and at least 0, got {pseudocount}")
    rows, weights, max_gaps = with_gaps(spins, weights)
    spins = np.asarray(rows)
    share, size = checked_shares(weights, len(spins))
    check_memory(f"the moments of {spins.shape[1]} spins", 4 * 8.0 * spins.shape[1] ** 2)
    # Shares of the samples in which a spin, and a pair, are known.
    known = share @ spins**2 if max_gaps else 1.0
    pairs = (spins**2).T @ (share[:, None] * spins**2) if max_gaps else np.ones((1, 1))
    if not np.all(pairs):
        raise ValueError(
            f"data holds no sample in which both spins {np.argwhere(pairs == 0)[0].tolist()} are "
            "known: fit a model by an objective such as Pseudolikelihood(), or leave one out"
        )
    products = spins.T @ (share[:, None] * spins)
    # Relative to all samples, the added ones included.
    m = size * (share @ spins) / (size * known + pseudocount)
    total = size * pairs + pseudocount
    c = (size * products + pseudocount * np.eye(spins.shape[1])) / total - np.outer(m, m)
    if pseudocount == 0:
        _check_spread(m, c, spins[share > 0])
    return jnp.asarray(m), jnp.asarray(c)


def _check_spread(m: np.ndarray, c: np.ndarray, spins: np.ndarray) -> None:
    remedy = "set pseudocount, for example to 1, or leave spins out"
    constant = np.flatnonzero(~(np.any(spins > 0, axis=0) & np.any(spins < 0, axis=0)))
    if constant.size:
        k = constant[0]
        raise ValueError(
            f"data has {constant.size} constant spins, the first is spin {k}, always {m[k]:+.0f}: "
            f"its field would be infinite; {remedy}"
        )
    values, vectors = np.linalg.eigh(c)
    if values[0] <= len(m) * np.finfo(float).eps * values[-1]:
        tied = np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)
        raise ValueError(
            f"data has singular covariances: {len(spins)} samples of {len(m)} spins, of which "
            f"spins {tied.tolist()} are tied by a linear relation; {remedy}"
        )
