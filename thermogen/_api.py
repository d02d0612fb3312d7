"""All names of `thermogen`, which hands them out when one is first asked for."""

from . import datasets as datasets
from . import energies as energies
from . import exact as exact
from . import experts as experts
from . import interop as interop
from . import kinetics as kinetics
from . import landscape as landscape
from . import learning as learning
from . import meanfield as meanfield
from . import retrieval as retrieval
from . import runs as runs
from . import sampling as sampling
from . import search as search
from . import spins as spins
from . import storage as storage
from ._merging import merge as merge
from ._solution import Solution as Solution
from .energies import RBM as RBM
from .energies import AbstractEnergy as AbstractEnergy
from .energies import AbstractMultilinear as AbstractMultilinear
from .energies import Complete as Complete
from .energies import Interactions as Interactions
from .energies import Mixture as Mixture
from .energies import Pairwise as Pairwise
from .energies import flip_gaps as flip_gaps
from .energies import local_fields as local_fields
from .experts import fit_experts as fit_experts
from .kinetics import BoundStates as BoundStates
from .kinetics import Certificate as Certificate
from .kinetics import certify as certify
from .kinetics import find_bound_states as find_bound_states
from .landscape import barriers as barriers
from .landscape import disconnectivity_tree as disconnectivity_tree
from .learning import ExactLikelihood as ExactLikelihood
from .learning import FitResult as FitResult
from .learning import MeanFieldLikelihood as MeanFieldLikelihood
from .learning import PersistentCD as PersistentCD
from .learning import Pseudolikelihood as Pseudolikelihood
from .learning import fit as fit
from .meanfield import TAP as TAP
from .meanfield import AbstractFunctional as AbstractFunctional
from .meanfield import AdaptiveTAP as AdaptiveTAP
from .meanfield import Bethe as Bethe
from .meanfield import MirrorDescent as MirrorDescent
from .meanfield import NaiveMeanField as NaiveMeanField
from .meanfield import Plefka as Plefka
from .meanfield import solve as solve
from .meanfield import susceptibility as susceptibility
from .retrieval import Annealing as Annealing
from .retrieval import Recall as Recall
from .retrieval import recall as recall
from .runs import AbstractJob as AbstractJob
from .runs import run as run
from .sampling import AbstractSampler as AbstractSampler
from .sampling import Gibbs as Gibbs
from .sampling import HeatBath as HeatBath
from .sampling import Metropolis as Metropolis
from .sampling import ParallelTempering as ParallelTempering
from .sampling import annealed_importance_sampling as annealed_importance_sampling
from .sampling import sample as sample
from .search import Library as Library
from .search import find_minima as find_minima
from .search import quench as quench
from .spins import bits_from_spins as bits_from_spins
from .spins import enumerate_spins as enumerate_spins
from .spins import index_from_spins as index_from_spins
from .spins import overlap as overlap
from .spins import spins_from_bits as spins_from_bits
from .spins import spins_from_index as spins_from_index
from .walsh import inverse_walsh_transform as inverse_walsh_transform
from .walsh import walsh_transform as walsh_transform


class RESULTS(meanfield.RESULTS, learning.RESULTS):
    """The result codes of all rooms.

    `RESULTS[result]` is the message of a code, which says what to do, and `result ==
    RESULTS.converged` is the test. Codes are data: they pass through `jax.jit` and `jax.vmap`,
    and a batch of solves returns a batch of codes. Each room has a class of its own, such as
    `meanfield.RESULTS`, that adds codes; a code is the same one in each of these classes.
    """
