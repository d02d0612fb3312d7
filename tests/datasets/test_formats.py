"""One table in every kind of file and object comes back as the same spins, names and labels."""

import gzip

import numpy as np
import pytest
from scipy import io, sparse

import thermogen as tg
from thermogen import datasets

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


def test_objects():
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(BITS, dims=("sample", "spin"), coords={"spin": list(NAMES)})
    variables = {name: ("sample", BITS[:, k]) for k, name in enumerate(NAMES)}
    masked = np.ma.masked_invalid(BITS)
    for source in (BITS, masked, array, xarray.Dataset({"x": array}), xarray.Dataset(variables)):
        table = datasets.read(source)
        np.testing.assert_array_equal(table.spins, SPINS)
        assert table.names == (NAMES if hasattr(source, "dims") else None)
    lists = [[None if b != b else int(b) for b in row] for row in BITS]
    np.testing.assert_array_equal(datasets.read(lists).spins, SPINS)
    full = (SPINS[:3] + 1) / 2
    for kind in (sparse.csr_array, sparse.coo_matrix):
        np.testing.assert_array_equal(datasets.read(kind(full)).spins, SPINS[:3])
    np.testing.assert_array_equal(datasets.read(full == 1).spins, SPINS[:3])
    np.testing.assert_array_equal(datasets.read(full.tolist()).spins, SPINS[:3])


def test_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(BITS, requires_grad=True)
    np.testing.assert_array_equal(tg.datasets.read(tensor).spins, SPINS)
