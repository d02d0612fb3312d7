"""Does a batched TAP iteration cost more than the matrix products that it contains?

One iteration is one step of `MirrorDescent` for a batch of magnetizations: a gradient of G, the
update, and the next step size. Its products are those of the couplings and of their squares
with the batch, for an RBM in both directions between the layers. Float32, one run, interleaved,
best times and the ratio of medians; compile time apart.

    python -m experiments benchmarks.meanfield [--out DIR]
"""

import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import claim, save

# As users have it who set nothing.
X64 = False

BATCH = 512
N_ITERATIONS = 20
TAP, DESCENT = tg.TAP(), tg.MirrorDescent()


def pairwise(n: int, rng: np.random.Generator) -> tg.Pairwise:
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    fields = 0.1 * rng.normal(size=n)
    return tg.Pairwise(*(np.asarray(x, np.float32) for x in (upper + upper.T, fields)))


def rbm(v: int, h: int, rng: np.random.Generator) -> tg.RBM:
    shapes = [(v, h), (v,), (h,)]
    scales = [1 / np.sqrt(v + h), 0.1, 0.1]
    parts = [scale * rng.normal(size=s) for scale, s in zip(scales, shapes, strict=True)]
    return tg.RBM(*(np.asarray(x, np.float32) for x in parts))


@jax.jit
def iterate(energy, theta, beta):
    """`N_ITERATIONS` steps of the solver for every row."""
    problem = tg.meanfield.Problem(TAP, energy, beta)

    def fn(row, _):
        return problem.residual(row), None

    def single(row):
        state = DESCENT.init(fn, row, None, {}, None, None, frozenset())

        def step(_, carry):
            return DESCENT.step(fn, carry[0], None, {}, carry[1], frozenset())[:2]

        return jax.lax.fori_loop(0, N_ITERATIONS, step, (row, state))[0]

    return jax.vmap(single)(theta)


@jax.jit
def multiply_pairwise(energy, theta, beta):
    """The products of as many iterations, one after the other."""
    squares = jnp.square(energy.couplings)

    def step(_, pair):
        x, y = pair
        return x @ energy.couplings, y @ squares

    return jax.lax.fori_loop(0, N_ITERATIONS, step, (theta, theta))


@jax.jit
def multiply_rbm(energy, theta, beta):
    """The products of as many iterations, one after the other."""
    w, w2 = energy.weights, jnp.square(energy.weights)

    def step(_, layers):
        v, h, v2, h2 = layers
        return h @ w.T, v @ w, h2 @ w2.T, v2 @ w2

    v, h = theta[:, : energy.n_visible], theta[:, energy.n_visible :]
    return jax.lax.fori_loop(0, N_ITERATIONS, step, (v, h, v, h))


def interleaved(functions: list[Callable], arguments: tuple, repeats: int) -> np.ndarray:
    """Seconds of each function, called in turn, shape `(functions, repeats)`."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, sample in zip(functions, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            sample.append(time.perf_counter() - began)
    return np.array(times)


def compare(name: str, energy, multiply: Callable, rng: np.random.Generator) -> dict:
    theta = jnp.asarray(rng.normal(size=(BATCH, energy.n_spins)), jnp.float32)
    arguments = (energy, theta, jnp.float32(1.0))
    began = time.perf_counter()
    jax.block_until_ready(iterate(*arguments))
    compile_time = time.perf_counter() - began
    jax.block_until_ready(multiply(*arguments))
    times = interleaved([iterate, multiply], arguments, 60 if energy.n_spins <= 300 else 20)
    (iteration, products), medians = np.min(times, axis=1), np.median(times, axis=1)
    row = {
        "model": name,
        "n_spins": energy.n_spins,
        "iteration_ms": 1e3 * iteration / N_ITERATIONS,
        "products_ms": 1e3 * products / N_ITERATIONS,
        "ratio": iteration / products,
        "median_ratio": medians[0] / medians[1],
        "first_call_s": compile_time,
    }
    print(
        f"{name:>16}{row['iteration_ms']:14.3f}{row['products_ms']:13.3f}{row['ratio']:8.2f}"
        f"{row['median_ratio']:9.2f}{compile_time:13.2f}",
        flush=True,
    )
    return row


def main(out: pathlib.Path = pathlib.Path("results")) -> None:
    rng = np.random.default_rng(0)
    print(f"TAP iteration of {BATCH} magnetization vectors, float32, best times")
    print(
        f"{'model':>16}{'iteration ms':>14}{'products ms':>13}{'ratio':>8}"
        f"{'medians':>9}{'first call s':>13}"
    )
    rows = [
        compare(f"pairwise {n}", pairwise(n, rng), multiply_pairwise, rng) for n in (64, 256, 1024)
    ]
    rows += [
        compare(f"rbm {v} x {h}", rbm(v, h, rng), multiply_rbm, rng)
        for v, h in ((64, 100), (256, 256), (784, 500))
    ]
    save(out / "benchmark_meanfield.json", rows)
    claim("at most twice the products", all(row["ratio"] <= 2 for row in rows))
    large = [row["ratio"] for row in rows if row["n_spins"] >= 256]
    claim("at most 1.2 times the products from 256 spins on", max(large) <= 1.2)
