"""Objectives against enumeration, and `fit` against an optimiser and losses written apart."""

import re

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize
from scipy.special import comb, expit

import thermogen as tg
from thermogen import _checks
from thermogen.energies import constrain, n_visible
from thermogen.learning import (
    L1,
    L2,
    AbstractMinimiser,
    AbstractObjective,
    ContrastiveDivergence,
    MinimumProbabilityFlow,
    Samples,
)
from thermogen.learning._verdict import entropy_of, judged
from thermogen.meanfield import AbstractFunctional
from thermogen.walsh import degrees

CASES = [(o, e) for o, (_, energies) in helpers.OBJECTIVES.items() for e in energies]
EXACT = [
    (o, e) for o, e in CASES if o in ("pseudolikelihood", "probability-flow", "mean-field", "exact")
]
# Widths of a normal distribution that no estimate here may miss its expectation by.
SIGMAS = 5
# Made once: programs are shared by fits that share the optimiser.
ADAM = optax.adam(1e-2)
SGD = optax.sgd(1.0)


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _samples(energy: tg.AbstractMultilinear, n_samples: int, seed: int = 0) -> np.ndarray:
    """Exact independent samples of the visible spins at beta = 1."""
    p, _ = helpers.boltzmann(energy, 1.0)
    rows = np.random.default_rng(seed).choice(len(p), n_samples, p=p)
    return helpers.configurations(energy.n_spins)[rows, : n_visible(energy)]


def _visible_table(energy: tg.AbstractMultilinear) -> np.ndarray:
    """Free energy of each visible configuration, hidden spins summed out by enumeration."""
    v = n_visible(energy)
    table = helpers.energy_table(energy)
    if v == energy.n_spins:
        return table
    # Visible spins are the low bits.
    return -np.logaddexp.reduce(-table.reshape(-1, 2**v), axis=0)


def _nll(energy: tg.AbstractMultilinear, data: np.ndarray) -> float:
    """Exact negative log-likelihood per sample at beta = 1."""
    rows = (data > 0).astype(int) @ (1 << np.arange(data.shape[1]))
    return _visible_table(energy)[rows].mean() + helpers.boltzmann(energy, 1.0)[1]


def _energy(name: str, scale: float = 1.0) -> tg.AbstractMultilinear:
    """Four spins; few orders of interaction keep the compilations short."""
    options = {"orders": (1, 3)} if name == "interactions" else {}
    return helpers.ENERGIES[name](4, _key(4), scale=scale, **options)


def _equal(data) -> Samples:
    """Samples of equal weight."""
    return Samples(jnp.asarray(data), jnp.full(len(data), 1 / len(data)))


@eqx.filter_jit
def _loss(objective, energy, data, state, key):
    return objective.loss(constrain(energy), _equal(data), state, key)


@eqx.filter_jit
def _loss_and_gradient(objective, energy, data, state, key):
    def loss(energy):
        return objective.loss(constrain(energy), _equal(data), state, key)

    (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(energy)
    return value, gradient, state


def _inner(a, b) -> float:
    products = jax.tree.map(lambda x, y: float(np.sum(np.asarray(x) * np.asarray(y))), a, b)
    return sum(jax.tree.leaves(products))


# Data of so few configurations that some parameters run to infinity, as `fit` warns.
poor_data = pytest.mark.filterwarnings("ignore:data. ")


# --- every objective


@pytest.mark.parametrize(("objective", "name"), CASES)
def test_objective_contract(objective, name):
    objective, _ = helpers.OBJECTIVES[objective]
    energy = _energy(name, 0.5)
    data = jnp.asarray(_samples(energy, 32))
    state = objective.init(energy, _equal(data), _key(1))
    value, gradient, new_state = _loss_and_gradient(objective, energy, data, state, _key(2))
    assert value.shape == () and value.dtype == data.dtype and np.isfinite(value)
    assert jax.tree.structure(gradient) == jax.tree.structure(energy)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(energy), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype and np.all(np.isfinite(x))
    # The state can be carried by a scan.
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(new_state), jax.tree.leaves(state), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
    if name == "pairwise":
        # The constraint makes it a gradient of valid couplings.
        couplings = np.asarray(gradient.couplings)
        np.testing.assert_allclose(couplings, couplings.T, atol=1e-15)
        np.testing.assert_array_equal(np.diagonal(couplings), 0)
        assert np.any(couplings != 0)
    defaults = objective.defaults
    assert defaults.n_steps >= 1 and isinstance(defaults.optimizer, AbstractMinimiser)


@pytest.mark.parametrize(("objective", "name"), EXACT)
def test_gradient_is_the_finite_difference(objective, name):
    objective, _ = helpers.OBJECTIVES[objective]
    energy = _energy(name, 0.5)
    data = jnp.asarray(_samples(energy, 32))
    state = objective.init(energy, _equal(data), _key(1))
    rng = np.random.default_rng(0)
    raw = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), energy)
    direction = jax.jit(constrain)(raw)
    _, gradient, _ = _loss_and_gradient(objective, energy, data, state, _key(2))

    def at(step):
        moved = jax.tree.map(lambda x, d: x + step * d, energy, direction)
        return float(_loss_and_gradient(objective, moved, data, state, _key(2))[0])

    slope = (at(1e-4) - at(-1e-4)) / 2e-4
    assert abs(slope) > 1e-2
    np.testing.assert_allclose(_inner(gradient, direction), slope, rtol=1e-6)


def test_constrain_projects_compiled_or_not():
    """Any values of the parameters become valid ones, so that an optimiser may wander."""
    rng = np.random.default_rng(0)
    raw = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), _zeros(4))
    compiled = jax.jit(constrain)(raw)
    np.testing.assert_array_equal(compiled.couplings, compiled.couplings.T)
    np.testing.assert_array_equal(jnp.diagonal(compiled.couplings), 0)
    np.testing.assert_array_equal(constrain(raw).couplings, compiled.couplings)


# --- pseudolikelihood


