"""Belief propagation: the fixed points of Bethe's free energy by messages between the spins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .._checks import as_array
from .._placement import from_anywhere
from .._solution import Solution
from .._types import Beta, Magnetizations, Spins
from ..energies import AbstractMultilinear
from ._base import Problem
from ._bethe import Bethe, factors, outgoing
from ._solve import checked_beta, solve_from, starting_field
from ._solvers import MirrorDescent

# The fields u that every interaction exerts on each of its spins: one (n_terms, p) table an order.
Messages = list[Float[Array, "_ _"]]


@from_anywhere
def belief_propagation(
    energy: AbstractMultilinear,
    beta: Beta,
    init: Spins | None = None,
    *,
    damping: float = 0.5,
    tol: float | None = None,
    max_steps: int = 1024,
    throw: bool = True,
) -> Solution:
    """Marginals and free energy of the Bethe approximation, exact on trees.

    Damped messages run on the factor graph until they no longer change. They are fields (half the
    log odds), which need no normalisation. If they do not settle, a descent of the Bethe free
    energy goes on from the last messages; that always converges (Yuille 2002; Heskes 2003). Newton
    steps polish the end point, and `solve` judges it, in both cases.

    Args:
        energy: `Pairwise`, `RBM` or `Interactions` of n spins.
        beta: inverse temperature, > 0.
        init: magnetizations whose effective fields the first messages see, shape `(n,)`; by
            default those of the fields of the energy alone.
        damping: share of the old messages that is kept, in [0, 1).
        tol: largest `|dG/dm|` that counts as converged, as in `solve`.
        max_steps: limit on the rounds of messages, and again on the steps of the descent.
        throw: raise if the result is not `converged`.

    Returns:
        A `Solution` as of `solve(Bethe(), ...)`: `value` the marginals as magnetizations, shape
        `(n,)`; `stats` holds also `n_rounds`. The mean of each interaction's product of spins is
        `-dG/dJ`, `jax.grad(Bethe())(energy, beta, m)` with the sign changed; correlations of any
        two spins come from `susceptibility`.

    Raises:
        TypeError: for an energy that is no list of interactions.
        ValueError: for a beta that is not positive, or an `init` of wrong shape or range.
        RuntimeError: with `throw`, if no minimum was reached.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Interactions.from_terms(3, {(0, 1): 1.0, (1, 2): 1.0})

        found = tg.meanfield.belief_propagation(energy, 0.5)
        assert jnp.isclose(found.stats["free_energy"], tg.exact.free_energy(energy, 0.5))
        ```
    """
    start = jnp.zeros(energy.n_spins) if init is None else jnp.asarray(as_array("init", init))
    theta = starting_field(energy, start)
    beta = checked_beta(beta, theta.dtype)
    theta, n_rounds = _propagate(energy, beta, theta, damping, max_steps)
    solution = solve_from(
        Problem(Bethe(), energy, beta),
        theta,
        solver=MirrorDescent(),
        adjoint=optx.ImplicitAdjoint(),
        tol=tol,
        max_steps=max_steps,
        throw=throw,
    )
    return eqx.tree_at(lambda s: s.stats, solution, {**solution.stats, "n_rounds": n_rounds})


@eqx.filter_jit
def _propagate(
    energy: AbstractMultilinear,
    beta: Float[Array, ""],
    theta: Magnetizations,
    damping: float,
    max_rounds: int,
) -> tuple[Magnetizations, Array]:
    """Effective fields when the messages have settled, or after so many rounds."""
    energy, beta = jax.lax.stop_gradient((energy, beta))
    groups = factors(energy)
    fields = jnp.zeros_like(theta)
    for sets, couplings in groups:
        if sets.shape[1] == 1:
            fields = fields.at[sets[:, 0]].add(beta * couplings)
    links = [(sets, beta * couplings) for sets, couplings in groups if sets.shape[1] > 1]

    def effective_fields(messages: Messages) -> Array:
        total = fields
        for (sets, _), u in zip(links, messages, strict=True):
            total = total.at[sets].add(u)
        return total

    def answers(total: Array, messages: Messages) -> Messages:
        """Each interaction answers what the rest of the graph tells its spins."""
        return [
            jax.vmap(outgoing)(k, total[sets] - u)
            for (sets, k), u in zip(links, messages, strict=True)
        ]

    def round_of(messages: Messages, _) -> Messages:
        return answers(effective_fields(messages), messages)

    silence = [jnp.zeros(sets.shape, theta.dtype) for sets, _ in links]
    first = answers(fields + jnp.asarray(theta), silence)
    precision = 1e-10 if theta.dtype == jnp.float64 else 1e-5
    solver = optx.FixedPointIteration(
        rtol=precision, atol=precision, norm=optx.max_norm, damp=damping
    )
    end = optx.fixed_point(round_of, solver, first, max_steps=max_rounds, throw=False)
    return effective_fields(end.value), end.stats["num_steps"]
