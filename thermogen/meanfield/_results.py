"""Result codes of the search for a stationary point of a free energy."""

from .. import _solution
from .._codes import code


class RESULTS(_solution.RESULTS):
    """Result codes of all rooms, and those of stationary points."""

    stalled = code(
        "The gradient stayed above the tolerance. Start elsewhere, allow the solver more steps, "
        "or work in float64 (jax.config.update('jax_enable_x64', True))."
    )
    saddle = code(
        "A stationary point was met, but it is not a minimum: some direction has curvature <= 0. "
        "Start from a point that is not symmetric, for example by adding small noise."
    )
    marginal = code(
        "A stationary point so flat that its lowest curvature cannot be told from 0: a "
        "bifurcation, within the precision of these numbers. Its magnetizations are known only as "
        "well as the flatness allows, and their derivatives are infinite. Move beta or the "
        "couplings off the bifurcation, or follow the branch with `meanfield.follow_beta`."
    )
    left_domain = code(
        "The solver left the domain: its effective fields are no longer finite, although energy "
        "and beta are. Use the default solver, which cannot, or start nearer to the minimum."
    )
