"""The strength of a ridge, chosen by data that were not learned."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import check_count
from .._types import Key
from ..energies import AbstractEnergy
from ..runs import Devices, Folder, counted, part, shows_progress
from ._conditional import Pseudolikelihood, default_l2, margins
from ._fit import fit
from ._gaps import check_sums
from ._samples import checked_shares, samples_as_given, samples_of, with_gaps

# A hundred times the default of `Pseudolikelihood` to a thousandth of it, in steps of root ten.
_RELATIVE = 10 ** np.arange(2, -3.01, -0.5)


class RidgeChoice(NamedTuple):
    """Strengths that were tried, and how well each predicts what it did not learn.

    Attributes:
        l2: the strength of lowest held-out loss, for a fit to all data, in nats per sample and
            squared energy unit.
        strengths: those that were tried, in the same unit, from strong to weak, shape `(tried,)`.
        held_out: mean loss of each on the held-out samples, in nats per sample, shape `(tried,)`.
    """

    l2: float
    strengths: Float[np.ndarray, " tried"]
    held_out: Float[np.ndarray, " tried"]


@shows_progress
def choose_l2(
    energy: AbstractEnergy,
    data: Num[Array | np.ndarray, "samples visible"],
    *,
    key: Key,
    weights: Num[Array | np.ndarray, " samples"] | None = None,
    n_folds: int = 5,
    seed: int = 0,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> RidgeChoice:
    """Choose the ridge of a pseudolikelihood by cross-validation.

    Each part of the data in turn is held out and judges models that learned from the rest with
    eleven strengths, a root of ten apart. A ridge stands for a prior on the couplings, so that its
    strength in nats per sample falls as one over the number of samples: their product is what is
    compared, and what the whole data get.

    Args:
        energy: start of every fit, as in `fit`.
        data: samples of +-1, shape `(samples, n_visible(energy))`, 0 where a spin is unknown: as
            many as can be summed out.
        key: random key, as for `fit`.
        weights: relative weight of each sample, >= 0; equal where None.
        n_folds: parts into which the samples are divided at random, from 2 to their number.
        seed: seed of that division.
        checkpoint: folder where the fits are stored, and where they go on from if they were cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which samples are spread: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Raises:
        ValueError: as `fit` does, and for a number of parts out of range.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        choice = tg.learning.choose_l2(start, data, key=jax.random.key(0))

        assert choice.l2 > 0.05  # coins: couplings are noise
        ```
    """
    data = np.asarray(samples_as_given(energy, data, gaps=True), float)
    data, weights, max_gaps = with_gaps(data, weights)
    rows = np.asarray(data)
    check_sums(energy, len(rows), max_gaps)
    share, size = checked_shares(weights, len(rows))
    n_folds = check_count("n_folds", n_folds, 2, len(rows))
    fold = np.random.default_rng(seed).permutation(len(rows)) % n_folds
    strengths = float(default_l2(rows.shape[1], size)) * _RELATIVE
    held_out = np.zeros(len(strengths))
    for number in counted("Parts held out", range(n_folds)):
        # The held-out rows get no weight, so that all parts share one program.
        inside, outside = share * (fold != number), share * (fold == number)
        if inside.sum() == 0:
            continue
        start = energy
        for index, strength in enumerate(strengths):
            objective = Pseudolikelihood(strength / inside.sum())
            start = fit(
                objective,
                start,
                rows,
                key=key,
                weights=inside,
                checkpoint=part(checkpoint, number, index),
                sharding=sharding,
            ).energy
            held_out[index] += float(_surprise(start, rows, outside, max_gaps))
    return RidgeChoice(float(strengths[np.argmin(held_out)]), strengths, held_out)


def _surprise(
    energy: AbstractEnergy, rows: np.ndarray, weights: np.ndarray, max_gaps: int
) -> Float[Array, ""]:
    """Weighted sum of `-sum_k ln P(s_k | rest)` over the known spins."""
    samples = samples_of(rows, weights, 1.0, max_gaps, jnp.result_type(float))
    surprise = jnp.logaddexp(0.0, -2 * margins(energy, samples))
    surprise = jnp.sum(jnp.where(samples.spins == 0, 0, surprise), axis=1)
    return jnp.dot(samples.weights, surprise)
