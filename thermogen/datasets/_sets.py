"""Data sets that are made, or come with a package."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._checks import as_integer

_MAX_ADDER_BITS = 12  # 4**12 rows of 37 spins: 5 GB
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

    !!! example

        ```python
        import thermogen as tg

        assert tg.datasets.bars_and_stripes(3).shape == (14, 9)
        ```
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

    !!! example

        ```python
        import thermogen as tg

        data = tg.datasets.digits()

        assert data.spins.shape == (1797, 64) and set(data.labels) == set(range(10))
        ```
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

    !!! example

        ```python
        import thermogen as tg

        women = tg.datasets.southern_women()

        assert women.shape == (18, 14) and (women == 1).sum() == 89
        ```
    """
    import networkx as nx

    graph = nx.davis_southern_women_graph()
    women, events = graph.graph["top"], sorted(graph.graph["bottom"], key=lambda e: int(e[1:]))
    present = [[graph.has_edge(woman, event) for event in events] for woman in women]
    return np.where(present, 1.0, -1.0)
