"""Choosing the reduced description: which couplings a model should have, judged by held-out data.

All three ways start from an energy that lists every coupling in question, `Pairwise` or
`Interactions`, and hold those that are not chosen at zero, so that one compiled fit serves all.
Fields are always kept.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import check_count, check_counts
from .._placement import from_anywhere
from .._types import Key
from ..energies import AbstractEnergy
from ._masked import Path, Selection, entries_of
from ._objectives import AbstractObjective
from ._penalties import L1

Training = Num[Array | np.ndarray, "samples n"]
HeldOut = Num[Array | np.ndarray, "judges n"]
Weights = Num[Array | np.ndarray, " _"]


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

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        training, held_out = data[:80], data[80:]
        plain = tg.Pseudolikelihood(l2=0.0)
        path = tg.learning.l1_path(
            plain, start, training, held_out, strengths=[1.0, 0.01], key=jax.random.key(0)
        )

        assert path.counts[0, -1] == 0 < path.counts[1, -1]
        ```
    """
    if len(strengths) < 1:
        raise ValueError("strengths must hold at least one number")
    search = Selection(energy, data, held_out, objective, key, weights, held_out_weights)
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

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        training, held_out = data[:80], data[80:]
        plain = tg.Pseudolikelihood(l2=0.0)
        path = tg.learning.decimate(
            plain, start, training, held_out, key=jax.random.key(0), n_models=3
        )

        assert path.counts[:, -1].tolist() == [10, 8, 6]
        ```
    """
    n_models = check_count("n_models", n_models)
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    search = Selection(energy, data, held_out, objective, key, weights, held_out_weights)
    models = [search.model(search.present(lambda degree: degree >= 0), energy)]
    while len(models) < n_models:
        last = models[-1]
        chosen = jax.tree.map(np.logical_and, last.mask, search.present(lambda d: d >= 2))
        sizes = np.sort(np.abs(entries_of(last.energy, chosen)))
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

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        data = np.random.default_rng(0).choice([-1, 1], (100, 5))
        start = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
        training, held_out = data[:80], data[80:]
        plain = tg.Pseudolikelihood(l2=0.0)
        path = tg.learning.grow(plain, start, training, held_out, key=jax.random.key(0), n_models=3)

        assert path.counts[0, -1] == 0
        ```
    """
    n_per_round, n_models = check_counts(n_per_round=n_per_round, n_models=n_models)
    search = Selection(energy, data, held_out, objective, key, weights, held_out_weights)
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
