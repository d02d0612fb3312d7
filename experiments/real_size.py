"""Bound states at real size: a machine of 784 x 500 spins on MNIST, and glasses of 256 spins.

The machine is that of `rbm_mnist.py`, under block Gibbs; the glasses are SK models at beta = 1.5
and 2, under the heat bath. What exchanges within a time does so within a longer one: candidates are
certified at the shortest threshold, those that trap for so long at the next, and so on. For each
threshold: the bound states, their escape times and weights with 95 % intervals, and which images
(of the machine) fall to which. The tree is that of the rates which the certificate measured: two
states meet at `F - ln(rate) / beta`, the free energy of the barrier between them if it is tried
once a sweep. For the glasses also P(q) of tempered configurations, and the part of it that comes
from pairs in one bound state.

    pip install 'thermogen[study,experiments]'
    python -m experiments real_size [machine] [glass] [--model FILE] [--out FOLDER] [--quick]
"""

import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import thermogen as tg
from experiments import rbm_mnist
from experiments._shared import ACCENT, INK, MUTED, STYLE, save
from thermogen import kinetics, storage
from thermogen.landscape import DisconnectivityTree
from thermogen.plots import disconnectivity_figure

# As users have it who set nothing.
X64 = False

THRESHOLDS, QUICK_THRESHOLDS = (20, 100, 1000), (20, 40)
# Trajectories from each candidate. The noise of so few looks like processes of 1.15 thresholds.
N_TRAJECTORIES, QUICK_TRAJECTORIES, SURELY = 32, 16, 1.5
SIDE = rbm_mnist.SIDE
# Images of each class, and random corners, that are quenched for candidates.
PER_CLASS, N_CORNERS, QUICK_PER_CLASS = 4, 8, 1
N_SPINS, BETAS = 256, (1.5, 2.0)
# Tempered configurations: they are quenched for candidates, and show P(q).
RUNGS, N_CHAINS, BURN_IN, THIN = 16, 64, 1000, 125
COLUMNS, COLOURS = 10, (MUTED, INK, ACCENT)


def cascade(
    energy: tg.AbstractMultilinear,
    beta: float,
    library: tg.Library,
    dynamics: tg.sampling.AbstractKernel,
    quick: bool,
) -> list[tg.BoundStates]:
    """Bound states at each threshold; those of one are the candidates of the next."""
    found = []
    for threshold in QUICK_THRESHOLDS if quick else THRESHOLDS:
        began = time.perf_counter()
        states = tg.find_bound_states(
            energy,
            beta,
            key=jax.random.key(1),
            threshold=threshold,
            library=library,
            n_starts=1,
            dynamics=dynamics,
            n_trajectories=QUICK_TRAJECTORIES if quick else N_TRAJECTORIES,
        )
        report(states, time.perf_counter() - began)
        found.append(states)
        library = states.library[states.representatives]
    return found


def report(found: tg.BoundStates, seconds: float) -> None:
    certificate = found.certificate
    print(f"\nthreshold {certificate.limit}, {seconds:.0f} s: {certificate.count} bound states")
    print(found.verdict)
    times = ", ".join(f"{t:.0f}" for t in certificate.relaxation_times[:8])
    surely = 1 + np.sum(certificate.relaxation_times > SURELY * certificate.threshold)
    print(f"relaxation times: {times} sweeps; {surely} sets by those above {SURELY:g} thresholds")
    print(f"ln Z = {found.log_partition:.2f} +- {found.log_partition_error:.2f}")
    print("state   escape time (95 %)            weight (95 %)                 of the library")
    for k in range(len(found)):
        low, high = found.intervals[k]
        time_of = f"{found.escape_times[k]:8.0f} ({low:.0f} to {high:.0f})"
        low, high = found.weight_intervals[k]
        weight = f"{found.weights[k]:.4f} ({low:.4f} to {high:.4f})"
        print(f"{k:5}   {time_of:30}{weight:30}{found.library_weights[k]:.4f}", flush=True)


