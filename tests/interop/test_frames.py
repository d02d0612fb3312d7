"""Results as tables: the numbers of the result, under the names of the spins; diagnostics agree."""

import sys

import arviz_stats
import helpers
import jax
import numpy as np
import pandas
import pytest
import xarray

import thermogen as tg
from thermogen import interop, learning, sampling

KEY = jax.random.key(0)
NAMES = list("abcdef")
ENERGY = helpers.random_pairwise(6, jax.random.key(3), 2.0)


@pytest.fixture(scope="module")
def draws():
    return tg.sample(tg.Gibbs(), ENERGY, 0.5, key=KEY, n_chains=4, n_sweeps=100, burn_in=20)


def test_a_frame_of_samples_becomes_spins():
    frame = pandas.DataFrame(
        {"a": [1, 0, None], "b": [True, False, True], "kind": ["x", "y", "x"]}, ["r", "s", "t"]
    )
    table = interop.from_pandas(frame, labels="kind")
    np.testing.assert_array_equal(table.spins, [[1, 1], [-1, -1], [0, 1]])
    assert table.names == ("a", "b") and table.rows == ("r", "s", "t")
    assert table.classes == ("x", "y") and table.labels.tolist() == [0, 1, 0]
    with pytest.raises(TypeError, match=r"frame must be a pandas\.DataFrame, got list"):
        interop.from_pandas([[1, 0]])


def test_draws_are_labelled_by_chain_draw_and_spin(draws):
    frame = interop.to_pandas(draws, NAMES)
    assert frame.index.names == ["chain", "draw"] and list(frame.columns) == NAMES
    assert frame.loc[(2, 7), "c"] == draws[2, 7, 2]
    np.testing.assert_array_equal(frame.to_numpy().reshape(draws.shape), draws)
    flat = interop.to_pandas(draws[0])
    assert flat.index.name == "sample" and list(flat.columns) == list(range(6))
    np.testing.assert_array_equal(flat.to_numpy(), draws[0])


def test_diagnostics_of_arviz_are_ours(draws):
    tree = interop.to_xarray(draws, NAMES)
    assert isinstance(tree, xarray.DataTree)
    assert list(tree.posterior.spin.values) == NAMES
    ours = sampling.diagnose(draws)
    ess = arviz_stats.ess(tree, method="bulk")["spins"]
    np.testing.assert_allclose(ess.sel(spin=NAMES), ours.ess, rtol=1e-10)
    rhat = arviz_stats.rhat(tree, method="rank")["spins"]
    np.testing.assert_allclose(rhat.sel(spin=NAMES), ours.rhat, rtol=1e-10)
    summary = arviz_stats.summary(tree, round_to="none")
    assert list(summary.index) == [f"spins[{name}]" for name in NAMES]
    np.testing.assert_allclose(summary["mean"], np.mean(draws, axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(summary["ess_bulk"], ours.ess, rtol=1e-10)


def test_a_library_keeps_its_numbers(tmp_path):
    library = tg.find_minima(tg.NaiveMeanField(), ENERGY, 2.0, key=KEY, n_starts=32)
    frame = interop.to_pandas(library, NAMES)
    assert frame.index.name == "state" and len(frame) == library.size
    np.testing.assert_array_equal(frame[NAMES], library.magnetizations)
    np.testing.assert_array_equal(frame["free_energy"], library.free_energies)
    assert set(frame["kind"]) == {"minimum"}
    data = interop.to_xarray(library, NAMES)
    assert data["magnetization"].dims == ("state", "spin")
    assert data["magnetization"].sel(state=0, spin="d") == library.magnetizations[0, 3]
    data.to_dataframe()
    with pytest.raises(ValueError, match="names must not be those of other columns: hits"):
        interop.to_pandas(library, ["hits", *NAMES[1:]])


@pytest.mark.further
def test_bound_states_and_their_certificate():
    found = tg.find_bound_states(ENERGY, 2.0, key=KEY, threshold=5, n_starts=16)
    frame = interop.to_pandas(found, NAMES)
    assert len(frame) == len(found) and np.isclose(frame["weight"].sum(), 1)
    np.testing.assert_array_equal(frame[["escape_time_low", "escape_time_high"]], found.intervals)
    np.testing.assert_array_equal(frame[NAMES], found.magnetizations)
    rows = interop.to_pandas(found.certificate, NAMES)
    assert rows["bound"].sum() == len(found)
    np.testing.assert_array_equal(rows[NAMES], found.certificate.cores)
    data = interop.to_xarray(found, NAMES)
    assert data["weight"].dims == ("state",) and data["magnetization"].shape == (len(found), 6)
    assert interop.to_xarray(found.certificate)["core"].dims == ("candidate", "spin")


def test_answers_of_a_recall():
    answers = tg.recall(ENERGY, 1.0, np.array([1, -1, 0, 0, 0, 0]), key=KEY, n_chains=8, n_sweeps=8)
    frame = interop.to_pandas(answers, NAMES)
    used = np.asarray(answers.log_probabilities) > -np.inf
    assert frame.index.name == "answer" and len(frame) == used.sum() > 0
    assert np.all(frame["a"] == 1) and np.all(frame["b"] == -1)
    np.testing.assert_array_equal(frame["probability"], answers.probabilities[used])
    many = jax.tree.map(lambda x: np.stack([x, x]), answers)
    with pytest.raises(TypeError, match="the answers to one cue"):
        interop.to_pandas(many)


@pytest.mark.further
def test_losses_of_a_fit_and_models_of_a_path():
    data = helpers.configurations(4)[np.random.default_rng(0).choice(16, 80)]
    start = helpers.random_pairwise(4, KEY)
    fitted = tg.fit(tg.Pseudolikelihood(), start, data, key=KEY)
    frame = interop.to_pandas(fitted)
    assert frame.index.name == "step" and list(frame.columns) == ["loss"]
    np.testing.assert_array_equal(frame["loss"], fitted.history)
    path = learning.l1_path(
        tg.Pseudolikelihood(), start, data[:40], data[40:], strengths=[0.1, 0.3], key=KEY
    )
    models = interop.to_pandas(path)
    assert list(models.columns)[-4:] == ["training", "held_out", "criterion", "result"]
    np.testing.assert_array_equal(models["held_out"], path.held_out)
    np.testing.assert_array_equal(models[[f"degree_{d}" for d in path.degrees]], path.counts)


def test_what_is_no_result_is_named(draws):
    with pytest.raises(TypeError, match="result must be a Library, .* got Pairwise"):
        interop.to_pandas(ENERGY)
    with pytest.raises(TypeError, match=r"draws must have shape .* got \(6,\)"):
        interop.to_pandas(draws[0, 0])
    with pytest.raises(TypeError, match=r"draws must have shape \(chains, draws, spins\)"):
        interop.to_xarray(draws[0])
    with pytest.raises(ValueError, match="names must be 6, one for each spin, got 2"):
        interop.to_xarray(draws, ["a", "b"])


@pytest.mark.parametrize("module", ["pandas", "xarray"])
def test_without_the_package_the_extra_is_named(monkeypatch, draws, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"interop\.to_{module} needs {module}.*\[interop\]"):
        getattr(interop, f"to_{module}")(draws)
