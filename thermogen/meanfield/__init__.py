"""Mean-field free energies: what a model's free energy looks like."""

from ._adaptive import AdaptiveTAP as AdaptiveTAP
from ._base import AbstractFunctional as AbstractFunctional
from ._base import entropy as entropy
from ._bethe import Bethe as Bethe
from ._bifurcations import Bifurcation as Bifurcation
from ._bifurcations import bifurcations as bifurcations
from ._continuation import Branch as Branch
from ._continuation import follow_beta as follow_beta
from ._continuation import follow_field as follow_field
from ._plefka import TAP as TAP
from ._plefka import NaiveMeanField as NaiveMeanField
from ._plefka import Plefka as Plefka
from ._propagation import belief_propagation as belief_propagation
from ._response import Validity as Validity
from ._response import susceptibility as susceptibility
from ._response import validity as validity
from ._solve import MirrorDescent as MirrorDescent
from ._solve import solve as solve
