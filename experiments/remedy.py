"""Does one model for each bound state cure what ergodicity breaking spoils, at equal size?

Samples with noise: every spin of a represented configuration is turned with a chance of 3 %.
One model against a mixture of experts with as many parameters, both by exact maximum likelihood
with a ridge, chosen on samples of its own; the mixture by expectation maximisation and then by
the gradient of its likelihood, the best of six starts. Sets of represented configurations:

- table:3, table:4: all sums, equally often, every one of them once and without noise; the ridge
  is 1e-4, and the loss is that of the whole population;
- adder:3, adder:4: sums with noise;
- bars: bars and stripes 4 x 4, the stripes ten times as often as the bars;
- patterns:P: P random patterns of 14 spins, the last ones thirty times rarer than the first; a
  pairwise model stores about 0.14 n = 2 of them by Hebb's rule, and n at most.

Figures of each: held-out negative log-likelihood (exact, above that of the truth), weight of the
represented configurations, strict single-flip minima that are none of them, recall of hidden
spins (the most probable completion, exactly), of all configurations and of the rarest, slowest
relaxation time of the heat bath, seconds. `digits` compares machines by annealing instead. Tasks of
an array share the seeds; remedy-*.csv hold a row for each.

In practice: several small models, one for each minimum, are no cure by themselves. With the same
number of parameters they win where samples of a few patterns are noisy, and lose on a table that
one model can represent. Experts without couplings mix at once; coupled ones can be as slow as the
model that they replace. Compare at equal size before splitting a model.

    python -m experiments remedy [adder:3 adder:4 bars patterns:4 patterns:14 digits] [--quick]
"""

import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import thermogen as tg
from experiments._shared import claim, save, table
from thermogen._tasks import Task
from thermogen.walsh import degrees

# As users have it who set nothing.
X64 = False

SETS = ("table:3", "table:4", "adder:3", "adder:4", "bars", "patterns:4", "patterns:14", "digits")
QUICK = {"sets": ("table:3", "patterns:4"), "repeats": 3, "starts": 2}
NOISE, N_SAMPLES, N_HELD_OUT = 0.03, 1000, 4000
RIDGES = (1e-4, 1e-3, 1e-2)
N_STEPS = 400
FIGURES = ("excess", "mass", "false", "recall", "rare", "time", "seconds")


class Problem(NamedTuple):
    """Samples of a known truth."""

    training: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray
    rows: np.ndarray  # the represented configurations
    rare: np.ndarray  # which of them are rare
    known: np.ndarray  # which spins a cue shows
    truth: np.ndarray  # ln of the probability of every configuration


class Model(NamedTuple):
    """A description of so many parameters; one expert is one model."""

    degree: int
    n_experts: int

    def parameters(self, n: int) -> int:
        one = int(np.sum(degrees(n) <= self.degree)) - 1
        return self.n_experts * (one + 1) - 1

    def __str__(self) -> str:
        names = {1: "independent spins", 2: "pairwise", 3: "cubic", 4: "quartic"}
        return f"{self.n_experts} x {names[self.degree]}"


# For each set, pairs of equal size: one model, and experts.
PAIRS = {
    "table:3": [
        (Model(2, 1), Model(1, 5)),
        (Model(3, 1), Model(2, 3)),
        (Model(3, 1), Model(1, 16)),
    ],
    "table:4": [(Model(2, 1), Model(1, 6)), (Model(3, 1), Model(2, 4))],
    "adder:3": [(Model(2, 1), Model(1, 5)), (Model(3, 1), Model(2, 3)), (Model(4, 1), Model(2, 7))],
    "adder:4": [(Model(2, 1), Model(1, 6)), (Model(3, 1), Model(2, 4))],
    "bars": [(Model(2, 1), Model(1, 8)), (Model(3, 1), Model(2, 5))],
    "patterns:4": [(Model(2, 1), Model(1, 7)), (Model(3, 1), Model(2, 4))],
    "patterns:14": [(Model(2, 1), Model(1, 7)), (Model(3, 1), Model(2, 4))],
}


