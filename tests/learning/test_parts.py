"""Losses of many samples go by parts, in space that does not grow with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import learning
from thermogen.learning import _samples

OBJECTIVES = [tg.Pseudolikelihood(), learning.MinimumProbabilityFlow(), tg.ExactLikelihood()]


def _data(n_samples: int, n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (n_samples, n))


def _samples_of(n_samples: int) -> _samples.Samples:
    shares = np.random.default_rng(1).uniform(size=n_samples)
    spins, shares = (jnp.asarray(x, float) for x in (_data(n_samples), shares / shares.sum()))
    return _samples.Samples(spins, shares)


def _energy(n: int = 6) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(2).normal(size=(n, n)), 1)
    return tg.Pairwise(upper + upper.T, np.linspace(-1, 1, n))


# Parts that divide the samples, and parts that leave a few.
@pytest.mark.parametrize("n_samples", [120, 127])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_loss_and_gradient_by_parts_are_those_at_once(monkeypatch, objective, n_samples):
    samples, key = _samples_of(n_samples), jax.random.key(0)
    state = objective.init(_energy(), samples, key)

    def loss(energy):
        return objective.loss(energy, samples, state, key)[0]

    at_once = jax.value_and_grad(loss)(_energy())
    monkeypatch.setattr(_samples, "_PART", 6 * 30)
    by_parts = jax.value_and_grad(loss)(_energy())
    for ours, theirs in zip(jax.tree.leaves(by_parts), jax.tree.leaves(at_once), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_working_space_of_a_gradient_does_not_grow_with_the_samples(monkeypatch):
    monkeypatch.setattr(_samples, "_PART", 2**10)
    objective, energy = tg.Pseudolikelihood(), _energy(8)

    def space(n_samples: int) -> int:
        def gradient(spins, shares):
            samples = _samples.Samples(spins, shares)
            return jax.grad(lambda e: objective.loss(e, samples, None, jax.random.key(0))[0])(
                energy
            )

        data = (
            jax.ShapeDtypeStruct((n_samples, 8), float),
            jax.ShapeDtypeStruct((n_samples,), float),
        )
        return jax.jit(gradient).lower(*data).compile().memory_analysis().temp_size_in_bytes

    bytes_of_data = 8 * 8 * 2**14
    assert space(2**14) < bytes_of_data / 4
    assert space(2**15) - space(2**14) < bytes_of_data / 16


def test_a_fit_holds_no_copy_of_data_in_another_dtype(monkeypatch):
    seen = []
    warn = learning._fit.warn_of_infinite_parameters
    monkeypatch.setattr(
        learning._fit,
        "warn_of_infinite_parameters",
        lambda data, *rest: (seen.append(data), warn(data, *rest)),
    )
    data = _data(40)
    start = tg.Pairwise(np.zeros((6, 6)), np.zeros(6))
    tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0), n_steps=2)
    assert np.shares_memory(seen[0], data)


def test_a_fit_of_bytes_is_that_of_floats():
    data, start = _data(60), tg.Pairwise(np.zeros((6, 6)), np.zeros(6))
    for objective in (tg.Pseudolikelihood(), tg.ExactLikelihood()):
        options = {"key": jax.random.key(0), "n_steps": 3}
        ours = tg.fit(objective, start, data, **options).energy
        theirs = tg.fit(objective, start, data.astype(float), **options).energy
        np.testing.assert_array_equal(ours.couplings, theirs.couplings)
