"""Samplers, estimators, searches and objectives on the hard families: right, or said not to be."""

import functools
import warnings

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import HARD, LARGE

import thermogen as tg
from thermogen import learning, sampling

N_CHAINS = 2000
SIGMAS = 5.0  # one false alarm in a million comparisons


@functools.cache
def listed(name: str):
    """Configurations, energies and Boltzmann probabilities of a small hard model."""
    hard = HARD[name]
    table = helpers.energy_table(hard.energy)
    p, _ = helpers.boltzmann(hard.energy, hard.beta)
    return helpers.configurations(hard.energy.n_spins), table, p


# --- samplers

SAMPLERS = {
    "Gibbs": tg.Gibbs(),
    "Metropolis": tg.Metropolis(),
    "tempering": tg.ParallelTempering([0.5, 1.0], kernel=tg.Metropolis()),
}
# A ladder costs seconds of compilation: one of each kind.
TEMPERED = [
    "antiferromagnetic ring of 5",
    "no interaction at all",
    "strong field",
    "cold glass",
]
SAMPLED = [(name, s) for name in HARD for s in SAMPLERS if s != "tempering" or name in TEMPERED]


@pytest.mark.further
@pytest.mark.parametrize(("name", "sampler"), SAMPLED)
def test_samplers_keep_the_law_of_hard_models(name, sampler):
    hard, (spins, table, p) = HARD[name], listed(name)
    start = np.random.default_rng(0).choice(len(p), N_CHAINS, p=p)
    drawn = tg.sample(
        SAMPLERS[sampler],
        hard.energy,
        hard.beta,
        key=jax.random.key(1),
        n_chains=N_CHAINS,
        n_sweeps=3,
        thin=3,
        init=spins[start],
    )[:, 0]
    seen = np.concatenate([drawn, np.asarray(jax.vmap(hard.energy)(drawn))[:, None]], axis=1)
    observables = np.concatenate([spins, table[:, None]], axis=1)
    mean = p @ observables
    error = np.sqrt(np.maximum(p @ observables**2 - mean**2, 0) / N_CHAINS)
    assert np.all(np.abs(seen.mean(axis=0) - mean) <= SIGMAS * error + 1e-12)


@pytest.mark.parametrize(("name", "sampler"), [x for x in SAMPLED if HARD[x[0]].kind != "cold"])
def test_samplers_forget_where_they_start(name, sampler):
    """From one corner: the pair correlations, which rules without chance keep for ever."""
    hard, (spins, _, p) = HARD[name], listed(name)
    n = hard.energy.n_spins
    drawn = tg.sample(
        SAMPLERS[sampler],
        hard.energy,
        min(hard.beta, 0.5),
        key=jax.random.key(2),
        n_chains=N_CHAINS,
        n_sweeps=40,
        thin=40,
        init=np.ones(n),
    )[:, 0]
    p, _ = helpers.boltzmann(hard.energy, min(hard.beta, 0.5))
    pairs = np.triu_indices(n, 1)
    products = (spins[:, :, None] * spins[:, None, :])[:, pairs[0], pairs[1]]
    seen = np.asarray(drawn)[:, pairs[0]] * np.asarray(drawn)[:, pairs[1]]
    mean = p @ products
    error = np.sqrt(np.maximum(1 - mean**2, 0) / N_CHAINS)
    assert np.all(np.abs(seen.mean(axis=0) - mean) <= SIGMAS * error + 1e-12)


# --- estimators of ln Z

ESTIMATORS = {
    "annealing": lambda energy, betas, key: tg.annealed_importance_sampling(
        energy, betas, key=key, n_chains=200
    ),
    "population": lambda energy, betas, key: sampling.population_annealing(
        energy, betas, key=key, n_chains=200
    ),
    "integration": lambda energy, betas, key: sampling.thermodynamic_integration(
        energy, betas, key=key, n_chains=30, n_sweeps=40, burn_in=40
    ),
}
# One of each kind; each costs the compilation of every estimator.
ESTIMATED = [
    "antiferromagnetic ring of 5",
    "ferromagnetic ring of 4",
    "rare spins",
    "cold glass",
    *LARGE,
]


@pytest.mark.further
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
@pytest.mark.parametrize("name", ESTIMATED)
def test_estimates_of_hard_models_hold_or_say_that_they_fail(name, estimator):
    hard = {**HARD, **LARGE}[name]
    betas = jnp.linspace(0, hard.beta, 41)
    found = ESTIMATORS[estimator](hard.energy, betas, jax.random.key(3))
    error = float(found.standard_error)
    if found.result == tg.RESULTS.converged:
        assert abs(float(found.log_partition) - hard.log_partition) <= SIGMAS * error + 1e-9
    else:
        assert np.isinf(error)


# --- objectives


def _rows(kind: str) -> np.ndarray:
    """600 samples of 6 spins."""
    rng = np.random.default_rng(4)
    rates = {"rare": 0.01, "common": 0.99, "fair": 0.5}
    if kind in rates:
        return np.where(rng.random((600, 6)) < rates[kind], 1.0, -1.0)
    rows = np.where(rng.random((600, 6)) < 0.3, 1.0, -1.0)
    if kind == "constant":
        rows[:, 2] = -1
    if kind == "mirrored":
        rows = np.concatenate([rows[:300], -rows[:300]])
    return rows


KINDS = ["rare", "common", "fair", "constant", "mirrored"]
OBJECTIVES = {
    "pseudolikelihood": (tg.Pseudolikelihood(), None),
    "likelihood": (tg.ExactLikelihood(), learning.L2(1e-3)),
    "probability flow": (learning.MinimumProbabilityFlow(), learning.L2(1e-3)),
}


@pytest.mark.further
@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("kind", KINDS)
def test_learned_rates_are_those_of_the_data(kind, objective):
    """No default pulls on fields: of independent spins every consistent way finds the means."""
    rows = _rows(kind)
    way, penalty = OBJECTIVES[objective]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = tg.fit(
            way,
            tg.Pairwise(np.zeros((6, 6)), np.zeros(6)),
            rows,
            penalty=penalty,
            key=jax.random.key(0),
        )
    if kind == "constant" and objective != "pseudolikelihood":
        assert "constant" in str(caught[0].message)
        return
    assert found.result == tg.RESULTS.converged
    model = (1 + np.asarray(tg.exact.magnetizations(found.energy, 1.0))) / 2
    rate = (1 + rows.mean(axis=0)) / 2
    # Half a sample for a spin that is constant; else what a ridge of couplings leaves.
    np.testing.assert_allclose(model, np.clip(rate, 0.5 / 600, None), atol=2e-3, rtol=0.15)
