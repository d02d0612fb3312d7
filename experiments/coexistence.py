"""Must the gap be extensive? Where the library of represented states gives way to the rest.

M = 2^(n/2) random configurations of n spins, as many as an adder table has, are represented: they
lie at energy 0, all others at a gap Delta above. The gap is either extensive, Delta = n, or
constant, Delta = 8, the same at n = 8. Measured by enumeration: the library's mass against T, the
temperature where it is 1/2, the heat capacity, and the histogram P(E). In a rough variant of the
extensive one the others are spread about the gap with standard deviation 1. Prints a table and a
verdict for each claim and saves JSON and a picture.

In practice: all that was never shown to a model is a phase of its own, with an entropy that grows
with the number of spins. What is learned must lie below it by an energy that grows as fast, or a
larger model at the same temperature answers with noise. When a model that worked is made wider and
fails, look at energy gap over temperature and spins, not at the optimiser.

    python -m experiments coexistence [--quick] [--out DIR]
"""

import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq

import thermogen as tg
from experiments._shared import claim, save

SIZES = (8, 10, 12, 14)
CONSTANT_GAP = 8.0
SPREAD = 1.0
GAPS = {
    "extensive": lambda n: float(n),
    "constant": lambda n: CONSTANT_GAP,
    "rough": lambda n: float(n),
}
# T_c of the extensive gap tends to 2/ln 2 = 2.89; this is a good deal below.
FIXED_TEMPERATURE = 2.0
# As multiples of the gap: T_c and the heat-capacity peak of every case lie well inside.
RANGE = (0.05, 1.0)
BINS = np.arange(-4.25, 20.0, 0.5)
QUICK = {"temperatures": 401}
COLORS = ("#88ccee", "#44aa99", "#1f3a5f", "#c2571a")


