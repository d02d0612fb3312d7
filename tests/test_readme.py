"""The Python code of the README and of the guide runs as written."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr

import thermogen as tg

ROOT = pathlib.Path(__file__).parent.parent


def run(path: pathlib.Path, least: int = 2) -> dict:
    """The names that a page's code leaves behind."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
    assert len(blocks) >= least
    names: dict = {}
    exec(compile("\n".join(blocks), str(path), "exec"), names)
    return names


def test_readme_code_runs():
    names = run(ROOT / "README.md")
    assert jnp.isfinite(names["heating"]) and names["response"].fields.shape == (20,)
    assert names["library"].size >= 1 and names["fitted"].history[-1] < names["fitted"].history[0]

    assert names["spins"].shape == (64, 100, 20)
    exact = float(tg.exact.log_partition(names["energy"], 1.0))
    error = float(names["log_z"].standard_error)
    assert abs(float(names["log_z"].log_partition) - exact) < 5 * error < 0.2


HOW_TO = sorted({path.stem for path in (ROOT / "docs" / "howto").glob("*.md")} - {"index"})
QUICK_HOW_TO = ("own_energy", "weights")
NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|inf)\b")
ESTIMATE = re.compile(rf"({NUMBER.pattern}) (\+-|to) ({NUMBER.pattern})")


def unit(text: str) -> float:
    """The last digit that is shown; 0 of a whole number."""
    return 10.0 ** -len(text.partition(".")[2]) if "." in text else 0.0


def value_and_error(first: str, form: str, second: str) -> tuple[float, float]:
    """Of `value +- standard error`, or of the 95 % interval `low to high`."""
    a, b = float(first), float(second)
    return (a, b) if form == "+-" else ((a + b) / 2, (b - a) / 4)


def assert_same_estimate(found: tuple[str, str, str], shown: tuple[str, str, str]):
    """Both are draws: they differ by four standard errors of a difference, errors by a factor."""
    (value, error), (expected, its_error) = value_and_error(*found), value_and_error(*shown)
    slack = max(unit(shown[0]), unit(shown[2]))
    assert abs(value - expected) <= 4 * np.hypot(error, its_error) + slack
    assert its_error / 3 - slack <= error <= 3 * its_error + slack


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page in QUICK_HOW_TO else pytest.mark.further)
        for page in (*QUICK_HOW_TO, *(page for page in HOW_TO if page not in QUICK_HOW_TO))
    ],
)
def test_how_to_prints_what_the_page_shows(page, tmp_path, monkeypatch, capsys):
    """In single precision, as for who sets nothing. Words are the same. Other machines draw other
    chains: what is random has an error beside it and is judged by that, all else by its digits."""
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / "howto" / f"{page}.md"
    with jax.enable_x64(False):
        run(path, least=1)
    printed = capsys.readouterr().out
    (shown,) = re.findall(r"```text\n(.*?)```", path.read_text(), flags=re.DOTALL)
    assert NUMBER.sub("0", printed).split() == NUMBER.sub("0", shown).split()
    for estimates in zip(*(ESTIMATE.findall(text) for text in (printed, shown)), strict=True):
        assert_same_estimate(*estimates)
    others = (NUMBER.findall(ESTIMATE.sub("", text)) for text in (printed, shown))
    for found, text in zip(*others, strict=True):
        assert abs(float(found) - float(text)) <= 2.5 * unit(text)


def test_every_how_to_is_listed():
    listed = re.findall(r"\]\((\w+)\.md\)", (ROOT / "docs" / "howto" / "index.md").read_text())
    assert sorted(listed) == HOW_TO and set(QUICK_HOW_TO) <= set(HOW_TO)


def test_guide_to_data_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    assert run(ROOT / "docs" / "data.md")["table"].names == ("fever", "cough")


