"""Any table of spins with gaps, written in any way, comes back as it was."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import io

from thermogen import datasets

tables = hnp.arrays(
    np.int8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.sampled_from([-1, 0, 1]),
)
# A table of zeros among +1 and -1 alone is told apart by its gaps.
WORDS = [
    ("1", "0"),
    ("1", "-1"),
    ("+1", "-1"),
    ("1.0", "0.0"),
    ("yes", "no"),
    ("TRUE", "FALSE"),
    ("T", "f"),
    ("y", "N"),
    ("on", "off"),
]
GAPS = ["NA", "?", "nan", ".", "null", "None", "NaN"]


@st.composite
def written(draw):
    """A table, how it was written, and what was written."""
    table = draw(tables)
    up, down = draw(st.sampled_from(WORDS))
    gap = draw(st.sampled_from([*GAPS, ""] if table.shape[1] > 1 else GAPS))
    separator = draw(st.sampled_from(",;\t| " if gap else ",;\t|"))
    quote = '"' if draw(st.booleans()) else ""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    words = {1: up, -1: down, 0: gap}
    rows = [[words[int(s)] for s in row] for row in table]
    names = None
    if draw(st.booleans()):
        names = tuple(f"spin {k}" if separator != " " else f"s{k}" for k in range(table.shape[1]))
        rows = [list(names), *rows]
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    text = "# a comment" + end if draw(st.booleans()) else ""
    text += end.join(lines) + (end if draw(st.booleans()) or not quote else "")
    return table, names, text


@pytest.mark.filterwarnings("ignore:.*has no value in any sample")
@settings(max_examples=300)
@given(
    written(),
    st.sampled_from([".csv", ".txt", ".csv.gz", ".txt.gz"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_texts(tmp_path_factory, case, suffix, encoding):
    table, names, text = case
    path = tmp_path_factory.mktemp("text") / f"a{suffix}"
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    found = datasets.read(path)
    np.testing.assert_array_equal(found.spins, table)
    assert found.names == names


def save_hdf5(path, values):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("spins", data=values, compression="gzip")


def save_parquet(path, values):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(values, columns=[f"x{k}" for k in range(values.shape[1])]).to_parquet(path)


SAVED = {
    ".npy": np.save,
    ".npz": lambda path, values: np.savez_compressed(path, spins=values),
    ".mat": lambda path, values: io.savemat(path, {"spins": values}, do_compression=True),
    ".h5": save_hdf5,
    ".parquet": save_parquet,
}


@pytest.mark.filterwarnings("ignore:.*has no value in any sample")
@settings(max_examples=100)
@given(tables, st.sampled_from(sorted(SAVED)), st.booleans(), st.sampled_from([">f8", "<f4"]))
def test_arrays(tmp_path_factory, table, suffix, as_bits, dtype):
    path = tmp_path_factory.mktemp("array") / f"a{suffix}"
    values = np.where(table == 0, np.nan, (table + 1) / 2 if as_bits else table)
    SAVED[suffix](path, values.astype(np.float32 if suffix == ".parquet" else dtype))
    np.testing.assert_array_equal(datasets.read(path).spins, table)


@pytest.mark.filterwarnings("ignore:.*has no value in any sample")
@settings(max_examples=100)
@given(tables, st.sampled_from(["pandas", "polars", "nullable", "list", "words"]))
def test_objects(table, kind):
    cells = [[{1: True, -1: False, 0: None}[int(s)] for s in row] for row in table]
    names = [f"x{k}" for k in range(table.shape[1])]
    if kind == "polars":
        polars = pytest.importorskip("polars")
        columns = dict(zip(names, map(list, zip(*cells, strict=True)), strict=True))
        source = polars.DataFrame(columns, schema=dict.fromkeys(names, polars.Boolean))
    elif kind in ("pandas", "nullable"):
        pandas = pytest.importorskip("pandas")
        dtype = "boolean" if kind == "nullable" else object
        source = pandas.DataFrame(cells, columns=names, dtype=dtype)
    else:
        texts = {True: "yes", False: "no", None: None if kind == "list" else "?"}
        source = [[texts[cell] for cell in row] for row in cells]
    found = datasets.read(source)
    np.testing.assert_array_equal(found.spins, table)
    assert found.names == (None if isinstance(source, list) else tuple(names))
