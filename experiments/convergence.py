"""Do mean-field solves converge, and is it true when they say so?

Part one, models of real data: a pairwise model (pseudolikelihood) and a 64 x 100 RBM (PCD), both
learned from the 8x8 digits. Starts are all samples and 1000 random corners. Compared: the plain
damped iteration m <- (m + tanh(...))/2, mirror descent with a fixed step, and `tg.quench`.

Part two, 100 800 solves of random SK, Hopfield, 3-spin and RBM models, half of them by `quench`
and half by `solve`: how many claims of convergence are false?

Both are judged by gradients written out anew in NumPy: a claim of convergence is true if
max |dG/dm| < 1e-8 and no eigenvalue of the Jacobian of beta dG/dm by theta is below zero; a start
that was given up is accounted for if the gradient, or the eigenvalue, confirms the code.

Tasks of an array share the models, temperatures and functionals of both parts.

    python -m experiments convergence [--out DIR]
"""

import itertools
import pathlib
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import claim, table
from thermogen._tasks import Task

TOLERANCE = 1e-8
# Lowest eigenvalue that counts as zero: finite differences resolve no less.
FLAT = 1e-6
N_ITERATIONS = 1000
FUNCTIONALS = {"naive": tg.NaiveMeanField(), "TAP": tg.TAP()}

# From effective fields, shape (batch, n), to beta dG/dm of the same shape.
Residual = Callable[[np.ndarray], np.ndarray]


# --- what is true, in NumPy


def pair_residual(couplings: np.ndarray, fields: np.ndarray, beta: float, order: int) -> Residual:
    """Of naive mean field (order 1) or TAP (order 2) with couplings between pairs."""

    def residual(theta: np.ndarray) -> np.ndarray:
        m = np.tanh(theta)
        field = fields + m @ couplings
        if order == 2:
            field = field - beta * m * (np.cosh(theta) ** -2.0 @ couplings**2)
        return theta - beta * field

    return residual


def triple_residual(couplings: np.ndarray, beta: float, order: int) -> Residual:
    """The same with couplings between triples only, a symmetric (n, n, n) tensor."""

    def residual(theta: np.ndarray) -> np.ndarray:
        m, v = np.tanh(theta), np.cosh(theta) ** -2.0
        pairs = np.einsum("ijk,bk->bij", couplings, m, optimize=True)
        field = 0.5 * np.einsum("bij,bj->bi", pairs, m)
        if order == 2:
            weighted = pairs * v[:, :, None] * v[:, None, :]
            field = field + 0.5 * beta * np.einsum(
                "bjk,ijk->bi", weighted, couplings, optimize=True
            )
            field = field - beta * m * np.einsum("bij,bj->bi", pairs**2, v)
            square = np.einsum("ijk,bj,bk->bi", couplings**2, v, v, optimize=True)
            field = field - 0.5 * beta * m * square
        return theta - beta * field

    return residual


