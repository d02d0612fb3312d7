"""Four patterns as bound states whose weights and escape times are prescribed.

Couplings of 32 spins, without fields, are designed through the landscape. Minima and saddles of
naive mean field are functions of the couplings that can be differentiated (`landscape.follow`), and
steps of Gauss and Newton, each to the solution nearest to the projection rule, make the free
energies of the patterns equal and their barriers those asked for; states that are no pattern are to
be left at once. A barrier counts all ways out, -ln sum exp(-beta (G_saddle - G_state)); in models
of the projection rule ln(escape time) is 2.6 more. Minima and saddles are searched anew before
every step. Mean field is approximate: weights and times of the first design are measured, what they
are off is added to what is asked for, and the second design is judged by a certificate from other
random numbers.

Patterns: random, and correlated (each six flips from one parent, overlaps 0.25 to 0.5). Wanted
times: 100 sweeps for all, or 60 for two and 240 for two. (By detailed balance none of four states
of equal weight can be left faster than the others together.) Rivals for equal times:
Hebb's rule and the projection (pseudo-inverse) rule, at the same norm of the couplings, and a
pseudolikelihood of samples of the patterns. E is even, so that each state stands for its mirror
image, too. Prints tables and a verdict for each claim; saves a table and a picture. Tasks of an
array share the designs.

In practice: a landscape can be ordered like a part from a drawing: these states, this deep, holding
for this long, and nothing else. Rules that store patterns leave weights and times to chance, and
tuning couplings by hand moves all of them at once; with derivatives a dozen Newton steps do it.

    python -m experiments design [--quick] [--out DIR]
"""

import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import Array
from matplotlib.figure import Figure

import thermogen as tg
from experiments._shared import ACCENT, GREEN, INK, MUTED, STYLE, claim, filled, padded, save, table
from thermogen import landscape
from thermogen._tasks import Task

N = 32
QUICK = {"sets": ("random",), "seeds": 1, "steps": 20, "trajectories": 512}
WANTED = {"equal": np.full(4, 100.0), "pairs": np.array([60.0, 60.0, 240.0, 240.0])}
THRESHOLD = 20  # sweeps
NAIVE = tg.NaiveMeanField()
# ln(escape time) above the barrier of all ways, for projection rules; corrected by measurement.
OFFSET = 2.6
LEAST_OVERLAP, BLUR = 0.92, 0.05  # of states with their patterns; what counts like 1 T
# Other states should be left in a third of the threshold.
OTHERS = np.log(THRESHOLD / 3) - OFFSET
START = 2.2  # beta of the projection rule that is started from
TOLERANCE = 0.02
MOST, DAMPING = 0.15, 1e-4  # of a step, whose norm the couplings' is about 4
K, S = 12, 48  # places for states and saddles, so that one program serves all
PAIRS = np.triu_indices(N, 1)


class Known(NamedTuple):
    """Minima and saddles of some couplings, padded, and which states the patterns are."""

    library: tg.Library
    saddles: landscape.Barriers
    stored: Array  # the patterns
    rows: Array  # of each pattern; -1 where it has no state


class Proof(NamedTuple):
    """What a certificate says of the patterns; NaN where a pattern is no bound state."""

    times: np.ndarray
    intervals: np.ndarray
    depths: np.ndarray  # free energies
    others: int  # bound states that are no pattern


