"""Quenches and libraries against autodiff certificates and landscapes that are known."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.optimize import brentq

import thermogen as tg
from thermogen.meanfield import MirrorDescent
from thermogen.search import _newton, _quench, _verify, corner, crossover, flip_cluster

# One number of spins for nearly all tests: programs are shared.
N = 8
NAIVE, TAP = helpers.FUNCTIONALS["naive"], helpers.FUNCTIONALS["tap"]
CORNERS = helpers.configurations(N)


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _glass(fields: float = 0.0, seed: int = 11) -> tg.Pairwise:
    """An SK model of a few minima; without fields it is symmetric under the global flip."""
    return helpers.random_pairwise(N, _key(seed), fields=fields)


def _curie_weiss(coupling: float, fields: float = 0.0) -> tg.Pairwise:
    return tg.Pairwise(coupling / N * (1 - np.eye(N)), np.full(N, fields))


def _hopfield(fields: float = 0.0) -> tuple[tg.Pairwise, np.ndarray]:
    """Two orthogonal patterns, the first of them favoured by the field."""
    patterns = hadamard(N)[[1, 2]].astype(float)
    couplings = patterns.T @ patterns / N * (1 - np.eye(N))
    return tg.Pairwise(couplings, fields * patterns[0]), patterns


def _magnetization(slope: float, beta: float, field: float = 0.0) -> float:
    """The solution above 1/2 of m = tanh(beta (slope m + field))."""
    return brentq(lambda m: np.tanh(beta * (slope * m + field)) - m, 0.5, 1, xtol=1e-15)


@jax.jit(static_argnums=0)
def _certificate(functional, energy, beta, magnetizations):
    """Largest |dG/dm| and lowest eigenvalue of the Hessian by plain autodiff of G(m)."""

    def single(m):
        gradient = jax.grad(functional, argnums=2)(energy, beta, m)
        hessian = jax.hessian(functional, argnums=2)(energy, beta, m)
        return jnp.max(jnp.abs(gradient)), jnp.linalg.eigvalsh(hessian)[0]

    return jax.vmap(single)(magnetizations)


@pytest.mark.further
def test_a_flat_minimum_is_one_state():
    energy = tg.Pairwise(1 - np.eye(N), np.zeros(N))
    library = tg.find_minima(NAIVE, energy, 1 / (N - 1), key=_key(0), n_starts=64)
    assert library.size == 1 and library.multiplicity[0] == 1
    assert np.max(np.abs(library.magnetizations[0])) < 1e-4
    assert abs(library.curvatures[0]) < 1e-7 and library.residuals[0] < 1e-12
    ends = tg.quench(NAIVE, energy, 1 / (N - 1), CORNERS[:32])
    assert np.all(ends.result == tg.RESULTS.marginal)


def _distinct(magnetizations: np.ndarray, symmetric: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Representatives of points closer than 1e-6, modulo the flip, and how many each stands for."""
    found: list[np.ndarray] = []
    counts: list[int] = []
    for m in magnetizations:
        for i, other in enumerate(found):
            if min(np.abs(m - other).max(), np.abs(m + symmetric * other).max()) < 1e-6:
                counts[i] += 1
                break
        else:
            found.append(m)
            counts.append(1)
    return np.array(found), np.array(counts)


def _held(library: tg.Library) -> np.ndarray:
    return library.magnetizations


def _assert_well_formed(library: tg.Library) -> None:
    assert library.mask.shape == (library.size,) and np.all(library.mask)
    assert np.all(np.diff(library.free_energies) >= 0)
    assert np.all(library.residuals < 1e-8)
    assert np.all(library.curvatures > 0)
    assert np.all(library.hits >= 1)
    assert np.all(np.isin(library.kind, (tg.search.Kind.MINIMUM, tg.search.Kind.MARGINAL)))
    np.testing.assert_allclose(library.magnetizations, np.tanh(library.fields), rtol=1e-14)
    assert library.magnetizations.dtype == library.free_energies.dtype == np.float64


