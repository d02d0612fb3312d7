"""What follows from followed states: derivatives against finite differences, and rows that end."""

import itertools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp

import thermogen as tg
from thermogen._batches import cast
from thermogen.landscape import (
    configurational_entropy,
    follow,
    log_escape_times,
    log_partition,
    minimax_heights,
    mixture_bound,
    overlaps,
)

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
        parts = (
            *(now.weights(beta), log_partition(now, beta), overlaps(now)),
            *configurational_entropy(now, beta, 0.7),
            mixture_bound(at(t), beta, now),
        )
        return jnp.concatenate([jnp.ravel(x) for x in parts])

    helpers.assert_differentiable(sums)
    now = follow(NAIVE, energy, BETA, library).library()
    np.testing.assert_allclose(now.weights(BETA), library.weights(BETA), atol=1e-12)
    bound = mixture_bound(energy, BETA, library)
    assert isinstance(bound, float)
    traced = jax.jit(lambda beta: mixture_bound(energy, beta, library))(BETA)
    np.testing.assert_allclose(traced, bound, rtol=1e-12)


def test_a_library_of_nothing_has_derivatives_of_zero():
    library = tg.find_minima(NAIVE, GLASS, BETA, key=KEY, n_starts=64)
    nothing = jax.tree.map(jnp.asarray, library)
    nothing = eqx.tree_at(lambda x: x.mask, nothing, jnp.zeros_like(library.mask))

    def sums(free_energies):
        now = eqx.tree_at(lambda x: x.free_energies, nothing, free_energies)
        spread = configurational_entropy(now, BETA)
        bound = jax.jit(mixture_bound)(GLASS, BETA, now)
        return now.weights(BETA), log_partition(now, BETA), bound, *spread

    weights, *totals = sums(library.free_energies)
    np.testing.assert_array_equal(totals, [-np.inf, -np.inf, -np.inf, np.inf, -np.inf])
    assert not np.any(weights)
    for derivative in (jax.jacfwd(sums), jax.jacrev(sums), jax.hessian(sums)):
        for slopes in derivative(jnp.asarray(library.free_energies)):
            assert not np.any(slopes)


def test_the_bound_moves_with_its_states():
    """Its derivative by the energy is not the one at fixed m, least of all for states of TAP."""
    library = tg.find_minima(tg.TAP(), GLASS, 0.8, key=KEY, n_starts=64)

    def moving(fields):
        energy = tg.Pairwise(GLASS.couplings, fields)
        return mixture_bound(energy, 0.8, follow(tg.TAP(), energy, 0.8, library).library())

    def fixed(fields):
        return mixture_bound(tg.Pairwise(GLASS.couplings, fields), 0.8, library)

    slopes = [jax.grad(function)(GLASS.fields) for function in (moving, fixed)]
    step = 1e-3 * np.eye(N)[0]
    # Concrete calls, to second order in the step.
    truth = (moving(GLASS.fields + step) - moving(GLASS.fields - step)) / 2e-3
    np.testing.assert_allclose(slopes[0][0], truth, rtol=1e-4)
    assert abs(slopes[1][0] - truth) > 1e-2 * abs(truth)


def test_configurational_entropy_is_the_legendre_transform():
    library = tg.find_minima(NAIVE, GLASS, BETA, key=KEY, n_starts=64)
    images = tg.find_minima(NAIVE, EVEN, BETA, key=KEY, n_starts=64).expanded()
    for states in (library, images, tg.find_minima(NAIVE, EVEN, BETA, key=KEY, n_starts=64)):
        count = states.multiplicity.sum()
        np.testing.assert_allclose(
            configurational_entropy(states, BETA, 0.0).entropy, np.log(count), rtol=1e-12
        )
        now = configurational_entropy(states, BETA)
        w = np.asarray(states.weights(BETA))
        np.testing.assert_allclose(now.log_sum, log_partition(states, BETA), rtol=1e-12)
        np.testing.assert_allclose(now.free_energy, w @ states.free_energies, rtol=1e-12)
        entropy = -w @ np.log(w / states.multiplicity)
        np.testing.assert_allclose(now.entropy, entropy, rtol=1e-9)
        for r in (-2.0, 0.6, 1.7):
            slope = jax.jacfwd(configurational_entropy, argnums=2)(states, BETA, r)
            here = configurational_entropy(states, BETA, r)
            np.testing.assert_allclose(slope.log_sum, -BETA * here.free_energy, rtol=1e-9)
            np.testing.assert_allclose(slope.entropy, r * BETA * slope.free_energy, rtol=1e-9)
    with pytest.raises(ValueError, match="r must be finite"):
        configurational_entropy(library, BETA, np.inf)


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
        leads_out &= (found.ends[:, 0] != found.ends[:, 1]) | (found.parity < 0)
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


