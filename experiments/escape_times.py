"""How far off are escape times by saddles? Rate theory and Arrhenius against exact relaxation.

Models of ten spins with one pair of mirror images or two states, by naive mean field, and no other
minimum: what relaxes slowest is their exchange, at the sum of their rates. Of the random models
those are taken that have a barrier of at least 2/beta.

In practice: how long a state holds can be read off its saddles, prefactor included, to better than
a factor two, with derivatives by the parameters. The bare Arrhenius factor is off by ten to twenty
times. Where mean field is all that can be afforded, trust the order of the times, not the times.

    python -m experiments escape_times [--quick] [--out DIR]
"""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp

import thermogen as tg
from experiments._shared import ACCENT, INK, STYLE, claim, save, table
from thermogen import landscape
from thermogen._tasks import Task

N, BETAS, HIGHEST = 10, (1.5, 2.0, 3.0), 1e10
NAIVE = tg.NaiveMeanField()
ESTIMATES = {"rate theory": INK, "Arrhenius": ACCENT}
QUICK = {"models": 10}


def glass(rng: np.random.Generator) -> tg.Pairwise:
    upper = np.triu(rng.normal(size=(N, N)), 1) / np.sqrt(N)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=N))


def pattern(rng: np.random.Generator) -> tg.Pairwise:
    """A Mattis magnet with noise, which is a complete graph up to signs and noise."""
    spins = rng.choice([-1.0, 1.0], N)
    upper = np.triu(np.outer(spins, spins) / N + 0.1 * rng.normal(size=(N, N)) / np.sqrt(N), 1)
    return tg.Pairwise(upper + upper.T, np.zeros(N))


FAMILIES = {"SK": glass, "one pattern": pattern}


def error(energy: tg.AbstractEnergy, beta: float) -> tuple[float, float] | None:
    """Estimate over exact time, by rate theory and by Arrhenius; None where there is none."""
    library = tg.find_minima(NAIVE, energy, beta, key=jax.random.key(0), n_starts=64)
    if np.sum(library.multiplicity) != 2:
        return None
    found = tg.barriers(NAIVE, energy, beta, library)
    rows = [landscape.follow(NAIVE, energy, beta, x) for x in (library, found)]
    barriers = beta * landscape.minimax_heights(found, *rows).barriers
    times = landscape.log_escape_times(NAIVE, energy, beta, found, *rows)
    exact = tg.exact.relaxation_times(energy, beta)[0]
    if len(found.others) or not np.all(barriers >= 2) or not exact < HIGHEST:
        return None
    of_both = (logsumexp(-np.asarray(x), b=library.multiplicity) for x in (times, barriers))
    theory, arrhenius = (float(np.exp(-total) / exact) for total in of_both)
    return theory, arrhenius


def main(out: Path = Path("results"), models: int = 40, task: Task = Task()) -> None:
    seeds, rows = task.part(range(models)), []
    print("estimate over exact time: median, and the range of nine in ten")
    print("family       beta  models  rate theory            Arrhenius")
    for (name, make), beta in itertools.product(FAMILIES.items(), BETAS):
        drawn = ((seed, make(np.random.default_rng(seed))) for seed in seeds)
        errors = ((seed, error(jax.tree.map(jnp.asarray, model), beta)) for seed, model in drawn)
        found = [(seed, *both) for seed, both in errors if both is not None]
        names = "family", "beta", "seed", "rate theory", "Arrhenius"
        rows += [dict(zip(names, (name, beta, *row), strict=True)) for row in found]
        text = ""
        for column in list(zip(*found, strict=True))[1:]:
            low, middle, high = np.quantile(column, [0.05, 0.5, 0.95])
            text += f"  {middle:6.2f} ({low:.2f} to {high:.2f})"
        print(f"{name:12} {beta:4.1f} {len(found):7d}{text}", flush=True)
    table(out / "escape_times.csv", rows)
    if task.count == 1:
        verdicts(rows)
        save(out / "escape_times.png", draw(rows))


def verdicts(rows: list[dict]) -> None:
    theory, arrhenius = (np.array([row[name] for row in rows]) for name in ESTIMATES)
    close = np.mean(np.abs(np.log(theory)) < np.log(2))
    claim(
        "rate theory tells the time to a factor of two, in 9 of 10 models",
        close >= 0.9,
        f"in {close:.0%} of {len(rows)}; median {np.median(theory):.2f} of the exact time",
    )
    claim(
        "it is nearer than Arrhenius, in every model",
        np.all(np.abs(np.log(theory)) < np.abs(np.log(arrhenius))),
        f"Arrhenius: median {np.median(arrhenius):.2f} of the exact time",
    )
    of = {(name, beta): [r["rate theory"] for r in rows if (r["family"], r["beta"]) == (name, beta)]
          for name, beta in itertools.product(FAMILIES, BETAS)}  # fmt: skip
    medians = [[np.median(of[name, beta]) for beta in BETAS if of[name, beta]] for name in FAMILIES]
    claim(
        "it becomes exact in the cold: medians rise towards 1 from beta to beta, in each family",
        all(np.all(np.diff(np.abs(np.log(m))) < 0) for m in medians),
        "; ".join(" ".join(f"{x:.2f}" for x in m) for m in medians),
    )


def draw(rows: list[dict]) -> Figure:
    """Estimate over exact time, a dot a model."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2, sharey=True), FAMILIES, strict=True):
            own = [row for row in rows if row["family"] == name]
            for estimate, color in ESTIMATES.items():
                beta, ratio = (np.array([row[k] for row in own]) for k in ("beta", estimate))
                axes.semilogy(beta, ratio, "o", color=color, markersize=4, alpha=0.5,
                              label=estimate)  # fmt: skip
            axes.axhline(1, color="0.6", linewidth=0.8)
            axes.set_title(name)
            axes.set(xlabel="beta", xticks=BETAS)
        figure.axes[0].set_ylabel("estimate over exact time")
        figure.axes[0].legend()
    return figure