# --- quench


def _assert_certified(functional, energy, beta, solution) -> None:
    """Independent of the solver, where G(m) is still a number: away from saturation."""
    converged = solution.result == tg.RESULTS.converged
    resolved = np.abs(solution.value).max(axis=1) < 1 - 1e-6
    rows = np.flatnonzero(np.asarray(converged) & resolved)
    assert rows.size > 0.9 * len(resolved)
    residual, curvature = _certificate(functional, energy, beta, solution.value[rows])
    assert np.max(residual) < 1e-8
    assert np.min(curvature) > 0


@pytest.mark.parametrize(
    ("functional", "name"),
    [("naive", "pairwise"), ("tap", "pairwise"), ("naive", "interactions"), ("tap", "rbm")],
)
def test_quenched_points_are_minima(functional, name):
    functional = helpers.FUNCTIONALS[functional]
    options = {"orders": (1, 3), "scale": 0.5} if name == "interactions" else {}
    energy = helpers.ENERGIES[name](N, _key(1), **options)
    rng = np.random.default_rng(0)
    starts = np.concatenate([rng.choice([-1.0, 1.0], (16, N)), rng.uniform(-1, 1, (16, N))])
    solution = tg.quench(functional, energy, 1.5, starts)
    assert isinstance(solution.value, np.ndarray) and solution.value.dtype == np.float64
    assert solution.value.shape == (32, N) and solution.stats["residual"].shape == (32,)
    _assert_certified(functional, energy, 1.5, solution)
    np.testing.assert_allclose(np.tanh(solution.state["fields"]), solution.value, rtol=1e-12)
    free_energy = jax.vmap(lambda m: functional(energy, 1.5, m))(solution.value)
    np.testing.assert_allclose(solution.stats["free_energy"], free_energy, rtol=1e-8)


@pytest.mark.parametrize("functional", ["naive", "tap"])
def test_batches_of_any_size_give_the_same(functional):
    functional, energy = helpers.FUNCTIONALS[functional], _glass(0.1)
    starts = np.random.default_rng(1).uniform(-1, 1, (1025, N))
    whole = tg.quench(functional, energy, 2.0, starts)
    assert whole.value.shape == (1025, N)
    _assert_certified(functional, energy, 2.0, whole)
    for rows in (slice(0, 33), slice(0, 1), slice(1024, 1025)):
        part = tg.quench(functional, energy, 2.0, starts[rows])
        np.testing.assert_array_equal(part.result.names, whole.result.names[rows])
        np.testing.assert_allclose(part.value, whole.value[rows], atol=1e-8)
        np.testing.assert_allclose(
            part.stats["free_energy"], whole.stats["free_energy"][rows], atol=1e-12
        )


@pytest.mark.parametrize("x64", [True, False])
def test_float32_energies_are_certified_in_float64(x64):
    beta = 2.0
    energy = jax.tree.map(lambda x: x.astype(jnp.float32), _glass(0.1))
    with jax.enable_x64(x64):
        solution = tg.quench(NAIVE, energy, beta, CORNERS[:32].astype(np.int8))
    assert solution.value.dtype == solution.state["fields"].dtype == np.float64
    assert np.all(np.asarray(solution.result == tg.RESULTS.converged))
    j, h = (np.asarray(x, np.float64) for x in (energy.couplings, energy.fields))
    theta = solution.state["fields"]
    residual = np.abs(theta / beta - np.tanh(theta) @ j - h).max(axis=1)
    assert residual.max() <= 1e-9
    np.testing.assert_allclose(solution.stats["residual"], residual, atol=1e-14)


