"""Living with a library: choosing, sorting, uniting, measuring, writing and drawing states."""

import dataclasses

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import storage
from thermogen.plots import states_figure
from thermogen.search import MERGE_TOLERANCE, PER_STATE, Kind
from thermogen.search._merge import Pool
from thermogen.search._same import first_equals

N = 8
NAIVE, TAP = helpers.FUNCTIONALS["naive"], helpers.FUNCTIONALS["tap"]


def _library(**changes) -> tg.Library:
    """Three of five entries in use: a pair of states, then two single ones."""
    m = np.zeros((5, 3))
    m[:3] = [[0.9, 0.9, 0.9], [0.9, -0.9, 0.1], [0.2, 0.3, 0.4]]
    values = {
        "magnetizations": m,
        "free_energies": np.array([-3.0, -2.0, -1.0, np.inf, np.inf]),
        "residuals": np.array([1e-12, 2e-12, 3e-12, np.inf, np.inf]),
        "curvatures": np.array([0.3, 0.1, 0.2, 0.0, 0.0]),
        "hits": np.array([7, 1, 2, 0, 0]),
        "multiplicity": np.array([2, 1, 1, 1, 1]),
        "mask": np.arange(5) < 3,
    }
    return tg.Library(**(values | changes))


def _empty(capacity: int, n_spins: int) -> tg.Library:
    """What a search holds that found nothing."""
    return Pool(capacity, False, lambda fields: np.ones(len(fields))).library(n_spins)


def _assert_equal(a: tg.Library, b: tg.Library) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# --- choosing


@pytest.mark.parametrize(
    ("index", "states"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (jnp.array(1), [1]),
        (slice(None), [0, 1, 2]),
        (..., [0, 1, 2]),
        (slice(1, 10), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([1, 1]), [1, 1]),
        (jnp.array([2]), [2]),
        ([True, False, True], [0, 2]),
        (np.array([True, False, True]), [0, 2]),
        (np.array([False, True, False, True, True]), [1]),
        (jnp.zeros(5, bool), []),
    ],
)
def test_indices_choose_states(index, states):
    library = _library()
    chosen = library[index]
    assert len(chosen) == chosen.size == len(states)
    for field in dataclasses.fields(library):
        values = getattr(chosen, field.name)
        assert isinstance(values, np.ndarray)
        if field.name in PER_STATE:  # and no unused entry is left
            np.testing.assert_array_equal(values, getattr(library, field.name)[:3][states])


def test_comparisons_of_whole_arrays_choose():
    """Unused entries fulfil `hits < 5`, and are no states all the same."""
    library = _library()
    np.testing.assert_array_equal(library[library.hits < 5].hits, [1, 2])
    np.testing.assert_array_equal(library[library.free_energies <= -2].hits, [7, 1])
    assert library[library.hits > 99].size == 0


def test_overflow_is_remembered():
    assert _library(overflow=np.array(True))[:1].overflow
    assert not _library()[:1].overflow


@pytest.mark.parametrize("index", [3, -4, [0, 3], np.array(5)])
def test_indices_beyond_the_last_state(index):
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 3"):
        _library()[index]


def test_masks_of_another_length():
    with pytest.raises(IndexError, match=r"shape \(3,\), .* or \(5,\), .* got \(4,\)"):
        _library()[np.ones(4, bool)]


def test_batches_are_not_indexed():
    batch = jax.tree.map(lambda x: np.stack([x, x]), _library())
    with pytest.raises(IndexError, match="a batch of libraries"):
        batch[0]


def test_iteration_visits_every_state():
    library = _library()
    assert [state.size for state in library] == [1, 1, 1]
    assert [int(state.hits[0]) for state in library] == [7, 1, 2]
    assert list(_empty(2, 3)) == []


def test_sorting():
    library = _library()
    np.testing.assert_array_equal(library.sort_by("curvatures").hits, [1, 2, 7])
    np.testing.assert_array_equal(library.sort_by("hits", descending=True).hits, [7, 2, 1])
    # Equal values keep their order, whichever way.
    tied = _library(hits=np.array([4, 9, 4, 0, 0]))
    np.testing.assert_array_equal(tied.sort_by("hits").free_energies, [-3, -1, -2])
    np.testing.assert_array_equal(tied.sort_by("hits", descending=True).free_energies, [-2, -3, -1])
    _assert_equal(library.sort_by("hits").sort_by("free_energies"), library[:])
    # The weights do not care about the order.
    np.testing.assert_allclose(
        library.sort_by("hits").weights(2.0), library[:].weights(2.0)[np.array([1, 2, 0])]
    )
    with pytest.raises(ValueError, match="name is 'mask'; expected one of free_energies, "):
        library.sort_by("mask")


