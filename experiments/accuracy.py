"""Which functional when? Errors of the mean-field free energies against exact enumeration.

Families of n = 16 spins with weak random fields, twelve instances each: SK, the 4x4 periodic
ferromagnet, random +-1 couplings on random regular graphs of degree 3, Hopfield with three
patterns, and a diluted 3-spin model. For Plefka orders 1 to 4, Bethe and AdaptiveTAP, over beta:
the error of the free energy per spin, |beta G + ln Z|/n, and the root-mean-square errors of the
magnetizations and of the connected correlations by linear response, over pairs. Every solve
starts at the exact magnetizations, so that the branch near the truth is followed: how well it is
found from elsewhere is not asked. Medians are over the solves that converge; the others are
counted. Prints a table and a verdict for each claim and saves JSON and a picture.

    python experiments/accuracy.py [--out DIR]
"""

import argparse
import itertools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg

N_SPINS = 16
N_INSTANCES = 12
FIELD = 0.15
BETAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5)
MODERATE = 0.6
FUNCTIONALS = {
    "naive": tg.NaiveMeanField(),
    "TAP": tg.TAP(),
    "Plefka 3": tg.Plefka(3),
    "Plefka 4": tg.Plefka(4),
    "Bethe": tg.Bethe(),
    "AdaptiveTAP": tg.AdaptiveTAP(),
}
# No rule for Interactions.
UNSUPPORTED = {("3-spin", "Plefka 4"), ("3-spin", "AdaptiveTAP")}
MEASURES = {
    "free_energy": "free energy per spin",
    "magnetizations": "magnetizations (rms)",
    "correlations": "correlations (rms)",
}
LOOKS = {
    "naive": ("#9ca3af", "o"),
    "TAP": ("#88ccee", "s"),
    "Plefka 3": ("#44aa99", "^"),
    "Plefka 4": ("#1f3a5f", "v"),
    "Bethe": ("#c2571a", "D"),
    "AdaptiveTAP": ("#aa4499", "P"),
}


def fields(rng: np.random.Generator) -> np.ndarray:
    return FIELD * rng.normal(size=N_SPINS)


def sk(rng: np.random.Generator) -> tg.Pairwise:
    """Couplings of variance 1/n between all pairs."""
    upper = np.triu(rng.normal(size=(N_SPINS, N_SPINS)), 1) / np.sqrt(N_SPINS)
    return tg.Pairwise(upper + upper.T, fields(rng))


def lattice(rng: np.random.Generator) -> tg.Pairwise:
    """J = 1 between the neighbours on a square lattice with periodic boundaries."""
    side = round(np.sqrt(N_SPINS))
    ring = np.roll(np.eye(side), 1, axis=1) + np.roll(np.eye(side), -1, axis=1)
    couplings = np.kron(ring, np.eye(side)) + np.kron(np.eye(side), ring)
    return tg.Pairwise(couplings, fields(rng))


def regular_graph(rng: np.random.Generator, degree: int = 3) -> tg.Pairwise:
    """J = +-1 on the bonds of a random simple graph: pairings of the ends until one is simple."""
    while True:
        ends = rng.permutation(np.repeat(np.arange(N_SPINS), degree)).reshape(-1, 2)
        adjacency = np.zeros((N_SPINS, N_SPINS), int)
        np.add.at(adjacency, (ends[:, 0], ends[:, 1]), 1)
        adjacency += adjacency.T
        if adjacency.max() == 1 and not adjacency.diagonal().any():
            break
    signs = np.triu(rng.choice([-1.0, 1.0], size=(N_SPINS, N_SPINS)), 1)
    return tg.Pairwise(adjacency * (signs + signs.T), fields(rng))


def hopfield(rng: np.random.Generator, n_patterns: int = 3) -> tg.Pairwise:
    """J = (1/n) sum of the patterns' outer products."""
    patterns = rng.choice([-1.0, 1.0], size=(n_patterns, N_SPINS))
    couplings = patterns.T @ patterns / N_SPINS
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, fields(rng))


def three_spin(rng: np.random.Generator, n_terms: int = 3 * N_SPINS) -> tg.Interactions:
    """Gaussian couplings on random triples, the same in all instances; variance of E: n/2."""
    triples = np.array(list(itertools.combinations(range(N_SPINS), 3)))
    kept = triples[np.random.default_rng(3).permutation(len(triples))[:n_terms]]
    couplings = rng.normal(size=n_terms) * np.sqrt(0.5 * N_SPINS / n_terms)
    singles = np.arange(N_SPINS)[:, None]
    return tg.Interactions(N_SPINS, [singles, kept], [fields(rng), couplings])


