"""Functions of many jobs: each is cut between and within its parts, and ends at the same bits."""

import jax
import numpy as np
import optax
import pytest
from helpers import run_alone

import thermogen as tg
from thermogen.runs import Checkpoint, CheckpointError
from thermogen.runs._checkpoint import Store

KEY = jax.random.key(0)
MAGNET = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.linspace(0.0, 0.1, 6))
SPINS = np.random.default_rng(0).choice([-1.0, 1.0], (40, 6))
ZEROS = tg.Pairwise(np.zeros((6, 6)), np.zeros(6))
LIKELIHOOD = tg.Pseudolikelihood(0.1)
SGD = optax.sgd(2e-2)

FUNCTIONS = {
    "fit_experts": lambda where: tg.fit_experts(
        *(ZEROS, SPINS),
        objective=LIKELIHOOD,
        key=KEY,
        n_experts=2,
        n_starts=2,
        n_rounds=3,
        held_out=SPINS[::2],
        n_steps=30,
        checkpoint=where,
    ),
    "choose_l2": lambda where: tg.learning.choose_l2(
        ZEROS, SPINS, key=KEY, n_folds=2, checkpoint=where
    ),
    "find_minima": lambda where: tg.find_minima(
        tg.NaiveMeanField(), MAGNET, 1.0, key=KEY, n_starts=200, checkpoint=where
    ),
    "find_bound_states": lambda where: tg.find_bound_states(
        MAGNET, 0.5, key=KEY, threshold=4, n_starts=16, n_trajectories=16, checkpoint=where
    ),
}


def _assert_equal(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.further
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_many_jobs_goes_on_where_it_was_cut(tmp_path, monkeypatch, name):
    """After a third and two thirds of all states, before the next one is stored."""
    where, save, left = Checkpoint(tmp_path / "cut", seconds=0), Store.save, [0]

    def counted(store, state):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        save(store, state)

    monkeypatch.setattr(Store, "save", counted)
    left[0] = most = 100_000
    stored = FUNCTIONS[name](Checkpoint(tmp_path / "whole", seconds=0))
    n_states = most - left[0]
    assert n_states > 3
    for _ in range(2):
        left[0] = n_states // 3
        with pytest.raises(KeyboardInterrupt):
            FUNCTIONS[name](where)
    left[0] = most
    found = FUNCTIONS[name](where)
    assert most - left[0] <= n_states - 2 * (n_states // 3) + 2
    _assert_equal(found, FUNCTIONS[name](None))
    _assert_equal(found, stored)
    left[0] = 0  # what has ended is read
    _assert_equal(FUNCTIONS[name](where), found)


def _experts(rows, **options):
    """Three rounds of two experts."""
    options |= {"objective": LIKELIHOOD, "key": KEY, "n_experts": 2, "n_starts": 1}
    return tg.fit_experts(ZEROS, rows, n_rounds=3, tolerance=0.0, **options)


@pytest.mark.further
def test_experts_store_their_rounds_as_they_go(tmp_path):
    """What ends them between two rounds loses none."""
    rounds = []

    def cut(this):
        rounds.append(this.loss)
        if len(rounds) == 2:
            raise RuntimeError

    def learned(callback):
        return _experts(SPINS, checkpoint=tmp_path, callback=callback)

    with pytest.raises(RuntimeError):
        learned(cut)
    first = sorted(path.name for path in (tmp_path / "split" / "0").iterdir())
    assert first == ["0", "1"]
    again = []
    learned(lambda this: again.append(this.loss))
    assert again[:2] == rounds


ONE = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("lanes",))
DEVICES = pytest.mark.parametrize(
    ("before", "after"), [(ONE, None), (None, ONE)], ids=["without", "with"]
)


def _assert_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-12)


@DEVICES
@pytest.mark.parametrize("weights", [None, np.linspace(0.1, 1.0, 30)], ids=["even", "uneven"])
def test_a_fit_goes_on_with_devices_and_without(tmp_path, before, after, weights):
    """Whether samples are filled up or not, they are those of the same run."""

    def learned(sharding, where, callback=None):
        return tg.fit(
            *(LIKELIHOOD, ZEROS, SPINS[:30]),
            key=KEY,
            weights=weights,
            optimizer=SGD,
            n_steps=60,
            checkpoint=where,
            callback=callback,
            sharding=sharding,
        )

    def cut(fitted):
        if len(fitted.history) == 40:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        learned(before, tmp_path, cut)
    seen = []
    found = learned(after, tmp_path, lambda fitted: seen.append(len(fitted.history)))
    assert seen == [60]
    _assert_close(found, learned(after, None))
    _assert_close(found, learned(before, None))


