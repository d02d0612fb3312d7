"""`sample`, its observers and tempering against enumeration."""

import itertools
import math
import os
import pathlib
import subprocess
import sys

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, softmax
from scipy.stats import chi2

import thermogen as tg
from thermogen import sampling
from thermogen.sampling import _tempering
from thermogen.sampling._coloring import color_plan

ALARM = 1e-9
SAMPLERS = {
    "gibbs": tg.Gibbs(),
    "metropolis": tg.Metropolis(),
    "heat bath": tg.HeatBath(),
    "tempering": tg.ParallelTempering([0.1, 0.4, 0.8]),
    "houdayer": sampling.Houdayer(),
    "swendsen-wang": sampling.SwendsenWang(),
    "tempering of pairs": tg.ParallelTempering([0.1, 0.4, 0.8], sampling.Houdayer()),
}


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _indices(spins) -> np.ndarray:
    bits = (np.asarray(spins) > 0).astype(int)
    return bits @ (1 << np.arange(bits.shape[-1]))


def _is_drawn_from(indices: np.ndarray, p: np.ndarray) -> bool:
    """Chi-square over configurations, the rare ones pooled to an expected count of 10."""
    counts, expected = np.bincount(indices, minlength=len(p)), len(indices) * p
    order = np.argsort(p)
    rare = np.searchsorted(np.cumsum(expected[order]), 10.0) + 1
    pooled = [np.append(x[order][rare:], x[order][:rare].sum()) for x in (counts, expected)]
    statistic = np.sum((pooled[0] - pooled[1]) ** 2 / pooled[1])
    return statistic < chi2.isf(ALARM, len(pooled[0]) - 1)


@pytest.mark.parametrize("energy_name", helpers.ENERGIES)
@pytest.mark.parametrize("name", ["gibbs", "metropolis", "tempering"])
def test_a_relaxed_population_stays_relaxed(name, energy_name):
    """Whatever the kernel: chains that start at samples of the Boltzmann table keep to it."""
    n, beta, n_draws = 4, 0.8, 30_000
    sampler, energy = SAMPLERS[name], helpers.ENERGIES[energy_name](n, _key(4), scale=1.5)
    p, _ = helpers.boltzmann(energy, beta)
    rng = np.random.default_rng(0)
    starts = helpers.configurations(n)[rng.choice(2**n, n_draws, p=p)]
    if name == "tempering":
        # The rungs start from one configuration and have to relax before the cold one can tell.
        ends = tg.sample(
            sampler, energy, beta, key=_key(1), n_chains=n_draws, n_sweeps=1, burn_in=60
        )
    else:
        ends = tg.sample(
            sampler, energy, beta, key=_key(1), n_chains=n_draws, n_sweeps=1, init=starts
        )
        assert np.any(ends[:, 0] != starts)
    assert ends.shape == (n_draws, 1, n)
    assert _is_drawn_from(_indices(ends[:, 0]), p)


@pytest.mark.further
@pytest.mark.parametrize(
    ("name", "energy_name"),
    [
        *itertools.product(["gibbs", "metropolis", "heat bath"], helpers.ENERGIES),
        *itertools.product(["houdayer", "swendsen-wang"], ["pairwise", "rbm"]),
        *itertools.product(["tempering"], ["pairwise", "complete"]),
        *itertools.product(["tempering of pairs"], ["pairwise", "rbm"]),
    ],
)
def test_clamped_spins_stay_and_the_others_are_conditional(name, energy_name):
    n, beta, n_draws = 4, 0.6, 20_000
    energy = helpers.ENERGIES[energy_name](n, _key(4))
    clamp = np.array([1, 0, -1, 0])
    ends = tg.sample(
        SAMPLERS[name],
        energy,
        beta,
        key=_key(3),
        n_chains=n_draws,
        n_sweeps=1,
        burn_in=40,
        clamp=clamp,
    )
    ends = np.asarray(ends[:, 0])
    held = clamp != 0
    assert np.all(ends[:, held] == clamp[held])
    p, _ = helpers.boltzmann(energy, beta)
    p = np.where(np.all(helpers.configurations(n)[:, held] == clamp[held], axis=1), p, 0)
    assert _is_drawn_from(_indices(ends), p / p.sum())


