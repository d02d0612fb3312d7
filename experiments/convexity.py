"""Where do many minima come from, if the exact potential has one?

The tables of addition a + b = c, represented at energy 0 with all other configurations at n, keep
all their couplings. The exact Gibbs potential G(m) is convex: its Hessian at random points, and
where descents from them end. Restricted to product measures, each spin independent of the others
at given m, the potential is that of naive mean field: its minima, quenched from all corners and as
many points inside, over beta. Prints a table and a verdict for each claim; saves JSON and a
picture.

In practice: the many minima that a free energy shows are made by the approximation, one for each
pattern in the cold. That is what makes a model of independent parts usable, as a library of states,
and what makes a single descent untrustworthy: where it ends depends on where it began, though the
exact answer does not. Search from many starts, and count.

    python -m experiments convexity [--quick] [--out DIR]
"""

import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import thermogen as tg
from experiments._shared import ACCENT, INK, MUTED, STYLE, claim, save

N_STEPS, SHORT = 1000, 1e-8  # descents of the exact potential
STRIDES = 0.5 ** np.arange(12)
QUICK = {"betas": (0.25, 0.5, 0.8, 1.2, 2.0, 4.0), "starts": 8}


def table_of(n_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies of all configurations, and the indices of the data."""
    data = tg.datasets.adder(n_bits)
    n = data.shape[1]
    rows = np.asarray(tg.index_from_spins(data))
    energies = np.full(2**n, float(n))
    energies[rows] = 0.0
    return energies, rows


def product_minima(energy: tg.Complete, beta: float) -> dict[str, Any]:
    """Distinct certified minima of the product-measure potential, mirror images counted."""
    n = energy.n_spins
    corners = np.asarray(tg.enumerate_spins(n), float)
    inside = np.random.default_rng(0).uniform(-0.9, 0.9, corners.shape)
    starts = np.concatenate([corners, inside])
    library = tg.find_minima(
        tg.NaiveMeanField(),
        energy,
        beta,
        key=jax.random.key(0),
        starts=starts,
        n_starts=1,
        capacity=256,
    )
    return {
        "minima": int(np.sum(library.multiplicity)),
        "overflow": bool(library.overflow),
        "converged": float(library.hits.sum() / (len(starts) + 1)),
    }


@eqx.filter_jit
def descend(energy, beta, starts):
    """Descents of the exact G(m) by Newton directions, each step the best of `STRIDES`.

    Returns the end points, the largest component of the Newton step from there, and for every
    start the lowest eigenvalue of d^2 G/dm dm: exact, then naive mean field. Slopes would not
    tell: across a nearly straight fold of G the rounding of m alone makes them 1e-5.
    """

    def potential(m):
        return tg.exact.gibbs_potential(energy, beta, m)

    def step(state):
        m, _, n = state
        slope = jax.grad(potential)(m)
        direction = -jnp.linalg.solve(jax.hessian(potential)(m), slope)
        # At most half way to the faces of the cube.
        room = jnp.min(jnp.where(direction > 0, 1 - m, 1 + m) / jnp.abs(direction))
        trials = m + jnp.minimum(1, 0.5 * room) * STRIDES[:, None] * direction
        best = trials[jnp.argmin(jax.lax.map(potential, trials))]
        left = jnp.max(jnp.abs(direction))
        return jnp.where(left < SHORT, m, best), left, n + 1

    def single(start):
        first = (start, jnp.full((), jnp.inf, start.dtype), 0)
        m, left, _ = jax.lax.while_loop(lambda s: (s[1] >= SHORT) & (s[2] < N_STEPS), step, first)
        exact = jax.hessian(potential)(start)
        naive = jax.hessian(lambda x: tg.NaiveMeanField()(energy, beta, x))(start)
        lowest = [jnp.linalg.eigvalsh(0.5 * (h + h.T))[0] for h in (exact, naive)]
        return m, left, jnp.stack(lowest)

    return jax.vmap(single)(starts)


def exact_minima(energy: tg.Complete, beta: float, starts: np.ndarray) -> dict[str, Any]:
    """Where descents of the exact potential end, and how far that is from `<s>`."""
    ends, left, curvature = map(np.asarray, descend(energy, jnp.asarray(beta), jnp.asarray(starts)))
    arrived = ends[left < SHORT]
    truth = np.asarray(tg.exact.magnetizations(energy, beta))
    return {
        "minima": len(np.unique(np.round(arrived, 4) + 0.0, axis=0)),
        "arrived": len(arrived) / len(ends),
        "distance to <s>": float(np.abs(arrived - truth).max(initial=0)),
        "lowest curvature": float(curvature[:, 0].min()),
        "lowest product curvature": float(curvature[:, 1].min()),
    }


def scan(n_bits: int, betas: tuple[float, ...], n_starts: int) -> list[dict[str, Any]]:
    """One row for each beta: minima of the product-measure potential and of the exact one."""
    energy = tg.Complete.from_energies(table_of(n_bits)[0])
    rng = np.random.default_rng(1)
    starts = rng.uniform(-0.95, 0.95, (n_starts, energy.n_spins))
    return [
        {
            "beta": beta,
            "product": product_minima(energy, beta),
            "exact": exact_minima(energy, beta, starts),
        }
        for beta in betas
    ]


def verdicts(found: dict[int, list[dict[str, Any]]]) -> None:
    every = [row["exact"] for rows in found.values() for row in rows]
    # A descent that did not arrive refutes nothing, and must not pass for a proof.
    one = all(row["minima"] == 1 and row["arrived"] == 1 for row in every)
    most = {b: max(row["product"]["minima"] for row in rows) for b, rows in found.items()}
    sizes = {b: len(table_of(b)[1]) for b in found}
    cold = {b: rows[-1]["product"]["minima"] for b, rows in found.items()}
    claim(
        "the exact G(m) is convex: every Hessian sampled is positive definite",
        all(row["lowest curvature"] > 0 for row in every),
        f"lowest eigenvalue {min(row['lowest curvature'] for row in every):.3g}; of product "
        f"measures {min(row['lowest product curvature'] for row in every):.3g}",
    )
    claim(
        "every descent of the exact G(m) ends at <s>: one minimum",
        one and all(row["distance to <s>"] < 1e-6 for row in every),
        f"largest distance {max(row['distance to <s>'] for row in every):.1e}, arrived "
        f"{np.mean([row['arrived'] for row in every]):.0%}",
    )
    claim(
        "product measures have many minima where the exact potential has one",
        one and all(count > 1 for count in most.values()),
        ", ".join(f"adder({b}): up to {count}" for b, count in most.items()),
    )
    claim(
        "cold product measures of the complete table: one minimum a datum, no more",
        cold == sizes,
        ", ".join(f"adder({b}): {cold[b]} for {sizes[b]} data" for b in found),
    )


def draw(found: dict[int, list[dict[str, Any]]]) -> Figure:
    """Numbers of minima against beta."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, (b, rows) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
            betas = [row["beta"] for row in rows]
            naive = [row["product"]["minima"] for row in rows]
            axes.plot(betas, naive, "o-", color=INK, label="product measure", markersize=4)
            exact = [row["exact"]["minima"] for row in rows]
            axes.plot(betas, exact, "s-", color=ACCENT, label="exact G(m)", markersize=3.5)
            axes.axhline(len(table_of(b)[1]), color=MUTED, linestyle=":", label="size of the data")
            axes.set_xscale("log")
            axes.set_xticks([0.2, 0.5, 1, 2, 4], ["0.2", "0.5", "1", "2", "4"])
            axes.set_xticks([], minor=True)
            axes.set_ylim(0, 1.25 * max(naive))
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_title(f"adder({b}), complete: minima of G(m)")
            axes.set(xlabel="inverse temperature β", ylabel="minima")
        figure.axes[0].legend(loc="best")
    return figure


def show(found: dict[int, list[dict[str, Any]]]) -> None:
    for b, rows in found.items():
        print(f"\nadder({b}), complete table: minima of G(m)")
        print(
            f"{'beta':>6}{'product':>9}{'converged':>11}{'exact':>7}{'arrived':>9}"
            f"{'to <s>':>9}{'exact curvature >=':>20}{'product curvature >=':>22}"
        )
        for row in rows:
            product, exact = row["product"], row["exact"]
            line = f"{row['beta']:6.2f}{product['minima']:9}{product['converged']:11.4f}"
            line += f"{exact['minima']:7}{exact['arrived']:9.2f}{exact['distance to <s>']:9.1e}"
            line += f"{exact['lowest curvature']:20.4g}{exact['lowest product curvature']:22.4g}"
            print(line)


def main(
    *,
    betas: tuple[float, ...] = tuple(np.round(np.geomspace(0.2, 4, 14), 2).tolist()),
    starts: int = 32,
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    found = {b: scan(b, betas, starts) for b in (1, 2)}  # bits of the summands
    show(found)
    print()
    verdicts(found)
    save(out / "convexity.json", found)
    save(out / "convexity.png", draw(found))