def lowest_eigenvalues(residual: Residual, theta: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Of d residual/d theta, which has the eigenvalues of the scaled Hessian."""
    columns = [
        (residual(theta + step * e) - residual(theta - step * e)) / (2 * step)
        for e in np.eye(theta.shape[1])
    ]
    return np.linalg.eigvals(np.stack(columns, axis=2)).real.min(axis=1)


def judge(solution, residual: Residual, beta: float) -> dict[str, int]:
    """Counts: converged and truly so, falsely so, given up with the right and the wrong code."""
    theta = np.asarray(solution.state["fields"])
    slopes = np.abs(residual(theta)).max(axis=1) / beta
    lowest = np.concatenate(
        [
            lowest_eigenvalues(residual, part)
            for part in np.array_split(theta, -(-len(theta) // 256))
        ]
    )
    says = {code: np.asarray(solution.result == getattr(tg.RESULTS, code)) for code in CODES}
    is_minimum = (slopes < TOLERANCE) & (lowest > -FLAT)
    confirmed = (says["stalled"] & (slopes > 1e-10)) | (says["saddle"] & (lowest < FLAT))
    return {
        "converged": int(np.sum(says["converged"] & is_minimum)),
        "false claims": int(np.sum(says["converged"] & ~is_minimum)),
        "coded": int(np.sum(confirmed)),
        "wrong codes": int(np.sum(~says["converged"] & ~confirmed)),
    }


CODES = ("converged", "stalled", "saddle")


# --- part one: models of the digits


def pairwise_of_digits(data: np.ndarray) -> tg.Pairwise:
    n = data.shape[1]
    start = tg.Pairwise(jnp.zeros((n, n)), jnp.zeros(n))
    fitted = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0))
    if fitted.result != tg.RESULTS.converged:
        raise RuntimeError(f"the fit did not converge: {tg.RESULTS[fitted.result]}")
    return fitted.energy


def rbm_of_digits(data: np.ndarray) -> tg.RBM:
    key, fit_key = jax.random.split(jax.random.key(0))
    start = tg.RBM.random(100, data.mean(axis=0), key=key)
    return tg.fit(tg.PersistentCD(), start, data, key=fit_key).energy


def with_hidden(energy: tg.RBM, visible: np.ndarray, beta: float) -> np.ndarray:
    """Visible spins and, after them, the means of the hidden ones given these."""
    hidden = np.tanh(beta * (np.asarray(energy.hidden_fields) + visible @ energy.weights))
    return np.concatenate([visible, hidden], axis=1)


def gradient(functional, energy, m, beta):
    return jax.grad(functional, argnums=2)(energy, beta, m)


@jax.jit
def damped(functional, energy, beta, m):
    """m <- (m + tanh(theta - beta dG/dm))/2: half-way to the fixed-point equation."""

    def step(_, m):
        target = jnp.tanh(jnp.arctanh(m) - beta * gradient(functional, energy, m, beta))
        return 0.5 * (m + target)

    m = jax.lax.fori_loop(0, N_ITERATIONS, step, m)
    return jnp.max(jnp.abs(gradient(functional, energy, m, beta)))


@jax.jit
def fixed_step(functional, energy, beta, m):
    """theta <- theta - 0.2 beta dG/dm with m = tanh theta."""

    def step(_, theta):
        return theta - 0.2 * beta * gradient(functional, energy, jnp.tanh(theta), beta)

    theta = jax.lax.fori_loop(0, N_ITERATIONS, step, jnp.arctanh(m))
    return jnp.max(jnp.abs(gradient(functional, energy, jnp.tanh(theta), beta)))


def share_below(residuals: np.ndarray) -> float:
    return float(np.mean(residuals < TOLERANCE))  # NaN compares as not converged


def compare(functional, energy, beta: float, starts: np.ndarray, n_data: int) -> dict[str, float]:
    """Shares of starts that reach a certified minimum by each method, and the time of ours."""
    inside = jnp.asarray(0.99 * starts)
    row = {}
    for name, method in [("damped", damped), ("fixed step", fixed_step)]:
        run = jax.vmap(lambda m, f=method: f(functional, energy, beta, m))
        row[name] = share_below(np.asarray(run(inside)))
    tg.quench(functional, energy, beta, starts)  # compile
    began = time.perf_counter()
    solution = tg.quench(functional, energy, beta, starts)
    row["seconds"] = time.perf_counter() - began
    couplings, fields = dense(energy)
    truth = pair_residual(couplings, fields, beta, functional.order)
    of_data = judge(jax.tree.map(lambda x: x[:n_data], solution), truth, beta)
    row["data, converged"] = of_data["converged"] / n_data
    row["data, coded"] = of_data["coded"] / n_data
    everything = judge(solution, truth, beta)
    row["all, converged"] = everything["converged"] / len(starts)
    row["false claims"] = everything["false claims"]
    row["wrong codes"] = everything["wrong codes"]
    certified = np.asarray(solution.result == tg.RESULTS.converged)
    row["minima"] = len(np.unique(np.round(solution.value[certified], 5), axis=0))
    return row


def dense(energy: tg.Pairwise | tg.RBM) -> tuple[np.ndarray, np.ndarray]:
    """Couplings (n, n) and fields (n,) of a model of pairs."""
    if isinstance(energy, tg.Pairwise):
        return np.asarray(energy.couplings), np.asarray(energy.fields)
    weights = np.asarray(energy.weights)
    v, h = weights.shape
    couplings = np.block([[np.zeros((v, v)), weights], [weights.T, np.zeros((h, h))]])
    return couplings, np.concatenate([energy.visible_fields, energy.hidden_fields])


def study_digits(task: Task) -> list[dict]:
    data = tg.datasets.digits().spins
    rng = np.random.default_rng(0)
    visible = np.concatenate([data, rng.choice([-1, 1], size=(1000, data.shape[1]))])
    pairwise, rbm = pairwise_of_digits(data), rbm_of_digits(data)
    cases = [
        *itertools.product(["pairwise"], ["TAP", "naive"], (1.0, 1.5, 2.0)),
        *itertools.product(["RBM"], ["TAP", "naive"], (1.0, 1.2, 1.5)),
    ]
    rows = []
    columns = ["damped", "fixed step", "data, converged", "data, coded", "all, converged"]
    columns += ["false claims", "wrong codes", "minima", "seconds"]
    print(f"{len(data)} data starts of {len(visible)}; certified: max |dG/dm| < {TOLERANCE:g}")
    print(f"{'model':>9}{'functional':>12}{'beta':>6}" + "".join(f"{c:>16}" for c in columns))
    for model, name, beta in task.part(cases):
        energy = pairwise if model == "pairwise" else rbm
        starts = visible if model == "pairwise" else with_hidden(rbm, visible, beta)
        row = compare(FUNCTIONALS[name], energy, beta, starts, len(data))
        rows.append({"model": model, "functional": name, "beta": beta, **row})
        figures = "".join(f"{row[c]:16.5g}" for c in columns)
        print(f"{model:>9}{name:>12}{beta:6.1f}{figures}", flush=True)
    return rows


# --- part two: claims of convergence on random models


def sk(rng: np.random.Generator):
    upper = np.triu(rng.normal(size=(20, 20)), 1) / np.sqrt(20)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=20))


def hopfield(rng: np.random.Generator):
    patterns = rng.choice([-1.0, 1.0], size=(3, 24))
    couplings = patterns.T @ patterns / 24
    np.fill_diagonal(couplings, 0)
    return tg.Pairwise(couplings, np.zeros(24))


def three_spin(rng: np.random.Generator):
    triples = np.array(list(itertools.combinations(range(12), 3)))
    return tg.Interactions(12, [triples], [rng.normal(size=len(triples)) * np.sqrt(3.0) / 12])


def rbm(rng: np.random.Generator):
    return tg.RBM(rng.normal(size=(12, 10)) / 3, *(0.2 * rng.normal(size=k) for k in (12, 10)))


FAMILIES = {"SK": sk, "Hopfield": hopfield, "3-spin": three_spin, "RBM": rbm}
BETAS = (0.7, 1.5, 3.0)
N_MODELS, N_STARTS = 12, 175


def truth_of(energy, beta: float, order: int) -> Residual:
    if not isinstance(energy, tg.Interactions):
        return pair_residual(*dense(energy), beta, order)
    n, (table,) = energy.n_spins, energy.sets
    tensor = np.zeros((n, n, n))
    for order_of_spins in itertools.permutations(range(3)):
        tensor[tuple(table.indices[:, order_of_spins].T)] = energy.couplings[0]
    return triple_residual(tensor, beta, order)


@eqx.filter_jit
def solve_all(functional, energy, beta, starts):
    run = lambda start: tg.solve(functional, energy, beta, start, throw=False)  # noqa: E731
    return jax.vmap(run)(starts)


COUNTS = "converged", "false claims", "coded", "wrong codes"


def count_claims(task: Task) -> list[dict]:
    """Counts of each model, temperature, functional and driver."""
    rows = []
    for family, make in FAMILIES.items():
        rng, own = np.random.default_rng(list(FAMILIES).index(family)), []
        models = [make(rng) for _ in range(N_MODELS)]
        cases = itertools.product(enumerate(models), BETAS, FUNCTIONALS.items())
        drawn = [(case, rng.uniform(-1, 1, (N_STARTS, models[0].n_spins))) for case in cases]
        for ((number, energy), beta, (name, functional)), starts in task.part(drawn):
            starts[::2] = np.sign(starts[::2])
            truth = truth_of(energy, beta, functional.order)
            case = {"family": family, "model": number, "beta": beta, "functional": name}
            for driver, solve in (("quench", tg.quench), ("solve", solve_all)):
                counts = judge(solve(functional, energy, beta, starts), truth, beta)
                own.append({**case, "driver": driver, **counts})
        total = {name: sum(row[name] for row in own) for name in COUNTS}
        print(f"{family:>10}: " + ", ".join(f"{k} {v}" for k, v in total.items()), flush=True)
        rows += own
    return rows


def main(out: pathlib.Path = pathlib.Path("results"), task: Task = Task()) -> None:
    counts = count_claims(task)
    table(out / "convergence_claims.csv", counts)
    digits = study_digits(task)
    table(out / "convergence_digits.csv", digits)
    if of_tap := [row for row in digits if row["functional"] == "TAP"]:
        share = min(row["data, converged"] + row["data, coded"] for row in of_tap)
        certified = min(row["data, converged"] for row in of_tap)
        claim(
            "with TAP at least 99.9 % of the data starts are certified or coded",
            share >= 0.999,
            f"least {share:.5f}, certified {certified:.5f}",
        )
    n_solves = sum(row[name] for row in counts for name in COUNTS)
    n_false = sum(row["false claims"] for row in counts + digits)
    claim(
        f"no false claim of convergence in {n_solves} solves and the table",
        n_false == 0,
        f"{n_false}",
    )
