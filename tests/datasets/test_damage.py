"""Files that are damaged, or made to harm: refused by name, in little memory and time."""

import gzip
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from thermogen import datasets
from thermogen._checks import total_memory


def test_what_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("thermogen._files._UNPACKED", 2**20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"1,0\n" * 10**6))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bomb.csv.gz would unpack to more than .* GiB"):
            datasets.read(tmp_path / "bomb.csv.gz")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        shape, chunks = (10**5, 10**4), (10**3, 10**3)
        file.create_dataset("spins", shape, "f4", chunks=chunks, compression="gzip")
    with pytest.raises(
        ValueError, match=r"bomb.h5 .*array spins would take .* GiB, from a file of"
    ):
        datasets.read(tmp_path / "bomb.h5")


def test_what_does_not_fit_is_refused_before_it_is_made(tmp_path):
    side = int(total_memory() ** 0.5)
    wide = sparse.coo_array(([1.0], ([0], [0])), shape=(side, side))
    with pytest.raises(ValueError, match="source, as a dense array, needs about .* GB of memory"):
        datasets.read(wide)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("spins", (side, side), "f8", chunks=True)
    with pytest.raises(ValueError, match="a.h5 .*array spins needs about .* GB of memory"):
        datasets.read(tmp_path / "a.h5")


def test_memory_of_a_text_is_a_few_times_that_of_its_spins(tmp_path):
    rows, n = 4000, 250
    (tmp_path / "a.csv").write_text((",".join("10" * (n // 2)) + "\n") * rows)
    tracemalloc.start()
    try:
        spins = datasets.load(tmp_path / "a.csv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert spins.shape == (rows, n) and peak < 2.6 * spins.nbytes


def test_parts_in_other_files_are_not_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(6))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("spins", (2, 3), "u1", external=[(str(tmp_path / "secret"), 0, 6)])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["spins"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "spins")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        layout = h5py.VirtualLayout((2, 3), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "spins", (2, 3))
        file.create_virtual_dataset("spins", layout)
    for name, message in (
        ("a.h5", "lies in other files"),
        ("b.h5", "holds 0 2-D arrays"),
        ("c.h5", "lies in other files"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*{message}"):
            datasets.read(tmp_path / name)


def test_objects_of_matlab_are_not_tables(tmp_path):
    from scipy import io

    cells = np.array([["a", "b"], ["c", "d"]], object)
    io.savemat(tmp_path / "a.mat", {"cells": cells, "structure": {"x": np.ones((2, 2))}})
    with pytest.raises(ValueError, match=r"a.mat .*holds 0 2-D arrays among: nothing"):
        datasets.read(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("a.h5", "h5py"), ("a.parquet", "pandas"), ("a.parquet", "pyarrow.parquet")],
)
def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / name).write_bytes(b"\x89HDF")
    package = missing.partition(".")[0]
    with pytest.raises(
        ImportError,
        match=rf"a \{tmp_path.joinpath(name).suffix} file needs {package}; .*\[tables\]",
    ):
        datasets.read(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([[1, 0], [1]], r"source is ragged: its rows have \[1, 2\] columns"),
        ([1, -1], r"source has shape \(2,\)"),
        (np.ones((2, 2), complex), "source has dtype complex128"),
        (np.array([[1, 2.5]]), "source has the value 2.5 at row 0, column 1 "),
        ([["a", 1]], "source has 'a' at row 0, column 0"),
        (3.0, "source has shape"),
        ([], "source has shape"),
        (np.ones((0, 2)), "source is empty"),
    ],
)
def test_objects_that_are_no_tables(source, message):
    with pytest.raises(ValueError, match=message):
        datasets.read(source)


def test_frames_that_are_no_tables():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    frame = pandas.DataFrame({"a": [1, 0], "when": pandas.to_datetime(["2020-01-01", None])})
    with pytest.raises(ValueError, match="'2020-01-01 00:00:00' at row 0, column 'when'"):
        datasets.read(frame)
    with pytest.raises(ValueError, match=r"is empty: it has shape \(0, 0\)"):
        datasets.read(pandas.DataFrame())
    with pytest.raises(ValueError, match=r"source has dimensions \('chain', 'draw', 'spin'\)"):
        datasets.read(xarray.DataArray(np.ones((2, 2, 2)), dims=("chain", "draw", "spin")))
    several = xarray.Dataset({"a": ("x", [1, 0]), "b": (("x", "y"), np.ones((2, 2)))})
    with pytest.raises(ValueError, match="source has variables a, b; expected one of two"):
        datasets.read(several)
