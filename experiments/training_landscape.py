"""The training potential is a landscape too: the library of trained models of a small RBM.

The exact potential <F>_data - A(model) of an RBM, with a small ridge penalty that isolates its
minima, is searched from random weights of several widths. Minima are counted modulo permutation
and sign of the hidden units and modulo the symmetries of the data (bars and stripes have 144):
those are one whose data rows, in any order, have the same free energies, and whose other
configurations have. It is told how complete the search is, and which data each model fails to hold:
rows that are no bottom of the free energy of the visible spins, since a single flip lowers it. Rows
of bars and stripes are named r101 where the rows of the picture are of one colour each, c101 where
the columns are. Prints tables and a verdict for each claim; saves JSON and a picture.

In practice: hidden units turn the training loss itself into a landscape with many minima, where a
fit from one random start ends in one that has lost some of the data for good. The loss does not
show which: compare several starts, and check pattern by pattern what a trained model holds.

    python -m experiments training_landscape [--quick] [--out DIR] [--starts 1024]
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import claim, save
from thermogen.search import completeness

L2 = 2e-3  # nats per squared energy unit
WIDTHS = (0.1, 0.5, 1.0, 2.0)
SHOWN, NAMED = 6, 8
DATA = {
    "bars and stripes 3x3": tg.datasets.bars_and_stripes(3),
    "adder(2)": tg.datasets.adder(2),
}
NAMES = {
    "bars and stripes 3x3": [f"r{i & 1}{i >> 1 & 1}{i >> 2}" for i in range(8)]
    + [f"c{i & 1}{i >> 1 & 1}{i >> 2}" for i in range(1, 7)],
    "adder(2)": [f"{r % 4}+{r // 4}" for r in range(16)],
}
QUICK = {"starts": 128, "hidden": (1, 2, 3)}


def log_probabilities(energy, visible):
    """ln p of every row of `visible`, which are all configurations."""
    return jax.nn.log_softmax(-visible_energies(energy, visible))


def visible_energies(energy, visible):
    return jax.vmap(lambda v: tg.energies.visible_free_energy(energy, 1.0, v))(visible)


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
        deviations.append(abs(float(ours - tg.learning.potential(energy, 1.0, data))))
    return max(deviations)


def enumerated(data: np.ndarray):
    visible = tg.enumerate_spins(data.shape[1])
    return visible, tg.index_from_spins(data)


def study(name: str, n_hidden: int, n_starts: int) -> dict:
    data = DATA[name]
    visible, rows = enumerated(data)
    starts = proposals(data.shape[1], n_hidden, n_starts, jax.random.key(n_hidden))
    began = time.perf_counter()
    minima = tg.search.multistart(
        jax.tree_util.Partial(potential, visible, rows),
        starts,
        invariants=jax.tree_util.Partial(invariants, visible, rows),
    )
    seconds = time.perf_counter() - began
    known = completeness(minima)
    log_p = np.stack([log_probabilities(minima[k], visible) for k in range(len(minima))])
    flipped = rows[:, None] ^ (1 << np.arange(data.shape[1]))[None, :]
    return {
        "data": name,
        "hidden": n_hidden,
        "starts": n_starts,
        "converged": int(minima.hits.sum()),
        "minima": len(minima),
        "coverage": known.coverage,
        "coverage_interval": known.coverage_interval,
        "least": known.n_states,
        "least_interval": known.n_states_interval,
        "potentials": minima.potentials,
        "surprise": -log_p[:, rows].mean(axis=1),
        "hits": minima.hits,
        "missing": (log_p[:, flipped] > log_p[:, rows][..., None]).any(axis=-1),
        "curvatures": minima.curvatures,
        "residuals": minima.residuals,
        "seconds": seconds,
    }


def invariants(visible, rows, energy):
    """Free energies of the data and of all else, each in order: what no symmetry changes."""
    energies = visible_energies(energy, visible)
    energies = energies - jnp.mean(energies)
    others = jnp.delete(energies, rows, assume_unique_indices=True)
    return jnp.sort(energies[rows]), jnp.sort(others)


def report(row: dict) -> None:
    m = row["missing"].shape[1]
    low, high = row["coverage_interval"]
    least, most = row["least_interval"]
    print(
        f"\n{row['data']}, {row['hidden']} hidden units: {row['minima']} kinds of minima from "
        f"{row['converged']} of {row['starts']} starts; coverage {row['coverage']:.3f} ({low:.3f} "
        f"to {high:.3f}), at least {row['least']:.0f} kinds ({least:.0f} to {most:.0f}); largest "
        f"residual {row['residuals'].max():.0e}; {row['seconds']:.1f} s; ln M = {np.log(m):.3f}"
    )
    holds = np.flatnonzero(~row["missing"].any(axis=1))
    first = f"the lowest is number {holds[0]}" if holds.size else "none does"
    share = row["hits"][holds].sum() / row["hits"].sum()
    print(f"  {holds.size} hold all {m} rows, {100 * share:.0f} % of the hits; {first}")
    print(f"{'':>4}{'potential':>11}{'-<ln p>':>9}{'hits':>6}{'curvature':>11}  lost")
    for k in range(min(SHOWN, row["minima"])):
        lost = np.flatnonzero(row["missing"][k])
        names = " ".join(NAMES[row["data"]][i] for i in lost[:NAMED])
        print(
            f"{k:4d}{row['potentials'][k]:11.5f}{row['surprise'][k]:9.4f}{row['hits'][k]:6d}"
            f"{row['curvatures'][k]:11.2e}  {len(lost)} of {m}{': ' * bool(names)}{names}"
            f"{' ...' if len(lost) > NAMED else ''}",
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
        hidden = [row["hidden"] for row in ours]
        axes.text(min(hidden), np.log(m), "ln M", va="bottom", fontsize=8, color="0.4")
        axes.set(title=name, xlabel="hidden units", xticks=hidden)
        axes.set_ylabel("potential at the minimum (nats)")
        figure.colorbar(dots, ax=axes, label=f"rows not held, of {m}")
    save(path, figure, dpi=120)


def verdicts(rows: list[dict]) -> None:
    several = [row for row in rows if row["hidden"] > 1]
    claim(
        "with two hidden units or more the loss has several kinds of minima, on all data",
        all(row["minima"] > 1 for row in several),
        "; ".join(f"{row['data']}, {row['hidden']}: {row['minima']}" for row in several),
    )
    lost = [row["missing"].any(axis=1) for row in several]
    claim(
        "in each of these machines some minimum has lost rows of the data",
        all(x.any() for x in lost),
        ", ".join(f"{x.sum()} of {len(x)}" for x in lost),
    )
    ends = [row["hits"][x].sum() / row["hits"].sum() for row, x in zip(several, lost, strict=True)]
    claim(
        "most starts end in one that has, on all data",
        min(ends) > 0.5,
        ", ".join(f"{end:.0%}" for end in ends),
    )
    largest = [row for row in rows if row["hidden"] == max(r["hidden"] for r in rows)]
    lowest = [row["missing"][0].any() for row in largest]
    claim(
        "in the largest machines the lowest minimum holds all rows",
        not any(lowest),
        ", ".join(f"{r['data']}: lost {r['missing'][0].sum()}" for r in largest),
    )


def main(
    *,
    starts: int = 1024,
    hidden: tuple[int, ...] = (1, 2, 3, 4),
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    for name, data in DATA.items():
        print(f"{name}: {len(data)} rows; potential checked to {check_potential(data):.1e}")
    rows = []
    for name in DATA:
        for n_hidden in hidden:
            rows.append(study(name, n_hidden, starts))
            report(rows[-1])
    verdicts(rows)
    save(out / "training_landscape.json", rows)
    draw(rows, out / "training_landscape.png")
