"""Which digits hold a state up: the influence of each on its free energy, and retraining without.

A pairwise model of the digits (pseudolikelihood), naive mean field at beta = 1.5. The influence of
a digit on a state is the derivative, by the weight of the digit, of the free energy of the state
less that of all other states: one backward pass through the fit gives that of all digits. What
lowers it most holds the state up. The model is learned again without the ten digits of largest
influence, without five, twenty and thirty, and without as many random digits of the same label, ten
times. Reported are the change of the free energy, what the influence says of it, and whether
the dynamics still stays in the state (`certify`).

In practice: which training samples a state of a model rests on is one backward pass, not a
retraining for each. Leave them out and the state sinks or is gone, as predicted; random samples of
the same class do little. Use it to find mislabelled or duplicated data behind a state that should
not be there, but do not expect it to tell how long the dynamics stays.

    python -m experiments influence [--quick] [--out DIR]
"""

import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import thermogen as tg
from experiments._shared import ACCENT, INK, MUTED, STYLE, claim, save

N, BETA = 64, 1.5
NAIVE = tg.NaiveMeanField()
START = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
TEN, MOST = 10, 30  # digits left out, which claims are about
QUICK = {"counts": (TEN, MOST), "draws": 4}
THRESHOLD = 20  # sweeps
N_TRAJECTORIES = 256


class State(NamedTuple):
    """One of the states of the model that learned all digits."""

    library: tg.Library
    row: int


class Fate(NamedTuple):
    """What the dynamics makes of a state: when it leaves, in sweeps, and whether it is a trap.

    Where it exchanges fast with others it is none, and the time is that of all of them together.
    """

    time: float
    low: float
    high: float
    bound: bool

    @property
    def exists(self) -> bool:
        return self.time > 0

    def __str__(self) -> str:
        interval = f"{self.time:.0f} ({self.low:.0f} to {self.high:.0f})"
        return f"{interval}, {'yes' if self.bound else 'no'}" if self.exists else "gone"


class Effects(NamedTuple):
    """What it does to a state that sets of digits of one size are left out.

    The first set is that of largest influence, the others are random.
    """

    count: int
    predicted: np.ndarray
    changes: np.ndarray
    fates: list[Fate]


def learned(spins: np.ndarray, weights: jax.Array) -> tg.Pairwise:
    objective, key = tg.Pseudolikelihood(), jax.random.key(0)
    return tg.fit(objective, START, spins, weights=weights, key=key).energy


def gap(energy: tg.Pairwise, state: State) -> jax.Array:
    """Free energy of a state less that of all others together; NaN where it is gone."""
    states = tg.landscape.follow(NAIVE, energy, BETA, state.library)
    others = states.exists & (jnp.arange(len(states.exists)) != state.row)
    rest = jax.nn.logsumexp(-BETA * states.free_energies, where=others)
    found = states.free_energies[state.row] + rest / BETA
    return jnp.where(states.exists[state.row], found, jnp.nan)


def fates(energy: tg.Pairwise, library: tg.Library) -> list[Fate]:
    """What the dynamics makes of each state; one that does not exist is left at once."""
    states = tg.landscape.follow(NAIVE, energy, BETA, library)
    kept = np.flatnonzero(states.exists)
    found = tg.certify(
        energy,
        BETA,
        np.asarray(states.magnetizations)[kept],
        key=jax.random.key(4),
        threshold=THRESHOLD,
        n_trajectories=N_TRAJECTORIES,
    )
    told = {
        int(k): Fate(float(found.escape_times[i]), *found.intervals[i].tolist(), found.bound[i])
        for i, k in enumerate(kept)
    }
    return [told.get(k, Fate(0.0, 0.0, 0.0, False)) for k in range(len(library))]


def chosen(energy: tg.Pairwise) -> State:
    """The state of lowest free energy that traps the dynamics, but for the lowest of all."""
    library = tg.find_minima(NAIVE, energy, BETA, key=jax.random.key(1), n_starts=512)
    traps = [k for k, fate in enumerate(fates(energy, library)) if fate.bound]
    lowest = int(np.argmin(library.free_energies))
    row = next(k for k in sorted(traps, key=lambda k: library.free_energies[k]) if k != lowest)
    print(f"{len(library)} states, of which {len(traps)} trap the dynamics for {THRESHOLD} sweeps")
    return State(library, row)


def without(spins: np.ndarray, left_out: np.ndarray) -> tg.Pairwise:
    return RELEARNED(spins, jnp.ones(len(spins)).at[left_out].set(0.0))


RELEARNED = jax.jit(learned)


