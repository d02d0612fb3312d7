"""The Walsh transform against its definition, and what jit, vmap and derivatives make of it."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import configurations

import thermogen as tg
from thermogen.walsh import degrees, transform_every_spin

TRANSFORMS = [tg.walsh_transform, tg.inverse_walsh_transform]


@pytest.fixture
def unchecked():
    """Calls as users make them, without the run-time type checks of the suite."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def products(n):
    """Phi_a(s_i) by definition: row i is a configuration, column a a set of spins."""
    member = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    return np.where(member[None], configurations(n)[:, None, :], 1.0).prod(axis=2)


def table(n, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=2**n).astype(dtype)


@pytest.mark.parametrize("n", range(8))
def test_both_transforms_are_their_definition(n):
    x, phi = table(n), products(n)
    np.testing.assert_allclose(tg.walsh_transform(x), x @ phi / 2**n, rtol=0, atol=1e-14)
    np.testing.assert_allclose(tg.inverse_walsh_transform(x), phi @ x, rtol=0, atol=1e-12)


def test_bits_are_little_endian():
    spins = configurations(4)
    expected = np.zeros(16)
    expected[0b1001] = 1.0
    np.testing.assert_array_equal(tg.walsh_transform(spins[:, 0] * spins[:, 3]), expected)
    np.testing.assert_array_equal(tg.walsh_transform(np.full(8, 3.0)), [3.0] + [0.0] * 7)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 6, 9, 10, 11, 12])
def test_round_trip_and_parseval(n):
    x = table(n, seed=n)
    c = tg.walsh_transform(x)
    np.testing.assert_allclose(tg.inverse_walsh_transform(c), x, rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.vdot(c, c) * 2**n, np.vdot(x, x), rtol=1e-13)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear(transform):
    x, y = table(6, 1), table(6, 2)
    ours = transform(2.0 * x - 3.0 * y)
    np.testing.assert_allclose(ours, 2.0 * transform(x) - 3.0 * transform(y), atol=1e-12)


@pytest.mark.parametrize("n", [0, 3, 6])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transposes(transform, n):
    cotangent = table(n, 3)
    phi = products(n)
    scale, matrix = (2.0**-n, phi) if transform is tg.walsh_transform else (1.0, phi.T)
    (transposed,) = jax.linear_transpose(transform, table(n))(cotangent)
    np.testing.assert_allclose(transposed, scale * matrix @ cotangent, rtol=0, atol=1e-12)
    _, pullback = jax.vjp(transform, table(n))
    np.testing.assert_allclose(pullback(cotangent)[0], transposed, rtol=0, atol=1e-12)
    _, tangent = jax.jvp(transform, (table(n),), (cotangent,))
    np.testing.assert_allclose(tangent, transform(cotangent), rtol=0, atol=1e-12)


def test_transpose_of_one_is_the_other_scaled():
    x = table(6)
    (transposed,) = jax.linear_transpose(tg.walsh_transform, x)(x)
    np.testing.assert_allclose(transposed, tg.inverse_walsh_transform(x) / 64, atol=1e-13)
    (transposed,) = jax.linear_transpose(tg.inverse_walsh_transform, x)(x)
    np.testing.assert_allclose(transposed, 64 * tg.walsh_transform(x), atol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_precision_is_that_of_the_input(transform):
    exact = transform(table(11))
    assert exact.dtype == jnp.float64
    single = transform(table(11).astype(np.float32))
    assert single.dtype == jnp.float32
    scale = np.max(np.abs(exact))
    np.testing.assert_allclose(single, exact, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_integers_do_not_overflow(dtype):
    values = np.full(32, 100, dtype)
    coefficients = tg.walsh_transform(values)
    assert jnp.issubdtype(coefficients.dtype, jnp.floating)
    np.testing.assert_array_equal(coefficients, [100.0] + [0.0] * 31)
    assert tg.inverse_walsh_transform(values)[31] == 3200.0


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_vmap_and_jit_change_nothing(transform):
    batch = np.stack([table(6, seed) for seed in range(4)])
    truth = np.stack([transform(row) for row in batch])
    np.testing.assert_allclose(jax.vmap(transform)(batch), truth, rtol=0, atol=1e-13)
    columns = jax.jit(jax.vmap(transform, in_axes=1, out_axes=1))(batch.T)
    np.testing.assert_allclose(columns, truth.T, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "n, dtype", [(20, np.float64), pytest.param(21, np.float32, marks=pytest.mark.further)]
)
def test_large_tables_in_blocks(n, dtype):
    """Three products of spins, against their signs at all configurations."""
    sets, weights = np.array([1, 5 << 13, 2**n - 2]), np.array([0.5, -2.0, 3.0])
    x, couplings = table(n, dtype=dtype), np.zeros(2**n, dtype)
    couplings[sets] = weights
    missing = np.bitwise_count(~np.arange(2**n)[:, None] & sets)
    phi = 1.0 - 2.0 * (missing % 2)
    # Sums of 2^n rounded numbers of order 1, in n steps.
    rounding = n * np.finfo(dtype).eps * 2 ** (n / 2)
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=rounding)

    values, pullback = jax.vjp(tg.inverse_walsh_transform, couplings)
    near(values, phi @ weights)
    (transposed,) = pullback(x)
    near(transposed[sets], [math.fsum(x * column) for column in phi.T])
    near(tg.inverse_walsh_transform(transposed / 2**n), x)
    near(tg.walsh_transform(values), couplings)
    _, tangent = jax.jvp(tg.inverse_walsh_transform, (x,), (couplings,))
    near(tangent, values)
    batched = jax.vmap(tg.inverse_walsh_transform, in_axes=1)(np.stack([couplings, x], axis=1))
    near(batched[0], values)
    near(tg.walsh_transform(batched[1]), x)


def test_large_tables_of_another_matrix():
    """Not symmetric, nor its inverse up to a factor: 2 for each spin that a set has more."""
    n, j = 20, 5 << 13 | 3
    one_spin = np.array([[1, 2], [0, 1]])
    transform = functools.partial(transform_every_spin, one_spin=one_spin)
    index = np.arange(2**n)
    column = np.where(index & ~j, 0.0, 2.0 ** np.bitwise_count(j & ~index))
    row = np.where(j & ~index, 0.0, 2.0 ** np.bitwise_count(index & ~j))
    unit = np.eye(1, 2**n, j)[0]
    values, pullback = jax.vjp(transform, unit)
    np.testing.assert_array_equal(values, column)
    np.testing.assert_array_equal(pullback(unit)[0], row)
    np.testing.assert_array_equal(jax.jvp(transform, (row,), (unit,))[1], column)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_only_vectors_of_a_power_of_two(transform, unchecked):
    for size in (3, 6, 12):
        with pytest.raises(ValueError, match=rf"shape \(2\*\*n,\), got \({size},\)"):
            transform(np.ones(size))
    with pytest.raises(ValueError, match=r"got \(0,\)"):
        transform(np.ones(0))
    for shape in ((2, 4), ()):
        with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
            transform(np.ones(shape))


@pytest.mark.parametrize("n", range(8))
def test_degrees_count_spins(n):
    ours = degrees(n)
    assert ours.shape == (2**n,)
    np.testing.assert_array_equal(ours, [bin(a).count("1") for a in range(2**n)])
