"""Which moves earn their place in the search: new states per quench and per second.

Each way to propose starts adds six rounds of 512 quenches to the same library, that of one round of
512 random corners; naive mean field and TAP on SK models of 128 spins, the digits model. All
proposals are +-1 or magnetizations and go through the same quench:

- corners: plain multistart;
- clusters: a random spin and those that it couples to flip (the move of `find_bound_states`);
- soft modes: the spins that dominate the eigenvector of lowest curvature flip;
- crossover: every spin from one of two states, taken at random;
- samples: of a tempered chain at this temperature (its sweeps count in the seconds);
- warmer: minima found at 0.8 beta, followed to beta (their quenches count);
- deflation: descent on G plus a bump on every state known, then on G (both count).

Walkers sit on states drawn evenly from the library.

    python experiments/moves.py [--models "SK naive" ...]
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen.landscape import _hopping
from thermogen.landscape._batches import in_batches
from thermogen.landscape._curvature import _by_gradients
from thermogen.landscape._merge import Pool
from thermogen.landscape._quench import fall, is_converged, make_problem, starting_fields
from thermogen.meanfield import AbstractFunctional

N_WALKERS, N_ROUNDS = 512, 6


class Deflated(AbstractFunctional):
    """G plus a bump on each of K states and on their mirror images."""

    functional: AbstractFunctional
    states: jax.Array
    height: float
    width: float

    def excess(self, energy, m, beta):
        bumps = 0.0
        for sign in (1, -1):
            far = jnp.mean((self.states - sign * m[None, :]) ** 2, axis=1)
            bumps = bumps + jnp.sum(jnp.exp(-far / (2 * self.width**2)))
        return self.functional.excess(energy, m, beta) + self.height * bumps


def corners(search, walkers, rng):
    return rng.choice([-1.0, 1.0], walkers.shape)


def clusters(search, walkers, rng):
    key = jax.random.key(int(rng.integers(2**31)))
    return np.asarray(_hopping._kick(search.problem[1], jnp.asarray(walkers), key))


def softest(search, walkers, rng):
    """As many spins as a cluster has, drawn by their share in the softest mode."""
    with jax.enable_x64(True):
        fields = np.arctanh(np.clip(walkers, -1 + 1e-15, 1 - 1e-15))
        modes = in_batches(functools.partial(_by_gradients, search.problem), fields, 256)[1]
    n = walkers.shape[1]
    sizes = np.exp(rng.random(len(walkers)) * np.log(n // 2 + 1)).astype(int)
    score = np.abs(modes) * rng.random(modes.shape)
    threshold = np.sort(score, axis=1)[np.arange(len(walkers)), n - sizes]
    return np.where(score >= threshold[:, None], -walkers, walkers)


def crossover(search, walkers, rng):
    other = walkers[rng.permutation(len(walkers))]
    if search.symmetric:
        other = other * np.where(np.sum(walkers * other, axis=1) < 0, -1, 1)[:, None]
    return np.where(rng.random(walkers.shape) < 0.5, walkers, other)


def samples(search, walkers, rng):
    sampler = tg.ParallelTempering(jnp.geomspace(0.3, 1, 8) * search.problem[2])
    key = jax.random.key(int(rng.integers(2**31)))
    chains = len(walkers) // 8
    draws = tg.sample(
        sampler, search.problem[1], search.problem[2], key=key, n_chains=chains, n_sweeps=160,
        burn_in=80, thin=10,
    )  # fmt: skip
    return np.asarray(draws, float).reshape(-1, walkers.shape[1])[: len(walkers)]


def warmer(search, walkers, rng):
    functional, energy, beta = search.problem
    return tg.quench(functional, energy, 0.8 * beta, corners(search, walkers, rng)).value


def deflation(search, walkers, rng):
    functional, energy, beta = search.problem
    # A fixed number of states, so that one program serves all rounds.
    states = search.states.value
    chosen = rng.choice(len(states), 256, replace=len(states) < 256)
    deflated = Deflated(functional, jnp.asarray(states[chosen]), 2.0, 0.15)
    return tg.quench(deflated, energy, beta, corners(search, walkers, rng)).value


MOVES = {
    "corners": corners,
    "clusters": clusters,
    "soft modes": softest,
    "crossover": crossover,
    "samples": samples,
    "warmer": warmer,
    "deflation": deflation,
}


class Search:
    """A growing library, with what the moves ask of it."""

    def __init__(self, functional, energy, beta):
        with jax.enable_x64(True):
            self.problem = make_problem(functional, energy, beta)
            self.symmetric = bool(tg.energies.is_flip_symmetric(self.problem[1]))
        self.pool = Pool(10**6, self.symmetric, lambda fields: np.zeros(len(fields)))

    @property
    def states(self):
        return self.pool.states

    def quench(self, starts) -> int:
        with jax.enable_x64(True):
            theta = starting_fields(self.problem, np.asarray(starts, float))
            ends = fall(self.problem, theta, known=self.pool.states)
            found = np.flatnonzero(is_converged(ends))
            return self.pool.add(jax.tree.map(lambda x: x[found], ends))


def sk(n: int, seed: int = 0) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, np.zeros(n))


def digits() -> tg.Pairwise:
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    return tg.fit(start, data, objective=tg.Pseudolikelihood(1e-3), key=jax.random.key(0)).energy


MODELS = {
    "SK naive": lambda: (tg.NaiveMeanField(), sk(128), 3.0),
    "SK TAP": lambda: (tg.TAP(), sk(128), 6.0),
    "digits": lambda: (tg.NaiveMeanField(), digits(), 2.0),
}


def measure(model: str, name: str) -> str:
    """One line of the table; a round on another library compiles and is not timed."""
    problem, move = MODELS[model](), MOVES[name]
    for rounds in (1, N_ROUNDS):
        rng = np.random.default_rng(0)
        search = Search(*problem)
        first = search.quench(corners(search, np.ones((N_WALKERS, problem[1].n_spins)), rng))
        began, new = time.perf_counter(), 0
        for _ in range(rounds):
            held = search.states.value
            walkers = held[rng.integers(len(held), size=N_WALKERS)]
            new += search.quench(move(search, walkers, rng))
        seconds = time.perf_counter() - began
    free_energies = search.states.stats["free_energy"]
    low = np.sum(free_energies < np.quantile(free_energies[:first], 0.1))
    quenches = N_ROUNDS * N_WALKERS
    return (
        f"{model:>10}{name:>12}{first:8}{new:8}{new / quenches:10.3f}{new / seconds:10.0f}"
        f"{low:8}{free_energies.min():12.5f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--moves", nargs="+", default=list(MOVES), choices=list(MOVES))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    columns = ["first", "new", "new/quench", "new/s", "low", "lowest G"]
    widths = [8, 8, 10, 10, 8, 12]
    head = "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    print(f"{'model':>10}{'move':>12}{head}   (low: in the lowest tenth of the first round)")
    for model in arguments.models:
        for name in arguments.moves:
            print(measure(model, name), flush=True)


if __name__ == "__main__":
    main()
