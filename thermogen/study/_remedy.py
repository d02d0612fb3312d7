"""The stage of a study that sets a mixture of experts against one model, on held-out samples."""

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets import split
from ..energies import AbstractEnergy, Mixture
from ..experts import fit_experts
from ..learning import AbstractObjective, AbstractPenalty
from ..runs import Place
from ..sampling import log_partition
from ._learning import by_likelihood, is_enumerated, n_parameters, start, way_to_learn
from ._progress import Tell
from ._recall import ask
from ._study import Comparison, Contestant, Study

N_EXPERTS = 4
# Fewer samples than so many for each expert are not worth a comparison.
_LEAST_SAMPLES = 10
# Nor are those that would take minutes: samples times couplings.
_BUDGET = 2**25
_ROUNDS = 6
# Of a fit within a round: the next round goes on where it ends (generalised expectation and
# maximisation: Dempster, Laird and Rubin 1977).
_STEPS = 40
# First splits of the samples: into clusters, as suits patterns, and at random, as suits rules.
_STARTS = 2


def compare(study: Study, tell: Tell, place: Place) -> None:
    """Fit one model and a few experts to the same part of the data, and judge both by the rest."""
    spins = study.source.spins
    assert study.l2 is not None
    if not N_EXPERTS * _LEAST_SAMPLES <= len(spins) <= _BUDGET / spins.shape[1] ** 2:
        tell(1, 1, "left out for the number of samples and spins")
        return
    if study.source.has_gaps:
        tell(1, 1, "left out: samples with gaps")
        return
    training, held_out = split(spins, seed=study.settings.seed)
    weights, judging = (x[:, 0] for x in split(_weights(study), seed=study.settings.seed))
    if not (weights.any() and judging.any()):
        tell(1, 1, "left out: one part of the samples has no weight")
        return
    judging = judging / judging.sum()
    mixtures = []
    for index, size in enumerate((1, N_EXPERTS)):
        tell(index, 2, "one model" if size == 1 else f"{size} experts")
        mixtures.append(_learned(study, training, weights, size, tell, place.at(size)))
    weights = weights / weights.sum()
    costs = [_costs(mixture, held_out) for mixture in mixtures]
    contestants = [
        _judged(study, mixture, float(weights @ _costs(mixture, training)), judging @ own, held_out)
        for mixture, own in zip(mixtures, costs, strict=True)
    ]
    gains = costs[0] - costs[1]
    gain, size = judging @ gains, 1 / np.sum(judging**2)
    variance = judging @ (gains - gain) ** 2 * size / max(size - 1, 1)
    study.comparison = Comparison(
        *contestants,
        gain=float(gain),
        error=float(np.sqrt(variance / size)),
        n_held_out=len(held_out),
        objective=type(_way_to_learn(study, mixtures[0].expert(0), 1.0)[0]).__name__,
    )
    study.experts = mixtures[1]
    tell(2, 2, f"experts gain {study.comparison.gain:.3g} nats a sample")


def _learned(
    study: Study, training: np.ndarray, weights: np.ndarray, size: int, tell: Tell, place: Place
) -> Mixture:
    """A mixture of `size` experts, fitted to the training part of the data."""
    assert study.l2 is not None
    energy = start(study, training, weights / weights.sum())
    judged = study.held_out.energy if study.held_out is not None else None
    if size == 1 and judged is not None and not is_enumerated(energy):
        # The judge has learned from the same samples, by the same objective.
        found = log_partition(judged, 1.0, key=study.key(5), **place.options())
        return Mixture.of([judged], [1.0], [float(found.log_partition)])
    # A ridge stands for a prior: it weighs more where an expert has a share of the samples.
    share = size * len(study.source.spins) / len(training)
    objective, penalty = _way_to_learn(study, energy, share * study.l2)
    return fit_experts(
        energy,
        training,
        objective=objective,
        key=study.key(5),
        n_experts=size,
        n_starts=1 if size == 1 else _STARTS,
        penalty=penalty,
        n_rounds=1 if size == 1 else _ROUNDS,
        n_steps=None if size == 1 else _STEPS,
        weights=weights,
        callback=lambda found: tell(size > 1, 2, f"{size} experts, loss {found.loss:.4g}"),
        **place.options(),
    )


def _way_to_learn(
    study: Study, energy: AbstractEnergy, l2: float
) -> tuple[AbstractObjective, AbstractPenalty | None]:
    """The likelihood itself where it takes no time; else what the study learns by."""
    return by_likelihood(energy, l2) if is_enumerated(energy) else way_to_learn(study, energy, l2)


def _weights(study: Study) -> np.ndarray:
    """The weight of each sample, as a column."""
    weights = study.source.weights
    return (np.ones(len(study.source.spins)) if weights is None else weights)[:, None]


def _costs(mixture: Mixture, rows: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row in nats, shape `(rows,)`."""
    return np.asarray(jax.jit(jax.vmap(mixture))(jnp.asarray(rows, float)), float)


def _judged(
    study: Study, mixture: Mixture, training: float, held_out: float | np.floating, rows: np.ndarray
) -> Contestant:
    size = mixture.n_experts
    energy: AbstractEnergy = mixture if size > 1 else mixture.expert(0)
    recalled = ask(study, energy, rows, 1.0)
    return Contestant(
        n_experts=size,
        n_parameters=size * n_parameters(mixture.expert(0)) + size - 1,
        training=training,
        held_out=float(held_out),
        exact=recalled.exact,
        accuracy=recalled.accuracy,
    )
