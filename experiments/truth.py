"""Is a certified bound state one? Their number against the spectrum of the heat bath, 1000 times.

Random models of 10 and 12 spins: Hopfield with two to four patterns, SK without and with fields,
3-spin interactions, addition tables of three bits with random weights, complete and truncated;
machines of two layers, random graphs of degree 3, parities with a planted solution;
and represented states behind a gap near the temperature at which they coexist with all the
others, the high-temperature phase. The truth is the transition matrix of random-site heat-bath
dynamics: one plus its relaxation times above tau* = 20 sweeps, and the metastable sets of its
leading eigenvectors. Against it stand:

- the minima of naive mean field, TAP and E (single flips), as they are;
- the bound states that they reach: sets of the certified union that hold one of them;
- what `certify` makes of the minima of naive mean field alone, and of the union of all, whose
  representatives must moreover fall into the exact sets one to one.

TAP of tables is left out, since it compiles for more than a minute; so are Bethe and adaptive TAP,
whose searches cost more than all the rest. Models with a relaxation time within a factor 2 of tau*
are listed apart: there the count hangs on a decimal, and what is judged is whether it lies in
`n_bound_interval`. Seeds are drawn until a family has its number of clear models; of the others one
in three is looked at. Every disagreement of the certified union is printed with its spectrum and
its candidates.

Families of one form of energy share their compiled programs, and one process: two run side by side.
Once these are compiled a search takes a few milliseconds, so that nothing is gained by mapping it.
Tasks of an array draw the same models, look at all spectra and share the rest; truth.csv holds a
row for each model.

In practice: do not count what an optimiser returns. Minima of a free energy, of E, or of a loss are
candidates: some are artefacts of the approximation, some are left at once, some are one state in
several pieces. Give them to `certify`, which asks the dynamics that you sample with.

    python -m experiments truth [families] [--quick] [--out DIR]
"""

import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
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
QUICK = {
    "families": ("Hopfield", "SK", "SK, fields", "3-regular", "adder", "gap, 1 state"),
    "quick": True,
}
FUNCTIONALS = {
    "naive": tg.NaiveMeanField(),
    "TAP": tg.TAP(),
}
RAW = (*FUNCTIONALS, "flips")
CERTIFIED = ("naive", "union")
# Of those models that are not clear one in so many is looked at.
_SHARE_OF_UNCLEAR = 3


def hopfield(rng: np.random.Generator, n: int) -> tg.Pairwise:
    patterns = rng.choice([-1.0, 1.0], size=(rng.integers(2, 5), n))
    couplings = patterns.T @ patterns / n
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, np.zeros(n))


def sk(rng: np.random.Generator, n: int, fields: float = 0.0) -> tg.Pairwise:
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, fields * rng.normal(size=n))


def three_spin(rng: np.random.Generator, n: int) -> tg.Interactions:
    """Gaussian couplings of all triples; variance of E: n/2."""
    triples = np.array(list(itertools.combinations(range(n), 3)))
    width = np.sqrt(0.5 * n / len(triples))
    return tg.Interactions(n, [triples], [width * rng.normal(size=len(triples))])


