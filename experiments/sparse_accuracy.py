"""Approximations against exact values of sparse models of 100 to 1000 spins.

- `strip`: 10 x 100 spins, Gaussian couplings between neighbours: width 10.
- `graph`: 100 spins on a random graph of degree 3, couplings +-1: a width of about 16.
- `tree`: 1000 spins on a random tree, Gaussian couplings, on which `Bethe` is exact.

All in random fields of 0.15. The truth are ln Z and magnetizations by elimination. Mean-field
functionals are solved from the exact magnetizations, as in `accuracy.py`. Annealed importance
sampling and population annealing tell ln Z, with their own errors; `Gibbs` chains from random
corners tell magnetizations.

    python -m experiments sparse_accuracy [strip] [graph] [tree] [--quick]
"""

import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import networkx
import numpy as np

import thermogen as tg
from experiments.accuracy import FIELD, FUNCTIONALS

BETAS = (0.3, 0.6, 1.0, 1.5)
N_RUNGS, N_CHAINS, N_SWEEPS = 200, 64, 1000


def strip(rng: np.random.Generator) -> tg.Pairwise:
    return of_graph(networkx.grid_2d_graph(10, 100), rng, signs=False)


def graph(rng: np.random.Generator) -> tg.Pairwise:
    return of_graph(networkx.random_regular_graph(3, 100, seed=0), rng, signs=True)


def tree(rng: np.random.Generator) -> tg.Pairwise:
    return of_graph(networkx.random_labeled_tree(1000, seed=0), rng, signs=False)


def of_graph(bonds: networkx.Graph, rng: np.random.Generator, signs: bool) -> tg.Pairwise:
    n = len(bonds)
    drawn = rng.choice([-1.0, 1.0], size=(n, n)) if signs else rng.normal(size=(n, n))
    upper = np.triu(drawn, 1) * networkx.to_numpy_array(bonds, nodelist=sorted(bonds))
    return tg.Pairwise(upper + upper.T, FIELD * rng.normal(size=n))


MODELS: dict[str, Callable[[np.random.Generator], tg.Pairwise]] = {
    "strip": strip,
    "graph": graph,
    "tree": tree,
}


def functionals(energy: tg.Pairwise, beta: float, log_z: float, m: np.ndarray) -> Iterator[str]:
    n = energy.n_spins
    for name, functional in FUNCTIONALS.items():
        began = time.process_time()
        found = tg.solve(functional, energy, beta, jnp.asarray(m), throw=False)
        error = abs(beta * float(found.stats["free_energy"]) + log_z) / n
        rms = np.sqrt(np.mean((np.asarray(found.value) - m) ** 2))
        ended = "" if found.result == tg.RESULTS.converged else ", not converged"
        seconds = time.process_time() - began
        yield f"{name:14}{error:12.2e}{rms:12.2e}   {seconds:.1f} s{ended}"


def samplers(energy: tg.Pairwise, beta: float, log_z: float, m: np.ndarray) -> Iterator[str]:
    n, key, path = energy.n_spins, jax.random.key(0), jnp.linspace(0, beta, N_RUNGS + 1)[1:]
    options = {"key": key, "n_chains": N_CHAINS}
    annealed = tg.annealed_importance_sampling(energy, path, **options)
    populations = tg.sampling.population_annealing(energy, path, n_populations=10, **options)
    for name, x in (("annealing", annealed), ("populations", populations)):
        error, stated = abs(float(x.log_partition) - log_z), float(x.standard_error)
        yield f"{name:14}{error / n:12.2e}{'':12}   stated {stated / n:.2e}: {error / stated:.1f}"
    options |= {"n_sweeps": N_SWEEPS, "burn_in": N_SWEEPS // 10}
    mean = tg.sampling.Mean()
    found = np.asarray(tg.sample(tg.Gibbs(), energy, beta, observers=mean, **options))
    yield f"{'Gibbs':14}{'':12}{np.sqrt(np.mean((found - m) ** 2)):12.2e}"


def main(models: tuple[str, ...] = tuple(MODELS), /, quick: bool = False) -> None:
    jax.config.update("jax_enable_x64", True)
    for name in models:
        energy = MODELS[name](np.random.default_rng(1))
        print(f"{name}: {energy.n_spins} spins, width {tg.exact.cost(energy).width}")
        for beta in BETAS[:1] if quick else BETAS:
            began = time.process_time()
            log_z = float(tg.exact.log_partition(energy, beta))
            m = np.asarray(tg.exact.magnetizations(energy, beta))
            seconds = time.process_time() - began
            print(f"  beta {beta:g}: ln Z / n = {log_z / energy.n_spins:.6f} in {seconds:.1f} s")
            print(f"    {'':14}{'ln Z / n':>12}{'m (rms)':>12}")
            for part in (functionals, samplers):
                for line in part(energy, beta, log_z, m):
                    print(f"    {line}", flush=True)
