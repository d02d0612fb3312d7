"""The library of candidate bound states: certified minima of G(m), each held once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from types import EllipsisType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, UInt32

from .._batches import cast, in_batches
from .._checks import as_array, check_finite
from .._cold import above_lowest, beta_as
from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import (
    AbstractFunctional,
    Problem,
    checked_problem,
    lowest_curvature,
    scaled_hessian,
)
from ._provenance import fingerprint, mismatch

# Two minima are the same when no magnetization differs by more: where G rises by the fourth power
# alone, as at a bifurcation, float64 tells the place of a minimum to 2e-5.
MERGE_TOLERANCE = 1e-4

# States are measured in batches of at most this many.
_BATCH = 32

_Array = Array | np.ndarray
# One or some of the states that a library holds, as NumPy would index them.
_Index = int | np.integer | slice | EllipsisType | list | _Array


class Library(eqx.Module):
    """Distinct minima of a free energy G(m), lowest first.

    All arrays have a fixed length K, the capacity; the first `size` entries are in use. Every
    entry that a search found was certified: its gradient is below tolerance and its Hessian is
    positive definite. It is a *candidate* for a bound state: that it also traps the dynamics is
    a separate proof.

    On the host a library behaves like a sequence of its states. `library[k]`, `library[:10]`,
    `library[library.hits > 1]` and `library[[4, 0]]` are libraries of NumPy arrays that hold the
    chosen states, in that order, and have no unused entries; `len` counts the states and `for`
    visits them one by one. `thermogen.storage` writes and reads libraries.

    Libraries know where they come from: `union` joins those of one functional, energy and beta
    alone. What is made by hand, without a fingerprint, may come from anywhere.

    Attributes:
        magnetizations: m of each state, shape `(K, n)`.
        free_energies: G in energy units, shape `(K,)`; infinite where unused.
        residuals: max |dG/dm| in energy units, shape `(K,)`.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(K,)`.
        hits: number of quenches that ended in each state, shape `(K,)`; 0 where only the way
            down from a saddle led there.
        multiplicity: 2 where an entry stands for itself and for its mirror image under the
            global flip (merged if the energy has that symmetry), else 1, shape `(K,)`.
        mask: True for the entries in use, shape `(K,)`.
        overflow: whether states were dropped because the library was full; it keeps the lowest.
        given_hits: number of the hits from starts that were given, or made from states held, shape
            `(K,)`. These are no independent draws, and say nothing about coverage.
        unresolved: number of independent quenches that ended in no certified minimum.
        runs: names of the random keys whose quenches are counted, shape `(R, 2)`.
        fingerprint: fingerprints of functional, energy and beta, one row each, shape `(3, 2)`;
            zeros where unknown.
    """

    magnetizations: Float[_Array, "K n"]
    free_energies: Float[_Array, " K"]
    residuals: Float[_Array, " K"]
    curvatures: Float[_Array, " K"]
    hits: Int[_Array, " K"]
    multiplicity: Int[_Array, " K"]
    mask: Bool[_Array, " K"]
    overflow: Bool[_Array, ""]
    given_hits: Int[_Array, " K"]
    unresolved: Int[_Array, ""]
    runs: UInt32[_Array, "R 2"]
    fingerprint: UInt32[_Array, "3 2"]

    def __init__(
        self,
        magnetizations: Float[_Array, "K n"],
        free_energies: Float[_Array, " K"],
        residuals: Float[_Array, " K"],
        curvatures: Float[_Array, " K"],
        hits: Int[_Array, " K"],
        multiplicity: Int[_Array, " K"],
        mask: Bool[_Array, " K"],
        overflow: Bool[_Array, ""],
        given_hits: Int[_Array, " K"] | None = None,
        unresolved: Int[_Array, ""] | None = None,
        runs: UInt32[_Array, "R 2"] | None = None,
        fingerprint: UInt32[_Array, "3 2"] | None = None,
    ) -> None:
        """By default all hits are independent, all quenches resolved, and the origin unknown."""
        self.magnetizations, self.free_energies = magnetizations, free_energies
        self.residuals, self.curvatures, self.hits = residuals, curvatures, hits
        self.multiplicity, self.mask, self.overflow = multiplicity, mask, overflow
        self.given_hits = 0 * hits if given_hits is None else given_hits
        self.unresolved = np.array(0) if unresolved is None else unresolved
        self.runs = np.zeros((0, 2), np.uint32) if runs is None else runs
        self.fingerprint = np.zeros((3, 2), np.uint32) if fingerprint is None else fingerprint

    @property
    def size(self) -> int:
        """Number of states held."""
        return int(np.sum(self.mask))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: _Index) -> "Library":
        """The chosen states as a library; a boolean mask may speak of all K entries."""
        if np.ndim(self.mask) != 1:
            raise IndexError("this is a batch of libraries; take one of them by jax.tree.map")
        chosen = np.asarray(index) if isinstance(index, list | _Array) else None
        if chosen is not None and chosen.dtype == bool:
            if chosen.shape not in ((self.size,), self.mask.shape):
                raise IndexError(
                    f"a mask must have shape ({self.size},), one entry a state, or "
                    f"{self.mask.shape}, one a place, got {chosen.shape}"
                )
            index = np.flatnonzero(chosen[: self.size])
        rows = np.atleast_1d(np.arange(self.size)[index])
        arrays = {name: np.asarray(getattr(self, name))[rows] for name in PER_STATE}
        return Library(**arrays, **{name: np.asarray(getattr(self, name)) for name in _OF_ALL})

    def __iter__(self) -> Iterator["Library"]:
        return (self[k] for k in range(self.size))

    def __repr__(self) -> str:
        if isinstance(self.mask, Tracer) or np.ndim(self.mask) != 1:
            return eqx.tree_pformat(dict(vars(self)))
        k, n = np.shape(self.magnetizations)
        text = f"{self.size} state{'' if self.size == 1 else 's'} of {n} spins, capacity {k}"
        if self.size:
            held = self[:]
            text += f", G from {held.free_energies.min():.6g} to {held.free_energies.max():.6g}"
            text += f", {held.hits.sum()} hits, coverage {self.coverage():.3g}"
        return f"Library({text}{', overflow' if self.overflow else ''})"

    def sort_by(self, name: str, *, descending: bool = False) -> "Library":
        """The states in the order of a field, such as `"hits"`; equal ones keep their order.

        Raises:
            ValueError: if `name` is no field of one number a state.
        """
        fields = [field for field in PER_STATE if field not in ("magnetizations", "mask")]
        if name not in fields:
            raise ValueError(f"name is {name!r}; expected one of {', '.join(fields)}")
        values = getattr(self[:], name)
        return self[np.argsort(-values if descending else values, kind="stable")]

    def union(self, *others: "Library") -> "Library":
        """All states of several libraries of one landscape, each once, lowest first; hits add up.

        Two entries are one state where no magnetization differs by more than `MERGE_TOLERANCE`,
        modulo the global flip where it counts. The figures are those of the first library that
        holds the state. Hits of searches from equal keys do not add: they repeat the same
        quenches, and the larger count stands.

        Raises:
            ValueError: if the libraries differ in their number of spins, or are known to come
                from different functionals, energies or beta, whose free energies do not compare.
        """
        libraries = [library[:] for library in (self, *others)]
        sizes = [library.magnetizations.shape[1] for library in libraries]
        if len(set(sizes)) > 1:
            raise ValueError(f"all libraries must have the same number of spins, got {sizes}")
        for k, library in enumerate(libraries[1:], 1):
            for earlier in libraries[:k]:
                library.check_origin(earlier.fingerprint, "union joins libraries")
        arrays = {
            name: np.concatenate([getattr(library, name) for library in libraries])
            for name in PER_STATE
        }
        source = np.repeat(np.arange(len(libraries)), [library.size for library in libraries])
        runs = _groups_by_run(libraries)
        unresolved = np.zeros(len(libraries), int)
        np.maximum.at(unresolved, runs, [int(library.unresolved) for library in libraries])
        fingerprints = np.stack([library.fingerprint for library in libraries])
        known = np.argmax(np.any(fingerprints, axis=2), axis=0)
        joined = Library(
            **arrays,
            overflow=np.asarray(np.any([library.overflow for library in libraries])),
            unresolved=np.asarray(unresolved.sum()),
            runs=np.unique(np.concatenate([library.runs for library in libraries]), axis=0),
            fingerprint=fingerprints[known, np.arange(len(known))],
        )
        return _merged(joined, source, runs)

    def check_origin(self, fingerprint: UInt32[_Array, "3 2"], what: str) -> None:
        """Refuse what is known to come from elsewhere.

        Args:
            fingerprint: that of the functional, energy and beta that are wanted.
            what: what wants them, to begin the message with.

        Raises:
            ValueError: if functional, energy or beta are known to be others.
        """
        differ = mismatch(np.asarray(self.fingerprint), np.asarray(fingerprint))
        if differ:
            raise ValueError(
                f"{what} of one functional, energy and beta, got another {' and '.join(differ)}; "
                "to certify candidates from several searches together, hand their magnetizations "
                "to certify"
            )

    def expanded(self) -> "Library":
        """Mirror images as entries of their own: capacity 2 K and multiplicity 1 throughout.

        An image follows its state and repeats its figures, hits included. Of fixed shape: it
        jits and vmaps.
        """
        xp = jnp if isinstance(self.mask, Array) else np
        m = xp.stack([self.magnetizations, -self.magnetizations], axis=1)
        mask = xp.stack([self.mask, self.mask & (self.multiplicity == 2)], axis=1).reshape(-1)
        # Unused entries go last, all others keep their order.
        order = xp.argsort(~mask, stable=True)
        twice = {name: xp.repeat(getattr(self, name), 2) for name in PER_STATE[1:]}
        twice |= {"multiplicity": xp.ones_like(twice["multiplicity"]), "mask": mask}
        twice |= {
            name: xp.where(mask, twice[name], blank)
            for name, blank in (("free_energies", xp.inf), ("hits", 0), ("given_hits", 0))
        }
        return Library(
            magnetizations=(m.reshape(-1, m.shape[-1]) * mask[:, None])[order],
            **{name: values[order] for name, values in twice.items()},
            **{name: getattr(self, name) for name in _OF_ALL},
        )

    def to_dict(self) -> dict[str, np.ndarray]:
        """The states alone, as plain arrays: `magnetizations` (size, n), all others `(size,)`.

        A table of pandas follows by `pandas.DataFrame({k: list(v) for k, v in d.items()})`.
        """
        held = self[:]
        names = [name for name in PER_STATE if name not in ("mask", "given_hits")]
        return {name: getattr(held, name) for name in names}

    @classmethod
    def from_magnetizations(
        cls,
        functional: AbstractFunctional,
        energy: AbstractEnergy,
        beta: Beta,
        magnetizations: Float[_Array, "rows n"],
    ) -> "Library":
        """A library of points that come from elsewhere, each measured as it stands.

        Equal points are merged and counted as given hits; where the energy is even, so are mirror
        images. Nothing is minimised and nothing rejected: `residuals` and `curvatures` say
        what each point is, and `library[(library.residuals < 1e-6) & (library.curvatures > 0)]`
        keeps the minima. Close to |m| = 1, where m itself is rounded, residuals mean little, and
        at 1 they are infinite: `quench` polishes.

        Args:
            functional: the free energy, such as `TAP()`.
            energy: a multilinear energy of n spins.
            beta: inverse temperature, > 0.
            magnetizations: points in [-1, 1], shape `(rows >= 1, n)`.

        Raises:
            ValueError: for bad `magnetizations` or `beta`.
        """
        m = np.asarray(as_array("magnetizations", magnetizations), np.float64)
        if m.ndim != 2 or len(m) == 0 or m.shape[1] != energy.n_spins:
            raise ValueError(
                f"magnetizations must have shape (rows >= 1, {energy.n_spins}), got {m.shape}"
            )
        if not np.all(np.abs(m) <= 1):
            raise ValueError("magnetizations must lie within [-1, 1]")
        with jax.enable_x64(True):
            exact = cast(energy, np.float64)
            problem = checked_problem(functional, exact, beta, np.float64)
            figures = in_batches(functools.partial(_measure, problem), m, _BATCH)
            symmetric = bool(is_flip_symmetric(exact)) & (np.abs(m).max(axis=1) > MERGE_TOLERANCE)
            origin = fingerprint(functional, energy, beta)
        once = np.ones(len(m), int)
        points = cls(
            m,
            *figures,
            hits=once,
            multiplicity=1 + symmetric,
            mask=np.ones(len(m), bool),
            overflow=np.array(False),
            given_hits=once,
            fingerprint=origin,
        )
        return _merged(points, np.zeros(len(m), int), np.zeros(1, int))

    def weights(self, beta: Beta) -> Float[Array, " K"]:
        """Boltzmann weight `exp(-beta G)` of each state, mirror images counted; sums to 1."""
        return jax.nn.softmax(self.log_weights(beta)[1])

    def log_weights(self, beta: Beta) -> tuple[Float[_Array, ""], Float[Array, " K"]]:
        """The lowest G in use, and the logarithm of `multiplicity exp(-beta (G - lowest))`.

        The difference is taken in the precision of the library; 0 and minus infinities where
        the library is empty. States that rounding alone tells apart weigh the same.
        """
        check_finite("beta", beta)
        xp = np if isinstance(self.free_energies, np.ndarray) else jnp
        lowest, above = above_lowest(xp.where(self.mask, self.free_energies, 0.0), self.mask)
        above = jnp.asarray(above)
        logits = jnp.log(self.multiplicity) - beta_as(beta, above.dtype) * above
        return lowest, jnp.where(self.mask, logits, -jnp.inf)

    def coverage(self) -> float:
        """Good-Turing estimate of the share of random quenches that end in a state already held.

        One minus the share of independent quenches that ended in a state which no other of them
        hit, or in no minimum at all (Good 1953); NaN where none ended in a state held, and after
        overflow, when states are gone with their hits. Hits from given starts, and from states
        held, do not count. It speaks of random starts, all rounds together.
        """
        if np.any(self.overflow):
            return float("nan")
        return good_turing(np.asarray(self.hits - self.given_hits), int(self.unresolved))

    def nearest(self, magnetizations: Float[_Array, "batch n"]) -> Int[np.ndarray, " batch"]:
        """Index of the state that each row is, shape `(batch,)`; -1 where it is none of them.

        A row counts as its mirror image where the state stands for both.

        Raises:
            ValueError: for rows of another shape.
        """
        rows = np.asarray(as_array("magnetizations", magnetizations))
        n = self.magnetizations.shape[-1]
        if rows.ndim != 2 or rows.shape[1] != n:
            raise ValueError(f"magnetizations must have shape (batch, {n}), got {rows.shape}")
        nearest = np.full(len(rows), -1)
        closest = np.full(len(rows), MERGE_TOLERANCE)
        for k in range(self.size):
            distance = np.abs(rows - self.magnetizations[k]).max(axis=1)
            if self.multiplicity[k] == 2:
                mirrored = np.abs(rows + self.magnetizations[k]).max(axis=1)
                distance = np.minimum(distance, mirrored)
            nearest = np.where(distance < closest, k, nearest)
            closest = np.minimum(distance, closest)
        return nearest


# Fields that speak of the whole library, and those that hold one entry a state.
_OF_ALL = ("overflow", "unresolved", "runs", "fingerprint")
PER_STATE = [field.name for field in dataclasses.fields(Library) if field.name not in _OF_ALL]


def good_turing(hits: Int[np.ndarray, " K"], unresolved: int = 0) -> float:
    """One minus the share of quenches that were alone in their state, or found none (Good 1953).

    NaN where no quench found a state.
    """
    if not hits.sum():
        return float("nan")
    return float(1 - (np.sum(hits == 1) + unresolved) / (hits.sum() + unresolved))


def first_equals(
    count: int, equals: Callable[[int, np.ndarray], Bool[np.ndarray, " rows"]]
) -> Int[np.ndarray, " count"]:
    """For each of `count` rows the first row that it equals, taken in order, else itself.

    Args:
        count: number of rows.
        equals: whether row k equals each of some later rows.
    """
    leader = np.full(count, -1)
    for k in range(count):
        if leader[k] < 0:
            free = np.flatnonzero(leader < 0)
            leader[free[equals(k, free)]] = k
            leader[k] = k
    return leader


def _groups_by_run(libraries: list[Library]) -> Int[np.ndarray, " libraries"]:
    """A number for each library; those that share a run, by any chain of others, have one."""
    names = [set(map(bytes, library.runs)) for library in libraries]
    shared = np.array([[not a.isdisjoint(b) for b in names] for a in names])
    return scipy.sparse.csgraph.connected_components(shared | np.eye(len(names), dtype=bool))[1]


def _merged(
    rows: Library, source: Int[np.ndarray, " rows"], runs: Int[np.ndarray, " libraries"]
) -> Library:
    """Equal rows made one, with the figures of the first and the hits of all; lowest first.

    Args:
        rows: the states of several libraries.
        source: the library of each row.
        runs: a number for each library: of those with one number the largest hits count.
    """
    m = rows.magnetizations

    def equals(k: int, others: np.ndarray) -> np.ndarray:
        distance = np.abs(m[others] - m[k]).max(axis=1)
        if rows.multiplicity[k] == 2:
            distance = np.minimum(distance, np.abs(m[others] + m[k]).max(axis=1))
        return distance < MERGE_TOLERANCE

    first, index = np.unique(first_equals(len(m), equals), return_inverse=True)

    def added(counts: np.ndarray) -> Int[np.ndarray, " states"]:
        table = np.zeros((len(runs), len(first)), int)
        np.add.at(table, (source, index), counts)
        largest = np.zeros_like(table)
        np.maximum.at(largest, runs, table)
        return largest.sum(axis=0)

    every, given_hits = np.asarray(rows.hits), np.asarray(rows.given_hits)
    given = added(given_hits)
    hits = given + added(every - given_hits)
    return dataclasses.replace(rows[first], hits=hits, given_hits=given).sort_by("free_energies")


@eqx.filter_jit
def _measure(problem: Problem, m: Float[Array, "batch n"]):
    """Free energy, residual and lowest curvature of each row."""

    def single(row):
        theta = jnp.arctanh(row)
        taylor = problem.taylor(theta)
        residual = jnp.max(jnp.abs(taylor.gradient), initial=0.0)
        curvature = lowest_curvature(
            scaled_hessian(taylor, theta, problem.beta), theta, problem.beta
        )
        return problem.functional(problem.energy, problem.beta, row), residual, curvature

    return jax.vmap(single)(m)
