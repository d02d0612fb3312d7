"""Reduced descriptions: the couplings of a sparse model are found again."""

import itertools

import jax
import jaxtyping
import numpy as np
import pytest

import thermogen as tg
from thermogen.learning import decimate, grow, l1_path

KEY = jax.random.key(0)
N = 7
TERMS = {(0,): 0.2, (0, 1): 0.7, (2, 3): -0.6, (1, 4): 0.5, (5, 6): 0.6}


def _draw(energy, n_samples):
    drawn = tg.exact.sample(energy, 1.0, key=jax.random.key(1), n_samples=n_samples)
    return np.asarray(drawn, float)


DATA = _draw(tg.Interactions.from_terms(N, TERMS), 6000)
TRAINING, HELD_OUT = DATA[:4000], DATA[4000:]
PAIRWISE = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
OBJECTIVE = tg.ExactLikelihood()
WAYS = {
    "l1": (l1_path, {"strengths": np.geomspace(0.5, 0.01, 8)}),
    "decimation": (decimate, {"n_models": 14}),
    "growth": (grow, {}),
}


def _bonds(energy):
    return {tuple(map(int, pair)) for pair in np.argwhere(np.triu(energy.couplings))}


@pytest.mark.further
@pytest.mark.parametrize("way", WAYS)
def test_the_couplings_of_a_sparse_model_are_found(way):
    choose, options = WAYS[way]

    def run():
        key = jax.random.key(0)
        return choose(OBJECTIVE, PAIRWISE, TRAINING, HELD_OUT, key=key, **options)

    path = run()
    truth = {pair for pair in TERMS if len(pair) == 2}
    sizes = path.counts[:, 1]
    # Some model on the path has these couplings and no others, and the criterion picks it.
    exact = path.energies[int(np.argmin(path.criterion))]
    assert _bonds(exact) == truth
    assert truth <= _bonds(path.best)
    assert np.all(path.counts[:, 0] == N)
    assert np.all(np.diff(sizes) < 0) if way == "decimation" else np.all(np.diff(sizes) >= 0)
    # Nested models: more couplings fit the training data better.
    by_size = path.training[np.argsort(sizes)]
    assert np.all(np.diff(by_size) < 1e-9)
    for energy, count, loss in zip(path.energies, sizes, path.training, strict=True):
        assert np.count_nonzero(np.triu(energy.couplings)) == count
        nll = tg.learning.potential(energy, 1.0, TRAINING)
        np.testing.assert_allclose(loss, nll, rtol=1e-10)
    assert str(path).count("best") == 1
    for a, b in zip(jax.tree.leaves(path), jax.tree.leaves(run()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.further
def test_interactions_of_growing_degree():
    sets = [np.array(list(itertools.combinations(range(5), p))) for p in (1, 2, 3)]
    every = tg.Interactions(5, sets, [np.zeros(len(s)) for s in sets])
    # No product of these sets is a pair, so that no pair stands in for the triples.
    truth = tg.Interactions.from_terms(5, {(1, 2): 0.5, (0, 1, 2): 0.6, (2, 3, 4): -0.5})
    data = _draw(truth, 4000)
    path = grow(tg.ExactLikelihood(), every, data[:3000], data[3000:], key=jax.random.key(0))
    assert path.degrees.tolist() == [1, 2, 3]
    best = path.energies[int(np.argmin(path.criterion))]
    chosen = [
        tuple(map(int, row))
        for table, values in zip(best.sets[1:], best.couplings[1:], strict=True)
        for row in table.indices[np.asarray(values) != 0]
    ]
    assert chosen == [(1, 2), (0, 1, 2), (2, 3, 4)]


@pytest.mark.further
def test_a_pseudolikelihood_counts_each_coupling_for_each_of_its_spins():
    """So that the criterion does not add couplings that sampling alone suggests."""
    path = grow(tg.Pseudolikelihood(0.0), PAIRWISE, TRAINING, HELD_OUT, key=jax.random.key(0))
    assert _bonds(path.energies[-1]) == {pair for pair in TERMS if len(pair) == 2}
    k = path.counts @ np.array([1, 2])
    expected = 2 * len(TRAINING) * path.training + k * np.log(len(TRAINING))
    np.testing.assert_allclose(path.criterion, expected)


@pytest.mark.further
def test_fields_are_kept_where_they_are_zero():
    """Data that are even: the fields of the fit vanish, and count all the same."""
    even = np.concatenate([TRAINING, -TRAINING])
    path = l1_path(OBJECTIVE, PAIRWISE, even, even, strengths=[0.3], key=KEY)
    assert path.counts[:, 0].tolist() == [N]
    assert path.results == (tg.RESULTS.converged,)


def test_errors():
    options = {"key": jax.random.key(0)}
    with pytest.raises(ValueError, match="objective must be deterministic"):
        grow(tg.PersistentCD(), PAIRWISE, TRAINING, HELD_OUT, **options)
    with pytest.raises(ValueError, match="strengths must hold at least one"):
        l1_path(OBJECTIVE, PAIRWISE, TRAINING, HELD_OUT, strengths=[], **options)
    with pytest.raises(ValueError, match="fraction must lie"):
        decimate(OBJECTIVE, PAIRWISE, TRAINING, HELD_OUT, fraction=1.0, **options)
    with pytest.raises(ValueError, match="n_per_round must be at least 1"):
        grow(OBJECTIVE, PAIRWISE, TRAINING, HELD_OUT, n_per_round=0, **options)
    with pytest.raises(ValueError, match="held_out has no values but 0 and 1"):
        grow(OBJECTIVE, PAIRWISE, TRAINING, 0 * HELD_OUT, **options)


def test_held_out_data_of_another_width(monkeypatch):
    """As users call it, without the run-time type checks of the suite."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="held_out must have 7 spins"):
        grow(OBJECTIVE, PAIRWISE, TRAINING, HELD_OUT[:, :3], key=KEY)


@pytest.mark.further
@pytest.mark.parametrize("way", WAYS)
def test_whole_weights_are_repetitions(way):
    """Of both kinds of samples: models, losses and the criterion alike."""
    choose, options = WAYS[way]
    objective = tg.Pseudolikelihood()
    options |= {"key": KEY}
    options |= {"strengths": [0.1, 0.03]} if way == "l1" else {"n_models": 3}
    draw = np.random.default_rng(0)
    data, judges = TRAINING[:300], HELD_OUT[:200]
    counts, of_judges = draw.integers(0, 4, 300), draw.integers(0, 4, 200)
    weighted = choose(
        objective, PAIRWISE, data, judges, weights=counts, held_out_weights=of_judges, **options
    )
    rows = np.repeat(data, counts, axis=0), np.repeat(judges, of_judges, axis=0)
    repeated = choose(objective, PAIRWISE, *rows, **options)
    np.testing.assert_array_equal(weighted.counts, repeated.counts)
    np.testing.assert_allclose(weighted.criterion, repeated.criterion, rtol=1e-6)
    np.testing.assert_allclose(weighted.held_out, repeated.held_out, rtol=1e-5)
    for ours, theirs in zip(weighted.energies, repeated.energies, strict=True):
        np.testing.assert_allclose(ours.couplings, theirs.couplings, atol=1e-4)
