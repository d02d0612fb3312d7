"""Registries of what thermogen implements, and truth by enumeration to test it against.

A new energy, functional or objective is added to its table here, and every contract test runs
on it. Truth is computed in plain NumPy from the definition, without the code under test.
"""

import contextlib
import functools
import itertools
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax._src.core import Var, jaxprs_in_params
from jax._src.interpreters.partial_eval import dce_jaxpr

import thermogen as tg
from thermogen.sampling._coloring import color_plan
from thermogen.search import Ends


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


def random_complete(n: int, key: jax.Array, scale: float = 1.0) -> tg.Complete:
    """Gaussian couplings of all orders: a random-energy model of variance n scale^2."""
    width = scale * np.sqrt(n / 2**n)
    return tg.Complete(width * jax.random.normal(key, (2**n,)))


# name -> (n, key, scale) -> energy
ENERGIES: dict[str, Callable[..., tg.AbstractMultilinear]] = {
    "pairwise": random_pairwise,
    "interactions": random_interactions,
    "rbm": random_rbm,
    "complete": random_complete,
}

FUNCTIONALS: dict[str, tg.AbstractFunctional] = {
    "naive": tg.NaiveMeanField(),
    "tap": tg.TAP(),
    "third-order": tg.Plefka(3),
    "fourth-order": tg.Plefka(4),
    "bethe": tg.Bethe(),
    "adaptive-tap": tg.AdaptiveTAP(),
}

# Which functionals have no rule for which energies.
_UNSUPPORTED = {
    ("interactions", "fourth-order"),
    ("complete", "bethe"),
    ("interactions", "adaptive-tap"),
    ("complete", "adaptive-tap"),
}
PAIRS = [pair for pair in itertools.product(ENERGIES, FUNCTIONALS) if pair not in _UNSUPPORTED]
# Each costs seconds of compilation wherever it is solved. The others run with `-m slow`.
QUICK = [(e, f) for e, f in PAIRS if f == "naive"] + [("pairwise", "tap"), ("rbm", "tap")]


def quick(*pairs: tuple[str, str]) -> list:
    """All pairs (energy, functional) as test parameters; those that are not named are slow."""
    marks = [[] if pair in pairs else [pytest.mark.slow] for pair in PAIRS]
    return [
        pytest.param(pair, marks=m, id="-".join(pair)) for pair, m in zip(PAIRS, marks, strict=True)
    ]


# Objectives and, for each, the energies that it learns.
OBJECTIVES: dict[str, tuple[tg.learning.AbstractObjective, tuple[str, ...]]] = {
    "pseudolikelihood": (tg.Pseudolikelihood(), ("pairwise", "interactions", "rbm")),
    "probability-flow": (tg.learning.MinimumProbabilityFlow(), ("interactions", "rbm")),
    "mean-field": (tg.MeanFieldLikelihood(tg.TAP()), ("pairwise", "interactions", "rbm")),
    "persistent-cd": (
        tg.PersistentCD(n_chains=16, n_sweeps=1),
        ("pairwise", "interactions", "rbm"),
    ),
    "contrastive": (tg.learning.ContrastiveDivergence(), ("rbm",)),
    "tempered-cd": (
        tg.PersistentCD(n_chains=16, n_sweeps=1, sampler=tg.ParallelTempering([0.5, 1.0])),
        ("rbm",),
    ),
    "annealed": (
        tg.learning.AnnealedLikelihood(n_chains=16, n_rungs=4),
        ("rbm",),
    ),
    "exact": (tg.ExactLikelihood(), ("pairwise", "interactions", "rbm", "complete")),
}


@contextlib.contextmanager
def compilations(caplog) -> Iterator[list[str]]:
    """Names of the functions that JAX compiles meanwhile."""
    names: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        yield names
    names += [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    caplog.clear()


def along(energy: tg.AbstractEnergy, seed: int = 1) -> Callable[[Any], Any]:
    """The energy plus t times a random change of all its parameters, as a function of t."""
    leaves, structure = jax.tree.flatten(energy)
    rng = np.random.default_rng(seed)
    change = [rng.normal(size=x.shape) for x in leaves]

    def at(t):
        return jax.tree.unflatten(structure, jax.tree.map(lambda x, d: x + t * d, leaves, change))

    return at


def slope(function: Callable, h: float = 2e-4) -> np.ndarray:
    """Derivative at 0 by central differences of fourth order.

    Their error is h^4 f^(5) / 30, about 1e-16 f^(5), and that of rounding 1.5 eps f / h, 1e-12 f.
    """
    near = np.asarray(function(h)) - np.asarray(function(-h))
    far = np.asarray(function(2 * h)) - np.asarray(function(-2 * h))
    return (8 * near - far) / (12 * h)


def compared(function: Callable, derivative: Callable, h: float = 2e-4) -> np.ndarray:
    """The derivative at 0, which must be that of finite differences."""
    found = derivative(0.0)
    scale = np.max(np.abs(found))
    np.testing.assert_allclose(slope(function, h), found, rtol=1e-6, atol=1e-6 * scale)
    return found


def assert_differentiable(function: Callable, h: float = 2e-4) -> None:
    """Derivatives at 0 of first and second order, forwards and backwards, by differences."""
    function = jax.jit(function)
    forward = jax.jit(jax.jacfwd(function))
    first = compared(function, forward, h)
    np.testing.assert_allclose(jax.jit(jax.jacrev(function))(0.0), first, rtol=1e-9, atol=1e-12)
    compared(forward, jax.jit(jax.jacfwd(jax.jacrev(function))), h)


def configurations(n: int) -> np.ndarray:
    """All 2^n configurations, shape `(2**n, n)`; row i is configuration i, little-endian."""
    return 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) - 1


