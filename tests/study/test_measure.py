"""Moments of the model of a study: sums over all configurations, and draws that agree with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import RESULTS
from thermogen.learning import FitResult
from thermogen.runs import Place
from thermogen.study import _measure

N = 6


def _energy(kind):
    draw = np.random.default_rng(1)
    if kind == "pairwise":
        couplings = np.triu(draw.normal(size=(N, N)), 1) / 2
        return tg.Pairwise(jnp.asarray(couplings + couplings.T), jnp.asarray(draw.normal(size=N)))
    return tg.RBM(*(jnp.asarray(draw.normal(size=shape)) / 2 for shape in ((N, 3), N, 3)))


def _measured(energy, beta=0.7):
    n = tg.energies.n_visible(energy)
    source = tg.study.Source("made up", np.ones((2, n)), None, (1, n))
    study = tg.study.Study(source, tg.study.Settings(beta=beta))
    study.fit = FitResult(energy, np.zeros(0), RESULTS.converged)
    _measure.measure(study, lambda *_: None, Place())
    return study.moments


def _enumerated(energy, beta=0.7):
    """Means, pairs and ln Z by the list of all configurations."""
    spins = np.asarray(tg.spins.enumerate_spins(energy.n_spins), float)
    logits = -beta * np.asarray(jax.vmap(energy)(jnp.asarray(spins)), float)
    log_z = np.logaddexp.reduce(logits)
    p, seen = np.exp(logits - log_z), spins[:, : tg.energies.n_visible(energy)]
    return p @ seen, np.einsum("s,si,sj->ij", p, seen, seen), log_z


@pytest.mark.parametrize("kind", ["pairwise", "rbm"])
def test_few_spins_are_summed(kind):
    energy = _energy(kind)
    found = _measured(energy)
    for value, truth in zip(
        (found.means, found.pairs, found.log_partition), _enumerated(energy), strict=True
    ):
        np.testing.assert_allclose(value, truth, atol=1e-5)
    assert found.error == 0


@pytest.mark.further
@pytest.mark.parametrize("kind", ["pairwise", "rbm"])
def test_many_spins_are_sampled(kind, monkeypatch):
    """The error is that of the draws; ln Z is exact where a layer is narrow."""
    energy = _energy(kind)
    means, pairs, log_z = _enumerated(energy)
    monkeypatch.setattr(_measure, "_MOST_SUMMED", 5)
    found = _measured(energy)
    off = (found.pairs - pairs)[np.triu_indices(N, 1)]
    assert 0 < found.error < 0.05
    # Mean squares of 15 entries, correlated: within a factor of three, either way.
    assert 1 / 3 < np.sqrt(np.mean(off**2)) / found.error < 3
    assert np.abs(found.means - means).max() < 5 * found.error
    # The pairwise model is dense: all of its spins are on the frontier.
    known = log_z if kind == "rbm" else np.nan
    np.testing.assert_allclose(found.log_partition, known, rtol=1e-5)


def test_moments_of_the_data_leave_out_what_is_unknown():
    spins = np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    source = tg.study.Source("made up", spins, None, (1, 2), np.array([1.0, 2.0, 3.0, 4.0]))
    means, pairs = _measure.of_data(source)
    np.testing.assert_allclose(means, [(1 - 2 + 4) / 7, (1 + 2 - 3) / 6], atol=1e-12)
    np.testing.assert_allclose(pairs, [[1, (1 - 2) / 3], [(1 - 2) / 3, 1]])
