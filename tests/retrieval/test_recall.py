"""Recall against conditional distributions by enumeration, and what it promises besides."""

import functools
import itertools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import energies, retrieval
from thermogen.exact import _cost
from thermogen.retrieval._recall import _groups

BETA, N_CHAINS, N_SWEEPS = 0.9, 2000, 30
# Of a Gaussian 6 sigma are 2e-9; there are some hundred comparisons.
SIGMAS = 6.0


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _mixture(n: int) -> tg.AbstractEnergy:
    experts = [helpers.random_pairwise(n, _key(k), scale=1.5) for k in (3, 4)]
    log_z = [helpers.boltzmann(expert, 1.0)[1] for expert in experts]
    return energies.Mixture.of(experts, np.array([0.3, 0.7]), np.array(log_z))


def _model(name: str) -> tg.AbstractEnergy:
    if name == "mixture":
        return _mixture(5)
    return helpers.ENERGIES[name](8 if name == "rbm" else 5, _key(7), scale=1.3)


def _conditionals(energy, cues, masks, beta=BETA) -> np.ndarray:
    """Probabilities of the visible configurations given each cue, shape `(cues, 2**n)`."""
    if isinstance(energy, energies.Mixture):
        s = helpers.configurations(energy.n_spins)
        p = np.exp(-beta * np.asarray(jax.vmap(energy)(s)))
    else:
        p, _ = helpers.boltzmann(energy, beta)
    n = energies.n_visible(energy)
    p = p.reshape(-1, 2**n).sum(axis=0)  # hidden spins are the high bits
    s = helpers.configurations(n)
    allowed = np.all(~masks[:, None] | (s[None] == cues[:, None]), axis=2)
    return allowed * p / (allowed @ p)[:, None]


