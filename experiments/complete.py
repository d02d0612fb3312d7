"""Is a complete description any table of data, and how far from it is a wrong one?

Random tables of energies of 2^n configurations, Gaussian and with a gap above a few represented
ones, many of each at once. One coupling for each set of spins describes a table completely: it is
turned to couplings and back, and the ensembles are compared. The Gibbs gap, `<E>_x - T S(x) - A(E)`
computed from its three parts, is compared with T KL(x || p) for weights x that lead from the
Boltzmann weights p of the table to random others. The potential of learning `<E>_data - A(E)` is
taken along straight lines between pairs of tables, where second differences tell whether it is
convex. Prints a verdict for each claim; saves a table, JSON and a picture.

In practice: with as many couplings as configurations nothing is lost and learning is convex: the
training loss has one minimum, and what it lacks to the entropy of the data is T times the KL
divergence, in units of energy. All trouble on this page comes with the reduction that makes a model
affordable, not with the data and not with the loss.

    python -m experiments complete [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, STYLE, claim, save, table

SHARES = np.linspace(0, 1, 11)  # of the way from p to other weights, or from table to table
EXACT = 1e-10
QUICK = {"sizes": (4, 8), "tables": 16}


def tables(kind: str, n: int, count: int) -> jax.Array:
    """Energies, shape `(count, 2**n)`."""
    rng = np.random.default_rng(n)
    if kind == "Gaussian":
        return jnp.asarray(np.sqrt(n) * rng.normal(size=(count, 2**n)))
    ranks = rng.random((count, 2**n)).argsort(axis=1)
    return jnp.asarray(np.where(ranks < 2 ** (n // 2), 0.0, n))


@jax.jit
@jax.vmap
def round_trip(energies):
    """Largest error of table -> couplings -> table, and KL of the ensembles at T = 1."""
    rebuilt = tg.Complete.from_energies(energies).energies()
    log_p, log_q = jax.nn.log_softmax(-energies), jax.nn.log_softmax(-rebuilt)
    return jnp.max(jnp.abs(rebuilt - energies)), jnp.sum(jnp.exp(log_p) * (log_p - log_q))


@jax.jit
def gaps(energies, others, beta):
    """Gibbs gap by its parts, and T KL(x || p), for each share, shape `(2, shares)`."""
    log_p, log_other = jax.nn.log_softmax(-beta * energies), jax.nn.log_softmax(others)

    def at(share):
        log_x = jax.nn.log_softmax((1 - share) * log_p + share * log_other)
        x = jnp.exp(log_x)
        parts = x @ energies + tg.exact.legendre_potential(x, beta)
        gap = parts - tg.exact.conjoint_potential(energies, beta)
        return jnp.stack([gap, x @ (log_x - log_p) / beta])

    return jax.vmap(at)(jnp.asarray(SHARES)).T


@jax.jit
def bends(one, other, data):
    """Second differences of `<E>_data - A(E)` along the line between two tables."""

    def potential(share):
        energies = (1 - share) * one + share * other
        return data @ energies - tg.exact.conjoint_potential(energies, 1.0)

    return jnp.diff(jax.vmap(potential)(jnp.asarray(SHARES)), 2)


def measure(kind: str, n: int, count: int, betas: np.ndarray) -> dict[str, Any]:
    energies = tables(kind, n, count)
    normal = jax.random.normal(jax.random.key(n), energies.shape)
    error, kl = round_trip(energies)
    mapped = jax.vmap(jax.vmap(gaps, (0, 0, None)), (None, None, 0))
    gap, divergence = np.moveaxis(np.asarray(mapped(energies, 2 * normal, betas)), 2, 0)
    data = jax.nn.softmax(normal, axis=1)
    bend = jax.vmap(bends)(energies, tables("Gaussian", n, count)[::-1], data)
    return {
        "kind": kind,
        "n": n,
        "round trip": float(jnp.max(error)),
        "kl": float(jnp.max(jnp.abs(kl))),
        "gap less T KL": float(np.max(np.abs(gap - divergence))),
        "gap at p": float(np.max(np.abs(gap[..., 0]))),
        "least gap elsewhere": float(gap[..., 1:].min()),
        "least bend": float(jnp.min(bend)),
        "gaps": gap.mean(axis=1),
    }


def verdicts(rows: list[dict[str, Any]], count: int) -> None:
    worst = {k: max(r[k] for r in rows) for k in ("round trip", "kl", "gap less T KL", "gap at p")}
    least = {k: min(r[k] for r in rows) for k in ("least gap elsewhere", "least bend")}
    claim(
        "a complete set of couplings reproduces any table, and its ensemble: KL = 0",
        worst["round trip"] < EXACT and worst["kl"] < EXACT,
        f"{count * len(rows)} tables: largest error {worst['round trip']:.1e} T, KL "
        f"{worst['kl']:.1e} nats",
    )
    claim(
        "the Gibbs gap is T KL(x || p)",
        worst["gap less T KL"] < EXACT,
        f"largest difference {worst['gap less T KL']:.1e}",
    )
    claim(
        "it is zero at the Boltzmann weights, and above zero elsewhere",
        worst["gap at p"] < EXACT and least["least gap elsewhere"] > EXACT,
        f"at p {worst['gap at p']:.1e}, elsewhere at least {least['least gap elsewhere']:.1e}",
    )
    claim(
        "the potential of learning is convex between any two complete descriptions",
        least["least bend"] > 0,
        f"least second difference {least['least bend']:.1e}",
    )


def draw(rows: list[dict[str, Any]], betas: np.ndarray) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("Gaussian", "gap"), strict=True):
            largest = [row for row in rows if row["kind"] == kind][-1]
            colors = (GREEN, INK, ACCENT)
            for curve, beta, color in zip(largest["gaps"], betas, colors, strict=True):
                axes.semilogy(SHARES[1:], curve[1:], "o-", color=color, markersize=3,
                              label=f"T = {1 / beta:g}")  # fmt: skip
            axes.legend()
            axes.set_title(f"{kind}, n = {largest['n']}")
            axes.set(xlabel="how far the weights x are from p (0: at p)")
        figure.axes[0].set_ylabel("Gibbs gap = T KL(x || p), mean")
    return figure


def main(
    *,
    sizes: tuple[int, ...] = (4, 8, 12),
    tables: int = 64,
    betas: tuple[float, ...] = (0.5, 1.0, 2.0),
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    kinds = [(kind, n) for kind in ("Gaussian", "gap") for n in sizes]
    rows = [measure(kind, n, tables, np.asarray(betas)) for kind, n in kinds]
    shown = [{k: v for k, v in row.items() if k != "gaps"} for row in rows]
    for row in shown:
        print(", ".join(f"{k} {v}" for k, v in row.items()))
    verdicts(rows, tables)
    table(out / "complete.csv", shown)
    save(out / "complete.json", rows)
    save(out / "complete.png", draw(rows, np.asarray(betas)))
