"""Registries of what thermogen implements, and truth by enumeration to test it against.

A new energy, functional or objective is added to its table here, and every contract test runs
on it. Truth is computed in plain NumPy from the definition, without the code under test.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg


def random_pairwise(n: int, key: jax.Array, scale: float = 1.0, fields: float = 0.3) -> tg.Pairwise:
    """SK couplings of variance scale^2 / n and Gaussian fields."""
    j_key, h_key = jax.random.split(key)
    upper = jnp.triu(jax.random.normal(j_key, (n, n)), 1) * scale / jnp.sqrt(n)
    return tg.Pairwise(upper + upper.T, fields * jax.random.normal(h_key, (n,)))


def random_interactions(
    n: int, key: jax.Array, scale: float = 1.0, orders: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> tg.Interactions:
    """A random half of all spin sets of the given orders, with Gaussian couplings."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    terms = {}
    for p in orders:
        sets = list(itertools.combinations(range(n), p))
        kept = rng.permutation(len(sets))[: max(1, len(sets) // 2)]
        width = scale / np.sqrt(max(1, len(kept) / n))
        terms |= {sets[i]: width * rng.normal() for i in kept}
    return tg.Interactions.from_terms(n, terms)


def random_rbm(n: int, key: jax.Array, scale: float = 1.0) -> tg.RBM:
    """n spins in all, a little over half of them visible."""
    v = (n + 1) // 2
    keys = jax.random.split(key, 3)
    shapes = [(v, n - v), (v,), (n - v,)]
    factors = [scale / np.sqrt(n), 0.3, 0.3]
    return tg.RBM(
        *(f * jax.random.normal(k, s) for f, k, s in zip(factors, keys, shapes, strict=True))
    )


# name -> (n, key, scale) -> energy
ENERGIES: dict[str, Callable[..., tg.AbstractMultilinear]] = {
    "pairwise": random_pairwise,
    "interactions": random_interactions,
    "rbm": random_rbm,
}

FUNCTIONALS: dict[str, tg.AbstractFunctional] = {
    "naive": tg.NaiveMeanField(),
    "tap": tg.TAP(),
}

# Objectives and, for each, the energies that it learns.
OBJECTIVES: dict[str, tuple[tg.learning.AbstractObjective, tuple[str, ...]]] = {
    "pseudolikelihood": (tg.Pseudolikelihood(), ("pairwise", "interactions")),
    "mean-field": (tg.MeanFieldLikelihood(tg.TAP()), ("pairwise", "interactions", "rbm")),
    "persistent-cd": (
        tg.PersistentCD(n_chains=16, n_sweeps=1),
        ("pairwise", "interactions", "rbm"),
    ),
}


def configurations(n: int) -> np.ndarray:
    """All 2^n configurations, shape `(2**n, n)`; row i is configuration i, little-endian."""
    return 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1


def energy_table(energy: tg.AbstractMultilinear) -> np.ndarray:
    """E of every configuration from the definition of each class, shape `(2**n,)`."""
    s = configurations(energy.n_spins)
    if isinstance(energy, tg.Pairwise):
        j, h = np.asarray(energy.couplings), np.asarray(energy.fields)
        return -np.einsum("ai,ij,aj->a", s, np.triu(j, 1), s) - s @ h
    if isinstance(energy, tg.Interactions):
        table = np.zeros(len(s))
        for sets, couplings in zip(energy.sets, energy.couplings, strict=True):
            for spins, coupling in zip(sets.indices, couplings, strict=True):
                table -= float(coupling) * s[:, spins].prod(axis=1)
        return table
    if isinstance(energy, tg.RBM):
        v, h = s[:, : energy.n_visible], s[:, energy.n_visible :]
        w, a, b = (np.asarray(x) for x in jax.tree.leaves(energy))
        return -np.einsum("ai,ij,aj->a", v, w, h) - v @ a - h @ b
    raise TypeError(f"no definition of {type(energy).__name__} here")


def product_measure(m: np.ndarray) -> np.ndarray:
    """Probability of every configuration under independent spins of means m, `(2**n,)`."""
    return np.prod((1 + np.asarray(m) * configurations(len(m))) / 2, axis=1)


def boltzmann(energy: tg.AbstractMultilinear, beta: float) -> tuple[np.ndarray, float]:
    """Boltzmann probabilities, shape `(2**n,)`, and ln Z, by enumeration."""
    logits = -beta * energy_table(energy)
    log_z = np.logaddexp.reduce(logits)
    return np.exp(logits - log_z), float(log_z)