@pytest.mark.parametrize("name", ["pairwise", "interactions"])
def test_pseudolikelihood_is_the_enumerated_one(name):
    n, energy = 4, _energy(name)
    data = _samples(energy, 50)
    table = helpers.energy_table(energy)
    index = np.arange(2**n)
    # P(s_k | rest) = p(s) / (p(s) + p(flip_k s))
    surprise = sum(np.logaddexp(0, table - table[index ^ (1 << k)]) for k in range(n))
    expected = surprise[(data > 0).astype(int) @ (1 << np.arange(n))].mean()
    value, _ = _loss(tg.Pseudolikelihood(l2=0.0), energy, jnp.asarray(data), None, _key(0))
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_penalty_counts_each_coupling_once_and_no_field():
    couplings = np.array([[0, 2.0, 0], [2.0, 0, 0], [0, 0, 0]])
    pairwise = tg.Pairwise(couplings, np.array([0.5, 0, 1.0]))
    interactions = tg.Interactions.from_terms(3, {(0,): 0.5, (2,): 1.0, (0, 1): 2.0})
    data = jnp.ones((1, 3))
    for energy in (pairwise, interactions):
        values = [
            _loss(tg.Pseudolikelihood(l2), energy, data, None, _key(0))[0] for l2 in (0.0, 3.0)
        ]
        np.testing.assert_allclose(values[1] - values[0], 3.0 * 2.0**2, rtol=1e-12)


def _numpy_pseudolikelihood(x, data, l2, weights=None):
    """Loss and gradient by the independent couplings `J_ij, i < j`, then the fields."""
    n = data.shape[1]
    weights = np.full(len(data), 1 / len(data)) if weights is None else weights
    pairs = np.triu_indices(n, 1)
    j = np.zeros((n, n))
    j[pairs] = x[: len(pairs[0])]
    h = x[len(pairs[0]) :]
    margin = 2 * data * (data @ (j + j.T) + h)
    pull = -2 * data * expit(-margin)
    by_j = pull[:, pairs[0]] * data[:, pairs[1]] + data[:, pairs[0]] * pull[:, pairs[1]]
    ridge = np.where(np.arange(len(x)) < len(pairs[0]), l2, 0)
    gradient = weights @ np.concatenate([by_j, pull], axis=1) + 2 * ridge * x
    return weights @ np.logaddexp(0, -margin).sum(axis=1) + np.sum(ridge * x**2), gradient


def _flat(energy: tg.Pairwise) -> np.ndarray:
    pairs = np.triu_indices(energy.n_spins, 1)
    return np.concatenate([np.asarray(energy.couplings)[pairs], np.asarray(energy.fields)])


def _zeros(n: int, dtype=float) -> tg.Pairwise:
    return tg.Pairwise(np.zeros((n, n), dtype), np.zeros(n, dtype))


