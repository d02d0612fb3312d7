"""Sweeps of single spins: long runs, extreme temperatures, random numbers, compilation."""

import itertools
from collections.abc import Iterator

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy.stats import chi2

import thermogen as tg
from thermogen import sampling
from thermogen._bits import random_words
from thermogen.sampling._colored import _has_levels

N_DRAWS = 20_000
# Odds of a false alarm that every bound below is derived from.
ALARM = 1e-9


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


@jax.jit
def _sweep_all(energy, starts, beta, key):
    keys = jax.random.split(key, starts.shape[0])
    return jax.vmap(lambda s, k: tg.Gibbs().step(energy, beta, s, k)[0])(starts, keys)


@jax.jit
def _sweep_often(energy, starts, beta, keys):
    return jax.lax.scan(lambda s, k: (_sweep_all(energy, s, beta, k), None), starts, keys)[0]


def _indices(spins) -> np.ndarray:
    bits = (np.asarray(spins) > 0).astype(int)
    return bits @ (1 << np.arange(bits.shape[1]))


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_long_run_is_the_boltzmann_distribution(name, dtype):
    n, beta, n_sweeps = 6, 0.7, 100
    energy = helpers.ENERGIES[name](n, _key(10), scale=0.7)
    p, _ = helpers.boltzmann(energy, beta)
    relaxed = np.linalg.matrix_power(helpers.gibbs_matrix(energy, beta), n_sweeps)[-1]
    assert np.abs(relaxed - p).sum() < 1e-4  # the chains have time enough

    energy = jax.tree.map(lambda x: x.astype(dtype), energy)
    starts = jnp.ones((N_DRAWS, n), dtype)
    keys = jax.random.split(_key(2), n_sweeps)
    ends = _sweep_often(energy, starts, jnp.asarray(beta, dtype), keys)
    assert ends.dtype == dtype
    assert np.all(np.abs(ends) == 1)

    # Chi-square over configurations, the rare ones pooled to an expected count of at least 10.
    counts = np.bincount(_indices(ends), minlength=2**n)
    order = np.argsort(p)
    rare = np.searchsorted(np.cumsum(N_DRAWS * p[order]), 10.0) + 1
    pooled = [np.append(x[order][rare:], x[order][:rare].sum()) for x in (counts, N_DRAWS * p)]
    statistic = np.sum((pooled[0] - pooled[1]) ** 2 / pooled[1])
    assert statistic < chi2.isf(ALARM, len(pooled[0]) - 1)


@pytest.mark.parametrize("name", helpers.ENERGIES)
@pytest.mark.parametrize("beta", [0.0, 1e6])
def test_extreme_temperatures(name, beta):
    """Infinite temperature forgets the energy; at zero temperature no sweep goes uphill."""
    energy = helpers.ENERGIES[name](4, _key(4), scale=1.5)
    starts = np.repeat(helpers.configurations(4), 1000, axis=0)
    ends = np.asarray(_sweep_all(energy, starts, beta, _key(3)))
    if beta == 0:
        bound = np.sqrt(2 * len(ends) * np.log(2 * 4 / ALARM))  # Hoeffding
        assert np.all(np.abs(ends.sum(axis=0)) < bound)
    else:
        table = helpers.energy_table(energy)
        assert np.all(table[_indices(ends)] <= table[_indices(starts)])


@pytest.mark.further
@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_dtype_of_the_spins_is_kept(name):
    energy = helpers.ENERGIES[name](4, _key(4))
    for dtype in (jnp.float32, jnp.float64):
        assert tg.Gibbs().step(energy, 1.0, jnp.ones(4, dtype), _key(0))[0].dtype == dtype


def test_keys_decide():
    energy = helpers.random_pairwise(4, _key(4))
    starts = jnp.ones((100, 4))
    first = _sweep_all(energy, starts, 0.5, _key(0))
    np.testing.assert_array_equal(first, _sweep_all(energy, starts, 0.5, _key(0)))
    assert np.any(first != _sweep_all(energy, starts, 0.5, _key(1)))


