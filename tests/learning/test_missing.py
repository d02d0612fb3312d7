"""Unknown spins in training data, against sums over all that they may be."""

import warnings

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import thermogen as tg
from thermogen import learning
from thermogen.learning import Samples, clamped_free_energy

N = 6
SGD = optax.sgd(0.5)
EXACT = ["pairwise", "interactions", "rbm", "complete"]


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _cues(n: int, count: int, share: float = 0.3, seed: int = 0) -> np.ndarray:
    """Random rows with gaps: at least one spin is known in each, and one is not."""
    rng = np.random.default_rng(seed)
    spins = rng.choice([-1.0, 1.0], (count, n))
    known = rng.random((count, n)) > share
    row = np.arange(count)
    known[row, row % n], known[row, (row + 1) % n] = True, False
    return spins * known


def _log_sum(table: np.ndarray, cue: np.ndarray) -> float:
    """`ln sum exp(-E)` over all configurations whose visible spins agree with the cue."""
    visible = helpers.configurations(len(table).bit_length() - 1)[:, : len(cue)]
    agrees = np.all((cue == 0) | (visible == cue), axis=1)
    return scipy.special.logsumexp(-table[agrees])


def _log_weights(energy, cue: np.ndarray) -> float:
    return _log_sum(helpers.energy_table(energy), cue)


def _samples(cues: np.ndarray, weights: np.ndarray | None = None) -> Samples:
    weights = np.full(len(cues), 1 / len(cues)) if weights is None else weights
    most = int(np.max(np.sum(cues == 0, axis=1)))
    return Samples(jnp.asarray(cues), jnp.asarray(weights), max_gaps=most)


# --- the sum over what is unknown


@pytest.mark.parametrize("name", EXACT)
def test_clamped_free_energy_is_the_sum_over_what_agrees(name):
    energy = helpers.ENERGIES[name](9, _key(1))
    n = tg.energies.n_visible(energy)
    # An RBM sums over its four hidden spins where five visible ones may be unknown.
    for cue, most in [(c, m) for c in _cues(n, 4, 0.5) for m in (n - 1, n)]:
        ours = clamped_free_energy(energy, 1.0, cue, max_gaps=most)
        np.testing.assert_allclose(ours, -_log_weights(energy, cue), rtol=1e-12)
    cold = clamped_free_energy(energy, 30.0, cue, max_gaps=n)
    colder = jax.tree.map(lambda x: 30.0 * x, energy)
    np.testing.assert_allclose(30 * cold, -_log_weights(colder, cue), rtol=1e-12)


def test_nothing_missing_is_the_visible_free_energy_and_too_much_is_nan():
    energy = helpers.random_rbm(8, _key(1))
    spins = np.array([1.0, -1, 1, 1])
    whole = tg.energies.visible_free_energy(energy, 1.0, spins)
    assert clamped_free_energy(energy, 1.0, spins, max_gaps=0) == whole
    np.testing.assert_allclose(clamped_free_energy(energy, 1.0, spins, max_gaps=2), whole)
    free = jax.jit(lambda c: clamped_free_energy(energy, 1.0, c, max_gaps=1))
    assert np.isnan(free(jnp.array([1.0, 0, 0, 1]))) and np.isfinite(free(spins))


