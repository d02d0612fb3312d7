"""Free energies G(m) of the magnetizations, and what all of them share."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import entr
from jaxtyping import Array, Float

from .._checks import as_float, check_finite, check_memory, check_precision
from .._cold import free_entropy
from .._linalg import dot
from .._types import Beta, Magnetizations, Spins
from ..energies import AbstractEnergy


class AbstractFunctional(eqx.Module):
    """A free energy `G(m) = excess(m) - S(m)/beta` of n magnetizations, in energy units.

    S is the entropy of independent spins with means m; a functional says only what it adds to
    it. Solvers, Hessians and the library need no more than `excess` and its derivatives.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg


        class Naive(tg.AbstractFunctional):
            def excess(self, energy, beta, m):
                return energy(m)


        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        m = jnp.full(3, 0.4)

        assert jnp.isclose(Naive()(energy, 1.0, m), tg.NaiveMeanField()(energy, 1.0, m))
        ```
    """

    @abc.abstractmethod
    def excess(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        """`G(m) + S(m)/beta` in energy units: smooth up to and including |m| = 1."""

    def __call__(self, energy: AbstractEnergy, beta: Beta, m: Magnetizations) -> Float[Array, ""]:
        """Free energy G(m) in energy units.

        Args:
            energy: a multilinear energy of n spins.
            beta: inverse temperature, > 0.
            m: magnetizations in [-1, 1], shape `(n,)`.

        Raises:
            ValueError: for a beta that is not positive, or m of wrong shape or outside the cube.
        """
        m = checked_point(energy, m)
        check_finite("beta", beta, positive=True)
        dtype = jnp.result_type(m, *jax.tree.leaves(energy))
        return _value(self, energy, jnp.asarray(beta, dtype), m)


@eqx.filter_jit
def _value(
    functional: AbstractFunctional, energy: AbstractEnergy, beta: Beta, m: Magnetizations
) -> Float[Array, ""]:
    """One program: operation by operation a first call compiles a hundred."""
    return functional.excess(energy, beta, m) - entropy(m) / beta


def checked_point(energy: AbstractEnergy, m: Spins, name: str = "m") -> Magnetizations:
    """Magnetizations of all spins as a floating array.

    They must lie in the cube, and the energy must be of a dtype in which functionals compute.
    """
    check_precision(energy)
    if jnp.shape(m) != (energy.n_spins,):
        raise ValueError(
            f"{name} must have shape ({energy.n_spins},), got {jnp.shape(m)}; use jax.vmap for many"
        )
    if not isinstance(m, Tracer) and not np.all(np.abs(np.asarray(m)) <= 1):
        raise ValueError(f"{name} must hold magnetizations within [-1, 1]")
    return as_float(m)


def entropy(m: Magnetizations) -> Float[Array, ""]:
    """Entropy in nats of independent spins with means m, shape `(n,)`; 0 at |m| = 1.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        assert jnp.isclose(tg.meanfield.entropy(jnp.zeros(3)), 3 * jnp.log(2.0))
        assert tg.meanfield.entropy(jnp.ones(3)) == 0
        ```
    """
    return jnp.sum(entr(0.5 * (1 + m)) + entr(0.5 * (1 - m)))


# Close to saturation m = tanh(theta) rounds to +-1 while theta still tells everything. Whatever
# must be right there is a function of the effective field theta.


def entropy_at(theta: Magnetizations) -> Float[Array, ""]:
    """`entropy(tanh(theta))` without loss of precision for large |theta|."""
    return jnp.sum(free_entropy(theta))


def variance_at(theta: Magnetizations) -> Magnetizations:
    """`1 - tanh(theta)^2` per spin without loss of precision for large |theta|."""
    x = 2 * jnp.abs(theta)
    return 4 * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


@jax.custom_jvp
def width_at(theta: Magnetizations) -> Magnetizations:
    """`sqrt(1 - tanh(theta)^2)` per spin, with its derivatives where the square underflows."""
    rare = jnp.exp(-jnp.abs(theta))
    return 2 * rare / (1 + rare * rare)


@width_at.defjvp
def _(primals, tangents):
    width = width_at(primals[0])
    return width, -width * jnp.tanh(primals[0]) * tangents[0]


class Taylor(NamedTuple):
    """G about a point m = tanh(theta), to second order.

    Attributes:
        value: G(m) in energy units.
        gradient: `dG/dm`, shape `(n,)`.
        curvature: second derivatives of G + S/beta by m, shape `(n, n)`.
    """

    value: Float[Array, ""]
    gradient: Magnetizations
    curvature: Float[Array, "n n"]


class Problem(eqx.Module):
    """The free energy G(m) of one energy at one inverse temperature, as a function to minimise.

    Whatever must be right close to saturation is a function of the effective field theta, at
    m = tanh(theta). A pytree: it jits, vmaps and differentiates.

    Attributes:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        problem = tg.meanfield.Problem(tg.NaiveMeanField(), energy, 0.25)
        assert not jnp.any(problem.gradient(jnp.zeros(3)))
        ```
    """

    functional: AbstractFunctional
    energy: AbstractEnergy
    beta: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def free_energy(self, m: Magnetizations) -> Float[Array, ""]:
        """G(m) in energy units."""
        return self.functional(self.energy, self.beta, m)

    def gradient(self, m: Magnetizations) -> Magnetizations:
        """`dG/dm` in energy units, shape `(n,)`; infinite at |m| = 1."""
        return self.gradient_at(jnp.arctanh(m))

    def excess(self, m: Magnetizations) -> Float[Array, ""]:
        """`G(m) + S(m)/beta` in energy units."""
        return self.functional.excess(self.energy, self.beta, m)

    def free_energy_at(self, theta: Magnetizations) -> Float[Array, ""]:
        """G at m = tanh(theta), in energy units."""
        return self.excess(jnp.tanh(theta)) - entropy_at(theta) / self.beta

    def gradient_at(self, theta: Magnetizations) -> Magnetizations:
        """`dG/dm` at m = tanh(theta), shape `(n,)`; zero at a stationary point."""
        return theta / self.beta + jax.grad(self.excess)(jnp.tanh(theta))

    def residual(self, theta: Magnetizations) -> Magnetizations:
        """`beta dG/dm` at m = tanh(theta): how far theta is from its own fixed-point equation."""
        return theta + self.beta * jax.grad(self.excess)(jnp.tanh(theta))

    def taylor(self, theta: Magnetizations) -> Taylor:
        """G, its gradient and its curvature at m = tanh(theta), from one evaluation.

        Each by itself would compile the functional once more, and what it factorises would run at
        the same time.

        Raises:
            ValueError: if this machine has no memory for matrices of n x n.
        """
        check_memory(f"the Hessian of {theta.size} spins", 2 * theta.dtype.itemsize * theta.size**2)

        def slope(m):
            value, gradient = jax.value_and_grad(self.excess)(m)
            return gradient, (value, gradient)

        curvature, (value, gradient) = jax.jacfwd(slope, has_aux=True)(jnp.tanh(theta))
        value, gradient = value - entropy_at(theta) / self.beta, theta / self.beta + gradient
        return Taylor(value, gradient, curvature)

    def scaled_hessian(self, theta: Magnetizations) -> Float[Array, "n n"]:
        """`scaled_hessian` at m = tanh(theta), shape `(n, n)`."""
        return scaled_hessian(self.taylor(theta), theta, self.beta)


def scaled_hessian(taylor: Taylor, theta: Magnetizations, beta: Beta) -> Float[Array, "n n"]:
    """`beta sqrt(v_i) (d^2 G / dm_i dm_j) sqrt(v_j)` at m = tanh(theta), shape `(n, n)`.

    It has the signs of the Hessian's eigenvalues, without the 1/v that makes the Hessian itself
    useless at saturation: for independent spins it is the identity.
    """
    root = width_at(theta)
    scaled = beta * root[:, None] * taylor.curvature * root[None, :]
    return jnp.eye(theta.size, dtype=theta.dtype) + 0.5 * (scaled + scaled.T)


def lowest_curvature(
    scaled_hessian: Float[Array, "n n"], theta: Magnetizations, beta: Beta
) -> Float[Array, ""]:
    """Lowest eigenvalue of `d^2 G/dm dm` in energy units, from the scaled Hessian.

    At a minimum it is one over the largest eigenvalue of the susceptibility, which is
    well-conditioned where the Hessian is not. It is 0 where rounding hides its sign, or the
    place of a marginal minimum is not known well enough to tell it, and minus infinity where it
    is negative.
    """
    root = jnp.sqrt(variance_at(theta))
    values, vectors = jnp.linalg.eigh(scaled_hessian)
    half = root[:, None] * vectors / jnp.sqrt(jnp.where(values > 0, values, 1.0))[None, :]
    susceptibility = dot(beta * half, half.T)
    lowest = jnp.where(values[0] > 0, 1 / jnp.linalg.eigvalsh(susceptibility)[-1], -jnp.inf)
    eps = jnp.finfo(values.dtype).eps
    hidden = (values[0] <= 8 * eps * jnp.max(jnp.abs(values))) & (values[0] >= -8 * eps**0.5)
    return jnp.where(hidden, 0.0, lowest)
