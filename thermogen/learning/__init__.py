"""Learning: one potential, `<E>_data - A(model)`, and several ways to its gradient."""

from ._fit import FitResult as FitResult
from ._fit import fit as fit
from ._inversion import SessakMonasson as SessakMonasson
from ._inversion import invert as invert
from ._inversion import moments as moments
from ._objectives import AbstractObjective as AbstractObjective
from ._objectives import MeanFieldLikelihood as MeanFieldLikelihood
from ._objectives import PersistentCD as PersistentCD
from ._objectives import Pseudolikelihood as Pseudolikelihood
from ._phases import coexistence_temperature as coexistence_temperature
from ._phases import library_mass as library_mass
from ._phases import required_gap as required_gap
from ._potential import ExactLikelihood as ExactLikelihood
from ._potential import coarse_grain as coarse_grain
from ._potential import conjoint_potential as conjoint_potential
from ._potential import generating_function as generating_function
from ._potential import gibbs_gap as gibbs_gap
from ._potential import legendre_potential as legendre_potential
from ._potential import potential as potential
from ._potential import weights as weights
