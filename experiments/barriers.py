"""Barriers: escape times follow them, and a disconnectivity graph of the digits.

1. Arrhenius: on models of ten spins the exact relaxation time of heat-bath dynamics, in sweeps,
   against the exact barrier of E and against the barrier of naive mean field, over beta.
2. The states of a pairwise model of the digits under naive mean field at beta = 1, all saddles
   between them, and the tree that they make.

In practice: what it takes to leave a state can be told from the landscape, without waiting for it:
from barriers between minima, and from the tree of which merge first. A sampler at beta needs about
exp(beta times the barrier) sweeps to cross; states joined by low passes are one state for it.

    python -m experiments barriers [--quick] [--out DIR]
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import claim, save
from thermogen.landscape import TRANSITIONS, Barriers, barriers, disconnectivity_tree
from thermogen.plots import disconnectivity_figure

N_SPINS = 10
# In sweeps: beyond, the eigenvalue is too near to 1 for the time to be precise.
LONGEST = 1e11
FUNCTIONAL = tg.NaiveMeanField()
QUICK = {"step": 1.0}  # of beta


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


def energy_barrier(energy: tg.Pairwise) -> float:
    """Exact rise of E that the slowest process has to pass."""
    minima = tg.exact.single_flip_minima(energy)
    return slowest_rise(tg.exact.barriers(energy, minima))


def free_energy_barrier(energy: tg.Pairwise, beta: float) -> float:
    """The same of G(m), from its saddles; a state and its mirror image are two."""
    library = tg.find_minima(FUNCTIONAL, energy, beta, key=jax.random.key(0))
    found = barriers(FUNCTIONAL, energy, beta, library)
    between = slowest_rise(found.heights)
    over = found.mirror_heights - library.free_energies
    # Images reverse by way of the lowest pair.
    return max(between, float(over[0])) if np.isfinite(over[0]) else between


def slowest_rise(heights: np.ndarray) -> float:
    """Of all states but the lowest, the largest rise on the way to a state as low or lower."""
    levels = np.diagonal(heights)
    heights = heights[np.ix_(np.argsort(levels, kind="stable"), np.argsort(levels, kind="stable"))]
    rises = [heights[a, :a].min() - heights[a, a] for a in range(1, len(heights))]
    return float(max(rises, default=0.0))


def arrhenius(step: float) -> None:
    """Slopes of ln time against beta, and against beta times the barrier of G."""
    shares = {}
    for name, energy in models().items():
        barrier = energy_barrier(energy)
        times, betas = np.zeros(0), np.zeros(0)
        for beta in np.arange(2.0, 12.1, step):
            found = tg.exact.relaxation_times(energy, beta)[0]
            if found > LONGEST:
                break
            times, betas = np.append(times, found), np.append(betas, beta)
        logs = np.log(times)
        rises = np.array([free_energy_barrier(energy, beta) for beta in betas])
        print(f"\n{name}: barrier of E {barrier:.4f}")
        print("  beta   time (sweeps)   ln time   beta dE   beta dG")
        for beta, t, rise in zip(betas, times, rises, strict=True):
            figures = f"{np.log(t):7.3f}   {beta * barrier:7.3f}   {beta * rise:7.3f}"
            print(f"  {beta:4.1f}   {t:13.5g}   {figures}")
        cold = slice(-3, None)
        slope = np.polyfit(betas[cold], logs[cold], 1)[0]
        by_g = np.polyfit((betas * rises)[cold], logs[cold], 1)[0]
        shares[name] = slope / barrier
        print(
            f"  slope of ln time in the cold: {slope:.4f} against beta, so {slope / barrier:.3f}",
            end="",
        )
        print(f" of dE; {by_g:.3f} against beta dG")
    print()
    claim(
        "ln time rises as beta dE, within 5 %",
        all(abs(share - 1) < 0.05 for share in shares.values()),
        ", ".join(f"{name} {share:.3f}" for name, share in shares.items()),
    )


def digits(out: pathlib.Path) -> None:
    """The disconnectivity graph of a pairwise model of the digits."""
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    energy = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0)).energy
    library = tg.find_minima(FUNCTIONAL, energy, 1.0, key=jax.random.key(1), starts=data)
    began = time.perf_counter()
    found = barriers(FUNCTIONAL, energy, 1.0, library)
    seconds = time.perf_counter() - began
    report(library, found, seconds)
    tree = disconnectivity_tree(library.free_energies, found.heights)
    pictures = library.magnetizations.reshape(-1, 8, 8)
    save(out / "digits_tree.png", disconnectivity_figure(tree, pictures=pictures))


def report(library: tg.Library, found: Barriers, seconds: float) -> None:
    converged = np.asarray(found.result == TRANSITIONS.converged)
    print(f"digits: {library.size} states; {converged.sum()} saddles in {seconds:.1f} s,", end=" ")
    print(f"largest residual {found.residuals[converged].max():.1e};", end=" ")
    print(f"{np.sum(~converged)} tops of strings failed;", end=" ")
    print(f"{len(found.others)} minima met on the way that the library does not hold")
    off = found.heights + np.diag(np.full(library.size, np.inf))
    rises = off.min(axis=1) - library.free_energies
    print(f"rise to the nearest pass: {rises.min():.3f} to {rises.max():.3f};", end=" ")
    print(f"highest barrier on G = {np.max(found.heights):.2f}")
    joined = np.isfinite(found.heights)
    claim(
        "digits: all states are joined by certified saddles",
        joined.all(),
        f"{np.sum(np.triu(joined, 1))} of {len(joined) * (len(joined) - 1) // 2} pairs",
    )


def main(*, step: float = 0.5, out: pathlib.Path = pathlib.Path("results")) -> None:
    digits(out)
    arrhenius(step)
