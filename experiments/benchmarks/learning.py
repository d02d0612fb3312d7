"""Inverse Ising: pseudolikelihood against scikit-learn, and all methods against the noise floor.

Dense Gaussian couplings of variance `scale^2 / n`, fields of width 0.2, 10^4 independent samples
from tempered chains. scikit-learn fits one logistic regression for each spin (lbfgs, C = 1e6), and
the two values of each coupling are averaged. Errors are root mean squares over couplings, relative
to the noise floor: `mean diag(F^-1) / samples` with the Fisher information F, by conjugate
gradients and random probes on 10^5 further samples of 1000 chains. Times are best of three after
compiling, and of one run for scikit-learn, which has nothing to compile.

    python -m experiments benchmarks.learning [--cases 40-weak 40-strong 200-weak 200-strong]
"""

import functools
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

import thermogen as tg
from experiments.benchmarks import _peers

CASES = {
    "40-weak": (40, 0.6),
    "40-strong": (40, 1.5),
    "200-weak": (200, 0.6),
    "200-strong": (200, 1.5),
}
INVERSIONS = {
    "naive mean field": tg.NaiveMeanField(),
    "TAP": tg.TAP(),
    "Bethe": tg.Bethe(),
    "Sessak-Monasson": tg.learning.SessakMonasson(),
}
N_SAMPLES = 10_000


def model(n: int, scale: float) -> tg.Pairwise:
    rng = np.random.default_rng(n)
    upper = np.triu(rng.normal(size=(n, n)), 1) * scale / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.2 * rng.normal(size=n))


def samples(energy: tg.Pairwise, key: jax.Array, *, n_chains: int, n_kept: int = 1) -> np.ndarray:
    """Ends of independent chains, tempered where couplings are strong, in float32."""
    single = jax.tree.map(lambda x: x.astype(jnp.float32), energy)
    strong = float(jnp.std(energy.couplings)) * energy.n_spins**0.5 > 1
    sampler = tg.ParallelTempering(jnp.linspace(0.25, 1, 6)) if strong else tg.Gibbs()
    options = {"n_chains": n_chains, "n_sweeps": 5 * n_kept, "thin": 5, "burn_in": 200}
    spins = tg.sample(sampler, single, 1.0, key=key, **options)
    return np.asarray(spins, np.int8).reshape(-1, energy.n_spins)


def noise_floor(spins: np.ndarray, n_probes: int = 8) -> float:
    """Root of the mean variance of a coupling by one sample, `sqrt(mean diag F^-1)`."""
    s = jnp.asarray(spins, jnp.float32)
    n = s.shape[1]
    above = jnp.triu(jnp.ones((n, n), jnp.float32), 1)

    @jax.jit
    def fisher(x):
        """Covariance matrix of the features `s_i s_j`, i < j, and `s_i`, times a direction."""
        weight = jnp.sum((s @ x[0]) * s, axis=1) + s @ x[1]
        weight = (weight - jnp.mean(weight)) / len(s)
        return above * (s.T @ (weight[:, None] * s)), s.T @ weight

    total = 0.0
    for key in jax.random.split(jax.random.key(0), n_probes):
        probe = (above * jax.random.rademacher(key, (n, n), jnp.float32), jnp.zeros(n, jnp.float32))
        inverse, _ = jax.scipy.sparse.linalg.cg(fisher, probe, tol=1e-4, maxiter=200)
        total += float(jnp.sum(probe[0] * inverse[0]))
    n_pairs = n * (n - 1) / 2
    # The inverse of a covariance of p features from N Gaussian samples is N/(N - p) too large.
    finite = 1 - (n_pairs + n) / len(s)
    return (finite * total / n_probes / n_pairs) ** 0.5


def timed(function, repeats: int = 3):
    """Result, seconds of the first call and best of the following ones."""
    start = time.perf_counter()
    result = function()
    first, best = time.perf_counter() - start, np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return result, first - best, best


def zeros(n: int, dtype) -> tg.Pairwise:
    return tg.Pairwise(np.zeros((n, n), dtype), np.zeros(n, dtype))


