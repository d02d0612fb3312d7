"""Choosing the reduced description: which couplings a model should have, judged by held-out data.

All three ways start from an energy that lists every coupling in question, `Pairwise` or
`Interactions`, and hold those that are not chosen at zero, so that one compiled fit serves all.
Fields are always kept.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from .._checks import check_count, check_counts
from .._placement import from_anywhere
from .._types import Key
from ..datasets import validate_spins
from ..energies import AbstractEnergy, constrain, parameter_copies, parameter_degrees
from ._fit import fit
from ._objectives import AbstractObjective
from ._penalties import L1, AbstractPenalty, Support
from ._results import RESULTS
from ._samples import Samples, checked_shares
from ._states import FitResult

Training = Num[Array | np.ndarray, "samples n"]
HeldOut = Num[Array | np.ndarray, "judges n"]
Weights = Num[Array | np.ndarray, " _"]


class Path(eqx.Module):
    """Models with more and more couplings, or fewer and fewer.

    Attributes:
        energies: the fitted models.
        results: result of each fit, a `RESULTS` code.
        degrees: degrees of interaction, ascending, shape `(degrees,)`.
        counts: number of couplings of each degree in each model, shape `(models, degrees)`.
        training: loss of the objective on the training data, in nats, shape `(models,)`.
        held_out: loss of the objective on the held-out data, in nats, shape `(models,)`.
        criterion: `2 N loss + K ln N` for N training samples and K parameters (Schwarz 1978),
            shape `(models,)`. A coupling of d spins enters d of the terms of a conditional
            objective, such as the pseudolikelihood, and counts d times there.
    """

    energies: tuple[AbstractEnergy, ...]
    results: tuple[RESULTS, ...]
    degrees: Int[np.ndarray, " degrees"]
    counts: Int[np.ndarray, "models degrees"]
    training: Float[np.ndarray, " models"]
    held_out: Float[np.ndarray, " models"]
    criterion: Float[np.ndarray, " models"]

    @property
    def best(self) -> AbstractEnergy:
        """The model of lowest held-out loss."""
        return self.energies[int(np.argmin(self.held_out))]

    def __str__(self) -> str:
        heads = [f"degree {d}" for d in self.degrees] + ["training", "held out", "criterion"]
        lines = ["".join(f"{head:>12}" for head in heads)]
        best = int(np.argmin(self.held_out))
        for k, counts in enumerate(self.counts):
            figures = [f"{c:12d}" for c in counts]
            figures += [f"{self.training[k]:12.4f}", f"{self.held_out[k]:12.4f}"]
            figures += [f"{self.criterion[k]:12.1f}"]
            notes = ["best"] * (k == best)
            if self.results[k] != RESULTS.converged:
                notes.append(RESULTS[self.results[k]])
            lines.append("  ".join(["".join(figures), *notes]))
        return "\n".join(lines)


@from_anywhere
def l1_path(
    objective: AbstractObjective,
    energy: AbstractEnergy,
    data: Training,
    held_out: HeldOut,
    *,
    strengths: Sequence[float] | Float[np.ndarray, " models"],
    key: Key,
    weights: Weights | None = None,
    held_out_weights: Weights | None = None,
) -> Path:
    """Couplings that an L1 penalty leaves, from strong to weak, each set fitted without it.

    The penalty selects and the second fit removes its bias (Meinshausen and Yu 2009).

    Args:
        objective: a deterministic objective, such as `Pseudolikelihood()`.
        energy: all couplings in question; its values are where the first fit starts.
        data: training samples of +-1, shape `(samples, n)`.
        held_out: samples that judge, of the same shape but for their number.
        strengths: strengths of the penalty, in nats per energy unit, one for each model.
        key: random key.
        weights: weight of each training sample, as in `fit`; N of the criterion is what they are
            worth.
        held_out_weights: weight of each sample that judges.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic.
    """
    if len(strengths) < 1:
        raise ValueError("strengths must hold at least one number")
    search = _Selection(energy, data, held_out, objective, key, weights, held_out_weights)
    penalised, models = energy, []
    for strength in sorted(map(float, strengths), reverse=True):
        penalised = search.fit(penalised, L1(strength)).energy
        left = jax.tree.map(lambda x: np.asarray(x) != 0, penalised)
        fields = search.present(lambda degree: degree < 2)
        models.append(search.model(jax.tree.map(np.logical_or, left, fields), energy))
    return search.path(models)


@from_anywhere
def decimate(
    objective: AbstractObjective,
    energy: AbstractEnergy,
    data: Training,
    held_out: HeldOut,
    *,
    fraction: float = 0.2,
    n_models: int = 12,
    key: Key,
    weights: Weights | None = None,
    held_out_weights: Weights | None = None,
) -> Path:
    """Fit all couplings, drop the smallest ones, fit the others again, and so on.

    Decimation (Decelle and Ricci-Tersenghi 2014).

    Args:
        objective: an objective, as in `l1_path`.
        energy: start of the fits, as in `l1_path`.
        data: training samples, as in `l1_path`.
        held_out: samples that judge, as in `l1_path`.
        key: random key.
        weights: weight of each training sample, as in `l1_path`.
        held_out_weights: weight of each sample that judges.
        fraction: share of the couplings left that are dropped in each round, in (0, 1).
        n_models: number of models, the full one included.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic, or `fraction` or
            `n_models` outside their range.
    """
    n_models = check_count("n_models", n_models)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    search = _Selection(energy, data, held_out, objective, key, weights, held_out_weights)
    models = [search.model(search.present(lambda degree: degree >= 0), energy)]
    while len(models) < n_models:
        last = models[-1]
        chosen = jax.tree.map(np.logical_and, last.mask, search.present(lambda d: d >= 2))
        sizes = np.sort(np.abs(_entries(last.energy, chosen)))
        if sizes.size == 0:
            break
        threshold = sizes[max(1, int(fraction * sizes.size)) - 1]
        weak = jax.tree.map(lambda x, c, t=threshold: c & (np.abs(x) <= t), last.energy, chosen)
        mask = jax.tree.map(lambda a, w: a & ~w, last.mask, weak)
        models.append(search.model(mask, last.energy))
    return search.path(models)


@from_anywhere
def grow(
    objective: AbstractObjective,
    energy: AbstractEnergy,
    data: Training,
    held_out: HeldOut,
    *,
    n_per_round: int = 1,
    n_models: int = 32,
    key: Key,
    weights: Weights | None = None,
    held_out_weights: Weights | None = None,
) -> Path:
    """Start from fields alone and add the couplings that the loss asks for most, low degrees first.

    A coupling that is absent is judged by its score, the slope of the loss at zero (Rao 1948). A
    round that does not lower the information criterion is taken back and repeated with half as
    many; where a single coupling does not lower it, the next degree is opened.

    Args:
        objective: an objective, as in `l1_path`.
        energy: start of the fits, as in `l1_path`.
        data: training samples, as in `l1_path`.
        held_out: samples that judge, as in `l1_path`.
        key: random key.
        weights: weight of each training sample, as in `l1_path`.
        held_out_weights: weight of each sample that judges.
        n_per_round: most couplings that are added at once; larger rounds are faster, and let in
            couplings that would not pay alone.
        n_models: number of models, that of independent spins included.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic, or counts that are not
            positive.
    """
    n_per_round, n_models = check_counts(n_per_round=n_per_round, n_models=n_models)
    search = _Selection(energy, data, held_out, objective, key, weights, held_out_weights)
    models = [search.model(search.present(lambda degree: degree < 2), energy)]
    degrees = [int(d) for d in search.degrees if d >= 2]
    size = n_per_round
    while degrees and len(models) < n_models:
        last = models[-1]
        added = search.strongest(last, degrees[0], size)
        tried = search.model(jax.tree.map(np.logical_or, last.mask, added), last.energy)
        if tried.criterion < last.criterion:
            models.append(tried)
        elif size > 1:
            size //= 2
        else:
            degrees, size = degrees[1:], n_per_round
    return search.path(models)


class _Model(NamedTuple):
    mask: PyTree
    energy: AbstractEnergy
    result: RESULTS
    counts: list[int]
    losses: tuple[float, float]  # training and held out
    criterion: float | np.floating


class _Selection:
    """What the three ways share: masks over one energy, fits on them, and their judgement."""

    def __init__(self, energy, data, held_out, objective, key, weights, held_out_weights):
        if objective.defaults.gradient_tolerance is None:
            raise ValueError(
                f"objective must be deterministic, such as Pseudolikelihood(), got {objective}"
            )
        self._objective, self._key = objective, key
        self._data, judges = validate_spins(data), validate_spins(held_out, "held_out")
        if judges.shape[1] != self._data.shape[1]:
            raise ValueError(
                f"held_out must have {self._data.shape[1]} spins a sample, got {judges.shape[1]}"
            )
        dtype = jnp.result_type(*jax.tree.leaves(energy))
        self._weights = weights
        share, self._size = checked_shares(weights, len(self._data))
        of_judges = checked_shares(held_out_weights, len(judges), "held_out_weights")
        self._training, self._held_out = (
            Samples(*(jnp.asarray(x, dtype) for x in arrays))
            for arrays in ((self._data, share, self._size), (judges, *of_judges))
        )
        self._state = objective.init(energy, self._training, key)
        self._degrees = jax.tree.map(
            lambda x, d: np.broadcast_to(d, x.shape), energy, parameter_degrees(energy)
        )
        # The diagonal of a matrix of couplings is no coupling.
        ones = constrain(jax.tree.map(jnp.ones_like, energy))
        self._exists = jax.tree.map(lambda x: np.asarray(x) != 0, ones)
        self._copies = parameter_copies(energy)
        every = [np.unique(d) for d in jax.tree.leaves(self._degrees)]
        self.degrees = np.unique(np.concatenate(every))

    def fit(self, start: PyTree, penalty: AbstractPenalty) -> FitResult:
        return fit(
            self._objective,
            start,
            self._data,
            penalty=penalty,
            weights=self._weights,
            key=self._key,
        )

    def model(self, mask: PyTree, start: PyTree) -> _Model:
        """Fit the couplings of a mask, from the values that `start` has for them."""
        start = jax.tree.map(lambda x, a: x * a, start, mask)
        fitted = self.fit(start, Support(mask))
        energy = fitted.energy
        training, held_out = (
            float(_loss(self._objective, judge, energy, self._state))
            for judge in (self._training, self._held_out)
        )
        leaves = [jax.tree.leaves(t) for t in (mask, self._degrees, self._copies)]
        counts = [
            sum(int(np.sum(m & (d == degree))) // c for m, d, c in zip(*leaves, strict=True))
            for degree in self.degrees
        ]
        n, times = self._size, 1
        if self._objective.defaults.conditional:
            times = self.degrees
        criterion = 2 * n * training + float(np.sum(times * np.array(counts))) * np.log(n)
        return _Model(mask, energy, fitted.result, counts, (training, held_out), criterion)

    def present(self, chosen: Callable[[np.ndarray], np.ndarray]) -> PyTree:
        """A mask of all parameters of some degrees."""
        return jax.tree.map(lambda e, d: e & chosen(d), self._exists, self._degrees)

    def strongest(self, model: _Model, degree: int, count: int) -> PyTree:
        """A mask of the absent couplings of a degree that have the largest scores."""
        slopes = _slopes(self._objective, self._training, model.energy, self._state)
        absent = jax.tree.map(lambda e, a: e & ~a, self.present(lambda d: d == degree), model.mask)
        sizes = np.unique(np.abs(_entries(slopes, absent)))
        least = sizes[-min(count, sizes.size)] if sizes.size else np.inf
        return jax.tree.map(lambda a, s: a & (np.abs(s) >= least), absent, slopes)

    def path(self, models: Sequence[_Model]) -> Path:
        training, held_out = np.array([model.losses for model in models]).T
        return Path(
            energies=tuple(model.energy for model in models),
            results=tuple(model.result for model in models),
            degrees=self.degrees,
            counts=np.array([model.counts for model in models]),
            training=training,
            held_out=held_out,
            criterion=np.array([model.criterion for model in models]),
        )


def _entries(values: PyTree, chosen: PyTree) -> Float[np.ndarray, " couplings"]:
    """The chosen entries in one vector."""
    parts = jax.tree.map(lambda x, c: np.asarray(x)[c], values, chosen)
    return np.concatenate(jax.tree.leaves(parts))


@eqx.filter_jit
def _loss(
    objective: AbstractObjective, samples: Samples, energy: PyTree, state: PyTree
) -> Float[Array, ""]:
    return objective.loss(constrain(energy), samples, state, jax.random.key(0))[0]


@eqx.filter_jit
def _slopes(
    objective: AbstractObjective, samples: Samples, energy: PyTree, state: PyTree
) -> PyTree:
    return jax.grad(lambda e: _loss(objective, samples, e, state))(energy)
