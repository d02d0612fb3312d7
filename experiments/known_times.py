"""Certified bound states beyond enumeration, where theory knows the answer.

- `chain`: rings of Ising spins, whose magnetization relaxes in `1/(1 - tanh(2 beta J))` sweeps of
  the heat bath (Glauber, J. Math. Phys. 4, 294 (1963)), whatever their length: up and down are one
  bound state or two as that is below or above the threshold.
- `lattice`: the square lattice on a torus of 8 x 8 spins near its transition; the time is that in
  which the magnetization forgets itself in long runs of the heat bath.
- `hopfield`: few patterns on 256 and 1024 spins: a search from random corners must find all of
  them, the certificate must prove them, and mixtures of three are judged by time.

In practice: a certificate needs no enumeration. It tells when a state is left to about a quarter,
of many spins as of few, says where a count hangs on that, and proves every pattern that was
stored. Mixtures of patterns, which a search finds too, are judged by the same clock: those that
hold are states, wanted or not.

Tasks of an array share the models of each part; known_times_*.csv hold a row for each model.

    python -m experiments known_times [chain] [lattice] [hopfield] [--quick] [--out DIR]
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import networkx
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, INK, STYLE, claim, save, table
from thermogen._tasks import Task

THRESHOLD = 20.0


def ring(n: int) -> tg.Pairwise:
    return tg.Pairwise(networkx.to_numpy_array(networkx.cycle_graph(n)), np.zeros(n))


def chain(cases: list, quick: bool) -> list[dict[str, Any]]:
    right, rows = 0, []
    for n, time_of in cases:
        beta = 0.5 * np.arctanh(1 - 1 / time_of)
        up = np.ones(n)
        key = jax.random.key(n)
        found = tg.certify(ring(n), beta, np.stack([up, -up]), key=key, threshold=THRESHOLD)
        right += found.n_bound == 1 + (time_of > THRESHOLD)
        rows.append({"n": n, "time": time_of, **judged(found)})
        print(
            f"ring of {n}: relaxation time {time_of} sweeps, certified "
            f"{found.relaxation_times[0]:.3g}: bound states {found.n_bound} ({found.count})",
            flush=True,
        )
    print(f"as by Glauber's time: {right} verdicts of {len(rows)}")
    return rows


def judged(found: tg.Certificate) -> dict[str, Any]:
    slowest = found.relaxation_times[0]
    low, high = found.n_bound_interval or (0, 0)
    counts = {"bound": found.n_bound, "least": low, "most": high, "count": found.count}
    return {"certified_time": slowest, **counts}


def lattice(betas: list, quick: bool) -> list[dict[str, Any]]:
    graph = networkx.grid_2d_graph(8, 8, periodic=True)
    energy = tg.Pairwise(networkx.to_numpy_array(graph), np.zeros(64))
    up, right, rows = np.ones(64), 0, []
    for beta in betas:
        key = jax.random.key(int(100 * beta))
        exact = autocorrelation_time(energy, beta, key, 1000 if quick else 10000)
        found = tg.certify(energy, beta, np.stack([up, -up]), key=key, threshold=THRESHOLD)
        right += found.n_bound == 1 + (exact > THRESHOLD)
        rows.append({"beta": beta, "time": exact, **judged(found)})
        print(
            f"8 x 8, beta {beta:g}: magnetization forgotten in {exact:.3g} sweeps, certified "
            f"{found.relaxation_times[0]:.3g}: bound states {found.n_bound} ({found.count})",
            flush=True,
        )
    print(f"as by long runs: {right} verdicts of {len(rows)}")
    return rows


def autocorrelation_time(energy: tg.Pairwise, beta: float, key: jax.Array, n_sweeps: int) -> float:
    """Of the magnetization, which is even in its two signs, from where its curve is an exponential.

    64 chains; between where 1/2 and 1/8 of the square are left.
    """
    seen = tg.sample(
        tg.HeatBath(),
        energy,
        beta,
        key=key,
        n_chains=64,
        n_sweeps=n_sweeps,
        burn_in=n_sweeps // 10,
        observers=tg.sampling.Trace(lambda _, spins: spins.mean()),
    )
    m = np.asarray(seen, float).reshape(64, -1)
    lags = np.arange(n_sweeps // 10)
    left = np.array([np.mean(m[:, : m.shape[1] - k] * m[:, k:]) for k in lags]) / np.mean(m**2)
    first, last = (int(np.argmax(left < x)) for x in (0.5, 0.125))
    return (last - first) / np.log(left[first] / left[last]) if last > first else np.inf


def hopfield(cases: list, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for (n, n_patterns), beta in cases:
        rng, key = np.random.default_rng(n), jax.random.key(n)
        patterns = rng.choice([-1.0, 1.0], size=(n_patterns, n))
        couplings = patterns.T @ patterns / n
        energy = tg.Pairwise(couplings * (1 - np.eye(n)), np.zeros(n))
        began = time.process_time()
        library = tg.find_minima(tg.NaiveMeanField(), energy, beta, key=key, n_starts=576)
        overlaps = np.abs(library.magnetizations @ patterns.T) / n
        searched = time.process_time()
        found = tg.certify(
            energy, beta, library, key=key, threshold=THRESHOLD, n_trajectories=64, horizon=3
        )
        kinds = np.sum(overlaps > 0.25, axis=1)
        near = np.argmax(overlaps, axis=0)
        proved = np.unique(found.group[near])
        of_threes = np.flatnonzero(found.bound & (kinds >= 3))
        times = found.escape_times[of_threes]
        case = {"n": n, "patterns": n_patterns, "beta": beta, "minima": library.size}
        case |= {"mixtures": np.sum(kinds >= 3), "overlap": overlaps.max(axis=0).min()}
        case |= {"bound": found.n_bound, "patterns_bound": len(proved)}
        rows.append(case | {"mixtures_bound": len(of_threes)})
        print(
            f"n = {n}, {n_patterns} patterns, beta {beta:g}: {library.size} minima "
            f"({np.sum(kinds >= 3)} mixtures) in {searched - began:.1f} s; overlaps with patterns "
            f"at least {overlaps.max(axis=0).min():.3f}; {found.n_bound} bound states in "
            f"{time.process_time() - searched:.1f} s, {len(proved)} of the patterns; mixtures "
            f"bound: {len(of_threes)}"
            + (f", left after {np.min(times):.3g} sweeps or more" if len(times) else ""),
            flush=True,
        )
    return rows


class Part(NamedTuple):
    judge: Callable[[list, bool], list[dict[str, Any]]]
    cases: list
    n_quick: int  # of the cases, those of a quick run


PARTS = {
    "chain": Part(chain, list(itertools.product((32, 64, 256), (8, 12, 16, 25, 35, 60))), 6),
    "lattice": Part(lattice, [0.3, 0.34, 0.38, 0.42, 0.46], 5),
    "hopfield": Part(hopfield, list(itertools.product([(256, 5), (1024, 8)], (2.0, 4.0))), 2),
}


def verdicts(chain: list[dict], lattice: list[dict], hopfield: list[dict]) -> None:
    for title, rows in (("rings", chain), ("square lattices", lattice)):
        right = sum(row["bound"] == 1 + (row["time"] > THRESHOLD) for row in rows)
        claim(
            f"{title}: one bound state or two, as the known time is below or above the threshold",
            right == len(rows),
            f"{right} of {len(rows)}, {rows[0].get('n', 64)} spins",
        )
        within = sum(row["least"] <= 1 + (row["time"] > THRESHOLD) <= row["most"] for row in rows)
        claim(
            f"{title}: the interval of the count holds the number that the known time says",
            within == len(rows),
            f"{within} of {len(rows)}",
        )
    # A long run that is too short for its time tells none.
    apart = [
        abs(np.log(row["certified_time"] / row["time"]))
        for row in chain + lattice
        if np.isfinite(row["time"])
    ]
    claim(
        "certified relaxation times are within a fifth of the known ones, in the median",
        np.median(apart) < np.log(1.2),
        f"median factor {np.exp(np.median(apart)):.2f}, largest {np.exp(max(apart)):.2f}",
    )
    bound = sum(row["patterns_bound"] for row in hopfield)
    stored = sum(row["patterns"] for row in hopfield)
    claim(
        "Hopfield models: every stored pattern is found and proved",
        bound == stored,
        f"{bound} of {stored}, {min(r['n'] for r in hopfield)} spins and more",
    )


def draw(chain: list[dict], lattice: list[dict]) -> Figure:
    """Certified relaxation times against the known ones."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for title, rows, color in (("rings", chain, INK), ("lattice 8 x 8", lattice, ACCENT)):
            known, found = (np.array([row[k] for row in rows]) for k in ("time", "certified_time"))
            axes.loglog(known, found, "o", color=color, markersize=4, label=title)
        ends = np.array([1, 1000])
        axes.loglog(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        axes.axvline(THRESHOLD, color="0.8", linewidth=0.8)
        axes.axhline(THRESHOLD, color="0.8", linewidth=0.8)
        axes.set(xlabel="known relaxation time, sweeps", ylabel="certified")
        axes.set_title(f"one state below {THRESHOLD:g}, two above")
        axes.legend()
    return figure


def main(
    parts: tuple[str, ...] = tuple(PARTS),
    /,
    quick: bool = False,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    some = {name: PARTS[name].cases[: PARTS[name].n_quick if quick else None] for name in parts}
    own = {name: task.part(cases) for name, cases in some.items()}
    rows = {}
    for name in parts:
        print(f"{name}:")
        rows[name] = PARTS[name].judge(own[name], quick)
        table(out / f"known_times_{name}.csv", rows[name])
    if task.count == 1 and rows.keys() == PARTS.keys():
        verdicts(**rows)
        save(out / "known_times.png", draw(rows["chain"], rows["lattice"]))