def learned(data: np.ndarray, objective, dtype):
    start = zeros(data.shape[1], dtype)
    result, compiling, seconds = timed(
        lambda: tg.fit(objective, start, data, key=jax.random.key(0))
    )
    converged = "" if result.result == tg.RESULTS.converged else "  " + str(result.result)
    return np.asarray(result.energy.couplings, float), compiling, seconds, converged


def by_logistic_regressions(data: np.ndarray) -> tuple[np.ndarray, float]:
    x, n = data.astype(float), data.shape[1]
    couplings = np.zeros((n, n))
    start = time.perf_counter()
    for k in range(n):
        rest = np.delete(np.arange(n), k)
        regression = LogisticRegression(C=1e6, solver="lbfgs", max_iter=1000)
        couplings[k, rest] = 0.5 * regression.fit(x[:, rest], data[:, k]).coef_[0]
    return 0.5 * (couplings + couplings.T), time.perf_counter() - start


def inverted(data: np.ndarray, method) -> tuple[np.ndarray, float]:
    def run():
        solution = tg.learning.invert(method, *tg.learning.moments(data), throw=False)
        return jax.block_until_ready(solution.value.couplings)

    couplings, _, seconds = timed(run)
    return np.asarray(couplings, float), seconds


def study(name: str) -> None:
    n, scale = CASES[name]
    energy = model(n, scale)
    data_key, reference_key = jax.random.split(jax.random.key(n))
    data = samples(energy, data_key, n_chains=N_SAMPLES)
    reference = samples(energy, reference_key, n_chains=1000, n_kept=100)
    floor = noise_floor(reference) / N_SAMPLES**0.5
    pairs = np.triu_indices(n, 1)
    truth = np.asarray(energy.couplings)[pairs]

    def error(couplings):
        return float(np.sqrt(np.mean((couplings[pairs] - truth) ** 2)))

    print(f"\n{name}: n = {n}, couplings {scale}/sqrt(n), noise floor {floor:.5f} per coupling")
    print(f"{'':34}{'error':>10}{'/ floor':>9}{'compile':>9}{'seconds':>9}{'speed':>8}")
    theirs, slow = by_logistic_regressions(data)
    line = f"{'scikit-learn, spin by spin':34}{error(theirs):10.5f}{error(theirs) / floor:9.3f}"
    print(f"{line}{'':9}{slow:9.3f}{1:8.1f}", flush=True)
    objectives = {
        "pseudolikelihood": tg.Pseudolikelihood(l2=0.0),
        "probability flow": tg.learning.MinimumProbabilityFlow(),
    }
    for title, objective in objectives.items():
        for dtype in (np.float32, np.float64):
            couplings, compiling, seconds, note = learned(data, objective, dtype)
            figures = f"{error(couplings):10.5f}{error(couplings) / floor:9.3f}{compiling:9.2f}"
            label = f"{title}, {np.dtype(dtype).name}"
            print(f"{label:34}{figures}{seconds:9.3f}{slow / seconds:8.1f}{note}", flush=True)
    for title, method in INVERSIONS.items():
        couplings, seconds = inverted(data, method)
        figures = f"{error(couplings):10.5f}{error(couplings) / floor:9.3f}{'':9}"
        label = f"inversion, {title}"
        print(f"{label:34}{figures}{seconds:9.3f}{slow / seconds:8.1f}", flush=True)


def case(title: str, n: int, scale: float) -> list[_peers.Row]:
    data = samples(model(n, scale), jax.random.key(n), n_chains=N_SAMPLES)
    start, objective = zeros(n, np.float64), tg.Pseudolikelihood(l2=0.0)
    runs = {
        (f"{_peers.OURS}, pseudolikelihood", _peers.OURS): lambda: tg.fit(
            objective, start, data, key=jax.random.key(0)
        ),
        ("scikit-learn, spin by spin", "scikit-learn"): lambda: by_logistic_regressions(data),
    }
    measured = _peers.milli(_peers.duel(runs) + _peers.missing())
    return _peers.rows("learning, inverse Ising", title, "ms", measured, more_is_better=False)


def cases() -> dict[str, _peers.Case]:
    n, scale = CASES["40-weak"]
    title = f"couplings of {n} spins from {N_SAMPLES} samples"
    return {title: functools.partial(case, title, n, scale)}


def main(cases: tuple[str, ...] = tuple(CASES)) -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in cases:
        study(name)
