"""How a search makes a new start from two states that it holds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Key, Magnetizations
from ..energies import AbstractEnergy, local_fields

# A new start from two states that are held, shape (2, n), of which it may ignore either.
Move = Callable[[AbstractEnergy, Float[Array, "2 n"], Key], Magnetizations]


def corner(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """A random corner of the cube: plain multistart.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        start = tg.search.corner(energy, jnp.ones((2, 3)), jax.random.key(0))

        assert start.shape == (3,) and jnp.all(jnp.abs(start) <= 1)
        ```
    """
    return jax.random.rademacher(key, states[0].shape, states.dtype)


def flip_cluster(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """The first state with a random spin flipped and spins that it couples to, 1 to n/2 in all.

    The size of the cluster is log-uniform. Members are drawn by the strength of their coupling
    to the first spin at m, `|dh_k/dm_first|`, times a random number.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        start = tg.search.flip_cluster(energy, jnp.ones((2, 3)), jax.random.key(0))

        assert start.shape == (3,) and jnp.all(jnp.abs(start) <= 1)
        ```
    """
    m = states[0]
    n = m.size
    dice = jax.random.uniform(key, (n + 2,), m.dtype)
    first = jnp.arange(n) == jnp.floor(n * dice[0])
    _, coupling = jax.jvp(lambda x: local_fields(energy, x), (m,), (first.astype(m.dtype),))
    score = (jnp.abs(coupling) + jnp.finfo(m.dtype).eps ** 2) * dice[2:]
    score = jnp.where(first, jnp.inf, score)
    size = jnp.floor(jnp.exp(dice[1] * jnp.log(n // 2 + 1))).astype(int)
    return jnp.where(score >= jnp.sort(score)[n - size], -m, m)


def crossover(energy: AbstractEnergy, states: Float[Array, "2 n"], key: Key) -> Magnetizations:
    """Each spin from one of the two states, at random.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        start = tg.search.crossover(energy, jnp.ones((2, 3)), jax.random.key(0))

        assert start.shape == (3,) and jnp.all(jnp.abs(start) <= 1)
        ```
    """
    a, b = states
    return jnp.where(jax.random.bernoulli(key, shape=a.shape), a, b)
