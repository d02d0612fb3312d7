"""One model for each bound state: the remedy for a landscape that breaks ergodicity."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_count, check_counts
from .._placement import from_anywhere
from .._types import Key
from ..energies import AbstractEnergy, Mixture, embed
from ..kinetics import certify
from ..learning import (
    AbstractObjective,
    AbstractPenalty,
    checked_shares,
    fit,
    samples_as_given,
    with_gaps,
)
from ..meanfield import NaiveMeanField
from ..runs import Devices, Folder, Place, holding, shows_progress
from ..search import Library, find_minima
from ._learn import Learner, Round
from ._likelihood import Data, Shares
from ._revise import revised
from ._shares import basin_shares, first_splits, library_shares

Weights = Num[Array | np.ndarray, " _"]

# For the parent: candidates, starts, and how long a bound state must trap, in sweeps.
_CAPACITY, _N_STARTS, _THRESHOLD = 64, 256, 100.0


@from_anywhere
@shows_progress
def fit_experts(
    energy: AbstractEnergy,
    data: Data,
    *,
    objective: AbstractObjective,
    key: Key,
    n_experts: int | None = None,
    n_starts: int = 4,
    library: Library | None = None,
    shares: Shares | None = None,
    weights: Weights | None = None,
    held_out: Data | None = None,
    held_out_weights: Weights | None = None,
    penalty: AbstractPenalty | None = None,
    optimizer: optax.GradientTransformation | None = None,
    n_steps: int | None = None,
    n_rounds: int = 20,
    tolerance: float = 1e-4,
    callback: Callable[[Round], None] | None = None,
    checkpoint: Folder = None,
    sharding: Devices = None,
    progress: bool = False,
) -> Mixture:
    """Learn one expert for each bound state, and their weights, by expectation maximisation.

    The data are split first: by given `shares`, by the states of a `library`, among `n_experts`
    in several ways, or, where none of these is given, by the basins of the certified bound
    states of a parent, which is `energy` fitted to all data. Then in every round
    all experts are fitted at once, each to the data by its shares in them; their partition
    functions are computed (exactly where they can be enumerated, else by annealing), and the
    shares become the posterior of the mixture (Dempster, Laird and Rubin 1977).

    With `ExactLikelihood` and no penalty a round raises the loss by no more than the floor costs:
    every expert keeps a thousandth of an even share in each sample, so that none dies for want of
    data. Other objectives are not the likelihood. The best round is returned.

    Args:
        energy: template of one expert, where all of them start.
        data: samples of +-1, 0 where a spin is unknown, shape `(samples, n_visible(energy))`. A
            sample belongs to experts by what is known of it, and each expert sums over the rest.
        objective: the objective of every expert, as in `fit`.
        key: random key.
        n_experts: number of experts; of a library those states that most samples belong to.
        n_starts: number of splits that are tried if `n_experts` alone is given: into clusters, as
            suits patterns, then at random, as suits rules that near configurations do not share.
            The mixture of lowest loss is returned.
        library: bound states of a parent; a sample belongs to the states in proportion to the
            probability that their product measures, with their hits as weights, give it.
        shares: share of each expert in each sample, >= 0, shape `(samples, experts)`, such as
            `basin_shares` gives; rows are divided by their sum.
        weights: weight of each sample, as in `fit`: a weight of 3 is three equal samples.
        held_out_weights: weight of each held-out sample.
        held_out: other samples. Experts are split afterwards as long as the loss of these samples
            falls, then merged as long as it does not rise, by more than two standard errors
            (after Ueda, Nakano, Ghahramani and Hinton 2000).
        penalty: penalty on the parameters of every expert.
        optimizer: optimiser of every expert, as in `fit`.
        n_steps: largest number of steps of an expert in one round; the objective's own default
            where None.
        n_rounds: largest number of rounds.
        tolerance: rounds end where the loss falls by less, in nats per sample.
        callback: called on the host after every round. An exception that it raises ends the fit.
        checkpoint: folder where the rounds are stored, and where they go on from if they were cut
            short; see `thermogen.runs.Checkpoint`.
        sharding: devices over which samples are spread, and the chains that estimate partition
            functions: a mesh, or a sharding by its first axis.
        progress: whether to show bars with the time left; see `thermogen.runs.progress`.

    Returns:
        A normalised `Mixture`: `exp(-E)` sums to 1 at beta = 1.

    Warns:
        UserWarning: where the fit of the experts stopped being finite.

    Raises:
        ValueError: for bad data, counts or shares, or both a library and shares.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        patterns = np.array([[1, 1, 1, 1], [1, -1, 1, -1]])
        free = tg.Interactions.from_terms(4, {(k,): 0.0 for k in range(4)})
        experts = tg.fit_experts(
            free,
            np.repeat(patterns, [30, 10], axis=0),
            objective=tg.ExactLikelihood(),
            penalty=tg.learning.L2(0.01, fields=0.01),
            key=jax.random.key(0),
            n_experts=2,
        )
        assert np.allclose(np.sort(experts.weights), [0.25, 0.75], atol=0.01)
        ```
    """
    given = np.asarray(samples_as_given(energy, data, gaps=True), float)
    checked_shares(weights, len(given))
    weights = None if weights is None else np.asarray(as_array("weights", weights), float)
    given, weights, _ = with_gaps(given, weights)
    data, weights = np.asarray(given), None if weights is None else np.asarray(weights)
    if library is not None and shares is not None:
        raise ValueError("library and shares both split the data; give one of them")
    n_starts, n_rounds = check_counts(n_starts=n_starts, n_rounds=n_rounds)
    if n_experts is not None:
        n_experts = check_count("n_experts", n_experts)
    learn = Learner(
        *(objective, penalty, optimizer, n_steps, n_rounds, tolerance, callback, weights),
        Place(checkpoint, sharding),
    )
    if held_out is not None:
        held_out = np.asarray(samples_as_given(energy, held_out, "held_out", gaps=True), float)
    split_key, learn_key, revise_key = jax.random.split(key, 3)
    with holding(checkpoint):
        if shares is not None:
            splits = [_checked_shares(shares, len(data), n_experts)]
        elif library is not None:
            splits = [library_shares(library, data, n_experts, weights=weights)]
        elif n_experts is not None:
            splits = first_splits(data, n_experts, n_starts, split_key, weights)
        else:
            splits = [_bound_state_shares(energy, data, learn.at("parent"), split_key)]
        start = _copies(energy, splits[0].shape[1])
        keys = jax.random.split(learn_key, len(splits))
        rounds = [
            learn.at("split", index)(start, data, split, keys[index])
            for index, split in enumerate(splits)
        ]
        best = min(rounds, key=lambda r: r.loss).mixture
        if held_out is None:
            return best
        return revised(best, data, held_out, learn, revise_key, held_out_weights)


def _bound_state_shares(
    energy: AbstractEnergy, data: np.ndarray, learn: Learner, key: Key
) -> Float[np.ndarray, "samples states"]:
    """Basins of the certified bound states of a model of all data."""
    fit_key, search_key, certify_key = jax.random.split(key, 3)
    parent = fit(
        learn.objective,
        energy,
        data,
        key=fit_key,
        weights=learn.weights,
        penalty=learn.penalty,
        optimizer=learn.optimizer,
        n_steps=learn.n_steps,
        **learn.place.options("fit"),
    ).energy
    starts = np.asarray(jax.vmap(lambda s: embed(parent, 1.0, s))(jnp.asarray(data, float)))
    library = find_minima(
        NaiveMeanField(),
        parent,
        1.0,
        key=search_key,
        n_starts=_N_STARTS,
        capacity=_CAPACITY,
        starts=starts,
        **learn.place.options("search"),
    )
    certificate = certify(
        parent,
        1.0,
        library,
        key=certify_key,
        threshold=_THRESHOLD,
        **learn.place.options("certify"),
    )
    return basin_shares(NaiveMeanField(), parent, 1.0, library, data, certificate=certificate)


def _copies(energy: AbstractEnergy, size: int) -> Mixture:
    experts: Any = jax.tree.map(lambda x: jnp.repeat(x[None], size, axis=0), energy)
    return Mixture(experts, np.full(size, -np.log(size)), np.zeros(size))


def _checked_shares(shares: Shares, n_samples: int, n_experts: int | None) -> np.ndarray:
    shares = np.asarray(as_array("shares", shares), float)
    if shares.ndim != 2 or len(shares) != n_samples or n_experts not in (None, shares.shape[1]):
        raise ValueError(
            f"shares must have shape ({n_samples}, {n_experts or 'experts'}), got {shares.shape}"
        )
    total = shares.sum(axis=1, keepdims=True)
    if not (np.all(shares >= 0) and np.all(total > 0) and np.all(np.isfinite(total))):
        raise ValueError("shares must not be negative, and no row may be all zero")
    return shares / total
