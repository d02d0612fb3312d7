"""Every sampler against its enumerated transition matrix, and that against Boltzmann's law."""

import functools
import itertools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import thermogen as tg
from thermogen import sampling
from thermogen.sampling._clusters import exchange_cluster

BETA = 0.8
N_DRAWS = 20_000
# Odds of a false alarm that every bound below is derived from.
ALARM = 1e-9

SMALL = {
    **helpers.ENERGIES,
    "interactions": functools.partial(helpers.random_interactions, orders=(1, 2, 3)),
}
PAIRS = {
    "pairwise": helpers.random_pairwise,
    "rbm": helpers.random_rbm,
    "interactions": functools.partial(helpers.random_interactions, orders=(0, 1, 2)),
}
GRAPHS = {**PAIRS, "interactions": functools.partial(helpers.random_interactions, orders=(1, 3))}


def _key(i: int) -> jax.Array:
    return jax.random.key(i)


def _indices(spins) -> np.ndarray:
    """Numbers of configurations of the last axis; of pairs and ladders, replica 0 counts most."""
    bits = (np.asarray(spins) > 0).astype(int)
    numbers = bits @ (1 << np.arange(bits.shape[-1]))
    while numbers.ndim > 1:
        numbers = numbers @ (1 << bits.shape[-1]) ** np.arange(numbers.shape[-1])[::-1]
    return numbers


def _flip(p, k) -> np.ndarray:
    """Metropolis for spin k, which is proposed in 17 of 20 sweeps."""
    index = np.arange(len(p))
    accepted = 0.85 * np.minimum(1, p[index ^ (1 << k)] / p)
    matrix = np.diag(1 - accepted)
    matrix[index, index ^ (1 << k)] = accepted
    return matrix


def _metropolis(energy, beta) -> np.ndarray:
    """Spins of a layer see the same other layer: in turn or at once is the same."""
    p, _ = helpers.boltzmann(energy, beta)
    spins = itertools.chain(*helpers.layers(energy))
    return functools.reduce(np.matmul, [_flip(p, k) for k in spins])


def _pairs_and_fields(energy):
    """Couplings and fields by their definition: products of E with one and with two spins."""
    s, table = helpers.configurations(energy.n_spins), helpers.energy_table(energy)
    return -np.einsum("si,sj,s->ij", s, s, table) / len(s), -(s.T @ table) / len(s)


def _swendsen_wang(energy, beta, clamped=()) -> np.ndarray:
    n, s = energy.n_spins, helpers.configurations(energy.n_spins)
    couplings, fields = _pairs_and_fields(energy)
    bonds = [(i, j) for i, j in itertools.combinations(range(n), 2) if abs(couplings[i, j]) > 1e-12]
    matrix = np.zeros((len(s), len(s)))
    for start, spins in enumerate(s):
        gains = np.array([2 * beta * couplings[i, j] * spins[i] * spins[j] for i, j in bonds])
        odds = -np.expm1(-np.maximum(gains, 0))
        for chosen in itertools.product([False, True], repeat=len(bonds)):
            weight = np.prod(np.where(chosen, odds, 1 - odds))
            if weight == 0:
                continue
            graph = np.zeros((n, n))
            for (i, j), is_bound in zip(bonds, chosen, strict=True):
                graph[i, j] = is_bound
            n_clusters, labels = connected_components(graph, directed=False)
            pull = np.bincount(labels, fields * spins, n_clusters)
            for signs in itertools.product([1, -1], repeat=n_clusters):
                signs = np.array(signs)
                end = _indices(spins * signs[labels])
                odds_of_signs = 1 / (1 + np.exp(-2 * beta * pull * signs))
                odds_of_signs[labels[list(clamped)]] = signs[labels[list(clamped)]] > 0
                matrix[start, end] += weight * np.prod(odds_of_signs)
    return matrix