def test_other_samples_of_as_many_rows_are_another_fit(tmp_path):
    def learned(rows, **options):
        options |= {"optimizer": SGD, "n_steps": 3, "checkpoint": tmp_path}
        return tg.fit(LIKELIHOOD, ZEROS, rows, key=KEY, **options)

    learned(SPINS[:30])
    for rows in (SPINS[1:31], SPINS[:29], SPINS[:31]):
        with pytest.raises(CheckpointError, match="holds another run"):
            learned(rows, sharding=ONE)


@pytest.mark.further
@DEVICES
def test_experts_go_on_with_devices_and_without(tmp_path, before, after):
    def learned(sharding, where, callback=None):
        options = {"checkpoint": where, "callback": callback, "sharding": sharding}
        return _experts(SPINS[:30], optimizer=SGD, n_steps=30, **options)

    def cut(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        learned(before, tmp_path, cut)
    found = learned(after, tmp_path)
    _assert_close(found, learned(after, None))
    _assert_close(found, learned(before, None))


THREE = """
import jax
jax.config.update("jax_num_cpu_devices", 3)
jax.config.update("jax_enable_x64", True)
import numpy as np
import thermogen as tg

mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("lanes",))
fields = np.linspace(-0.5, 0.5, 21)
experts = jax.tree.map(lambda x: x[None], tg.Pairwise(np.zeros((21, 21)), fields))
found = tg.experts.log_partitions(experts, jax.random.key(0), sharding=mesh)
np.testing.assert_allclose(found, [np.sum(np.log(2 * np.cosh(fields)))], atol=0.02)
print("done")
"""


@pytest.mark.further
def test_chains_that_the_package_counts_need_not_divide():
    run_alone(THREE)


SPLIT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import pathlib, tempfile, warnings
import numpy as np
import thermogen as tg
from thermogen.runs import Checkpoint, CheckpointError

mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("x",))
folder = pathlib.Path(tempfile.mkdtemp())
energy = tg.Pairwise(np.ones((6, 6)) - np.eye(6), np.linspace(0.0, 0.1, 6))
zeros = tg.Pairwise(np.zeros((6, 6)), np.zeros(6))
rows = np.random.default_rng(0).choice([-1.0, 1.0], (41, 6))


def sampled(where, n_seen=0, key=0):
    def callback(*_):
        nonlocal n_seen
        n_seen -= 1
        if n_seen == 0:
            raise KeyboardInterrupt
    return np.asarray(tg.sample(tg.Gibbs(), energy, 0.5, key=jax.random.key(key), n_chains=4,
        n_sweeps=40, checkpoint=where, callback=callback, sharding=mesh))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


whole = sampled(None)
for where in (folder / "cut", folder / "damaged"):
    try:
        sampled(Checkpoint(where, seconds=0), 5)
    except KeyboardInterrupt:
        pass
    states = sorted(where.glob("*.orbax"))
    assert len(states) == 2, states
try:
    sampled(folder / "cut", key=1)
    raise AssertionError("another key")
except CheckpointError:
    pass
assert equal(sampled(folder / "cut"), whole)
largest = max(states[-1].rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
largest.write_bytes(largest.read_bytes()[:-3])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert equal(sampled(folder / "damaged"), whole)
said = [str(w.message) for w in caught if "going on from" in str(w.message)]
assert len(said) == 1 and states[-2].name in said[0], said


def experts(where, sharding):
    return tg.fit_experts(zeros, rows, objective=tg.Pseudolikelihood(0.1), key=jax.random.key(0),
        n_experts=2, n_starts=1, n_rounds=2, checkpoint=where, sharding=sharding)


split = experts(folder / "experts", mesh)
assert equal(experts(folder / "experts", mesh), split)
assert equal(experts(folder / "experts", None), split)
for a, b in zip(*map(jax.tree.leaves, (split, experts(None, None))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
print("done")
"""


@pytest.mark.slow
def test_arrays_that_are_split_are_stored_and_resumed():
    """By orbax: cut, damaged, refused; and experts whose samples do not divide."""
    run_alone(SPLIT)
