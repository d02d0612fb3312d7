"""Ensembles by enumeration of all 2^n configurations: the ground truth, for n <= 24.

Every function takes an energy and makes its table of 2^n energies by one Walsh transform. All are
differentiable in the parameters and in beta, and stable from beta -> 0 to beta -> infinity.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import scipy.sparse
import scipy.sparse.linalg
import scipy.special
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ._types import Beta, Key, Magnetizations
from .energies import AbstractMultilinear, complete
from .walsh import walsh_transform


def energies(energy: AbstractMultilinear) -> Float[Array, " configurations"]:
    """The energy of every configuration, shape `(2**n,)`; row i is configuration i."""
    return complete(energy).energies()


def log_partition(energy: AbstractMultilinear, beta: Beta) -> Float[Array, ""]:
    """`ln Z = ln sum_i exp(-beta E_i)`."""
    return jax.nn.logsumexp(-beta * energies(energy))


def free_energy(energy: AbstractMultilinear, beta: Beta) -> Float[Array, ""]:
    """`F = -ln Z / beta`, in energy units."""
    return -log_partition(energy, beta) / beta


def probabilities(energy: AbstractMultilinear, beta: Beta) -> Float[Array, " configurations"]:
    """Boltzmann probabilities `exp(-beta E_i)/Z`, shape `(2**n,)`."""
    return jax.nn.softmax(-beta * energies(energy))


def mean_energy(energy: AbstractMultilinear, beta: Beta) -> Float[Array, ""]:
    """`<E>`, in energy units."""
    table = energies(energy)
    return jnp.dot(jax.nn.softmax(-beta * table), table)


def entropy(energy: AbstractMultilinear, beta: Beta) -> Float[Array, ""]:
    """`S = -sum_i p_i ln p_i`, in nats."""
    log_p = jax.nn.log_softmax(-beta * energies(energy))
    return -jnp.dot(jnp.exp(log_p), log_p)


def heat_capacity(energy: AbstractMultilinear, beta: Beta) -> Float[Array, ""]:
    """`C = d<E>/dT = beta^2 (<E^2> - <E>^2)`, dimensionless."""
    table = energies(energy)
    p = jax.nn.softmax(-beta * table)
    return jnp.square(beta) * jnp.dot(p, jnp.square(table - jnp.dot(p, table)))


def magnetizations(energy: AbstractMultilinear, beta: Beta) -> Float[Array, " n"]:
    """`<s_k>`, shape `(n,)`."""
    return _moments(probabilities(energy, beta))[0]


def correlations(energy: AbstractMultilinear, beta: Beta) -> Float[Array, "n n"]:
    """`<s_i s_j>`, not connected, shape `(n, n)`; the diagonal is 1."""
    return _moments(probabilities(energy, beta))[1]


def marginal(
    energy: AbstractMultilinear, beta: Beta, spins: tuple[int, ...]
) -> Float[Array, " marginal"]:
    """Distribution of a few spins, all others summed out, shape `(2**len(spins),)`.

    Spin `spins[j]` is bit j of the index.
    """
    n = energy.n_spins
    chosen = _checked_spins("spins", spins, n)
    # Axis n-1-k of the cube is bit k; the last axis varies fastest.
    cube = probabilities(energy, beta).reshape((2,) * n)
    kept = [n - 1 - k for k in reversed(chosen)]
    rest = [axis for axis in range(n) if axis not in kept]
    return jnp.sum(jnp.transpose(cube, (*kept, *rest)).reshape(2 ** len(kept), -1), axis=1)


def conditional(
    energy: AbstractMultilinear, beta: Beta, given: dict[int, int]
) -> Float[Array, " configurations"]:
    """Probabilities of all configurations given the values +-1 of some spins, shape `(2**n,)`.

    Configurations that contradict `given` have probability 0.
    """
    n = energy.n_spins
    _checked_spins("given", tuple(given), n)
    index = np.arange(2**n)
    allowed = np.ones(2**n, bool)
    for spin, value in given.items():
        if value not in (-1, 1):
            raise ValueError(f"given must map spins to -1 or +1, got {value!r}")
        allowed &= (index >> spin & 1) == (value > 0)
    return jax.nn.softmax(jnp.where(allowed, -beta * energies(energy), -jnp.inf))


def sample(
    energy: AbstractMultilinear, beta: Beta, *, key: Key, n_samples: int
) -> Int[Array, " samples"]:
    """Independent exact samples, as indices of configurations, shape `(n_samples,)`.

    `spins_from_index(indices, n)` gives the spins.
    """
    cumulative = jnp.cumsum(probabilities(energy, beta))
    dice = jax.random.uniform(key, (n_samples,), cumulative.dtype) * cumulative[-1]
    return jnp.searchsorted(cumulative, dice, side="right")


def density_of_states(
    energy: AbstractMultilinear, n_bins: int
) -> tuple[Float[Array, " bins"], Float[Array, " edges"]]:
    """Number of configurations in equal bins of energy: counts `(n_bins,)`, edges `(n_bins+1,)`."""
    counts, edges = jnp.histogram(energies(energy), bins=n_bins)
    return counts.astype(edges.dtype), edges


class Reduction(NamedTuple):
    """What is lost when an energy is replaced by one with fewer couplings.

    Attributes:
        lost_norm: root of the summed squares of the lost couplings; by Parseval the
            root-mean-square error of E over all configurations, in energy units.
        largest_energy_error: largest error of E at any configuration, in energy units.
        library_mass: Boltzmann weight of the library under the full energy.
        library_mass_kept: the same under the reduced energy.
    """

    lost_norm: Float[Array, ""]
    largest_energy_error: Float[Array, ""]
    library_mass: Float[Array, ""]
    library_mass_kept: Float[Array, ""]


def reduction(
    full: AbstractMultilinear,
    reduced: AbstractMultilinear,
    beta: Beta,
    library: Int[Array | np.ndarray, " states"],
) -> Reduction:
    """Compare an energy with its truncation, for example `full.truncate(2)`.

    Args:
        full: an energy of n <= 24 spins.
        reduced: another energy of the same spins.
        beta: inverse temperature.
        library: indices of the configurations whose weight counts as kept, shape `(states,)`.
    """
    if full.n_spins != reduced.n_spins:
        raise ValueError(f"reduced must have {full.n_spins} spins, got {reduced.n_spins}")
    before, after = energies(full), energies(reduced)
    error = before - after
    return Reduction(
        jnp.sqrt(jnp.mean(jnp.square(error))),
        jnp.max(jnp.abs(error)),
        jnp.sum(jax.nn.softmax(-beta * before)[library]),
        jnp.sum(jax.nn.softmax(-beta * after)[library]),
    )


def gibbs_potential(energy: AbstractMultilinear, m: Magnetizations, beta: Beta) -> Float[Array, ""]:
    """The exact free energy at fixed magnetizations, convex in m, in energy units.

    `G(m) = max_h [ h . m - T ln sum_i exp(-beta (E_i - h . s_i)) ]`, by Newton steps on the dual
    over fields h. Derivatives are implicit: `dG/dm = h`, and the second derivative is the inverse
    susceptibility.

    Args:
        energy: an energy of n <= 24 spins.
        m: magnetizations inside (-1, 1), shape `(n,)`; up to |m| = 1 - 1e-6, unless the
            couplings are strong too, where the dual solve may fail and then says so.
        beta: inverse temperature.

    Raises:
        ValueError: if m has the wrong shape or leaves the open cube.
        RuntimeError: if the dual solve does not converge. Known to happen in the cold, and for m
            within rounding of the magnetizations of the energy itself.
    """
    m = jnp.asarray(m)
    if m.shape != (energy.n_spins,):
        raise ValueError(f"m must have shape ({energy.n_spins},), got {m.shape}")
    if not isinstance(m, Tracer) and not jnp.all(jnp.abs(m) < 1):
        raise ValueError("m must lie inside the open cube, -1 < m < 1")
    dtype = jnp.result_type(float)
    problem = ((-beta * energies(energy)).astype(dtype), m.astype(dtype))
    # G is stationary in the fields, so that it is twice as precise as they are.
    tolerance = float(np.sqrt(jnp.finfo(dtype).eps))
    found = optx.root_find(
        _marginal_fields,
        optx.Dogleg(rtol=tolerance, atol=tolerance, linear_solver=lx.SVD()),
        jnp.arctanh(problem[1]),
        problem,
        max_steps=256,
        adjoint=optx.ImplicitAdjoint(linear_solver=lx.SVD()),
    )
    x = found.value
    value = jnp.dot(x, problem[1]) - jax.nn.logsumexp(problem[0] + _additive(x))
    return (value / beta).astype(m.dtype)


def single_flip_minima(
    energy: AbstractMultilinear, *, threshold: float = 1e-12
) -> Int[np.ndarray, " minima"]:
    """Indices of the configurations from which every flip raises E by more than `threshold`."""
    table = np.asarray(energies(energy))
    lowest_step = np.min([table[_flipped(table.size, k)] for k in range(energy.n_spins)], axis=0)
    return np.flatnonzero(lowest_step - table > threshold)


def barriers(
    energy: AbstractMultilinear, indices: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k k"]:
    """Minimax single-flip barriers between configurations, in energy units.

    Entry (a, b) is the lowest maximum of E along any path of single flips from a to b; the
    diagonal is E itself. Every configuration first descends to the minimum whose basin it lies
    in; the lowest crossings between basins, taken in order of energy, then join the minima.

    Args:
        energy: an energy of n <= 24 spins.
        indices: configurations, for example from `single_flip_minima`, shape `(k,)`.

    Returns:
        Energies of the highest point on the way, shape `(k, k)`, symmetric.
    """
    table, indices = np.asarray(energies(energy)), np.asarray(indices)
    basin = _basins(table, energy.n_spins)
    roots, basin = np.unique(basin, return_inverse=True)
    first, second, height = _crossings(table, basin, energy.n_spins)
    between = _join(len(roots), first, second, height)
    own = np.maximum.outer(table[indices], table[indices])
    result = np.maximum(between[np.ix_(basin[indices], basin[indices])], own)
    np.fill_diagonal(result, table[indices])
    return result


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


def _moments(p: Float[Array, " configurations"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """`<s_i>` and `<s_i s_j>` under weights of the configurations, from one transform."""
    averages = p.size * walsh_transform(p)
    single = 1 << np.arange(p.size.bit_length() - 1)
    return averages[single], averages[single[:, None] ^ single[None, :]]


def _additive(x: Float[Array, " n"]) -> Float[Array, " configurations"]:
    """`sum_k x_k s_k` for every configuration."""
    table = jnp.zeros(1, x.dtype)
    for k in range(x.size):
        table = jnp.concatenate([table - x[k], table + x[k]])
    return table


def _marginal_fields(x: Float[Array, " n"], problem) -> Float[Array, " n"]:
    """atanh of the magnetizations under external fields x/beta, less those that are wanted.

    In this form it is nearly linear in x, and precise where a magnetization is close to 1.
    """
    logits, m = problem
    tilted = logits + _additive(x)
    halves = [tilted.reshape(-1, 2, 2**k) for k in range(x.size)]
    up = jnp.stack([jax.nn.logsumexp(half[:, 1]) for half in halves])
    down = jnp.stack([jax.nn.logsumexp(half[:, 0]) for half in halves])
    return 0.5 * (up - down) - jnp.arctanh(m)


def _flipped(size: int, k: int) -> Int[np.ndarray, " configurations"]:
    return np.arange(size) ^ (1 << k)


def _basins(table: np.ndarray, n: int) -> Int[np.ndarray, " configurations"]:
    """The minimum that steepest descent reaches from every configuration; ties go by index."""
    lowest = np.arange(table.size)
    for k in range(n):
        other = _flipped(table.size, k)
        lower = (table[other] < table[lowest]) | (
            (table[other] == table[lowest]) & (other < lowest)
        )
        lowest = np.where(lower, other, lowest)
    while not np.array_equal(further := lowest[lowest], lowest):
        lowest = further
    return lowest


def _crossings(table: np.ndarray, basin: np.ndarray, n: int):
    """Every flip that leads from one basin to another, and the energy it costs to get there."""
    first, second, height = [], [], []
    for k in range(n):
        other = _flipped(table.size, k)
        rows = np.flatnonzero(basin < basin[other])
        first.append(basin[rows])
        second.append(basin[other[rows]])
        height.append(np.maximum(table[rows], table[other[rows]]))
    return np.concatenate(first), np.concatenate(second), np.concatenate(height)


def _join(count: int, first: np.ndarray, second: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Minimax height between any two of `count` basins: Kruskal's union of sets, lowest first."""
    between = np.full((count, count), -np.inf)
    members = [np.array([i]) for i in range(count)]
    owner = np.arange(count)
    # The lowest crossing of each pair of basins is enough.
    order = np.lexsort((height, second, first))
    first, second, height = first[order], second[order], height[order]
    lowest = np.ones(len(first), bool)
    lowest[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second, height = first[lowest], second[lowest], height[lowest]
    for edge in np.argsort(height, kind="stable"):
        a, b = owner[first[edge]], owner[second[edge]]
        if a == b:
            continue
        between[np.ix_(members[a], members[b])] = height[edge]
        between[np.ix_(members[b], members[a])] = height[edge]
        members[a] = np.concatenate([members[a], members[b]])
        owner[members[b]] = a
    return between


def _symmetric_glauber(table: np.ndarray, beta: float, n: int) -> scipy.sparse.csr_array:
    """`D^(1/2) P D^(-1/2)` of the heat-bath matrix P, with D the Boltzmann weights."""
    index = np.arange(table.size)
    rows, columns, values, leaving = [], [], [], np.zeros(table.size)
    for k in range(n):
        other = _flipped(table.size, k)
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


def _checked_spins(name: str, spins: tuple[int, ...], n: int) -> tuple[int, ...]:
    if len(set(spins)) != len(spins) or not all(0 <= k < n for k in spins):
        raise ValueError(f"{name} must name different spins from 0..{n - 1}, got {spins}")
    return spins
