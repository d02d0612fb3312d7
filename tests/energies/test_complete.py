"""The complete description: any table of energies, its couplings, and what truncation keeps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    ENERGIES,
    configurations,
    energy_table,
    equations,
    mean_energy,
    mean_gradient,
    nonlinear_variance,
    random_interactions,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import thermogen as tg
from thermogen.energies import complete
from thermogen.walsh import degrees

N = 5


class TripleChain(tg.AbstractMultilinear):
    """A user's own energy, `E = -sum_k J_k s_k s_{k+1} s_{k+2}`: no rule is registered for it."""

    couplings: jax.Array

    @property
    def n_spins(self):
        return self.couplings.size + 2

    def __call__(self, spins):
        return -jnp.sum(self.couplings * spins[:-2] * spins[1:-1] * spins[2:])


def table(n=N, seed=0):
    return np.random.default_rng(seed).normal(size=2**n)


def points(n=N):
    """Generic magnetizations, the centre, a corner, and a point with clamped spins."""
    m = np.random.default_rng(1).uniform(-0.95, 0.95, (4, n))
    m[1], m[2], m[3, :2] = 0.0, [(-1.0) ** k for k in range(n)], [1.0, -1.0]
    return m


def degree(mask):
    return int(mask).bit_count()


def couplings_by_mask(interactions):
    return {
        sum(1 << int(k) for k in spins): float(coupling)
        for sets, couplings in zip(interactions.sets, interactions.couplings, strict=True)
        for spins, coupling in zip(sets.indices, couplings, strict=True)
    }


# --- a table of energies and its couplings