def test_low_temperature_minima_are_the_single_flip_minima():
    """As T -> 0 naive mean field keeps the corners whose flips all cost energy."""
    energy = _glass(0.1)
    table = helpers.energy_table(energy)
    index = np.arange(len(table))
    gaps = np.min([table[index ^ (1 << k)] - table for k in range(N)], axis=0)
    stable = gaps > 0.05  # wider than the reach of a start, and m rounds to +-1
    assert stable.sum() > 3
    solution = tg.quench(NAIVE, energy, 1000.0, CORNERS)
    np.testing.assert_array_equal(solution.result == tg.RESULTS.converged, True)
    # Every start that is stable stays where it is, saturated and certified all the same.
    np.testing.assert_array_equal(solution.value[stable], CORNERS[stable])
    assert solution.stats["residual"].max() < 1e-9
    np.testing.assert_allclose(solution.stats["free_energy"][stable], table[stable], rtol=1e-12)


@pytest.mark.further
@pytest.mark.parametrize("functional", ["naive", "tap"])
def test_newton_steps_end_where_the_descent_ends(functional):
    """Conjugate gradients take rough ends to the minima that float64 descent takes them to."""
    with jax.enable_x64(True):
        problem = _quench.make_problem(helpers.FUNCTIONALS[functional], _glass(0.1), 2.0)
        fields = _quench.starting_fields(CORNERS[:256])
        rough = MirrorDescent(rtol=0.0, atol=1e-3)
        fields = _quench._descend(problem, fields, jnp.float32, rough, 4096)
        close = jax.vmap(lambda x: _newton.approach(problem, x, 1e-11))(fields)
        descended = _quench._descend(problem, fields, jnp.float64, _quench._FINE, 4096)
        residual = np.abs(jax.vmap(problem.residual)(close)).max(axis=1)
    reached = residual <= 1e-11
    assert reached.mean() > 0.95  # the others are left to the descent
    np.testing.assert_allclose(np.tanh(close)[reached], np.tanh(descended)[reached], atol=1e-7)


def test_newton_steps_never_climb_to_a_saddle():
    """Where the Hessian shows negative curvature nothing moves."""
    with jax.enable_x64(True):
        problem = _quench.make_problem(NAIVE, _curie_weiss(1.0), 3.0)
        fields = jnp.full((2, N), 0.01)
        ends = jax.vmap(lambda x: _newton.approach(problem, x, 1e-11))(fields)
        np.testing.assert_array_equal(ends, fields)


@pytest.mark.further
def test_what_float32_leaves_open_is_proved_in_float64():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    lowest = np.array([-1e-5, -1e-12, 1e-5, 1e-2])
    spectra = np.concatenate([lowest[:, None], np.tile(rng.uniform(0.5, 2, 63), (4, 1))], axis=1)
    with jax.enable_x64(True):
        matrices = jnp.einsum("ik,bk,jk->bij", basis, spectra, basis)
        for dtype, least in ((jnp.float32, 1e-2), (jnp.float64, 1e-5)):
            proved = jax.vmap(lambda x, d=dtype: _newton.is_surely_positive(x, d))(matrices)
            np.testing.assert_array_equal(proved, lowest >= least)


def test_symmetric_starts_are_saddles():
    solution = tg.quench(NAIVE, _curie_weiss(1.0), 3.0, np.zeros((2, N)))
    np.testing.assert_array_equal(solution.result == tg.RESULTS.saddle, True)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (np.ones((3, N + 1)), rf"shape \(batch >= 1, {N}\), got \(3, {N + 1}\)"),
        (np.ones((0, N)), rf"shape \(batch >= 1, {N}\), got \(0, {N}\)"),
        (np.full((3, N), 1.5), r"within \[-1, 1\]"),
        (np.full((3, N), np.nan), r"within \[-1, 1\]"),
    ],
)
def test_bad_starts(starts, message):
    with pytest.raises(ValueError, match=message):
        tg.quench(NAIVE, _glass(), 1.0, starts)


def test_starts_of_another_number_of_spins():
    with pytest.raises(ValueError, match="starts"):
        tg.find_minima(NAIVE, _glass(), 1.0, key=_key(0), starts=np.ones((3, N + 1)))


