"""Is it better to cut the couplings of a complete description, or to learn as few from the data?

The tables of addition a + b = c, complete: data at energy 0, all other configurations at n. Two
models with the same couplings, those of at most k spins:

- cut: the couplings of the table itself, the others dropped; nearest to the table in the
  root-mean-square error over all configurations, most of which carry no weight;
- learned: exact maximum likelihood. From degree 2 on the data lie on the edge of the model,
  for (a + b - c)^2 is pairwise and 0 on the data alone: the likelihood rises to 1/M a sample and
  the parameters run to infinity. Two stops: the gradient meets 1e-5 nats ("learned"), or a
  penalty of 1e-4 times the sum of squared couplings makes the optimum finite and unique ("ridge").

Strict single-flip minima, how many of them are data and false positives, negative log-likelihood
above ln M at T = 1 (for the cut also at its best temperature), and library mass. Prints a table
and a verdict for each claim; saves JSON and a picture.

In practice: with the same couplings, those that are learned hold every pattern that those cut from
the full description lose. Size is not what a reduced model lacks; it is the loss that chose its
parameters, which should weigh errors by probability and not all configurations alike.

    python -m experiments learning_against_cutting [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, claim, save
from thermogen.learning import L2, AbstractPenalty
from thermogen.walsh import degrees

QUICK = {"bits": (2, 3), "degrees": (1, 2, 3)}
RIDGE = 1e-4
# Relative to the range of the energies: flips that cost less are ties, broken by rounding.
TIES = (1e-9, 1e-6, 1e-4)
SCALES = np.geomspace(1e-2, 1e4, 601)
HELD = 1e-4  # nats above ln M that count as the whole table


def count(energy: tg.AbstractMultilinear, rows: np.ndarray, tie: float) -> tuple[int, int]:
    """Strict single-flip minima, and those among them that are data."""
    spread = float(np.ptp(tg.exact.energies(energy)))
    minima = tg.exact.single_flip_minima(energy, threshold=tie * spread)
    return len(minima), int(np.isin(minima, rows).sum())


def judge(table: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """What a table of energies makes of the data `rows`."""
    n = len(table).bit_length() - 1
    energy = tg.Complete.from_energies(table)
    spread = np.ptp(table)
    counts = [count(energy, rows, tie) for tie in TIES]

    def excess(scale):
        return -log_probabilities(scale * table)[rows].mean() - np.log(len(rows))

    best = SCALES[np.argmin([excess(scale) for scale in SCALES])]
    # A constant table has no scale.
    best = float(best) if spread > 0 else 1.0
    return {
        "minima": counts[0][0],
        "data": counts[0][1],
        "false": counts[0][0] - counts[0][1],
        "ties matter": len(set(counts)) > 1,
        "excess": float(excess(1.0)),
        "mass": float(np.exp(log_probabilities(table)[rows]).sum()),
        "best excess": float(excess(best)),
        "best mass": float(np.exp(log_probabilities(best * table)[rows]).sum()),
        "range per spin": float(spread / n),
    }


def log_probabilities(table: np.ndarray) -> np.ndarray:
    shifted = table.min() - table
    return shifted - np.log(np.exp(shifted).sum())


def learn(
    start: tg.Interactions, data: np.ndarray, rows: np.ndarray, penalty: AbstractPenalty | None
) -> dict[str, Any]:
    """A fit, judged; and the counts of minima along it, `(steps, minima, data)`."""
    path = []

    def watch(fitted):
        path.append((len(fitted.history), *count(fitted.energy, rows, TIES[0])))

    fitted = tg.fit(
        tg.ExactLikelihood(),
        start,
        data,
        penalty=penalty,
        key=jax.random.key(0),
        callback=watch,
    )
    return {
        **judge(np.asarray(tg.exact.energies(fitted.energy)), rows),
        "steps": len(fitted.history),
        "converged": bool(fitted.result == tg.RESULTS.converged),
        "path": path,
    }


def compare(n_bits: int, kept: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each degree: the cut, the learned and the penalised model."""
    data = tg.datasets.adder(n_bits)
    n = data.shape[1]
    rows = np.asarray(tg.index_from_spins(data))
    table = np.full(2**n, float(n))
    table[rows] = 0.0
    complete, result = tg.Complete.from_energies(table), []
    for k in kept:
        masks = np.flatnonzero((degrees(n) <= k) & (degrees(n) > 0))
        start = tg.Complete(np.zeros(2**n)).keep(masks)
        result.append(
            {
                "degree": k,
                "couplings": len(masks),
                "cut": judge(np.asarray(tg.exact.energies(complete.truncate(k))), rows),
                "learned": learn(start, data, rows, None),
                "ridge": learn(start, data, rows, L2(RIDGE, fields=RIDGE)),
            }
        )
    return result