def test_many_gaps_of_a_narrow_graph_are_eliminated():
    n = 30
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    rng = np.random.default_rng(0)
    energy = tg.Interactions(
        n, [np.arange(n)[:, None], bonds], [rng.normal(size=n), rng.normal(size=n - 1)]
    )
    cue = np.zeros(n)
    cue[[3, 20]] = 1, -1
    p = tg.exact.marginal(energy, 1.0, (3, 20))[1]
    ours = clamped_free_energy(energy, 1.0, cue, max_gaps=n)
    np.testing.assert_allclose(-ours - tg.exact.log_partition(energy, 1.0), np.log(p), rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_potential_and_its_gradient_are_those_of_the_marginal_likelihood(name):
    energy = helpers.ENERGIES[name](N + (name == "rbm") * 4, _key(2))
    cues = _cues(tg.energies.n_visible(energy), 15)
    weights = np.random.default_rng(1).uniform(1, 2, 15)
    at, share = helpers.along(energy), weights / weights.sum()

    def truth(t):
        table = helpers.energy_table(at(t))
        log_p = [_log_sum(table, c) - _log_sum(table, 0 * c) for c in cues]
        return -np.dot(share, log_p)

    def ours(t):
        return learning.potential(at(t), 1.0, cues, weights=weights)

    np.testing.assert_allclose(ours(0.0), truth(0.0), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(ours))(0.0), helpers.slope(truth), rtol=1e-7)
    loss, _ = tg.ExactLikelihood().loss(energy, _samples(cues, share), None, _key(0))
    np.testing.assert_allclose(loss, truth(0.0), rtol=1e-12)


@pytest.mark.parametrize("name", ["pairwise", "rbm"])
def test_conditionals_are_those_of_known_spins_given_known_spins(name):
    energy = helpers.ENERGIES[name](N + (name == "rbm") * 4, _key(3))
    cues = _cues(tg.energies.n_visible(energy), 6, 0.4)
    surprise = flow = 0.0
    for cue in cues:
        for k in np.flatnonzero(cue):
            turned = np.where(np.arange(len(cue)) == k, -cue, cue)
            rise = _log_weights(energy, cue) - _log_weights(energy, turned)
            surprise += np.log1p(np.exp(-rise)) / len(cues)
            flow += np.exp(-rise / 2) / len(cues)
    for objective, value in [
        (tg.Pseudolikelihood(0.0), surprise),
        (learning.MinimumProbabilityFlow(), flow),
    ]:
        loss, _ = objective.loss(energy, _samples(cues), None, _key(0))
        np.testing.assert_allclose(loss, value, rtol=1e-10)


def test_mean_field_takes_the_same_data_term():
    energy, cues = helpers.random_pairwise(N, _key(8), 0.3), _cues(N, 10)
    whole = np.where(cues == 0, 1.0, cues)
    objective = tg.MeanFieldLikelihood(tg.TAP())
    change, expected = (
        loss(_samples(cues)) - loss(_samples(whole))
        for loss in (
            lambda samples: objective.loss(energy, samples, None, _key(0))[0],
            lambda samples: samples.free_energy(energy),
        )
    )
    # One minimum, from wherever it is sought.
    np.testing.assert_allclose(change, expected, atol=1e-6)


def test_likelihood_of_samples_with_gaps(monkeypatch):
    energy, cues = helpers.random_pairwise(N, _key(9)), _cues(N, 10, 0.5)
    found = learning.log_likelihood(energy, cues, key=_key(0))
    log_p = [_log_weights(energy, c) - _log_weights(energy, 0 * c) for c in cues]
    np.testing.assert_allclose(found.of_samples, log_p, rtol=1e-10)
    monkeypatch.setattr(learning._likelihood, "can_be_summed", lambda *_: False)
    annealed = learning.log_likelihood(energy, cues, key=_key(0))
    np.testing.assert_allclose(annealed.of_samples, log_p, atol=0.3)
    traced = jax.jit(lambda d: learning.log_likelihood(energy, d, key=_key(0)).of_samples)(cues)
    assert np.all(np.isnan(traced))


def test_conditionals_over_hidden_spins_are_those_over_gaps(monkeypatch):
    energy = helpers.random_rbm(9, _key(4))
    cues = _cues(5, 4, 0.6)
    few = learning.Samples(jnp.asarray(cues), jnp.full(4, 0.25), max_gaps=5).margins(energy)
    monkeypatch.setattr(learning._gaps, "layers", lambda energy: None)
    gaps = learning.Samples(jnp.asarray(cues), jnp.full(4, 0.25), max_gaps=5).margins(energy)
    np.testing.assert_allclose(few, gaps, atol=1e-12)
    assert np.all(np.asarray(few)[cues == 0] == 0)


