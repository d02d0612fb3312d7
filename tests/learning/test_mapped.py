"""Fits under `jax.vmap` and `jax.jit`, minimisers and penalties of one's own."""

import warnings
from typing import ClassVar

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen.learning import (
    L1,
    L2,
    AbstractMinimiser,
    AbstractPenalty,
    Bounds,
    GradientSteps,
    LineSearch,
    ProximalGradient,
    Step,
)

N, N_SAMPLES, N_STEPS = 4, 40, 25
SGD = optax.sgd(1e-2)
OBJECTIVE = tg.Pseudolikelihood(0.0)
ZEROS = tg.Pairwise(np.zeros((N, N)), np.zeros(N))


def _data(seed: int) -> np.ndarray:
    p, _ = helpers.boltzmann(helpers.random_pairwise(N, jax.random.key(seed), 0.8), 1.0)
    rows = np.random.default_rng(seed).choice(2**N, N_SAMPLES, p=p)
    return helpers.configurations(N)[rows]


def _row(tree, k: int):
    return jax.tree.map(lambda x: x[k], tree)


def _rows(seed: int, strengths):
    """What can be mapped over: penalties, keys, starts, data sets and weights."""
    starts = [helpers.random_pairwise(N, jax.random.key(seed + k), 0.3) for k in range(3)]
    return (
        jnp.asarray(strengths),
        jax.random.split(jax.random.key(seed), 3),
        jax.tree.map(lambda *x: jnp.stack(x), *starts),
        jnp.stack([jnp.asarray(_data(seed + k)) for k in range(3)]),
        jnp.asarray(np.random.default_rng(seed).random((3, N_SAMPLES))),
    )


def _noisy(strength, key, start, data, weights) -> tg.FitResult:
    options = {"optimizer": SGD, "batch_size": 8, "n_steps": N_STEPS}
    penalty = L2(strength)
    return tg.fit(OBJECTIVE, start, data, weights=weights, penalty=penalty, key=key, **options)


@pytest.mark.further
def test_fits_map_over_all_their_numbers_row_by_row(caplog):
    """A row that fails leaves its neighbours alone; other numbers compile nothing."""
    rows = _rows(0, [0.01, 1e300, 0.5])
    fits = jax.vmap(_noisy)(*rows)
    assert fits.history.shape == (3, N_STEPS)
    codes = [tg.RESULTS.completed, tg.RESULTS.non_finite, tg.RESULTS.completed]
    for k, code in enumerate(codes):
        alone, row = _noisy(*_row(rows, k)), _row(fits, k)
        assert row.result == alone.result and row.result == code
        np.testing.assert_allclose(row.energy.couplings, alone.energy.couplings, rtol=1e-12)
        np.testing.assert_allclose(row.energy.fields, alone.energy.fields, rtol=1e-12)
        taken = len(alone.history)
        np.testing.assert_allclose(row.history[:taken], alone.history, rtol=1e-12)
        assert np.all(np.isnan(row.history[taken:])) and (taken < N_STEPS) == (k == 1)
    with helpers.compilations(caplog) as names:
        again = jax.vmap(_noisy)(*_rows(3, [0.1, 0.2, 0.3]))
    assert names == []
    assert np.all(again.energy.couplings != fits.energy.couplings, axis=0).any()


def _sparse(strength, data) -> tg.FitResult:
    penalty = L1(strength)
    return tg.fit(OBJECTIVE, ZEROS, data, penalty=penalty, key=jax.random.key(0), n_steps=300)


