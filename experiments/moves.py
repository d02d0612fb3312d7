"""Which moves earn their place in the search: new states in equal time, and per quench.

Each contender starts from the states of one round of random corners and adds rounds of 512
quenches for so many seconds, compilation not counted, on one model. All starts go through
the same quench and count once it has certified them:

- corner: plain multistart, the default of `find_minima`;
- cluster: a random spin and those that it couples to flip;
- crossover: every spin from one of two states, taken at random;
- mix: these three, those that bring new states more often (Thompson sampling);
- walkers: clusters flipped by walkers that accept by Metropolis at the spread of their G;
- soft modes: the spins that dominate the eigenvector of lowest curvature flip;
- warmer: minima found at 0.8 beta, followed to beta (both descents take time);
- deflation: descent on G plus a bump on 256 states known, then on G (both take time).

But for the walkers, states to move from are drawn evenly from the library. `early` counts the
new states in an eighth of the time, `low` those held at last as low as the lowest tenth of the
first round. Tasks of an array share the models; moves.csv holds a row for each contender.

    python -m experiments moves [--models "SK 128" ...] [--moves mix ...] [--seconds 4] [--out DIR]
"""

import functools
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

import thermogen as tg
from experiments._shared import table
from thermogen._batches import in_batches
from thermogen._tasks import Task
from thermogen.energies import is_flip_symmetric
from thermogen.meanfield import AbstractFunctional
from thermogen.search import (
    below_saddles,
    corner,
    crossover,
    fall,
    flip_cluster,
    is_converged,
    make_problem,
)
from thermogen.search._curvature import _by_gradients
from thermogen.search._merge import Pool
from thermogen.search._quench import starting_fields

N_WALKERS = 512

# What the table has of each contender, and how it is printed.
COLUMNS = {"first": "8", "early": "8", "new": "8", "quenches": "9", "new/quench": "11.4f"}
COLUMNS |= {"new/s": "9.1f", "low": "8", "lowest G": "12.5f"}

# Share of its past that the tally of a move keeps from one round to the next.
MEMORY = 0.5


class Deflated(AbstractFunctional):
    """G plus a bump on each of K states and on their mirror images."""

    functional: AbstractFunctional
    states: jax.Array
    height: float
    width: float

    def excess(self, energy, beta, m):
        bumps = 0.0
        for sign in (1, -1):
            far = jnp.mean((self.states - sign * m[None, :]) ** 2, axis=1)
            bumps = bumps + jnp.sum(jnp.exp(-far / (2 * self.width**2)))
        return self.functional.excess(energy, beta, m) + self.height * bumps


class Mix:
    """Which move to make: Thompson sampling of the share of quenches that bring a new state."""

    def __init__(self, n_moves: int):
        self._new, self._old = np.zeros((2, n_moves))

    def choose(self, n_walkers: int, rng: np.random.Generator) -> Int[np.ndarray, " walkers"]:
        """The move of each walker: of the highest rate, drawn from what is known of each."""
        rates = rng.beta(1 + self._new, 1 + self._old, (n_walkers, len(self._new)))
        return np.argmax(rates, axis=1)

    def learn(self, chosen: Int[np.ndarray, " walkers"], new: Int[np.ndarray, " found"]) -> None:
        """Tally a round, `new` the walkers that brought a new state; the past fades."""
        made, brought = (np.bincount(x, minlength=len(self._new)) for x in (chosen, chosen[new]))
        self._new = MEMORY * self._new + brought
        self._old = MEMORY * self._old + made - brought


