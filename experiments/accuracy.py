"""Which functional when? Errors of the mean-field free energies against exact enumeration.

Families of n = 16 spins with weak random fields, twelve instances each: SK, the 4x4 periodic
ferromagnet, random +-1 couplings on random regular graphs of degree 3, Hopfield with three
patterns, and a diluted 3-spin model. For Plefka orders 1 to 4, Bethe and AdaptiveTAP, over beta:
the error of the free energy per spin, |beta G + ln Z|/n, and the root-mean-square errors of the
magnetizations and of the connected correlations by linear response, over pairs. Every solve
starts at the exact magnetizations, so that the branch near the truth is followed: how well it is
found from elsewhere is not asked. Medians are over the solves that converge; the others are
counted. Prints a table and a verdict for each claim and saves a picture, and a table with a row for
each solve. Tasks of an array share the instances of each family.

In practice: no free energy of mean field is best everywhere. Each order of the expansion gains a
factor beta at high temperature, and loses to naive mean field in the cold. For dense couplings take
AdaptiveTAP, for interactions of three spins the free energy of Bethe; on small graphs with loops
none leads throughout. Naive mean field is the only one that bounds.

    python -m experiments accuracy [--quick] [--out DIR]
"""

import itertools
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import thermogen as tg
from experiments._shared import claim, save, table
from thermogen._tasks import Task

N_SPINS = 16
N_INSTANCES = 12
QUICK = {}  # most of it is compilation
FIELD = 0.15
BETAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5)
MODERATE = 0.6
FUNCTIONALS = {
    "naive": tg.NaiveMeanField(),
    "TAP": tg.TAP(),
    "Plefka 3": tg.Plefka(3),
    "Plefka 4": tg.Plefka(4),
    "Bethe": tg.Bethe(),
    "AdaptiveTAP": tg.AdaptiveTAP(),
}
# No rule for Interactions.
UNSUPPORTED = {("3-spin", "Plefka 4"), ("3-spin", "AdaptiveTAP")}
MEASURES = {
    "free_energy": "free energy per spin",
    "magnetizations": "magnetizations (rms)",
    "correlations": "correlations (rms)",
}
# Colour, marker and its size: larger where lines are drawn first, so that both are seen.
LOOKS = {
    "naive": ("#9ca3af", "o", 6.5),
    "TAP": ("#88ccee", "s", 5.5),
    "Plefka 3": ("#44aa99", "^", 4),
    "Plefka 4": ("#1f3a5f", "v", 4),
    "Bethe": ("#c2571a", "D", 3),
    "AdaptiveTAP": ("#aa4499", "P", 4),
}


def fields(rng: np.random.Generator) -> np.ndarray:
    return FIELD * rng.normal(size=N_SPINS)


def sk(rng: np.random.Generator) -> tg.Pairwise:
    """Couplings of variance 1/n between all pairs."""
    upper = np.triu(rng.normal(size=(N_SPINS, N_SPINS)), 1) / np.sqrt(N_SPINS)
    return tg.Pairwise(upper + upper.T, fields(rng))


def lattice(rng: np.random.Generator) -> tg.Pairwise:
    """J = 1 between the neighbours on a square lattice with periodic boundaries."""
    side = round(np.sqrt(N_SPINS))
    ring = np.roll(np.eye(side), 1, axis=1) + np.roll(np.eye(side), -1, axis=1)
    couplings = np.kron(ring, np.eye(side)) + np.kron(np.eye(side), ring)
    return tg.Pairwise(couplings, fields(rng))


def regular_graph(rng: np.random.Generator, degree: int = 3) -> tg.Pairwise:
    """J = +-1 on the bonds of a random simple graph: pairings of the ends until one is simple."""
    while True:
        ends = rng.permutation(np.repeat(np.arange(N_SPINS), degree)).reshape(-1, 2)
        adjacency = np.zeros((N_SPINS, N_SPINS), int)
        np.add.at(adjacency, (ends[:, 0], ends[:, 1]), 1)
        adjacency += adjacency.T
        if adjacency.max() == 1 and not adjacency.diagonal().any():
            break
    signs = np.triu(rng.choice([-1.0, 1.0], size=(N_SPINS, N_SPINS)), 1)
    return tg.Pairwise(adjacency * (signs + signs.T), fields(rng))


