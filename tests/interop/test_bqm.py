"""Binary quadratic models: equal energies of all configurations, there and back."""

import sys

import dimod
import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

import thermogen as tg
from thermogen import interop

KEY = jax.random.key(0)
NUMBERS = st.floats(-100, 100, width=32)


@st.composite
def bqms(draw, vartype):
    """Any quadratic model of up to six variables with labels in any order."""
    names = draw(st.permutations(["b", "a", 7, ("t", 1), "x y", "ä"]))[: draw(st.integers(0, 6))]
    linear = {name: draw(NUMBERS) for name in names}
    pairs = [(a, b) for k, a in enumerate(names) for b in names[:k] if draw(st.booleans())]
    return dimod.BinaryQuadraticModel(
        linear, {pair: draw(NUMBERS) for pair in pairs}, draw(NUMBERS), vartype
    )


def energies_of(bqm):
    """dimod's own energies of all configurations, in our order."""
    spins = helpers.configurations(bqm.num_variables)
    states = spins if bqm.vartype is dimod.SPIN else (spins + 1) / 2
    return bqm.energies((states.astype(np.int8), list(bqm.variables)))


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=40)
def test_energies_of_all_configurations_are_equal_and_come_back(vartype, data):
    bqm = data.draw(bqms(vartype))
    model = interop.from_bqm(bqm)
    assert model.names == tuple(bqm.variables)
    table = helpers.energy_table(model.energy) + model.offset
    np.testing.assert_allclose(table, energies_of(bqm), rtol=1e-12, atol=1e-10)
    for back in ("SPIN", "BINARY"):
        again = interop.to_bqm(*model, vartype=back)
        assert again.vartype.name == back and list(again.variables) == list(bqm.variables)
        np.testing.assert_allclose(energies_of(again), table, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("name", ["pairwise", "rbm", "interactions"])
def test_our_energies_are_theirs(name, vartype):
    if name == "interactions":
        energy = helpers.random_interactions(6, KEY, orders=(0, 1, 2))
    else:
        energy = helpers.ENERGIES[name](6, KEY)
    bqm = interop.to_bqm(energy, 0.25, vartype=vartype)
    expected = helpers.energy_table(energy) + 0.25
    np.testing.assert_allclose(energies_of(bqm), expected, rtol=1e-12, atol=1e-12)
    model = interop.from_bqm(bqm)
    table = helpers.energy_table(model.energy) + model.offset
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-12)


def test_few_bonds_stay_a_list_and_many_are_a_matrix():
    """A ring of 40 spins can be summed exactly, which a matrix of as many cannot."""
    ring = dimod.BinaryQuadraticModel({}, {(k, (k + 1) % 40): -1.0 for k in range(40)}, 0.0, "SPIN")
    energy, offset, names = interop.from_bqm(ring)
    assert isinstance(energy, tg.Interactions) and offset == 0 and set(names) == set(range(40))
    expected = 40 * np.log(2 * np.cosh(1)) + np.log1p(np.tanh(1) ** 40)
    np.testing.assert_allclose(tg.exact.log_partition(energy, 1.0), expected, rtol=1e-12)
    dense = dimod.generators.ran_r(1, 40, seed=0)
    assert isinstance(interop.from_bqm(dense).energy, tg.Pairwise)


@pytest.mark.parametrize("wrong", [dimod.QuadraticModel(), dimod.CQM(), {("a", "b"): 1.0}])
def test_what_is_no_binary_quadratic_model_is_refused(wrong):
    with pytest.raises(TypeError, match="bqm must be a dimod.BinaryQuadraticModel of"):
        interop.from_bqm(wrong)


def test_numbers_and_names_that_will_not_do_are_named():
    energy = helpers.random_pairwise(3, KEY)
    with pytest.raises(ValueError, match="vartype must be 'SPIN' or 'BINARY', got 'bits'"):
        interop.to_bqm(energy, vartype="bits")
    with pytest.raises(ValueError, match="names must be 3, one for each spin, got 2"):
        interop.to_bqm(energy, names=["a", "b"])
    with pytest.raises(ValueError, match="names must differ from each other, got 'a' twice"):
        interop.to_bqm(energy, names=["a", "b", "a"])
    with pytest.raises(ValueError, match="offset must be finite, got nan"):
        interop.to_bqm(energy, np.nan)
    with pytest.raises(ValueError, match="must be finite"):
        interop.from_bqm(dimod.BinaryQuadraticModel({"a": np.inf}, {}, 0.0, "SPIN"))
    with pytest.raises(TypeError, match="to_bqm needs an energy with terms of up to 2 spins"):
        interop.to_bqm(helpers.random_interactions(4, KEY))
    with pytest.raises(TypeError, match="to_bqm needs an energy that is a list of terms"):
        interop.to_bqm(helpers.random_complete(4, KEY))


def test_without_dimod_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dimod", None)
    with pytest.raises(ImportError, match=r"interop\.to_bqm needs dimod.*'thermogen\[interop\]'"):
        interop.to_bqm(helpers.random_pairwise(3, KEY))
