"""The landscape of a free energy: its minima, the candidates for bound states."""

from ._barriers import TRANSITIONS as TRANSITIONS
from ._barriers import Barriers as Barriers
from ._barriers import barriers as barriers
from ._certify import Certificate as Certificate
from ._certify import certify as certify
from ._coverage import Completeness as Completeness
from ._coverage import completeness as completeness
from ._coverage import discovery_curve as discovery_curve
from ._hopping import find_bound_states as find_bound_states
from ._library import Library as Library
from ._minima import Minima as Minima
from ._minima import find_minima as find_minima
from ._paths import EnergyBarriers as EnergyBarriers
from ._paths import energy_barriers as energy_barriers
from ._quench import quench as quench
from ._thermodynamics import complexity as complexity
from ._thermodynamics import count_states as count_states
from ._thermodynamics import log_partition as log_partition
from ._thermodynamics import mixture_bound as mixture_bound
from ._thermodynamics import overlap_distribution as overlap_distribution
from ._thermodynamics import overlaps as overlaps
from ._trajectories import flip_minima as flip_minima
from ._tree import DisconnectivityTree as DisconnectivityTree
from ._tree import disconnectivity_tree as disconnectivity_tree