@pytest.mark.slow
def test_total_variation_at_ten_spins():
    """The expected distance of an empirical from its true distribution, and no more."""
    n, beta = 10, 0.7
    energy = helpers.random_pairwise(n, _key(10))
    p, _ = helpers.boltzmann(energy, beta)
    draws = _indices(
        tg.sample(
            tg.Gibbs(),
            energy,
            beta,
            key=_key(0),
            n_chains=2000,
            n_sweeps=2000,
            burn_in=100,
            thin=20,
        )
    ).ravel()
    distance = 0.5 * np.abs(np.bincount(draws, minlength=2**n) / draws.size - p).sum()
    expected = 0.5 * np.sum(np.sqrt(2 * p * (1 - p) / (np.pi * draws.size)))
    assert distance < 1.2 * expected


@pytest.mark.further
def test_observers_agree_with_the_trace():
    energy = helpers.random_pairwise(5, _key(5))
    edges = jnp.linspace(-6.0, 6.0, 13)
    arguments = {"key": _key(2), "n_chains": 7, "n_sweeps": 12, "burn_in": 3, "thin": 2}
    spins = np.asarray(tg.sample(tg.Gibbs(), energy, 0.5, **arguments))
    assert spins.shape == (7, 6, 5)
    seen = tg.sample(
        tg.Gibbs(),
        energy,
        0.5,
        **arguments,
        observers={
            "energies": sampling.Trace(lambda energy, s: energy(s)),
            "m": sampling.Mean(),
            "c": sampling.Correlations(),
            "histogram": sampling.EnergyHistogram(edges),
            "q": sampling.Overlaps(),
            "last": sampling.LastStates(2),
        },
    )
    flat = spins.reshape(-1, 5)
    energies = helpers.energy_table(energy)[_indices(spins)]
    np.testing.assert_allclose(seen["energies"], energies, atol=1e-12)
    np.testing.assert_allclose(seen["m"], flat.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(seen["c"], np.cov(flat.T, bias=True), atol=1e-12)
    np.testing.assert_array_equal(seen["histogram"], np.histogram(energies, edges)[0])
    agreeing = (spins == np.roll(spins, 1, axis=0)).sum(axis=2)
    np.testing.assert_array_equal(seen["q"], np.bincount(agreeing.ravel(), minlength=6))
    np.testing.assert_array_equal(seen["last"], spins[:, -2:])


@pytest.mark.further
def test_overlaps_with_patterns_agree_with_the_trace():
    energy = helpers.random_pairwise(5, _key(5))
    patterns = helpers.configurations(5)[[0, 7, 25]]
    arguments = {"key": _key(2), "n_chains": 7, "n_sweeps": 12}
    spins = np.asarray(tg.sample(tg.Gibbs(), energy, 0.5, **arguments)).reshape(-1, 5)
    for given in (patterns.astype(np.int8), jnp.asarray(patterns)):
        observer = sampling.PatternOverlaps(given)
        counts = tg.sample(tg.Gibbs(), energy, 0.5, **arguments, observers=observer)
        assert counts.shape == (3, 6)
        for pattern, row in zip(patterns, np.asarray(counts), strict=True):
            overlaps = spins @ pattern / 5
            expected = [np.sum(np.abs(overlaps - q) < 1e-9) for q in np.linspace(-1, 1, 6)]
            np.testing.assert_array_equal(row, expected)


def test_bad_patterns_are_named():
    with pytest.raises(ValueError, match="patterns must hold spins"):
        sampling.PatternOverlaps(np.array([[1, 0, 1]]))
    observer = sampling.PatternOverlaps(np.ones((2, 3)))
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(ValueError, match="patterns must have 4 spins each, got 3"):
        tg.sample(tg.Gibbs(), energy, 1.0, key=_key(0), n_chains=2, n_sweeps=2, observers=observer)


@pytest.mark.further
def test_states_tell_of_the_replicas():
    """The whole state at each kept sweep; round trips follow from who stood where."""
    sampler = tg.ParallelTempering([0.0, 0.3, 0.8])
    energy = helpers.random_pairwise(4, _key(4))
    seen = tg.sample(
        sampler,
        energy,
        0.8,
        key=_key(0),
        n_chains=3,
        n_sweeps=60,
        observers={
            "spins": sampling.Trace(),
            "state": sampling.Trace(of="state"),
            "energies": sampling.Trace(lambda energy, s: jax.vmap(energy)(s.replicas), of="state"),
        },
    )
    state = jax.tree.map(np.asarray, seen["state"])
    assert state.replicas.shape == (3, 60, 3, 4)
    np.testing.assert_array_equal(state.replicas[:, :, -1], seen["spins"])
    energies = helpers.energy_table(energy)[_indices(state.replicas)]
    np.testing.assert_allclose(seen["energies"], energies, atol=1e-12)
    np.testing.assert_array_equal(state.sweeps, np.tile(np.arange(1, 61), (3, 1)))
    assert np.all(np.sort(state.walkers, axis=2) == np.arange(3))
    expected = [_round_trips(chain) for chain in state.walkers]
    np.testing.assert_array_equal(state.round_trips, expected)
    assert np.all(state.round_trips[:, -1] > 3)


def _round_trips(walkers) -> list[int]:
    """How many walkers have come to the cold end since their last visit of the hot one."""
    came_from_hot, trips = set(), [0]
    for hot, *_, cold in walkers.tolist():
        trips.append(trips[-1] + (cold in came_from_hot))
        came_from_hot = (came_from_hot - {cold}) | {hot}
    return trips[1:]


@pytest.mark.parametrize("name", SAMPLERS)
def test_infos_count_the_spins_that_changed(name):
    energy = helpers.random_pairwise(4, _key(4))
    observers = {
        "spins": sampling.Trace(),
        "info": sampling.Trace(of="info"),
        "mean": sampling.Mean(lambda _, info: info.flips, of="info"),
    }
    options = {"n_chains": 3, "n_sweeps": 20, "init": np.ones(4)}
    seen = tg.sample(SAMPLERS[name], energy, 0.8, key=_key(0), observers=observers, **options)
    before = np.concatenate([np.ones((3, 1, 4)), seen["spins"][:, :-1]], axis=1)
    flips = np.sum(before != seen["spins"], axis=2)
    assert flips.any()
    np.testing.assert_array_equal(seen["info"].flips, flips)
    np.testing.assert_allclose(seen["mean"], np.mean(flips), rtol=1e-12)


@pytest.mark.further
def test_info_of_tempering_tells_of_swaps():
    """Energies before the swaps are those after, exchanged back: an exchange undoes itself."""
    sampler, energy = SAMPLERS["tempering"], helpers.random_pairwise(4, _key(4))
    observers = {
        "energies": sampling.Trace(lambda energy, s: jax.vmap(energy)(s.replicas), of="state"),
        "walkers": sampling.Trace(lambda _, s: s.walkers, of="state"),
        "info": sampling.Trace(of="info"),
    }
    options = {"n_chains": 3, "n_sweeps": 40, "observers": observers}
    seen = jax.tree.map(np.asarray, tg.sample(sampler, energy, 0.8, key=_key(0), **options))
    info, before, walkers = seen["info"], seen["energies"].copy(), seen["walkers"][:, :-1].copy()
    np.testing.assert_array_equal(
        info.tried, (np.arange(40)[:, None] + [[0, 1]]) % 2 == 0 * before[..., :2]
    )
    for i in range(2):
        swapped = info.swapped[..., i]
        assert 0 < swapped.sum() < info.tried[..., i].sum()
        before[swapped, i], before[swapped, i + 1] = before[swapped, i + 1], before[swapped, i]
        later = swapped[:, 1:]
        walkers[later, i], walkers[later, i + 1] = walkers[later, i + 1], walkers[later, i]
    np.testing.assert_array_equal(walkers, seen["walkers"][:, 1:])
    expected = np.exp(np.minimum(np.diff([0.1, 0.4, 0.8]) * np.diff(before), 0))
    np.testing.assert_allclose(info.acceptance, expected, rtol=1e-12)


@pytest.mark.further
def test_info_of_clusters_tells_their_sizes():
    magnet = tg.Pairwise(1 - jnp.eye(5), jnp.zeros(5))
    for beta, n_clusters, largest in [(0.0, 5, 1), (50.0, 1, 5)]:
        _, info = sampling.SwendsenWang().step(magnet, beta, jnp.ones(5), _key(0))
        assert (info.n_clusters, info.largest) == (n_clusters, largest)
    _, info = sampling.Houdayer().step(magnet, 0.0, jnp.ones((2, 5)), _key(1))
    assert info.moves.flips.shape == (2,)
    assert 0 < info.exchanged <= 5


def test_observers_name_what_they_can_see():
    with pytest.raises(ValueError, match="of must be one of spins, state, info, got 'chain'"):
        sampling.Trace(of="chain")


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, thermogen as tg
from jax.sharding import NamedSharding, PartitionSpec
assert jax.device_count() == 2
sharding = NamedSharding(jax.make_mesh((2,), ("chains",)), PartitionSpec("chains"))
energy = tg.Pairwise(0.3 * (1 - jnp.eye(5)), 0.1 * jnp.arange(5.0))
for sampler in (tg.Gibbs(), tg.ParallelTempering([0.2, 0.7])):
    def run(**options):
        options = {"key": jax.random.key(0), "n_chains": 6, "n_sweeps": 3} | options
        return tg.sample(sampler, energy, 0.7, **options)
    plain, split = run(), run(sharding=sharding)
    assert len(plain.devices()) == 1 and len(split.devices()) == 2
    assert {shard.data.shape for shard in split.addressable_shards} == {(3, 3, 5)}
    np.testing.assert_array_equal(plain, split)
    starts = -np.asarray(plain[:, -1])
    placed = run(init=jax.device_put(starts, sharding))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 3, 5)}
    np.testing.assert_array_equal(run(init=starts), placed)