def model(kind: str, n: int) -> tuple[tg.Complete, np.ndarray]:
    """The energy and the indices of the represented configurations."""
    rng = np.random.default_rng(n)
    represented = rng.permutation(2**n)[: 2 ** (n // 2)]
    table = np.full(2**n, GAPS[kind](n))
    if kind == "rough":
        table += SPREAD * rng.normal(size=2**n)
    table[represented] = 0
    return tg.Complete.from_energies(table), represented


@jax.jit
def library_mass(energy, represented, temperature):
    return jnp.sum(tg.exact.probabilities(energy, 1 / temperature)[represented])


@jax.jit
def curves(energy, represented, temperatures):
    """Library mass and heat capacity at every temperature."""

    def at(temperature):
        heat = tg.exact.heat_capacity(energy, 1 / temperature)
        return library_mass(energy, represented, temperature), heat

    return jax.lax.map(at, temperatures, batch_size=64)


def histogram(energy: tg.Complete, temperature: float) -> np.ndarray:
    """P(E) in bins of width 1/2, centred at multiples of it."""
    p = np.asarray(tg.exact.probabilities(energy, 1 / temperature))
    return np.histogram(np.asarray(tg.exact.energies(energy)), BINS, weights=p)[0]


def is_bimodal(masses: np.ndarray) -> bool:
    """Whether a valley less than a tenth as high as the lower peak parts two like masses."""
    centres = 0.5 * (BINS[1:] + BINS[:-1])
    split = np.searchsorted(centres, centres @ masses)
    left, right = masses[:split], masses[split:]
    a, b = left.argmax(), split + right.argmax()
    valley = masses[a : b + 1].min()
    comparable = 0.4 < left.sum() < 0.6
    return bool(comparable and valley < 0.1 * min(masses[a], masses[b]))


def measure(kind: str, n: int, n_temperatures: int) -> dict:
    """One row of the table, and the curves for the picture."""
    energy, represented = model(kind, n)
    gap = GAPS[kind](n)
    temperatures = gap * np.geomspace(*RANGE, n_temperatures)
    mass, heat = (np.asarray(x) for x in curves(energy, represented, temperatures))

    def excess(temperature):
        return float(library_mass(energy, represented, temperature)) - 0.5

    above = int(np.argmax(mass < 0.5))
    critical = brentq(excess, temperatures[above - 1], temperatures[above], xtol=1e-13)
    formula = 1 / float(tg.learning.coexistence_beta(gap, n, len(represented)))
    histograms = {str(f): histogram(energy, f * critical) for f in (0.7, 1.0, 1.4)}
    return {
        "gap": kind,
        "n": n,
        "T_c": critical,
        "formula": formula,
        "T_peak": float(temperatures[heat.argmax()]),
        "C_peak": float(heat.max()),
        "mass_fixed_T": excess(FIXED_TEMPERATURE) + 0.5,
        "bimodal": {f: is_bimodal(h) for f, h in histograms.items()},
        "curves": {"T": temperatures, "mass": mass, "C": heat},
        "histograms": histograms,
    }


def exponents(rows: list[dict], column: str) -> np.ndarray:
    """Exponent of a column in n, from each two neighbouring sizes."""
    return np.diff(np.log([row[column] for row in rows])) / np.diff(np.log(SIZES))


def verdicts(rows: dict[str, list[dict]]) -> dict[str, tuple[bool, str]]:
    """Whether each claim holds, and the figures that say so."""
    sharp = rows["extensive"] + rows["constant"]
    error = max(abs(r["T_c"] / r["formula"] - 1) for r in sharp)
    rough = max(abs(r["T_c"] / r["formula"] - 1) for r in rows["rough"])
    limit = 2 / np.log(2)
    masses = {k: [r["mass_fixed_T"] for r in rows[k]] for k in ("extensive", "constant")}
    away = [abs(r["T_c"] - limit) for r in rows["extensive"]]
    at_critical = [r["bimodal"]["1.0"] for rs in rows.values() for r in rs]
    elsewhere = [r["bimodal"][f] for rs in rows.values() for r in rs for f in ("0.7", "1.4")]
    ratios = [[r["T_peak"] / r["T_c"] for r in rows[k]] for k in rows]
    # T_c/T_peak - 1 falls as 1/n^2, if the peak is to sit at T_c.
    lines = [np.polyfit(1 / np.square(SIZES), 1 / np.array(r), 1)[1] for r in ratios]
    heights = [exponents(rows[k], "C_peak") for k in rows]
    falls = exponents(rows["constant"], "T_c")
    return {
        "T_c = Delta / ln((2^n - M)/M), sharp gap": (
            error < 1e-9,
            f"largest relative error {error:.1e}",
        ),
        "... and within 10 % where the others are spread about it": (
            rough < 0.1,
            f"largest relative error {rough:.3f}",
        ),
        f"extensive gap: T_c tends to 2/ln 2 and the mass at T = {FIXED_TEMPERATURE:g} grows": (
            bool(np.all(np.diff(away) < 0) and np.all(np.diff(masses["extensive"]) > 0)),
            f"T_c {rows['extensive'][-1]['T_c']:.3f} of {limit:.3f}, mass "
            + " ".join(f"{m:.3f}" for m in masses["extensive"]),
        ),
        f"constant gap: T_c and the mass at T = {FIXED_TEMPERATURE:g} fall with n": (
            bool(np.all(falls < -0.8) and np.all(np.diff(masses["constant"]) < 0)),
            f"T_c ~ n^{falls[-1]:.2f} at last, mass "
            + " ".join(f"{m:.3f}" for m in masses["constant"]),
        ),
        "P(E) is bimodal at T_c, but not at 0.7 nor at 1.4 T_c": (
            all(at_critical) and not any(elsewhere),
            f"{sum(at_critical)} of {len(at_critical)} at T_c, {sum(elsewhere)} of "
            f"{len(elsewhere)} elsewhere",
        ),
        "the heat-capacity peak moves to T_c as n grows": (
            all(np.all(np.diff(r) > 0) for r in ratios) and all(abs(x - 1) < 0.1 for x in lines),
            f"T_peak/T_c {ratios[0][0]:.3f} -> {ratios[0][-1]:.3f}; T_c/T_peak extrapolates to "
            + " ".join(f"{x:.3f}" for x in lines),
        ),
        "its height grows faster than n, with an exponent that rises towards 2": (
            all(np.all(x > 1) and np.all(np.diff(x) > 0) and x[-1] < 2 for x in heights),
            "local exponents " + "; ".join(f"{x[0]:.2f} -> {x[-1]:.2f}" for x in heights),
        ),
    }


def draw_mass(axes, rows: list[dict], title: str) -> None:
    for row, color in zip(rows, COLORS, strict=True):
        axes.plot(row["curves"]["T"], row["curves"]["mass"], color=color, label=f"n = {row['n']}")
        axes.plot(row["formula"], 0.5, "o", color=color, markersize=4)
    axes.axvline(FIXED_TEMPERATURE, color="#9ca3af", linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel="T", ylabel="library mass", xlim=(0, 6), ylim=(0, 1.02))


def draw_critical(axes, rows: dict[str, list[dict]]) -> None:
    for kind, color, marker in (
        ("extensive", COLORS[2], "o"),
        ("rough", COLORS[1], "s"),
        ("constant", COLORS[3], "o"),
    ):
        axes.plot(
            SIZES, [r["T_c"] for r in rows[kind]], marker, color=color, label=kind, markersize=4
        )
        if kind != "rough":
            axes.plot(SIZES, [r["formula"] for r in rows[kind]], color=color, linewidth=0.9)
    axes.axhline(2 / np.log(2), color="#9ca3af", linewidth=0.8, linestyle=":")
    axes.set(title="Coexistence temperature", xlabel="n", ylabel="$T_c$", ylim=(0, 3.4))
    axes.set_xticks(SIZES)


def draw_heat(axes, rows: list[dict]) -> None:
    for row, color in zip(rows, COLORS, strict=True):
        x = row["curves"]["T"] / row["T_c"]
        axes.plot(x, row["curves"]["C"] / row["n"], color=color, label=f"n = {row['n']}")
    axes.axvline(1, color="#9ca3af", linewidth=0.8, linestyle=":")
    axes.set(title="Heat capacity, extensive gap", xlabel="$T/T_c$", ylabel="C / n", xlim=(0.3, 2))


def draw_histograms(axes, row: dict) -> None:
    centres = 0.5 * (BINS[1:] + BINS[:-1])
    for factor, color in (("0.7", COLORS[0]), ("1.4", COLORS[3]), ("1.0", COLORS[2])):
        axes.stairs(row["histograms"][factor], BINS, color=color, label=f"T = {factor} $T_c$")
    axes.set(title=f"P(E), rough, n = {row['n']}", xlabel="E", ylabel="mass in a bin")
    axes.set_xlim(centres[0] + 2, centres[-1])


def draw_heights(axes, rows: dict[str, list[dict]]) -> None:
    for kind, color, marker in (("extensive", COLORS[2], "o"), ("constant", COLORS[3], "x")):
        axes.loglog(SIZES, [r["C_peak"] for r in rows[kind]], marker, color=color, label=kind)
    first = rows["extensive"][0]["C_peak"]
    guide = first * (np.array(SIZES) / SIZES[0]) ** 2
    axes.plot(SIZES, guide, color="#9ca3af", linewidth=0.9, label="$n^2$")
    axes.set(title="Height of the peak", xlabel="n", ylabel="C at its peak")
    axes.set_xticks(SIZES, labels=[str(n) for n in SIZES])
    axes.set_yticks([2, 3, 5, 8], labels=["2", "3", "5", "8"])
    axes.minorticks_off()


def picture(rows: dict[str, list[dict]]) -> Figure:
    style = {
        "font.size": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.7,
        "lines.linewidth": 1.3,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        draw_mass(axes[0], rows["extensive"], "Extensive gap, $\\Delta = n$")
        draw_mass(axes[1], rows["constant"], f"Constant gap, $\\Delta = {CONSTANT_GAP:g}$")
        draw_critical(axes[2], rows)
        draw_heat(axes[3], rows["extensive"])
        draw_histograms(axes[4], rows["rough"][-1])
        draw_heights(axes[5], rows)
        for ax in axes:
            ax.legend()
        return figure


def table_rows(rows: dict[str, list[dict]]) -> list[dict]:
    """What is printed and saved: all but the curves."""
    hidden = ("curves", "histograms")
    return [{k: v for k, v in r.items() if k not in hidden} for rs in rows.values() for r in rs]


def main(*, temperatures: int = 1201, out: pathlib.Path = pathlib.Path("results")) -> None:
    rows = {kind: [measure(kind, n, temperatures) for n in SIZES] for kind in GAPS}
    columns = ["T_c", "formula", "T_peak", "C_peak", "mass_fixed_T"]
    print(f"{'gap':>10}{'n':>4}" + "".join(f"{c:>14}" for c in columns) + "  bimodal at T_c")
    for row in table_rows(rows):
        figures = "".join(f"{row[c]:14.6f}" for c in columns)
        print(f"{row['gap']:>10}{row['n']:4d}{figures}  {row['bimodal']['1.0']}")
    claims = verdicts(rows)
    for text, (holds, figures) in claims.items():
        claim(text, holds, figures)
    saved = {
        "rows": table_rows(rows),
        "claims": [
            {"claim": c, "holds": holds, "figures": figures}
            for c, (holds, figures) in claims.items()
        ],
    }
    save(out / "coexistence.json", saved)
    save(out / "coexistence.png", picture(rows))
