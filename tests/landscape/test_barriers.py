"""Saddles against closed forms and autodiff, barriers against enumeration."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.optimize import brentq

import thermogen as tg
from thermogen.landscape import TRANSITIONS, Barriers, barriers, energy_barriers

# One number of spins for all saddles, so that programs are shared.
N, BETA = 8, 3.0
NAIVE = helpers.FUNCTIONALS["naive"]


def _curie_weiss(fields: float = 0.0) -> tg.Pairwise:
    return tg.Pairwise((1 - np.eye(N)) / N, np.full(N, fields))


def _glass(fields: float, seed: int = 11) -> tg.Pairwise:
    return helpers.random_pairwise(N, jax.random.key(seed), fields=fields)


def _found(energy: tg.Pairwise, beta: float = BETA, functional=NAIVE, **options):
    library = tg.find_minima(
        functional, energy, beta, key=jax.random.key(0), n_starts=64, capacity=32
    )
    found = barriers(functional, energy, beta, library, **options)
    _assert_sound(functional, energy, beta, library, found)
    return library, found


@jax.jit(static_argnums=0)
def _derivatives(functional, energy, beta, m):
    """Gradient and Hessian of G(m) by plain autodiff."""

    def single(m):
        gradient = jax.grad(functional, argnums=2)(energy, beta, m)
        return gradient, jax.hessian(functional, argnums=2)(energy, beta, m)

    return jax.vmap(single)(m)


def _assert_sound(functional, energy, beta, library: tg.Library, found: Barriers) -> None:
    """What must hold whatever the landscape, judged without the code under test."""
    converged = np.asarray(found.result == TRANSITIONS.converged)
    m = found.magnetizations[converged]
    assert np.all(found.residuals[converged] < 1e-8) and np.all(found.indices[converged] == 1)
    assert np.all(np.diff(found.free_energies[converged]) >= 0)
    assert np.all((found.ends[converged] >= 0).all(axis=1))
    assert not np.any((found.ends[~converged] >= 0).all(axis=1))
    if len(m):
        assert np.abs(m).max() < 1 - 1e-9  # else the plain Hessian is no number
        gradient, hessian = _derivatives(functional, energy, beta, m)
        assert np.max(np.abs(gradient)) < 1e-8
        np.testing.assert_array_equal(np.sum(np.linalg.eigvalsh(hessian) < 0, axis=1), 1)
        energies = [functional(energy, beta, row) for row in m]
        np.testing.assert_allclose(found.free_energies[converged], energies, rtol=1e-10)
    # The bottoms on both sides lie below, and the barriers above both states.
    bottoms = [functional(energy, beta, row) for row in found.others]
    bottoms = np.append(library.free_energies, bottoms)
    assert np.all(bottoms[found.ends[converged]].max(axis=1) < found.free_energies[converged])
    heights = found.heights
    assert heights.shape == (library.size,) * 2 and found.mirror_heights.shape == (library.size,)
    np.testing.assert_array_equal(heights, heights.T)
    np.testing.assert_array_equal(np.diagonal(heights), bottoms[: library.size])
    assert np.all(heights >= np.maximum.outer(*[bottoms[: library.size]] * 2))
    assert np.all(found.mirror_heights > bottoms[: library.size])
    single = library.multiplicity == 1
    assert np.all(np.isinf(found.mirror_heights[single]))
    _assert_ultrametric(heights)


def _assert_ultrametric(heights: np.ndarray) -> None:
    for c in range(len(heights)):
        assert np.all(heights <= np.maximum.outer(heights[c], heights[c]) + 1e-12)


# --- saddles that are known


@pytest.mark.further
def test_a_magnet_reverses_over_the_paramagnet():
    library, found = _found(_curie_weiss())
    assert library.size == 1 and len(found.others) == 0
    np.testing.assert_allclose(found.magnetizations, 0, atol=1e-12)
    np.testing.assert_array_equal(found.ends, [[0, 0]])
    np.testing.assert_allclose(found.mirror_heights, -N * np.log(2) / BETA, rtol=1e-14)
    np.testing.assert_allclose(found.heights, [[library.free_energies[0]]])


@pytest.mark.further
@pytest.mark.parametrize("field", [0.05, 0.2])
def test_a_field_moves_the_saddle(field):
    """Uniform m with m = tanh(beta (slope m + h)): the root between the two minima."""
    slope = 1 - 1 / N
    library, found = _found(_curie_weiss(field))
    assert library.size == 2
    m = brentq(lambda m: np.tanh(BETA * (slope * m + field)) - m, -0.6, 0.0, xtol=1e-15)
    np.testing.assert_allclose(found.magnetizations, np.full((1, N), m), atol=1e-9)
    np.testing.assert_array_equal(found.ends, [[0, 1]])
    p = np.array([1 + m, 1 - m]) / 2
    free_energy = N * (-0.5 * slope * m**2 - field * m + p @ np.log(p) / BETA)
    np.testing.assert_allclose(found.free_energies, [free_energy], rtol=1e-12)
    np.testing.assert_allclose(found.heights[0, 1], free_energy, rtol=1e-12)
    np.testing.assert_array_equal(found.mirror_heights, np.inf)


def test_two_patterns_are_joined_symmetrically():
    """Patterns +-x, +-y, so n/2 spins agree: two blocks, each a magnet that reverses by itself.

    J_ij = 2/n within a block and nothing between: from x to y one block passes its m = 0 while the
    other stays, the two saddles of one G; x to -x takes both, one after the other.
    """
    patterns = hadamard(N)[[1, 2]].astype(float)
    energy = tg.Pairwise(patterns.T @ patterns / N * (1 - np.eye(N)), np.zeros(N))
    beta = 4.0
    library, found = _found(energy, beta)
    assert library.size == 2 and len(found.others) == 0
    slope = 1 - 2 / N
    m = brentq(lambda m: np.tanh(beta * slope * m) - m, 0.5, 1, xtol=1e-15)
    p = np.array([1 + m, 1 - m]) / 2
    ordered = N / 2 * (-0.5 * slope * m**2 + p @ np.log(p) / beta)
    blank = -N / 2 * np.log(2) / beta
    np.testing.assert_allclose(library.free_energies[:2], 2 * ordered, rtol=1e-12)
    np.testing.assert_allclose(found.heights[0, 1], ordered + blank, rtol=1e-10)
    np.testing.assert_allclose(found.mirror_heights, ordered + blank, rtol=1e-10)
    lowest = found.magnetizations[0]
    assert np.sum(np.abs(lowest) < 1e-9) == N / 2 and set(found.ends[0]) == {0, 1}


# --- glasses


@pytest.mark.further
@pytest.mark.parametrize("fields", [0.0, 0.1])
def test_no_lower_pass_is_found_at_random(fields):
    """Minimax heights against those over the saddles that 100 random points climb to."""
    energy, beta = _glass(fields), 4.0
    library, found = _found(energy, beta)
    assert library.size > 1
    assert np.all(np.isfinite(found.heights))
    m = _climbed(energy, beta, np.random.default_rng(0).uniform(-1, 1, (100, N)))
    states = np.concatenate([library.magnetizations] * 2)
    images = np.arange(library.size) + (library.size if fields == 0 else 0)
    states[library.size :] *= -1
    heights = np.full((len(states),) * 2, np.inf)
    for saddle, sides in m:
        ends = [np.flatnonzero(np.abs(states - side).max(axis=1) < 1e-4) for side in sides]
        if all(len(end) for end in ends):
            a, b = (end[0] for end in ends)
            height = float(NAIVE(energy, beta, saddle))
            heights[a, b] = heights[b, a] = min(height, heights[a, b])
    for c in range(len(states)):
        heights = np.minimum(heights, np.maximum.outer(heights[c], heights[c]))
    size = library.size
    random = np.minimum(heights[:size, :size], heights[:size, images])
    off = ~np.eye(size, dtype=bool)
    assert np.all(np.isfinite(random[off]))
    assert np.all(found.heights[off] <= random[off] + 1e-9)


def _climbed(energy, beta, starts):
    """Saddles by plain NumPy: Newton steps in m, then small steps down on both sides."""
    j, h = np.asarray(energy.couplings), np.asarray(energy.fields)
    for m in starts:
        theta = np.arctanh(m)
        for _ in range(60):
            m, v = np.tanh(theta), np.cosh(theta) ** -2
            residual = theta - beta * (j @ m + h)
            hessian = np.eye(N) - beta * np.sqrt(v)[:, None] * j * np.sqrt(v)
            values, vectors = np.linalg.eigh(hessian)
            values = np.append(-np.abs(values[0]), np.abs(values[1:]))
            step = -vectors @ ((vectors.T @ (np.sqrt(v) * residual)) / values)
            theta = theta + step * min(1, 0.3 / max(np.linalg.norm(step), 1e-99)) / np.sqrt(v)
            theta = np.clip(theta, -12, 12)
        values = np.linalg.eigvalsh(hessian)
        if np.abs(residual).max() > 1e-9 or np.sum(values < 0) != 1:
            continue
        sides = []
        for sign in (1, -1):
            way = theta + 0.01 * sign * vectors[:, 0] / np.sqrt(v)
            for _ in range(1500):
                way = way - 0.1 * (way - beta * (j @ np.tanh(way) + h))
            sides.append(np.tanh(way))
        yield np.tanh(theta), sides


@pytest.mark.further
@pytest.mark.parametrize("name", ["naive", pytest.param("tap", marks=pytest.mark.slow)])
def test_float32_configuration_is_certified_in_float64(name):
    functional = helpers.FUNCTIONALS[name]
    energy = jax.tree.map(lambda x: x.astype(jnp.float32), _glass(0.1, seed=7))
    with jax.enable_x64(False):
        library = tg.find_minima(
            functional, energy, 4.0, key=jax.random.key(0), n_starts=64, capacity=32
        )
        found = barriers(functional, energy, 4.0, library)
    assert library.size > 1 and found.free_energies.dtype == np.float64
    assert np.any(np.asarray(found.result == TRANSITIONS.converged))
    energy = jax.tree.map(lambda x: x.astype(jnp.float64), energy)
    _assert_sound(functional, energy, 4.0, library, found)


@pytest.mark.further
def test_without_rounds_and_neighbours_less_is_known():
    energy = _glass(0.1)
    _, all_pairs = _found(energy, 4.0)
    _, nearest = _found(energy, 4.0, n_neighbours=1, n_rounds=0)
    _, joined = _found(energy, 4.0, n_neighbours=1, n_rounds=6)
    assert np.all(np.isfinite(joined.heights))
    assert np.all(nearest.heights >= joined.heights - 1e-9)
    assert len(nearest.ends) <= len(all_pairs.ends)


def test_a_single_state_has_no_barrier():
    library, found = _found(_curie_weiss(0.2), 0.5)
    assert library.size == 1
    assert found.heights.shape == (1, 1) and found.ends.shape == (0, 2)
    np.testing.assert_array_equal(found.mirror_heights, [np.inf])


def test_bad_arguments():
    energy = _curie_weiss()
    library, _ = _found(energy)
    with pytest.raises(ValueError, match="library must hold at least one state"):
        barriers(NAIVE, energy, BETA, library[[]])
    with pytest.raises(ValueError, match=f"states of {N + 1} spins like energy, got {N}"):
        barriers(NAIVE, helpers.random_pairwise(N + 1, jax.random.key(0)), BETA, library)
    with pytest.raises(ValueError, match="n_neighbours must be at least 1, got 0"):
        barriers(NAIVE, energy, BETA, library, n_neighbours=0)
    with pytest.raises(ValueError, match="n_rounds must be at least 0, got -1"):
        barriers(NAIVE, energy, BETA, library, n_rounds=-1)
    with pytest.raises(ValueError, match="beta must be positive"):
        barriers(NAIVE, energy, 0.0, library)


# --- barriers of E


def _minima(energy, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    indices = tg.exact.single_flip_minima(energy)[:count]
    return indices, helpers.configurations(energy.n_spins)[indices]


@pytest.mark.further
@pytest.mark.parametrize("n_floods", [0, 20, 1000])
@pytest.mark.parametrize("name", ["pairwise", "complete"])
def test_bounds_of_energy_barriers(name, n_floods):
    options = {"fields": 0.1} if name == "pairwise" else {}
    exact_above = []
    for seed in range(2):
        energy = helpers.ENERGIES[name](11, jax.random.key(seed), **options)
        indices, spins = _minima(energy)
        truth = tg.exact.barriers(energy, indices)
        bounds = energy_barriers(energy, spins, key=jax.random.key(1), n_floods=n_floods)
        assert np.all(bounds.lower <= truth + 1e-9) and np.all(truth <= bounds.upper + 1e-9)
        np.testing.assert_allclose(np.diagonal(bounds.upper), np.diagonal(truth), rtol=1e-12)
        np.testing.assert_array_equal(bounds.lower, bounds.lower.T)
        np.testing.assert_array_equal(bounds.upper, bounds.upper.T)
        _assert_ultrametric(bounds.upper)
        exact_above.append(np.isclose(bounds.upper, truth)[np.triu_indices(len(truth), 1)])
        if n_floods == 1000:
            np.testing.assert_allclose(bounds.lower, truth, rtol=1e-9)
    assert np.mean(np.concatenate(exact_above)) > {"pairwise": 0.9, "complete": 0.3}[name]


def test_the_barrier_of_a_large_magnet_is_that_of_half_its_spins():
    """E depends on how many spins are up only: any order is a best path."""
    n = 60
    energy = tg.Pairwise((1 - np.eye(n)) / n, np.zeros(n))
    ends = np.stack([np.ones(n), -np.ones(n)])
    bounds = energy_barriers(energy, ends, key=jax.random.key(0), width=4, n_floods=61)
    np.testing.assert_allclose(bounds.upper[0, 1], 0.5, rtol=1e-12)  # E = (n - M^2) / 2n at M = 0
    # Sixty-one floods take the start and all single flips, M = n - 2, and leave M = n - 4.
    np.testing.assert_allclose(bounds.lower[0, 1], (n - (n - 4) ** 2) / (2 * n), rtol=1e-12)


def test_bad_configurations():
    energy, key = _glass(0.1), jax.random.key(0)
    good = helpers.configurations(N)[:3]
    for spins, message in [
        (good[:, :-1], rf"configurations must have shape \(K >= 1, {N}\)"),
        (good[:0], rf"configurations must have shape \(K >= 1, {N}\)"),
        (0.5 * good, "must hold spins -1 or"),
        (good[[0, 0]], "must be distinct"),
    ]:
        with pytest.raises(ValueError, match=message):
            energy_barriers(energy, spins, key=key)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        energy_barriers(energy, good, key=key, width=0)