def patterns(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.choice([-1.0, 1.0], (4, N))
    parent = rng.choice([-1.0, 1.0], N)
    flips = np.array([rng.permutation(N) < 6 for _ in range(4)])
    return np.where(flips, -parent, parent)


def model(couplings: Any) -> tg.Pairwise:
    return tg.Pairwise(couplings, jnp.zeros(N))


def matrix(pairs: Array) -> Array:
    upper = jnp.zeros((N, N)).at[PAIRS].set(pairs)
    return upper + upper.T


def off_diagonal(couplings: np.ndarray) -> np.ndarray:
    return couplings * (1 - np.eye(N))


def hebb(stored: np.ndarray) -> np.ndarray:
    return off_diagonal(stored.T @ stored / N)


def projection(stored: np.ndarray) -> np.ndarray:
    return off_diagonal(stored.T @ np.linalg.solve(stored @ stored.T, stored))


def pseudolikelihood(stored: np.ndarray) -> np.ndarray:
    """Of 1000 samples and their mirror images, every spin of them turned with a chance of 4 %."""
    rng = np.random.default_rng(0)
    clean = np.repeat(stored, 250, axis=0)
    samples = np.where(rng.random(clean.shape) < 0.04, -clean, clean)
    start, data = model(np.zeros((N, N))), np.concatenate([samples, -samples])
    fitted: Any = tg.fit(tg.Pseudolikelihood(), start, data, key=jax.random.key(0))
    return np.asarray(fitted.energy.couplings)


RULES = {"Hebb": hebb, "pseudolikelihood": pseudolikelihood, "projection": projection}


SHOWN = {
    "Hebb": MUTED,
    "pseudolikelihood": GREEN,
    "projection": INK,
    "first design": "#e3a77f",
    "designed": ACCENT,
}


def states_of(magnetizations: Any, stored: np.ndarray) -> np.ndarray:
    """The row that is each pattern, by an overlap of 0.8 or more; -1 where there is none."""
    overlaps = np.abs(stored @ magnetizations.T) / N
    return np.where(overlaps.max(axis=1) > 0.8, overlaps.argmax(axis=1), -1)


def survey(couplings: Array, stored: np.ndarray) -> Known:
    """Minima and saddles searched anew."""
    key, energy = jax.random.key(0), model(couplings)
    library = tg.find_minima(NAIVE, energy, 1.0, key=key, starts=stored, n_starts=320)[:K]
    found, nothing = tg.barriers(NAIVE, energy, 1.0, library), np.zeros((0, 0))
    found = found._replace(heights=nothing, mirror_heights=nothing, others=nothing)

    return Known(
        padded(library, K),
        jax.tree.map(lambda values: filled(values, S), found),
        jnp.asarray(stored),
        jnp.asarray(states_of(library.magnetizations, stored)),
    )


def barriers(couplings: Array, known: Known) -> tuple[landscape.Followed, Array, Array]:
    """The states, the barrier of all ways out of each, and where there are both."""
    states, saddles = (
        landscape.follow(NAIVE, model(couplings), 1.0, rows)
        for rows in (known.library, known.saddles)
    )
    ends, parity = known.saddles.ends, known.saddles.parity
    leads_back = (ends[:, 0] == ends[:, 1]) & (parity > 0)
    ways = jnp.sum(ends == jnp.arange(K)[:, None, None], axis=2) * (saddles.exists & ~leads_back)
    there = states.exists & jnp.any(ways > 0, axis=1)
    height = -jax.nn.logsumexp(-saddles.free_energies, axis=1, b=jnp.where(there[:, None], ways, 1))
    return states, height - states.free_energies, there


def residuals(pairs: Array, known: Known, asked: Array) -> Array:
    """What is wrong with the landscape, in units of T, of patterns and of other states.

    `asked` are the free energies of the patterns, up to a constant, and their barriers, `(2, 4)`.
    """
    states, heights, there = barriers(matrix(pairs), known)
    depths = states.free_energies
    rows = known.rows
    held = (rows >= 0) & there[rows]
    above = jnp.where(held, depths[rows] - asked[0], 0)
    mean = jnp.sum(above) / jnp.maximum(jnp.sum(held), 1)
    unequal = jnp.where(held, above - mean, 0)
    off = jnp.where(held, heights[rows] - asked[1], 0)
    is_other = there & ~jnp.any(jnp.arange(K)[:, None] == rows, axis=1)
    traps = jnp.where(is_other, jax.nn.relu(heights - OTHERS), 0)
    overlaps = jnp.abs(jnp.sum(states.magnetizations[rows] * known.stored, axis=1)) / N
    blurred = jnp.where(held, jax.nn.relu(LEAST_OVERLAP - overlaps) / BLUR, 0)
    return jnp.concatenate([unequal, off, blurred, traps])


@jax.jit
def improved(pairs: Array, start: Array, known: Known, asked: Array) -> tuple[Array, Array]:
    """A step of Gauss and Newton; and the largest residual before it.

    Of all couplings that solve the linearised problem it goes to those nearest to the start.
    """
    wrong, slopes = residuals(pairs, known, asked), jax.jacrev(residuals)(pairs, known, asked)
    gram = slopes @ slopes.T + DAMPING * jnp.eye(len(wrong))
    goal = start + slopes.T @ jnp.linalg.solve(gram, slopes @ (pairs - start) - wrong)
    step = goal - pairs
    step = step * jnp.minimum(1, MOST / jnp.linalg.norm(step))
    return pairs + step, jnp.max(jnp.abs(wrong))


def designed(
    couplings: Array, stored: np.ndarray, asked: np.ndarray, n_steps: int
) -> tuple[Array, float]:
    """Couplings near those given, and their largest residual: the least that was met."""
    pairs = start = couplings[PAIRS]
    best = couplings, np.inf
    for _ in range(n_steps):
        known = survey(matrix(pairs), stored)
        following, wrong = improved(pairs, start, known, asked)
        # A pattern that has lost its state has no residual.
        if np.all(np.asarray(known.rows) >= 0) and wrong < best[1]:
            best = matrix(pairs), float(wrong)
        if best[1] < TOLERANCE:
            break
        pairs = following
    return best


def proof(couplings: Any, stored: np.ndarray, seed: int, n_trajectories: int) -> Proof:
    found = tg.find_bound_states(
        model(couplings),
        1.0,
        key=jax.random.key(seed),
        threshold=THRESHOLD,
        starts=stored,
        n_trajectories=n_trajectories,
    )
    rows = states_of(found.magnetizations, stored)
    held = rows >= 0
    return Proof(
        np.where(held, found.escape_times[rows], np.nan),
        np.where(held[:, None], found.intervals[rows], np.nan),
        np.where(held, found.free_energies[rows], np.nan),
        len(found) - len(np.unique(rows[held])),
    )


def study(kind: str, seed: int, name: str, n_steps: int, n: int) -> dict[str, Proof]:
    """A design before and after its correction; beside times that are equal, the rules' too."""
    stored, wanted = patterns(kind, seed), WANTED[name]
    asked = np.stack([np.zeros(4), np.log(wanted) - OFFSET])
    couplings, _ = designed(jnp.asarray(START * projection(stored)), stored, asked, n_steps)
    first = proof(couplings, stored, 1, n)
    off = np.stack([np.nanmean(first.depths) - first.depths, np.log(wanted / first.times)])
    couplings, wrong = designed(couplings, stored, asked + np.nan_to_num(off), n_steps)
    found = {"first design": first, "designed": proof(couplings, stored, 2, n)}
    norm = np.linalg.norm(couplings)
    for rule, learn in RULES.items() if name == "equal" else ():
        other = learn(stored)
        # A fit has a scale of its own.
        scale = 1 if rule == "pseudolikelihood" else norm / np.linalg.norm(other)
        found[rule] = proof(scale * other, stored, 2, n)
    print(f"{kind} {seed}, {name}: norm {norm:.2f}, largest residual {wrong:.3f} T")
    for rule, seen in found.items():
        times = " ".join("    -" if np.isnan(t) else f"{t:5.0f}" for t in seen.times)
        print(
            f"   {rule:18}{np.isfinite(seen.times).sum()} of 4, {seen.others} others; sweeps "
            f"{times}; free energies differ by {np.ptp(seen.depths):.2f} T",
            flush=True,
        )
    return found


def off_by(seen: Proof, wanted: np.ndarray) -> float:
    """Largest factor by which a time is off, infinite where a pattern is no bound state."""
    return float(np.nan_to_num(np.exp(np.abs(np.log(seen.times / wanted)).max()), nan=np.inf))


def spread(seen: Proof) -> float:
    """The longest time over the shortest, infinite where a pattern is no bound state."""
    return float(np.nan_to_num(seen.times.max() / seen.times.min(), nan=np.inf))


def verdicts(found: dict[tuple, dict[str, Proof]]) -> None:
    every = [f["designed"] for f in found.values()]
    proved = sum(int(np.isfinite(seen.times).sum()) for seen in every)
    others = sum(seen.others for seen in every)
    claim(
        "designed: every pattern is a bound state, and nothing else is",
        proved == 4 * len(every) and others == 0,
        f"{proved} of {4 * len(every)}, {others} others",
    )
    for name, wanted in WANTED.items():
        of = [f for key, f in found.items() if key[2] == name]
        factors = [off_by(f["designed"], wanted) for f in of]
        before = [off_by(f["first design"], wanted) for f in of]
        claim(
            f"designed, {name}: every escape time within 30 % of what was wanted",
            max(factors) < 1.3,
            f"largest factor {max(factors):.2f}, median {np.median(factors):.2f}; of the first "
            f"designs {max(before):.2f} and {np.median(before):.2f}",
        )
    equal = [f for key, f in found.items() if key[2] == "equal"]
    ratios = {rule: [spread(f[rule]) for f in equal] for rule in SHOWN}
    claim(
        "equal: the longest time over the shortest is less than that of every rule, on every set",
        all(np.all(np.array(ratios["designed"]) < ratios[rule]) for rule in RULES),
        "median " + ", ".join(f"{rule} {np.median(x):.2f}" for rule, x in ratios.items()),
    )
    apart = [np.ptp(seen.depths) for seen in every]
    claim(
        "designed: free energies, as sampled, differ by less than 0.3 T",
        max(apart) < 0.3,
        f"largest {max(apart):.2f}, median {np.median(apart):.2f}; projection "
        f"{np.median([np.ptp(f['projection'].depths) for f in equal]):.2f}",
    )


def draw(found: dict[tuple, dict[str, Proof]]) -> Figure:
    """Escape times of every pattern, and what is bound."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(5, 2.4, 4))
        for ax, name, rules in ((left, "equal", SHOWN), (middle, "pairs", list(SHOWN)[-2:])):
            of = [f for key, f in found.items() if key[2] == name]
            for place, rule in enumerate(rules):
                times = np.concatenate([f[rule].times for f in of])
                shift = np.random.default_rng(0).uniform(-0.25, 0.25, len(times))
                ax.semilogy(place + shift, times, "o", color=SHOWN[rule], markersize=4, alpha=0.8)
                lost = int(np.isnan(times).sum())
                if lost:
                    text = f"{lost} of {len(times)}\nnot bound"
                    ax.text(place, 13, text, ha="center", fontsize=7)
            for time in np.unique(WANTED[name]):
                ax.axhline(time, color="0.6", linewidth=0.8, zorder=0)
            ax.set_title(f"{name}: {', '.join(f'{t:g}' for t in np.unique(WANTED[name]))} wanted")
            ax.set(ylabel="escape time, sweeps", ylim=(10, 1000), xlim=(-0.6, len(rules) - 0.4))
            ax.set_xticks(range(len(rules)), list(rules), rotation=30, ha="right")
        equal = [f for key, f in found.items() if key[2] == "equal"]
        for place, (rule, color) in enumerate(SHOWN.items()):
            bound = np.mean([np.isfinite(f[rule].times).sum() for f in equal])
            others = np.mean([f[rule].others for f in equal])
            right.bar(place - 0.2, bound, 0.36, color=color)
            right.bar(place + 0.2, others, 0.36, color=color, alpha=0.4)
        right.set_title("bound patterns, and others (pale)")
        right.set(ylabel="mean number, images not counted", yticks=range(5))
        right.set_xticks(range(len(SHOWN)), list(SHOWN), rotation=30, ha="right")
    return figure


def rows_of(found: dict[tuple, dict[str, Proof]]) -> list[dict[str, Any]]:
    """One for each pattern of each set, wish and rule."""
    return [
        {
            **dict(zip(("patterns", "seed", "wanted"), key, strict=True)),
            "rule": rule,
            "pattern": a,
            "wanted time": WANTED[key[2]][a],
            "time": seen.times[a],
            "low": seen.intervals[a, 0],
            "high": seen.intervals[a, 1],
            "free energy": seen.depths[a],
            "others": seen.others,
        }
        for key, proofs in found.items()
        for rule, seen in proofs.items()
        for a in range(4)
    ]


def main(
    sets: tuple[str, ...] = ("random", "correlated"),
    /,
    *,
    seeds: int = 2,
    steps: int = 40,
    trajectories: int = 1024,
    out: pathlib.Path = pathlib.Path("results"),
    task: Task = Task(),
) -> None:
    keys = task.part(itertools.product(sets, range(seeds), WANTED))
    found = {key: study(*key, steps, trajectories) for key in keys}
    print()
    verdicts(found)
    table(out / "design.csv", rows_of(found))
    save(out / "design.png", draw(found), dpi=130)
