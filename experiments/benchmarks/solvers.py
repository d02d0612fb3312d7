"""Which root finder for a mean-field free energy, and what a gradient through `solve` costs?

Part one compares, on batches of 64 random starts, adaptive mirror descent (the default of
`tg.solve`), Anderson acceleration of the damped iteration (window 5), and Newton-Krylov
(optimistix.Newton with GMRES), each to max |beta dG/dm| < 1e-4 and then to 1e-9: share of starts
that end in a minimum, gradient evaluations (for Newton-Krylov, steps), milliseconds a start.

Part two times a forward solve, one Newton step of it, `jax.grad` of m* through `solve` with the
implicit adjoint, and `jax.grad` of G*, which needs no solve. Compile time is left out.

    python -m experiments benchmarks.solvers
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx

import thermogen as tg
from thermogen.meanfield import MirrorDescent, NewtonPolish
from thermogen.meanfield._solve import expanded, residual_at

WINDOW = 5
N_STEPS = 512


class Anderson(optx.AbstractRootFinder):
    """theta <- theta - a r, corrected so that a linear r would vanish."""

    rtol: float
    atol: float
    norm = staticmethod(optx.max_norm)
    damping: float = 0.5

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        blank = jnp.zeros((WINDOW, y.size), y.dtype)
        return y, fn(y, args)[0], blank, blank, jnp.array(0)

    def step(self, fn, y, args, options, state, tags):
        old, residual, shifts, turns, count = state
        # Least squares, lightly regularised, over the columns in use.
        gram = turns @ turns.T
        scale = jnp.trace(gram) + jnp.finfo(y.dtype).tiny
        gram = gram / scale + 1e-10 * jnp.eye(WINDOW, dtype=y.dtype)
        weights = jnp.linalg.solve(gram, turns @ residual / scale)
        new = y - self.damping * (residual - weights @ turns) - weights @ shifts
        new_residual, _ = fn(new, args)
        slot = count % WINDOW
        shifts = shifts.at[slot].set(new - y)
        turns = turns.at[slot].set(new_residual - residual)
        return new, (y, new_residual, shifts, turns, count + 1), None

    def terminate(self, fn, y, args, options, state, tags):
        small = self.norm(state[1]) <= self.atol + self.rtol * self.norm(y)
        return small | ~jnp.all(jnp.isfinite(y)), optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {}


def sk(n: int, seed: int = 0) -> tg.Pairwise:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(n, n)), 1) / np.sqrt(n)
    return tg.Pairwise(upper + upper.T, 0.1 * rng.normal(size=n))


def digits() -> tg.Pairwise:
    data = tg.datasets.digits().spins
    start = tg.Pairwise(jnp.zeros((64, 64)), jnp.zeros(64))
    return tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0)).energy


def solvers(atol: float) -> dict[str, optx.AbstractRootFinder]:
    krylov = lx.GMRES(rtol=1e-2, atol=1e-2 * atol, restart=30, max_steps=60)
    return {
        "mirror descent": MirrorDescent(rtol=0.0, atol=atol),
        "Anderson": Anderson(rtol=0.0, atol=atol),
        "Newton-Krylov": optx.Newton(rtol=0.0, atol=atol, linear_solver=krylov),
    }


@eqx.filter_jit
def run(functional, energy, beta, starts, solver):
    problem = tg.meanfield.Problem(functional, energy, beta)

    def single(theta):
        root = optx.root_find(residual_at, solver, theta, problem, max_steps=N_STEPS, throw=False)
        m = jnp.tanh(root.value)
        small = jnp.max(jnp.abs(problem.residual(root.value))) <= 2 * solver.atol
        variance = jnp.sqrt(1 / jnp.cosh(root.value) ** 2)
        excess = jax.hessian(functional.excess, argnums=2)(energy, beta, m)
        hessian = jnp.eye(m.size) + beta * variance[:, None] * excess * variance[None, :]
        return small & (jnp.linalg.eigvalsh(hessian)[0] > 0), root.stats["num_steps"]

    return jax.vmap(single)(starts)


@eqx.filter_jit
def run_alone(functional, energy, beta, starts, solver):
    """One start after the other, so that none waits for the slowest; no judgement."""
    problem = tg.meanfield.Problem(functional, energy, beta)

    def single(theta):
        return optx.root_find(
            residual_at, solver, theta, problem, max_steps=N_STEPS, throw=False
        ).value

    return jax.lax.map(single, starts)


def seconds(function, *arguments, repeats: int = 3) -> float:
    """Least of several runs after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return min(times)


