"""Barriers: escape times follow them, and a disconnectivity graph of the digits.

1. Arrhenius: on models of ten spins the exact relaxation time of heat-bath dynamics, in sweeps,
   against the exact barrier of E and against the barrier of naive mean field, over beta.
2. The states of a pairwise model of the digits under naive mean field at beta = 1, all saddles
   between them, and the tree that they make.

    python experiments/barriers.py [--out FILE]
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen.landscape import TRANSITIONS, Barriers, barriers, disconnectivity_tree
from thermogen.report import disconnectivity_figure

N_SPINS = 10
FUNCTIONAL = tg.NaiveMeanField()


def models() -> dict[str, tg.Pairwise]:
    """Models of ten spins with one slow process in the cold."""
    n = N_SPINS
    off_diagonal = 1 - np.eye(n)
    pattern = np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    glass = np.triu(np.random.default_rng(3).normal(size=(n, n)) / np.sqrt(n), 1)
    return {
        "magnet": tg.Pairwise(off_diagonal / n, np.zeros(n)),
        "magnet in a field": tg.Pairwise(off_diagonal / n, np.full(n, 0.1)),
        "one-pattern Hopfield": tg.Pairwise(
            np.outer(pattern, pattern) * off_diagonal / n, np.zeros(n)
        ),
        "SK": tg.Pairwise(glass + glass.T, np.zeros(n)),
    }


def slowest_barrier(free_energies: np.ndarray, heights: np.ndarray) -> float:
    """Of all states but the lowest, the largest rise on the way to a state that is lower."""
    rises = []
    for a in range(len(free_energies)):
        lower = np.flatnonzero(np.arange(len(free_energies)) < a)
        if lower.size:
            rises.append(heights[a, lower].min() - free_energies[a])
    return float(max(rises))


def energy_barrier(energy: tg.Pairwise) -> float:
    """Exact barrier of E that the slowest process has to pass."""
    minima = tg.exact.single_flip_minima(energy)
    table = np.asarray(tg.exact.energies(energy))
    minima = minima[np.argsort(table[minima], kind="stable")]
    return slowest_barrier(table[minima], tg.exact.barriers(energy, minima))


def free_energy_barrier(energy: tg.Pairwise, beta: float) -> float:
    """The same of G(m), from its saddles; a state and its mirror image are two."""
    library = tg.find_bound_states(FUNCTIONAL, energy, beta, key=jax.random.key(0))
    found = barriers(library, FUNCTIONAL, energy, beta)
    free_energies = library.free_energies[: library.size]
    rises = list(found.mirror_heights[:1] - free_energies[0])
    rises = [rise for rise in rises if np.isfinite(rise)]
    if library.size > 1:
        rises.append(slowest_barrier(free_energies, found.heights))
    return max(rises)


def arrhenius() -> None:
    """Slopes of ln time against beta, and against beta times the barrier of G."""
    betas = np.array([4.0, 5.0, 6.0, 8.0, 10.0])
    for name, energy in models().items():
        expected = energy_barrier(energy)
        times = np.array([tg.exact.relaxation_times(energy, beta)[0] for beta in betas])
        rises = np.array([free_energy_barrier(energy, beta) for beta in betas])
        print(f"\n{name}: barrier of E {expected:.4f}")
        print("  beta    time (sweeps)   ln time / beta   local slope   barrier of G")
        slopes = np.gradient(np.log(times), betas)
        for beta, t, slope, rise in zip(betas, times, slopes, rises, strict=True):
            print(
                f"  {beta:4.1f}   {t:13.5g}   {np.log(t) / beta:12.4f}   {slope:11.4f}   {rise:11.4f}"
            )


def digits(out: pathlib.Path) -> None:
    """The disconnectivity graph of a pairwise model of the digits."""
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    energy = tg.fit(start, data, objective=tg.Pseudolikelihood(), key=jax.random.key(0)).energy
    library = tg.find_bound_states(FUNCTIONAL, energy, 1.0, key=jax.random.key(1), starts=data)
    began = time.perf_counter()
    found = barriers(library, FUNCTIONAL, energy, 1.0)
    seconds = time.perf_counter() - began
    report(library, found, seconds)
    tree = disconnectivity_tree(library.free_energies[: library.size], found.heights)
    pictures = library.magnetizations[: library.size].reshape(-1, 8, 8)
    out.parent.mkdir(parents=True, exist_ok=True)
    disconnectivity_figure(tree, pictures=pictures).savefig(out, dpi=160)


def report(library: tg.Library, found: Barriers, seconds: float) -> None:
    converged = np.asarray(found.result == TRANSITIONS.converged)
    print(
        f"\ndigits: {library.size} states, {converged.sum()} saddles in {seconds:.1f} s, "
        f"{np.sum(~converged)} tops failed, {len(found.others)} minima met that were not held, "
        f"max residual {found.residuals[converged].max():.1e}"
    )
    print("  heights", np.sort(found.heights.min(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path("docs/images/digits_tree.png")
    parser.add_argument("--out", type=pathlib.Path, default=default)
    out = parser.parse_args().out
    jax.config.update("jax_enable_x64", True)
    digits(out)
    arrhenius()


if __name__ == "__main__":
    main()
