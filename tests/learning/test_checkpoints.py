"""Models kept along a training: the right ones, and what becomes of their landscape."""

import jax
import numpy as np
import optax
import pytest

import thermogen as tg
from thermogen.landscape import genealogy
from thermogen.learning import Checkpoints

# Two patterns and their negatives, with no mean: m = 0 at first.
PATTERNS = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, -1, -1, -1]])
DATA = np.repeat(np.concatenate([PATTERNS, -PATTERNS]), 5, axis=0)
# Not Adam, which blows up the rounding of the gradient by the fields, which is zero.
SGD = optax.sgd(2e-2)


def _train(callback=None, n_steps=100) -> tg.FitResult:
    return tg.fit(
        tg.Pseudolikelihood(l2=1e-2),
        tg.Pairwise(np.zeros((6, 6)), np.zeros(6)),
        DATA,
        optimizer=SGD,
        n_steps=n_steps,
        key=jax.random.key(0),
        callback=callback,
    )


def test_checkpoints_are_the_models_of_shorter_fits():
    kept = Checkpoints([100, 20, 35, 500])
    fitted = _train(kept)
    # Step 35 is met at the next call, and the last never.
    assert kept.steps == [20, 40, 100]
    assert kept.losses == [fitted.history[step - 1] for step in kept.steps]
    for step, energy in zip(kept.steps, kept.energies, strict=True):
        shorter = _train(n_steps=step).energy
        np.testing.assert_array_equal(energy.couplings, shorter.couplings)
        np.testing.assert_array_equal(energy.fields, shorter.fields)


def test_steps_within_one_call_are_kept_once():
    kept = Checkpoints(range(1, 21))
    _train(kept, n_steps=40)
    assert kept.steps == [20]


@pytest.mark.further
def test_states_are_born_along_a_training():
    kept = Checkpoints([20, 40, 60, 80, 100])
    _train(kept)
    family = genealogy(tg.NaiveMeanField(), kept.energies, 1.0, key=jax.random.key(0), n_starts=16)
    # The first eigenvalue of the couplings passes 1 within the training, and m = 0 gives way.
    largest = [np.linalg.eigvalsh(np.asarray(e.couplings))[-1] for e in kept.energies]
    assert largest[0] < 1 < largest[-1]
    m = np.abs(family.magnetizations).max(axis=1)
    for stage, eigenvalue in enumerate(largest):
        assert (m[family.stages == stage].max() > 1e-3) == (eigenvalue > 1)


@pytest.mark.parametrize("steps", [[], [0, 20], [-5]])
def test_bad_steps_are_named(steps):
    with pytest.raises(ValueError, match="steps"):
        Checkpoints(steps)