def compare_solvers() -> None:
    learned = digits()
    cases = [
        *(("SK 64", sk(64), "TAP", beta) for beta in (0.5, 1.0, 2.0)),
        *(("SK 64", sk(64), "naive", beta) for beta in (1.0, 2.0)),
        *(("SK 256", sk(256), "TAP", beta) for beta in (0.5, 1.0)),
        *(("digits", learned, name, 1.0) for name in ("TAP", "naive")),
    ]
    functionals = {"TAP": tg.TAP(), "naive": tg.NaiveMeanField()}
    print(
        f"{'model':>8}{'':>7}{'beta':>6}{'tol':>8}{'solver':>16}{'minima':>8}{'steps':>8}{'ms':>9}"
    )
    for model, energy, name, beta in cases:
        rng = np.random.default_rng(1)
        starts = jnp.arctanh(0.9 * jnp.asarray(rng.choice([-1.0, 1.0], (64, energy.n_spins))))
        for atol in (1e-4, 1e-9):
            for label, solver in solvers(atol).items():
                arguments = functionals[name], energy, jnp.asarray(beta), starts, solver
                good, steps = run(*arguments)
                cost = 1e3 * seconds(run_alone, *arguments) / len(starts)
                print(
                    f"{model:>8}{name:>7}{beta:6.1f}{atol:8.0e}{label:>16}"
                    f"{np.mean(good):8.2f}{np.mean(steps):8.1f}{cost:9.3f}",
                    flush=True,
                )


@eqx.filter_jit
def newton_step(functional, energy, beta, theta):
    newton, problem = NewtonPolish(), (functional, energy, beta)
    _, aux = eqx.filter_eval_shape(expanded, theta, problem)
    state = newton.init(expanded, theta, problem, {}, None, aux, frozenset())
    _, state, _ = newton.step(expanded, theta, problem, {}, state, frozenset())
    return newton.step(expanded, theta, problem, {}, state, frozenset())[0]


def mean_magnetization(functional, energy, beta, init):
    return jnp.mean(tg.solve(functional, energy, beta, init, throw=False).value)


def free_energy(functional, energy, beta, init):
    return tg.solve(functional, energy, beta, init, throw=False).stats["free_energy"]


def time_gradients() -> None:
    columns = ["forward", "Newton step", "grad m*", "in steps", "grad G*"]
    print(f"{'spins':>6}" + "".join(f"{c:>13}" for c in columns) + "  (ms)")
    for n in (64, 256, 512):
        arguments = tg.TAP(), sk(n), jnp.asarray(0.5), jnp.zeros(n)
        forward = seconds(jax.jit(mean_magnetization), *arguments)
        step = seconds(newton_step, *arguments[:3], jnp.arctanh(0.1 * jnp.ones(n)))
        through, free = (
            seconds(jax.jit(jax.value_and_grad(f, argnums=(1, 2))), *arguments) - forward
            for f in (mean_magnetization, free_energy)
        )
        row = [1e3 * forward, 1e3 * step, 1e3 * through, through / step, 1e3 * free]
        print(f"{n:6}" + "".join(f"{x:13.2f}" for x in row), flush=True)


def main() -> None:
    time_gradients()
    compare_solvers()
