"""ln Z of the library against the truth: the sum over states, and the rigorous bound.

For Hopfield, SK and adder-table models at several temperatures: ln Z by enumeration (n <= 16) or
by annealed importance sampling, ln sum_a exp(-beta F_a) over the minima of naive mean field and of
TAP, and the bound of the mixture of the states of the naive library. The sum over naive minima is
no bound: states that overlap count twice. Prints a table and a verdict for each claim, and saves
the table. Tasks of an array share the models and temperatures.

In practice: the states of a library, summed as a mixture, give a lower bound of ln Z that is
rigorous and better than that of the best single state as soon as there are several. The plain sum
of their weights looks better still and is no bound: states that overlap count twice.

    python -m experiments library_partition [--quick] [--out DIR]
"""

import pathlib

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, claim, save, table
from thermogen._tasks import Task

FUNCTIONALS = {"naive": tg.NaiveMeanField(), "TAP": tg.TAP()}


def hopfield(n: int, n_patterns: int) -> tg.Pairwise:
    patterns = np.random.default_rng(n_patterns).choice([-1.0, 1.0], (n_patterns, n))
    return tg.Pairwise(patterns.T @ patterns / n * (1 - np.eye(n)), np.zeros(n))


def sk(n: int) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(n).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, np.zeros(n))


def adder_table(n_bits: int) -> tg.Complete:
    """Rows of the table at energy 0, all other configurations at n."""
    rows = tg.datasets.adder(n_bits)
    n = rows.shape[1]
    table = np.full(2**n, float(n))
    table[np.asarray(tg.index_from_spins(rows))] = 0
    return tg.Complete.from_energies(table)


# The rows of a table are where its states are: quenches start there first.
STARTS = {"adder(2) table": tg.datasets.adder(2)}
# Few shapes, because each compiles anew.
MODELS = {
    "Hopfield, 2 patterns": (hopfield(16, 2), (1.5, 2.5, 5.0)),
    "SK": (sk(16), (1.0, 2.0, 4.0)),
    "adder(2) table": (adder_table(2), (0.5, 1.0, 2.0)),
    "Hopfield, 3 patterns": (hopfield(64, 3), (1.5, 5.0)),
    "SK, larger": (sk(64), (1.0, 2.0)),
}


QUICK = {"models": ("Hopfield, 2 patterns", "SK", "adder(2) table")}


def true_log_partition(energy, beta: float) -> tuple[float, float]:
    """ln Z and its standard error."""
    if energy.n_spins <= 16:
        return float(tg.exact.log_partition(energy, beta)), 0.0
    betas = np.linspace(beta / 500, beta, 500)
    estimate = tg.annealed_importance_sampling(energy, betas, key=jax.random.key(0), n_chains=256)
    return float(estimate.log_partition), float(estimate.standard_error)


def measure(name: str, energy, beta: float) -> dict:
    truth, error = true_log_partition(energy, beta)
    row = {"model": name, "n": energy.n_spins, "beta": beta, "exact": truth, "error": error}
    for functional, law in FUNCTIONALS.items():
        library = tg.find_minima(
            law,
            energy,
            beta,
            key=jax.random.key(1),
            n_starts=128,
            starts=STARTS.get(name),
        )
        row[f"{functional} states"] = int(library.multiplicity.sum())
        row[functional] = float(tg.landscape.log_partition(library, beta))
        if functional == "naive":
            row["lowest"] = float(-beta * library.free_energies[0])
            row["bound"] = tg.landscape.mixture_bound(energy, beta, library)
    return row


def draw(rows: list[dict]) -> Figure:
    """How far each estimate is from ln Z."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        axes, place = figure.subplots(), np.arange(len(rows))
        for name, color, marker in (("lowest", MUTED, "v"), ("bound", INK, "o"),
                                    ("naive", ACCENT, "x"), ("TAP", GREEN, "+")):  # fmt: skip
            apart = [row[name] - row["exact"] for row in rows]
            label = {"lowest": "lowest state", "bound": "mixture of states"}.get(
                name, f"sum, {name}"
            )
            axes.plot(place, apart, marker, color=color, label=label)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_xticks(place, [f"{r['model']}\nβ = {r['beta']:g}" for r in rows], rotation=40,
                        ha="right", fontsize=7)  # fmt: skip
        axes.set(ylabel="estimate less ln Z, nats", yscale="symlog")
        axes.set_title("ln Z of a library: bounds lie below")
        axes.legend(ncols=4)
    return figure


def main(
    models: tuple[str, ...] = tuple(MODELS),
    /,
    *,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    columns = ["exact", "error", "lowest", "bound", "naive", "naive states", "TAP", "TAP states"]
    print(f"{'model':>22}{'n':>4}{'beta':>6}" + "".join(f"{c:>13}" for c in columns))
    rows = []
    cases = [
        (name, e, beta) for name, (e, betas) in MODELS.items() if name in models for beta in betas
    ]
    for name, energy, beta in task.part(cases):
        row = measure(name, energy, beta)
        rows.append(row)
        figures = "".join(
            f"{row[c]:13d}" if isinstance(row[c], int) else f"{row[c]:13.4f}" for c in columns
        )
        print(f"{name:>22}{row['n']:4d}{beta:6.1f}{figures}", flush=True)
    table(out / "library_partition.csv", rows)
    above = max(row["bound"] - row["exact"] - 5 * row["error"] for row in rows)
    gaps = [row["exact"] - row["bound"] for row in rows]
    claim(
        "the bound of the mixture never exceeds ln Z",
        above <= 1e-9,
        f"below by {min(gaps):.2g} to {max(gaps):.2g} nats in {len(rows)} cases",
    )
    gains = [row["bound"] - row["lowest"] for row in rows if row["naive states"] > 1]
    if gains:
        claim(
            "where there are several states it is better than that of the best one, by 0.1 nats",
            min(gains) > 0.1,
            f"by {min(gains):.2f} to {max(gains):.2f} nats in {len(gains)} cases",
        )
    over = [row["naive"] - row["exact"] for row in rows]
    claim(
        "the sum over states is no bound: somewhere it exceeds ln Z",
        max(over) > 0,
        f"by up to {max(over):.2f} nats",
    )
    save(out / "library_partition.png", draw(rows))
    cold = [row for row in rows if row["beta"] == MODELS[row["model"]][1][-1]]
    if cold:
        worst = max(abs(row["naive"] - row["exact"]) for row in cold)
        print(f"at the lowest temperature the naive sum misses ln Z by at most {worst:.2f}")
