"""Figures of samples, states, scans and branches: what is drawn of which number."""

import io

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from thermogen import plots
from thermogen.energies import Pairwise
from thermogen.meanfield import NaiveMeanField, bifurcations, follow_beta


def test_thumbnails_show_one_pixel_a_spin():
    png = plots.thumbnail_png(np.array([-1.0, 0, 1, 1, 1, 1]), (2, 3))
    pixels = image.imread(io.BytesIO(png), format="png")
    assert pixels.shape == (2, 3, 4)
    np.testing.assert_allclose(pixels[0, 1, :3], 1, atol=0.02)  # no preference is white
    assert pixels[0, 2].sum() < pixels[0, 0].sum()  # ink is darker than sand


@pytest.mark.parametrize("n_samples", [1, 3, 200])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("picture", [(4, 4), (1, 10), (1, 200)])
def test_samples_of_every_size_are_drawn(n_samples, labelled, picture):
    spins = np.ones((n_samples, picture[0] * picture[1]))
    labels = np.arange(n_samples) % 4 if labelled else None
    assert isinstance(plots.samples_figure(spins, picture, labels), Figure)


def test_occupation_counts_every_sample():
    assignment = np.array([0] * 5 + [45] * 3 + [-1] * 2)
    figure = plots.occupation_figure(assignment, 50)
    (axes,) = figure.axes
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert ticks[:2] == ["0", "1"] and ticks[-2:] == ["others", "none"] and len(ticks) == 42
    assert sum(patch.get_width() for patch in axes.patches) == 10


def _ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_strips_show_the_names_of_spins():
    names = ["age over 60", "a name of more than twenty-four letters", "$x$", "d"]
    shown = ["age over 60", "a name of more than twe…", r"\$x\$", "d"]
    spins, numbers = np.ones((3, 4)), np.arange(3.0)
    (axes,) = plots.samples_figure(spins, (1, 4), names=names).axes
    assert _ticks(axes.yaxis) == shown
    states = (spins, numbers, numbers, numbers.astype(int), numbers, (1, 4))
    assert _ticks(plots.states_figure(*states, names=names).axes[0].xaxis) == shown
    known = np.arange(4) < 2
    recall = plots.recall_figure(spins, known, spins, numbers, spins, (1, 4), names=names)
    assert all(_ticks(axes.xaxis) == shown for axes in recall.axes)
    above, below, *_ = plots.couplings_figure(np.eye(4), numbers[[0, 1, 2, 0]], names=names).axes
    assert _ticks(above.yaxis) == _ticks(below.xaxis) == shown
    for picture, count in ((1, 41), 41), ((2, 2), 4):  # no room, and no strip
        many = [f"spin {k}" for k in range(count)]
        (axes,) = plots.samples_figure(np.ones((3, count)), picture, names=many).axes
        assert not set(_ticks(axes.yaxis)) & set(many)


def test_classes_are_called_by_their_names():
    labels, classes = np.array([0, 2, 1, 2]), ("iris", "rose", "_x")
    figure = plots.occupation_figure(np.zeros(4, int), 1, labels, classes=classes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["iris", "rose", " _x"]
    (axes,) = plots.samples_figure(np.ones((4, 16)), (4, 4), labels, classes=classes).axes
    assert _ticks(axes.yaxis) == ["iris", "rose", " _x"]


def test_the_scan_marks_lower_bounds():
    curve = np.array([0.5, 1.0, 2.0]), np.array([1, 10, 64]), np.array([False, False, True])
    curves = {"naive mean field": curve, "TAP": tuple(x[:2] for x in curve)}
    figure = plots.scan_figure(curves, (1.0, 12))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["naive mean field", "TAP", "full search", "library full: at least"]


@pytest.mark.further
def test_bifurcation_diagram_shows_minima_and_saddles_apart():
    energy = Pairwise(np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2))
    functional = NaiveMeanField()
    trunk = follow_beta(functional, energy, (0.5, 1.5), np.zeros(2))
    points = bifurcations(trunk)
    figure = plots.bifurcation_figure([trunk], points, pattern=np.ones(2))
    (axes,) = figure.axes
    saddle, minimum = axes.lines[:2]
    betas, size = np.asarray(trunk.parameters), int(trunk.size)
    stable = ~np.isnan(np.asarray(minimum.get_ydata(), float))
    np.testing.assert_array_equal(stable, betas[:size] < 1)
    dashed = ~np.isnan(np.asarray(saddle.get_ydata(), float))
    assert np.all(stable | dashed) and (stable & dashed).sum() == 1
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1.0, 0.0]], atol=1e-8)
    assert plots.figure_png(figure).startswith(b"\x89PNG")