@pytest.mark.further
def test_fit_finds_the_optimum_that_scipy_finds():
    data = _samples(helpers.random_pairwise(4, _key(4), scale=1.5), 40)
    l2 = 0.02
    fitted = tg.fit(tg.Pseudolikelihood(l2), _zeros(4), data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    value, gradient = _numpy_pseudolikelihood(_flat(fitted.energy), data, l2)
    # Half of each bond is the share of J_ij, so the tolerance of 1e-5 there is twice that here.
    assert np.abs(gradient).max() <= 2e-5
    np.testing.assert_allclose(fitted.history[-1], value, rtol=1e-12)

    options = {"ftol": 1e-15, "gtol": 1e-10}
    best = minimize(
        _numpy_pseudolikelihood, np.zeros(10), (data, l2), "L-BFGS-B", jac=True, options=options
    )
    np.testing.assert_allclose(_flat(fitted.energy), best.x, atol=1e-4)
    assert np.abs(best.x).max() > 0.3


def test_pseudolikelihood_recovers_known_couplings():
    """Within the sandwich covariance of the estimator, computed by enumeration."""
    n, n_samples = 6, 20_000
    truth = helpers.random_pairwise(n, _key(6))
    p, _ = helpers.boltzmann(truth, 1.0)
    s, x = helpers.configurations(n), _flat(truth)
    scores = np.array([_numpy_pseudolikelihood(x, row[None], 0.0)[1] for row in s])
    step = 1e-5
    ends = [
        [_numpy_pseudolikelihood(x + sign * step * unit, s, 0.0, p)[1] for sign in (1, -1)]
        for unit in np.eye(len(x))
    ]
    hessian = np.diff(ends, axis=1)[:, 0] / (-2 * step)
    inverse = np.linalg.inv(hessian)
    sandwich = inverse @ (scores.T * p) @ scores @ inverse.T
    sigma = np.sqrt(np.diagonal(sandwich) / n_samples)
    assert sigma.max() < 0.03  # sharp enough to tell the couplings from zero
    assert np.sum(np.abs(x) > SIGMAS * sigma) > 12

    data = _samples(truth, n_samples)
    fitted = tg.fit(tg.Pseudolikelihood(0.0), _zeros(n), data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    assert np.all(np.abs(_flat(fitted.energy) - x) < SIGMAS * sigma)


@pytest.mark.further
@poor_data
def test_separable_data_are_reported():
    """Every spin follows from the others: the loss falls for ever."""
    pattern = np.array([1.0, -1, 1, 1])
    data = np.stack([pattern, -pattern])
    for objective in (tg.Pseudolikelihood(0.0), MinimumProbabilityFlow()):
        assert _fit(data=data, objective=objective).result == tg.RESULTS.separable
    assert _fit(data=data, objective=tg.Pseudolikelihood(0.01)).result == tg.RESULTS.converged
    penalised = _fit(data=data, objective=tg.Pseudolikelihood(0.0), penalty=L2(0.01))
    assert penalised.result == tg.RESULTS.converged


def test_one_spin_that_follows_from_the_others_does_not_make_data_separable():
    """Its couplings are those of the other spins too, so that the minimum is finite."""
    weights = np.array([0.43931859, 0.63337039, 1.05686985, 0.22533431, 0.71663803])
    rest = helpers.configurations(5)
    data = np.column_stack([np.sign(rest @ weights - 0.7329836931911936), rest])
    fitted = _fit(data=data, objective=tg.Pseudolikelihood(0.0))
    assert fitted.result == tg.RESULTS.converged
    assert np.abs(_flat(fitted.energy)).max() < 2


@pytest.mark.further
@pytest.mark.parametrize(
    ("rows", "objective", "message"),
    [
        ([[1, 1, -1], [1, -1, 1], [1, -1, -1]], tg.ExactLikelihood(), r"spins \[0\] are constant"),
        ([[1, 1, -1], [1, 1, 1], [-1, -1, 1]], tg.Pseudolikelihood(0.0), r"pairs \[\[0, 1\]\] are"),
    ],
)
def test_infinite_parameters_are_announced(rows, objective, message):
    """And the remedy that the warning names is one."""
    with pytest.warns(UserWarning, match=message) as caught:
        _fit(data=np.array(rows), objective=objective, n_steps=3)
    remedy = re.search(r"learning\.(L2\(.*?\)), or", str(caught[0].message))
    assert remedy is not None
    fitted = _fit(data=np.array(rows), objective=objective, penalty=eval(remedy[1]))
    assert fitted.result == tg.RESULTS.converged
    assert np.abs(_flat(fitted.energy)).max() < 10


def _rare(key, n_samples, fields):
    """Samples of pairwise models whose spins are up seldom or often, and their enumeration."""
    n = len(fields)
    energy = helpers.random_pairwise(n, _key(key), scale=0.5)
    energy = tg.Pairwise(energy.couplings, np.asarray(fields))
    p, _ = helpers.boltzmann(energy, 1.0)
    rng = np.random.default_rng(key)
    return helpers.configurations(n)[rng.choice(2**n, n_samples, p=p)]


RATES = {
    "rare": np.linspace(-3.5, -2, 6),
    "very rare": np.linspace(-4.8, -3.8, 6),
    "common": np.linspace(2, 3.5, 6),
    "biased": np.array([-3.0, 3, -2, 2, -1, 1]),
    "even": np.zeros(6),
}


@pytest.mark.further
@pytest.mark.parametrize("l2", [None, 1e-3, 1e-1])
@pytest.mark.parametrize("fields", RATES.values(), ids=list(RATES))
def test_penalties_leave_rates_as_the_data_have_them(fields, l2):
    """Fields are free: the conditional means are those of the data, in all, spin by spin.

    A spin that is constant turns in half a sample. With a strong ridge the rates themselves are
    those of the data, as couplings vanish.
    """
    n_samples = 20_000
    data = _rare(3, n_samples, fields)
    fitted = tg.fit(tg.Pseudolikelihood(l2), _zeros(6), data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    ups = (data > 0).sum(axis=0)
    fewest = np.minimum(ups, n_samples - ups)
    field = data @ np.asarray(fitted.energy.couplings) + np.asarray(fitted.energy.fields)
    conditional = n_samples * expit(2 * field).mean(axis=0)
    target = np.where(fewest > 0, ups, np.clip(ups, 0.5, n_samples - 0.5))
    np.testing.assert_allclose(conditional, target, atol=0.11, rtol=0)
    if l2 == 1e-1:
        p, _ = helpers.boltzmann(fitted.energy, 1.0)
        model = n_samples * p @ (helpers.configurations(6) > 0)
        np.testing.assert_allclose(model, target, atol=0.2, rtol=0.05)


@pytest.mark.parametrize("n_samples", [1, 2, 30])
def test_few_samples_and_constant_spins_have_finite_models(n_samples):
    """No warning, no infinite field: the rate of what never occurs is half a sample in N."""
    rng = np.random.default_rng(n_samples)
    data = np.sign(rng.normal(size=(n_samples, 6)))
    data[:, :2] = 1, -1
    fitted = tg.fit(tg.Pseudolikelihood(), _zeros(6), data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    constant = np.all(data == data[0], axis=0)
    rate = 0.5 / (n_samples + 0.5)
    np.testing.assert_allclose(
        expit(-2 * np.abs(np.asarray(fitted.energy.fields)[:2])), rate, rtol=1e-3
    )
    np.testing.assert_allclose(np.asarray(fitted.energy.couplings)[constant], 0, atol=1e-4)


@pytest.mark.further
def test_the_default_ridge_gives_way_to_evidence():
    """`n / (2 N)`, N whole weights added up, or as many even samples as others are worth."""
    data, energy = helpers.configurations(4)[[3, 5, 9, 14, 2]], helpers.random_pairwise(4, _key(1))
    ridge = np.sum(np.triu(np.asarray(energy.couplings)) ** 2)
    for weights, size in (
        (None, 5),
        ([3, 1, 0, 2, 1], 7),
        ([0.5, 0.5, 0.2, 0, 0.1], 1.3**2 / 0.55),
    ):
        options = {"weights": None if weights is None else np.array(weights), "n_steps": 1}
        losses = [
            _fit(energy=energy, data=data, objective=tg.Pseudolikelihood(l2), **options).history[0]
            for l2 in (None, 0.0)
        ]
        np.testing.assert_allclose(losses[0] - losses[1], 4 * ridge / (2 * size), rtol=1e-9)


class _Ring(tg.energies.AbstractMultilinear):
    """One coupling for all bonds of a ring, one field for all spins, one for a triple."""

    shared: jax.Array
    triple: jax.Array
    n_spins: int = eqx.field(static=True, default=6)

    def __call__(self, spins):
        s = jnp.asarray(spins)
        bonds, field = jnp.sum(s * jnp.roll(s, 1)), jnp.sum(s)
        return -self.shared[0] * bonds - self.shared[1] * field - self.triple * s[0] * s[1] * s[3]


@pytest.mark.further
def test_energies_without_a_rule_have_degrees_too():
    """They are read off the energy; so the default objective takes any multilinear energy."""
    ring = _Ring(jnp.zeros(2), jnp.zeros(()))
    degrees = tg.energies.parameter_degrees(ring)
    np.testing.assert_array_equal(degrees.shared, [2, 1])
    assert degrees.triple == 3
    ones = jax.tree.map(lambda x: 2 * jnp.ones_like(x), ring)
    assert jax.jit(L2(1.0, fields=10.0))(ones) == 4 + 4 + 10 * 4
    data = _rare(5, 2000, np.full(6, -1.5))
    fitted = tg.fit(tg.Pseudolikelihood(), ring, data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged


@pytest.mark.further
def test_weights_are_repetitions():
    data = helpers.configurations(4)[[3, 5, 9, 14, 2]]
    weighted = _fit(data=data, weights=np.array([3, 1, 1, 2, 0]))
    repeated = _fit(data=np.repeat(data, [3, 1, 1, 2, 0], axis=0))
    np.testing.assert_allclose(_flat(weighted.energy), _flat(repeated.energy), atol=1e-5)
    drawn = _fit(data=data, weights=np.array([0, 0, 1, 0, 0]), batch_size=4, n_steps=3)
    alone = _fit(data=data[2:3], batch_size=4, n_steps=3)
    np.testing.assert_allclose(_flat(drawn.energy), _flat(alone.energy), atol=1e-12)


@pytest.mark.parametrize("weights", [[1, 1], [-1, 1, 1], [0, 0, 0], [np.nan, 1, 1]])
def test_bad_weights(weights, unchecked):
    with pytest.raises(ValueError, match="weights"):
        _fit(data=np.ones((3, 4)), weights=np.array(weights, float))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tg.PersistentCD(n_chains=0), "n_chains must be at least 1, got 0"),
        (lambda: ContrastiveDivergence(0), "n_sweeps must be at least 1"),
        (lambda: tg.MeanFieldLikelihood(tg.TAP(), 0), "n_starts must be at least 1"),
        (lambda: tg.Pseudolikelihood(-1), "l2 must not be negative"),
        (lambda: L1(-0.5), "strength must not be negative"),
    ],
)
def test_bad_numbers_of_objectives(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- mean field


@pytest.mark.further
def test_mean_field_gradient_is_that_of_the_envelope():
    """`<dE>_data - dG/dJ` at the fixed minimum; how m moves does not matter."""
    energy = helpers.random_pairwise(4, _key(4), scale=0.5)
    data = jnp.asarray(_samples(energy, 32))
    objective = tg.MeanFieldLikelihood(tg.TAP())
    value, gradient, _ = _loss_and_gradient(objective, energy, data, None, _key(2))

    j, h = np.asarray(energy.couplings), np.asarray(energy.fields)
    m = np.zeros(4)
    for _ in range(200):  # weak couplings: the plain TAP iteration contracts
        m = np.tanh(h + j @ m - m * (j**2 @ (1 - m**2)))
    s, v = np.asarray(data), 1 - m**2
    entropy = -sum(x @ np.log(x) for x in ((1 + m) / 2, (1 - m) / 2))
    free_energy = -entropy - m @ j @ m / 2 - h @ m - v @ j**2 @ v / 4
    mean_energy = _nll(energy, s) - helpers.boltzmann(energy, 1.0)[1]
    np.testing.assert_allclose(value, mean_energy - free_energy, rtol=1e-12)
    # G = -S - sum_{i<j} J m m - h m - (1/2) sum_{i<j} J^2 v v
    off = 1 - np.eye(4)
    by_j = -s.T @ s / len(s) + np.outer(m, m) + np.asarray(energy.couplings) * np.outer(v, v)
    np.testing.assert_allclose(gradient.couplings, 0.5 * off * by_j, atol=1e-8)
    np.testing.assert_allclose(gradient.fields, m - s.mean(axis=0), atol=1e-8)


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_naive_loss_bounds_the_likelihood_from_below(name, scale):
    energy = _energy(name, scale)
    data = _samples(energy, 32)
    objective = tg.MeanFieldLikelihood(tg.NaiveMeanField())
    value, _ = _loss(objective, energy, jnp.asarray(data), None, _key(0))
    assert np.isfinite(value)
    assert value < _nll(energy, data)


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_mean_field_losses_approach_the_likelihood_at_weak_coupling(name):
    """Errors fall as the second and third power of the coupling, or faster."""
    base = _energy(name)
    data = _samples(base, 32)

    def weakened(energy, factor):
        if isinstance(energy, tg.Pairwise):
            return tg.Pairwise(factor * energy.couplings, energy.fields)
        if isinstance(energy, tg.RBM):
            weights, *fields = jax.tree.leaves(energy)
            return tg.RBM(factor * weights, *fields)
        if isinstance(energy, tg.Complete):
            return tg.Complete(np.where(degrees(4) < 2, 1, factor) * energy.couplings)
        pairs = zip(energy.sets, energy.couplings, strict=True)
        values = [x if sets.order < 2 else factor * x for sets, x in pairs]
        return tg.Interactions(energy.n_spins, energy.sets, values)

    errors = {}
    # Programs that other tests have compiled.
    for functional, loss in (("naive", _loss), ("tap", _loss_and_gradient)):
        objective = tg.MeanFieldLikelihood(helpers.FUNCTIONALS[functional])
        for factor in (0.04, 0.02):
            energy = weakened(base, factor)
            value, *_ = loss(objective, energy, jnp.asarray(data), None, _key(0))
            errors[functional, factor] = abs(float(value) - _nll(energy, data))
    for functional, power in (("naive", 2), ("tap", 3)):
        slope = np.log2(errors[functional, 0.04] / errors[functional, 0.02])
        assert slope > power - 0.3
    assert errors["tap", 0.04] < 0.3 * errors["naive", 0.04]


def test_mean_field_fit_lowers_the_potential_and_the_likelihood(caplog):
    data = _samples(helpers.random_pairwise(4, _key(4), scale=1.0, fields=0.7), 200)
    objective = tg.MeanFieldLikelihood(tg.TAP())
    fitted = tg.fit(objective, _zeros(4), data, key=_key(0), n_steps=100)
    assert fitted.result == tg.RESULTS.step_limit
    np.testing.assert_allclose(fitted.history[0], 4 * np.log(2), rtol=1e-12)
    assert fitted.history[-1] < fitted.history[0] - 0.1
    assert _nll(fitted.energy, data) < 4 * np.log(2) - 0.1
    with helpers.compilations(caplog) as names:
        tg.fit(objective, fitted.energy, -data, key=_key(1), n_steps=2)
    assert names == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["third-order", "fourth-order", "bethe", "adaptive-tap"])
def test_every_functional_is_an_objective(name):
    """The gradient is the finite difference, and the loss is closer than naive to the exact one."""
    energy = _energy("pairwise", 0.5)
    data = jnp.asarray(_samples(energy, 32))
    exact = _nll(energy, np.asarray(data))
    naive = tg.MeanFieldLikelihood(tg.NaiveMeanField())
    objective = tg.MeanFieldLikelihood(helpers.FUNCTIONALS[name])
    value, gradient, _ = _loss_and_gradient(objective, energy, data, None, _key(2))
    poor, _ = _loss(naive, energy, data, None, _key(2))
    assert abs(float(value) - exact) < 0.5 * abs(float(poor) - exact)
    rng = np.random.default_rng(0)
    raw = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), energy)
    direction = jax.jit(constrain)(raw)

    def at(step):
        moved = jax.tree.map(lambda x, d: x + step * d, energy, direction)
        return float(_loss(objective, moved, data, None, _key(2))[0])

    slope = (at(1e-4) - at(-1e-4)) / 2e-4
    np.testing.assert_allclose(_inner(gradient, direction), slope, rtol=1e-6)