# --- fits


def _data(n: int, count: int, share: float = 0.3, scale: float = 1.0, seed: int = 0):
    """A pairwise model, samples of it, and the same with gaps."""
    truth = helpers.random_pairwise(n, _key(seed), scale)
    p, _ = helpers.boltzmann(truth, 1.0)
    rng = np.random.default_rng(seed)
    data = helpers.configurations(n)[rng.choice(len(p), count, p=p)]
    known = rng.random(data.shape) > share
    # No row is empty.
    known[np.arange(count), np.arange(count) % n] = True
    return truth, data, data * known


def _zeros(n: int) -> tg.Pairwise:
    return tg.Pairwise(np.zeros((n, n)), np.zeros(n))


def _fit(objective, energy, data, **options) -> tg.FitResult:
    return tg.fit(objective, energy, data, key=_key(0), **options)


def test_optimum_is_that_of_the_marginal_likelihood():
    _, _, gaps = _data(8, 300)
    fitted = _fit(tg.ExactLikelihood(), _zeros(8), gaps, penalty=learning.L2(0.01))
    assert fitted.result == tg.RESULTS.converged

    # By hand: <s s'> of each row given what it knows, against that of the model.
    s = helpers.configurations(8)
    p, _ = helpers.boltzmann(fitted.energy, 1.0)
    of_rows = np.zeros(len(p))
    for row in gaps:
        agrees = np.all((row == 0) | (s == row), axis=1)
        of_rows += p * agrees / np.sum(p * agrees) / len(gaps)
    slope = (s.T * (p - of_rows)) @ s + 0.02 * np.asarray(fitted.energy.couplings)
    np.testing.assert_allclose(slope - np.diag(np.diag(slope)), 0, atol=2e-5)
    np.testing.assert_allclose((p - of_rows) @ s, 0, atol=2e-5)


@pytest.mark.parametrize(
    "objective",
    [tg.ExactLikelihood(), tg.Pseudolikelihood(), learning.MinimumProbabilityFlow()],
    ids=lambda o: type(o).__name__,
)
def test_rows_without_gaps_learn_as_they_did(objective):
    """Where one row in hundred has a gap, the model is that of the others, nearly."""
    _, data, _ = _data(5, 200)
    whole = _fit(objective, _zeros(5), data)
    some = data.copy()
    some[:2, 1] = 0
    nearly = _fit(objective, _zeros(5), some)
    assert nearly.result == whole.result == tg.RESULTS.converged
    np.testing.assert_allclose(nearly.energy.couplings, whole.energy.couplings, atol=0.1)
    # What may be unknown and is not changes nothing.
    options = {"n_steps": 60, "optimizer": learning.LineSearch()}
    traced = jax.jit(lambda d: _fit(objective, _zeros(5), d, max_gaps=2, **options).energy)(data)
    plain = _fit(objective, _zeros(5), data, **options).energy
    np.testing.assert_allclose(traced.couplings, plain.couplings, atol=1e-8)


def test_objectives_find_the_truth():
    """Consistency: from many samples each is within its error of the truth."""
    truth, data, gaps = _data(5, 20000, scale=0.7)
    for objective in (
        tg.ExactLikelihood(),
        tg.Pseudolikelihood(),
        learning.MinimumProbabilityFlow(),
    ):
        whole, half = (_fit(objective, _zeros(5), d).energy for d in (data, gaps))
        error, floor = (
            np.sqrt(np.mean((np.asarray(e.couplings) - np.asarray(truth.couplings)) ** 2))
            for e in (half, whole)
        )
        # Half of all pairs are known.
        assert error < 3 * floor + 0.01 and error < 0.03, (objective, error, floor)


