"""Rare patterns made accessible: states that weigh too little are lowered while a model learns.

Samples of eight patterns of 14 spins, with weights w from 1 to 1/50 and a noise of 3 %, learned by
a pairwise model: exact maximum likelihood with a ridge of 0.01. Plain learning gives the rarest
patterns no state at all. Two remedies:

- reweighted: each sample of pattern a weighs w_a^(s - 1), for s from 1, plain learning, to 0, where
  all patterns weigh the same; this takes the labels of the samples;
- lowered: from the fit of equal weights on, where each pattern has a state, the states are followed
  as the parameters change. What their free energies lie above -ln w, counted from the most frequent
  one, and what their lowest curvature lacks to STIFF is added to the loss, at several strengths: a
  state must weigh no less than its data, and one that goes soft is about to vanish.

Measured: `tg.recall` from random halves of every pattern, the share of the cues whose most probable
answer is the pattern; the divergence of the model from the truth in nats, exactly, which is the
held-out negative log-likelihood above its least; the weight of each pattern's basin of steepest
descent. Prints a table and a verdict for each claim; saves a table and a picture. Tasks of an array
share the seeds.

In practice: a pattern that training has lost can be brought back by asking for it in the loss: for
a state at its place, deep enough for its share of the data. Where that works it costs a fraction of
the likelihood that reweighting the samples costs; it does not work on every set of data.

    python -m experiments rare [--quick] [--out DIR]
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, INK, MUTED, STYLE, claim, descents, save, table
from thermogen import landscape
from thermogen._tasks import Task
from thermogen.learning import L2

N, N_MASKS = 14, 24
WEIGHTS = np.geomspace(1, 1 / 50, 8)
RARE = slice(4, 8)
NOISE, N_SAMPLES = 0.03, 1000
RIDGE, STIFF = 1e-2, 2.0
STRENGTHS = (3.0, 1.0, 0.3, 0.1)  # nats per energy unit
STEPS, ANEW = 400, 20
OPTIMISER = optax.adam(optax.cosine_decay_schedule(0.01, STEPS))
REWEIGHTED = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0)
ENOUGH = 0.95  # of what equal weights recall
QUICK = {"sets": 2}
NAIVE = tg.NaiveMeanField()
CHAINS: Any = {"n_chains": 48, "n_sweeps": 30, "capacity": 16}


class Problem(NamedTuple):
    """Samples of known patterns."""

    stored: np.ndarray
    labels: np.ndarray
    samples: np.ndarray
    truth: np.ndarray  # probability of every configuration


def problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    stored = rng.choice([-1, 1], (len(WEIGHTS), N))
    shares = WEIGHTS / WEIGHTS.sum()
    labels = rng.choice(len(WEIGHTS), N_SAMPLES, p=shares)
    clean = stored[labels]
    samples = np.where(rng.random(clean.shape) < NOISE, -clean, clean)
    flips = 0.5 * (N - np.asarray(tg.enumerate_spins(N)) @ stored.T)
    return Problem(stored, labels, samples, (NOISE**flips * (1 - NOISE) ** (N - flips)) @ shares)


def fitted(energy: Any, p: Problem, weights: np.ndarray) -> Any:
    return tg.fit(
        tg.ExactLikelihood(),
        energy,
        p.samples,
        weights=weights,
        penalty=L2(RIDGE, fields=RIDGE),
        key=jax.random.key(0),
    ).energy


def states_of(energy: tg.Pairwise, p: Problem) -> tg.Library:
    """The minimum that descent from each pattern leads to, one row a pattern."""
    ends = tg.search.quench(NAIVE, energy, 1.0, p.stored.astype(float))
    m = np.asarray(ends.value)
    held = np.sum(m * p.stored, axis=1) / N > 0.6
    zero = np.zeros(len(m))
    return tg.Library(m, zero, zero, zero, zero.astype(int), np.ones(len(m), int), mask=held)


def cost(energy: tg.Pairwise, library: tg.Library) -> tuple[Array, tg.Library]:
    """What states weigh too little, and what they lack to be stiff; and the states as followed."""
    states = landscape.follow(NAIVE, energy, 1.0, library)
    above = states.free_energies - states.free_energies[0] + np.log(WEIGHTS)
    soft = STIFF - states.curvatures
    costs = jax.nn.relu(above) + jax.nn.relu(soft)
    return jnp.sum(jnp.where(states.exists, costs, 0)), states.library()


@jax.jit
def improved(energy, state, library: tg.Library, samples: Array, strength: Array):
    """A step of Adam, and the states where they are now."""

    def loss(energy):
        lost, now = cost(energy, library)
        fields, couplings = jnp.sum(energy.fields**2), 0.5 * jnp.sum(energy.couplings**2)
        surprise = tg.learning.potential(energy, 1.0, samples)
        return surprise + RIDGE * (fields + couplings) + strength * lost, now

    slopes, now = jax.grad(loss, has_aux=True)(energy)
    changes, state = OPTIMISER.update(slopes, state)
    return optax.apply_updates(energy, changes), state, now


def lowered(energy: Any, p: Problem, strength: float) -> Any:
    state, samples = OPTIMISER.init(energy), jnp.asarray(p.samples)
    for _ in range(STEPS // ANEW):
        library = states_of(energy, p)
        for _ in range(ANEW):
            energy, state, library = improved(
                energy, state, library, samples, jnp.asarray(strength)
            )
    return energy


@jax.jit
def recall_rates(energy: tg.Pairwise, spins: Array, masks: Array) -> Array:
    """Share of the cues of each pattern whose most probable answer it is, shape `(patterns,)`."""
    keys = jax.random.split(jax.random.key(3), len(spins))
    one = lambda s, m, k: tg.recall(energy, 1.0, jnp.where(m, s, 0), key=k, **CHAINS)  # noqa: E731
    found = jax.vmap(one)(spins, masks, keys)
    best = jnp.argmax(found.probabilities, axis=1)
    answers = jnp.take_along_axis(found.configurations, best[:, None, None], axis=1)[:, 0]
    return jnp.mean(jnp.all(answers == spins, axis=1).reshape(-1, N_MASKS), axis=1)


def measured(energy: tg.Pairwise, p: Problem) -> dict[str, Any]:
    energies = np.asarray(tg.exact.energies(energy))
    log_p = np.asarray(jax.nn.log_softmax(-jnp.asarray(energies)))
    goal = descents(energies)
    at = np.asarray(tg.index_from_spins(p.stored))
    rng = np.random.default_rng(5)
    masks = np.array([rng.permutation(N) < N // 2 for _ in range(len(at) * N_MASKS)])
    spins = np.repeat(p.stored, N_MASKS, axis=0).astype(float)
    return {
        "excess": float(p.truth @ (np.log(p.truth) - log_p)),
        "recall": np.asarray(recall_rates(energy, jnp.asarray(spins), jnp.asarray(masks))),
        "weights": np.array([np.exp(log_p)[goal == goal[k]].sum() for k in at]),
        "states": int(np.sum(states_of(energy, p).mask)),
    }


def compared(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Figures of both remedies at every share and strength, the plain model first."""
    p, start = problem(seed), tg.Pairwise(np.zeros((N, N)), np.zeros(N))
    energy = even = fitted(start, p, WEIGHTS[p.labels] ** -1)
    found: dict[str, list] = {"reweighted": [], "lowered": []}
    for share in REWEIGHTED:
        other = fitted(even, p, WEIGHTS[p.labels] ** (share - 1))
        found["reweighted"].append({"at": share, **measured(other, p)})
    for strength in STRENGTHS:
        energy = lowered(energy, p, strength)
        found["lowered"].append({"at": strength, **measured(energy, p)})
    print(f"\nseed {seed}: s or strength, nats, recall of the rarer half and of the other, states")
    for how, rows in found.items():
        for row in rows:
            print(
                f"   {how:11}{row['at']:5.2f}{row['excess']:8.3f}{rare(row):7.2f}"
                f"{row['recall'][: RARE.start].mean():6.2f}{row['states']:4}",
                flush=True,
            )
    return found


