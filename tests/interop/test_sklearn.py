"""Estimators of scikit-learn: its own checks, and probabilities against enumeration."""

import pickle
import re
import subprocess
import sys
import textwrap

import helpers
import jax
import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import thermogen as tg
from thermogen.interop import _ensemble
from thermogen.interop.sklearn import BoltzmannMachine

# Those of the least time that look at what is special here.
QUICK = (
    "check_estimators_pickle",
    "check_sample_weight_equivalence_on_dense_data",
    "check_classifiers_one_label",
    "check_transformer_general",
    "check_fit_check_is_fitted",
)


def _checks(model, max_iter=None, names=None):
    machine = BoltzmannMachine(model, max_iter=max_iter)
    for estimator, check in estimator_checks.estimator_checks_generator(machine):
        name = check.func.__name__
        # It wants another library, and a switch of the environment.
        if name != "check_array_api_input" and (names is None or name in names):
            yield pytest.param(estimator, check, id=f"{model}-{name}")


@pytest.mark.parametrize(("estimator", "check"), [*_checks("pairwise", names=QUICK)])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [*_checks("pairwise"), *_checks("rbm:2", 50), *_checks("interactions:3")],
)
def test_all_checks_of_scikit_learn(estimator, check):
    check(estimator)


N = 5


@pytest.fixture(scope="module")
def bits():
    """Draws of a known model, and labels that follow from two or three of the features."""
    energy = helpers.random_pairwise(N, jax.random.key(0), 0.7, 0.3)
    spins = np.asarray(tg.exact.sample(energy, 1.0, key=jax.random.key(1), n_samples=400))
    X = (spins.astype(int) + 1) // 2
    return X, np.array(["a", "b"])[X[:, 0] ^ X[:, 1]], X[:, 1] + X[:, 2] * (1 + X[:, 3])


def _everything(n):
    return (np.asarray(tg.enumerate_spins(n)).astype(int) + 1) // 2


def _log_weights(machine, n_label):
    """`-E` of all features and all values of the label spins, by enumeration, hidden summed out."""
    energy = machine.energy_
    n = tg.energies.n_visible(energy)
    rows = np.asarray(tg.enumerate_spins(n), float)
    with jax.enable_x64(True):
        free = jax.vmap(lambda s: tg.energies.visible_free_energy(energy, 1.0, s))(rows)
    return rows, -np.asarray(free)


@pytest.mark.parametrize("model", ["pairwise", "interactions:3", "rbm:3"])
def test_likelihoods_are_those_of_the_enumerated_model(bits, model):
    machine = BoltzmannMachine(model, random_state=0, max_iter=200).fit(bits[0])
    rows, log_weights = _log_weights(machine, 0)
    found = machine.score_samples((rows + 1) / 2)
    np.testing.assert_allclose(found, log_softmax(log_weights), atol=1e-9)
    assert machine.log_partition_error_ == 0
    assert machine.score(bits[0]) == pytest.approx(np.mean(machine.score_samples(bits[0])))


@pytest.mark.parametrize("model", ["interactions:3", "rbm:3"])
def test_labels_are_spins_of_which_one_is_up(bits, model):
    X, _, y = bits
    machine = BoltzmannMachine(model, random_state=0, max_iter=200).fit(X, y)
    assert machine.classes_.tolist() == [0, 1, 2, 3]
    rows, log_weights = _log_weights(machine, 4)
    valid = np.sum(rows[:, N:] == 1, axis=1) == 1
    p = np.exp(log_softmax(log_weights[valid]))
    label = np.argmax(rows[valid][:, N:], axis=1)
    of_features = {}
    for row, k, share in zip(rows[valid][:, :N], label, p, strict=True):
        of_features.setdefault(tuple(row), np.zeros(4))[k] += share
    features = (np.array(list(of_features)) + 1) / 2
    joint = np.array(list(of_features.values()))
    np.testing.assert_allclose(np.exp(machine.score_samples(features)), joint.sum(1), rtol=1e-8)
    conditional = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(machine.predict_proba(features), conditional, rtol=1e-8, atol=1e-12)
    assert np.array_equal(machine.predict(features), conditional.argmax(axis=1))


@pytest.mark.further
def test_parity_is_learned_by_terms_of_three_spins_alone(bits):
    X, y, _ = bits
    scores = [
        cross_val_score(BoltzmannMachine(model, random_state=0), X, y).mean()
        for model in ("pairwise", "interactions:3")
    ]
    assert scores[0] < 0.8 and scores[1] == 1.0


def test_weights_are_repeated_rows(bits):
    X, y, _ = bits
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = BoltzmannMachine(random_state=0).fit(X, y, sample_weight=weights)
    repeated = BoltzmannMachine(random_state=0).fit(
        np.repeat(X, weights, axis=0), np.repeat(y, weights)
    )
    assert np.array_equal(weighted.predict_proba(X), repeated.predict_proba(X))


# Rows of two features, each of the four kinds in another number.
PAIRS = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [150, 60, 50, 140], axis=0)