def hopfield(rng: np.random.Generator, n_patterns: int = 3) -> tg.Pairwise:
    """J = (1/n) sum of the patterns' outer products."""
    patterns = rng.choice([-1.0, 1.0], size=(n_patterns, N_SPINS))
    couplings = patterns.T @ patterns / N_SPINS
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, fields(rng))


def three_spin(rng: np.random.Generator, n_terms: int = 2 * N_SPINS) -> tg.Interactions:
    """Gaussian couplings on random triples, the same in all instances; variance of E: n/2."""
    triples = np.array(list(itertools.combinations(range(N_SPINS), 3)))
    kept = triples[np.random.default_rng(3).permutation(len(triples))[:n_terms]]
    couplings = rng.normal(size=n_terms) * np.sqrt(0.5 * N_SPINS / n_terms)
    singles = np.arange(N_SPINS)[:, None]
    return tg.Interactions(N_SPINS, [singles, kept], [fields(rng), couplings])


FAMILIES = {
    "SK": sk,
    "lattice": lattice,
    "regular graph": regular_graph,
    "Hopfield": hopfield,
    "3-spin": three_spin,
}
TITLES = {
    "SK": "SK",
    "lattice": "4x4 ferromagnet",
    "regular graph": "regular graph, degree 3, $\\pm1$",
    "Hopfield": "Hopfield, 3 patterns",
    "3-spin": "diluted 3-spin",
}


def drawn(family: str, numbers: list[int]) -> tg.AbstractMultilinear:
    """Instances of a family, as one batch."""
    seeds = np.random.SeedSequence([list(FAMILIES).index(family)]).spawn(N_INSTANCES)
    energies = [FAMILIES[family](np.random.default_rng(seeds[number])) for number in numbers]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *energies)


@jax.jit
def truth(energies):
    """ln Z, magnetizations and connected correlations of every instance and beta."""

    def at(energy, beta):
        m = tg.exact.magnetizations(energy, beta)
        connected = tg.exact.correlations(energy, beta) - jnp.outer(m, m)
        return tg.exact.log_partition(energy, beta), m, connected

    return jax.vmap(lambda e: jax.lax.map(lambda beta: at(e, beta), jnp.array(BETAS)))(energies)


@jax.jit
def errors(functional, energies, exact):
    """Errors and whether the solve converged, each of shape (instance, beta)."""
    pairs = np.triu_indices(N_SPINS, 1)

    def at(energy, beta, exact):
        log_partition, magnetizations, connected = exact
        solution = tg.solve(functional, energy, beta, magnetizations, throw=False)
        m = solution.value
        hessian = jax.hessian(functional, argnums=2)(energy, beta, m)
        response = jnp.linalg.inv(beta * hessian)
        excess = beta * solution.stats["free_energy"] + log_partition
        return {
            "converged": solution.result == tg.RESULTS.converged,
            "excess": excess / N_SPINS,
            "free_energy": jnp.abs(excess) / N_SPINS,
            "magnetizations": jnp.sqrt(jnp.mean(jnp.square(m - magnetizations))),
            "correlations": jnp.sqrt(jnp.mean(jnp.square((response - connected)[pairs]))),
        }

    over_betas = jax.vmap(at, in_axes=(None, 0, 0))
    return jax.vmap(lambda e, x: over_betas(e, jnp.array(BETAS), x))(energies, exact)


def summary(raw: dict[str, np.ndarray]) -> list[dict]:
    """One row per beta: share of failures, and medians over what converged (NaN if none did)."""
    rows = []
    for b, beta in enumerate(BETAS):
        kept = raw["converged"][:, b]
        row = {"beta": beta, "failed": float(np.mean(~kept))}
        for name in MEASURES:
            row[name] = float(np.median(raw[name][kept, b])) if kept.any() else float("nan")
        row["lowest_excess"] = float(raw["excess"][kept, b].min(initial=np.inf))
        rows.append(row)
    return rows