@pytest.mark.parametrize("energy", [_blocks(), _fours()], ids=["blocks", "fours"])
def test_images_that_are_states_of_their_own_are_left_as_they_were(energy):
    library, found = _found(energy)
    images = library.expanded()
    apart = tg.barriers(NAIVE, energy, BETA, images)
    assert np.all(apart.multiplicity == 1) and np.all(apart.parity == 1)
    rows = [
        int(np.argmin(np.abs(library.magnetizations[:, None] * [[[1], [-1]]] - m).max(-1).min(1)))
        for m in images.magnetizations
    ]
    both, each = _followed(energy, BETA, library, found), _followed(energy, BETA, images, apart)
    heights = minimax_heights(apart, *each)
    np.testing.assert_allclose(heights.heights, apart.heights, atol=1e-9)
    np.testing.assert_allclose(
        heights.barriers, minimax_heights(found, *both).barriers[np.array(rows)], atol=1e-9
    )
    times = log_escape_times(NAIVE, energy, BETA, found, *both)
    ours = log_escape_times(NAIVE, energy, BETA, apart, *each)
    np.testing.assert_allclose(ours, times[np.array(rows)], atol=1e-9)


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
        rows = _followed(_magnet(field), 1.0, library, found)
        times = log_escape_times(NAIVE, _magnet(field), 1.0, found, *rows)
        return *minimax_heights(found, *rows), times

    values = jax.jit(heights)
    derivatives = [jax.jit(d) for d in (jax.jacfwd(heights), jax.jacrev(heights))]
    for field in np.linspace(0.2, 2, 11):
        now, joined = values(field), field < spinodal
        between, _, out, times = now
        assert np.isfinite(between[0, 1]) == joined
        np.testing.assert_array_equal(np.isfinite(out), joined)
        np.testing.assert_array_equal(np.isfinite(times), joined)
        assert np.isfinite(between[1 - down, 1 - down])
        assert np.isfinite(between[down, down]) == joined
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


# --- escape times


@pytest.mark.parametrize("energy", _cases(_magnet(0.2), GLASS, EVEN))
def test_escape_times_have_derivatives(energy):
    library, found = _found(energy)
    change = np.random.default_rng(3).normal(size=energy.couplings.shape)
    change = (change + change.T) * (1 - np.eye(len(change)))

    def times(t):
        now, beta = tg.Pairwise(energy.couplings + t * change, energy.fields), BETA * jnp.exp(t)
        return log_escape_times(NAIVE, now, beta, found, *_followed(now, beta, library, found))

    assert np.all(np.isfinite(times(0.0)))
    # The glass is close to a bifurcation, where higher derivatives are large.
    helpers.assert_differentiable(times, h=5e-5)
    mapped = jax.jit(jax.vmap(times))(np.array([0.0, 0.01]))
    np.testing.assert_allclose(mapped, [times(0.0), times(0.01)], rtol=1e-10)


def _curie_weiss(n, field):
    return tg.Pairwise((jnp.ones((n, n)) - jnp.eye(n)) / n, jnp.full(n, field))


