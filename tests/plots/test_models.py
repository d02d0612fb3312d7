"""Figures of a model: couplings, interactions, moments, and a figure as text."""

import re
import xml.etree.ElementTree

import numpy as np
import pytest
from helpers import random_tree
from matplotlib.patches import FancyArrowPatch

from thermogen import plots
from thermogen.landscape import disconnectivity_tree


def _couplings(n):
    draw = np.random.default_rng(n)
    upper = np.triu(draw.normal(size=(n, n)), 1)
    return upper + upper.T


@pytest.mark.parametrize("shape", [(6, 6), (2, 9)])
def test_couplings_and_fields_are_drawn(shape):
    values = np.ones(shape)
    figure = plots.couplings_figure(values, np.arange(shape[1]) - 1.0)
    above, below, _ = figure.axes
    np.testing.assert_array_equal(above.images[0].get_array(), values)
    assert [patch.get_height() for patch in below.patches] == list(np.arange(shape[1]) - 1.0)


@pytest.mark.parametrize("picture", [(3, 3), (1, 9)])
def test_the_strongest_couplings_are_drawn_and_no_others(picture):
    couplings = np.zeros((9, 9))
    for i, j, value in [(0, 1, 1.0), (2, 5, -3.0), (3, 8, 0.5)]:
        couplings[i, j] = couplings[j, i] = value
    lines = plots.interactions_figure(couplings, picture).axes[0].patches
    assert len(lines) == 3 and all(isinstance(line, FancyArrowPatch) for line in lines)
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths)  # the strongest lies above the others
    figure = plots.interactions_figure(_couplings(9), picture, n_edges=5)
    assert len(figure.axes[0].patches) == 5


def test_moments_are_drawn_against_those_of_the_data():
    means, pairs = np.array([0.5, -0.5, 0.0]), _couplings(3) / 9
    figure = plots.moments_figure((means, pairs), (means / 2, pairs / 2), 0.1)
    left, right = (axes.collections[-1].get_offsets() for axes in figure.axes)
    np.testing.assert_allclose(left, np.stack([means, means / 2], axis=1))
    upper = pairs[np.triu_indices(3, 1)]
    np.testing.assert_allclose(right, np.stack([upper, upper / 2], axis=1))


def test_bound_states_without_an_upper_end_are_drawn_as_arrows():
    intervals = np.array([[-9.0, -8.0], [-6.0, np.inf]])
    weights = np.array([1.0, 0.0]), np.array([[0.9, 1.0], [0.0, 0.1]])
    figure = plots.bound_states_figure(
        *weights, np.array([-8.5, np.inf]), intervals, (weights[0], np.array([-8.0, -5.0]))
    )
    arrows = [line for line in figure.axes[1].lines if "arrow" in str(line.get_marker())]
    assert [line.get_xdata()[0] for line in arrows] == [-6.0]
    figure.canvas.draw()


def test_an_svg_is_text_and_the_same_at_every_call():
    def drawn():
        return plots.figure_svg(plots.learning_figure(np.linspace(9, 5, 40)), "learning")

    svg = drawn()
    assert svg == drawn()
    root = xml.etree.ElementTree.fromstring(svg)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Learning curve" in words


def test_branches_of_a_tree_are_its_lines():
    """Line k of the group `branches` belongs to leaf or node k; a way ends at the root."""
    free_energies, barriers = random_tree(7, 1)
    barriers[:3, 3:] = barriers[3:, :3] = np.inf
    tree = disconnectivity_tree(free_energies, barriers)
    svg = plots.figure_svg(plots.disconnectivity_figure(tree), "tree")
    group = re.search(r'<g id="branches">(.*?)</g>', svg, re.DOTALL)[1]
    ways = plots.branches_of(tree)
    assert group.count("<path ") == 12 - 1 + 1 == 1 + max(max(way) for way in ways)
    assert [way[0] for way in ways] == list(range(7))
    ends = {way[-1] for way in ways}
    assert len(ends) == tree.n_trees == 2


def test_a_mosaic_is_clear_between_its_pictures():
    png = plots.mosaic_png(np.ones((3, 4)), 2, (2, 2))
    assert png.startswith(b"\x89PNG")


def test_a_learning_curve_shows_samples_that_were_held_out():
    """What was seen before the first step has no place on an axis of logarithms."""
    looks = np.array([0, 1, 10, 40]), np.array([9.0, 8, 6, 5]), np.array([9.0, 8, 7, 6.5])
    figure = plots.learning_figure(np.linspace(9, 5, 40), looks)
    _, learned, others = figure.axes[0].lines
    np.testing.assert_array_equal(others.get_xdata(), [1, 10, 40])
    np.testing.assert_array_equal(others.get_ydata(), [8, 7, 6.5])
    np.testing.assert_array_equal(learned.get_ydata(), [8, 6, 5])
    # Of persistent chains no loss is known.
    alone = plots.learning_figure(None, looks).axes[0]
    assert len(alone.lines) == 2 and alone.get_xscale() == "log" and not alone.texts
