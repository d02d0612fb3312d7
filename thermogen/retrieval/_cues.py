"""Tables of cues on disk: configurations with gaps."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..datasets import read_table, table_spins

# What stands for an unknown entry in a .csv file.
_GAPS = ("?", "")


def load_cues(path: str | os.PathLike[str]) -> Float[np.ndarray, "cues n"]:
    """Read a table of cues, one a row: bits or spins, and marks for what is unknown.

    An unknown entry is `?` or an empty cell in a `.csv` file, and NaN in a `.npy` or `.npz` file.
    Known ones are 0 and 1 or -1 and +1, as for `thermogen.datasets.load`; 0 is the bit 0, never
    a gap.

    Args:
        path: A `.npy` file of one 2-D array; a `.npz` archive, of which the array named `spins`,
            else `data`, else the only 2-D one is read; or a comma-separated `.csv` file, with at
            most one header line (a first line with a word in it and no number).

    Returns:
        +1 or -1 where a spin is known, 0 where it is not, in float64, shape `(cues, n)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a table; the message says what is wrong and where.
    """
    path = Path(path)
    table, lines = read_table(path, _GAPS)
    known = np.ones(table.shape, bool)
    if np.issubdtype(table.dtype, np.floating):
        known = ~np.isnan(table)
        # A gap takes the value that both conventions have.
        table = np.where(known, table, 1)
    spins = table_spins(table, str(path), lines)
    return np.where(known, spins, 0.0)
