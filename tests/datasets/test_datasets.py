import sys

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import thermogen as tg
from thermogen import datasets, spins
from thermogen.retrieval import load_cues


def _numbers(block):
    """The integers that rows of little-endian spins stand for."""
    return ((block + 1) // 2) @ (2 ** np.arange(block.shape[1]))


# --- adder


def test_half_adder():
    expected = [  # a, b, sum, carry
        [-1, -1, -1, -1],
        [+1, -1, +1, -1],
        [-1, +1, +1, -1],
        [+1, +1, -1, +1],
    ]
    np.testing.assert_array_equal(datasets.adder(1), expected)


@pytest.mark.parametrize("n_bits", [1, 2, 3, 5])
def test_adder_adds(n_bits):
    table = datasets.adder(n_bits)
    assert table.shape == (4**n_bits, 3 * n_bits + 1)
    assert table.dtype == np.float64
    a, b, c = (_numbers(x) for x in np.split(table.astype(int), [n_bits, 2 * n_bits], axis=1))
    np.testing.assert_array_equal(a + b, c)
    np.testing.assert_array_equal(spins.index_from_spins(table[:, : 2 * n_bits]), np.arange(len(a)))


@pytest.mark.parametrize("n_bits", [0, -1, 13, True])
def test_adder_refuses_sizes(n_bits):
    with pytest.raises(ValueError, match=f"n_bits is {n_bits}; expected an integer from 1 to 12"):
        datasets.adder(n_bits)


# --- bars and stripes


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_bars_and_stripes_are_all_there(n):
    table = datasets.bars_and_stripes(n)
    assert table.shape == (2 ** (n + 1) - 2, n * n)
    assert table.dtype == np.float64
    pictures = table.reshape(-1, n, n)
    striped = (pictures == pictures[:, :, :1]).all(axis=(1, 2))
    barred = (pictures == pictures[:, :1, :]).all(axis=(1, 2))
    assert set(np.unique(table)) == {-1, 1} and np.all(striped | barred)
    # As many distinct ones as there can be.
    assert len(np.unique(table, axis=0)) == len(table)
    np.testing.assert_array_equal(spins.index_from_spins(pictures[: 2**n, :, 0]), np.arange(2**n))
    np.testing.assert_array_equal(
        spins.index_from_spins(pictures[2**n :, 0]), np.arange(1, 2**n - 1)
    )


@pytest.mark.parametrize("n", [0, 13, True])
def test_bars_and_stripes_refuse_sizes(n):
    with pytest.raises(ValueError, match=f"n is {n}; expected an integer from 1 to 12"):
        datasets.bars_and_stripes(n)


# --- Southern Women, splits


def test_southern_women():
    spins = datasets.southern_women()
    assert spins.shape == (18, 14) and spins.dtype == np.float64
    # 89 attendances; Evelyn Jefferson, the first, went to events 1 to 6, 8 and 9.
    assert np.sum(spins == 1) == 89
    assert (np.flatnonzero(spins[0] == 1) + 1).tolist() == [1, 2, 3, 4, 5, 6, 8, 9]


def test_split_is_a_fixed_partition():
    data = np.arange(10)[:, None]
    parts = datasets.split(data, 0.3, seed=1)
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(np.concatenate(parts).ravel().tolist()) == list(range(10))
    again, other = datasets.split(data, 0.3, seed=1), datasets.split(data, 0.3, seed=2)
    np.testing.assert_array_equal(parts.held_out, again.held_out)
    assert not np.array_equal(parts.held_out, other.held_out)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01, -0.5])
def test_split_leaves_no_part_empty(share):
    with pytest.raises(ValueError, match="held_out is"):
        datasets.split(np.ones((10, 2)), share)


# --- digits


def test_digits():
    from sklearn.datasets import load_digits

    data = datasets.digits()
    source = load_digits()
    assert data.spins.shape == (1797, 64)
    assert data.spins.dtype == np.float64
    np.testing.assert_array_equal(data.spins == 1, source.data >= 8)
    assert set(np.unique(data.spins)) == {-1, 1}
    np.testing.assert_array_equal(data.labels, source.target)


def test_digits_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"thermogen\[study\]"):
        datasets.digits()


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


# --- validate_spins


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64, jnp.bfloat16])
def test_spins_pass(dtype):
    _assert_spins(datasets.validate_spins(EXPECTED.astype(dtype)))
    _assert_spins(datasets.validate_spins(jnp.asarray(EXPECTED, dtype=dtype)))
    _assert_spins(datasets.validate_spins(EXPECTED.tolist()))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.array([[1, 0], [-1, 1]]), "cue has the value 0 at row 0, column 1.*spins_from_bits"),
        (np.array([[1.0, -1.0], [-1.0, np.nan]]), "cue has the value nan at row 1, column 1"),
        (np.array([[1, 3]]), "cue has the value 3 .*expected only -1 and [+]1$"),
        (np.array([[True, False]]), "cue is boolean.*spins_from_bits"),
        (np.array([1, -1]), r"cue has shape \(2,\)"),
        (np.ones((0, 2)), "cue is empty"),
        ([["a"]], "cue has dtype"),
        ([[1, -1], [1]], "cue is not a rectangular array"),
    ],
)
def test_validation_refuses(data, match):
    with pytest.raises(ValueError, match=match):
        datasets.validate_spins(data, "cue")


@pytest.mark.parametrize("n_bits", [1.0, "2", None])
def test_adder_sizes_are_integers(n_bits):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="expected an integer from 1 to 12"):
            datasets.adder(n_bits)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


# --- arithmetic


def _all_data_sets(folder):
    np.save(folder / "a.npy", np.ones((200, 3), np.int8))
    (folder / "a.csv").write_text("1,0,1\n" * 200)
    yield datasets.load(folder / "a.npy")
    yield datasets.load(folder / "a.csv")
    yield datasets.adder(4)
    yield datasets.bars_and_stripes(7)
    yield datasets.southern_women().repeat(20, axis=0)
    yield datasets.digits().spins
    yield datasets.validate_spins(np.ones((200, 3), np.int8))
    yield from datasets.split(datasets.adder(5), 0.5)
    yield load_cues(folder / "a.csv")
    yield tg.study.load_source("adder:4").spins


def test_products_of_samples_do_not_wrap_around(tmp_path):
    """Sums of squares of spins count the samples, whatever their number."""
    for table in _all_data_sets(tmp_path):
        products = table.T @ table
        assert np.all(np.diag(products) == len(table)) and len(table) > 128
        exact = table.astype(np.int64)
        np.testing.assert_array_equal(products, exact.T @ exact)
        assert table.sum() == exact.sum()


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
