import sys

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

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


# --- validate_spins

EXPECTED = np.array([[1, -1, 1], [-1, -1, 1]], dtype=np.int8)


def _assert_spins(actual, expected=EXPECTED):
    assert actual.dtype == np.float64
    np.testing.assert_array_equal(actual, expected)


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
