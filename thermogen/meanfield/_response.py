"""Linear response of a solution, and whether the expansion behind it can be believed there."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_memory
from .._linalg import inverse
from .._placement import from_anywhere
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy
from ._base import AbstractFunctional, Problem, checked_point, entropy, width_at
from ._plefka import Plefka, expansion_term
from ._solve import checked_beta


@from_anywhere
def susceptibility(
    functional: AbstractFunctional, energy: AbstractEnergy, beta: Beta, m: Magnetizations
) -> Float[Array, "n n"]:
    """Response `dm_i/dh_j` of the magnetizations to fields, at a minimum m of G.

    The inverse of `d^2 G/dm dm`. Divided by beta it is the linear-response estimate of the
    connected correlations `<s_i s_j> - <s_i><s_j>`, which for the exact G, and for `Bethe` on a
    tree, is no estimate.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        beta: inverse temperature.
        m: magnetizations inside (-1, 1), shape `(n,)`, as found by `solve`.

    Returns:
        Shape `(n, n)`, per unit of energy; symmetric. Not finite, or not positive definite, where
        m is no minimum.

    Raises:
        ValueError: for a beta that is not positive, or m of wrong shape or outside the cube.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})

        # On a tree the linear response of the Bethe free energy is exact.
        response = tg.susceptibility(tg.Bethe(), energy, 0.5, jnp.zeros(3))
        assert jnp.allclose(response, 0.5 * tg.exact.correlations(energy, 0.5), atol=1e-5)
        ```
    """
    m = checked_point(energy, m)
    return _response(functional, energy, checked_beta(beta, m.dtype), m)


@eqx.filter_jit
def _response(functional, energy, beta, m):
    """One program in place of some ninety."""
    theta = jnp.arctanh(m)
    root = jnp.asarray(width_at(theta))
    response = inverse(Problem(functional, energy, beta).scaled_hessian(theta))
    return 0.5 * beta * (response + response.T) * jnp.outer(root, root)


class Validity(NamedTuple):
    """Indicators of how far a mean-field state can be believed.

    Attributes:
        stability: de Almeida and Thouless' criterion, `1 - max eigenvalue of beta^2 V (K o K) V`
            with K the Hessian of the mean energy (the couplings, if pairwise) and V = diag(v).
            Below 0 the expansion about this state does not converge (Plefka 1982).
        second_order: `|Onsager term| / |U - TS|`, the size of the second order beside the first.
        next_order: the first term that the functional leaves out, on the same scale: of the
            next order for `Plefka` up to 3; else what the functional adds to second order.
    """

    stability: Float[Array, ""]
    second_order: Float[Array, ""]
    next_order: Float[Array, ""]


@from_anywhere
def validity(
    functional: AbstractFunctional, energy: AbstractEnergy, beta: Beta, m: Magnetizations
) -> Validity:
    """Indicators of trust at magnetizations m; see `Validity`.

    Args:
        functional: the free energy.
        energy: a multilinear energy of n spins.
        beta: inverse temperature.
        m: magnetizations, shape `(n,)`.

    Raises:
        TypeError: if the energy has no rule for the order that is asked for.
        ValueError: for a beta that is not positive, or m of wrong shape or outside the cube.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        trust = tg.meanfield.validity(tg.NaiveMeanField(), pair, 0.5, jnp.zeros(2))

        assert jnp.isclose(trust.stability, 1 - 0.5**2)
        ```
    """
    m = checked_point(energy, m)
    beta = checked_beta(beta, m.dtype)
    check_memory(f"the Hessian of {m.size} spins", 3 * m.dtype.itemsize * m.size**2)
    v = 1 - m * m
    scaled = beta**2 * v[:, None] * jnp.square(jax.hessian(energy)(m)) * v[None, :]
    stability = 1 - jnp.linalg.eigvalsh(scaled)[-1]
    # What the functional factorises must not run at the same time.
    m = jnp.where(jnp.isnan(stability), jnp.nan, m)
    first = jnp.abs(energy(m) - entropy(m) / beta)
    onsager = expansion_term(energy, beta, m, 2)
    if isinstance(functional, Plefka) and functional.order < 4:
        left_out = expansion_term(energy, beta, m, functional.order + 1)
    else:
        left_out = functional.excess(energy, beta, m) - energy(m) - onsager
    return Validity(stability, jnp.abs(onsager) / first, jnp.abs(left_out) / first)
