"""Scores of answers, first hits, tables of cues, and the energy with clamped spins."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import energies, retrieval


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


# --- scores


def test_scores_of_answers_made_by_hand():
    truths = np.array([[1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, -1]])
    masks = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]], bool)
    found = np.zeros((4, 2, 3))
    found[0] = [[1, 1, 1], [1, -1, 1]]  # right, and a second answer
    found[1] = [[1, 1, 1], [1, -1, 1]]  # the truth is second
    found[2, 0] = [-1, -1, 1]  # nothing was asked
    # the last cue has no answer
    p = np.array([[0.75, 0.125], [0.5, 0.25], [1, 0], [0, 0]])
    means = np.array([[1, 0.5, 0.2], [1, 0.5, -0.5], [-1, -1, 1], [-1, 1, 0]])
    ok, lost = tg.RESULTS.converged, tg.RESULTS.non_finite
    result = jax.vmap(lambda good: tg.RESULTS.where(good, ok, lost))(jnp.arange(4) < 3)
    with np.errstate(divide="ignore"):
        log_p = jnp.asarray(np.log(p))
    answers = tg.Recall(*map(jnp.asarray, (found, p, means, np.ones(4))), result, log_p)
    data = np.array([[1, 1, 1], [-1, -1, 1]])
    scores = retrieval.recall_scores(answers, truths, truths * masks, data, n_bins=4)
    assert scores.exact_match == 0.5
    assert scores.spin_accuracy == 3 / 5  # both of cue 0, one of cue 1, none of cue 3
    assert scores.marginal_accuracy == 2 / 5
    assert scores.truth_probability == (0.75 + 0.25 + 1 + 0) / 4
    assert scores.misses == 0.25
    assert scores.false_positives == 0.25  # no answer is no datum
    assert scores.false_mass == (0.125 + 0.25) / 4
    assert scores.counts.tolist() == [1, 0, 1, 2]
    assert scores.confidence.tolist() == [0, 0, 0.5, 0.875]
    assert scores.accuracy.tolist() == [0, 0, 0, 1]
    assert scores.calibration_error == (0.5 + 0.25) / 4


def test_scores_name_wrong_shapes():
    parts = (np.zeros((4, 2, 3)), np.zeros((4, 2)), np.zeros((4, 3)), np.zeros(4))
    answers = tg.Recall(*map(jnp.asarray, parts), tg.RESULTS.converged, jnp.zeros((4, 2)))
    good = {"truths": np.ones((4, 3)), "cues": np.ones((4, 3)), "data": np.ones((2, 3))}
    for name, value, message in (
        ("truths", np.ones((3, 3)), r"truths must have shape \(4, 3\), got \(3, 3\)"),
        ("cues", np.ones((4, 2)), r"cues must have shape \(4, 3\), got \(4, 2\)"),
        ("data", np.ones((2, 4)), r"data must have shape \(samples, 3\), got \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            retrieval.recall_scores(answers, **(good | {name: value}))


def test_scores_want_answers_to_a_batch_of_cues():
    parts = (np.zeros((2, 3)), np.zeros(2), np.zeros(3), np.zeros(()))
    answer = tg.Recall(*map(jnp.asarray, parts), tg.RESULTS.converged, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"answers .* \(cues, capacity, n\), got \(2, 3\)"):
        retrieval.recall_scores(answer, np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 3)))


def test_masked_entries_of_a_cue_are_not_known():
    energy = helpers.random_pairwise(4, _key(0))
    options = {"key": _key(1), "n_chains": 8, "n_sweeps": 4}
    cue = np.ma.masked_array([1.0, np.nan, 9, -1], [False, True, True, False])
    ours = tg.recall(energy, 1.0, cue, **options)
    truth = tg.recall(energy, 1.0, np.array([1, 0, 0, -1]), **options)
    np.testing.assert_array_equal(ours.configurations, truth.configurations)
    with pytest.raises(ValueError, match="cue must hold -1 or .* got 9 at spin 2"):
        tg.recall(energy, 1.0, np.array([1.0, 0, 9, -1]), **options)


@pytest.mark.further
def test_answers_that_are_all_there_are_have_exact_probabilities():
    """Two unknown spins have four answers: nothing of Z is left to be estimated."""
    energy = tg.Pairwise(np.ones((3, 3)) - np.eye(3), np.zeros(3))
    answer = tg.recall(energy, 1.0, np.array([1, 0, 0]), key=_key(0), n_chains=512)
    weights = np.exp([3.0, -1, -1, -1])
    np.testing.assert_allclose(answer.probabilities[:4], weights / weights.sum(), rtol=1e-12)


# --- first hits


def test_first_hits_of_free_spins_are_geometric(caplog):
    """A sweep draws two free spins anew: a target is met with probability 1/4 each time."""
    energy = tg.Pairwise(np.zeros((4, 4)), np.zeros(4))
    targets = jnp.asarray([[1.0, 1, -1, -1], [-1, -1, -1, -1]])  # the second contradicts the cue
    cue = np.array([1, 1, 0, 0])

    def hits(cue, n_sweeps):
        options = {"key": _key(0), "n_chains": 4000, "n_sweeps": n_sweeps}
        return np.asarray(retrieval.first_hits(energy, 1.0, cue, targets, **options))

    found = hits(cue, 1000)
    assert np.all(np.isfinite(found)) and np.all(found == found.astype(int))
    # P(t) = (3/4)^t / 4 from t = 0 on: mean 3, variance 12.
    assert abs(found.mean() - 3) < 6 * np.sqrt(12 / 4000)
    assert abs(np.mean(found == 0) - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 4000)
    with helpers.compilations(caplog) as names:
        stopped = hits(cue, 2)
        never = hits(np.array([1, 1, 1, 0]), 20)  # both targets contradict this cue
    assert names == []
    np.testing.assert_array_equal(stopped, np.where(found <= 2, found, np.inf))
    assert np.all(np.isinf(never))


def test_first_hits_refuse_bad_input(unchecked):
    energy = tg.Pairwise(np.zeros((4, 4)), np.zeros(4))
    good = {"cue": np.ones(4), "beta": 1.0, "targets": np.ones((1, 4))}
    for changes, message in (
        ({"targets": np.ones((1, 3))}, r"targets must have shape \(targets, 4\), got \(1, 3\)"),
        ({"targets": np.ones(4)}, r"targets must have shape \(targets, 4\), got \(4,\)"),
        ({"n_sweeps": 0}, "n_sweeps must be at least 1, got 0"),
        ({"cue": np.full(4, 2)}, "cue must hold -1 or \\+1 where a spin is known"),
    ):
        with pytest.raises(ValueError, match=message):
            retrieval.first_hits(energy, key=_key(0), **(good | changes))


# --- cues


def test_cues_of_every_kind_of_file(tmp_path):
    expected = np.array([[1, 0, -1], [0, 0, 0], [-1, 1, 1]])
    path = tmp_path / "cues.csv"
    for text in (
        "1,?,0\n?,?,?\n0,1,1\n",
        "a,b,?\n1, ,-1\n,,\n\n-1,1,1\n",
        "true,,false\n?,,?\nfalse,true,true\n",
    ):
        path.write_text(text)
        found = retrieval.load_cues(path)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float64
    spins = np.where(expected == 0, np.nan, expected)
    for name, table in (("a.npy", spins), ("b.npy", (spins + 1) / 2)):
        np.save(tmp_path / name, table)
        np.testing.assert_array_equal(retrieval.load_cues(tmp_path / name), expected)
    np.savez(tmp_path / "c.npz", other=np.ones(2), spins=spins.astype(np.float32))
    np.testing.assert_array_equal(retrieval.load_cues(tmp_path / "c.npz"), expected)
    np.save(tmp_path / "d.npy", np.array([[0, 1]], np.int8))
    assert np.all(retrieval.load_cues(tmp_path / "d.npy") != 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,x\n0,1\n", "has 'x' at line 1, column 1"),
        ("a,b\nc,d\n", "has 'c' at line 2, column 'a'"),
        ("1,?\n0,-1\n", "mixes two conventions"),
        ("1,?\n0\n", "is ragged: line 2 has 1 columns, line 1 has 2"),
        ("1,?\n2,1\n", "has the value 2 at line 2, column 0"),
        ("\n", "is empty: it has no line of values"),
    ],
)
def test_bad_cues_are_named(tmp_path, text, message):
    (tmp_path / "cues.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        retrieval.load_cues(tmp_path / "cues.csv")


def test_cues_of_no_file_and_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        retrieval.load_cues(tmp_path / "cues.csv")
    (tmp_path / "cues.doc").write_text("1")
    with pytest.raises(ValueError, match="expected .npy, .npz, "):
        retrieval.load_cues(tmp_path / "cues.doc")


# --- the clamped energy

CLAMP = np.array([1.0, 0, 0, -1, 0])


def _held(s: np.ndarray) -> np.ndarray:
    return np.where(CLAMP == 0, s, CLAMP)


@pytest.mark.parametrize(
    "name", ["complete", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pairwise", "rbm"))]
)
def test_a_clamped_energy_is_that_of_the_clamped_configuration(name):
    energy = helpers.ENERGIES[name](5, _key(7))
    clamped = energies.Clamped(energy, CLAMP)
    s = helpers.configurations(5)
    table = helpers.energy_table(energy)[(_held(s) > 0) @ (1 << np.arange(5))]
    m = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 5))

    @jax.jit
    def evaluate(clamped):
        moments = energies.nonlinear_variance, energies.nonlinear_third_moment
        return (
            jax.vmap(clamped)(s),
            jax.vmap(lambda x: tg.flip_gaps(clamped, x))(s),
            jax.vmap(lambda x: energies.product_mean(clamped, x))(m),
            *(jax.vmap(lambda x, f=f: f(clamped, x))(m) for f in moments),
            jax.grad(lambda e: e(m[0]))(clamped),
        )

    values, gaps, means, variances, thirds, slopes = evaluate(clamped)
    np.testing.assert_allclose(values, table, atol=1e-13)
    flips = np.arange(32)[:, None] ^ (1 << np.arange(5))
    np.testing.assert_allclose(gaps, table[flips] - table[:, None], atol=1e-12)
    np.testing.assert_allclose(means, [helpers.mean_energy(table, x) for x in m], atol=1e-12)
    truth = [helpers.nonlinear_variance(table, x) for x in m]
    np.testing.assert_allclose(variances, truth, atol=1e-12)
    rules = jax.jit(jax.vmap(lambda x: energies.nonlinear_third_moment(energy, x)))
    np.testing.assert_allclose(thirds, rules(_held(m)), atol=1e-12)
    # Which spins are clamped, and how, is nothing to learn.
    assert not np.any(slopes.clamp)
    assert all(np.any(x) for x in jax.tree.leaves(slopes.energy))


def test_clamped_energies_refuse_bad_input():
    energy = tg.Pairwise(np.zeros((4, 4)), np.zeros(4))
    with pytest.raises(ValueError, match=r"clamp must have shape \(4,\)"):
        energies.Clamped(energy, np.ones(3))
    with pytest.raises(ValueError, match="clamp must hold -1 or \\+1 where a spin is known"):
        energies.Clamped(energy, np.full(4, 0.5))


def test_whole_weights_of_cues_are_repetitions():
    draw, cues = np.random.default_rng(0), 6
    truths = draw.choice([-1.0, 1.0], (cues, 4))
    found = draw.choice([-1.0, 1.0], (cues, 2, 4))
    found[:3, 0] = truths[:3]
    p = np.sort(draw.dirichlet(np.ones(2), cues))[:, ::-1]
    parts = (found, p, draw.uniform(-1, 1, (cues, 4)), np.ones(cues))
    masks, counts = draw.random((cues, 4)) < 0.5, np.array([3, 0, 1, 2, 1, 0])

    def scores(rows, weights):
        result = jax.vmap(lambda _: tg.RESULTS.converged)(jnp.arange(len(rows)))
        log_p = jnp.log(p[rows])
        answers = tg.Recall(*(jnp.asarray(x[rows]) for x in parts), result, log_p)
        return retrieval.recall_scores(
            answers, truths[rows], (truths * masks)[rows], truths[::2], n_bins=3, weights=weights
        )

    weighted, repeated = (
        scores(np.arange(cues), counts),
        scores(np.repeat(range(cues), counts), None),
    )
    for ours, theirs in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-14)


def test_booleans_are_no_cue(unchecked):
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(TypeError, match="cue must hold -1, 0 and \\+1, got booleans"):
        tg.recall(energy, 1.0, np.ones(4, bool), key=_key(1))