@pytest.mark.further
def test_descents_of_different_length_end_as_they_do_alone():
    """Each with its zeros and its code; without a penalty separable data are told."""
    pattern = np.array([1.0, -1, 1, 1])
    apart = np.where(np.arange(N_SAMPLES)[:, None] % 2, pattern, -pattern)
    strengths = np.array([0.02, 0.2, 0.0])
    data = np.stack([_data(0), _data(1), apart])
    fits = jax.jit(jax.vmap(_sparse))(strengths, data)
    codes = [tg.RESULTS.converged, tg.RESULTS.converged, tg.RESULTS.separable]
    steps = np.sum(~np.isnan(np.asarray(fits.history)), axis=1)
    assert len(set(steps.tolist())) == 3
    for k, code in enumerate(codes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pairs that are always equal
            alone = _sparse(float(strengths[k]), data[k])
        row = _row(fits, k)
        assert row.result == code and alone.result == code
        assert len(alone.history) == steps[k]
        np.testing.assert_allclose(row.energy.couplings, alone.energy.couplings, atol=1e-9)
        zeros = np.asarray(alone.energy.couplings) == 0
        np.testing.assert_array_equal(np.asarray(row.energy.couplings) == 0, zeros)


@pytest.mark.further
def test_line_searches_map_too():
    strengths = jnp.array([0.01, 0.1, 1.0])

    def learned(strength):
        key = jax.random.key(0)
        return tg.fit(OBJECTIVE, ZEROS, _data(0), penalty=L2(strength), key=key)

    fits = jax.vmap(learned)(strengths)
    ridges = jax.vmap(
        lambda l2: tg.fit(tg.Pseudolikelihood(l2), ZEROS, _data(0), key=jax.random.key(0)).energy
    )(strengths)
    for k in range(3):
        alone = learned(strengths[k])
        assert alone.result == tg.RESULTS.converged and _row(fits, k).result == alone.result
        np.testing.assert_allclose(fits.energy.couplings[k], alone.energy.couplings, atol=1e-9)
        np.testing.assert_allclose(ridges.couplings[k], alone.energy.couplings, atol=1e-5)


@pytest.mark.further
def test_chains_map_over_keys_and_have_a_regular_end():
    objective = tg.PersistentCD(n_chains=8, n_sweeps=1)

    def learned(key):
        return tg.fit(objective, ZEROS, _data(0), key=key, n_steps=12)

    keys = jax.random.split(jax.random.key(1), 2)
    fits = jax.vmap(learned)(keys)
    for k in range(2):
        alone = learned(keys[k])
        assert alone.result == tg.RESULTS.completed and _row(fits, k).result == alone.result
        np.testing.assert_allclose(fits.history[k], alone.history, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_traced_is_named():
    def looked_at(key):
        options = {"optimizer": SGD, "n_steps": 3, "callback": print}
        return tg.fit(OBJECTIVE, ZEROS, _data(0), key=key, **options).history

    with pytest.raises(ValueError, match=r"callback cannot be used under jax\.jit or jax\.vmap"):
        jax.vmap(looked_at)(jax.random.split(jax.random.key(0), 2))


def test_a_rate_that_no_array_holds_is_named():
    def learned(rate):
        options = {"optimizer": optax.sgd(rate), "n_steps": 3}
        return tg.fit(OBJECTIVE, ZEROS, _data(0), key=jax.random.key(0), **options).history

    with pytest.raises(ValueError, match="such as a learning rate inside an optax transformation"):
        jax.vmap(learned)(jnp.array([0.1, 0.2]))

    def with_field(rate):
        options = {"optimizer": Sign(rate), "n_steps": 3}
        return tg.fit(OBJECTIVE, ZEROS, _data(0), key=jax.random.key(0), **options).history

    histories = jax.vmap(with_field)(jnp.array([0.1, 0.2]))
    assert histories.shape == (2, 3) and np.all(histories[0, 1:] != histories[1, 1:])


# --- minimisers and penalties


class Sign(AbstractMinimiser):
    """Steps of one length in each parameter, whatever the slope."""

    needs_full_batch: ClassVar[bool] = True
    takes_kinks: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    patience: ClassVar[int | None] = 3
    copies: ClassVar[int] = 2

    length: float

    def init(self, energy):
        return jnp.zeros((), int)

    def step(self, loss, energy, state):
        (value, carried), gradient = loss.value_and_gradient(energy)
        moved = jax.tree.map(lambda x, g: x - self.length * jnp.sign(g), energy, gradient)
        slope = optax.tree.norm(gradient, ord=jnp.inf)
        return Step(moved, state + 1, carried, value, gradient, slope)


def test_a_minimiser_of_ones_own_is_the_equal_of_ours():
    """Its patience ends the fit, and its state is kept."""
    key, options = jax.random.key(0), {"optimizer": Sign(0.125), "penalty": L2(0.1)}
    fitted = tg.fit(OBJECTIVE, ZEROS, _data(0), key=key, **options)
    assert fitted.result == tg.RESULTS.precision_limit
    assert fitted.state.optimizer_state == len(fitted.history) - 1
    assert np.all(np.asarray(fitted.energy.fields) * 8 % 1 == 0)
    with pytest.raises(ValueError, match="optimizer Sign needs a deterministic objective"):
        tg.fit(OBJECTIVE, ZEROS, _data(0), key=key, batch_size=4, **options)


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (OBJECTIVE, {"optimizer": LineSearch(), "batch_size": 4}),
        (OBJECTIVE, {"optimizer": ProximalGradient(), "batch_size": 4}),
        (tg.PersistentCD(n_chains=8), {"optimizer": LineSearch()}),
    ],
)
def test_minimisers_get_what_they_need_or_are_refused(objective, options):
    name = type(options["optimizer"]).__name__
    with pytest.raises(ValueError, match=f"optimizer {name} needs .* leave batch_size out"):
        tg.fit(objective, ZEROS, _data(0), key=jax.random.key(0), **options)


