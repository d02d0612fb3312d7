"""Fewer false positives at equal likelihood: states that hold no data are raised.

Pairwise models of 10 to 16 spins by exact maximum likelihood with a ridge. What they should not
hold is pushed up in three ways, at several strengths each:

- states: minima of naive mean field in whose basin no data lie, followed as the parameters change;
  softplus of what their free energies lack to the mean one of states with data, + 3. At half the
  temperature of learning, where most single-flip minima have a state;
- examples: `tg.learning.NegativeExamples` with the single-flip minima that are no data, the same
  formula with energies of configurations;
- ridge: a weaker one, which costs nothing but larger couplings.

States are searched anew in every 15 of 150 steps, examples in each of four fits. All is measured by
enumeration: negative log-likelihood of the data (of the truth, where data are noisy samples), and
the weight of all configurations from which steepest descent leads to no minimum that data lead to.
Data: 10 random patterns of 14 spins; sums of 3 bits; bars and stripes 4 x 4; the digits' typical
pictures, 4 x 4; 500 samples of 20 patterns of 14 spins, turned with a chance of 2 %. Prints a table
and a verdict for each claim; saves a table and a picture. Tasks of an array share the data sets.

In practice: states that hold no data can be found during training and pushed up, on some data at no
loss of likelihood. Try the cheap things first: a weaker ridge where the data are exact, and false
positives as negative examples, do as well or better on most.

    python -m experiments false_positives [--quick] [--out DIR]
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
from experiments._shared import (
    ACCENT,
    GREEN,
    INK,
    STYLE,
    claim,
    descents,
    filled,
    padded,
    save,
    table,
)
from thermogen import landscape
from thermogen._tasks import Task
from thermogen.learning import L2, AbstractPenalty, Bounds, NegativeExamples

NAIVE, BETA = tg.NaiveMeanField(), 2.0  # of the states; models are learned at 1
RIDGE, GAP, ROUNDS = 1e-2, 3.0, 4
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
RIDGES = (6e-3, 3e-3, 1.5e-3, 7e-4, 3e-4)
K = 32  # places for states, so that one program serves all rounds
EXAMPLES = 512
STEPS, ANEW = 150, 15
OPTIMISER = optax.adam(optax.cosine_decay_schedule(0.02, STEPS))
QUICK = {"kinds": ("patterns", "bars", "digits"), "sets": 1}
ALLOWED = 0.02  # nats
COLORS = {"ridge": INK, "examples": GREEN, "states": ACCENT}


class Data(NamedTuple):
    """What is learned, and by what it is judged: rows and their weights."""

    rows: np.ndarray
    judged: np.ndarray
    weights: np.ndarray


def noisy(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    stored = rng.choice([-1, 1], (20, 14))
    clean = stored[rng.integers(20, size=500)]
    rows = np.where(rng.random(clean.shape) < 0.02, -clean, clean)
    flips = 0.5 * (14 - np.asarray(tg.enumerate_spins(14)) @ stored.T)
    truth = np.mean(0.02**flips * 0.98 ** (14 - flips), axis=1)
    return Data(rows, np.asarray(tg.enumerate_spins(14)), truth)


def digits() -> np.ndarray:
    """The picture of each class, 4 x 4: which blocks of pixels are mostly lit."""
    pictures, labels = tg.datasets.digits()
    blocks = np.asarray(pictures).reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(-1, 16)
    means = np.array([blocks[labels == digit].mean(axis=0) for digit in range(10)])
    return np.unique(np.where(means > 0, 1, -1), axis=0)


KINDS = ("patterns", "sums", "bars", "digits", "noisy")


def data_sets(sets: int) -> dict[tuple[str, int], Data]:
    """By kind and number."""

    def exact(rows: np.ndarray) -> Data:
        return Data(rows, rows, np.full(len(rows), 1 / len(rows)))

    def random(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).choice([-1, 1], (10, 14))

    return {
        **{("patterns", seed): exact(random(seed)) for seed in range(sets)},
        ("sums", 0): exact(tg.datasets.adder(3)),
        ("bars", 0): exact(tg.datasets.bars_and_stripes(4)),
        ("digits", 0): exact(digits()),
        **{("noisy", seed): noisy(seed) for seed in range(sets)},
    }


def measured(energy: tg.Pairwise, data: Data) -> dict[str, float]:
    energies = np.asarray(tg.exact.energies(energy))
    log_p = np.asarray(jax.nn.log_softmax(-jnp.asarray(energies)))
    goal, rows = descents(energies), np.asarray(tg.index_from_spins(data.rows))
    outside = ~np.isin(goal, goal[rows])
    judged = log_p[np.asarray(tg.index_from_spins(data.judged))]
    return {
        "loss": -float(data.weights @ judged),
        "outside": float(np.exp(log_p)[outside].sum()),
        "minima": len(np.unique(goal[outside])),
    }


def states_of(energy: tg.Pairwise, data: Data) -> tuple[tg.Library, Array]:
    """Minima, padded, and the share of the data in the basin of each."""
    goal = descents(np.asarray(tg.exact.energies(energy)))
    library = tg.find_minima(NAIVE, energy, BETA, key=jax.random.key(0), n_starts=320)[:K]
    corners = np.where(library.magnetizations >= 0, 1, -1)
    ends, of_data = (goal[np.asarray(tg.index_from_spins(s))] for s in (corners, data.rows))
    shares = np.array([np.mean(of_data == end) for end in ends])

    return padded(library, K), jnp.asarray(filled(shares, K))


@jax.jit
def improved(energy, state, library: tg.Library, shares: Array, rows: Array, strength: Array):
    """A step of Adam, and the states where they are now."""

    def loss(energy):
        states = landscape.follow(NAIVE, energy, BETA, library)
        held, empty = shares * states.exists, states.exists & (shares == 0)
        mean = jnp.sum(held * states.free_energies) / jnp.maximum(jnp.sum(held), 1e-9)
        lacks = jax.nn.softplus(mean + GAP - states.free_energies)
        raised = jnp.sum(empty * lacks) / jnp.maximum(jnp.sum(empty), 1)
        fields, couplings = jnp.sum(energy.fields**2), 0.5 * jnp.sum(energy.couplings**2)
        surprise = tg.learning.potential(energy, 1.0, rows)
        return surprise + RIDGE * (fields + couplings) + strength * raised, states.library()

    slopes, now = jax.grad(loss, has_aux=True)(energy)
    changes, state = OPTIMISER.update(slopes, state)
    return optax.apply_updates(energy, changes), state, now


def raised(energy: Any, data: Data, strength: float) -> Any:
    state, rows = OPTIMISER.init(energy), jnp.asarray(data.rows, float)
    for _ in range(STEPS // ANEW):
        library, shares = states_of(energy, data)
        for _ in range(ANEW):
            energy, state, library = improved(
                energy, state, library, shares, rows, jnp.asarray(strength)
            )
    return energy


def examples(energy: tg.Pairwise, data: Data, strength: float) -> NegativeExamples:
    goal = descents(np.asarray(tg.exact.energies(energy)))
    held = goal[np.asarray(tg.index_from_spins(data.rows))]
    false = np.setdiff1d(goal, held)
    spins = np.asarray(tg.spins_from_index(np.resize(false, EXAMPLES), data.rows.shape[1]))
    return NegativeExamples(
        jnp.asarray(spins), jnp.asarray(data.rows), GAP, strength if len(false) else 0.0
    )


class Sum(AbstractPenalty):
    """A ridge, and another penalty."""

    ridge: L2
    other: AbstractPenalty

    def bounds(self) -> Bounds:
        return self.ridge.bounds()

    def __call__(self, energy: Any) -> Array:
        return self.ridge(energy) + self.other(energy)


def fitted(energy: Any, data: Data, penalty: AbstractPenalty) -> Any:
    key = jax.random.key(0)
    return tg.fit(
        tg.ExactLikelihood(), energy, data.rows, key=key, penalty=penalty, n_steps=300
    ).energy


def ridge(strength: float) -> L2:
    return L2(strength, fields=strength)


def path(plain: tg.Pairwise, data: Data, how: str) -> list[dict[str, float]]:
    """Figures of the plain model, and at every strength, each from the last."""
    found, energy = [measured(plain, data)], plain
    for strength in RIDGES if how == "ridge" else STRENGTHS:
        if how == "ridge":
            energy = fitted(energy, data, ridge(strength))
        elif how == "states":
            energy = raised(energy, data, strength)
        else:
            for _ in range(ROUNDS):
                energy = fitted(energy, data, Sum(ridge(RIDGE), examples(energy, data, strength)))
        found.append(measured(energy, data))
    return found


def compared(data: Data) -> dict[str, list[dict[str, float]]]:
    n = data.rows.shape[1]
    plain = fitted(tg.Pairwise(np.zeros((n, n)), np.zeros(n)), data, ridge(RIDGE))
    return {how: path(plain, data, how) for how in COLORS}


def least_outside(rows: list[dict[str, float]]) -> float:
    """Least weight outside at `ALLOWED` more than the plain loss, between strengths by lines."""
    loss, outside = (np.array([row[name] for row in rows]) for name in ("loss", "outside"))
    limit = loss[0] + ALLOWED
    found = list(outside[loss <= limit])
    for k in np.flatnonzero((loss[:-1] > limit) != (loss[1:] > limit)):
        share = (limit - loss[k]) / (loss[k + 1] - loss[k])
        found.append(outside[k] + share * (outside[k + 1] - outside[k]))
    return float(min(found))


def verdicts(found: dict[str, list[dict[str, list]]]) -> None:
    print(
        f"\nweight outside at no more than {ALLOWED} nats above the plain model's, mean over sets"
    )
    print(f"{'':12}{'plain':>9}" + "".join(f"{how:>10}" for how in COLORS))
    least = {}
    for name, several in found.items():
        plain = np.array([f["states"][0]["outside"] for f in several])
        least[name] = {how: np.array([least_outside(f[how]) for f in several]) for how in COLORS}
        cells = "".join(f"{values.mean():10.4f}" for values in least[name].values())
        print(f"{name:12}{plain.mean():9.4f}{cells}")
        least[name]["plain"] = plain
    print()
    for rival, factor in (("plain", 0.5), ("examples", 1.0), ("ridge", 1.0)):
        better = [n for n, w in least.items() if w["states"].mean() < factor * w[rival].mean()]
        how = "halves the weight outside of" if rival == "plain" else "leaves less of it than"
        claim(
            f"at equal likelihood raising states {how} {rival}, on every kind of data",
            len(better) == len(least),
            f"on {', '.join(better) or 'none'}",
        )


def draw(found: dict[str, list[dict[str, list]]]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 3.2), layout="constrained")
        for ax, (name, several) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
            for f in several:
                for how, rows in f.items():
                    cost = [row["loss"] - rows[0]["loss"] for row in rows]
                    outside = [row["outside"] for row in rows]
                    label = how if f is several[0] else None
                    ax.plot(cost, outside, ".-", color=COLORS[how], alpha=0.7, label=label)
            ax.axvline(ALLOWED, color="0.7", linewidth=0.8)
            ax.set_title(name)
            ax.set(xlabel="likelihood lost, nats", xlim=(-0.3, 0.3), ylim=(0, None))
        figure.axes[0].set(ylabel="weight outside of the data's basins")
        figure.axes[0].legend(loc="lower left")
    return figure


def main(
    kinds: tuple[str, ...] = KINDS,
    /,
    *,
    sets: int = 3,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    found: dict[str, list] = {}
    rows: list[dict[str, Any]] = []
    asked = [(key, data) for key, data in data_sets(sets).items() if key[0] in kinds]
    for (name, number), data in task.part(asked):
        now = compared(data)
        found.setdefault(name, []).append(now)
        for how, figures in now.items():
            cells = [f"{r['loss']:.3f} {r['outside']:.4f} ({r['minima']})" for r in figures]
            print(f"{name:10}{how:10}{'; '.join(cells)}", flush=True)
            rows += [{"data": name, "set": number, "remedy": how, **row} for row in figures]
    verdicts(found)
    table(out / "false_positives.csv", rows)
    save(out / "false_positives.png", draw(found), dpi=130)
