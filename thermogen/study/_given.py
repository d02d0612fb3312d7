"""The study of a model that was trained before, with data or without."""

import numpy as np

from .. import exact, interop
from .._checks import seeded_key
from ..energies import AbstractEnergy, n_visible
from ..learning import RESULTS, FitResult
from ..sampling import ParallelTempering, is_summed, sample
from ._learning import start
from ._settings import Settings
from ._source import picture_of
from ._study import Source, Study

_KINDS = "pairwise", "complete", "rbm", "interactions"
# Samples of its own that a model is studied with; replicas cool between these temperatures.
_DRAWS, _RUNGS, _HOTTEST, _SWEEPS = 1024, 16, 0.05, 200


def given_model(model: str) -> AbstractEnergy | None:
    """The model in a file; None for the name of one that is to be learned.

    Raises:
        ValueError: if the file is damaged, or holds no model.
        OSError: if it cannot be read.
    """
    if model.partition(":")[0] in _KINDS:
        return None
    try:
        return interop.read_model(model).energy
    except FileNotFoundError:
        raise ValueError(
            f"no model or file named {model!r}; expected pairwise, rbm:HIDDEN, "
            "interactions:DEGREE, complete, or the file of a model"
        ) from None


def begin(source: Source, settings: Settings, given: AbstractEnergy | None = None) -> Study:
    """A study before its first stage.

    Args:
        source: the data.
        settings: the settings.
        given: a model that was trained before; None to learn one.

    Raises:
        ValueError: if there is no such model, it is too large, or was given and has another number
            of spins than the data; and for settings of learning of a model that was given.
    """
    if given is None:
        job = Study(source, settings)
        if settings.model != "pairwise":  # which is no mistake, and large for a wide table
            start(job, source.spins, source.shares())
        return job
    if settings.l2 is not None or settings.objective is not None:
        raise ValueError(
            f"the model {settings.model} is studied as it is: it takes no l2 and no "
            "objective, by which others are learned"
        )
    if source.spins.shape[1] != n_visible(given):
        raise ValueError(
            f"{source.name} has {source.spins.shape[1]} spins; the model {settings.model} has "
            f"{n_visible(given)} visible ones"
        )
    return Study(source, settings, given=True, fit=FitResult(given, np.zeros(0), RESULTS.converged))


def drawn(energy: AbstractEnergy, settings: Settings) -> Source:
    """Samples of a model itself, at beta = 1, as data: exact ones where it is enumerated."""
    key = seeded_key(settings.seed)
    if energy.n_spins == n_visible(energy) and is_summed(energy):
        spins = exact.sample(energy, 1.0, key=key, n_samples=_DRAWS)
    else:
        ladder = ParallelTempering(np.geomspace(_HOTTEST, 1.0, _RUNGS))
        found = sample(
            ladder,
            energy,
            1.0,
            key=key,
            n_chains=_DRAWS // 8,
            n_sweeps=_SWEEPS,
            burn_in=_SWEEPS,
            thin=_SWEEPS // 8,
        )
        spins = found.reshape(-1, energy.n_spins)
    spins = np.asarray(spins, float)[:, : n_visible(energy)]
    return Source(f"samples of {settings.model}", spins, None, picture_of(spins.shape[1]))
