"""The landscape along a training: states of the digits are born as the weights grow.

A pairwise model of the digits learns from zero by pseudolikelihood and Adam, whose rate grows to
2e-3 over 500 steps. Its states, the minima of naive mean field at beta = 1, are followed from
checkpoint to checkpoint. Prints for each the loss, the number of states, births and deaths, the
lowest curvature and the leading eigenvalues of the couplings; draws the tree of the states over
the steps, above the eigenvalues and the softest direction of each state, which is 0 at a spinodal.

    python -m experiments training_births [--out FILE]
"""

import pathlib
import time

import jax
import numpy as np
import optax
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

import thermogen as tg
from experiments._shared import save
from thermogen.landscape import Genealogy, genealogy
from thermogen.learning import Checkpoints
from thermogen.plots import genealogy_figure
from thermogen.plots._style import ACCENT, INK, MUTED, styled

FUNCTIONAL = tg.NaiveMeanField()
STEPS = 20 * np.unique(np.round(np.geomspace(2, 250, 40)).astype(int))
# Slow at first, so that the first births are parted.
RATE = optax.linear_schedule(0.0, 2e-3, 500)
N_EIGENVALUES = 8


def train(data: np.ndarray) -> Checkpoints:
    n = data.shape[1]
    kept = Checkpoints(STEPS.tolist())
    tg.fit(
        tg.Pseudolikelihood(),
        tg.Pairwise(np.zeros((n, n)), np.zeros(n)),
        data,
        optimizer=optax.adam(RATE),
        n_steps=int(STEPS[-1]),
        key=jax.random.key(0),
        callback=kept,
    )
    return kept


def spectrum(kept: Checkpoints) -> np.ndarray:
    """Largest eigenvalues of the couplings at each checkpoint, shape `(stages, n)`."""
    return np.stack([np.linalg.eigvalsh(np.asarray(e.couplings))[::-1] for e in kept.energies])


def table(kept: Checkpoints, family: Genealogy, eigenvalues: np.ndarray) -> None:
    print("   step     loss  states  born  died  lowest curvature  largest eigenvalues of J")
    for stage, step in enumerate(kept.steps):
        at = family.stages == stage
        leading = " ".join(f"{x:5.2f}" for x in eigenvalues[stage, :5])
        print(
            f"{step:7d}{kept.losses[stage]:9.3f}{at.sum():8d}{family.born[at].sum():6d}"
            f"{family.died[at].sum():6d}{family.curvatures[at].min():18.3f}  {leading}"
        )


@styled
def draw(kept: Checkpoints, family: Genealogy, eigenvalues: np.ndarray) -> Figure:
    steps = np.array(kept.steps)
    figure = genealogy_figure(family, positions=steps, picture=(8, 8), label="")
    tree = figure.axes[0]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 3.4)
    grid = figure.add_gridspec(3, 1, height_ratios=[height - 0.6, 1.7, 1.7])
    tree.set_subplotspec(grid[0])
    tree.set_title("The states of the digits along a training")

    below = figure.add_subplot(grid[1], sharex=tree)
    below.plot(steps, eigenvalues[:, N_EIGENVALUES:0:-1], color=MUTED, lw=0.8)
    below.plot(steps, eigenvalues[:, 0], color=INK, lw=1.6)
    below.set(ylabel="eigenvalues of J")

    soft = figure.add_subplot(grid[2], sharex=tree)
    going = family.continued
    ends = [
        [(steps[family.stages[k]], family.curvatures[k]) for k in (family.parents[node], node)]
        for node in np.flatnonzero(going)
    ]
    soft.add_collection(LineCollection(ends, colors=INK, linewidths=0.8, alpha=0.7))
    born = family.born
    soft.scatter(steps[family.stages[born]], family.curvatures[born], s=11, color=ACCENT, zorder=3)
    below.axhline(1, color=ACCENT, lw=0.8, ls=":")
    soft.set(ylabel="lowest curvature", xlabel="step of the training", ylim=(0, None))
    for axes in (tree, below, soft):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.grid(axis="x")
    for axes in (tree, below):
        axes.tick_params(axis="x", labelbottom=False)
    figure.align_ylabels([below, soft])
    return figure


def main(out: pathlib.Path = pathlib.Path("docs/images/training_births.png")) -> None:
    began = time.perf_counter()
    kept = train(tg.datasets.digits().spins)
    print(f"training of {kept.steps[-1]} steps: {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    family = genealogy(FUNCTIONAL, kept.energies, 1.0, key=jax.random.key(0))
    print(f"{len(family.stages)} nodes in {len(kept.steps)} stages: ", end="")
    print(f"{time.perf_counter() - began:.1f} s")
    eigenvalues = spectrum(kept)
    table(kept, family, eigenvalues)
    save(out, draw(kept, family, eigenvalues), dpi=140)
