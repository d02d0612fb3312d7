"""Any numbers of the right shape are a valid energy: all functions see one and the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    ENERGIES,
    FUNCTIONALS,
    boltzmann,
    configurations,
    energy_table,
    mean_energy,
    mean_gradient,
    product_measure,
)
from jax.flatten_util import ravel_pytree

import thermogen as tg
from thermogen import energies, storage

N = 5
S = configurations(N)
POINT = np.array([0.3, -0.8, 0.0, 1.0, 0.55])


def filled(energy, seed: int = 0):
    """The same structure with any numbers, as `jax.tree.map` or optax may leave them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.7 * rng.normal(size=x.shape), x.dtype), energy)


def table_of(energy) -> np.ndarray:
    """E of all configurations from the definitions."""
    if isinstance(energy, tg.energies.Clamped):
        clamp = np.sign(np.asarray(energy.clamp))
        index = np.where(clamp == 0, S > 0, clamp > 0) @ (1 << np.arange(N))
        return table_of(energy.energy)[index]
    if isinstance(energy, tg.Mixture):
        tables = np.stack([table_of(energy.expert(a)) for a in range(energy.n_experts)])
        offsets = np.asarray(energy.log_weights - energy.log_partitions)
        return -np.logaddexp.reduce(offsets[:, None] - tables, axis=0)
    return energy_table(energy)


def clamped(key):
    inner = ENERGIES["pairwise"](N, key)
    return tg.energies.Clamped(inner, np.eye(N)[1])


def mixture(key):
    experts = [ENERGIES["pairwise"](N, k) for k in jax.random.split(key, 2)]
    return tg.Mixture.of(experts, [0.5, 0.5], [1.0, 2.0])


MAKERS = {name: lambda key, make=make: make(N, key) for name, make in ENERGIES.items()}
MAKERS |= {"clamped": clamped, "mixture": mixture}
RAW = {
    name: filled(make(jax.random.key(1)), seed=i) for i, (name, make) in enumerate(MAKERS.items())
}
# Of a clamped energy only the numbers of the energy inside: else every spin is clamped.
RAW["clamped"] = eqx.tree_at(lambda e: e.clamp, RAW["clamped"], jnp.array([0, -0.3, 0, 0, 2.5]))


def clean_pairwise(raw: tg.Pairwise) -> tg.Pairwise:
    """By the constructor, from couplings that are read off the table."""
    table = energy_table(raw)
    couplings = -np.einsum("a,ai,aj->ij", table, S, S) / len(S)
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, -table @ S / len(S))


