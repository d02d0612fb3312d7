"""What does a reduced description lose, and what does it invent?

The tables of addition a + b = c, represented at energy 0 with all other configurations at n, are
complete descriptions: one coupling for each set of spins. Two ways to reduce them:

- couplings of at most k spins are kept: single-flip minima of the truncated energy, those that
  are not data (false positives), Boltzmann mass left on the data, error of the energies;
- the measure is a product over spins: minima of its potential (naive mean field), quenched from
  all corners and as many points inside, against the exact Gibbs potential G(m), which is convex:
  its Hessian at random points, and where descents from them end.

Prints tables and a verdict for each claim; saves JSON and a picture.

    python -m experiments reduction [--out DIR]
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
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, claim, save
from thermogen.walsh import degrees

TRUNCATED, SCANNED = (1, 2, 3), (1, 2)  # bits of the summands
TEMPERATURES = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
BETAS = np.round(np.geomspace(0.2, 4, 14), 2)
SHOWN_BETA = 2.0  # where the product-measure potential of truncated energies is searched
N_STARTS, N_STEPS, SHORT = 32, 1000, 1e-8  # descents of the exact potential
STRIDES = 0.5 ** np.arange(12)
ROUND_TRIP = 1e-12


def table_of(n_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies of all configurations, and the indices of the data."""
    data = tg.datasets.adder(n_bits)
    n = data.shape[1]
    rows = np.asarray(tg.index_from_spins(data))
    energies = np.full(2**n, float(n))
    energies[rows] = 0.0
    return energies, rows


def round_trip(energies: np.ndarray) -> dict[str, float]:
    """Largest error of table -> couplings -> table, and the KL between the two ensembles."""
    rebuilt = tg.Complete.from_energies(energies).energies()
    logits = -energies[None, :] / TEMPERATURES[:, None]
    p, log_p = jax.nn.softmax(logits, axis=1), jax.nn.log_softmax(logits, axis=1)
    log_q = jax.nn.log_softmax(-rebuilt / TEMPERATURES[:, None], axis=1)
    return {
        "error": float(jnp.max(jnp.abs(rebuilt - energies))),
        "kl": float(jnp.max(jnp.abs(jnp.sum(p * (log_p - log_q), axis=1)))),
    }


@jax.jit
def truncations(couplings, degree, kept, rows, temperatures):
    """For each kept degree: couplings, lost norm, largest error, and data mass for each T."""
    table = tg.Complete(couplings).energies()

    def mass(energies, temperature):
        return jnp.sum(jax.nn.softmax(-energies / temperature)[rows])

    def one(k):
        short = jnp.where(degree <= k, couplings, 0)
        energies = tg.Complete(short).energies()
        # By Parseval this is also the root mean square error of the energies.
        lost = jnp.linalg.norm(couplings - short)
        masses = jax.vmap(mass, (None, 0))(energies, temperatures)
        return short, lost, jnp.max(jnp.abs(energies - table)), masses

    return jax.vmap(one)(kept)


def reduce_couplings(n_bits: int) -> list[dict[str, Any]]:
    """One row for each kept degree."""
    energies, rows = table_of(n_bits)
    complete = tg.Complete.from_energies(energies)
    n = complete.n_spins
    kept = np.arange(1, n + 1)
    found = truncations(complete.couplings, degrees(n), kept, rows, TEMPERATURES)
    result = []
    for k, short, lost, error, masses in zip(kept, *map(np.asarray, found), strict=True):
        energy = tg.Complete(short)
        minima = tg.exact.single_flip_minima(energy, threshold=1e-12)
        same = np.array_equal(minima, tg.exact.single_flip_minima(complete.truncate(int(k))))
        n_data = int(np.isin(minima, rows).sum())
        row = {
            "degree": int(k),
            "couplings": int(np.sum(degrees(n) <= k)),
            "minima": len(minima),
            "data": n_data,
            "false positives": len(minima) - n_data,
            "lost norm": float(lost),
            "largest error": float(error),
            "library mass": dict(zip(map(str, TEMPERATURES), masses.tolist(), strict=True)),
            "agrees with truncate()": same,
        }
        if n_bits in SCANNED:
            row["product minima"] = product_minima(energy, SHOWN_BETA)["minima"]
        result.append(row)
    return result


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


def reduce_measure(n_bits: int) -> list[dict[str, Any]]:
    """One row for each beta: minima of the product-measure potential and of the exact one."""
    energy = tg.Complete.from_energies(table_of(n_bits)[0])
    rng = np.random.default_rng(1)
    starts = rng.uniform(-0.95, 0.95, (N_STARTS, energy.n_spins))
    return [
        {
            "beta": float(beta),
            "product": product_minima(energy, float(beta)),
            "exact": exact_minima(energy, float(beta), starts),
        }
        for beta in BETAS
    ]


