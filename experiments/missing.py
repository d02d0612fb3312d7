"""Learning from data with gaps: what a third of missing entries costs.

Pairwise models with Gaussian couplings of variance 1/n and fields of width 0.3; independent samples
of each, of which 30 % of the entries, chosen at random, are unknown. Reported is the
root-mean-square error of a coupling: of fits to the data with gaps, to all entries of all samples,
and to whole samples that hold as many entries (0.7 N) or as many pairs (0.49 N). Two usual remedies
are tried as well: to learn from rows without gaps alone, and to fill gaps with the more frequent
value of the spin.

Small: 10 spins, 2000 samples, exact sums over what is unknown, and chains for objectives that
sample. Large: 40 spins, 4000 samples, chains. Tasks of an array share the models; missing.csv holds
a row for each fit, missing.png the errors.

    python -m experiments missing [small large] [--out DIR]
"""

import pathlib
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, save, table
from thermogen._tasks import Task

SHARE = 0.3
SIZES = {"small": (10, 2000), "large": (40, 4000)}
MODELS = 2
OBJECTIVES: dict[str, Any] = {
    "pseudolikelihood": tg.Pseudolikelihood(),
    "exact likelihood": tg.ExactLikelihood(),
    "probability flow": tg.learning.MinimumProbabilityFlow(),
    "mean field, TAP": tg.MeanFieldLikelihood(tg.TAP()),
    "persistent CD": tg.PersistentCD(),
    "annealed likelihood": tg.learning.AnnealedLikelihood(),
    "contrastive divergence": tg.learning.ContrastiveDivergence(),
}
# Those that take 40 spins in seconds.
LARGE = ("pseudolikelihood", "persistent CD")
MARKS = {
    "all": ("o", MUTED, "all entries"),
    "as many entries": ("|", INK, "as many entries, 0.7 N rows"),
    "as many pairs": ("|", GREEN, "as many pairs, 0.49 N rows"),
    "gaps": ("D", ACCENT, "30 % of the entries missing"),
}


def drawn(n: int, count: int, seed: int) -> tuple[tg.Pairwise, np.ndarray]:
    """A model and independent samples: exact ones, or the ends of long chains."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(0, 1 / np.sqrt(n), (n, n)), 1)
    truth = tg.Pairwise(upper + upper.T, rng.normal(0, 0.3, n))
    key = jax.random.key(seed)
    if n <= 20:
        return truth, np.asarray(tg.exact.sample(truth, 1.0, key=key, n_samples=count))
    spins = tg.sample(tg.Gibbs(), truth, 1.0, key=key, n_chains=count, n_sweeps=200)
    return truth, np.asarray(spins)[:, -1]


class Version(NamedTuple):
    """The data as they might be had: rows, and how often each counts."""

    rows: np.ndarray
    weights: np.ndarray


def versions(data: np.ndarray, seed: int) -> dict[str, Version]:
    known = np.random.default_rng([seed, 1]).random(data.shape) > SHARE
    gaps = data * known
    place: np.ndarray = np.arange(len(data)) / len(data)
    majority = np.where(gaps.sum(axis=0) >= 0, 1.0, -1.0)
    every, complete = np.ones(len(data)), known.all(axis=1)
    found = {
        "all": Version(data, every),
        "as many entries": Version(data, (place < 1 - SHARE).astype(float)),
        "as many pairs": Version(data, (place < (1 - SHARE) ** 2).astype(float)),
        "gaps": Version(gaps, known.any(axis=1).astype(float)),
        "filled with the majority": Version(np.where(known, data, majority), every),
    }
    if complete.any():
        found["rows without gaps"] = Version(data, complete.astype(float))
    return found


def error(truth: tg.Pairwise, objective: Any, data: Version) -> float:
    start = tg.Pairwise(np.zeros((truth.n_spins,) * 2), np.zeros(truth.n_spins))
    fitted: Any = tg.fit(
        objective, start, data.rows, weights=data.weights, key=jax.random.key(0)
    ).energy
    difference = np.asarray(fitted.couplings) - np.asarray(truth.couplings)
    return float(np.sqrt(np.mean(difference[np.triu_indices(truth.n_spins, 1)] ** 2)))


def rows_of(size: str, seed: int) -> list[dict[str, Any]]:
    n, count = SIZES[size]
    truth, data = drawn(n, count, seed)
    rows = []
    for name in OBJECTIVES if size == "small" else LARGE:
        for version, part in versions(data, seed).items():
            # The remedies are the same for all.
            if version in MARKS or name == "pseudolikelihood":
                rms = error(truth, OBJECTIVES[name], part)
                row = {"size": size, "seed": seed, "objective": name, "data": version, "error": rms}
                print(row, flush=True)
                rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]], size: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean over the models and its standard error, by objective and data."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["size"] == size:
            of_data = found.setdefault(row["objective"], {})
            of_data.setdefault(row["data"], []).append(row["error"])
    return {
        name: {
            data: (float(np.mean(e)), float(np.std(e) / np.sqrt(max(len(e) - 1, 1))))
            for data, e in of_data.items()
        }
        for name, of_data in found.items()
    }


def picture(found: dict[str, dict[str, dict[str, tuple[float, float]]]]) -> Figure:
    with matplotlib.rc_context(STYLE):
        heights = [len(found[size]) for size in found]
        figure = Figure(figsize=(7.2, 1.6 + 0.3 * sum(heights)), layout="constrained")
        panels = figure.subplots(len(found), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (size, of_size) in zip(panels, found.items(), strict=True):
            for place, of_data in enumerate(of_size.values()):
                for data, (marker, color, _) in MARKS.items():
                    mean, spread = of_data[data]
                    axes.errorbar(
                        *(mean, -place, None, spread),
                        fmt=marker,
                        color=color,
                        markersize=11 if marker == "|" else 5,
                        markeredgewidth=2 if marker == "|" else 1,
                        elinewidth=0.8,
                    )
            axes.set_yticks([-k for k in range(len(of_size))], list(of_size))
            axes.set_ylim(-len(of_size) + 0.5, 0.5)
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="#e3e3df", linewidth=0.7)
            n, count = SIZES[size]
            axes.set_title(f"{n} spins, N = {count}")
        panels[-1].set_xlabel("root-mean-square error of a coupling")
        for marker, color, label in MARKS.values():
            panels[0].plot([], [], marker, color=color, label=label, markeredgewidth=2)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main(
    sizes: tuple[str, ...] = ("small", "large"),
    /,
    *,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    every = [(size, seed) for size in sizes for seed in range(MODELS)]
    rows = [row for size, seed in task.part(every) for row in rows_of(size, seed)]
    table(out / "missing.csv", rows)
    found = {size: summary(rows, size) for size in sizes}
    for size, of_size in found.items():
        for name, of_data in of_size.items():
            figures = ", ".join(f"{data} {m:.4f}({s:.4f})" for data, (m, s) in of_data.items())
            print(f"{size}, {name}: {figures}")
    save(out / "missing.png", picture({size: f for size, f in found.items() if f}))