@pytest.mark.further
def test_mean_field_learning_across_kinks():
    """Two states compete. The naive loss is convex: the mean of late steps beats them on average.

    The last step alone depends on rounding, by a nat of held-out likelihood on the digits.
    """
    rng = np.random.default_rng(0)
    signs = np.where(rng.random((60, 1)) < 0.6, 1.0, -1.0) * [-1.0, 1.0, -1.0, 1.0]
    data = signs * np.where(rng.random((60, 4)) < 0.1, -1, 1)
    objective, penalty = tg.MeanFieldLikelihood(tg.NaiveMeanField()), tg.learning.L2(0.03)
    fitted = tg.fit(objective, _zeros(4), data, penalty=penalty, key=_key(0))
    assert fitted.result == tg.RESULTS.step_limit
    late = fitted.history[-100:]
    assert np.ptp(late) > 1e-2  # to and fro
    value, _ = _loss(objective, fitted.energy, jnp.asarray(data), None, _key(0))
    assert value + penalty(fitted.energy) < late.mean() - 1e-3


class _Kinked(AbstractFunctional):
    """A kink at m = -1/2 catches what starts at -1; from +1 the minimum at theta = 3 is found."""

    def excess(self, energy, beta, m):
        return energy(m) + jnp.sum(jnp.where(m > 0.8, -3 * m, jnp.abs(m + 0.5)))


