"""Ridges tuned by gradients through the fit, against a grid: one for all couplings, one a pixel.

Pairwise models of the digits: 100, 300 and 1078 of them train, one fifth of all tunes and one fifth
judges, divided at random three times. A grid tries eleven strengths a root of ten apart, as
`choose_l2` does. A quasi-Newton method (L-BFGS of SciPy) follows the gradient of the tuning loss by
the logarithms of the strengths: of one, and of one for each of 64 pixels, where a coupling gets the
geometric mean of its two; this search starts where that of one strength ended. Every fit starts
where the last one ended. Reported are losses (pseudolikelihood, nats a digit), fits and seconds
after compiling.

In practice: hyper-parameters of a deterministic fit need no grid: the held-out loss has a gradient
by them, through the fit, which finds the best strength in a handful of fits. It also makes one
strength for each pixel affordable, which helps when data are few and overfits the tuning set when
they are not.

    python -m experiments tuned_ridge [--quick] [--out DIR]
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize

import thermogen as tg
from experiments._shared import ACCENT, INK, MUTED, STYLE, claim, save, table
from thermogen import learning
from thermogen._tasks import Task

N = 64
START = tg.Pairwise(np.zeros((N, N)), np.zeros(N))
GRID = 10 ** np.arange(2, -3.01, -0.5)  # relative to the default
BOUNDS = np.log([1e-3, 10.0])
QUICK = {"sizes": (100, 300), "divisions": 1}


class PixelRidge(learning.AbstractPenalty):
    """`sum_{i<j} exp((a_i + a_j) / 2) J_ij^2`: the prior of a coupling is that of its pixels."""

    log_strengths: jax.Array

    def bounds(self) -> learning.Bounds:
        return learning.Bounds(fields=False, couplings=True)

    def __call__(self, energy: tg.Pairwise) -> jax.Array:
        root = jnp.exp(self.log_strengths / 2)
        return 0.5 * jnp.sum(root[:, None] * root[None, :] * energy.matrix**2)


class Tuned(NamedTuple):
    """What a search for strengths came to, and all that it tried."""

    name: str
    strengths: np.ndarray
    energy: tg.Pairwise
    loss: float
    tried: np.ndarray
    losses: np.ndarray
    seconds: float


def surprise(energy: tg.Pairwise, spins: np.ndarray) -> jax.Array:
    """Mean of `-sum_k ln P(s_k | rest)`."""
    share = jnp.full(len(spins), 1 / len(spins))
    samples = learning.Samples(jnp.asarray(spins, float), share)
    return tg.Pseudolikelihood(0.0).loss(energy, samples, None, jax.random.key(0))[0]


def tuning_loss(
    log_strengths: jax.Array, start: tg.Pairwise, training: np.ndarray, tuning: np.ndarray
) -> tuple[jax.Array, tg.Pairwise]:
    """The loss that is to be lowest, and the energy that has it."""
    penalty = PixelRidge(jnp.broadcast_to(log_strengths, N))
    objective, key = tg.Pseudolikelihood(0.0), jax.random.key(0)
    energy = tg.fit(objective, start, training, penalty=penalty, key=key).energy
    return surprise(energy, tuning), energy


VALUE = jax.jit(tuning_loss)
VALUE_AND_SLOPE = jax.jit(jax.value_and_grad(tuning_loss, has_aux=True))


def by_grid(default: float, *data: np.ndarray) -> Tuned:
    VALUE(jnp.zeros(1), START, *data)  # compiles
    began = time.perf_counter()
    tried, energies, start = np.log(default * GRID)[:, None], [], START
    losses = np.zeros(len(tried))
    for k, logs in enumerate(tried):
        losses[k], start = VALUE(jnp.asarray(logs), start, *data)
        energies.append(start)
    best, seconds = int(np.argmin(losses)), time.perf_counter() - began
    found = np.exp(tried[best])
    return Tuned("grid", found, energies[best], losses[best], tried, losses, seconds)


def by_gradient(name: str, first: np.ndarray, *data: np.ndarray) -> Tuned:
    VALUE_AND_SLOPE(jnp.zeros(len(first)), START, *data)  # compiles
    tried: list[Any] = []
    losses: list[float] = []
    energies = [START]

    def evaluate(logs: np.ndarray) -> tuple[float, np.ndarray]:
        (value, energy), slope = VALUE_AND_SLOPE(jnp.asarray(logs), energies[-1], *data)
        tried.append(logs.copy())
        losses.append(float(value))
        energies.append(energy)
        assert np.all(np.isfinite(slope))
        return losses[-1], np.asarray(slope, float)

    began = time.perf_counter()
    scipy.optimize.minimize(
        evaluate,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS] * len(first),
        options={"maxiter": 20, "ftol": 1e-6},
    )
    best, seconds = int(np.argmin(losses)), time.perf_counter() - began
    found = np.exp(tried[best])
    arrays = np.stack(tried), np.asarray(losses)
    return Tuned(name, found, energies[best + 1], losses[best], *arrays, seconds)


def tuned(training: np.ndarray, tuning: np.ndarray) -> list[Tuned]:
    default = float(learning.default_l2(N, len(training)))
    data = training.astype(float), tuning.astype(float)
    one = by_gradient("gradient, one strength", np.log([default]), *data)
    first = np.full(N, np.log(one.strengths[0]))
    return [by_grid(default, *data), one, by_gradient("gradient, one a pixel", first, *data)]


def parts(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits that train, tune and judge."""
    rows = np.random.default_rng(seed).permutation(tg.datasets.digits().spins)
    return rows[719 : 719 + size], rows[:360], rows[360:719]