def by_hand(n_bits: int) -> dict[str, Any]:
    """The pairwise energy `(a + b - c)^2`."""
    n = 3 * n_bits + 1
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    powers = 2 ** np.arange(n_bits + 1)
    weights = np.concatenate([powers[:-1], powers[:-1], -powers])
    rows = np.asarray(tg.index_from_spins(tg.datasets.adder(n_bits)))
    return judge((bits @ weights).astype(float) ** 2, rows)


def verdicts(found: dict[int, list], hands: dict[int, dict]) -> dict[str, tuple[bool, str]]:
    """Whether each claim holds, and the number that says so."""
    size = {b: 4**b for b in found}
    every = [(size[b], row) for b, rows in found.items() for row in rows]
    pairs_up = [(m, row) for m, row in every if row["degree"] >= 2]
    fits = [row[name] for _, row in every for name in ("learned", "ridge")]
    held = [row["learned"]["data"] / m for m, row in pairs_up]
    penalised = [row["ridge"]["data"] / m for m, row in pairs_up]
    excess = [row["learned"]["excess"] for _, row in pairs_up]
    lead = [row["cut"]["best excess"] - row["learned"]["excess"] for _, row in every]
    of_cut = [row["cut"]["data"] / m for m, row in every]
    pairs = [(r["cut"]["minima"], r["cut"]["data"]) for _, r in every if r["degree"] == 2]
    cold = [hand["best excess"] for hand in hands.values()]
    paths = [row["learned"]["path"] for _, row in every]
    early = [path[0][1:] == path[-1][1:] for path in paths]
    return {
        "every fit met its tolerance": (
            all(fit["converged"] for fit in fits),
            f"{sum(fit['converged'] for fit in fits)} of {len(fits)}",
        ),
        "cut at degree 2 every table has 2 minima, none of them data": (
            all(counts == (2, 0) for counts in pairs),
            ", ".join(f"{minima} minima, {data} data" for minima, data in pairs),
        ),
        "(a + b - c)^2 is pairwise, and its lowest states are the data: mass 1 when cold": (
            max(cold) < HELD,
            f"at most {max(cold):.1e} nats above ln M",
        ),
        "learned from degree 2 on: all data are minima, in every table": (
            min(held) == 1,
            f"least share {min(held):.2f}",
        ),
        "and still with the penalty": (min(penalised) == 1, f"least share {min(penalised):.2f}"),
        f"learned from degree 2 on: ln M to {HELD:g} nats": (
            max(excess) < HELD,
            f"at most {max(excess):.1e} nats above",
        ),
        "the cut never is more likely, at any temperature": (
            min(lead) > -1e-6,
            f"behind by {min(lead):.2g} to {max(lead):.2g} nats",
        ),
        "at no degree does the cut hold all data": (
            max(of_cut) < 1,
            f"largest share {max(of_cut):.2f}",
        ),
        "no count of a learned model depends on ties": (
            not any(fit["ties matter"] for fit in fits),
            f"{sum(fit['ties matter'] for fit in fits)} of {len(fits)} do",
        ),
        "nor on when it stopped: the counts after 20 steps are those at the end": (
            all(early),
            f"{sum(early)} of {len(early)} fits",
        ),
    }