print("chains lie on both devices")
"""


@pytest.mark.further
def test_chains_on_several_devices_draw_the_same():
    """In a process of its own, which sees this CPU as two devices."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHARDED],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "chains lie on both devices", done.stderr[-2000:]


def test_progress_changes_nothing_and_new_numbers_do_not_recompile():
    traces, calls = [], []

    def record(energy, spins):
        traces.append(1)
        return spins

    def run(seed, beta, **options):
        energy = helpers.random_pairwise(5, _key(seed))
        observer = sampling.Trace(record)
        return tg.sample(
            tg.Gibbs(),
            energy,
            beta,
            key=_key(0),
            n_chains=3,
            n_sweeps=50,
            observers=observer,
            **options,
        )

    first = run(1, 0.5)
    with_progress = run(1, 0.5, callback=lambda done, total: calls.append((done, total)))
    np.testing.assert_array_equal(first, with_progress)
    assert calls[-1] == (50, 50)
    assert len(calls) == 17
    jit_traces = len(traces)
    assert np.any(run(2, 0.9, burn_in=7) != first)
    assert len(traces) - jit_traces <= 1  # the shape of the record, nothing compiled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_chains": 0}, "n_chains must be at least 1"),
        ({"thin": 20}, "thin must not exceed n_sweeps"),
        ({"beta": np.nan}, "beta must be finite, got nan"),
        ({"burn_in": -1}, "burn_in must be at least 0"),
        ({"n_sweeps": 2**31}, "n_sweeps must be at most 2147483647"),
        ({"init": np.ones(3)}, r"init must have shape \(4,\) or \(2, 4\), got \(3,\)"),
        ({"init": np.zeros(4)}, "init must hold spins"),
        ({"clamp": np.full(4, 0.5)}, "clamp must hold -1 or"),
        ({"clamp": np.ones(3)}, r"clamp must have shape \(4,\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    energy = helpers.random_pairwise(4, _key(0))
    given = {"beta": 1.0, "n_chains": 2, "n_sweeps": 4} | arguments
    with pytest.raises(ValueError, match=message):
        tg.sample(tg.Gibbs(), energy, key=_key(0), **given)


COUNTS = ["n_chains", "n_sweeps", "burn_in", "thin"]


@pytest.mark.parametrize("value", [2.0, np.nan, np.inf, "2", True])
@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_count_is_named(name, value, unchecked):
    """An infinite burn-in once never ended, and one of NaN recorded one state again and again."""
    given = {"n_chains": 2, "n_sweeps": 4} | {name: value}
    with pytest.raises(TypeError, match=f"{name} must be an integer, got"):
        tg.sample(tg.Gibbs(), helpers.random_pairwise(4, _key(0)), 1.0, key=_key(0), **given)


def test_integers_of_numpy_are_counts():
    energy, counts = helpers.random_pairwise(4, _key(0)), dict.fromkeys(COUNTS, 2)
    ours, theirs = (
        tg.sample(tg.Gibbs(), energy, 1.0, key=_key(0), **{k: to(v) for k, v in counts.items()})
        for to in (int, np.int64)
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_not_sampled(number):
    """Known ones are named; traced ones leave NaN for all that is measured, and no spins."""
    energy = helpers.random_pairwise(4, _key(0))
    broken = jax.tree.map(lambda x: x.at[0].set(number), energy)

    def run(energy, beta=1.0):
        return tg.sample(tg.Gibbs(), energy, beta, key=_key(0), n_chains=2, n_sweeps=4)

    with pytest.raises(ValueError, match="energy must have finite parameters, got Pairwise"):
        run(broken)
    for arguments in ((broken, 1.0), (energy, number)):
        assert np.all(np.isnan(jax.jit(run)(*arguments)))
    assert np.all(np.abs(jax.jit(run)(energy, 1.0)) == 1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_refused_by_every_sampler(dtype):
    """It cannot tell the odds of rare flips: means of -1 for 0.46 came without a word."""
    energy = jax.tree.map(lambda x: x.astype(dtype), helpers.random_pairwise(4, _key(0)))
    message = f"dtype float32 or float64, got Pairwise of {jnp.dtype(dtype).name}"
    for sampler in SAMPLERS.values():
        with pytest.raises(TypeError, match=message):
            tg.sample(sampler, energy, 1.0, key=_key(0), n_chains=2, n_sweeps=2)
        state = sampler.init(energy, 1.0, jnp.ones(4), _key(0))
        with pytest.raises(TypeError, match=message):
            sampler.step(energy, 1.0, state, _key(0))
    with pytest.raises(TypeError, match="spins must be of dtype float32 or float64"):
        tg.Gibbs().step(helpers.random_pairwise(4, _key(0)), 1.0, jnp.ones(4, dtype), _key(0))
    with pytest.raises(TypeError, match=message):
        sampling.tune_ladder(SAMPLERS["tempering"], energy, key=_key(0))


def test_what_is_no_sampler_is_named(unchecked):
    energy = helpers.random_pairwise(4, _key(0))
    with pytest.raises(TypeError, match="sampler must be one such as Gibbs"):
        tg.sample(tg.Gibbs, energy, 1.0, key=_key(0), n_chains=2, n_sweeps=4)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([1.0], r"rungs >= 2, got \(1,\)"),
        (1.0, r"rungs >= 2, got \(\)"),
        ([0.5, 0.1], "betas must be finite, increase and not be negative"),
        ([0.5, np.inf], "betas must be finite, increase and not be negative"),
    ],
)
def test_bad_ladders_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        tg.ParallelTempering(betas)


@pytest.mark.further
def test_a_ladder_may_be_of_another_precision_than_the_energy():
    ladder = tg.ParallelTempering(jnp.array([0.2, 0.5], jnp.float32))
    energy = helpers.random_pairwise(4, _key(0))
    spins = tg.sample(ladder, energy, 0.5, key=_key(1), n_chains=2, n_sweeps=3)
    assert spins.dtype == jnp.float64


@pytest.mark.further
def test_more_spins_than_a_block_have_the_exact_energy():
    """18 spins: the second block starts anew, and padding is no spin."""
    energy = helpers.random_pairwise(18, _key(18), scale=0.8)
    for sampler in (tg.Gibbs(), tg.Metropolis()):
        energies = tg.sample(
            sampler,
            energy,
            0.5,
            key=_key(0),
            n_chains=200,
            n_sweeps=300,
            burn_in=100,
            observers=sampling.Trace(lambda e, s: e(s)),
        )
        means = np.asarray(energies).mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(len(means))
        exact = float(tg.exact.mean_energy(energy, 0.5))
        assert abs(means.mean() - exact) < 5 * error < 0.02 * abs(exact)


def _lattice(size: int) -> tg.Interactions:
    site = np.arange(size * size).reshape(size, size)
    bonds = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
    return tg.Interactions(size * size, [np.concatenate(bonds)], [jnp.ones(2 * size * size)])


def test_colors_are_independent_and_complete():
    lattice = _lattice(6)
    members, _ = color_plan(lattice.n_spins, lattice.sets)
    assert members.shape == (2, 18)
    energy = helpers.random_interactions(9, _key(1), orders=(1, 2, 3))
    members, _ = color_plan(9, energy.sets)
    classes = [set(row) - {9} for row in members.tolist()]
    assert sorted(itertools.chain(*classes)) == list(range(9))
    for table in energy.sets:
        assert all(len(c & set(t)) <= 1 for c in classes for t in table.indices.tolist())


@pytest.mark.further
def test_square_lattice_has_the_energy_of_the_ising_model():
    """-1.1061 per spin at beta = 0.4 on 64 x 64 spins (Onsager 1944)."""
    energies = _energies_of_lattice(tg.Gibbs(), 64, 0.4, n_chains=16, n_sweeps=400)
    means = np.asarray(energies).mean(axis=1)
    assert abs(means.mean() + 1.1061) < 4 * means.std(ddof=1) / 4 + 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [sampling.SwendsenWang(), tg.Gibbs()])
