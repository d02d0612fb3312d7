"""Objectives of one spin given the others: no partition function, no sampling, convex."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import Key
from ..energies import AbstractEnergy
from ._gaps import margins_of, n_bits
from ._minimisers import WHITENED_LBFGS
from ._objectives import AbstractObjective, Defaults
from ._penalties import sums_of_squares
from ._samples import Number, Samples, as_number, check_not_negative


def _number_or_none(value: Number | None) -> Number | None:
    return None if value is None else as_number(value)


class PseudolikelihoodState(NamedTuple):
    """What the prior owes to the size of the data.

    Attributes:
        l2: strength of the ridge.
        opposite: weight of a sample in which a spin is the other way round, for spins that are
            constant in the data, shape `(visible,)`; 0 for all others.
    """

    l2: Float[Array, ""]
    opposite: Float[Array, " visible"]


class Pseudolikelihood(AbstractObjective):
    """Mean of `-sum_k ln P(s_k | rest)` plus `l2` times the sum of the squared couplings.

    Gradient contract: exact. Interactions of any order; hidden spins are summed out. Convex in the
    parameters where no spin is hidden (Besag 1975; Ravikumar, Wainwright and Lafferty 2010). Each
    coupling counts once in the penalty, the two halves of `J_ij` together.

    Fields are free: the model then has the conditional means of the data, spins that are seldom up
    included. A spin that is constant in the data counts as if half a sample had been otherwise, so
    that its field is finite, and the rate of the other value about `1 / (2 N)`.

    Of a row with unknown spins the known ones contribute, each given the other known ones. Where
    gaps are few, what is unknown is summed out and the loss is exact, though not convex:
    `-ln P(s_k | known rest) = ln(1 + exp[F - F_k])` with the `clamped_free_energy` before the flip
    of spin k and after. It is consistent where entries are missing completely at random. Where
    gaps are many, chains fill them, and the loss is that of the filled rows: a stochastic
    estimating equation, consistent for entries that are missing at random, but not the same one.

    Attributes:
        l2: strength of the ridge penalty on couplings of two spins and more, in nats per squared
            energy unit. Where None it is `n / (2 N)` for N samples of n spins: a prior of variance
            `1 / n` on each coupling, as in a spin glass, which gives way to evidence
            (`Samples.size` for samples of unequal weight). Where 0, separable data have no minimum.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        found = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0))

        assert found.result == tg.RESULTS.converged
        ```
    """

    l2: Number | None = eqx.field(default=None, converter=_number_or_none)

    def __check_init__(self):
        check_not_negative(l2=self.l2)

    @property
    def defaults(self) -> Defaults:
        bounded = self.l2 is None or self.l2 > 0
        return Defaults(
            *(WHITENED_LBFGS, 3000, 1e-5),
            bounded=bounded,
            bounded_fields=True,
            conditional=True,
            sums_gaps=True,
        )

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PseudolikelihoodState:
        half = 0.5 / samples.size
        half = half / samples.known if samples.max_gaps else half
        opposite = jnp.where(constant_spins(samples), half, 0)
        return PseudolikelihoodState(self._ridge(samples), opposite)

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PseudolikelihoodState | None, key: Key
    ) -> tuple[Float[Array, ""], PseudolikelihoodState | None]:
        """Without a state no spin counts as constant, and the batch is all data."""
        l2, opposite = self._ridge(batch), None
        if state is not None:
            opposite = state.opposite[None, :]
            # The default is that of all data, which a batch does not tell.
            l2 = state.l2 if self.l2 is None else l2

        def surprise(part: Samples) -> Float[Array, ""]:
            margin = part.margins(energy)
            surprise = _surprise(margin)
            if opposite is not None:
                # That of the opposite spin is `_surprise(-x) = _surprise(x) + 2 x`.
                surprise = (1 + opposite) * surprise + 2 * opposite * margin
            if part.max_gaps:
                surprise = jnp.where(part.spins == 0, 0, surprise)
            return part.mean(jnp.sum(surprise, axis=1))

        of_data = batch.total(surprise, n_bits(energy, batch.max_gaps))
        return of_data + l2 * sums_of_squares(energy)[1], state

    def _ridge(self, samples: Samples) -> Float[Array, ""]:
        if self.l2 is not None:
            return jnp.asarray(self.l2)
        return jnp.asarray(default_l2(samples.spins.shape[1], samples.size))


def default_l2(n_spins: int, n_samples: Number) -> Number:
    """Ridge that stands for a prior of variance `1 / n` on each coupling: `n / (2 N)`.

    Fields of order one then come of all others together, as in the models of Hopfield and of
    Sherrington and Kirkpatrick; stronger couplings need few samples to be believed.

    Args:
        n_spins: n, of the visible spins.
        n_samples: N, how many independent samples the data are worth.

    Returns:
        The strength, in nats per sample and squared energy unit.

    !!! example

        ```python
        import thermogen as tg

        assert tg.learning.default_l2(10, 100) == 0.05
        ```
    """
    return 0.5 * n_spins / n_samples


class MinimumProbabilityFlow(AbstractObjective):
    """`mean of sum_k exp([E(s) - E(flip_k s)]/2)`: how fast probability leaves the data at first.

    The flow is that of single spin flips with detailed balance, from the data to all of their
    neighbours (Sohl-Dickstein, Battaglino and DeWeese 2011, eq. 10); flips between two data
    points count as if they led away. Hidden spins are summed out. Of a row with unknown spins the
    flow is that of the known ones, as for `Pseudolikelihood`.

    Gradient contract: exact. Convex in the parameters where no spin is hidden, and consistent.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        flow = tg.learning.MinimumProbabilityFlow()
        found = tg.fit(flow, start, data, key=jax.random.key(0))

        assert found.result == tg.RESULTS.converged
        ```
    """

    @property
    def defaults(self) -> Defaults:
        return Defaults(WHITENED_LBFGS, 3000, 1e-5, conditional=True, sums_gaps=True)

    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> None:
        return None

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: None, key: Key
    ) -> tuple[Float[Array, ""], None]:

        def flow(part: Samples) -> Float[Array, ""]:
            flows = jnp.exp(-part.margins(energy))
            if part.max_gaps:
                flows = jnp.where(part.spins == 0, 0, flows)
            return part.mean(jnp.sum(flows, axis=1))

        return batch.total(flow, n_bits(energy, batch.max_gaps)), None


@eqx.filter_jit
def margins(energy: AbstractEnergy, samples: Samples) -> Float[Array, "samples visible"]:
    """`s_k h_k`, with the field on spin k given the others: positive where they agree."""
    if not samples.max_gaps:
        return samples.margins(energy)
    return jax.lax.map(lambda s: margins_of(energy, s, samples.max_gaps), samples.spins)


def constant_spins(samples: Samples) -> Bool[Array, " visible"]:
    """Spins that are alike in all samples of positive weight."""
    counted = (samples.weights > 0)[:, None]
    up, down = (jnp.any(counted & side, axis=0) for side in (samples.spins > 0, samples.spins < 0))
    return ~(up & down)


@jax.custom_jvp
def _surprise(margin: Float[Array, "..."]) -> Float[Array, "..."]:
    """`-ln P(s_k | rest) = ln(1 + exp(-2 margin))`, several times as fast as by `softplus`."""
    return jnp.log1p(jnp.exp(-2 * jnp.abs(margin))) - 2 * jnp.minimum(margin, 0)


@_surprise.defjvp
def _(primals, tangents):
    (margin,), (change,) = primals, tangents
    return _surprise(margin), -2 * _error_rate(margin) * change


@jax.custom_jvp
def _error_rate(margin: Float[Array, "..."]) -> Float[Array, "..."]:
    """`1 - P(s_k | rest) = 1 / (1 + exp(2 margin))`."""
    smaller = jnp.exp(-2 * jnp.abs(margin))
    return jnp.where(margin > 0, smaller, 1) / (1 + smaller)


@_error_rate.defjvp
def _(primals, tangents):
    (margin,), (change,) = primals, tangents
    rate = _error_rate(margin)
    return rate, -2 * rate * (1 - rate) * change