@pytest.mark.further
def test_command_line_guide_code_runs():
    block = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "command_line.md").read_text(), re.S
    )
    names: dict = {}
    exec(block[0], names)
    apart, judged = names["apart"], names["judged"]
    assert apart.symmetric.value > max(apart.forward.value, apart.backward.value) > 0
    assert all(-14 < float(x.value) < 0 for x in judged)  # better than guessing, 14 bits


@pytest.mark.further
def test_sampling_guide_code_runs():
    names = run(ROOT / "docs" / "sampling.md")
    assert names["spins"].shape == (64, 200, 40)
    below, above, between = (names[k] for k in ("below", "above", "histograms"))
    error = np.hypot(float(below.standard_error), float(above.standard_error))
    assert abs(float(below.log_partition - above.log_partition)) < 5 * error
    joined = between.log_partition(1.0)
    error = np.hypot(float(below.standard_error), float(joined.standard_error))
    assert abs(float(below.log_partition - joined.log_partition)) < 5 * error < 0.5
    assert float(names["capacity"].value) > 0 and names["diagnosis"].rhat < 1.2


@pytest.mark.further
def test_learning_guide_code_runs():
    names = run(ROOT / "docs" / "learning.md")
    true_bonds = [(0, 1), (2, 3), (4, 5), (5, 6)]
    found = np.argwhere(np.triu(names["best"].couplings)).tolist()
    assert set(true_bonds) <= {tuple(pair) for pair in found}
    assert float(names["kept"].library_mass) > 0.5
    # Spins nearly without bias: pairs of the tree make its entropy, which the potential ends at.
    c = names["rows"][:, names["bonds"]].prod(axis=2).mean(axis=0)
    lost = np.sum(np.log(2) - entr((1 + c) / 2) - entr((1 - c) / 2))
    np.testing.assert_allclose(names["value"], 200 * np.log(2) - lost, rtol=2e-3)
    np.testing.assert_allclose(names["slope"].couplings[1], 0, atol=1e-4)


@pytest.mark.further
def test_guide_to_missing_entries_runs():
    names = run(ROOT / "docs" / "missing.md")
    assert names["fitted"].result == tg.RESULTS.converged
    error = np.asarray(names["model"].couplings - names["truth"].couplings)
    assert np.sqrt(np.mean(error**2)) < 0.08 and names["models"].couplings.shape == (2, 8, 8)
    rows, filled, means = names["rows"], names["filled"], names["means"]
    assert np.all((rows == 0) | (rows == filled))
    for row, answer, certain, mean in zip(rows, filled, names["certain"], means, strict=True):
        p = tg.exact.conditional(names["model"], 1.0, row)
        np.testing.assert_allclose(certain, p[tg.index_from_spins(answer)], atol=0.03)
        np.testing.assert_allclose(mean, p @ tg.enumerate_spins(8), atol=0.4)


@pytest.mark.further
def test_landscape_guide_code_runs():
    names = run(ROOT / "docs" / "landscape.md")
    energy, threshold = names["energy"], 20
    assert names["library"].size >= 2 and len(names["lowest"]) == 1
    assert len(names["certificate"].group) == len(names["candidates"])
    assert names["certificate"].n_bound >= 2 and names["certificate"].threshold == threshold
    assert energy.n_spins == 16 and names["tree"].n_trees == 1


