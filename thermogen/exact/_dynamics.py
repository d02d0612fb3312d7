"""Heat-bath dynamics by its transition matrix: relaxation times and metastable sets.

One step draws one random spin from its conditional distribution; a sweep is n steps.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import scipy.special
from jaxtyping import Float, Int

from .._checks import check_count, check_finite
from .._linalg import simplex_corners
from .._placement import from_anywhere
from .._types import Beta
from ..energies import AbstractEnergy
from ._ensembles import checked_beta, energies
from ._minima import flipped

_MAX_SPINS, _MAX_DENSE = 14, 10
_N_LEADING, _N_AT_ONCE, _MAX_RESTARTS = 32, 8, 100

# Eigenvectors are precise to about 1e-16, so they tell how a configuration belongs to sets that
# are heavier by up to the square of this factor.
_RESOLVED = 1e13


class MetastableSets(NamedTuple):
    """Sets of configurations that exchange more slowly than a threshold.

    Attributes:
        labels: the set of every configuration, 0 for the heaviest, shape `(2**n,)`.
        weights: Boltzmann weight of each set, in decreasing order, shape `(k,)`.
        relaxation_times: relaxation times of the k - 1 slow processes between the sets, in
            sweeps, longest first.
    """

    labels: Int[np.ndarray, " configurations"]
    weights: Float[np.ndarray, " k"]
    relaxation_times: Float[np.ndarray, " slow"]


@from_anywhere
def glauber_spectrum(
    energy: AbstractEnergy, beta: Beta, *, n_eigenvalues: int | None = None
) -> Float[np.ndarray, " eigenvalues"]:
    """Leading eigenvalues of the heat-bath transition matrix, largest first.

    All eigenvalues lie in [0, 1], and the first is 1. A dense solver finds all of them for
    n <= 10; beyond, up to n = 14, a sparse symmetric solver finds the leading ones.

    Args:
        energy: an energy of n <= 14 spins.
        beta: inverse temperature.
        n_eigenvalues: number of eigenvalues, at least 1; by default all for n <= 10 and 32 beyond.

    Raises:
        ValueError: if n > 14 or n_eigenvalues < 1.
        RuntimeError: if the sparse solver does not find that many, which happens in the cold.
    """
    if n_eigenvalues is not None:
        n_eigenvalues = check_count("n_eigenvalues", n_eigenvalues)
    matrix = _symmetric_glauber(_flip_rates(energy, beta))
    if energy.n_spins <= _MAX_DENSE:
        return np.linalg.eigvalsh(matrix.toarray())[::-1][:n_eigenvalues]
    wanted = n_eigenvalues or _N_LEADING
    found = np.sort(_leading(matrix, wanted)[0])[::-1]
    if len(found) < wanted:
        raise RuntimeError(
            f"only {len(found)} of {wanted} leading eigenvalues were found: set n_eigenvalues to "
            "fewer, or take a higher temperature"
        )
    return found


@from_anywhere
def relaxation_times(
    energy: AbstractEnergy, beta: Beta, *, n_eigenvalues: int | None = None
) -> Float[np.ndarray, " processes"]:
    """Relaxation times `-1/(n ln lambda)` of heat-bath dynamics in sweeps, longest first.

    A time is infinite where its eigenvalue cannot be told from 1, so beyond about 1e15 / n. The
    eigenvalue 1 of equilibrium is left out, so that there is one time fewer than eigenvalues.

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
    leading = glauber_spectrum(energy, beta, n_eigenvalues=n_eigenvalues)
    return _sweeps(leading[1:], energy.n_spins)


@from_anywhere
def metastable_sets(energy: AbstractEnergy, beta: Beta, *, threshold: float) -> MetastableSets:
    """The sets of configurations in which heat-bath dynamics stays longer than `threshold` sweeps.

    Their number is one plus that of the relaxation times above the threshold. In the leading
    eigenvectors configurations of one set share one point of a simplex, and those on the way
    lie between: each belongs to the set that dynamics from there most likely reaches first
    (the PCCA+ construction of Deuflhard and Weber, Linear Algebra Appl. 398, 161 (2005)).

    Args:
        energy: an energy of n <= 14 spins.
        beta: inverse temperature.
        threshold: shortest relaxation time, in sweeps, that parts two sets, > 0.

    Raises:
        ValueError: if n > 14 or the threshold is not positive.
        RuntimeError: if a sparse solver does not converge.
    """
    check_finite("threshold", threshold, positive=True)
    rates = _flip_rates(energy, beta)
    table = np.asarray(energies(energy), float)
    times, vectors = _slow(rates, threshold)
    log_root = -0.5 * float(beta) * (table - table.min())
    labels = np.argmax(_memberships(vectors, log_root, rates), axis=1)
    p = np.exp(2 * log_root)
    weights = np.bincount(labels, p, minlength=len(times) + 1) / p.sum()
    order = np.argsort(-weights, kind="stable")
    return MetastableSets(np.argsort(order)[labels], weights[order], times)


