"""Disconnectivity trees as they are drawn."""

import numpy as np
import pytest
from helpers import random_tree
from matplotlib.figure import Figure

from thermogen import plots
from thermogen.landscape import disconnectivity_tree


def _ends(figure: Figure) -> np.ndarray:
    (lines,) = figure.axes[0].collections[:1]
    return np.array([segment[0] for segment in lines.get_segments()])


@pytest.mark.parametrize("pictures", [False, True])
def test_lines_end_at_their_states(pictures):
    free_energies, barriers = random_tree(7, 1)
    tree = disconnectivity_tree(free_energies, barriers)
    shown = np.random.default_rng(0).uniform(-1, 1, (7, 3, 4)) if pictures else None
    figure = plots.disconnectivity_figure(tree, pictures=shown)
    (axes,) = figure.axes
    ends = _ends(figure)
    assert len(ends) == 13  # seven states, six nodes
    # States stand at different places, and higher where their free energy is higher.
    np.testing.assert_array_equal(np.sort(ends[:7, 0]), np.arange(7))
    np.testing.assert_array_equal(np.argsort(ends[:7, 1]), np.argsort(free_energies))
    assert np.argmin(ends[:, 1]) == np.argmin(free_energies)
    assert sum(text.get_text().isdigit() for text in axes.texts) == 7
    assert len(axes.artists) == 7 * pictures
    figure.canvas.draw()


def test_an_empty_stretch_is_cut_and_says_so():
    free_energies = np.array([-10.0, -9.5, -9.0, -8.8])
    barriers = np.full((4, 4), 90.0)
    barriers[:2, :2], barriers[2:, 2:] = -9.2, -8.0
    figure = plots.disconnectivity_figure(disconnectivity_tree(free_energies, barriers))
    (axes,) = figure.axes
    assert any(text.get_text() == "cut: 98" for text in axes.texts)
    ends = _ends(figure)
    # The rest of the axis keeps one scale.
    places = np.array([*ends[:4, 1], *ends[4:6, 1]])
    levels = np.array([*free_energies, -9.2, -8.0])
    scale = np.polyfit(levels, places, 1)
    np.testing.assert_allclose(np.polyval(scale, levels), places, atol=1e-12)
    assert ends[6, 1] - ends[5, 1] < 0.2


def test_trees_of_a_forest_are_drawn_apart():
    free_energies, barriers = random_tree(6, 0)
    barriers[:4, 4:] = barriers[4:, :4] = np.inf
    figure = plots.disconnectivity_figure(disconnectivity_tree(free_energies, barriers))
    assert len(_ends(figure)) == 10  # six states, four nodes
    level = plots.disconnectivity_figure(disconnectivity_tree(np.zeros(2), np.ones((2, 2))))
    assert len(_ends(level)) == 3
    apart = disconnectivity_tree(np.zeros(2), np.full((2, 2), np.inf))
    assert len(_ends(plots.disconnectivity_figure(apart))) == 2
