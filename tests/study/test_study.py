import dataclasses
import io
import json
import re
import time

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from studies import made_study

import thermogen as tg
from thermogen import RESULTS, Solution, learning, plots
from thermogen.energies import Pairwise
from thermogen.runs import Place
from thermogen.study import (
    _dynamics,
    _model,
    _pipeline,
    _progress,
    _recall,
    _remedy,
    _robustness,
    _svg,
    _words,
)

# --- sources


def test_sources_know_how_to_be_drawn(tmp_path):
    digits = tg.study.load_source("digits")
    assert digits.picture == (8, 8) and len(digits.labels) == len(digits.spins)
    # Sixteen spins, but no picture.
    assert tg.study.load_source("adder:5").picture == (1, 16)
    for n_spins, picture in [(9, (1, 9)), (16, (4, 4)), (17, (1, 17)), (25, (5, 5))]:
        np.save(tmp_path / "a.npy", np.ones((2, n_spins)))
        source = tg.study.load_source(str(tmp_path / "a.npy"))
        assert source.picture == picture and source.labels is None


def test_names_and_classes_of_a_table_are_of_its_source(tmp_path):
    rows = [
        f"s{k},{k % 2},{k % 3 % 2},{('yes', 'no')[k % 2]},{('u', '', 'v')[k % 3]}" for k in range(6)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,a,b,c,kind", *rows]))
    path = str(tmp_path / "a.csv")
    with pytest.warns(UserWarning, match=r"the first column \('id'\) is taken for names"):
        source = tg.study.load_source(path, labels="kind")
    assert source.names == ("a", "b", "c") and source.picture == (1, 3)
    assert source.classes == ("u", "v", "unlabelled")
    assert source.labels.tolist() == [0, 2, 1, 0, 2, 1]
    figures = tg.study.summary(tg.study.Study(source, tg.study.Settings()))
    assert figures["names"] == ["a", "b", "c"] and figures["classes"][2] == "unlabelled"
    chosen = tg.study.load_source(path, columns="c,a")
    assert chosen.names == ("c", "a") and chosen.labels is None
    np.testing.assert_array_equal(chosen.spins, source.spins[:, [2, 0]])
    assert tg.study.load_source("adder:2").names == ("a0", "a1", "b0", "b1", "c0", "c1", "c2")
    study = tg.study.Study(source, tg.study.Settings())
    tg.study.save_study(tmp_path / "study.npz", study)
    stored = tg.study.load_study(tmp_path / "study.npz")
    assert stored.source.names == source.names and stored.source.classes == source.classes
    tg.study.check_same(stored, study)
    with pytest.raises(ValueError, match="names of .* are others"):
        tg.study.check_same(stored, tg.study.Study(source._replace(names=None), study.settings))


def test_names_that_can_be_read_make_a_strip(tmp_path):
    for names, picture in (("x{}", (1, 16)), ("{}", (4, 4))):
        head = ",".join(names.format(k) for k in range(16))
        (tmp_path / "a.csv").write_text("\n".join([head, *[",".join("01" * 8)] * 3]))
        assert tg.study.load_source(str(tmp_path / "a.csv")).picture == picture


def test_weights_of_samples_come_from_a_file(tmp_path):
    (tmp_path / "w.csv").write_text("weight\n" + "\n".join(map(str, np.arange(16) / 2)))
    source = tg.study.load_source("adder:2", tmp_path / "w.csv")
    np.testing.assert_array_equal(source.weights, np.arange(16) / 2)
    np.testing.assert_allclose(source.shares(), np.arange(16) / 120)
    np.save(tmp_path / "w.npy", np.ones(15))
    with pytest.raises(ValueError, match="holds 15 weights; expected 16, one a sample"):
        tg.study.load_source("adder:2", tmp_path / "w.npy")


@pytest.mark.further
def test_a_study_learns_weighted_samples_as_repeated_ones():
    counts = np.arange(16) % 3
    source = tg.study.load_source("adder:2")._replace(weights=counts.astype(float))
    repeated = source._replace(spins=np.repeat(source.spins, counts, axis=0), weights=None)
    learned = []
    for each in (source, repeated):
        study = tg.study.Study(each, tg.study.Settings(l2=1e-3))
        _pipeline._choose(study, lambda *_: None, Place())
        _pipeline._learn(study, lambda *_: None, Place())
        learned.append(study.energy)
    np.testing.assert_allclose(learned[0].couplings, learned[1].couplings, atol=1e-5)
    np.testing.assert_allclose(learned[0].fields, learned[1].fields, atol=1e-5)


# --- studies made by hand


def test_samples_are_assigned_to_their_states():
    study = made_study(n_states=3)
    expected = np.arange(20) % 3
    expected[0] = -1  # did not converge, wherever it stopped
    np.testing.assert_array_equal(study.assignment(), expected)
    assert tg.study.summary(study)["share_of_data_verified"] == 0.95


def test_the_onsager_ratio_is_that_of_the_energy():
    study = made_study()
    assert tg.study.summary(study)["onsager_ratio"] == 0  # fields alone: mean field is exact
    couplings = 1 - jnp.eye(16)
    energy = Pairwise(couplings, jnp.ones(16))
    study.fit = eqx.tree_at(lambda fit: fit.energy, study.fit, energy)
    m = study.library.magnetizations[0]
    v = 1 - m**2
    onsager = 0.25 * v @ np.asarray(couplings) @ v
    p = (1 + m) / 2
    entropy = -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p))
    first = float(energy(jnp.asarray(m))) - entropy
    np.testing.assert_allclose(study.onsager_ratios()[0], onsager / abs(first), rtol=1e-6)


