"""Determinants of planar graphs against sums over configurations, and a lattice of 10^4 spins."""

import itertools

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
import scipy.spatial

import thermogen as tg
from thermogen import exact
from thermogen.exact import _planar


def _model(n: int, bonds, seed: int = 0, signs: bool = False) -> tg.Interactions:
    rng, bonds = np.random.default_rng(seed), np.array(bonds, np.int32).reshape(-1, 2)
    couplings = rng.choice([-1.0, 1.0], len(bonds)) if signs else rng.normal(size=len(bonds))
    return tg.Interactions(n, [bonds], [jnp.asarray(couplings)])


def _triangles(n: int, seed: int = 0) -> list[tuple[int, int]]:
    points = np.random.default_rng(seed).random((n, 2))
    found = scipy.spatial.Delaunay(points).simplices
    return sorted({tuple(sorted(p)) for t in found.tolist() for p in itertools.combinations(t, 2)})


def _lattice(side: int) -> list[tuple[int, int]]:
    return list(networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(side, side)).edges)


GRAPHS = {
    "triangles": (9, _triangles(9)),
    "lattice": (9, _lattice(3)),
    "star": (6, [(0, k) for k in range(1, 6)]),
    "two rings apart, and a spin": (8, [*networkx.cycle_graph(4).edges, (4, 5), (5, 6), (6, 4)]),
    "no bond": (3, []),
}


@pytest.mark.parametrize(
    "name", ["triangles", *(pytest.param(x, marks=pytest.mark.further) for x in list(GRAPHS)[1:])]
)
def test_planar_graphs_against_enumeration(name):
    n, bonds = GRAPHS[name]
    energy = _model(n, bonds)
    for beta in (0.4, 3.0):
        ours, truth = exact.planar_log_partition(energy, beta), exact.log_partition(energy, beta)
        np.testing.assert_allclose(ours, truth, rtol=1e-12)


def _both(energy: tg.Interactions, beta: float):
    """ln Z as a function of couplings, by the determinant and by enumeration."""
    return [
        lambda c, f=f: f(tg.Interactions(energy.n_spins, energy.sets, [c]), beta)
        for f in (exact.planar_log_partition, exact.log_partition)
    ]


@pytest.mark.further
def test_correlations_of_neighbours_and_second_derivatives():
    energy = _model(*GRAPHS["triangles"], seed=1)
    ours, truth = _both(energy, 0.8)
    couplings = energy.couplings[0].at[2].set(0.0)
    np.testing.assert_allclose(jax.grad(ours)(couplings), jax.grad(truth)(couplings), atol=1e-12)
    np.testing.assert_allclose(
        jax.hessian(ours)(couplings), jax.hessian(truth)(couplings), atol=1e-10
    )


