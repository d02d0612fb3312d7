"""Which model a study learns, and how it is judged by samples that it has not learned."""

import dataclasses
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import learning, storage, study
from thermogen.runs import Place
from thermogen.study import _beside, _judge, _learning, _pipeline, _temperature
from thermogen.study._source import _repeated

KEY = jax.random.key(0)


def _tell(*_):
    pass


def _glass(n, scale=1.0):
    upper = scale * np.triu(np.random.default_rng(n).normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(jnp.asarray(upper + upper.T), jnp.linspace(-0.5, 0.5, n))


def _source(n_samples=400, n=8, beta=1.0, weights=None):
    spins = tg.exact.sample(_glass(n), beta, key=KEY, n_samples=n_samples)
    return study.Source("glass", np.asarray(spins, float), None, (1, n), weights)


def _study(source=None, **settings):
    return study.Study(source or _source(), study.Settings(**settings))


def _judged(job):
    job.l2 = job.settings.l2
    _judge.judge(job, _tell, Place())
    return job.held_out


# --- models and objectives


@pytest.mark.parametrize(
    ("model", "kind", "count"),
    [
        ("pairwise", tg.Pairwise, 36),
        ("rbm:3", tg.RBM, 8 * 3 + 8 + 3),
        ("interactions:3", tg.Interactions, 8 + 28 + 56),
        ("complete", tg.Complete, 255),
    ],
)
def test_a_study_learns_the_model_that_is_named(model, kind, count):
    job = _study(model=model)
    energy = _learning.start(job, job.source.spins, job.source.shares())
    assert isinstance(energy, kind)
    # The constant of a complete energy is a parameter that no sample tells.
    assert _learning.n_parameters(energy) in (count, count + 1)


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValueError, match="model must be 'pairwise'"):
        job = _study(model="pairs")
        _learning.start(job, job.source.spins, job.source.shares())


def test_objectives_follow_the_model_unless_they_are_given():
    likelihood, pseudo = study.Objective.likelihood, study.Objective.pseudolikelihood
    assert study.Settings(model="rbm:3").way is likelihood
    assert study.Settings(model="complete").way is pseudo
    assert study.Settings(model="rbm:3", objective=pseudo).way is pseudo
    job = _study(objective=likelihood)
    assert isinstance(_learning.way_to_learn(job, _glass(8), 0.1)[0], tg.ExactLikelihood)
    assert isinstance(_learning.way_to_learn(job, _glass(16), 0.1)[0], tg.PersistentCD)


# --- the judgement


def test_held_out_likelihood_is_that_of_a_model_of_the_rest():
    job = _study(l2=0.01)
    found = _judged(job)
    spins = job.source.spins
    parts = tg.datasets.split(spins)
    fitted = tg.fit(
        tg.Pseudolikelihood(0.01 * len(spins) / len(parts.training)),
        _learning.start(job, parts.training, np.full(len(parts.training), 1 / len(parts.training))),
        parts.training,
        key=KEY,
    ).energy
    expected = learning.log_likelihood(fitted, parts.held_out, key=KEY)
    assert found.n_samples == len(parts.held_out) == 80
    np.testing.assert_allclose(found.log_likelihood, expected.value, atol=1e-3)
    np.testing.assert_allclose(found.error, expected.standard_error, rtol=1e-2)
    # The truth is known: no model of all samples does better than that which drew them.
    truth = learning.log_likelihood(_glass(8), parts.held_out, key=KEY)
    assert found.independent < found.log_likelihood < truth.value + 3 * found.error


def test_the_learning_curve_holds_both_losses():
    found = _judged(_study(l2=0.01))
    assert found.steps[0] == 0 and np.all(np.diff(found.steps) > 0)
    assert found.training[-1] < found.training[0] and found.held_out[-1] < found.held_out[0]
    assert found.training[-1] < found.held_out[-1]