@pytest.mark.further
def test_the_page_says_what_bound_states_hang_on():
    study = made_study(n_states=3)
    page = tg.study.render(study)
    assert (
        "As learned the model has 2 bound states; 1 without the ridge (where the fit found no "
        "rest), 2 and 3 on resampled data."
    ) in page
    assert "State 1 is no bound state of its own without the ridge." in page
    assert study.samples_of_bound()[1] > 0 and "product of the learning" not in page
    # Nothing falls to it any more: it is told as what it may be.
    state = study.bound_states.magnetizations[1]
    values = np.where((study.minima.value == state).all(axis=1)[:, None], 9.0, study.minima.value)
    study.minima = Solution(values, study.minima.result, {}, {})
    assert study.samples_of_bound()[1] == 0
    assert (
        "State 1 holds no sample and is no bound state of its own without the ridge: take it "
        "for a product of the learning, not of the data."
    ) in tg.study.render(study)


# --- the page


@pytest.mark.further
@pytest.mark.parametrize(
    ("picture", "n_classes"), [((4, 4), 0), ((4, 4), 3), ((1, 10), 0), ((1, 10), 12), ((1, 1), 3)]
)
def test_every_study_is_rendered(picture, n_classes):
    page = tg.study.render(made_study(picture, n_classes=n_classes))
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "&lt;made &amp; up&gt;" in page and "<made" not in page
    assert page.count('<tr data-bound="') == 3
    assert "Where the samples fall" in page
    assert "candidate" in page and "kinetic proof" in page
    assert "the dynamics parts into 2 bound states" in page
    assert page.count('<span class="mark">') == 2 and "part of 0" in page
    for alt in ("Distribution of overlaps", "Disconnectivity graph", "Cues, answers and truths"):
        assert f'aria-label="{alt}' in page
    assert "<code>thermogen study &#39;made &amp; up&#39;</code>" in page
    assert "is the sample itself for 40 % of the cues" in page
    assert "The fit did not converge" not in page


def test_the_page_says_how_the_model_came_about():
    study = made_study()
    page = tg.study.render(study)
    assert "4 samples were held out" in page and "−8.5 ± 0.25 nats" in page
    assert "learned from 20\nsamples" in page and "held-out samples ends at 6.5." in page
    study.given, study.fit = True, eqx.tree_at(lambda fit: fit.history, study.fit, np.zeros(0))
    page = tg.study.render(study)
    assert "The model was trained before" in page and "4 samples judge the model" in page
    assert "After 0 steps" not in page


