"""Energies: what a model is."""

from ._base import AbstractEnergy as AbstractEnergy
from ._base import AbstractMultilinear as AbstractMultilinear
from ._base import constrain as constrain
from ._base import flip_gaps as flip_gaps
from ._base import is_flip_symmetric as is_flip_symmetric
from ._base import local_fields as local_fields
from ._base import nonlinear_variance as nonlinear_variance
from ._interactions import Interactions as Interactions
from ._interactions import SpinSets as SpinSets
from ._pairwise import Pairwise as Pairwise
from ._rbm import RBM as RBM
