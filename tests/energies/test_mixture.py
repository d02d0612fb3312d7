"""A mixture of experts keeps the promises of an energy, whatever its experts are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ENERGIES, configurations, energy_table, product_measure, redrawn

import thermogen as tg
from thermogen import energies

N = 6
WEIGHTS = np.array([0.2, 0.3, 0.5])


def make(name: str, scale: float = 1.5) -> tuple[tg.Mixture, np.ndarray]:
    """A mixture of three experts, and its table of energies by the definition."""
    template = ENERGIES[name](N, jax.random.key(3))
    experts = [redrawn(template, seed, scale) for seed in range(3)]
    tables = [energy_table(expert) for expert in experts]
    log_partitions = [np.logaddexp.reduce(-table) for table in tables]
    v = energies.n_visible(template)
    probability = np.zeros(2**v)
    for weight, table, log_z in zip(WEIGHTS, tables, log_partitions, strict=True):
        # Hidden spins are the high bits of the index.
        p = np.exp(-table - log_z).reshape(-1, 2**v).sum(axis=0)
        probability += weight * p
    return tg.Mixture.of(experts, WEIGHTS, log_partitions), -np.log(probability)


@pytest.fixture(scope="module", params=list(ENERGIES))
def case(request):
    return make(request.param)


@jax.jit
@jax.vmap
def everything(mixture, s):
    fields = [energies.conditional_field(mixture, 1.0, s, k) for k in range(s.size)]
    return {
        "energy": mixture(s),
        "gaps": tg.flip_gaps(mixture, s),
        "fields": energies.conditional_fields(mixture, 1.0, s),
        "single fields": jnp.stack(fields),
        "responsibilities": mixture.responsibilities(s),
    }


@pytest.mark.further
def test_energy_gaps_and_fields_are_those_of_the_table(case):
    mixture, table = case
    n = mixture.n_spins
    s = configurations(n)
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(s), *x.shape)), mixture)
    ours = everything(batch, s)
    flipped = np.arange(2**n)[:, None] ^ (1 << np.arange(n))
    gaps = table[flipped] - table[:, None]
    np.testing.assert_allclose(ours["energy"], table, rtol=1e-11)
    np.testing.assert_allclose(ours["gaps"], gaps, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours["fields"], 0.5 * s * gaps, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours["single fields"], ours["fields"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(np.sum(ours["responsibilities"], axis=1), 1, rtol=1e-12)


@pytest.mark.further
def test_complete_table_and_normalisation(case):
    mixture, table = case
    np.testing.assert_allclose(tg.exact.energies(mixture), table, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(tg.exact.log_partition(mixture, 1.0), 0.0, atol=1e-12)
    np.testing.assert_allclose(mixture.weights, WEIGHTS, rtol=1e-12)


@pytest.mark.further
def test_value_at_magnetizations_bounds_the_mean(case):
    mixture, table = case
    n = mixture.n_spins
    points = np.random.default_rng(0).uniform(-1, 1, (20, n))
    bound = jax.jit(jax.vmap(energies.product_mean, (None, 0)))(mixture, jnp.asarray(points))
    means = np.array([product_measure(m) @ table for m in points])
    assert np.all(bound >= means - 1e-12)
    assert np.any(bound > means + 1e-3)  # it is a bound, no equality
    # At corners it is the energy itself.
    corner = configurations(n)[3]
    np.testing.assert_allclose(mixture(corner), table[3], rtol=1e-12)


@pytest.mark.further
def test_naive_mean_field_bounds_the_free_energy():
    mixture, _ = make("pairwise", scale=3.0)
    library = tg.find_minima(tg.NaiveMeanField(), mixture, 1.0, key=jax.random.key(1), n_starts=32)
    assert library.size >= 2
    assert library.free_energies[0] > 0  # -ln Z of a normalised mixture
    assert np.all(library.residuals < 1e-8)


def test_expansion_beyond_the_mean_is_refused():
    mixture, _ = make("pairwise")
    with pytest.raises(TypeError, match="Mixture"):
        tg.TAP()(mixture, 1.0, np.zeros(N))


@pytest.mark.further
@pytest.mark.parametrize("name", ["pairwise", "rbm"])
@pytest.mark.parametrize("sampler", [tg.Gibbs(), tg.Metropolis()], ids=["gibbs", "metropolis"])
def test_samplers_leave_the_mixture_invariant(name, sampler):
    """From exact samples, a few sweeps at beta = 0.7 change nothing: chi-square within 5 sigma."""
    mixture, table = make(name, scale=1.0)
    n, count = mixture.n_spins, 2**14
    p = np.exp(-0.7 * table)
    p /= p.sum()
    rows = np.random.default_rng(1).choice(2**n, count, p=p)
    spins = tg.sample(
        sampler,
        mixture,
        0.7,
        key=jax.random.key(4),
        n_chains=count,
        n_sweeps=3,
        thin=3,
        init=configurations(n)[rows],
    )[:, -1]
    seen = np.asarray(tg.index_from_spins(spins))
    assert np.mean(seen != rows) > 0.3
    chi2 = np.sum((np.bincount(seen, minlength=2**n) - count * p) ** 2 / (count * p))
    dof = 2**n - 1
    assert abs(chi2 - dof) < 5 * np.sqrt(2 * dof)


@pytest.mark.further
def test_certified_states_are_those_of_the_exact_dynamics():
    mixture, _ = make("pairwise", scale=5.0)
    times = tg.exact.relaxation_times(mixture, 1.0)
    slow = int(np.sum(times > 20)) + 1
    assert not np.any((times > 10) & (times < 40))
    starts = configurations(N)
    minima = tg.kinetics.flip_minima(mixture, starts)
    certificate = tg.certify(mixture, 1.0, minima, key=jax.random.key(2), threshold=20)
    assert certificate.n_bound == slow


@pytest.mark.further
def test_learning_moves_experts_and_weights_and_finds_any_distribution():
    """The exact gradient of the mixture, and a fit that reaches the entropy of its data."""
    mixture, _ = make("pairwise", scale=0.2)
    data = configurations(N)[[3, 12, 49, 29, 42]]
    fitted = tg.fit(tg.ExactLikelihood(), mixture, data, key=jax.random.key(0))
    np.testing.assert_allclose(fitted.history[-1], np.log(5), atol=1e-3)
    change = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), fitted.energy, mixture)
    assert change.log_partitions == 0
    assert change.log_weights > 0
    again = tg.experts.normalised(fitted.energy, key=jax.random.key(1))
    np.testing.assert_allclose(tg.exact.log_partition(again, 1.0), 0.0, atol=1e-9)
    np.testing.assert_allclose(
        tg.exact.probabilities(again, 1.0), tg.exact.probabilities(fitted.energy, 1.0), atol=1e-9
    )


def test_penalties_leave_the_weights_alone():
    mixture, _ = make("complete")
    degrees = energies.parameter_degrees(mixture)
    assert degrees.log_weights == 0
    assert degrees.experts.couplings.shape == mixture.experts.couplings.shape
    squares = sum(float(energies.squared_norm(mixture.expert(a))) for a in range(3))
    np.testing.assert_allclose(energies.squared_norm(mixture), squares, rtol=1e-12)


def test_precision_is_that_of_the_experts_and_weights_are_traced():
    pairs = [ENERGIES["pairwise"](N, jax.random.key(k)) for k in range(2)]
    pairs = jax.tree.map(lambda x: x.astype(jnp.float32), pairs)
    s = jnp.ones(N, jnp.float32)
    value = jax.jit(lambda w: tg.Mixture.of(pairs, w, np.zeros(2))(s))(jnp.array([1.0, 3.0]))
    assert value.dtype == jnp.float32
    expected = -np.log(0.25 * np.exp(-pairs[0](s)) + 0.75 * np.exp(-pairs[1](s)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_bad_input_is_named():
    pair = ENERGIES["pairwise"](N, jax.random.key(0))
    other = ENERGIES["pairwise"](N + 1, jax.random.key(0))
    with pytest.raises(ValueError, match="one class and one shape"):
        tg.Mixture.of([pair, other], [0.5, 0.5], [0.0, 0.0])
    with pytest.raises(ValueError, match="weights must be positive"):
        tg.Mixture.of([pair, pair], [1.0, 0.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="leading axis of experts"):
        tg.Mixture(pair, np.zeros(2), np.zeros(2))
