"""Models that hold couplings at zero: fits on masks over one energy, and their judgement."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..datasets import spins_as_given
from ..energies import AbstractEnergy, constrain, parameter_copies, parameter_degrees
from ._fit import fit
from ._gaps import check_sums
from ._objectives import AbstractObjective
from ._penalties import AbstractPenalty, Support
from ._results import RESULTS
from ._samples import Samples, checked_shares, samples_of, with_gaps
from ._states import FitResult


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


class Model(NamedTuple):
    """A fit on a mask: what is learned and how good it is."""

    mask: PyTree
    energy: AbstractEnergy
    result: RESULTS
    counts: list[int]
    losses: tuple[float, float]  # training and held out
    criterion: float | np.floating


class Selection:
    """What the three ways share: masks over one energy, fits on them, and their judgement."""

    def __init__(self, energy, data, held_out, objective, key, weights, held_out_weights):
        if objective.defaults.gradient_tolerance is None:
            raise ValueError(
                f"objective must be deterministic, such as Pseudolikelihood(), got {objective}"
            )
        self._objective, self._key = objective, key
        self._data = spins_as_given(data, gaps=True).astype(float)
        judges = spins_as_given(held_out, "held_out", gaps=True).astype(float)
        if judges.shape[1] != self._data.shape[1]:
            raise ValueError(
                f"held_out must have {self._data.shape[1]} spins a sample, got {judges.shape[1]}"
            )
        dtype = jnp.result_type(*jax.tree.leaves(energy))
        self._data, self._weights, max_gaps = with_gaps(self._data, weights)
        share, self._size = checked_shares(self._weights, len(self._data))
        judges, held_out_weights, of_judges = with_gaps(judges, held_out_weights, name="held_out")
        judged = checked_shares(held_out_weights, len(judges), "held_out_weights")
        for count, rows in ((max_gaps, self._data), (of_judges, judges)):
            check_sums(energy, len(rows), count)
        self._training = samples_of(self._data, share, self._size, max_gaps, dtype)
        self._held_out = samples_of(judges, *judged, of_judges, dtype)
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

    def model(self, mask: PyTree, start: PyTree) -> Model:
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
        return Model(mask, energy, fitted.result, counts, (training, held_out), criterion)

    def present(self, chosen: Callable[[np.ndarray], np.ndarray]) -> PyTree:
        """A mask of all parameters of some degrees."""
        return jax.tree.map(lambda e, d: e & chosen(d), self._exists, self._degrees)

    def strongest(self, model: Model, degree: int, count: int) -> PyTree:
        """A mask of the absent couplings of a degree that have the largest scores."""
        slopes = _slopes(self._objective, self._training, model.energy, self._state)
        absent = jax.tree.map(lambda e, a: e & ~a, self.present(lambda d: d == degree), model.mask)
        sizes = np.unique(np.abs(entries_of(slopes, absent)))
        least = sizes[-min(count, sizes.size)] if sizes.size else np.inf
        return jax.tree.map(lambda a, s: a & (np.abs(s) >= least), absent, slopes)

    def path(self, models: Sequence[Model]) -> Path:
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


def entries_of(values: PyTree, chosen: PyTree) -> Float[np.ndarray, " couplings"]:
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
