"""Recall: known spins are clamped, and the others are found, with their probabilities."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .. import exact
from .._bits import packed
from .._checks import check_counts, check_finite, check_parameters, known_spins
from .._cold import above_lowest, beta_as, resolved_beta
from .._linalg import dot
from .._placement import from_anywhere
from .._shown import AbstractShown, Table, are_known, number, plural, signs
from .._solution import RESULTS
from .._types import Beta, Key
from ..energies import AbstractEnergy, Clamped, n_visible
from ..meanfield import AbstractFunctional
from ..sampling import AbstractSampler, colored, parameter_dtype
from ._methods import Annealing, Draws, Exact, draw

_WORD = 32


class Recall(NamedTuple):
    """Answers to one cue, the most probable first; rows that are not used are 0.

    Attributes:
        configurations: different configurations of the visible spins, known spins included,
            shape `(capacity, n)`.
        probabilities: probability of each answer given the cue, shape `(capacity,)`. What their
            sum lacks to 1 is the weight of answers that were not found or did not fit. A
            probability may round to 0 where many spins are unknown: see `log_probabilities`.
        magnetizations: mean of each spin given the cue, +-1 where it is known, shape `(n,)`. Their
            signs are the answer that gets most spins right.
        ess: effective number of the draws behind that, `(sum w)^2 / sum w^2`; draws of one chain
            that goes on count as if they were independent. Infinite where nothing is drawn.
        result: a `RESULTS` code. Where it is not `converged` there are no answers: all
            probabilities are 0, and so are the magnetizations of unknown spins.
        log_probabilities: logarithm of each probability, finite for every answer and minus
            infinity in rows that are not used, shape `(capacity,)`.
    """

    configurations: Float[Array, "capacity n"]
    probabilities: Float[Array, " capacity"]
    magnetizations: Float[Array, " n"]
    ess: Float[Array, ""]
    result: RESULTS
    log_probabilities: Float[Array, " capacity"]

    def _table(self) -> Table:
        known = np.flatnonzero(np.isfinite(self.log_probabilities))
        p = np.asarray(self.probabilities)[known]
        rows = np.asarray(self.configurations)[known]
        return Table(
            f"{plural(len(known), 'answer')} of {rows.shape[1]} spins, "
            f"p = {number(p.sum())} in all, {self.result.names}",
            {"": list(map(str, known)), "probability": list(map(number, p)), "spins": signs(rows)},
        )

    def _is_known(self) -> bool:
        return are_known(self) and np.ndim(self.probabilities) == 1

    __repr__, _repr_html_ = AbstractShown.__repr__, AbstractShown._repr_html_


@from_anywhere
def recall(
    energy: AbstractEnergy,
    beta: Beta,
    cue: Num[Array | np.ndarray, "..."],
    *,
    key: Key,
    method: Annealing | Exact | AbstractSampler | AbstractFunctional = Annealing(),
    n_chains: int = 64,
    n_sweeps: int = 100,
    capacity: int = 8,
) -> Recall:
    """Configurations that agree with a cue, with their probabilities given the cue.

    Hidden spins are free and summed out: cue and answers are those of the visible spins. One
    cue a call; `jax.vmap` over cues and keys answers many. Cue, beta, the parameters of the energy
    and the key are traced: another number of known spins does not recompile.

    Args:
        energy: an energy of n visible spins.
        beta: inverse temperature, > 0. However large it is, answers that differ in energy by no
            more than rounding share their probability.
        cue: +1 or -1 where a spin is known, 0 where it is not, shape `(n,)`.
        key: random key.
        method: the method that finds the unknown spins:

            - `Annealing()`: chains that are cooled. An answer has the probability
              `exp(-beta F) / Z` with its own free energy; only Z of the free spins is estimated,
              by the weights of the chains and by how often they met the same answers;
            - `retrieval.Exact()`: the most probable answers and their exact probabilities, by
              enumeration or elimination, for up to 24 spins or a narrow graph of any size;
            - a sampler, such as `Gibbs()` or `ParallelTempering(betas)`: the share of the draws
              of the second half of each chain; of equals the one with the lower energy first. A
              chain that starts in the cold stays where it falls: take `Annealing()` there;
            - a functional, such as `NaiveMeanField()` or `TAP()`: the signs of the minima of
              G(m) from random corners, each weighted by `exp(-beta G)`.
        n_chains: chains, or starts of a mean-field solve.
        n_sweeps: sweeps of each chain, of `Annealing` the number of temperatures; mean-field
            solves have none.
        capacity: number of answers that are kept.

    Raises:
        ValueError: for a cue of wrong shape or with other values, and for a beta or counts that
            are not positive; of `Exact()` for hidden spins, and a graph that is too wide.
        TypeError: for another method.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))

        answers = tg.recall(energy, 1.0, jnp.array([1, 0, 0]), key=jax.random.key(0))
        assert answers.configurations[0].tolist() == [1, 1, 1]
        assert jnp.isclose(answers.probabilities[0], 1 / (1 + 3 * jnp.exp(-4.0)), atol=0.02)
        ```
    """
    counts = check_counts(n_chains=n_chains, n_sweeps=n_sweeps, capacity=capacity)
    check_parameters(energy)
    clamp = known_visible(energy, cue)
    check_finite("beta", beta, positive=True)
    if np.ndim(beta):
        raise ValueError(
            f"beta must be one number, got shape {np.shape(beta)}; use jax.vmap for many"
        )
    beta = beta_as(beta, clamp.dtype)
    if isinstance(method, Exact):
        return _recall_exactly(energy, clamp, beta, capacity)
    if not isinstance(method, AbstractFunctional):
        energy = colored(energy)
    return _recall(energy, clamp, beta, key, method, counts)


def known_visible(
    energy: AbstractEnergy, cue: Num[Array | np.ndarray, "..."]
) -> Float[Array, " n"]:
    """The cue for all spins: what is hidden is not known, shape `(n_spins,)`."""
    n = n_visible(energy)
    return jnp.pad(known_spins("cue", cue, n, parameter_dtype(energy)), (0, energy.n_spins - n))


@eqx.filter_jit
def _recall(energy, clamp, beta, key, method, counts):
    n_chains, n_sweeps, capacity = counts
    draws = draw(method, energy, clamp, beta, key, n_chains, n_sweeps)
    n = n_visible(energy)
    visible, means, known = draws.spins[:, :n], draws.means[:, :n], clamp[:n]
    counting = jnp.any(draws.log_weights > -jnp.inf)
    sound = jnp.all(jnp.isfinite(draws.costs)) & counting & (beta > 0)
    log_weights = jax.nn.log_softmax(jnp.where(sound, draws.log_weights, 0))
    sound &= ~jnp.any(jnp.isnan(log_weights))
    weights = jnp.exp(log_weights)

    # Hidden spins are summed out, so that answers that differ in nothing else are one.
    log_p = _log_probabilities(draws, _groups(visible), log_weights, jnp.sum(known == 0))
    log_p = jnp.where(sound, log_p, -jnp.inf)
    best = jnp.lexsort((draws.costs, -log_p))[:capacity]
    log_p, unused = log_p[best], (0, capacity - best.size)
    answers = jnp.where(log_p[:, None] > -jnp.inf, visible[best], 0)
    log_p = jnp.pad(log_p, unused, constant_values=-jnp.inf)
    magnetizations = jnp.where(known == 0, jnp.where(sound, dot(weights, means), 0), known)
    failed = RESULTS.where(counting, RESULTS.non_finite, draws.result)
    return Recall(
        jnp.pad(answers, (unused, (0, 0))),
        jnp.exp(log_p),
        jnp.clip(magnetizations, -1, 1),
        jnp.where(sound, 1 / jnp.sum(jnp.square(jnp.where(sound, weights, 1))), 0),
        RESULTS.where(sound, RESULTS.converged, failed),
        log_p,
    )


def _recall_exactly(energy, clamp, beta, capacity) -> Recall:
    """The lowest configurations given the cue; `ln p = beta (<E> - E) - S`.

    Not within one program: which pairs interact is known from couplings that are not traced.
    """
    n = energy.n_spins
    if n_visible(energy) < n:
        raise ValueError(
            f"energy must have no hidden spins for Exact(), got {n - n_visible(energy)} of {n}; "
            "use Annealing()"
        )
    given, beta = Clamped(energy, clamp), resolved_beta(energy, beta)
    found = exact.lowest(given, min(capacity, 2 ** min(n, 30)))
    exists = jnp.isfinite(found.energies)
    # Differences first: in the cold beta E has nothing left of them.
    size = sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(energy))
    levels = jnp.append(found.energies, exact.mean_energy(given, beta))
    above = above_lowest(levels, jnp.append(exists, True), size)[1]
    # It counts both values of each clamped spin.
    entropy = exact.entropy(given, beta) - jnp.log(2.0) * jnp.sum(clamp != 0)
    log_p = jnp.where(exists, beta * (above[-1] - above[:-1]) - entropy, -jnp.inf)
    # Rounding must not make of the answers more than all there is.
    log_p -= jnp.maximum(jax.nn.logsumexp(log_p), 0)
    sound = jnp.isfinite(entropy) & jnp.isfinite(levels[-1]) & (beta > 0)
    unused = (0, capacity - exists.size)
    log_p = jnp.pad(jnp.where(sound, log_p, -jnp.inf), unused, constant_values=-jnp.inf)
    answers = jnp.pad(found.spins, (unused, (0, 0)))
    means = jnp.where(sound, exact.magnetizations(given, beta), 0)
    return Recall(
        jnp.where(log_p[:, None] > -jnp.inf, answers, 0),
        jnp.exp(log_p),
        jnp.where(clamp == 0, means, clamp),
        jnp.where(sound, jnp.inf, 0),
        RESULTS.where(sound, RESULTS.converged, RESULTS.non_finite),
        log_p,
    )


def _log_probabilities(draws: Draws, groups, log_weights, n_unknown) -> Float[Array, " draws"]:
    """The weight of each answer at its first draw; minus infinity at the copies of that draw."""
    n_draws = len(log_weights)
    first = jnp.arange(n_draws) == jax.ops.segment_min(jnp.arange(n_draws), groups, n_draws)[groups]
    if draws.log_partition is None:
        return jnp.where(first, _log_sums(log_weights, groups), -jnp.inf)
    found = jax.nn.logsumexp(-draws.costs, where=first)
    log_partition = _combined(draws.log_partition, found, groups, jnp.exp(log_weights))
    # Where every answer was found their sum is Z.
    log_partition = jnp.where(jnp.sum(first) == 2.0**n_unknown, found, log_partition)
    return jnp.where(first, -draws.costs - jnp.maximum(log_partition, found), -jnp.inf)


def _log_sums(log_weights, groups):
    """ln of the summed weights of the group that each draw is in, shape `(draws,)`."""
    top = jax.ops.segment_max(log_weights, groups, len(log_weights))[groups]
    top = jnp.where(jnp.isfinite(top), top, 0)
    shares = jax.ops.segment_sum(jnp.exp(log_weights - top), groups, len(log_weights))
    return top + jnp.log(shares[groups])


def _combined(log_partition, found, groups, weights):
    """ln Z by the weights of the draws, and by the sum over the answers found and their coverage.

    The coverage is the share of draws that are not alone (Good 1953). The two count by their
    inverse variances, `(n/ess - 1)/n` and `(1 - coverage) / (coverage ess)`: where no draw is alone
    the sum is complete; where all are, it tells nothing.
    """
    n_draws = len(weights)
    copies = jax.ops.segment_sum(jnp.ones_like(weights), groups, n_draws)[groups]
    coverage = jnp.sum(jnp.where(copies > 1, weights, 0))
    alone = jnp.maximum(1 - coverage, 0)
    uneven = jnp.maximum(1 - 1 / (n_draws * jnp.sum(jnp.square(weights))), 0)
    variances = alone + coverage * uneven
    share = alone / jnp.where(variances > 0, variances, 1)
    by_sum = found - jnp.log(jnp.maximum(coverage, jnp.finfo(coverage.dtype).tiny))
    return share * log_partition + (1 - share) * by_sum


def _groups(spins: Float[Array, "draws n"]):
    """A number for each row, equal for equal rows, from 0 on, shape `(draws,)`."""
    padded = jnp.pad(spins, ((0, 0), (0, -spins.shape[1] % _WORD)), constant_values=1)
    words = packed(padded.reshape(len(spins), -1, _WORD))

    # Word by word: to sort by all of them at once would compile for minutes where they are many.
    def refined(number, word):
        order = jnp.lexsort((word, number))
        keys = jnp.stack([number, word.astype(number.dtype)])[:, order]
        new = jnp.any(keys[:, 1:] != keys[:, :-1], axis=0)
        return jnp.zeros_like(number).at[order].set(jnp.append(0, jnp.cumsum(new))), None

    return jax.lax.scan(refined, jnp.zeros(len(words), int), words.T)[0]
