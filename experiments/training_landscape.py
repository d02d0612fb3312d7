"""The training potential is a landscape too: the library of trained models of a small RBM.

The exact potential <F>_data - A(model) of an RBM, with a small ridge penalty that isolates its
minima, is searched from random weights of several widths. Minima are counted modulo permutation
and sign of the hidden units: those with the same distribution of the visible spins are one. Minima
of equal potential are images under the symmetries of the data, and make one level. For each level
it is told which data its first minimum fails to hold, p(row) < 0.1/M for M rows. Prints tables and
saves JSON and a picture.

    python experiments/training_landscape.py [--out DIR] [--starts 256]
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg

L2 = 2e-3  # nats per squared energy unit
WIDTHS = (0.1, 0.5, 1.0, 2.0)
SAME_LEVEL = 1e-7  # nats
SHOWN = 8
DATA = {
    "bars and stripes 3x3": tg.datasets.bars_and_stripes(3),
    "adder(2)": tg.datasets.adder(2),
}
HIDDEN = (1, 2, 3, 4)


def log_probabilities(energy, visible):
    """ln p of every row of `visible`, which are all configurations."""
    return jax.nn.log_softmax(-visible_energies(energy, visible))


def visible_energies(energy, visible):
    return jax.vmap(lambda v: tg.energies.visible_free_energy(energy, v, 1.0))(visible)


def potential(visible, rows, energy):
    """-<ln p>_data + L2 |parameters|^2; `rows` are the data among all configurations."""
    surprise = -jnp.mean(log_probabilities(energy, visible)[rows])
    return surprise + L2 * tg.energies.squared_norm(energy)


def proposals(n_visible: int, n_hidden: int, n_starts: int, key) -> tg.RBM:
    """Gaussian weights and fields, a share of the starts of each width."""
    keys = jax.random.split(key, n_starts)
    widths = jnp.tile(jnp.asarray(WIDTHS), -(-n_starts // len(WIDTHS)))[:n_starts]

    def draw(key, width):
        w, a, b = (
            width * jax.random.normal(k, shape)
            for k, shape in zip(
                jax.random.split(key, 3),
                [(n_visible, n_hidden), (n_visible,), (n_hidden,)],
                strict=True,
            )
        )
        return tg.RBM(w, a, b)

    return jax.vmap(draw)(keys, widths)


def check_potential(data: np.ndarray) -> float:
    """Largest deviation from the package's own exact potential over a few models."""
    visible, rows = enumerated(data)
    energies = proposals(data.shape[1], 2, 4, jax.random.key(9))
    deviations = []
    for k in range(4):
        energy = jax.tree.map(lambda x, k=k: x[k], energies)
        ours = potential(visible, rows, energy) - L2 * tg.energies.squared_norm(energy)
        deviations.append(abs(float(ours - tg.learning.potential(energy, data, 1.0))))
    return max(deviations)


def enumerated(data: np.ndarray):
    visible = tg.enumerate_spins(data.shape[1])
    return visible, tg.index_from_spins(data)


def study(name: str, n_hidden: int, n_starts: int) -> dict:
    data = DATA[name]
    visible, rows = enumerated(data)
    starts = proposals(data.shape[1], n_hidden, n_starts, jax.random.key(n_hidden))
    began = time.perf_counter()
    minima = tg.find_minima(
        jax.tree_util.Partial(potential, visible, rows),
        starts,
        # Hidden units permuted or flipped leave the visible distribution as it is.
        invariants=jax.tree_util.Partial(invariants, visible),
    )
    seconds = time.perf_counter() - began
    p = np.exp([log_probabilities(minima[k], visible)[rows] for k in range(len(minima))])
    surprise = -np.log(p).mean(axis=1)
    missing = p < 0.1 / len(data)
    return {
        "data": name,
        "hidden": n_hidden,
        "starts": n_starts,
        "converged": int(minima.hits.sum()),
        "minima": len(minima),
        "level": np.cumsum(np.diff(minima.potentials, prepend=-np.inf) > SAME_LEVEL) - 1,
        "coverage": minima.coverage(),
        "potentials": minima.potentials,
        "surprise": surprise,
        "hits": minima.hits,
        "missing": missing,
        "curvatures": minima.curvatures,
        "residuals": minima.residuals,
        "seconds": seconds,
    }


def invariants(visible, energy):
    energies = visible_energies(energy, visible)
    return energies - jnp.mean(energies)


def report(row: dict) -> None:
    m, level = row["missing"].shape[1], row["level"]
    hits = np.bincount(level, row["hits"])
    print(
        f"\n{row['data']}, {row['hidden']} hidden units: {row['minima']} minima at {len(hits)} "
        f"levels, from {row['converged']} of {row['starts']} starts; coverage of minima "
        f"{row['coverage']:.3f}, of levels {1 - np.mean(hits == 1) * len(hits) / hits.sum():.3f}; "
        f"largest residual {row['residuals'].max():.0e}; {row['seconds']:.1f} s; ln M = "
        f"{np.log(m):.3f}"
    )
    print(f"{'':>4}{'potential':>11}{'-<ln p>':>9}{'minima':>8}{'hits':>6}{'curvature':>11}  lost")
    for j, k in enumerate(np.unique(level, return_index=True)[1][:SHOWN]):
        lost = np.flatnonzero(row["missing"][k])
        which = f"{len(lost)} of {m}" + (": " + " ".join(map(str, lost)) if 0 < len(lost) else "")
        print(
            f"{j:4d}{row['potentials'][k]:11.5f}{row['surprise'][k]:9.4f}{np.sum(level == j):8d}"
            f"{hits[j]:6.0f}{row['curvatures'][k]:11.2e}  {which}",
            flush=True,
        )


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Potential of every minimum against the number of hidden units; colour: rows not held."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(DATA)), DATA, strict=True):
        ours = [row for row in rows if row["data"] == name]
        m = len(DATA[name])
        x = np.concatenate([np.full(r["minima"], r["hidden"]) for r in ours])
        y = np.concatenate([r["potentials"] for r in ours])
        size = np.concatenate([np.sqrt(r["hits"]) for r in ours])
        lost = np.concatenate([r["missing"].sum(axis=1) for r in ours])
        dots = axes.scatter(x, y, 12 * size, lost, cmap="viridis_r", vmin=0, alpha=0.8)
        axes.axhline(np.log(m), color="0.6", lw=0.8)
        axes.text(min(HIDDEN), np.log(m), "ln M", va="bottom", fontsize=8, color="0.4")
        axes.set(title=name, xlabel="hidden units", xticks=HIDDEN)
        axes.set_ylabel("potential at the minimum (nats)")
        figure.colorbar(dots, ax=axes, label=f"rows not held, of {m}")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--starts", type=int, default=256)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    matplotlib.use("agg")
    for name, data in DATA.items():
        print(f"{name}: {len(data)} rows; potential checked to {check_potential(data):.1e}")
    rows = []
    for name in DATA:
        for n_hidden in HIDDEN:
            rows.append(study(name, n_hidden, arguments.starts))
            report(rows[-1])
    arguments.out.mkdir(parents=True, exist_ok=True)
    plain = [{k: np.asarray(v).tolist() for k, v in row.items()} for row in rows]
    (arguments.out / "training_landscape.json").write_text(json.dumps(plain, indent=1))
    draw(rows, arguments.out / "training_landscape.png")


if __name__ == "__main__":
    main()
