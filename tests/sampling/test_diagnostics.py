"""R-hat, effective sample sizes and autocorrelation times of chains of which all is known."""

import numpy as np
import pytest
from scipy.stats import chi2

from thermogen import sampling

N_CHAINS, N_DRAWS = 8, 4000
# Odds of a false alarm that every bound below is derived from.
ALARM = 1e-9
SIGMAS = 6.0


def _autoregressive(r: float, n_chains: int = N_CHAINS, n_draws: int = N_DRAWS) -> np.ndarray:
    """`x_t = r x_(t-1) + sqrt(1 - r^2) noise`, relaxed: `rho(t) = r^t`, of unit variance."""
    noise = np.random.default_rng(0).normal(size=(n_draws, n_chains))
    noise[1:] *= np.sqrt(1 - r * r)
    for t in range(1, n_draws):
        noise[t] += r * noise[t - 1]
    return noise.T


@pytest.mark.parametrize("r", [-0.5, 0.0, 0.5, 0.9, 0.97])
def test_autocorrelation_time_is_the_known_one(r):
    """`1/2 + r + r^2 + ...`, to within the error of a sum over a window (Madras and Sokal 1988):
    `(4 W + 2) / N` is the relative variance, and W is where `r^W` sinks below the noise."""
    trace = _autoregressive(r, n_draws=20_000)
    n = trace.size
    tau = (1 + r) / (2 * (1 - r))
    window = 1 if r == 0 else max(1, np.log(n) / (2 * np.log(1 / abs(r))))
    bound = SIGMAS * np.sqrt((4 * window + 2) / n)
    assert bound < 0.5
    assert abs(sampling.integrated_autocorrelation_time(trace) / tau - 1) < bound
    # Ranks of normal numbers depend on each other as the numbers do.
    assert abs(sampling.effective_sample_size(trace) * 2 * tau / n - 1) < bound


def test_autocorrelation_time_does_not_depend_on_units():
    trace = _autoregressive(0.5)
    tau = sampling.integrated_autocorrelation_time(trace)
    for scaled in (1e-20 * trace, 1e20 * trace, trace + 1e3):
        np.testing.assert_allclose(sampling.integrated_autocorrelation_time(scaled), tau, rtol=1e-9)
    # And the effective size of the bulk on nothing but ranks.
    assert sampling.effective_sample_size(trace) == sampling.effective_sample_size(np.exp(trace))


def test_draws_that_avoid_each_other_have_the_shortest_time():
    """At r = -0.97 tau would be 0.008, which no run of this length can tell from its floor."""
    tau = sampling.integrated_autocorrelation_time(_autoregressive(-0.97))
    np.testing.assert_allclose(tau, 1 / (2 * np.log10(N_CHAINS * N_DRAWS)))


@pytest.mark.parametrize("spins", [False, True])
def test_chains_that_agree(spins):
    """Independent draws: the variance between halves over that within is chi-square. Spins lie
    all at one distance from their median, of which nothing can be told."""
    rng = np.random.default_rng(1)
    shape = N_CHAINS, N_DRAWS
    trace = rng.choice([-1, 1], shape) if spins else rng.normal(size=shape)
    half, freedom = N_DRAWS / 2, 2 * N_CHAINS - 1
    low, high = (
        np.sqrt(1 + (f(ALARM / 4, freedom) / freedom - 1) / half) for f in (chi2.ppf, chi2.isf)
    )
    found = sampling.diagnose(trace)
    assert low < found.rhat < high < 1.002
    bound = SIGMAS * np.sqrt(6 / trace.size)
    assert abs(found.ess / trace.size - 1) < bound
    assert abs(2 * found.autocorrelation_time - 1) < bound


@pytest.mark.parametrize("difference", ["mean", "width", "drift"])
def test_chains_that_disagree(difference):
    """Normal scores of two groups apart have means `+-sqrt(2 / pi)` and variance `1 - 2 / pi`."""
    rng = np.random.default_rng(2)
    trace = rng.uniform(size=(N_CHAINS, N_DRAWS))
    if difference == "mean":
        trace[::2] += 10
    elif difference == "width":
        trace = rng.choice([-1, 1], trace.shape) * (1 + trace)
        trace[::2] *= 10
    else:
        trace[:, N_DRAWS // 2 :] += 10
    halves = 2 * N_CHAINS
    between, within = 2 / np.pi * halves / (halves - 1), 1 - 2 / np.pi
    # The ranks fix the mean of each group; those of its halves spread by `within / half`.
    half = N_DRAWS / 2
    expected = np.sqrt(1 + (between / within))
    found = sampling.split_rhat(trace)
    assert abs(found - expected) < 2 * chi2.isf(ALARM, halves - 2) / (halves - 1) / half
    if difference != "width":
        # Each group of halves is worth about one draw; what they differ by never decays.
        found = sampling.diagnose(trace)
        assert found.ess < halves
        assert abs(found.autocorrelation_time / half - 1) < 0.1


def _constant(*values) -> np.ndarray:
    return np.tile(np.array(values, float)[:, None], (1, 50))


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (_constant(3, 3, 3), (1, 3, np.inf)),
        (_constant(3, 3, 4), (np.inf, 3, np.inf)),
        # The middle one of an odd number of draws belongs to neither half.
        (np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]), (1, 2, np.inf)),
    ],
)
def test_chains_that_do_not_move(trace, expected):
    assert sampling.diagnose(trace) == expected


def test_each_half_frozen_elsewhere():
    trace = np.repeat(np.array([[0.0, 1.0], [0.0, 1.0]]), 25, axis=1)
    found = sampling.diagnose(trace)
    assert found.rhat == np.inf
    assert 1 <= found.ess < 4
    assert 20 < found.autocorrelation_time < 30


def test_one_frozen_chain_is_found():
    trace = np.random.default_rng(3).normal(size=(4, 500))
    trace[0] = 2.0
    found = sampling.diagnose(trace)
    assert 1.1 < found.rhat < np.inf
    assert found.ess < 100
    assert 10 < found.autocorrelation_time < np.inf


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_each_observable_is_diagnosed_alone(shape):
    rng = np.random.default_rng(4)
    trace = rng.normal(size=(3, 21, *shape))
    if shape:
        trace[..., 0] = 1.0  # a frozen one among others
    found = sampling.diagnose(trace)
    for name, values in zip(found._fields, found, strict=True):
        assert values.shape == shape, name
    for place in np.ndindex(shape):
        one = sampling.diagnose(trace[(..., *place)])
        np.testing.assert_allclose(one, [values[place] for values in found], rtol=1e-12)
        assert np.isfinite(one.autocorrelation_time) == (not shape or place[-1] != 0)


FUNCTIONS = [
    sampling.diagnose,
    sampling.split_rhat,
    sampling.effective_sample_size,
    sampling.integrated_autocorrelation_time,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (np.zeros((2, 3)), "at least 4 draws a chain, got 3"),
        (np.full((2, 9), np.nan), "values that are not finite"),
        (np.full((2, 9, 2), np.inf), "values that are not finite"),
    ],
)
def test_bad_traces_are_named(function, trace, message):
    with pytest.raises(ValueError, match=message):
        function(trace)


def test_one_chain_has_nothing_to_compare():
    trace = _autoregressive(0.0, n_chains=1)
    with pytest.raises(ValueError, match="at least 2 chains to compare, got 1"):
        sampling.split_rhat(trace)
    bound = SIGMAS * np.sqrt(6 / trace.size)
    assert abs(sampling.effective_sample_size(trace) / trace.size - 1) < bound