def test_one_start_without_a_batch_axis(unchecked):
    with pytest.raises(ValueError, match=rf"got \({N},\)"):
        tg.quench(NAIVE, _glass(), 1.0, np.ones(N))


@pytest.mark.parametrize(
    "functional", [tg.TAP, tg.AdaptiveTAP, "TAP"], ids=["function", "class", "name"]
)
def test_what_is_no_functional_is_named(functional, unchecked):
    for call in (
        lambda: tg.solve(functional, _glass(), 1.0, CORNERS[0]),
        lambda: tg.quench(functional, _glass(), 1.0, CORNERS[:2]),
        lambda: tg.find_minima(functional, _glass(), 1.0, key=_key(0)),
    ):
        with pytest.raises(TypeError, match=r"functional must be one such as TAP\(\), got"):
            call()


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="beta must be positive and finite"):
        tg.quench(NAIVE, _glass(), beta, CORNERS[:2])
    with pytest.raises(ValueError, match="beta must be positive and finite"):
        tg.find_minima(NAIVE, _glass(), beta, key=_key(0))


# --- landscapes that are known


def _find(functional, energy, beta, seed=0, **options) -> tg.Library:
    options = {"n_starts": 64, "capacity": 32} | options
    library = tg.find_minima(functional, energy, beta, key=_key(seed), **options)
    _assert_well_formed(library)
    return library


def test_a_field_that_float32_cannot_see_parts_mirror_images():
    library = _find(NAIVE, _curie_weiss(1.0, fields=1e-7), 3.0)
    assert library.size == 2 and np.all(library.multiplicity == 1)


def test_paramagnet_has_one_state():
    library = _find(NAIVE, _curie_weiss(1.0), 0.9 / (1 - 1 / N))
    assert library.size == 1 and library.multiplicity[0] == 1
    np.testing.assert_allclose(library.magnetizations[0], 0, atol=1e-8)
    assert library.hits[0] == 16 * 4  # every quench
    np.testing.assert_allclose(library.free_energies[0] * 0.9 / (1 - 1 / N), -N * np.log(2))
    assert not library.overflow


@pytest.mark.further
@pytest.mark.parametrize("beta", [1.5, 3.0])
def test_ferromagnet_has_one_pair_of_states(beta):
    slope = 1 - 1 / N
    library = _find(NAIVE, _curie_weiss(1.0), beta, starts=np.zeros((4, N)))
    assert library.size == 1 and library.multiplicity[0] == 2
    m = _magnetization(slope, beta)
    np.testing.assert_allclose(np.abs(library.magnetizations[0]), m, atol=1e-8)
    assert np.abs(library.magnetizations[0].sum()) > N * m - 1e-6
    # The four starts at m = 0 are saddles: they are no hits. No random start is one.
    assert library.hits[0] == 16 * 4 and library.given_hits[0] == library.unresolved == 0
    assert library.nearest(np.zeros((1, N))) == [-1]
    # Lowest curvature of 1/(beta (1 - m^2)) - J/n (ones - 1): along the uniform direction.
    np.testing.assert_allclose(library.curvatures[0], 1 / (beta * (1 - m * m)) - slope, rtol=1e-6)


def test_a_field_splits_the_pair():
    slope, field = 1 - 1 / N, 0.05
    library = _find(NAIVE, _curie_weiss(1.0, field), 3.0)
    assert library.size == 2
    np.testing.assert_array_equal(library.multiplicity[:2], 1)
    with_field, against = (_magnetization(slope, 3.0, h) for h in (field, -field))
    np.testing.assert_allclose(library.magnetizations[0], with_field, atol=1e-8)
    np.testing.assert_allclose(library.magnetizations[1], -against, atol=1e-8)
    # No mirror image of either is a state.
    assert list(library.nearest(-_held(library))) == [-1, -1]


