"""The constructed potential, `<E>_data - A(model)` with A by enumeration or elimination."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .. import exact
from .._checks import total_memory
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import (
    AbstractEnergy,
    constrain,
    n_enumerated,
    n_visible,
)
from ._gaps import check_sums
from ._minimisers import LBFGS
from ._objectives import AbstractObjective, Defaults
from ._samples import Samples, samples_as_given, samples_of, shares_of, with_gaps

_MAX_SPINS = 20


@from_anywhere
def potential(
    energy: AbstractEnergy,
    beta: Beta,
    data: Num[Array | np.ndarray, "batch visible"],
    *,
    weights: Num[Array | np.ndarray, " batch"] | None = None,
    max_gaps: int | None = None,
) -> Float[Array, ""]:
    """`<E>_data - A(model)`, with A exact: the negative log-likelihood per sample over beta.

    Any optax optimiser minimises it over the parameters of the energy: they are constrained
    inside, and the gradient is exact. Hidden spins are summed out of the data term. Convex in the
    parameters of a fully visible energy.

    Args:
        energy: an energy of n <= 24 spins, hidden ones included, an `RBM` in one of its layers; or
            `Interactions` of any number of spins on a narrow graph (`exact.cost`).
        beta: inverse temperature.
        data: samples of +-1, 0 where a spin is unknown, shape `(batch, n_visible(energy))`. What is
            unknown is summed out, as by `clamped_free_energy`.
        weights: weight of each sample, >= 0 and relative; equal where None.
        max_gaps: most unknown spins in a row of traced data, of which no values are seen; None for
            none. A row with more makes the result NaN.

    Returns:
        A scalar in energy units; times beta it is in nats.

    Raises:
        ValueError: for data of wrong shape, known values other than +-1 and 0, data of 0 and 1,
            which are bits, a spin that is unknown in all samples, and too many gaps to sum.

    !!! example

        ```python
        import jax.numpy as jnp
        import thermogen as tg

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        data = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
        expected = -1.0 + jnp.log(4 * jnp.cosh(1.0))

        assert jnp.isclose(tg.learning.potential(pair, 1.0, data), expected)
        ```
    """
    data = samples_as_given(energy, data, gaps=True)
    allowed = constrain(energy)
    data, weights, found = with_gaps(data, weights, max_gaps)
    samples = samples_of(data, *shares_of(weights, len(data)), found, jnp.result_type(float))
    check_sums(allowed, len(data), found)
    of_data = samples.free_energy(allowed, beta)
    return of_data - exact.free_energy(allowed, beta)


class ExactLikelihood(AbstractObjective):
    """The exact negative log-likelihood at beta = 1: `potential`, with weights of the samples.

    What is unknown of a sample is summed out, exactly where gaps are few: that is the marginal
    likelihood of what is known, right for entries that are missing at random, and not convex. Where
    gaps are many, chains fill them, and the gradient is Monte Carlo.

    For n <= 20 spins, an `RBM` with one layer of at most 20 spins, and any number of spins whose
    graph of interactions is narrow (`exact.cost`): `Interactions`, whose sets are known.

    Gradient contract: exact, by enumeration or elimination in each step. Convex in the parameters
    of fully visible energies; those of data on the edge of what the energy can represent run to
    infinity, and the fit ends where the gradient meets the tolerance.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(tg.ExactLikelihood(), start, data, key=jax.random.key(0))

        assert found.result == tg.RESULTS.converged
        ```
    """

    @property
    def defaults(self) -> Defaults:
        return Defaults(LBFGS, 3000, 1e-5, sums_gaps=True)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        if n_enumerated(energy) <= _MAX_SPINS:
            return
        takes = exact.cost(energy)
        if takes.method == "enumeration" or takes.gradient_bytes > total_memory():
            raise ValueError(
                f"energy must have at most {_MAX_SPINS} spins for ExactLikelihood, an RBM in one "
                f"of its layers, or a narrow graph, got {energy.n_spins}, {n_visible(energy)} of "
                f"them visible, and {takes.width} to be kept at once"
            )

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        return batch.free_energy(energy) + exact.log_partition(energy, 1.0), None
