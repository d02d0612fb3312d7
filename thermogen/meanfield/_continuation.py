"""Branches of stationary points of G, followed in beta or in a field, and where they bifurcate."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num
from scipy import optimize

from .._solution import RESULTS
from .._types import Beta, Magnetizations, Spins
from ..energies import AbstractEnergy
from ._base import AbstractFunctional, free_energy_at, gradient_at, scaled_hessian_at, variance_at
from ._solve import checked_beta, starting_field

_CORRECTIONS = 8
_FIRST_STEP, _SMALLEST_STEP = 0.1, 1e-5  # in units of the largest step
_LEAST_COSINE = 0.9  # between the tangents at neighbouring points
# What counts as zero at a bifurcation, where all figures have no unit and are of order one.
_ZERO = 1e-5

# A place on a branch: effective fields theta, then t; shape (n + 1,).
_Place = Float[Array, " n_plus_1"]


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

    def residual(self, place: _Place) -> Magnetizations:
        """`beta dG/dm`, shape `(n,)`: a field adds to G only its mean energy."""
        theta, t = place[:-1], place[-1]
        slope = gradient_at(self.functional, self.energy, theta, self.beta_at(t))
        if self.field is not None:
            slope -= self.parameter(t) * self.field
        return self.beta_at(t) * slope

    def free_energy(self, place: _Place) -> Float[Array, ""]:
        theta, t = place[:-1], place[-1]
        value = free_energy_at(self.functional, self.energy, theta, self.beta_at(t))
        if self.field is not None:
            value -= self.parameter(t) * jnp.sum(self.field * jnp.tanh(theta))
        return value

    def hessian(self, place: _Place) -> Float[Array, "n n"]:
        """Scaled so that it is the identity for independent spins; a field changes nothing."""
        return scaled_hessian_at(self.functional, self.energy, place[:-1], self.beta_at(place[-1]))


class Branch(eqx.Module):
    """Stationary points of G along a curve, in the order in which they were met.

    There is room for `capacity` points, of which the first `size` are used; the rest is NaN.

    Attributes:
        parameters: beta, or the strength of the field, shape `(capacity,)`.
        magnetizations: shape `(capacity, n)`.
        free_energies: G, with the term of the field, shape `(capacity,)`.
        curvatures: lowest eigenvalue of `beta sqrt(v_i) G''_ij sqrt(v_j)`, v = 1 - m^2: 1 for
            independent spins, 0 at a spinodal, below 0 where m is no minimum; `(capacity,)`.
        n_unstable: how many eigenvalues are below 0, shape `(capacity,)`.
        size: number of points.
        result: `converged` if an end of the range was reached; `step_limit` if the room ran out;
            `stalled` if no step, however small, met the curve (with size 0: the start is not
            near a stationary point).
    """

    parameters: Float[Array, " capacity"]
    magnetizations: Float[Array, "capacity n"]
    free_energies: Float[Array, " capacity"]
    curvatures: Float[Array, " capacity"]
    n_unstable: Int[Array, " capacity"]
    size: Int[Array, ""]
    result: RESULTS
    path: Path
    places: Float[Array, "capacity n_plus_1"]
    tangents: Float[Array, "capacity n_plus_1"]


class Bifurcation(NamedTuple):
    """Where a branch turns or meets another.

    Attributes:
        kind: `"saddle-node"`, where two stationary points are born or die (a spinodal, if one of
            them is a minimum); `"pitchfork"`, where two branches leave, mirror images to leading
            order; `"transcritical"`, where another branch crosses.
        parameter: beta, or the strength of the field.
        magnetizations: shape `(n,)`.
        free_energy: G there.
        soft_mode: the direction of m in which G is flat, shape `(n,)`, of length 1.
        n_unstable: number of unstable directions before and after.
    """

    kind: str
    parameter: float
    magnetizations: np.ndarray
    free_energy: float
    soft_mode: np.ndarray
    n_unstable: tuple[int, int]


def follow_beta(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    betas: tuple[Beta, Beta],
    init: Spins,
    *,
    toward: Num[Array | np.ndarray, " _"] | None = None,
    max_step: float = 0.05,
    capacity: int = 512,
) -> Branch:
    """Follow a stationary point of G as beta goes from `betas[0]` to `betas[1]`, around folds.

    Pseudo-arclength continuation (Keller 1977): the branch is a curve in (theta, beta), theta =
    atanh m, whose length is measured by `ds^2 = mean_i (1 - m_i^2) dtheta_i^2 + dt^2`, t being
    beta mapped to [0, 1]. It ends where it leaves the range, through either end. One jitted loop
    without a callback: `jax.vmap` over energies or starts works. Runs in the dtype of the energy.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        betas: inverse temperatures, > 0, at the two ends of the range; either may be larger.
        init: magnetizations near a stationary point at `betas[0]`, shape `(n,)`, for instance
            from `solve`. Saddles are followed as well as minima.
        toward: set off in this direction of m, as the `soft_mode` of a bifurcation at `init` or
            its negative: that is how branches are switched. By default, along the branch.
        max_step: largest step along the branch; a spin that turns from 0 to 1 with all others
            makes pi/2.
        capacity: room for points.

    Raises:
        ValueError: for betas that are not positive or equal, or arrays of wrong shape.
    """
    theta = starting_field(energy, init)
    start, stop = (checked_beta(beta, theta.dtype) for beta in betas)
    path = Path(functional, energy, None, None, _range("betas", start, stop))
    return _follow(
        path, theta, _direction(theta, toward), jnp.asarray(max_step, theta.dtype), capacity
    )


def follow_field(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    init: Spins,
    *,
    field: Num[Array | np.ndarray, " _"],
    strengths: tuple[Beta, Beta],
    toward: Num[Array | np.ndarray, " _"] | None = None,
    max_step: float = 0.05,
    capacity: int = 512,
) -> Branch:
    """Follow a stationary point of `G(m) - h field.m` as h goes between `strengths`; hysteresis.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins; its own fields stay.
        beta: inverse temperature, > 0.
        init: magnetizations near a stationary point at `strengths[0]`, shape `(n,)`.
        field: direction of the additional field, in energy units per unit of strength, `(n,)`.
        strengths: h at the two ends of the range; either may be larger.
        toward: see `follow_beta`.
        max_step: see `follow_beta`.
        capacity: see `follow_beta`.

    Raises:
        ValueError: for a beta that is not positive, equal strengths, or arrays of wrong shape.
    """
    theta = starting_field(energy, init)
    field = _of_length("field", field, theta)
    start, stop = (jnp.asarray(h, theta.dtype) for h in strengths)
    beta = checked_beta(beta, theta.dtype)
    path = Path(functional, energy, beta, field, _range("strengths", start, stop))
    return _follow(
        path, theta, _direction(theta, toward), jnp.asarray(max_step, theta.dtype), capacity
    )


def bifurcations(branch: Branch) -> list[Bifurcation]:
    """Saddle-nodes, pitchforks and transcritical points on a branch, in the order of the branch.

    Between neighbouring points whose number of unstable directions differs, the eigenvalue that
    changed its sign is traced to its zero; a branch that turns without such a change does so in
    a pitchfork. Owns its loop and works in float64, whatever the JAX configuration. The point
    from which a branch was switched is not reported again. Two crossings of the same eigenvalue
    between neighbouring points go unseen: follow with a smaller `max_step`.

    Args:
        branch: one branch from `follow_beta` or `follow_field`.
    """
    with jax.enable_x64(True):
        path, places, tangents = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64), (branch.path, branch.places, branch.tangents)
        )
        counts, found = np.asarray(branch.n_unstable), []
        for i in range(int(branch.size) - 1):
            before, after = int(counts[i]), int(counts[i + 1])
            crossing = list(range(min(before, after), max(before, after)))
            if before == after and tangents[i, -1] * tangents[i + 1, -1] < 0:
                crossing = [-1]
            reach = float(_inner(tangents[i], places[i + 1] - places[i], _weights(places[i])))
            for k in crossing:
                step = _zero(path, places[i], tangents[i], reach, k)
                if i > 0 or step > _ZERO * reach:
                    place, tangent = _advance(path, places[i], tangents[i], jnp.asarray(step))
                    found.append(_describe(path, place, tangent, k, (before, after)))
        return found


def _range(name: str, start: Float[Array, ""], stop: Float[Array, ""]) -> Float[Array, "2"]:
    ends = jnp.stack([start, stop])
    if not isinstance(ends, Tracer) and start == stop:
        raise ValueError(f"{name} must be two different values, got {start} twice")
    return ends


def _of_length(name: str, vector, theta: Magnetizations) -> Magnetizations:
    if vector.shape != theta.shape:
        raise ValueError(f"{name} must have shape {theta.shape}, got {vector.shape}")
    return jnp.asarray(vector, theta.dtype)


def _direction(theta: Magnetizations, toward) -> _Place | None:
    """The first tangent, if a direction of m is given."""
    if toward is None:
        return None
    return jnp.append(_of_length("toward", toward, theta) / variance_at(theta), 0.0)


def _weights(place: _Place) -> _Place:
    """The metric, `ds^2 = sum_i weights_i dplace_i^2`."""
    theta = place[:-1]
    return jnp.append(variance_at(theta) / theta.size, 1.0)


def _inner(a: _Place, b: _Place, weights: _Place) -> Float[Array, ""]:
    return jnp.sum(a * weights * b)


def _bordered(path: Path, place: _Place, border: _Place) -> Float[Array, "n_plus_1 n_plus_1"]:
    """Jacobian of the residual, and one more row."""
    return jnp.concatenate([jax.jacfwd(path.residual)(place), border[None, :]])


def _correct(
    path: Path, guess: _Place, border: _Place, tol: float
) -> tuple[_Place, Bool[Array, ""]]:
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


def _tangent(path: Path, place: _Place, border: _Place) -> _Place:
    """Unit vector along the curve, on the side to which `border` points."""
    unit = jnp.zeros_like(place).at[-1].set(1.0)
    along = jnp.linalg.solve(_bordered(path, place, border), unit)
    return along / jnp.sqrt(_inner(along, along, _weights(place)))


def _tolerance(place: _Place) -> float:
    """On `beta dG/dm`."""
    return 1e-10 if place.dtype == jnp.float64 else 1e-4


class _State(eqx.Module):
    place: _Place
    tangent: _Place
    step: Float[Array, ""]
    done: Bool[Array, ""]
    size: Int[Array, ""]
    places: Float[Array, "capacity n_plus_1"]
    tangents: Float[Array, "capacity n_plus_1"]


@eqx.filter_jit
def _follow(
    path: Path,
    theta: Magnetizations,
    toward: _Place | None,
    max_step: Float[Array, ""],
    capacity: int,
) -> Branch:
    dtype = theta.dtype
    forward = jnp.zeros(theta.size + 1, dtype).at[-1].set(1.0)
    guess = jnp.append(theta, 0.0)
    place, met = _correct(path, guess, forward, _tolerance(guess))
    if toward is None:
        tangent = _tangent(path, place, forward)
    else:
        tangent = toward / jnp.sqrt(_inner(toward, toward, _weights(place)))
    blank = jnp.full((capacity, theta.size + 1), jnp.nan, dtype)
    start = _State(
        place,
        tangent,
        _FIRST_STEP * max_step,
        ~met,
        jnp.where(met, 1, 0),
        blank.at[0].set(jnp.where(met, place, jnp.nan)),
        blank.at[0].set(jnp.where(met, tangent, jnp.nan)),
    )

    def unfinished(state: _State):
        return ~state.done & (state.size < capacity) & (state.step > _SMALLEST_STEP * max_step)

    end = jax.lax.while_loop(unfinished, functools.partial(_step, path, forward, max_step), start)
    result = RESULTS.where(end.size < capacity, RESULTS.stalled, RESULTS.step_limit)
    result = RESULTS.where(end.done & met, RESULTS.converged, result)

    def describe(place):
        eigenvalues = jnp.linalg.eigvalsh(path.hessian(place))
        n_unstable = jnp.sum(eigenvalues < 0).astype(dtype)
        return jnp.stack([path.free_energy(place), eigenvalues[0], n_unstable])

    used = jnp.arange(capacity) < end.size
    nothing = jnp.array([jnp.nan, jnp.nan, 0.0], dtype)
    figures = jax.lax.map(
        lambda row: jax.lax.cond(row[0], describe, lambda _: nothing, row[1]), (used, end.places)
    )
    return Branch(
        jax.vmap(path.parameter)(end.places[:, -1]),
        jnp.tanh(end.places[:, :-1]),
        figures[:, 0],
        figures[:, 1],
        figures[:, 2].astype(int),
        end.size,
        result,
        path,
        end.places,
        end.tangents,
    )


def _step(path: Path, forward: _Place, max_step: Float[Array, ""], state: _State) -> _State:
    """Predict along the tangent, correct, and take the point if the curve did not bend much."""
    weights = _weights(state.place)
    t, rate = state.place[-1], state.tangent[-1]
    leaves = jnp.abs(t + state.step * rate - 0.5) > 0.5
    end = jnp.where(rate > 0, 1.0, 0.0)
    step = jnp.where(leaves, (end - t) / jnp.where(rate == 0, 1.0, rate), state.step)
    guess = state.place + step * state.tangent
    guess = guess.at[-1].set(jnp.where(leaves, end, guess[-1]))
    border = jnp.where(leaves, forward, weights * state.tangent)
    place, met = _correct(path, guess, border, _tolerance(guess))
    tangent = _tangent(path, place, weights * state.tangent)
    shift = place - guess
    near = _inner(shift, shift, weights) <= step**2
    cosine = _inner(tangent, state.tangent, jnp.sqrt(weights * _weights(place)))
    accept = met & near & (cosine > _LEAST_COSINE)
    grown = jnp.minimum(1.5 * state.step, max_step)

    def write(rows, row):
        return rows.at[state.size].set(jnp.where(accept, row, rows[state.size]))

    return _State(
        jnp.where(accept, place, state.place),
        jnp.where(accept, tangent, state.tangent),
        jnp.where(accept, grown, 0.5 * jnp.minimum(step, state.step)),
        accept & leaves,
        state.size + accept,
        write(state.places, place),
        write(state.tangents, tangent),
    )


@eqx.filter_jit
def _advance(
    path: Path, place: _Place, tangent: _Place, step: Float[Array, ""]
) -> tuple[_Place, _Place]:
    """The point of the branch at distance `step`, measured along the tangent, and its tangent."""
    border = _weights(place) * tangent
    place, _ = _correct(path, place + step * tangent, border, _tolerance(place))
    return place, _tangent(path, place, border)


@eqx.filter_jit
def _spectrum(path: Path, place: _Place) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    return jnp.linalg.eigh(path.hessian(place))


def _zero(path: Path, place: _Place, tangent: _Place, reach: float, k: int) -> float:
    """Distance at which eigenvalue k, or for k = -1 the rate of the parameter, vanishes."""

    def value(step: float) -> float:
        near, turned = _advance(path, place, tangent, jnp.asarray(step))
        return float(turned[-1] if k < 0 else _spectrum(path, near)[0][k])

    low, high = value(0.0), value(reach)
    if low * high >= 0:  # one of the two is zero but for rounding
        return 0.0 if abs(low) < abs(high) else reach
    return optimize.root_scalar(value, bracket=(0.0, reach), xtol=1e-9 * reach).root


def _describe(
    path: Path, place: _Place, tangent: _Place, k: int, n_unstable: tuple[int, int]
) -> Bifurcation:
    root = np.sqrt(variance_at(place[:-1]))
    mode = root * tangent[:-1] if k < 0 else _spectrum(path, place)[1][:, k]
    mode = np.asarray(mode / np.linalg.norm(mode))
    # Of the two signs, the one in which the largest component is positive.
    mode = mode * np.sign(mode[np.argmax(np.abs(mode))])
    free_energy, parameter, drift, skewness = map(
        float, _local_form(path, place, jnp.asarray(mode))
    )
    # A branch that turns and does not change its stability comes in as one arm of a pitchfork
    # and goes out as the other.
    if k >= 0 and abs(drift) > _ZERO:
        kind = "saddle-node"
    else:
        kind = "transcritical" if k >= 0 and abs(skewness) > _ZERO else "pitchfork"
    soft = root * mode
    return Bifurcation(
        kind,
        parameter,
        np.tanh(place[:-1]),
        free_energy,
        soft / np.linalg.norm(soft),
        n_unstable,
    )


@eqx.filter_jit
def _local_form(path: Path, place: _Place, mode: Magnetizations):
    """G, the parameter, and what tells the kinds apart, along the soft mode x.

    These are `d^2 (beta G)/dx dt`, zero unless the branch turns, and `d^3 (beta G)/dx^3`, zero if
    both sides of the mode look alike; the latter by differences, as it is only compared with 0.
    """
    root = jnp.sqrt(variance_at(place[:-1]))
    drift = jnp.sum(mode * root * jax.jacfwd(path.residual)(place)[:, -1])
    shift = 1e-3 * jnp.append(mode / root, 0.0)
    ahead, behind = (mode @ path.hessian(place + s * shift) @ mode for s in (1, -1))
    skewness = (ahead - behind) / 2e-3
    return path.free_energy(place), path.parameter(place[-1]), drift, skewness
