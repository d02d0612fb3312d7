"""Derivatives of the exact spectrum of heat-bath dynamics, against finite differences."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.exact import glauber_spectrum, relaxation_times

BETA = 1.1


def _curie_weiss(n, field=0.0):
    return tg.Pairwise((jnp.ones((n, n)) - jnp.eye(n)) / n, jnp.full(n, field))


CASES = {
    "glass": helpers.random_pairwise(6, jax.random.key(1), 2.0, 0.3),
    "ferromagnet": _curie_weiss(6, 0.05),
    "table": helpers.random_complete(5, jax.random.key(2)),
    "machine": helpers.random_rbm(6, jax.random.key(3), 2.0),
}


@pytest.mark.parametrize("energy", CASES.values(), ids=CASES)
def test_slopes_of_simple_times_are_finite_differences(energy):
    """Along a change of all parameters, which leaves no eigenvalues equal."""
    start = helpers.along(energy, seed=5)(0.1)
    at = helpers.along(start)

    def times(t):
        return relaxation_times(at(t), BETA * jnp.exp(t), n_eigenvalues=6)

    values = jax.jit(times)
    first = helpers.compared(times, jax.jit(jax.jacfwd(times)))
    np.testing.assert_allclose(jax.jacrev(times)(0.0), first, rtol=1e-9)
    np.testing.assert_allclose(values(0.0), times(0.0), rtol=1e-12)


@pytest.mark.parametrize("n", [8, pytest.param(11, marks=pytest.mark.further), 12])
def test_the_slowest_process_of_more_spins(n):
    """Dense up to ten spins, by Lanczos steps beyond; from the known eigenvectors it is slow."""
    energy = _curie_weiss(n, 0.02)

    def log_time(beta, field):
        energy = _curie_weiss(n, field)
        return jnp.log(relaxation_times(energy, beta, n_eigenvalues=2)[0])

    slopes = jax.grad(log_time, argnums=(0, 1))(2.0, 0.02)
    np.testing.assert_allclose(helpers.slope(lambda t: log_time(2.0 + t, 0.02)), slopes[0], 1e-6)
    np.testing.assert_allclose(helpers.slope(lambda t: log_time(2.0, 0.02 + t)), slopes[1], 1e-6)
    each = jax.grad(lambda e: jnp.log(relaxation_times(e, 2.0, n_eigenvalues=2)[0]))(energy)
    np.testing.assert_allclose(jnp.sum(each.fields), slopes[1], rtol=1e-9)


def test_what_cannot_be_told_from_equilibrium_has_no_slope():
    """Two wells at a barrier of 48/beta: their exchange is below what an eigenvalue resolves."""
    slopes = jax.jacfwd(lambda beta: glauber_spectrum(_curie_weiss(8), beta))(12.0)
    assert slopes[0] == 0 and np.isnan(slopes[1]) and np.all(np.isfinite(slopes[2:]))


def test_equal_eigenvalues_share_the_slope_of_their_group():
    """Without a field those of the magnet are equal by the symmetry of its spins."""
    n = 5
    magnet = _curie_weiss(n)
    change = np.random.default_rng(0).normal(size=n)

    def values(t):  # splits the groups
        return glauber_spectrum(tg.Pairwise(magnet.couplings, t * change), BETA)

    def by_beta(t):  # keeps them
        return glauber_spectrum(magnet, BETA + t)

    found = helpers.compared(by_beta, jax.jacfwd(by_beta))
    level = np.asarray(values(0.0))
    groups = np.split(np.arange(2**n), 1 + np.flatnonzero(np.diff(level) < -1e-9))
    assert max(map(len, groups)) >= n - 1
    slopes, differences = jax.jacrev(values)(0.0), helpers.slope(values)
    for group in groups:
        np.testing.assert_allclose(slopes[group], slopes[group][0], atol=1e-12)
        np.testing.assert_allclose(found[group], found[group][0], atol=1e-12)
        np.testing.assert_allclose(np.sum(slopes[group]), np.sum(differences[group]), atol=1e-6)


def test_the_spectrum_maps_and_compiles():
    betas = np.array([0.5, 1.0, 1.5])
    energy = CASES["glass"]
    many = jax.jit(jax.vmap(lambda beta: glauber_spectrum(energy, beta)))(betas)
    slopes = jax.vmap(jax.grad(lambda beta: relaxation_times(energy, beta)[0]))(betas)
    for k, beta in enumerate(betas):
        np.testing.assert_allclose(many[k], glauber_spectrum(energy, beta), atol=1e-13)
        one = jax.grad(lambda beta: relaxation_times(energy, beta)[0])(beta)
        np.testing.assert_allclose(slopes[k], one, rtol=1e-12)
    single = jax.jit(glauber_spectrum)(jax.tree.map(jnp.float32, energy), jnp.float32(1.0))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, glauber_spectrum(energy, 1.0), atol=1e-5)


def test_fields_of_free_spins_change_no_time_and_second_slopes_are_refused():
    """The set a of free spins decays by 1 - |a|/n a step, in any field."""

    def times(fields):
        return relaxation_times(tg.Pairwise(jnp.zeros((3, 3)), fields), BETA, n_eigenvalues=7)

    np.testing.assert_allclose(jax.jacrev(times)(jnp.array([0.1, 0.5, -1.0])), 0, atol=1e-12)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.hessian(lambda beta: relaxation_times(CASES["glass"], beta)[0])(BETA)


@pytest.mark.parametrize("beta", [4.5, 6.0])
def test_slow_processes_keep_times_and_slopes_in_single_precision(beta):
    """1 - lambda is 3e-7 and 1e-9: at the edge and below of what single precision tells from 1."""
    couplings, fields = (np.ones((8, 8)) - np.eye(8)) / 8, np.full(8, 0.02)

    def log_time(beta):
        energy = tg.Pairwise(jnp.asarray(couplings), jnp.asarray(fields))
        return jnp.log(relaxation_times(energy, beta, n_eigenvalues=2)[0])

    with jax.enable_x64(False):
        found, slope = jax.jit(jax.value_and_grad(log_time))(beta)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, log_time(beta), rtol=1e-6)
    differences = helpers.slope(lambda t: log_time(beta + t), 1e-2)
    np.testing.assert_allclose(slope, differences, rtol=1e-4)


@pytest.mark.parametrize("x64", [False, True])
def test_what_is_not_told_from_an_infinite_time_has_no_slope(x64):
    """Two wells at a barrier of 52/beta: 1 - lambda is lost in rounding, in either precision."""
    with jax.enable_x64(x64):
        energy = _curie_weiss(8)
        times = jax.value_and_grad(lambda b: relaxation_times(energy, b, n_eigenvalues=2)[0])
        value, slope = times(13.0)
    assert value > 1e13 and np.isnan(slope)


def _wells(depths, where):
    """64 configurations of energy 0 but for three wells, of energies -depths."""
    return tg.Complete.from_energies(jnp.zeros(64).at[jnp.array(where)].set(-jnp.asarray(depths)))


def test_slow_processes_that_differ_have_their_own_slopes():
    """Gaps of 4e-13 and 1.3e-12, each to about 1e-15."""

    def log_times(depth):
        energy = _wells([27.5, 29.0, depth], [0, 63, 7])
        return jnp.log(relaxation_times(energy, 1.0, n_eigenvalues=3))

    differences = helpers.slope(lambda t: log_times(26.8 + t), 0.1)
    np.testing.assert_allclose(jax.jacfwd(log_times)(26.8), differences, atol=0.02)


@pytest.mark.parametrize("depth", [15.0, 22.0, 30.0])
def test_slow_processes_equal_by_symmetry_share_a_slope_or_have_none(depth):
    """Three wells of pairs of spins: an escape is from any one of them, of rate exp(-depth)."""

    def log_times(depths):
        energy = _wells(depths, [3, 12, 48])
        return jnp.log(relaxation_times(energy, 1.0, n_eigenvalues=3))

    slopes = jax.jacfwd(log_times)(jnp.full(3, depth))
    known = depth < 27  # at 30 the gaps are 6e-14
    np.testing.assert_allclose(slopes, np.full((2, 3), 1 / 3 if known else np.nan), rtol=1e-4)


def test_rounding_of_a_single_precision_table_parts_no_equal_eigenvalues():
    n = 5
    change = np.random.default_rng(0).normal(size=(n, n))
    change = change + change.T - 2 * np.diag(np.diag(change))

    def slopes():
        magnet = (jnp.ones((n, n)) - jnp.eye(n)) / n

        def values(t):
            return glauber_spectrum(tg.Pairwise(magnet + t * change, jnp.zeros(n)), BETA)

        return jax.jacfwd(values)(0.0)

    with jax.enable_x64(False):
        change, single = jnp.asarray(change), slopes()
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, slopes(), atol=1e-5)


@pytest.mark.parametrize("n", [4, 11])
def test_a_row_that_is_not_finite_is_lost_alone(n):
    """Dense, and by Lanczos steps."""
    couplings, fields = 0.1 * (jnp.ones((n, n)) - jnp.eye(n)), jnp.ones(n)

    def time(field, beta):
        energy = tg.Pairwise(couplings, fields + field)
        return relaxation_times(energy, beta, n_eigenvalues=2)[0]

    rows = jnp.array([0.0, jnp.nan, 0.0, 0.0, 0.0]), jnp.array([1.0, 1.0, jnp.nan, jnp.inf, 1e308])
    found, slopes = jax.vmap(jax.value_and_grad(time))(*rows)
    np.testing.assert_allclose(found[0], time(0.0, 1.0), rtol=1e-12)
    assert np.isfinite(slopes[0])
    assert np.all(np.isnan(found[1:])) and np.all(np.isnan(slopes[1:]))


def test_a_row_whose_solver_fails_is_lost_alone(monkeypatch):
    solver = np.linalg.eigh

    def failing(matrix):
        if matrix[0, 0] > 0.9:  # cold: the first configuration stays
            raise np.linalg.LinAlgError("no convergence")
        return solver(matrix)

    monkeypatch.setattr(np.linalg, "eigh", failing)
    times = jax.vmap(lambda beta: relaxation_times(_curie_weiss(4), beta)[0])(jnp.array([0.1, 3.0]))
    assert np.isfinite(times[0]) and np.isnan(times[1])


@pytest.mark.further
def test_a_group_that_is_cut_has_no_slope():
    """Of eleven spins ten processes are equal, and four eigenvalues are asked for."""
    energy, rng = _curie_weiss(11), np.random.default_rng(0)
    change = rng.normal(size=(11, 11))

    def slopes(count):
        def spectrum(t):
            moved = tg.Pairwise(energy.couplings + t * (change + change.T), energy.fields)
            return tg.exact.glauber_spectrum(moved, 1.1, n_eigenvalues=count)

        return np.asarray(jax.jacfwd(spectrum)(0.0))

    few, many = slopes(4), slopes(20)
    assert np.isnan(few[3]) and np.all(np.isfinite(many[:4]))
    np.testing.assert_allclose(few[:3], many[:3], rtol=1e-8)
