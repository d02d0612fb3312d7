"""What follows from followed states: derivatives against finite differences, and rows that end."""

import itertools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard

import thermogen as tg
from thermogen.landscape import follow, log_partition, minimax_heights, overlaps

N, BETA, KEY = 8, 1.2, jax.random.key(0)
NAIVE = tg.NaiveMeanField()
GLASS = helpers.random_pairwise(N, KEY, 2.0, 0.1)
EVEN = helpers.random_pairwise(N, jax.random.key(11), 3.0, 0.0)


def _blocks(strength=1.5):
    """Two magnets of n/2 spins: two pairs of states, joined over saddles of one magnet at 0."""
    patterns = hadamard(N)[[1, 2]].astype(float)
    return tg.Pairwise(strength * patterns.T @ patterns / N * (1 - np.eye(N)), np.zeros(N))


def _fours(strength=0.1):
    """All sets of four: the paramagnet and two ferromagnets are minima together."""
    sets = itertools.combinations(range(N), 4)
    return tg.Interactions.from_terms(N, dict.fromkeys(sets, strength))


def _magnet(field, n=4):
    return tg.Pairwise(jnp.ones((n, n)) - jnp.eye(n), jnp.full(n, field))


def _found(energy, beta=BETA):
    library = tg.find_minima(NAIVE, energy, beta, key=KEY, n_starts=64)
    return library, tg.barriers(NAIVE, energy, beta, library)


def _followed(energy, beta, library, found):
    return follow(NAIVE, energy, beta, library), follow(NAIVE, energy, beta, found)


def _heights(energy, beta, library, found):
    return minimax_heights(found, *_followed(energy, beta, library, found))


def _cases(*energies):
    """The first always, the rest where there is time."""
    return [
        pytest.param(energy, marks=[pytest.mark.further] if k else [], id=str(k))
        for k, energy in enumerate(energies)
    ]


# --- weights and sums


@pytest.mark.parametrize("energy", _cases(GLASS, EVEN))
def test_sums_over_followed_states_have_derivatives(energy):
    library, at = tg.find_minima(NAIVE, energy, BETA, key=KEY, n_starts=64), helpers.along(energy)
    assert library.size > 1

    def sums(t):
        beta = BETA * jnp.exp(t)
        now = follow(NAIVE, at(t), beta, library).library()
        parts = (now.weights(beta), log_partition(now, beta)[None], overlaps(now).ravel())
        return jnp.concatenate(parts)

    helpers.assert_differentiable(sums)
    now = follow(NAIVE, energy, BETA, library).library()
    np.testing.assert_allclose(now.weights(BETA), library.weights(BETA), atol=1e-12)


def test_a_library_of_nothing_has_derivatives_of_zero():
    library = tg.find_minima(NAIVE, GLASS, BETA, key=KEY, n_starts=64)
    nothing = jax.tree.map(jnp.asarray, library)
    nothing = eqx.tree_at(lambda x: x.mask, nothing, jnp.zeros_like(library.mask))

    def sums(free_energies):
        now = eqx.tree_at(lambda x: x.free_energies, nothing, free_energies)
        return now.weights(BETA), log_partition(now, BETA)

    weights, total = sums(library.free_energies)
    assert total == -np.inf and not np.any(weights)
    for derivative in (jax.jacfwd(sums), jax.jacrev(sums), jax.hessian(sums)):
        for slopes in derivative(jnp.asarray(library.free_energies)):
            assert not np.any(slopes)


# --- heights


@pytest.mark.parametrize(
    "energy", _cases(_blocks(), _fours(), GLASS, EVEN, _magnet(0.2), _magnet(0.0))
)
def test_heights_where_they_were_found_are_those_that_were_found(energy):
    library, found = _found(energy)
    now = _heights(energy, BETA, library, found)
    assert np.isfinite(found.free_energies).any()
    np.testing.assert_allclose(now.heights, found.heights, atol=1e-9)
    np.testing.assert_allclose(now.mirror_heights, found.mirror_heights, atol=1e-9)
    _check_lowest_ways_out(library, found, now.barriers)


def _check_lowest_ways_out(library, found, barriers):
    for k, depth in enumerate(library.free_energies):
        leads_out = (found.ends == k).any(axis=1) & (found.ends.min(axis=1) >= 0)
        leads_out &= (found.ends[:, 0] != found.ends[:, 1]) | (found.parity <= 0)
        lowest = np.min(found.free_energies[leads_out], initial=np.inf)
        np.testing.assert_allclose(barriers[k], lowest - depth, atol=1e-9)


