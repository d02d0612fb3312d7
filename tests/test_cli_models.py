"""Commands that take any model: study of one that was given, sample, compare."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from thermogen import cli, storage


def _run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def _glass(n, seed=0):
    upper = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(jnp.asarray(upper + upper.T), jnp.linspace(-0.5, 0.5, n))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, energy in [
        ("a", _glass(6)),
        ("b", _glass(6, seed=1)),
        ("large", _glass(24)),
        ("machine", tg.RBM.random(3, np.zeros(6), key=jax.random.key(0), scale=0.5)),
    ]:
        storage.save_energy(folder / f"{name}.eqx", energy)
    return folder


def test_samples_of_few_spins_are_exact(models, tmp_path):
    out = tmp_path / "drawn.npy"
    outcome = _run("sample", models / "a.eqx", "--out", out, "--number", 4000, "--beta", 0.5)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.split() == [str(out)] and "exact and independent" in outcome.stderr
    spins = np.load(out)
    assert spins.shape == (4000, 6) and spins.dtype == np.int8
    means = np.asarray(tg.exact.magnetizations(_glass(6), 0.5))
    assert np.all(np.abs(spins.mean(axis=0) - means) < 5 * np.sqrt((1 - means**2) / 4000))


@pytest.mark.further
@pytest.mark.parametrize("model", ["large", "machine"])
def test_samples_of_other_models_come_with_a_diagnosis(models, tmp_path, model):
    out = tmp_path / "drawn.csv"
    counts = ["--number", 90, "--chains", 20, "--thin", 5]
    outcome = _run("sample", models / f"{model}.eqx", "--out", out, *counts)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stderr.startswith("R-hat of the energy is ")
    spins = tg.datasets.load(out)
    assert spins.shape == (90, 24 if model == "large" else 6)
    assert out.read_text().startswith("s0,s1,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.eqx", "--out", "drawn.txt"], "--out must end in .csv, .npy or .npz"),
        (["a.eqx", "--number", "0"], "--number must be at least 1"),
        (["none.eqx"], "none.eqx"),
    ],
)
def test_samples_that_cannot_be_drawn_are_said_in_one_line(models, monkeypatch, arguments, message):
    monkeypatch.chdir(models)
    outcome = _run("sample", *arguments)
    assert outcome.exit_code == 2 and message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_two_models_are_compared(models, tmp_path):
    data = tmp_path / "data.csv"
    samples = np.asarray(tg.exact.sample(_glass(6), 1.0, key=jax.random.key(1), n_samples=300))
    np.savetxt(data, samples, "%d", ",")
    outcome = _run("compare", models / "a.eqx", models / "b.eqx", "--data", data, "--json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    p, q = (np.asarray(tg.exact.probabilities(_glass(6, k), 1.0), float) for k in (0, 1))
    apart = found["divergence"]
    np.testing.assert_allclose(apart["forward"], [p @ np.log(p / q), 0], atol=1e-4)
    np.testing.assert_allclose(apart["symmetric"], [(p - q) @ np.log(p / q), 0], atol=1e-4)
    ours, theirs = (model["log_likelihood"][0] for model in found["models"])
    expected = tg.learning.log_likelihood(_glass(6), samples, key=jax.random.key(0))
    np.testing.assert_allclose(ours, expected.value, rtol=1e-4)
    # By sample, the gain is known better than either likelihood; the data are those of a.
    np.testing.assert_allclose(found["gain"][0], theirs - ours, atol=1e-5)
    assert found["gain"][0] < 0 and found["gain"][1] < 0.1
    assert abs(found["gain"][0] + p @ np.log(p / q)) < 5 * found["gain"][1]


def test_a_model_has_the_states_of_itself(models):
    outcome = _run("compare", models / "a.eqx", models / "a.eqx", "--json")
    assert outcome.exit_code == 0, outcome.output
    for model in json.loads(outcome.stdout)["models"]:
        assert model["n_states_of_both"] == model["n_states"] >= 1
        assert [state["nearest"] for state in model["states"]] == list(range(model["n_states"]))


def test_a_comparison_is_a_table_for_eyes(models):
    outcome = _run("compare", models / "a.eqx", models / "machine.eqx")
    assert outcome.exit_code == 0, outcome.output
    for text in ("parameters", "KL(A, B)", "a bound of both", "States of A", "States of B", "27"):
        assert text in outcome.stdout


def test_models_of_other_spins_are_not_compared(models):
    outcome = _run("compare", models / "a.eqx", models / "large.eqx")
    assert outcome.exit_code == 2 and "as many visible spins, got 6 and 24" in outcome.stderr


@pytest.mark.further
def test_names_of_spins_travel_with_the_model(tmp_path):
    """From the table to the model of the study, and to what that model draws."""
    table, out, drawn = tmp_path / "table.csv", tmp_path / "out", tmp_path / "drawn.csv"
    samples = np.asarray(tg.exact.sample(_glass(3), 1.0, key=jax.random.key(1), n_samples=40))
    head = 'hot,"wet, cold",late'
    np.savetxt(table, samples, "%d", ",", header=head, comments="")
    quick = ["--quick", "--starts", 8, "--l2", 0.01]
    outcome = _run("study", table, "--out", out, "--model", "rbm:2", *quick)
    assert outcome.exit_code == 0, outcome.output
    model = tg.interop.read_model(out / "model.eqx")
    assert model.names == ("hot", "wet, cold", "late", "hidden 0", "hidden 1")
    assert _run("sample", out / "model.eqx", "--out", drawn, "--number", 50).exit_code == 0
    assert tg.datasets.read(drawn).names == ("hot", "wet, cold", "late")


# --- studies of a model that was trained before


@pytest.mark.further
def test_a_model_is_studied_as_it_is(models, tmp_path):
    out = tmp_path / "out"
    command = ["--model", models / "a.eqx", "--starts", 8, "--quick", "--json"]
    outcome = _run("study", "--out", out, *command)
    assert outcome.exit_code == 0, outcome.output
    figures = json.loads(outcome.stdout)
    assert figures == json.loads((out / "summary.json").read_text())
    assert figures["given"] and figures["beta"] == 1 and figures["l2"] is None
    assert figures["n_samples"] == 1024 and figures["data"] == f"samples of {models / 'a.eqx'}"
    assert figures["stages_finished"][:2] == ["judge", "quench"]
    # Samples of the model itself have its entropy, and no more.
    p = np.asarray(tg.exact.probabilities(_glass(6), 1.0), float)
    judged = figures["held_out"]
    assert abs(judged["log_likelihood"] - p @ np.log(p)) < 5 * judged["error"]
    kept = storage.load_energy(out / "model.eqx")
    np.testing.assert_array_equal(kept.couplings, _glass(6).couplings)


@pytest.mark.further
@pytest.mark.parametrize("model", ["rbm:3", "interactions:3", "complete"])
def test_a_study_learns_any_model(tmp_path, model):
    out = tmp_path / "out"
    command = ["--model", model, "--l2", 0.01, "--starts", 8, "--quick"]
    outcome = _run("study", "adder:2", "--out", out, *command)
    assert outcome.exit_code == 0, outcome.output
    figures = json.loads((out / "summary.json").read_text())
    assert figures["model"] == model and figures["n_states"] >= 1
    assert figures["objective"] == ("likelihood" if model == "rbm:3" else "pseudolikelihood")
    assert figures["held_out"]["n_samples"] == 3 and figures["held_out"]["log_likelihood"] < 0
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DATA is missing"),
        (["adder:2", "--model", "pairs"], "no model or file named 'pairs'"),
        (["adder:2", "--model", "a.eqx"], "adder:2 has 7 spins; the model a.eqx has 6 visible"),
        (["--model", "a.eqx", "--weights", "w.csv"], "--weights belong to DATA"),
    ],
)
def test_studies_that_cannot_begin_say_why(models, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(models)
    outcome = _run("study", *arguments, "--out", tmp_path / "out")
    assert outcome.exit_code == 2 and message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
