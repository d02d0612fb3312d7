"""What makes a table one of spins: its values, and errors that say where one is none."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from .._checks import as_array


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

    !!! example

        ```python
        import numpy as np
        import thermogen as tg

        spins = tg.datasets.validate_spins(np.array([[1, -1]], dtype="int8"))

        assert spins.dtype == float
        ```
    """
    return spins_as_given(data, name).astype(float)


def spins_as_given(
    data: Any, name: str = "data", *, gaps: bool = False
) -> Num[np.ndarray, "samples spins"]:
    """`validate_spins`, but the table keeps its dtype, and is no copy.

    With `gaps` it may hold 0 where a spin is unknown; masked entries of an `np.ma` array are.
    """
    if gaps and isinstance(data, np.ma.MaskedArray):
        data = data.filled(0)
    table = np.asarray(as_array(name, data))
    _check_table(table, name)
    if table.dtype == bool:
        raise ValueError(f"{name} is boolean; expected spins -1 and +1 (see spins_from_bits)")
    bad = (table != 1) & (table != -1)
    if not bad.any():
        return table
    is_zero = table == 0
    if not gaps:
        hint = " (see spins_from_bits)" if is_zero[bad].all() else ""
        raise ValueError(f"{name} has {_first(bad, table)}; expected only -1 and +1{hint}")
    bad &= ~is_zero
    if bad.any():
        raise ValueError(
            f"{name} has {_first(bad, table)}; expected -1 and +1, and 0 where a spin is unknown"
        )
    if not (table == -1).any():
        raise ValueError(
            f"{name} has no values but 0 and 1, which are bits (see spins_from_bits); among spins "
            "-1 and +1 a 0 says that one is unknown"
        )
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


def _first(where: np.ndarray, table: np.ndarray) -> str:
    """Say which value stands first among the marked ones, and where."""
    row, column = (int(k) for k in np.argwhere(where)[0])
    return f"the value {table[row, column]} at row {row}, column {column} (counted from 0)"