def energy_table(energy: tg.AbstractMultilinear) -> np.ndarray:
    """E of every configuration from the definition of each class, shape `(2**n,)`."""
    s = configurations(energy.n_spins)
    if isinstance(energy, tg.Pairwise):
        j, h = np.asarray(energy.couplings), np.asarray(energy.fields)
        j = (j + j.T) / 2
        return -np.einsum("ai,ij,aj->a", s, np.triu(j, 1), s) - s @ h
    if isinstance(energy, tg.Interactions):
        table = np.zeros(len(s))
        for sets, couplings in zip(energy.sets, energy.couplings, strict=True):
            for spins, coupling in zip(sets.indices, np.asarray(couplings), strict=True):
                table -= coupling * s[:, spins].prod(axis=1)
        return table
    if isinstance(energy, tg.RBM):
        v, h = s[:, : energy.n_visible], s[:, energy.n_visible :]
        w, a, b = (np.asarray(x) for x in jax.tree.leaves(energy))
        return -np.einsum("ai,ij,aj->a", v, w, h) - v @ a - h @ b
    if isinstance(energy, tg.Complete):
        # A product over the set a is -1 to the number of its spins that are down.
        index = np.arange(len(s))
        n_down = np.bitwise_count(index[None, :] & ~index[:, None])
        return -((-1.0) ** n_down) @ np.asarray(energy.couplings)
    raise TypeError(f"no definition of {type(energy).__name__} here")


def every_quantity(energy: tg.AbstractEnergy, beta: float) -> dict[str, jax.Array]:
    """All that `exact` says of an ensemble of any size."""
    exact = tg.exact
    return {
        "log_partition": exact.log_partition(energy, beta),
        "mean_energy": exact.mean_energy(energy, beta),
        "entropy": exact.entropy(energy, beta),
        "heat_capacity": exact.heat_capacity(energy, beta),
        "magnetizations": exact.magnetizations(energy, beta),
        "correlations": exact.correlations(energy, beta),
        "marginal": exact.marginal(energy, beta, (4, 0)),
    }


def boltzmann_table(energy: tg.AbstractEnergy) -> np.ndarray:
    """E of all configurations, also of a model of which spins are clamped."""
    if not isinstance(energy, tg.energies.Clamped):
        return energy_table(energy)
    clamp = np.asarray(energy.clamp)
    at_point = np.where(clamp == 0, configurations(energy.n_spins), clamp)
    return energy_table(energy.energy)[tg.index_from_spins(at_point)]


def exact_quantities(energy: tg.AbstractEnergy, beta: float) -> dict[str, np.ndarray]:
    """The same by enumeration, in NumPy."""
    s, table = configurations(energy.n_spins), boltzmann_table(energy)
    above = table - table.min()
    p = scipy.special.softmax(-beta * above)
    return {
        "log_partition": scipy.special.logsumexp(-beta * above) - beta * table.min(),
        "mean_energy": p @ table,
        "entropy": np.sum(scipy.special.entr(p)),
        "heat_capacity": beta * beta * (p @ (above - p @ above) ** 2),
        "magnetizations": p @ s,
        "correlations": s.T @ (p[:, None] * s),
        "marginal": np.bincount((s[:, 4] > 0) + 2 * (s[:, 0] > 0), p),
    }


def product_measure(m: np.ndarray) -> np.ndarray:
    """Probability of every configuration under independent spins of means m, `(2**n,)`."""
    return np.prod((1 + np.asarray(m) * configurations(len(m))) / 2, axis=1)


