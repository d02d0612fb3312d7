"""Births of the states of the digits as they cool: a tree over beta, and what continuation finds.

A pairwise model of the digits (pseudolikelihood), naive mean field, beta from 0.2 to 1.5. Prints
the states, births and deaths of every stage, locates the bifurcation of each, and draws the tree.
Then compares the genealogy with searches without continuation: at every stage one of as many
quenches as the genealogy made there, random corners in the place of continued states; and at the
coldest stage one of as many quenches as the genealogy made at all stages.

    python -m experiments births [--out DIR]
"""

import collections
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import claim, save
from thermogen.landscape import Genealogy, birth_points, death_points, genealogy
from thermogen.plots import genealogy_figure

FUNCTIONAL = tg.NaiveMeanField()
BETAS = np.linspace(0.2, 1.5, 27)
FRESH = 192  # quenches of the fresh search of a stage
KEYS = range(3)


def model() -> tg.Pairwise:
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    objective = tg.Pseudolikelihood()
    return tg.fit(objective, start, data, key=jax.random.key(0)).energy


def continued(family: Genealogy) -> np.ndarray:
    """How many quenches each stage received from its neighbours: one a node, there and back."""
    sizes = family.sizes
    return np.append(0, sizes[:-1]) + np.append(sizes[1:], 0)


def table(family: Genealogy) -> None:
    print(" stage   beta   states   born   died   by continuation alone")
    for stage, beta in enumerate(BETAS):
        at = family.stages == stage
        alone = np.sum(family.hits[at] == 0)
        counts = f"{at.sum():6d}   {family.born[at].sum():4d}   {family.died[at].sum():4d}"
        print(f"{stage:6d}   {beta:4.2f}   {counts}   {alone:10d}")


def search(energy: tg.Pairwise, beta: float, seed: int, extra: int, n_starts: int = FRESH):
    """A fresh search, with so many more random corners."""
    corners = np.random.default_rng(seed).choice([-1.0, 1.0], (extra, energy.n_spins))
    key = jax.random.key(1000 + seed)
    return tg.find_minima(FUNCTIONAL, energy, beta, key=key, n_starts=n_starts, starts=corners)


def compare(energy: tg.Pairwise, family: Genealogy, seed: int) -> bool:
    """Whether the genealogy holds all that searches of equal cost at each of its stages find."""
    sent = continued(family)
    sizes, missed, extra = [], [], []
    for stage, beta in enumerate(BETAS.tolist()):
        fresh = search(energy, beta, seed, int(sent[stage]))
        held = family.magnetizations[family.stages == stage]
        common = int(np.sum(fresh.nearest(held) >= 0))
        sizes.append(fresh.size)
        missed.append(len(held) - common)
        extra.append(fresh.size - common)
    coldest = family.magnetizations[family.stages == len(BETAS) - 1]
    alone = np.sum(family.hits[family.stages == len(BETAS) - 1] == 0)
    print(
        f"key {seed}: {len(family.stages)} nodes, {np.sum(family.hits == 0)} by continuation alone"
    )
    print(f"  at beta = 1.5: {len(coldest)} states, {alone} by continuation alone")
    print(f"  searches of equal cost, all stages: {sum(sizes)} nodes;", end=" ")
    print(f"miss {sum(missed)} of the genealogy's, which misses {sum(extra)} of theirs")
    print(f"  at beta = 1.5 ({FRESH + sent[-1]} quenches): {sizes[-1]} states;", end=" ")
    print(f"misses {missed[-1]} of the genealogy's, which misses {extra[-1]} of its")
    quenches = FRESH * len(BETAS) + int(sent.sum())
    large = search(energy, float(BETAS[-1]), seed, 0, quenches)
    unheld = len(coldest) - int(np.sum(large.nearest(coldest) >= 0))
    print(
        f"  at beta = 1.5, cost of all stages ({quenches} quenches): {large.size} states;", end=" "
    )
    print(f"misses {unheld} of the genealogy's")
    return sum(extra) == 0


def main(out: pathlib.Path = pathlib.Path("results")) -> None:
    energy = model()
    verdicts = []
    for seed in KEYS:
        began = time.perf_counter()
        family = genealogy(
            FUNCTIONAL,
            energy,
            BETAS,
            key=jax.random.key(seed),
            n_starts=FRESH,
        )
        seconds = time.perf_counter() - began
        if seed == KEYS[0]:
            table(family)
            draw(family, energy, out)
        print(f"{seconds:.1f} s for {len(family.stages)} nodes in {len(BETAS)} stages")
        verdicts.append(compare(energy, family, seed))
    claim("the genealogy holds all that searches of equal cost at each stage find", all(verdicts))


def draw(family: Genealogy, energy: tg.Pairwise, out: pathlib.Path) -> None:
    began = time.perf_counter()
    births = birth_points(FUNCTIONAL, energy, family)
    deaths = death_points(FUNCTIONAL, energy, family)
    seconds = time.perf_counter() - began
    kinds = dict(collections.Counter(p.kind for p in [*births.values(), *deaths.values()]))
    between = [
        BETAS[family.stages[node] - 1] < point.parameter < BETAS[family.stages[node]]
        for node, point in births.items()
    ]
    print(f"bifurcations of {len(births)} of {family.born.sum()} births, all between their stages:")
    print(f"  {all(between)}; of {len(deaths)} of {family.died.sum()} deaths; {kinds}", end="; ")
    print(f"{seconds:.1f} s")
    figure = genealogy_figure(family, births=births, deaths=deaths, picture=(8, 8))
    save(out / "digits_births.png", figure, dpi=140)
