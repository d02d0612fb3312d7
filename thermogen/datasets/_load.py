"""Tables of spins and columns of weights, from files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .._files import open_regular, read_arrays
from ._spins import table_spins
from ._text import read_csv


def load(path: str | os.PathLike[str]) -> Float[np.ndarray, "samples spins"]:
    """Read a table of bits or spins, one sample a row.

    The values may be 0 and 1, -1 and +1, or booleans; 0 becomes -1. Pickled data are refused.

    Args:
        path: A `.npy` file of one 2-D array; a `.npz` archive, of which the array named `spins`,
            else `data`, else the only 2-D one is read; or a comma-separated `.csv` file, with at
            most one header line (a first line without any number). In a `.csv` file the words
            true and false count as values.

    Returns:
        Spins of shape (n_samples, n_spins), float64, -1 or +1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a table; the message says what is wrong and where.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        np.save("bits.npy", np.array([[0, 1], [1, 1]]))
        assert tg.datasets.load("bits.npy").tolist() == [[-1, 1], [1, 1]]
        ```
    """
    table, lines = read_table(Path(path))
    return table_spins(table, str(path), lines)


def load_weights(path: str | os.PathLike[str]) -> Float[np.ndarray, " samples"]:
    """Read the weights of samples, one number a sample.

    Args:
        path: A `.npy` file of one row or column; a `.npz` archive, of which the array named
            `weights` is read; or a `.csv` file of one column, with at most one header line.

    Returns:
        Weights of shape (n_samples,), float64, finite, not negative, and not all zero.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds anything else; the message says what is wrong.
    """
    table, _ = read_table(Path(path), names=("weights",))
    if table.dtype.kind not in "biuf" or table.size != max(table.shape, default=1):
        raise ValueError(
            f"{path} holds {table.dtype} of shape {table.shape}; expected one number a sample"
        )
    weights = table.reshape(-1).astype(float)
    if not (np.all(weights >= 0) and 0 < weights.sum() < np.inf):
        raise ValueError(f"{path} must hold finite weights, not negative, and not all zero")
    return weights


def read_table(
    path: Path, gaps: Sequence[str] = (), names: Sequence[str] = ("spins", "data")
) -> tuple[np.ndarray, list[int] | None]:
    """The table in a file, and of a `.csv` file the line number of each row; see `load`.

    Args:
        path: the file.
        gaps: marks of an unknown value in a `.csv` file; it becomes NaN in the table.
        names: names of arrays in an archive: the first that is there is read. An archive with
            none of them must hold one table.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _only_table(read_arrays(path, names), path, names), None
    if suffix == ".csv":
        return read_csv(path, gaps)
    with open_regular(path):
        raise ValueError(f"{path} has the suffix {path.suffix!r}; expected .npy, .npz or .csv")


def _only_table(arrays: dict[str, np.ndarray], path: Path, names: Sequence[str]) -> np.ndarray:
    for name in ("", *names):
        if name in arrays:
            return arrays[name]
    tables = [array for array in arrays.values() if np.ndim(array) == 2]
    if len(tables) != 1:
        shapes = ", ".join(f"{name} {np.shape(array)}" for name, array in arrays.items())
        raise ValueError(
            f"{path} holds {len(tables)} 2-D arrays among: {shapes or 'nothing'}; expected one, "
            f"or one named {' or '.join(map(repr, names))}"
        )
    return tables[0]
