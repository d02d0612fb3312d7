"""One model for each bound state: the remedy for a landscape that breaks ergodicity."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num, PyTree
from scipy.cluster.vq import kmeans2

from . import exact
from ._solution import RESULTS
from ._types import Beta, Key
from .datasets import validate_spins
from .energies import RBM, AbstractEnergy, Mixture, embed, n_visible
from .landscape import Certificate, Library, certify, find_bound_states, quench
from .learning import AbstractObjective, AbstractPenalty, Defaults, Samples, fit
from .meanfield import AbstractFunctional, NaiveMeanField
from .sampling import annealed_importance_sampling

# Up to so many spins, of an RBM in one of its layers, ln Z is summed; beyond it is estimated.
_MAX_ENUMERATED = 20
_N_RUNGS, _N_CHAINS = 1000, 256
# Share of an even weight that every expert has in every sample: none dies for want of data.
_FLOOR = 1e-3
_N_CLUSTERINGS = 8
# Largest magnetization of a state that is asked how likely a sample is.
_MAX_MAGNETIZATION = 0.999
# For the parent: candidates, walkers, and how long a bound state must trap, in sweeps.
_CAPACITY, _N_WALKERS, _THRESHOLD = 64, 256, 100.0

_Data = Num[Array | np.ndarray, "_ _"]
_Shares = Float[Array | np.ndarray, "_ _"]


class Round(NamedTuple):
    """What one round of expectation and maximisation came to.

    Attributes:
        mixture: the experts after it.
        loss: negative log-likelihood of the training data, in nats per sample.
        result: how the fit of the experts ended, a `RESULTS` code.
    """

    mixture: Mixture
    loss: float
    result: RESULTS


class Learner(NamedTuple):
    """How experts are learned: what `fit_experts` passes on from round to round.

    Attributes:
        objective: as for `fit`.
        penalty: on the parameters of every expert.
        optimizer: as for `fit`.
        n_steps: most steps in one round; the objective's own default where None.
        n_rounds: most rounds.
        tolerance: rounds end where the loss falls by less, in nats per sample.
        callback: called on the host after every round.
    """

    objective: AbstractObjective
    penalty: AbstractPenalty | None = None
    optimizer: optax.GradientTransformation | None = None
    n_steps: int | None = None
    n_rounds: int = 20
    tolerance: float = 1e-4
    callback: Callable[[Round], None] | None = None

    def __call__(self, start: Mixture, data: np.ndarray, shares: np.ndarray, key: Key) -> Round:
        """Rounds from a first split of the data; the best of them."""
        best: Round | None = None
        last = np.inf
        for index in range(self.n_rounds):
            this = self._round(start, data, shares, jax.random.fold_in(key, index))
            if self.callback is not None:
                self.callback(this)
            if best is None or this.loss < best.loss:
                best = this
            if not last - this.loss > self.tolerance:
                break
            start, last = this.mixture, this.loss
            shares = responsibilities(start, data)
        assert best is not None
        return best

    def _round(self, start: Mixture, data: np.ndarray, shares: np.ndarray, key: Key) -> Round:
        fit_key, partition_key = jax.random.split(key)
        shares = _with_floor(shares)
        fitted = fit(
            start,
            data,
            objective=_EachExpert(self.objective, jnp.asarray(shares)),
            key=fit_key,
            penalty=self.penalty,
            optimizer=self.optimizer,
            n_steps=self.n_steps,
        )
        if fitted.result == RESULTS.non_finite:
            warnings.warn(f"experts: {RESULTS[fitted.result]}", stacklevel=4)
        experts = cast(Any, fitted.energy).experts
        mixture = Mixture(
            experts, np.log(shares.mean(axis=0)), log_partitions(experts, partition_key)
        )
        return Round(mixture, negative_log_likelihood(mixture, data), fitted.result)


def fit_experts(
    energy: AbstractEnergy,
    data: _Data,
    *,
    objective: AbstractObjective,
    key: Key,
    n_experts: int | None = None,
    n_starts: int = 4,
    library: Library | None = None,
    shares: _Shares | None = None,
    held_out: _Data | None = None,
    penalty: AbstractPenalty | None = None,
    optimizer: optax.GradientTransformation | None = None,
    n_steps: int | None = None,
    n_rounds: int = 20,
    tolerance: float = 1e-4,
    callback: Callable[[Round], None] | None = None,
) -> Mixture:
    """Learn one expert for each bound state, and their weights, by expectation maximisation.

    The data are split first: by given `shares`, by the states of a `library`, among `n_experts`
    in several ways, or, where none of these is given, by the basins of the certified bound
    states of a parent, which is `energy` fitted to all data. Then in every round
    all experts are fitted at once, each to the data by its shares in them; their partition
    functions are computed (exactly where they can be enumerated, else by annealing), and the
    shares become the posterior of the mixture (Dempster, Laird and Rubin 1977).

    With `ExactLikelihood` no round raises the loss. Other objectives are not the likelihood, and
    the best round is returned.

    Args:
        energy: template of one expert, where all of them start.
        data: samples of +-1, shape `(samples, n_visible(energy))`.
        objective: how an expert learns, as for `fit`.
        key: random key.
        n_experts: number of experts; of a library those states that most samples belong to.
        n_starts: where `n_experts` alone is given, how many splits are tried: into clusters, as
            suits patterns, then at random, as suits rules that near configurations do not share.
            The one of lowest loss is returned.
        library: bound states of a parent; a sample belongs to the states in proportion to the
            probability that their product measures, with their hits as weights, give it.
        shares: of each expert in each sample, >= 0, shape `(samples, experts)`, such as
            `basin_shares` gives; rows are divided by their sum.
        held_out: where given, experts are split afterwards as long as the loss of these samples
            falls, then merged as long as it does not rise, by more than two standard errors
            (after Ueda, Nakano, Ghahramani and Hinton 2000).
        penalty: on the parameters of every expert.
        optimizer: as for `fit`.
        n_steps: most steps of the experts in one round; the objective's own default where None.
        n_rounds: most rounds.
        tolerance: rounds end where the loss falls by less, in nats per sample.
        callback: called on the host after every round. An exception that it raises ends the fit.

    Returns:
        A normalised `Mixture`: `exp(-E)` sums to 1 at beta = 1.

    Warns:
        UserWarning: where the fit of the experts stopped being finite.

    Raises:
        ValueError: for bad data, counts or shares, or both a library and shares.
    """
    data = _checked_data("data", data, energy)
    if library is not None and shares is not None:
        raise ValueError("library and shares both split the data; give one of them")
    counts = {"n_experts": n_experts, "n_starts": n_starts, "n_rounds": n_rounds}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    learn = Learner(objective, penalty, optimizer, n_steps, n_rounds, tolerance, callback)
    split_key, learn_key, revise_key = jax.random.split(key, 3)
    if shares is not None:
        splits = [_checked_shares(shares, len(data), n_experts)]
    elif library is not None:
        splits = [library_shares(library, data, n_experts)]
    elif n_experts is not None:
        splits = _splits(data, n_experts, n_starts, split_key)
    else:
        splits = [_bound_state_shares(energy, data, learn, split_key)]
    if held_out is not None:
        held_out = _checked_data("held_out", held_out, energy)
    copies = _copies(energy, splits[0].shape[1])
    keys = jax.random.split(learn_key, len(splits))
    rounds = [learn(copies, data, split, k) for split, k in zip(splits, keys, strict=True)]
    best = min(rounds, key=lambda r: r.loss).mixture
    if held_out is None:
        return best
    return _revised(best, data, held_out, learn, revise_key)


def log_partitions(experts: AbstractEnergy, key: Key) -> Float[Array, " experts"]:
    """ln Z of each expert at beta = 1: by enumeration up to 20 spins, else by annealing.

    Args:
        experts: energies on a leading axis, as `Mixture.experts`.
        key: random key, for annealing (1000 temperatures, 256 chains).

    Returns:
        In nats, shape `(experts,)`. The annealed ones are too small rather than too large.
    """
    size = jax.tree.leaves(experts)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], experts)
    layered = isinstance(first, RBM)
    n = min(first.n_visible, first.n_hidden) if layered else first.n_spins
    if n <= _MAX_ENUMERATED:
        return _exact_log_partitions(experts)
    betas = jnp.linspace(0.0, 1.0, _N_RUNGS + 1)[1:]
    estimates = [
        annealed_importance_sampling(
            jax.tree.map(lambda x, a=a: x[a], experts),
            betas,
            key=jax.random.fold_in(key, a),
            n_chains=_N_CHAINS,
        ).log_partition
        for a in range(size)
    ]
    return jnp.stack(estimates)


@eqx.filter_jit
def _exact_log_partitions(experts: AbstractEnergy) -> Float[Array, " experts"]:
    return jax.lax.map(lambda e: exact.log_partition(e, 1.0), experts)


def normalised(mixture: Mixture, *, key: Key) -> Mixture:
    """The same distribution with weights and partition functions as they are now.

    A mixture is normalised when it is made; learning with `fit` moves its experts on.

    Args:
        mixture: the mixture.
        key: random key, for annealing.
    """
    partitions = log_partitions(mixture.experts, key)
    weights = jax.nn.log_softmax(mixture.offsets + partitions)
    return Mixture(mixture.experts, weights, partitions)


def negative_log_likelihood(mixture: Mixture, data: _Data) -> float:
    """Mean of E over samples, shape `(samples, n)`: nats per sample of a normalised mixture."""
    return float(_losses(mixture, data).mean())


def _losses(mixture: Mixture, data: _Data) -> Float[np.ndarray, " samples"]:
    return -np.asarray(jax.nn.logsumexp(_log_joints(mixture, jnp.asarray(data)), axis=1))


def responsibilities(mixture: Mixture, data: _Data) -> Float[np.ndarray, "samples experts"]:
    """Posterior over the experts given each sample, shape `(samples, experts)`."""
    return np.asarray(jax.nn.softmax(_log_joints(mixture, jnp.asarray(data)), axis=1))


@eqx.filter_jit
def _log_joints(mixture: Mixture, data: Num[Array, "samples n"]) -> Float[Array, "samples experts"]:
    return jax.vmap(mixture.log_joint)(data)


def library_shares(
    library: Library, data: _Data, n_states: int | None = None
) -> Float[np.ndarray, "samples states"]:
    """Share of each state of a library in each sample, mirror images counted.

    Of a state with magnetizations m and h hits it is proportional to `h prod_k (1 + m_k s_k)/2`.

    Args:
        library: states of a parent; those of hidden spins are left out.
        data: samples of +-1, shape `(samples, visible)`.
        n_states: keep only so many states, those that most samples belong to.

    Returns:
        Shares, rows sum to 1, shape `(samples, states)`.

    Raises:
        ValueError: for a library without states, or with fewer than `n_states` of them.
    """
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
        np.log(np.asarray(images.hits)[held])
        + 0.5 * (1 + spins) @ up.T
        + 0.5 * (1 - spins) @ down.T
    )
    shares = np.asarray(jax.nn.softmax(logits, axis=1))
    if n_states is None:
        return shares
    chosen = np.sort(np.argsort(-shares.sum(axis=0), kind="stable")[:n_states])
    return np.asarray(jax.nn.softmax(logits[:, chosen], axis=1))


def basin_shares(
    library: Library,
    functional: AbstractFunctional,
    energy: AbstractEnergy,
    beta: Beta,
    data: _Data,
    *,
    certificate: Certificate | None = None,
) -> Float[np.ndarray, "samples states"]:
    """Which basin of attraction of G(m) each sample lies in, as shares 0 and 1.

    Every sample is quenched. One that ends in none of the states belongs to the one that it
    overlaps with most.

    Args:
        library: minima of the functional.
        functional: the free energy.
        energy: the parent.
        beta: inverse temperature.
        data: samples of +-1, shape `(samples, n_visible(energy))`.
        certificate: of the library: the states of one metastable set are then one.

    Returns:
        Shares, shape `(samples, states)`; a column for every state, or set, that holds samples.
    """
    starts = np.asarray(jax.vmap(lambda s: embed(energy, s, beta))(jnp.asarray(data, float)))
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
    return 2 * np.repeat(certificate.group[held], copies) + image * parted


class _EachExpert(AbstractObjective):
    """Losses of all experts of a mixture on the data by their shares, added up.

    Gradient contract: that of the objective. The weights of the mixture have no part in it.
    """

    objective: AbstractObjective
    shares: Float[Array, "samples experts"]

    @property
    def defaults(self) -> Defaults:
        return self.objective.defaults._replace(conditional=False)

    @eqx.filter_jit
    def init(self, energy: AbstractEnergy, samples: Samples, key: Key) -> PyTree:
        mixture = cast(Mixture, energy)
        keys = jax.random.split(key, mixture.n_experts)
        return jax.vmap(lambda e, w, k: self.objective.init(e, Samples(samples.spins, w), k))(
            mixture.experts, self._weights(), keys
        )

    def loss(
        self, energy: AbstractEnergy, batch: Samples, state: PyTree, key: Key
    ) -> tuple[Float[Array, ""], PyTree]:
        mixture = cast(Mixture, energy)
        keys = jax.random.split(key, mixture.n_experts)
        losses, state = jax.vmap(
            lambda e, w, s, k: self.objective.loss(e, Samples(batch.spins, w), s, k)
        )(mixture.experts, self._weights(), state, keys)
        return jnp.sum(losses), state

    def _weights(self) -> Float[Array, "experts samples"]:
        return (self.shares / jnp.sum(self.shares, axis=0)[None, :]).T


def _copies(energy: AbstractEnergy, size: int) -> Mixture:
    experts: Any = jax.tree.map(lambda x: jnp.repeat(x[None], size, axis=0), energy)
    return Mixture(experts, np.full(size, -np.log(size)), np.zeros(size))


def _with_floor(shares: np.ndarray) -> Float[np.ndarray, "samples experts"]:
    return (1 - _FLOOR) * shares + _FLOOR / shares.shape[1]


def _splits(data: np.ndarray, size: int, count: int, key: Key) -> list[np.ndarray]:
    """Clusters, and random shares, uniform on the simplex."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    random = [draw.dirichlet(np.ones(size), len(data)) for _ in range(count - 1)]
    return [np.eye(size)[_clusters(data, size, key)], *random]


