"""First splits of the data: by states of a library, by basins, by clusters, at random."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from .._placement import from_anywhere
from .._types import Beta, Key
from ..datasets import spins_as_given
from ..energies import AbstractEnergy, embed
from ..kinetics import Certificate
from ..learning import checked_shares, samples_as_given
from ..meanfield import AbstractFunctional
from ..search import Library, quench
from ._likelihood import Data

_N_CLUSTERINGS, _N_ITERATIONS = 8, 10
# Largest magnetization of a state that is asked how likely a sample is.
_MAX_MAGNETIZATION = 0.999


@from_anywhere
def library_shares(
    library: Library,
    data: Data,
    n_states: int | None = None,
    *,
    weights: Num[Array | np.ndarray, " _"] | None = None,
) -> Float[np.ndarray, "samples states"]:
    """Share of each state of a library in each sample, mirror images counted.

    Of a state with magnetizations m and h hits it is proportional to `h prod_k (1 + m_k s_k)/2`, a
    product over the known spins.

    Args:
        library: states of a parent; those of hidden spins are left out.
        data: samples of +-1, 0 where a spin is unknown, shape `(samples, visible)`.
        n_states: keep only so many states, those that most samples belong to.
        weights: weight of each sample in this count, as in `thermogen.fit`.

    Returns:
        Shares, rows sum to 1, shape `(samples, states)`.

    Raises:
        ValueError: for data other than +-1, and a library without states, or with fewer than
            `n_states` of them.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        shares = tg.experts.library_shares(library, jnp.array([[1.0, 1.0, 1.0]]))

        assert shares.shape == (1, 2) and shares.max() > 0.9
        ```
    """
    data = spins_as_given(data, gaps=True)
    images = library.expanded()
    held = np.asarray(images.mask)
    if not held.any() or (n_states is not None and n_states > held.sum()):
        raise ValueError(
            f"library must hold at least {n_states or 1} states, mirror images counted, got "
            f"{held.sum()}"
        )
    m = np.asarray(images.magnetizations)[held][:, : data.shape[1]]
    m = np.clip(m, -_MAX_MAGNETIZATION, _MAX_MAGNETIZATION)
    up, down = np.log(0.5 * (1 + m)), np.log(0.5 * (1 - m))
    spins = np.asarray(data, float)
    logits = (
        np.log(np.maximum(np.asarray(images.hits)[held], 1))
        + np.maximum(spins, 0) @ up.T
        + np.maximum(-spins, 0) @ down.T
    )
    shares = np.asarray(jax.nn.softmax(logits, axis=1))
    if n_states is None:
        return shares
    held_by = checked_shares(weights, len(data))[0] @ shares
    chosen = np.sort(np.argsort(-held_by, kind="stable")[:n_states])
    return np.asarray(jax.nn.softmax(logits[:, chosen], axis=1))


@from_anywhere
def basin_shares(
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    library: Library,
    data: Data,
    *,
    certificate: Certificate | None = None,
) -> Float[np.ndarray, "samples states"]:
    """The basin of attraction of G(m) that each sample lies in, as shares 0 and 1.

    Every sample is quenched. One that ends in none of the states belongs to the one that it
    overlaps with most. An unknown spin starts at magnetization 0.

    Args:
        functional: the free energy.
        energy: the parent.
        beta: inverse temperature.
        library: minima of the functional.
        data: samples of +-1, 0 where a spin is unknown, shape `(samples, n_visible(energy))`.
        certificate: certificate of the library: the states of one metastable set then count as
            one.

    Returns:
        Shares, shape `(samples, states)`; a column for every state, or set, that holds samples.

    Raises:
        ValueError: for data of wrong shape or other than +-1, and a library without states.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        naive = tg.NaiveMeanField()
        library = tg.find_minima(naive, energy, 1.0, key=jax.random.key(0), n_starts=16)
        shares = tg.experts.basin_shares(naive, energy, 1.0, library, jnp.array([[1.0, 1.0, 1.0]]))

        assert shares.shape[0] == 1 and shares.sum() == 1
        ```
    """
    data = jnp.asarray(samples_as_given(energy, data, gaps=True), float)
    if library.size == 0:
        raise ValueError("library must hold at least one state, got none")
    starts = np.asarray(jax.vmap(lambda s: embed(energy, beta, s))(data))
    images = library.expanded()[:]
    ends = quench(functional, energy, beta, starts).value
    states = images.nearest(ends)
    closest = np.argmax(starts @ np.asarray(images.magnetizations).T, axis=1)
    states = np.where(states < 0, closest, states)
    labels = np.arange(images.size)
    if certificate is not None:
        labels = _set_of_each_image(library, certificate)
    used, columns = np.unique(labels[states], return_inverse=True)
    return np.eye(len(used))[columns]


def _set_of_each_image(library: Library, certificate: Certificate) -> Int[np.ndarray, " images"]:
    """A number for the metastable set of each entry of `library.expanded()`."""
    held = np.asarray(library.mask)
    copies = np.asarray(library.multiplicity)[held]
    image = np.concatenate([np.arange(c) for c in copies])
    parted = np.repeat(certificate.multiplicity[held] == 2, copies)
    turned = np.repeat(certificate.side[held] < 0, copies)
    return 2 * np.repeat(certificate.group[held], copies) + parted * (turned ^ (image == 1))


def first_splits(
    data: np.ndarray,
    size: int,
    count: int,
    key: Key,
    weights: Num[np.ndarray, " samples"] | None,
) -> list[np.ndarray]:
    """Clusters, and random shares, uniform on the simplex."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    random = [draw.dirichlet(np.ones(size), len(data)) for _ in range(count - 1)]
    return [np.eye(size)[clusters(data, size, key, weights=weights)], *random]


def clusters(
    data: np.ndarray, size: int, key: Key, *, weights: Num[np.ndarray, " samples"] | None = None
) -> Int[np.ndarray, " samples"]:
    """The best of a few runs of k-means: nearest of `size` means, of which some may have none."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    share = checked_shares(weights, len(data))[0]
    runs = [_k_means(data.astype(float), size, share, draw) for _ in range(_N_CLUSTERINGS)]
    return min(runs, key=lambda run: run[0])[1]


def _k_means(
    spins: np.ndarray, size: int, weights: np.ndarray, draw: np.random.Generator
) -> tuple[float, np.ndarray]:
    """Weighted cost and labels; seeds are drawn by their squared distance (k-means++)."""
    known = np.abs(spins)
    means = spins[draw.choice(len(spins), 1, p=weights / weights.sum())]
    while len(means) < size:
        odds = weights * np.min(_squared_distances(spins, means), axis=1)
        if odds.sum() == 0:
            odds = weights
        means = np.append(means, spins[draw.choice(len(spins), 1, p=odds / odds.sum())], axis=0)
    for _ in range(_N_ITERATIONS):
        nearest = np.argmin(_squared_distances(spins, means), axis=1)
        members = weights[:, None] * np.eye(size)[nearest]
        total = members.T @ known
        means = np.where(total > 0, members.T @ spins / np.where(total > 0, total, 1), means)
    distances = _squared_distances(spins, means)
    return float(weights @ distances.min(axis=1)), np.argmin(distances, axis=1)


def _squared_distances(spins: np.ndarray, means: np.ndarray) -> Float[np.ndarray, "samples means"]:
    """Those of known spins."""
    known = np.abs(spins)
    distances = known.sum(axis=1)[:, None] - 2 * spins @ means.T + known @ (means**2).T
    return np.maximum(distances, 0)
