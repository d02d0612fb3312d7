"""The stage of a study that takes moments of the model, and ln Z where it is exact."""

import numpy as np

from .. import exact
from ..energies import AbstractEnergy, has_terms, layers, n_visible
from ..runs import Place
from ..sampling import population_annealing
from ._progress import Tell
from ._study import Moments, Source, Study

# Tables over so many spins take no time.
_MOST_SUMMED = 20
_AT_ONCE = 2**15  # configurations
_RUNGS, _POPULATIONS = 128, 20
_REPLICAS, _FEW_REPLICAS, _BUDGET = 128, 16, 2**33


def measure(study: Study, tell: Tell, place: Place) -> None:
    """Moments of the model at the study's beta: summed where that is quick, else by replicas."""
    energy, beta = study.energy, study.beta
    tell(0, None, "")
    if energy.n_spins <= _MOST_SUMMED:
        study.moments = _summed(energy, beta)
        tell(1, 1, "summed over all configurations")
        return
    study.moments = _sampled(study, energy, beta, place)._replace(
        log_partition=float(exact.log_partition(energy, beta)) if _is_narrow(energy) else np.nan
    )
    tell(1, 1, "by cooled replicas")


def of_data(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Means `(n,)` and mean products `(n, n)` of the samples, each over those that know it."""
    spins, shares = source.spins, source.shares()[:, None]
    known = (spins != 0).astype(float)
    with np.errstate(invalid="ignore"):  # NaN where no sample knows it
        means = (shares * spins).sum(axis=0) / (shares * known).sum(axis=0)
        return means, (shares * spins).T @ spins / ((shares * known).T @ known)


def _summed(energy: AbstractEnergy, beta: float) -> Moments:
    """By the table of all energies, of which one short program makes the list."""
    n = n_visible(energy)
    logits = -beta * np.asarray(exact.energies(energy), float)
    log_z = float(np.logaddexp.reduce(logits))
    means, pairs = np.zeros(n), np.zeros((n, n))
    for first in range(0, len(logits), _AT_ONCE):
        p = np.exp(logits[first : first + _AT_ONCE] - log_z)
        index = np.arange(first, first + len(p))
        spins = 2.0 * (index[:, None] >> np.arange(n) & 1) - 1
        means += p @ spins
        pairs += (p[:, None] * spins).T @ spins
    return Moments(means, pairs, 0.0, log_z)


def _is_narrow(energy: AbstractEnergy) -> bool:
    """Whether ln Z is a sum over few spins, of one layer or of a frontier."""
    if (pair := layers(energy)) is not None:
        return min(pair.weights.shape) <= _MOST_SUMMED
    return has_terms(energy) and exact.cost(energy).width <= _MOST_SUMMED


def _sampled(study: Study, energy: AbstractEnergy, beta: float, place: Place) -> Moments:
    n = n_visible(energy)
    room = _BUDGET // (_RUNGS * _POPULATIONS * energy.n_spins**2)
    pool = population_annealing(
        energy,
        np.linspace(0, beta, _RUNGS + 1),
        key=study.key(9),
        n_chains=int(np.clip(room, _FEW_REPLICAS, _REPLICAS)),
        n_populations=_POPULATIONS,
        **place.options(),
    )
    spins = np.asarray(pool.spins, float)[..., :n]
    weights = np.asarray(pool.weights, float)
    of_each = np.einsum("pci,pcj->pij", spins, spins) / spins.shape[1]
    means, pairs = weights @ spins.mean(axis=1), np.tensordot(weights, of_each, 1)
    spread = np.tensordot(weights**2, (of_each - pairs) ** 2, 1)
    error = float(np.sqrt(spread[~np.eye(n, dtype=bool)].mean())) if n > 1 else 0.0
    known = np.isfinite(float(pool.standard_error))
    return Moments(means, pairs, error if known else np.inf, np.nan)
