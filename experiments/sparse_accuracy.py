"""Approximations against exact values of sparse models of 100 to 1000 spins.

- `tree`: 1000 spins on a random tree, Gaussian couplings, on which `Bethe` is exact.
- `graph`: 100 spins on a random graph of degree 3, couplings +-1: a width of 16.
- `strip`: 8 x 25 spins, Gaussian couplings between neighbours: width 8.

All in random fields of 0.15. ln Z, magnetizations and connected correlations of all bonds are exact
by elimination: ln Z and its gradient. Mean-field functionals are solved from the exact
magnetizations, as in `accuracy.py`, and tell correlations by linear response; those that have no
rule for `Interactions` take n^3 numbers and are left out for the tree. Annealed importance
sampling, population annealing and reweighting of tempered chains tell ln Z, `Gibbs` and
`ParallelTempering` from random corners tell means, all with errors of their own: how many of their
95 % intervals hold the truth? Saves JSON for each model, then prints tables and a verdict for each
claim and draws a picture of all models that the folder has.

In practice: with exact values at real size error bars can be put to the test. Annealed estimates of
ln Z state theirs honestly, and say so where they fail; means of chains in the cold, tempered ones
too, are off by more than their spread tells. If the graph of a model is narrow, do not sample.

    python -m experiments sparse_accuracy [tree] [graph] [strip] [--quick] [--out DIR]
"""

import json
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import networkx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import t as student

import thermogen as tg
from experiments._shared import STYLE, claim, save
from experiments.accuracy import FIELD, FUNCTIONALS, LOOKS, MEASURES

BETAS = (0.3, 0.6, 1.0, 1.5)
QUICK = {"models": ("strip",)}
N_CHAINS, N_RUNGS = 100, 300
N_POPULATIONS, N_REPLICAS, N_RESAMPLED = 20, 50, 100
N_LADDERS, N_TEMPERED, N_KEPT = 20, 32, 400
# No rule for Interactions: of pairs their Hessians hold n^3 numbers, 40 GB for 1000 spins.
DENSE, MOST_DENSE = ("Plefka 4", "AdaptiveTAP"), 200
SAMPLERS = {
    "annealing": ("#111827", "x", 5),
    "populations": ("#9a3412", "+", 6),
    "reweighting": ("#65a30d", "1", 7),
    "gibbs": ("#111827", "x", 5),
    "tempering": ("#65a30d", "1", 7),
}


class Model(NamedTuple):
    """One model, as terms whose means are a gradient and as pairs, and its bonds."""

    sparse: tg.Interactions
    energy: tg.Pairwise
    bonds: np.ndarray


class Truth(NamedTuple):
    """Exact ln Z, magnetizations, and connected correlations of the bonds."""

    log_z: float
    magnetizations: np.ndarray
    correlations: np.ndarray


def tree() -> Model:
    return of_graph(networkx.random_labeled_tree(1000, seed=0), signs=False)


def graph() -> Model:
    return of_graph(networkx.random_regular_graph(3, 100, seed=0), signs=True)


def strip() -> Model:
    return of_graph(networkx.grid_2d_graph(8, 25), signs=False)


def of_graph(graph: networkx.Graph, signs: bool) -> Model:
    rng, number = np.random.default_rng(1), {node: k for k, node in enumerate(sorted(graph))}
    bonds = np.array([sorted((number[a], number[b])) for a, b in graph.edges])
    j = rng.choice([-1.0, 1.0], len(bonds)) if signs else rng.normal(size=len(bonds))
    n, h = len(graph), FIELD * rng.normal(size=len(graph))
    matrix = np.zeros((n, n))
    matrix[tuple(bonds.T)] = matrix[tuple(bonds.T[::-1])] = j
    sparse = tg.Interactions(n, [np.arange(n)[:, None], bonds], [h, j])
    return Model(sparse, tg.Pairwise(matrix, h), bonds)


MODELS: dict[str, Callable[[], Model]] = {"tree": tree, "graph": graph, "strip": strip}


def exact(model: Model, beta: float) -> Truth:
    log_z = jax.value_and_grad(lambda energy: tg.exact.log_partition(energy, beta))
    value, slope = log_z(model.sparse)
    m, products = (np.asarray(x) / beta for x in slope.couplings)
    return Truth(float(value), m, products - m[model.bonds].prod(axis=1))


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def mean_field(name: str, model: Model, beta: float, truth: Truth) -> dict:
    functional, energy = FUNCTIONALS[name], model.energy if name in DENSE else model.sparse
    found = tg.solve(functional, energy, beta, jnp.asarray(truth.magnetizations), throw=False)
    response = tg.susceptibility(functional, energy, beta, found.value) / beta
    excess = (beta * float(found.stats["free_energy"]) + truth.log_z) / energy.n_spins
    return {
        "failed": float(found.result != tg.RESULTS.converged),
        "excess": excess,
        "free_energy": abs(excess),
        "magnetizations": rms(found.value - truth.magnetizations),
        "correlations": rms(np.asarray(response)[tuple(model.bonds.T)] - truth.correlations),
    }