def verdicts(trips: dict, couplings: dict, measure: dict) -> list[dict[str, Any]]:
    """The claims that these observables can refute."""
    sizes = {b: len(table_of(b)[1]) for b in TRUNCATED}
    full = {b: rows[-1] for b, rows in couplings.items()}
    every = [row["exact"] for rows in measure.values() for row in rows]
    several = all(any(r["product"]["minima"] > 1 for r in rows) for rows in measure.values())
    # A descent that did not arrive refutes nothing, and must not pass for a proof.
    one = all(row["minima"] == 1 and row["arrived"] == 1 for row in every)
    claims = {
        "a complete set of couplings reproduces the table (round trip, KL = 0)": all(
            t["error"] < ROUND_TRIP and t["kl"] < ROUND_TRIP for t in trips.values()
        ),
        "at full degree the strict single-flip minima are exactly the data": all(
            row["data"] == sizes[b] and row["false positives"] == 0 for b, row in full.items()
        ),
        "reduction brings false positives, in every table": all(
            any(row["false positives"] > 0 for row in rows[:-1]) for rows in couplings.values()
        ),
        "reduction at each degree below n loses library mass (T = 1)": all(
            row["library mass"]["1.0"] < full[b]["library mass"]["1.0"]
            for b, rows in couplings.items()
            for row in rows[:-1]
            if row["lost norm"] > ROUND_TRIP
        ),
        "the exact G(m) is convex: every Hessian sampled is positive definite": all(
            row["lowest curvature"] > 0 for row in every
        ),
        "every descent of the exact G(m) ends at <s>: one minimum": one
        and all(row["distance to <s>"] < 1e-6 for row in every),
        "product measures have many minima where the exact potential has one": several and one,
        "cold product measures of the complete table: one minimum a datum, no more": all(
            rows[-1]["product"]["minima"] == sizes[b] for b, rows in measure.items()
        ),
        "truncation alone does not add minima to the product-measure potential": all(
            row["product minima"] <= rows[-1]["product minima"]
            for b, rows in couplings.items()
            if b in SCANNED
            for row in rows
        ),
    }
    return [{"claim": claim, "holds": bool(holds)} for claim, holds in claims.items()]


def draw(couplings: dict, measure: dict) -> Figure:
    """Counts against degree above, minima against beta below."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), layout="constrained")
        grid = figure.subplots(2, len(couplings))
        for axes, (b, rows) in zip(grid[0], couplings.items(), strict=True):
            k = [row["degree"] for row in rows]
            data = np.array([row["data"] for row in rows])
            false = np.array([row["false positives"] for row in rows])
            axes.bar(k, data, color=INK, label="data")
            axes.bar(k, false, bottom=data, color=ACCENT, label="false positives")
            axes.axhline(len(table_of(b)[1]), color=MUTED, linestyle=":", label="size of the data")
            axes.set_title(f"adder({b}): n = {len(rows)}", pad=12)
            axes.set(xlabel="largest degree kept", ylabel="strict single-flip minima", xticks=k)
            axes.set_ylim(0, 1.12 * max(data + false))
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        scans = grid[1][: len(measure)]
        for axes, (b, rows) in zip(scans, measure.items(), strict=True):
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
        axes = grid[1][-1]
        for (b, rows), colour in zip(couplings.items(), (GREEN, INK, ACCENT), strict=True):
            mass = [row["library mass"]["1.0"] for row in rows]
            share = np.arange(1, len(rows) + 1) / len(rows)
            axes.plot(share, mass, "o-", color=colour, markersize=4, label=f"adder({b})")
        axes.set_ylim(0, 1.05)
        axes.set_title("Library mass at T = 1")
        axes.set(xlabel="largest degree kept / n", ylabel="Boltzmann weight of the data")
        for axes in (grid[0][1], grid[1][0], grid[1][-1]):
            axes.legend(loc="best")
    return figure


def show(couplings: dict, measure: dict) -> None:
    for b, rows in couplings.items():
        n = len(rows)
        print(f"\nadder({b}): n = {n}, {len(table_of(b)[1])} data at 0, the others at {n}")
        masses = "".join(f"{f'mass T={t:g}':>12}" for t in TEMPERATURES)
        print(
            f"{'k':>3}{'couplings':>10}{'minima':>8}{'data':>6}{'false':>7}{'lost norm':>11}"
            f"{'max error':>11}{masses}" + f"{f'product b={SHOWN_BETA:g}':>13}" * (b in SCANNED)
        )
        for row in rows:
            mass = "".join(f"{value:12.4g}" for value in row["library mass"].values())
            product = f"{row['product minima']:13}" if b in SCANNED else ""
            print(
                f"{row['degree']:3}{row['couplings']:10}{row['minima']:8}{row['data']:6}"
                f"{row['false positives']:7}{row['lost norm']:11.3g}{row['largest error']:11.3g}"
                f"{mass}{product}"
            )
    for b, rows in measure.items():
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


def main(out: pathlib.Path = pathlib.Path("results")) -> None:
    trips = {b: round_trip(table_of(b)[0]) for b in TRUNCATED}
    couplings = {b: reduce_couplings(b) for b in TRUNCATED}
    measure = {b: reduce_measure(b) for b in SCANNED}
    for b, trip in trips.items():
        print(f"adder({b}): round trip error {trip['error']:.1e}, KL {trip['kl']:.1e}")
    show(couplings, measure)
    judged = verdicts(trips, couplings, measure)
    print()
    for verdict in judged:
        claim(verdict["claim"], verdict["holds"])
    record = {
        "round trip": trips,
        "couplings": couplings,
        "measure": measure,
        "verdicts": judged,
    }
    save(out / "reduction.json", record)
    save(out / "reduction.png", draw(couplings, measure))