def test_square_lattice_is_exact_near_the_critical_point(sampler):
    """beta = 0.44 on 64 x 64 spins, where clusters are fast and single spins slow."""
    n_sweeps = 1000 if isinstance(sampler, sampling.SwendsenWang) else 20_000
    energies = _energies_of_lattice(sampler, 64, 0.44, n_chains=16, n_sweeps=n_sweeps)
    means = np.asarray(energies).mean(axis=1)
    error = means.std(ddof=1) / 4
    assert error < 3e-3
    assert abs(means.mean() - _exact_energy(64, 0.44)) < 4 * error


@pytest.mark.further
def test_exact_energy_of_a_small_lattice():
    table = helpers.energy_table(_lattice(4))
    p, _ = helpers.boltzmann(_lattice(4), 0.44)
    assert abs(_exact_energy(4, 0.44) - p @ table / 16) < 1e-9


def _exact_energy(size: int, beta: float) -> float:
    """Per spin on the torus, from ln Z in closed form (Kaufman, Phys. Rev. 76, 1232 (1949))."""

    def log_partition(beta):
        k = jnp.arange(1, 2 * size)
        c = jnp.cosh(2 * beta) / jnp.tanh(2 * beta) - jnp.cos(jnp.pi * k / size)
        gamma = jnp.append(2 * beta + jnp.log(jnp.tanh(beta)), jnp.arccosh(c)) * size / 2
        odd, even = gamma[1::2], gamma[0::2]
        logs = [
            jnp.sum(jnp.log(2 * jnp.abs(f(x)))) for x in (odd, even) for f in (jnp.cosh, jnp.sinh)
        ]
        signs = jnp.append(jnp.ones(3), jnp.sign(even[0]))
        total = jax.nn.logsumexp(jnp.stack(logs), b=signs)
        return size**2 / 2 * jnp.log(2 * jnp.sinh(2 * beta)) - jnp.log(2) + total

    return -float(jax.grad(log_partition)(beta)) / size**2