def _one_step_on_kinks(data: list[float]) -> tg.FitResult:
    """One step of length one, so that the energy is minus the gradient."""
    objective = tg.MeanFieldLikelihood(_Kinked(), n_starts=8)
    rows = np.repeat(np.array(data)[:, None], 4, axis=1)
    step = {"optimizer": SGD, "n_steps": 1}
    return tg.fit(objective, _zeros(4), rows, key=_key(0), **step)


@pytest.mark.further
@poor_data
def test_a_mean_field_without_a_minimum_is_reported():
    fitted = _one_step_on_kinks([-1.0, -1.0])
    assert fitted.result == tg.RESULTS.non_finite
    assert fitted.history.shape == (1,)
    np.testing.assert_array_equal(_flat(fitted.energy), 0)


@poor_data
def test_starts_that_do_not_converge_leave_the_gradient_alone():
    """One of two samples starts in the kink; the other has the minimum that counts."""
    fitted = _one_step_on_kinks([1.0, -1.0])
    assert fitted.result == tg.RESULTS.step_limit
    m = np.tanh(3)
    entropy = -sum(x * np.log(x) for x in ((1 + m) / 2, (1 - m) / 2))
    np.testing.assert_allclose(fitted.history, 4 * (3 * m + entropy))
    np.testing.assert_allclose(fitted.energy.fields, -m, rtol=1e-8)  # the data have mean 0
    expected = 0.5 * (1 - m * m) * (1 - np.eye(4))
    np.testing.assert_allclose(fitted.energy.couplings, expected, rtol=1e-8)


# --- persistent contrastive divergence


def _feature_table(energy: tg.AbstractMultilinear):
    """dF/dparameter of each visible configuration, as a pytree like the energy."""
    v = n_visible(energy)
    s = helpers.configurations(v)
    if isinstance(energy, tg.RBM):
        w, _, b = (np.asarray(x) for x in jax.tree.leaves(energy))
        hidden = np.tanh(b + s @ w)
        leaves = [-s[:, :, None] * hidden[:, None, :], -s, -hidden]
    else:
        leaves = [-0.5 * s[:, :, None] * s[:, None, :] * (1 - np.eye(v)), -s]
    return jax.tree.unflatten(jax.tree.structure(energy), leaves)


@pytest.mark.further
@pytest.mark.parametrize(("name", "n"), [("rbm", 7), ("pairwise", 4)])
def test_persistent_gradient_is_the_exact_one(name, n):
    """Chains start from one sample; a few calls later they sample the model."""
    n_chains, n_calls = 10_000, 12
    energy = helpers.ENERGIES[name](n, _key(n), scale=1.3)
    data = jnp.ones((5, n_visible(energy)))
    objective = tg.PersistentCD(n_chains=n_chains, n_sweeps=2)
    chains = objective.init(energy, _equal(data), _key(0))
    assert chains.shape == (n, n_chains)
    gradients = []
    for i in range(n_calls):
        _, gradient, chains = _loss_and_gradient(objective, energy, data, chains, _key(i))
        gradients.append(gradient)
    assert np.all(np.abs(chains) == 1)

    p = np.exp(-_visible_table(energy) - helpers.boltzmann(energy, 1.0)[1])
    worst_at_first = 0.0
    for k, features in enumerate(jax.tree.leaves(_feature_table(energy))):
        rows = features.reshape(len(p), -1)
        mean = p @ rows
        sigma = np.sqrt(p @ (rows - mean) ** 2 / n_chains)
        first, last = (np.ravel(jax.tree.leaves(gradients[i])[k]) for i in (0, -1))
        expected = rows[-1] - mean  # all data are the last configuration
        assert np.all(np.abs(last - expected) <= SIGMAS * sigma + 1e-12)
        worst_at_first = max(worst_at_first, np.max(np.abs(first - expected) / (sigma + 1e-12)))
    assert worst_at_first > 2 * SIGMAS  # two sweeps would not have been enough


@pytest.mark.further
@poor_data
def test_persistent_fit_of_a_small_rbm_lowers_the_exact_nll(caplog):
    patterns = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, -1]])
    data = np.repeat(patterns, [10, 6, 4], axis=0)
    start = tg.RBM.random(3, data.mean(axis=0), key=_key(1))
    objective = tg.PersistentCD(n_chains=64, n_sweeps=2)
    fitted = tg.fit(objective, start, data, key=_key(0), n_steps=1500)
    shares = np.array([0.5, 0.3, 0.2])
    least = -shares @ np.log(shares)  # the entropy of the data
    before, after = _nll(start, data), _nll(fitted.energy, data)
    assert after - least < 0.3 * (before - least)
    with helpers.compilations(caplog) as names:
        tg.fit(objective, fitted.energy, -data, key=_key(1), n_steps=2)
    assert names == []


# --- the loop


