"""Figures, by matplotlib, which lives in this room alone."""

from matplotlib.figure import Figure as Figure

from ._curves import MAX_SHOWN as MAX_SHOWN
from ._curves import bifurcation_figure as bifurcation_figure
from ._curves import bound_states_figure as bound_states_figure
from ._curves import learning_figure as learning_figure
from ._curves import occupation_figure as occupation_figure
from ._curves import overlaps_figure as overlaps_figure
from ._curves import ridge_figure as ridge_figure
from ._curves import scan_figure as scan_figure
from ._genealogy import genealogy_figure as genealogy_figure
from ._model import couplings_figure as couplings_figure
from ._model import interactions_figure as interactions_figure
from ._model import moments_figure as moments_figure
from ._pictures import mosaic_png as mosaic_png
from ._pictures import samples_figure as samples_figure
from ._pictures import states_figure as states_figure
from ._pictures import thumbnail_png as thumbnail_png
from ._recall import recall_figure as recall_figure
from ._style import ACCENT as ACCENT
from ._style import INK as INK
from ._style import MUTED as MUTED
from ._style import figure_png as figure_png
from ._style import figure_svg as figure_svg
from ._style import save as save
from ._style import styled as styled
from ._trees import branches_of as branches_of
from ._trees import disconnectivity_figure as disconnectivity_figure