def test_a_fit_that_failed_is_said_to_have_failed():
    study = made_study()
    study.fit = eqx.tree_at(lambda fit: fit.result, study.fit, RESULTS.step_limit)
    page = tg.study.render(study)
    assert "The fit did not converge" in page
    figures = tg.study.summary(study)
    assert figures["ergodic"] is None


def test_a_loss_of_persistent_chains_is_not_told():
    """Beyond 12 spins the likelihood is learned by chains: their loss means nothing."""
    for n_spins, known in (((1, 10), True), ((4, 4), False)):
        study = made_study(n_spins)
        study.settings = dataclasses.replace(
            study.settings, objective=tg.study.Objective.likelihood
        )
        end = RESULTS.converged if known else learning.RESULTS.completed
        study.fit = eqx.tree_at(lambda fit: fit.result, study.fit, end)
        page = tg.study.render(study)
        assert ("After 40 steps the loss is" in page) == known
        assert ("The loss falls from" in page) == known
        assert ("40 steps were taken with persistent chains" in page) != known
        assert "The fit did not converge" not in page
        assert "pseudolikelihood loss of held-out samples ends at 6.5." in page
        study.held_out = None
        assert ("Learning curve" in tg.study.render(study)) == known


def test_the_page_says_what_was_penalised_and_what_judged():
    study = made_study()
    page = tg.study.render(study)
    assert "not on the fields" in page and "Each spin given the others is likeliest" in page
    assert "the choice of the ridge and β, so that the likelihood is slightly optimistic" in page
    settings = {"objective": tg.study.Objective.likelihood, "beta": 1.0}
    study.settings, study.ridge = dataclasses.replace(study.settings, **settings), None
    page = tg.study.render(study)
    assert "and a tenth of it on the fields" in page and "Held-out samples are likeliest" in page
    assert "Each spin given" not in page and "optimistic" not in page


def test_the_comparison_says_how_it_was_learned_and_judged():
    """ln Z is summed where that is done in no time, not by the number of spins alone."""
    study = made_study((1, 30))
    energies = (
        Pairwise(1 - jnp.eye(30), jnp.zeros(30)),
        tg.Interactions.from_terms(30, {(i, i + 1): 1.0 for i in range(29)}),
    )
    ways = ("PersistentCD", "the likelihood by persistent chains"), ("Pseudolikelihood", "pseudo")
    for energy, (objective, words), judged in zip(
        energies, ways, ("by annealing", "summed"), strict=True
    ):
        study.comparison = study.comparison._replace(objective=objective)
        study.fit = eqx.tree_at(lambda fit: fit.energy, study.fit, energy)
        page = tg.study.render(study)
        assert re.search(rf"learned by\s{words}[a-z]*, ln Z\s{judged}", page)


def test_a_name_is_drawn_as_it_is_written():
    figure = plots.Figure()
    names = "#ff0000", 'a id="z" xmlns="u"', "'DejaVu Sans', sans-serif"
    for k, name in enumerate(names):
        figure.text(0.1, 0.2 * k, name, color="#1f3a5f")
    drawn = _svg.inline(figure, "names", "alt")
    for name in names:
        assert f">{name}</text>" in drawn
    assert "fill: var(--c-1f3a5f, #1f3a5f)" in drawn and "system-ui" in drawn
    assert drawn.count("xmlns") == 1 and drawn.count("'DejaVu Sans'") == 1


@pytest.mark.further
def test_a_large_library_is_cut_and_says_so():
    page = tg.study.render(made_study(n_states=150, overflow=True))
    assert page.count('<tr data-bound="') == 120
    assert re.search(r"30\s+more are left out", page)
    assert "The library was full" in page and "≥ 150" in page


def test_one_state_is_ergodic():
    study = made_study(n_states=1)
    found = study.bound_states
    alone = eqx.tree_at(
        lambda f: (f.certificate.group, f.certificate.bound, f.certificate.rates),
        found,
        (np.zeros(2, int), np.arange(2) < 1, np.zeros((1, 1))),
    )
    one = {
        name: getattr(found, name)[:1]
        for name in (
            "magnetizations", "weight_intervals", "library_weights", "escape_times", "intervals",
            "multiplicity", "representatives",
        )
    }  # fmt: skip
    study.bound_states = dataclasses.replace(alone, weights=np.ones(1), **one)
    study.variations = []
    page = tg.study.render(study)
    assert "Ergodic: at beta = 1 all 2 candidates are one bound state" in page
    assert "Disconnectivity" not in page and "1 bound state remains" in page
    figures = tg.study.summary(study)
    assert figures["ergodic"] is True and figures["n_bound"] == 1
    assert figures["n_saddles"] is None