def _exchange(energy) -> np.ndarray:
    """Houdayer's move on pairs: the connected set of differing spins around a random one."""
    n, s = energy.n_spins, helpers.configurations(energy.n_spins)
    table = helpers.energy_table(energy)
    linked = np.zeros((n, n), bool)
    for bits in itertools.product([0, 1], repeat=n):
        set_ = np.flatnonzero(bits)
        if abs(np.mean(table * s[:, set_].prod(axis=1))) > 1e-12:
            linked[np.ix_(set_, set_)] = True
    matrix = np.zeros((len(s) ** 2, len(s) ** 2))
    for a, b in itertools.product(range(len(s)), repeat=2):
        start, differ = a * len(s) + b, s[a] != s[b]
        _, labels = connected_components(linked & np.outer(differ, differ), directed=False)
        for k in np.flatnonzero(differ):
            mask = sum(1 << i for i in np.flatnonzero(labels == labels[k]))
            matrix[start, (a ^ mask) * len(s) + (b ^ mask)] += 1 / differ.sum()
        matrix[start, start] += not differ.any()
    return matrix


def _swap(energy, betas, rung) -> np.ndarray:
    """Metropolis exchange of `rung` and the next, on ladders of configurations."""
    table, rungs = helpers.energy_table(energy), len(betas)
    ladders = np.array(list(itertools.product(range(len(table)), repeat=rungs)))
    change = (betas[rung + 1] - betas[rung]) * np.diff(table[ladders[:, rung : rung + 2]])[:, 0]
    accepted = np.minimum(1, np.exp(change))
    swapped = ladders.copy()
    swapped[:, [rung, rung + 1]] = ladders[:, [rung + 1, rung]]
    places = swapped @ len(table) ** np.arange(rungs)[::-1]
    matrix = np.diag(1 - accepted)
    matrix[np.arange(len(ladders)), places] += accepted
    return matrix


def _random_site(energy, beta, n_steps: int | None = None) -> np.ndarray:
    """A sweep, or so many steps, of the heat bath: each draws one random spin."""
    p, _ = helpers.boltzmann(energy, beta)
    n = energy.n_spins
    step = sum(helpers.heat_bath_matrix(p, (k,)) for k in range(n)) / n
    return np.linalg.matrix_power(step, n if n_steps is None else n_steps)


def _is_stationary(matrix, p) -> bool:
    return np.allclose(p @ matrix, p, rtol=0, atol=1e-14) and np.allclose(matrix.sum(axis=1), 1)


def _is_reversible(matrix, p) -> bool:
    flow = p[:, None] * matrix
    return np.allclose(flow, flow.T, rtol=0, atol=1e-14)


def _assert_drawn_from(matrix, ends) -> None:
    """All transition counts, as many draws from each start in turn, within Bernstein's bounds."""
    n_draws = len(ends) // len(matrix)
    expected = n_draws * matrix
    counts = np.zeros_like(expected)
    np.add.at(counts, (np.repeat(np.arange(len(matrix)), n_draws), ends), 1)
    variance = expected * (1 - matrix)
    log_odds = np.log(2 * expected.size / ALARM)
    bound = log_odds / 3 + np.sqrt((log_odds / 3) ** 2 + 2 * log_odds * variance)
    assert np.all(np.abs(counts - expected) <= bound)


@eqx.filter_jit
def _ends(sampler, energy, states, beta=BETA, clamp=None, n_draws=N_DRAWS):
    """`n_draws` steps from each of the states."""
    many = jax.tree.map(lambda x: jnp.repeat(x, n_draws, axis=0), states)
    keys = jax.random.split(_key(9), len(jax.tree.leaves(many)[0]))
    return jax.vmap(lambda x, k: sampler.step(energy, beta, x, k, clamp)[0])(many, keys)


class Hesitant(sampling.AbstractRule):
    """A parameter of its own: the share of its turns in which a spin is proposed to flip."""

    share: float

    def variate(self, words, dtype):
        return jnp.log(self.share) - jnp.log(sampling.open_uniform(words, dtype))

    def never(self, spin):
        return jnp.full_like(spin, -jnp.inf)

    def __call__(self, field, spin, threshold):
        return jnp.where(jnp.maximum(spin * field, 0) < threshold, -spin, spin)


class Swept(sampling.AbstractKernel):
    """A kernel of a rule."""

    rule: sampling.AbstractRule

    def step(self, energy, beta, state, key, clamp=None):
        return sampling.sweep(self.rule, energy, beta, state, key, clamp)