def test_parity_tells_mirror_images_apart():
    """Saddles of two blocks overlap with both their ends; those of quartets lead to m = 0."""
    library, found = _found(_blocks())
    assert library.size == 2 and np.all(library.multiplicity == 2)
    # One block blank, the other up or down as it is at both ends.
    joins = (found.indices == 1) & (found.ends.min(axis=1) >= 0)
    assert np.sum(joins) == 2 and np.all(found.multiplicity[joins] == 2)
    along = np.sign(found.magnetizations[joins] @ library.magnetizations.T)
    np.testing.assert_array_equal(found.parity[joins], np.prod(along, axis=1))

    library, found = _found(_fours())
    assert sorted(library.multiplicity) == [1, 2]
    np.testing.assert_array_equal(found.parity[found.indices == 1], 0)
    np.testing.assert_array_equal(found.multiplicity[found.indices == 1], 2)

    _, found = _found(_magnet(0.0))
    np.testing.assert_array_equal([found.parity[0], found.multiplicity[0]], [-1, 1])


@pytest.mark.parametrize("energy", _cases(EVEN, GLASS))
def test_heights_have_derivatives(energy):
    library, found = _found(energy)
    # Changes of an even energy that leave it even.
    even = bool(tg.energies.is_flip_symmetric(energy))
    held = [energy.couplings, *([] if even else [energy.fields])]
    change = np.random.default_rng(3)
    steps = [change.normal(size=x.shape) for x in held]

    def heights(t):
        couplings, *fields = [x + t * step for x, step in zip(held, steps, strict=True)]
        now = tg.Pairwise(couplings, fields[0] if fields else energy.fields)
        return _heights(now, BETA * jnp.exp(t), library, found)

    start = heights(0.0)
    finite = [np.isfinite(x) for x in start]
    assert finite[0].all() and finite[2].all()
    helpers.assert_differentiable(
        lambda t: jnp.concatenate([x[f] for x, f in zip(heights(t), finite, strict=True)])
    )


def test_the_slope_of_a_barrier_is_that_of_its_saddle():
    """d(G_saddle - G_state)/dh_k = m_k of the state minus m_k of the saddle, by the envelope."""
    library, found = _found(_magnet(0.2))
    slopes = jax.jacrev(lambda e: _heights(e, BETA, library, found).barriers)(_magnet(0.2))
    difference = library.magnetizations - found.magnetizations[:1]
    np.testing.assert_allclose(slopes.fields, difference, atol=1e-9)


def test_ends_of_states_and_saddles_leave_no_way_and_no_nan():
    """One state of the magnet and the saddle end together at the spinodal."""
    m = np.sqrt(2 / 3)
    spinodal = 3 * m - np.arctanh(m)
    library, found = _found(_magnet(0.2), 1.0)
    down = int(np.argmin(library.magnetizations[:, 0]))

    def heights(field):
        return _heights(_magnet(field), 1.0, library, found)

    values = jax.jit(heights)
    derivatives = [jax.jit(d) for d in (jax.jacfwd(heights), jax.jacrev(heights))]
    for field in np.linspace(0.2, 2, 11):
        now, joined = values(field), field < spinodal
        assert np.all(np.isfinite(now.heights[0, 1]) == joined)
        np.testing.assert_array_equal(np.isfinite(now.barriers), joined)
        assert np.isfinite(now.heights[1 - down, 1 - down])
        assert np.isfinite(now.heights[down, down]) == joined
        for derivative in derivatives:
            for slopes, height in zip(derivative(field), now, strict=True):
                assert np.all(np.isfinite(slopes))
                assert not np.any(slopes[np.isinf(height)])


def test_heights_map_over_models():
    library, found = _found(GLASS)
    at, steps = helpers.along(GLASS), np.linspace(-0.02, 0.02, 3)
    many = jax.jit(jax.vmap(lambda t: _heights(at(t), BETA, library, found)))(steps)
    for k, t in enumerate(steps):
        one = _heights(at(t), BETA, library, found)
        for all_rows, row in zip(many, one, strict=True):
            np.testing.assert_allclose(all_rows[k], row, atol=1e-12)


def test_rows_of_others_are_refused():
    library, found = _found(GLASS)
    states, saddles = _followed(GLASS, BETA, library, found)
    with pytest.raises(ValueError, match=f"states must have the {library.size} rows"):
        minimax_heights(found, jax.tree.map(lambda x: x[1:], states), saddles)
    with pytest.raises(ValueError, match=f"saddles must have the {len(found.ends)} rows"):
        minimax_heights(found, states, jax.tree.map(lambda x: x[1:], saddles))