def test_samples_at_another_temperature_give_the_model_that_temperature():
    """The model is right but for its scale, as a ridge that is too strong leaves it."""
    source = _source(n_samples=3000)
    hot = jax.tree.map(lambda x: x / 1.5, _glass(8))
    for objective in study.Objective:
        job = _study(source, model="file.eqx", objective=objective)
        beta, error = _temperature.best_beta(job, hot, source.spins, source.shares())
        assert 0.01 < error < 0.2 and abs(beta - 1.5) < 4 * error


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_beta_is_one_unless_held_out_samples_want_another(monkeypatch, scale):
    source = _source(n_samples=3000)
    right = jax.tree.map(lambda x: x / scale, _glass(8))
    curve = {"steps": np.zeros(1, int), "training": np.zeros(1), "held_out": np.zeros(1)}
    monkeypatch.setattr(_judge, "_learning_curve", lambda *_: (right, curve))
    job = _study(source, l2=0.01)
    found = _judged(job)
    assert job.beta == (1.0 if scale == 1 else found.best_beta)
    asked = _study(source, l2=0.01, beta=0.7)
    assert _judged(asked).beta == asked.beta == 0.7


def test_samples_that_follow_the_energy_without_exception_have_no_temperature():
    source = study.Source("rule", np.repeat([[1.0, 1, 1], [-1, -1, -1]], 20, axis=0), None, (1, 3))
    magnet = tg.Pairwise(3.0 * (jnp.ones((3, 3)) - jnp.eye(3)), jnp.zeros(3))
    job = _study(source)
    found = _temperature.best_beta(job, magnet, source.spins, source.shares())
    assert found == (1.0, np.inf)


def test_few_samples_are_not_judged():
    job = _study(_source(n_samples=9))
    assert _judged(job) is None and job.beta == 1.0


def test_samples_without_weight_judge_nothing():
    source = _source(n_samples=40)
    only = np.zeros(40)
    only[0] = 1.0
    assert _judged(_study(source._replace(weights=only), l2=0.1)) is None


@pytest.mark.further
def test_the_ridge_of_a_likelihood_is_that_of_the_best_held_out_likelihood():
    job = _study(_source(n_samples=60), objective=study.Objective.likelihood)
    _pipeline._choose(job, _tell, Place())
    assert job.ridge.held_out.argmin() == list(job.ridge.strengths).index(job.l2)
    assert len(set(job.ridge.held_out.round(6))) == len(job.ridge.strengths)


@pytest.mark.further
def test_the_temperature_of_a_model_that_must_be_sampled_has_the_error_of_the_samples():
    """Two layers of 24 spins: ln Z is neither enumerated nor eliminated."""
    weights = 0.25 * np.random.default_rng(0).normal(size=(24, 24))
    machine = tg.RBM(jnp.asarray(weights), jnp.zeros(24), jnp.zeros(24))
    drawn = tg.sample(tg.Gibbs(), machine, 1.2, key=KEY, n_chains=2000, n_sweeps=1, burn_in=200)
    source = study.Source("machine", np.asarray(drawn[:, 0, :24], float), None, (1, 24))
    assert not tg.sampling.is_summed(machine)
    for seed in range(3):
        job = _study(source, model="rbm:24", seed=seed)
        beta, error = _temperature.best_beta(job, machine, source.spins, source.shares())
        assert error < 0.1 and abs(beta - 1.2) < 4 * error


def test_gaps_tell_no_temperature():
    """Conditionals that leave the gaps out would make any model too cold."""
    source = _source(n_samples=400)
    spins = np.where(np.random.default_rng(0).random(source.spins.shape) < 0.3, 0, source.spins)
    job = _study(source._replace(spins=spins))
    found = _temperature.best_beta(job, _glass(8), spins, source.shares())
    assert found == (1.0, np.inf)