def softest(search):
    """As many spins as a cluster has, drawn by their share in the softest mode."""
    states, rng = search.parents(N_WALKERS)[:, 0], search.rng
    with jax.enable_x64(True):
        fields = np.arctanh(np.clip(states, -1 + 1e-15, 1 - 1e-15))
        modes = in_batches(functools.partial(_by_gradients, search.problem), fields, 256)[1]
    n = states.shape[1]
    sizes = np.exp(rng.random(len(states)) * np.log(n // 2 + 1)).astype(int)
    score = np.abs(modes) * rng.random(modes.shape)
    threshold = np.sort(score, axis=1)[np.arange(len(states)), n - sizes]
    return np.where(score >= threshold[:, None], -states, states)


def warmer(search):
    problem = search.problem
    functional, energy, beta = problem.functional, problem.energy, problem.beta
    return tg.quench(functional, energy, 0.8 * beta, search.corners(N_WALKERS)).value


def deflation(search):
    problem = search.problem
    functional, energy, beta = problem.functional, problem.energy, problem.beta
    # A fixed number of states, so that one program serves all rounds.
    states = search.pool.states.value
    chosen = search.rng.choice(len(states), 256, replace=len(states) < 256)
    deflated = Deflated(functional, jnp.asarray(states[chosen]), 2.0, 0.15)
    return tg.quench(deflated, energy, beta, search.corners(N_WALKERS)).value


def proposed(propose):
    """Rounds whose starts come from a function of the search."""
    return lambda search: lambda: search.quench(propose(search))


def mixed(*moves):
    """Rounds by these moves."""

    def rounds(search):
        mix = Mix(len(moves))

        def one_round():
            chosen = mix.choose(N_WALKERS, search.rng)
            new = search.quench(search.moved(moves, chosen))
            mix.learn(chosen, new)
            search.made += np.bincount(chosen, minlength=3)
            return new

        return one_round

    return rounds


def walked(search):
    """Rounds of basin hopping (Wales and Doye 1997)."""
    held = search.pool.states
    rows = search.rng.integers(len(held.value), size=N_WALKERS)
    state = {"m": held.value[rows], "g": held.stats["free_energy"][rows]}

    def one_round():
        pairs = np.stack([state["m"]] * 2, axis=1)
        key = jax.random.key(int(search.rng.integers(2**31)))
        with jax.enable_x64(True):
            none = jnp.zeros(N_WALKERS, int)
            energy, moves = search.problem.energy, (flip_cluster,)
            starts = np.asarray(_move(energy, moves, jnp.asarray(pairs), none, key))
            ends = fall(search.problem, starting_fields(starts), known=held_now())
        good = is_converged(ends)
        new = search.pool.add(jax.tree.map(lambda x: x[np.flatnonzero(good)], ends))
        rise = ends.stats["free_energy"] - state["g"]
        accept = good & (rise < np.std(state["g"]) * search.rng.exponential(size=N_WALKERS))
        state["m"] = np.where(accept[:, None], ends.value, state["m"])
        state["g"] = np.where(accept, ends.stats["free_energy"], state["g"])
        return new

    def held_now():
        return search.pool.states

    return one_round


MOVES = {
    "corner": mixed(corner),
    "cluster": mixed(flip_cluster),
    "crossover": mixed(crossover),
    "mix": mixed(corner, flip_cluster, crossover),
    "walkers": walked,
    "soft modes": proposed(softest),
    "warmer": proposed(warmer),
    "deflation": proposed(deflation),
}


def sk(n: int, fields: float = 0.0) -> tg.Pairwise:
    rng = np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, fields * rng.normal(size=n))


def digits() -> tg.AbstractMultilinear:
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    return tg.fit(tg.Pseudolikelihood(1e-3), start, data, key=jax.random.key(0)).energy


def three_spin(n: int = 64, n_terms: int = 1024) -> tg.Interactions:
    """Random triples; the fields at a corner have the spread of an SK model."""
    rng = np.random.default_rng(0)
    width = np.sqrt(n / (3 * n_terms))
    sets = {tuple(sorted(rng.choice(n, 3, replace=False).tolist())) for _ in range(n_terms)}
    return tg.Interactions.from_terms(n, {s: width * rng.normal() for s in sorted(sets)})


MODELS = {
    "SK 128": lambda: (tg.NaiveMeanField(), sk(128), 3.0),
    "SK 256": lambda: (tg.NaiveMeanField(), sk(256), 2.0),
    "digits": lambda: (tg.NaiveMeanField(), digits(), 2.0),
    "3-spin": lambda: (tg.NaiveMeanField(), three_spin(), 3.0),
    "SK 64 TAP": lambda: (tg.TAP(), sk(64, fields=0.1), 6.0),
}


class Search:
    """Rounds of quenches that collect what they find, and new starts from it."""

    def __init__(self, model, seed: int = 0):
        with jax.enable_x64(True):
            self.problem = make_problem(*model)
            self.symmetric = bool(is_flip_symmetric(self.problem.energy))
        # Nobody reads the curvatures of what it holds.
        self.pool = Pool(10**6, self.symmetric, lambda fields: np.zeros(len(fields)))
        self.rng = np.random.default_rng(seed)
        self.made = np.zeros(3, int)
        self.first = self.quench(self.scattered(self.corners(N_WALKERS))).size

    def corners(self, count: int) -> np.ndarray:
        """Random corners of the cube."""
        return self.rng.choice([-1.0, 1.0], (count, self.problem.energy.n_spins))

    def scattered(self, corners: np.ndarray) -> np.ndarray:
        """Points near corners in general position: each spin has a depth of its own."""
        return np.tanh(corners * self.rng.uniform(2, 4, corners.shape))

    def quench(self, starts: np.ndarray) -> np.ndarray:
        """Quench the starts, hold the minima, and say which starts brought new ones."""
        with jax.enable_x64(True):
            ends = fall(self.problem, starting_fields(starts), known=self.pool.states)
            found = np.flatnonzero(is_converged(ends))
            fresh = found[self.pool.add(jax.tree.map(lambda x: x[found], ends))]
            owners, minima = below_saddles(self.problem, ends, self.rng)
            below = owners if minima is None else owners[self.pool.add(minima)]
            return np.append(fresh, below)

    def parents(self, count: int) -> np.ndarray:
        """Pairs of states drawn evenly, each turned to one side where mirror images count."""
        held = self.pool.states.value
        pairs = held[self.rng.integers(len(held), size=(count, 2))]
        if self.symmetric:
            pairs[np.sum(pairs[:, 0] * pairs[:, 1], axis=1) < 0, 1] *= -1
        return pairs

    def moved(self, moves, chosen: np.ndarray) -> np.ndarray:
        """New starts, each by the move chosen for it."""
        key = jax.random.key(int(self.rng.integers(2**31)))
        with jax.enable_x64(True):
            pairs = jnp.asarray(self.parents(len(chosen)))
            starts = np.array(_move(self.problem.energy, moves, pairs, jnp.asarray(chosen), key))
        plain = np.array([move is corner for move in moves])[chosen]
        starts[plain] = self.scattered(starts[plain])
        return starts


@eqx.filter_jit
def _move(energy, moves, pairs, chosen, key):
    def single(pair, choice, key):
        # All moves are made, for they cost nothing beside a quench.
        return jnp.stack([move(energy, pair, key) for move in moves])[choice]

    return jax.vmap(single)(pairs, chosen, jax.random.split(key, len(chosen)))


class Clock:
    """Wall time less the time that JAX spends on tracing and compiling."""

    def __init__(self):
        self._compiling = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self._compiling += duration_secs

    def __call__(self) -> float:
        return time.perf_counter() - self._compiling


class Contender:
    """A search by one way to propose starts; the first rounds, of another, warm up."""

    def __init__(self, problem, name: str, clock: Clock):
        warm = MOVES[name](Search(problem, seed=1))
        for _ in range(3):
            warm()
        self.name, self.clock, self.search = name, clock, Search(problem)
        self.one_round = MOVES[name](self.search)
        self.spent, self.found = 0.0, []

    def run(self, until: float) -> None:
        """Rounds until so many seconds are spent in all."""
        while self.spent < until:
            began = self.clock()
            new = self.one_round().size
            self.spent += self.clock() - began
            self.found.append((self.spent, new))

    def figures(self) -> dict[str, Any]:
        seconds, new = np.transpose(self.found)
        quenches = len(new) * N_WALKERS
        early = int(new[seconds <= self.spent / 8].sum())
        assert self.search.pool.states is not None
        free_energies = self.search.pool.states.stats["free_energy"]
        first = self.search.first
        low = np.sum(free_energies < np.quantile(free_energies[:first], 0.1))
        shares = " ".join(f"{x:.2f}" for x in self.search.made / quenches)
        per_quench, rate = new.sum() / quenches, new.sum() / self.spent
        counts = first, early, int(new.sum()), quenches, per_quench, rate, low, free_energies.min()
        found = dict(zip(COLUMNS, counts, strict=True))
        return {"move": self.name, **found, "shares": shares if self.name == "mix" else ""}


def main(
    models: tuple[str, ...] = tuple(MODELS),
    moves: tuple[str, ...] = tuple(MOVES),
    seconds: float = 4.0,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    clock, rows = Clock(), []
    head = "".join(f"{name:>{form.split('.')[0]}}" for name, form in COLUMNS.items())
    print(f"{'model':>10}{'move':>12}{head}  shares")
    for model in task.part(models):
        problem = MODELS[model]()
        contenders = [Contender(problem, name, clock) for name in moves]
        # In turns, so that whatever else the machine does slows all of them.
        for share in np.linspace(0, 1, 9)[1:]:
            for contender in contenders:
                contender.run(share * seconds)
        for contender in contenders:
            row = {"model": model, **contender.figures()}
            cells = "".join(f"{row[name]:{form}}" for name, form in COLUMNS.items())
            print(f"{model:>10}{row['move']:>12}{cells}  {row['shares']}", flush=True)
            rows.append(row)
    table(out / "moves.csv", rows)
