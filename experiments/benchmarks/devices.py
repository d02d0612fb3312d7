"""The same work on the accelerator and on the processor beside it, in float32.

Each job runs on both: the first run with its compilation, then the best of three. "error" is the
largest difference of its result from the same job in float64 on the processor, over the largest
value there; where chance or the order of sums decides what comes out, none is given. A float32
product that an accelerator rounds more coarsely than float32 would show here.

    python -m experiments benchmarks.devices [--only JOB ...]
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen import sampling, walsh

# As users have it who set nothing.
X64 = False

N_SPINS, SIZE = 256, 64


def spin_glass(dtype) -> tg.Pairwise:
    upper = np.triu(np.random.default_rng(0).normal(size=(N_SPINS, N_SPINS)), 1)
    couplings = (upper + upper.T) / np.sqrt(N_SPINS)
    return tg.Pairwise(jnp.asarray(couplings, dtype), jnp.zeros(N_SPINS, dtype))


def corners(n_corners: int, n: int, dtype) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).choice([-1.0, 1.0], (n_corners, n)), dtype)


def machine(dtype) -> tg.RBM:
    rng = np.random.default_rng(2)
    draw = [rng.normal(size=shape) * 0.1 for shape in ((784, 500), 784, 500)]
    return tg.RBM(*(jnp.asarray(x, dtype) for x in draw))


def walsh_transform(dtype):
    values = jnp.asarray(np.random.default_rng(0).normal(size=2**22), dtype)
    return lambda: walsh.walsh_transform(values)


def energies(dtype):
    evaluate = jax.jit(jax.vmap(spin_glass(dtype)))
    spins = corners(65536, N_SPINS, dtype)
    return lambda: evaluate(spins)


def free_energies(dtype):
    model, spins = machine(dtype), corners(8192, 784, dtype)
    evaluate = jax.jit(jax.vmap(lambda s: tg.energies.visible_free_energy(model, 1.0, s)))
    return lambda: evaluate(spins)


def solutions(dtype):
    # Warm and in a field, so that each start has the same end, whatever the rounding.
    model, starts = spin_glass(dtype), 0.9 * corners(1024, N_SPINS, dtype)
    model = tg.Pairwise(model.couplings, jnp.linspace(-1, 1, N_SPINS, dtype=dtype))
    solve = jax.jit(jax.vmap(lambda m: tg.solve(tg.TAP(), model, 0.5, m, throw=False).value))
    return lambda: solve(starts)


def sweeps(dtype):
    return _last(spin_glass(dtype), 1.0, 16384, 100)


def lattice_sweeps(dtype):
    site = np.arange(SIZE**2).reshape(SIZE, SIZE)
    pairs = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
    couplings = jnp.ones(2 * SIZE**2, dtype)
    model = tg.Interactions(SIZE**2, [np.concatenate(pairs)], [couplings])
    return _last(model, 0.44, 2048, 200)


def machine_sweeps(dtype):
    return _last(machine(dtype), 1.0, 4096, 50)


def _last(model, beta, n_chains, n_sweeps):
    return lambda: tg.sample(
        tg.Gibbs(),
        model,
        beta,
        key=jax.random.key(0),
        n_chains=n_chains,
        n_sweeps=n_sweeps,
        thin=n_sweeps,
        observers=sampling.LastStates(1),
    )


def learning_steps(dtype):
    data = corners(5000, 784, jnp.int8)
    start = tg.RBM.random(500, np.zeros(784, dtype), key=jax.random.key(0))
    return lambda: (
        tg.fit(
            tg.PersistentCD(n_chains=256, n_sweeps=2),
            start,
            data,
            n_steps=200,
            batch_size=256,
            key=jax.random.key(1),
        ).energy
    )


def search(dtype):
    return lambda: tg.find_minima(
        tg.NaiveMeanField(),
        spin_glass(dtype),
        2.0,
        key=jax.random.key(0),
        n_starts=2048,
        capacity=4096,
    )


# Whether one number can be compared between devices.
JOBS = {
    walsh_transform: True,
    energies: True,
    free_energies: True,
    solutions: True,
    sweeps: False,
    lattice_sweeps: False,
    machine_sweeps: False,
    learning_steps: False,
    search: False,
}


def run(job, device, dtype):
    """The result, seconds of the first run and of the best of three more."""
    with jax.default_device(device):
        work = job(dtype)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            result = jax.block_until_ready(work())
            times.append(time.perf_counter() - began)
    return result, times[0], min(times[1:])


def main(only: tuple[str, ...] = tuple(job.__name__ for job in JOBS)) -> None:
    devices = [*dict.fromkeys((jax.devices()[0], jax.devices("cpu")[0]))]
    print(f"{'job':18}{'device':22}{'first s':>9}{'then s':>9}{'error':>10}")
    for job, comparable in JOBS.items():
        if job.__name__ not in only:
            continue
        if comparable:
            with jax.enable_x64(True):
                exact = np.asarray(run(job, devices[-1], jnp.float64)[0])
        for device in devices:
            result, first, then = run(job, device, jnp.float32)
            error = ""
            if comparable:
                error = f"{np.abs(np.asarray(result) - exact).max() / np.abs(exact).max():10.1e}"
            kind = device.device_kind[:20]
            print(f"{job.__name__:18}{kind:22}{first:9.2f}{then:9.4f}{error}", flush=True)
