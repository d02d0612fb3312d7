"""Energies against enumerated truth, and what every class promises beyond the common contract."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import (
    configurations,
    energy_table,
    equations,
    mean_energy,
    nonlinear_variance,
    random_interactions,
    random_pairwise,
    random_rbm,
)

import thermogen as tg
from thermogen import energies

TAP = tg.TAP()


def tap(energy, m):
    return TAP(energy, 1.0, m)


def magnetizations(n, seed=0):
    """Generic points of the cube, its centre, a corner, and points on its faces."""
    m = np.random.default_rng(seed).uniform(-0.95, 0.95, (4, n))
    m[1, : n // 2] = [(-1) ** k for k in range(n // 2)]
    m[2, ::2] = 0.0
    return np.concatenate([m, np.zeros((1, n)), np.ones((1, n)), -np.ones((1, n))])


# --- nonlinear variance


@pytest.mark.parametrize("orders", [(2,), (3,), (4,), (5,), (0, 1, 2, 3, 4, 5)], ids=str)
def test_nonlinear_variance_at_any_order(orders):
    energy = random_interactions(6, jax.random.key(2), orders=orders)
    table, points = energy_table(energy), magnetizations(6)
    ours = jax.jit(jax.vmap(energies.nonlinear_variance, (None, 0)))(energy, points)
    truth = [nonlinear_variance(table, m) for m in points]
    np.testing.assert_allclose(ours, truth, rtol=1e-11, atol=1e-11)


def test_the_pair_formula_is_wrong_for_four_spins():
    energy = random_interactions(8, jax.random.key(0), orders=(4,))
    m = jnp.linspace(-0.8, 0.8, 8)
    hessian, v = jax.jit(jax.hessian(energy))(m), 1 - m**2
    pairs_only = 0.5 * v @ hessian**2 @ v
    truth = nonlinear_variance(energy_table(energy), m)
    assert pairs_only < 0.7 * truth
    ours = jax.jit(energies.nonlinear_variance)(energy, m)
    np.testing.assert_allclose(ours, truth, rtol=1e-11)


def test_one_term_of_order_p_has_the_closed_form():
    p, q = 5, 0.3**2
    energy = tg.Interactions.from_terms(p, {tuple(range(p)): 1.5})
    closed = 1.5**2 * (1 - p * q ** (p - 1) + (p - 1) * q**p)
    ours = energies.nonlinear_variance(energy, jnp.full(p, 0.3))
    np.testing.assert_allclose(ours, closed, rtol=1e-12)


def test_shared_subsets_interfere():
    # (0, 1, 2) and (0, 1, 3) share the pair (0, 1): its derivative is the sum of both, squared.
    energy = tg.Interactions.from_terms(4, {(2, 0, 1): 1.0, (3, 1, 0): 1.0})
    m = jnp.array([0.1, 0.2, 0.5, -0.5])
    truth = nonlinear_variance(energy_table(energy), m)
    np.testing.assert_allclose(energies.nonlinear_variance(energy, m), truth, rtol=1e-12)


def test_a_user_energy_is_the_equal_of_ours():
    class Bond(tg.AbstractMultilinear):
        coupling: jax.Array
        n_spins: int = eqx.field(static=True, default=2)

        def __call__(self, spins):
            return -self.coupling * spins[0] * spins[1]

    energy, m = Bond(jnp.array(0.7)), jnp.array([0.2, -0.4])
    np.testing.assert_allclose(tg.local_fields(energy, m), 0.7 * m[::-1])
    assert jnp.isfinite(tg.NaiveMeanField()(energy, 1.0, m))
    with pytest.raises(TypeError, match="Bond.*register"):
        tap(energy, m)

    @energies.nonlinear_variance.register
    def _(energy: Bond, m):
        return energy.coupling**2 * jnp.prod(1 - m**2)

    pairwise = tg.Pairwise(0.7 * (1 - np.eye(2)), np.zeros(2))
    np.testing.assert_allclose(tap(energy, m), tap(pairwise, m), rtol=1e-14)


# --- pairwise


def test_pairwise_by_hand():
    energy = tg.Pairwise(np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([0.5, -1.0]))
    assert energy(jnp.array([1.0, 1.0])) == -1.5
    assert energy(jnp.array([1.0, -1.0])) == 0.5
    np.testing.assert_allclose(tg.flip_gaps(energy, jnp.array([1.0, 1.0])), [5.0, 2.0])
    assert energies.squared_norm(energy) == 4.0 + 0.25 + 1.0


def test_the_diagonal_is_inert():
    energy, m = random_pairwise(5, jax.random.key(0)), jnp.linspace(-0.9, 0.7, 5)
    filled = eqx.tree_at(lambda e: e.couplings, energy, energy.couplings + 3 * jnp.eye(5))
    np.testing.assert_allclose(filled(m), energy(m), rtol=1e-14)
    for f in (lambda e, m: e(m), tap):
        np.testing.assert_array_equal(jnp.diagonal(jax.grad(f)(energy, m).couplings), 0.0)

    def through_constructor(couplings):
        return tap(tg.Pairwise(couplings, energy.fields), m)

    gradient = jax.jit(jax.grad(through_constructor))(energy.couplings)
    np.testing.assert_array_equal(jnp.diagonal(gradient), 0.0)
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-16)


@pytest.mark.further
def test_derivative_by_a_bond_is_carried_half_by_each_entry():
    energy, m = random_pairwise(4, jax.random.key(0)), jnp.array([0.1, -0.5, 0.7, 0.3])
    gradient = jax.grad(lambda e: e(m))(energy)
    np.testing.assert_allclose(
        gradient.couplings, -0.5 * (jnp.outer(m, m) - jnp.diag(m**2)), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(gradient.fields, -m)
    terms = {(i, j): energy.couplings[i, j] for i, j in itertools.combinations(range(4), 2)}
    same = tg.Interactions.from_terms(4, terms)
    bonds = jax.grad(lambda e: tap(e, m))(same).couplings[0]
    halves = jax.grad(lambda e: tap(e, m))(energy).couplings
    np.testing.assert_allclose(bonds, (halves + halves.T)[np.triu_indices(4, 1)], rtol=1e-12)


def test_second_and_mixed_derivatives_of_pairwise():
    # The shared product J m is a custom rule; whatever is derived from it must stay right.
    energy, m = random_pairwise(4, jax.random.key(3)), jnp.array([0.1, -0.5, 0.7, 0.3])
    np.testing.assert_allclose(jax.hessian(energy)(m), -energy.couplings, atol=1e-15)
    direction = jax.tree.map(jnp.ones_like, energy)
    direction = energies.constrain(tg.Pairwise(1 - np.eye(4), np.ones(4)))
    _, mixed = jax.jvp(lambda e: tg.local_fields(e, m), (energy,), (direction,))
    np.testing.assert_allclose(mixed, m.sum() - m + 1, rtol=1e-12)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the processor's program")
def test_tap_of_pairwise_takes_two_matrix_products():
    n, batch = 48, 96
    energy = random_pairwise(n, jax.random.key(0))
    batched = jax.vmap(jax.value_and_grad(tap, argnums=1), in_axes=(None, 0))
    compiled = jax.jit(batched).lower(energy, jnp.zeros((batch, n))).compile().as_text()
    products = [line for line in compiled.splitlines() if " dot(" in line or "gemm" in line]
    large = [p for p in products if f"[{batch},{n}]" in p.split(" dot(")[0]]
    large += [p for p in products if f"[{n},{batch}]" in p.split(" dot(")[0]]
    assert len(large) == 2, products


def test_interactions_up_to_pairs_are_pairwise():
    pairwise = random_pairwise(5, jax.random.key(4))
    terms = {(j, i): pairwise.couplings[i, j] for i, j in itertools.combinations(range(5), 2)}
    terms |= {(i,): pairwise.fields[i] for i in range(5)}
    same = tg.Interactions.from_terms(5, terms)
    for m in jnp.asarray(magnetizations(5)[:3]):
        for f in (lambda e, m: e(m), tap, tg.local_fields, energies.nonlinear_variance):
            np.testing.assert_allclose(f(same, m), f(pairwise, m), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(energies.squared_norm(same), energies.squared_norm(pairwise))


def test_int8_spins_have_parameter_gradients():
    spins = np.array([1, -1, 1, 1, -1], np.int8)
    for make in (random_pairwise, random_interactions, random_rbm):
        energy = make(5, jax.random.key(0))
        gradient = jax.grad(lambda e: e(spins))(energy)
        truth = jax.grad(lambda e: e(spins.astype(float)))(energy)
        for ours, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(truth), strict=True):
            np.testing.assert_allclose(ours, expected, err_msg=make.__name__)


# --- interactions


def test_from_terms_ignores_the_order_of_keys_and_of_spins():
    terms = {(): 0.3, (2,): 0.1, (0, 3): -1.0, (1, 2): 2.0, (0, 2, 3): 0.5}
    energy = tg.Interactions.from_terms(4, terms)
    mixed = {tuple(reversed(k)): v for k, v in reversed(terms.items())}
    other = tg.Interactions.from_terms(4, mixed)
    np.testing.assert_allclose(energy_table(other), energy_table(energy))
    for m in jnp.asarray(magnetizations(4)[:2]):
        np.testing.assert_allclose(other(m), energy(m), rtol=1e-14)
        np.testing.assert_allclose(tap(other, m), tap(energy, m), rtol=1e-13)


def test_the_empty_set_carries_minus_the_mean_energy():
    energy = tg.Interactions.from_terms(3, {(): 0.7, (0, 1, 2): 1.0})
    np.testing.assert_allclose(np.mean([energy(s) for s in configurations(3)]), -0.7)
    np.testing.assert_array_equal(tg.local_fields(energy, jnp.zeros(3)), 0.0)


def test_no_terms_at_all():
    energy = tg.Interactions.from_terms(3, {})
    assert energy(jnp.ones(3)) == 0 and energies.squared_norm(energy) == 0
    assert energies.nonlinear_variance(energy, jnp.zeros(3)) == 0
    solution = tg.solve(TAP, energy, 2.0, np.zeros(3))
    np.testing.assert_array_equal(solution.value, 0.0)
    np.testing.assert_allclose(solution.stats["free_energy"], -1.5 * np.log(2))


def test_gradients_pass_through_from_terms():
    m = jnp.array([0.5, -0.2, 0.1])
    gradient = jax.jit(jax.grad(lambda j: tg.Interactions.from_terms(3, {(0, 1): j, (2,): 1.0})(m)))
    np.testing.assert_allclose(gradient(0.3), 0.1)


@pytest.mark.parametrize(
    "terms, message",
    [
        ({(0, 3): 1.0}, r"\(0, 3\) has a spin outside 0\.\.2"),
        ({(-1,): 1.0}, r"\(-1,\) has a spin outside 0\.\.2"),
        ({(1, 0, 1): 1.0}, r"\(0, 1, 1\) repeats a spin"),
        ({(0, 2): 1.0, (2, 0): 1.0}, r"\(0, 2\) occurs twice"),
        ({(0, 2): np.nan}, r"couplings\[0\] must be finite"),
        ({(0,): 1.0, (0, 1): np.inf}, r"couplings\[1\] must be finite"),
    ],
    ids=str,
)
def test_from_terms_says_what_is_wrong(terms, message):
    with pytest.raises(ValueError, match=message):
        tg.Interactions.from_terms(3, terms)


def test_sets_of_other_than_integers_are_refused(unchecked):
    with pytest.raises(ValueError, match="integer"):
        energies.SpinSets(np.array([[0.5]]))
    with pytest.raises(ValueError, match="shape"):
        energies.SpinSets(np.array([0, 1]))
    with pytest.raises((TypeError, ValueError), match="integer"):
        tg.Interactions.from_terms(3, {(0.7,): 1.0})


def test_spin_numbers_do_not_wrap_around():
    with pytest.raises((ValueError, OverflowError)):
        tg.Interactions(3, [np.array([[2**32]])], [np.ones(1)])


def test_tables_and_couplings_must_agree():
    for sets, couplings in [
        ([np.array([[0, 1]])], [np.ones(2)]),
        ([np.array([[0, 1]])], []),
        ([np.array([[0, 1]])], [np.ones((1, 1))]),
        ([np.array([[0, 1]]), np.array([[1, 0]])], [np.ones(1), np.ones(1)]),
    ]:
        with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="sets|couplings"):
            tg.Interactions(3, sets, couplings)


def test_spin_sets_are_values():
    table = np.array([[0, 1], [1, 2]])
    a, b = energies.SpinSets(table), energies.SpinSets(table.astype(np.int16))
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert a != energies.SpinSets(table[::-1]) and a != energies.SpinSets(table[:1])
    assert a != energies.SpinSets(table.reshape(1, 4)) and a != "sets"
    assert (a.order, len(a)) == (2, 2)
    assert "2" in repr(a)
    table[0, 0] = 2
    assert a == b, "the caller's array must have been copied"
    with pytest.raises(ValueError, match="read-only"):
        a.indices[0, 0] = 2


# --- restricted Boltzmann machine


def test_rbm_marginal_against_the_sum_over_hidden_spins():
    energy, beta = random_rbm(7, jax.random.key(1)), 1.7
    n = energies.n_visible(energy)
    assert n == energy.n_visible == 4 and energy.n_hidden == 3 and energy.n_spins == 7
    weights = np.exp(-beta * energy_table(energy)).reshape(2**3, 2**n)
    truth = -np.log(weights.sum(axis=0)) / beta
    means = (configurations(3).T @ weights) / weights.sum(axis=0)
    visible = configurations(n)
    ours = jax.vmap(energies.visible_free_energy, (None, None, 0))(energy, beta, visible)
    np.testing.assert_allclose(ours, truth, rtol=1e-12)
    points = jax.vmap(energies.embed, (None, None, 0))(energy, beta, visible)
    np.testing.assert_array_equal(points[:, :n], visible)
    np.testing.assert_allclose(points[:, n:], means.T, rtol=1e-11, atol=1e-14)


def test_rbm_marginal_survives_saturation():
    energy = tg.RBM(1e3 * np.ones((2, 1)), np.zeros(2), np.zeros(1))
    value, gradient = jax.value_and_grad(energies.visible_free_energy)(energy, 1.0, jnp.ones(2))
    assert value == -2e3
    np.testing.assert_allclose(gradient.weights, -1.0)


def test_visible_is_everything_without_hidden_spins():
    energy, spins = random_pairwise(4, jax.random.key(0)), jnp.array([1.0, -1.0, 1.0, 1.0])
    assert energies.n_visible(energy) == 4
    assert energies.visible_free_energy(energy, 2.0, spins) == energy(spins)
    np.testing.assert_array_equal(energies.embed(energy, 2.0, spins), spins)
    interactions = random_interactions(4, jax.random.key(0))
    assert energies.constrain(interactions) is interactions


def test_rbm_never_forms_a_matrix_over_both_layers():
    v, h = 5, 4
    energy = tg.RBM(np.ones((v, h)), np.ones(v), np.ones(h))
    jaxpr = jax.make_jaxpr(jax.value_and_grad(tap, argnums=(0, 1)))(energy, jnp.zeros(v + h))
    shapes = [x.aval.shape for eqn in equations(jaxpr) for x in eqn.outvars]
    assert (v, h) in shapes, "the walk over the jaxpr saw nothing"
    assert max(np.prod(shape, dtype=int) for shape in shapes) < (v + h) ** 2
    assert not [shape for shape in shapes if shape.count(v + h) > 1]


def test_random_rbm_has_the_means_of_the_data():
    means = np.array([0.5, -0.9, 1.0])
    energy = tg.RBM.random(2, means, key=jax.random.key(0), scale=1e-6)
    np.testing.assert_allclose(jnp.tanh(energy.visible_fields), [0.5, -0.9, 0.9998], rtol=1e-12)
    np.testing.assert_array_equal(energy.hidden_fields, 0.0)
    assert energy.weights.shape == (3, 2) and 0 < jnp.max(jnp.abs(energy.weights)) < 1e-5


# --- the global flip


@pytest.mark.further
def test_flip_symmetry_is_exact():
    bonds = random_pairwise(5, jax.random.key(0), fields=0.0)
    rbm = random_rbm(5, jax.random.key(0))
    no_fields = tg.RBM(rbm.weights, np.zeros(3), np.zeros(2))
    even = random_interactions(5, jax.random.key(0), orders=(0, 2, 4))
    for energy in (bonds, no_fields, even):
        assert energies.is_flip_symmetric(energy)
    tiny = jnp.zeros(5).at[3].set(1e-12)
    for energy in (
        tg.Pairwise(bonds.couplings, tiny),
        tg.RBM(rbm.weights, tiny[:3].at[0].set(1e-12), np.zeros(2)),
        tg.RBM(rbm.weights, np.zeros(3), tiny[2:4]),
        tg.Interactions.from_terms(5, {(0, 1): 1.0, (3,): 1e-12}),
        tg.Interactions.from_terms(5, {(0, 1): 1.0, (1, 2, 3): 1e-12}),
        random_interactions(5, jax.random.key(0), orders=(5,)),
    ):
        assert not energies.is_flip_symmetric(energy)


# --- refusals


@pytest.mark.parametrize(
    "couplings, fields, message",
    [
        (np.zeros((2, 3)), np.zeros(2), r"couplings and fields .*\(2, 3\) and \(2,\)"),
        (np.zeros((2, 2)), np.zeros(3), r"couplings and fields .*\(2, 2\) and \(3,\)"),
        (np.zeros((4, 2, 2)), np.zeros((4, 2)), "jax.vmap"),
        (np.array([[0.0, 1.0], [0.9, 0.0]]), np.zeros(2), "couplings must be symmetric"),
        (np.eye(2), np.zeros(2), "couplings must have a zero diagonal"),
        (np.full((2, 2), np.nan), np.zeros(2), "couplings must be finite"),
        (np.zeros((2, 2)), np.array([0.0, np.inf]), "fields must be finite"),
        (np.zeros((2, 2)), np.zeros(2, bool), "fields must hold real numbers"),
        (1j * np.ones((2, 2)), np.zeros(2), "couplings must hold real numbers"),
    ],
    ids=range(9),
)
def test_pairwise_names_the_argument(couplings, fields, message):
    with pytest.raises(ValueError, match=message):
        tg.Pairwise(couplings, fields)


@pytest.mark.parametrize(
    "weights, visible, hidden, message",
    [
        (np.zeros((2, 3)), np.zeros(3), np.zeros(2), r"weights, .*\(2, 3\), \(3,\) and \(2,\)"),
        (np.zeros((4, 2, 3)), np.zeros((4, 2)), np.zeros((4, 3)), "jax.vmap"),
        (np.full((1, 1), np.inf), np.zeros(1), np.zeros(1), "weights must be finite"),
        (np.zeros((1, 1)), np.full(1, np.nan), np.zeros(1), "visible_fields must be finite"),
        (np.zeros((1, 1)), np.zeros(1), np.full(1, np.nan), "hidden_fields must be finite"),
    ],
    ids=range(5),
)
def test_rbm_names_the_argument(weights, visible, hidden, message):
    with pytest.raises(ValueError, match=message):
        tg.RBM(weights, visible, hidden)


def test_parameters_share_one_floating_dtype():
    bonds = np.array([[0, 1], [1, 0]])
    assert tg.Pairwise(bonds, np.zeros(2, int)).couplings.dtype == np.float64
    single = tg.Pairwise(bonds.astype(np.float32), np.zeros(2, np.float32))
    assert single.couplings.dtype == single.fields.dtype == np.float32
    assert tg.RBM(np.ones((1, 1), np.float32), np.zeros(1), np.zeros(1)).weights.dtype == np.float64


def test_mean_of_four_spins_by_hand():
    # The truth of these tests is itself worth one test.
    table = -configurations(2).prod(axis=1)
    assert mean_energy(table, np.array([0.5, 0.4])) == pytest.approx(-0.2)
    assert nonlinear_variance(table, np.array([0.5, 0.4])) == pytest.approx(0.75 * 0.84)


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (4, 1), (3,), (5,), ()], ids=str)
def test_an_energy_takes_one_configuration_of_its_own_size(shape, unchecked):
    """Gathers clamp their indices and products broadcast: other shapes gave numbers too."""
    terms = tg.Interactions.from_terms(4, {(0,): 0.3, (1, 2): 0.5, (0, 1, 3): 0.7})
    models = (
        tg.Pairwise(np.zeros((4, 4)), np.zeros(4)),
        terms,
        energies.complete(terms),
        tg.RBM(np.ones((2, 2)), np.zeros(2), np.zeros(2)),
        tg.Mixture.of([terms, terms], [1.0, 2.0], [0.0, 0.0]),
    )
    for energy in models:
        with pytest.raises(ValueError, match=r"spins must have shape \(4,\), got .* jax.vmap"):
            energy(np.ones(shape))
