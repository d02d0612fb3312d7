"""Spins and weights of files of arrays and of comma-separated values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thermogen import datasets

# --- load: what it reads

EXPECTED = np.array([[1, -1, 1], [-1, -1, 1]], dtype=np.int8)
VALUES = [
    (EXPECTED + 1) // 2,
    (EXPECTED + 1).astype(np.float32) / 2,
    EXPECTED,
    EXPECTED.astype(np.float64),
    EXPECTED == 1,
    ((EXPECTED + 1) // 2).astype(np.uint8),
    np.asfortranarray(EXPECTED),
]


def _assert_spins(actual, expected=EXPECTED):
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("values", VALUES)
def test_load_npy(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    _assert_spins(datasets.load(tmp_path / "a.npy"))
    _assert_spins(datasets.load(str(tmp_path / "a.npy")))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "arrays",
    [
        {"anything": EXPECTED},
        {"anything": EXPECTED, "labels": np.arange(2)},
        {"spins": EXPECTED, "data": -EXPECTED, "other": -EXPECTED},
        {"data": EXPECTED, "other": -EXPECTED},
        {"spins": EXPECTED, "names": np.array(["a", None])},  # an unreadable neighbour
    ],
)
def test_load_npz(tmp_path, save, arrays):
    save(tmp_path / "a.npz", **arrays)
    _assert_spins(datasets.load(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "text",
    [
        "1,0,1\n0,0,1\n",
        "1,0,1\n0,0,1",
        "1, -1, +1\r\n-1, -1, 1\r\n",
        "1.0,0.0,1e0\n\n0,0,1\n\n",
        "True,FALSE,true\nfalse,false,true\n",
        "\ufeff1,0,1\n0,0,1\n",
        "a,b,c\n1,0,1\n0,0,1\n",
        '\ufeff"a, x","b","c"\n"1","0","1"\n0,0,1\n',
    ],
)
def test_load_csv(tmp_path, text):
    (tmp_path / "a.CSV").write_bytes(text.encode())
    _assert_spins(datasets.load(tmp_path / "a.CSV"))


@pytest.mark.parametrize(("value", "spin"), [(0, -1), (1, 1), (-1, -1)])
def test_constant_tables(tmp_path, value, spin):
    np.save(tmp_path / "a.npy", np.full((2, 3), value))
    _assert_spins(datasets.load(tmp_path / "a.npy"), np.full((2, 3), spin))


tables = hnp.arrays(
    np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([-1, 1])
)


@given(tables, st.sampled_from([".npy", ".npz", ".csv"]), st.booleans())
def test_what_is_saved_is_loaded(tmp_path_factory, table, suffix, as_bits):
    path = tmp_path_factory.mktemp("load") / f"a{suffix}"
    values = (table + 1) // 2 if as_bits else table
    if suffix == ".csv":
        np.savetxt(path, values, delimiter=",")
    else:
        (np.save if suffix == ".npy" else np.savez)(path, values)
    _assert_spins(datasets.load(path), table)


# --- load: what it refuses


def _refused(path, match):
    with pytest.raises(ValueError, match=match) as caught:
        datasets.load(path)
    assert str(path) in str(caught.value)


def test_load_needs_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*missing\.npy"):
        datasets.load(tmp_path / "missing.npy")
    (tmp_path / "folder.npy").mkdir()
    _refused(tmp_path / "folder.npy", "not a regular file")
    (tmp_path / "a.doc").write_text("1,0\n")
    _refused(tmp_path / "a.doc", r"suffix '\.doc'; expected \.npy, \.npz, ")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.array([[1.0, np.inf]]), "the value inf at row 0, column 1"),
        (np.array([[1, 0], [1, 2]]), "the value 2 at row 1, column 1"),
        (np.array([[0.5, 1]]), "the value 0.5 at row 0, column 0"),
        (np.array([[255, 1]], dtype=np.uint8), "the value 255"),
        (np.array([[1, 0], [1, -1]]), "mixes .* 0 at row 0, column 1 .* -1 at row 1, column 1"),
        (np.array([1, -1]), r"shape \(2,\); expected \(n_samples, n_spins\)"),
        (np.ones((1, 2, 3)), r"shape \(1, 2, 3\)"),
        (np.ones((0, 3)), r"empty: it has shape \(0, 3\)"),
        (np.ones((3, 0)), r"empty: it has shape \(3, 0\)"),
        (np.array([["1", "0"]]), "dtype <U1"),
        (np.array([[1j, 0]]), "dtype complex128"),
        (np.array([[1, 0]], dtype="M8[s]"), "dtype datetime64"),
        (np.array([[1, None]]), "without pickled data"),
    ],
)
def test_load_refuses_arrays(tmp_path, values, match):
    np.save(tmp_path / "a.npy", values)
    _refused(tmp_path / "a.npy", match)
    np.savez(tmp_path / "a.npz", data=values)
    _refused(tmp_path / "a.npz", match)


class _Planted:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


def test_pickles_are_not_executed(tmp_path):
    import pickle

    mark = tmp_path / "mark"
    bomb = np.array([[_Planted(str(mark))]], dtype=object)
    np.save(tmp_path / "object.npy", bomb)
    np.savez(tmp_path / "object.npz", spins=bomb)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(_Planted(str(mark))))
    for name in ("object.npy", "object.npz", "pickle.npy"):
        _refused(tmp_path / name, "without pickled data")
    assert not mark.exists()


def test_load_refuses_damaged_files(tmp_path):
    np.save(tmp_path / "good.npy", np.ones((40, 40)))
    np.savez_compressed(tmp_path / "good.npz", data=np.random.default_rng(0).random((40, 40)))
    for suffix in (".npy", ".npz"):
        whole = (tmp_path / f"good{suffix}").read_bytes()
        # The end cut off, nothing left, and the middle overwritten.
        middle = len(whole) // 2
        zeros = whole[:middle] + bytes(64) + whole[middle + 64 :]
        damaged = [whole[:-50], b""] + ([zeros] if suffix == ".npz" else [])
        for content in damaged:
            (tmp_path / f"bad{suffix}").write_bytes(content)
            _refused(tmp_path / f"bad{suffix}", "cannot be read as a numpy file")


def test_load_needs_one_table(tmp_path):
    np.savez(tmp_path / "two.npz", a=EXPECTED, b=EXPECTED, labels=np.arange(2))
    _refused(tmp_path / "two.npz", r"2 2-D arrays among: a \(2, 3\), b \(2, 3\), labels \(2,\)")
    np.savez(tmp_path / "none.npz", labels=np.arange(2))
    _refused(tmp_path / "none.npz", r"0 2-D arrays among: labels \(2,\)")
    np.savez(tmp_path / "empty.npz")
    _refused(tmp_path / "empty.npz", "0 2-D arrays among: nothing")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,0\n\n1\n", "ragged: line 4 has 1 columns, line 2 has 2"),
        ("1,0\n1,inf\n", "the value inf at line 2, column 1"),
        ("x,y\n\n1,0\n1,7\n", "the value 7 at line 4, column 'y'"),
        ("1,O\n1,0\n", "'O' at line 1, column 1"),  # a slip in the first row is no header
        ("a,b\nc,d\n1,0\n", "'c' at line 2, column 'a'"),
        ("1,0\n-1,1\n", "mixes .* 0 at line 1, column 1 .* -1 at line 2, column 0"),
        ("", "no line of values"),
        ("a,b\n", "no line of values"),
        ("1,\udcff\n", "not a text file"),
    ],
)
def test_load_refuses_csv(tmp_path, text, match):
    (tmp_path / "a.csv").write_bytes(text.encode(errors="surrogateescape"))
    _refused(tmp_path / "a.csv", match)


# --- weights


def test_weights_are_one_number_a_sample(tmp_path):
    np.save(tmp_path / "a.npy", [0.5, 0.0, 2.0])
    np.savez(tmp_path / "a.npz", weights=np.array([[1], [2]]), other=np.ones(5))
    (tmp_path / "a.csv").write_text("weight\n1\n0.25\n")
    for name, expected in (("a.npy", [0.5, 0, 2]), ("a.npz", [1, 2]), ("a.csv", [1, 0.25])):
        np.testing.assert_array_equal(datasets.load_weights(tmp_path / name), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, -1.0], "finite weights, not negative"),
        ([1.0, np.nan], "finite weights, not negative"),
        ([np.inf, 1.0], "finite weights, not negative"),
        ([0.0, 0.0], "not all zero"),
        (np.ones((2, 2)), "expected one number a sample"),
        (np.array(["a"]), "expected real numbers"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=message):
        datasets.load_weights(tmp_path / "a.npy")
