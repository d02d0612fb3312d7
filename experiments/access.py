"""Which patterns can still be recalled when they are rare, and what keeps the others.

Eight random patterns of 12 spins occur with weights from 1 down to 1/100. The exact table puts
them at -ln weight and all else behind an extensive gap; reduced descriptions keep the couplings of
at most k spins, cut from the table or learned by exact maximum likelihood from the same patterns
with the background of that gap. Each pattern is cued by random halves of its spins, and recall is
the probability of the pattern among the answers: the rate at which draws given the cue are right.

Shown: recall of every pattern against temperature, for three gaps, and where it falls through 1/2,
beside the temperature where a pattern coexists with the 2^6 - 1 others that agree with its cue; the
same of every description, with the barrier over which each pattern is left
(`tg.exact.barriers`), the flip minima that are no pattern, the sets that trap heat-bath dynamics
for 20 sweeps at T = 1, and its longest relaxation time. Prints two tables and a verdict for each
claim; saves a picture.

In practice: what is rare in the training data is the first to be lost, to temperature and to every
reduction, though it is stored: the barrier around it is lower, and with a poor cue everything else
outweighs it. Judge recall pattern by pattern, not on average; `rare` tries a remedy.

    python -m experiments access [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import thermogen as tg
from experiments._shared import STYLE, claim, save
from thermogen import learning
from thermogen.energies import complete
from thermogen.walsh import degrees

N, N_KNOWN = 12, 6
COUNTS = np.array([100, 52, 27, 14, 7, 4, 2, 1])  # weights from 1 to 1/100
GAPS = (0.5, 0.75, 1.0)  # per spin, in units of the temperature of training, T = 1
GAP = GAPS[-1]
TEMPERATURES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
QUICK = {"gaps": GAPS[2:], "cut": (3, 4, 6)}
THRESHOLD = 20  # sweeps
SHOWN = 2.0  # temperature of the picture
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


def cues(spins: np.ndarray, n_masks: int) -> tuple[np.ndarray, np.ndarray]:
    """Random halves of each pattern, pattern by pattern."""
    rng = np.random.default_rng(2)
    masks = np.array([rng.permutation(N) < N_KNOWN for _ in range(len(spins) * n_masks)])
    return np.repeat(spins, n_masks, axis=0), masks


@jax.jit
def recall_rates(energy: tg.Complete, spins, masks, beta):
    """Probability of each pattern given its cues, mean over masks, shape `(patterns,)`."""
    keys = jax.random.split(jax.random.key(3), len(spins))
    one = lambda s, m, k: tg.recall(energy, beta, jnp.where(m, s, 0), key=k, **CHAINS)  # noqa: E731
    found = jax.vmap(one)(spins, masks, keys)
    right = jnp.einsum("ckn,cn->ck", found.configurations, spins) == N
    return jnp.sum(right * found.probabilities, axis=1).reshape(len(COUNTS), -1).mean(axis=1)


def table(data: np.ndarray, gap: float) -> tg.Complete:
    return tg.Complete.from_data(data, temperature=1.0, gap_per_spin=gap)


def learned(data: np.ndarray, degree: int) -> tg.Interactions:
    masks = np.flatnonzero((degrees(N) <= degree) & (degrees(N) > 0))
    start = tg.Complete(np.zeros(2**N)).keep(masks)
    rows, weights = learning.with_background(data, GAP * N)
    objective = tg.ExactLikelihood()
    fitted = tg.fit(objective, start, rows, weights=weights, key=jax.random.key(0))
    print(f"   learned, degree {degree}: {len(fitted.history)} steps, {fitted.result}")
    return fitted.energy


def descriptions(data: np.ndarray, cut, degrees_learned) -> dict[str, tuple[int, tg.Complete]]:
    """Number of couplings, and the energy as a table of couplings, so that all share programs."""
    exact = table(data, GAP)
    found: dict[str, Any] = {f"cut {k}": exact.truncate(k) for k in cut}
    found |= {f"learned {k}": learned(data, k) for k in degrees_learned}
    sized = {
        name: (sum(len(s) for s in energy.sets if s.order), complete(energy))
        for name, energy in found.items()
    }
    return {"exact": (2**N - 1, exact), **sized}


def landscape_of(energy: tg.Complete, rows: np.ndarray) -> dict[str, Any]:
    """Barriers around the patterns, other minima, and what is metastable at T = 1."""
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
    times = sets.relaxation_times
    return {
        "barriers": np.maximum(passes[place] - energies[rows], 0),
        "is minimum": np.isin(rows, minima),
        "false": len(np.setdiff1d(minima, rows)),
        "sets": len(sets.weights),
        "time": float(times[0]) if len(times) else 0.0,
    }


def half_temperature(rates: np.ndarray) -> float:
    """Where recall falls through 1/2; NaN if it never does. Log-odds are linear in 1/T."""
    below = np.flatnonzero(rates < 0.5)
    if len(below) == 0 or below[0] == 0:
        return np.nan
    pair = slice(below[0] - 1, below[0] + 1)
    odds, betas = np.log(rates[pair] / (1 - rates[pair])), 1 / TEMPERATURES[pair]
    return float(1 / np.interp(0, odds[::-1], betas[::-1]))


def predicted(data: np.ndarray, gap: float, rows: np.ndarray) -> np.ndarray:
    """Where a pattern coexists with the others that agree with its cue."""
    energies = np.asarray(tg.exact.energies(table(data, gap)))
    depth = energies.max() - energies[rows]
    at = learning.coexistence_beta
    return np.array([1 / float(at(d, N - N_KNOWN, 1)) for d in depth])


def draw(by_temperature, melting, curves, lands) -> Figure:
    names, at = list(curves), list(TEMPERATURES).index(SHOWN)
    rates = np.array([curve[at] for curve in curves.values()])
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(COUNTS)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for color, count, curve, t in zip(colors, COUNTS, by_temperature.T, melting, strict=True):
            left.plot(TEMPERATURES, curve, "o-", color=color, markersize=3, label=f"{count}/100")
            left.axvline(t, color=color, linestyle=":", linewidth=0.8)
        left.set_title("exact table: the rare melt first")
        left.set(xlabel="temperature", ylabel="recall from half of the spins", ylim=(0, 1.03))
        left.legend(title="weight")

        picture = middle.imshow(rates.T, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        middle.set_title(f"recall at T = {SHOWN:g}: reduction loses the rare first")
        middle.set_xticks(range(len(names)), names, rotation=45, ha="right")
        middle.set_yticks(range(len(COUNTS)), [f"{c}/100" for c in COUNTS])
        middle.set(ylabel="weight of the pattern")
        for (i, j), rate in np.ndenumerate(rates):
            shade = "white" if rate < 0.5 else "black"
            middle.text(i, j, f"{rate:.2f}", ha="center", va="center", fontsize=6.5, color=shade)
        figure.colorbar(picture, ax=middle, shrink=0.8)

        shown = ["exact", "learned 4", "learned 3", "learned 2", "cut 4", "cut 6"]
        for name, color in zip(shown, matplotlib.colormaps["tab10"].colors, strict=False):
            barriers = lands[name]["barriers"]
            right.semilogx(COUNTS / 100, barriers, "o-", color=color, markersize=4, label=name)
        right.set_title("what keeps them: the barrier around")
        right.set(xlabel="weight of the pattern", ylabel="lowest pass to a lower state, units of T")
        right.legend(ncols=2)
    return figure


def main(
    *,
    gaps: tuple[float, ...] = GAPS,
    cut: tuple[int, ...] = (2, 3, 4, 6, 8),
    fitted: tuple[int, ...] = (2, 3, 4),
    masks: int = 16,
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    stored = patterns()
    data = np.repeat(stored, COUNTS, axis=0)
    rows = np.asarray(tg.index_from_spins(stored))
    spins, known = (jnp.asarray(x) for x in cues(stored, masks))
    spins = spins.astype(float)

    by_gap, melting = {}, {gap: predicted(data, gap, rows) for gap in gaps}
    for gap in gaps:
        energy = table(data, gap)
        rates = [recall_rates(energy, spins, known, jnp.asarray(1 / t)) for t in TEMPERATURES]
        by_gap[gap] = np.array(rates)
    print(
        f"exact tables: temperature where recall is 1/2 (coexistence with {2**N_KNOWN - 1} others)"
    )
    print("weight   " + "".join(f"{f'gap {gap:g} n':>16}" for gap in gaps))
    halves = {gap: [half_temperature(curve) for curve in by_gap[gap].T] for gap in gaps}
    for j, count in enumerate(COUNTS):
        cells = [f"{halves[gap][j]:8.2f} ({melting[gap][j]:.2f})" for gap in gaps]
        print(f"{count:3d}/100  " + "".join(f"{cell:>16}" for cell in cells))

    sized = descriptions(data, cut, fitted)
    curves = {
        name: np.array(
            [recall_rates(energy, spins, known, jnp.asarray(1 / t)) for t in TEMPERATURES]
        )
        for name, (_, energy) in sized.items()
    }
    melts = {n: np.array([half_temperature(curve) for curve in c.T]) for n, c in curves.items()}
    lands = {name: landscape_of(energy, rows) for name, (_, energy) in sized.items()}
    print("\ntemperature where recall is 1/2, 0 if it never is more, (barrier); * no minimum")
    head = "".join(f"{f'{c}/100':>12}" for c in COUNTS)
    print(f"{'':10}{'couplings':>10}{head}{'false':>7}{'sets':>6}{'tau':>10}")
    for name, (size, _) in sized.items():
        land = lands[name]
        cells = [
            f"{t:.2f} ({b:.1f}){' ' if m else '*'}"
            for t, b, m in zip(
                np.nan_to_num(melts[name]), land["barriers"], land["is minimum"], strict=True
            )
        ]
        row = "".join(f"{cell:>12}" for cell in cells)
        print(f"{name:10}{size:10d}{row}{land['false']:7d}{land['sets']:6d}{land['time']:10.3g}")

    print()
    verdicts(halves, melting, melts, lands)
    save(out / "access.png", draw(by_gap[GAP], melting[GAP], curves, lands), dpi=130)


def verdicts(halves, melting, melts, lands) -> None:
    error = max(np.max(np.abs(np.array(halves[gap]) / melting[gap] - 1)) for gap in halves)
    claim(
        "exact table: recall falls through 1/2 within 3 % of coexistence",
        error < 0.03,
        f"largest error {error:.1%}, {len(halves)} gaps",
    )
    exact = melts["exact"]
    claim(
        "exact table: the rarer, the earlier",
        all(np.all(np.diff(half) < 0) for half in halves.values()),
        f"T = {exact[0]:.2f} of the most frequent, {exact[-1]:.2f} of the rarest",
    )
    models = {k: np.nan_to_num(t) for k, t in melts.items() if k.startswith("learned")}
    later = max(np.max(t - exact) for t in models.values())
    claim(
        "learned: no pattern outlives its own in the table",
        later <= 0.02,
        f"by at most {later:.2f} in T",
    )
    ranks = {k: _rank_correlation(COUNTS, t) for k, t in models.items()}
    claim(
        "learned: the rarer, the earlier (rank correlation above 0.9)",
        min(ranks.values()) > 0.9,
        ", ".join(f"degree {k[-1]}: {x:.2f}" for k, x in ranks.items()),
    )
    rare = len(COUNTS) // 2
    kept = {k: [np.mean((t / exact)[part]) for part in (slice(rare), slice(rare, None))]
            for k, t in models.items()}  # fmt: skip
    claim(
        "learned: the rare half loses more of its melting temperature than the other",
        all(of_rare < of_others for of_others, of_rare in kept.values()),
        ", ".join(
            f"degree {k[-1]}: {b:.0%} kept, {a:.0%} by the other" for k, (a, b) in kept.items()
        ),
    )
    ranks = {k: _rank_correlation(COUNTS, lands[k]["barriers"]) for k in models}
    claim(
        "learned: the rarer, the lower the barrier (rank correlation above 0.9)",
        min(ranks.values()) > 0.9,
        ", ".join(f"degree {k[-1]}: {x:.2f}" for k, x in ranks.items()),
    )
    cut = [t for k, t in melts.items() if k in ("cut 2", "cut 3")]
    if cut:
        claim(
            "cut at degree 3 or less no pattern is recalled by half at any of the temperatures",
            np.all(np.isnan(cut)),
            f"recalled: {np.sum(~np.isnan(cut))} of {np.size(cut)}",
        )


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearmanr(a, b).statistic)