def _cues(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nothing known, two spins, all but one, and everything; 0 for what is not known."""
    rng = np.random.default_rng(0)
    masks = np.array([np.arange(n) < known for known in (0, 2, n - 1, n)])
    spins = rng.choice([-1.0, 1.0], (4, n))
    return np.where(masks, spins, 0), masks


@eqx.filter_jit
def _run(energy, cues, masks, beta, keys, method, counts):
    n_chains, n_sweeps, capacity = counts
    one = functools.partial(
        tg.recall, method=method, n_chains=n_chains, n_sweeps=n_sweeps, capacity=capacity
    )
    return jax.vmap(lambda c, k: one(energy, beta, c, key=k))(jnp.where(masks, cues, 0), keys)


def _answer_all(method, energy, cues, masks, beta=BETA, counts=(N_CHAINS, N_SWEEPS, 40)):
    keys = jax.random.split(_key(1), len(cues))
    arrays = jnp.asarray(cues), jnp.asarray(masks), jnp.asarray(beta)
    return _run(energy, *arrays, keys, method, counts)


def _table(answers, n: int) -> np.ndarray:
    """Probabilities of all configurations from the answers, shape `(cues, 2**n)`."""
    table = np.zeros((len(answers.probabilities), 2**n))
    bits = (np.asarray(answers.configurations) > 0) @ (1 << np.arange(n))
    for row, index, p in zip(table, bits, np.asarray(answers.probabilities), strict=True):
        assert len(set(index[p > 0])) == np.sum(p > 0)  # all answers differ
        row[index[p > 0]] = p[p > 0]
    return table


def _check_form(answers, cues, masks):
    p, found = np.asarray(answers.probabilities), np.asarray(answers.configurations)
    assert np.all(np.diff(p, axis=1) <= 1e-12)  # the most probable first
    assert np.all(p.sum(axis=1) <= 1 + 1e-9)
    assert np.all(found[p == 0] == 0) and np.all(np.abs(found[p > 0]) == 1)
    for cue, mask, row, q, m in zip(
        cues, masks, found, p, np.asarray(answers.magnetizations), strict=True
    ):
        assert np.all(row[q > 0][:, mask] == cue[mask])
        np.testing.assert_array_equal(m[mask], cue[mask])
    assert np.all(np.asarray(answers.result == tg.RESULTS.converged))


@pytest.mark.further
@pytest.mark.parametrize(
    "name",
    [
        "rbm",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("pairwise", "interactions", "complete", "mixture")
        ),
    ],
)
def test_annealed_answers_have_their_exact_probabilities(name):
    energy = _model(name)
    n = energies.n_visible(energy)
    cues, masks = _cues(n)
    answers = _answer_all(tg.Annealing(), energy, cues, masks)
    _check_form(answers, cues, masks)
    exact, found = _conditionals(energy, cues, masks), _table(answers, n)
    # Relative error of Z by the delta method, from the weights' own effective sample size.
    ess = np.asarray(answers.ess)[:, None]
    sigma = np.sqrt(np.maximum(N_CHAINS / ess - 1, 0) / (N_CHAINS - 1))
    there = found > 0
    # Draws miss an answer of this probability with odds below 1e-9 each.
    assert np.all(there[exact > 20.7 / ess])
    # Z is estimated no lower than the sum over what was found.
    log_ratio = np.log(np.where(there, found / np.where(there, exact, 1), 1))
    assert np.all(log_ratio <= -np.log(np.sum(exact * there, axis=1, keepdims=True)) + 1e-9)
    assert np.all(log_ratio >= -SIGMAS * sigma - 1e-9)
    means = exact @ helpers.configurations(n)
    noise = np.sqrt((1 - means**2) / ess)
    assert np.all(np.abs(answers.magnetizations - means) <= SIGMAS * noise + 1e-9)


# --- exact answers


@pytest.fixture
def eliminates(monkeypatch):
    """Elimination for the smallest models, too."""
    monkeypatch.setattr(_cost, "_FEW", -1)
    monkeypatch.setattr(_cost, "_MAX_ENUMERATED", -1)


def _sparse(n: int, seed: int) -> tg.Interactions:
    rng = np.random.default_rng(seed)
    sets = [np.array([np.arange(n - k) + i for i in range(k + 1)]).T for k in (0, 1, 3)]
    return tg.Interactions(n, sets, [rng.normal(size=len(table)) for table in sets])


def _exactly(energy, cues, beta, capacity):
    def one(cue):
        options = {"key": _key(0), "method": retrieval.Exact(), "capacity": capacity}
        return tg.recall(energy, beta, cue, **options)

    return jax.vmap(one)(jnp.asarray(cues))


def _check_exact(energy, n, beta, capacity):
    cues, masks = _cues(n)
    answers = _exactly(energy, cues, beta, capacity)
    _check_form(answers, cues, masks)
    exact = _conditionals(energy, cues, masks, beta)
    best = np.sort(exact, axis=1)[:, ::-1][:, :capacity]
    np.testing.assert_allclose(answers.probabilities, best, rtol=1e-11)
    found = _table(answers, n)
    np.testing.assert_allclose(found[found > 0], exact[found > 0], rtol=1e-11)
    means = exact @ helpers.configurations(n)
    np.testing.assert_allclose(answers.magnetizations, means, rtol=0, atol=1e-12)
    assert np.all(np.isinf(answers.ess))


@pytest.mark.parametrize("name", ["interactions", "pairwise", "mixture"])
def test_exact_answers_are_those_of_enumeration(name):
    _check_exact(_model(name), 5, BETA, 6)


@pytest.mark.further
@pytest.mark.parametrize("beta", [0.01, BETA, 10.0])
def test_exact_answers_by_elimination_are_those_of_enumeration(beta, eliminates):
    energy = _sparse(14, 0)
    assert tg.exact.cost(energy).method == "elimination"
    _check_exact(energy, 14, beta, 6)


@pytest.mark.further
def test_exact_answers_of_200_spins_against_transfer_matrices():
    """A chain with spins known here and there: sums and best paths go along it."""
    n, beta, rng = 200, 1.3, np.random.default_rng(0)
    h, j = 0.5 * rng.normal(size=n), rng.normal(size=n - 1)
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    energy = tg.Interactions(n, [np.arange(n)[:, None], bonds], [h, j])
    cue = np.where(rng.random(n) < 0.2, rng.choice([-1, 1], n), 0)
    up = np.array([-1.0, 1.0])
    site = np.where(cue[:, None] * up == -1, -np.inf, beta * h[:, None] * up)
    bond = beta * j[:, None, None] * up[:, None] * up

    def along(reduce):
        ahead, back = [site[0]], [np.zeros(2)]
        for k in range(1, n):
            ahead.append(site[k] + reduce(ahead[-1][:, None] + bond[k - 1], axis=0))
            back.append(reduce((site[-k] + back[-1])[None] + bond[-k], axis=1))
        return np.array(ahead) + np.array(back[::-1])

    sums, best = along(np.logaddexp.reduce), along(np.max)
    log_z, found = np.logaddexp.reduce(sums[0]), _exactly(energy, cue[None], beta, 4)
    found = jax.tree.map(lambda x: x[0], found)
    np.testing.assert_allclose(found.magnetizations, np.exp(sums - log_z) @ up, atol=1e-12)
    log_p = -beta * np.asarray(jax.vmap(energy)(found.configurations)) - log_z
    np.testing.assert_allclose(found.log_probabilities, log_p, rtol=0, atol=1e-10)
    np.testing.assert_allclose(log_p[0], best[0].max() - log_z, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found.configurations[0], up[best.argmax(axis=1)])
    # The next differs in some spin: it is the best of those that have its other value.
    np.testing.assert_allclose(log_p[1], best.min(axis=1).max() - log_z, rtol=0, atol=1e-10)


def test_exact_answers_want_no_hidden_spins():
    with pytest.raises(ValueError, match="no hidden spins for Exact.* got 4 of 8"):
        _exactly(_model("rbm"), np.zeros((1, 4)), 1.0, 2)


@pytest.mark.further
def test_exact_answers_that_are_equal_share_all_probability_in_the_cold():
    energy = tg.Interactions.from_terms(40, {(k, k + 1): 1.0 for k in range(39)})
    cues = np.zeros((2, 40))
    cues[1, [0, -1]] = 1, -1  # one broken bond, anywhere
    for beta in (1e3, 1e10, 1e30, np.finfo(float).max):
        answers = _exactly(energy, cues, beta, 50)
        p = np.asarray(answers.probabilities)
        np.testing.assert_allclose(p[0, :3], [0.5, 0.5, 0], atol=1e-12)
        np.testing.assert_allclose(p[1, :40], np.append(np.full(39, 1 / 39), 0), atol=1e-12)
        assert np.all(np.isfinite(answers.log_probabilities))


# --- draws of other methods


@pytest.mark.further
@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        (tg.Gibbs(), "interactions"),
        pytest.param(tg.Metropolis(), "mixture", marks=pytest.mark.slow),
        pytest.param(tg.ParallelTempering([0.4, 0.9]), "pairwise", marks=pytest.mark.slow),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_shares_of_draws_are_conditional_probabilities(sampler, name):
    energy = _model(name)
    n = energies.n_visible(energy)
    cues, masks = _cues(n)
    # At BETA two parts of this model do not exchange within 3000 sweeps; here 15 are enough.
    answers = _answer_all(sampler, energy, cues, masks, beta=0.3)
    _check_form(answers, cues, masks)
    exact, found = _conditionals(energy, cues, masks, beta=0.3), _table(answers, n)
    # The mean over a chain varies no more than one draw.
    noise = np.sqrt(exact * (1 - exact) / N_CHAINS)
    assert np.all(np.abs(found - exact) <= SIGMAS * noise + 1e-3)
    means = exact @ helpers.configurations(n)
    noise = np.sqrt((1 - means**2) / N_CHAINS)
    assert np.all(np.abs(answers.magnetizations - means) <= SIGMAS * noise + 2e-3)


@pytest.mark.further
def test_mean_field_finds_the_minima_on_the_free_spins():
    patterns = np.random.default_rng(1).choice([-1.0, 1.0], (2, 8))
    patterns[1, :4], patterns[1, 4:] = patterns[0, :4], -patterns[0, 4:]
    couplings = (patterns.T @ patterns) * (1 - np.eye(8)) / 8
    energy = tg.Pairwise(couplings, np.zeros(8))
    masks = np.array([np.arange(8) < 0, np.arange(8) < 1])
    cues = np.array([patterns[0], patterns[1]])
    answers = _answer_all(tg.NaiveMeanField(), energy, cues, masks, beta=4.0, counts=(32, 1, 8))
    _check_form(answers, cues, masks)
    # Two blocks of four with free signs: four states, two of which agree with a known spin.
    p = np.asarray(answers.probabilities)
    np.testing.assert_allclose(p[0, :5], [0.25, 0.25, 0.25, 0.25, 0], atol=1e-9)
    np.testing.assert_allclose(p[1, :3], [0.5, 0.5, 0], atol=1e-9)
    for row, sign in ((0, 1), (1, patterns[1, 0] * patterns[0, 0])):
        found = {tuple(s) for s in np.asarray(answers.configurations)[row] if s.any()}
        assert {tuple(sign * patterns[0]), tuple(sign * patterns[1])} <= found


@pytest.mark.further
def test_mean_field_counts_each_minimum_once_where_two_have_the_same_signs():
    """A magnet of triples in a field, at coexistence of a weak and a strong magnetization."""
    n, beta, functional = 6, 1.0, tg.NaiveMeanField()
    terms = dict.fromkeys(itertools.combinations(range(n), 3), 0.2)
    energy = tg.Interactions.from_terms(n, {**terms, **{(k,): 0.05 for k in range(n)}})
    minima = tg.find_minima(functional, energy, beta, key=_key(0), n_starts=64)
    held = minima[:]
    assert held.size == 2 and np.all(held.magnetizations > 0)
    answer = tg.recall(energy, beta, np.zeros(n), key=_key(1), method=functional, n_chains=64)
    expected = np.asarray(minima.weights(beta))[:2] @ held.magnetizations
    np.testing.assert_allclose(answer.magnetizations, expected, atol=1e-8)
    np.testing.assert_allclose(answer.probabilities[0], 1)


def test_mean_field_magnetizations_solve_its_equations():
    """Weakly coupled there is one minimum; clamped spins act as fields."""
    energy = helpers.random_pairwise(8, _key(2), scale=0.6)
    masks = np.array([np.arange(8) < 3, np.arange(8) < 5])
    cues = np.where(masks, [1.0, -1, 1, -1, -1, 0, 0, 0], 0)
    answers = _answer_all(tg.NaiveMeanField(), energy, cues, masks, beta=1.5, counts=(32, 1, 8))
    for m, p, cue, mask in zip(
        np.asarray(answers.magnetizations), answers.probabilities, cues, masks, strict=True
    ):
        fields = np.asarray(energy.couplings) @ m + np.asarray(energy.fields)
        np.testing.assert_allclose(m, np.where(mask, cue, np.tanh(1.5 * fields)), atol=1e-8)
        assert abs(p[0] - 1) < 1e-12 and p[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("functional", [tg.Bethe(), tg.AdaptiveTAP(), tg.Plefka(3)])
def test_other_functionals_are_exact_where_free_spins_do_not_interact(functional):
    energy = helpers.random_pairwise(6, _key(2))
    masks, cues = np.array([np.arange(6) != 4]), np.array([[1.0, -1, 1, 1, 0, -1]])
    answers = _answer_all(functional, energy, cues, masks, counts=(2, 1, 8))
    exact = _conditionals(energy, cues, masks) @ helpers.configurations(6)
    np.testing.assert_allclose(answers.magnetizations, exact, atol=1e-7)


@pytest.fixture(scope="module")
def adder():
    """The table of addition and answers from it in the cold: the sum, b, and both from the sum."""
    data = tg.datasets.adder(3)
    energy = tg.Complete.from_data(data, temperature=0.5, gap_per_spin=1.0)
    sums = np.array([np.flatnonzero((data[:, 6:] == s).all(axis=1))[0] for s in data[:, 6:]])
    rows = np.concatenate([np.arange(64), np.arange(64), np.unique(sums)])
    known = np.zeros((3, 10), bool)
    known[0, :6], known[1, [0, 1, 2, 6, 7, 8, 9]], known[2, 6:] = True, True, True
    masks = np.repeat(known, [64, 64, len(rows) - 128], axis=0)
    answers = _answer_all(
        tg.Annealing(), energy, data[rows] * 1.0, masks, beta=2.0, counts=(256, 20, 10)
    )
    return energy, data, data[rows], masks, answers


@pytest.mark.further
def test_sums_and_summands_are_recalled_without_a_mistake(adder):
    _, data, truths, masks, answers = adder
    unique = jax.tree.map(lambda x: x[:128], answers)
    scores = retrieval.recall_scores(unique, truths[:128], (truths * masks)[:128], data)
    assert scores.exact_match == scores.spin_accuracy == scores.marginal_accuracy == 1
    assert scores.misses == scores.false_positives == 0
    # Others lie at 10/T = 20 above: 15 and 7 of them.
    assert abs(scores.truth_probability - 1) < 16 * np.exp(-20)


@pytest.mark.further
def test_an_ambiguous_cue_has_all_answers_at_equal_odds(adder):
    _, data, truths, _, answers = adder
    for truth, found, p in zip(
        truths[128:], answers.configurations[128:], answers.probabilities[128:], strict=True
    ):
        true = data[(data[:, 6:] == truth[6:]).all(axis=1)]
        k = len(true)
        assert {tuple(s) for s in np.asarray(found, int)[:k]} == {tuple(s) for s in true.tolist()}
        # Every answer is met more than once, so that the sum over them is complete.
        np.testing.assert_allclose(p[:k], 1 / k, rtol=1e-5)


# --- many unknown spins


def _of_independent_spins(n: int, kind: str) -> tuple[tg.AbstractEnergy, np.ndarray]:
    """Energies of spins that do not interact, float32, and the fields that they amount to."""
    fields = np.linspace(-0.3, 0.3, n).astype(np.float32)
    if kind == "rbm":  # every visible spin has a hidden one of its own
        energy = tg.RBM(np.diag(np.full(n, 0.5, np.float32)), fields, 0.2 + 0 * fields)
        tilt = np.log(np.cosh(0.7) / np.cosh(0.3)) / 2
        return energy, fields + tilt
    energy = tg.Interactions(n, [np.arange(n)[:, None]], [fields])
    if kind == "mixture":
        log_z = float(np.sum(np.log(2 * np.cosh(fields.astype(float)))))
        energy = tg.Mixture.of([energy, energy], [0.4, 0.6], [log_z, log_z])
    return jax.tree.map(lambda x: x.astype(np.float32), energy), fields


@pytest.mark.further
@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("rbm", 200),
        *(pytest.param(*k, marks=pytest.mark.slow) for k in (("fields", 1000), ("mixture", 200))),
    ],
)
def test_answers_whose_probability_underflows_have_its_logarithm(kind, n):
    energy, fields = _of_independent_spins(n, kind)
    known = np.arange(n) < 10
    found = tg.recall(energy, 1.0, np.where(known, np.ones(n), 0), key=_key(0))
    log_p, s = np.asarray(found.log_probabilities, float), np.asarray(found.configurations, float)
    assert found.result == tg.RESULTS.converged and log_p.dtype == float
    np.testing.assert_allclose(found.probabilities, np.exp(log_p), rtol=1e-5, atol=1e-38)
    assert np.all(np.abs(s) == 1) and np.all(s[:, known] == 1) and np.all(np.diff(log_p) <= 0)
    exact = -np.sum(np.log1p(np.exp(-2 * s * fields))[:, ~known], axis=1)
    assert exact.max() < -100  # nothing of that is left in float32
    # Of ln Z by annealing, and rounding of a sum of n terms.
    error = np.sqrt((64 / float(found.ess) - 1) / 63) + 1e-6 * n
    np.testing.assert_allclose(log_p, exact, atol=SIGMAS * error)
    means = np.where(known, 1, np.tanh(fields))
    assert np.max(np.abs(found.magnetizations - means)) < SIGMAS / np.sqrt(float(found.ess))


# --- the cold


def _cold(name: str, dtype) -> tg.AbstractEnergy:
    if name == "ring":  # frustrated: twelve configurations are equal but for rounding
        couplings = -0.1 * (np.eye(6, k=1) + np.eye(6, k=-1))
        couplings[0, 5] = couplings[5, 0] = 0.1
        energy = tg.Pairwise(couplings, np.zeros(6))
    elif name == "mixture":
        energy = _mixture(5)
    else:
        energy = helpers.ENERGIES[name](7 if name == "rbm" else 6, _key(7), scale=1.3)
    return jax.tree.map(lambda x: x.astype(dtype), energy)


def _shares_of_the_lowest(energy, cues, masks) -> np.ndarray:
    """Probabilities of the visible configurations at beta = infinity, shape `(cues, 2**n)`."""
    n = energies.n_visible(energy)
    table = np.asarray(jax.vmap(energy)(helpers.configurations(energy.n_spins)))
    s = helpers.configurations(n)
    table = table.reshape(-1, 2**n)[None]  # hidden spins are the high bits
    allowed = np.all(~masks[:, None] | (s[None] == cues[:, None]), axis=2)[:, None]
    lowest = np.where(allowed, table, np.inf).min(axis=(1, 2), keepdims=True)
    ground = np.sum(allowed & (table < lowest + 1e-6), axis=1)
    return ground / ground.sum(axis=1, keepdims=True)


@pytest.mark.further
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("ring", np.float32),
        pytest.param("rbm", np.float32, marks=pytest.mark.slow),
        pytest.param("ring", np.float64, marks=pytest.mark.slow),
        pytest.param("mixture", np.float32, marks=pytest.mark.slow),
    ],
)
def test_at_any_beta_the_lowest_answers_share_all_probability(name, dtype):
    energy = _cold(name, dtype)
    n = energies.n_visible(energy)
    cues, masks = _cues(n)
    exact = _shares_of_the_lowest(jax.tree.map(lambda x: x.astype(float), energy), cues, masks)
    for beta in (1e5, 1e10, 1e30, np.finfo(dtype).max):
        answers = _answer_all(tg.Annealing(), energy, cues, masks, beta, counts=(256, 50, 16))
        assert np.all(np.asarray(answers.result == tg.RESULTS.converged))
        np.testing.assert_allclose(_table(answers, n), exact, atol=1e-5)
        means = exact @ helpers.configurations(n)
        assert np.all(np.abs(answers.magnetizations - means) <= SIGMAS / 16)
        # What lies higher is an answer too, however improbable.
        used = np.any(np.asarray(answers.configurations) != 0, axis=2)
        np.testing.assert_array_equal(np.isfinite(answers.log_probabilities), used)


@pytest.mark.slow
@pytest.mark.parametrize("method", [tg.NaiveMeanField(), tg.Gibbs()], ids=["minima", "chains"])
def test_other_methods_do_not_overflow_in_the_cold(method):
    """A magnet in a field, from above: both find that all are up."""
    energy = tg.Pairwise(np.float32(np.ones((6, 6)) - np.eye(6)), np.full(6, 4, np.float32))
    cues, masks = np.ones((2, 6)), np.array([np.arange(6) < known for known in (1, 4)])
    for beta in (1e4, 1e30, np.finfo(np.float32).max):
        answers = _answer_all(method, energy, cues, masks, beta, counts=(32, 4, 4))
        _check_form(answers, cues, masks)
        np.testing.assert_allclose(answers.probabilities[:, 0], 1, atol=1e-6)
        np.testing.assert_array_equal(answers.magnetizations, cues)


def _few(energy, cues, masks, beta, key):
    """As a user maps it, without a jit of their own."""
    options = {"key": key, "n_chains": 8, "n_sweeps": 3, "capacity": 2}
    return jax.vmap(lambda cue: tg.recall(energy, beta, cue, **options))(jnp.where(masks, cues, 0))


@pytest.mark.further
def test_another_mask_does_not_compile(caplog):
    energy = helpers.random_pairwise(5, _key(0))
    cues, masks = jnp.ones((2, 5)), jnp.asarray([np.arange(5) < known for known in (1, 2)])
    others = helpers.redrawn(energy, 1), -cues, ~masks, 0.5, _key(1)
    _few(energy, cues, masks, 1.0, _key(0))
    with helpers.compilations(caplog) as names:
        _few(*others)
    assert names == []


def test_answers_that_are_not_found_leave_their_weight():
    """All at equal odds: eight chains find some of 32 answers and say so, and both of two."""
    energy = helpers.redrawn(helpers.random_pairwise(5, _key(0)), 1, scale=0.0)
    cues, masks = jnp.ones((2, 5)), jnp.asarray([np.arange(5) < 0, np.arange(5) < 4])
    answers = _few(energy, cues, masks, 1.0, _key(0))
    np.testing.assert_allclose(answers.probabilities, [[1 / 32] * 2, [1 / 2] * 2], rtol=1e-9)


def test_parameters_that_are_not_finite_give_no_answers():
    energy = jax.tree.map(lambda x: x * np.nan, helpers.random_pairwise(5, _key(0)))
    masks = np.array([np.arange(5) < known for known in (2, 5)])
    arguments = energy, jnp.ones((2, 5)), jnp.asarray(masks), 1.0, _key(0)
    with pytest.raises(ValueError, match="energy must have finite parameters"):
        _few(*arguments)  # known
    found = jax.jit(_few)(*arguments)
    assert np.all(np.asarray(found.result == tg.RESULTS.non_finite))
    assert not np.any(found.probabilities) and not np.any(found.configurations)
    np.testing.assert_array_equal(found.magnetizations, masks * 1.0)
    assert not np.any(found.ess)


def test_another_method_is_refused():
    with pytest.raises(TypeError, match="method must be Annealing"):
        retrieval._methods.draw(tg.Gibbs, _model("pairwise"), jnp.zeros(5), 1.0, _key(0), 8, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cue": np.ones(4)}, r"cue must have shape \(5,\), one entry a spin"),
        ({"cue": np.full(5, np.nan)}, "cue must hold -1 or \\+1 where a spin is known"),
        ({"beta": 0.0}, "beta must be positive and finite, got 0.0"),
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"n_sweeps": 0}, "n_sweeps must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(changes, message):
    energy = tg.Pairwise(np.zeros((5, 5)), np.zeros(5))
    good = {"cue": np.ones(5), "beta": 1.0, "key": _key(0)}
    with pytest.raises(ValueError, match=message):
        tg.recall(energy, **(good | changes))


@pytest.mark.further
def test_gate_is_the_posterior_over_experts_given_the_cue():
    mixture = _mixture(5)
    cues, masks = _cues(5)
    s = helpers.configurations(5)
    joint = np.exp(np.asarray(jax.vmap(mixture.log_joint)(s)))
    gate = jax.vmap(lambda c, k: retrieval.gate(mixture, c, key=k, n_chains=N_CHAINS))
    ours = gate(jnp.asarray(cues), jax.random.split(_key(2), len(cues)))
    for cue, mask, found in zip(cues, masks, ours, strict=True):
        exact = joint[np.all(s[:, mask] == cue[mask], axis=1)].sum(axis=0)
        exact /= exact.sum()
        # Weights of 2000 chains scatter by less than one, relative to their mean.
        assert np.all(np.abs(found - exact) < SIGMAS * exact / np.sqrt(N_CHAINS))


def test_equal_answers_are_found_among_those_of_many_words():
    rng = np.random.default_rng(0)
    kinds = rng.choice([-1.0, 1.0], (9, 100))
    kinds[1] = kinds[0] * np.where(np.arange(100) == 99, -1, 1)
    kinds[2] = kinds[0] * np.where(np.arange(100) == 0, -1, 1)
    kind = rng.integers(9, size=60)
    groups = np.asarray(_groups(jnp.asarray(kinds[kind])))
    np.testing.assert_array_equal(groups[:, None] == groups, kind[:, None] == kind)
    assert groups.max() == len(np.unique(kind)) - 1
