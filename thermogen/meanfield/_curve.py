"""A curve of stationary points of G, in effective fields and a parameter, and its tangent."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import Magnetizations
from ..energies import AbstractEnergy
from ._base import AbstractFunctional, Problem, variance_at

_CORRECTIONS = 8

# A place on a branch: effective fields theta, then t; shape (n + 1,).
Place = Float[Array, " n_plus_1"]


class Path(eqx.Module):
    """What is varied as t goes from 0 to 1: beta, or the strength of a field at fixed beta."""

    functional: AbstractFunctional
    energy: AbstractEnergy
    beta: Float[Array, ""] | None
    field: Magnetizations | None
    ends: Float[Array, "2"]

    def parameter(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Beta, or the strength of the field."""
        return (1 - t) * self.ends[0] + t * self.ends[1]

    def beta_at(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return self.parameter(t) if self.beta is None else self.beta

    def problem(self, t: Float[Array, ""]) -> Problem:
        return Problem(self.functional, self.energy, self.beta_at(t))

    def residual(self, place: Place) -> Magnetizations:
        """`beta dG/dm`, shape `(n,)`: a field adds to G only its mean energy."""
        theta, t = place[:-1], place[-1]
        slope = self.problem(t).gradient_at(theta)
        if self.field is not None:
            slope -= self.parameter(t) * self.field
        return self.beta_at(t) * slope

    def free_energy(self, place: Place) -> Float[Array, ""]:
        theta, t = place[:-1], place[-1]
        value = self.problem(t).free_energy_at(theta)
        if self.field is not None:
            value -= self.parameter(t) * jnp.sum(self.field * jnp.tanh(theta))
        return value

    def hessian(self, place: Place) -> Float[Array, "n n"]:
        """Scaled so that it is the identity for independent spins; a field changes nothing."""
        return self.problem(place[-1]).scaled_hessian(place[:-1])


def metric_at(place: Place) -> Place:
    """The metric, `ds^2 = sum_i weights_i dplace_i^2`."""
    theta = place[:-1]
    return jnp.append(variance_at(theta) / theta.size, 1.0)


def inner(a: Place, b: Place, weights: Place) -> Float[Array, ""]:
    return jnp.sum(a * weights * b)


def _bordered(path: Path, place: Place, border: Place) -> Float[Array, "n_plus_1 n_plus_1"]:
    """Jacobian of the residual, and one more row."""
    return jnp.concatenate([jax.jacfwd(path.residual)(place), border[None, :]])


def correct(path: Path, guess: Place, border: Place, tol: float) -> tuple[Place, Bool[Array, ""]]:
    """Newton's method for `residual = 0` in the plane through `guess` normal to `border`."""

    def unfinished(state):
        _, residual, count = state
        return (count < _CORRECTIONS) & (jnp.max(jnp.abs(residual)) > tol)

    def improve(state):
        place, residual, count = state
        system = _bordered(path, place, border)
        place = place - jnp.linalg.solve(system, jnp.append(residual, 0.0))
        return place, path.residual(place), count + 1

    start = guess, path.residual(guess), 0
    place, residual, _ = jax.lax.while_loop(unfinished, improve, start)
    return place, jnp.max(jnp.abs(residual)) <= tol


def tangent_at(path: Path, place: Place, border: Place) -> Place:
    """Unit vector along the curve, on the side to which `border` points."""
    unit = jnp.zeros_like(place).at[-1].set(1.0)
    along = jnp.linalg.solve(_bordered(path, place, border), unit)
    return along / jnp.sqrt(inner(along, along, metric_at(place)))


def tolerance(place: Place) -> float:
    """On `beta dG/dm`."""
    return 1e-10 if place.dtype == jnp.float64 else 1e-4
