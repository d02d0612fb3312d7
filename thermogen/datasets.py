"""Binary data sets as host arrays of spins.

Data sets are small, so they are NumPy arrays of float64, -1 or +1 for each spin. Sums and products
of whole samples are exact in float64, and matrix products are fast. `data.astype("int8")` takes
an eighth of the memory, but its arithmetic wraps around at 127.
"""

import array
import csv
import io
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import networkx as nx
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ._checks import as_array, as_integer, check_memory
from ._files import open_regular, read_arrays

_MAX_ADDER_BITS = 12  # 4**12 rows of 37 spins: 5 GB
_MAX_LINE = 2**24  # characters of a .csv file: eight million spins
_MAX_BARS = 12  # 2**13 pictures of 144 pixels


class LabelledSpins(NamedTuple):
    """Spins with one class label a sample.

    Attributes:
        spins: Shape (n_samples, n_spins), float64, -1 or +1.
        labels: Shape (n_samples,), integers.
    """

    spins: Float[np.ndarray, "samples spins"]
    labels: Int[np.ndarray, " samples"]


def adder(n_bits: int) -> Float[np.ndarray, "samples spins"]:
    """The addition table a + b = c of all pairs of n-bit numbers.

    Args:
        n_bits: Bits of each summand, 1 to 12.

    Returns:
        Spins of shape `(4**n_bits, 3 * n_bits + 1)`, float64: the bits of a, of b and of the sum
        (n_bits + 1 of them), each little-endian. Row r holds `a = r % 2**n_bits` and
        `b = r // 2**n_bits`, so that the first 2 n_bits spins are configuration r.

    Raises:
        ValueError: If n_bits is not an integer from 1 to 12.

    !!! example

        ```python
        import thermogen as tg

        table = tg.datasets.adder(2)  # all sums of two numbers of 2 bits
        assert table.shape == (16, 7)
        ```
    """
    size = _checked_size("n_bits", n_bits, _MAX_ADDER_BITS)
    rows = np.arange(4**size)
    a, b = rows % 2**size, rows // 2**size
    numbers = ((a, size), (b, size), (a + b, size + 1))
    bits = [(number >> k) & 1 for number, width in numbers for k in range(width)]
    return np.stack([2.0 * bit - 1 for bit in bits], axis=1)


def bars_and_stripes(n: int) -> Float[np.ndarray, "samples spins"]:
    """All n x n pictures whose rows are each of one colour, or whose columns are (MacKay 2003).

    Args:
        n: Rows and columns, 1 to 12.

    Returns:
        Spins of shape `(2**(n + 1) - 2, n**2)`, float64, pixels row by row. First come the `2**n`
        pictures of constant rows, row k of picture i as spin k of configuration i; then those of
        constant columns in the same order, without the two blank pictures.

    Raises:
        ValueError: If n is not an integer from 1 to 12.
    """
    size = _checked_size("n", n, _MAX_BARS)
    spins = 2.0 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1) - 1
    stripes = np.repeat(spins, size, axis=1)
    bars = np.tile(spins[1:-1], (1, size))
    return np.concatenate([stripes, bars])


def _checked_size(name: str, value: int, most: int) -> int:
    size = as_integer(value)
    if size is None or not 1 <= size <= most:
        raise ValueError(f"{name} is {value!r}; expected an integer from 1 to {most}")
    return size


