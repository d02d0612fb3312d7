"""What every energy, and every functional on every energy, promises: run over the registries."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import (
    ENERGIES,
    FUNCTIONALS,
    PAIRS,
    QUICK,
    boltzmann,
    configurations,
    energy_table,
    mean_energy,
    mean_gradient,
    nonlinear_variance,
    quick,
)
from jax.flatten_util import ravel_pytree

import thermogen as tg
from thermogen import energies

N = 5


def points(n=N):
    """Generic magnetizations, some of them exactly 0 or +-1."""
    m = np.random.default_rng(1).uniform(-0.95, 0.95, (5, n))
    m[1, 0], m[1, 1], m[2, 2], m[3] = 1.0, -1.0, 0.0, 0.0
    m[4] = [(-1.0) ** k for k in range(n)]
    return m


@pytest.fixture(scope="module", params=list(ENERGIES))
def energy(request):
    return ENERGIES[request.param](N, jax.random.key(7))


# --- energies


def test_energy_is_its_definition(energy):
    ours = jax.jit(jax.vmap(energy))(configurations(N))
    np.testing.assert_allclose(ours, energy_table(energy), rtol=1e-12, atol=1e-13)
    integers = jax.jit(jax.vmap(energy))(configurations(N).astype(np.int8))
    np.testing.assert_allclose(integers, ours, rtol=1e-13)


def test_energy_at_magnetizations_is_the_product_measure_mean(energy):
    table = energy_table(energy)
    ours = jax.jit(jax.vmap(energy))(points())
    truth = [mean_energy(table, m) for m in points()]
    np.testing.assert_allclose(ours, truth, rtol=1e-12, atol=1e-13)
    fields = jax.jit(jax.vmap(tg.local_fields, (None, 0)))(energy, points())
    truth = [-mean_gradient(table, m) for m in points()]
    np.testing.assert_allclose(fields, truth, rtol=1e-11, atol=1e-13)


def test_local_field_of_a_spin_does_not_depend_on_it(energy):
    jacobian = jax.jit(jax.jacobian(tg.local_fields, argnums=1))(energy, points()[0])
    np.testing.assert_array_equal(jnp.diagonal(jacobian), 0.0)


def test_flip_gaps_are_differences_of_the_table(energy):
    table, s = energy_table(energy), configurations(N)
    flipped = np.arange(2**N)[:, None] ^ (1 << np.arange(N))
    gaps = jax.jit(jax.vmap(tg.flip_gaps, (None, 0)))
    np.testing.assert_allclose(gaps(energy, s), table[flipped] - table[:, None], rtol=1e-11)
    np.testing.assert_allclose(gaps(energy, s.astype(np.int8)), gaps(energy, s), rtol=1e-13)


def test_nonlinear_variance_is_that_of_the_table(energy):
    ours = jax.jit(jax.vmap(energies.nonlinear_variance, (None, 0)))(energy, points())
    truth = [nonlinear_variance(energy_table(energy), m) for m in points()]
    np.testing.assert_allclose(ours, truth, rtol=1e-11, atol=1e-12)


def test_every_leaf_is_a_floating_parameter(energy):
    leaves = jax.tree.leaves(energy)
    assert leaves and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
    gradient = jax.grad(lambda e: e(points()[0]))(energy)
    assert jax.tree.structure(gradient) == jax.tree.structure(energy)
    assert isinstance(hash(jax.tree.structure(energy)), int)


def test_squared_norm_counts_every_coupling_once(energy):
    s, table = configurations(N), energy_table(energy)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(N), p) for p in range(N + 1)
    )
    couplings = [-np.mean(table * s[:, list(a)].prod(axis=1)) for a in subsets]
    np.testing.assert_allclose(energies.squared_norm(energy), np.sum(np.square(couplings)))


def test_constrain_is_a_projection(energy):
    for old, new in zip(
        jax.tree.leaves(energy), jax.tree.leaves(energies.constrain(energy)), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    keys = iter(jax.random.split(jax.random.key(0), 9))
    anywhere = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), energy)
    once = energies.constrain(anywhere)
    for first, second in zip(
        jax.tree.leaves(once), jax.tree.leaves(energies.constrain(once)), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_flip_symmetry_is_that_of_the_table(energy):
    table = energy_table(energy)
    assert bool(energies.is_flip_symmetric(energy)) == np.allclose(table, table[::-1])


def test_embedded_data_come_first_and_hidden_spins_take_their_means(energy):
    v, beta = energies.n_visible(energy), 0.8
    data = configurations(v)[-2]
    weights = np.exp(-beta * energy_table(energy)).reshape(2 ** (N - v), 2**v)[:, -2]
    hidden = configurations(N - v).T @ weights / weights.sum()
    point = energies.embed(energy, beta, jnp.asarray(data))
    np.testing.assert_allclose(point, np.concatenate([data, hidden]), rtol=1e-11)
    free_energy = energies.visible_free_energy(energy, beta, jnp.asarray(data))
    np.testing.assert_allclose(free_energy, -np.log(weights.sum()) / beta, rtol=1e-12)


def test_equal_structures_share_compiled_code(energy):
    traces = []

    @jax.jit
    def evaluate(energy, m):
        traces.append(energy)
        return energy(m)

    # Made anew, so that what is static is equal but not identical.
    name = next(k for k in ENERGIES if type(ENERGIES[k](N, jax.random.key(7))) is type(energy))
    other = jax.tree.map(lambda x: 0.5 * x, ENERGIES[name](N, jax.random.key(7)))
    a, b = (evaluate(e, points()[0]) for e in (energy, other))
    assert len(traces) == 1
    np.testing.assert_allclose(b, 0.5 * a)


# --- functionals


@pytest.mark.parametrize("pair", quick(*QUICK))
def test_functional_is_differentiable_on_the_faces(pair):
    energy, functional = ENERGIES[pair[0]](N, jax.random.key(7)), FUNCTIONALS[pair[1]]

    def value_and_slope(m):
        return functional(energy, 1.3, m), jax.grad(functional.excess, 2)(energy, 1.3, m)

    for array in jax.jit(jax.vmap(value_and_slope))(points()[1:]):
        assert jnp.all(jnp.isfinite(array))


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_functional_of_independent_spins_is_exact(name):
    fields = np.array([0.3, -2.0, 0.0, 25.0, -60.0])
    free = tg.Interactions.from_terms(N, {(k,): h for k, h in enumerate(fields)})
    if ("interactions", name) not in PAIRS:
        free = tg.Pairwise(np.zeros((N, N)), fields)
    g = FUNCTIONALS[name](free, 1.5, jnp.tanh(1.5 * fields))
    exact = -np.sum(np.logaddexp(1.5 * fields, -1.5 * fields)) / 1.5
    np.testing.assert_allclose(g, exact, rtol=1e-13)


# --- solving, and derivatives of the solution: one compilation serves all tests of a pair

N_SOLVE = 4
BETA = 0.8
INIT = np.array([0.3, -0.2, 0.4, 0.1])
WEIGHTS = np.array([1.0, 0.7, -0.4, 0.2])
COUPLING_SCALES = {"weak": 0.3, "moderate": 1.2}
# Every further order costs seconds of compilation; test_energies has them all.
SMALLER = {"interactions": {"orders": (0, 1, 3)}}


class Problem:
    """A solve as a function of one flat vector (parameters of the energy, beta)."""

    def __init__(self, energy_name: str, functional_name: str):
        energy = ENERGIES[energy_name](N_SOLVE, jax.random.key(3), **SMALLER.get(energy_name, {}))
        self.functional = FUNCTIONALS[functional_name]
        self.flat, self.unravel = ravel_pytree((energy, jnp.array(BETA)))
        self.values_and_jacobian = jax.jit(jax.vmap(jax.jacrev(self.outputs, has_aux=True)))
        self.derivatives = jax.jit(self._derivatives)

    def energy_and_beta(self, flat):
        energy, beta = self.unravel(flat)
        return energies.constrain(energy), beta

    def outputs(self, flat, adjoint=optx.ImplicitAdjoint(), solver=tg.MirrorDescent()):
        energy, beta = self.energy_and_beta(flat)
        solution = tg.solve(
            self.functional,
            energy,
            beta,
            INIT,
            adjoint=adjoint,
            solver=solver,
            tol=1e-12,
            throw=False,
        )
        m = solution.value
        outputs = jnp.concatenate([m, jnp.dot(WEIGHTS, m**2)[None]])
        outputs = jnp.append(outputs, solution.stats["free_energy"])
        return outputs, (outputs, solution)

    def _derivatives(self, flat, m):
        """G, dG/dm, d^2 G/dm dm and dG/d(parameters): no code of the solver takes part."""

        def g(flat, m):
            energy, beta = self.energy_and_beta(flat)
            return self.functional(energy, beta, m)

        hessian = jax.hessian(g, 1)(flat, m)
        return g(flat, m), jax.grad(g, 1)(flat, m), hessian, jax.grad(g)(flat, m)

    def rows(self, strength):
        """The parameters at this strength, and displaced by +-step along each of them."""
        center = np.append(COUPLING_SCALES[strength] * np.asarray(self.flat)[:-1], BETA)
        steps = 1e-5 * np.eye(center.size)
        return np.concatenate([center[None], center + steps, center - steps])

    # One Problem a pair, kept for the whole run: the cache holds nothing that would be freed.
    @functools.cache  # noqa: B019
    def solved(self, strength):
        jacobians, (values, solutions) = self.values_and_jacobian(self.rows(strength))
        return np.asarray(jacobians), np.asarray(values), solutions


problem = functools.cache(Problem)


@pytest.fixture(params=quick(*QUICK))
def pair(request):
    return problem(*request.param)


@pytest.fixture(params=list(COUPLING_SCALES))
def strength(request):
    return request.param


@pytest.mark.further
def test_solve_ends_at_a_minimum_of_the_functional(pair, strength):
    _, _, solutions = pair.solved(strength)
    assert np.all(solutions.result == tg.RESULTS.converged)
    first = jax.tree.map(lambda x: x[0], solutions)
    value, gradient, hessian, _ = pair.derivatives(pair.rows(strength)[0], first.value)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-11)
    assert np.linalg.eigvalsh(hessian)[0] > 0
    np.testing.assert_allclose(first.stats["free_energy"], value, rtol=1e-13)
    np.testing.assert_allclose(jnp.tanh(first.state["fields"]), first.value, rtol=1e-14)
    assert first.stats["residual"] <= 1e-12


def test_implicit_gradients_are_finite_differences(pair, strength):
    jacobians, values, _ = pair.solved(strength)
    forward, backward = np.split(values[1:], 2)
    differences = ((forward - backward) / 2e-5).T
    assert np.max(np.abs(differences)) > 0.1
    np.testing.assert_allclose(jacobians[0], differences, rtol=1e-6, atol=1e-7)


def test_free_energy_derivative_is_the_partial_one_at_fixed_m(pair, strength):
    jacobians, _, solutions = pair.solved(strength)
    *_, partial = pair.derivatives(pair.rows(strength)[0], solutions.value[0])
    np.testing.assert_allclose(jacobians[0, -1], partial, rtol=1e-9, atol=1e-11)


@pytest.mark.further
@pytest.mark.parametrize("names", quick(("pairwise", "tap"), ("rbm", "naive")))
def test_forward_mode_agrees_with_reverse_mode(names):
    pair = problem(*names)
    jacobians, _, _ = pair.solved("moderate")
    center = jnp.asarray(pair.rows("moderate")[0])
    tangent = jnp.cos(jnp.arange(center.size, dtype=float))
    _, forward = jax.jit(lambda p, t: jax.jvp(lambda p: pair.outputs(p)[0], (p,), (t,)))(
        center, tangent
    )
    np.testing.assert_allclose(forward, jacobians[0] @ tangent, rtol=1e-9, atol=1e-12)


@pytest.mark.further
@pytest.mark.parametrize("names", quick(("pairwise", "tap")))
def test_unrolled_gradients_agree_with_implicit_ones(names):
    pair = problem(*names)
    jacobians, _, _ = pair.solved("moderate")
    # A descent to the end: an unrolled derivative is only as good as the point where it ends.
    adjoint, solver = optx.RecursiveCheckpointAdjoint(), tg.MirrorDescent(rtol=0.0, atol=1e-11)
    cotangent = np.append(WEIGHTS, [1.0, -0.5])

    @jax.jit
    @jax.grad
    def unrolled(flat):
        return jnp.dot(cotangent, pair.outputs(flat, adjoint, solver)[0])

    ours = unrolled(jnp.asarray(pair.rows("moderate")[0]))
    np.testing.assert_allclose(ours, cotangent @ jacobians[0], rtol=1e-8, atol=1e-9)


@functools.cache
def field_directions(pair):
    """Spins k, and the direction in parameter space of a field on each: it adds `-s_k` to E."""
    s = configurations(N_SOLVE)
    by_parameters = jax.jacobian(lambda p: jax.vmap(pair.energy_and_beta(p)[0])(s))
    features = jax.jit(by_parameters)(pair.flat)
    directions = np.linalg.lstsq(features, -s)[0]
    spins = np.flatnonzero(np.max(np.abs(features @ directions + s), axis=0) < 1e-9)
    assert spins.size > 0
    return spins, directions[:, spins]


def test_linear_response_is_the_inverse_hessian(pair):
    jacobians, _, solutions = pair.solved("moderate")
    _, _, hessian, _ = pair.derivatives(pair.rows("moderate")[0], solutions.value[0])
    spins, directions = field_directions(pair)
    response = jacobians[0, :N_SOLVE] @ directions
    np.testing.assert_allclose(response, np.linalg.inv(hessian)[:, spins], rtol=1e-9, atol=1e-11)


def test_linear_response_approaches_the_true_correlation(pair):
    spins, directions = field_directions(pair)
    scales = [0.1, 0.05]
    centers = [np.append(scale * np.asarray(pair.flat)[:-1], BETA) for scale in scales]
    # As many rows as elsewhere, so as not to compile again.
    rows = np.resize(centers, pair.rows("weak").shape)
    jacobians, _ = pair.values_and_jacobian(rows)
    s, errors = configurations(N_SOLVE), []
    for center, jacobian in zip(centers, jacobians[:2], strict=True):
        p, _ = boltzmann(pair.energy_and_beta(jnp.asarray(center))[0], BETA)
        covariance = BETA * (s.T @ (p[:, None] * s) - np.outer(p @ s, p @ s))
        response = jacobian[:N_SOLVE] @ directions
        errors.append(np.max(np.abs(response - covariance[:, spins])))
    # Right to first order in the couplings: half of them, a quarter of the error or less.
    assert errors[0] < 0.01 and errors[1] < errors[0] / 3