KERNELS = [
    (Swept(helpers.BelowUniform()), helpers.gibbs_matrix, "pairwise", SMALL),
    (Swept(helpers.BelowUniform()), helpers.gibbs_matrix, "rbm", SMALL),
    (Swept(Hesitant(0.85)), _metropolis, "pairwise", SMALL),
    *((tg.Gibbs(), helpers.gibbs_matrix, name, SMALL) for name in SMALL),
    *((tg.Metropolis(), _metropolis, name, SMALL) for name in SMALL),
    *((tg.HeatBath(), _random_site, name, SMALL) for name in SMALL),
    *((sampling.SwendsenWang(), _swendsen_wang, name, PAIRS) for name in PAIRS),
]


@pytest.mark.further
@pytest.mark.parametrize(("kernel", "reference", "name", "energies"), KERNELS)
def test_kernels(kernel, reference, name, energies):
    energy = energies[name](4, _key(4), scale=1.5)
    p, _ = helpers.boltzmann(energy, BETA)
    matrix = reference(energy, BETA)
    assert _is_stationary(matrix, p)
    reversible = isinstance(kernel, sampling.SwendsenWang | tg.HeatBath)
    assert _is_reversible(matrix, p) == reversible
    # Not the trivial matrix that forgets its start: the comparison can tell kernels apart.
    assert np.abs(matrix - p).max() > 0.05
    starts = jnp.asarray(helpers.configurations(4), float)
    _assert_drawn_from(matrix, _indices(_ends(kernel, energy, starts)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kernel", [tg.Gibbs(), tg.Metropolis()], ids=["Gibbs", "Metropolis"])
def test_a_single_chain(kernel, dtype):
    """One after the other, as a chain without others is swept."""
    energy, n_draws = helpers.random_pairwise(3, _key(4), scale=1.5), 4000
    reference = helpers.gibbs_matrix if isinstance(kernel, tg.Gibbs) else _metropolis
    matrix = reference(energy, BETA)
    energy = jax.tree.map(lambda x: x.astype(dtype), energy)
    starts = jnp.asarray(np.repeat(helpers.configurations(3), n_draws, axis=0), dtype)

    @jax.jit
    def ends(starts, keys):
        step = lambda x: kernel.step(energy, BETA, *x)[0]  # noqa: E731
        return jax.lax.map(step, (starts, keys))

    found = ends(starts, jax.random.split(_key(9), len(starts)))
    assert found.dtype == dtype
    _assert_drawn_from(matrix, _indices(found))


@pytest.mark.parametrize("name", SMALL)
def test_walks_that_share_their_sites(name):
    """Given the sites, some drawn again and some left out, against the product of the steps."""
    energy, n_draws = SMALL[name](4, _key(4), scale=1.5), 4000
    p, _ = helpers.boltzmann(energy, BETA)
    sites = np.random.default_rng(1).integers(0, 4, (2, 8))
    assert np.any(sites[:, 1:] == sites[:, :-1])
    live = np.ones((2, 8), bool)
    live[0, 3] = live[1, 5:] = False
    steps = [helpers.heat_bath_matrix(p, (k,)) for k in sites[live]]
    starts = np.repeat(helpers.configurations(4), n_draws, axis=0)
    rule, key = sampling.HeatBathRule(), _key(3)

    def draw(b):
        words = jax.random.bits(jax.random.fold_in(key, b), (8, len(starts)), "uint32")
        thresholds = rule.variate(words, jnp.dtype(float))
        return sampling.Steps(jnp.asarray(sites)[b], jnp.asarray(live)[b], thresholds)

    beta = jnp.full(len(starts), BETA)
    walked = jax.jit(lambda s: sampling.walk_population(energy, beta, s, draw, 2))(starts.T)
    _assert_drawn_from(functools.reduce(np.matmul, steps), _indices(walked.T))


def test_uniform_numbers_are_the_words_rounded():
    """By halves, of which each converts fast, as at once: NumPy rounds to the nearest as well."""
    words = jax.random.bits(jax.random.key(0), (1 << 16,), jnp.uint32)
    words = words.at[:4].set(jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32))
    for dtype in (np.float32, np.float64):
        expected = (np.asarray(words).astype(dtype) + dtype(0.5)) * dtype(2.0**-32)
        np.testing.assert_array_equal(sampling.open_uniform(words, jnp.dtype(dtype)), expected)


@pytest.mark.parametrize("n_steps", [5, 40])
def test_walks_of_any_length(n_steps):
    """Sites differ between walks: many of one replica each are the mean over them."""
    energy, n_draws = helpers.random_pairwise(4, _key(4), scale=1.5), 4000
    starts = jnp.asarray(np.repeat(helpers.configurations(4), n_draws, axis=0), float)

    @jax.jit
    @jax.vmap
    def walk(spins, key):
        site_key, key = jax.random.split(key)
        beta = jnp.full(1, BETA)
        return sampling.walk(energy, beta, spins[:, None], site_key, key[None], n_steps, block=8)

    ends = walk(starts, jax.random.split(_key(5), len(starts)))[..., 0]
    _assert_drawn_from(_random_site(energy, BETA, n_steps), _indices(ends))


@pytest.mark.parametrize(
    "rule",
    [sampling.HeatBathRule(), sampling.MetropolisRule(), helpers.BelowUniform(), Hesitant(0.9)],
    ids=lambda rule: type(rule).__name__,
)
def test_rules_hold_clamped_spins(rule):
    energy, start = helpers.random_pairwise(4, _key(4)), jnp.array([1.0, -1.0, 1.0, -1.0])
    clamp = jnp.array([1.0, -1.0, 0.0, 0.0])
    keys = jax.random.split(_key(0), 64)
    ends, _ = jax.vmap(lambda k: sampling.sweep(rule, energy, 0.3, start, k, clamp))(keys)
    np.testing.assert_array_equal(ends[:, :2], np.tile(start[:2], (64, 1)))
    assert np.all(np.std(ends[:, 2:], axis=0) > 0.5)


def _coupled(signs, n=4) -> tg.Pairwise:
    """Couplings +-1 of the pairs that are named, and no fields."""
    couplings = np.zeros((n, n))
    for pair, sign in signs.items():
        couplings[pair] = couplings[pair[::-1]] = sign
    return tg.Pairwise(couplings, np.zeros(n))


RING = [(0, 1), (1, 2), (2, 3), (0, 3)]
EVEN = {(): 1.0, (0, 1): 1.0, (1, 2): -1.0, (0, 1, 2, 3): 1.0}
# Flips that cost nothing, or cancel: always accepted, they would make the chain a clock.
DEGENERATE = {
    "free": _coupled({}),
    "ring": _coupled(dict.fromkeys(RING, 1.0)),
    "antiferromagnetic ring": _coupled(dict.fromkeys(RING, -1.0)),
    "frustrated ring": _coupled(dict.fromkeys(RING, 1.0) | {(0, 3): -1.0}),
    "ferromagnet": _coupled(dict.fromkeys(itertools.combinations(range(4), 2), 1.0)),
    "machine": tg.RBM(np.array([[1.0, -1.0], [1.0, 1.0]]), np.zeros(2), np.zeros(2)),
    "free machine": tg.RBM(np.zeros((2, 2)), np.zeros(2), np.zeros(2)),
    "even orders": tg.Interactions.from_terms(4, EVEN),
    "table of zeros": tg.Complete(jnp.zeros(16)),
}
REFERENCES = {tg.Gibbs(): helpers.gibbs_matrix, tg.Metropolis(): _metropolis}


def _is_ergodic(matrix) -> bool:
    """Irreducible and aperiodic: after finitely many sweeps everything leads everywhere."""
    reached = np.linalg.matrix_power((matrix > 0).astype(float), len(matrix))
    return bool(np.all(reached > 0))


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("kernel", REFERENCES)
def test_single_spin_kernels_are_ergodic(kernel, name):
    """Even in one sweep, at every beta; a rule that always accepts is not."""
    energy = DEGENERATE[name]
    starts = jnp.asarray(helpers.configurations(4), float)
    for beta in (0.0, 0.05, 2.0):
        p, _ = helpers.boltzmann(energy, beta)
        matrix = REFERENCES[kernel](energy, beta)
        assert _is_stationary(matrix, p)
        assert np.all(matrix > 0)
        _assert_drawn_from(matrix, _indices(_ends(kernel, energy, starts, jnp.asarray(beta))))


def test_the_test_of_ergodicity_can_fail():
    always = [np.eye(16)[np.arange(16) ^ (1 << k)] for k in range(4)]
    assert not _is_ergodic(functools.reduce(np.matmul, always))
    assert _is_ergodic(helpers.gibbs_matrix(DEGENERATE["ring"], 1.0))


@pytest.mark.further
@pytest.mark.parametrize("name", [n for n, e in DEGENERATE.items() if isinstance(e, tg.Pairwise)])
@pytest.mark.parametrize("clamped", [(), (1,)])
def test_clusters_are_ergodic(name, clamped):
    """Also with a spin held, among the configurations in which it keeps its value."""
    energy, s = DEGENERATE[name], helpers.configurations(4)
    kept = np.flatnonzero(np.all(s[:, list(clamped)] == 1, axis=1))
    p = helpers.boltzmann(energy, BETA)[0][kept]
    matrix = _swendsen_wang(energy, BETA, clamped)[np.ix_(kept, kept)]
    assert _is_stationary(matrix, p / p.sum())
    assert np.all(matrix > 0)
    held = jnp.zeros(4).at[np.array(clamped, int)].set(1)
    ends = _indices(_ends(sampling.SwendsenWang(), energy, jnp.asarray(s[kept]), BETA, held))
    _assert_drawn_from(matrix, np.searchsorted(kept, ends))


TRIANGLES = {
    "free": tg.Interactions.from_terms(3, {(0,): 0.0}),
    "ferromagnet": _coupled({(0, 1): 1.0, (1, 2): 1.0, (0, 2): 1.0}, 3),
    "frustrated": _coupled({(0, 1): -1.0, (1, 2): -1.0, (0, 2): -1.0}, 3),
}


@pytest.mark.further
@pytest.mark.parametrize("name", TRIANGLES)
@pytest.mark.parametrize("kernel", REFERENCES)
def test_replicas_are_ergodic(kernel, name):
    """Houdayer's pairs, and ladders from infinite temperature, over both kernels."""
    energy = TRIANGLES[name]
    for sampler in (sampling.Houdayer(kernel), tg.ParallelTempering([0.0, BETA], kernel)):
        if isinstance(sampler, sampling.Houdayer):
            rungs, last = [BETA, BETA], _exchange(energy)
        else:
            rungs, last = [0.0, BETA], _swap(energy, [0.0, BETA], rung=0)
        p = functools.reduce(np.kron, [helpers.boltzmann(energy, b)[0] for b in rungs])
        moves = [REFERENCES[kernel](energy, b) for b in rungs]
        matrix = np.kron(*moves) @ last
        assert _is_stationary(matrix, p)
        assert np.all(matrix > 0)
        _assert_drawn_from(matrix, _ends_of_pairs(sampler, energy, n_draws=N_DRAWS // 5))


def _ends_of_pairs(sampler, energy, n_draws=N_DRAWS) -> np.ndarray:
    s = helpers.configurations(energy.n_spins)
    pairs = jnp.asarray([[a, b] for a in s for b in s], float)
    state = sampler.init(energy, BETA, pairs[0, 0], _key(0))
    if isinstance(sampler, sampling.Houdayer):
        return _indices(_ends(sampler, energy, pairs, n_draws=n_draws))
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(pairs), *x.shape)), state)
    states = states._replace(replicas=pairs)
    return _indices(_ends(sampler, energy, states, n_draws=n_draws).replicas)