def test_an_optimizer_is_made_before_it_is_given(unchecked):
    with pytest.raises(TypeError, match="optimizer must be an optax transformation, such as"):
        tg.fit(OBJECTIVE, ZEROS, _data(0), key=jax.random.key(0), optimizer=optax.adam)


def test_a_transformation_is_gradient_steps():
    options = {"key": jax.random.key(0), "n_steps": 5}
    plain = tg.fit(OBJECTIVE, ZEROS, _data(0), optimizer=SGD, **options)
    wrapped = tg.fit(OBJECTIVE, ZEROS, _data(0), optimizer=GradientSteps(SGD), **options)
    np.testing.assert_array_equal(plain.history, wrapped.history)


class OnFields(AbstractPenalty):
    """A pull on the fields alone."""

    holds: bool

    def bounds(self):
        return Bounds(fields=self.holds, couplings=False)

    def __call__(self, energy):
        return 0.1 * jnp.sum(energy.fields**2)


@pytest.mark.parametrize("holds", [True, False])
def test_penalties_say_what_they_bound(holds):
    """A constant spin is warned of unless a penalty, of whatever class, holds its field."""
    data = _data(0)
    data[:, 0] = 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tg.fit(
            tg.ExactLikelihood(),
            ZEROS,
            data,
            penalty=OnFields(holds),
            optimizer=SGD,
            n_steps=3,
            key=jax.random.key(0),
        )
    messages = [str(w.message) for w in caught]
    assert any("spins [0] are constant" in m for m in messages) == (not holds)


def test_a_callback_stops_a_fit():
    options = {"optimizer": SGD, "key": jax.random.key(0)}
    stopped = tg.fit(OBJECTIVE, ZEROS, _data(0), n_steps=100, callback=lambda _: True, **options)
    assert stopped.result == tg.RESULTS.unfinished and len(stopped.history) == 20
    rest = tg.fit(OBJECTIVE, ZEROS, _data(0), n_steps=80, state=stopped.state, **options)
    whole = tg.fit(OBJECTIVE, ZEROS, _data(0), n_steps=100, **options)
    np.testing.assert_array_equal(rest.energy.couplings, whole.energy.couplings)
