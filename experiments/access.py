"""Which patterns can still be recalled when they are rare, and what keeps the others.

Eight random patterns of 12 spins occur with weights from 1 down to 1/100. The exact table puts
them at -ln weight and all else behind an extensive gap; reduced descriptions keep the couplings of
at most k spins, cut from the table or learned by exact maximum likelihood from the same patterns
with the background of that gap. Each pattern is cued by random halves of its spins, and recall is
the probability of the pattern among the answers: the rate at which draws given the cue are right.

Shown: recall of every pattern against temperature, for three gaps, beside the temperature where a
pattern coexists with the 2^6 - 1 others that agree with its cue; recall at T = 1 of every
description; the barrier over which each pattern is left (`tg.exact.barriers`), how many flip
minima and metastable sets of 20 sweeps are patterns, and the longest relaxation time. Prints
tables and verdicts; saves a picture.

    python experiments/access.py [--out DIR]
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from thermogen import learning
from thermogen.energies import complete
from thermogen.walsh import degrees

N, N_KNOWN, N_MASKS = 12, 6, 16
COUNTS = np.array([100, 52, 27, 14, 7, 4, 2, 1])  # weights from 1 to 1/100
GAPS = (0.5, 0.75, 1.0)  # per spin, in units of the temperature of training, T = 1
GAP = GAPS[-1]
TEMPERATURES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
CUT, LEARNED = (2, 3, 4, 6, 8), (2, 3, 4)
THRESHOLD = 20  # sweeps
CHAINS = {"n_chains": 48, "n_sweeps": 30, "capacity": 16}


def patterns() -> np.ndarray:
    """Random corners, at least four flips apart."""
    rng = np.random.default_rng(1)
    found = [rng.choice([-1, 1], N)]
    while len(found) < len(COUNTS):
        new = rng.choice([-1, 1], N)
        if max(new @ old for old in found) <= N - 8:
            found.append(new)
    return np.array(found)


def cues(spins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`N_MASKS` random halves of each pattern, pattern by pattern."""
    rng = np.random.default_rng(2)
    masks = np.array([rng.permutation(N) < N_KNOWN for _ in range(len(spins) * N_MASKS)])
    return np.repeat(spins, N_MASKS, axis=0), masks


@jax.jit
def recall_rates(energy: tg.Complete, spins, masks, beta):
    """Probability of each pattern given its cues, mean over masks, shape `(patterns,)`."""
    keys = jax.random.split(jax.random.key(3), len(spins))
    one = lambda s, m, k: tg.recall(energy, s, m, beta, key=k, **CHAINS)  # noqa: E731
    found = jax.vmap(one)(spins, masks, keys)
    right = jnp.einsum("ckn,cn->ck", found.configurations, spins) == N
    return jnp.sum(right * found.probabilities, axis=1).reshape(-1, N_MASKS).mean(axis=1)


def table(data: np.ndarray, gap: float) -> tg.Complete:
    return tg.Complete.from_data(data, temperature=1.0, gap_per_spin=gap)


def learned(data: np.ndarray, degree: int) -> tg.Interactions:
    masks = np.flatnonzero((degrees(N) <= degree) & (degrees(N) > 0))
    start = tg.Complete(np.zeros(2**N)).keep(masks)
    rows, weights = learning.with_background(data, GAP * N)
    objective = tg.ExactLikelihood()
    fitted = tg.fit(start, rows, weights=weights, objective=objective, key=jax.random.key(0))
    print(f"   learned, degree {degree}: {len(fitted.history)} steps, {fitted.result}")
    return fitted.energy


def descriptions(data: np.ndarray) -> dict[str, tuple[int, tg.Complete]]:
    """Number of couplings, and the energy as a table of couplings, so that all share programs."""
    exact = table(data, GAP)
    found: dict[str, Any] = {f"cut {k}": exact.truncate(k) for k in CUT}
    found |= {f"learned {k}": learned(data, k) for k in LEARNED}
    sized = {
        name: (sum(len(s) for s in energy.sets if s.order), complete(energy))
        for name, energy in found.items()
    }
    return {"exact": (2**N - 1, exact), **sized}


