"""Higher orders of the Plefka expansion, Bethe and adaptive TAP, against enumerated truth."""

import functools
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    ENERGIES,
    boltzmann,
    configurations,
    energy_table,
    gibbs_potential,
    mean_energy,
    mean_gradient,
    nonlinear_variance,
    product_measure,
    random_interactions,
    random_pairwise,
    random_rbm,
    redrawn,
    stacked,
)
from jax.flatten_util import ravel_pytree
from scipy import stats

import thermogen as tg
from thermogen import energies
from thermogen.energies import _interactions, _plans
from thermogen.meanfield._adaptive import relative_precisions
from thermogen.meanfield._bethe import factor_excess, factor_messages, outgoing

evaluate = jax.jit(lambda functional, energy, m, beta: functional(energy, beta, m))
over_points = jax.jit(jax.vmap(evaluate, (None, None, 0, None)))


def points(n: int, n_points: int = 5) -> np.ndarray:
    """Magnetizations inside the cube, at its center, and on its faces."""
    m = np.tanh(np.random.default_rng(n).normal(size=(n_points, n)))
    m[1], m[2, ::2], m[3, 1] = 0, 0, -1
    return m


def rbm(n_visible: int, n_hidden: int) -> tg.RBM:
    rng = np.random.default_rng(n_visible)
    return tg.RBM(*(rng.normal(size=s) for s in ((n_visible, n_hidden), n_visible, n_hidden)))


def as_pairwise(energy: tg.RBM | tg.Interactions) -> tg.Pairwise:
    """The same couplings as one matrix."""
    j, h = np.zeros((energy.n_spins,) * 2), np.zeros(energy.n_spins)
    if isinstance(energy, tg.RBM):
        v = energy.n_visible
        j[:v, v:], h[:v], h[v:] = energy.weights, energy.visible_fields, energy.hidden_fields
    else:
        for table, couplings in zip(energy.sets, energy.couplings, strict=True):
            target = j if table.order == 2 else h
            target[tuple(table.indices.T)] = couplings
    return tg.Pairwise(j + j.T, h)


# --- moments of the part of E that is not linear


def moments(table: np.ndarray, m: np.ndarray) -> tuple[float, float]:
    """Third moment and fourth cumulant of Y by the definition."""
    p, v = product_measure(m), 1 - m**2
    deviations = configurations(m.size) - m
    y = table - mean_energy(table, m) - deviations @ mean_gradient(table, m)
    # At |m_k| = 1 the deviation of that spin is 0, and so is its share.
    shares = (p * y**2 @ deviations) ** 2 / np.where(v > 0, v, 1)
    return p @ y**3, p @ y**4 - 3 * (p @ y**2) ** 2 - 3 * np.sum(shares)