@pytest.mark.parametrize("rule", [lambda p, k: helpers.heat_bath_matrix(p, (k,)), _flip])
@pytest.mark.parametrize("name", SMALL)
def test_updates_of_one_spin_are_reversible(name, rule):
    """The factors of a sweep each keep detailed balance, though the sweep does not."""
    energy = SMALL[name](6, _key(6), scale=1.5)
    p, _ = helpers.boltzmann(energy, BETA)
    for k in range(6):
        assert _is_reversible(rule(p, k), p)


@pytest.mark.further
@pytest.mark.parametrize("name", GRAPHS)
def test_houdayer(name):
    """On pairs of three spins: a sweep of both, then the exchange, which is reversible."""
    energy = GRAPHS[name](3, _key(3), scale=1.5)
    p, _ = helpers.boltzmann(energy, BETA)
    pair = np.kron(p, p)
    exchange, sweep = _exchange(energy), helpers.gibbs_matrix(energy, BETA)
    assert _is_reversible(exchange, pair)
    # Both replicas have one law, and any pair of them is as likely as the exchanged one.
    matrix = np.kron(sweep, sweep) @ exchange
    assert _is_stationary(matrix, pair)
    _assert_drawn_from(matrix, _ends_of_pairs(sampling.Houdayer(), energy))


