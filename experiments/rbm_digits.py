"""Restricted Boltzmann machines on digits: likelihood against wall time.

Digits of 8 x 8 pixels with 64 hidden spins, or the 5000 of MNIST, 28 x 28, with 500. Contenders are
the defaults of `thermogen.PersistentCD` and `AnnealedLikelihood`, the settings of `rbm_mnist` at a
constant rate ("centred"), scikit-learn's `BernoulliRBM` and the torch package rbms, left out where
it is not installed. All learn from the same four fifths of the digits, in float32, and are looked
at after the same seconds of wall time; what `fit` takes to compile is reported apart. rbms writes a
file after every step: here its gradient and its optimiser run without. scikit-learn runs at the
best two rates that a short scan found for short and for long runs, and so does rbms, beside the
rate of its defaults, 0.01.

All machines are judged in +-1 units by one estimator: ln Z between annealing from infinite
temperature (from below) and heating of samples of parallel tempering (from above), and the mean
log-likelihood of a sample, of the training set and of the held-out fifth: means over seeds of
weights and chains, ± half the distance between the extremes; the split is fixed. The best of the
times by the held-out fifth is what early stopping returns.

    python -m experiments rbm_digits
    python -m experiments rbm_digits --seconds 2 5 --only PersistentCD "rbms 0.1"
    python -m experiments rbm_digits --images mnist --seconds 60 300 --seeds 1 --only centred
"""

import functools
import importlib.util
import os
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import thermogen as tg
from experiments._shared import save
from thermogen import learning, sampling

# As users have it who set nothing.
X64 = False

MOST_STEPS = 2**18  # more than anybody takes in the time

LADDER = tg.ParallelTempering(jnp.linspace(0.05, 1.0, 20))


class Images(NamedTuple):
    """A table, the hidden spins of its machines, and how closely these are judged."""

    spins: Callable[[], np.ndarray]
    n_hidden: int
    n_betas: int
    n_chains: int


def mnist() -> np.ndarray:
    from experiments import rbm_mnist

    return rbm_mnist.images()[0]


IMAGES = {
    "digits": Images(lambda: tg.datasets.digits().spins, 64, 501, 300),
    "mnist": Images(mnist, 500, 5001, 100),
}


class TimeIsUp(Exception):
    """Ends a loop of learning from within."""


class Clock:
    """Keeps the machine, and the steps that it took, at each of the given times."""

    def __init__(self, seconds: list[float]) -> None:
        self.due, self.kept, self.began = sorted(seconds), [], time.perf_counter()

    def look(self, machine: Callable[[], tg.RBM], n_steps: int) -> None:
        now = time.perf_counter() - self.began
        while self.due and now >= self.due[0]:
            self.kept.append((self.due.pop(0), n_steps, machine()))
        if not self.due:
            raise TimeIsUp


def from_bits(weights, visible_fields, hidden_fields) -> tg.RBM:
    """The machine of bits, `E = -x W y - a x - b y` with `x = (1 + v)/2`, in +-1 units."""
    w, a, b = (np.asarray(x, float) for x in (weights, visible_fields, hidden_fields))
    return tg.RBM(w / 4, a / 2 + w.sum(axis=1) / 4, b / 2 + w.sum(axis=0) / 4)


def check_units() -> float:
    """Largest deviation of ln p between bits and spins, over all states of a small machine."""
    rng = np.random.default_rng(0)
    w, a, b = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
    spins = np.asarray(tg.enumerate_spins(7))
    x, y = np.split((1 + spins) / 2, [4], axis=1)
    of_bits = np.einsum("ri,ij,rj->r", x, w, y) + x @ a + y @ b
    of_spins = -jax.vmap(from_bits(w, a, b))(spins)
    deviation = jax.nn.log_softmax(of_bits) - jax.nn.log_softmax(of_spins)
    return float(jnp.max(jnp.abs(deviation)))


def with_thermogen(
    objective, training: np.ndarray, n_hidden: int, seconds: list[float], seed: int, **options
) -> list:
    means = jnp.asarray(training.mean(axis=0), jnp.float32)
    start = tg.RBM.random(n_hidden, means, key=jax.random.key(2 * seed))
    key = jax.random.key(2 * seed + 1)
    fit = functools.partial(tg.fit, objective, start, training, key=key, **options)
    return looked_at(functools.partial(fit, n_steps=MOST_STEPS), seconds)