def problem(name: str, seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    kind, _, size = name.partition(":")
    noise = 0.0 if kind == "table" else NOISE
    if kind in ("table", "adder"):
        rows = tg.datasets.adder(int(size))
        weights = np.ones(len(rows))
        known = np.arange(rows.shape[1]) < 2 * int(size)
    elif kind == "bars":
        rows = tg.datasets.bars_and_stripes(4)
        weights = np.where(np.arange(len(rows)) < 16, 1.0, 0.1)
        known = np.arange(16) % 4 < 2
    else:
        rows = draw.choice(np.array([-1, 1], np.int8), (int(size), 14))
        weights = np.geomspace(1, 1 / 30, len(rows))
        known = np.arange(14) < 7
    weights = weights / weights.sum()

    def samples(count: int) -> np.ndarray:
        chosen = rows[draw.choice(len(rows), count, p=weights)]
        return np.where(draw.random(chosen.shape) < noise, -chosen, chosen)

    n = rows.shape[1]
    every = np.asarray(tg.enumerate_spins(n), np.float32)
    flips = 0.5 * (n - every @ rows.T.astype(np.float32))
    with np.errstate(divide="ignore"):
        truth = np.log((noise**flips * (1 - noise) ** (n - flips)) @ weights)
    rare = weights <= np.quantile(weights, 0.34) if np.ptp(weights) else np.zeros(len(rows), bool)
    if kind == "table":
        return Problem(rows, rows, rows, rows, rare, known, truth)
    sets = (samples(N_SAMPLES), samples(N_SAMPLES), samples(N_HELD_OUT))
    return Problem(*sets, rows, rare, known, truth)


def train(
    model: Model, data: np.ndarray, ridge: float, n_starts: int, key
) -> tuple[tg.AbstractEnergy, list]:
    """The learned energy, and (seconds, energy) along the way."""
    n = data.shape[1]
    masks = np.flatnonzero((degrees(n) <= model.degree) & (degrees(n) > 0))
    template = tg.Complete(np.zeros(2**n)).keep(masks)
    began, path = time.perf_counter(), []

    def keep(energy) -> None:
        path.append((time.perf_counter() - began, energy))

    objective, penalty = tg.ExactLikelihood(), tg.learning.L2(ridge, fields=ridge)

    def finish(start: tg.AbstractEnergy, key) -> tg.FitResult:
        return tg.fit(
            objective,
            start,
            data,
            n_steps=N_STEPS,
            callback=lambda f: keep(f.energy),
            key=key,
            penalty=penalty,
        )

    if model.n_experts == 1:
        return finish(template, key).energy, path
    fitted, draw = [], np.random.default_rng(0)
    for start_key in jax.random.split(key, n_starts):
        # Clusters first, then random shares.
        shares = draw.dirichlet(np.ones(model.n_experts), len(data)) if fitted else None
        mixture = tg.fit_experts(
            template,
            data,
            n_experts=model.n_experts,
            n_starts=1,
            shares=shares,
            n_rounds=5,
            n_steps=20,
            callback=lambda r: keep(r.mixture),
            key=start_key,
            objective=objective,
            penalty=penalty,
        )
        fitted.append(finish(mixture, start_key))
    return min(fitted, key=lambda f: f.history[-1]).energy, path


@jax.jit
def log_probabilities(energy: tg.AbstractEnergy) -> jax.Array:
    return jax.nn.log_softmax(-tg.exact.energies(energy))


def loss(energy: tg.AbstractEnergy, data: np.ndarray) -> float:
    return -float(np.mean(np.asarray(log_probabilities(energy))[tg.index_from_spins(data)]))


def recalled(log_p: np.ndarray, rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether the most probable configuration with the known spins of each row is that row."""
    index = np.arange(len(log_p))
    mask = int(np.sum(1 << np.flatnonzero(known)))
    found = []
    for row in np.asarray(tg.index_from_spins(rows)):
        agree = np.flatnonzero((index & mask) == (row & mask))
        found.append(agree[np.argmax(log_p[agree])] == row)
    return np.array(found)


def slowest(energy: tg.AbstractEnergy, n: int) -> float:
    """Longest relaxation time of the heat bath, in sweeps; NaN where it is too costly."""
    if n > 10:
        return float("nan")
    return float(np.max(tg.exact.relaxation_times(energy, 1.0), initial=0.0))


def judge(energy: tg.AbstractEnergy, p: Problem) -> dict[str, float]:
    log_p, n = np.asarray(log_probabilities(energy)), p.rows.shape[1]
    kept = tg.exact.retention(energy, 1.0, p.rows)
    answers = recalled(log_p, p.rows, p.known)
    figures = {
        "excess": loss(energy, p.held_out) + float(p.truth[tg.index_from_spins(p.held_out)].mean()),
        "mass": float(kept.library_mass),
        "false": int(kept.false_positives),
        "recall": float(answers.mean()),
        "rare": float(answers[p.rare].mean()) if p.rare.any() else float("nan"),
        "time": slowest(energy, n),
    }
    if isinstance(energy, tg.Mixture):
        times = [slowest(energy.expert(a), n) for a in range(energy.n_experts)]
        figures["expert time"] = float(np.max(times))
    return figures


def compare(name: str, seeds: list[int], n_starts: int) -> list[dict[str, Any]]:
    """All pairs of a set: figures of each seed, at the end and at equal time."""
    found = []
    for pair in PAIRS[name]:
        runs: dict[Model, list] = {model: [] for model in pair}
        ridges = {}
        for model in pair:
            first = problem(name, 100)
            key = jax.random.key(0)
            choice = RIDGES[:1] if name.startswith("table") else RIDGES
            tried = [train(model, first.training, ridge, n_starts, key)[0] for ridge in choice]
            ridges[model] = choice[int(np.argmin([loss(e, first.validation) for e in tried]))]
        for seed in seeds:
            p = problem(name, seed)
            trained = {
                m: train(m, p.training, ridges[m], n_starts, jax.random.key(seed)) for m in pair
            }
            shortest = min(path[-1][0] for _, path in trained.values())
            for model, (energy, path) in trained.items():
                in_time = [e for seconds, e in path if seconds <= shortest] or [path[0][1]]
                figures = judge(energy, p)
                figures["seconds"] = path[-1][0]
                figures["excess in time"] = judge(in_time[-1], p)["excess"]
                runs[model].append(figures)
        n = problem(name, 0).rows.shape[1]
        for model in pair:
            names = runs[model][0]
            row = {k: [run[k] for run in runs[model]] for k in names}
            found.append(
                {
                    "set": name,
                    "model": str(model),
                    "experts": model.n_experts,
                    "parameters": model.parameters(n),
                    "ridge": ridges[model],
                    "seed": seeds,
                    **row,
                }
            )
        show(found[-2:])
    return found


def digits(seeds: list[int]) -> list[dict[str, Any]]:
    """Machines of equal size: one of 64 hidden spins, four of 15; two pairwise experts, one."""
    data, _ = tg.datasets.digits()
    rows: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        training, held_out = tg.datasets.split(data, seed=seed)
        for label, size, run in machines(training):
            began = time.perf_counter()
            mixture = run(jax.random.key(seed))
            seconds = time.perf_counter() - began
            low, high = held_out_loss(mixture, held_out, jax.random.key(seed + 10))
            row = rows.setdefault(
                label,
                {
                    "set": "digits",
                    "model": label,
                    "experts": mixture.n_experts,
                    "parameters": size,
                    "seed": seeds,
                    "loss": [],
                    "width": [],
                    "seconds": [],
                },
            )
            row["loss"].append(0.5 * (low + high))
            row["width"].append(high - low)
            row["seconds"].append(seconds)
            print(f"{label:28}{size:7} seed {seed}: {low:.3f} to {high:.3f} nats, {seconds:.0f} s")
    return list(rows.values())


def machines(training: np.ndarray) -> list[tuple[str, int, Callable[[Any], tg.Mixture]]]:
    n = training.shape[1]
    pairwise = tg.Pairwise(jnp.zeros((n, n)), jnp.zeros(n))
    contrast, conditional = tg.PersistentCD(), tg.Pseudolikelihood(3e-3)

    def machine(n_hidden: int, key) -> tg.RBM:
        return tg.RBM.random(n_hidden, training.mean(axis=0), key=key)

    def experts(template, objective, count: int, n_steps: int | None, key) -> tg.Mixture:
        fields = tg.learning.L2(0.0, fields=3e-3) if objective is conditional else None
        return tg.fit_experts(
            template,
            training,
            objective=objective,
            penalty=fields,
            key=key,
            n_experts=count,
            n_rounds=3 if count > 1 else 1,
            n_steps=n_steps,
        )

    return [
        ("1 x RBM 64 + 64", 64 * 65 + 64, lambda k: experts(machine(64, k), contrast, 1, 2000, k)),
        ("4 x RBM 64 + 15", 4 * 1039 + 3, lambda k: experts(machine(15, k), contrast, 4, 700, k)),
        ("1 x pairwise", 2080, lambda k: experts(pairwise, conditional, 1, None, k)),
        ("2 x pairwise", 4161, lambda k: experts(pairwise, conditional, 2, None, k)),
    ]


def held_out_loss(mixture: tg.Mixture, held_out: np.ndarray, key) -> tuple[float, float]:
    """Bounds in nats a sample: ln Z of every expert from below, and from above by its chains."""
    betas = np.linspace(0.0, 1.0, 2001)[1:]
    bounds = []
    for a in range(mixture.n_experts):
        expert, keys = mixture.expert(a), jax.random.split(jax.random.fold_in(key, a), 3)
        below = tg.annealed_importance_sampling(expert, betas, key=keys[0], n_chains=256)
        ladder = tg.ParallelTempering(np.linspace(0.2, 1.0, 12))
        samples = tg.sample(
            ladder, expert, 1.0, key=keys[1], n_chains=256, n_sweeps=500, burn_in=0, thin=500
        )[:, -1]
        above = tg.sampling.reverse_annealed_importance_sampling(
            expert, betas, samples, key=keys[2]
        )
        bounds.append((below.log_partition, above.log_partition))
    low, high = np.array(bounds).T
    ends = [tg.Mixture(mixture.experts, mixture.log_weights, z) for z in (low, high)]
    losses = [tg.experts.negative_log_likelihood(m, held_out) for m in ends]
    return min(losses), max(losses)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval over seeds (Student)."""
    x = np.asarray(values)
    if len(x) < 2:
        return float(x.mean()), float("nan")
    return float(x.mean()), float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        text = f"{row['set']:12}{row['model']:22}{row['parameters']:6}"
        for name in [k for k in row if isinstance(row[k], list) and k != "seed"]:
            mean, half = interval(row[name])
            text += f"  {name} {mean:.3g} ± {half:.2g}"
        print(text, flush=True)


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every pair and figure who is better: experts, one model, or not told apart."""
    better = {
        "excess": -1,
        "excess in time": -1,
        "loss": -1,
        "mass": 1,
        "false": -1,
        "recall": 1,
        "rare": 1,
    }
    found = []
    for one, many in zip(rows[::2], rows[1::2], strict=True):
        for name, sign in better.items():
            if name not in one:
                continue
            a, b = np.array(one[name]), np.array(many[name])
            if np.isnan(a).any() or np.isnan(b).any():
                continue
            gain, half = interval((sign * (b - a)).tolist())
            (low, h1), (high, h2) = interval(a.tolist()), interval(b.tolist())
            winner = "experts" if gain > half else "one" if gain < -half else "neither"
            found.append(
                {
                    "set": one["set"],
                    "one": one["model"],
                    "experts": many["model"],
                    "figure": name,
                    "better": winner,
                    "gain": gain,
                    "half": half,
                    "apart": bool(abs(low - high) > h1 + h2),
                }
            )
    return found


def claims(judged: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """The remedy, figure by figure, over all pairs of equal size."""
    for figure, text in (
        ("excess", "experts predict held-out data better than one model of equal size"),
        ("false", "experts have fewer false positives"),
        ("recall", "experts recall more"),
        ("rare", "experts recall more of the rare patterns"),
    ):
        found = [v["better"] for v in judged if v["figure"] == figure]
        if found:
            counts = {who: found.count(who) for who in ("experts", "one", "neither")}
            claim(
                f"{text}, in every pair",
                counts["experts"] == len(found),
                f"better: experts {counts['experts']}, one model {counts['one']}, not told apart "
                f"{counts['neither']} of {len(found)} pairs",
            )
    times = [
        np.mean(many["expert time"]) / np.mean(one["time"])
        for one, many in zip(rows[::2], rows[1::2], strict=True)
        if np.isfinite(one.get("time", [np.nan])).all()
    ]
    if times:
        claim(
            "each expert mixes faster than one model, in every pair that is enumerated",
            max(times) < 1,
            f"slowest expert over one model: {min(times):.2g} to {max(times):.2g}",
        )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Held-out loss above the truth, false positives, recall of the rare, of each pair."""
    rows = [row for row in rows if "excess" in row]
    ink, accent = "#1f3a5f", "#c2571a"
    panels = [
        ("excess", "held-out loss above the truth, nats"),
        ("false", "false positives"),
        ("recall", "recall"),
    ]
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 0.42 * len(rows) / 2 + 1.6), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        place = -np.arange(len(rows) // 2)
        for ax, (name, label) in zip(axes, panels, strict=True):
            for shift, start, colour, who in ((0.17, 0, ink, "one"), (-0.17, 1, accent, "experts")):
                means = np.array([interval(row[name]) for row in rows[start::2]])
                ax.barh(place + shift, means[:, 0], 0.32, color=colour, label=who)
                ax.errorbar(means[:, 0], place + shift, xerr=means[:, 1], fmt="none", ecolor="k")
            ax.set_xlabel(label)
            ax.set_xlim(left=0)
        names = [
            f"{a['set']}\n{a['model'][4:]}, {b['model']}"
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
        axes[0].set_yticks(place, names)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def by_seed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: x[k] if isinstance(x, list) else x for name, x in row.items()}
        for row in rows
        for k in range(len(row["seed"]))
    ]


def main(
    sets: tuple[str, ...] = SETS,
    /,
    *,
    repeats: int = 5,
    starts: int = 6,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    # Experts see few samples, of which some spins are constant: the ridge keeps them finite.
    warnings.simplefilter("ignore", UserWarning)
    rows: list[dict[str, Any]] = []
    seeds = {name: task.part(range(repeats)[: 3 if name == "digits" else None]) for name in sets}
    for name in sets:
        if name == "digits":
            rows += digits(seeds[name])
        else:
            with jax.enable_x64(True):
                rows += compare(name, seeds[name], starts)
    judged = verdicts(rows)
    print()
    for v in judged:
        apart = ", intervals apart" if v["apart"] else ""
        print(
            f"{v['set']:12}{v['one']} | {v['experts']}: {v['figure']}: {v['better']} "
            f"({v['gain']:+.3g} ± {v['half']:.2g}{apart})"
        )
    if task.count == 1:
        claims(judged, rows)
    tag = "-".join(s.replace(":", "") for s in sets)
    table(out / f"remedy-{tag}.csv", by_seed(rows))
    if any("excess" in row for row in rows):
        save(out / f"remedy-{tag}.png", draw(rows))