@pytest.mark.further
@pytest.mark.parametrize("name", GRAPHS)
def test_exchange_of_clusters_keeps_the_energy(name):
    energy = GRAPHS[name](6, _key(5))
    pairs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (500, 2, 6)))
    keys = jax.random.split(_key(0), 500)
    moved = jax.vmap(exchange_cluster, in_axes=(None, 0, 0))(energy, pairs, keys)
    assert np.any(moved != pairs)
    np.testing.assert_array_equal(moved.sum(axis=1), pairs.sum(axis=1))
    total = jax.vmap(lambda x: jnp.sum(jax.vmap(energy)(x)))
    np.testing.assert_allclose(total(moved), total(pairs), atol=1e-12)


@pytest.mark.further
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kernel", [tg.Gibbs(), tg.Metropolis()])
def test_tempering_of_two_rungs(kernel, name):
    energy = SMALL[name](3, _key(3), scale=1.5)
    _check_tempering(kernel, energy, np.array([0.3, BETA]), sweeps=0)


@pytest.mark.further
@pytest.mark.parametrize("sweeps", [0, 1])
def test_tempering_swaps_even_and_odd_pairs_in_turn(sweeps):
    energy = helpers.random_pairwise(2, _key(3), scale=2.0)
    _check_tempering(tg.Gibbs(), energy, np.array([0.1, 0.4, BETA]), sweeps)