# --- what it says of itself


def test_the_export_holds_the_states_alone():
    exported = _library().to_dict()
    assert list(exported) == [
        "magnetizations",
        "free_energies",
        "residuals",
        "curvatures",
        "hits",
        "multiplicity",
        "fields",
        "kind",
    ]
    assert exported["magnetizations"].shape == (3, 3)
    assert all(len(values) == 3 for values in exported.values())
    np.testing.assert_array_equal(exported["hits"], [7, 1, 2])


def test_it_names_itself():
    assert repr(_library()) == (
        "Library(3 states of 3 spins, G from -3 to -1, 10 hits, coverage 0.9)"
    )
    assert repr(_library(overflow=np.array(True))[:1]) == (
        "Library(1 state of 3 spins, G from -3 to -3, 7 hits, coverage nan, overflow)"
    )
    assert repr(_empty(2, 3)) == "Library(0 states of 3 spins)"
    batch = jax.tree.map(lambda x: np.stack([x, x]), _library())
    assert "f64[2,5,3]" in repr(batch)
    seen = []
    jax.jit(lambda library: seen.append(repr(library)))(_library())
    assert "f64[5,3]" in seen[0]


def test_weights_of_an__empty():
    assert _library()[[]].weights(1.0).shape == (0,)
    np.testing.assert_array_equal(_library().weights(0.0), [0.5, 0.25, 0.25, 0, 0])


@pytest.mark.parametrize("index", [slice(None), [2, 0], []])
def test_chosen_states_are_written_and_read(tmp_path, index):
    library = _library()[index].union(_library(overflow=np.array(True))[1:])
    storage.save_library(tmp_path / "library.npz", library)
    _assert_equal(storage.load_library(tmp_path / "library.npz"), library)
    storage.save_library(tmp_path / "library.npz", _library()[index])
    _assert_equal(storage.load_library(tmp_path / "library.npz"), _library()[index])


def test_chosen_states_are_drawn():
    chosen = _library(magnetizations=np.ones((5, 4)))[1:]
    figure = states_figure(
        chosen.magnetizations,
        chosen.free_energies,
        np.asarray(chosen.weights(1.0)),
        chosen.hits,
        chosen.curvatures,
        (2, 2),
    )
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert len([label for label in labels if label.startswith("F = ")]) == 2


# --- union


def test_the_first_of_their_kind():
    colors = np.array([3, 1, 3, 2, 1, 1])
    found = first_equals(6, lambda k, others: colors[others] == colors[k])
    np.testing.assert_array_equal(found, [0, 1, 0, 3, 1, 1])
    assert first_equals(0, lambda k, others: others).shape == (0,)


def test_parts_make_the_whole():
    whole = _library()[:]
    _assert_equal(whole[[2]].union(whole[[0]], whole[[1]]), whole)
    _assert_equal(_library().union(), whole)
    _assert_equal(whole[[]].union(whole), whole)


def test_hits_of_the_same_state_add_up():
    library = _library()
    shifted = _library(magnetizations=library.magnetizations + 0.3 * MERGE_TOLERANCE)
    both = library.union(shifted)
    np.testing.assert_array_equal(both.hits, [14, 2, 4])
    # All else is as the first library says.
    np.testing.assert_array_equal(both.magnetizations, library[:].magnetizations)
    np.testing.assert_array_equal(both.multiplicity, [2, 1, 1])
    assert both.coverage() == 1

    apart = library.union(_library(magnetizations=library.magnetizations + 2 * MERGE_TOLERANCE))
    assert apart.size == 6 and np.all(np.diff(apart.free_energies) >= 0)


def test_mirror_images_are_united_where_they_count():
    library = _library()
    both = library.union(_library(magnetizations=-library.magnetizations))
    # The pair is one entry; the other two states have no image among the states.
    np.testing.assert_array_equal(both.hits, [14, 1, 1, 2, 2])
    np.testing.assert_array_equal(both.multiplicity, [2, 1, 1, 1, 1])


