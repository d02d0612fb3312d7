"""Heat-bath dynamics by its transition matrix: relaxation times and metastable sets."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import scipy.special
from jaxtyping import Float

from .._types import Beta
from ..energies import AbstractMultilinear
from ._ensembles import energies
from ._minima import flipped


def glauber_spectrum(
    energy: AbstractMultilinear, beta: Beta, *, n_eigenvalues: int | None = None
) -> Float[np.ndarray, " eigenvalues"]:
    """Leading eigenvalues of the heat-bath transition matrix, largest first.

    One step draws one random spin from its conditional distribution. The relaxation time of an
    eigenvalue is `-1/(n ln lambda)` sweeps. All eigenvalues up to n = 10; else the leading ones
    by a sparse symmetric solver, for n <= 14.

    Args:
        energy: an energy of n <= 14 spins.
        beta: inverse temperature.
        n_eigenvalues: how many; by default all for n <= 10 and 32 beyond.

    Raises:
        ValueError: if n > 14.
    """
    n = energy.n_spins
    if n > 14:
        raise ValueError(f"energy must have at most 14 spins for its spectrum, got {n}")
    symmetric = _symmetric_glauber(np.asarray(energies(energy)), float(beta), n)
    if n <= 10:
        return np.linalg.eigvalsh(symmetric.toarray())[::-1][:n_eigenvalues]
    found = scipy.sparse.linalg.eigsh(
        symmetric, k=n_eigenvalues or 32, which="LA", return_eigenvectors=False
    )
    return np.sort(found)[::-1]


def _symmetric_glauber(table: np.ndarray, beta: float, n: int) -> scipy.sparse.csr_array:
    """`D^(1/2) P D^(-1/2)` of the heat-bath matrix P, with D the Boltzmann weights."""
    index = np.arange(table.size)
    rows, columns, values, leaving = [], [], [], np.zeros(table.size)
    for k in range(n):
        other = flipped(table.size, k)
        gap = beta * (table[other] - table)
        decay = np.exp(-np.abs(gap))
        leaving += scipy.special.expit(-gap) / n
        rows.append(index)
        columns.append(other)
        # sqrt(P_ij P_ji) of two heat-bath rates that sum to 1/n.
        values.append(np.sqrt(decay) / ((1 + decay) * n))
    rows.append(index)
    columns.append(index)
    values.append(1 - leaving)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.csr_array(entries, shape=(table.size, table.size))
