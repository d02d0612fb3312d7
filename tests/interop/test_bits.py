"""Machines of bits: energies of all configurations by their own formula, and scikit-learn's."""

import helpers
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pandas
import pytest
from sklearn.neural_network import BernoulliRBM

import thermogen as tg
from thermogen import interop

KEY = jax.random.key(0)
NUMBERS = st.floats(-20, 20, width=32)
CLOSE = {"rtol": 1e-12, "atol": 1e-10}


def bits(n):
    return (helpers.configurations(n) + 1) / 2


def of_two_layers(w, a, b):
    x = bits(a.size + b.size)
    v, h = x[:, : a.size], x[:, a.size :]
    return -np.einsum("ai,ij,aj->a", v, w, h) - v @ a - h @ b


@hypothesis.given(st.tuples(st.integers(1, 4), st.integers(1, 3)), st.data())
@hypothesis.settings(max_examples=30)
def test_two_layers_there_and_back(shape, data):
    w, a, b = (data.draw(hnp.arrays(float, s, elements=NUMBERS)) for s in (shape, *shape))
    model = interop.from_bits(w, a, b)
    expected = of_two_layers(w, a, b)
    np.testing.assert_allclose(helpers.energy_table(model.energy) + model.offset, expected, **CLOSE)
    again = interop.to_bits(model.energy, model.offset)
    for x, y in zip(again, (w, a, b, 0.0), strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)


@hypothesis.given(st.integers(1, 5), st.data())
@hypothesis.settings(max_examples=30)
def test_one_layer_there_and_back(n, data):
    upper = np.triu(data.draw(hnp.arrays(float, (n, n), elements=NUMBERS)), 1)
    a = data.draw(hnp.arrays(float, n, elements=NUMBERS))
    x = bits(n)
    expected = -np.einsum("ai,ij,aj->a", x, upper, x) - x @ a
    model = interop.from_bits(upper + upper.T, a)
    np.testing.assert_allclose(helpers.energy_table(model.energy) + model.offset, expected, **CLOSE)
    weights, bias, hidden, offset = interop.to_bits(model.energy, model.offset)
    assert hidden is None
    for x, y in ((weights, upper + upper.T), (bias, a), (offset, 0.0)):
        np.testing.assert_allclose(x, y, **CLOSE)


@pytest.fixture(scope="module")
def fitted():
    data = pandas.DataFrame(np.random.default_rng(0).integers(0, 2, (60, 4)), columns=list("abcd"))
    machine = BernoulliRBM(n_components=3, learning_rate=0.5, random_state=0).fit(data)
    return machine, data.to_numpy()


def test_the_machine_of_scikit_learn_says_what_ours_says(fitted):
    machine, data = fitted
    energy, offset, names = interop.from_bernoulli_rbm(machine)
    assert names == (*"abcd", "hidden 0", "hidden 1", "hidden 2")
    spins = 2.0 * data - 1
    free = jax.vmap(lambda s: tg.energies.visible_free_energy(energy, 1.0, s))(spins)
    np.testing.assert_allclose(free + offset, machine._free_energy(data), rtol=1e-12)
    hidden = jax.vmap(lambda s: tg.energies.embed(energy, 1.0, s))(spins)[:, 4:]
    np.testing.assert_allclose((1 + hidden) / 2, machine._mean_hiddens(data), rtol=1e-10)


def test_ours_becomes_one_of_scikit_learn_and_learns_on(fitted):
    machine, data = fitted
    again = interop.to_bernoulli_rbm(interop.from_bernoulli_rbm(machine).energy)
    theirs = machine.transform(pandas.DataFrame(data, columns=list("abcd")))
    np.testing.assert_allclose(again.transform(data), theirs, rtol=1e-12)
    np.testing.assert_allclose(again.components_, machine.components_, rtol=1e-12)
    again.partial_fit(data)
    assert np.any(again.components_ != machine.components_)


def test_machines_that_will_not_do_are_named():
    with pytest.raises(ValueError, match=r"shapes \(v, h\), \(v,\) and \(h,\), got \(2, 2\)"):
        interop.from_bits(np.zeros((2, 2)), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match=r"shapes \(n, n\), \(n,\), got \(2, 3\)"):
        interop.from_bits(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="weights must be symmetric"):
        interop.from_bits([[0.0, 1.0], [0.0, 0.0]], np.zeros(2))
    with pytest.raises(ValueError, match="weights must have a zero diagonal"):
        interop.from_bits(np.eye(2), np.zeros(2))
    with pytest.raises(ValueError, match="visible_bias must hold real numbers"):
        interop.from_bits(np.zeros((2, 1)), ["a", "b"], [0.0])
    with pytest.raises(ValueError, match="must be finite"):
        interop.from_bits(np.full((2, 1), np.inf), np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match="BernoulliRBM that was fitted"):
        interop.from_bernoulli_rbm(BernoulliRBM())
    with pytest.raises(TypeError, match="to_bits needs an energy with terms of up to 2 spins"):
        interop.to_bits(helpers.random_interactions(4, KEY))
    with pytest.raises(TypeError, match="must have hidden spins, got Pairwise"):
        interop.to_bernoulli_rbm(helpers.random_pairwise(3, KEY))
    with pytest.raises(TypeError, match="second of two layers; got Mixture"):
        machines = [helpers.random_rbm(5, KEY)] * 2
        interop.to_bits(tg.Mixture.of(machines, [0.5, 0.5], [0.0, 0.0]))
