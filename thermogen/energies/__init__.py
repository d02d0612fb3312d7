"""Energies: what a model is."""

from ._base import AbstractEnergy as AbstractEnergy
from ._base import AbstractMultilinear as AbstractMultilinear
from ._base import conditional_field as conditional_field
from ._base import conditional_fields as conditional_fields
from ._base import constrain as constrain
from ._base import embed as embed
from ._base import flip_gaps as flip_gaps
from ._base import is_flip_symmetric as is_flip_symmetric
from ._base import local_fields as local_fields
from ._base import n_visible as n_visible
from ._base import nonlinear_fourth_cumulant as nonlinear_fourth_cumulant
from ._base import nonlinear_third_moment as nonlinear_third_moment
from ._base import nonlinear_variance as nonlinear_variance
from ._base import parameter_copies as parameter_copies
from ._base import parameter_degrees as parameter_degrees
from ._base import product_mean as product_mean
from ._base import squared_norm as squared_norm
from ._base import visible_free_energy as visible_free_energy
from ._clamp import Clamped as Clamped
from ._complete import Complete as Complete
from ._complete import complete as complete
from ._interactions import Interactions as Interactions
from ._interactions import SpinSets as SpinSets
from ._mixture import Mixture as Mixture
from ._pairwise import Pairwise as Pairwise
from ._rbm import RBM as RBM
