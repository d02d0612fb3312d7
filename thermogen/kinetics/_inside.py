"""Thermodynamics inside each bound state, by the cooled replicas that belong to it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from .._checks import check_count, check_memory
from .._placement import from_anywhere
from .._types import Beta, Key
from ..energies import AbstractEnergy
from ..sampling import MIN_ESS, RESULTS
from ._bound_states import BoundStates
from ._candidates import energies_of
from ._descents import prepared
from ._weights import N_CHAINS, N_POPULATIONS, Draws, check_states, draw

# Populations that must count for a state, by the replicas that they have in it: the spread of
# fewer says nothing of their mean.
_LEAST_POPULATIONS = 5.0


class Measured(NamedTuple):
    """One quantity of all states.

    Attributes:
        value: its estimates, shape `(K, ...)`.
        standard_error: their standard errors, of the same shape.
    """

    value: Float[np.ndarray, "K ..."]
    standard_error: Float[np.ndarray, "K ..."]


class StateThermodynamics(NamedTuple):
    """What is measured inside each of K bound states: values and standard errors.

    Of rows that stand for two mirror images it is that of one, the one that `magnetizations` of the
    states shows. Standard errors are infinite, and values perhaps NaN, where fewer than about five
    populations, or fewer than 30 independent replicas, are in the state; and all are unless
    `result` is `converged`. They count in what would be too rare for any of the replicas to show.

    Attributes:
        log_partition: ln Z of the sum over the configurations of the state, shape `(K,)`.
        free_energy: `-ln Z / beta`, shape `(K,)`; beside it stand the mean-field ones of
            `states.library.free_energies[states.representatives]`.
        energy: mean energy, shape `(K,)`.
        entropy: `ln Z + beta <E>` in nats, shape `(K,)`.
        magnetizations: shape `(K, n)`.
        correlations: connected ones, shape `(K, n, n)`.
        susceptibility: `beta / n` times the sum of all connected correlations: the response of the
            mean magnetization to a uniform field, shape `(K,)`.
        q_ea: mean square magnetization, the Edwards-Anderson parameter of the state, shape `(K,)`.
        result: a `RESULTS` code, that of the replicas.
    """

    log_partition: Measured
    free_energy: Measured
    energy: Measured
    entropy: Measured
    magnetizations: Measured
    correlations: Measured
    susceptibility: Measured
    q_ea: Measured
    result: RESULTS


@from_anywhere
def inside(
    energy: AbstractEnergy,
    beta: Beta,
    states: BoundStates,
    *,
    key: Key,
    n_chains: int = 4 * N_CHAINS,
    n_populations: int = N_POPULATIONS,
) -> StateThermodynamics:
    """Free energy, entropy, magnetizations and their response inside each bound state.

    The replicas of `weights` at equilibrium, those that belong to a state: `ln Z_a` is that of the
    model and the logarithm of the weight. Errors and the bias of what is not linear, as that of
    `q_ea` by the noise of magnetizations, are those of leaving out one population at a time
    (jackknife: Quenouille 1956; Tukey 1958).

    Args:
        energy: the energy of n spins that the states are of.
        beta: inverse temperature, that of the states.
        states: bound states, as `find_bound_states` returns them.
        key: random key.
        n_chains: replicas in each population; more than for weights, for means over few of them.
        n_populations: independent populations, at least 10.

    Returns:
        A row for each state, in the order of `states`.

    Raises:
        ValueError: as `weights` does, and where correlations of so many states do not fit into
            memory.

    !!! example

        ```python
        import jax
        import numpy as np
        import thermogen as tg

        magnet = tg.Pairwise((np.ones((6, 6)) - np.eye(6)) / 3, np.full(6, 0.01))
        found = tg.find_bound_states(magnet, 1.5, key=jax.random.key(0), functional=None)
        within = tg.kinetics.inside(magnet, 1.5, found, key=jax.random.key(1))
        # The state along the field is the heavier one by its free energy.
        assert within.free_energy.value[0] < within.free_energy.value[1]
        ```
    """
    check_states(energy, beta, states)
    n_chains = check_count("n_chains", n_chains, least=2)
    n_populations = check_count("n_populations", n_populations, least=10)
    sizes = n_chains, n_populations
    # Correlations and their errors, listed and stacked; those of the populations, and without each.
    n_tables = 4 * len(states) + 4 * n_populations
    check_memory(f"what is inside {len(states)} states", 8.0 * energy.n_spins**2 * n_tables)
    with jax.enable_x64(True):
        drawn = draw(energy, beta, states.certificate, states.mirrored, key, *sizes)
        spins = drawn.spins.astype(np.int8)
        energies = energies_of(prepared(energy), spins.reshape(-1, spins.shape[2]))
    energies = energies.reshape(spins.shape[:2])
    known = bool(np.isfinite(drawn.standard_error))
    rows = [
        _of_state(drawn, energies, k, float(beta), float(np.log(copies)), known)
        for k, copies in zip(states.sets.tolist(), states.multiplicity.tolist(), strict=True)
    ]
    columns = {
        name: Measured(
            *(np.stack([getattr(row[name], part) for row in rows]) for part in Measured._fields)
        )
        for name in rows[0]
    }
    return StateThermodynamics(**columns, result=drawn.result)


def _of_state(
    drawn: Draws,
    energies: Float[np.ndarray, "populations chains"],
    number: int,
    beta: float,
    log_copies: float,
    known: bool,
) -> dict[str, Measured]:
    """All that is measured inside one state."""
    own = drawn.sets == number
    moments = [
        _moments((s * sign[:, None])[mine], e[mine])
        for s, sign, e, mine in zip(drawn.spins, drawn.signs, energies, own, strict=True)
    ]
    mean_energies, means, pairs = (np.stack(x) for x in zip(*moments, strict=True))
    log_whole = drawn.log_partition - log_copies

    def measured(share: Float[np.ndarray, " populations"]) -> dict[str, np.ndarray]:
        """From shares of all configurations that are in the state and in each population."""
        total = share.sum()
        log_z, energy = log_whole + np.log(total), share @ mean_energies / total
        m = share @ means / total
        connected = np.tensordot(share, pairs, 1) / total - np.outer(m, m)
        found = {
            "log_partition": log_z,
            "free_energy": -log_z / beta,
            "energy": energy,
            "entropy": log_z + beta * energy,
            "magnetizations": m,
            "correlations": connected,
            "susceptibility": beta * connected.sum() / len(m),
            "q_ea": np.mean(m**2),
        }
        return {name: np.asarray(x) for name, x in found.items()}

    share = drawn.weights * own.mean(axis=1)
    counting = share.sum() ** 2 / max(np.sum(share**2), np.finfo(float).tiny)
    size = drawn.ess * share.sum()
    if not known or counting < _LEAST_POPULATIONS or size < MIN_ESS:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = measured(share)
        return {name: Measured(x, np.full_like(x, np.inf)) for name, x in values.items()}
    found = _jackknife(share, measured)
    # What is so rare that no replica shows it: one flip among all, or one excitation by a gap of
    # which the Boltzmann factor is that.
    flip, excitation = 2 / size, np.log(size) / size
    unseen = {
        "energy": excitation / beta,
        "entropy": excitation,
        "magnetizations": flip,
        "correlations": flip,
        "susceptibility": beta * flip,
        "q_ea": flip,
    }
    return {
        name: Measured(value, np.asarray(np.hypot(error, unseen.get(name, 0.0))))
        for name, (value, error) in found.items()
    }


def _moments(spins: np.ndarray, energies: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean energy, means and mean products of some configurations, 0 of none."""
    size = max(1, len(spins))
    return energies.sum() / size, spins.sum(axis=0) / size, spins.T @ spins / size


def _jackknife(
    share: Float[np.ndarray, " populations"],
    measured: Callable[[np.ndarray], dict[str, np.ndarray]],
) -> dict[str, Measured]:
    """Values without their bias of the first order, and standard errors."""
    n = len(share)
    # A mean over the others, so that ln Z stays on its scale.
    others = (1 - np.eye(n)) * share * (n / (n - 1))
    whole, parts = measured(share), [measured(x) for x in others]
    found = {}
    for name, value in whole.items():
        without = np.stack([part[name] for part in parts])
        error = np.sqrt((n - 1) * without.var(axis=0))
        unbiased = n * value - (n - 1) * without.mean(axis=0)
        found[name] = Measured(np.asarray(unbiased), np.asarray(error))
    return found
