"""Which model a study learns, and by what: all stages that learn ask here."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..energies import (
    AbstractEnergy,
    constrain,
    embed,
    n_enumerated,
    parameter_copies,
    untrained,
)
from ..learning import (
    L2,
    AbstractObjective,
    AbstractPenalty,
    ExactLikelihood,
    PersistentCD,
    Pseudolikelihood,
)
from ._settings import Objective
from ._study import Study

# Spins of a partition function that is enumerated at every step of a fit.
_MAX_ENUMERATED = 12


def start(study: Study, spins: np.ndarray, shares: np.ndarray) -> AbstractEnergy:
    """The model of a study before it has learned anything but the mean of each spin."""
    return untrained(study.settings.model, _means(spins, shares), key=study.key(10))


def independent(spins: np.ndarray, shares: np.ndarray) -> AbstractEnergy:
    """Free spins with the means of the samples; one that never turns does once in ten thousand."""
    return untrained("interactions:1", _means(spins, shares), key=jax.random.key(0))


def _means(spins: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean of each spin over the samples that know it; 0 where none does."""
    known = shares @ (spins != 0)
    return np.clip(shares @ spins / np.where(known > 0, known, 1), -1, 1)


def way_to_learn(
    study: Study, energy: AbstractEnergy, l2: float
) -> tuple[AbstractObjective, AbstractPenalty | None]:
    """The objective of a study, and the penalty that goes with it."""
    if study.settings.way is Objective.pseudolikelihood:
        return Pseudolikelihood(l2), None
    return by_likelihood(energy, l2)


def by_likelihood(
    energy: AbstractEnergy, l2: float
) -> tuple[AbstractObjective, AbstractPenalty | None]:
    """The likelihood itself where it is enumerated in no time, else that of persistent chains."""
    # Some samples may leave a spin constant: its field needs a bound too.
    penalty = L2(l2, fields=0.1 * l2) if l2 > 0 else None
    return ExactLikelihood() if is_enumerated(energy) else PersistentCD(), penalty


def is_enumerated(energy: AbstractEnergy) -> bool:
    """Whether the likelihood of a model takes no time."""
    return n_enumerated(energy) <= _MAX_ENUMERATED


def points(study: Study, spins: np.ndarray) -> Float[np.ndarray, "samples n"]:
    """Samples as configurations of all spins; hidden ones take their means."""
    embedded = jax.vmap(lambda s: embed(study.energy, study.beta, s))
    return np.asarray(embedded(jnp.asarray(spins, float)))


def n_parameters(energy: AbstractEnergy) -> int:
    """Number of couplings and fields, each counted once."""
    ones = constrain(jax.tree.map(jnp.ones_like, energy))
    counts = jax.tree.map(lambda x, copies: jnp.sum(x) / copies, ones, parameter_copies(energy))
    return round(float(sum(jax.tree.leaves(counts))))
