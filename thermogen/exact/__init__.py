"""Exact results: by enumeration of all 2^n configurations for n <= 24, and by elimination beyond.

A function of an energy makes its table of 2^n energies by one Walsh transform; some take a table.
Ensembles of more spins are had where the graph of interactions is narrow, see `cost`, and of
tables that are split over the devices of a mesh, which stay so.
"""

from ._cost import Cost as Cost
from ._cost import cost as cost
from ._dynamics import MetastableSets as MetastableSets
from ._dynamics import glauber_spectrum as glauber_spectrum
from ._dynamics import metastable_sets as metastable_sets
from ._dynamics import relaxation_times as relaxation_times
from ._ensembles import Reduction as Reduction
from ._ensembles import conditional as conditional
from ._ensembles import correlations as correlations
from ._ensembles import density_of_states as density_of_states
from ._ensembles import energies as energies
from ._ensembles import entropy as entropy
from ._ensembles import free_energy as free_energy
from ._ensembles import heat_capacity as heat_capacity
from ._ensembles import log_partition as log_partition
from ._ensembles import magnetizations as magnetizations
from ._ensembles import marginal as marginal
from ._ensembles import mean_energy as mean_energy
from ._ensembles import probabilities as probabilities
from ._ensembles import reduction as reduction
from ._ensembles import sample as sample
from ._gibbs_potential import gibbs_potential as gibbs_potential
from ._information import mutual_information as mutual_information
from ._minima import Lowest as Lowest
from ._minima import Retention as Retention
from ._minima import barriers as barriers
from ._minima import lowest as lowest
from ._minima import retention as retention
from ._minima import single_flip_minima as single_flip_minima
from ._planar import planar_log_partition as planar_log_partition
from ._tables import boltzmann_weights as boltzmann_weights
from ._tables import coarse_grain as coarse_grain
from ._tables import conjoint_potential as conjoint_potential
from ._tables import generating_function as generating_function
from ._tables import gibbs_gap as gibbs_gap
from ._tables import legendre_potential as legendre_potential
