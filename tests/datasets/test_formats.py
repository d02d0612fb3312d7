"""One table in every kind of file and object comes back as the same spins, names and labels."""

import gzip
import pathlib
import re

import numpy as np
import pytest
from scipy import io, sparse

from thermogen import datasets
from thermogen.datasets import _read

NAMES = ("a", "b", "c")
SPINS = np.array([[1.0, -1, 1], [-1, -1, 1], [1, 1, -1], [-1, 1, 0]])
KINDS = ["x", "y", "x", "z"]
BITS = np.where(SPINS == 0, np.nan, (SPINS + 1) / 2)


def text(separator=",", end="\n"):
    rows = [[*NAMES, "kind"]]
    for row, kind in zip(SPINS, KINDS, strict=True):
        rows.append([{1: "1", -1: "0", 0: "NA"}[s] for s in row] + [kind])
    return end.join(separator.join(row) for row in rows) + end


def arff():
    lines = [f"@attribute {name} {{0,1}}" for name in NAMES]
    rows = text().replace("NA", "?").splitlines()[1:]
    head = ["% flowers", "@relation flowers", "", *lines, "@attribute 'kind' {x,y,z}", "@DATA"]
    return "\n".join([*head, *rows]) + "\n"


def frame(library):
    module = pytest.importorskip(library)
    columns = {
        name: [None if b != b else int(b) for b in BITS[:, k]] for k, name in enumerate(NAMES)
    }
    return module.DataFrame(columns | {"kind": KINDS})


FILES = {
    ".csv": lambda path: path.write_text(text()),
    ".tsv": lambda path: path.write_text(text("\t")),
    ".txt": lambda path: path.write_text(text(" ")),
    ".csv.gz": lambda path: path.write_bytes(gzip.compress(text(";").encode())),
    ".tsv.gz": lambda path: path.write_bytes(gzip.compress(text("\t").encode())),
    ".txt.gz": lambda path: path.write_bytes(gzip.compress(text("|").encode())),
    ".arff": lambda path: path.write_text(arff()),
    ".parquet": lambda path: frame("pandas").to_parquet(path),
}
FRAMES = ["pandas", "polars"]


def check(table):
    np.testing.assert_array_equal(table.spins, SPINS)
    assert table.spins.dtype == np.float64
    assert table.names == NAMES
    assert table.classes == ("x", "y", "z") and table.labels.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("suffix", FILES)
def test_tables_with_names_and_labels_in_files(tmp_path, suffix):
    path = tmp_path / f"flowers{suffix}"
    FILES[suffix](path)
    check(datasets.read(path, labels="kind"))
    check(datasets.read(str(path), labels="kind", columns="a,b,2"))


@pytest.mark.parametrize("library", FRAMES)
def test_tables_with_names_and_labels_in_frames(library):
    check(datasets.read(frame(library), labels="kind"))


def hdf5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["group/table"] = BITS
        file["kind"] = KINDS


