"""Branches of stationary points against closed forms of ferromagnets with all bonds alike."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_pairwise
from scipy.optimize import brentq

import thermogen as tg
from thermogen.meanfield import bifurcations, follow_beta, follow_field

NAIVE, RESULTS = tg.NaiveMeanField(), tg.RESULTS
N = 12
ZEROS, ONES = np.zeros(N), np.ones(N)


def ferromagnet(*strengths: float) -> tg.Interactions:
    """`E(m) = -n sum_p strengths[p - 2] m^p` at uniform m: all pairs, all triples, ..."""
    terms = {}
    for degree, strength in enumerate(strengths, start=2):
        sets = list(itertools.combinations(range(N), degree))
        terms |= dict.fromkeys(sets, N * strength / len(sets))
    return tg.Interactions.from_terms(N, terms)


def curie_weiss() -> tg.Pairwise:
    """`E(m) = -n m^2/2` at uniform m: m = tanh(beta m) for naive mean field."""
    return tg.Pairwise((np.ones((N, N)) - np.eye(N)) / (N - 1), ZEROS)


def points(branch):
    size = int(branch.size)
    return np.asarray(branch.parameters)[:size], np.asarray(branch.magnetizations)[:size]


def critical_beta(functional) -> float:
    """Where m = 0 of the Curie-Weiss model becomes unstable."""
    return {
        tg.NaiveMeanField(): 1.0,
        # G'' along (1, ..., 1) at m = 0: 1/beta - 1 + beta / (n - 1).
        tg.TAP(): (N - 1) * (1 - np.sqrt(1 - 4 / (N - 1))) / 2,
        # Each of n - 2 neighbours passes on a share tanh(beta J) of the field.
        tg.Bethe(): (N - 1) * np.arctanh(1 / (N - 2)),
    }[functional]


@pytest.mark.further
@pytest.mark.parametrize(
    "functional", [NAIVE, tg.TAP(), pytest.param(tg.Bethe(), marks=pytest.mark.slow)]
)
def test_the_paramagnet_ends_in_a_pitchfork_with_two_arms(functional):
    energy, truth = curie_weiss(), critical_beta(functional)
    trunk = follow_beta(functional, energy, (0.5, 1.6), ZEROS)
    assert trunk.result == RESULTS.converged
    betas, m = points(trunk)
    assert betas[0] == 0.5 and betas[-1] == 1.6
    np.testing.assert_allclose(m, 0, atol=1e-20)
    assert np.isnan(trunk.parameters[int(trunk.size) :]).all()
    (point,) = bifurcations(trunk)
    assert (point.kind, point.n_unstable) == ("pitchfork", (0, 1))
    np.testing.assert_allclose(point.parameter, truth, rtol=1e-8)
    np.testing.assert_allclose(point.soft_mode, ONES / np.sqrt(N), atol=1e-8)

    span = (point.parameter, 1.6)
    up, down = (
        follow_beta(functional, energy, span, point.magnetizations, toward=sign * point.soft_mode)
        for sign in (1, -1)
    )
    for arm in (up, down):
        assert arm.result == RESULTS.converged
        betas, m = points(arm)
        assert betas[-1] == 1.6
        assert np.all(np.diff(betas) > 0)
        np.testing.assert_allclose(m, m[:, :1] * ONES[None, :], atol=1e-7)
        assert bifurcations(arm) == []
        np.testing.assert_array_equal(arm.n_unstable[1 : len(m)], 0)
    np.testing.assert_allclose(points(up)[1][-1], -points(down)[1][-1], atol=1e-7)
    assert points(up)[1][-1, 0] > 0.5
    end = tg.solve(functional, energy, 1.6, 0.5 * ONES)
    np.testing.assert_allclose(points(up)[1][-1], end.value, atol=1e-8)
    last = int(up.size) - 1
    np.testing.assert_allclose(up.free_energies[last], end.stats["free_energy"], rtol=1e-12)


@pytest.mark.further
def test_every_point_solves_its_equation_and_steps_are_short():
    energy, beta = curie_weiss(), 1.5
    branch = follow_field(NAIVE, energy, beta, -ONES, field=ONES, strengths=(-0.5, 0.5))
    h, m = points(branch)
    np.testing.assert_allclose(m[:, 0], np.tanh(beta * (m[:, 0] + h)), atol=1e-9)
    lengths = np.hypot(np.diff(np.arcsin(m[:, 0])), np.diff(h))
    assert lengths.max() < 0.06
    value = jax.vmap(lambda m, h: NAIVE(energy, beta, m) - h * jnp.sum(m))(m, h)
    np.testing.assert_allclose(branch.free_energies[: len(m)], value, rtol=1e-12)
    # Stability from the closed form: the uniform mode and, twice repeated, all others.
    v = 1 - m[:, 0] ** 2
    lowest = np.minimum(1 - beta * v, 1 + beta * v / (N - 1))
    np.testing.assert_allclose(branch.curvatures[: len(m)], lowest, atol=1e-9)


@pytest.mark.further
def test_a_field_meets_both_spinodals_of_the_hysteresis_loop():
    energy, beta = curie_weiss(), 1.5
    branch = follow_field(NAIVE, energy, beta, -ONES, field=ONES, strengths=(-0.5, 0.5))
    assert branch.result == RESULTS.converged
    m = np.sqrt(1 - 1 / beta)
    h = m - np.arctanh(m) / beta
    first, second = bifurcations(branch)
    assert (first.kind, first.n_unstable) == ("saddle-node", (0, 1))
    assert (second.kind, second.n_unstable) == ("saddle-node", (1, 0))
    np.testing.assert_allclose([first.parameter, second.parameter], [h, -h], atol=1e-9)
    np.testing.assert_allclose(first.magnetizations, -m * ONES, atol=1e-5)
    np.testing.assert_allclose(second.magnetizations, m * ONES, atol=1e-5)


@pytest.mark.further
def test_the_ordered_state_of_a_three_spin_ferromagnet_dies_in_a_saddle_node():
    branch = follow_beta(NAIVE, ferromagnet(0.0, 1.0), (3.0, 0.3), ONES)
    # Stationary: atanh m = 3 beta m^2; there beta is least.
    m = brentq(lambda m: 2 * np.arctanh(m) - m / (1 - m * m), 0.1, 0.99)
    (point,) = bifurcations(branch)
    assert (point.kind, point.n_unstable) == ("saddle-node", (0, 1))
    np.testing.assert_allclose(point.parameter, np.arctanh(m) / (3 * m * m), rtol=1e-9)
    betas, found = points(branch)
    assert betas[0] == 3.0 and betas[-1] == 3.0, "round the fold and back"
    assert 0 < found[-1, 0] < m < found[0, 0]


@pytest.mark.further
def test_a_cubic_term_makes_the_crossing_transcritical():
    trunk = follow_beta(NAIVE, ferromagnet(0.5, 0.05), (0.5, 1.5), ZEROS)
    (point,) = bifurcations(trunk)
    assert point.kind == "transcritical"
    np.testing.assert_allclose(point.parameter, 1.0, rtol=1e-9)
    # The other branch, switched to on its unstable side, turns in a spinodal.
    span, mode = (point.parameter, 0.5), point.soft_mode
    other = follow_beta(NAIVE, ferromagnet(0.5, 0.05), span, ZEROS, toward=mode)
    assert points(other)[1][1, 0] > 0


@pytest.mark.further
def test_a_branch_that_comes_from_the_cold_turns_in_the_pitchfork():
    branch = follow_beta(NAIVE, curie_weiss(), (1.6, 0.5), ONES)
    (point,) = bifurcations(branch)
    assert (point.kind, point.n_unstable) == ("pitchfork", (0, 0))
    np.testing.assert_allclose(point.parameter, 1.0, rtol=1e-6)
    np.testing.assert_allclose(point.magnetizations, 0, atol=1e-3)
    betas, m = points(branch)
    assert betas[-1] == 1.6
    np.testing.assert_allclose(m[-1], -m[0], atol=1e-8)


@pytest.mark.further
def test_patterns_that_do_not_overlap_are_born_together():
    patterns = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, -1, -1, -1, -1]])
    couplings = patterns.T @ patterns / 8 - 2 / 8 * np.eye(8)
    trunk = follow_beta(NAIVE, tg.Pairwise(couplings, np.zeros(8)), (0.5, 2.0), np.zeros(8))
    points = bifurcations(trunk)
    assert [p.kind for p in points] == ["pitchfork", "pitchfork"]
    np.testing.assert_allclose([p.parameter for p in points], 1 / (1 - 2 / 8), rtol=1e-8)
    modes = np.array([p.soft_mode for p in points])
    np.testing.assert_allclose(modes @ modes.T, np.eye(2), atol=1e-8)
    inside = modes @ patterns.T @ patterns / 8
    np.testing.assert_allclose(inside, modes, atol=1e-8)


@pytest.mark.further
def test_many_models_at_once_and_no_second_compilation():
    energies = [random_pairwise(5, jax.random.key(i), scale=0.5, fields=0.3) for i in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *energies)
    traced = 0

    def run(energy, beta):
        nonlocal traced
        traced += 1
        return follow_beta(NAIVE, energy, (0.1, beta), jnp.zeros(5), capacity=64)

    branches = jax.jit(jax.vmap(run, in_axes=(0, None)))(batch, 1.0)
    assert np.all(np.asarray(branches.result == RESULTS.converged))
    follow = jax.jit(run)
    traced = 0
    for i, energy in enumerate(energies):
        single = follow(energy, 1.0)
        size = int(single.size)
        assert size == branches.size[i]
        np.testing.assert_allclose(
            branches.magnetizations[i, :size], single.magnetizations[:size], atol=1e-9
        )
        end = tg.solve(NAIVE, energy, 1.0, single.magnetizations[size - 1])
        np.testing.assert_allclose(single.magnetizations[size - 1], end.value, atol=1e-8)
    follow(energies[0], 0.7)
    assert traced == 1


def test_what_cannot_be_followed_is_reported():
    energy = curie_weiss()
    short = follow_beta(NAIVE, energy, (0.5, 1.6), ZEROS, capacity=4)
    assert short.result == RESULTS.step_limit and short.size == 4
    broken = eqx.tree_at(lambda e: e.fields, energy, np.nan * ONES)
    nothing = follow_beta(NAIVE, broken, (0.5, 1.6), ZEROS)
    assert nothing.result == RESULTS.stalled and nothing.size == 0
    assert bifurcations(nothing) == []


def test_bad_input_is_named():
    energy = curie_weiss()
    with pytest.raises(ValueError, match="beta must be positive"):
        follow_beta(NAIVE, energy, (0.0, 1.0), ZEROS)
    with pytest.raises(ValueError, match="betas must be two different values"):
        follow_beta(NAIVE, energy, (1.0, 1.0), ZEROS)
    with pytest.raises(ValueError, match=r"init must have shape \(12,\)"):
        follow_beta(NAIVE, energy, (0.5, 1.0), np.zeros(3))
    with pytest.raises(ValueError, match=r"toward must have shape \(12,\)"):
        follow_beta(NAIVE, energy, (0.5, 1.0), ZEROS, toward=np.ones(3))
    with pytest.raises(ValueError, match=r"field must have shape \(12,\)"):
        follow_field(NAIVE, energy, 1.0, ZEROS, field=np.ones(2), strengths=(0, 1))
    with pytest.raises(ValueError, match="strengths must be two different values"):
        follow_field(NAIVE, energy, 1.0, ZEROS, field=ONES, strengths=(1, 1))
