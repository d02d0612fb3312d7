"""Factorisations: derivatives by products, and batches that never wait for each other."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermogen._linalg import eigenvalues, inverse, is_positive, log_abs_det, lowest_eigenvalue

# Two batched factorisations at once, of more work than jaxlib leaves to one thread.
TOGETHER = """
import jax, jax.numpy as jnp
from thermogen._linalg import eigenvalues, inverse, is_positive, lowest_eigenvalue

@jax.jit
@jax.vmap
def together(a):
    proofs = is_positive(a), is_positive(a + 1)
    return proofs, inverse(a), inverse(a + 1), eigenvalues(a), lowest_eigenvalue(a + 1)

matrices = jnp.eye(48) + 0.01 * jax.random.normal(jax.random.key(0), (256, 48, 48))
for _ in range(20):
    jax.block_until_ready(together(matrices))
"""


def _matrix(n=5, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return jnp.asarray(a @ a.T + np.eye(n))


def test_derivatives_are_those_of_jax():
    matrix, change = _matrix(), _matrix(seed=1)

    def compared(ours, theirs):
        for function in (lambda f: jax.grad(f), lambda f: jax.hessian(f), lambda f: f):
            found, wanted = (function(f)(0.1) for f in (ours, theirs))
            np.testing.assert_allclose(found, wanted, rtol=1e-9)

    compared(
        lambda t: jnp.sum(inverse(matrix + t * change) ** 3),
        lambda t: jnp.sum(jnp.linalg.inv(matrix + t * change) ** 3),
    )
    compared(
        lambda t: lowest_eigenvalue(matrix + t * change),
        lambda t: jnp.linalg.eigvalsh(matrix + t * change)[0],
    )
    compared(
        lambda t: log_abs_det(matrix - 2 * jnp.eye(5) + t * change),
        lambda t: jnp.linalg.slogdet(matrix - 2 * jnp.eye(5) + t * change)[1],
    )


def test_equal_eigenvalues_above_the_lowest_spoil_no_second_derivative():
    matrix, change = jnp.diag(jnp.array([1.0, 2.0, 2.0])), _matrix(3)
    bend = jax.grad(jax.grad(lambda t: lowest_eigenvalue(matrix + t * change)))(0.0)
    np.testing.assert_allclose(bend, -2 * (change[0, 1] ** 2 + change[0, 2] ** 2), rtol=1e-12)


def test_a_lowest_eigenvalue_that_is_one_of_equals_bends_nowhere():
    matrix, change = jnp.diag(jnp.array([1.0, 1.0, 2.0])), _matrix(3)
    slope = jax.grad(lambda t: lowest_eigenvalue(matrix + t * change))
    assert np.isfinite(slope(0.0)) and np.isnan(jax.grad(slope)(0.0))


def test_mapped_twice_they_are_those_of_each_matrix():
    many = jnp.stack([_matrix(seed=s) - (s % 2) * 3 * jnp.eye(5) for s in range(6)])
    rows = many.reshape(2, 3, 5, 5)
    inverses = jax.vmap(jax.vmap(inverse))(rows).reshape(6, 5, 5)
    np.testing.assert_allclose(inverses, np.linalg.inv(many), rtol=1e-9)
    values = jax.vmap(jax.vmap(eigenvalues))(rows).reshape(6, 5)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(many), rtol=1e-9)
    positive = jax.vmap(jax.vmap(is_positive))(rows).ravel()
    np.testing.assert_array_equal(positive, np.linalg.eigvalsh(many)[:, 0] > 0)
    assert 0 < positive.sum() < 6


@pytest.mark.further
def test_batches_that_run_at_once_do_not_wait_for_ever():
    subprocess.run([sys.executable, "-c", TOGETHER], check=True, timeout=240)
