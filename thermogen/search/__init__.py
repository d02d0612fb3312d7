"""Search: the minima of a free energy, and how complete their library is."""

from ._completeness import Completeness as Completeness
from ._completeness import completeness as completeness
from ._completeness import discovery_curve as discovery_curve
from ._curvature import lowest_curvatures as lowest_curvatures
from ._harvest import Ends as Ends
from ._library import PER_STATE as PER_STATE
from ._library import Kind as Kind
from ._library import Library as Library
from ._library import of_minima as of_minima
from ._merge import joined as joined
from ._minima import find_minima as find_minima
from ._moves import corner as corner
from ._moves import crossover as crossover
from ._moves import flip_cluster as flip_cluster
from ._multistart import Minima as Minima
from ._multistart import multistart as multistart
from ._provenance import fingerprint as fingerprint
from ._quench import below_saddles as below_saddles
from ._quench import fall as fall
from ._quench import is_converged as is_converged
from ._quench import make_problem as make_problem
from ._quench import quench as quench
from ._same import MERGE_TOLERANCE as MERGE_TOLERANCE
from ._same import distances as distances
from ._search import Search as Search
from ._verify import verified as verified