def _uniform(n, beta, field):
    """The two states of `m = tanh(beta (slope m + field))` and the saddle between, as rows."""
    slope = 1 - 1 / n
    grid = np.linspace(-1, 1, 2002)

    def residual(m):
        return np.tanh(beta * (slope * m + field)) - m

    turns = np.flatnonzero(residual(grid[:-1]) * residual(grid[1:]) < 0)
    roots = [brentq(residual, *grid[[k, k + 1]], xtol=1e-15) for k in turns]
    kept, saddle = (roots[:1], 0.0) if field == 0 else (roots[::2], roots[1])
    rows, twice = len(kept), 1 + (field == 0)
    library = tg.Library(
        np.outer(kept, np.ones(n)), *np.zeros((3, rows)), *np.full((2, rows), twice)
    )
    found = tg.landscape.Barriers(
        ends=np.array([[0, rows - 1]]),
        parity=np.array([-1 if field == 0 else 1]),
        multiplicity=np.ones(1, int),
        magnetizations=np.full((1, n), saddle),
        free_energies=np.zeros(1),
        residuals=np.zeros(1),
        indices=np.ones(1, int),
        result=tg.landscape.TRANSITIONS.named(["converged"]),
        heights=np.zeros((rows, rows)),
        mirror_heights=np.zeros(rows),
        others=np.zeros((0, n)),
    )
    return library, found, roots


def _estimate(n, beta, field):
    """ln of the escape time of the upper state, by saddles."""
    library, found, _ = _uniform(n, beta, field)
    energy = _curie_weiss(n, field)
    rows = _followed(energy, beta, library, found)
    return log_escape_times(NAIVE, energy, beta, found, *rows)[-1]


def _first_passage(n, beta, field):
    """ln of the mean time from the upper state of the magnetization to the lower, exactly.

    A chain of births and deaths: `T = sum_j (sum_{i >= j} p_i) / (p_j d_j)` over the steps down.
    """
    _, _, roots = _uniform(n, beta, field)
    up = np.arange(n + 1)
    total = 2 * up - n
    log_p = gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1)
    log_p += beta * (total**2 / (2 * n) + field * total)
    down = np.log(up[1:]) - np.logaddexp(0, 2 * beta * ((total[1:] - 1) / n + field))
    tails = np.logaddexp.accumulate(log_p[::-1])[::-1]
    low, high = (round(n * (1 + m) / 2) for m in (roots[0], roots[-1]))
    steps = np.arange(low + 1, high + 1)
    return logsumexp(tails[steps] - log_p[steps] - down[steps - 1])


@pytest.mark.parametrize("point", _cases((1.6, 0.0), (1.6, -0.05), (1.45, 0.0), (2.0, -0.1)))
def test_escape_from_a_complete_graph_is_exact_for_many_spins(point):
    """The error goes as 1/n, and little is left once that is out."""
    ratios = {}
    for n in (64, 128, 256):
        ratios[n] = np.exp(_estimate(n, *point) - _first_passage(n, *point))
        assert abs(ratios[n] - 1) < 8 / n
    assert abs(2 * ratios[256] - ratios[128] - 1) < 0.005
    assert abs(ratios[256] - 1) < 0.6 * abs(ratios[128] - 1)


def test_the_slope_of_an_escape_time_is_exact_for_many_spins():
    """d ln T/d beta and by the field: by derivatives, and of the chain by differences."""
    n, beta, field = 64, 1.6, -0.05
    library, found, _ = _uniform(n, beta, field)

    def estimate(beta, field):
        energy = _curie_weiss(n, field)
        rows = _followed(energy, beta, library, found)
        return log_escape_times(NAIVE, energy, beta, found, *rows)[-1]

    slopes = jax.grad(estimate, argnums=(0, 1))(beta, field)
    h = 1e-4
    by_beta = _first_passage(n, beta + h, field) - _first_passage(n, beta - h, field)
    by_field = _first_passage(n, beta, field + h) - _first_passage(n, beta, field - h)
    # ln T is of the order n, and the estimate leaves out 1/n.
    np.testing.assert_allclose(slopes, [by_beta / (2 * h), by_field / (2 * h)], rtol=2 / n)


