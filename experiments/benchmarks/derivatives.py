"""What does a gradient cost, relative to its value?

Each row is a function of an energy that gives a number; its gradient by all parameters of the
energy is taken backwards. Compiling and running are timed apart, and the two take turns, so that a
ratio is one of the same minutes. What a fit learns has its gradient by the ridge, or by the weights
of all samples. An SK glass of width 2 with small fields, naive mean field at
beta = 1.5, of its lowest states the first four and the saddles between them.

    python -m experiments benchmarks.derivatives
    python -m experiments benchmarks.derivatives heights times --sizes 16 64
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen import landscape

BETA, N_STATES, N_REPEATS = 1.5, 4, 7
NAIVE = tg.NaiveMeanField()


class Row(NamedTuple):
    """A line of the table for each number of spins: what a gradient is taken of.

    Attributes:
        prepare: makes the function and the point at which it is taken, from n.
        largest: number of spins beyond which it is left out.
    """

    prepare: Callable[[int], tuple[Callable[[Any], jax.Array], Any]]
    largest: int = 256


def glass(n: int) -> tg.Pairwise:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(n, n)), 1) * 2 / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=n))


@functools.cache
def states(n: int) -> tg.Library:
    return tg.find_minima(NAIVE, glass(n), BETA, key=jax.random.key(0), n_starts=64)[:N_STATES]


@functools.cache
def saddles(n: int) -> landscape.Barriers:
    return tg.barriers(NAIVE, glass(n), BETA, states(n), n_rounds=2)


def of_states(read: Callable[[landscape.Followed, tg.Pairwise], jax.Array]) -> Row:
    def prepare(n: int):
        library = states(n)
        return lambda e: read(landscape.follow(NAIVE, e, BETA, library), e), glass(n)

    return Row(prepare)


def of_both(read: Callable[..., jax.Array]) -> Row:
    def prepare(n: int):
        library, found = states(n), saddles(n)

        def value(energy):
            rows = (landscape.follow(NAIVE, energy, BETA, x) for x in (library, found))
            return read(energy, found, *rows)

        return value, glass(n)

    return Row(prepare)


def finite_sum(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0))


def escape_times(energy, found, *rows):
    return finite_sum(landscape.log_escape_times(NAIVE, energy, BETA, found, *rows))


def relaxation_time(n: int):
    def value(energy):
        return jnp.log(tg.exact.relaxation_times(energy, BETA, n_eigenvalues=2)[0])

    return value, glass(n)


@functools.cache
def samples(n: int) -> np.ndarray:
    """Signs of half-shared Gaussian numbers, 20 n rows."""
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(20 * n, n // 4)) @ rng.normal(size=(n // 4, n)) / np.sqrt(n / 4)
    return np.sign(shared + rng.normal(size=shared.shape))


def learned(n: int, l2: Any, weights: Any) -> jax.Array:
    start, objective = tg.Pairwise(np.zeros((n, n)), np.zeros(n)), tg.Pseudolikelihood(l2)
    fitted = tg.fit(objective, start, samples(n), weights=weights, key=jax.random.key(0))
    return jnp.sum(fitted.energy.matrix**2)


def fit_by_ridge(n: int):
    return lambda l2: learned(n, l2, None), jnp.asarray(tg.learning.default_l2(n, 20 * n))


def fit_by_weights(n: int):
    return lambda weights: learned(n, None, weights), jnp.ones(20 * n)


ROWS = {
    "free_energies": of_states(lambda now, e: jnp.sum(now.free_energies)),
    "magnetizations": of_states(lambda now, e: jnp.sum(now.magnetizations**2)),
    "curvatures": of_states(lambda now, e: jnp.sum(now.curvatures)),
    "saddles": of_both(lambda e, found, states, saddles: finite_sum(saddles.free_energies)),
    "log_partition": of_states(lambda now, e: landscape.log_partition(now.library(), BETA)),
    "mixture_bound": of_states(lambda now, e: landscape.mixture_bound(e, BETA, now.library())),
    "heights": of_both(lambda e, *rows: finite_sum(landscape.minimax_heights(*rows).heights)),
    "escape_times": of_both(escape_times),
    "relaxation_time": Row(relaxation_time, largest=12),
    "fit_by_ridge": Row(fit_by_ridge, largest=64),
    "fit_by_weights": Row(fit_by_weights, largest=64),
}


def compiled(function: Callable, point: Any) -> tuple[Callable, float]:
    """The program of a function, and the seconds that it took to make."""
    start = time.perf_counter()
    program = eqx.filter_jit(function).lower(point).compile()
    return program, time.perf_counter() - start


def seconds(program: Callable, point: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(point))
    return time.perf_counter() - start


def measure(name: str, n: int) -> None:
    """Prints one line: seconds of compiling, milliseconds of the fastest of some runs."""
    function, point = ROWS[name].prepare(n)
    value, value_compile = compiled(function, point)
    gradient, gradient_compile = compiled(jax.grad(function), point)
    pairs = [(seconds(value, point), seconds(gradient, point)) for _ in range(N_REPEATS)]
    of_value, of_gradient = np.min(pairs, axis=0)
    print(
        f"{name:16} {n:4d}  {value_compile:8.2f} {gradient_compile:8.2f}"
        f"  {1e3 * of_value:10.2f} {1e3 * of_gradient:10.2f}  {of_gradient / of_value:6.2f}",
        flush=True,
    )


def main(rows: tuple[str, ...] = tuple(ROWS), /, *, sizes: tuple[int, ...] = (12, 16, 64, 256)):
    print("                       compile (s)             run (ms)")
    print("of                  n     value gradient       value   gradient   ratio")
    for name in rows:
        for n in sizes:
            if n <= ROWS[name].largest:
                measure(name, n)
