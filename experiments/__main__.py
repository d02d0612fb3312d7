"""Runs the scripts of this folder: one script a claim, one runner.

    python -m experiments                           # what there is
    python -m experiments births --out DIR          # one of them
    python -m experiments all --quick               # all that make claims, in a quarter of an hour
    python -m experiments benchmarks.search naive   # a benchmark

A script is a module with a `main`, whose parameters are its options: `out: Path = ...` is
`--out`, a `bool` is a flag, a tuple takes several values (of words: some of its default), and what
is positional-only follows the name. Scripts run in double precision unless they say `X64 = False`.
A module's `QUICK` holds values of its options for a shorter run, which `--quick` takes in place of
the defaults. A script that makes claims leaves `NAME.claims.json` in its folder `--out`: title,
options, claims with verdict and statistic, seconds, picture.

A script whose `main` takes a `task` can be shared by the tasks of an array: `--task 3 --tasks 10`,
or the variables of SLURM. Each takes every tenth of the instances (models, seeds, cases), from its
own number on, and writes its tables to a folder of its own within `--out`: `thermogen merge` unites
them to the table of one run. What a task prints and draws is of its own instances.

    python -m experiments ridge --task 3 --tasks 5 --out results
    thermogen merge results
"""

import argparse
import importlib
import inspect
import pathlib
import sys
import time
import types
import typing

import jax

from experiments import _shared
from thermogen import _tasks

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """All scripts, the benchmarks last."""
    files = [*sorted(FOLDER.glob("[!_]*.py")), *sorted(FOLDER.glob("*/[!_]*.py"))]
    return [".".join(file.relative_to(FOLDER).with_suffix("").parts) for file in files]


def read(name: str, module: types.ModuleType, arguments: list[str]) -> tuple[list, dict]:
    """Values of the parameters of a script's `main`: by position and by name."""
    summary = (module.__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(
        f"python -m experiments {name}", description=summary, allow_abbrev=False
    )
    parameters = inspect.signature(module.main).parameters.values()
    hints = typing.get_type_hints(module.main)
    shared = "task" in hints
    for p in parameters:
        if p.name == "task":
            parser.add_argument("--task", type=int, help="number of this task, from 0")
            parser.add_argument("--tasks", type=int, help="number of all tasks")
            continue
        flag = p.name if p.kind is p.POSITIONAL_ONLY else f"--{p.name}"
        kind = (*typing.get_args(hints[p.name]), hints[p.name])[0]
        if kind is bool:
            parser.add_argument(flag, action="store_true")
        else:
            several = {"nargs": "*"} if isinstance(p.default, tuple) else {}
            parser.add_argument(flag, type=kind, default=p.default, **several)
    quick = getattr(module, "QUICK", None)
    if quick is not None and "quick" not in hints:
        parser.add_argument("--quick", action="store_true", help="smaller settings")
    if quick and "--quick" in arguments:
        parser.set_defaults(**quick)
    values = {k: v for k, v in vars(parser.parse_args(arguments)).items() if k in (*hints, "tasks")}
    for p in parameters:
        if isinstance(p.default, tuple) and isinstance(p.default[0], str):
            unknown = [word for word in values[p.name] if word not in p.default]
            if unknown:
                parser.error(f"{p.name}: {unknown[0]} is none of {', '.join(p.default)}")
    try:
        task = _tasks.this_task(values.get("task"), values.pop("tasks", None))
        if shared:
            values |= {"task": task, "out": task.folder(values["out"])}
        elif task.count > 1:
            parser.error("the tasks of an array would all do the same: this script has none")
    except ValueError as error:
        parser.error(str(error))
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    return [values.pop(name) for name in by_position], values


def record(name: str, module: types.ModuleType, quick: bool, options: dict, seconds: float) -> dict:
    """What a script claimed, with which options, and what came of it."""
    plain = (bool, int, float, str, list, tuple)
    return {
        "name": name,
        "title": (module.__doc__ or "").splitlines()[0],
        "quick": quick,
        "configuration": {k: v for k, v in options.items() if isinstance(v, plain)},
        "claims": _shared.CLAIMS,
        "seconds": round(seconds, 1),
        "picture": (*_shared.PICTURES, None)[0],
    }


def main() -> None:
    if len(sys.argv) == 1 or sys.argv[1] not in names():
        for name in names():
            file = FOLDER.joinpath(*name.split(".")).with_suffix(".py")
            print(f"{name:28}{file.read_text().splitlines()[0].strip(chr(34))}")
        sys.exit(len(sys.argv) > 1)
    name = sys.argv[1]
    module = importlib.import_module(f"experiments.{name}")
    by_position, by_name = read(name, module, sys.argv[2:])
    jax.config.update("jax_enable_x64", getattr(module, "X64", True))
    if "task" in by_name:
        by_name["out"].mkdir(parents=True, exist_ok=True)
        told = {key: str(by_name[key]) for key in by_name if key not in ("task", "out")}
        told |= {"script": name, "arguments": [str(value) for value in by_position]}
        _tasks.record(by_name["out"], by_name["task"], told)
    began = time.perf_counter()
    module.main(*by_position, **by_name)
    seconds = time.perf_counter() - began
    if _shared.CLAIMS and "out" in by_name:
        positional = inspect.signature(module.main).parameters
        options = dict(zip(positional, by_position, strict=False)) | by_name
        told = record(name, module, "--quick" in sys.argv, options, seconds)
        _shared.save(by_name["out"] / f"{name}.claims.json", told)
    print(f"\n{seconds:.0f} s")


if __name__ == "__main__":
    main()
