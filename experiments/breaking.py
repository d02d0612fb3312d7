"""When does a model break ergodicity? Slow processes and overlaps of replicas as models cool.

Many models of a few spins each: magnets of one random pattern, Hopfield models of three, and SK
glasses. Everything is exact, over a range of beta and over all models at once: the relaxation times
of heat-bath dynamics, of which those beyond 20 sweeps count the bound states, the distribution P(q)
of the overlap of two independent replicas, and the barrier of E that the slowest process has to
pass. Prints a table and a verdict for each claim; saves a table, JSON and a picture.

In practice: the same couplings that store patterns keep a sampler from moving between them. Before
chains are trusted, as gradients in training or as samples afterwards, compare their length with the
escape times: once several bound states hold for longer than a run, its averages are those of where
it began. P(q) of independent chains shows it without a long run: more than one peak.

    python -m experiments breaking [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, STYLE, claim, save, table
from experiments.barriers import LONGEST, slowest_rise

THRESHOLD = 20.0  # sweeps
N_TIMES = 12
COLORS = {"one pattern": GREEN, "three patterns": INK, "SK": ACCENT}
QUICK = {"n": 8, "models": 12, "betas": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)}


def couplings(family: str, n: int, count: int) -> np.ndarray:
    """Shape `(count, n, n)`."""
    rng = np.random.default_rng(n)
    if family == "SK":
        upper = np.triu(rng.normal(size=(count, n, n)), 1) / np.sqrt(n)
        return upper + upper.transpose(0, 2, 1)
    patterns = rng.choice([-1.0, 1.0], (count, 1 if family == "one pattern" else 3, n))
    return np.einsum("cpi,cpj->cij", patterns, patterns) / n * (1 - np.eye(n))


@jax.jit
def overlaps(energy: tg.Pairwise, beta: jax.Array) -> jax.Array:
    """P(q) of two replicas, from q = 1 down to -1, shape `(n + 1,)`."""
    n = energy.n_spins
    p = tg.exact.probabilities(energy, beta)
    # A convolution over the spins that differ: products of Walsh transforms.
    differ = 2**n * tg.inverse_walsh_transform(tg.walsh_transform(p) ** 2)
    flips = jax.lax.population_count(jnp.arange(2**n))
    return jnp.zeros(n + 1).at[flips].add(differ)


def measure(family: str, n: int, count: int, betas: np.ndarray) -> dict[str, Any]:
    """Relaxation times and P(q), shapes `(models, betas, ...)`, and barriers of E."""
    energies = jax.vmap(tg.Pairwise)(couplings(family, n, count), np.zeros((count, n)))

    def times(energy, beta):
        return tg.exact.relaxation_times(energy, beta)[:N_TIMES]

    over = lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None))(energies, betas)  # noqa: E731
    rises = []
    for k in range(count):
        energy = jax.tree.map(lambda x, k=k: x[k], energies)
        rises.append(slowest_rise(tg.exact.barriers(energy, tg.exact.single_flip_minima(energy))))
    return {
        "times": np.asarray(over(times)),
        "overlaps": np.asarray(over(overlaps)),
        "barriers": np.array(rises),
    }


def slopes(times: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Of ln of the longest time by beta, between the two coldest that are precise."""
    found = []
    for longest in times[:, :, 0]:
        known = np.flatnonzero(longest < LONGEST)[-2:]
        found.append(np.diff(np.log(longest[known]))[0] / np.diff(betas[known])[0])
    return np.array(found)


