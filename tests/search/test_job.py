"""The search as a job: it maps, resumes, keeps to its room, and compiles once."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.meanfield import Problem
from thermogen.search import Search, corner

N = 8
NAIVE = tg.NaiveMeanField()
MODELS = [helpers.random_pairwise(N, jax.random.key(k), fields=0.1) for k in (11, 12, 13)]
KEYS = jax.random.split(jax.random.key(5), len(MODELS))


def _search(n_starts: int = 200, room: int = 64, starts: np.ndarray | None = None, **options):
    starts = np.zeros((0, N), np.float32) if starts is None else starts
    coverage = options.pop("coverage", None)
    problem = Problem(NAIVE, MODELS[0], 4.0)
    return Search.of(problem, starts, n_starts, room, coverage, (corner,))


@pytest.mark.further
def test_searches_map_over_models_and_keys():
    """As one by one: the same minima, hit as often."""

    @jax.jit
    @jax.vmap
    def search(energy, beta, key):
        return tg.find_minima(NAIVE, energy, beta, key=key, n_starts=100, capacity=32)

    models = jax.tree.map(lambda *x: jnp.stack(x), *MODELS)
    betas = jnp.array([4.0, 2.0, 3.0])
    together = jax.device_get(search(models, betas, KEYS))
    np.testing.assert_array_equal(together.size, np.sum(together.mask, axis=1))
    for k, (energy, key) in enumerate(zip(MODELS, KEYS, strict=True)):
        padded = jax.tree.map(lambda x, k=k: x[k], together)
        assert padded.mask.shape == (32,) and np.all(np.isinf(padded.free_energies[padded.size :]))
        mapped = padded[:]
        alone = tg.find_minima(NAIVE, energy, betas[k], key=key, n_starts=100, capacity=32)
        np.testing.assert_allclose(mapped.magnetizations, alone.magnetizations, atol=1e-7)
        np.testing.assert_allclose(mapped.free_energies, alone.free_energies, rtol=1e-10)
        np.testing.assert_allclose(mapped.curvatures, alone.curvatures, rtol=1e-6)
        np.testing.assert_array_equal(mapped.hits, alone.hits)
        np.testing.assert_array_equal(mapped.kind, alone.kind)
        assert mapped.unresolved == alone.unresolved and mapped.residuals.max() < 1e-9
    search(models, betas + 0.5, KEYS[::-1])
    assert search._cache_size() == 1


def test_a_traced_search_calls_nothing_back():
    with pytest.raises(ValueError, match="callback cannot be used under jax.jit"):
        jax.jit(lambda key: tg.find_minima(NAIVE, MODELS[0], 1.0, key=key, callback=print).hits)(
            KEYS[0]
        )


@pytest.mark.further
def test_mirror_images_are_one_under_a_trace():
    couplings = np.ones((N, N)) - np.eye(N)
    energy = tg.Pairwise(couplings / N, np.zeros(N))
    search = jax.jit(lambda key: tg.find_minima(NAIVE, energy, 3.0, key=key, n_starts=32))
    library = jax.device_get(search(KEYS[0]))[:]
    assert library.size == 1 and library.multiplicity[0] == 2 and library.hits[0] == 32


@pytest.mark.further
def test_a_traced_search_may_close_over_all_that_it_needs():
    couplings = np.ones((N, N)) - np.eye(N)
    energy = tg.Pairwise(couplings / N, np.zeros(N))
    search = jax.jit(lambda: tg.find_minima(NAIVE, energy, 3.0, key=KEYS[0], n_starts=32))
    library = jax.device_get(search())[:]
    assert library.size == 1 and library.multiplicity[0] == 2 and library.hits[0] == 32


@pytest.mark.further
def test_given_starts_come_first_and_are_told_apart():
    corners = helpers.configurations(N)[:40].astype(np.float32)
    ends = tg.run(_search(starts=corners, n_starts=30), key=KEYS[0])
    assert ends.n_starts == 30 and ends.hits.sum() == 70 and ends.given_hits.sum() == 40
    truth = tg.Library.from_solution(
        NAIVE, MODELS[0], 4.0, tg.quench(NAIVE, MODELS[0], 4.0, corners)
    )
    used = np.isfinite(ends.free_energies)
    held = np.tanh(np.asarray(ends.fields)[used])
    for m, hits in zip(truth.magnetizations, truth.hits, strict=True):
        near = np.abs(held - m).max(axis=1) < 1e-3
        assert np.asarray(ends.given_hits)[used][near].sum() == hits


@pytest.mark.further
def test_little_room_keeps_the_lowest():
    whole = tg.run(_search(), key=KEYS[0])
    small = tg.run(_search(room=2), key=KEYS[0])
    assert np.isfinite(whole.free_energies).sum() > 2 and small.overflow
    lowest = np.sort(whole.free_energies)[:2]
    np.testing.assert_allclose(np.sort(small.free_energies), lowest, rtol=1e-5)


def test_coverage_hands_out_no_more_starts():
    ends = tg.run(_search(n_starts=100_000, coverage=0.9), key=KEYS[0])
    assert 64 <= ends.n_starts < 1000
    alone, total = np.sum(ends.hits == 1), np.sum(ends.hits)
    assert 1 - alone / total >= 0.9