def rare(row: dict[str, Any]) -> float:
    return float(row["recall"][RARE].mean())


def cheapest(rows: list[dict[str, Any]], target: float) -> float:
    """Least divergence at which the rarer half is recalled as wanted; infinite if it never is."""
    return min([row["excess"] for row in rows if rare(row) >= target], default=np.inf)


def verdicts(found: list[dict[str, list]]) -> None:
    plain = [f["reweighted"][0] for f in found]
    targets = [ENOUGH * rare(f["reweighted"][-1]) for f in found]
    base = np.array([row["excess"] for row in plain])
    costs = {
        how: np.array([cheapest(f[how], t) for f, t in zip(found, targets, strict=True)]) - base
        for how in ("lowered", "reweighted")
    }
    low, other = costs["lowered"], costs["reweighted"]
    best = np.array([max(map(rare, f["lowered"])) for f in found])
    claim(
        f"plain: of the rarer half less than {ENOUGH:.0%} is recalled of what equal weights recall",
        all(rare(row) < t for row, t in zip(plain, targets, strict=True)),
        f"mean recall {np.mean([rare(row) for row in plain]):.2f}, of equal weights "
        f"{np.mean(targets) / ENOUGH:.2f}; {np.mean([r['states'] for r in plain]):.1f} of 8 states",
    )
    claim(
        f"lowered: {ENOUGH:.0%} of it is recalled, on every set",
        np.all(np.isfinite(low)),
        f"mean recall {best.mean():.2f}; on {np.isfinite(low).sum()} of {len(low)}",
    )
    claim(
        "lowered: this costs less likelihood than by weights of the samples, on every set",
        np.all(low < other),
        f"median {np.median(low):.3f} against {np.median(other):.3f} nats; less on "
        f"{np.sum(low < other)} of {len(low)}",
    )


