"""ln Z from the energies of a tempered ladder: `multi_histogram` against pymbar's MBAR.

An SK model of 64 spins, 16 rungs up to beta = 1.5, 20 ladders. Both get the same energies and solve
the same equations, and must agree on ln Z at the coldest rung. Milliseconds of a solution with its
error bar: ours counts ladders as clusters, pymbar takes draws as independent (they should be
subsampled first, which is not in its time). pymbar runs on JAX, which it finds installed, with its
default protocol, whose first solver gives up here, and with its adaptive solver alone.

    python -m experiments benchmarks.free_energy
"""

import functools

import jax
import numpy as np

import thermogen as tg
from experiments.benchmarks import _peers, _watch
from thermogen import sampling

N_SPINS = 64
BETAS = np.linspace(0.0, 1.5, 16)
DRAWS = (20, 200)  # kept of each ladder


def model() -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(0).normal(size=(N_SPINS, N_SPINS)), 1) / N_SPINS**0.5
    return tg.Pairwise(upper + upper.T, np.zeros(N_SPINS))


def energies(n_draws: int) -> np.ndarray:
    """Of 20 ladders at each rung, shape (ladders, rungs, draws)."""
    record = sampling.Trace(
        lambda energy, state: jax.vmap(energy)(state.replicas).astype(float), of="state"
    )
    found = tg.sample(
        tg.ParallelTempering(BETAS),
        model(),
        BETAS[-1],
        key=jax.random.key(0),
        n_chains=20,
        n_sweeps=5 * n_draws,
        thin=5,
        burn_in=200,
        observers=record,
    )
    return np.swapaxes(np.asarray(found), 1, 2)


def ours(record: np.ndarray) -> float:
    found = sampling.multi_histogram(record, BETAS, n_spins=N_SPINS)
    return float(found.log_partition(BETAS[-1])[0])


def pymbar(record: np.ndarray, protocol="default") -> float:
    from pymbar import MBAR

    draws = np.swapaxes(record, 0, 1).reshape(len(BETAS), -1)
    reduced = BETAS[:, None] * draws.ravel()
    counts = np.full(len(BETAS), draws.shape[1])
    found = MBAR(reduced, counts, solver_protocol=protocol).compute_free_energy_differences()
    return float(N_SPINS * np.log(2) - found["Delta_f"][0, -1])


def case(title: str, n_draws: int) -> list[_peers.Row]:
    record = energies(n_draws)
    runs = {(_peers.OURS, _peers.OURS): functools.partial(ours, record)}
    for who, options in {"pymbar": (), "pymbar, adaptive": (({"method": "adaptive"},),)}.items():
        if _peers.able(who, "pymbar"):
            _peers.now.tell(who, "pymbar")
            runs[who, "pymbar"] = functools.partial(pymbar, record, *options)
            np.testing.assert_allclose(runs[who, "pymbar"](), ours(record), atol=1e-4)
    jax.clear_caches()
    measured = _peers.duel(runs) + _peers.missing("pymbar")
    return _peers.rows("ln Z from samples", title, "ms", _peers.milli(measured), False)


def cases() -> dict[str, _peers.Case]:
    return {
        (title := f"{N_SPINS} spins, {len(BETAS)} rungs, {20 * n} draws of each"): (
            functools.partial(case, title, n)
        )
        for n in DRAWS
    }


def main() -> None:
    _watch.alone(cases())
