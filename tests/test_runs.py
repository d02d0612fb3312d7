"""The driver, and the contract that every job keeps, one made by a user included."""

from typing import NamedTuple

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Bool

import thermogen as tg
from thermogen import learning, sampling


class _Walk(NamedTuple):
    place: Array
    n_done: Array
    key: Array


class UserJob(tg.AbstractJob):
    """A random walk that ends where it leaves an interval: of no length known before."""

    energy: tg.AbstractEnergy
    beta: Array

    def init(self, key) -> _Walk:
        return _Walk(jnp.zeros(()), jnp.zeros((), int), key)

    def step(self, state: _Walk) -> _Walk:
        key, step_key = jax.random.split(state.key)
        return _Walk(state.place + jax.random.normal(step_key), state.n_done + 1, key)

    def done(self, state: _Walk) -> Bool[Array, ""]:
        return jnp.abs(state.place) > self.beta

    def result(self, state: _Walk):
        return state.place + self.energy(jnp.ones(self.energy.n_spins)), state.n_done


N, CHAINS = 4, 3
SGD = optax.sgd(1e-2)
SPINS = jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [-1, -1, 1, 1]])
HALF = jnp.array([1.0, 0, 0, 0])


def _path(beta):
    return jnp.linspace(0, 1, 4) * beta


JOBS = {
    "user": lambda energy, beta: UserJob(energy, 2 * beta),
    "chains": lambda energy, beta: sampling.Sampling(
        tg.Gibbs(), energy, beta, sampling.Trace(), SPINS, HALF, jnp.array(1), jnp.array(2), 5
    ),
    "search": lambda energy, beta: tg.search.Search.of(
        tg.meanfield.Problem(tg.NaiveMeanField(), energy, beta),
        *(np.asarray(SPINS, np.float32), 20, 8, None, (tg.search.corner,)),
    ),
    "tempering": lambda energy, beta: sampling.Sampling(
        tg.ParallelTempering(jnp.array([0.3, 1.0]) * beta),
        *(energy, beta, sampling.Mean(), SPINS, None, jnp.array(1), jnp.array(2), 5),
    ),
    "annealing": lambda energy, beta: sampling.AnnealedImportance(
        energy, _path(beta), SPINS, tg.Gibbs(), HALF, 1
    ),
    "heating": lambda energy, beta: sampling.AnnealedImportance(
        energy, _path(beta)[::-1], SPINS, tg.Metropolis(), None, -1
    ),
    "population": lambda energy, beta: sampling.PopulationAnnealing(
        energy, _path(beta), tg.Gibbs(), None, CHAINS, 2
    ),
    "fit": lambda energy, beta: learning.Fit(
        tg.Pseudolikelihood(0.1 * beta),
        energy,
        learning.Samples(SPINS, jnp.full(CHAINS, 1 / CHAINS)),
        optimizer=SGD,
        n_steps=5,
    ),
    "integration": lambda energy, beta: sampling.Integration(
        energy, _path(beta), SPINS, tg.Gibbs(), None, jnp.array(1), jnp.array(2)
    ),
}


# Variants of jobs that are tried anyhow.
VARIANTS = ("tempering", "heating")
NAMES = [pytest.param(n, marks=[pytest.mark.further] if n in VARIANTS else []) for n in JOBS]


def _energy(seed=0):
    return helpers.random_pairwise(N, jax.random.key(seed))


def _job(name, seed=0, beta=1.0):
    return JOBS[name](_energy(seed), jnp.asarray(beta))


def _numbers(tree):
    return [np.asarray(x) for x in jax.tree.leaves(jax.tree.map(_plain, tree))]