def test_relaxation_of_a_small_graph_has_the_slopes_of_the_theory():
    """The exact time of twelve spins, by perturbation theory of its matrix, by beta.

    Two states that exchange relax in half the time that each is left in, so that ln of all these
    differ by constants. The chain of the magnetization is exact but for the time within a state,
    a sweep in 10^4 that go by between two reversals; rate theory leaves out 1/n.
    """
    n, beta, h = 12, 3.0, 1e-4

    def log_time(beta):
        return jnp.log(tg.exact.relaxation_times(_curie_weiss(n, 0.0), beta, n_eigenvalues=2)[0])

    library, found, _ = _uniform(n, beta, 0.0)

    def estimate(beta):
        energy = _curie_weiss(n, 0.0)
        rows = _followed(energy, beta, library, found)
        return log_escape_times(NAIVE, energy, beta, found, *rows)[0]

    exact = jax.grad(log_time)(beta)
    chain = (_first_passage(n, beta + h, 0.0) - _first_passage(n, beta - h, 0.0)) / (2 * h)
    np.testing.assert_allclose(exact, chain, rtol=1e-3)
    np.testing.assert_allclose(jax.grad(estimate)(beta), exact, rtol=1 / n)


def test_escape_times_need_naive_mean_field():
    library, found = _found(GLASS)
    rows = _followed(GLASS, BETA, library, found)
    with pytest.raises(ValueError, match="functional must be NaiveMeanField"):
        log_escape_times(tg.TAP(), GLASS, BETA, found, *rows)


def test_rows_of_others_are_refused():
    library, found = _found(GLASS)
    states, saddles = _followed(GLASS, BETA, library, found)
    with pytest.raises(ValueError, match=f"states must have the {library.size} rows"):
        minimax_heights(found, jax.tree.map(lambda x: x[1:], states), saddles)
    with pytest.raises(ValueError, match=f"saddles must have the {len(found.ends)} rows"):
        minimax_heights(found, states, jax.tree.map(lambda x: x[1:], saddles))


@pytest.mark.further
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_spin_in_a_huge_field_spoils_no_slope(dtype):
    """Its variance underflows; the other spins know nothing of it."""
    library, found = _found(_magnet(0.2))

    def with_one_more(field):
        couplings = jnp.zeros((5, 5)).at[:4, :4].set(_magnet(0.2).couplings)
        return tg.Pairwise(couplings, jnp.full(5, 0.2).at[4].set(field))

    def slopes(energy, library, found):
        def both(beta):
            energy_ = cast(energy, dtype)
            states, saddles = (follow(NAIVE, energy_, beta, x) for x in (library, found))
            times = log_escape_times(NAIVE, energy_, beta, found, states, saddles)
            return jnp.stack([states.curvatures, times])

        return jax.jacfwd(both)(jnp.asarray(BETA, dtype))

    wanted = slopes(_magnet(0.2), library, found)
    ours = slopes(with_one_more(400.0), *_found(with_one_more(400.0)))
    np.testing.assert_allclose(ours, wanted, rtol=1e-2 if dtype == jnp.float32 else 1e-6)


def test_a_way_from_a_paramagnet_to_itself_is_no_way_out():
    """Its own image: a saddle whose two ends it is has parity 0, and leads nowhere."""
    library, found = _found(_fours())
    states, saddles = _followed(_fours(), BETA, library, found)
    own = int(np.flatnonzero(library.multiplicity == 1)[0])
    round_trip = found._replace(ends=np.full_like(found.ends, own))
    heights = minimax_heights(round_trip, states, saddles)
    assert np.all(np.isinf(heights.barriers))


def test_single_precision_stays_single():
    """In a session that knows double precision, too."""
    energy, beta = cast(_magnet(0.2), jnp.float32), jnp.float32(BETA)
    library, found = _found(energy, beta)
    states, saddles = _followed(energy, beta, library, found)
    now = states.library()
    numbers = (
        *(configurational_entropy(now, beta), minimax_heights(found, states, saddles)),
        *(log_escape_times(NAIVE, energy, beta, found, states, saddles), now.weights(beta)),
        *(log_partition(now, beta), jax.jit(mixture_bound)(energy, beta, now), overlaps(now)),
    )
    assert {x.dtype for x in jax.tree.leaves(numbers)} == {np.dtype(np.float32)}


def test_configurational_entropy_in_the_coldest():
    library, _ = _found(EVEN)
    for beta, r in ((1e308, 2.0), (np.inf, 2.0), (1e308, -2.0)):
        assert not np.any(np.isnan(configurational_entropy(library, beta, r).entropy))
    assert not np.isnan(mixture_bound(EVEN, np.inf, library))
