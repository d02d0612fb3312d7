"""Heat-bath dynamics by its transition matrix: relaxation times and metastable sets.

One step draws one random spin from its conditional distribution; a sweep is n steps. The matrix is
never stored: of each configuration the n probabilities of a flip are, and where a flip leads is
known.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .._checks import check_count, check_finite
from .._linalg import simplex_corners
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy
from ._ensembles import checked_beta, energies
from ._minima import flipped
from ._perturbation import spectrum

_MAX_SPINS, _MAX_DENSE = 18, 10
_N_LEADING, _N_AT_ONCE, _MAX_RESTARTS = 32, 8, 400

# Eigenvectors are precise to about 1e-16, so they tell how a configuration belongs to sets that
# are heavier by up to the square of this factor.
_RESOLVED = 1e13
# An eigenvalue below is not told from 0.
_ZERO = 1e-13


class MetastableSets(NamedTuple):
    """Sets of configurations that exchange more slowly than a threshold.

    Attributes:
        labels: the set of every configuration, 0 for the heaviest, shape `(2**n,)`.
        weights: Boltzmann weight of each set, in decreasing order, shape `(k,)`.
        entropies: of the Boltzmann distribution within each set, in nats, shape `(k,)`.
        relaxation_times: relaxation times of the k - 1 slow processes between the sets, in
            sweeps, longest first.
    """

    labels: Int[np.ndarray, " configurations"]
    weights: Float[np.ndarray, " k"]
    entropies: Float[np.ndarray, " k"]
    relaxation_times: Float[np.ndarray, " slow"]


@from_anywhere
def glauber_spectrum(
    energy: AbstractEnergy, beta: Beta, *, n_eigenvalues: int | None = None
) -> Float[Array | np.ndarray, " eigenvalues"]:
    """Leading eigenvalues of the heat-bath transition matrix, largest first.

    All eigenvalues lie in [0, 1], and the first is 1. A dense solver finds all of them for
    n <= 10; beyond, up to n = 18, Lanczos steps find the leading ones (ARPACK).

    Under `jax.jit`, `jax.vmap` and derivatives it is a function of energy and beta with first
    derivatives, `d lambda = v dS v` of the symmetric form S of the matrix and its eigenvectors v;
    asking for second ones is an error. Of several equal eigenvalues each has the mean derivative of
    its group: right for sums over the group, and for changes that keep it together. Of a change
    that splits it single ones have no derivative. Equal are those that differ by less than 1e-12,
    or than rounding of `beta E` moves them. Eigenvalues that are not found are NaN there, as are
    all where `beta E` is not finite, and so are derivatives of what cannot be told apart: of those
    within 1e-13 of that of equilibrium, of slow ones as close to each other that may be equal
    or not, and beyond 10 spins of the last if its equals go on.

    Args:
        energy: an energy of n <= 18 spins.
        beta: inverse temperature.
        n_eigenvalues: number of eigenvalues, at least 1; by default all for n <= 10 and 32 beyond.

    Raises:
        ValueError: if n > 18 or n_eigenvalues < 1.
        RuntimeError: if Lanczos steps do not find that many, which happens in the cold.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        values = tg.exact.glauber_spectrum(pair, 0.0)

        assert jnp.allclose(values, jnp.array([1.0, 0.5, 0.5, 0.0]), atol=1e-6)
        ```
    """
    wanted = _wanted(energy.n_spins, n_eigenvalues)
    if _is_traced(energy, beta):
        return _traced(energy, beta, wanted, _eigenvalues)
    hops = _hops(_table(energy, beta))
    if energy.n_spins <= _MAX_DENSE:
        return np.linalg.eigvalsh(_dense(*hops))[::-1][:wanted]
    found = np.sort(_leading(_operator(*hops), wanted)[0])[::-1]
    if len(found) < wanted:
        raise RuntimeError(
            f"only {len(found)} of {wanted} leading eigenvalues were found: set n_eigenvalues to "
            "fewer, or take a higher temperature"
        )
    return found


@from_anywhere
def relaxation_times(
    energy: AbstractEnergy, beta: Beta, *, n_eigenvalues: int | None = None
) -> Float[Array | np.ndarray, " processes"]:
    """Relaxation times `-1/(n ln lambda)` of heat-bath dynamics in sweeps, longest first.

    A time is infinite where its eigenvalue cannot be told from 1, so beyond about 1e15 / n. The
    eigenvalue 1 of equilibrium is left out, so that there is one time fewer than eigenvalues.
    Traced it has first derivatives, with the limits of `glauber_spectrum`: that of an infinite time
    is NaN.

    Args and errors: those of `glauber_spectrum`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        cold, hot = (tg.exact.relaxation_times(energy, beta)[0] for beta in (1.0, 0.5))
        assert cold > hot  # the reversal of all spins
        ```
    """
    if _is_traced(energy, beta):
        return _traced(energy, beta, _wanted(energy.n_spins, n_eigenvalues), _times)[1:]
    leading = glauber_spectrum(energy, beta, n_eigenvalues=n_eigenvalues)
    return _sweeps(np.asarray(leading[1:]), energy.n_spins)


@from_anywhere
def metastable_sets(energy: AbstractEnergy, beta: Beta, *, threshold: float) -> MetastableSets:
    """The sets of configurations in which heat-bath dynamics stays longer than `threshold` sweeps.

    Their number is one plus that of the relaxation times above the threshold. In the leading
    eigenvectors configurations of one set share one point of a simplex, and those on the way
    lie between: each belongs to the set that dynamics from there most likely reaches first
    (the PCCA+ construction of Deuflhard and Weber, Linear Algebra Appl. 398, 161 (2005)).

    Args:
        energy: an energy of n <= 18 spins.
        beta: inverse temperature.
        threshold: shortest relaxation time, in sweeps, that parts two sets, > 0.

    Raises:
        ValueError: if n > 18 or the threshold is not positive.
        RuntimeError: if Lanczos steps find no eigenvalue.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        sets = tg.exact.metastable_sets(pair, 3.0, threshold=20.0)

        # Up, down, and what lies between belongs to one of them.
        assert len(sets.weights) == 2 and sets.labels[0] != sets.labels[3]
        ```
    """
    check_finite("threshold", threshold, positive=True)
    table = _table(energy, beta)
    times, vectors = _slow(table, threshold)
    log_root = -0.5 * (table - table.min())
    labels = np.argmax(_memberships(vectors, log_root), axis=1)
    p = np.exp(2 * log_root)
    p /= p.sum()
    # -p ln p, which is nothing where p underflows.
    parts = scipy.special.entr(p)
    weights, parts = (np.bincount(labels, x, minlength=len(times) + 1) for x in (p, parts))
    order = np.argsort(-weights, kind="stable")
    entropies = parts / weights + np.log(weights)
    return MetastableSets(np.argsort(order)[labels], weights[order], entropies[order], times)


def _wanted(n: int, n_eigenvalues: int | None) -> int:
    """The number of eigenvalues that is asked for, or its default."""
    if n_eigenvalues is None:
        return 2**n if n <= _MAX_DENSE else _N_LEADING
    return min(check_count("n_eigenvalues", n_eigenvalues), 2**n)


def _is_traced(energy: AbstractEnergy, beta: Beta) -> bool:
    return any(isinstance(x, Tracer) for x in jax.tree.leaves((energy, beta)))


def _traced(
    energy: AbstractEnergy, beta: Beta, count: int, measure: Callable
) -> Float[Array, " eigenvalues"]:
    table = _checked(energy, beta) * energies(energy)
    return spectrum(_leading_pairs, measure, count, table)


def _eigenvalues(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    return values, np.ones_like(values)


def _times(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Relaxation times and their derivatives by the eigenvalues."""
    times = _sweeps(values, n)
    # One eigenvalue is 0 for every energy, that of parity over the Boltzmann weight: it stays so.
    return times, np.divide(n * times**2, values, out=np.zeros_like(values), where=values > _ZERO)


def _leading_pairs(table: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues, largest first, and eigenvectors: of small matrices all, or those found.

    A callback must not compute with JAX: the matrix is NumPy's or SciPy's.
    """
    hops, stays = _hops(table)
    if len(hops) <= _MAX_DENSE:
        values, vectors = np.linalg.eigh(_dense(hops, stays))
    else:
        index = np.arange(table.size)
        rows = np.concatenate([index, *(flipped(table.size, k) for k in range(len(hops)))])
        columns, entries = np.tile(index, 1 + len(hops)), np.append(stays, hops)
        values, vectors = _leading(scipy.sparse.csr_array((entries, (rows, columns))), count)
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order]


def _sweeps(eigenvalues: np.ndarray, n: int) -> Float[np.ndarray, " processes"]:
    with np.errstate(divide="ignore"):
        return 1 / np.abs(n * np.log(np.clip(eigenvalues, 0, 1)))


def _slow(table: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Relaxation times above the threshold, and the eigenvectors with that of equilibrium."""
    n = table.size.bit_length() - 1
    if n <= _MAX_DENSE:
        # Of all eigenvectors the few slow ones: a third of the time.
        fastest = np.exp(-1 / (max(n, 1) * threshold))
        values, vectors = scipy.linalg.eigh(
            _dense(*_hops(table)), subset_by_value=(fastest, np.inf)
        )
    else:
        operator = _operator(*_hops(table))
        values, vectors = np.zeros(0), np.zeros((table.size, 0))
        # Lanczos steps may miss some of several equal eigenvalues: what is found is taken out
        # until nothing slow is left.
        while True:
            known, rest = vectors, operator
            if known.shape[1]:
                known_part = scipy.sparse.linalg.aslinearoperator(known)
                rest = rest - known_part @ scipy.sparse.linalg.aslinearoperator(known.T)
            found, new = _leading(rest, _N_AT_ONCE)
            slow = _sweeps(found, n) > threshold
            if not slow.any():
                break
            values, vectors = np.append(values, found[slow]), np.hstack([known, new[:, slow]])
    order = np.argsort(-values, kind="stable")
    return _sweeps(values[order[1:]], n), vectors[:, order]


def _leading(operator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues of a sparse symmetric operator and their eigenvectors: those found."""
    try:
        values, vectors = scipy.sparse.linalg.eigsh(
            operator, k=count, which="LA", ncv=4 * max(count, _N_AT_ONCE), maxiter=_MAX_RESTARTS
        )
        return values, vectors
    except scipy.sparse.linalg.ArpackNoConvergence as partial:
        # In the cold most eigenvalues are nearly equal; the slow ones converge all the same.
        if len(partial.eigenvalues) == 0:
            raise RuntimeError("no eigenvalue of the transition matrix was found") from partial
        return partial.eigenvalues, partial.eigenvectors


def _memberships(
    vectors: np.ndarray, log_root: np.ndarray
) -> Float[np.ndarray, "configurations k"]:
    """How much each configuration belongs to each set; rows sum to about 1.

    Eigenvectors of the transition matrix are those of its symmetric form over the root of the
    Boltzmann weight.
    """
    # The deepest configuration of each set: rows that span the space of the leading vectors.
    cores, coefficients = simplex_corners(vectors)
    factors = log_root[cores] - log_root[:, None]
    resolved = np.max(factors, axis=1) < np.log(_RESOLVED)
    chi = np.where(resolved[:, None], coefficients * np.exp(np.minimum(factors, 99)), 0)
    chi[cores], resolved[cores] = np.eye(len(cores)), True
    if not resolved.all():
        chi[~resolved] = _first_hits(_rates(-2 * log_root), resolved, chi[resolved])
    return chi


def _first_hits(rates: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of `values` at the first known configuration that the dynamics meets from the others."""
    with jax.enable_x64(True):
        on_device = jax.device_put((rates, np.zeros(known.size)))
    leaving, full = rates.sum(axis=0)[~known], np.zeros(known.size)

    def arrival(x: np.ndarray, where: np.ndarray) -> np.ndarray:
        full[where], full[~where] = x, 0
        with jax.enable_x64(True):
            return np.asarray(_stepped(*on_device, full))[~known]

    def left(x: np.ndarray) -> np.ndarray:
        return leaving * x - arrival(x, ~known)

    system = _linear(leaving.size, left)
    found = []
    for end in values.T:
        goal = arrival(end, known)
        hits, code = scipy.sparse.linalg.gmres(system, goal, rtol=1e-6, restart=100, maxiter=100)
        if code != 0:
            raise RuntimeError("the sets that the dynamics meets first were not found")
        found.append(hits)
    return np.transpose(found)


def _table(energy: AbstractEnergy, beta: Beta) -> Float[np.ndarray, " configurations"]:
    """`beta E` of all configurations."""
    return float(_checked(energy, beta)) * np.asarray(energies(energy), float)


def _checked(energy: AbstractEnergy, beta: Beta) -> Beta:
    if energy.n_spins > _MAX_SPINS:
        raise ValueError(
            f"energy must have at most {_MAX_SPINS} spins for its spectrum, got {energy.n_spins}"
        )
    return checked_beta(beta)


def _rates(table: Float[np.ndarray, " configurations"]) -> Float[np.ndarray, "n configurations"]:
    """Probability that one step flips spin k of each configuration."""
    n = table.size.bit_length() - 1
    rates = np.empty((n, table.size))
    for k in range(n):
        scipy.special.expit(table - table[flipped(table.size, k)], out=rates[k])
    rates /= max(n, 1)
    return rates


def _hops(table: Float[np.ndarray, " configurations"]) -> tuple[np.ndarray, np.ndarray]:
    """What `_operator` takes: of each flip the geometric mean of the rates there and back, and the
    probability that a step flips none.
    """
    rates = _rates(table)
    stays = 1 - rates.sum(axis=0)
    for k, rate in enumerate(rates):
        there = flipped(table.size, k)
        rate[:] = np.sqrt(rate) * np.sqrt(rate[there])
    return rates, stays


def _operator(hops: np.ndarray, stays: np.ndarray):
    """`D^(1/2) P D^(-1/2)` of the heat-bath matrix P, with D the Boltzmann weights."""
    with jax.enable_x64(True):
        on_device = jax.device_put((hops, stays))

    def times(x: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(_stepped(*on_device, x.ravel()))

    return _linear(stays.size, times)


def _linear(size: int, times: Callable[[np.ndarray], np.ndarray]):
    shape = (size, size)
    linear = scipy.sparse.linalg.LinearOperator
    return linear(shape, times, dtype=np.float64)  # pyright: ignore[reportCallIssue]


def _dense(hops: np.ndarray, stays: np.ndarray) -> Float[np.ndarray, "size size"]:
    """The matrix of `_operator`."""
    matrix, index = np.diag(stays), np.arange(stays.size)
    for k, hop in enumerate(hops):
        matrix[index, flipped(index.size, k)] = hop
    return matrix


@jax.jit
def _stepped(
    hops: Float[Array, "n size"], stays: Float[Array, " size"], x: Float[Array, " size"]
) -> Float[Array, " size"]:
    """`stays * x`, and from each configuration over the n flips `hops * x` of where they lead."""
    after = stays * x
    for k, hop in enumerate(hops):
        down, up = jnp.moveaxis(x.reshape(-1, 2, 2**k), 1, 0)
        after += hop * jnp.stack([up, down], axis=1).ravel()
    return after
