"""Genealogies of states against closed forms: what is born where, of which, and what dies."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_pairwise
from matplotlib.figure import Figure
from scipy.optimize import brentq

import thermogen as tg
from thermogen import plots
from thermogen.landscape import birth_points, death_points, genealogy

NAIVE, N = tg.NaiveMeanField(), 16
ONES = np.ones(N)
BETAS = np.arange(0.55, 1.96, 0.1)
GLASS_BETAS = np.linspace(0.5, 4, 15)


def _key(seed: int = 0):
    return jax.random.key(seed)


def _magnet(field: float = 0.0) -> tg.Pairwise:
    """`E(m) = -n m^2/2 - n field m` at uniform m: m = tanh(beta (m + field))."""
    return tg.Pairwise(jnp.asarray((np.ones((N, N)) - np.eye(N)) / (N - 1)), field * jnp.ones(N))


def _glass(seed: int) -> tg.Pairwise:
    return random_pairwise(N, _key(seed), scale=1.5, fields=0.1)


def _spinodal(field: float) -> float:
    """Beta at which a state against the field is born: beta (1 - m^2) = 1 on its branch."""

    def slope(m):
        return np.arctanh(m) / (m + field) * (1 - m**2) - 1

    m = brentq(slope, -0.999, -field - 1e-6)
    return 1 / (1 - m**2)


def _genealogy(energies, betas, seed=0, **options):
    return genealogy(NAIVE, energies, betas, key=_key(seed), n_starts=32, **options)


def _interval(betas: np.ndarray, beta: float) -> int:
    """The stage before which, going up, beta lies."""
    return int(np.searchsorted(betas, beta))


def _assert_sound(family):
    """What every genealogy promises, whatever its states."""
    nodes = np.arange(len(family.stages))
    assert np.all(np.diff(family.stages) >= 0) and family.sizes.sum() == len(nodes)
    assert np.all(family.stages[family.parents[family.parents >= 0]] >= 0)
    later = family.stages > 0
    np.testing.assert_array_equal(
        family.stages[family.parents[later]], family.stages[later] - 1
    )  # so all have one
    assert np.all(family.parents[~later] == -1)
    sent = family.heirs >= 0
    np.testing.assert_array_equal(family.stages[family.heirs[sent]], family.stages[sent] + 1)
    # Births and deaths balance the counts.
    born = np.bincount(family.stages[family.born], minlength=len(family.betas))
    died = np.bincount(family.stages[family.died] + 1, minlength=len(family.betas))
    np.testing.assert_array_equal(np.diff(family.sizes), (born - died)[1:])
    assert family.branches.max() + 1 == family.sizes[0] + family.born.sum()
    for stage in range(len(family.betas)):
        at = family.stages == stage
        assert np.all(np.diff(family.free_energies[at]) >= 0)
        np.testing.assert_allclose(family.weights[at].sum(), 1)


@pytest.mark.further
def test_the_magnet_splits_at_its_critical_point():
    family = _genealogy(_magnet(), BETAS)
    _assert_sound(family)
    np.testing.assert_array_equal(family.sizes, 1)
    np.testing.assert_array_equal(family.multiplicity, 1 + (BETAS > 1))
    np.testing.assert_array_equal(family.branches, 0)
    (split,) = np.flatnonzero(family.split)
    assert split == _interval(BETAS, 1.0)
    truth = [0.0 if b < 1 else brentq(lambda m, b=b: m - np.tanh(b * m), 0.1, 1) for b in BETAS]
    np.testing.assert_allclose(np.abs(family.magnetizations), np.outer(truth, ONES), atol=1e-7)
    ((node, point),) = birth_points(NAIVE, _magnet(), family).items()
    assert node == split and point.kind == "pitchfork"
    np.testing.assert_allclose(point.parameter, 1.0, rtol=1e-7)


@pytest.mark.further
@pytest.mark.parametrize("field", [0.05, 0.1])
def test_a_field_turns_the_split_into_a_birth(field):
    energy, truth = _magnet(field), _spinodal(field)
    family = _genealogy(energy, BETAS)
    _assert_sound(family)
    stage = _interval(BETAS, truth)
    np.testing.assert_array_equal(family.sizes, 1 + (np.arange(len(BETAS)) >= stage))
    (node,) = np.flatnonzero(family.born)
    assert family.stages[node] == stage and family.magnetizations[node].max() < 0
    # It is born of the state along the field, which goes on as itself.
    mother = family.parents[node]
    assert family.magnetizations[mother].min() > 0
    assert family.magnetizations[family.heirs[mother]].min() > 0
    assert not family.died.any() and not family.split.any()
    ((key, point),) = birth_points(NAIVE, energy, family).items()
    assert key == node and point.kind == "saddle-node"
    np.testing.assert_allclose(point.parameter, truth, rtol=1e-7)
    last = np.flatnonzero(family.stages == len(BETAS) - 1)
    np.testing.assert_array_equal(family.ancestors(last, 0), [0, 0])
    np.testing.assert_array_equal(family.ancestors(last, len(BETAS) - 1), last)


@pytest.mark.further
def test_read_from_cold_to_hot_births_are_deaths():
    energy, truth = _magnet(0.1), _spinodal(0.1)
    family = _genealogy(energy, BETAS[::-1])
    _assert_sound(family)
    (node,) = np.flatnonzero(family.died)
    assert BETAS[::-1][family.stages[node]] == BETAS[_interval(BETAS, truth)]
    assert family.magnetizations[node].max() < 0 < family.magnetizations[family.heirs[node]].min()
    assert not family.born.any() and not birth_points(NAIVE, energy, family)
    ((key, point),) = death_points(NAIVE, energy, family).items()
    assert key == node and point.kind == "saddle-node"
    np.testing.assert_allclose(point.parameter, truth, rtol=1e-7)


def test_states_along_a_field_that_turns():
    """A hysteresis loop as a sequence of energies at one beta: one state dies, one is born."""
    beta = 1.5
    m = np.sqrt(1 - 1 / beta)
    coercive = m - np.arctanh(m) / beta  # where the state against the field ends
    fields = np.linspace(-2, 2, 9) * coercive / 1.6
    family = _genealogy([_magnet(h) for h in fields], beta)
    _assert_sound(family)
    inside = np.abs(fields) < coercive
    even = fields == 0
    # At no field the two states are mirror images: one node.
    np.testing.assert_array_equal(family.sizes, 1 + (inside & ~even))
    np.testing.assert_array_equal(family.multiplicity[family.stages == 4], 2)
    first = np.flatnonzero(family.stages == np.argmax(inside))
    assert family.born[first].tolist() == [False, True]
    assert family.magnetizations[first[1]].min() > 0
    last = np.flatnonzero(family.stages == len(fields) - 1 - np.argmax(inside[::-1]))
    assert family.died[last].tolist() == [False, True]
    assert family.magnetizations[last[1]].max() < 0
    with pytest.raises(ValueError, match="family must have another beta at each stage"):
        birth_points(NAIVE, _magnet(), family)


@pytest.mark.further
def test_patterns_are_born_where_their_modes_soften():
    """Two patterns of unequal weight: the heavy one splits off first, then the light one is born.

    On the line along a pattern orthogonal to the other, m = tanh(beta w m). The paramagnet
    softens towards the light pattern at beta = 1/w too, but as a saddle: its state is born later.
    """
    heavy, light = 1.0, 0.7
    patterns = np.array([ONES, np.repeat([1.0, -1.0], N // 2)])
    couplings = (heavy * np.outer(*patterns[[0, 0]]) + light * np.outer(*patterns[[1, 1]])) / N
    energy = tg.Pairwise(jnp.asarray(couplings * (1 - np.eye(N))), jnp.zeros(N))
    betas = np.arange(0.85, 3.0, 0.1)
    family = _genealogy(energy, betas)
    _assert_sound(family)
    # The diagonal, (heavy + light)/N, is taken out of the couplings.
    diagonal = (heavy + light) / N
    (split,) = np.flatnonzero(family.split)
    points = birth_points(NAIVE, energy, family)
    assert points[int(split)].kind == "pitchfork"
    np.testing.assert_allclose(points[int(split)].parameter, 1 / (heavy - diagonal), rtol=1e-7)
    # At m along the light pattern the heavy mode is stable where beta (heavy - d)(1 - m^2) < 1.
    w = light - diagonal

    def stability(beta):
        m = brentq(lambda m: m - np.tanh(beta * w * m), 1e-3, 1)
        return beta * (heavy - diagonal) * (1 - m**2) - 1

    truth = brentq(stability, 1.01 / w, 5)
    (born,) = np.flatnonzero(family.born)
    assert family.stages[born] == _interval(betas, truth)
    np.testing.assert_allclose(points[int(born)].parameter, truth, rtol=1e-7)
    overlaps = np.abs(family.magnetizations[[split, born]] @ patterns.T) / N
    assert overlaps[0, 0] > 0.1 > 1e-6 > overlaps[0, 1]
    assert overlaps[1, 1] > 0.1 > 1e-6 > overlaps[1, 0]
    assert family.parents[born] in np.flatnonzero(family.branches == 0)


@pytest.mark.slow
def test_continuation_finds_what_a_poor_search_misses():
    energy, betas = _glass(3), GLASS_BETAS
    family = genealogy(NAIVE, energy, betas, key=_key(), n_starts=4)
    _assert_sound(family)
    assert np.any(family.hits == 0)
    found = np.bincount(family.stages, family.hits)
    np.testing.assert_array_equal(found, 4)
    # Every node is a certified minimum of its stage, wherever it came from.
    for node in np.flatnonzero(family.hits == 0)[:10]:
        beta, m = betas[family.stages[node]], family.magnetizations[node]
        assert np.abs(jax.grad(NAIVE, argnums=2)(energy, beta, m)).max() < 1e-6
        hessian = jax.hessian(NAIVE, argnums=2)(energy, beta, m)
        np.testing.assert_allclose(
            family.curvatures[node], np.linalg.eigvalsh(hessian)[0], rtol=1e-5
        )
    points = birth_points(NAIVE, energy, family)
    for node, point in points.items():
        stage = family.stages[node]
        assert betas[stage - 1] < point.parameter < betas[stage]


@pytest.mark.further
def test_equal_keys_give_equal_genealogies():
    energy = random_pairwise(N, _key(11), fields=0.1)
    first, again = (_genealogy(energy, BETAS[::3]) for _ in range(2))
    for name in first._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    # Energies in single precision are certified in double.
    with jax.enable_x64(False):
        energy = jax.tree.map(lambda x: x.astype(jnp.float32), energy)
        narrow = _genealogy(energy, BETAS[::3])
    assert narrow.free_energies.dtype == np.float64
    for name in ("stages", "parents", "heirs"):
        np.testing.assert_array_equal(getattr(first, name), getattr(narrow, name))
    np.testing.assert_allclose(first.free_energies, narrow.free_energies, rtol=1e-6)


@pytest.mark.further
def test_new_numbers_do_not_recompile(caplog):
    """Programs, that is: single operations may, for the number of states differs."""
    _genealogy(random_pairwise(N, _key(11), fields=0.1), BETAS[::3])
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        energies = [random_pairwise(N, _key(seed), fields=0.1) for seed in range(12, 17)]
        caplog.clear()
        _genealogy(energies, BETAS[::3] + 0.01, seed=1)
    assert not [r.getMessage() for r in caplog.records if "Compiling jit(_" in r.getMessage()]


@pytest.mark.parametrize(
    ("energies", "betas", "message"),
    [
        (_magnet(), 1.0, "two or more stages.*got 1 energies and 1 betas"),
        (_magnet(), [], "got 1 energies and 0 betas"),
        ([_magnet()] * 3, [1.0, 2.0], "got 3 energies and 2 betas"),
        ([_magnet(), random_pairwise(5, _key())], 1.0, "one class, number of spins"),
        ([_magnet(), tg.Interactions.from_terms(N, {(0, 1): 1.0})], 1.0, "one class"),
        (_magnet(), [1.0, -1.0], "beta must be positive and finite, got -1"),
        (_magnet(), [1.0, np.nan], "beta must be positive and finite, got nan"),
    ],
)
def test_bad_stages(energies, betas, message):
    with pytest.raises(ValueError, match=message):
        _genealogy(energies, betas)


def test_bad_ancestors():
    family = _genealogy(_magnet(0.1), BETAS[::7])
    with pytest.raises(ValueError, match="nodes must be of stage 1 or later"):
        family.ancestors(np.array([0]), 1)


# --- the figure


def _segments(figure: Figure) -> tuple[list, list]:
    """Ties between parents and children, and pieces of lines."""
    ties, lines = figure.axes[0].collections[:2]
    return ties.get_segments(), lines.get_segments()


@pytest.mark.further
@pytest.mark.parametrize("seed", [3, 5])
def test_no_tie_crosses_a_line(seed):
    energy = _glass(seed)
    family = genealogy(NAIVE, energy, GLASS_BETAS, key=_key(), n_starts=8)
    births = birth_points(NAIVE, energy, family)
    deaths = death_points(NAIVE, energy, family)
    figure = plots.genealogy_figure(family, births=births, deaths=deaths, picture=(4, 4))
    ties, lines = _segments(figure)
    assert len(ties) == family.born.sum() > 5 and len(lines) == len(family.stages)
    rows = {line[0, 1] for line in lines}
    assert rows == set(range(family.branches.max() + 1))
    for ((x, a), (_, b)), ((low, y), (high, _)) in itertools.product(ties, lines):
        between = min(a, b) + 0.5 < y < max(a, b) - 0.5
        assert not (between and low < x < high)
    assert len(figure.axes[0].artists) == family.sizes[-1]
    figure.canvas.draw()


@pytest.mark.slow
def test_stages_stand_where_they_are_told():
    family = _genealogy(_magnet(0.1), BETAS)
    positions = np.arange(len(BETAS)) ** 2
    figure = plots.genealogy_figure(family, positions=positions, label="step of training")
    ((tie,), lines) = _segments(figure)
    stage = family.stages[np.flatnonzero(family.born)[0]]
    # Where nothing better is known, the middle between two stages.
    assert tie[0, 0] == 0.5 * (positions[stage - 1] + positions[stage])
    assert max(line[1, 0] for line in lines) == positions[-1]
    assert figure.axes[0].get_xlabel() == "step of training"
    split = plots.genealogy_figure(_genealogy(_magnet(), BETAS))
    texts = [text.get_text() for text in split.legends[0].get_texts()]
    assert "split into mirror images" in texts and "death of a state" not in texts
