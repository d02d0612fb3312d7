"""What does the command save by the programs that it keeps on disk?

`thermogen study` runs in fresh processes: without the cache, with an empty one, and with what the
run before left there. JAX reports each program: seconds of the compiler, of loading included, and
of tracing and lowering, which no cache saves. Tracing of a function within another counts in both.

    python -m experiments benchmarks.compile_once
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from thermogen import _programs

_EVENTS = {
    "/jax/core/compile/backend_compile_duration": "compiled or loaded",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowered",
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/compilation_cache/cache_retrieval_time_sec": "of which loaded",
}


def measure(data: str, out: pathlib.Path, cached: bool) -> None:
    """Runs the command in this process and prints its seconds and programs, by event."""
    began = time.perf_counter()
    (_programs.keep if cached else _programs.forget)()  # before JAX is imported
    import jax

    found = collections.defaultdict(lambda: [0.0, 0])

    def heard(event: str, seconds: float, **_) -> None:
        if event in _EVENTS:
            found[_EVENTS[event]][0] += seconds
            found[_EVENTS[event]][1] += 1

    jax.monitoring.register_event_duration_secs_listener(heard)
    from thermogen import __main__

    sys.argv = ["thermogen", "study", data, "--out", str(out)]
    sys.argv += [] if cached else ["--no-cache"]
    try:
        __main__.main()
    except SystemExit as end:
        assert not end.code, end.code
    found["in all"] = [time.perf_counter() - began, 1]
    print(json.dumps(found))


def main(data: str = "digits") -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
        environment |= {"XDG_CACHE_HOME": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        for name, cached in (("no cache", False), ("empty cache", True), ("full cache", True)):
            code = "import sys, pathlib; from experiments.benchmarks.compile_once import measure\n"
            code += f"measure({data!r}, pathlib.Path({folder!r}) / 'out', {cached})"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{name}:", end="")
            for event in ("in all", *_EVENTS.values()):
                seconds, count = found.get(event, (0.0, 0))
                programs = f" ({count})" if event != "in all" else ""
                print(f"  {event} {seconds:.1f} s{programs}", end="")
            print(flush=True)
        kept = list(pathlib.Path(folder).glob("thermogen/programs-*/*-cache"))
        size = sum(path.stat().st_size for path in kept)
        print(f"kept: {len(kept)} programs, {size / 1e6:.1f} MB")
