"""What the bound states of the digits hang on: the penalty, the part of the data, the seed.

Pairwise models of the digits, learned by pseudolikelihood with several ridges, each from all of
them and from three random parts of four fifths, judged by the rest. Printed for each: held-out
loss, median ratio of the rate of ink in the model's chains to that in the data over pixels that
are seldom inked, number of minima of naive mean field at beta = 1, and the verdict of the dynamics
with two keys: bound states, and the samples that fall to each. Tasks of an array share the fits;
robustness.csv holds a row for each.

    python -m experiments robustness [--out DIR]
"""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments._shared import table
from thermogen import learning
from thermogen._tasks import Task

# As users have it who set nothing.
X64 = False

N = 64
THRESHOLD = 20  # sweeps
PARTS, KEYS = 3, 2
RARE = 0.02  # pixels that are inked in fewer of the samples
# Objective and penalty.
RIDGES = {
    "default, n/(2 N)": (tg.Pseudolikelihood(), None),
    "1e-3 on couplings": (tg.Pseudolikelihood(l2=1e-3), None),
    "1e-2 on couplings": (tg.Pseudolikelihood(l2=1e-2), None),
    "1e-3 on fields too": (tg.Pseudolikelihood(l2=1e-3), learning.L2(0.0, fields=1e-3)),
}


def parts(data: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What learns and what judges; for all samples they are the same."""
    split = {f"part {k}": tg.datasets.split(data, 0.2, seed=k) for k in range(PARTS)}
    return {"all": (data, data), **split}


def loss(energy: tg.Pairwise, rows: np.ndarray) -> float:
    """Mean of `-sum_k ln P(s_k | rest)`."""
    samples = learning.Samples(jnp.asarray(rows, float), jnp.full(len(rows), 1 / len(rows)))
    return float(tg.Pseudolikelihood(l2=0.0).loss(energy, samples, None, jax.random.key(0))[0])


def rates(energy: tg.Pairwise, rows: np.ndarray) -> float:
    """Median over rare pixels of the rate of ink of the model to that of the data."""
    data = (1 + rows.mean(axis=0)) / 2
    rare = (data > 0) & (data < RARE)
    chains = tg.sample(
        tg.ParallelTempering(jnp.linspace(0.1, 1.0, 10)),
        energy,
        1.0,
        key=jax.random.key(9),
        n_chains=256,
        n_sweeps=200,
        burn_in=200,
        thin=20,
    )
    model = (1 + np.asarray(chains).mean(axis=(0, 1))) / 2
    return float(np.median(model[rare] / data[rare]))


def verdicts(energy: tg.Pairwise, rows: np.ndarray) -> tuple[int, str]:
    """Minima, and what the dynamics make of them by each key."""
    texts, size = [], 0
    for seed in range(KEYS):
        library = tg.find_minima(
            tg.NaiveMeanField(), energy, 1.0, key=jax.random.key(seed), starts=rows
        )
        size = max(size, library.size)
        found = tg.find_bound_states(
            energy, 1.0, key=jax.random.key(seed), threshold=THRESHOLD, library=library,
            starts=rows[:256], n_starts=64, n_trajectories=128, capacity=48,
        )  # fmt: skip
        ends = tg.quench(tg.NaiveMeanField(), energy, 1.0, rows).value
        place = found.library.nearest(ends)
        counts = np.bincount(found.state_of[place[place >= 0]], minlength=len(found))
        held = ", ".join(map(str, counts))
        texts.append(f"{found.certificate.n_bound} ({held})")
    return size, "; ".join(texts)


def main(out: Path = Path("results"), task: Task = Task()) -> None:
    data = tg.datasets.digits().spins
    print(f"{'ridge':>20}{'data':>8}{'held out':>10}{'rare':>7}{'minima':>8}   bound (samples)")
    found = []
    for name, part in task.part(itertools.product(RIDGES, sets := parts(data))):
        (objective, penalty), (rows, judges) = RIDGES[name], sets[part]
        energy = tg.fit(
            objective,
            tg.Pairwise(jnp.zeros((N, N)), jnp.zeros(N)),
            rows,
            penalty=penalty,
            key=jax.random.key(0),
        ).energy
        held_out, rare, (size, bound) = (
            loss(energy, judges),
            rates(energy, rows),
            verdicts(energy, rows),
        )
        print(f"{name:>20}{part:>8}{held_out:10.3f}{rare:7.2f}{size:8d}   {bound}", flush=True)
        case = {"ridge": name, "data": part, "held_out": held_out, "rare": rare}
        found.append(case | {"minima": size, "bound": bound})
    table(out / "robustness.csv", found)
