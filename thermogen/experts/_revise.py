"""How many experts: two made one, or one made two, as held-out samples ask for."""

from typing import Any

import jax
import numpy as np

from .._types import Key
from ..energies import Mixture
from ._learn import Learner
from ._likelihood import losses, responsibilities
from ._shares import clusters


def revised(
    mixture: Mixture, data: np.ndarray, held_out: np.ndarray, learn: Learner, key: Key
) -> Mixture:
    """Split experts while that lowers the held-out loss, then merge them while it does no harm.

    A change of the loss counts where it is larger than twice its standard error over the samples.
    """

    def change(tried: Mixture) -> tuple[float, float]:
        differences = losses(tried, held_out) - losses(mixture, held_out)
        return differences.mean(), 2 * differences.std() / np.sqrt(len(differences))

    key, merge_key = jax.random.split(key)
    for index in range(len(data)):
        split_key, learn_key = jax.random.split(jax.random.fold_in(key, index))
        start, shares = _split(mixture, responsibilities(mixture, data), data, split_key)
        tried = learn(start, data, shares, learn_key).mixture
        rise, error = change(tried)
        if rise > -error:
            break
        mixture = tried
    while mixture.n_experts > 1:
        merge_key, learn_key = jax.random.split(merge_key)
        start, shares = _merged(mixture, responsibilities(mixture, data))
        tried = learn(start, data, shares, learn_key).mixture
        rise, error = change(tried)
        if rise > error:
            break
        mixture = tried
    return mixture


def _split(
    mixture: Mixture, shares: np.ndarray, data: np.ndarray, key: Key
) -> tuple[Mixture, np.ndarray]:
    """The expert whose samples cost most, in all, goes on as two, by two clusters of them."""
    a = int(np.argmax(losses(mixture, data) @ shares))
    own = np.flatnonzero(np.argmax(shares, axis=1) == a)
    side = np.arange(len(data)) % 2
    if len(own) > 1:
        side[own] = clusters(data[own], 2, key)
    half = np.eye(2)[side] * shares[:, [a]]
    columns = np.concatenate([shares, half[:, 1:]], axis=1)
    columns[:, a] = half[:, 0]
    return _chosen(mixture, [*range(mixture.n_experts), a]), columns


def _merged(mixture: Mixture, shares: np.ndarray) -> tuple[Mixture, np.ndarray]:
    """The two experts that share most samples become one."""
    norm = np.linalg.norm(shares, axis=0)
    common = np.triu(shares.T @ shares / np.outer(norm, norm), 1)
    a, b = divmod(int(np.argmax(common)), len(norm))
    rows = np.delete(np.arange(len(norm)), b)
    joined = shares.copy()
    joined[:, a] += joined[:, b]
    return _chosen(mixture, rows.tolist()), joined[:, rows]


def _chosen(mixture: Mixture, rows: list[int]) -> Mixture:
    """Experts of these numbers; the weights are those of the next round."""
    experts: Any = jax.tree.map(lambda x: x[np.array(rows)], mixture.experts)
    return Mixture(experts, np.full(len(rows), -np.log(len(rows))), np.zeros(len(rows)))
