"""Belief propagation, linear response, validity, and what derivatives of a solve cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import boltzmann, configurations, random_pairwise, random_rbm

import thermogen as tg
from thermogen.meanfield import belief_propagation

TAP, BETHE, RESULTS = tg.TAP(), tg.Bethe(), tg.RESULTS
validity = jax.jit(tg.meanfield.validity)
evaluate = jax.jit(lambda functional, energy, m, beta: functional(energy, beta, m))

TREE = tg.Interactions.from_terms(
    7,
    {
        (0,): 0.3,
        (3,): -0.4,
        (6,): 0.2,
        (0, 1): 0.9,
        (1, 2, 3): -1.2,
        (3, 4): 1.5,
        (4, 5): -0.8,
        (5, 6): 0.5,
    },
)


def moments(energy, beta):
    """Magnetizations and connected correlations by enumeration."""
    s, (p, _) = configurations(energy.n_spins), boltzmann(energy, beta)
    return p @ s, s.T @ (p[:, None] * s) - np.outer(p @ s, p @ s)


@functools.cache
def chain(n: int) -> tg.Pairwise:
    couplings = np.diag(np.ones(n - 1), 1)
    return tg.Pairwise(couplings + couplings.T, np.linspace(0.3, -0.1, n))


# --- belief propagation


@pytest.mark.slow
def test_messages_are_exact_on_a_tree():
    beta = 2.0
    solution = belief_propagation(TREE, beta)
    m, covariance = moments(TREE, beta)
    _, log_z = boltzmann(TREE, beta)
    assert solution.stats["n_steps"] <= 4, "the messages alone should settle"
    assert 0 < solution.stats["n_rounds"] < 200
    np.testing.assert_allclose(solution.value, m, atol=1e-10)
    np.testing.assert_allclose(solution.stats["free_energy"], -log_z / beta, rtol=1e-12)
    response = jax.jit(tg.susceptibility)(BETHE, TREE, beta, solution.value)
    np.testing.assert_allclose(response / beta, covariance, atol=1e-10)
    # The mean of the product of the spins of every interaction, without a solve.
    s, (p, _) = configurations(7), boltzmann(TREE, beta)
    means = jax.grad(BETHE)(TREE, beta, solution.value)
    for table, ours in zip(TREE.sets, means.couplings, strict=True):
        truth = [p @ s[:, spins].prod(axis=1) for spins in table.indices]
        np.testing.assert_allclose(-ours, truth, atol=1e-10)


@pytest.mark.slow
def test_where_messages_do_not_settle_the_descent_does():
    energy = random_pairwise(10, jax.random.key(0), scale=2.0, fields=0.05)
    rough = belief_propagation(energy, 2.0, damping=0.0, max_steps=300, throw=False)
    assert rough.stats["n_rounds"] == 300, "the messages settled: take a harder model"
    assert rough.result == RESULTS.converged
    slope = jax.grad(BETHE, argnums=2)(energy, 2.0, rough.value)
    np.testing.assert_allclose(slope, 0, atol=1e-8)


def test_belief_propagation_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="beta must be positive"):
        belief_propagation(TREE, -1.0)
    with pytest.raises(ValueError, match=r"init must have shape \(7,\)"):
        belief_propagation(TREE, 1.0, np.zeros(3))
    with pytest.raises(TypeError, match="Interactions, Pairwise, RBM"):
        belief_propagation(tg.energies.complete(chain(3)), 1.0)


# --- response and validity


@pytest.mark.further
def test_susceptibility_is_the_response_to_fields():
    energy, beta = random_pairwise(5, jax.random.key(4)), 0.8

    @jax.jit
    def magnetizations(fields):
        tilted = tg.Pairwise(energy.couplings, fields)
        return tg.solve(TAP, tilted, beta, jnp.zeros(5), throw=False).value

    m = magnetizations(energy.fields)
    steps = 1e-5 * np.eye(5)
    columns = [
        (magnetizations(energy.fields + d) - magnetizations(energy.fields - d)) / 2e-5
        for d in steps
    ]
    response = tg.susceptibility(TAP, energy, beta, m)
    np.testing.assert_allclose(response, np.array(columns).T, atol=1e-7)
    np.testing.assert_array_equal(response, response.T)


@pytest.mark.further
def test_validity_is_that_of_the_textbook():
    energy, beta = random_pairwise(6, jax.random.key(2)), 1.3
    m = np.linspace(-0.5, 0.7, 6)
    v, j = 1 - m**2, np.asarray(energy.couplings)
    report = validity(TAP, energy, beta, m)
    matrix = beta**2 * np.outer(v, v) * j**2
    np.testing.assert_allclose(report.stability, 1 - np.linalg.eigvalsh(matrix)[-1], rtol=1e-10)
    first = abs(evaluate(tg.NaiveMeanField(), energy, m, beta))
    onsager = beta / 4 * v @ j**2 @ v
    np.testing.assert_allclose(report.second_order, onsager / first, rtol=1e-10)
    third = abs(evaluate(tg.Plefka(3), energy, m, beta) - evaluate(TAP, energy, m, beta)) / first
    np.testing.assert_allclose(report.next_order, third, rtol=1e-9)
    beyond = abs(evaluate(tg.Plefka(4), energy, m, beta) - evaluate(TAP, energy, m, beta)) / first
    np.testing.assert_allclose(
        validity(tg.Plefka(4), energy, beta, m).next_order, beyond, rtol=1e-9
    )
    naive = validity(tg.NaiveMeanField(), energy, beta, m)
    assert naive.next_order == naive.second_order


@pytest.mark.further
def test_the_paramagnet_of_a_spin_glass_loses_its_validity_near_beta_one():
    energy = random_pairwise(100, jax.random.key(0), fields=0.0)
    hot, cold = (validity(TAP, energy, beta, jnp.zeros(100)) for beta in (0.8, 1.3))
    # The largest eigenvalue of J o J is 1 up to fluctuations of some n^(-1/2).
    assert hot.stability > 0.2 and cold.stability < -0.3


# --- what a derivative of a solve costs, and failure


def compiled_solves(function, *arguments):
    """LU factorisations in the compiled program, where what is not needed has gone."""
    return jax.jit(function).lower(*arguments).compile().as_text().count("getrf")


def test_gradient_of_the_free_energy_needs_no_solve():
    energy, beta = random_pairwise(5, jax.random.key(4)), 0.8

    def figure(name):
        def of(fields):
            tilted = tg.Pairwise(energy.couplings, fields)
            solution = tg.solve(TAP, tilted, beta, jnp.zeros(5), throw=False)
            return solution.stats["free_energy"] if name == "G" else jnp.sum(solution.value)

        return of

    forward = compiled_solves(figure("G"), energy.fields)
    assert forward > 0
    assert compiled_solves(jax.grad(figure("G")), energy.fields) == forward
    assert compiled_solves(jax.grad(figure("m")), energy.fields) > forward


@pytest.mark.further
def test_second_derivatives_of_the_free_energy_are_the_response():
    energy, beta = random_pairwise(4, jax.random.key(4)), 0.8

    def free_energy(fields):
        tilted = tg.Pairwise(energy.couplings, fields)
        solution = tg.solve(TAP, tilted, beta, jnp.zeros(4), tol=1e-12, throw=False)
        return solution.stats["free_energy"], solution.value

    hessians = [
        jax.jit(outer(jax.grad(free_energy, has_aux=True), has_aux=True))(energy.fields)
        for outer in (jax.jacfwd, jax.jacrev)
    ]
    m = jax.jit(free_energy)(energy.fields)[1]
    response = tg.susceptibility(TAP, energy, beta, m)
    for hessian, _ in hessians:
        np.testing.assert_allclose(hessian, -response, atol=1e-9)


class Leap(optx.AbstractRootFinder):
    """A solver that leaves for infinity."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: object = optx.max_norm

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return jnp.array(0)

    def step(self, fn, y, args, options, state, tags):
        return y * jnp.inf, state + 1, None

    def terminate(self, fn, y, args, options, state, tags):
        return state > 0, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


