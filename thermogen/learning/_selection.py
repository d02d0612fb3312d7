"""Choosing the reduced description: which couplings a model should have, judged by held-out data.

All three ways start from an energy that lists every coupling in question, `Pairwise` or
`Interactions`, and hold those that are not chosen at zero, so that one compiled fit serves all.
Fields are always kept.
"""

from collections.abc import Iterator, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PyTree

from .._types import Key
from ..datasets import validate_spins
from ..energies import AbstractMultilinear, constrain, parameter_copies, parameter_degrees
from ._fit import fit
from ._objectives import AbstractObjective, Samples
from ._penalties import L1, Support

Training = Num[Array | np.ndarray, "samples n"]
HeldOut = Num[Array | np.ndarray, "judges n"]


class Path(eqx.Module):
    """Models with more and more couplings, or fewer and fewer.

    Attributes:
        energies: the fitted models.
        degrees: degrees of interaction, ascending, shape `(degrees,)`.
        counts: number of couplings of each degree in each model, shape `(models, degrees)`.
        training: loss of the objective on the training data, in nats, shape `(models,)`.
        held_out: the same on the held-out data.
        criterion: `2 N loss + K ln N` for N training samples and K parameters (Schwarz 1978);
            for a pseudolikelihood it is heuristic.
    """

    energies: tuple[AbstractMultilinear, ...]
    degrees: Int[np.ndarray, " degrees"]
    counts: Int[np.ndarray, "models degrees"]
    training: Float[np.ndarray, " models"]
    held_out: Float[np.ndarray, " models"]
    criterion: Float[np.ndarray, " models"]

    @property
    def best(self) -> AbstractMultilinear:
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
            lines.append("".join(figures) + ("  best" if k == best else ""))
        return "\n".join(lines)


def l1_path(
    energy: AbstractMultilinear,
    data: Training,
    held_out: HeldOut,
    *,
    objective: AbstractObjective,
    strengths: Sequence[float] | Float[np.ndarray, " models"],
    key: Key,
) -> Path:
    """Couplings that an L1 penalty leaves, from strong to weak, each set fitted without it.

    The penalty selects and the second fit removes its bias (Meinshausen and Yu 2009).

    Args:
        energy: all couplings in question; its values are where the first fit starts.
        data: training samples of +-1, shape `(samples, n)`.
        held_out: samples that judge, of the same shape but for their number.
        objective: a deterministic objective, such as `Pseudolikelihood()`.
        strengths: of the penalty, in nats per energy unit, one for each model.
        key: random key.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic.
    """
    search = _Selection(energy, data, held_out, objective, key)

    def models():
        penalised = energy
        for strength in sorted(map(float, strengths), reverse=True):
            penalised = search.fit(penalised, L1(strength))
            yield jax.tree.map(lambda x: np.asarray(x) != 0, penalised)

    return search.path(models())


def decimate(
    energy: AbstractMultilinear,
    data: Training,
    held_out: HeldOut,
    *,
    objective: AbstractObjective,
    fraction: float = 0.2,
    n_models: int = 12,
    key: Key,
) -> Path:
    """Fit all couplings, drop the smallest ones, fit the others again, and so on.

    Decimation (Decelle and Ricci-Tersenghi 2014).

    Args:
        energy, data, held_out, objective, key: as for `l1_path`.
        fraction: share of the couplings left that are dropped in each round, in (0, 1).
        n_models: number of models, the full one included.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic, or `fraction` or
            `n_models` outside their range.
    """
    if not 0 < fraction < 1 or n_models < 1:
        raise ValueError(
            f"fraction must lie in (0, 1) and n_models be at least 1, got {fraction} and {n_models}"
        )
    search = _Selection(energy, data, held_out, objective, key)

    def models():
        allowed = search.present(lambda degree: degree >= 0)
        for _ in range(n_models):
            yield allowed
            size = _magnitudes(search.last, search.present(lambda d: d >= 2), allowed)
            left = np.sort(size[size > 0])
            if left.size < 2:
                return
            threshold = left[max(1, int(fraction * left.size)) - 1]
            allowed = search.narrowed(allowed, lambda x, t=threshold: np.abs(x) > t)

    return search.path(models())


