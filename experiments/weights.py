"""Do the 95 % intervals of weights of bound states hold the exact weights?

- `exact`: models of 10 and 12 spins that are not ergodic: the families of `truth.py`, those of
  unequal states where they first break (`ergodicity.py`), magnets in a field, restricted Boltzmann
  machines, 3-regular glasses and planted states. The truth are the weights of
  `tg.exact.metastable_sets`. Weights are sampled with `n_keys` keys each, by default settings.
  Models of one row, whose weight is 1, and those whose certified sets are not the exact ones are
  counted and left out. Clear models have no relaxation time within a factor 2 of the threshold:
  in the others some configurations belong to either set, and the certificate may take them for
  those of another one than the spectrum does.
- `blur`: by how much the boundaries that descents draw move the weights of the same models, if
  every configuration counts with its exact weight: the part that intervals leave out.
- `large`: models of 48 and 64 spins; intervals of default settings against those of ten times as
  many replicas, and both against parallel tempering.

    python -m experiments weights [exact] [blur] [large] [--quick]
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import networkx as nx
import numpy as np

import thermogen as tg
from experiments import ergodicity, truth
from thermogen import kinetics

THRESHOLD = truth.THRESHOLD
N_MODELS = 10  # of each family, at each beta


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


def judged(quick: bool) -> Iterator[tuple[str, list[Judged]]]:
    """What can be judged, by family."""
    for family, models in itertools.groupby(small_models(quick), key=lambda model: model.family):
        yield family, list(_judged(models))


def _judged(models: Iterable[Model]) -> Iterator[Judged]:
    ergodic = alone = other = 0
    for index, model in enumerate(models):
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
            yield Judged(model, found, known[found.sets], clear)
    if ergodic + alone + other:
        print(f"    left out: {ergodic} ergodic, {alone} of one row, {other} of other sets")


def exact(quick: bool, n_keys: int = 1) -> None:
    print("family                      models answered  covered  rows  width  error  by F")
    rows, clear_rows = [], []
    for family, models in judged(quick):
        own = []
        for index, one in enumerate(models):
            for k in range(n_keys):
                key = jax.random.fold_in(jax.random.key(index), k)
                own.append(_figures(one, key))
                clear_rows += own[-1:] if one.clear else []
        print(line(family, own, n_keys), flush=True)
        rows += own
    print(line("all", rows, n_keys))
    print(line("of these clear", clear_rows, n_keys))


def _figures(one: Judged, key: jax.Array) -> list[float]:
    """One row of the table; a miss is printed."""
    (model, found, known, clear) = one
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


def line(title: str, figures: list[list[float]], n_keys: int) -> str:
    """Models, share answered, coverage of these by model and by row, mean width and errors."""
    table = np.array(figures, float).reshape(-1, 6)
    if len(table) == 0:
        return f"{title:28}{0:6}"
    given = table[table[:, 0] > 0]
    by_row = np.sum(given[:, 1] * given[:, 2]) / max(1, given[:, 2].sum())
    means = given[:, 1:].mean(axis=0) if len(given) else np.full(5, np.nan)
    return (
        f"{title:28}{len(table) // n_keys:6}{table[:, 0].mean():9.0%}{means[0]:9.1%}{by_row:7.1%}"
        f"{means[2]:7.3f}{means[3]:7.3f}{means[4]:6.3f}"
    )


def blur(quick: bool) -> None:
    together = []
    for family, models in judged(quick):
        own = [_moved(one) for one in models]
        together += own
        if own:
            print(f"{family:28}{len(own):4}: mean {np.mean(own):.4f}, largest {max(own):.4f}")
    print(f"all: mean {np.mean(together):.4f}, largest {max(together):.4f}")


def _moved(one: Judged) -> float:
    """The weight that descents give to others than the exact boundaries do."""
    model, found, known, _ = one
    spins = np.asarray(tg.enumerate_spins(model.energy.n_spins))
    p = np.asarray(tg.exact.probabilities(model.energy, model.beta))
    rows, _ = kinetics.attribute(model.energy, found, spins)
    return float(0.5 * np.abs(np.bincount(rows, p, len(known)) - known).sum())


def large_models() -> Iterator[Model]:
    for title, energy, beta in ergodicity.large_models():
        yield Model(title, energy, beta)
    rng = np.random.default_rng(4)
    yield Model("3-regular 64, beta 1.5", sparse(rng, 64), 1.5)


def large(quick: bool) -> None:
    for index, (title, energy, beta) in enumerate(large_models()):
        key = jax.random.key(index)
        options = {"capacity": 64, "n_starts": 256, "n_trajectories": 64}
        found = tg.find_bound_states(energy, beta, key=key, threshold=THRESHOLD, **options)
        longer = kinetics.weights(energy, beta, found, key=key, n_chains=10 * 128)
        tempered = ergodicity.tempered_weights(found, energy, beta, key)[found.sets]
        agree = overlap(found.weight_intervals, longer.intervals)
        low, high = found.weight_intervals.T
        holds = np.mean((low <= longer.values) & (longer.values <= high))
        distances = [0.5 * np.abs(x - tempered).sum() for x in (found.weights, longer.values)]
        print(
            f"{title:28}{len(found):4} rows: known {found.weighed}, {longer.known}; intervals "
            f"overlap in {agree:.0%}, hold the longer run in {holds:.0%}; width "
            f"{np.max(high - low):.3f}; from tempering {distances[0]:.3f}, {distances[1]:.3f}",
            flush=True,
        )
        if quick:
            break


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a[:, 0] <= b[:, 1]) & (b[:, 0] <= a[:, 1])))


PARTS: dict[str, Callable[[bool], None]] = {"exact": exact, "blur": blur, "large": large}


def main(parts: tuple[str, ...] = tuple(PARTS), /, quick: bool = False) -> None:
    for name in parts:
        print(f"{name}:")
        PARTS[name](quick)
