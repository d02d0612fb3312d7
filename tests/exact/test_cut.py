"""Exact results with cut spins against enumeration, plain elimination and sums over the cut."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import boltzmann_table, compilations, every_quantity, exact_quantities

import thermogen as tg
from thermogen import exact
from thermogen.energies import Clamped
from thermogen.exact import _cost, _cut, _orders

N, N_HUBS, N_CUT = 11, 4, 3
BETAS = np.array([0.0, 1e-3, 0.7, 5.0, 50.0])
COLD = 1e200
KEY = jax.random.key(3)


@pytest.fixture
def eliminates(monkeypatch):
    """Elimination for the smallest models, too."""
    monkeypatch.setattr(_cost, "_FEW", -1)
    monkeypatch.setattr(_cost, "_MAX_ENUMERATED", -1)


@pytest.fixture
def cuts(eliminates, monkeypatch):
    """Hubs are cut, and summed over in batches of two configurations."""
    monkeypatch.setattr(_cost, "_LARGE_WIDTH", 2)
    monkeypatch.setattr(_cut, "_ENTRIES_AT_ONCE", 8)


def signs(rng, size):
    return rng.choice([-1.0, 1.0], size)


def hubs(seed=0, n=N, n_hubs=N_HUBS, draw=np.random.Generator.normal, fields=True):
    """A chain, and spins coupled to all others in pairs and triples, numbered at random."""
    rng = np.random.default_rng(seed)
    chain, hub = np.arange(n - n_hubs), np.arange(n - n_hubs, n)
    pairs = [*zip(chain[:-1], chain[1:], strict=True), *itertools.product(chain, hub)]
    pairs += itertools.combinations(hub, 2)
    triples = [(k, k + 1, h) for k in chain[:-1:2] for h in hub] + [(0, *hub[:2]), tuple(hub[:3])]
    number = rng.permutation(n)
    sets = [number[np.array(pairs)], number[np.array(triples)]]
    sets += [np.arange(n)[:, None]] * fields
    return tg.Interactions(n, sets, [draw(rng, size=len(table)) for table in sets])


CUE = np.array([0, 0, 0, 0, -1, 0, 0, 0, 1, -1, 0])

MODELS = {
    "normal": hubs,
    "clamped": lambda: Clamped(hubs(1), CUE),
    "degenerate": lambda: hubs(2, draw=signs, fields=False),
}


@pytest.mark.further
@pytest.mark.parametrize("name", list(MODELS))
def test_every_quantity_is_that_of_enumeration(name, cuts):
    energy = MODELS[name]()
    assert exact.cost(energy).n_cut == N_CUT
    found = jax.vmap(lambda beta: every_quantity(energy, beta))(BETAS)
    for i, beta in enumerate(BETAS):
        for quantity, value in exact_quantities(energy, beta).items():
            np.testing.assert_allclose(
                found[quantity][i], value, rtol=1e-12, atol=1e-12, err_msg=f"{quantity}, {beta}"
            )


def test_means_and_entropy_are_those_of_enumeration(cuts):
    energy = MODELS["clamped"]()
    cut = _cost.narrow(energy).plan.cut
    assert cut.size == N_CUT and np.any(CUE[cut])  # a spin can be clamped and cut
    for beta in (0.0, 50.0):
        expected = exact_quantities(energy, beta)
        for quantity in ("magnetizations", "entropy"):
            found = getattr(exact, quantity)(energy, beta)
            np.testing.assert_allclose(found, expected[quantity], rtol=1e-12, atol=1e-12)


@pytest.mark.further
@pytest.mark.parametrize("seed", range(3))
def test_sums_of_graphs_without_hubs_that_memory_cuts(seed, eliminates, monkeypatch):
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(list(itertools.combinations(range(14), 2)))[:26]
    values = [rng.normal(size=14), signs(rng, 26)]
    energy = tg.Interactions(14, [np.arange(14)[:, None], pairs], values)
    whole = exact.cost(energy)
    monkeypatch.setattr(_cost, "total_memory", lambda: whole.gradient_bytes / 8)
    takes = exact.cost(energy)
    assert takes.n_cut >= 3 and takes.width == whole.width - 3
    for beta in (0.0, 0.7, 50.0):
        expected = exact_quantities(energy, beta)
        for quantity in ("log_partition", "magnetizations", "heat_capacity"):
            found = getattr(exact, quantity)(energy, beta)
            np.testing.assert_allclose(found, expected[quantity], rtol=1e-12, atol=1e-12)


@pytest.mark.further
def test_derivatives_to_second_order_are_those_of_enumeration(cuts, monkeypatch):
    energy, beta = hubs(5), 0.8

    def curvature(energy, beta):
        value = exact.log_partition
        first = jax.grad(value)(energy, beta)
        along = jax.jvp(lambda e: jax.grad(value)(e, beta), (energy,), (energy,))[1]
        return first, jax.grad(lambda e: jax.grad(value, 1)(e, beta))(energy), along

    found = jax.jit(curvature)(energy, beta)
    monkeypatch.undo()
    expected = jax.jit(lambda *args: curvature(*args))(energy, beta)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.further
def test_instances_and_betas_are_mapped_and_compile_once(cuts, caplog):
    energies = [hubs(0), jax.tree.map(lambda x: 2 * x, hubs(0))]
    many = jax.tree.map(lambda *x: jnp.stack(x), *energies)
    found = jax.vmap(lambda e: jax.vmap(lambda b: exact.log_partition(e, b))(BETAS))(many)
    expected = [[exact_quantities(e, b)["log_partition"] for b in BETAS] for e in energies]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    exact.log_partition(energies[0], 0.3)
    exact.lowest(energies[0])
    with compilations(caplog) as names:
        exact.log_partition(energies[1], 10.0)
        exact.lowest(energies[1])
    assert not any("log_partition" in name or "lowest" in name for name in names)


def test_the_cold_ends_in_the_ground_states(cuts):
    energy = MODELS["degenerate"]()
    table = boltzmann_table(energy)
    assert exact.free_energy(energy, COLD) == exact.mean_energy(energy, COLD) == table.min()
    degeneracy = np.sum(table == table.min())
    np.testing.assert_allclose(exact.entropy(energy, COLD), math.log(degeneracy), atol=1e-15)
    assert exact.heat_capacity(energy, COLD) == 0


@pytest.mark.further
def test_single_precision_is_that_of_its_sums(cuts):
    energy, beta = hubs(6), 0.7
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), energy)
    found, expected = every_quantity(single, beta), exact_quantities(energy, beta)
    for quantity, value in found.items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[quantity], rtol=2e-5, atol=2e-5)
    lowest, drawn = exact.lowest(single, 2), exact.sample(single, beta, key=KEY, n_samples=3)
    assert lowest.energies.dtype == lowest.spins.dtype == drawn.dtype == jnp.float32
    np.testing.assert_allclose(lowest.energies, exact.lowest(energy, 2).energies, rtol=1e-6)


# --- configurations


@pytest.mark.further
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("n_samples", [100_000, 5])
def test_samples_follow_the_boltzmann_distribution(name, n_samples, cuts):
    """Of many at once, and of fewer than configurations of the cut."""
    energy, beta = MODELS[name](), 0.02
    keys = jax.random.split(jax.random.key(0), 100_000 // n_samples)
    drawn = jax.vmap(lambda key: exact.sample(energy, beta, key=key, n_samples=n_samples))(keys)
    for samples in (drawn.reshape(-1, N), drawn[:, -1])[: 1 + (n_samples < 2**N_CUT)]:
        counts = np.bincount(tg.index_from_spins(samples), minlength=2**N)
        expected = len(samples) * scipy.special.softmax(-beta * boltzmann_table(energy))
        assert expected.min() > 5  # or the statistic is no chi-square
        chi_square = np.sum((counts - expected) ** 2 / expected)
        assert chi_square < scipy.stats.chi2(2**N - 1).isf(1e-3)


@pytest.mark.further
def test_samples_are_in_no_order(cuts):
    """The cut spins are drawn first, and in order: neighbours must not show it."""
    energy, n_samples = MODELS["normal"](), 4000
    drawn = np.asarray(exact.sample(energy, 0.3, key=KEY, n_samples=n_samples))
    m = exact_quantities(energy, 0.3)["magnetizations"]
    product = (drawn[:-1] - m) * (drawn[1:] - m)
    assert np.max(np.abs(product.mean(axis=0))) < 4.5 / np.sqrt(n_samples)


@pytest.mark.further
@pytest.mark.parametrize("name", list(MODELS))
def test_lowest_configurations_are_those_of_enumeration(name, cuts, monkeypatch):
    energy, count = MODELS[name](), 7
    found = exact.lowest(energy, count)
    assert exact.cost(energy).n_cut == N_CUT
    np.testing.assert_allclose(jax.vmap(energy)(found.spins), found.energies, rtol=1e-13)
    assert len(np.unique(np.asarray(found.spins), axis=0)) == count
    slope = jax.grad(lambda e: exact.lowest(e).energies[0])(energy)
    expected = jax.grad(lambda e: e(found.spins[0]))(energy)
    jax.tree.map(np.testing.assert_array_equal, slope, expected)
    monkeypatch.undo()
    expected = exact.lowest(energy, count)
    np.testing.assert_allclose(found.energies, expected.energies, rtol=1e-13)
    if name == "clamped":
        np.testing.assert_array_equal(found.spins[:, CUE != 0], np.tile(CUE[CUE != 0], (count, 1)))


@pytest.mark.further
def test_lowest_configurations_end_where_there_are_no_more(cuts):
    clamp = np.where(np.arange(N) < N - 1, 1, 0)
    found = exact.lowest(Clamped(hubs(3), clamp), 3)
    np.testing.assert_array_equal(np.isfinite(found.energies), [True, True, False])


# --- lattices with hubs


def lattice_with_hubs(rows, columns, n_hubs, seed=0):
    """A lattice in random fields, each of whose spins is coupled to all hubs."""
    rng = np.random.default_rng(seed)
    n = rows * columns
    site, hub = np.arange(n).reshape(rows, columns), np.arange(n, n + n_hubs)
    bonds = [(site[:, :-1], site[:, 1:]), (site[:-1], site[1:])]
    bonds = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in bonds])
    spokes = np.array(list(itertools.product(range(n), hub)))
    between = np.array(list(itertools.combinations(hub, 2)))
    sets = [np.arange(n + n_hubs)[:, None], bonds, spokes, between]
    scales = (0.3, 1.0, 0.2, 1.0)
    couplings = [c * rng.normal(size=len(table)) for c, table in zip(scales, sets, strict=True)]
    return tg.Interactions(n + n_hubs, sets, couplings)


@pytest.mark.further
def test_sums_are_those_over_lattices_in_the_fields_of_their_hubs(monkeypatch):
    monkeypatch.setattr(_cost, "_LARGE_WIDTH", 6)
    n_hubs, beta = 7, 0.8
    energy = lattice_with_hubs(9, 6, n_hubs)
    n, (h, bonds, spokes, between) = 54, map(np.asarray, energy.couplings)
    assert exact.cost(energy)[:2] == ("elimination", 6) and exact.cost(energy).n_cut == n_hubs
    values = np.array(list(itertools.product([-1.0, 1.0], repeat=n_hubs)))
    fields = h[:n] + values @ spokes.reshape(n, n_hubs).T
    pairs = np.stack([x * y for x, y in itertools.combinations(values.T, 2)], axis=1)
    constant = values @ h[n:] + pairs @ between

    def of_lattice(f):
        lattice = tg.Interactions(n, [np.arange(n)[:, None], energy.sets[1]], [f, bonds])
        return exact.log_partition(lattice, beta), exact.magnetizations(lattice, beta)

    log_z, means = map(np.asarray, jax.lax.map(of_lattice, jnp.asarray(fields)))
    logits = log_z + beta * constant
    expected = scipy.special.softmax(logits) @ np.concatenate([means, values], axis=1)
    found = exact.log_partition(energy, beta)
    np.testing.assert_allclose(found, scipy.special.logsumexp(logits), rtol=1e-13)
    np.testing.assert_allclose(exact.magnetizations(energy, beta), expected, rtol=0, atol=1e-12)


@pytest.mark.further
def test_memory_of_a_gradient_does_not_grow_with_the_cut(monkeypatch):
    monkeypatch.setattr(_cost, "_LARGE_WIDTH", 8)
    monkeypatch.setattr(_cut, "_ENTRIES_AT_ONCE", 2**10)

    def takes(n_hubs):
        energy = lattice_with_hubs(8, 8, n_hubs)
        assert exact.cost(energy).width == 8 and exact.cost(energy).n_cut == n_hubs
        gradient = jax.jit(jax.grad(lambda e: exact.log_partition(e, 1.0)))
        return gradient.lower(energy).compile().memory_analysis().temp_size_in_bytes

    assert takes(8) < 1.5 * takes(3)


# --- what is cut


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_has_the_fewest_spins(seed):
    """Of all subsets of spins, for the order that was found."""
    rng = np.random.default_rng(seed)
    n, bonds = 12, np.array(list(itertools.combinations(range(12), 2)))
    tables = [rng.permutation(bonds)[:22]]
    order, width = _orders.elimination_order(n, tables)

    def narrowed(spins):
        last = np.append(order[~np.isin(order, spins)], spins).astype(int)
        return _orders.width_of_order(last, tables, len(spins))

    for target in range(1, width):
        spins = _orders.cut_set(order, tables, target, n)
        assert narrowed(spins) <= target
        fewer = itertools.combinations(range(n), len(spins) - 1)
        # Without a spin others may enter later: the cut is the best one for the intervals alone.
        leaves, enters, _ = _orders.first_uses(order, tables)
        waits = (enters <= np.arange(n)[:, None]) & (np.arange(n)[:, None] < leaves)
        assert all(np.delete(waits, some, axis=1).sum(axis=1).max() > target for some in fewer)


def test_what_is_narrow_is_not_cut(monkeypatch):
    def cut_set(*args):
        raise AssertionError("no cut is looked for")

    monkeypatch.setattr(_orders, "cut_set", cut_set)
    assert exact.cost(lattice_with_hubs(9, 9, 3))[:2] == ("elimination", 12)


def test_large_tables_are_cut_where_it_takes_no_more_work():
    takes = exact.cost(lattice_with_hubs(20, 20, 6))
    assert takes.n_cut == 6 and takes.width == 20
    assert takes.n_steps == 406 * 2**6 and takes.table_size == 2**20
    assert takes.value_bytes == 8 * 8 * 2**20
    assert exact.cost(lattice_with_hubs(13, 13, 9))[:2] == ("elimination", 20)  # 2 hubs of 9


def test_memory_decides_on_more_cut_spins_and_refuses(monkeypatch):
    energy = lattice_with_hubs(11, 11, 9)
    assert exact.cost(energy).n_cut == 0
    monkeypatch.setattr(_cost, "total_memory", lambda: 5e6)
    takes = exact.cost(energy)
    assert takes.n_cut == 6 and takes.width == 14 and takes.gradient_bytes < 5e6
    monkeypatch.setattr(_cost, "total_memory", lambda: 1e5)
    with pytest.raises(ValueError, match=r"too wide .* up to 12 of them"):
        exact.log_partition(energy, 1.0)