def test_fits_of_data_with_gaps_are_mapped_and_compiled_once(caplog):
    _, _, gaps = _data(4, 60)
    other = gaps[:, [1, 2, 3, 0]]
    objective = tg.Pseudolikelihood(0.1)

    def learned(data):
        return _fit(objective, _zeros(4), data, max_gaps=4, n_steps=40).energy.couplings

    together = jax.vmap(learned)(jnp.stack([gaps, other]))
    apart = [_fit(objective, _zeros(4), d).energy.couplings for d in (gaps, other)]
    np.testing.assert_allclose(together, jnp.stack(apart), atol=1e-4)
    _fit(objective, _zeros(4), gaps)
    with helpers.compilations(caplog) as names:
        _fit(objective, _zeros(4), other)
    assert not names
    strengths = jnp.array([0.1, 0.3])
    mapped = jax.vmap(lambda x: _fit(tg.Pseudolikelihood(x), _zeros(4), gaps).energy.couplings)
    np.testing.assert_allclose(mapped(strengths)[0], apart[0], atol=1e-4)


def test_traced_data_with_more_gaps_than_said_end_in_no_number():
    _, _, gaps = _data(4, 20)
    for most in (None, 1):
        result = jax.jit(
            lambda d, m=most: (
                _fit(tg.Pseudolikelihood(), _zeros(4), d, max_gaps=m, n_steps=3).result
            )
        )(gaps)
        assert result == tg.RESULTS.non_finite
    potential = jax.jit(lambda d: learning.potential(_zeros(4), 1.0, d))
    assert np.isnan(potential(gaps)) and np.isfinite(potential(np.ones((3, 4))))


def test_derivatives_by_weights_and_strengths():
    _, _, gaps = _data(4, 30)
    weights = jnp.asarray(np.random.default_rng(0).uniform(1, 2, 30))

    def learned(t):
        fitted = _fit(
            tg.Pseudolikelihood(0.1 + 0.1 * t), _zeros(4), gaps, weights=weights + t * weights**2
        )
        return fitted.energy.couplings

    # Differences of fits are as good as their tolerance.
    forward = jax.jacfwd(learned)(0.0)
    np.testing.assert_allclose(helpers.slope(learned, 1e-2), forward, rtol=2e-3, atol=2e-3)


# --- filled by chains


def _filled_slope(objective, energy, cues, n_calls: int = 300):
    """Mean gradient by a Filled objective at fixed parameters, and its standard error."""
    filled = learning.filling(objective)
    samples = _samples(cues)
    state = filled.init(energy, samples, _key(1))

    @jax.jit
    def step(state, key):
        def loss(energy):
            return filled.loss(energy, samples, state, key)

        gradient, state = jax.grad(loss, has_aux=True)(energy)
        return state, jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(gradient)])

    _, slopes = jax.lax.scan(step, state, jax.random.split(_key(2), n_calls))
    blocks = np.asarray(slopes[20:]).reshape(20, -1, slopes.shape[1]).mean(axis=1)
    return blocks.mean(axis=0), blocks.std(axis=0) / np.sqrt(20)


@pytest.mark.parametrize("name", ["pairwise", "rbm"])
def test_chains_give_the_gradient_of_the_marginal_likelihood(name):
    """Fisher's identity, with an exact ln Z."""
    energy = helpers.ENERGIES[name](N + (name == "rbm") * 2, _key(5))
    cues = _cues(tg.energies.n_visible(energy), 40, 0.4)
    slope, error = _filled_slope(tg.ExactLikelihood(), energy, cues)
    truth = jax.grad(lambda e: learning.potential(e, 1.0, cues))(energy)
    truth = np.concatenate([np.ravel(x) for x in jax.tree.leaves(truth)])
    assert np.all(np.abs(slope - truth) < 5 * error + 1e-12)


def test_chains_of_conditionals_are_at_rest_at_the_truth():
    """The estimating equation of a pseudolikelihood of filled data, over many rows."""
    truth, _, gaps = _data(5, 20000, 0.4)
    slope, error = _filled_slope(tg.Pseudolikelihood(0.0), truth, gaps, 120)
    # The rows themselves scatter by 1 / sqrt(20000) times a few units.
    assert np.all(np.abs(slope) < 5 * (error + 0.01)), slope


