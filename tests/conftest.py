"""Settings of the whole suite: double precision, strict ranks, reproducible examples."""

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
    """Drops a file's compiled programs after it.

    Each keeps several memory maps. The suite's together exceed what Linux allows a process
    (vm.max_map_count, 65530), and XLA then dies in the middle of a compilation.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked():
    """Calls as users make them, without the run-time type checks of the suite."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
