"""Tables of 2^n entries that are split over devices: memory of each, and time.

Each row is a process of its own, so that its peak of memory is, too. Devices are accelerators where
there are any, else a processor is so many of them. Argument, result and work are MiB of one device,
by the compiled program; "peak" is MiB of the process, all devices of a processor together; "first"
are seconds with the compilation, "then" the best of three. "differs" is how far the last entry of
the result is from that of the first number of devices, relative to it.

    python -m experiments benchmarks.tables
    python -m experiments benchmarks.tables --n_spins 32 --n_devices 8 --compile_only
"""

import json
import resource
import subprocess
import sys
import time

import equinox as eqx
import jax
import numpy as np

import thermogen as tg

# Entries drawn at once: a table is the same on any number of devices.
BLOCK = 2**12

MIB = 2**20


def transform(energy):
    return tg.walsh_transform(energy.couplings)


def log_partition(energy):
    return tg.exact.log_partition(energy, 1.0)


def gradient(energy):
    return jax.grad(tg.exact.log_partition)(energy, 1.0).couplings


def magnetizations(energy):
    return tg.exact.magnetizations(energy, 1.0)


JOBS = {f.__name__: f for f in (transform, log_partition, gradient, magnetizations)}


def table(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Random couplings, each part made where it lies."""

    def part(index):
        start, stop, _ = index[0].indices(shape.size)
        drawn = [
            np.random.default_rng(block).normal(size=BLOCK)
            for block in range(start // BLOCK, stop // BLOCK)
        ]
        return (np.concatenate(drawn) * np.sqrt(24 / shape.size)).astype(shape.dtype)

    return jax.make_array_from_callback(shape.shape, shape.sharding, part)


def measure(job: str, n: int, n_devices: int, dtype: str, compile_only: bool) -> dict[str, float]:
    jax.config.update("jax_num_cpu_devices", n_devices)
    where = jax.NamedSharding(jax.make_mesh((n_devices,), ("parts",)), jax.P("parts"))
    shape = jax.ShapeDtypeStruct((2**n,), dtype, sharding=where)
    couplings = shape if compile_only else table(shape)
    energy = eqx.tree_at(lambda e: e.couplings, tg.Complete(np.zeros(1)), couplings)
    began = time.perf_counter()
    compiled = jax.jit(JOBS[job]).lower(energy).compile()
    held = compiled.memory_analysis()
    row = {
        "argument": held.argument_size_in_bytes / MIB,
        "result": held.output_size_in_bytes / MIB,
        "work": held.temp_size_in_bytes / MIB,
    }
    if compile_only:
        return row
    times = []
    for _ in range(4):
        result = jax.block_until_ready(compiled(energy))
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    last = float(np.ravel(result.addressable_shards[-1].data)[-1])
    return row | {"first": times[0], "then": min(times[1:]), "last": last}


def main(
    job: str = "",
    dtype: str = "",
    n_spins: int = 24,
    n_devices: tuple[int, ...] = (1, 2, 8),
    compile_only: bool = False,
) -> None:
    if job:  # in this process
        print(json.dumps(measure(job, n_spins, n_devices[0], dtype, compile_only)))
        return
    columns = ["argument", "result", "work"]
    columns += [] if compile_only else ["peak", "first", "then", "differs"]
    print(f"{'job':16}{'dtype':9}{'devices':>7}" + "".join(f"{c:>9}" for c in columns))
    for name in JOBS:
        for kind in ("float32", "float64"):
            truth = None
            for count in n_devices:
                command = [sys.executable, "-m", "experiments", "benchmarks.tables"]
                command += ["--job", name, "--dtype", kind]
                command += ["--n_spins", str(n_spins), "--n_devices", str(count)]
                command += ["--compile_only"] * compile_only
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[0])
                if "last" in row:
                    truth = row["last"] if truth is None else truth
                    row["differs"] = abs(row["last"] / truth - 1)
                numbers = "".join(
                    f"{row[c]:9.2g}" if row[c] < 1 else f"{row[c]:9.1f}" for c in columns
                )
                print(f"{name:16}{kind:9}{count:7}{numbers}", flush=True)
