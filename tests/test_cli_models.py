"""Commands that take any model: study of one that was given, sample, compare."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from thermogen import cli, storage
from thermogen.cli import _columns, _compare


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
        (["a.eqx", "--beta", "-1"], "--beta must be positive and finite, got -1.0"),
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


# --- names of spins, and tables with other columns


def test_tables_are_put_in_the_order_of_the_model():
    spins = np.array([[1, -1, 0], [-1, 1, 1]])
    table = tg.datasets.Table(spins, ("c", "a", "2"))
    found = _columns.in_order(table, ("a", 2, "c"), Path("t.csv"))
    assert found.names == ("a", "2", "c")
    np.testing.assert_array_equal(found.spins, spins[:, [1, 2, 0]])
    # Without names on one side, columns go by position.
    assert _columns.in_order(table, (0, 1, 2), Path("t.csv")) is table
    bare = tg.datasets.Table(spins)
    assert _columns.in_order(bare, ("a", "b", "c"), Path("t.csv")) is bare
    with pytest.raises(ValueError, match=r"t.csv has no spin named 'b', which the model has"):
        _columns.in_order(table, ("a", "b", "c"), Path("t.csv"))


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model with names, one of another order, and the folder of a study that holds it."""
    folder = tmp_path_factory.mktemp("named")
    names = list("abcdef")
    storage.save_energy(folder / "model.eqx", _glass(6), notes={"names": names})
    storage.save_energy(folder / "turned.eqx", _glass(6), notes={"names": names[::-1]})
    return folder


def test_data_judge_by_name_and_without_their_labels(named, models):
    samples = np.asarray(tg.exact.sample(_glass(6), 1.0, key=jax.random.key(1), n_samples=30))
    kinds = np.arange(30)[:, None] % 3
    data = named / "data.csv"
    np.savetxt(
        data,
        np.hstack([samples[:, ::-1], kinds]),
        "%d",
        ",",
        header="f,e,d,c,b,a,kind",
        comments="",
    )
    outcome = _run("compare", named, models / "a.eqx", "--data", data, "--labels", "kind", "--json")
    assert outcome.exit_code == 0, outcome.output
    expected = tg.learning.log_likelihood(_glass(6), samples, key=jax.random.key(0)).value
    for model in json.loads(outcome.stdout)["models"]:
        np.testing.assert_allclose(model["log_likelihood"][0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.eqx", "turned.eqx"], "A and B have the same spins in different orders"),
        (["model.eqx", "model.eqx", "--beta", "-1"], "--beta must be positive and finite"),
        (["model.eqx", "model.eqx", "--labels", "kind"], "columns belong to --data"),
        (["model.eqx", "model.eqx", "--data", "x.csv"], "x.csv has no spin named 'e', which the"),
        (["model.eqx", "model.eqx", "--data", "x.csv", "--columns", "a"], "x.csv has 1 spins"),
    ],
)
def test_comparisons_that_cannot_be_say_why(named, monkeypatch, arguments, message):
    monkeypatch.chdir(named)
    (named / "x.csv").write_text("a,b,c,d,g,f\n1,0,1,0,1,0\n0,1,0,1,0,1\n")
    outcome = _run("compare", *arguments)
    assert outcome.exit_code == 2 and message in outcome.stderr, outcome.output
    assert len(outcome.stderr.splitlines()) == 1


def test_samples_of_a_study_are_those_of_its_model(named, tmp_path):
    outs = tmp_path / "a.csv", tmp_path / "b.csv"
    for path, out in zip((named, named / "model.eqx"), outs, strict=True):
        assert _run("sample", path, "--out", out, "--number", 5).exit_code == 0
    assert outs[0].read_text() == outs[1].read_text()
    assert outs[0].read_text().startswith("a,b,c,d,e,f\n")


@pytest.mark.parametrize("functional", list(tg.study.Functional))
def test_libraries_are_those_of_the_comparison(models, tmp_path, functional):
    """A library of another temperature or functional is not taken; two studies share their beta."""
    folder = tmp_path / "out"
    folder.mkdir()
    energy = _glass(6)
    found = tg.find_minima(functional.free_energy, energy, 0.5, key=jax.random.key(0), n_starts=8)
    settings = tg.study.Settings(beta=0.5, functional=functional)
    source = tg.study.Source("a", np.ones((1, 6)), None, (1, 6))
    job = tg.study.begin(source, settings, energy)
    tg.study.save_study(folder / "study.npz", job)
    storage.save_energy(folder / "model.eqx", energy)
    storage.save_library(folder / "library.npz", found)
    kept = _compare._library(folder, job, 0.5)
    assert (kept is not None) == (functional is tg.study.Functional.naive)
    assert _compare._library(folder, job, 1.0) is None
    outcome = _run("compare", folder, folder, "--json")
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["beta"] == 0.5
    for beta in (None, 0.5, 0.8):
        options = [] if beta is None else ["--beta", beta]
        outcome = _run("compare", folder, models / "a.eqx", "--json", *options)
        assert outcome.exit_code == 0, outcome.output
        figures = json.loads(outcome.stdout)
        assert figures["beta"] == (beta or 1)
        ours, theirs = ([s["free_energy"] for s in m["states"]] for m in figures["models"])
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


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
        (["--model", "a.eqx", "--weights", "w.csv"], "--weights and columns belong to DATA"),
    ],
)
def test_studies_that_cannot_begin_say_why(models, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(models)
    outcome = _run("study", *arguments, "--out", tmp_path / "out")
    assert outcome.exit_code == 2 and message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
