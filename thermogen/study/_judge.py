"""The stage of a study that judges its model by samples that it has not learned."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Beta, Key
from ..datasets import split
from ..energies import AbstractEnergy, conditional_fields
from ..learning import (
    FitResult,
    RidgeChoice,
    checked_shares,
    default_l2,
    fit,
    log_likelihood,
)
from ..runs import Place
from ._learning import independent, start, way_to_learn
from ._progress import Tell
from ._settings import Objective
from ._study import HeldOut, Study

# Fewer samples than so many are not worth a judgement.
LEAST_SAMPLES = 10
# Strengths of a ridge that are tried, over the default of the pseudolikelihood.
_RELATIVE = 10 ** np.arange(0, -2.01, -0.5)
# Samples that tell the inverse temperature; more would change no digit that counts.
_JUDGES = 4096
_NEWTON_STEPS = 30
# Relative steps of beta: of the last one, and of a difference of likelihoods.
_TOLERANCE, _STEP = 3e-3, 0.1
# An inverse temperature other than 1 has to be worth it by so many standard errors.
_SIGMAS = 2.0


def choose_by_likelihood(study: Study, place: Place) -> RidgeChoice:
    """The ridge by which a model of four samples in five gives the rest the highest likelihood."""
    spins, shares = study.source.spins, study.source.shares()
    learned, is_judge = _parted(study)
    size = 1 / np.sum(np.square(shares))
    strengths = float(default_l2(spins.shape[1], size)) * _RELATIVE
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


def _parted(study: Study) -> tuple[np.ndarray, np.ndarray]:
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
    if len(spins) < LEAST_SAMPLES:
        tell(1, 1, "left out: too few samples")
        return
    learned, is_judge = _parted(study)
    if not (learned.any() and shares[is_judge].any()):
        tell(1, 1, "left out: one part of the samples has no weight")
        return
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
    looks = [(0, *_both_losses(energy, training, judges))]

    def look(progress: FitResult) -> None:
        looks.append((len(progress.history), *_both_losses(progress.energy, training, judges)))

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
    steps, ours, theirs = np.transpose(looks)
    return found.energy, {"steps": steps.astype(int), "training": ours, "held_out": theirs}


def _both_losses(energy: AbstractEnergy, *parts: Any) -> list[float]:
    """Mean of `-sum_k ln P(s_k | rest)` over each part."""
    return [
        float(
            np.asarray(_surprises(energy, jnp.ones(()), jnp.asarray(spins, float))[0])
            @ (w / w.sum())
        )
        for spins, w in parts
    ]


def _judgement(
    study: Study, energy: AbstractEnergy, training: Any, judges: Any, place: Place
) -> HeldOut:
    spins, shares = judges
    beta, error = _inverse_temperature(study, energy, spins[:_JUDGES], shares[:_JUDGES])
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


def _inverse_temperature(
    study: Study, energy: AbstractEnergy, spins: np.ndarray, shares: np.ndarray
) -> tuple[float, float]:
    """The beta at which the objective of the study is best on samples, and its standard error.

    By Newton steps; the error is that of an M-estimator (Huber 1967).
    """
    share, _ = checked_shares(shares, len(spins))
    slopes_at = _conditional_slopes
    if study.settings.way is Objective.likelihood:
        slopes_at = partial(_likelihood_slopes, study.key(8))
    beta = 1.0
    for _ in range(_NEWTON_STEPS):
        slopes, curvatures = slopes_at(energy, beta, spins)
        curvature = share @ curvatures
        if not curvature > 0:
            break
        step = float(np.clip(-(share @ slopes) / curvature, -0.5 * beta, beta))
        beta += step
        if abs(step) < _TOLERANCE * beta:
            return beta, float(np.sqrt(np.sum(np.square(share * slopes))) / curvature)
    return 1.0, np.inf  # the samples follow the energy without exception, or not at all


def _conditional_slopes(
    energy: AbstractEnergy, beta: float, spins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # An array, for a Python number would be part of the program.
    found = _surprises(energy, jnp.asarray(beta, float), jnp.asarray(spins, float))
    return np.asarray(found[1], float), np.asarray(found[2], float)


def _likelihood_slopes(
    key: Key, energy: AbstractEnergy, beta: float, spins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By central differences of `-ln p`, with the same random numbers on both sides."""
    losses = [
        -np.asarray(log_likelihood(energy, spins, beta * (1 + k * _STEP), key=key).of_samples)
        for k in (-1, 0, 1)
    ]
    low, middle, high = (x.astype(float) for x in losses)
    return (high - low) / (2 * _STEP * beta), (high - 2 * middle + low) / (_STEP * beta) ** 2


@eqx.filter_jit
def _surprises(
    energy: AbstractEnergy, beta: Beta, spins: Float[Array, "samples n"]
) -> tuple[Float[Array, " samples"], ...]:
    """`-sum_k ln P(s_k | rest)` of each sample, and its derivatives by beta.

    Over the known spins; an unknown one acts on them by its mean of 0.
    """

    def surprise(beta, s):
        fields = conditional_fields(energy, beta, s)
        return jnp.sum(jnp.where(s == 0, 0, jax.nn.softplus(-2 * beta * s * fields)))

    slope = jax.grad(surprise)
    of_all = jax.vmap(
        lambda s: (surprise(beta, s), slope(beta, s), jax.grad(slope)(beta, s)),
    )
    return of_all(spins)


def _figures(held_out: HeldOut) -> str:
    return (
        f"ln p = {held_out.log_likelihood:.4g} ± {held_out.error:.2g} nats a sample, "
        f"beta = {held_out.beta:.3g}"
    )
