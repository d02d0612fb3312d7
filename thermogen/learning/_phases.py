"""Coexistence of a library of represented states with the rest of configuration space.

Of 2^n configurations, M are represented and lie at energy 0, all others at the gap Delta. With
`L = ln((2^n - M)/M)`, the entropy by which the rest outnumbers the library, everything follows from
the odds `beta Delta - L` of finding the system in the library.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from .._checks import as_array
from .._placement import from_anywhere
from .._types import Beta


@from_anywhere
def coexistence_beta(gap: Beta, n: int, n_represented: int) -> Float[Array, ""]:
    """`beta_c = ln((2^n - M)/M) / Delta`, where library and rest hold half of the weight each.

    Beyond beta_c the library holds the weight, below it the rest does. beta_c stays above 0 and
    finite for large n only if the gap grows in proportion to n.

    Args:
        gap: Delta > 0, a total and not per spin, in energy units.
        n: number of spins.
        n_represented: M, with `1 <= M < 2^(n-1)`: a library of half of all configurations or
            more holds the weight at every beta.

    Returns:
        The inverse temperature beta_c.

    Raises:
        ValueError: if M is outside its range, or the gap is not positive.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        beta = tg.learning.coexistence_beta(8.0, 10, 4)

        assert np.isclose(beta, np.log(255) / 8)
        assert np.isclose(tg.learning.library_mass(8.0, 10, 4, beta), 0.5)
        ```
    """
    entropy = log_ratio(n, n_represented)
    if entropy <= 0:
        raise ValueError(
            f"n_represented must be less than 2**(n-1) for coexistence, got {n_represented} of "
            f"2**{n} configurations"
        )
    return entropy / _positive("gap", gap)


@from_anywhere
def library_mass(gap: Beta, n: int, n_represented: int, beta: Beta) -> Float[Array, ""]:
    """Weight of the library, `M / (M + (2^n - M) exp(-beta Delta))`, between 0 and 1.

    Args:
        gap: Delta, a total and not per spin, in energy units.
        n: number of spins.
        n_represented: M, with `1 <= M < 2^n`.
        beta: inverse temperature, above 0.

    Raises:
        ValueError: if M is outside its range, or beta is not positive.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        assert np.isclose(tg.learning.library_mass(0.0, 10, 4, 1.0), 4 / 1024)
        ```
    """
    entropy = log_ratio(n, n_represented)
    return jax.nn.sigmoid(gap * _positive("beta", beta) - entropy)


@from_anywhere
def required_gap(
    represented: int | Num[Array | np.ndarray, "samples n"],
    n: int,
    beta: Beta,
    mass: Beta,
) -> Float[Array, ""]:
    """The gap at which the library holds a given weight: `[L + ln(p/(1-p))] / beta`.

    The inverse of `library_mass`. Per spin it tends to `(ln 2 - ln(M)/n) / beta`, whatever the
    mass.

    Args:
        represented: M with `1 <= M < 2^n`, or data of +-1, shape `(samples, n)`, whose different
            samples are counted.
        n: number of spins.
        beta: inverse temperature, above 0.
        mass: p, the wanted weight of the library, between 0 and 1.

    Returns:
        Delta in energy units, a total and not per spin; negative where the library would hold
        more than p without any gap, `p < M/2^n`.

    Raises:
        ValueError: if M, beta or the mass is outside its range, or the data do not
            have n spins.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        gap = tg.learning.required_gap(4, 10, 1.0, 0.9)

        assert np.isclose(tg.learning.library_mass(gap, 10, 4, 1.0), 0.9)
        ```
    """
    if not isinstance(represented, int | np.integer):
        represented = _n_different(np.asarray(as_array("represented", represented)), n)
    mass = _positive("mass", mass)
    _positive("1 - mass", 1 - mass)
    odds = log_ratio(n, int(represented)) + jnp.log(mass) - jnp.log1p(-mass)
    return odds / _positive("beta", beta)


def log_ratio(n: int, n_represented: int) -> float:
    """`L = ln((2^n - M)/M)`, from integers of any size."""
    m, rest = int(n_represented), 2**n - int(n_represented)
    if m < 1 or rest < 1:
        raise ValueError(f"n_represented must lie in 1..2**n - 1 for n = {n}, got {n_represented}")
    if 2 * abs(rest - m) < m:
        return math.log1p((rest - m) / m)
    return math.log(rest) - math.log(m)


def _n_different(data: np.ndarray, n: int) -> int:
    if data.ndim != 2 or data.shape[1] != n:
        raise ValueError(f"data must have shape (samples, {n}), got {data.shape}")
    return len(np.unique(data, axis=0))


def _positive(name: str, value: Beta) -> Float[Array, ""]:
    array = jnp.asarray(value, float)
    if not isinstance(array, Tracer) and not array > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return array