def _coupling(machine):
    """`(1/4) ln p(++) p(--) / p(+-) p(-+)`, the coupling of two features, hidden summed out."""
    return machine.score_samples(_everything(2)) @ [0.25, -0.25, -0.25, 0.25]


def _machine(model):
    return BoltzmannMachine(model, random_state=0, max_iter=500)


@pytest.mark.parametrize("model", ["pairwise", "rbm:1"])
@pytest.mark.parametrize("constant", [0.3, 1e-3])
def test_constant_weights_change_nothing(model, constant):
    plain = _machine(model).fit(PAIRS)
    weighted = _machine(model).fit(PAIRS, sample_weight=np.full(len(PAIRS), constant))
    # What is left is of rounding, over hundreds of steps.
    found, expected = weighted.score_samples(PAIRS), plain.score_samples(PAIRS)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("objective", [None, tg.Pseudolikelihood()])
def test_constant_weights_change_no_prior_of_constant_features(objective):
    X = np.hstack([PAIRS, np.ones((len(PAIRS), 1), int)])
    plain, weighted = (
        BoltzmannMachine(objective=objective, random_state=0).fit(X, sample_weight=w)
        for w in (None, np.full(len(X), 0.3))
    )
    found, expected = weighted.score_samples(X), plain.score_samples(X)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    # The other value of the constant feature counts as half a sample.
    rate = np.exp(weighted.score_samples(_everything(3)))[_everything(3)[:, 2] == 0].sum()
    assert rate == pytest.approx(0.5 / (len(X) + 1), rel=0.05)


@pytest.mark.parametrize("model", ["pairwise", "rbm:1"])
def test_nearly_equal_weights_change_little(model):
    around = 0.1
    random = np.random.default_rng(0)
    weights = 1e-2 * random.uniform(1 - around, 1 + around, len(PAIRS))
    plain = _coupling(_machine(model).fit(PAIRS))
    weighted = _coupling(_machine(model).fit(PAIRS, sample_weight=weights))
    # The coupling of the data is a quarter of the sum of +-ln of four counts, each of which
    # changes by a factor between 1 - around and 1 + around; a ridge pulls both back alike.
    assert 0 < abs(weighted - plain) < np.arctanh(around)


@pytest.mark.parametrize("model", ["pairwise", "rbm:1"])
def test_whole_weights_are_repeated_rows_of_any_model(model):
    counts = np.random.default_rng(1).integers(0, 4, len(PAIRS))
    weighted = _machine(model).fit(PAIRS, sample_weight=counts)
    repeated = _machine(model).fit(np.repeat(PAIRS, counts, axis=0))
    assert np.array_equal(weighted.score_samples(PAIRS), repeated.score_samples(PAIRS))


def test_weights_are_those_of_fit_on_the_rows_as_they_are():
    weights = np.random.default_rng(2).exponential(size=len(PAIRS))
    machine = _machine("pairwise")
    for part in np.split(np.arange(len(PAIRS)), [100, 250]):
        machine.partial_fit(PAIRS[part], sample_weight=weights[part])
    start = tg.Pairwise(np.zeros((2, 2)), np.zeros(2))
    found = tg.fit(
        tg.Pseudolikelihood(), start, 2 * PAIRS - 1, weights=weights, key=jax.random.key(0)
    ).energy
    # Both end where the gradient is below 1e-5, at a curvature of a fifth and more.
    np.testing.assert_allclose(machine.energy_.couplings, found.couplings, atol=2e-4)
    np.testing.assert_allclose(machine.energy_.fields, found.fields, atol=2e-4)


@pytest.mark.further
def test_batches_end_where_one_fit_does(bits):
    X, _, y = bits
    whole, parts = BoltzmannMachine(random_state=0).fit(X, y), BoltzmannMachine(random_state=0)
    for start in range(0, len(X), 100):
        batch = slice(start, start + 100)
        parts.partial_fit(X[batch], y[batch], classes=[0, 1, 2, 3])
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-3)
    with pytest.raises(ValueError, match="labels .5. that are not among classes"):
        parts.partial_fit(X[:1], [5])
    with pytest.raises(ValueError, match="every call of partial_fit, or in none"):
        parts.partial_fit(X)


@pytest.mark.further
@pytest.mark.parametrize("labelled", [False, True])
def test_annealing_agrees_with_enumeration(bits, labelled, monkeypatch):
    X, _, y = bits
    machine = BoltzmannMachine(random_state=0).fit(X, y if labelled else None)
    exact = machine.log_partition_
    monkeypatch.setattr(_ensemble, "_MAX_ENUMERATED", 0)
    monkeypatch.setattr("thermogen.sampling._partition.is_summed", lambda energy: False)
    annealed = pickle.loads(pickle.dumps(machine))
    annealed._ensemble = _ensemble.Ensemble(machine.energy_, machine._label_codes, 1)
    assert 0 < annealed.log_partition_error_ < 0.05
    assert abs(annealed.log_partition_ - exact) < 5 * annealed.log_partition_error_
    drawn = annealed.sample(2000)
    _assert_drawn(machine, drawn if labelled else (drawn, None))


