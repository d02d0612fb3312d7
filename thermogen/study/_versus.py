"""Two models side by side: likelihoods, divergences, and library against library."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from ..energies import AbstractEnergy, n_visible
from ..learning import log_likelihood
from ..meanfield import NaiveMeanField
from ..sampling import Divergence, divergence
from ..search import Library, find_minima
from ._learning import n_parameters
from ._summary import finite

# Random starts of a library that is not at hand.
_STARTS = 320
# States of one library and of the other are the same beyond this overlap.
SAME = 0.9


class Side(NamedTuple):
    """One of two models.

    Attributes:
        name: its name.
        energy: the model.
        library: the minima of its naive mean-field free energy at the inverse temperature of the
            comparison; None to search for them.
    """

    name: str
    energy: AbstractEnergy
    library: Library | None = None


class Versus(NamedTuple):
    """Two models side by side.

    Attributes:
        names: their names.
        parameters: number of their couplings and fields.
        log_likelihoods: mean of ln p of the data with its standard error, of each, in nats per
            sample; None without data.
        gain: mean of `ln p_b - ln p_a` and its standard error, sample by sample; None without data.
        divergence: Kullback-Leibler divergences, in nats.
        free_energies: F of the states of each, ascending.
        nearest: for every state of each the state of the other that it overlaps with most.
        overlaps: that overlap, of the visible magnetizations divided by their lengths.
    """

    names: tuple[str, str]
    parameters: tuple[int, int]
    log_likelihoods: tuple[tuple[float, float], ...] | None
    gain: tuple[float, float] | None
    divergence: Divergence
    free_energies: tuple[np.ndarray, np.ndarray]
    nearest: tuple[np.ndarray, np.ndarray]
    overlaps: tuple[np.ndarray, np.ndarray]


def set_side_by_side(
    a: Side, b: Side, beta: float = 1.0, *, key: Any, data: np.ndarray | None = None
) -> Versus:
    """Compare two models of the same visible spins at one inverse temperature.

    Args:
        a: one model.
        b: the other.
        beta: inverse temperature.
        key: random key.
        data: samples of +-1 that both are judged by, 0 where a spin is unknown, shape
            `(samples, visible)`.

    Raises:
        ValueError: for models, or data, of different numbers of visible spins.
    """
    keys = jax.random.split(key, 4)
    apart = divergence(a.energy, b.energy, beta, key=keys[0])
    likelihoods, gain = None, None
    if data is not None:
        found = [log_likelihood(x.energy, data, beta, key=keys[1]) for x in (a, b)]
        likelihoods = tuple((float(x.value), float(x.standard_error)) for x in found)
        gains = np.asarray(found[1].of_samples - found[0].of_samples, float)[data.any(axis=1)]
        errors = [float(x.log_partition.standard_error) for x in found]
        spread = gains.std(ddof=1) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
        gain = float(gains.mean()), math.hypot(spread, *errors)
    libraries = [_library(x, beta, own) for x, own in zip((a, b), keys[2:], strict=True)]
    states = [_directions(x, n_visible(a.energy)) for x in libraries]
    overlaps = states[0] @ states[1].T
    return Versus(
        names=(a.name, b.name),
        parameters=(n_parameters(a.energy), n_parameters(b.energy)),
        log_likelihoods=likelihoods,
        gain=gain,
        divergence=apart,
        free_energies=(_free_energies(libraries[0]), _free_energies(libraries[1])),
        nearest=(_nearest(overlaps), _nearest(overlaps.T)),
        overlaps=(overlaps.max(axis=1, initial=-1), overlaps.max(axis=0, initial=-1)),
    )


def _library(side: Side, beta: float, key: Any) -> Library:
    """All states, mirror images too."""
    library = side.library
    if library is None:
        library = find_minima(NaiveMeanField(), side.energy, beta, key=key, n_starts=_STARTS)
    return library.expanded()[:]


def _directions(library: Library, n: int) -> np.ndarray:
    m = np.asarray(library.magnetizations)[:, :n]
    lengths = np.linalg.norm(m, axis=1, keepdims=True)
    return m / np.where(lengths > 0, lengths, 1)


def _free_energies(library: Library) -> np.ndarray:
    return np.asarray(library.free_energies, float)


def _nearest(overlaps: np.ndarray) -> np.ndarray:
    if overlaps.shape[1] == 0:
        return np.full(len(overlaps), -1)
    return np.argmax(overlaps, axis=1)


def versus_figures(found: Versus) -> dict[str, Any]:
    """All figures of a comparison, ready for JSON."""
    apart = found.divergence._asdict()
    return {
        "models": [
            {
                "name": name,
                "n_parameters": count,
                "n_states": len(found.free_energies[k]),
                "n_states_of_both": int(np.sum(found.overlaps[k] > SAME)),
                "log_likelihood": None
                if found.log_likelihoods is None
                else [finite(x) for x in found.log_likelihoods[k]],
                "states": [
                    {"free_energy": finite(f), "nearest": int(j), "overlap": finite(q)}
                    for f, j, q in zip(
                        found.free_energies[k], found.nearest[k], found.overlaps[k], strict=True
                    )
                ],
            }
            for k, (name, count) in enumerate(zip(found.names, found.parameters, strict=True))
        ],
        "gain": None if found.gain is None else [finite(x) for x in found.gain],
        "divergence": {
            name: [finite(float(x.value)), finite(float(x.standard_error))]
            for name, x in apart.items()
        },
    }