def landscape_of(energy: tg.Complete, rows: np.ndarray) -> dict[str, Any]:
    """Barriers around the patterns, and which of them are minima and metastable at T = 1."""
    energies = np.asarray(tg.exact.energies(energy))
    minima = tg.exact.single_flip_minima(energy, threshold=1e-9 * np.ptp(energies))
    others = np.union1d(minima, rows)
    heights = tg.exact.barriers(energy, others)
    np.fill_diagonal(heights, np.inf)
    # The lowest pass to anything that lies lower; of the lowest state, to any other.
    lower = energies[others][None, :] < energies[others][:, None]
    lowest = others == others[np.argmin(energies[others])]
    passes = np.where(lower | lowest[:, None], heights, np.inf).min(axis=1)
    place = np.searchsorted(others, rows)
    sets = tg.exact.metastable_sets(energy, 1.0, threshold=THRESHOLD)
    labels = sets.labels[rows]
    alone = np.array([np.sum(labels == label) == 1 for label in labels])
    times = sets.relaxation_times
    return {
        "barriers": np.maximum(passes[place] - energies[rows], 0),
        "is minimum": np.isin(rows, minima),
        "false": len(np.setdiff1d(minima, rows)),
        "alone": alone & (labels != np.bincount(labels).argmax() if alone.sum() < 2 else alone),
        "sets": len(sets.weights),
        "time": float(times[0]) if len(times) else 0.0,
    }


def half_temperature(rates: np.ndarray) -> float:
    """Where recall falls through 1/2, linear between temperatures; NaN if it never does."""
    below = np.flatnonzero(rates < 0.5)
    if len(below) == 0 or below[0] == 0:
        return np.nan
    j = below[0]
    share = (rates[j - 1] - 0.5) / (rates[j - 1] - rates[j])
    return float(TEMPERATURES[j - 1] + share * np.diff(TEMPERATURES)[j - 1])


def predicted(data: np.ndarray, gap: float, rows: np.ndarray) -> np.ndarray:
    """Where a pattern coexists with the others that agree with its cue."""
    energies = np.asarray(tg.exact.energies(table(data, gap)))
    depth = energies.max() - energies[rows]
    at = learning.coexistence_temperature
    return np.array([float(at(d, N - N_KNOWN, 1)) for d in depth])