def verdicts(found: dict[str, dict[str, Any]], betas: np.ndarray) -> None:
    bound = {name: 1 + np.sum(f["times"] > THRESHOLD, axis=2) for name, f in found.items()}
    hot, cold = (np.concatenate([b[:, k] for b in bound.values()]) for k in (0, -1))
    claim(
        f"all models are ergodic at beta = {betas[0]:g}, none is at {betas[-1]:g}",
        np.all(hot == 1) and np.all(cold > 1),
        f"not ergodic: {np.sum(hot > 1)} and {np.sum(cold > 1)} of {len(hot)}",
    )
    many = {name: b[:, -1] for name, b in bound.items()}
    claim(
        "a magnet of one pattern has two bound states in the cold, other models mostly have more",
        np.all(many["one pattern"] == 2)
        and all(np.mean(b > 2) > 0.5 for name, b in many.items() if name != "one pattern"),
        ", ".join(
            f"{k}: {np.mean(b):.1f}, more than two in {np.mean(b > 2):.0%}" for k, b in many.items()
        ),  # fmt: skip
    )
    ratios = np.concatenate([slopes(f["times"], betas) / f["barriers"] for f in found.values()])
    close = np.mean(np.abs(ratios - 1) < 0.1)
    claim(
        "the longest time grows as exp(beta times the barrier of E), within 10 % in 9 of 10 models",
        close >= 0.9,
        f"in {close:.0%}; median {np.median(ratios):.3f}, {ratios.min():.2f} to {ratios.max():.2f}",
    )
    n = next(iter(found.values()))["overlaps"].shape[2] - 1
    q = 1 - 2 * np.arange(n + 1) / n
    squares = np.concatenate([(f["overlaps"] @ q**2).ravel() for f in found.values()])
    longest = np.concatenate([f["times"][:, :, 0].ravel() for f in found.values()])
    ranks = spearmanr(squares, longest).statistic
    claim(
        "overlaps of replicas tell it: <q^2> rises with the longest time, rank correlation 0.9",
        ranks > 0.9,
        f"{ranks:.3f} over {len(squares)} models and temperatures",
    )


def draw(found: dict[str, dict[str, Any]], betas: np.ndarray) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        left, *others = figure.subplots(1, 4)
        for name, f in found.items():
            longest = f["times"][:, :, 0]
            left.semilogy(betas, np.median(longest, axis=0), color=COLORS[name], label=name)
            left.fill_between(
                betas, *np.quantile(longest, [0.1, 0.9], axis=0), color=COLORS[name], alpha=0.15
            )
        left.axhline(THRESHOLD, color="0.6", linewidth=0.8)
        left.set_title("longest relaxation time")
        left.set(xlabel="beta", ylabel="sweeps, median and 8 in 10")
        left.legend()
        for axes, (name, f) in zip(others, found.items(), strict=True):
            n = f["overlaps"].shape[2] - 1
            q = 1 - 2 * np.arange(n + 1) / n
            for k, shade in ((0, 0.25), (len(betas) // 2, 0.55), (-1, 1.0)):
                curve = f["overlaps"][:, k].mean(axis=0)
                axes.plot(q, curve, "o-", color=COLORS[name], alpha=shade, markersize=3,
                          label=f"beta = {betas[k]:g}")  # fmt: skip
            axes.set_title(f"P(q), {name}")
            axes.set(xlabel="overlap q of two replicas", ylim=(0, 1.4 * axes.get_ylim()[1]))
            axes.legend(loc="upper center")
    return figure


def main(
    *,
    n: int = 10,
    models: int = 24,
    betas: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0),
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    cooled = np.asarray(betas)
    found = {family: measure(family, n, models, cooled) for family in COLORS}
    rows = [
        {
            "family": family,
            "beta": beta,
            "bound": float(np.mean(1 + np.sum(f["times"][:, k] > THRESHOLD, axis=1))),
            "longest": float(np.median(f["times"][:, k, 0])),
        }
        for family, f in found.items()
        for k, beta in enumerate(betas)
    ]
    for row in rows:
        print(f"{row['family']:16}{row['beta']:6g}{row['bound']:8.2f}{row['longest']:12.4g} sweeps")
    verdicts(found, cooled)
    table(out / "breaking.csv", rows)
    save(out / "breaking.json", found)
    save(out / "breaking.png", draw(found, cooled))
