"""Settings of the whole suite: double precision, strict ranks, cheap compilation, what is run."""

import collections
import os
import pathlib

from jaxlib import version as jaxlib

# Tests compile thousands of small programs, most of which run once: without optimisation XLA takes
# a fifth of the time for them. Speed is not tested here. XLA_FLAGS may give another level, for what
# computes for long. JAX reads this at its first array.
CHEAP = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jaxlib.__version__.startswith("0.10."):  # a later XLA ends the process at a flag it has lost
    CHEAP += " --xla_cpu_use_fusion_emitters=false"
if CHEAP not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{CHEAP} {os.environ.get('XLA_FLAGS', '')}"

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
# Broadcasting across ranks hides a forgotten batch axis.
jax.config.update("jax_numpy_rank_promotion", "raise")

# No deadline: the first example of a test pays for the compilation.
hypothesis.settings.register_profile(
    "thermogen", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("thermogen")


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drops compiled programs after a file, once they are many.

    Each keeps several memory maps. The suite's together exceed what Linux allows a process
    (vm.max_map_count, 65530), and XLA then dies in the middle of a compilation.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def unchecked():
    """Calls as users make them, without the run-time type checks of the suite."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Of a parametrised test this many cases run where no file is named.
N_CASES = 2
QUICK = "not slow and not further"


def pytest_configure(config):
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    # Workers are given paths by their controller, and ask it.
    config.is_cut = getattr(config, "workerinput", {}).get("is_cut", not named)
    if not config.is_cut and config.option.markexpr == QUICK:
        config.option.markexpr = "not slow"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["is_cut"] = node.config.is_cut


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks the cases of a parametrised test that come after its first ones as `further`."""
    if not config.is_cut:
        return
    seen = collections.Counter()
    for item in items:
        if not (item.get_closest_marker("slow") or item.get_closest_marker("further")):
            function = item.nodeid.partition("[")[0]
            seen[function] += 1
            if seen[function] > N_CASES:
                item.add_marker("further")