def adder(rng: np.random.Generator, n: int, max_degree: int | None = None) -> tg.Complete:
    """Rows of a + b = c with random weights; all other configurations behind a gap."""
    rows = tg.datasets.adder((n - 1) // 3)
    data = np.repeat(rows, rng.integers(1, 6, size=len(rows)), axis=0)
    table = tg.Complete.from_data(data, temperature=0.5, gap_per_spin=rng.uniform(0.2, 0.4))
    return table if max_degree is None else tg.energies.complete(table.truncate(max_degree))


def gapped(rng: np.random.Generator, n: int, n_represented: int) -> tg.Complete:
    """Represented configurations at 0, all others at a gap; coexistence at beta = 1."""
    table = np.full(2**n, np.log(2**n / n_represented - 1))
    table[rng.choice(2**n, n_represented, replace=False)] = 0
    return tg.Complete.from_energies(table)


def machine(rng: np.random.Generator, n: int) -> tg.RBM:
    weights = rng.normal(size=(n - n // 2, n // 2)) * 2 / np.sqrt(n)
    return tg.RBM(weights, *(0.2 * rng.normal(size=k) for k in weights.shape))


def regular(rng: np.random.Generator, n: int) -> tg.Pairwise:
    """Gaussian couplings on a random graph of degree 3."""
    graph = networkx.random_regular_graph(3, n, seed=int(rng.integers(2**31)))
    couplings = np.zeros((n, n))
    for i, j in graph.edges:
        couplings[i, j] = couplings[j, i] = rng.normal()
    return tg.Pairwise(couplings, np.zeros(n))


def planted(rng: np.random.Generator, n: int) -> tg.Interactions:
    """Parities of 2n random triples, all of which one hidden configuration satisfies."""
    triples = np.array(list(itertools.combinations(range(n), 3)))
    hidden = rng.choice([-1.0, 1.0], size=n)
    drawn = rng.permutation(len(triples)) < 2 * n
    return tg.Interactions(n, [triples], [np.where(drawn, hidden[triples].prod(axis=1), 0)])


class Family(NamedTuple):
    make: Callable[..., tg.AbstractMultilinear]
    n: int
    betas: tuple[float, ...]
    n_clear: int  # models to be judged, at all beta together


FAMILIES = {
    "Hopfield": Family(hopfield, 10, (1, 2, 3, 5), 120),
    "SK": Family(sk, 10, (1, 2, 3, 5), 120),
    "SK, fields": Family(functools.partial(sk, fields=0.3), 10, (1, 2, 3, 5), 110),
    "3-spin": Family(three_spin, 10, (0.5, 0.75, 4, 6), 100),
    "adder": Family(adder, 10, (0.5, 1, 2, 3), 35),
    "adder, degree 4": Family(functools.partial(adder, max_degree=4), 10, (1, 2, 3, 8), 35),
    "Hopfield 12": Family(hopfield, 12, (2, 4), 50),
    "SK 12": Family(sk, 12, (2, 4), 50),
    "gap, 1 state": Family(functools.partial(gapped, n_represented=1), 10, (1, 1.1, 1.2), 12),
    "gap, 4 states": Family(functools.partial(gapped, n_represented=4), 12, (1, 1.1, 1.2), 28),
    "machine": Family(machine, 10, (1, 2, 3, 5), 135),
    "3-regular": Family(regular, 10, (1, 2, 3, 5), 120),
    "planted": Family(planted, 10, (0.5, 3, 5), 85),
}
# Those of one process; the others take about as long.
OF_TWO_SPINS = ("Hopfield", "SK", "SK, fields", "Hopfield 12", "SK 12", "3-regular")


class Case(NamedTuple):
    family: str
    beta: float
    times: np.ndarray  # exact relaxation times above half of the threshold, in sweeps
    raw: dict[str, int]  # number of minima, mirror images counted
    reached: dict[str, int]  # certified bound states that hold one of them
    counts: dict[str, int]  # certified bound states
    matched: bool  # representatives of the union and exact sets, one to one
    certificate: tg.Certificate
    name: str

    @property
    def truth(self) -> int:
        return n_sets(self.times)

    @property
    def clear(self) -> bool:
        return is_clear(self.times)

    @property
    def agrees(self) -> bool:
        return self.counts["union"] == self.truth and self.matched

    @property
    def within(self) -> bool:
        low, high = self.certificate.n_bound_interval or (0, 0)
        return low <= self.truth <= high


def n_sets(times: np.ndarray) -> int:
    return 1 + int(np.sum(times > THRESHOLD))


def is_clear(times: np.ndarray) -> bool:
    return not np.any(times < 2 * THRESHOLD)


def minima(name: str, energy, beta: float, key: jax.Array) -> tg.Library | None:
    """Minima of a functional, None where it does not apply."""
    # TAP of tables compiles for more than a minute.
    if name == "TAP" and isinstance(energy, tg.Complete):
        return None
    return tg.find_minima(FUNCTIONALS[name], energy, beta, key=key, n_starts=96)


def certified(candidates, energy, beta: float, key: jax.Array) -> tg.Certificate | None:
    # Longer trajectories tell escape times more sharply, but count the same sets.
    options = {"threshold": THRESHOLD, "horizon": 3}
    return tg.certify(energy, beta, candidates, key=key, **options) if len(candidates) else None


class Model(NamedTuple):
    """A model with its exact relaxation times above half of the threshold, and exact sets."""

    family: str
    energy: tg.AbstractMultilinear
    beta: float
    seed: int
    times: np.ndarray
    exact: tg.exact.MetastableSets


def drawn(name: str, family: Family, beta: float, seed: int) -> Model:
    rng = np.random.default_rng([*name.encode(), int(10 * beta), seed])
    return solved(name, family.make(rng, family.n), beta, seed)


def solved(name: str, energy: tg.AbstractMultilinear, beta: float, seed: int) -> Model:
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD / 2)
    times = exact.relaxation_times
    if len(exact.weights) > n_sets(times):
        exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    return Model(name, energy, beta, seed, times, exact)


def study(model: Model) -> Case:
    name, energy, beta, seed, times, exact = model
    key = jax.random.key(seed)
    found = {k: minima(k, energy, beta, key) for k in FUNCTIONALS}
    states = {k: x.expanded().magnetizations for k, x in found.items() if x is not None}
    states["flips"] = tg.kinetics.flip_minima(energy, tg.enumerate_spins(energy.n_spins))
    union, owner = (
        np.concatenate(list(states.values())),
        np.repeat(list(states), [len(x) for x in states.values()]),
    )
    final = tg.certify(energy, beta, union, key=key, threshold=THRESHOLD, horizon=3)
    alone = certified(found["naive"], energy, beta, key)
    sets = [exact_set(exact, union[k], final, k) for k in np.flatnonzero(final.bound)]
    return Case(
        name,
        beta,
        times,
        {k: len(x) for k, x in states.items()},
        {k: len(np.unique(final.group[owner == k])) for k in states},
        {"naive": 0 if alone is None else alone.n_bound, "union": final.n_bound},
        len(np.unique(sets)) == len(sets) == len(exact.weights),
        final,
        f"{name}, beta = {beta:g}, seed {seed}",
    )


def exact_set(exact: tg.exact.MetastableSets, m: np.ndarray, final: tg.Certificate, k: int) -> int:
    """The exact set of the core of candidate k, or of most of its draws if it has no core."""
    if not final.disordered[k]:
        return exact.labels[int(tg.index_from_spins(final.cores[k]))]
    draws = np.prod((1 + m * np.asarray(tg.enumerate_spins(len(m)))) / 2, axis=1)
    return int(np.argmax(np.bincount(exact.labels, draws)))


def line(title: str, cases: list[Case]) -> str:
    """Numbers of agreements among the models whose count is clear; a dash: does not apply."""
    clear = [c for c in cases if c.clear]

    def agreements(of: str, counts: str) -> str:
        known = [c for c in clear if of in getattr(c, counts)]
        return str(sum(getattr(c, counts)[of] == c.truth for c in known)) if known else "-"

    columns = [agreements(k, kind) for kind, names in COLUMNS.items() for k in names]
    figures = [len(cases), len(clear), *columns, sum(c.agrees for c in clear)]
    return f"{title:26}" + "".join(f"{x:>11}" for x in figures)


COLUMNS = {"raw": RAW, "reached": RAW, "counts": CERTIFIED}


def explain(case: Case) -> None:
    near = ", ".join(f"{t:.3g}" for t in case.times)
    print(f"\n{case.name}: {case.truth} states, exact relaxation times above 10: {near or 'none'}")
    print(f"  raw {case.raw}, certified {case.counts}, sets matched: {case.matched}")
    times = case.certificate.relaxation_times
    print("  relaxation times by certify: " + ", ".join(f"{t:.3g}" for t in times[:12]))
    for k in np.flatnonzero(case.certificate.bound):
        print(f"  {k}: {case.certificate.reason(k)}")


def heads() -> str:
    names = [*RAW, *(f"({k})" for k in RAW), *(f"[{k}]" for k in CERTIFIED)]
    title = f"tau* = {THRESHOLD:g} sweeps; of the clear models, how many agree with the spectrum"
    row = "".join(f"{x:>11}" for x in ("models", "clear", *names, "match"))
    return f"{title}\n{'':26}{row}    (k): certified states that k reaches, [k]: certified"


def report(cases: list[Case]) -> None:
    print(line("all", cases))
    clear = [c for c in cases if c.clear]
    apart = [c for c in cases if not c.clear]
    for kind, names in COLUMNS.items():
        for k in names:
            excess = [getattr(c, kind)[k] - c.truth for c in clear if k in getattr(c, kind)]
            over, right, under = (int(np.sum(np.sign(excess) == x)) for x in (1, 0, -1))
            title = {"counts": "certified"}.get(kind, kind)
            print(f"{title} {k}: right {right}, too many {over}, too few {under} of {len(excess)}")
    share = np.mean([c.agrees for c in clear])
    print(f"certified union agrees, sets included, in {share:.1%} of {len(clear)} clear models")
    print(f"and in {sum(c.agrees for c in apart)} of {len(apart)} with a time within a factor 2")
    for title, some in (("clear", clear), ("other", apart)):
        alone = np.mean([c.certificate.n_bound_interval == (c.truth,) * 2 for c in some])
        print(
            f"the interval of the count holds it in {np.mean([c.within for c in some]):.1%} of "
            f"{len(some)} {title} models, and nothing else in {alone:.1%}"
        )
    print("\nDisagreements among clear models" + ("" if share < 1 else ": none"))
    for case in (c for c in clear if not c.agrees):
        explain(case)
    print("\nApart: a relaxation time within a factor 2 of tau*")
    for case in (c for c in apart if not c.agrees):
        times = ", ".join(f"{t:.3g}" for t in case.times if t < 2 * THRESHOLD)
        print(
            f"{case.name}: {times}: {case.truth} states, certified {case.counts['union']}, "
            f"{case.certificate.count}"
        )


def judged(names: tuple[str, ...], quick: bool, task: Task) -> list[Case]:
    """Cases of some families, one after the other; a line is printed for each beta."""
    jax.config.update("jax_enable_x64", True)
    cases: list[Case] = []
    own = task.part(m for name in names for m in models(name, quick))
    for name in names:
        some = [study(m) for m in own if m.family == name]
        for beta in FAMILIES[name].betas:
            print(line(f"{name}, beta = {beta:g}", [c for c in some if c.beta == beta]), flush=True)
        cases += some
    print(f"{len(cases)} models in {time.process_time():.0f} s of a processor", flush=True)
    return cases


def models(name: str, quick: bool) -> Iterator[Model]:
    """Until enough are clear, at each beta in turn; of the others one in a few."""
    family, n_clear, n_others = FAMILIES[name], 0, 0
    for seed in range(1) if quick else itertools.count():
        for beta in family.betas:
            model = drawn(name, family, beta, seed)
            clear = is_clear(model.times)
            n_clear, n_others = n_clear + clear, n_others + (not clear)
            if clear or quick or n_others % _SHARE_OF_UNCLEAR == 1:
                yield model
            if n_clear == family.n_clear:
                return


def row_of(case: Case) -> dict[str, Any]:
    counts = {
        f"{kind} {k}": getattr(case, kind).get(k, "") for kind in COLUMNS for k in COLUMNS[kind]
    }
    judgement = {"matched": case.matched, "clear": case.clear, "within": case.within}
    return {"model": case.name, "truth": case.truth, **counts, **judgement}


def off(cases: list[Case], kind: str, name: str) -> np.ndarray:
    """Counts less the truth, where there is a count."""
    counts = [getattr(c, kind)[name] - c.truth for c in cases if name in getattr(c, kind)]
    return np.array(counts)


def verdicts(cases: list[Case], clear: list[Case]) -> None:
    agree = sum(c.agrees for c in clear)
    claim(
        "certified bound states are the slow sets of the spectrum, one to one, in all clear models",
        agree == len(clear),
        f"{agree} of {len(clear)}",
    )
    within = sum(c.within for c in cases)
    claim(
        "the interval of the count holds the exact one in 95 % of all models",
        within >= 0.95 * len(cases),
        f"{within} of {len(cases)}",
    )
    right = {name: np.mean(off(clear, "raw", name) == 0) for name in RAW}
    claim(
        "minima alone count wrongly more often than rightly, whatever is minimised",
        max(right.values()) < 0.5,
        "right: " + ", ".join(f"{name} {share:.0%}" for name, share in right.items()),
    )


def draw(clear: list[Case]) -> Figure:
    """How many minima, and how many certified states, there are too many or too few."""
    counts = {f"minima: {name}": ("raw", name) for name in RAW}
    counts["certified"] = ("counts", "union")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        axes = figure.subplots(1, len(counts), sharey=True)
        for ax, (title, (kind, name)) in zip(axes, counts.items(), strict=True):
            apart = np.clip(off(clear, kind, name), -5, 5)
            numbers, places = np.histogram(apart, np.arange(-5.5, 6))
            color = INK if kind == "counts" else ACCENT
            ax.bar(0.5 * (places[1:] + places[:-1]), numbers, color=color)
            ax.set_title(title)
            ax.set(xlabel="count less the truth", xticks=[-5, 0, 5])
            ax.set_xticklabels(["≤ -5", "0", "≥ 5"])
        axes[0].set_ylabel("models")
    return figure


def main(
    families: tuple[str, ...] = tuple(FAMILIES),
    /,
    quick: bool = False,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    """All models, or one model at each beta."""
    print(heads(), flush=True)
    parts = [tuple(k for k in families if (k in OF_TWO_SPINS) == kind) for kind in (True, False)]
    parts = [part for part in parts if part]
    # One thread each: two processes of two threads wait for each other.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Processes that begin anew: one that is forked inherits the threads of JAX, but not their work.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        found = pool.map(judged, parts, [quick] * len(parts), [task] * len(parts))
    cases = [case for some in found for case in some]
    table(out / "truth.csv", [row_of(case) for case in cases])
    report(cases)
    clear = [case for case in cases if case.clear]
    if task.count == 1 and clear:
        verdicts(cases, clear)
        save(out / "truth.png", draw(clear))
