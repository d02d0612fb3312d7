"""Big inputs from load to recall: seconds, peak memory and what came of each step.

Four of them: 10^6 samples of 40 spins, 60 000 of 784, and glasses of 10^5 spins with Gaussian
couplings on a square lattice with periodic boundaries and on a random 3-regular graph. Each step
runs in a process of its own, so that the peak of its resident memory is its own; data, models and
libraries go from one to the next by files. "compile" is what XLA's compiler took of the seconds.
Steps that cannot be done are asked for all the same: what they say stands in the last column.
Starts, chains and sweeps are few, so that no step takes more than some minutes; sizes are not cut.

    python -m experiments benchmarks.big_inputs [--folder DIR] [--only STEP ...]
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import networkx as nx
import numpy as np

import thermogen as tg
from thermogen import learning, storage

# As users have it who set nothing.
X64 = False

KEY = jax.random.key(0)
NAIVE = tg.NaiveMeanField()
# What is asked of a step: the folder of all files. What it returns: what ran, and what came of it.
Step = Callable[[Path], tuple[str, str]]
SPARSE = ("lattice", "3-regular")


def bonds(name: str) -> tuple[int, np.ndarray]:
    if name == "lattice":
        site = np.arange(316**2).reshape(316, 316)
        pairs = [np.stack([site, np.roll(site, -1, axis)], -1).reshape(-1, 2) for axis in (0, 1)]
        return site.size, np.concatenate(pairs)
    return 10**5, np.array(nx.random_regular_graph(3, 10**5, seed=0).edges)


def glass(name: str, scale: float = 1.0) -> tg.Interactions:
    n, pairs = bonds(name)
    couplings = scale * np.random.default_rng(0).normal(size=len(pairs))
    return tg.Interactions(n, [pairs], [couplings.astype(np.float32)])


def zeros(n: int) -> tg.Pairwise:
    return tg.Pairwise(np.zeros((n, n), np.float32), np.zeros(n, np.float32))


def write(folder: Path) -> tuple[str, str]:
    """Noisy copies of patterns, eight of 40 spins and ten of 784, as bits."""
    rng = np.random.default_rng(0)
    for n_samples, n, n_patterns, noise in ((10**6, 40, 8, 0.2), (60_000, 784, 10, 0.15)):
        patterns = rng.integers(2, size=(n_patterns, n), dtype=np.int8)
        data = patterns[rng.integers(n_patterns, size=n_samples)]
        data ^= rng.random(data.shape, np.float32) < noise
        np.save(folder / f"{n}.npy", data)
        if n == 40:
            np.savez(folder / "40.npz", data.astype(float))
            np.savetxt(folder / "40.csv", data, "%d", ",")
    return "files of bits: int8, float64 and text", "4 files"


def load(name: str) -> Step:
    def step(folder: Path):
        spins = tg.datasets.load(folder / name)
        size = (folder / name).stat().st_size / 1e6
        return f"{name}, {size:.0f} MB", f"{spins.shape}, {spins.nbytes / 1e6:.0f} MB of float64"

    return step


def spins_of(folder: Path, n: int) -> np.ndarray:
    """As bytes: products of whole samples are not asked for here."""
    return 2 * np.load(folder / f"{n}.npy") - 1


def fit(n: int, **options) -> Step:
    def step(folder: Path):
        result = tg.fit(tg.Pseudolikelihood(), zeros(n), spins_of(folder, n), key=KEY, **options)
        storage.save_energy(folder / f"{n}.model", result.energy)
        how = f"batches of {options['batch_size']}" if "batch_size" in options else "all samples"
        return f"pseudolikelihood, {how}, float32", ended(result)

    return step


def ended(result) -> str:
    return f"{result.result.names} after {len(result.history)} steps"


def fit_machine(folder: Path) -> tuple[str, str]:
    data = spins_of(folder, 784)
    start = tg.RBM.random(100, np.mean(data, axis=0, dtype=float).astype(np.float32), key=KEY)
    options = {"n_steps": 100, "batch_size": 500}
    objective = learning.PersistentCD(n_chains=500)
    result = tg.fit(objective, start, data, key=KEY, **options)
    return "RBM of 784 x 100, 500 chains, batches of 500", ended(result)


def fit_sparse(name: str) -> Step:
    def step(folder: Path):
        energy = glass(name)
        options = {"n_chains": 100, "n_sweeps": 50, "thin": 50}
        data = np.asarray(tg.sample(tg.Gibbs(), energy, 0.5, key=KEY, **options)[:, 0], np.int8)
        result = tg.fit(tg.Pseudolikelihood(l2=0.05), glass(name, 0.0), data, key=KEY)
        told = np.corrcoef(result.energy.couplings[0], energy.couplings[0])[0, 1]
        what = "100 samples at beta = 0.5, pseudolikelihood (l2 = 0.05)"
        return what, f"{ended(result)}; correlation with the couplings {told:.2f}"

    return step


def model(folder: Path, name: str) -> tg.AbstractEnergy:
    return glass(name) if name in SPARSE else storage.load_energy(folder / f"{name}.model")


def sample(name: str) -> Step:
    def step(folder: Path):
        energy = model(folder, name)
        n_chains, n_sweeps = {"40": (10_000, 200), "784": (1000, 100)}.get(name, (64, 100))
        observers = tg.sampling.Mean(lambda energy, spins: energy(spins)), tg.sampling.Mean()
        options = {"n_chains": n_chains, "n_sweeps": n_sweeps, "observers": observers}
        mean, _ = tg.sample(tg.Gibbs(), energy, 1.0, key=KEY, **options)
        came = f"energy a spin {float(mean) / energy.n_spins:.3f}"
        return f"{n_chains} chains, {n_sweeps} sweeps, mean energy and means", came

    return step


def search(name: str, n_starts: int, *, from_data: bool = False) -> Step:
    def step(folder: Path):
        energy = model(folder, name)
        starts = spins_of(folder, energy.n_spins) if from_data else None
        options = {"n_starts": n_starts, "starts": starts}
        library = tg.find_minima(NAIVE, energy, 1.0, key=KEY, **options)
        storage.save_library(folder / f"{name}.library", library[:4])
        rough = f"largest residual {library.residuals.max():.0e}" if len(library) else ""
        given = f"all {len(starts)} samples and " if starts is not None else ""
        came = f"{len(library)} minima, {int(library.unresolved)} unresolved, {rough}"
        return f"naive mean field, {given}{n_starts} random starts", came

    return step


def certify(name: str, dynamics: str) -> Step:
    def step(folder: Path):
        energy, library = model(folder, name), storage.load_library(folder / f"{name}.library")
        sparse = name in SPARSE
        held = library[:2] if sparse else library
        size = {"n_trajectories": 16, "horizon": 3} if sparse else {}
        kernel = getattr(tg, dynamics)()
        found = tg.certify(energy, 1.0, held, key=KEY, threshold=20, dynamics=kernel, **size)
        what = f"{len(held)} minima, 20 sweeps of {dynamics}"
        return what, f"{found.count} bound states, mirror images counted"

    return step


def bound_states(name: str) -> Step:
    def step(folder: Path):
        energy, library = model(folder, name), storage.load_library(folder / f"{name}.library")
        options = {"dynamics": tg.Gibbs(), "n_trajectories": 16, "n_populations": 0, "n_starts": 2}
        found = tg.find_bound_states(energy, 1.0, key=KEY, library=library[:2], **options)
        what = "2 minima, 2 descents of E, Gibbs, no replicas"
        return what, f"{found.certificate.count} bound states of {found.library.size} candidates"

    return step


def recall(name: str) -> Step:
    def step(folder: Path):
        energy = model(folder, name)
        state = np.sign(storage.load_library(folder / f"{name}.library").magnetizations[0])
        cue = np.where(np.arange(energy.n_spins) % 2, state, 0)
        answers = tg.recall(energy, 1.0, cue, key=KEY)
        overlap = np.mean(np.asarray(answers.configurations[0]) * state)
        what = "half of a minimum, cooled chains, 64 x 100 sweeps"
        return what, f"{answers.result.names}, overlap of the best answer {overlap:.2f}"

    return step


def refused(what: str, ask: Callable[[tg.Interactions], object]) -> Step:
    def step(folder: Path):
        energy = glass("lattice")
        try:
            ask(energy)
        except ValueError as error:
            return what, f"refused: {str(error).split('. ')[0]}"
        return what, "done"

    return step


STEPS: dict[str, Step] = {
    "files": write,
    "load-40-npy": load("40.npy"),
    "load-40-npz": load("40.npz"),
    "load-40-csv": load("40.csv"),
    "load-784-npy": load("784.npy"),
    "fit-40": fit(40),
    "fit-784-batches": fit(784, batch_size=1000, n_steps=300),
    "fit-784": fit(784, n_steps=20),
    "fit-784-machine": fit_machine,
    **{f"fit-{name}": fit_sparse(name) for name in SPARSE},
    **{f"sample-{name}": sample(name) for name in ("40", "784", *SPARSE)},
    "search-40": search("40", 576, from_data=True),
    "search-784": search("784", 64),
    **{f"search-{name}": search(name, 16) for name in SPARSE},
    **{f"certify-{name}": certify(name, "HeatBath") for name in ("40", "784")},
    **{f"certify-{name}": certify(name, "Gibbs") for name in SPARSE},
    **{f"bound-states-{name}": bound_states(name) for name in SPARSE},
    **{f"recall-{name}": recall(name) for name in ("40", "784", *SPARSE)},
    "exact-lattice": refused("exact.log_partition", lambda e: tg.exact.log_partition(e, 1.0)),
    "solve-lattice": refused("solve", lambda e: tg.solve(NAIVE, e, 1.0, np.zeros(e.n_spins))),
    "susceptibility-lattice": refused(
        "susceptibility", lambda e: tg.susceptibility(NAIVE, e, 1.0, np.zeros(e.n_spins))
    ),
}


def one(name: str, folder: Path) -> None:
    """One step in this process, as a row of the table."""
    compiling = [0.0]

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiling[0] += duration

    jax.monitoring.register_event_duration_secs_listener(listen)
    began = time.perf_counter()
    what, came = STEPS[name](folder)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"| {name} | {what} | {seconds:.1f} | {compiling[0]:.1f} | {peak:.2f} | {came} |")


def main(*, folder: Path | None = None, only: tuple[str, ...] = (*STEPS,), step: str = "") -> None:
    if step:
        return one(step, folder or Path())
    print("| step | what ran | seconds | compile | peak GB | what came of it |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = str(folder or temporary)
        for name in only:
            command = [sys.executable, "-m", "experiments", "benchmarks.big_inputs"]
            done = subprocess.run(
                [*command, "--step", name, "--folder", place], capture_output=True, text=True
            )
            rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
            died = f"| {name} | ended with code {done.returncode}: {done.stderr[-300:]} |"
            print(*(rows or [died]), sep="\n", flush=True)