def digits() -> LabelledSpins:
    """Handwritten digits of scikit-learn: 8 x 8 pixels, +1 where the ink (0 to 16) is 8 or more.

    Returns:
        Spins of shape (1797, 64), pixels row by row, and labels 0 to 9 of shape (1797,).

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "datasets.digits needs scikit-learn; install it with: pip install 'thermogen[study]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    spins = np.where(np.asarray(pixels) >= 8, 1.0, -1.0)
    return LabelledSpins(spins, np.asarray(labels))


def southern_women() -> Float[np.ndarray, "samples spins"]:
    """Which of 18 women attended which of 14 social events (Davis, Gardner and Gardner 1941).

    Returns:
        Spins of shape (18, 14), float64, +1 where a woman was present; events in order of their
        number.
    """
    graph = nx.davis_southern_women_graph()
    women, events = graph.graph["top"], sorted(graph.graph["bottom"], key=lambda e: int(e[1:]))
    present = [[graph.has_edge(woman, event) for event in events] for woman in women]
    return np.where(present, 1.0, -1.0)


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


def validate_spins(data: Any, name: str = "data") -> Float[np.ndarray, "samples spins"]:
    """Check that `data` is a table of spins.

    Args:
        data: Array of shape (n_samples, n_spins) with entries -1 and +1, of any real dtype.
        name: What the error messages call it.

    Returns:
        The same table as a numpy array of float64.

    Raises:
        ValueError: If it is not 2-D, is empty, masks entries, or holds another value; the
            message says where.
    """
    return spins_as_given(data, name).astype(float)


def spins_as_given(data: Any, name: str = "data") -> Num[np.ndarray, "samples spins"]:
    """`validate_spins`, but the table keeps its dtype, and is no copy."""
    table = np.asarray(as_array(name, data))
    _check_table(table, name)
    if table.dtype == bool:
        raise ValueError(f"{name} is boolean; expected spins -1 and +1 (see spins_from_bits)")
    bad = (table != 1) & (table != -1)
    if bad.any():
        hint = " (see spins_from_bits)" if (table[bad] == 0).all() else ""
        raise ValueError(f"{name} has {_first(bad, table)}; expected only -1 and +1{hint}")
    return table


def _check_table(table: np.ndarray, name: str) -> None:
    # jax's issubdtype, for it knows bfloat16 and the like as well.
    real = jnp.issubdtype(table.dtype, jnp.integer) or jnp.issubdtype(table.dtype, jnp.floating)
    if not real and table.dtype != bool:
        raise ValueError(f"{name} has dtype {table.dtype}; expected real numbers or booleans")
    if table.ndim != 2:
        raise ValueError(f"{name} has shape {table.shape}; expected (n_samples, n_spins)")
    if table.size == 0:
        raise ValueError(f"{name} is empty: it has shape {table.shape}")


def _first(where: np.ndarray, table: np.ndarray, lines: Sequence[int] | None = None) -> str:
    """Say which value stands first among the marked ones, and where."""
    row, column = (int(k) for k in np.argwhere(where)[0])
    place = f"row {row}" if lines is None else f"line {lines[row]}"
    base = "counted from 0" if lines is None else "columns counted from 0"
    return f"the value {table[row, column]} at {place}, column {column} ({base})"


def table_spins(table: np.ndarray, name: str, lines: Sequence[int] | None = None) -> np.ndarray:
    _check_table(table, name)
    if table.dtype != bool:
        zero, minus = table == 0, table == -1
        bad = ~(zero | minus | (table == 1))
        if bad.any():
            raise ValueError(
                f"{name} has {_first(bad, table, lines)}; expected 0 and 1, or -1 and +1"
            )
        if zero.any() and minus.any():
            raise ValueError(
                f"{name} mixes two conventions: {_first(zero, table, lines)} and "
                f"{_first(minus, table, lines)}; expected 0 and 1, or -1 and +1"
            )
    return np.where(table > 0, 1.0, -1.0)


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
        return _read_csv(path, gaps)
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


def _read_csv(path: Path, gaps: Sequence[str]) -> tuple[np.ndarray, list[int]]:
    """The table, NaN for a cell that is one of `gaps`, and the line number of each of its rows."""
    # One row after the other: an object for each would take a third more.
    table = array.array("d")
    lines: list[int] = []
    try:
        with (
            open_regular(path) as (stream, size),
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
        ):
            reader = csv.reader(_lines(text, size, path))
            header_allowed = True
            for cells in reader:
                # Cells that are all empty are a row of gaps, where an empty cell is one.
                if not "".join(cells).strip() and ("" not in gaps or len(cells) < 2):
                    continue
                unknown = [cell.strip() in gaps for cell in cells]
                values = [
                    np.nan if gap else _number(cell)
                    for cell, gap in zip(cells, unknown, strict=True)
                ]
                words = [value is None for value in values]
                if header_allowed and any(words) and all(map(operator.or_, words, unknown)):
                    header_allowed = False
                    continue
                header_allowed = False
                table.extend(_complete_row(cells, values, path, reader.line_num, gaps))
                lines.append(reader.line_num)
                if len(values) * len(lines) != len(table):
                    raise ValueError(
                        f"{path} is ragged: line {lines[-1]} has {len(values)} columns, "
                        f"line {lines[0]} has {(len(table) - len(values)) // (len(lines) - 1)}"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a text file of comma-separated values: {error}") from error
    if not lines:
        raise ValueError(f"{path} is empty: it has no line of {'cues' if gaps else 'numbers'}")
    return np.frombuffer(table).reshape(len(lines), -1), lines


def _lines(text: io.TextIOWrapper, size: int, path: Path) -> Iterator[str]:
    """The lines of a text of `size` bytes, however long the stream goes on."""
    # A cell takes two bytes or more in the file and eight in memory, twice while rows are joined.
    check_memory(f"{path}, read as a table,", 8 * size)
    while size > 0 and (line := text.readline(_MAX_LINE + 1)):
        if len(line) > _MAX_LINE:
            raise ValueError(f"{path} has a line of more than {_MAX_LINE} characters")
        size -= len(line)
        yield line


def _number(cell: str) -> float | None:
    word = cell.strip().lower()
    if word in ("true", "false"):
        return float(word == "true")
    try:
        return float(word)
    except ValueError:
        return None


def _complete_row(
    cells: list[str], values: list[float | None], path: Path, line: int, gaps: Sequence[str]
) -> list[float]:
    """The values, none of them missing: a slip in the first row is no header."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        column = values.index(None)
        marks = " or ".join(gap or "nothing" for gap in gaps)
        raise ValueError(
            f"{path} has {cells[column]!r} at line {line}, column {column} (columns counted from "
            "0); expected comma-separated numbers or true and false"
            + (f", and {marks} where unknown" if gaps else "")
        )
    return numbers
