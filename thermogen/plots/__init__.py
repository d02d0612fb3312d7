"""Figures, by matplotlib, which lives in this room alone."""

from matplotlib.figure import Figure as Figure

from ._curves import MAX_SHOWN as MAX_SHOWN
from ._curves import bifurcation_figure as bifurcation_figure
from ._curves import learning_figure as learning_figure
from ._curves import occupation_figure as occupation_figure
from ._curves import overlaps_figure as overlaps_figure
from ._curves import scan_figure as scan_figure
from ._genealogy import genealogy_figure as genealogy_figure
from ._pictures import samples_figure as samples_figure
from ._pictures import states_figure as states_figure
from ._pictures import thumbnail_png as thumbnail_png
from ._recall import recall_figure as recall_figure
from ._style import ACCENT as ACCENT
from ._style import INK as INK
from ._style import MUTED as MUTED
from ._style import figure_png as figure_png
from ._style import save as save
from ._style import styled as styled
from ._trees import disconnectivity_figure as disconnectivity_figure