def test_other_functionals_keep_their_free_energies():
    other = _library(
        magnetizations=_library().magnetizations[[0, 3, 2, 4, 4]],
        free_energies=np.array([-9.0, -8.0, -7.0, np.inf, np.inf]),
    )
    both = _library().union(other)
    np.testing.assert_array_equal(both.free_energies, [-8, -3, -2, -1])
    np.testing.assert_array_equal(both.hits, [1, 14, 1, 4])


def test_union_remembers_overflow():
    assert _library().union(_library(overflow=np.array(True))).overflow
    assert not _library().union(_library()).overflow


def test_union_of_other_sizes():
    with pytest.raises(ValueError, match=r"same number of spins, got \[3, 4\]"):
        _library().union(_empty(2, 4))


def test_two_searches_are_one_longer_search():
    """The union of two runs holds what either found, and all of their hits."""
    energy = helpers.random_pairwise(N, jax.random.key(11), fields=0.1)
    options = {"n_starts": 32, "capacity": 32}
    runs = [
        tg.find_minima(NAIVE, energy, 4.0, key=jax.random.key(seed), **options) for seed in (0, 1)
    ]
    both = runs[0].union(runs[1])
    assert both.hits.sum() == runs[0].hits.sum() + runs[1].hits.sum()
    for run in runs:
        assert both.size >= run.size > 1
        assert sorted(both.nearest(run[:].magnetizations)) == sorted(
            set(both.nearest(run[:].magnetizations))
        )
        assert np.all(both.nearest(run[:].magnetizations) >= 0)
    assert both.size == len(set(both.nearest(np.concatenate([r[:].magnetizations for r in runs]))))


# --- the pool that a search fills


def _minima(*rows: tuple[float, float]) -> tg.Solution:
    """(m, G) each, m the same for all of three spins."""
    m, g = (np.array(column) for column in zip(*rows, strict=True))
    m = np.repeat(m[:, None], 3, axis=1)
    stats = {"residual": np.full(len(m), 1e-12), "free_energy": g}
    converged = jax.tree.map(lambda x: np.repeat(x, len(m)), tg.RESULTS.converged)
    return tg.Solution(m, converged, {"fields": np.arctanh(m)}, stats)


def _pool(capacity: int, symmetric: bool = False) -> Pool:
    """The curvature of a state is its first field, so that it tells where it belongs."""
    return Pool(capacity, symmetric, lambda fields: fields[:, 0])


FIRST = _minima((0.5, -1.0), (0.1, -3.0), (0.5 + 1e-7, -1.0), (0.5, -1.0))
SECOND = _minima((0.9, -2.0), (0.1 - 1e-7, -3.0), (0.9, -2.0), (0.3, 5.0))


def test_an_empty_pool_is_an_empty_library():
    library = _empty(2, 3)
    assert library.size == 0 and not library.overflow
    assert library.magnetizations.shape == library.fields.shape == (0, 3)


def test_a_pool_counts_what_it_holds():
    pool = _pool(5)
    np.testing.assert_array_equal(pool.add(FIRST), [1, 0])  # in the order of their projections
    np.testing.assert_array_equal(pool.add(SECOND), [3, 0])
    assert pool.add(SECOND).size == 0
    library = pool.library(3)
    np.testing.assert_array_equal(library.free_energies, [-3, -2, -1, 5])
    np.testing.assert_array_equal(library.hits, [3, 4, 3, 2])
    np.testing.assert_allclose(library.magnetizations[:4, 0], [0.1, 0.9, 0.5, 0.3])
    np.testing.assert_allclose(library.curvatures[:4], np.arctanh(library.magnetizations[:4, 0]))
    np.testing.assert_array_equal(library.multiplicity, 1)
    np.testing.assert_array_equal(library.mask, [True, True, True, True])
    assert not library.overflow


def test_a_full_pool_drops_the_highest():
    pool = _pool(2)
    pool.add(FIRST)
    assert not pool.library(3).overflow
    pool.add(SECOND)
    library = pool.library(3)
    assert library.size == 2 and library.overflow
    np.testing.assert_array_equal(library.free_energies, [-3, -2])
    np.testing.assert_array_equal(library.hits, [2, 2])
    np.testing.assert_allclose(library.curvatures, np.arctanh([0.1, 0.9]))
    # What is left is found again, and so is what was dropped.
    assert len(pool.add(SECOND)) == 1
    np.testing.assert_array_equal(pool.library(3).hits, [3, 4])


