"""Minima of very many spins: verified by products with the Hessian, as by factorisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thermogen as tg
from thermogen.meanfield import Problem, scaled_hessian
from thermogen.search import Kind, _curvature, _lanczos, _quench
from thermogen.search._search import Search

FUNCTIONALS = [tg.NaiveMeanField(), tg.TAP()]


def _lattice(length: int, seed: int = 0) -> tg.Interactions:
    """Gaussian couplings of neighbours on a square lattice with periodic boundaries."""
    site = np.arange(length**2).reshape(length, length)
    bonds = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
    couplings = np.random.default_rng(seed).normal(size=2 * length**2)
    return tg.Interactions(length**2, [np.concatenate(bonds)], [couplings])


@pytest.fixture
def products(monkeypatch):
    """Whatever the size, no matrix of n x n is made."""
    monkeypatch.setattr(_lanczos, "_MOST_FACTORISED", 0)

    def refuse(*_):
        raise AssertionError("a Hessian was made")

    for module, name in ((_curvature, "_dense"), (_quench, "settle"), (_quench, "_polished")):
        monkeypatch.setattr(module, name, refuse)


@pytest.mark.parametrize("functional", FUNCTIONALS, ids=["naive", "TAP"])
def test_minima_by_products_are_those_by_factorisations(functional, request):
    energy, options = _lattice(6), {"key": jax.random.key(0), "n_starts": 40}
    dense = tg.find_minima(functional, energy, 0.9, **options)
    request.getfixturevalue("products")
    ours = tg.find_minima(functional, energy, 0.9, **options)
    assert len(ours) == len(dense) > 1 and ours.unresolved == dense.unresolved
    np.testing.assert_allclose(ours.magnetizations, dense.magnetizations, atol=1e-8)
    np.testing.assert_allclose(ours.free_energies, dense.free_energies, rtol=1e-12)
    np.testing.assert_allclose(ours.curvatures, dense.curvatures, rtol=1e-6)
    np.testing.assert_array_equal(ours.hits, dense.hits)
    assert np.all(ours.residuals <= 1e-9) and np.all(ours.kind == Kind.MINIMUM)


def test_a_saddle_is_told_and_left_on_both_sides(products):
    field = np.linspace(0, 1e-3, 10)
    magnet = tg.Pairwise(np.ones((10, 10)) - np.eye(10), np.zeros(10))
    start = np.zeros((1, 10))
    ends = tg.quench(tg.NaiveMeanField(), magnet, 1.0, start)
    assert np.all(ends.result == tg.RESULTS.saddle)
    options = {"key": jax.random.key(0), "n_starts": 1}
    library = tg.find_minima(tg.NaiveMeanField(), magnet, 1.0, starts=start, **options)
    assert len(library) == 1 and library.multiplicity[0] == 2
    turned = tg.Pairwise(magnet.couplings, field - field.mean())
    both = tg.find_minima(tg.NaiveMeanField(), turned, 1.0, starts=start, **options)
    assert len(both) == 2 and np.prod(both.magnetizations[:, 0]) < 0


@pytest.mark.parametrize("scale", [0.5, 0.98, 1.02, 2.0])
def test_signs_of_curvature_are_those_of_eigenvalues(scale):
    """At m = 0 the scaled Hessian is `1 - beta J`: its lowest eigenvalue is exactly known."""
    upper = np.triu(np.random.default_rng(3).normal(size=(48, 48)), 1)
    couplings = (upper + upper.T) / 48**0.5
    beta = scale / np.linalg.eigvalsh(couplings)[-1]
    with jax.enable_x64(True):
        energy = tg.Pairwise(jnp.asarray(couplings), jnp.zeros(48))
        problem = Problem(tg.NaiveMeanField(), energy, jnp.asarray(beta))
        fields = np.zeros((3, 48))
        fields[1:] = np.random.default_rng(0).normal(size=(2, 48))
        signs = _lanczos.curvature_signs(problem, fields)
        for row, sign in zip(fields, signs, strict=True):
            row = jnp.asarray(row)
            hessian = scaled_hessian(problem.taylor(row), row, problem.beta)
            assert sign == np.sign(np.linalg.eigvalsh(hessian)[0])
    assert signs[0] == (1 if scale < 1 else -1)


def test_what_few_steps_cannot_tell_is_left_open():
    """A spectrum from 1 to 3 but for one eigenvalue of 1e-7 or -1e-7, which hides in it."""
    rng = np.random.default_rng(0)
    for steps in (20, 60):
        diagonal, off = 2 + 0.1 * rng.normal(size=steps), 0.5 * np.ones(steps)
        bottom = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off[1:], 1) + np.diag(off[1:], -1))
        shifted = diagonal - bottom[0]
        assert _lanczos._sign(shifted + 1e-7, off, 10**5) == 0
        assert _lanczos._sign(shifted - 1e-7, off, 10**5) == -1
    assert _lanczos._sign(shifted + 100, off, 10**5) == 1
    assert _lanczos._sign(shifted[:15] + 100, off[:15], 10**5) == 0  # too few for any claim
    assert _lanczos._sign(np.array([0.5, 0.1]), np.array([0.0, 0.0]), 10**5) == 1


def test_independent_spins_have_no_krylov_space_to_speak_of(products):
    energy = tg.Interactions.from_terms(5, {(k,): 0.1 * (k + 1) for k in range(5)})
    library = tg.find_minima(tg.NaiveMeanField(), energy, 1.0, key=jax.random.key(0), n_starts=4)
    assert len(library) == 1 and library.unresolved == 0
    np.testing.assert_allclose(library.magnetizations[0], np.tanh(0.1 * np.arange(1, 6)), atol=1e-9)


def _largest(jaxpr) -> int:
    """Numbers in the largest array of a program."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [np.prod(v.aval.shape, dtype=int) for v in equation.outvars]
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(equation.params.values()))]
        sizes += [_largest(x) for x in inner if hasattr(x, "eqns")]
    return int(max(sizes))


