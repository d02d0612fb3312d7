"""Scores of answers: how often they are right, in how many spins, and how sure they are."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import as_array, check_count
from .._placement import from_anywhere
from .._solution import RESULTS
from ._recall import Recall


class RecallScores(NamedTuple):
    """Means over cues; a cue without answers counts as wrong.

    Attributes:
        exact_match: share of cues whose top answer is the truth.
        spin_accuracy: share of the unknown spins that the top answers have right.
        marginal_accuracy: share of the unknown spins that the signs of the magnetizations have
            right.
        truth_probability: mean probability that the answers give to the truth.
        misses: share of cues whose truth is not among the answers.
        false_positives: share of cues whose top answer is not in the data.
        false_mass: mean probability of all answers that are not in the data.
        confidence: mean probability of the top answers in equal bins of it, 0 in an empty
            bin, shape `(bins,)`.
        accuracy: share of the top answers of each bin that are right, shape `(bins,)`: the
            reliability curve.
        counts: number of cues in each bin, shape `(bins,)`.
        calibration_error: mean over cues of `|accuracy - confidence|` of their bin (the expected
            calibration error of Naeini, Cooper and Hauskrecht 2015).
    """

    exact_match: Float[Array, ""]
    spin_accuracy: Float[Array, ""]
    marginal_accuracy: Float[Array, ""]
    truth_probability: Float[Array, ""]
    misses: Float[Array, ""]
    false_positives: Float[Array, ""]
    false_mass: Float[Array, ""]
    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    counts: Float[Array, " bins"]
    calibration_error: Float[Array, ""]


@from_anywhere
def recall_scores(
    answers: Recall,
    truths: Num[Array | np.ndarray, "..."],
    cues: Num[Array | np.ndarray, "..."],
    data: Num[Array | np.ndarray, "..."],
    *,
    n_bins: int = 10,
    weights: Num[Array | np.ndarray, "..."] | None = None,
) -> RecallScores:
    """Judge the answers to many cues against the configurations that the cues were made from.

    Args:
        answers: answers of `recall`, batched over cues.
        truths: the configuration behind each cue, shape `(cues, n)`.
        cues: the cues: +1 or -1 where a spin was known, 0 where not, shape `(cues, n)`.
        data: configurations that are no false positives, shape `(samples, n)`.
        n_bins: number of bins of the reliability curve.
        weights: weight of each cue, >= 0, shape `(cues,)`; a weight of 3 counts a cue three times.

    Raises:
        ValueError: if the shapes disagree.

    !!! example

        ```python
        import jax
        import jax.numpy as jnp
        import thermogen as tg

        energy = tg.Pairwise(jnp.ones((3, 3)) - jnp.eye(3), jnp.zeros(3))
        cues, truths = jnp.array([[1, 0, 0]]), jnp.ones((1, 3))
        keys = jax.random.split(jax.random.key(0), 1)
        answers = jax.vmap(lambda cue, key: tg.recall(energy, 1.0, cue, key=key))(cues, keys)
        scores = tg.retrieval.recall_scores(answers, truths, cues, truths)

        assert scores.exact_match == 1 and scores.misses == 0
        ```
    """
    n_bins = check_count("n_bins", n_bins)
    truths, cues, data = jnp.asarray(truths), jnp.asarray(cues), jnp.asarray(data)
    if answers.configurations.ndim != 3:
        raise ValueError(
            "answers must be those to a batch of cues, with configurations of shape "
            f"(cues, capacity, n), got {answers.configurations.shape}; use jax.vmap over recall"
        )
    n_cues, _, n = answers.configurations.shape
    truths, cues = as_array("truths", truths), as_array("cues", cues)
    data = as_array("data", data)
    for name, value, shape in (("truths", truths, (n_cues, n)), ("cues", cues, (n_cues, n))):
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    if data.ndim != 2 or data.shape[1] != n:
        raise ValueError(f"data must have shape (samples, {n}), got {data.shape}")
    dtype = answers.configurations.dtype
    truths, data = jnp.asarray(truths, dtype), jnp.asarray(data, dtype)
    counts = (
        jnp.ones(n_cues, dtype)
        if weights is None
        else jnp.asarray(as_array("weights", weights), dtype)
    )
    if counts.shape != (n_cues,):
        raise ValueError(f"weights must have shape ({n_cues},), got {counts.shape}")
    return _scores(answers, truths, cues == 0, data, n_bins, counts)


@eqx.filter_jit
def _scores(answers, truths, unknown, data, n_bins, weights) -> RecallScores:
    found, p = answers.configurations, answers.probabilities
    n, dtype = found.shape[-1], found.dtype
    n_unknown = jnp.sum(weights[:, None] * unknown)

    def mean(values):
        return jnp.average(values.astype(dtype), weights=weights)

    # Products of spins are exact; those with an unused row are 0.
    is_truth = jnp.einsum("ckn,cn->ck", found, truths) == n
    in_data = jnp.any(jnp.einsum("ckn,sn->cks", found, data) == n, axis=-1)
    right = is_truth[:, 0]

    def spins_right(guess):
        share = jnp.sum(weights[:, None] * (unknown & (guess == truths)))
        share /= jnp.where(n_unknown > 0, n_unknown, 1)
        return jnp.where(n_unknown > 0, share, mean(right))

    # No answer is no guess: its magnetizations are 0.
    answered = answers.result == RESULTS.converged
    signs = jnp.where(answered[:, None], jnp.where(answers.magnetizations >= 0, 1, -1), 0)
    bins = jnp.clip((p[:, 0] * n_bins).astype(int), 0, n_bins - 1)
    counts, sure, hits = (
        jax.ops.segment_sum(weights * x, bins, n_bins) for x in (1, p[:, 0], right)
    )
    size = jnp.where(counts > 0, counts, 1)
    return RecallScores(
        exact_match=mean(right),
        spin_accuracy=spins_right(found[:, 0]).astype(dtype),
        marginal_accuracy=spins_right(signs).astype(dtype),
        truth_probability=mean(jnp.sum(jnp.where(is_truth, p, 0), axis=1)),
        misses=mean(~jnp.any(is_truth, axis=1)),
        false_positives=mean(~in_data[:, 0]),
        false_mass=mean(jnp.sum(jnp.where(in_data, 0, p), axis=1)),
        confidence=sure / size,
        accuracy=hits / size,
        counts=counts,
        calibration_error=jnp.sum(jnp.abs(hits - sure)) / jnp.sum(weights),
    )
