"""The landscape of a free energy: its minima, the candidates for bound states."""

from ._certify import Certificate as Certificate
from ._certify import certify as certify
from ._hopping import find_bound_states as find_bound_states
from ._library import Library as Library
from ._quench import quench as quench
from ._trajectories import flip_minima as flip_minima
