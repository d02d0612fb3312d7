"""Where the weight of a metastable set comes from: three estimates against exact weights.

- `library`: `exp(-beta F)` of the candidates, summed over the set: minima of naive mean field, and
  single-flip minima with the free energy of independent flips;
- `rates`: the stationary distribution of the exchange rates of the certificate;
- `annealed`: the share of cooled replicas that descend to the set, which is what
  `tg.find_bound_states` takes (`weights.py` judges its intervals).

Small models (n = 10 and 12) are judged by `tg.exact.metastable_sets`: the families of `truth.py` in
the cold, and models of unequal states at the first beta at which they break. Larger ones are judged
by parallel tempering. The error is the total variation distance, half the sum of |w - exact|.
Tasks of an array share the models of each set; ergodicity_*.csv hold a row for each model.

    python -m experiments ergodicity [cold] [onset] [large] [--out DIR]
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments import truth
from experiments._shared import table
from thermogen import kinetics
from thermogen._tasks import Task

THRESHOLD = truth.THRESHOLD
ESTIMATES = ("library", "rates", "annealed")
ONSETS = (1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5)


def stationary(rates: np.ndarray) -> np.ndarray:
    """Weights that the rates leave as they are; of several the smallest in square."""
    system = np.vstack([rates.T, np.ones(len(rates))])
    target = np.append(np.zeros(len(rates)), 1)
    return np.clip(np.linalg.lstsq(system, target, rcond=None)[0], 0, None)


def estimates(found: tg.BoundStates) -> dict[str, np.ndarray]:
    """Weight of each set that has a number, mirror images together."""
    certificate = found.certificate
    states = np.argsort(certificate.group[found.representatives])
    copies = found.multiplicity[states]
    flow = stationary(certificate.rates)
    return {
        "library": found.library_weights[states],
        "rates": np.add.reduceat(flow, np.cumsum(copies) - copies),
        "annealed": found.weights[states],
    }


def exact_weights(found: tg.BoundStates, exact: tg.exact.MetastableSets) -> np.ndarray | None:
    """Of the sets of the certificate; None where they are not the exact ones, one to one."""
    certificate, owner = found.certificate, np.full(len(exact.weights), -1)
    for k in np.flatnonzero(certificate.bound):
        cores = certificate.cores[k] * np.array([1, -1])[: certificate.multiplicity[k], None]
        labels = {exact.labels[int(tg.index_from_spins(core))] for core in cores}
        if certificate.disordered[k]:
            labels = {truth.exact_set(exact, found.library.magnetizations[k], certificate, k)}
        if len(labels) < certificate.multiplicity[k] or np.any(owner[list(labels)] >= 0):
            return None
        owner[list(labels)] = certificate.group[k]
    return np.bincount(owner, exact.weights) if owner.min() >= 0 else None


def tempered_weights(found: tg.BoundStates, energy, beta, key) -> np.ndarray:
    ladder = tg.ParallelTempering(jnp.linspace(0.2 * beta, beta, 12))
    options = {"n_chains": 64, "n_sweeps": 4000, "burn_in": 2000, "thin": 100}
    spins = np.asarray(tg.sample(ladder, energy, beta, key=key, **options))
    rows, _ = kinetics.attribute(energy, found, spins.reshape(-1, energy.n_spins))
    return np.bincount(found.sets[rows], minlength=len(found)) / len(rows)


def cold_models() -> Iterator[tuple[str, tg.AbstractMultilinear, float]]:
    for index, (name, family) in enumerate(truth.FAMILIES.items()):
        for beta in family.betas:
            for seed in range(2):
                rng = np.random.default_rng([index, int(10 * beta), seed])
                yield f"{name}, beta {beta:g}", family.make(rng, family.n), beta


def onset_models(n: int = 10) -> Iterator[tuple[str, tg.AbstractMultilinear, float]]:
    """Asymmetric magnets, at the first beta at which they are not ergodic."""
    for seed in range(30):
        rng = np.random.default_rng([7, seed])
        kind = ("magnet", "Hopfield", "SK")[seed % 3]
        energy = unequal(kind, n, rng)
        for beta in ONSETS:
            if len(tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD).weights) > 1:
                yield f"{kind} at its onset, beta {beta:g}", energy, beta
                break


def unequal(kind: str, n: int, rng: np.random.Generator, field: float = 0.08) -> tg.Pairwise:
    """States of unequal weight."""
    if kind == "SK":
        return truth.sk(rng, n, 0.15)
    if kind == "magnet":
        return tg.Pairwise((1 - np.eye(n)) / n, np.full(n, rng.uniform(0, 0.05)))
    patterns = rng.choice([-1.0, 1.0], size=(3, n))
    couplings = (patterns.T * [1.0, 0.8, 0.6]) @ patterns / n * (1 - np.eye(n))
    return tg.Pairwise(couplings, field * rng.normal(size=n))


def large_models() -> Iterator[tuple[str, tg.AbstractMultilinear, float]]:
    for seed, beta in ((1, 1.6), (2, 2.0), (3, 2.5)):
        rng = np.random.default_rng(seed)
        yield f"Hopfield 48, beta {beta:g}", unequal("Hopfield", 48, rng, 0.02), beta
        yield f"SK 48, beta {beta:g}", truth.sk(rng, 48, 0.1), beta
    spins, _ = tg.datasets.digits()
    start = tg.Pairwise(np.zeros((64, 64)), np.zeros(64))
    objective = tg.Pseudolikelihood(1e-3)
    digits = tg.fit(objective, start, spins, key=jax.random.key(0)).energy
    for beta in (1.0, 1.5):
        yield f"digits, beta {beta:g}", digits, beta


MODELS = {"cold": cold_models, "onset": onset_models, "large": large_models}


def main(
    sets: tuple[str, ...] = tuple(MODELS),
    /,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    own = {name: task.part(enumerate(MODELS[name]())) for name in sets}
    print(f"set of models: error of {', '.join(ESTIMATES)}")
    for name in sets:
        table(out / f"ergodicity_{name}.csv", judge(name, own[name]))


def judge(name: str, models: list) -> list[dict[str, Any]]:
    rows, wrong = [], 0
    for index, (title, energy, beta) in models:
        key = jax.random.key(index)
        enumerable = energy.n_spins <= 12
        exact = tg.exact.metastable_sets(energy, beta, threshold=THRESHOLD) if enumerable else None
        if exact is not None and len(exact.weights) == 1:
            continue
        options = {
            "capacity": 128,
            "n_starts": 256,
            "n_trajectories": 256 if enumerable else 64,
        }
        found = tg.find_bound_states(energy, beta, key=key, threshold=THRESHOLD, **options)
        if exact is None:
            known = tempered_weights(found, energy, beta, key)
        else:
            known = exact_weights(found, exact)
        if known is None:
            wrong += 1
            continue
        guesses = estimates(found)
        errors = {kind: 0.5 * np.abs(guesses[kind] - known).sum() for kind in ESTIMATES}
        rows.append({"model": title, "sets": found.certificate.n_bound, **errors})
        figures = "".join(f"{error:8.3f}" for error in errors.values())
        print(f"{title:32}{found.certificate.n_bound:4} sets{figures}", flush=True)
    print(
        f"{name}: {len(rows)} models, {wrong} left out, whose number of sets is not the exact one"
    )
    for kind in ESTIMATES if rows else ():
        errors = [row[kind] for row in rows]
        print(f"  {kind:10} mean {np.mean(errors):.4f}, largest {max(errors):.3f}", flush=True)
    return rows
