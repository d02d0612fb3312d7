"""Samplers of the Boltzmann distribution."""

from ._gibbs import gibbs_sweep as gibbs_sweep