def _plain(x):
    is_key = jnp.issubdtype(jnp.asarray(x).dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def _assert_equal(ours, theirs):
    for a, b in zip(_numbers(ours), _numbers(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", JOBS)
def test_shapes_of_a_state_never_change(name):
    job = _job(name)
    state = jax.eval_shape(job.init, jax.random.key(0))
    assert jax.tree.leaves(state)
    assert jax.eval_shape(job.step, state) == state
    assert jax.eval_shape(job.done, state) == jax.ShapeDtypeStruct((), bool)


@pytest.mark.further
@pytest.mark.parametrize("name", JOBS)
def test_a_job_says_how_far_it_is(name):
    job, seen = _job(name), []
    tg.run(job, key=jax.random.key(0), callback=lambda state: seen.append(job.amount(state)))
    if name == "user":
        assert set(seen) == {None}
        return
    done, totals = zip(*seen, strict=True)
    assert len(set(totals)) == 1 and list(done) == sorted(done)
    assert 0 < done[0] <= done[-1] == totals[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_pieces_and_from_a_stored_state_ends_at_the_same_bits(name):
    job, key, seen = _job(name), jax.random.key(1), []
    whole = tg.run(job, key=key)
    _assert_equal(tg.run(job, key=key, callback=seen.append), whole)
    assert len(seen) >= 2 and bool(job.done(seen[-1])) and not bool(job.done(seen[0]))
    data, structure = jax.tree.flatten(seen[0])
    stored = [np.asarray(_plain(x)) for x in data]
    state = jax.tree.unflatten(
        structure,
        [
            jax.random.wrap_key_data(jnp.asarray(x)) if _plain(y) is not y else jnp.asarray(x)
            for x, y in zip(stored, data, strict=True)
        ],
    )
    step = eqx.filter_jit(lambda job, state: job.step(state))
    while not job.done(state):
        state = step(job, state)
    _assert_equal(state, seen[-1])
    _assert_equal(eqx.filter_jit(lambda job, state: job.result(state))(job, state), whole)


class _Cut(BaseException):
    """What no code expects."""


@pytest.mark.further
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_cut_at_every_pause_and_resumed_ends_at_the_same_bits(name, tmp_path):
    job, key, n_cuts = _job(name), jax.random.key(1), 0
    done = eqx.filter_jit(lambda job, state: job.done(state))

    def cut(state):
        if not done(job, state):
            raise _Cut

    def resumed():
        return tg.run(job, key=key, checkpoint=tmp_path / "folder", callback=cut)

    whole, found = tg.run(job, key=key), None
    while found is None:
        try:
            found = resumed()
        except _Cut:
            n_cuts += 1
    assert n_cuts >= 2
    _assert_equal(found, whole)


@pytest.mark.further
@pytest.mark.parametrize("name", NAMES)
def test_jobs_map_over_energies_betas_and_keys(name):
    """One program for all; each row is what the job gives alone."""
    energies = [_energy(seed) for seed in range(3)]
    betas, keys = jnp.array([0.5, 1.0, 1.5]), jax.random.split(jax.random.key(2), 3)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *energies)

    @jax.jit
    @jax.vmap
    def mapped(energy, beta, key):
        return tg.run(JOBS[name](energy, beta), key=key)

    many = mapped(stacked, betas, keys)
    for k, energy in enumerate(energies):
        alone = tg.run(JOBS[name](energy, betas[k]), key=keys[k])
        row = jax.tree.map(lambda x, k=k: x[k], many)
        for a, b in zip(_numbers(row), _numbers(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5 if a.dtype == np.float32 else 1e-12)


def test_a_callback_stops_a_run_or_looks_at_every_few_steps():
    job, key, seen = _job("chains"), jax.random.key(0), []
    tg.run(job, key=key, callback=lambda state: seen.append(int(state.n_done)), every=2)
    assert seen == [2, 4, 5]
    whole = tg.run(job, key=key)
    stopped = tg.run(job, key=key, callback=lambda state: bool(state.n_done >= 3))
    np.testing.assert_array_equal(stopped[:, :3], whole[:, :3])


def test_other_numbers_do_not_compile(caplog):
    tg.run(_job("chains"), key=jax.random.key(0))
    with helpers.compilations(caplog) as names:
        tg.run(_job("chains", seed=1, beta=0.3), key=jax.random.key(1), callback=lambda _: None)
    assert names == []


def test_what_cannot_run_is_named(unchecked):
    with pytest.raises(TypeError, match="job must be an AbstractJob"):
        tg.run(lambda: 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"callback cannot be used under jax.jit or jax.vmap"):
        jax.jit(lambda k: tg.run(_job("user"), key=k, callback=print))(jax.random.key(0))
    with pytest.raises(ValueError, match=r"checkpoint cannot be used under jax.jit or jax.vmap"):
        jax.jit(lambda k: tg.run(_job("user"), key=k, checkpoint="folder"))(jax.random.key(0))
    with pytest.raises(ValueError, match="every must be at least 1"):
        tg.run(_job("user"), key=jax.random.key(0), callback=print, every=0)