def test_a_pool_merges_mirror_images_where_they_count():
    rows = _minima((0.5, -1.0), (-0.5, -1.0), (0.1, -3.0), (-0.1, -3.0), (0.0, 2.0))
    pool = _pool(5, symmetric=True)
    assert len(pool.add(rows)) == 3
    library = pool.library(3)
    np.testing.assert_array_equal(library.hits, [2, 2, 1])
    np.testing.assert_array_equal(library.multiplicity, [2, 2, 1])
    assert len(_pool(5).add(rows)) == 5


# --- mirror images


def test_expanded_shows_every_image():
    library = _library()
    images = library.expanded()
    assert images.magnetizations.shape == (4, 3) and images.size == 4 and np.all(images.mask)
    m = library.magnetizations
    np.testing.assert_array_equal(images[:].magnetizations, [m[0], -m[0], m[1], m[2]])
    np.testing.assert_array_equal(images.multiplicity, 1)
    np.testing.assert_array_equal(images.free_energies, [-3, -3, -2, -1])
    np.testing.assert_array_equal(images.hits, [7, 7, 1, 2])
    weights = library.weights(1.5)
    np.testing.assert_allclose(
        images.weights(1.5)[:4], [weights[0] / 2, weights[0] / 2, weights[1], weights[2]]
    )
    # Twice is no more than once.
    _assert_equal(images.expanded()[:], images[:])


def test_expanded_jits_and_vmaps():
    libraries = [_library(), _library(multiplicity=np.array([1, 2, 2, 1, 1]))]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *libraries)
    together = jax.jit(jax.vmap(lambda library: library.expanded()))(batch)
    for i, library in enumerate(libraries):
        images = jax.tree.map(lambda x, i=i: x[i], together)
        assert images.mask.shape == (10,)
        _assert_equal(images[:], library.expanded())


# --- points from elsewhere


def _even(energy: tg.Pairwise) -> tg.Pairwise:
    return tg.Pairwise(energy.couplings, jnp.zeros(N))


@pytest.mark.further
@pytest.mark.parametrize("functional", ["naive", "tap"])
def test_points_are_measured_as_they_stand(functional):
    functional = helpers.FUNCTIONALS[functional]
    energy, beta = helpers.random_pairwise(N, jax.random.key(3), fields=0.2), 0.4
    m = np.random.default_rng(0).uniform(-0.9, 0.9, (5, N))
    library = tg.Library.from_magnetizations(functional, energy, beta, m)
    assert library.size == 5 and np.all(np.diff(library.free_energies) >= 0)
    np.testing.assert_array_equal(library.multiplicity, 1)
    for state in library:
        row = state.magnetizations[0]
        gradient = jax.grad(functional, argnums=2)(energy, beta, row)
        hessian = jax.hessian(functional, argnums=2)(energy, beta, row)
        np.testing.assert_allclose(state.free_energies[0], functional(energy, beta, row))
        np.testing.assert_allclose(state.residuals[0], np.abs(gradient).max(), rtol=1e-10)
        # The weak couplings leave G convex.
        np.testing.assert_allclose(state.curvatures[0], np.linalg.eigvalsh(hessian)[0], rtol=1e-9)


def test_minima_are_recognised_and_merged():
    energy = _even(helpers.random_pairwise(N, jax.random.key(11)))
    found = tg.find_minima(NAIVE, energy, 2.0, key=jax.random.key(0), n_starts=32)
    states = found[:].magnetizations
    points = np.concatenate([states, -states, np.zeros((1, N)), states[:1]])
    library = tg.Library.from_magnetizations(NAIVE, energy, 2.0, points)
    saddle = int(library.nearest(np.zeros((1, N)))[0])
    minima = library[(library.residuals < 1e-6) & (library.curvatures > 0)]
    assert library.size == found.size + 1 and minima.size == found.size
    # m = 0 is stationary, unstable, and its own image.
    assert library.residuals[saddle] == 0 and library.curvatures[saddle] == -np.inf
    assert library.multiplicity[saddle] == 1 and library.hits[saddle] == 1
    np.testing.assert_array_equal(minima.multiplicity, 2)
    np.testing.assert_array_equal(np.sort(minima.hits)[::-1], [3, *[2] * (found.size - 1)])
    np.testing.assert_allclose(minima.free_energies, found[:].free_energies, rtol=1e-12)
    np.testing.assert_allclose(minima.curvatures, found[:].curvatures, rtol=1e-5)