def test_figures_of_bound_states_are_those_of_the_certificate():
    study = made_study(n_states=3)
    figures = json.loads(json.dumps(tg.study.summary(study), allow_nan=False))
    assert figures["ergodic"] is False and figures["n_bound"] == 2 and figures["n_saddles"] == 1
    first, second = figures["bound_states"]
    assert (first["state"], first["weight"], first["escape_time"]) == (0, 0.75, None)
    assert (second["state"], second["weight"], second["escape_time"]) == (1, 0.25, 50)
    assert second["escape_interval"] == pytest.approx([45, 60])
    assert second["free_energy"] == pytest.approx(-10 - np.log(0.25))
    assert second["free_energy_interval"] == pytest.approx([-10.196, None])
    assert second["reason"].startswith("bound state") and not second["single_flip_minimum"]
    assert figures["recall_accuracy"] == 0.8


@pytest.mark.parametrize(
    ("gain", "words"),
    [(1.0, "1 nats less"), (-1.0, "1 nats more"), (0.1, "as much as one model, within the error")],
)
def test_the_comparison_says_who_wins(gain, words):
    study = made_study()
    study.comparison = study.comparison._replace(gain=gain)
    page = tg.study.render(study)
    assert words in page and "by the other\n4;" in page
    figures = tg.study.summary(study)["comparison"]
    assert figures["gain"] == gain and figures["experts"]["n_experts"] == 4


def test_an_empty_library_is_said_to_be_empty():
    page = tg.study.render(made_study(n_states=0))
    assert "the library is empty" in page


def test_partial_studies_are_rendered():
    study = made_study()
    study.interrupted, study.finished = True, ["learn"]
    study.library = study.minima = None
    study.bound_states = study.barriers = study.recollection = study.comparison = None
    study.variations = []
    page = tg.study.render(study)
    assert "was not begun" in page and "Which states trap" not in page
    assert "interrupted" in page and "The study ended before the search" in page
    assert "searching for bound states" in page
    study.fit, study.scan, study.finished = None, [], []
    assert "Nothing was learned" in tg.study.render(study)


@pytest.mark.further
def test_a_bad_expansion_is_warned_of():
    study = made_study()
    assert "expansion is not small" not in tg.study.render(study)
    energy = Pairwise(9 * (1 - jnp.eye(16)), jnp.zeros(16))
    study.fit = eqx.tree_at(lambda fit: fit.energy, study.fit, energy)
    study.library = eqx.tree_at(
        lambda lib: lib.magnetizations, study.library, np.zeros_like(study.library.magnetizations)
    )
    assert "expansion is not small" in tg.study.render(study)


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.99999, "> 99.9 %"), (0.5, "50 %"), (None, "–")]
)
def test_a_share_never_rounds_up_to_all(share, text):
    assert _words.percent(share) == text


def test_powers_of_ten():
    assert _words.scientific(3.14e-9) == "3.1 × 10<sup>−9</sup>"
    assert _words.scientific(0.0) == "0"
    assert _words.scientific(None) == "–"


def test_numbers_in_words():
    assert _words.significant(-1.234e-9) == "−1.23 × 10<sup>−9</sup>"
    assert _words.significant(-12.34) == "−12.3"
    assert [_words.significant(x) for x in (None, np.nan, np.inf, -np.inf)] == ["–", "–", "∞", "−∞"]
    assert _words.interval((0.5, np.inf)) == "0.5 to ∞"