def main(
    *,
    counts: tuple[int, ...] = (5, TEN, 20, MOST),
    draws: int = 10,
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    digits = tg.datasets.digits()
    spins, labels = digits.spins, np.asarray(digits.labels)
    weights = jnp.ones(len(spins))
    energy = RELEARNED(spins, weights)
    state = chosen(energy)
    slope = jax.jit(jax.grad(lambda w: gap(learned(spins, w), state)))
    influence = np.asarray(slope(weights))
    seconds = [timed(lambda: slope(weights)), timed(lambda: RELEARNED(spins, weights))]
    print(f"influence of {len(spins)} digits: {seconds[0]:.2f} s; one fit: {seconds[1]:.2f} s")
    order = np.argsort(influence)
    top = labels[order[:TEN]]
    label = int(np.bincount(top).argmax())
    print(f"labels of the {TEN} that hold the state up: {top.tolist()}")
    fate = fates(energy, state.library)[state.row]
    print(f"all digits: {gap(energy, state):.4f} above the others; escape time, traps: {fate}")
    rows = []
    for count in counts:
        sets = [order[:count], *(drawn(labels, label, count, seed) for seed in range(draws))]
        rows.append(effects(energy, spins, state, influence, sets))
    table(rows, label)
    of = dict(zip(counts, rows, strict=True))
    verdicts(of[TEN], of[MOST])
    draw(state, spins[order[:TEN]], rows, out / "influence.png")


def timed(function: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def drawn(labels: np.ndarray, label: int, count: int, seed: int) -> np.ndarray:
    alike = np.flatnonzero(labels == label)
    return np.random.default_rng(seed).choice(alike, count, replace=False)


def effects(
    energy: tg.Pairwise,
    spins: np.ndarray,
    state: State,
    influence: np.ndarray,
    sets: list[np.ndarray],
) -> Effects:
    """What learning without each of some sets of digits does to a state."""
    models = [without(spins, left_out) for left_out in sets]
    changes = [float(gap(model, state) - gap(energy, state)) for model in models]
    predicted = [-float(influence[left_out].sum()) for left_out in sets]
    after = [fates(model, state.library)[state.row] for model in models]
    return Effects(len(sets[0]), np.array(predicted), np.array(changes), after)


def table(rows: list[Effects], label: int) -> None:
    print(f"\n{'left out':>28}{'predicted':>11}{'free energy':>13}   escape time, traps")
    for row in rows:
        told = f"{row.count} of largest influence"
        first = row.fates[0]
        print(f"{told:>28}{row.predicted[0]:11.4f}{row.changes[0]:13.4f}   {first}")
        told, random = f"{row.count} random of label {label}", row.fates[1:]
        means = f"{row.predicted[1:].mean():11.4f}{np.nanmean(row.changes[1:]):13.4f}"
        times = [f.time for f in random if f.exists]
        spread = f"{min(times):.0f} to {max(times):.0f}, " if times else ""
        n_traps, n_gone = sum(f.bound for f in random), len(random) - len(times)
        print(f"{told:>28}{means}   {spread}{n_traps} trap, {n_gone} gone")


def verdicts(ten: Effects, thirty: Effects) -> None:
    predicted, change = ten.predicted[0], ten.changes[0]
    claim(
        "the influence tells the rise of the free energy without the ten to a tenth",
        abs(change / predicted - 1) < 0.1,
        f"{predicted:.4f} for {change:.4f}",
    )
    random = ten.changes[1:]
    claim(
        "without the ten it rises more than without any ten random digits of the label",
        change > random.max(),
        f"{change:.4f} against {random.min():.4f} to {random.max():.4f}",
    )
    n_kept, n_draws = sum(fate.exists for fate in thirty.fates[1:]), len(thirty.fates) - 1
    claim(
        "without the thirty of largest influence the state is gone, without random ones it is not",
        not thirty.fates[0].exists and n_kept == n_draws,
        f"there after {n_kept} of {n_draws} random choices",
    )
    times = [fate.time for fate in ten.fates[1:]]
    claim(
        "without the ten the dynamics leaves sooner than without any ten random digits",
        ten.fates[0].time < min(times),
        f"{ten.fates[0].time:.0f} sweeps against {min(times):.0f} to {max(times):.0f}",
    )


def draw(state: State, best: np.ndarray, rows: list[Effects], out: pathlib.Path) -> None:
    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(8, 2.6), width_ratios=(1, 2.5, 2), layout="constrained"
        )
        shades = {"cmap": "gray", "vmin": -1, "vmax": 1}
        m = np.asarray(state.library.magnetizations[state.row])
        left.imshow(m.reshape(8, 8), **shades)
        framed = np.pad(best.reshape(2, 5, 8, 8).astype(float), ((0, 0),) * 2 + ((1, 1),) * 2)
        middle.imshow(framed.transpose(0, 2, 1, 3).reshape(20, 50), **shades)
        for axes, title in ((left, "State"), (middle, "Ten digits that hold it up")):
            axes.set_title(title)
            axes.axis("off")
        counts = [row.count for row in rows]
        right.plot(counts, [row.predicted[0] for row in rows], "--", color=MUTED, label="predicted")
        changes = np.array([row.changes for row in rows])
        right.plot(counts, changes[:, 0], "o-", color=ACCENT, label="of largest influence")
        right.plot(counts, changes[:, 1:], ".", color=INK)
        right.plot([], [], ".", color=INK, label="random, same label")
        gone = [row for row in rows if not row.fates[0].exists]
        right.plot(
            [row.count for row in gone],
            [row.predicted[0] for row in gone],
            "x",
            color=ACCENT,
            label="the state is gone",
        )
        right.set(xlabel="digits left out", ylabel="rise of its free energy")
        right.set(xticks=counts, ylim=(0, 1.1))
        right.set_title("Learned without them")
        right.legend()
        save(out, figure)
        plt.close(figure)