@pytest.mark.further
@pytest.mark.parametrize("name", RAW)
def test_configurations(name):
    energy, table = RAW[name], table_of(RAW[name])
    gaps = table[np.arange(2**N)[:, None] ^ (1 << np.arange(N))] - table[:, None]

    @jax.jit
    @jax.vmap
    def ours(s):
        return energy(s), tg.flip_gaps(energy, s)

    for value, truth in zip(ours(S), (table, gaps), strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(tg.exact.energies(energy), table, rtol=1e-11, atol=1e-12)
    if energies.n_visible(energy) == N:
        fields = jax.jit(
            jax.vmap(
                lambda s: (
                    energies.conditional_fields(energy, 1.0, s),
                    jnp.stack([energies.conditional_field(energy, 1.0, s, k) for k in range(N)]),
                )
            )
        )(S)
        for ours in fields:
            np.testing.assert_allclose(ours, 0.5 * S * gaps, rtol=1e-11, atol=1e-12)


def held(energy, m):
    """`m` with clamped spins at their values, for the truth."""
    if not isinstance(energy, tg.energies.Clamped):
        return m
    clamp = np.sign(np.asarray(energy.clamp))
    return np.where(clamp == 0, m, clamp)


@pytest.mark.further
@pytest.mark.parametrize("name", [name for name in RAW if name != "mixture"])
def test_moments_under_the_product_measure(name):
    energy = RAW[name]
    inner = energy.energy if name == "clamped" else energy
    table, m = table_of(inner), held(energy, POINT)
    p, v = product_measure(m), 1 - m**2
    slopes = mean_gradient(table, m)
    y = table - mean_energy(table, m) - (S - m) @ slopes
    cross = p @ ((S - m) * (y**2)[:, None])
    linear = 3 * np.sum(cross**2 / np.where(v > 0, v, 1))
    truth = {
        energies.product_mean: mean_energy(table, m),
        energies.nonlinear_variance: p @ y**2,
        energies.nonlinear_third_moment: p @ y**3,
        energies.nonlinear_fourth_cumulant: p @ y**4 - 3 * (p @ y**2) ** 2 - linear,
    }
    if name == "interactions":
        del truth[energies.nonlinear_fourth_cumulant]
    ours = jax.jit(lambda m: [f(energy, m) for f in truth])(POINT)
    np.testing.assert_allclose(ours, list(truth.values()), rtol=1e-10, atol=1e-12)
    if name != "clamped":
        np.testing.assert_allclose(tg.local_fields(energy, m), -slopes, rtol=1e-11, atol=1e-12)


@jax.jit
def slopes_of(functional, energy, m):
    return jax.value_and_grad(functional, argnums=(0, 2))(energy, 0.4, m)


@jax.jit
def response_of(functional, energy, m):
    def response(energy):
        return tg.susceptibility(functional, energy, 0.4, m)[0, 1]

    solution = tg.solve(functional, energy, 0.3, jnp.zeros(N), throw=False)
    return solution.value, jax.grad(response)(energy)


@pytest.mark.parametrize("name", FUNCTIONALS)
@pytest.mark.parametrize("function", [slopes_of, response_of], ids=["slopes", "response"])
def test_functionals_of_pairs(name, function):
    if function is response_of and name not in ("naive", "tap", "third-order"):
        pytest.skip("compiles for many seconds, and takes the same road")
    functional, raw = FUNCTIONALS[name], RAW["pairwise"]
    m = jnp.asarray(np.where(POINT == 1, 0.9, POINT))
    ours, truth = (function(functional, e, m) for e in (raw, clean_pairwise(raw)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    slope = next(x for x in jax.tree.leaves(ours) if x.ndim == 2)
    np.testing.assert_array_equal(np.diagonal(slope), 0)
    np.testing.assert_allclose(slope, slope.T, rtol=0, atol=1e-14 * np.max(np.abs(slope)))
    assert name == "naive" or np.max(np.abs(slope)) > 1e-3


SAMPLERS = [
    getattr(tg.sampling, name)() for name in ("Gibbs", "Metropolis", "SwendsenWang", "Houdayer")
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_samplers_move_alike(sampler):
    raw = RAW["pairwise"]

    @jax.jit
    def sweeps(energy):
        def chain(key):
            state = sampler.init(energy, 0.7, jnp.ones(N), key)
            keys = jax.random.split(key, 20)
            return jax.lax.fori_loop(
                0, 20, lambda i, x: sampler.step(energy, 0.7, x, keys[i])[0], state
            )

        return jax.vmap(chain)(jax.random.split(jax.random.key(0), 64))

    ends = sweeps(raw)
    np.testing.assert_array_equal(ends, sweeps(clean_pairwise(raw)))
    assert np.std(ends) > 0


@pytest.mark.further
def test_chains_of_a_matrix_with_one_triangle():
    lower = tg.Pairwise(np.zeros((6, 6)), np.zeros(6))
    below = np.tril(np.eye(6, k=-1)) * 2.0
    ring = eqx.tree_at(lambda e: e.couplings, lower, jnp.asarray(below))
    p, _ = boltzmann(ring, 1.0)
    truth = configurations(6).T @ (p[:, None] * configurations(6))
    spins = tg.sample(
        tg.Gibbs(), ring, 1.0, key=jax.random.key(0), n_chains=2000, n_sweeps=1, burn_in=30
    )
    spins = np.asarray(spins).reshape(-1, 6)
    np.testing.assert_allclose(spins.T @ spins / len(spins), truth, atol=0.1)


@pytest.mark.further
def test_minima_files_norms_and_fits(tmp_path):
    raw = RAW["pairwise"]
    clean = clean_pairwise(raw)
    minima = [tg.kinetics.flip_minima(e, S) for e in (raw, clean)]
    np.testing.assert_array_equal(*minima)
    storage.save_energy(tmp_path / "raw.eqx", raw)
    stored = storage.load_energy(tmp_path / "raw.eqx")
    np.testing.assert_allclose(ravel_pytree(stored)[0], ravel_pytree(clean)[0], atol=1e-14)
    for penalty in (tg.learning.L1(0.1), tg.learning.L2(0.1), tg.learning.GroupL1(0.1)):
        np.testing.assert_allclose(penalty(raw), penalty(clean), rtol=1e-12)
    data = np.asarray(tg.exact.sample(clean, 1.0, key=jax.random.key(0), n_samples=60))
    for penalty in (None, tg.learning.L1(0.05)):
        fits = [
            tg.fit(
                tg.Pseudolikelihood(l2=0.01),
                e,
                data,
                penalty=penalty,
                key=jax.random.key(0),
                n_steps=8,
            )
            for e in (raw, clean)
        ]
        np.testing.assert_allclose(fits[0].history, fits[1].history, rtol=1e-9)


@pytest.mark.further
def test_plain_optax_never_leaves_the_set():
    energy, optimizer = RAW["pairwise"], optax.adam(0.05)
    energy = clean_pairwise(energy)
    m = jnp.asarray(np.where(POINT == 1, 0.9, POINT))

    @jax.jit
    def step(energy, state):
        gradient = jax.grad(lambda e: jnp.sum(tg.susceptibility(tg.Plefka(3), e, 0.4, m) ** 2))(
            energy
        )
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(energy, updates), state

    state, start = optimizer.init(energy), energy
    for _ in range(50):
        energy, state = step(energy, state)
    couplings = np.asarray(energy.couplings)
    np.testing.assert_allclose(couplings, couplings.T, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(np.diagonal(couplings), 0)
    assert np.max(np.abs(couplings - start.couplings)) > 0.1
