"""Spin updates per second of samplers against those of nine other libraries.

Schedules are of one beta. A rate is the slope between a short and a long run of the same program,
so that setting up, compiling and reading out do not count; rounds of all contenders are
interleaved. On two cores, libraries of one thread run in two processes at once, and the chains of
those on JAX are spread over two devices of one core each. Ours draw threefry random numbers, in
float32.
Sweeps are of the heat bath, but where Metropolis is said, which decorrelates faster on a lattice.
mcising knows lattices of equal couplings alone, peapods lattices. hamon and thrml update the spins
of a colour at once, and a dense model has as many colours as spins: they run on the lattice. Needs
the extra `bench`.

    python -m experiments benchmarks.samplers
"""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments.benchmarks import _peers, _watch
from thermogen import sampling

# As users have it who set nothing.
X64 = False

SIZE = 64  # of the lattice
N_SPINS = 256  # of the spin glass
READS = 16  # of compiled libraries, whose rates do not depend on it


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


def openjij(name: str, beta: float, n_chains: int, n_sweeps: int) -> None:
    import openjij

    openjij.SASampler().sample(
        quadratic_model(name),
        num_reads=n_chains,
        schedule=[(beta, n_sweeps)],
        sparse=name == "lattice",
        seed=1,
    )


@functools.cache
def block_program(package: str, beta: float, n_chains: int, devices: int):
    """A jitted function of a key and the number of sweeps of thrml or hamon, its fork."""
    library, models = (importlib.import_module(f"{package}{part}") for part in ("", ".models"))
    n, pairs, couplings = bonds("lattice")
    nodes = [library.SpinNode() for _ in range(n)]
    edges = [(nodes[i], nodes[j]) for i, j in pairs]
    model = models.IsingEBM(nodes, edges, jnp.zeros(n), jnp.asarray(couplings), jnp.asarray(beta))
    board = np.indices((SIZE, SIZE)).sum(axis=0).ravel() % 2
    blocks = [library.Block([nodes[k] for k in np.flatnonzero(board == c)]) for c in (0, 1)]
    program = models.IsingSamplingProgram(model, blocks, clamped_blocks=[])

    @functools.partial(jax.jit, static_argnums=1)
    def run(key, n_sweeps):
        schedule = library.SamplingSchedule(n_sweeps, 1, 1)
        draw = lambda k, s: library.sample_states(k, program, schedule, s, [], blocks)  # noqa: E731
        keys = jax.random.split(key, n_chains)
        starts = models.hinton_init(key, model, blocks, (n_chains,))
        kinds = (jax.sharding.AxisType.Auto,)
        chains, mesh = jax.P("chains"), jax.make_mesh((devices,), ("chains",), axis_types=kinds)
        spread = {"mesh": mesh, "in_specs": chains, "out_specs": chains, "check_vma": False}
        return jax.shard_map(jax.vmap(draw), **spread)(keys, starts)

    return run


def block_gibbs(
    name: str, beta: float, n_chains: int, n_sweeps: int, package: str, devices: int
) -> None:
    run = block_program(package, beta, n_chains, devices)
    jax.block_until_ready(run(jax.random.key(0), n_sweeps))


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


@functools.cache
def ferrotherm_model(name: str, beta: float):
    import ferrotherm

    n, pairs, couplings = bonds(name)
    model = ferrotherm.Model(n)
    model.couple_many(
        (int(i), int(j), float(c)) for (i, j), c in zip(pairs, couplings, strict=True)
    )
    return model.build(beta=beta, seed=1)


def ferrotherm(name: str, beta: float, n_chains: int, n_sweeps: int) -> None:
    ferrotherm_model(name, beta).sweep(n_chains * n_sweeps)


def mcising(name: str, beta: float, n_chains: int, n_sweeps: int) -> None:
    from mcising._core import IsingSimulation

    one = IsingSimulation(SIZE, 1.0, 0.0, 0.0, 0.0, 1)
    one.sweep(n_chains * n_sweeps, temperature=1 / beta)


@functools.cache
def peapods_model(beta: float, n_chains: int):
    import peapods

    return peapods.Ising((SIZE, SIZE), temperatures=np.array([1 / beta]), n_replicas=n_chains)


def peapods(name: str, beta: float, n_chains: int, n_sweeps: int, mode: str) -> None:
    with np.errstate(all="ignore"):  # nothing is measured but in the last hundredth
        peapods_model(beta, n_chains).sample(n_sweeps, sweep_mode=mode, warmup_ratio=0.99)


def _program(function, name, beta, chains, options, n_sweeps):
    function(name, beta, chains, n_sweeps, **options)


class Entry(NamedTuple):
    """A contender before it is made: `function` of name, beta, chains and sweeps, and options."""

    who: str
    package: str
    function: Callable
    options: dict = {}

    def start(self, name: str, beta: float, chains: int, processes: int = 1) -> _peers.Contender:
        program = functools.partial(_program, self.function, name, beta, chains, self.options)
        work = bonds(name)[0] * chains
        return _peers.Contender(self.who, self.package, work, program, processes, self.module)

    @property
    def module(self) -> str:
        return self.package.replace("-", ".")