def test_whole_weights_are_rows_of_which_some_are_held_out():
    rows = np.array([[1.0, 1, 1], [-1, -1, -1], [1, -1, 1]])
    source = study.Source("counts", rows, np.arange(3), (1, 3), np.array([3.0, 2, 0]))
    found = _repeated(source)
    assert found.weights is None and found.size == 5
    np.testing.assert_array_equal(found.spins, rows[[0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1])
    half = source._replace(weights=source.weights + 0.5)
    assert _repeated(half) is half
    assert half.size == pytest.approx(6.5**2 / (3.5**2 + 2.5**2 + 0.5**2))


@pytest.mark.further
def test_samples_with_many_gaps_learn_with_the_default_ridge():
    spins = np.where(np.random.default_rng(0).random((60, 40)) < 0.4, 0, 1.0)
    spins *= np.random.default_rng(1).choice([-1, 1], (60, 40))
    job = _study(study.Source("gaps", spins, None, (1, 40)))
    heard = []
    _pipeline._choose(job, lambda *told: heard.append(told), Place())
    assert job.ridge is None and job.l2 == pytest.approx(40 / (2 * 60))
    assert "the default: samples are few, or have many gaps" in heard[-1][2]


def test_a_fit_by_chains_that_took_its_steps_has_not_failed():
    job = _study()
    for result in (learning.RESULTS.completed, learning.RESULTS.converged):
        job.fit = learning.FitResult(_glass(8), np.zeros(1), result)
        job.finished = ["learn"]
        assert not study.fit_failed(job)
    job.fit = learning.FitResult(_glass(8), np.zeros(1), learning.RESULTS.diverged)
    assert study.fit_failed(job)


# --- models that were trained before


def test_a_model_is_given_by_its_file(tmp_path):
    storage.save_energy(tmp_path / "a.eqx", _glass(8))
    energy = study.given_model(str(tmp_path / "a.eqx"))
    assert study.given_model("rbm:3") is None
    job = study.begin(_source(), study.Settings(model="a.eqx"), energy)
    assert job.given and list(study._pipeline.stages_of(job))[0] == "judge"
    found = _judged(job)
    expected = learning.log_likelihood(_glass(8), job.source.spins, key=KEY)
    np.testing.assert_allclose(found.log_likelihood, expected.value, rtol=1e-5)
    assert job.beta == 1.0 and found.energy is None


def test_a_model_without_data_draws_its_own(tmp_path):
    source = study.drawn(_glass(8), study.Settings(model="a.eqx"))
    assert source.name == "samples of a.eqx" and source.spins.shape == (1024, 8)
    means = np.asarray(tg.exact.magnetizations(_glass(8), 1.0))
    errors = np.sqrt((1 - means**2) / 1024)
    assert np.all(np.abs(source.spins.mean(axis=0) - means) < 5 * errors)


def test_given_models_and_data_must_fit(tmp_path):
    with pytest.raises(ValueError, match="glass has 8 spins; the model a.eqx has 9 visible ones"):
        study.begin(_source(), study.Settings(model="a.eqx"), _glass(9))
    with pytest.raises(ValueError, match="no model or file named 'pairs'; expected pairwise"):
        study.given_model("pairs")
    with pytest.raises(ValueError, match="a.eqx is studied as it is: it takes no l2"):
        study.begin(_source(), study.Settings(model="a.eqx", l2=0.1), _glass(8))


@pytest.mark.parametrize(("model", "message"), [("rbm", "number of 1 or more"), ("complete", "20")])
def test_models_that_cannot_be_are_refused_before_anything_is_done(model, message):
    source = study.Source("wide", np.ones((3, 25)), None, (5, 5))
    with pytest.raises(ValueError, match=message):
        study.begin(source, study.Settings(model=model))


def test_another_given_model_is_another_study():
    settings = study.Settings(model="a.eqx")
    one, other = (study.begin(_source(), settings, _glass(8, scale)) for scale in (1.0, 2.0))
    study.check_same(one, one)
    with pytest.raises(ValueError, match="the model in a.eqx is another"):
        study.check_same(one, other)


def test_quick_studies_leave_out_what_learns_anew():
    names = list(_pipeline.stages_of(_study(quick=True)))
    assert names[:3] == ["choose", "judge", "learn"] and not {"vary", "scan", "experts"} & {*names}


# --- one stage beside the others


def test_a_stage_beside_others_tells_its_end_and_its_errors():
    heard = []
    with _beside.Beside() as beside:
        beside.begin("one", lambda job, tell, place: tell(1, 2, job.source.name), _study(), Place())
        assert beside.finish("other", _tell) is None
        assert beside.finish("one", lambda *told: heard.append(told)) >= 0
    assert heard[-1] == (1, 2, "glass")

    def fails(job, tell, place):
        raise OSError("no room")

    with _beside.Beside() as beside, pytest.raises(OSError, match="no room"):
        beside.begin("one", fails, _study(), Place())
        beside.finish("one", _tell)


def test_a_stage_that_nobody_waits_for_ends_at_its_next_report():
    started, ended = threading.Event(), threading.Event()

    def long(job, tell, place):
        started.set()
        try:
            while True:
                tell(0, None, "")
                ended.wait(0.01)
        except KeyboardInterrupt:
            ended.set()
            raise

    with pytest.raises(RuntimeError, match="another stage"), _beside.Beside() as beside:
        beside.begin("one", long, _study(), Place())
        started.wait(10)
        raise RuntimeError("another stage")
    assert ended.is_set()


_TWO_AT_ONCE = """
import threading
import jax, numpy as np
import thermogen as tg
from thermogen import study
from thermogen.runs import Place
from thermogen.study import _pipeline

upper = np.triu(np.random.default_rng(0).normal(size=(32, 32)), 1) / 32**0.5
energy = tg.Pairwise(upper + upper.T, np.zeros(32))
spins = np.random.default_rng(1).choice([-1.0, 1.0], (30000, 32))
source = study.Source("noise", spins, None, (1, 32))
job = study.begin(source, study.Settings(model="a.eqx"), energy)
silent = lambda *_: None
beside = threading.Thread(target=_pipeline._scan, args=(job, silent, Place()))
beside.start()
_pipeline._quench_data(job, silent, Place())
beside.join()
"""


@pytest.mark.slow
def test_stages_that_factorise_do_not_wait_for_each_other_for_ever():
    """They did, where the samples were quenched while the temperature was scanned."""
    subprocess.run([sys.executable, "-c", _TWO_AT_ONCE], check=True, timeout=300)


def test_studies_of_any_model_come_back_from_their_file(tmp_path):
    for model in ("rbm:2", "interactions:3", "complete"):
        job = _study(model=model)
        energy = _learning.start(job, job.source.spins, job.source.shares())
        fitted = learning.FitResult(energy, np.zeros(2), tg.RESULTS.converged)
        job = dataclasses.replace(job, fit=fitted)
        study.save_study(tmp_path / "study.npz", job)
        back = study.load_study(tmp_path / "study.npz")
        assert jax.tree.structure(back.energy) == jax.tree.structure(energy)
        jax.tree.map(np.testing.assert_array_equal, back.energy, energy)


# --- samples with gaps


@pytest.mark.further
def test_a_study_of_samples_with_gaps_fills_them_by_its_model():
    draw = np.random.default_rng(0)
    whole = _source(n_samples=300, beta=1.5).spins
    spins = np.where(draw.random(whole.shape) < 0.2, 0, whole)
    spins[:, 0] = whole[:, 0]
    job = _study(study.Source("gaps", spins, None, (1, 8)), l2=0.01, n_starts=8)
    assert "fill" in _pipeline.stages_of(job) and "fill" not in _pipeline.stages_of(_study())
    for name in ("choose", "judge", "learn", "fill", "quench", "search", "recall", "experts"):
        _pipeline.STAGES[name][1](job, _tell, Place())
    known = spins != 0
    np.testing.assert_array_equal(job.filled[known], spins[known])
    assert np.all(np.abs(job.filled) == 1) and job.samples is job.filled
    # Filling beats the mean of each spin, by more than three standard errors.
    gaps = ~known
    right = (job.filled == whole)[gaps].mean()
    guess = (np.where(spins.mean(axis=0) < 0, -1, 1) == whole)[gaps].mean()
    assert right > guess + 3 * np.sqrt(0.25 / gaps.sum())
    assert job.held_out.independent < job.held_out.log_likelihood < 0
    assert job.minima.value.shape == (300, 8) and job.comparison is None
