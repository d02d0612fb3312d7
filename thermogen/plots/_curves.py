"""Curves and bars of a study: pure functions from arrays to `matplotlib.figure.Figure`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ..meanfield import Bifurcation, Branch
from ._pictures import class_name
from ._style import ACCENT, CLASSES, INK, MUTED, WIDTH, styled

_MARKERS = {"pitchfork": "o", "saddle-node": "D", "transcritical": "X"}
MAX_SHOWN = 40


@styled
def learning_figure(
    losses: np.ndarray | None,
    held_out: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """The loss against the step.

    Args:
        losses: the loss of each step, in nats per sample, shape `(steps,)`; None where it is not
            known, as by persistent chains.
        held_out: steps, and mean pseudolikelihood losses then of samples that are learned and of
            others, without penalties, shape `(looks,)` each.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    n_steps = 0
    if losses is not None:
        n_steps = len(losses)
        axes.plot(np.arange(1, n_steps + 1), losses, color=INK, linewidth=1.5)
        axes.scatter([n_steps], losses[-1:], color=ACCENT, s=18, zorder=3)
        axes.annotate(
            f"{losses[-1]:.3f}",
            (n_steps, losses[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color=ACCENT,
        )
    if held_out is not None:
        n_steps = max(n_steps, held_out[0][-1])
        looks, learned, others = (values[held_out[0] > 0] for values in held_out)
        axes.plot(
            looks, learned, ":", color=MUTED, linewidth=1.5, label="pseudolikelihood, learned"
        )
        axes.plot(
            looks, others, "--", color=CLASSES[2], linewidth=1.5, label="pseudolikelihood, held out"
        )
        axes.legend(loc="upper right")
    if n_steps > 30:
        axes.set_xscale("log")
    axes.grid(axis="y")
    axes.set(xlabel="step", ylabel="loss (nats per sample)")
    axes.set_title("Learning curve")
    return figure


@styled
def ridge_figure(strengths: np.ndarray, held_out: np.ndarray, chosen: float) -> Figure:
    """Held-out loss against the strength of the ridge.

    Args:
        strengths: those that were tried, in nats per sample, shape `(tried,)`.
        held_out: mean loss of each on samples it has not seen, in nats, shape `(tried,)`.
        chosen: the strength that was taken.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(strengths, held_out, "o-", color=INK, linewidth=1.2, markersize=4)
    best = int(np.argmin(np.abs(np.log(strengths) - np.log(chosen))))
    axes.scatter(strengths[best], held_out[best], marker="D", color=ACCENT, s=34, zorder=4)
    axes.set_xscale("log")
    low = float(np.min(held_out))
    # Weak ridges may overfit without bound.
    axes.set_ylim(top=min(float(np.max(held_out)), low + 3 * (np.median(held_out) - low) + 1e-6))
    axes.grid(axis="y")
    axes.set(xlabel="ridge (nats per sample)", ylabel="held-out loss (nats)")
    axes.set_title("Choice of the ridge")
    return figure


@styled
def scan_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    chosen: tuple[float, int] | None = None,
) -> Figure:
    """Number of minima against the inverse temperature.

    Args:
        curves: for each functional, by the name to show: the inverse temperatures, how many minima
            were found at each, and whether there were more than there was room for; `(points,)`.
        chosen: beta and number of states of the full search, if it has run.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    for (name, (betas, counts, full)), colour in zip(
        curves.items(), (INK, CLASSES[2]), strict=False
    ):
        faces = ["white" if overflow else colour for overflow in full]
        axes.plot(betas, counts, color=colour, linewidth=1.2, zorder=2)
        axes.scatter(betas, counts, c=faces, edgecolors=colour, s=24, zorder=3)
        axes.plot([], [], "o-", color=colour, markersize=5, linewidth=1.2, label=name)
    if chosen is not None:
        axes.scatter(*chosen, marker="D", color=ACCENT, s=34, zorder=4, label="full search")
    betas, counts, full = (np.concatenate(parts) for parts in zip(*curves.values(), strict=True))
    if np.any(full):
        axes.plot([], [], "o", color=INK, markerfacecolor="white", label="library full: at least")
    most = max([*counts, chosen[1] if chosen else 0])
    if most > 30 and counts.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0.8, 2 * most)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0, 1.15 * most + 0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(np.unique(betas)[::2].tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda beta, _: f"{beta:.2g}")
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2 if np.any(full) else 3)
    axes.set(xlabel="inverse temperature β", ylabel="minima found")
    axes.set_title("States against temperature")
    return figure