def draw(by_gap, melting, names, rates, lands) -> Figure:
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(COUNTS)))
    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 10,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for color, count, curve, t in zip(colors, COUNTS, by_gap[GAP].T, melting[GAP], strict=True):
            left.plot(TEMPERATURES, curve, "o-", color=color, markersize=3, label=f"{count}/100")
            left.axvline(t, color=color, linestyle=":", linewidth=0.8)
        left.set_title("exact table: the rare melt first")
        left.set(xlabel="temperature", ylabel="recall from half of the spins", ylim=(0, 1.03))
        left.legend(title="weight")

        picture = middle.imshow(rates.T, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        middle.set_title("recall at T = 1: reduction loses the rare first")
        middle.set_xticks(range(len(names)), names, rotation=45, ha="right")
        middle.set_yticks(range(len(COUNTS)), [f"{c}/100" for c in COUNTS])
        middle.set(ylabel="weight of the pattern")
        for (i, j), rate in np.ndenumerate(rates):
            shade = "white" if rate < 0.5 else "black"
            middle.text(i, j, f"{rate:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
        figure.colorbar(picture, ax=middle, shrink=0.8)

        shown = ["exact", "learned 4", "learned 3", "learned 2", "cut 4", "cut 6"]
        for name, color in zip(shown, matplotlib.colormaps["tab10"].colors, strict=False):
            barriers = lands[names.index(name)]["barriers"]
            right.semilogx(COUNTS / 100, barriers, "o-", color=color, markersize=4, label=name)
        right.set_title("what keeps them: the barrier around")
        right.set(xlabel="weight of the pattern", ylabel="lowest pass to a lower state, units of T")
        right.legend(ncols=2)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images"))
    out = parser.parse_args().out
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    stored = patterns()
    data = np.repeat(stored, COUNTS, axis=0)
    rows = np.asarray(tg.index_from_spins(stored))
    spins, masks = (jnp.asarray(x) for x in cues(stored))
    spins = spins.astype(float)

    by_gap, melting = {}, {gap: predicted(data, gap, rows) for gap in GAPS}
    for gap in GAPS:
        energy = table(data, gap)
        rates = [recall_rates(energy, spins, masks, jnp.asarray(1 / t)) for t in TEMPERATURES]
        by_gap[gap] = np.array(rates)
    print(
        f"exact tables: temperature where recall is 1/2 (coexistence with {2**N_KNOWN - 1} others)"
    )
    print("weight   " + "".join(f"{f'gap {gap:g} n':>16}" for gap in GAPS))
    halves = {gap: [half_temperature(curve) for curve in by_gap[gap].T] for gap in GAPS}
    for j, count in enumerate(COUNTS):
        cells = [f"{halves[gap][j]:8.2f} ({melting[gap][j]:.2f})" for gap in GAPS]
        print(f"{count:3d}/100  " + "".join(f"{cell:>16}" for cell in cells))

    sized = descriptions(data)
    names = list(sized)
    rates = np.array(
        [recall_rates(energy, spins, masks, jnp.asarray(1.0)) for _, energy in sized.values()]
    )
    lands = [landscape_of(energy, rows) for _, energy in sized.values()]
    print("\nrecall at T = 1 and (barrier), patterns by weight; * no flip minimum")
    head = "".join(f"{f'{c}/100':>12}" for c in COUNTS)
    print(f"{'':10}{'couplings':>10}{head}{'false':>7}{'sets':>6}{'tau':>10}")
    for name, (size, _), curve, land in zip(names, sized.values(), rates, lands, strict=True):
        cells = [
            f"{r:.2f} ({b:.1f}){' ' if m else '*'}"
            for r, b, m in zip(curve, land["barriers"], land["is minimum"], strict=True)
        ]
        print(
            f"{name:10}{size:10d}"
            + "".join(f"{cell:>12}" for cell in cells)
            + f"{land['false']:7d}{land['sets']:6d}{land['time']:10.3g}"
        )

    print()
    for claim, holds in verdicts(halves, melting, names, rates, lands).items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    out.mkdir(parents=True, exist_ok=True)
    draw(by_gap, melting, names, rates, lands).savefig(out / "access.png", dpi=130)
    print(f"\n{time.perf_counter() - began:.0f} s")


def verdicts(halves, melting, names, rates, lands) -> dict[str, bool]:
    known = [np.isfinite(halves[gap]) for gap in GAPS]
    errors = [
        np.abs(np.array(halves[gap])[k] - melting[gap][k])
        for gap, k in zip(GAPS, known, strict=True)
    ]
    lost = rates < 0.5
    partial = [row for row in lost if row.any() and not row.all()]
    return {
        "exact table: recall falls through 1/2 within 0.2 of coexistence": bool(
            max(e.max() for e in errors) < 0.2
        ),
        "a rarer pattern never melts later": all(
            np.all(np.diff(np.array(halves[g])[k]) <= 0.02)
            for g, k in zip(GAPS, known, strict=True)
        ),
        "every description that loses some patterns loses a rarest first": all(
            row[-1] for row in partial
        ),
        "in each of these what is kept is heavier in the mean than what is lost": all(
            COUNTS[~row].mean() > COUNTS[row].mean() for row in partial
        ),
        "recall and barriers go together: rank correlation above 0.5 where some are lost": all(
            _rank_correlation(rate, land["barriers"]) > 0.5
            for rate, land, row in zip(rates, lands, lost, strict=True)
            if row.any() and not row.all()
        ),
    }


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    main()