def matlab_7(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["table"] = BITS.T
        file["kind"] = np.array([[1.0, 2, 1, 3]])
        file["title"] = np.frombuffer("flowers".encode("utf-16-le"), np.uint16)[None, :]
        file["title"].attrs["MATLAB_class"] = np.bytes_("char")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


ARRAYS = {
    ".npy": lambda path: np.save(path, BITS),
    ".npz": lambda path: np.savez(path, data=BITS, kind=KINDS),
    ".h5": hdf5,
    ".hdf5": hdf5,
    ".mat": lambda path: io.savemat(path, {"table": BITS, "kind": [1, 2, 1, 3], "text": "flowers"}),
    "-7.mat": matlab_7,
}


@pytest.mark.parametrize("suffix", ARRAYS)
def test_arrays_in_files(tmp_path, suffix):
    path = tmp_path / f"flowers{suffix}"
    ARRAYS[suffix](path)
    np.testing.assert_array_equal(datasets.load(path), SPINS)
    if suffix != ".npy":
        table = datasets.read(path, labels="kind")
        np.testing.assert_array_equal(table.spins, SPINS)
        assert table.labels.tolist() == [0, 1, 0, 2]
        assert table.classes == (("1", "2", "3") if "mat" in suffix else ("x", "y", "z"))


def xarray_array():
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(BITS, dims=("sample", "spin"), coords={"spin": list(NAMES)})


def xarray_columns():
    xarray = pytest.importorskip("xarray")
    return xarray.Dataset({name: ("sample", BITS[:, k]) for k, name in enumerate(NAMES)})


def tensor():
    return pytest.importorskip("torch").tensor(BITS, requires_grad=True)


def test_arrays_of_matlab(tmp_path):
    """Every type of numbers, sparse ones, packed or not; neighbours of other kinds are passed."""
    spins = np.array([[1, -1, 1, -1], [1, 1, -1, -1]])
    path = tmp_path / "a.mat"
    for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"):
        values = (spins == 1).astype(dtype)
        for table in (values, sparse.csc_matrix(values.astype(float))):
            others = {"text": "abc", "cells": np.array([1, "a"], object), "z": np.ones(3) * 1j}
            for packed in (True, False):
                io.savemat(path, {**others, "spins": table}, do_compression=packed)
                np.testing.assert_array_equal(datasets.load(path), spins)
    whole = path.read_bytes()
    path.write_bytes(whole[:126] + b"xx" + whole[128:])
    with pytest.raises(ValueError, match="a.mat cannot be read as a MATLAB file: its first bytes"):
        datasets.load(path)


# Each with whether it has names.
OBJECTS = {
    "pandas.DataFrame": (lambda: frame("pandas")[list(NAMES)], True),
    "polars.DataFrame": (lambda: frame("polars")[list(NAMES)], True),
    "xarray.DataArray": (xarray_array, True),
    "xarray.Dataset": (xarray_columns, True),
    "xarray.Dataset of one array": (lambda: xarray_array().to_dataset(name="x"), True),
    "scipy.sparse": (lambda: sparse.csr_array(BITS), False),
    "scipy.sparse by coordinates": (lambda: sparse.coo_matrix(BITS), False),
    "torch.Tensor": (tensor, False),
    "torch.Tensor of bfloat16": (lambda: tensor().bfloat16(), False),
    "torch.Tensor (sparse)": (lambda: tensor().to_sparse(), False),
    "numpy.ndarray": (lambda: BITS, False),
    "numpy.ndarray of objects": (lambda: np.where(SPINS == 0, None, SPINS == 1), False),
    "numpy.ma.MaskedArray": (lambda: np.ma.masked_invalid(BITS), False),
    "numpy.ma.MaskedArray of integers": (
        lambda: np.ma.MaskedArray(np.where(SPINS == 0, 7, SPINS).astype(int), SPINS == 0),
        False,
    ),
    "list": (lambda: [[None if b != b else int(b) for b in row] for row in BITS], False),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects(kind):
    make, named = OBJECTS[kind]
    table = datasets.read(make())
    np.testing.assert_array_equal(table.spins, SPINS)
    assert table.names == (NAMES if named else None)


def test_booleans():
    for source in (SPINS[:3] == 1, (SPINS[:3] == 1).tolist(), sparse.csr_array(SPINS[:3] == 1)):
        np.testing.assert_array_equal(datasets.read(source).spins, SPINS[:3])


def test_the_guide_lists_what_is_tried():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    files = {suffix.removeprefix("-7") for suffix in (*FILES, *ARRAYS)}
    assert {name for name in listed if name.startswith(".")} == files == set(_read._READERS)
    assert {name for name in listed if "a" < name} == {kind.split(" ")[0] for kind in OBJECTS}


EVERY = {**FILES, **ARRAYS}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", EVERY)
def test_damage_is_an_error_that_names_the_file(tmp_path, suffix):
    """Bytes changed, the end cut off, another kind of file: never another exception."""
    path = tmp_path / f"flowers{suffix}"
    EVERY[suffix](path)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    for trial in range(120):
        damaged = bytearray(whole)
        for place in draw.integers(len(whole), size=1 + trial % 8):
            damaged[place] = draw.integers(256)
        if trial % 3 == 0:
            damaged = damaged[: draw.integers(len(whole))]
        if trial % 40 == 7:
            damaged = draw.bytes(500)
        path.write_bytes(bytes(damaged))
        try:
            table = datasets.read(path, labels=None if suffix == ".npy" else "kind")
        except (ValueError, OSError) as error:
            assert path.name in str(error)
        else:
            assert np.isin(table.spins, (-1, 0, 1)).all()
