"""Tables of cues on disk: configurations with gaps."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8

from ..datasets import _read_numpy, _to_spins, read_csv

# What stands for an unknown entry in a .csv file.
_GAPS = ("?", "")


class Cues(NamedTuple):
    """Configurations of which only a part is known.

    Attributes:
        spins: -1 or +1 where known, 0 elsewhere, int8, shape `(cues, n)`.
        known: True where known, shape `(cues, n)`.
    """

    spins: Int8[np.ndarray, "cues n"]
    known: Bool[np.ndarray, "cues n"]


def load_cues(path: str | os.PathLike[str]) -> Cues:
    """Read a table of cues, one a row: bits or spins, and marks for what is unknown.

    An unknown entry is `?` or an empty cell in a `.csv` file, and NaN in a `.npy` or `.npz` file.
    Known ones are 0 and 1 or -1 and +1, as for `thermogen.datasets.load`; 0 is the bit 0, never
    a gap.

    Args:
        path: A `.npy` file of one 2-D array; a `.npz` archive, of which the array named `spins`,
            else `data`, else the only 2-D one is read; or a comma-separated `.csv` file, with at
            most one header line (a first line with a word in it and no number).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a table; the message says what is wrong and where.
    """
    path, lines = Path(path), None
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        table = _read_numpy(path)
    elif suffix == ".csv":
        table, lines = read_csv(path, _GAPS)
    else:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; expected .npy, .npz or .csv")
    known = np.ones(table.shape, bool)
    if np.issubdtype(table.dtype, np.floating):
        known = ~np.isnan(table)
        # A gap takes the value that both conventions have.
        table = np.where(known, table, 1)
    spins = _to_spins(table, str(path), lines)
    return Cues(np.where(known, spins, np.int8(0)), known)