def _energies_of_lattice(sampler, size, beta, **counts):
    return tg.sample(
        sampler,
        _lattice(size),
        beta,
        key=_key(0),
        burn_in=counts["n_sweeps"],
        observers=sampling.Trace(lambda energy, s: energy(s) / s.size),
        **counts,
    )


@pytest.mark.further
def test_tempering_crosses_where_gibbs_does_not():
    """A Curie-Weiss magnet of 40 spins at beta = 2.2, started up: only tempering finds down."""
    n, beta = 40, 2.2
    energy = tg.Pairwise((1 - jnp.eye(n)) / n, jnp.zeros(n))
    tempering = sampling.tune_ladder(
        tg.ParallelTempering(jnp.linspace(0.0, beta, 8)), energy, key=_key(1)
    )
    options = {"key": _key(0), "n_chains": 32, "n_sweeps": 1000, "burn_in": 200}
    m = {
        name: np.asarray(
            tg.sample(
                sampler, energy, beta, init=np.ones(n), observers=sampling.Trace(_sign), **options
            )
        )
        for name, sampler in {"gibbs": tg.Gibbs(), "tempering": tempering}.items()
    }
    assert np.all(m["gibbs"] > 0)
    per_chain = m["tempering"].mean(axis=1)
    assert abs(per_chain.mean()) < 5 * per_chain.std(ddof=1) / np.sqrt(32)
    assert np.all(np.abs(per_chain) < 1)