def test_hopfield_patterns_are_states():
    energy, patterns = _hopfield()
    library = _find(NAIVE, energy, 4.0)
    # Two orthogonal patterns: the local fields are (1 - 2/n) times the overlap.
    states = _magnetization(1 - 2 / N, 4.0) * patterns
    index = library.nearest(states)
    assert len(set(index)) == 2 and np.all(index >= 0)
    np.testing.assert_array_equal(library.nearest(-states), index)
    np.testing.assert_array_equal(library.multiplicity[index], 2)
    np.testing.assert_allclose(np.diff(library.free_energies[index]), 0, atol=1e-12)

    energy, patterns = _hopfield(fields=0.05)
    library = _find(NAIVE, energy, 4.0)
    along, against = (_magnetization(1 - 2 / N, 4.0, h) for h in (0.05, -0.05))
    index = library.nearest(np.array([along * patterns[0], -against * patterns[0]]))
    assert index[0] == 0 and index[1] > 0  # the one along the field is the lowest of all
    np.testing.assert_array_equal(library.multiplicity, 1)


@pytest.mark.further
@pytest.mark.parametrize("functional", ["naive", "tap"])
@pytest.mark.parametrize("fields", [0.0, 0.1])
def test_library_is_what_all_corners_fall_to(functional, fields):
    energy, beta = _glass(fields, {"naive": 11, "tap": 7}[functional]), 4.0
    functional = helpers.FUNCTIONALS[functional]
    solution = tg.quench(functional, energy, beta, CORNERS)
    converged = np.asarray(solution.result == tg.RESULTS.converged)
    truth, counts = _distinct(solution.value[converged], symmetric=fields == 0)
    assert len(truth) > 1

    library = _find(functional, energy, beta, starts=CORNERS[:16], n_starts=144)
    assert library.size == len(truth)
    assert set(library.nearest(truth)) == set(range(len(truth)))

    # One walker more than the corners: its start is one of them again.
    library = _find(functional, energy, beta, starts=CORNERS, n_starts=1)
    index = library.nearest(truth)
    assert set(index) == set(range(library.size))
    extra = library.hits[index] - counts
    assert np.all(extra >= 0) and extra.sum() <= 1
    if converged.all():
        assert library.hits.sum() == len(CORNERS) + 1
    lowest = solution.stats["free_energy"][converged].min()
    np.testing.assert_allclose(library.free_energies[0], lowest, rtol=1e-12)
    held = _held(library)
    paired = (fields == 0) & (np.abs(held).max(axis=1) > 1e-3)  # m = 0 is its own mirror image
    np.testing.assert_array_equal(library.multiplicity, 1 + paired)
    assert np.any(paired) == (fields == 0)

    assert np.abs(held).max() < 1 - 1e-9
    residual, curvature = _certificate(functional, energy, beta, held)
    assert np.max(residual) < 1e-6  # atanh of a rounded m
    np.testing.assert_allclose(library.curvatures, curvature, rtol=1e-6)


@pytest.mark.further
def test_a_full_library_keeps_the_lowest():
    whole = _find(NAIVE, _glass(0.1), 4.0, starts=CORNERS[:16], n_starts=144)
    assert whole.size > 3 and not whole.overflow
    small = _find(NAIVE, _glass(0.1), 4.0, starts=CORNERS[:16], n_starts=144, capacity=2)
    assert small.size == 2 and small.overflow
    np.testing.assert_allclose(small.magnetizations, whole.magnetizations[:2], atol=1e-8)
    exact = _find(NAIVE, _curie_weiss(1.0), 3.0, capacity=1)
    assert exact.size == 1 and not exact.overflow


@pytest.mark.further
def test_float32_configuration_gives_a_float64_library():
    energy = jax.tree.map(lambda x: x.astype(jnp.float32), _curie_weiss(1.0))
    with jax.enable_x64(False):
        library = _find(NAIVE, energy, 3.0)
        weights = library.weights(3.0)
        index = library.nearest(library.magnetizations[:1])
    assert library.size == 1 and library.multiplicity[0] == 2
    m = _magnetization(float(np.float32(1 / N)) * (N - 1), 3.0)
    np.testing.assert_allclose(np.abs(library.magnetizations[0]), m, atol=1e-8)
    np.testing.assert_allclose(weights[0], 1)
    assert index == [0]


