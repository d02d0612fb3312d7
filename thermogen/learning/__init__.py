"""Learning: one potential, `<E>_data - A(model)`, and several ways to its gradient."""

from ._fit import FitResult as FitResult
from ._fit import fit as fit
from ._objectives import AbstractObjective as AbstractObjective
from ._objectives import MeanFieldLikelihood as MeanFieldLikelihood
from ._objectives import PersistentCD as PersistentCD
from ._objectives import Pseudolikelihood as Pseudolikelihood
