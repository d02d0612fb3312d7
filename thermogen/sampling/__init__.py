"""Markov chains that draw configurations from the Boltzmann distribution."""

from ._base import AbstractSampler as AbstractSampler
from ._gibbs import Gibbs as Gibbs
from ._gibbs import Metropolis as Metropolis
from ._sweeps import sweep_population as sweep_population