def rate_tree(found: tg.BoundStates) -> tuple[DisconnectivityTree, np.ndarray] | None:
    """The tree of the measured rates, and its rows of `found`: those that replicas have met."""
    certificate, beta = found.certificate, found.beta
    by_number = np.argsort(found.sets)
    row = np.repeat(by_number, found.multiplicity[by_number])
    log_weights = np.log(np.maximum(found.weights / found.multiplicity, 1e-300))
    met = np.flatnonzero(found.weights > 0)
    if len(met) < 2 or not found.weighed:
        return None
    flow = np.exp(log_weights[row])[:, None] * certificate.rates
    flow = 0.5 * (flow + flow.T)
    strongest = np.zeros((len(found), len(found)))
    np.maximum.at(strongest, (row[:, None], row[None, :]), flow)
    with np.errstate(divide="ignore"):
        heights = -(found.log_partition + np.log(strongest)) / beta
    levels = found.free_energies
    heights = np.maximum(heights, np.maximum.outer(levels, levels))[np.ix_(met, met)]
    return tg.disconnectivity_tree(levels[met], heights), met


def machine(model: pathlib.Path | None, out: pathlib.Path, quick: bool) -> None:
    spins, labels = rbm_mnist.images()
    split = tg.datasets.split(spins)
    data, digits = split.training, tg.datasets.split(labels[:, None]).training[:, 0]
    if model is not None and model.exists():
        energy = storage.load_energy(model)
    else:
        energy, _ = rbm_mnist.train(data, split.held_out, 200 if quick else 4000)
        if model is not None:
            storage.save_energy(model, energy)
    both = np.sign(embedded(energy, data))
    each = QUICK_PER_CLASS if quick else PER_CLASS
    starts = np.concatenate([both[digits == d][:each] for d in range(10)])
    began = time.perf_counter()
    options = {"key": jax.random.key(0), "n_starts": N_CORNERS, "starts": starts}
    library = tg.find_minima(tg.TAP(), energy, 1.0, **options)
    print(f"{len(starts)} images and {N_CORNERS} corners quench to {library.size} minima of TAP")
    print(f"  in {time.perf_counter() - began:.0f} s; coverage {library.coverage():.2f}")
    found = cascade(energy, 1.0, library, tg.Gibbs(), quick)
    tables = []
    for states in found:
        rows, _ = kinetics.attribute(energy, states, both)
        table = np.zeros((10, len(states)), int)
        np.add.at(table, (digits, rows), 1)
        tables.append(table)
        purity = table.max(axis=0).sum() / table.sum()
        print(f"\nthreshold {states.certificate.limit}: images of each digit by state;", end=" ")
        print(f"{purity:.0%} are of the commonest digit of their state\n{table}")
    save(out / "machine_states.png", states_sheet(found))
    save(out / "machine_classes.png", class_table(found, tables))
    tree = rate_tree(found[0])
    if tree is not None:
        pictures = np.stack([picture(found[0], k) for k in tree[1]])
        label = "free energy F, and F − ln(rate per sweep)"
        figure = disconnectivity_figure(tree[0], pictures=pictures, label=label)
        save(out / "machine_tree.png", figure)


def embedded(energy: tg.RBM, images: np.ndarray) -> np.ndarray:
    """Images with the means of the hidden spins."""
    embed = jax.jit(jax.vmap(lambda v: tg.energies.embed(energy, 1.0, v)))
    return np.asarray(embed(jnp.asarray(images, jnp.float32)))


def states_sheet(found: list[tg.BoundStates]) -> Figure:
    """Means of the heaviest states of each threshold, with their escape times and weights."""
    shown = [min(len(states), 2 * COLUMNS) for states in found]
    rows = [-(-size // COLUMNS) for size in shown]
    heights = [1.34 * n + 0.3 for n in rows]
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, sum(heights)), layout="constrained")
        # Labels of long times are wider than their pictures.
        figure.get_layout_engine().set(rect=(0.012, 0, 0.976, 1))
        parts = figure.subfigures(len(found), 1, height_ratios=heights)
        for part, states, size, n in zip(np.atleast_1d(parts), found, shown, rows, strict=True):
            certificate = states.certificate
            more = "" if size == len(states) else f", the {size} heaviest"
            title = f"{certificate.count} bound states at {certificate.limit}{more}"
            part.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
            grid = part.subplots(n, COLUMNS, squeeze=False).ravel()
            for axes in grid:
                axes.set_axis_off()
            for k, axes in enumerate(grid[:size]):
                tile(axes, states, k)
    return figure


