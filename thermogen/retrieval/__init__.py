"""Recall: what is known is clamped, the rest is found, with probabilities."""

from ._cues import load_cues as load_cues
from ._gate import gate as gate
from ._hits import first_hits as first_hits
from ._methods import Annealing as Annealing
from ._methods import Exact as Exact
from ._recall import Recall as Recall
from ._recall import recall as recall
from ._scores import RecallScores as RecallScores
from ._scores import recall_scores as recall_scores
