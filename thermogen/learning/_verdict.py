"""What is said of data before a fit, and of a fit at its end."""

import warnings

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from ..energies import constrain, n_visible
from ._conditional import constant_spins, default_l2, margins
from ._results import RESULTS
from ._samples import Samples

# The late part of a noisy fit is about the last ninth of its steps.
LATE_PART = 9


def judged(
    history: Float[Array, " capacity"],
    taken: Int[Array, ""],
    n_spins: int,
    entropy: Float[Array, ""] | None,
) -> RESULTS:
    """How the steps of a sampled loss ended, by the mean of the late ones.

    A negative log-likelihood is not below the entropy of the data, up to the noise of ln Z;
    `<E>_data - <E>_model` is one less an entropy, of n ln 2 at most. Free spins, with all
    parameters 0, cost n ln 2: above it, and above the start, the loss rises.

    Args:
        history: losses, in nats, of which the first count.
        taken: number of steps.
        n_spins: number of spins of the data.
        entropy: entropy of the data, in nats, if the loss is a likelihood.
    """
    n_late = jnp.maximum(1, taken // LATE_PART)
    index = jnp.arange(len(history))
    is_late = (index < taken) & (index >= taken - n_late)
    late = jnp.sum(jnp.where(is_late, history, 0)) / n_late
    noise, free = 0.01 * n_spins, n_spins * np.log(2)
    lost = jnp.zeros((), bool)
    if entropy is not None:
        lost = late < entropy - noise
    least = -free if entropy is None else -noise
    impossible = (late < least) | (late > jnp.maximum(free, history[0]))
    result = RESULTS.where(lost, RESULTS.few_weights, RESULTS.completed)
    result = RESULTS.where(impossible, RESULTS.diverged, result)
    return RESULTS.where(history[taken - 1] == jnp.inf, RESULTS.few_weights, result)


def entropy_of(data: np.ndarray, share: np.ndarray) -> float:
    """That of the distribution that the samples are, in nats."""
    _, kind = np.unique(data, axis=0, return_inverse=True)
    p = np.bincount(kind.ravel(), share)
    return float(-np.sum(p * np.log(np.where(p > 0, p, 1))))


def separated(energy: PyTree, samples: Samples, bounded_fields: bool) -> Bool[Array, ""]:
    """Whether a fully visible model predicts all spins of all samples right from the others.

    Its fields are linear in its parameters: all of them scaled up lower the loss for ever. A loss
    that bounds fields does so for constant spins.
    """
    if n_visible(energy) < energy.n_spins:
        return jnp.zeros((), bool)
    aligned = margins(constrain(energy), samples) > 0
    counted = (samples.weights > 0)[:, None] & (samples.spins != 0)
    if bounded_fields:
        counted &= ~constant_spins(samples)[None, :]
    return jnp.all(aligned | ~counted) & jnp.any(counted)


def warn_of_infinite_parameters(
    data: Num[np.ndarray, "samples visible"], fields: bool, couplings: bool
) -> None:
    """Name at most ten constant spins and, if asked, five pairs that are fixed to each other."""
    constant = np.flatnonzero(~(np.any(data > 0, axis=0) & np.any(data < 0, axis=0)))
    strength = f"{default_l2(data.shape[1], len(data)):.1g}"
    found, remedies = [], []
    if fields and constant.size:
        found.append(f"spins {constant[:10].tolist()} are constant")
        remedies.append(f"L2({strength}, fields={strength})")
    if couplings:
        free = np.setdiff1d(np.arange(data.shape[1]), constant)
        varying = data[:, free].astype(np.float32)
        known = np.abs(varying)
        both = len(data) if known.all() else known.T @ known
        bound = np.argwhere(np.triu((np.abs(varying.T @ varying) == both) & (both > 1), 1))
        if bound.size:
            found.append(f"pairs {free[bound[:5]].tolist()} are always equal or always opposite")
            remedies.append(f"L2({strength})")
    if found:
        warnings.warn(
            f"data: {' and '.join(found)}: without a penalty their parameters grow without bound. "
            f"Add one, such as penalty=thermogen.learning.{remedies[0]}, or leave these spins out",
            stacklevel=4,
        )
