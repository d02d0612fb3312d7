"""Parallel tempering of Edwards-Anderson glasses in three dimensions against other libraries.

Couplings +-1 on a torus of L^3 spins, on one ladder that is given to all. Round trips a second of
replicas between its ends, updates of spins a second, and independent overlaps a second at the cold
end: of two replicas, q = s . s' / n, whose square has an integrated autocorrelation time (peapods
gives it, ours comes from the record). hamon counts no overlaps, peapods no round trips. ferrotherm
tempers too, but returns nothing but an energy. Ours run in float32.

    python -m experiments benchmarks.tempering
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import thermogen as tg
from experiments.benchmarks import _peers, _watch
from thermogen import sampling

# As users have it who set nothing.
X64 = False

SIZES = {8: 16, 10: 24}  # rungs of each size
TEMPERATURES = (1.0, 2.0)  # the glass freezes at 1.1
# Turns last longer than elsewhere: many round trips, and many autocorrelation times.
TURN, OVERLAP_TURN = 2, 5


class Glass(NamedTuple):
    """Couplings +-1 of a cubic lattice, in all the forms that libraries ask for."""

    size: int
    pairs: np.ndarray
    couplings: np.ndarray

    @property
    def n_spins(self) -> int:
        return self.size**3

    def energy(self) -> tg.Interactions:
        return tg.Interactions(
            self.n_spins, [self.pairs], [jnp.asarray(self.couplings, jnp.float32)]
        )

    def colours(self) -> np.ndarray:
        return np.indices((self.size,) * 3).sum(axis=0).ravel() % 2


def glass(size: int, seed: int = 0) -> Glass:
    site = np.arange(size**3).reshape((size,) * 3)
    pairs = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in range(3)]
    couplings = np.random.default_rng([size, seed]).choice([-1.0, 1.0], 3 * size**3)
    return Glass(size, np.concatenate(pairs), couplings)


def betas(size: int) -> np.ndarray:
    return 1 / np.geomspace(*TEMPERATURES[::-1], SIZES[size])


class Run(NamedTuple):
    """What a run found.

    Attributes:
        sweeps: of a replica, over all replicas.
        trips: round trips, NaN where they are not counted.
        overlaps: independent values of the squared overlap at the cold end, NaN likewise.
    """

    sweeps: float
    trips: float = np.nan
    overlaps: float = np.nan


TRIPS = sampling.Trace(lambda _, state: state.round_trips, of="state")


def ours(sampler: tg.ParallelTempering, energy, n_ladders: int, n_sweeps: int, seed: int) -> Run:
    trips = tg.sample(
        sampler,
        energy,
        1.0 / TEMPERATURES[0],
        key=jax.random.key(seed),
        n_chains=n_ladders,
        n_sweeps=n_sweeps,
        thin=n_sweeps,
        observers=TRIPS,
    )
    return Run(n_sweeps * n_ladders * sampler.betas.size, float(np.sum(trips)))


def our_overlaps(sampler: tg.ParallelTempering, energy, n_sweeps: int, seed: int) -> Run:
    spins = tg.sample(
        sampler,
        energy,
        1.0 / TEMPERATURES[0],
        key=jax.random.key(seed),
        n_chains=2,
        n_sweeps=n_sweeps,
        burn_in=n_sweeps // 3,  # a quarter of all, as peapods has it
    )
    overlaps = np.mean(spins[0] * spins[1], axis=-1)
    tau = float(sampling.integrated_autocorrelation_time(overlaps[None] ** 2))
    return Run(
        2 * (n_sweeps + n_sweeps // 3) * sampler.betas.size, overlaps=overlaps.size / (2 * tau)
    )


@functools.cache
def hamon_model(size: int):
    import hamon
    from hamon.models import IsingEBM, IsingSamplingProgram

    model = glass(size)
    nodes = [hamon.SpinNode() for _ in range(model.n_spins)]
    edges = [(nodes[i], nodes[j]) for i, j in model.pairs]
    fields = jnp.zeros(model.n_spins)
    ebm = IsingEBM(nodes, edges, fields, jnp.asarray(model.couplings), jnp.asarray(1.0))
    colours = model.colours()
    blocks = [hamon.Block([nodes[k] for k in np.flatnonzero(colours == c)]) for c in (0, 1)]
    return ebm, IsingSamplingProgram(ebm, blocks, []), blocks


def hamon(size: int, ladder: np.ndarray, n_sweeps: int, seed: int) -> Run:
    from hamon.models import hinton_init
    from hamon.nrpt import nrpt

    ebm, program, blocks = hamon_model(size)
    key = jax.random.key(seed)
    starts = hinton_init(key, ebm, blocks, (len(ladder),))
    _, stats = nrpt(key, ebm, program, starts, [], n_sweeps, 1, betas=jnp.asarray(ladder))
    trips = stats["round_trip_diagnostics"]["round_trips_per_chain"]
    return Run(n_sweeps * len(ladder), float(np.sum(trips)))


def peapods(size: int, mode: str, houdayer: bool, n_sweeps: int, seed: int) -> Run:
    import peapods

    model = glass(size)
    couplings = np.moveaxis(model.couplings.reshape((3, *(size,) * 3)), 0, -1)
    temperatures = 1 / betas(size)[::-1]
    lattice = peapods.Ising(
        (size,) * 3, np.ascontiguousarray(couplings), temperatures, n_replicas=2
    )
    lattice.sample(
        n_sweeps,
        sweep_mode=mode,
        pt_interval=1,
        overlap_cluster_update_interval=1 if houdayer else None,
        autocorrelation_max_lag=1000,
    )
    # Its time is 1 + 2 times the sum of the autocorrelations; a quarter of the sweeps is discarded.
    overlaps = 0.75 * n_sweeps / lattice.overlap2_tau[0]
    return Run(2 * n_sweeps * len(temperatures), overlaps=float(overlaps))


class Contender:
    """A function of the number of sweeps and of a seed, in turns of equal time."""

    def __init__(self, who: str, package: str, run, turn: float = TURN):
        """`turn` is how many times longer a turn is than elsewhere."""
        self.who, self.package, self.run = who, package, run
        self.first = self.timed(20, 0)[1]
        self.n_sweeps, took, seconds = 25, 0.0, turn * _peers.now.pace.seconds
        while took < seconds / 10:
            self.n_sweeps *= 4
            self.timed(self.n_sweeps, 0)  # some compile for each number
            took = self.timed(self.n_sweeps, 0)[1]
        self.n_sweeps = max(int(self.n_sweeps * seconds / took), 100)
        self.timed(self.n_sweeps, 0)

    def timed(self, n_sweeps: int, seed: int) -> tuple[Run, float]:
        _peers.now.tell(self.who, self.package)
        began = time.perf_counter()
        run = self.run(n_sweeps, seed)
        return run, time.perf_counter() - began


FIGURES = {
    "round trips": ("round trips", lambda run, size: run.trips),
    "overlaps": ("independent overlaps", lambda run, size: run.overlaps),
    "updates": ("millions", lambda run, size: 1e-6 * run.sweeps * size**3),
}


def race(
    size: int, contenders: list[Contender], figures: tuple[str, ...] = ("round trips", "updates")
) -> list[_peers.Row]:
    """Rows of each figure, of those contenders that have it."""
    seeds = range(1, _peers.now.pace.rounds + 1)
    rounds = [[c.timed(c.n_sweeps, seed) for c in contenders] for seed in seeds]
    found, case = [], f"Edwards-Anderson, {size} x {size} x {size}, {SIZES[size]} rungs"
    for name in figures:
        unit, of_run = FIGURES[name]
        measured = []
        for contender, runs in zip(contenders, zip(*rounds, strict=True), strict=True):
            values = [of_run(run, size) / took for run, took in runs]
            who, unknown = (contender.who, contender.package), np.isnan(values)
            if unknown.any() and not unknown.all():
                note = f"no figure in {unknown.sum()} of {len(values)} rounds"
                measured.append(_peers.Measured(*who, [], contender.first, note))
            elif not unknown.any():
                measured.append(_peers.Measured(*who, values, contender.first))
        measured += _peers.missing("hamon", "peapods")
        found += _peers.rows(f"tempering, {name}", case, f"{unit} a second", measured)
    return found


def start(entries, turn: float = TURN) -> list[Contender]:
    """Those of who, package and function that can take part."""
    return [Contender(*entry, turn) for entry in entries if _peers.able(*entry[:2])]


def equal_ladder(size: int) -> list[_peers.Row]:
    energy, ladder = glass(size).energy(), jnp.asarray(betas(size), jnp.float32)
    gibbs, metropolis = (tg.ParallelTempering(ladder, k) for k in (tg.Gibbs(), tg.Metropolis()))
    own = [
        (f"{_peers.OURS}, {who}", _peers.OURS, functools.partial(ours, sampler, energy, n_ladders))
        for who, sampler, n_ladders in (
            ("one ladder", gibbs, 1),
            ("8 ladders", gibbs, 8),
            ("one ladder, Metropolis", metropolis, 1),
        )
    ]
    theirs = ("hamon", "hamon", functools.partial(hamon, size, betas(size)))
    return race(size, start([*own, theirs, *all_of_peapods(size)]))


def all_of_peapods(size: int) -> list:
    return [
        (f"peapods, {who}", "peapods", functools.partial(peapods, size, *how))
        for who, how in (
            ("heat bath", ("gibbs", False)),
            ("heat bath, Houdayer", ("gibbs", True)),
            ("Metropolis, Houdayer", ("metropolis", True)),
        )
    ]


def overlaps(size: int) -> list[_peers.Row]:
    energy, ladder = glass(size).energy(), jnp.asarray(betas(size), jnp.float32)
    run = functools.partial(our_overlaps, tg.ParallelTempering(ladder), energy)
    own = (f"{_peers.OURS}, two ladders", _peers.OURS, run)
    return race(size, start([own, *all_of_peapods(size)], OVERLAP_TURN), ("overlaps",))


def cases() -> dict[str, _peers.Case]:
    ladders = {f"{size} x {size} x {size}": functools.partial(equal_ladder, size) for size in SIZES}
    return ladders | {"overlaps": functools.partial(overlaps, min(SIZES))}


def main() -> None:
    _watch.alone(cases())