@pytest.mark.further
def test_the_sweep_is_the_determinant(monkeypatch):
    """The sweep on the host, under a map and with derivatives, also by couplings of 0."""
    energy = _model(*GRAPHS["triangles"], seed=2)
    ours, _ = _both(energy, 0.8)
    couplings = jnp.outer(jnp.array([1.0, 2.0]), energy.couplings[0])
    couplings = couplings.at[0, 3].set(0.0)
    dense = jax.vmap(jax.value_and_grad(ours))(couplings)
    monkeypatch.setattr(_planar, "_MAX_DENSE", 0)
    swept = jax.vmap(jax.value_and_grad(ours))(couplings)
    for a, b in zip(swept, dense, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.further
def test_frustrated_lattice_against_elimination():
    energy = _model(144, _lattice(12), signs=True)
    ours, truth = (jax.value_and_grad(f)(energy.couplings[0]) for f in _both(energy, 1.5))
    np.testing.assert_allclose(ours[0], truth[0], rtol=1e-11)
    np.testing.assert_allclose(ours[1], truth[1], atol=1e-9)


@pytest.mark.further
def test_derivatives_of_triangles_against_differences():
    energy = _model(200, _triangles(200), seed=3)
    ours, _ = _both(energy, 1.0)
    couplings = energy.couplings[0]
    direction = jnp.asarray(np.random.default_rng(4).normal(size=len(couplings)))
    step = 1e-5
    slope = (ours(couplings + step * direction) - ours(couplings - step * direction)) / (2 * step)
    found = jax.grad(ours)(couplings) @ direction
    np.testing.assert_allclose(found, slope, atol=1e-6 * np.sqrt(len(couplings)))


@pytest.mark.further
def test_what_rounding_has_lost_is_said():
    """In the cold: either right, as elimination has it, or NaN, of ln Z and of its derivatives."""
    energy, lost = _model(144, _lattice(12), signs=True), []
    for beta in (2.0, 3.0, 4.0, 5.0, 8.0):
        ours, truth = (jax.value_and_grad(f)(energy.couplings[0]) for f in _both(energy, beta))
        lost.append(bool(jnp.isnan(ours[0])))
        for found, true in zip(ours, truth, strict=True):
            if not jnp.any(jnp.isnan(found)):
                np.testing.assert_allclose(found, true, rtol=0, atol=3e-6 * beta)
    assert lost[-1] and not any(lost[:2])


@pytest.mark.slow
def test_correlations_of_ten_thousand_spins():
    """Derivatives along one direction against differences, and of other signs."""
    n, bonds = 10_000, _lattice(100)
    energy = _model(n, bonds, signs=True)
    ours = _both(energy, 0.8)[0]
    couplings = energy.couplings[0]
    direction = jnp.asarray(np.random.default_rng(1).normal(size=len(bonds)))
    means, step = jax.grad(ours)(couplings) / 0.8, 1e-4
    slope = (ours(couplings + step * direction) - ours(couplings - step * direction)) / (2 * step)
    np.testing.assert_allclose(0.8 * means @ direction, slope, atol=1e-4)
    assert jnp.all(jnp.abs(means) <= 1)
    # Spins that are flipped take the signs of their bonds along, and nothing else changes.
    flips = np.random.default_rng(2).choice([-1.0, 1.0], n)
    gauge = np.prod(flips[np.asarray(energy.sets[0].indices)], axis=1)
    again = jax.grad(ours)(couplings * gauge) / 0.8
    np.testing.assert_allclose(again * gauge, means, atol=1e-7)


@pytest.mark.slow
def test_ten_thousand_spins():
    """Of a lattice: its closed loops at high temperature, and a ferromagnet in the cold."""
    n, bonds = 10_000, _lattice(100)
    frustrated = _model(n, bonds, signs=True)
    sign = np.zeros((n, n), np.int8)
    sign[tuple(np.transpose(bonds))] = np.asarray(frustrated.couplings[0])
    corner = (np.arange(99)[:, None] * 100 + np.arange(99)).ravel()
    loops = sign[corner, corner + 1] * sign[corner, corner + 100]
    loops = loops * sign[corner + 1, corner + 101] * sign[corner + 100, corner + 101]
    squares = loops.reshape(99, 99).astype(float)
    rectangles = np.sum(squares[1:] * squares[:-1]) + np.sum(squares[:, 1:] * squares[:, :-1])
    beta, t = 0.05, np.tanh(0.05)
    expected = n * np.log(2) + len(bonds) * np.log(np.cosh(beta))
    expected += squares.sum() * t**4 + rectangles * t**6
    ours = exact.planar_log_partition(frustrated, beta)
    # Longer loops, and pairs of squares: fewer than ten a spin.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=10 * n * t**8)
    magnet = tg.Interactions(n, frustrated.sets, [jnp.ones(len(bonds))])
    np.testing.assert_allclose(
        exact.planar_log_partition(magnet, 3.0), 3.0 * len(bonds) + np.log(2), rtol=1e-7
    )


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (_model(5, list(networkx.complete_graph(5).edges)), "this one of 5 spins is not"),
        (tg.Pairwise(np.ones((3, 3)) - np.eye(3), np.array([0, 0.1, 0])), "must have no fields"),
        (tg.Interactions.from_terms(3, {(0, 1, 2): 1.0}), "terms of two spins alone, got 3"),
    ],
)
def test_what_has_no_determinant_is_refused(energy, message):
    with pytest.raises(ValueError, match=message):
        exact.planar_log_partition(energy, 1.0)
