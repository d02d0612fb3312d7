"""Do the 95 % intervals of weights of bound states hold the exact weights?

- `exact`: models of 10 and 12 spins that are not ergodic: the families of `truth.py`, those of
  unequal states where they first break (`ergodicity.py`), magnets in a field, restricted Boltzmann
  machines, 3-regular glasses and planted states. The truth are the weights of
  `tg.exact.metastable_sets`. Weights are sampled by default settings.
  Models of one row, whose weight is 1, and those whose certified sets are not the exact ones are
  counted and left out. Clear models have no relaxation time within a factor 2 of the threshold:
  in the others some configurations belong to either set, and the certificate may take them for
  those of another one than the spectrum does.
- `blur`: by how much the boundaries that descents draw move the weights of the same models, if
  every configuration counts with its exact weight: the part that intervals leave out.
- `large`: models of 48 and 64 spins; intervals of default settings against those of ten times as
  many replicas, and both against parallel tempering.

In practice: what share of a model's answers comes from one state is a number with an error bar,
even where no chain ever leaves it. In small models whose minima are all known exp(-beta F) is a
fair guess and costs nothing; but it does not say how far it is off, and the sampled weight does.

Tasks of an array share the models of each part; weights_*.csv hold a row for each.

    python -m experiments weights [exact] [blur] [large] [--quick] [--out DIR]
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import networkx as nx
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments import ergodicity, truth
from experiments._shared import ACCENT, INK, STYLE, claim, save, table
from thermogen import kinetics
from thermogen._tasks import Task

THRESHOLD = truth.THRESHOLD
N_MODELS = 10  # of each family, at each beta
QUICK = {"parts": ("exact",), "quick": True}


def magnet(rng: np.random.Generator, n: int) -> tg.Pairwise:
    """Everybody coupled to everybody, in a small field, and fields that differ."""
    fields = rng.uniform(0, 0.06) + 0.02 * rng.normal(size=n)
    return tg.Pairwise((1 - np.eye(n)) / n, fields)


def machine(rng: np.random.Generator, n: int) -> tg.RBM:
    n_hidden = n // 2
    weights = rng.normal(size=(n - n_hidden, n_hidden)) / np.sqrt(n / 2)
    return tg.RBM(weights, 0.1 * rng.normal(size=n - n_hidden), 0.1 * rng.normal(size=n_hidden))


def sparse(rng: np.random.Generator, n: int) -> tg.Pairwise:
    """Gaussian bonds of a random 3-regular graph, in weak fields."""
    graph = nx.random_regular_graph(3, n, seed=int(rng.integers(2**31)))
    upper = np.triu(rng.normal(size=(n, n)), 1) * nx.to_numpy_array(graph)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=n))


def planted(rng: np.random.Generator, n: int) -> tg.Pairwise:
    """A state in a glass, by a coupling of a few bits more to its pattern."""
    pattern = rng.choice([-1.0, 1.0], size=n)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    couplings = upper + upper.T + 0.8 * np.outer(pattern, pattern) * (1 - np.eye(n)) / n
    return tg.Pairwise(couplings, 0.1 * rng.normal(size=n))


FAMILIES = {
    **truth.FAMILIES,
    "magnet": truth.Family(magnet, 10, (1.5, 2, 3), 0),
    "machine 12": truth.Family(machine, 12, (1.5, 2, 3), 0),
    "3-regular, fields": truth.Family(sparse, 10, (1.5, 2, 3), 0),
    "planted glass": truth.Family(planted, 10, (2, 3, 4), 0),
}


class Model(NamedTuple):
    family: str
    energy: tg.AbstractMultilinear
    beta: float


def small_models(quick: bool) -> Iterator[Model]:
    for index, (name, family) in enumerate(FAMILIES.items()):
        if quick and family.n > 10:
            continue
        for beta in family.betas:
            for seed in range(1 if quick else N_MODELS):
                rng = np.random.default_rng([index, int(10 * beta), seed])
                yield Model(name, family.make(rng, family.n), beta)
    for title, energy, beta in sorted(ergodicity.onset_models(), key=lambda model: model[0]):
        yield Model(title.split(",")[0], energy, beta)


class Judged(NamedTuple):
    """Weights of one model, by rows, and whether no relaxation time is near the threshold."""

    model: Model
    found: tg.BoundStates
    exact: np.ndarray
    clear: bool
    number: int  # within its family


# Models with their numbers, which choose the keys.
Numbered = Iterable[tuple[int, Model]]


def small(quick: bool) -> Numbered:
    """Numbered within each family."""
    for _, models in itertools.groupby(small_models(quick), key=lambda model: model.family):
        yield from enumerate(models)


def judged(models: Numbered) -> Iterator[tuple[str, list[Judged]]]:
    """What can be judged, by family."""
    for family, some in itertools.groupby(models, key=lambda x: x[1].family):
        yield family, list(_judged(some))


def _judged(models: Numbered) -> Iterator[Judged]:
    ergodic = alone = other = 0
    for index, model in models:
        exact = tg.exact.metastable_sets(model.energy, model.beta, threshold=THRESHOLD)
        if len(exact.weights) == 1:
            ergodic += 1
            continue
        # A paramagnet beside ordered states is a candidate of a functional alone.
        functional = tg.NaiveMeanField() if model.family.startswith("gap") else None
        # One represented configuration of 1024 is found by nobody who is not told of it.
        minima = tg.exact.single_flip_minima(model.energy)
        found = tg.find_bound_states(
            model.energy,
            model.beta,
            key=jax.random.key(index),
            threshold=THRESHOLD,
            functional=functional,
            starts=tg.spins_from_index(minima, model.energy.n_spins),
            n_starts=96,
            n_populations=0,
        )
        known = ergodicity.exact_weights(found, exact)
        if known is None:
            other += 1
        elif len(found) == 1:
            alone += 1
        else:
            half = tg.exact.metastable_sets(model.energy, model.beta, threshold=THRESHOLD / 2)
            clear = not np.any(half.relaxation_times < 2 * THRESHOLD)
            yield Judged(model, found, known[found.sets], clear, index)
    if ergodic + alone + other:
        print(f"    left out: {ergodic} ergodic, {alone} of one row, {other} of other sets")


FIGURES = "answered", "covered", "rows", "width", "error", "by F"


def exact(own: Numbered) -> list[dict[str, Any]]:
    print(f"{'family':28}models answered  covered  rows  width  error  by F")
    rows = []
    for family, models in judged(own):
        some = []
        for one in models:
            key = jax.random.fold_in(jax.random.key(one.number), 0)
            figures = dict(zip(FIGURES, _figures(one, key), strict=True))
            some.append(titled(one) | {"clear": one.clear} | figures)
        print(line(family, some), flush=True)
        rows += some
    print(line("all", rows))
    print(line("of these clear", [row for row in rows if row["clear"]]))
    return rows


def titled(one: Judged) -> dict[str, Any]:
    return {"family": one.model.family, "beta": one.model.beta, "number": one.number}


def _figures(one: Judged, key: jax.Array) -> list[float]:
    """One row of the table; a miss is printed."""
    model, found, known, clear, _ = one
    sampled = kinetics.weights(model.energy, model.beta, found, key=key)
    low, high = sampled.intervals.T
    holds = (low - 1e-12 <= known) & (known <= high + 1e-12)
    if not holds.all():
        worst = np.argmax(np.maximum(low - known, known - high))
        print(
            f"    missed {np.sum(~holds)} of {len(known)}: {model.family}, beta "
            f"{model.beta:g}, {'clear' if clear else 'not clear'}: {known[worst]:.4g}, "
            f"sampled {sampled.values[worst]:.4g} ({low[worst]:.4g} to {high[worst]:.4g})"
        )
    errors = [0.5 * np.abs(x - known).sum() for x in (sampled.values, found.library_weights)]
    return [sampled.known, holds.mean(), len(known), np.mean(high - low), *errors]


def line(title: str, rows: list[dict[str, Any]]) -> str:
    """Models, share answered, coverage of these by model and by row, mean width and errors."""
    every = np.array([[row[name] for name in FIGURES] for row in rows], float)
    if len(every) == 0:
        return f"{title:28}{0:6}"
    given = every[every[:, 0] > 0]
    by_row = np.sum(given[:, 1] * given[:, 2]) / max(1, given[:, 2].sum())
    means = given[:, 1:].mean(axis=0) if len(given) else np.full(5, np.nan)
    return (
        f"{title:28}{len(every):6}{every[:, 0].mean():9.0%}{means[0]:9.1%}{by_row:7.1%}"
        f"{means[2]:7.3f}{means[3]:7.3f}{means[4]:6.3f}"
    )


def blur(own: Numbered) -> list[dict[str, Any]]:
    rows = []
    for family, models in judged(own):
        some = [titled(one) | {"moved": _moved(one)} for one in models]
        rows += some
        print_moved(f"{family:28}{len(some):4}", some)
    print_moved("all", rows)
    return rows


def print_moved(title: str, rows: list[dict[str, Any]]) -> None:
    moved = [row["moved"] for row in rows]
    if moved:
        print(f"{title}: mean {np.mean(moved):.4f}, largest {max(moved):.4f}")


def _moved(one: Judged) -> float:
    """The weight that descents give to others than the exact boundaries do."""
    model, found, known, *_ = one
    spins = np.asarray(tg.enumerate_spins(model.energy.n_spins))
    p = np.asarray(tg.exact.probabilities(model.energy, model.beta))
    rows, _ = kinetics.attribute(model.energy, found, spins)
    return float(0.5 * np.abs(np.bincount(rows, p, len(known)) - known).sum())


def large_models(quick: bool) -> Numbered:
    return enumerate(itertools.islice(_large_models(), 1 if quick else None))


def _large_models() -> Iterator[Model]:
    for title, energy, beta in ergodicity.large_models():
        yield Model(title, energy, beta)
    rng = np.random.default_rng(4)
    yield Model("3-regular 64, beta 1.5", sparse(rng, 64), 1.5)


def large(own: Numbered) -> list[dict[str, Any]]:
    rows = []
    for index, (title, energy, beta) in own:
        key = jax.random.key(index)
        options = {"capacity": 64, "n_starts": 256, "n_trajectories": 64}
        found = tg.find_bound_states(energy, beta, key=key, threshold=THRESHOLD, **options)
        longer = kinetics.weights(energy, beta, found, key=key, n_chains=10 * 128)
        tempered = ergodicity.tempered_weights(found, energy, beta, key)[found.sets]
        agree = overlap(found.weight_intervals, longer.intervals)
        low, high = found.weight_intervals.T
        holds = np.mean((low <= longer.values) & (longer.values <= high))
        distances = [0.5 * np.abs(x - tempered).sum() for x in (found.weights, longer.values)]
        width = np.max(high - low)
        print(
            f"{title:28}{len(found):4} rows: known {found.weighed}, {longer.known}; intervals "
            f"overlap in {agree:.0%}, hold the longer run in {holds:.0%}; width {width:.3f}; from "
            f"tempering {distances[0]:.3f}, {distances[1]:.3f}",
            flush=True,
        )
        case = {"model": title, "rows": len(found), "known": found.weighed}
        case |= {"known_longer": longer.known, "overlap": agree, "held": holds, "width": width}
        rows.append(case | {"distance": distances[0], "distance_longer": distances[1]})
    return rows


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a[:, 0] <= b[:, 1]) & (b[:, 0] <= a[:, 1])))


Part = Callable[[Numbered], list[dict[str, Any]]]
# Each part, and its models.
PARTS: dict[str, tuple[Part, Callable[[bool], Numbered]]] = {
    "exact": (exact, small),
    "blur": (blur, small),
    "large": (large, large_models),
}


def verdicts(rows: list[dict[str, Any]]) -> None:
    answered = [row for row in rows if row["answered"]]
    claim(
        "every model gets an answer",
        len(answered) == len(rows),
        f"{len(answered)} of {len(rows)} models that are not ergodic",
    )
    numbers = np.array([row["rows"] for row in answered])
    held = np.array([row["covered"] for row in answered]) @ numbers / numbers.sum()
    claim(
        "90 to 99 % of the intervals, stated at 95 %, hold the exact weight of their state",
        0.9 <= held <= 0.99,
        f"{held:.1%} of {numbers.sum()} states",
    )
    sampled, by_f = (np.mean([row[name] for row in answered]) for name in ("error", "by F"))
    claim(
        "sampled weights are nearer to the exact ones than exp(-beta F) of mean field",
        sampled < by_f,
        f"total variation {sampled:.3f} against {by_f:.3f} on average",
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Errors of sampled weights against those of mean field."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        sampled, by_f = (np.array([row[name] for row in rows]) for name in ("error", "by F"))
        axes.plot(by_f, sampled, "o", color=INK, markersize=4, alpha=0.6)
        ends = np.array([0, max(by_f.max(), sampled.max())])
        axes.plot(ends, ends, color=ACCENT, linewidth=0.8)
        axes.set(xlabel="error of exp(-beta F)", ylabel="error of sampled weights")
        axes.set_title("total variation from the exact weights")
    return figure


def main(
    parts: tuple[str, ...] = tuple(PARTS),
    /,
    quick: bool = False,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    own = {name: task.part(PARTS[name][1](quick)) for name in parts}
    for name in parts:
        print(f"{name}:")
        rows = PARTS[name][0](own[name])
        table(out / f"weights_{name}.csv", rows)
        if name == "exact" and task.count == 1:
            verdicts(rows)
            save(out / "weights.png", draw(rows))
