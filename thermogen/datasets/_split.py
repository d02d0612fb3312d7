"""Data in two parts: to learn from, and to judge by."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Num

from .._checks import as_array


class Split(NamedTuple):
    """Data in two parts.

    Attributes:
        training: Samples to learn from, shape (training, n_spins).
        held_out: Samples to judge by, shape (held_out, n_spins).
    """

    training: Num[np.ndarray, "training spins"]
    held_out: Num[np.ndarray, "held_out spins"]


def split(
    data: Num[Array | np.ndarray, "samples spins"], held_out: float = 0.2, *, seed: int = 0
) -> Split:
    """Part samples at random, the same way for the same seed and number of samples.

    Args:
        data: Samples, one a row.
        held_out: Share that is held out, in (0, 1); at least one sample on either side.
        seed: Seed of NumPy's generator.

    Raises:
        ValueError: If the share leaves one of the parts empty.

    !!! example

        ```python
        import thermogen as tg

        training, held_out = tg.datasets.split(tg.datasets.adder(2), held_out=0.25)
        assert len(training) == 12 and len(held_out) == 4
        ```
    """
    rows = np.asarray(as_array("data", data))
    n_held_out = round(held_out * len(rows))
    if not 0 < n_held_out < len(rows):
        raise ValueError(
            f"held_out is {held_out}; expected a share of {len(rows)} samples that leaves at "
            "least one on either side"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    return Split(rows[order[n_held_out:]], rows[order[:n_held_out]])
