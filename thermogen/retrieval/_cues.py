"""Tables of cues on disk: configurations with gaps."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..datasets import read_table


def load_cues(path: str | os.PathLike[str]) -> Float[np.ndarray, "cues n"]:
    """Read a table of cues, one a row: bits or spins, and marks for what is unknown.

    Known entries are 0 and 1, -1 and +1, or words, and unknown ones empty cells, `?`, NaN and other
    marks, as [`datasets.read`][thermogen.datasets.read] has them; 0 is the bit 0, never a gap.

    Args:
        path: A file of any kind that `datasets.read` takes.

    Returns:
        +1 or -1 where a spin is known, 0 where it is not, in float64, shape `(cues, n)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a package is missing that reads such files.
        ValueError: If the file is not such a table; the message says what is wrong and where.

    !!! example

        ```python
        from pathlib import Path

        import thermogen as tg

        Path("cues.csv").write_text("1,?,0")

        assert tg.retrieval.load_cues("cues.csv").tolist() == [[1, 0, -1]]
        ```
    """
    return read_table(Path(path)).spins
