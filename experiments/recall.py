"""How well cues are completed: sums from summands, digits from half of their pixels.

(a) Addition of two numbers of three bits, n = 10: the sum is asked, a and b are known, and b is
asked, a and the sum are known. The exact table at several temperatures, then descriptions of
degree 2, 3 and 4, cut from the table or learned by exact maximum likelihood.

(b) Digits, four fifths to learn from, one fifth judged (`tg.datasets.split`), the lower half or a
random half of the pixels hidden. A pairwise model by pseudolikelihood and an RBM of 64 hidden
units by persistent contrastive divergence, against the training digit that agrees best with what
is known, and against the vote of the ten best. Per pixel: signs of the magnetizations of the
answers, and the top answer.

(c) Methods on one learned description of the adder: annealing, Gibbs sampling, parallel tempering
and naive mean field with as many chains or starts: right, probability of the truth, calibration,
seconds for all cues; sweeps until chains first meet the answer.

    python -m experiments recall [--out DIR] [--only adder digits methods]
"""

import pathlib
import time
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import save
from thermogen import learning, retrieval
from thermogen.energies import complete
from thermogen.walsh import degrees

# As users have it who set nothing.
X64 = False

BITS, N = 3, 10
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0)
DEGREES = (2, 3, 4)
EXPERTS = ((2, 3), (3, 2))  # degree and number
GAP = 10.0
SUM_ASKED = np.arange(N) < 2 * BITS
SUMMAND_ASKED = (np.arange(N) < BITS) | (np.arange(N) >= 2 * BITS)
PIXELS, N_HIDDEN, N_SHOWN = 64, 64, 10
METHODS = {
    "annealing": tg.Annealing(),
    "Gibbs": tg.Gibbs(),
    "tempering": tg.ParallelTempering(np.geomspace(0.1, 1, 6)),
    "naive mean field": tg.NaiveMeanField(),
}


@eqx.filter_jit
def answers(energy, cues, masks, beta, key, method=tg.Annealing(), **counts):
    keys = jax.random.split(key, len(cues))

    def one(cue, mask, key):
        known = jnp.where(mask, cue, 0)
        return tg.recall(energy, beta, known, key=key, method=method, **counts)

    return jax.vmap(one)(cues, masks, keys)


# --- (a) adders


def learned(data: np.ndarray, degree: int) -> tg.Interactions:
    """One model of that degree by exact maximum likelihood, with the background of the gap."""
    masks = np.flatnonzero((degrees(N) <= degree) & (degrees(N) > 0))
    start = tg.Complete(np.zeros(2**N)).keep(masks)
    rows, weights = learning.with_background(data, GAP)
    objective = tg.ExactLikelihood()
    return tg.fit(objective, start, rows, weights=weights, key=jax.random.key(0)).energy


def experts(data: np.ndarray, degree: int, count: int) -> tg.AbstractEnergy:
    """As many models of that degree, each for a part of the table, by exact maximum likelihood."""
    masks = np.flatnonzero((degrees(N) <= degree) & (degrees(N) > 0))
    start = tg.Complete(np.zeros(2**N)).keep(masks)
    ridge = learning.L2(1e-4, fields=1e-4)
    objective, key = tg.ExactLikelihood(), jax.random.key(0)
    mixture = tg.fit_experts(
        start,
        data,
        objective=objective,
        penalty=ridge,
        key=key,
        n_experts=count,
        n_starts=6,
        n_rounds=5,
        n_steps=50,
    )
    return tg.fit(objective, mixture, data, penalty=ridge, key=key).energy


def reduced(data: np.ndarray) -> dict[str, tg.AbstractEnergy]:
    """Descriptions with fewer couplings than the table."""
    exact = tg.Complete.from_data(data, temperature=1.0, gap_per_spin=GAP / N)
    cut = {f"cut at degree {k}": exact.truncate(k) for k in DEGREES}
    cut |= {f"one model, degree {k}": learned(data, k) for k in DEGREES}
    return cut | {f"{size} experts, degree {k}": experts(data, k, size) for k, size in EXPERTS}