def test_keys_decide():
    runs = [_find(NAIVE, _glass(0.1), 4.0, seed=seed) for seed in (0, 0, 1)]
    for x, y in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        np.testing.assert_array_equal(x, y)
    assert list(runs[0].hits) != list(runs[2].hits)


@pytest.mark.further
def test_callback_sees_the_library_grow():
    seen = []
    options = {"n_starts": 1024, "callback": lambda *x: seen.append(x)}
    library = _find(NAIVE, _glass(0.1), 4.0, **options)
    done = [count for _, count in seen]
    assert len(done) > 2 and np.all(np.diff(done) > 0) and done[-1] == 1024
    totals = [int(partial.hits.sum()) for partial, _ in seen]
    assert np.all(np.diff(totals) > 0) and np.all(np.array(totals) <= done)
    for partial, _ in seen:
        _assert_well_formed(partial)
        # A state once held stays: the capacity was not reached.
        assert np.all(library.nearest(_held(partial)) >= 0)
    for x, y in zip(jax.tree.leaves(seen[-1][0]), jax.tree.leaves(library), strict=True):
        np.testing.assert_array_equal(x, y)

    def interrupt(partial, count):
        seen.append((partial, count))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _find(NAIVE, _glass(0.1), 4.0, callback=interrupt)
    assert 64 <= seen[-1][1] < 576


def test_few_starts_are_one_round():
    seen = []
    library = _find(NAIVE, _glass(0.1), 4.0, n_starts=16, callback=lambda *x: seen.append(x[1]))
    assert seen == [16]
    assert library.hits.sum() <= 16


def test_more_starts_find_more():
    sizes = [_find(NAIVE, _glass(0.1), 4.0, n_starts=count).size for count in (1, 40)]
    assert sizes[0] == 1 and sizes[1] > 2


@pytest.mark.further
def test_nothing_found_is_an_empty_library(monkeypatch):
    """A descent that came to rest on the saddle of a ferromagnet, and is left there."""
    monkeypatch.setattr(_verify, "below_saddles", lambda *_: (np.zeros(0, int), None))
    verification = _verify.Verification(
        _quench.make_problem(NAIVE, _curie_weiss(1.0), 3.0),
        *(True, np.zeros((3, 2), np.uint32), 32, _key(0)),
    )
    library = verification.library(helpers.ends_at(np.zeros((1, N))))
    _assert_well_formed(library)
    assert library.size == 0 and not library.overflow and np.isnan(library.coverage())
    assert library.unresolved == 1
    assert list(library.nearest(np.zeros((1, N)))) == [-1]
    # Moves come after 64 corners, which alone can claim to cover anything.
    options = {"n_starts": 84, "moves": [flip_cluster], "coverage": 1.0}
    library = _find(NAIVE, _curie_weiss(1.0), 3.0, **options)
    assert library.size == 1 and library.hits[0] == 64 and library.given_hits[0] == 0


MOVES = (corner, flip_cluster, crossover)


@pytest.mark.further
@pytest.mark.parametrize("fields", [0.0, 0.1])
def test_searches_find_all_that_corners_fall_to(fields):
    """Models whose minima are enumerated; by default, and by a mix that finds no less."""
    for seed in (11, 12, 13):
        energy = _glass(fields, seed)
        truth = _find(NAIVE, energy, 4.0, starts=CORNERS, n_starts=1)
        assert truth.size > 1
        for options in ({"n_starts": 128}, {"n_starts": 256, "moves": MOVES}):
            library = _find(NAIVE, energy, 4.0, **options)
            assert np.all(library.nearest(_held(truth)) >= 0)
            assert library.hits.sum() <= options["n_starts"]


