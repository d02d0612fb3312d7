"""Penalties against their definitions, and fits that reach the minima with exact zeros."""

import itertools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

import thermogen as tg
from thermogen.energies import constrain
from thermogen.learning import L1, L2, GroupL1, Support

PENALTIES = {"l1": L1(0.1), "l2": L2(0.1), "group": GroupL1(0.1)}
PAIRS = list(itertools.product(PENALTIES, ("pairwise", "interactions")))


def _key(i):
    return jax.random.key(i)


def _energy(name, scale=1.0):
    options = {"orders": (1, 3)} if name == "interactions" else {}
    return helpers.ENERGIES[name](4, _key(4), scale=scale, **options)


def _couplings(energy) -> dict[int, np.ndarray]:
    """All couplings by degree, each once."""
    table = -np.asarray(tg.walsh_transform(jnp.asarray(helpers.energy_table(energy))))
    degree = np.array([bin(a).count("1") for a in range(len(table))])
    used = np.abs(table) > 1e-12
    return {d: table[(degree == d) & used] for d in range(5)}


def _definition(name, energy):
    high = [x for d, x in _couplings(energy).items() if d >= 2 and x.size]
    if name == "l2":
        return sum(np.sum(x**2) for x in high)
    if name == "l1":
        return sum(np.sum(np.abs(x)) for x in high)
    return sum(np.sqrt(x.size * np.sum(x**2)) for x in high)


@pytest.mark.parametrize(("penalty", "name"), PAIRS)
def test_penalty_counts_every_coupling_once(penalty, name):
    energy = _energy(name)
    value = jax.jit(lambda p, e: p(e))(PENALTIES[penalty], energy)
    np.testing.assert_allclose(value, 0.1 * _definition(penalty, energy), rtol=1e-10)


@pytest.mark.parametrize(("penalty", "name"), [p for p in PAIRS if p[0] != "l2"])
def test_shrinking_is_the_proximal_map(penalty, name):
    """No point near it, among those that the energy allows, has a lower value."""
    penalty, energy, step = PENALTIES[penalty], _energy(name), 0.7

    @jax.jit
    def objective(x):
        squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), x, energy)
        return 0.5 * sum(jax.tree.leaves(squares)) + step * penalty(x)

    best = penalty.shrink(energy, jnp.asarray(step))
    least = float(objective(best))
    assert least < objective(energy) - 1e-4
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(20):
            moved = jax.tree.map(lambda x, s=size: x + s * rng.normal(size=x.shape), best)
            assert objective(constrain(moved)) > least - 1e-12


def test_shrinking_reaches_exact_zeros():
    energy = _energy("pairwise", 0.1)
    strong = jnp.asarray(100.0)
    for penalty in (L1(1.0), GroupL1(1.0)):
        shrunk = penalty.shrink(energy, strong)
        np.testing.assert_array_equal(shrunk.couplings, 0)
        np.testing.assert_array_equal(shrunk.fields, energy.fields)


def _data(n=5, n_samples=400):
    sparse = np.array([[0, 0.8, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, -0.7, 0], *np.zeros((2, 5))])
    energy = tg.Pairwise(sparse + sparse.T, np.full(n, 0.1))
    return np.asarray(tg.exact.sample(energy, 1.0, key=_key(0), n_samples=n_samples), float)