def show(found: dict[int, list], hands: dict[int, dict]) -> None:
    columns = f"{'minima':>8}{'data':>6}{'false':>7}{'NLL-ln M':>11}{'best T':>11}"
    for b, rows in found.items():
        print(f"\nadder({b}): n = {3 * b + 1}, M = {4**b} data, ln M = {np.log(4**b):.4f} nats")
        print(f"{'k':>2}{'couplings':>10} {'model':8}{columns}{'mass':>9}{'best T':>9}{'steps':>7}")
        for row in rows:
            for name in ("cut", "learned", "ridge"):
                show_one(f"{row['degree']:2}{row['couplings']:10}", name, row[name])
        show_one(f"{'':12}", "by hand", hands[b])


def show_one(head: str, name: str, model: dict[str, Any]) -> None:
    line = f"{head} {name:8}{model['minima']:8}{model['data']:6}{model['false']:7}"
    line += f"{model['excess']:11.3g}{model['best excess']:11.3g}"
    print(line + f"{model['mass']:9.4f}{model['best mass']:9.4f}{model.get('steps', ''):>7}")


def draw(found: dict[int, list]) -> Figure:
    """Counts of minima above, library mass below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        grid = figure.subplots(2, len(found))
        k = np.array([row["degree"] for row in next(iter(found.values()))])
        for (above, below), (b, rows) in zip(grid.T, found.items(), strict=True):
            for name, shift in (("cut", -0.2), ("learned", 0.2)):
                data = np.array([row[name]["data"] for row in rows])
                false = np.array([row[name]["false"] for row in rows])
                shade = {"width": 0.36, "alpha": 0.45 if name == "cut" else 1.0}
                above.bar(k + shift, data, color=INK, label=f"{name}: data", **shade)
                above.bar(k + shift, false, bottom=data, color=ACCENT, label="false", **shade)
                for x, total in zip(k + shift, data + false, strict=True):
                    above.annotate(
                        str(total), (x, total), (0, 2), textcoords="offset points", ha="center"
                    )
            above.axhline(4**b, color=MUTED, linestyle=":", label="size of the data")
            above.set_title(f"adder({b}): n = {3 * b + 1}, {4**b} data", pad=12)
            above.set(xlabel="largest degree", ylabel="strict single-flip minima", xticks=k)
            above.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            for name, key, colour, marker, label in (
                ("cut", "mass", MUTED, "s-", "cut, T = 1"),
                ("cut", "best mass", ACCENT, "s-", "cut, best T"),
                ("ridge", "mass", GREEN, "o-", "learned, ridge"),
                ("learned", "mass", INK, "o-", "learned"),
            ):
                mass = [row[name][key] for row in rows]
                below.plot(k, mass, marker, color=colour, markersize=4, label=label)
            below.set(xlabel="largest degree", ylabel="Boltzmann weight of the data", xticks=k)
            below.set_ylim(0, 1.05)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles[1:] + handles[:1],
            [
                "cut: data",
                "cut: false positives",
                "learned: data",
                "learned: false positives",
                "size of the data",
            ],
            loc="outside upper center",
            ncols=5,
        )
        lines = grid[1, 0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=4)
    return figure


def main(
    *,
    bits: tuple[int, ...] = (2, 3, 4),
    degrees: tuple[int, ...] = (1, 2, 3, 4),
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    found = {b: compare(b, degrees) for b in bits}
    hands = {b: by_hand(b) for b in bits}
    show(found, hands)
    print()
    for text, (holds, statistic) in verdicts(found, hands).items():
        claim(text, holds, statistic)
    record = {"models": found, "by hand": hands}
    save(out / "learning_against_cutting.json", record)
    save(out / "learning_against_cutting.png", draw(found))
