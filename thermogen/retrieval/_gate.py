"""The expert of a mixture that a cue belongs to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import check_counts, check_parameters
from .._placement import from_anywhere
from .._types import Key
from ..energies import Mixture
from ..sampling import Gibbs
from ._methods import cooled
from ._recall import known_visible


@from_anywhere
def gate(
    mixture: Mixture,
    cue: Num[Array | np.ndarray, "..."],
    *,
    key: Key,
    n_chains: int = 64,
    n_sweeps: int = 100,
) -> Float[Array, " experts"]:
    """Posterior over the experts given the known spins of a cue, at beta = 1.

    `P(a | cue)` is proportional to `w_a Z_a(cue) / Z_a`, with the partition functions of the free
    spins by annealing, a few chains in each expert. Jits and vmaps over cues.

    Args:
        mixture: experts of n visible spins.
        cue: +1 or -1 where a spin is known, 0 where it is not, shape `(n,)`.
        key: random key.
        n_chains: chains in each expert.
        n_sweeps: number of temperatures.

    Returns:
        Probability of each expert, shape `(experts,)`.

    Raises:
        ValueError: for a cue of wrong shape or other values, and counts that are not positive.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        up = tg.Pairwise(jnp.zeros((2, 2)), jnp.ones(2))
        down = tg.Pairwise(jnp.zeros((2, 2)), -jnp.ones(2))
        log_z = tg.exact.log_partition(up, 1.0)
        mixture = tg.Mixture.of([up, down], [0.5, 0.5], jnp.full(2, log_z))
        shares = tg.retrieval.gate(mixture, jnp.array([1.0, 0.0]), key=jax.random.key(0))

        assert shares[0] > shares[1]
        ```
    """
    n_chains, n_sweeps = check_counts(n_chains=n_chains, n_sweeps=n_sweeps)
    check_parameters(mixture, "mixture")
    return _gate(mixture, known_visible(mixture, cue), key, n_chains, n_sweeps)


@eqx.filter_jit
def _gate(mixture, clamp, key, n_chains, n_sweeps):
    one = jnp.ones((), clamp.dtype)

    def evidence(expert, key):
        own = jnp.pad(clamp, (0, expert.n_spins - mixture.n_spins))
        found = cooled(expert, own, one, key, n_chains, n_sweeps, Gibbs())
        return found.log_partition - found.lowest

    keys = jax.random.split(key, mixture.n_experts)
    return jax.nn.softmax(mixture.offsets + jax.vmap(evidence)(mixture.experts, keys))
