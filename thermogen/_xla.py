"""What is known of the compiler: nothing heavy is imported, for the command line asks first."""

from jaxlib import version as jaxlib

# Fewer passes of the compiler, by series of jaxlib. XLA ends the process at a flag that it does not
# know, and its flags come and go: a series that is not here, because it was not tried, has none.
_FEW_PASSES = {
    "0.10.": {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False},
    "0.12.": {"xla_backend_optimization_level": 1},
}


def few_passes() -> dict[str, int]:
    """Options of XLA, by name, for programs of a processor that run a few times.

    They take half of the time to make, and a sixth more to run. On accelerators LLVM has another
    part.
    """
    series = [name for name in _FEW_PASSES if jaxlib.__version__.startswith(name)]
    return _FEW_PASSES[series[0]] if series else {}
