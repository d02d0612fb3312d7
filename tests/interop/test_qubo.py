"""QUBOs and polynomials: equal energies of all configurations, there and back."""

import dimod
import helpers
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import thermogen as tg
from thermogen import interop

KEY = jax.random.key(0)
NUMBERS = st.floats(-100, 100, width=32)
CLOSE = {"rtol": 1e-12, "atol": 1e-9}


def bits(n):
    return (helpers.configurations(n) + 1) / 2


def table(model):
    return helpers.energy_table(model.energy) + model.offset


@hypothesis.given(st.integers(0, 6).flatmap(lambda n: hnp.arrays(float, (n, n), elements=NUMBERS)))
@hypothesis.settings(max_examples=40)
def test_any_matrix_is_the_form_that_it_writes(matrix):
    """Also one that is neither symmetric nor triangular; plain, of JAX, sparse, as a dictionary."""
    x = bits(len(matrix))
    expected = np.einsum("ai,ij,aj->a", x, matrix, x) + 0.5
    model = interop.from_qubo(matrix, 0.5)
    np.testing.assert_allclose(table(model), expected, **CLOSE)
    pairs = {(int(i), int(j)): matrix[i, j] for i, j in np.ndindex(matrix.shape)}
    for same in (jnp.asarray(matrix), scipy.sparse.coo_matrix(matrix), pairs):
        np.testing.assert_allclose(table(interop.from_qubo(same, 0.5)), expected, **CLOSE)
    back = interop.to_qubo(*model)
    np.testing.assert_array_equal(np.tril(back.matrix.toarray(), -1), 0)
    written = np.einsum("ai,ij,aj->a", x, back.matrix.toarray(), x) + back.offset
    np.testing.assert_allclose(written, expected, **CLOSE)
    np.testing.assert_allclose(table(interop.from_qubo(*back)), expected, **CLOSE)


def test_dimod_reads_the_dictionary_that_we_write():
    energy = helpers.random_pairwise(5, KEY)
    matrix, offset, _ = interop.to_qubo(energy)
    bqm = dimod.BinaryQuadraticModel.from_qubo(dict(matrix.todok()), offset)
    theirs = bqm.energies((bits(5).astype(np.int8), range(5)))
    np.testing.assert_allclose(theirs, helpers.energy_table(energy), rtol=1e-12, atol=1e-12)


def test_labels_of_a_dictionary_are_names_in_their_natural_order():
    assert interop.from_qubo({("b", "a"): 1.0, ("c", "c"): 2.0}).names == ("a", "b", "c")
    assert interop.from_qubo({(2, 0): 1.0, (1, 1): 2.0}).names == (0, 1, 2)
    assert interop.from_qubo({("x", 3): 1.0, (1, "a"): 2.0}).names == (1, 3, "a", "x")


@pytest.mark.parametrize(
    ("qubo", "message"),
    [
        (np.zeros((2, 3)), r"square matrix, got shape \(2, 3\)"),
        (np.zeros(3), r"square matrix of real numbers.*shape \(3,\)"),
        (np.array([["a"]]), "square matrix of real numbers"),
        (scipy.sparse.coo_array(1j * np.eye(2)), "real numbers, .* got dtype complex128"),
        ({"ab": 1.0}, "pairs of labels as keys, got 'ab'"),
        ({("a", "b"): np.nan}, "must be finite"),
        (np.ma.masked_array(np.eye(2), [[True, False], [False, False]]), "masked or missing"),
    ],
)
def test_what_is_no_qubo_is_refused(qubo, message):
    with pytest.raises(ValueError, match=message):
        interop.from_qubo(qubo)


@st.composite
def polynomials(draw, vartype):
    names = ["b", "a", "x y", "ä", "e"]
    terms = draw(st.lists(st.sets(st.sampled_from(names)), max_size=8))
    numbers = draw(st.lists(NUMBERS, min_size=len(terms), max_size=len(terms)))
    return dimod.BinaryPolynomial(dict(zip(map(tuple, terms), numbers, strict=True)), vartype)


def energies_of(polynomial, names):
    n = len(names)
    states = helpers.configurations(n) if polynomial.vartype is dimod.SPIN else bits(n)
    return [polynomial.energy(dict(zip(names, s, strict=True))) for s in states]


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=40)
def test_polynomials_of_any_degree(vartype, data):
    polynomial = data.draw(polynomials(vartype))
    model = interop.from_polynomial(polynomial)
    assert model.names == tuple(sorted(polynomial.variables))
    expected = energies_of(polynomial, model.names)
    np.testing.assert_allclose(table(model), expected, **CLOSE)
    for back in ("SPIN", "BINARY"):
        again = interop.to_polynomial(*model, vartype=back)
        assert again.vartype.name == back and set(again.variables) == set(model.names)
        np.testing.assert_allclose(energies_of(again, model.names), expected, **CLOSE)


def test_polynomials_that_will_not_do_are_named():
    with pytest.raises(TypeError, match=r"must be a dimod\.BinaryPolynomial, got dict"):
        interop.from_polynomial({})
    long = tg.Interactions.from_terms(21, {tuple(range(21)): 1.0})
    assert len(interop.to_polynomial(long)) == 22
    with pytest.raises(ValueError, match="a product of 21 bits .* at most 20"):
        interop.to_polynomial(long, vartype="BINARY")
    with pytest.raises(TypeError, match="to_polynomial needs an energy that is a list of terms"):
        interop.to_polynomial(helpers.random_complete(3, KEY))
