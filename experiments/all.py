"""Runs every script of the gallery, two at once, and lists what holds and what fails.

Each is a process of its own, `python -m experiments NAME`, with one thread; what it prints goes to
NAME.txt, its picture, tables and claims to the folder beside it. Those that take longest go first.
A claim that fails is a result; a script that ends with an error is not, and makes this one fail.

    python -m experiments all --quick [--only access remedy] [--out DIR]
"""

import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from experiments.gallery import NAMES, load, summary

# Those that take longest, so that none of them is begun last.
SLOWEST = (
    "truth",
    "weights",
    "sparse_accuracy",
    "design",
    "remedy",
    "false_positives",
    "accuracy",
    "access",
    "influence",
    "learning_against_cutting",
)


def ran(name: str, quick: bool, out: pathlib.Path) -> bool:
    """Whether a script came to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "experiments", name, "--out", str(out), *["--quick"] * quick]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (out / f"{name}.txt").open("w") as told:
        code = subprocess.run(
            command, stdout=told, stderr=subprocess.STDOUT, env=os.environ | one_thread
        ).returncode
    failed = f", ended with {code}: see {name}.txt" if code else ""
    print(f"{name:26}{time.perf_counter() - began:6.0f} s{failed}", flush=True)
    return code == 0


def main(
    *,
    quick: bool = False,
    only: tuple[str, ...] = NAMES,
    out: pathlib.Path = pathlib.Path("results/gallery"),
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    order = sorted(only, key=lambda name: SLOWEST.index(name) if name in SLOWEST else len(SLOWEST))
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda name: ran(name, quick, out), order))
    print(summary(load(out, [name for name, whole in zip(order, ended, strict=True) if whole])))
    sys.exit(not all(ended))
