import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermogen import spins as sp


@pytest.fixture
def unchecked():
    """Calls as users make them, without the run-time type checks of the suite."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- truth


def test_enumeration_is_little_endian():
    expected = [
        [-1, -1, -1],
        [+1, -1, -1],
        [-1, +1, -1],
        [+1, +1, -1],
        [-1, -1, +1],
        [+1, -1, +1],
        [-1, +1, +1],
        [+1, +1, +1],
    ]
    np.testing.assert_array_equal(sp.enumerate_spins(3), expected)


def test_no_spins_have_one_configuration():
    assert sp.enumerate_spins(0).shape == (1, 0)
    assert sp.index_from_spins(jnp.zeros((0,))) == 0
    assert sp.spins_from_index(0, 0).shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_row_i_is_configuration_i(n):
    np.testing.assert_array_equal(sp.index_from_spins(sp.enumerate_spins(n)), np.arange(2**n))


def test_known_indices():
    assert sp.index_from_spins(jnp.array([1, -1, 1])) == 5
    np.testing.assert_array_equal(sp.spins_from_index(6, 4), [-1, 1, 1, -1])
    np.testing.assert_array_equal(
        sp.spins_from_index(np.array([[0, 1], [2, 3]], dtype=np.int8), 9)[..., :3],
        [[[-1, -1, -1], [1, -1, -1]], [[-1, 1, -1], [1, 1, -1]]],
    )


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_bits_of_any_kind(dtype):
    bits = np.array([[0, 1], [1, 1]], dtype=dtype)
    spins = sp.spins_from_bits(bits)
    np.testing.assert_array_equal(spins, [[-1, 1], [1, 1]])
    assert spins.dtype == (np.float32 if dtype is np.float32 else np.float64)
    back = sp.bits_from_spins(spins.astype(np.int8))
    np.testing.assert_array_equal(back, [[0, 1], [1, 1]])
    assert back.dtype == np.int64


def test_known_overlaps():
    a = jnp.array([1.0, 1.0, -1.0, -1.0])
    assert sp.overlap(a, a) == 1
    assert sp.overlap(a, -a) == -1
    assert sp.overlap(a, jnp.array([1.0, -1.0, -1.0, -1.0])) == 0.5
    np.testing.assert_array_equal(sp.overlap(jnp.stack([a, -a]), a[None]), [1, -1])


def test_overlap_of_integers_does_not_overflow():
    a = np.ones(1000, dtype=np.int8)
    assert sp.overlap(a, a) == 1


# --- dtypes and transformations


@pytest.mark.parametrize("x64", [True, False])
def test_dtypes_follow_the_precision(x64):
    with jax.enable_x64(x64):
        spins = sp.enumerate_spins(3)
        assert spins.dtype == (np.float64 if x64 else np.float32)
        assert sp.index_from_spins(spins).dtype == (np.int64 if x64 else np.int32)
        assert sp.spins_from_index(5, 3).dtype == spins.dtype
        assert jnp.dot(spins, jnp.ones(3)).dtype == spins.dtype


def test_jit_and_vmap():
    spins = sp.enumerate_spins(4)
    index = jnp.arange(16)
    np.testing.assert_array_equal(jax.jit(sp.enumerate_spins, static_argnums=0)(4), spins)
    np.testing.assert_array_equal(jax.jit(sp.index_from_spins)(spins), index)
    np.testing.assert_array_equal(jax.vmap(sp.index_from_spins)(spins), index)
    np.testing.assert_array_equal(jax.jit(sp.spins_from_index, static_argnums=1)(index, 4), spins)
    np.testing.assert_array_equal(jax.vmap(lambda i: sp.spins_from_index(i, 4))(index), spins)
    np.testing.assert_array_equal(
        jax.jit(lambda s: sp.spins_from_bits(sp.bits_from_spins(s)))(spins), spins
    )


# --- properties


# A few sizes only: each one compiles anew.
sizes = st.sampled_from([0, 1, 7, 32, 63])


@given(sizes.flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**n - 1))))
def test_index_agrees_with_binary_notation(case):
    n, index = case
    binary = format(index, f"0{n}b") if n else ""
    spins = sp.spins_from_index(index, n)
    assert spins.tolist() == [1.0 if b == "1" else -1.0 for b in reversed(binary)]
    assert int(sp.index_from_spins(spins)) == index


@pytest.mark.parametrize(("x64", "most"), [(False, 31), (True, 63)])
def test_largest_index(x64, most):
    with jax.enable_x64(x64):
        spins = sp.spins_from_index(2**most - 1, most)
        np.testing.assert_array_equal(spins, np.ones(most))
        assert int(sp.index_from_spins(spins)) == 2**most - 1
        with pytest.raises(ValueError, match=f"n is {most + 1}; expected .* 0 to {most} "):
            sp.spins_from_index(0, most + 1)
        with pytest.raises(ValueError, match=f"last axis of spins is {most + 1}"):
            sp.index_from_spins(jnp.ones((2, most + 1)))


pairs_of_spins = st.sampled_from([1, 2, 9, 40]).flatmap(
    lambda n: st.tuples(*[st.lists(st.sampled_from([-1, 1]), min_size=n, max_size=n)] * 2)
)


@given(pairs_of_spins)
def test_overlap_counts_differing_spins(pair):
    a, b = (np.array(x, dtype=np.int8) for x in pair)
    distance = np.count_nonzero(a != b)
    np.testing.assert_allclose(sp.overlap(a, b), 1 - 2 * distance / a.size, atol=1e-15)


# --- errors


@pytest.mark.parametrize("n", [-1, 31, True])
def test_enumeration_refuses_sizes(n):
    with pytest.raises(ValueError, match=f"^n is {n}; expected a static integer from 0 to 30"):
        sp.enumerate_spins(n)


@pytest.mark.parametrize("n", [2.0, "2", None])
def test_sizes_are_integers(n, unchecked):
    with pytest.raises(ValueError, match="expected a static integer"):
        sp.enumerate_spins(n)
    with pytest.raises(ValueError, match="expected a static integer"):
        sp.spins_from_index(0, n)


def test_a_traced_size_is_named(unchecked):
    with pytest.raises(ValueError, match="expected a static integer"):
        jax.jit(sp.enumerate_spins)(3)


def test_numpy_integers_are_sizes(unchecked):
    assert sp.enumerate_spins(np.int64(3)).shape == (8, 3)


@pytest.mark.parametrize("index", [8, -1, 2**40])
@pytest.mark.parametrize("kind", [int, np.array, jnp.array])
def test_indices_out_of_range(index, kind):
    with pytest.raises(ValueError, match=rf"i contains {index}; expected 0 <= i < 2\*\*n = 8"):
        sp.spins_from_index(kind(index), 3)


@pytest.mark.parametrize("index", [1.0, np.array([True])])
def test_indices_are_integers(index, unchecked):
    with pytest.raises(ValueError, match="i has dtype .*; expected integers"):
        sp.spins_from_index(index, 3)


def test_scalars_have_no_spin_axis(unchecked):
    with pytest.raises(ValueError, match="spins is a scalar"):
        sp.index_from_spins(1.0)
    with pytest.raises(ValueError, match="expected last axes of equal length"):
        sp.overlap(1.0, 1.0)


def test_overlap_does_not_broadcast_spins(unchecked):
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(1,\)"):
        sp.overlap(jnp.ones(3), jnp.ones(1))
