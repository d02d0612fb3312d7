"""The ridge that held-out data choose, against models whose truth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import boltzmann, configurations, random_pairwise

import thermogen as tg
from thermogen import learning

N = 6


def _start():
    return tg.Pairwise(jnp.zeros((N, N)), jnp.zeros(N))


def _data(truth, count, seed):
    p, _ = boltzmann(truth, 1.0)
    return configurations(N)[np.random.default_rng(seed).choice(len(p), count, p=p)]


def _divergence(truth, energy) -> float:
    p, _ = boltzmann(truth, 1.0)
    q, _ = boltzmann(energy, 1.0)
    return float(p @ np.log(p / q))


@pytest.mark.further
@pytest.mark.parametrize(("scale", "count"), [(0.3, 40), (0.3, 600), (2.0, 40), (2.0, 600)])
def test_the_chosen_ridge_is_nearly_the_best(scale, count):
    """Of those tried, in the divergence of the model from the truth, over a few data sets."""
    chosen, best, worst = 0.0, 0.0, 0.0
    for seed in range(3):
        truth = random_pairwise(N, jax.random.key(seed), scale)
        rows = _data(truth, count, seed)
        choice = learning.choose_l2(_start(), rows, key=jax.random.key(0))
        fits = [
            tg.fit(tg.Pseudolikelihood(s), _start(), rows, key=jax.random.key(0)).energy
            for s in choice.strengths
        ]
        errors = np.array([_divergence(truth, energy) for energy in fits])
        assert choice.l2 == choice.strengths[np.argmin(choice.held_out)]
        chosen += errors[np.argmin(choice.held_out)]
        best += errors.min()
        worst += errors.max()
    assert chosen <= best + 0.25 * (worst - best)


@pytest.mark.further
def test_strengths_fall_with_the_number_of_samples():
    rows = _data(random_pairwise(N, jax.random.key(0)), 60, 0)
    once = learning.choose_l2(_start(), rows, key=jax.random.key(0), n_folds=2)
    twice = learning.choose_l2(
        _start(), rows, key=jax.random.key(0), n_folds=2, weights=np.full(60, 2)
    )
    np.testing.assert_allclose(twice.strengths, once.strengths / 2)
    np.testing.assert_allclose(once.strengths[[0, 4, -1]] * 60, [100 * N / 2, N / 2, N / 2000])
    assert np.isclose(once.strengths[4], learning.default_l2(N, 60))
    relative = learning.choose_l2(
        _start(), rows, key=jax.random.key(0), n_folds=2, weights=np.full(60, 0.3)
    )
    np.testing.assert_allclose(relative.held_out, once.held_out, rtol=1e-9)


@pytest.mark.parametrize(("n_folds", "bound"), [(1, "at least 2"), (61, "at most 60")])
def test_parts_must_hold_samples(n_folds, bound):
    rows = _data(random_pairwise(N, jax.random.key(0)), 60, 0)
    with pytest.raises(ValueError, match=f"n_folds must be {bound}, got {n_folds}"):
        learning.choose_l2(_start(), rows, key=jax.random.key(0), n_folds=n_folds)


def _ring(n):
    return tg.Pairwise(np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0), np.zeros(n))


@pytest.mark.further
@pytest.mark.parametrize("count", [60, 600])
@pytest.mark.parametrize("family", ["spin glass", "ring"])
def test_the_default_is_near_the_best_ridge(family, count):
    """In the divergence from the truth, within a quarter of the best of nine, over data sets."""
    factors = 10 ** np.arange(-2, 2.01, 0.5)
    errors = np.zeros(len(factors))
    for seed in range(4):
        truth = _ring(N) if family == "ring" else random_pairwise(N, jax.random.key(seed))
        rows = _data(truth, count, seed)
        for index, factor in enumerate(factors):
            objective = tg.Pseudolikelihood(factor * learning.default_l2(N, count))
            fitted = tg.fit(objective, _start(), rows, key=jax.random.key(0)).energy
            errors[index] += _divergence(truth, fitted)
    assert errors[4] <= 1.25 * errors.min()
