"""All comparisons with other libraries in one run: the library against its peers, side by side.

    python -m experiments.benchmarks                      # all
    python -m experiments.benchmarks --only walsh search  # some
    python -m experiments.benchmarks --page docs/peers.md # and the tables of that page

Each comparison is a script of this folder that can be run alone, with a function `cases`. It runs
in a process of its own, first on one core and then, where it says so, on two, and has a time: what
is not reached by then, and a contender that hangs or crashes, has a row that says so. Contenders
take turns; a figure is the median over the rounds, with half of the distance between the quartiles.
Compiling counts nowhere but in the column of the first call, importing nowhere. A peer that cannot
be imported has a row that says why. `peers.json` is written after every comparison; `--only` renews
the rows of some and keeps the others, and of none, it writes the page from the file. Needs the
extra `bench`, and `bench-large` for the peers that bring torch.
"""

import argparse
import platform
import time
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks import _peers, _tables, _watch

# Seconds of each comparison by the number of cores that it is run on: 20 minutes at most.
COMPARISONS = {
    "walsh": {1: 20, 2: 20},
    "samplers": {1: 190, 2: 100},
    "tempering": {1: 160},
    "ground_states": {1: 380},
    "exact": {1: 15},
    "free_energy": {1: 50},
    "learning": {1: 20},
    "machines": {1: 160},
    "search": {1: 75},
}


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine() -> dict[str, str]:
    """What a reader has to know of where the rows come from."""
    python = platform.python_version()
    versions = {"Python": python, "jax": jax.__version__, "numpy": np.__version__}
    return {"processor": processor(), "cores": str(_peers.cores())} | versions


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--page", type=Path, help="page whose tables are written anew")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    options = parser.parse_args()
    began, file = time.perf_counter(), options.out / "peers.json"
    pace = _peers.QUICK if options.quick else _peers.Pace()
    here = machine() | ({"measured": "nothing, one short round"} if options.quick else {})
    results = _tables.load(file) if file.exists() else _tables.Results(here, [])
    if options.only and results.machine != here:
        results = _tables.Results(here, [])
    print(", ".join(f"{name} {value}" for name, value in results.machine.items()))
    for name in options.only:
        for n_cores, seconds in COMPARISONS[name].items():
            if n_cores <= _peers.cores():
                module = f"{__package__}.{name}"
                rows = _watch.Comparison(module, n_cores, seconds, pace).run()
                results = results.renewed(rows)
                _tables.save(results, file)
                print(f"\n{name}, {n_cores} cores: {time.perf_counter() - began:.0f} s so far")
    (options.out / "peers.md").write_text(_tables.page(results))
    if options.page is not None:
        _tables.write_page(results, options.page)
    print(f"\n{time.perf_counter() - began:.0f} s; {file}, peers.md")


if __name__ == "__main__":
    main()
