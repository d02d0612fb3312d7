"""Spin updates per second against openjij, dwave-samplers and thrml, in one run on two cores.

Schedules are of one beta. A rate is the slope between a short and a long run of the same program,
so that setting up, compiling and reading out do not count; rounds of all contenders are
interleaved and the best of each is taken. The C++ peers run one thread; "x2" are two processes of
the peer at once, as many as there are cores. Ours draw threefry random numbers, in float32, with
chains on one device ("jax_num_cpu_devices" at its default) or split over two. Needs the extra
`bench`.

    python -m experiments benchmarks.samplers
"""

import concurrent.futures
import functools
import multiprocessing
import time

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from thermogen import sampling

# As users have it who set nothing.
X64 = False

N_ROUNDS = 5
SECONDS = 0.6  # of the long run
SIZE = 64  # of the lattice
N_SPINS = 256  # of the spin glass


@functools.cache
def bonds(name: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of spins, pairs, couplings of the models that are compared."""
    if name == "lattice":
        site = np.arange(SIZE**2).reshape(SIZE, SIZE)
        pairs = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
        return SIZE**2, np.concatenate(pairs), np.ones(2 * SIZE**2)
    pairs = np.stack(np.triu_indices(N_SPINS, 1), axis=1)
    normal = np.random.default_rng(0).normal(size=len(pairs))
    return N_SPINS, pairs, normal / np.sqrt(N_SPINS)


@functools.cache
def quadratic_model(name: str):
    import dimod

    _, pairs, couplings = bonds(name)
    terms = {(int(i), int(j)): -float(c) for (i, j), c in zip(pairs, couplings, strict=True)}
    return dimod.BinaryQuadraticModel({}, terms, "SPIN")


def dwave(name: str, beta: float, n_chains: int, n_sweeps: int, criterion: str) -> None:
    from dwave.samplers import SimulatedAnnealingSampler

    SimulatedAnnealingSampler().sample(
        quadratic_model(name),
        num_reads=n_chains,
        beta_schedule_type="custom",
        beta_schedule=[beta],
        num_sweeps_per_beta=n_sweeps,
        proposal_acceptance_criteria=criterion,
        seed=1,
    )


def openjij(name: str, beta: float, n_chains: int, n_sweeps: int, sparse: bool) -> None:
    import openjij

    openjij.SASampler().sample(
        quadratic_model(name),
        num_reads=n_chains,
        schedule=[(beta, n_sweeps)],
        sparse=sparse,
        seed=1,
    )


@functools.cache
def thrml_program(name: str, beta: float, n_chains: int):
    """A jitted function of a key and the number of sweeps, over `n_chains` chains at once."""
    import thrml
    from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init

    n, pairs, couplings = bonds(name)
    nodes = [thrml.SpinNode() for _ in range(n)]
    edges = [(nodes[i], nodes[j]) for i, j in pairs]
    model = IsingEBM(nodes, edges, jnp.zeros(n), jnp.asarray(couplings), jnp.asarray(beta))
    board = np.indices((SIZE, SIZE)).sum(axis=0).ravel() % 2
    blocks = [thrml.Block([nodes[k] for k in np.flatnonzero(board == c)]) for c in (0, 1)]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])

    @functools.partial(jax.jit, static_argnums=1)
    def run(key, n_sweeps):
        schedule = thrml.SamplingSchedule(n_sweeps, 1, 1)
        starts = hinton_init(key, model, blocks, (n_chains,))
        draw = lambda k, s: thrml.sample_states(k, program, schedule, s, [], blocks)  # noqa: E731
        return jax.vmap(draw)(jax.random.split(key, n_chains), starts)

    return run


def thrml(name: str, beta: float, n_chains: int, n_sweeps: int) -> None:
    jax.block_until_ready(thrml_program(name, beta, n_chains)(jax.random.key(0), n_sweeps))


@functools.cache
def energy(name: str) -> tg.AbstractMultilinear:
    n, pairs, couplings = bonds(name)
    if name == "lattice":
        return tg.Interactions(n, [pairs], [jnp.asarray(couplings, jnp.float32)])
    matrix = np.zeros((n, n), np.float32)
    matrix[tuple(pairs.T)] = couplings
    return tg.Pairwise(jnp.asarray(matrix + matrix.T), jnp.zeros(n, jnp.float32))


def ours(
    name: str, beta: float, n_chains: int, n_sweeps: int, devices: int = 1, sampler=tg.Gibbs()
) -> None:
    sharding = None
    if devices > 1:
        mesh = jax.make_mesh((devices,), ("chains",))
        sharding = jax.NamedSharding(mesh, jax.P("chains"))
    last = tg.sample(
        sampler,
        energy(name),
        beta,
        key=jax.random.key(0),
        n_chains=n_chains,
        n_sweeps=n_sweeps,
        thin=n_sweeps,
        observers=sampling.LastStates(1),
        sharding=sharding,
    )
    jax.block_until_ready(last)


def seconds(function, *arguments, **options) -> float:
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


class Contender:
    """A program of `n_sweeps`, and what it takes to find its rate."""

    def __init__(self, label: str, n_updates: int, program, processes: int = 1):
        """`n_updates` of one sweep of all chains of one process."""
        self.label, self.n_updates, self.program = label, n_updates * processes, program
        self.processes, self.rates = processes, []
        self.first = self.run(1)
        set_up, self.short, took = self.run(1), 1, 0.0
        while took < SECONDS / 20:
            self.short *= 2
            took = self.run(self.short) - set_up
        self.long = int(self.short * max(SECONDS / took, 3))
        self.run(self.long)

    def run(self, n_sweeps: int) -> float:
        if self.processes == 1:
            return seconds(self.program, n_sweeps)
        jobs = [pool().submit(seconds, self.program, n_sweeps) for _ in range(self.processes)]
        return max(job.result() for job in jobs)

    def round(self) -> None:
        difference = self.run(self.long) - self.run(self.short)
        self.rates.append(self.n_updates * (self.long - self.short) / difference)


@functools.cache
def pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


def compare(title: str, contenders: list[Contender]) -> None:
    for _ in range(N_ROUNDS):
        for contender in contenders:
            contender.round()
    best = {c.label: max(c.rates) for c in contenders}
    ours_best = max(rate for label, rate in best.items() if label.startswith("ours"))
    print(f"\n{title}\n{'':42}{'M/s best':>10}{'median':>10}{'ours / it':>11}{'first s':>9}")
    for c in contenders:
        print(
            f"{c.label:42}{best[c.label] / 1e6:10.1f}{np.median(c.rates) / 1e6:10.1f}"
            f"{ours_best / best[c.label]:11.2f}{c.first:9.2f}",
            flush=True,
        )


def contenders(name: str, beta: float, n_chains: int, with_thrml: bool) -> list[Contender]:
    n, is_sparse = bonds(name)[0], name == "lattice"

    def one(label, function, chains, processes=1, **options):
        program = functools.partial(_program, function, name, beta, chains, options)
        return Contender(label, n * chains, program, processes)

    peers = [
        *((f"dwave {c}", dwave, {"criterion": c}) for c in ("Metropolis", "Gibbs")),
        (f"openjij {'sparse' if is_sparse else 'dense'}", openjij, {"sparse": is_sparse}),
    ]
    found = [
        one(f"{label} x{processes}", function, 16, processes, **options)
        for label, function, options in peers
        for processes in (1, 2)
    ]
    if with_thrml:
        found += [one(f"thrml, {b} chains", thrml, b) for b in (8, 32, 128)]
    for chains in n_chains:
        found += [
            one(f"ours, {chains} chains, {d} device{'s' * (d > 1)}", ours, chains, devices=d)
            for d in (1, 2)
        ]
    return found


def _program(function, name, beta, chains, options, n_sweeps):
    function(name, beta, chains, n_sweeps, **options)


def single_chain(name: str, beta: float) -> None:
    program = functools.partial(_program, ours, name, beta, 1, {})
    peers = [
        Contender(
            f"dwave {c}",
            bonds(name)[0],
            functools.partial(_program, dwave, name, beta, 1, {"criterion": c}),
        )
        for c in ("Metropolis", "Gibbs")
    ]
    peers.append(
        Contender(
            "openjij",
            bonds(name)[0],
            functools.partial(_program, openjij, name, beta, 1, {"sparse": name == "lattice"}),
        )
    )
    compare(
        f"One chain: {name}, beta = {beta}", [*peers, Contender("ours", bonds(name)[0], program)]
    )


def restricted_machine() -> None:
    """A sweep of an RBM against the two matrix products that it cannot do without."""
    v, h = 784, 500
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(v, h)) / 20, jnp.float32)
    machine = tg.RBM(weights, jnp.zeros(v, jnp.float32), jnp.zeros(h, jnp.float32))

    @jax.jit
    def products(weights, x, n):
        return jax.lax.fori_loop(0, n, lambda _, x: weights @ (weights.T @ x) / 100, x)

    @jax.jit
    def sweeps(machine, spins, beta, key, n):
        step = jax.vmap(tg.Gibbs().step, in_axes=(None, -1, None, 0), out_axes=-1)

        def sweep(i, spins):
            keys = jax.random.split(jax.random.fold_in(key, i), spins.shape[1])
            return step(machine, spins, beta, keys)

        return jax.lax.fori_loop(0, n, sweep, spins)

    print(f"\nRBM 784 x 500: ms a sweep\n{'chains':>8}{'products':>10}{'sweep':>10}{'ratio':>8}")
    for n_chains in (64, 128, 256, 1024):
        start = jnp.ones((v, n_chains), jnp.float32)
        spins = jnp.ones((v + h, n_chains), jnp.float32)
        key, n = jax.random.key(0), 40_000 // n_chains

        def run_products(k, start=start):
            jax.block_until_ready(products(weights, start, k))

        def run_sweeps(k, spins=spins, key=key):
            jax.block_until_ready(sweeps(machine, spins, jnp.float32(1.0), key, k))

        times = {run_products: [], run_sweeps: []}
        for run in times:
            run(1)
        for _ in range(N_ROUNDS):
            for run, found in times.items():
                found.append((seconds(run, 3 * n) - seconds(run, n)) / (2 * n))
        best = [1e3 * min(found) for found in times.values()]
        print(f"{n_chains:8}{best[0]:10.3f}{best[1]:10.3f}{best[1] / best[0]:8.2f}", flush=True)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    for beta in (0.5, 1.0, 2.0):
        compare(
            f"Sherrington-Kirkpatrick model, {N_SPINS} spins, beta = {beta}",
            contenders("spin glass", beta, n_chains=(256, 1024, 4096), with_thrml=False),
        )
    compare(
        f"Square lattice, {SIZE} x {SIZE}, beta = 0.44",
        contenders("lattice", 0.44, n_chains=(32, 64, 128, 256), with_thrml=True),
    )
    single_chain("spin glass", 1.0)
    single_chain("lattice", 0.44)
    restricted_machine()
    pool().shutdown()