def held(errors, stated, dof: int) -> float:
    """Share of the 95 % intervals that hold the truth."""
    return float(np.mean(np.abs(errors) <= student.ppf(0.975, dof) * stated))


def estimate(log_z, stated, truth: Truth, n: int, dof: int) -> dict:
    """Of repeats; an infinite error says that an estimate failed."""
    log_z, stated = np.asarray(log_z), np.asarray(stated)
    kept = np.isfinite(stated)
    row: dict = {"failed": float(np.mean(~kept)), "free_energy": None}
    if kept.any():
        errors = (log_z - truth.log_z)[kept]
        row["free_energy"] = rms(errors) / n
        row["free_energy_stated"] = rms(stated[kept]) / n
        row["free_energy_held"] = held(errors, stated[kept], dof)
    return row


def of_log_z(model: Model, truths: list[Truth], sweeps: int, repeats: int) -> dict[str, list[dict]]:
    """Estimates of ln Z by repeats; reweighting has all beta from one run."""
    energy, n = model.energy, model.energy.n_spins
    keys = jax.random.split(jax.random.key(0), repeats)
    rows: dict[str, list[dict]] = {"annealing": [], "populations": [], "reweighting": []}

    def annealed(key, path):
        return tg.annealed_importance_sampling(energy, path, key=key, n_chains=N_CHAINS)[:2]

    def populations(key, path):
        options = {"key": key, "n_chains": N_REPLICAS, "n_populations": N_POPULATIONS}
        return tg.sampling.population_annealing(energy, path, **options)[:2]

    def reweighted(key):
        found = tg.sampling.multi_histogram_reweighting(
            energy,
            jnp.linspace(0, BETAS[-1], N_TEMPERED),
            key=key,
            n_chains=N_LADDERS,
            n_sweeps=sweeps,
            burn_in=sweeps // 4,
            thin=sweeps // N_KEPT,
        )
        return jax.lax.map(lambda beta: found.log_partition(beta)[:2], jnp.asarray(BETAS))

    for beta, truth in zip(BETAS, truths, strict=True):
        for name, method, n_rungs, dof in (
            ("annealing", annealed, N_RUNGS, N_CHAINS - 1),
            ("populations", populations, N_RESAMPLED, N_POPULATIONS - 1),
        ):
            path = jnp.linspace(0, beta, n_rungs + 1)[1:]
            values = jax.vmap(method, in_axes=(0, None))(keys, path)
            rows[name].append(estimate(*values, truth, n, dof))
    log_z, stated = jax.lax.map(reweighted, keys)
    for b, truth in enumerate(truths):
        row = estimate(log_z[:, b], stated[:, b], truth, n, N_LADDERS - 1)
        rows["reweighting"].append(row)
    return rows


def gibbs(beta: float) -> tg.Gibbs:
    return tg.Gibbs()


def tempering(beta: float) -> tg.ParallelTempering:
    return tg.ParallelTempering(jnp.linspace(0, beta, N_TEMPERED + 1)[1:])