@pytest.mark.further
def test_derivatives_guide_code_runs():
    names = run(ROOT / "docs" / "derivatives.md")
    designed, patterns = names["designed"], names["patterns"]
    held = np.abs(patterns @ designed.magnetizations.T).max(axis=1) / patterns.shape[1]
    assert np.all(held > 0.9) and designed.weights.min() > 0.1
    np.testing.assert_allclose(names["weights"].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.further
def test_guide_code_runs():
    names = run(ROOT / "docs" / "functionals.md")
    assert names["trust"].stability > 0
    np.testing.assert_allclose(-names["means"].fields, names["state"].value, atol=1e-8)
    arm, point = names["arm"], names["point"]
    assert point.kind == "pitchfork" and np.abs(arm.magnetizations[int(arm.size) - 1]).max() > 0.3


@pytest.mark.further
def test_guide_to_exact_results_runs():
    names = run(ROOT / "docs" / "exact.md")
    assert names["cost"][:3] == ("elimination", 4, 16)
    assert names["takes"][:2] == ("elimination", 20) and names["takes"].n_cut == 2
    strip, ground = names["strip"], names["ground"]
    cold = tg.exact.free_energy(strip, 1e6)
    np.testing.assert_allclose(ground.energies[0], cold, rtol=1e-12)
    assert ground.energies[1] > ground.energies[0] and names["gain"][1] != 0
    bonds = tg.exact.correlations(strip, 1.0)[tuple(strip.sets[1].indices.T)]
    np.testing.assert_allclose(names["bond_means"], bonds, atol=1e-12)
    answers, given = names["answers"], names["given"]
    log_z = tg.exact.log_partition(given, 1.0) - np.log(2)  # which counts the known spin twice
    expected = -strip(answers.configurations[0]) - log_z
    np.testing.assert_allclose(answers.log_probabilities[0], expected, atol=1e-10)


@pytest.mark.further
def test_guide_to_many_devices_runs():
    names = run(ROOT / "docs" / "devices.md")
    assert names["library"].size >= 1 and names["spins"].shape == (64, 20, 40)
    assert names["learned"].result == tg.RESULTS.converged
    assert names["found"].log_partition.shape == (8,) and names["ends"].shape == (64,)
    free_ends = 12 * np.log(2) + 11 * np.log(np.cosh(1))
    np.testing.assert_allclose(names["log_z"], free_ends, rtol=1e-12)
    np.testing.assert_allclose(names["m"], 0, atol=1e-12)
    np.testing.assert_allclose(names["slope"].couplings[0b11], np.tanh(1), rtol=1e-12)


@pytest.mark.further
def test_experts_guide_runs():
    names = run(ROOT / "docs" / "experts.md")
    assert abs(names["log_z"]) < 1e-3
    assert names["certificate"].n_bound >= 1
    np.testing.assert_array_equal(names["answers"].configurations[0], names["patterns"][1])
    assert "bound state" in names["diagnosis"].verdict


@pytest.mark.further
def test_guide_of_own_classes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "docs" / "own.md")
    chain, loaded, spins = names["chain"], names["loaded"], names["spins"]
    assert float(loaded.coupling) == float(chain.coupling)
    value = tg.Bethe()(names["energies"].terms(chain), 1.0, np.zeros(6))
    assert float(names["bethe"]) == float(value)
    # Draws of a chain depend on each other: a wide bound.
    exact = tg.exact.magnetizations(chain, 0.5)
    np.testing.assert_allclose(np.mean(spins, axis=(0, 1)), exact, atol=0.1)
    at = tg.solve(tg.TAP(), chain, 0.5, np.full(6, 0.1)).value
    np.testing.assert_allclose(names["solution"].value, at, atol=1e-8)


@pytest.mark.further
def test_guide_to_long_runs_runs():
    names = run(ROOT / "docs" / "long_runs.md")
    for beta, estimate in zip((0.5, 1.0), names["estimates"], strict=True):
        exact = float(tg.exact.log_partition(names["magnet"], beta))
        assert abs(float(estimate) - exact) < 0.5


@pytest.mark.further
def test_interop_guide_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "docs" / "interop.md")
    assert {"tree.svg", "tree.pdf", "states.graphml"} <= {p.name for p in tmp_path.iterdir()}
    assert names["states"].size > 2 and names["disconnectivity"].n_trees == 1


@pytest.mark.further
def test_guide_to_estimators_runs():
    names = run(ROOT / "docs" / "sklearn.md")
    assert names["pipeline"].score(names["X"], names["y"]) > 0.9