def _fit(key=0, *, objective=None, energy=None, data=None, **options) -> tg.FitResult:
    """A small fit; all that share shapes, objective and optimiser share one program."""
    if data is None:
        data = _samples(helpers.random_pairwise(4, _key(4), scale=1.5), 40)
    objective = tg.Pseudolikelihood(0.02) if objective is None else objective
    energy = _zeros(data.shape[1]) if energy is None else energy
    return tg.fit(objective, energy, data, key=_key(key), **options)


@pytest.mark.parametrize(
    "optimizer",
    [ADAM, optax.sgd(1e-2), optax.chain(optax.clip_by_global_norm(1.0), optax.scale(-1e-2))],
    ids=["adam", "sgd", "chain"],
)
def test_any_optax_transformation_will_do(optimizer):
    fitted = _fit(optimizer=optimizer, n_steps=45)
    assert fitted.result == tg.RESULTS.step_limit
    assert fitted.history.shape == (45,) and fitted.history.dtype == np.float64
    assert np.all(np.diff(fitted.history) < 0)
    couplings = np.asarray(fitted.energy.couplings)
    np.testing.assert_array_equal(couplings, couplings.T)
    np.testing.assert_array_equal(np.diagonal(couplings), 0)


def test_steps_are_those_of_plain_gradient_descent():
    data = _samples(helpers.random_pairwise(4, _key(4), scale=1.5), 40)
    fitted = _fit(data=data, optimizer=optax.sgd(1e-2), n_steps=3)
    x, losses = np.zeros(10), []
    share = np.repeat([0.5, 1.0], [6, 4])  # each of J_ij and J_ji takes half of the gradient
    for _ in range(3):
        value, gradient = _numpy_pseudolikelihood(x, data, 0.02)
        losses.append(value)
        x = x - 1e-2 * share * gradient
    np.testing.assert_allclose(fitted.history, losses, rtol=1e-12)
    np.testing.assert_allclose(_flat(fitted.energy), x, rtol=1e-10)


def test_mini_batches_follow_the_key():
    runs = [_fit(key, optimizer=ADAM, batch_size=8, n_steps=30) for key in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0].history, runs[1].history)
    np.testing.assert_array_equal(_flat(runs[0].energy), _flat(runs[1].energy))
    assert np.any(runs[0].history != runs[2].history)
    # Batches differ from step to step: their losses do not fall one after the other.
    assert np.any(np.diff(runs[0].history) > 0)
    # The noise of small batches rules out the test of the gradient.
    assert runs[0].result == tg.RESULTS.completed


def test_step_limit_converged_and_start_at_the_optimum():
    short = _fit(n_steps=3)
    assert short.result == tg.RESULTS.step_limit and short.history.shape == (3,)
    done = _fit()
    assert done.result == tg.RESULTS.converged
    assert 3 < len(done.history) < tg.Pseudolikelihood().defaults.n_steps
    again = _fit(energy=done.energy)
    assert again.result == tg.RESULTS.converged and again.history.shape == (1,)
    np.testing.assert_array_equal(_flat(again.energy), _flat(done.energy))


def test_divergence_is_reported_and_the_energy_stays_finite():
    optimizer = optax.sgd(1e30)
    fitted = _fit(optimizer=optimizer, n_steps=100)
    assert fitted.result == tg.RESULTS.non_finite
    assert 1 < len(fitted.history) < 100
    assert np.all(np.isfinite(_flat(fitted.energy)))
    # The energy is the last finite one: the step that failed left no trace.
    before = _fit(optimizer=optimizer, n_steps=len(fitted.history) - 1)
    assert before.result == tg.RESULTS.step_limit
    np.testing.assert_array_equal(_flat(fitted.energy), _flat(before.energy))
    assert np.any(_flat(fitted.energy) != 0)


def test_callback_sees_the_fit_grow():
    partial = []
    fitted = _fit(optimizer=ADAM, n_steps=45, callback=partial.append)
    lengths = [len(p.history) for p in partial]
    assert len(lengths) > 1 and lengths[-1] == 45 and np.all(np.diff(lengths) > 0)
    assert all(isinstance(p, tg.FitResult) for p in partial)
    for p in partial:
        np.testing.assert_array_equal(p.history, fitted.history[: len(p.history)])
    np.testing.assert_array_equal(_flat(partial[-1].energy), _flat(fitted.energy))
    assert np.any(_flat(partial[0].energy) != _flat(fitted.energy))


def test_exceptions_of_the_callback_end_the_fit():
    calls = []

    def interrupt(result):
        calls.append(result)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(optimizer=ADAM, n_steps=45, callback=interrupt)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.zeros((3, 4))}, "no values but 0 and 1, which are bits"),
        ({"data": np.full((3, 4), np.nan)}, r"expected -1 and \+1, and 0 where"),
        ({"data": np.ones((3, 5)), "energy": _zeros(4)}, "must have 4 spins a sample"),
        ({"data": np.ones((0, 4))}, "data"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"n_steps": -1}, "n_steps must be at least 1, got -1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        _fit(**options)


def test_a_history_longer_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr(_checks, "total_memory", lambda: 1e9)
    with pytest.raises(ValueError, match="n_steps, a history of 1073741824 losses, needs about"):
        _fit(n_steps=2**30)


@pytest.mark.parametrize("name", ["n_steps", "batch_size"])
def test_counts_must_be_whole(name, unchecked):
    # A fit of one and a half steps never came to its last one.
    with pytest.raises(TypeError, match=f"{name} must be an integer, got 1.5"):
        _fit(**{name: 1.5})


@pytest.mark.parametrize("objective", [tg.Pseudolikelihood, tg.TAP(), "exact"], ids=str)
def test_an_objective_is_not_a_class_or_a_functional(objective, unchecked):
    with pytest.raises(TypeError, match=r"objective must be one such as Pseudolikelihood\(\)"):
        _fit(objective=objective)


def test_data_must_be_a_table(unchecked):
    with pytest.raises(ValueError, match="data"):
        _fit(data=np.ones(4), energy=_zeros(4))