@pytest.mark.parametrize("name", helpers.ENERGIES)
def test_new_parameters_do_not_recompile(name):
    traces = []

    @jax.jit
    def sweep(energy, spins, beta, key):
        traces.append(name)
        return tg.Gibbs().step(energy, beta, spins, key)

    energy = helpers.ENERGIES[name](4, _key(4))
    for i in range(3):
        energy = jax.tree.map(lambda x: x + 0.1, energy)
        sweep(energy, jnp.ones(4), 0.5 + i, _key(i))
    assert len(traces) == 1


@pytest.mark.parametrize("n_sites", [1, 4, 7])
def test_random_words_are_threefry(n_sites):
    """Both words of each counter, and each of them once."""
    keys = jax.random.split(jax.random.key(5), 3)
    sites = jnp.array([3, 0, 299, 8, 17, 4, 5])[:n_sites]
    half = -(-n_sites // 2)
    short, long = (np.asarray(random_words(keys, sites, width)) for width in (32, 64))
    for column, key in enumerate(jax.random.key_data(keys)):
        zeros = jnp.zeros(n_sites, jnp.uint32)
        words = threefry_2x32(key, jnp.concatenate([zeros, sites.astype(jnp.uint32)]))
        high, low = np.asarray(words[:n_sites]), np.asarray(words[n_sites:])
        expected = np.concatenate([high[:half], low[:half]])[:n_sites]
        np.testing.assert_array_equal(short[:, column], expected)
        joined = (high.astype(np.uint64) << np.uint64(32)) | low
        np.testing.assert_array_equal(long[:, column], joined)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_words_are_uniform_and_independent(impl):
    """Bits of all sites, keys and calls: each set in half of the words, none like another."""
    n_keys, n_sites = 2000, 12
    keys = jax.random.split(jax.random.key(1, impl=impl), n_keys)
    calls = jnp.arange(2 * n_sites).reshape(2, n_sites)
    words = np.concatenate([np.asarray(random_words(keys, sites, 32)) for sites in calls])
    bits = 2.0 * ((words[:, None] >> np.arange(32, dtype=np.uint32)[:, None]) & 1) - 1
    flat = bits.reshape(-1, n_keys)
    correlations = flat @ flat.T / n_keys
    means = flat.mean(axis=1)
    off_diagonal = correlations[np.triu_indices(len(flat), 1)]
    bound = np.sqrt(2 * np.log(2 * off_diagonal.size / ALARM) / n_keys)  # Hoeffding
    assert np.abs(means).max() < bound
    assert np.abs(off_diagonal).max() < bound


@pytest.mark.further
@pytest.mark.parametrize("n", [15, 40])
def test_blocks_and_words_leave_no_spin_out(n):
    """More spins than a block and more replicas than a word: a sweep at beta = 0 redraws all,
    and one at zero temperature follows the fields spin after spin."""
    energy = helpers.random_pairwise(n, _key(0))
    edges = np.stack(np.triu_indices(n, 1), 1)
    sparse = tg.Interactions(
        n,
        [np.arange(n)[:, None], edges[: 2 * n]],
        [energy.fields, energy.couplings[tuple(edges.T)][: 2 * n]],
    )
    starts = jnp.ones((70, n))
    for model in (energy, sparse):
        ends = np.asarray(_sweep_all(model, starts, 0.0, _key(1)))
        bound = np.sqrt(2 * 70 * np.log(2 * n / ALARM))  # Hoeffding
        assert np.all(np.abs(ends.sum(axis=0)) < bound)
    couplings, fields = np.asarray(energy.couplings), np.asarray(energy.fields)
    spins = np.ones(n)
    for k in range(n):
        spins[k] = np.sign(couplings[k] @ spins + fields[k])
    ends = _sweep_all(energy, starts, 1e9, _key(2))
    np.testing.assert_array_equal(ends, np.tile(spins, (70, 1)))


RULES = [sampling.HeatBathRule(), sampling.MetropolisRule(), helpers.BelowUniform()]


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_chain_does_not_depend_on_how_many_there_are(rule, n):
    """A few dense chains go from flip to flip, many in blocks of spins."""
    energy = helpers.random_pairwise(n, _key(0))
    clamp = np.zeros(n)
    clamp[[1, n - 1]] = [1, -1]
    starts = np.where(clamp == 0, np.random.default_rng(0).choice([-1.0, 1.0], (9, n)), clamp)
    keys = jax.random.split(_key(1), 9)

    @jax.jit
    def swept(starts, keys):
        def one(start, key):
            return sampling.sweep(rule, energy, 0.8, start, key, clamp)[0]

        return jax.vmap(one)(starts, keys)

    together = np.asarray(swept(starts, keys))
    alone = np.concatenate([swept(starts[i : i + 1], keys[i : i + 1]) for i in range(9)])
    pairs = np.concatenate([swept(starts[i : i + 2], keys[i : i + 2]) for i in range(0, 8, 2)])
    assert np.any(together != starts)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(pairs, together[:8])


@pytest.mark.parametrize("kernel", [tg.Gibbs(), tg.Metropolis()], ids=["Gibbs", "Metropolis"])
def test_a_batch_of_models_is_as_each_of_them(kernel):
    models = [helpers.random_pairwise(20, _key(i)) for i in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *models)
    start, key = jnp.ones(20), _key(7)
    step = jax.jit(lambda energy: kernel.step(energy, 0.7, start, key)[0])
    batched = jax.jit(jax.vmap(lambda energy: kernel.step(energy, 0.7, start, key)[0]))(stacked)
    np.testing.assert_array_equal(batched, [step(model) for model in models])
    assert np.any(batched != 1)


def _chain_with_ends(n_spins: int, field: float) -> tg.Interactions:
    """Spins of one and of two bonds of +-J, in a field."""
    pairs = np.stack([np.arange(n_spins - 1), np.arange(1, n_spins)], 1)
    bonds = 0.375 * np.random.default_rng(0).choice([-1.0, 1.0], n_spins - 1)
    fields = np.full(n_spins, field)
    return tg.Interactions(n_spins, [np.arange(n_spins)[:, None], pairs], [fields, bonds])


def _of_one_size(n_spins: int, order: int, degree: int, *empty: np.ndarray) -> tg.Interactions:
    rng = np.random.default_rng(order)
    rows = [rng.permutation(n_spins).reshape(-1, order) for _ in range(degree)]
    sets = np.unique(np.sort(np.concatenate(rows), axis=1), axis=0)
    couplings = 0.75 * rng.choice([-1.0, 1.0], len(sets))
    return tg.Interactions(n_spins, [*empty, sets], [*(np.zeros(0) for _ in empty), couplings])


LEVELS = {
    "ends": _chain_with_ends(21, 0.0),
    "ends in a field": _chain_with_ends(21, 0.25),
    "triples": _of_one_size(24, 3, 4),
    "pairs": _of_one_size(30, 2, 9),
    "no pairs before triples": _of_one_size(24, 3, 2, np.zeros((0, 2), int)),
    "one magnet": tg.Interactions.from_terms(2, {(0, 1): 1.0}),
}


QUICK = {("ends", tg.Metropolis, "float32"), ("ends in a field", tg.Gibbs, "float32")}


def _level_cases() -> Iterator:
    kernels = tg.Gibbs(), tg.Metropolis()
    for name, kernel, dtype in itertools.product(LEVELS, kernels, ["float32", "float64"]):
        marks = [] if (name, type(kernel), dtype) in QUICK else [pytest.mark.further]
        yield pytest.param(
            name, kernel, dtype, marks=marks, id=f"{name}, {type(kernel).__name__}, {dtype}"
        )


@pytest.mark.parametrize(("name", "kernel", "dtype"), list(_level_cases()))
def test_levels_of_fields_decide_as_fields_do(name, kernel, dtype):
    """Couplings of one size go by levels, unless there is a batch of models or one is changed.

    All are small sums of powers of 2: sums of other floats may miss 0, which the cold amplifies.
    """
    energy = jax.tree.map(lambda x: jnp.asarray(x, dtype), LEVELS[name])
    changed = eqx.tree_at(lambda e: e.couplings[-1], energy, replace_fn=lambda c: c.at[0].mul(3.0))
    n, replicas = energy.n_spins, 37
    clamp = jnp.zeros(n).at[0].set(1)
    starts = jnp.ones((replicas, n), dtype)
    betas = jnp.geomspace(0.01, 1e6, replicas).astype(dtype)

    @jax.jit
    def swept(energy, key, clamp):
        def sweeps(beta, start, key):
            step = lambda s, k: (kernel.step(energy, beta, s, k, clamp)[0], None)  # noqa: E731
            return jax.lax.scan(step, start, jax.random.split(key, 10))[0]

        return jax.vmap(sweeps)(betas, starts, jax.random.split(key, replicas))

    rule = {tg.Gibbs: sampling.HeatBathRule, tg.Metropolis: sampling.MetropolisRule}[type(kernel)]
    in_field = name == "ends in a field" and isinstance(kernel, tg.Metropolis)
    assert _has_levels(rule(), energy) != in_field
    assert not _has_levels(rule(), changed) or len(energy.couplings[-1]) == 1
    for model in (energy, changed):
        by_fields = jax.vmap(swept, in_axes=(0, None, None))
        stacked = jax.tree.map(lambda x: x[None], model)
        for held in (None, clamp):
            ends = swept(model, _key(3), held)
            assert ends.dtype == dtype
            np.testing.assert_array_equal(ends, by_fields(stacked, _key(3), held)[0])
            assert np.any(ends != 1)


class _Lifted(tg.AbstractMultilinear):
    """A ring of a user, whose terms leave out its offset."""

    n_spins: int = eqx.field(static=True)
    offset: jax.Array

    def __call__(self, spins):
        return self.offset - jnp.sum(spins * jnp.roll(spins, -1))


@tg.energies.terms.register
def _(energy: _Lifted):
    sites = np.arange(energy.n_spins)
    pairs = np.stack([sites, np.roll(sites, -1)], axis=1)
    return tg.Interactions(energy.n_spins, [pairs], [np.ones(energy.n_spins)])


def test_a_batch_of_models_of_the_same_terms():
    def swept(offset, key):
        step = lambda s, k: tg.Gibbs().step(_Lifted(10, offset), 0.7, s, k)[0]  # noqa: E731
        return jax.vmap(step)(jnp.ones((9, 10)), jax.random.split(key, 9))

    offsets, keys = jnp.arange(3.0), jax.random.split(_key(0), 3)
    together = jax.vmap(swept)(offsets, keys)
    np.testing.assert_array_equal(
        together, [swept(*each) for each in zip(offsets, keys, strict=True)]
    )
    assert np.any(together != 1)


class _UniformBelow(sampling.AbstractWordRule):
    """The heat bath of a user, by uniform numbers in place of logistic ones."""

    along = False

    def variate(self, words, dtype):
        return sampling.open_uniform(words, dtype)

    def never(self, spin):
        return jnp.where(spin > 0, -1.0, 2.0)

    def __call__(self, field, spin, threshold):
        return jnp.where(threshold < jax.nn.sigmoid(field), 1, -1).astype(spin.dtype)

    def ordered(self, words):
        return words

    def limits(self, field):
        bits = 8 * field.dtype.itemsize
        return (jax.nn.sigmoid(field) * 2.0**bits).astype(f"uint{bits}")


def test_a_word_rule_of_a_user_goes_by_levels():
    energy, rule = LEVELS["ends"], _UniformBelow()
    starts, keys = jnp.ones((9, energy.n_spins)), jax.random.split(_key(0), 9)

    def swept(energy):
        one = lambda s, k: sampling.sweep(rule, energy, 1.0, s, k)[0]  # noqa: E731
        return jax.vmap(one)(starts, keys)

    assert _has_levels(rule, energy)
    by_fields = jax.vmap(swept)(jax.tree.map(lambda x: jnp.asarray(x)[None], energy))[0]
    np.testing.assert_array_equal(swept(energy), by_fields)
    assert np.any(by_fields != 1)
