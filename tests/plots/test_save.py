"""Figures in files."""

import numpy as np
import pytest
from matplotlib import pyplot

from thermogen import plots
from thermogen.landscape import disconnectivity_tree

START = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.fixture
def figure():
    tree = disconnectivity_tree(np.array([0.0, 0.5]), np.array([[0, 2.0], [2.0, 0]]))
    return plots.disconnectivity_figure(tree, label="height of the hill")


@pytest.mark.parametrize("suffix", START)
def test_the_suffix_tells_the_format_and_the_bytes_are_the_same_again(tmp_path, figure, suffix):
    paths = tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}"
    for path in paths:
        plots.save(figure, path)
        assert path.read_bytes().startswith(START[suffix])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not pyplot.get_fignums()  # none stays open


def test_text_of_a_vector_graphic_is_text(tmp_path, figure):
    plots.save(figure, tmp_path / "a.svg")
    assert "height of the hill" in (tmp_path / "a.svg").read_text()
    plots.save(figure, tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_drawn_without_a_warning(tmp_path):
    figure = plots.samples_figure(np.ones((1, 2), np.int8), (1, 2), names=("質問", "答え"))
    plots.save(figure, tmp_path / "a.pdf")
    assert plots.figure_png(figure) and "質問" in plots.figure_svg(figure, "a")


def test_another_suffix_is_refused(tmp_path, figure):
    with pytest.raises(ValueError, match=r"a\.gif must end in \.png, \.pdf, \.svg"):
        plots.save(figure, tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
