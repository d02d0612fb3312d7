"""Markov chains that draw configurations from the Boltzmann distribution, and ln Z by them."""

from ._annealing import Estimate as Estimate
from ._annealing import Measurement as Measurement
from ._annealing import annealed_importance_sampling as annealed_importance_sampling
from ._annealing import (
    reverse_annealed_importance_sampling as reverse_annealed_importance_sampling,
)
from ._base import AbstractKernel as AbstractKernel
from ._base import AbstractSampler as AbstractSampler
from ._clusters import Houdayer as Houdayer
from ._clusters import SwendsenWang as SwendsenWang
from ._diagnostics import Diagnosis as Diagnosis
from ._diagnostics import diagnose as diagnose
from ._diagnostics import effective_sample_size as effective_sample_size
from ._diagnostics import integrated_autocorrelation_time as integrated_autocorrelation_time
from ._diagnostics import split_rhat as split_rhat
from ._gibbs import Gibbs as Gibbs
from ._gibbs import Metropolis as Metropolis
from ._integration import ThermodynamicIntegral as ThermodynamicIntegral
from ._integration import thermodynamic_integration as thermodynamic_integration
from ._observers import AbstractObserver as AbstractObserver
from ._observers import Correlations as Correlations
from ._observers import EnergyHistogram as EnergyHistogram
from ._observers import LastStates as LastStates
from ._observers import Mean as Mean
from ._observers import Overlaps as Overlaps
from ._observers import PatternOverlaps as PatternOverlaps
from ._observers import StateTrace as StateTrace
from ._observers import Trace as Trace
from ._population import PopulationEstimate as PopulationEstimate
from ._population import population_annealing as population_annealing
from ._reweighting import Reweighting as Reweighting
from ._reweighting import multi_histogram as multi_histogram
from ._reweighting import multi_histogram_reweighting as multi_histogram_reweighting
from ._sample import sample as sample
from ._sweeps import sweep_population as sweep_population
from ._tempering import ParallelTempering as ParallelTempering
from ._tempering import TemperingState as TemperingState
from ._tempering import tune_ladder as tune_ladder