def _sign(energy, spins):
    return jnp.sign(jnp.sum(spins))


@pytest.mark.further
def test_a_ladder_of_single_precision_is_tuned_for_an_energy_of_double():
    energy = tg.Pairwise((1 - jnp.eye(6)) / 6, jnp.zeros(6))
    start = tg.ParallelTempering(jnp.linspace(0.0, 1.0, 4, dtype=jnp.float32))
    tuned = sampling.tune_ladder(start, energy, key=_key(0), n_sweeps=50)
    assert tuned.betas[0] == 0 and tuned.betas[-1] == 1
    assert np.all(np.diff(tuned.betas) > 0)


def _swap_rates(ladder, energy, n_sweeps):
    return tg.sample(
        ladder,
        energy,
        ladder.betas[-1],
        key=_key(1),
        n_chains=16,
        n_sweeps=n_sweeps,
        observers=sampling.Mean(lambda energy, info: info.acceptance, of="info"),
    )


def _exact_barrier(n, beta):
    """`int_0^beta E|E - E'| / 2` over independent draws of a Curie-Weiss magnet (Syed et al.)."""
    m = np.arange(-n, n + 1, 2)
    energies = -(m**2 - n) / (2 * n)
    log_count = -gammaln((n + m) / 2 + 1) - gammaln((n - m) / 2 + 1)
    betas = np.linspace(0, beta, 2001)
    p = softmax(log_count - betas[:, None] * energies, axis=1)
    gaps = np.abs(energies[:, None] - energies)
    return np.trapezoid(np.einsum("bi,bj,ij->b", p, p, gaps) / 2, betas)


