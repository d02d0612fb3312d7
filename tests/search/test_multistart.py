"""Minima of any potential: polynomials and symmetries whose minima are known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

import thermogen as tg
from thermogen.search import multistart

# One number of proposals and one shape of parameters for most tests.
STARTS = 32


def _normal(*shape: int, scale: float = 1.5, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=shape)


def _codes(minima, name: str) -> int:
    return int(np.sum(np.asarray(minima.result == getattr(tg.RESULTS, name))))


def _certified(potential, minima, n_flat: int = 0) -> None:
    """Gradient and Hessian of all minima by plain autodiff."""
    unravel = jax.flatten_util.ravel_pytree(minima[0])[1]
    rows = jax.vmap(lambda p: jax.flatten_util.ravel_pytree(p)[0])(minima.parameters)

    @jax.jit
    @jax.vmap
    def derivatives(row):
        def flat(x):
            return potential(unravel(x))

        return flat(row), jax.grad(flat)(row), jnp.linalg.eigvalsh(jax.hessian(flat)(row))

    values, gradients, curvatures = derivatives(rows)
    # Squares of rounding errors where the least value is 0.
    np.testing.assert_allclose(minima.potentials, values, rtol=1e-12, atol=1e-30)
    assert np.abs(gradients).max() <= 1e-8 and minima.residuals.max() <= 1e-8
    np.testing.assert_allclose(curvatures[:, :n_flat], 0, atol=1e-9)
    np.testing.assert_allclose(minima.curvatures, curvatures[:, n_flat], rtol=1e-8)
    assert minima.curvatures.min() > 0


# --- landscapes that are known


@pytest.mark.further
def test_a_quadratic_has_one_minimum():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(3, 3))
    matrix, centre = half @ half.T + np.eye(3), rng.normal(size=3)

    def potential(x):
        return 0.5 * jnp.dot(x - centre, jnp.asarray(matrix) @ (x - centre)) - 7.0

    minima = multistart(potential, _normal(STARTS, 3))
    assert len(minima) == 1 and minima.hits[0] == STARTS and minima.coverage() == 1
    np.testing.assert_allclose(minima[0], centre, atol=1e-9)
    np.testing.assert_allclose(minima.potentials, -7)
    np.testing.assert_allclose(minima.curvatures, np.linalg.eigvalsh(matrix)[0])
    np.testing.assert_array_equal(minima.assignment, 0)
    assert _codes(minima, "converged") == STARTS


def _wells(p):
    """Two tilted double wells and a square: four minima, of which two are images by exchange."""
    return jnp.sum((p["x"] ** 2 - 1) ** 2 + 0.1 * p["x"]) + jnp.square(p["y"])


def _proposals() -> dict:
    return {"x": _normal(STARTS, 2), "y": _normal(STARTS, seed=1)}


def test_double_wells():
    minima = multistart(_wells, _proposals())
    # x^3 - x + 1/40 = 0 has three roots; the middle one is a maximum.
    low, _, high = np.sort(np.roots([4, 0, -4, 0.1]).real)
    assert len(minima) == 4
    assert minima.parameters["x"].dtype == minima.parameters["y"].dtype == np.float64
    found = {tuple(x) for x in np.round(minima.parameters["x"], 8)}
    assert found == set(itertools.product(*[np.round([low, high], 8)] * 2))
    np.testing.assert_allclose(minima.parameters["y"], 0, atol=1e-9)
    assert np.all(np.diff(minima.potentials) >= 0)
    np.testing.assert_allclose(minima[0]["x"], [low, low])
    np.testing.assert_allclose(minima[-1]["x"], [high, high])
    _certified(_wells, minima)
    assert np.all(minima.residuals <= 1e-8)
    # Who fell where: each proposal to a minimum, and hits count them.
    np.testing.assert_array_equal(np.bincount(minima.assignment, minlength=4), minima.hits)
    assert minima.hits.sum() == STARTS and np.all(minima.hits > 0)
    known = tg.search.completeness(minima)
    assert known.coverage == minima.coverage() and known.n_states >= 4
    curve = tg.search.discovery_curve(minima, np.array([1, STARTS]))
    np.testing.assert_allclose(curve, [1, 4])


@pytest.mark.parametrize(
    "invariants",
    [
        lambda p: jnp.sort(p["x"]),  # a canonical member
        lambda p: (jnp.sum(p["x"]), {"product": jnp.prod(p["x"])}),  # what exchange leaves as it is
    ],
)
def test_permutations_merge(invariants):
    plain = multistart(_wells, _proposals())
    minima = multistart(_wells, _proposals(), invariants=invariants)
    assert len(minima) == 3
    np.testing.assert_allclose(minima.potentials, plain.potentials[[0, 1, 3]])
    np.testing.assert_array_equal(
        minima.hits, [plain.hits[0], plain.hits[1] + plain.hits[2], plain.hits[3]]
    )


@pytest.mark.further
def test_a_polynomial_of_six_minima():
    """The six-hump camel function (Dixon and Szego 1978), against scipy from a fine grid."""

    def camel(x):
        a, b = x
        return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (4 * b**2 - 4) * b**2

    side = np.linspace(-1, 1, 16)
    grid = np.stack(np.meshgrid(2 * side, side), axis=-1).reshape(-1, 2)
    minima = multistart(camel, grid)
    assert len(minima) == 6
    truth = [minimize(lambda x: float(camel(x)), x, tol=1e-12).x for x in minima.parameters + 0.01]
    np.testing.assert_allclose(minima.parameters, truth, atol=1e-5)
    np.testing.assert_allclose(minima.potentials[:2], -1.031628453489877, rtol=1e-12)
    _certified(camel, minima)
    assert len(multistart(camel, grid, invariants=lambda x: x * x[0])) == 3  # x -> -x


@pytest.mark.further
def test_saddles_are_told_and_do_not_enter():
    starts = {"x": np.zeros((STARTS, 2)), "y": np.ones(STARTS)}

    def even(p):
        return jnp.sum((p["x"] ** 2 - 1) ** 2) + jnp.square(p["y"])

    minima = multistart(even, starts)
    assert len(minima) == 0 and np.isnan(minima.coverage())
    assert minima.parameters["x"].shape == (0, 2)
    assert _codes(minima, "saddle") == STARTS
    np.testing.assert_array_equal(minima.assignment, -1)
    with pytest.raises(IndexError, match="there are 0 minima, got index 0"):
        minima[0]


@pytest.mark.further
def test_flat_directions_must_be_declared():
    def ring(x):
        return jnp.square(jnp.dot(x, x) - 1)

    starts = _normal(STARTS, 3, seed=2)
    undeclared = multistart(ring, starts)
    assert len(undeclared) == 0 and _codes(undeclared, "saddle") == STARTS
    minima = multistart(ring, starts, n_flat=2, invariants=lambda x: jnp.dot(x, x))
    assert len(minima) == 1 and minima.hits[0] == STARTS
    np.testing.assert_allclose(minima.curvatures, 8)
    _certified(ring, minima, n_flat=2)
    # One of the two is not enough; and without invariants no two points of the sphere are equal.
    assert len(multistart(ring, starts, n_flat=1)) == 0
    assert len(multistart(ring, starts, n_flat=2)) == STARTS


def _logarithmic(x):
    return jnp.sum(jnp.log(x) ** 2)


@pytest.mark.further
def test_failures_have_codes():
    quartic = multistart(lambda x: jnp.sum(x**4), _normal(STARTS, 1))
    assert len(quartic) == 0  # flat to second order: not located, not certified
    assert _codes(quartic, "stalled") + _codes(quartic, "saddle") == STARTS
    # Where half of the proposals lie outside the domain, the others are found all the same.
    starts = np.abs(_normal(STARTS, 1)) + 0.1
    starts[::2] *= -1
    minima = multistart(_logarithmic, starts)
    np.testing.assert_array_equal(minima.assignment[::2], -1)
    assert _codes(minima, "non_finite") >= STARTS // 2
    assert len(minima) == 1 and minima.hits[0] >= STARTS // 4
    np.testing.assert_allclose(minima[0], 1, atol=1e-8)


@pytest.mark.slow
def test_what_has_no_minimum_has_none():
    runaway = multistart(lambda x: jnp.sum(jnp.exp(-x)), _normal(STARTS, 1))
    assert len(runaway) == 0 and _codes(runaway, "converged") == 0
    downhill = multistart(lambda x: jnp.sum(-(x**2)), _normal(STARTS, 1))
    assert len(downhill) == 0 and _codes(downhill, "converged") == 0


@pytest.mark.further
def test_hidden_units_merge():
    """A machine of two hidden units: 2! 2^2 images of each minimum are one minimum."""
    visible = tg.enumerate_spins(4)
    rows = tg.index_from_spins(tg.datasets.adder(1))

    def free_energies(energy):
        energies = jax.vmap(lambda v: tg.energies.visible_free_energy(energy, 1.0, v))(visible)
        return energies - jnp.mean(energies)

    def potential(energy):
        surprise = -jnp.mean(jax.nn.log_softmax(-free_energies(energy))[rows])
        return surprise + 0.01 * tg.energies.squared_norm(energy)

    half = STARTS // 2
    w, a, b = _normal(half, 4, 2), _normal(half, 4, seed=1), _normal(half, 2, seed=2)
    # The second half are the images of the first: exchanged, and one of the units flipped.
    flip = np.array([1, -1])
    proposals = jax.vmap(tg.RBM)(
        np.concatenate([w, (flip * w)[:, :, ::-1]]),
        np.concatenate([a, a]),
        np.concatenate([b, (flip * b)[:, ::-1]]),
    )
    minima = multistart(potential, proposals, invariants=free_energies)
    assert isinstance(minima[0], tg.RBM) and _codes(minima, "converged") == STARTS
    np.testing.assert_array_equal(*np.split(minima.assignment, 2))
    assert 1 <= len(minima) <= half
    _certified(potential, minima)
    # Without the symmetry nearly every proposal is a minimum of its own kind.
    assert len(multistart(potential, proposals)) >= 2 * len(minima)


# --- how it runs


def test_equal_proposals_give_equal_minima():
    runs = [jax.tree.leaves(multistart(_wells, _proposals())) for _ in range(2)]
    for x, y in zip(*runs, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.further
def test_batches_of_any_size_give_the_same():
    starts = _normal(1030, 2, seed=3)

    def potential(x):
        return jnp.sum((x**2 - 1) ** 2 + 0.1 * x)

    whole = multistart(potential, starts)
    assert len(whole) == 4 and whole.hits.sum() == 1030
    part = multistart(potential, starts[:20])
    lowest = whole.potentials[whole.assignment[:20]]
    np.testing.assert_allclose(part.potentials[part.assignment], lowest, atol=1e-12)


@pytest.mark.parametrize("x64", [True, False])
def test_float32_proposals_are_polished_in_float64(x64):
    starts = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _proposals())
    with jax.enable_x64(x64):
        minima = multistart(_wells, starts)
    assert len(minima) == 4
    assert minima.potentials.dtype == minima.parameters["x"].dtype == np.float64
    assert minima.residuals.max() <= 1e-8
    _certified(_wells, minima)


def test_new_numbers_do_not_compile_anew():
    traces = []

    def tilted(tilt, x):
        traces.append(1)
        return jnp.sum((x**2 - 1) ** 2 + tilt * x)

    runs = []
    for tilt, seed in [(0.1, 4), (0.2, 5)]:
        potential = jax.tree_util.Partial(tilted, jnp.array(tilt))
        runs.append(multistart(potential, _normal(STARTS, 2, seed=seed), tol=1e-8 + tilt * 1e-9))
        counts = len(traces)
        if tilt == 0.1:
            first = counts
    assert [len(run) for run in runs] == [4, 4]
    # The shape of the result is asked for once more; nothing is differentiated or compiled.
    assert counts - first <= 1
    assert runs[0].potentials[0] > runs[1].potentials[0]


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        ({"x": np.ones((3, 2)), "y": np.ones(4)}, r"one leading axis .* \(3, 2\), \(4,\)"),
        (np.float64(1.0), r"one leading axis .* \(\)"),
        (np.ones((0, 2)), r"one leading axis .* \(0, 2\)"),
        ({}, "one leading axis"),
        (np.ones((3, 2), int), "proposals must hold real floating arrays, got array"),
        ({"x": np.ones(3), "f": jnp.sum}, "proposals must hold real floating arrays, got "),
    ],
)
def test_bad_proposals(proposals, message):
    with pytest.raises(ValueError, match=message):
        multistart(_wells, proposals)


def test_bad_potentials_and_counts():
    with pytest.raises(ValueError, match=r"potential must return a scalar array, got .*\(2,\)"):
        multistart(lambda x: x, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"potential must return a scalar array, got \("):
        multistart(lambda x: (jnp.sum(x), 1.0), np.ones((3, 2)))
    for n_flat, bound in ((-1, "at least 0"), (2, "at most 1")):
        with pytest.raises(ValueError, match=f"n_flat must be {bound}, got {n_flat}"):
            multistart(jnp.sum, np.ones((3, 2)), n_flat=n_flat)


# A potential of magnitudes: what float32 cannot resolve, float64 does.
@pytest.mark.further
def test_a_large_constant_hides_nothing():
    minima = multistart(functools.partial(_shifted, 1e6), _normal(STARTS, 2))
    assert len(minima) == 4 and minima.hits.sum() == STARTS


def _shifted(constant, x):
    return constant + jnp.sum((x**2 - 1) ** 2 + 0.1 * x)