FAMILIES = {
    "SK": sk,
    "lattice": lattice,
    "regular graph": regular_graph,
    "Hopfield": hopfield,
    "3-spin": three_spin,
}
TITLES = {
    "SK": "SK",
    "lattice": "4x4 ferromagnet",
    "regular graph": "regular graph, degree 3, $\\pm1$",
    "Hopfield": "Hopfield, 3 patterns",
    "3-spin": "diluted 3-spin",
}


def instances(family: str) -> tg.AbstractMultilinear:
    """All instances of a family, as one batch."""
    seeds = np.random.SeedSequence([list(FAMILIES).index(family)]).spawn(N_INSTANCES)
    energies = [FAMILIES[family](np.random.default_rng(seed)) for seed in seeds]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *energies)


def everywhere(function):
    """Of (energy, ..., beta), over all instances and betas: arrays of shape (instance, beta)."""
    over_betas = jax.vmap(function, in_axes=(None, 0, 0))
    return jax.jit(lambda e, rest: jax.vmap(over_betas, (0, 0, None))(e, rest, jnp.array(BETAS)))


@jax.jit
def truth(energies):
    """ln Z, magnetizations and connected correlations of every instance and beta."""

    def at(energy, beta):
        m = tg.exact.magnetizations(energy, beta)
        connected = tg.exact.correlations(energy, beta) - jnp.outer(m, m)
        return tg.exact.log_partition(energy, beta), m, connected

    return jax.vmap(lambda e: jax.lax.map(lambda beta: at(e, beta), jnp.array(BETAS)))(energies)


@jax.jit
def errors(functional, energies, exact):
    """Errors and whether the solve converged, each of shape (instance, beta)."""
    pairs = np.triu_indices(N_SPINS, 1)

    def at(energy, beta, exact):
        log_partition, magnetizations, connected = exact
        solution = tg.solve(functional, energy, beta, magnetizations, throw=False)
        m = solution.value
        hessian = jax.hessian(functional, argnums=1)(energy, m, beta)
        response = jnp.linalg.inv(beta * hessian)
        excess = beta * solution.stats["free_energy"] + log_partition
        return {
            "converged": solution.result == tg.RESULTS.converged,
            "excess": excess / N_SPINS,
            "free_energy": jnp.abs(excess) / N_SPINS,
            "magnetizations": jnp.sqrt(jnp.mean(jnp.square(m - magnetizations))),
            "correlations": jnp.sqrt(jnp.mean(jnp.square((response - connected)[pairs]))),
        }

    over_betas = jax.vmap(at, in_axes=(None, 0, 0))
    return jax.vmap(lambda e, x: over_betas(e, jnp.array(BETAS), x))(energies, exact)


def summary(raw: dict[str, np.ndarray]) -> list[dict]:
    """One row per beta: share of failures, and medians over what converged (NaN if none did)."""
    rows = []
    for b, beta in enumerate(BETAS):
        kept = raw["converged"][:, b]
        row = {"beta": beta, "failed": float(np.mean(~kept))}
        for name in MEASURES:
            row[name] = float(np.median(raw[name][kept, b])) if kept.any() else float("nan")
        row["lowest_excess"] = float(raw["excess"][kept, b].min(initial=np.inf))
        rows.append(row)
    return rows


def measure(family: str) -> dict[str, list[dict]]:
    """Functional -> rows; prints the time of each."""
    energies = instances(family)
    began = time.perf_counter()
    exact = jax.block_until_ready(truth(energies))
    times = {"exact": time.perf_counter() - began}
    table = {}
    for name, functional in FUNCTIONALS.items():
        if (family, name) in UNSUPPORTED:
            continue
        began = time.perf_counter()
        table[name] = summary(jax.tree.map(np.asarray, errors(functional, energies, exact)))
        times[name] = time.perf_counter() - began
    print(f"{family}: seconds " + ", ".join(f"{k} {t:.1f}" for k, t in times.items()), flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"))
    parser.parse_args().out
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    for family in FAMILIES:
        measure(family)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
