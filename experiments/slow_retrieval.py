"""Are sure answers slow ones? Exact times of retrieval, with cues and without.

Hopfield models of a few random patterns in weak fields. Some spins of a pattern are known, the
others follow heat-bath dynamics from random beginnings. The answer is the configuration of lowest
energy that agrees with the cue. By linear algebra with the transition matrix, for all models,
temperatures and cues at once: the mean time until the answer is first met, in sweeps of the spins
that are asked for, and the probability of the answer in equilibrium. Beside it stands whether the
landscape with the cue clamped has other single-flip minima. Prints a table and a verdict for each
claim; saves a table, JSON and a picture.

In practice: cooling makes answers surer and a plain sampler slower, often exponentially so where
the question leaves more than one minimum open. A longer run is the wrong remedy. Ask with more
known spins, so that one minimum is left; move between temperatures; or look the states up once, in
a library, and start from all of them.

    python -m experiments slow_retrieval [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, STYLE, claim, descents, save, table

N_PATTERNS, FIELD = 3, 0.05
LONGEST = 1e13  # sweeps: beyond, the linear system is not solved to any precision
COLORS = (ACCENT, INK, GREEN)
QUICK = {"n": 9, "models": 12, "betas": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0), "known": (0, 3, 6)}


def clamped(n: int, n_known: int, count: int) -> tg.Pairwise:
    """Models of the spins that are asked for; the known ones act by fields. Batched over models."""
    rng = np.random.default_rng(n)
    patterns = rng.choice([-1.0, 1.0], (count, N_PATTERNS, n))
    matrix = np.einsum("cpi,cpj->cij", patterns, patterns) / n * (1 - np.eye(n))
    fields = FIELD * rng.normal(size=(count, n))
    cue = patterns[:, 0, :n_known]
    asked = slice(n_known, n)
    by_cue = np.einsum("cij,cj->ci", matrix[:, asked, :n_known], cue)
    return jax.vmap(tg.Pairwise)(matrix[:, asked, asked], fields[:, asked] + by_cue)


@jax.jit
def retrieval(energy: tg.Pairwise, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean first time of the answer from random beginnings, in sweeps, and its probability."""
    energies, n = tg.exact.energies(energy), energy.n_spins
    index, answer = jnp.arange(2**n), jnp.argmin(energies)
    leaves = jnp.zeros((2**n, 2**n))  # identity less the matrix of a step, which draws one spin
    for k in range(n):
        rate = jax.nn.sigmoid(-beta * (energies[index ^ (1 << k)] - energies)) / n
        leaves = leaves.at[index, index].add(rate).at[index, index ^ (1 << k)].add(-rate)
    # The answer is the end: its own time is 0.
    leaves = leaves.at[answer].set(jnp.where(index == answer, 1.0, 0.0))
    steps = jnp.linalg.solve(leaves, jnp.where(index == answer, 0.0, 1.0))
    time = jnp.mean(steps) / n
    time = jnp.where((time > 0) & (time < LONGEST), time, jnp.inf)
    return time, jax.nn.softmax(-beta * energies)[answer]


def measure(n: int, n_known: int, count: int, betas: np.ndarray) -> dict[str, Any]:
    models = clamped(n, n_known, count)
    at_all = jax.vmap(retrieval, (None, 0))
    times, sure = jax.lax.map(lambda model: at_all(model, jnp.asarray(betas)), models)
    every = [jax.tree.map(lambda x, k=k: x[k], models) for k in range(count)]
    ends = [descents(np.asarray(tg.exact.energies(energy))) for energy in every]
    return {
        "times": np.asarray(times),
        "sure": np.asarray(sure),
        "minima": np.array([len(np.unique(goal)) for goal in ends]),
    }


def slowing(f: dict[str, Any]) -> np.ndarray:
    """Time in the cold over the least at any temperature, of each model."""
    return f["times"][:, -1] / f["times"].min(axis=1)


def verdicts(found: dict[int, dict[str, Any]], betas: np.ndarray) -> None:
    several = np.concatenate([slowing(f)[f["minima"] > 1] for f in found.values()])
    alone = np.concatenate([slowing(f)[f["minima"] == 1] for f in found.values()])
    every = np.concatenate([f["sure"] for f in found.values()])
    claim(
        "the colder, the surer the answer, in all cases",
        np.all(np.diff(every, axis=1) > 0),
        f"median probability {np.median(every[:, 0]):.2f} at beta = {betas[0]:g}, "
        f"{np.median(every[:, -1]):.2f} at {betas[-1]:g}",
    )
    claim(
        "with more than one minimum left open the cold takes over 100 times as long, in every case",
        len(several) > 0 and several.min() > 100,
        f"{np.sum(several > 100)} of {len(several)} cases; median {np.median(several):.2g} times, "
        f"least {several.min():.2g}: shallow ones are left soon",
    )
    claim(
        "with one minimum left the cold takes at most twice as long, in every case",
        len(alone) > 0 and alone.max() < 2,
        f"{len(alone)} cases: median {np.median(alone):.2f} times, largest {alone.max():.2f}",
    )
    cold = {k: np.median(f["times"][:, -1]) for k, f in found.items()}
    claim(
        "the more is known, the sooner the answer in the cold, in the median",
        np.all(np.diff(list(cold.values())) < 0),
        ", ".join(f"{k} known: {time:.3g} sweeps" for k, time in cold.items()),
    )


def draw(found: dict[int, dict[str, Any]], betas: np.ndarray) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for color, (k, f) in zip(COLORS, found.items(), strict=False):
            left.semilogy(betas, f["times"].T, color=color, linewidth=0.5, alpha=0.35)
            left.semilogy(betas, np.median(f["times"], axis=0), "o-", color=color, markersize=4,
                          label=f"{k} spins known, {np.mean(f['minima']):.1f} minima")  # fmt: skip
            right.semilogy(np.median(f["sure"], axis=0), np.median(f["times"], axis=0), "o-",
                           color=color, markersize=4, label=f"{k} spins known")  # fmt: skip
        left.set_title("time until the answer is met")
        left.set(xlabel="beta", ylabel="sweeps; median, and every model")
        right.set_title("the price of being sure")
        right.set(xlabel="probability of the answer", ylabel="sweeps, medians")
        for axes in (left, right):
            axes.legend(loc="upper left")
    return figure


def main(
    *,
    n: int = 10,
    models: int = 24,
    betas: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    known: tuple[int, ...] = (0, 3, 6),
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    cooled = np.asarray(betas)
    found = {k: measure(n, k, models, cooled) for k in known}
    rows = [
        {"known": k, "beta": beta, "time": float(np.median(f["times"][:, b])),
         "sure": float(np.median(f["sure"][:, b]))}
        for k, f in found.items()
        for b, beta in enumerate(betas)
    ]  # fmt: skip
    for row in rows:
        print(f"{row['known']:3} known{row['beta']:6g}{row['time']:12.4g} sweeps{row['sure']:8.3f}")
    verdicts(found, cooled)
    table(out / "slow_retrieval.csv", rows)
    save(out / "slow_retrieval.json", found)
    save(out / "slow_retrieval.png", draw(found, cooled))