def main(
    *,
    sizes: tuple[int, ...] = (100, 300, 1078),
    divisions: int = 3,
    out: Path = Path("results"),
    task: Task = Task(),
) -> None:
    rows, seeds = [], task.part(range(divisions))
    for size in sizes:
        for seed in seeds:
            training, tuning, judging = parts(size, seed)
            found = tuned(training, tuning)
            if (size, seed) == (sizes[-1], 0):
                draw(found, out / "tuned_ridge.png")
            for t in found:
                row = {"digits": size, "division": seed, "method": t.name, "tuning": t.loss}
                row |= {"judging": float(surprise(t.energy, judging)), "fits": len(t.losses)}
                rows.append(row | {"seconds": t.seconds})
            print(f"{size} digits, division {seed}: done", flush=True)
    table(out / "tuned_ridge.csv", rows)
    report(rows, sizes)


def report(rows: list[dict], sizes: tuple[int, ...]) -> None:
    """Means over the divisions, with the standard error of the gain in judging, and verdicts."""
    names = list(dict.fromkeys(row["method"] for row in rows))

    def column(size: int, name: str, what: str) -> np.ndarray:
        return np.array([r[what] for r in rows if (r["digits"], r["method"]) == (size, name)])

    print(f"{'training':>8}  {'method':24}{'tuning':>9}{'judging':>9}{'fits':>6}{'seconds':>9}")
    for size in sizes:
        for name in names:
            means = [column(size, name, x).mean() for x in ("tuning", "judging", "fits", "seconds")]
            print(
                f"{size:8}  {name:24}{means[0]:9.4f}{means[1]:9.4f}{means[2]:6.0f}{means[3]:9.2f}"
            )
    grid, one, each = names
    lower = np.concatenate([column(x, grid, "tuning") - column(x, one, "tuning") for x in sizes])
    spread = f"lower by {lower.min():.4f} to {lower.max():.4f} nats"
    claim(
        "the gradient finds no worse a single strength than the grid", lower.min() > -1e-4, spread
    )
    faster = np.concatenate([column(x, grid, "seconds") / column(x, one, "seconds") for x in sizes])
    spread = f"{faster.min():.1f} to {faster.max():.1f} times as fast"
    claim("the gradient is faster than the grid", faster.min() > 1, spread)
    for size in sizes:
        gains = column(size, grid, "judging") - column(size, each, "judging")
        spread = f"by {gains.mean():.3f} nats a digit, {gains.min():.3f} to {gains.max():.3f}"
        claim(
            f"{size} digits: one strength a pixel predicts better what neither trained nor tuned",
            gains.min() > 0,
            spread,
        )


def draw(rows: list[Tuned], out: Path) -> None:
    grid, one, each = rows
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        left.semilogx(np.exp(grid.tried[:, 0]), grid.losses, "o-", color=MUTED, label="grid")
        left.semilogx(np.exp(one.tried[:, 0]), one.losses, "x", color=ACCENT, label="gradient")
        left.axhline(each.loss, color=INK, label="gradient, one a pixel")
        left.set(xlabel="ridge, nats per squared coupling", ylabel="tuning loss, nats a digit")
        left.set(ylim=(each.loss - 0.1, min(grid.losses) + 1))
        left.set_title("Losses")
        left.legend()
        picture = right.imshow(np.log10(each.strengths).reshape(8, 8), cmap="cividis")
        right.set(xticks=[], yticks=[])
        right.set_title("Ridge of each pixel, log10")
        figure.colorbar(picture, ax=right)
        save(out, figure)
        plt.close(figure)