@pytest.mark.further
def test_draws_follow_the_probabilities(bits):
    X, _, y = bits
    machine = BoltzmannMachine(random_state=0).fit(X, y)
    _assert_drawn(machine, machine.sample(2000))
    unlabelled = BoltzmannMachine(random_state=0).fit(X)
    assert set(np.unique(unlabelled.sample(50))) == {0, 1}
    _assert_drawn(unlabelled, (unlabelled.sample(2000), None))


def _assert_drawn(machine, drawn):
    """Frequencies of all features, with their label, within five standard errors."""
    features, labels = drawn
    rows = _everything(N)
    p = np.exp(machine.score_samples(rows))[:, None]
    classes = [None] if labels is None else list(machine.classes_)
    p = p if labels is None else p * machine.predict_proba(rows)
    index = features @ 2 ** np.arange(N)
    for k, label in enumerate(classes):
        chosen = index if labels is None else index[labels == label]
        counts = np.bincount(chosen, minlength=2**N)
        share, n = p[:, k], len(features)
        # Rare cells too: a count of a mean below one may well be four.
        assert np.all(np.abs(counts - n * share) < 5 * np.sqrt(n * share * (1 - share)) + 4)


def test_hidden_means_are_those_of_a_bernoulli_rbm(bits):
    X = bits[0]
    machine = BoltzmannMachine("rbm:3", random_state=0, max_iter=200).fit(X)
    weights, _, fields = (np.asarray(x) for x in jax.tree.leaves(machine.energy_))
    expected = expit(2 * ((2 * X - 1) @ weights + fields))
    np.testing.assert_allclose(machine.transform(X), expected, rtol=1e-9)
    assert machine.get_feature_names_out().tolist() == [f"boltzmannmachine{k}" for k in range(3)]


@pytest.mark.further
def test_states_tell_patterns_apart():
    random = np.random.default_rng(0)
    patterns = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0]])
    which = random.integers(0, 2, 300)
    X = patterns[which] ^ (random.random((300, 8)) < 0.05)
    machine = BoltzmannMachine(random_state=0)
    shares = machine.fit_transform(X)
    assert shares.shape == (300, len(machine.states_)) and len(machine.states_) >= 2
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # Each state holds one of the patterns.
    found = shares.argmax(axis=1)
    purity = sum(np.bincount(which[found == k], minlength=2).max() for k in np.unique(found))
    assert purity > 0.97 * len(X)


@pytest.mark.further
def test_searches_and_pipelines(bits):
    X, y, _ = bits
    densities = GridSearchCV(BoltzmannMachine(random_state=0), {"l2": [0.01, 10.0]}, cv=3).fit(X)
    assert densities.best_params_ == {"l2": 0.01} and densities.best_score_ < 0
    machine = BoltzmannMachine("rbm:8", random_state=0, max_iter=1000)
    assert make_pipeline(machine, LogisticRegression()).fit(X, y).score(X, y) > 0.9


def test_an_energy_is_where_a_fit_starts(bits):
    X, y, _ = bits
    start = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
    by_name = BoltzmannMachine(random_state=0).fit(X).score_samples(X)
    given = clone(BoltzmannMachine(start, random_state=0)).fit(X)
    np.testing.assert_allclose(given.score_samples(X), by_name, atol=1e-3)
    with pytest.raises(ValueError, match="6 visible spins, 5 of features and 1 of the label"):
        BoltzmannMachine(start).fit(X, y)


def test_two_values_are_taken_as_they_are(bits):
    X = bits[0]
    as_bits, as_spins = (
        BoltzmannMachine(binarize=None, random_state=0).fit(x) for x in (X, 2 * X - 1)
    )
    assert np.array_equal(as_bits.score_samples(X), as_spins.score_samples(2 * X - 1))
    with pytest.raises(ValueError, match="two values, 0 and 1 or -1 and 1.*got 0.0 to 0.5"):
        BoltzmannMachine(binarize=None).fit(X / 2)


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", BoltzmannMachine.__doc__, flags=re.DOTALL)
    exec(textwrap.dedent(code), {})


def test_scikit_learn_is_loaded_when_it_is_asked_for():
    code = (
        "import sys, thermogen as tg; tg.interop.Model; assert 'sklearn' not in sys.modules; "
        "assert tg.interop.sklearn.BoltzmannMachine().model == 'pairwise'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_checked(bits):
    for model in ("ising", 3):
        with pytest.raises(ValueError, match="model must be"):
            BoltzmannMachine(model).fit(bits[0])


def test_what_was_not_learned_is_not_predicted(bits):
    with pytest.raises(NotFittedError):
        BoltzmannMachine().score_samples(bits[0])
    with pytest.raises(ValueError, match=r"call fit\(X, y\) with y"):
        BoltzmannMachine(random_state=0).fit(bits[0]).predict(bits[0])


def test_a_fit_that_stops_early_says_so(bits):
    with pytest.warns(ConvergenceWarning, match="n_steps"):
        BoltzmannMachine(max_iter=1).fit(bits[0])
