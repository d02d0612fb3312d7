"""The landscape of a free energy: its minima, the candidates for bound states."""

from ._coverage import Completeness as Completeness
from ._coverage import completeness as completeness
from ._coverage import discovery_curve as discovery_curve
from ._hopping import find_bound_states as find_bound_states
from ._library import Library as Library
from ._quench import quench as quench
