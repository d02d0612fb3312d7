"""Experts: one model for each bound state; their mixture is itself an energy."""

from ._fit import fit_experts as fit_experts
from ._learn import Round as Round
from ._likelihood import log_partitions as log_partitions
from ._likelihood import negative_log_likelihood as negative_log_likelihood
from ._likelihood import normalised as normalised
from ._likelihood import responsibilities as responsibilities
from ._shares import basin_shares as basin_shares
from ._shares import library_shares as library_shares
