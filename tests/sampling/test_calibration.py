"""Error bars of ln Z on easy and on hard models: an interval holds, or the estimate is refused."""

import functools

import helpers
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from families import LARGE, on_graph
from scipy.special import logsumexp
from scipy.stats import binom
from scipy.stats import t as student

import thermogen as tg
from thermogen import sampling
from thermogen.sampling._annealing import log_mean
from thermogen.sampling._trust import judged_weights

N_SPINS, N_KEYS = 10, 3
RUNGS = np.linspace(0, 1, 9)
KERNEL_NAMES = {"gibbs": tg.Gibbs(), "metropolis": tg.Metropolis()}


def _models() -> dict[str, tuple[tg.Pairwise, tuple[float, ...]]]:
    """Models of one structure, each with inverse temperatures from easy to hard."""
    glasses = {
        f"glass {i}": (
            helpers.random_pairwise(N_SPINS, jax.random.key(i), fields=0.3 * (i % 2)),
            (0.5, 1.0, 2.0, 5.0, 10.0),
        )
        for i in range(6)
    }
    signs = np.random.default_rng(0).choice([-1.0, 1.0], N_SPINS)
    ring = nx.cycle_graph(N_SPINS)
    frustrated = np.zeros((N_SPINS, N_SPINS))
    for k in range(N_SPINS):
        frustrated[k, (k + 1) % N_SPINS] = frustrated[(k + 1) % N_SPINS, k] = signs[k]
    return glasses | {
        "ring": (on_graph(ring, 1.0), (0.05, 0.5, 1.0, 2.0, 4.0)),
        "frustrated ring": (tg.Pairwise(frustrated, np.zeros(N_SPINS)), (0.5, 1.0, 2.0, 4.0, 8.0)),
        "ferromagnet": (on_graph(nx.complete_graph(N_SPINS), 0.1), (0.5, 1.0, 2.0, 4.0, 8.0)),
        "free": (on_graph(ring, 0.0), (1.0,)),
    }


@functools.cache
def _batch():
    """Energies times beta, so that one ladder serves all; ln Z of each; whether it is easy."""
    pairs = [(e, b) for e, betas in _models().values() for b in betas]
    scaled = [jax.tree.map(lambda x, b=b: b * x, e) for e, b in pairs]
    exact = [logsumexp(-helpers.energy_table(e)) for e in scaled]
    return helpers.stacked(scaled), np.array(exact), np.array([b <= 1 for _, b in pairs])


def _annealing(kernel, energy, key):
    path = jnp.linspace(0, 1, 33)
    return tg.annealed_importance_sampling(energy, path, key=key, n_chains=100, kernel=kernel)


def _reverse_annealing(kernel, energy, key):
    spins = tg.enumerate_spins(N_SPINS)
    index = jax.random.categorical(key, -jax.vmap(energy)(spins), shape=(100,))
    return sampling.reverse_annealed_importance_sampling(
        energy, jnp.linspace(0, 1, 33), spins[index], key=jax.random.fold_in(key, 1), kernel=kernel
    )


def _population(kernel, energy, key):
    return sampling.population_annealing(energy, RUNGS, key=key, n_chains=30, kernel=kernel)


def _integral(kernel, energy, key):
    return sampling.thermodynamic_integration(
        energy, RUNGS, key=key, n_chains=20, n_sweeps=30, burn_in=20, kernel=kernel
    )


def _reweighting(kernel, energy, key):
    return sampling.multi_histogram_reweighting(
        energy, RUNGS, key=key, n_chains=20, n_sweeps=30, burn_in=20, kernel=kernel
    ).log_partition(1.0)


# And the degrees of freedom of its error bar.
ESTIMATORS = {
    "annealing": (_annealing, 99),
    "reverse annealing": (_reverse_annealing, 99),
    "population annealing": (_population, 19),
    "integration": (_integral, 19),
    "reweighting": (_reweighting, 19),
}


@functools.cache
def _runs(name, kernel):
    """Compiled: energies, and keys of shape `(keys, energies)`."""
    estimate = functools.partial(ESTIMATORS[name][0], KERNEL_NAMES[kernel])
    return jax.jit(jax.vmap(jax.vmap(estimate), in_axes=(None, 0)))


