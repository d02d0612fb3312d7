"""What certificates of independent runs add up to."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._merging import merged
from ._certificate import Certificate
from ._exchange import escape_times


class Escapes(NamedTuple):
    """Escapes from K candidate states, seen in several independent runs. All times are in sweeps.

    Counts of escapes and times at risk add up, and intervals narrow with their sum. Relaxation
    times, rates and the number of sets do not: they follow from the exchange of all trajectories
    at once, of which a certificate does not keep enough. More trajectories make these sharper, in
    one run of `certify`.

    Attributes:
        escape_times: mean time until trajectories from a state leave its set, shape `(K,)`;
            infinite where none was seen to leave, 0 for unused entries.
        intervals: 95 % confidence intervals of the escape times, shape `(K, 2)`.
        n_escapes: number of trajectories that left, shape `(K,)`.
        exposures: time that they spent in the set before, shape `(K,)`.
        escapes: share of those that left the set of i which went to j, `(K, K)`.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.zeros(6))
        states = np.stack([np.ones(6), -np.ones(6)])
        first, second = (
            tg.certify(magnet, 1.0, states, key=jax.random.key(k), threshold=20) for k in range(2)
        )
        both = tg.merge([first, second])

        assert np.allclose(both.exposures, first.exposures + second.exposures)
        ```
    """

    escape_times: Float[np.ndarray, " K"]
    intervals: Float[np.ndarray, "K 2"]
    n_escapes: Int[np.ndarray, " K"]
    exposures: Float[np.ndarray, " K"]
    escapes: Float[np.ndarray, "K K"]


@merged.register
def _(first: Certificate, others: list[Certificate]) -> Escapes:
    runs = [first, *others]
    for k, run in enumerate(others, 1):
        fault = _difference(first, run)
        if fault:
            raise ValueError(
                f"results 0 and {k} are certificates of {fault}, whose escapes do not add up; "
                "certify their candidates together"
            )
    n_escapes = np.sum([run.n_escapes for run in runs], axis=0)
    exposures = np.sum([run.exposures for run in runs], axis=0)
    counts = np.sum([run.n_escapes[:, None] * run.escapes for run in runs], axis=0)
    times, intervals, used = np.zeros(len(counts)), np.zeros((len(counts), 2)), first.group >= 0
    times[used], intervals[used] = escape_times(n_escapes[used], exposures[used])
    return Escapes(
        times,
        intervals,
        n_escapes,
        exposures,
        counts / np.maximum(1, n_escapes)[:, None],
    )


def _difference(a: Certificate, b: Certificate) -> str:
    """What makes escapes incomparable, in words; nothing where they add up."""
    if (a.dynamics, a.threshold, a.lag) != (b.dynamics, b.threshold, b.lag):
        return "different dynamics or thresholds"
    if not np.array_equal(a.cores, b.cores) or not np.array_equal(a.disordered, b.disordered):
        return "different candidates"
    # An escape is one from a set.
    if not np.array_equal(a.group, b.group) or not np.array_equal(a.side, b.side):
        return "different sets"
    return ""