def test_programs_for_very_many_spins_hold_a_few_vectors():
    energy, rows = _lattice(75), 4  # 5625 spins, 11250 bonds
    n = energy.n_spins
    fields = jnp.zeros((rows, n))
    problem = Problem(tg.NaiveMeanField(), energy, jnp.asarray(1.0))
    programs = {
        "settle": lambda x: _lanczos._settle(problem, x),
        "lanczos": lambda x: _lanczos._lanczos(problem, jnp.asarray(9), x),
        "curvature": lambda x: _curvature._by_gradients(problem, jnp.asarray(9), x),
    }
    for name, program in programs.items():
        assert _largest(jax.make_jaxpr(program)(fields).jaxpr) <= 4 * rows * n, name
    search = Search.of(problem, np.zeros((0, n), np.float32), 16, 16, None, (tg.search.corner,))
    state = jax.eval_shape(search.init, jax.random.key(0))
    assert _largest(jax.make_jaxpr(search.step)(state).jaxpr) <= 4 * 16 * n


@pytest.mark.further
def test_a_lattice_of_five_thousand_spins():
    """The first size that is not factorised: its minima are what a dense proof says they are."""
    energy = _lattice(65)
    library = tg.find_minima(tg.TAP(), energy, 0.4, key=jax.random.key(0), n_starts=2)
    assert len(library) and np.all(library.residuals <= 1e-9) and library.unresolved == 0
    with jax.enable_x64(True):
        problem = Problem(tg.TAP(), energy, jnp.asarray(0.4))
        hessian = np.asarray(problem.scaled_hessian(jnp.asarray(library.fields[0])))
    np.linalg.cholesky(hessian)


def test_what_needs_a_matrix_of_all_spins_says_what_it_would_take():
    energy = _lattice(400)  # 160 000 spins: 410 GB in double precision
    with pytest.raises(ValueError, match="the Hessian of 160000 spins needs about .* GB of memory"):
        tg.solve(tg.NaiveMeanField(), energy, 1.0, jnp.zeros(160000))
    with pytest.raises(ValueError, match="the Hessian of 160000 spins needs about"):
        tg.susceptibility(tg.NaiveMeanField(), energy, 1.0, jnp.zeros(160000))
    with pytest.raises(ValueError, match="the Hessian of 160000 spins needs about"):
        tg.meanfield.validity(tg.NaiveMeanField(), energy, 1.0, jnp.zeros(160000))
    with pytest.raises(ValueError, match="the Hessian of 160000 spins needs about"):
        cue = np.zeros(160000)
        tg.recall(energy, 1.0, cue, key=jax.random.key(0), method=tg.NaiveMeanField())
    with pytest.raises(ValueError, match="a search of 160000 spins .* needs about"):
        options = {"n_starts": 10**6, "capacity": 10**6}
        tg.find_minima(tg.NaiveMeanField(), energy, 1.0, key=jax.random.key(0), **options)