@pytest.mark.further
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kernel", ["gibbs", pytest.param("metropolis", marks=pytest.mark.slow)])
def test_an_interval_holds_or_there_is_none(kernel, name):
    """Of the answers given, with Student's quantile; and easy models are answered."""
    energies, exact, is_easy = _batch()
    freedom = ESTIMATORS[name][1]
    keys = jax.random.split(jax.random.key(0), (N_KEYS, len(exact)))
    found = _runs(name, kernel)(energies, keys)
    errors, answered = np.asarray(found.standard_error), np.isfinite(found.standard_error)
    np.testing.assert_array_equal(answered, np.asarray(found.result == tg.RESULTS.converged))
    assert np.all(np.isfinite(found.log_partition))
    # Where nothing is left to chance rounding is all there is.
    misses = np.abs(np.asarray(found.log_partition) - exact)
    held = misses < student.ppf(0.975, freedom) * errors + 1e-9
    n_answers = answered.sum()
    assert binom.cdf(held[answered].sum(), n_answers, 0.92) > 1e-3, held[answered].mean()
    assert np.all(misses[answered] < 8 * errors[answered] + 1e-9)
    assert np.mean(answered[:, is_easy]) > 0.95


def _held_by_most(misses, errors, freedom) -> bool:
    """Whether answers hold at 95 %, by three standard errors of their number about 93 to 98 %."""
    answered = np.isfinite(errors)
    n_answers = np.sum(answered)
    share = np.mean(np.abs(misses[answered]) < student.ppf(0.975, freedom) * errors[answered])
    noise = 3 * np.sqrt(0.95 * 0.05 / n_answers)
    return 0.93 - noise < share < 0.98 + noise


@pytest.mark.parametrize(("n", "width"), [(20, 1.4), (100, 1.15), (500, 1.06)])
def test_skewed_weights_hold_what_they_claim(n, width):
    """Log-normal weights of mean 1, from even ones to such that a fifth counts. Where thirty
    of a hundred were an answer normal bars held in 91 % (width 1) and 76 % (width 1.3) of them."""

    @jax.jit
    @jax.vmap
    def run(key, scale):
        log_weights = scale * jax.random.normal(key, (n,)) - scale**2 / 2
        value, error, ess = log_mean(log_weights)
        answered = judged_weights(log_weights, ess) == tg.RESULTS.converged
        return value, jnp.where(answered, error, jnp.inf)

    n_keys = 2000
    scales = np.repeat([0.2, 0.6, 1.0, 1.25], n_keys)
    keys = jax.random.split(jax.random.key(n), scales.size)
    values, errors = (np.asarray(x) for x in run(keys, scales))
    assert _held_by_most(values, errors, n - 1)
    even = errors[scales == 0.6]
    assert np.mean(np.isfinite(even)) > 0.99
    assert np.median(even) < width * np.sqrt(np.expm1(0.6**2) / n)


@pytest.mark.further
@pytest.mark.parametrize(
    "name",
    [
        "annealing",
        "reverse annealing",
        "population annealing",
        pytest.param("integration", marks=pytest.mark.further),
        pytest.param("reweighting", marks=pytest.mark.further),
    ],
)
def test_intervals_of_a_magnet_hold(name):
    """Curie-Weiss at zero field, from its disordered phase to where the ladder is too coarse."""
    betas = np.geomspace(0.5, 10, len(_batch()[1]))
    magnet = on_graph(nx.complete_graph(N_SPINS), 1 / N_SPINS)
    energies = helpers.stacked([jax.tree.map(lambda x, b=b: b * x, magnet) for b in betas])
    exact = logsumexp(-betas[:, None] * helpers.energy_table(magnet), axis=1)
    keys = jax.random.split(jax.random.key(1), (4, N_KEYS, len(betas)))
    found = [_runs(name, "gibbs")(energies, k) for k in keys]  # compiled for this shape
    values, errors = (np.concatenate([np.asarray(f[i]) for f in found]) for i in (0, 1))
    assert _held_by_most(values - exact, errors, ESTIMATORS[name][1])
    assert np.mean(np.isfinite(errors)) > 0.8


