"""Samplers and estimators of ln Z against what is known exactly.

1. Total variation from the Boltzmann table of a spin glass of 10 spins, against that of as many
   independent draws.
2. Energy per spin of the square lattice of 64 x 64 spins, near the critical point too, against
   the closed form on the torus (Kaufman 1949).
3. A magnet in its ordered phase that single spins do not turn over, and tempering does.
4. Coverage of 95 % intervals on 200 spin glasses of 8 spins, where 90-99 % are asked for.
5. The same on models easy and hard whose ln Z is known, where an estimator may refuse: how many
   answers there are, and how many of these hold.

Tasks of an array share the glasses of 4 and the models of 5; samplers_*.csv hold a row for each
estimate. 1 to 3 are of the first task.

    python -m experiments samplers [--out DIR]
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, logsumexp
from scipy.stats import t as student

import thermogen as tg
from experiments._shared import table
from thermogen import sampling
from thermogen._tasks import Task

N_GLASSES = 200
ONSAGER = {0.4: -1.1060830, 0.44: -1.4161213}  # per spin, 64 x 64, periodic
SAMPLERS = {
    "Gibbs": tg.Gibbs(),
    "Metropolis": tg.Metropolis(),
    "Swendsen-Wang": sampling.SwendsenWang(),
    "Houdayer": sampling.Houdayer(),
    "tempering, 4 rungs": tg.ParallelTempering([0.1, 0.3, 0.5, 0.7]),
}


def spin_glass(n: int, key: jax.Array) -> tg.Pairwise:
    j_key, h_key = jax.random.split(key)
    upper = jnp.triu(jax.random.normal(j_key, (n, n)), 1) / jnp.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.3 * jax.random.normal(h_key, (n,)))


def lattice(size: int) -> tg.Interactions:
    site = np.arange(size * size).reshape(size, size)
    bonds = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
    return tg.Interactions(size * size, [np.concatenate(bonds)], [jnp.ones(2 * size * size)])


def verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


def total_variation() -> None:
    n, beta, n_chains, n_kept = 10, 0.7, 2000, 100
    energy = spin_glass(n, jax.random.key(10))
    p = np.asarray(tg.exact.probabilities(energy, beta))
    expected = 0.5 * np.sum(np.sqrt(2 * p * (1 - p) / (np.pi * n_chains * n_kept)))
    print(
        f"\n1. Total variation at n = 10, {n_chains * n_kept} draws: {expected:.5f} if independent"
    )
    for name, sampler in SAMPLERS.items():
        spins = tg.sample(
            sampler,
            energy,
            beta,
            key=jax.random.key(0),
            n_chains=n_chains,
            n_sweeps=20 * n_kept,
            burn_in=100,
            thin=20,
        )
        index = np.asarray(tg.index_from_spins(spins.reshape(-1, n)))
        found = np.bincount(index, minlength=2**n) / index.size
        distance = 0.5 * np.abs(found - p).sum()
        print(f"   {name:20}{distance:.5f}  {verdict(distance < 1.2 * expected)}")


def square_lattice() -> None:
    print("\n2. Square lattice 64 x 64: energy per spin, 16 chains")
    for beta, name, n_sweeps in [
        (0.4, "Gibbs", 1000),
        (0.4, "Swendsen-Wang", 300),
        (0.44, "Gibbs", 20_000),
        (0.44, "Swendsen-Wang", 1000),
    ]:
        energies = tg.sample(
            SAMPLERS[name],
            lattice(64),
            beta,
            key=jax.random.key(1),
            n_chains=16,
            n_sweeps=n_sweeps,
            burn_in=n_sweeps,
            observers=sampling.Trace(lambda energy, s: energy(s) / s.size),
        )
        energies = np.asarray(energies, float)
        means = energies.mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(len(means))
        diagnosis = sampling.diagnose(energies)
        sigmas = abs(means.mean() - ONSAGER[beta]) / error
        print(
            f"   beta {beta:4}  {name:14} {means.mean():.5f} +- {error:.5f}"
            f"  exact {ONSAGER[beta]:.5f}  R-hat {diagnosis.rhat:.3f}"
            f"  tau {diagnosis.autocorrelation_time:6.1f} sweeps"
            f"  {verdict(sigmas < 4)}"
        )


SWAPS = {
    "round trips": sampling.Trace(lambda _, state: state.round_trips, of="state"),
    "rates": sampling.Mean(lambda _, info: info.acceptance, of="info"),
}


def bimodal() -> None:
    n, beta = 40, 2.2
    energy = tg.Pairwise((1 - jnp.eye(n)) / n, jnp.zeros(n))
    ladder = tg.ParallelTempering(jnp.linspace(0.0, beta, 8))
    tuned = sampling.tune_ladder(ladder, energy, key=jax.random.key(1))
    print("\n3. Curie-Weiss magnet of 40 spins at beta = 2.2, 32 chains that start up, 1000 sweeps")
    for name, sampler in [("Gibbs", tg.Gibbs()), ("tempering, tuned", tuned)]:
        seen = tg.sample(
            sampler,
            energy,
            beta,
            key=jax.random.key(0),
            n_chains=32,
            n_sweeps=1000,
            burn_in=200,
            init=np.ones(n),
            observers={
                "m": sampling.Mean(lambda energy, s: jnp.sign(jnp.sum(s))),
                **(SWAPS if sampler is tuned else {}),
            },
        )
        turned = abs(float(seen["m"])) < 0.2
        expected = turned if sampler is tuned else not turned
        print(f"   {name:20} <sign m> = {float(seen['m']):6.3f}  {verdict(expected)}")
        if sampler is tuned:
            trips = seen["round trips"][:, -1].mean()
            print(f"   round trips a chain: {trips:.0f}; swap rates {np.round(seen['rates'], 2)}")


def coverage(glasses: list[int], whole: bool) -> list[dict[str, Any]]:
    n, betas, own = 8, np.linspace(0, 1, 5), np.array(glasses)
    drawn = jax.random.split(jax.random.key(7), N_GLASSES)[own]
    energies = jax.vmap(lambda k: spin_glass(n, k))(drawn)
    exact = jax.vmap(lambda e: tg.exact.log_partition(e, 1.0))(energies)
    fine = jnp.linspace(0, 1, 31)

    def forward(energy, key):
        return tg.annealed_importance_sampling(energy, fine, key=key, n_chains=200)[:2]

    def reverse(energy, key):
        draw_key, key = jax.random.split(key)
        spins = tg.exact.sample(energy, 1.0, key=draw_key, n_samples=200)
        return sampling.reverse_annealed_importance_sampling(energy, fine, spins, key=key)[:2]

    def population(energy, key):
        return sampling.population_annealing(energy, betas, key=key, n_chains=30)[:2]

    def integral(energy, key):
        return sampling.thermodynamic_integration(
            energy, betas, key=key, n_chains=20, n_sweeps=20, burn_in=20
        )[:2]

    def reweighting(energy, key):
        return sampling.multi_histogram_reweighting(
            energy, betas, key=key, n_chains=20, n_sweeps=40, burn_in=20
        ).log_partition(1.0)[:2]

    rows = []
    print(f"\n4. ln Z at beta = 1: 95 % intervals on {len(own)} spin glasses of 8 spins")
    print(f"   {'':24}{'coverage':>9}{'rms error':>11}{'rms s.e.':>10}{'bias':>10}{'s':>8}")
    for name, estimate, freedom in [
        ("annealing (AIS)", forward, 199),
        ("reverse AIS", reverse, 199),
        ("population annealing", population, 19),
        ("thermodyn. integration", integral, 19),
        ("reweighting (MBAR)", reweighting, 19),
    ]:
        run = jax.jit(jax.vmap(estimate))
        keys = jax.random.split(jax.random.key(8), N_GLASSES)[own]
        jax.block_until_ready(run(energies, keys))
        began = time.perf_counter()
        values, errors = (np.asarray(x) for x in run(energies, keys))
        took = time.perf_counter() - began
        misses = values - np.asarray(exact)
        covered = np.mean(np.abs(misses) < student.ppf(0.975, freedom) * errors)
        print(
            f"   {name:24}{covered:9.3f}{rms(misses):11.5f}{rms(errors):10.5f}"
            f"{misses.mean():10.5f}{took:8.2f}  {verdict(0.90 <= covered <= 0.99) if whole else ''}"
        )
        rows += [
            {"method": name, "glass": glass, "miss": miss, "error": error}
            for glass, miss, error in zip(glasses, misses, errors, strict=True)
        ]
    return rows


def kaufman(size: int, beta: float) -> float:
    """ln Z of the ferromagnet on a torus (Kaufman 1949)."""

    def gamma(k):
        if k == 0:
            return 2 * beta + np.log(np.tanh(beta))
        return np.arccosh(np.cosh(2 * beta) / np.tanh(2 * beta) - np.cos(k * np.pi / size))

    odd, even = (np.array([gamma(2 * k + s) for k in range(size)]) for s in (1, 0))
    products = [f(x * size / 2) for x in (odd, even) for f in (np.cosh, np.sinh)]
    logs = [np.log(2 * np.abs(f)).sum() for f in products]
    total = logsumexp(logs, b=[1, 1, 1, np.sign(even[0])])
    return float(size**2 / 2 * np.log(2 * np.sinh(2 * beta)) + total - np.log(2))


def curie_weiss(n: int, beta: float) -> float:
    """ln Z of `n` spins with couplings 1 / n of all pairs."""
    up = np.arange(n + 1)
    log_count = gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1)
    return float(logsumexp(log_count + beta * ((2 * up - n) ** 2 - n) / (2 * n)))


def hard_models() -> list[tuple[str, tg.AbstractEnergy, float, float, int]]:
    """Name, energy, beta, ln Z, and how many runs to make."""
    glass = tg.Pairwise(spin_glass(16, jax.random.key(1)).couplings, jnp.zeros(16))
    table = tg.Complete(jax.random.normal(jax.random.key(7), (2**12,)) * np.sqrt(12 / 2**12))
    machine = tg.RBM(jax.random.normal(jax.random.key(8), (8, 6)), jnp.zeros(8), jnp.zeros(6))
    magnet = tg.Pairwise((1 - jnp.eye(64)) / 64, jnp.zeros(64))
    models: list[tuple[str, tg.AbstractEnergy, tuple[float, ...], Callable, int]] = [
        *(
            (name, energy, betas, lambda b, e=energy: float(tg.exact.log_partition(e, b)), 20)
            for name, energy, betas in (
                ("glass, 16", glass, (0.5, 1, 2, 4, 8)),
                ("random energies, 12", table, (1, 2, 4, 8)),
                ("machine, 8 x 6", machine, (0.25, 0.5, 1, 2)),
            )
        ),
        ("Curie-Weiss, 64", magnet, (1, 1.5, 2, 2.5, 3), lambda b: curie_weiss(64, b), 20),
        ("torus, 16 x 16", lattice(16), (0.3, 0.42, 0.46, 0.6), lambda b: kaufman(16, b), 10),
        ("torus, 32 x 32", lattice(32), (0.3, 0.7), lambda b: kaufman(32, b), 4),
    ]
    return [
        (name, energy, beta, log_z(beta), n_runs)
        for name, energy, betas, log_z, n_runs in models
        for beta in betas
    ]


def refusals(
    cases: list[tuple[str, tg.AbstractEnergy, float, float, int]], whole: bool
) -> list[dict[str, Any]]:
    def annealing(energy, beta, key):
        betas = beta * jnp.linspace(0, 1, 101)
        return tg.annealed_importance_sampling(energy, betas, key=key, n_chains=100)

    def population(energy, beta, key):
        betas = beta * jnp.linspace(0, 1, 21)
        return sampling.population_annealing(energy, betas, key=key, n_chains=50)

    def integral(energy, beta, key):
        return sampling.thermodynamic_integration(
            energy, beta * jnp.linspace(0, 1, 21), key=key, n_chains=20, n_sweeps=20, burn_in=20
        )

    def reweighting(energy, beta, key):
        return sampling.multi_histogram_reweighting(
            energy, beta * jnp.linspace(0, 1, 12), key=key, n_chains=20, n_sweeps=50, burn_in=30
        ).log_partition(beta)

    print("\n5. ln Z of easy and hard models: answers given, and those that hold at 95 %")
    print(f"   {'':34}{'annealing':>16}{'population':>16}{'integration':>16}{'MBAR':>16}")
    estimators = [
        ("annealing", annealing, 99),
        ("population annealing", population, 19),
        ("integration", integral, 19),
        ("reweighting", reweighting, 19),
    ]
    rows = []
    for name, energy, beta, exact, n_runs in cases:
        cells = ""
        for method, run, freedom in estimators:
            keys = jax.random.split(jax.random.key(8), n_runs)
            values, errors = (np.asarray(x) for x in every(run, energy, beta, keys))
            misses, answered = values - exact, np.isfinite(errors)
            held = answered & (np.abs(misses) < student.ppf(0.975, freedom) * errors + 1e-9)
            cells += f"{f'{held.sum():>8} of {answered.sum():>4}':>16}"
            case = {"model": name, "beta": beta, "method": method}
            for k in range(n_runs):
                own = {"run": k, "miss": misses[k], "error": errors[k]}
                rows.append(case | own | {"answered": answered[k], "held": held[k]})
        print(f"   {name:24}beta {beta:<5}{cells}", flush=True)
    for method, *_ in estimators:
        own = [row["held"] for row in rows if row["method"] == method and row["answered"]]
        share = np.mean(own) if own else np.nan
        judged = verdict(0.93 <= share <= 0.98) if whole else ""
        print(f"   {method:24}{share:.3f} of {len(own)}  {judged}")
    return rows


@functools.partial(jax.jit, static_argnums=0)
def every(run, energy, beta, keys):
    """The runs one after the other: lattices of many chains fill the processor."""

    def single(key):
        found = run(energy, beta, key)
        return found.log_partition, found.standard_error

    return jax.lax.map(single, keys)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def main(out: Path = Path("results"), task: Task = Task()) -> None:
    glasses, cases = task.part(range(N_GLASSES)), task.part(hard_models())
    for part in (total_variation, square_lattice, bimodal) if task.index == 0 else ():
        part()
    # Shares of few are not judged.
    whole = task.count == 1
    table(out / "samplers_coverage.csv", coverage(glasses, whole))
    table(out / "samplers_refusals.csv", refusals(cases, whole))
