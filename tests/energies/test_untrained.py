"""Models by name: what energy each is, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen import energies

KEY = jax.random.key(0)
MEANS = np.array([0.5, -0.9, 0.0, 0.3])
KINDS = {
    "pairwise": tg.Pairwise,
    "rbm:3": tg.RBM,
    "interactions:3": tg.Interactions,
    "interactions:9": tg.Interactions,
    "complete": tg.Complete,
}


@pytest.mark.parametrize("model", KINDS)
def test_visible_spins_have_the_means(model):
    energy = energies.untrained(model, MEANS, key=KEY)
    assert type(energy) is KINDS[model] and energies.n_visible(energy) == len(MEANS)
    # Weights of 0.01 between layers move means by their squares.
    found = tg.exact.magnetizations(energy, 1.0)[: len(MEANS)]
    np.testing.assert_allclose(found, MEANS, atol=1e-3 if model.startswith("rbm") else 1e-12)


def test_sizes_are_those_of_the_name():
    rbm = energies.untrained("rbm:3", MEANS, key=KEY)
    assert isinstance(rbm, tg.RBM) and rbm.n_hidden == 3
    three = energies.untrained("interactions:3", MEANS, key=KEY)
    assert isinstance(three, tg.Interactions)
    assert [len(table) for table in three.sets] == [4, 6, 4]
    all_sets = energies.untrained("interactions:9", MEANS, key=KEY)
    assert isinstance(all_sets, tg.Interactions) and sum(map(len, all_sets.sets)) == 15


@pytest.mark.parametrize("model", KINDS)
def test_dtype_is_that_of_the_means(model):
    single = energies.untrained(model, MEANS.astype(np.float32), key=KEY)
    assert {x.dtype for x in jax.tree.leaves(single)} == {jnp.dtype("float32")}
    whole = energies.untrained(model, np.array([1, 0, -1, 0]), key=KEY)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(whole))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ising", "'pairwise', 'rbm:HIDDEN', 'interactions:DEGREE' or 'complete', got 'ising'"),
        ("pairwise:2", "got 'pairwise:2'"),
        ("rbm", "such as 'rbm:16', got 'rbm'"),
        ("rbm:0", "a number of 1 or more"),
        ("interactions:-1", "such as 'interactions:3'"),
        ("rbm:²", "a number of 1 or more"),
    ],
)
def test_other_names_are_refused(model, message):
    with pytest.raises(ValueError, match=f"model must .*{message}"):
        energies.untrained(model, MEANS, key=KEY)


def test_what_is_too_large_is_refused():
    with pytest.raises(ValueError, match="4087975 sets of 100 spins.*lower degree"):
        energies.untrained("interactions:4", np.zeros(100), key=KEY)
    with pytest.raises(ValueError, match="up to 20 spins, got 21"):
        energies.untrained("complete", np.zeros(21), key=KEY)


@pytest.mark.parametrize("means", [[0.5, 1.1], [[0.0, 0.0]], [np.nan, 0.0]])
def test_means_are_checked(means):
    with pytest.raises(ValueError, match=r"means must hold .* from -1 to 1"):
        energies.untrained("pairwise", np.array(means), key=KEY)