def looked_at(fit: Callable[..., tg.FitResult], seconds: list[float]) -> list:
    """What a fit has learned at each of the times, after a first call that compiles."""
    began = time.perf_counter()
    until_stopped(fit, Clock([0.0]))
    print(f"   first call {time.perf_counter() - began:.1f} s")
    return until_stopped(fit, Clock(seconds))


def until_stopped(fit: Callable[..., tg.FitResult], clock: Clock) -> list:
    """What has converged before the time is up stays as it is."""
    look = lambda so_far: clock.look(lambda: so_far.energy, so_far.history.size)  # noqa: E731
    try:
        fitted = fit(callback=look)
    except TimeIsUp:
        return clock.kept
    if fitted.result != tg.RESULTS.converged:
        raise RuntimeError(f"the fit ended before its time: {fitted.result}")
    return [*clock.kept, *((late, fitted.history.size, fitted.energy) for late in clock.due)]


def with_sklearn(
    rate: float, training: np.ndarray, n_hidden: int, seconds: list[float], seed: int
) -> list:
    from sklearn.neural_network import BernoulliRBM

    class Timed(BernoulliRBM):
        n_steps = 0

        def _fit(self, *arguments):
            super()._fit(*arguments)
            self.n_steps += 1
            clock.look(self.machine, self.n_steps)

        def machine(self) -> tg.RBM:
            return from_bits(self.components_.T, self.intercept_visible_, self.intercept_hidden_)

    bits = tg.bits_from_spins(training).astype(np.float32)
    options = {"learning_rate": rate, "batch_size": 10, "n_iter": 10**9, "random_state": seed}
    model = Timed(n_hidden, **options)
    clock = Clock(seconds)
    try:
        model.fit(bits)
    except TimeIsUp:
        pass
    return clock.kept


def with_rbms(
    rate: float, training: np.ndarray, n_hidden: int, seconds: list[float], seed: int
) -> list:
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.dataset.dataset_class import RBMDataset
    from rbms.training.pcd import fit_batch_pcd

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    bits, ones = np.array(tg.bits_from_spins(training), float), np.ones(len(training))
    data = RBMDataset(bits, ones, ones, ones, "digits", True, device="cpu")

    def learn(clock: Clock) -> list:
        torch.manual_seed(seed)
        model = BBRBM.init_parameters(n_hidden, data, torch.device("cpu"), torch.float32)
        chains = model.sample_state(model.init_chains(256), 2)
        model.init_grad()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, maximize=True)
        bits = lambda: (model.weight_matrix, model.vbias, model.hbias)  # noqa: E731
        n_steps = 0
        while True:
            rows = torch.randperm(len(data))[:256]
            batch = data.data[rows], data.weights[rows]
            chains, _ = fit_batch_pcd(batch, chains, model, 2, beta=1.0)
            optimizer.step()
            n_steps += 1
            try:
                clock.look(lambda: from_bits(*(x.numpy() for x in bits())), n_steps)
            except TimeIsUp:
                return clock.kept

    with torch.no_grad():
        learn(Clock([3.0]))  # torch compiles during its first steps
        return learn(Clock(seconds))


@eqx.filter_jit
def judge(rbm: tg.RBM, training, held_out, key, n_betas: int, n_chains: int):
    """ln Z from below and from above, and both log-likelihoods per sample, with ln Z midway."""
    keys, betas = jax.random.split(key, 3), jnp.linspace(0.0, 1.0, n_betas)
    below = tg.annealed_importance_sampling(rbm, betas, key=keys[0], n_chains=n_chains)
    options = {"n_chains": n_chains, "n_sweeps": 1, "burn_in": 300}
    samples = tg.sample(LADDER, rbm, 1.0, key=keys[1], **options)[:, 0]
    above = sampling.reverse_annealed_importance_sampling(rbm, betas, samples, key=keys[2])
    log_z = (below.log_partition + above.log_partition) / 2

    def likelihood(data):
        weights = -jax.vmap(lambda v: tg.energies.visible_free_energy(rbm, 1.0, v))(data)
        return jnp.mean(weights) - log_z

    return below.log_partition, above.log_partition, likelihood(training), likelihood(held_out)


