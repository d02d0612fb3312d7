"""The inverse temperature at which a model predicts samples best."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Key
from ..energies import AbstractEnergy, conditional_fields, visible_free_energy
from ..learning import checked_shares
from ..sampling import is_summed, log_partition, thermodynamic_integration
from ._settings import Objective
from ._study import Study

# Samples that tell it; more would change no digit that counts.
_JUDGES = 4096
_STEPS, _TOLERANCE = 30, 3e-3
_DIFFERENCE = 0.02  # relative, of exact ln Z
# Where ln Z is not exact: temperatures, chains, and sweeps of each.
_RUNGS, _CHAINS, _SWEEPS = 40, 128, 25

_Slopes = tuple[np.ndarray, np.ndarray, float]


def best_beta(
    study: Study, energy: AbstractEnergy, spins: np.ndarray, shares: np.ndarray
) -> tuple[float, float]:
    """The beta at which the objective of the study is best on samples, and its standard error.

    By Newton steps; the error is that of an M-estimator (Huber 1967), with that of what is sampled.

    Returns:
        1 and infinity where it is not known: of samples that follow the energy without exception,
        or not at all; of samples with gaps; and where the model cannot be sampled.
    """
    chosen = np.random.default_rng(study.settings.seed).permutation(len(spins))[:_JUDGES]
    spins, shares = spins[chosen], shares[chosen]
    if study.source.has_gaps or not shares.any():
        return 1.0, np.inf
    share, _ = checked_shares(shares, len(spins))
    beta = 1.0
    for _ in range(_STEPS):
        slopes, curvatures, common = _slopes(study, energy, beta, spins)
        curvature = share @ curvatures
        if not (curvature > 0 and np.isfinite(common)):
            break
        step = float(np.clip(-(share @ slopes) / curvature, -0.5 * beta, beta))
        beta += step
        # Steps cannot be shorter than the noise of the slope.
        if abs(step) < max(_TOLERANCE * beta, 2 * common / curvature):
            spread = np.linalg.norm(share * (slopes - share @ slopes))
            return beta, float(np.hypot(spread, common) / curvature)
    return 1.0, np.inf


def _slopes(study: Study, energy: AbstractEnergy, beta: float, spins: np.ndarray) -> _Slopes:
    """First and second derivatives by beta of the loss of each sample, and the error they share."""
    if study.settings.way is Objective.pseudolikelihood:
        _, slopes, curvatures = surprises(energy, spins, beta)
        return slopes, curvatures, 0.0
    rows = jnp.asarray(spins, float)
    slopes, curvatures = (np.asarray(x, float) for x in _of_data(energy, _array(beta), rows))
    mean, variance, error = _of_model(energy, beta, study.key(8))
    return slopes - mean, curvatures + variance, error


def surprises(energy: AbstractEnergy, spins: np.ndarray, beta: float = 1.0) -> list[np.ndarray]:
    """`-sum_k ln P(s_k | rest)` of each sample, and its two first derivatives by beta."""
    found = _surprises(energy, _array(beta), jnp.asarray(spins, float))
    return [np.asarray(x, float) for x in found]


def _array(beta: float) -> Float[Array, ""]:
    """A Python number would be part of the programs."""
    return jnp.asarray(beta, float)


@eqx.filter_jit
def _surprises(
    energy: AbstractEnergy, beta: Float[Array, ""], spins: Float[Array, "samples n"]
) -> tuple[Float[Array, " samples"], ...]:
    def surprise(beta, s):
        return jnp.sum(jax.nn.softplus(-2 * beta * s * conditional_fields(energy, beta, s)))

    slope = jax.grad(surprise)
    each = jax.vmap(lambda s: (surprise(beta, s), slope(beta, s), jax.grad(slope)(beta, s)))
    return each(spins)


@eqx.filter_jit
def _of_data(
    energy: AbstractEnergy, beta: Float[Array, ""], spins: Float[Array, "samples n"]
) -> tuple[Float[Array, " samples"], ...]:
    """Derivatives of `beta F`: the energy of each sample, and minus its variance."""

    def weight(beta, s):
        return beta * visible_free_energy(energy, beta, s)

    slope = jax.grad(weight)
    return jax.vmap(lambda s: (slope(beta, s), jax.grad(slope)(beta, s)))(spins)


def _of_model(energy: AbstractEnergy, beta: float, key: Key) -> tuple[float, float, float]:
    """Mean energy of the model, its variance, and the error of the mean: derivatives of ln Z."""
    if is_summed(energy):
        step = _DIFFERENCE * beta
        low, middle, high = (
            float(log_partition(energy, b, key=key).log_partition)
            for b in (beta - step, beta, beta + step)
        )
        return -(high - low) / (2 * step), (high - 2 * middle + low) / step**2, 0.0
    found = thermodynamic_integration(
        energy,
        beta * np.linspace(0, 1, _RUNGS + 1)[1:],
        key=key,
        n_chains=_CHAINS,
        n_sweeps=_SWEEPS,
        burn_in=_SWEEPS,
    )
    mean, capacity = found.mean_energies, float(found.heat_capacities.value[-1])
    return float(mean.value[-1]), capacity / beta**2, float(mean.standard_error[-1])