@pytest.mark.further
@pytest.mark.parametrize("beta", [1.2, 1.9])
def test_a_ladder_that_is_found_has_twice_as_many_gaps_as_the_barrier_is_high(beta):
    n = 40
    energy = tg.Pairwise((1 - jnp.eye(n)) / n, jnp.zeros(n))
    found = sampling.find_ladder(energy, beta, key=_key(0), n_sweeps=1000)
    assert found.betas.size == np.ceil(2 * _exact_barrier(n, beta)) + 1
    assert found.betas[0] == 0 and found.betas[-1] == beta and np.all(np.diff(found.betas) > 0)
    rates = _swap_rates(found, energy, 1000)
    # From half upwards, since gaps are a whole number: with one more, the barrier is a bit lower.
    lowest = 1 - _exact_barrier(n, beta) / (found.betas.size - 1)
    assert np.all(np.abs(rates - lowest) < 0.07)


def test_a_ladder_of_spins_that_feel_nothing_has_its_ends_alone(unchecked):
    energy = tg.Pairwise(jnp.zeros((4, 4)), jnp.zeros(4))
    found = sampling.find_ladder(energy, 1.5, key=_key(0), n_sweeps=5, n_rounds=1)
    assert found.betas.tolist() == [0, 1.5]
    for beta in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="beta"):
            sampling.find_ladder(energy, beta, key=_key(0))
    with pytest.raises(ValueError, match="n_sweeps"):
        sampling.find_ladder(energy, 1.0, key=_key(0), n_sweeps=0)


