"""Results as tables of pandas and xarray, with the names of the spins."""

import functools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._checks import as_array
from ..datasets import Table, read
from ..kinetics import BoundStates, Certificate
from ..learning import FitResult, Path
from ..retrieval import Recall
from ..search import Kind, Library
from ._model import checked_names, needed


class _Table(NamedTuple):
    """Columns of one entry a row, and of one entry a spin and row.

    Attributes:
        row: what a row is.
        columns: arrays of shape `(rows,)`, by name.
        what: what the entries of spins are; None where there are none.
        of_spins: shape `(rows, n)`.
    """

    row: str
    columns: dict[str, np.ndarray]
    what: str | None = None
    of_spins: Float[np.ndarray, "rows n"] | None = None


def from_pandas(
    frame: Any,
    *,
    labels: str | int | None = None,
    columns: str | Sequence[str | int] | None = None,
    missing: float | int | str | Sequence[float | int | str] = (),
    threshold: float | int | str | None = None,
) -> Table:
    """Samples in a `pandas.DataFrame` as spins, with the names of its columns and its index.

    That is `datasets.read` of the frame, which takes files and frames of other libraries too.

    Args:
        frame: one sample a row: bits, spins, booleans, or words such as yes and no.
        labels: the column that holds class labels.
        columns: the columns of spins; all others if not given.
        missing: further values that stand for what is missing, beside NaN, None and NA.
        threshold: values above it are +1, others -1: a number, `"mean"`, `"median"` or `"otsu"`.

    Raises:
        TypeError: for what is no data frame.
        ValueError: for what is no table of spins; the message says where.
        ImportError: if pandas is not installed.

    !!! example

        ```python
        import pandas
        import thermogen as tg

        frame = pandas.DataFrame({"rain": [1, 0], "wind": [0, 0], "day": ["Mo", "Tu"]})
        table = tg.interop.from_pandas(frame, labels="day")

        assert table.spins.tolist() == [[1, -1], [-1, -1]] and table.names == ("rain", "wind")
        ```
    """
    if not isinstance(frame, needed("pandas", "from_pandas").DataFrame):
        raise TypeError(f"frame must be a pandas.DataFrame, got {type(frame).__name__}")
    return read(frame, labels=labels, columns=columns, missing=missing, threshold=threshold)


def to_pandas(result: Any, names: Iterable[Hashable] | None = None) -> Any:
    """A result as a `pandas.DataFrame`, one row a state, answer, model, step or draw.

    | result | rows | columns |
    |---|---|---|
    | `Library` | states | free energy, curvature, hits, ..., magnetization of each spin |
    | `BoundStates` | states | weight, escape time, their intervals, ..., magnetizations |
    | `Certificate` | candidates | set, escape time, ..., spins of the core |
    | `Recall` | answers | probability, its logarithm, spins |
    | `FitResult` | steps | loss |
    | `learning.Path` | models | losses, criterion, number of couplings of each degree |
    | draws, `(chains, draws, n)` or `(samples, n)` | chain and draw, or sample | spins |

    Times are in sweeps, energies in energy units. Ends of 95 % intervals are columns `..._low` and
    `..._high`.

    Args:
        result: one result, of known numbers.
        names: what the spins are called; their numbers by default.

    Raises:
        TypeError: for another kind of result.
        ValueError: for names of another number, or one that another column has.
        ImportError: if pandas is not installed.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        frame = tg.interop.to_pandas(library, names=["a", "b", "c"])

        assert frame.loc[0, "a"] == library.magnetizations[0, 0]
        ```
    """
    pandas = needed("pandas", "to_pandas")
    if (draws := _draws(result)) is not None:
        labels = list(checked_names(names, draws.shape[-1]))
        if draws.ndim == 3:
            ranges = map(range, draws.shape[:2])
            index = pandas.MultiIndex.from_product(ranges, names=["chain", "draw"])
        else:
            index = pandas.RangeIndex(len(draws), name="sample")
        return pandas.DataFrame(draws.reshape(-1, draws.shape[-1]), index, labels)
    row, columns, _, of_spins = _table(result)
    frame = pandas.DataFrame(columns)
    frame.index.name = row
    if of_spins is None:
        return frame
    labels = list(checked_names(names, of_spins.shape[1]))
    taken = set(columns) & set(labels)
    if taken:
        raise ValueError(f"names must not be those of other columns: {', '.join(sorted(taken))}")
    spins = pandas.DataFrame(of_spins, frame.index, labels)
    return pandas.concat([frame, spins], axis=1)


