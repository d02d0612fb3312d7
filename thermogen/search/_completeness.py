"""Estimates of the completeness of a search from the number of hits of each state."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from .._placement import from_anywhere
from ._library import Library
from ._multistart import Minima


class Completeness(NamedTuple):
    """Estimates, from the hits of a library, of the states that it does not hold.

    The estimates treat quenches as independent draws, and speak of the random starts of
    `find_minima` alone: hits from given `starts`, and from states held, do not count, and
    quenches that ended in no minimum count as unseen. A state whose basin is too small to be hit
    at all is known to none of them: `n_states` is a bound from below.

    Attributes:
        coverage: estimated share of quenches that end in a state held (Good 1953).
        coverage_interval: confidence interval of it (Esty 1983, Ann. Stat. 11, 905), no narrower
            than the rule of three.
        n_states: estimated least number of states, those not seen included; a state and its
            mirror image count once (Chao 1984).
        n_states_interval: log-normal confidence interval of it, rounded outwards to whole states
            (Chao 1987, Biometrics 43, 783).
    """

    coverage: float
    coverage_interval: tuple[float, float]
    n_states: float
    n_states_interval: tuple[float, float]


@from_anywhere
def completeness(library: Library | Minima, *, level: float = 0.95) -> Completeness:
    """Estimate what share of the landscape a library holds, and how many states there are.

    Args:
        library: as `find_minima` returns it, with `overflow` unset; or the `Minima` that
            `multistart` returns.
        level: level of the confidence intervals, in (0, 1).

    Raises:
        ValueError: for a level outside (0, 1), a library without states or independent quenches,
            or one that overflowed, whose hit counts are incomplete.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        found = tg.search.completeness(library)

        assert found.coverage == 1 and found.n_states >= 1
        ```
    """
    hits, unresolved = _counts(library)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    z = float(scipy.special.ndtri(0.5 + 0.5 * level))
    # A quench that ended nowhere is one more that was alone.
    n, once, twice = hits.sum() + unresolved, np.sum(hits == 1) + unresolved, np.sum(hits == 2)
    missed = once / n
    error = z * np.sqrt(once * (1 - missed) + 2 * twice) / n
    # Without rare states that error is none at all; then the rule of three holds.
    error = max(error, -np.log1p(-level) / n)
    interval = (max(0.0, 1 - missed - error), min(1.0, 1 - missed + error))
    unseen, bounds = _unseen(hits, z)
    states = (np.floor(len(hits) + bounds[0]), np.ceil(len(hits) + bounds[1]))
    return Completeness(float(1 - missed), interval, len(hits) + unseen, states)


@from_anywhere
def discovery_curve(
    library: Library | Minima, quenches: Int[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Expected number of states in the first so many of the quenches, by rarefaction.

    The mean over all orders in which the quenches could have come (Hurlbert 1971): a curve that
    still climbs at its end says that the search was too short.

    Args:
        library: as `find_minima` returns it, with `overflow` unset.
        quenches: numbers of independent quenches, from 0 to that of the library.

    Returns:
        Expected numbers of distinct states.

    Raises:
        ValueError: for a library without states or independent quenches, one that overflowed, or
            numbers out of range.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        curve = tg.search.discovery_curve(library, np.array([0, 1, 16]))

        assert np.allclose(curve, [0, 1, 1])
        ```
    """
    hits, unresolved = _counts(library)
    n, t = hits.sum() + unresolved, np.asarray(quenches)
    if np.any((t < 0) | (t > n)):
        raise ValueError(f"quenches must lie between 0 and the {n} of the library")
    # log of C(n - h, t) / C(n, t), the chance that none of t quenches hits a state.
    left = n - hits[None, :] - t[:, None]
    gammaln = scipy.special.gammaln
    log_missed = gammaln(n - hits + 1)[None, :] - gammaln(np.maximum(left, 0) + 1)
    log_missed += (gammaln(n - t + 1) - gammaln(n + 1))[:, None]
    return np.sum(1 - np.where(left >= 0, np.exp(log_missed), 0.0), axis=1)


def _counts(library: Library | Minima) -> tuple[np.ndarray, int]:
    """Independent quenches that ended in each state, and the number of those that found none."""
    if isinstance(library, Library) and library.overflow:
        raise ValueError("the library overflowed, so its hits are incomplete; raise capacity")
    if len(library) == 0:
        raise ValueError("the library must hold at least one state, got an empty one")
    if isinstance(library, Minima):
        return library.hits, library.n_lost
    hits = np.asarray(library[:].hits - library[:].given_hits)
    if not hits.any():
        raise ValueError("the library must come from a search: none of its hits is independent")
    return hits, int(library.unresolved)


def _unseen(hits: np.ndarray, z: float) -> tuple[float, tuple[float, float]]:
    """Chao's estimate of the number of unseen states, and its interval (Chao 1987)."""
    seen, n, once, twice = len(hits), hits.sum(), np.sum(hits == 1), np.sum(hits == 2)
    share = (n - 1) / n
    if twice > 0:
        ratio = once / twice
        unseen = share * once * ratio / 2
        variance = twice * (share * ratio**2 / 2 + share**2 * (ratio**3 + ratio**4 / 4))
    else:
        unseen = share * once * (once - 1) / 2
        variance = unseen + share**2 * once * (2 * once - 1) ** 2 / 4
        variance -= share**2 * once**4 / (4 * (seen + unseen))
    if unseen > 0:
        # Log-normal, because the number cannot be negative.
        spread = np.exp(z * np.sqrt(np.log1p(variance / unseen**2)))
        return float(unseen), (float(unseen / spread), float(unseen * spread))
    # No two states were hit but once. Of states hit at equal rates this share would be missed.
    missed = np.exp(-n / seen)
    upper = (seen * missed + z * np.sqrt(seen * missed * (1 - missed))) / (1 - missed)
    return 0.0, (0.0, float(upper))