def spread(values: np.ndarray) -> str:
    """Mean over the seeds, and half the distance between the lowest and the highest."""
    return f"{np.mean(values):10.3f} ±{np.ptp(values) / 2:.2f}"


CONTENDERS = {
    "PersistentCD": functools.partial(with_thermogen, tg.PersistentCD()),
    "AnnealedLikelihood": functools.partial(with_thermogen, learning.AnnealedLikelihood()),
    "centred": functools.partial(
        with_thermogen,
        tg.PersistentCD(n_sweeps=2),
        penalty=learning.L2(8e-3, fields=8e-3),
        optimizer=optax.chain(learning.centred_gradient(16.0), optax.sgd(4e-3)),
        batch_size=256,
    ),
    "scikit-learn 0.01": functools.partial(with_sklearn, 0.01),
    "scikit-learn 0.003": functools.partial(with_sklearn, 0.003),
    "rbms 0.01": functools.partial(with_rbms, 0.01),
    "rbms 0.05": functools.partial(with_rbms, 0.05),
    "rbms 0.1": functools.partial(with_rbms, 0.1),
}


def report(row: dict) -> None:
    low, high = row["ln Z from below"], row["ln Z from above"]
    worst = np.max(np.abs(high - low))
    figures = (
        f"{row['seconds']:6g}{row['steps']:9d}{spread(row['training'])}{spread(row['held out'])}"
    )
    note = "" if worst < 0.5 else "  bounds too far apart"
    print(f"{row['contender']:20}{figures}{np.mean(low):9.2f}{worst:8.2f}{note}", flush=True)


def main(
    images: str = "digits",
    seconds: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0),
    only: tuple[str, ...] = tuple(CONTENDERS),
    seeds: int = 2,
    out: pathlib.Path = pathlib.Path("results"),
) -> None:
    """Writes `rbm_digits.json` or `rbm_mnist.json`, one row a contender and time."""
    # Pixels that are always white are the same trouble for everybody, and no one has a penalty.
    warnings.filterwarnings("ignore", message="data: spins")
    if images not in IMAGES:
        raise SystemExit(f"images: {images} is none of {', '.join(IMAGES)}")
    spins, n_hidden, n_betas, n_chains = IMAGES[images]
    split = tg.datasets.split(spins(), 0.2)
    parts = [jnp.asarray(part, jnp.float32) for part in split]
    print(f"{len(split.training)} digits to learn from, {len(split.held_out)} held out")
    print(f"bits and spins agree to {check_units():.0e} nat")
    kept = {}
    for name in only:
        if name.startswith("rbms") and not importlib.util.find_spec("rbms"):
            print("   rbms is not installed")
            continue
        learn = functools.partial(CONTENDERS[name], split.training, n_hidden, list(seconds))
        kept[name] = [learn(seed) for seed in range(seeds)]
    print(f"\n{'':20}{'s':>6}{'steps':>9}{'training':>16}{'held out':>16}{'ln Z':>9}{'above':>8}")
    rows = []
    for name, runs in kept.items():
        for moment in zip(*runs, strict=True):
            judged = []
            for _, _, rbm in moment:
                single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rbm)
                found = judge(single, *parts, jax.random.key(2), n_betas, n_chains)
                judged.append([float(x) for x in found])
            low, high, seen, unseen = np.transpose(judged)
            rows.append(
                {
                    "contender": name,
                    "seconds": moment[0][0],
                    "steps": int(np.mean([n_steps for _, n_steps, _ in moment])),
                    "training": seen,
                    "held out": unseen,
                    "ln Z from below": low,
                    "ln Z from above": high,
                }
            )
            report(rows[-1])
            save(out / f"rbm_{images}.json", rows)
    print("\nheld out, at the best of these times:")
    for name in kept:
        own = [row for row in rows if row["contender"] == name]
        best = max(own, key=lambda row: np.mean(row["held out"]))
        print(f"   {name:20}{spread(best['held out'])}")