def draw(found: list[dict[str, list]]) -> Figure:
    colors = {"plain": MUTED, "reweighted": INK, "lowered": ACCENT}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        shown = {"plain": [f["reweighted"][0] for f in found]}
        shown["lowered"] = [f["lowered"][1] for f in found]
        for how, rows in shown.items():
            rates = np.array([row["recall"] for row in rows])
            left.semilogx(WEIGHTS, rates.T, "o", color=colors[how], markersize=3, alpha=0.5)
            left.semilogx(WEIGHTS, rates.mean(axis=0), color=colors[how], label=how)
        left.set_title("recall against weight")
        left.set(xlabel="weight of the pattern", ylabel="recall from half of the spins")
        left.set(ylim=(-0.03, 1.05))
        left.legend(title="mean of all sets", loc="center right")
        for f in found:
            for how, rows in f.items():
                cost = [row["excess"] - f["reweighted"][0]["excess"] for row in rows]
                label = how if f is found[0] else None
                right.plot(
                    cost,
                    [rare(row) for row in rows],
                    ".-",
                    color=colors[how],
                    alpha=0.6,
                    label=label,
                )
        right.set_title("what recall of the rare costs")
        right.set(xlabel="held-out likelihood lost, nats a sample", ylabel="recall, rarer half")
        right.set(ylim=(-0.03, 1.05))
        right.legend(loc="lower right")
    return figure


def rows_of(seed: int, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One for each remedy and share."""
    return [
        {"seed": seed, "remedy": how, "at": row["at"], "excess": row["excess"]}
        | {f"recall of {w:.2g}": x for w, x in zip(WEIGHTS, row["recall"], strict=True)}
        for how, rows in found.items()
        for row in rows
    ]


def main(
    *, sets: int = 6, out: pathlib.Path = pathlib.Path("results"), task: Task = Task()
) -> None:
    found = {seed: compared(seed) for seed in task.part(range(sets))}
    print()
    verdicts(list(found.values()))
    table(out / "rare.csv", [row for seed, f in found.items() for row in rows_of(seed, f)])
    save(out / "rare.png", draw(list(found.values())), dpi=130)