def asked(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row of the table with the sum unknown, then every row with b unknown."""
    masks = np.repeat([SUM_ASKED, SUMMAND_ASKED], len(data), axis=0)
    return np.concatenate([data, data]).astype(float), masks


def adders() -> dict[str, tg.AbstractEnergy]:
    data = tg.datasets.adder(BITS)
    cues, masks = (jnp.asarray(x) for x in asked(data))
    exact = tg.Complete.from_data(data, temperature=1.0, gap_per_spin=GAP / N)
    models = reduced(data)
    cases = [(f"exact table, T = {t:g}", exact, t) for t in TEMPERATURES]
    cases += [
        (f"{name}, T = {t:g}", complete(e), t) for name, e in models.items() for t in (1, 0.5)
    ]
    print(
        "\n(a) adder:3, right answers of 64; truth: its mean probability; false: answers not data"
    )
    print(f"{'':30}{'sum':>5}{'spins':>7}{'truth':>7}{'false':>7}{'b':>7}{'spins':>7}{'truth':>7}")
    for name, energy, t in cases:
        found = answers(energy, cues, masks, jnp.asarray(1.0 / t), jax.random.key(1))
        line = ""
        for part in (slice(0, 64), slice(64, 128)):
            of_part = jax.tree.map(lambda x, part=part: x[part], found)
            s = retrieval.recall_scores(of_part, cues[part], (cues * masks)[part], data)
            line += f"{round(64 * float(s.exact_match)):7d}{s.spin_accuracy:7.3f}"
            line += f"{s.truth_probability:7.3f}"
            line += f"{s.false_positives:7.3f}" if part.start == 0 else ""
        print(f"{name:28}{line}")
    return models


# --- (c) methods


def methods(energy: tg.AbstractEnergy) -> None:
    data = tg.datasets.adder(BITS)
    cues, masks = (jnp.asarray(x) for x in asked(data))
    cues, masks = cues[:64], masks[:64]
    print(
        "\n(c) methods, sum asked of the learned degree 3 at T = 1; 64 chains or starts, 100 sweeps"
    )
    print(f"{'':18}{'right':>7}{'truth':>7}{'misses':>8}{'ECE':>7}{'seconds':>9}{'compile':>9}")
    for name, method in METHODS.items():
        began = time.perf_counter()
        jax.block_until_ready(
            answers(energy, cues, masks, jnp.asarray(1.0), jax.random.key(1), method)
        )
        between = time.perf_counter()
        found = answers(energy, cues, masks, jnp.asarray(1.0), jax.random.key(2), method)
        jax.block_until_ready(found)
        seconds = time.perf_counter() - between
        s = retrieval.recall_scores(found, cues, cues * masks, data)
        print(
            f"{name:18}{s.exact_match:7.3f}{s.truth_probability:7.3f}{s.misses:8.3f}"
            f"{s.calibration_error:7.3f}{seconds:9.2f}{between - began - seconds:9.1f}"
        )
    print(f"\n{'first hit, sweeps':18}" + "".join(f"{f'T = {t:g}':>26}" for t in (1.0, 0.5)))
    print(f"{'':18}" + 2 * f"{'median':>8}{'90 %':>8}{'never':>10}")
    for name in ("Gibbs", "tempering"):
        line = ""
        for t in (1.0, 0.5):
            hits = np.asarray(hit_times(energy, cues, masks, jnp.asarray(1 / t), METHODS[name]))
            line += f"{np.median(hits):8.0f}{np.quantile(hits, 0.9, method='higher'):8.0f}"
            line += f"{np.isinf(hits).mean():10.3f}"
        print(f"{name:18}{line}")


@eqx.filter_jit
def hit_times(energy, cues, masks, beta, sampler):
    keys = jax.random.split(jax.random.key(4), len(cues))
    options = {"sampler": sampler, "n_chains": 32, "n_sweeps": 2000}

    def one(cue, mask, key):
        known = jnp.where(mask, cue, 0)
        return tg.retrieval.first_hits(energy, beta, known, cue[None], key=key, **options)

    return jax.vmap(one)(cues, masks, keys)


# --- (b) digits


def digit_models(training: np.ndarray) -> dict[str, tg.AbstractEnergy]:
    # Pixels that are always white.
    warnings.filterwarnings("ignore", message="data: spins")
    start = tg.Pairwise(np.zeros((PIXELS, PIXELS)), np.zeros(PIXELS))
    objective = tg.Pseudolikelihood()
    pairwise = tg.fit(objective, start, training, key=jax.random.key(0))
    means = jnp.asarray(training.mean(axis=0), jnp.float32)
    machine = tg.fit(
        tg.PersistentCD(),
        tg.RBM.random(N_HIDDEN, means, key=jax.random.key(0)),
        training,
        key=jax.random.key(1),
    )
    return {"pairwise": pairwise.energy, "RBM": machine.energy}


def hidden_halves(n_cues: int) -> dict[str, np.ndarray]:
    """Masks, True where a pixel is known."""
    rng = np.random.default_rng(5)
    return {
        "lower half": np.tile(np.arange(PIXELS) < PIXELS // 2, (n_cues, 1)),
        "random half": np.array([rng.permutation(PIXELS) < PIXELS // 2 for _ in range(n_cues)]),
    }


def neighbours(training, cues, masks, k: int) -> np.ndarray:
    """Vote of the k training digits that agree best with what is known."""
    agreement = (cues * masks) @ training.T
    nearest = np.argsort(-agreement, axis=1, kind="stable")[:, :k]
    return np.where(training[nearest].mean(axis=1) >= 0, 1, -1)


def right_pixels(guess, truths, masks) -> float:
    return float(np.mean((guess == truths)[~masks]))


def digits() -> list[tuple[str, np.ndarray, np.ndarray, Any, np.ndarray]]:
    split = tg.datasets.split(tg.datasets.digits().spins, 0.2)
    training, truths = (np.asarray(part, np.float32) for part in split)
    began = time.perf_counter()
    models = digit_models(split.training)
    print(f"\n(b) {len(training)} digits to learn from in {time.perf_counter() - began:.0f} s, "
          f"{len(truths)} judged; share of the hidden pixels that are right")  # fmt: skip
    print(f"{'':12}{'10 votes':>10}{'nearest':>10}", end="")
    print("".join(f"{f'{name}: marginal, top answer (p), s':>38}" for name in models))
    shown = []
    for kind, masks in hidden_halves(len(truths)).items():
        line = f"{kind:12}" + "".join(
            f"{right_pixels(neighbours(training, truths, masks, k), truths, masks):10.4f}"
            for k in (10, 1)
        )
        for name, energy in models.items():
            began = time.perf_counter()
            found = answers(
                energy, jnp.asarray(truths), jnp.asarray(masks), jnp.asarray(1.0), jax.random.key(6)
            )
            seconds = time.perf_counter() - began
            marginal = np.where(np.asarray(found.magnetizations) >= 0, 1, -1)
            top = np.asarray(found.configurations[:, 0])
            p = float(found.probabilities[:, 0].mean())
            scores = [right_pixels(x, truths, masks) for x in (marginal, top)]
            line += f"{scores[0]:16.4f}{scores[1]:9.4f} ({p:.2f}){seconds:6.1f}"
            shown.append((f"{name}, {kind}", masks, top, found.magnetizations, truths))
        print(line)
    return shown


def draw(shown) -> Figure:
    """Cue (hidden pixels grey), top answer, magnetizations and truth of some held-out digits."""
    chosen = [k for k in shown if k[0] in ("RBM, lower half", "RBM, random half")]
    figure = Figure(figsize=(10, 8.4), layout="constrained")
    parts = figure.subfigures(len(chosen), 1)
    for part, (name, masks, top, means, truths) in zip(parts, chosen, strict=True):
        part.suptitle(name, x=0.01, ha="left", fontweight="bold", fontsize=10)
        cue = np.where(masks, truths, np.nan)
        rows = {"cue": cue, "answer": top, "mean": np.asarray(means), "truth": truths}
        axes = part.subplots(4, N_SHOWN)
        colors = matplotlib.colormaps["gray_r"].with_extremes(bad="#d9a66f")
        for line, (title, pictures) in zip(axes, rows.items(), strict=True):
            line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
            for axis, picture in zip(line, pictures, strict=False):
                axis.imshow(picture.reshape(8, 8), vmin=-1, vmax=1, cmap=colors)
                axis.set(xticks=[], yticks=[])
    return figure


def main(
    out: pathlib.Path = pathlib.Path("docs/images"),
    only: tuple[str, ...] = ("adder", "methods", "digits"),
) -> None:
    if {"adder", "methods"} & set(only):
        with jax.enable_x64(True):
            models = adders()
            if "methods" in only:
                methods(complete(models["one model, degree 3"]))
    if "digits" in only:
        shown = digits()
        save(out / "recall.png", draw(shown), dpi=110)
