"""The library of candidate bound states: certified minima of G(m), each held once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from types import EllipsisType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .._types import Beta
from ..energies import AbstractEnergy, is_flip_symmetric
from ..meanfield import AbstractFunctional
from ..meanfield._base import gradient_at, lowest_curvature, scaled_hessian_at
from ..meanfield._solve import Problem, checked_problem
from ._batches import cast, in_batches

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

    Attributes:
        magnetizations: m of each state, shape `(K, n)`.
        free_energies: G in energy units, shape `(K,)`; infinite where unused.
        residuals: max |dG/dm| in energy units, shape `(K,)`.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(K,)`.
        hits: number of quenches that ended in each state, shape `(K,)`.
        multiplicity: 2 where an entry stands for itself and for its mirror image under the
            global flip (merged if the energy has that symmetry), else 1, shape `(K,)`.
        mask: which entries are in use, shape `(K,)`.
        overflow: whether states were dropped because the library was full; it keeps the lowest.
    """

    magnetizations: Float[_Array, "K n"]
    free_energies: Float[_Array, " K"]
    residuals: Float[_Array, " K"]
    curvatures: Float[_Array, " K"]
    hits: Int[_Array, " K"]
    multiplicity: Int[_Array, " K"]
    mask: Bool[_Array, " K"]
    overflow: Bool[_Array, ""]

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
        return Library(**arrays, overflow=np.asarray(self.overflow))

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
        """All states of several libraries of one energy, each once, lowest first; hits add up.

        Two entries are one state where no magnetization differs by more than `MERGE_TOLERANCE`,
        modulo the global flip where it counts. The figures are those of the first library that
        holds the state. Libraries of different functionals may be joined, and then each free
        energy is still that of its own functional: they do not compare.

        Raises:
            ValueError: if the libraries differ in their number of spins.
        """
        libraries = [library[:] for library in (self, *others)]
        sizes = [library.magnetizations.shape[1] for library in libraries]
        if len(set(sizes)) > 1:
            raise ValueError(f"all libraries must have the same number of spins, got {sizes}")
        arrays = {
            name: np.concatenate([getattr(library, name) for library in libraries])
            for name in PER_STATE
        }
        overflow = np.any([library.overflow for library in libraries])
        return _merged(Library(**arrays, overflow=np.asarray(overflow)))

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
            for name, blank in (("free_energies", xp.inf), ("hits", 0))
        }
        return Library(
            magnetizations=(m.reshape(-1, m.shape[-1]) * mask[:, None])[order],
            overflow=self.overflow,
            **{name: values[order] for name, values in twice.items()},
        )

    def to_dict(self) -> dict[str, np.ndarray]:
        """The states alone, as plain arrays: `magnetizations` (size, n), all others `(size,)`.

        A table of pandas follows by `pandas.DataFrame({k: list(v) for k, v in d.items()})`.
        """
        held = self[:]
        return {name: getattr(held, name) for name in PER_STATE if name != "mask"}

    @classmethod
    def from_magnetizations(
        cls,
        functional: AbstractFunctional,
        energy: AbstractEnergy,
        beta: Beta,
        magnetizations: Float[_Array, "rows n"],
    ) -> "Library":
        """A library of points that come from elsewhere, each measured as it stands.

        Equal points are merged and counted as hits; where the energy is even, so are mirror
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
        m = np.asarray(magnetizations, np.float64)
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
        return _merged(
            cls(
                m,
                *figures,
                hits=np.ones(len(m), int),
                multiplicity=1 + symmetric,
                mask=np.ones(len(m), bool),
                overflow=np.array(False),
            )
        )

    def weights(self, beta: Beta) -> Float[Array, " K"]:
        """Boltzmann weight `exp(-beta G)` of each state, mirror images counted; sums to 1."""
        return jax.nn.softmax(self.log_weights(beta)[1])

    def log_weights(self, beta: Beta) -> tuple[Float[_Array, ""], Float[Array, " K"]]:
        """The lowest G in use, and the logarithm of `multiplicity exp(-beta (G - lowest))`.

        The difference is taken in the precision of the library; 0 and minus infinities where
        the library is empty.
        """
        xp = np if isinstance(self.free_energies, np.ndarray) else jnp
        lowest = xp.min(xp.where(self.mask, self.free_energies, xp.inf), initial=xp.inf)
        lowest = xp.where(xp.isfinite(lowest), lowest, 0.0)
        above = xp.where(self.mask, self.free_energies, lowest) - lowest
        logits = jnp.log(self.multiplicity) - beta * jnp.asarray(above)
        return lowest, jnp.where(self.mask, logits, -jnp.inf)

    def coverage(self) -> float:
        """Good-Turing estimate of the share of quenches that end in a state already held.

        One minus the share of hits that are the only one of their state (Good 1953); NaN for an
        empty library, and after overflow, when states are gone with their hits. It speaks of
        starts like those that were used, all rounds together: by default of random corners.
        Moves other than `corner` start from states held and come back to them: after those it
        claims more than the share of the cube that is covered.
        """
        return float("nan") if np.any(self.overflow) else good_turing(np.asarray(self.hits))

    def nearest(self, magnetizations: Float[_Array, "batch n"]) -> Int[np.ndarray, " batch"]:
        """Index of the state that each row is, shape `(batch,)`; -1 where it is none of them.

        A row counts as its mirror image where the state stands for both.

        Raises:
            ValueError: for rows of another shape.
        """
        rows = np.asarray(magnetizations)
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


PER_STATE = [field.name for field in dataclasses.fields(Library) if field.name != "overflow"]


def good_turing(hits: Int[np.ndarray, " K"]) -> float:
    """One minus the share of hits that are the only one of their state (Good 1953)."""
    return float(1 - np.sum(hits == 1) / hits.sum()) if hits.sum() else float("nan")


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


def _merged(rows: Library) -> Library:
    """Equal rows made one, with the figures of the first and the hits of all; lowest first."""
    m = rows.magnetizations

    def equals(k: int, others: np.ndarray) -> np.ndarray:
        distance = np.abs(m[others] - m[k]).max(axis=1)
        if rows.multiplicity[k] == 2:
            distance = np.minimum(distance, np.abs(m[others] + m[k]).max(axis=1))
        return distance < MERGE_TOLERANCE

    first, index = np.unique(first_equals(len(m), equals), return_inverse=True)
    hits = np.bincount(index, np.asarray(rows.hits), len(first)).astype(int)
    return dataclasses.replace(rows[first], hits=hits).sort_by("free_energies")


@eqx.filter_jit
def _measure(problem: Problem, m: Float[Array, "batch n"]):
    """Free energy, residual and lowest curvature of each row."""
    functional, energy, beta = problem

    def single(row):
        theta = jnp.arctanh(row)
        residual = jnp.max(jnp.abs(gradient_at(functional, energy, theta, beta)), initial=0.0)
        hessian = scaled_hessian_at(functional, energy, theta, beta)
        curvature = lowest_curvature(hessian, theta, beta)
        return functional(energy, row, beta), residual, curvature

    return jax.vmap(single)(m)