def grow(
    energy: AbstractMultilinear,
    data: Training,
    held_out: HeldOut,
    *,
    objective: AbstractObjective,
    n_per_round: int = 8,
    n_models: int = 12,
    key: Key,
) -> Path:
    """Start from fields alone and add the couplings that the loss asks for most, low degrees first.

    A coupling that is absent is judged by its score, the slope of the loss at zero (Rao 1948).
    Degree by degree: the next one is opened where no score of the lower ones exceeds
    `sqrt(ln N / N)`, the point from which a coupling of unit variance pays for itself in the
    information criterion.

    Args:
        energy, data, held_out, objective, key: as for `l1_path`.
        n_per_round: most couplings that are added at once.
        n_models: number of models, that of independent spins included.

    Raises:
        ValueError: as `fit` does, and for an objective that is stochastic, or counts that are not
            positive.
    """
    if n_per_round < 1 or n_models < 1:
        raise ValueError(
            f"n_per_round and n_models must be at least 1, got {n_per_round} and {n_models}"
        )
    search = _Selection(energy, data, held_out, objective, key)
    threshold = np.sqrt(np.log(len(data)) / len(data))

    def models():
        allowed = search.present(lambda degree: degree < 2)
        degree = 2
        for _ in range(n_models):
            yield allowed
            score = search.score(search.last)
            while degree <= search.degrees[-1]:
                open_ = search.present(lambda d, most=degree: d <= most)
                absent = jax.tree.map(lambda o, a: o & ~a, open_, allowed)
                size = _magnitudes(score, absent, absent)
                if np.max(size, initial=0) > threshold:
                    break
                degree += 1
            else:
                return
            best = np.sort(size)[::-1][: min(n_per_round, np.sum(size > threshold))]
            allowed = jax.tree.map(
                lambda a, new, s, least=best[-1]: a | (new & (np.abs(s) >= least)),
                allowed,
                absent,
                score,
            )

    return search.path(models())


class _Selection:
    """What the three ways share: masks over one energy, fits on them, and their judgement."""

    def __init__(self, energy, data, held_out, objective, key):
        if objective.defaults.gradient_tolerance is None:
            raise ValueError(
                f"objective must be deterministic, such as Pseudolikelihood(), got {objective}"
            )
        self._objective, self._key = objective, key
        self._data = validate_spins(data)
        dtype = jnp.result_type(*jax.tree.leaves(energy))
        self._training, self._held_out = (
            Samples(jnp.asarray(x, dtype), jnp.full(len(x), 1 / len(x), dtype))
            for x in (self._data, validate_spins(held_out))
        )
        self._degrees = jax.tree.map(
            lambda x, d: np.broadcast_to(d, x.shape), energy, parameter_degrees(energy)
        )
        # The diagonal of a matrix of couplings is no coupling.
        ones = constrain(jax.tree.map(jnp.ones_like, energy))
        self._exists = jax.tree.map(lambda x: np.asarray(x) != 0, ones)
        self._copies = parameter_copies(energy)
        every = [np.unique(d) for d in jax.tree.leaves(self._degrees)]
        self.degrees = np.unique(np.concatenate(every))
        self.last = energy

    def fit(self, start, penalty):
        result = fit(start, self._data, objective=self._objective, penalty=penalty, key=self._key)
        return result.energy

    def present(self, chosen) -> PyTree:
        """Masks of all parameters of some degrees."""
        return jax.tree.map(lambda e, d: e & chosen(d), self._exists, self._degrees)

    def narrowed(self, allowed: PyTree, keep) -> PyTree:
        """Masks without the couplings that are not to be kept, by their last values."""
        return jax.tree.map(
            lambda a, d, x: a & ((d < 2) | keep(np.asarray(x))), allowed, self._degrees, self.last
        )

    def score(self, energy) -> PyTree:
        """Slope of the loss by each coupling, in nats per energy unit."""
        slopes = _slopes(self._objective, self._training, energy)
        return jax.tree.map(lambda s, c: np.asarray(s) * c, slopes, self._copies)

    def path(self, masks: Iterator[PyTree]) -> Path:
        """Fit a model on each mask; the next mask may depend on `last`, the model before it."""
        energies, counts, losses = [], [], []
        for mask in masks:
            start = jax.tree.map(lambda x, a: x * a, self.last, mask)
            self.last = self.fit(start, Support(jax.tree.map(jnp.asarray, mask)))
            energies.append(self.last)
            counts.append(self._count(mask))
            losses.append(
                [
                    float(_loss(self._objective, s, self.last))
                    for s in (self._training, self._held_out)
                ]
            )
        training, held_out = np.array(losses).T
        n, k = len(self._data), np.sum(counts, axis=1)
        criterion = 2 * n * training + k * np.log(n)
        return Path(tuple(energies), self.degrees, np.array(counts), training, held_out, criterion)

    def _count(self, mask: PyTree) -> list[int]:
        leaves = [jax.tree.leaves(t) for t in (mask, self._degrees, self._copies)]
        return [
            sum(int(np.sum(m & (d == degree))) // c for m, d, c in zip(*leaves, strict=True))
            for degree in self.degrees
        ]


def _magnitudes(values: PyTree, chosen: PyTree, allowed: PyTree) -> Float[np.ndarray, " couplings"]:
    """Absolute values of the chosen and allowed entries, 0 elsewhere, in one vector."""
    sizes = jax.tree.map(lambda x, c, a: np.abs(x) * (c & a), values, chosen, allowed)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(sizes)])


@eqx.filter_jit
def _loss(objective: AbstractObjective, samples: Samples, energy: PyTree) -> Float[Array, ""]:
    return objective.loss(constrain(energy), samples, None, jax.random.key(0))[0]


@eqx.filter_jit
def _slopes(objective: AbstractObjective, samples: Samples, energy: PyTree) -> PyTree:
    return jax.grad(lambda e: _loss(objective, samples, e))(energy)
