"""Quench a population of starts: fall to the nearest minimum of G(m), and certify it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from .._solution import RESULTS, Solution
from .._types import Beta
from ..energies import AbstractMultilinear
from ..meanfield import AbstractFunctional, MirrorDescent
from ..meanfield._base import free_energy_at
from ..meanfield._solve import Problem, checked_beta, descend, judge, polish, starting_field

# Precision and tolerance of the descent before each attempt to polish. Float32 is enough for
# nearly all starts; one that ends on a saddle or between two basins descends further.
_STAGES = ((jnp.float32, 1e-3), (jnp.float64, 1e-6), (jnp.float64, 1e-9))
_STEPS_PER_ROUND = 64
_BATCH_SIZES = (32, 256, 1024)
_HESSIAN_ENTRIES = 2**22


def quench(
    functional: AbstractFunctional,
    energy: AbstractMultilinear,
    beta: Beta,
    starts: Num[Array | np.ndarray, "batch n"],
    *,
    tol: float = 1e-9,
    max_steps: int = 4096,
) -> Solution:
    """Minimise G(m) from each of many starts: descends in float32, certifies in float64.

    Owns its batch axis: starts that have converged are dropped, the rest is packed into a few
    fixed batch sizes. Works in float64 where it must, whatever the JAX configuration.

    Args:
        functional: the free energy, such as `TAP()`.
        energy: a multilinear energy of n spins.
        beta: inverse temperature, > 0.
        starts: spins or magnetizations, shape `(batch, n)`.
        tol: largest `|dG/dm|` that counts as converged, in energy units.
        max_steps: limit on the descent steps of one start, in each precision.

    Returns:
        A `Solution` of NumPy arrays: `value` the magnetizations in float64, shape `(batch, n)`;
        `result` one code for each start; `stats` holds `fields` (batch, n), m = tanh(fields),
        `residual` (batch,), max |dG/dm|, and `free_energy` (batch,).

    Raises:
        ValueError: for a beta that is not positive, or starts of wrong shape or range.
    """
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), energy)
        problem = (functional, exact, checked_beta(beta, jnp.dtype(jnp.float64)))
        descended = np.stack([]) if False else _starting_fields(exact, np.asarray(starts))
        polished = _polish(problem, descended, tol)
        todo = np.arange(len(descended))
        for dtype, atol in _STAGES:
            descended[todo] = _descend(problem, descended[todo], dtype, atol, max_steps)
            polished = _replace(polished, todo, _polish(problem, descended[todo], tol))
            todo = np.flatnonzero(~_is_converged(polished))
            if todo.size == 0:
                break
    return polished
