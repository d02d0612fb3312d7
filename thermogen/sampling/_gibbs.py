"""Single-spin kernels: the heat bath (Gibbs) and Metropolis."""

from jaxtyping import Array, Float

from .._types import Beta, Key, Spins
from ..energies import AbstractEnergy
from ._base import AbstractKernel, Clamp, SweepInfo
from ._rules import HeatBathRule, MetropolisRule
from ._sweeps import sweep


class Gibbs(AbstractKernel):
    """Heat bath: every spin is drawn from its conditional distribution given the others.

    `P(s_k = 1 | rest) = 1 / (1 + exp(-2 beta h_k))` with the local field h_k. Spins are visited in
    order; those of one layer of an `RBM`, and those of one colour of the interaction graph of
    `Interactions`, at once (Geman and Geman 1984). The state is the configuration, shape `(n,)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(
            tg.Gibbs(), energy, 0.5, key=jax.random.key(0), n_chains=100, n_sweeps=20, burn_in=20
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: Spins,
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[Float[Array, " n"], SweepInfo]:
        return sweep(HeatBathRule(), energy, beta, state, key, clamp)


class Metropolis(AbstractKernel):
    """Flips accepted with probability `0.85 min(1, exp(-beta dE))` (Metropolis et al. 1953).

    Spins are visited as by `Gibbs`. The factor makes the sweep ergodic at every beta and for every
    energy: with 1 in its place spins that nothing acts on flip in every sweep, together, for ever.
    It flips more often than the heat bath where a flip costs little, and 0.85 times as often where
    it costs much. The state is the configuration, shape `(n,)`.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        spins = tg.sample(
            tg.Metropolis(),
            energy,
            0.5,
            key=jax.random.key(0),
            n_chains=100,
            n_sweeps=20,
            burn_in=20,
        )

        mean = (spins[..., 0] * spins[..., 1]).mean()
        assert jnp.isclose(mean, tg.exact.correlations(energy, 0.5)[0, 1], atol=0.1)
        ```
    """

    def step(
        self,
        energy: AbstractEnergy,
        beta: Beta,
        state: Spins,
        key: Key,
        clamp: Clamp = None,
    ) -> tuple[Float[Array, " n"], SweepInfo]:
        return sweep(MetropolisRule(), energy, beta, state, key, clamp)
