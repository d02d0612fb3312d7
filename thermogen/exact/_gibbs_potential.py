"""The exact free energy at fixed magnetizations, and the fields that hold them there."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .._checks import as_array, as_float
from .._linalg import dot
from .._placement import from_anywhere
from .._solution import raise_where
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy
from ..walsh import transform_every_spin
from ._ensembles import checked_beta, energies

# Values of the empty product and of "spin k is down" (rows) at s_k = -1 and +1 (columns).
_DOWN = np.array([[1, 1], [1, 0]])

# A Newton step in the fields, which count in units of T: below the first length the next steps
# converge quadratically, above the second it may lead anywhere.
_SHORT, _LONG = 0.1, 0.5
_N_POLISH = 8
_MAX_STEPS = 1000


@from_anywhere
def gibbs_potential(energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
    """The exact free energy at fixed magnetizations, convex in m, in energy units.

    `G(m) = max_h [ h . m - T ln sum_i exp(-beta (E_i - h . s_i)) ]`, a concave problem in the
    fields h. Its solution is known at infinite temperature and followed from there to beta, by
    Newton steps. Derivatives are implicit, to any order: `dG/dm = h`, and the second derivative
    is the inverse susceptibility.

    Where beta E is so large that the ensemble at m has no weight in double precision outside a
    plane of the cube, the fields across that plane are not determined; G is.

    Args:
        energy: an energy of n <= 24 spins.
        beta: inverse temperature.
        m: magnetizations inside (-1, 1), shape `(n,)`; tested up to |m| = 1 - 1e-6.

    Raises:
        ValueError: if m has the wrong shape or leaves the open cube, or beta is not positive.
        RuntimeError: if the fields are not found.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        # Without a field the magnetizations are 0, and G is the free energy there.
        potential = tg.exact.gibbs_potential(energy, 1.0, jnp.zeros(3))
        assert jnp.isclose(potential, tg.exact.free_energy(energy, 1.0))
        ```
    """
    checked_beta(beta, positive=True)
    m = as_float(as_array("m", m))
    if m.shape != (energy.n_spins,):
        raise ValueError(f"m must have shape ({energy.n_spins},), got {m.shape}")
    if not isinstance(m, Tracer) and not jnp.all(jnp.abs(m) < 1):
        raise ValueError("m must lie inside the open cube, -1 < m < 1")
    dtype = jnp.result_type(float)
    logits = (-beta * energies(energy)).astype(dtype)
    return (_legendre(logits, m.astype(dtype)) / beta).astype(m.dtype)


@jax.custom_jvp
def _legendre(logits: Float[Array, " configurations"], m: Float[Array, " n"]) -> Float[Array, ""]:
    """`max_x [ x . m - ln sum_i exp(logits_i + x . s_i) ]`."""
    x = _dual_fields(logits, m)
    return dot(x, m) - jax.nn.logsumexp(logits + _additive(x))


@_legendre.defjvp
def _(primals, tangents):
    """The envelope theorem: the fields do not move to first order."""
    (logits, m), (logits_dot, m_dot) = primals, tangents
    x = _dual_fields(logits, m)
    tilted = logits + _additive(x)
    slope = dot(x, m_dot) - dot(jax.nn.softmax(tilted), logits_dot)
    return dot(x, m) - jax.nn.logsumexp(tilted), slope


@jax.custom_jvp
def _dual_fields(logits: Float[Array, " configurations"], m: Float[Array, " n"]):
    """The fields x, in units of T, under which the magnetizations are m."""
    mask, sign = _gauge(m)
    x, converged = _follow(logits[mask], sign * m)
    message = "gibbs_potential did not converge: the fields that hold m were not found"
    if isinstance(converged, Tracer) and jax.device_count() == 1:
        return eqx.error_if(sign * x, ~converged, message)
    raise_where(~converged, lambda: message)
    return sign * x


@_dual_fields.defjvp
def _(primals, tangents):
    (logits, m), (logits_dot, m_dot) = primals, tangents
    x = _dual_fields(logits, m)
    mask, sign = _gauge(m)
    log_p = jax.nn.log_softmax(logits[mask] + _additive(sign * x))
    response = _response(log_p)
    x_dot = response.fields(sign * m_dot - response.covariances(logits_dot[mask]))
    return x, sign * x_dot


def _gauge(m: Float[Array, " n"]) -> tuple[Int[Array, " configurations"], Float[Array, " n"]]:
    """Flip the spins of negative m, so that all are mostly up.

    What is small near a corner of the cube, the chance to be down, is then computed as it is and
    not as the difference of a magnetization and 1.
    """
    down = m < 0
    mask = jnp.sum(jnp.where(down, 1 << np.arange(m.size), 0))
    return jnp.arange(2**m.size) ^ mask, jnp.where(down, -1.0, 1.0).astype(m.dtype)


class _Response(NamedTuple):
    """Linear response of an ensemble of spins: first moments and covariances of "is down"."""

    p: Float[Array, " configurations"]
    down: Float[Array, " n"]
    covariance: Float[Array, "n n"]
    ridge: Float[Array, ""]

    def covariances(self, values: Float[Array, " configurations"]) -> Float[Array, " n"]:
        """Covariance of every spin with an observable."""
        weighted = self.p * (values - dot(self.p, values))
        return -2 * _down_moments(weighted)[_single(self.down.size)]

    def fields(self, change: Float[Array, " n"]) -> Float[Array, " n"]:
        """The change of fields that changes the magnetizations as given."""
        scale = jax.lax.stop_gradient(jnp.sqrt(jnp.diagonal(self.covariance)))
        scale = jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)
        scaled = self.covariance / jnp.outer(scale, scale)
        ridge = self.ridge * jnp.eye(scale.size, dtype=scale.dtype)
        return 0.25 * jnp.linalg.solve(scaled + ridge, change / scale) / scale


def _response(log_p: Float[Array, " configurations"]) -> _Response:
    p = jnp.exp(log_p)
    moments = _down_moments(p)
    single = _single(p.size.bit_length() - 1)
    down = moments[single]
    covariance = moments[single[:, None] | single] - jnp.outer(down, down)
    # Variances below the rounding errors of the probabilities are no variances.
    ridge = 10 * jnp.finfo(p.dtype).eps * (1 - jnp.min(log_p))
    return _Response(p, down, covariance, jax.lax.stop_gradient(ridge))


class _Path(NamedTuple):
    """A point on the way from infinite temperature (scale 0) to the given one (scale 1).

    Attributes:
        scale: factor of the logits.
        x: fields, predicted or on their way to converge at that scale.
        base: the last scale where they converged, the fields, and their derivative by ln scale.
        stride: relative growth of the scale in one step.
        n_polish: Newton steps that were taken at scale 1 since they converged.
        n_steps: evaluations so far.
    """

    scale: Float[Array, ""]
    x: Float[Array, " n"]
    base: tuple[Float[Array, ""], Float[Array, " n"], Float[Array, " n"]]
    stride: Float[Array, ""]
    n_polish: Int[Array, ""]
    n_steps: Int[Array, ""]


def _follow(
    logits: Float[Array, " configurations"], m: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """Fields x with `<s> = m >= 0`, followed from those of independent spins, and success.

    Predictor and corrector in the logarithm of the scale: the weights of a cold ensemble stay
    where they are when logits and fields grow together.
    """
    chance = 0.5 * (1 - m)
    start = jnp.minimum(1, 0.2 / (jnp.max(logits) - jnp.min(logits)))
    x = jnp.arctanh(m)

    def more(path: _Path):
        return (path.n_polish < _N_POLISH) & (path.n_steps < _MAX_STEPS)

    def advance(path: _Path) -> _Path:
        log_p = jax.nn.log_softmax(path.scale * logits + _additive(path.x))
        response = _response(log_p)
        corrected = path.x + response.fields(2 * (response.down - chance))
        length = jnp.max(jnp.abs(corrected - path.x))
        short = length < _SHORT
        correct = ~short & (length < _LONG)
        # p ln p is 0 where p underflows.
        tangent = corrected - response.fields(
            response.covariances(jnp.where(response.p > 0, log_p, 0))
        )
        base = _where(short, (path.scale, corrected, tangent), path.base)
        stride = jnp.where(
            short, jnp.minimum(1, 2 * path.stride), path.stride / jnp.where(correct, 1, 4)
        )
        ahead = jnp.minimum(1, base[0] * (1 + stride))
        predicted = base[1] + (ahead / base[0] - 1) * base[2]
        return _Path(
            jnp.where(correct, path.scale, ahead),
            jnp.where(correct, corrected, predicted),
            base,
            stride,
            path.n_polish + (short & (path.scale == 1)),
            path.n_steps + 1,
        )

    # So near to infinite temperature the fields of independent spins need a short step at most.
    first = _Path(start, x, (start, x, jnp.zeros_like(x)), jnp.ones_like(start), *jnp.zeros(2, int))
    path = jax.lax.while_loop(more, advance, first)
    return path.x, path.n_polish == _N_POLISH


def _where(condition: Bool[Array, ""], new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _down_moments(values: Float[Array, " configurations"]) -> Float[Array, " masks"]:
    """Sum of the values over the configurations in which all spins of a set are down."""
    return transform_every_spin(values, _DOWN)


def _single(n: int) -> np.ndarray:
    """Bit masks of the sets of one spin."""
    return 1 << np.arange(n)


def _additive(x: Float[Array, " n"]) -> Float[Array, " configurations"]:
    """`sum_k x_k s_k` for every configuration."""
    table = jnp.zeros(1, x.dtype)
    for k in range(x.size):
        table = jnp.concatenate([table - x[k], table + x[k]])
    return table
