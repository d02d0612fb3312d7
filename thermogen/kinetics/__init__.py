"""Kinetics: which minima trap the dynamics, for how long, with what weight."""

from ._bound_states import BoundStates as BoundStates
from ._certificate import Certificate as Certificate
from ._certify import certify as certify
from ._find import find_bound_states as find_bound_states
from ._plateaus import flip_minima as flip_minima
from ._trajectories import Observations as Observations
from ._trajectories import Trajectories as Trajectories
from ._trajectories import TrajectoriesState as TrajectoriesState