@pytest.mark.parametrize("kind", ["pairwise", "interactions", "complete"])
def test_couplings_are_those_of_the_energy(kind):
    """Any multilinear energy has pair couplings: with terms, and by its derivatives at m = 0."""
    pairs = np.array([[0, 1.5, 0], [1.5, 0, -0.5], [0, -0.5, 0]])
    fields = np.array([0.25, 0.0, -1.0])
    terms = {(0, 1): 1.5, (1, 2): -0.5, (0,): 0.25, (2,): -1.0, (0, 1, 2): 2.0}
    listed = tg.Interactions.from_terms(3, terms)
    energies = {
        "interactions": listed,
        "pairwise": Pairwise(jnp.asarray(pairs), jnp.asarray(fields)),
    }
    energy = tg.energies.complete(listed) if kind == "complete" else energies[kind]
    found = _model.couplings_of(energy)
    np.testing.assert_allclose(found.matrix, pairs, atol=1e-6)
    np.testing.assert_allclose(found.fields, fields, atol=1e-6)


def test_of_two_layers_the_weights_are_shown():
    draw = np.random.default_rng(0)
    weights = jnp.asarray(draw.normal(size=(5, 2)))
    energy = tg.RBM(weights, jnp.arange(5.0), jnp.zeros(2))
    found = _model.couplings_of(energy)
    assert found.layered and _model.kind_of(energy).startswith(
        "A restricted Boltzmann machine of 2"
    )
    np.testing.assert_allclose(found.matrix, np.asarray(weights).T)
    np.testing.assert_allclose(found.fields, np.arange(5.0))


def test_states_of_one_fate_share_a_sentence():
    study = made_study(n_states=3)
    found = study.bound_states
    assert _robustness._runs([1, 2, 3, 5, 7, 8]) == ["1 to 3", "5", "7", "8"]
    lost = study.variations[0]._replace(kept=np.zeros(len(found), bool))
    study.variations = [lost]
    assert "States 0 and 1 are no bound states of their own without the ridge." in (
        _robustness.robustness(study)
    )
    assert "found no rest" in _robustness.robustness(study)
    study.variations = [lost._replace(fit_result=learning.RESULTS.completed)]
    assert "found no rest" not in _robustness.robustness(study)


def test_what_would_take_minutes_is_left_out():
    """Barriers of large models, and a comparison by 20 samples."""
    study, told = made_study(picture=(20, 20)), []
    study.barriers = study.comparison = None
    for stage in (_dynamics.climb, _remedy.compare):
        stage(study, lambda done, total, note: told.append(note), Place())
    assert study.barriers is None and study.comparison is None
    assert len(told) == 2 and all(note.startswith("left out") for note in told)


# --- figures


def test_hidden_is_half_of_a_picture_and_the_sum_of_an_adder():
    for n_bits in (1, 2, 3, 4, 5):
        source = tg.study.load_source(f"adder:{n_bits}")
        np.testing.assert_array_equal(_recall.shown(source), np.arange(3 * n_bits + 1) < 2 * n_bits)
    np.testing.assert_array_equal(_recall.shown(tg.study.load_source("digits")), np.arange(64) < 32)


@pytest.mark.parametrize("labelled", [True, False])
def test_cues_are_spread_over_the_classes(labelled):
    labels = np.repeat(np.arange(4), [100, 50, 8, 2])
    chosen = _recall._chosen(labels if labelled else None, np.random.default_rng(0), 160)
    assert len(chosen) == len(set(chosen)) == 64
    if labelled:
        assert [int(x) for x in labels[chosen[:8]]] == 2 * [0, 1, 2, 3]
        np.testing.assert_array_equal(np.bincount(labels[chosen])[2:], [8, 2])


# --- progress


def test_a_bar_of_known_parts_tells_the_time_left(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(_progress, "Console", lambda **_: terminal)
    with tg.study.progress("A long step") as tell:
        tell(0, None, "to begin with")
        for done in range(5):
            tell(done, 100, "some of a hundred")
            time.sleep(0.06)
    assert re.search(r"some of a hundred.*0:00:\d\d left", screen.getvalue())


def test_a_long_step_shows_life_where_nobody_sees_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_SILENCE", 0.05)
    with tg.study.progress("A long step") as tell:
        tell(1, 3, "one of three")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("A long step: one of three (") for line in lines)
