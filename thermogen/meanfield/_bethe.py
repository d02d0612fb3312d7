"""The Bethe free energy: exact on trees, an expansion about independent factors elsewhere."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._linalg import dot
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy, terms_for
from ._base import AbstractFunctional, variance_at

# Steps in the bracket of a factor's equation; bisection alone needs about 60.
_MAX_STEPS = 128
# Spins of an interaction over which loops are written out.
_UNROLLED = 6


class Bethe(AbstractFunctional):
    """The Bethe free energy at given magnetizations, for energies that are lists of interactions.

    `G(m) = -h . m - S/beta + sum_a g_a(m_a)`, where `g_a` is the exact excess of one interaction
    alone at the magnetizations of its spins: the beliefs of every factor are those that minimise
    the Bethe free energy (Yedidia, Freeman and Weiss 2005) at fixed marginals. Its stationary
    points are the fixed points of belief propagation, so that `solve`, which descends this
    function, is the convergent (double-loop) form; `belief_propagation` passes messages first.
    Exact where the graph of interactions is a tree; elsewhere it bounds nothing. G and its
    gradient by m are right at any coupling; second derivatives and those by the couplings lose
    digits as exp(2 beta |J|) and want beta |J| below about 12 in float64, 5 in float32.

    Raises:
        TypeError: at the call, for an energy without `thermogen.energies.terms`.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})

        assert jnp.isclose(tg.Bethe()(energy, 0.5, jnp.zeros(3)), tg.exact.free_energy(energy, 0.5))
        ```
    """

    def excess(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        total = jnp.zeros((), m.dtype)
        for sets, couplings in factors(energy):
            spins = m[sets]
            if sets.shape[1] < 2:
                total -= dot(couplings, jnp.prod(spins, axis=1))
            else:
                total += jnp.sum(jax.vmap(factor_excess)(beta * couplings, spins)) / beta
        return total


def factors(energy: AbstractEnergy) -> list[tuple[np.ndarray, Float[Array, " terms"]]]:
    """Spins `(n_terms, p)` and couplings `(n_terms,)` of all terms, grouped by order p.

    Raises:
        TypeError: for an energy without `terms`.
    """
    listed = terms_for("Bethe", energy)
    return [(t.indices, c) for t, c in zip(listed.sets, listed.couplings, strict=True)]


# One factor: p spins with weights exp(K prod s). Held at magnetizations m it feels the fields x
# of the rest, and answers with the messages u(x), such that artanh m = x + u.


@jax.custom_jvp
def factor_excess(k: Float[Array, ""], m: Float[Array, " p"]) -> Float[Array, ""]:
    """Exact `beta G + S` of p >= 2 spins with the weight `exp(k prod s)`, at magnetizations m."""
    return _excess_from(k, m, factor_messages(k, m))


@factor_excess.defjvp
def _(primals, tangents):
    """At fixed m the cavity fields are stationary: the slopes are -u and -<prod s>."""
    (k, m), (k_dot, m_dot) = primals, tangents
    u = factor_messages(k, m)
    t, no_overlap = _cavity(m, u)
    product = (jnp.tanh(k) + jnp.prod(t)) * no_overlap[0] / variance_at(u)[0]
    # From the same messages, so that they are found once.
    return _excess_from(k, m, u), -product * k_dot - dot(u, m_dot)


def _excess_from(
    k: Float[Array, ""], m: Float[Array, " p"], u: Float[Array, " p"]
) -> Float[Array, ""]:
    # ln (1 + tanh k prod_j t_j), t the tanh of the cavity fields; from any of the spins.
    log_norm = -2 * _log_cosh(u[0]) - jnp.log(_cavity(m, u)[1][0])
    entropy = jnp.sum(_log_cosh(u) - u * m)
    return entropy + (m.size - 1) * log_norm - _log_cosh(k)


@jax.custom_jvp
def factor_messages(k: Float[Array, ""], m: Float[Array, " p"]) -> Float[Array, " p"]:
    """The fields `u` that a factor exerts on its spins while these are held at m."""
    limit = 1 - 0.5 * jnp.finfo(m.dtype).eps
    theta = jnp.arctanh(jnp.clip(m, -limit, limit))
    # All spins are flipped upward, and sorted.
    sign = jnp.where(theta < 0, -1.0, 1.0).astype(m.dtype)
    k, theta = k * jnp.prod(sign), jnp.abs(theta)
    if m.size == 2:
        # Without the sort and the scatter that many need.
        turned = theta[0] > theta[1]
        u = outgoing(k, _cavity_fields_of_two(k, jnp.where(turned, theta[::-1], theta)))
        return sign * jnp.where(turned, u[::-1], u)
    order = jnp.argsort(theta)
    x = _cavity_fields(k, theta[order])
    return sign * jnp.zeros_like(m).at[order].set(outgoing(k, x))


def _cavity_fields_of_two(k: Float[Array, ""], theta: Float[Array, "2"]) -> Float[Array, "2"]:
    """Cavity fields x of a pair, from its chances to disagree; `0 <= theta[0] <= theta[1]`.

    The second spin is up mostly. With the first one flipped if k < 0, so that they favour to
    agree, the chances obey `p(+-) p(-+) = exp(-4|k|) p(++) p(--)`: a quadratic equation.
    """
    sign = jnp.where(k < 0, -1.0, 1.0).astype(k.dtype)
    k, theta = jnp.abs(k), theta * jnp.stack([sign, jnp.ones_like(sign)])
    (up, _), (down, second_down) = jax.nn.sigmoid(2 * theta), jax.nn.sigmoid(-2 * theta)
    ratio, excess = jnp.exp(-4 * k), down - second_down
    linear = excess + ratio * (up + second_down)
    product = ratio * up * second_down
    # The first is up and the second down; then the reverse; then both up.
    rare = 2 * product / (linear + jnp.sqrt(linear**2 + 4 * (1 - ratio) * product))
    reverse, both = rare + excess, up - rare
    x = 0.5 * jnp.log(both / jnp.stack([reverse, rare])) - k
    return x * jnp.stack([sign, jnp.ones_like(sign)])


def _cavity_fields(k: Float[Array, ""], theta: Float[Array, " p"]) -> Float[Array, " p"]:
    """Cavity fields x of three spins and more; `theta = x + u` is sorted and not negative.

    All spins share `cosh(x + u) / cosh(x - u)`. All but the least magnetized have |x| > |u|, so
    that this one number yields their x; these tell what the least magnetized receives, and a
    scalar equation closes: one root, in a known bracket.
    """
    least, second, rest = theta[0], theta[1], theta[2:]

    def fields(apart):
        """Fields x of all spins; `apart` is x - u of the second."""
        shared = _box_plus(0.5 * (second + apart), 0.5 * (second - apart))
        of_rest = 0.5 * (rest + jax.vmap(_apart, in_axes=(0, None))(rest, shared))
        others = jnp.append(0.5 * (second + apart), of_rest)
        return jnp.append(least - _before(k, others)[-1], others)

    def mismatch(apart):
        """What the second spin receives, less what the others tell it; and the fields."""
        x = fields(apart)
        told = _before(k, jnp.append(x[0], x[2:]))[-1]
        return 0.5 * (second - apart) - told, x

    low = jnp.maximum(second - 2 * jnp.abs(k), 0)
    return _at_falling_root(mismatch, low, second + 2 * jnp.abs(k), theta)


def _at_falling_root(
    function: Callable[[Array], tuple[Array, Array]],
    low: Float[Array, ""],
    high: Float[Array, ""],
    like: Float[Array, " p"],
) -> Float[Array, " p"]:
    """What comes with a scalar function at its root, which is positive below and negative above it.

    Newton in a bracket.
    """

    def unfinished(state):
        low, high, _, step, n_steps, _ = state
        tolerance = jnp.finfo(low.dtype).eps * (1 + high)
        return (jnp.abs(step) > tolerance) & (high - low > tolerance) & (n_steps < _MAX_STEPS)

    def advance(state):
        low, high, x, step, n_steps, _ = state
        value, slope, beside = jax.jvp(function, (x,), (jnp.ones_like(x),), has_aux=True)
        low, high = jnp.where(value > 0, x, low), jnp.where(value > 0, high, x)
        newton = x - value / jnp.where(slope == 0, 1, slope)
        # Bisect where Newton leaves the bracket or does not at least halve its last step.
        slow = (jnp.abs(newton - x) > 0.5 * jnp.abs(step)) & (n_steps > 2)
        inside = (low <= newton) & (newton <= high)
        new = jnp.where(inside & ~slow, newton, 0.5 * (low + high))
        return low, high, new, new - x, n_steps + 1, beside

    start = (low, high, 0.5 * (low + high), high - low + 1, 0, like)
    return jax.lax.while_loop(unfinished, advance, start)[-1]


@jax.custom_jvp
def _apart(theta: Float[Array, ""], shared: Float[Array, ""]) -> Float[Array, ""]:
    """x - u >= 0 of a spin with `x + u = theta >= 0` and `x [+] u = shared`, [+] the box plus.

    `cosh(x - u) = cosh(theta) exp(-2 shared)`; by sinh where that is close to 1.
    """
    near, step = jnp.minimum(theta, 1.0), jnp.clip(-4 * shared, -4.0, 4.0)
    square = jnp.sinh(near) ** 2 * jnp.exp(step) + jnp.expm1(step)
    by_sinh = jnp.arcsinh(jnp.sqrt(jnp.maximum(square, 0)))
    level = jnp.maximum(_log_cosh(theta) - 2 * shared, 0)
    by_cosh = level + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * level)))
    return jnp.where((theta < 1) & (jnp.abs(shared) < 1), by_sinh, by_cosh)


@_apart.defjvp
def _(primals, tangents):
    apart = _apart(*primals)
    return apart, (jnp.tanh(primals[0]) * tangents[0] - 2 * tangents[1]) / jnp.tanh(apart)


@factor_messages.defjvp
def _(primals, tangents):
    """Implicit: `u = outgoing(k, x)` and `x = artanh m - u`, written so that |m| = 1 is regular."""
    (k, m), (k_dot, m_dot) = primals, tangents
    u = factor_messages(k, m)
    t, no_overlap = _cavity(m, u)
    soft = variance_at(u)
    by_t = jnp.tanh(k) * _products_of_other_pairs(t) / soft[:, None]
    by_k = variance_at(k[None])[0] * _products_of_others(t) / soft
    d = (1 - m * m) * soft / no_overlap**2
    push = soft / no_overlap**2 * m_dot - d * by_k * k_dot
    t_dot = dot(_inverse(jnp.eye(m.size, dtype=m.dtype) + d[:, None] * by_t), push)
    return u, dot(by_t, t_dot) + by_k * k_dot


@jax.custom_jvp
def _inverse(matrix: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Inverse of a positive definite matrix whose rows are scaled, by elimination.

    It needs no pivots, and no LAPACK: many factors at a time are one vectorised program.
    """
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)

    def eliminate(i, system):
        row = system[i] / system[i, i]
        return (system - system[:, i][:, None] * row[None, :]).at[i].set(row)

    system = jnp.concatenate([matrix, eye], axis=1)
    return jax.lax.fori_loop(0, len(matrix), eliminate, system)[:, len(matrix) :]


@_inverse.defjvp
def _(primals, tangents):
    inverse = _inverse(primals[0])
    return inverse, -dot(inverse, dot(tangents[0], inverse))


def outgoing(k: Float[Array, ""], x: Float[Array, " p"]) -> Float[Array, " p"]:
    """Messages of belief propagation, `artanh(tanh k prod_{j != i} tanh x_j)`, at any size."""
    before, after = _before(k, x)[:-1], _before(x[-1], x[:-1][::-1])[:-1][::-1]
    return jnp.append(jax.vmap(_box_plus)(before[:-1], after), before[-1])


def _before(k: Float[Array, ""], x: Float[Array, " p"]) -> Float[Array, " p_plus_1"]:
    """Box plus of k and the first 0, 1, ..., p of the fields x."""

    def add(total, field):
        return _box_plus(total, field), total

    # A loop where there are many: unrolled, they would compile for minutes.
    total, before = jax.lax.scan(add, k, x, unroll=x.size <= _UNROLLED)
    return jnp.append(before, total)


@jax.custom_jvp
def _box_plus(a: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    """`artanh(tanh a tanh b)`, right where the tanh would round to 1 and where all is small."""
    product = jnp.tanh(a) * jnp.tanh(b)
    small = jnp.arctanh(jnp.clip(product, -0.5, 0.5))
    large = 0.5 * (_log_cosh(a + b) - _log_cosh(a - b))
    return jnp.where(jnp.abs(product) < 0.5, small, large)


@_box_plus.defjvp
def _(primals, tangents):
    (a, b), (a_dot, b_dot) = primals, tangents
    together, apart = jnp.tanh(a + b), jnp.tanh(a - b)
    return _box_plus(a, b), 0.5 * (together * (a_dot + b_dot) - apart * (a_dot - b_dot))


@jax.custom_jvp
def _log_cosh(x: Array) -> Array:
    x = jnp.abs(x)
    return x + jnp.log1p(jnp.exp(-2 * x)) - jnp.log(2.0).astype(x.dtype)


@_log_cosh.defjvp
def _(primals, tangents):
    # The derivatives of |x| at 0 are not those of ln cosh.
    return _log_cosh(primals[0]), jnp.tanh(primals[0]) * tangents[0]


def _cavity(
    m: Float[Array, " p"], u: Float[Array, " p"]
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """`t = tanh(artanh m - u)`, and `1 - m tanh u`; both also where m and tanh u round to 1."""
    sign = jnp.where(m < 0, -1.0, 1.0).astype(m.dtype)
    rest, gap = 1 - sign * m, 2 * jax.nn.sigmoid(-2 * sign * u)
    no_overlap = rest + sign * m * gap
    return sign * (gap - rest) / no_overlap, no_overlap


def _products_of_others(t: Float[Array, " p"]) -> Float[Array, " p"]:
    return jnp.prod(jnp.where(np.eye(t.size, dtype=bool), 1, t), axis=1)


def _products_of_other_pairs(t: Float[Array, " p"]) -> Float[Array, "p p"]:
    """`prod_{l != i, j} t_l` off the diagonal, 0 on it."""
    one = np.eye(t.size, dtype=bool)
    left_out = one[:, None, :] | one[None, :, :]
    return jnp.where(one, 0, jnp.prod(jnp.where(left_out, 1, t), axis=2))