@pytest.mark.further
@settings(max_examples=40)
@given(
    st.integers(0, 6).flatmap(
        lambda n: hnp.arrays(np.float64, 2**n, elements=st.floats(-1e6, 1e6, width=32))
    )
)
def test_any_table_round_trips(energies):
    energy = tg.Complete.from_energies(energies)
    assert 2**energy.n_spins == energies.size
    scale = 1.0 + np.max(np.abs(energies))
    np.testing.assert_allclose(energy.energies(), energies, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(-energy.couplings[0], energies.mean(), rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("n", [0, 1, N])
def test_the_energy_is_its_table(n):
    energy = tg.Complete.from_energies(table(n))
    ours = jax.vmap(energy)(configurations(n))
    np.testing.assert_allclose(ours, table(n), rtol=0, atol=1e-14)
    integers = jax.vmap(energy)(configurations(n).astype(np.int8))
    np.testing.assert_allclose(integers, table(n), rtol=0, atol=1e-14)


def test_signs_and_bits_of_couplings():
    couplings = np.zeros(8)
    couplings[0b000], couplings[0b010], couplings[0b101] = 1.0, 2.0, 4.0
    s = configurations(3)
    truth = -1.0 - 2.0 * s[:, 1] - 4.0 * s[:, 0] * s[:, 2]
    np.testing.assert_allclose(tg.Complete(couplings).energies(), truth, rtol=1e-14)


def test_magnetizations_give_product_measure_means():
    energy = tg.Complete.from_energies(table())
    truth = [mean_energy(table(), m) for m in points()]
    np.testing.assert_allclose(jax.vmap(energy)(points()), truth, rtol=0, atol=1e-14)
    fields = jax.jit(jax.vmap(tg.local_fields, (None, 0)))(energy, points())
    truth = [-mean_gradient(table(), m) for m in points()]
    np.testing.assert_allclose(fields, truth, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, N])
def test_nonlinear_variance_is_that_of_the_table(n):
    energy = tg.Complete.from_energies(table(n))
    ours = jax.vmap(tg.energies.nonlinear_variance, (None, 0))(energy, points(max(n, 2))[:, :n])
    truth = [nonlinear_variance(table(n), m) for m in points(max(n, 2))[:, :n]]
    np.testing.assert_allclose(ours, truth, rtol=1e-12, atol=1e-13)


def test_nonlinear_variance_has_a_gradient_at_clamped_spins():
    energy = random_interactions(N, jax.random.key(3))
    gradient = jax.jit(jax.vmap(jax.grad(tg.energies.nonlinear_variance, 1), (None, 0)))
    truth = gradient(energy, points())
    np.testing.assert_allclose(gradient(complete(energy), points()), truth, atol=1e-12)


def test_parameters_are_floats_only():
    energy = tg.Complete(np.arange(8))
    assert [leaf.dtype for leaf in jax.tree.leaves(energy)] == [jnp.float64]
    assert tg.Complete(np.ones(4, np.float32)).couplings.dtype == jnp.float32
    assert tg.Complete.from_energies(np.ones(4, np.float32)).couplings.dtype == jnp.float32


@pytest.mark.parametrize("size", [0, 3, 12])
def test_only_powers_of_two(size):
    with pytest.raises(ValueError, match=rf"couplings must have shape .*got \({size},\)"):
        tg.Complete(np.ones(size))
    with pytest.raises(ValueError, match="must have shape"):
        tg.Complete.from_energies(np.ones(size))


def test_only_finite_couplings():
    with pytest.raises(ValueError, match="couplings must be finite"):
        tg.Complete(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="must be finite"):
        tg.Complete.from_weights(np.array([0.0, 1.0]), 1.0)


# --- weights and data


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_weights_are_the_boltzmann_weights(temperature):
    weights = np.exp(table())
    energies = np.asarray(tg.Complete.from_weights(weights, temperature).energies())
    np.testing.assert_allclose(np.exp(-energies / temperature), weights, rtol=1e-10)


def test_data_lie_below_an_extensive_gap():
    s = configurations(4)
    data = s[[3, 3, 3, 9, 9, 14, 3, 14]]
    energy = tg.Complete.from_data(data, temperature=0.5, gap_per_spin=2.0)
    truth = np.full(16, 0.5 * np.log(4) + 4 * 2.0)
    truth[[3, 9, 14]] = 0.5 * np.log([2, 4, 4])
    np.testing.assert_allclose(energy.energies(), truth, rtol=0, atol=1e-13)
    integers = tg.Complete.from_data(data.astype(np.int8), temperature=0.5, gap_per_spin=2.0)
    np.testing.assert_array_equal(integers.couplings, energy.couplings)


def test_data_must_be_spins():
    for data in (np.zeros((3, 2)), np.array([[0.0, 1.0]]), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match=r"data must be -1 or \+1"):
            tg.Complete.from_data(data, temperature=1.0, gap_per_spin=1.0)


# --- truncation


@pytest.mark.parametrize("k", range(N + 1))
def test_truncation_keeps_exactly_the_low_degrees(k):
    energy = tg.Complete.from_energies(table())
    kept = couplings_by_mask(energy.truncate(k))
    truth = {a: float(energy.couplings[a]) for a in range(2**N) if degree(a) <= k}
    assert kept == truth


def test_full_truncation_is_lossless():
    energy = tg.Complete.from_energies(table())
    interactions = energy.truncate(N)
    assert interactions.n_spins == N
    np.testing.assert_array_equal(complete(interactions).couplings, energy.couplings)
    np.testing.assert_allclose(energy_table(interactions), table(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_terms", [1, 7, 2**N])
def test_largest_couplings(n_terms):
    energy = tg.Complete.from_energies(table())
    kept = couplings_by_mask(energy.keep_largest(n_terms))
    order = sorted(range(2**N), key=lambda a: -abs(energy.couplings[a]))[:n_terms]
    assert kept == {a: float(energy.couplings[a]) for a in order}


def test_kept_sets_are_the_given_ones():
    energy = tg.Complete.from_energies(table())
    masks = np.array([0b10110, 0b00001, 0b10000, 0b00000])
    assert couplings_by_mask(energy.keep(masks)) == {int(a): energy.couplings[a] for a in masks}


def test_truncation_has_a_gradient():
    def squares(energies):
        kept = tg.Complete.from_energies(energies).truncate(2)
        return sum(jnp.sum(jnp.square(c)) for c in kept.couplings)

    low = np.array([degree(a) <= 2 for a in range(2**N)])
    couplings = np.asarray(tg.walsh_transform(table()))
    truth = 2 * tg.inverse_walsh_transform(np.where(low, couplings, 0)) / 2**N
    np.testing.assert_allclose(jax.jit(jax.grad(squares))(table()), truth, rtol=0, atol=1e-14)


def test_data_at_any_temperature_and_gap():
    """Both are traced: <E> of the library falls as T, and the gap has a derivative."""
    data = np.array([[1, 1], [1, 1], [-1, -1]])

    @jax.jit
    def energies(temperature, gap):
        return tg.Complete.from_data(data, temperature=temperature, gap_per_spin=gap).energies()

    levels = -np.log([1 / 3, 2 / 3])
    truth = 0.5 * np.array([levels[0], levels[0], levels[0], levels[1]])
    truth[[1, 2]] += 2 * 0.7
    np.testing.assert_allclose(energies(0.5, 0.7), truth, rtol=1e-12)
    slope = jax.jacfwd(energies, 1)(0.5, 0.7)
    np.testing.assert_allclose(slope, [0, 2, 2, 0], rtol=0, atol=1e-12)


# --- any energy as a table


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("name", list(ENERGIES))
def test_every_energy_has_a_table(name, n):
    energy = ENERGIES[name](n, jax.random.key(n))
    ours = complete(energy)
    assert ours.n_spins == n
    np.testing.assert_allclose(ours.energies(), energy_table(energy), rtol=0, atol=1e-13)
    assert complete(ours) is ours


def test_an_energy_without_a_rule_has_a_table():
    energy = TripleChain(jnp.array([0.5, -1.0, 2.0]))
    s = configurations(5)
    truth = -(s[:, :-2] * s[:, 1:-1] * s[:, 2:]) @ np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(complete(energy).energies(), truth, rtol=0, atol=1e-14)
    expected = {0b00111: 0.5, 0b01110: -1.0, 0b11100: 2.0}
    couplings = np.asarray(complete(energy).couplings)
    np.testing.assert_allclose(couplings[list(expected)], list(expected.values()), atol=1e-15)
    assert np.sum(np.abs(couplings) > 1e-14) == 3


@pytest.mark.parametrize("name", [*ENERGIES, "without a rule"])
def test_tables_have_gradients(name):
    if name == "without a rule":
        energy = TripleChain(jnp.array([0.5, -1.0, 2.0]))
    else:
        energy = ENERGIES[name](N, jax.random.key(0))
    weights = table(seed=4)

    def through_the_table(energy):
        return jnp.dot(complete(energy).energies(), weights)

    def one_by_one(energy):
        return jnp.dot(jax.vmap(energy)(configurations(N)), weights)

    ours = jax.jit(jax.grad(through_the_table))(energy)
    truth = jax.jit(jax.grad(one_by_one))(energy)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_tables_batch_and_compile():
    batch = [ENERGIES["pairwise"](4, jax.random.key(seed)) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
    ours = eqx.filter_jit(jax.vmap(lambda energy: complete(energy).energies()))(stack)
    np.testing.assert_allclose(ours, [energy_table(e) for e in batch], rtol=0, atol=1e-13)


def test_too_many_spins():
    chain = tg.Interactions.from_terms(25, {(k, k + 1): 1.0 for k in range(24)})
    pairs = tg.Pairwise(np.zeros((25, 25)), np.zeros(25))
    for energy in (chain, pairs, TripleChain(jnp.ones(23))):
        with pytest.raises(ValueError, match="at most 24 spins"):
            complete(energy)
    with pytest.raises(ValueError, match="at most 24 spins"):
        tg.Complete.from_data(np.ones((2, 60)), temperature=1.0, gap_per_spin=1.0)


@pytest.mark.further
def test_an_even_table_has_a_mirror_symmetry():
    """Although rounding leaves couplings of odd degree that are not quite zero."""
    table = np.random.default_rng(0).normal(size=2**8)
    even = tg.Complete.from_energies(table + table[::-1])
    assert np.any(np.asarray(even.couplings)[degrees(8) % 2 == 1] != 0)
    assert tg.energies.is_flip_symmetric(even)
    assert not tg.energies.is_flip_symmetric(tg.Complete.from_energies(table))


def test_programs_do_not_grow_with_the_number_of_spins():
    """Written out spin by spin, a search by TAP for ten spins compiled for minutes."""

    def size(n):
        energy, functional = tg.Complete(jnp.ones(2**n)), tg.Plefka(4)
        gradient = jax.grad(lambda m: functional.excess(energy, 1.0, m))
        return len(list(equations(jax.make_jaxpr(gradient)(jnp.zeros(n)))))

    assert size(8) == size(4)
