"""Branches of stationary points of G, followed in beta or in a field."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num

from .._checks import check_count, check_finite
from .._codes import Codes
from .._placement import from_anywhere
from .._types import Beta, Magnetizations, Spins
from ..energies import AbstractEnergy
from ._base import AbstractFunctional, variance_at
from ._curve import Path, Place, correct, inner, metric_at, tangent_at, tolerance
from ._results import RESULTS
from ._solve import checked_beta, starting_field

_FIRST_STEP, _SMALLEST_STEP = 0.1, 1e-5  # in units of the largest step
_LEAST_COSINE = 0.9  # between the tangents at neighbouring points


class Branch(eqx.Module):
    """Stationary points of G along a curve, in the order in which they were met.

    There is room for `capacity` points, of which the first `size` are used; the rest is NaN.

    Attributes:
        parameters: beta, or the strength of the field, shape `(capacity,)`.
        magnetizations: m of each point, shape `(capacity, n)`.
        free_energies: G, with the term of the field, shape `(capacity,)`.
        curvatures: lowest eigenvalue of `beta sqrt(v_i) G''_ij sqrt(v_j)`, v = 1 - m^2: 1 for
            independent spins, 0 at a spinodal, below 0 where m is no minimum; `(capacity,)`.
        n_unstable: number of eigenvalues below 0, shape `(capacity,)`.
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
    result: Codes
    path: Path
    places: Float[Array, "capacity n_plus_1"]
    tangents: Float[Array, "capacity n_plus_1"]


@from_anywhere
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

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        start = tg.solve(tg.NaiveMeanField(), energy, 1.0, jnp.ones(3)).value
        branch = tg.meanfield.follow_beta(tg.NaiveMeanField(), energy, (1.0, 0.8), start)
        assert branch.result == tg.RESULTS.converged
        assert jnp.isclose(branch.parameters[branch.size - 1], 0.8)
        ```
    """
    capacity = _checked_sizes(max_step, capacity)
    theta = starting_field(energy, init)
    start, stop = (checked_beta(beta, theta.dtype) for beta in betas)
    path = Path(functional, energy, None, None, _range("betas", start, stop))
    return _follow(
        path, theta, _direction(theta, toward), jnp.asarray(max_step, theta.dtype), capacity
    )


@from_anywhere
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
        toward: direction of m in which to set off, as in `follow_beta`.
        max_step: largest step along the branch, as in `follow_beta`.
        capacity: room for points.

    Raises:
        ValueError: for a beta that is not positive, equal strengths, or arrays of wrong shape.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        naive, up = tg.NaiveMeanField(), jnp.ones(2)
        branch = tg.meanfield.follow_field(
            naive, pair, 0.5, jnp.zeros(2), field=up, strengths=(0.0, 0.2)
        )
        end = branch.magnetizations[branch.size - 1]

        assert jnp.allclose(end, jnp.tanh(0.5 * (end + 0.2)), atol=1e-5)
        ```
    """
    capacity = _checked_sizes(max_step, capacity)
    theta = starting_field(energy, init)
    field = _of_length("field", field, theta)
    start, stop = (jnp.asarray(h, theta.dtype) for h in strengths)
    beta = checked_beta(beta, theta.dtype)
    path = Path(functional, energy, beta, field, _range("strengths", start, stop))
    return _follow(
        path, theta, _direction(theta, toward), jnp.asarray(max_step, theta.dtype), capacity
    )


def _range(name: str, start: Float[Array, ""], stop: Float[Array, ""]) -> Float[Array, "2"]:
    ends = jnp.stack([start, stop])
    if not isinstance(ends, Tracer) and start == stop:
        raise ValueError(f"{name} must be two different values, got {start} twice")
    return ends


def _checked_sizes(max_step, capacity) -> int:
    check_finite("max_step", max_step, positive=True)
    return check_count("capacity", capacity)


def _of_length(name: str, vector, theta: Magnetizations) -> Magnetizations:
    if vector.shape != theta.shape:
        raise ValueError(f"{name} must have shape {theta.shape}, got {vector.shape}")
    return jnp.asarray(vector, theta.dtype)


def _direction(theta: Magnetizations, toward) -> Place | None:
    """The first tangent, if a direction of m is given."""
    if toward is None:
        return None
    return jnp.append(_of_length("toward", toward, theta) / variance_at(theta), 0.0)


class _State(eqx.Module):
    place: Place
    tangent: Place
    step: Float[Array, ""]
    done: Bool[Array, ""]
    size: Int[Array, ""]
    places: Float[Array, "capacity n_plus_1"]
    tangents: Float[Array, "capacity n_plus_1"]


@eqx.filter_jit
def _follow(
    path: Path,
    theta: Magnetizations,
    toward: Place | None,
    max_step: Float[Array, ""],
    capacity: int,
) -> Branch:
    dtype = theta.dtype
    forward = jnp.zeros(theta.size + 1, dtype).at[-1].set(1.0)
    guess = jnp.append(theta, 0.0)
    place, met = correct(path, guess, forward, tolerance(guess))
    if toward is None:
        tangent = tangent_at(path, place, forward)
    else:
        tangent = toward / jnp.sqrt(inner(toward, toward, metric_at(place)))
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
    return _branch(path, end, result)


def _branch(path: Path, end: _State, result: Codes) -> Branch:
    """The points of a branch, each with its free energy and its curvatures."""
    dtype = end.places.dtype

    def describe(place):
        eigenvalues = jnp.linalg.eigvalsh(path.hessian(place))
        n_unstable = jnp.sum(eigenvalues < 0).astype(dtype)
        return jnp.stack([path.free_energy(place), eigenvalues[0], n_unstable])

    used = jnp.arange(len(end.places)) < end.size
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


def _step(path: Path, forward: Place, max_step: Float[Array, ""], state: _State) -> _State:
    """Predict along the tangent, correct, and take the point if the curve did not bend much."""
    weights = metric_at(state.place)
    t, rate = state.place[-1], state.tangent[-1]
    leaves = jnp.abs(t + state.step * rate - 0.5) > 0.5
    end = jnp.where(rate > 0, 1.0, 0.0)
    step = jnp.where(leaves, (end - t) / jnp.where(rate == 0, 1.0, rate), state.step)
    guess = state.place + step * state.tangent
    guess = guess.at[-1].set(jnp.where(leaves, end, guess[-1]))
    border = jnp.where(leaves, forward, weights * state.tangent)
    place, met = correct(path, guess, border, tolerance(guess))
    tangent = tangent_at(path, place, weights * state.tangent)
    shift = place - guess
    near = inner(shift, shift, weights) <= step**2
    cosine = inner(tangent, state.tangent, jnp.sqrt(weights * metric_at(place)))
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
