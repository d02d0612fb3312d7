"""States and saddles as differentiable functions of the parameters."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._compile import compiled_quickly
from .._linalg import eigenvalues, inverse, is_positive, lowest_eigenvalue
from .._placement import from_anywhere
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy
from ..meanfield import (
    RESULTS,
    AbstractFunctional,
    Problem,
    checked_problem,
    implicit_root,
    judge,
    polish,
    stationary_free_energy,
    width_at,
)
from ..search import Kind, Library
from ._barriers import Barriers
from ._saddles import angles_of, fields_of

# Points on the way from where a state was to where it is, at which the curvature is looked at.
_LOOKS = 8


class Followed(eqx.Module):
    """Stationary points of G at new parameters, each followed from where it was.

    Rows are those of what was followed. A row that does not exist any more keeps the place where
    it was, and has no derivatives; nothing in it is NaN.

    Attributes:
        magnetizations: m, shape `(K, n)`; derivatives by the implicit function theorem.
        fields: effective fields theta, m = tanh(theta), shape `(K, n)`.
        free_energies: G in energy units, shape `(K,)`; derivatives by the envelope theorem, at
            fixed m.
        curvatures: lowest eigenvalue of d^2 G/dm dm in energy units, shape `(K,)`; of saddles, of
            the Hessian in the angles arcsin m over beta, which has the same sign.
        residuals: max |dG/dm| in energy units, shape `(K,)`.
        exists: whether the row is still there, shape `(K,)`: a stationary point of the same number
            of unstable directions, that number being the same all the way from where it was.
        multiplicity: 2 where a row stands for itself and its mirror image, else 1, shape `(K,)`.
    """

    magnetizations: Float[Array, "K n"]
    fields: Float[Array, "K n"]
    free_energies: Float[Array, " K"]
    curvatures: Float[Array, " K"]
    residuals: Float[Array, " K"]
    exists: Bool[Array, " K"]
    multiplicity: Int[Array, " K"]

    def library(self) -> Library:
        """The rows as a library, whose mask says which exist: for weights, ln Z, overlaps.

        Saddles are no minima, and their `kind` says so.
        """
        kind = jnp.where(self.curvatures > 0, int(Kind.MINIMUM), int(Kind.POINT))
        return Library(
            self.magnetizations,
            self.free_energies,
            self.residuals,
            self.curvatures,
            jnp.zeros_like(self.multiplicity),
            self.multiplicity,
            fields=self.fields,
            kind=kind.astype(jnp.int8),
            mask=self.exists,
        )


@from_anywhere
def follow(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    states: Library | Barriers,
) -> Followed:
    """Follow minima or saddles to other parameters, as a function with derivatives of all orders.

    Newton steps re-solve every row from where it is, in the precision of the energy. The
    result is a pure function of energy and beta: it jits, vmaps, and differentiates forwards and
    backwards. Free energies need no solve for their first derivative, magnetizations and
    curvatures one for each row.

    A state that passed its spinodal is not there any more, and what Newton steps find instead of
    it is another one: it is told by the curvature on the way there, which changes its sign. So is
    a state that changes by so much that steps of the parameters should be smaller.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        states: a library, or the transition states of `barriers`, found at other parameters, which
            are constants here; one found under `jax.jit` may be padded.

    Raises:
        ValueError: for states of another number of spins, and a beta that is not positive.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)

        def free_energy(energy):
            return tg.landscape.follow(naive, energy, 1.0, library).free_energies[0]

        # dG/dh = -m at a minimum, at the state that the row holds.
        slope = jax.grad(free_energy)(energy)
        assert jnp.allclose(slope.fields, -library.magnetizations[0], atol=1e-4)
        ```
    """
    known, multiplicity, mask = _points(states)
    n = known.shape[1]
    if n != energy.n_spins:
        raise ValueError(f"states must have {energy.n_spins} spins like energy, got {n}")
    dtype = jnp.result_type(float, *jax.tree.leaves(energy))
    problem = checked_problem(functional, energy, beta, dtype)
    is_saddle = isinstance(states, Barriers)
    return _followed(problem, known.astype(dtype), multiplicity, mask, is_saddle)


def _points(states: Library | Barriers) -> tuple[Array, Array, Array]:
    """Fields, multiplicities, and which rows are in use."""
    if isinstance(states, Library):
        fields, mask = jnp.asarray(states.fields), jnp.asarray(states.mask)
    else:
        fields = fields_of(jnp.arcsin(jnp.asarray(states.magnetizations)))
        mask = jnp.asarray(states.indices) == 1
    return fields, jnp.asarray(states.multiplicity), mask


@compiled_quickly
def _followed(
    problem: Problem, fields: Array, multiplicity: Array, mask: Array, is_saddle: bool
) -> Followed:
    rows = jax.vmap(functools.partial(_follow, problem, is_saddle))(fields, mask)
    return Followed(**rows, multiplicity=multiplicity)


def _follow(
    problem: Problem, is_saddle: bool, start: Magnetizations, used: Bool[Array, ""]
) -> dict[str, Array]:
    """One row of `Followed`."""
    start = jax.lax.stop_gradient(jnp.where(used, start, 0))
    known = jax.lax.stop_gradient(problem)
    tol = 1e-9 if start.dtype == jnp.float64 else 1e-4
    solved = polish(known, start, tol=tol)
    residual, result = judge(known, solved.value, solved.aux[1], tol=tol)
    is_flat = (result == RESULTS.converged) | (result == RESULTS.saddle)
    exists = used & is_flat & _keeps_its_order(known, start, solved.value, is_saddle)
    root = jax.lax.stop_gradient(jnp.where(exists, solved.value, start))
    theta = implicit_root(_residual, root, (problem, root, exists), jnp.ones((), root.dtype))
    value = jax.lax.stop_gradient(known.free_energy_at(root))
    at_rest = stationary_free_energy(value, problem, theta)
    return {
        "magnetizations": jnp.tanh(theta),
        "fields": theta,
        "free_energies": jnp.where(exists, at_rest, value),
        "curvatures": _curvature(problem, theta, exists, is_saddle),
        "residuals": jnp.where(exists, residual, jnp.max(jnp.abs(known.gradient_at(root)))),
        "exists": exists,
    }


def _residual(theta: Magnetizations, args: tuple) -> Magnetizations:
    """That of G, and where there is no root one that has the known point as its root."""
    problem, root, exists = args
    return jnp.asarray(jnp.where(exists, problem.residual(theta), theta - root))


def _keeps_its_order(
    problem: Problem, start: Float[Array, " n"], end: Float[Array, " n"], is_saddle: bool
) -> Bool[Array, ""]:
    """Whether the number of unstable directions is the same all the way, in the angles arcsin m."""
    shares = jnp.linspace(0, 1, _LOOKS, dtype=start.dtype)
    first, last = angles_of(start), angles_of(jnp.where(jnp.isfinite(end), end, start))

    def look(share):
        hessian = problem.scaled_hessian(fields_of(first + share * (last - first)))
        if is_saddle:
            return jnp.sum(eigenvalues(hessian) < 0) == 1
        # A tenth of the time of eigenvalues.
        return is_positive(hessian)

    return jnp.all(jax.lax.map(look, shares))


def _curvature(
    problem: Problem, theta: Magnetizations, exists: Bool[Array, ""], is_saddle: bool
) -> Float[Array, ""]:
    """Lowest curvature; of a minimum one over the largest eigenvalue of the susceptibility."""
    # Unlike the identity it has a lowest eigenvalue that is no other's.
    blank = jnp.diag(jnp.arange(1.0, theta.size + 1, dtype=theta.dtype))
    hessian = jnp.where(exists, problem.scaled_hessian(theta), blank)
    if is_saddle:
        curvature = lowest_eigenvalue(hessian) / problem.beta
    else:
        width = width_at(theta)
        response = problem.beta * width[:, None] * inverse(hessian) * width[None, :]
        response = jnp.where(exists, -0.5 * (response + response.T), blank)
        curvature = -1 / lowest_eigenvalue(response)
    return jnp.where(exists, curvature, 0.0)
