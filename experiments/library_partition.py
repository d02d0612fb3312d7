"""ln Z of the library against the truth: the sum over states, and the rigorous bound.

For Hopfield, SK and adder-table models at several temperatures: ln Z by enumeration (n <= 16) or
by annealed importance sampling, ln sum_a exp(-beta F_a) over the minima of naive mean field and of
TAP, and the bound of the mixture of the states of the naive library. The sum over naive minima is
no bound: states that overlap count twice. Prints a table and a verdict for each claim, and saves
the table. Tasks of an array share the models and temperatures.

    python -m experiments library_partition [--out DIR]
"""

import pathlib

import jax
import numpy as np

import thermogen as tg
from experiments._shared import claim, table
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


def main(out: pathlib.Path = pathlib.Path("results"), task: Task = Task()) -> None:
    columns = ["exact", "error", "lowest", "bound", "naive", "naive states", "TAP", "TAP states"]
    print(f"{'model':>22}{'n':>4}{'beta':>6}" + "".join(f"{c:>13}" for c in columns))
    rows = []
    cases = [(name, e, beta) for name, (e, betas) in MODELS.items() for beta in betas]
    for name, energy, beta in task.part(cases):
        row = measure(name, energy, beta)
        rows.append(row)
        figures = "".join(
            f"{row[c]:13d}" if isinstance(row[c], int) else f"{row[c]:13.4f}" for c in columns
        )
        print(f"{name:>22}{row['n']:4d}{beta:6.1f}{figures}", flush=True)
    table(out / "library_partition.csv", rows)
    above = max(row["bound"] - row["exact"] - 5 * row["error"] for row in rows)
    claim("the bound never exceeds ln Z", above <= 1e-9)
    gain = np.mean([row["bound"] > row["lowest"] + 0.1 for row in rows])
    print(f"claim: the mixture bounds better than its best state in {100 * gain:.0f} % of the rows")
    cold = [row for row in rows if row["beta"] == MODELS[row["model"]][1][-1]]
    if cold:
        worst = max(abs(row["naive"] - row["exact"]) for row in cold)
        print(f"at the lowest temperature the naive sum misses ln Z by at most {worst:.2f}")
