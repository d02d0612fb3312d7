"""What does a model with fewer couplings lose, and what does it invent?

The tables of addition a + b = c, represented at energy 0 with all other configurations at n, are
complete descriptions: one coupling for each set of spins. Couplings of at most k spins are kept:
single-flip minima of the truncated energy, those that are not data (false positives), Boltzmann
mass left on the data, error of the energies, and minima of the product-measure potential.

In practice: a model that was made by dropping couplings believes in patterns that nobody showed it,
and gives away probability to them, at almost every degree short of the full one. Do not cut a model
to size: learn at that size (`learning_against_cutting`), then count the minima that hold no data.

    python -m experiments reduction [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, claim, save
from experiments.convexity import product_minima, table_of
from thermogen.walsh import degrees

SCANNED = (1, 2)  # bits of the tables whose product-measure potential is searched, too
TEMPERATURES = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
SHOWN_BETA = 2.0  # where the product-measure potential is searched
NOTHING = 1e-12
QUICK = {"bits": (2, 3)}


@jax.jit
def truncations(couplings, degree, kept, rows, temperatures):
    """For each kept degree: couplings, lost norm, largest error, and data mass for each T."""
    table = tg.Complete(couplings).energies()

    def mass(energies, temperature):
        return jnp.sum(jax.nn.softmax(-energies / temperature)[rows])

    def one(k):
        short = jnp.where(degree <= k, couplings, 0)
        energies = tg.Complete(short).energies()
        # By Parseval this is also the root mean square error of the energies.
        lost = jnp.linalg.norm(couplings - short)
        masses = jax.vmap(mass, (None, 0))(energies, temperatures)
        return short, lost, jnp.max(jnp.abs(energies - table)), masses

    return jax.vmap(one)(kept)


def reduce_couplings(n_bits: int) -> list[dict[str, Any]]:
    """One row for each kept degree."""
    energies, rows = table_of(n_bits)
    complete = tg.Complete.from_energies(energies)
    n = complete.n_spins
    kept = np.arange(1, n + 1)
    found = truncations(complete.couplings, degrees(n), kept, rows, TEMPERATURES)
    result = []
    for k, short, lost, error, masses in zip(kept, *map(np.asarray, found), strict=True):
        energy = tg.Complete(short)
        minima = tg.exact.single_flip_minima(energy, threshold=1e-12)
        same = np.array_equal(minima, tg.exact.single_flip_minima(complete.truncate(int(k))))
        n_data = int(np.isin(minima, rows).sum())
        row = {
            "degree": int(k),
            "couplings": int(np.sum(degrees(n) <= k)),
            "minima": len(minima),
            "data": n_data,
            "false positives": len(minima) - n_data,
            "lost norm": float(lost),
            "largest error": float(error),
            "library mass": dict(zip(map(str, TEMPERATURES), masses.tolist(), strict=True)),
            "agrees with truncate()": same,
        }
        if n_bits in SCANNED:
            row["product minima"] = product_minima(energy, SHOWN_BETA)["minima"]
        result.append(row)
    return result


def verdicts(found: dict[int, list[dict[str, Any]]]) -> None:
    sizes = {b: len(table_of(b)[1]) for b in found}
    full = {b: rows[-1] for b, rows in found.items()}
    claim(
        "at full degree the strict single-flip minima are exactly the data",
        all(row["data"] == sizes[b] and row["false positives"] == 0 for b, row in full.items()),
        ", ".join(f"adder({b}): {row['minima']} of {sizes[b]}" for b, row in full.items()),
    )
    most = {b: max(rows[:-1], key=lambda row: row["false positives"]) for b, rows in found.items()}
    claim(
        "reduction brings false positives, in every table",
        all(row["false positives"] > 0 for row in most.values()),
        ", ".join(
            f"adder({b}): {row['false positives']} at degree {row['degree']}"
            for b, row in most.items()
        ),
    )
    left = [
        row["library mass"]["1.0"] / full[b]["library mass"]["1.0"]
        for b, rows in found.items()
        for row in rows[:-1]
        if row["lost norm"] > NOTHING
    ]
    claim(
        "reduction at each degree below n loses library mass (T = 1)",
        max(left) < 1,
        f"what is left: {min(left):.2f} to {max(left):.2f} of it",
    )
    scanned = {b: [row["product minima"] for row in found[b]] for b in SCANNED if b in found}
    if scanned:
        claim(
            "truncation alone does not add minima to the product-measure potential",
            all(max(counts) <= counts[-1] for counts in scanned.values()),
            "; ".join(f"adder({b}): {' '.join(map(str, c))}" for b, c in scanned.items()),
        )


def draw(found: dict[int, list[dict[str, Any]]]) -> Figure:
    """Counts of minima against degree, and library mass."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(found) + 3.2, 3.4), layout="constrained")
        *counts, last = figure.subplots(1, len(found) + 1)
        for axes, (b, rows) in zip(counts, found.items(), strict=True):
            k = [row["degree"] for row in rows]
            data = np.array([row["data"] for row in rows])
            false = np.array([row["false positives"] for row in rows])
            axes.bar(k, data, color=INK, label="data")
            axes.bar(k, false, bottom=data, color=ACCENT, label="false positives")
            axes.axhline(len(table_of(b)[1]), color=MUTED, linestyle=":", label="size of the data")
            axes.set_title(f"adder({b}): n = {len(rows)}", pad=12)
            axes.set(xlabel="largest degree kept", ylabel="strict single-flip minima", xticks=k)
            axes.set_ylim(0, 1.12 * max(data + false))
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        for (b, rows), colour in zip(found.items(), (GREEN, INK, ACCENT), strict=False):
            mass = [row["library mass"]["1.0"] for row in rows]
            share = np.arange(1, len(rows) + 1) / len(rows)
            last.plot(share, mass, "o-", color=colour, markersize=4, label=f"adder({b})")
        last.set_ylim(0, 1.05)
        last.set_title("Library mass at T = 1")
        last.set(xlabel="largest degree kept / n", ylabel="Boltzmann weight of the data")
        for axes in (counts[-1], last):
            axes.legend(loc="best")
    return figure


def show(found: dict[int, list[dict[str, Any]]]) -> None:
    for b, rows in found.items():
        n = len(rows)
        print(f"\nadder({b}): n = {n}, {len(table_of(b)[1])} data at 0, the others at {n}")
        masses = "".join(f"{f'mass T={t:g}':>12}" for t in TEMPERATURES)
        print(
            f"{'k':>3}{'couplings':>10}{'minima':>8}{'data':>6}{'false':>7}{'lost norm':>11}"
            f"{'max error':>11}{masses}" + f"{f'product b={SHOWN_BETA:g}':>13}" * (b in SCANNED)
        )
        for row in rows:
            mass = "".join(f"{value:12.4g}" for value in row["library mass"].values())
            product = f"{row['product minima']:13}" if b in SCANNED else ""
            print(
                f"{row['degree']:3}{row['couplings']:10}{row['minima']:8}{row['data']:6}"
                f"{row['false positives']:7}{row['lost norm']:11.3g}{row['largest error']:11.3g}"
                f"{mass}{product}"
            )


def main(*, bits: tuple[int, ...] = (1, 2, 3), out: pathlib.Path = pathlib.Path("results")) -> None:
    found = {b: reduce_couplings(b) for b in bits}  # bits of the summands
    show(found)
    print()
    verdicts(found)
    save(out / "reduction.json", found)
    save(out / "reduction.png", draw(found))
