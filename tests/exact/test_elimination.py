"""Exact results by elimination against enumeration, transfer matrices and closed forms."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import boltzmann_table, compilations, every_quantity, exact_quantities, random_rbm

import thermogen as tg
from thermogen import exact
from thermogen.energies import Clamped
from thermogen.exact import _cost, _ensembles, _orders

N = 9
BETAS = np.array([0.0, 1e-3, 0.7, 5.0, 50.0])
COLD = 1e200
CUE = np.array([1, 0, 0, -1, 0, 0, 0, 0, 1])


@pytest.fixture
def eliminates(monkeypatch):
    """Elimination for the smallest models, too."""
    monkeypatch.setattr(_cost, "_FEW", -1)
    monkeypatch.setattr(_cost, "_MAX_ENUMERATED", -1)
    monkeypatch.setattr(_ensembles, "layers", lambda energy: None)


def sparse(seed, n=N, orders=(1, 2, 3), n_terms=7, draw=np.random.Generator.normal):
    """Some terms of each order, and a constant."""
    rng = np.random.default_rng(seed)
    sets = [np.zeros((1, 0), int)]
    for order in orders:
        some = {tuple(sorted(rng.choice(n, order, replace=False))) for _ in range(n_terms)}
        sets.append(np.array(sorted(some)))
    return tg.Interactions(n, sets, [draw(rng, size=len(table)) for table in sets])


def signs(rng, size):
    return rng.choice([-1.0, 1.0], size)


def biased(rng, size):
    """Couplings of one sign, so that nearly all spins are up."""
    return rng.normal(1.5, 0.5, size)


def lattice(rows, columns, *, periodic=False, seed=None, fields=0.0):
    """A square lattice; the couplings are 1 without a seed, else Gaussian."""
    site = np.arange(rows * columns).reshape(rows, columns)
    along, across = np.roll(site, -1, 1), np.roll(site, -1, 0)
    keep = slice(None) if periodic else slice(-1)
    bonds = [(site[:, keep], along[:, keep]), (site[keep], across[keep])]
    bonds = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in bonds])
    rng = np.random.default_rng(seed)
    couplings = np.ones(len(bonds)) if seed is None else rng.normal(size=len(bonds))
    h = np.full(site.size, fields) if seed is None else fields * rng.normal(size=site.size)
    return tg.Interactions(site.size, [site.reshape(-1, 1), bonds], [h, couplings])


def transfer_matrix(energy, rows, columns, beta):
    """ln Z of an open lattice, spin after spin of each row, in NumPy."""
    h, j = (beta * np.asarray(c) for c in energy.couplings)
    along, across = np.split(j, [rows * (columns - 1)])
    h, along = h.reshape(rows, columns), along.reshape(rows, columns - 1)
    across = across.reshape(rows - 1, columns)
    up = np.array([-1.0, 1.0])
    table = np.zeros((2,) * columns)
    for r in range(rows):
        for c in range(columns):
            # Axis c is spin c of the row above, then that of this row.
            if r > 0:
                table = np.moveaxis(table, c, -1)
                kernel = up[:, None] * up * across[r - 1, c]
                down, upper = (table[..., :1] + kernel[0], table[..., 1:] + kernel[1])
                table = np.moveaxis(np.logaddexp(down, upper), -1, c)
            shape = [1] * columns
            shape[c] = 2
            table = table + (up * h[r, c]).reshape(shape)
            if c > 0:
                shape[c - 1] = 2
                table = table + (up[:, None] * up * along[r, c - 1]).reshape(shape)
    return scipy.special.logsumexp(table)


MODELS = {
    "terms": lambda: sparse(0),
    "pairs": lambda: tg.Pairwise(
        *(lambda j, h: (np.triu(j, 1) + np.triu(j, 1).T, h))(
            *(np.random.default_rng(1).normal(size=s) for s in ((N, N), N))
        )
    ),
    "machine": lambda: random_rbm(N, jax.random.key(2)),
    "clamped": lambda: Clamped(sparse(3), CUE),
    "symmetric": lambda: lattice(3, 3),
    "degenerate": lambda: sparse(4, orders=(2,), n_terms=14, draw=signs),
}


# Graphs, and how many models of each: their numbers differ, so a graph is compiled once.
FAMILIES = {
    "terms": (lambda: sparse(6, n=12, orders=(1, 2, 3, 4)), 60),
    "pairs": (lambda: sparse(8, n=14, orders=(1, 2), n_terms=18), 45),
    "machine": (lambda: tg.RBM(np.zeros((12, 3)), np.zeros(12), np.zeros(3)), 45),
    "clamped": (lambda: sparse(9, n=13, orders=(1, 2, 3, 4)), 45),
    "large": (lambda: sparse(7, n=18, orders=(1, 2, 3, 4), n_terms=9), 5),
}


def random_models(name):
    """Models of one family: Gaussian, degenerate and biased numbers in turn."""
    rng, (graph, count) = np.random.default_rng(0), FAMILIES[name]
    draws = itertools.cycle([np.random.Generator.normal, signs, biased])
    for draw in itertools.islice(draws, count):
        energy = jax.tree.map(lambda x, draw=draw: draw(rng, size=x.shape), graph())
        if name == "pairs":
            j, bonds = np.zeros((energy.n_spins,) * 2), energy.sets[2].indices
            j[tuple(bonds.T)] = j[tuple(bonds.T[::-1])] = energy.couplings[2]
            energy = tg.Pairwise(j, draw(rng, size=energy.n_spins))
        if name == "clamped":
            energy = Clamped(energy, rng.choice([-1, 0, 0, 1], energy.n_spins))
        yield energy


def compare(found, energy):
    for i, beta in enumerate(BETAS):
        expected = exact_quantities(energy, beta)
        for quantity, values in found.items():
            np.testing.assert_allclose(
                values[i], expected[quantity], rtol=1e-12, atol=1e-12, err_msg=f"{quantity}, {beta}"
            )


@pytest.mark.further
@pytest.mark.parametrize("name", list(MODELS))
def test_every_quantity_is_that_of_enumeration(name, eliminates):
    energy = MODELS[name]()
    found = jax.vmap(lambda beta: every_quantity(energy, beta))(BETAS)
    compare(found, energy)


@pytest.mark.further
@pytest.mark.parametrize("name", FAMILIES)
def test_two_hundred_random_models_are_those_of_enumeration(name, eliminates):
    names = ("log_partition", "magnetizations", "mean_energy", "entropy")

    def some(energy, beta):
        return {name: getattr(exact, name)(energy, beta) for name in names}

    for energy in random_models(name):
        assert exact.cost(energy).method == "elimination"
        compare(jax.vmap(functools.partial(some, energy))(BETAS), energy)


def test_means_and_entropy_are_those_of_enumeration(eliminates):
    energy = MODELS["clamped"]()
    for beta in (0.0, 50.0):
        expected = exact_quantities(energy, beta)
        for quantity in ("magnetizations", "entropy"):
            found = getattr(exact, quantity)(energy, beta)
            np.testing.assert_allclose(found, expected[quantity], rtol=1e-12, atol=1e-12)


@pytest.mark.further
def test_derivatives_to_second_order_are_those_of_enumeration(monkeypatch):
    energy, beta = sparse(5), 0.8

    def value(energy, beta):
        return exact.log_partition(energy, beta)

    def curvature(energy, beta):
        first = jax.grad(value)(energy, beta)
        along = jax.jvp(lambda e: jax.grad(value)(e, beta), (energy,), (energy,))[1]
        return first, jax.grad(lambda e: jax.grad(value, 1)(e, beta))(energy), along

    expected = jax.jit(curvature)(energy, beta)
    monkeypatch.setattr(_cost, "_FEW", -1)
    monkeypatch.setattr(_cost, "_MAX_ENUMERATED", -1)
    found = jax.jit(lambda *args: curvature(*args))(energy, beta)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_strip_against_its_transfer_matrix(caplog):
    energy = lattice(30, 5, seed=0, fields=0.4)
    assert exact.cost(energy)[:4] == ("elimination", 5, 32, 150)
    for beta in (0.3, 20.0):
        expected = transfer_matrix(energy, 30, 5, beta)
        np.testing.assert_allclose(exact.log_partition(energy, beta), expected, rtol=1e-13)
    with compilations(caplog) as names:
        value = exact.log_partition(jax.tree.map(lambda x: 2 * x, energy), 10.0)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    assert not any("log_partition" in name for name in names)  # new numbers, the same program


@pytest.mark.further
def test_single_precision_is_that_of_its_sums():
    energy = lattice(30, 5, seed=0, fields=0.4)
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), energy)
    for beta in (0.3, 20.0):
        expected = transfer_matrix(energy, 30, 5, beta)
        np.testing.assert_allclose(exact.log_partition(single, beta), expected, rtol=1e-6)
        means = exact.magnetizations(single, beta)
        np.testing.assert_allclose(means, exact.magnetizations(energy, beta), rtol=0, atol=2e-5)


@pytest.mark.slow
def test_square_lattice_of_400_spins_against_its_transfer_matrix():
    energy = lattice(20, 20, seed=1, fields=0.3)
    assert exact.cost(energy).width == 20
    expected = transfer_matrix(energy, 20, 20, 0.7)
    np.testing.assert_allclose(exact.log_partition(energy, 0.7), expected, rtol=1e-13)


@pytest.mark.slow
def test_long_strip_against_its_transfer_matrix():
    energy = lattice(1000, 12, seed=2, fields=0.3)
    assert exact.cost(energy).width == 12
    expected = transfer_matrix(energy, 1000, 12, 0.7)
    np.testing.assert_allclose(exact.log_partition(energy, 0.7), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [5, pytest.param(9, marks=pytest.mark.further)])
def test_ferromagnet_on_a_torus_against_its_closed_form(size):
    """Kaufman, Phys. Rev. 76, 1232 (1949)."""
    for beta in (0.1, 0.4406867935097715, 1.0):
        value = exact.log_partition(lattice(size, size, periodic=True), beta)
        np.testing.assert_allclose(value, kaufman(size, beta), rtol=1e-12)


def kaufman(size, beta):
    """ln Z of the ferromagnet on a torus of size x size spins."""
    k = np.arange(2 * size)
    waves = np.cosh(2 * beta) / np.tanh(2 * beta) - np.cos(np.pi * k / size)
    gamma = np.arccosh(np.maximum(waves, 1))
    gamma[0] = 2 * beta + np.log(np.tanh(beta))
    log_cosh = np.logaddexp(size * gamma / 2, -size * gamma / 2)
    with np.errstate(divide="ignore"):
        log_sinh = size * np.abs(gamma) / 2 + np.log(-np.expm1(-size * np.abs(gamma)))
    parts = [log_cosh[1::2], log_sinh[1::2], log_cosh[::2], log_sinh[::2]]
    signs = [1, 1, 1, np.sign(gamma[0])]
    half = size**2 / 2 * np.log(2 * np.sinh(2 * beta)) - np.log(2)
    return half + scipy.special.logsumexp([part.sum() for part in parts], b=signs)


def tree(n, seed):
    """A random tree: each spin hangs on one before it."""
    rng = np.random.default_rng(seed)
    parents = rng.integers(0, np.arange(1, n))
    bonds = np.stack([np.arange(1, n), parents], axis=1)
    bonds = rng.permutation(n)[bonds]
    return tg.Interactions(n, [bonds], [rng.normal(size=n - 1)])


def tree_log_partition(energy, beta):
    x = beta * np.asarray(energy.couplings[0])
    return math.log(2) + np.logaddexp(x, -x).sum()


@pytest.mark.further
def test_correlations_on_a_tree_are_products_along_the_path():
    energy = tree(60, 0)
    first, second = energy.sets[0].indices.T
    step = np.zeros((60, 60))
    step[first, second] = step[second, first] = np.tanh(0.9 * np.asarray(energy.couplings[0]))
    expected = np.eye(60)
    for _ in range(60):  # walks that never turn back: the largest in size are paths
        longer = step[:, :, None] * expected[None]
        best = np.argmax(np.abs(longer), axis=1)
        longer = np.take_along_axis(longer, best[:, None], axis=1)[:, 0]
        expected = np.where(np.abs(longer) > np.abs(expected), longer, expected)
    np.testing.assert_allclose(exact.correlations(energy, 0.9), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        exact.log_partition(energy, 0.9), tree_log_partition(energy, 0.9), rtol=1e-13
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chain", "tree"])
def test_a_hundred_thousand_spins_against_the_closed_form(kind):
    energy = tree(100_000, 1)
    if kind == "chain":
        bonds = np.stack([np.arange(99_999), np.arange(1, 100_000)], axis=1)
        energy = tg.Interactions(100_000, [bonds], energy.couplings)
    assert exact.cost(energy).width <= 9
    expected = tree_log_partition(energy, 0.7)
    np.testing.assert_allclose(exact.log_partition(energy, 0.7), expected, rtol=1e-12)
    slope = jax.grad(lambda e: exact.log_partition(e, 0.7))(energy)
    means = np.tanh(0.7 * np.asarray(energy.couplings[0]))
    np.testing.assert_allclose(slope.couplings[0], 0.7 * means, rtol=0, atol=1e-12)


@pytest.mark.further
def test_thin_machine_is_summed_out_from_its_large_layer():
    rng = np.random.default_rng(0)
    machine = tg.RBM(0.3 * rng.normal(size=(40, 4)), rng.normal(size=40), rng.normal(size=4))
    assert exact.cost(machine).width == 4
    means = jax.grad(lambda e: exact.log_partition(e, 1.3))(machine)  # by enumeration of a layer
    expected = np.concatenate([means.visible_fields, means.hidden_fields]) / 1.3
    np.testing.assert_allclose(exact.magnetizations(machine, 1.3), expected, rtol=0, atol=1e-13)


def test_instances_and_betas_are_mapped():
    rng = np.random.default_rng(0)
    energies = [lattice(9, 3, seed=seed, fields=0.5) for seed in rng.integers(0, 99, 2)]
    many = jax.tree.map(lambda *x: jnp.stack(x), *energies)
    found = jax.vmap(lambda e: jax.vmap(lambda b: exact.log_partition(e, b))(BETAS))(many)
    expected = [[transfer_matrix(e, 9, 3, b) for b in BETAS] for e in energies]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_cold_ends_in_the_ground_states():
    energy = lattice(9, 3)  # two ground states, with all of 42 bonds satisfied
    n_bonds = len(energy.sets[1])
    assert exact.free_energy(energy, COLD) == exact.mean_energy(energy, COLD) == -n_bonds
    np.testing.assert_allclose(exact.entropy(energy, COLD), math.log(2), rtol=1e-15)
    assert exact.heat_capacity(energy, COLD) == 0
    np.testing.assert_allclose(exact.magnetizations(energy, COLD), 0, atol=1e-15)


# --- configurations


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.further) for name in MODELS if name != "clamped"]
    + ["clamped"],
)
def test_samples_follow_the_boltzmann_distribution(name, eliminates):
    energy, beta, n_samples = MODELS[name](), 0.1, 100_000
    drawn = exact.sample(energy, beta, key=jax.random.key(0), n_samples=n_samples)
    counts = np.bincount(tg.index_from_spins(drawn), minlength=2**N)
    expected = n_samples * scipy.special.softmax(-beta * boltzmann_table(energy))
    assert expected.min() > 5  # or the statistic is no chi-square
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < scipy.stats.chi2(2**N - 1).isf(1e-3)


@pytest.mark.further
def test_samples_of_a_strip_have_its_means():
    energy, n_samples = lattice(30, 5, seed=0, fields=0.4), 4000
    drawn = exact.sample(energy, 0.8, key=jax.random.key(1), n_samples=n_samples)
    means, bonds = exact.magnetizations(energy, 0.8), energy.sets[1].indices
    slope = jax.grad(lambda e: exact.log_partition(e, 0.8))(energy).couplings[1] / 0.8
    for x, m in ((drawn, means), (drawn[:, bonds].prod(axis=2), slope)):
        z = (x.mean(axis=0) - m) / np.sqrt((1 - m**2) / n_samples + 1e-12)
        assert np.max(np.abs(z)) < 4.5 and 0.8 < np.std(z) < 1.2


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.further) for name in MODELS if name != "terms"]
    + ["terms"],
)
def test_lowest_configurations_are_those_of_enumeration(name, monkeypatch):
    energy, count = MODELS[name](), 7
    expected = exact.lowest(energy, count)
    monkeypatch.setattr(_cost, "_FEW", -1)
    monkeypatch.setattr(_cost, "_MAX_ENUMERATED", -1)
    found = exact.lowest(energy, count)
    np.testing.assert_allclose(found.energies, expected.energies, rtol=1e-13)
    np.testing.assert_allclose(jax.vmap(energy)(found.spins), found.energies, rtol=1e-13)
    assert len(np.unique(np.asarray(found.spins), axis=0)) == count
    if name == "clamped":
        np.testing.assert_array_equal(found.spins[:, CUE != 0], np.tile(CUE[CUE != 0], (count, 1)))


@pytest.mark.further
def test_lowest_configurations_end_where_there_are_no_more(eliminates):
    clamp = np.where(np.arange(N) < N - 1, 1, 0)
    found = exact.lowest(Clamped(sparse(3), clamp), 3)
    np.testing.assert_array_equal(np.isfinite(found.energies), [True, True, False])


def test_ground_state_of_a_glass_is_that_of_the_cold():
    energy = tg.Interactions(
        150, lattice(30, 5).sets, [np.zeros(150), signs(np.random.default_rng(3), 265)]
    )
    found = exact.lowest(energy)
    assert found.energies[0] == exact.free_energy(energy, COLD)


# --- what it takes, and what it refuses


@pytest.mark.further
def test_zero_couplings_of_pairs_are_no_interactions():
    bonds = lattice(30, 1, seed=3).sets[1].indices
    j = np.zeros((30, 30))
    j[tuple(bonds.T)] = j[tuple(bonds.T[::-1])] = 0.4
    energy = tg.Pairwise(j, np.zeros(30))
    assert exact.cost(energy).width == 1
    slope = jax.grad(lambda beta: exact.log_partition(energy, beta))(2.0)
    np.testing.assert_allclose(slope, 29 * 0.4 * np.tanh(0.8), rtol=1e-13)
    with pytest.raises(TypeError, match="derivatives by those that are 0 do not vanish.*Interacti"):
        jax.grad(lambda e: exact.log_partition(e, 1.0))(energy)


def test_a_wide_model_is_refused_with_its_width():
    rng = np.random.default_rng(0)
    j = np.triu(rng.normal(size=(40, 40)), 1)
    energy = tg.Pairwise(j + j.T, np.zeros(40))
    assert exact.cost(energy).width == 39
    with pytest.raises(ValueError, match=r"too wide .* 40 spins 39 have to be kept .* TAP\(\)"):
        exact.free_energy(energy, 1.0)
    experts = jax.tree.map(lambda x: jnp.stack([x, x]), energy)
    mixture = tg.Mixture(experts, np.zeros(2), np.zeros(2))
    with pytest.raises(TypeError, match="at most 24 spins to be enumerated, or terms"):
        exact.cost(mixture)


@pytest.mark.parametrize("seed", range(4))
def test_widths_count_the_frontier(seed):
    """By the definition: what shares a term with a spin that is gone, and is not gone itself."""
    energy = sparse(seed, n=14, orders=(2, 3), n_terms=9)
    tables = [table.indices for table in energy.sets if table.order]
    terms = [set(row) for table in tables for row in table.tolist()]
    order, width = _orders.elimination_order(14, tables)
    gone, largest = set(), 0
    for k in order.tolist():
        gone.add(k)
        touched = set().union(*(term for term in terms if term & gone))
        largest = max(largest, len(touched - gone))
    assert sorted(order) == list(range(14)) and width == largest