@styled
def occupation_figure(
    assignment: np.ndarray,
    n_states: int,
    labels: np.ndarray | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> Figure:
    """The number of samples that fall to each state, stacked by class if there are at most ten.

    Args:
        assignment: state of each sample, shape `(samples,)`; -1 for none.
        n_states: number of states; bars are drawn for the first 40, one for the rest.
        labels: class of each sample, shape `(samples,)`.
        classes: names of the classes, which `labels` count.
    """
    shown = min(n_states, MAX_SHOWN)
    slot = np.where(assignment < 0, shown + 1, np.minimum(assignment, shown))
    names = [str(k) for k in range(shown)] + ["others", "none"]
    used = [k for k in range(shown + 2) if k < shown or np.any(slot == k)]
    found = [] if labels is None else list(np.unique(labels))
    stacked = 1 < len(found) <= len(CLASSES)
    groups = [(class_name(c, classes), labels == c) for c in found]
    groups = groups if stacked else [("", slot >= 0)]
    figure = Figure(figsize=(WIDTH, 0.2 * len(used) + 1.15 + 0.3 * stacked), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(used))
    for (name, members), colour in zip(groups, CLASSES if stacked else [INK], strict=False):
        counts = np.array([np.sum(members & (slot == k)) for k in used])
        axes.barh(range(len(used)), counts, left=left, height=0.76, color=colour, label=name)
        left += counts
    for row, total in enumerate(left):
        axes.annotate(
            f"{int(total)}", (total, row), (4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(used)), [names[k] for k in used], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.06, y=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="x")
    axes.set(xlabel="samples", ylabel="state")
    axes.set_title("Which samples fall to which state")
    if stacked:
        figure.legend(
            loc="outside lower center", ncols=len(found), title="class", columnspacing=1.2
        )
    return figure


@styled
def bound_states_figure(
    weights: np.ndarray,
    weight_intervals: np.ndarray,
    free_energies: np.ndarray,
    free_energy_intervals: np.ndarray,
    approximate: tuple[np.ndarray, np.ndarray],
) -> Figure:
    """Weights and free energies of bound states with their 95 % intervals.

    Args:
        weights: weight of each state, shape `(K,)`.
        weight_intervals: shape `(K, 2)`.
        free_energies: measured free energy of each, in energy units, shape `(K,)`; NaN where it
            is not known, and infinite where a state was not met.
        free_energy_intervals: shape `(K, 2)`.
        approximate: weights and free energies by the mean-field minima, `(K,)` each.

    !!! example

        ```python
        import numpy as np
        from thermogen import plots

        w, f = np.array([0.6, 0.4]), np.array([-1.0, -0.5])
        around = np.stack([f - 0.1, f + 0.1], axis=1)

        assert plots.bound_states_figure(
            w, np.stack([w - 0.1, w + 0.1], axis=1), f, around, (w, f)
        ).axes
        ```
    """
    count = len(weights)
    rows = np.arange(count)
    figure = Figure(figsize=(WIDTH, 0.22 * count + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _ranges(left, weights, weight_intervals)
    _ranges(right, free_energies, free_energy_intervals)
    for axes, values in zip((left, right), approximate, strict=True):
        axes.scatter(values, rows, s=26, facecolors="none", edgecolors=ACCENT, zorder=4)
        axes.grid(axis="x")
    left.set_xlim(-0.03, 1.03)
    left.set_yticks(rows, [f"{k}" for k in rows], fontsize=7.5)
    left.set_ylim(count - 0.4, -0.6)
    left.set(xlabel="weight", ylabel="bound state")
    left.set_title("Weights")
    right.locator_params(axis="x", nbins=6)
    right.margins(x=0.06)
    right.set(xlabel="free energy")
    right.set_title("Free energies")
    left.errorbar([], [], xerr=[], fmt="o", color=INK, markersize=4, label="measured, 95 %")
    left.scatter([], [], s=26, facecolors="none", edgecolors=ACCENT, label="mean field")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _ranges(axes: Axes, values: np.ndarray, intervals: np.ndarray) -> None:
    """A point and its interval a row; what has no upper end runs to the edge as an arrow."""
    known = np.isfinite(values) & np.isfinite(intervals).all(axis=1)
    rows = np.flatnonzero(known)
    off = np.abs(intervals[rows] - values[rows, None]).T
    options = {"color": INK, "markersize": 4, "elinewidth": 1.2, "capsize": 2, "zorder": 3}
    axes.errorbar(values[rows], rows, xerr=off, fmt="o", **options)
    for row in np.flatnonzero(np.isfinite(intervals[:, 0]) & ~known):
        axes.plot(intervals[row, 0], row, marker="$\\rightarrow$", markersize=9, color=INK)


@styled
def overlaps_figure(edges: np.ndarray, shares: np.ndarray) -> Figure:
    """P(q): how the overlap of two states drawn by weight is distributed.

    Args:
        edges: edges of the bins of q, shape `(bins + 1,)`.
        shares: share of each bin, sum 1, shape `(bins,)`.
    """
    figure = Figure(figsize=(WIDTH / 2, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.bar(edges[:-1], shares, width=np.diff(edges), align="edge", color=INK)
    axes.set_xlim(edges[0], edges[-1])
    axes.grid(axis="y")
    axes.set(xlabel="overlap q of two states", ylabel="P(q), share of a bin")
    axes.set_title("Overlaps of the states")
    return figure


@styled
def bifurcation_figure(
    branches: Sequence[Branch],
    bifurcations: Sequence[Bifurcation] = (),
    *,
    pattern: np.ndarray,
    parameter: str = "inverse temperature β",
) -> Figure:
    """Bifurcation diagram: overlap with a pattern along branches; dashed where unstable.

    Args:
        branches: branches from `follow_beta` or `follow_field`, all in the same parameter.
        bifurcations: points to mark, from `bifurcations`.
        pattern: pattern of the overlap `pattern.m / n`, shape `(n,)`.
        parameter: label of the horizontal axis.

    !!! example

        ```python
        import jax.numpy as jnp
        import numpy as np
        import thermogen as tg
        from thermogen import plots

        pair = tg.Pairwise(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
        branch = tg.meanfield.follow_beta(tg.NaiveMeanField(), pair, (0.8, 1.2), jnp.zeros(2))

        assert plots.bifurcation_figure([branch], pattern=np.ones(2)).axes
        ```
    """
    figure = Figure(figsize=(WIDTH / 1.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for branch in branches:
        size = int(branch.size)
        x = np.asarray(branch.parameters)[:size]
        y = np.asarray(branch.magnetizations)[:size] @ pattern / len(pattern)
        stable = np.asarray(branch.n_unstable)[:size] == 0
        unstable = ~stable
        unstable[1:] |= ~stable[:-1]  # the piece between a saddle and a minimum is drawn as well
        unstable[:-1] |= ~stable[1:]
        axes.plot(x, np.where(unstable, y, np.nan), "--", color=MUTED, lw=1)
        axes.plot(x, np.where(stable, y, np.nan), color=INK, lw=1.8)
    for kind, marker in _MARKERS.items():
        found = [p for p in bifurcations if p.kind == kind]
        if found:
            heights = [p.magnetizations @ pattern / len(pattern) for p in found]
            x = [p.parameter for p in found]
            axes.scatter(x, heights, marker=marker, color=ACCENT, s=26, zorder=3, label=kind)
    axes.plot([], [], color=INK, lw=1.8, label="minimum")
    axes.plot([], [], "--", color=MUTED, lw=1, label="saddle")
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=5)
    axes.set(xlabel=parameter, ylabel="overlap with the pattern")
    return figure