MODELS = {name: make(6, jax.random.key(3)) for name, make in ENERGIES.items()}
MODELS |= {
    "interactions-1-to-5": random_interactions(6, jax.random.key(4), orders=(1, 2, 3, 4, 5)),
    "wide-rbm": rbm(2, 4),
    "tall-rbm": rbm(4, 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_the_product_measure(name):
    energy, has_fourth = MODELS[name], not name.startswith("interactions")

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def ours(energy, m):
        third = tg.energies.nonlinear_third_moment(energy, m)
        fourth = tg.energies.nonlinear_fourth_cumulant(energy, m) if has_fourth else jnp.nan
        return third, fourth

    table = energy_table(energy)
    third, fourth = np.array([moments(table, m) for m in points(6)]).T
    values = ours(energy, points(6))
    np.testing.assert_allclose(values[0], third, rtol=1e-10, atol=1e-10)
    if has_fourth:
        np.testing.assert_allclose(values[1], fourth, rtol=1e-10, atol=1e-10)


def test_interactions_have_no_fourth_order():
    energy = tg.Interactions.from_terms(3, {(0, 1): 1.0})
    with pytest.raises(TypeError, match="Complete, Pairwise, RBM"):
        jax.eval_shape(lambda m: tg.Plefka(4)(energy, 1.0, m), jnp.zeros(3))


def test_gradient_by_couplings_stays_symmetric():
    energy = MODELS["pairwise"]
    gradient = jax.jit(jax.grad(lambda e, m: tg.Plefka(4).excess(e, 0.7, m)))
    by_couplings = np.asarray(gradient(energy, points(6)[0]).couplings)
    np.testing.assert_allclose(by_couplings, by_couplings.T, rtol=0, atol=1e-14)
    assert np.all(np.diagonal(by_couplings) == 0) and np.max(np.abs(by_couplings)) > 0.1


# --- plans


def test_triples_are_all_those_in_which_no_spin_is_alone():
    sets = [(0, 1, 2, 3), *itertools.combinations(range(5), 2), (1, 2, 4), (0, 2, 4), (0, 1, 4)]
    by_size = [[s for s in sets if len(s) == size] for size in (2, 3, 4)]
    numbered = [frozenset(s) for group in by_size for s in group]
    truth = Counter()
    for triple in itertools.product(range(len(numbered)), repeat=3):
        count = Counter(k for i in triple for k in numbered[i])
        if min(count.values()) >= 2:
            truth[tuple(sorted(triple))] += 1
    found = {}
    for plan in _plans.triple_plan([np.array(group) for group in by_size]):
        for triple, weight, twice, thrice in zip(*plan, strict=True):
            count = Counter(k for i in triple for k in numbered[i])
            assert count == Counter({**dict.fromkeys(twice, 2), **dict.fromkeys(thrice, 3)})
            assert tuple(triple) not in found
            found[tuple(triple.tolist())] = weight
    assert found == truth and len(truth) > 30


def test_variance_of_long_interactions():
    n, rng = 10, np.random.default_rng(0)
    sets = [tuple(range(8)), tuple(range(3, 10)), (0, 2, 4, 6, 7, 8, 9), (1, 2, 3, 5, 7, 8, 9)]
    sets += [(2, 3), (3, 9), (0, 4, 8), (5,), ()]
    energy = tg.Interactions.from_terms(n, {spins: rng.normal() for spins in sets})
    assert not _plans.has_short_terms([t.indices for t in energy.sets], n)
    m, table = points(n), energy_table(energy)
    ours = jax.jit(jax.vmap(functools.partial(tg.energies.nonlinear_variance, energy)))(m)
    truth = [nonlinear_variance(table, x) for x in m]
    np.testing.assert_allclose(ours, truth, rtol=1e-11, atol=1e-12)


def test_third_moment_of_long_interactions():
    n, rng = 10, np.random.default_rng(1)
    sets = [tuple(range(8)), tuple(range(3, 10)), (0, 2, 4, 6, 7, 8, 9)]
    sets += [(2, 3), (3, 9), (2, 9), (0, 4, 8), (0, 1, 4, 7), (5,), ()]
    energy = tg.Interactions.from_terms(n, {spins: rng.normal() for spins in sets})
    table, m = energy_table(energy), points(n)
    ours = jax.jit(jax.vmap(functools.partial(tg.energies.nonlinear_third_moment, energy)))(m)
    truth = [moments(table, x)[0] for x in m]
    np.testing.assert_allclose(ours, truth, rtol=1e-10, atol=1e-12)


@pytest.mark.further
@pytest.mark.parametrize("p", [10, 30, 64])
def test_one_long_interaction_has_closed_forms(p):
    # y = prod s - prod m - sum of its slopes, of n equal spins: means over the number that is up.
    energy, x = tg.Interactions.from_terms(p, {tuple(range(p)): 1.3}), 0.9
    up = np.arange(p + 1)
    weights = stats.binom.pmf(up, p, (1 + x) / 2)
    y = (-1.0) ** (p - up) - x**p - x ** (p - 1) * (2 * up - p - p * x)
    m = jnp.full(p, x)
    ours = [f(energy, m) for f in (energies.nonlinear_variance, energies.nonlinear_third_moment)]
    np.testing.assert_allclose(ours, [1.3**k * weights @ (-y) ** k for k in (2, 3)], rtol=1e-9)
    at = m.at[0].set(0.0).at[1].set(1.0).at[2].set(-1.0)
    slopes = jax.grad(energy)(at)
    np.testing.assert_allclose(slopes[0], 1.3 * x ** (p - 3), rtol=1e-12)
    np.testing.assert_array_equal(slopes[1:], 0.0)
    np.testing.assert_allclose(jax.hessian(energy)(at)[0, 1], 1.3 * x ** (p - 3), rtol=1e-12)


def test_long_terms_at_magnetizations_that_are_zero():
    """Against sums over all configurations; slopes there were of order 1e44 by quotients."""
    n, long = 8, (0, 1, 2, 3, 4, 5, 6, 7)
    terms = {long: 0.7, long[:7]: -0.5, long[1:]: 0.4, (0, 1): 0.3, (1, 2, 7): 0.6, (3,): 0.2}
    energy = tg.Interactions.from_terms(n, terms)
    s, table = configurations(n), energy_table(energy)

    def exact(m, power):
        factors = (1 + s * m) / 2
        p = factors.prod(axis=1)
        others = [np.delete(factors, k, axis=1).prod(axis=1) for k in range(n)]
        slopes = np.array([0.5 * s[:, k] * others[k] @ table for k in range(n)])
        return p @ (table - p @ table - (s - m) @ slopes) ** power

    moments = [(energies.nonlinear_variance, 2), (energies.nonlinear_third_moment, 3)]
    for function, power in moments:
        both = jax.jit(jax.value_and_grad(functools.partial(function, energy)))
        for zeros in ([0], [0, 1], list(long)):
            m = np.random.default_rng(0).uniform(-0.8, 0.8, n)
            m[zeros] = 0
            value, slopes = both(m)
            np.testing.assert_allclose(value, exact(m, power), rtol=1e-12, atol=1e-14)
            steps = 1e-5 * np.eye(n)
            central = [(exact(m + d, power) - exact(m - d, power)) / 2e-5 for d in steps]
            np.testing.assert_allclose(slopes, central, atol=1e-8)


def test_too_many_terms_for_the_third_moment_are_refused():
    rng = np.random.default_rng(0)
    terms = {tuple(rng.choice(64, 30, replace=False).tolist()): 1.0 for _ in range(60)}
    energy = tg.Interactions.from_terms(64, terms)
    with pytest.raises(ValueError, match="30 spins.*third moment.*TAP"):
        jax.eval_shape(lambda m: tg.Plefka(3)(energy, 1.0, m), jnp.zeros(64))


def test_pairs_and_subsets_give_the_same_variance():
    energy = MODELS["interactions-1-to-5"]
    tables = [t.indices for t in energy.sets]
    assert _plans.has_short_terms(tables, 6)

    @jax.jit
    @jax.vmap
    def both(m):
        plan, couplings = _plans.overlap_plan(tables, 6), jnp.concatenate(energy.couplings)
        pairs = _interactions._sum_over_rows(couplings, m, plan)
        return pairs, tg.energies.nonlinear_variance(energy, m)

    pairs, subsets = both(points(6))
    np.testing.assert_allclose(pairs, subsets, rtol=1e-12, atol=1e-13)


# --- orders of the expansion

FAMILIES = {"pair": (2,), "3-spin": (3,), "4-spin": (4,), "mixed": (1, 2, 3, 4, 5)}


@jax.jit
@jax.vmap
def up_to_third(energy, m, beta):
    return jnp.stack([tg.Plefka(order)(energy, beta, m) for order in (1, 2, 3)])


@jax.jit
@jax.vmap
def fourth(energy, m, beta):
    return tg.Plefka(4)(energy, beta, m)


@pytest.mark.further
@pytest.mark.parametrize("family", FAMILIES)
def test_error_falls_with_the_next_power_of_beta(family):
    n, n_instances = 7, 16
    structure = random_interactions(n, jax.random.key(5), orders=FAMILIES[family])
    batch = [redrawn(structure, seed) for seed in range(n_instances)]
    m = np.random.default_rng(0).uniform(-0.8, 0.8, (n_instances, n))
    tables = stacked([tg.energies.complete(e) for e in batch])

    def slopes(function, energies, beta):
        errors = []
        for b in (beta, beta / 2):
            g = [gibbs_potential(energy_table(e), b, x) for e, x in zip(batch, m, strict=True)]
            values = np.asarray(function(energies, m, np.full(n_instances, b)))
            errors.append(b * np.abs(values.T - np.array(g)))
        assert np.min(errors) > 1e-11, "the truth is not that exact"
        return np.mean(np.log2(errors[0] / errors[1]), axis=-1)

    # The lower orders where the next power is the larger one in every instance.
    np.testing.assert_allclose(slopes(up_to_third, stacked(batch), 0.02), [2, 3, 4], atol=0.3)
    np.testing.assert_allclose(slopes(fourth, tables, 0.1), 5, atol=0.3)
    if family == "pair":
        pairs = stacked([as_pairwise(e) for e in batch])
        np.testing.assert_allclose(slopes(fourth, pairs, 0.1), 5, atol=0.3)


# --- Bethe


def tree() -> tg.Interactions:
    """Fields and factors of two, three and four spins without a loop."""
    rng = np.random.default_rng(0)
    sets = [(0, 1), (1, 2, 3), (3, 4, 5, 6), (6, 7), (2, 8), *((k,) for k in range(9))]
    return tg.Interactions.from_terms(
        9, {s: rng.choice([-1, 1]) * rng.uniform(0.3, 1) for s in sets}
    )


@pytest.mark.further
def test_bethe_is_exact_on_a_tree():
    energy, rng = tree(), np.random.default_rng(1)
    table, m = energy_table(energy), np.tanh(rng.normal(size=(4, 9)))
    m[1], m[2, ::2] = 0, 0.3
    for beta in (0.3, 1.0, 4.0):
        truth = [gibbs_potential(table, beta, x) for x in m]
        np.testing.assert_allclose(over_points(tg.Bethe(), energy, m, beta), truth, atol=1e-10)


@pytest.mark.further
def test_bethe_solves_a_chain():
    n, beta, rng = 8, 0.9, np.random.default_rng(2)
    terms = {(i, i + 1): rng.uniform(0.5, 1.5) for i in range(n - 1)}
    terms |= {(i,): 0.3 * rng.normal() for i in range(n)}
    energy = tg.Interactions.from_terms(n, terms)
    solution = tg.solve(tg.Bethe(), energy, beta, np.full(n, 0.2))
    p, log_z = boltzmann(energy, beta)
    np.testing.assert_allclose(solution.value, p @ configurations(n), atol=1e-9)
    np.testing.assert_allclose(solution.stats["free_energy"], -log_z / beta, rtol=1e-12)


N_FACTORS = 405


@jax.jit
@jax.vmap
def of_factor(k, m):
    """Messages, what they answer to, excess, gradient and Hessian; one compilation for each p."""
    limit = 1 - 0.5 * jnp.finfo(m.dtype).eps
    u = factor_messages(k, m)
    answer = outgoing(k, jnp.arctanh(jnp.clip(m, -limit, limit)) - u)
    x = jnp.append(k, m)

    def gradient(x):
        value, slope = jax.value_and_grad(lambda x: factor_excess(x[0], x[1:]))(x)
        return slope, (value, slope)

    hessian, (value, slope) = jax.jacfwd(gradient, has_aux=True)(x)
    return u, answer, value, slope, hessian


@pytest.mark.further
@pytest.mark.parametrize("p", [2, 3, 4])
def test_messages_obey_their_equation(p):
    rng = np.random.default_rng(p)
    k = np.geomspace(0.1, 40, N_FACTORS) * rng.choice([-1, 1], N_FACTORS)
    theta = rng.uniform(-15, 15, (N_FACTORS, p)) * rng.choice([1, 0.1, 0.01, 0], (N_FACTORS, p))
    theta[::5] = theta[::5, :1]
    theta[1::10] = 15 * np.sign(rng.normal(size=theta[1::10].shape))
    u, answer, *_ = of_factor(k, np.tanh(theta))
    assert np.all(np.isfinite(u))
    np.testing.assert_allclose(u, answer, rtol=0, atol=1e-12)


# Derivatives of a factor of four compile for long.
SIZES = [2, 3, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.parametrize("p", SIZES)
def test_derivatives_of_factors_are_finite_differences(p):
    rng, step = np.random.default_rng(p), 1e-5
    k, m = rng.uniform(-1.2, 1.2, N_FACTORS), rng.uniform(-0.8, 0.8, (N_FACTORS, p))
    k[:3], m[0], m[3], m[4], m[5, 0], m[6, :2] = 0, 0, 0, 0.4, 0, -0.6
    dot = rng.normal(size=(N_FACTORS, p + 1))
    u, _, _, slope, hessian = of_factor(k, m)
    ends = [of_factor(k + s * dot[:, 0], m + s * dot[:, 1:]) for s in (step, -step)]
    by_value, by_slope = ((ends[0][i] - ends[1][i]) / (2 * step) for i in (2, 3))
    # The error of a finite difference is its third derivative, up to 1e3 times the first here.
    np.testing.assert_allclose(np.sum(slope * dot, axis=1), by_value, rtol=1e-6, atol=1e-7)
    # The rows by m are the derivatives of the messages, up to sign.
    np.testing.assert_array_equal(slope[:, 1:], -u)
    np.testing.assert_allclose(
        np.einsum("aij,aj->ai", hessian, dot), by_slope, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("p", SIZES)
def test_factors_on_the_faces(p):
    strengths = [0.0, 0.7, -1.3, 3.0, 5.0]
    rows = itertools.product(strengths, itertools.product([-1.0, 1.0, 0.3], repeat=p))
    k, m = (np.array(x) for x in zip(*rows, strict=True))
    # Repeated up to the shape that is compiled already: 5 * 3^4.
    k, m = np.resize(k, N_FACTORS), np.resize(m, (N_FACTORS, p))
    _, _, value, slope, hessian = (np.asarray(x) for x in of_factor(k, m))
    # With one spin left free at most, the factor is a field.
    field = np.sum(np.abs(m) == 1, axis=1) >= p - 1
    np.testing.assert_allclose(value[field], (-k * np.prod(m, axis=1))[field], atol=1e-11)
    assert all(np.all(np.isfinite(array)) for array in (value, slope, hessian))


@pytest.mark.parametrize("p", SIZES)
def test_derivatives_of_factors_at_strong_coupling(p):
    k = np.resize([10.0, -15.0, 20.0, -30.0, 40.0], N_FACTORS)
    m = np.tanh(np.random.default_rng(p).normal(size=(N_FACTORS, p)))
    m[::3, -1] = 1
    *_, value, slope, hessian = of_factor(k, m)
    for array in (value, slope, hessian):
        rows = np.isfinite(np.reshape(array, (N_FACTORS, -1))).all(axis=1)
        assert rows.all(), f"not finite at k = {sorted(set(k[~rows].tolist()))}"


def test_bethe_names_what_it_supports():
    message = r"Bethe needs .*Interactions, Pairwise, RBM.* got Complete"
    with pytest.raises(TypeError, match=message):
        tg.Bethe()(MODELS["complete"], 1.0, np.zeros(6))


# --- adaptive TAP


def test_precisions_give_unit_variances():
    energy, beta = random_pairwise(8, jax.random.key(1), scale=2.0), 1.7
    m = points(8)
    k, v = beta * np.asarray(energy.couplings), 1 - m**2
    precisions = jax.jit(jax.vmap(relative_precisions, (None, 0)))(k, v)
    for x, v_k in zip(np.asarray(precisions), v, strict=True):
        root = np.sqrt(v_k)
        matrix = np.diag(x) - root[:, None] * k * root
        assert np.linalg.eigvalsh(matrix)[0] > 0
        np.testing.assert_allclose(np.diagonal(np.linalg.inv(matrix)), 1, rtol=1e-12)


def test_precisions_are_found_at_any_coupling():
    """Also where those of TAP, from which the steps start, lie far beyond the edge."""
    n, rng = 60, np.random.default_rng(0)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    k = (upper + upper.T) * np.geomspace(0.1, 50, 12)[:, None, None]
    v = 1 - np.tanh(rng.normal(size=(12, n)) * rng.choice([0.1, 1, 5], (12, 1))) ** 2
    precisions = np.asarray(jax.jit(jax.vmap(relative_precisions))(k, v))
    root = np.sqrt(v)
    matrices = precisions[:, :, None] * np.eye(n) - root[:, :, None] * k * root[:, None, :]
    assert np.linalg.eigvalsh(matrices).min() > 0
    variances = np.diagonal(np.linalg.inv(matrices), axis1=1, axis2=2)
    np.testing.assert_allclose(variances, 1, rtol=1e-9)


def test_derivatives_of_adaptive_tap():
    n, step, rng = 4, 1e-5, np.random.default_rng(0)
    energy = random_pairwise(n, jax.random.key(2), scale=1.5)
    parameters, rebuild = ravel_pytree(energy)
    size = parameters.size

    def excess(x):
        return tg.AdaptiveTAP().excess(rebuild(x[:size]), x[-1], x[size:-1])

    @jax.jit
    @jax.vmap
    def derivatives(x):
        hessian, slope = jax.jacfwd(lambda x: (jax.grad(excess)(x),) * 2, has_aux=True)(x)
        return excess(x), slope, hessian

    faces = np.array([[0.3, -0.5, 0.8, 0.1], [1, -1, 1, 1], [1, 0.3, -1, 0]])
    x = np.array([[*parameters, *m, 0.9] for m in faces])
    x_dot = rng.normal(size=x.shape[1])
    x_dot[: n * n] = np.ravel(redrawn(energy, 1).couplings)
    x = np.concatenate([x, x[:1] + step * x_dot, x[:1] - step * x_dot])
    value, slope, hessian = (np.asarray(a) for a in derivatives(x))
    assert all(np.all(np.isfinite(a)) for a in (value, slope, hessian))
    for ours, function in ((slope[0], value), (hessian[0], slope)):
        differences = (function[3] - function[4]) / (2 * step)
        np.testing.assert_allclose(ours @ x_dot, differences, rtol=1e-7, atol=1e-8)
    corner = np.all(configurations(n) == faces[1], axis=1)
    np.testing.assert_allclose(value[1], energy_table(energy)[corner][0], rtol=1e-12)


@pytest.mark.further
def test_adaptive_tap_of_rotationally_invariant_couplings():
    # Paley's conference matrix, C C^T = 13.
    q, n, beta = 13, 14, 1.0
    squares = {x * x % q for x in range(1, q)}
    c = np.ones((n, n)) - np.eye(n)
    for i, j in itertools.product(range(q), repeat=2):
        c[i + 1, j + 1] = 0 if i == j else (1 if (i - j) % q in squares else -1)
    np.testing.assert_array_equal(c @ c.T, q * np.eye(n))
    energy = tg.Pairwise(c / np.sqrt(q), np.zeros(n))
    # By symmetry G(0) is the free energy.
    exact = -boltzmann(energy, beta)[1]
    np.testing.assert_allclose(exact + n * np.log(2), -2.65043, atol=1e-5)
    functionals = (tg.AdaptiveTAP(), tg.TAP(), tg.Bethe())
    errors = [abs(evaluate(f, energy, np.zeros(n), beta) - exact) for f in functionals]
    assert errors[0] < 0.02 and errors[0] < min(errors[1:]) / 20


def test_adaptive_tap_is_tap_at_weak_coupling():
    batch = stacked([random_pairwise(6, jax.random.key(seed)) for seed in range(8)])
    m = np.random.default_rng(0).uniform(-0.8, 0.8, (8, 6))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def difference(energy, m, beta):
        return beta * (tg.AdaptiveTAP()(energy, beta, m) - tg.TAP()(energy, beta, m))

    large, small = (np.abs(difference(batch, m, beta)) for beta in (0.04, 0.02))
    assert np.min(small) > 1e-11
    # Of the sums: one instance may pass through zero.
    assert abs(np.log2(np.sum(large) / np.sum(small)) - 3) < 0.3


def test_adaptive_tap_of_a_large_spin_glass():
    n, beta = 200, 0.5
    energy = random_pairwise(n, jax.random.key(0), fields=0.0)
    excess = float(evaluate(tg.AdaptiveTAP(), energy, np.zeros(n), beta) + n * np.log(2) / beta)
    bonds = 0.5 * np.sum(np.asarray(energy.couplings) ** 2)
    # Beyond TAP: rings of k bonds, together of variance sum_{k >= 3} beta^2k / 2k = 0.0033, and
    # bonds counted twice, sum of (beta J)^4 / 4 = (3/8) beta^4. Three standard deviations.
    assert abs(beta * excess + 0.5 * beta**2 * bonds) < 3 * 0.058 + 3 / 8 * beta**4
    # The sum over bonds is (n - 1)/2 with variance 1; three standard deviations of both. So
    # F/n -> -beta/4 - T ln 2, here and for TAP.
    assert abs(excess / n + beta / 4) < 1.5 / n
    onsager = float(evaluate(tg.TAP(), energy, np.zeros(n), beta) + n * np.log(2) / beta)
    assert abs(onsager / n + beta / 4) < 1.5 / n


def test_adaptive_tap_names_what_it_supports():
    message = "AdaptiveTAP needs .* up to 2 spins, got Interactions with"
    with pytest.raises(TypeError, match=message):
        tg.AdaptiveTAP()(MODELS["interactions"], 1.0, np.zeros(6))


# --- one energy in two forms


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def of_pairs(energy, m):
    functionals = [tg.Plefka(3), tg.Bethe(), tg.AdaptiveTAP()]
    if not isinstance(energy, tg.Interactions):
        functionals += [tg.Plefka(4)]
    return jnp.stack([functional(energy, 0.8, m) for functional in functionals])


@pytest.mark.further
@pytest.mark.parametrize("name", ["interactions", "rbm"])
def test_functionals_do_not_depend_on_the_form_of_the_energy(name):
    pairs = random_interactions(6, jax.random.key(6), orders=(1, 2))
    energy = pairs if name == "interactions" else random_rbm(6, jax.random.key(7))
    ours, truth = (of_pairs(e, points(6)) for e in (energy, as_pairwise(energy)))
    np.testing.assert_allclose(ours, truth[:, : ours.shape[1]], rtol=1e-11, atol=1e-12)