@pytest.mark.further
@pytest.mark.parametrize("beta", [1e4, 1e6])
def test_a_ladder_into_the_cold_has_no_gap_that_nothing_crosses(beta):
    n = 40
    energy = tg.Pairwise((1 - jnp.eye(n)) / n, jnp.zeros(n))
    found = sampling.find_ladder(energy, beta, key=_key(0))
    rates = _swap_rates(found, energy, 500)
    assert np.all(rates > 0.25)


def test_a_ladder_is_not_found_by_halves(unchecked):
    n = 4
    couplings = jnp.asarray(1e38 * (1 - np.eye(n)), jnp.float32)
    huge = tg.Pairwise(couplings, jnp.zeros(n, jnp.float32))
    with pytest.raises(ValueError, match="energy: its values are too large"):
        sampling.find_ladder(huge, 1.0, key=_key(0), n_sweeps=5, n_rounds=1)
    free = tg.Pairwise(jnp.zeros((n, n)), jnp.zeros(n))
    with pytest.raises(TypeError, match="find_ladder cannot be traced"):
        jax.jit(lambda b: sampling.find_ladder(free, b, key=_key(0)).betas)(1.0)


def _torus(*shape):
    site = np.arange(math.prod(shape)).reshape(shape)
    couplings = np.zeros((site.size, site.size))
    for axis in range(site.ndim):
        couplings[site, np.roll(site, 1, axis)] = 1
    return couplings + couplings.T


def test_lattices_are_swept_by_colours_and_denser_graphs_by_blocks():
    upper = np.triu(np.random.default_rng(0).random((800, 800)) < 0.06, 1)
    for couplings, is_colored in [
        (_torus(12, 12), True),
        (_torus(8, 8), True),
        (_torus(6, 6), False),  # of 36 spins more than a twentieth
        (_torus(6, 6, 6), True),
        (upper + upper.T, False),
        (_torus(800) + np.eye(800, k=7) + np.eye(800, k=-7), True),
    ]:
        energy = tg.Pairwise(couplings.astype(float), np.zeros(len(couplings)))
        assert isinstance(sampling.colored(energy), tg.Interactions) == is_colored


def test_a_ladder_that_would_need_too_many_rungs_is_refused(monkeypatch):
    energy = tg.Pairwise(jnp.zeros((400, 400)), jnp.ones(400))
    monkeypatch.setattr(_tempering, "_MOST", 8)
    with pytest.raises(ValueError, match="more than 8 rungs are needed"):
        sampling.find_ladder(energy, 3.0, key=_key(0), n_sweeps=20, n_rounds=1)


@pytest.mark.slow
def test_ladder_of_a_tuned_sampler_has_uniform_swap_rates():
    n = 40
    energy = tg.Pairwise((1 - jnp.eye(n)) / n, jnp.zeros(n))
    start = tg.ParallelTempering(jnp.linspace(0.0, 2.0, 6) ** 2 / 2)
    tuned = sampling.tune_ladder(start, energy, key=_key(0), n_sweeps=1000)

    def spread(sampler):
        state = sampler.init(energy, 2.0, jnp.ones(n), _key(2))

        def move(state, key):
            return sampler.step(energy, 2.0, state, key)

        state, info = jax.lax.scan(move, state, jax.random.split(_key(3), 4000))
        assert state.round_trips > 10
        assert sorted(state.walkers.tolist()) == list(range(6))
        return np.std(np.mean(info.acceptance, axis=0, where=info.tried))

    assert tuned.betas[0] == 0
    assert tuned.betas[-1] == 2
    assert spread(tuned) < 0.03 < spread(start)
