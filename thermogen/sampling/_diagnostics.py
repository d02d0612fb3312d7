"""Have the chains relaxed, and how many independent draws are they worth?"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import as_array
from .._placement import from_anywhere

Record = Num[Array | np.ndarray, "chains draws *observables"]
OfEach = Float[np.ndarray, "*observables"]

_MIN_DRAWS = 4


class Diagnosis(NamedTuple):
    """Diagnostics of chains from the record of an observable; each of shape `(...)`.

    Attributes:
        rhat: `split_rhat`, near 1 if the chains agree.
        ess: `effective_sample_size`, draws.
        autocorrelation_time: `integrated_autocorrelation_time`, in kept sweeps.
    """

    rhat: OfEach
    ess: OfEach
    autocorrelation_time: OfEach


@from_anywhere
def diagnose(trace: Record) -> Diagnosis:
    """R-hat, effective sample size and autocorrelation time of recorded observables.

    Trust means of chains with `rhat < 1.01` and `ess > 400` (Vehtari et al. 2021). All that chains
    never left stays unseen: start them apart.

    Args:
        trace: scalar observables of at least 2 chains, shape `(chains, draws, ...)`, draws >= 4.

    Raises:
        ValueError: for too few chains or draws, and for values that are not finite.

    !!! example

        ```python
        import numpy as np
        from thermogen import sampling

        draws = np.random.default_rng(0).normal(size=(4, 200))
        found = sampling.diagnose(draws)

        assert found.rhat < 1.02 and found.ess > 400
        ```
    """
    return Diagnosis(
        split_rhat(trace),
        effective_sample_size(trace),
        integrated_autocorrelation_time(trace),
    )


def split_rhat(trace: Record) -> OfEach:
    """Rank-normalised split R-hat: how much wider all chains spread than each half of one.

    The larger of that of the values and that of their distances from the median, so that chains of
    equal mean and unequal width are told apart. 1 if all values are equal, infinite if they
    differ but within no half of a chain. Vehtari, Gelman, Simpson, Carpenter and Bürkner, Bayesian
    Analysis 16, 667 (2021), section 4.

    Args:
        trace: scalar observables of at least 2 chains, shape `(chains, draws, ...)`, draws >= 4.

    Returns:
        One number for each observable, shape `(...)`.

    Raises:
        ValueError: for too few chains or draws, and for values that are not finite.

    !!! example

        ```python
        import numpy as np
        from thermogen import sampling

        draws = np.random.default_rng(0).normal(size=(4, 200))
        assert sampling.split_rhat(draws) < 1.02
        assert sampling.split_rhat(draws + np.arange(4)[:, None]) > 1.2  # chains that disagree
        ```
    """
    values = _checked(trace, min_chains=2)
    frozen = np.all([_constant(half) for half in np.split(values, 2, axis=1)], axis=0)
    equal = np.ptp(values, axis=(0, 1)) == 0
    # Where nothing moves, or all lies equally far from the median, the variances are 0 / 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = _arviz().rhat(values, chain_axis=0, draw_axis=1, method="rank")
    return np.where(frozen, np.where(equal, 1.0, np.inf), rhat)


def effective_sample_size(trace: Record) -> OfEach:
    """Number of independent draws that locate the bulk of the distribution as well ("bulk ESS").

    Of the rank-normalised halves of the chains, by Geyer's initial monotone sequence; disagreement
    between chains counts against it. Where no chain moves, each counts as one draw. Vehtari et al.,
    Bayesian Analysis 16, 667 (2021), section 4.

    Args:
        trace: scalar observables, shape `(chains, draws, ...)`, draws >= 4.

    Returns:
        One number for each observable, shape `(...)`.

    Raises:
        ValueError: for too few draws, and for values that are not finite.

    !!! example

        ```python
        import numpy as np
        from thermogen import sampling

        draws = np.random.default_rng(0).normal(size=(4, 200))
        assert 400 < sampling.effective_sample_size(draws) < 1200
        ```
    """
    values = _checked(trace)
    ess = _arviz().ess(values, chain_axis=0, draw_axis=1, method="bulk")
    return np.where(_constant(values), float(len(values)), ess)


def integrated_autocorrelation_time(trace: Record) -> OfEach:
    """`tau = 1/2 + sum_(t >= 1) rho(t)` in kept sweeps: 1/2 for independent draws.

    The standard error of the mean over all chains is `std * sqrt(2 tau / (chains * draws))`
    (Madras and Sokal, J. Stat. Phys. 50, 109 (1988)). The sum ends by Geyer's initial monotone
    sequence (Statist. Sci. 7, 473 (1992)); rho is that of all chains about their common mean, so
    that chains which disagree have a tau near `draws / 2`: each half of one counts as a chain.
    Never below `1 / (2 log10(chains * draws))`, as for draws that avoid each other, nor finite
    where no chain moves.

    Args:
        trace: scalar observables, shape `(chains, draws, ...)`, draws >= 4. Where only every
            k-th sweep was kept, k tau is the time in sweeps.

    Returns:
        One number for each observable, shape `(...)`.

    Raises:
        ValueError: for too few draws, and for values that are not finite.

    !!! example

        ```python
        import numpy as np
        from thermogen import sampling

        draws = np.random.default_rng(0).normal(size=(4, 200))
        assert 0.4 < sampling.integrated_autocorrelation_time(draws) < 1
        ```
    """
    values = _checked(trace)
    width = np.std(values, axis=(0, 1))
    scaled = (values - np.mean(values, axis=(0, 1))) / np.where(width > 0, width, 1)
    share = _arviz().ess(scaled, chain_axis=0, draw_axis=1, method="mean", relative=True)
    return np.where(_constant(values), np.inf, 0.5 / share)


def _checked(trace, min_chains: int = 1) -> np.ndarray:
    """The two halves of each chain; an odd draw in the middle belongs to none."""
    values = np.asarray(as_array("trace", trace), np.float64)
    chains, draws = values.shape[:2]
    if chains < min_chains:
        raise ValueError(f"trace must hold at least {min_chains} chains to compare, got {chains}")
    if draws < _MIN_DRAWS:
        raise ValueError(f"trace must hold at least {_MIN_DRAWS} draws a chain, got {draws}")
    if not np.isfinite(values).all():
        raise ValueError("trace holds values that are not finite")
    half = draws // 2
    return np.concatenate([values[:, :half], values[:, -half:]], axis=1)


def _constant(values: np.ndarray) -> np.ndarray | np.bool:
    """Whether no chain ever changes its value."""
    return np.all(np.ptp(values, axis=1) == 0, axis=0)


def _arviz() -> Any:
    # Imported when it is needed: its import of scipy.stats takes a second.
    from arviz_stats.base.array import array_stats

    return array_stats
