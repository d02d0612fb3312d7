"""Speed of the Walsh transform against a C library and products of Hadamard matrices.

Out of place, in both precisions, alone and batched; repetitions of all are interleaved so that they
see the same machine. The C library has no float32 on a processor: it converts. scipy has no such
transform: its Hadamard matrices of 64 rows are applied to the axes of a table (n = 18 is 64 x 64 x
64), which are matrix products. `main` also gives the cost of a gradient, and the memory of
argument, result and scratch space in tables of 2^n. Needs the extra `bench`.

    python -m experiments benchmarks.walsh
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

import thermogen as tg
from experiments.benchmarks import _peers, _watch

N_REPETITIONS = 40
# Bits, precision, tables at once.
CASES = (
    (16, "float64", 1),
    (18, "float64", 1),
    (20, "float64", 1),
    (22, "float64", 1),
    (18, "float32", 1),
    (20, "float32", 1),
    (12, "float64", 256),
)


def c_library(x: np.ndarray, backend: str = "cpu") -> np.ndarray:
    import pyfwht

    return pyfwht.fwht(x, backend=backend)


@functools.cache
def hadamard(size: int, dtype: np.dtype) -> np.ndarray:
    return scipy.linalg.hadamard(size).astype(dtype)


def matrix_products(x: np.ndarray) -> np.ndarray:
    """The transform of the last axis, six bits a product."""
    size = x.shape[-1]
    done = min(64, size)
    y = x.reshape(-1, done) @ hadamard(done, x.dtype)
    while done < size:
        block = min(64, size // done)
        y = hadamard(block, x.dtype) @ y.reshape(-1, block, done)
        done *= block
    return y.reshape(x.shape)


def ours(x: jax.Array) -> jax.Array:
    return jax.block_until_ready(transform(x))


@jax.jit
def transform(x: jax.Array) -> jax.Array:
    return jax.vmap(tg.inverse_walsh_transform)(x) if x.ndim > 1 else tg.inverse_walsh_transform(x)


def contenders(x: np.ndarray) -> dict[tuple[str, str], functools.partial]:
    """Calls by who and package, of which each gave the same result."""
    # The libraries count bit 1 as -1, spins count it as +1: signs turn one into the other.
    signs = (-1.0) ** np.bitwise_count(np.arange(x.shape[-1]))
    on_device = jnp.asarray(x * signs, x.dtype)
    runs = {
        (_peers.OURS, _peers.OURS): functools.partial(ours, on_device),
        ("scipy, Hadamard matrices", "scipy"): functools.partial(matrix_products, x),
    }
    backend = "cpu" if _peers.cores() == 1 else "openmp"
    if _peers.able(f"pyfwht, {backend}", "pyfwht"):
        runs[f"pyfwht, {backend}", "pyfwht"] = functools.partial(c_library, x, backend)
    want = matrix_products(x.astype(float))
    for key, run in runs.items():
        _peers.now.tell(*key)
        scale = np.finfo(x.dtype).eps * x.shape[-1]
        np.testing.assert_allclose(np.asarray(run()), want, atol=10 * scale)
    return runs


def case(title: str, n: int, dtype: str, batch: int) -> list[_peers.Row]:
    shape = (batch, 2**n) if batch > 1 else (2**n,)
    runs = contenders(np.random.default_rng(n).normal(size=shape).astype(dtype))
    jax.clear_caches()  # so that the first call is one
    measured = _peers.duel(runs, N_REPETITIONS) + _peers.missing("pyfwht")
    return _peers.rows("Walsh transform", title, "ms", _peers.milli(measured), False)


def cases() -> dict[str, _peers.Case]:
    titles = {
        f"n = {n}, {dtype}" + (f", {batch} tables" if batch > 1 else ""): (n, dtype, batch)
        for n, dtype, batch in CASES
    }
    return {title: functools.partial(case, title, *what) for title, what in titles.items()}


def copies(argument: jax.Array) -> float:
    memory = jax.jit(tg.inverse_walsh_transform).lower(argument).compile().memory_analysis()
    used = [
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    ]
    return sum(used) / argument.nbytes


def main() -> None:
    _watch.alone(cases())
    gradient = jax.jit(jax.grad(lambda x, y: jnp.dot(tg.inverse_walsh_transform(x), y)))
    print("\n   n  gradient / transform    copies")
    for n in (16, 18, 20, 22):
        x = jnp.asarray(np.random.default_rng(n).normal(size=2**n))
        runs = {
            ("gradient", ""): lambda x=x: jax.block_until_ready(gradient(x, x)),
            ("transform", ""): lambda x=x: ours(x),
        }
        times = [np.median(measured.values) for measured in _peers.duel(runs, N_REPETITIONS)]
        print(f"{n:4}{times[0] / times[1]:22.2f}{copies(x):10.1f}")
