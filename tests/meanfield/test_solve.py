"""Mean-field free energies and their minima, against enumerated truth."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import (
    ENERGIES,
    FUNCTIONALS,
    PAIRS,
    boltzmann,
    configurations,
    energy_table,
    equations,
    random_interactions,
    random_pairwise,
    redrawn,
    stacked,
    stationarity,
    truncated_excess,
    unordered_factorisations,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import gammaln

import thermogen as tg
from thermogen.meanfield import _base, entropy
from thermogen.meanfield._solve import judge
from thermogen.search import _flat, _newton

NAIVE, TAP = FUNCTIONALS["naive"], FUNCTIONALS["tap"]
N = 6
RESULTS = tg.RESULTS

TRACES: list[tuple[str, str]] = []


@functools.partial(jax.jit, static_argnames=("tol", "max_steps"))
def solve(functional, energy, beta, init, tol=None, max_steps=1024):
    """The solve under test. Compiled once a structure, and a test below holds it to that."""
    TRACES.append((repr(functional), type(energy).__name__))
    return tg.solve(functional, energy, beta, init, tol=tol, max_steps=max_steps, throw=False)


excess = jax.jit(truncated_excess)
evaluate = jax.jit(lambda functional, energy, m, beta: functional(energy, beta, m))


def code(result) -> str:
    """The name of one result code."""
    return next(
        n
        for n in ("converged", "stalled", "saddle", "non_finite", "marginal")
        if result == getattr(RESULTS, n)
    )


def ferromagnet(n: int = N, field: float = 0.0) -> tg.Pairwise:
    """The Curie-Weiss model: critical at beta = n / (n - 1) in naive mean field."""
    return tg.Pairwise((1 - np.eye(n)) / n, np.full(n, field))


def independent(fields) -> tg.Pairwise:
    fields = np.asarray(fields)
    return tg.Pairwise(np.zeros((fields.size, fields.size)), fields)


# --- the functionals


@functools.cache
def structure(name: str) -> tg.AbstractMultilinear:
    return ENERGIES[name](5, jax.random.key(11))


@pytest.mark.further
@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(ENERGIES)),
    seed=st.integers(0, 2**32 - 1),
    beta=st.floats(0.05, 5.0),
)
def test_naive_mean_field_is_an_upper_bound(name, seed, beta):
    energy = redrawn(structure(name), seed)
    _, log_z = boltzmann(energy, beta)
    m = np.tanh(2 * np.random.default_rng(seed).normal(size=5))
    assert evaluate(NAIVE, energy, m, beta) >= -log_z / beta - 1e-9


@pytest.mark.parametrize("name", ENERGIES)
def test_plefka_is_its_definition(name):
    energy, s = structure(name), configurations(5)
    table = energy_table(energy)
    for seed, (order, functional) in enumerate([(1, NAIVE), (2, TAP)]):
        m = np.random.default_rng(seed).uniform(-1, 1, 5)
        p = np.prod((1 + m * s) / 2, axis=1)
        truth = excess(jnp.asarray(table), jnp.asarray(m), 0.7, order) + p @ np.log(p) / 0.7
        np.testing.assert_allclose(evaluate(functional, energy, m, 0.7), truth, rtol=1e-11)


def test_naive_mean_field_is_the_variational_free_energy():
    energy, m = structure("interactions"), np.linspace(-0.9, 0.8, 5)
    p = np.prod((1 + m * configurations(5)) / 2, axis=1)
    q, log_z = boltzmann(energy, 1.3)
    divergence = p @ np.log(p / q)
    np.testing.assert_allclose(
        evaluate(NAIVE, energy, m, 1.3), (divergence - log_z) / 1.3, rtol=1e-11
    )


def test_tap_of_pairs_is_the_textbook_formula():
    energy, beta = random_pairwise(4, jax.random.key(0)), 0.9
    m, j, h = (
        np.array([0.2, -0.6, 0.9, 0.1]),
        np.asarray(energy.couplings),
        np.asarray(energy.fields),
    )
    g = (
        sum((x * np.log(x) for m_k in m for x in ((1 + m_k) / 2, (1 - m_k) / 2)), start=0.0) / beta
        - h @ m
    )
    for i in range(4):
        for k in range(i + 1, 4):
            g -= j[i, k] * m[i] * m[k]
            g -= 0.5 * beta * j[i, k] ** 2 * (1 - m[i] ** 2) * (1 - m[k] ** 2)
    np.testing.assert_allclose(evaluate(TAP, energy, m, beta), g, rtol=1e-13)


def test_functionals_are_values_and_refuse_other_orders():
    assert tg.Plefka(1) == tg.NaiveMeanField() and tg.Plefka(2) == tg.TAP()
    assert jax.tree.leaves(tg.TAP()) == [] and tg.TAP() != tg.NaiveMeanField()
    for order in (0, 5):
        with pytest.raises(ValueError, match=f"order must be an integer from 1 to 4, got {order}"):
            tg.Plefka(order)


@pytest.mark.further
def test_infinite_range_is_exact_for_naive_mean_field():
    beta, field, errors = 1.5, 0.3, []
    for n in (50, 200, 800):
        up = np.arange(n + 1)
        total = 2 * up - n
        logits = gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1)
        logits += beta * ((total**2 - n) / (2 * n) + field * total)
        exact = -np.logaddexp.reduce(logits) / beta / n
        m = brentq(lambda m: m - np.tanh(beta * (m + field)), 0.1, 1.0)
        g = evaluate(NAIVE, ferromagnet(n, field), np.full(n, m), beta) / n
        errors.append(float(g - exact))
    assert 0 < errors[2] < 1e-3
    # The error of G/n is of order 1/n: a quarter at four times the size, the better the larger.
    first, second = np.array(errors[:-1]) / errors[1:]
    assert abs(second - 4) < 0.15 * 4 and abs(second - 4) < abs(first - 4)


# --- what is exact at saturation


@pytest.mark.further
def test_entropy_at_large_fields():
    theta = np.array([0.0, 0.3, -2.0, 10.0, -40.0, 300.0])
    x = 2.0 * np.abs(theta)
    # From the small side of the sum, which does not cancel.
    truth = np.log1p(np.exp(-x)) + x * np.exp(-x) / (1 + np.exp(-x))
    ours, slopes = jax.jit(jax.vmap(jax.value_and_grad(_base.entropy_at)))(theta[:, None])
    np.testing.assert_allclose(ours, truth, rtol=1e-14)
    np.testing.assert_allclose(jnp.sum(jax.vmap(_base.entropy_at)(theta[:, None])), np.sum(truth))
    variance = 4 * np.exp(-x) / (1 + np.exp(-x)) ** 2
    np.testing.assert_allclose(_base.variance_at(theta), variance, rtol=1e-14)
    # dS/dtheta = -theta v, also at 0, where |theta| has a kink.
    np.testing.assert_allclose(slopes[:, 0], -theta * variance, rtol=1e-10, atol=1e-80)
    np.testing.assert_allclose(entropy(np.tanh(theta[:3])), np.sum(truth[:3]), rtol=1e-12)
    assert entropy(np.array([1.0, -1.0])) == 0


def test_scaled_hessian_and_lowest_curvature():
    energy = random_pairwise(N, jax.random.key(0))

    @jax.jit
    def curvatures(functional, energy, theta, beta):
        scaled = tg.meanfield.Problem(functional, energy, beta).scaled_hessian(theta)
        plain = jax.hessian(functional, 2)(energy, beta, jnp.tanh(theta))
        return scaled, plain, _base.lowest_curvature(scaled, theta, beta)

    theta = jnp.linspace(-1.0, 1.5, N)
    root = 1 / np.cosh(theta)
    scaled, hessian, lowest = curvatures(TAP, energy, theta, 0.5)
    np.testing.assert_allclose(scaled, 0.5 * np.outer(root, root) * hessian, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(lowest, np.linalg.eigvalsh(hessian)[0], rtol=1e-9)
    *_, lowest = curvatures(TAP, ferromagnet(), jnp.zeros(N), 3.0)
    assert lowest == -jnp.inf
    frozen, *_ = curvatures(TAP, energy, jnp.full(N, 40.0), 2.0)
    np.testing.assert_allclose(frozen, np.eye(N), atol=1e-15)


@pytest.mark.parametrize("functional", [NAIVE, TAP, tg.Bethe()], ids=["naive", "tap", "bethe"])
def test_independent_spins_are_exact_even_when_frozen(functional):
    beta, fields = 2.0, np.array([0.0, 0.1, -1.0, 5.0, -20.0, 150.0])
    solution = solve(functional, independent(fields), beta, np.full(N, 0.5))
    assert solution.result == RESULTS.converged
    np.testing.assert_allclose(solution.value, np.tanh(beta * fields), atol=1e-9)
    np.testing.assert_allclose(solution.state["fields"], beta * fields, atol=1e-8)
    exact = -np.sum(np.logaddexp(beta * fields, -beta * fields)) / beta
    np.testing.assert_allclose(solution.stats["free_energy"], exact, rtol=1e-14)


def test_gradients_are_finite_and_right_at_saturation():
    beta, fields = 2.0, jnp.array([0.0, 0.1, -1.0, 5.0, -20.0, 150.0])

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def gradient(fields, couplings, beta):
        energy = tg.Pairwise(couplings, fields)
        solution = tg.solve(TAP, energy, beta, jnp.zeros(N), throw=False)
        return solution.stats["free_energy"] + 0 * jnp.sum(solution.value)

    by_fields, by_couplings, by_beta = gradient(fields, jnp.zeros((N, N)), beta)
    m = np.tanh(beta * fields)
    np.testing.assert_allclose(by_fields, -m, atol=1e-9)
    np.testing.assert_allclose(by_couplings, -0.5 * (np.outer(m, m) - np.diag(m**2)), atol=1e-8)
    # dF/dbeta = S / beta^2, here as (ln 2cosh(x) - x tanh(x)) / beta^2 with small terms alone.
    x = np.abs(beta * np.asarray(fields))
    entropies = np.log1p(np.exp(-2 * x)) + 2 * x / (1 + np.exp(2 * x))
    np.testing.assert_allclose(by_beta, np.sum(entropies) / beta**2, rtol=1e-8)


# --- solve: where it ends and what it says


def test_curie_weiss_magnetization():
    n, beta = 60, 1.5
    solution = solve(NAIVE, ferromagnet(n), beta, np.full(n, 0.3))
    assert solution.result == RESULTS.converged
    root = brentq(lambda m: m - np.tanh(beta * m), 0.1, 1.0)
    np.testing.assert_allclose(solution.value, root, atol=2 / n)
    finite = brentq(lambda m: m - np.tanh(beta * m * (n - 1) / n), 0.1, 1.0)
    np.testing.assert_allclose(solution.value, finite, atol=1e-9)


def test_symmetric_start_is_called_a_saddle():
    solution = solve(NAIVE, ferromagnet(), 2.0, np.zeros(N))
    assert code(solution.result) == "saddle" and solution.stats["residual"] == 0
    assert "small noise" in RESULTS[solution.result]
    warm = solve(NAIVE, ferromagnet(), 0.5, np.zeros(N))
    assert code(warm.result) == "converged"
    near = solve(NAIVE, ferromagnet(), 2.0, np.full(N, 1e-3))
    assert code(near.result) == "converged" and near.value[0] > 0.5


# Of the complete ferromagnet of six spins with J = 1, where m = 0 bifurcates.
CRITICAL = {"naive": 0.2, "bethe": float(np.arctanh(0.25))}


@functools.cache
def at_criticality(name: str):
    """Codes, m, curvatures and derivatives by a field, by beta and by starts."""
    energy, functional = tg.Pairwise(1 - np.eye(N), np.zeros(N)), FUNCTIONALS[name]
    rng = np.random.default_rng(0)
    starts = np.stack([np.zeros(N), np.full(N, 0.5), *rng.uniform(-1, 1, (3, N))])
    betas = CRITICAL[name] * np.array([1.0, 1 + 1e-9, 1 - 1e-9, 1 - 1e-4, 1 + 1e-3])

    def run(beta, start):
        def response(field):
            tilted = eqx.tree_at(lambda e: e.fields, energy, energy.fields + field)
            solution = tg.solve(functional, tilted, beta, start, throw=False)
            return jnp.sum(solution.value), solution

        return jax.jacfwd(response, has_aux=True)(jnp.zeros(()))

    over_starts = jax.vmap(run, (None, 0))
    return betas, jax.jit(jax.vmap(over_starts, (0, None)))(betas, starts)


@pytest.mark.further
@pytest.mark.parametrize("name", ["naive", pytest.param("bethe", marks=pytest.mark.slow)])
def test_a_bifurcation_is_marginal_and_has_no_derivative(name):
    betas, (slopes, solutions) = at_criticality(name)
    cold = jax.tree.map(lambda x: x[4], solutions)
    converged = np.asarray(solutions.result == RESULTS.converged)
    marginal = np.asarray(solutions.result == RESULTS.marginal)
    assert np.all(marginal[:3]) and not np.any(marginal[3:])
    assert np.max(np.abs(solutions.value[:4])) < 1e-4
    assert not np.any(np.isfinite(slopes[:3]))
    # Just beside it all is as it should be: dm/dh = beta / l with the eigenvalue l of order 1e-4.
    assert np.all(converged[3])
    energy = tg.Pairwise(1 - np.eye(N), np.zeros(N))
    curvature = jax.hessian(lambda m: FUNCTIONALS[name](energy, betas[3], m))(jnp.zeros(N))
    np.testing.assert_allclose(slopes[3], N / np.linalg.eigvalsh(curvature)[0], rtol=1e-6)
    # In the cold the centre is a saddle, and all others are one state and its mirror image.
    assert np.asarray(cold.result == RESULTS.saddle)[0] and np.all(converged[4, 1:])
    m = np.abs(cold.value[1:])
    assert np.min(m) > 0.01
    np.testing.assert_allclose(m, m[0, 0], rtol=1e-6)


def test_solve_does_not_raise_at_a_bifurcation():
    energy = tg.Pairwise(1 - np.eye(N), np.zeros(N))
    solution = tg.solve(NAIVE, energy, 0.2, jnp.full(N, 0.3))
    assert solution.result == RESULTS.marginal
    assert "bifurcation" in RESULTS[solution.result]


def test_a_fold_is_marginal_where_both_its_sides_meet():
    # m = tanh(beta (m + h)) folds where beta (1 - m^2) = 1.
    n, beta = N, 2.0
    m = -np.sqrt(1 - 1 / beta)
    field = np.arctanh(m) / beta - m
    energy = tg.Pairwise((1 - np.eye(n)) / (n - 1), np.full(n, field))
    solution = solve(NAIVE, energy, beta, np.full(n, m - 0.01))
    assert code(solution.result) == "marginal"
    np.testing.assert_allclose(solution.value, m, atol=1e-4)


def test_too_few_steps_or_too_hard_a_tolerance_stalls():
    energy = random_pairwise(N, jax.random.key(1), scale=2.0)
    init = np.random.default_rng(0).uniform(-1, 1, N)
    hard = solve(TAP, energy, 2.0, init, tol=1e-30, max_steps=2)
    assert code(hard.result) == "stalled" and "more steps" in RESULTS[hard.result]
    assert 1e-30 < hard.stats["residual"] < np.inf
    assert hard.stats["n_steps"] <= 2 + 32


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_bad_parameters_are_called_non_finite(bad):
    energy = random_pairwise(N, jax.random.key(1))
    energy = eqx.tree_at(lambda e: e.fields, energy, energy.fields.at[0].set(bad))
    solution = solve(TAP, energy, 1.0, np.full(N, 0.1))
    assert code(solution.result) == "non_finite"


def test_throw_raises_with_advice():
    with pytest.raises(RuntimeError, match="not a minimum"):
        tg.solve(NAIVE, ferromagnet(), 2.0, jnp.zeros(N))


@pytest.mark.parametrize("beta", [0.0, -1.0, np.nan, np.inf, 0, np.float64(-2.0)])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        tg.solve(NAIVE, ferromagnet(), beta, jnp.zeros(N))


def test_init_must_fit():
    for init in (np.zeros(N + 1), np.zeros(1), np.zeros(0)):
        with pytest.raises(ValueError, match=r"init must have shape \(6,\)"):
            tg.solve(NAIVE, ferromagnet(), 1.0, init)
    for value in (1.001, -2.0, np.nan):
        with pytest.raises(ValueError, match=r"init must hold magnetizations within"):
            tg.solve(NAIVE, ferromagnet(), 1.0, np.full(N, value))


def test_known_arguments_inside_jit_are_accepted_and_checked():
    energy = random_pairwise(N, jax.random.key(2))
    init, beta = jnp.full(N, 0.5), jnp.array(0.7)

    def trace(init, beta):
        return jax.eval_shape(lambda e: tg.solve(NAIVE, e, beta, init, throw=False), energy)

    for start, inverse_temperature in ((init, beta), (np.asarray(init), 0.7)):
        assert trace(start, inverse_temperature).value.shape == (N,)
    for wrong in (-0.7, -beta, np.float64(0)):
        with pytest.raises(ValueError, match="beta must be positive"):
            trace(init, wrong)
    with pytest.raises(ValueError, match="init must hold"):
        trace(4 * init, beta)


def test_int8_spins_are_a_start():
    energy = random_pairwise(N, jax.random.key(2))
    spins = np.array([1, -1, 1, 1, -1, -1], np.int8)
    integer, real = (solve(TAP, energy, 0.7, x) for x in (spins, spins.astype(float)))
    assert integer.result == RESULTS.converged
    np.testing.assert_array_equal(integer.value, real.value)


@pytest.mark.further
def test_batches_are_single_solves():
    rng = np.random.default_rng(0)
    batch = [redrawn(random_pairwise(N, jax.random.key(2)), seed) for seed in range(4)]
    betas, starts = np.array([0.5, 1.0, 1.5, 2.0]), rng.uniform(-1, 1, (4, N))
    both = jax.vmap(solve, (None, 0, 0, 0))(TAP, stacked(batch), betas, starts)
    assert np.all(both.result == RESULTS.converged)
    for i, energy in enumerate(batch):
        single = solve(TAP, energy, betas[i], starts[i])
        assert single.result == RESULTS.converged
        np.testing.assert_allclose(both.value[i], single.value, atol=1e-9)
        np.testing.assert_allclose(both.stats["free_energy"][i], single.stats["free_energy"])
    # One axis alone: its other arguments are shared.
    over_beta = jax.vmap(solve, (None, None, 0, None))(TAP, batch[1], betas, starts[1])
    over_init = jax.vmap(solve, (None, None, None, 0))(TAP, batch[1], betas[1], starts)
    for batched in (over_beta, over_init):
        np.testing.assert_allclose(batched.value[1], both.value[1], atol=1e-9)


def test_a_batch_of_codes_tells_its_rows_apart():
    starts = np.stack([np.zeros(N), np.full(N, 0.5), np.full(N, -0.5)])
    solutions = jax.vmap(solve, (None, None, None, 0))(NAIVE, ferromagnet(), 2.0, starts)
    converged = solutions.result == RESULTS.converged
    np.testing.assert_array_equal(converged, [False, True, True])
    np.testing.assert_allclose(solutions.value[1], -solutions.value[2], rtol=1e-12)


@pytest.mark.parametrize("name", ENERGIES)
def test_other_parameters_do_not_compile_again(name):
    def solve_anew(n, seed, beta):
        # Made anew each time: equal structure must do, identity must not be needed.
        options = {"orders": (1, 3)} if name == "interactions" else {}
        energy = redrawn(ENERGIES[name](n, jax.random.key(0), 0.5, **options), seed)
        return solve(NAIVE, energy, beta, np.full(n, 0.1 * seed)).stats["free_energy"]

    first = solve_anew(4, 0, 0.3)
    count = len(TRACES)
    assert solve_anew(4, 1, 0.5) != first and solve_anew(4, 2, 0.7) != first
    assert len(TRACES) == count
    if name == "pairwise":
        solve_anew(3, 0, 0.3)
        assert len(TRACES) == count + 1, "the counter does not count"


@pytest.mark.parametrize(
    "solver",
    [optx.Newton(rtol=1e-8, atol=1e-8), optx.Dogleg(rtol=1e-8, atol=1e-8)],
    ids=["newton", "dogleg"],
)
def test_any_root_finder_may_take_the_place_of_ours(solver):
    energy = random_pairwise(N, jax.random.key(2))
    ours = solve(TAP, energy, 0.7, np.zeros(N))
    near = np.clip(ours.value + 0.02, -1, 1)
    other = tg.solve(TAP, energy, 0.7, near, solver=solver)
    np.testing.assert_allclose(other.value, ours.value, atol=1e-9)


# --- precision


def test_float32_alone():
    energy = random_pairwise(N, jax.random.key(2))
    init = np.full(N, 0.2)
    double = solve(TAP, energy, 0.7, init)
    with jax.enable_x64(False):
        single_energy = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), energy)
        single = solve(TAP, single_energy, 0.7, init.astype(np.float32))
        assert single.value.dtype == single.stats["free_energy"].dtype == jnp.float32
        assert code(single.result) == "converged"
        value = np.asarray(single.value)
    np.testing.assert_allclose(value, double.value, atol=1e-3)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_float32_energies_stay_so_beside_float64(pair):
    energy, functional = structure(pair[0]), FUNCTIONALS[pair[1]]
    energy = jax.tree.map(lambda x: x.astype(jnp.float32), energy)
    solution = jax.eval_shape(
        lambda e, m: tg.solve(functional, e, 0.7, m, throw=False), energy, jnp.zeros(5)
    )
    figures = [solution.value, *(v for k, v in solution.stats.items() if k != "n_steps")]
    assert {x.dtype for x in figures} == {jnp.dtype(jnp.float32)}


# --- the traps


@pytest.mark.further
def test_plain_iteration_fails_where_solve_converges():
    n, beta = 16, 2.5
    energy = random_pairwise(n, jax.random.key(0))
    starts = 0.9 * np.random.default_rng(0).choice([-1.0, 1.0], (64, n))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def plain(m, beta):
        def target(m):
            return jnp.tanh(-beta * jax.grad(TAP.excess, 2)(energy, beta, m))

        m = jax.lax.fori_loop(0, 1000, lambda _, m: 0.5 * (m + target(m)), m)
        return jnp.max(jnp.abs(m - target(m)))

    assert np.all(plain(starts, 0.3) < 1e-8), "the iteration itself is right"
    assert np.mean(plain(starts, beta) < 1e-3) < 0.05
    solutions = jax.vmap(solve, (None, None, None, 0))(TAP, energy, beta, starts)
    assert np.all(solutions.result == RESULTS.converged)


# Betas at which landscapes are rough, so that solves have something to fail at. In all, 1080
# solves for TAP and 360 for naive mean field; all betas of a pair share one compilation.
@pytest.mark.further
@pytest.mark.parametrize("beta", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("name, order", [("pairwise", 1), *((name, 2) for name in ENERGIES)])
def test_nothing_is_called_converged_that_is_not(name, order, beta):
    n, n_energies, n_starts = 4, 12, 10
    options = {"orders": (1, 3)} if name == "interactions" else {}
    template = ENERGIES[name](n, jax.random.key(0), **options)
    batch = [redrawn(template, seed, 2.0) for seed in range(n_energies)]
    starts = np.random.default_rng(0).normal(0, 0.7, (n_energies, n_starts, n)).clip(-1, 1)
    over_starts = jax.vmap(solve, (None, None, None, 0))
    over_both = jax.vmap(over_starts, (None, 0, None, 0))
    solutions = over_both(tg.Plefka(order), stacked(batch), beta, starts)

    fields = np.asarray(solutions.state["fields"]).reshape(-1, n)
    converged = np.asarray(solutions.result == RESULTS.converged).reshape(-1)
    tables = np.repeat([energy_table(energy) for energy in batch], n_starts, axis=0)
    residual, curvature = stationarity(tables, fields, np.full(len(tables), beta), order)
    assert np.all(residual[converged] < 1e-8)
    assert np.all(curvature[converged] > 0)
    assert np.mean(converged) > 0.95


ADAPTIVE = tg.AdaptiveTAP()
VERTICES = jnp.full((3, 4), 0.3)
STATES = tg.Library.from_magnetizations(
    ADAPTIVE, random_pairwise(4, jax.random.key(0)), 1.0, VERTICES
)
PROBLEM = tg.meanfield.Problem(ADAPTIVE, random_pairwise(4, jax.random.key(0)), 1.0)


def over_all(function):
    return lambda *args: jnp.sum(jax.vmap(lambda m: function(*args, m))(VERTICES))


@pytest.mark.further
@pytest.mark.parametrize(
    "program",
    [
        jax.grad(over_all(lambda e, m: solve(ADAPTIVE, e, 1.0, m).value)),
        jax.hessian(over_all(lambda e, m: solve(ADAPTIVE, e, 1.0, m).value)),
        over_all(lambda e, m: tg.susceptibility(ADAPTIVE, e, 1.0, m)),
        jax.grad(over_all(lambda e, m: tg.susceptibility(ADAPTIVE, e, 1.0, m))),
        jax.hessian(lambda e: jnp.sum(tg.landscape.follow(ADAPTIVE, e, 1.0, STATES).curvatures)),
        over_all(lambda e, m: jnp.stack(tg.meanfield.validity(ADAPTIVE, e, 1.0, m))),
        lambda e: _newton.polish_densely(PROBLEM, jnp.asarray(1e-9), VERTICES).value,
        lambda e: _newton.settle(PROBLEM, jnp.asarray(1e-9), jnp.float32, VERTICES).value,
        lambda e: _flat.slide(PROBLEM, VERTICES),
    ],
    ids=[
        "solve",
        "solve-2",
        "susceptibility",
        "susceptibility-1",
        "follow-2",
        "validity",
        "polish",
        "settle",
        "slide",
    ],
)
def test_factorisations_wait_for_each_other(program):
    """Two batched ones at once take all threads of two cores, and wait for a third."""
    assert not unordered_factorisations(program, PROBLEM.energy)


@pytest.mark.further
def test_bethe_factorises_nothing():
    energy = random_interactions(4, jax.random.key(0), orders=(1, 2, 3))
    theta, problem = jnp.zeros((3, 4)), tg.meanfield.Problem(tg.Bethe(), energy, 1.0)
    proof = jax.vmap(lambda x: judge(problem, x, problem.taylor(x), tol=1e-8)[0])
    assert not unordered_factorisations(proof, theta)
    names = [e.primitive.name for e in equations(jax.make_jaxpr(proof)(theta))]
    assert "cholesky" in names and "lu" not in names
