"""Tables that other libraries hold: data frames, labelled and sparse arrays, tensors, lists."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import as_array, check_memory
from .._files import open_regular
from ._arrays import check_unpacked
from ._extra import imported
from ._grid import Grid, grid_of_numbers, grid_of_texts, texts_of_numbers


def grid_of_object(source: Any, name: str) -> Grid:
    """The table that an object of another library is; none of these is imported for it.

    Raises:
        ValueError: if it is no table of numbers and words.
    """
    if _is(source, "pandas", "DataFrame"):
        return _of_pandas(source, name)
    if _is(source, "polars", "DataFrame"):
        return _of_polars(source, name)
    if _is(source, "xarray", "DataArray") or _is(source, "xarray", "Dataset"):
        return _of_xarray(source, name)
    if hasattr(source, "toarray") and hasattr(source, "nnz"):
        check_memory(f"{name}, as a dense array,", 8.0 * np.prod(source.shape))
        return grid_of_numbers(name, np.asarray(source.toarray()))
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        # NumPy knows neither sparse tensors nor this type of numbers.
        check_memory(f"{name}, as a dense array,", 8.0 * np.prod(source.shape))
        dense = source.detach().cpu().to_dense()
        dense = dense.float() if "bfloat16" in str(dense.dtype) else dense
        return grid_of_numbers(name, dense.numpy())
    if isinstance(source, np.ma.MaskedArray):
        return grid_of_numbers(name, _filled(source))
    return _of_array(source, name)


def read_parquet(path: Path) -> Grid:
    """The table in a `.parquet` file.

    Raises:
        ImportError: if pandas or pyarrow is not installed.
        ValueError: if the file is damaged.
        OSError: if the file cannot be read.
    """
    pandas = imported("pandas", "a .parquet file")
    parquet = imported("pyarrow.parquet", "a .parquet file")
    with open_regular(path) as (stream, size):
        try:
            known = parquet.ParquetFile(stream).metadata
            # Spins may be packed to less than a bit.
            check_unpacked(f"{path}", 8.0 * known.num_rows * known.num_columns, 64 * size)
            stream.seek(0)
            frame = pandas.read_parquet(stream, engine="pyarrow")
        except MemoryError:
            raise
        except Exception as error:  # damage makes it raise almost anything
            raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    return _of_pandas(frame, str(path))


def _is(source: Any, library: str, kind: str) -> bool:
    """Whether an object is of that class; a library that nobody imported made none."""
    cls = getattr(sys.modules.get(library), kind, None)
    return isinstance(cls, type) and isinstance(source, cls)


def _of_pandas(frame: Any, name: str) -> Grid:
    pandas = sys.modules["pandas"]
    plain = isinstance(frame.columns, pandas.RangeIndex)
    header = None if plain else tuple(map(str, frame.columns))
    rows = None if isinstance(frame.index, pandas.RangeIndex) else tuple(map(str, frame.index))
    types = pandas.api.types
    columns = []
    for k in range(frame.shape[1]):
        column = frame.iloc[:, k]
        if types.is_bool_dtype(column.dtype) or not types.is_numeric_dtype(column.dtype):
            known = column.notna().to_numpy()
            columns.append(_texts(column.astype(object).to_numpy(), known))
        else:
            columns.append(column.to_numpy(dtype=float, na_value=np.nan))
    return _of_columns(name, columns, header, rows)


def _of_polars(frame: Any, name: str) -> Grid:
    polars = sys.modules["polars"]
    columns = []
    for series in frame.get_columns():
        if series.dtype.is_numeric():
            columns.append(series.cast(polars.Float64).to_numpy())
        else:
            known = series.is_not_null().to_numpy()
            columns.append(_texts(np.array([*series.to_list(), None], object)[:-1], known))
    return _of_columns(name, columns, tuple(frame.columns), None)


def _of_xarray(data: Any, name: str) -> Grid:
    if _is(data, "xarray", "Dataset"):
        dimensions = {variable.dims for variable in data.data_vars.values()}
        if len(data.data_vars) == 1:
            data = next(iter(data.data_vars.values()))
        elif len(dimensions) == 1 and len(next(iter(dimensions))) == 1:
            return _of_pandas(data.to_dataframe()[list(data.data_vars)], name)
        else:
            raise ValueError(
                f"{name} has variables {', '.join(map(str, data.data_vars))}; expected one of "
                "two dimensions, or columns along one dimension: choose one, data[variable]"
            )
    if data.ndim != 2:
        raise ValueError(
            f"{name} has dimensions {data.dims}; expected samples and spins: use "
            "stack(sample=(...)) and transpose"
        )
    rows, header = (
        tuple(map(str, data.indexes[axis])) if axis in data.indexes else None for axis in data.dims
    )
    return grid_of_numbers(name, np.asarray(data.values), header=header, rows=rows)


def _of_columns(
    name: str,
    columns: Sequence[np.ndarray],
    header: tuple[str, ...] | None,
    rows: tuple[str, ...] | None,
) -> Grid:
    """The grid of columns, each of numbers or of texts."""
    check_memory(f"{name}, read as a table,", 16.0 * sum(map(len, columns)))
    if not any(column.dtype == object for column in columns):
        table = np.stack(columns, axis=1) if columns else np.zeros((len(rows or ()), 0))
        return grid_of_numbers(name, table, header=header, rows=rows)
    texts: dict[str | None, int] = {}
    codes = np.empty((len(columns[0]), len(columns)), np.intc)
    for k, column in enumerate(columns):
        if column.dtype != object:
            column = texts_of_numbers(column)
        codes[:, k] = [texts.setdefault(cell, len(texts)) for cell in column.tolist()]
    return grid_of_texts(name, codes, list(texts), header=header, rows=rows)


def _texts(column: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.array(
        [str(cell) if there else None for cell, there in zip(column, known, strict=True)], object
    )


def _filled(source: np.ma.MaskedArray) -> np.ndarray:
    if not np.ma.getmaskarray(source).any():
        return source.data
    return np.where(np.ma.getmaskarray(source), np.nan, source.data)


def _of_array(source: Any, name: str) -> Grid:
    """Arrays, and nested lists, which may hold words and None."""
    if isinstance(source, list | tuple) and any(isinstance(row, list | tuple) for row in source):
        widths = {len(row) if isinstance(row, list | tuple) else 1 for row in source}
        if len(widths) > 1:
            raise ValueError(f"{name} is ragged: its rows have {sorted(widths)} columns")
        cells = [cell for row in source for cell in row]
        if any(cell is None or isinstance(cell, str) for cell in cells):
            source = np.array([*cells, None], object)[:-1].reshape(len(source), -1)
    array = source if isinstance(source, np.ndarray) else as_array(name, source)
    array = np.asarray(array)
    if array.dtype.kind in "OUST" and array.ndim == 2:
        known = np.array([cell is not None and cell == cell for cell in array.flat], bool)
        columns = _texts(array.ravel(), known).reshape(array.shape).T
        return _of_columns(name, list(columns), None, None)
    return grid_of_numbers(name, array)
