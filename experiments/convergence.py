"""Do solves of the TAP equations converge on a model of real data?

The model is pairwise, learned from the 8x8 digits by pseudolikelihood. Starts are all samples
and 1000 random corners. Compared: the plain damped iteration m <- (m + tanh(...))/2, mirror
descent with a fixed step, and `thermogen.quench`. Prints a table and saves it as JSON.

    python experiments/convergence.py [--out DIR]
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg

TOLERANCE = 1e-8
N_ITERATIONS = 1000


def digits_model() -> tuple[tg.Pairwise, np.ndarray]:
    """The learned energy and the samples."""
    data = tg.datasets.digits().spins
    n = data.shape[1]
    start = tg.Pairwise(jnp.zeros((n, n)), jnp.zeros(n))
    fitted = tg.fit(start, data, objective=tg.Pseudolikelihood(l2=1e-3), key=jax.random.key(0))
    if fitted.result != tg.RESULTS.converged:
        raise RuntimeError(f"the fit did not converge: {tg.RESULTS[fitted.result]}")
    return fitted.energy, data


def gradient(functional, energy, m, beta):
    return jax.grad(functional, argnums=1)(energy, m, beta)


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


def share_converged(residuals: np.ndarray) -> float:
    return float(np.mean(residuals < TOLERANCE))  # NaN compares as not converged


def compare(functional, energy, beta: float, starts: np.ndarray) -> dict[str, float]:
    """Share of starts that reach max |dG/dm| < 1e-8 by each method, and the time of ours."""
    inside = jnp.asarray(0.99 * starts)
    row = {}
    for name, method in [("damped", damped), ("fixed step", fixed_step)]:
        run = jax.vmap(lambda m, f=method: f(functional, energy, beta, m))
        row[name] = share_converged(np.asarray(run(inside)))
    tg.quench(functional, energy, beta, starts)  # compile
    began = time.perf_counter()
    solution = tg.quench(functional, energy, beta, starts)
    row["quench seconds"] = time.perf_counter() - began
    certified = np.asarray(solution.result == tg.RESULTS.converged)
    row["quench"] = float(np.mean(certified & (solution.stats["residual"] < TOLERANCE)))
    row["minima"] = len(np.unique(np.round(solution.value[certified], 5), axis=0))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"))
    out = parser.parse_args().out
    jax.config.update("jax_enable_x64", True)
    energy, data = digits_model()
    rng = np.random.default_rng(0)
    starts = np.concatenate([data, rng.choice([-1, 1], size=(1000, data.shape[1]))])
    table = []
    columns = ["damped", "fixed step", "quench", "minima", "quench seconds"]
    print(f"{len(starts)} starts; share with max |dG/dm| < {TOLERANCE:g}")
    print(f"{'functional':>12}{'beta':>6}" + "".join(f"{c:>16}" for c in columns))
    for name, functional in [("TAP", tg.TAP()), ("naive", tg.NaiveMeanField())]:
        for beta in (1.0, 1.5, 2.0):
            row = compare(functional, energy, beta, starts)
            table.append({"functional": name, "beta": beta, **row})
            print(
                f"{name:>12}{beta:6.1f}" + "".join(f"{row[c]:16.4g}" for c in columns), flush=True
            )
    out.mkdir(parents=True, exist_ok=True)
    (out / "convergence.json").write_text(json.dumps(table, indent=1))
    verdict = all(r["quench"] >= 0.999 for r in table if r["functional"] == "TAP")
    print(
        "claim: at least 99.9 % of the starts converge with TAP:", "holds" if verdict else "FAILS"
    )


if __name__ == "__main__":
    main()
