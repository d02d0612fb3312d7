"""Kinetics: which minima trap the dynamics, for how long, with what weight."""

from ._attribution import attribute as attribute
from ._bound_states import BoundStates as BoundStates
from ._certificate import Certificate as Certificate
from ._certify import certify as certify
from ._escapes import Escapes as Escapes
from ._find import find_bound_states as find_bound_states
from ._inside import Measured as Measured
from ._inside import StateThermodynamics as StateThermodynamics
from ._inside import inside as inside
from ._plateaus import flip_minima as flip_minima
from ._trajectories import Observations as Observations
from ._trajectories import Trajectories as Trajectories
from ._trajectories import TrajectoriesState as TrajectoriesState
from ._weights import Weights as Weights
from ._weights import weights as weights