def to_xarray(result: Any, names: Iterable[Hashable] | None = None) -> Any:
    """Draws as an `xarray.DataTree` for ArviZ, any other result as an `xarray.Dataset`.

    Draws of several chains, `(chains, draws, n)`, become the variable `spins` of the group
    `posterior` with dimensions `chain`, `draw` and `spin`, so that `arviz_stats.summary`, `ess` and
    `rhat` label them by the names of the spins. All else that `to_pandas` takes becomes a data set
    with one dimension for its rows, and `spin`.

    Args:
        result: one result, of known numbers.
        names: what the spins are called; their numbers by default.

    Raises:
        TypeError: for another kind of result, and for draws without chains.
        ValueError: for names of another number.
        ImportError: if xarray is not installed.

    !!! example

        ```python
        import arviz_stats
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        key = jax.random.key(0)
        draws = tg.sample(tg.Gibbs(), energy, 0.2, key=key, n_chains=4, n_sweeps=50)
        tree = tg.interop.to_xarray(draws, names=["a", "b", "c"])

        assert tree.posterior.spins.dims == ("chain", "draw", "spin")
        assert list(arviz_stats.summary(tree).index) == ["spins[a]", "spins[b]", "spins[c]"]
        ```
    """
    xarray = needed("xarray", "to_xarray")
    if (draws := _draws(result)) is not None:
        if draws.ndim != 3:
            raise TypeError(
                f"draws must have shape (chains, draws, spins), got {draws.shape}: take "
                "draws[None] for one chain"
            )
        labels = list(checked_names(names, draws.shape[2]))
        dims = {"chain": np.arange(len(draws)), "draw": np.arange(draws.shape[1]), "spin": labels}
        posterior = xarray.Dataset({"spins": (tuple(dims), draws)}, dims)
        return xarray.DataTree.from_dict({"posterior": posterior})
    row, columns, what, of_spins = _table(result)
    variables: dict[str, Any] = {name: (row, column) for name, column in columns.items()}
    n_rows = len(next(iter(columns.values())))
    coordinates: dict[str, Any] = {row: np.arange(n_rows)}
    if of_spins is not None:
        variables[str(what)] = ((row, "spin"), of_spins)
        coordinates["spin"] = list(checked_names(names, of_spins.shape[1]))
    return xarray.Dataset(variables, coordinates)


def _draws(result: Any) -> np.ndarray | None:
    """Draws as an array, if the result is one."""
    if isinstance(result, tuple) or not hasattr(result, "ndim"):
        return None
    draws = np.asarray(as_array("draws", result))
    if draws.ndim not in (2, 3):
        raise TypeError(
            f"draws must have shape (chains, draws, spins) or (samples, spins), got {draws.shape}"
        )
    return draws


@functools.singledispatch
def _table(result: Any) -> _Table:
    raise TypeError(
        "result must be a Library, BoundStates, Certificate, Recall, FitResult, Path or an array "
        f"of draws, got {type(result).__name__}"
    )


@_table.register
def _(result: Library) -> _Table:
    held = result[:]
    columns = {
        "free_energy": held.free_energies,
        "curvature": held.curvatures,
        "residual": held.residuals,
        "hits": held.hits,
        "multiplicity": held.multiplicity,
        "kind": np.array([Kind(k).name.lower() for k in held.kind], str),
    }
    return _Table("state", columns, "magnetization", np.asarray(held.magnetizations, float))


@_table.register
def _(result: BoundStates) -> _Table:
    columns = {
        **_with_ends("weight", result.weights, result.weight_intervals),
        **_with_ends("escape_time", result.escape_times, result.intervals),
        "free_energy": result.free_energies,
        "multiplicity": result.multiplicity,
        "candidate": result.representatives,
    }
    return _Table("state", columns, "magnetization", np.asarray(result.magnetizations, float))


@_table.register
def _(result: Certificate) -> _Table:
    columns = {
        "set": result.group,
        "bound": result.bound,
        **_with_ends("escape_time", result.escape_times, result.intervals),
        "escapes": result.n_escapes,
        "exposure": result.exposures,
        "inner_time": result.inner_times,
        "multiplicity": result.multiplicity,
    }
    return _Table("candidate", columns, "core", np.asarray(result.cores, float))


@_table.register
def _(result: Recall) -> _Table:
    log_probabilities = np.asarray(result.log_probabilities)
    if log_probabilities.ndim != 1:
        raise TypeError("result must be the answers to one cue: take one by jax.tree.map")
    used = log_probabilities > -np.inf
    columns = {
        "probability": np.asarray(result.probabilities)[used],
        "log_probability": log_probabilities[used],
    }
    answers = np.asarray(result.configurations, float)[used]
    return _Table("answer", columns, "answer_spins", answers)


@_table.register
def _(result: FitResult) -> _Table:
    return _Table("step", {"loss": np.asarray(result.history)})


@_table.register
def _(result: Path) -> _Table:
    counts = {f"degree_{d}": result.counts[:, k] for k, d in enumerate(result.degrees.tolist())}
    columns = {
        **counts,
        "training": result.training,
        "held_out": result.held_out,
        "criterion": result.criterion,
        "result": np.array([str(code.names) for code in result.results], str),
    }
    return _Table("model", columns)


def _with_ends(name: str, values: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values, f"{name}_low": ends[:, 0], f"{name}_high": ends[:, 1]}
