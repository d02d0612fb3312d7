"""Tables of spins as people have them, from files and from objects of other libraries."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._files import open_regular
from ._arrays import read_hdf5, read_matlab, read_numpy
from ._columns import ColumnName, Roles, roles
from ._frames import grid_of_object, read_parquet
from ._grid import Grid, texts_of_numbers
from ._text import read_text
from ._values import Mark, Threshold, spins_of
from ._words import as_number

# Arrays of these names are read from files of several.
_NAMES = ("spins", "data")
_LYING = 10  # a table of so many more columns than rows is likely to lie on its side

_READERS: dict[str, Callable[[Path, Sequence[str]], Grid]] = {
    ".npy": read_numpy,
    ".npz": read_numpy,
    ".mat": read_matlab,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".parquet": lambda path, _: read_parquet(path),
    **dict.fromkeys(
        (".csv", ".tsv", ".txt", ".arff", ".csv.gz", ".tsv.gz", ".txt.gz"),
        lambda path, _: read_text(path),
    ),
}


class Table(NamedTuple):
    """Spins with all that a table says about them.

    Attributes:
        spins: Shape (n_samples, n_spins), float64: +1 or -1, and 0 where a spin is not known.
        names: Names of the spins; None if there are none.
        labels: Class of each sample, shape (n_samples,), integers that count `classes`, and -1
            where there is no label; None if no labels were asked for.
        classes: Names of the classes, in the order of numbers, or else of the alphabet.
        rows: Names of the samples; None if there are none.
    """

    spins: Float[np.ndarray, "samples spins"]
    names: tuple[str, ...] | None = None
    labels: Int[np.ndarray, " samples"] | None = None
    classes: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None


def read(
    source: Any,
    *,
    labels: ColumnName | None = None,
    columns: str | Sequence[ColumnName] | None = None,
    index: ColumnName | None = None,
    missing: Mark | Sequence[Mark] = (),
    threshold: Threshold | None = None,
) -> Table:
    """Read a table of bits or spins, one sample a row, from a file or an object.

    Values are 0 and 1, -1 and +1, booleans, or in a column the words of one pair: true/false,
    yes/no, t/f, y/n, on/off, whatever their case. Empty cells, NA, NaN, null, None, ? and . are
    missing.

    Args:
        source: Path of a `.csv`, `.tsv`, `.txt` (also `.gz`), `.arff`, `.npy`, `.npz`, `.parquet`,
            `.mat`, `.h5` or `.hdf5` file; or a data frame of pandas or polars, an array or data
            set of xarray, a sparse matrix of SciPy, a tensor of PyTorch, an array, or a list of
            lists. Of several arrays in a file `spins` is read, else `data`, else the only table.
        labels: Column of class labels, by name or number, which is never one of the spins; or the
            name of an array of them in the same file.
        columns: Columns of spins: names and numbers, or one text of these and of ranges such as
            `"a,b,2-40"`. All that are neither labels nor index if not given. Numbers count from 0,
            and a name goes before a number.
        index: Column of the names of the samples. If not given, the first column is one where it
            can be nothing else: different words, or 0, 1, 2 ...; a warning says so.
        missing: Further values or words that stand for what is missing, such as 0 among -1 and +1.
        threshold: Values above it are +1, others -1: a number; `"mean"` or `"median"`, of each
            column for itself; or `"otsu"`, one cut of all values that sets their two groups apart
            (Otsu 1979). Without one, grey values are refused.

    Returns:
        The table.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package is missing that reads such files.
        ValueError: If the source is not such a table; the message says what is wrong and where.

    !!! example

        ```python
        from pathlib import Path
        import thermogen as tg

        Path("flowers.csv").write_text("blue,tall,kind\\nyes,no,iris\\nno,NA,rose\\n")
        table = tg.datasets.read("flowers.csv", labels="kind")
        assert table.spins.tolist() == [[1, -1], [-1, 0]] and table.names == ("blue", "tall")
        assert [table.classes[k] for k in table.labels] == ["iris", "rose"]
        ```
    """
    table = read_table(
        source, labels=labels, columns=columns, index=index, missing=missing, threshold=threshold
    )
    for doubt in doubts(table.spins, table.names):
        warnings.warn(f"{_name(source)}: {doubt}", stacklevel=2)
    return table


def read_table(
    source: Any,
    *,
    labels: ColumnName | None = None,
    columns: str | Sequence[ColumnName] | None = None,
    index: ColumnName | None = None,
    missing: Mark | Sequence[Mark] = (),
    threshold: Threshold | None = None,
) -> Table:
    """`read` of a table that is not a sample of anything, and may be as wide as it is."""
    grid = open_grid(source, _NAMES)
    grid.check()
    beside = None
    if isinstance(labels, str) and labels not in (grid.header or ()):
        beside = grid.beside(labels)
    chosen = roles(grid, None if beside is not None else labels, columns, index)
    marks = [missing] if isinstance(missing, str | float | int) else list(missing)
    spins = spins_of(grid, chosen.spins, marks, threshold)
    codes, classes = _labels(grid, chosen, beside)
    names = None if grid.header is None else tuple(grid.header[k] or str(k) for k in chosen.spins)
    rows = grid.rows
    if chosen.names is not None:
        rows = tuple(text or "" for text in grid.texts(chosen.names))
    return Table(spins, names, codes, classes, rows)


def doubts(spins: np.ndarray, names: Sequence[str] | None = None) -> list[str]:
    """What makes it doubtful that a table holds samples of spins, one sentence each."""
    rows, columns = spins.shape
    found = []
    if columns > _LYING * rows:
        found.append(
            f"the table looks transposed: it has {rows} rows, the samples, and {columns} columns, "
            "the spins"
        )
    empty = np.flatnonzero(~spins.any(axis=0))
    if empty.size:
        called = repr(names[empty[0]]) if names else f"{empty[0]}, counted from 0,"
        more = f", nor have {empty.size - 1} others" if empty.size > 1 else ""
        found.append(f"spin {called} has no value in any sample{more}")
    return found


def load(path: str | os.PathLike[str]) -> Float[np.ndarray, "samples spins"]:
    """Read the spins of a file, one sample a row; see [`read`][thermogen.datasets.read].

    Args:
        path: A file of any kind that `read` takes.

    Returns:
        Spins of shape (n_samples, n_spins), float64: +1 or -1, and 0 for what is
        missing, as `fit` takes it.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package is missing that reads such files.
        ValueError: If the file is not such a table; the message says what is wrong and where.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        np.save("bits.npy", np.array([[0, 1], [1, 1]]))
        assert tg.datasets.load("bits.npy").tolist() == [[-1, 1], [1, 1]]
        ```
    """
    return read(Path(path)).spins


def load_weights(path: str | os.PathLike[str]) -> Float[np.ndarray, " samples"]:
    """Read the weights of samples, one number a sample.

    Args:
        path: A file of any kind that `read` takes, of one row or column. Of several arrays in a
            file that named `weights` is read.

    Returns:
        Weights of shape (n_samples,), float64, finite, not negative, and not all zero.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package is missing that reads such files.
        ValueError: If the file holds anything else; the message says what is wrong.

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        np.savetxt("weights.csv", [1, 3])

        assert tg.datasets.load_weights("weights.csv").tolist() == [1, 3]
        ```
    """
    grid = open_grid(Path(path), ("weights",))
    if grid.words or grid.values.size != max(grid.values.shape):
        raise ValueError(
            f"{path} holds a table of shape {grid.values.shape}; expected one number a sample"
        )
    weights = grid.values.reshape(-1).astype(float)
    if not (np.all(weights >= 0) and 0 < weights.sum() < np.inf):
        raise ValueError(f"{path} must hold finite weights, not negative, and not all zero")
    return weights


def open_grid(source: Any, names: Sequence[str]) -> Grid:
    """The table in a file or an object, before it is known what its columns mean."""
    if not isinstance(source, str | os.PathLike):
        return grid_of_object(source, _name(source))
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower() + suffix
    if suffix not in _READERS:
        with open_regular(path):
            raise ValueError(
                f"{path} has the suffix {path.suffix!r}; expected {', '.join(_READERS)}"
            )
    return _READERS[suffix](path, names)


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else "source"


def _labels(
    grid: Grid, chosen: Roles, beside: Any
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The class of each sample and the names of the classes."""
    if beside is None and chosen.labels is None:
        return None, None
    if beside is not None:
        column = np.asarray(beside).reshape(-1)
        if len(column) != len(grid.values):
            raise ValueError(
                f"{grid.name} has {len(column)} labels; expected {len(grid.values)}, one a sample"
            )
        texts = texts_of_numbers(column).tolist()
    else:
        assert chosen.labels is not None
        texts = grid.texts(chosen.labels).tolist()
    classes = sorted({text for text in texts if text is not None})
    numbers = [as_number(name) for name in classes]
    if None not in numbers:
        classes = [name for _, name in sorted(zip(numbers, classes, strict=True))]
    number_of = {name: k for k, name in enumerate(classes)}
    return np.array([number_of.get(text, -1) for text in texts]), tuple(classes)