def _sweeps(eigenvalues: np.ndarray, n: int) -> Float[np.ndarray, " processes"]:
    with np.errstate(divide="ignore"):
        return 1 / np.abs(n * np.log(np.clip(eigenvalues, 0, 1)))


def _slow(rates: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Relaxation times above the threshold, and the eigenvectors with that of equilibrium."""
    n, size = rates.shape
    matrix = _symmetric_glauber(rates)
    if n <= _MAX_DENSE:
        # Of all eigenvectors the few slow ones: a third of the time.
        fastest = np.exp(-1 / (max(n, 1) * threshold))
        values, vectors = scipy.linalg.eigh(matrix.toarray(), subset_by_value=(fastest, np.inf))
    else:
        values, vectors = np.zeros(0), np.zeros((size, 0))
        # Lanczos steps may miss some of several equal eigenvalues: what is found is taken out
        # until nothing slow is left.
        while True:
            known = vectors
            rest = scipy.sparse.linalg.aslinearoperator(matrix)
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
            operator, k=count, which="LA", ncv=max(128, 4 * count), maxiter=_MAX_RESTARTS
        )
        return values, vectors
    except scipy.sparse.linalg.ArpackNoConvergence as partial:
        # In the cold most eigenvalues are nearly equal; the slow ones converge all the same.
        if len(partial.eigenvalues) == 0:
            raise RuntimeError("no eigenvalue of the transition matrix was found") from partial
        return partial.eigenvalues, partial.eigenvectors


def _memberships(
    vectors: np.ndarray, log_root: np.ndarray, rates: np.ndarray
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
        chi[~resolved] = _first_hits(rates, resolved, chi[resolved])
    return chi


def _first_hits(rates: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of `values` at the first known configuration that the dynamics meets from the others."""
    n, size = rates.shape
    index = np.arange(size)
    places = (np.tile(index, n), np.concatenate([flipped(size, k) for k in range(n)]))
    moves = scipy.sparse.csr_array((np.ravel(rates), places), shape=(size, size))[~known]
    leaving = scipy.sparse.diags_array(rates.sum(axis=0)[~known])
    system = (leaving - moves[:, ~known]).tocsr()
    found = []
    for arrival in (moves[:, known] @ values).T:
        hits, code = scipy.sparse.linalg.gmres(system, arrival, rtol=1e-6, restart=100, maxiter=100)
        if code != 0:
            raise RuntimeError("the sets that the dynamics meets first were not found")
        found.append(hits)
    return np.transpose(found)


def _flip_rates(energy: AbstractEnergy, beta: Beta) -> Float[np.ndarray, "n configurations"]:
    """Probability that one step flips spin k of each configuration."""
    n = energy.n_spins
    if n > _MAX_SPINS:
        raise ValueError(f"energy must have at most {_MAX_SPINS} spins for its spectrum, got {n}")
    checked_beta(beta)
    table = np.asarray(energies(energy), float)
    gaps = [table[flipped(table.size, k)] - table for k in range(n)]
    return scipy.special.expit(-float(beta) * np.reshape(gaps, (n, table.size))) / max(n, 1)


def _symmetric_glauber(rates: np.ndarray) -> scipy.sparse.csr_array:
    """`D^(1/2) P D^(-1/2)` of the heat-bath matrix P, with D the Boltzmann weights."""
    n, size = rates.shape
    index = np.arange(size)
    columns = [flipped(size, k) for k in range(n)]
    # By detailed balance an entry is the geometric mean of the rates there and back.
    values = [np.sqrt(rate) * np.sqrt(rate[c]) for rate, c in zip(rates, columns, strict=True)]
    entries = np.concatenate([*values, 1 - rates.sum(axis=0)])
    places = (np.tile(index, n + 1), np.concatenate([*columns, index]))
    return scipy.sparse.csr_array((entries, places), shape=(size, size))