def _check_tempering(kernel, energy, betas, sweeps):
    n_rungs, n_states = len(betas), 2**energy.n_spins
    reference = helpers.gibbs_matrix if isinstance(kernel, tg.Gibbs) else _metropolis
    p = functools.reduce(np.kron, [helpers.boltzmann(energy, b)[0] for b in betas])
    move = functools.reduce(np.kron, [reference(energy, b) for b in betas])
    swap = _swap(energy, betas, rung=sweeps % 2)
    assert _is_reversible(swap, p)
    assert _is_stationary(move @ swap, p)

    sampler = tg.ParallelTempering(betas, kernel)
    s = helpers.configurations(energy.n_spins)
    ladders = np.array(list(itertools.product(range(n_states), repeat=n_rungs)))
    state = sampler.init(energy, BETA, jnp.asarray(s[0], float), _key(0))
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(ladders), *x.shape)), state)
    states = states._replace(
        replicas=jnp.asarray(s[ladders], float), sweeps=jnp.full(len(ladders), sweeps)
    )
    _assert_drawn_from(move @ swap, _indices(_ends(sampler, energy, states).replicas))


@pytest.mark.parametrize(
    ("sampler", "energy", "message"),
    [
        (sampling.SwendsenWang(), "complete", "SwendsenWang needs .* got Complete"),
        (
            sampling.SwendsenWang(),
            "interactions",
            r"up to 2 spins, got Interactions with orders \[0, 1, 2, 3, 4\]",
        ),
        (sampling.Houdayer(), "complete", "Houdayer needs .* got Complete"),
    ],
)
def test_cluster_moves_name_what_they_cannot_do(sampler, energy, message):
    energy = helpers.ENERGIES[energy](5, _key(0))
    state = sampler.init(energy, 1.0, jnp.ones(5), _key(0))
    with pytest.raises(TypeError, match=message):
        sampler.step(energy, 1.0, state, _key(0))