def measure(family: str, numbers: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Functional -> errors of shape (instance, beta); prints the time of each."""
    energies = drawn(family, numbers)
    began = time.perf_counter()
    exact = jax.block_until_ready(truth(energies))
    times = {"exact": time.perf_counter() - began}
    found = {}
    for name, functional in FUNCTIONALS.items():
        if (family, name) in UNSUPPORTED:
            continue
        began = time.perf_counter()
        found[name] = jax.tree.map(np.asarray, errors(functional, energies, exact))
        times[name] = time.perf_counter() - began
    print(f"{family}: seconds " + ", ".join(f"{k} {t:.1f}" for k, t in times.items()), flush=True)
    return found


def rows_of(found: dict[str, dict[str, dict[str, np.ndarray]]], numbers: list[int]) -> list[dict]:
    """One row a solve."""
    return [
        {"family": family, "instance": number, "functional": name, "beta": beta}
        | {figure: values[k, b] for figure, values in raw.items()}
        for family, by_name in found.items()
        for name, raw in by_name.items()
        for k, number in enumerate(numbers)
        for b, beta in enumerate(BETAS)
    ]


def at(rows: list[dict], measure: str, beta: float) -> float:
    """Median error at one beta; infinite if under half of the solves converge."""
    row = rows[BETAS.index(beta)]
    return row[measure] if row["failed"] <= 0.5 else float("inf")


def figures(values) -> str:
    return " ".join(f"{v:.1e}" for v in values)


def verdicts(tables: dict[str, dict[str, list[dict]]]) -> dict[str, tuple[bool, str]]:
    """Whether each claim, made before any error was seen, holds, and the figures that say so."""
    expansion = list(FUNCTIONALS)[:4]
    pair_families = [f for f in tables if f != "3-spin"]
    weak = {
        f: [at(tables[f][name], "free_energy", BETAS[0]) for name in expansion]
        for f in pair_families
    }
    growth = [
        np.log2(at(tables["SK"][k], "free_energy", 0.2) / at(tables["SK"][k], "free_energy", 0.1))
        for k in expansion
    ]
    lowest = min(row["lowest_excess"] for t in tables.values() for row in t["naive"])

    def compare(family: str, measures: tuple[str, ...], better: str) -> dict[str, list[float]]:
        """Errors at moderate beta: those of the better first."""
        names = [better, *(name for name in tables[family] if name != better)]
        return {x: [at(tables[family][k], x, MODERATE) for k in names] for x in measures}

    best = compare("regular graph", ("free_energy", "correlations"), "Bethe")
    adaptive = {
        (f, x): [at(tables[f][k], x, MODERATE) for k in ("AdaptiveTAP", "TAP")]
        for f in ("SK", "Hopfield")
        for x in MEASURES
    }
    triple = {
        x: [at(tables["3-spin"][k], x, MODERATE) for k in ("Bethe", "TAP", "naive")]
        for x in MEASURES
    }
    failures = {
        k: sum(row["failed"] for t in tables.values() for row in t.get(k, [])) * N_INSTANCES
        for k in FUNCTIONALS
    }
    strong = {
        f: [at(tables[f][k], "free_energy", BETAS[-1]) for k in FUNCTIONALS] for f in pair_families
    }
    return {
        f"beta = {BETAS[0]}, free energy: orders 4 < 2 < 1 in every pair family": (
            all(e[3] < e[1] < e[0] for e in weak.values()),
            "; ".join(f"{f} {figures(e)}" for f, e in weak.items()),
        ),
        "... and order 3 between 2 and 4 where there are many triangles: SK, Hopfield": (
            all(weak[f][3] < weak[f][2] < weak[f][1] for f in ("SK", "Hopfield")),
            "as above",
        ),
        "SK: the error of order k grows as beta^(k + 1) from 0.1 to 0.2, exponent to 0.5": (
            all(abs(g - k) < 0.5 for k, g in enumerate(growth, start=2)),
            "exponents " + " ".join(f"{g:.2f}" for g in growth),
        ),
        "naive mean field is never below the free energy": (
            lowest > -1e-12,
            f"lowest excess {lowest:.1e}",
        ),
        f"regular graph, beta = {MODERATE}: Bethe is the best in free energy and correlations": (
            all(e[0] < min(e[1:]) for e in best.values()),
            "; ".join(f"{x} {e[0]:.1e}, next {min(e[1:]):.1e}" for x, e in best.items()),
        ),
        f"SK and Hopfield, beta = {MODERATE}: AdaptiveTAP beats TAP in all three": (
            all(a < b for a, b in adaptive.values()),
            "; ".join(f"{f} {x} {figures(e)}" for (f, x), e in adaptive.items()),
        ),
        f"3-spin, beta = {MODERATE}: Bethe beats TAP and TAP naive in all three": (
            all(a < b < c for a, b, c in triple.values()),
            "; ".join(f"{x} {figures(e)}" for x, e in triple.items()),
        ),
        "naive, Bethe and AdaptiveTAP converge everywhere": (
            not any(failures[k] for k in ("naive", "Bethe", "AdaptiveTAP")),
            "failures " + ", ".join(f"{k} {x:.0f}" for k, x in failures.items()),
        ),
        f"pairs, beta = {BETAS[-1]}, free energy: Bethe or AdaptiveTAP beats orders 2 to 4": (
            all(min(e[4:]) < min(e[1:4]) for e in strong.values()),
            "; ".join(f"{f} {figures(e)}" for f, e in strong.items()),
        ),
    }


def draw(axes, table: dict[str, list[dict]], measure: str) -> None:
    """Lines through the medians; hollow markers where under half of the solves converge."""
    for name, rows in table.items():
        color, marker, size = LOOKS[name]
        values = np.array([row[measure] for row in rows])
        scarce = np.array([row["failed"] > 0.5 for row in rows])
        style = {"color": color, "marker": marker, "markersize": size}
        axes.plot(BETAS, np.where(scarce, np.nan, values), **style)
        axes.plot(BETAS, np.where(scarce, values, np.nan), linestyle="", mfc="white", **style)


def picture(tables: dict[str, dict[str, list[dict]]]) -> Figure:
    style = {
        "font.size": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.7,
        "lines.linewidth": 1.2,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 6.6), layout="constrained")
        grid = figure.subplots(len(MEASURES), len(tables), sharex=True, sharey="row")
        for row, (measure, label) in zip(grid, MEASURES.items(), strict=True):
            for axes, table in zip(row, tables.values(), strict=True):
                draw(axes, table, measure)
                axes.set(xscale="log", yscale="log")
                axes.grid(axis="y", color="#e5e7eb", linewidth=0.5)
                axes.tick_params(labelsize=7.5)
                axes.minorticks_off()
            row[0].set_ylabel(f"error, {label}")
        for axes, family in zip(grid[0], tables, strict=True):
            axes.set_title(TITLES[family])
        for axes in grid[-1]:
            axes.set_xlabel("$\\beta$")
            axes.set_xticks(BETAS, labels=["0.1", "0.2", "", "0.4", "", "0.8", "", "1.5"])
            axes.minorticks_off()
        lines = [
            Line2D([], [], color=c, marker=m, markersize=size, label=name)
            for name, (c, m, size) in LOOKS.items()
        ]
        lines.append(
            Line2D(
                [],
                [],
                color="#4b5563",
                marker="o",
                mfc="white",
                linestyle="",
                markersize=4,
                label="under half converge",
            )
        )
        figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
        return figure


def print_table(family: str, table: dict[str, list[dict]]) -> None:
    for name in MEASURES:
        print(f"{family}, {name}; share of failed solves in brackets")
        print(f"{'beta':>14}" + "".join(f"{beta:>15}" for beta in BETAS))
        for functional, rows in table.items():
            cells = [
                f"{r[name]:9.1e}" + (f" ({r['failed']:.2f})" if r["failed"] else "") for r in rows
            ]
            print(f"{functional:>14}" + "".join(f"{c:>15}" for c in cells))


def main(
    *,
    instances: int = N_INSTANCES,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    numbers = task.part(range(instances))
    found = {family: measure(family, numbers) for family in FAMILIES}
    table(out / "accuracy.csv", rows_of(found, numbers))
    tables = {f: {k: summary(raw) for k, raw in by.items()} for f, by in found.items()}
    for family, by_functional in tables.items():
        print_table(family, by_functional)
    save(out / "accuracy.png", picture(tables), dpi=150)
    if task.count == 1:  # the claims are made about medians of all instances
        for text, (holds, why) in verdicts(tables).items():
            claim(text, holds, why)