def test_corners_are_configurations():
    """At |m| = 1 there is no entropy: G is E; nothing is NaN."""
    energy = helpers.random_pairwise(N, jax.random.key(3))
    corners = helpers.configurations(N)
    library = tg.Library.from_magnetizations(NAIVE, energy, 1.0, corners)
    assert library.size == 2**N
    np.testing.assert_allclose(library.free_energies, np.sort(helpers.energy_table(energy)))
    np.testing.assert_array_equal(library.residuals, np.inf)
    np.testing.assert_array_equal(library.curvatures, np.inf)


def test_float32_configurations_measure_in_float64():
    energy = jax.tree.map(
        lambda x: x.astype(jnp.float32), helpers.random_pairwise(N, jax.random.key(3))
    )
    m = np.full((1, N), 0.3)
    with jax.enable_x64(False):
        library = tg.Library.from_magnetizations(NAIVE, energy, 1.0, m)
    assert library.free_energies.dtype == np.float64
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), energy)
    np.testing.assert_allclose(library.free_energies[0], NAIVE(wide, 1.0, m[0]), rtol=1e-14)


@pytest.mark.parametrize(
    ("m", "message"),
    [
        (np.zeros((2, N + 1)), rf"shape \(rows >= 1, {N}\), got \(2, {N + 1}\)"),
        (np.zeros((0, N)), rf"shape \(rows >= 1, {N}\), got \(0, {N}\)"),
        (np.full((1, N), 1.1), r"magnetizations must lie within \[-1, 1\]"),
        (np.full((1, N), np.nan), r"magnetizations must lie within \[-1, 1\]"),
    ],
)
def test_bad_points(m, message):
    energy = helpers.random_pairwise(N, jax.random.key(3))
    with pytest.raises(ValueError, match=message):
        tg.Library.from_magnetizations(NAIVE, energy, 1.0, m)


def test_bad_beta_for_points():
    energy = helpers.random_pairwise(N, jax.random.key(3))
    with pytest.raises(ValueError, match="beta must be positive and finite, got 0"):
        tg.Library.from_magnetizations(NAIVE, energy, 0.0, np.zeros((1, N)))


def test_nearest_names_a_wrong_shape(unchecked):
    energy = helpers.random_pairwise(N, jax.random.key(3))
    library = tg.Library.from_magnetizations(NAIVE, energy, 1.0, np.zeros((1, N)))
    for rows in (np.zeros(N), np.zeros((2, N + 1))):
        with pytest.raises(ValueError, match=rf"magnetizations must have shape \(batch, {N}\)"):
            library.nearest(rows)


# --- of solutions


@pytest.mark.further
def test_a_library_of_quenches():
    """As the search has it: each minimum once, and what failed is counted and left out."""
    energy = _even(helpers.random_pairwise(N, jax.random.key(11)))
    corners = np.concatenate([helpers.configurations(N)[:32], np.zeros((1, N))])
    ends = tg.quench(NAIVE, energy, 2.0, corners)
    library = tg.Library.from_solution(NAIVE, energy, 2.0, ends)
    good = np.asarray(ends.result == tg.RESULTS.converged)
    assert library.hits.sum() == good.sum() and library.unresolved == np.sum(~good) > 0
    assert np.all(library.nearest(ends.value[good]) >= 0)
    np.testing.assert_array_equal(library.kind, Kind.MINIMUM)
    problem = tg.meanfield.Problem(NAIVE, energy, 2.0)
    for state in library:
        gradient = problem.gradient_at(jnp.asarray(state.fields[0]))
        assert np.abs(gradient).max() < 1e-8
    found = tg.find_minima(NAIVE, energy, 2.0, key=jax.random.key(0), n_starts=32)
    assert not found.union(library).overflow and np.any(library.fingerprint)
    with pytest.raises(ValueError, match="must hold many starts of"):
        tg.Library.from_solution(NAIVE, energy, 2.0, tg.solve(NAIVE, energy, 2.0, corners[0]))


def test_solves_that_were_mapped_make_a_library():
    energy = helpers.random_pairwise(N, jax.random.key(3), fields=0.2)
    corners = helpers.configurations(N)[:8]
    ends = jax.vmap(lambda s: tg.solve(NAIVE, energy, 2.0, s, throw=False))(corners)
    library = tg.Library.from_solution(NAIVE, energy, 2.0, ends)
    quenched = tg.Library.from_solution(NAIVE, energy, 2.0, tg.quench(NAIVE, energy, 2.0, corners))
    np.testing.assert_allclose(library.free_energies, quenched.free_energies, rtol=1e-9)
    np.testing.assert_allclose(library.curvatures, quenched.curvatures, rtol=1e-5)