def test_a_solver_that_leaves_the_domain_is_told_from_bad_parameters():
    energy = random_rbm(5, jax.random.key(1))
    solution = tg.solve(TAP, energy, 1.0, np.full(5, 0.3), solver=Leap(), throw=False)
    assert solution.result == RESULTS.left_domain
    broken = jax.tree.map(lambda x: x * jnp.nan, energy)
    solution = tg.solve(TAP, broken, 1.0, np.full(5, 0.3), throw=False)
    assert solution.result == RESULTS.non_finite


@pytest.mark.parametrize("bad", [{"beta": 0.0}, {"beta": -1.0}, {"beta": np.nan}, {"m": 2.0}])
@pytest.mark.parametrize("function", [tg.susceptibility, tg.meanfield.validity])
def test_arguments_outside_their_range_are_refused(function, bad):
    energy = random_pairwise(4, jax.random.key(0))
    arguments = {"beta": 0.5, "m": 0.3} | bad
    m = np.full(4, arguments["m"])
    for evaluate in (function, lambda functional, *rest: functional(*rest)):
        with pytest.raises(ValueError, match="beta must be positive|m must hold magnetizations"):
            evaluate(tg.TAP(), energy, arguments["beta"], m)
    with pytest.raises(ValueError, match=r"m must have shape \(4,\)"):
        function(tg.TAP(), energy, 0.5, np.zeros(3))
