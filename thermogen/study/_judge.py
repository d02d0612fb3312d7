"""The stage of a study that judges its model by samples that it has not learned."""

from typing import Any

import numpy as np

from ..datasets import split
from ..energies import AbstractEnergy
from ..learning import RESULTS, FitResult, RidgeChoice, default_l2, fit, log_likelihood
from ..runs import Place
from ._learning import independent, start, way_to_learn
from ._progress import Tell
from ._study import HeldOut, Study
from ._temperature import best_beta, surprises

# Fewer samples than so many are not worth a judgement.
LEAST_SAMPLES = 10
# Strengths of a ridge that are tried, over the default of the pseudolikelihood.
_RELATIVE = 10 ** np.arange(0, -2.01, -0.5)
# An inverse temperature other than 1 has to be worth it by so many standard errors.
_SIGMAS = 2.0


def choose_by_likelihood(study: Study, place: Place) -> RidgeChoice:
    """The ridge by which a model of four samples in five gives the rest the highest likelihood."""
    spins, shares = study.source.spins, study.source.shares()
    learned, is_judge = parted(study)
    strengths = float(default_l2(spins.shape[1], study.source.size)) * _RELATIVE
    held_out = np.zeros(len(strengths))
    energy = start(study, spins, learned / learned.sum())
    for index, strength in enumerate(strengths):
        objective, penalty = way_to_learn(study, energy, strength / learned.sum())
        model = fit(
            objective,
            energy,
            spins,
            key=study.key(8),
            weights=learned,
            penalty=penalty,
            **place.options(index, "fit"),
        ).energy
        held_out[index] = -log_likelihood(
            model,
            spins[is_judge],
            key=study.key(8),
            weights=shares[is_judge],
            **place.options(index, "likelihood"),
        ).value
    return RidgeChoice(float(strengths[np.argmin(held_out)]), strengths, held_out)


def can_judge(study: Study) -> bool:
    """Whether there are samples enough, with weights on both sides, to hold some of them out."""
    if min(len(study.source.spins), study.source.size) < LEAST_SAMPLES:
        return False
    learned, is_judge = parted(study)
    return bool(learned.any() and study.source.shares()[is_judge].any())


def parted(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Share of each sample in what is learned, 0 for those that judge; and which these are.

    So a fit to a part of the samples and one to all of them share a program.
    """
    count = len(study.source.spins)
    rows = split(np.arange(count)[:, None], seed=study.settings.seed).held_out[:, 0]
    is_judge = np.isin(np.arange(count), rows)
    return np.where(is_judge, 0, study.source.shares()), is_judge


def judge(study: Study, tell: Tell, place: Place) -> None:
    """Learn from four samples in five, and judge by the rest: likelihood, and temperature.

    A model that was given is judged by all samples.
    """
    spins, shares = study.source.spins, study.source.shares()
    tell(0, None, "")
    if study.given:
        study.held_out = _judgement(study, study.energy, (spins, shares), (spins, shares), place)
        tell(1, 1, _figures(study.held_out))
        return
    if not can_judge(study):
        tell(1, 1, "left out: too few samples")
        return
    learned, is_judge = parted(study)
    judges = spins[is_judge], shares[is_judge]
    energy, curve = _learning_curve(study, learned, judges, place)
    found = _judgement(study, energy, (spins, learned), judges, place)
    study.held_out = found._replace(energy=energy, **curve)
    tell(1, 1, _figures(study.held_out))


def _learning_curve(
    study: Study, shares: np.ndarray, judges: Any, place: Place
) -> tuple[AbstractEnergy, dict[str, np.ndarray]]:
    """A model of the samples by these shares, and on the way to it both losses."""
    assert study.l2 is not None
    training = study.source.spins, shares
    energy = start(study, study.source.spins, shares / shares.sum())
    # A ridge stands for a prior, which weighs more where the samples are fewer.
    objective, penalty = way_to_learn(study, energy, study.l2 / shares.sum())
    looks: list[tuple[float, ...]] = []

    def look(progress: FitResult) -> None:
        # Of samples with gaps these losses are no sums over what is known alone.
        if not study.source.has_gaps:
            looks.append((len(progress.history), *_both_losses(progress.energy, training, judges)))

    look(FitResult(energy, np.zeros(0), RESULTS.unfinished))

    found = fit(
        objective,
        energy,
        study.source.spins,
        key=study.key(8),
        weights=shares,
        penalty=penalty,
        callback=look,
        **place.options("fit"),
    )
    steps, ours, theirs = np.reshape(looks, (-1, 3)).T
    return found.energy, {"steps": steps.astype(int), "training": ours, "held_out": theirs}


def _both_losses(energy: AbstractEnergy, *parts: Any) -> list[float]:
    """Mean of `-sum_k ln P(s_k | rest)` over each part."""
    return [float(np.average(surprises(energy, spins)[0], weights=w)) for spins, w in parts]


def _judgement(
    study: Study, energy: AbstractEnergy, training: Any, judges: Any, place: Place
) -> HeldOut:
    spins, shares = judges
    beta, error = best_beta(study, energy, spins, shares)
    chosen = beta if abs(beta - 1) > _SIGMAS * error else 1.0
    if study.settings.beta is not None or study.given:
        chosen = study.settings.beta or 1.0
    options: Any = {"key": study.key(8), "weights": shares, **place.options("likelihood")}
    found = log_likelihood(energy, spins, chosen, **options)
    free = independent(training[0], training[1] / training[1].sum())
    return HeldOut(
        energy=None,
        n_samples=len(spins),
        beta=chosen,
        best_beta=beta,
        best_beta_error=error,
        log_likelihood=float(found.value),
        error=float(found.standard_error),
        log_partition_error=float(found.log_partition.standard_error),
        independent=float(log_likelihood(free, spins, key=study.key(8), weights=shares).value),
        steps=np.zeros(0, int),
        training=np.zeros(0),
        held_out=np.zeros(0),
    )


def _figures(held_out: HeldOut) -> str:
    return (
        f"ln p = {held_out.log_likelihood:.4g} ± {held_out.error:.2g} nats a sample, "
        f"beta = {held_out.beta:.3g}"
    )
