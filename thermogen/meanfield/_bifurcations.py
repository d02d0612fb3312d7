"""Bifurcations: points where a branch of stationary points of G turns or meets another."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._placement import from_anywhere
from .._types import Magnetizations
from ._base import variance_at
from ._continuation import Branch
from ._curve import Path, Place, correct, inner, metric_at, tangent_at, tolerance

# What counts as zero at a bifurcation, where all figures have no unit and are of order one.
_ZERO = 1e-5


class Bifurcation(NamedTuple):
    """A point where a branch turns or meets another branch.

    Attributes:
        kind: `"saddle-node"`, where two stationary points are born or die (a spinodal, if one of
            them is a minimum); `"pitchfork"`, where two branches leave, mirror images to leading
            order; `"transcritical"`, where another branch crosses.
        parameter: beta, or the strength of the field.
        magnetizations: m at the bifurcation, shape `(n,)`.
        free_energy: G at the bifurcation, in energy units.
        soft_mode: the direction of m in which G is flat, shape `(n,)`, of length 1.
        n_unstable: number of unstable directions before and after.
    """

    kind: str
    parameter: float
    magnetizations: np.ndarray
    free_energy: float
    soft_mode: np.ndarray
    n_unstable: tuple[int, int]


@from_anywhere
def bifurcations(branch: Branch) -> list[Bifurcation]:
    """Saddle-nodes, pitchforks and transcritical points on a branch, in the order of the branch.

    Between neighbouring points whose number of unstable directions differs, the eigenvalue that
    changed its sign is traced to its zero; a branch that turns without such a change does so in
    a pitchfork. Owns its loop and works in float64, whatever the JAX configuration. The point
    from which a branch was switched is not reported again. Two crossings of the same eigenvalue
    between neighbouring points go unseen: follow with a smaller `max_step`.

    Args:
        branch: one branch from `follow_beta` or `follow_field`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        branch = tg.meanfield.follow_beta(tg.NaiveMeanField(), pair, (0.8, 1.2), jnp.zeros(2))
        (point,) = tg.meanfield.bifurcations(branch)

        assert point.kind == "pitchfork" and jnp.isclose(point.parameter, 1.0, atol=1e-6)
        ```
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
            reach = float(inner(tangents[i], places[i + 1] - places[i], metric_at(places[i])))
            for k in crossing:
                step = _zero(path, places[i], tangents[i], reach, k)
                if i > 0 or step > _ZERO * reach:
                    place, tangent = _advance(path, places[i], tangents[i], jnp.asarray(step))
                    found.append(_describe(path, place, tangent, k, (before, after)))
        return found


@eqx.filter_jit
def _advance(
    path: Path, place: Place, tangent: Place, step: Float[Array, ""]
) -> tuple[Place, Place]:
    """The point of the branch at distance `step`, measured along the tangent, and its tangent."""
    border = metric_at(place) * tangent
    place, _ = correct(path, place + step * tangent, border, tolerance(place))
    return place, tangent_at(path, place, border)


@eqx.filter_jit
def _spectrum(path: Path, place: Place) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    return jnp.linalg.eigh(path.hessian(place))


def _zero(path: Path, place: Place, tangent: Place, reach: float, k: int) -> float:
    """Distance at which eigenvalue k, or for k = -1 the rate of the parameter, vanishes."""

    def value(step: float) -> float:
        near, turned = _advance(path, place, tangent, jnp.asarray(step))
        return float(turned[-1] if k < 0 else _spectrum(path, near)[0][k])

    low, high = value(0.0), value(reach)
    if low * high >= 0:  # one of the two is zero but for rounding
        return 0.0 if abs(low) < abs(high) else reach
    return scipy.optimize.root_scalar(value, bracket=(0.0, reach), xtol=1e-9 * reach).root


def _describe(
    path: Path, place: Place, tangent: Place, k: int, n_unstable: tuple[int, int]
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
def _local_form(path: Path, place: Place, mode: Magnetizations):
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
