"""The stage of a study that fills what is missing in its samples, by the model that they taught."""

import jax
import jax.numpy as jnp
import numpy as np

from ..retrieval import recall
from ..runs import Place
from ._progress import Tell
from ._study import Study

_AT_ONCE = 64  # rows
_ANSWERS, _CHAINS = 4, 32


def fill(study: Study, tell: Tell, place: Place) -> None:
    """The most probable completion of every sample with gaps, for all stages that follow."""
    spins = study.source.spins.copy()
    rows = np.flatnonzero(np.any(spins == 0, axis=1))
    keys = jax.random.split(study.key(11), len(rows))
    answer = jax.vmap(
        lambda cue, key: recall(
            study.energy, study.beta, cue, key=key, capacity=_ANSWERS, n_chains=_CHAINS
        )
    )
    for first in range(0, len(rows), _AT_ONCE):
        tell(first, len(rows), f"{first} of {len(rows)} samples")
        # Always as many, so that all parts share a program.
        some = np.resize(np.arange(first, min(first + _AT_ONCE, len(rows))), _AT_ONCE)
        found = answer(jnp.asarray(spins[rows[some]]), keys[some])
        best = np.asarray(found.configurations[:, 0], float)
        # Where no answer was found a mean still tells the more probable value.
        means = np.where(np.asarray(found.magnetizations) < 0, -1.0, 1.0)
        spins[rows[some]] = np.where(best == 0, means, best)
    study.filled = spins
    count = int(np.sum(study.source.spins == 0))
    tell(len(rows), len(rows), f"{count} entries of {len(rows)} samples")
