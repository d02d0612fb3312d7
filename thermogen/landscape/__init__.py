"""The landscape between states: saddles, barriers, paths, trees, genealogy."""

from ._barriers import TRANSITIONS as TRANSITIONS
from ._barriers import Barriers as Barriers
from ._barriers import barriers as barriers
from ._births import birth_points as birth_points
from ._births import death_points as death_points
from ._escapes import log_escape_times as log_escape_times
from ._follow import Followed as Followed
from ._follow import follow as follow
from ._genealogy import Genealogy as Genealogy
from ._genealogy import genealogy as genealogy
from ._heights import Heights as Heights
from ._heights import minimax_heights as minimax_heights
from ._paths import EnergyBarriers as EnergyBarriers
from ._paths import energy_barriers as energy_barriers
from ._thermodynamics import ConfigurationalEntropy as ConfigurationalEntropy
from ._thermodynamics import complexity as complexity
from ._thermodynamics import configurational_entropy as configurational_entropy
from ._thermodynamics import count_states as count_states
from ._thermodynamics import log_partition as log_partition
from ._thermodynamics import mixture_bound as mixture_bound
from ._thermodynamics import overlap_distribution as overlap_distribution
from ._thermodynamics import overlaps as overlaps
from ._tree import DisconnectivityTree as DisconnectivityTree
from ._tree import disconnectivity_tree as disconnectivity_tree
