"""Non-represented configurations as data: their weights behind the gap."""

import jax
import numpy as np
import scipy
from jaxtyping import Array, Float, Num

from .._checks import check_count
from .._placement import from_anywhere
from .._types import Beta, Key
from ..datasets import validate_spins
from ..spins import enumerate_spins
from ._phases import log_ratio
from ._samples import checked_shares

_MAX_ENUMERATED = 16


@from_anywhere
def with_background(
    data: Num[Array | np.ndarray, "samples n"],
    gap: Beta,
    *,
    key: Key | None = None,
    n_background: int | None = None,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
) -> tuple[Float[np.ndarray, "rows n"], Float[np.ndarray, " rows"]]:
    """The data together with configurations that are not represented, and weights for `fit`.

    The represented configurations, M of them different, share the weight that the library has
    behind a gap at beta = 1, `M / (M + (2^n - M) exp(-gap))`; the others share the rest. The
    potential then has its minimum at finite parameters, whatever the data: constant spins and
    separable data included.

    Args:
        data: samples of +-1, shape `(samples, n)`.
        gap: Delta > 0 at beta = 1, a total and not per spin; see `required_gap`.
        key: random key, where the others are drawn.
        n_background: number of others, drawn evenly; None for all of them, n <= 16.
        weights: weight of each sample within the share of the data; equal where None.

    Returns:
        Configurations, the data first, and their weights, which sum to 1.

    Raises:
        ValueError: for bad data, a gap that is not positive, None beyond 16 spins, a number without
            a key, and where no configuration is left that is not represented.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        data = np.ones((4, 3))
        rows, weights = tg.learning.with_background(data, 2.0)

        assert np.isclose(weights.sum(), 1) and len(rows) >= 8
        ```
    """
    data = validate_spins(data)
    if not float(gap) > 0:
        raise ValueError(f"gap must be positive, got {gap}")
    n = data.shape[1]
    share = checked_shares(weights, len(data))[0]
    represented = np.unique(data[share > 0], axis=0)
    if n_background is None:
        if n > _MAX_ENUMERATED:
            raise ValueError(
                f"n_background must be given beyond {_MAX_ENUMERATED} spins, got data of {n}"
            )
        drawn = np.asarray(enumerate_spins(n), float)
    elif key is None:
        raise ValueError("n_background must come with a key")
    else:
        n_background = check_count("n_background", n_background)
        drawn = np.asarray(jax.random.rademacher(key, (n_background, n)), float)
    others = drawn[~_occurs(drawn, represented)]
    if len(others) == 0:
        raise ValueError(
            "data must leave some configurations unrepresented, and n_background draw one of "
            f"them, got {len(represented)} different samples of {n} spins"
        )
    # In NumPy: behind a large gap the weight of the rest is below the precision of 1 - mass.
    odds = float(gap) - log_ratio(n, len(represented))
    of_data, of_rest = scipy.special.expit([odds, -odds])
    of_others = np.full(len(others), of_rest / len(others))
    return np.concatenate([data, others]), np.append(of_data * share, of_others)


def _occurs(rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Which rows are rows of the table."""
    known = {row.tobytes() for row in table}
    return np.array([row.tobytes() in known for row in rows], bool)