@pytest.mark.further
def test_starts_are_made_by_the_moves_that_are_given():
    """A move that stays where it is, or takes the other state, finds nothing more."""
    starts = {"starts": CORNERS[:16]}
    for move in (lambda energy, states, key: states[0], lambda energy, states, key: states[1]):
        held = _find(NAIVE, _glass(0.1), 4.0, n_starts=64, moves=[move], **starts)
        library = _find(NAIVE, _glass(0.1), 4.0, n_starts=144, moves=[move], **starts)
        np.testing.assert_array_equal(library.free_energies, held.free_energies)
        assert library.hits.sum() == held.hits.sum() + 80


@pytest.mark.further
def test_mirror_images_are_turned_to_one_side():
    """Two states of an even energy: a move that shows how they overlap."""
    seen = []

    def overlap(energy, states, key):
        jax.debug.callback(lambda q: seen.append(float(q)), jnp.dot(states[0], states[1]))
        return states[0]

    for fields in (0.0, 0.1):
        seen.clear()
        _find(NAIVE, _glass(fields), 4.0, n_starts=96, moves=[overlap])
        jax.effects_barrier()
        assert len(seen) > 32 and (min(seen) >= 0) == (fields == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_starts": 0}, "n_starts must be at least 1, got 0"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"moves": ()}, "the number of moves must be at least 1, got 0"),
    ],
)
def test_bad_counts(options, message):
    with pytest.raises(ValueError, match=message):
        tg.find_minima(NAIVE, _glass(), 1.0, key=_key(0), **options)


# --- the library itself


def _library(**changes) -> tg.Library:
    """Three of five entries in use: a pair of states, then two single ones."""
    m = np.zeros((5, 3))
    m[:3] = [[0.9, 0.9, 0.9], [0.9, -0.9, 0.1], [0.2, 0.3, 0.4]]
    values = {
        "magnetizations": m,
        "free_energies": np.array([-3.0, -2.0, -1.0, np.inf, np.inf]),
        "residuals": np.zeros(5),
        "curvatures": np.ones(5),
        "hits": np.array([7, 1, 2, 0, 0]),
        "multiplicity": np.array([2, 1, 1, 1, 1]),
        "mask": np.arange(5) < 3,
    }
    return tg.Library(**(values | changes))


def test_weights_count_mirror_images():
    library = _library()
    for beta in (0.5, 2.0):
        boltzmann = np.array([2, 1, 1, 0, 0]) * np.exp(-beta * np.array([-3, -2, -1, 0, 0]))
        np.testing.assert_allclose(library.weights(beta), boltzmann / boltzmann.sum(), rtol=1e-12)
    np.testing.assert_allclose(library.weights(1e4).sum(), 1)  # no overflow


def test_coverage_is_that_of_good_and_turing():
    assert _library().coverage() == 1 - 1 / 10
    assert _library(hits=np.array([7, 2, 2, 0, 0])).coverage() == 1
    assert _library(hits=np.array([1, 1, 1, 0, 0])).coverage() == 0
    assert np.isnan(_library()[[]].coverage())


def test_nearest():
    library = _library()
    m = library.magnetizations[:3]
    np.testing.assert_array_equal(library.nearest(m), [0, 1, 2])
    np.testing.assert_array_equal(library.nearest(-m), [0, -1, -1])
    np.testing.assert_array_equal(library.nearest(m + 9e-5), [0, 1, 2])
    np.testing.assert_array_equal(library.nearest(m + 2e-4), [-1, -1, -1])
    # Unused entries hold zeros, and are no state.
    np.testing.assert_array_equal(library.nearest(np.zeros((1, 3))), [-1])


# --- moves


_kick = jax.jit(jax.vmap(flip_cluster, in_axes=(None, None, 0)))


def _kicks(energy: tg.AbstractMultilinear, m, n_kicks: int, seed: int = 0) -> np.ndarray:
    """Which spins each of many kicks flips, (n_kicks, n)."""
    states = jnp.stack([m, jnp.zeros_like(m)])
    kicked = _kick(energy, states, jax.random.split(_key(seed), n_kicks))
    np.testing.assert_array_equal(np.abs(kicked), np.broadcast_to(np.abs(m), kicked.shape))
    return np.asarray(kicked) != np.asarray(m)


