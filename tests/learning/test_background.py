"""The gap as weights and as negative examples, and what a model keeps of its data."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.exact import retention
from thermogen.learning import NegativeExamples, library_mass, with_background

ADDER = tg.datasets.adder(1)  # 4 configurations of 4 spins
KEY = jax.random.key(0)


def _pairwise(n):
    return tg.Pairwise(np.zeros((n, n)), np.zeros(n))


def test_weights_are_those_behind_the_gap():
    spins, weights = with_background(np.repeat(ADDER, 3, axis=0), 4.0)
    assert spins.shape == (12 + 12, 4) and len(np.unique(spins, axis=0)) == 16
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(weights[:12].sum(), library_mass(4.0, 4, 4, 1.0))
    # Each configuration behind the gap is exp(-gap) times as likely as one that is represented.
    np.testing.assert_allclose(weights[-1] / (3 * weights[0]), np.exp(-4.0))


def test_a_background_keeps_parameters_finite():
    """The complete description learns the very table of weights."""
    spins, weights = with_background(ADDER, 4.0)
    fitted = tg.fit(
        tg.ExactLikelihood(),
        tg.Complete(np.zeros(16)),
        spins,
        weights=weights,
        key=KEY,
    )
    assert fitted.result == tg.RESULTS.converged
    p = np.asarray(tg.exact.probabilities(fitted.energy, 1.0))
    np.testing.assert_allclose(
        p[np.asarray(tg.index_from_spins(spins))], _joined(spins, weights), atol=2e-5
    )


def _joined(spins, weights):
    table = np.bincount(np.asarray(tg.index_from_spins(spins)), weights)
    return table[np.asarray(tg.index_from_spins(spins))]


def test_drawn_backgrounds():
    data = tg.enumerate_spins(5)[:20]
    spins, weights = with_background(data, 25.0, key=KEY, n_background=100)
    assert 20 + 10 < len(spins) < 20 + 60  # of 32 configurations 12 are not represented
    np.testing.assert_allclose(weights[:20].sum(), library_mass(25.0, 5, 20, 1.0))
    assert not any((spins[20:] == row).all(axis=1).any() for row in np.asarray(data))


def test_a_large_gap_leaves_some_weight_in_single_precision():
    data = np.sign(np.random.default_rng(0).normal(size=(5, 30)))
    with jax.enable_x64(False):
        _, weights = with_background(data, 40.0, key=KEY, n_background=100)
    others = 2.0**30 - 5
    expected = others * np.exp(-40.0) / (5 + others * np.exp(-40.0))
    np.testing.assert_allclose(weights[5:].sum(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.ones((2, 17))}, "n_background must be given beyond 16 spins"),
        ({"n_background": 3}, "come with a key"),
        ({"n_background": 0, "key": KEY}, "at least 1"),
        ({"gap": -1.0}, "gap must be positive"),
        ({"data": np.asarray(tg.enumerate_spins(3))}, "must leave some configurations"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        with_background(**{"data": ADDER, "gap": 1.0, **options})


@pytest.mark.further
def test_retention_is_the_enumerated_one():
    energy = tg.Complete.from_data(ADDER, temperature=1.0, gap_per_spin=1.0).truncate(3)
    minima = set(tg.exact.single_flip_minima(energy).tolist())
    data = set(np.asarray(tg.index_from_spins(ADDER)).tolist())
    found = jax.jit(retention)(energy, 2.0, np.repeat(ADDER, 2, axis=0))
    assert (int(found.held), int(found.false_positives)) == (
        len(minima & data),
        len(minima - data),
    )
    p = np.asarray(tg.exact.probabilities(energy, 2.0))
    np.testing.assert_allclose(found.library_mass, p[sorted(data)].sum())
    batch = jax.tree.map(lambda x: jnp.stack([x, 0 * x]), energy)
    both = jax.vmap(retention, in_axes=(0, None, None))(batch, 2.0, ADDER)
    assert both.held.tolist() == [int(found.held), 0]


@pytest.mark.further
def test_negative_examples_are_unlearned():
    """A false positive of Hopfield patterns, their mixture, is lifted by the gap."""
    rng = np.random.default_rng(1)
    patterns = np.sign(rng.normal(size=(3, 12)))
    mixture = np.sign(patterns.sum(axis=0, keepdims=True))
    plain, lifted = (
        tg.fit(tg.Pseudolikelihood(0.05), _pairwise(12), patterns, penalty=penalty, key=KEY)
        for penalty in (
            None,
            NegativeExamples(jnp.asarray(mixture), jnp.asarray(patterns), 6.0, 5.0),
        )
    )
    assert lifted.result == tg.RESULTS.converged

    def height(energy):
        return float(energy(mixture[0]) - np.mean([energy(row) for row in patterns]))

    assert height(plain.energy) < 4.0 < 5.5 < height(lifted.energy)
    penalty = NegativeExamples(jnp.asarray(mixture), jnp.asarray(patterns), 6.0, 5.0)
    expected = 5.0 * np.logaddexp(0, 6.0 - height(plain.energy))
    np.testing.assert_allclose(penalty(plain.energy), expected)
    counts = np.array([2, 0, 1])
    for rows, weights in ((patterns, counts), (np.repeat(patterns, counts, axis=0), None)):
        penalty = NegativeExamples(jnp.asarray(mixture), jnp.asarray(rows), 6.0, 5.0, weights)
        mean = np.average([plain.energy(row) for row in patterns], weights=counts)
        expected = 5.0 * np.logaddexp(0, 6.0 + mean - plain.energy(mixture[0]))
        np.testing.assert_allclose(penalty(plain.energy), expected)
    with pytest.raises(ValueError, match="weights must be finite, not negative"):
        NegativeExamples(jnp.asarray(mixture), jnp.asarray(patterns), 6.0, 5.0, -np.ones(3))


@pytest.mark.parametrize(
    ("data", "message"),
    [(np.ones((2, 3)), "data must have 4 spins"), (np.zeros((2, 4)), r"only -1 and \+1")],
)
def test_retention_refuses_other_data(data, message):
    with pytest.raises(ValueError, match=message):
        retention(_pairwise(4), 1.0, data)


@pytest.mark.further
def test_whole_weights_are_repetitions():
    """Of the data with their background, of a complete table, of the potential and of retention."""
    data = np.asarray(helpers.configurations(4)[[3, 5, 9, 14]])
    counts, twice = np.array([3, 0, 1, 2]), np.repeat(data, [3, 0, 1, 2], axis=0)
    rows, weights = with_background(data, 2.0, weights=counts)
    rows_, weights_ = with_background(twice, 2.0)
    by_row = [
        np.bincount((r > 0) @ (1 << np.arange(4)), w, minlength=16)
        for r, w in ((rows, weights), (rows_, weights_))
    ]
    np.testing.assert_allclose(*by_row, atol=1e-15)
    options = {"temperature": 1.0, "gap_per_spin": 1.0}
    ours = tg.Complete.from_data(data, weights=counts, **options)
    np.testing.assert_allclose(
        ours.couplings, tg.Complete.from_data(twice, **options).couplings, atol=1e-14
    )
    values = (
        tg.learning.potential(ours, 1.0, data, weights=counts),
        tg.learning.potential(ours, 1.0, twice),
    )
    np.testing.assert_allclose(*values, rtol=1e-13)
    kept = tg.exact.retention(ours, 1.0, data, weights=counts), tg.exact.retention(ours, 1.0, twice)
    np.testing.assert_allclose(*kept, rtol=1e-13)