OPTIMIZERS = {
    "default": None,
    "adam": ADAM,
    "without-extra-arguments": optax.GradientTransformation(
        ADAM.init, lambda gradient, state, params=None: ADAM.update(gradient, state, params)
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_second_fit_compiles_nothing(optimizer, caplog):
    rng = np.random.default_rng(0)
    fits = []
    for i in range(2):
        # 41 samples: a shape that no other test compiles for. The default takes long to compile.
        data = rng.choice([-1.0, 1.0], (40 if optimizer == "default" else 41, 4))
        start = helpers.random_pairwise(4, _key(i))
        with helpers.compilations(caplog) as names:
            _fit(i, data=data, energy=start, optimizer=OPTIMIZERS[optimizer], n_steps=21 + i)
        fits.append(names)
    if optimizer != "default":  # so that the next line can fail
        assert any("_advance" in name for name in fits[0])
    assert fits[1] == []


class _Counted(AbstractObjective):
    """Counts how often its loss is traced: the interface is open to users."""

    traces: list = eqx.field(static=True)

    @property
    def defaults(self):
        return tg.Pseudolikelihood().defaults

    def init(self, energy, samples, key):
        return jnp.zeros((), int)

    def loss(self, energy, batch, state, key):
        self.traces.append(batch.spins.shape)
        value, _ = tg.Pseudolikelihood(0.02).loss(energy, batch, None, key)
        return value, state + 1


def test_an_objective_of_ones_own():
    class Traces(list):
        __hash__ = object.__hash__

    objective = _Counted(Traces())
    first = _fit(objective=objective, optimizer=ADAM, n_steps=45)
    n_traces = len(objective.traces)
    assert n_traces > 0
    # Two programs: in one the penalty is a constant, in the other an argument.
    same = _fit(optimizer=ADAM, n_steps=45).history
    np.testing.assert_allclose(first.history, same, rtol=1e-12)
    _fit(1, objective=objective, optimizer=ADAM, n_steps=3)
    assert len(objective.traces) == n_traces


class _Rough(AbstractObjective):
    """Pseudolikelihood that calls itself noisy, or kinked where it has a tolerance."""

    tolerance: float | None = eqx.field(static=True)

    @property
    def defaults(self):
        return tg.learning.Defaults(ADAM, 10, self.tolerance, smooth=False)

    def init(self, energy, samples, key):
        return None

    def loss(self, energy, batch, state, key):
        return tg.Pseudolikelihood(0.02).loss(energy, batch, state, key)


@pytest.mark.parametrize("tolerance", [None, 1e-9])
def test_fits_that_come_not_to_rest_return_the_mean_of_late_steps(tolerance):
    """The share of step k in the mean of t is that of `binom(k + 7, 8)`: the last ninth counts."""
    t = 30
    iterates = [_flat(_fit(optimizer=ADAM, n_steps=k).energy) for k in range(1, t + 1)]
    shares = np.array([comb(k + 7, 8) for k in range(1, t + 1)])
    averaged = _fit(objective=_Rough(tolerance), n_steps=t)
    code = tg.RESULTS.completed if tolerance is None else tg.RESULTS.step_limit
    assert averaged.result == code
    np.testing.assert_allclose(_flat(averaged.energy), shares @ iterates / shares.sum(), rtol=1e-9)
    # It lags behind by a tenth of the way.
    lag = _flat(_fit(optimizer=ADAM, n_steps=27).energy)
    assert np.linalg.norm(_flat(averaged.energy) - lag) < np.linalg.norm(iterates[-1] - lag)


def test_kinked_fits_that_come_to_rest_return_where_they_are():
    optimizer = tg.Pseudolikelihood().defaults.optimizer
    rested = _fit(objective=_Rough(1e-5), optimizer=optimizer, n_steps=500)
    assert rested.result == tg.RESULTS.converged
    np.testing.assert_allclose(_flat(rested.energy), _flat(_fit().energy), rtol=1e-9)


@pytest.mark.further
def test_float32_stays_float32_and_converges():
    data = _samples(helpers.random_pairwise(4, _key(4), scale=1.5), 40)
    with jax.enable_x64(False):
        fitted = _fit(data=data, energy=_zeros(4, np.float32))
    assert fitted.energy.couplings.dtype == fitted.energy.fields.dtype == jnp.float32
    assert fitted.result == tg.RESULTS.converged
    exact = _fit(data=data)
    np.testing.assert_allclose(_flat(fitted.energy), _flat(exact.energy), atol=2e-3)


def test_float32_energies_stay_so_where_jax_runs_in_float64():
    single = _fit(energy=_zeros(4, np.float32), optimizer=ADAM, n_steps=3)
    assert single.energy.couplings.dtype == single.energy.fields.dtype == jnp.float32
    double = _fit(optimizer=ADAM, n_steps=3)
    np.testing.assert_allclose(_flat(single.energy), _flat(double.energy), rtol=1e-5)


def test_integer_data_are_welcome():
    data = _samples(helpers.random_pairwise(4, _key(4), scale=1.5), 40)
    for dtype in (np.int8, np.float32):
        fitted = _fit(data=data.astype(dtype), optimizer=ADAM, n_steps=3)
        np.testing.assert_array_equal(
            fitted.history, _fit(data=data, optimizer=ADAM, n_steps=3).history
        )


# --- a fit in pieces


PIECES = {
    "persistent-cd": (tg.PersistentCD(n_chains=16, n_sweeps=1), {}),
    "contrastive": (ContrastiveDivergence(), {"penalty": L2(0.01)}),
    "annealed": (tg.learning.AnnealedLikelihood(n_chains=16, n_rungs=4), {}),
    "l-bfgs": (tg.Pseudolikelihood(1e-3), {}),
    "proximal": (tg.Pseudolikelihood(), {"penalty": L1(0.02)}),
    "batches": (tg.Pseudolikelihood(), {"batch_size": 8}),
    "adam": (tg.ExactLikelihood(), {"optimizer": ADAM}),
    "mean-field": (tg.MeanFieldLikelihood(tg.NaiveMeanField()), {}),
}


@pytest.mark.further
@pytest.mark.parametrize("name", PIECES)
def test_calls_in_a_row_are_one_call_to_the_last_bit(name):
    """The state holds all that goes on: parameters, means, optimiser, chains, and the step."""
    objective, options = PIECES[name]
    options = {"objective": objective, **options}
    whole = _fit(n_steps=12, **options)
    first = _fit(n_steps=5, **options)
    # Of the energy that is handed in the structure alone counts.
    second = _fit(energy=first.energy, n_steps=7, state=first.state, **options)
    for ours, theirs in zip(*map(jax.tree.leaves, (second.state, whole.state)), strict=True):
        np.testing.assert_array_equal(
            *(
                jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
                for x in (ours, theirs)
            )
        )
    np.testing.assert_array_equal(second.energy.couplings, whole.energy.couplings)
    pieces = np.concatenate([first.history, second.history])
    np.testing.assert_array_equal(pieces, whole.history)
    assert second.state.step == 12


def test_pieces_of_a_callback_go_on_too():
    seen = []
    whole = _fit(
        objective=MinimumProbabilityFlow(), optimizer=ADAM, n_steps=30, callback=seen.append
    )
    assert int(seen[0].state.step) == 20
    rest = _fit(objective=MinimumProbabilityFlow(), optimizer=ADAM, n_steps=10, state=seen[0].state)
    np.testing.assert_array_equal(rest.energy.couplings, whole.energy.couplings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": MinimumProbabilityFlow()}, "objective Pseudolikelihood, got Minimum"),
        ({"optimizer": ADAM}, "state does not fit the optimizer"),
        ({"energy": _zeros(4, np.float32)}, "state does not fit the energy"),
        ({"data": helpers.configurations(5)}, "state does not fit the energy"),
        ({"objective": tg.Pseudolikelihood(0.5)}, "fit with l2 = .*, got 0.5: .* start anew"),
    ],
)
def test_a_state_of_another_fit_is_refused(change, message):
    state = _fit(n_steps=1).state
    with pytest.raises(ValueError, match=message):
        _fit(**({"n_steps": 1, "state": state} | change))


# --- precision, shared parameters, divergence


class _Strict(AbstractObjective):
    """Pseudolikelihood to a gradient that no float32 can resolve."""

    @property
    def defaults(self):
        return tg.Pseudolikelihood().defaults._replace(gradient_tolerance=1e-12)

    def init(self, energy, samples, key):
        return None

    def loss(self, energy, batch, state, key):
        return tg.Pseudolikelihood(0.02).loss(energy, batch, state, key)


@pytest.mark.parametrize("penalty", [None, L1(0.01)], ids=["line search", "proximal"])
def test_what_is_out_of_precision_says_so_and_ends(penalty):
    """Not the step limit, whose advice would change nothing."""
    energy = _zeros(4, np.float32)
    fitted = _fit(energy=energy, objective=_Strict(), penalty=penalty)
    assert fitted.result == tg.RESULTS.precision_limit
    assert len(fitted.history) < 300
    assert "float64" in tg.RESULTS[fitted.result]


class _Chain(tg.energies.AbstractMultilinear):
    """One coupling for all bonds of a ring."""

    coupling: jax.Array
    n_spins: int = eqx.field(static=True, default=24)

    def __call__(self, spins):
        s = jnp.asarray(spins)
        return -self.coupling * jnp.sum(s * jnp.roll(s, 1))


def _ring_data(n, coupling, count):
    """Bonds of a ring are independent but for an even number of broken ones."""
    rng = np.random.default_rng(0)
    bonds = np.where(rng.random((40 * count, n)) < expit(2 * coupling), 1, -1)
    bonds = bonds[bonds.prod(axis=1) == 1][:count]
    return np.cumprod(bonds, axis=1) * rng.choice([-1, 1], (count, 1))


@pytest.mark.further
@pytest.mark.parametrize("name", ["pseudolikelihood", "persistent-cd", "annealed"])
def test_a_coupling_that_all_bonds_share_is_learned(name):
    """Of 24 bonds each tells as much: steps and tolerances are those of one."""
    n, truth = 24, 0.8
    data = _ring_data(n, truth, 2000)
    np.testing.assert_allclose(
        tg.energies.parameter_terms(_Chain(jnp.zeros(()))).coupling, n, rtol=0.2
    )
    objective, n_steps = {
        "pseudolikelihood": (tg.Pseudolikelihood(), None),
        "persistent-cd": (tg.PersistentCD(n_chains=64, n_sweeps=2), 400),
        "annealed": (tg.learning.AnnealedLikelihood(n_chains=128), 400),
    }[name]
    fitted = tg.fit(objective, _Chain(jnp.zeros(())), data, key=_key(0), n_steps=n_steps)
    assert fitted.result in (tg.RESULTS.converged, tg.RESULTS.completed)
    # The noise of the data: 1 / sqrt(N n (1 - tanh^2)) = 0.006.
    assert abs(float(fitted.energy.coupling) - truth) < 0.06
    if name == "annealed":
        mean = np.mean(data * np.roll(data, 1, axis=1))
        log_z = n * np.log(2 * np.cosh(truth)) + np.log1p(np.tanh(truth) ** n)
        np.testing.assert_allclose(fitted.history[-40:].mean(), log_z - truth * n * mean, atol=0.5)


@pytest.mark.parametrize(
    ("loss", "likelihood", "code"),
    [
        (1.40, True, "completed"),
        (1.20, True, "few_weights"),
        (-0.10, True, "diverged"),
        (-0.10, False, "completed"),
        (3.50, False, "diverged"),
    ],
)
def test_losses_that_cannot_be_are_told(loss, likelihood, code):
    """Four patterns of 5 spins: no likelihood costs less than ln 4 = 1.39 nats, nor 5 ln 2 more."""
    data = np.repeat(np.asarray(tg.enumerate_spins(5)[:4]), [1, 1, 2, 3], axis=0)
    share = 1 / np.array([4, 4, 8, 8, 12, 12, 12])
    history = np.append(np.full(60, 2.0), np.full(20, loss))
    entropy = jnp.asarray(entropy_of(data, share)) if likelihood else None
    # What lies behind the steps that were taken does not count.
    padded = jnp.append(history, jnp.full(20, jnp.nan))
    found = judged(padded, jnp.asarray(len(history)), 5, entropy)
    assert found == getattr(tg.RESULTS, code)


@pytest.mark.further
@pytest.mark.parametrize("name", ["persistent-cd", "annealed"])
def test_learning_that_chains_cannot_follow_is_called_so(name):
    """Where the rate is far too large: an impossible loss, one that grows, or no weights left."""
    objective = {
        "persistent-cd": tg.PersistentCD(n_chains=64, n_sweeps=2),
        "annealed": tg.learning.AnnealedLikelihood(n_chains=128),
    }[name]
    fitted = tg.fit(
        objective,
        _Chain(jnp.zeros(())),
        _ring_data(24, 0.8, 2000),
        key=_key(0),
        n_steps=400,
        optimizer=SGD,
    )
    code = tg.RESULTS.few_weights if name == "annealed" else tg.RESULTS.diverged
    assert fitted.result == code
    assert name != "annealed" or fitted.history[-1] == np.inf
