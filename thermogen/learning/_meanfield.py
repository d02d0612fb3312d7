"""The potential with `A(model)` from a minimum of a mean-field free energy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_counts
from .._types import Key
from ..energies import AbstractEnergy, embed
from ..meanfield import AbstractFunctional, is_minimum, solve
from ._minimisers import ADAM
from ._objectives import AbstractObjective, Defaults
from ._samples import Samples


class MeanFieldLikelihood(AbstractObjective):
    """The mean-field potential `<E>_data - min_m G(m)`: `A(model)` by a minimum of G.

    G is minimised from the mean of the batch, where m stands at the optimum, and from a few of
    its samples, always the same ones. The lowest converged minimum counts; if none converges the
    loss is infinite, which `fit` reports. Hidden spins are summed out of the data term and take
    part in m. Unknown spins of samples are summed out where gaps are few; chains fill many.

    Gradient contract: implicit, through the solve. Where two minima are equally low the loss has
    a kink, at which the gradient does not vanish: `fit` then takes all its steps, which go to and
    fro, and returns the mean of late ones. For order 1 the loss bounds the negative
    log-likelihood from below; beyond it bounds nothing.

    Attributes:
        functional: the free energy, such as `TAP()`.
        n_starts: number of samples from which G is minimised in each step.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(
            tg.MeanFieldLikelihood(tg.NaiveMeanField()), start, data, key=jax.random.key(0)
        )

        assert found.history[-1] < found.history[0]
        ```
    """

    functional: AbstractFunctional
    n_starts: int = 4

    def __check_init__(self):
        check_counts(n_starts=self.n_starts)

    @property
    def defaults(self) -> Defaults:
        # Adam, for line searches get stuck at kinks.
        return Defaults(ADAM, 1000, 1e-4, smooth=False, sums_gaps=True)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:
        def minimum(start):
            solution = solve(self.functional, energy, 1.0, start, throw=False)
            return jnp.where(is_minimum(solution.result), solution.stats["free_energy"], jnp.inf)

        # At even steps of the cumulated weights: the same ones in every call, so that the
        # gradient can vanish.
        levels = (jnp.arange(self.n_starts) + 0.5) / self.n_starts
        rows = jnp.searchsorted(jnp.cumsum(batch.weights), levels)
        starts = jnp.append(batch.spins[rows], batch.means[None], axis=0)
        minima = jax.vmap(lambda s: minimum(embed(energy, 1.0, s)))(starts)
        lowest = jnp.min(minima)
        # Upwards, so that where nothing converges is never the better place.
        loss = batch.free_energy(energy) - lowest
        return jnp.where(jnp.isfinite(lowest), loss, jnp.inf), None