def _clusters(data: np.ndarray, size: int, key: Key) -> Int[np.ndarray, " samples"]:
    """The best of a few runs of k-means: nearest of `size` means, of which some may have none."""
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    spins = data.astype(float)

    def run() -> tuple[float, np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster is no fault: it makes a poor run
            means, nearest = kmeans2(spins, size, minit="++", rng=draw)
        return float(np.sum((spins - means[nearest]) ** 2)), nearest

    return min((run() for _ in range(_N_CLUSTERINGS)), key=lambda result: result[0])[1]


def _bound_state_shares(
    energy: AbstractEnergy, data: np.ndarray, learn: Learner, key: Key
) -> Float[np.ndarray, "samples states"]:
    """Basins of the certified bound states of a model of all data."""
    fit_key, search_key, certify_key = jax.random.split(key, 3)
    parent = fit(
        energy,
        data,
        objective=learn.objective,
        key=fit_key,
        penalty=learn.penalty,
        optimizer=learn.optimizer,
        n_steps=learn.n_steps,
    ).energy
    starts = np.asarray(jax.vmap(lambda s: embed(parent, s, 1.0))(jnp.asarray(data, float)))
    library = find_bound_states(
        NaiveMeanField(),
        parent,
        1.0,
        key=search_key,
        n_walkers=_N_WALKERS,
        n_hops=0,
        capacity=_CAPACITY,
        starts=starts,
    )
    certificate = certify(library, parent, 1.0, key=certify_key, threshold=_THRESHOLD)
    return basin_shares(library, NaiveMeanField(), parent, 1.0, data, certificate=certificate)


def _revised(
    mixture: Mixture, data: np.ndarray, held_out: np.ndarray, learn: Learner, key: Key
) -> Mixture:
    """Split experts while that lowers the held-out loss, then merge them while it does no harm.

    A change of the loss counts where it is larger than twice its standard error over the samples.
    """

    def change(tried: Mixture) -> tuple[float, float]:
        differences = _losses(tried, held_out) - _losses(mixture, held_out)
        return differences.mean(), 2 * differences.std() / np.sqrt(len(differences))

    for index in range(len(data)):
        split_key, learn_key = jax.random.split(jax.random.fold_in(key, index))
        start, shares = _split(mixture, responsibilities(mixture, data), data, split_key)
        tried = learn(start, data, shares, learn_key).mixture
        rise, error = change(tried)
        if rise > -error:
            break
        mixture = tried
    while mixture.n_experts > 1:
        key, learn_key = jax.random.split(key)
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
    a = int(np.argmax(_losses(mixture, data) @ shares))
    own = np.flatnonzero(np.argmax(shares, axis=1) == a)
    side = np.arange(len(data)) % 2
    if len(own) > 1:
        side[own] = _clusters(data[own], 2, key)
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


def _checked_data(name: str, data: _Data, energy: AbstractEnergy) -> np.ndarray:
    spins = validate_spins(data, name)
    if spins.shape[1] != n_visible(energy):
        raise ValueError(
            f"{name} must have {n_visible(energy)} spins a sample for this energy, got shape "
            f"{spins.shape}"
        )
    return spins


def _checked_shares(shares: _Shares, n_samples: int, n_experts: int | None) -> np.ndarray:
    shares = np.asarray(shares, float)
    if shares.ndim != 2 or len(shares) != n_samples or n_experts not in (None, shares.shape[1]):
        raise ValueError(
            f"shares must have shape ({n_samples}, {n_experts or 'experts'}), got {shares.shape}"
        )
    total = shares.sum(axis=1, keepdims=True)
    if not (np.all(shares >= 0) and np.all(total > 0) and np.all(np.isfinite(total))):
        raise ValueError("shares must not be negative, and no row may be all zero")
    return shares / total
