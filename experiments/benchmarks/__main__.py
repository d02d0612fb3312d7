"""All comparisons with other libraries in one run: the library against its peers, side by side.

    python -m experiments.benchmarks                      # all
    python -m experiments.benchmarks --only walsh search  # some
    python -m experiments.benchmarks --page docs/peers.md # and the tables of that page

Each comparison is a script of this folder that can be run alone, with a function `compare`. It runs
in a process of its own, first on one core and then, where it says so, on two. Contenders take
turns; a figure is the median over the rounds, with half of the distance between the quartiles.
Compiling counts nowhere but in the column of the first call. A peer that cannot be imported has a
row that says why. Needs the extra `bench`, and `bench-large` for the peers that bring torch.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import platform
import time
from pathlib import Path

import jax

from experiments.benchmarks import _peers

# Number of cores that each comparison is run on.
COMPARISONS = {
    "walsh": (1, 2),
    "samplers": (1, 2),
    "tempering": (1,),
    "ground_states": (1,),
    "exact": (1,),
    "free_energy": (1,),
    "learning": (1,),
    "search": (1,),
}


def on_cores(name: str, n_cores: int) -> list[_peers.Row]:
    """The same in a new process, which inherits the cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:n_cores])
    try:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as executor:
            return executor.submit(_peers.compare, name).result()
    except Exception as error:  # the others are run, and this one has a row that says so
        print(f"{name}: {type(error).__name__}: {error}")
        return _peers.failed(name, n_cores, error)
    finally:
        os.sched_setaffinity(0, allowed)


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--page", type=Path, help="page whose tables are written anew")
    options = parser.parse_args()
    began, found = time.perf_counter(), []
    print(f"{processor()}, {_peers.cores()} cores; jax {jax.__version__}")
    for name in options.only:
        for n_cores in COMPARISONS[name]:
            if n_cores <= _peers.cores():
                found += on_cores(name, n_cores)
                _peers.save(found, options.out / "peers.json")
    (options.out / "peers.md").write_text(_peers.markdown(found))
    if options.page is not None:
        _peers.write_page(found, options.page)
    print(f"\n{time.perf_counter() - began:.0f} s; {options.out / 'peers.json'}, peers.md")


if __name__ == "__main__":
    main()