def test_a_likelihood_of_filled_data_is_that_of_what_is_known():
    energy, cues = helpers.random_pairwise(N, _key(7)), _cues(N, 60, 0.4)
    filled = learning.filling(learning.AnnealedLikelihood(n_chains=4000))
    samples = _samples(cues)
    state = filled.init(energy, samples, _key(0))
    exact = samples.free_energy(energy)
    np.testing.assert_allclose(state.free_energy, exact, atol=0.05)
    value, _ = filled.loss(energy, samples, state, _key(1))
    np.testing.assert_allclose(value, learning.potential(energy, 1.0, cues), atol=0.1)


def test_chains_go_on_for_the_rows_of_a_batch():
    energy, cues = helpers.random_pairwise(N, _key(6)), _cues(N, 12)
    filled = learning.filling(tg.Pseudolikelihood(0.1))
    samples = _samples(cues)
    state = filled.init(energy, samples, _key(0))
    batch = samples.draw(_key(1), 3)
    _, after = filled.loss(energy, batch, state, _key(2))
    rest = np.setdiff1d(np.arange(12), batch.rows)
    np.testing.assert_array_equal(after.chains[:, rest], state.chains[:, rest])
    for chains in (state.chains, after.chains):
        assert np.all((cues.T == 0) | (chains == cues.T)) and np.all(np.abs(chains) == 1)


SAMPLED = [
    tg.PersistentCD(n_chains=64, n_sweeps=1),
    learning.AnnealedLikelihood(n_chains=64, n_rungs=8),
    learning.ContrastiveDivergence(),
]


