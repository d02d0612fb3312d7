"""The library of candidate bound states: verified minima of G(m), each held once."""

import dataclasses
import enum
import warnings
from collections.abc import Iterator
from types import EllipsisType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Int8, UInt32

from .._batches import cast
from .._checks import as_array, check_finite
from .._cold import above_lowest, beta_as
from .._merging import merged
from .._shown import Shown, Table, number
from .._solution import Solution
from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import (
    RESULTS,
    AbstractFunctional,
    checked_problem,
    is_minimum,
)
from ._curvature import lowest_curvatures
from ._provenance import fingerprint, mismatch
from ._same import good_turing, groups_by_run
from ._tables import measured, mirrored, multiplicities, nearest_rows, united

_Array = Array | np.ndarray
# One or some of the states that a library holds, as NumPy would index them.
_Index = int | np.integer | slice | EllipsisType | list | _Array


class Kind(enum.IntEnum):
    """What a state of a library is, as the code in `Library.kind`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        assert library.kind[0] == tg.search.Kind.MINIMUM
        ```
    """

    MINIMUM = 0
    """A minimum of G, verified: no gradient is left, and the Hessian is positive definite."""
    MARGINAL = 1
    """A minimum whose lowest curvature cannot be told from 0, as at a bifurcation."""
    FLIP_MINIMUM = 2
    """Spins whose energy no single flip lowers; no stationary point of G."""
    POINT = 3
    """Any other point, as it was given: nothing was verified."""


