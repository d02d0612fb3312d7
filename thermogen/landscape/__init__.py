"""The landscape of a free energy: its minima, the candidates for bound states."""

from ._barriers import TRANSITIONS as TRANSITIONS
from ._barriers import Barriers as Barriers
from ._barriers import barriers as barriers
from ._hopping import find_bound_states as find_bound_states
from ._library import Library as Library
from ._paths import EnergyBarriers as EnergyBarriers
from ._paths import energy_barriers as energy_barriers
from ._quench import quench as quench
from ._tree import DisconnectivityTree as DisconnectivityTree
from ._tree import disconnectivity_tree as disconnectivity_tree