@pytest.mark.further
@pytest.mark.parametrize("objective", SAMPLED, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("batch_size", [None, 100])
def test_sampled_objectives_learn_from_gaps(objective, batch_size):
    truth, _, gaps = _data(5, 2000, scale=0.7)
    start = _zeros(5)
    exact = _fit(tg.ExactLikelihood(), start, gaps).energy
    fitted = _fit(objective, start, gaps, batch_size=batch_size, n_steps=1500)
    assert fitted.result == tg.RESULTS.completed
    np.testing.assert_allclose(fitted.energy.couplings, exact.couplings, atol=0.12)
    # The account of the free energy, on which the value of a likelihood rests.
    state = fitted.state.objective_state
    truth = _samples(gaps).free_energy(state.energy)
    # Batches make it wander: steps of 0.04, slopes of a hundred rows, some 700 steps.
    np.testing.assert_allclose(state.free_energy, truth, atol=0.02 if batch_size is None else 0.4)


def test_an_objective_of_ones_own_sees_no_gaps():
    class Independent(learning.AbstractObjective):
        @property
        def defaults(self):
            return learning.Defaults(learning.GradientSteps(SGD), 200, 1e-5)

        def init(self, energy, samples, key):
            return jnp.all(jnp.abs(samples.spins) == 1)

        def loss(self, energy, batch, state, key):
            full = jnp.all(jnp.abs(batch.spins) == 1)
            surprise = jax.nn.softplus(-2 * batch.spins * energy.fields[None])
            return batch.mean(jnp.sum(surprise, axis=1)), state & full

    _, _, gaps = _data(4, 400)
    fitted = _fit(Independent(), _zeros(4), gaps)
    assert fitted.result == tg.RESULTS.completed and bool(fitted.state.objective_state.inner)
    means = gaps.sum(axis=0) / np.abs(gaps).sum(axis=0)
    np.testing.assert_allclose(np.tanh(fitted.energy.fields), means, atol=0.05)
    with pytest.raises(ValueError, match="fit has derivatives at the minimum of a deterministic"):
        jax.grad(lambda w: _fit(Independent(), _zeros(4), gaps, weights=w).energy.fields[0])(
            jnp.ones(400)
        )


# --- what is said of bad data


def test_bits_empty_columns_and_other_values_are_refused():
    fit = lambda data: _fit(tg.Pseudolikelihood(), _zeros(3), data)  # noqa: E731
    with pytest.raises(ValueError, match="no values but 0 and 1, which are bits"):
        fit(np.array([[0, 1, 1], [1, 0, 1]]))
    with pytest.raises(ValueError, match="expected -1 and [+]1, and 0 where a spin is unknown"):
        fit(np.array([[-1, 1, np.nan], [1, 0, 1]]))
    with pytest.raises(ValueError, match=r"data tells nothing of spins \[2\]"):
        fit(np.array([[-1, 1, 0], [1, -1, 0]]))


def test_empty_rows_count_for_nothing_and_are_named():
    _, _, gaps = _data(4, 50)
    gaps[[3, 7]] = 0
    with pytest.warns(UserWarning, match=r"in 2 of 50 rows no spin is known, such as rows \[3, 7"):
        with_empty = _fit(tg.Pseudolikelihood(), _zeros(4), gaps)
    rest = _fit(tg.Pseudolikelihood(), _zeros(4), np.delete(gaps, [3, 7], axis=0))
    np.testing.assert_allclose(with_empty.energy.couplings, rest.energy.couplings, atol=1e-6)


def test_masked_entries_are_unknown():
    _, data, gaps = _data(4, 50)
    masked = np.ma.array(data, mask=gaps == 0)
    ours = _fit(tg.Pseudolikelihood(), _zeros(4), masked)
    zeros = _fit(tg.Pseudolikelihood(), _zeros(4), gaps)
    np.testing.assert_array_equal(ours.energy.couplings, zeros.energy.couplings)


def test_constant_spins_and_tied_pairs_are_named_among_what_is_known():
    _, _, gaps = _data(4, 40)
    gaps[:, 2] = np.abs(gaps[:, 2])
    gaps[:, 3] = gaps[:, 0] * (gaps[:, 1] != 0)
    gaps[0] = [1, -1, 1, 1]
    with pytest.warns(UserWarning, match=r"spins \[2\] are constant and pairs \[\[0, 3\]\]"):
        _fit(tg.ExactLikelihood(), _zeros(4), gaps, n_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = _fit(tg.Pseudolikelihood(), _zeros(4), gaps)
    # As if half a sample of those that are known were the other way round.
    known = np.abs(gaps[:, 2]).sum()
    assert 0 < fitted.energy.fields[2] < np.arctanh(1 - 0.1 / known)


# --- moments, selection, the ridge


def test_moments_are_those_of_available_pairs():
    _, data, gaps = _data(4, 200)
    m, c = learning.moments(gaps, pseudocount=2)
    for i in range(4):
        rows = gaps[gaps[:, i] != 0, i]
        np.testing.assert_allclose(m[i], rows.sum() / (len(rows) + 2))
        for j in range(i):
            pair = gaps[:, [i, j]][np.all(gaps[:, [i, j]] != 0, axis=1)].prod(axis=1)
            np.testing.assert_allclose(c[i, j], pair.sum() / (len(pair) + 2) - m[i] * m[j])
    gaps[gaps[:, 0] != 0, 1] = 0
    with pytest.raises(ValueError, match=r"no sample in which both spins \[0, 1\] are known"):
        learning.moments(gaps)


@pytest.mark.further
def test_the_ridge_and_the_couplings_are_chosen_from_data_with_gaps():
    truth, _, gaps = _data(4, 400)
    chosen = learning.choose_l2(_zeros(4), gaps, key=_key(0))
    assert chosen.held_out.min() < chosen.held_out[0] and chosen.l2 < 0.1
    path = learning.decimate(
        tg.Pseudolikelihood(), _zeros(4), gaps[:300], gaps[300:], key=_key(0), n_models=3
    )
    assert np.all(np.isfinite(path.held_out)) and path.counts[-1, -1] < 6
