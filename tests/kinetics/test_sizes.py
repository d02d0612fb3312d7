"""Descents and certificates of very many spins: in bounded memory, and no less true."""

import helpers
import jax
import numpy as np
import pytest

import thermogen as tg
from thermogen import energies, kinetics
from thermogen.kinetics import _descents, _observe, _plateaus


@pytest.mark.parametrize("name", ["pairwise", "interactions", "rbm"])
def test_sweeps_before_the_steepest_flips_end_in_minima_too(monkeypatch, name):
    energy = helpers.ENERGIES[name](8, jax.random.key(1), scale=1.3)
    starts = helpers.configurations(8)
    monkeypatch.setattr(_descents, "MANY_SPINS", 0)
    with jax.enable_x64(True):
        model = _descents.prepared(energy)
        ends = _descents.descend_all(model, starts)
        slopes, ties = _descents.slopes_of(model, ends)
    assert np.all(slopes >= -ties[:, None])
    e = np.asarray(jax.vmap(energy)(starts))
    np.testing.assert_array_less(
        np.asarray(jax.vmap(energy)(ends.astype(float))), e + 1e-5 * np.abs(e).max()
    )
    stable = np.all(_descents.slopes_of(model, starts.astype(np.int8))[0] > 0, axis=1)
    assert stable.any()
    np.testing.assert_array_equal(ends[stable], starts[stable])


def test_plateaus_of_very_many_spins_are_not_walked(monkeypatch):
    """A ring of couplings +-1: domain walls move at no cost, and a walk makes them meet."""
    couplings = np.random.default_rng(0).choice([-1.0, 1.0], 16)
    bonds = np.stack([np.arange(16), (np.arange(16) + 1) % 16], axis=1)
    ring = tg.Interactions(16, [bonds], [couplings])
    starts = np.random.default_rng(1).choice([-1, 1], (6, 16))
    walked = kinetics.flip_minima(ring, starts)
    monkeypatch.setattr(_descents, "MANY_SPINS", 0)
    monkeypatch.setattr(_plateaus, "MANY_SPINS", 0)
    ends = kinetics.flip_minima(ring, starts)
    assert len(ends) > len(walked)
    gaps = jax.vmap(lambda s: energies.flip_gaps(ring, s))(ends)
    assert np.all(gaps >= 0)


def test_blocks_of_trajectories_are_as_large_as_memory_allows():
    assert _observe.block_shape(3, 256, 784) == (4, 256)
    assert _observe.block_shape(40, 256, 784) == (32, 64)
    for n_starts, n_spins in ((3, 10**5), (40, 10**5), (16, 10**8)):
        rows, columns = _observe.block_shape(n_starts, 256, n_spins)
        assert columns >= 1 and (columns == 1 or rows * columns * n_spins <= _observe._MOST_SPINS)


def test_a_certificate_by_small_blocks_is_that_at_once(monkeypatch):
    """Of two groups of ten spins each, whose four states are bound, and one that is not."""
    half = np.ones((10, 10)) - np.eye(10)
    energy = tg.Pairwise(np.kron(np.eye(2), half), np.zeros(20))
    up = np.ones(10)
    candidates = np.array([np.append(a * up, b * up) for a in (1, -1) for b in (1, -1)])
    options = {"key": jax.random.key(0), "threshold": 20, "n_trajectories": 16, "horizon": 3}
    whole = tg.certify(energy, 0.4, candidates, **options)
    monkeypatch.setattr(_observe, "_MOST_SPINS", 4 * 20 * 5)  # five trajectories of each
    parts = tg.certify(energy, 0.4, candidates, **options)
    assert whole.n_bound == parts.n_bound == 4
    np.testing.assert_array_equal(whole.group, parts.group)
