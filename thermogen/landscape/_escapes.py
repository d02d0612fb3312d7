"""Escape times over saddles: the rate theory of Kramers and Langer for heat-bath dynamics."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._cold import log_sum
from .._linalg import log_abs_det, lowest_eigenvalue
from .._placement import from_anywhere
from .._types import Beta, Magnetizations
from ..energies import AbstractEnergy
from ..meanfield import AbstractFunctional, Plefka, Problem, checked_problem
from ._barriers import Barriers
from ._follow import Followed
from ._heights import check_rows, passes


@from_anywhere
def log_escape_times(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    barriers: Barriers,
    states: Followed,
    saddles: Followed,
) -> Float[Array, " K"]:
    """Logarithm of the mean time in sweeps in which heat-bath dynamics leaves each state, `(K,)`.

    The rate over a saddle is `lambda/(2 pi) sqrt(det H / |det H_saddle|) exp(-beta (G_saddle - G))`
    (Langer, Ann. Phys. 54, 258 (1969); Hanggi, Talkner and Borkovec, Rev. Mod. Phys. 62, 251
    (1990)), summed over all saddles that lead out of the state, mirror images counted. Between
    flips `dm/dt = tanh(theta) - m` is a descent of beta G with the mobility v = 1 - m^2, the noise
    of which is that of the flips. So H is the Hessian of beta G in the angles arcsin m, and lambda
    minus its negative eigenvalue. Naive mean field leaves out fluctuations, which the
    determinants put back; a functional that holds some of them would count them twice, and is
    refused: for it `beta * minimax_heights(...).barriers` is the estimate of Arrhenius.

    It is right where mean field is: on complete graphs, and wherever many spins move in a few
    directions, up to a factor 1 + O(1/n), for barriers well above 1/beta. Elsewhere it is an
    estimate: `python -m experiments escape_times` measures it. Two states that exchange relax at
    the sum of their rates. Jits, vmaps and differentiates, to any order.

    Args:
        functional: `NaiveMeanField()`, with which all was found.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        barriers: what `thermogen.barriers` found for a library.
        states: that library, followed to this energy and beta.
        saddles: `barriers`, followed to the same.

    Returns:
        ln of the times; infinite where no saddle is known, or the state is not there any more.

    Raises:
        ValueError: for another functional, a beta that is not positive, or rows that are not those
            of `barriers`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise((jnp.ones((9, 9)) - jnp.eye(9)) / 9, jnp.zeros(9))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 2.0, key=jax.random.key(0), n_starts=16)
        found = tg.barriers(naive, energy, 2.0, library)
        states, saddles = (
            tg.landscape.follow(naive, energy, 2.0, rows) for rows in (library, found)
        )
        times = tg.landscape.log_escape_times(naive, energy, 2.0, found, states, saddles)
        # Two states that exchange relax twice as fast as each is left.
        assert abs(jnp.exp(times[0]) / 2 / tg.exact.relaxation_times(energy, 2.0)[0] - 1) < 0.3
        ```
    """
    if not (isinstance(functional, Plefka) and functional.order == 1):
        raise ValueError(
            f"functional must be NaiveMeanField() for the prefactor of escape times, got "
            f"{functional!r}; beta * minimax_heights(...).barriers is the estimate of Arrhenius"
        )
    check_rows(barriers, states, saddles)
    problem = checked_problem(functional, energy, beta, states.fields.dtype)
    ends, parity = jnp.asarray(barriers.ends), jnp.asarray(barriers.parity)
    return _log_escape_times(problem, ends, parity, states, saddles)


@eqx.filter_jit
def _log_escape_times(
    problem: Problem,
    ends: Int[Array, "S 2"],
    parity: Int[Array, " S"],
    states: Followed,
    saddles: Followed,
) -> Float[Array, " K"]:
    passable, k = passes(ends, parity, states, saddles), len(states.exists)
    wells, _ = jax.vmap(lambda *row: _shape(problem, *row))(states.fields, states.exists)
    tops, growth = jax.vmap(lambda *row: _shape(problem, *row))(saddles.fields, passable)
    # Of a saddle and its image each end belongs to a state or to its image.
    ways = (
        jnp.sum(ends[:, :, None] == jnp.arange(k)[None, None], axis=1)
        * saddles.multiplicity[:, None]
    )
    is_way = passable[:, None] & (ways > 0)
    climb = problem.beta * (saddles.free_energies[:, None] - states.free_energies[None])
    log_rates = (
        jnp.log(jnp.where(is_way, ways / states.multiplicity[None], 1.0).astype(climb.dtype))
        + jnp.log(growth / (2 * jnp.pi))[:, None]
        + 0.5 * (wells[None] - tops[:, None])
        - climb
    )
    return -log_sum(log_rates, is_way)


def _shape(
    problem: Problem, theta: Magnetizations, is_there: Bool[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`ln |det H|`, and minus the lowest eigenvalue of H; 1 for a row that is not there."""
    blank = jnp.diag(jnp.arange(theta.size, dtype=theta.dtype).at[0].set(-1.0))
    hessian = jnp.where(is_there, problem.scaled_hessian(theta), blank)
    return log_abs_det(hessian), -lowest_eigenvalue(hessian)