def _numpy_loss(x, data):
    n = data.shape[1]
    j = np.zeros((n, n))
    j[np.triu_indices(n, 1)] = x[: n * (n - 1) // 2]
    margin = 2 * data * (data @ (j + j.T) + x[n * (n - 1) // 2 :])
    return np.logaddexp(0, -margin).sum(axis=1).mean()


ZEROS = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))


@pytest.mark.further
@pytest.mark.parametrize("name", ["l1", "group"])
def test_fit_finds_the_penalised_optimum(name):
    """Against SciPy, which splits each coupling in two, or has a smooth norm away from zero."""
    data = _data()
    penalty = {"l1": L1(0.05), "group": GroupL1(0.02)}[name]
    fitted = tg.fit(tg.Pseudolikelihood(0.0), ZEROS, data, penalty=penalty, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    pairs = np.triu_indices(5, 1)
    ours = np.concatenate([np.asarray(fitted.energy.couplings)[pairs], fitted.energy.fields])

    if name == "l1":
        split = minimize(
            lambda z: _numpy_loss(np.append(z[:10] - z[10:20], z[20:]), data) + 0.05 * z[:20].sum(),
            np.append(np.full(20, 0.1), np.zeros(5)),
            bounds=[(0, None)] * 20 + [(None, None)] * 5,
            options={"ftol": 1e-15, "gtol": 1e-9, "maxfun": 10**6},
        ).x
        best = np.append(split[:10] - split[10:20], split[20:])
        assert 2 <= np.sum(ours[:10] != 0) < 10
    else:
        best = minimize(
            lambda x: _numpy_loss(x, data) + 0.02 * np.sqrt(10 * np.sum(x[:10] ** 2)),
            np.full(15, 0.1),
            options={"gtol": 1e-8},
        ).x
    np.testing.assert_allclose(ours, best, atol=2e-4)
    # The history counts the penalty.
    total = _numpy_loss(ours, data) + float(penalty(fitted.energy))
    np.testing.assert_allclose(fitted.history[-1], total, rtol=1e-6)


@pytest.mark.further
def test_strengths_and_supports_do_not_compile_anew(caplog):
    # A number of samples that no other test compiles for.
    data, objective = _data(n_samples=401), tg.Pseudolikelihood(0.0)
    fits = []
    for strength in (0.05, 0.07):
        with helpers.compilations(caplog) as names:
            tg.fit(objective, ZEROS, data, penalty=L1(strength), key=_key(0))
        fits.append(names)
    assert any("_advance" in name for name in fits[0]) and fits[1] == []
    for seed in (0, 1):
        chosen = np.triu(np.random.default_rng(seed).random((5, 5)) < 0.5, 1)
        allowed = tg.Pairwise(1.0 * (chosen + chosen.T), np.ones(5))
        support = Support(jax.tree.map(lambda x: x != 0, allowed))
        with helpers.compilations(caplog) as names:
            fitted = tg.fit(objective, ZEROS, data, penalty=support, key=_key(0))
        assert fitted.result == tg.RESULTS.converged
        np.testing.assert_array_equal(np.asarray(fitted.energy.couplings) != 0, chosen + chosen.T)
        assert support(fitted.energy) == 0 and support(_full()) == np.inf
    assert names == []


def test_a_support_needs_proximal_steps():
    allowed = jax.tree.map(lambda x: np.ones(x.shape, bool), ZEROS)
    objective = tg.Pseudolikelihood(0.0)
    options = {"penalty": Support(allowed), "key": _key(0)}
    with pytest.raises(ValueError, match="penalty Support needs a deterministic"):
        tg.fit(objective, ZEROS, _data(), batch_size=8, **options)
    # What lies outside is cut off before the first step.
    diagonal = tg.Pairwise(np.zeros((5, 5)), np.ones(5))
    support = Support(jax.tree.map(lambda x: x != 0, diagonal))
    fitted = tg.fit(objective, _full(), _data(), **{**options, "penalty": support})
    assert np.all(np.isfinite(fitted.history))
    assert fitted.result == tg.RESULTS.converged
    np.testing.assert_array_equal(fitted.energy.couplings, 0)


def _full():
    return tg.Pairwise(np.ones((5, 5)) - np.eye(5), np.zeros(5))


@pytest.mark.further
def test_ridge_as_a_penalty_is_the_ridge_of_the_objective():
    data = _data()
    one = tg.fit(tg.Pseudolikelihood(0.01), ZEROS, data, key=_key(0))
    two = tg.fit(tg.Pseudolikelihood(0.0), ZEROS, data, penalty=L2(0.01), key=_key(0))
    np.testing.assert_allclose(one.energy.couplings, two.energy.couplings, atol=1e-5)
    assert two.result == tg.RESULTS.converged


def test_penalty_is_a_term_of_the_loss_for_an_optimiser_of_ones_own():
    data, adam = _data(), optax.adam(1e-2)
    objective = tg.Pseudolikelihood(0.0)
    options = {"optimizer": adam, "n_steps": 3}
    plain = tg.fit(objective, _full(), data, key=_key(0), **options)
    fitted = tg.fit(objective, _full(), data, key=_key(0), penalty=L1(0.5), **options)
    np.testing.assert_allclose(fitted.history[0] - plain.history[0], 0.5 * 10)