def of_means(sampler, model: Model, sweeps: int, beta: float, truth: Truth) -> dict:
    """Means over chains, with errors by the spread over chains."""
    options = {"key": jax.random.key(0), "n_chains": N_LADDERS, "n_sweeps": sweeps}
    options |= {"burn_in": sweeps // 4, "thin": sweeps // N_KEPT}
    spins = tg.sample(sampler(beta), model.energy, beta, **options)
    spins, (i, j) = np.asarray(spins), model.bonds.T
    m = spins.mean(axis=1)
    products = (spins[..., i] * spins[..., j]).mean(axis=1)
    m_i, m_j = m.mean(axis=0)[i], m.mean(axis=0)[j]
    # To first order in how far each chain is off.
    connected = products - m_i * m[:, j] - m_j * m[:, i] + m_i * m_j
    row = {"failed": 0.0}
    for name, chains, expected in (
        ("magnetizations", m, truth.magnetizations),
        ("correlations", connected, truth.correlations),
    ):
        errors = chains.mean(axis=0) - expected
        stated = chains.std(axis=0, ddof=1) / np.sqrt(len(chains))
        row[name], row[f"{name}_stated"] = rms(errors), rms(stated)
        row[f"{name}_held"] = held(errors, stated, len(chains) - 1)
    return row


def measure(name: str, sweeps: int, repeats: int) -> dict[str, list[dict]]:
    """Method -> rows, one a beta; prints the time of each."""
    model = MODELS[name]()
    n, takes = model.energy.n_spins, tg.exact.cost(model.energy)
    print(f"{name}: {n} spins, {len(model.bonds)} bonds, width {takes.width}", flush=True)

    def timed(what, function, *args):
        began = time.process_time()
        found = function(*args)
        print(f"  {what}: {time.process_time() - began:.1f} s", flush=True)
        return found

    def each(function, *args):
        return [function(*args, beta, truth) for beta, truth in zip(BETAS, truths, strict=True)]

    truths = timed("exact", lambda: [exact(model, beta) for beta in BETAS])
    table = {}
    for functional in FUNCTIONALS:
        if functional not in DENSE or n <= MOST_DENSE:
            table[functional] = timed(functional, each, mean_field, functional, model)
    table |= timed("ln Z by sampling", of_log_z, model, truths, sweeps, repeats)
    for sampler in (gibbs, tempering):
        table[sampler.__name__] = timed(sampler.__name__, each, of_means, sampler, model, sweeps)
    return table


def print_table(name: str, table: dict[str, list[dict]]) -> None:
    for measure in MEASURES:
        print(f"{name}, {measure}: error, stated error, share of intervals that hold")
        print(f"{'beta':>14}" + "".join(f"{beta:>28}" for beta in BETAS))
        for method, rows in table.items():
            if measure in rows[0]:
                print(f"{method:>14}" + "".join(f"{cell(row, measure):>28}" for row in rows))


def cell(row: dict, measure: str) -> str:
    if row[measure] is None:
        return "all failed"
    text = f"{row[measure]:.1e}"
    if f"{measure}_held" in row:
        text += f" {row[f'{measure}_stated']:.1e} {row[f'{measure}_held']:.2f}"
    return text + (f" ({row['failed']:.2f})" if row["failed"] else "")


def verdicts(tables: dict[str, dict[str, list[dict]]]) -> dict[str, tuple[bool, str]]:
    """Whether each claim holds, and the figures that say so."""
    lowest = min(row["excess"] for table in tables.values() for row in table["naive"])
    found = {
        "naive mean field is never below the free energy": (lowest > 0, f"{lowest:.1e}"),
    }
    if "tree" in tables:
        worst = {m: max(row[m] for row in tables["tree"]["Bethe"]) for m in MEASURES}
        figures = ", ".join(f"{m} {x:.1e}" for m, x in worst.items())
        found["Bethe is exact on the tree, to 1e-8"] = (max(worst.values()) < 1e-8, figures)
    for method in SAMPLERS:
        for measure in MEASURES:
            shares = [
                row[f"{measure}_held"]
                for table in tables.values()
                for row in table[method]
                if f"{measure}_held" in row
            ]
            if shares:
                mean = float(np.mean(shares))
                text = f"{method}, {measure}: 90 % and more of the intervals hold"
                found[text] = (mean > 0.9, f"{mean:.3f}, worst {min(shares):.2f}")
    return found


def draw(axes, table: dict[str, list[dict]], measure: str) -> None:
    """Hollow markers where over half of the solves or estimates failed."""
    for method, (color, marker, size) in (LOOKS | SAMPLERS).items():
        rows = table.get(method, [{}])
        if measure not in rows[0]:
            continue
        values = np.array([row[measure] for row in rows], float)
        failed = np.array([row["failed"] > 0.5 for row in rows])
        line = ":" if method in SAMPLERS else "-"
        style = {"color": color, "marker": marker, "markersize": size}
        axes.plot(BETAS, np.where(failed, np.nan, values), linestyle=line, **style)
        axes.plot(BETAS, np.where(failed, values, np.nan), linestyle="", mfc="white", **style)


def picture(tables: dict[str, dict[str, list[dict]]]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 7), layout="constrained")
        grid = figure.subplots(len(MEASURES), len(tables), sharex=True, sharey="row", squeeze=False)
        for row, (measure, label) in zip(grid, MEASURES.items(), strict=True):
            for axes, table in zip(row, tables.values(), strict=True):
                draw(axes, table, measure)
                axes.set(xscale="log", yscale="log")
                axes.set_ylim(bottom=1e-5)
                axes.grid(axis="y", color="#e5e7eb", linewidth=0.5)
                axes.set_xticks(BETAS, labels=[f"{beta:g}" for beta in BETAS])
                axes.minorticks_off()
            row[0].set_ylabel(f"error, {label}")
        for axes, name in zip(grid[0], tables, strict=True):
            axes.set_title(name)
        for axes in grid[-1]:
            axes.set_xlabel("$\\beta$")
        lines = [
            Line2D([], [], color=c, marker=m, markersize=size, label=name)
            for name, (c, m, size) in LOOKS.items()
        ]
        lines += [
            Line2D([], [], color=c, marker=m, markersize=size, linestyle=":", label=label)
            for label, (c, m, size) in zip(
                ("annealing; Gibbs", "populations", "reweighting; tempering"),
                list(SAMPLERS.values())[:3],
                strict=True,
            )
        ]
        figure.legend(handles=lines, loc="outside upper center", ncols=5)
        return figure


def main(
    models: tuple[str, ...] = tuple(MODELS),
    /,
    out: pathlib.Path = pathlib.Path("results"),
    sweeps: int = N_KEPT,
    repeats: int = 5,
) -> None:
    for name in models:
        save(out / f"sparse_accuracy_{name}.json", measure(name, sweeps, repeats))
    files = {name: out / f"sparse_accuracy_{name}.json" for name in MODELS}
    tables = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    for name, table in tables.items():
        print_table(name, table)
    save(out / "sparse_accuracy.png", picture(tables), dpi=150)
    for text, (holds, why) in verdicts(tables).items():
        claim(text, holds, why)