class Library(Shown):
    """Distinct states of a free energy G(m), lowest first.

    Every state that a search found was verified: its gradient is below tolerance and its Hessian
    is positive definite, on the host in float64, under `jax.jit` and `jax.vmap` in the precision of
    the energy. It is a *candidate* for a bound state: that it also traps the dynamics is a separate
    proof. `kind` says of each state what it is.

    On the host all arrays hold one entry a state, and a library behaves like a sequence:
    `library[k]`, `library[:10]`, `library[library.hits > 1]` and `library[[4, 0]]` are libraries
    of NumPy arrays that hold the chosen states, in that order; `len` counts the states and `for`
    visits them one by one. `thermogen.storage` writes and reads libraries.

    Under `jax.jit` and `jax.vmap` the arrays have a fixed length K, of which `mask` says what is
    in use; the states come first, and `library[:]` leaves out the rest once it is on the host.

    Libraries know where they come from: `union` joins those of one functional, energy and beta
    alone. What is made by hand, without a fingerprint, may come from anywhere.

    Attributes:
        magnetizations: m of each state, shape `(K, n)`.
        free_energies: G in energy units, shape `(K,)`; infinite where unused.
        residuals: max |dG/dm| in energy units, shape `(K,)`; infinite where there is no G.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(K,)`.
        hits: number of quenches that ended in each state, shape `(K,)`; 0 where only the way
            down from a saddle led there.
        multiplicity: 2 where an entry stands for itself and for its mirror image under the
            global flip (merged if the energy has that symmetry), else 1, shape `(K,)`.
        fields: effective fields theta, m = tanh(theta), shape `(K, n)`. A saturated m rounds to
            +-1, and only its theta still tells the gradient.
        kind: a `search.Kind` of each state, shape `(K,)`.
        mask: True for the entries in use, shape `(K,)`.
        overflow: whether states were dropped because the library was full; it keeps the lowest.
        given_hits: number of the hits from starts that were given, or made from states held, shape
            `(K,)`. These are no independent draws, and say nothing about coverage.
        unresolved: number of independent quenches that ended in no verified minimum.
        runs: names of the random keys whose quenches are counted, shape `(R, 2)`.
        fingerprint: fingerprints of functional, energy and beta, one row each, shape `(3, 2)`;
            zeros where unknown.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        up = library.expanded()  # a row for each mirror image

        assert len(library) == 1 and len(up) == 2 and jnp.isclose(up.weights(1.0).sum(), 1)
        ```
    """

    _of_rows: ClassVar[str] = "mask"

    magnetizations: Float[_Array, "K n"]
    free_energies: Float[_Array, " K"]
    residuals: Float[_Array, " K"]
    curvatures: Float[_Array, " K"]
    hits: Int[_Array, " K"]
    multiplicity: Int[_Array, " K"]
    fields: Float[_Array, "K n"]
    kind: Int8[_Array, " K"]
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
        *,
        fields: Float[_Array, "K n"] | None = None,
        kind: Int8[_Array, " K"] | None = None,
        mask: Bool[_Array, " K"] | None = None,
        overflow: Bool[_Array, ""] | None = None,
        given_hits: Int[_Array, " K"] | None = None,
        unresolved: Int[_Array, ""] | None = None,
        runs: UInt32[_Array, "R 2"] | None = None,
        fingerprint: UInt32[_Array, "3 2"] | None = None,
    ) -> None:
        """By default the states are points, all hits independent, and the origin unknown."""
        self.magnetizations, self.free_energies = magnetizations, free_energies
        self.residuals, self.curvatures, self.hits = residuals, curvatures, hits
        self.multiplicity, shape = multiplicity, np.shape(hits)
        self.fields = _fields_of(magnetizations) if fields is None else fields
        self.kind = np.full(shape, Kind.POINT, np.int8) if kind is None else kind
        self.mask = np.ones(shape, bool) if mask is None else mask
        self.overflow = np.array(False) if overflow is None else overflow
        self.given_hits = 0 * hits if given_hits is None else given_hits
        self.unresolved = np.array(0) if unresolved is None else unresolved
        self.runs = np.zeros((0, 2), np.uint32) if runs is None else runs
        self.fingerprint = np.zeros((3, 2), np.uint32) if fingerprint is None else fingerprint

    @property
    def size(self) -> Any:
        """Number of states held: an int, or an array where libraries are traced or batched."""
        if isinstance(self.mask, Tracer):
            return jnp.sum(self.mask, axis=-1)
        size = np.sum(self.mask, axis=-1)
        return int(size) if np.ndim(size) == 0 else size

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
        return self._headline() if self._is_known() else super().__repr__()

    def _table(self) -> Table:
        held = self[:]
        columns = {
            "": list(map(str, range(len(held)))),
            "G": [f"{x:.6g}" for x in held.free_energies],
            "images": list(map(str, held.multiplicity)),
            "lowest curvature": list(map(number, held.curvatures)),
            "hits": list(map(str, held.hits)),
            "kind": [Kind(k).name.lower().replace("_", " ") for k in held.kind],
        }
        return Table(self._headline(), columns)

    def _headline(self) -> str:
        n = np.shape(self.magnetizations)[1]
        text = f"{self.size} state{'' if self.size == 1 else 's'} of {n} spins"
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
        names = [x for x in PER_STATE if x not in ("magnetizations", "fields", "mask")]
        if name not in names:
            raise ValueError(f"name is {name!r}; expected one of {', '.join(names)}")
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
        return Library(**united([vars(library) for library in libraries], PER_STATE))

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
        """Mirror images as entries of their own: multiplicity 1 throughout.

        An image follows its state and repeats its figures, hits included. Under `jax.jit` and
        `jax.vmap` the length is 2 K.
        """
        images = Library(
            **mirrored({name: getattr(self, name) for name in PER_STATE}),
            **{name: getattr(self, name) for name in _OF_ALL},
        )
        return images if isinstance(self.mask, Array) else images[:]

    def to_dict(self) -> dict[str, np.ndarray]:
        """The states as plain arrays: `magnetizations` and `fields` (size, n), others `(size,)`.

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
            problem = checked_problem(functional, cast(energy, np.float64), beta, np.float64)
            points = cls(
                m,
                *measured(problem, m),
                hits=np.ones(len(m), int),
                given_hits=np.ones(len(m), int),
                multiplicity=multiplicities(m, bool(is_flip_symmetric(problem.energy))),
                fingerprint=fingerprint(functional, energy, beta),
            )
        return points.union()

    @classmethod
    def from_solution(
        cls,
        functional: AbstractFunctional,
        energy: AbstractEnergy,
        beta: Beta,
        solution: Solution,
    ) -> "Library":
        """The minima among the ends of many solves, each once, lowest first.

        Every row is one hit, of an independent start; those that did not converge to a minimum
        are left out, and counted in `unresolved`.

        Args:
            functional: the free energy that was minimised, such as `TAP()`.
            energy: its energy.
            beta: its inverse temperature, > 0.
            solution: a batch, as `quench` returns it, or `solve` under `jax.vmap`.

        Raises:
            ValueError: for a solution of one start, or of another number of spins.
        """
        if np.ndim(solution.value) != 2 or np.shape(solution.value)[1] != energy.n_spins:
            raise ValueError(
                f"solution must hold many starts of {energy.n_spins} spins, got magnetizations of "
                f"shape {np.shape(solution.value)}"
            )
        good = np.asarray(is_minimum(solution.result))
        minima = jax.tree.map(lambda x: np.asarray(x)[good], solution)
        with jax.enable_x64(True):
            problem = checked_problem(functional, cast(energy, np.float64), beta, np.float64)
            fields = np.asarray(minima.state["fields"], np.float64)
            curvatures = lowest_curvatures(problem, fields) if len(fields) else np.zeros(0)
            symmetric = bool(is_flip_symmetric(problem.energy))
            minima = of_minima(minima, curvatures, np.ones(len(fields), int), symmetric)
            origin = fingerprint(functional, energy, beta)
        unresolved = np.array(np.sum(~good))
        return dataclasses.replace(minima, unresolved=unresolved, fingerprint=origin).union()

    def weights(self, beta: Beta) -> Float[Array, " K"]:
        """Boltzmann weight `exp(-beta G)` of each state, mirror images counted; sums to 1.

        Unused entries weigh 0, all of them where the library is empty. Differentiable.
        """
        return _softmax(self.log_weights(beta)[1], jnp.asarray(self.mask))

    def log_weights(self, beta: Beta) -> tuple[Float[_Array, ""], Float[Array, " K"]]:
        """The lowest G in use, and the logarithm of `multiplicity exp(-beta (G - lowest))`.

        The difference is taken in the precision of the library; 0 and minus infinities where
        the library is empty. States that rounding alone tells apart weigh the same.
        """
        check_finite("beta", beta)
        xp = np if isinstance(self.free_energies, np.ndarray) else jnp
        lowest, above = above_lowest(xp.where(self.mask, self.free_energies, 0.0), self.mask)
        above = jnp.asarray(above)
        return lowest, _logits(above, self.multiplicity, self.mask, beta_as(beta, above.dtype))

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
        paired = np.asarray(self.multiplicity) == 2
        return nearest_rows(self.magnetizations[: self.size], paired[: self.size], rows)


@merged.register
def _(first: Library, others: list[Library]) -> Library:
    runs = [np.asarray(library.runs) for library in (first, *others)]
    groups = groups_by_run(runs)
    for group in np.unique(groups):
        same = np.flatnonzero(groups == group)
        if len(same) > 1:
            named = ", ".join(map(str, same))
            warnings.warn(f"results {named} share the quenches of a run; these count once", None, 3)
    return first.union(*others)


# Fields that speak of the whole library, and those that hold one entry a state.
_OF_ALL = ("overflow", "unresolved", "runs", "fingerprint")
PER_STATE = [field.name for field in dataclasses.fields(Library) if field.name not in _OF_ALL]


# Compiled whole: a new number of states would compile each operation anew.
@jax.jit
def _softmax(logits, mask):
    # A sum of nothing has derivatives that are no numbers.
    weights = jax.nn.softmax(jnp.where(jnp.any(mask), logits, 0.0))
    return jnp.where(mask, weights, 0.0)


@jax.jit
def _logits(above, multiplicity, mask, beta):
    return jnp.where(mask, jnp.log(multiplicity.astype(above.dtype)) - beta * above, -jnp.inf)


def of_minima(
    minima: Solution,
    curvatures: Float[np.ndarray, " K"],
    hits: Int[np.ndarray, " K"],
    symmetric: bool,
) -> Library:
    """Distinct minima as a library, in the order in which they are given."""
    m, stats = np.asarray(minima.value, np.float64), minima.stats
    marginal = np.asarray(minima.result == RESULTS.marginal)
    return Library(
        m,
        np.asarray(stats["free_energy"], np.float64),
        np.asarray(stats["residual"], np.float64),
        curvatures,
        hits,
        multiplicities(m, symmetric),
        fields=np.asarray(minima.state["fields"], np.float64),
        kind=np.where(marginal, Kind.MARGINAL, Kind.MINIMUM).astype(np.int8),
    )


def _fields_of(m: Float[_Array, "K n"]) -> Float[_Array, "K n"]:
    if not isinstance(m, np.ndarray):
        return jnp.arctanh(m)
    with np.errstate(divide="ignore"):
        return np.arctanh(m)
