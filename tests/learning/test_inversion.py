"""Closed-form inverse Ising against exact moments, exact entropies and its own linear response."""

import functools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.learning import SessakMonasson, invert, moments

METHODS = {
    "naive": tg.NaiveMeanField(),
    "tap": tg.TAP(),
    "bethe": tg.Bethe(),
    "sessak-monasson": SessakMonasson(),
}
# Powers of the size of the couplings by which errors fall: J and h with fields, J without.
ORDERS = {"naive": (2, 2, 3), "tap": (3, 3, 3), "bethe": (3, 3, 4), "sessak-monasson": (4, 4, 5)}
SIGMAS = 5


def _models(n: int, seed: int, n_models: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Couplings of order one and fields, shapes `(n_models, n, n)` and `(n_models, n)`."""
    rng = np.random.default_rng(seed)
    raw = np.triu(rng.normal(size=(n_models, n, n)), 1)
    return raw + raw.transpose(0, 2, 1), 0.5 * rng.normal(size=(n_models, n))


def _exact_moments(energy: tg.Pairwise) -> tuple[jax.Array, jax.Array]:
    m = tg.exact.magnetizations(energy, 1.0)
    return m, tg.exact.correlations(energy, 1.0) - jnp.outer(m, m)


@functools.partial(jax.jit, static_argnums=0)
def _recovered(name: str, couplings, fields):
    """What each of a batch of models looks like to a method that sees its exact moments."""

    def one(j, h):
        return invert(METHODS[name], *_exact_moments(tg.Pairwise(j, h)), throw=False)

    return jax.vmap(one)(couplings, fields)


def _errors(name: str, couplings: np.ndarray, fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest errors of J and of h of each model."""
    solution = _recovered(name, couplings, fields)
    assert np.all(np.asarray(solution.result == tg.RESULTS.converged))
    by_j = np.abs(np.asarray(solution.value.couplings) - couplings).max(axis=(1, 2))
    return by_j, np.abs(np.asarray(solution.value.fields) - fields).max(axis=1)


# --- truth by enumeration


@pytest.mark.parametrize("name", METHODS)
def test_order_of_the_error(name):
    couplings, fields = _models(6, 0)

    def slopes(fields):
        strong, weak = (np.array(_errors(name, x * couplings, fields)) for x in (0.04, 0.02))
        return np.median(np.log2(strong / weak), axis=1)

    with_fields, without = slopes(fields), slopes(0 * fields)
    found = [*with_fields, without[0]]
    np.testing.assert_allclose(found, ORDERS[name], atol=0.25)


def test_better_methods_are_better():
    couplings, fields = _models(6, 1)
    errors = [np.median(_errors(name, 0.1 * couplings, fields)[0]) for name in METHODS]
    assert errors[0] > 2 * errors[1] and errors[1] > errors[2] > 2 * errors[3]


def test_bethe_is_exact_on_trees():
    rng = np.random.default_rng(0)
    n, n_models = 6, 8
    couplings = np.zeros((n_models, n, n))
    for j in couplings:
        for k in range(1, n):
            i = rng.integers(k)
            j[i, k] = j[k, i] = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
    fields = 0.5 * rng.normal(size=(n_models, n))
    for error in _errors("bethe", couplings, fields):
        assert error.max() < 1e-10
    # The other methods that survive such couplings see that they are strong.
    assert _errors("naive", couplings, fields)[0].min() > 0.1


@pytest.mark.parametrize("name", ["bethe", "sessak-monasson"])
def test_two_spins_are_exact(name):
    grid = np.linspace(-1.5, 1.5, 5)
    j, h, h_ = (x.ravel() for x in np.meshgrid(grid, grid, grid))
    couplings = j[:, None, None] * np.array([[0, 1], [1, 0]])
    fields = np.stack([h, h_], axis=1)
    for error in _errors(name, couplings, fields):
        assert error.max() < 1e-10


# --- the equations that define each method


@pytest.mark.further
@pytest.mark.parametrize("name", ["tap", "bethe"])
def test_inverts_the_linear_response_of_its_functional(name):
    """At one of its own stationary points, the diagonal of the response included."""
    functional = METHODS[name]
    couplings, m = 0.2 * _models(5, 3, 1)[0][0], np.linspace(-0.6, 0.7, 5)
    free = tg.Pairwise(couplings, np.zeros(5))
    # These fields make m stationary, so that no solve is needed to get there.
    truth = tg.Pairwise(couplings, jax.grad(functional, 2)(free, 1.0, jnp.asarray(m)))
    if name == "tap":
        np.testing.assert_allclose(tg.solve(functional, truth, 1.0, m).value, m, atol=1e-9)
    response = eqx.filter_jit(tg.susceptibility)(functional, truth, 1.0, jnp.asarray(m))
    found = invert(functional, m, response).value
    np.testing.assert_allclose(found.couplings, truth.couplings, atol=1e-11)
    np.testing.assert_allclose(found.fields, truth.fields, atol=1e-11)


def test_tap_takes_the_weak_root():
    """Of the two couplings of a pair with one C^-1 the one nearer to zero."""
    m, j = jnp.array([0.6, -0.7]), 0.3
    inverse = jnp.diag(1 / (1 - m * m)) - (j + 2 * j**2 * m[0] * m[1]) * (1 - jnp.eye(2))
    found = invert(tg.TAP(), m, jnp.linalg.inv(inverse)).value
    np.testing.assert_allclose(found.couplings[0, 1], j, rtol=1e-12)


@pytest.mark.further
def test_sessak_monasson_is_the_derivative_of_its_entropy():
    def entropy(m, products):
        """By means and by `<s_i s_j>`, i < j; the other triangle follows."""
        n = m.size
        upper = jnp.triu(products, 1)
        c = upper + upper.T + jnp.eye(n) - jnp.outer(m, m)
        v, total = 1 - m**2, tg.meanfield.entropy(m)
        total += 0.5 * (jnp.linalg.slogdet(c)[1] - jnp.sum(jnp.log(v)))
        for i in range(n):
            for j in range(i + 1, n):
                signs = [(a, b) for a in (1, -1) for b in (1, -1)]
                p = [(1 + a * m[i] + b * m[j] + a * b * upper[i, j]) / 4 for a, b in signs]
                pair = sum(-x * jnp.log(x) for x in p)
                pair -= tg.meanfield.entropy(m[jnp.array([i, j])])
                total += pair - 0.5 * jnp.log(1 - c[i, j] ** 2 / (v[i] * v[j]))
        return total

    couplings, fields = _models(3, 2, 1)
    m, c = _exact_moments(tg.Pairwise(0.2 * couplings[0], fields[0]))
    by_m, by_products = jax.jit(jax.grad(entropy, (0, 1)))(m, c + jnp.outer(m, m))
    found = invert(SessakMonasson(), m, c).value
    np.testing.assert_allclose(found.fields, -by_m, atol=1e-12)
    np.testing.assert_allclose(np.triu(found.couplings), -np.triu(by_products, 1), atol=1e-12)


# --- contracts


@pytest.mark.parametrize("name", METHODS)
def test_derivatives_are_finite_differences(name):
    couplings, fields = _models(4, 3, 1)
    m, c = _exact_moments(tg.Pairwise(0.2 * couplings[0], fields[0]))
    rng = np.random.default_rng(0)
    weights, shift = rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    towards = rng.normal(size=4), shift + shift.T

    @jax.jit
    def figure(step):
        solution = invert(METHODS[name], m + step * towards[0], c + step * towards[1], throw=False)
        return jnp.sum(weights * solution.value.couplings) + jnp.sum(solution.value.fields)

    slope = (figure(1e-5) - figure(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(figure)(0.0), slope, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_single_precision_stays_so(name):
    couplings, fields = _models(4, 4, 1)
    m, c = _exact_moments(tg.Pairwise(0.2 * couplings[0], fields[0]))
    precise = invert(METHODS[name], m, c).value
    single = invert(METHODS[name], m.astype(jnp.float32), c.astype(jnp.float32)).value
    assert single.couplings.dtype == single.fields.dtype == jnp.float32
    np.testing.assert_allclose(single.couplings, precise.couplings, atol=1e-5)
    np.testing.assert_allclose(single.fields, precise.fields, atol=1e-5)


# --- failure


# Means of two spins 0.8: a covariance below -0.04 makes a probability negative.
@pytest.mark.further
@pytest.mark.parametrize(
    ("name", "covariance"), [("tap", -0.035), ("bethe", -0.05), ("sessak-monasson", -0.05)]
)
def test_pair_without_solution(name, covariance):
    m = np.array([0.8, 0.8, 0.1])
    c = np.diag(1 - m**2)
    c[0, 1] = c[1, 0] = covariance
    solution = invert(METHODS[name], m, c, throw=False)
    assert solution.result == tg.RESULTS.no_inverse
    assert solution.stats["n_failed"] == 1 and solution.stats["lowest_eigenvalue"] > 0.1
    assert np.isnan(solution.value.couplings[0, 1])
    # The third spin is independent of the others, and is told so.
    np.testing.assert_allclose(solution.value.couplings[2], 0, atol=1e-15)
    np.testing.assert_allclose(solution.value.fields[2], np.arctanh(0.1), rtol=1e-12)
    with pytest.raises(RuntimeError, match="pseudocount"):
        invert(METHODS[name], m, c)
    # Two spins less strongly tied have a solution, in the same batch as those that have none.
    weak = np.where(c == covariance, -0.01, c)
    batch = jax.vmap(lambda x: invert(METHODS[name], m, x, throw=False))(np.stack([c, weak]))
    converged = np.asarray(batch.result == tg.RESULTS.converged)
    np.testing.assert_array_equal(converged, [False, True])


@pytest.mark.parametrize("off", [0.9, 0.5])
def test_covariances_that_are_not_positive_definite(off):
    """Two spins tied to a third, but against each other: impossible, or singular at 0.5."""
    c = np.array([[1, off, off], [off, 1, -off], [off, -off, 1]])
    for method in METHODS.values():
        solution = invert(method, np.zeros(3), c, throw=False)
        assert solution.result == tg.RESULTS.no_inverse


@pytest.mark.parametrize("method", [tg.Plefka(3), tg.AdaptiveTAP()])
def test_methods_without_a_closed_form(method):
    with pytest.raises(TypeError, match="method must be"):
        invert(method, np.zeros(2), np.eye(2))


@pytest.mark.parametrize(
    ("m", "c", "message"),
    [
        (np.zeros((2, 3)), np.eye(3), "use jax.vmap for many"),
        (np.zeros(3), np.eye(2), r"shapes \(n,\) and \(n, n\)"),
        (np.array([0.2, -1.0]), np.eye(2), "got -1.0 for spin 1, whose field is infinite"),
        (np.array([0.2, np.nan]), np.eye(2), "got nan for spin 1"),
        (np.array([0.2, 0.1]), np.array([[1, 0.3], [0.3, 1]]), "must be connected"),
    ],
)
def test_bad_input(m, c, message, unchecked):
    with pytest.raises(ValueError, match=message):
        invert(tg.TAP(), m, c)


def test_bad_values_under_jit_give_a_code():
    solution = jax.jit(lambda m: invert(tg.TAP(), m, jnp.eye(2), throw=False))(np.array([1.0, 0]))
    assert solution.result == tg.RESULTS.non_finite


# --- data


def _samples(energy: tg.AbstractMultilinear, n_samples: int) -> np.ndarray:
    p, _ = helpers.boltzmann(energy, 1.0)
    rows = np.random.default_rng(0).choice(len(p), n_samples, p=p)
    return helpers.configurations(energy.n_spins)[rows]


def test_moments_are_those_of_numpy():
    data = _samples(helpers.random_pairwise(4, jax.random.key(0)), 100)
    m, c = moments(data)
    np.testing.assert_allclose(m, data.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(c, np.cov(data.T, bias=True), atol=1e-15)


def test_pseudocount_adds_samples_of_all_configurations():
    data = np.array([[1, 1, -1, 1], [1, -1, -1, -1]])
    m, c = moments(data, pseudocount=16)
    m_, c_ = moments(np.concatenate([data, helpers.configurations(4).astype(int)]))
    np.testing.assert_allclose(m, m_, atol=1e-15)
    np.testing.assert_allclose(c, c_, atol=1e-15)
    for method in METHODS.values():
        assert np.all(np.isfinite(invert(method, m, c).value.couplings))


def test_couplings_from_samples_within_the_noise():
    """Of the likelihood (Fisher information), to which the bias of the method is added."""
    n, n_samples = 5, 20_000
    truth = helpers.random_pairwise(n, jax.random.key(6), scale=0.5)
    pairs = np.triu_indices(n, 1)
    s = helpers.configurations(n)
    features = np.concatenate([s[:, pairs[0]] * s[:, pairs[1]], s], axis=1)
    p, _ = helpers.boltzmann(truth, 1.0)
    centred = features - p @ features
    sigma = np.sqrt(np.diagonal(np.linalg.inv(centred.T @ (p[:, None] * centred))) / n_samples)

    def flat(energy):
        return np.concatenate([np.asarray(energy.couplings)[pairs], energy.fields])

    method = SessakMonasson()
    bias = flat(invert(method, *_exact_moments(truth)).value) - flat(truth)
    found = flat(invert(method, *moments(_samples(truth, n_samples))).value)
    assert np.abs(bias).max() < 0.05 < 0.2 < np.abs(flat(truth)).max()
    assert np.all(np.abs(found - flat(truth)) < SIGMAS * sigma + np.abs(bias))


@pytest.mark.parametrize(
    ("data", "pseudocount", "message"),
    [
        ([[1, 1, 1], [-1, 1, 1]], 0.0, "2 constant spins, the first is spin 1, always"),
        ([[1, 1], [-1, -1]], 0.0, r"spins \[0, 1\] are tied .* set pseudocount"),
        ([[1, 0], [0, 1]], 0.0, "no values but 0 and 1, which are bits"),
        ([[1, 1], [-1, 1]], -1.0, "pseudocount must be finite and at least 0"),
    ],
)
def test_bad_data(data, pseudocount, message):
    with pytest.raises(ValueError, match=message):
        moments(np.array(data), pseudocount=pseudocount)


def test_tied_spins_are_named_among_the_others():
    data = _samples(helpers.random_pairwise(5, jax.random.key(0)), 200)
    data[:, 3] = -data[:, 1]
    with pytest.raises(ValueError, match=r"spins \[1, 3\] are tied"):
        moments(data)


@pytest.mark.parametrize("pseudocount", [0.0, 2.0])
def test_whole_weights_are_repetitions(pseudocount):
    data = _samples(helpers.random_pairwise(4, jax.random.key(0)), 60)
    counts = np.random.default_rng(0).integers(0, 4, 60)
    weighted = moments(data, weights=counts, pseudocount=pseudocount)
    repeated = moments(np.repeat(data, counts, axis=0), pseudocount=pseudocount)
    for ours, theirs in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-14)
    with pytest.raises(ValueError, match="2 constant spins"):
        moments(np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, 1]]), weights=np.array([1, 0, 1]))