def kaufman(size: int, beta: float) -> float:
    """ln Z of the ferromagnet on a torus of size x size spins (Kaufman 1949)."""

    def gamma(k):
        if k == 0:
            return 2 * beta + np.log(np.tanh(beta))
        return np.arccosh(np.cosh(2 * beta) / np.tanh(2 * beta) - np.cos(k * np.pi / size))

    odd, even = (np.array([gamma(2 * k + s) for k in range(size)]) for s in (1, 0))
    products = [f(x * size / 2) for x in (odd, even) for f in (np.cosh, np.sinh)]
    logs = np.array([np.log(2 * np.abs(f)).sum() for f in products])
    signs = np.array([1, 1, 1, np.sign(even[0])])
    half = size**2 / 2 * np.log(2 * np.sinh(2 * beta))
    return float(half + logsumexp(logs, b=signs) - np.log(2))


def _torus(size: int) -> tg.Interactions:
    site = np.arange(size**2).reshape(size, size)
    pairs = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
    pairs = np.concatenate(pairs)
    return tg.Interactions(size**2, [pairs], [np.ones(len(pairs))])


ON_TORUS = {
    "annealing": lambda energy, betas: tg.annealed_importance_sampling(
        energy, betas, key=jax.random.key(0), n_chains=100
    ),
    "population annealing": lambda energy, betas: sampling.population_annealing(
        energy, betas, key=jax.random.key(0), n_chains=20
    ),
    "integration": lambda energy, betas: sampling.thermodynamic_integration(
        energy, betas, key=jax.random.key(0), n_chains=20, n_sweeps=20, burn_in=20
    ),
}


@pytest.mark.further
@pytest.mark.parametrize("name", ON_TORUS)
def test_a_magnet_below_its_critical_temperature_is_refused(name):
    """32 x 32 spins, where domains freeze: 1429.0(9) was claimed for 1438.6. Hot it is easy."""
    energy = _torus(32)
    cold, hot = (ON_TORUS[name](energy, np.linspace(0, b, 101)) for b in (0.7, 0.1))
    codes = {"integration": tg.RESULTS.not_relaxed}
    assert cold.result == codes.get(name, tg.RESULTS.few_weights)
    assert cold.standard_error == np.inf
    assert abs(kaufman(32, 0.7) - 1438.62) < 0.01
    assert hot.result == tg.RESULTS.converged
    assert abs(hot.log_partition - kaufman(32, 0.1)) < 4 * hot.standard_error < 1


@pytest.mark.further
def test_a_magnet_in_its_ordered_phase():
    """Curie-Weiss, 64 spins: both ends of the magnet are as good, and annealing finds either."""
    energy, beta = LARGE["Curie-Weiss, 64, ordered"].energy, LARGE["Curie-Weiss, 64, ordered"].beta
    found = tg.annealed_importance_sampling(
        energy, np.linspace(0, beta, 501), key=jax.random.key(0), n_chains=100
    )
    exact = LARGE["Curie-Weiss, 64, ordered"].log_partition
    assert found.result == tg.RESULTS.converged
    assert abs(found.log_partition - exact) < 3 * found.standard_error < 1


@pytest.mark.further
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_a_ring_of_eight(kernel):
    """Where Metropolis was a clock: 7.2(5) came for 9.12."""
    energy, kernel = on_graph(nx.cycle_graph(8), 1.0), KERNEL_NAMES[kernel]
    exact = np.log((2 * np.cosh(1.0)) ** 8 + (2 * np.sinh(1.0)) ** 8)
    betas, common = np.linspace(0, 1, 11), {"key": jax.random.key(1), "kernel": kernel}
    counts = {"n_chains": 30, "n_sweeps": 100, "burn_in": 50}
    for found in (
        sampling.thermodynamic_integration(energy, betas, **counts, **common),
        sampling.multi_histogram_reweighting(energy, betas, **counts, **common).log_partition(1.0),
        tg.annealed_importance_sampling(energy, betas, n_chains=300, **common),
        sampling.population_annealing(energy, betas, n_chains=100, **common),
    ):
        assert found.result == tg.RESULTS.converged
        assert abs(found.log_partition - exact) < 3.5 * found.standard_error < 0.5
