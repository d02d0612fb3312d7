"""Speed of the Walsh transform against a C library and a NumPy butterfly, in one run.

Float64, out of place; repetitions of each are interleaved so that all see the same machine, and
ratios are given for the best and for the median of the times. Memory counts argument, result and
scratch space in tables of 2^n. Compile time is reported apart. Needs the extra `bench`.

    python -m experiments benchmarks.walsh
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pyfwht

import thermogen as tg

N_REPETITIONS = 40


def butterfly(x: np.ndarray) -> np.ndarray:
    """The textbook transform, one NumPy pass a bit."""
    width = 1
    while width < x.size:
        pairs = x.reshape(-1, 2, width)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        width *= 2
    return x


def c_library(x: np.ndarray) -> np.ndarray:
    return pyfwht.fwht(x.copy(), backend=pyfwht.Backend.CPU)


def seconds(function, argument) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(argument))
    return time.perf_counter() - began


def copies(argument: jax.Array) -> float:
    memory = jax.jit(tg.inverse_walsh_transform).lower(argument).compile().memory_analysis()
    used = [
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    ]
    return sum(used) / argument.nbytes


def main() -> None:
    columns = ["ours ms", "C ms", "numpy ms", "/ C", "/ C median", "/ numpy"]
    columns += ["gradient", "copies", "compile s"]
    print("   n" + "".join(f"{name:>11}" for name in columns))
    gradient = jax.jit(jax.grad(lambda x, y: jnp.dot(tg.inverse_walsh_transform(x), y)))
    for n in (16, 18, 20, 22):
        x = np.random.default_rng(n).normal(size=2**n)
        on_device = jnp.asarray(x)
        compiling = seconds(tg.inverse_walsh_transform, on_device)
        seconds(lambda v: gradient(v, v), on_device)
        # The libraries count bit 1 as -1, spins count it as +1: signs turn one into the other.
        signs = (-1.0) ** np.bitwise_count(np.arange(2**n))
        ours = np.asarray(tg.inverse_walsh_transform(on_device * signs))
        np.testing.assert_allclose(ours, butterfly(x), atol=1e-9 * 2**n)
        np.testing.assert_allclose(ours, c_library(x), atol=1e-9 * 2**n)
        runs = {"ours": [], "c": [], "numpy": [], "gradient": []}
        for repetition in range(N_REPETITIONS):
            runs["ours"].append(seconds(tg.inverse_walsh_transform, on_device))
            runs["c"].append(seconds(c_library, x))
            runs["gradient"].append(seconds(lambda v: gradient(v, v), on_device))
            if repetition % 8 == 0:
                runs["numpy"].append(seconds(butterfly, x))
        best = {name: 1e3 * min(times) for name, times in runs.items()}
        median = {name: np.median(times) for name, times in runs.items()}
        print(
            f"{n:4d}{best['ours']:11.3f}{best['c']:11.3f}{best['numpy']:11.2f}"
            f"{best['ours'] / best['c']:11.2f}{median['ours'] / median['c']:11.2f}"
            f"{best['ours'] / best['numpy']:11.3f}{best['gradient'] / best['ours']:11.2f}"
            f"{copies(on_device):11.1f}{compiling:11.2f}"
        )