def boltzmann(energy: tg.AbstractMultilinear, beta: float) -> tuple[np.ndarray, float]:
    """Boltzmann probabilities, shape `(2**n,)`, and ln Z, by enumeration."""
    logits = -beta * energy_table(energy)
    log_z = np.logaddexp.reduce(logits)
    return np.exp(logits - log_z), float(log_z)


def layers(energy: tg.AbstractMultilinear) -> list[tuple[int, ...]]:
    """Spins that a sweep updates at once, in its order."""
    n = energy.n_spins
    if isinstance(energy, tg.RBM):
        return [tuple(range(energy.n_visible, n)), tuple(range(energy.n_visible))]
    if isinstance(energy, tg.Interactions):
        colors, _ = color_plan(n, energy.sets)
        return [tuple(k for k in color if k < n) for color in colors.tolist()]
    return [(k,) for k in range(n)]


def heat_bath_matrix(p: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """Transitions that redraw the spins of `block` given all others, row-stochastic."""
    mask = sum(1 << k for k in block)
    index = np.arange(len(p))
    joint = ((index[:, None] & ~mask) == (index[None, :] & ~mask)) * p[None, :]
    return joint / joint.sum(axis=1, keepdims=True)


def gibbs_matrix(energy: tg.AbstractMultilinear, beta: float) -> np.ndarray:
    """Transitions of one sweep of the heat bath."""
    p, _ = boltzmann(energy, beta)
    return functools.reduce(np.matmul, [heat_bath_matrix(p, block) for block in layers(energy)])


def redrawn(
    energy: tg.AbstractMultilinear, seed: int, scale: float = 1.0
) -> tg.AbstractMultilinear:
    """The same structure, so the same compiled code, with other parameters: all times N(0, 1)."""
    rng = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(energy)
    leaves = [jnp.asarray(scale * x * rng.normal(size=x.shape), x.dtype) for x in leaves]
    return _constrain(jax.tree.unflatten(structure, leaves))


# Under jit, where the constructor projects and does not ask for symmetric couplings.
_constrain = jax.jit(tg.energies.constrain)


def stacked(energies: Sequence[tg.AbstractMultilinear]) -> tg.AbstractMultilinear:
    """Energies of equal structure as one batch, for `jax.vmap`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *energies)


def mean_energy(table: np.ndarray, m: np.ndarray) -> float:
    """`<E>` under the product measure."""
    return float(product_measure(m) @ table)


def mean_gradient(table: np.ndarray, m: np.ndarray) -> np.ndarray:
    """`d<E>/dm_k`, half the difference of `<E>` at m_k = 1 and m_k = -1; shape `(n,)`."""
    ends = [[np.where(np.arange(len(m)) == k, s, m) for s in (1.0, -1.0)] for k in range(len(m))]
    return np.array([0.5 * (mean_energy(table, a) - mean_energy(table, b)) for a, b in ends])


def nonlinear_variance(table: np.ndarray, m: np.ndarray) -> float:
    """Variance of E under the product measure less the variance of its linear part."""
    deviation = table - mean_energy(table, m)
    linear = mean_gradient(table, m) ** 2 @ (1 - np.asarray(m) ** 2)
    return float(product_measure(m) @ deviation**2 - linear)


def gibbs_potential(table: np.ndarray, beta: float, m: np.ndarray) -> float:
    """Exact G(m): the Legendre transform of ln Z by fields, solved by Newton steps."""
    s = configurations(len(m))
    fields = np.arctanh(m)
    for _ in range(100):
        logits = -beta * table + s @ fields
        log_z = np.logaddexp.reduce(logits)
        p = np.exp(logits - log_z)
        means = p @ s
        step = np.linalg.solve((s - means).T @ (p[:, None] * (s - means)), m - means)
        # A full step may lead far away where the ensemble hardly responds.
        fields = fields + step / max(1, np.max(np.abs(step)))
        if np.max(np.abs(m - means)) < 1e-13:
            return float((fields @ m - log_z) / beta)
    raise ArithmeticError("the exact Gibbs potential was not reached")


def truncated_excess(
    table: jax.Array, m: jax.Array, beta: jax.Array, order: int | jax.Array
) -> jax.Array:
    """`G + S/beta` of order 1 or 2 from the table alone, in JAX so that it can be derived."""
    s = jnp.asarray(configurations(m.size))

    def mean(values, m):
        return jnp.dot(jnp.prod(0.5 * (1 + m[None, :] * s), axis=1), values)

    linear = jnp.dot(jax.grad(mean, 1)(table, m) ** 2, 1 - m * m)
    variance = mean(table**2, m) - mean(table, m) ** 2 - linear
    return mean(table, m) - jnp.where(order == 2, 0.5 * beta * variance, 0.0)


@jax.jit
@jax.vmap
def _gradient_and_hessian(table, m, beta, order):
    derivatives = jax.grad(truncated_excess, 1), jax.hessian(truncated_excess, 1)
    return [f(table, m, beta, order) for f in derivatives]


def stationarity(
    tables: np.ndarray, fields: np.ndarray, betas: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whether m = tanh(fields) are minima of the truncated G, judged from the tables alone.

    Returns:
        `max |dG/dm|`, and the lowest eigenvalue of `beta sqrt(v) (d^2 G/dm dm) sqrt(v)`, which
        has the sign of that of the Hessian; one of each a row.
    """
    orders = np.full(len(betas), order)
    gradient, hessian = _gradient_and_hessian(tables, np.tanh(fields), betas, orders)
    residual = np.max(np.abs(fields / betas[:, None] + gradient), axis=1)
    root = 2 * np.exp(-np.abs(fields)) / (1 + np.exp(-2 * np.abs(fields)))
    scaled = betas[:, None, None] * root[:, :, None] * np.asarray(hessian) * root[:, None, :]
    return residual, np.linalg.eigvalsh(np.eye(fields.shape[1]) + scaled)[:, 0]


def random_tree(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Free energies, all negative as they usually are, and barriers above them."""
    rng = np.random.default_rng(seed)
    free_energies = rng.normal(-50, 2, size)
    rises = rng.exponential(3, (size, size))
    barriers = np.maximum.outer(free_energies, free_energies) + np.triu(rises, 1)
    barriers = np.triu(barriers, 1)
    return free_energies, barriers + barriers.T


_LAPACK = {"cholesky", "lu", "eigh", "eig", "qr", "svd", "geqrf", "triangular_solve"}


def unordered_factorisations(function: Callable, *args: Any) -> list[tuple[Any, Any]]:
    """Pairs of equations of a program on the processor that call LAPACK for batches and do not
    wait for each other."""
    return _unordered(jax.make_jaxpr(function)(*args).jaxpr)


def _unordered(jaxpr: Any) -> list[tuple[Any, Any]]:
    # What nothing uses is not compiled, inside loops neither.
    jaxpr = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]
    found, calls, behind, platforms = [], [], {}, set()
    for k, equation in enumerate(jaxpr.eqns):
        before = set().union(*(behind.get(v, ()) for v in equation.invars if isinstance(v, Var)))
        inner = _branches(equation, platforms)
        if equation.primitive.name == "platform_index":
            platforms.update(equation.outvars)
        if _calls_for_batches(equation, inner):
            found += [(other, equation) for i, other in calls if i not in before]
            calls.append((k, equation))
            before.add(k)
        behind |= dict.fromkeys(equation.outvars, before)
        for j in inner:
            found += _unordered(getattr(j, "jaxpr", j))
    return found


def _branches(equation: Any, platforms: set) -> list[Any]:
    """Inner jaxprs; where the platform chooses one, that of the processor, which comes first."""
    inner = list(jaxprs_in_params(equation.params))
    chosen = bool(platforms.intersection(v for v in equation.invars if isinstance(v, Var)))
    return inner[:1] if chosen and equation.primitive.name == "cond" else inner


def _calls_for_batches(equation: Any, inner: list[Any]) -> bool:
    if equation.primitive.name in _LAPACK:
        return equation.invars[0].aval.ndim > 2
    platforms: set = set()
    for jaxpr in inner:
        for e in getattr(jaxpr, "jaxpr", jaxpr).eqns:
            if _calls_for_batches(e, _branches(e, platforms)):
                return True
            if e.primitive.name == "platform_index":
                platforms.update(e.outvars)
    return False


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a (closed) jaxpr, those of inner jaxprs included."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from equations(value)


def ends_at(fields: np.ndarray) -> Ends:
    """Descents that came to rest at these effective fields, one at each."""
    count, none = len(fields), np.zeros(len(fields), np.int32)
    return Ends(
        np.asarray(fields, np.float32),
        np.arange(count, dtype=np.float32),
        none + 1,
        none,
        np.array(False),
        np.array(0, np.int32),
        np.array(count, np.int32),
    )


class BelowUniform(tg.sampling.AbstractRule):
    """The heat bath by uniform thresholds, as a user may write it."""

    def variate(self, words, dtype):
        return tg.sampling.open_uniform(words, dtype)

    def never(self, spin):
        return jnp.where(spin > 0, -1.0, 2.0).astype(spin.dtype)

    def __call__(self, field, spin, threshold):
        return jnp.where(jax.nn.sigmoid(field) > threshold, 1, -1).astype(spin.dtype)


def run_alone(script: str, *arguments: str) -> None:
    """A script in a process of its own, which may see any number of devices; it ends by "done"."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=pathlib.Path(__file__).parent.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr[-3000:]
