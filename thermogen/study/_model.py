"""What the page shows of a learned energy, whatever its class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..energies import (
    AbstractEnergy,
    AbstractMultilinear,
    Interactions,
    has_terms,
    layers,
    n_visible,
    terms,
)

_MOST_SPINS = 1024  # of a matrix that is drawn


class Couplings(NamedTuple):
    """Pair couplings in energy units.

    Attributes:
        matrix: symmetric, shape `(n, n)`; weights of hidden by visible spins where the energy has
            two layers, shape `(hidden, visible)`.
        fields: fields on the visible spins, shape `(n,)`.
        layered: whether it has two layers.
    """

    matrix: np.ndarray
    fields: np.ndarray
    layered: bool


def couplings_of(energy: AbstractEnergy) -> Couplings | None:
    """Pair couplings and fields; None where they say nothing, or there are too many.

    Of a multilinear energy they are its derivatives at m = 0, of terms of any order.
    """
    if not isinstance(energy, AbstractMultilinear) or energy.n_spins > _MOST_SPINS:
        return None
    if (pair := layers(energy)) is not None and n_visible(energy) < energy.n_spins:
        return Couplings(np.asarray(pair.weights).T, np.asarray(pair.first), True)
    if has_terms(energy):
        return _of_terms(terms(energy))
    origin = jnp.zeros(energy.n_spins)
    matrix = -np.asarray(jax.hessian(energy)(origin), float)
    return Couplings(matrix, -np.asarray(jax.grad(energy)(origin), float), False)


def _of_terms(listed: Interactions) -> Couplings:
    """Those of terms of one and of two spins."""
    n = listed.n_spins
    fields, matrix = np.zeros(n), np.zeros((n, n))
    for table, values in zip(listed.sets, listed.couplings, strict=True):
        if table.order == 1:
            np.add.at(fields, table.indices[:, 0], values)
        if table.order == 2:
            np.add.at(matrix, tuple(table.indices.T), values)
    return Couplings(matrix + matrix.T, fields, False)


def kind_of(energy: AbstractEnergy) -> str:
    """What sort of model it is, as the subject of a sentence."""
    hidden = energy.n_spins - n_visible(energy)
    if hidden > 0 and layers(energy) is not None:
        return f"A restricted Boltzmann machine of {hidden} hidden and {n_visible(energy)} visible"
    if not has_terms(energy):
        return f"An energy of the class {type(energy).__name__} of {energy.n_spins}"
    order = max((table.order for table in terms(energy).sets), default=1)
    what = {1: "An energy of fields alone", 2: "A pairwise energy"}
    return f"{what.get(order, f'An energy of terms of up to {order} spins')} of {energy.n_spins}"
