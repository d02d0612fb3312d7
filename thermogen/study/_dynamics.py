"""Stages of a study after the search: what traps the dynamics, and the barriers between states."""

import numpy as np

from ..energies import AbstractEnergy
from ..kinetics import BoundStates, find_bound_states
from ..landscape import barriers
from ..runs import Place
from ..search import Library
from ._beside import factorising
from ._learning import points
from ._progress import Tell
from ._study import Study

# Trajectories from each candidate, and fewer beyond so many spins; their time grows with n^2 where
# all spins are coupled. Candidates are left out where all trajectories together would take hours.
_TRAJECTORIES, _FEW_TRAJECTORIES, _MANY_SPINS = 128, 32, 128
_BUDGET, _LEAST_CANDIDATES = 2**33, 64
_DESCENTS = 256
# States whose barriers are climbed: all of them up to so many spins, fewer beyond.
_TREE_STATES, _TREE_SPINS = 12, 128
_NEIGHBOURS, _ROUNDS = 4, 2


def diagnose(study: Study, tell: Tell, place: Place) -> None:
    """Certify the states of the library, and look for others among single-flip minima."""
    tell(0, None, "")
    study.bound_states = bound_states(study, study.energy, study.library, place)
    count = study.bound_states.certificate.count
    tell(1, 1, f"{count} bound state{'' if count == '1' else 's'}")


def bound_states(
    study: Study,
    energy: AbstractEnergy,
    library: Library | None,
    place: Place,
    *,
    n_descents: int = _DESCENTS,
    **options: int,
) -> BoundStates:
    """What traps the dynamics of an energy that was learned from the samples of a study.

    Of the samples some descend at zero temperature, and as many random corners; `options` are those
    of `find_bound_states`.
    """
    n_spins = energy.n_spins
    n_trajectories = _TRAJECTORIES if n_spins <= _MANY_SPINS else _FEW_TRAJECTORIES
    return find_bound_states(
        energy,
        study.beta,
        key=study.key(3),
        threshold=max(study.settings.threshold, 10 / n_spins),
        library=library,
        starts=_corners(study)[:n_descents],
        n_starts=n_descents,
        capacity=max(_BUDGET // (n_trajectories * n_spins**2), _LEAST_CANDIDATES),
        n_trajectories=n_trajectories,
        **options,
        **place.options(),
    )


def some_samples(study: Study) -> np.ndarray:
    """A few samples at random, always the same."""
    spins = study.samples
    draw = np.random.default_rng(study.settings.seed)
    return spins[draw.permutation(len(spins))[:_DESCENTS]]


def _corners(study: Study) -> np.ndarray:
    """Those samples as configurations of all spins; hidden ones have the sign of their mean."""
    return np.where(points(study, some_samples(study)) < 0, -1.0, 1.0)


def climb(study: Study, tell: Tell, place: Place) -> None:
    """Barriers between the lowest states, where there are two and saddles are found quickly."""
    library = study.library
    assert library is not None
    share = min(1.0, (_TREE_SPINS / study.energy.n_spins) ** 2)
    lowest = library[: int(share * _TREE_STATES)]
    if lowest.size < 2:
        tell(1, 1, "left out: one state, or too many spins")
        return
    tell(0, None, "")
    with factorising:
        study.barriers = barriers(
            study.settings.functional.free_energy,
            study.energy,
            study.beta,
            lowest,
            n_neighbours=_NEIGHBOURS,
            n_rounds=_ROUNDS,
        )
    heights = study.barriers.heights
    joined = np.isfinite(heights[np.triu_indices_from(heights, 1)])
    tell(1, 1, f"{joined.sum()} of {len(joined)} pairs of states joined")