COMPILED = (
    Entry("dwave-samplers, Gibbs", "dwave-samplers", dwave, {"criterion": "Gibbs"}),
    Entry("dwave-samplers, Metropolis", "dwave-samplers", dwave, {"criterion": "Metropolis"}),
    Entry("openjij, Metropolis", "openjij", openjij),
    Entry("ferrotherm", "ferrotherm", ferrotherm),
    Entry("mcising, Metropolis", "mcising", mcising),
    Entry("peapods", "peapods", peapods, {"mode": "gibbs"}),
    Entry("peapods, Metropolis", "peapods", peapods, {"mode": "metropolis"}),
)


def compiled(name: str, beta: float, n_chains: int, processes: int) -> list[_peers.Contender]:
    """Libraries of one thread: as many processes at once as are asked for."""
    lattices = ("mcising", "peapods")
    entries = [e for e in COMPILED if name == "lattice" or e.package not in lattices]
    return [
        e.start(name, beta, n_chains, processes) for e in entries if _peers.able(e.who, e.module)
    ]


def traced(name: str, beta: float, n_chains: dict[str, tuple[int, ...]]) -> list[_peers.Contender]:
    """Libraries on JAX, ours among them: one process, chains spread over a device a core."""
    rules = {"": tg.Gibbs(), ", Metropolis": tg.Metropolis()}
    found = []
    for package, numbers in n_chains.items():
        for chains in numbers:
            who, options = _chains(package, chains), {"devices": min(_peers.cores(), chains)}
            if package == _peers.OURS:
                entries = [
                    Entry(who + rule, package, ours, options | {"sampler": sampler})
                    for rule, sampler in rules.items()
                    if chains <= 256 or not rule
                ]
            else:
                entries = [Entry(who, package, block_gibbs, options | {"package": package})]
            found += [e.start(name, beta, chains) for e in entries if _peers.able(e.who, e.module)]
    return found


def _chains(package: str, n: int) -> str:
    return f"{package}, {n} chain{'s' * (n > 1)}"


LATTICE = f"square lattice, {SIZE} x {SIZE}"
GLASS = f"Sherrington-Kirkpatrick, {N_SPINS} spins"
EVERYWHERE, ON_LATTICES = ("dwave.samplers", "openjij", "ferrotherm"), ("mcising", "peapods")


def glass(title: str, beta: float) -> list[_peers.Row]:
    contenders = traced("spin glass", beta, {_peers.OURS: (256, 1024)})
    contenders += compiled("spin glass", beta, READS, _peers.cores())
    return race(title, contenders, EVERYWHERE)


def lattice(title: str) -> list[_peers.Row]:
    contenders = traced("lattice", 0.44, {_peers.OURS: (256,), "thrml": (32,), "hamon": (32,)})
    contenders += compiled("lattice", 0.44, READS, _peers.cores())
    return race(title, contenders, (*EVERYWHERE, *ON_LATTICES, "thrml", "hamon"))


def one_chain_of_a_glass(title: str) -> list[_peers.Row]:
    contenders = traced("spin glass", 1.0, {_peers.OURS: (1,)}) + compiled("spin glass", 1.0, 1, 1)
    return race(title, contenders, EVERYWHERE)


def one_chain_of_a_lattice(title: str) -> list[_peers.Row]:
    one = dict.fromkeys((_peers.OURS, "thrml", "hamon"), (1,))
    contenders = traced("lattice", 0.44, one) + compiled("lattice", 0.44, 1, 1)
    return race(title, contenders, (*EVERYWHERE, *ON_LATTICES, "thrml", "hamon"))


def race(title: str, contenders: list[_peers.Contender], modules) -> list[_peers.Row]:
    measured = [
        m._replace(values=[value / 1e6 for value in m.values]) for m in _peers.race(contenders)
    ]
    measured += _peers.missing(*modules)
    return _peers.rows("spin updates", title, "millions a second", measured)


def cases() -> dict[str, _peers.Case]:
    cores = _peers.cores()
    jax.config.update("jax_num_cpu_devices", cores)
    titles = {f"{GLASS}, beta = {beta}": functools.partial(glass, beta=beta) for beta in (0.5, 2.0)}
    titles[f"{LATTICE}, beta = 0.44"] = lattice
    if cores == 1:
        titles[f"{GLASS}, one chain, beta = 1.0"] = one_chain_of_a_glass
        titles[f"{LATTICE}, one chain, beta = 0.44"] = one_chain_of_a_lattice
    return {title: functools.partial(case, title) for title, case in titles.items()}


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
        step = jax.vmap(tg.Gibbs().step, in_axes=(None, None, -1, 0), out_axes=-1)

        def sweep(i, spins):
            keys = jax.random.split(jax.random.fold_in(key, i), spins.shape[1])
            return step(machine, beta, spins, keys)[0]

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
        for _ in range(_peers.now.pace.rounds):
            for run, found in times.items():
                found.append((_peers.seconds(run, 3 * n) - _peers.seconds(run, n)) / (2 * n))
        best = [1e3 * min(found) for found in times.values()]
        print(f"{n_chains:8}{best[0]:10.3f}{best[1]:10.3f}{best[1] / best[0]:8.2f}", flush=True)


def main() -> None:
    _watch.alone(cases())
    restricted_machine()
