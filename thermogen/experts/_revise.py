"""The number of experts: splits and merges, by the loss of held-out samples."""

from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Num

from .._types import Key
from ..energies import Mixture
from ..learning import checked_shares
from ._learn import Learner
from ._likelihood import losses, responsibilities
from ._shares import clusters

Weights = Num[np.ndarray, " samples"] | None


def revised(
    mixture: Mixture,
    data: np.ndarray,
    held_out: np.ndarray,
    learn: Learner,
    key: Key,
    held_out_weights: Num[ArrayLike, " judges"] | None = None,
) -> Mixture:
    """Split experts while that lowers the held-out loss, then merge them while it does no harm.

    A change of the loss counts where it is larger than twice its standard error over the samples.
    """

    def change(tried: Mixture) -> tuple[float, float]:
        # The same key: noise of annealed gaps is then alike.
        differences = losses(tried, held_out, gap_key) - losses(mixture, held_out, gap_key)
        mean = share @ differences
        return float(mean), 2 * float(np.sqrt(share @ (differences - mean) ** 2 / size))

    share, size = checked_shares(held_out_weights, len(held_out))

    key, merge_key, gap_key = jax.random.split(key, 3)
    for index in range(len(data)):
        split_key, learn_key = jax.random.split(jax.random.fold_in(key, index))
        start, parts = _split(
            mixture, responsibilities(mixture, data, key=gap_key), data, learn.weights, split_key
        )
        tried = learn.at("split more", index)(start, data, parts, learn_key).mixture
        rise, error = change(tried)
        if rise > -error:
            break
        mixture = tried
    while mixture.n_experts > 1:
        merge_key, learn_key = jax.random.split(merge_key)
        parts = responsibilities(mixture, data, key=gap_key)
        start, parts = _merged(mixture, parts, learn.weights)
        tried = learn.at("merge", mixture.n_experts)(start, data, parts, learn_key).mixture
        rise, error = change(tried)
        if rise > error:
            break
        mixture = tried
    return mixture


def _split(
    mixture: Mixture, parts: np.ndarray, data: np.ndarray, weights: Weights, key: Key
) -> tuple[Mixture, np.ndarray]:
    """The expert whose samples cost most, in all, goes on as two, by two clusters of them."""
    share = checked_shares(weights, len(data))[0]
    a = int(np.argmax((share * losses(mixture, data, key)) @ parts))
    own = np.flatnonzero((np.argmax(parts, axis=1) == a) & (share > 0))
    side = np.arange(len(data)) % 2
    if len(own) > 1:
        of_own = {} if weights is None else {"weights": weights[own]}
        side[own] = clusters(data[own], 2, key, **of_own)
    half = np.eye(2)[side] * parts[:, [a]]
    columns = np.concatenate([parts, half[:, 1:]], axis=1)
    columns[:, a] = half[:, 0]
    return _chosen(mixture, [*range(mixture.n_experts), a]), columns


def _merged(mixture: Mixture, parts: np.ndarray, weights: Weights) -> tuple[Mixture, np.ndarray]:
    """The two experts that share most samples become one."""
    weighted = np.sqrt(checked_shares(weights, len(parts))[0])[:, None] * parts
    norm = np.linalg.norm(weighted, axis=0)
    common = np.triu(weighted.T @ weighted / np.outer(norm, norm), 1)
    a, b = divmod(int(np.argmax(common)), len(norm))
    rows = np.delete(np.arange(len(norm)), b)
    joined = parts.copy()
    joined[:, a] += joined[:, b]
    return _chosen(mixture, rows.tolist()), joined[:, rows]


def _chosen(mixture: Mixture, rows: list[int]) -> Mixture:
    """Experts of these numbers; the weights are those of the next round."""
    experts: Any = jax.tree.map(lambda x: x[np.array(rows)], mixture.experts)
    return Mixture(experts, np.full(len(rows), -np.log(len(rows))), np.zeros(len(rows)))