@pytest.mark.further
@pytest.mark.parametrize("n", [8, 9])
def test_kicks_flip_from_one_spin_to_half_of_them(n):
    flipped = _kicks(helpers.random_pairwise(n, _key(0)), jnp.full(n, 0.7), 4000)
    sizes = flipped.sum(axis=1)
    most = n // 2
    assert sizes.min() >= 1 and sizes.max() <= most
    counts = np.bincount(sizes, minlength=most + 1)[1:]
    # Log-uniform: every size occurs, small ones more often than large ones (5 sigma).
    assert np.all(counts > 0)
    assert np.all(np.diff(counts) < 5 * np.sqrt(4000))
    assert counts[0] > counts[-1]


def test_kicks_flip_spins_that_couple():
    """Two separate blocks: a cluster no larger than a block stays within it."""
    block = np.kron(np.eye(2), np.ones((4, 4))) * (1 - np.eye(8))
    flipped = _kicks(tg.Pairwise(block, np.zeros(8)), jnp.full(8, 0.7), 4000)
    assert not np.any(flipped[:, :4].any(axis=1) & flipped[:, 4:].any(axis=1))
    assert np.all(flipped.any(axis=0))


def test_kicks_of_uncoupled_spins_are_fair():
    flipped = _kicks(tg.Pairwise(np.zeros((8, 8)), np.zeros(8)), jnp.full(8, 0.7), 4000)
    rates = flipped.mean(axis=0)
    mean = rates.mean()
    assert np.all(np.abs(rates - mean) < 5 * np.sqrt(mean * (1 - mean) / 4000))


@pytest.mark.parametrize(("move", "values"), [(corner, (-1, 1)), (crossover, (0.3, 0.8))])
def test_spins_are_drawn_one_by_one(move, values):
    """Corners of the cube; every spin from one of two states (5 sigma)."""
    states = jnp.stack([jnp.full(N, 0.3), jnp.full(N, 0.8)])
    keys = jax.random.split(_key(0), 1000)
    starts = np.asarray(jax.vmap(lambda key: move(_glass(), states, key))(keys))
    np.testing.assert_array_equal(np.unique(starts), values)
    high = starts == values[1]
    assert np.all(np.abs(high.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(1000))
    pairs = np.cov(high.T)[np.triu_indices(N, 1)]
    assert np.all(np.abs(pairs) < 5 * 0.25 / np.sqrt(1000))


# --- convergence on real data


@pytest.mark.slow
def test_digits_convergence():
    """TAP on the digits: quenches converge from everywhere, the damped iteration from nowhere."""
    data = tg.datasets.digits().spins
    n = data.shape[1]
    start = tg.Pairwise(np.zeros((n, n)), np.zeros(n))
    fitted = tg.fit(tg.Pseudolikelihood(1e-3), start, data, key=_key(0))
    assert fitted.result == tg.RESULTS.converged
    corners = np.random.default_rng(0).choice([-1, 1], (1000, n))
    starts = np.concatenate([data, corners]).astype(float)

    solution = tg.quench(TAP, fitted.energy, 1.0, starts)
    converged = np.asarray(solution.result == tg.RESULTS.converged)
    converged = converged & (solution.stats["residual"] < 1e-8)
    assert converged.mean() >= 0.999

    @jax.jit
    def damped(m):
        def target(m):
            return jnp.tanh(-jax.grad(TAP.excess, argnums=2)(fitted.energy, 1.0, m))

        m = jax.lax.fori_loop(0, 300, lambda _, m: 0.5 * (m + target(m)), m)
        # Kinder than the residual of dG/dm: what one more undamped step would change.
        return jnp.max(jnp.abs(target(m) - m))

    assert np.min(jax.vmap(damped)(jnp.asarray(starts))) > 1e-8
