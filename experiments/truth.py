"""Is a certified bound state one? Their number against the spectrum of the heat bath.

Random models of 10 and 12 spins: Hopfield with two to four patterns, SK without and with fields,
3-spin interactions, addition tables of three bits with random weights, complete and truncated;
machines of two layers, random graphs of degree 3, parities with a planted solution;
and represented states behind a gap near the temperature at which they coexist with all the
others, the high-temperature phase. The truth is the transition matrix of random-site heat-bath
dynamics: one plus its relaxation times above tau* = 20 sweeps, and the metastable sets of its
leading eigenvectors. Against it stand the raw minima of naive mean field, TAP, Bethe, adaptive
TAP and E (single flips), and what `certify` leaves of them; and the certified union of all, for
which the representatives must moreover fall into the exact sets one to one. Bethe needs a list
of interactions and adaptive TAP pairs: where they do not apply they have no part in the union.
Models with a relaxation time within a factor 2 of tau* are listed apart: there the count hangs
on a decimal. Every disagreement of the certified union is printed with its spectrum and its
candidates.

The search owns its batch axis, so that models are not vmapped; they are arguments of the compiled
programs, which all models of a family share.

    python -m experiments truth [--quick]
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import networkx
import numpy as np

import thermogen as tg

THRESHOLD = 20.0
FUNCTIONALS = {
    "naive": tg.NaiveMeanField(),
    "TAP": tg.TAP(),
    "Bethe": tg.Bethe(),
    "adaptive": tg.AdaptiveTAP(),
}
RAW = (*FUNCTIONALS, "flips")
CERTIFIED = (*RAW, "union")


def random_fields(rng: np.random.Generator, n: int, scale: float) -> np.ndarray:
    return scale * rng.normal(size=n)


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
    n_models: int  # at each beta


FAMILIES = {
    "Hopfield": Family(hopfield, 10, (1, 2, 3, 5), 12),
    "SK": Family(sk, 10, (1, 2, 3, 5), 12),
    "SK, fields": Family(functools.partial(sk, fields=0.3), 10, (1, 2, 3, 5), 8),
    "3-spin": Family(three_spin, 10, (0.5, 0.75, 4, 6), 10),
    "adder": Family(adder, 10, (0.5, 1, 2, 3), 6),
    "adder, degree 4": Family(functools.partial(adder, max_degree=4), 10, (1, 2, 3, 8), 6),
    "Hopfield 12": Family(hopfield, 12, (2, 4), 5),
    "SK 12": Family(sk, 12, (2, 4), 5),
    "gap, 1 state": Family(functools.partial(gapped, n_represented=1), 10, (1, 1.1, 1.2), 2),
    "gap, 4 states": Family(functools.partial(gapped, n_represented=4), 12, (1, 1.1, 1.2), 2),
    "machine": Family(machine, 10, (1, 2, 3, 5), 8),
    "3-regular": Family(regular, 10, (1, 2, 3, 5), 8),
    "planted": Family(planted, 10, (0.5, 0.75, 1, 2), 8),
}


class Case(NamedTuple):
    family: str
    beta: float
    times: np.ndarray  # exact relaxation times above half of the threshold, in sweeps
    raw: dict[str, int]  # number of minima, mirror images counted
    counts: dict[str, int]  # certified bound states
    matched: bool  # representatives of the union and exact sets, one to one
    certificate: tg.Certificate
    name: str

    @property
    def truth(self) -> int:
        return 1 + int(np.sum(self.times > THRESHOLD))

    @property
    def clear(self) -> bool:
        return not np.any(self.times < 2 * THRESHOLD)

    @property
    def agrees(self) -> bool:
        return self.counts["union"] == self.truth and self.matched


def minima(name: str, energy, beta: float, key: jax.Array) -> tg.Library | None:
    """Minima of a functional, None where it does not apply."""
    # Bethe solves an equation for each of the 120 factors of a 3-spin model at every step.
    slow = name == "Bethe" and isinstance(energy, tg.Interactions)
    n_starts = 16 if slow else 96
    try:
        return tg.find_minima(FUNCTIONALS[name], energy, beta, key=key, n_starts=n_starts)
    except TypeError:
        return None


def expanded(library: tg.Library) -> np.ndarray:
    return library.expanded().magnetizations


def certified(candidates, energy, beta: float, key: jax.Array) -> tg.Certificate | None:
    empty = len(candidates) == 0
    return None if empty else tg.certify(energy, beta, candidates, key=key, threshold=THRESHOLD)


def study(name: str, family: Family, beta: float, seed: int) -> Case:
    rng = np.random.default_rng([list(FAMILIES).index(name), int(10 * beta), seed])
    energy, key = family.make(rng, family.n), jax.random.key(seed)
    times = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD / 2).relaxation_times
    exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD)
    found = {k: minima(k, energy, beta, key) for k in FUNCTIONALS}
    libraries = {k: x for k, x in found.items() if x is not None}
    flips = np.asarray(tg.spins_from_index(tg.exact.single_flip_minima(energy), family.n))
    union = np.concatenate([flips, *map(expanded, libraries.values())])
    candidates = {**libraries, "flips": flips, "union": union}
    certificates = {k: certified(x, energy, beta, key) for k, x in candidates.items()}
    final = certificates["union"]
    sets = [exact_set(exact, union[k], final, k) for k in np.flatnonzero(final.bound)]
    return Case(
        name,
        beta,
        times,
        {k: len(expanded(x)) for k, x in libraries.items()} | {"flips": len(flips)},
        {k: 0 if c is None else c.n_bound for k, c in certificates.items()},
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

    raw = [agreements(k, "raw") for k in RAW]
    counts = [agreements(k, "counts") for k in CERTIFIED]
    figures = [len(cases), len(clear), *raw, *counts, sum(c.agrees for c in clear)]
    return f"{title:26}" + "".join(f"{x:>11}" for x in figures)


def explain(case: Case) -> None:
    near = ", ".join(f"{t:.3g}" for t in case.times)
    print(f"\n{case.name}: {case.truth} states, exact relaxation times above 10: {near or 'none'}")
    print(f"  raw {case.raw}, certified {case.counts}, sets matched: {case.matched}")
    times = case.certificate.relaxation_times
    print("  relaxation times by certify: " + ", ".join(f"{t:.3g}" for t in times[:12]))
    for k in np.flatnonzero(case.certificate.bound):
        print(f"  {k}: {case.certificate.reason(k)}")


def heads() -> str:
    names = ["models", "clear", *RAW, *(f"[{k}]" for k in CERTIFIED), "match"]
    title = f"tau* = {THRESHOLD:g} sweeps; of the clear models, how many agree with the spectrum"
    return f"{title}\n{'':26}" + "".join(f"{x:>11}" for x in names) + "    [k]: certified"


def report(cases: list[Case]) -> None:
    print(line("all", cases))
    clear = [c for c in cases if c.clear]
    apart = [c for c in cases if not c.clear]
    for kind, names in (("raw", RAW), ("counts", CERTIFIED)):
        for k in names:
            excess = [getattr(c, kind)[k] - c.truth for c in clear if k in getattr(c, kind)]
            over, right, under = (int(np.sum(np.sign(excess) == x)) for x in (1, 0, -1))
            title = "certified" if kind == "counts" else kind
            print(f"{title} {k}: right {right}, too many {over}, too few {under} of {len(excess)}")
    share = np.mean([c.agrees for c in clear])
    print(f"certified union agrees, sets included, in {share:.1%} of {len(clear)} clear models")
    print(f"and in {sum(c.agrees for c in apart)} of {len(apart)} with a time within a factor 2")
    print("\nDisagreements among clear models" + ("" if share < 1 else ": none"))
    for case in (c for c in clear if not c.agrees):
        explain(case)
    print("\nApart: a relaxation time within a factor 2 of tau*")
    for case in apart:
        times = ", ".join(f"{t:.3g}" for t in case.times if t < 2 * THRESHOLD)
        verdict = "agrees" if case.agrees else f"certified {case.counts['union']}"
        print(f"{case.name}: {times}: {case.truth} states, {verdict}")


def main(quick: bool = False) -> None:
    """All models, or one model of ten spins each."""
    cases: list[Case] = []
    print(heads())
    for name, family in FAMILIES.items():
        if quick and family.n > 10:
            continue
        for beta in family.betas:
            seeds = range(1 if quick else family.n_models)
            some = [study(name, family, beta, seed) for seed in seeds]
            print(line(f"{name}, beta = {beta:g}", some), flush=True)
            cases += some
    report(cases)