def short(sweeps: float) -> str:
    """A time in a few characters."""
    if np.isinf(sweeps):
        return "∞"
    return f"{sweeps:.0f}" if sweeps < 10_000 else f"{sweeps / 1000:.0f}k"


def tile(axes: Axes, states: tg.BoundStates, k: int) -> None:
    """The mean of a state, its number, escape time in sweeps and weight."""
    axes.imshow(picture(states, k), cmap="gray_r", vmin=-1, vmax=1)
    low, time_of, high = (
        short(x) for x in (states.intervals[k, 0], states.escape_times[k], states.intervals[k, 1])
    )
    lines = [f"{k}: {time_of} ({low}–{high})"]
    if states.weighed:
        low, high = 100 * states.weight_intervals[k]
        lines.append(f"{100 * states.weights[k]:.1f} % ({low:.1f}–{high:.1f})")
    axes.set_title("\n".join(lines), fontsize=6.5, loc="center", fontweight="normal", pad=2)


def picture(states: tg.BoundStates, k: int) -> np.ndarray:
    return states.magnetizations[k, : SIDE**2].reshape(SIDE, SIDE)


def class_table(found: list[tg.BoundStates], tables: list[np.ndarray]) -> Figure:
    """Images of each digit by the state that they fall to, at the threshold in the middle.

    States stand in the order of their commonest digit, the heaviest first.
    """
    states, table = (x[len(found) // 2] for x in (found, tables))
    order = np.argsort(table[:, : 3 * COLUMNS].argmax(axis=0), kind="stable")
    table, size = table[:, order], len(order)
    with rc_context(STYLE):
        figure = Figure(figsize=(0.36 * size + 1.2, 4.6), layout="constrained")
        top, axes = figure.subplots(2, 1, height_ratios=[1, 10], sharex=True)
        for k in range(size):
            extent = (k - 0.45, k + 0.45, 0, 0.9)
            top.imshow(picture(states, order[k]), cmap="gray_r", vmin=-1, vmax=1, extent=extent)
        top.set(xlim=(-0.5, size - 0.5), ylim=(0, 0.9), aspect="equal")
        top.set_axis_off()
        axes.imshow(np.sqrt(table), cmap="Blues", aspect="auto")
        for (digit, k), count in np.ndenumerate(table):
            light = count > 0.25 * table.max()
            if count:
                axes.text(k, digit, count, ha="center", va="center", fontsize=6.5,
                          color="white" if light else INK)  # fmt: skip
        axes.set_yticks(range(10))
        axes.set_xticks(range(size), [str(k) for k in order])
        axes.tick_params(length=0)
        axes.set(ylabel="digit", xlabel=f"bound state at {states.certificate.limit}")
        top.set_title("Training images by digit and bound state")
    return figure


class Glass(NamedTuple):
    """Bound states of a glass at each threshold, and tempered configurations.

    Attributes:
        found: bound states.
        overlaps: of pairs of configurations.
        within: of the pairs that one bound state holds, images turned, at each threshold.
    """

    found: list[tg.BoundStates]
    overlaps: np.ndarray
    within: list[np.ndarray]


def glass(beta: float, out: pathlib.Path, quick: bool) -> Glass:
    upper = np.triu(np.random.default_rng(0).normal(size=(N_SPINS, N_SPINS)), 1)
    couplings = ((upper + upper.T) / np.sqrt(N_SPINS)).astype(np.float32)
    energy = tg.Pairwise(couplings, np.zeros(N_SPINS, np.float32))
    spins = tempered(energy, beta, 1 if quick else 16)
    starts = spins[: 2 * N_CORNERS] if quick else spins[:N_CHAINS]
    options = {"key": jax.random.key(0), "n_starts": N_CORNERS, "starts": starts}
    library = tg.find_minima(tg.NaiveMeanField(), energy, beta, **options)
    print(f"\nglass at beta = {beta:g}: {len(starts)} tempered configurations and {N_CORNERS}")
    print(f"  corners quench to {library.size} minima of naive mean field", flush=True)
    found = cascade(energy, beta, library, tg.HeatBath(), quick)
    tree = rate_tree(found[0])
    if tree is not None:
        label = "free energy F, and F − ln(rate per sweep) / β"
        figure = disconnectivity_figure(tree[0], label=label)
        save(out / f"glass_tree_{beta:g}.png", figure)
    first, second = np.triu_indices(len(spins), 1)
    q, within = (spins @ spins.T / N_SPINS)[first, second], []
    print(f"tempered pairs: <q^2> = {np.mean(q**2):.3f}")
    for states in found:
        rows, signs = kinetics.attribute(energy, states, spins)
        same = rows[first] == rows[second]
        turned = (q * signs[first] * signs[second])[same]
        # Of a state that is its own image both signs are in it.
        own = states.multiplicity[rows[first][same]] == 1
        within.append(np.concatenate([turned, -turned[own]]))
        share, mean = within[-1].size / (2 * q.size), within[-1].mean()
        print(f"  {share:.1%} of them, of mean {mean:.2f}, in one state of those at", end=" ")
        print(states.certificate.limit)
    return Glass(found, q, within)


def tempered(energy: tg.Pairwise, beta: float, n_kept: int) -> np.ndarray:
    """So many configurations of each ladder, at its coldest rung."""
    ladder = tg.ParallelTempering(jnp.linspace(0.3, beta, RUNGS, dtype=jnp.float32))
    options = {"n_chains": N_CHAINS, "n_sweeps": THIN * n_kept, "burn_in": BURN_IN, "thin": THIN}
    drawn = np.asarray(tg.sample(ladder, energy, beta, key=jax.random.key(9), **options))
    return drawn.swapaxes(0, 1).reshape(-1, N_SPINS)


def glass_sheet(glasses: dict[float, Glass]) -> Figure:
    """A row for each beta: escape times over weights, and P(q)."""
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.1 * len(glasses)), layout="constrained")
        grid = figure.subplots(len(glasses), 2, squeeze=False)
        for (beta, drawn), (left, right) in zip(glasses.items(), grid, strict=True):
            for states, colour in zip(drawn.found, COLOURS, strict=False):
                escapes(left, states, colour)
            left.set(xscale="log", yscale="log", xlabel="weight", ylabel="escape time (sweeps)")
            left.set_title(f"Bound states, β = {beta:g}")
            left.legend()
            edges = np.linspace(-1, 1, 65)
            per_pair = 1 / (2 * drawn.overlaps.size * (edges[1] - edges[0]))
            both = np.histogram(np.concatenate([drawn.overlaps, -drawn.overlaps]), edges)[0]
            right.stairs(per_pair * both, edges, fill=True, color="#b8c4d4", label="all pairs")
            for states, q, colour in zip(drawn.found, drawn.within, COLOURS, strict=False):
                counts = per_pair * np.histogram(q, edges)[0]
                label = f"in one state, {states.certificate.limit}"
                right.stairs(counts, edges, color=colour, label=label)
            right.set(xlabel="overlap q", ylabel="P(q)", xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
            right.set_title(f"Overlaps of configurations, β = {beta:g}")
            right.set_ylim(top=1.35 * right.get_ylim()[1])
            right.legend(ncols=2)
    return figure


def escapes(axes: Axes, states: tg.BoundStates, colour: str) -> None:
    left = np.isfinite(states.escape_times) & (states.weights > 0)
    times, (low, high) = states.escape_times[left], states.intervals[left].T
    weights, (light, heavy) = states.weights[left], states.weight_intervals[left].T
    certificate = states.certificate
    axes.errorbar(
        weights, times, yerr=[times - low, high - times], xerr=[weights - light, heavy - weights],
        fmt="o", ms=3, lw=0.6, color=colour, label=f"{certificate.count} at {certificate.limit}",
    )  # fmt: skip


def main(
    parts: tuple[str, ...] = ("machine", "glass"),
    /,
    *,
    model: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("docs/images"),
    quick: bool = False,
) -> None:
    """Keeps the machine in `model`, or reads it where that exists."""
    if "machine" in parts:
        machine(model, out, quick)
    if "glass" in parts:
        glasses = {beta: glass(beta, out, quick) for beta in BETAS}
        save(out / "glass_states.png", glass_sheet(glasses))
